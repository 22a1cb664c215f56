"""Classifiers and regressors that read codes."""

from chartae.estimators.heads.classifier import HeadClassifier
from chartae.estimators.heads.reading import OnCodes
from chartae.estimators.heads.regressor import HeadRegressor
from chartae.estimators.heads.targets import classes_of, targets

__all__ = ["HeadClassifier", "HeadRegressor", "OnCodes", "classes_of", "targets"]
