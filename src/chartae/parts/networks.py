"""Networks: from the shape of one item to the shape of another, with an optional condition.

Every network is called as ``net(h)`` or ``net(h, c)``; the condition is concatenated to the input
(as constant planes for images).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.core.registry import Registry

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Foreign", "networks"]

Shape = tuple[int, ...]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),  # of a layer's output, which nothing else needs
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

#: Builders ``(in_shape, out_shape, code_features, latent_dim, hidden, condition_dim, activation)``
#: of an encoder from ``in_shape`` to ``(code_features,)`` and a decoder from ``(latent_dim,)`` to
#: ``out_shape``.
networks: Registry[Callable[..., tuple[nn.Module, nn.Module]]] = Registry("network")


class MLP(nn.Module):
    """Fully connected layers between two shapes.

    Parameters
    ----------
    in_shape, out_shape : tuple of int
        Shapes of one item before and after.
    hidden : sequence of int
        Widths of the layers between; none gives a linear map.
    condition_dim : int
        Width of the condition that is concatenated to the input.
    activation : {"relu", "silu", "gelu", "tanh"}
        Between layers.

    Raises
    ------
    PlanError
        If the activation is unknown.

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
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise PlanError(f"unknown activation {activation!r} (known: {', '.join(ACTIVATIONS)})")
        self.in_features, self.out_shape = math.prod(in_shape), tuple(out_shape)
        widths = (self.in_features + condition_dim, *hidden, math.prod(out_shape))
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])
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
        layers = self.kernel if self.kernel is not None and self.training else self.layers
        out = layers(h if c is None else torch.cat([h, c], 1))
        return out if len(self.out_shape) == 1 else out.unflatten(1, self.out_shape)


def _sizes(size: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """Heights and widths under repeated halving, rounded up."""
    out = [size]
    for _ in range(steps):
        h, w = out[-1]
        out.append(((h + 1) // 2, (w + 1) // 2))
    return out


class ConvEncoder(nn.Module):
    """Strided 3 x 3 convolutions, then one linear layer.

    Parameters
    ----------
    in_shape : tuple of int
        ``(channels, height, width)``, of any size.
    out_features : int
        Width of the output.
    channels : sequence of int
        Channels after each halving.
    condition_dim : int
        Width of the condition, added as constant planes.
    activation : str
        Between layers.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import ConvEncoder
    >>> ConvEncoder((3, 7, 5), 4, channels=(8, 16))(torch.zeros(2, 3, 7, 5)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_features: int,
        channels: Sequence[int] = (32, 64),
        condition_dim: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        c, *size = in_shape
        h, w = _sizes((size[0], size[1]), len(channels))[-1]
        layers: list[nn.Module] = []
        for before, after in pairwise((c + condition_dim, *channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * h * w, out_features))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        x : Tensor
            ``(n, channels, height, width)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, out_features)``.
        """
        if c is not None:
            x = torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[-2:])], 1)
        return self.layers(x)


class ConvDecoder(nn.Module):
    """One linear layer, then transposed 3 x 3 convolutions that double up to the exact size.

    Parameters
    ----------
    in_features : int
        Width of the code.
    out_shape : tuple of int
        ``(channels, height, width)``, of any size.
    channels : sequence of int
        Channels before each doubling, coarsest first.
    condition_dim : int
        Width of the condition that is concatenated to the code.
    activation : str
        Between layers.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import ConvDecoder
    >>> ConvDecoder(4, (3, 7, 5), channels=(16, 8))(torch.zeros(2, 4)).shape
    torch.Size([2, 3, 7, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_shape: Shape,
        channels: Sequence[int] = (64, 32),
        condition_dim: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        sizes = _sizes((out_shape[1], out_shape[2]), len(channels))[::-1]
        act = ACTIVATIONS[activation]
        start = (channels[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(in_features + condition_dim, math.prod(start)),
            nn.Unflatten(1, start),
            act(),
        ]
        for (before, after), (low, high) in zip(
            pairwise((*channels, out_shape[0])), pairwise(sizes), strict=True
        ):
            # 2 s - 1 + output_padding: an odd size needs no padding, an even one a row.
            extra = (high[0] - (2 * low[0] - 1), high[1] - (2 * low[1] - 1))
            layers += [
                nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=extra),
                act(),
            ]
        self.layers = nn.Sequential(*layers[:-1])

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
            ``(n, channels, height, width)``.
        """
        return self.layers(z if c is None else torch.cat([z, c], 1))


