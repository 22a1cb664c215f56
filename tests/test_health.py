"""The health report: verdicts from intervals, the report from its findings, and the command from both."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app
from chartae.apps.fitting import _cure
from chartae.apps.health import Origin
from chartae.audits import report as reports
from chartae.audits.evidence import Evidence
from chartae.audits.findings import (
    VERDICTS,
    Check,
    Finding,
    Reading,
    checks,
    judge,
    of_mean,
    of_pairs,
    of_ratio,
    of_share,
)
from chartae.audits.remedies import Setting, proposed, remedies
from chartae.audits.report import _says, _setting, _together
from chartae.core.errors import DataError, PlanError
from chartae.geometry import Chart, nearest

FINITE = st.floats(-10, 10)


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A small run of digits with its report."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    result = run("fit", "digits", "--out", folder, "--epochs", 3, "--latent-dim", 2, "--seed", 0)
    assert result.exit_code == 0, result.output
    return folder, result.stdout


# ---------------------------------------------------------------- verdicts


@given(FINITE, FINITE, FINITE, FINITE)
def test_a_verdict_follows_from_the_interval_alone(a, b, ok, fail):
    low, high = sorted((a, b))
    ok, fail = sorted((ok, fail))
    verdict = judge(Reading((low + high) / 2, (low, high)), ok, fail)
    mirrored = judge(Reading(-(low + high) / 2, (-high, -low)), -ok, -fail) if ok != fail else verdict
    assert verdict == mirrored
    assert (verdict == "fail") == (low > fail)
    assert (verdict == "cannot tell") == (low <= ok and high > fail)


@pytest.mark.parametrize("value", [None, np.nan, np.inf])
def test_what_was_not_measured_is_not_judged(value):
    assert judge(Reading(value), 0.1, 0.3) == "cannot tell"


def test_intervals_err_as_often_as_they_say():
    # 98 % intervals over 2000 repetitions: misses are binomial(2000, .02), below 65 in all but 1e-4 of runs.
    rng = np.random.default_rng(0)
    missed = {"mean": 0, "ratio": 0, "share": 0}
    for _ in range(2000):
        a, b = rng.normal(1, 1, 200), rng.gamma(9, 1 / 9, 200)
        for name, reading, truth in [
            ("mean", of_mean(a), 1.0),
            ("ratio", of_ratio(2 * b + 0.1 * (a - 1), b), 2.0),
            ("share", of_share(int(rng.binomial(200, 0.1)), 200), 0.1),
        ]:
            low, high = reading.interval
            missed[name] += not low <= truth <= high
    assert all(count < 65 for count in missed.values()), missed


@pytest.mark.parametrize("kind", ["groups", "neighbors"])
def test_intervals_of_pairs_that_share_rows_err_as_often_as_they_say(kind):
    """Of 1,000 intervals 10 ends of each kind: 28 or more have a probability of 5e-6."""
    random, missed = np.random.default_rng(0), {"low": 0, "high": 0}
    left, right = np.arange(200), np.roll(np.arange(200), -1)
    if kind == "neighbors":
        right = nearest(c := random.normal(size=(200, 4)), c, 1, exclude_self=True)[1][:, 0]
    for _ in range(1000):
        a, b = random.normal(size=(2, 200, 3))
        above, below = (np.square(v[left] - v[right]).sum(1) for v in (a, b))
        interval = of_pairs(above, below, left, right).interval
        assert interval is not None
        missed = {"low": missed["low"] + (interval[0] > 1), "high": missed["high"] + (interval[1] < 1)}
    assert all(count < 28 for count in missed.values()), missed


def finding(name, verdict, p, **also):
    said = _says(checks[name], verdict, Reading(0.04, also=also))
    return Finding(name, "", verdict, said, 0.04, "", (0.0, 1.0), p_value=p, also=also)


def test_holm_lets_no_fail_stand_that_the_number_of_checks_explains():
    given = [
        finding("prior-shape", "fail", 0.001, where="an axis"),
        finding("copying", "fail", 0.03, tail=0.04, shift=0.2),
        finding("denoising", "ok", 0.5, dimension=2.0),
    ]
    found = _together(given)
    assert [f.verdict for f in found] == ["fail", "warn", "ok"]
    assert given[1].says.startswith("Training items are copied: 4.0%")
    assert found[1].says.startswith("Perhaps copies: 4.0%")
    assert found[0].says == given[0].says
    untested = Finding("d", "", "fail", "", 1.0, "", (0.0, 1.0))
    assert _together([untested])[0].verdict == "fail"


# ---------------------------------------------------------------- checks and remedies


@pytest.mark.parametrize("name", list(checks))
def test_every_check_says_something_for_every_verdict_it_can_give(name):
    kind = checks[name]
    assert isinstance(kind, Check)
    assert kind.title.endswith("?")
    assert "ok" in kind.says
    assert kind.ok == kind.fail == np.inf or {"warn", "fail"} <= set(kind.says)
    assert set(kind.remedies) <= set(remedies)
    assert kind.reference


def test_numbers_in_a_sentence_have_no_powers_of_ten():
    kind = checks["information"]
    said = [_says(kind, "ok", Reading(v, None, also={"mutual": ""})) for v in (1168.4, 3.14159, 0.0002)]
    for sentence, number in zip(said, ("1,170", "3.14", "0.0002"), strict=True):
        assert f"an item is {number} nats less likely" in sentence
    unsure = _says(kind, "cannot tell", Reading(2e4, (1.23456e4, 5e7)))
    assert "Cannot tell: 20,000 (" in unsure
    assert "from 12,300 to 50,000,000;" in unsure


def test_nothing_is_kept_of_a_step_that_comes_back_the_other_way():
    plane = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) @ torch.eye(2, 6)
    report = ct.audit((lambda x: -x[:, :2], lambda z: z @ torch.eye(2, 6)), plane, only=["retention"])
    assert report["retention"].statistic == pytest.approx(-1, abs=1e-3)
    assert report["retention"].says.startswith("Only 0% of a small step along the data is kept:")


def test_a_report_is_written_in_plain_numbers():
    X = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    report = ct.audit((lambda x: x[:, :2], lambda z: z @ torch.eye(2, 3)), X)
    assert "np." not in repr(report)
    assert max(map(len, map(repr, report.findings))) < 4000


def test_remedies_name_the_argument_to_change():
    own = {"beta": 50.0, "covariance": "diagonal"}
    now = Setting("beta-vae", own, {"max_epochs": 10, "noise": 0.1}, 2, 7.3, ("gaussian", 0.2))
    found = {r.name: r.changes for r in proposed(tuple(remedies), now)}
    assert found["lower-beta"] == {"recipe_params": own | {"beta": 1.0}}
    assert found["full-covariance"] == {"recipe_params": own | {"covariance": "full"}}
    assert found["denoising"] == {"corruption": 0.4}
    assert found["more-dimensions"] == {"latent_dim": 9}
    assert found["longer-training"] == {"max_epochs": 30}
    assert found["learned-noise"] == {"noise": "global"}
    assert "free-bits" not in found  # of another recipe


@pytest.mark.parametrize(("latent_dim", "wanted"), [(2, 23), (22, 23), (32, 39), (39, None), (64, None)])
def test_codes_are_to_have_as_many_dimensions_as_hold_the_data(latent_dim, wanted):
    found = proposed(("more-dimensions",), Setting("ae", latent_dim=latent_dim, dimension=19.0, features=784))
    assert [r.changes["latent_dim"] for r in found] == ([] if wanted is None else [wanted])


@pytest.mark.parametrize(("latent_dim", "wanted"), [(2, 40), (39, 40), (40, None), (64, None)])
def test_no_code_is_to_have_more_numbers_than_an_item(latent_dim, wanted):
    found = proposed(("more-dimensions",), Setting("ae", latent_dim=latent_dim, dimension=36.0, features=40))
    assert [r.changes["latent_dim"] for r in found] == ([] if wanted is None else [wanted])
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    assert _setting(Evidence(Chart.of_pair(lambda x: x[:, :2], lambda z: z), x)).features == 3


@pytest.mark.parametrize(
    ("network", "hidden", "wider"),
    [("mlp", None, (1024, 512)), ("conv2d", None, (64, 128)), ("mlp", (16,), (32,)), ("linear", None, None)],
)
def test_networks_are_widened_from_what_they_are(network, hidden, wider):
    X = np.random.default_rng(0).random((80, 8, 8))
    ae = ct.AE(latent_dim=2, network=network, hidden=hidden, max_epochs=1, random_state=0).fit(X)
    changes = proposed(("more-capacity",), _setting(Evidence(ae.chart(), ae.chart().items(X))))[0].changes
    assert changes == ({"network": "mlp"} if wider is None else {"hidden": wider})
    assert ct.AE(latent_dim=2, max_epochs=1, **{"network": network, **changes}).fit(X).n_iter_ == 1


def test_a_density_that_stands_in_for_the_prior_is_not_proposed_again():
    X = np.random.default_rng(0).random((80, 6))
    for recipe, before, after in (("vae", 1, 0), ("ae", 1, 1)):  # an autoencoder has no prior of its own
        model = ct.Autoencoder(recipe=recipe, latent_dim=2, max_epochs=1, random_state=0).fit(X)
        for n in (before, after):
            setting = _setting(Evidence(model.chart(), model.chart().items(X)))
            assert len(proposed(("fit-density",), setting)) == n
            model.fit_prior("gmm", random_state=0)


def test_nothing_is_changed_in_a_model_of_another_library():
    assert all(not r.changes for r in proposed(tuple(remedies), Setting(latent_dim=2, dimension=5.0)))


# ---------------------------------------------------------------- reports


def line(noise=0.05):
    """Codes that project onto a line in three dimensions, and points around it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 1)) * [[3.0, 0, 0]] + noise * rng.normal(size=(400, 3))
    return Chart.of_pair(lambda x: x[:, :1], lambda z: torch.nn.functional.pad(z, (0, 2))), X


