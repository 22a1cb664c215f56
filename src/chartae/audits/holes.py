"""Where nothing was seen: samples, and straight paths between codes, that leave codes and items."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import LEVEL, Reading, check, of_mean, of_share
from chartae.core.errors import DataError
from chartae.geometry.neighbors import nearest

__all__: list[str] = []  # the checks are in the registry

NEIGHBOR = 5  # how far the fifth nearest is
BEYOND = 0.99  # share of held-out codes that count as near
STEPS = 9  # points of a path, between its ends
PATHS = 200
FEWEST = 100  # held-out codes below which their last hundredth is nothing
SHOWN = 20


class _Near(NamedTuple):
    """How far is too far, from a set of points: a quantile of held-out rows, with its 98 % interval."""

    points: np.ndarray
    radius: float
    low: float
    high: float
    slack: float  # share that may lie beyond ``high`` more than beyond the quantile, where no row is so far

    def away(self, rows: Tensor) -> np.ndarray:
        """Distance to the fifth nearest, ``(n,)``."""
        return nearest(rows, self.points, NEIGHBOR)[0][:, -1]


def _near(points: Tensor, held_out: Tensor) -> _Near:
    from scipy.stats import binom

    if len(held_out) < FEWEST:
        raise DataError(f"what is near takes {FEWEST} held-out codes to say, and there are {len(held_out)}")
    near = _Near(points.double().numpy(), 0.0, 0.0, 0.0, 0.0)
    away = np.sort(near.away(held_out))
    n = len(away)
    # Order statistics between which the quantile lies. None may be above it for certain: the share beyond the
    # largest of n is at most 1 − .01^(1/n), with 99 % confidence.
    low, high = (int(binom.ppf(level, n, BEYOND)) for level in (LEVEL, 1 - LEVEL))
    return near._replace(
        radius=float(np.quantile(away, BEYOND)),
        low=float(away[max(low - 1, 0)]),
        high=float(away[min(high, n - 1)]),
        slack=max(BEYOND - LEVEL ** (1 / n), 0.0) if high >= n else 0.0,
    )


def _share(away: np.ndarray, near: _Near) -> Reading:
    """Read the share of rows that are too far, given that how far that is was estimated."""
    value, lower, upper = (
        of_share(int((away > radius).sum()), len(away)) for radius in (near.radius, near.high, near.low)
    )
    return _joined(value, lower, upper, near.slack)


def _joined(value: Reading, lower: Reading, upper: Reading, slack: float) -> Reading:
    """Join two errors: of the share, and of how far is too far (``lower``, ``upper`` are read with its ends).

    Half-lengths add as squares, since both are independent.
    """
    if value.value is None or value.interval is None or lower.value is None or upper.value is None:
        return value
    below = math.hypot(value.value - value.interval[0], value.value - lower.value + slack)
    above = math.hypot(value.interval[1] - value.value, upper.value - value.value)
    return Reading(value.value, (max(value.value - below, 0.0), min(value.value + above, 1.0)))


def _near_codes(evidence: Evidence) -> _Near:
    rows, most = evidence.budget.rows, evidence.budget.neighbors
    return _near(evidence.support[:rows], evidence.queries[:most])


def _seen(evidence: Evidence) -> tuple[Tensor, slice]:
    """Items to compare decoded codes with, and the others, whose decoded codes say what is near."""
    most = evidence.budget.neighbors
    if evidence.train is not None:
        return evidence.train[:most].flatten(1).cpu(), slice(min(len(evidence), most))
    half = len(evidence) // 2
    return evidence.flat[half:][:most], slice(min(half, most))


def _decode(evidence: Evidence, z: Tensor, rows: Tensor) -> Tensor:
    c = None if evidence.c is None else evidence.c[rows]
    return evidence.chart.decoded(z.to(evidence.x.device), c).flatten(1).cpu()


def _near_items(evidence: Evidence) -> _Near:
    seen, rows = _seen(evidence)
    index = torch.arange(len(evidence))[rows]
    return _near(seen, _decode(evidence, evidence.drawn[rows], index))


def _samples(evidence: Evidence) -> Tensor:
    return evidence.sampled(evidence.budget.neighbors, prior=False, stream=51)


# ------------------------------------------------------------------------------------------ samples


@check(
    "prior-holes",
    "Do random codes fall where codes of items are?",
    ok=0.03,
    fail=0.10,
    unit="of random codes",
    says={
        "ok": "Random codes fall where codes of items are: {value:.1%} lie further from all of them than 99 "
        "% of held-out codes (1 % is perfect).",
        "warn": "{value:.1%} of random codes lie where no item has its code (1 % is perfect).",
        "fail": "{value:.1%} of random codes fall into holes, where no item has its code and the decoder has "
        "never been trained (1 % is perfect): samples from there mean nothing.",
    },
    remedies=("fit-density", "variational"),
    reference="Dai and Wipf 2019, arXiv:1903.05789",
    needs=("source",),
)
def _prior_holes(evidence: Evidence) -> Reading:
    """Share of sampled codes that are further from draws of q(z | x) than 99 % of held-out draws."""
    near, z = _near_codes(evidence), _samples(evidence)
    away = near.away(z)
    found = _share(away, near)
    worst = np.argsort(-away)[: min(SHOWN, int((away > near.radius).sum()))]
    return Reading(
        found.value, found.interval, codes=z.numpy()[worst], also={"radius": near.radius, "away": away[worst]}
    )


@check(
    "sample-holes",
    "Do samples look like items?",
    ok=0.03,
    fail=0.10,
    unit="of samples",
    says={
        "ok": "Samples lie as near to real items as reconstructions do: {value:.1%} of them are further than "
        "99 % of reconstructions (1 % is perfect).",
        "warn": "{value:.1%} of samples are further from all real items than reconstructions are (1 % is "
        "perfect).",
        "fail": "{value:.1%} of samples are far from all real items, further than 99 % of reconstructions (1 "
        "% is perfect).",
    },
    remedies=("fit-density", "variational"),
    reference="Dai and Wipf 2019, arXiv:1903.05789",
    needs=("source",),
)
def _sample_holes(evidence: Evidence) -> Reading:
    """The same of D(z), from items, against D(q(z | x)) of held-out items."""
    near, z = _near_items(evidence), _samples(evidence)
    away = near.away(_decode(evidence, z, torch.arange(len(z)) % len(evidence)))
    found = _share(away, near)
    worst = np.argsort(-away)[: min(SHOWN, int((away > near.radius).sum()))]
    return Reading(
        found.value, found.interval, codes=z.numpy()[worst], also={"radius": near.radius, "away": away[worst]}
    )


# ------------------------------------------------------------------------------------------ paths


def _paths(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Straight paths between pairs of held-out codes, ``(paths, STEPS, d)``, and where they begin."""
    rows = len(evidence) // 2 if evidence.train is None else len(evidence)
    n = min(PATHS, rows // 2)
    first = torch.arange(n)
    start, end = evidence.drawn[:n], evidence.drawn[n : 2 * n]
    t = torch.linspace(0, 1, STEPS + 2)[1:-1, None]
    straight = start[:, None] * (1 - t) + end[:, None] * t
    return torch.from_numpy(evidence.chart.placed(straight.numpy())), first


def _walked(away: np.ndarray, near: _Near, z: Tensor) -> Reading:
    """Read the mean share of a path that is too far; paths are independent of each other."""
    away = away.reshape(len(z), STEPS)
    value, lower, upper = (of_mean((away > radius).mean(1)) for radius in (near.radius, near.high, near.low))
    found = _joined(value, lower, upper, near.slack)
    if found.value == 0:  # a mean of zeros has no length; a share has
        found = of_share(0, len(z))
    worst = np.argsort(-away.max(1))[:SHOWN]
    return Reading(
        found.value,
        found.interval,
        codes=z.numpy()[worst, away[worst].argmax(1)],
        also={
            "radius": near.radius,
            "crossing": float((away > near.radius).any(1).mean()),
            "along": (away > near.radius).mean(0),
        },
    )


@check(
    "interpolation",
    "Do straight lines between codes stay where codes are?",
    ok=0.05,
    fail=0.20,
    unit="of straight lines between codes",
    says={
        "ok": "Straight lines between codes stay where codes are, but for {value:.1%} of their length.",
        "warn": "{value:.1%} of straight lines between codes pass where no item has its code; {crossing:.0%} "
        "of the lines do somewhere.",
        "fail": "{value:.1%} of straight lines between codes pass where no item has its code; {crossing:.0%} "
        "of the lines do somewhere: what is decoded there is a guess.",
    },
    remedies=("geodesic-paths", "variational"),
    reference="Arvanitidis et al. 2018, arXiv:1710.11379",
)
def _interpolation(evidence: Evidence) -> Reading:
    """Share of straight paths between held-out codes that is further from codes than 99 % of these."""
    near, (z, _) = _near_codes(evidence), _paths(evidence)
    return _walked(near.away(z.flatten(0, 1)), near, z)


@check(
    "interpolated-items",
    "Do straight lines between codes decode to what is like items?",
    ok=0.05,
    fail=0.20,
    unit="of straight lines between codes",
    says={
        "ok": "What straight lines between codes decode to is like items, but for {value:.1%} of their "
        "length.",
        "warn": "{value:.1%} of what straight lines between codes decode to is unlike all items; "
        "{crossing:.0%} of the lines leave the data somewhere.",
        "fail": "{value:.1%} of what straight lines between codes decode to is unlike all items; "
        "{crossing:.0%} of the lines leave the data somewhere.",
    },
    remedies=("geodesic-paths", "variational"),
    reference="Arvanitidis et al. 2018, arXiv:1710.11379",
)
def _interpolated_items(evidence: Evidence) -> Reading:
    """The same of D(path), from items, against D(q(z | x)) of held-out items."""
    near, (z, first) = _near_items(evidence), _paths(evidence)
    x = _decode(evidence, z.flatten(0, 1), first.repeat_interleave(STEPS))
    return _walked(near.away(x), near, z)
