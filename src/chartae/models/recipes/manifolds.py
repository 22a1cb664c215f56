"""Codes on a sphere or in hyperbolic space."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Objective, Plan
from chartae.models.assembly import assemble, recipe
from chartae.parts.objectives import IWAE, KL, NegLogLik

__all__: list[str] = []


def _bound(k: int) -> Objective:
    """Give the bound of k importance samples, and the one that has a KL for k = 1."""
    return NegLogLik() + KL() if k == 1 else IWAE(k)


@recipe(
    "svae",
    paper="arXiv:1804.00891; arXiv:2006.04437 (power spherical)",
    parts="von Mises-Fisher or power spherical posterior, uniform prior on the sphere; nll + kl, or iwae",
)
def svae(shape: Any, *, profile: str = "vmf", k: int = 1, **common: Any) -> Plan:
    """VAE whose codes are directions: points on a sphere, which no prior pulls together.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891; De Cao and Aziz 2020, arXiv:2006.04437 (profile="power").
    """
    posterior = ("sphere", {"profile": profile})
    return assemble(shape, posterior=posterior, prior="uniform-sphere", objective=_bound(k), **common)


@recipe(
    "poincare-vae",
    paper="arXiv:1901.06033",
    parts="wrapped normal posterior and prior on the Poincaré ball; nll + kl, or iwae",
)
def poincare_vae(shape: Any, *, curvature: float = 1.0, k: int = 1, **common: Any) -> Plan:
    """VAE whose codes lie in a hyperbolic space of curvature -c, which has room for trees.

    References
    ----------
    Mathieu et al. 2019, arXiv:1901.06033.
    """
    bent = {"curvature": curvature}
    posterior, prior = ("poincare", bent), ("wrapped-normal", bent)
    return assemble(shape, posterior=posterior, prior=prior, objective=_bound(k), **common)
