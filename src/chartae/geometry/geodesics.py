"""Shortest paths on a decoded manifold: for many pairs of codes at once, and kept to where codes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.counts import is_count
from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import Chart, chart_of, codes_of
from chartae.geometry.neighbors import distinct, nearest
from chartae.geometry.paths import COARSEST, NEIGHBORS, Energy, Rarity, shortest
from chartae.geometry.tangent import chosen_rows

__all__ = ["Geodesic", "distance", "equal_arcs", "geodesic", "half_circle", "lines", "opposite"]

SMALL = 1e-6  # of an angle: below it, codes lie in one direction, or in opposite ones
NODES = 2000  # codes that the graph and the density are made of, at most


@dataclass(frozen=True)
class Geodesic:
    """Shortest paths between pairs of codes.

    Parameters
    ----------
    codes : ndarray
        ``(m, knots, d)``, each path from its first code to its second.
    energy : ndarray
        ``(m,)``, n Σ w|D(c_{i+1}) − D(c_i)|² over the n segments: what was minimized, in squared units of the
        data. Without weights and at constant speed, the squared length.
    length : ndarray
        ``(m,)``, Σ|D(c_{i+1}) − D(c_i)|, in units of the data.
    straight : ndarray
        ``(m,)``, the same of the straight line between the two codes.
    converged : ndarray
        ``(m,)``, whether another step would lower the energy by no more than the tolerance.
    iterations : ndarray
        ``(m,)``, steps that were tried, at all numbers of knots.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Geodesic
    >>> two, yes = np.array([2.0]), np.array([True])
    >>> Geodesic(np.zeros((1, 3, 2)), two**2, two, 1.5 * two, yes, np.array([4])).ratio
    array([1.5])
    """

    codes: np.ndarray
    energy: np.ndarray
    length: np.ndarray
    straight: np.ndarray
    converged: np.ndarray
    iterations: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Length of the straight line over that of the path, ``(m,)``: 1 where straight is shortest."""
        return np.divide(self.straight, self.length, out=np.ones_like(self.length), where=self.length > 0)


