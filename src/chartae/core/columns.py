"""The columns of a table: what each holds, and the way between a data frame and an array of numbers."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sized
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

import numpy as np

from chartae.core.errors import DataError, PlanError, one_line
from chartae.core.registry import suggest

__all__ = ["KINDS", "Column", "Schema", "as_pandas", "is_frame", "is_streamed_table", "leave_out", "without"]

#: Kinds of columns, and the likelihood that suits each.
KINDS: dict[str, str] = {
    "continuous": "normal-mixture",
    "positive": "normal-mixture",  # of logarithms
    "binary": "bernoulli",
    "categorical": "categorical",
    "count": "negative-binomial",
}
DROP = "drop"  # said of a column that no model is to see
PLAINLY, DOUBT = 0.05, 4.0  # nats of a value by which a gamma density must be better, and more of few: 4 / n
#: How columns become numbers or dates whose values pandas has a name for.
CONVERTED = {
    "timedelta64": "convert it, as by .dt.total_seconds()",
    "timedelta": "convert it, as by .dt.total_seconds()",
    "period": "convert it, as by .dt.to_timestamp()",
}
DIGITS = 6  # after the point; numbers that have more are measured rather than written
MANY = 20  # rows, of which no two texts alike are no chance
MOST_CATEGORIES = 1000  # more are names of rows rather than categories of them
NUMBERS = {"integer", "floating", "mixed-integer-float"}  # what pandas calls them
#: What kind of column a likelihood makes; any other one makes it continuous.
KIND_OF = {KINDS[kind]: kind for kind in ("continuous", "binary", "categorical", "count")} | {
    "poisson": "count"
}
EXACT = 2**53  # whole numbers up to which float64 holds each
FIRST, LAST = -62_135_510_400.0, 253_402_214_400.0  # seconds of the years 1 to 9999, but for a day each
SMALL = {"bool", "int8", "uint8", "int16", "uint16", "float16", "float32"}  # float32 holds all their values
TILE = 2048  # rows of several columns written side by side: they stay in the cache


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


def is_streamed_table(X: Any) -> bool:
    """Tell a table that is read block by block, and never whole.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it gives its blocks one after the other.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import is_streamed_table
    >>> is_streamed_table(pd.DataFrame({"a": [1]}))
    False
    """
    return hasattr(X, "frames")


def leave_out(*names: str) -> str:
    """Say how columns are left out of a fit.

    Parameters
    ----------
    *names : str
        Of the columns.

    Returns
    -------
    str
        The parameter of an estimator, as it is written.

    Examples
    --------
    >>> from chartae.core.columns import leave_out
    >>> leave_out("id")
    "columns={'id': 'drop'}"
    """
    return f"columns={dict.fromkeys(names, DROP)}"


def without(frame: Any, kinds: Mapping[str, str] | None) -> Any:
    """Leave columns out of a table.

    Parameters
    ----------
    frame : DataFrame or StreamedTable
        ``(n, columns)``.
    kinds : Mapping of str to str or None
        What the user says that columns are; those that are "drop" go, where the table has them.

    Returns
    -------
    DataFrame or StreamedTable
        The others, in their order.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import without
    >>> list(without(pd.DataFrame({"id": [1], "size": [2]}), {"id": "drop"}))
    ['size']
    """
    kept = [name for name in frame.columns if (kinds or {}).get(str(name)) != DROP]
    if len(kept) == len(frame.columns):
        return frame
    return frame.select(kept) if is_streamed_table(frame) else frame[kept]


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
    names_rows : bool
        Whether values number the rows, or are as many texts as there are rows, so that they tell nothing.
    days : bool
        Whether all values are dates without a time of day, so that what is decoded is rounded to such dates.
    digits : int or None
        Of numbers that are no counts: digits after the point that are enough to write each of them, to which
        what is decoded is rounded; None if they have more than six.

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
    names_rows: bool = False
    days: bool = False
    digits: int | None = None

    @property
    def levels(self) -> int | None:
        """How many categories there are; None for numbers."""
        return None if self.categories is None else len(self.categories)

    @property
    def logged(self) -> bool:
        """Whether its numbers are logarithms of its values."""
        return self.kind == "positive"

    @property
    def clock(self) -> tuple[str, str | None] | None:
        """Unit and time zone of a column of dates; None for other columns."""
        if not self.dtype.lower().startswith(("date", "timestamp")):
            return None
        unit = re.search(r"[\['](ns|us|ms|s)\b", self.dtype)
        zone = re.search(r"(?:time_zone='|tz=|, )([\w/+:-]+)['\]]", self.dtype.replace("time_unit", ""))
        return unit[1] if unit else "us", zone[1] if zone else None

    def check_type(self) -> None:
        """Refuse a type of pandas that cannot be made again by its name.

        Raises
        ------
        DataError
            If it is one.
        """
        import pandas as pd

        if self.clock is None and self.dtype != "category":
            try:
                pd.api.types.pandas_dtype(self.dtype)
            except TypeError:
                raise DataError(
                    f"column {self.name!r} has the type {self.dtype}, which pandas cannot make again by its "
                    "name: convert it, as by .astype('category') or .astype(str)"
                ) from None


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
        given = [str(name) for name in frame.columns]
        for name in kinds or {}:
            if name not in given:
                raise PlanError(f"the table has no column {name!r}: {suggest(name, given)}")
        frame = without(frame, kinds)
        if 0 in frame.shape:
            raise DataError(f"the table has shape {frame.shape}, and holds no values: give rows and columns")
        frames = frame.frames() if is_streamed_table(frame) else [frame]
        kept: list[_Seen] = []
        for frame in frames:
            library = "polars" if type(frame).__module__.startswith("polars") else "pandas"
            table = as_pandas(frame)
            if not kept:
                names, numbered = [str(name) for name in table.columns], table.columns.dtype.kind in "iu"
                twice = next((name for name in names if names.count(name) > 1), None)
                if twice:
                    raise DataError(f"column {twice!r} is there twice: rename one of them")
                kept = [_Seen(name, (kinds or {}).get(name)) for name in names]
            for seen, dtype, (_, values) in zip(kept, list(frame.dtypes), table.items(), strict=True):
                seen.add(values, str(dtype))
        schema = cls(tuple(seen.column(known) for seen in kept), library, numbered)
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
        numbers = [_numbers(column, table[column.name]) for column in self.columns]
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
        frame : DataFrame or None
            A table of ``n`` rows whose values, where there are some, are taken as they are, since numbers may
            have rounded them, and whose row names are kept.

        Returns
        -------
        DataFrame
            ``(n, columns)``, with the names, types and categories that were learned.
        """
        import pandas as pd

        made = {column.name: _values(column, X[:, i], self.library) for i, column in enumerate(self.columns)}
        if self.library == "pandas":
            table = pd.DataFrame(made)
            if isinstance(frame, pd.DataFrame):
                table.index = frame.index
                own = frame.rename(columns=str)
                for name in self.names:
                    if own[name].dtype == table[name].dtype:
                        table[name] = own[name].where(own[name].notna(), table[name])
            if self.numbered:
                table.columns = pd.Index([int(name) for name in self.names])
            return table
        import polars as pl

        series = [_polars_series(column, made[column.name]) for column in self.columns]
        if isinstance(frame, pl.DataFrame):
            for i, name in enumerate(self.names):
                given = frame[name].fill_nan(None) if frame[name].dtype.is_float() else frame[name]
                if given.dtype == series[i].dtype:
                    series[i] = given.zip_with(given.is_not_null(), series[i])
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
        if kind.startswith("Date"):
            return pd.to_datetime(pd.Series(column.to_list(), name=column.name))
        if kind.startswith("Enum"):
            levels = column.dtype.categories.to_list()
            return pd.Series(pd.Categorical(column.to_list(), levels, ordered=True), name=column.name)
        if kind.startswith(("Cat", "Str", "Utf8", "Bool")):
            return pd.Series(column.to_list(), name=column.name, dtype=object)
        return pd.Series(column.to_numpy(), name=column.name)

    return pd.DataFrame({column.name: series(column) for column in frame.get_columns()})


