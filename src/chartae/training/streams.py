"""Streams: data larger than memory, as arrays that are read block by block and never whole."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from chartae.core.errors import DataError
from chartae.core.registry import suggest
from chartae.training.readers import array_of, read_array

__all__ = ["Streamed", "available_memory", "open_table", "parse_bytes", "stream"]

UNITS = {"": 1, "b": 1} | {
    prefix + end: base**power
    for power, prefix in enumerate("kmgt", 1)
    for end, base in (("", 1024), ("b", 1000), ("ib", 1024))
}
# Shares of the memory: two windows (one in use, one on its way, see sources.py) take an eighth each, and a
# block is there several times while it is decoded.
WINDOW, LARGEST_BLOCK, BLOCK = 1 / 8, 1 / 16, 1 / 128
TABLE = 1 / 4  # a fit has a table as it was stored, as pandas has it, and as numbers


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
        As in "200MB" (of 1000² bytes) and "1.5 GiB" (of 1024³), or bytes; None: half of what is available.

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
        return available_memory() // 2
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*", str(memory).lower())
    try:
        size = int(float(found[1]) * UNITS[found[2]]) if found else 0
    except (ValueError, KeyError):
        size = 0
    if size < 1:
        raise DataError(
            f"memory={memory!r} is no amount of memory: write bytes, or as in '200MB' and '1.5GiB'"
        )
    return size


class Streamed:
    """Rows that are read block by block: an array in all but this, that it is never whole in memory.

    Parameters
    ----------
    read : callable
        ``read(i)`` gives block ``i``, an array ``(edges[i + 1] - edges[i], *shape[1:])``.
    edges : array_like
        ``(blocks + 1,)``, the row numbers at which blocks begin, and the number of rows.
    item : sequence of int
        Shape of one item.
    dtype : data-type
        Of the values.
    memory : str, int or None
        What a fit may take for data (see :func:`parse_bytes`).
    name : str
        Where the rows come from.
    columns : sequence of str or None
        Names of the columns.
    labels : callable or None
        Gives the labels that come with the items.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.streams import stream
    >>> X = stream(np.arange(12.0).reshape(6, 2), memory=1024)
    >>> X.shape, X[2:4].tolist(), X[[5, 0]].tolist()
    ((6, 2), [[4.0, 5.0], [6.0, 7.0]], [[10.0, 11.0], [0.0, 1.0]])
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        edges: Any,
        item: Sequence[int],
        dtype: Any,
        *,
        memory: str | int | None = None,
        name: str = "stream",
        columns: Sequence[str] | None = None,
        labels: Callable[[], np.ndarray | None] | None = None,
    ) -> None:
        self.edges = np.asarray(edges, dtype=np.int64)
        self.shape = (int(self.edges[-1]), *item)
        self.dtype, self.memory, self.name = np.dtype(dtype), parse_bytes(memory), name
        self.columns = None if columns is None else tuple(columns)
        self._read, self._labels = read, labels
        self._kept: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()

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
        blocks = len(self.edges) - 1
        return f"Streamed({self.name}, shape={self.shape}, dtype={self.dtype}, blocks={blocks})"

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DataError(f"{self.name} is streamed, since it is larger than memory: take rows of it, X[:1000]")

    def __iter__(self) -> Iterator[np.ndarray]:
        return (row for i in range(len(self.edges) - 1) for row in self.block(i))

    def block(self, i: int) -> np.ndarray:
        """Read a block; the last one that was read is kept.

        Parameters
        ----------
        i : int
            Which.

        Returns
        -------
        ndarray
            ``(rows, *shape[1:])``, not writable.

        Raises
        ------
        DataError
            If it cannot be read, or is not what was announced.
        """
        with self._lock:
            if self._kept is None or self._kept[0] != i:
                self._kept = None  # before the next one comes
                block = self._read(i)
                wanted = (int(self.edges[i + 1] - self.edges[i]), *self.shape[1:])
                if block.shape != wanted or block.dtype != self.dtype:
                    raise DataError(
                        f"block {i} of {self.name} is {block.dtype} of shape {block.shape} and should be "
                        f"{self.dtype} of shape {wanted}: do not change the data while they are read"
                    )
                block.flags.writeable = False
                self._kept = i, block
            return self._kept[1]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, tuple):
            return self._of_columns(rows)
        if isinstance(rows, int | np.integer):
            return self[np.array([rows])][0]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._span(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}: count from 0")
        rows = np.where(rows < 0, rows + len(self), rows).astype(np.int64)
        out = _empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows, self.edges, sorter=order)
        for i in np.flatnonzero(np.diff(ends)):
            part = order[ends[i] : ends[i + 1]]
            out[part] = self.block(int(i))[rows[part] - self.edges[i]]
        return out

    def _span(self, start: int, stop: int) -> np.ndarray:
        """Neighboring rows: a view where they lie in one block."""
        first, last = np.searchsorted(self.edges, [start, stop - 1], side="right") - 1
        if start < stop and first == last:
            return self.block(int(first))[start - self.edges[first] : stop - self.edges[first]]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for i in range(first, last + 1):
            begin = self.edges[i]
            low, high = max(start, begin), min(stop, self.edges[i + 1])
            out[low - start : high - start] = self.block(i)[low - begin : high - begin]
        return out

    def _of_columns(self, places: tuple[Any, ...]) -> Streamed:
        rows, *rest = places
        if rows != slice(None):
            raise IndexError("a stream gives columns of all rows, X[:, a:b], or rows, X[a:b]")
        item = np.empty((1, *self.shape[1:]), np.bool_)[:, *rest].shape[1:]

        def read(i: int) -> np.ndarray:
            return self.block(i)[:, *rest].copy()

        return Streamed(read, self.edges, item, self.dtype, memory=self.memory, name=self.name)


