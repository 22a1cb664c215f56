"""From what a user passes as a condition to rows of labels, vectors and sequences of vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chartae.core.columns import is_frame
from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.training.items import array_of
from chartae.training.labels import as_condition, missing, of_values, refuse_mixed, typed

__all__ = ["ConditionSchema"]

ORDERED = ("sequence", "set")  # what vectors in any number are, with an order and without


@dataclass(frozen=True)
class ConditionSchema:
    """What a model was conditioned on.

    Parameters
    ----------
    classes : ndarray or None
        ``(m,)`` the known labels, sorted.
    vector_shape : tuple of int or None
        Shape of one vector, ``(m,)``, or of one map, such as ``(height, width)``; None for none.
    sequence_dim : int
        Width of the vectors of a sequence or a set; 0 for none.
    ordered : bool
        Whether their order matters: a sequence, and no set.
    names : tuple of str or None
        Of the numbers of a vector, if a table had them.

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
    sequence_dim: int = 0
    ordered: bool = True
    names: tuple[str, ...] | None = None

    @classmethod
    def learn(cls, y: Any) -> ConditionSchema:
        """See what kind of condition this is.

        Parameters
        ----------
        y : array_like, dict or None
            1-D integers, booleans or strings are labels, as categories and objects, too, and so is a column
            of them, ``(n, 1)``; 1-D floats, whatever holds them, are a scalar; other 2-D arrays vectors, and
            arrays of more axes maps, ``(n, height, width)``, which are vectors to the model; a list of arrays
            ``(t, m)`` are sequences of vectors, of any lengths t. A dict has several of these,
            ``{"label": ..., "vector": ..., "sequence": ...}``, and "set" in place of "sequence" where the
            order of the vectors says nothing; both may also be an array ``(n, t, m)``, filled up with NaN. A
            NaN in a scalar, a vector or a map means "no condition" for that row, and so do a label that is
            missing (None) and a sequence without vectors.

        Returns
        -------
        ConditionSchema
            Of that kind.

        Raises
        ------
        DataError
            If it is none of these, or if no row has a label, a vector or a sequence.
        """
        parts = _named(y)
        names = _columns_of(y if is_frame(y) else parts.get("vector")) if "vector" in parts else None
        label, vector, vectors, ordered = _split(parts)
        if label is not None and label.ndim != 1:
            raise DataError(f"labels have shape {label.shape}: give one for each row")
        if vector is not None and (vector.ndim == 0 or math.prod(vector.shape[1:]) == 0):
            raise DataError(f"condition vectors have shape {vector.shape}: give (n, m), m one or more")
        classes = None
        if label is not None:
            classes = np.unique(typed(label[~missing(label)]))
            if len(label) and not len(classes):
                raise DataError("no row has a label: give some of them one, or leave the condition out")
        rows = [] if vectors is None else _sequences(vectors)
        if vectors is not None and (not rows or rows[0].shape[1] == 0):
            raise DataError("a condition of sequences has no vectors: give an array (t, m) for each row")
        nowhere = {
            "vector": vector is not None and len(vector) > 0 and np.isnan(_numbers(vector)).all(),
            "sequence": vectors is not None and all(np.isnan(row).all() for row in rows),
        }
        for name, nothing in nowhere.items():
            if nothing:
                raise DataError(f"no row has a {name}: give some of them one, or leave the condition out")
        width = rows[0].shape[1] if rows else 0
        return cls(classes, None if vector is None else vector.shape[1:] or (1,), width, ordered, names)

    @property
    def vector_dim(self) -> int:
        """How many numbers a vector or a map holds; 0 without one."""
        return 0 if self.vector_shape is None else math.prod(self.vector_shape)

    @property
    def parameters(self) -> dict[str, int] | None:
        """Arguments of the module that embeds the condition, or None without one."""
        if not self._has:
            return None
        more = {"sequence_dim": self.sequence_dim, "ordered": self.ordered} if self.sequence_dim else {}
        labels = 0 if self.classes is None else len(self.classes)
        return {"n_labels": labels, "vector_dim": self.vector_dim, **more}

    @property
    def _has(self) -> list[str]:
        """The parts that there are, as a dict of them names them."""
        parts = {
            "label": self.classes is not None,
            "vector": self.vector_dim,
            ORDERED[not self.ordered]: self.sequence_dim,
        }
        return [name for name, there in parts.items() if there]

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
        kind = "sequences" if self.ordered else "sets"
        sequence = f"{kind} of vectors of {self.sequence_dim}" if self.sequence_dim else ""
        words = " and ".join(filter(None, (labels, vector, sequence)))
        return f", conditioned on {words}" if words else ""

    def encode(self, condition: Any, n: int, *, single: bool = True) -> RawCondition | None:
        """Make rows of a condition; a single label, vector or sequence, or one row, is meant for all of them.

        Parameters
        ----------
        condition : object
            As in :meth:`learn`, or a single label, vector, map or sequence, or None for "no condition". What
            is not a dict is the first part that the model knows, of label, vector and sequence, and a list of
            arrays ``(t, m)`` its sequence or set, if it knows one. A part that a dict leaves out is absent,
            which the model was trained for, as are a label that is None and a vector that holds a NaN.
        n : int
            How many rows.
        single : bool
            Whether one row may stand for all.

        Returns
        -------
        RawCondition or None
            Of ``n`` rows.

        Raises
        ------
        DataError
            If a label is unknown, lengths or widths do not fit, or a table has other columns.
        """
        if condition is None:
            return None
        if self.parameters is None:
            raise DataError(
                "this model was fitted without a condition: give fit labels (y), and a recipe such as 'cvae'"
            )
        condition = _named(self._in_order(condition), self._has)
        label, vector, vectors, _ = _split(condition)
        if not {name for name, part in condition.items() if part is not None} <= {*self._has}:
            has = " and ".join(f"{name}s" for name in self._has)
            raise DataError(f"this model is conditioned on {has} alone: leave the other part out")
        if not single and any(part is not None and len(part) == 1 < n for part in (label, vector, vectors)):
            raise DataError(f"there is one condition for {n} rows: give one for each")
        return RawCondition(
            None if label is None else self._labels(label, n),
            None if vector is None else self._vectors(_numbers(vector), n),
            None if vectors is None else self._padded(_sequences(vectors, n), n),
        )

    def _in_order(self, condition: Any) -> Any:
        """Columns of a table as they were fitted: by their names, and not by where they stand."""
        if self.names is None:
            return condition
        if isinstance(condition, Mapping):
            return {
                name: self._in_order(part) if name == "vector" else part for name, part in condition.items()
            }
        given = _columns_of(condition)
        if given in (None, self.names):
            return condition
        if sorted(given) != sorted(self.names):
            raise DataError(
                f"the condition has columns {', '.join(given)}, and the model was fitted with "
                f"{', '.join(self.names)}: give these"
            )
        return condition[[condition.columns[given.index(name)] for name in self.names]]

    def _labels(self, label: np.ndarray, n: int) -> torch.Tensor:
        assert self.classes is not None
        label = np.broadcast_to(label, n) if label.ndim == 0 or len(label) == 1 else label
        if len(label) != n:
            raise DataError(f"{len(label)} labels for {n} rows: give one for each row, or a single one")
        codes, there = np.full(n, -1), ~missing(label)
        label = typed(label[there])
        # NumPy would compare text with numbers as text, and take True for 1.
        comparable = _kind(self.classes) == _kind(label)
        # Of integers with and without a sign it would make floats, and one of several large ones.
        mixed = {label.dtype.kind, self.classes.dtype.kind} == {"i", "u"}
        same = label.astype(self.classes.dtype) if mixed else label
        known = np.isin(same, self.classes) & (same == label) if comparable else np.zeros(len(same), bool)
        if not known.all():
            raise DataError(self._unknown(label[~known].tolist()[0]))
        if len(same):
            codes[there] = np.searchsorted(self.classes, same)
        return torch.from_numpy(codes)

    def _unknown(self, label: Any) -> str:
        assert self.classes is not None
        names = self.classes.tolist()
        twin = next((c for c in names if str(c) == str(label) or c == label), None)
        types = "" if twin is None else f" is {_type(label)}, and the known {twin} {_type(twin)}"
        listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        return f"unknown label {label!r}{types}: known labels are {listed}"

    def _vectors(self, vector: np.ndarray, n: int) -> torch.Tensor:
        assert self.vector_shape is not None
        needed = (n, *self.vector_shape)
        one = (self.vector_shape, (1, *self.vector_shape))
        if vector.shape in one or (vector.size == 1 == self.vector_dim and vector.ndim < 2):
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

    def _padded(self, rows: list[np.ndarray], n: int) -> torch.Tensor:
        if len(rows) != n:
            raise DataError(f"{len(rows)} sequences for {n} rows: give one for each row, or a single one")
        if rows[0].shape[1] != self.sequence_dim:
            raise DataError(
                f"vectors of sequences have {rows[0].shape[1]} numbers, and {self.sequence_dim} are needed"
            )
        places = max(1, *map(len, rows))
        out = np.full((n, places, self.sequence_dim), np.nan, np.float32)
        for i, row in enumerate(rows):
            if np.isinf(row).any():
                raise DataError(
                    f"the sequence in row {i} (from 0) is infinite, or too large for float32: correct it, or "
                    "leave it out"
                )
            out[i, : len(row)] = row
        return torch.from_numpy(out)

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
            "sequence_dim": self.sequence_dim,
            "ordered": self.ordered,
            "names": self.names and list(self.names),
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
        return cls(
            None if classes is None else of_values(classes),
            tuple(shape) if shape else None,
            config.get("sequence_dim", 0),
            config.get("ordered", True),
            tuple(config["names"]) if config.get("names") else None,
        )


