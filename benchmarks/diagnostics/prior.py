"""Are the checks of prior, samples and embeddings right? Models whose health is known, and no training.

The optimum of a linear beta-VAE with fixed noise is known in closed form: probabilistic PCA at beta = 1, and
collapsed where beta times the noise variance exceeds an eigenvalue. Each case draws items, makes the model of
which it is known what is wrong with it, and runs one check. Bars: at most 3 % of healthy models get a warning
or worse, at least 93 % of planted faults are found, and of too few items no check says "ok".

    python benchmarks/diagnostics/prior.py --seeds 200
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.audits import audit
from chartae.geometry import Chart
from chartae.parts.distributions import DiagonalNormal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

RESULT = Path(__file__).parent / "results" / "prior.json"
D, SIGMA = 20, 0.5
SPECTRUM = np.array([9.0, 6.0, 4.0, 2.5, 1.5])  # above the noise; the others are the noise's variance


@dataclass(frozen=True)
class World:
    """A linear beta-VAE at its optimum, and where its items come from."""

    chart: Chart
    items: Callable[[int, np.random.Generator], Tensor]


def linear(seed: int, *, beta: float = 1.0, spare: int = 1, spectrum: np.ndarray = SPECTRUM) -> World:
    """x = U √λ white + noise. KL_i = ½ log(λ_i / (β σ²)), posterior variance β σ² / λ_i, where λ_i > β σ²."""
    rng = np.random.default_rng([seed, 1])
    values = np.concatenate([spectrum, np.full(D - len(spectrum), SIGMA**2)])
    basis = np.linalg.qr(rng.normal(size=(D, D)))[0]
    d = len(spectrum) + spare
    top = values[:d]
    used = top > 1.0001 * beta * SIGMA**2
    # W W^T = λ − β σ²; E[z | x] = W^T x / λ
    W = basis[:, :d] * np.sqrt(np.where(used, top - beta * SIGMA**2, 0.0))
    variance = np.where(used, beta * SIGMA**2 / top, 1.0)
    back, forth = (torch.tensor(m, dtype=torch.float32) for m in (W / top, W.T))
    std = torch.tensor(np.sqrt(variance), dtype=torch.float32)

    def items(n: int, rng: np.random.Generator) -> Tensor:
        return torch.tensor(rng.normal(size=(n, D)) * np.sqrt(values) @ basis.T, dtype=torch.float32)

    chart = Chart.of_pair(
        lambda x: x @ back,
        lambda z: z @ forth,
        std=lambda x: std.expand(len(x), d),
        noise=SIGMA,
        prior="normal",
        latent_dim=d,
    )
    return World(chart, items)


def islands(seed: int, *, deterministic: bool = False) -> World:
    """Items in two clusters: linear codes have the prior's spread, and another shape."""
    world = linear(seed, spare=0)
    basis = torch.tensor(np.linalg.qr(np.random.default_rng([seed, 1]).normal(size=(D, D)))[0][:, 0]).float()
    ratio = 0.9

    def items(n: int, rng: np.random.Generator) -> Tensor:
        x = world.items(n, rng)
        along = x @ basis
        side = torch.tensor(rng.choice([-1.0, 1.0], n)).float() * 3.0
        return x + (side * ratio**0.5 + along * ((1 - ratio) ** 0.5 - 1))[:, None] * basis

    return World(world.chart, items)


def heavy(seed: int) -> World:
    """Items whose distance from the center is overdispersed: neither independent nor marginally normal."""
    world = linear(seed, spare=0)

    def items(n: int, rng: np.random.Generator) -> Tensor:
        scale = np.sqrt(4 / (2 + rng.chisquare(6, n) / 3)) * rng.choice([0.4, 1.36], n)
        return world.items(n, rng) * torch.tensor(scale).float()[:, None]

    return World(world.chart, items)


def off(seed: int, *, gain: float) -> World:
    """A linear VAE whose codes are scaled away from the prior, and back by the decoder."""
    world = linear(seed, spare=0)
    old = world.chart
    assert old.posterior is not None
    chart = Chart.of_pair(
        lambda x: gain * old.encode(x),
        lambda z: old.decode(z / gain),
        std=lambda x: gain * old.posterior(x).std(),
        noise=SIGMA,
        prior="normal",
        latent_dim=5,
    )
    return World(chart, world.items)


