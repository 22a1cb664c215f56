"""Items: what makes an array of them, and what is told of what does not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.core.errors import DataError

__all__ = ["array_of", "as_array", "refuse_bad_values", "refuse_non_finite", "refuse_other_than_items"]

_BLOCK = 1 << 26  # bytes looked at in one go: a memory-mapped file need not fit in memory


def array_of(values: Any) -> NDArray[Any]:
    """Give anything that is like an array as one: a tensor too, with or without a gradient, on any device.

    What a masked array hides is NaN.

    Parameters
    ----------
    values : array_like or Tensor
        Of any shape; bfloat16, which NumPy lacks, becomes float32.

    Returns
    -------
    ndarray
        Of the same shape.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.items import array_of
    >>> array_of(torch.ones(2, dtype=torch.bfloat16))
    array([1., 1.], dtype=float32)
    """
    # Only a caller who has imported torch can hold a tensor.
    if (torch := sys.modules.get("torch")) and isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        values = np.ma.filled(values.astype(np.result_type(values, np.float16)), np.nan)
    return np.asarray(values)


def refuse_bad_values(X: Any, name: str = "X", *, gaps: bool = False, cure: str = "") -> None:
    """Say what is wrong with data that make no array of finite real numbers, and where.

    Parameters
    ----------
    X : array of shape (n, features) or (n, ...), or anything else
        The data.
    name : str
        What they are called, for the message.
    gaps : bool
        Whether NaN is a missing value, and no fault.
    cure : str
        What else helps against NaN.

    Raises
    ------
    DataError
        If they are sparse or ragged, hold text or what is not finite, or are no items. What is left (an empty
        array, complex numbers) passes.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.items import refuse_bad_values
    >>> refuse_bad_values(np.array([[1.0, np.nan]]))
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: X holds NaN in row 0, column 1 (from 0): fill such values, or drop the rows
    """
    _refuse_containers(X, name)
    X = X if hasattr(X, "rows_of_block") else as_array(X)
    text = [i for i, value in enumerate(X.ravel()) if isinstance(value, str)] if X.dtype == object else []
    if text:
        row, *place = np.unravel_index(text[0], X.shape)
        where = f"row {row}" + (f", column {', '.join(map(str, place))}" if place else "")
        value = f"{X.ravel()[text[0]]!r:.40}"
        raise DataError(f"{name} holds {value} in {where} (from 0), and numbers are needed: convert it")
    if X.dtype.kind in "biufUSM":
        refuse_other_than_items(X, name)
        if X.size:
            refuse_non_finite(X, name, gaps=gaps, cure=cure)


def as_array(source: Any) -> NDArray[Any]:
    """Give what is like an array as one, or say why it is none.

    Parameters
    ----------
    source : array_like or Tensor
        Of any shape.

    Returns
    -------
    ndarray
        Of the same shape.

    Raises
    ------
    DataError
        If it is sparse or ragged.

    Examples
    --------
    >>> from chartae.training.items import as_array
    >>> as_array([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if hasattr(source, "toarray"):
        raise DataError("the data are a sparse matrix, and chartae reads dense arrays: pass X.toarray()")
    try:
        return array_of(source)
    except ValueError as e:
        raise DataError(f"the data do not make an array ({e}): give all items one shape") from None


def _refuse_containers(X: Any, name: str) -> None:
    """Name what holds data, or says where they are, in place of an array of them."""
    cure = None
    if isinstance(X, str | Path):
        cure = f"a name, and data are needed: pass chartae.read({str(X)!r})"
    elif isinstance(X, Mapping) and not hasattr(X, "toarray"):
        cure = "a dict: pass pandas.DataFrame(X)"
    elif type(X).__name__ == "LazyFrame":
        cure = "a table that is not read yet: pass X.collect()"
    elif hasattr(X, "to_frame") and getattr(X, "ndim", 1) == 1 and not any(isinstance(v, str) for v in X):
        cure = "one column of a table, or one row: pass X.to_frame(), or of a row X.to_frame().T"
    elif X is None:
        cure = "None, and data are needed: pass an array, a table, or what chartae.read gives"
    if cure is not None:
        raise DataError(f"{name} is {cure}")


def refuse_other_than_items(X: NDArray[Any], name: str) -> None:
    """Refuse arrays of anything but real numbers, and of one axis.

    Parameters
    ----------
    X : ndarray
        ``(n, features)`` or ``(n, ...)``, or not.
    name : str
        What it is called, for the message.

    Raises
    ------
    DataError
        If it is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.items import refuse_other_than_items
    >>> refuse_other_than_items(np.zeros(5), "X")
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: X has shape (5,), and items need (n, features). Reshape your data: ...
    """
    if X.dtype.kind == "U" and X.ndim == 1:
        raise DataError(
            f"{name} holds texts, not real numbers: chartae.TextVAE learns texts, and chartae.read(FILE) "
            "makes numbers of them"
        )
    if X.dtype.kind not in "biuf":
        names = {"O": "Python objects", "U": "text", "S": "bytes", "c": "complex numbers", "M": "dates"}
        what = names.get(X.dtype.kind, str(X.dtype))
        raise DataError(f"{name} holds {what}, not real numbers: convert it with X.astype(float)")
    if X.ndim < 2:
        raise DataError(
            f"{name} has shape {X.shape}, and items need (n, features). Reshape your data: X.reshape(-1, 1) "
            "for one number an item, X.reshape(1, -1) for one item"
        )


def refuse_non_finite(X: NDArray[Any], name: str, *, gaps: bool = False, cure: str = "") -> None:
    """Say where an array is not finite; it is looked at in blocks.

    Parameters
    ----------
    X : ndarray or memmap
        ``(n, ...)``.
    name : str
        What it is called, for the message.
    gaps : bool
        Whether NaN is a missing value, and no fault.
    cure : str
        What else helps against NaN.

    Raises
    ------
    DataError
        If there is such a value.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.items import refuse_non_finite
    >>> refuse_non_finite(np.array([[1.0, np.inf]]), "X")
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: X holds infinity in row 0, column 1 (from 0): fill such values, or drop ...
    """
    if X.dtype.kind != "f":
        return
    rows = max(1, _BLOCK // X[:1].nbytes)
    for start in range(0, len(X), rows):
        bad = np.isinf(X[start : start + rows]) if gaps else ~np.isfinite(X[start : start + rows])
        if bad.any():
            at = np.argwhere(bad)[0]
            value = X[start : start + rows][tuple(at)]
            where = f"row {start + at[0]}, column {', '.join(str(i) for i in at[1:])} (from 0)"
            shown = str(value).replace("nan", "NaN").replace("inf", "infinity")
            cure = cure if np.isnan(value) else ""
            raise DataError(f"{name} holds {shown} in {where}: fill such values, or drop the rows{cure}")
