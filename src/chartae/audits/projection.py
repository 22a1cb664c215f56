"""Is D∘E a projection onto the data? What it loses, where it tears, and what it does with noise."""

from __future__ import annotations

import numpy as np
import torch

from chartae.audits.evidence import Evidence
from chartae.audits.findings import LEVEL, WIDER, Reading, check, checks, of_ratio
from chartae.geometry.neighbors import nearest
from chartae.geometry.projection import noise_gain

__all__: list[str] = []  # the checks are in the registry

NOISE = 0.1  # of the size of a typical residual
STILL = 0.01  # of the standard deviation of the items
WORST = 16  # items that are named
WORST_OF = 0.999  # share of items that are no worse than the worst in a thousand
EXACT = 16  # directions of residuals, of the largest variances: the others are taken together
POOL, REPEATS = 1 << 19, 20_000  # residuals that are simulated, and samples whose worst are drawn of them
NEAR, FAR, FEWEST = 5, 20, 100  # like items: so many each, the last of so many; items that there must be
HALVED = 50  # features that are halved at least, over all splits: of few, a single split says little
BLIND = 3.0  # times what the model loses: where neighbors miss more of the items, they cannot judge it
ONWARD = 3.0  # times the rise from far to near neighbors: what nearer ones, of more items, might still add


def _worst(evidence: Evidence) -> np.ndarray:
    return evidence.residuals.norm(dim=1).argsort(descending=True)[:WORST].numpy()


@check(
    "reconstruction",
    "Do codes tell the items apart?",
    ok=0.6,
    fail=0.95,
    unit="of the variance of the data is lost",
    says={
        "ok": "Reconstructions keep {kept:.0%} of the variance of the data.",
        "warn": "Reconstructions keep only {kept:.0%} of the variance of the data.",
        "fail": "Reconstructions keep {kept:.0%} of the variance of the data: codes say next to nothing.",
    },
    remedies=("lower-beta", "learned-noise", "longer-training", "more-dimensions", "more-capacity"),
    reference="the definition of explained variance",
)
def _reconstruction(evidence: Evidence) -> Reading:
    """Measure the share of variance that is lost, E|r|² / E|x − mean|²."""
    lost = evidence.residuals.square().sum(1)
    reading = of_ratio(lost, (evidence.flat - evidence.flat.mean(0)).square().sum(1), rows=_worst(evidence))
    kept = max(0.0, 1 - (reading.value or 0.0))
    return Reading(
        reading.value, reading.interval, because=reading.because, rows=reading.rows, also={"kept": kept}
    )


@check(
    "reconstruction-tail",
    "Are some items reconstructed much worse than others?",
    ok=1.0,
    fail=3.0,
    unit="times what chance makes of the worst in a thousand",
    says={
        "ok": "The worst items are reconstructed about as well as chance would have it.",
        "warn": "The worst items are reconstructed {value:.2f} times as badly as chance would have it: look "
        "at them.",
        "fail": "Some items are reconstructed {value:.1f} times as badly as chance would have it: the map "
        "tears there, or they are no data.",
    },
    remedies=("more-dimensions", "more-capacity", "longer-training"),
    reference="Borsuk 1933 (a closed manifold has no chart without a tear); null by simulation",
)
def _reconstruction_tail(evidence: Evidence) -> Reading:
    """Compare q99.9|r| / median|r| with its null: normal residuals of the same covariance, as many.

    It exceeds 1 in about 1 % of cases, whether one direction outweighs a hundred others or all are alike: in
    0.8 to 2.1 % of 3,000 samples or more of 250 and of 1,000 residuals, for each of 14 known covariances.
    """
    norms = evidence.residuals.norm(dim=1).double()
    if not float(norms.median()) > 1e-6 * float(evidence.flat.std()):
        return Reading(None, because="reconstructions are exact")
    r = evidence.residuals[: evidence.budget.neighbors].double()
    r = r - r.mean(0)
    # Singular values, not a covariance: items may have more values than there are items.
    weight = torch.linalg.svdvals(r).square()
    if not float(weight.sum()) > 1e-10 * float(norms[: len(r)].square().sum()):
        return Reading(None, because="all items are reconstructed in the same way")
    limit = _limit((weight / weight.sum()).numpy(), len(norms), evidence.random(11))
    value = _tail(norms.numpy()) / limit
    return Reading(value, rows=_worst(evidence), also={"null": limit, "norms": norms[:2000].numpy()})


