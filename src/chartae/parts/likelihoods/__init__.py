"""Likelihoods p(x | z, c): what the decoder says about x."""

from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods
from chartae.parts.likelihoods.categories import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
)
from chartae.parts.likelihoods.continuous import (
    LaplaceLikelihood,
    NormalLikelihood,
    NormalMixtureLikelihood,
    StudentTLikelihood,
)
from chartae.parts.likelihoods.counts import NegativeBinomialLikelihood, PoissonLikelihood
from chartae.parts.likelihoods.sequences import SequenceLikelihood

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "LaplaceLikelihood",
    "NegativeBinomialLikelihood",
    "NetworkLikelihood",
    "NormalLikelihood",
    "NormalMixtureLikelihood",
    "PoissonLikelihood",
    "SequenceLikelihood",
    "StudentTLikelihood",
    "likelihoods",
]
