"""Several stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chartae.core.contracts import Objective, Plan
from chartae.models.assembly import assemble
from chartae.models.registry import recipe
from chartae.parts.objectives import elbo
from chartae.parts.posteriors import layer_sizes

__all__: list[str] = []

WARMUP = 5.0  # epochs; without one most dimensions fall silent before they are of use


def _layers(d: int, *, levels: int | None, sizes: Sequence[int] | None, **_: Any) -> int:
    return max(d, levels or 2) if sizes is None else sum(sizes)


@recipe(
    "hierarchical-vae",
    paper="arXiv:1509.00519",
    parts="bottom-up normal posterior, top-down normal prior; nll + kl, or the bound of k importance samples",
    sized=_layers,
)
def hierarchical_vae(
    shape: Any,
    *,
    levels: int | None = None,
    k: int = 1,
    kept: int | None = None,
    growth: float = 0.0,
    sizes: Sequence[int] | None = None,
    inner: Sequence[int] | None = None,
    free_bits: float = 0.0,
    warmup: float = WARMUP,
    **common: Any,
) -> Plan:
    """VAE with several stochastic layers, whose encoder draws them from the data upwards.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equations 1 and 2.
    """
    layers = {"levels": levels, "sizes": sizes, "inner": inner}
    objective = elbo(k, kept=kept, growth=growth, free_bits=free_bits, warmup=warmup)
    return _layered("bottom-up", shape, layers, objective, **common)


@recipe(
    "ladder-vae",
    paper="arXiv:1602.02282",
    parts="ladder posterior, top-down normal prior; nll + kl, or the bound of k importance samples",
    sized=_layers,
)
def ladder_vae(
    shape: Any,
    *,
    levels: int | None = None,
    k: int = 1,
    kept: int | None = None,
    growth: float = 0.0,
    sizes: Sequence[int] | None = None,
    inner: Sequence[int] | None = None,
    free_bits: float = 0.0,
    warmup: float = WARMUP,
    **common: Any,
) -> Plan:
    """VAE with several stochastic layers, whose encoder corrects what each layer's prior says from above.

    References
    ----------
    Sønderby et al. 2016, arXiv:1602.02282 (without batch normalization).
    """
    layers = {"levels": levels, "sizes": sizes, "inner": inner}
    objective = elbo(k, kept=kept, growth=growth, free_bits=free_bits, warmup=warmup)
    return _layered("ladder", shape, layers, objective, **common)


def _layered(posterior: str, shape: Any, layers: dict[str, Any], objective: Objective, **common: Any) -> Plan:
    layers |= {"activation": common.get("activation", "relu")}
    return assemble(
        shape,
        posterior=(posterior, layers),
        prior=("top-down", layers),
        decoded=layer_sizes(common.get("latent_dim", 2), layers["levels"], layers["sizes"])[0],
        objective=objective,
        **common,
    )