class _Seen:
    """What is seen of a column, one block of its values after the other."""

    def __init__(self, name: str, asked: str | None = None) -> None:
        self.name, self.asked = name, asked
        self.rows = self.there = 0
        self.dtypes: list[str] = []
        self.holds: set[str] = set()  # kinds of values, as pandas names them
        self.first: Any = None
        self.constant, self.days, self.ordered = True, True, False
        self.categories: dict[Any, None] = {}  # in the order of their coming
        self.few: set[float] = set()  # different numbers, up to three or so
        self.low, self.whole, self.integers = np.inf, True, True
        self.high, self.digits = -np.inf, 0
        self.sum = self.squares = self.logs = 0.0

    def add(self, values: Any, dtype: str) -> None:
        """See a block of values, a pandas Series."""
        import pandas as pd

        # Plain numbers are many, and NumPy has them without a copy.
        plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf"
        seen = values.to_numpy() if plain else values.dropna().to_numpy()
        seen = seen[~np.isnan(seen)] if plain and seen.dtype.kind == "f" else seen
        first_row, self.rows = self.rows, self.rows + len(values)
        if len(seen) and not plain and pd.api.types.infer_dtype(seen, skipna=True) == "date":
            values, dtype = pd.to_datetime(values), "date" if dtype == "object" else dtype  # Python's own
            seen = values.dropna().to_numpy()
        elif len(seen) and not plain and pd.api.types.infer_dtype(seen, skipna=True) == "decimal":
            # Money, as a rule. It comes back as float64, which holds sixteen digits.
            values, dtype = values.astype("float64"), "Float64" if dtype.startswith("Decimal") else "float64"
            seen = values.dropna().to_numpy()
        self.dtypes += [dtype] if dtype not in self.dtypes else []
        if not len(seen):
            return
        if isinstance(values.dtype, pd.CategoricalDtype):
            holds, self.ordered = "categorical", self.ordered or bool(values.dtype.ordered)
            self._take(values.dtype.categories)
        elif pd.api.types.is_datetime64_any_dtype(values.dtype):
            holds = "stamps"
            there = values.dropna()
            self.days = self.days and bool((there == there.dt.normalize()).all())
        else:
            holds = "floating" if plain else pd.api.types.infer_dtype(seen, skipna=True)
        if holds in NUMBERS:
            holds = "number"
            values = values if pd.api.types.is_numeric_dtype(values.dtype) else pd.to_numeric(values)
            self.integers = self.integers and pd.api.types.is_integer_dtype(values.dtype)
            if self.integers and max(abs(int(seen.min())), abs(int(seen.max()))) > EXACT:
                raise DataError(
                    f"column {self.name!r} holds whole numbers beyond 2^53, which float64 cannot tell apart: "
                    f"subtract a constant, or leave it out ({leave_out(self.name)})"
                )
            numbers = np.asarray(seen, dtype=np.float64)
            if not np.isfinite(numbers).all():
                row = first_row + int(np.isinf(values.to_numpy(dtype=np.float64, na_value=np.nan)).argmax())
                raise DataError(
                    f"column {self.name!r} is infinite in row {row} (from 0): correct it, or leave it empty"
                )
            self._number(numbers)
            if not self.integers:
                self._write(seen if plain else numbers)
        elif holds == "string":
            self._take(pd.unique(seen))
        elif holds not in ("categorical", "stamps", "boolean"):
            if any(isinstance(v, str) for v in seen) and any(
                isinstance(v, int | float | np.number) for v in seen
            ):
                self._mixed()
            what = f"column {self.name!r} holds {str(seen[0])!r:.40}"
            how = CONVERTED.get(holds, "convert it")
            raise DataError(
                f"{what}, neither number nor text nor date: {how}, or leave it out ({leave_out(self.name)})"
            )
        if self.asked is not None and _kind(self.asked) in ("categorical", "binary"):
            self._take(pd.unique(seen))
        self.holds.add(holds)
        if len(self.holds) > 1:
            self._mixed()
        self.first = self.first if self.there else seen[0]
        self.constant = self.constant and bool((seen == self.first).all())
        self.there += len(seen)

    def _number(self, numbers: np.ndarray) -> None:
        if len(self.few) < 3:
            start = np.unique(numbers[:1000])
            self.few.update((start if len(start) > 2 else np.unique(numbers)).tolist()[:3])
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        self.whole = self.whole and bool((numbers == np.round(numbers)).all())
        with np.errstate(over="ignore"):  # such numbers are no counts
            self.sum, self.squares = self.sum + float(numbers.sum()), self.squares + float(numbers @ numbers)
        if self.low > 0:
            self.logs += float(np.log(numbers).sum())

    def _write(self, numbers: np.ndarray) -> None:
        """See how many digits it takes to write numbers, in the precision in which they come."""
        for part in (numbers[:1000], numbers):  # mostly a few of them tell
            full = part.astype(np.float64)
            while self.digits <= DIGITS and (_rounded(full, self.digits).astype(part.dtype) != part).any():
                self.digits += 1

    def _take(self, categories: Any) -> None:
        self.categories.update(dict.fromkeys(_plain(value, self.name) for value in categories))
        # Now, and not in the end: the names of a large table's rows would fill the memory.
        _refuse_names(self.name, self.categories)

    def _mixed(self) -> NoReturn:
        raise DataError(f"column {self.name!r} mixes numbers and text: make all its values text, or numbers")

    def column(self, known: Iterable[str]) -> Column:
        """Tell what the column holds by its type and its values."""
        if not self.there:
            raise DataError(f"column {self.name!r} holds no values: leave it out ({leave_out(self.name)})")
        missing = 1.0 - self.there / self.rows
        column = Column(
            self.name,
            "continuous",
            KINDS["continuous"],
            self._dtype,
            ordered=self.ordered,
            missing=missing,
            constant=self.constant,
            names_rows=self.asked is None and self._names_rows,
            days=self.days and self.holds == {"stamps"},
        )
        mean = self.sum / self.there
        if self.holds == {"categorical"}:
            column = _categorical(column, tuple(self.categories))
        elif self.holds == {"string"}:
            column = _categorical(column, tuple(sorted(self.categories)))
        elif self.holds == {"boolean"}:
            column = replace(column, kind="binary", likelihood=KINDS["binary"], categories=(False, True))
        elif self.holds == {"number"} and len(self.few) == 2 and self.whole:
            pair = tuple(sorted(int(v) for v in self.few))
            column = replace(column, kind="binary", likelihood=KINDS["binary"], categories=pair)
        # pandas keeps whole numbers as floats where some are missing.
        elif (
            self.holds == {"number"}
            and (self.integers or missing > 0)
            and (len(self.few) > 2 and self.low >= 0 and self.whole)
            and self.squares / self.there - mean * mean >= 0.5 * mean
        ):
            column = replace(column, kind="count", likelihood=KINDS["count"])
        elif self.holds == {"number"} and len(self.few) > 2 and self._skewed:
            column = replace(column, kind="positive", likelihood=KINDS["positive"])
        if self.holds == {"number"} and not self.integers and self.digits <= DIGITS:
            column = replace(column, digits=self.digits)
        return column if self.asked is None else _as(column, self.asked, tuple(self.categories), known)

    @property
    def _names_rows(self) -> bool:
        if self.there < MANY or self.there < self.rows:
            return False
        if self.holds == {"number"}:
            # As the numbers from the smallest to the largest, in any order: none else have these moments.
            n, mean = self.there, (self.low + self.high) / 2
            spread = self.squares - self.sum * mean
            in_turn = self.whole and self.high - self.low == n - 1 and self.sum == n * mean
            return in_turn and math.isclose(spread, n * (n * n - 1) / 12, rel_tol=1e-9)
        return self.holds == {"string"} and len(self.categories) == self.there

    @property
    def _skewed(self) -> bool:
        """Whether values are positive, and a gamma density suits them better than a normal one."""
        if self.low <= 0:
            return False
        mean, log_mean = self.sum / self.there, self.logs / self.there
        variance, gap = self.squares / self.there - mean * mean, math.log(mean) - log_mean
        if not (0 < variance < math.inf and gap > 0.01):
            return False  # values within some 15 % of each other, to which both densities are alike
        # Minka 2002, "Estimating a gamma distribution": the shape that is most likely, up to 1.5 %.
        shape = (3 - gap + math.sqrt((gap - 3) ** 2 + 24 * gap)) / (12 * gap)
        gamma = shape * math.log(shape / mean) - math.lgamma(shape) + (shape - 1) * log_mean - shape
        gain = gamma + 0.5 * math.log(2 * math.pi * math.e * variance)
        return gain > PLAINLY + DOUBT / self.there

    @property
    def _dtype(self) -> str:
        if len(self.dtypes) == 1:
            return self.dtypes[0]
        # A block of whole numbers that has no gaps is of another type than one that has some.
        return str(np.result_type(*self.dtypes)) if self.holds == {"number"} else "object"


