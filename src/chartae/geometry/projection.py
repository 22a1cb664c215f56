"""The projection P(x) = D(E(x)): where it comes to rest, how far items are from it, what noise becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.counts import count
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.geometry.charts import chart_of, rows_of
from chartae.geometry.tangent import RELIABLE, chosen_rows, tangent_space

__all__ = [
    "CodeShift",
    "NoiseGain",
    "OffManifold",
    "Projected",
    "code_shift",
    "noise_gain",
    "off_manifold_score",
    "project",
]

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)  # noise levels, in root mean squares of the centered data
ROUNDING = 1e-6  # of an item's norm: steps that are rounding


@dataclass(frozen=True)
class Projected:
    """Items after one or more projections.

    Parameters
    ----------
    items : ndarray
        ``(n, *shape)``.
    iterations : ndarray
        ``(n,)``, how many projections each took.
    residual : ndarray
        ``(n,)``, the length of the last step of each, in units of the data.
    converged : ndarray
        ``(n,)``, whether that step was within the tolerance.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Projected
    >>> Projected(np.zeros((1, 2)), np.array([3]), np.array([0.0]), np.array([True])).items.shape
    (1, 2)
    """

    items: np.ndarray
    iterations: np.ndarray
    residual: np.ndarray
    converged: np.ndarray


def project(
    model: Any,
    X: Any,
    *,
    condition: Any = None,
    iterations: int | None = 1,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Projected:
    """Project items onto the model's manifold: P(x) = D(E(x)), once, several times, or until they rest.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(n, *shape)`` items.
    condition : object, optional
        As the model takes it.
    iterations : int or None
        How often; None: until each item moves by no more than the tolerance.
    max_iterations : int
        At most so often, where iterations is None.
    tolerance : float
        Share of an item's first step that counts as rest.

    Returns
    -------
    Projected
        Items in the chart's layout and units, with what the projections took.

    Raises
    ------
    PlanError
        If the number of iterations is below one.

    References
    ----------
    Alain & Bengio 2014, arXiv:1211.4246: the step of a denoising autoencoder goes along the score, and its
    fixed points are where the density is high.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import project
    >>> halving = (lambda x: x[:, :1], lambda z: torch.cat([z / 2, 0 * z], 1))
    >>> project(halving, [[8.0, 1.0]], iterations=2).items
    array([[2., 0.]], dtype=float32)
    """
    most = max_iterations if iterations is None else iterations
    if most < 1:
        raise PlanError(f"{most} iterations project nothing: use 1 or more, or None until items rest")
    chart = chart_of(model)
    x, c = chart.take(X, condition)
    moving = torch.arange(len(x), device=x.device)
    first = x.new_zeros(len(x))
    residual, count = first.clone(), torch.zeros(len(x), dtype=torch.int64, device=x.device)
    resting = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for turn in range(most):
        before = x[moving]
        after = chart.projected(before, *rows_of(c, moving))
        step = (after - before).flatten(1).norm(dim=1)
        if turn == 0:
            x, first = after, step
        else:
            x[moving] = after
        residual[moving], count[moving] = step, turn + 1
        rest = step <= tolerance * first[moving] if turn else torch.zeros_like(step, dtype=torch.bool)
        rest |= step <= ROUNDING * before.flatten(1).norm(dim=1)
        resting[moving] = rest
        if iterations is None:
            moving = moving[~rest]
            if not len(moving):
                break
    return Projected(x.cpu().numpy(), count.cpu().numpy(), residual.cpu().numpy(), resting.cpu().numpy())


@dataclass(frozen=True)
class OffManifold:
    """How far items are off the manifold.

    Parameters
    ----------
    score : ndarray
        ``(n,)``, the distance to the projection: in units of the data, or relative to its median nearby.
    p_value : ndarray
        ``(n,)``, the share of held-out items that are as far off, counting the item itself: an item of the
        same kind falls to α or below in at most a share α of the draws.
    reference : ndarray
        ``(m,)``, the scores of the held-out items that it was ranked among, ascending.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import OffManifold
    >>> OffManifold(np.array([9.0]), np.array([0.01]), np.arange(99.0)).p_value < 0.05
    array([ True])
    """

    score: np.ndarray
    p_value: np.ndarray
    reference: np.ndarray


def off_manifold_score(
    model: Any,
    X: Any,
    *,
    reference: Any,
    condition: Any = None,
    reference_condition: Any = None,
    local: bool = False,
    n_neighbors: int = 20,
    random_state: int | None = 0,
) -> OffManifold:
    """Score how far items are off the manifold, as p-values against held-out items.

    The score is |x − P(x)|, and its p-value (1 + #{held-out ≥ score}) / (m + 1), which is exact in any number
    of rows where an item is exchangeable with the held-out ones: rows that the model was fitted on are not,
    since their residuals are smaller.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(n, *shape)`` items.
    reference : array_like
        ``(m, *shape)`` held-out items.
    condition, reference_condition : object, optional
        Of both, as the model takes it.
    local : bool
        Divide by the median residual of the nearest codes, where some regions are noisier than others. Half
        of the held-out items serve for that, and the others for the ranks: p-values stay exact.
    n_neighbors : int
        How many codes are near.
    random_state : int or None
        Of that halving.

    Returns
    -------
    OffManifold
        A score and a p-value for each item.

    Raises
    ------
    DataError
        If there are too few held-out items.

    References
    ----------
    Vovk, Gammerman & Shafer 2005, doi:10.1007/b106715 (conformal p-values); Lei et al. 2018, arXiv:1604.04173
    (local scale from a separate split).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import off_manifold_score
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, 0 * z], 1))
    >>> held_out = torch.stack([torch.zeros(99), torch.linspace(-1, 1, 99)], 1)
    >>> off_manifold_score(line, [[7.0, 0.0], [7.0, 3.0]], reference=held_out).p_value
    array([1.  , 0.01])
    """
    chart, n_neighbors = chart_of(model), count(n_neighbors, "n_neighbors")

    def measured(rows: Any, given: Any) -> tuple[np.ndarray, np.ndarray]:
        x, c = chart.take(rows, given)
        z = chart.codes(x, c)
        off = (chart.decoded(z, c) - x).flatten(1).norm(dim=1)
        return off.double().cpu().numpy(), z.double().cpu().numpy()

    held, held_codes = measured(reference, reference_condition)
    score, codes = measured(X, condition)
    if len(held) < (2 * n_neighbors if local else 1):
        raise DataError(
            f"{len(held)} held-out items are too few: give {2 * n_neighbors if local else 1} or more"
        )
    if local:
        order = np.random.default_rng(random_state).permutation(len(held))
        scale, rank = order[: len(held) // 2], order[len(held) // 2 :]
        typical = _nearby(held_codes[scale], held[scale], min(n_neighbors, len(scale)))
        held = held[rank] / typical(held_codes[rank])
        score = score / typical(codes)
    held = np.sort(held)
    above = len(held) - np.searchsorted(held, score, side="left")
    return OffManifold(score, (1 + above) / (1 + len(held)), held)


def _nearby(codes: np.ndarray, residual: np.ndarray, k: int) -> Any:
    """Make a function from codes to the median residual of their nearest codes."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k).fit(codes)
    floor = max(0.05 * float(np.median(residual)), np.finfo(float).tiny)

    def typical(at: np.ndarray) -> np.ndarray:
        # Codes far beyond all others are as near as those at the edge; those that overflow are not.
        at = np.nan_to_num(at, posinf=1e100, neginf=-1e100)
        return np.maximum(np.median(residual[search.kneighbors(at, return_distance=False)], axis=1), floor)

    return typical


