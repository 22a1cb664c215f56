"""Reuse of encoders: heads on codes, items found by codes, and whether either is as sure as it says."""

from chartae.training.labels import UNLABELED, labeled
from chartae.transfer.calibration import (
    RiskCoverage,
    base_rates,
    calibration_error,
    fit_temperature,
    risk_coverage,
    tempered,
)
from chartae.transfer.comparisons import (
    COMPARISONS,
    bhattacharyya,
    compare,
    containment,
    expected_likelihood,
    vendi_score,
)
from chartae.transfer.encoders import coded, copied, drawn, fitted, gives_points, is_fitted, refuse_points
from chartae.transfer.heads import (
    HEADS,
    Scaled,
    Several,
    compares,
    fit_to_draws,
    head,
    spreading_of,
    takes_unlabeled,
    weighed,
)
from chartae.transfer.retrieval import most_alike, recall_at, votes, votes_of_draws
from chartae.transfer.spreading import Spreading
from chartae.transfer.tuning import Read, in_units, target_space, tune

__all__ = [
    "COMPARISONS",
    "HEADS",
    "UNLABELED",
    "Read",
    "RiskCoverage",
    "Scaled",
    "Several",
    "Spreading",
    "base_rates",
    "bhattacharyya",
    "calibration_error",
    "coded",
    "compare",
    "compares",
    "containment",
    "copied",
    "drawn",
    "expected_likelihood",
    "fit_temperature",
    "fit_to_draws",
    "fitted",
    "gives_points",
    "head",
    "in_units",
    "is_fitted",
    "labeled",
    "most_alike",
    "recall_at",
    "refuse_points",
    "risk_coverage",
    "spreading_of",
    "takes_unlabeled",
    "target_space",
    "tempered",
    "tune",
    "vendi_score",
    "votes",
    "votes_of_draws",
    "weighed",
]
