"""Arrays that are read block by block: in memory, in files, and in temporary files that are written first."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from chartae.core.errors import DataError, one_line
from chartae.training.readers import read_array
from chartae.training.streams.memory import BLOCK, HELD, WINDOW, parse_bytes

__all__ = ["Streamed"]


class Streamed:
    """Rows that are read as they are needed: an array in all but this, that it is never whole in memory.

    Parameters
    ----------
    read : callable
        ``read(start, stop, out)`` writes rows into ``out``, ``(stop - start, *shape[1:])``.
    shape : sequence of int
        ``(n, *item)``.
    dtype : data-type
        Of the values.
    memory : str, int or None
        What a fit may take for data (see :func:`parse_bytes`).
    name : str
        Where the rows come from.
    labels : callable or None
        Gives the labels that come with the items.

    Attributes
    ----------
    rows_of_block, blocks_of_window, rows_to_hold : int
        What the memory allows: rows that are read in one go, blocks that are shuffled together, and rows
        that may be held beside them.

    Raises
    ------
    DataError
        If there are no rows, or they are asked for as a whole, as ``np.asarray`` does.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.streams import stream
    >>> X = stream(np.arange(12.0).reshape(6, 2), memory=1024)
    >>> X.shape, X[2:4].tolist(), X[[5, 0]].tolist()
    ((6, 2), [[4.0, 5.0], [6.0, 7.0]], [[10.0, 11.0], [0.0, 1.0]])
    """

    columns = None  # in data with names of columns, these

    def __init__(
        self,
        read: Callable[[int, int, np.ndarray], None],
        shape: Sequence[int],
        dtype: Any,
        *,
        memory: str | int | None = None,
        name: str = "stream",
        labels: Callable[[], np.ndarray | None] | None = None,
    ) -> None:
        self.read, self._labels = read, labels
        self.shape, self.dtype = tuple(int(s) for s in shape), np.dtype(dtype)
        self.memory, self.name = parse_bytes(memory), name
        if not self.shape[0]:
            raise DataError(f"{name} is empty: give at least one item")
        row = max(1, self.nbytes // len(self))
        self.rows_of_block = max(1, int(BLOCK * self.memory) // row)
        self.blocks_of_window = max(1, int(WINDOW * self.memory) // (row * self.rows_of_block))
        self.rows_to_hold = max(1, int(HELD * self.memory) // row)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take."""
        return self.size * self.dtype.itemsize

    @property
    def labels(self) -> np.ndarray | None:
        """The labels that come with the items, ``(n,)``, or None."""
        return None if self._labels is None else self._labels()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Streamed({self.name}, shape={self.shape}, dtype={self.dtype})"

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DataError(f"{self.name} is streamed, since it is larger than memory: take rows of it, X[:1000]")

    def __iter__(self) -> Iterator[np.ndarray]:
        size = self.rows_of_block
        return (row for start in range(0, len(self), size) for row in self[start : start + size])

    def window(self) -> np.ndarray:
        """Make room for a window of blocks.

        Returns
        -------
        ndarray
            ``(rows, *shape[1:])``, of any values.
        """
        rows = min(len(self), self.rows_of_block * self.blocks_of_window)
        size = rows * math.prod(self.shape[1:])
        if size * self.dtype.itemsize < mmap.PAGESIZE:
            return np.empty((rows, *self.shape[1:]), self.dtype)
        # Goes back to the system with its last user: malloc would keep it for itself.
        memory = mmap.mmap(-1, size * self.dtype.itemsize)
        return np.frombuffer(memory, self.dtype, size).reshape(rows, *self.shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, tuple):
            return self._of_columns(rows)
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
                self.read(start, start + len(out), out)
                return out
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}: count from 0")
        rows = np.where(rows < 0, rows + len(self), rows)
        order = np.argsort(rows, kind="stable")
        rows, found = rows[order], np.empty((len(rows), *self.shape[1:]), self.dtype)
        # Neighbors are read together.
        runs = np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist()
        for start, stop in zip(runs, [*runs[1:], len(rows)], strict=True):
            self.read(int(rows[start]), int(rows[start]) + stop - start, found[start:stop])
        return found[np.argsort(order)]

    def _of_columns(self, places: tuple[Any, ...]) -> Streamed:
        rows, *rest = places
        if rows != slice(None):
            raise IndexError("a stream gives columns of all rows, X[:, a:b], or rows, X[a:b]")
        item = np.empty((1, *self.shape[1:]), np.bool_)[:, *rest].shape[1:]

        def read(start: int, stop: int, out: np.ndarray) -> None:
            out[...] = self[start:stop][:, *rest]

        return Streamed(read, (len(self), *item), self.dtype, memory=self.memory, name=self.name)


