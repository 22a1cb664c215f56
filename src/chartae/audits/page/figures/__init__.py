"""The figures of a report: each says what it shows and what a good one looks like, or is left out."""

from chartae.audits.page.figures.drawing import figures
from chartae.audits.page.figures.view import View

__all__ = ["View", "figures"]
