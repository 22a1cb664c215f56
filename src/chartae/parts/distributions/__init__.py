"""Distributions: small, our own, and without validation in the training step."""

from chartae.parts.distributions.balls import WrappedNormal
from chartae.parts.distributions.base import Delta
from chartae.parts.distributions.chains import Chain
from chartae.parts.distributions.codes import CodePoint, RelaxedCodes
from chartae.parts.distributions.divergences import kl, kl_slopes
from chartae.parts.distributions.normals import (
    DiagonalNormal,
    DiagonalNormalMixture,
    FullNormal,
    FullNormalMixture,
    StandardNormal,
)
from chartae.parts.distributions.sequences import Sequences, Speaker
from chartae.parts.distributions.spheres import PROFILES, Profile, UniformSphere, Zonal
from chartae.parts.distributions.transformed import Affine, Planar, Radial, Transformed, carried
from chartae.parts.distributions.values import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Laplace,
    NegativeBinomial,
    NormalMixture,
    Poisson,
    StudentT,
)

__all__ = [
    "PROFILES",
    "Affine",
    "Bernoulli",
    "Categorical",
    "Chain",
    "CodePoint",
    "ContinuousBernoulli",
    "Delta",
    "DiagonalNormal",
    "DiagonalNormalMixture",
    "FullNormal",
    "FullNormalMixture",
    "Laplace",
    "NegativeBinomial",
    "NormalMixture",
    "Planar",
    "Poisson",
    "Profile",
    "Radial",
    "RelaxedCodes",
    "Sequences",
    "Speaker",
    "StandardNormal",
    "StudentT",
    "Transformed",
    "UniformSphere",
    "WrappedNormal",
    "Zonal",
    "carried",
    "kl",
    "kl_slopes",
]