def _columns_of(rows: Any) -> tuple[str, ...] | None:
    """Names of the columns of a table."""
    return tuple(map(str, rows.columns)) if is_frame(rows) else None


def _kind(labels: np.ndarray) -> str:
    """Tell text, booleans and numbers apart."""
    kind = labels.dtype.kind
    return kind if kind in "Ub" else "number"


def _type(label: object) -> str:
    """Say what kind of label this is."""
    kinds = {bool: "a boolean", int: "an integer", float: "a float"}
    return next((name for kind, name in kinds.items() if isinstance(label, kind)), "text")


def _array(y: Any) -> np.ndarray:
    """Rows as labels or floats, but for NumPy's turning of ``[1, "a"]`` into text."""
    try:
        array = as_condition(y)
    except DataError:
        raise DataError(
            "the rows of the condition differ in length: give each one label, or a vector of the same width"
        ) from None
    if array.dtype.kind == "U" and not isinstance(y, np.ndarray):
        objects = np.asarray(y, dtype=object)
        return array if all(isinstance(v, str) for v in objects.flat) else objects
    return array


def _names(label: np.ndarray) -> np.ndarray:
    """Labels of one type that a run folder can keep, and that can be asked for again; None: there is none."""
    if label.ndim > 1:
        raise DataError(f"labels have shape {label.shape}: give one for each row")
    rows = np.atleast_1d(label)
    if label.dtype.kind == "f" and np.isinf(rows).any():
        row = int(np.isinf(rows).argmax())
        where = f"labels hold {rows[row]} in row {row} (from 0), which" if label.ndim else str(label)
        raise DataError(f"{where} cannot be a label: drop such rows, or write NaN for no label")
    rows = typed(rows[~missing(rows)])
    refuse_mixed(rows)
    if rows.dtype.kind not in "biufU":
        raise DataError(f"{rows.dtype} cannot be a label: use integers, booleans or strings")
    return label


