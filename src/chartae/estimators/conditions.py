"""From what a user passes as a condition to rows of labels and vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.training.readers import array_of

__all__ = ["ConditionSchema"]


@dataclass(frozen=True)
class ConditionSchema:
    """What a model was conditioned on.

    Parameters
    ----------
    classes : ndarray or None
        ``(m,)`` the known labels, sorted.
    vector_shape : tuple of int or None
        Shape of one vector, ``(m,)``, or of one map, such as ``(height, width)``; None for none.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.estimators.conditions import ConditionSchema
    >>> schema = ConditionSchema.learn(np.array(["cat", "dog", "cat"]))
    >>> schema.encode("dog", 2).label
    tensor([1, 1])
    >>> schema.encode("cow", 1)
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: unknown label 'cow': known labels are 'cat', 'dog'
    """

    classes: np.ndarray | None = None
    vector_shape: tuple[int, ...] | None = None

    @classmethod
    def learn(cls, y: Any) -> ConditionSchema:
        """See what kind of condition this is.

        Parameters
        ----------
        y : array_like, dict or None
            1-D integers, booleans, strings or objects are labels, and so is a column of them, ``(n, 1)``;
            1-D floats are a scalar; other 2-D arrays vectors, and arrays of more axes maps,
            ``(n, height, width)``, which are vectors to the model; a dict ``{"label": ..., "vector": ...}``
            has both. A NaN in a scalar, a vector or a map means "no condition" for that row; labels cannot be
            missing.

        Returns
        -------
        ConditionSchema
            Of that kind.

        Raises
        ------
        DataError
            If it is none of these, or if a label is missing.
        """
        label, vector = _split(y)
        if label is not None and label.ndim != 1:
            raise DataError("there is a single label: give one for each row")
        if vector is not None and (vector.ndim == 0 or math.prod(vector.shape[1:]) == 0):
            raise DataError(f"condition vectors have shape {vector.shape}: give (n, m), m one or more")
        classes = None if label is None else np.unique(label)
        return cls(classes, None if vector is None else vector.shape[1:] or (1,))

    @property
    def vector_dim(self) -> int:
        """How many numbers a vector or a map holds; 0 without one."""
        return 0 if self.vector_shape is None else math.prod(self.vector_shape)

    @property
    def parameters(self) -> dict[str, int] | None:
        """Arguments of the module that embeds the condition, or None without one."""
        if self.classes is None and not self.vector_dim:
            return None
        return {"n_labels": 0 if self.classes is None else len(self.classes), "vector_dim": self.vector_dim}

    def describe(self) -> str:
        """Say what the model is conditioned on, in a few words.

        Returns
        -------
        str
            Empty without a condition.
        """
        labels = "" if self.classes is None else f"{len(self.classes)} labels"
        size = " × ".join(map(str, self.vector_shape or ()))
        kind = "vectors" if size.isdecimal() else "maps"
        vector = f"{kind} of {size}" if self.vector_dim > 1 else "a number" * self.vector_dim
        words = " and ".join(filter(None, (labels, vector)))
        return f", conditioned on {words}" if words else ""

    def encode(self, condition: Any, n: int) -> RawCondition | None:
        """Make rows of a condition; a single label or vector is meant for all of them.

        Parameters
        ----------
        condition : object
            As in :meth:`learn`, or a single label, vector or map, or None for "no condition". In a model of
            labels and vectors, what is not a dict is a label. A part that a dict leaves out, and a vector
            that holds a NaN, is absent, which the model was trained for.
        n : int
            How many rows.

        Returns
        -------
        RawCondition or None
            Of ``n`` rows.

        Raises
        ------
        DataError
            If a label is unknown, or lengths or widths do not fit.
        """
        if condition is None:
            return None
        if self.parameters is None:
            raise DataError(
                "this model was fitted without a condition: pass y to fit, with a recipe such as 'cvae'"
            )
        if not isinstance(condition, Mapping):
            condition = {"label" if self.classes is not None else "vector": condition}
        label, vector = _split(condition)
        if (label is not None and self.classes is None) or (vector is not None and not self.vector_dim):
            has = "vectors" if self.classes is None else "labels"
            raise DataError(f"this model is conditioned on {has} alone: leave the other part out")
        return RawCondition(
            None if label is None else self._labels(label, n),
            None if vector is None else self._vectors(_numbers(vector), n),
        )

    def _labels(self, label: np.ndarray, n: int) -> torch.Tensor:
        assert self.classes is not None
        label = np.broadcast_to(label, n) if label.ndim == 0 else label
        if len(label) != n:
            raise DataError(f"{len(label)} labels for {n} rows: give one for each row, or a single one")
        # NumPy would compare text with numbers as text.
        comparable = (self.classes.dtype.kind == "U") == (label.dtype.kind == "U")
        known = np.isin(label, self.classes) if comparable else np.zeros(n, dtype=bool)
        if not known.all():
            raise DataError(self._unknown(label[~known].tolist()[0]))
        return torch.from_numpy(np.searchsorted(self.classes, label))

    def _unknown(self, label: Any) -> str:
        assert self.classes is not None
        names = self.classes.tolist()
        twin = next((c for c in names if str(c) == str(label)), None)
        types = "" if twin is None else f" is {_type(label)}, and the known {twin} {_type(twin)}"
        listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        return f"unknown label {label!r}{types}: known labels are {listed}"

    def _vectors(self, vector: np.ndarray, n: int) -> torch.Tensor:
        assert self.vector_shape is not None
        needed = (n, *self.vector_shape)
        if vector.shape == self.vector_shape or (vector.ndim == 0 and self.vector_dim == 1):
            vector = np.broadcast_to(vector, needed)
        if vector.shape == (n,) and self.vector_dim == 1:
            vector = vector.reshape(needed)
        if vector.shape != needed:
            raise DataError(f"condition vectors have shape {vector.shape} and {needed} is needed")
        # A copy: a broadcast view is read-only, which torch warns about.
        vector = np.array(vector).reshape(n, self.vector_dim)
        if np.isinf(vector).any():
            row = int(np.isinf(vector).any(1).argmax())
            raise DataError(
                f"the condition in row {row} (from 0) is infinite: correct it, or write NaN for no condition"
            )
        return torch.from_numpy(vector)

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        return {
            "classes": None if self.classes is None else self.classes.tolist(),
            "vector_dim": self.vector_dim,
            "vector_shape": self.vector_shape and list(self.vector_shape),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ConditionSchema:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.

        Returns
        -------
        ConditionSchema
            The same.
        """
        classes, width = config["classes"], config["vector_dim"]
        # Runs from before there were maps know the width alone.
        shape = config.get("vector_shape") or ([width] if width else None)
        return cls(None if classes is None else np.array(classes), tuple(shape) if shape else None)


