"""A critic beside a variational autoencoder."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Objective, Plan
from chartae.core.errors import PlanError
from chartae.models.assembly import assemble, features_of
from chartae.models.registry import recipe
from chartae.parts.objectives import KL, GanCritic, TotalCorrelationCritic, elbo

__all__: list[str] = []

FEATURES = 64  # of an item, as a critic sees it


@recipe(
    "factor-vae",
    paper="arXiv:1802.05983",
    parts="normal posterior, N(0, I) prior; nll + kl + γ total correlation",
)
def factor_vae(shape: Any, *, gamma: float = 6.0, warmup: float = 0.0, **common: Any) -> Plan:
    """VAE whose codes have independent dimensions, as a critic sees them.

    References
    ----------
    Kim and Mnih 2018, arXiv:1802.05983.
    """

    def objective(model: Any) -> Objective:
        return elbo(warmup=warmup) + gamma * TotalCorrelationCritic(model.latent_dim)

    return assemble(shape, objective=objective, **common)


@recipe(
    "vae-gan",
    paper="arXiv:1512.09300",
    parts="normal posterior, N(0, I) prior; kl + features + adversary + nll",
)
def vae_gan(shape: Any, *, values: float = 0.1, warmup: float = 0.0, **common: Any) -> Plan:
    """VAE that reconstructs what a critic of items sees, and fools it.

    References
    ----------
    Larsen et al. 2016, arXiv:1512.09300.
    """
    look = {name: common[name] for name in ("network", "hidden") if name in common}

    def objective(model: Any) -> Objective:
        if model.space.gaps or model.space.likelihood == "columns":
            raise PlanError(
                "a critic looks at whole items of one kind of values: use recipe 'vae' for tables and gaps"
            )
        return KL(warmup=warmup) + GanCritic(features_of(model.space, FEATURES, **look), FEATURES, values)

    return assemble(shape, objective=objective, **common)
