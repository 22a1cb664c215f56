"""Sources: rows of data as batches in the model's units, an epoch after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.arrays import as_tensor, is_streamed
from chartae.core.contracts import Batch, RawCondition
from chartae.core.spaces import Space
from chartae.training.streams import BLOCK, WINDOW

__all__ = ["Source"]

RESIDENT_SHARE = 0.6  # of a device's free memory that data may take
BLOCKS = round(WINDOW / BLOCK)  # in a window of an array that brings no blocks of its own


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
    rows : Tensor or None
        ``(m,)``, which of them belong to this source, sorted where they go by windows; None: all.
    device : torch.device
        Where batches go.
    dtype : torch.dtype
        Of the batches: float32, or float64.
    window : int or None
        Bytes within which rows are shuffled; None: an eighth of a stream's memory, and all rows of an array.

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
        rows: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
    ) -> None:
        self.device, self.dtype, self.streamed = torch.device(device), dtype, is_streamed(X)
        data: Any = as_tensor(X) if isinstance(X, np.ndarray) else X
        if not self.streamed and self.device.type == "cuda" and data.device.type == "cpu":
            free, _ = torch.cuda.mem_get_info(self.device)
            if data.numel() * data.element_size() < RESIDENT_SHARE * free:
                data = data.to(self.device)
        self.data, self.space = data, space
        self.window = int(WINDOW * X.memory) if self.streamed and window is None else window
        self._home = torch.device("cpu") if self.streamed else data.device
        self.condition = None if condition is None else condition.to(self._home)
        # Row numbers of what does not fit in memory had better be small.
        number = torch.int32 if self.streamed and len(data) < 1 << 31 else torch.int64
        self.rows = torch.arange(len(data), dtype=number, device="cpu") if rows is None else rows
        if self.window is not None and rows is not None:
            rows = rows.to(number).contiguous()
            self.rows = rows if bool((rows[1:] >= rows[:-1]).all()) else rows.sort().values  # by blocks

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
        return Source(self.data, self.space, self.condition, rows, self.device, self.dtype, self.window)

    def resident(self) -> Source:
        """Hold the rows in memory, in the order in which they are.

        Returns
        -------
        Source
            Of a copy of a stream's rows; an array's are in memory, and it is given back itself.
        """
        if not self.streamed:
            return self
        condition = None if self.condition is None else self.condition.take(self.rows)
        return Source(self.data[self.rows.numpy()], self.space, condition, None, self.device, self.dtype)

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
        return self._batch(self._load(index) if self.streamed else self.data.index_select(0, index), index)

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

    def _load(self, rows: Tensor) -> Tensor:
        return as_tensor(self.data[rows.numpy()])

    def _batch(self, x: Tensor, rows: Any) -> Batch:
        c = None if self.condition is None else self.condition.take(rows).to(self.device)
        x = self.space.to_model(x.to(self.device, non_blocking=True), self.dtype)
        index = rows if isinstance(rows, Tensor) else None
        return Batch(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, c, index)

    def order(self, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Say in which order an epoch takes the rows, a window after the other.

        Without a window all rows are permuted. With one, blocks are permuted, as many as fit are put
        together, and rows are permuted in there: a shuffle buffer whose order is known before it is read.

        Parameters
        ----------
        generator : torch.Generator or None
            Shuffles; None: in order. An epoch draws once from it, whatever its windows.

        Yields
        ------
        Tensor
            ``(m,)`` row numbers of the whole array.
        """
        if self.window is None:
            shuffled = generator is not None
            yield self.rows[_permutation(len(self.rows), generator)] if shuffled else self.rows
            return
        item = self.data.dtype.itemsize * math.prod(self.data.shape[1:])
        fits = max(1, self.window // max(1, item))
        each = max(1, fits // BLOCKS)
        edges = self.data.edges if self.streamed else range(0, len(self.data) + each, each)
        bounds = torch.searchsorted(self.rows, torch.tensor(edges, dtype=self.rows.dtype)).tolist()
        own = None
        if generator is not None:
            # Of its own, so that windows can be drawn one by one while others use the generator.
            own = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        parts: list[Tensor] = []
        for i in _permutation(len(bounds) - 1, own).tolist():
            part = self.rows[bounds[i] : bounds[i + 1]]
            if parts and sum(map(len, parts)) + len(part) > fits:
                yield _shuffled(parts, own)
                parts = []
            parts += [part] if len(part) else []
        if parts:
            yield _shuffled(parts, own)

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
        n = len(self.rows)
        sizes = [size] * (n // size) + [n % size] * bool(n % size or not n)
        if generator is not None and len(sizes) > 1 and sizes[-1] == 1:
            # Statistics of a batch (normalization, kernels) are undefined for a single row.
            sizes[-2:] = [size + 1]
        windows = _after(self.order(generator), sum(sizes[:skip]))
        if self.streamed:
            yield from self._streamed(windows, sizes[skip:])
            return
        rest = list(windows)
        order = torch.cat(rest) if rest else self.rows[:0]
        for rows in order.to(self._home).split(sizes[skip:]):  # moved once, not batch by batch
            yield self.take(rows)

    def _streamed(self, windows: Iterator[Tensor], sizes: list[int]) -> Iterator[Batch]:
        """Cut windows into batches; what is left of one begins the next batch."""
        left: list[tuple[Tensor, Tensor]] = []
        i = 0
        for x, rows in self._ahead(windows):
            at = 0
            while i < len(sizes) and at < len(rows):
                missing = sizes[i] - sum(len(kept) for _, kept in left)
                stop = min(at + missing, len(rows))
                left.append((x[at:stop], rows[at:stop]))
                if stop - at == missing:
                    yield self._batch(*_joined(left))
                    left, i = [], i + 1
                at = stop
            left = [(part.clone(), kept) for part, kept in left]  # not a view, which would hold its window
            del x

    def _ahead(self, windows: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Load windows, each while the one before it is used."""
        with ThreadPoolExecutor(1) as pool:
            coming: list[tuple[Future[Tensor], Tensor]] = []
            for rows in windows:
                coming.append((pool.submit(self._load, rows), rows))
                if len(coming) > 1:
                    yield _loaded(*coming.pop(0))
            if coming:
                yield _loaded(*coming.pop(0))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return torch.cat([x for x, _ in parts]), torch.cat([rows for _, rows in parts])


def _loaded(window: Future[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return window.result(), rows


def _permutation(n: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.arange(n, device="cpu")
    return torch.randperm(n, generator=generator, device="cpu")


def _shuffled(parts: list[Tensor], generator: torch.Generator | None) -> Tensor:
    rows = torch.cat(parts)
    return rows if generator is None else rows[_permutation(len(rows), generator)]


def _after(windows: Iterator[Tensor], leave_out: int) -> Iterator[Tensor]:
    """Leave out the first rows."""
    for rows in windows:
        if leave_out < len(rows):
            yield rows[leave_out:]
        leave_out = max(0, leave_out - len(rows))