def _refuse_names(name: str, categories: Sized) -> None:
    if len(categories) > MOST_CATEGORIES:
        raise DataError(
            f"column {name!r} holds {len(categories):,} different texts, which name rows rather than "
            f"describe them: leave it out ({leave_out(name)})"
        )


def _categorical(column: Column, categories: tuple[Any, ...]) -> Column:
    _refuse_names(column.name, categories)
    return replace(column, kind="categorical", likelihood=KINDS["categorical"], categories=categories)


def _as(column: Column, asked: str, values: Iterable[Any], known: Iterable[str]) -> Column:
    """Take a column as the user says, and not as it looks."""
    if asked not in KINDS and asked not in known:
        may_be = suggest(asked, dict.fromkeys([*KINDS, DROP, *known]))
        raise PlanError(f"column {column.name!r} cannot be {asked!r}: {may_be}")
    kind = _kind(asked)
    if kind in ("count", "positive") and column.clock:
        raise PlanError(f"column {column.name!r} holds dates and cannot be {asked!r}: use 'continuous'")
    made = replace(column, kind=kind, likelihood=KINDS.get(asked, asked))
    if kind in ("categorical", "binary"):
        categories = column.categories or tuple(sorted(values))
        if kind == "binary" and len(categories) != 2:
            what = f"column {column.name!r} holds {len(categories)} values"
            raise PlanError(f"{what} and cannot be binary: use 'categorical'")
        return replace(_categorical(made, categories), kind=kind, likelihood=made.likelihood)
    if column.categories is not None and any(isinstance(c, str) for c in column.categories):
        raise PlanError(f"column {column.name!r} holds text and cannot be {asked!r}: use 'categorical'")
    return replace(made, categories=None)


