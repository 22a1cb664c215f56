"""Shortest paths on a decoded manifold: for many pairs of codes at once, and kept to where codes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import Chart, chart_of, codes_of, rows_of
from chartae.geometry.jacobians import pushforward
from chartae.geometry.tangent import chosen_rows

__all__ = ["Geodesic", "distance", "equal_arcs", "geodesic"]

COARSEST = 5  # knots that a path is first solved with
NODES = 2000  # codes that the graph and the density are made of, at most
NEIGHBORS = 10  # of each node of the graph
SPARSE = 0.01  # share of codes whose density counts as low
ROUGH = 2  # times the tolerance, before the last number of knots
LAG = 25  # steps that the Jacobians of one path serve for
FIRST = 15  # steps at the first number of knots: few knots make energy rough
RIDGE = (0.005, 0.05)  # of the metric's mean eigenvalue: on steps of a knot, and on their differences
MEMORY = 8  # steps that L-BFGS remembers
SHORTER = (0.5, 1.0)  # times the Gauss–Newton step, at least and at most, as the last step says
SHORTEST = 1e-4  # share of a step whose failure ends the search
CACHED = 4  # parts of a block that Jacobians are taken of: smaller ones stay in the processor's cache


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
    of a sum of squares: block tridiagonal, with blocks JᵢᵀJⱼ of Jacobians at few knots. Paths are solved with
    few knots first. Each starts from the straight line or, where that has less energy, from a shortest path
    on the graph of neighboring codes. Energy only ever falls. What is narrower than the gap between two knots
    is not seen, and a path may leap over it: more knots or codes help.

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
    if knots < 3:
        raise PlanError(f"knots={knots}: a path needs 3 or more, with its ends")
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
    support = _Support(near, density_weight) if near is not None and density_weight else None
    straight = a[:, None] + np.linspace(0, 1, knots)[:, None] * (b - a)[:, None]
    # Conditions may change the map from pair to pair, and with it the graph, which is of no use then.
    starts = None if near is None or c is not None else _graph_paths(chart, near, a, b, knots, support)
    found: list[tuple[Tensor, ...]] = []
    for rows in chart.blocks(m, max(3 * knots, COARSEST * (d + 1))):
        tips = torch.from_numpy(straight[rows][:, [0, -1]])
        task = _Task(chart, None if c is None else c[rows], support, tips)
        tries = [straight[rows]] if starts is None else [straight[rows], starts[rows]]
        found.append(_solved(task, [torch.from_numpy(t) for t in tries], max_iterations, tolerance))
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
        ``(m, k)``, condition of each path.

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
            torch.from_numpy(dense[i]).float(), None if c is None else c[i : i + 1].expand(fine, -1)
        )
        arc = (x[1:] - x[:-1]).flatten(1).double().norm(dim=1).cumsum(0).cpu().numpy()
        walked[i] = _along(dense[i], np.concatenate([[0.0], arc]), steps)
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


def _some(codes: Any, d: int, random_state: int) -> np.ndarray:
    near = np.asarray(codes.detach().cpu() if isinstance(codes, Tensor) else codes, dtype=np.float64)
    if near.ndim != 2 or near.shape[1] != d or len(near) < 2:
        raise DataError(f"codes of shape {near.shape}: two rows or more of (n, {d}) are needed")
    return near[chosen_rows(len(near), NODES, random_state)]


class _Support:
    """By how much to stretch lengths where codes are rare: 1 + w · softplus(log p_low − log p(c))."""

    def __init__(self, codes: np.ndarray, weight: float) -> None:
        from sklearn.neighbors import NearestNeighbors

        k = min(NEIGHBORS, len(codes) - 1)
        near = NearestNeighbors(n_neighbors=k).fit(codes).kneighbors()[0][:, -1]
        self.codes, self.weight = torch.from_numpy(codes), weight
        self.width = max(float(np.median(near)), 1e-12)
        others = self._logits(self.codes).fill_diagonal_(-torch.inf).logsumexp(1)
        self.low = float(torch.quantile(others, SPARSE))

    def _logits(self, c: Tensor) -> Tensor:
        return -0.5 * (torch.cdist(c, self.codes) / self.width).square()

    def __call__(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(...)`` of codes ``(..., d)``, and their gradients ``(..., d)``."""
        flat = c.reshape(-1, c.shape[-1])
        logits = self._logits(flat)
        missing = self.low - logits.logsumexp(1)
        slope = (flat - logits.softmax(1) @ self.codes) / self.width**2
        weight = 1 + self.weight * softplus(missing)
        gradient = self.weight * missing.sigmoid()[:, None] * slope
        return weight.reshape(c.shape[:-1]), gradient.reshape(c.shape)


