"""Tangent spaces of data, and how a chart's maps lie to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.errors import DataError
from chartae.geometry.charts import Chart, chart_of, rows_of
from chartae.geometry.dimension import intrinsic_dimension
from chartae.geometry.jacobians import pullback, pushforward

__all__ = ["NormalGain", "TangentSpace", "normal_gain", "principal_angles", "tangent_space"]

NEIGHBORS = (8, 16, 32, 64, 128, 256)
AGREEMENT = 0.2  # radians between bases of two halves, in the median, at which more neighbors are not needed
RELIABLE = (
    0.35  # radians (20°) up to which one point's halves agree: the error of the whole is about half of it
)
VALUES = 1 << 22  # values of neighborhoods in one go: bounded memory


@dataclass(frozen=True)
class TangentSpace:
    """Tangent spaces of data at some points.

    Parameters
    ----------
    basis : ndarray
        ``(n, D, m)``, orthonormal columns, float32.
    angle : ndarray
        ``(n,)`` radians, the largest principal angle between the bases of two halves of the neighbors: about
        twice the error of the basis where noise decides it; curvature that both halves share is not in it.
    dimension : int
        m.
    n_neighbors : int
        How many neighbors made each basis.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import TangentSpace
    >>> TangentSpace(np.eye(3, 2)[None], np.array([0.1]), 2, 16).reliable
    array([ True])
    """

    basis: np.ndarray
    angle: np.ndarray
    dimension: int
    n_neighbors: int

    @property
    def reliable(self) -> np.ndarray:
        """Where the halves agree within 20°, ``(n,)``: nothing can be told elsewhere."""
        return self.angle <= RELIABLE


def tangent_space(
    X: Any,
    at: Any = None,
    *,
    dimension: int | None = None,
    n_neighbors: int | str = "auto",
    random_state: int | None = 0,
) -> TangentSpace:
    """Estimate tangent spaces by principal components of neighbors.

    Parameters
    ----------
    X : array_like
        ``(N, ...)``, data near a manifold, in one unit.
    at : array_like or None
        ``(n, ...)``, points of it; None: all of X.
    dimension : int or None
        Of the manifold; None: :func:`intrinsic_dimension`, rounded.
    n_neighbors : int or "auto"
        How many make a basis. "auto": the fewest of 8, 16, … 256 for which the bases of two halves agree
        within 0.2 radians in the median, or else those that agree best; at most a quarter of X.
    random_state : int or None
        Splits neighbors into halves.

    Returns
    -------
    TangentSpace
        Bases, and how far to trust each.

    Raises
    ------
    DataError
        If these are not finite rows of one size, or too few neighbors for the dimension.

    References
    ----------
    Singer & Wu 2012, doi:10.1002/cpa.21395 (local principal components).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import tangent_space
    >>> t = np.linspace(0, 2 * np.pi, 400)
    >>> circle = np.column_stack([np.cos(t), np.sin(t)])
    >>> tangent_space(circle, [[1.0, 0.0]], dimension=1).basis[0].round(2) ** 2
    array([[0.],
           [1.]], dtype=float32)
    """
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    data = _rows(X)
    points = data if at is None else _rows(at)
    data = np.unique(data, axis=0)  # a row that comes many times would be all of a neighborhood
    if points.shape[1] != data.shape[1]:
        raise DataError(
            f"points of {points.shape[1]} values do not lie in data of {data.shape[1]}: give them as X is"
        )
    if dimension is None:
        dimension = max(1, min(round(intrinsic_dimension(data).dimension), data.shape[1]))
    if not 1 <= dimension <= data.shape[1]:
        raise DataError(f"dimension={dimension}: use 1 to {data.shape[1]}, the size of an item")
    fewest = 2 * (dimension + 1)  # a half needs one more than its dimension: it is centered
    if n_neighbors == "auto":
        most = max(fewest, len(data) // 4)
        sizes = [k for k in NEIGHBORS if fewest < k <= most] or [most]
    else:
        sizes = [int(n_neighbors)]
    if min(sizes) < fewest or max(sizes) > len(data):
        raise DataError(
            f"{min(max(sizes), len(data))} neighbors cannot give {dimension} dimensions twice: use "
            f"n_neighbors={fewest} or more, and as many rows"
        )
    search = NearestNeighbors(n_neighbors=max(sizes)).fit(data)
    near = search.kneighbors(points, return_distance=False)
    with threadpool_limits(1, user_api="blas"):  # threads wait for each other longer than one matrix takes
        chosen = sizes[0] if len(sizes) == 1 else _enough(data, near, sizes, dimension, random_state)
        near = near[:, :chosen]
        return TangentSpace(
            _bases(data, near, dimension).astype(np.float32),
            _halves(data, near, dimension, random_state),
            dimension,
            chosen,
        )


def _enough(data: np.ndarray, near: np.ndarray, sizes: list[int], m: int, seed: int | None) -> int:
    """Choose the fewest neighbors whose halves agree, judged by some of the points."""
    few = near[np.linspace(0, len(near) - 1, min(len(near), 128)).astype(int)]
    found = []
    for k in sizes:
        found.append((float(np.median(_halves(data, few[:, :k], m, seed))), k))
        if found[-1][0] <= AGREEMENT:
            return k
    return min(found)[1]


def _rows(X: Any) -> np.ndarray:
    """Flatten items, in their precision."""
    X = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
    if X.ndim < 2 or X.dtype.kind not in "fiub" or not len(X):
        raise DataError(f"an array of {X.dtype} and shape {X.shape} holds no rows: give (n, features)")
    X = X.reshape(len(X), -1)
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if not np.isfinite(X).all():
        raise DataError("the data hold values that are not finite: clean them first")
    return X


def _bases(data: np.ndarray, near: np.ndarray, m: int) -> np.ndarray:
    """``(n, D, m)``: principal directions of each row's neighbors."""
    size = max(1, VALUES // (near.shape[1] * data.shape[1]))
    made = np.empty((len(near), data.shape[1], m))
    for start in range(0, len(near), size):
        local = data[near[start : start + size]].astype(np.float64)
        local = local - local.mean(1, keepdims=True)
        if near.shape[1] < data.shape[1]:  # k × k instead of D × D
            values, vectors = _top(local @ local.swapaxes(1, 2), m)
            found = local.swapaxes(1, 2) @ vectors
            # QR: where neighbors span fewer than m dimensions, eigenvectors of zero come out as nothing.
            found /= np.sqrt(np.maximum(values[:, None], 1e-300))
            made[start : start + size] = np.linalg.qr(found)[0]
        else:
            made[start : start + size] = _top(local.swapaxes(1, 2) @ local, m)[1]
    return made


def _top(A: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The m largest eigenvalues of symmetric matrices, ``(n, m)``, and their vectors, ``(n, k, m)``."""
    from scipy.linalg import eigh

    k = A.shape[1]
    pairs = [eigh(a, subset_by_index=(k - m, k - 1), check_finite=False) for a in A]
    return np.stack([w[::-1] for w, _ in pairs]), np.stack([v[:, ::-1] for _, v in pairs])


def _halves(data: np.ndarray, near: np.ndarray, m: int, seed: int | None) -> np.ndarray:
    """``(n,)``: the largest angle between the bases of two random halves of the neighbors."""
    near = np.random.default_rng(seed).permuted(near, axis=1)
    cut = near.shape[1] // 2
    size = max(1, VALUES // (2 * m * data.shape[1]))
    return np.concatenate(
        [
            _angles(_bases(data, part[:, :cut], m), _bases(data, part[:, cut : 2 * cut], m))[:, -1]
            for part in np.split(near, range(size, len(near), size))
        ]
    )


def principal_angles(A: Any, B: Any, *, tolerance: float = 1e-6) -> np.ndarray:
    """Angles between the spans of columns, from the smallest to the largest.

    Parameters
    ----------
    A, B : array_like
        ``(..., D, a)`` and ``(..., D, b)``; columns need not be orthonormal.
    tolerance : float
        Directions of a span whose singular value is below this share of its largest count as none: they are
        at right angles to everything.

    Returns
    -------
    ndarray
        ``(..., min(a, b))`` radians, 0 to π/2.

    Raises
    ------
    DataError
        If the columns do not have the same length.

    References
    ----------
    Björck & Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import principal_angles
    >>> principal_angles([[1.0], [0.0]], [[1.0], [1.0]]).round(4)  # 45°
    array([0.7854])
    """
    from threadpoolctl import threadpool_limits

    A, B = np.asarray(A, dtype=np.float64), np.asarray(B, dtype=np.float64)
    if min(A.ndim, B.ndim) < 2 or A.shape[-2] != B.shape[-2]:
        raise DataError(
            f"columns of {A.shape} and {B.shape} are not in one space: give (..., D, a) and (..., D, b)"
        )
    if A.shape[-1] < B.shape[-1]:
        A, B = B, A
    with threadpool_limits(1, user_api="blas"):
        return _angles(_orthonormal(A, tolerance), _orthonormal(B, tolerance))


def _angles(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Angles of columns that are orthonormal or zero; A has no fewer of them."""
    inner = A.swapaxes(-1, -2) @ B
    cosines, turned = np.linalg.svd(inner, full_matrices=False)[1:]
    outside = (B - A @ inner) @ turned.swapaxes(-1, -2)
    # From sine and cosine together: either alone loses half of the digits at one end.
    angles = np.arctan2(np.linalg.norm(outside, axis=-2), cosines)
    missing = np.linalg.norm(B @ turned.swapaxes(-1, -2), axis=-2) < 0.5
    return np.sort(np.where(missing, np.pi / 2, angles), axis=-1)


def _orthonormal(A: np.ndarray, tolerance: float) -> np.ndarray:
    """Orthonormal columns of the same span; zeros in place of directions that it does not have."""
    if A.shape[-1] == 1:
        norm = np.linalg.norm(A, axis=-2, keepdims=True)
        return np.where(norm > 0, A / np.where(norm > 0, norm, 1), 0)
    q, r = np.linalg.qr(A)  # first: it is several times as fast on long columns
    u, s, _ = np.linalg.svd(r, full_matrices=False)
    return (q @ u) * ((s > tolerance * s[..., :1]) & (s > 0))[..., None, :]


@dataclass(frozen=True)
class NormalGain:
    """What a projection does along and across the data's tangent spaces.

    Parameters
    ----------
    retention : ndarray
        ``(n,)``, tr(Tᵀ J_P T) / m, 1 for what keeps tangent directions.
    normal_gain : ndarray
        ``(n,)``, (‖J_P‖² − ‖J_P T‖²) / m, 0 for what removes normal ones; 1 for an encoder at 45° to the
        tangent space, whatever the number of features.
    encoder_angles : ndarray
        ``(n, min(d, m))`` radians, between the rows of J_E and the tangent space, ascending.
    decoder_angles : ndarray
        ``(n, min(d, m))`` radians, between the columns of J_D and the tangent space, ascending. Where d > m,
        all small means that the tangent space lies within what the decoder can reach.
    tangent_angle : ndarray
        ``(n,)`` radians, between tangent spaces of two halves of the neighbors.
    rows : ndarray
        ``(n,)``, which rows of the data these are.
    dimension : int
        m, of the tangent spaces.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import NormalGain
    >>> one, angles = np.ones(1), np.zeros((1, 2))
    >>> NormalGain(one, 0 * one, angles, angles, 0.9 * one, np.arange(1), 2).reliable
    array([False])
    """

    retention: np.ndarray
    normal_gain: np.ndarray
    encoder_angles: np.ndarray
    decoder_angles: np.ndarray
    tangent_angle: np.ndarray
    rows: np.ndarray
    dimension: int

    @property
    def reliable(self) -> np.ndarray:
        """Where the tangent space is known within 20°, ``(n,)``: nothing can be told elsewhere."""
        return self.tangent_angle <= RELIABLE


def normal_gain(
    model: Any,
    X: Any,
    *,
    condition: Any = None,
    tangents: TangentSpace | None = None,
    dimension: int | None = None,
    n_neighbors: int | str = "auto",
    max_rows: int = 256,
    tolerance: float = 1e-3,
    random_state: int | None = 0,
) -> NormalGain:
    """Measure how a model's projection P(x) = D(E(x)) treats tangent and normal directions of the data.

    J_P is the product of the two Jacobians, so that its norm comes from d × d matrices, exactly.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(N, *shape)`` items; neighbors are among all of them.
    condition : object, optional
        As the model takes it.
    tangents : TangentSpace or None
        At all of these items, where the caller has them; None: estimated at some.
    dimension : int or None
        Of the tangent spaces; None: estimated.
    n_neighbors : int or "auto"
        As :func:`tangent_space` takes it.
    max_rows : int
        At most so many rows, chosen at random, are measured, unless tangent spaces are given.
    tolerance : float
        Singular values of a Jacobian below this share of its largest count as none.
    random_state : int or None
        Of that choice.

    Returns
    -------
    NormalGain
        Per measured row.

    References
    ----------
    Alain & Bengio 2014, arXiv:1211.4246; Rifai et al. 2011, "The manifold tangent classifier".

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import normal_gain
    >>> X = torch.rand(200, 2) @ torch.eye(2, 4)
    >>> exact = (lambda x: x[:, :2], lambda z: z @ torch.eye(2, 4))
    >>> oblique = (lambda x: x[:, :2] + x[:, 2:], lambda z: z @ torch.eye(2, 4))
    >>> for pair in (exact, oblique):
    ...     found = normal_gain(pair, X, dimension=2, max_rows=1)
    ...     print(found.retention.round(3), found.normal_gain.round(3))
    [1.] [0.]
    [1.] [1.]
    """
    chart = chart_of(model)
    x, c = chart.take(X, condition)
    if tangents is None:
        rows = chosen_rows(len(x), max_rows, random_state)
        flat = x.flatten(1).cpu().numpy()
        space = tangent_space(
            flat, flat[rows], dimension=dimension, n_neighbors=n_neighbors, random_state=random_state
        )
    else:
        rows, space = np.arange(len(x)), tangents
    index = torch.as_tensor(rows, device=x.device)
    measured = [
        _gains(chart, x[part], rows_of(c, part), space.basis[b], tolerance)
        for b in chart.blocks(len(rows), 2 * chart.codes(x[:1], None if c is None else c[:1]).shape[1])
        for part in [index[b]]
    ]
    retention, gain, of_encoder, of_decoder = (np.concatenate(each) for each in zip(*measured, strict=True))
    return NormalGain(retention, gain, of_encoder, of_decoder, space.angle, rows, space.dimension)


def _gains(
    chart: Chart, x: Tensor, c: tuple[Tensor, ...], basis: np.ndarray, tolerance: float
) -> tuple[np.ndarray, ...]:
    """Retention, normal gain and the angles of both maps, at some items."""
    z, of_encoder = pullback(lambda h: chart.encode(h, *c), x)
    of_decoder = pushforward(lambda h: chart.decode(h, *c), z)[1]
    E = of_encoder.flatten(2).movedim(0, 1).double().cpu()  # (n, d, D)
    D = of_decoder.flatten(2).movedim(0, 2).double().cpu()  # (n, D, d)
    T = torch.from_numpy(basis).double()
    m = T.shape[2]
    ET, DT = E @ T, T.mT @ D
    metric = D.mT @ D
    retention = (DT * ET.mT).sum((1, 2)) / m
    whole = (metric * (E @ E.mT)).sum((1, 2))
    along = (ET * (metric @ ET)).sum((1, 2))
    return (
        retention.numpy(),
        ((whole - along) / m).clamp(min=0).numpy(),
        principal_angles(T.numpy(), E.mT.numpy(), tolerance=tolerance),
        principal_angles(T.numpy(), D.numpy(), tolerance=tolerance),
    )


def chosen_rows(n: int, most: int, seed: int | None) -> np.ndarray:
    """Choose rows at random, in their order.

    Source: :meth:`numpy.random.Generator.choice`.

    Parameters
    ----------
    n : int
        How many there are.
    most : int
        How many at most.
    seed : int or None
        Of the choice.

    Returns
    -------
    ndarray
        ``(min(n, most),)`` row numbers.
    """
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
