"""The columns of a table: what each holds, and the way between a data frame and an array of numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest

__all__ = ["KINDS", "Column", "Schema", "as_pandas", "is_frame"]

#: Kinds of columns, and the likelihood that suits each.
KINDS: dict[str, str] = {
    "continuous": "normal-mixture",
    "binary": "bernoulli",
    "categorical": "categorical",
    "count": "negative-binomial",
}
MOST_CATEGORIES = 1000  # more are names of rows rather than categories of them


def is_frame(X: Any) -> bool:
    """Tell a table of pandas or polars from everything else.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it is one.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import is_frame
    >>> is_frame(pd.DataFrame({"a": [1]})), is_frame([[1]])
    (True, False)
    """
    # Only a caller who has imported a library can hold one of its frames.
    return any(
        (module := sys.modules.get(name)) is not None and isinstance(X, module.DataFrame)
        for name in ("pandas", "polars")
    )


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
        Its name.
    kind : str
        One of :data:`KINDS`.
    likelihood : str
        p(x | z) of its values.
    dtype : str
        Its type in the user's table.
    categories : tuple or None
        Of a binary or a categorical column: what the numbers 0, 1, ... stand for.
    ordered : bool
        Whether the table says that its categories have an order.
    missing : float
        Share of values that are missing.
    constant : bool
        Whether all values that are there are the same.
    days : bool
        Whether all values are dates without a time of day, so that what is decoded is rounded to such dates.

    Examples
    --------
    >>> from chartae.core.columns import Column
    >>> Column("color", "categorical", "categorical", "str", ("blue", "red")).levels
    2
    """

    name: str
    kind: str
    likelihood: str
    dtype: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False
    missing: float = 0.0
    constant: bool = False
    days: bool = False

    @property
    def levels(self) -> int | None:
        """How many categories there are; None for numbers."""
        return None if self.categories is None else len(self.categories)


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in their order.

    Parameters
    ----------
    columns : tuple of Column
        What they hold.
    library : {"pandas", "polars"}
        Whose tables come in and go out.

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

    @classmethod
    def learn(cls, frame: Any, kinds: Mapping[str, str] | None = None, known: Iterable[str] = ()) -> Schema:
        """See what the columns of a table hold.

        Truth values, and whole numbers of two values, are binary; text and pandas' categories categorical;
        whole numbers from 0 up that vary about as much as a Poisson variable, or more, are counts; all other
        numbers and dates are continuous.

        Parameters
        ----------
        frame : DataFrame
            ``(n, columns)``, of pandas or polars.
        kinds : Mapping of str to str or None
            What the user says that columns are: a kind, or the name of a likelihood.
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
        library = "polars" if type(frame).__module__.startswith("polars") else "pandas"
        table = as_pandas(frame)
        names = [str(name) for name in table.columns]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise DataError(f"column {twice!r} is there twice: rename one of them")
        if not len(table) or not names:
            raise DataError(f"the table has shape {table.shape}, and holds no values: give rows and columns")
        for name in kinds or {}:
            if name not in names:
                raise PlanError(f"the table has no column {name!r}: {suggest(name, names)}")
        columns = []
        for i, name in enumerate(names):
            dtype = str(frame.dtypes[i]) if library == "polars" else str(table.dtypes.iloc[i])
            column = _column(name, table.iloc[:, i], dtype)
            asked = (kinds or {}).get(name)
            columns.append(column if asked is None else _as(column, asked, table.iloc[:, i], known))
        return cls(tuple(columns), library)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    @property
    def uniform(self) -> bool:
        """Whether all columns are continuous, or all binary, and none is asked to be anything else."""
        kinds = {(column.kind, column.likelihood) for column in self.columns}
        return kinds in ({("continuous", KINDS["continuous"])}, {("binary", KINDS["binary"])})

    @property
    def wordy(self) -> str | None:
        """The first column whose values are no numbers; None if there is none."""
        for column in self.columns:
            if any(isinstance(c, str) for c in column.categories or ()) or column.kind == "categorical":
                return column.name
        return None

    def encode(self, frame: Any) -> np.ndarray:
        """Turn a table into numbers.

        Parameters
        ----------
        frame : DataFrame
            ``(n, columns)``, with these columns in any order.

        Returns
        -------
        ndarray
            ``(n, columns)``, float64; NaN where a value is missing, categories as 0, 1, ...

        Raises
        ------
        DataError
            If a column is missing, or holds what its kind cannot.
        """
        table = as_pandas(frame)
        table = table.rename(columns=str)
        absent = next((name for name in self.names if name not in table), None)
        if absent is not None:
            raise DataError(f"the table has no column {absent!r}: {suggest(absent, table.columns)}")
        return np.column_stack([_numbers(column, table[column.name]) for column in self.columns])

    def decode(self, X: np.ndarray) -> Any:
        """Turn numbers into a table.

        Parameters
        ----------
        X : ndarray
            ``(n, columns)``, as :meth:`encode` gives them, up to rounding.

        Returns
        -------
        DataFrame
            ``(n, columns)``, with the names, types and categories that were learned.
        """
        import pandas as pd

        made = {column.name: _values(column, X[:, i], self.library) for i, column in enumerate(self.columns)}
        if self.library == "pandas":
            return pd.DataFrame(made)
        import polars as pl

        return pl.DataFrame([_polars_series(column, made[column.name]) for column in self.columns])

    def __str__(self) -> str:
        rows = [("column", "kind", "likelihood", "missing", "values")]
        for column in self.columns:
            shown = column.dtype
            if column.categories is not None:
                some = ", ".join(map(str, column.categories[:4]))
                shown = f"{column.levels}: {some}" + (", ..." if len(column.categories) > 4 else "")
            missing = f"{column.missing:.1%}" if column.missing else ""
            rows.append((column.name, column.kind, column.likelihood, missing, shown))
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
        return {"library": self.library, "columns": [asdict(column) for column in self.columns]}

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
        return cls(tuple(columns), config["library"])


def as_pandas(frame: Any) -> Any:
    """Give a table as one of pandas.

    Parameters
    ----------
    frame : DataFrame
        Of pandas, which comes back itself, or of polars.

    Returns
    -------
    DataFrame
        Of pandas; text and categories as objects.

    Examples
    --------
    >>> import polars as pl
    >>> from chartae.core.columns import as_pandas
    >>> as_pandas(pl.DataFrame({"a": [1, 2]})).shape
    (2, 1)
    """
    if not type(frame).__module__.startswith("polars"):
        return frame
    import pandas as pd

    def series(column: Any) -> Any:
        kind = str(column.dtype)
        if kind.startswith(("Date", "Time")):
            return pd.to_datetime(pd.Series(column.to_list(), name=column.name))
        if kind.startswith(("Cat", "Enum", "Str", "Utf8", "Bool")):
            return pd.Series(column.to_list(), name=column.name, dtype=object)
        return pd.Series(column.to_numpy(), name=column.name)

    return pd.DataFrame({column.name: series(column) for column in frame.get_columns()})


def _column(name: str, values: Any, dtype: str) -> Column:
    """Tell what a column holds by its type and its values."""
    import pandas as pd

    seen = values.dropna()
    missing = 1.0 - len(seen) / len(values)
    if not len(seen):
        raise DataError(f"column {name!r} holds no values: drop it")
    constant = bool((seen == seen.iloc[0]).all())
    made = Column(name, "continuous", KINDS["continuous"], dtype, missing=missing, constant=constant)
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = tuple(_plain(c) for c in values.dtype.categories)
        return _categorical(replace(made, ordered=bool(values.dtype.ordered)), categories)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return replace(made, days=bool((seen == seen.dt.normalize()).all()))
    holds = pd.api.types.infer_dtype(seen, skipna=True)
    if holds == "boolean":
        return replace(made, kind="binary", likelihood=KINDS["binary"], categories=(False, True))
    if holds == "string":
        return _categorical(made, tuple(sorted(set(seen))))
    if holds not in ("integer", "floating", "mixed-integer-float"):
        if any(isinstance(v, str) for v in seen) and any(
            isinstance(v, int | float | np.number) for v in seen
        ):
            raise DataError(f"column {name!r} mixes numbers and text: make all its values text, or numbers")
        what = f"column {name!r} holds {str(seen.iloc[0])!r:.40}"
        raise DataError(f"{what}, neither number nor text nor date: convert it, or drop it")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        values = pd.to_numeric(values)
        seen = values.dropna()
    numbers = seen.to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(np.isinf(values.to_numpy(dtype=np.float64, na_value=np.nan)))[0])
        raise DataError(f"column {name!r} is infinite in row {row} (from 0): correct it, or leave it empty")
    few = np.unique(numbers) if len(numbers) < 3 or len(np.unique(numbers[:1000])) < 3 else numbers[:3]
    if len(few) == 2 and bool((few == np.round(few)).all()):
        pair = tuple(int(v) for v in few)
        return replace(made, kind="binary", likelihood=KINDS["binary"], categories=pair)
    # pandas keeps whole numbers as floats where some are missing.
    maybe = pd.api.types.is_integer_dtype(values.dtype) or (missing > 0)
    whole = maybe and len(few) > 2 and numbers.min() >= 0 and bool((numbers == np.round(numbers)).all())
    if whole and numbers.var() >= 0.5 * numbers.mean():
        return replace(made, kind="count", likelihood=KINDS["count"])
    return made


def _categorical(column: Column, categories: tuple[Any, ...]) -> Column:
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"column {column.name!r} holds {len(categories):,} different texts, which name rows rather than "
            "describe them: drop it"
        )
    return replace(column, kind="categorical", likelihood=KINDS["categorical"], categories=categories)


def _as(column: Column, asked: str, values: Any, known: Iterable[str]) -> Column:
    """Take a column as the user says, and not as it looks."""
    by_likelihood = {likelihood: kind for kind, likelihood in KINDS.items()} | {"poisson": "count"}
    if asked not in KINDS and asked not in known:
        raise PlanError(f"column {column.name!r} cannot be {asked!r}: {suggest(asked, [*KINDS, *known])}")
    kind = asked if asked in KINDS else by_likelihood.get(asked, "continuous")
    made = replace(column, kind=kind, likelihood=KINDS.get(asked, asked))
    if kind in ("categorical", "binary"):
        categories = column.categories or tuple(sorted({_plain(v) for v in values.dropna()}))
        if kind == "binary" and len(categories) != 2:
            what = f"column {column.name!r} holds {len(categories)} values"
            raise PlanError(f"{what} and cannot be binary: use 'categorical'")
        return replace(_categorical(made, categories), kind=kind, likelihood=made.likelihood)
    if column.categories is not None and any(isinstance(c, str) for c in column.categories):
        raise PlanError(f"column {column.name!r} holds text and cannot be {asked!r}: use 'categorical'")
    return replace(made, categories=None)


def _plain(value: Any) -> Any:
    """Give a category as a JSON value."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | bool):
        raise DataError(f"{str(value)!r:.40} cannot be a category: use text, numbers or truth values")
    return value


