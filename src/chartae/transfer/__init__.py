"""Reuse of encoders: heads on codes, and whether their probabilities can be trusted."""

from chartae.transfer.calibration import calibration_error, fit_temperature, tempered
from chartae.transfer.encoders import coded, drawn, fitted
from chartae.transfer.heads import HEADS, Scaled, head, labeled

__all__ = [
    "HEADS",
    "Scaled",
    "calibration_error",
    "coded",
    "drawn",
    "fit_temperature",
    "fitted",
    "head",
    "labeled",
    "tempered",
]
