"""Are the checks of the shape of a latent space right? Cases with a known answer, in closed form.

Nothing is fitted. Each case is a chart and items, made anew for each seed, and says for each check what it
should find:

- "healthy": no alarm (warn or fail) in 97 % of seeds;
- "planted": an alarm in 93 % of seeds;
- "hopeless": never "ok", and no alarm in 97 % of seeds;
- a check that a case does not name runs nowhere: what it should find there is not known.

    python benchmarks/diagnostics/latent.py --seeds 100
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from chartae.audits.evidence import BUDGETS, Evidence
from chartae.audits.findings import Reading, checks, judge
from chartae.audits.report import audit  # it registers all checks
from chartae.core.errors import DataError
from chartae.geometry import Chart
from common import machine_info, write_json

NAMES = (
    "folds", "tears", "neighborhoods", "density", "components", "loops",
    "prior-holes", "sample-holes", "interpolation", "interpolated-items",
)  # fmt: skip
VERDICTS = ("ok", "warn", "fail", "cannot tell")
BARS = {"healthy": 0.97, "planted": 0.93, "hopeless": 0.97}

LOOPS = 20  # seeds of the slowest check

Made = tuple[Chart, Tensor]
Case = tuple[Callable[[torch.Generator], Made], dict[str, str]]


def uniform(g: torch.Generator, n: int, d: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, d, generator=g)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def frame(g: torch.Generator, D: int, d: int) -> Tensor:
    """Orthonormal columns, ``(D, d)``."""
    return torch.linalg.qr(normal(g, D, d))[0]


def embedded(g: torch.Generator, z: Tensor, D: int, noise: float, prior: Any = None) -> Made:
    """Codes z, isometrically in D dimensions, with noise; the chart is exact."""
    B = frame(g, D, z.shape[1])
    x = z @ B.T + noise * normal(g, len(z), D)
    return Chart.of_pair(lambda x: x @ B, lambda z: z @ B.T, prior=prior, latent_dim=z.shape[1]), x


# --------------------------------------------------------------------------------------- healthy


def plane(g: torch.Generator, n: int = 500, noise: float = 0.01) -> Made:
    return embedded(g, uniform(g, n, 2), 10, noise)


def gaussian(g: torch.Generator, n: int = 500) -> Made:
    return embedded(g, normal(g, n, 2), 10, 0.02, "normal")


def s_curve(g: torch.Generator, n: int = 500) -> Made:
    t, y = uniform(g, n, 1, -1.5 * math.pi, 1.5 * math.pi), uniform(g, n, 1, 0, 2)

    def decode(z: Tensor) -> Tensor:
        t, y = z[:, :1], z[:, 1:]
        return torch.cat([t.sin(), y, t.sign() * (t.cos() - 1)], 1)

    def encode(x: Tensor) -> Tensor:
        side = torch.where(x[:, 2] < 0, 1.0, -1.0)
        angle = torch.atan2(side * x[:, 0], 1 - x[:, 2].abs()) % (2 * math.pi)
        return torch.stack([side * angle, x[:, 1]], 1)

    return Chart.of_pair(encode, decode), decode(torch.cat([t, y], 1))


def cap(g: torch.Generator, n: int = 500) -> Made:
    """A sphere above latitude 30°, in its azimuthal chart."""
    height, turn = uniform(g, n, 1, 0.5, 1.0), uniform(g, n, 1, 0, 2 * math.pi)
    radius = (1 - height**2).sqrt()
    x = torch.cat([radius * turn.cos(), radius * turn.sin(), height], 1)

    def encode(x: Tensor) -> Tensor:
        flat = x[:, :2]
        return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-9) * torch.acos(x[:, 2:].clamp(-1, 1))

    def decode(z: Tensor) -> Tensor:
        r = z.norm(dim=1, keepdim=True)
        return torch.cat([z / r.clamp_min(1e-9) * r.sin(), r.cos()], 1)

    return Chart.of_pair(encode, decode), x


def ppca(g: torch.Generator, d: int, D: int, n: int = 500, noise: float = 0.3, scale: float = 1.0) -> Made:
    """Perfect probabilistic PCA: q(z | x) is the true posterior, and codes follow N(0, I)."""
    W = frame(g, D, d) * torch.linspace(2.0, 1.0, d)
    x = normal(g, n, d) @ W.T + noise * normal(g, n, D)
    M = W.T @ W + noise**2 * torch.eye(d)
    A, std = torch.linalg.solve(M, W.T).T, noise * M.diagonal().rsqrt()
    chart = Chart.of_pair(
        lambda x: scale * (x @ A),
        lambda z: z @ W.T / scale,
        std=lambda x: scale * std.expand(len(x), d),
        prior="normal",
        latent_dim=d,
    )
    return chart, x


def two_islands(g: torch.Generator, n: int = 500) -> Made:
    z = normal(g, n, 2)
    z[:, 0] += 5
    z[: n // 2, 0] -= 10
    return embedded(g, z[torch.randperm(n, generator=g)], 10, 0.01, "normal")


def blob(g: torch.Generator, d: int, n: int = 500) -> Made:
    return embedded(g, normal(g, n, d), 20, 0.05, "normal")


# --------------------------------------------------------------------------------------- planted


def folded_sphere(g: torch.Generator, n: int = 500) -> Made:
    x = normal(g, n, 3)
    x = x / x.norm(dim=1, keepdim=True)

    def decode(z: Tensor) -> Tensor:
        return torch.cat([z, (1 - z.square().sum(1, keepdim=True)).clamp_min(0).sqrt()], 1)

    return Chart.of_pair(lambda x: x[:, :2], decode), x


def folded_edge(g: torch.Generator, n: int = 500) -> Made:
    """A strip whose last tenth is turned back over its first, far above it."""
    z = uniform(g, n, 2, 0, 1)
    B = frame(g, 10, 3)
    back = z[:, :1] > 0.9
    x = torch.cat([torch.where(back, z[:, :1] - 0.9, z[:, :1]), z[:, 1:], 1.5 * back], 1) @ B.T
    return Chart.of_pair(lambda x: x @ B[:, :2], lambda z: z @ B[:, :2].T), x


def torn_plane(g: torch.Generator, n: int = 500) -> Made:
    """A connected square whose halves have codes far apart."""
    z = uniform(g, n, 2)
    B = frame(g, 10, 2)
    away = torch.tensor([5.0, 0.0])

    def encode(x: Tensor) -> Tensor:
        z = x @ B
        return z + away * (z[:, :1] > 0)

    def decode(z: Tensor) -> Tensor:
        return (z - away * (z[:, :1] > 2.5)) @ B.T

    return Chart.of_pair(encode, decode), z @ B.T + 0.01 * normal(g, n, 10)


def annulus(g: torch.Generator, n: int = 500) -> Made:
    turn = uniform(g, n, 1, 0, 2 * math.pi)
    radius = uniform(g, n, 1, 1.5, 2.0)
    return embedded(g, torch.cat([radius * turn.cos(), radius * turn.sin()], 1), 10, 0.01, "normal")


def narrow(g: torch.Generator, n: int = 500) -> Made:
    """Codes in a part of what the prior covers, in 8 dimensions."""
    return embedded(g, 0.5 * normal(g, n, 8), 30, 0.02, "normal")


def circle(g: torch.Generator, n: int = 500) -> Made:
    turn = uniform(g, n, 1, 0, 2 * math.pi)
    B = frame(g, 10, 2)

    def decode(z: Tensor) -> Tensor:
        return torch.cat([z.cos(), z.sin()], 1) @ B.T

    def encode(x: Tensor) -> Tensor:
        a, b = (x @ B).unbind(1)
        return torch.atan2(b, a)[:, None]

    return Chart.of_pair(encode, decode), decode(turn) + 0.01 * normal(g, n, 10)


def flat_cube(g: torch.Generator, n: int = 500) -> Made:
    """A cube of three dimensions whose codes are one of them."""
    x = uniform(g, n, 3)
    return Chart.of_pair(lambda x: x[:, :1], lambda z: torch.cat([z, 0 * z, 0 * z], 1)), x


def crowded(g: torch.Generator, n: int = 500) -> Made:
    """A square whose codes crowd at the middle."""
    z = uniform(g, n, 2)
    B = frame(g, 10, 2)

    def encode(x: Tensor) -> Tensor:
        z = x @ B
        return z * z.norm(dim=1, keepdim=True) ** 7

    def decode(z: Tensor) -> Tensor:
        return z / z.norm(dim=1, keepdim=True).clamp_min(1e-30) ** (7 / 8) @ B.T

    return Chart.of_pair(encode, decode), z @ B.T


# --------------------------------------------------------------------------------------- hopeless


def folded_many(g: torch.Generator, n: int = 500) -> Made:
    """A sphere of eight dimensions in nine, seen from above."""
    x = normal(g, n, 9)
    x = x / x.norm(dim=1, keepdim=True)

    def decode(z: Tensor) -> Tensor:
        return torch.cat([z, (1 - z.square().sum(1, keepdim=True)).clamp_min(0).sqrt()], 1)

    return Chart.of_pair(lambda x: x[:, :8], decode), x


def sheets_many(g: torch.Generator, n: int = 500) -> Made:
    """Two sheets of eight dimensions with the same codes."""
    x = torch.cat([uniform(g, n, 8), 2.0 * (uniform(g, n, 1) > 0)], 1)
    return Chart.of_pair(lambda x: x[:, :8], lambda z: torch.cat([z, 0 * z[:, :1]], 1)), x


def noise(g: torch.Generator, n: int = 500) -> Made:
    x = normal(g, n, 50)
    return Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, z.new_zeros(len(z), 48)], 1)), x


def wants(healthy: str = "", planted: str = "", hopeless: str = "") -> dict[str, str]:
    out = dict.fromkeys(healthy.split(), "healthy")
    return out | dict.fromkeys(planted.split(), "planted") | dict.fromkeys(hopeless.split(), "hopeless")


ALL = "folds tears neighborhoods density components loops interpolation interpolated-items"
SAMPLED = " prior-holes sample-holes"
CASES: dict[str, Case] = {
    "plane": (plane, wants(ALL)),
    "plane, noise .05": (lambda g: plane(g, noise=0.05), wants(ALL)),
    "gaussian": (gaussian, wants(ALL + SAMPLED)),
    "gaussian, 2000 items": (lambda g: gaussian(g, n=2000), wants("folds tears components density")),
    "s curve": (s_curve, wants(ALL)),
    "sphere cap": (cap, wants(ALL)),
    "ppca 3 of 20": (lambda g: ppca(g, 3, 20), wants(ALL + SAMPLED)),
    "ppca 8 of 50": (lambda g: ppca(g, 8, 50, noise=0.5), wants(ALL + SAMPLED)),
    "two islands in both": (
        two_islands,
        wants(
            "folds tears neighborhoods density components loops",
            "prior-holes sample-holes interpolation interpolated-items",
        ),
    ),
    "blob, 8 dimensions": (lambda g: blob(g, 8), wants(ALL + SAMPLED)),
    "folded sphere": (folded_sphere, wants("tears", "folds")),
    "folded edge": (folded_edge, wants("", "folds")),
    "torn plane": (
        torn_plane,
        wants("folds loops", "tears components interpolation interpolated-items"),
    ),
    "annulus": (
        annulus,
        wants(
            "folds tears neighborhoods density components loops",
            "prior-holes sample-holes interpolation interpolated-items",
        ),
    ),
    "narrow codes": (narrow, wants("density components", "prior-holes sample-holes")),
    "circle in one dimension": (circle, wants("folds interpolation interpolated-items", "tears loops")),
    "circle, 2000 items": (lambda g: circle(g, n=2000), wants("folds", "tears")),
    "cube in one dimension": (flat_cube, wants("", "folds neighborhoods")),
    "crowded codes": (crowded, wants("", "density")),
    "8-sphere folded": (lambda g: folded_many(g, n=2000), wants("", "", "folds")),
    "8-d sheets folded": (lambda g: sheets_many(g, n=2000), wants("tears", "", "folds")),
    "noise": (noise, wants("", "neighborhoods", "folds tears loops")),
    "plane, 60 items": (
        lambda g: plane(g, n=60),
        wants("", "", "folds tears neighborhoods density components loops interpolation interpolated-items"),
    ),
    "gaussian, 60 items": (lambda g: gaussian(g, n=60), wants("", "", "prior-holes sample-holes")),
    "annulus, 60 items": (lambda g: annulus(g, n=60), wants("", "", "components loops density")),
}


def run(case: str, seed: int, wanted: tuple[str, ...] = NAMES) -> dict[str, tuple[str, float | None, float]]:
    """Verdict, value and seconds of each check that the case names."""
    torch.set_num_threads(1)
    make, expected = CASES[case]
    chart, x = make(torch.Generator().manual_seed(seed))
    evidence, out = Evidence(chart, x, seed=seed), {}
    for name in wanted:
        if name in expected and (name != "loops" or seed < LOOPS):
            began = time.perf_counter()
            try:
                reading = checks[name].measure(evidence)
            except DataError as error:  # as in a report
                reading = Reading(None, because=str(error))
            verdict = judge(reading, checks[name].ok, checks[name].fail)
            out[name] = (verdict, reading.value, time.perf_counter() - began)
    return out


def met(want: str, count: Counter[str]) -> bool:
    n, alarms = sum(count.values()), count["warn"] + count["fail"]
    share = alarms / n if want == "planted" else 1 - alarms / n
    return share >= BARS[want] and not (want == "hopeless" and count["ok"])


def summary(
    case: str, seeds: int, wanted: tuple[str, ...], pool: ProcessPoolExecutor
) -> list[dict[str, Any]]:
    runs = list(pool.map(run, [case] * seeds, range(seeds), [wanted] * seeds))
    rows = []
    for name in runs[0]:
        found = [each[name] for each in runs if name in each]
        n, count = len(found), Counter(each[0] for each in found)
        values = sorted(each[1] for each in found if each[1] is not None)
        rows.append(
            {
                "case": case,
                "check": name,
                "expected": CASES[case][1][name],
                "seeds": n,
                **{
                    verdict: round(count[verdict] / n, 3) for verdict in ("ok", "warn", "fail", "cannot tell")
                },
                "median": values[len(values) // 2] if values else None,
                "seconds": round(sorted(each[2] for each in found)[n // 2], 4),
                "met": met(CASES[case][1][name], count),
            }
        )
    return rows


def large(names: tuple[str, ...] = NAMES) -> dict[str, float]:
    """Seconds of each check on 10,000 items of 784 values, at the fast budget."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    chart, x = ppca(g, 8, 784, n=10_000)
    report = audit(chart, x, ppca(g, 8, 784, n=10_000)[1], only=[n for n in names if n != "loops"])
    report_of_loops = audit(chart, x, only=["loops"])
    return {f.name: round(f.seconds, 2) for f in (*report.findings, *report_of_loops.findings)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="cases; nothing is written")
    parser.add_argument("--checks", nargs="*", default=NAMES, help="others are kept as they were measured")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "latent.json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for case in args.only or CASES:
            for row in summary(case, args.seeds, tuple(args.checks), pool):
                rows.append(row)
                shares = " ".join(f"{row[v]:5.2f}" for v in ("ok", "warn", "fail", "cannot tell"))
                value = "-" if row["median"] is None else f"{row['median']:.4f}"
                print(
                    f"{' ' if row['met'] else '!'} {row['case']:<26}{row['check']:<20}{row['expected']:<10}"
                    f"{shares}  {value:<8} {row['seconds']}",
                    flush=True,
                )
    if args.only:
        return
    path = Path(args.out)
    kept = json.loads(path.read_text())["raw"]["cases"] if set(args.checks) < set(NAMES) else []
    rows += [row for row in kept if row["check"] not in args.checks]
    rows.sort(key=lambda row: (list(CASES).index(row["case"]), NAMES.index(row["check"])))
    seconds = large()
    write_json(args.out, **result(rows, args.seeds, args.checks, seconds))
    print(seconds)