def point(seed: int, *, gain: float = 1.0, prior: bool = True, noise: bool = True) -> World:
    """An autoencoder whose codes are points: principal components, whitened, and scaled."""
    world = linear(seed, spare=0)
    old = world.chart
    scale = torch.tensor(gain / np.sqrt(1 - SIGMA**2 / SPECTRUM), dtype=torch.float32)
    root = torch.tensor(np.sqrt(SPECTRUM / (SPECTRUM - SIGMA**2)), dtype=torch.float32)
    chart = Chart.of_pair(
        lambda x: scale * old.encode(x),
        lambda z: old.decode(z / gain * root),
        noise=SIGMA if noise else None,
        prior="normal" if prior else None,
        latent_dim=5,
    )
    return World(chart, world.items)


def wrong_sigma(seed: int, *, factor: float) -> World:
    world = linear(seed, spare=1)
    old = world.chart

    def posterior(x: Tensor, *c: Tensor) -> DiagonalNormal:
        q = old.posterior(x)  # type: ignore[misc]
        return DiagonalNormal(q.point(), 2 * (factor * q.std()).log())

    return World(replace(old, posterior=posterior), world.items)


def uneven(seed: int) -> World:
    """σ depends on the item."""
    world = linear(seed, spare=1)
    old = world.chart

    def posterior(x: Tensor, *c: Tensor) -> DiagonalNormal:
        q = old.posterior(x)  # type: ignore[misc]
        return DiagonalNormal(q.point(), 2 * (q.std() * (0.2 * torch.tanh(x[:, :1])).exp()).log())

    return World(replace(old, posterior=posterior), world.items)


def deaf(seed: int) -> World:
    """A decoder that ignores its code."""
    world = linear(seed, spare=1)
    old = world.chart
    chart = Chart.of_pair(
        old.encode,
        lambda z: old.decode(z * 0.01),
        std=lambda x: old.posterior(x).std(),  # type: ignore[misc]
        noise=float(np.sqrt(SPECTRUM.sum() / D + SIGMA**2)),
        prior="normal",
        latent_dim=6,
    )
    return World(chart, world.items)


def loose(seed: int) -> World:
    """A posterior far too narrow: importance samples miss most of the true one."""
    return wrong_sigma(seed, factor=0.1)


def forgetful(seed: int, share: float) -> World:
    """A generator that leaves out whatever lies on one side of an axis."""
    world = linear(seed, spare=0)
    old = world.chart

    def decode(z: Tensor, *c: Tensor) -> Tensor:
        cut = float(torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - share)))
        low = torch.minimum(z[:, :1], 2 * cut - z[:, :1]) if share < 0.5 else -z[:, :1].abs()
        return old.decode(torch.cat([low, z[:, 1:]], 1))

    def observe(z: Tensor, draws: Any, *c: Tensor) -> Tensor:
        x = decode(z)
        return x + SIGMA * draws.normal(x.shape, x)

    return World(replace(old, decode=decode, observe=observe), world.items)


def collapsed_samples(seed: int, *, shrink: float) -> World:
    world = linear(seed, spare=0)
    old = world.chart

    narrow = DiagonalNormal(torch.zeros(5), torch.full((5,), 2 * math.log(shrink)))
    return World(replace(old, sampler=lambda c: narrow, observe=old.observe), world.items)


def parrot(seed: int, share: float, train: Tensor) -> Chart:
    """Points as codes; a region of that share decodes to the training item with the nearest code."""
    old = point(seed, noise=False).chart
    codes = old.encode(train)

    def decode(z: Tensor, *c: Tensor) -> Tensor:
        x = old.decode(z)
        inside = torch.special.ndtr(z[:, 0]) < share
        x[inside] = train[torch.cdist(z[inside], codes).argmin(1)]
        return x

    return replace(old, decode=decode)


@dataclass(frozen=True)
class Case:
    """One check on one kind of model."""

    check: str
    name: str
    kind: str  # healthy, planted, hopeless
    make: Callable[[int], World]
    n: int
    labels: Callable[[Tensor, np.random.Generator], np.ndarray] | None = None
    train: int = 0
    parrot: float | None = None