def test_a_pair_of_callables_is_audited():
    chart, X = line()
    report = ct.audit(chart, X)
    assert report["reconstruction"].verdict == "ok"
    assert report.facts["latent_dim"] == 1
    again = ct.audit((chart.encode, chart.decode), X)
    assert [f.statistic for f in again.findings] == [f.statistic for f in report.findings]


def test_a_report_is_one_in_every_form(tmp_path):
    chart, X = line()
    assert len(ct.audit(chart, X, only="reconstruction").findings) == 1
    report = ct.audit(chart, X, only=["reconstruction", "latent-dimension"])
    values = json.loads(report.save(tmp_path / "r.json").read_text())
    assert [f["name"] for f in values["findings"]] == ["reconstruction", "latent-dimension"]
    assert values["verdict"] in VERDICTS
    assert "reconstruction" in report.save(tmp_path / "r.txt").read_text()
    assert report["reconstruction"].says in report._repr_html_()
    with pytest.raises(PlanError, match=r"ends in none of \.html"):
        report.save(tmp_path / "r.doc")
    with pytest.raises(KeyError, match="is no finding"):
        report["reconstructions"]


def test_rows_are_named_as_the_caller_names_them():
    chart, X = line()
    X[7, 2] = 5.0
    worst = ct.audit(chart, X, only=["reconstruction"])["reconstruction"].rows
    assert worst[0] == 7
    named = ct.audit(chart, X, only=["reconstruction"], row_numbers=np.arange(1000, 1400))
    assert named["reconstruction"].rows[0] == 1007