def _numbers(column: Column, values: Any) -> np.ndarray:
    """``(n,)`` float64, NaN where a value is missing."""
    import pandas as pd

    gaps = values.isna().to_numpy()
    if column.categories is not None:
        codes = pd.Index(column.categories).get_indexer(values.astype(object))
        unknown = (codes < 0) & ~gaps
        if unknown.any():
            listed = ", ".join(map(repr, column.categories[:20]))
            value = values.iloc[int(unknown.argmax())]
            raise DataError(f"column {column.name!r} holds {value!r}, which is not known: it knows {listed}")
        return np.where(gaps, np.nan, codes.astype(np.float64))
    if column.dtype.lower().startswith("date"):
        stamps = pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
        return np.where(gaps, np.nan, stamps.astype("int64").to_numpy() / 1e6)
    try:
        numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        bad = pd.to_numeric(values, errors="coerce").isna().to_numpy() & ~gaps
        row = int(bad.argmax())
        shown = f"{str(values.iloc[row])!r:.40}"
        raise DataError(
            f"column {column.name!r} holds {shown} in row {row} (from 0), and numbers are needed: correct it"
        ) from None
    wrong = np.isinf(numbers)
    if column.kind == "count":
        wrong |= (numbers < 0) | (numbers != np.round(numbers)) & ~gaps
    if wrong.any():
        row = int(wrong.argmax())
        needed = "whole numbers from 0 up" if column.kind == "count" else "finite numbers"
        raise DataError(
            f"column {column.name!r} holds {numbers[row]:g} in row {row} (from 0), and {needed} are needed: "
            "correct it, or leave it empty"
        )
    return numbers


