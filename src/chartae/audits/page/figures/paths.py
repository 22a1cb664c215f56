"""Figures of interpolations and traversals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from chartae.audits.holes import FEWEST
from chartae.audits.page.figures.view import View
from chartae.audits.page.panels import Figure, Panel, chart, sheet
from chartae.geometry.interpolation import interpolate

__all__: list[str] = []

STEPS = 9  # of a path
NEAR_PATHS = 2_000  # codes that geodesics keep near


def draw_interpolation(view: View) -> Figure | None:
    if not view.pairs:
        return None
    rows = [(a, b) for a, b in view.pairs]
    kinds = [(kind, _paths(view, rows, kind.lower())) for kind in ("Straight", "Geodesic")]
    panels = []
    for kind, paths in kinds:
        panels += _walks(
            view, paths, kind, f"{kind} paths between the codes of two items", [a for a, _ in rows]
        )
    return Figure(
        "interpolation",
        "Ways between two items",
        f"Each row goes from the code of one held-out item to that of another{_under(view)}.{_framed(view)}",
        "each step could be an item, changes are even, and no step leaves the codes of items.",
        tuple(panels),
    )


def _framed(view: View) -> str:
    if not math.isfinite(view.radius):
        return f" It takes {FEWEST} held-out codes to say which steps leave those of items."
    what = "framed" if view.pictured else "dashed"
    return f" Steps that are farther from the codes of items than 99 % of held-out codes are {what}."


def _under(view: View) -> str:
    return "" if view.evidence.c is None else ", decoded under the condition of the first item"


def _paths(view: View, rows: list[tuple[int, int]], kind: str) -> list[Tensor]:
    """Walk between the codes of items; geodesics keep near other codes."""
    c, codes, support = view.evidence.c, view.z.numpy(), view.evidence.support[:NEAR_PATHS].numpy()
    paths = [
        interpolate(
            view.chart,
            codes[a],
            codes[b],
            STEPS,
            path=kind,
            codes=support,
            condition=None if c is None else c[a : a + 1],
        )
        for a, b in rows
    ]
    return [torch.as_tensor(path, dtype=torch.float32) for path in paths]


def _walks(view: View, paths: Sequence[Tensor], label: str, alt: str, rows: Sequence[int]) -> list[Panel]:
    """Draw decoded paths: strips of pictures, or lines from one color to another."""
    z = torch.cat(list(paths))
    x = view.decoded(z, np.repeat(np.asarray(rows), len(paths[0])))
    far = (view.away(z) > view.radius).reshape(len(paths), -1)
    if view.pictured:
        strips = view.pictures(x).reshape(len(paths), len(paths[0]), *view.pictures(x[:1]).shape[1:])
        leaving = f": {far.mean():.0%} of the steps are off the codes of items".replace("%", " %")
        leaving = leaving if math.isfinite(view.radius) else ""
        return [sheet(list(strips), f"{alt}{leaving}", f"{label}{leaving}", list(far))]
    panels = []
    for i, items in enumerate(x.reshape(len(paths), -1, *x.shape[1:])[:2]):
        name = f"{label}, {i + 1}"
        drawn = view.lines(name, f"{alt}, {i + 1}: one line a step")
        _steps(view, drawn, items, far[i])
        panels.append(drawn.panel())
    return panels


def _steps(view: View, drawn: chart, items: Tensor, far: np.ndarray) -> None:
    import matplotlib

    colors = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.9, len(items)))
    for item, color, off in zip(items, colors, far, strict=True):
        view.line(drawn.ax, item, color=color, lw=1, ls="--" if off else "-")
    for i, text in ((0, "first"), (-1, "last")):
        drawn.ax.plot([], [], color=colors[i], label=text)
    drawn.legend(loc="best")


def draw_traversals(view: View) -> Figure:
    z = view.z.double()
    mean = z.mean(0)
    _, s, axes = torch.linalg.svd(z - mean, full_matrices=False)
    std = s / math.sqrt(len(z) - 1)
    k = min(6 if view.pictured else 4, int((std > 0.01 * std[0]).sum()))
    axes = axes * torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)
    t = torch.linspace(-2.5, 2.5, STEPS, dtype=torch.float64)[:, None]
    lines = [(mean + t * std[i] * axes[i]).float().numpy() for i in range(k)]
    paths = [torch.from_numpy(view.chart.placed(line)) for line in lines]
    panels = []
    if view.pictured:
        panels = _walks(view, paths, "One axis a row", "Steps along principal axes of the codes", [0] * k)
    else:
        for i, path in enumerate(paths):
            drawn = view.lines(f"Axis {i + 1}", f"Decoded steps along principal axis {i + 1} of the codes")
            _steps(view, drawn, view.decoded(path, [0] * STEPS), view.away(path) > view.radius)
            panels.append(drawn.panel())
    return Figure(
        "traversals",
        "What the axes do",
        "From the mean code along the principal axes of the codes, widest first, from −2.5 to 2.5 standard "
        f"deviations{_under(view)}.{_framed(view)}",
        "each axis changes something that can be named, and its ends still look like items.",
        tuple(panels),
    )