@dataclass(frozen=True)
class NoiseGain:
    """How much of the noise on an item a projection passes on.

    Parameters
    ----------
    levels : ndarray
        ``(l,)``, standard deviation of the noise on each value, in units of the data.
    gain : ndarray
        ``(l,)``, E|P(x + sε) − P(x)|² / (s² D): m / D for an orthogonal projection onto m dimensions, 1 for
        the identity.
    error : ndarray
        ``(l,)``, standard error of each.
    per_row : ndarray
        ``(l, n)``, of each item.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import NoiseGain
    >>> NoiseGain(np.array([0.1]), np.array([0.04]), np.array([0.001]), np.full((1, 5), 0.04)).gain
    array([0.04])
    """

    levels: np.ndarray
    gain: np.ndarray
    error: np.ndarray
    per_row: np.ndarray


def noise_gain(
    model: Any,
    X: Any,
    levels: Sequence[float] | None = None,
    *,
    condition: Any = None,
    draws: int = 4,
    max_rows: int = 512,
    random_state: int = 0,
) -> NoiseGain:
    """Measure how much noise a projection passes on, at several levels.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(n, *shape)`` items.
    levels : sequence of float or None
        Standard deviations on each value, in units of the data; None: 0.01, 0.03, 0.1, 0.3 and 1 times the
        root mean square of the centered data.
    condition : object, optional
        As the model takes it.
    draws : int
        Of noise for each item.
    max_rows : int
        At most so many rows, chosen at random.
    random_state : int
        Of rows and noise.

    Returns
    -------
    NoiseGain
        The gain at each level, with its error.

    Raises
    ------
    PlanError
        If a level is not above zero.

    References
    ----------
    Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11:3371; Alain & Bengio 2014, arXiv:1211.4246.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import noise_gain
    >>> first_of_four = (lambda x: x[:, :1], lambda z: torch.nn.functional.pad(z, (0, 3)))
    >>> noise_gain(first_of_four, torch.randn(500, 4), [0.1], draws=20).gain.round(2)  # 1 / 4
    array([0.25])
    """
    chart, draws = chart_of(model), count(draws, "draws")
    x, c = chart.take(X, condition)
    some = chosen_rows(len(x), count(max_rows, "max_rows"), random_state)
    rows = torch.as_tensor(some, device=x.device)
    s = _levels(levels, x)
    x, c = x[rows], None if c is None else c[rows]
    clean, noise = chart.projected(x, c), Noise(random_state)
    gain = np.zeros((len(s), len(x)))
    for _ in range(draws):
        e = noise.normal(x.shape, x)  # one for all levels: their curve is smooth
        for i, level in enumerate(s):
            moved = (chart.projected(x + level * e, c) - clean).flatten(1).double()
            gain[i] += moved.square().mean(1).cpu().numpy() / level**2 / draws
    return NoiseGain(np.array(s), gain.mean(1), gain.std(1) / np.sqrt(len(x)), gain)


