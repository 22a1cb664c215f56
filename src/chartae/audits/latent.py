"""What is near stays near, what is apart stays apart: folds, tears, neighborhoods and density of codes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import WIDER, Reading, check, of_mean, of_share
from chartae.geometry.dimension import Dimension

__all__: list[str] = []  # the checks are in the registry

NEIGHBORS = 10
BLUR = 0.5  # neighbors as far as this part of a typical distance are none
CLOSE, APART = 0.4, 0.75  # of a typical distance: what a tear parts, and how far at least
TWICE = math.sqrt(2)  # a pair of neighbors counts for both: intervals of shares of pairs are wider by this
SHOWN = 20  # worst pairs


def typical(rows: Tensor, others: Tensor | None = None) -> float:
    """Measure how far two random rows are apart.

    Parameters
    ----------
    rows : Tensor
        ``(n, d)``, in random order.
    others : Tensor or None
        ``(n,)``, which other row each is compared with; None: the one before it.

    Returns
    -------
    float
        The median distance.
    """
    rows = rows.double()
    other = rows.roll(1, 0) if others is None else rows[others]
    return float((rows - other).norm(dim=1).median())


def scale_dimension(dimension: Dimension) -> float:
    """Take the dimension at the scale at which densities are estimated, 16 to 32 neighbors.

    Parameters
    ----------
    dimension : Dimension
        Over scales.

    Returns
    -------
    float
        The dimension.
    """
    scales = dimension.scales
    return next((d for n, d, _ in reversed(scales) if n <= 16), scales[-1][1])


def _apart(pairs: np.ndarray, rows: Tensor) -> np.ndarray:
    """Distances between rows and their neighbors, ``(n, k)``."""
    rows = rows.double()
    return np.stack([(rows - rows[j]).norm(dim=1).numpy() for j in pairs.T], 1)


def _wide(rows: np.ndarray) -> Reading:
    """Read a mean over rows that share pairs."""
    found = of_mean(rows)
    if found.value is None or found.interval is None:
        return found
    low, high = (found.value + TWICE * (end - found.value) for end in found.interval)
    return Reading(found.value, (low, high))


# ------------------------------------------------------------------------------------------ folds


@check(
    "folds",
    "Do different items share codes?",
    ok=0.001,
    fail=0.01,
    unit="of the neighbors of a code",
    says={
        "ok": "Items with neighboring codes are alike: {value:.2%} of neighbors are as different as two "
        "random items.",
        "warn": "Some different items have nearly the same code: {value:.2%} of the neighbors of a code are "
        "as different as two random items.",
        "fail": "Different items share codes: {value:.2%} of the neighbors of a code are as different as two "
        "random items, and no decoder can tell them apart.",
    },
    remedies=("more-dimensions",),
    reference="Whitney 1944, doi:10.2307/1969265",
)
def _folds(evidence: Evidence) -> Reading:
    """Count neighbors in code that are further apart in data than two random items.

    Where codes are too sparse for that, residuals still bound it: of two items with one code, at half the
    typical distance or further, one is missed by a quarter of it, |r_i| + |r_j| ≥ |x_i − x_j|.
    """
    m = evidence.compared
    x, z = evidence.told(evidence.flat[:m]), evidence.told(evidence.z[:m])
    far, wide = (typical(rows, evidence.others) for rows in (x, z))
    k = min(NEIGHBORS, m - 1)
    if far == 0 or wide == 0:
        return Reading(None, because="most items, or most codes, are the same")
    near_z, pairs = evidence.near_told_z[0][:, :k], evidence.near_told_z[1][:, :k]
    apart = _apart(pairs, x)
    hits = (apart > far) & (near_z <= BLUR * wide)  # the neighbors of an outlier are not near it
    sparse = float(np.median(near_z[:, -1])) > BLUR * float(
        evidence.z[:m].double().std(0).square().mean().sqrt()
    )
    noisy = float(np.median(evidence.near_told_x[0][:, k - 1])) > BLUR * far
    if sparse or noisy:
        missed = int((evidence.residuals.double().norm(dim=1) >= far / 4).sum())
        bound = of_share(missed, len(evidence))
        assert bound.value is not None
        assert bound.interval is not None
        if 2 * bound.interval[1] <= 0.01:
            return Reading(2 * bound.value, (0.0, 2 * bound.interval[1]), also={"by": "residuals"})
        return Reading(
            None,
            because="there are too few items for this many latent dimensions: neighbors in code are far apart"
            if sparse
            else "items have no close neighbors: all are about equally different",
        )
    worst = np.argsort(-np.where(hits, apart / np.maximum(near_z, 1e-12 * wide), 0.0), axis=None)
    worst = worst[: min(SHOWN, int(hits.sum()))]
    i, j = worst // k, pairs.ravel()[worst]
    p = evidence.p[:m].double()
    share = _wide(hits.mean(1))
    assert share.value is not None
    assert share.interval is not None
    touched = of_share(int(hits.any(1).sum()), m)
    assert touched.interval is not None
    # With few or no hits the mean's own interval is too short.
    high = max(share.interval[1], touched.interval[1] * (share.value / max(hits.any(1).mean(), 1 / m)))
    high = touched.interval[1] if share.value == 0 else high
    return Reading(
        share.value,
        (max(share.interval[0], 0.0), min(high, 1.0)),
        rows=np.array(list(dict.fromkeys(i.tolist())), dtype=int),
        also={
            "by": "neighbors",
            "typical": far,
            "pairs": np.stack([evidence.index[i], evidence.index[j]], 1),
            "apart": apart.ravel()[worst],
            "apart_in_code": near_z.ravel()[worst],
            "apart_decoded": (p[i] - p[j]).norm(dim=1).numpy(),
        },
    )


# ------------------------------------------------------------------------------------------ tears


@check(
    "tears",
    "Do like items have codes far apart?",
    ok=0.001,
    fail=0.01,
    unit="of the items",
    says={
        "ok": "Like items have codes near each other: {value:.2%} of items lie at a tear.",
        "warn": "The map tears somewhere: {value:.2%} of items have a close neighbor whose code is as far "
        "away as a random one.",
        "fail": "The map tears: {value:.2%} of items have a close neighbor whose code is as far away as a "
        "random one; codes jump there.",
    },
    remedies=("more-dimensions", "more-capacity"),
    reference="Venna and Kaski 2006, doi:10.1016/j.neunet.2006.05.014",
)
def _tears(evidence: Evidence) -> Reading:
    """Count items with a close neighbor in data, among .5 % of all, whose code is nearly as far as any."""
    m = evidence.compared
    x, z = evidence.told(evidence.flat[:m]), evidence.told(evidence.z[:m])
    far, wide = (typical(rows, evidence.others) for rows in (x, z))
    # A tear has one dimension less than the data: only a fixed share of neighbors gives a share that stays.
    k = min(max(NEIGHBORS, m // 200), m - 1, evidence.near_told_x[0].shape[1])
    if far == 0 or wide == 0:
        return Reading(None, because="most items, or most codes, are the same")
    near_x, pairs = evidence.near_told_x[0][:, :k], evidence.near_told_x[1][:, :k]
    if float(np.median(near_x[:, -1])) > CLOSE * far:
        return Reading(None, because="items have no close neighbors: all are about equally different")
    apart = _apart(pairs, z)
    if float(np.median(apart)) > BLUR * wide:
        return Reading(None, because="codes of like items are no closer than others anywhere")
    hits = (apart > APART * wide) & (near_x <= CLOSE * far)
    jump = np.where(hits, apart, 0.0).max(1)
    rows = np.argsort(-jump)[: min(SHOWN, int(hits.any(1).sum()))]
    partner = pairs[rows, np.where(hits, apart, 0.0).argmax(1)[rows]]
    return of_share(
        int(hits.any(1).sum()),
        m,
        rows=rows,
        also={
            "pairs": np.stack([evidence.index[rows], evidence.index[partner]], 1),
            "apart_in_code": jump[rows],
            "typical_in_code": wide,
            "torn": np.flatnonzero(hits.any(1)),
        },
    )


# ------------------------------------------------------------------------------------------ ranks


@check(
    "neighborhoods",
    "Do items keep their neighbors?",
    ok=0.95,
    fail=0.8,
    says={
        "ok": "Neighbors in code are neighbors in the data and the other way round (trustworthiness "
        "{trustworthiness:.3f}, continuity {continuity:.3f}; 1 is perfect, ½ is random).",
        "warn": "Some neighbors change: trustworthiness {trustworthiness:.3f} (are neighbors in code "
        "alike?), continuity {continuity:.3f} (are like items neighbors in code?); 1 is perfect, ½ is "
        "random.",
        "fail": "Neighbors in code say little about likeness: trustworthiness {trustworthiness:.3f}, "
        "continuity {continuity:.3f}; 1 is perfect, ½ is random.",
    },
    remedies=("more-dimensions", "more-capacity", "longer-training"),
    reference="Venna and Kaski 2006, doi:10.1016/j.neunet.2006.05.014",
)
def _neighborhoods(evidence: Evidence) -> Reading:
    """Take the smaller of trustworthiness and continuity, at ten neighbors."""
    m = min(evidence.compared, 2_000)
    k = NEIGHBORS
    if m < 10 * k:
        return Reading(None, because="there are too few items to speak of neighbors")
    x, z = (evidence.told(rows[:m].double()) for rows in (evidence.flat, evidence.z))
    ranks_x, ranks_z = _between(x), _between(z)
    sides = [_kept(ranks_x, ranks_z, k), _kept(ranks_z, ranks_x, k)]
    trust, continuity = (float(side.mean()) for side in sides)
    worse = min(sides, key=lambda side: float(side.mean()))
    found = _wide(worse)
    return replace(
        found,
        rows=np.argsort(worse)[:SHOWN],
        also={
            "trustworthiness": trust,
            "continuity": continuity,
            "kept": np.minimum(*sides).astype(np.float32),
        },
    )


def _between(rows: Tensor) -> np.ndarray:
    """All distances, ``(n, n)``; no row is near itself."""
    rows = rows - rows.mean(0)
    square = rows.square().sum(1)
    out = (square[:, None] + square - 2 * rows @ rows.T).clamp_min_(0).numpy()
    np.fill_diagonal(out, np.inf)
    return out


def _kept(own: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """Each row's part in trustworthiness, ``(n,)``: neighbors by ``other`` should be so by ``own``."""
    n = len(own)
    near = np.argpartition(other, k - 1, axis=1)[:, :k]
    distance = np.take_along_axis(own, near, 1)
    ranks = np.stack([(own < d[:, None]).sum(1) + 1 for d in distance.T], 1)
    return 1 - 2 / (k * (2 * n - 3 * k - 1)) * np.maximum(ranks - k, 0).sum(1)


