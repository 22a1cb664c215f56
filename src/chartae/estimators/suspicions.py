"""What in data is likely a mistake, and is said before the model is trained on it."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from chartae.core.arrays import blocks, is_streamed
from chartae.core.columns import KINDS, Column, Schema, leave_out
from chartae.core.columns.seen import spells
from chartae.core.errors import enumerated
from chartae.parts.units import NARROW

__all__ = ["warn_of_constant", "warn_of_other_units", "warn_of_outliers", "warn_of_row_names"]

SAID = 5  # constant columns of which it is said how they are left out
MOSTLY, OUTSIDE = 0.9, 0.1  # share of a variance that one value holds, in fewer than this share of the rows
PIXELS = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))  # ranges of images, most of which may be empty
LITTLE = 0.02  # of that range, in which no values of another sample lie all
SEVERAL = 20  # items that are not all alike
FAR = 10.0  # times the range of all values of a fit, beyond its ends
FEW, LOOKED_AT = 20, 1 << 22  # rows of which that says something, and values from the start, of more


def warn_of_constant(X: np.ndarray, schema: Schema | None, noun: str | None = None) -> None:
    """Name columns that hold one value.

    Parameters
    ----------
    X : ndarray
        ``(n, features)``; of items of other shapes only whether all are the same: edges of images may well be
        empty.
    schema : Schema or None
        What the columns of a table hold.
    noun : str or None
        What rows were made of, texts say, so that columns are none of the user's and only whole rows are
        looked at; None: they are as they were given.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from chartae.estimators.suspicions import warn_of_constant
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_constant(np.tile([[1.0, 2.0]], (3, 1)), None)
    >>> str(caught[0].message)
    'columns 0 and 1 (from 0) are constant and tell nothing: drop them, unless they are pixels'
    """
    if schema is not None:
        constant = [column.name for column in schema.columns if column.constant]
        names, where = [repr(name) for name in constant], ""
        but = f" ({leave_out(*constant)})" if len(constant) <= SAID else ""
    else:
        same, unseen = _constant(X) if X.ndim == 2 and noun is None else ([], [])
        if unseen:
            listed = enumerated([str(i) for i in unseen])
            of = f"column{'s' * (len(unseen) > 1)} {listed}"
            warnings.warn(f"no value was observed in {of} (from 0): leave it out", stacklevel=6)
        names = [str(i) for i in same]
        where, but = " (from 0)", ", unless it is a pixel" if len(names) == 1 else ", unless they are pixels"
    if len(names) == 1:
        warnings.warn(f"column {names[0]}{where} is constant and tells nothing: drop it{but}", stacklevel=6)
    elif (X.ndim > 2 or noun) and len(X) > 1 and all((block == X[:1]).all() for block in blocks(X)):
        alike = f"all {noun or 'item'}s are the same"
        warnings.warn(f"{alike}, and there is nothing to learn: look at the data", stacklevel=6)
    elif names:
        listed = f"columns {enumerated(names)}{where}"
        warnings.warn(f"{listed} are constant and tell nothing: drop them{but}", stacklevel=6)


def _constant(X: np.ndarray) -> tuple[list[int], list[int]]:
    """Find columns of one value, and those of none."""
    columns: np.ndarray = np.arange(X.shape[1])
    first = X[0].copy()
    for block in blocks(X):
        # Only those that are constant so far: mostly none after the first block.
        own = block[:, columns]
        there = ~np.isnan(own)
        begun = there.any(0) & np.isnan(first[columns])
        first[columns[begun]] = own[there.argmax(0), np.arange(len(columns))][begun]
        columns = columns[((own == first[columns]) | ~there).all(0)]
        if not len(columns):
            break
    none = np.isnan(first[columns])
    return columns[~none].tolist(), columns[none].tolist()


def warn_of_row_names(schema: Schema) -> None:
    """Name columns that number or name the rows, and texts that spell numbers or dates.

    Parameters
    ----------
    schema : Schema
        What the columns of a table hold.

    Examples
    --------
    >>> import warnings
    >>> import pandas as pd
    >>> from chartae.core.columns import Schema
    >>> from chartae.estimators.suspicions import warn_of_row_names
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_row_names(Schema.learn(pd.DataFrame({"id": range(30), "size": [1.5, 2.5] * 15})))
    >>> str(caught[0].message)
    "column 'id' numbers the rows: drop it (columns={'id': 'drop'}), unless it is a time"
    """
    for column in (c for c in schema.columns if c.spelled is not None):
        warnings.warn(f"the texts of column {column.name!r} {spells(str(column.spelled))}", stacklevel=6)
    for column in (c for c in schema.columns if c.names_rows and c.spelled is None):
        texts = column.categories is not None
        how = "holds another text in each row" if texts else "numbers the rows"
        but = "" if texts else ", unless it is a time"
        warnings.warn(f"column {column.name!r} {how}: drop it ({leave_out(column.name)}){but}", stacklevel=6)


def warn_of_outliers(X: Any, schema: Schema | None, *, shared: bool = True) -> None:
    """Name values that alone make up the variance that scales them: all others then seem to be the same.

    Parameters
    ----------
    X : ndarray or Streamed
        ``(n, columns)``, NaN where a value is missing; of a long one, its first rows. Of other shapes, and of
        arrays of more than 100 columns, nothing is said.
    schema : Schema or None
        What the columns of a table hold; of positive ones the variance is that of logarithms.
    shared : bool
        Whether the columns of an array share one scale, so that the variance is that of all; those of a table
        never do.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np, pandas as pd
    >>> from chartae.core.columns import Schema
    >>> from chartae.estimators.suspicions import warn_of_outliers
    >>> table = pd.DataFrame({"income": np.append(np.linspace(-2.0, 2.0, 98), [9999.0, 9999.0])})
    >>> schema = Schema.learn(table)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_outliers(schema.encode(table), schema)
    >>> print(str(caught[0].message)[:72])
    column 'income' holds 9999 in row 98 (from 0) and in 1 more, which is 98
    """
    if len(X.shape) != 2 or (schema is None and X.shape[1] > NARROW):
        return
    most = max(FEW, LOOKED_AT // X.shape[1])
    X = X[: min(most, X.rows_to_hold) if is_streamed(X) else most]
    of: list[tuple[Any, Column | None]]
    if schema is not None:
        usual = set(KINDS.values())  # a likelihood that the user has named may be one for outliers
        of = [([i], c) for i, c in enumerate(schema.columns) if not c.categories and c.likelihood in usual]
    else:
        of = [(slice(None), None)] if shared else [([i], None) for i in range(X.shape[1])]
    for places, column in of:
        found = _outlier(np.asarray(X[:, places], dtype=np.float64))
        if found is None:
            continue
        name, value = str(found.column if shared else places[0]), f"{found.value:g}"
        variance = "the variance of all columns" if shared else "its variance"
        empty = "write NaN with missing='mask'"
        if schema is not None and column is not None:
            decoded = schema.decode(np.asarray(X[found.row : found.row + 1]))[column.name].to_list()[0]
            name, value = repr(column.name), decoded if column.clock else f"{decoded:g}"
            variance = "the variance of its logarithms" if column.logged else "its variance"
            empty = "leave it empty"
        others = f" and in {found.times - 1} more" if found.times > 1 else ""
        warnings.warn(
            f"column {name} holds {value} in row {found.row} (from 0){others}, which is {found.share:.0%} of "
            f"{variance} and leaves little to the rest: correct it, or {empty} if it stands for a missing "
            "value",
            stacklevel=6,
        )


def warn_of_other_units(low: float, high: float, seen: tuple[float, float], rows: int) -> None:
    """Name values so far beyond those of the fit, or within so little of them, that the unit may be another.

    Parameters
    ----------
    low, high : float
        The smallest and the largest.
    seen : tuple of float
        Those of the fit.
    rows : int
        Of how many items: a few may be alike.

    Examples
    --------
    >>> import warnings
    >>> from chartae.estimators.suspicions import warn_of_other_units
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_other_units(0.0, 255.0, (0.0, 1.0), 5)
    >>> str(caught[0].message)
    'values are from 0 to 255, and those of the fit were from 0 to 1: are these in the same units?'
    """
    span = seen[1] - seen[0]
    away, narrow = FAR * span, rows >= SEVERAL and 0 < high - low < LITTLE * span
    if away and (high > seen[1] + away or low < seen[0] - away or narrow):
        warnings.warn(
            f"values are from {low:g} to {high:g}, and those of the fit were from {seen[0]:g} to "
            f"{seen[1]:g}: are these in the same units?",
            stacklevel=5,
        )


class _Outlier(NamedTuple):
    row: int
    column: int
    value: float
    times: int
    share: float  # of the variance


def _outlier(X: np.ndarray) -> _Outlier | None:
    """Find the value that in few places makes up the variance of ``(n, columns)``; None if none does."""
    there = ~np.isnan(X)
    if there.sum() < FEW or (np.nanmin(X), np.nanmax(X)) in PIXELS:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.abs(X - np.nansum(X, 0) / np.maximum(there.sum(0), 1))
        away = np.where(there, away, 0.0)
        squares = np.square(
            away / (away.max() or 1.0)
        )  # in units of the farthest: they neither overflow nor vanish
    value = X[np.unravel_index(away.argmax(), X.shape)]
    same = value == X
    times, share = int(same.sum()), float(squares[same].sum() / (squares.sum() or 1.0))
    if not (share > MOSTLY and times < OUTSIDE * there.sum()):
        return None
    holding = X[:, same.any(0)]
    if all(len(np.unique(own[~np.isnan(own)])) <= 2 for own in holding.T):
        return None  # of two values one may well be rare, and no mistake
    row, column = np.argwhere(same)[0]
    return _Outlier(int(row), int(column), float(value), times, share)
