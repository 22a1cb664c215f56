"""The model that almost every recipe trains: one stochastic layer between an encoder and a decoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import (
    Batch,
    Distribution,
    Draw,
    Level,
    Likelihood,
    Model,
    Posterior,
    Prior,
    RawCondition,
    Trace,
)
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.parts.conditions import Condition
from chartae.parts.networks import derivable, evaluating
from chartae.parts.readouts import Silent

__all__ = ["Autoencoder"]


class Autoencoder(Model):
    """q(z | x, c), p(z | c) and p(x | z, c).

    Parameters
    ----------
    posterior : Posterior
        The encoder's side.
    prior : Prior or None
        None for a plain autoencoder.
    likelihood : Likelihood
        The decoder's side.
    space : Space
        Shape and units of the data.
    latent_dim : int
        d.
    condition : Condition or None
        Makes the tensor c.

    Examples
    --------
    >>> from chartae.models.autoencoder import Autoencoder
    >>> from chartae.models.recipes import build
    >>> isinstance(build("ae", (4,), latent_dim=2, hidden=(8,)).model, Autoencoder)
    True
    """

    def __init__(
        self,
        posterior: Posterior,
        prior: Prior | None,
        likelihood: Likelihood,
        space: Space,
        latent_dim: int,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        self.space, self.condition, self.latent_dim = space, condition, latent_dim
        self.fitted_prior: Prior | None = None
        self.head: Likelihood | None = None

    @property
    def sampler(self) -> Prior:
        """Where samples take their codes from: a prior fitted after training, else the prior itself.

        Raises
        ------
        PlanError
            If there is neither.
        """
        chosen = self.prior if self.fitted_prior is None else self.fitted_prior
        if chosen is None:
            raise PlanError("this model has no prior to sample from: finish its fit, or fit one to its codes")
        return chosen

    def onto(self, z: Tensor) -> Tensor:
        """Bring codes to where the prior's can lie: all of R^d, for most.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        return z if self.prior is None else self.prior.onto(z)

    @property
    def support(self) -> str:
        """Where codes lie, if not in all of R^d."""
        return (self.prior.support if self.prior is not None else "") or ""

    def silence(self) -> None:
        """Put :class:`Silent <chartae.parts.readouts.Silent>` in the decoder's place: x counts for nothing.

        Examples
        --------
        >>> import torch
        >>> from chartae.models.recipes import build
        >>> model = build("vae", (4,), latent_dim=2, hidden=(8,)).model
        >>> model.silence()
        >>> model.log_likelihood(model.px(torch.zeros(1, 3, 2)), torch.ones(3, 4))
        tensor([[0., 0., 0.]])
        """
        self.likelihood = Silent(self.space.model_shape)
        for name in ("_volume", "_width"):  # of the decoder that was there
            self.__dict__.pop(name, None)

    @property
    def silent(self) -> bool:
        """Whether it has no decoder any more."""
        return isinstance(self.likelihood, Silent)

    def conditioned(self, raw: RawCondition | None, n: int) -> Tensor | None:
        """Make the condition's tensor.

        Parameters
        ----------
        raw : RawCondition or None
            Of ``n`` rows.
        n : int
            How many rows.

        Returns
        -------
        Tensor or None
            ``(n, m)``; None in a model without a condition.
        """
        return None if self.condition is None else self.condition(raw, n)

    def px(self, z: Tensor, c: Tensor | None = None, guidance: float | None = None) -> Distribution:
        """Decode, with as much of the condition as is asked for.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor or None
            ``(n, m)`` condition.
        guidance : float or None
            None: the condition as the model was trained with it, which is 1.

        Returns
        -------
        Distribution
            p(x | z, c), batch shape ``(k, n)``.

        Raises
        ------
        PlanError
            If there is guidance, and no condition, or none that training ever left out.
        """
        if guidance is None:
            return self.likelihood(z, c)
        self.can_guide(guidance)
        assert c is not None
        null = self.conditioned(None, len(c))
        guided: Distribution = self.likelihood.guided(z, c, null, guidance)  # type: ignore[operator]
        return guided

    def can_guide(self, guidance: Any) -> None:
        """Refuse guidance that means nothing here.

        Parameters
        ----------
        guidance : float
            As in :meth:`px`.

        Raises
        ------
        PlanError
            If it is no number, or if there is no condition, or none that training ever left out, or of texts.
        """
        if isinstance(guidance, bool) or not isinstance(guidance, Real) or not math.isfinite(guidance):
            raise PlanError(f"guidance={guidance!r}: give a number, such as 2; 1 is the model as it is")
        if self.condition is None:
            raise PlanError(
                f"guidance={guidance:g} follows a condition, and this model has none: fit it with y and a "
                "recipe such as 'cvae'"
            )
        if self.likelihood.sequential:
            raise PlanError(
                f"guidance={guidance:g} goes beyond what is decoded at once, and texts are said token after "
                "token: leave it out"
            )
        if not self.condition.dropout:
            raise PlanError(
                f"guidance={guidance:g} needs to know the model without its condition, which was never left "
                "out in training: use a condition with dropout above 0"
            )

    def begin(self, batch: Batch) -> None:
        c = self.conditioned(batch.c, len(batch))
        self.posterior.plain.begin(batch.x, c)
        if self.prior is not None:
            self.prior.begin(batch.x, c)
        self.likelihood.begin(batch.x, c)

    def q(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        """Encode: the posterior as it is in this model, where it may depend on the other parts.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``, in the model's units.
        c : Tensor or None
            ``(n, m)`` condition.

        Returns
        -------
        Distribution
            q(z | x, c), batch shape ``(n,)``.
        """
        return self.completed(self.posterior(x, c), x, c)

    def completed(
        self, q: Distribution, x: Tensor | None, c: Tensor | None, p: Distribution | None = None
    ) -> Distribution:
        """Give a posterior what it needs of the rest of the model, where it needs anything.

        Parameters
        ----------
        q : Distribution
            As the encoder's side gives it, batch shape ``(n,)``.
        x : Tensor or None
            ``(n, *x)``, in the model's units; None where it is not at hand.
        c : Tensor or None
            ``(n, m)`` condition.
        p : Distribution or None
            The prior p(z | c), where it is known already.

        Returns
        -------
        Distribution
            q(z | x, c), batch shape ``(n,)``.
        """
        if type(q).within is Distribution.within:
            return q
        self._unit()  # before a derivative is taken, within which nothing can be kept
        known = None if torch.is_inference_mode_enabled() else p
        with derivable(x, c) as (x, c):

            def log_lik(z: Tensor) -> Tensor:
                # In evaluation mode: no statistics of batches move by what is done on the way to a code, and
                # a slope along z is no gradient of weights.
                with evaluating(self.likelihood, kernels=False):
                    return self.log_likelihood(self.likelihood(z, c), x)

            return q.within(self._p(c) if known is None else known, None if x is None else log_lik)

    def _p(self, c: Tensor | None) -> Distribution | None:
        return None if self.prior is None else self.prior(c, posterior=self.posterior.plain)

    def trace(
        self,
        batch: Batch,
        *,
        k: int,
        noise: Noise,
        pick: Callable[[Trace], tuple[Tensor, Tensor]] | None = None,
    ) -> Trace:
        c = self.conditioned(batch.c, len(batch))
        p = self._p(c)
        q = self.completed(self.posterior(batch.x, c), batch.x, c, p)

        def passed(drawn: Draw, **more: Any) -> Trace:
            px = self.likelihood(drawn.z, c)
            log_lik = self.log_likelihood(px, batch.x)
            return Trace(batch, (Level(q, p, drawn),), px, log_lik, self, c, noise=noise, **more)

        drawn = q.draw(k, noise)
        if pick is None:
            trace = passed(drawn)
        else:
            with torch.no_grad():
                screened = passed(drawn)
                index, weight = pick(screened)
            trace = passed(drawn.at(index), log_weight=weight.log(), screened=screened)
        if self.training:
            self.likelihood.observe((trace.screened or trace).px, batch.x)
        return trace

    @property
    def width(self) -> int:
        """Most values that one item takes in a layer: it bounds how many items go through at once.

        Looked up once, by passing two items of zeros through; in evaluation mode.
        """
        if not hasattr(self, "_width"):
            sizes = [2]
            hooks = [
                layer.register_forward_hook(lambda _, x, out: sizes.append(_size(out)))
                for layer in self.modules()
            ]
            try:
                with torch.no_grad():
                    c, shape = self.conditioned(None, 2), self.space.model_shape
                    like = self.space.scale.new_zeros((), dtype=torch.float32)
                    if self.posterior is not None:
                        self.posterior.plain(like.new_zeros(2, *shape), c)
                    px = self.likelihood(like.new_zeros(1, 2, self.latent_dim), c)
                    px.log_prob(like.new_zeros(2, *shape))  # of sequences, the decoder's work is done in here
            finally:
                for hook in hooks:
                    hook.remove()
            self._width = max(max(sizes) // 2, math.prod(shape))
        return self._width

    def log_likelihood(self, px: Distribution, x: Tensor) -> Tensor:
        """Log density or mass of what was observed, in the input's units.

        Parameters
        ----------
        px : Distribution
            p(x | z, c), batch shape ``(k, n)``.
        x : Tensor
            ``(n, *x)``, in the model's units; NaN where a value is missing, which counts for nothing.

        Returns
        -------
        Tensor
            ``(k, n)`` in nats.
        """
        each, whole = self._unit()
        if self.space.gaps:
            missing = x.isnan()
            # Filled before, masked after: the density of NaN has a gradient of NaN, masked or not.
            rows = px.log_prob(x.masked_fill(missing, 0.0), per_dim=True) - each.to(x)
            rows = rows.masked_fill(missing, 0.0).flatten(2).sum(2)
        else:
            rows = px.log_prob(x)
            rows = rows - whole if whole else rows
        slope = self.space.log_slope(x)
        return rows if slope is None else rows - slope

    def _unit(self) -> tuple[Tensor, float]:
        """Log of the model's unit in the input's, of each value and of an item."""
        if not hasattr(self, "_volume"):
            each = self.likelihood.log_volume(self.space)
            self._volume = each, float(each.sum())
        return self._volume


def _size(out: Any) -> int:
    return out.numel() if isinstance(out, Tensor) else 0
