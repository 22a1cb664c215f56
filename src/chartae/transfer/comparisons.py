"""How alike items are that are distributions, each with each, and how varied many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.preprocessing import normalize

from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest
from chartae.training.items import array_of

__all__ = [
    "COMPARISONS",
    "bhattacharyya",
    "compare",
    "containment",
    "expected_likelihood",
    "vendi_score",
]

AT_ONCE = 1 << 24  # numbers of an array of pairs
LEAST = math.sqrt(np.finfo(float).tiny)  # variance of a point: a squared distance over it is a number, too


def expected_likelihood(
    mean: ArrayLike, std: ArrayLike, other_mean: ArrayLike, other_std: ArrayLike
) -> np.ndarray:
    """Compare normal distributions by the integral of their product: how likely two draws fall together.

    Parameters
    ----------
    mean, std : array_like
        ``(n, d)``, of independent normals.
    other_mean, other_std : array_like
        ``(m, d)``.

    Returns
    -------
    ndarray
        ``(n, m)``, logarithms, in nats.

    References
    ----------
    Jebara and Kondor 2003, "Bhattacharyya and expected likelihood kernels", section 2.

    Examples
    --------
    >>> from chartae.transfer import expected_likelihood
    >>> expected_likelihood([[0.0]], [[1.0]], [[0.0], [3.0]], [[1.0], [1.0]]).round(2).tolist()
    [[-1.27, -3.52]]
    """
    return _by_pairs(_log_product, mean, std, other_mean, other_std)


def bhattacharyya(mean: ArrayLike, std: ArrayLike, other_mean: ArrayLike, other_std: ArrayLike) -> np.ndarray:
    """Compare normal distributions by the integral of the root of their product: 0 for equal ones.

    Parameters
    ----------
    mean, std : array_like
        ``(n, d)``, of independent normals. A std of 0 is taken for 1e-77, so that points rank by their
        distance, and have hardly anything in common with what is none.
    other_mean, other_std : array_like
        ``(m, d)``.

    Returns
    -------
    ndarray
        ``(n, m)``, logarithms of the coefficient, in nats: minus the Bhattacharyya distance.

    References
    ----------
    Jebara and Kondor 2003, "Bhattacharyya and expected likelihood kernels", section 2.

    Examples
    --------
    >>> from chartae.transfer import bhattacharyya
    >>> bhattacharyya([[0.0]], [[1.0]], [[0.0], [2.0]], [[1.0], [1.0]]).round(2).tolist()
    [[0.0, -0.5]]
    """
    return _by_pairs(_log_root, mean, std, other_mean, other_std)


def containment(mean: ArrayLike, std: ArrayLike, other_mean: ArrayLike, other_std: ArrayLike) -> np.ndarray:
    """Compare normal distributions by minus KL(one || other): 0 for equal ones.

    It has a direction: a narrow one lies within a wide one, and not the other way round.

    Parameters
    ----------
    mean, std : array_like
        ``(n, d)``, of independent normals.
    other_mean, other_std : array_like
        ``(m, d)``.

    Returns
    -------
    ndarray
        ``(n, m)``, in nats.

    References
    ----------
    Vilnis and McCallum 2015, arXiv:1412.6623 (the divergence as an energy with a direction).

    Examples
    --------
    >>> from chartae.transfer import containment
    >>> narrow, wide = ([[0.0]], [[1.0]]), ([[0.0]], [[3.0]])
    >>> containment(*narrow, *wide).round(2), containment(*wide, *narrow).round(2)
    (array([[-0.65]]), array([[-2.9]]))
    """
    return _by_pairs(_minus_kl, mean, std, other_mean, other_std)


def _log_product(gap: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total = np.maximum(a + b, LEAST)
    out: np.ndarray = -0.5 * (np.log(2 * np.pi * total) + gap**2 / total).sum(-1)
    return out


def _log_root(gap: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.maximum(a, LEAST), np.maximum(b, LEAST)
    mean = (a + b) / 2
    spread = np.log(mean) - 0.5 * (np.log(a) + np.log(b))
    out: np.ndarray = -(0.5 * spread + gap**2 / (8 * mean)).sum(-1)
    return out


def _minus_kl(gap: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    floor = np.maximum(b, LEAST)
    here = np.maximum(a, LEAST)
    out: np.ndarray = -0.5 * ((gap**2 + here) / floor - 1 + np.log(floor) - np.log(here)).sum(-1)
    return np.where(((a == 0) & (b > 0)).any(-1), -np.inf, out)  # a point has no density to be within


def _by_pairs(of: Callable[..., np.ndarray], *given: ArrayLike) -> np.ndarray:
    a, s, b, t = (np.asarray(array_of(v), dtype=np.float64) for v in given)
    if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1] and s.shape == a.shape and t.shape == b.shape):
        shapes = ", ".join(str(v.shape) for v in (a, s, b, t))
        raise DataError(f"means and standard deviations have shapes {shapes}: give (n, d) and (m, d) of each")
    if not all(np.isfinite(v).all() for v in (a, s, b, t)):
        raise DataError("means or standard deviations are not finite in places: leave such items out")
    if (s < 0).any() or (t < 0).any():
        raise DataError("a standard deviation is negative: give 0 or more")
    size = max(1, AT_ONCE // max(1, b.size))
    blocks = [of(a[i : i + size, None] - b, s[i : i + size, None] ** 2, t**2) for i in range(0, len(a), size)]
    return np.concatenate(blocks) if blocks else np.empty((0, len(b)))


def _distances(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Each from each; of squares of numbers far from zero, which it is made of, the difference is lost."""
    a, b = (np.asarray(v, dtype=np.float64) for v in (a, b))
    center = b.mean(0) if len(b) else 0.0
    found: np.ndarray = euclidean_distances(a - center, b - center)
    return found


