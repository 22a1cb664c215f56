"""Write docs/benchmarks.md from the committed JSON under benchmarks/*/results/."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEADER = """# Benchmarks

<!-- Written by benchmarks/render.py from benchmarks/*/results/*.json; do not edit. -->

Every table was measured by the command under it; the raw numbers lie in `benchmarks/`, and
`benchmarks/README.md` says how to repeat them.
"""


def cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def machine_line(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())
    isa = machine.get("isa") or []
    parts = [
        f"{machine['cpu']}" + (f" ({', '.join(isa)})" if isa else ""),
        f"{machine['threads']} threads on {machine['cores']} cores" if "threads" in machine else "",
        machine.get("gpu", ""),
        versions,
        machine.get("date", ""),
    ]
    return "; ".join(part for part in parts if part)


def section(result: dict[str, Any]) -> str:
    columns = result["columns"]
    lines = [f"## {result['title']}", "", "| " + " | ".join(map(cell, columns)) + " |"]
    lines.append("|" + "|".join([" --- ", *[" ---: "] * (len(columns) - 1)]) + "|")
    for row in result["rows"]:
        values = [row.get(c, "") for c in columns] if isinstance(row, dict) else row
        lines.append("| " + " | ".join(map(cell, values)) + " |")
    if result.get("figure"):  # relative to docs/
        lines += ["", f"![{result['title']}]({result['figure']})"]
    notes = result["notes"] if isinstance(result["notes"], list) else [result["notes"]]
    lines += ["", *(f"- {note}" for note in notes if note), "", f"`{result['command']}`", ""]
    if isinstance(result["machine"], dict):
        lines.append(machine_line(result["machine"]))
    else:
        lines.append(str(result["machine"]))
    return "\n".join(lines) + "\n"


def render(root: Path) -> str:
    files = sorted(root.glob("benchmarks/*/results/*.json"))
    return "\n".join([HEADER, *(section(json.loads(f.read_text(encoding="utf-8"))) for f in files)])


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", default=str(ROOT / "docs" / "benchmarks.md"))
    p.add_argument("--check", action="store_true", help="fail if the file is not what the JSON says")
    args = p.parse_args()
    text, out = render(ROOT), Path(args.out)
    if args.check:
        if not out.exists() or out.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{out.name} is out of date: run python benchmarks/render.py")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
