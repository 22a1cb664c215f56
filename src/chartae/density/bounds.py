"""Bounds on log p(x), and estimates of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Model
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.parts.objectives import importance_bound

__all__ = ["annealed_log_likelihood", "log_likelihood", "log_likelihood_bound"]

LEAPFROG, ACCEPTED = 5, 0.65  # steps of a proposal, and the share of proposals that is aimed at


@torch.no_grad()
def log_likelihood_bound(model: Model, batch: Batch, *, k: int, noise: Noise) -> Tensor:
    """Importance-weighted lower bound of log p(x), or log p(x | z = E(x)) for a point posterior.

    Parameters
    ----------
    model : Model
        In evaluation mode.
    batch : Batch
        ``n`` rows.
    k : int
        Importance samples.
    noise : Noise
        Where the randomness comes from.

    Returns
    -------
    Tensor
        ``(n,)`` nats an item, in the input's units. A lower bound in expectation; for a Delta posterior
        it is a score and not a density.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density.bounds import log_likelihood_bound
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> log_likelihood_bound(model, Batch(torch.zeros(3, 4)), k=8, noise=Noise(0)).shape
    torch.Size([3])
    """
    explicit = _explicit(model)
    trace = model.trace(batch, k=k if explicit else 1, noise=noise)
    return importance_bound(trace.log_joint_ratio) if explicit else trace.log_lik[0]


def _explicit(model: Model) -> bool:
    """Tell whether codes have densities, given x and before."""
    return "density" in model.posterior.offers and model.prior is not None


def _refuse_points(model: Model) -> None:
    if not _explicit(model):
        raise PlanError("a plain autoencoder gives x no density: fit a VAE, or compare its score_samples")


def _log_mean(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the mean of weights (k, n), and its standard error by the delta method."""
    k = len(log_weights)
    value = importance_bound(log_weights)
    share = (log_weights - value).exp()  # of mean one
    return value, share.std(0) / math.sqrt(k)


@torch.no_grad()
def log_likelihood(
    model: Model, batch: Batch, *, k: int, noise: Noise, block: int = 64
) -> tuple[Tensor, Tensor]:
    """Estimate log p(x) by importance sampling, with how far off the estimate may be.

    The weights' mean has no bias; its logarithm has one downwards, of about half the squared standard error.
    Where that error is not small, the posterior misses where p(x, z) is large, and the error itself cannot be
    trusted: take more samples, or :func:`annealed_log_likelihood`.

    Parameters
    ----------
    model : Model
        In evaluation mode; its own prior counts, not a density that was fitted to its codes.
    batch : Batch
        ``n`` rows.
    k : int
        Importance samples, two or more, of each row on its own.
    noise : Noise
        Where the randomness comes from.
    block : int
        How many of them pass at once: memory is bounded by ``block`` times ``n`` rows.

    Returns
    -------
    values, standard_error : Tensor
        ``(n,)`` each, float64, nats an item in the input's units.

    Raises
    ------
    PlanError
        If the model gives x no density, or ``k`` is one.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8; Owen 2013, "Monte Carlo theory,
    methods and examples", section 9.2 and equation 2.36 (standard error of a function of a mean).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density import log_likelihood
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> value, error = log_likelihood(model, Batch(torch.zeros(3, 4)), k=200, noise=Noise(0))
    >>> value.shape, bool((error < 0.5).all())
    (torch.Size([3]), True)
    """
    _refuse_points(model)
    if k < 2:
        raise PlanError(f"{k} importance sample has no standard error: take two or more")
    parts = [
        model.trace(batch, k=min(block, k - start), noise=noise).log_joint_ratio.double()
        for start in range(0, k, block)
    ]
    return _log_mean(torch.cat(parts))