def of_array(X: np.ndarray, **more: Any) -> Streamed:
    refuse_others(X, more["name"])
    if not X.ndim:
        raise DataError(f"{more['name']} holds a single number: give rows")

    def read(start: int, stop: int, out: np.ndarray) -> None:
        out[...] = X[start:stop]

    return Streamed(read, X.shape, X.dtype, **more)


def of_file(path: Path, memory: int) -> Streamed:
    mapped: Any = read_array(path)
    if not (mapped.flags.c_contiguous and isinstance(mapped, np.memmap)):  # columns first, or empty
        return of_array(mapped, memory=memory, name=path.name)
    refuse_others(mapped, path.name)
    # Pages of a memory map would count as memory of the process.
    rows = _Rows(path.open("rb", buffering=0), path, mapped.offset, stamp_of(path))
    return Streamed(rows.read, mapped.shape, mapped.dtype, memory=memory, name=path.name)


def kept(blocks: Iterable[np.ndarray], **more: Any) -> Streamed:
    """Write blocks of rows to a temporary file, which has no name and goes with its last user."""
    # The folder for what is large and lasts: /tmp is held in memory on many systems.
    folder = None if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK) else "/var/tmp"
    file: Any = tempfile.TemporaryFile(prefix="chartae-", dir=folder, buffering=0)  # noqa: SIM115
    rows, n, block = _Rows(file, "a temporary file"), 0, None
    for block in blocks:
        n += len(block)
        whole: Any = np.ascontiguousarray(block)
        view = memoryview(whole).cast("B")
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as e:
            where = folder or tempfile.gettempdir()
            raise DataError(
                f"cannot write to {where} ({one_line(e)}): point TMPDIR to a disk that holds all rows"
            ) from None
    if block is None:
        raise DataError(f"{more['name']} is empty: give at least one item")
    return Streamed(rows.read, (n, *block.shape[1:]), block.dtype, **more)


class _Rows:
    """Rows of numbers in an open file, which, where a stamp is given, must not change."""

    def __init__(self, file: IO[bytes], name: Any, offset: int = 0, stamp: Any = None) -> None:
        self.file, self.name, self.offset, self.stamp = file, name, offset, stamp
        self.lock = threading.Lock()
        weakref.finalize(self, file.close)

    def read(self, start: int, stop: int, out: Any) -> None:
        if stop <= start:
            return
        if self.stamp is not None and stamp_of(self.name) != self.stamp:
            raise changed(self.name)
        into, at = memoryview(out).cast("B"), 0
        with self.lock:
            try:
                self.file.seek(self.offset + start * (out.nbytes // len(out)))
                while at < len(into) and (got := self.file.readinto(into[at:])):  # type: ignore[attr-defined]
                    at += got
            except OSError as e:
                raise DataError(f"cannot read {self.name} ({one_line(e)}): write it again") from None
        if at < len(into):
            raise DataError(
                f"{self.name} ends before row {stop}, and had more when it was opened: open it again"
            )


def refuse_others(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} holds {array.dtype}, not numbers: convert it")


def changed(path: Any) -> DataError:
    return DataError(f"{path} has changed since it was opened: open it again")


def stamp_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
