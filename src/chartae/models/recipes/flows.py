"""Flows as posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.flows import checked
from chartae.parts.objectives import elbo

__all__: list[str] = []


def _flow(shape: Any, warmup: float, common: dict[str, Any], **options: Any) -> Plan:
    return assemble(shape, posterior=("flow", options), objective=elbo(warmup=warmup), **common)


@recipe("vae-lin-nf", paper="arXiv:1505.05770", parts="planar or radial flow posterior, N(0, I); nll + kl")
def vae_lin_nf(
    shape: Any, *, kind: str = "planar", flows: int = 10, warmup: float = 0.0, **common: Any
) -> Plan:
    """VAE whose posterior is a normal through planar or radial flows.

    References
    ----------
    Rezende and Mohamed 2015, arXiv:1505.05770.
    """
    checked(kind, ("planar", "radial"))
    return _flow(shape, warmup, common, kind=kind, length=flows)


@recipe("vae-iaf", paper="arXiv:1606.04934", parts="inverse autoregressive posterior, N(0, I); nll + kl")
def vae_iaf(
    shape: Any,
    *,
    flows: int = 4,
    flow_hidden: Sequence[int] = (64, 64),
    flow_context: int = 16,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose posterior is a normal through inverse autoregressive flows.

    References
    ----------
    Kingma et al. 2016, arXiv:1606.04934.
    """
    return _flow(shape, warmup, common, kind="iaf", length=flows, hidden=flow_hidden, context=flow_context)


@recipe("spline-vae", paper="arXiv:1906.04032", parts="neural spline flow posterior, N(0, I); nll + kl")
def spline_vae(
    shape: Any,
    *,
    flows: int = 2,
    flow_hidden: Sequence[int] = (64, 64),
    bins: int = 8,
    flow_context: int = 16,
    warmup: float = 0.0,
    **common: Any,
) -> Plan:
    """VAE whose posterior is a normal through autoregressive neural spline flows.

    References
    ----------
    Durkan et al. 2019, arXiv:1906.04032, section 5.3.
    """
    options = {"hidden": flow_hidden, "bins": bins, "context": flow_context}
    return _flow(shape, warmup, common, kind="spline", length=flows, **options)
