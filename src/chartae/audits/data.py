"""The dimension of the data, and whether the code has room for it."""

from __future__ import annotations

import math

from chartae.audits.evidence import Evidence
from chartae.audits.findings import Reading, check

__all__: list[str] = []  # the checks are in the registry

DENTI = "Denti et al. 2022, doi:10.1038/s41598-022-20991-1"


@check(
    "data-dimension",
    "How many dimensions do the data have?",
    ok=math.inf,
    fail=math.inf,
    unit="dimensions",
    says={"ok": "The data lie near a manifold of about {value:.1f} dimensions, in {features} values each."},
    remedies=("more-data",),
    reference=DENTI,
)
def _data_dimension(evidence: Evidence) -> Reading:
    found = evidence.dimension
    also = {"features": evidence.features, "scales": found.scales}
    if found.verdict == "ok":
        return Reading(found.dimension, found.interval, also=also)
    readings = [d for _, d, _ in found.scales]
    return Reading(
        None,
        because=f"from far to near neighbors the data's dimension goes from {min(readings):.1f} to "
        f"{max(readings):.1f}, so noise or curvature dominates at some scale, or there are too few items",
        also=also,
    )


@check(
    "latent-dimension",
    "Has the code enough dimensions?",
    ok=1.25,  # estimates err by a tenth, and by more where there is noise
    fail=1.5,
    unit="dimensions of the data for each of the code",
    says={
        "ok": "{d} latent dimensions{told} have room for the data's {low:.1f} to {high:.1f}.",
        "warn": "{d} latent dimensions{told} are hardly enough for the data's {low:.1f} to {high:.1f}.",
        "fail": "{d} latent dimensions{told} are too few for the data's {low:.1f} to {high:.1f}: different "
        "items must share codes.",
    },
    remedies=("more-dimensions",),
    reference=DENTI,
)
def _latent_dimension(evidence: Evidence) -> Reading:
    """Compare d̂, whatever the scale, with the dimensions that codes and conditions have room for."""
    (low, high), told = evidence.dimension_range, evidence.told_dimension
    room = evidence.room + told
    return Reading(
        evidence.dimension.dimension / room,
        (low / room, high / room),
        also={
            "d": evidence.room,
            "told": f" and {told:.1f} of the condition" if told else "",
            "low": low,
            "high": high,
        },
    )
