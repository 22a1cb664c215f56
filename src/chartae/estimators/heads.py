"""Classifiers and regressors that read codes."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _num_samples,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from chartae.core.arrays import as_tensor, is_streamed
from chartae.core.errors import DataError, PlanError
from chartae.estimators.decoding import begun_from
from chartae.estimators.fitting import Fitting
from chartae.estimators.joint import fit_jointly
from chartae.estimators.parameters import constructor, told
from chartae.models.assembly import features_of, find
from chartae.parts.objectives import Labels
from chartae.parts.readouts import readout
from chartae.transfer import (
    UNLABELED,
    Read,
    Several,
    calibration_error,
    coded,
    compares,
    drawn,
    fit_temperature,
    fit_to_draws,
    fitted,
    head,
    in_units,
    labeled,
    refuse_points,
    takes_unlabeled,
    target_space,
    tempered,
    tune,
)

__all__ = ["HeadClassifier", "HeadRegressor", "OnCodes", "targets"]

FEWEST_HELD_OUT = 20  # rows by which a temperature, or the noise of a regression, is told
FEWEST_APART = 200  # of which an epoch and a temperature take a half each: 30 choose one by chance
DRAWN = 50_000  # codes that a stochastic head is fitted to, about
JOINT = ("joint", "bottleneck", "generative")

#: Parameters of both heads, and their defaults.
COMMON: dict[str, Any] = {
    "head": "linear",
    "hidden": (128,),
    "training": "frozen",
    "weight": 10.0,
    "max_epochs": None,
    "learning_rate": 1e-2,
    "stochastic": False,
    "n_samples": 16,
    "validation_fraction": 0.1,
    "random_state": None,
}

COMMON_TEXT = """
hidden : sequence of int
    Widths of the perceptron's layers.
training : {"frozen", "fine-tuned", "joint", "bottleneck", "generative"}
    "frozen": the encoder stays as it is. "fine-tuned": a linear head or a perceptron is trained on it, and
    then a copy of the encoder with it, more slowly; it encodes and does no more, as its decoder is left
    behind. "joint": a copy of an estimator of chartae is fitted anew, to its own objective and the labels
    at once, on rows with and without a label. "bottleneck": the same without its decoder, so that codes keep
    of an item what tells its label (arXiv:1612.00410). "generative": a copy of a conditional estimator of
    chartae is fitted anew with the label as its condition, and beside it a classifier of items, p(y | x), a
    network of the encoder's kind; where a label is not known it is summed out (M2, arXiv:1406.5298).
weight : float
    Of what is neither "frozen" nor "fine-tuned": nats of the model's objective that a nat of a label counts
    for, 1/β; of "generative" α/N, 0.1 in the paper.
max_epochs : int or None
    Of "fine-tuned", for the head alone and then for both, at most; None: what 1,000 steps need, 10 or more.
    The others take the estimator's.
learning_rate : float
    Of the head, where it is "fine-tuned"; the encoder's is a tenth of it.
stochastic : bool
    Average over draws from the posterior, in place of its mean.
n_samples : int
    Draws of each item.
"""

ENCODER_TEXT = """
encoder : object or None
    What turns items into codes: a model of chartae, a transformer of scikit-learn, or a torch module that
    maps ``(n, *shape)`` to anything that flattens. It stays as it is; one that is not fitted is copied, and
    fitted to X. None: X are codes already.
"""

ATTRIBUTES_TEXT = """
encoder_ : object
    As it was used.
head_ : estimator
    As it was fitted.
