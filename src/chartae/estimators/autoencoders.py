"""Estimators: any recipe behind scikit-learn's contract."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from chartae.core.contracts import Batch
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise, SharedNoise
from chartae.core.registry import suggest
from chartae.core.spaces import infer_space
from chartae.density.bounds import log_likelihood_bound
from chartae.estimators.conditions import ConditionSchema
from chartae.estimators.decoding import CHUNK, Decoding, count, seed_of
from chartae.estimators.progress import show_progress
from chartae.geometry.dimension import intrinsic_dimension
from chartae.models.recipes import build, recipes
from chartae.parts.priors import FittedNormalPrior
from chartae.training.engine import train
from chartae.training.precision import autocast, choose_device, choose_precision, start_threads
from chartae.training.sources import Source

__all__ = ["AE", "CVAE", "VAE", "Autoencoder"]

#: Parameters of every estimator, and their defaults.
COMMON: dict[str, Any] = {
    "latent_dim": "auto",
    "network": "auto",
    "hidden": None,
    "likelihood": "auto",
    "noise": "global",
    "scale": "auto",
    "max_epochs": 100,
    "batch_size": "auto",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "clip": None,
    "validation_fraction": 0.1,
    "patience": 10,
    "contamination": 0.05,
    "device": "auto",
    "precision": "auto",
    "compile": False,
    "random_state": None,
    "verbose": 0,
}

COMMON_TEXT = """
latent_dim : int or "auto"
    d; "auto" takes an estimate of the data's intrinsic dimension, and ``summary_`` says which.
network : str or pair of nn.Module
    "auto" (convolutions for images of 16 pixels or more, layers for the rest), "linear", "mlp", "conv2d", or
    your own encoder and decoder. The encoder maps ``(n, *shape)`` to anything that flattens; the
    decoder maps ``(n, d)`` to ``(n, *shape)``; images come as ``(n, channels, height, width)``.
hidden : sequence of int or None
    Widths of the encoder's layers, mirrored in the decoder; channels, for convolutions.
likelihood : {"auto", "normal", "bernoulli", "categorical"}
    p(x | z); "auto" takes "bernoulli" for data of two values, "normal" otherwise.
noise : {"global", "feature", "item"} or float
    Of a normal likelihood: estimated for all values, for each feature, given by the decoder for each
    value of each item, or a fixed standard deviation in the input's units.
scale : {"auto", "global", "feature", "none"}
    "auto": columns are centered and share one scale; those of data frames have their own.
max_epochs : int
    Passes over the data, at most.
batch_size : int or "auto"
    "auto" is 128, and less for fewer than 1,280 rows.
learning_rate : float
    Of Adam.
schedule : {"constant", "cosine", "linear"}
    Of the learning rate.
clip : float or None
    Largest norm of a step's gradient.
validation_fraction : float
    Share of rows held out (none if that is fewer than 10 rows); ``validation_rows_`` says which.
patience : int or None
    Epochs without improvement on held-out rows before training stops; None: never.
contamination : float
    Share of training rows that :meth:`predict` calls outliers.
device : str
    "auto", "cpu", "cuda" ...
precision : {"auto", "float32", "bf16"}
    "auto" trains in bf16 where that is faster and costs no quality, and encodes in float32.
compile : bool
    Compile the networks; worth it for long runs only.
random_state : int, RandomState or None
    The same seed gives the same result on one machine; None differs each time.
verbose : int
    0 is silent; 1 shows what was inferred, and progress.
"""

ATTRIBUTES_TEXT = """
model_ : nn.Module
    The torch model.
latent_dim_ : int
    d.
history_ : list of dict
    One for each epoch: ``loss`` and its terms in nats, ``val_`` the same on held-out rows, speed.
summary_ : str
    What was inferred from the data.
space_ : Space
    Shape, units and likelihood of the data.
validation_rows_ : ndarray
    ``(m,)`` row numbers that were held out.
n_iter_, n_features_in_, offset_ : int, int, float
    As in scikit-learn.
