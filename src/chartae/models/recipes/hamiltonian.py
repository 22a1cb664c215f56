"""Posteriors that follow the model's own log density."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble, seen_of
from chartae.models.registry import recipe
from chartae.parts.objectives import elbo

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
    second_order: bool = True,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose posterior samples take steps of Hamiltonian dynamics along log p(x, z).

    References
    ----------
    Caterini, Doucet and Sejdinovic 2018, arXiv:1805.11328.
    """
    dynamics = {"leapfrogs": leapfrogs, "step": step, "tempering": tempering, "second_order": second_order}
    objective = elbo(warmup=warmup)
    return assemble(shape, posterior=("hamiltonian", dynamics), objective=objective, **common)


@recipe(
    "rhvae",
    paper="arXiv:2010.11518",
    parts="normal posterior that leaps along log p(x, z) by a learned metric, N(0, I) prior; nll + kl",
)
def rhvae(
    shape: Any,
    *,
    leapfrogs: int = 3,
    step: float = 0.05,
    tempering: str = "fixed",
    second_order: bool = True,
    temperature: float = 1.5,
    regularization: float = 0.01,
    centroids: int = 100,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose posterior samples take steps of Riemannian Hamiltonian dynamics, by a metric that is learned.

    References
    ----------
    Chadebec, Mantoux and Allassonnière 2020, arXiv:2010.11518; Chadebec et al. 2021, arXiv:2105.00026.
    """
    dynamics = {"leapfrogs": leapfrogs, "step": step, "tempering": tempering, "second_order": second_order}
    metric = {"temperature": temperature, "regularization": regularization, "centroids": centroids}
    objective = elbo(warmup=warmup)
    return assemble(
        shape,
        posterior=("riemannian", dynamics | metric | {"shape": seen_of(shape)}),
        objective=objective,
        **common,
    )
