"""Posteriors that follow the model's own log density."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble, recipe
from chartae.parts.objectives import KL, NegLogLik

__all__: list[str] = []


@recipe(
    "hvae",
    paper="arXiv:1805.11328",
    parts="normal posterior that leaps along log p(x, z), N(0, I) prior; nll + kl",
)
def hvae(
    shape: Any,
    *,
    leapfrogs: int = 3,
    step: float = 0.05,
    tempering: str = "fixed",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose posterior samples take steps of Hamiltonian dynamics along log p(x, z).

    References
    ----------
    Caterini, Doucet and Sejdinovic 2018, arXiv:1805.11328.
    """
    dynamics = {"leapfrogs": leapfrogs, "step": step, "tempering": tempering}
    objective = NegLogLik() + KL(warmup=warmup)
    return assemble(shape, posterior=("hamiltonian", dynamics), objective=objective, **common)
