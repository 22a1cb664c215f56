"""The page of a report: verdicts first, then the figures behind them, in one file that needs nothing else."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from chartae.audits.findings import VERDICTS, Finding
from chartae.audits.remedies import Remedy
from chartae.models.recipes import find

if TYPE_CHECKING:
    from jinja2 import Environment

    from chartae.audits.report import Report

__all__ = ["render", "table"]

TEMPLATES = ("page.html", "table.html", "style.css")
SYMBOLS = {"ok": "✓", "warn": "!", "fail": "✗", "cannot tell": "?"}
HEADLINES = {
    "ok": "Nothing that was checked speaks against using this latent space.",
    "warn": "Usable, with the reservations below.",
    "fail": "Not to be trusted in all respects: see what fails, and what to try.",
    "cannot tell": "Some questions stay open, and nothing speaks against using it.",
}
FACTS = {
    "rows": "held-out items",
    "shape": "shape of an item",
    "latent_dim": "latent dimensions",
    "budget": "budget",
    "seconds": "seconds that the checks took",
}


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
    from chartae.audits.page.figures import figures

    return _environment().get_template("page.html").render(**_told(report), figures=figures(report))


def table(report: Report) -> str:
    """Make the table of verdicts alone, as a notebook shows it.

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
    >>> "cannot tell" in table(ct.audit(line, torch.rand(60, 2), only=["denoising"]))
    True
    """
    return _environment().get_template("table.html").render(**_told(report))


@cache
def _environment() -> Environment:
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = resources.files(__package__ or "chartae.audits.page")
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in TEMPLATES}
    return Environment(
        loader=DictLoader(texts),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _told(report: Report) -> dict[str, Any]:
    """Say what the templates need of a report."""
    given = report.evidence.chart.given
    model, _, more = str(report.facts["model"]).partition("; ")
    facts = {FACTS.get(k, k): _plain(v) for k, v in report.facts.items() if k != "model"}
    return {
        "summary": report.summary,
        "verdict": report.verdict,
        "headline": HEADLINES[report.verdict],
        "model": more or model,
        "data": model if more else "",
        "facts": facts,
        "rows": [_row(f, given) for f in sorted(report.findings, key=lambda f: VERDICTS.index(f.verdict))],
        "skipped": dict(report.skipped),
        "symbols": SYMBOLS,
    }


def _row(finding: Finding, given: Any) -> dict[str, Any]:
    """Say what a row of the table shows."""
    details: dict[str, str] = {"check": finding.name}
    if finding.statistic is not None:
        details["statistic"] = f"{_plain(finding.statistic)} {finding.unit}".strip()
    if finding.interval is not None:
        low, high = (_plain(v) for v in finding.interval)
        details["interval"] = f"{low} to {high}; each end errs in 1 % of cases"
    ok, fail = finding.thresholds
    if abs(ok) != float("inf"):
        side = "up to" if ok <= fail else "down to"
        fails = "" if abs(fail) == float("inf") else f", fails from {_plain(fail)}"
        details["thresholds"] = f"ok {side} {_plain(ok)}{fails}, where the interval is beyond it"
    if finding.p_value is not None:
        details["p"] = f"{finding.p_value:.2g}"
    if finding.rows:
        more = ", …" if len(finding.rows) > 10 else ""
        details["worst rows, from 0"] = ", ".join(str(row) for row in finding.rows[:10]) + more
    if finding.codes:
        shown = "; ".join(
            "(" + ", ".join(f"{v:.2g}" for v in z[:8]) + ", …" * (len(z) > 8) + ")" for z in finding.codes[:3]
        )
        details["worst codes"] = shown
    if finding.reference:
        details["reference"] = finding.reference
    details["seconds"] = f"{finding.seconds:.2g}"
    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "title": finding.title,
        "says": finding.says,
        "details": details,
        "remedies": [_cure(r, given) for r in finding.remedies],
    }


def _cure(remedy: Remedy, given: Any) -> dict[str, str]:
    """Say what to try, in words, as an argument of the estimator that was fitted, and on the command line."""
    fitted = hasattr(given, "blueprint_")
    if not (fitted and remedy.changes):
        return {"says": remedy.says, "arguments": "", "command": ""}
    changes = dict(remedy.changes)
    now = find(given.blueprint_["recipe"]).parameters | given.blueprint_["parameters"]
    of_recipe = {k: v for k, v in changes.pop("recipe_params", {}).items() if now.get(k) != v}
    flat = changes | of_recipe
    said = all(f"{k}={f'{v:g}' if isinstance(v, float) else repr(v)}" in remedy.says for k, v in flat.items())
    # Estimators of one recipe have its parameters as their own.
    nested = changes | ({"recipe_params": of_recipe} if of_recipe else {})
    if "prior" in changes:
        arguments = f"model.fit_prior({changes['prior']!r})"
    elif hasattr(given, "recipe_params"):
        arguments = _called(nested)
    else:
        arguments = f"ct.Autoencoder({_called(nested)})" if "recipe" in changes else _called(flat)
    command = f"chartae fit --from RUN --remedy {remedy.name} --out NEW"
    return {"says": remedy.says, "arguments": "" if said else arguments, "command": command}


def _called(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in arguments.items())


def _plain(value: Any) -> str:
    """Write a value of a fact."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " × ".join(_plain(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
