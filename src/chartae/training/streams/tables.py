"""Tables that are read block by block from parquet files."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chartae.core.columns import Schema
from chartae.core.errors import DataError, one_line
from chartae.core.files import visible_files
from chartae.core.registry import suggest
from chartae.training.streams.arrays import Streamed, changed, kept, stamp_of
from chartae.training.streams.memory import FRAME, TABLE, TEXT, parse_bytes

__all__ = ["StreamedTable"]


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
        self._files = [path]
        if path.is_dir():
            self._files = [file for file in visible_files(path) if file.suffix.lower() == ".parquet"]
        if not self._files or not self._files[0].exists():
            raise DataError(f"there is no parquet file {path}: pass another file or folder")
        for part in self._files[0].relative_to(path).parts[:-1] if path.is_dir() else ():
            if "=" in part:  # as pandas, Spark and Dask write them
                raise DataError(
                    f"{path} keeps the column {part.partition('=')[0]!r} in the names of its folders, which "
                    "are not read: read it with pandas.read_parquet, and pass that table"
                )
        self._stamps = [stamp_of(file) for file in self._files]
        heads = [self._guarded(file, pyarrow.parquet.read_metadata, file) for file in self._files]
        schemas = [
            self._guarded(f, h.schema.to_arrow_schema) for f, h in zip(self._files, heads, strict=True)
        ]
        # The row names of a pandas table are stored as columns, and say nothing.
        pandas = self._guarded(self._files[0], lambda: schemas[0].pandas_metadata) or {}
        names = pandas.get("index_columns", [])
        twice = [name for name, times in Counter(schemas[0].names).items() if times > 1]
        if twice:
            raise DataError(f"column {twice[0]!r} is there twice in {self.name}: rename one of them")
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
            if stamp_of(file) != stamp:
                raise changed(file)
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
                    if stamp_of(file) != stamp:
                        raise changed(file)
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
        return kept(blocks, memory=self.memory, name=self.name)

    def _guarded(self, file: Path, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return read(*args, **kwargs)
        except (OSError, ValueError, self._arrow.ArrowException) as e:
            raise DataError(f"cannot read {file} ({one_line(e)}): write it again") from None


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