def _by_axis(x: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Three classes by what has the largest variance."""
    u = torch.svd_lowrank(x, q=1)[2][:, 0]
    return np.digitize((x @ u + torch.tensor(rng.normal(size=len(x)))).numpy(), [-2, 2])


def _by_noise(x: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Two classes by a direction of the smallest variance, which codes lose."""
    u = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][-1]
    return (x @ u > 0).numpy().astype(int)


CASES = [
    Case("prior-match", "linear VAE", "healthy", linear, 2000),
    Case("prior-match", "linear VAE, 150 items", "healthy", linear, 150),
    Case("prior-match", "codes twice as large", "planted", lambda s: off(s, gain=2.0), 1000),
    Case("prior-match", "codes half as large", "planted", lambda s: off(s, gain=0.5), 1000),
    Case("prior-match", "linear VAE, 60 items, d = 17", "hopeless", lambda s: linear(s, spare=12), 60),
    Case("prior-shape", "linear VAE", "healthy", linear, 2000),
    Case("prior-shape", "two islands", "planted", islands, 2000),
    Case("prior-shape", "overdispersed radius", "planted", heavy, 2000),
    Case("prior-shape", "linear VAE, 60 items", "hopeless", linear, 60),
    Case("active-dimensions", "linear VAE", "healthy", linear, 1000),
    Case("active-dimensions", "3 spare dimensions", "healthy", lambda s: linear(s, spare=3), 1000),
    Case("active-dimensions", "principal components, points", "healthy", point, 1000),
    Case("active-dimensions", "beta = 12", "planted", lambda s: linear(s, beta=12.0), 1000),
    Case("active-dimensions", "beta = 100", "planted", lambda s: linear(s, beta=100.0), 1000),
    Case("active-dimensions", "beta = 12, 50 items, d = 16", "hopeless",
         lambda s: linear(s, beta=12.0, spare=11), 50),
    Case("push-to-zero", "linear VAE", "healthy", linear, 1000),
    Case("push-to-zero", "points of size 1", "healthy", lambda s: point(s, prior=False), 1000),
    Case("push-to-zero", "points of size .02, no prior", "planted",
         lambda s: point(s, gain=0.02, prior=False), 1000),
    Case("push-to-zero", "points of size .05, N(0, I)", "planted", lambda s: point(s, gain=0.05), 1000),
    Case("information", "linear VAE", "healthy", linear, 1000),
    Case("information", "linear VAE, 60 items", "healthy", linear, 60),
    Case("information", "beta = 100", "planted", lambda s: linear(s, beta=100.0), 1000),
    Case("information", "a decoder that ignores its code", "planted", deaf, 1000),
    Case("bound", "linear VAE", "healthy", linear, 200),
    Case("bound", "posterior ten times too narrow", "hopeless", loose, 200),
    Case("density-gain", "linear VAE", "healthy", linear, 2000),
    Case("density-gain", "points of size 1", "healthy", lambda s: point(s, prior=False), 2000),
    Case("density-gain", "two islands", "planted", islands, 2000),
    Case("density-gain", "codes half as large", "planted", lambda s: off(s, gain=0.5), 2000),
    Case("density-gain", "two islands, 200 items", "hopeless", islands, 200),
    Case("coverage", "linear VAE", "healthy", linear, 1000),
    Case("coverage", "half of an axis left out", "planted", lambda s: forgetful(s, 0.5), 1000),
    Case("coverage", "samples of half the size", "planted", lambda s: collapsed_samples(s, shrink=0.5), 1000),
    Case("coverage", "linear VAE, 100 items", "hopeless", linear, 100),
    Case("copying", "linear VAE", "healthy", lambda s: linear(s, spare=0), 2000, train=2000),
    Case("copying", "10,000 training items", "healthy",
         lambda s: linear(s, spare=0), 2000, train=10000),
    Case("copying", "principal components, points", "healthy", point, 2000, train=2000),
    Case("copying", "samples of half the size", "healthy",
         lambda s: collapsed_samples(s, shrink=0.5), 2000, train=4000),
    Case("copying", "one in ten is a copy", "planted",
         lambda s: linear(s, spare=0), 2000, train=2000, parrot=0.1),
    Case("copying", "all are copies", "planted", lambda s: linear(s, spare=0), 2000, train=2000, parrot=1.0),
    Case("copying", "linear VAE, 150 items", "hopeless", lambda s: linear(s, spare=0), 150, train=2000),
    Case("probe", "label by the first axis", "healthy", linear, 2000, labels=_by_axis),
    Case("probe", "label by what codes lose", "planted", linear, 2000, labels=_by_noise),
    Case("probe", "label by what codes lose, 150 items", "hopeless", linear, 150, labels=_by_noise),
    Case("sigma", "linear VAE", "healthy", linear, 1000),
    Case("sigma", "beta = 4", "planted", lambda s: linear(s, beta=4.0), 1000),
    Case("sigma", "sigma half of what it should be", "planted", lambda s: wrong_sigma(s, factor=0.5), 1000),
    Case("sigma", "sigma twice what it should be", "planted", lambda s: wrong_sigma(s, factor=2.0), 1000),
    Case("sigma", "nothing used: beta = 100", "hopeless", lambda s: linear(s, beta=100.0), 1000),
    Case("sigma-informative", "sigma depends on the item", "healthy", uneven, 1000),
    Case("sigma-informative", "sigma is the same for all", "planted", linear, 1000),
    Case("sigma-informative", "nothing used: beta = 100", "hopeless", lambda s: linear(s, beta=100.0), 1000),
]  # fmt: skip


