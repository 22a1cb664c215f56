"""What is seen of columns, from which their kinds follow."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from chartae.core.columns.kinds import DROP, KINDS, Column, kind_of, leave_out
from chartae.core.columns.values import EXACT, rounded
from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest

__all__: list[str] = []

PLAINLY, DOUBT = 0.05, 4.0  # nats of a value by which a gamma density must be better, and more of few: 4 / n
#: How columns become numbers or dates whose values pandas has a name for.
CONVERTED = {
    "timedelta64": "convert it, as by .dt.total_seconds()",
    "timedelta": "convert it, as by .dt.total_seconds()",
    "period": "convert it, as by .dt.to_timestamp()",
}
DIGITS = 6  # after the point; numbers that have more are measured rather than written
GRAINS = (3600, 60, 1)  # seconds
ULPS = 4  # by which what is computed, such as a price times a number, may miss what it is written as
#: Numbers with a sign, a currency or a percent, and perhaps commas; and days with the year first or last.
NUMBER = re.compile(
    r"\(?[-+]?\s*([$€£¥₹]|[A-Z]{3}\s)?\s*[-+]?(\d+([.,]\d*)?|\d{1,3}([.,']\d{3})+([.,]\d+)?)([eE][-+]?\d+)?"
    r"\s*(%|[$€£¥₹]|[A-Z]{3})?\)?"
)
DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3(\d{4}|\d\d))([T ]+\d.*)?")
SPELLED = 0.9  # share of different texts
#: What is written among numbers where there is none.
STRAY = re.compile(r"\W+|n\.?\s?d\.?|missing|unknown|total|sum", re.IGNORECASE)
MANY = 20  # rows, of which no two texts alike are no chance
MOST_CATEGORIES = 1000  # more are names of rows rather than categories of them
NUMBERS = {"integer", "floating", "mixed-integer-float"}  # what pandas calls them


class Seen:
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
        self.grains: tuple[int, ...] = GRAINS
        self.sum = self.squares = self.logs = 0.0

    def add(self, values: Any, dtype: str) -> None:
        """See a block of values, a pandas Series."""
        import pandas as pd

        # Plain numbers are many, and NumPy has them without a copy.
        plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf"
        seen = values.to_numpy() if plain else values.dropna().to_numpy()
        seen = seen[~np.isnan(seen)] if plain and seen.dtype.kind == "f" else seen
        first_row, self.rows = self.rows, self.rows + len(values)
        kind = "" if plain or not len(seen) else pd.api.types.infer_dtype(seen, skipna=True)
        if kind == "date":
            values, dtype = pd.to_datetime(values), "date" if dtype == "object" else dtype  # Python's own
            seen = values.dropna().to_numpy()
        elif kind == "datetime" and values.dtype == object:  # Python's own, or pandas's, one by one
            values = _stamped(values)
            dtype, seen = str(values.dtype), values.dropna().to_numpy()
        elif kind == "decimal":
            # Money, as a rule. It comes back as float64, which holds sixteen digits.
            values, dtype = values.astype("float64"), "Float64" if dtype.startswith("Decimal") else "float64"
            seen, kind = values.dropna().to_numpy(), "floating"
        self.dtypes += [dtype] if dtype not in self.dtypes else []
        if not len(seen):
            return
        holds = "floating" if plain else kind
        if isinstance(values.dtype, pd.CategoricalDtype):
            holds, self.ordered = "categorical", self.ordered or bool(values.dtype.ordered)
            self._take(values.dtype.categories)
        elif pd.api.types.is_datetime64_any_dtype(values.dtype):
            holds = "stamps"
            self._date(values.dropna())
        elif holds in NUMBERS:
            holds = "number"
            self._number(values, seen, first_row)
        elif holds == "string":
            self._take(pd.unique(seen))
        elif holds != "boolean":
            self._refuse(holds, seen)
        if self.asked is not None and kind_of(self.asked) in ("categorical", "binary"):
            self._take(pd.unique(seen))
        self.holds.add(holds)
        if len(self.holds) > 1:
            self._mixed()
        self.first = self.first if self.there else seen[0]
        self.constant = self.constant and bool((seen == self.first).all())
        self.there += len(seen)

    def _date(self, there: Any) -> None:
        import pandas as pd

        self.days = self.days and bool((there == there.dt.normalize()).all())
        ticks = pd.to_datetime(there, utc=True).astype("datetime64[us, UTC]").astype("int64")
        while self.grains and (ticks % (self.grains[0] * 1_000_000)).any():
            self.grains = self.grains[1:]

    def _number(self, values: Any, seen: np.ndarray, first_row: int) -> None:
        """See numbers, of which ``seen`` are those that are there."""
        import pandas as pd

        values = values if pd.api.types.is_numeric_dtype(values.dtype) else pd.to_numeric(values)
        self.integers = self.integers and pd.api.types.is_integer_dtype(values.dtype)
        # Python's own may be larger than any type of NumPy's.
        whole = self.integers or (seen.dtype == object and all(isinstance(v, int) for v in seen))
        if whole and max(abs(int(seen.min())), abs(int(seen.max()))) > EXACT:
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
        self._sum(numbers)
        if not self.integers:
            self._write(seen if seen.dtype.kind in "iuf" else numbers)

    def _sum(self, numbers: np.ndarray) -> None:
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
            slack = ULPS * np.finfo(np.float64).eps * np.abs(full)
            while self.digits <= DIGITS:
                near = rounded(full, self.digits)
                if ((near.astype(part.dtype) == part) | (np.abs(near - full) <= slack)).all():
                    break
                self.digits += 1

    def _take(self, categories: Any) -> None:
        self.categories.update(dict.fromkeys(_plain(value, self.name) for value in categories))
        # Now, and not in the end: the names of a large table's rows would fill the memory.
        _refuse_names(self.name, self.categories)

    def _refuse(self, holds: str, seen: np.ndarray) -> NoReturn:
        """Refuse values of another kind, as pandas names it."""
        if any(isinstance(v, str) for v in seen) and any(
            isinstance(v, int | float | np.number) for v in seen
        ):
            self._mixed()
        what = f"column {self.name!r} holds {str(seen[0])!r:.40}"
        how = CONVERTED.get(holds, "convert it")
        raise DataError(
            f"{what}, neither number nor text nor date: {how}, or leave it out ({leave_out(self.name)})"
        )

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
            grain=self.grains[0] if self.holds == {"stamps"} and self.grains else None,
            spelled=_spelled(self.categories) if self.holds == {"string"} else None,
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
        if self.asked is None:
            return column
        return _as(column, self.asked, tuple(self.categories), known)

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


def _stamped(values: Any) -> Any:
    """Make dates with times of objects; of several time zones, all in one."""
    import pandas as pd

    try:
        return pd.to_datetime(values)
    except ValueError:
        return pd.to_datetime(values, utc=True)


def _refuse_names(name: str, categories: Collection[Any]) -> None:
    if len(categories) > MOST_CATEGORIES:
        what = f"column {name!r} holds {len(categories):,} different texts"
        if (spelled := _spelled(categories)) is not None:
            raise DataError(f"{what}, which {spells(spelled)}, or leave it out ({leave_out(name)})")
        raise DataError(
            f"{what}, which name rows rather than describe them: leave it out ({leave_out(name)})"
        )


def _spelled(texts: Collection[Any]) -> str | None:
    """One of the texts, if almost all of them spell numbers or dates: of others the first, if there are any.

    Few texts may well be categories, unless the other stands for none.
    """
    if not all(isinstance(text, str) for text in texts):
        return None
    if any(re.fullmatch(r"0\d+", text) for text in texts):
        return None
    if len(texts) <= MANY:
        others = [text for text in texts if not NUMBER.fullmatch(text.strip())]
        alone = len(others) == 1 and len(texts) > 3 and STRAY.fullmatch(others[0].strip())
        return str(others[0]) if alone else None
    if all(re.fullmatch(r"([A-Z]{3}\s)?\d+", text) for text in texts):
        return None  # codes, which are texts on purpose
    for pattern in (DATE, NUMBER):
        others = [text for text in texts if not pattern.fullmatch(text.strip())]
        if len(others) < (1 - SPELLED) * len(texts):
            return str(others[0] if others else next(iter(texts)))
    return None


def spells(text: str) -> str:
    """Say of texts what they spell, and the cure."""
    if not (DATE.fullmatch(text.strip()) or NUMBER.fullmatch(text.strip())):
        return f"spell numbers or dates, but for {text!r:.40}: leave such cells empty"
    what = "dates" if DATE.fullmatch(text.strip()) else "numbers"
    return f"spell {what}, such as {text!r:.40}: make {what} of them first"


def _categorical(column: Column, categories: tuple[Any, ...]) -> Column:
    _refuse_names(column.name, categories)
    return replace(column, kind="categorical", likelihood=KINDS["categorical"], categories=categories)


def _as(column: Column, asked: str, values: Iterable[Any], known: Iterable[str]) -> Column:
    """Take a column as the user says, and not as it looks."""
    if asked not in KINDS and asked not in known:
        may_be = suggest(asked, dict.fromkeys([*KINDS, DROP, *known]))
        raise PlanError(f"column {column.name!r} cannot be {asked!r}: {may_be}")
    kind = kind_of(asked)
    if kind in ("count", "positive") and column.clock:
        raise PlanError(f"column {column.name!r} holds dates and cannot be {asked!r}: use 'continuous'")
    made = replace(column, kind=kind, likelihood=KINDS.get(asked, asked))
    if kind in ("categorical", "binary"):
        categories = column.categories or tuple(sorted(values))
        if kind == "binary" and len(categories) != 2:
            what = f"column {column.name!r} holds {len(categories)} values"
            raise PlanError(f"{what} and cannot be binary: use 'categorical'")
        made = replace(made, spelled=None)  # as the user wants them
        return replace(_categorical(made, categories), kind=kind, likelihood=made.likelihood)
    if column.categories is not None and any(isinstance(c, str) for c in column.categories):
        cure = "use 'categorical'" if column.spelled is None else f"they {spells(column.spelled)}"
        raise PlanError(f"column {column.name!r} holds text and cannot be {asked!r}: {cure}")
    return replace(made, categories=None)


def _plain(value: Any, name: str) -> Any:
    """Give a category as a JSON value."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | bool):
        raise DataError(
            f"column {name!r} holds {str(value)!r:.40}, which cannot be a category: use text, numbers or "
            "truth values"
        )
    return value
