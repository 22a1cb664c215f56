"""What codes and their standard deviations are good for."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import Reading, check, of_mean, of_ratio
from chartae.audits.prior import Z
from chartae.core.contracts import Distribution
from chartae.core.noise import Noise
from chartae.density.refining import DRAWS, REFINABLE, Normal, log_weights, refined
from chartae.geometry.charts import Chart, rows_of
from chartae.parts.distributions import Chain, FullNormal
from chartae.transfer import labeled

__all__: list[str] = []  # the checks are in the registry

PROBED = 4_000  # items that probes see, at most
FEWEST_PROBED = 100  # that they are tested on
NEIGHBORS = 10
SIMULATED = 2_000  # items that are made with known codes
FEWEST_SPREAD = 50
STEPS = 100  # of refining a posterior
JUDGED = 8  # times that two draws are what an ELBO is the mean of


@check(
    "probe",
    "Can labels be read from the codes?",
    ok=0.97,
    fail=0.9,
    unit="of the accuracy without the model",
    says={
        "ok": "Labels are read from codes as well as from items: {accuracy:.1%} right, against {raw:.1%} "
        "from items themselves and {pca:.1%} from as many principal components.",
        "warn": "Labels are read from codes a little worse than without them: {accuracy:.1%} right, against "
        "{raw:.1%} from items themselves and {pca:.1%} from as many principal components.",
        "fail": "Codes lose what labels depend on: {accuracy:.1%} right, against {raw:.1%} from items "
        "themselves and {pca:.1%} from as many principal components.",
    },
    remedies=("more-dimensions", "lower-beta", "more-capacity"),
    reference="Alain and Bengio 2017, arXiv:1610.01644",
    needs=("labels",),
)
def _probe(evidence: Evidence) -> Reading:
    """Compare probes of codes with probes of items and of principal components.

    Each is the better of a linear probe and one of neighbors.
    """
    assert evidence.labels is not None
    # Of both at once: -1 is a label in the one if it is in the other.
    parts = [part for part in (evidence.labels, evidence.labels_train) if part is not None]
    known, known_train = np.split(labeled(np.concatenate(parts)), [len(evidence)])
    training = known_train.sum() >= FEWEST_PROBED
    rows = np.flatnonzero(known)
    if evidence.c is not None:
        conditions = evidence.c.detach().flatten(1).cpu().numpy()[rows]
        told = np.unique(conditions, axis=0, return_inverse=True)[1].ravel().tolist()
        kinds, pairs = len(set(told)), len(set(zip(told, evidence.labels[rows].tolist(), strict=True)))
        if kinds == pairs < len(rows) / 2:
            return Reading(
                None, because="the model is told these labels, so that its codes need not hold them"
            )
    rows = rows[:PROBED]
    X, Z_, y = evidence.flat[rows].numpy(), evidence.z[rows].numpy(), evidence.labels[rows]
    if training:
        assert evidence.train is not None
        assert evidence.labels_train is not None
        learned = np.flatnonzero(known_train)[: PROBED // 2]
        x = evidence.train[torch.from_numpy(learned)]
        c = None if evidence.c_train is None else evidence.c_train[torch.from_numpy(learned)]
        held = min(len(rows), PROBED // 2)
        X, y = (
            np.concatenate([x.flatten(1).cpu().numpy(), X[:held]]),
            np.concatenate([evidence.labels_train[learned], y[:held]]),
        )
        Z_ = np.concatenate([evidence.chart.codes(x, c).cpu().numpy(), Z_[:held]])
        cut = len(learned)
    else:
        cut = len(rows) // 2
    classes, y = np.unique(y, return_inverse=True)
    if len(y) - cut < FEWEST_PROBED or cut < FEWEST_PROBED:
        return Reading(None, because="items with a label are too few for a probe")
    if len(classes) < 2 or len(classes) > cut / 5:
        return Reading(None, because=f"{len(classes)} different labels are no classes to tell apart")
    seen = {"codes": Z_, "pca": _components(X, evidence.d, cut), "raw": X}
    right = {name: _probed(F, y, cut) for name, F in seen.items()}
    accuracy = {name: float(hits.mean()) for name, hits in right.items()}
    reference = max("raw", "pca", key=lambda name: accuracy[name])
    guess = np.bincount(y[cut:]).max() / (len(y) - cut)
    if accuracy[reference] < guess + 3 * math.sqrt(guess * (1 - guess) / (len(y) - cut)):
        return Reading(None, because="labels cannot be read from the items themselves")
    also = {"accuracy": accuracy["codes"], "raw": accuracy["raw"], "pca": accuracy["pca"], "guess": guess}
    lost = np.flatnonzero(right[reference] & ~right["codes"])[:20]
    return of_ratio(
        right["codes"].astype(float),
        right[reference].astype(float),
        rows=rows[lost if training else lost + cut],
        also=also,
    )


def _components(X: np.ndarray, d: int, cut: int) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(X))
    center = x[:cut].mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        axes = torch.svd_lowrank(x[:cut] - center, q=min(d + 6, cut, x.shape[1]), niter=2)[2][:, :d]
    return ((x - center) @ axes).numpy()


def _probed(X: np.ndarray, y: np.ndarray, cut: int) -> np.ndarray:
    """Which of the rows from ``cut`` on the better of two probes gets right, ``(m,)`` of bool."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier

    X = X - X[:cut].mean(0)
    X = X / max(1e-12, float(X[:cut].std()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probes = (RidgeClassifier(alpha=1.0), KNeighborsClassifier(min(NEIGHBORS, cut), algorithm="brute"))
        hits = [probe.fit(X[:cut], y[:cut]).predict(X[cut:]) == y[cut:] for probe in probes]
    return max(hits, key=lambda h: h.mean())


# ----------------------------------------------------------------------------------- uncertainty


@check(
    "sigma",
    "Is the uncertainty of a code right?",
    ok=1.25,
    fail=2.0,
    unit="times too sure, or too unsure, in variance",
    says={
        "ok": "Standard deviations of codes are right: of items made from known codes, {covered:.0%} lie "
        "within their 90 % intervals{note}.",
        "warn": "Standard deviations of codes are somewhat off: variances by {value:.2g}, {side}. Of items "
        "made from known codes, {covered:.0%} lie within their 90 % intervals{note}.",
        "fail": "Do not trust the standard deviations of codes: variances are off by {value:.2g}, {side}. Of "
        "items made from known codes, {covered:.0%} lie within their 90 % intervals{note}.",
    },
    remedies=("unit-beta", "asleep", "full-covariance", "use-the-mean"),
    reference="Talts et al. 2018, arXiv:1804.06788; Lemos et al. 2023, arXiv:2302.03026",
    needs=("posterior", "observe", "prior"),
)
def _sigma(evidence: Evidence) -> Reading:
    """Make items from codes of the prior, and see how far off their codes are: ζ² = E ((z − μ)/σ)²."""
    chart = evidence.chart
    assert chart.observe is not None
    assert chart.posterior is not None
    used = evidence.active
    if not used.any():
        return Reading(None, because="no latent dimension is used")
    z = evidence.sampled(min(SIMULATED, 20 * len(evidence)), prior=True, stream=41).to(evidence.x.device)
    if len(evidence) < FEWEST_SPREAD:
        return Reading(None, because="items are too few to know which dimensions are used")
    noise, zeta, whole = evidence.noise(42), [], False
    rows = torch.arange(len(z)) % len(evidence)
    with torch.no_grad():
        for b in chart.blocks(len(z)):
            c = evidence.conditions(rows[b])
            q = chart.posterior(chart.observe(z[b], noise, *c), *c)
            whole = isinstance(q, FullNormal)
            zeta.append(_standardized(q, z[b]).cpu().double())
    off = torch.cat(zeta).numpy()[:, used]
    squares = off**2
    mean, error = squares.mean(0), squares.std(0, ddof=1) / math.sqrt(len(squares))
    factor = np.exp(np.abs(np.log(mean)))
    worst = int(factor.argmax())
    half = _bonferroni(len(mean)) * error[worst] / mean[worst]
    value = float(factor[worst])
    zeta2 = np.full(evidence.d, np.nan)
    zeta2[used] = mean
    covered = (np.abs(off) < 1.6448536).mean(0)
    return Reading(
        value,
        (max(1.0, value * math.exp(-half)), value * math.exp(half)),
        also={
            "zeta2": zeta2,
            "coverage": covered,
            "covered": float(covered[worst]),
            "side": "too small" if mean[worst] > 1 else "too large",
            "note": " (after whitening by each code's covariance)" if whole else "",
        },
    )


def _standardized(q: Distribution, z: Tensor) -> Tensor:
    """How many standard deviations codes are off, ``(n, d)``: each of what those before leave open."""
    if isinstance(q, Chain):  # whose deviations are those of a part, given the part before
        return q.standardized(z)
    if isinstance(q, FullNormal):
        return torch.linalg.solve_triangular(q.scale_tril, (z - q.mean).unsqueeze(-1), upper=False)[..., 0]
    mean, std = q.moments()
    return (z - mean) / std


def _bonferroni(k: int) -> float:
    from scipy.stats import norm

    return float(norm.isf(0.01 / k)) if k > 1 else Z


@check(
    "amortization",
    "Does the encoder find the best code of each item?",
    ok=0.25,
    fail=4.0,
    unit="squared standard deviations of a code",
    says={
        "ok": "The encoder finds the codes of items: its means are {off:.2g} standard deviations{note} from "
        "those of the best q(z | x) that an item could have, and {nats:.2g} nats of its ELBO are lost.",
        "warn": "The encoder misses the codes of items somewhat: its means are {off:.2g} standard "
        "deviations{note} from those of the best q(z | x) that an item could have, and {nats:.2g} nats of "
        "its ELBO are lost.",
        "fail": "The encoder misses the codes of items: its means are {off:.2g} standard deviations{note} "
        "from those of the best q(z | x) that an item could have, and {nats:.2g} nats of its ELBO are lost.",
    },
    remedies=("unit-beta", "refine", "longer-training", "more-data"),
    reference="Cremer, Li and Duvenaud 2018, arXiv:1801.03558",
    needs=("posterior", "likelihood", "prior"),
)
def _amortization(evidence: Evidence) -> Reading:
    """Go on from q(z | x) of each item by itself, uphill on the ELBO: ((μ − μ*) / σ*)², and nats gained.

    Where p(z | x) has several peaks, the nearest is found: codes may be farther off than they seem.
    """
    used, m = evidence.active, evidence.budget.points // 4
    if not used.any():
        return Reading(None, because="no latent dimension is used")
    if len(evidence) < FEWEST_SPREAD:
        return Reading(None, because="items are too few to know which dimensions are used")
    with torch.no_grad():
        q = evidence.chart.q(evidence.x[:1], *evidence.conditions(slice(1)))
    if type(q) not in REFINABLE:
        return Reading(None, because="q(z | x) is no normal distribution")
    off, nats = _off(evidence, evidence.x[:m], evidence.c)
    nats_lost = max(0.0, float(nats.mean()))
    also = {"off": math.sqrt(off[:, used].mean()), "nats": nats_lost, "trained": None, "note": ""}
    if evidence.train is not None:
        trained = float(_off(evidence, evidence.train[: m // 2], evidence.c_train)[0][:, used].mean())
        note = f" ({math.sqrt(trained):.2g} where it was trained)"
        also |= {"trained": trained, "note": note}
    each = off[:, used].mean(1)
    return of_mean(each, rows=np.argsort(-each)[:20], also=also)


def _off(evidence: Evidence, x: Tensor, c: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """Squared standardized distances of codes from the best, ``(n, d)``, and the ELBO gained, ``(n,)``."""
    chart, noise = evidence.chart, evidence.noise(43)
    found = [_off_block(chart, noise, x[b], *rows_of(c, b)) for b in chart.blocks(len(x), DRAWS)]
    off, nats = (np.concatenate(part) for part in zip(*found, strict=True))
    return off, nats


def _off_block(chart: Chart, noise: Noise, x: Tensor, *c: Tensor) -> tuple[np.ndarray, np.ndarray]:
    assert chart.prior is not None
    with torch.no_grad():
        q, p = chart.q(x, *c), chart.prior(*c or (None,))
    assert isinstance(q, REFINABLE)

    def log_likelihood(z: Tensor) -> Tensor:
        repeated = [v.repeat(len(z), *[1] * (v.dim() - 1)) for v in (x, *c)]
        fits = chart.likelihood(repeated[0], z.flatten(0, 1), *repeated[1:])  # type: ignore[misc]
        return fits.reshape(z.shape[:2])

    def elbo(q: Normal) -> Tensor:
        same = Noise(0)  # for both, or chance would make most of the difference
        draws = [q.draw(DRAWS, same).z for _ in range(JUDGED)]
        return torch.stack([log_weights(q, p, log_likelihood, z).mean(0) for z in draws]).mean(0)

    best = refined(q, p, log_likelihood, noise, steps=STEPS)
    with torch.no_grad():
        off, nats = _standardized(best, q.mean).square(), elbo(best) - elbo(q)
    return off.cpu().double().numpy(), nats.cpu().double().numpy()


@check(
    "sigma-informative",
    "Does the uncertainty of a code depend on the item?",
    ok=0.05,
    fail=0.0,
    unit="of its mean, as standard deviation over items",
    says={
        "ok": "Standard deviations of codes vary by {value:.0%} from item to item: they say which codes are "
        "less sure.",
        "warn": "σ carries no information about the item: it varies by {value:.1%} only.",
        "fail": "σ carries no information about the item.",
    },
    remedies=("use-the-mean",),
    reference="Kirchhof et al. 2023, arXiv:2307.03810",
    needs=("posterior",),
)
def _sigma_informative(evidence: Evidence) -> Reading:
    """Take the coefficient of variation of σ over items, in the dimension in use where it is largest."""
    m, used = evidence.spread_rows, evidence.active
    if not used.any():
        return Reading(None, because="no latent dimension is used")
    if m < FEWEST_SPREAD:
        return Reading(None, because="items are too few to see how uncertainty varies")
    std = evidence.moments(m)[1][:, used]
    mean, spread = std.mean(0), std.std(0)
    cv = spread / mean
    top = int(cv.argmax())
    value, half = float(cv[top]), 0.0
    if spread[top] > 1e-9 * mean[top]:
        gap, s, a = std[:, top] - mean[top], spread[top], mean[top]
        slope = (gap**2 - s**2) / (2 * s * a) - s * gap / a**2  # what each row adds
        half = _bonferroni(len(cv)) * float(slope.std()) / math.sqrt(m)
    every = np.full(evidence.d, np.nan)
    every[used] = cv
    if value - half < 0.05 < value + half:
        return Reading(None, because=f"σ varies by {value:.1%}, give or take {half:.1%}", also={"cv": every})
    # The other way: the top is the one that varies most.
    return Reading(value, (max(0.0, value - half), value + half), also={"cv": every})
