"""Pages of the gallery run, hold what they claim, and are those that their scripts write."""

import importlib.util
import re
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
SPEC = importlib.util.spec_from_file_location("gallery_build", GALLERY / "build.py")
assert SPEC is not None
gallery = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gallery)


@pytest.mark.parametrize("name", gallery.PAGES)
def test_a_page_runs_and_its_assertions_hold(name, tmp_path):
    page = gallery.build(name, tmp_path, small=True)
    figures = re.findall(r"\]\((figures/.*?)\)", page.read_text("utf-8"))
    assert figures
    assert all((tmp_path / figure).stat().st_size > 1_000 for figure in figures)


@pytest.mark.parametrize("name", gallery.PAGES)
def test_the_committed_page_has_the_prose_and_code_of_its_script(name):
    page = (GALLERY / f"{name}.md").read_text("utf-8")
    written = gallery.cells((GALLERY / f"{name}.py").read_text("utf-8"))
    assert [part for cell in written for part in cell if part not in page] == []
    figures = re.findall(r"\]\((figures/.*?)\)", page)
    assert [figure for figure in figures if not 0 < (GALLERY / figure).stat().st_size < 150_000] == []


NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")


def printed(page):
    """Lines that the cells of a page printed, as pairs of words and numbers."""
    lines = "\n".join(
        re.findall(r"^```text\n(.*?)^```", page.read_text("utf-8"), flags=re.M | re.S)
    ).splitlines()
    return [
        (" ".join(NUMBER.sub("#", line).split()), [float(n.replace(",", "")) for n in NUMBER.findall(line)])
        for line in lines
    ]


def near(a, b):
    return abs(a - b) <= 0.02 + 0.25 * abs(a)


@pytest.mark.slow
@pytest.mark.parametrize("name", gallery.PAGES)
def test_the_committed_page_says_what_its_script_prints_now(name, tmp_path):
    # Loosely: what a training gives differs a little from machine to machine, and a verdict with it.
    old, new = printed(GALLERY / f"{name}.md"), printed(gallery.build(name, tmp_path))
    pairs = [(a, b) for a, b in zip(old, new, strict=False) if a[0] == b[0]]
    assert len(old) == len(new)
    assert len(pairs) >= 0.8 * len(old)
    same = [near(*pair) for (_, a), (_, b) in pairs for pair in zip(a, b, strict=True)]
    assert sum(same) >= 0.9 * len(same)


def test_the_index_links_to_every_page():
    linked = re.findall(r"\]\((\w+)\.md\)", (GALLERY / "README.md").read_text("utf-8"))
    assert sorted(set(linked)) == gallery.PAGES
