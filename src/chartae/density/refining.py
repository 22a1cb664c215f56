"""Posteriors that go on, for each row by itself, from where an encoder has left them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Distribution
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.parts.distributions import DiagonalNormal, FullNormal
from chartae.training.optimizers import SCHEDULES, Adam

__all__ = ["DRAWS", "REFINABLE", "Normal", "log_weights", "refined", "refined_posterior"]

Normal = DiagonalNormal | FullNormal
REFINABLE = (DiagonalNormal, FullNormal)

RATE = 0.2  # of a step at the start, in standard deviations
DRAWS = 2  # of a step up the ELBO: what draws have in common is no noise
FLAT = 0.1  # nats a standard deviation: along smaller slopes steps are shorter, and rounding makes none


def log_weights(
    q: Distribution, prior: Distribution, log_likelihood: Callable[[Tensor], Tensor], z: Tensor
) -> Tensor:
    """Weigh codes: log p(x | z) + log p(z) - log q(z).

    Parameters
    ----------
    q, prior : Distribution
        Of batch shape ``(n,)``, or ``()`` where it is the same for all rows.
    log_likelihood : callable
        From codes ``(k, n, d)`` to log p(x | z), ``(k, n)`` nats.
    z : Tensor
        ``(k, n, d)``.

    Returns
    -------
    Tensor
        ``(k, n)`` nats.

    Examples
    --------
    >>> import torch
    >>> from chartae.density.refining import log_weights
    >>> from chartae.parts.distributions import StandardNormal
    >>> log_weights(StandardNormal(2), StandardNormal(2), lambda z: -z.square().sum(-1), torch.ones(1, 3, 2))
    tensor([[-2., -2., -2.]])
    """
    return prior.log_prob(z) + log_likelihood(z) - q.log_prob(z)


def refined(
    q: Normal,
    prior: Distribution,
    log_likelihood: Callable[[Tensor], Tensor],
    noise: Noise,
    *,
    steps: int,
    samples: int = DRAWS,
    weighted: bool = False,
) -> Normal:
    """Find a normal posterior that bounds log p(x) better, uphill from a given one.

    Each row goes by itself, in units of what it has come to. Steps follow draws alone: what else of log q
    depends on its parameters has a slope of zero on average, and would be noise.

    Parameters
    ----------
    q : DiagonalNormal or FullNormal
        Of batch shape ``(n,)``: where to begin.
    prior : Distribution
        As in :func:`log_weights`.
    log_likelihood : callable
        As in :func:`log_weights`.
    noise : Noise
        Where the randomness comes from.
    steps : int
        How many; the length of each is a part of a standard deviation, and falls to zero.
    samples : int
        Draws of each step.
    weighted : bool
        Whether the bound is that of all draws of a step, by their importance, and not the ELBO, their mean.

    Returns
    -------
    DiagonalNormal or FullNormal
        Of batch shape ``(n,)`` and of the kind that was given, detached.

    Raises
    ------
    DataError
        If the decoder lets no gradients through.

    References
    ----------
    Roeder, Wu and Duvenaud 2017, arXiv:1703.09194 (the path of draws alone, of the ELBO); Tucker et al. 2019,
    arXiv:1810.04152, equation 8 (of importance-weighted bounds).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density.refining import refined
    >>> from chartae.parts.distributions import DiagonalNormal, StandardNormal
    >>> q = DiagonalNormal(torch.ones(1, 2), torch.zeros(1, 2))
    >>> found = refined(q, StandardNormal(2), lambda z: -0.5 * z.square().sum(-1), Noise(0), steps=100)
    >>> bool(found.mean.abs().max() < 0.01), [round(v, 2) for v in found.log_var.exp()[0].tolist()]
    (True, [0.5, 0.5])
    """
    shape = q.mean if isinstance(q, DiagonalNormal) else q.scale_tril
    moved, turned = (torch.zeros_like(each, requires_grad=True) for each in (q.mean, shape))
    optimizer = Adam([moved, turned], lr=RATE, eps=FLAT)
    for step in range(steps):
        with torch.enable_grad():
            z = _changed(q, moved, turned).draw(samples, noise).z
            weights = log_weights(q, prior, _derived(log_likelihood), z)
            shares = weights.detach().softmax(0).square() if weighted else 1 / samples
            slopes = torch.autograd.grad(-(shares * weights).sum(), [moved, turned])
        # A row whose bound is not finite stays, and no other has to do with it.
        rows = torch.cat([slope.flatten(1) for slope in slopes], 1).isfinite().all(1)
        moved.grad, turned.grad = (
            torch.where(rows.view(-1, *[1] * (slope.dim() - 1)), slope, 0.0) for slope in slopes
        )
        optimizer.param_groups[0]["lr"] = RATE * SCHEDULES["cosine"](step / steps)
        optimizer.step()
        with torch.no_grad():
            q = _changed(q, moved, turned)
            moved.zero_()
            turned.zero_()
    return q


def _changed(q: Normal, moved: Tensor, turned: Tensor) -> Normal:
    """Move a normal and change its shape, both in units of its own; zeros change nothing."""
    if isinstance(q, DiagonalNormal):
        return DiagonalNormal(q.mean + q.std() * moved, q.log_var + turned)
    factor = turned.tril(-1) + torch.diag_embed((0.5 * turned.diagonal(dim1=-2, dim2=-1)).exp())
    return FullNormal(q.mean + (q.scale_tril @ moved.unsqueeze(-1)).squeeze(-1), q.scale_tril @ factor)


def _derived(log_likelihood: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Refuse a decoder of which no slope is known: posteriors would go to the prior."""

    def checked(z: Tensor) -> Tensor:
        found = log_likelihood(z)
        if not found.requires_grad:
            raise DataError("the decoder cuts gradients: take torch.no_grad and detach out of it")
        return found

    return checked


def refined_posterior(
    model: Any, batch: Batch, noise: Noise, *, steps: int, samples: int = DRAWS, weighted: bool = False
) -> tuple[Normal, Callable[[Tensor], Tensor]]:
    """Refine what a model's encoder says of some rows, as :func:`refined` does.

    Parameters
    ----------
    model : Model
        In evaluation mode; its weights do not move.
    batch : Batch
        ``n`` rows.
    noise, steps, samples, weighted : object
        As in :func:`refined`.

    Returns
    -------
    q : DiagonalNormal or FullNormal
        Of batch shape ``(n,)``.
    weigh : callable
        From codes ``(k, n, d)`` to their :func:`log_weights` under ``q``.

    Raises
    ------
    PlanError
        If the encoder gives no normal distribution.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density.refining import refined_posterior
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> q, weigh = refined_posterior(model, Batch(torch.zeros(3, 4)), Noise(0), steps=10)
    >>> q.mean.shape, weigh(q.draw(5, Noise(1)).z).shape
    (torch.Size([3, 2]), torch.Size([5, 3]))
    """
    with torch.no_grad():
        c = model.conditioned(batch.c, len(batch))
        q = model.q(batch.x, c)
        if type(q) not in REFINABLE:
            raise PlanError(
                f"q(z | x) of this model is a {type(q).__name__}, and only normal distributions are refined: "
                "leave refine out"
            )
        prior = model.prior(c, posterior=model.posterior.plain)

    def log_likelihood(z: Tensor) -> Tensor:
        return model.log_likelihood(model.likelihood(z, c), batch.x)

    q = refined(q, prior, log_likelihood, noise, steps=steps, samples=samples, weighted=weighted)
    return q, lambda z: log_weights(q, prior, log_likelihood, z)
