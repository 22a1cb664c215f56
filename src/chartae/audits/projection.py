"""Is D∘E a projection onto the data? What it loses, and what it does with noise."""

from __future__ import annotations

import torch

from chartae.audits.evidence import Evidence
from chartae.audits.findings import Reading, check, of_ratio

__all__: list[str] = []  # the checks are in the registry

NOISE = 0.1  # of the size of a typical residual


@check(
    "denoising",
    "Is noise removed?",
    ok=1.3,
    fail=3.0,
    unit="of what a projection onto the data would let through",
    says={
        "ok": "Noise that is added to an item is mostly gone after encoding and decoding: {value:.2g} times "
        "what a projection onto the data's {dimension:.1f} dimensions would let through.",
        "warn": "Some noise passes through: {value:.2g} times what a projection onto the data would let by.",
        "fail": "Noise passes through: {value:.2g} times what a projection onto the data would let by.",
    },
    remedies=("denoising", "contractive"),
    reference="Alain and Bengio 2014, arXiv:1211.4246",
)
def _denoising(evidence: Evidence) -> Reading:
    """Compare the noise gain G = E|P(x + sε) − P(x)|² / (s²D) with d_I / D."""
    dimension = evidence.dimension
    if dimension.verdict != "ok":
        return Reading(None, because="the dimension of the data depends on the scale at which one looks")
    if evidence.features < 3 * dimension.dimension:
        return Reading(None, because="items have few values beyond the dimension of the data")
    m = min(len(evidence), evidence.budget.neighbors)
    x, c = evidence.x[:m], None if evidence.c is None else evidence.c[:m]
    s = NOISE * float(evidence.residuals[:m].square().mean().sqrt())
    if s == 0:
        s = NOISE * float(evidence.flat.std())
    noisy = x + s * evidence.noise(10).normal(x.shape, x)
    moved = (evidence.chart.projected(noisy, c).flatten(1).cpu() - evidence.p[:m]).square().sum(1)
    return of_ratio(
        moved, torch.full_like(moved, s**2 * dimension.dimension), also={"dimension": dimension.dimension}
    )


@check(
    "missed",
    "Is what reconstruction loses part of the data?",
    ok=0.15,
    fail=0.4,
    says={
        "ok": "What reconstructions lose stands off the data ({value:.0%} of it lies along them).",
        "warn": "{value:.0%} of what reconstructions lose lies along the data: some real variation is lost.",
        "fail": "{value:.0%} of what reconstructions lose lies along the data: real variation is lost.",
    },
    remedies=("more-dimensions", "more-capacity"),
    reference="Arvanitidis et al. 2018, arXiv:1710.11379",
)
def _missed(evidence: Evidence) -> Reading:
    """Measure the tangential share of the residual, τ = E|Tᵀr|² / E|r|²."""
    return Reading(None, because="tangents are not estimated yet")
