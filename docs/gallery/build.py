"""Turn the scripts of the gallery into pages: run them cell by cell, and keep what they print and draw.

A script is cut at lines "# %%". The comment right below such a line is prose, in Markdown, and what
follows is code. A matplotlib Figure that a cell leaves in a variable is saved below it.

    python docs/gallery/build.py                            # all pages
    python docs/gallery/build.py interpolation --small --out somewhere    # one, in seconds
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LARGEST = 150_000  # bytes of a figure
PAGES = sorted(path.stem for path in HERE.glob("*.py") if path.read_text("utf-8").startswith("# %%"))
sys.path.insert(0, str(HERE))  # what several pages share is a module beside them


def cells(script: str) -> list[tuple[str, str]]:
    """Cut a script into pairs of prose and code."""
    found = []
    for part in re.split(r"^# %%.*\n", script, flags=re.M)[1:]:
        prose = re.match(r"(#.*\n)*", part)
        assert prose is not None
        text = re.sub(r"^# ?", "", prose[0], flags=re.M).strip()
        found.append((text, part[prose.end() :].strip()))
    return found


def build(name: str, out: Path = HERE, *, small: bool = False) -> Path:
    """Run a page and write it, with its figures."""
    from matplotlib.figure import Figure
    from PIL import Image

    script = HERE / f"{name}.py"
    known: dict[str, Any] = {"__name__": "__main__", "small": small}
    drawn: list[Figure] = []
    lines = [f"<!-- Made from {script.name} by build.py: change that. -->", ""]
    for prose, code in cells(script.read_text("utf-8")):
        if prose:
            lines += [prose, ""]
        if not code:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error")
            before = (
                script.read_text("utf-8").partition(code)[0].count("\n")
            )  # so that errors name their lines
            exec(compile("\n" * before + code, str(script), "exec"), known)
        lines += ["```python", code, "```", ""]
        if printed.getvalue().strip():
            lines += ["```text", printed.getvalue().rstrip(), "```", ""]
        for figure in [v for v in known.values() if isinstance(v, Figure) and v not in drawn]:
            drawn.append(figure)
            path = out / "figures" / f"{name}{f'_{len(drawn)}' if len(drawn) > 1 else ''}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=72, bbox_inches="tight", metadata={"Software": None})
            Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
            assert path.stat().st_size < LARGEST, f"{path} is too large"
            lines += [f"![{figure.get_suptitle() or name}](figures/{path.name})", ""]
    page = out / f"{name}.md"
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pages", nargs="*", default=PAGES, help="names of scripts; all if none is given")
    parser.add_argument("--small", action="store_true", help="little data and short training, as in tests")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write pages to")
    given = parser.parse_args()
    for name in given.pages:
        start = time.perf_counter()
        page = build(name, given.out, small=given.small)
        print(f"{page}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
