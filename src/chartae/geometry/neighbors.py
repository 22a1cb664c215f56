"""Nearest neighbors, the same way everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from chartae.core.errors import DataError

__all__ = ["distinct", "nearest"]

ROUNDING = 1e-5  # of the widest spread: rows that differ by less are copies
SPREAD = (0.05, 0.95)  # quantiles that a spread lies between: outliers are beyond them
LAST = 2 * float(np.finfo(np.float32).eps)  # of a value itself: the last places of float32
SMALL = 1e-4  # of the norms of two rows: a distance below it is measured by their difference
VALUES = 1 << 18  # of differences at once
TREE = 4  # dimensions up to which a tree is faster than all distances at once


def nearest(queries: Any, points: Any, k: int, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest points of each query, by Euclidean distance, exactly.

    Source: scikit-learn's NearestNeighbors, on centered rows in double precision.

    Parameters
    ----------
    queries : array_like
        ``(n, ...)``; rows are flattened.
    points : array_like
        ``(m, ...)``.
    k : int
        How many.
    exclude_self : bool
        Queries are the points themselves, in the same order, and no row counts as its own neighbor; a copy of
        it does.

    Returns
    -------
    distances : ndarray
        ``(n, k)``, ascending.
    indices : ndarray
        ``(n, k)``, rows of ``points``.

    Raises
    ------
    DataError
        If there are fewer points than that.

    Examples
    --------
    >>> from chartae.geometry import nearest
    >>> nearest([[0.0], [1.0], [3.0]], [[0.0], [1.0], [3.0]], 1, exclude_self=True)[1].ravel().tolist()
    [1, 0, 1]
    """
    from sklearn.neighbors import NearestNeighbors

    same = queries is points
    points = _flat(points)
    queries = points if same else _flat(queries)
    wanted = k + exclude_self
    if len(points) < wanted:
        raise DataError(f"{len(points)} points have no {k} neighbors: give more")
    center = points.mean(0)
    points -= center  # in place: copies of many values take as long as their neighbors
    if not same:
        queries -= center
    method = "kd_tree" if points.shape[1] <= TREE else "brute"
    distances, indices = (
        NearestNeighbors(n_neighbors=wanted, algorithm=method).fit(points).kneighbors(queries)
    )
    if method == "brute":
        _measured(distances, indices, queries, points)
        order = distances.argsort(axis=1, kind="stable")
        distances, indices = (np.take_along_axis(a, order, axis=1) for a in (distances, indices))
    if exclude_self:
        # Among copies, a row may not be the first of its own neighbors, or none of them: then the last goes.
        own = indices == np.arange(len(queries))[:, None]
        own[~own.any(1), -1] = True
        distances, indices = distances[~own].reshape(-1, k), indices[~own].reshape(-1, k)
    return distances, indices


def distinct(points: np.ndarray) -> np.ndarray:
    """Leave out copies of rows, among which densities and distances to neighbors have no scale.

    Source: this library's own.

    Parameters
    ----------
    points : ndarray
        ``(n, d)``.

    Returns
    -------
    ndarray
        ``(m, d)``: of rows that are equal up to the rounding of float32, mostly the first alone.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry.neighbors import distinct
    >>> distinct(np.array([[2.0], [1.0], [2.0], [1.0]])).ravel().tolist()
    [2.0, 1.0]
    """
    if not len(points):
        return points
    spread = np.ptp(np.quantile(points, SPREAD, axis=0), axis=0).max(initial=0.0)
    size = np.median(np.abs(points), axis=0).max(initial=0.0)
    if spread <= 4 * LAST * size:  # copies of one, but for a few
        spread = np.ptp(points, axis=0).max(initial=0.0)
    cells, grain = points, ROUNDING * float(spread)
    if grain > 0:
        # Doubled until it is above the rounding of the value, of which an outlier has more.
        last = np.exp2(np.ceil(np.log2(np.maximum(1.0, LAST / grain * np.abs(points)))))
        cells = np.round(points / (grain * last)) * last
    # On a line, on which none but copies meet: to sort whole rows takes 7 times as long.
    along = (cells * np.random.default_rng(0).normal(size=points.shape[1])).sum(1)
    first = np.unique(along, return_index=True)[1]
    return points[np.sort(first)]


def _measured(distances: np.ndarray, indices: np.ndarray, queries: np.ndarray, points: np.ndarray) -> None:
    """Measure distances that are small against their rows again, which products leave to rounding.

    The square of a distance d has an error of some eps · (|q|² + |p|²): of copies all of it, and beyond
    ``SMALL`` a share of some eps / SMALL².
    """
    sizes = np.linalg.norm(queries, axis=1)[:, None] + np.linalg.norm(points, axis=1)[indices]
    row, column = np.nonzero(distances <= SMALL * sizes)
    block = max(1, VALUES // max(1, points.shape[1]))
    for start in range(0, len(row), block):
        i, j = row[start : start + block], column[start : start + block]
        distances[i, j] = np.linalg.norm(queries[i] - points[indices[i, j]], axis=1)


def _flat(X: Any) -> np.ndarray:
    X = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    return X.reshape(len(X), -1).astype(np.float64)
