"""Networks: from the shape of one item to the shape of another, with an optional condition.

Every network is called as ``net(h)`` or ``net(h, c)``. The condition is concatenated to the input (as
constant planes for images and series), or it scales and shifts the hidden layers (FiLM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.core.registry import Registry, suggest

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "Film",
    "Foreign",
    "Layers",
    "Leading",
    "Reshaped",
    "Residual",
    "center",
    "damp",
    "derivable",
    "evaluating",
    "is_own",
    "networks",
]

Shape = tuple[int, ...]
ALL = slice(None)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),  # of a layer's output, which nothing else needs
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

#: How much larger than its input the output of a layer before an activation starts out: less than the
#: root of 2 of He et al. 2015 (arXiv:1502.01852), so that Adam's steps, whose size is given, are not small.
GAIN = 0.8

BLOCKS = 1  # residual blocks for each width of a "resnet"

#: Ways of conditioning: how wide the condition beside the input is, and how wide the one inside the layers.
CONDITIONING: dict[str, Callable[[int], tuple[int, int]]] = {
    "concat": lambda width: (width, 0),
    "film": lambda width: (0, width),
}

#: Builders ``(in_shape, out_shape, code_features, latent_dim, hidden, condition_dim, activation,
#: conditioning)`` of an encoder from ``in_shape`` to ``(code_features,)`` and a decoder from
#: ``(latent_dim,)`` to ``out_shape``.
networks: Registry[Callable[..., tuple[nn.Module, nn.Module]]] = Registry("network")


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
        act = _activation(activation)
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
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}


def _same(features: int, axes: int) -> nn.Module:
    return CONV[axes](features, features, 3, padding=1) if axes else nn.Linear(features, features)


def _activation(name: str) -> Callable[[], nn.Module]:
    if name not in ACTIVATIONS:
        raise PlanError(f"unknown activation {name!r} (known: {', '.join(ACTIVATIONS)})")
    return ACTIVATIONS[name]


@torch.no_grad()
def _start(layers: nn.Sequential) -> None:
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


def _ways(conditioning: str, condition_dim: int) -> tuple[int, int]:
    if conditioning not in CONDITIONING:
        raise PlanError(f"unknown conditioning {conditioning!r}: {suggest(conditioning, CONDITIONING)}")
    return CONDITIONING[conditioning](condition_dim)


def _hidden(features: int, axes: int, film: int, blocks: int, activation: str) -> list[nn.Module]:
    """What follows a hidden layer: scale and shift, residual blocks, activation."""
    between = [Film(film, features)] if film else []
    residual = [Residual(features, axes, film, activation) for _ in range(blocks)]
    return [*between, *residual, _activation(activation)()]


def _beside(h: Tensor, c: Tensor) -> Tensor:
    """Concatenate a condition, as constant planes where there are spatial axes."""
    planes = c.reshape(*c.shape, *(1,) * (h.dim() - 2))
    return torch.cat([h, planes.expand(-1, -1, *h.shape[2:])], 1)


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
        _activation(activation)
        self.in_features, self.out_shape = math.prod(in_shape), tuple(out_shape)
        self.beside, film = _ways(conditioning, condition_dim)
        if (film or blocks) and not hidden:
            raise PlanError(
                "conditioning='film' and residual blocks act on hidden layers, and here are none: "
                "give hidden some, such as (512, 256), or use network='linear' with conditioning='concat'"
            )
        layers: list[nn.Module] = []
        widths = (self.in_features + self.beside, *hidden)
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), *_hidden(after, 0, film, blocks, activation)]
        self.layers = Layers(*layers, nn.Linear(widths[-1], math.prod(out_shape)))
        _start(self.layers)
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
        h = _beside(h, c) if self.beside and c is not None else h
        out = self.kernel(h) if self.kernel is not None and self.training else self.layers(h, c)
        return out if len(self.out_shape) == 1 else out.unflatten(1, self.out_shape)


@contextmanager
def evaluating(module: nn.Module, *, kernels: bool = True) -> Iterator[nn.Module]:
    """Put a module into evaluation mode: a second call must not move batch statistics or draw dropout.

    An :class:`MLP` computes the same in both modes, and keeps the faster way of its training; what is in it
    is put into evaluation mode.

    Parameters
    ----------
    module : nn.Module
        Changed while the context is entered.
    kernels : bool
        False keeps no faster way: for derivatives that are not to reach weights' gradients.

    Yields
    ------
    nn.Module
        The same.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import evaluating
    >>> dropout = torch.nn.Dropout()
    >>> with evaluating(dropout):
    ...     dropout(torch.ones(2))
    tensor([1., 1.])
    >>> dropout.training
    True
    """
    training = [m for m in module.modules() if m.training and not (kernels and type(m) is MLP)]
    for m in training:
        m.training = False
    try:
        yield module
    finally:
        for m in training:
            m.training = True


@contextmanager
def derivable(*tensors: Tensor | None) -> Iterator[list[Any]]:
    """Leave inference mode, whose tensors take part in no derivative, for work that needs some on its way.

    Parameters
    ----------
    *tensors : Tensor or None
        Of any shapes.

    Yields
    ------
    list of Tensor or None
        The same, or copies of what inference mode has made.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import derivable
    >>> with torch.inference_mode(), derivable(torch.ones(2)) as (x,):
    ...     torch.func.grad(lambda t: t.square().sum())(x)
    tensor([2., 2.])
    """
    if not torch.is_inference_mode_enabled():
        yield list(tensors)
        return
    with torch.inference_mode(False), torch.no_grad():
        yield [t.clone() if t is not None and t.is_inference() else t for t in tensors]


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
        self.beside, film = _ways(conditioning, condition_dim)
        layers: list[nn.Module] = []
        for before, after in pairwise((c + self.beside, *channels)):
            layers += [
                CONV[axes](before, after, 3, stride=2, padding=1),
                *_hidden(after, axes, film, blocks, activation),
            ]
        head = nn.Linear(channels[-1] * math.prod(last), out_features)
        self.layers = Layers(*layers, nn.Flatten(), head)
        _start(self.layers)

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
        x = _beside(x, c) if self.beside and c is not None else x
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
        self.beside, film = _ways(conditioning, condition_dim)
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
                *_hidden(before, axes, film, blocks, activation),
                TRANSPOSED[axes](before, after, 3, stride=2, padding=1, output_padding=extra),
            ]
        self.layers = Layers(*layers)
        _start(self.layers)

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
        z = _beside(z, c) if self.beside and c is not None else z
        out: Tensor = self.layers(z, c)
        return out


class Leading(nn.Module):
    """A network that sees the first numbers of a code only.

    Parameters
    ----------
    network : nn.Module
        What is wrapped.
    width : int
        How many it sees.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, Leading
    >>> Leading(MLP((2,), (4,), hidden=()), 2)(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, d)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, ...)``.
        """
        h = h[:, : self.width]
        out: Tensor = self.network(h) if c is None else self.network(h, c)
        return out


class Reshaped(nn.Module):
    """A network whose items have another shape before or after it.

    Parameters
    ----------
    network : nn.Module
        What is wrapped.
    before, after : tuple of int or None
        Shape of an item as the network takes it, and as this one gives it; None: as it comes.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, Reshaped
    >>> Reshaped(MLP((1, 6), (4,), hidden=()), before=(1, 6), after=(2, 2))(torch.zeros(5, 6)).shape
    torch.Size([5, 2, 2])
    """

    def __init__(self, network: nn.Module, before: Shape | None = None, after: Shape | None = None) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

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
            ``(n, *after)``.
        """
        h = h if self.before is None else h.reshape(len(h), *self.before)
        out: Tensor = self.network(h, c)
        return out if self.after is None else out.reshape(len(out), *self.after)


