"""Paths between two codes, and whether they stay where codes are."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from chartae.core.counts import count, is_count
from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import chart_of, codes_of
from chartae.geometry.geodesics import SMALL, equal_arcs, geodesic, half_circle, lines, opposite
from chartae.geometry.neighbors import distinct, nearest

__all__ = ["interpolate", "off_support", "round_trip"]

PATHS = ("straight", "spherical", "geodesic")
KNOTS = 17  # of a geodesic, at least


def interpolate(
    model: Any,
    z0: Any,
    z1: Any,
    steps: int = 9,
    *,
    path: str = "straight",
    codes: Any = None,
    density_weight: float | None = None,
    condition: Any = None,
) -> np.ndarray:
    """Find codes on a path between two codes.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`; None, but not
        for a geodesic: codes may lie anywhere.
    z0, z1 : array_like
        ``(d,)`` codes, the ends.
    steps : int
        Points on the path, with its ends.
    path : {"straight", "spherical", "geodesic"}
        A line; a great circle, which keeps the typical norm of a Gaussian prior; or a shortest path as
        measured on what it decodes to, in steps of equal length there. Between opposite codes every great
        circle is as good, and one is taken, also for a line through a center where no code can lie.
    codes : array_like or None
        ``(n, d)`` codes of data, which a geodesic stays close to; None: it may go anywhere.
    density_weight : float or None
        How close, as :func:`geodesic` takes it; None: 1 where there are codes.
    condition : object, optional
        A single one, as the model takes it.

    Returns
    -------
    ndarray
        ``(steps, d)``.

    Raises
    ------
    PlanError
        If the path is unknown or has fewer than two points.
    DataError
        If the two codes do not fit together.

    References
    ----------
    White 2016, arXiv:1609.04468 (spherical interpolation); Arvanitidis, Hansen & Hauberg 2018,
    arXiv:1710.11379 (geodesics).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import interpolate
    >>> square = (lambda x: x.sqrt(), lambda z: z.square())
    >>> interpolate(square, [0.0], [1.0], 3, path="geodesic").round(2).ravel()
    array([0.  , 0.71, 1.  ])
    """
    if path not in PATHS:
        raise PlanError(f"path={path!r}: use 'straight' or 'spherical' or 'geodesic'")
    if not is_count(steps, 2):
        raise PlanError(f"steps={steps!r}: a path has a whole number of points, two or more")
    a, b = (np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, dtype=np.float64) for z in (z0, z1))
    if a.ndim != 1 or a.shape != b.shape:
        raise DataError(f"z0 of shape {a.shape} and z1 of shape {b.shape}: give one code (d,) of each")
    codes_of(np.stack([a, b]), None if model is None else chart_of(model).latent_dim)
    if path == "geodesic":
        weight = float(codes is not None) if density_weight is None else density_weight
        chart = chart_of(model)
        found = geodesic(
            chart,
            a[None],
            b[None],
            knots=max(KNOTS, steps),
            codes=codes,
            density_weight=weight,
            condition=condition,
        )
        return chart.placed(equal_arcs(chart, found.codes, steps, chart.condition(condition, 1))[0])
    where = None if model is None else chart_of(model)
    t = np.linspace(0, 1, steps)
    around = path == "spherical" and np.linalg.norm(a) * np.linalg.norm(b) > 0
    line = _great_circle(a, b, t) if around else lines(where, a[None], b[None], t)[0]
    return line if where is None else where.placed(line)


def _great_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    if len(a) > 1 and opposite(a[None], b[None])[0]:
        return half_circle(a, b, t)
    t = t[:, None]
    angle = np.arccos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
    if np.sin(angle) < SMALL:
        return (1 - t) * a + t * b
    circle: np.ndarray = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return circle


def off_support(
    path: Any, codes: Any, *, held_out: Any = None, n_neighbors: int = 10, random_state: int = 0
) -> Any:
    """Measure which share of a path is farther from codes than 99 % of held-out codes are.

    Parameters
    ----------
    path : array_like
        ``(steps, d)`` codes on a path, or ``(m, steps, d)`` on several.
    codes : array_like
        ``(n, d)`` codes of data, of which copies count once.
    held_out : array_like or None
        ``(k, d)`` other codes of data; None: one half of the codes is measured against the other.
    n_neighbors : int
        Distances are to this neighbor.
    random_state : int
        Of the halving.

    Returns
    -------
    float or ndarray
        The share; ``(m,)`` for several paths. 0.01 for codes of data themselves.

    Raises
    ------
    DataError
        If there are too few codes, or of another size.
    PlanError
        If there is no such neighbor.

    References
    ----------
    Arvanitidis, Hansen & Hauberg 2018, arXiv:1710.11379 (why paths must avoid holes); Loftsgaarden &
    Quesenberry 1965, doi:10.1214/aoms/1177700079 (distance to the k-th neighbor as a density).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import off_support
    >>> codes = np.random.default_rng(0).normal(size=(1000, 2))
    >>> float(off_support([[0, 0], [0.1, 0.1], [9, 9], [20, 20]], codes))
    0.5
    """
    points, near = np.asarray(path, dtype=np.float64), np.asarray(codes, dtype=np.float64)
    if near.ndim != 2 or points.ndim not in (2, 3) or points.shape[-1] != near.shape[1]:
        raise DataError(f"a path of shape {points.shape} and codes of shape {near.shape} do not fit together")
    if not (np.isfinite(points).all() and np.isfinite(near).all()):
        raise DataError("the path or codes are not finite in all places: leave such rows out")
    near = distinct(near)  # copies would make the usual distance zero
    if held_out is None:
        order = np.random.default_rng(random_state).permutation(len(near))
        near, other = near[order[: len(near) // 2]], near[order[len(near) // 2 :]]
    else:
        other = np.asarray(held_out, dtype=np.float64)
        if other.ndim != 2 or other.shape[1] != near.shape[1] or not np.isfinite(other).all():
            raise DataError(f"held_out has shape {other.shape}: give (n, {near.shape[1]}) finite numbers")
    n_neighbors = count(n_neighbors, "n_neighbors")
    if len(near) <= n_neighbors or not len(other):
        raise DataError(
            f"{len(near)} different codes are too few for {n_neighbors} neighbors: give more codes"
        )
    usual = np.quantile(nearest(other, near, n_neighbors)[0][:, -1], 0.99)
    far = nearest(points.reshape(-1, points.shape[-1]), near, n_neighbors)[0][:, -1] > usual
    share = far.reshape(points.shape[:-1]).mean(-1)
    return float(share) if points.ndim == 2 else share


def round_trip(model: Any, codes: Any, condition: Any = None) -> np.ndarray:
    """Measure how far codes come back from where they were, decoded and encoded: |E(D(c)) − c|.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    codes : array_like
        ``(n, d)``.
    condition : object, optional
        As the model takes it.

    Returns
    -------
    ndarray
        ``(n,)``, in units of the codes.

    References
    ----------
    Cemgil et al. 2020, "The autoencoding variational autoencoder", arXiv:2012.03715 (self-consistency).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import round_trip
    >>> halving = (lambda x: x[:, :1] / 2, lambda z: torch.cat([z, z], 1))
    >>> round_trip(halving, [[4.0]])
    array([2.])
    """
    chart = chart_of(model)
    z = codes_of(codes, chart.latent_dim)
    c = chart.condition(condition, len(z))
    return (chart.codes(chart.decoded(z, c), c).cpu() - z).double().norm(dim=1).numpy()
