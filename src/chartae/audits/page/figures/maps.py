"""The map of codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from chartae.audits.maps import COLORS, OTHER, Coloring, Plane, dots, draw_map
from chartae.audits.page.figures.view import POINTS, STREAM, View, finite_numbers
from chartae.audits.page.panels import INK, SECOND, Figure, Panel, chart
from chartae.training.labels import labeled

__all__: list[str] = []


def draw_codes(view: View) -> Figure:
    n = min(len(view.z), POINTS)
    z = view.z[:n].double().numpy()
    points = view.plane(z)
    panels = []

    def panel(label: str, alt: str, values: Any, unit: str = "", rows: int = n, **look: Any) -> None:
        drawn = chart(label, alt, height=3.1, right=0.45 if unit else 0.12)
        if rows < n and points.shape[1] > 1:
            dots(drawn.ax, points[rows:], s=3, c=OTHER, alpha=0.35)
        coloring = values if values is None or isinstance(values, Coloring) else Coloring((), values)
        draw_map(drawn.ax, points[:rows], coloring, label=unit, legend=False, ink=INK, **look)
        _name_axes(drawn, view.plane)
        panels.append(drawn.panel())

    labels = view.evidence.labels
    if labels is not None and labels.ndim == 1:
        coloring = Coloring.of(labels[:n], labels=True)
        there = labels[:n][labeled(labels[:n])].tolist()
        of = f" (the {len(coloring.names)} most frequent of {len(set(there))})"
        of = of if len(set(there)) > len(coloring.names) else ""
        panel(f"Labels{of}", f"Map of the codes, colored by label{of}", coloring)
    else:
        panel("Codes", "Map of the codes", None)
    known = view.per_row("density", "log_density")
    log_density = _log_density(view, z) if known is None else known[:n].astype(float)
    panel(
        "Density",
        "Map of the codes, colored by log density",
        log_density,
        "log density, nats",
        len(log_density),
    )
    s = view.stretch
    if (s[:, -1] > 0).mean() > 0.99:
        volume = np.log(np.maximum(s, 1e-12)).sum(1)
        volume -= np.median(volume)
        panel(
            "Distortion", "Map of the codes, colored by how much the decoder stretches there", volume,
            "½ log det G, above the median", min(len(volume), n), colormap="plasma",
        )  # fmt: skip
    marks = _marks(view, points)
    panels += [marks] if marks is not None else []
    seen = ""
    if view.z.shape[1] > 2:
        seen = (
            f" Codes have {view.z.shape[1]} dimensions, of which the two widest are seen: what lies on top "
            "of each other here may be far apart."
        )
    return Figure(
        "map",
        "Map of the latent space",
        "Codes of held-out items. Density: how close codes are to their neighbors. Distortion: the volume "
        "of data space that a unit of latent space becomes (e-fold for each unit). Marks: where sampled "
        "codes are far from those of any item (holes), where different items share a code (folds), and "
        f"where codes fall into islands.{seen}",
        "classes have their own regions, density and distortion vary little and smoothly, and few places "
        "are marked.",
        tuple(panels),
    )


def _log_density(view: View, z: np.ndarray) -> np.ndarray:
    """Estimate it by the distance to a neighbor, up to a constant."""
    from scipy.spatial import cKDTree

    k = min(10, len(z) - 1)
    radius = np.asarray(cKDTree(z).query(z, k=[k + 1])[0])[:, 0]
    found = -z.shape[1] * np.log(np.maximum(radius, np.finfo(float).tiny))
    return found - np.median(found)


def _marks(view: View, points: np.ndarray) -> Panel | None:
    """Draw holes, folds and islands over the codes; None where there are none."""
    drawn = chart("Marks", "Map of the codes with holes, folds and islands marked", height=3.1)
    ax, seen = drawn.ax, []
    strip = points.shape[1] == 1

    def flat(p: np.ndarray, height: float = 0.0) -> np.ndarray:
        return np.hstack([p, np.full((len(p), 1), height)]) if strip else p

    islands = view.per_row("components", "island")
    dots(ax, flat(points), s=4, c=OTHER, alpha=0.5)
    if islands is not None and len(np.unique(islands[islands >= 0])) > 1:
        islands = islands[: len(points)]
        for i in np.unique(islands[islands >= 0])[:9]:
            mine = flat(points[: len(islands)][islands == i])
            dots(ax, mine, s=5, c=COLORS[int(i) % len(COLORS)], label=f"island {int(i) + 1}")
        seen.append("islands")
    holes = _holes(view)
    if len(holes):
        where = flat(view.plane(holes[:100]), 0.3)
        look: dict[str, Any] = {"facecolors": "none", "edgecolors": SECOND, "linewidths": 1}
        dots(ax, where, s=22, marker="D", label="hole", **look)
        seen.append("holes")
    folds = view.finding("folds")
    if folds is not None and folds.verdict in ("fail", "warn"):
        array = finite_numbers(folds.also.get("pairs"))
        paired = array is not None and array.ndim == 2 and array.shape[1] == 2
        together = array[:50].astype(int).tolist() if array is not None and paired else []
        for one, other in together:
            if one in view.place and other in view.place:
                both = flat(view.plane(view.z[[view.place[one], view.place[other]]].double().numpy()))
                ax.plot(both[:, 0], both[:, 1], color="#d62728", lw=0.8)
        rows = [view.place[row] for row in folds.rows[:100] if row in view.place]
        if rows:
            where = flat(view.plane(view.z[rows].double().numpy()))
            dots(ax, where, s=24, marker="x", c="#d62728", linewidths=1.1, label="fold")
            seen.append("folds")
    if strip:
        ax.set_yticks([])
        ax.set_ylim(-1, 1)
    else:
        ax.set_aspect("equal", adjustable="datalim")
    _name_axes(drawn, view.plane)
    if not seen:
        return None
    drawn.legend(loc="upper left", handletextpad=0.2, frameon=True, facecolor="white", edgecolor="none")
    drawn.label = f"Marks: {', '.join(seen)}"
    return drawn.panel()


def _holes(view: View) -> np.ndarray:
    """Give sampled codes that are far from those of items, ``(m, d)``."""
    found = view.finding("prior-holes")
    if found is not None and found.verdict in ("warn", "fail") and len(found.codes):
        return np.asarray(found.codes, dtype=float)
    if found is not None or view.chart.source is None:
        return np.empty((0, view.z.shape[1]))
    z = view.evidence.sampled(500, prior=view.chart.prior is not None, stream=STREAM + 2).double().numpy()
    far = view.away(z) > view.radius
    return z[far] if far.mean() > 0.03 else z[:0]


def _name_axes(drawn: chart, plane: Plane) -> None:
    drawn.ax.set_xlabel(plane.labels[0])
    if len(plane.labels) > 1:
        drawn.ax.set_ylabel(plane.labels[1])
