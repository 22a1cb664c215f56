"""Adversaries: critics that are trained beside the model, by the same backward pass.

The model's term sees the critic with constant weights, and the critic's term sees constant codes, so that the
sum of both has the right gradient for each: they step at the same time, and no phases are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Objective, Term, Trace
from chartae.core.errors import PlanError
from chartae.parts.networks import MLP, full
from chartae.parts.objectives.matching import draws_of

__all__ = ["Adversary", "GanCritic", "TotalCorrelationCritic"]

SLOPE = 0.1  # weight of the penalty on a critic's slope


def _constant(module: nn.Module, x: Tensor) -> Tensor:
    """Call a module whose weights pass no gradient on."""
    weights = {name: p.detach() for name, p in module.named_parameters()}
    return full(torch.func.functional_call(module, weights, (x,)))


def _codes(trace: Trace) -> Tensor:
    """All layers' codes side by side, ``(k n, d)``."""
    return torch.cat([level.z for level in trace.levels], -1).flatten(0, 1)


def _watched(real: Tensor) -> Tensor:
    """What a critic should take for real, without a past, and with a slope where something is learned."""
    return real.detach().requires_grad_(torch.is_grad_enabled())


def _spotted(high: Tensor, low: Tensor, real: Tensor) -> Tensor:
    """What a critic loses, ``(n,)`` in nats, by logits ``high`` of the real ones and ``low`` of the others.

    With the penalty on its slope at the real ones without which simultaneous steps circle around the
    equilibrium (Mescheder, Geiger and Nowozin 2018, arXiv:1801.04406, equation 9); not in evaluation.
    """
    high, low = full(high), full(low)
    rows = F.softplus(-high).flatten() + F.softplus(low).reshape(-1, len(real)).mean(0)
    if real.requires_grad:
        (slope,) = torch.autograd.grad(high.sum(), real, create_graph=True)
        rows = rows + 0.5 * SLOPE * slope.flatten(1).square().sum(1)
    return rows


