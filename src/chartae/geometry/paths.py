"""The energy of paths on a decoded manifold, and its minimum, of a block of pairs at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from chartae.core.errors import DataError
from chartae.geometry.charts import Chart, rows_of
from chartae.geometry.jacobians import pushforward
from chartae.geometry.neighbors import nearest

__all__ = ["COARSEST", "NEIGHBORS", "Energy", "Rarity", "shortest"]

COARSEST = 5  # knots that a path is first solved with
NEIGHBORS = 10  # codes by which it is told how far apart codes are
SPARSE = 0.01  # share of codes whose density counts as low
ROUGH = 2  # times the tolerance, before the last number of knots
LAG = 25  # steps that the Jacobians of one path serve for
FIRST = 15  # steps at the first number of knots: few knots make energy rough
RIDGE = (0.005, 0.05)  # of the metric's mean eigenvalue: on steps of a knot, and on their differences
MEMORY = 8  # steps that L-BFGS remembers
SHORTER = (0.5, 1.0)  # times the Gauss–Newton step, at least and at most, as the last step says
SHORTEST = 1e-4  # share of a step whose failure ends the search
CACHED = 4  # parts of a block that Jacobians are taken of: smaller ones stay in the processor's cache


class Rarity:
    """By how much to stretch lengths where codes are rare: 1 + w · softplus(log p_low − log p(c)).

    p is a density of Normals around the codes, as wide as the tenth neighbor is far in the median, and p_low
    what 99 % of the codes have without their own.

    Parameters
    ----------
    codes : ndarray
        ``(n, d)``, two or more; no copies, among which the width would be zero.
    weight : float
        Of each nat.

    References
    ----------
    That a metric should grow where data are rare: Arvanitidis, Hansen & Hauberg 2018, arXiv:1710.11379.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.geometry.paths import Rarity
    >>> line = np.linspace(0, 1, 101)[:, None]
    >>> weights, _ = Rarity(line, weight=2.0)(torch.tensor([[0.5], [2.0]], dtype=torch.float64))
    >>> bool(weights[0] < 3), bool(weights[1] > 30)
    (True, True)
    """

    def __init__(self, codes: np.ndarray, weight: float) -> None:
        k = min(NEIGHBORS, len(codes) - 1)
        near = nearest(codes, codes, k, exclude_self=True)[0][:, -1]
        # Centered: distances are taken from products, which far from zero are lost to rounding.
        self.center, self.weight = torch.from_numpy(codes.mean(0)), weight
        self.codes = torch.from_numpy(codes) - self.center
        self.width = max(float(np.median(near)), 1e-12)
        others = self._logits(self.codes).fill_diagonal_(-torch.inf).logsumexp(1)
        self.low = float(torch.quantile(others, SPARSE))

    def _logits(self, c: Tensor) -> Tensor:
        return -0.5 * (torch.cdist(c, self.codes) / self.width).square()

    def __call__(self, c: Tensor) -> tuple[Tensor, Tensor]:
        """Tell weights, and how they change.

        Parameters
        ----------
        c : Tensor
            ``(..., d)`` codes.

        Returns
        -------
        weights : Tensor
            ``(...)``.
        gradients : Tensor
            ``(..., d)``.
        """
        flat = c.reshape(-1, c.shape[-1]) - self.center
        logits = self._logits(flat)
        missing = self.low - logits.logsumexp(1)
        slope = (flat - logits.softmax(1) @ self.codes) / self.width**2
        weight = 1 + self.weight * softplus(missing)
        gradient = self.weight * missing.sigmoid()[:, None] * slope
        return weight.reshape(c.shape[:-1]), gradient.reshape(c.shape)


class Energy:
    """The energy of paths between the pairs of a block, and the metric along them.

    Parameters
    ----------
    chart : Chart
        What decodes.
    c : Tensor or None
        ``(m, k)``, condition of each pair.
    support : Rarity or None
        What stretches lengths where codes are rare.
    ends : Tensor
        ``(m, 2, d)``, in double precision.

    References
    ----------
    Shao, Kumar & Fletcher 2018, arXiv:1711.08014, section 3 (discrete energy of a decoder).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import Chart
    >>> from chartae.geometry.paths import Energy
    >>> line = Chart.of_pair(lambda x: x / 5, lambda z: 5 * z)
    >>> path = torch.tensor([[[0.0], [0.5], [1.0]]], dtype=torch.float64)
    >>> Energy(line, None, None, path[:, [0, -1]]).energy(path, torch.arange(1))[0].tolist()
    [25.0]
    """

    def __init__(self, chart: Chart, c: Tensor | None, support: Rarity | None, ends: Tensor) -> None:
        self.chart, self.c, self.support, self.ends = chart, c, support, ends
        self.tips = self._decode(ends, torch.arange(len(ends)))  # of ``(m, 2, d)``

    def _decoder(self, pairs: Tensor, k: int) -> Callable[[Tensor], Tensor]:
        c = None if self.c is None else self.c[pairs.to(self.c.device)].repeat_interleave(k, 0)
        return lambda z: self.chart.decode(z, *rows_of(c, slice(None))).flatten(1)

    @torch.no_grad()
    def _decode(self, path: Tensor, pairs: Tensor) -> Tensor:
        """``(m, k, D)`` of ``(m, k, d)``."""
        m, k, d = path.shape
        return self._decoder(pairs, k)(path.reshape(-1, d).float()).reshape(m, k, -1)

    def energy(self, path: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Measure paths.

        Parameters
        ----------
        path : Tensor
            ``(m, k, d)`` knots, with the ends.
        pairs : Tensor
            ``(m,)``, which of the block's pairs they join.

        Returns
        -------
        energy : Tensor
            ``(m,)``, n Σ w|D(c_{i+1}) − D(c_i)|² over the n segments, in squared units of the data.
        squares : Tensor
            ``(m, k − 1)``, squared lengths of segments, without weights.
        """
        return self._measured(self._decode(path[:, 1:-1], pairs), path, pairs)[:2]

    def _measured(
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
        """Measure paths, and how their energy changes.

        Parameters
        ----------
        path : Tensor
            ``(m, k, d)`` knots, with the ends.
        pairs : Tensor
            ``(m,)``, which of the block's pairs they join.

        Returns
        -------
        energy : Tensor
            ``(m,)``.
        squares : Tensor
            ``(m, k − 1)``, of segments, as :meth:`energy` gives them.
        gradient : Tensor
            ``(m, k − 2, d)``, of the energy at the inner knots.

        Raises
        ------
        DataError
            If the decoder cuts gradients.
        """
        m, k, d = path.shape
        with torch.inference_mode(False), torch.enable_grad():
            z = path[:, 1:-1].reshape(-1, d).float().clone().requires_grad_()
            out = self._decoder(pairs, k - 2)(z.clone())  # a copy: it may be changed in place
        energy, squares, pull, by_weight = self._measured(out.detach().reshape(m, k - 2, -1), path, pairs)
        g = torch.zeros_like(z)
        if out.requires_grad:
            pull = pull.reshape(out.shape)
            (g,) = torch.autograd.grad(out, z, pull, allow_unused=True, materialize_grads=True)
        elif (energy > 0).any():  # it does not ignore its code
            raise DataError("decode cuts gradients: take torch.no_grad or detach out of it")
        g = 2 * (k - 1) * g.reshape(m, k - 2, d).to(path)
        return energy, squares, g if by_weight is None else g + by_weight

    def _jacobians(self, path: Tensor, pairs: Tensor) -> Tensor:
        """``(m, k, d, D)`` of ``(m, k, d)``."""
        m, k, d = path.shape
        J = pushforward(self._decoder(pairs, k), path.reshape(-1, d).float())[1]
        return J.reshape(d, m, k, -1).permute(1, 2, 0, 3)

    @cached_property
    def _tip_jacobians(self) -> Tensor:
        """At the ends, which do not move, ``(m, 2, d, D)``."""
        blocks = self.chart.blocks(len(self.ends), CACHED * 2 * (self.ends.shape[2] + 1))
        pairs = torch.arange(len(self.ends))
        return torch.cat([self._jacobians(self.ends[rows], pairs[rows]) for rows in blocks])

    def gram(self, path: Tensor, pairs: Tensor) -> Tensor:
        """Multiply the Jacobians at all knots of a path with each other, stretched by the weight.

        Parameters
        ----------
        path : Tensor
            ``(m, k, d)`` knots, with the ends.
        pairs : Tensor
            ``(m,)``, which of the block's pairs they join.

        Returns
        -------
        Tensor
            ``(m, k, d, k, d)``, JᵢᵀJⱼ.
        """
        m, k, d = path.shape
        made = path.new_empty(m, k * d, k * d)
        for rows in self.chart.blocks(m, CACHED * k * (d + 1)):
            tips = self._tip_jacobians[pairs[rows].to(self.tips.device)]
            J = torch.cat([tips[:, :1], self._jacobians(path[rows][:, 1:-1], pairs[rows]), tips[:, 1:]], 1)
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
    task: Energy, path: Tensor, pairs: Tensor, gram: Tensor, most: int, tolerance: float
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


def shortest(task: Energy, starts: list[Tensor], most: int, tolerance: float) -> tuple[Tensor, ...]:
    """Find the paths of least energy of one block of pairs.

    L-BFGS, from the Gauss–Newton matrix of a sum of squares: block tridiagonal, with blocks JᵢᵀJⱼ of
    Jacobians at few knots. Paths are solved with few knots first, and energy only ever falls.

    Parameters
    ----------
    task : Energy
        Of the pairs.
    starts : list of Tensor
        ``(m, k, d)`` each; a path begins at the one that has the least energy.
    most : int
        Steps at each number of knots.
    tolerance : float
        Share of the energy that one more step may save at the end.

    Returns
    -------
    path : Tensor
        ``(m, k, d)``.
    energy : Tensor
        ``(m,)``.
    length, straight : Tensor
        ``(m,)``, of the path and of the first start, in units of the data.
    converged : Tensor
        ``(m,)``.
    steps : Tensor
        ``(m,)``, those that were tried.

    References
    ----------
    Nocedal 1980, doi:10.1090/S0025-5718-1980-0572855-7 (L-BFGS).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import Chart
    >>> from chartae.geometry.paths import Energy, shortest
    >>> square = Chart.of_pair(lambda x: x.sqrt(), lambda z: z.square())
    >>> start = torch.linspace(0, 1, 5, dtype=torch.float64)[None, :, None]
    >>> path, energy, *_ = shortest(Energy(square, None, None, start[:, [0, -1]]), [start], 50, 1e-6)
    >>> path.square().flatten().round(decimals=2).tolist(), energy.round(decimals=2).tolist()
    ([0.0, 0.25, 0.5, 0.75, 1.0], [1.0])
    """
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
