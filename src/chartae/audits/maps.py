"""Maps of a latent space: codes as points of a plane, colored by what is known of their items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chartae.core.errors import DataError
from chartae.geometry.charts import chart_of
from chartae.training.labels import labeled, missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Coloring", "Plane", "dots", "draw_map", "plot"]

CLASSES = 20  # that colors can tell apart
MOST = 200  # whole numbers that are labels, and no quantity
NAMED = 12  # of them, where names stand on the map
COLORS = (
    "#3b76c4", "#d95f02", "#2e9e6b", "#c43b5b", "#8465b8", "#8a5a2b", "#d36fb0",
    "#c9c400", "#5fd3e0", "#5e7d1e", "#8fb3e6", "#f2b277", "#92d1b0", "#e69aac",
    "#c3b1e1", "#c7a07a", "#efb9dc", "#8a8740", "#1f7f8c", "#b3cc7f",
)  # fmt: skip
OTHER = "#8c8c8c"  # readable on white and on black


@dataclass(frozen=True)
class Plane:
    """Where codes are drawn: as they are in one or two dimensions, else in their two principal axes.

    Parameters
    ----------
    mean : ndarray
        ``(d,)``.
    axes : ndarray
        ``(d, 1)`` or ``(d, 2)``, orthonormal.
    labels : tuple of str
        Of the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.audits.maps import Plane
    >>> plane = Plane.of(np.random.default_rng(0).normal(size=(500, 3)) * [1, 3, 2])
    >>> plane.labels
    ('principal axis 1 (62 %)', 'principal axis 2 (31 %)')
    >>> plane(np.zeros((4, 3))).shape
    (4, 2)
    """

    mean: np.ndarray
    axes: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, Z: np.ndarray) -> Plane:
        """Find it.

        Parameters
        ----------
        Z : ndarray
            ``(n, d)`` codes.

        Returns
        -------
        Plane
            Of them.
        """
        d = Z.shape[1]
        if d <= 2:
            names = ("code",) if d == 1 else ("code 1", "code 2")
            return cls(np.zeros(d), np.eye(d), names)
        mean = Z.mean(0)
        _, s, axes = np.linalg.svd(Z - mean, full_matrices=False)
        share = s**2 / max(float((s**2).sum()), np.finfo(float).tiny)
        if len(s) < 2:  # a single code, which any other axis shows as well
            s, axes = np.zeros(2), np.eye(2, d)
        axes = axes[:2] * np.sign(axes[:2].sum(1, keepdims=True) + 1e-12)  # the same on every machine
        return cls(
            mean, axes.T, tuple(f"principal axis {i + 1} ({share[i]:.0%})".replace("%", " %") for i in (0, 1))
        )

    def __call__(self, Z: np.ndarray) -> np.ndarray:
        return (np.asarray(Z) - self.mean) @ self.axes


@dataclass(frozen=True)
class Coloring:
    """What a value of an item means for the color of its point.

    Parameters
    ----------
    names : tuple of str
        Of classes; empty where values are numbers.
    values : ndarray
        ``(n,)`` numbers, or numbers of classes, −1 for none of them.

    Examples
    --------
    >>> from chartae.audits.maps import Coloring
    >>> Coloring.of(["cat", "dog", "cat"]).names, Coloring.of([0.5, 1.25, 3.0]).names
    (('cat', 'dog'), ())
    """

    names: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of(cls, y: Any, *, labels: bool = False) -> Coloring:
        """Tell classes from numbers: up to 20 different whole numbers are classes, and so is all text.

        Parameters
        ----------
        y : array_like
            ``(n,)``; None and NaN are of no class.
        labels : bool
            Whether up to 200 different whole numbers are classes, and -1 beside two or more others is none.

        Returns
        -------
        Coloring
            Of them; of classes, the 20 largest.

        Raises
        ------
        DataError
            If there is not one value for each item.
        """
        y = np.asarray(y)
        if y.ndim != 1:
            raise DataError(f"colors are of one value an item, and y has shape {y.shape}")
        there = labeled(y) if labels else ~missing(y)
        known: Any = y[there]
        if y.dtype.kind in "iuf":
            known = known[np.isfinite(known)]
            there = np.isin(y, known)
            if (known != np.round(known)).any() or len(np.unique(known)) > (MOST if labels else CLASSES):
                return cls((), y.astype(np.float64))
            known = known.astype(np.int64)
        else:
            known = known.astype(str)
        different, of, count = np.unique(known, return_inverse=True, return_counts=True)
        kept = np.sort(np.argsort(-count, kind="stable")[:CLASSES])
        place = np.full(len(different), -1)
        place[kept] = np.arange(len(kept))
        values = np.full(len(y), -1)
        values[there] = place[of]
        return cls(tuple(str(v) for v in different[kept].tolist()), values)


def dots(ax: Axes, points: np.ndarray, **look: Any) -> Any:
    """Draw points without rims.

    Parameters
    ----------
    ax : Axes
        Where to.
    points : ndarray
        ``(n, 2)``.
    **look : object
        Of ``Axes.scatter``.

    Returns
    -------
    PathCollection
        Of matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from chartae.audits.maps import dots
    >>> dots(Figure().subplots(), np.zeros((5, 2)), s=4).get_offsets().shape
    (5, 2)
    """
    return ax.scatter(points[:, 0], points[:, 1], **{"linewidths": 0, **look})


def draw_map(
    ax: Axes,
    points: np.ndarray,
    coloring: Coloring | None = None,
    *,
    label: str = "",
    legend: bool = True,
    colormap: str = "viridis",
    ink: str | None = None,
    seed: int = 0,
) -> None:
    """Draw codes as points.

    Parameters
    ----------
    ax : Axes
        Where to.
    points : ndarray
        ``(n, 2)``; or ``(n, 1)``, which become a strip.
    coloring : Coloring or None
        Of each point.
    label : str
        What the colors show.
    legend : bool
        Name classes beside the map; otherwise on it, in the middle of each.
    colormap : str
        Of numbers.
    ink : str or None
        Color of text; None: as the axes have it.
    seed : int
        Of the order in which points are drawn: no class lies on top of the others.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from chartae.audits.maps import draw_map
    >>> ax = Figure().subplots()
    >>> draw_map(ax, np.zeros((5, 2)))
    >>> len(ax.collections)
    1
    """
    n, random, label = len(points), np.random.default_rng(seed), _literal(label)
    if points.shape[1] == 1:
        points = np.hstack([points, _second(coloring, n, random)[:, None]])
        if coloring is None or coloring.names:
            names = [] if coloring is None else [_literal(name) for name in coloring.names]
            ax.set_yticks(range(len(names)), labels=names)
        else:
            ax.set_ylabel(label or "y")
        legend, on_map = False, False
    else:
        on_map = not legend
        ax.set_aspect("equal", adjustable="datalim")
    look: dict[str, Any] = {"s": float(np.clip(16000 / max(n, 1), 3, 22)), "rasterized": True, "alpha": 0.8}
    if coloring is None:
        dots(ax, points, c=COLORS[0], **look)
        return
    order = random.permutation(n)
    points, values = points[order], coloring.values[order]
    if not coloring.names:
        known = np.isfinite(values)
        dots(ax, points[~known], c=OTHER, **look)
        low, high = np.quantile(values[known], [0.02, 0.98]) if known.any() else (0, 1)
        shown = dots(ax, points[known], c=values[known], cmap=colormap, vmin=low, vmax=high, **look)
        bar = ax.figure.colorbar(shown, ax=ax, label=label, pad=0.02, aspect=30)
        bar.outline.set_visible(False)
        bar.solids.set_alpha(1)  # type: ignore[union-attr]
        if ink:
            bar.ax.tick_params(colors=ink, labelsize=8)
            bar.ax.yaxis.label.set(color=ink, fontsize=9)
        return
    palette = np.array([*COLORS, OTHER])
    dots(ax, points, c=palette[values], **look)
    if on_map:
        from matplotlib.patheffects import withStroke

        largest = np.argsort(-np.bincount(values[values >= 0], minlength=len(coloring.names)), kind="stable")
        for i in largest[:NAMED].tolist():
            name, mine = coloring.names[i], points[values == i]
            if not len(mine):
                continue
            text = _literal(name if len(name) <= 12 else f"{name[:11]}…")
            x, y = np.median(mine, 0)
            halo = withStroke(linewidth=2.5, foreground="white")
            look = {"fontsize": 10, "weight": "bold", "ha": "center", "va": "center", "path_effects": [halo]}
            ax.text(x, y, text, color=ink or "black", **look)
    elif legend:
        for i, name in enumerate(coloring.names):
            dots(ax, np.empty((0, 2)), c=str(palette[i]), s=22, label=_literal(name))
        if (values < 0).any():
            dots(ax, np.empty((0, 2)), c=OTHER, s=22, label="other")
        columns = 1 if len(coloring.names) <= 10 else 2
        ax.legend(
            title=label or None, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=columns
        )


def _literal(text: str) -> str:
    """Keep matplotlib from reading a user's text as mathematics."""
    return text.replace("$", r"\$")


