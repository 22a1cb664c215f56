"""Posteriors that go on, for each row by itself, from where an encoder has left them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Batch
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.parts.distributions import DiagonalNormal, FullNormal
from chartae.training.optimizers import SCHEDULES, Adam

__all__ = ["DRAWS", "REFINABLE", "Normal", "refined", "refined_posterior"]

Normal = DiagonalNormal | FullNormal
REFINABLE = (DiagonalNormal, FullNormal)
LogJoint = Callable[[Tensor], Tensor]  # from codes (k, n, d) to log p(x, z), (k, n) nats

RATE = 0.2  # of a step at the start, in standard deviations
DRAWS = 2  # of a step up the ELBO: what draws have in common is no noise


def refined(
    q: Normal,
    log_joint: LogJoint,
    noise: Noise,
    *,
    steps: int,
    samples: int = DRAWS,
    weighted: bool = False,
) -> Normal:
    """Find a normal posterior that bounds log p(x) better, uphill from a given one.

    Each row goes by itself. Steps follow draws alone: what else of log q depends on its parameters has a
    slope of zero on average, and would be noise.

    Parameters
    ----------
    q : DiagonalNormal or FullNormal
        Of batch shape ``(n,)``: where to begin.
    log_joint : callable
        From codes ``(k, n, d)`` to log p(x, z), ``(k, n)`` nats.
    noise : Noise
        Where the randomness comes from.
    steps : int
        How many; together they go up to ``RATE * steps / 2`` standard deviations.
    samples : int
        Draws of each step.
    weighted : bool
        Whether the bound is that of all draws of a step, by their importance, and not the ELBO, their mean.

    Returns
    -------
    DiagonalNormal or FullNormal
        Of batch shape ``(n,)`` and of the kind that was given, detached.

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
    >>> found = refined(q, StandardNormal(2).log_prob, Noise(0), steps=100)
    >>> bool(found.mean.abs().max() < 0.01)
    True
    """
    shape = q.log_var if isinstance(q, DiagonalNormal) else q.scale_tril
    moved, turned = (torch.zeros_like(each, requires_grad=True) for each in (q.mean, shape))
    optimizer = Adam([moved, turned], lr=RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * SCHEDULES["cosine"](step / steps)
        with torch.enable_grad():
            z = _changed(q, moved, turned).draw(samples, noise).z
            still = _changed(q, moved.detach(), turned.detach())
            log_weights = log_joint(z) - still.log_prob(z)
            shares = log_weights.detach().softmax(0).square() if weighted else 1 / samples
            slopes = torch.autograd.grad(-(shares * log_weights).sum(), [moved, turned])
        # A row whose bound is not finite stays, and no other has to do with it.
        moved.grad, turned.grad = (slope.masked_fill(~slope.isfinite(), 0.0) for slope in slopes)
        optimizer.step()
    return _changed(q, moved.detach(), turned.detach())


def _changed(q: Normal, moved: Tensor, turned: Tensor) -> Normal:
    """Move a normal and change its shape, both in units of its own; zeros change nothing."""
    if isinstance(q, DiagonalNormal):
        return DiagonalNormal(q.mean + q.std() * moved, q.log_var + turned)
    factor = turned.tril(-1) + torch.diag_embed((0.5 * turned.diagonal(dim1=-2, dim2=-1)).exp())
    return FullNormal(q.mean + (q.scale_tril @ moved.unsqueeze(-1)).squeeze(-1), q.scale_tril @ factor)


def refined_posterior(
    model: Any, batch: Batch, noise: Noise, *, steps: int, samples: int = DRAWS, weighted: bool = False
) -> tuple[Normal, LogJoint]:
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
    log_joint : callable
        From codes ``(k, n, d)`` to log p(x, z) of these rows, ``(k, n)`` nats.

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
    >>> q, log_joint = refined_posterior(model, Batch(torch.zeros(3, 4)), Noise(0), steps=10)
    >>> q.mean.shape, log_joint(q.draw(5, Noise(1)).z).shape
    (torch.Size([3, 2]), torch.Size([5, 3]))
    """
    with torch.no_grad():
        c = model.conditioned(batch.c, len(batch))
        q = model.q(batch.x, c)
        if type(q) not in REFINABLE:
            raise PlanError(
                f"{type(model.posterior.plain).__name__} gives no normal distribution, and others are not "
                "refined: leave refine out"
            )
        p = model.prior(c, posterior=model.posterior.plain)

    def log_joint(z: Tensor) -> Tensor:
        return p.log_prob(z) + model.log_likelihood(model.likelihood(z, c), batch.x)

    return refined(q, log_joint, noise, steps=steps, samples=samples, weighted=weighted), log_joint
