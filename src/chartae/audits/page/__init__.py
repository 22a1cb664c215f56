"""The page of a report."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chartae.audits.report import Report

__all__ = ["render", "table"]


def render(report: Report) -> str:
    """Make the page.

    Parameters
    ----------
    report : Report
        Of an audit.

    Returns
    -------
    str
        HTML that needs nothing else.

    Examples
    --------
    >>> import torch, chartae as ct
    >>> from chartae.audits.page import render
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
    >>> render(ct.audit(line, torch.rand(60, 2), only=["reconstruction"]))[:15]
    '<!doctype html>'
    """
    return f"<!doctype html><meta charset=utf-8><title>Health report</title>{table(report)}"


def table(report: Report) -> str:
    """Make the table of verdicts alone.

    Parameters
    ----------
    report : Report
        Of an audit.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> import torch, chartae as ct
    >>> from chartae.audits.page import table
    >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
    >>> "codes" in table(ct.audit(line, torch.rand(60, 2), only=["reconstruction"]))
    True
    """
    rows = "".join(f"<tr><td>{f.verdict}<td>{escape(f.title)}<td>{escape(f.says)}" for f in report.findings)
    return f"<table>{rows}</table>"