def _values(column: Column, numbers: np.ndarray, library: str) -> Any:
    """Give ``(n,)`` numbers as a series of a column's type."""
    import pandas as pd

    gaps = ~np.isfinite(numbers)
    if column.kind == "count":  # what was drawn is whole up to rounding, what is expected need not be
        near = np.abs(numbers - np.round(numbers)) < 1e-5 * np.maximum(1.0, np.abs(numbers))
        numbers = np.where(near, np.round(numbers), numbers)
    if column.categories is not None:
        codes = np.clip(np.round(np.where(gaps, 0, numbers)), 0, len(column.categories) - 1).astype(np.int64)
        picked = pd.Series([column.categories[code] for code in codes], dtype=object)
        picked[gaps] = None
        if library == "polars":
            return picked
        if column.dtype == "category":
            return pd.Series(pd.Categorical(picked, list(column.categories), ordered=column.ordered))
        return _typed(picked, column.dtype, gaps)
    if library == "polars" and not column.dtype.startswith("Date"):
        return pd.Series(numbers)
    if column.dtype.lower().startswith("date"):
        stamps = pd.to_datetime(pd.Series(np.where(gaps, 0, numbers)) * 1e6, unit="us", utc=True)
        stamps = stamps.mask(gaps)
        zone = column.dtype.partition(",")[2].strip(" ]")
        stamps = stamps.dt.tz_convert(zone) if zone else stamps.dt.tz_localize(None)
        if column.days:  # by the local clock: where it is changed, a day has more or less than 24 hours
            stamps = (stamps.dt.tz_localize(None) + pd.Timedelta(hours=12)).dt.normalize()
            stamps = (
                stamps.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward") if zone else stamps
            )
        asked: Any = column.dtype
        return stamps if library == "polars" else stamps.astype(asked)
    return _typed(pd.Series(numbers), column.dtype, gaps)


def _typed(values: Any, dtype: Any, gaps: np.ndarray) -> Any:
    whole = dtype.lower().startswith(("int", "uint"))
    if whole:
        values = values.astype(np.float64).round()
    if gaps.any() and (whole or dtype == "bool") and dtype[0].islower():
        return values  # NumPy's types have no missing value
    return values.astype(dtype)


def _polars_series(column: Column, values: Any) -> Any:
    import polars as pl

    kind = column.dtype.partition("(")[0]
    items = values.astype(object).where(values.notna(), None).tolist()
    if kind.startswith(("Int", "UInt")):
        return pl.Series(
            column.name, [None if v is None else round(v) for v in items], dtype=getattr(pl, kind)
        )
    if kind == "Enum":
        return pl.Series(column.name, items, dtype=pl.Enum(list(column.categories or ())))
    if kind == "Date":
        return pl.Series(column.name, items).cast(pl.Date)
    return pl.Series(column.name, items, dtype=getattr(pl, kind, None), strict=False)
