"""Codes on a sphere or in hyperbolic space."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.objectives import elbo

__all__: list[str] = []


@recipe(
    "svae",
    paper="arXiv:1804.00891; arXiv:2006.04437 (power spherical)",
    parts="von Mises-Fisher or power spherical posterior, uniform prior on the sphere; nll + kl, or iwae",
    sized=lambda d, **_: max(2, d),
)
def svae(shape: Any, *, profile: str = "vmf", k: int = 1, warmup: float = 0.0, **common: Any) -> Plan:
    """VAE whose codes are directions: points on a sphere, which no prior pulls together.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891; De Cao and Aziz 2020, arXiv:2006.04437 (profile="power").
    """
    posterior, objective = ("sphere", {"profile": profile}), elbo(k, warmup=warmup)
    return assemble(shape, posterior=posterior, prior="uniform-sphere", objective=objective, **common)


@recipe(
    "poincare-vae",
    paper="arXiv:1901.06033",
    parts="wrapped normal posterior and prior on the Poincaré ball; nll + kl, or iwae",
)
def poincare_vae(
    shape: Any, *, curvature: float = 1.0, k: int = 1, warmup: float = 0.0, **common: Any
) -> Plan:
    """VAE whose codes lie in a hyperbolic space of curvature -c, which has room for trees.

    References
    ----------
    Mathieu et al. 2019, arXiv:1901.06033.
    """
    bent = {"curvature": curvature}
    posterior, prior = ("poincare", bent), ("wrapped-normal", bent)
    objective = elbo(k, warmup=warmup)
    return assemble(shape, posterior=posterior, prior=prior, objective=objective, **common)
