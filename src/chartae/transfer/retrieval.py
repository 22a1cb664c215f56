"""Items found by how alike they are: the nearest, whether they are right, and what they vote for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import hypergeom
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.validation import column_or_1d

from chartae.core.counts import is_count
from chartae.core.errors import DataError, PlanError
from chartae.training.items import array_of
from chartae.training.labels import UNLABELED, as_labels, labeled, missing

__all__ = ["most_alike", "recall_at", "votes", "votes_of_draws"]


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
    if not is_count(k):
        raise PlanError(f"k={k!r}: let one item vote, or more")
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
    if not is_count(k) or (k > m and not fewer):
        cure = "look at one item, or more" if fewer else f"there are {m} items to find, so use 1 to {m}"
        raise PlanError(f"k={k!r}: {cure}")
    near = np.argpartition(-pairs, min(k, m) - 1, axis=1)[:, :k]
    return pairs, near, np.take_along_axis(pairs, near, 1)


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
