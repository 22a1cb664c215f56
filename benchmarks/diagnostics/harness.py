"""What the calibrations of checks share: cases with a known answer, many seeds each, and a table of verdicts.

A script names `CASES`: for each a function from a generator to a chart and items, and what each check should
find there:

- "healthy": no alarm (warn or fail) in 97 % of seeds, at a nominal 1 % on each side;
- "planted": an alarm in 93 % of seeds;
- "hopeless": never "ok", and no alarm in 97 % of seeds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import chartae.audits.report  # noqa: F401  # it registers all checks
from chartae.audits.evidence import Evidence
from chartae.audits.findings import Reading, checks, judge
from chartae.core.errors import ChartaeError
from chartae.geometry import Chart

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

FEWER = {"loops": 20}  # seeds of the slowest check
BARS = {"healthy": 0.97, "planted": 0.93, "hopeless": 0.97}
VERDICTS = ("ok", "warn", "fail", "cannot tell")

Made = tuple[Chart, Tensor]
Case = tuple[Callable[[torch.Generator], Made], dict[str, str]]


def uniform(g: torch.Generator, n: int, d: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, d, generator=g)


def normal(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def frame(g: torch.Generator, D: int, d: int) -> Tensor:
    """Orthonormal columns, ``(D, d)``."""
    return torch.linalg.qr(normal(g, D, d))[0]


def wants(healthy: str = "", planted: str = "", hopeless: str = "") -> dict[str, str]:
    out = dict.fromkeys(healthy.split(), "healthy")
    return out | dict.fromkeys(planted.split(), "planted") | dict.fromkeys(hopeless.split(), "hopeless")


@cache
def cases_of(script: str) -> dict[str, Case]:
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


def run(
    script: str, case: str, seed: int, wanted: tuple[str, ...]
) -> dict[str, tuple[str, float | None, float]]:
    """Verdict, value and seconds of each check that is wanted and that the case names."""
    torch.set_num_threads(1)
    make, expected = cases_of(script)[case]
    chart, x = make(torch.Generator().manual_seed(seed))
    evidence, out = Evidence(chart, x, seed=seed), {}
    for name in (n for n in expected if n in wanted and seed < FEWER.get(n, seed + 1)):
        began = time.perf_counter()
        try:
            reading = checks[name].measure(evidence)
        except (ChartaeError, ValueError, RuntimeError) as error:  # as in a report
            reading = Reading(None, because=str(error))
        verdict = judge(reading, checks[name].ok, checks[name].fail)
        out[name] = (verdict, reading.value, time.perf_counter() - began)
    return out


def met(want: str, count: Counter[str]) -> bool:
    n, alarms = sum(count.values()), count["warn"] + count["fail"]
    share = alarms / n if want == "planted" else 1 - alarms / n
    return share >= BARS[want] and not (want == "hopeless" and count["ok"])


def summary(
    script: str, case: str, seeds: int, wanted: tuple[str, ...], pool: ProcessPoolExecutor
) -> list[dict[str, Any]]:
    runs = list(pool.map(run, [script] * seeds, [case] * seeds, range(seeds), [wanted] * seeds))
    rows = []
    for name in runs[0]:
        found = [each[name] for each in runs if name in each]
        n, expected = len(found), cases_of(script)[case][1][name]
        count = Counter(each[0] for each in found)
        values = sorted(each[1] for each in found if each[1] is not None)
        rows.append(
            {
                "case": case,
                "check": name,
                "expected": expected,
                "seeds": n,
                **{verdict: round(count[verdict] / n, 3) for verdict in VERDICTS},
                "median": values[len(values) // 2] if values else None,
                "seconds": round(sorted(each[2] for each in found)[n // 2], 4),
                "met": met(expected, count),
            }
        )
    return rows


def main(script: str, description: str | None, title: str) -> None:
    """Run all cases of a script, print the table, and write it beside the script as JSON."""
    stem = Path(script).stem
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="cases; nothing is written")
    parser.add_argument("--checks", nargs="*", help="the others are kept as they were measured")
    parser.add_argument("--out", default=str(Path(script).parent / "results" / f"{stem}.json"))
    args = parser.parse_args()
    cases, rows, names = cases_of(script), [], list(checks)
    wanted = tuple(args.checks or names)
    with ProcessPoolExecutor(args.jobs) as pool:
        for case in args.only or cases:
            for row in summary(script, case, args.seeds, wanted, pool):
                rows.append(row)
                shares = " ".join(f"{row[v]:5.2f}" for v in VERDICTS)
                value = "-" if row["median"] is None else f"{row['median']:.4f}"
                print(
                    f"{' ' if row['met'] else '!'} {row['case']:<26}{row['check']:<20}{row['expected']:<10}"
                    f"{shares}  {value:<8} {row['seconds']}",
                    flush=True,
                )
    if args.only:
        return
    if args.checks:
        kept = json.loads(Path(args.out).read_text())["cases"]
        rows += [row for row in kept if row["check"] not in wanted]
    order = list(cases)
    rows.sort(key=lambda row: (names.index(row["check"]), order.index(row["case"])))
    write(args.out, title, f"python benchmarks/diagnostics/{stem}.py --seeds {args.seeds}", rows)


def write(path: str, title: str, command: str, rows: list[dict[str, Any]]) -> None:
    write_json(
        path,
        title=title,
        command=command,
        machine=machine_info(1),
        columns=["check", "case", "expected", "seeds", *(f"{v} %" for v in VERDICTS), "median", "s", "bar"],
        rows=[
            [
                *(row[name] for name in ("check", "case", "expected", "seeds")),
                *(f"{100 * row[v]:.1f}" for v in VERDICTS),
                "" if row["median"] is None else f"{row['median']:.3g}",
                f"{row['seconds']:.2f}",
                "met" if row["met"] else "missed",
            ]
            for row in rows
        ],
        notes=[
            "Healthy: at most 3 % warn or fail. Planted: at least 93 % do. Hopeless: at most 3 % do, none "
            "is ok.",
            "Charts in closed form, in which nothing is fitted; see the script for the cases.",
        ],
        cases=rows,
    )
