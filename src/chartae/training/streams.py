"""Streams: data larger than memory, as arrays and tables that are read block by block and never whole."""

from __future__ import annotations

import copy
import math
import mmap
import os
import re
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from chartae.core.columns import Schema, is_frame
from chartae.core.errors import DataError, one_line
from chartae.core.registry import suggest
from chartae.training.items import array_of
from chartae.training.readers import read_array

__all__ = ["Streamed", "StreamedTable", "available_memory", "parse_bytes", "stream"]

UNITS = {"": 1, "b": 1} | {
    prefix + end: base**power
    for power, prefix in enumerate("kmgt", 1)
    for end, base in (("", 1024), ("b", 1000), ("ib", 1024))
}
# Shares of the memory. Two windows are there at a time, one in use and one on its way, beside the rows that
# are held for validation.
WINDOW, HELD, BLOCK = 1 / 6, 1 / 8, 1 / 128
TABLE, FRAME = 1 / 4, 1 / 32  # a table is there as it was stored, as pandas has it, and as numbers
TEXT = 64  # bytes that a text takes in a table, at least


def available_memory() -> int:
    """Look up how much memory other programs, and this one, leave free.

    Returns
    -------
    int
        Bytes; 4 GiB where the system does not say.

    Examples
    --------
    >>> from chartae.training.streams import available_memory
    >>> available_memory() > 0
    True
    """
    try:
        free = 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            free = 4 << 30
    try:  # what a container may take, which the system's own numbers do not show
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return free


