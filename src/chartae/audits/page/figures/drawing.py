"""All figures of a report, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from chartae.audits.page.figures.derivatives import draw_jacobian, draw_noise
from chartae.audits.page.figures.items import draw_reconstructions, draw_samples
from chartae.audits.page.figures.maps import draw_codes
from chartae.audits.page.figures.paths import draw_interpolation, draw_traversals
from chartae.audits.page.figures.training import draw_rates, draw_training
from chartae.audits.page.figures.view import View
from chartae.audits.page.panels import Figure

if TYPE_CHECKING:
    from chartae.audits.report import Report

__all__ = ["figures"]


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
        for name, draw in DRAWN.items():
            try:
                figure = draw(view)
            except Exception as error:  # whatever a model does to one figure, the rest of the page is of use
                why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                figure = Figure(name, name.capitalize(), why, "", ())
            if figure is not None:
                made.append(figure)
    return made


#: What is drawn, in the order of the page.
DRAWN: dict[str, Callable[[View], Figure | None]] = {
    "reconstructions": draw_reconstructions,
    "samples": draw_samples,
    "map": draw_codes,
    "interpolation": draw_interpolation,
    "traversals": draw_traversals,
    "jacobian": draw_jacobian,
    "noise": draw_noise,
    "kl": draw_rates,
    "training": draw_training,
}