def result(
    rows: list[dict[str, Any]], seeds: int, last: Sequence[str], seconds: dict[str, float]
) -> dict[str, Any]:
    """As `render.py` reads it: a line for each check and what it should find; all cases are under "raw"."""
    table = []
    for name in NAMES:
        for want in BARS:
            own = [row for row in rows if (row["check"], row["expected"]) == (name, want)]
            if own:
                n = sum(row["seeds"] for row in own)
                share = {v: sum(row[v] * row["seeds"] for row in own) / n for v in VERDICTS}
                table.append([name, want, len(own), n, *(f"{100 * share[v]:.1f} %" for v in VERDICTS)])
    return {
        "title": "What the checks of a latent space's shape find where the answer is known",
        "command": f"python benchmarks/diagnostics/latent.py --seeds {seeds}",
        "machine": machine_info(1),
        "columns": ["check", "what is there", "cases", "runs", *VERDICTS],
        "rows": table,
        "notes": [
            "Charts in closed form, mostly of 500 items. Healthy: an alarm (warn or fail) is false. Planted: "
            "it is right. Hopeless: nothing can be told.",
            "Thresholds were chosen on these cases, so these shares are no test on cases of another kind.",
            f"Loops ran on {LOOPS} seeds a case: too few to tell a false alarm in 100 from none.",
            "Where all of a healthy case is 'cannot tell' (folds, tears and loops of noisy or many "
            "dimensions), no alarm says little.",
        ],
        "raw": {
            "measured_last": list(last),  # the others' rows are of an earlier run
            "budget": BUDGETS["fast"]._asdict(),
            "bars": BARS,
            "thresholds": {name: [checks[name].ok, checks[name].fail] for name in NAMES},
            "cases": rows,
            "seconds_on_10000_x_784": seconds,
        },
    }


if __name__ == "__main__":
    main()
