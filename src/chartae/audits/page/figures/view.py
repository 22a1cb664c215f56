"""What the figures of a report share: items, codes and how they look."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from chartae.audits.findings import Finding
from chartae.audits.holes import FEWEST
from chartae.audits.maps import Plane
from chartae.audits.page.panels import chart
from chartae.core.images import is_picture, look_of, tiles
from chartae.core.spaces import Space
from chartae.geometry.neighbors import nearest
from chartae.parts.tables import Inputs

if TYPE_CHECKING:
    from chartae.audits.report import Report

__all__ = ["View"]

POINTS = 2_000  # of a map
NEIGHBORS = 5
NAMED = 24  # values of an item, where they have names
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
        array = finite_numbers(self.also(name, key))
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
        if len(series) <= 12 or self.names:
            look = {"marker": "o", "markersize": 3, **look}
        ax.plot(series.numpy(), **look)
        if self.names:
            many = len(self.names) > 8
            turned: dict[str, Any] = (
                {"rotation": 90, "fontsize": 6} if many else {"rotation": 30, "ha": "right"}
            )
            ax.set_xticks(range(len(self.names)), labels=self.names, **turned)
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
        if names is not None and len(names) != n and self.space is not None:
            names = Inputs(self.space).names  # of columns that differ in kind
        if names is None or len(names) != n or n > NAMED:
            return []
        return [str(name)[:14].replace("$", r"\$") for name in names]

    @property
    def unit(self) -> str:
        """Of the items' values."""
        if self.space is None or self.space.scale.numel() == 1:
            return "units of the data"
        return "standard deviations" + ", or chances" * bool(Inputs(self.space).one_hot)

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
        """How far from others a held-out code may be: 99 % are nearer; infinite where too few can say."""
        queries = self.evidence.queries[:POINTS].double().numpy()
        if len(queries) < FEWEST:
            return math.inf
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
        """Rows to walk between: of one condition, or else of different classes, and typically far apart."""
        n = min(len(self.z), POINTS)
        random = self.evidence.random(STREAM)
        a, b = random.permutation(n)[: n // 2], random.permutation(n)[: n // 2]
        apart = (self.z[a] - self.z[b]).norm(dim=1).numpy()
        labels, c = self.evidence.labels, self.evidence.c
        if c is not None:
            alike = (c[a] == c[b]).flatten(1).all(1).cpu().numpy()
            apart = np.where(alike, apart, 0) if alike.any() else apart
        elif labels is not None and labels.ndim == 1:
            apart = np.where(labels[a] != labels[b], apart, 0)
        order = np.argsort(-apart)
        order = order[len(order) // 8 :]  # the farthest are exceptions
        return [(int(a[i]), int(b[i])) for i in order[:4] if a[i] != b[i]]


def finite_numbers(brought: Any) -> np.ndarray | None:
    """Take what a check has brought as finite numbers, if that is what it is."""
    try:
        array = np.asarray(brought, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.size and np.isfinite(array).all() else None
