"""From what a user passes as a condition to rows of labels and vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError

__all__ = ["ConditionSchema"]


@dataclass(frozen=True)
class ConditionSchema:
    """What a model was conditioned on.

    Parameters
    ----------
    classes : ndarray or None
        ``(m,)`` the known labels, sorted.
    vector_dim : int
        Width of the vectors; 0 for none.

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
    vector_dim: int = 0

    @classmethod
    def learn(cls, y: Any) -> ConditionSchema:
        """See what kind of condition this is.

        Parameters
        ----------
        y : array_like, dict or None
            1-D integers, booleans, strings or objects are labels; 1-D floats a scalar; 2-D vectors; a dict
            ``{"label": ..., "vector": ...}`` both.

        Returns
        -------
        ConditionSchema
            Of that kind.

        Raises
        ------
        DataError
            If it is none of these.
        """
        label, vector = _split(y)
        if label is not None and label.ndim != 1:
            raise DataError(f"labels have shape {label.shape}: give one for each row")
        if vector is not None and vector.ndim not in (1, 2):
            raise DataError(f"condition vectors have shape {vector.shape}: give (n, m)")
        try:
            classes = None if label is None else _tidy(np.unique(label))
        except TypeError:
            raise DataError("labels mix types that cannot be sorted: make them all strings") from None
        # What a run folder can keep, and what can be asked for again.
        names = [] if classes is None else classes.tolist()
        strange = next((c for c in names if not _storable(c)), None)
        if strange is not None:
            raise DataError(f"{strange!r} cannot be a label: use integers, booleans or strings")
        return cls(classes, 0 if vector is None else 1 if vector.ndim == 1 else vector.shape[1])

    @property
    def parameters(self) -> dict[str, int] | None:
        """Arguments of the module that embeds the condition, or None without one."""
        if self.classes is None and not self.vector_dim:
            return None
        return {"n_labels": 0 if self.classes is None else len(self.classes), "vector_dim": self.vector_dim}

    def encode(self, condition: Any, n: int) -> RawCondition | None:
        """Make rows of a condition; a single label or vector is meant for all of them.

        Parameters
        ----------
        condition : object
            As in :meth:`learn`, or a single label or vector, or None for the null token.
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
                "this model was fitted without a condition: use a conditional recipe such as 'cvae'"
            )
        if not isinstance(condition, Mapping):
            condition = {"label" if self.classes is not None else "vector": condition}
        label, vector = _split(condition)
        if (label is not None and self.classes is None) or (vector is not None and not self.vector_dim):
            has = "vectors" if self.classes is None else "labels"
            raise DataError(f"this model is conditioned on {has} alone: leave the other part out")
        return RawCondition(
            None if label is None else self._labels(_tidy(label), n),
            None if vector is None else self._vectors(_numbers(vector), n),
        )

    def _labels(self, label: np.ndarray, n: int) -> torch.Tensor:
        assert self.classes is not None
        label = np.broadcast_to(label, n) if label.ndim == 0 else label
        if label.shape != (n,):
            raise DataError(f"{len(label)} labels for {n} rows: give one for each row, or a single one")
        comparable = self.classes.dtype.kind in "OUS" or label.dtype.kind not in "OUS"
        known = np.isin(label, self.classes) if comparable else np.zeros(n, dtype=bool)
        if not known.all():
            listed = ", ".join(repr(c) for c in self.classes[:20].tolist())
            more = ", ..." if len(self.classes) > 20 else ""
            raise DataError(f"unknown label {label[~known].tolist()[0]!r}: known labels are {listed}{more}")
        return torch.from_numpy(np.searchsorted(self.classes, label))

    def _vectors(self, vector: np.ndarray, n: int) -> torch.Tensor:
        m = self.vector_dim
        if vector.ndim == 0 or (vector.ndim == 1 and vector.shape == (m,) and not (m == 1 and n == 1)):
            vector = np.broadcast_to(vector, (n, m))
        vector = vector[:, None] if vector.ndim == 1 and m == 1 else vector
        if vector.shape != (n, m):
            raise DataError(f"condition vectors have shape {vector.shape} and ({n}, {m}) is needed")
        if np.isinf(vector).any():
            raise DataError("condition vectors hold infinite values: clean them first")
        # A copy: a broadcast view is read-only, which torch warns about.
        return torch.from_numpy(np.array(vector))

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
        classes = config["classes"]
        return cls(None if classes is None else np.array(classes), config["vector_dim"])


def _tidy(label: np.ndarray) -> np.ndarray:
    """Objects that are all strings, or all numbers, as an array of that type."""
    return np.array(label.tolist()) if label.dtype == object else label


def _storable(label: object) -> bool:
    return isinstance(label, str | int) or (isinstance(label, float) and math.isfinite(label))


def _numbers(vector: Any) -> np.ndarray:
    try:
        return np.asarray(vector, dtype=np.float32)
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
        return None if label is None else np.asarray(label), None if vector is None else np.asarray(vector)
    y = np.asarray(y)
    return (None, y) if y.ndim != 1 or y.dtype.kind == "f" else (y, None)
