"""Codes on a codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chartae.core.contracts import Objective, Plan
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.objectives import Auxiliary, NegLogLik

__all__: list[str] = []


def _slots(d: int, *, slots: int | None, **_: Any) -> int:
    return d if slots is None else slots * -(-d // max(1, slots))


def _levels(d: int, *, levels: int | Sequence[int], **_: Any) -> int:
    return d if isinstance(levels, int) or len(levels) == 1 else len(levels)


def _quantized(commitment: float, ema: float) -> Objective:
    """What is decoded, and what holds encoder and codebook together; epochs are compared by the former."""
    unit = "squared code units"
    objective = NegLogLik() + commitment * Auxiliary("commitment", unit=unit, judged=0.0)
    return objective if ema else objective + Auxiliary("codebook", unit=unit, judged=0.0)


@recipe(
    "vq-vae",
    paper="arXiv:1711.00937",
    parts="vector-quantized posterior; nll + codebook + β commitment; autoregressive density",
    sized=_slots,
)
def vq_vae(
    shape: Any,
    *,
    codes: int = 256,
    slots: int | None = None,
    commitment: float = 0.25,
    ema: float = 0.0,
    **common: Any,
) -> Plan:
    """Autoencoder whose code is made of vectors from a learned codebook.

    References
    ----------
    Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937.
    """
    posterior = "vq", {"codes": codes, "slots": slots, "ema": ema}
    return assemble(shape, posterior=posterior, prior=None, objective=_quantized(commitment, ema), **common)


@recipe(
    "rq-vae",
    paper="arXiv:2203.01941",
    parts="residual-quantized posterior; nll + codebook + β commitment; autoregressive density",
    sized=_slots,
)
def rq_vae(
    shape: Any,
    *,
    codes: int = 16,
    depth: int = 4,
    slots: int | None = None,
    commitment: float = 0.25,
    ema: float = 0.0,
    **common: Any,
) -> Plan:
    """Autoencoder whose code is a sum of vectors, each for what those before have left over.

    References
    ----------
    Lee et al. 2022, arXiv:2203.01941; Zeghidour et al. 2021, arXiv:2107.03312.
    """
    posterior = "rq", {"codes": codes, "depth": depth, "slots": slots, "ema": ema}
    return assemble(shape, posterior=posterior, prior=None, objective=_quantized(commitment, ema), **common)


@recipe(
    "fsq-vae",
    paper="arXiv:2309.15505",
    parts="rounded posterior; nll; autoregressive density",
    sized=_levels,
)
def fsq_vae(shape: Any, *, levels: int | Sequence[int] = (8,), **common: Any) -> Plan:
    """Autoencoder whose code is rounded to a few levels in each dimension.

    References
    ----------
    Mentzer et al. 2023, arXiv:2309.15505.
    """
    return assemble(shape, posterior=("fsq", {"levels": levels}), prior=None, objective=NegLogLik(), **common)


@recipe(
    "hrq-vae",
    paper="arXiv:2203.03463",
    parts="categorical posterior on each level of a residual codebook; nll + β kl; autoregressive density",
    sized=_slots,
)
def hrq_vae(
    shape: Any,
    *,
    codes: int = 16,
    depth: int = 3,
    slots: int | None = None,
    temperature: float = 1.0,
    drop: float = 0.1,
    beta: float = 1.0,
    **common: Any,
) -> Plan:
    """Autoencoder whose code goes from coarse to fine, with a categorical for each level.

    References
    ----------
    Hosking, Tang and Lapata 2022, arXiv:2203.03463.
    """
    options = {"codes": codes, "depth": depth, "slots": slots, "temperature": temperature, "drop": drop}
    objective = NegLogLik() + beta * Auxiliary("code_kl")
    return assemble(shape, posterior=("hrq", options), prior=None, objective=objective, **common)
