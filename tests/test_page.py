"""The page of a report: what stands on it, and how it looks in a browser."""

import base64
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import chartae as ct
from chartae.audits import Finding, Remedy, Report
from chartae.audits.findings import VERDICTS
from chartae.audits.maps import CLASSES, Coloring, Plane
from chartae.audits.page import render, table
from chartae.audits.page.figures import View, drawing
from chartae.core.errors import DataError

LIMIT = 5_000_000  # characters
NASTY = "<script>alert('$a$')</script>"


@pytest.fixture(scope="module")
def images() -> Report:
    digits = load_digits()
    X, y = digits.images.astype(np.float32), digits.target
    vae = ct.VAE(latent_dim=3, max_epochs=3, random_state=0).fit(X[:600])
    return ct.audit(vae, X[600:900], X[:600], labels=y[600:900], labels_train=y[:600])


@pytest.fixture(scope="module")
def frame() -> Report:
    pd = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    a = random.normal(size=400)
    X = pd.DataFrame(
        {NASTY: a, "weight": 8 * a + random.normal(size=400), "sex": np.where(a > 0, "f", NASTY)}
    )
    ae = ct.AE(latent_dim=1, max_epochs=3, random_state=0).fit(X[:300])
    return ct.audit(ae, X[300:], labels=X["sex"].to_numpy()[300:])


@pytest.fixture(scope="module")
def pair() -> Report:
    W = torch.linalg.qr(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))[0]
    X = torch.randn(300, 3, generator=torch.Generator().manual_seed(1)) @ W.T
    return ct.audit((lambda x: x @ W, lambda z: z @ W.T), X)