def _type(label: object) -> str:
    """Say what kind of label this is."""
    kinds = {bool: "a boolean", int: "an integer", float: "a float"}
    return next((name for kind, name in kinds.items() if isinstance(label, kind)), "text")


def _array(y: Any) -> np.ndarray:
    """Rows as NumPy sees them, but for its turning of ``["a", None]`` and ``[1, "a"]`` into text."""
    y = array_of(y) if isinstance(y, torch.Tensor) else y
    try:
        array = np.asarray(y)
    except ValueError:
        raise DataError(
            "the rows of the condition differ in length: give each one label, or a vector of the same width"
        ) from None
    if array.dtype.kind == "f" and re.match("u?int|bool", str(getattr(y, "dtype", "")).lower()):
        array = np.asarray(y, dtype=object)  # labels, some of which are missing
    if array.dtype.kind == "U" and not isinstance(y, np.ndarray):
        objects = np.asarray(y, dtype=object)
        array = array if all(isinstance(v, str) for v in objects.flat) else objects
    if array.dtype == object and any(isinstance(v, list | tuple | np.ndarray) for v in array.flat):
        return _array(array.tolist())
    return array


def _names(label: np.ndarray) -> np.ndarray:
    """Labels of one type that a run folder can keep, and that can be asked for again."""
    if label.ndim > 1:
        raise DataError(f"labels have shape {label.shape}: give one for each row")
    rows = np.atleast_1d(label)
    if label.dtype.kind in "fO":
        missing = ~np.isfinite(rows) if label.dtype.kind == "f" else _missing(rows)
        if missing.any():
            row = int(missing.argmax())
            where = f"labels hold {rows[row]} in row {row} (from 0), which" if label.ndim else str(label)
            raise DataError(f"{where} cannot be a label: drop such rows, or name them, as in 'missing'")
    if label.dtype == object:
        text = [isinstance(v, str) for v in rows]
        strange = next((v for v in rows if not isinstance(v, str | int | float | np.number | np.bool_)), None)
        if strange is None and any(text) and not all(text):
            pair = f"{rows[text.index(True)]!r} and {rows[text.index(False)]!r}"
            raise DataError(f"labels mix types, as in {pair}: make them all strings")
        plain = label if strange is not None else np.array(label.tolist())
        if plain.dtype != object:
            return _names(plain)
        # An integer that NumPy has no type for is strange as well.
        strange = rows[0] if strange is None else strange
        raise DataError(f"{strange!r} cannot be a label: use integers, booleans or strings")
    if label.dtype.kind not in "biufU":
        raise DataError(f"{rows.dtype} cannot be a label: use integers, booleans or strings")
    return label


def _missing(objects: np.ndarray) -> np.ndarray:
    import pandas as pd  # it is slow to import, and such objects mostly come from it

    return np.asarray(pd.isna(objects))


def _numbers(vector: Any) -> np.ndarray:
    try:
        return np.asarray(vector, dtype=np.float64)  # a date in seconds has more digits than float32
    except (TypeError, ValueError):
        raise DataError("condition vectors must be numbers: pass anything else as labels") from None


def _split(y: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    if y is None:
        return None, None
    if isinstance(y, Mapping):
        unknown = set(y) - {"label", "vector"}
        if unknown:
            raise DataError(f"a condition has 'label' and 'vector', and not {sorted(unknown)[0]!r}")
        label, vector = y.get("label"), y.get("vector")
        if label is None and vector is None:
            raise DataError(
                "a condition dict is empty: give 'label', 'vector' or both, or None for no condition"
            )
        names = None if label is None else _names(_column(_array(label)))
        return names, None if vector is None else _array(vector)
    rows = _array(y)
    # A column of classes is one label a row; a column of floats is a vector of one.
    rows = rows if rows.dtype.kind == "f" else _column(rows)
    return (None, rows) if rows.ndim != 1 or rows.dtype.kind == "f" else (_names(rows), None)


def _column(rows: np.ndarray) -> np.ndarray:
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
