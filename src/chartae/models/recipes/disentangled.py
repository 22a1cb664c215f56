"""Independent dimensions, or a given amount of information."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.core.errors import PlanError
from chartae.models.assembly import assemble
from chartae.models.recipes.variational import _normal
from chartae.models.registry import recipe
from chartae.parts.objectives import DIP, GECO, KL, Capacity, NegLogLik, TotalCorrelation, elbo

__all__: list[str] = []


@recipe(
    "beta-tc-vae",
    paper="arXiv:1802.04942",
    parts="normal posterior, N(0, I) prior; nll + kl + (β - 1) total correlation of the batch",
)
def beta_tc_vae(
    shape: Any, *, beta: float = 6.0, covariance: str = "diagonal", warmup: float = 0.0, **common: Any
) -> Plan:
    """VAE with a weight on the total correlation of its codes.

    References
    ----------
    Chen et al. 2018, arXiv:1802.04942, with α = γ = 1.
    """
    if beta < 1:
        raise PlanError(f"beta={beta:g} rewards dependent dimensions: use 1 or more, where 1 is the VAE")
    objective = elbo(warmup=warmup) + (beta - 1.0) * TotalCorrelation()
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "disentangled-beta-vae",
    paper="arXiv:1804.03599",
    parts="normal posterior, N(0, I) prior; nll + γ |kl - C|",
)
def disentangled_beta_vae(
    shape: Any,
    *,
    gamma: float = 1000.0,
    capacity: float = 25.0,
    warmup: float = 25.0,
    covariance: str = "diagonal",
    **common: Any,
) -> Plan:
    """VAE whose KL is held at a number of nats, which rises over the epochs of a warm-up.

    References
    ----------
    Burgess et al. 2018, arXiv:1804.03599.
    """
    objective = NegLogLik() + gamma * Capacity(capacity, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "geco-vae",
    paper="arXiv:1810.00597",
    parts="normal posterior, N(0, I) prior; kl, and a reconstruction error held by a multiplier",
)
def geco_vae(
    shape: Any, *, tolerance: float = 0.2, rate: float = 0.02, covariance: str = "diagonal", **common: Any
) -> Plan:
    """VAE of the smallest KL that reconstructs within a tolerance, in the model's units.

    References
    ----------
    Rezende and Viola 2018, arXiv:1810.00597.
    """
    objective = GECO(tolerance, rate=rate) + KL()
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "dip-vae",
    paper="arXiv:1711.00848",
    parts="normal posterior, N(0, I) prior; nll + kl + distance of the codes' covariance from I",
)
def dip_vae(
    shape: Any,
    *,
    off: float = 10.0,
    on: float = 10.0,
    kind: str = "ii",
    covariance: str = "diagonal",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose codes are to be uncorrelated and of variance one.

    References
    ----------
    Kumar, Sattigeri and Balakrishnan 2018, arXiv:1711.00848.
    """
    objective = elbo(warmup=warmup) + DIP(off, on, kind=kind)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)
