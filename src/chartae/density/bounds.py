"""Bounds on log p(x), and estimates of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Level, Model
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.density.refining import refined_posterior
from chartae.parts.distributions import kl
from chartae.parts.objectives import importance_bound

__all__ = ["annealed_log_likelihood", "information", "log_likelihood", "log_likelihood_bound"]

FEWEST = 5.0  # effective samples of which a mean says something
TAILED = 500  # samples of which the tail says something
EXACT = 1e-6  # nats, an error below which weights differ by rounding
REFINING = 16  # samples of a step that refines a posterior
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


@torch.no_grad()
def information(model: Any, batch: Batch, *, k: int, noise: Noise) -> Tensor:
    """KL(q(z | x) || p(z)): how many nats a code says of its item.

    Of draws that leap, their momentum counts as a part of the code: the value is an upper bound.

    Parameters
    ----------
    model : Model
        In evaluation mode.
    batch : Batch
        ``n`` rows.
    k : int
        Samples, where there is no closed form.
    noise : Noise
        Where the randomness comes from.

    Returns
    -------
    Tensor
        ``(n,)`` nats.

    Raises
    ------
    PlanError
        If codes are points, or there is no p(z).

    References
    ----------
    Alemi et al. 2018, arXiv:1711.00464, equation 4 (its mean over items is the rate).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density.bounds import information
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> information(model, Batch(torch.zeros(3, 4)), k=8, noise=Noise(0)).shape
    torch.Size([3])
    """
    if not _explicit(model):
        raise PlanError("codes of this model are points, or have no p(z) to say more than: fit a VAE")
    c = model.conditioned(batch.c, len(batch))
    q, p = model.q(batch.x, c), model.prior(c, posterior=model.posterior.plain)
    closed = kl(q, p)
    if closed is not None:
        return closed.sum(1)
    level = Level(q, p, q.draw(k, noise))
    found: Tensor = (level.log_posterior - level.log_prior).mean(0)
    return found


def _explicit(model: Model) -> bool:
    """Tell whether codes have densities, given x and before."""
    return "density" in model.posterior.offers and model.prior is not None


def _refuse_points(model: Model) -> None:
    if not _explicit(model):
        raise PlanError(
            "codes of this model are points, given x, and leave p(x) without a bound: fit a VAE, or compare "
            "its score_samples"
        )


class Estimate(NamedTuple):
    """Log p(x) of rows, and how far to trust it.

    Parameters
    ----------
    value : Tensor
        ``(n,)`` nats.
    error : Tensor
        ``(n,)`` nats, its standard error.
    trusted : Tensor
        ``(n,)`` whether the weights' tail is light enough for both to say something.

    Examples
    --------
    >>> import torch
    >>> from chartae.density.bounds import Estimate
    >>> Estimate.of(torch.zeros(50, 2, dtype=torch.double)).value.tolist()
    [0.0, 0.0]
    """

    value: Tensor
    error: Tensor
    trusted: Tensor

    @classmethod
    def of(cls, log_weights: Tensor) -> Estimate:
        """Take the mean of weights.

        Weights of which few make up the mean, or whose tail is so heavy that their variance is not what it
        seems, mislead: most of p(x, z) may be where no sample has fallen.

        Parameters
        ----------
        log_weights : Tensor
            ``(k, n)`` of ``k`` samples of each row.

        Returns
        -------
        Estimate
            Errors are by the delta method.

        References
        ----------
        Vehtari, Simpson, Gelman, Yao and Gabry 2024, arXiv:1507.02646, section 3.2 (tails and their bounds).
        """
        k = len(log_weights)
        value = importance_bound(log_weights)
        share = (log_weights - value).exp()  # of mean one
        error = share.std(0) / math.sqrt(k)
        trusted = 1 / (1 / k + error.square()) >= min(FEWEST, k / 2)  # effective samples
        if k >= TAILED:
            heaviest = min(1 - 1 / math.log10(k), 0.7)
            trusted &= (tail_shape(log_weights) <= heaviest) | (error < EXACT)
        return cls(value, error, trusted)


def tail_shape(log_weights: Tensor) -> Tensor:
    """Estimate how heavy the upper tail of weights is: the shape k of a generalized Pareto distribution.

    Moments of order 1 / k and more do not exist: from 0.5 on the variance, from 1 on the mean.

    Parameters
    ----------
    log_weights : Tensor
        ``(k, n)``, of which the largest 3 √k are looked at, but no more than a fifth.

    Returns
    -------
    Tensor
        ``(n,)``, drawn a little towards 0.5; -inf where the largest are all alike.

    References
    ----------
    Zhang and Stephens 2009, doi:10.1198/tech.2009.08017; Vehtari et al. 2024, arXiv:1507.02646, appendix G.

    Examples
    --------
    >>> import torch
    >>> from chartae.density.bounds import tail_shape
    >>> uniform = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    >>> [round(float(tail_shape(-power * uniform.log()).mean()), 1) for power in (0.2, 1.0)]
    [0.2, 1.0]
    """
    k = len(log_weights)
    m = min(k // 5, math.ceil(3 * math.sqrt(k)))
    top = log_weights.topk(m + 1, 0).values
    above = ((top[:m] - top[0]).exp() - (top[m] - top[0]).exp()).flip(0)  # in rising order
    alike = above[-1] <= 0
    above = torch.where(alike, 1.0, above)
    points = 30 + int(math.sqrt(m))
    grid = torch.arange(1, points + 1, dtype=above.dtype, device=above.device) - 0.5
    quarter = above[int(m / 4 + 0.5) - 1].clamp_min(1e-12 * above[-1])  # many may be alike
    b = (1 - (points / grid).sqrt())[:, None] / (3 * quarter) + 1 / above[-1]
    shapes = torch.stack([torch.log1p(-one * above).mean(0) for one in b])
    evidence = m * (torch.log(-b / shapes) - shapes - 1)
    best = (b * torch.softmax(evidence, 0)).sum(0)
    shape = (m * torch.log1p(-best * above).mean(0) + 10 * 0.5) / (m + 10)
    return torch.where(alike, -math.inf, shape)


@torch.no_grad()
def log_likelihood(
    model: Model, batch: Batch, *, k: int, noise: Noise, block: int = 64, refine: int = 0
) -> tuple[Tensor, Tensor]:
    """Estimate log p(x) by importance sampling, with how far off the estimate may be.

    The weights' mean has no bias; its logarithm has one downwards, of about half the squared standard error.
    Where that error is not small, the posterior misses where p(x, z) is large, and the error itself cannot be
    trusted: refine it, take more samples, or :func:`annealed_log_likelihood`.

    An encoder answers for all rows at once, and for new ones often with a posterior that is not the best of
    its kind. To refine it is to go on from there, for each row by itself, uphill on the bound of
    16 samples; those that are then weighed are others, so that their mean weight has no bias.

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
    refine : int
        Steps by which each row's posterior is refined first, if it is a normal distribution; a step takes as
        long as some 20 samples.

    Returns
    -------
    values, standard_error : Tensor
        ``(n,)`` each, float64, nats an item in the input's units.

    Raises
    ------
    PlanError
        If the model gives x no density, ``k`` is one, or the posterior is none that can be refined.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8; Owen 2013, "Monte Carlo theory,
    methods and examples", section 9.2 and equation 2.36 (standard error of a function of a mean); Cremer, Li
    and Duvenaud 2018, arXiv:1801.03558 (what a posterior of each row's own gains on the encoder's).

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
    return importance_estimate(model, batch, k=k, noise=noise, block=block, refine=refine)[:2]


