"""What reads a target off codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelPropagation, LabelSpreading, SelfTrainingClassifier
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from chartae.core.errors import DataError, PlanError, enumerated
from chartae.core.registry import suggest
from chartae.training.labels import UNLABELED
from chartae.transfer.spreading import Spreading

__all__ = [
    "HEADS",
    "Scaled",
    "Several",
    "compares",
    "fit_to_draws",
    "head",
    "spreading_of",
    "takes_unlabeled",
    "weighed",
]


NEIGHBORS = KNeighborsClassifier | KNeighborsRegressor
WITHIN_REACH = RadiusNeighborsClassifier | RadiusNeighborsRegressor


class _Neighbors(KNeighborsClassifier):
    """Votes of the nearest neighbors, and one more that all classes share: nothing is impossible.

    Without it one neighbor more or less would count for certainty, which no temperature could mend.
    """

    def predict_proba(self, X: Any) -> np.ndarray:
        k, shares = self.n_neighbors, super().predict_proba(X)
        out: np.ndarray = (k * shares + 1 / shares.shape[1]) / (k + 1)
        return out


#: Variance that a linear head gives to what it reads, before it has seen a target: its weights have variance
#: 1 and codes this mean squared length. Were each dimension scaled to one, wide codes would be regularized
#: less than narrow ones, though they are what needs it.
SAID = 5.0

#: A perceptron's weights have variance 1 beforehand, too, and numbers that it reads one scale. Without it one
#: trains for as long as it may where codes do not say the target, and what it learns there is noise.
PRIOR: Mapping[str, Any] = {"alpha": 1.0, "max_iter": 5000}

#: By what the target is, and the name: each takes the widths of hidden layers and a seed.
HEADS: Mapping[str, Mapping[str, Callable[[tuple[int, ...], int | None], Any]]] = {
    "categorical": {
        "linear": lambda hidden, seed: LogisticRegression(max_iter=2000),
        "mlp": lambda hidden, seed: MLPClassifier(hidden, random_state=seed, **PRIOR),
        "knn": lambda hidden, seed: _Neighbors(),
        "spreading": lambda hidden, seed: Spreading(),
    },
    "normal": {
        "linear": lambda hidden, seed: Ridge(),
        "mlp": lambda hidden, seed: TransformedTargetRegressor(
            MLPRegressor(hidden_layer_sizes=hidden, random_state=seed, **PRIOR), transformer=StandardScaler()
        ),
        "knn": lambda hidden, seed: KNeighborsRegressor(),
    },
    "counts": {"linear": lambda hidden, seed: PoissonRegressor(alpha=1e-3, max_iter=1000)},
}


class Scaled(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Codes around zero, and all divided by one number: which of two is farther stays as it was.

    A scale for each dimension would make those large that a model does not use.

    Parameters
    ----------
    squared_length : float or None
        Mean squared length of a training code when it is scaled; None: the number of its dimensions.

    Attributes
    ----------
    mean_ : ndarray
        ``(d,)``.
    scale_ : float
        What codes are divided by.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import Scaled
    >>> Scaled().fit_transform(np.array([[1.0, 0.0], [3.0, 0.0]])).round(2).tolist()
    [[-1.41, 0.0], [1.41, 0.0]]
    >>> Scaled(squared_length=9.0).fit_transform(np.array([[1.0, 0.0], [3.0, 0.0]])).tolist()
    [[-3.0, 0.0], [3.0, 0.0]]
    """

    def __init__(self, squared_length: float | None = None) -> None:
        self.squared_length = squared_length

    def fit(self, X: Any, y: Any = None) -> Scaled:
        """Learn center and scale.

        Parameters
        ----------
        X : array_like
            ``(n, d)``.
        y : object
            Of no effect.

        Returns
        -------
        Scaled
            Itself.
        """
        X = validate_data(self, X, dtype=np.float64)
        self.mean_ = X.mean(0)
        wanted = X.shape[1] if self.squared_length is None else self.squared_length
        self.scale_ = float(np.sqrt(np.square(X - self.mean_).sum(1).mean() / wanted)) or 1.0
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Center and scale.

        Parameters
        ----------
        X : array_like
            ``(n, d)``.

        Returns
        -------
        ndarray
            ``(n, d)``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        out: np.ndarray = (X - self.mean_) / self.scale_
        return out