def stream(
    source: Any,
    *,
    memory: str | int | None = None,
    encode: Callable[[Any], np.ndarray] | None = None,
    columns: Sequence[str] | None = None,
) -> Streamed:
    """Open data that need not fit in memory.

    Parameters
    ----------
    source : str, path, ndarray, Dataset or iterable
        A ``.parquet`` file or a folder of them, whose row groups are the blocks; a ``.npy`` file, or an array
        or memory map; a torch ``Dataset`` of items, or of pairs (item, label), which are asked for as they
        are needed; or an iterable of such items, which is read once and kept in a temporary file if it does
        not fit. So are row groups too large for the memory.
    memory : str, int or None
        What a fit may take for data, as in "2GB"; None: half of what is available. Row numbers, of 4
        bytes each, come on top.
    encode : callable or None
        From a pandas table of some rows of a parquet file to an array ``(rows, m)``; None: numbers as they
        are, in float32 or float64, and NaN where one is missing.
    columns : sequence of str or None
        Of a parquet file; None: all that hold numbers, or all of them with ``encode``.

    Returns
    -------
    Streamed
        What ``fit``, ``transform`` and ``score_samples`` go through block by block.

    Raises
    ------
    DataError
        If there is nothing to read, or items differ in shape or type.

    Examples
    --------
    >>> import numpy as np, chartae as ct
    >>> from chartae.training.streams import stream
    >>> np.save("big.npy", np.random.default_rng(0).random((200, 3)))
    >>> X = stream("big.npy", memory="16 KB")
    >>> X
    Streamed(big.npy, shape=(200, 3), dtype=float64, blocks=40)
    >>> ct.VAE(latent_dim=1, max_epochs=1).fit(X).transform(X).shape
    (200, 1)
    """
    size = parse_bytes(memory)
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir() or path.suffix.lower() == ".parquet":
            return _Parquet(path, size).open(columns, encode)
        if path.suffix.lower() == ".npy":
            return _npy(path, size)
        raise DataError(f"{path} is not read in blocks: save it as .parquet or .npy")
    if encode is not None or columns is not None:
        raise DataError("encode and columns are for parquet files: leave them out")
    if isinstance(source, Streamed):
        return source
    if isinstance(source, np.ndarray):
        _numbers(source, "array")
        return _regular(lambda a, b: np.array(source[a:b]), source.shape, source.dtype, size, name="array")
    # A loader has batches of what its dataset has items of.
    source = getattr(source, "dataset", source)
    mapped = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if mapped and (isinstance(source, list | tuple) or not hasattr(source, "__iter__")):
        return _dataset(source, size)
    if hasattr(source, "__iter__"):
        return _iterable(source, size)
    raise DataError(f"{type(source).__name__} has neither items nor rows: pass a file, an array or a Dataset")


