"""Intrinsic dimension of data, over scales."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from chartae.core.errors import DataError

__all__ = ["Dimension", "intrinsic_dimension"]

SCALES = (1, 2, 4, 8, 16, 32, 64)
TIE = 1e-9  # neighbors closer in distance than this, relatively, differ by rounding alone
# Relative change over two octaves of scale that still counts as flat. Known manifolds change by 0.053 or
# less, a 10-sphere that is lost in noise by 0.091 or more: benchmarks/diagnostics/dimension.py on seeds 0-23.
PLATEAU = 0.08
FALL = 0.15  # a plateau below which larger scales fall by more was of the noise
CELLS = 32  # parts of the data whose sums are taken as independent
CENTERS, NEIGHBORS, FLOOR = 200, (32, 64, 128), 0.02  # of local principal components
AGREE = 0.85  # share of the estimate that counted eigenvalues contradict by falling below it
GAP = 2.0  # ratio of successive eigenvalues from which on the first of them stand out


@dataclass(frozen=True)
class Dimension:
    """An estimate of intrinsic dimension.

    Parameters
    ----------
    dimension : float
        The estimate on the plateau, or at the largest scale where there is none.
    interval : tuple of float
        What the 95 % intervals of the scales on the plateau cover together, or those of all scales where
        there is none.
    scales : tuple
        ``(neighbor, dimension, standard error)`` at each scale: GRIDE, corrected for the number of rows.
    verdict : str
        "ok", or "cannot tell" where the estimate keeps changing with scale or ``local_pca`` contradicts it.
    plain : tuple of float
        GRIDE at each scale as published, without the correction: too low in many dimensions.
    twonn : float or None
        TwoNN as published; None where too few rows have two different neighbors.
    local_pca : int or None
        How many eigenvalues of local covariances stand out; None where none do.

    Examples
    --------
    >>> from chartae.geometry.dimension import Dimension
    >>> Dimension(2.0, (1.9, 2.1), ((1, 2.0, 0.05),), "ok").verdict
    'ok'
    """

    dimension: float
    interval: tuple[float, float]
    scales: tuple[tuple[int, float, float], ...]
    verdict: str
    plain: tuple[float, ...] = ()
    twonn: float | None = None
    local_pca: int | None = None


def intrinsic_dimension(X: Any, *, max_rows: int = 5000, random_state: int | None = 0) -> Dimension:
    """Estimate the dimension of the manifold near which data lie, from ratios of neighbor distances.

    At each of seven scales, GRIDE reads a dimension from the distances to the n-th and the 2n-th neighbor. As
    published it assumes that neighborhoods are flat, and N points in many dimensions have none: on the
    10-sphere 5,000 points read 8.5 to 9.4. What a sphere of dimension d and of N points reads is known in
    closed form, and is inverted here, so that spheres read d at every scale (Gaussians within 6 %, balls
    8 %, cubes 13 %). Noise makes the reading fall with scale, and folds make it rise: the answer is the
    flattest two octaves that nothing falls below later. Where there are none, or where many fewer eigenvalues
    of local covariances stand out, as when noise is all that is near, the verdict is "cannot tell".

    Parameters
    ----------
    X : array_like
        ``(n, ...)``, in any units; duplicates are dropped.
    max_rows : int
        At most so many rows, chosen at random, are used.
    random_state : int or None
        Of that choice.

    Returns
    -------
    Dimension
        With its interval (dimensions) and a verdict.

    Raises
    ------
    DataError
        If these are not rows of finite numbers, or fewer than five different ones are left.

    References
    ----------
    Denti et al. 2022, doi:10.1038/s41598-022-20991-1 (GRIDE); Facco et al. 2017,
    doi:10.1038/s41598-017-11873-y (TwoNN); Fukunaga & Olsen 1971, doi:10.1109/T-C.1971.223208 (local
    components). The volume of a cap of chord r is the share I(r²/4; d/2, d/2) of the d-sphere's, where I is
    the regularized incomplete beta function.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import intrinsic_dimension
    >>> plane = np.random.default_rng(0).uniform(size=(1000, 2)) @ np.ones((2, 5)) * [1, 2, 3, 4, 5]
    >>> round(intrinsic_dimension(plane).dimension)
    1
    """
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    X = X.detach().cpu().double().numpy() if isinstance(X, Tensor) else np.asarray(X)
    if X.ndim < 2 or X.dtype.kind not in "fiub":
        raise DataError(
            f"an array of {X.dtype} and shape {X.shape} holds no rows of numbers: give (n, features)"
        )
    if len(X) > max_rows:
        X = X[np.sort(np.random.default_rng(random_state).choice(len(X), max_rows, replace=False))]
    X = np.unique(X.reshape(len(X), math.prod(X.shape[1:])).astype(np.float64), axis=0)
    if not np.isfinite(X).all():
        raise DataError("the data hold values that are not finite: clean them first")
    if len(X) < 5:
        raise DataError(
            f"{len(X)} different rows are too few to estimate a dimension: give latent_dim a number"
        )
    # Centered and scaled: distances of large numbers would lose their small differences.
    X = X - X.mean(0)
    X /= np.abs(X).max() or 1.0
    # The 2n-th neighbor lies within half of the data: beyond, a neighborhood is the whole of them.
    wanted = [n for n in SCALES if 4 * n <= len(X)]
    distances, neighbors = NearestNeighbors(n_neighbors=2 * wanted[-1]).fit(X).kneighbors()
    cells = _cells(X)
    scales, plain = [], []
    for n in wanted:
        near, far = distances[:, n - 1], distances[:, 2 * n - 1]
        use = (near > 0) & (far > (1 + TIE) * near)
        if use.sum() >= 4:
            d, error = _gride(np.log(far[use] / near[use]), n, cells[use])
            plain.append(d)
            scales.append((n, *_corrected(d, error, 1.5 * n / len(X))))
    if not scales:
        raise DataError(
            "all neighbors are equally far, so no dimension can be read: give latent_dim a number"
        )
    i = _plateau(np.array([d for _, d, _ in scales]))
    found = scales[-1][1] if i is None else scales[i + 1][1]
    with threadpool_limits(1, user_api="blas"):  # threads wait for each other longer than one matrix takes
        pca = _local_pca(X, neighbors)
    used = scales if i is None else scales[i : i + 3]
    ends = [d + z * e for _, d, e in used for z in (-1.96, 1.96)]
    contradicted = pca is not None and pca < AGREE * found and pca <= found - 1
    return Dimension(
        found,
        (float(max(0.0, min(ends))), float(max(ends))),
        tuple(scales),
        "cannot tell" if i is None or contradicted else "ok",
        tuple(plain),
        _twonn(distances),
        pca,
    )


def _plateau(values: np.ndarray) -> int | None:
    """Find the first scale of the flattest two octaves that no later scale falls below."""
    flat = []
    for i in range(len(values) - 2):
        change = np.ptp(values[i : i + 3]) / values[i + 1]
        if change <= PLATEAU and values[i:].min() >= (1 - FALL) * values[i + 1]:
            flat.append((change, i))
    return min(flat)[1] if flat else None


def _gride(log_mu: np.ndarray, n1: int, cells: np.ndarray) -> tuple[float, float]:
    """Maximum likelihood of d from log(r_2n / r_n), and its standard error."""
    from scipy.optimize import brentq

    n2, total = 2 * n1, log_mu.sum()

    def slope(log_d: float) -> float:
        d = math.exp(log_d)
        return len(log_mu) / d + (n2 - n1 - 1) * (log_mu / -np.expm1(-d * log_mu)).sum() - (n2 - 1) * total

    d = math.exp(brentq(slope, math.log(1e-3), math.log(1e4))) if slope(math.log(1e4)) < 0 else 1e4
    x = d * log_mu
    score = 1 / d + (n2 - n1 - 1) * log_mu / -np.expm1(-x) - (n2 - 1) * log_mu
    # Observed information: minus the derivative of the slope with respect to d.
    information = len(log_mu) / d**2 + (n2 - n1 - 1) * (log_mu**2 * np.exp(-x) / np.expm1(-x) ** 2).sum()
    # Neighbors share neighbors: sums over parts of the data vary as they do, single scores vary less.
    spread = np.square(np.bincount(cells, score)).sum()
    return d, math.sqrt(max(float(spread), float(information))) / float(information)


def _cells(X: np.ndarray) -> np.ndarray:
    """Cut rows into parts of equal size, each time along the axis of the largest extent."""
    cells = np.zeros(len(X), dtype=np.int64)
    for level in range(int(math.log2(min(CELLS, len(X) / 4)))):
        for cell in range(2**level):
            rows = np.flatnonzero(cells == cell)
            axis = X[rows].var(0).argmax()
            cells[rows[np.argsort(X[rows, axis], kind="stable")[len(rows) // 2 :]]] += 2**level
    return cells


def _sphere(d: float, share: float) -> float:
    """What GRIDE reads on a d-sphere where neighborhoods hold this share of it: dlog(volume)/dlog(radius)."""
    from scipy.special import betaincinv, betaln

    s = float(betaincinv(d / 2, d / 2, share))  # a quarter of the squared chord
    density = d / 2 * math.log(s) + (d / 2 - 1) * math.log1p(-s) - betaln(d / 2, d / 2)
    return math.exp(math.log(2 / share) + density)


def _corrected(d: float, error: float, share: float) -> tuple[float, float]:
    """Find the dimension of the sphere that reads d, and the standard error that comes of it."""
    from scipy.optimize import brentq

    share = min(share, 0.5)  # beyond half of a sphere it says nothing
    most = 1e3
    if d <= 2 or d >= _sphere(most, share):  # lines and surfaces need none
        return d, error
    found = float(brentq(lambda e: _sphere(e, share) - d, 1.9, most))
    return found, error / ((_sphere(1.01 * found, share) - d) / (0.01 * found))


def _twonn(distances: np.ndarray) -> float | None:
    """Slope of -log(1 - F) over log(r2 / r1), through the origin, without the largest tenth."""
    near, far = distances[:, 0], distances[:, 1] if distances.shape[1] > 1 else distances[:, 0]
    use = (near > 0) & (far > (1 + TIE) * near)
    if use.sum() < 4:
        return None
    log_mu = np.sort(np.log(far[use] / near[use]))
    kept = log_mu[: math.ceil(0.9 * len(log_mu))]
    rank = -np.log1p(-np.arange(1, len(kept) + 1) / (len(log_mu) + 1))
    return float((kept * rank).sum() / (kept * kept).sum())


def _local_pca(X: np.ndarray, neighbors: np.ndarray) -> int | None:
    """Count the eigenvalues of local covariances before their clearest gap, over sizes of neighborhoods."""
    rows = np.arange(len(X))[:: max(1, len(X) // CENTERS)]
    clearest, count, every = GAP, None, None
    for k in NEIGHBORS:
        if k > neighbors.shape[1] or 4 * k > len(X):
            continue
        most = min(k // 2, X.shape[1])
        spectrum = np.zeros(most + 1)
        for row in rows:
            local = X[neighbors[row, :k]]
            local = local - local.mean(0)
            gram = local @ local.T if k < X.shape[1] else local.T @ local
            values = np.linalg.eigvalsh(gram)[::-1][: most + 1]
            spectrum[: len(values)] += values
        # A floor, without which an exact zero would stand out from anything.
        ratio = spectrum[:-1] / np.maximum(spectrum[1:], FLOOR * spectrum[0])
        if most == X.shape[1] and ratio[-1] > GAP:  # the last stands out from nothing
            every = most
        inner = ratio[: X.shape[1] - 1]
        if len(inner) and spectrum[0] > 0 and inner.max() > clearest:
            clearest, count = inner.max(), int(inner.argmax()) + 1
    return every if count is None else count
