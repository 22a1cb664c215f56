"""Samples against the data: whether a fitted density would help, what they cover, and what they copy."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import WIDER, Reading, check, of_mean, of_ratio, of_share
from chartae.audits.prior import Z
from chartae.core.errors import DataError
from chartae.geometry.neighbors import nearest

__all__: list[str] = []  # the checks are in the registry

FITTED = 4_000  # codes that a density is fitted to, at most
COMPONENTS = (1, 2, 4, 8)  # of mixtures that are tried
FEWEST_FITTED = 200  # codes below which no density is fitted, and for each dimension:
FITTED_PER_DIMENSION = 20
FEATURES = 50  # principal components in which distances are taken
COVERED = 1_000  # items that are to be covered, at most
FEWEST_COVERED = 100
K = 5  # neighbors
COMPARED = 4_000  # items and samples whose distance to the training items is taken, at most
FEWEST_COMPARED = 200
LEFT_TAIL = 0.01
NEAR = 20  # codes
REMEMBERED = 0.7  # size of residuals of training items, in that of held-out items, below which it shows
SHIFT = 0.1  # of the rank test, at which it counts as an effect


@check(
    "density-gain",
    "Would a density fitted to the codes make better samples?",
    ok=0.03,
    fail=0.25,
    unit="nats a dimension",
    says={
        "ok": "What samples take their codes from fits them ({kind}: {value:+.2g} nats a dimension).",
        "warn": "{kind} would fit the codes better by {value:.2g} nats a dimension than what samples take "
        "theirs from.",
        "fail": "{kind} would fit the codes far better, by {value:.2g} nats a dimension, than what samples "
        "take theirs from.",
    },
    remedies=("fit-density",),
    reference="Ghosh et al. 2020, arXiv:1903.12436; Dai and Wipf 2019, arXiv:1903.05789",
    needs=("source",),
)
def _density_gain(evidence: Evidence) -> Reading:
    """Compare, on codes of held-out items, a density fitted to other codes with what samples come from."""
    from sklearn.mixture import GaussianMixture

    support, queries = evidence.support[:FITTED].double(), evidence.queries.double()
    n, d = support.shape
    if n < max(FEWEST_FITTED, FITTED_PER_DIMENSION * d):
        return Reading(None, because=f"{n} codes are too few to fit a density in {d} dimensions to")
    if evidence.chart.lacking(evidence.c):
        return Reading(
            None, because="codes lie on a surface, where a density of all of R^d cannot be compared"
        )
    center, scale = support.mean(0), support.std(0).clamp_min(1e-12)
    before = _source_density(evidence, queries)
    white, asked = (((z - center) / scale).numpy() for z in (support, queries))
    held = n - n // 5
    fitted: list[Any] = []
    for k in COMPONENTS:
        # Many rows to each component, or its covariance is what few rows make of it.
        if k == 1 or k <= held // (FITTED_PER_DIMENSION * d):
            fitted.append(GaussianMixture(k, reg_covar=1e-4, max_iter=30, tol=1e-2, random_state=0))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitted[-1].fit(white[:held])
    best = max(fitted, key=lambda mixture: mixture.score(white[held:]))
    k = best.n_components
    kind = "A normal" if k == 1 else f"A mixture of {k} normals"
    after = best.score_samples(asked) - float(scale.log().sum())
    gains = (after - before) / d
    most = np.argsort(-gains)[:20]
    also = {"kind": kind, "nats": float(gains.mean() * d)}
    return replace(of_mean(gains, also=also), rows=most)


def _source_density(evidence: Evidence, z: Tensor) -> np.ndarray:
    """Log density, at codes of the first items, of what samples are drawn from."""
    source = evidence.chart.source
    assert source is not None
    with torch.no_grad():
        p = source(None if evidence.c is None else evidence.c[: len(z)])
        if "log_prob" not in p.offers:
            raise DataError("what samples are drawn from has no density")
        if "mass" in p.offers:
            raise DataError("samples take their codes from a codebook, and a mass is no density to compare")
        return p.log_prob(z.float().to(evidence.x.device)).cpu().double().numpy()


# -------------------------------------------------------------------------------- against items


def generated(evidence: Evidence, n: int, *, noisy: bool, stream: int = 30) -> Tensor:
    """Samples as the model makes them, flat, ``(n, D)``; with the noise of p(x | z) where it is known.

    Codes come of the random numbers of ``stream``, and noise of the next.
    """
    assert evidence.chart.source is not None
    chart, made = evidence.chart, []
    z = evidence.sampled(n, prior=False, stream=stream).to(evidence.x.device)
    rows = torch.arange(len(z)) % len(evidence)
    noise = evidence.noise(stream + 1)
    with torch.no_grad():
        for b in chart.blocks(len(z)):
            c = evidence.conditions(rows[b])
            x = chart.observe(z[b], noise, *c) if noisy and chart.observe else chart.decode(z[b], *c)
            made.append(x.flatten(1).cpu())
    return torch.cat(made)


def features(*sets: Tensor) -> list[np.ndarray]:
    """Principal components of all of them together, at most 50, so that none is favored."""
    pooled = torch.cat(sets)
    center = pooled.mean(0)
    if pooled.shape[1] > FEATURES:
        chosen = pooled[torch.linspace(0, len(pooled) - 1, min(len(pooled), 3_000)).long()] - center
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            axes = torch.svd_lowrank(chosen, q=min(FEATURES + 10, *chosen.shape), niter=2)[2][:, :FEATURES]
        return [((x - center) @ axes).numpy() for x in sets]
    return [(x - center).numpy() for x in sets]


@check(
    "coverage",
    "Do samples cover the data?",
    ok=0.95,
    fail=0.7,
    unit="of the items that other items cover",
    says={
        "ok": "Samples cover {value:.0%} of what other items cover. How real each looks is another matter: a "
        "classifier tells samples from items in {told:.0%} of cases (50 % is chance).",
        "warn": "Samples cover only {value:.0%} of what other items cover. A classifier tells samples from "
        "items in {told:.0%} of cases (50 % is chance).",
        "fail": "Samples miss much of the data: they cover {value:.0%} of what other items cover. A "
        "classifier tells samples from items in {told:.0%} of cases (50 % is chance).",
    },
    remedies=("fit-density", "more-capacity", "longer-training"),
    reference="Naeem et al. 2020, arXiv:2002.09797; Lopez-Paz and Oquab 2017, arXiv:1610.06545",
    needs=("source",),
)
def _coverage(evidence: Evidence) -> Reading:
    """Count items with a sample nearer than their fifth neighbor, against those with another item there."""
    n = min(COVERED, len(evidence) // 2)
    if n < FEWEST_COVERED:
        return Reading(None, because=f"{len(evidence)} items are too few to see what is covered")
    made = generated(evidence, n, noisy=True)
    real, other, made_ = features(evidence.flat[:n], evidence.flat[n : 2 * n], made)
    # The nearest of all is the item itself.
    radius = nearest(real, real, K + 1)[0][:, -1]
    by_samples, by_items = (nearest(real, points, 1)[0][:, 0] <= radius for points in (made_, other))
    missed = np.flatnonzero(by_items & ~by_samples)
    density = _density(made_, real, radius) / max(1e-9, _density(other, real, radius))
    told = _told_apart(real, made_, evidence.random(32))
    return of_ratio(
        by_samples.astype(float),
        by_items.astype(float),
        wider=WIDER,
        rows=missed[np.argsort(radius[missed])][:20],
        also={
            "coverage": float(by_samples.mean()),
            "coverage_null": float(by_items.mean()),
            "density": density,
            "told": told,
            "told_null": _told_apart(real, other, evidence.random(32)),
            "plane": np.concatenate([real[:300, :2], made_[:300, :2]]),
        },
    )


def _density(points: np.ndarray, real: np.ndarray, radius: np.ndarray) -> float:
    """How many neighborhoods of items a point lies in, over k."""
    exactly = "donot_use_mm_for_euclid_dist"  # as the radius is, which is 0 among copies
    a, b = torch.from_numpy(points).double(), torch.from_numpy(real).double()
    distance = torch.cdist(a, b, compute_mode=exactly).numpy()
    return float((distance <= radius).sum(1).mean() / K)


def _told_apart(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> float:
    """Accuracy of the better of two classifiers, on the half that it was not trained on."""
    from sklearn.linear_model import LogisticRegression

    X = np.concatenate([a, b])
    X = (X - X.mean(0)) / X.std(0).clip(1e-9)
    y = np.repeat([0, 1], [len(a), len(b)])
    order = random.permutation(len(X))
    train, test = order[::2], order[1::2]
    votes = y[train][nearest(X[test], X[train], K)[1]].mean(1) > 0.5
    squared = np.concatenate([X, X**2], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = LogisticRegression(C=0.1, max_iter=50).fit(squared[train], y[train])
    return max(float((votes == y[test]).mean()), float(linear.score(squared[test], y[test])))


@check(
    "copying",
    "Are training items copied?",
    ok=0.02,
    fail=0.03,
    unit="of samples as close to a training item as 1 % of held-out items are",
    says={
        "ok": "No copies: {tail:.1%} of samples are as close to a training item as the closest 1 % of "
        "held-out items are.",
        "warn": "Perhaps copies: {tail:.1%} of samples are as close to a training item as the closest 1 % of "
        "held-out items are. {shift:.0%} are closer to one than chance has it.",
        "fail": "Training items are copied: {tail:.1%} of samples are as close to one as the closest 1 % of "
        "held-out items are. {shift:.0%} are closer to one than chance has it.",
    },
    remedies=("deduplicate", "contractive"),
    reference="Meehan et al. 2020, arXiv:2004.05675; Yale et al. 2020, doi:10.1016/j.neucom.2019.12.136",
    needs=("train", "source"),
)
def _copying(evidence: Evidence) -> Reading:
    """Compare distances to the nearest training item, of samples and of held-out items.

    Samples that are close to training items and no closer to them than to held-out ones are merely alike: of
    all that are nearer to a training item, only what chance does not explain counts.

    Decoded points are smoother than items. So that this counts for nothing, a sample gets the residual
    x − D(z), z ~ q(z | x), of a held-out item with a near code, but where residuals of training items with
    near codes are much smaller, one of their size: noise where the model has learned, and none where it
    remembers.
    """
    from scipy.stats import betabinom, mannwhitneyu

    assert evidence.train is not None
    chart, n = evidence.chart, min(COMPARED, len(evidence))
    size = len(evidence.train)
    if n < FEWEST_COMPARED or size < FEWEST_COMPARED:
        return Reading(None, because="items are too few to tell copies from near items")
    x, c = evidence.train, evidence.c_train
    codes = chart.drawn(x, evidence.noise(34), c)
    train, held = x.flatten(1).cpu(), evidence.flat[:n]
    own = evidence.drawn[:n]
    c_own = None if evidence.c is None else evidence.c[:n]
    noise = held - chart.decoded(own.to(evidence.x.device), c_own).flatten(1).cpu()
    left = train - chart.decoded(codes, c).flatten(1).cpu()
    z = evidence.sampled(n, prior=False, stream=30)[:n]
    by_train, by_test = (nearest(z, v, NEAR)[1] for v in (codes, own))
    ratio = left.square().sum(1)[by_train].mean(1) / noise.square().sum(1)[by_test].mean(1).clamp_min(1e-30)
    scale = torch.where(ratio < REMEMBERED**2, ratio.sqrt(), 1.0)[:, None]
    donor = by_test[np.arange(len(z)), evidence.random(33).integers(by_test.shape[1], size=len(z))]
    made = generated(evidence, n, noisy=False)[:n] + scale * noise[donor]
    known, test, samples = features(train, held, made)
    to_test = nearest(test, known, 1)[0][:, 0]
    distance, which = (found[:, 0] for found in nearest(samples, known, 1))
    least = max(1, round(LEFT_TAIL * n))
    edge = np.sort(to_test)[least - 1]
    hits, m = int((distance <= edge).sum()), len(distance)
    tail = hits / m
    # Below the r-th of n: Beta(r, n − r + 1), so that hits are beta-binomial.
    p_tail = float(betabinom.sf(hits - 1, m, least, n - least + 1))
    ranks = mannwhitneyu(distance, to_test, alternative="less")
    z_ranks = (float(ranks.statistic) - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)
    # Samples that are merely alike are as near to held-out items, but for the one whose residual they have.
    held_distance, held_which = nearest(samples, test, 2)
    held_distance = np.where(held_which[:, 0] == donor, held_distance[:, 1], held_distance[:, 0])
    nearer, by_chance = distance < held_distance, size / (size + n - 1)
    shift, shift_low, shift_high, p_shift = _excess(int(nearer.sum()), m, by_chance)
    close = np.minimum(distance, held_distance) <= edge  # to either, so that neither is favored
    among, among_low, _, p_among = _excess(int(nearer[close].sum()), int(close.sum()), by_chance)
    either = float(close.mean())
    factor = math.exp(Z * math.sqrt(1 / (hits + 0.5) + 1 / least))
    value = min(tail, LEFT_TAIL + among * either)
    interval = (min(tail / factor, LEFT_TAIL + among_low * either), max(value, 0.5 / n) * factor)
    if z_ranks < -3 and shift_low > SHIFT and shift > value:
        value, interval = shift, (shift_low, shift_high)
    worst = np.argsort(distance)[:20]
    return Reading(
        value,
        interval,
        p_value=min(1.0, 2 * min(max(p_tail, p_among), max(float(ranks.pvalue), p_shift))),
        also={
            "tail": tail,
            "shift": shift,
            "z": z_ranks,
            "copied": evidence.index_train[which[worst]],
            "distances": np.sort(distance)[:: max(1, n // 200)],
            "distances_test": np.sort(to_test)[:: max(1, n // 200)],
        },
    )


def _excess(nearer: int, n: int, by_chance: float) -> tuple[float, float, float, float]:
    """Share of copies that explains how many samples are nearer to a training item than to a held-out one.

    With its interval, and the p-value of no copies.
    """
    from scipy.stats import binom

    share = of_share(nearer, n)
    if share.value is None or share.interval is None:
        return 0.0, 0.0, 1.0, 1.0
    value, low, high = (max(0.0, (v - by_chance) / (1 - by_chance)) for v in (share.value, *share.interval))
    return value, low, high, float(binom.sf(nearer - 1, n, by_chance))