class Foreign(nn.Module):
    """A module of the user's, checked once, with a linear head where its width is another.

    Parameters
    ----------
    module : nn.Module
        Called as ``module(h)``, or ``module(h, c)`` in a conditional model.
    in_shape, out_shape : tuple of int
        Shapes of one item before and after.
    condition_dim : int
        Width of the condition.
    head : bool
        Whether a linear layer may adapt the output width (encoders).

    Raises
    ------
    PlanError
        If the module cannot take ``(2, *in_shape)`` or gives another size than ``out_shape``.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Foreign
    >>> Foreign(torch.nn.Linear(4, 9), (4,), (6,), head=True)(torch.zeros(5, 4)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self, module: nn.Module, in_shape: Shape, out_shape: Shape, condition_dim: int = 0, head: bool = False
    ) -> None:
        super().__init__()
        self.module, self.out_shape = module, tuple(out_shape)
        self.head: nn.Module = nn.Identity()
        probe = [torch.zeros(2, *in_shape)] + ([torch.zeros(2, condition_dim)] if condition_dim else [])
        was_training = module.training
        try:
            with torch.no_grad():
                got = module.eval()(*probe)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise PlanError(
                f"{type(module).__name__} does not take items of shape {tuple(in_shape)} ({reason}): "
                "give a module that does"
            ) from None
        finally:
            module.train(was_training)
        if not isinstance(got, torch.Tensor) or len(got) != 2:
            raise PlanError(
                f"{type(module).__name__} does not turn two items into one tensor of two rows: make it do so"
            )
        width, wanted = got[0].numel(), math.prod(out_shape)
        if width != wanted and head:
            self.head = nn.Linear(width, wanted)
        elif width != wanted:
            raise PlanError(
                f"{type(module).__name__} gives {width} numbers an item and {wanted} are needed "
                f"(shape {self.out_shape}): change its last layer"
            )

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
        out = self.module(h) if c is None else self.module(h, c)
        return self.head(out.flatten(1)).unflatten(1, self.out_shape)


@networks.register("mlp")
def _mlp(
    in_shape: Shape,
    out_shape: Shape,
    code_features: int,
    latent_dim: int,
    hidden: Sequence[int] | None,
    condition_dim: int,
    activation: str,
) -> tuple[nn.Module, nn.Module]:
    hidden = (512, 256) if hidden is None else tuple(hidden)
    return (
        MLP(in_shape, (code_features,), hidden, condition_dim, activation),
        MLP((latent_dim,), out_shape, hidden[::-1], condition_dim, activation),
    )


@networks.register("linear")
def _linear(
    in_shape: Shape,
    out_shape: Shape,
    code_features: int,
    latent_dim: int,
    hidden: Sequence[int] | None,
    condition_dim: int,
    activation: str,
) -> tuple[nn.Module, nn.Module]:
    if hidden:
        raise PlanError("a linear network has no hidden layers: leave hidden out, or use network='mlp'")
    return _mlp(in_shape, out_shape, code_features, latent_dim, (), condition_dim, activation)


@networks.register("conv2d")
def _conv2d(
    in_shape: Shape,
    out_shape: Shape,
    code_features: int,
    latent_dim: int,
    hidden: Sequence[int] | None,
    condition_dim: int,
    activation: str,
) -> tuple[nn.Module, nn.Module]:
    if len(in_shape) != 3:
        raise PlanError(
            f"conv2d needs images, and an item has shape {in_shape}: use network='mlp', or say how its axes "
            "are ordered, as in layout='hw'"
        )
    channels = (32, 64, 128)[: max(1, min(3, int(math.log2(max(2, min(in_shape[1:])))) - 1))]
    channels = channels if hidden is None else tuple(hidden)
    if not channels:
        raise PlanError("convolutions need channels: give hidden some, such as (32, 64), or leave it out")
    return (
        ConvEncoder(in_shape, code_features, channels, condition_dim, activation),
        ConvDecoder(latent_dim, out_shape, channels[::-1], condition_dim, activation),
    )
