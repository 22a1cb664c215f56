"""Encoders and decoders by the name of their kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from chartae.core.errors import PlanError
from chartae.core.registry import Registry
from chartae.parts.networks.convolutions import ConvDecoder, ConvEncoder
from chartae.parts.networks.layers import Shape
from chartae.parts.networks.perceptrons import MLP
from chartae.parts.networks.wrapped import Reshaped

__all__ = ["networks"]

BLOCKS = 1  # residual blocks for each width of a "resnet"

#: Builders ``(in_shape, out_shape, code_features, latent_dim, hidden, condition_dim, activation,
#: conditioning)`` of an encoder from ``in_shape`` to ``(code_features,)`` and a decoder from
#: ``(latent_dim,)`` to ``out_shape``.
networks: Registry[Callable[..., tuple[nn.Module, nn.Module]]] = Registry("network")


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
        cure = "give items as (n, height, width)"
        cure = cure if len(in_shape) == 1 else "say how its axes are ordered, as in layout='hw'"
        raise PlanError(
            f"conv2d needs images, and an item has shape {in_shape}: use network='mlp', or {cure}"
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