#: Each gives ``(n, m)`` of means and standard deviations, larger where two are more alike.
COMPARISONS: dict[str, Callable[..., np.ndarray]] = {
    "expected likelihood": expected_likelihood,
    "bhattacharyya": bhattacharyya,
    "containment": containment,
    "cosine": lambda a, _, b, __: _of_means(cosine_similarity, a, b),
    "distance": lambda a, _, b, __: -_of_means(_distances, a, b),
}


def _of_means(of: Callable[..., np.ndarray], *means: ArrayLike) -> np.ndarray:
    a, b = (np.asarray(array_of(v), dtype=np.float64) for v in means)
    if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1]):
        raise DataError(f"means have shapes {a.shape}, {b.shape}: give (n, d) and (m, d)")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("means are not finite in places: leave such items out")
    return of(a, b)


def compare(
    by: str, mean: ArrayLike, std: ArrayLike, other_mean: ArrayLike, other_std: ArrayLike
) -> np.ndarray:
    """Compare normal distributions, each with each, in a way that is chosen by its name.

    Parameters
    ----------
    by : {"expected likelihood", "bhattacharyya", "containment", "cosine", "distance"}
        The last two, minus the distance, look at means alone.
    mean, std : array_like
        ``(n, d)``; points have a std of 0.
    other_mean, other_std : array_like
        ``(m, d)``.

    Returns
    -------
    ndarray
        ``(n, m)``; larger is more alike.

    Raises
    ------
    PlanError
        If there is no such comparison, or points are compared as distributions.

    Examples
    --------
    >>> from chartae.transfer import compare
    >>> compare("distance", [[0.0]], [[1.0]], [[3.0]], [[1.0]])
    array([[-3.]])
    """
    if by not in COMPARISONS:
        raise PlanError(f"by={by!r} compares nothing: {suggest(by, COMPARISONS)}")
    if by not in ("cosine", "distance") and any(
        np.size(widths) and not np.any(widths) for widths in (std, other_std)
    ):
        raise PlanError(f"by={by!r} compares distributions, and these are points: use by='distance'")
    return COMPARISONS[by](mean, std, other_mean, other_std)


def vendi_score(codes: ArrayLike, *, width: float | None = None) -> float:
    """Count how many different items there are: 1 where all are alike, n where none is like another.

    Parameters
    ----------
    codes : array_like
        ``(n, d)``.
    width : float or None
        Distance from which two count as different, of a Gaussian kernel; None: they are compared by cosine.

    Returns
    -------
    float
        From 1 to n: the exponential of the entropy of the kernel's eigenvalues.

    Raises
    ------
    DataError
        If codes have another shape, there are none, or one is not finite.
    PlanError
        If the width is no distance.

    References
    ----------
    Friedman and Dieng 2023, arXiv:2210.02410, definition 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import vendi_score
    >>> round(vendi_score(np.eye(5)), 2), round(vendi_score(np.ones((5, 3))), 2)
    (5.0, 1.0)
    >>> round(vendi_score(np.repeat([[0.0], [9.0], [99.0]], 5, axis=0), width=1.0), 2)
    3.0
    """
    codes = np.asarray(array_of(codes), dtype=np.float64)
    if codes.ndim != 2 or not codes.size:
        raise DataError(f"codes have shape {codes.shape}: give (n, d), one item or more")
    if not np.isfinite(codes).all():
        raise DataError("codes are not finite in places: leave such items out")
    if width is not None and not _is_distance(width):
        raise PlanError(f"width={width!r}: use a distance above 0, or None for cosines")
    if width is not None:
        kernel = np.exp(-0.5 * np.square(_distances(codes, codes) / width))
    else:
        nothing = ~codes.any(1, keepdims=True)  # codes of no direction are all alike, and like no other
        unit = np.hstack([normalize(codes), nothing])
        # The smaller of the two Gram matrices: their eigenvalues other than 0 are the same.
        kernel = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    shares = np.linalg.eigvalsh(kernel / len(codes)).clip(0)
    return float(np.exp(entr(shares).sum()))


def _is_distance(width: Any) -> bool:
    return isinstance(width, int | float | np.number) and bool(width > 0)
