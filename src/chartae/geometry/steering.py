"""Directions in the code: walks along them, and directions of attributes with the region where they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chartae.core.counts import count, is_count
from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import chart_of, codes_of, rows_of, units_of
from chartae.geometry.geodesics import SMALL
from chartae.geometry.jacobians import pushforward
from chartae.training.items import array_of
from chartae.training.labels import as_labels, typed

__all__ = ["Direction", "Traversal", "directions", "traverse"]

FLAT = 1e-6  # share of the largest variance below which codes do not vary along an axis
VALUES = 1 << 22  # of neighborhoods at once
FEWEST = 6  # rows of a label, of which half are in either half
RIDGE = 0.1  # penalty of a local slope, in units of the local variance


@dataclass(frozen=True)
class Traversal:
    """A walk through the code.

    Parameters
    ----------
    codes : ndarray
        ``(n, steps, d)``, brought to where codes can lie.
    items : ndarray
        ``(n, steps, *shape)``, decoded: in the units of the data, where these have one; else as the model has
        them.
    offsets : ndarray
        ``(steps,)``, where each step is, in the unit of the walk, before it is brought there.
    direction : ndarray
        ``(n, d)``, what one unit is in the code, at each start; on a sphere, what it is along it.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Traversal
    >>> Traversal(np.zeros((1, 3, 2)), np.zeros((1, 3, 5)), np.arange(-1, 2), np.ones((1, 2))).items.shape
    (1, 3, 5)
    """

    codes: np.ndarray
    items: np.ndarray
    offsets: np.ndarray
    direction: np.ndarray


def traverse(
    model: Any,
    z: Any,
    direction: Any = 0,
    *,
    extent: float = 3.0,
    steps: int = 9,
    which: int = 0,
    codes: Any = None,
    condition: Any = None,
) -> Traversal:
    """Walk from codes along a direction, both ways, and decode every step.

    On a sphere the walk is along the great circle through the code and the direction, at constant speed.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    z : array_like
        ``(n, d)`` or ``(d,)``, where to start: the middle of the walk.
    direction : int, "principal" or array_like
        An axis of the code by its number; the axis along which the decoded item changes most, at each start,
        by the metric J_DᵀJ_D; or a vector of ``(d,)`` or ``(n, d)``, whose length does not matter.
    extent : float
        How far to go to each side: in units of the code, or in standard deviations where ``codes`` are given.
    steps : int
        How many codes, both ends included.
    which : int
        Of the principal axes: 0 for the one of the largest change, 1 for the next.
    codes : array_like or None
        ``(m, d)`` codes of data: their standard deviation along the direction is the unit. None: the unit is
        that of the code.
    condition : object, optional
        As the model takes it, one or ``n``.

    Returns
    -------
    Traversal
        Codes and decoded items.

    Raises
    ------
    PlanError
        If there is no such direction, or it has no length, or there are no steps.

    References
    ----------
    Arvanitidis, Hansen & Hauberg 2018, arXiv:1710.11379 (the metric of a decoder).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import traverse
    >>> stretched = (lambda x: x / torch.tensor([1.0, 5.0]), lambda z: z * torch.tensor([1.0, 5.0]))
    >>> walk = traverse(stretched, [0.0, 0.0], "principal", extent=1, steps=3)
    >>> walk.items[0]
    array([[ 0., -5.],
           [ 0.,  0.],
           [ 0.,  5.]], dtype=float32)
    """
    chart = chart_of(model)
    start = codes_of(np.atleast_2d(np.asarray(z)), chart.latent_dim)
    n, d = start.shape
    if not is_count(steps) or not 0 <= extent < np.inf:
        raise PlanError(f"steps={steps}, extent={extent}: use at least one step, and an extent of 0 or more")
    c = chart.condition(condition, n)
    v = _vectors(direction, d, which, lambda: _principal(chart, start, c))
    if codes is not None:
        data = np.asarray(codes, dtype=np.float64)
        if data.ndim != 2 or data.shape[1] != d:
            raise PlanError(f"codes of shape {data.shape} are not of {d} dimensions: give (m, {d})")
        if not np.isfinite(data).all():
            raise PlanError("codes are not finite in places: leave such rows out")
        v = v * (v @ np.cov(data, rowvar=False, ddof=0).reshape(d, d) * v).sum(1, keepdims=True) ** 0.5
    if len(v) not in (1, n):
        raise PlanError(f"{len(v)} directions do not fit {n} codes: give one for each, or one for all")
    v = np.broadcast_to(v, (n, d))
    offsets = np.linspace(-extent, extent, steps) if steps > 1 else np.zeros(1)
    if d > 1 and chart.lacking(c):
        at = chart.placed(start.double().numpy())
        v = _across(v, at)
        line = _circles(at, v, offsets)
    else:
        line = start.numpy()[:, None] + offsets[:, None] * v[:, None]
    walk = chart.placed(line.astype(np.float32))
    repeated = None if c is None else c.repeat_interleave(steps, 0)
    items = chart.decoded(torch.from_numpy(walk).flatten(0, 1), repeated).unflatten(0, (n, steps))
    return Traversal(walk, chart.shown(items), offsets, v.astype(np.float32))


def _across(v: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Turn directions ``(n, d)`` so that they do not leave the spheres through ``at``; none becomes shorter.

    Of one that points straight away from the center none is left, and any other will do.
    """
    up, size = units_of(at), np.linalg.norm(v, axis=1, keepdims=True)

    def flat(v: np.ndarray) -> np.ndarray:
        out: np.ndarray = v - (v * up).sum(1, keepdims=True) * up
        return out

    any_ = flat(np.eye(at.shape[1])[np.abs(up).argmin(1)])
    turned = np.where(np.linalg.norm(flat(v), axis=1, keepdims=True) > SMALL * size, flat(v), any_)
    return turned / np.linalg.norm(turned, axis=1, keepdims=True) * size