"""

FEWEST_HELD_OUT = 10  # fewer validation rows than this say nothing about when to stop
SCORED_FOR_OFFSET = 1000  # rows whose scores set the threshold of `predict`


class _Estimator(
    Decoding, ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator
):  # fmt: skip
    """All that the estimators share; a subclass says which recipe, and which of its parameters it shows."""

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's convention
        "latent_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "network": [str, "array-like"],
        "hidden": [None, "array-like"],
        "likelihood": [str],
        "noise": [str, Interval(Real, 0, None, closed="neither")],
        "scale": [StrOptions({"auto", "global", "feature", "none"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [str],
        "clip": [None, Interval(Real, 0, None, closed="neither")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "patience": [None, Interval(Integral, 1, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "device": [str],
        "precision": [StrOptions({"auto", "float32", "bf16"})],
        "compile": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        """Name of the recipe, and values of its own parameters."""
        raise NotImplementedError

    # ---------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any = None) -> _Estimator:
        """Learn a model of data.

        Parameters
        ----------
        X : array_like
            ``(n, features)`` or ``(n, *shape)``: arrays, tensors, data frames of numbers, memory maps.
        y : array_like, dict or None
            The condition, in a conditional recipe (labels, a scalar, vectors, or a dict of
            ``label`` and ``vector``); otherwise it has no effect.

        Returns
        -------
        object
            The fitted estimator itself.

        Raises
        ------
        DataError
            If the data cannot be used.
        PlanError
            If parameters do not fit together.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> VAE(latent_dim=2, max_epochs=1).fit(np.eye(20)).n_iter_
        1
        """
        self._validate_params()
        start_threads()
        name, own = self._recipe()
        chosen = next((r for r in recipes() if r.name == name), None)
        taken = next((p for p in own if p in ("latent_dim", "network", "hidden", "noise", "condition")), None)
        if taken:
            raise PlanError(
                f"recipe_params holds {taken!r}, which is not the recipe's: pass it to the estimator"
            )
        columns = tuple(map(str, X.columns)) if hasattr(X, "columns") else None
        X = self._check(X, reset=True)
        seed = seed_of(self.random_state)
        device = choose_device(self.device)
        self.space_ = infer_space(X, likelihood=self.likelihood, scale=self.scale, columns=columns)
        conditional = chosen is not None and chosen.conditional
        self.condition_ = ConditionSchema.learn(y if conditional else None)
        raw = self.condition_.encode(y, len(X)) if conditional and y is not None else None
        self.latent_dim_, reason = self._choose_latent_dim(X, seed)
        self.blueprint_ = {
            "recipe": name,
            "latent_dim": self.latent_dim_,
            "hidden": None if self.hidden is None else np.asarray(self.hidden).tolist(),
            "noise": self.noise,
            "condition": self.condition_.parameters,
            **own,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            plan = build(**_arguments(self.blueprint_, self.network), shape=self.space_)
        model: Any = plan.model
        self.model_ = model
        self.network_ = plan.facts["network"]
        if raw is not None and raw.vector is not None:
            model.condition.standardize(raw.vector)
        precision = choose_precision(self.precision, model, device)
        if self.compile:
            for part in (model.posterior.plain, model.likelihood):
                part.network.compile()
        self.summary_ = (
            f"{len(X):,} × {self.space_.extra_repr()}; {name} with {self.network_} network, "
            f"latent_dim {self.latent_dim_}{reason}, {str(precision).removeprefix('torch.')} on {device}"
        )
        if self.verbose:
            print(self.summary_, flush=True)

        held_out, kept = self._split(len(X), seed)
        self.validation_rows_ = held_out.numpy()
        source = Source(X, self.space_.to(device), raw, device=device)
        size = self.batch_size
        if size == "auto":
            # Few rows still make ten steps an epoch.
            size = min(128, max(16, len(kept) // 10))
        epochs = train(
            plan,
            source.subset(kept),
            epochs=self.max_epochs,
            validation=source.subset(held_out) if len(held_out) else None,
            batch_size=size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            clip=self.clip,
            patience=self.patience,
            precision=precision,
            seed=seed,
        )
        self.history_: list[dict[str, Any]] = []
        for epoch in show_progress(epochs, self.max_epochs, self.verbose):
            self.history_.append(dict(epoch.log))
        self.n_iter_ = len(self.history_)
        model.eval()
        if model.prior is None:
            codes = torch.cat([self._codes(b) for b in source.subset(kept).batches(4096)])
            model.fitted_prior = FittedNormalPrior(self.latent_dim_).fit(codes.cpu()).to(device)
        self._set_offset(X, raw, seed)
        return self

    def _set_offset(self, X: np.ndarray, raw: Any, seed: int) -> None:
        rows = np.arange(len(X))
        if len(X) > SCORED_FOR_OFFSET:
            rows = np.sort(np.random.default_rng(seed).choice(len(X), SCORED_FOR_OFFSET, replace=False))
        index = torch.from_numpy(rows)
        scores = self._scores(X[rows], None if raw is None else raw.take(index), 16)
        self.offset_ = float(np.percentile(scores, 100.0 * self.contamination))

    def _choose_latent_dim(self, X: np.ndarray, seed: int) -> tuple[int, str]:
        if self.latent_dim != "auto":
            return int(self.latent_dim), ""
        features = int(np.prod(X.shape[1:]))
        try:
            found = intrinsic_dimension(X, random_state=seed % 2**31)
        except DataError:
            d = min(2, features)
            return d, " (too few different rows to estimate a dimension)"
        d = int(np.clip(np.ceil(found.dimension), 1, features))
        low, high = found.interval
        how = "" if found.verdict == "ok" else ", still changing with scale"
        return (
            d,
            f" (the data's dimension reads {found.dimension:.1f}, 95 % within {low:.1f}-{high:.1f}{how})",
        )

    def _split(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 3))
        held = round(self.validation_fraction * n)
        held = held if held >= FEWEST_HELD_OUT else 0
        return order[:held].sort().values, order[held:].sort().values

    def _check(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Validate an array; N-d items keep their shape. Items that are no table need no column names."""
        if isinstance(X, Tensor):
            X = X.detach().cpu()
            X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16
        if named:
            least = 2 if reset else 1
            X = validate_data(self, X, reset=reset, allow_nd=True, dtype="numeric", ensure_min_samples=least)
        else:
            X = check_array(X, allow_nd=True, dtype="numeric")
        if X.dtype.kind not in "fiub":
            raise DataError(f"data of type {X.dtype} are not numbers: convert them")
        if not reset and X.shape[1:] != self.space_.shape:
            raise DataError(
                f"items have shape {X.shape[1:]}, and the model was fitted on {self.space_.shape}"
            )
        levels = None if reset else self.space_.levels
        if levels and not bool(((X >= 0) & (levels > X) & (np.floor(X) == X)).all()):
            raise DataError(
                f"the model knows the categories 0 to {levels - 1}, and the data hold other values"
            )
        return X

    def _ready(self) -> Any:
        check_is_fitted(self, "model_")
        return self.model_

    # ---------------------------------------------------------------- encode

    def transform(self, X: Any, condition: Any = None, *, return_std: bool = False) -> Any:
        """Encode: the posterior mean, deterministic.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``, in the units of the training data.
        condition : object, optional
            One for each row, or a single one for all; None is "no condition".
        return_std : bool
            Give the posterior's standard deviation as well.

        Returns
        -------
        codes : ndarray
            ``(n, d)``.
        std : ndarray
            ``(n, d)``, with ``return_std`` only; zero for a plain autoencoder.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> codes, std = vae.transform(np.eye(20), return_std=True)
        >>> codes.shape, std.shape
        ((20, 2), (20, 2))
        """
        self._ready()
        out = self._encode(self._check(X, reset=False), condition, return_std)
        return out if return_std else out[0]

    def _encode(self, X: np.ndarray, condition: Any, return_std: bool = False) -> tuple[np.ndarray, ...]:
        """Posterior means, and standard deviations if asked for, as arrays whatever ``set_output`` says."""
        out = [np.empty((len(X), self.latent_dim_), dtype=np.float32) for _ in range(1 + return_std)]
        for start, q in self._posteriors(X, condition):
            for array, value in zip(out, (q.point(), q.std()) if return_std else (q.point(),), strict=True):
                array[start : start + len(value)] = value.float().cpu().numpy()
        return tuple(a.astype(np.float64) for a in out) if X.dtype == np.float64 else tuple(out)

    def _posteriors(self, X: np.ndarray, condition: Any, rows: int = 4096) -> Any:
        """q(z | x) of blocks of rows, with the row where each starts."""
        model, dtype = self._model_for(X)
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device, dtype=dtype)
        mixed = torch.bfloat16 if self.precision == "bf16" else torch.float32
        for start in range(0, len(X), rows):
            with torch.inference_mode(), autocast(self._device, mixed):
                batch = source.slice(start, start + rows)
                q = model.posterior(batch.x, model.conditioned(batch.c, len(batch)))
            yield start, q

    def _model_for(self, X: np.ndarray) -> tuple[Any, torch.dtype]:
        """The model in the precision of the input, as scikit-learn's own estimators compute.

        In float32 a row's last digits depend on how many rows are multiplied with it.
        """
        if X.dtype == np.float64 and self.precision != "bf16":
            return copy.deepcopy(self.model_).double(), torch.float64
        return self.model_, torch.float32

    @torch.inference_mode()
    def _codes(self, batch: Batch) -> Tensor:
        return self.model_.posterior(batch.x, self.model_.conditioned(batch.c, len(batch))).point()

    def sample_posterior(
        self, X: Any, n_samples: int = 1, condition: Any = None, *, random_state: Any = None
    ) -> np.ndarray:
        """Draw codes from q(z | x).

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        n_samples : int
            Draws of each row.
        condition : object, optional
            As in :meth:`transform`.
        random_state : int, RandomState or None
            None: different each time.

        Returns
        -------
        ndarray
            ``(n_samples, n, d)``.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.sample_posterior(np.eye(20), n_samples=3).shape
        (3, 20, 2)
        """
        self._ready()
        X = self._check(X, reset=False)
        noise = Noise(seed_of(random_state))
        k = count(n_samples, "n_samples")
        draws = [q.draw(k, noise).z.cpu().numpy() for _, q in self._posteriors(X, condition)]
        return np.concatenate(draws, 1)

    def project(self, X: Any, condition: Any = None) -> np.ndarray:
        """Map onto the learned manifold: P(x) = D(E(x)).

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.

        Returns
        -------
        ndarray
            ``(n, *shape)``, float, in the input's units.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import AE
        >>> AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20)).project(np.eye(20)).shape
        (20, 20)
        """
        self._ready()
        return self.inverse_transform(self._encode(self._check(X, reset=False), condition)[0], condition)

    def interpolate(
        self, start: Any, stop: Any, steps: int = 9, *, path: str = "straight", condition: Any = None
    ) -> np.ndarray:
        """Decode a path between the codes of two items.

        Parameters
        ----------
        start, stop : array_like
            ``(*shape)``, one item each.
        steps : int
            Points on the path, with its ends.
        path : {"straight", "spherical"}
            A line between the codes, or a great circle, which keeps the typical norm of a Gaussian prior.
        condition : object, optional
            A single one.

        Returns
        -------
        ndarray
            ``(steps, *shape)``, in the input's units.

        Raises
        ------
        PlanError
            If the path is unknown or has fewer than two points.

        References
        ----------
        White 2016, arXiv:1609.04468 (spherical interpolation).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.interpolate(np.eye(20)[0], np.eye(20)[1], steps=5).shape
        (5, 20)
        """
        if path not in ("straight", "spherical"):
            raise PlanError(f"path={path!r}: use 'straight' or 'spherical'")
        if count(steps, "steps") < 2:
            raise PlanError(f"steps={steps}: a path has two points or more")
        self._ready()
        items = [np.asarray(start), np.asarray(stop)]
        if items[0].shape != items[1].shape:
            raise DataError(f"a path needs two items of one shape, not {items[0].shape} and {items[1].shape}")
        ends = np.stack(items)
        a, b = self._encode(self._check(ends, reset=False, named=False), condition)[0]
        t = np.linspace(0, 1, steps)[:, None]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        angle = np.arccos(np.clip(a @ b / norms, -1, 1)) if path == "spherical" and norms > 0 else 0.0
        if np.sin(angle) > 1e-6:
            codes = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        else:
            codes = (1 - t) * a + t * b
        return self.inverse_transform(codes.astype(np.float32), condition)

    # ---------------------------------------------------------------- scores

    def score_samples(self, X: Any, condition: Any = None, *, n_importance: int = 16) -> np.ndarray:
        """Lower bound of log p(x) for each row, by importance sampling.

        The noise is one fixed low-discrepancy set shared by all rows, so that a row's score does not
        depend on the rows beside it. A plain autoencoder has no density: it gives the
        score log p(x | z = E(x)).

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.
        n_importance : int
            Importance samples; more make the bound tighter.

        Returns
        -------
        ndarray
            ``(n,)`` nats, in the input's units.

        References
        ----------
        Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.score_samples(np.eye(20), n_importance=64).shape
        (20,)
        """
        self._ready()
        X = self._check(X, reset=False)
        return self._scores(X, self._raw(condition, len(X)), count(n_importance, "n_importance"))

    def _scores(self, X: np.ndarray, raw: Any, k: int) -> np.ndarray:
        width = max(1, int(np.prod(self.space_.model_shape)))
        rows = max(1, CHUNK // (4 * k * width))
        model, dtype = self._model_for(X)
        source = Source(X, model.space, raw, device=self._device, dtype=dtype)
        # A fresh set for each block is the same set: blocks must not differ in their noise.
        parts = [
            log_likelihood_bound(model, batch, k=k, noise=SharedNoise(0)).cpu().numpy()
            for batch in source.batches(rows)
        ]
        return np.concatenate(parts).astype(np.float64)

    def score(self, X: Any, y: Any = None, *, n_importance: int = 16) -> float:
        """Mean of :meth:`score_samples`, for model selection.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        y : object, optional
            The condition, in a conditional recipe.
        n_importance : int
            Importance samples.

        Returns
        -------
        float
            Nats an item.
        """
        self._ready()
        condition = y if self.condition_.parameters is not None else None
        return float(self.score_samples(X, condition, n_importance=n_importance).mean())

    def decision_function(self, X: Any, condition: Any = None) -> np.ndarray:
        """Score above the threshold: negative for outliers.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.

        Returns
        -------
        ndarray
            ``(n,)`` nats.
        """
        return self.score_samples(X, condition) - self.offset_

    def predict(self, X: Any, condition: Any = None) -> np.ndarray:
        """Tell outliers (-1) from inliers (1).

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.

        Returns
        -------
        ndarray
            ``(n,)`` of -1 and 1.
        """
        return np.where(self.decision_function(X, condition) < 0, -1, 1)

    # ---------------------------------------------------------------- keep

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder: ``config.json``, ``model.safetensors``, ``history.jsonl``.

        Parameters
        ----------
        path : str or path-like
            The folder.
        overwrite : bool
            Replace a run folder that is there.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunFolderError
            If it cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np, chartae as ct
        >>> vae = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = ct.load(vae.save(folder + "/run"))
        >>> bool((again.transform(np.eye(20)) == vae.transform(np.eye(20))).all())
        True
        """
        from chartae.estimators.runs import save

        self._ready()
        return save(self, path, overwrite=overwrite)

    def export_decoder(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the generator alone: what :func:`chartae.load_decoder` samples from without the encoder.

        Parameters
        ----------
        path : str or path-like
            The folder.
        overwrite : bool
            Replace a run folder that is there.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        from chartae.estimators.runs import save

        self._ready()
        return save(self, path, overwrite=overwrite, decoder_only=True)

    @property
    def _n_features_out(self) -> int:
        return self.latent_dim_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _constructor(own: dict[str, Any]) -> Callable[..., None]:
    """An ``__init__`` that only stores: its own parameters, then the common ones, by keyword.

    Written once for all estimators; scikit-learn reads the parameters off the signature.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, kind, default=value) for name, value in {**own, **COMMON}.items()]
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([me, *parameters])

    def __init__(self: Any, **given: Any) -> None:
        unknown = next((name for name in given if name not in signature.parameters), None)
        if unknown:
            known = suggest(unknown, {**own, **COMMON})
            raise TypeError(f"{type(self).__name__} has no parameter {unknown!r}: {known}")
        for name, value in {**own, **COMMON, **given}.items():
            setattr(self, name, value)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _of_recipe(name: str) -> Callable[[type], type]:
    """Make an estimator of a recipe: the recipe's own parameters become the estimator's."""
    chosen = next(r for r in recipes() if r.name == name)

    def finish(cls: type) -> type:
        cls.__init__ = _constructor(chosen.parameters)  # type: ignore[misc]
        cls._recipe = lambda self: (name, {k: getattr(self, k) for k in chosen.parameters})  # type: ignore[attr-defined]
        return _documented(cls)

    return finish