"""

#: As scikit-learn validates them; encoders and heads are looked at where they are used.
CONSTRAINTS: dict[str, Any] = {
    "hidden": ["array-like"],
    "training": [StrOptions({"frozen", "fine-tuned", *JOINT})],
    "weight": [Interval(Real, 0, None, closed="neither")],
    "max_epochs": [None, Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "stochastic": ["boolean"],
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "random_state": ["random_state"],
}


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
        Of shape ``(n,)``, or ``(n, m)``, NaN where a label is not known.

    Raises
    ------
    DataError
        If there is none, or not one for each item, or a number is not finite.

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
    y = column_or_1d(y, warn=True) if matrix is None else matrix
    if _num_samples(X) != len(y):
        raise DataError(f"X has {_num_samples(X)} rows and y has {len(y)}: give one target for each row")
    lost = ~np.isfinite(y) if y.dtype.kind == "f" and matrix is None else np.zeros(1, bool)
    if lost.any():
        raise DataError(f"y has infinity or NaN in row {lost.argmax()} (from 0): leave that row out")
    return y


def _several(y: Any) -> np.ndarray | None:
    """Several labels of an item, as zeros and ones and NaN where one is not known; None: it is one."""
    y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
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


class OnCodes(BaseEstimator):
    """What everything shares that is fitted to the codes of an encoder which stays as it is.

    Examples
    --------
    >>> from chartae import Captioner, HeadClassifier
    >>> from chartae.estimators.heads import OnCodes
    >>> issubclass(HeadClassifier, OnCodes), issubclass(Captioner, OnCodes)
    (True, True)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        told(cls, encoder=ENCODER_TEXT, common=COMMON_TEXT, attributes=ATTRIBUTES_TEXT)

    def __sklearn_clone__(self) -> Any:
        # An encoder that is fitted stays so: a copy by scikit-learn's rule would have forgotten all.
        return type(self)(**self.get_params(deep=False))

    def _items(self, X: Any, *, reset: bool) -> Any:
        """Check what is encoded: codes as scikit-learn does, all else where it is encoded."""
        if self.encoder is None:
            shape = tuple(getattr(X, "shape", ()))
            if len(shape) > 2:
                raise DataError(f"items of shape {shape} are no codes: flatten them, or give an encoder")
            return validate_data(self, X, reset=reset)
        X = X.tocsr() if hasattr(X, "tocsr") else X  # of which rows can be taken
        X = np.asarray(X) if hasattr(X, "__array__") and not hasattr(X, "shape") else X
        if len(getattr(X, "shape", ())) == 2:
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
        return X


