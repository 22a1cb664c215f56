"""The shape of codes beside that of the data: islands and loops."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import Reading, check
from chartae.audits.latent import BLUR, scale_dimension, typical
from chartae.core.errors import PlanError
from chartae.geometry.neighbors import nearest

__all__: list[str] = []  # the checks are in the registry

SCALES = (20, 30, 45)  # neighbors: an island is one at each of these scales
FEWEST = 400  # items below which islands cannot be told
SMALLEST = 10  # items of an island
DEPTH = 4.0  # standard errors of log density by which a valley lies below the lower of its peaks
RIPS = 200  # items among which loops are looked for
TRIES = 3  # choices of these
ALPHA = 0.01
CLEAR = 4.0  # death/birth of a loop that needs no others to compare with; chance makes about 2


# ------------------------------------------------------------------------------------------ islands


@check(
    "components",
    "Do codes fall into islands that the data have not?",
    ok=0.5,
    fail=0.5,
    unit="islands of codes more than of data",
    says={
        "ok": "Islands of codes: {islands}, and of the data: {islands_of_data}.",
        "warn": "Codes fall into {islands} islands, and the data only into {islands_of_data}.",
        "fail": "Codes fall into {islands} islands with empty space between, while the data form only "
        "{islands_of_data}: the map tears them apart, and what lies between codes of two islands is no data.",
    },
    remedies=("more-dimensions", "fit-density"),
    reference="Chazal et al. 2013, doi:10.1145/2535927",
)
def _components(evidence: Evidence) -> Reading:
    """Count peaks of density that are more prominent than sampling makes them, in codes and in data."""
    m = evidence.compared
    if m < FEWEST:
        return Reading(None, because=f"islands show from {FEWEST} items on, and there are {m}")
    if not evidence.near_z[0][:, SCALES[0] - 1].all() or not evidence.near_x[0][:, SCALES[0] - 1].all():
        return Reading(None, because="many codes, or many items, are the same")
    sides = []
    for dimension, near in (
        (evidence.dimension_z, evidence.near_z),
        (evidence.dimension, evidence.near_x),
    ):
        sides.append([_islands(*near, k, scale_dimension(dimension)) for k in SCALES])
    more = [int(codes.max()) - int(data.max()) for codes, data in zip(*sides, strict=True)]
    codes, data = (side[1] for side in sides)
    return Reading(
        float(more[1]),
        (float(min(more)), float(max(more))),
        also={
            "islands": int(codes.max()) + 1,
            "islands_of_data": int(data.max()) + 1,
            "labels": codes,
            "labels_of_data": data,
        },
    )


def _islands(distances: np.ndarray, neighbors: np.ndarray, k: int, d: float) -> np.ndarray:
    """Label rows by the island they are on, ``(n,)``; −1 where it is too small to be one."""
    order = np.argsort(distances[:, k - 1], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    # From here on rows are in the order of falling density: a peak is a row whose neighbors all come later.
    density, nearby = -d * np.log(distances[order, k - 1]), rank[neighbors[order, :k]]
    rows = np.arange(len(order))
    top = np.minimum(nearby.min(1), rows)
    while (top[top] != top).any():
        top = top[top]
    # Where two peaks' sides meet, the highest place first: the lower one is a peak of its own only if it is
    # high above it.
    one, other = np.repeat(top, k), top[nearby.ravel()]
    saddle = np.maximum(np.repeat(rows, k), nearby.ravel())
    meets = np.stack([saddle, np.minimum(one, other), np.maximum(one, other)], 1)[one != other]
    parent = rows.copy()

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for place, i, j in np.unique(meets, axis=0).tolist():
        high, low = sorted((root(i), root(j)))
        if density[low] - density[place] < DEPTH * math.sqrt(2 / k):
            parent[low] = high
    found = np.array([root(i) for i in top.tolist()])[rank]
    peaks, count = np.unique(found, return_counts=True)
    large = peaks[np.argsort(-count)][: int((count >= SMALLEST).sum())]
    return np.array([{int(p): n for n, p in enumerate(large)}.get(int(r), -1) for r in found])


# ------------------------------------------------------------------------------------------ loops


@check(
    "loops",
    "Have codes the loops of the data?",
    ok=0.5,
    fail=0.5,
    unit="loops of difference",
    says={
        "ok": "Codes have as many loops as the data: {loops}.",
        "warn": "Codes have {loops} loop(s), and the data {loops_of_data}.",
        "fail": "Codes have {loops} loop(s) around empty space, and the data {loops_of_data}: the map cuts "
        "or closes what the data do not.",
    },
    remedies=("more-dimensions", "fit-density"),
    reference="Bobrowski and Skraba 2023, doi:10.1038/s41598-023-37842-2",
    needs=("alone",),
    budget="full",
)
def _loops(evidence: Evidence) -> Reading:
    """Compare the number of one-dimensional holes of Vietoris–Rips complexes that are no chance."""
    m = evidence.compared
    if m < RIPS:
        return Reading(None, because=f"loops show from {RIPS} items on, and there are {m}")
    counts = []
    for turn in range(TRIES):
        rows = evidence.random(40 + turn).choice(m, RIPS, replace=False)
        pair = []
        for space, name in ((evidence.z, "codes"), (evidence.flat, "items")):
            points = space[rows]
            if float(np.median(nearest(points, points, 5, True)[0][:, -1])) > BLUR * typical(points):
                return Reading(None, because=f"{name} are too far apart from each other to see a loop")
            pair.append(_loops_of(points))
        counts.append(pair)
    differ = [abs(codes - data) for codes, data in counts]
    loops, loops_of_data = (int(np.median(side)) for side in zip(*counts, strict=True))
    return Reading(
        float(np.median(differ)),
        (float(min(differ)), float(max(differ))),
        also={"loops": loops, "loops_of_data": loops_of_data},
    )


def _loops_of(points: Tensor) -> int:
    """Count loops whose death/birth is too large for chance, of all the diagram's (Bonferroni)."""
    try:
        from ripser import ripser
    except ImportError as error:
        raise PlanError("loops need ripser: pip install 'chartae[topology]'") from error
    from scipy.spatial.distance import pdist, squareform

    points = points.double()
    apart = squareform(pdist((points - points.mean(0)).numpy()))
    birth, death = ripser(apart, maxdim=1, distance_matrix=True)["dgms"][1].astype(np.float64).T
    use = (birth > 0) & np.isfinite(death) & (death > birth)
    if not use.any():
        return 0
    size = death[use] / birth[use]
    level = np.log(np.log(size))
    level -= np.euler_gamma + level.mean()
    return int(((np.exp(-np.exp(level)) * len(level) < ALPHA) | (size > CLEAR)).sum())
