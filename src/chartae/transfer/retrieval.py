"""What can be asked of items that are distributions: how alike two are, how varied many, how sure of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr
from scipy.stats import hypergeom
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from sklearn.utils.validation import column_or_1d

from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest
from chartae.training.items import array_of
from chartae.training.labels import UNLABELED, as_labels, labeled, missing

__all__ = [
    "COMPARISONS",
    "RiskCoverage",
    "bhattacharyya",
    "compare",
    "containment",
    "expected_likelihood",
    "most_alike",
    "recall_at",
    "risk_coverage",
    "vendi_score",
    "votes",
    "votes_of_draws",
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


def most_alike(similarity: ArrayLike, k: int) -> np.ndarray:
    """Find the k most similar items of each query, the best first.

    Parameters
    ----------
    similarity : array_like
        ``(n, m)``: of each query and item; larger is more alike.
    k : int
        From 1 to m.

    Returns
    -------
    ndarray
        ``(n, k)``, columns of the similarities; equal ones as they stand.

    Raises
    ------
    DataError
        If a similarity is not a number.
    PlanError
        If there are not as many items.

    References
    ----------
    Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57, section II (exhaustive search).

    Examples
    --------
    >>> from chartae.transfer import most_alike
    >>> most_alike([[0.1, 0.9, 0.4]], k=2)
    array([[1, 2]])
    """
    pairs, near, alike = _nearest(similarity, k, fewer=False)
    order = np.lexsort((near, -alike))
    found: np.ndarray = np.take_along_axis(near, order, 1)
    rows = _tied(pairs, alike)[0]
    found[rows] = np.argsort(-pairs[rows], axis=1, kind="stable")[:, : found.shape[1]]
    return found


def recall_at(similarity: ArrayLike, labels: ArrayLike, other_labels: ArrayLike, k: int = 1) -> float:
    """Share of queries for which one of the k most similar items has their label.

    Parameters
    ----------
    similarity : array_like
        ``(n, m)``: of each query and item; larger is more alike. Minus infinity leaves a pair out.
    labels : array_like
        ``(n,)`` of the queries; one of -1, or None, is left out, as by :func:`labeled`.
    other_labels : array_like
        ``(m,)`` of the items; those of -1, or None, are not found, as by :func:`labeled`.
    k : int
        How many are looked at; of equal ones for the last places, in the mean over their orders.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    DataError
        If a similarity is not a number, there is not one for each label, no label is known, those of one are
        text and of the other numbers, or there is no query or no item.
    PlanError
        If none is to be looked at.

    References
    ----------
    Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57, section V.

    Examples
    --------
    >>> from chartae.transfer import recall_at
    >>> recall_at([[0.9, 0.1], [0.8, 0.2]], ["a", "b"], ["a", "b"])
    0.5
    """
    pairs = np.asarray(array_of(similarity))
    asked, there = as_labels(labels), as_labels(other_labels)
    if not pairs.size:
        raise DataError("there is no query, or no item to find: give one or more of each")
    if asked.ndim != 1 or there.ndim != 1 or pairs.shape != (len(asked), len(there)):
        raise DataError(
            f"similarities have shape {pairs.shape}, and there are {len(asked)} labels of queries and "
            f"{len(there)} of items: give one for each"
        )
    one, other = ([v for v in own[~missing(own)].tolist() if v != UNLABELED][:1] for own in (asked, there))
    if one and other and isinstance(one[0], str) != isinstance(other[0], str):
        raise DataError(f"queries have labels such as {one[0]!r}, items such as {other[0]!r}: give the same")
    known = labeled(np.concatenate([asked, there]))
    queries, items = known[: len(asked)], known[len(asked) :]
    if not (queries.any() and items.any()):
        raise DataError("no query or no item has a label to be found by: give some")
    chosen, near, alike = _nearest(pairs[queries][:, items], k)
    wanted, named = asked[queries][:, None], there[items]
    found = ((named[near] == wanted) & (alike > -np.inf)).any(1).astype(float)
    drawn = []
    for row, sure, tied, places in _orders(chosen, alike):
        right = named == wanted[row]
        if not (right & sure).any():
            drawn.append((row, tied.sum(), (right & tied).sum(), places))
    if drawn:
        rows, among, those, places = np.transpose(drawn)
        found[rows] = 1.0 - hypergeom.pmf(0, among, those, places)
    return float(found.mean())


def votes(similarity: ArrayLike, labels: ArrayLike, k: int = 5) -> np.ndarray:
    """Shares of labels among the k most similar items: the largest is the answer, and says how sure it is.

    Parameters
    ----------
    similarity : array_like
        ``(n, m)``: of each query and item; larger is more alike. Minus infinity leaves a pair out.
    labels : array_like
        ``(m,)`` of the items; one of -1, or None, does not vote, as by :func:`labeled`.
    k : int
        How many vote; fewer where fewer are left. Equal ones share the last places.

    Returns
    -------
    ndarray
        ``(n, classes)``, of the labels in their order; rows add up to one, or to zero where none is left.

    Raises
    ------
    DataError
        If a similarity is not a number, or there is not one for each label.
    PlanError
        If none is to be looked at.

    References
    ----------
    Cover and Hart 1967, doi:10.1109/TIT.1967.1053964.

    Examples
    --------
    >>> from chartae.transfer import votes
    >>> votes([[0.9, 0.8, 0.1, 0.7]], ["a", "b", "b", "b"], k=3).round(2)
    array([[0.33, 0.67]])
    """
    given, pairs = column_or_1d(as_labels(labels)), array_of(similarity)
    if pairs.ndim != 2 or pairs.shape[1] != len(given):
        raise DataError(
            f"similarities have shape {pairs.shape}, and there are {len(given)} labels: give one for "
            "each item"
        )
    known = _voters(given)
    classes, numbers = np.unique(given[known], return_inverse=True)
    chosen, near, alike = _nearest(pairs[:, known], k)
    left = alike > -np.inf
    found = np.zeros((len(near), len(classes)))
    np.add.at(found, (np.arange(len(near))[:, None], numbers[near]), left)
    for row, sure, tied, places in _orders(chosen, alike):
        found[row] = np.bincount(numbers, sure + tied * (places / tied.sum()), len(classes))
    shares: np.ndarray = found / left.sum(1, keepdims=True).clip(1)
    return shares


def votes_of_draws(
    draws: ArrayLike, labels: ArrayLike, gallery: ArrayLike, k: int = 5, *, same: bool = False
) -> np.ndarray:
    """Shares of labels among the k nearest items, averaged over where queries and items may lie.

    Each draw of the queries looks for its neighbors among each draw of the items. What can be one thing or
    another is then split between the two, also where its mean lies among items of one label.

    Parameters
    ----------
    draws : array_like
        ``(s, n, d)`` codes of the queries.
    labels : array_like
        ``(m,)`` of the items; one of -1, or None, does not vote, as by :func:`labeled`.
    gallery : array_like
        ``(t, m, d)`` codes of the items. Noise that queries and items share would hide how far apart they
        may lie: they are to be drawn apart.
    k : int
        How many vote; fewer where fewer are left.
    same : bool
        Whether the queries are the items, in the same order: none votes for itself.

    Returns
    -------
    ndarray
        ``(n, classes)``, of the labels in their order; rows add up to one, or to zero where none is left.

    Raises
    ------
    DataError
        If there are not as many labels as items, or not the same queries.
    PlanError
        If none is to vote.

    References
    ----------
    Cover and Hart 1967, doi:10.1109/TIT.1967.1053964, of codes that are drawn as in Oh et al. 2019,
    arXiv:1810.00319, section 2.2.

    Examples
    --------
    >>> from chartae.transfer import votes_of_draws
    >>> queries, items = [[[0.1]], [[0.9]], [[0.2]], [[0.3]]], [[[0.0], [1.0]]]
    >>> votes_of_draws(queries, ["a", "b"], items, k=1)
    array([[0.75, 0.25]])
    """
    draws, items, given = _different(draws), _different(gallery), column_or_1d(as_labels(labels))
    if draws.shape[2] != items.shape[2]:
        raise DataError(f"draws have {draws.shape[2]} dimensions, and those of items {items.shape[2]}")
    (s, n, d), m = draws.shape, items.shape[1]
    if not _is_count(k):
        raise PlanError(f"k={k!r}: let one item vote, or more")
    k = int(k)
    if len(given) != m or (same and n != m):
        raise DataError(
            f"there are {len(given)} labels of {m} items, and {n} queries: give one label for each item"
        )
    asked = _voters(given)
    classes, numbers = np.unique(given[asked], return_inverse=True)
    items, m = items[:, asked], len(asked)
    queries, rows = draws.reshape(-1, d), np.tile(np.arange(n), s)[:, None]
    found = np.zeros((n, len(classes)))
    for drawn in items:
        near = NearestNeighbors(n_neighbors=min(k + same, m)).fit(drawn).kneighbors(queries)[1]
        votes = asked[near] != rows if same else np.ones(near.shape, dtype=bool)
        votes &= votes.cumsum(1) <= k
        np.add.at(found, (rows, numbers[near]), votes)
    shares: np.ndarray = found / found.sum(1, keepdims=True).clip(1)
    return shares


def _voters(labels: np.ndarray) -> np.ndarray:
    """Rows of items that have a label."""
    known = np.flatnonzero(labeled(labels))
    if not len(known):
        raise DataError("no item has a label to vote for: give some")
    return known


def _different(draws: ArrayLike) -> np.ndarray:
    """Leave out draws of points, which are all the same."""
    draws = np.asarray(array_of(draws))
    if draws.ndim != 3 or not len(draws):
        raise DataError(f"draws have shape {draws.shape}: give (draws, n, d), one draw or more")
    if not np.isfinite(draws).all():
        raise DataError("draws are not finite in places: leave such items out")
    return draws[:1] if np.array_equal(draws, np.broadcast_to(draws[:1], draws.shape)) else draws


def _nearest(similarity: ArrayLike, k: int, *, fewer: bool = True) -> tuple[np.ndarray, ...]:
    """All similarities, the k largest of each row, in any order, and what they are; fewer, of fewer items."""
    pairs = np.asarray(array_of(similarity), dtype=np.float64)
    if pairs.ndim != 2:
        raise DataError(f"similarities have shape {pairs.shape}: give (n, m), one for each query and item")
    if np.isnan(pairs).any():
        raise DataError("similarities are not numbers in places: write minus infinity to leave a pair out")
    m = pairs.shape[1]
    if not _is_count(k) or (k > m and not fewer):
        cure = "look at one item, or more" if fewer else f"there are {m} items to find, so use 1 to {m}"
        raise PlanError(f"k={k!r}: {cure}")
    near = np.argpartition(-pairs, min(int(k), m) - 1, axis=1)[:, : int(k)]
    return pairs, near, np.take_along_axis(pairs, near, 1)


def _is_count(k: Any) -> bool:
    return isinstance(k, int | float | np.integer | np.floating) and bool(k >= 1) and bool(k % 1 == 0)


def _is_distance(width: Any) -> bool:
    return isinstance(width, int | float | np.number) and bool(width > 0)


def _tied(pairs: np.ndarray, alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in which more items are equal than there are places for, and those places of each row."""
    last = alike.min(1, keepdims=True)
    places = (alike == last).sum(1)
    return np.flatnonzero((pairs == last).sum(1) > places), places


def _orders(pairs: np.ndarray, alike: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, int]]:
    """Of each such row which items have a place in any order, which equal ones may have one, and how many."""
    rows, places = _tied(pairs, alike)
    for row in rows:
        last = alike[row].min()
        if last > -np.inf:  # what is left out has no place
            yield int(row), pairs[row] > last, pairs[row] == last, int(places[row])


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
