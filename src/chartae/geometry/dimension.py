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
PLATEAU = 0.10  # relative change over two octaves of scale that still counts as flat


@dataclass(frozen=True)
class Dimension:
    """An estimate of intrinsic dimension.

    Parameters
    ----------
    dimension : float
        The estimate on the plateau, or at the largest scale where there is none.
    interval : tuple of float
        95 % interval at that scale.
    scales : tuple
        ``(neighbor, dimension, standard error)`` at each scale.
    verdict : str
        "ok", or "cannot tell" where the estimate keeps changing with scale.

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


def intrinsic_dimension(X: Any, *, max_rows: int = 2000, random_state: int | None = 0) -> Dimension:
    """Estimate the dimension of the manifold near which data lie, from ratios of neighbor distances.

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
    Denti et al. 2022, doi:10.1038/s41598-022-20991-1 (GRIDE); at the first scale it is the maximum-likelihood
    form of TwoNN, Facco et al. 2017, doi:10.1038/s41598-017-11873-y.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import intrinsic_dimension
    >>> plane = np.random.default_rng(0).uniform(size=(1000, 2)) @ np.ones((2, 5)) * [1, 2, 3, 4, 5]
    >>> round(intrinsic_dimension(plane).dimension)
    1
    """
    from sklearn.neighbors import NearestNeighbors

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
    wanted = [n for n in SCALES if 2 * n < len(X)]
    distances = NearestNeighbors(n_neighbors=2 * wanted[-1]).fit(X).kneighbors()[0]
    scales = []
    for n in wanted:
        near, far = distances[:, n - 1], distances[:, 2 * n - 1]
        use = (near > 0) & (far > (1 + TIE) * near)
        if use.sum() >= 4:
            scales.append((n, *_gride(np.log(far[use] / near[use]), n)))
    if not scales:
        raise DataError(
            "all neighbors are equally far, so no dimension can be read: give latent_dim a number"
        )
    values = np.array([s[1] for s in scales])
    flat = next(
        (i + 1 for i in range(len(values) - 2) if np.ptp(values[i : i + 3]) <= PLATEAU * values[i + 1]),
        None,
    )
    chosen = scales[len(scales) - 1 if flat is None else flat]
    half = 1.96 * chosen[2]
    return Dimension(
        chosen[1],
        (chosen[1] - half, chosen[1] + half),
        tuple(scales),
        "cannot tell" if flat is None else "ok",
    )


def _gride(log_mu: np.ndarray, n1: int) -> tuple[float, float]:
    """Maximum likelihood of d from log(r_2n / r_n), and its standard error."""
    from scipy.optimize import brentq

    n2, total = 2 * n1, log_mu.sum()

    def slope(log_d: float) -> float:
        d = math.exp(log_d)
        return len(log_mu) / d + (n2 - n1 - 1) * (log_mu / -np.expm1(-d * log_mu)).sum() - (n2 - 1) * total

    d = math.exp(brentq(slope, math.log(1e-3), math.log(1e4))) if slope(math.log(1e4)) < 0 else 1e4
    x = d * log_mu
    # Observed information: minus the derivative of the slope with respect to d.
    information = len(log_mu) / d**2 + (n2 - n1 - 1) * (log_mu**2 * np.exp(-x) / np.expm1(-x) ** 2).sum()
    return d, 1 / math.sqrt(information)