def test_the_same_seed_gives_the_same_report_and_leaves_the_generators_alone():
    chart, X = line()
    torch.manual_seed(3)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = ct.audit(chart, X), ct.audit(chart, X)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    for a, b in zip(one.findings, two.findings, strict=True):
        assert (a.verdict, a.statistic, a.interval) == (b.verdict, b.statistic, b.interval)


def test_what_cannot_be_audited_is_refused_in_one_line():
    chart, X = line()
    for wrong, message in [
        (lambda: ct.audit(chart, X[:20]), "20 items are too few"),
        (lambda: ct.audit(chart, X, only=["fold"]), "there is no check 'fold'"),
        (lambda: ct.audit(chart, X, only="fold"), "there is no check 'fold'"),
        (lambda: ct.audit(chart, X, only=[]), "names no check"),
        (lambda: ct.audit(chart, X, budget="huge"), "budget='huge'"),
        (lambda: ct.audit("vae", X), "is no model"),
        (lambda: ct.audit((chart.encode, lambda z: (z, z)), X), "gave tuple and not a tensor"),
        (lambda: ct.audit((torch.nn.Linear(3, 1), chart.decode), X), "call its eval"),
        (
            lambda: ct.audit((chart.encode, lambda z: chart.decode(z).log()), X),
            "item of row .* others are not",
        ),
    ]:
        with pytest.raises((DataError, PlanError), match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_a_check_that_breaks_off_is_seen_and_ends_no_report(monkeypatch):
    def broken(evidence):
        raise IndexError("index 7 is out of\n bounds")

    chart, X = line()
    known = {name: checks[name] for name in checks}
    known["denoising"] = replace(known["denoising"], measure=broken)
    monkeypatch.setattr(reports, "checks", known)
    with pytest.warns(UserWarning, match="'denoising' broke off .IndexError: index 7 is out of bounds."):
        found = ct.audit(chart, X, only=["denoising", "reconstruction"])
    assert found["denoising"].verdict == "cannot tell"
    assert "IndexError: index 7 is out of bounds" in found["denoising"].says
    assert found["reconstruction"].verdict == "ok"


def test_support_never_holds_the_queries():
    chart, X = line()
    x = chart.items(X)
    alone = Evidence(chart, x)
    assert len(alone.queries) + len(alone.support) == len(x)
    assert len(Evidence(chart, x, train=x + 1.0).queries) == len(x)


# ---------------------------------------------------------------- the command


def test_fit_ends_with_a_report_of_the_rows_it_has_held_out(digits):
    folder, said = digits
    report = json.loads((folder / "report.json").read_text())
    assert report["facts"]["rows"] == 180
    assert set(report["findings"][0]["rows"]) <= set(ct.load(folder).validation_rows_.tolist())
    assert f"health    {report['summary']}" in said
    assert "latent-dimension" in said
    assert "--remedy more-dimensions" in said


def test_a_remedy_that_is_no_option_of_a_fit_is_not_named_as_one():
    wider, refined, walk = proposed(
        ("more-dimensions", "refine", "geodesic-paths"), Setting("vae", latent_dim=2, dimension=7.3)
    )
    assert _cure(wider) == "--remedy more-dimensions: raise latent_dim from 2 to 9"
    for remedy in (refined, walk):
        assert _cure(remedy) == f"this: {remedy.says}"


def test_a_kl_of_another_weight_is_given_that_of_the_elbo():
    (remedy,) = proposed(("unit-beta",), Setting("beta-vae", recipe_params={"beta": 4.0, "free_bits": 0.1}))
    assert remedy.changes == {"recipe_params": {"beta": 1.0, "free_bits": 0.1}}
    for same in ({"beta": 1.0}, {}):
        assert not proposed(("unit-beta",), Setting("vae", recipe_params=same))


def test_dreams_are_proposed_to_those_who_have_none():
    (asleep,) = proposed(("asleep",), Setting("vae", parameters={"asleep": 0.0}))
    assert asleep.changes == {"asleep": 1.0}
    for known in ({"asleep": 0.5}, {}):
        assert not proposed(("asleep",), Setting("vae", parameters=known))


def test_audit_finds_the_data_again_and_sets_the_exit_code(digits, tmp_path):
    folder, _ = digits
    target = tmp_path / "report.json"
    result = run("audit", folder, "--out", target, "--only", "latent-dimension", "--fail-on", "fail")
    assert result.exit_code == 1, result.output
    assert json.loads(target.read_text())["findings"][0]["verdict"] == "fail"
    assert run("audit", folder, "--only", "latent-dimension").exit_code == 0
    elsewhere = run("audit", folder, "--data", "digits", "--only", "reconstruction")
    assert elsewhere.exit_code == 0, elsewhere.output


def test_a_run_finds_data_and_labels_again_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(600, 3)))
    np.save("y.npy", rng.integers(0, 2, 600))
    words = ["--labels", "y.npy", "--latent-dim", 2, "--epochs", 1, "--no-audit", "--out", "run"]
    assert run("fit", "x.npy", *words).exit_code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run("audit", "../run", "--only", "reconstruction")
    assert result.exit_code == 0, result.output


