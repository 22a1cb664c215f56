"""What classifiers and regressors share: an encoder, a head on its codes, and how both are trained."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    validate_data,
)
from torch import nn

from chartae.core.arrays import as_tensor, is_streamed
from chartae.core.errors import DataError, PlanError
from chartae.estimators.checking import in_memory
from chartae.estimators.decoding import begun_from
from chartae.estimators.fitting import Fitting
from chartae.estimators.heads.targets import targets, vary
from chartae.estimators.joint import fit_jointly
from chartae.estimators.parameters import told, widths
from chartae.estimators.whole import stopped_by
from chartae.models.assembly import features_of
from chartae.models.registry import find
from chartae.parts.objectives import Labels
from chartae.parts.readouts import readout
from chartae.training.splits import by_label
from chartae.transfer import (
    UNLABELED,
    Read,
    Several,
    coded,
    compares,
    copied,
    drawn,
    fit_to_draws,
    fitted,
    gives_points,
    head,
    in_units,
    is_fitted,
    refuse_points,
    spreading_of,
    takes_unlabeled,
    target_space,
    tune,
    weighed,
)

__all__ = ["OnCodes"]

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
hidden : int or sequence of int
    Widths of the perceptron's layers; a number is one layer.
training : {"frozen", "fine-tuned", "joint", "bottleneck", "generative"}
    "frozen": the encoder stays as it is. "fine-tuned": a linear head or a perceptron is trained on it, and
    then a copy of the encoder with it, more slowly; it encodes and does no more, as its decoder is left
    behind. "joint": a copy of an estimator of chartae is fitted anew, to its own objective and the labels
    at once, on rows with and without a label. "bottleneck": the same without its decoder, so that codes keep
    of an item what tells its label (arXiv:1612.00410). "generative" (of classes only): a copy of a
    conditional estimator of chartae is fitted anew with the label as its condition, and beside it a
    classifier of items, p(y | x), a network of the encoder's kind; where a label is not known it is summed
    out (M2, arXiv:1406.5298).
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
    maps ``(n, *shape)`` to anything that flattens. It stays as it is; one that is not fitted is copied,
    with this one's ``random_state`` if it has none, and fitted to X. None: X are codes already.
"""
ATTRIBUTES_TEXT = """
encoder_ : object
    As it was used.
head_ : estimator
    As it was fitted.
"""
#: As scikit-learn validates them; encoders and heads are looked at where they are used.
CONSTRAINTS: dict[str, Any] = {
    "hidden": [Interval(Integral, 1, None, closed="left"), "array-like"],
    "training": [StrOptions({"frozen", "fine-tuned", *JOINT})],
    "weight": [Interval(Real, 0, None, closed="neither")],
    "max_epochs": [None, Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "stochastic": ["boolean"],
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "random_state": ["random_state"],
}


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
        # An encoder that is fitted stays so: a copy by scikit-learn's rule would have forgotten all. So do
        # modules and language models, which scikit-learn would copy whole.
        def copied(name: str, value: Any) -> Any:
            stays = is_fitted(value) if name == "encoder" else not hasattr(value, "get_params")
            return value if stays or isinstance(value, type) else clone(value)

        return type(self)(**{name: copied(name, each) for name, each in self.get_params(deep=False).items()})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give parameters, with those of what is inside, but for an encoder that is fitted and stays so.

        Parameters
        ----------
        deep : bool
            Look inside.

        Returns
        -------
        dict
            By name, as in scikit-learn.
        """
        found: dict[str, Any] = super().get_params(deep)
        stays = deep and is_fitted(found["encoder"])
        return {name: v for name, v in found.items() if not (stays and name.startswith("encoder__"))}

    def set_params(self, **params: Any) -> Any:
        """Set parameters, those of what is inside by two underscores.

        Parameters
        ----------
        **params : object
            By name, as in scikit-learn.

        Returns
        -------
        object
            Itself.

        Raises
        ------
        PlanError
            If one is of an encoder that is fitted, and so stays as it is.
        """
        inside = next((name for name in params if name.startswith("encoder__")), None)
        if inside and is_fitted(params.get("encoder", self.encoder)):
            raise PlanError(f"{inside} is of an encoder that is fitted and stays so: give one that is not")
        return super().set_params(**params)

    def _items(self, X: Any, *, reset: bool) -> Any:
        """Check what is encoded: codes as scikit-learn does, all else where it is encoded."""
        X = in_memory(X)
        if self.encoder is None:
            shape = tuple(getattr(X, "shape", ()))
            if len(shape) > 2:
                raise DataError(f"items of shape {shape} are no codes: flatten them, or give an encoder")
            return validate_data(self, X, reset=reset)
        X = np.asarray(X) if hasattr(X, "__array__") and not hasattr(X, "shape") else X
        if len(getattr(X, "shape", ())) == 2:
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
        return X


class Head(OnCodes):
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
            self._ready(X)
            if self.stochastic and is_fitted(self.encoder_) and gives_points(self.encoder_):
                refuse_points()
        return X, y

    def _ready(self, X: Any) -> None:
        """See to an encoder; what has stopped the fit of a copy is for when the head is fitted to it."""
        if self.training == "frozen" and isinstance(self.encoder, Fitting) and not is_fitted(self.encoder):
            self.encoder_ = copied(self.encoder, self.random_state_)
            self._stopped = stopped_by(self.encoder_, lambda: self.encoder_.fit(X))
        else:
            self.encoder_ = fitted(self.encoder, X, self.random_state_)

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
        rows, held_out = self._apart(y, known, target)
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

    def _apart(self, y: np.ndarray, known: np.ndarray, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows to learn from, and others: none, where those are few, or some class or label is too rare."""
        holds_out = self.calibrate or self.training == "fine-tuned"  # which chooses an epoch by them
        if target == "categorical" and (self.head == "spreading" or spreading_of(self.head)):
            holds_out = False  # each label can be left out by itself
        held = round(self.validation_fraction * len(known)) if holds_out else 0
        if held < FEWEST_HELD_OUT:
            return known, known[:0]
        if target == "categorical":
            classes = len(np.unique(y[known]))
            if len(known) - held < classes <= held:
                raise DataError(
                    f"validation_fraction={self.validation_fraction:g} leaves {len(known) - held} rows to "
                    f"learn {classes} classes from: give a smaller one"
                )
            return by_label(known, y[known], held, self.random_state_)
        if held == len(known):
            raise DataError(
                f"validation_fraction={self.validation_fraction:g} leaves no row to learn from: give a "
                "smaller one"
            )
        rows, held_out = train_test_split(known, test_size=held, random_state=self.random_state_)
        # Of zeros alone no rate is told, and of labels that are all alike no label.
        poor = (target == "counts" and not y[rows].any()) or (
            target == "bernoulli" and not vary(y[rows]).all()
        )
        return (known, known[:0]) if poor else (rows, held_out)

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
        hidden = tuple(widths(self.hidden) or ())
        made = head(kind, self.head, hidden=hidden, random_state=self.random_state_)
        if kind == "categorical" and not hasattr(made, "predict_proba"):
            raise PlanError(
                f"{type(made).__name__} gives no probabilities: use LogisticRegression(), say, or put it "
                "into scikit-learn's CalibratedClassifierCV"
            )
        if target == "categorical":
            weighed(made, self.classes_.tolist())
        if takes_unlabeled(made):
            labels = np.full(y.shape, np.nan if several else UNLABELED)
            labels[rows] = y[rows]
            rows, y = np.arange(len(y)), labels
        X, k = _safe_indexing(X, rows), max(1, min(self.n_samples, DRAWN // len(rows)))
        # Draws of an item would be its own nearest neighbors.
        codes = coded(self.encoder_, X)[None] if compares(made) else self._codes(X, k)
        self.head_ = fit_to_draws(Several(made) if several else made, codes, y[rows])

    def _widths(self) -> tuple[int, ...]:
        return tuple(widths(self.hidden) or ()) if self.head == "mlp" else ()

    def _fine_tuned(self, X: Any, y: torch.Tensor, space: Any, held_out: np.ndarray) -> Any:
        """Train a head on a copy of the encoder, and the copy with it."""
        self.encoder_ = copy.deepcopy(self.encoder_)
        ours = isinstance(self.encoder_, Fitting)
        if not ours:
            self.encoder_.float()  # as heads are
        X = self.encoder_._check(X, reset=False) if ours else _dense(X)
        module = self.encoder_.model_ if ours else self.encoder_
        likelihood = tune(
            module,
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
        if ours:  # its decoder and thresholds are of codes as they were
            module.silence()
            self.encoder_._set_offsets(X, None, self.random_state_)
        return likelihood

    def _fit_jointly(self, X: Any, y: torch.Tensor, space: Any, labels: np.ndarray | None) -> Any:
        """Fit a copy of the estimator, to the labels as well."""

        def of_codes(model: Any) -> Any:
            return readout(space, model.latent_dim, hidden=self._widths())

        def of_items(model: Any) -> Any:
            given = self.encoder
            look = features_of(model.space, space.levels, given.network, widths(given.hidden))
            return readout(space, network=nn.Sequential(nn.Unflatten(1, model.space.model_shape), look))

        self.encoder_, likelihood, self._stopped = fit_jointly(
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


def _dense(X: Any) -> np.ndarray:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, np.float32)
