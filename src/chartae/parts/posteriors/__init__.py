"""Posteriors q(z | x, c)."""

from chartae.parts.posteriors.base import NetworkPosterior, bounded, bounded_slope, full, posteriors
from chartae.parts.posteriors.corruption import Corrupted
from chartae.parts.posteriors.normal import DeltaPosterior, FullNormalPosterior, NormalPosterior

__all__ = [
    "Corrupted",
    "DeltaPosterior",
    "FullNormalPosterior",
    "NetworkPosterior",
    "NormalPosterior",
    "bounded",
    "bounded_slope",
    "full",
    "posteriors",
]