class Several(BaseEstimator):
    """Several labels at once: a head of its own for each, fitted to the rows where that one is known.

    Parameters
    ----------
    head : estimator
        A classifier, which is copied for each label.

    Attributes
    ----------
    heads_ : list of estimator
        One for each label.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import Several, head
    >>> Z = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> Several(head("categorical", "linear")).fit(10 * Z, Z).predict_proba(
    ...     10 * Z
    ... ).round().tolist() == Z.tolist()
    True
    """

    def __init__(self, head: Any) -> None:
        self.head = head

    def fit(self, Z: Any, y: np.ndarray) -> Several:
        """Learn to read each label.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes, or ``(k, n, d)`` draws of them.
        y : ndarray
            ``(n, m)`` of zeros and ones, NaN where a label is not known.

        Returns
        -------
        Several
            Itself.
        """
        self.heads_ = []
        for column in y.T:
            told = ~np.isnan(column) | takes_unlabeled(self.head)
            numbers = np.where(np.isnan(column), UNLABELED, column).astype(int)
            draws = Z[None] if Z.ndim == 2 else Z
            self.heads_.append(fit_to_draws(clone(self.head), draws[:, told], numbers[told]))
        return self

    def predict_proba(self, Z: Any) -> np.ndarray:
        """Probability of each label.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.

        Returns
        -------
        ndarray
            ``(n, m)``.
        """
        return np.stack([each.predict_proba(Z)[:, 1] for each in self.heads_], 1)


def head(
    target: str, which: Any, *, hidden: tuple[int, ...] = (128,), random_state: int | None = None
) -> Any:
    """Make a head: what is fitted to codes and a target.

    Parameters
    ----------
    target : {"categorical", "normal", "counts"}
        How the target is distributed, given a code.
    which : {"linear", "mlp", "knn", "spreading"} or estimator
        Its name, or an estimator of scikit-learn, which is copied.
    hidden : tuple of int
        Widths of the layers of an "mlp".
    random_state : int or None
        Seed of an "mlp".

    Returns
    -------
    estimator
        Not fitted yet.

    Raises
    ------
    PlanError
        If there is no such head.

    Examples
    --------
    >>> from chartae.transfer import head
    >>> head("categorical", "linear")[-1]
    LogisticRegression(max_iter=2000)
    >>> head("categorical", "linear")[0], head("categorical", "knn")[0]
    (Scaled(squared_length=5.0), Scaled())
    """
    if target not in HEADS:
        raise PlanError(f"unknown distribution {target!r}: {suggest(target, HEADS)}")
    if hasattr(which, "fit"):
        return clone(which)
    known = HEADS[target]
    if not isinstance(which, str) or which not in known:
        raise PlanError(f"unknown head {which!r} of a {target} target: {suggest(str(which), known)}")
    scaled = Scaled(SAID if which == "linear" else None)
    return make_pipeline(scaled, known[which](tuple(hidden), random_state))


def takes_unlabeled(made: Any) -> bool:
    """Tell whether a head learns from codes whose label is -1, too.

    Parameters
    ----------
    made : estimator
        As :func:`head` gives it.

    Returns
    -------
    bool
        Whether it does.

    Examples
    --------
    >>> from chartae.transfer import head, takes_unlabeled
    >>> takes_unlabeled(head("categorical", "spreading")), takes_unlabeled(head("categorical", "knn"))
    (True, False)
    """
    return isinstance(_last(made), Spreading | LabelPropagation | LabelSpreading | SelfTrainingClassifier)


