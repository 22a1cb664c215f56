"""Sweeps: a fit for each latent size, weight of the KL term and noise, and which of them to take."""

from chartae.estimators.sweeps.cells import Cell
from chartae.estimators.sweeps.choice import recommended
from chartae.estimators.sweeps.results import FIGURE, RECORD, Sweep
from chartae.estimators.sweeps.running import sweep

__all__ = ["FIGURE", "RECORD", "Cell", "Sweep", "recommended", "sweep"]