def _limit(weight: np.ndarray, n: int, random: np.random.Generator) -> float:
    """What the tail of ``n`` normal residuals exceeds in 1 % of cases.

    Parameters
    ----------
    weight : ndarray
        ``(k,)`` variances along principal directions, largest first; they add up to 1.
    n : int
        Residuals.
    random : numpy.random.Generator
        Of the simulation.

    Returns
    -------
    float
        A ratio, of the worst in a thousand to the median.
    """
    # |r|² = Σ w χ²₁, term by term: one that outweighs the others has a heavier tail than all together.
    square = np.zeros(POOL, dtype=np.float32)
    for w in weight[:EXACT]:
        square += np.float32(w) * np.square(random.standard_normal(POOL, dtype=np.float32))
    rest = weight[EXACT:]
    if rest.sum() > 0:  # the gamma distribution of the same mean and variance (Satterthwaite)
        scale = 2 * float(np.square(rest).sum() / rest.sum())
        square += random.gamma(float(rest.sum()) / scale, scale, POOL).astype(np.float32)
    norms, shares = np.sqrt(np.sort(square)), (np.arange(POOL) + 0.5) / POOL
    # Of a sample only two quantiles are asked for: levels of its order statistics, from above, are enough.
    places = WORST_OF * (n - 1), 0.5 * (n - 1)
    level, above, drawn = np.ones(REPEATS), n + 1, {}
    for rank in sorted({int(place) + i for place in places for i in (1, 2)}, reverse=True):
        level = level * random.beta(rank, above - rank, REPEATS)
        above, drawn[rank] = rank, np.interp(level, shares, norms)
    tail, middle = (
        drawn[rank] + (place % 1) * (drawn[rank + 1] - drawn[rank])
        for place, rank in ((place, int(place) + 1) for place in places)
    )
    return float(np.quantile(tail / middle, 1 - LEVEL))


def _tail(norms: np.ndarray) -> float:
    return float(np.quantile(norms, WORST_OF) / np.median(norms))


@check(
    "idempotence",
    "Does projecting twice change anything?",
    ok=0.1,
    fail=0.3,
    unit="of the residual",
    says={
        "ok": "Encoding and decoding a reconstruction gives it back.",
        "warn": "A reconstruction that is encoded and decoded again moves by {value:.0%} of the residual.",
        "fail": "A reconstruction that is encoded and decoded again moves by {value:.0%} of the residual: "
        "the model does not agree with itself where the data are.",
    },
    remedies=("denoising", "longer-training", "contractive", "more-capacity"),
    reference="Alain and Bengio 2014, arXiv:1211.4246",
)
def _idempotence(evidence: Evidence) -> Reading:
    """Compare |P(P(x)) − D(z')| with |x − P(x)|, where z' is the code itself, as far as it is a point.

    The mean of a posterior is pulled from what the item says to the prior, by the share that the variance of
    the posterior has in the prior's: the code of a reconstruction is pulled once more.
    """
    if _still(evidence):
        return Reading(None, because="all reconstructions are the same")
    m, aim = min(len(evidence), evidence.budget.neighbors), evidence.p
    if evidence.chart.posterior is not None:
        m = min(m, evidence.spread_rows)
        mean, std = evidence.moments(m)
        assumed = evidence.center_of_prior, evidence.scale_of_prior
        center, scale = (v[:m] if v.ndim > 1 else v for v in assumed)
        pulled = mean - np.square(std / scale).clip(max=1) * (mean - center)
        z = torch.from_numpy(evidence.chart.placed(pulled.astype(np.float32))).to(evidence.x.device)
        aim = evidence.chart.decoded(z, _c(evidence, m)).flatten(1).cpu()
    again = evidence.chart.projected(
        evidence.p[:m].reshape(evidence.x[:m].shape).to(evidence.x), _c(evidence, m)
    )
    moved = (again.flatten(1).cpu() - aim[:m]).norm(dim=1)
    away = evidence.residuals[:m].norm(dim=1)
    if not float(away.median()) > 1e-6 * float(evidence.flat.std()):
        return Reading(None, because="reconstructions are exact, so that anything is idempotent")
    reading = of_ratio(moved, away)
    if evidence.corruption and (reading.value or 0.0) >= checks["idempotence"].fail:
        return Reading(
            None, because="the best denoising autoencoder moves on toward the mean, and is not idempotent"
        )
    return reading


@check(
    "denoising",
    "Is noise removed?",
    ok=1.3,
    fail=3.0,
    unit="of what a projection onto the data would let by",
    says={
        "ok": "Noise that is added to an item is mostly gone after encoding and decoding: {value:.2g} times "
        "what a projection onto the data's {dimension:.1f} dimensions would let by.",
        "warn": "Some noise passes through: {value:.2g} times what a projection onto the data would let by.",
        "fail": "Noise passes through: {value:.2g} times what a projection onto the data would let by.",
    },
    remedies=("denoising", "contractive"),
    reference="Alain and Bengio 2014, arXiv:1211.4246",
    needs=("smooth",),
)
def _denoising(evidence: Evidence) -> Reading:
    """Compare the noise gain G = E|P(x + sε) − P(x)|² / (s²D) with d_I / D."""
    if _still(evidence):
        return Reading(None, because="all reconstructions are the same")
    dimension = evidence.tangent_dimension
    if evidence.features < 3 * dimension:
        return Reading(None, because="items have few values beyond the dimension of the data")
    m = min(len(evidence), evidence.budget.neighbors)
    s = NOISE * float(evidence.residuals[:m].square().mean().sqrt())
    s = s if s > 1e-6 * float(evidence.flat.std()) else NOISE * float(evidence.flat.std())
    gain = noise_gain(
        evidence.chart,
        evidence.x[:m],
        [s],
        condition=_c(evidence, m),
        draws=1,
        max_rows=m,
        random_state=evidence.seed,
    ).per_row[0]
    ideal = np.full_like(gain, dimension / evidence.features)
    return of_ratio(gain, ideal, also={"dimension": dimension})