def parse_bytes(memory: str | int | None = None) -> int:
    """Read an amount of memory.

    Parameters
    ----------
    memory : str, int or None
        As in "200MB" (of 1000² bytes) and "1.5 GiB" (of 1024³), or bytes; None: the power of two up
        to half of what is available.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    DataError
        If it cannot be read, or is nothing.

    Examples
    --------
    >>> from chartae.training.streams import parse_bytes
    >>> parse_bytes("200MB"), parse_bytes("1.5 GiB"), parse_bytes(4096)
    (200000000, 1610612736, 4096)
    """
    if memory is None:
        # A power of two: what is free changes a little from one moment to the next, and the order of rows is
        # not to change with it.
        return 1 << (available_memory() // 2).bit_length() - 1
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*", str(memory).lower())
    try:
        size = int(float(found[1]) * UNITS[found[2]]) if found else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise DataError(
            f"memory={memory!r} is no amount of memory: write bytes, or as in '200MB' and '1.5GiB'"
        )
    return size


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
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
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


class StreamedTable:
    """Rows of parquet files, as tables that are read one after the other.

    A fit sees all of them once, to learn what the columns hold, and once more, to write them as numbers to a
    temporary file: epochs read that.

    Parameters
    ----------
    path : path
        A ``.parquet`` file or a folder of them.
    memory : str, int or None
        What a fit may take for data (see :func:`parse_bytes`).
    columns : sequence of str or None
        Which columns; None: all.

    Raises
    ------
    DataError
        If files are missing or damaged, or lack a column.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from chartae.training.streams import StreamedTable
    >>> pd.DataFrame({"a": np.arange(1000.0), "b": ["x", "y"] * 500}).to_parquet("t.parquet")
    >>> table = StreamedTable("t.parquet", memory="64KB")
    >>> table, table.fits, len(next(iter(table.frames())))
    (StreamedTable(t.parquet, shape=(1000, 2)), False, 27)
    """

    def __init__(
        self, path: str | Path, memory: str | int | None = None, columns: Sequence[str] | None = None
    ) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise DataError("parquet files need pyarrow: pip install 'chartae[data]'") from None
        path = Path(path)
        self._arrow, self.name, self.memory = pyarrow, path.name, parse_bytes(memory)
        self._files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not self._files or not self._files[0].exists():
            raise DataError(f"there is no parquet file {path}: pass another file or folder")
        self._stamps = [_stamp(file) for file in self._files]
        heads = [self._guarded(file, pyarrow.parquet.read_metadata, file) for file in self._files]
        schemas = [
            self._guarded(f, h.schema.to_arrow_schema) for f, h in zip(self._files, heads, strict=True)
        ]
        # The row names of a pandas table are stored as columns, and say nothing.
        pandas = self._guarded(self._files[0], lambda: schemas[0].pandas_metadata) or {}
        names = pandas.get("index_columns", [])
        self.columns = tuple(columns or (c for c in schemas[0].names if c not in names))
        self._index = [c for c in names if c not in self.columns and all(c in s.names for s in schemas)]
        for file, schema in zip(self._files, schemas, strict=True):
            for column in self.columns:
                if column not in schema.names:
                    raise DataError(f"{file} has no column {column!r}: {suggest(column, schema.names)}")
                kinds = [s.field(column).type for s in (schemas[0], schema)]
                if kinds[0] != kinds[1]:
                    raise DataError(
                        f"column {column!r} holds {kinds[1]} in {file} and {kinds[0]} in {self._files[0]}: "
                        "write all files alike"
                    )
        self._rows = sum(head.num_rows for head in heads)
        if not self._rows:
            raise DataError(f"{self.name} has no rows: pass at least one")
        stored = sum(map(_stored, heads), Counter())
        self._sizes = {}  # bytes of a row, and whether they are text
        for column in self.columns:
            text = str(schemas[0].field(column).type).endswith("string")
            self._sizes[column] = max(TEXT if text else 8, stored[column] // self._rows), text
        self._types = _nullable(schemas[0], pandas.get("columns", []), set().union(*map(_gappy, heads)))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self._rows, len(self.columns)

    @property
    def _row(self) -> int:
        return sum(self._sizes[column][0] for column in self.columns)

    @property
    def fits(self) -> bool:
        """Whether the memory allows to read it whole."""
        return self._row * len(self) <= TABLE * self.memory

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"StreamedTable({self.name}, shape={self.shape})"

    def select(self, columns: Sequence[str]) -> StreamedTable:
        """Choose columns.

        Parameters
        ----------
        columns : sequence of str
            Their names.

        Returns
        -------
        StreamedTable
            Of these.

        Raises
        ------
        DataError
            If there is no such column.
        """
        for column in columns:
            if column not in self.columns:
                raise DataError(f"the table has no column {column!r}: {suggest(column, self.columns)}")
        chosen = copy.copy(self)
        chosen.columns = tuple(columns)
        return chosen

    def whole(self) -> Any:
        """Read all rows.

        Returns
        -------
        DataFrame
            ``(n, columns)``, of pandas.

        Raises
        ------
        DataError
            If a file is damaged, or has changed since it was opened.
        """
        read, columns = self._arrow.parquet.read_table, [*self.columns, *self._index]
        for file, stamp in zip(self._files, self._stamps, strict=True):
            if _stamp(file) != stamp:
                raise _changed(file)
        parts = [self._guarded(file, read, file, columns=columns, partitioning=None) for file in self._files]
        frame = self._frame(self._arrow.concat_tables(parts))
        if self._index:
            frame = frame.set_index(self._index)
            frame.index.names = [None if n.startswith("__index_level_") else n for n in self._index]
        return frame

    def frames(self, *, coded: bool = False) -> Iterator[Any]:
        """Read some rows after the other.

        Parameters
        ----------
        coded : bool
            Give texts as categories, which is quicker; those of two tables may be in another order.

        Yields
        ------
        DataFrame
            ``(k, columns)``, of pandas.

        Raises
        ------
        DataError
            If a file is damaged, or has changed since it was opened.
        """
        rows = max(1, int(FRAME * self.memory) // self._row)
        texts = [column for column in self.columns if self._sizes[column][1]]
        # Without copies where that can be done.
        more = {"split_blocks": True, "categories": texts if coded else None}
        for file, stamp in zip(self._files, self._stamps, strict=True):
            # Without a buffer, whole columns of a row group are held while it is read in batches.
            small = {"pre_buffer": False, "buffer_size": 1 << 16}
            with self._guarded(file, self._arrow.parquet.ParquetFile, file, **small) as opened:
                batches = opened.iter_batches(rows, columns=list(self.columns), use_threads=False)
                while True:
                    if _stamp(file) != stamp:
                        raise _changed(file)
                    if (batch := self._guarded(file, next, batches, None)) is None:
                        break
                    yield self._frame(batch, **more)
            del batches
            self._arrow.default_memory_pool().release_unused()

    def _frame(self, table: Any, **more: Any) -> Any:
        frame = table.to_pandas(ignore_metadata=True, date_as_object=False, **more)
        types = {name: kind for name, kind in self._types.items() if name in frame}
        return frame.astype(types) if types else frame  # it takes long even where nothing is to be done

    def encoded(self, schema: Schema) -> Streamed:
        """Write all rows as numbers to a temporary file, which goes with its last user.

        Parameters
        ----------
        schema : Schema
            What the columns hold.

        Returns
        -------
        Streamed
            ``(n, columns)``, in the schema's order.

        Raises
        ------
        DataError
            If rows hold what the schema does not know, or the disk is full.
        """
        blocks = (schema.encode(frame) for frame in self.select(schema.names).frames(coded=True))
        return _kept(blocks, memory=self.memory, name=self.name)

    def _guarded(self, file: Path, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **kwargs)
        except (OSError, ValueError, self._arrow.ArrowException) as e:
            raise DataError(f"cannot read {file} ({one_line(e)}): write it again") from None


def stream(
    source: Any, *, memory: str | int | None = None, columns: Sequence[str] | None = None
) -> Streamed | StreamedTable:
    """Open data that need not fit in memory.

    Parameters
    ----------
    source : str, path, ndarray or iterable
        A ``.parquet`` file or a folder of them, whose columns may hold numbers, texts, truth values and
        dates; a ``.npy`` file, or an array or memory map; a torch ``Dataset`` of items, or of pairs (item,
        label), which are asked for each time that they are needed; or an iterable of such items, which is
        read once and kept in a temporary file.
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
        If there is nothing to read, or items differ in shape or type.

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
            return _npy(path, size)
        raise DataError(f"{path} is not read in blocks: save it as .parquet or .npy")
    if columns is not None:
        raise DataError("columns are those of parquet files: leave them out")
    if isinstance(source, Streamed | StreamedTable):
        return source
    if is_frame(source):
        raise DataError("a table in memory needs no stream: pass it as it is")
    if isinstance(source, np.ndarray):
        return _array(source, memory=size, name="array")
    # A loader has batches of what its dataset has items of.
    source = getattr(source, "dataset", source)
    mapped = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if mapped and (isinstance(source, list | tuple) or not hasattr(source, "__iter__")):
        return _dataset(source, size)
    if hasattr(source, "__iter__"):
        return _iterable(source, size)
    raise DataError(f"{type(source).__name__} has neither items nor rows: pass a file, an array or a Dataset")


def _numbers(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} holds {array.dtype}, not numbers: convert it")


# ------------------------------------------------------------------------------------------------ files


def _array(X: np.ndarray, **more: Any) -> Streamed:
    _numbers(X, more["name"])
    if not X.ndim:
        raise DataError(f"{more['name']} holds a single number: give rows")

    def read(start: int, stop: int, out: np.ndarray) -> None:
        out[...] = X[start:stop]

    return Streamed(read, X.shape, X.dtype, **more)


def _npy(path: Path, memory: int) -> Streamed:
    mapped: Any = read_array(path)
    if not (mapped.flags.c_contiguous and isinstance(mapped, np.memmap)):  # columns first, or empty
        return _array(mapped, memory=memory, name=path.name)
    _numbers(mapped, path.name)
    # Pages of a memory map would count as memory of the process.
    rows = _Rows(path.open("rb", buffering=0), path, mapped.offset, _stamp(path))
    return Streamed(rows.read, mapped.shape, mapped.dtype, memory=memory, name=path.name)


class _Rows:
    """Rows of numbers in an open file, which, where a stamp is given, must not change."""

    def __init__(self, file: IO[bytes], name: Any, offset: int = 0, stamp: Any = None) -> None:
        self.file, self.name, self.offset, self.stamp = file, name, offset, stamp
        self.lock = threading.Lock()
        weakref.finalize(self, file.close)

    def read(self, start: int, stop: int, out: Any) -> None:
        if stop <= start:
            return
        if self.stamp is not None and _stamp(self.name) != self.stamp:
            raise _changed(self.name)
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


def _kept(blocks: Iterable[np.ndarray], **more: Any) -> Streamed:
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


def _changed(path: Any) -> DataError:
    return DataError(f"{path} has changed since it was opened: open it again")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _stored(head: Any) -> Counter[str]:
    """Bytes of each column of a parquet file, when it is no longer compressed."""
    sizes: Counter[str] = Counter()
    for g in range(head.num_row_groups):
        group = head.row_group(g)
        for i in range(group.num_columns):
            part = group.column(i)
            sizes[part.path_in_schema.split(".")[0]] += part.total_uncompressed_size
    return sizes


def _gappy(head: Any) -> set[str]:
    """Columns of a parquet file of which it is written that they have missing values."""
    groups = [head.row_group(g) for g in range(head.num_row_groups)]
    parts = [group.column(i) for group in groups for i in range(group.num_columns)]
    return {p.path_in_schema for p in parts if p.statistics is not None and p.statistics.null_count}


def _nullable(schema: Any, pandas: Sequence[Mapping[str, Any]], gappy: set[str]) -> dict[str, str]:
    """Types of pandas for columns that it would else read as floats or objects, where values are missing."""
    stored = {str(entry.get("name")): str(entry.get("numpy_type")) for entry in pandas}
    types = {name: kind for name, kind in stored.items() if re.fullmatch(r"(U?Int|Float)\d+|boolean", kind)}
    for name in gappy:
        kind = str(schema.field(name).type) if name in schema.names else ""
        if kind == "bool":
            types[name] = "boolean"
        elif re.fullmatch(r"u?int\d+", kind):
            types[name] = kind.replace("u", "U").replace("int", "Int")
    return types


# ------------------------------------------------------------------------------------------------ items


def _split(item: Any) -> tuple[np.ndarray, Any]:
    """Tell an item from its label."""
    x, label = (*item, None)[:2] if isinstance(item, tuple) else (item, None)
    try:
        return array_of(x), None if label is None else array_of(label)
    except ValueError as e:
        raise DataError(f"an item does not make an array ({one_line(e)}): give arrays of numbers") from None


def _alike(x: np.ndarray, first: np.ndarray, i: int) -> np.ndarray:
    _numbers(x, f"item {i} (from 0)")
    if x.shape != first.shape or x.dtype != first.dtype:
        raise DataError(
            f"item {i} (from 0) is {x.dtype} of shape {x.shape}, and item 0 is {first.dtype} of shape "
            f"{first.shape}: give all items one shape and type"
        )
    return x


def _dataset(items: Any, memory: int) -> Streamed:
    n, name = len(items), type(items).__name__
    if not n:
        raise DataError(f"{name} is empty: give at least one item")
    first, label = _split(items[0])
    _numbers(first, "item 0 (from 0)")

    def read(start: int, stop: int, out: np.ndarray) -> None:
        for i in range(start, stop):
            out[i - start] = _alike(_split(items[i])[0], first, i)

    def labels() -> np.ndarray | None:
        return None if label is None else np.array([_split(items[i])[1] for i in range(n)])

    return Streamed(read, (n, *first.shape), first.dtype, memory=memory, name=name, labels=labels)


def _iterable(items: Iterable[Any], memory: int) -> Streamed:
    """Keep items that come once."""
    labels: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        first = None
        for i, item in enumerate(items):
            x, label = _split(item)
            first = np.array(x) if first is None else first
            labels.extend([] if label is None else [label])
            yield _alike(x, first, i)[None]

    return _kept(
        blocks(),
        memory=memory,
        name=type(items).__name__,
        labels=lambda: np.array(labels) if labels else None,
    )