@torch.no_grad()
def center(network: nn.Module, values: Tensor) -> None:
    """Let the output of a network that is not trained yet lie around given values, by its last bias.

    A network of the user's own is left as it is: it may have been trained.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    values : Tensor
        Of shape ``(*out_shape)``. Convolutions have one bias for each channel: the mean of its values.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, center
    >>> network = MLP((4,), (2,), hidden=(8,))
    >>> center(network, torch.tensor([10.0, -10.0]))
    >>> network.layers[-1].bias.tolist()
    [10.0, -10.0]
    """
    last = _last(network)
    if last is not None and last.bias is not None:
        last.bias.copy_(values.reshape(len(last.bias), -1).mean(1))


@torch.no_grad()
def damp(network: nn.Module, factor: float, outputs: slice = ALL) -> None:
    """Let outputs of a network that is not trained yet vary less between items, by its last weights.

    A network of the user's own is left as it is: it may have been trained.

    Parameters
    ----------
    network : nn.Module
        Changed in place.
    factor : float
        How much less.
    outputs : slice
        Which of them; of convolutions, all.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, damp
    >>> network, x = MLP((4,), (2,), hidden=(8,)), torch.ones(1, 4)
    >>> before = network(x)
    >>> damp(network, 0.0, slice(1, None))
    >>> bool(network(x)[0, 0] == before[0, 0]), bool(network(x)[0, 1] == before[0, 1])
    (True, False)
    """
    last = _last(network)
    if last is not None:
        last.weight[outputs] *= factor


