"""Sources: rows of data as batches in the model's units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.arrays import as_tensor
from chartae.core.contracts import Batch, RawCondition
from chartae.core.spaces import Space

__all__ = ["Source"]

RESIDENT_SHARE = 0.6  # of a device's free memory that data may take


class Source:
    """Rows of an array, resident on the device where they fit there and fetched batch by batch where not.

    On the CPU nothing is copied, but for types and layouts that torch does not know: an array is indexed
    where it lies, and a memory map is paged in by the operating system.

    Parameters
    ----------
    X : ndarray or Tensor
        ``(n, *shape)`` in the user's units.
    space : Space
        The way into the model's units.
    condition : RawCondition or None
        Of all ``n`` rows.
    rows : Tensor or None
        ``(m,)``, which of them belong to this source; None: all.
    device : torch.device
        Where batches go.
    dtype : torch.dtype
        Of the batches: float32, or float64.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.parts.units import infer_space
    >>> from chartae.training.sources import Source
    >>> X = np.arange(10.0).reshape(5, 2)
    >>> source = Source(X, infer_space(X), rows=torch.tensor([0, 2, 4]))
    >>> [len(b) for b in source.batches(2)]
    [2, 1]
    """

    def __init__(
        self,
        X: np.ndarray | Tensor,
        space: Space,
        condition: RawCondition | None = None,
        rows: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        data = as_tensor(X) if isinstance(X, np.ndarray) else X
        if self.device.type == "cuda" and data.device.type == "cpu":
            free, _ = torch.cuda.mem_get_info(self.device)
            if data.numel() * data.element_size() < RESIDENT_SHARE * free:
                data = data.to(self.device)
        self.data, self.space = data, space
        self.condition = None if condition is None else condition.to(data.device)
        self.rows = torch.arange(len(data), device="cpu") if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows: Tensor) -> Source:
        """Choose rows, sharing the data.

        Parameters
        ----------
        rows : Tensor
            ``(m,)`` row numbers of the whole array.

        Returns
        -------
        Source
            Of those rows.
        """
        return Source(self.data, self.space, self.condition, rows, self.device, self.dtype)

    def take(self, rows: Tensor) -> Batch:
        """Make a batch.

        Parameters
        ----------
        rows : Tensor
            ``(m,)`` row numbers of the whole array.

        Returns
        -------
        Batch
            On the device, in the model's units.
        """
        index = rows.to(self.data.device)
        return self._batch(self.data.index_select(0, index), index)

    def slice(self, start: int, stop: int) -> Batch:
        """Make a batch of neighboring rows of the whole array, without gathering them.

        Parameters
        ----------
        start, stop : int
            From and up to which row.

        Returns
        -------
        Batch
            On the device, in the model's units.
        """
        part = slice(start, stop)
        return self._batch(self.data[part], part)

    def _batch(self, x: Tensor, rows: Any) -> Batch:
        c = None if self.condition is None else self.condition.take(rows).to(self.device)
        x = self.space.to_model(x.to(self.device, non_blocking=True), self.dtype)
        index = rows if isinstance(rows, Tensor) else None
        return Batch(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, c, index)

    def batches(self, size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """Go through the rows once.

        Parameters
        ----------
        size : int
            Rows of a batch; the last may have fewer, or one more where it would be left alone.
        generator : torch.Generator or None
            Shuffles; None: in order.
        skip : int
            Batches of that order to leave out at the beginning, whose rows are not read.

        Yields
        ------
        Batch
            Of up to ``size`` rows.
        """
        order = (
            self.rows
            if generator is None
            else self.rows[torch.randperm(len(self.rows), generator=generator, device="cpu")]
        )
        parts = list(order.to(self.data.device).split(size))  # once, not batch by batch
        if generator is not None and len(parts) > 1 and len(parts[-1]) == 1:
            # Statistics of a batch (normalization, kernels) are undefined for a single row.
            parts[-2:] = [torch.cat(parts[-2:])]
        for rows in parts[skip:]:
            yield self.take(rows)