def test_a_remedy_is_applied_and_compared(digits, tmp_path):
    folder, _ = digits
    words = ["fit", "--from", folder, "--remedy", "more-dimensions", "--out", tmp_path / "b"]
    result = run(*words, "--seed", 0)
    assert result.exit_code == 0, result.output
    assert ct.load(tmp_path / "b").latent_dim_ > 2
    assert ct.load(tmp_path / "b").max_epochs == 3
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("latent-dimension"))
    assert row.count("fail") == 1  # before, and not after


def test_a_fit_from_a_run_differs_by_what_is_changed_and_by_nothing_else(tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 6))
    np.save(tmp_path / "x.npy", X)
    a, b, c = (tmp_path / name for name in "abc")
    assert run("fit", tmp_path / "x.npy", "--epochs", 2, "--no-audit", "--out", a).exit_code == 0
    assert run("fit", "--from", a, "--no-audit", "--out", b).exit_code == 0
    assert (ct.load(a).transform(X) == ct.load(b).transform(X)).all()
    assert run("fit", "--from", b, "--param", "free_bits=0.5", "--no-audit", "--out", c).exit_code == 0
    assert (ct.load(a).validation_rows_ == ct.load(c).validation_rows_).all()
    assert run("fit", "--from", a, "--seed", 1, "--no-audit", "--overwrite", "--out", c).exit_code == 0
    assert (ct.load(a).validation_rows_ != ct.load(c).validation_rows_).any()