@pytest.fixture(scope="module")
def colors() -> Report:
    """The heaviest pictures that there are: noise in color."""
    X = torch.rand(200, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    mix = torch.rand(6, 3072, generator=torch.Generator().manual_seed(1))
    maps = (lambda x: x.flatten(1)[:, :6], lambda z: (z @ mix).reshape(-1, 32, 32, 3))
    return ct.audit(maps, X, labels=np.arange(200) % 3)


KINDS = ("images", "frame", "pair", "colors")


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {kind: request.getfixturevalue(kind).save(folder / f"{kind}.html") for kind in KINDS}


def named(page: str) -> list[str]:
    return re.findall(r'<figure id="figure-(.*?)">', page)


# ------------------------------------------------------------------------------------------ what it says


def test_every_figure_is_made_of_a_model_that_has_all(saved):
    order = "reconstructions samples map interpolation traversals jacobian noise kl training"
    assert named(saved["images"].read_text("utf-8")) == order.split()


def test_figures_that_a_model_cannot_have_are_left_out(saved):
    made = {kind: set(named(page.read_text("utf-8"))) for kind, page in saved.items()}
    assert made["images"] - made["frame"] == {"jacobian", "kl"}
    assert made["images"] - made["pair"] == {"samples", "kl", "training"}
    assert made["images"] - made["colors"] == {"samples", "kl", "training"}


def test_a_figure_that_fails_does_not_take_the_page_with_it(pair, monkeypatch):
    def torn(view: View) -> None:
        raise np.linalg.LinAlgError(f"singular {NASTY}")

    first = {"reconstructions": drawing.DRAWN["reconstructions"]}
    monkeypatch.setattr(drawing, "DRAWN", {"torn": torn} | first)
    page = render(pair)
    assert named(page) == ["reconstructions"]
    assert "Torn could not be drawn: LinAlgError: singular &lt;script" in page


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_small_and_whole(kind, saved):
    page = saved[kind].read_text("utf-8")
    assert len(page) < LIMIT
    assert "could not be drawn" not in page
    assert not re.search(r"<script|\bsrc=\"(?!data:)|url\(|@import|https?://", page)
    for data in re.findall(r"data:image/png;base64,([\w+/=]+)", page):
        assert base64.b64decode(data, validate=True)[:4] == b"\x89PNG"


def test_the_same_report_gives_the_same_page(pair, saved):
    assert render(pair) + "\n" == saved["pair"].read_text("utf-8")


@pytest.fixture
def bare(monkeypatch) -> None:
    """No figures: they take time."""
    monkeypatch.setattr(drawing, "DRAWN", {})


def planted(report: Report, *findings: Finding) -> Report:
    return replace(report, findings=findings, skipped={"copying": f"no training items {NASTY}"})


def found(name: str, verdict: str = "ok", **more: object) -> Finding:
    return Finding(
        name, f"Is {name} well? {NASTY}", verdict, f"It is {verdict}. {NASTY}", 0.5, "%", (1, 2), **more
    )


def test_what_is_worst_comes_first_and_says_what_to_try(images, bare):
    cure = Remedy("more-dimensions", "raise latent_dim from 3 to 6", {"latent_dim": 6})
    idea = Remedy("more-data", "give more items")
    report = planted(
        images,
        found("a"),
        found("b", "cannot tell"),
        found("c", "fail", remedies=(cure, idea)),
        found("d", "warn"),
    )
    for made in (render(report), table(report)):
        rows = re.findall(r'<tr role="row" id="check-(\w)">(.*?)</tr>', made, flags=re.S)
        assert [name for name, _ in rows] == ["c", "d", "b", "a"]
        assert all(verdict in row for verdict, (_, row) in zip(VERDICTS, rows, strict=True))
        fail = rows[0][1]
        assert "latent_dim=6" in fail
        assert fail.count("chartae fit --from RUN --remedy more-dimensions --out NEW") == 1
        assert "more-data" not in fail  # there is nothing to fit
        assert "give more items" in fail
        assert made.index("no training items") > made.index('id="check-a"')
        assert "<script" not in made


def test_a_model_of_another_library_cannot_be_fitted_again(pair, bare):
    cure = Remedy("more-dimensions", "raise latent_dim from 3 to 6", {"latent_dim": 6})
    made = render(planted(pair, found("c", "fail", remedies=(cure,))))
    assert "raise latent_dim" in made
    assert "chartae fit" not in made


@pytest.mark.parametrize(
    ("model", "remedy", "argument"),
    [
        (ct.VAE(), {"recipe_params": {"covariance": "full", "free_bits": 0.0}}, "covariance=&#39;full&#39;"),
        (
            ct.Autoencoder(recipe="beta-vae", recipe_params={"beta": 4.0}),
            {"recipe_params": {"beta": 1.0, "covariance": "diagonal"}},
            "recipe_params={&#39;beta&#39;: 1.0}",
        ),
        (
            ct.VAE(),
            {"recipe": "contractive-ae", "recipe_params": {}},
            "ct.Autoencoder(recipe=&#39;contractive-ae&#39;)",
        ),
    ],
    ids=["own", "of any recipe", "another recipe"],
)
def test_what_to_try_is_an_argument_of_the_estimator(model, remedy, argument):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    fitted = model.set_params(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    report = planted(
        ct.audit(fitted, X, only=["reconstruction"]),
        found("a", "fail", remedies=(Remedy("something", "try it", remedy),)),
    )
    assert f"<code>{argument}</code>" in render(report)


def test_without_enough_codes_no_place_is_called_a_hole():
    """Codes are N(0, I), and so are samples; a hundredth of 60 codes is nothing."""
    W = torch.linalg.qr(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))[0]
    for seed in range(3):
        X = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed)) @ W.T
        chart = ct.geometry.Chart.of_pair(lambda x: x @ W, lambda z: z @ W.T, prior="normal", latent_dim=4)
        report = ct.audit(chart, X, only=["prior-holes"])
        assert report.findings[0].verdict == "cannot tell"
        assert not any("holes" in label for label in labels(report))
        assert "It takes 100 held-out codes" in drawn(report, "interpolation").shows


def test_details_of_a_finding(images, bare):
    given = {"interval": (0.25, 0.75), "p_value": 0.004, "rows": (7, 3), "codes": ((0.5, 1.0, 2.0),)}
    made = render(planted(images, found("a", reference="Someone 2020", **given)))
    for part in ("0.25 to 0.75", "ok up to 1, fails from 2", "0.004", "7, 3", "(0.5, 1, 2)", "Someone 2020"):
        assert part in made


