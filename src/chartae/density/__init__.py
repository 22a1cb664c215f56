"""Densities: of codes, fitted after training, and bounds and estimates of log p(x)."""

from chartae.density.bounds import annealed_log_likelihood, information, log_likelihood, log_likelihood_bound
from chartae.density.codes import AutoregressiveDensity, CodeDensity, IndependentDensity
from chartae.density.completion import complete
from chartae.density.fitted import (
    Density,
    KernelDensity,
    MixtureDensity,
    NormalDensity,
    densities,
    fit_density,
)
from chartae.density.flows import FlowDensity

__all__ = [
    "AutoregressiveDensity",
    "CodeDensity",
    "Density",
    "FlowDensity",
    "IndependentDensity",
    "KernelDensity",
    "MixtureDensity",
    "NormalDensity",
    "annealed_log_likelihood",
    "complete",
    "densities",
    "fit_density",
    "information",
    "log_likelihood",
    "log_likelihood_bound",
]
