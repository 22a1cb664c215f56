"""Networks of convolutions over series and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from chartae.parts.networks.layers import CONV, Layers, Shape, begin, beside, hidden_layers, ways

__all__ = ["ConvDecoder", "ConvEncoder"]

TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}


def _sizes(size: Shape, steps: int) -> list[Shape]:
    """Sizes under repeated halving, rounded up."""
    out = [tuple(size)]
    for _ in range(steps):
        out.append(tuple((s + 1) // 2 for s in out[-1]))
    return out


class ConvEncoder(nn.Module):
    """Strided convolutions of width 3, then one linear layer.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, length)`` or ``(channels, height, width)``, of any size.
    out_features : int
        Width of the output.
    channels : sequence of int
        Channels after each halving.
    condition_dim : int
        Width of the condition.
    activation : str
        Between layers.
    conditioning : {"concat", "film"}
        Whether the condition is added as constant planes, or scales and shifts channels.
    blocks : int
        Residual blocks after each halving.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import ConvEncoder
    >>> ConvEncoder((3, 7, 5), 4, channels=(8, 16))(torch.zeros(2, 3, 7, 5)).shape
    torch.Size([2, 4])
    >>> ConvEncoder((3, 7), 4, channels=(8, 16))(torch.zeros(2, 3, 7)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_features: int,
        channels: Sequence[int] = (32, 64),
        condition_dim: int = 0,
        activation: str = "relu",
        conditioning: str = "concat",
        blocks: int = 0,
    ) -> None:
        super().__init__()
        c, *size = in_shape
        axes, last = len(size), _sizes(tuple(size), len(channels))[-1]
        self.beside, film = ways(conditioning, condition_dim)
        layers: list[nn.Module] = []
        for before, after in pairwise((c + self.beside, *channels)):
            layers += [
                CONV[axes](before, after, 3, stride=2, padding=1),
                *hidden_layers(after, axes, film, blocks, activation),
            ]
        head = nn.Linear(channels[-1] * math.prod(last), out_features)
        self.layers = Layers(*layers, nn.Flatten(), head)
        begin(self.layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        x : Tensor
            ``(n, *in_shape)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, out_features)``.
        """
        x = beside(x, c) if self.beside and c is not None else x
        out: Tensor = self.layers(x, c)
        return out


class ConvDecoder(nn.Module):
    """One linear layer, then transposed convolutions of width 3 that double up to the exact size.

    Parameters
    ----------
    in_features : int
        Width of the code.
    out_shape : tuple of int
        ``(channels, length)`` or ``(channels, height, width)``, of any size.
    channels : sequence of int
        Channels before each doubling, coarsest first.
    condition_dim : int
        Width of the condition.
    activation : str
        Between layers.
    conditioning : {"concat", "film"}
        Whether the condition is concatenated to the code, or scales and shifts channels.
    blocks : int
        Residual blocks before each doubling.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import ConvDecoder
    >>> ConvDecoder(4, (3, 7, 5), channels=(16, 8))(torch.zeros(2, 4)).shape
    torch.Size([2, 3, 7, 5])
    >>> ConvDecoder(4, (3, 7), channels=(16, 8))(torch.zeros(2, 4)).shape
    torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        in_features: int,
        out_shape: Shape,
        channels: Sequence[int] = (64, 32),
        condition_dim: int = 0,
        activation: str = "relu",
        conditioning: str = "concat",
        blocks: int = 0,
    ) -> None:
        super().__init__()
        axes = len(out_shape) - 1
        sizes = _sizes(tuple(out_shape[1:]), len(channels))[::-1]
        self.beside, film = ways(conditioning, condition_dim)
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(in_features + self.beside, math.prod(start)),
            nn.Unflatten(1, start),
        ]
        steps = zip(pairwise((*channels, out_shape[0])), pairwise(sizes), strict=True)
        for (before, after), (low, high) in steps:
            # 2 s - 1 + output_padding: an odd size needs no padding, an even one a row.
            extra = tuple(h - (2 * s - 1) for s, h in zip(low, high, strict=True))
            layers += [
                *hidden_layers(before, axes, film, blocks, activation),
                TRANSPOSED[axes](before, after, 3, stride=2, padding=1, output_padding=extra),
            ]
        self.layers = Layers(*layers)
        begin(self.layers)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        z : Tensor
            ``(n, in_features)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, *out_shape)``.
        """
        z = beside(z, c) if self.beside and c is not None else z
        out: Tensor = self.layers(z, c)
        return out
