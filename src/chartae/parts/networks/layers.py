"""What networks are made of: layers, residual blocks, and the condition that scales them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.core.registry import suggest

__all__ = ["ACTIVATIONS", "CONDITIONING", "Film", "Layers", "Residual"]

Shape = tuple[int, ...]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),  # of a layer's output, which nothing else needs
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

#: How much larger than its input the output of a layer before an activation starts out: less than the
#: root of 2 of He et al. 2015 (arXiv:1502.01852), so that Adam's steps, whose size is given, are not small.
GAIN = 0.8

#: Ways of conditioning: how wide the condition beside the input is, and how wide the one inside the layers.
CONDITIONING: dict[str, Callable[[int], tuple[int, int]]] = {
    "concat": lambda width: (width, 0),
    "film": lambda width: (0, width),
}


class Film(nn.Module):
    """Scale and shift the features of a layer by a linear function of the condition.

    It starts as the identity.

    Parameters
    ----------
    condition_dim : int
        Width of the condition.
    features : int
        Features of the layer, or channels.

    References
    ----------
    Perez et al. 2018, arXiv:1709.07871.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Film
    >>> Film(2, 3)(torch.ones(5, 3, 8), torch.ones(5, 2)).unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """

    def __init__(self, condition_dim: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_dim, 2 * features)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, features, ...)``.
        c : Tensor or None
            ``(n, condition_dim)``; None for the identity.

        Returns
        -------
        Tensor
            Of the shape of ``h``.
        """
        if c is None:
            return h
        out = self.linear(c)
        scale, shift = out.reshape(*out.shape, *(1,) * (h.dim() - 2)).chunk(2, 1)
        return h * (1 + scale) + shift


class Layers(nn.Sequential):
    """Layers one after the other; those that use the condition are given it.

    Parameters
    ----------
    *layers : nn.Module
        From the first to the last.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Film, Layers
    >>> Layers(torch.nn.Linear(4, 3), Film(2, 3))(torch.zeros(5, 4), torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, ...)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, ...)``.
        """
        for layer in self:
            h = layer(h, c) if isinstance(layer, Film | Residual) else layer(h)
        return h


class Residual(nn.Module):
    """A residual block: its input plus two layers of it, each after an activation.

    The second layer starts at zero, and the block as the identity.

    Parameters
    ----------
    features : int
        Of its input and its output, or channels.
    axes : int
        Spatial axes: 0 for linear layers, 1 or 2 for convolutions of width 3.
    condition_dim : int
        Width of the condition that scales and shifts what is between the layers; 0 for none.
    activation : str
        Before each layer.

    References
    ----------
    He et al. 2016, arXiv:1603.05027, figure 1b (without normalization);
    Zhang, Dauphin and Ma 2019, arXiv:1901.09321 (the start at zero).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Residual
    >>> h = torch.ones(5, 3, 8)
    >>> torch.equal(Residual(3, axes=1)(h), h)
    True
    """

    def __init__(
        self, features: int, axes: int = 0, condition_dim: int = 0, activation: str = "relu"
    ) -> None:
        super().__init__()
        act = activation_of(activation)
        first, last = (_same(features, axes) for _ in range(2))
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        # Not in place: the input is needed for the sum.
        before = nn.ReLU() if activation == "relu" else act()
        film = [Film(condition_dim, features)] if condition_dim else []
        self.layers = Layers(before, first, *film, act(), last)

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, features, ...)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            Of the shape of ``h``.
        """
        out: Tensor = h + self.layers(h, c)
        return out


CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}


def _same(features: int, axes: int) -> nn.Module:
    return CONV[axes](features, features, 3, padding=1) if axes else nn.Linear(features, features)


def activation_of(name: str) -> Callable[[], nn.Module]:
    if name not in ACTIVATIONS:
        raise PlanError(f"unknown activation {name!r} (known: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


@torch.no_grad()
def begin(layers: nn.Sequential) -> None:
    """Draw the first weights of layers one after the other, of which the last has no activation.

    With PyTorch's own ones codes hardly differ between items, and training starts with a plateau.
    """
    weighted = [m for m in layers if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    for layer in weighted:
        weight = layer.weight
        transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
        # How many products each output is the sum of.
        fan = weight[:, 0].numel() // math.prod(layer.stride) if transposed else weight[0].numel()  # type: ignore[arg-type]
        gain = 1.0 if layer is weighted[-1] else GAIN
        weight.normal_(0.0, gain / fan**0.5)


def ways(conditioning: str, condition_dim: int) -> tuple[int, int]:
    if conditioning not in CONDITIONING:
        raise PlanError(f"unknown conditioning {conditioning!r}: {suggest(conditioning, CONDITIONING)}")
    return CONDITIONING[conditioning](condition_dim)


def hidden_layers(features: int, axes: int, film: int, blocks: int, activation: str) -> list[nn.Module]:
    """What follows a hidden layer: scale and shift, residual blocks, activation."""
    between = [Film(film, features)] if film else []
    residual = [Residual(features, axes, film, activation) for _ in range(blocks)]
    return [*between, *residual, activation_of(activation)()]


def beside(h: Tensor, c: Tensor) -> Tensor:
    """Concatenate a condition, as constant planes where there are spatial axes."""
    planes = c.reshape(*c.shape, *(1,) * (h.dim() - 2))
    return torch.cat([h, planes.expand(-1, -1, *h.shape[2:])], 1)
