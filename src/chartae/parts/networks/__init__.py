"""Networks: from the shape of one item to the shape of another, with an optional condition.

Every network is called as ``net(h)`` or ``net(h, c)``. The condition is concatenated to the input (as
constant planes for images and series), or it scales and shifts the hidden layers (FiLM).
"""

from chartae.parts.networks.convolutions import ConvDecoder, ConvEncoder
from chartae.parts.networks.families import networks
from chartae.parts.networks.handling import center, damp, derivable, evaluating, is_own
from chartae.parts.networks.layers import ACTIVATIONS, CONDITIONING, Film, Layers, Residual
from chartae.parts.networks.perceptrons import MLP
from chartae.parts.networks.wrapped import Foreign, Leading, Reshaped

__all__ = [
    "ACTIVATIONS",
    "CONDITIONING",
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
