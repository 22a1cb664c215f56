"""Labels: what makes an array of them, and which rows have one."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.core.columns import is_frame
from chartae.core.errors import DataError
from chartae.training.items import array_of

__all__ = [
    "UNLABELED",
    "as_condition",
    "as_labels",
    "labeled",
    "marked",
    "missing",
    "of_values",
    "refuse_mixed",
    "typed",
]

UNLABELED = -1


def as_labels(values: Any) -> NDArray[Any]:
    """Give labels as an array, of objects where some are missing, so that whole numbers stay whole.

    Parameters
    ----------
    values : array_like or Tensor
        Of any shape. What a masked array hides is missing, and so are nulls of columns and NaN among words.

    Returns
    -------
    ndarray
        Of the same shape; of columns of pandas that know missing values, and of categories, objects. In
        objects what is missing is None; in floats it is NaN.

    Raises
    ------
    DataError
        If they differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.labels import as_labels
    >>> as_labels(np.ma.array([1, 2], mask=[False, True]))
    array([1, None], dtype=object)
    >>> as_labels(["a", float("nan")])
    array(['a', None], dtype=object)
    """
    try:
        found = _as_given(values)
    except ValueError as error:
        raise _shapeless(error) from None
    if found.dtype == object and found.size:
        found = found.copy()
        found[missing(found)] = None  # pandas' NA cannot be compared
    return found


def _as_given(values: Any) -> NDArray[Any]:
    if is_frame(values) and values.shape[1] == 1:
        return _as_given(values[values.columns[0]])[:, None]
    kind = str(getattr(values, "dtype", getattr(values, "type", ""))).lower()
    # pyarrow forgets what is missing in its dictionaries.
    if np.ma.is_masked(values) or _is_extended(values) or kind.startswith("dictionary"):
        found = _listed(values)
    else:
        found = array_of(values)
        if found.dtype.kind == "f" and re.match("u?int|bool", kind):
            found = _listed(values)
        elif found.dtype.kind == "f" and found.ndim == 1 and isinstance(values, list | tuple):
            found = of_values(values)
        elif found.dtype.kind == "U" and not isinstance(values, np.ndarray):
            objects = _objects(values)
            found = objects if missing(objects).any() else found
    return found


def _shapeless(error: ValueError) -> DataError:
    return DataError(f"the labels do not make an array ({error}): pass one label an item")


def as_condition(values: Any) -> NDArray[Any]:
    """Give labels, or numbers to condition on, as an array: here alone is said which of them they are.

    Parameters
    ----------
    values : array_like or Tensor
        Of any shape.

    Returns
    -------
    ndarray
        Of the same shape: of floats, also if categories or objects hold them, NaN where one is missing; of
        labels, objects if one is missing (None) or if they are not of one type.

    Raises
    ------
    DataError
        If rows differ in shape.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.training.labels import as_condition
    >>> as_condition(pd.Series([1.5, None, 2.5], dtype="category"))
    array([1.5, nan, 2.5])
    >>> as_condition(pd.Series([1, None, 2], dtype="category"))
    array([1, None, 2], dtype=object)
    """
    found = as_labels(values)
    if found.dtype != object:
        return found
    none = missing(found)
    if not none.any():
        return typed(found)
    declared = getattr(getattr(values, "dtype", None), "kind", "O")
    kind = declared if none.all() else typed(found[~none]).dtype.kind
    several = found.ndim > 1 and found.shape[1] > 1  # whole numbers, too, are a vector then
    return found.astype(np.float64) if kind == "f" or (several and kind in "biu") else found


def typed(labels: NDArray[Any]) -> NDArray[Any]:
    """Give labels that are objects in NumPy's own type, where all are texts, or all numbers or truth values.

    Parameters
    ----------
    labels : ndarray
        Of any shape.

    Returns
    -------
    ndarray
        Of the same shape, with further axes where objects are lists; as it is if NumPy has no type for them,
        or would make text of numbers.

    Raises
    ------
    DataError
        If they differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.labels import typed
    >>> typed(np.array([2, 1], object)), typed(np.array(["a", 1], object))
    (array([2, 1]), array(['a', 1], dtype=object))
    """
    if labels.dtype != object:
        return labels
    try:
        found = of_values(labels.tolist())
    except ValueError as error:
        raise _shapeless(error) from None
    mixed = found.dtype.kind == "U" and not all(isinstance(label, str) for label in labels.flat)
    return labels if mixed or found.dtype.kind not in "biufU" else found


def refuse_mixed(labels: np.ndarray) -> None:
    """Refuse labels of which some are text and some are not, or that are neither text nor number.

    Parameters
    ----------
    labels : ndarray
        ``(n,)``, as :func:`typed` gives them, without those that are missing.

    Raises
    ------
    DataError
        If they are.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.labels import refuse_mixed
    >>> refuse_mixed(np.array(["a", 1], object))
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: labels mix types, as in 'a' and 1: make them all strings
    """
    if labels.dtype != object:
        return
    text = [isinstance(v, str) for v in labels]
    # Of numbers alone, one is an integer that NumPy has no type for.
    known = str | int | float | np.number | np.bool_
    strange = next((v for v in labels if not isinstance(v, known)), None if any(text) else labels[0])
    if strange is None:
        pair = f"{labels[text.index(True)]!r} and {labels[text.index(False)]!r}"
        raise DataError(f"labels mix types, as in {pair}: make them all strings")
    raise DataError(f"{strange!r} cannot be a label: use integers, booleans or strings")


def _is_extended(values: Any) -> bool:
    """Tell a column of pandas that NumPy has no type for."""
    # Only a caller who has imported pandas can hold one.
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(
        getattr(values, "dtype", None), pandas.api.extensions.ExtensionDtype
    )


def of_values(values: Any) -> NDArray[Any]:
    """Make an array of plain values, in which whole numbers stay whole.

    NumPy makes floats of those that no single one of its types of integers holds by default.

    Parameters
    ----------
    values : list or scalar
        Labels, of Python's types.

    Returns
    -------
    ndarray
        ``(n,)``, or of no axes; of objects if NumPy has no type for them.

    Examples
    --------
    >>> from chartae.training.labels import of_values
    >>> of_values([1, 2**64 - 1])
    array([                   1, 18446744073709551615], dtype=uint64)
    """
    found = np.array(values)
    whole = (isinstance(v, int | np.integer) for v in np.ravel(_objects(values)))
    if found.dtype.kind == "f" and found.size and all(whole):
        try:
            return np.array(values, dtype=np.uint64)
        except OverflowError:  # some are below zero
            return _objects(values)
    return found


def marked(y: np.ndarray) -> np.ndarray:
    """Tell rows that are marked as having no label.

    Parameters
    ----------
    y : ndarray
        ``(n,)`` labels; -1, also as text, None and NaN are none.

    Returns
    -------
    ndarray
        ``(n,)`` of bool.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.labels import marked
    >>> marked(np.array([0.0, -1.0, np.nan])).tolist(), marked(np.array(["a", None], object)).tolist()
    ([False, True, True], [False, True])
    """
    none: np.ndarray = missing(y)
    if y.dtype.kind == "O":
        none[~none] = [v in (UNLABELED, str(UNLABELED)) for v in y[~none]]
    elif y.dtype.kind in "ifU":
        none = none | (y == (str(UNLABELED) if y.dtype.kind == "U" else UNLABELED))
    return none


def labeled(y: np.ndarray) -> np.ndarray:
    """Tell rows that have a label from those marked -1; beside a single other label, -1 is one as well.

    Parameters
    ----------
    y : ndarray
        ``(n,)`` labels; None and NaN are none.

    Returns
    -------
    ndarray
        ``(n,)`` of bool.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import labeled
    >>> labeled(np.array([0, 1, -1])).tolist(), labeled(np.array([1, 1, -1])).tolist()
    ([True, True, False], [True, True, True])
    >>> labeled(np.array(["a", "b", None], object)).tolist()
    [True, True, False]
    """
    there = ~missing(y)
    labels = set(y[there].tolist())
    # A number among words is no label beside them.
    alike = len({isinstance(v, str) for v in labels}) < 2
    return there if len(labels) <= 2 and alike else ~marked(y)


def missing(y: np.ndarray) -> np.ndarray:
    """Tell which values are missing.

    Parameters
    ----------
    y : ndarray
        Of any shape.

    Returns
    -------
    ndarray
        Of the same shape, of bool: where there are None, NaN, or pandas' NA or NaT.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.labels import missing
    >>> missing(np.array(["a", None], object)).tolist(), missing(np.array([np.nan, -1.0])).tolist()
    ([False, True], [True, False])
    """
    if y.dtype.kind == "O":
        import pandas as pd  # it is slow to import, and such objects mostly come from it

        return np.asarray(pd.isna(y))
    return np.isnan(y) if y.dtype.kind in "fcmM" else np.zeros(y.shape, bool)


def _listed(values: Any) -> NDArray[Any]:
    """A column by its own list, in which whole numbers stay whole beside those that are missing."""
    ways = ("to_pylist", "to_list", "tolist")
    return _objects(next(getattr(values, way) for way in ways if hasattr(values, way))())


def _objects(values: Any) -> NDArray[Any]:
    return np.array(values, dtype=object)