def is_own(network: nn.Module | None) -> bool:
    """Tell a network of ours: it computes the same in training and in evaluation, and has a last layer.

    Parameters
    ----------
    network : nn.Module or None
        Of a part.

    Returns
    -------
    bool
        False for modules of the user's, which may hold anything.

    Examples
    --------
    >>> from torch import nn
    >>> from chartae.parts.networks import MLP, is_own
    >>> is_own(MLP((4,), (2,))), is_own(nn.Linear(4, 2))
    (True, False)
    """
    return network is not None and _last(network) is not None


def _last(network: nn.Module) -> Any:
    """The last layer of a network of ours, or None."""
    if isinstance(network, Leading | Reshaped):
        return _last(network.network)
    return network.layers[-1] if isinstance(network, MLP | ConvDecoder | ConvEncoder) else None


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
    conditioning: str = "concat",
    blocks: int = 0,
) -> tuple[nn.Module, nn.Module]:
    hidden = (512, 256) if hidden is None else tuple(hidden)
    shared = (condition_dim, activation, conditioning, blocks)
    return (
        MLP(in_shape, (code_features,), hidden, *shared),
        MLP((latent_dim,), out_shape, hidden[::-1], *shared),
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
    conditioning: str = "concat",
) -> tuple[nn.Module, nn.Module]:
    if hidden:
        raise PlanError("a linear network has no hidden layers: leave hidden out, or use network='mlp'")
    return _mlp(in_shape, out_shape, code_features, latent_dim, (), condition_dim, activation, conditioning)


def _convolutions(
    in_shape: Shape,
    out_shape: Shape,
    code_features: int,
    latent_dim: int,
    hidden: Sequence[int] | None,
    condition_dim: int,
    activation: str,
    conditioning: str = "concat",
    blocks: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Over one or two spatial axes, after that of the channels."""
    channels = (32, 64, 128)[: max(1, min(3, int(math.log2(max(2, min(in_shape[1:])))) - 1))]
    channels = channels if hidden is None else tuple(hidden)
    if not channels:
        raise PlanError("convolutions need channels: give hidden some, such as (32, 64), or leave it out")
    shared = (condition_dim, activation, conditioning, blocks)
    return (
        ConvEncoder(in_shape, code_features, channels, *shared),
        ConvDecoder(latent_dim, out_shape, channels[::-1], *shared),
    )


@networks.register("conv2d")
def _conv2d(in_shape: Shape, *rest: Any) -> tuple[nn.Module, nn.Module]:
    if len(in_shape) != 3:
        raise PlanError(
            f"conv2d needs images, and an item has shape {in_shape}: use network='mlp', or say how its axes "
            "are ordered, as in layout='hw'"
        )
    return _convolutions(in_shape, *rest)


@networks.register("conv1d")
def _conv1d(in_shape: Shape, out_shape: Shape, *rest: Any) -> tuple[nn.Module, nn.Module]:
    if len(in_shape) == 2:
        return _convolutions(in_shape, out_shape, *rest)
    if len(in_shape) != 1 or out_shape[0] % in_shape[0]:
        raise PlanError(
            f"conv1d needs series, and goes from shape {in_shape} to {out_shape}: give items of shape "
            "(channels, length), or use network='mlp'"
        )
    # One channel; several numbers for each value follow one another as channels do.
    series = (out_shape[0] // in_shape[0], in_shape[0])
    encoder, decoder = _convolutions((1, *in_shape), series, *rest)
    return Reshaped(encoder, before=(1, *in_shape)), Reshaped(decoder, after=tuple(out_shape))


@networks.register("resnet")
def _resnet(in_shape: Shape, out_shape: Shape, *rest: Any) -> tuple[nn.Module, nn.Module]:
    if len(in_shape) > 3:
        raise PlanError(
            f"resnet takes flat items, series and images, and an item has shape {in_shape}: use network='mlp'"
        )
    make: Callable[..., tuple[nn.Module, nn.Module]] = _mlp if len(in_shape) == 1 else _convolutions
    return make(in_shape, out_shape, *rest, blocks=BLOCKS)
