"""Shortest paths on a decoded manifold: for many pairs of codes at once, and kept to where codes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import Chart, chart_of, rows_of
from chartae.geometry.jacobians import pullback, pushforward
from chartae.geometry.tangent import chosen_rows

__all__ = ["Geodesic", "distance", "equal_arcs", "geodesic"]

COARSEST = 5  # knots that a path is first solved with
NODES = 2000  # codes that the graph and the density are made of, at most
NEIGHBORS = 10  # of each node of the graph
SPARSE = 0.01  # share of codes whose density counts as low
ROUGH = 30  # times the tolerance, before the last number of knots
LAG = 3  # steps that one normal matrix serves for
DAMPING = (1e-5, 1e-3, 1e8)  # lowest, first and highest, in units of the mean diagonal


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

    The energy is a sum of squares, which Levenberg–Marquardt minimizes for all pairs at once, each with a
    damping of its own: the normal matrix is block tridiagonal, with blocks JᵢᵀJⱼ. Paths are solved with few
    knots first. Each starts from the straight line or, where that has less energy, from a shortest path on
    the graph of neighboring codes. Energy only ever falls. What is narrower than the gap between two knots is
    not seen: more knots see it.

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
        If the codes do not fit together.

    References
    ----------
    Shao, Kumar & Fletcher 2018, arXiv:1711.08014 (discrete energy of a decoder); Arvanitidis, Hansen &
    Hauberg 2018, arXiv:1710.11379 (why paths must avoid holes); Levenberg 1944, doi:10.1090/qam/10666.

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
    for rows in chart.blocks(m, knots * (d + 1)):
        task = _Task(chart, None if c is None else c[rows], support)
        tries = [straight[rows]] if starts is None else [straight[rows], starts[rows]]
        found.append(_solved(task, [torch.from_numpy(t) for t in tries], max_iterations, tolerance))
    path, energy, length, plain, converged, count = (
        torch.cat([part[i] for part in found]).numpy() for i in range(6)
    )
    path[back] = path[back, ::-1].copy()
    return Geodesic(path, energy, length, plain, converged, count)


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
    """The energy of paths of a block of pairs, and its quadratic model."""

    def __init__(self, chart: Chart, c: Tensor | None, support: _Support | None) -> None:
        self.chart, self.c, self.support = chart, c, support

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
        x = self.decode(path, pairs)
        squares = (x[:, 1:] - x[:, :-1]).square().sum(2).double().cpu()
        if self.support is None:
            return squares.shape[1] * squares.sum(1), squares
        w = self.support(path)[0]
        return squares.shape[1] * (squares * (w[:, 1:] + w[:, :-1]) / 2).sum(1), squares

    def gradient(self, path: Tensor, pairs: Tensor) -> Tensor:
        """Of half the energy, without the factor n, at the inner knots: ``(m, k − 2, d)``."""
        m, k, d = path.shape
        x = self.decode(path, pairs)
        step = x[:, 1:] - x[:, :-1]
        inner = path[:, 1:-1].reshape(-1, d).float()
        if self.support is None:
            pull = (step[:, :-1] - step[:, 1:]).reshape(1, m * (k - 2), -1)
            return pullback(self.decoder(pairs, k - 2), inner, pull)[1].reshape(m, k - 2, d).double().cpu()
        w, slope = self.support(path)
        half = ((w[:, 1:] + w[:, :-1]) / 2).to(step)[..., None]
        pull = (half[:, :-1] * step[:, :-1] - half[:, 1:] * step[:, 1:]).reshape(1, m * (k - 2), -1)
        s = step.square().sum(2).double().cpu()
        along = pullback(self.decoder(pairs, k - 2), inner, pull)[1].reshape(m, k - 2, d).double().cpu()
        return along + slope[:, 1:-1] * (s[:, :-1] + s[:, 1:])[..., None] / 4

    def model(self, path: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normal matrix and gradient of half the energy, without the factor n, at the inner knots.

        Diagonal blocks ``(m, k − 2, d, d)``, those above them ``(m, k − 3, d, d)``, gradient
        ``(m, k − 2, d)``. The residual of a segment is r = aΔ with a² the mean weight of its ends.
        """
        m, k, d = path.shape
        inner = path[:, 1:-1].reshape(-1, d).float()
        x, J = pushforward(self.decoder(pairs, k - 2), inner)
        J = J.reshape(d, m, k - 2, -1).permute(1, 2, 0, 3)  # (m, k − 2, d, D)
        tips = self.decode(path[:, [0, -1]], pairs)
        x = torch.cat([tips[:, :1], x.reshape(m, k - 2, -1), tips[:, 1:]], 1)
        step = x[:, 1:] - x[:, :-1]
        G = (J @ J.mT).double().cpu()
        C = (J[:, :-1] @ J[:, 1:].mT).double().cpu()
        both = torch.stack([step[:, :-1], step[:, 1:]], 3)  # behind and ahead of each inner knot
        q, p = (J @ both).double().cpu().unbind(3)
        if self.support is None:
            return 2 * G, -C, q - p
        s = step.square().sum(2).double().cpu()
        w, slope = self.support(path)
        a = ((w[:, 1:] + w[:, :-1]) / 2).sqrt()
        front, rear = slope[:, :-1] / (4 * a[..., None]), slope[:, 1:] / (4 * a[..., None])
        a2, a, s = (a * a)[..., None, None], a[..., None, None], s[..., None, None]

        def outer(u: Tensor, v: Tensor) -> Tensor:
            return u[..., :, None] * v[..., None, :]

        u, v = rear[:, :-1], front[:, 1:]  # slopes of a at an inner knot: of the segments behind and ahead
        qu, pv = outer(q, u), outer(p, v)
        diagonal = a2[:, :-1] * G + a[:, :-1] * (qu + qu.mT) + s[:, :-1] * outer(u, u)
        diagonal = diagonal + a2[:, 1:] * G - a[:, 1:] * (pv + pv.mT) + s[:, 1:] * outer(v, v)
        f, r = front[:, 1:-1], rear[:, 1:-1]  # of segments between two inner knots
        am, sm = a[:, 1:-1], s[:, 1:-1]
        above = -a2[:, 1:-1] * C - am * outer(p[:, :-1], r) + am * outer(f, q[:, 1:]) + sm * outer(f, r)
        flat = [t[..., 0] for t in (a2, a, s)]
        gradient = flat[0][:, :-1] * q + (flat[1] * flat[2])[:, :-1] * u
        gradient = gradient - flat[0][:, 1:] * p + (flat[1] * flat[2])[:, 1:] * v
        return diagonal, above, gradient


