"""Networks of layers that see all of an item."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.parts.networks.layers import (
    Layers,
    Shape,
    activation_of,
    begin,
    beside,
    hidden_layers,
    ways,
)

__all__ = ["MLP"]


class MLP(nn.Module):
    """Fully connected layers between two shapes.

    Parameters
    ----------
    in_shape, out_shape : tuple of int
        Shapes of one item before and after.
    hidden : sequence of int
        Widths of the layers between; none gives a linear map.
    condition_dim : int
        Width of the condition.
    activation : {"relu", "silu", "gelu", "tanh"}
        Between layers.
    conditioning : {"concat", "film"}
        Whether the condition is concatenated to the input, or scales and shifts hidden layers.
    blocks : int
        Residual blocks after each hidden layer.

    Raises
    ------
    PlanError
        If the activation or the conditioning is unknown, or there is no hidden layer to scale.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> MLP((3, 4), (2,), hidden=(8,), condition_dim=5)(torch.zeros(7, 3, 4), torch.zeros(7, 5)).shape
    torch.Size([7, 2])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        hidden: Sequence[int] = (512, 256),
        condition_dim: int = 0,
        activation: str = "relu",
        conditioning: str = "concat",
        blocks: int = 0,
    ) -> None:
        super().__init__()
        activation_of(activation)
        self.in_features, self.out_shape = math.prod(in_shape), tuple(out_shape)
        self.beside, film = ways(conditioning, condition_dim)
        if (film or blocks) and not hidden:
            raise PlanError(
                "conditioning='film' and residual blocks act on hidden layers, and here are none: "
                "give hidden some, such as (512, 256), or use network='linear' with conditioning='concat'"
            )
        layers: list[nn.Module] = []
        widths = (self.in_features + self.beside, *hidden)
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), *hidden_layers(after, 0, film, blocks, activation)]
        self.layers = Layers(*layers, nn.Linear(widths[-1], math.prod(out_shape)))
        begin(self.layers)
        #: A training engine may put a faster way to evaluate the same layers here.
        self.kernel: Callable[[Tensor], Tensor] | None = None

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, *in_shape)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, *out_shape)``.
        """
        h = h.flatten(1) if h.dim() > 2 else h
        h = beside(h, c) if self.beside and c is not None else h
        out = self.kernel(h) if self.kernel is not None and self.training else self.layers(h, c)
        return out if len(self.out_shape) == 1 else out.unflatten(1, self.out_shape)
