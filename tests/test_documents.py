"""What the documents show runs, and what they link to and list is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import chartae

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), flags=re.M | re.S)


# Pages of the gallery are written by scripts, which tests/test_gallery.py runs.
TYPED = [d for d in DOCUMENTS if d.parent.name != "gallery" and blocks(d, "python")]


@pytest.mark.parametrize("document", TYPED, ids=lambda d: str(d.relative_to(ROOT)))
def test_the_python_in_a_document_runs(document, tmp_path):
    # In an interpreter of its own: what an example registers must not stay.
    code = "import warnings; warnings.simplefilter('error')\n" + "\n".join(blocks(document, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_links_of_a_document_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_the_pages_list_every_recipe():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "recipes.py", "--check"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    readme = (ROOT / "README.md").read_text("utf-8")
    table = "\n".join(re.findall(r"^\|.*\|$", readme.partition("## Recipes")[2].partition("```")[0], re.M))
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    assert named == {each.name for each in chartae.recipes()}


def test_what_became_of_pythae_s_options_is_there():
    page = (ROOT / "docs" / "migrating-from-pythae.md").read_text("utf-8")
    rows = re.findall(r"^\| `\w+` \| `([a-z0-9-]+)` \| .*? ?\| (.*?) ?\|$", page, re.M)
    own = {each.name: {*each.parameters, "likelihood", "noise"} for each in chartae.recipes()}
    assert len(rows) == 26
    assert {name: set(re.findall(r"`(\w+)`", here)) - own.get(name, set()) for name, here in rows} == {
        name: set() for name, _ in rows
    }


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, flags=re.M).group(1) == chartae.__version__
