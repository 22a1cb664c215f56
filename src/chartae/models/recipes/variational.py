"""Variational autoencoders with normal posteriors."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.core.errors import PlanError
from chartae.core.registry import suggest
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.objectives import IWAE, KL, NegLogLik, elbo

__all__: list[str] = []

#: What a VAE's posterior may say of how the dimensions of a code go together, and the part that says it.
COVARIANCES = {"diagonal": "normal", "full": "full-normal"}


def _normal(covariance: str) -> str:
    if covariance not in COVARIANCES:
        raise PlanError(f"unknown covariance {covariance!r}: {suggest(covariance, COVARIANCES)}")
    return COVARIANCES[covariance]


@recipe("vae", paper="arXiv:1312.6114", parts="normal posterior, N(0, I) prior; nll + kl")
def vae(
    shape: Any, *, covariance: str = "diagonal", free_bits: float = 0.0, warmup: float = 0.0, **common: Any
) -> Plan:
    """Variational autoencoder.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114; with a full covariance arXiv:1906.02691, section 2.5.1.
    """
    objective = elbo(free_bits=free_bits, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "cyclical-vae",
    paper="arXiv:1903.10145",
    parts="normal posterior, N(0, I) prior; nll + kl that warms up several times, with free bits",
)
def cyclical_vae(
    shape: Any,
    *,
    covariance: str = "diagonal",
    free_bits: float = 0.5,
    warmup: float = 20.0,
    cycles: int = 4,
    **common: Any,
) -> Plan:
    """VAE for a decoder that could do without the code, as one of texts could.

    References
    ----------
    Fu et al. 2019, arXiv:1903.10145; free bits: Kingma et al. 2016, arXiv:1606.04934.
    """
    objective = NegLogLik() + KL(free_bits=free_bits, warmup=warmup, cycles=cycles)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe("beta-vae", paper="Higgins et al. 2017 (ICLR)", parts="normal posterior, N(0, I) prior; nll + β kl")
def beta_vae(
    shape: Any, *, beta: float = 4.0, covariance: str = "diagonal", warmup: float = 0.0, **common: Any
) -> Plan:
    """VAE with a weight on the KL term.

    References
    ----------
    Higgins et al. 2017, "beta-VAE: learning basic visual concepts with a constrained variational framework".
    """
    objective = NegLogLik() + beta * KL(warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe("iwae", paper="arXiv:1509.00519", parts="normal posterior, N(0, I) prior; importance-weighted bound")
def iwae(
    shape: Any,
    *,
    k: int = 5,
    gradient: str = "plain",
    kept: int | None = None,
    growth: float = 0.0,
    covariance: str = "diagonal",
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE trained on the bound of k importance samples.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519; gradient="dreg": Tucker et al. 2019,
    arXiv:1810.04152.
    """
    objective = IWAE(k, gradient=gradient, kept=kept, growth=growth, warmup=warmup)
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)


@recipe(
    "cvae",
    paper="Sohn, Lee and Yan 2015 (NeurIPS)",
    parts="normal posterior, N(0, I) or conditional normal prior, condition; nll + kl",
    conditional=True,
)
def cvae(
    shape: Any,
    *,
    conditional_prior: bool = False,
    covariance: str = "diagonal",
    free_bits: float = 0.0,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE with labels, vectors or both as condition.

    References
    ----------
    Sohn, Lee and Yan 2015, "Learning structured output representation using deep conditional ...".
    """
    if conditional_prior and not common.get("condition"):
        raise PlanError("conditional_prior=True needs a condition: pass y to fit")
    return assemble(
        shape,
        posterior=_normal(covariance),
        prior="conditional-normal" if conditional_prior else "standard-normal",
        objective=elbo(free_bits=free_bits, warmup=warmup),
        **common,
    )
