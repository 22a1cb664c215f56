"""The figures of a report: each says what it shows and what a good one looks like, or is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from chartae.audits.findings import Finding
from chartae.audits.maps import COLORS, OTHER, Coloring, Plane, dots, draw_map
from chartae.audits.page.panels import ACCENT, INK, SECOND, SOFT, Figure, Panel, chart, sheet
from chartae.core.images import is_picture, look_of, tiles
from chartae.core.spaces import Space
from chartae.geometry.interpolation import interpolate
from chartae.geometry.neighbors import nearest
from chartae.parts.distributions import kl

if TYPE_CHECKING:
    from chartae.audits.report import Report

__all__ = ["View", "figures"]

POINTS = 2_000  # of a map
STEPS = 9  # of a path
NEAR_PATHS = 2_000  # codes that geodesics keep near
ACROSS = 8  # pictures in a row
NEIGHBORS = 5
LARGEST = 96  # pixels of a picture's longer side
STREAM = 900  # of random numbers: those of the checks are below
SIGNIFICANT = 0.01  # nats, and the share of held-out codes that lie farther out


class View:
    """What figures are drawn from: a report's evidence, and what several of them need.

    Parameters
    ----------
    report : Report
        Of an audit.

    Examples
    --------
    >>> import torch, chartae as ct
    >>> from chartae.audits.page.figures import View
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
    >>> View(ct.audit(line, torch.rand(60, 2), only=["reconstruction"])).pictured
    False
    """

    def __init__(self, report: Report) -> None:
        self.report, self.evidence, self.chart = report, report.evidence, report.evidence.chart
        self.given = self.chart.given
        self.place = {int(row): i for i, row in enumerate(self.evidence.index)}

    def finding(self, name: str) -> Finding | None:
        """Find what a check has found.

        Parameters
        ----------
        name : str
            Of the check.

        Returns
        -------
        Finding or None
            Of that name, if it ran.
        """
        return next((f for f in self.report.findings if f.name == name), None)

    def also(self, name: str, key: str) -> Any:
        """Find what a check has brought besides.

        Parameters
        ----------
        name, key : str
            Of the check, and of what it brought.

        Returns
        -------
        object
            None where there is none.
        """
        found = self.finding(name)
        return None if found is None else found.also.get(key)

    def per_row(self, name: str, key: str) -> np.ndarray | None:
        """Find what a check says of each of the first rows.

        Parameters
        ----------
        name, key : str
            Of the check, and of what it brought.

        Returns
        -------
        ndarray or None
            ``(m,)``, of the first rows of the evidence.
        """
        array = _numbers(self.also(name, key))
        return array if array is not None and array.ndim == 1 and 0 < len(array) <= len(self.z) else None

    # ---------------------------------------------------------------- items

    @cached_property
    def space(self) -> Space | None:
        """Of the items, where the model says it."""
        return getattr(self.given, "space_", None)

    @cached_property
    def pictured(self) -> bool:
        """Whether items are images."""
        return is_picture(self.space if self.space is not None else self.evidence.x.shape[1:])

    @cached_property
    def look(self) -> dict[str, Any]:
        """How they are shown."""
        if self.space is not None:
            return look_of(self.space, getattr(self.given, "medium_", None))
        flat = self.evidence.flat
        return {"value_range": (float(flat.min()), float(flat.max())), "layout": "auto"}

    def pictures(self, x: Tensor) -> np.ndarray:
        """Turn items into tiles.

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``, in the chart's units.

        Returns
        -------
        ndarray
            ``(n, height, width, channels)`` bytes.
        """
        from PIL import Image

        x = x.detach().cpu()
        if self.space is not None:
            space = self.space.cpu() if self.space.center.is_cuda else self.space
            if space.scale.numel() == 1:
                x = x + space.from_model(torch.zeros(1, *space.model_shape))
            else:
                x = space.from_model(x)
        drawn = tiles(x.numpy(), **self.look)
        height, width = drawn.shape[1:3]
        if max(height, width) <= LARGEST:
            return drawn
        size = (max(1, width * LARGEST // max(height, width)), max(1, height * LARGEST // max(height, width)))
        small = [Image.fromarray(t.squeeze(-1) if t.shape[-1] == 1 else t) for t in drawn]
        made = np.stack([np.asarray(t.resize(size, Image.Resampling.BOX)) for t in small])
        return made if made.ndim == 4 else made[..., None]

    def decoded(self, z: Tensor, rows: Any = None) -> Tensor:
        """Decode codes, under the conditions of some rows.

        Parameters
        ----------
        z : Tensor
            ``(n, d)``.
        rows : Tensor or None
            ``(n,)`` whose conditions; None: of the first ones, over and over.

        Returns
        -------
        Tensor
            ``(n, *shape)``.
        """
        rows = torch.arange(len(z)) % len(self.z) if rows is None else torch.as_tensor(rows)
        c = None if self.evidence.c is None else self.evidence.c[rows]
        return self.chart.decoded(z.to(self.evidence.x.device), c).cpu()

    def line(self, ax: Any, item: Tensor, **look: Any) -> None:
        """Draw an item as a line, or as one for each channel.

        Parameters
        ----------
        ax : Axes
            Where to.
        item : Tensor
            ``(*shape)``.
        **look : object
            Of ``Axes.plot``.
        """
        item = item.detach().cpu()
        series = item if item.dim() == 2 and item.shape[1] <= 3 else item.flatten()[:, None]
        if len(series) <= 12:
            look = {"marker": "o", "markersize": 3, **look}
        ax.plot(series.numpy(), **look)
        if self.names:
            ax.set_xticks(range(len(self.names)), labels=self.names, rotation=30, ha="right")
        elif len(series) <= 12:
            ax.set_xticks(range(len(series)))

    def lines(self, label: str, alt: str) -> chart:
        """Begin a chart of items as lines.

        Parameters
        ----------
        label, alt : str
            Of the chart.

        Returns
        -------
        chart
            With room for the names of columns, if they have any.
        """
        drawn = chart(label, alt, bottom=0.75 if self.names else 0.46)
        drawn.ax.set_ylabel(self.unit)
        return drawn

    @cached_property
    def names(self) -> list[str]:
        """Of the values of an item, where there are few."""
        names, n = getattr(self.space, "columns", None), self.evidence.features
        return (
            []
            if names is None or len(names) != n or n > 8
            else [str(name)[:12].replace("$", r"\$") for name in names]
        )

    @property
    def unit(self) -> str:
        """Of the items' values."""
        tabular = self.space is not None and self.space.scale.numel() > 1
        return "standard deviations" if tabular else "units of the data"

    # ---------------------------------------------------------------- codes

    @cached_property
    def z(self) -> Tensor:
        """Codes, ``(n, d)``."""
        return self.evidence.z

    @cached_property
    def plane(self) -> Plane:
        """Where they are drawn."""
        return Plane.of(self.z.double().numpy())

    @cached_property
    def radius(self) -> float:
        """How far from others a held-out code may be: 99 % are nearer."""
        queries = self.evidence.queries[:POINTS].double().numpy()
        return float(np.quantile(self.away(queries), 1 - SIGNIFICANT))

    def away(self, Z: Any) -> np.ndarray:
        """Measure how far codes are from those of items.

        Parameters
        ----------
        Z : array_like
            ``(n, d)``.

        Returns
        -------
        ndarray
            ``(n,)`` distances to the fifth neighbor among codes of other items.
        """
        support = self.evidence.support[: 2 * POINTS]
        return nearest(Z, support, min(NEIGHBORS, len(support)))[0][:, -1]

    @cached_property
    def stretch(self) -> np.ndarray:
        """Singular values of the decoder's Jacobian at the points' codes, ``(m, d)``, largest first."""
        return np.sqrt(np.linalg.eigvalsh(self.evidence.metric).clip(0))[:, ::-1]

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Rows to walk between: of different classes where there are any, and typically far apart."""
        n = min(len(self.z), POINTS)
        random = self.evidence.random(STREAM)
        a, b = random.permutation(n)[: n // 2], random.permutation(n)[: n // 2]
        apart = (self.z[a] - self.z[b]).norm(dim=1).numpy()
        labels = self.evidence.labels
        if labels is not None and labels.ndim == 1:
            apart = np.where(labels[a] != labels[b], apart, 0)
        order = np.argsort(-apart)
        order = order[len(order) // 8 :]  # the farthest are exceptions
        return [(int(a[i]), int(b[i])) for i in order[:4] if a[i] != b[i]]


def _numbers(brought: Any) -> np.ndarray | None:
    """Take what a check has brought as finite numbers, if that is what it is."""
    try:
        array = np.asarray(brought, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.size and np.isfinite(array).all() else None


def figures(report: Report) -> list[Figure]:
    """Draw all figures that can be drawn of a model.

    Parameters
    ----------
    report : Report
        Of an audit.

    Returns
    -------
    list of Figure
        In the order of the page; one that failed has no panels, and shows why.

    Examples
    --------
    >>> import torch, chartae as ct
    >>> from chartae.audits.page.figures import figures
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
    >>> report = ct.audit(line, torch.rand(60, 2), only=["reconstruction"])
    >>> [figure.name for figure in figures(report)]
    ['reconstructions', 'map', 'interpolation', 'traversals', 'noise']
    """
    view, made = View(report), []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for draw in DRAWN:
            try:
                figure = draw(view)
            except Exception as error:  # whatever a model does to one figure, the rest of the page is of use
                name = draw.__name__.lstrip("_")
                why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                figure = Figure(name, name.capitalize(), why, "", ())
            if figure is not None:
                made.append(figure)
    return made


# ------------------------------------------------------------------------------------------ items


def _reconstructions(view: View) -> Figure:
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


def _samples(view: View) -> Figure | None:
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


# ------------------------------------------------------------------------------------------ maps


def _map(view: View) -> Figure:
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
        panel("Labels", "Map of the codes, colored by label", Coloring.of(labels[:n]))
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
        array = _numbers(folds.also.get("pairs"))
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
    if found is not None and found.verdict == "ok":
        return np.empty((0, view.z.shape[1]))
    if found is not None and len(found.codes):
        return np.asarray(found.codes, dtype=float)
    if view.chart.source is None:
        return np.empty((0, view.z.shape[1]))
    z = view.evidence.sampled(500, prior=view.chart.prior is not None, stream=STREAM + 2).double().numpy()
    far = view.away(z) > view.radius
    return z[far] if far.mean() > 0.03 else z[:0]


def _name_axes(drawn: chart, plane: Plane) -> None:
    drawn.ax.set_xlabel(plane.labels[0])
    if len(plane.labels) > 1:
        drawn.ax.set_ylabel(plane.labels[1])


# ------------------------------------------------------------------------------------------ paths


def _interpolation(view: View) -> Figure | None:
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
        "Each row goes from the code of one held-out item to that of another. "
        + _FRAMED.format(what="framed" if view.pictured else "dashed"),
        "each step could be an item, changes are even, and no step leaves the codes of items.",
        tuple(panels),
    )


_FRAMED = "Steps that are farther from the codes of items than 99 % of held-out codes are {what}."


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
        leaving = f"{far.mean():.0%} of the steps are off the codes of items".replace("%", " %")
        return [sheet(list(strips), f"{alt}; {leaving}", f"{label}: {leaving}", list(far))]
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


def _traversals(view: View) -> Figure:
    z = view.z.double()
    mean = z.mean(0)
    _, s, axes = torch.linalg.svd(z - mean, full_matrices=False)
    std = s / math.sqrt(len(z) - 1)
    k = min(6 if view.pictured else 4, int((std > 0.01 * std[0]).sum()))
    axes = axes * torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)
    t = torch.linspace(-2.5, 2.5, STEPS, dtype=torch.float64)[:, None]
    paths = [(mean + t * std[i] * axes[i]).float() for i in range(k)]
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
        "deviations. " + _FRAMED.format(what="framed" if view.pictured else "dashed"),
        "each axis changes something that can be named, and its ends still look like items.",
        tuple(panels),
    )


# ------------------------------------------------------------------------------------------ derivatives


def _jacobian(view: View) -> Figure | None:
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
        angles = _numbers(finding.also.get("angles"))
        if angles is not None and angles.size >= 10 and angles.min() >= 0 and angles.max() <= 90:
            return angles.ravel()
    return None


def _noise(view: View) -> Figure:
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


# ------------------------------------------------------------------------------------------ training


def _kl(view: View) -> Figure | None:
    rate = _kl_per_dimension(view)
    if rate is None or len(rate) < 2:
        return None
    order = np.argsort(-rate)
    shown = order[:64]
    drawn = chart("KL", f"KL per latent dimension, from {rate[order[0]]:.2g} to {rate[order[-1]]:.2g} nats")
    used = rate[shown] > SIGNIFICANT
    drawn.ax.bar(np.arange(len(shown)), rate[shown], color=np.where(used, ACCENT, SECOND))
    drawn.ax.set_xlim(-0.7, max(len(shown), 5) - 0.3)
    drawn.ax.set_ylabel("nats")
    drawn.ax.set_xlabel("latent dimension, most used first")
    if len(shown) <= 16:
        drawn.ax.set_xticks(range(len(shown)), labels=[str(i + 1) for i in shown])
    else:
        drawn.ax.set_xticks([])
    idle = int((rate <= SIGNIFICANT).sum())
    return Figure(
        "kl",
        "What each dimension carries",
        "KL(q(z | x) ‖ p(z)) of each latent dimension, averaged over items: how much it says of an item. "
        f"{idle or 'None'} of {len(rate)} {'is' if idle == 1 else 'are'} below {SIGNIFICANT} nats.",
        "at least as many dimensions as the data have are clearly above zero; one near zero is not used.",
        (drawn.panel(),),
    )


def _kl_per_dimension(view: View) -> np.ndarray | None:
    brought = view.also("active-dimensions", "kl")
    if brought is None and view.chart.posterior is not None and view.chart.prior is not None:
        rows = slice(1_000)
        q = view.chart.q(view.evidence.x[rows], None if view.evidence.c is None else view.evidence.c[rows])
        brought = kl(q, view.chart.prior(None if view.evidence.c is None else view.evidence.c[rows]))
        brought = None if brought is None else brought.mean(0).cpu().numpy()
    rate = _numbers(brought)
    return rate if rate is not None and rate.ndim == 1 else None


_NO_TERM = {"epoch", "seconds", "rows_per_second", "learning_rate", "grad_norm", "best", "loss", "val_loss"}


def _training(view: View) -> Figure | None:
    history = getattr(view.given, "history_", None) or []
    if len(history) < 2:
        return None
    terms = [
        k
        for k, v in history[-1].items()
        if isinstance(v, int | float) and k not in _NO_TERM and not k.startswith("val_")
    ]
    best = getattr(view.given, "best_epoch_", None)
    panels = []
    for name in ["loss", *(terms[:3] if len(terms) > 1 else [])]:  # a single term is the loss
        drawn = chart(name, f"{name} by epoch, of training and of held-out rows")
        later = []
        for key, label, color, style in (
            (name, "training", ACCENT, "-"),
            (f"val_{name}", "held out", SECOND, "--"),
        ):
            seen = [
                (h["epoch"], h[key])
                for h in history
                if isinstance(h.get(key), int | float) and math.isfinite(h[key])
            ]
            if seen:
                drawn.ax.plot(
                    [e for e, _ in seen], [v for _, v in seen], label=label, lw=1.4, color=color, ls=style
                )
                later += [v for _, v in seen[len(seen) // 10 :]]
        if not later:
            continue
        if best is not None and len(history) > 2:
            drawn.ax.axvline(best, color=SOFT, lw=0.9, ls=":", label="weights kept")
        margin = 0.05 * (max(later) - min(later)) or 1.0
        drawn.ax.set_ylim(min(later) - margin, max(later) + margin)
        drawn.ax.set_xlabel("epoch")
        drawn.legend(loc="best")
        panels.append(drawn.panel())
    return Figure(
        "training",
        "Training",
        "The loss and its terms by epoch; the first tenth may lie outside.",
        "both curves have become flat and stay close; a held-out curve that rises means that training "
        "items are learned by heart.",
        tuple(panels),
    )


DRAWN: tuple[Callable[[View], Figure | None], ...] = (
    _reconstructions,
    _samples,
    _map,
    _interpolation,
    _traversals,
    _jacobian,
    _noise,
    _kl,
    _training,
)