def _documented(cls: type) -> type:
    """Fill the shared parts into a class docstring."""
    text = inspect.cleandoc(cls.__doc__ or "")
    cls.__doc__ = text.replace("{common}", COMMON_TEXT.strip()).replace(
        "{attributes}", ATTRIBUTES_TEXT.strip()
    )
    return cls


@_of_recipe("ae")
class AE(_Estimator):
    """Plain autoencoder: a chart of the data, without a density.

    Parameters
    ----------
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import AE
    >>> t = np.linspace(0, 6, 200)
    >>> X = np.column_stack([np.cos(t), np.sin(t), t])
    >>> AE(latent_dim=2, max_epochs=2, random_state=0).fit(X).transform(X).shape
    (200, 2)
    """


@_of_recipe("vae")
class VAE(_Estimator):
    """Variational autoencoder.

    Parameters
    ----------
    free_bits : float
        Nats of each latent dimension that cost nothing.
    warmup : float
        Epochs over which the weight of the KL term rises from 0 to 1.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> vae = VAE(latent_dim=2, max_epochs=2, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(4, random_state=0).shape
    ((200, 2), (4, 3))
    """


@_of_recipe("cvae")
class CVAE(_Estimator):
    """Conditional VAE: ``fit(X, y)``, then ``sample(condition=...)``.

    Parameters
    ----------
    conditional_prior : bool
        Learn p(z | c) instead of N(0, I).
    free_bits : float
        Nats of each latent dimension that cost nothing.
    warmup : float
        Epochs over which the weight of the KL term rises from 0 to 1.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Sohn, Lee and Yan 2015, "Learning structured output representation using deep conditional generative
    models".

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import CVAE
    >>> X = np.repeat([[0.0, 1.0], [5.0, 6.0]], 50, axis=0)
    >>> cvae = CVAE(latent_dim=1, max_epochs=2, random_state=0).fit(X, np.repeat(["low", "high"], 50))
    >>> cvae.sample(3, condition="high", random_state=0).shape
    (3, 2)
    """


@_documented
class Autoencoder(_Estimator):
    """Any recipe by its name (:func:`chartae.recipes` lists them).

    Parameters
    ----------
    recipe : str
        The recipe.
    recipe_params : dict or None
        The recipe's own parameters.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> Autoencoder(recipe="beta-vae", recipe_params={"beta": 2.0}, latent_dim=2, max_epochs=2).fit(X).n_iter_
    2
    """

    __init__ = _constructor({"recipe": "vae", "recipe_params": None})

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        return self.recipe, dict(self.recipe_params or {})


def _arguments(blueprint: dict[str, Any], network: Any) -> dict[str, Any]:
    """Arguments of :func:`~chartae.models.recipes.build` from the blueprint of a run."""
    rest = {k: v for k, v in blueprint.items() if k != "recipe"}
    return {"name": blueprint["recipe"], "network": network, **rest}
