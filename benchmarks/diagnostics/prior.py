"""Are the checks of prior, samples and embeddings right? Models whose health is known, and no training.

The optimum of a linear beta-VAE with fixed noise is known in closed form: probabilistic PCA at beta = 1, and
collapsed where beta times the noise variance exceeds an eigenvalue. Each case draws items, and makes the
model of which it is known what is wrong with it.

    python benchmarks/diagnostics/prior.py --seeds 200 --first-seed 1000
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from harness import Case, Made, main, wants
from torch import Tensor

from chartae.geometry import Chart
from chartae.parts.distributions import DiagonalNormal, UniformSphere, Zonal

D, SIGMA = 20, 0.5
SPECTRUM = np.array([9.0, 6.0, 4.0, 2.5, 1.5])  # above the noise; the others are the noise's variance


class World(NamedTuple):
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


def mistaken(seed: int, *, by: float, sure: float = 1.0) -> World:
    """An encoder whose codes are off by so many standard deviations, and which may be surer than it ought."""
    world = linear(seed, spare=0)
    old = world.chart

    def posterior(x: Tensor, *c: Tensor) -> DiagonalNormal:
        q = old.posterior(x)  # type: ignore[misc]
        side = torch.where(x[:, : q.mean.shape[1]] > 0, by, -by)
        return DiagonalNormal(q.mean + side * q.std(), q.log_var + 2 * math.log(sure))

    return World(replace(old, posterior=posterior), world.items)


def sphere(seed: int, *, d: int = 8, known: float = 1.0, factor: float = 1.0) -> World:
    """x = z + noise of variance 1 / known, z uniform on the sphere: exactly von Mises-Fisher, κ = known |x|.

    A factor makes posteriors too narrow.
    """

    def posterior(x: Tensor) -> Zonal:
        return Zonal(F.normalize(x, dim=1), factor * known * x.norm(dim=1))

    def items(n: int, rng: np.random.Generator) -> Tensor:
        z = F.normalize(torch.tensor(rng.normal(size=(n, d))), dim=1)
        return (z + torch.tensor(rng.normal(size=(n, d))) / math.sqrt(known)).float()

    chart = Chart(
        encode=lambda x: posterior(x).point(),
        decode=lambda z: F.normalize(z, dim=1),
        posterior=posterior,
        observe=lambda z, noise: F.normalize(z, dim=1) + noise.normal(z.shape, z) / math.sqrt(known),
        prior=lambda c: UniformSphere(d),
        latent_dim=d,
    )
    return World(chart, items)


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


def _by_axis(x: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Three classes by what has the largest variance."""
    u = torch.svd_lowrank(x, q=1)[2][:, 0]
    return np.digitize((x @ u + torch.tensor(rng.normal(size=len(x)))).numpy(), [-2, 2])


