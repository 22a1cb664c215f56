"""Objectives: what is minimized, in nats, as named terms that compose with ``+`` and ``*``."""

from chartae.parts.objectives.bounds import IWAE, KL, NegLogLik, importance_bound
from chartae.parts.objectives.penalties import CodeNorm, Contractive

__all__ = ["IWAE", "KL", "CodeNorm", "Contractive", "NegLogLik", "importance_bound"]
