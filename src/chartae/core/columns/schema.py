"""All columns of a table, and the way between tables and arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from chartae.core.columns.frames import as_pandas, is_frame, is_streamed_table, without
from chartae.core.columns.kinds import KINDS, Column
from chartae.core.columns.seen import Seen
from chartae.core.columns.values import given, numbers_of, polars_series, values_of
from chartae.core.errors import DataError, PlanError, enumerated
from chartae.core.registry import suggest

__all__ = ["Schema"]

SMALL = {"bool", "int8", "uint8", "int16", "uint16", "float16", "float32"}  # float32 holds all their values
TILE = 2048  # rows of several columns written side by side: they stay in the cache


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in their order.

    Parameters
    ----------
    columns : tuple of Column
        What they hold.
    library : {"pandas", "polars"}
        Whose tables come in and go out.
    numbered : bool
        Whether the columns' names are whole numbers, which here are texts all the same.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import Schema
    >>> table = pd.DataFrame({"size": [1.5, None, 0.5], "color": ["red", "blue", "red"]})
    >>> schema = Schema.learn(table)
    >>> [column.kind for column in schema.columns], schema.encode(table)[:, 1]
    (['continuous', 'categorical'], array([1., 0., 1.]))
    >>> schema.decode(schema.encode(table)).equals(table)
    True
    """

    columns: tuple[Column, ...]
    library: str = "pandas"
    numbered: bool = False

    @classmethod
    def learn(cls, frame: Any, kinds: Mapping[str, str] | None = None, known: Iterable[str] = ()) -> Schema:
        """See what the columns of a table hold.

        Truth values, and whole numbers of two values, are binary; text and pandas' categories categorical;
        whole numbers from 0 up that vary about as much as a Poisson variable, or more, are counts; numbers
        above 0 that a gamma density suits better than a normal one, by .05 nats each and more of few rows,
        are positive; all other numbers and dates are continuous.

        Parameters
        ----------
        frame : DataFrame or StreamedTable
            ``(n, columns)``, of pandas or polars; all blocks of a stream are seen, one after the other.
        kinds : Mapping of str to str or None
            What the user says that columns are: a kind, the name of a likelihood, or "drop", to leave it out.
        known : iterable of str
            Names of likelihoods that may be asked for.

        Returns
        -------
        Schema
            Of these columns.

        Raises
        ------
        DataError
            If a column cannot be used, or two have one name.
        PlanError
            If ``kinds`` names a column or a kind that is not there.
        """
        if (levels := getattr(frame.columns, "nlevels", 1)) > 1:
            raise DataError(
                f"the names of the columns have {levels} levels: make one of them, as by table.columns = "
                "table.columns.map(str)"
            )
        names = [str(name) for name in frame.columns]
        for name in kinds or {}:
            if name not in names:
                raise PlanError(f"the table has no column {name!r}: {suggest(name, names)}")
        shape, frame = frame.shape, without(frame, kinds)
        if 0 in frame.shape:
            why = "" if 0 in shape else ", all of whose columns are dropped"
            raise DataError(f"the table has shape {shape}{why}, and holds no values: give rows and columns")
        frames = frame.frames() if is_streamed_table(frame) else [frame]
        kept: list[Seen] = []
        for frame in frames:
            library = "polars" if type(frame).__module__.startswith("polars") else "pandas"
            table = as_pandas(frame)
            if not kept:
                names, numbered = [str(name) for name in table.columns], table.columns.dtype.kind in "iu"
                twice = next((name for name in names if names.count(name) > 1), None)
                if twice:
                    raise DataError(f"column {twice!r} is there twice: rename one of them")
                kept = [Seen(name, (kinds or {}).get(name)) for name in names]
            blocks = zip(kept, map(str, frame.dtypes), table.items(), strict=True)
            _each((seen.name, partial(seen.add, values, dtype)) for seen, dtype, (_, values) in blocks)
        columns = _each((seen.name, partial(seen.column, known)) for seen in kept)
        schema = cls(tuple(columns), library, numbered)
        if library == "pandas":
            for column in schema.columns:
                column.check_type()
        return schema

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    @property
    def uniform(self) -> bool:
        """Whether all are continuous or positive, or all binary, and none is asked to be anything else."""
        kinds = {(column.kind in ("continuous", "positive"), column.likelihood) for column in self.columns}
        return kinds in ({(True, KINDS["continuous"])}, {(False, KINDS["binary"])})

    @property
    def wordy(self) -> str | None:
        """The first column whose values are no numbers; None if there is none."""
        for column in self.columns:
            if any(isinstance(c, str) for c in column.categories or ()) or column.kind == "categorical":
                return column.name
        return None

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers that a table becomes: float32 if it holds all values exactly, or float64."""
        exact = all(
            c.categories is not None or (c.dtype.lower() in SMALL and not c.logged) for c in self.columns
        )
        return np.dtype(np.float32 if exact else np.float64)

    def encode(self, frame: Any) -> Any:
        """Turn a table into numbers.

        Parameters
        ----------
        frame : DataFrame or StreamedTable
            ``(n, columns)``, with these columns in any order.

        Returns
        -------
        ndarray or Streamed
            ``(n, columns)``, of :attr:`dtype`; NaN where a value is missing, categories as 0, 1, ..., and
            positive values as their logarithms.

        Raises
        ------
        DataError
            If a column is missing, or holds what its kind cannot.
        """
        if is_streamed_table(frame):
            return frame.encoded(self)
        table = as_pandas(frame).rename(columns=str)
        absent = next((name for name in self.names if name not in table), None)
        if absent is not None:
            raise DataError(f"the table has no column {absent!r}: {suggest(absent, table.columns)}")
        numbers = [numbers_of(column, table[column.name]) for column in self.columns]
        out = np.empty((len(table), len(numbers)), self.dtype)
        for start in range(0, len(out), TILE):
            for i, column in enumerate(numbers):
                out[start : start + TILE, i] = column[start : start + TILE]
        return out

    def decode(self, X: np.ndarray, frame: Any = None) -> Any:
        """Turn numbers into a table.

        Parameters
        ----------
        X : ndarray
            ``(n, columns)``, as :meth:`encode` gives them, up to rounding.
        frame : DataFrame, StreamedTable or None
            A table of ``n`` rows, of any library and types, whose values, where there are some, are taken as
            they are, since numbers may have rounded them, and whose row names are kept.

        Returns
        -------
        DataFrame
            ``(n, columns)``, with the names, types and categories that were learned.
        """
        import pandas as pd

        frame = frame.whole() if is_streamed_table(frame) else frame
        own = as_pandas(frame).rename(columns=str) if is_frame(frame) else None
        made = {}
        for i, column in enumerate(self.columns):
            kept = None if own is None or column.categories else given(column, own[column.name])
            made[column.name] = values_of(column, X[:, i], self.library, kept)
        if self.library == "pandas":
            table = pd.DataFrame(made)
            if own is not None and isinstance(frame, pd.DataFrame):
                table.index = frame.index
                for name in self.names:  # to the last bit, and of dates to the last nanosecond
                    if own[name].dtype == table[name].dtype:
                        table[name] = own[name].where(own[name].notna(), table[name])
            if self.numbered:
                table.columns = pd.Index([int(name) for name in self.names])
            return table
        import polars as pl

        series = [polars_series(column, made[column.name]) for column in self.columns]
        if isinstance(frame, pl.DataFrame):
            for i, name in enumerate(self.names):
                there = frame[name].fill_nan(None) if frame[name].dtype.is_float() else frame[name]
                if there.dtype == series[i].dtype:
                    series[i] = there.zip_with(there.is_not_null(), series[i])
        return pl.DataFrame(series)

    def __str__(self) -> str:
        rows = [("column", "kind", "likelihood", "missing", "values")]
        for column in self.columns:
            shown = column.dtype
            if column.categories is not None:
                some = ", ".join(map(str, column.categories[:4]))
                shown = f"{column.levels}: {some}" + (", ..." if len(column.categories) > 4 else "")
            missing = f"{column.missing:.1%}" if column.missing else ""
            likelihood = column.likelihood + " of logs" * column.logged
            rows.append((column.name, column.kind, likelihood, missing, shown))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        columns = [asdict(column) for column in self.columns]
        return {"library": self.library, "numbered": self.numbered, "columns": columns}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schema:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.

        Returns
        -------
        Schema
            The same.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        columns = []
        for kept in config["columns"]:
            categories = kept["categories"]
            columns.append(
                Column(**{**kept, "categories": None if categories is None else tuple(categories)})
            )
            if columns[-1].kind not in KINDS:
                raise ValueError(f"a column of kind {columns[-1].kind!r} is not known")
        return cls(tuple(columns), config["library"], config["numbered"])


def _each(work: Iterable[tuple[str, Callable[[], Any]]]) -> list[Any]:
    """Do something with each column: of those that cannot be used the first says why, and all are named."""
    done, faults = [], {}
    for name, step in work:
        try:
            done.append(step())
        except DataError as error:
            faults[name] = error
    if faults:
        first, *others = faults
        more = f"; nor can {enumerated([repr(name) for name in others])} be used" if others else ""
        raise DataError(f"{faults[first]}{more}") from None
    return done
