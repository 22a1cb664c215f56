"""How the two maps lie to the data's tangent spaces, and how far a linear step holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from chartae.audits.evidence import Evidence
from chartae.audits.findings import LEVEL, Reading, check, of_mean
from chartae.core.errors import DataError
from chartae.geometry.metrics import LONGEST, distortion, validity_radius

__all__: list[str] = []  # the checks are in the registry

FEWEST = 30  # items whose tangent space is known well enough
RIFAI = "Rifai et al. 2011, The manifold tangent classifier (NeurIPS)"


def _known(evidence: Evidence) -> np.ndarray:
    """Which of the points have a tangent space that is known, or why nothing can be told."""
    if evidence.tangents.dimension >= evidence.features:
        raise DataError("the data fill all of their values, so that nothing leads off them")
    reliable = evidence.tangents.reliable
    if reliable.sum() < FEWEST:
        raise DataError(
            f"the tangent spaces of the data are known at {reliable.sum()} of {len(reliable)} items: "
            "there is noise, or there are too few neighbors"
        )
    return np.flatnonzero(reliable)


@check(
    "retention",
    "Do codes follow every change of the data?",
    ok=0.9,
    fail=0.5,
    unit="of a small step along the data is kept",
    says={
        "ok": "A small step along the data is kept by encoding and decoding ({kept:.0%} of it).",
        "warn": "Only {kept:.0%} of a small step along the data is kept by encoding and decoding.",
        "fail": "Only {kept:.0%} of a small step along the data is kept: codes ignore real changes.",
    },
    remedies=("more-dimensions", "lower-beta", "longer-training", "more-capacity"),
    reference=RIFAI,
    needs=("smooth", "alone"),
)
def _retention(evidence: Evidence) -> Reading:
    """Measure tr(TᵀJ_P T) / d_I."""
    rows = _known(evidence)  # before any derivative is taken
    reading = of_mean(evidence.gains.retention[rows])
    # Below 0, a step comes back as one the other way, and nothing of it is kept.
    return replace(reading, also={"kept": max(0.0, reading.value or 0.0)})


@check(
    "encoder-leakage",
    "Do codes react to changes that are no data?",
    ok=0.3,
    fail=2.0,
    unit="of the power of a step off the data",
    says={
        "ok": "Codes hardly react to changes that lead away from the data.",
        "warn": "Codes react to changes that lead away from the data: {value:.2g} of their power gets by.",
        "fail": "Codes react to changes that lead away from the data: {value:.2g} of their power gets by.",
    },
    remedies=("denoising", "contractive"),
    reference=RIFAI,
    needs=("smooth", "alone"),
)
def _encoder_leakage(evidence: Evidence) -> Reading:
    """Measure ν = (‖J_P‖² − ‖J_P T‖²) / d_I."""
    if evidence.features < 2 * evidence.tangents.dimension:
        return Reading(None, because="items have few values beyond the dimension of the data")
    rows = _known(evidence)
    return of_mean(evidence.gains.normal_gain[rows])


@check(
    "decoder-tangent",
    "Are steps in the code steps along the data?",
    ok=15.0,
    fail=35.0,
    unit="degrees",
    says={
        "ok": "A step in the code becomes a step along the data, up to {value:.0f}°.",
        "warn": "A step in the code becomes a step {value:.0f}° off the data's own directions.",
        "fail": "A step in the code becomes a step {value:.0f}° off the data's own directions: latent "
        "directions are no directions of the data.",
    },
    remedies=("longer-training", "more-capacity", "more-data"),
    reference=RIFAI,
    needs=("alone",),
)
def _decoder_tangent(evidence: Evidence) -> Reading:
    """Measure the angles of the data's tangent space to col(J_D), by the mean of their squared sines."""
    rows = _known(evidence)
    angles = evidence.gains.decoder_angles[rows]
    each = np.degrees(np.arcsin(np.sqrt((np.sin(angles) ** 2).mean(1))))
    return of_mean(
        each, rows=evidence.points[rows[np.argsort(-each)[:16]]], also={"angles": np.degrees(angles)}
    )


@check(
    "validity-radius",
    "How far does an edit of the code hold?",
    ok=0.25,
    fail=0.05,
    unit="standard deviations of the codes",
    says={
        "ok": "A linear step holds for {value:.2g} standard deviations of the codes.",
        "warn": "A linear step holds for only {value:.2g} standard deviations of the codes.",
        "fail": "A linear step holds for only {value:.2g} standard deviations of the codes: directions mean "
        "something infinitesimally, and no further.",
    },
    remedies=("longer-training", "contractive"),
    reference="Shao, Kumar and Fletcher 2018, arXiv:1711.08014",
)
def _validity_radius(evidence: Evidence) -> Reading:
    """Measure ρ: the first step at which the decoder leaves its tangent by a tenth, in the median."""
    if not evidence.used_metric.size:
        return Reading(None, because="the decoder does not react to its code")
    radii = validity_radius(
        evidence.chart,
        evidence.z[evidence.points],
        codes=evidence.z,
        condition=None if evidence.c is None else evidence.c[evidence.points],
    )
    each = np.minimum(np.median(radii.reshape(len(evidence.points), -1), axis=1), LONGEST)
    worst = evidence.points[np.argsort(each)[:16]]
    return _of_points(evidence, each, np.median, rows=worst, radii=each)


@check(
    "distortion",
    "Do distances between codes mean something?",
    ok=1.5,
    fail=3.0,
    unit="1 where the decoder stretches all directions alike",
    says={
        "ok": "The decoder stretches all directions nearly alike: distances between codes can be compared.",
        "warn": "The decoder stretches some directions or places more than others ({value:.1f}; even is 1).",
        "fail": "The decoder stretches some directions or places far more than others ({value:.1f}; even is "
        "1): distances between codes mislead.",
    },
    remedies=("metric-distances",),
    reference="Lee et al. 2022, Regularized autoencoders for isometric representation learning (ICLR)",
)
def _distortion(evidence: Evidence) -> Reading:
    """Measure d·E tr G² / (E tr G)², G = J_DᵀJ_D, over the directions that the decoder uses."""
    G = evidence.used_metric
    if not G.size:
        return Reading(None, because="the decoder does not react to its code")
    volume = 0.5 * np.linalg.slogdet(G)[1]
    # Where no unit of a decoder is alive, a code has no volume at all.
    volume = np.where(np.isfinite(volume), volume, volume[np.isfinite(volume)].min(initial=0.0))
    also = {"log_volume": volume, "log_volume_sd": float(volume.std())}
    return _of_points(evidence, G, distortion, **also)


def _of_points(
    evidence: Evidence,
    values: np.ndarray,
    statistic: Callable[..., float],
    rows: np.ndarray | None = None,
    **also: object,
) -> Reading:
    """Read a statistic of points, with its interval by resampling them."""
    random, n = evidence.random(20), len(values)
    draws = [statistic(values[random.integers(0, n, n)]) for _ in range(evidence.budget.draws)]
    value = float(statistic(values))
    low, high = np.quantile(draws, (LEVEL, 1 - LEVEL), method="nearest")
    return Reading(value, (float(low), float(high)), rows=rows, also=also)