@check(
    "missed",
    "Is what reconstruction loses part of the data?",
    ok=0.15,
    fail=0.4,
    unit="of what is lost can be told from like items",
    says={
        "ok": "Like items say little of what a reconstruction loses: {told:.0%} of it can be told from them.",
        "warn": "Like items tell {told:.0%} of what a reconstruction loses ({lost:.1%} of the variance): "
        "some real variation is lost.",
        "fail": "Like items tell {told:.0%} of what a reconstruction loses ({lost:.1%} of the variance): "
        "real variation is lost.",
    },
    remedies=("more-dimensions", "more-capacity", "longer-training"),
    reference="Moran 1950, doi:10.2307/2332142",
)
def _missed(evidence: Evidence) -> Reading:
    """Measure E⟨r_B, mean of neighbors' r_B⟩ / E|r_B|², with neighbors by the other half A of the features.

    Noise that is independent between features gives 0, as far as codes do not react to it, and what is lost
    in the same way all around gives 1. What varies within a neighborhood is not seen: it is a lower bound.
    Noise that features share, like that of smooth images or of copied columns, counts as part of the data,
    and so does what codes that react to noise pass on from one half to the other.
    """
    x, r = evidence.flat[: evidence.compared], evidence.residuals[: evidence.compared]
    # A copy knows all of an item: of each, one stays.
    rows = np.sort(list({hash(row.tobytes()): i for i, row in enumerate(evidence.told(x).numpy())}.values()))
    if len(rows) < FEWEST:
        return Reading(None, because="there are too few different items to speak of neighbors")
    spread = x.double().std(0).numpy()
    varying = np.flatnonzero(spread > 1e-6 * spread.max())
    if len(varying) < 4:
        return Reading(None, because="items have too few values that vary to be split in halves")
    r, centered = r.numpy()[rows], (x - x.mean(0)).numpy()[rows]
    if not np.abs(r[:, varying]).max() > 1e-6 * spread.max():
        return Reading(None, because="reconstructions are exact")
    random = evidence.random(12)
    near, far, lost, unseen, whole = (np.zeros(len(rows)) for _ in range(5))
    for _ in range(1 + HALVED // len(varying)):
        order, half = random.permutation(varying), len(varying) // 2
        for A, B in ((order[:half], order[half:]), (order[half:], order[:half])):
            like = evidence.told(x[:, A])[rows]
            pairs = nearest(like, like, FAR, exclude_self=True)[1]
            r_B, x_B = r[:, B].astype(float), centered[:, B].astype(float)
            near += (r_B * _around(r_B, pairs[:, :NEAR])).sum(1)
            far += (r_B * _around(r_B, pairs[:, -NEAR:])).sum(1)
            lost += (r_B**2).sum(1)
            unseen += _unseen(x_B, pairs[:, :NEAR])
            whole += (x_B**2).sum(1)
    found, further = (of_ratio(v, lost, wider=WIDER) for v in (near, near + ONWARD * (near - far)))
    assert found.value is not None
    assert found.interval is not None
    assert further.interval is not None
    also = {
        "told": min(max(0.0, found.value), 1.0),
        "lost": float(lost.sum() / whole.sum()),
        "unseen": float(unseen.sum() / lost.sum()),
    }
    kind = checks["missed"]
    # A loss that would fail, and that neighbors see as well as they see items, is at least a warning.
    seen = 1 - unseen.sum() / whole.sum() >= kind.ok / kind.fail and also["unseen"] <= BLIND
    if found.interval[0] <= kind.fail and not seen:
        return Reading(None, because="like items are not like enough to show what is lost", also=also)
    if found.interval[0] <= kind.ok < further.interval[1]:
        return Reading(None, because="more items might show more of what is lost", also=also)
    return Reading(found.value, found.interval, also=also)


def _around(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean over the neighbors of each row, ``(n, D)``."""
    total = np.zeros_like(values)
    for j in pairs.T:  # one after another: all at once would take much memory
        total += values[j]
    return total / pairs.shape[1]


def _unseen(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Squared distance of each row to the mean of its neighbors, less what is due to noise of that mean."""
    k, mean = pairs.shape[1], _around(values, pairs)
    spread = ((values**2).sum(1)[pairs].sum(1) - k * (mean**2).sum(1)) / (k - 1)
    return ((values - mean) ** 2).sum(1) - spread / k


def _still(evidence: Evidence) -> bool:
    """Whether reconstructions hardly move with their items."""
    return float(evidence.p.std(0).norm()) < STILL * float(evidence.flat.std(0).norm())


def _c(evidence: Evidence, m: int) -> torch.Tensor | None:
    return None if evidence.c is None else evidence.c[:m]