def _kind(asked: str) -> str:
    return asked if asked in KINDS else KIND_OF.get(asked, "continuous")


def _plain(value: Any, name: str) -> Any:
    """Give a category as a JSON value."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | bool):
        raise DataError(
            f"column {name!r} holds {str(value)!r:.40}, which cannot be a category: use text, numbers or "
            "truth values"
        )
    return value


def _numbers(column: Column, values: Any) -> np.ndarray:
    """``(n,)`` numbers, NaN where a value is missing."""
    import pandas as pd

    gaps = values.isna().to_numpy()
    if column.categories is not None:
        kinds = (pd.api.types.is_datetime64_any_dtype, pd.api.types.is_integer_dtype)
        if isinstance(column.categories[0], str) and any(kind(values.dtype) for kind in kinds):
            values = values.astype(str)  # texts that all look like dates, or numbers, in this table
        known = pd.Index(column.categories)
        if isinstance(values.dtype, pd.CategoricalDtype):  # each category looked up once
            codes = np.append(known.get_indexer(values.dtype.categories.astype(object)), -1)[values.cat.codes]
        else:
            codes = known.get_indexer(values.astype(object))
        unknown = (codes < 0) & ~gaps
        if unknown.any():
            listed = ", ".join(map(repr, column.categories[:20])) + ", ..." * (len(column.categories) > 20)
            value = values.iloc[int(unknown.argmax())]
            raise DataError(f"column {column.name!r} holds {value!r}, which is not known: it knows {listed}")
        return np.where(gaps, np.nan, codes.astype(np.float64))
    if column.clock:
        try:
            if pd.api.types.is_numeric_dtype(values.dtype) and not gaps.all():
                raise ValueError("they are numbers")
            stamps = pd.to_datetime(values, utc=True, format="ISO8601").astype("datetime64[us, UTC]")
        except (ValueError, TypeError, OverflowError) as e:
            raise DataError(
                f"column {column.name!r} holds other values than dates ({one_line(e, 80)}): correct them"
            ) from None
        return np.where(gaps, np.nan, stamps.astype("int64").to_numpy() / 1e6)
    try:
        plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf"
        decimals = str(values.dtype).startswith("decimal")  # of Arrow, whose gaps to_numeric stumbles over
        numbers = values if plain else values.astype("float64") if decimals else pd.to_numeric(values)
        plain = isinstance(numbers.dtype, np.dtype)
        numbers = numbers.to_numpy() if plain else numbers.to_numpy(dtype=np.float64, na_value=np.nan)
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
    if column.logged:
        wrong |= numbers <= 0
    if wrong.any():
        row = int(wrong.argmax())
        needed = {
            "count": "whole numbers from 0 up",
            "positive": f"positive numbers (or columns={{{column.name!r}: 'continuous'}} in the fit)",
        }
        raise DataError(
            f"column {column.name!r} holds {numbers[row]:g} in row {row} (from 0), and "
            f"{needed.get(column.kind, 'finite numbers')} are needed: correct it, or leave it empty"
        )
    return np.log(numbers.astype(np.float64)) if column.logged else numbers


def _values(column: Column, numbers: np.ndarray, library: str) -> Any:
    """Give ``(n,)`` numbers as a series of a column's type."""
    import pandas as pd

    gaps = ~np.isfinite(numbers)
    if column.logged:
        limits = np.finfo(small[0] if (small := re.match(r"float(16|32)", column.dtype.lower())) else float)
        numbers = np.exp(np.clip(numbers.astype(np.float64), math.log(limits.tiny), math.log(limits.max)))
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
    if column.clock:
        unit, zone = column.clock
        most = 2**63 / 1e9 - 172_800.0 if unit == "ns" else LAST  # two days: of rounding, and of zones
        seconds = np.clip(np.where(gaps, 0.0, numbers), max(FIRST, -most), most)
        stamps = pd.Series(np.round(seconds * 1e6).astype(np.int64).astype("datetime64[us]")).mask(gaps)
        stamps = stamps.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else stamps
        if column.days:  # by the local clock: where it is changed, a day has more or less than 24 hours
            stamps = (stamps.dt.tz_localize(None) + pd.Timedelta(hours=12)).dt.normalize()
            stamps = (
                stamps.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward") if zone else stamps
            )
        asked: Any = column.dtype
        if asked == "date":
            return stamps.dt.date.where(~gaps, None)
        return stamps if library == "polars" else stamps.astype(asked)
    if whole := _whole(column.dtype):
        # The range in float64, whose nearest to the largest of 64 bits is one more than that.
        least = 1.0 if column.logged else float(whole.min)
        low, high = least, np.nextafter(float(whole.max), 0) if whole.bits == 64 else whole.max
        numbers = np.clip(np.round(numbers.astype(np.float64)), low, high)
    elif column.digits is not None and column.kind != "count":  # of which an expected one need not be whole
        least = 10.0**-column.digits if column.logged else -np.inf
        numbers = np.maximum(_rounded(numbers.astype(np.float64), column.digits), least)
    if small := re.match(r"float(16|32)", column.dtype.lower()):
        most = float(np.finfo(small[0]).max)
        numbers = np.clip(numbers, -most, most)
    return pd.Series(numbers) if library == "polars" else _typed(pd.Series(numbers), column.dtype, gaps)


def _rounded(numbers: np.ndarray, digits: int) -> np.ndarray:
    """Round to digits after the point; numbers beyond 2^53 have none."""
    return np.where(np.abs(numbers) < EXACT, np.round(np.clip(numbers, -EXACT, EXACT), digits), numbers)


def _whole(dtype: str) -> np.iinfo[Any] | None:
    """Range of a type of whole numbers, of whichever library; None for other types."""
    found = re.match(r"u?int\d+", dtype.lower())
    return np.iinfo(found[0]) if found else None


def _typed(values: Any, dtype: Any, gaps: np.ndarray) -> Any:
    whole = _whole(dtype) is not None
    if whole:
        values = values.astype(np.float64)
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
    if column.clock:
        if (unit_zone := column.clock)[1]:
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        items = values.astype(object).where(values.notna(), None).tolist()
        stamps = pl.Series(column.name, items, dtype=pl.Datetime("us"))
        if kind == "Date":
            return stamps.cast(pl.Date)
        unit, zone = unit_zone
        stamps = stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else stamps
        return stamps.cast(pl.Datetime(unit, zone))  # type: ignore[arg-type]
    return pl.Series(column.name, items, dtype=getattr(pl, kind, None), strict=False)