def run(index: int, seed: int) -> tuple[str, float | None]:
    torch.set_num_threads(1)
    case = CASES[index]
    world, rng = case.make(seed), np.random.default_rng([seed, 2])
    x = world.items(case.n, rng)
    train = world.items(case.train, rng) if case.train else None
    chart = world.chart
    if case.parrot is not None:
        assert train is not None
        chart = parrot(seed, case.parrot, train)
    labels = case.labels(x, rng) if case.labels else None
    report = audit(chart, x, train, labels=labels, only=[case.check], random_state=seed)
    return report[case.check].verdict, report[case.check].statistic


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="names of checks")
    parser.add_argument("--out", default=str(RESULT))
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    args = parser.parse_args()
    rows: list[Any] = []
    kept: dict[str, Any] = {"rows": []}
    if args.only and Path(args.out).exists():  # the other checks as they were
        kept = json.loads(Path(args.out).read_text())
    pool = ProcessPoolExecutor(args.workers, mp_context=get_context("spawn"))
    for index, case in enumerate(CASES):
        if args.only and case.check not in args.only:
            rows += [row for row in kept["rows"] if row[:2] == [case.check, case.name]]
            continue
        start = time.perf_counter()
        found = list(pool.map(run, [index] * args.seeds, range(args.seeds), chunksize=5))
        seconds = (time.perf_counter() - start) * args.workers / args.seeds
        count = Counter(verdict for verdict, _ in found)
        share = {v: count[v] / args.seeds for v in ("ok", "warn", "fail", "cannot tell")}
        alarm = share["warn"] + share["fail"]
        met = {"healthy": alarm <= 0.03, "planted": alarm >= 0.93, "hopeless": share["ok"] == 0}[case.kind]
        values = [statistic for _, statistic in found if statistic is not None]
        middle = f"{np.median(values):.3g}" if values else ""
        row = [case.check, case.name, case.kind, args.seeds, *(f"{100 * s:.1f}" for s in share.values())]
        rows.append([*row, middle, f"{seconds:.2f}", "met" if met else "missed"])
        print(rows[-1], file=sys.stderr, flush=True)
    write_json(
        args.out,
        title="Checks of prior, samples and embeddings on models of known health",
        command=f"python benchmarks/diagnostics/prior.py --seeds {args.seeds}",
        machine=machine_info(1),
        columns=[
            "check",
            "case",
            "kind",
            "seeds",
            "ok %",
            "warn %",
            "fail %",
            "cannot tell %",
            "median",
            "s",
            "bar",
        ],
        rows=rows,
        notes=[
            "Healthy: at most 3 % warn or fail. Planted: at least 93 % do. Hopeless: none is ok.",
            "Linear models of 5 dimensions among 20, noise .5, variances 9 to 1.5; nothing is trained.",
        ],
    )


if __name__ == "__main__":
    main()
