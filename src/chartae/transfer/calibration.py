"""Whether probabilities can be taken at their word, and how they are made so."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from chartae.core.errors import DataError, PlanError

__all__ = ["calibration_error", "fit_temperature", "tempered"]

SPREAD = 0.5  # of the logarithm of a temperature, before any row is seen
SLACK = 1e-6  # by which rounding may have taken a probability beyond one
LEAST = 1e-6  # of a probability: what a head calls impossible may be so all the same


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at another temperature: above 1 they come closer to each other.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``.
    temperature : float
        1 leaves them as they are.

    Returns
    -------
    ndarray
        ``(n, classes)``, of which the order within a row is the same.

    Raises
    ------
    PlanError
        If the temperature is not above 0.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import tempered
    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(2).tolist()
    [[0.67, 0.33]]
    """
    if temperature == 1:
        return probabilities
    if not temperature > 0:
        raise PlanError(f"temperature={temperature:g}: use a number above 0")
    out: np.ndarray = softmax(np.log(np.maximum(probabilities, LEAST)) / temperature, axis=1)
    return out


def fit_temperature(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Find the temperature at which held-out labels are likeliest, and which is likely itself.

    Its logarithm has a normal prior around 0: many rows say what they say, and few that happen to be all
    right do not make a head sure of everything.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``.
    y : ndarray
        ``(n,)``, the number of each row's class.

    Returns
    -------
    float
        From 1/20 to 20.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import fit_temperature
    >>> sure = np.tile([[0.99, 0.01]], (10, 1))  # and wrong in three of ten
    >>> round(fit_temperature(sure, np.array([0] * 7 + [1] * 3)), 1)
    2.4
    >>> round(fit_temperature(np.repeat(sure, 100, 0), np.repeat([0] * 7 + [1] * 3, 100)), 1)
    5.2
    """
    logs = np.log(np.maximum(probabilities, LEAST))
    rows = np.arange(len(y))

    def nll(log_temperature: float) -> float:
        told = log_softmax(logs / np.exp(log_temperature), axis=1)[rows, y].sum()
        return 0.5 * (log_temperature / SPREAD) ** 2 - float(told)

    ends = np.log(20.0)
    return float(np.exp(minimize_scalar(nll, bounds=(-ends, ends), method="bounded").x))


def calibration_error(probabilities: np.ndarray, y: np.ndarray, *, bins: int = 15) -> float:
    """Mean distance between how sure a head is and how often it is right, over bins of equal width.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``.
    y : ndarray
        ``(n,)``, the number of each row's class.
    bins : int
        Of the largest probability.

    Returns
    -------
    float
        From 0 to 1: ECE.

    Raises
    ------
    DataError
        If these are no probabilities, or no numbers of their classes.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import calibration_error
    >>> round(calibration_error(np.tile([[0.9, 0.1]], (10, 1)), np.array([0] * 7 + [1] * 3)), 3)
    0.2
    """
    probabilities, y = np.asarray(probabilities, dtype=np.float64), np.asarray(y)
    if probabilities.ndim != 2 or y.shape != probabilities.shape[:1] or not len(y):
        raise DataError(
            f"probabilities have shape {probabilities.shape}, labels {y.shape}: give (n, m), (n,)"
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + SLACK)).all():
        raise DataError("probabilities are not all from 0 to 1: give those of predict_proba")
    if not np.isin(y, np.arange(probabilities.shape[1])).all():
        raise DataError("labels are not all numbers of a class, which are from 0 up: give their places")
    sure, right = probabilities.max(1), probabilities.argmax(1) == y
    of = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(of, right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))