class Adversary(Objective):
    """Match codes to the prior by a critic that tells the two apart: the adversarial autoencoder.

    The encoder minimizes ``-log σ(critic(z))`` and the critic the cross-entropy, both in nats. Neither says
    how good a model is, and epochs are not compared by them.

    Parameters
    ----------
    latent_dim : int
        d.
    hidden : sequence of int
        Widths of the critic's layers.

    References
    ----------
    Makhzani et al. 2016, arXiv:1511.05644, section 2; the encoder's loss that does not saturate: Goodfellow
    et al. 2014, arXiv:1406.2661, section 3; steps at the same time: Mescheder, Nowozin and Geiger 2017,
    arXiv:1705.10461.

    Examples
    --------
    >>> from chartae.parts.objectives import Adversary, NegLogLik
    >>> NegLogLik() + 10 * Adversary(latent_dim=2)
    nll + 10 * adversary
    """

    needs = frozenset({"posterior.reparameterized", "prior.point"})

    def __init__(self, latent_dim: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.critic = MLP((latent_dim,), (1,), hidden)

    def forward(self, trace: Trace) -> dict[str, Term]:
        z = _codes(trace)
        priors: list[Distribution] = [level.p for level in trace.levels]  # type: ignore[misc]
        real = _watched(torch.cat([draws_of(p, len(z), trace.noise) for p in priors], 1))
        fooled = F.softplus(-_constant(self.critic, z))
        critic = _spotted(self.critic(real), self.critic(z.detach()), real)
        return {"adversary": _rows(trace, fooled), "critic": _rows(trace, critic)}

    def __repr__(self) -> str:
        return "adversary"


def _rows(trace: Trace, values: Tensor) -> Term:
    """A term of ``(k n, 1)`` values by which epochs are not compared."""
    return Term(trace.expect(values.reshape(-1, len(trace.batch))), judged=0.0)


class TotalCorrelationCritic(Objective):
    """Total correlation of codes, KL(q(z) || Π q(z_j)), by a critic: the term of the FactorVAE.

    The critic tells codes from codes whose dimensions are shuffled over the batch; its logit is the log ratio
    of the two densities, in nats.

    Parameters
    ----------
    latent_dim : int
        d.
    hidden : sequence of int
        Widths of the critic's layers.

    References
    ----------
    Kim and Mnih 2018, arXiv:1802.05983, equation 3 and algorithm 2 (here with one batch, and steps at the
    same time).

    Examples
    --------
    >>> from chartae.parts.objectives import KL, NegLogLik, TotalCorrelationCritic
    >>> NegLogLik() + KL() + 6 * TotalCorrelationCritic(latent_dim=2)
    nll + kl + 6 * total_correlation
    """

    needs = frozenset({"posterior.reparameterized"})

    def __init__(self, latent_dim: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.critic = MLP((latent_dim,), (1,), hidden)

    def forward(self, trace: Trace) -> dict[str, Term]:
        z = _codes(trace)
        order = trace.noise.uniform(z.shape, z).argsort(0)
        shuffled = z.detach().gather(0, order)
        told = F.softplus(-full(self.critic(z.detach()))) + F.softplus(full(self.critic(shuffled)))
        return {
            "total_correlation": _rows(trace, _constant(self.critic, z)),
            "critic": Term(told.mean(), judged=0.0),
        }

    def __repr__(self) -> str:
        return "total_correlation"


class GanCritic(Objective):
    """Reconstruction as a critic of items sees it, and items that the critic takes for real: the VAE-GAN.

    Terms: half the squared distance between the critic's features of an item and of its reconstruction, the
    negative log density under unit noise; what the critic sees through in reconstructions and in samples from
    the prior, which trains the decoder alone; the critic's own loss; and, with a small weight, so that the
    likelihood stays one, the negative log-likelihood of values, by which epochs are compared.

    Parameters
    ----------
    features : nn.Module
        From ``(n, *x)`` to ``(n, m)`` features.
    width : int
        m.
    values : float
        Weight of the negative log-likelihood of values.

    Raises
    ------
    PlanError
        If the weight is negative.

    References
    ----------
    Larsen et al. 2016, arXiv:1512.09300, equations 7 to 9 and algorithm 1.

    Examples
    --------
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.objectives import KL, GanCritic
    >>> KL() + GanCritic(MLP((4,), (8,)), 8)
    kl + gan
    """

    needs = frozenset({"posterior.reparameterized", "prior.point", "space.differentiable"})

    def __init__(self, features: nn.Module, width: int, values: float = 0.1) -> None:
        super().__init__()
        if not values >= 0:
            raise PlanError(f"values={values:g} rewards what it should cost: use 0 or more")
        self.features, self.values = features, values
        self.head = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, trace: Trace) -> dict[str, Term]:
        x = _watched(trace.batch.x)
        (level,) = trace.levels
        assert level.p is not None
        z = level.z.detach()
        k, n = z.shape[:2]
        drawn = draws_of(level.p, k * n, trace.noise).reshape(z.shape)
        again = _expected(trace.model.likelihood(torch.cat([z, drawn]), trace.c)).flatten(0, 1)
        seen = _constant(self.features, _expected(trace.px).flatten(0, 1))
        target = self.features(x)
        gap = seen.unflatten(0, (k, n)) - full(target).detach()
        fooled = F.softplus(-_constant(self.head, _constant(self.features, again)))
        critic = _spotted(self.head(target), self.head(self.features(again.detach())), x)
        return {
            "nll": Term(-trace.expect(trace.log_lik), self.values, judged=1.0),
            "features": Term(0.5 * trace.expect(gap.square().sum(-1)), judged=0.0),
            "adversary": Term(fooled.reshape(2 * k, n).mean(0), judged=0.0),
            "critic": Term(critic, judged=0.0),
        }

    def __repr__(self) -> str:
        return "gan"


def _expected(px: Distribution) -> Tensor:
    """The mean item, with a gradient, ``(k, n, *x)``."""
    mean: Tensor = px.expected() if hasattr(px, "expected") else px.point()
    return mean
