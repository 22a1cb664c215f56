"""Are the checks of projection, tangents and dimension right? Charts in closed form: nothing is fitted.

python benchmarks/diagnostics/projection.py --seeds 200 --first-seed 1000
"""

from __future__ import annotations

import math

import torch
from harness import CLOSED_FORM, Case, Made, frame, main, normal, uniform, wants
from torch import Tensor

from chartae.geometry import Chart


def bent(
    g: torch.Generator,
    *,
    n: int = 1000,
    d: int = 2,
    D: int = 12,
    noise: float = 0.02,
    gain: float = 1.0,
    shift: float = 0.0,
    oblique: float = 0.0,
    tilt: float = 0.0,
    wiggle: float = 0.0,
    kept: int | None = None,
    stretch: bool = False,
    uneven: float = 1.0,
    sides: tuple[float, ...] = (),
    outlying: float = 0.0,
) -> Made:
    """A plane in D dimensions with noise, and a chart of it with one planted fault."""
    B = frame(g, D, 2 * d)
    along, across = B[:, :d], B[:, d:]
    kept = d if kept is None else kept
    z = uniform(g, n, d) * torch.tensor(sides or (1.0,) * d)
    x = z @ along.T + noise * normal(g, n, D) + outlying * normal(g, n, 1) @ across[:, :1].T

    def encode(x: Tensor) -> Tensor:
        z = (x @ (along + oblique * across))[:, :kept]
        z = torch.cat([z[:, :1], z[:, 1:] / uneven], 1)
        return z.sign() * z.abs().pow(1 / 3) if stretch else z

    def decode(z: Tensor) -> Tensor:
        z = z**3 if stretch else z
        z = torch.cat([z[:, :1], z[:, 1:] * uneven], 1)
        full = torch.nn.functional.pad(gain * z + shift, (0, d - kept))
        moved = full @ (math.cos(tilt) * along + math.sin(tilt) * across).T
        return moved + wiggle * (40 * full).sin() @ across.T

    return Made(Chart.of_pair(encode, decode), x)


def identity(g: torch.Generator) -> Made:
    return Made(Chart.of_pair(lambda x: x, lambda z: z), bent(g)[1])


def cap(g: torch.Generator, n: int = 1000, noise: float = 0.005, flat: bool = False) -> Made:
    """A sphere above latitude 45°, in its azimuthal chart, in 12 dimensions; a flat one loses all heights."""
    height, turn = uniform(g, n, 1, 0.7, 1.0), uniform(g, n, 1, 0, 2 * math.pi)
    radius = (1 - height**2).sqrt()
    B = frame(g, 12, 3)
    x = torch.cat([radius * turn.cos(), radius * turn.sin(), height], 1) @ B.T + noise * normal(g, n, 12)

    def encode(x: Tensor) -> Tensor:
        x = torch.nn.functional.normalize(x @ B, dim=1)
        flat = x[:, :2]
        return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-9) * torch.acos(x[:, 2:].clamp(-1, 1))

    def decode(z: Tensor) -> Tensor:
        r = z.norm(dim=1, keepdim=True).clamp_min(1e-9)
        height = torch.full_like(r, 0.85) if flat else r.cos()
        return torch.cat([z / r * r.sin(), height], 1) @ B.T

    return Made(Chart.of_pair(encode, decode), x)


def ppca(g: torch.Generator, d: int = 3, D: int = 20, n: int = 1000, noise: float = 0.1) -> Made:
    """Probabilistic PCA with its true posterior mean."""
    W = frame(g, D, d) * torch.linspace(2.0, 1.0, d)
    x = normal(g, n, d) @ W.T + noise * normal(g, n, D)
    A = torch.linalg.solve(W.T @ W + noise**2 * torch.eye(d), W.T).T
    return Made(Chart.of_pair(lambda x: x @ A, lambda z: z @ W.T), x)


