"""Priors of several stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.parts.distributions import Chain, DiagonalNormal, StandardNormal
from chartae.parts.posteriors import ConditionalNormal, inner_widths, layer_sizes
from chartae.parts.priors.base import priors

__all__ = ["TopDownPrior"]


@priors.register("top-down")
class TopDownPrior(Prior):
    """Layers of normals: the highest is N(0, I), and each other one is given the one above it.

    Parameters
    ----------
    latent_dim : int
        d, of all layers together; the one nearest the data comes first in the code.
    condition_dim : int
        Width of the condition, which the layers below the highest depend on.
    levels, sizes
        As in :func:`~chartae.parts.posteriors.layer_sizes`.
    inner : sequence of int or None
        Widths of the hidden layers between two stochastic ones, as in
        :func:`~chartae.parts.posteriors.inner_widths`.
    activation : str
        Of those layers.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 1; Sønderby et al. 2016,
    arXiv:1602.02282, equations 1 to 3.

    Examples
    --------
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.priors import TopDownPrior
    >>> TopDownPrior(3, levels=2)().draw(5, Noise(0)).z.shape
    torch.Size([5, 3])
    """

    offers = frozenset({"log_prob", "point"})
    _where: Tensor

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int = 0,
        levels: int | None = None,
        sizes: Sequence[int] | None = None,
        inner: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.sizes = layer_sizes(latent_dim, levels, sizes)[::-1]
        self.downward = nn.ModuleList(
            ConditionalNormal(above, below, inner_widths(inner, above), condition_dim, activation)
            for above, below in zip(self.sizes, self.sizes[1:], strict=False)
        )
        self.register_buffer("_where", torch.zeros(()), persistent=False)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        highest: StandardNormal | DiagonalNormal = StandardNormal(self.sizes[0], self._where.device)
        if not len(self.downward):
            return highest
        if c is not None:  # of as many rows as the layers below
            highest = DiagonalNormal(c.new_zeros(len(c), self.sizes[0]), c.new_zeros(()))
        return Chain(highest, [partial(step, c=c) for step in self.downward], self.sizes, downward=True)