def _numbers(vector: Any, dtype: Any = np.float64) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            return np.asarray(array_of(vector), dtype=dtype)  # a date in seconds has more digits than float32
    except (TypeError, ValueError):
        raise DataError(
            "condition vectors must be numbers, as many in each, [1, 2, 3] say: pass anything else as labels"
        ) from None


def _sequences(given: Any, n: int | None = None) -> list[np.ndarray]:
    """Arrays ``(t, m)``, one for each of ``n`` rows; a single one is meant for all."""
    if not hasattr(given, "__getitem__") or isinstance(given, str | Mapping):
        raise DataError(f"a condition's sequence is {given!r}: give an array (t, m) for each row, of one m")
    # As float32: they are filled up to the longest, and many.
    single = n is not None and getattr(given, "ndim", 0) == 2  # without any vectors, too
    rows = [_numbers(row, np.float32) for row in (given if len(given) else [given] * single)]
    if n is not None and rows and all(row.ndim == 1 and row.size for row in rows):
        if len(rows) == n > 1:
            raise DataError(
                f"{n} vectors for {n} rows are one sequence, or one vector each: give [a], or a[:, None]"
            )
        rows = [_numbers(rows, np.float32)]
    width = next((row.shape[1] for row in rows if row.ndim == 2), None)
    for i, row in enumerate(rows):
        if row.ndim < 2 and np.isnan(row).all():
            raise DataError(
                f"the sequence in row {i} (from 0) is empty, or None: write np.empty((0, {width or 'm'})) "
                "for no condition"
            )
        if row.ndim != 2 or row.shape[1] != width:
            raise DataError(
                f"a condition's sequence has shape {row.shape} in row {i} (from 0): give an array (t, m) for "
                "each row, of one m"
            )
    return rows * n if n is not None and len(rows) == 1 else rows


def _named(y: Any, known: Sequence[str] = ()) -> dict[str, Any]:
    """Parts of a condition by their names, of which a model knows some: here alone is said what is what."""
    if y is None:
        return {}
    if isinstance(y, Mapping):
        unknown = set(y) - {"label", "vector", *ORDERED}
        if unknown:
            raise DataError(
                f"a condition has 'label', 'vector' and 'sequence' or 'set', and not {sorted(unknown)[0]!r}"
            )
        if all(part is None for part in y.values()):
            raise DataError(
                "a condition dict is empty: give 'label', 'vector', 'sequence' or several, or None for none"
            )
        return dict(y)
    # Of one length, too, they are no maps, which come as one array.
    listed = isinstance(y, list | tuple) or getattr(y, "dtype", None) == np.dtype(object)
    if listed and any(getattr(row, "ndim", 0) == 2 for row in y):
        return {next((name for name in known if name in ORDERED), known[0] if known else "sequence"): y}
    if known:
        return {known[0]: y}
    rows = _array(y)
    # A column of classes is one label a row; a column of floats is a vector of one.
    return {"vector" if rows.dtype.kind == "f" or _column(rows).ndim > 1 else "label": rows}


def _split(parts: Mapping[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None, Any, bool]:
    """Labels, vectors, sequences of vectors, and whether those have an order."""
    label, vector, sequence, unordered = (parts.get(k) for k in ("label", "vector", *ORDERED))
    if sequence is not None and unordered is not None:
        raise DataError("a condition has a 'sequence' and a 'set': give one of them")
    return (
        None if label is None else _names(_column(_array(label))),
        None if vector is None else _array(vector),
        sequence if unordered is None else unordered,
        unordered is None,
    )


def _column(rows: np.ndarray) -> np.ndarray:
    return rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
