"""Figures of the decoder's derivative and of noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chartae.audits.page.figures.view import STREAM, View, finite_numbers
from chartae.audits.page.panels import ACCENT, INK, SECOND, SOFT, Figure, chart

__all__: list[str] = []

LEAST_SPAN = 2.0  # of an axis of stretches, from its lower end to its upper


def draw_jacobian(view: View) -> Figure | None:
    s = view.stretch
    if s.shape[1] < 2 or not (s > 0).any():
        return None
    drawn = chart(
        "Stretch", f"Singular values of the decoder's Jacobian at {len(s)} codes: median and 10 to 90 % band"
    )
    low, middle, high = np.quantile(np.maximum(s, s.max() * 1e-6), [0.1, 0.5, 0.9], axis=0)
    index = np.arange(1, s.shape[1] + 1)
    drawn.ax.fill_between(index, low, high, color=ACCENT, alpha=0.25, lw=0)
    drawn.ax.plot(index, middle, color=ACCENT, marker="o" if len(index) <= 32 else None, ms=3, lw=1.4)
    least = math.log(LEAST_SPAN) / 2 - math.log(high.max() / low.min()) / 2
    if least > 0:  # else rounding would be drawn as a fall
        drawn.ax.set_ylim(low.min() * math.exp(-least), high.max() * math.exp(least))
    drawn.logarithmic("y")
    if len(index) <= 12:
        drawn.ax.set_xticks(index)
    drawn.ax.set_xlabel("direction, most stretched first")
    drawn.ax.set_ylabel(f"{view.unit} per unit of code")
    panels = [drawn.panel()]
    angles = _angles(view)
    if angles is not None:
        turned = chart("Tangent angles", "Angles between what the decoder spans and the data's tangents")
        turned.ax.hist(angles, bins=[5.0 * i for i in range(19)], color=ACCENT)
        turned.ax.set_xlabel("angle to the data's tangents, degrees")
        turned.ax.set_ylabel("number")
        panels.append(turned.panel())
    return Figure(
        "jacobian",
        "How the decoder stretches",
        "Singular values of the decoder's Jacobian at held-out codes: how far a decoded item moves for a "
        "small step in latent space, in its most stretched direction, in the next, and so on. Line: the "
        "median; band: 80 % of the codes.",
        "a flat line with a narrow band; a steep fall shows directions that change nothing, a wide band "
        "shows that distances mean different things in different places.",
        tuple(panels),
    )


def _angles(view: View) -> np.ndarray | None:
    """Find tangent angles in degrees, where a check has brought them."""
    for finding in view.report.findings:
        angles = finite_numbers(finding.also.get("angles"))
        if angles is not None and angles.size >= 10 and angles.min() >= 0 and angles.max() <= 90:
            return angles.ravel()
    return None


def draw_noise(view: View) -> Figure:
    e = view.evidence
    m = min(len(e), e.budget.points)
    x, c, flat, z = e.x[:m], None if e.c is None else e.c[:m], e.flat[:m], e.z[:m]
    size = float(e.flat.var(0).mean().sqrt())
    wide = float(e.z.var(0).sum().sqrt())
    floor = e.residuals[:m].square().mean(1).sqrt().numpy()
    levels = np.geomspace(0.01, 3, 9)
    direction = e.noise(STREAM + 3).normal(x.shape, x)
    moved, away = [], []
    for level in levels:
        noisy = view.chart.codes(x + level * size * direction, c)
        moved.append(((noisy.cpu() - z).square().sum(1).sqrt() / max(wide, 1e-30)).numpy())
        away.append(
            (view.chart.decoded(noisy, c).flatten(1).cpu() - flat).square().mean(1).sqrt().numpy() / size
        )
    code = chart("Codes", "How far codes move when noise is added to items, by the size of the noise")
    _band(code, levels, moved, ACCENT)
    code.ax.axhline(1, color=SOFT, lw=0.8, ls=":")
    code.ax.text(levels[0], 1, "spread of all codes", color=INK, fontsize=8, va="bottom")
    code.ax.set_ylabel("|E(x + sε) − E(x)| / spread")
    data = chart(
        "Projections", "How far the decoded code of a noisy item is from the item, by the size of the noise"
    )
    _band(data, levels, away, SECOND)
    data.ax.plot(levels, levels, color=INK, lw=1, ls="--", label="the noise itself")
    data.ax.axhline(float(np.median(floor)) / size, color=SOFT, lw=1, ls=":", label="without noise")
    data.ax.set_ylabel("|P(x + sε) − x|")
    data.legend(loc="upper left")
    panels = []
    for drawn in (code, data):
        drawn.logarithmic("x", "y")
        drawn.ax.set_xlabel("noise s, in the data's standard deviations")
        panels.append(drawn.panel())
    return Figure(
        "noise",
        "What becomes of noise",
        f"Noise of size s is added to each value of {m} held-out items, which are then encoded, and decoded "
        "again.",
        "codes hardly move for small noise, and what is decoded stays flat at the level without noise "
        "until the noise is large: it lies far below the dashed line, so noise is removed.",
        tuple(panels),
    )


def _band(drawn: chart, at: np.ndarray, values: Sequence[np.ndarray], color: str) -> None:
    low, middle, high = np.maximum(np.quantile(np.stack(values), [0.1, 0.5, 0.9], axis=1), 1e-9)
    drawn.ax.fill_between(at, low, high, color=color, alpha=0.25, lw=0)
    drawn.ax.plot(at, middle, color=color, lw=1.5, marker="o", ms=3)
