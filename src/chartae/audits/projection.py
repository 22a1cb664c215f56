"""Is D∘E a projection onto the data? What it loses, where it tears, and what it does with noise."""

from __future__ import annotations

import numpy as np
import torch

from chartae.audits.evidence import Evidence
from chartae.audits.findings import LEVEL, Reading, check, checks, of_ratio
from chartae.geometry.projection import noise_gain

__all__: list[str] = []  # the checks are in the registry

NOISE = 0.1  # of the size of a typical residual
STILL = 0.01  # of the standard deviation of the items
WORST = 16  # items that are named


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
        "warn": "The worst items are reconstructed {value:.1f} times worse than chance would have it: look "
        "at them.",
        "fail": "Some items are reconstructed {value:.1f} times worse than chance would have it: the map "
        "tears there, or they are no data.",
    },
    remedies=("more-dimensions", "more-capacity", "longer-training"),
    reference="Borsuk 1933 (a closed manifold has no chart without a tear); null by simulation",
)
def _reconstruction_tail(evidence: Evidence) -> Reading:
    """Compare q99.9|r| / median|r| with its null: normal residuals of the same covariance, as many."""
    norms = evidence.residuals.norm(dim=1).double()
    if not float(norms.median()) > 1e-6 * float(evidence.flat.std()):
        return Reading(None, because="reconstructions are exact")
    r = evidence.residuals[: evidence.budget.neighbors].double()
    r = r - r.mean(0)
    # Singular values, not a covariance: items may have more values than there are items.
    weight = torch.linalg.svdvals(r).square()
    weight = weight[weight > 1e-6 * weight[0]] / weight.sum()
    random = evidence.random(11)
    n, ratios = len(norms), []
    for _ in range(evidence.budget.draws):
        # |r|² = Σ w χ²₁, by the gamma distribution of the same mean and variance (Satterthwaite).
        shape = 0.5 / float(weight.square().sum())
        ratios.append(_tail(np.sqrt(random.gamma(shape, 1 / shape, n))))
    limit = float(np.quantile(ratios, 1 - LEVEL))
    value = _tail(norms.numpy()) / limit
    return Reading(value, rows=_worst(evidence), also={"null": limit, "norms": norms[:2000].numpy()})


def _tail(norms: np.ndarray) -> float:
    return float(np.quantile(norms, 0.999) / np.median(norms))


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
    """Compare |P(P(x)) − P(x)| with |x − P(x)|."""
    if _still(evidence):
        return Reading(None, because="all reconstructions are the same")
    m = min(len(evidence), evidence.budget.neighbors)
    again = evidence.chart.projected(
        evidence.p[:m].reshape(evidence.x[:m].shape).to(evidence.x), _c(evidence, m)
    )
    moved = (again.flatten(1).cpu() - evidence.p[:m]).norm(dim=1)
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


def _still(evidence: Evidence) -> bool:
    """Whether reconstructions hardly move with their items."""
    return float(evidence.p.std(0).norm()) < STILL * float(evidence.flat.std(0).norm())


def _c(evidence: Evidence, m: int) -> torch.Tensor | None:
    return None if evidence.c is None else evidence.c[:m]
