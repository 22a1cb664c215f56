"""Whether what is said of being sure can be taken at its word, and how probabilities are made so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, log_softmax, softmax

from chartae.core.errors import DataError, PlanError
from chartae.training.items import array_of

__all__ = [
    "RiskCoverage",
    "base_rates",
    "calibration_error",
    "fit_temperature",
    "risk_coverage",
    "tempered",
]

SPREAD = 0.5  # of the logarithm of a temperature, before any row is seen
SLACK = 1e-6  # by which rounding may have taken a probability beyond one
LEAST = 1e-6  # of a probability: what a head calls impossible may be so all the same
CONCENTRATION = (1e-2, 1e6)  # ends of what classes may have in common


def tempered(probabilities: np.ndarray, temperature: float, base: np.ndarray | None = None) -> np.ndarray:
    """Probabilities at another temperature: above 1 they come closer to each other.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``.
    temperature : float
        1 leaves them as they are.
    base : ndarray or None
        ``(classes,)``: how usual each class is, where probabilities are as if all were alike.

    Returns
    -------
    ndarray
        ``(n, classes)``; without ``base`` their order within a row is the same.

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
    if temperature == 1 and base is None:
        return probabilities
    if not temperature > 0:
        raise PlanError(f"temperature={temperature:g}: use a number above 0")
    out: np.ndarray = softmax(_evidence(probabilities) / temperature + _prior(base), axis=1)
    return out


def _evidence(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, LEAST))


def _prior(base: np.ndarray | None) -> np.ndarray | float:
    return 0.0 if base is None else np.log(base)


def base_rates(counts: np.ndarray) -> np.ndarray:
    """How usual classes are: as their labels are, if these differ by more than chance makes them.

    Shares of classes are taken for a draw from a symmetric Dirichlet distribution, whose concentration is the
    one that makes the counts likeliest; of equal counts they are equal.

    Parameters
    ----------
    counts : ndarray
        ``(classes,)``, labels of each.

    Returns
    -------
    ndarray
        ``(classes,)``, which sum to 1.

    References
    ----------
    Good 1967, "A Bayesian significance test for multinomial distributions" (the concentration by its
    likelihood).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import base_rates
    >>> base_rates(np.array([7, 5])).round(2).tolist(), base_rates(np.array([700, 500])).round(2).tolist()
    ([0.5, 0.5], [0.58, 0.42])
    """
    counts = np.asarray(counts, dtype=np.float64)
    n, k = counts.sum(), len(counts)

    def nll(log_concentration: float) -> float:
        a = np.exp(log_concentration)
        each = gammaln(counts + a) - gammaln(a)
        return float(gammaln(n + k * a) - gammaln(k * a) - each.sum())

    a = np.exp(minimize_scalar(nll, bounds=tuple(np.log(CONCENTRATION)), method="bounded").x)
    found: np.ndarray = (counts + a) / (n + k * a)
    return found


def fit_temperature(
    probabilities: np.ndarray, y: np.ndarray, base: np.ndarray | None = None, *, spread: float = SPREAD
) -> float:
    """Find the temperature at which held-out labels are likeliest, and which is likely itself.

    Its logarithm has a normal prior around 0: many rows say what they say, and few that happen to be all
    right do not make a head sure of everything.

    Parameters
    ----------
    probabilities : ndarray
        ``(n, classes)``.
    y : ndarray
        ``(n,)``, the number of each row's class.
    base : ndarray or None
        ``(classes,)``, as of :func:`tempered`.
    spread : float
        Standard deviation of the logarithm, before any row is seen.

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
    evidence, prior, rows = _evidence(probabilities), _prior(base), np.arange(len(y))

    def nll(log_temperature: float) -> float:
        told = log_softmax(evidence / np.exp(log_temperature) + prior, axis=1)[rows, y].sum()
        return 0.5 * (log_temperature / spread) ** 2 - float(told)

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


class RiskCoverage(NamedTuple):
    """How often one is wrong if one answers for the surest items alone.

    Attributes
    ----------
    coverage : ndarray
        ``(n,)``, from 1/n to 1: the share of items that is answered for.
    risk : ndarray
        ``(n,)``, the share of wrong ones among them.
    area : float
        Mean risk over all coverages.
    excess : float
        By how much the area is above that of knowing which are wrong.

    Examples
    --------
    >>> from chartae.transfer import risk_coverage
    >>> risk_coverage([0.1, 0.9], [False, True]).risk.tolist()
    [0.0, 0.5]
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float
    excess: float

    def __repr__(self) -> str:
        n = len(self.risk)
        return f"RiskCoverage(area={self.area:.4g}, excess={self.excess:.4g}, {n:,} item{'s' * (n != 1)})"


def risk_coverage(uncertainty: ArrayLike, wrong: ArrayLike) -> RiskCoverage:
    """Trade answers for mistakes: leave the least certain items out, one after the other.

    Parameters
    ----------
    uncertainty : array_like
        ``(n,)``; equal ones are left out together, in the mean over their orders.
    wrong : array_like
        ``(n,)``, whether the answer for an item is wrong, or how wrong it is.

    Returns
    -------
    RiskCoverage
        The curve and its area.

    Raises
    ------
    DataError
        If there is no item, there are not as many of the one as of the other, or one is not a number.

    References
    ----------
    Geifman and El-Yaniv 2017, arXiv:1705.08500; the excess: Geifman, Uziel and El-Yaniv 2019,
    arXiv:1805.08206.

    Examples
    --------
    >>> from chartae.transfer import risk_coverage
    >>> found = risk_coverage([3, 1, 2], [True, False, False])
    >>> round(found.area, 3), found.excess
    (0.111, 0.0)
    """
    u, lost = (np.asarray(array_of(v), dtype=np.float64) for v in (uncertainty, wrong))
    if u.ndim != 1 or u.shape != lost.shape or not len(u):
        raise DataError(f"uncertainty has shape {u.shape}, wrong has {lost.shape}: give (n,) of both")
    if np.isnan(u).any() or np.isnan(lost).any():
        raise DataError("what is uncertain, or wrong, is not a number in places: leave such items out")
    _, group = np.unique(u, return_inverse=True)
    mean = np.bincount(group, lost) / np.bincount(group)
    n = np.arange(1, len(u) + 1)

    def curve(order: np.ndarray, values: np.ndarray) -> np.ndarray:
        out: np.ndarray = values[order].cumsum() / n
        return out

    risk = curve(np.argsort(group, kind="stable"), mean[group])
    best = curve(np.argsort(lost, kind="stable"), lost)
    return RiskCoverage(n / len(u), risk, float(risk.mean()), float(risk.mean() - best.mean()))