def geodesic(
    model: Any,
    z0: Any,
    z1: Any,
    *,
    knots: int = 17,
    codes: Any = None,
    density_weight: float = 0.0,
    condition: Any = None,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    random_state: int = 0,
) -> Geodesic:
    """Find shortest paths between pairs of codes, as measured on what they decode to.

    L-BFGS minimizes the energy of all pairs at once, each with steps of its own, from the Gauss–Newton matrix
    of a sum of squares (:func:`shortest <chartae.geometry.paths.shortest>`), with few knots first. Each
    starts from the straight line or, where that has less energy, from a shortest path on the graph of
    neighboring codes. Energy only ever falls. What is narrower than the gap between two knots is not seen,
    and a path may leap over it: more knots or codes help.

    A shortest path takes shortcuts through holes of the data. A density weight w keeps it where codes are: it
    multiplies the squared length of a step by 1 + w · (nats by which the density of codes is below what 99 %
    of codes have).

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    z0, z1 : array_like
        ``(m, d)`` codes, one pair a row.
    knots : int
        Points on each path, with its ends.
    codes : array_like or None
        ``(n, d)`` codes of data, for the graph and the density; None: neither.
    density_weight : float
        How much each missing nat of density costs; 0: paths may go anywhere.
    condition : object, optional
        As the model takes it, one for each pair or one for all.
    max_iterations : int
        At most so many steps at each number of knots.
    tolerance : float
        Share of the energy that one more step may save at the end.
    random_state : int
        Of the codes that are used, where there are more than 2000.

    Returns
    -------
    Geodesic
        Codes on each path, with its energy and length.

    Raises
    ------
    PlanError
        If there are fewer than three knots or a weight without codes, or a number is out of range.
    DataError
        If the codes do not fit together, or the decoder cuts gradients.

    References
    ----------
    Shao, Kumar & Fletcher 2018, arXiv:1711.08014 (discrete energy of a decoder); Arvanitidis, Hansen &
    Hauberg 2018, arXiv:1710.11379 (why paths must avoid holes); Nocedal 1980,
    doi:10.1090/S0025-5718-1980-0572855-7 (L-BFGS).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import geodesic
    >>> def sphere(z):
    ...     return torch.stack(
    ...         [z[:, 0].cos() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].cos(), z[:, 1].sin()], 1
    ...     )
    >>> latitude = torch.pi / 3
    >>> path = geodesic((None or sphere, sphere), [[0, latitude]], [[torch.pi / 2, latitude]])
    >>> path.length.round(2), path.ratio.round(2), path.converged
    (array([0.72]), array([1.09]), array([ True]))
    """
    if not is_count(knots, 3):
        raise PlanError(f"knots={knots!r}: a path needs a whole number, 3 or more, with its ends")
    if density_weight < 0 or tolerance <= 0 or max_iterations < 1:
        raise PlanError(
            f"density_weight={density_weight}, tolerance={tolerance}, max_iterations={max_iterations}: use a "
            "weight of 0 or more, a tolerance above 0 and 1 or more iterations"
        )
    if density_weight and codes is None:
        raise PlanError("density_weight needs to know where codes are: give codes as well")
    chart = chart_of(model)
    ends = _pairs(z0, z1)
    m, d = ends[0].shape
    codes_of(ends[0], chart.latent_dim)
    c = chart.condition(condition, m)
    # The way back is the same way: each pair is solved from the end that comes first in lexicographic order.
    first = (ends[0] != ends[1]).argmax(1)
    back = ends[0][np.arange(m), first] > ends[1][np.arange(m), first]
    a, b = np.where(back[:, None], ends[1], ends[0]), np.where(back[:, None], ends[0], ends[1])
    near = None if codes is None else _some(codes, d, random_state)
    support = Rarity(near, density_weight) if near is not None and density_weight else None
    straight = lines(chart, a, b, np.linspace(0, 1, knots))
    # Conditions may change the map from pair to pair, and with it the graph, which is of no use then.
    starts = None if near is None or c is not None else _graph_paths(chart, near, a, b, knots, support)
    found: list[tuple[Tensor, ...]] = []
    for rows in chart.blocks(m, max(3 * knots, COARSEST * (d + 1))):
        tips = torch.from_numpy(straight[rows][:, [0, -1]])
        task = Energy(chart, None if c is None else c[rows], support, tips)
        tries = [straight[rows]] if starts is None else [straight[rows], starts[rows]]
        found.append(shortest(task, [torch.from_numpy(t) for t in tries], max_iterations, tolerance))
    path, energy, length, plain, converged, count = (
        torch.cat([part[i] for part in found]).numpy() for i in range(6)
    )
    path[back] = path[back, ::-1].copy()
    return Geodesic(chart.placed(path), energy, length, plain, converged, count)


def distance(
    model: Any,
    z0: Any,
    z1: Any,
    *,
    codes: Any = None,
    density_weight: float = 0.0,
    condition: Any = None,
    knots: int = 17,
) -> np.ndarray:
    """Measure geodesic distances between pairs of codes: the lengths of :func:`geodesic`.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    z0, z1 : array_like
        ``(m, d)`` codes, one pair a row.
    codes : array_like or None
        ``(n, d)`` codes of data, as :func:`geodesic` takes them.
    density_weight : float
        How much each missing nat of density costs.
    condition : object, optional
        As the model takes it, one for each pair or one for all.
    knots : int
        Points on each path, with its ends.

    Returns
    -------
    ndarray
        ``(m,)``, in units of the data.

    References
    ----------
    Chen et al. 2018, "Metrics for deep generative models", arXiv:1711.01204.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import distance
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([3 * z, 4 * z], 1))
    >>> distance(line, [[0.0], [1.0]], [[1.0], [3.0]]).round(4)
    array([ 5., 10.])
    """
    return geodesic(
        model, z0, z1, codes=codes, density_weight=density_weight, condition=condition, knots=knots
    ).length