def test_a_remedy_that_trains_nothing_fits_a_density_to_the_codes(tmp_path):
    X = np.random.default_rng(0).normal(size=(900, 6)) @ np.diag([3, 3, 1, 1, 0.1, 0.1])
    np.save(tmp_path / "x.npy", X * np.sign(X[:, :1]) + [9, 0, 0, 0, 0, 0] * (X[:, 1:2] > 0))
    fit = ["fit", tmp_path / "x.npy", "--recipe", "ae", "--latent-dim", 2, "--epochs", 3, "--seed", 0]
    assert run(*fit, "--out", tmp_path / "a").exit_code == 0
    words = ["fit", "--from", tmp_path / "a", "--remedy", "fit-density", "--out", tmp_path / "b"]
    refused = run(*words, "--epochs", 9)
    assert (refused.exit_code, "trains nothing anew" in refused.stderr) == (2, True)
    result = run(*words)
    assert result.exit_code == 0, result.output
    before, after = ct.load(tmp_path / "a"), ct.load(tmp_path / "b")
    again = [
        "fit",
        "--from",
        tmp_path / "b",
        "--param",
        "corruption=0.3",
        "--out",
        tmp_path / "c",
        "--no-audit",
    ]
    assert run(*again, "--seed", 0).exit_code == 0
    noisy = ct.load(tmp_path / "c")  # a density of other codes, of the same kind
    assert type(noisy.model_.fitted_prior) is type(after.model_.fitted_prior)
    assert Origin(tmp_path / "b").density("vae") is None  # which has a prior of its own
    assert (noisy.corruption, noisy.codes_.tolist() == after.codes_.tolist()) == (0.3, False)
    assert (before.transform(X) == after.transform(X)).all()
    assert after.model_.fitted_prior.held_out > before.model_.fitted_prior.held_out
    assert (before.sample(9, random_state=0) != after.sample(9, random_state=0)).any()


def test_words_that_lead_nowhere_are_refused(digits, tmp_path):
    folder, _ = digits
    ct.AE(latent_dim=1, max_epochs=1).fit(np.eye(20)).save(tmp_path / "bare")
    for words, message in [
        (["fit", "--out", tmp_path / "c"], "DATA is missing"),
        (["fit", "digits", "--out", tmp_path / "c", "--remedy", "x"], "name its run with --from"),
        (["fit", "--from", folder, "--remedy", "magic", "--out", tmp_path / "c"], "has no remedy 'magic'"),
        (["fit", "--from", tmp_path / "bare", "--out", tmp_path / "c"], "does not say which data"),
        (["fit", "--from", tmp_path / "bare", "--remedy", "x", "--out", tmp_path / "c"], "no health report"),
        (["audit", tmp_path / "bare"], "does not say which data"),
        (["audit", folder, "--fail-on", "ok"], "use fail or warn"),
    ]:
        result = run(*words)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), (words, result.output)
        assert message in result.stderr
        assert not (tmp_path / "c").exists()


