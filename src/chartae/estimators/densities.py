"""Densities of a fitted model: one of its codes in place of the prior, and log p(x)."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, Self

import numpy as np
import torch

from chartae.core.counts import count
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.density.bounds import REFINING, annealed_estimate, importance_estimate
from chartae.density.fitted import fit_density
from chartae.estimators.decoding import seed_of
from chartae.estimators.encoding import Encoding
from chartae.training.sources import Source

__all__ = ["Densities"]

IMPORTANCE, CHAINS = 1000, 16  # samples of a row, where no number is given
AT_ONCE = 64  # of them


class Densities(Encoding):
    """Methods about densities of everything that has an encoder and a decoder.

    Attributes
    ----------
    codes_ : ndarray or None
        Up to 10,000 training rows' codes, ``(n, d)``, one draw of q(z | x) each; None in runs of versions
        that kept none, and where a fit was cut off.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.estimators.densities import Densities
    >>> issubclass(VAE, Densities)
    True
    """

    codes_: np.ndarray | None

    def fit_prior(
        self, density: str | None = "auto", X: Any = None, condition: Any = None, *, random_state: Any = None
    ) -> Self:
        """Fit a density to codes, from which :meth:`sample` then draws them.

        What the model has learned stays as it was: scores and bounds are those of its own prior. The density
        is kept in run folders and exported decoders. It says of itself, as ``model_.fitted_prior.held_out``,
        how many nats a held-out code gains by it over N(0, I), or, on a codebook, over entries drawn
        uniformly. Codes that it draws off a sphere or a ball, where the model has them, are brought back
        before they are decoded.

        Parameters
        ----------
        density : str or None
            "normal", "gmm" (a mixture of normals), "kernel" (a normal around each of many codes), "flow" (a
            neural spline flow), or "auto": the best of the first three on held-out codes. Where codes lie on
            a codebook: "independent" (slot by slot) or "autoregressive" (each entry given those before), and
            "auto" is the better of these two; the others would draw codes beside it. "prior" or None: the
            model's own prior again.
        X : array_like, optional
            ``(n, *shape)``, whose codes are fitted to, one draw of q(z | x) each; None: of training rows, as
            kept in ``codes_``.
        condition : object, optional
            Of the rows of X, as in :meth:`transform`.
        random_state : int, RandomState or None
            None: different each time.

        Returns
        -------
        object
            The estimator itself.

        Raises
        ------
        PlanError
            If there is no such density, there are no codes, or the model's prior depends on the condition.
        DataError
            If the codes are too few for this density, or not finite.

        References
        ----------
        Ghosh et al. 2020, arXiv:1903.12436, section 4; Dai and Wipf 2019, arXiv:1903.05789 (why codes of a
        VAE may not follow its prior).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(50))
        >>> vae.fit_prior("gmm", random_state=0).sample(3, random_state=0).shape
        (3, 50)
        """
        model = self._ready()
        if density is None or density == "prior":
            if model.prior is None:
                own = model.posterior.fitted_density
                raise PlanError(f"a plain autoencoder has no prior of its own: use fit_prior({own!r})")
            model.fitted_prior = None
            return self
        if model.prior is not None:
            p = model.prior(model.conditioned(None, 2), posterior=model.posterior.plain)
            if p.batch_shape:
                raise PlanError(
                    "this model's prior depends on the condition, which a density of all codes would lose: "
                    "keep it, or fit with conditional_prior=False"
                )
        seed = seed_of(random_state)
        codes = self.codes_
        if X is not None:
            codes = self.sample_posterior(X, 1, condition, random_state=seed)[0]
        if codes is None:
            raise PlanError("no codes of training rows were kept with this model: pass X")
        p = fit_density(density, codes, seed, codebook=model.posterior.codebook, device=self._device)
        model.fitted_prior = p.eval().to(self._device)
        return self

    @torch.inference_mode(False)  # whose tensors take part in no derivative, whoever has entered it
    def log_likelihood(
        self,
        X: Any,
        condition: Any = None,
        *,
        n_importance: int | None = None,
        method: str = "importance",
        refine: int = 0,
        random_state: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimate log p(x) of each row, with a standard error.

        The mean weight has no bias, its logarithm has one downwards, of about half the squared standard
        error. Where q misses much of p(z | x), few weights make up the mean, and neither it nor its error can
        be trusted: a warning says of how many rows, by the tails of their weights, and ``refine`` or "ais" is
        what helps. It is the model's own prior that counts.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        condition : object, optional
            As in :meth:`transform`.
        n_importance : int or None
            Samples of each row, two or more; None: 1000, or 16 chains of "ais".
        method : {"importance", "ais"}
            Importance sampling from q(z | x), or annealed importance sampling from q(z | x) to p(z | x) by
            Hamiltonian Monte Carlo, which costs about a thousand passes through the decoder for each chain.
        refine : int
            Of "importance", where q(z | x) is a normal distribution: steps by which each row's own is brought
            nearer to p(z | x) first. An encoder does not find the best one of a row that is new; 100 take as
            long as some 2000 samples.
        random_state : int, RandomState or None
            None: different each time.

        Returns
        -------
        values : ndarray
            ``(n,)`` nats, in the input's units.
        standard_error : ndarray
            ``(n,)`` nats, by the delta method.

        Raises
        ------
        PlanError
            If the model has no density, the method is unknown, or nothing of it can be refined.

        References
        ----------
        Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519; Wu et al. 2017, arXiv:1611.04273; Vehtari et
        al. 2024, arXiv:1507.02646 (heavy tails of weights).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> values, error = vae.log_likelihood(np.eye(20), n_importance=100, random_state=0)
        >>> values.shape, bool((error < 0.5).all())
        ((20,), True)
        """
        self._ready()
        if method not in ("importance", "ais"):
            raise PlanError(f"method={method!r}: use 'importance' or 'ais'")
        annealed = method == "ais"
        refine = count(refine, "refine") if refine else 0
        if annealed and refine:
            raise PlanError("refine is of method='importance': leave it out, or the method")
        k = count(
            (CHAINS if annealed else IMPORTANCE) if n_importance is None else n_importance, "n_importance"
        )
        X = self._check(X, reset=False)
        noise = Noise(seed_of(random_state))
        model, dtype = self._model_for(X)
        source = Source(X, model.space, self._raw(condition, len(X)), device=self._device, dtype=dtype)
        estimate = annealed_estimate if annealed else partial(importance_estimate, refine=refine)
        at_once = k if annealed else max(min(k, AT_ONCE), REFINING if refine else 1)
        rows = self._rows_at_once(at_once)
        parts = [estimate(model, batch, k=k, noise=noise) for batch in source.batches(rows)]
        values, errors, trusted = (
            np.concatenate([t.cpu().numpy() for t in part]) for part in zip(*parts, strict=True)
        )
        if not trusted.all():
            more = f"n_importance={4 * k}"
            others = f"more samples, {more}, {'' if refine else 'refine=100, '}or method='ais'"
            cure = f"take more chains, {more}" if annealed else f"take {others}"
            warnings.warn(
                f"the weights of {(~trusted).sum():,} of {len(values):,} rows have tails so heavy that the "
                f"values may be too low there by more than the errors say: {cure}",
                stacklevel=2,
            )
        return values, errors