class _Head(OnCodes):
    """What both kinds of head share."""

    _parameter_constraints = CONSTRAINTS

    calibrate: bool = True  # held-out rows tell a temperature, or the noise

    def _begin(self, X: Any, y: Any, *, several: bool = False) -> tuple[Any, np.ndarray]:
        """Check parameters and data, and see to an encoder."""
        self._validate_params()
        if is_streamed(X):
            raise DataError("a head is fitted to rows in memory, and these are a stream: give fewer rows")
        if y is not None:  # what is missing is said after what is wrong with items
            X = self._items(X, reset=True)
        y = targets(self, X, y, several=several)
        if self.stochastic and not hasattr(self.encoder, "sample_posterior"):
            refuse_points()
        self.random_state_ = begun_from(self.random_state)
        trained = self.training != "frozen"
        if trained and self.head not in ("linear", "mlp"):
            raise PlanError(
                f"the head {self.head!r} cannot be trained with an encoder: use 'linear' or 'mlp', or "
                "training='frozen'"
            )
        if self.training in JOINT and not isinstance(self.encoder, Fitting):
            raise PlanError(
                f"training={self.training!r} fits an estimator of chartae, and this is another encoder: use "
                "VAE(...), say, or training='fine-tuned'"
            )
        if self.training == "generative":
            self._can_generate()
        if self.training == "fine-tuned" and not isinstance(self.encoder, Fitting | nn.Module):
            raise PlanError(
                "fine-tuning moves the weights of a model of chartae or of a torch module, and this encoder "
                "has none that it knows: use training='frozen'"
            )
        if self.training not in JOINT:
            self.encoder_ = fitted(self.encoder, X)
        return X, y

    def _can_generate(self) -> None:
        recipe, _ = self.encoder._recipe()
        if not find(recipe).conditional:
            raise PlanError(
                f"training='generative' makes labels the condition, and the recipe {recipe!r} takes "
                "none: use CVAE(...), say, or training='joint'"
            )
        if self.head != "linear" or self.stochastic:
            raise PlanError(
                "training='generative' reads items by a network of its own, and no codes: leave out head and "
                "stochastic"
            )

    def _fit_head(self, X: Any, y: np.ndarray, known: np.ndarray, target: str) -> np.ndarray:
        """Fit to most rows of those with a target, and say which were held out, if any were."""
        classes = np.bincount(y[known]) if target == "categorical" else None
        several = target == "bernoulli"
        holds_out = self.calibrate or self.training == "fine-tuned"  # which chooses an epoch by them
        held = round(self.validation_fraction * len(known)) if holds_out else 0
        few = held < FEWEST_HELD_OUT or (classes is not None and (classes.min() < 2 or held < len(classes)))
        rows, held_out = known, known[:0]
        if not few:
            rows, held_out = train_test_split(
                known,
                test_size=held,
                random_state=self.random_state_,
                stratify=None if classes is None else y[known],
            )
        left = _both(y[rows]) if several else classes is None or np.bincount(y[rows], minlength=len(classes))
        if not np.all(left):
            rows, held_out = known, known[:0]  # some class, or label, is too rare
        if self.training == "frozen":
            self._fit_frozen(X, y, rows, target)
            return held_out
        space = target_space(target, y[known])
        if self.training in JOINT:
            labels = self._names()[np.maximum(y, 0)] if self.training == "generative" else None
            likelihood = self._fit_jointly(X, in_units(space, y[rows], rows, len(y)), space, labels)
        else:
            chosen_by, held_out = self._halves(held_out)
            seen = np.concatenate([rows, chosen_by])
            likelihood = self._fine_tuned(X, in_units(space, y[seen], seen, len(y)), space, chosen_by)
        self.head_ = Read(likelihood, space)
        return held_out

    def _names(self) -> np.ndarray:
        """Classes as a condition has them: there a number that is not whole is no label."""
        found: np.ndarray = self.classes_
        return found.astype(np.int64) if found.dtype.kind == "f" else found

    def _halves(self, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that an epoch is chosen by, and others by which it is judged; the same where they are few."""
        if len(held_out) < FEWEST_APART or not self.calibrate:
            return held_out, held_out
        return held_out[::2], held_out[1::2]

    def _fit_frozen(self, X: Any, y: np.ndarray, rows: np.ndarray, target: str) -> None:
        several = target == "bernoulli"
        kind = "categorical" if several else target
        made = head(kind, self.head, hidden=tuple(self.hidden), random_state=self.random_state_)
        if takes_unlabeled(made):
            labels = np.full(y.shape, np.nan if several else UNLABELED)
            labels[rows] = y[rows]
            rows, y = np.arange(len(y)), labels
        X, k = _safe_indexing(X, rows), max(1, min(self.n_samples, DRAWN // len(rows)))
        # Draws of an item would be its own nearest neighbors.
        codes = coded(self.encoder_, X)[None] if compares(made) else self._codes(X, k)
        self.head_ = fit_to_draws(Several(made) if several else made, codes, y[rows])

    def _widths(self) -> tuple[int, ...]:
        return tuple(self.hidden) if self.head == "mlp" else ()

    def _fine_tuned(self, X: Any, y: torch.Tensor, space: Any, held_out: np.ndarray) -> Any:
        """Train a head on a copy of the encoder, and the copy with it."""
        self.encoder_ = copy.deepcopy(self.encoder_)
        ours = isinstance(self.encoder_, Fitting)
        X = self.encoder_._check(X, reset=False) if ours else np.asarray(X, np.float32)
        return tune(
            self.encoder_.model_ if ours else self.encoder_,
            X,
            y,
            space,
            held_out=held_out,
            hidden=self._widths(),
            stochastic=self.stochastic,
            epochs=self.max_epochs,
            learning_rate=self.learning_rate,
            seed=self.random_state_,
        )

    def _fit_jointly(self, X: Any, y: torch.Tensor, space: Any, labels: np.ndarray | None) -> Any:
        """Fit a copy of the estimator, to the labels as well."""

        def of_codes(model: Any) -> Any:
            return readout(space, model.latent_dim, hidden=self._widths())

        def of_items(model: Any) -> Any:
            given = self.encoder
            look = features_of(model.space, space.levels, given.network, given.hidden)
            return readout(space, network=nn.Sequential(nn.Unflatten(1, model.space.model_shape), look))

        self.encoder_, likelihood = fit_jointly(
            self.encoder,
            X,
            y,
            of_codes if labels is None else of_items,
            Labels(items=labels is not None),
            weight=self.weight,
            decoder=self.training != "bottleneck",
            labels=labels,
            seed=self.random_state_,
        )
        return likelihood

    def _codes(self, X: Any, k: int, *, shared: bool = False) -> np.ndarray:
        """One code of each item, or draws: ``(k, n, d)``; or what is read in their place, the item itself."""
        if self.training == "generative":
            items, units = as_tensor(self.encoder_._check(X, reset=False)[:]), self.encoder_.space_
            seen = units.to_model(items.to(units.scale.device)).flatten(1)
            return seen.cpu().numpy()[None]
        if self.stochastic:
            return drawn(self.encoder_, X, k, self.random_state_, shared=shared)
        return coded(self.encoder_, X)[None]

    def _read(self, X: Any, read: str) -> np.ndarray:
        """What the head says of each code, ``(k, n, ...)``."""
        codes = self._codes(X, self.n_samples, shared=True)
        found = np.asarray(getattr(self.head_, read)(codes.reshape(-1, codes.shape[2])))
        return found.reshape(*codes.shape[:2], *found.shape[1:])


class HeadClassifier(ClassifierMixin, _Head):
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
        its epoch by one half and the temperature by the other.
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
        alike = ~_both(y)
        if alike.any():
            raise DataError(
                f"the label in column {alike.argmax()} (from 0) is the same in all rows: leave it out"
            )
        self.classes_ = np.arange(y.shape[1])
        return self._fit_head(X, y, np.flatnonzero(~np.isnan(y).all(1)), "bernoulli")

    def _fit_classes(self, X: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = np.flatnonzero(labeled(y))
        check_classification_targets(y[known])
        classes = np.unique(y[known])
        if len(classes) < 2:
            raise DataError(
                f"all labels are of one class, {classes.tolist()[0]!r}: give rows of two classes or more"
            )
        self.classes_ = classes
        numbers = np.full(len(y), UNLABELED)
        numbers[known] = np.searchsorted(classes, y[known])
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
        y, known = self._known(X, y)
        right = (self.predict(X) == y) | ~known
        right, counts = (right.all(1), known.any(1)) if self.several_ else (right, known)
        weight = None if sample_weight is None else column_or_1d(sample_weight)[counts]
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


def _both(y: np.ndarray) -> np.ndarray:
    """Whether a label is there in some rows and not in others, ``(m,)``."""
    found: np.ndarray = (y == 0).any(0) & (y == 1).any(0)
    return found


class HeadRegressor(RegressorMixin, _Head):
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
        X, y = self._begin(X, y)
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"y of type {y.dtype} are no numbers: convert them, or use HeadClassifier"
            ) from None
        if self.distribution == "counts" and ((y < 0) | (y != np.round(y))).any():
            raise DataError("y holds what is no count: use distribution='normal'")
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
        own = mean if self.distribution == "counts" else self.noise_**2
        return mean, np.sqrt(own + found.var(0))
