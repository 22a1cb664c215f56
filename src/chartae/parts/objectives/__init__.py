"""Objectives: what is minimized, in nats, as named terms that compose with ``+`` and ``*``."""

from chartae.parts.objectives.adversarial import Adversary, GanCritic, TotalCorrelationCritic
from chartae.parts.objectives.bounds import IWAE, KL, NegLogLik, importance_bound
from chartae.parts.objectives.matching import MMD, CramerWold, EppsPulley, Matching, SlicedWasserstein
from chartae.parts.objectives.penalties import CodeNorm, Contractive

__all__ = [
    "IWAE",
    "KL",
    "MMD",
    "Adversary",
    "CodeNorm",
    "Contractive",
    "CramerWold",
    "EppsPulley",
    "GanCritic",
    "Matching",
    "NegLogLik",
    "SlicedWasserstein",
    "TotalCorrelationCritic",
    "importance_bound",
]
