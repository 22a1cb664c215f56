"""Codes matched to the prior as a whole."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.objectives import KL, MMD, Adversary, CramerWold, EppsPulley, NegLogLik, SlicedWasserstein

__all__: list[str] = []


def _matched(shape: Any, objective: Any, **common: Any) -> Plan:
    """An autoencoder with a point posterior, whose codes are matched to N(0, I)."""
    return assemble(shape, posterior="delta", objective=objective, **common)


@recipe("wae-mmd", paper="arXiv:1711.01558", parts="delta posterior, N(0, I) prior; nll + λ MMD²")
def wae_mmd(
    shape: Any, *, lam: float = 100.0, kernel: str = "imq", closed: bool = False, **common: Any
) -> Plan:
    """Wasserstein autoencoder: codes follow the prior by maximum mean discrepancy.

    References
    ----------
    Tolstikhin et al. 2018, arXiv:1711.01558.
    """
    return _matched(shape, NegLogLik() + lam * MMD(kernel, closed=closed), **common)


@recipe("swae", paper="arXiv:1804.01947", parts="delta posterior, N(0, I) prior; nll + λ sliced Wasserstein²")
def swae(shape: Any, *, lam: float = 100.0, slices: int = 64, **common: Any) -> Plan:
    """Sliced Wasserstein autoencoder: projections of codes follow those of the prior.

    References
    ----------
    Kolouri et al. 2019, arXiv:1804.01947.
    """
    return _matched(shape, NegLogLik() + lam * SlicedWasserstein(slices), **common)


@recipe("cramer-wold-ae", paper="arXiv:1805.09235", parts="delta posterior, N(0, I) prior; nll + λ log CW²")
def cramer_wold_ae(shape: Any, *, lam: float = 3.0, **common: Any) -> Plan:
    """Autoencoder whose codes follow the prior by the Cramér-Wold distance, in closed form.

    References
    ----------
    Knop et al. 2020, arXiv:1805.09235.
    """
    return _matched(shape, NegLogLik() + lam * CramerWold(), **common)


@recipe(
    "epps-pulley-ae",
    paper="Epps and Pulley 1983; arXiv:2511.08544",
    parts="delta posterior, N(0, I) prior; nll + λ Epps-Pulley on random slices",
)
def epps_pulley_ae(
    shape: Any, *, lam: float = 100.0, slices: int = 64, reach: float = 4.0, **common: Any
) -> Plan:
    """Autoencoder whose codes follow the prior by their characteristic function.

    References
    ----------
    Epps and Pulley 1983, doi:10.1093/biomet/70.3.723; Balestriero and LeCun 2025, arXiv:2511.08544.
    """
    return _matched(shape, NegLogLik() + lam * EppsPulley(slices, reach=reach), **common)


@recipe("aae", paper="arXiv:1511.05644", parts="delta posterior, N(0, I) prior; nll + λ adversary")
def aae(shape: Any, *, lam: float = 3.0, **common: Any) -> Plan:
    """Adversarial autoencoder: a critic cannot tell codes from draws of the prior.

    References
    ----------
    Makhzani et al. 2016, arXiv:1511.05644.
    """
    return _matched(shape, lambda model: NegLogLik() + lam * Adversary(model.latent_dim), **common)


@recipe(
    "info-vae",
    paper="arXiv:1706.02262",
    parts="normal posterior, N(0, I) prior; nll + (1 - α) kl + (α + λ - 1) MMD²",
)
def info_vae(
    shape: Any,
    *,
    alpha: float = 0.5,
    lam: float = 100.0,
    kernel: str = "imq",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose aggregate posterior is matched as well, so that codes may say more of their items.

    References
    ----------
    Zhao, Song and Ermon 2019, arXiv:1706.02262, equation 6.
    """
    objective = NegLogLik() + (1 - alpha) * KL(warmup=warmup) + (alpha + lam - 1) * MMD(kernel)
    return assemble(shape, objective=objective, **common)