def torn_circle(g: torch.Generator, n: int = 1000) -> Made:
    """A circle in its angle, whose decoder closes the gap: a few items near the cut are lost."""
    t = uniform(g, n, 1, -math.pi, math.pi)
    B = frame(g, 12, 2)
    x = torch.cat([t.cos(), t.sin()], 1) @ B.T + 0.01 * normal(g, n, 12)

    def decode(z: Tensor) -> Tensor:
        z = z.clamp(-3.05, 3.05)
        return torch.cat([z.cos(), z.sin()], 1) @ B.T

    return Made(Chart.of_pair(lambda x: torch.atan2((x @ B)[:, 1:], (x @ B)[:, :1]), decode), x)


def constant(g: torch.Generator) -> Made:
    return bent(g, gain=0.0)


def noise(g: torch.Generator, n: int = 500) -> Made:
    return Made(
        Chart.of_pair(lambda x: x[:, :2], lambda z: torch.nn.functional.pad(z, (0, 28))), normal(g, n, 30)
    )


PROJECTION = "reconstruction reconstruction-tail denoising missed latent-dimension data-dimension "
TANGENT = "retention encoder-leakage decoder-tangent "
STEPS = "validity-radius distortion"

CASES: dict[str, Case] = {
    "plane": (bent, wants(PROJECTION + "idempotence " + TANGENT + STEPS, whole=True)),
    "plane, 250 items": (
        lambda g: bent(g, n=250),
        wants(PROJECTION + "idempotence distortion validity-radius", whole=True),
    ),
    "plane, noise .05": (
        lambda g: bent(g, noise=0.05),
        wants("reconstruction reconstruction-tail missed " + STEPS, whole=True),
    ),
    "plane, noise of one direction": (lambda g: bent(g, outlying=0.2), wants("reconstruction-tail")),
    "plane, 250 items, the same": (lambda g: bent(g, n=250, outlying=0.2), wants("reconstruction-tail")),
    "sphere cap": (cap, wants(PROJECTION + "idempotence " + TANGENT + STEPS, whole=True)),
    "ppca 3 of 20": (ppca, wants(PROJECTION + "idempotence " + TANGENT + STEPS, whole=True)),
    "identity": (identity, wants("latent-dimension retention", "denoising encoder-leakage", "missed")),
    "oblique encoder, 45°": (lambda g: bent(g, oblique=1.0), wants("retention", "encoder-leakage denoising")),
    "oblique encoder, 63°": (lambda g: bent(g, oblique=2.0), wants("", "encoder-leakage denoising")),
    "half the amplitude": (lambda g: bent(g, gain=0.5), wants("distortion", "missed retention idempotence")),
    "shifted": (lambda g: bent(g, shift=0.1), wants(TANGENT, "idempotence missed")),
    "tilted decoder, 45°": (lambda g: bent(g, tilt=math.pi / 4), wants("", "decoder-tangent missed")),
    "wiggling decoder": (lambda g: bent(g, wiggle=0.02), wants("", "validity-radius")),
    "cubic code": (lambda g: bent(g, stretch=True), wants("retention missed", "validity-radius")),
    "one axis ten times as long": (lambda g: bent(g, uneven=10.0), wants(TANGENT + "missed", "distortion")),
    "one of two dimensions": (lambda g: bent(g, kept=1), wants("", "latent-dimension missed retention")),
    "three of five dimensions": (
        lambda g: bent(g, n=2000, d=5, D=30, kept=3),
        wants("", "latent-dimension missed"),
    ),
    "sphere cap, flattened": (lambda g: cap(g, flat=True), wants("", "missed")),
    # Thinner than like items are apart, so that these hardly show them.
    "two thin dimensions lost": (
        lambda g: bent(g, d=6, D=30, kept=4, sides=(1.0, 1.0, 1.0, 1.0, 0.15, 0.15)),
        wants("", "", "missed"),
    ),
    "torn circle": (torn_circle, wants("latent-dimension", "reconstruction-tail")),
    "constant": (
        constant,
        wants("", "reconstruction missed", "idempotence denoising distortion validity-radius"),
    ),
    "noise": (noise, wants("", "", TANGENT + "missed")),
    "plane, 60 items": (lambda g: bent(g, n=60, noise=0.2), wants("", "", TANGENT + "missed")),
}

if __name__ == "__main__":
    main(
        __file__,
        __doc__,
        "Checks of projection, tangents and dimension on charts of known health",
        CLOSED_FORM,
    )
