"""Objectives: what is minimized, in nats, as named terms that compose with ``+`` and ``*``."""

from chartae.parts.objectives.adversarial import Adversary, GanCritic, TotalCorrelationCritic
from chartae.parts.objectives.auxiliary import Auxiliary
from chartae.parts.objectives.bounds import KL, NegLogLik, Warmed
from chartae.parts.objectives.disentangling import DIP, GECO, Capacity, TotalCorrelation
from chartae.parts.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE, elbo, importance_bound
from chartae.parts.objectives.labels import Labels, SummedLabels
from chartae.parts.objectives.matches import Match, Matches, fit_match
from chartae.parts.objectives.matching import MMD, CramerWold, EppsPulley, Matching, SlicedWasserstein
from chartae.parts.objectives.neighbors import Neighbors
from chartae.parts.objectives.penalties import (
    CodeNorm,
    Contractive,
    DecoderGradient,
    DecoderWeights,
    Distortion,
)
from chartae.parts.objectives.perceptual import MSSSIM, ms_ssim
from chartae.parts.objectives.sleep import Asleep

__all__ = [
    "CIWAE",
    "DIP",
    "GECO",
    "IWAE",
    "KL",
    "MIWAE",
    "MMD",
    "MSSSIM",
    "PIWAE",
    "Adversary",
    "Asleep",
    "Auxiliary",
    "Capacity",
    "CodeNorm",
    "Contractive",
    "CramerWold",
    "DecoderGradient",
    "DecoderWeights",
    "Distortion",
    "EppsPulley",
    "GanCritic",
    "Labels",
    "Match",
    "Matches",
    "Matching",
    "NegLogLik",
    "Neighbors",
    "SlicedWasserstein",
    "SummedLabels",
    "TotalCorrelation",
    "TotalCorrelationCritic",
    "Warmed",
    "elbo",
    "fit_match",
    "importance_bound",
    "ms_ssim",
]
