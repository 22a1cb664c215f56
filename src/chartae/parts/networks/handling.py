"""What is done with a network: modes, derivatives, first weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from chartae.parts.networks.convolutions import ConvDecoder, ConvEncoder
from chartae.parts.networks.perceptrons import MLP
from chartae.parts.networks.wrapped import Leading, Reshaped

__all__ = ["center", "damp", "derivable", "evaluating", "full", "is_own"]

ALL = slice(None)


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


def full(t: Tensor) -> Tensor:
    """Leave half precision: distributions are computed in float32 or better.

    A variance in bf16 has two digits.

    Source: this library's own.

    Parameters
    ----------
    t : Tensor
        Any shape, from a network.

    Returns
    -------
    Tensor
        float32 or float64, of any shape.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import full
    >>> full(torch.zeros(1, dtype=torch.bfloat16)).dtype, full(torch.zeros(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return t.float() if t.element_size() < 4 else t