class _Task:
    """The energy of paths between the pairs of a block, and the metric along them."""

    def __init__(self, chart: Chart, c: Tensor | None, support: _Support | None, ends: Tensor) -> None:
        self.chart, self.c, self.support, self.ends = chart, c, support, ends
        self.tips = self.decode(ends, torch.arange(len(ends)))  # of ``(m, 2, d)``

    def decoder(self, pairs: Tensor, k: int) -> Callable[[Tensor], Tensor]:
        c = None if self.c is None else self.c[pairs.to(self.c.device)].repeat_interleave(k, 0)
        return lambda z: self.chart.decode(z, *rows_of(c, slice(None))).flatten(1)

    @torch.no_grad()
    def decode(self, path: Tensor, pairs: Tensor) -> Tensor:
        """``(m, k, D)`` of ``(m, k, d)``."""
        m, k, d = path.shape
        return self.decoder(pairs, k)(path.reshape(-1, d).float()).reshape(m, k, -1)

    def energy(self, path: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Energies ``(m,)`` and squared lengths of segments ``(m, k − 1)``."""
        return self.measured(self.decode(path[:, 1:-1], pairs), path, pairs)[:2]

    def measured(
        self, x: Tensor, path: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Energies, squared lengths, cotangents of the inner knots over 2n, and the slope by weights."""
        tips = self.tips[pairs.to(self.tips.device)]
        step = torch.cat([tips[:, :1], x, tips[:, 1:]], 1).diff(dim=1)
        squares = torch.linalg.vector_norm(step, dim=2).double().cpu().square()
        n = squares.shape[1]
        if self.support is None:
            return n * squares.sum(1), squares, step[:, :-1] - step[:, 1:], None
        w, slope = self.support(path)
        half = (w[:, 1:] + w[:, :-1]) / 2
        step = step * half[..., None].to(step)
        by_weight = slope[:, 1:-1] * (squares[:, :-1] + squares[:, 1:])[..., None] * n / 2
        return n * (squares * half).sum(1), squares, step[:, :-1] - step[:, 1:], by_weight

    def slope(self, path: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, squared lengths, and the gradient of the energy at the inner knots ``(m, k − 2, d)``."""
        m, k, d = path.shape
        with torch.inference_mode(False), torch.enable_grad():
            z = path[:, 1:-1].reshape(-1, d).float().clone().requires_grad_()
            out = self.decoder(pairs, k - 2)(z.clone())  # a copy: it may be changed in place
        energy, squares, pull, by_weight = self.measured(out.detach().reshape(m, k - 2, -1), path, pairs)
        g = torch.zeros_like(z)
        if out.requires_grad:
            pull = pull.reshape(out.shape)
            (g,) = torch.autograd.grad(out, z, pull, allow_unused=True, materialize_grads=True)
        elif (energy > 0).any():  # it does not ignore its code
            raise DataError("decode cuts gradients: take torch.no_grad or detach out of it")
        g = 2 * (k - 1) * g.reshape(m, k - 2, d).to(path)
        return energy, squares, g if by_weight is None else g + by_weight

    def jacobians(self, path: Tensor, pairs: Tensor) -> Tensor:
        """``(m, k, d, D)`` of ``(m, k, d)``."""
        m, k, d = path.shape
        J = pushforward(self.decoder(pairs, k), path.reshape(-1, d).float())[1]
        return J.reshape(d, m, k, -1).permute(1, 2, 0, 3)

    @cached_property
    def tip_jacobians(self) -> Tensor:
        """At the ends, which do not move, ``(m, 2, d, D)``."""
        blocks = self.chart.blocks(len(self.ends), CACHED * 2 * (self.ends.shape[2] + 1))
        pairs = torch.arange(len(self.ends))
        return torch.cat([self.jacobians(self.ends[rows], pairs[rows]) for rows in blocks])

    def gram(self, path: Tensor, pairs: Tensor) -> Tensor:
        """All products JᵢᵀJⱼ of the Jacobians at the knots, ``(m, k, d, k, d)``, stretched by the weight."""
        m, k, d = path.shape
        made = path.new_empty(m, k * d, k * d)
        for rows in self.chart.blocks(m, CACHED * k * (d + 1)):
            tips = self.tip_jacobians[pairs[rows].to(self.tips.device)]
            J = torch.cat([tips[:, :1], self.jacobians(path[rows][:, 1:-1], pairs[rows]), tips[:, 1:]], 1)
            if self.support is not None:
                J = J * self.support(path[rows])[0].sqrt()[..., None, None].to(J)
            J = J.flatten(1, 2)
            made[rows] = (J @ J.mT).double().cpu()
        return made.reshape(m, k, d, k, d)


class _GaussNewton:
    """The inverse of the Gauss–Newton matrix of the energy, of Jacobians between those of a few knots.

    The matrix is block tridiagonal, with blocks JᵢᵀJᵢ and −JᵢᵀJᵢ₊₁. A ridge bounds steps along which the
    decoder does not move at these knots: it may do so next to them.
    """

    def __init__(self, gram: Tensor, knots: int) -> None:
        w = _spline(gram.shape[1], knots)
        G = torch.einsum("ia,ib,mapbq->mipq", w, w, gram)[:, 1:-1]
        C = torch.einsum("ia,ib,mapbq->mipq", w[1:-2], w[2:-1], gram)
        mean = G.diagonal(dim1=2, dim2=3).mean((1, 2)).clamp(min=1e-30)
        ridge = mean[:, None, None, None] * torch.eye(G.shape[2], dtype=G.dtype)
        diagonal = 4 * (knots - 1) * (G + sum(RIDGE) * ridge)
        above = -2 * (knots - 1) * (C + RIDGE[1] * ridge)
        pivots = [torch.linalg.inv_ex(diagonal[:, 0])[0]]
        for i in range(knots - 3):
            U = above[:, i]
            pivots.append(torch.linalg.inv_ex(diagonal[:, i + 1] - U.mT @ pivots[-1] @ U)[0])
        self.pivots = torch.stack(pivots)
        # What elimination takes of the knot before and, on the way back, of the one behind.
        self.before = self.pivots[1:] @ above.movedim(1, 0).mT
        self.behind = self.pivots[:-1] @ above.movedim(1, 0)

    def only(self, keep: Tensor) -> None:
        """Forget paths that have ended."""
        self.pivots, self.before, self.behind = (t[:, keep] for t in (self.pivots, self.before, self.behind))

    def solve(self, g: Tensor) -> Tensor:
        """For right sides ``(m, k, d, r)``."""
        x = list(self.pivots @ g.movedim(1, 0))
        for i in range(1, len(x)):
            x[i] = torch.baddbmm(x[i], self.before[i - 1], x[i - 1], alpha=-1)
        for i in range(len(x) - 2, -1, -1):
            x[i] = torch.baddbmm(x[i], self.behind[i], x[i + 1], alpha=-1)
        return torch.stack(x, 1)


def _descend(
    task: _Task, path: Tensor, pairs: Tensor, gram: Tensor, most: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """L-BFGS, pair by pair in one batch: path, energy, squared lengths, converged, steps."""
    path, normal = path.clone(), _GaussNewton(gram, path.shape[1])
    energy, squares, g = task.slope(path, pairs)
    converged, count = energy <= 0, torch.zeros(len(path)).long()
    moving = ((energy > 0) & energy.isfinite()).nonzero()[:, 0]
    normal.only(moving)
    g, size = g[moving], torch.ones(len(moving), dtype=torch.float64)
    memory = list[Tensor]()
    p = _direction(normal, memory, g)
    for _ in range(most):
        if not len(moving):
            break
        level, fall = energy[moving], (g * p).sum((1, 2))
        step = size[:, None, None] * p
        trial = path[moving]
        trial[:, 1:-1] += step
        new, parts, slope = task.slope(trial, pairs[moving])
        better = new <= level + 1e-4 * size * fall  # not where it is not a number
        taken = moving[better]
        path[taken], energy[taken], squares[taken] = trial[better], new[better], parts[better]
        count[moving] += 1
        # What the quadratic model says that is left to save, and what the step did save; where it failed,
        # what the model said of a step of its size.
        left = torch.where(better, torch.maximum(-fall / 2, level - new), -fall / 2 * size)
        done = left <= tolerance * level
        converged[moving] = done
        y = slope - g
        curve = (step * y).sum((1, 2))
        use = better & (curve > 1e-10 * step.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1))
        scaled = torch.stack([step, y]) * curve.rsqrt()[:, None, None]
        memory = [*memory[1 - MEMORY :], torch.where(use[:, None, None], scaled, 0.0)]
        # Where a step failed, a shorter one: the lowest point of the parabola through what is known.
        shorter = -fall * size.square() / (2 * (new - level - size * fall))
        shorter = torch.minimum(torch.maximum(shorter.nan_to_num(nan=0.0), 0.1 * size), 0.5 * size)
        size = torch.where(better, 1.0, shorter)
        g = torch.where(better[:, None, None], slope, g)
        keep = (~done & (size > SHORTEST)).nonzero()[:, 0]
        if len(keep) < len(moving):
            normal.only(keep)
            moving, g, p, size, better = (t[keep] for t in (moving, g, p, size, better))
            memory = [t[:, keep] for t in memory]
        p = torch.where(better[:, None, None], _direction(normal, memory, g), p)
    return path, energy, squares, converged, count


def _direction(normal: _GaussNewton, memory: list[Tensor], g: Tensor) -> Tensor:
    """The two loops of L-BFGS; steps s and changes y of the slope come divided by the root of sᵀy.

    The matrix between them is scaled to what it should make of the last y, yᵀHy = sᵀy.
    """
    q, kept = g, list[Tensor]()
    for s, y in reversed(memory):
        kept.append((s * q).sum((1, 2), keepdim=True))
        q = q - kept[-1] * y
    y = memory[-1][1] if memory else torch.zeros_like(g)
    q, w = normal.solve(torch.stack([q, y], -1)).unbind(-1)
    q = q * (1 / (y * w).sum((1, 2), keepdim=True)).clamp(*SHORTER)
    for (s, y), a in zip(memory, reversed(kept), strict=True):
        q = q + (a - (y * q).sum((1, 2), keepdim=True)) * s
    return -q


def _solved(task: _Task, starts: list[Tensor], most: int, tolerance: float) -> tuple[Tensor, ...]:
    """Solve one block of pairs, with few knots first."""
    knots, pairs = starts[0].shape[1], torch.arange(len(starts[0]))
    levels: list[int] = []
    while not levels or levels[0] > 2 * COARSEST - 2:
        levels.insert(0, max(((levels or [knots])[0] - 1) // 2 + 1, min(knots, COARSEST)))
    # At full resolution: few knots step over what is narrow.
    known = [task.energy(s, pairs) for s in starts]
    lowest = torch.stack([energy.nan_to_num(nan=torch.inf) for energy, _ in known]).min(0)
    start = torch.stack(starts)[lowest.indices, pairs]
    # Jacobians cost as much as many steps: three on the start serve for the first path, and those along that
    # one for all that follow, but where that takes long.
    path, gram, total = start, task.gram(_resampled(start, 3), pairs), torch.zeros(len(pairs)).long()
    for level in levels:
        path, steps = _resampled(path, level), FIRST if level == levels[0] else LAG
        path, *_, count = _descend(task, path, pairs, gram, min(most, steps), ROUGH * tolerance)
        total += count
        if level == levels[0]:
            gram = task.gram(path, pairs)
    path = _resampled(path, knots)
    over = ~(task.energy(path, pairs)[0] <= lowest.values)
    path[over] = start[over]
    energy, squares, converged = (torch.empty_like(t) for t in (*known[0], over))
    rest = pairs
    for done in range(0, most, LAG):
        path[rest], energy[rest], squares[rest], converged[rest], count = _descend(
            task, path[rest], rest, gram, min(most - done, LAG), tolerance
        )
        total[rest] += count
        rest = rest[~converged[rest]]
        if not len(rest):
            break
        gram = task.gram(_resampled(path[rest], min(knots, 2 * COARSEST - 1)), rest)
    return path, energy, squares.sqrt().sum(1), known[0][1].sqrt().sum(1), converged, total


def _spline(k: int, knots: int) -> Tensor:
    """What gives values at even places of a path from those at ``k`` others: ``(knots, k)``."""
    from scipy.interpolate import CubicSpline

    made = CubicSpline(np.linspace(0, 1, k), np.eye(k))(np.linspace(0, 1, knots))
    made[0], made[-1] = np.eye(k)[[0, -1]]
    return torch.from_numpy(made)


def _resampled(path: Tensor, knots: int) -> Tensor:
    """As many knots as wanted, by a cubic spline."""
    return _spline(path.shape[1], knots) @ path


def _graph_paths(
    chart: Chart, codes: np.ndarray, a: np.ndarray, b: np.ndarray, knots: int, support: _Support | None
) -> np.ndarray:
    """Shortest paths on the graph of neighboring codes, straight where the graph does not connect a pair."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra
    from sklearn.neighbors import NearestNeighbors

    m, n = len(a), len(codes)
    nodes = np.concatenate([codes, a, b])
    near = NearestNeighbors(n_neighbors=min(NEIGHBORS, n)).fit(codes).kneighbors(nodes, return_distance=False)
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
