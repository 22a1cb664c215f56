"""What needs an encoder: codes, projections, what is missing, paths between items, and scores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.arrays import blocks
from chartae.core.columns import as_pandas, is_frame
from chartae.core.contracts import Batch
from chartae.core.counts import count
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise, RowNoise, SharedNoise
from chartae.density.bounds import information, log_likelihood_bound
from chartae.density.completion import complete
from chartae.density.refining import DRAWS, refined_posterior
from chartae.estimators.charts import chart_of_estimator
from chartae.estimators.checking import Checking
from chartae.estimators.decoding import seed_of
from chartae.geometry.charts import Chart
from chartae.geometry.interpolation import interpolate
from chartae.parts.distributions import carried
from chartae.training.items import array_of
from chartae.training.precision import autocast
from chartae.training.sources import Source

__all__ = ["Encoding"]

ENCODED = 2048  # rows encoded in one go, at most: activations of fully connected layers stay in the cache


class Encoding(Checking):
    """Methods of everything that has a fitted encoder.

    Attributes
    ----------
    network_ : str
        What encodes; "yours" for modules of the user's.
    offset_, null_offset_ : float or None
        Scores below which items are outliers, with and without their conditions.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.estimators.encoding import Encoding
    >>> issubclass(VAE, Encoding)
    True
    """

    latent_dim_: int
    network_: str
    codes_: np.ndarray | None
    offset_: float | None
    null_offset_: float | None

    def transform(self, X: Any, condition: Any = None, *, return_std: bool = False, refine: int = 0) -> Any:
        """Encode: the posterior mean, deterministic.

        ``fit_transform(X, y)`` encodes without a condition, as a pipeline's ``transform`` does.

        An encoder answers for all rows at once, and what it says of one is often not the best that q(z | x)
        could be. To refine it is to go on from there, for each row by itself, uphill on the ELBO, at the cost
        of passes through the decoder.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``, in the units of the training data.
        condition : object, optional
            One for each row, or a single one for all; None is "no condition".
        return_std : bool
            Give the posterior's standard deviation as well.
        refine : int
            Steps by which each row's posterior is refined, if it is a normal distribution; 100 find a code
            that is some five of its standard deviations away.

        Returns
        -------
        codes : ndarray
            ``(n, d)``.
        std : ndarray
            ``(n, d)``, with ``return_std`` only; zero for a plain autoencoder.

        Raises
        ------
        PlanError
            If there is nothing to refine.

        References
        ----------
        Cremer, Li and Duvenaud 2018, arXiv:1801.03558 (what an encoder loses).

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
        refine = count(refine, "refine") if refine else 0
        out = self._encode(self._check(X, reset=False), condition, return_std, refine)
        return out if return_std else out[0]

    def _encode(
        self, X: np.ndarray, condition: Any, return_std: bool = False, refine: int = 0
    ) -> tuple[np.ndarray, ...]:
        """Posterior means, and standard deviations if asked for, as arrays whatever ``set_output`` says."""
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        out = [np.empty((len(X), self.latent_dim_), dtype) for _ in range(1 + return_std)]

        def keep(rows: slice, q: Any) -> None:
            out[0][rows] = q.point().cpu().numpy()
            if return_std:
                out[1][rows] = q.std().cpu().numpy()

        self._each_posterior(X, condition, keep, refine)
        lost = ~np.isfinite(out[0]).all(1)
        if lost.any():
            raise DataError(
                f"row {lost.argmax()} (from 0) is so far from the training data that it has no finite code: "
                "give it in the units of the training data"
            )
        return tuple(out)

    @torch.inference_mode(False)  # whose tensors take part in no derivative, whoever has entered it
    def _each_posterior(
        self, X: np.ndarray, condition: Any, use: Callable[[slice, Any], None], refine: int = 0
    ) -> None:
        """Call ``use(rows, q(z | x))`` for one block of rows after the other."""
        model, dtype = self._model_for(X)
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device, dtype=dtype)
        # Steps to refine a code are as small as what bf16 leaves out.
        mixed = torch.bfloat16 if self.precision == "bf16" and not refine else torch.float32
        # Autocast keeps its copies of the weights for as long as it is entered, and not in inference mode.
        with torch.no_grad(), autocast(self._device, mixed):
            size = min(ENCODED, self._rows_at_once(DRAWS if refine else 1))
            for start in range(0, len(X), size):
                batch = source.slice(start, start + size)
                if refine:
                    noise = RowNoise(batch.x.cpu().numpy())
                    q = refined_posterior(model, batch, noise, steps=refine)[0]
                else:
                    q = model.q(batch.x, model.conditioned(batch.c, len(batch)))
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
        return self.model_.q(batch.x, self.model_.conditioned(batch.c, len(batch))).point()

    @torch.inference_mode()
    def _draws(self, batch: Batch, noise: Noise) -> Tensor:
        """One draw of q(z | x) for each row."""
        q = self.model_.q(batch.x, self.model_.conditioned(batch.c, len(batch)))
        return q.draw(1, noise).z[0]

    def sample_posterior(
        self,
        X: Any,
        n_samples: int = 1,
        condition: Any = None,
        *,
        shared: bool = False,
        random_state: Any = None,
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
        shared : bool
            Spread draws evenly (:class:`chartae.core.noise.SharedNoise`), by the same noise for all rows: to
            average over a few, or to compare rows by them. Where noise is normal or uniform, a row's draws
            do not depend on the other rows.
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
        seed, k = seed_of(random_state), count(n_samples, "n_samples")
        noise, draws = Noise(seed), []

        def draw(_: slice, q: Any) -> None:
            draws.append(q.draw(k, SharedNoise(seed) if shared else noise).z.cpu().numpy())

        self._each_posterior(X, condition, draw)
        return np.concatenate(draws, 1) if draws else np.empty((k, 0, self.model_.latent_dim), np.float32)

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
        codes = self._encode(self._check(X, reset=False), condition)[0]
        return _as_rows_of(X, self.inverse_transform(codes, condition))

    def translate(self, X: Any, condition: Any, to: Any, *, guidance: float | None = None) -> Any:
        """Give items another condition and keep all else: encode under their own, decode under another.

        Where the model has learned p(z | c), a code goes to the place under the new condition that it has
        under the old one: as many standard deviations from the mean.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object
            Theirs, as in :meth:`transform`.
        to : object
            The other one: one for each row, or a single one for all; None is "no condition".
        guidance : float, optional
            How far to follow it, as in :meth:`sample`.

        Returns
        -------
        ndarray or DataFrame
            ``(n, *shape)``, float, in the input's units; a table where the model was fitted on one.

        Raises
        ------
        PlanError
            If the model has no condition, or a p(z | c) that does not say where a code belongs under another.

        References
        ----------
        Kingma et al. 2014, arXiv:1406.5298, section 4.2 ("analogies": z is held, and the label changes).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import CVAE
        >>> y = np.arange(200) % 2
        >>> X = np.random.default_rng(0).normal(size=(200, 3)) + 9.0 * y[:, None]
        >>> cvae = CVAE(latent_dim=1, max_epochs=30, random_state=0).fit(X, y)
        >>> moved = cvae.translate(X[y == 0], 0, to=1)
        >>> bool((moved.mean(0) > 7).all()), moved.shape
        (True, (100, 3))
        """
        model: Any = self._ready()
        if model.condition is None:
            raise PlanError(
                "translate leads from one condition to another, and this model has none: fit it with y and a "
                "recipe such as 'cvae'"
            )
        codes = self._encode(self._check(X, reset=False), condition)[0]
        return _as_rows_of(
            X, self.inverse_transform(self._carried(codes, condition, to), to, guidance=guidance)
        )

    @torch.inference_mode()
    def _carried(self, codes: np.ndarray, condition: Any, to: Any) -> np.ndarray:
        """Codes where p(z | c) has them under another condition."""
        model: Any = self.model_
        if model.prior is None:
            return codes
        p, q = (
            model.prior(
                model.conditioned(self._raw(c, len(codes)), len(codes)), posterior=model.posterior.plain
            )
            for c in (condition, to)
        )
        z = torch.as_tensor(codes, dtype=torch.float32, device=self._device)
        return carried(z, p, q).cpu().numpy()

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
        in follows p(missing | observed): its mean, or the likeliest category, or draws. Of columns whose
        logarithms are modeled ("positive") it is the geometric mean, which is about their median: draws have
        the mean. A model that knows no missing values gives all items as :meth:`project` does.

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
            ``(n, *shape)``; with ``n_draws`` ``(n_draws, n, *shape)``, or a list of tables, or of texts.

        Raises
        ------
        DataError
            If draws are asked of a model that knows no missing values.

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
        if not model.space.gaps:
            if n_draws is not None:
                raise DataError(
                    f"n_draws={n_draws} are of what is missing, and this model knows nothing of that: decode "
                    "what sample_posterior draws, or fit with missing='mask'"
                )
            return self.project(X, condition)
        given, X = X, self._check(X, reset=False)
        k, draws = count(n_importance, "n_importance"), None if n_draws is None else count(n_draws, "n_draws")
        noise = SharedNoise(0) if draws is None else Noise(seed_of(random_state))
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device)
        made = [
            complete(model, model.space, batch, k=k, noise=noise, draws=draws).cpu().numpy()
            for batch in source.batches(self._rows_at_once(k))
        ]
        filled, start = np.concatenate(made, 1), 0
        if model.space.schema is not None:  # dates and large numbers are not what float32 makes of them
            filled = filled.astype(np.float64)
        for block in blocks(X):
            there = ~np.isnan(block)
            filled[:, start : start + len(block)][:, there] = block[there]
            start += len(block)
        if draws is None:
            return self._present(filled[0], given)
        arrays = model.space.schema is None and not model.likelihood.sequential
        return filled if arrays else [self._present(one, given) for one in filled]

    def chart(self, *, guidance: float | None = None) -> Chart:
        """Give the two maps between data and codes, as torch functions, to geometry and diagnostics.

        Parameters
        ----------
        guidance : float, optional
            With which codes are decoded under a condition, as in :meth:`sample`.

        Returns
        -------
        Chart
            What all of :mod:`chartae.geometry` works on.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> chart = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20)).chart()
        >>> chart.encode(chart.items(np.eye(20))).shape
        torch.Size([20, 2])
        """
        self._ready()
        return chart_of_estimator(self, guidance=guidance)

    def interpolate(
        self, start: Any, stop: Any, steps: int = 9, *, path: str = "straight", condition: Any = None
    ) -> np.ndarray:
        """Decode a path between the codes of two items.

        Parameters
        ----------
        start, stop : array_like
            ``(*shape)`` or ``(1, *shape)``, one item each.
        steps : int
            Points on the path, with its ends.
        path : {"straight", "spherical", "geodesic"}
            A line between the codes; a great circle, which keeps the typical norm of a Gaussian prior; or a
            shortest path as measured on what it decodes to, close to the codes of the data that were fitted.
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
        White 2016, arXiv:1609.04468 (spherical interpolation); Arvanitidis, Hansen & Hauberg 2018,
        arXiv:1710.11379 (geodesics).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.interpolate(np.eye(20)[0], np.eye(20)[1], steps=5).shape
        (5, 20)
        """
        self._ready()
        both = self._check(self._pair(start, stop), reset=False, named=False)
        a, b = self._encode(both, condition)[0]
        # Where codes may lie anywhere, the other two need none.
        chart = self.chart() if path == "geodesic" or self.model_.support else None
        codes = interpolate(
            chart, a, b, count(steps, "steps"), path=path, codes=self.codes_, condition=condition
        )
        return self.inverse_transform(codes.astype(np.float32), condition)

    def _pair(self, start: Any, stop: Any) -> Any:
        """Two items as an array, or as a table, of which rows that have names are taken by them."""
        schema = self.space_.schema
        if schema is not None:
            import pandas as pd

            rows = [
                as_pandas(one).iloc[0] if is_frame(one) and len(one) == 1 else one for one in (start, stop)
            ]
            names = [set(map(str, row.index)) for row in rows if isinstance(row, pd.Series)]
            if len(names) == 2 and all(own.issuperset(schema.names) for own in names):
                return pd.DataFrame(rows).infer_objects()
        items = [array_of(start), array_of(stop)]
        items = [item[0] if item.shape == (1, *self.space_.shape) else item for item in items]
        if items[0].shape != items[1].shape:
            raise DataError(f"a path needs two items of one shape, not {items[0].shape} and {items[1].shape}")
        if schema is None:
            return np.stack(items)
        if items[0].shape != self.space_.shape:
            raise DataError(f"a path needs two rows with the columns {', '.join(schema.names)}")
        return pd.DataFrame(items, columns=schema.names)

    # ---------------------------------------------------------------- scores

    def score_samples(self, X: Any, condition: Any = None, *, n_importance: int = 16) -> np.ndarray:
        """Bound log p(x) of each row from below, on average, by importance sampling.

        Its noise follows from the row itself, so that a row's score is the same each time and does not
        depend on the rows beside it. The expected score is below log p(x); that of one row may be above it by
        chance, which averages out over rows. A plain autoencoder has no density: it gives the score
        log p(x | z = E(x)), which says how well a row is reconstructed and cannot be compared with the
        densities of other models. An encoder whose decoder was left behind scores how usual a row's codes
        are under the prior.

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

    def information(self, X: Any, condition: Any = None, *, n_samples: int = 16) -> np.ndarray:
        """Tell how much the code of each row says of it: KL(q(z | x) || p(z)).

        A row of which the encoder can tell little, for being blurred or hidden in part, has a code that is
        not far from what p(z) would say of any row. Unlike the spread of the code alone, it does not change
        with the units of the codes. Of Hamiltonian posteriors it is an upper bound: the momentum counts, too.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.
        n_samples : int
            Draws of each row, where there is no closed form.

        Returns
        -------
        ndarray
            ``(n,)`` nats.

        Raises
        ------
        PlanError
            If codes are points, or there is no p(z).

        References
        ----------
        Alemi et al. 2018, arXiv:1711.00464, equation 4 (its mean over rows is the rate).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.information(np.eye(20)).shape
        (20,)
        """
        self._ready()
        X = self._check(X, reset=False)
        return self._each_row(information, X, self._raw(condition, len(X)), count(n_samples, "n_samples"))

    def _scores(self, X: np.ndarray, raw: Any, k: int) -> np.ndarray:
        return self._each_row(log_likelihood_bound, X, raw, k)

    def _each_row(self, said: Callable[..., Tensor], X: np.ndarray, raw: Any, k: int) -> np.ndarray:
        """Nats that the model says of each row, by draws whose noise follows from the row itself."""
        if not len(X):
            return np.empty(0)
        rows = self._rows_at_once(k)
        model, dtype = self._model_for(X)
        source = Source(X, model.space, raw, device=self._device, dtype=dtype)
        parts = [
            said(model, batch, k=k, noise=RowNoise(batch.x.cpu().numpy())).cpu().numpy()
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


def _as_rows_of(X: Any, made: Any) -> Any:
    """Items with the row names of those that they were made of, in tables of pandas."""
    if hasattr(made, "iloc") and hasattr(X, "iloc"):
        made.index = X.index
    return made
