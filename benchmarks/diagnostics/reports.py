"""Health reports of several models, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import chartae as ct
from chartae.audits.findings import checks

SHORT = {"ok": "ok", "warn": "warn", "fail": "FAIL", "cannot tell": "?"}


def side_by_side(reports: Mapping[str, ct.Report]) -> dict[str, Any]:
    """Columns and rows of a table: verdict and statistic of each check that any report has."""
    found = {name: {f.name: f for f in report.findings} for name, report in reports.items()}

    def cell(name: str, check: str) -> str:
        finding = found[name].get(check)
        if finding is None:
            return "-"
        value = "" if finding.statistic is None else f" {finding.statistic:.3g}"
        return SHORT[finding.verdict] + value

    used = [check for check in checks if any(check in f for f in found.values())]
    rows = [[check, *(cell(name, check) for name in reports)] for check in used]
    seconds = [f"{report.facts['seconds']:.0f}" for report in reports.values()]
    return {"columns": ["check", *reports], "rows": [*rows, ["seconds", *seconds]]}
