"""Items as one array, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.core.columns import is_frame
from chartae.core.errors import DataError
from chartae.training.items import refuse_non_finite, refuse_other_than_items
from chartae.training.labels import as_condition, missing, typed
from chartae.training.readers.arrays import read_array

__all__ = ["Dataset"]

_NAMED = 6  # labels in a summary; more are counted


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items as one array, with their labels if there are any.

    Parameters
    ----------
    X : ndarray, memmap, DataFrame or stream of shape (n, features), (n, H, W) or (n, H, W, C)
        The items, in their own units and dtype, NaN where a value is missing; tables stay tables.
    y : ndarray of shape (n,) or (n, ...), optional
        Labels, or one number, vector or map an item.
    columns : tuple of str, optional
        The names of the features of a table.
    name : str
        Where the items come from.
    note : str
        What was chosen on the way, for the summary.
    medium : LogMel, TextEncoder, SentenceEncoder or Bytes, optional
        How sounds or texts became the items; it has ``encode``, ``config`` and ``tensors``.
    texts : list of str, optional
        What the items of a ``.txt`` file stand for.

    Examples
    --------
    >>> from chartae.training.readers import read
    >>> data = read("digits")
    >>> data.X.shape, data.y.shape, data.columns is None
    ((1797, 8, 8), (1797,), True)
    """

    X: Any
    y: NDArray[Any] | None = None
    columns: tuple[str, ...] | None = None
    name: str = "array"
    note: str = ""
    medium: Any = None
    texts: list[str] | None = None

    @property
    def what(self) -> str:
        """How many items there are, and of which kind and shape.

        Returns
        -------
        str
            In a few words.

        Examples
        --------
        >>> from chartae.training.readers import read
        >>> read("digits").what
        '1,797 images of 8 × 8'
        """
        n, *shape = self.X.shape
        sizes = " × ".join(str(s) for s in shape)
        kind = {1: "row", 2: "image", 3: "image"}.get(len(shape), "item")
        kind = self.medium.noun if self.medium else kind
        return f"{count(n, kind)} of {count(shape[0], 'column') if len(shape) == 1 else sizes}"

    @property
    def summary(self) -> str:
        """One line that says what the data are.

        Returns
        -------
        str
            Count, shape, dtype, labels, source, and what was chosen.

        Examples
        --------
        >>> from chartae.training.readers import read
        >>> read("digits").summary
        '1,797 images of 8 × 8, uint8, 10 labels, from digits'
        """
        parts = [self.what]
        if hasattr(self.X, "dtype"):
            parts.append(str(self.X.dtype))
        elif is_frame(self.X) and (share := float(self.X.isna().to_numpy().mean())):
            parts.append(f"{share:.1%} of values missing")
        if self.y is not None:
            parts.append(_describe_labels(self.y))
        parts.append(f"from {self.name}" + (f" ({self.note})" if self.note else ""))
        return ", ".join(parts)


def dataset(
    X: NDArray[Any],
    labels: Any,
    *,
    name: str,
    note: str = "",
) -> Dataset:
    refuse_other_than_items(X, name)
    if X.size == 0:
        raise DataError(f"{name} is empty (shape {X.shape}): pass at least one item with one feature")
    refuse_non_finite(X, name, gaps=True)  # a fit may know missing values
    return Dataset(X, None if labels is None else labels_of(labels, len(X), name), None, name, note)


def labels_of(labels: Any, n: int, name: str) -> NDArray[Any]:
    if isinstance(labels, str):
        if not labels.endswith(".npy"):
            raise DataError(f"{name} has no named parts, so no labels {labels!r}: pass a .npy file of labels")
        labels = read_array(labels)
    y = as_condition(labels)
    there = y[~missing(y)]
    if y.dtype == object and not len(there):
        raise DataError(f"no item of {name} has a label: give some of them one, or leave the labels out")
    if typed(there).dtype.kind not in "biufU":
        raise DataError(f"the labels are {y.dtype}: pass text, whole numbers, or floats to condition on")
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]  # a column of classes is one label an item; a column of floats is a vector of one
    if y.ndim == 0 or len(y) != n:
        raise DataError(f"the labels have shape {y.shape} and {name} has {n} items: pass one label an item")
    if y.dtype.kind == "f" and np.isinf(y).any():
        row = int(np.argwhere(np.isinf(y))[0][0])
        raise DataError(
            f"the condition in row {row} (from 0) is infinite: correct it, or write NaN for no condition"
        )
    return y


def _describe_labels(y: NDArray[Any]) -> str:
    absent = int(missing(y).reshape(len(y), -1).any(1).sum())
    none = f" (none in {count(absent, 'row')})" if absent else ""
    if y.ndim == 1 and y.dtype.kind != "f":
        found = np.unique(typed(y[~missing(y)]))
        named = f" ({', '.join(found.tolist())})" if found.dtype.kind == "U" and len(found) <= _NAMED else ""
        return count(len(found), "label") + named + none
    size = " × ".join(map(str, y.shape[1:]))
    numbers = "one number" if y.ndim == 1 else f"{size} number" + "s" * (size != "1")
    return f"{numbers} an item to condition on{none}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + "s" * (n != 1)
