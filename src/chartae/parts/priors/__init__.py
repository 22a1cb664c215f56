"""Priors p(z | c)."""

from chartae.parts.priors.base import priors
from chartae.parts.priors.flows import FlowPrior
from chartae.parts.priors.hierarchies import TopDownPrior
from chartae.parts.priors.manifolds import UniformSpherePrior, WrappedNormalPrior
from chartae.parts.priors.mixtures import MixturePrior, VampPrior
from chartae.parts.priors.normal import ConditionalNormalPrior, StandardNormalPrior

__all__ = [
    "ConditionalNormalPrior",
    "FlowPrior",
    "MixturePrior",
    "StandardNormalPrior",
    "TopDownPrior",
    "UniformSpherePrior",
    "VampPrior",
    "WrappedNormalPrior",
    "priors",
]
