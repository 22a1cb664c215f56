"""Classifiers that read codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.base import ClassifierMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    check_is_fitted,
    column_or_1d,
)

from chartae.core.errors import DataError, PlanError
from chartae.estimators.checking import in_memory
from chartae.estimators.heads.reading import COMMON, CONSTRAINTS, Head
from chartae.estimators.heads.targets import classes_of, targets, vary
from chartae.estimators.parameters import constructor
from chartae.estimators.whole import whole
from chartae.transfer import (
    UNLABELED,
    calibration_error,
    fit_temperature,
    labeled,
    tempered,
)

__all__ = ["HeadClassifier"]


class HeadClassifier(ClassifierMixin, Head):
    """Classifier on the codes of an encoder, which stays as it is or learns from the labels, too.

    Rows whose label is -1 have none, as in scikit-learn's semi-supervised estimators, unless there is but one
    other label; they serve an encoder that is still to be fitted, and labels that spread.

    A matrix of zeros and ones, ``(n, m)``, is several labels of each item, each of which there is or is not;
    -1 or NaN stands for one that is not known. Probabilities are then ``(n, m)``, of each label by itself,
    one temperature is that of all of them together, and ``score`` is the share of items of which every label
    that is known is right; where all are, as scikit-learn has it.

    Parameters
    ----------
    {encoder}
    calibrate : bool
        Choose a temperature by held-out rows, where those are 20 or more; of 200 or more, fine-tuning chooses
        its epoch by one half and the temperature by the other. Where they would be fewer, none is and the
        temperature is 1. "spreading" holds none out, and has a temperature of its own.
    head : {"linear", "mlp", "knn", "spreading"} or estimator
        p(y | z): logistic regression, a perceptron, five nearest neighbors, labels that spread along the
        nearest neighbors of all rows, with or without one (:class:`chartae.transfer.Spreading`), or a
        classifier of scikit-learn.
    {common}
    validation_fraction : float
        Share of labeled rows held out for it.
    random_state : int, RandomState or None
        Of draws, of what is held out, and of a perceptron.

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    classes_ : ndarray
        The labels; where there are several, their columns.
    {attributes}
    temperature_ : float
        1 where nothing was held out.
    random_state_ : int
        ``random_state``, or the number that was drawn in its place.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599 (temperature).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from chartae import VAE, HeadClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> vae = VAE(latent_dim=2, random_state=0).fit(X)
    >>> HeadClassifier(vae, random_state=0).fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.8
    True
    """

    _parameter_constraints = CONSTRAINTS | {"calibrate": ["boolean"]}

    __init__ = constructor({"encoder": None, "calibrate": True}, COMMON, first="encoder")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> HeadClassifier:
        """Learn to read labels.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``: items, as the encoder takes them.
        y : array_like
            ``(n,)`` labels, -1 where there is none, or ``(n, m)`` zeros and ones.

        Returns
        -------
        HeadClassifier
            Itself.

        Raises
        ------
        DataError
            If there are fewer than two classes, or one of several labels is the same in all rows.
        PlanError
            If parameters do not fit together.
        """
        with whole(self):
            X, y = self._begin(X, y, several=True)
            self.temperature_, self.several_ = 1.0, y.ndim == 2
            if self.several_:
                held_out, numbers = self._fit_several(X, y), y
            else:
                held_out, numbers = self._fit_classes(X, y)
            if self.calibrate and len(held_out):
                told = self._told(self._raw(_safe_indexing(X, held_out)), numbers[held_out])
                self.temperature_ = fit_temperature(*told)
        return self

    def _fit_several(self, X: Any, y: np.ndarray) -> np.ndarray:
        if self.training == "generative":
            raise PlanError(
                "training='generative' sums over classes, and not over several labels: use 'joint'"
            )
        alike = ~vary(y)
        if alike.any():
            raise DataError(
                f"the label in column {alike.argmax()} (from 0) is the same in all rows: leave it out"
            )
        self.classes_ = np.arange(y.shape[1])
        return self._fit_head(X, y, np.flatnonzero(~np.isnan(y).all(1)), "bernoulli")

    def _fit_classes(self, X: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.flatnonzero(labeled(y))
        self.classes_ = classes_of(y[known])
        numbers = np.full(len(y), UNLABELED)
        numbers[known] = np.searchsorted(self.classes_, y[known])
        return self._fit_head(X, numbers, known, "categorical"), numbers

    def _told(self, probabilities: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of probabilities that add up to one, and what was so: of several labels, each by itself."""
        if not self.several_:
            return probabilities, y
        known = ~np.isnan(y)
        return _apart(probabilities)[known], y[known].astype(int)

    def _raw(self, X: Any) -> np.ndarray:
        found: np.ndarray = self._read(X, "predict_proba").mean(0)
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, or of each of several labels.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.

        Returns
        -------
        ndarray
            ``(n, classes)``, in the order of ``classes_``.
        """
        check_is_fitted(self)
        raw = self._raw(self._items(X, reset=False))
        if not self.several_:
            return tempered(raw, self.temperature_)
        each = tempered(_apart(raw).reshape(-1, 2), self.temperature_)
        return each[:, 1].reshape(raw.shape)

    @available_if(lambda self: getattr(self, "several_", False))
    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of each of several labels, by which scikit-learn's scorers rank items.

        They take probabilities of two labels for those of two classes.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.

        Returns
        -------
        ndarray
            ``(n, m)``.
        """
        found: np.ndarray = logit(self.predict_proba(X))
        return found

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class, or whichever of several labels are likely.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.

        Returns
        -------
        ndarray
            ``(n,)`` labels, or ``(n, m)`` zeros and ones.
        """
        probabilities = self.predict_proba(X)
        if self.several_:
            return (probabilities > 0.5).astype(int)
        found: np.ndarray = self.classes_[probabilities.argmax(1)]
        return found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of labeled rows whose class is told right, or all of whose labels that are known.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        y : array_like
            ``(n,)`` labels, or ``(n, m)`` zeros and ones; rows without a label count for nothing.
        sample_weight : array_like or None
            ``(n,)``, of rows.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        DataError
            If no row has a label, or there are not as many labels as were fitted.
        """
        X = in_memory(X)
        y, known = self._known(X, y)
        right = (self.predict(X) == y) | ~known
        right, counts = (right.all(1), known.any(1)) if self.several_ else (right, known)
        weight = None if sample_weight is None else column_or_1d(sample_weight)
        if weight is not None and len(weight) != len(y):
            raise DataError(f"there are {len(weight)} weights and {len(y)} rows: give one for each")
        weight = None if weight is None else weight[counts]
        return float(np.average(right[counts], weights=weight))

    def _known(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels to compare with, and which of them are known."""
        check_is_fitted(self)
        y = targets(self, X, y, several=True)
        wanted = (len(y), len(self.classes_)) if self.several_ else (len(y),)
        if y.shape != wanted:
            raise DataError(f"y of shape {y.shape} is not that of the labels fitted: give {wanted}")
        # -1 may be one of the classes.
        if self.several_:
            known = ~np.isnan(y)
        else:
            beside = labeled(np.concatenate([self.classes_, y]))[len(self.classes_) :]
            known = beside | np.isin(y, self.classes_)
        if not known.any():
            raise DataError("no row has a label, so that nothing can be scored: give some")
        if not self.several_:
            here, fitted = y[known].tolist()[0], self.classes_.tolist()[0]
            if isinstance(here, str) != isinstance(fitted, str):
                raise DataError(f"labels such as {here!r} are none of those fitted, such as {fitted!r}")
        return y, known

    def calibration_error(self, X: Any, y: Any) -> float:
        """How far the probabilities of labeled rows are from how often they come true: ECE of 15 bins.

        Of several labels each that is known counts, as an answer by itself.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        y : array_like
            ``(n,)`` labels, or ``(n, m)`` zeros and ones; those marked as not known count for nothing.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        DataError
            If a label is none of ``classes_``, none is known, or there are not as many as were fitted.

        References
        ----------
        Guo et al. 2017, arXiv:1706.04599, equation 3.
        """
        X = in_memory(X)
        y, known = self._known(X, y)
        if self.several_:
            return calibration_error(*self._told(self.predict_proba(X), y))
        probabilities, y = self.predict_proba(X)[known], y[known]
        other = ~np.isin(y, self.classes_)
        if other.any():
            raise DataError(f"the label {y[other].tolist()[0]!r} is none of those fitted: leave its rows out")
        return calibration_error(probabilities, np.searchsorted(self.classes_, y))


def _apart(probabilities: np.ndarray) -> np.ndarray:
    """Of each label by itself that it is not there, and that it is: ``(n, m, 2)``."""
    return np.stack([1 - probabilities, probabilities], -1)