def drawn(report, name):
    with torch.no_grad():
        return drawing.DRAWN[name](View(report))


def labels(report: Report) -> list[str]:
    return [panel.label for panel in drawn(report, "map").panels]


def test_what_checks_have_found_is_marked_on_the_map(images):
    n, rows = len(images.evidence), tuple(int(i) for i in images.evidence.index[:6])
    report = planted(
        images,
        found("prior-holes", "fail", codes=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
        found("components", "warn", also={"island": np.arange(n) % 3 - 1}),
        found("folds", "fail", rows=rows, also={"pairs": np.reshape(rows, (3, 2))}),
        found("density", also={"log_density": np.zeros(n, np.float32)}),
        found("active-dimensions", also={"kl": np.array([1.0, 2.0, 0.0])}),
    )
    assert labels(report) == ["Labels", "Density", "Distortion", "Marks: islands, holes, folds"]
    assert "1 of 3 is below 0.01 nats" in drawn(report, "kl").shows


def test_what_is_fine_is_not_marked(images):
    report = planted(
        images, found("prior-holes"), found("folds"), found("components", also={"island": [0] * 300})
    )
    assert labels(report) == ["Labels", "Density", "Distortion"]


@pytest.mark.parametrize(
    "odd", [None, "text", 3.0, np.zeros((2, 2)), np.arange(10**5), [], np.full(300, np.nan)]
)
def test_odd_values_of_a_check_break_nothing(images, odd):
    keys = {"components": "island", "density": "log_density", "active-dimensions": "kl", "folds": "pairs"}
    report = planted(
        images, *(found(name, "fail", also={key: odd, "angles": odd}) for name, key in keys.items())
    )
    assert len(labels(report)) >= 3
    for name in ("kl", "jacobian"):
        assert drawn(report, name) is None or drawn(report, name).panels


def test_no_pyplot_and_no_global_state(pair):
    before = dict(matplotlib.rcParams)
    assert drawn(pair, "map").panels
    assert dict(matplotlib.rcParams) == before
    code = "import sys, chartae.audits.report, chartae.audits.maps; print({'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------ the map


def test_up_to_twenty_whole_numbers_are_classes():
    assert Coloring.of(np.arange(CLASSES) * 1.0).names[-1] == "19"
    assert Coloring.of(np.arange(CLASSES + 1)).names == ()
    assert Coloring.of([0.5, 1.0]).names == ()
    assert Coloring.of([True, False]).names == ("False", "True")
    np.testing.assert_array_equal(Coloring.of([1.0, np.nan, 3.0]).values, [0, -1, 1])


def test_what_is_missing_is_no_class():
    assert Coloring.of(["a", None, "b", "a"]).names == ("a", "b")
    assert Coloring.of([0, 1, -1, 2]).names == ("-1", "0", "1", "2")
    marked = Coloring.of([0, 1, -1, 2], labels=True)
    assert marked.names == ("0", "1", "2")
    np.testing.assert_array_equal(marked.values, [0, 1, -1, 2])
    whole = Coloring.of(np.arange(52.0) % 26, labels=True)  # labels, and no quantity
    assert len(whole.names) == CLASSES
    assert Coloring.of([0.5, np.nan, 1.25], labels=True).names == ()


def test_of_many_classes_the_largest_are_named():
    many = Coloring.of([f"{i:02}" for i in range(30)] + [f"{i:02}" for i in range(10, 30)])
    assert many.names == tuple(f"{i:02}" for i in range(10, 30))
    assert set(many.values[:10]) == {-1}


def test_a_plane_turns_codes_and_keeps_their_distances():
    Z = np.random.default_rng(0).normal(size=(100, 2)) @ np.array([[3.0, 1.0], [0.0, 1.0]])
    higher = np.hstack([Z, np.zeros((100, 1))])
    apart = [np.linalg.norm(P[:, None] - P[None], axis=-1) for P in (Z, Plane.of(higher)(higher))]
    np.testing.assert_allclose(*apart, atol=1e-9)
    np.testing.assert_array_equal(Plane.of(Z)(Z), Z)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(
    "y", [None, ["$x", "_y", "数"] * 20, np.linspace(0, 1, 60)], ids=["none", "text", "numbers"]
)
def test_a_map_in_one_line(d, y, tmp_path):
    pair = (lambda x: x[:, :d], lambda z: torch.cat([z, z], 1))
    figure = Figure()
    ax = ct.plot(pair, torch.rand(60, 6), y, ax=figure.subplots())
    assert ax.get_xlabel().startswith({1: "code", 2: "code 1", 5: "principal axis 1 ("}[d])
    assert sum(len(dots.get_offsets()) for dots in ax.collections) == 60
    legend = ax.get_legend()
    assert (legend is not None) == (isinstance(y, list) and d > 1)
    assert len(figure.axes) == (2 if isinstance(y, np.ndarray) and d > 1 else 1) + (
        d == 1 and isinstance(y, np.ndarray)
    )


def test_a_map_of_a_fitted_model_is_new_axes_of_pyplot():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    X = load_digits().images[:100]
    ae = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    ax = ct.plot(ae, X, load_digits().target[:100])
    assert ax.figure is plt.gcf()
    assert len(ax.get_legend().get_texts()) == 10
    plt.close("all")


def test_colors_of_other_items_are_refused():
    pair = (lambda x: x[:, :2], lambda z: z)
    with pytest.raises(DataError, match="y has 3 values, and there are 5 items"):
        ct.plot(pair, torch.rand(5, 2), [1, 2, 3])
    with pytest.raises(DataError, match=r"one value an item, and y has shape \(5, 2\)"):
        ct.plot(pair, torch.rand(5, 2), np.zeros((5, 2)))


# ------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    known = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, known)), None)
    if path is None:
        pytest.skip(
            "there is no Chromium: `make browser` as root on Debian installs it, or put one on the PATH"
        )
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path)
        yield opened
        opened.close()