def _by_noise(x: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Two classes by a direction of the smallest variance, which codes lose."""
    u = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][-1]
    return (x @ u > 0).numpy().astype(int)


def case(
    world: Callable[[int], World],
    n: int,
    *,
    train: int = 0,
    labels: Callable[[Tensor, np.random.Generator], np.ndarray] | None = None,
    copied: float | None = None,
) -> Callable[[torch.Generator], Made]:
    """So many items of a world, with training items, labels, or a model that copies a share of these."""

    def make(g: torch.Generator) -> Made:
        seed = g.initial_seed()
        made, rng = world(seed), np.random.default_rng([seed, 2])
        x, chart, more = made.items(n, rng), made.chart, {}
        if train:
            more["X_train"] = made.items(train, rng)
        if copied is not None:
            chart = parrot(seed, copied, more["X_train"])
        if labels:
            more["labels"] = labels(x, rng)
        return Made(chart, x, more)

    return make


def snug(seed: int) -> World:
    """No spare dimension."""
    return linear(seed, spare=0)


PRIOR = "prior-match prior-shape active-dimensions push-to-zero information density-gain coverage sigma"

CASES: dict[str, Case] = {
    "linear VAE": (
        case(linear, 1000),
        wants(PRIOR + " bound amortization", "sigma-informative", whole=True),
    ),
    "linear VAE, with training items": (
        case(snug, 2000, train=2000, labels=_by_axis),
        wants(PRIOR + " bound copying probe amortization", "sigma-informative", whole=True),
    ),
    "linear VAE, 60 items": (case(linear, 60), wants("information", "", "prior-shape")),
    "linear VAE, 60 items, d = 17": (
        case(lambda s: linear(s, spare=12), 60),
        wants("", "", "prior-match"),
    ),
    "linear VAE, 100 items": (case(linear, 100), wants("", "", "coverage")),
    "linear VAE, 150 items": (
        case(snug, 150, train=2000, labels=_by_noise),
        wants("prior-match", "", "copying probe"),
    ),
    "linear VAE, 10,000 training items": (case(snug, 2000, train=10_000), wants("copying")),
    "3 spare dimensions": (
        case(lambda s: linear(s, spare=3), 1000),
        wants("active-dimensions amortization", whole=True),
    ),
    "sigma depends on the item": (
        case(uneven, 1000),
        wants("sigma-informative amortization", whole=True),
    ),
    "points": (
        case(point, 2000, train=2000),
        wants("active-dimensions push-to-zero density-gain copying", whole=True),
    ),
    "points, no prior": (
        case(lambda s: point(s, prior=False), 1000),
        wants("push-to-zero", whole=True),
    ),
    "points of size .02, no prior": (
        case(lambda s: point(s, gain=0.02, prior=False), 1000),
        wants("", "push-to-zero"),
    ),
    "points of size .05, N(0, I)": (case(lambda s: point(s, gain=0.05), 1000), wants("", "push-to-zero")),
    "codes twice as large": (case(lambda s: off(s, gain=2.0), 1000), wants("", "prior-match")),
    "codes half as large": (case(lambda s: off(s, gain=0.5), 2000), wants("", "prior-match density-gain")),
    "two islands": (case(islands, 2000), wants("", "prior-shape density-gain")),
    "two islands, 200 items": (case(islands, 200), wants("", "", "density-gain")),
    "overdispersed radius": (case(heavy, 2000), wants("", "prior-shape")),
    "beta = 4": (case(lambda s: linear(s, beta=4.0), 1000), wants("", "sigma amortization")),
    "beta = 12": (case(lambda s: linear(s, beta=12.0), 1000), wants("", "active-dimensions")),
    "beta = 12, 50 items, d = 16": (
        case(lambda s: linear(s, beta=12.0, spare=11), 50),
        wants("", "", "active-dimensions"),
    ),
    "beta = 100": (
        case(lambda s: linear(s, beta=100.0), 1000),
        wants("", "active-dimensions information", "sigma amortization sigma-informative"),
    ),
    "a decoder that ignores its code": (case(deaf, 1000), wants("", "information")),
    "posterior ten times too narrow": (case(loose, 200), wants("", "", "bound")),
    "sigma half of what it should be": (
        case(lambda s: wrong_sigma(s, factor=0.5), 1000),
        wants("amortization", "sigma"),
    ),
    "sigma twice what it should be": (
        case(lambda s: wrong_sigma(s, factor=2.0), 1000),
        wants("amortization", "sigma"),
    ),
    "codes off by .4 of sigma": (case(lambda s: mistaken(s, by=0.4), 1000), wants("amortization")),
    "codes off by .6 of sigma": (case(lambda s: mistaken(s, by=0.6), 1000), wants("", "amortization")),
    "codes off by 3 sigma": (case(lambda s: mistaken(s, by=3.0), 1000), wants("", "amortization")),
    "codes off by 3 sigma, sigma a tenth": (
        case(lambda s: mistaken(s, by=3.0, sure=0.1), 1000),
        wants("", "amortization"),
    ),
    "exact on a sphere": (case(sphere, 1000), wants("sigma")),
    "on a sphere, four times too narrow": (case(lambda s: sphere(s, factor=4.0), 1000), wants("", "sigma")),
    "half of an axis left out": (case(lambda s: forgetful(s, 0.5), 2000), wants("", "coverage")),
    "samples of half the size": (
        case(lambda s: collapsed_samples(s, shrink=0.5), 2000, train=4000),
        wants("copying", "coverage"),
    ),
    "one in ten is a copy": (case(snug, 2000, train=2000, copied=0.1), wants("", "copying")),
    "all are copies": (case(snug, 2000, train=2000, copied=1.0), wants("", "copying")),
    "label by what codes lose": (case(linear, 2000, labels=_by_noise), wants("", "probe")),
}

if __name__ == "__main__":
    main(
        __file__,
        __doc__,
        "Checks of prior, samples and embeddings on models of known health",
        "Linear models of 5 dimensions among 20, noise .5, variances 9 to 1.5; nothing is trained.",
    )
