"""Write docs/recipes.md from the registry of recipes: python docs/recipes.py."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import chartae as ct
from chartae.models import recipes

OUT = Path(__file__).with_suffix(".md")
HEADER = """# Recipes

<!-- Written by docs/recipes.py from the registry; do not edit. -->

A recipe names the parts of a model: a posterior q(z | x, c), a prior p(z | c), and the objective that fits
them; likelihood, networks, condition, corruption and training are chosen by the estimator, for all recipes
alike. All are used as `ct.Autoencoder(recipe="vamp-vae", recipe_params={"components": 100})`, or on the
command line as `chartae fit DATA --recipe vamp-vae --param components=100`; beside its own, each has the
parameter `activation`, of its networks (`"relu"`). [Extending chartae](extending.md) says how to write one.
"""


def section(module: object) -> str:
    lines = [f"## {(inspect.getdoc(module) or '').splitlines()[0].rstrip('.')}", ""]
    lines += ["| recipe | what it is | parts | own parameters | paper |", "|---|---|---|---|---|"]
    for each in ct.recipes():
        if each.make.__module__ == module.__name__:
            own = ", ".join(f"`{name}={value!r}`" for name, value in each.parameters.items())
            what = each.summary.rstrip(".") + (" (takes a condition)" if each.conditional else "")
            cells = [f"`{each.name}`", what, each.parts, own, link(each.paper)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def link(paper: str) -> str:
    words = []
    for word in paper.split():
        bare = word.strip("(),;")
        if bare.startswith("arXiv:"):
            word = word.replace(bare, f"[{bare}](https://arxiv.org/abs/{bare.removeprefix('arXiv:')})")
        elif bare.startswith("doi:"):
            word = word.replace(bare, f"[{bare}](https://doi.org/{bare.removeprefix('doi:')})")
        words.append(word)
    return " ".join(words)


def render() -> str:
    return "\n".join([HEADER, *map(section, recipes.FAMILIES)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not what the registry says")
    args = parser.parse_args()
    if args.check:
        if OUT.read_text(encoding="utf-8") != render():
            raise SystemExit("docs/recipes.md is out of date: run python docs/recipes.py")
        return
    OUT.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
