"""Sources: rows of data as batches in the model's units, an epoch after the other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.arrays import AllBut, as_tensor, is_streamed
from chartae.core.contracts import Batch, RawCondition
from chartae.core.spaces import Space

__all__ = ["Source"]

RESIDENT_SHARE = 0.6  # of a device's free memory that data may take


class Source:
    """Rows of an array, resident on the device where they fit there and fetched batch by batch where not.

    On the CPU nothing is copied, but for types and layouts that torch does not know: an array is indexed
    where it lies, and a memory map is paged in by the operating system. What is streamed is read a window of
    blocks at a time, and the next one meanwhile.

    Parameters
    ----------
    X : ndarray, Tensor or Streamed
        ``(n, *shape)`` in the user's units.
    space : Space
        The way into the model's units.
    condition : RawCondition or None
        Of all ``n`` rows.
    rows : Tensor, AllBut or None
        ``(m,)``, which of them belong to this source; of what is streamed, all but a few; None: all.
    device : torch.device
        Where batches go.
    dtype : torch.dtype
        Of the batches: float32, or float64.
    y : Tensor or None
        ``(n,)``, what a head is to predict of all rows, NaN where it is not known.

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
        X: Any,
        space: Space,
        condition: RawCondition | None = None,
        rows: Any = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        y: Tensor | None = None,
    ) -> None:
        self.device, self.dtype, self.streamed = torch.device(device), dtype, is_streamed(X)
        data: Any = as_tensor(X) if isinstance(X, np.ndarray) else X
        if not self.streamed and self.device.type == "cuda" and data.device.type == "cpu":
            free, _ = torch.cuda.mem_get_info(self.device)
            if data.numel() * data.element_size() < RESIDENT_SHARE * free:
                data = data.to(self.device)
        self.data, self.space = data, space
        self._home = torch.device("cpu") if self.streamed else data.device
        self.condition = None if condition is None else condition.to(self._home)
        self.y = None if y is None else y.to(self._home)
        if rows is None:
            rows = AllBut(len(data)) if self.streamed else torch.arange(len(data), device="cpu")
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows: Any) -> Source:
        """Choose rows, sharing the data.

        Parameters
        ----------
        rows : Tensor, ndarray or AllBut
            ``(m,)`` row numbers of the whole array; of what is streamed, all but a few, or a few, which are
            read and held.

        Returns
        -------
        Source
            Of those rows.
        """
        if isinstance(rows, AllBut):
            return Source(self.data, self.space, self.condition, rows, self.device, self.dtype, self.y)
        rows = torch.as_tensor(rows, device="cpu")
        if not self.streamed:
            return Source(self.data, self.space, self.condition, rows, self.device, self.dtype, self.y)
        condition = None if self.condition is None else self.condition.take(rows)
        y = None if self.y is None else self.y[rows]
        return Source(self.data[rows.numpy()], self.space, condition, None, self.device, self.dtype, y)

    def told(self, y: Tensor, condition: RawCondition | None = None) -> Source:
        """Say what a head is to predict of the same rows.

        Parameters
        ----------
        y : Tensor
            Of all rows of the array, ``(n,)``; NaN where it is not known.
        condition : RawCondition or None
            Of all rows, in place of what it was; None: as it was.

        Returns
        -------
        Source
            Of the same rows, sharing the data.
        """
        condition = self.condition if condition is None else condition
        return Source(self.data, self.space, condition, self.rows, self.device, self.dtype, y)

    def sample(self, most: int, seed: int) -> Source:
        """Choose rows at random.

        Parameters
        ----------
        most : int
            So many, or fewer where there are fewer, or the memory of a stream holds fewer.
        seed : int
            Of the choice.

        Returns
        -------
        Source
            Of those rows, in increasing order.
        """
        if self.streamed:
            most = min(most, self.data.rows_to_hold)
        if most >= len(self):
            return self
        chosen = np.random.default_rng(seed).choice(len(self), most, replace=False)
        return self.subset(self.rows[np.sort(chosen)])

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
        index = rows.to(self._home)
        x = as_tensor(self.data[rows.numpy()]) if self.streamed else self.data.index_select(0, index)
        return self._batch(x, index)

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
        x = self.data[part]
        return self._batch(as_tensor(x) if self.streamed else x, part)

    def _batch(self, x: Tensor, rows: Any) -> Batch:
        c = None if self.condition is None else self.condition.take(rows).to(self.device)
        x = self.space.to_model(x.to(self.device, non_blocking=True), self.dtype)
        index = rows if isinstance(rows, Tensor) else None
        y = None if self.y is None else self.y[rows].to(self.device)
        return Batch(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, c, index, y)

    def order(self, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Say in which order an epoch takes the rows, a window after the other.

        The rows of an array are one window, and are permuted. Of a stream blocks are permuted, as many as
        fit are put together, and rows are permuted in there: a shuffle buffer whose order is known before
        anything is read.

        Parameters
        ----------
        generator : torch.Generator or None
            Shuffles; None: in order. An epoch draws once from it, whatever its windows.

        Yields
        ------
        Tensor
            ``(m,)`` row numbers of the whole array.
        """
        if not self.streamed:
            yield self.rows if generator is None else self.rows[_permutation(len(self.rows), generator)]
            return
        own = None
        if generator is not None:
            # Of its own, so that windows can be drawn one by one while others use the generator.
            own = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        size = self.data.rows_of_block
        starts = size * _permutation(-(-len(self.data) // size), own)
        for window in starts.split(self.data.blocks_of_window):
            rows = torch.from_numpy(
                np.concatenate([self.rows.within(start, start + size) for start in window.tolist()])
            )
            yield rows if own is None else rows[_permutation(len(rows), own)]

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
        n = len(self)
        sizes = [size] * (n // size) + [n % size] * bool(n % size or not n)
        if generator is not None and len(sizes) > 1 and sizes[-1] == 1:
            # Statistics of a batch (normalization, kernels) are undefined for a single row.
            sizes[-2:] = [size + 1]
        windows, sizes = _after(self.order(generator), sum(sizes[:skip])), sizes[skip:]
        if self.streamed:
            yield from self._streamed(windows, sizes)
            return
        for order in windows:
            # Moved once, not batch by batch.
            for rows in order.to(self._home).split(sizes):
                yield self.take(rows)

    def _streamed(self, windows: Iterator[Tensor], sizes: list[int]) -> Iterator[Batch]:
        """Cut windows into batches; what is left of one begins the next batch."""
        parts: list[tuple[Tensor, Tensor]] = []
        coming = iter(sizes)
        missing = next(coming, 0)
        for buffer, places, rows in self._ahead(windows):
            start = 0
            while start < len(rows):
                cut = slice(start, start + missing)
                parts.append((buffer.index_select(0, places[cut]), rows[cut]))
                start, missing = cut.stop, missing - len(parts[-1][1])
                if not missing:
                    held, index = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*parts, strict=True))
                    x = held.numpy().view(self.data.dtype).reshape(-1, *self.data.shape[1:])
                    yield self._batch(as_tensor(x), index)
                    parts, missing = [], next(coming, 0)

    def _ahead(self, windows: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Load windows, each while the one before it is used, into two buffers by turns.

        Yields
        ------
        bytes, places, rows : Tensor
            ``(k, bytes of a row)`` in a buffer, and ``(m,)``, where in there the ``(m,)`` rows are.
        """
        buffers: list[np.ndarray] = []
        with ThreadPoolExecutor(1) as pool:
            loading: tuple[Tensor, Future[Tensor], Tensor] | None = None
            for i, rows in enumerate(chain(windows, [None])):
                ready, loading = loading, None
                if rows is not None:
                    if len(buffers) < 2:
                        buffers.append(self.data.window())
                    buffer = buffers[i % 2]
                    # Bytes: torch gathers those of any type.
                    whole = torch.from_numpy(buffer.reshape(len(buffer), -1).view(np.uint8))
                    loading = whole, pool.submit(self._load, rows.numpy(), buffer), rows
                if ready is not None:
                    yield ready[0], ready[1].result(), ready[2]

    def _load(self, rows: np.ndarray, buffer: np.ndarray) -> Tensor:
        """Read the blocks that hold rows, and say where in the buffer these are."""
        size = self.data.rows_of_block
        which = rows // size
        slots = np.bincount(which)
        needed = np.flatnonzero(slots)
        slots[needed] = np.arange(len(needed))
        for slot, block in enumerate(needed.tolist()):
            start, stop = block * size, min((block + 1) * size, len(self.data))
            self.data.read(start, stop, buffer[slot * size :][: stop - start])
        return torch.from_numpy(slots[which] * size + rows % size)


def _permutation(n: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.arange(n, device="cpu")
    return torch.randperm(n, generator=generator, device="cpu")


def _after(windows: Iterator[Tensor], leave_out: int) -> Iterator[Tensor]:
    """Leave out the first rows."""
    for rows in windows:
        if leave_out <= len(rows):
            yield rows[leave_out:]
        leave_out = max(0, leave_out - len(rows))
