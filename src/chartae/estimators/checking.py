"""What goes into an estimator: arrays, tables and streams, checked and as numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils.validation import (
    _check_feature_names,
    assert_all_finite,
    check_array,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from chartae.core.arrays import blocks, ends, is_streamed
from chartae.core.columns import Schema, is_frame, is_streamed_table, without
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import Space
from chartae.estimators.decoding import Decoding
from chartae.estimators.suspicions import warn_of_other_units
from chartae.parts.likelihoods import likelihoods
from chartae.training.items import array_of, refuse_bad_values
from chartae.training.readers import Dataset, read

__all__ = ["Checking"]

OF_ROWS = ("columns", "sequence")  # likelihoods of whole rows, not of a column


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
        if type(X).__module__.partition(".")[0] == "pyarrow" and hasattr(X, "to_pandas"):
            X = X.to_pandas()
        if is_frame(X) or is_streamed_table(X):
            return self._check_table(X, reset=reset, named=named)
        X = array_of(X) if isinstance(X, Tensor | np.ma.MaskedArray) else X
        if reset:
            self.schema_ = None
            self.gaps_ = self.missing == "mask"
            if self.columns:
                raise PlanError(
                    "columns= says what columns of a table hold, and the data are none: leave it out"
                )
        elif self.space_.schema is not None and self.space_.schema.wordy is not None:
            raise DataError("the model was fitted on a table: pass a DataFrame with its columns")
        elif self.space_.schema is not None and any(c.logged or c.clock for c in self.space_.schema.columns):
            return self._check_table(self._tabled(X, named=named), reset=False, named=False)
        # scikit-learn would call the second axis features, which it is of rows alone.
        shape = () if reset or hasattr(X, "toarray") else getattr(X, "shape", ())
        if len(shape) > 1 and (len(shape) > 2 or len(self.space_.shape) > 1 or self.medium_ is not None):
            self._refuse_shape(tuple(shape))
        X, low, high = self._numbers(X, reset=reset, named=named)
        if reset:
            _refuse_one(len(X), getattr(self.medium_, "noun", "sample"))
        else:
            self._refuse_shape(X.shape)
            self.space_.check(X, None if np.isnan(low) else (low, high))
            if self.space_.schema is None:
                warn_of_other_units(low, high, self.space_.value_range, len(X))
        return X

    def _numbers(self, X: Any, *, reset: bool, named: bool) -> tuple[np.ndarray, float, float]:
        """Make it one of numbers, finite where none may be missing, and give their ends."""
        given, gaps = X, self.gaps_ if reset else self.space_.gaps
        # One pass, for the ends, is enough to see what is not finite and what the likelihood does not know.
        wanted: dict[str, Any] = {"allow_nd": True, "dtype": "numeric", "ensure_all_finite": False}
        try:
            # A stream's first rows stand for all of them where types and shapes are looked at.
            seen = X[:2] if is_streamed(X) else X
            seen = validate_data(self, seen, reset=reset, **wanted) if named else check_array(seen, **wanted)
            X = X if is_streamed(X) else seen
            if X.dtype.kind == "f" and not is_streamed(X):  # of another machine's order, or longer
                X = X.astype(np.dtype(f"=f{min(X.dtype.itemsize, 8)}"), copy=False)
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
        return X, low, high

    def _refuse_shape(self, whole: tuple[int, ...]) -> None:
        shape = whole[1:]
        if shape != self.space_.shape:
            fitted = self.space_.shape
            noun = getattr(self.medium_, "noun", None)
            cure = "" if noun is None else f", which {noun}s became: read {noun}s with encoder=model.medium_"
            if whole == fitted:
                cure = ": that is one item, pass X[None]"
            elif len(shape) and math.prod(shape) == math.prod(fitted):
                cure = f": pass X.reshape(-1, {', '.join(map(str, fitted))})"
            raise DataError(f"items have shape {shape}, and the model was fitted on {fitted}{cure}")

    def _tabled(self, X: Any, *, named: bool) -> Any:
        """Make an array a table as the model was fitted on: it has other units than the model."""
        import pandas as pd

        if is_streamed(X):
            raise DataError("the model was fitted on a table: pass one, or rows of an array in memory")
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        self._refuse_shape(X.shape)
        if named:
            _check_feature_names(self, X, reset=False)
        assert self.space_.schema is not None
        return pd.DataFrame(X, columns=list(self.space_.schema.names))

    def _check_table(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Turn a table into numbers, NaN where a value is missing."""
        streamed = is_streamed_table(X)
        if reset:
            of_columns = [name for name in likelihoods if name not in OF_ROWS]
            self.schema_ = Schema.learn(X, self.columns, of_columns)
            _refuse_one(len(X), "row")
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


def _refuse_one(n: int, noun: str) -> None:
    if n < 2:
        raise DataError(f"there is 1 {noun}, and a model needs two or more: give more")


def in_memory(X: Any) -> Any:
    """Give items of which rows can be taken.

    Parameters
    ----------
    X : object
        Items, what :func:`chartae.read` gives, or what of torch brings them.

    Returns
    -------
    object
        The items: an array, a frame, a sparse matrix by its rows, or as they are given.
    """
    X = read(X).X if brings_items(X) else X
    X = array_of(X) if isinstance(X, np.ma.MaskedArray | torch.Tensor) else X
    return X.tocsr() if hasattr(X, "tocsr") else X


def brings_items(X: Any) -> bool:
    """Tell what was read, and a data set or a loader of torch, whose items are to be read first."""
    return isinstance(X, Dataset | torch.utils.data.Dataset | torch.utils.data.DataLoader)
