"""Networks: from the shape of one item to the shape of another, with an optional condition.

Every network is called as ``net(h)`` or ``net(h, c)``. The condition is concatenated to the input (as
constant planes for images and series), or it scales and shifts the hidden layers (FiLM).
"""

from chartae.parts.networks.convolutions import ConvDecoder, ConvEncoder
from chartae.parts.networks.families import networks
from chartae.parts.networks.handling import center, damp, derivable, evaluating, full, is_own
from chartae.parts.networks.languages import Prefixed
from chartae.parts.networks.layers import ACTIVATIONS, CONDITIONING, Film, Layers, Residual
from chartae.parts.networks.perceptrons import MLP
from chartae.parts.networks.transformers import Block, Prefixes, TokenDecoder, TokenEncoder
from chartae.parts.networks.wrapped import Foreign, Leading, Reshaped

__all__ = [
    "ACTIVATIONS",
    "CONDITIONING",
    "MLP",
    "Block",
    "ConvDecoder",
    "ConvEncoder",
    "Film",
    "Foreign",
    "Layers",
    "Leading",
    "Prefixed",
    "Prefixes",
    "Reshaped",
    "Residual",
    "TokenDecoder",
    "TokenEncoder",
    "center",
    "damp",
    "derivable",
    "evaluating",
    "full",
    "is_own",
    "networks",
]