# ------------------------------------------------------------------------------------------ density


@check(
    "density",
    "Are codes spread evenly?",
    ok=3.0,
    fail=10.0,
    unit="times as uneven as a normal distribution",
    says={
        "ok": "Codes are spread about as evenly as a normal distribution ({value:.2g} times its unevenness).",
        "warn": "Codes lie very unevenly, {value:.2g} times as unevenly as a normal distribution: equal "
        "steps change items by very unequal amounts, and distances between codes mislead.",
        "fail": "Codes lie extremely unevenly, {value:.2g} times as unevenly as a normal distribution: most "
        "items crowd into small parts of the latent space.",
    },
    remedies=("variational", "metric-distances"),
    reference="Loftsgaarden and Quesenberry 1965, doi:10.1214/aoms/1177700079",
)
def _density(evidence: Evidence) -> Reading:
    """Compare the spread of log density, beyond its sampling error, with that of a normal distribution.

    Neighborhoods smooth what they estimate: normal codes read 0.7 to 0.9, less in more dimensions.
    """
    from scipy.special import polygamma

    m, k = evidence.compared, 30
    if m < 10 * k:
        return Reading(None, because="there are too few items to estimate a density")
    radius = evidence.near_z[0][:, k - 1]
    if (radius == 0).any():
        return Reading(None, because="many codes are the same")
    d = scale_dimension(evidence.dimension_z)
    log_density = -d * np.log(radius)
    log_density -= log_density.mean()
    square = log_density**2
    # Neighbors share their estimates: the interval of the variance is wider.
    half = WIDER * 2.33 * float(square.std()) / math.sqrt(m)
    excess = [float(square.mean()) + side * half - float(polygamma(1, k)) for side in (0, -1, 1)]
    value, low, high = (math.sqrt(max(v, 0.0) / (d / 2)) for v in excess)
    return Reading(
        value,
        (low, high),
        rows=np.argsort(log_density)[:SHOWN],
        also={"log_density": log_density.astype(np.float32), "dimension_of_codes": d},
    )