def _circles(at: np.ndarray, v: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Great circles from codes ``(n, d)`` at velocities ``(n, d)``, at times ``(k,)``: ``(n, k, d)``."""
    radius, speed = (np.linalg.norm(a, axis=1)[:, None, None] for a in (at, v))
    angle = t[:, None] * speed / radius
    walked: np.ndarray = (
        np.cos(angle) * at[:, None] + np.sin(angle) * radius / speed.clip(1e-300) * v[:, None]
    )
    return walked


def _vectors(direction: Any, d: int, which: int, principal: Any) -> np.ndarray:
    """``(1 or n, d)`` unit vectors."""
    if isinstance(direction, str):
        if direction != "principal" or not 0 <= which < d:
            raise PlanError(
                f"direction={direction!r}, which={which}: use 'principal' and 0 to {d - 1}, the number of "
                f"an axis, or a vector of {d} numbers"
            )
        return principal()[:, :, which]
    given = np.asarray(direction)
    if given.ndim == 0 and given.dtype.kind in "iu":
        if not -d <= int(given) < d:
            raise PlanError(f"direction={direction}: the code has axes 0 to {d - 1}")
        return np.eye(d)[[int(given)]]
    if given.dtype.kind not in "fiu" or given.ndim not in (1, 2) or given.shape[-1] != d:
        raise PlanError(f"a direction of shape {given.shape} does not fit codes of {d}: give {d} numbers")
    return units_of(np.atleast_2d(given.astype(np.float64)))


def _principal(chart: Any, z: torch.Tensor, c: torch.Tensor | None) -> np.ndarray:
    """``(n, d, d)``: columns are eigenvectors of the metric, from the largest, largest component positive."""
    made = []
    for b in chart.blocks(len(z), z.shape[1]):
        J = pushforward(lambda h: chart.decode(h, *rows_of(c, b)), z[b])[1].flatten(2).double()  # noqa: B023
        made.append(torch.linalg.eigh(torch.einsum("anD,bnD->nab", J, J))[1].flip(2).cpu().numpy())
    axes = np.concatenate(made)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), 1)
    return axes * np.where(largest < 0, -1, 1)


@dataclass(frozen=True)
class Direction:
    """A direction of the code along which an attribute rises.

    Parameters
    ----------
    name : object
        The label against all others, or None for a number.
    vector : ndarray
        ``(d,)``, of length one.
    kind : str
        "auc" for labels, "correlation" (of ranks) for numbers.
    effect : float
        On codes that it was not fitted on: 0.5 or 0 if there is none.
    interval : tuple of float
        95 % interval of the effect.
    rows : ndarray
        ``(m,)``, rows that it was not fitted on.
    slope : ndarray
        ``(m,)``, t-value of the attribute's slope along the direction in the neighborhood of each of these
        rows; NaN where the attribute does not vary there.
    speed : ndarray
        ``(m,)``, |J_D v|: how far the decoded item moves per unit of the code.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Direction
    >>> t = np.array([3.0, -1.0, np.nan, 5.0, 2.0])
    >>> found = Direction("red", np.ones(1), "auc", 0.9, (0.8, 1.0), np.arange(5), t, t)
    >>> found, found.agreement
    (Direction('red', auc=0.9 (0.8 to 1), d=1), 0.75)
    """

    name: Any
    vector: np.ndarray
    kind: str
    effect: float
    interval: tuple[float, float]
    rows: np.ndarray
    slope: np.ndarray
    speed: np.ndarray

    def __repr__(self) -> str:
        low, high = self.interval
        name = "" if self.name is None else f"{self.name!r}, "
        return (
            f"Direction({name}{self.kind}={self.effect:.3g} ({low:.3g} to {high:.3g}), d={len(self.vector)})"
        )

    @property
    def none(self) -> float:
        """What the effect is where there is none."""
        return 0.5 if self.kind == "auc" else 0.0

    @property
    def found(self) -> bool:
        """Whether the whole interval lies above no effect."""
        return self.interval[0] > self.none

    @property
    def agreement(self) -> float:
        """Share of neighborhoods in which the attribute rises along it; half of them do by chance."""
        told = self.slope[np.isfinite(self.slope)]
        return float((told > 0).mean()) if len(told) else float("nan")


def directions(
    model: Any,
    Z: Any,
    attribute: Any,
    *,
    condition: Any = None,
    n_neighbors: int = 50,
    max_rows: int = 1000,
    random_state: int | None = 0,
) -> tuple[Direction, ...]:
    """Find the directions of the code along which attributes rise, and where they hold.

    A ridge regression, which for labels is a linear discriminant, is fitted on half of the codes. Its effect
    is measured on the other half, as is the slope along it in the neighborhood of each code: a direction that
    holds on average need not hold everywhere.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    Z : array_like
        ``(n, d)`` codes.
    attribute : array_like
        ``(n,)``: labels (whole numbers, booleans, text), each against all others; or numbers (floats).
    condition : object, optional
        As the model takes it, one or ``n``.
    n_neighbors : int
        Size of a neighborhood; at least four times d.
    max_rows : int
        At most so many neighborhoods.
    random_state : int or None
        Halves the codes.

    Returns
    -------
    tuple of Direction
        One of each label, in their order, of two labels only of the second; one of numbers.

    Raises
    ------
    DataError
        If codes and attribute do not fit, are missing or not finite, or there are too few of a label.

    References
    ----------
    Kim et al. 2018, arXiv:1711.11279 (concept activation vectors); DeLong et al. 1988, doi:10.2307/2531595;
    Bonett & Wright 2000, doi:10.1007/BF02294183 (the intervals).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.geometry import directions
    >>> Z = np.random.default_rng(0).normal(size=(1000, 2))
    >>> same = (lambda x: x, lambda z: z)
    >>> (found,) = directions(same, Z, Z[:, 0] + Z[:, 1] > 0)
    >>> found.vector.round(1), found.found
    (array([0.7, 0.7]), True)
    """
    chart = chart_of(model)
    Z, values, names = _attributes(Z, attribute)
    max_rows, n_neighbors = count(max_rows, "max_rows"), count(n_neighbors, "n_neighbors")
    n, d = Z.shape
    order = np.random.default_rng(random_state).permutation(n)
    if names[0] is None:
        fit = np.sort(order[: n // 2])
    else:  # half of each label: of a rare one, chance might leave nearly none in a half
        kind = np.unique(np.stack(values), axis=1, return_inverse=True)[1].ravel()[order]
        fit = np.sort(np.concatenate([order[kind == k][::2] for k in range(kind.max() + 1)]))
    rest = np.setdiff1d(order, fit)
    measured = rest[np.linspace(0, len(rest) - 1, min(max_rows, len(rest))).astype(int)]
    near = _neighborhoods(Z, rest, measured, max(n_neighbors, 4 * d))
    size = max(1, VALUES // (near.shape[1] * d))
    some = np.split(near, range(size, len(near), size))
    c = chart.condition(condition, n)
    found = []
    for name, a in zip(names, values, strict=True):
        v = _ridge(Z[fit], a[fit])
        score = Z[rest] @ v
        effect, interval = _auc(score, a[rest]) if name is not None else _rank_correlation(score, a[rest])
        at = torch.as_tensor(Z[measured], dtype=torch.float32)
        along = torch.as_tensor(v, dtype=torch.float32)
        speed = []
        for b in chart.blocks(len(at)):
            given = rows_of(c, measured[b])
            tangents = along.expand(1, *at[b].shape)
            pushed = pushforward(lambda h: chart.decode(h, *given), at[b], tangents)[1][0]  # noqa: B023
            speed.append(pushed.flatten(1).norm(dim=1).cpu().numpy())
        found.append(
            Direction(
                name,
                v,
                "correlation" if name is None else "auc",
                effect,
                interval,
                measured,
                np.concatenate([_slopes(Z[b], a[b], v) for b in some]),
                np.concatenate(speed),
            )
        )
    return tuple(found)


def _attributes(Z: Any, attribute: Any) -> tuple[np.ndarray, list[np.ndarray], list[Any]]:
    """Check codes and attribute; labels become one column of zeros and ones each."""
    Z, a = np.asarray(array_of(Z), dtype=np.float64), as_labels(attribute)
    if Z.ndim != 2 or a.shape != (len(Z),):
        raise DataError(f"codes of {Z.shape} and an attribute of {a.shape} do not fit: give (n, d) and (n,)")
    if len(Z) < 20:
        raise DataError(f"{len(Z)} codes are too few to fit a direction and to check it: give 20 or more")
    if a.dtype.kind == "O":
        missing = np.array([v is None for v in a])
        if missing.any():
            raise DataError(
                f"the attribute is missing in row {missing.argmax()} (from 0): leave such rows out"
            )
        a = typed(a)
        a = a.astype(str) if a.dtype.kind == "O" else a
    number = a.dtype.kind == "f"
    if not (np.isfinite(Z).all() and (not number or np.isfinite(a).all())):
        raise DataError("codes or attribute hold values that are not finite: leave these rows out")
    labels, counts = np.unique(a, return_counts=True)
    if len(labels) < 2:
        raise DataError("the attribute is the same in all rows: give one that varies")
    if number:
        return Z, [a.astype(np.float64)], [None]
    if counts.min() < FEWEST:
        raise DataError(
            f"label {labels[counts.argmin()].item()!r} has too few rows: give {FEWEST} or more of each, "
            "or, if these are numbers and no labels, floats"
        )
    shown = labels[1:] if len(labels) == 2 else labels
    return Z, [(a == label).astype(np.float64) for label in shown], [label.item() for label in shown]


def _whitening(Z: np.ndarray) -> np.ndarray:
    """``(d, r)``: to principal axes of unit variance, without those along which codes do not vary."""
    values, axes = np.linalg.eigh(np.cov(Z, rowvar=False, ddof=0).reshape(Z.shape[1], Z.shape[1]))
    kept = values > FLAT * max(values[-1], 0)
    if not kept.any():
        raise DataError("all codes are the same, and have no directions: the code has collapsed")
    return axes[:, kept] / np.sqrt(values[kept])


def _ridge(Z: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Unit vector of a ridge regression whose penalty leave-one-out errors choose."""
    from sklearn.linear_model import RidgeCV

    W = _whitening(Z)
    model = RidgeCV(alphas=len(Z) * np.logspace(-4, 1, 11)).fit((Z - Z.mean(0)) @ W, a)
    v = W @ model.coef_
    return v / np.linalg.norm(v)


def _auc(score: np.ndarray, a: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve, with DeLong's interval."""
    from scipy.stats import rankdata

    up, down = score[a > 0], score[a == 0]
    ranks = rankdata(np.concatenate([up, down]))
    # How many of the others each beats, as a share.
    of_up = (ranks[: len(up)] - rankdata(up)) / len(down)
    of_down = 1 - (ranks[len(up) :] - rankdata(down)) / len(up)
    auc = float(of_up.mean())
    error = float(np.sqrt(of_up.var(ddof=1) / len(up) + of_down.var(ddof=1) / len(down)))
    # The rule of three, where all are in order and no variance is seen.
    half = 1.96 * error if 0 < auc < 1 else 3 / min(len(up), len(down))
    return auc, (max(0.0, auc - half), min(1.0, auc + half))


def _rank_correlation(score: np.ndarray, a: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Spearman's, with its interval on Fisher's scale."""
    from scipy.stats import rankdata

    if np.ptp(a) == 0:
        raise DataError("the attribute does not vary in half of the rows: give more rows")
    r = float(np.clip(np.corrcoef(rankdata(score), rankdata(a))[0, 1], -1 + 1e-12, 1 - 1e-12))
    half = 1.96 * np.sqrt((1 + r**2 / 2) / (len(a) - 3))
    return r, (float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))


def _neighborhoods(Z: np.ndarray, rest: np.ndarray, measured: np.ndarray, k: int) -> np.ndarray:
    """``(m, k)`` rows: the nearest of the held-out codes, in standard deviations along principal axes."""
    from sklearn.neighbors import NearestNeighbors

    W = _whitening(Z)
    search = NearestNeighbors(n_neighbors=min(k, len(rest))).fit(Z[rest] @ W)
    return rest[search.kneighbors(Z[measured] @ W, return_distance=False)]


def _slopes(Z: np.ndarray, a: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``(m,)``: t-values of the slope along v of local linear regressions of ``(m, k)`` on ``(m, k, d)``."""
    k, d = Z.shape[1:]
    Z = Z - Z.mean(1, keepdims=True)
    a = a - a.mean(1, keepdims=True)
    C = Z.swapaxes(1, 2) @ Z
    size = np.trace(C, axis1=1, axis2=2) / d
    inverse = np.linalg.inv(C + (RIDGE * size + 1e-300)[:, None, None] * np.eye(d))
    b = inverse @ (Z.swapaxes(1, 2) @ a[:, :, None])
    left = np.square(a[:, :, None] - Z @ b).sum((1, 2)) / max(k - d - 1, 1)
    spread = v @ (inverse @ C @ inverse) @ v
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (b[:, :, 0] @ v) / np.sqrt(np.maximum(left, 1e-12 * np.square(a).sum(1)) * spread)
    return np.where(np.square(a).sum(1) > 0, t, np.nan)