def _levels(levels: Sequence[float] | None, x: Tensor) -> list[float]:
    if levels is None:
        size = float((x - x.mean(0)).square().mean().sqrt()) or 1.0
        return [share * size for share in SHARES]
    if not len(levels) or min(levels) <= 0:
        raise PlanError(f"levels={list(levels)}: use numbers above zero, in units of the data")
    return [float(level) for level in levels]


@dataclass(frozen=True)
class CodeShift:
    """How far codes move when items leave the manifold, and when they move along it.

    Parameters
    ----------
    levels : ndarray
        ``(l,)``, the length of the move, in units of the data.
    normal : ndarray
        ``(l, n)``, of the codes, in standard deviations of the codes, for a move at right angles to the data.
    tangential : ndarray
        ``(l, n)``, the same for a move along the tangent space.
    rows : ndarray
        ``(n,)``, which items.
    tangent_angle : ndarray
        ``(n,)`` radians, between tangent spaces of two halves of the neighbors.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import CodeShift
    >>> one = np.ones((2, 3))
    >>> CodeShift(np.array([0.1, 1.0]), 0.1 * one, one, np.arange(3), np.zeros(3)).ratio
    array([0.1, 0.1])
    """

    levels: np.ndarray
    normal: np.ndarray
    tangential: np.ndarray
    rows: np.ndarray
    tangent_angle: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Root mean square of normal over that of tangential moves where tangents are reliable, ``(l,)``.

        0: what is off the manifold collapses onto it; 1: codes do not tell the two apart.
        """
        use = self.tangent_angle <= RELIABLE
        if not use.any():
            return np.full(len(self.levels), np.nan)
        along = np.square(self.tangential[:, use]).mean(1)
        return np.sqrt(np.square(self.normal[:, use]).mean(1) / np.where(along > 0, along, np.nan))


def code_shift(
    model: Any,
    X: Any,
    levels: Sequence[float] | None = None,
    *,
    condition: Any = None,
    dimension: int | None = None,
    n_neighbors: int | str = "auto",
    max_rows: int = 256,
    random_state: int = 0,
) -> CodeShift:
    """Measure whether what is off the manifold collapses: E(x + εn) ≈ E(x) for normal directions n.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(n, *shape)`` items.
    levels : sequence of float or None
        Lengths ε of the move, in units of the data; None: 0.01, 0.03, 0.1, 0.3 and 1 times the root mean
        square norm of the centered items.
    condition : object, optional
        As the model takes it.
    dimension : int or None
        Of the tangent spaces; None: estimated.
    n_neighbors : int or "auto"
        As :func:`tangent_space` takes it.
    max_rows : int
        At most so many rows, chosen at random.
    random_state : int
        Of rows and directions.

    Returns
    -------
    CodeShift
        Per level and item.

    Raises
    ------
    PlanError
        If a level is not above zero.
    DataError
        If the data fill their space: there is no normal direction.

    References
    ----------
    Rifai et al. 2011, "Contractive auto-encoders", ICML; Alain & Bengio 2014, arXiv:1211.4246.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import code_shift
    >>> X = torch.rand(100, 1) @ torch.eye(1, 3)
    >>> flat = (lambda x: x[:, :1], lambda z: z @ torch.eye(1, 3))
    >>> code_shift(flat, X, [0.1], dimension=1).ratio.round(3)
    array([0.])
    """
    chart = chart_of(model)
    x, c = chart.take(X, condition)
    size = float(np.sqrt(x[0].numel()))
    s = [level * size for level in _levels(None, x)] if levels is None else _levels(levels, x)
    rows = chosen_rows(len(x), max_rows, random_state)
    flat = x.flatten(1).cpu().numpy()
    space = tangent_space(
        flat, flat[rows], dimension=dimension, n_neighbors=n_neighbors, random_state=random_state
    )
    if space.dimension >= flat.shape[1]:
        raise DataError(
            f"the data fill all {flat.shape[1]} dimensions, and nothing is normal to them: give a smaller "
            "dimension"
        )
    codes = chart.codes(x, c).double()
    # In standard deviations along principal axes; directions without spread count as one of the largest.
    centered = codes - codes.mean(0)
    values, axes = torch.linalg.eigh(centered.mT @ centered / len(codes))
    top = float(values[-1].clamp(min=1e-300))
    whiten = axes / torch.where(values > 1e-6 * top, values, top).sqrt()
    index = torch.as_tensor(rows, device=x.device)
    x, c = x[index], None if c is None else c[index]
    T = torch.from_numpy(space.basis).to(x)
    e = Noise(random_state).normal((len(x), flat.shape[1]), x)
    along = torch.einsum("nij,nkj,nk->ni", T, T, e)
    shift = {}
    for name, v in (("tangential", along), ("normal", e - along)):
        v = (v / v.norm(dim=1, keepdim=True)).reshape(x.shape)
        moved = torch.stack([chart.codes(x + level * v, c) for level in s]).double() - codes[index]
        shift[name] = (moved @ whiten).norm(dim=2).cpu().numpy()
    return CodeShift(np.array(s), shift["normal"], shift["tangential"], rows, space.angle)
