"""Figures of reconstructions and samples."""

from __future__ import annotations

import torch
from torch import Tensor

from chartae.audits.maps import OTHER, Plane, dots
from chartae.audits.page.figures.view import POINTS, STREAM, View
from chartae.audits.page.panels import ACCENT, INK, SECOND, Figure, Panel, chart, sheet

__all__: list[str] = []

ACROSS = 8  # pictures in a row


def draw_reconstructions(view: View) -> Figure:
    error = view.evidence.residuals.square().sum(1)
    order = torch.argsort(error)
    n, k = len(order), min(ACROSS, len(order) // 3)
    middle = order[(n - k) // 2 : (n - k) // 2 + k]
    shape = view.evidence.x.shape[1:]
    panels = []
    for name, rows in (("Best", order[:k]), ("Typical", middle), ("Worst", order.flip(0)[:k])):
        numbers = ", ".join(str(int(view.evidence.index[i])) for i in rows)
        above, below = view.evidence.x[rows].cpu(), view.evidence.p[rows].reshape(-1, *shape)
        if view.pictured:
            alt = f"{name} reconstructions: {k} items above, what becomes of each below; rows {numbers}"
            panels.append(sheet([view.pictures(above), view.pictures(below)], alt, f"{name}: rows {numbers}"))
            continue
        row = int(view.evidence.index[rows[0]])
        alt = f"The item of row {row} and its reconstruction, {name.lower()} of all"
        drawn = view.lines(f"{name}: row {row}", alt)
        view.line(drawn.ax, above[0], color=INK, lw=1.4)
        view.line(drawn.ax, below[0], color=SECOND, lw=1.2, ls="--")
        drawn.ax.plot([], [], color=INK, label="item")
        drawn.ax.plot([], [], color=SECOND, ls="--", label="reconstruction")
        drawn.legend(loc="best")
        panels.append(drawn.panel())
    what = (
        "Items above, and what decoding their codes gives below"
        if view.pictured
        else "Items and what decoding their codes gives"
    )
    return Figure(
        "reconstructions",
        "Reconstructions",
        f"{what}, ordered by the size of what is lost.",
        "the best and the typical ones differ from their items by noise only, and the worst are unusual "
        "items, not ordinary ones torn apart.",
        tuple(panels),
    )


def draw_samples(view: View) -> Figure | None:
    sources = [("prior", "From the prior", view.chart.prior, True)]
    sources.append(("density", "From the fitted density", view.chart.sampler, False))
    panels = []
    for name, label, source, prior in sources:
        if source is None:
            continue
        z = view.evidence.sampled(6 * ACROSS if view.pictured else 400, prior=prior, stream=STREAM + 1)
        x = view.decoded(z)
        if view.pictured:
            shown = view.pictures(x)
            rows = [shown[i : i + ACROSS] for i in range(0, len(shown), ACROSS)]
            panels.append(sheet(rows, f"{len(z)} decoded samples of the {name}", label))
        else:
            panels.append(_cloud(view, x, label, name))
    if not panels:
        return None
    return Figure(
        "samples",
        "Samples",
        "Codes drawn at random, decoded (the mean of p(x | z))."
        if view.pictured
        else "Codes drawn at random and decoded, over held-out items, along the data's two principal axes.",
        "they could be items, and are as different from each other as items are."
        if view.pictured
        else "samples cover the same ground as items, and no other.",
        tuple(panels),
    )


def _cloud(view: View, x: Tensor, label: str, name: str) -> Panel:
    flat = view.evidence.flat[:POINTS].double().numpy()
    plane = Plane.of(flat)
    drawn = chart(label, f"Decoded samples of the {name} over held-out items")
    items, made = plane(flat), plane(x.flatten(1).double().numpy())
    if items.shape[1] == 1:
        drawn.ax.hist(
            [items[:, 0], made[:, 0]],
            bins=30,
            density=True,
            color=[OTHER, ACCENT],
            label=["items", "samples"],
        )
    else:
        dots(drawn.ax, items[:400], s=8, c=OTHER, label="items")
        dots(drawn.ax, made, s=8, c=ACCENT, label="samples", alpha=0.8)
        drawn.ax.set_ylabel(plane.labels[1].replace("code", "value"))
    drawn.ax.set_xlabel(plane.labels[0].replace("code", "value"))
    drawn.legend(loc="best")
    return drawn.panel()