def equal_arcs(chart: Chart, path: np.ndarray, steps: int, c: Tensor | None = None) -> np.ndarray:
    """Walk paths in steps of equal length, as measured on what they decode to.

    Source: this library's own.

    Parameters
    ----------
    chart : Chart
        What decodes.
    path : ndarray
        ``(m, knots, d)``, codes joined by straight lines.
    steps : int
        Points on each path, with its ends.
    c : Tensor or None
        ``(m, ...)``, condition of each path.

    Returns
    -------
    ndarray
        ``(m, steps, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Chart
    >>> from chartae.geometry.geodesics import equal_arcs
    >>> square = Chart.of_pair(lambda x: x.sqrt(), lambda z: z.square())
    >>> equal_arcs(square, np.array([[[0.0], [1.0]]]), 3).round(2).ravel()
    array([0.  , 0.71, 1.  ])
    """
    m, k, d = path.shape
    fine = 1 + (k - 1) * max(1, -(-8 * steps // (k - 1)))
    at = np.linspace(0, k - 1, fine)
    left = np.minimum(at.astype(int), k - 2)
    rest = (at - left)[:, None]
    dense = (1 - rest) * path[:, left] + rest * path[:, left + 1]
    walked = np.empty((m, steps, d))
    for i in range(m):
        x = chart.decoded(
            torch.from_numpy(dense[i]).float(), None if c is None else c[i : i + 1].expand(fine, *c.shape[1:])
        )
        arc = (x[1:] - x[:-1]).flatten(1).double().norm(dim=1).cumsum(0).cpu().numpy()
        walked[i] = _along(dense[i], np.concatenate([[0.0], arc]), steps)
    return walked


def lines(chart: Chart | None, a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Draw straight lines between pairs of codes, around a center where no code can lie.

    Source: this library's own.

    Parameters
    ----------
    chart : Chart or None
        Whose codes they are; None: they may lie anywhere.
    a, b : ndarray
        ``(m, d)``.
    t : ndarray
        ``(k,)``, from 0 to 1: where on the way.

    Returns
    -------
    ndarray
        ``(m, k, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry.geodesics import lines
    >>> lines(None, np.zeros((1, 1)), np.ones((1, 1)), np.linspace(0, 1, 3)).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    found = a[:, None] + t[:, None] * (b - a)[:, None]
    if chart is not None and a.shape[1] > 1 and chart.placed(np.zeros(a.shape[1])).any():
        for i in np.flatnonzero(opposite(a, b)):
            found[i] = half_circle(a[i], b[i], t)
    return found


def opposite(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tell which pairs of codes lie in opposite directions.

    Source: this library's own.

    Parameters
    ----------
    a, b : ndarray
        ``(m, d)``.

    Returns
    -------
    ndarray
        ``(m,)``, bool.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry.geodesics import opposite
    >>> opposite(np.eye(2), np.array([[-3.0, 0.0], [0.0, 1.0]])).tolist()
    [True, False]
    """
    both = [np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b)]
    apart = np.linalg.norm(a * both[1] + b * both[0], axis=1) <= SMALL * (both[0] * both[1])[:, 0]
    return apart & (both[0] * both[1] > 0)[:, 0]


def half_circle(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Walk from a code to an opposite one on one of the great circles that join them.

    Source: this library's own.

    Parameters
    ----------
    a, b : ndarray
        ``(d,)``, of two dimensions or more.
    t : ndarray
        ``(k,)``, from 0 to 1: where on the way.

    Returns
    -------
    ndarray
        ``(k, d)``, by way of the axis that is farthest from both.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry.geodesics import half_circle
    >>> half_circle(np.array([1.0, 0.0]), np.array([-1.0, 0.0]), np.array([0, 0.5, 1])).round(9).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    """
    unit, t = a / np.linalg.norm(a), t[:, None]
    over = np.eye(len(a))[np.abs(unit).argmin()]
    over -= (over @ unit) * unit
    over /= np.linalg.norm(over)
    radius = (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
    walked: np.ndarray = radius * (np.cos(np.pi * t) * unit + np.sin(np.pi * t) * over)
    walked[0], walked[-1] = a, b
    return walked


def _along(points: np.ndarray, arc: np.ndarray, steps: int) -> np.ndarray:
    """``(steps, d)`` at equal distances on a polygon with given distances of its corners from its start."""
    if not arc[-1] > 0:  # nothing moves in the data: equal steps of the codes instead
        arc = np.linspace(0, 1, len(points))
    at = np.linspace(0, arc[-1], steps)
    walked = np.stack([np.interp(at, arc, column) for column in points.T], axis=1)
    walked[0], walked[-1] = points[0], points[-1]
    return walked


def _pairs(z0: Any, z1: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, dtype=np.float64) for z in (z0, z1))
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise DataError(
            f"z0 of shape {a.shape} and z1 of shape {b.shape} are no pairs of codes: give (m, d) of each"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("z0 or z1 has values that are not finite: leave those pairs out")
    # Decoders work in float32: ends are what they see.
    return a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)


def _some(codes: Any, d: int, random_state: int) -> np.ndarray | None:
    near = np.asarray(codes.detach().cpu() if isinstance(codes, Tensor) else codes, dtype=np.float64)
    if near.ndim != 2 or near.shape[1] != d or len(near) < 2:
        raise DataError(f"codes of shape {near.shape}: two rows or more of (n, {d}) are needed")
    if not np.isfinite(near).all():
        raise DataError("codes are not finite in places: leave such rows out")
    near = distinct(near)
    if len(near) < 2:  # a single place says nothing of the way between two
        return None
    return near[chosen_rows(len(near), NODES, random_state)]


def _graph_paths(
    chart: Chart, codes: np.ndarray, a: np.ndarray, b: np.ndarray, knots: int, support: Rarity | None
) -> np.ndarray:
    """Shortest paths on the graph of neighboring codes, straight where the graph does not connect a pair."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    m, n = len(a), len(codes)
    nodes = np.concatenate([codes, a, b])
    near = nearest(nodes, codes, min(NEIGHBORS, n))[1]
    tail, head = np.repeat(np.arange(len(nodes)), near.shape[1]), near.ravel()
    x = chart.decoded(torch.from_numpy(nodes).float()).flatten(1)
    chord = torch.cat(
        [(x[tail[r]] - x[head[r]]).double().norm(dim=1).cpu() for r in chart.blocks(len(tail), 2)]
    )
    if support is not None:
        middle = torch.from_numpy((nodes[tail] + nodes[head]) / 2)
        chord = chord * torch.cat([support(middle[r])[0] for r in chart.blocks(len(tail), 2)]).sqrt()
    cost = chord.numpy()
    use = tail != head
    edges = (np.maximum(cost[use], 1e-12), (tail[use], head[use]))
    graph = csr_array(edges, shape=(len(nodes), len(nodes)))
    paths = np.empty((m, knots, a.shape[1]))
    for start in range(0, m, 256):
        rows = range(start, min(m, start + 256))
        _, before = dijkstra(graph, directed=False, indices=[n + i for i in rows], return_predecessors=True)
        for i, came in zip(rows, before, strict=True):
            trail = [n + m + i]
            while came[trail[-1]] >= 0:
                trail.append(came[trail[-1]])
            corners = nodes[trail[::-1]] if trail[-1] == n + i else np.stack([a[i], b[i]])
            gaps = np.linalg.norm(np.diff(x[trail[::-1]].cpu().numpy().astype(np.float64), axis=0), axis=1)
            if len(gaps) != len(corners) - 1:
                gaps = np.ones(1)
            paths[i] = _along(corners, np.concatenate([[0.0], np.cumsum(gaps)]), knots)
    return paths