def _tridiagonal(diagonal: Tensor, above: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric block-tridiagonal systems: ``(m, k, d, d)``, ``(m, k − 1, d, d)``, ``(m, k, d)``."""
    k = diagonal.shape[1]
    factors, carried, rest = [], [], []
    block, r = diagonal[:, 0], right[:, 0, :, None]
    for i in range(k):
        L = torch.linalg.cholesky_ex(block)[0]
        factors.append(L)
        if i == k - 1:
            rest.append(torch.cholesky_solve(r, L))
            break
        both = torch.cholesky_solve(torch.cat([above[:, i], r], 2), L)
        carried.append(both[..., :-1])
        rest.append(both[..., -1:])
        block = diagonal[:, i + 1] - above[:, i].mT @ both[..., :-1]
        r = right[:, i + 1, :, None] - above[:, i].mT @ both[..., -1:]
    x = [rest[-1]]
    for i in range(k - 2, -1, -1):
        x.append(rest[i] - carried[i] @ x[-1])
    return torch.cat(x[::-1], 2).mT


def _minimize(
    task: _Task, path: Tensor, most: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Levenberg–Marquardt, pair by pair in one batch: path, energy, squared lengths, converged, steps."""
    m, k, d = path.shape
    everyone = torch.arange(m)
    energy, squares = task.energy(path, everyone)
    damping = torch.full((m,), DAMPING[1], dtype=torch.float64)
    growth = torch.full((m,), 2.0, dtype=torch.float64)
    age, count, converged = torch.zeros(m).long(), torch.zeros(m).long(), energy <= 0
    diagonal, above = path.new_zeros(m, k - 2, d, d), path.new_zeros(m, k - 3, d, d)
    gradient = path.new_zeros(m, k - 2, d)
    moving = stale = everyone[~converged]
    moved = moving[:0]
    for _ in range(most):
        if not len(moving):
            break
        if len(stale):
            diagonal[stale], above[stale], gradient[stale] = task.model(path[stale], stale)
        if len(moved):
            gradient[moved] = task.gradient(path[moved], moved)
        H, g, ridge = diagonal[moving], gradient[moving], damping[moving]
        ridge = ridge * H.diagonal(dim1=2, dim2=3).mean((1, 2)).clamp(min=1e-30)
        damped = H + ridge[:, None, None, None] * torch.eye(d, dtype=H.dtype)
        step = _tridiagonal(damped, above[moving], -g)
        # What the model says that the step saves: −n(2gᵀδ + δᵀHδ), where (H + ridge)δ = −g.
        saved = (k - 1) * (ridge * step.square().sum((1, 2)) - (g * step).sum((1, 2)))
        trial = path[moving].clone()
        trial[:, 1:-1] += step
        level, parts = task.energy(trial, moving)
        better = level < energy[moving]  # not where it is not a number
        gain = (energy[moving] - level) / saved
        done = ~(saved > tolerance * energy[moving]) & (~better | (damping[moving] <= 1))
        taken = moving[better]
        path[taken], energy[taken], squares[taken] = trial[better], level[better], parts[better]
        shrink = (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 2)
        damping[moving] = (damping[moving] * torch.where(better, shrink, growth[moving])).clamp(*DAMPING[::2])
        growth[moving] = torch.where(better, 2.0, 2 * growth[moving])
        count[moving] += 1
        age[moving] += 1
        converged[moving] = done
        old = (age[moving] >= LAG) & (better | (growth[moving] > 4))
        stale, moved = moving[old & ~done], moving[better & ~old & ~done]
        age[stale] = 0
        moving = moving[~done]
    return path, energy, squares, converged, count


def _solved(task: _Task, starts: list[Tensor], most: int, tolerance: float) -> tuple[Tensor, ...]:
    """Solve one block of pairs, with few knots first."""
    knots = starts[0].shape[1]
    pairs = torch.arange(len(starts[0]))
    plain = task.energy(starts[0], pairs)[1].sqrt().sum(1)
    levels = [knots]
    while (levels[0] - 1) // 2 + 1 >= COARSEST:
        levels.insert(0, (levels[0] - 1) // 2 + 1)
    start = _best(task, starts)  # at full resolution: few knots step over what is narrow
    path, total = _resampled(start, levels[0]), torch.zeros(len(pairs)).long()
    for level in levels:
        if path.shape[1] != level:
            path = _resampled(path, level)
        if level == knots:
            path = _best(task, [path, start])
        rough = 1 if level == knots else ROUGH
        path, energy, squares, converged, count = _minimize(task, path, most, rough * tolerance)
        total += count
    return path, energy, squares.sqrt().sum(1), plain, converged, total


def _best(task: _Task, paths: list[Tensor]) -> Tensor:
    """Of several paths for each pair, the one with the least energy."""
    pairs = torch.arange(len(paths[0]))
    levels = torch.stack([task.energy(p, pairs)[0].nan_to_num(nan=torch.inf) for p in paths])
    return torch.stack(paths)[levels.argmin(0), pairs].clone()


def _resampled(path: Tensor, knots: int) -> Tensor:
    """As many knots as wanted, by cubic splines."""
    from scipy.interpolate import CubicSpline

    k = path.shape[1]
    made = CubicSpline(np.linspace(0, 1, k), path.numpy(), axis=1)(np.linspace(0, 1, knots))
    made[:, 0], made[:, -1] = path[:, 0], path[:, -1]
    return torch.from_numpy(made)


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