def annealed_log_likelihood(
    model: Model, batch: Batch, *, k: int, noise: Noise, steps: int = 100
) -> tuple[Tensor, Tensor]:
    """Estimate log p(x) by annealed importance sampling: from q(z | x) to p(z | x) in small steps.

    Between two steps codes move by Hamiltonian Monte Carlo, in the scale of q. How far they leap is found by
    a run of its own before, so that the mean weight has no bias. Where q misses much of p(z | x), this takes
    far fewer samples than :func:`log_likelihood`.

    Parameters
    ----------
    model : Model
        In evaluation mode, of one stochastic layer; its own prior counts.
    batch : Batch
        ``n`` rows.
    k : int
        Chains of each row, two or more.
    noise : Noise
        Where the randomness comes from.
    steps : int
        Temperatures; each takes five passes, forward and back, through the decoder.

    Returns
    -------
    values, standard_error : Tensor
        ``(n,)`` each, float64, nats an item in the input's units.

    Raises
    ------
    PlanError
        If the model gives x no density, or ``k`` is one.

    References
    ----------
    Neal 2001, arXiv:physics/9803008; Wu et al. 2017, arXiv:1611.04273 (for decoders); Neal 2011,
    arXiv:1206.1901 (Hamiltonian dynamics).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density import annealed_log_likelihood
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> value, error = annealed_log_likelihood(model, Batch(torch.zeros(3, 4)), k=4, noise=Noise(0), steps=20)
    >>> value.shape, bool((error < 0.5).all())
    (torch.Size([3]), True)
    """
    _refuse_points(model)
    if "log_prob" not in model.posterior.offers:
        raise PlanError(
            f"{type(model.posterior.plain).__name__} knows the density of its own draws only, which "
            "chains move away from: use method='importance'"
        )
    if getattr(model.prior, "support", ""):
        raise PlanError(
            f"codes lie {model.prior.support}, which chains in all of R^d leave: use method='importance'"  # type: ignore[union-attr]
        )
    if k < 2:
        raise PlanError(f"{k} chain has no standard error: take two or more")
    n = len(batch)
    leaps = torch.full((steps, n), 0.3, dtype=batch.x.dtype, device=batch.x.device)
    _anneal(model, batch, min(k, 8), noise, leaps, adapt=True)
    return _log_mean(_anneal(model, batch, k, noise, leaps, adapt=False))


def _anneal(model: Any, batch: Batch, k: int, noise: Noise, leaps: Tensor, *, adapt: bool) -> Tensor:
    """Log weights ``(k, n)`` of chains; with ``adapt`` the leaps ``(steps, n)`` are set on the way."""
    with torch.no_grad():
        c = model.conditioned(batch.c, len(batch))
        q = model.q(batch.x, c)
        p = model.prior(c, posterior=model.posterior.plain)
        z, scale = q.draw(k, noise).z, q.std()

    def log_densities(z: Tensor) -> tuple[Tensor, Tensor]:
        return q.log_prob(z), p.log_prob(z) + model.log_likelihood(model.likelihood(z, c), batch.x)

    def slope(z: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
        """Both log densities, and how the one in between changes with the code, in the scale of q."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            ours, theirs = log_densities(z)
            between = (1 - share) * ours + share * theirs
            by_z = torch.autograd.grad(between.sum(), z)[0]
        return ours.detach(), theirs.detach(), scale * by_z

    log_weight = z.new_zeros(z.shape[:2], dtype=torch.float64)
    steps, leap = len(leaps), leaps[0].clone()
    ours, theirs, _ = slope(z, 0.0)
    for step in range(steps):
        before, share = step / steps, (step + 1) / steps
        log_weight += (share - before) * (theirs.double() - ours.double())
        if step + 1 == steps:
            break
        leap = leap if adapt else leaps[step]
        far = leap.unsqueeze(-1)
        ours, theirs, push = slope(z, share)
        momentum = noise.normal(z.shape, z)
        start = (1 - share) * ours + share * theirs - 0.5 * momentum.square().sum(-1)
        there, moving = z, momentum + 0.5 * far * push
        for leapt in range(LEAPFROG):
            there = there + far * scale * moving
            new_ours, new_theirs, push = slope(there, share)
            moving = moving + (1.0 if leapt + 1 < LEAPFROG else 0.5) * far * push
        end = (1 - share) * new_ours + share * new_theirs - 0.5 * moving.square().sum(-1)
        chance = (end - start).exp().clamp_max(1.0).nan_to_num(0.0)
        taken = noise.uniform(chance.shape, chance) < chance
        z = torch.where(taken.unsqueeze(-1), there, z)
        ours, theirs = torch.where(taken, new_ours, ours), torch.where(taken, new_theirs, theirs)
        if adapt:
            leaps[step] = leap
            leap = (leap * (0.5 * (chance.mean(0) - ACCEPTED)).exp()).clamp(1e-4, 1.5)
    return log_weight
