"""What a sweep has found, as a record and as a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chartae import __version__
from chartae.audits.maps import COLORS
from chartae.estimators.sweeps.cells import Cell
from chartae.estimators.sweeps.choice import behind_of, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FIGURE", "RECORD", "Sweep"]

FORMAT = 1
RECORD, FIGURE = "sweep.json", "sweep.png"


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Parameters
    ----------
    run : Path
        Its folder.
    cells : tuple of Cell
        All of the grid, by size, noise and beta.
    recommended : Cell
        Which to take; ``chartae.load(sweep.recommended.run)`` opens it.
    reason : str
        Why, in one or two sentences.
    notes : tuple of str
        What the rule does not know, and what to mind.
    facts : dict
        What all cells share: data, recipe, parameters.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = ct.sweep(X, run=folder + "/s", latent_dims=(1, 2), betas=(1,), max_epochs=2)
    >>> [cell.latent_dim for cell in found.cells], len(found.recommended.nats)
    ([1, 2], 50)
    """

    run: Path
    cells: tuple[Cell, ...]
    recommended: Cell
    reason: str
    notes: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def best(self) -> Cell:
        """The cell with the best mean over rows, whatever its size."""
        return best_of(self.cells)

    def behind(self, cell: Cell) -> tuple[float, float]:
        """Say how far a cell is behind the best.

        Parameters
        ----------
        cell : Cell
            One of this sweep's.

        Returns
        -------
        nats, standard_error : float
            Mean over rows of the difference, and its standard error; NaN for a cell that failed.
        """
        return behind_of(self.best, cell)

    def to_dict(self) -> dict[str, Any]:
        """Give all as JSON values.

        Returns
        -------
        dict
            As ``sweep.json`` has it.
        """
        cells = []
        for cell in self.cells:
            gap, error = self.behind(cell)
            behind = None if cell.failed else {"nats": gap, "standard_error": error}
            cells.append(finite(cell.to_dict()) | {"behind": behind})
        return {
            **head_of(self.facts),
            "cells": cells,
            "recommended": self.recommended.to_dict()["run"],
            "reason": self.reason,
            "notes": list(self.notes),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw distortion against rate, a line for each latent size; against the size where there is no rate.

        Parameters
        ----------
        ax : Axes or None
            Of matplotlib, to draw into; None: a new one.

        Returns
        -------
        Axes
            With the curves.

        References
        ----------
        Alemi et al. 2018, arXiv:1711.00464 (rate and distortion of a VAE).

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np, chartae as ct
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = ct.sweep(np.eye(100), run=folder + "/s", latent_dims=(1, 2), betas=(1,), max_epochs=1)
        >>> found.plot().get_xlabel()
        'rate: KL, nats a row'
        """
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(6.4, 4.6), layout="constrained").subplots()
        done = [cell for cell in self.cells if not cell.failed]
        rated = done[0].rate is not None
        noises = list(dict.fromkeys(cell.noise for cell in done))
        sizes = list(dict.fromkeys(cell.latent_dim for cell in done))

        def place(cell: Cell) -> tuple[float, float]:
            return float(cell.rate if cell.rate is not None else cell.latent_dim), cell.distortion

        for noise, mark in zip(noises, _marks(len(noises)), strict=True):
            named = f", noise {noise}" if len(noises) > 1 else ""
            for i, d in enumerate(sizes if rated else [None]):
                mine = [c for c in done if c.noise == noise and d in (c.latent_dim, None)]
                if not mine:
                    continue
                color = COLORS[(i if rated else noises.index(noise)) % len(COLORS)]
                label = f"latent_dim {d}{named}" if rated else named[2:]
                ax.plot(*zip(*map(place, mine), strict=True), marker=mark, color=color, label=label, ms=5)
                for cell in mine if rated and len(sizes) * len(noises) <= 4 else []:
                    near: dict[str, Any] = {
                        "textcoords": "offset points",
                        "xytext": (5, 4),
                        "fontsize": 7,
                        "color": color,
                    }
                    if cell.beta is not None:
                        ax.annotate(f"β {cell.beta:g}", place(cell), **near)
        ring: dict[str, Any] = {
            "marker": "o",
            "ms": 13,
            "mfc": "none",
            "mec": "#1f1f1f",
            "mew": 1.4,
            "ls": "",
        }
        ax.plot(*place(self.recommended), label="recommended", **ring)
        ax.set_ylabel("distortion: −E log p(x | z), nats a row")
        ax.set_xlabel("rate: KL, nats a row" if rated else "latent dimensions")
        if rated:
            best = max(done, key=lambda c: c.elbo if c.elbo is not None else -math.inf)
            low, high = ax.get_ylim()
            rates = np.array(ax.get_xlim())
            look: dict[str, Any] = {"ls": "--", "lw": 0.8, "color": "#828282", "zorder": 0}
            ax.plot(rates, -(best.elbo or 0.0) - rates, label="ELBO of the best", **look)
            ax.set(xlim=tuple(rates), ylim=(low, high))
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
        return ax


def _marks(n: int) -> list[str]:
    return [("o", "s", "^", "D", "v")[i % 5] for i in range(n)]


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def head_of(facts: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "chartae": __version__, "facts": facts}
