"""Learned priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chartae.core.contracts import Plan
from chartae.core.errors import PlanError
from chartae.models.assembly import assemble, space_of
from chartae.models.registry import recipe
from chartae.parts.objectives import elbo

__all__: list[str] = []


def _learned(shape: Any, name: str, k: int, warmup: float, common: dict[str, Any], **options: Any) -> Plan:
    if options["conditional"] and not common.get("condition"):
        raise PlanError("conditional_prior=True needs a condition: pass y to fit")
    return assemble(shape, prior=(name, options), objective=elbo(k, warmup=warmup), **common)


@recipe(
    "vamp-vae",
    paper="arXiv:1705.07120",
    parts="normal posterior, VampPrior, condition; nll + kl, or iwae",
    conditional=True,
)
def vamp_vae(
    shape: Any,
    *,
    components: int = 500,
    k: int = 1,
    conditional_prior: bool = False,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose prior is the mean of the posteriors of learned pseudo-inputs.

    References
    ----------
    Tomczak and Welling 2018, arXiv:1705.07120.
    """
    options = {"space": space_of(shape), "components": components, "conditional": conditional_prior}
    return _learned(shape, "vamp", k, warmup, common, **options)


@recipe(
    "mixture-vae",
    paper="arXiv:1705.07120 (mixture of Gaussians prior)",
    parts="normal posterior, learned mixture of normals, condition; nll + kl, or iwae",
    conditional=True,
)
def mixture_vae(
    shape: Any,
    *,
    components: int = 20,
    k: int = 1,
    conditional_prior: bool = False,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose prior is a learned mixture of normals.

    References
    ----------
    Tomczak and Welling 2018, arXiv:1705.07120, section 2.
    """
    options = {"components": components, "conditional": conditional_prior}
    return _learned(shape, "mixture", k, warmup, common, **options)


@recipe(
    "flow-prior-vae",
    paper="arXiv:1611.02731 (autoregressive flow prior)",
    parts="normal posterior, autoregressive flow prior, condition; nll + kl, or iwae",
    conditional=True,
)
def flow_prior_vae(
    shape: Any,
    *,
    kind: str = "spline",
    flows: int = 3,
    flow_hidden: Sequence[int] = (64, 64),
    k: int = 1,
    conditional_prior: bool = False,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose prior is a learned autoregressive flow.

    References
    ----------
    Chen et al. 2017, arXiv:1611.02731; Durkan et al. 2019, arXiv:1906.04032 (splines).
    """
    options = {"kind": kind, "length": flows, "hidden": flow_hidden, "conditional": conditional_prior}
    return _learned(shape, "flow", k, warmup, common, **options)