def open_table(
    path: Path, *, memory: str | int | None = None, label: str | None = None
) -> tuple[Any, Any, str]:
    """Read parquet files as a table if it fits in memory, and as a stream of their numbers if not.

    Parameters
    ----------
    path : Path
        A ``.parquet`` file or a folder of them.
    memory : str, int or None
        As in :func:`stream`.
    label : str or None
        A column of labels, which is read whole and is no part of a stream.

    Returns
    -------
    table : DataFrame or Streamed
        Of shape ``(n, columns)``; a table has the labels in it.
    labels : Series or None
        ``(n,)``, beside a stream.
    note : str
        What was chosen.

    Raises
    ------
    DataError
        If files are missing or damaged, or have no such column.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np, pandas as pd
    >>> from chartae.training.streams import open_table
    >>> table = pd.DataFrame({"a": np.arange(1000.0), "b": ["x"] * 1000})
    >>> table.to_parquet("t.parquet", row_group_size=50)
    >>> open_table(Path("t.parquet"), memory="20KB", label="b")[0]
    Streamed(t.parquet, shape=(1000, 1), dtype=float64, blocks=20)
    """
    files = _Parquet(path, parse_bytes(memory))
    if label is not None and label not in files.columns:
        raise DataError(f"{path.name} has no column {label!r}: {suggest(label, files.columns)}")
    if sum(files.bytes(files.columns)) <= TABLE * files.memory:
        return files.table(files.columns), None, ""
    labels = None if label is None else files.table([label])[label]
    numbers = _number_types(files.arrow)
    features = [c for c in files.columns if c != label]
    chosen = [c for c in features if files.kinds[0][c] in numbers]
    left = len(features) - len(chosen)
    note = f", without {left} column{'s' * (left != 1)} that hold no numbers" if left else ""
    return files.open(chosen), labels, "read in blocks" + note


