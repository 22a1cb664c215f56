"""Regressors that read codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import (
    check_is_fitted,
)

from chartae.core.errors import DataError, PlanError
from chartae.estimators.heads.reading import COMMON, CONSTRAINTS, Head
from chartae.estimators.heads.targets import refuse_lost
from chartae.estimators.parameters import constructor
from chartae.estimators.whole import whole

__all__ = ["HeadRegressor"]


class HeadRegressor(RegressorMixin, Head):
    """Regression on the codes of an encoder, which stays as it is or learns from the numbers, too.

    Parameters
    ----------
    {encoder}
    distribution : {"normal", "counts"}
        Of y, given z. Counts are Poisson, by a linear head.
    head : {"linear", "mlp", "knn"} or estimator
        Mean of p(y | z): ridge regression, a perceptron, five nearest neighbors, or a regressor of
        scikit-learn.
    {common}
    validation_fraction : float
        Share of rows held out to tell the noise by.
    random_state : int, RandomState or None
        Of draws, of what is held out, and of a perceptron.

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}
    noise_ : float
        Standard deviation of y around what the head says: of held-out rows where those are 20 or more, else
        of all.
    random_state_ : int
        ``random_state``, or the number that was drawn in its place.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from chartae import VAE, HeadRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> head = HeadRegressor(VAE(latent_dim=4, random_state=0), random_state=0).fit(X, y)
    >>> mean, std = head.predict(X, return_std=True)
    >>> mean.shape, std.shape
    ((442,), (442,))
    """

    _parameter_constraints = CONSTRAINTS | {"distribution": [StrOptions({"normal", "counts"})]}

    __init__ = constructor({"encoder": None, "distribution": "normal"}, COMMON, first="encoder")

    def fit(self, X: Any, y: Any) -> HeadRegressor:
        """Learn to read a number.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``: items, as the encoder takes them.
        y : array_like
            ``(n,)``.

        Returns
        -------
        HeadRegressor
            Itself.

        Raises
        ------
        DataError
            If y is not finite, or holds what is no count where it should.
        """
        with whole(self):
            X, y = self._begin(X, y)
            try:
                y = y.astype(np.float64)
            except (TypeError, ValueError):
                raise DataError(
                    f"y of type {y.dtype} are no numbers: convert them, or use HeadClassifier"
                ) from None
            refuse_lost(y)  # of a column of objects this is seen once they are numbers
            if self.distribution == "counts" and ((y < 0) | (y != np.round(y))).any():
                raise DataError("y holds what is no count: use distribution='normal'")
            if self.distribution == "counts" and not y.any():
                raise DataError("all counts are 0, of which no rate can be told: give rows with others")
            held_out = self._fit_head(X, y, np.arange(len(y)), self.distribution)
            X, y = (_safe_indexing(X, held_out), y[held_out]) if len(held_out) else (X, y)
            found = self._read(X, "predict")
            left = np.square(found.mean(0) - y).mean() - found.var(0).mean()
            self.noise_ = float(np.sqrt(max(left, 0.0)))
        return self

    def _can_generate(self) -> None:
        raise PlanError("training='generative' sums over classes, which numbers are not: use 'joint'")

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Mean of p(y | x).

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        return_std : bool
            Give its standard deviation as well.

        Returns
        -------
        mean : ndarray
            ``(n,)``.
        std : ndarray
            ``(n,)``, with ``return_std`` only: of the noise (of a count, the root of its mean), and of what
            the head says of different draws.
        """
        check_is_fitted(self)
        found = self._read(self._items(X, reset=False), "predict")
        mean: np.ndarray = found.mean(0)
        if not return_std:
            return mean
        own = np.maximum(mean, 0) if self.distribution == "counts" else self.noise_**2
        return mean, np.sqrt(own + found.var(0))
