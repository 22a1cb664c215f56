"""Estimators: any recipe behind scikit-learn's contract."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, OutlierMixin, TransformerMixin
from sklearn.impute import KNNImputer
from sklearn.utils.validation import assert_all_finite, check_array, check_is_fitted, validate_data
from torch import Tensor

from chartae.core.arrays import AllBut, as_tensor, blocks, ends, is_streamed
from chartae.core.columns import Schema, is_frame, is_streamed_table
from chartae.core.contracts import Batch
from chartae.core.errors import DataError, PlanError, TrainingError
from chartae.core.noise import Noise, SharedNoise
from chartae.density.bounds import log_likelihood_bound
from chartae.density.completion import complete
from chartae.estimators.conditions import ConditionSchema
from chartae.estimators.decoding import Decoding, count, seed_of
from chartae.estimators.keeping import Keeping
from chartae.estimators.parameters import CONSTRAINTS, constructor, documented, of_recipe, plain
from chartae.estimators.progress import show_progress
from chartae.geometry.dimension import intrinsic_dimension
from chartae.models.recipes import build_from, find
from chartae.parts.likelihoods import likelihoods
from chartae.parts.priors import FittedNormalPrior
from chartae.parts.tables import Inputs
from chartae.parts.units import infer_space
from chartae.training.engine import finish, train
from chartae.training.interrupts import interruptible
from chartae.training.precision import autocast, choose_device, choose_precision, start_threads
from chartae.training.readers import Dataset, array_of, read, refuse_bad_values
from chartae.training.sources import Source

__all__ = ["AE", "CVAE", "VAE", "Autoencoder"]

MEASURED, FEWEST_MEASURED = 2000, 200  # rows from which the intrinsic dimension is estimated ...
MEASURED_VALUES = 1 << 26  # ... and values, of which there are several copies
HELD_OUT = 16384  # rows of a stream, at most: they stay in memory
FEWEST_HELD_OUT = 10  # fewer validation rows than this say nothing about when to stop
ENCODED = 2048  # rows encoded in one go, at most: activations of fully connected layers stay in the cache
SCORED_FOR_OFFSET = 1000  # rows whose scores set the threshold of `predict`


class _Estimator(
    Decoding, ClassNamePrefixFeaturesOutMixin, TransformerMixin, OutlierMixin, BaseEstimator
):  # fmt: skip
    """All that the estimators share; a subclass says which recipe, and which of its parameters it shows."""

    _parameter_constraints = CONSTRAINTS

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        """Name of the recipe, and values of its own parameters."""
        raise NotImplementedError

    # ---------------------------------------------------------------- fit

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        run: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> _Estimator:
        """Learn a model of data.

        Ctrl-C stops after the batch: the estimator is then fitted with what was learned so far, and
        KeyboardInterrupt is raised. With a run folder SIGTERM does the same, and what is stopped, even by
        the loss of power, goes on with ``resume=True`` as if it had never stopped, on the same machine to
        the last bit.

        Parameters
        ----------
        X : array_like
            ``(n, features)`` or ``(n, *shape)``: arrays, tensors, memory maps, tables of pandas or polars,
            data sets of torch; what :func:`chartae.stream` reads in blocks; or what :func:`chartae.read`
            gives, which brings its labels and knows how it was made.
        y : array_like, dict or None
            The condition, in a conditional recipe (labels, a scalar, vectors, or a dict of
            ``label`` and ``vector``); otherwise it has no effect.
        run : str, path-like or None
            The run folder, written while training goes on.
        resume : bool
            Go on with the unfinished run that the folder holds, with the same data and parameters; where it
            holds none, begin.
        overwrite : bool
            Replace a run that the folder holds.

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
        RunFolderError
            If the folder cannot be written, or holds another run.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> VAE(latent_dim=2, max_epochs=1).fit(np.eye(20)).n_iter_
        1
        """
        before = dict(self.__dict__)
        with Keeping(run, resume=resume, overwrite=overwrite) as keeping:
            try:
                self._fit(X, y, keeping)
            except BaseException:
                # What is left of a broken fit would be half of this one and half of the last.
                self.__dict__.clear()
                self.__dict__.update(before)
                raise
            keeping.end(self)
        keeping.wish.leave(
            f"training was stopped after {self.n_iter_} epochs, with which the model is fitted"
        )
        return self

    def _fit(self, X: Any, y: Any, keeping: Keeping) -> None:
        self._validate_params()
        start_threads()
        name, own = self._recipe()
        X = read(X) if _brings_items(X) else X
        self.medium_ = X.medium if isinstance(X, Dataset) else None
        X, y = (X.X, X.y if y is None else y) if isinstance(X, Dataset) else (X, y)
        X = self._check(X, reset=True)
        schema = self.schema_
        seed, device = keeping.begun.get("seed", seed_of(self.random_state)), choose_device(self.device)
        held_out, kept = self._split(X, seed)
        self.validation_rows_ = held_out
        self.space_ = infer_space(
            X,
            likelihood=self.likelihood,
            scale=self.scale,
            layout=self.layout,
            columns=None if schema is None else tuple(schema.names),
            rows=kept if len(held_out) else None,
            schema=schema,
            gaps=self.gaps_,
        )
        y = y if find(name).conditional else None
        self.condition_ = ConditionSchema.learn(y)
        raw = self.condition_.encode(y, len(X))
        self.latent_dim_, reason = self._choose_latent_dim(X, seed)
        shared = {
            "latent_dim": self.latent_dim_,
            "hidden": None if self.hidden is None else np.asarray(self.hidden).tolist(),
            "noise": self.noise,
            "condition": self.condition_.parameters,
            "conditioning": self.conditioning,
        }
        taken = next((p for p in own if p in {*shared, "network"}), None)
        if taken:
            raise PlanError(
                f"recipe_params holds {taken!r}, which is not the recipe's: pass it to the estimator"
            )
        self.blueprint_ = plain({"recipe": name, "parameters": own, **shared})
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            plan = build_from(self.blueprint_, self.space_, self.network)
        model: Any = plan.model
        self.model_, self.network_ = model, plan.facts["network"]
        if raw is not None and raw.vector is not None:
            model.condition.standardize(raw.vector[kept[:]])
        named = keeping.begun.get("precision")
        precision = getattr(torch, named) if named else choose_precision(self.precision, model, device)
        missing = ", without a condition (no y)" if find(name).conditional and raw is None else ""
        self.summary_ = (
            f"{len(X):,} × {self.space_.extra_repr()}{self.condition_.describe()}{missing}; {name} with "
            f"{self.network_} network, latent_dim {self.latent_dim_}{reason}, "
            f"{str(precision).removeprefix('torch.')} on {device}"
        )
        if self.verbose:
            # Plain numbers need no list of their kinds.
            mixed = self.space_.likelihood == "columns" or self.gaps_
            listed = f"{schema}\n" if schema is not None and mixed else ""
            print(listed + self.summary_, flush=True)
        # What cannot be scored in the end had better fail before hours of training.
        model.eval()
        self._scores(X[:2], None if raw is None else raw.take(slice(0, 2)), 1)
        source = Source(X, self.space_.to(device), raw, device=device)
        training = source.subset(kept)
        self.offset_: float | None = None
        self.null_offset_: float | None = None
        self._passed(keeping.history)
        keeping.max_time = self.max_time or math.inf
        keeping.begin(self, seed=seed, precision=str(precision).removeprefix("torch."))
        epochs = train(
            plan,
            training,
            epochs=self.max_epochs,
            validation=source.subset(held_out) if len(held_out) else None,
            # Few rows still make ten steps an epoch.
            batch_size=min(128, max(16, len(kept) // 10)) if self.batch_size == "auto" else self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            clip=self.clip,
            patience=self.patience,
            precision=precision,
            compile=self.compile,
            seed=seed,
            state=keeping.begun["state"],
            pause=keeping.due,
        )
        with interruptible(terminate=keeping.run is not None) as keeping.wish, closing(epochs):
            for epoch in show_progress(epochs, self.max_epochs, self.verbose):
                if epoch.complete:
                    self._passed([*self.history_, dict(epoch.log)])
                if keeping.due():
                    keeping.keep(self, epoch.checkpoint())
                if keeping.asked():
                    keeping.stopped = True
                    break
        # At its end the loop has restored the best epoch's weights, where there was one to judge by.
        if keeping.stopped:
            finish(plan, training, keeping.begun["state"], seed=seed)
        if model.prior is None:
            size = min(ENCODED, self._rows_at_once())
            # Codes of a stream may be too many for its memory, of which a fit to all of them takes a third.
            each = 1 + 64 * self.latent_dim_ * len(kept) // X.memory if is_streamed(X) else 1
            codes = torch.cat([self._codes(b)[::each] for b in training.batches(size)])
            model.fitted_prior = FittedNormalPrior(self.latent_dim_).fit(codes.cpu()).to(device)
        self._set_offsets(X, raw, seed)

    def _passed(self, history: list[dict[str, Any]]) -> None:
        """Note the epochs that have passed."""
        self.history_, self.n_iter_ = history, len(history)
        self.best_epoch_ = max((h["epoch"] for h in history if h["best"]), default=self.n_iter_)

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and tell outliers from inliers among the same rows.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        y : array_like, dict or None
            As in :meth:`fit`.

        Returns
        -------
        ndarray
            ``(n,)`` of -1 and 1.
        """
        self.fit(X, y)
        return self.predict(X, None if self.condition_.parameters is None else y)

    def _set_offsets(self, X: Any, raw: Any, seed: int) -> None:
        """Set the thresholds of :meth:`predict`: with the rows' conditions, and without."""
        most = min(SCORED_FOR_OFFSET, X.rows_to_hold if is_streamed(X) else len(X))
        rows = np.arange(min(len(X), most))
        if len(X) > most:
            rows = np.sort(np.random.default_rng(seed).choice(len(X), most, replace=False))
        X = X[rows]

        def threshold(raw: Any) -> float:
            scores = self._scores(X, raw, 16)
            finite = np.isfinite(scores)
            if not finite.any():
                raise TrainingError("no row has a finite score: scale the data, or lower learning_rate")
            if not finite.all():  # a warning: the fit is done, and may be of use all the same
                warnings.warn(f"row {rows[~finite][0]} (from 0) has no finite score", stacklevel=5)
            return float(np.percentile(scores[finite], 100.0 * self.contamination))

        self.offset_ = threshold(None if raw is None else raw.take(torch.from_numpy(rows)))
        self.null_offset_ = self.offset_ if raw is None else threshold(None)

    def _choose_latent_dim(self, X: Any, seed: int) -> tuple[int, str]:
        if self.latent_dim != "auto":
            return int(self.latent_dim), ""
        features = int(np.prod(X.shape[1:]))
        measured = max(FEWEST_MEASURED, min(MEASURED, MEASURED_VALUES // features))
        measured = min(measured, X.rows_to_hold) if is_streamed(X) else measured
        if len(X) > measured:
            rows = np.random.default_rng(seed).choice(len(X), measured, replace=False)
            X = X[np.sort(rows)]
        try:
            # In the model's units: in the user's, the column with the largest numbers would decide alone.
            units = self.space_.to_model(as_tensor(X[:]), torch.float64)
            if bool(units.isnan().any()):
                # Zeros and flags in place of gaps would count as dimensions of the data.
                filled = KNNImputer(keep_empty_features=True).fit_transform(units.flatten(1).numpy())
                units = torch.from_numpy(filled).reshape(units.shape)
            found = intrinsic_dimension(Inputs(self.space_)(units).numpy())
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

    def _split(self, X: Any, seed: int) -> tuple[np.ndarray, Any]:
        n = len(X)
        held = round(self.validation_fraction * n)
        held = min(held, n - 1) if held >= FEWEST_HELD_OUT else 0
        if is_streamed(X):
            # Few enough to stay in memory, and without a permutation, which would take more than they do.
            held = min(held, HELD_OUT, X.rows_to_hold)
            rows = np.sort(np.random.default_rng(seed + 3).choice(n, held, replace=False))
            return rows, AllBut(n, rows)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 3), device="cpu")
        return order[:held].sort().values.numpy(), order[held:].sort().values.numpy()

    def _check(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Validate an array; N-d items keep their shape. Items that are no table need no column names."""
        X = read(X).X if _brings_items(X) else X
        if is_frame(X) or is_streamed_table(X):
            return self._check_table(X, reset=reset, named=named)
        X = array_of(X) if isinstance(X, Tensor) else X
        if reset:
            self.schema_: Schema | None = None
            self.gaps_ = self.missing == "mask"
            if self.columns:
                raise PlanError(
                    "columns= says what columns of a table hold, and the data are none: leave it out"
                )
        elif self.space_.schema is not None and self.space_.schema.wordy is not None:
            raise DataError("the model was fitted on a table: pass a DataFrame with its columns")
        gaps = self.gaps_ if reset else self.space_.gaps
        # One pass, for the ends, is enough to see what is not finite and what the likelihood does not know.
        wanted: dict[str, Any] = {
            "allow_nd": True,
            "dtype": "numeric",
            "ensure_min_samples": 1 + reset,
            "ensure_all_finite": False,
        }
        given = X
        try:
            # A stream's first rows stand for all of them where types and shapes are looked at.
            seen = X[:2] if is_streamed(X) else X
            seen = validate_data(self, seen, reset=reset, **wanted) if named else check_array(seen, **wanted)
            X = X if is_streamed(X) else seen
            if X.dtype.kind not in "fiub":
                raise DataError(f"data of type {X.dtype} are not numbers: convert them")
            low, high = ends(X) if X.size else (0.0, 0.0)
            if not (np.isfinite(low) and np.isfinite(high)):
                with np.errstate(invalid="ignore"):  # of infinity - infinity
                    for block in blocks(X):
                        # As float64, which has no number for some longer ones.
                        short = block.astype(np.float64) if X.dtype.itemsize > 8 else block
                        assert_all_finite(short, allow_nan=gaps, input_name="X")
        except (ValueError, TypeError) as error:
            refuse_bad_values(given)  # says where they are
            first, *more = str(error).splitlines()
            if more:  # the array itself
                raise DataError(
                    f"{first.rstrip(':')}: pass real numbers, (n, features) or (n, ...)"
                ) from None
            raise
        if not reset and X.shape[1:] != self.space_.shape:
            raise DataError(
                f"items have shape {X.shape[1:]}, and the model was fitted on {self.space_.shape}"
            )
        if not reset:
            self.space_.check(X, None if np.isnan(low) else (low, high))
        return X

    def _check_table(self, X: Any, *, reset: bool, named: bool = True) -> np.ndarray:
        """Turn a table into numbers, NaN where a value is missing."""
        streamed = is_streamed_table(X)
        if named:
            validate_data(self, next(iter(X.frames())) if streamed else X, reset=reset, skip_check_array=True)
        if reset:
            learned = self.schema_ = Schema.learn(X, self.columns, likelihoods)
            if len(X) < 2:
                raise DataError("the table has 1 row, and a model needs two or more: give more")
            for column in learned.columns:
                if column.constant:
                    warnings.warn(
                        f"column {column.name!r} is constant and tells nothing: drop it", stacklevel=4
                    )
        schema = self.schema_ if reset else self.space_.schema
        if schema is None and streamed:
            raise DataError("the model was fitted on arrays, not on a table: save the columns as .npy")
        if schema is None:
            return self._check(np.asarray(X), reset=False, named=False)
        array = schema.encode(X)
        missing = bool(np.isnan(ends(array)[0])) if len(array) else False
        if reset:
            self.gaps_ = self.missing == "mask" or (self.missing == "auto" and missing)
        if missing and not (self.gaps_ if reset else self.space_.gaps):
            row = 0
            for block in blocks(array):
                for at, place in np.argwhere(np.isnan(block))[:1]:
                    raise DataError(
                        f"column {schema.names[place]!r} of the table has no value in row {row + at} (from "
                        "0): fill the gaps, or fit with missing='mask'"
                    )
                row += len(block)
        if not reset:
            self.space_.check(array)
        return array

    def _ready(self) -> Any:
        check_is_fitted(self, "model_")
        return self.model_

    # ---------------------------------------------------------------- encode

    def transform(self, X: Any, condition: Any = None, *, return_std: bool = False) -> Any:
        """Encode: the posterior mean, deterministic.

        ``fit_transform(X, y)`` encodes without a condition, as a pipeline's ``transform`` does.

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
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        out = [np.empty((len(X), self.latent_dim_), dtype) for _ in range(1 + return_std)]

        def keep(rows: slice, q: Any) -> None:
            out[0][rows] = q.point().cpu().numpy()
            if return_std:
                out[1][rows] = q.std().cpu().numpy()

        self._each_posterior(X, condition, keep)
        lost = ~np.isfinite(out[0]).all(1)
        if lost.any():
            raise DataError(
                f"row {lost.argmax()} (from 0) is so far from the training data that it has no finite code: "
                "give it in the units of the training data"
            )
        return tuple(out)

    def _each_posterior(self, X: np.ndarray, condition: Any, use: Callable[[slice, Any], None]) -> None:
        """Call ``use(rows, q(z | x))`` for one block of rows after the other."""
        model, dtype = self._model_for(X)
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device, dtype=dtype)
        mixed = torch.bfloat16 if self.precision == "bf16" else torch.float32
        # Autocast keeps its copies of the weights for as long as it is entered, and not in inference mode.
        with torch.no_grad(), autocast(self._device, mixed):
            size = min(ENCODED, self._rows_at_once())
            for start in range(0, len(X), size):
                batch = source.slice(start, start + size)
                q = model.posterior(batch.x, model.conditioned(batch.c, len(batch)))
                use(slice(start, start + len(batch)), q)

    def _model_for(self, X: np.ndarray) -> tuple[Any, torch.dtype]:
        """The model in the precision of the input, as scikit-learn's own estimators compute.

        In float32 a row's last digits depend on how many rows are multiplied with it.
        """
        # Modules of the user's may know one precision only, the one that they were trained in.
        if X.dtype == np.float64 and self.precision != "bf16" and self.network_ != "yours":
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
        draws: list[np.ndarray] = []
        self._each_posterior(X, condition, lambda _, q: draws.append(q.draw(k, noise).z.cpu().numpy()))
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

    def reconstruct(
        self,
        X: Any,
        condition: Any = None,
        *,
        n_draws: int | None = None,
        n_importance: int = 64,
        random_state: Any = None,
    ) -> Any:
        """Complete items whose values are missing; the values that are there stay as they are.

        Codes are drawn from q(z | observed values) and weighted by their importance, so that what is filled
        in follows p(missing | observed): its mean, or the likeliest category, or draws. Where no item has a
        gap, and no draws are asked for, all come back as :meth:`project` gives them.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``; NaN or None where a value is missing.
        condition : object, optional
            As in :meth:`transform`.
        n_draws : int or None
            How many completions to draw; None: one, of expected values.
        n_importance : int
            Codes drawn for each row.
        random_state : int, RandomState or None
            None: different each time, with ``n_draws``.

        Returns
        -------
        ndarray or DataFrame
            ``(n, *shape)``; with ``n_draws`` ``(n_draws, n, *shape)``, or a list of tables.

        References
        ----------
        Mattei and Frellsen 2019, arXiv:1812.02633, equations 11 and 12.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> X = np.random.default_rng(0).normal(size=(100, 3)) + [0.0, 5.0, 9.0]
        >>> X[::7, 1] = np.nan
        >>> vae = VAE(latent_dim=1, missing="mask", max_epochs=1, random_state=0).fit(X)
        >>> bool(np.isfinite(vae.reconstruct(X)).all()), vae.reconstruct(X, n_draws=5).shape
        (True, (5, 100, 3))
        """
        model: Any = self._ready()
        X = self._check(X, reset=False)
        if not (X.size and np.isnan(ends(X)[0])) and n_draws is None:
            return self.inverse_transform(self._encode(X, condition)[0], condition)
        k, draws = count(n_importance, "n_importance"), None if n_draws is None else count(n_draws, "n_draws")
        noise = SharedNoise(0) if draws is None else Noise(seed_of(random_state))
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device)
        made = [
            complete(model, model.space, batch, k=k, noise=noise, draws=draws).cpu().numpy()
            for batch in source.batches(self._rows_at_once(k))
        ]
        filled, start = np.concatenate(made, 1), 0
        for block in blocks(X):
            there = ~np.isnan(block)
            filled[:, start : start + len(block)][:, there] = block[there]
            start += len(block)
        if draws is None:
            return self._present(filled[0])
        return filled if model.space.schema is None else [self._present(one) for one in filled]

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
        items = [array_of(start), array_of(stop)]
        if items[0].shape != items[1].shape:
            raise DataError(f"a path needs two items of one shape, not {items[0].shape} and {items[1].shape}")
        both: Any = np.stack(items)
        if self.space_.schema is not None:
            import pandas as pd

            both = pd.DataFrame(items, columns=self.space_.schema.names)
        both = self._check(both, reset=False, named=False)
        a, b = self._encode(both, condition)[0]
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
        score log p(x | z = E(x)), which says how well a row is reconstructed and cannot be compared with the
        densities of other models.

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
        rows = self._rows_at_once(k)
        model, dtype = self._model_for(X)
        source = Source(X, model.space, raw, device=self._device, dtype=dtype)
        # A fresh set for each block is the same set: blocks must not differ in their noise.
        parts = [
            log_likelihood_bound(model, batch, k=k, noise=SharedNoise(0)).cpu().numpy()
            for batch in source.batches(rows)
        ]
        return np.concatenate(parts).astype(np.float64)

    def score(self, X: Any, y: Any = None, *, n_importance: int = 16) -> float:
        """Mean of :meth:`score_samples`, for model selection among models that have a density.

        A plain autoencoder's score grows with every further latent dimension: choose its size by another
        criterion.

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

        Raises
        ------
        PlanError
            If the model is of a fit that was cut off.
        """
        self._ready()
        offset = self.null_offset_ if condition is None else self.offset_
        if offset is None:
            raise PlanError(
                "this fit was cut off before it had thresholds: finish it with fit(run=..., resume=True)"
            )
        return self.score_samples(X, condition) - offset

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
        return np.where(self.decision_function(X, condition) >= 0, 1, -1)  # without a score: an outlier

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


def _brings_items(X: Any) -> bool:
    """Tell a data set or a loader of torch, whose items are to be read first."""
    return isinstance(X, torch.utils.data.Dataset | torch.utils.data.DataLoader)


@of_recipe("ae")
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


@of_recipe("vae")
class VAE(_Estimator):
    """Variational autoencoder.

    Parameters
    ----------
    covariance : {"diagonal", "full"}
        Of q(z | x): "full" also says how the dimensions of a code go together, in d² / 2 more numbers.
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


@of_recipe("cvae")
class CVAE(_Estimator):
    """Conditional VAE: ``fit(X, y)``, then ``sample(condition=...)``.

    Parameters
    ----------
    conditional_prior : bool
        Learn p(z | c) instead of N(0, I).
    covariance : {"diagonal", "full"}
        Of q(z | x): "full" also says how the dimensions of a code go together, in d² / 2 more numbers.
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


@documented
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

    __init__ = constructor({"recipe": "vae", "recipe_params": None})

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        return self.recipe, dict(self.recipe_params or {})