def _regular(
    rows: Callable[[int, int], np.ndarray], shape: Sequence[int], dtype: Any, memory: int, **more: Any
) -> Streamed:
    """Make blocks of equal size of what gives any rows."""
    n, *item = shape
    if not n:
        raise DataError(f"{more['name']} is empty: give at least one item")
    each = max(1, int(BLOCK * memory) // max(1, math.prod(item) * np.dtype(dtype).itemsize))
    edges = np.append(np.arange(0, n, each), n)

    def read(i: int) -> np.ndarray:
        return rows(int(edges[i]), int(edges[i + 1]))

    return Streamed(read, edges, item, dtype, memory=memory, **more)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make an array that goes back to the system with its last user: malloc would keep it for itself."""
    size = math.prod(shape)
    if size * dtype.itemsize < 1 << 20:
        return np.empty(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, size * dtype.itemsize), dtype, size).reshape(shape)


def _numbers(array: np.ndarray, name: str) -> None:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} holds {array.dtype}, not numbers: convert it")


# ------------------------------------------------------------------------------------------------ files


def _npy(path: Path, memory: int) -> Streamed:
    mapped: Any = read_array(path)
    _numbers(mapped, path.name)
    if not mapped.ndim:
        raise DataError(f"{path} holds a single number: give rows")
    shape, dtype = mapped.shape, mapped.dtype
    if not mapped.flags.c_contiguous or not isinstance(mapped, np.memmap):  # columns first, or empty
        return _regular(lambda a, b: np.array(mapped[a:b]), shape, dtype, memory, name=path.name)
    offset = mapped.offset
    return _regular(
        lambda a, b: _rows(path, a, b, shape[1:], dtype, offset), shape, dtype, memory, name=path.name
    )


def _rows(
    path: Any, start: int, stop: int, item: Sequence[int], dtype: np.dtype, offset: int = 0
) -> np.ndarray:
    """Read rows of a file of numbers; pages of a memory map would count as memory of the process."""
    size = math.prod(item)
    offset += start * size * dtype.itemsize
    try:
        return np.fromfile(path, dtype, (stop - start) * size, offset=offset).reshape(stop - start, *item)
    except (OSError, ValueError) as e:
        raise DataError(f"cannot read row {start} and on of {path} ({_line(e)}): write it again") from None


class _Spool:
    """A temporary file of rows, deleted with the object."""

    def __init__(self, item: Sequence[int], dtype: np.dtype) -> None:
        handle, self.path = tempfile.mkstemp(prefix="chartae-", suffix=".rows")
        self.item, self.dtype, self.rows = item, dtype, 0
        self.file = os.fdopen(handle, "wb")
        weakref.finalize(self, _drop, self.file, self.path)

    def add(self, block: np.ndarray) -> None:
        try:
            self.file.write(np.ascontiguousarray(block).data)
            self.file.flush()
        except OSError as e:
            raise DataError(
                f"cannot write to {self.path} ({_line(e)}): point TMPDIR to a disk that holds all rows"
            ) from None
        self.rows += len(block)

    def read(self, start: int, stop: int) -> np.ndarray:
        return _rows(self.path, start, stop, self.item, self.dtype)

    def open(self, memory: int, **more: Any) -> Streamed:
        return _regular(self.read, (self.rows, *self.item), self.dtype, memory, **more)


def _drop(file: Any, path: str) -> None:
    with contextlib.suppress(OSError):  # of a full disk
        file.close()
    Path(path).unlink(missing_ok=True)


class _Parquet:
    """Files of one table, whose row groups are blocks."""

    def __init__(self, path: Path, memory: int) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise DataError("parquet files need pyarrow: pip install 'chartae[data]'") from None
        self.arrow, self.failures = pyarrow, (OSError, pyarrow.ArrowException)
        self.name, self.memory = path.name, memory
        self.files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not self.files or not self.files[0].exists():
            raise DataError(f"there is no parquet file {path}: pass another file or folder")
        self.heads = [self._guarded(file, pyarrow.parquet.read_metadata, file) for file in self.files]
        schemas = [head.schema.to_arrow_schema() for head in self.heads]
        # The row names of a pandas table are stored as a column, and say nothing.
        names = (schemas[0].pandas_metadata or {}).get("index_columns", [])
        self.columns = [c for c in schemas[0].names if c not in names]
        self.kinds = [{field.name: field.type for field in schema} for schema in schemas]
        self.groups = [(f, g) for f, head in enumerate(self.heads) for g in range(head.num_row_groups)]
        self.sizes = [self.heads[f].row_group(g).num_rows for f, g in self.groups]
        self.encode: Callable[[Any], np.ndarray] | None = None
        if not sum(self.sizes):
            raise DataError(f"{self.name} has no rows: pass at least one")

    def open(
        self, columns: Sequence[str] | None = None, encode: Callable[[Any], np.ndarray] | None = None
    ) -> Streamed:
        """Read row groups as they are needed, or once into a file of smaller blocks if one is too large."""
        known = _number_types(self.arrow)
        if columns is None:
            columns = [c for c in self.columns if encode is not None or self.kinds[0][c] in known]
        if not columns:
            listed = ", ".join(self.columns)
            raise DataError(f"{self.name} has no column of numbers: its columns are {listed}")
        self.columns, self.encode = list(columns), encode
        for file, kinds in zip(self.files, self.kinds, strict=True):
            for column in columns:
                if column not in kinds:
                    raise DataError(f"{file} has no column {column!r}: {suggest(column, list(kinds))}")
                if encode is None and kinds[column] not in known:
                    what = f"column {column!r} of {file} holds {kinds[column]}, no numbers"
                    raise DataError(f"{what}: leave it out, or pass encode")
        more: dict[str, Any] = {"memory": self.memory, "name": self.name}
        if encode is None:
            # Whole numbers may be missing too, and then are NaN.
            parts = [known[kinds[c]] for kinds in self.kinds for c in columns]
            self.item, self.dtype = (len(columns),), np.result_type(np.float32, *parts)
            more["columns"] = columns
        else:
            first = next(self._batches(0, 16))
            self.item, self.dtype = first.shape[1:], first.dtype
        row = math.prod(self.item) * self.dtype.itemsize
        if max(self.bytes(columns), default=0) <= LARGEST_BLOCK * self.memory >= row * max(self.sizes):
            return Streamed(self._group, np.cumsum([0, *self.sizes]), self.item, self.dtype, **more)
        spool = _Spool(self.item, self.dtype)
        for f in range(len(self.files)):
            for block in self._batches(f, max(1, int(BLOCK * self.memory) // max(1, row))):
                spool.add(block)
        return spool.open(**more)

    def table(self, columns: Sequence[str]) -> Any:
        """Read columns whole, as pandas has them."""
        read = self.arrow.parquet.read_table
        parts = [self._guarded(file, read, file, columns=columns, partitioning=None) for file in self.files]
        return self._guarded(self.files[0], self.arrow.concat_tables, parts).to_pandas(ignore_metadata=True)

    def bytes(self, columns: Sequence[str]) -> list[int]:
        """Size of each row group when it is no longer compressed."""
        sizes = []
        for f, g in self.groups:
            group = self.heads[f].row_group(g)
            parts = (group.column(i) for i in range(group.num_columns))
            named = (p for p in parts if p.path_in_schema.split(".")[0] in columns)
            sizes.append(sum(p.total_uncompressed_size for p in named))
        return sizes

    def _group(self, i: int) -> np.ndarray:
        f, g = self.groups[i]
        with self._file(f) as file:
            table = self._guarded(self.files[f], file.read_row_group, g, self.columns, use_threads=False)
            return self._array(table)

    def _batches(self, f: int, rows: int) -> Iterator[np.ndarray]:
        with self._file(f) as file:
            batches = file.iter_batches(rows, columns=self.columns, use_threads=False)
            while (batch := self._guarded(self.files[f], next, batches, None)) is not None:
                yield self._array(batch)

    def _file(self, f: int) -> Any:
        # Without a buffer, whole columns of a row group are held while it is read in batches.
        more = {"metadata": self.heads[f], "pre_buffer": False, "buffer_size": 1 << 16}
        return self._guarded(self.files[f], self.arrow.parquet.ParquetFile, self.files[f], **more)

    def _guarded(self, file: Path, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **kwargs)
        except self.failures as e:
            raise DataError(f"cannot read {file} ({_line(e)}): write it again") from None

    def _array(self, table: Any) -> np.ndarray:
        if self.encode is not None:
            array = np.asarray(self.encode(table.to_pandas(split_blocks=True, self_destruct=True)))
            _numbers(array, "what encode gives")
            return array
        out = np.empty((table.num_rows, len(self.columns)), self.dtype)
        for place, name in enumerate(self.columns):
            out[:, place] = table.column(name).to_numpy(zero_copy_only=False)
        return out


def _number_types(arrow: Any) -> dict[Any, Any]:
    names = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    types = {getattr(arrow, name)(): np.dtype(name) for name in (*names, "float16", "float32", "float64")}
    return types | {arrow.bool_(): np.dtype(np.uint8)}


# ------------------------------------------------------------------------------------------------ items


def _split(item: Any) -> tuple[np.ndarray, Any]:
    """Tell an item from its label."""
    x, label = (*item, None)[:2] if isinstance(item, tuple) else (item, None)
    try:
        return array_of(x), label
    except ValueError as e:
        raise DataError(f"an item does not make an array ({_line(e)}): give arrays of numbers") from None


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
    if hasattr(label, "__array__"):
        label = array_of(label)

    def rows(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *first.shape), first.dtype)
        for i in range(start, stop):
            out[i - start] = _alike(_split(items[i])[0], first, i)
        return out

    def labels() -> np.ndarray:
        return np.array([array_of(_split(items[i])[1]) for i in range(n)])

    _alike(first, first, 0)
    has = None if label is None else labels
    return _regular(rows, (n, *first.shape), first.dtype, memory, name=name, labels=has)


def _iterable(items: Iterable[Any], memory: int) -> Streamed:
    """Keep items that come once: in memory while they fit, and in a file from there on."""
    name, labels = type(items).__name__, []
    first: np.ndarray | None = None
    spool: _Spool | None = None
    held: list[np.ndarray] = []
    most = 1
    for i, item in enumerate(items):
        x, label = _split(item)
        if first is None:
            first = np.array(x)
            most = max(1, int(LARGEST_BLOCK * memory) // max(1, first.nbytes))
        held.append(np.array(_alike(x, first, i)))  # a copy: some iterables fill one array again and again
        if label is not None:
            labels.append(array_of(label))
        if len(held) == most:
            spool = spool or _Spool(first.shape, first.dtype)
            spool.add(np.stack(held))
            held = []
    if first is None:
        raise DataError(f"{name} is empty: give at least one item")
    y = np.array(labels) if labels else None
    more: dict[str, Any] = {"name": name, "labels": None if y is None else lambda: y}
    if spool is None:
        whole = np.stack(held)
        return _regular(lambda a, b: whole[a:b].copy(), whole.shape, whole.dtype, memory, **more)
    if held:
        spool.add(np.stack(held))
    return spool.open(memory, **more)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