OUTSIDE = """() => [...document.querySelectorAll('body *:not(.hidden)')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 90))"""

CONTRAST = """() => {
    const part = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const luminance = color => {
        const [r, g, b] = color.match(/\\d+/g).map(Number).map(part);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = e => {
        while (getComputedStyle(e).backgroundColor.startsWith('rgba')) e = e.parentElement;
        return getComputedStyle(e).backgroundColor;
    };
    const text = document.querySelectorAll('p, dt, dd, figcaption, .badge, code, a, summary, th');
    return Math.min(...[...text].map(e => {
        const [light, dark] = [getComputedStyle(e).color, paper(e)].map(luminance).sort((x, y) => y - x);
        return (light + 0.05) / (dark + 0.05);
    }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_browser(browser, saved, kind, width, scheme):
    asked, wrong = [], []
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(saved[kind].as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        # Nothing is fetched, nothing sticks out, and nothing is wrong.
        assert [url for url in asked if not url.startswith("data:")] == [saved[kind].as_uri()]
        assert wrong == []
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert page.evaluate(OUTSIDE) == []
        # Every picture is there, in the ink of the paper, and says what it is.
        pictures = page.locator("figure img").evaluate_all(
            "list => list.map(i => [i.complete && i.naturalWidth, i.alt, i.currentSrc === i.src, "
            "i.parentElement.querySelector('source') !== null])"
        )
        assert len(pictures) >= 5
        assert all(loaded and len(alt) > 10 for loaded, alt, _, _ in pictures)
        assert all(light == (scheme == "light" or not both) for _, _, light, both in pictures)
        figures = page.locator("figure")
        assert (
            figures.count()
            == page.locator("figure > figcaption").count()
            == page.locator("figure > h3").count()
        )
        assert all("A good one:" in text for text in page.locator("figcaption").all_inner_texts())
        # Text stands out from the paper, 4.5 to 1 or more.
        assert page.evaluate(CONTRAST) >= 4.5


def test_in_print_details_are_open_and_paper_is_white(browser, saved):
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(saved["images"].as_uri())
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("figure img").evaluate_all("list => list.every(i => i.currentSrc === i.src)")
        assert page.locator("details dd").first.evaluate("e => e.getBoundingClientRect().height") > 0
        assert page.pdf()[:5] == b"%PDF-"
