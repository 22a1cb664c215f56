"""Are the checks of the shape of a latent space right? Charts in closed form: nothing is fitted.

A check that a case does not name runs nowhere: what it should find there is not known.

    python benchmarks/diagnostics/latent.py --seeds 200 --first-seed 1000
"""

from __future__ import annotations

import math
from typing import Any

import torch
from harness import CLOSED_FORM, Case, Made, frame, main, normal, uniform, wants
from torch import Tensor

from chartae.geometry import Chart


def embedded(g: torch.Generator, z: Tensor, D: int, noise: float, prior: Any = None) -> Made:
    """Codes z, isometrically in D dimensions, with noise; the chart is exact."""
    B = frame(g, D, z.shape[1])
    x = z @ B.T + noise * normal(g, len(z), D)
    return Made(Chart.of_pair(lambda x: x @ B, lambda z: z @ B.T, prior=prior, latent_dim=z.shape[1]), x)


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

    return Made(Chart.of_pair(encode, decode), decode(torch.cat([t, y], 1)))


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

    return Made(Chart.of_pair(encode, decode), x)


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
    return Made(chart, x)


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

    return Made(Chart.of_pair(lambda x: x[:, :2], decode), x)


def folded_edge(g: torch.Generator, n: int = 500) -> Made:
    """A strip whose last tenth is turned back over its first, far above it."""
    z = uniform(g, n, 2, 0, 1)
    B = frame(g, 10, 3)
    back = z[:, :1] > 0.9
    x = torch.cat([torch.where(back, z[:, :1] - 0.9, z[:, :1]), z[:, 1:], 1.5 * back], 1) @ B.T
    return Made(Chart.of_pair(lambda x: x @ B[:, :2], lambda z: z @ B[:, :2].T), x)


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

    return Made(Chart.of_pair(encode, decode), z @ B.T + 0.01 * normal(g, n, 10))


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

    return Made(Chart.of_pair(encode, decode), decode(turn) + 0.01 * normal(g, n, 10))


def flat_cube(g: torch.Generator, n: int = 500) -> Made:
    """A cube of three dimensions whose codes are one of them."""
    x = uniform(g, n, 3)
    return Made(Chart.of_pair(lambda x: x[:, :1], lambda z: torch.cat([z, 0 * z, 0 * z], 1)), x)


def crowded(g: torch.Generator, n: int = 500) -> Made:
    """A square whose codes crowd at the middle."""
    z = uniform(g, n, 2)
    B = frame(g, 10, 2)

    def encode(x: Tensor) -> Tensor:
        z = x @ B
        return z * z.norm(dim=1, keepdim=True) ** 7

    def decode(z: Tensor) -> Tensor:
        return z / z.norm(dim=1, keepdim=True).clamp_min(1e-30) ** (7 / 8) @ B.T

    return Made(Chart.of_pair(encode, decode), z @ B.T)


# --------------------------------------------------------------------------------------- hopeless


def folded_many(g: torch.Generator, n: int = 500) -> Made:
    """A sphere of eight dimensions in nine, seen from above."""
    x = normal(g, n, 9)
    x = x / x.norm(dim=1, keepdim=True)

    def decode(z: Tensor) -> Tensor:
        return torch.cat([z, (1 - z.square().sum(1, keepdim=True)).clamp_min(0).sqrt()], 1)

    return Made(Chart.of_pair(lambda x: x[:, :8], decode), x)


def sheets_many(g: torch.Generator, n: int = 500) -> Made:
    """Two sheets of eight dimensions with the same codes."""
    x = torch.cat([uniform(g, n, 8), 2.0 * (uniform(g, n, 1) > 0)], 1)
    return Made(Chart.of_pair(lambda x: x[:, :8], lambda z: torch.cat([z, 0 * z[:, :1]], 1)), x)


def noise(g: torch.Generator, n: int = 500) -> Made:
    x = normal(g, n, 50)
    return Made(Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, z.new_zeros(len(z), 48)], 1)), x)


ALL = "folds tears neighborhoods density components loops interpolation interpolated-items"
SAMPLED = " prior-holes sample-holes"
CASES: dict[str, Case] = {
    "plane": (plane, wants(ALL + " missed", whole=True)),
    "plane, noise .05": (lambda g: plane(g, noise=0.05), wants(ALL + " missed", whole=True)),
    "gaussian": (gaussian, wants(ALL + SAMPLED, whole=True)),
    "gaussian, 2000 items": (lambda g: gaussian(g, n=2000), wants("folds tears components density missed")),
    "s curve": (s_curve, wants(ALL, whole=True)),
    "sphere cap": (cap, wants(ALL, whole=True)),
    "ppca 3 of 20": (lambda g: ppca(g, 3, 20), wants(ALL + SAMPLED + " missed", whole=True)),
    "ppca 8 of 50": (
        lambda g: ppca(g, 8, 50, noise=0.5),
        wants(ALL + SAMPLED + " missed", whole=True),
    ),
    "two islands in both": (
        two_islands,
        wants(
            "folds tears neighborhoods density components loops",
            "prior-holes sample-holes interpolation interpolated-items",
        ),
    ),
    "blob, 8 dimensions": (lambda g: blob(g, 8), wants(ALL + SAMPLED, "", "missed", whole=True)),
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
    "narrow codes": (narrow, wants("density components", "prior-holes sample-holes", "missed")),
    "circle in one dimension": (circle, wants("folds interpolation interpolated-items", "tears loops")),
    "circle, 2000 items": (lambda g: circle(g, n=2000), wants("folds missed", "tears")),
    "cube in one dimension": (flat_cube, wants("", "folds neighborhoods", "missed")),
    "crowded codes": (crowded, wants("", "density")),
    "8-sphere folded": (lambda g: folded_many(g, n=2000), wants("", "", "folds missed")),
    "8-d sheets folded": (lambda g: sheets_many(g, n=2000), wants("tears", "missed", "folds")),
    "noise": (noise, wants("", "neighborhoods", "folds tears loops missed")),
    "plane, 60 items": (
        lambda g: plane(g, n=60),
        wants("", "", ALL + " missed"),
    ),
    "gaussian, 60 items": (lambda g: gaussian(g, n=60), wants("", "", "prior-holes sample-holes")),
    "annulus, 60 items": (lambda g: annulus(g, n=60), wants("", "", "components loops density")),
}


if __name__ == "__main__":
    main(__file__, __doc__, "Checks of the shape of a latent space on charts of known health", CLOSED_FORM)
