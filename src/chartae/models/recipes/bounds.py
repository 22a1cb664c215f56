"""Other bounds of several samples."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble
from chartae.models.recipes.variational import _normal
from chartae.models.registry import recipe
from chartae.parts.objectives import CIWAE, MIWAE, PIWAE

__all__: list[str] = []


@recipe(
    "miwae",
    paper="arXiv:1802.04537",
    parts="normal posterior, N(0, I) prior; m bounds of k samples, averaged",
)
def miwae(
    shape: Any,
    *,
    m: int = 3,
    k: int = 5,
    gradient: str = "plain",
    kept: int | None = None,
    covariance: str = "diagonal",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE trained on the mean of m importance-weighted bounds.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537; gradient="dreg": Tucker et al. 2019, arXiv:1810.04152.
    """
    objective = MIWAE(m, k, gradient=gradient, kept=kept, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "piwae",
    paper="arXiv:1802.04537",
    parts="normal posterior, N(0, I) prior; one bound of m k samples for the decoder, miwae for the encoder",
)
def piwae(
    shape: Any,
    *,
    m: int = 3,
    k: int = 5,
    gradient: str = "plain",
    covariance: str = "diagonal",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose decoder follows a tighter bound than its encoder.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537; gradient="dreg": Tucker et al. 2019, arXiv:1810.04152.
    """
    objective = PIWAE(m, k, gradient=gradient, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "ciwae", paper="arXiv:1802.04537", parts="normal posterior, N(0, I) prior; β (nll + kl) + (1 - β) iwae"
)
def ciwae(
    shape: Any,
    *,
    k: int = 5,
    beta: float = 0.5,
    gradient: str = "plain",
    covariance: str = "diagonal",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE trained on a mixture of the ELBO and the importance-weighted bound.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537; gradient="dreg": Tucker et al. 2019, arXiv:1810.04152.
    """
    objective = CIWAE(k, beta, gradient=gradient, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)
