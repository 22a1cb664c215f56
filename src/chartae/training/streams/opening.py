"""Which way data are read that need not fit in memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chartae.core.columns import is_frame
from chartae.core.errors import DataError
from chartae.training.streams.arrays import Streamed, of_array, of_file
from chartae.training.streams.items import of_dataset, of_iterable
from chartae.training.streams.memory import parse_bytes
from chartae.training.streams.tables import StreamedTable

__all__ = ["stream"]


def stream(
    source: Any, *, memory: str | int | None = None, columns: Sequence[str] | None = None
) -> Streamed | StreamedTable:
    """Open data that need not fit in memory.

    Parameters
    ----------
    source : str, path, ndarray or iterable
        A ``.parquet`` file or a folder of them, whose columns may hold numbers, texts, truth values and
        dates; a ``.npy`` file, or an array or memory map; a torch ``Dataset`` of items, or of pairs (item,
        label), which are asked for each time that they are needed; a ``DataLoader``, for the items of its
        dataset, or those that a ``SubsetRandomSampler`` names, in their order there, without a call of its
        ``collate_fn``, of which a warning tells; or an iterable of such items, which is read once and kept
        in a temporary file.
    memory : str, int or None
        What a fit may take for data, as in "2GB"; None: up to half of what is available. Labels come on
        top.
    columns : sequence of str or None
        Of parquet files; None: all.

    Returns
    -------
    Streamed or StreamedTable
        What ``fit``, ``transform`` and ``score_samples`` go through block by block.

    Raises
    ------
    DataError
        If there is nothing to read, items differ in shape or type, or a loader's sampler leaves rows out or
        takes some twice.

    Notes
    -----
    Temporary files are written to the folder that ``TMPDIR`` names, or to ``/var/tmp``: ``/tmp`` is held in
    memory on many systems.

    Examples
    --------
    >>> import numpy as np, chartae as ct
    >>> from chartae.training.streams import stream
    >>> np.save("big.npy", np.random.default_rng(0).random((200, 3)))
    >>> X = stream("big.npy", memory="16 KB")
    >>> X
    Streamed(big.npy, shape=(200, 3), dtype=float64)
    >>> ct.VAE(latent_dim=1, max_epochs=1).fit(X).transform(X).shape
    (200, 1)
    """
    size = parse_bytes(memory)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir() or path.suffix.lower() == ".parquet":
            return StreamedTable(path, size, columns)
        if columns is None and path.suffix.lower() == ".npy":
            return of_file(path, size)
        raise DataError(f"{path} is not read in blocks: save it as .parquet or .npy")
    if columns is not None:
        raise DataError("columns are those of parquet files: leave them out")
    if isinstance(source, Streamed | StreamedTable):
        return source
    if is_frame(source):
        raise DataError("a table in memory needs no stream: pass it as it is")
    if isinstance(source, np.ndarray):
        return of_array(source, memory=size, name="array")
    # Only a caller who has imported torch can hold a loader.
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.utils.data.DataLoader):
        source = _of_loader(source)
    mapped = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if mapped and (isinstance(source, list | tuple) or not hasattr(source, "__iter__")):
        return of_dataset(source, size)
    if hasattr(source, "__iter__"):
        return of_iterable(source, size)
    raise DataError(f"{type(source).__name__} has neither items nor rows: pass a file, an array or a Dataset")


def _of_loader(loader: Any) -> Any:
    """Give the items that a loader makes batches of."""
    from torch.utils.data import (
        BatchSampler,
        IterableDataset,
        RandomSampler,
        SequentialSampler,
        Subset,
        SubsetRandomSampler,
        default_collate,
        default_convert,
    )

    if loader.collate_fn not in (default_collate, default_convert):
        warnings.warn(
            "items are asked of the loader's dataset, and its collate_fn is not called: let the dataset do "
            "what it changes in items",
            stacklevel=3,
        )
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset
    # A sampler of batches that the caller made may choose rows itself, or by a sampler of its own.
    batches = loader.batch_sampler
    sampler: Any = batches.sampler if type(batches) is BatchSampler else batches or loader.sampler
    if type(sampler) is SubsetRandomSampler:
        return Subset(loader.dataset, [int(i) for i in sampler.indices])
    once = type(sampler) is SequentialSampler or (type(sampler) is RandomSampler and not sampler.replacement)
    if not once or len(sampler) != len(loader.dataset):
        raise DataError(
            f"the loader's {type(sampler).__name__} leaves rows out or takes some twice: pass "
            "torch.utils.data.Subset(dataset, rows)"
        )
    return loader.dataset