@torch.no_grad()
def importance_estimate(
    model: Model, batch: Batch, *, k: int, noise: Noise, block: int = 64, refine: int = 0
) -> Estimate:
    """Estimate log p(x) as :func:`log_likelihood` does, and say whether to trust it."""
    _refuse_points(model)
    if k < 2:
        raise PlanError(f"{k} importance sample has no standard error: take two or more")
    if refine:
        q, weigh = refined_posterior(model, batch, noise, steps=refine, samples=REFINING, weighted=True)

    def log_weights(k: int) -> Tensor:
        if refine:
            return weigh(q.draw(k, noise).z)
        return model.trace(batch, k=k, noise=noise).log_joint_ratio

    parts = [log_weights(min(block, k - start)).double() for start in range(0, k, block)]
    return Estimate.of(torch.cat(parts))


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
        In evaluation mode; its own prior counts.
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
    return annealed_estimate(model, batch, k=k, noise=noise, steps=steps)[:2]


def annealed_estimate(model: Model, batch: Batch, *, k: int, noise: Noise, steps: int = 100) -> Estimate:
    """Estimate log p(x) as :func:`annealed_log_likelihood` does, and say whether to trust it."""
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
    return Estimate.of(_anneal(model, batch, k, noise, leaps, adapt=False))


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