def test_what_is_missing_is_told_by_the_condition():
    """Two classes far apart: filled in without its class, an item with gaps would be off the manifold."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1500)
    X = (8.0 * y[:, None] + rng.normal(size=(1500, 4))).astype(np.float32)
    gaps = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    model = ct.CVAE(latent_dim=1, hidden=(32,), max_epochs=40, random_state=0, missing="mask")
    model.fit(gaps[:800], y[:800])
    asked = {"reference": X[800:1100], "reference_condition": y[800:1100], "condition": y[1100:]}
    found = model.off_manifold_score(gaps[1100:], **asked)
    assert np.mean(found.p_value[np.isnan(gaps[1100:]).any(1)] < 0.05) < 0.12


def test_posteriors_that_know_their_draws_alone_are_audited_by_these():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1600, 2)) @ rng.normal(size=(2, 6)) + 0.7 * rng.normal(size=(1600, 6))
    model = ct.Autoencoder(recipe="hvae", latent_dim=2, hidden=(16,), max_epochs=20, batch_size=32)
    model.set_params(random_state=0).fit(X[:800])
    z = model.sample_posterior(X[800:], 1, random_state=0)[0]
    mean, cov = z.mean(0), np.cov(z.T)
    drawn = (np.trace(cov) + mean @ mean - 2 - np.log(np.linalg.det(cov))) / 4
    found = ct.audit(model, X[800:], only="prior-match")["prior-match"]
    assert found.statistic == pytest.approx(drawn, abs=0.02)


def test_a_condition_of_numbers_has_room_for_what_it_tells():
    """A perfect model of three dimensions, of which two are told."""
    rng = torch.Generator().manual_seed(0)
    A = torch.linalg.qr(torch.randn(8, 3, generator=rng))[0]
    c, z = torch.randn(1500, 2, generator=rng), torch.randn(1500, 1, generator=rng)
    x = torch.cat([c, z], 1) @ A.T + 0.02 * torch.randn(1500, 8, generator=rng)
    chart = ct.geometry.Chart.of_pair(
        lambda x, c: (x @ A)[:, 2:],
        lambda z, c: torch.cat([c, z], 1) @ A.T,
        prior="normal",
        latent_dim=1,
        noise=0.02,
    )
    report = ct.audit(chart, x, condition=c)
    assert report["latent-dimension"].verdict == "ok"
    assert " and 2.0 of the condition" in report["latent-dimension"].says
    assert report.skipped["retention"].startswith("conditions hold a part")
    assert not [f.name for f in report.findings if f.verdict == "fail"]


def test_codes_of_a_surface_are_judged_on_it():
    """Fitted densities and straight lines leave a sphere, and are brought back before they are decoded."""
    rng = np.random.default_rng(0)
    u = rng.normal(size=(1600, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    X = u @ rng.normal(size=(3, 6)) + 0.05 * rng.normal(size=(1600, 6))
    model = ct.Autoencoder(recipe="svae", latent_dim=3, hidden=(32,), max_epochs=10, random_state=0)
    model.fit(X[:800]).fit_prior("normal", random_state=0)
    report = ct.audit(model, X[800:], only=["prior-holes", "interpolation"])
    assert report["prior-holes"].statistic < 0.06
    assert report["interpolation"].statistic < 0.05


@pytest.mark.parametrize("rows", [[3, 4], ["r0"] * 300])
def test_row_numbers_are_a_number_for_each_row(rows):
    X = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.raises(DataError, match="give 300 whole numbers"):
        ct.audit((lambda x: x, lambda z: z), X, row_numbers=rows)


def test_a_decoder_that_rests_at_some_codes_has_a_distortion():
    """Its metric is zero there, which has no logarithm."""
    X = np.random.default_rng(0).normal(size=(400, 2))
    kinked = (lambda x: x[:, :1], lambda z: torch.cat([torch.relu(z), 2 * torch.relu(z)], 1))
    found = ct.audit(kinked, X, only="distortion")["distortion"]
    assert found.statistic == pytest.approx(2.0, abs=0.3)
