"""Fitting: from data and parameters to a trained model, with or without a run folder."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.impute import KNNImputer
from torch import Tensor

from chartae.core.arrays import as_tensor, checksum, is_streamed
from chartae.core.columns import Schema
from chartae.core.contracts import Plan, RawCondition
from chartae.core.errors import DataError, PlanError, TrainingError
from chartae.core.interrupts import interruptible
from chartae.core.noise import Noise
from chartae.density.fitted import fit_density
from chartae.estimators.checking import brings_items
from chartae.estimators.conditions import ConditionSchema
from chartae.estimators.decoding import begun_from, seed_of
from chartae.estimators.densities import Densities
from chartae.estimators.encoding import ENCODED
from chartae.estimators.geometry import Geometry
from chartae.estimators.keeping import Keeping
from chartae.estimators.parameters import CONSTRAINTS, kept_as_json, widths
from chartae.estimators.progress import show_progress
from chartae.estimators.suspicions import warn_of_constant, warn_of_outliers, warn_of_row_names
from chartae.estimators.whole import undone
from chartae.geometry.dimension import intrinsic_dimension
from chartae.models.recipes import build_from, find
from chartae.parts.tables import Inputs
from chartae.parts.units import infer_space
from chartae.training.averages import FEWEST
from chartae.training.engine import finish, train
from chartae.training.evaluation import settle
from chartae.training.precision import choose_device, choose_precision, start_threads
from chartae.training.readers import Dataset, read
from chartae.training.sources import Source
from chartae.training.splits import split

__all__ = ["Fitting"]

MEASURED, FEWEST_MEASURED = 2000, 200  # rows from which the intrinsic dimension is estimated ...
MEASURED_VALUES = 1 << 26  # ... and values, of which there are several copies
KEPT = 10_000  # training rows whose codes are kept, at most
JUDGED, ROWS_JUDGED = 10, 256  # epochs from which it is told that codes say little, and by how many rows
SCORED_FOR_OFFSET = 1000  # rows whose scores set the threshold of `predict`


def _told(X: Any, y: Any) -> Any:
    """Labels as they were passed, or those that come with the items."""
    if y is None and isinstance(X, Dataset):
        X, y = X.X, X.y
    return X.labels if y is None and is_streamed(X) else y


class _Task(NamedTuple):
    """What is to be trained, and on what."""

    plan: Plan
    X: Any
    raw: RawCondition | None
    training: Source
    drawn: Source  # what batches are made of: the training rows, some more than once where they weigh more
    held_out: Source | None
    seed: int
    precision: torch.dtype


class Fitting(Densities, Geometry):
    """All that the estimators share; a subclass says which recipe, and which of its parameters it shows.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.estimators.fitting import Fitting
    >>> issubclass(VAE, Fitting)
    True
    """

    _parameter_constraints = CONSTRAINTS

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        """Name of the recipe, and values of its own parameters."""
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        run: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Fitting:
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
            The condition, in a conditional recipe (labels, a scalar, vectors, sequences of vectors, or a dict
            of ``label``, ``vector`` and ``sequence`` or ``set``); otherwise it has no effect.
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
        return self._fit(X, y, run=run, resume=resume, overwrite=overwrite)

    def _fit(
        self,
        X: Any,
        y: Any = None,
        *,
        run: str | os.PathLike[str] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        joined: Callable[[_Task], _Task] | None = None,
    ) -> Fitting:
        """Fit; ``joined`` may add to what is trained before it begins."""
        before = dict(self.__dict__)
        with Keeping(run, resume=resume, overwrite=overwrite) as keeping:
            with undone(self, before):
                task = self._prepare(X, y, keeping)
                if joined is not None:
                    task = joined(task)
                    held = task.held_out
                    self.validation_rows_ = np.arange(0) if held is None else held.rows.numpy()
            # Up to the last file: a wish to stop is no reason to lose what was learned.
            with interruptible(terminate=keeping.run is not None) as keeping.wish:
                with undone(self, before):
                    self._train(task, keeping)
                keeping.end(self)
        what = "was stopped" if keeping.stopped else "came to its end"
        keeping.wish.leave(f"training {what} after {self.n_iter_} epochs, with which the model is fitted")
        return self

    def _prepare(self, X: Any, y: Any, keeping: Keeping) -> _Task:
        """Look at the data, and build what they are to train."""
        self._validate_params()
        start_threads()
        name, _ = self._recipe()
        X = read(X) if brings_items(X) else X
        self.medium_ = X.medium if isinstance(X, Dataset) else None
        suited = getattr(self.medium_, "likelihood", "auto")
        conditional = find(name).conditional
        y = _told(X, y) if conditional else None
        X = X.X if isinstance(X, Dataset) else X
        X = self._check(X, reset=True)
        schema = self.schema_
        self.random_state_ = keeping.begun.get("random_state", begun_from(self.random_state))
        seed, device = seed_of(self.random_state_), choose_device(self.device)
        kept, held_out = split(X, self.validation_fraction, seed)
        self.validation_rows_ = held_out
        self.space_ = infer_space(
            X,
            likelihood=self.likelihood if self.likelihood != "auto" else suited,
            scale=self.scale,
            layout=self.layout,
            columns=None if schema is None else tuple(schema.names),
            rows=kept if len(held_out) else None,
            schema=schema,
            gaps=self.gaps_,
        )
        self.condition_ = ConditionSchema.learn(y)
        raw = self.condition_.encode(y, len(X), single=False)
        self.latent_dim_, reason = self._choose_latent_dim(X, seed)
        plan = self._planned(seed)
        model: Any = plan.model
        self.model_, self.network_ = model, plan.facts["network"]
        if raw is not None:
            model.condition.standardize(raw.take(kept[:]))
        named = keeping.begun.get("precision")
        precision = getattr(torch, named) if named else choose_precision(self.precision, model, device)
        missing = ", without a condition (no y)" if conditional and raw is None else ""
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
        self._suspect(X, schema)
        source = Source(X, self.space_.to(device), raw, device=device)
        held = source.subset(held_out) if len(held_out) else None
        training = source.subset(kept)
        return _Task(plan, X, raw, training, training, held, seed, precision)

    def _suspect(self, X: Any, schema: Schema | None) -> None:
        """Warn of what training would not tell."""
        texts = self.model_.likelihood.sequential
        rows = "row" if texts else None  # tokens at one place are no column
        warn_of_constant(X, schema, getattr(self.medium_, "noun", rows))
        if texts:
            return
        if schema is not None:
            warn_of_row_names(schema)
        if schema is not None or (self.space_.likelihood == "normal" and self.scale != "none"):
            warn_of_outliers(X, schema, shared=self.scale != "feature")

    def _planned(self, seed: int) -> Plan:
        """Write down what is to be trained, for the run folder as well, and make it."""
        name, own = self._recipe()
        shared = {
            "latent_dim": self.latent_dim_,
            "hidden": widths(self.hidden),
            "noise": self.noise,
            "condition": self.condition_.parameters,
            "conditioning": self.conditioning,
            "hide": self.hide,
            "corruption": self.corruption,
            "asleep": self.asleep,
        }
        taken = next((p for p in own if p in {*shared, "network"}), None)
        if taken:
            where = "pass y to fit" if taken == "condition" else "pass it to the estimator"
            raise PlanError(f"recipe_params holds {taken!r}, which is not the recipe's: {where}")
        self.blueprint_ = kept_as_json({"recipe": name, "parameters": own, **shared})
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return build_from(self.blueprint_, self.space_, self.network)

    def _train(self, task: _Task, keeping: Keeping) -> None:
        """Train, and learn of the trained model what is kept beside its weights."""
        plan, X, raw, training, drawn, held, seed, precision = task
        model: Any = plan.model
        self.offset_ = self.null_offset_ = self.codes_ = None
        self.history_ = keeping.history
        self._count()
        keeping.max_time = self.max_time or math.inf
        named = str(precision).removeprefix("torch.")
        memory = X.memory if is_streamed(X) else None
        keeping.begin(
            self,
            random_state=self.random_state_,
            precision=named,
            memory=memory,
            data=lambda: checksum(X, *(raw or ())),
        )
        epochs = train(
            plan,
            drawn,
            epochs=self.max_epochs,
            validation=held,
            # Few rows still make ten steps an epoch.
            batch_size=min(128, max(16, len(training) // 10))
            if self.batch_size == "auto"
            else self.batch_size,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            clip=self.clip,
            averaging=FEWEST if self.averaging else None,
            patience=self.patience,
            precision=precision,
            compile=self.compile,
            seed=seed,
            state=keeping.begun["state"],
            pause=keeping.due,
        )
        with closing(epochs), keeping.naming():
            for epoch in show_progress(epochs, self.max_epochs, self.verbose):
                if epoch.complete:
                    self.history_.append(dict(epoch.log))
                if keeping.due():
                    self._count()
                    keeping.keep(self, epoch.checkpoint())
                if keeping.asked():
                    keeping.stopped = True
                    break
        self._count()
        # At its end the loop has restored the best epoch's weights, where there was one to judge by.
        if keeping.stopped:
            finish(plan, training, keeping.begun["state"], seed=seed)
        elif drawn is not training:  # of which some rows were seen more often than others
            settle(plan, training, seed)
        self._keep_codes(training, memory, seed)
        self._set_offsets(X, raw, seed)
        alone = raw is None and model.head is None  # a head uses codes whatever the decoder does
        if alone and self.n_iter_ >= JUDGED and "kl" in self.history_[-1]:
            self._warn_of_silence(training.sample(ROWS_JUDGED, seed), seed)

    def _keep_codes(self, training: Source, memory: int | None, seed: int) -> None:
        """Keep codes of training rows, and fit a density to them where there is no other to sample from."""
        model: Any = self.model_
        size = min(ENCODED, self._rows_at_once())
        if model.prior is None:
            # Codes of a stream may be too many for its memory, of which a fit to all of them takes a third.
            each = 1 + 64 * self.latent_dim_ * len(training) // memory if memory else 1
            codes = torch.cat([self._codes(b)[::each] for b in training.batches(size)])
            q = model.posterior
            p = fit_density(q.fitted_density, codes.cpu(), seed, codebook=q.codebook, device=training.device)
            model.fitted_prior = p.eval().to(training.device)
        noise = Noise(seed + 4)
        draws = [self._draws(b, noise).cpu() for b in training.sample(KEPT, seed + 4).batches(size)]
        self.codes_ = torch.cat(draws).float().numpy()

    def _warn_of_silence(self, rows: Source, seed: int) -> None:
        """Tell that a decoder has learned to do without the code."""
        from chartae.audits.findings import checks
        from chartae.audits.prior import likelier

        model, size, noise = self.model_, self._rows_at_once(), Noise(seed + 5)
        batches = list(rows.batches(size))
        z = torch.cat([self._draws(batch, noise) for batch in batches])

        def likelihood(some: slice, z: Tensor) -> Tensor:
            return model.log_likelihood(model.px(z[None]), batches[some.start // size].x)[0]

        blocks = (slice(at, at + size) for at in range(0, len(rows), size))
        nats = float(likelier(likelihood, z, blocks).mean())
        if nats < checks["information"].ok:
            own = find(self.blueprint_["recipe"]).parameters | self.blueprint_["parameters"]
            if not model.likelihood.sequential and "warmup" in own:
                cures = [f"warmup={max(30.0, 2 * own['warmup']):g}"]
            else:
                cures = [f"free_bits={max(0.5, 2 * own['free_bits']):g}"] if "free_bits" in own else []
                # A decoder that sees the tokens before each may see fewer of them.
                cures += ["context=3"] if own.get("context") is None else []
            warnings.warn(
                f"with the code of another, a row is only {max(nats, 0.0):.2f} nats less likely, and the "
                f"decoder hardly uses codes: fit with {' or '.join(cures) or 'more epochs'}",
                stacklevel=5,
            )

    def _count(self) -> None:
        """Count the epochs that have passed."""
        self.n_iter_ = len(self.history_)
        self.best_epoch_ = max((h["epoch"] for h in self.history_ if h["best"]), default=self.n_iter_)

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
        X = read(X) if brings_items(X) else X
        self.fit(X, y)
        return self.predict(X, None if self.condition_.parameters is None else _told(X, y))

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
                warnings.warn(f"row {rows[~finite][0]} (from 0) has no finite score", stacklevel=6)
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
                units = torch.from_numpy(np.array(filled)).reshape(units.shape)
            found = intrinsic_dimension(Inputs(self.space_)(units).numpy())
        except DataError:
            d, why = self._sized(min(2, features))
            return d, f" (too few different rows to estimate a dimension{why})"
        # A manifold of dimension 2 reads a little less or more, which is no reason for a third coordinate.
        d = int(np.clip(np.ceil(found.dimension - 0.1), 1, min(features, len(X) - 1)))
        low, high = found.interval
        how = "" if found.verdict == "ok" else ", still changing with scale"
        d, why = self._sized(d)
        read = f"the data's dimension reads {found.dimension:.1f}, 95 % within {low:.1f}-{high:.1f}"
        return d, f" ({read}{how}{why})"

    def _sized(self, d: int) -> tuple[int, str]:
        """Give the size of code that the recipe has for data of dimension d, and say so if it is another."""
        name, own = self._recipe()
        size = find(name).size(d, own)
        return size, "" if size == d else f"; {name} takes {size}"

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
        PlanError
            If it has none.
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