def _second(coloring: Coloring | None, n: int, random: np.random.Generator) -> np.ndarray:
    """Give codes of one dimension a height: of their class, their number, or by chance."""
    spread = random.uniform(-0.35, 0.35, n)
    if coloring is None:
        return spread
    return coloring.values + spread if coloring.names else coloring.values


def plot(model: Any, X: Any, y: Any = None, *, condition: Any = None, ax: Axes | None = None) -> Axes:
    """Draw where items lie in the latent space.

    Codes of one dimension become a strip, codes of two a map, and more are seen along their two principal
    axes, whose labels say which share of the variance they hold.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a
        :class:`chartae.geometry.Chart`.
    X : array_like
        ``(n, *shape)`` items, as the model takes them.
    y : array_like or None
        ``(n,)`` what colors show. Text, and up to 20 different whole numbers, are classes.
    condition : object, optional
        Of these items, in a conditional model.
    ax : Axes or None
        Of matplotlib, to draw into; None: a new one of pyplot.

    Returns
    -------
    Axes
        With the map.

    Raises
    ------
    DataError
        If ``y`` has not one value for each item.

    Examples
    --------
    >>> import torch
    >>> import chartae as ct
    >>> from matplotlib.figure import Figure
    >>> plane = (lambda x: x[:, :2], lambda z: torch.cat([z, z.sum(1, keepdim=True)], 1))
    >>> ct.plot(plane, torch.rand(50, 3), ["a", "b"] * 25, ax=Figure().subplots()).get_xlabel()
    'code 1'
    """
    if hasattr(model, "transform"):  # as of texts, which have codes, and no chart
        z = np.asarray(model.transform(X) if condition is None else model.transform(X, condition))
    else:
        chart = chart_of(model)
        z = chart.codes(*chart.take(X, condition)).cpu().numpy()
    coloring = None if y is None else Coloring.of(y)
    if coloring is not None and len(coloring.values) != len(z):
        raise DataError(f"y has {len(coloring.values)} values, and there are {len(z)} items")
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1]
    plane = Plane.of(z)
    draw_map(ax, plane(z), coloring, label=str(getattr(y, "name", None) or ""))
    ax.set_xlabel(plane.labels[0])
    if len(plane.labels) > 1:
        ax.set_ylabel(plane.labels[1])
    return ax
