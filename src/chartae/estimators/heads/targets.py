"""What is to be told of items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _num_samples,
    column_or_1d,
)

from chartae.core.errors import DataError
from chartae.training.labels import UNLABELED, as_labels, refuse_mixed, typed

__all__ = ["classes_of", "targets"]


def targets(estimator: Any, X: Any, y: Any, *, several: bool = False) -> np.ndarray:
    """Check what is to be told of items.

    Parameters
    ----------
    estimator : object
        Whose y it is.
    X : array_like
        ``(n, *shape)``.
    y : array_like
        Of shape ``(n,)``.
    several : bool
        Take several labels of an item as well, ``(n, m)``, of zeros and ones.

    Returns
    -------
    ndarray
        Of shape ``(n,)``, or ``(n, m)``; NaN or None where one is not known.

    Raises
    ------
    DataError
        If there is none, or not one for each item, or a number is infinite.

    Examples
    --------
    >>> from chartae.estimators.heads import targets
    >>> targets(None, [[1.0], [2.0]], ["a", "b"]).tolist()
    ['a', 'b']
    """
    if y is None:
        raise DataError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None: give y"
        )
    matrix = _several(y) if several else None
    y = column_or_1d(as_labels(y), warn=True) if matrix is None else matrix
    if _num_samples(X) != len(y):
        raise DataError(f"X has {_num_samples(X)} rows and y has {len(y)}: give one target for each row")
    if y.dtype.kind in "mM":
        raise DataError(f"y of type {y.dtype} are times, and no labels or numbers: convert them")
    if matrix is None:
        refuse_lost(y, gaps=True)
    return y


def classes_of(y: np.ndarray) -> np.ndarray:
    """Check labels, all of which are known, and give those that there are, in their order and own type.

    Parameters
    ----------
    y : ndarray
        ``(n,)``, of objects where others, which are not among them, are missing.

    Returns
    -------
    ndarray
        ``(classes,)``.

    Raises
    ------
    DataError
        If there are fewer than two, or some are text and others are not.
    ValueError
        If they are no classes, as scikit-learn has them.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.estimators.heads import classes_of
    >>> classes_of(np.array([2, 1, 2], object))
    array([1, 2])
    """
    y = typed(y)
    refuse_mixed(y)
    check_classification_targets(y)
    found: np.ndarray = np.unique(y)
    if len(found) < 2:
        only = next(iter(found.tolist()), None)
        none = ", which stands for no label" if only == UNLABELED else ""
        raise DataError(f"all labels are of one class, {only!r}{none}: give rows of two classes or more")
    return found


def refuse_lost(y: np.ndarray, *, gaps: bool = False) -> None:
    """Refuse numbers that are not finite, by their row, but for NaN where a gap is no fault."""
    if y.dtype.kind != "f":
        return
    lost, what = (np.isinf(y), "infinity") if gaps else (~np.isfinite(y), "infinity or NaN")
    if lost.any():
        raise DataError(f"y has {what} in row {lost.argmax()} (from 0): leave that row out")


def _several(y: Any) -> np.ndarray | None:
    """Several labels of an item, as zeros and ones and NaN where one is not known; None: it is one."""
    y = y.toarray() if hasattr(y, "toarray") else as_labels(y)
    if y.ndim != 2 or y.shape[1] < 2:
        return None
    try:
        found = np.where(pd.isna(y), np.nan, y).astype(np.float64)
    except (TypeError, ValueError):  # words, say
        found = np.full(y.shape, np.inf)
    found[found == UNLABELED] = np.nan
    if not (np.isin(found, (0, 1)) | np.isnan(found)).all():
        raise DataError(
            "several labels of an item are zeros and ones, and -1 where one is not known: give those"
        )
    return found


def vary(y: np.ndarray) -> np.ndarray:
    """Whether a label is there in some rows and not in others, ``(m,)``."""
    found: np.ndarray = (y == 0).any(0) & (y == 1).any(0)
    return found