def spreading_of(made: Any) -> Spreading | None:
    """Find what spreads labels in a head.

    Parameters
    ----------
    made : estimator
        As :func:`head` gives it, fitted or not.

    Returns
    -------
    Spreading or None
        Itself, or the last step of a pipeline.

    Examples
    --------
    >>> from chartae.transfer import head, spreading_of
    >>> spreading_of(head("categorical", "spreading")), spreading_of(head("categorical", "knn"))
    (Spreading(), None)
    """
    last = _last(made)
    return last if isinstance(last, Spreading) else None


def compares(made: Any) -> bool:
    """Tell whether a head compares codes with those that it was fitted to.

    Parameters
    ----------
    made : estimator
        As :func:`head` gives it.

    Returns
    -------
    bool
        Whether it does.

    Examples
    --------
    >>> from chartae.transfer import compares, head
    >>> compares(head("categorical", "spreading")), compares(head("categorical", "linear"))
    (True, False)
    """
    return isinstance(_last(made), NEIGHBORS | WITHIN_REACH | Spreading | LabelPropagation | LabelSpreading)


def fit_to_draws(made: Any, codes: np.ndarray, y: np.ndarray) -> Any:
    """Fit a head to draws of codes, which count together for one row.

    Parameters
    ----------
    made : estimator
        As :func:`head` gives it, or :class:`Several`. Neighbors are no more than there are rows.
    codes : ndarray
        ``(k, n, d)``, k draws of each row.
    y : ndarray
        ``(n,)``, or ``(n, m)`` of several labels.

    Returns
    -------
    estimator
        The same, fitted.

    References
    ----------
    Alemi et al. 2017, arXiv:1612.00410, equation 17 (a mean over draws).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import fit_to_draws, head
    >>> codes, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> one, many = (fit_to_draws(head("categorical", "linear"), codes[None].repeat(k, 0), y) for k in (1, 9))
    >>> float(np.abs(one.predict_proba(codes) - many.predict_proba(codes)).max().round(3))
    0.0
    """
    if isinstance(made, Several):
        return made.fit(codes, y)
    k, n, d = codes.shape
    last, how = _last(made), {}
    if isinstance(last, NEIGHBORS) and last.n_neighbors > k * n:
        last.set_params(n_neighbors=k * n)
    inner = last.regressor if isinstance(last, TransformedTargetRegressor) else last
    if isinstance(inner, MLPClassifier | MLPRegressor) and inner.batch_size == "auto":
        inner.set_params(batch_size=k * min(n, 200))  # a step is of as many rows as without draws
    if k > 1 and has_fit_parameter(inner, "sample_weight"):
        prefix = f"{made.steps[-1][0]}__" if isinstance(made, Pipeline) else ""
        how = {f"{prefix}sample_weight": np.full(k * n, 1 / k)}
    with config_context(enable_metadata_routing=False):  # by which a pipeline refuses what it is given so
        return made.fit(codes.reshape(-1, d), np.concatenate([y] * k), **how)


def weighed(made: Any, classes: Sequence[Any]) -> Any:
    """Name classes by their place, which is what a head sees of them, where a head weighs classes.

    Parameters
    ----------
    made : estimator
        As it is given; what is inside it is looked at, too.
    classes : sequence
        Labels, in the order of their numbers.

    Returns
    -------
    estimator
        The same, with weights of numbers.

    Raises
    ------
    DataError
        If a weight is of no class.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from chartae.transfer import weighed
    >>> weighed(LogisticRegression(class_weight={"b": 2.0}), ["a", "b"]).class_weight
    {1: 2.0}
    """
    places = {label: number for number, label in enumerate(classes)}
    for name, weights in made.get_params(deep=True).items():
        if not (name == "class_weight" or name.endswith("__class_weight")) or not isinstance(weights, dict):
            continue
        unknown = next((label for label in weights if label not in places), None)
        if unknown is not None:
            raise DataError(
                f"class_weight names {unknown!r}, and the labels are {enumerated(list(map(repr, places)))}"
            )
        made.set_params(**{name: {places[label]: weight for label, weight in weights.items()}})
    return made


def _last(made: Any) -> Any:
    return made[-1] if isinstance(made, Pipeline) else made
