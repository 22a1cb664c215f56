"""What goes into an estimator: arrays, tables and streams, checked and as numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils.validation import assert_all_finite, check_array, check_is_fitted, validate_data
from torch import Tensor

from chartae.core.arrays import blocks, ends, is_streamed
from chartae.core.columns import KINDS, Schema, is_frame, is_streamed_table, leave_out, without
from chartae.core.columns.seen import spells
from chartae.core.errors import DataError, PlanError, enumerated
from chartae.core.spaces import Space
from chartae.estimators.decoding import Decoding
from chartae.parts.likelihoods import likelihoods
from chartae.parts.units import NARROW
from chartae.training.items import array_of, refuse_bad_values
from chartae.training.readers import read

__all__ = ["Checking"]

OF_ROWS = ("columns", "sequence")  # likelihoods of whole rows, not of a column
MOSTLY, OUTSIDE = 0.9, 0.1  # share of a variance that one value holds, in fewer than this share of the rows
SAID = 5  # constant columns of which it is said how they are left out
FEW, LOOKED_AT = 20, 1 << 25  # rows of which that says something, and values from the start, of more


class Checking(
    Decoding, ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator
):  # fmt: skip
    """A decoder that knows the data it was fitted on, and turns what it is given into an array of numbers.

    Attributes
    ----------
    space_ : Space
        Shape, units and likelihood of the data.
    schema_ : Schema or None
        What the columns of a table hold.
    gaps_ : bool
        Whether values may be missing.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.estimators.checking import Checking
    >>> issubclass(VAE, Checking)
    True
    """

    space_: Space
    schema_: Schema | None
    gaps_: bool

    def _check(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Validate an array; N-d items keep their shape. Items that are no table need no column names."""
        X = read(X).X if brings_items(X) else X
        if not reset and getattr(self.medium_, "restores", False) and not isinstance(X, Tensor):
            X = X if np.asarray(X).dtype.kind in "fiub" else self.medium_.encode(X)
        if is_frame(X) or is_streamed_table(X):
            return self._check_table(X, reset=reset, named=named)
        X = array_of(X) if isinstance(X, Tensor) else X
        if reset:
            self.schema_ = None
            self.gaps_ = self.missing == "mask"
            if self.columns:
                raise PlanError(
                    "columns= says what columns of a table hold, and the data are none: leave it out"
                )
        elif self.space_.schema is not None and self.space_.schema.wordy is not None:
            raise DataError("the model was fitted on a table: pass a DataFrame with its columns")
        gaps = self.gaps_ if reset else self.space_.gaps
        # One pass, for the ends, is enough to see what is not finite and what the likelihood does not know.
        wanted: dict[str, Any] = {
            "allow_nd": True,
            "dtype": "numeric",
            "ensure_min_samples": 1 + reset,
            "ensure_all_finite": False,
        }
        given = X
        if not reset and len(self.space_.shape) > 1:  # scikit-learn would call the second axis features
            self._refuse_shape(np.shape(X)[1:])
        try:
            # A stream's first rows stand for all of them where types and shapes are looked at.
            seen = X[:2] if is_streamed(X) else X
            seen = validate_data(self, seen, reset=reset, **wanted) if named else check_array(seen, **wanted)
            X = X if is_streamed(X) else seen
            if X.dtype.kind not in "fiub":
                raise DataError(f"data of type {X.dtype} are not numbers: convert them")
            low, high = ends(X) if X.size else (0.0, 0.0)
            if not (np.isfinite(low) and np.isfinite(high)):
                with np.errstate(invalid="ignore"):  # of infinity - infinity
                    for block in blocks(X):
                        # As float64, which has no number for some longer ones.
                        short = block.astype(np.float64) if X.dtype.itemsize > 8 else block
                        assert_all_finite(short, allow_nan=gaps, input_name="X")
        except (ValueError, TypeError) as error:
            cure = ", or fit with missing='mask'" if reset else ""
            refuse_bad_values(given, gaps=gaps, cure=cure)  # says where they are
            first, *more = str(error).splitlines()
            if more:  # the array itself
                raise DataError(
                    f"{first.rstrip(':')}: pass real numbers, (n, features) or (n, ...)"
                ) from None
            raise
        if not reset:
            self._refuse_shape(X.shape[1:])
            self.space_.check(X, None if np.isnan(low) else (low, high))
        return X

    def _refuse_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.space_.shape:
            raise DataError(f"items have shape {shape}, and the model was fitted on {self.space_.shape}")

    def _check_table(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Turn a table into numbers, NaN where a value is missing."""
        streamed = is_streamed_table(X)
        if reset:
            of_columns = [name for name in likelihoods if name not in OF_ROWS]
            self.schema_ = Schema.learn(X, self.columns, of_columns)
            if len(X) < 2:
                raise DataError("the table has 1 row, and a model needs two or more: give more")
        X = without(X, self.columns)
        if named:
            validate_data(self, next(iter(X.frames())) if streamed else X, reset=reset, skip_check_array=True)
        schema = self.schema_ if reset else self.space_.schema
        if schema is None and streamed:
            raise DataError("the model was fitted on arrays, not on a table: save the columns as .npy")
        if schema is None:
            return self._check(np.asarray(X), reset=False, named=False)
        array = schema.encode(X)
        missing = bool(np.isnan(ends(array)[0])) if len(array) else False
        if reset:
            self.gaps_ = self.missing == "mask" or (self.missing == "auto" and missing)
        if missing and not (self.gaps_ if reset else self.space_.gaps):
            row = 0
            for block in blocks(array):
                for at, place in np.argwhere(np.isnan(block))[:1]:
                    raise DataError(
                        f"column {schema.names[place]!r} of the table has no value in row {row + at} (from "
                        "0): fill the gaps, or fit with missing='mask'"
                    )
                row += len(block)
        if not reset:
            self.space_.check(array)
        return array

    def _ready(self) -> Any:
        check_is_fitted(self, "model_")
        return self.model_


def warn_of_constant(X: np.ndarray, schema: Schema | None) -> None:
    """Name columns that hold one value.

    Parameters
    ----------
    X : ndarray
        ``(n, features)``; of items of other shapes nothing is said, since edges of images may well be empty.
    schema : Schema or None
        What the columns of a table hold.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from chartae.estimators.checking import warn_of_constant
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
        names = [str(i) for i in _constant(X)] if X.ndim == 2 else []
        where, but = " (from 0)", ", unless it is a pixel" if len(names) == 1 else ", unless they are pixels"
    if len(names) == 1:
        warnings.warn(f"column {names[0]}{where} is constant and tells nothing: drop it{but}", stacklevel=5)
    elif names:
        listed = f"columns {enumerated(names)}{where}"
        warnings.warn(f"{listed} are constant and tell nothing: drop them{but}", stacklevel=5)


def _constant(X: np.ndarray) -> np.ndarray:
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
    return columns


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
    >>> from chartae.estimators.checking import warn_of_row_names
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_row_names(Schema.learn(pd.DataFrame({"id": range(30), "size": [1.5, 2.5] * 15})))
    >>> str(caught[0].message)
    "column 'id' numbers the rows: drop it (columns={'id': 'drop'}), unless it is a time"
    """
    for column in (c for c in schema.columns if c.spelled is not None):
        warnings.warn(f"the texts of column {column.name!r} {spells(str(column.spelled))}", stacklevel=5)
    for column in (c for c in schema.columns if c.names_rows and c.spelled is None):
        texts = column.categories is not None
        how = "holds another text in each row" if texts else "numbers the rows"
        but = "" if texts else ", unless it is a time"
        warnings.warn(f"column {column.name!r} {how}: drop it ({leave_out(column.name)}){but}", stacklevel=5)


def warn_of_outliers(X: Any, schema: Schema | None) -> None:
    """Name values that alone make up the variance that scales them: all others then seem to be the same.

    Parameters
    ----------
    X : ndarray or Streamed
        ``(n, columns)``, NaN where a value is missing; of a long one, its first rows. Of other shapes, and of
        arrays of more than 100 columns, nothing is said.
    schema : Schema or None
        What the columns of a table hold; of positive ones the variance is that of logarithms. The columns of
        an array share one scale, and the variance is that of all.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np, pandas as pd
    >>> from chartae.core.columns import Schema
    >>> from chartae.estimators.checking import warn_of_outliers
    >>> table = pd.DataFrame({"income": np.append(np.linspace(-2.0, 2.0, 98), [9999.0, 9999.0])})
    >>> schema = Schema.learn(table)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_outliers(schema.encode(table), schema)
    >>> print(str(caught[0].message)[:72])
    column 'income' holds 9999 in row 98 (from 0) and in 1 more, which is 98
    """
    if len(X.shape) != 2 or len(X) < FEW or (schema is None and X.shape[1] > NARROW):
        return
    if schema is None:
        groups = [list(range(X.shape[1]))]
    else:
        usual = set(KINDS.values())  # a likelihood that the user has named may be one for outliers
        known = enumerate(schema.columns)
        groups = [[i] for i, c in known if c.categories is None and c.likelihood in usual]
    most = LOOKED_AT // X.shape[1]
    X = X[: min(most, X.rows_to_hold) if is_streamed(X) else most]

    def numbers(places: list[int]) -> Iterator[np.ndarray]:
        return (block[:, places].astype(np.float64) for block in blocks(X))

    asked = [i for group in groups for i in group]
    if not asked:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        there = sum((~np.isnan(own)).sum(0) for own in numbers(asked))
        center = sum(np.nansum(own, 0) for own in numbers(asked)) / np.maximum(there, 1)
        far = np.max([np.nan_to_num(np.abs(own - center)).max(0) for own in numbers(asked)], 0)
        unit = far if schema is not None else np.full_like(far, far.max())
        shares = ((own - center) / np.where(unit > 0, unit, 1.0) for own in numbers(asked))
        total = sum(np.nansum(np.square(share), 0) for share in shares)
    for group in groups:
        at = np.searchsorted(asked, group)
        n, variance = there[at].sum(), total[at].sum()
        if n < FEW or not unit[at[0]] > 0 or MOSTLY * variance >= OUTSIDE * n:
            continue
        own = np.concatenate(list(numbers(group)))
        away = np.abs(own - center[at]) / unit[at]
        row, place = np.unravel_index(np.nanargmax(away), own.shape)
        found = own == own[row, place]
        share = np.square(away[found]).sum() / variance
        rows = np.flatnonzero(found.any(1))
        # Of two values one may well be rare, and no mistake.
        pairs = (np.unique(own[~np.isnan(own[:, i]), i]) for i in np.flatnonzero(found.any(0)))
        count = int(found.sum())
        if share < MOSTLY or count >= OUTSIDE * n or all(len(values) <= 2 for values in pairs):
            continue
        row, place = rows[0], np.flatnonzero(found[rows[0]])[0]
        name, value, of = f"{place}", f"{own[row, place]:g}", "the variance of all columns"
        empty = "write NaN with missing='mask'"
        if schema is not None:
            column = schema.columns[group[0]]
            decoded = schema.decode(np.asarray(X[row : row + 1]))[column.name].to_list()[0]
            name, value = repr(column.name), decoded if column.clock else f"{decoded:g}"
            of = "the variance of its logarithms" if column.logged else "its variance"
            empty = "leave it empty"
        others = f" and in {count - 1} more" if count > 1 else ""
        warnings.warn(
            f"column {name} holds {value} in row {row} (from 0){others}, which is {share:.0%} of {of} and "
            f"leaves little to the rest: correct it, or {empty} if it stands for a missing value",
            stacklevel=5,
        )


def brings_items(X: Any) -> bool:
    """Tell a data set or a loader of torch, whose items are to be read first."""
    return isinstance(X, torch.utils.data.Dataset | torch.utils.data.DataLoader)
