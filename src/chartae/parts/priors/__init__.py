"""Priors p(z | c)."""

from chartae.parts.priors.base import priors
from chartae.parts.priors.hierarchies import TopDownPrior
from chartae.parts.priors.manifolds import UniformSpherePrior, WrappedNormalPrior
from chartae.parts.priors.normal import ConditionalNormalPrior, StandardNormalPrior

__all__ = [
    "ConditionalNormalPrior",
    "StandardNormalPrior",
    "TopDownPrior",
    "UniformSpherePrior",
    "WrappedNormalPrior",
    "priors",
]
