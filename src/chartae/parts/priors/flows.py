"""Priors that are flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.parts.distributions import DiagonalNormal, Transformed
from chartae.parts.flows import autoregressive, checked
from chartae.parts.networks import full
from chartae.parts.priors.base import priors

__all__ = ["FlowPrior"]


@priors.register("flow")
class FlowPrior(Prior):
    """N(0, I) through the inverse of autoregressive transforms, which are learned with the rest.

    The density of codes, which training needs, takes one pass; a draw takes one for each dimension. It starts
    near N(0, I). Splines bend what lies between -5 and 5 and leave the rest as it is.

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        Width of the condition.
    kind : {"spline", "affine"}
        Of the transforms.
    length : int
        How many there are.
    hidden : sequence of int
        Widths of the layers in each.
    bins : int
        Of splines.
    conditional : bool
        Whether the flow sees the condition, where there is one.

    References
    ----------
    Chen et al. 2017, arXiv:1611.02731, section 3.2 (autoregressive flows as priors); Papamakarios, Pavlakou
    and Murray 2017, arXiv:1705.07057 (affine); Durkan et al. 2019, arXiv:1906.04032 (splines).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.priors import FlowPrior
    >>> FlowPrior(3)().log_prob(torch.zeros(7, 3)).shape, FlowPrior(3, 2)(torch.zeros(7, 2)).batch_shape
    (torch.Size([7]), torch.Size([7]))
    """

    offers = frozenset({"log_prob", "point"})
    _zero: Tensor

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int = 0,
        kind: str = "spline",
        length: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        conditional: bool = True,
    ) -> None:
        super().__init__()
        checked(kind, ("spline", "affine"), flows=length, flow_hidden=hidden, bins=bins)
        self.context = condition_dim if conditional else 0
        self.layers = autoregressive(
            kind, latent_dim, context=self.context, length=length, hidden=hidden, bins=bins
        )
        self.register_buffer("_zero", torch.zeros(latent_dim), persistent=False)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        seen = None
        if self.context:
            assert c is not None, "a conditional prior is called with its condition"
            seen = full(c)
        zero = self._zero if seen is None else self._zero.expand(len(seen), -1)
        with torch.autocast(zero.device.type, enabled=False):
            steps = [layer(seen).inv for layer in reversed(self.layers)]
        return Transformed(DiagonalNormal(zero, zero.new_zeros(())), steps)
