"""Sweeps: known answers for linear data, cells that are fitted once, and one line for what is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app
from chartae.core.errors import DataError, PlanError, RunFolderError, TrainingError
from chartae.estimators.fitting import Fitting
from chartae.estimators.sweeps import Cell, recommended, results, running
from chartae.models.persistence import OpenRun, is_unfinished

TINY = {"hidden": (8,), "max_epochs": 2, "batch_size": 64}
GRID = {"latent_dims": (1, 2), "betas": (0.5, 1)}


def linear(n=1500, d=2, features=8, noise=0.3, seed=0):
    """Rows of probabilistic PCA: x = W z + noise, with axes of equal strength."""
    rng = np.random.default_rng(seed)
    W = np.linalg.qr(rng.normal(size=(features, d)))[0] * 2.0
    return rng.normal(size=(n, d)) @ W.T + noise * rng.normal(size=(n, features)), W


def values(found):
    """All that is measured, but for the time it took."""
    return [
        ({k: v for k, v in cell.to_dict().items() if k not in ("run", "seconds")}, cell.nats.tolist())
        for cell in found.cells
    ]


@pytest.fixture(scope="module")
def X():
    return linear(200)[0]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A linear VAE, whose optimum is known, of several sizes and weights."""
    X, W = linear()
    found = ct.sweep(
        X,
        run=tmp_path_factory.mktemp("known") / "sweep",
        latent_dims=(1, 2, 4),
        betas=(0.5, 1, 2),
        network="linear",
        learning_rate=0.05,
        schedule="cosine",
        batch_size=64,
        max_epochs=20,
        patience=None,
        validation_fraction=0.2,
    )
    return found, X, W


# ------------------------------------------------------------------------------------------ known answers


def test_the_true_size_of_linear_data_is_recommended(known):
    found, _, _ = known
    assert (found.recommended.latent_dim, found.recommended.beta) == (2, 1.0)
    assert all(c.active == min(c.latent_dim, 2) for c in found.cells if c.beta == 1)


def test_the_bound_reaches_the_likelihood_of_probabilistic_pca(known):
    found, X, W = known
    cell = next(c for c in found.cells if (c.latent_dim, c.beta) == (2, 1.0))
    rows = X[ct.load(cell.run).validation_rows_]
    covariance = W @ W.T + 0.09 * np.eye(8)
    _, log_det = np.linalg.slogdet(covariance)
    mahalanobis = np.einsum("ni,ij,nj->n", rows, np.linalg.inv(covariance), rows)
    truth = -0.5 * (8 * math.log(2 * math.pi) + log_det + mahalanobis)
    # A fit of 1,200 rows is about parameters / (2 n) = 0.03 nats from the truth.
    assert abs((cell.nats - truth).mean()) < 0.08
    # Axes of equal strength: the posterior is round, and a diagonal one can be it.
    assert cell.elbo <= cell.bound < cell.elbo + 0.08
    assert cell.rmse == pytest.approx(0.3 * math.sqrt(6 / 8), rel=0.06)  # of 8 directions 2 are in the codes


def test_rate_falls_and_distortion_grows_with_beta(known):
    found, _, _ = known
    for d in (1, 2, 4):
        line = [c for c in found.cells if c.latent_dim == d]
        assert [c.beta for c in line] == [0.5, 1.0, 2.0]
        assert line[0].rate > line[1].rate > line[2].rate
        assert line[0].distortion < line[1].distortion < line[2].distortion
        if d > 1:  # at 1 too, by less than these rows can tell
            assert max(line, key=lambda c: c.elbo).beta == 1.0
        assert all(c.elbo == pytest.approx(-(c.rate + c.distortion)) for c in line)


def test_what_is_measured_is_what_the_model_says_itself(known):
    found, X, _ = known
    cell = found.recommended
    model = ct.load(cell.run)
    rows = X[model.validation_rows_]
    assert cell.nats.shape == (300,)
    assert cell.bound == pytest.approx(cell.nats.mean())
    assert cell.bound == pytest.approx(model.score(rows, n_importance=64), abs=0.05)
    mean, std = model.transform(rows, return_std=True)
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum(1)
    assert cell.rate == pytest.approx(kl.mean(), rel=1e-5)
    assert cell.rmse == pytest.approx(np.sqrt(np.mean((model.project(rows) - rows) ** 2)), rel=1e-5)
    assert cell.parameters == sum(p.numel() for p in model.model_.parameters() if p.requires_grad)


def test_an_autoencoder_is_judged_by_distortion_alone(tmp_path):
    X, _ = linear(600)
    given = {"network": "linear", "learning_rate": 0.02, "max_epochs": 25, "patience": None}
    found = ct.sweep(X, run=tmp_path / "s", recipe="ae", latent_dims=(1, 2, 3), **given)
    assert [c.rate for c in found.cells] == [c.bound for c in found.cells] == [None] * 3
    assert found.recommended.latent_dim >= 2
    assert found.behind(found.cells[0])[0] > 1.0
    assert "no rate" in found.notes[0]
    assert found.plot().get_xlabel() == "latent dimensions"


# ------------------------------------------------------------------------------------------------ the rule


def cell(d, nats, beta=1.0, **more):
    return Cell(d, beta, "global", None, rate=1.0, nats=np.asarray(nats), **more)


def test_the_rule_takes_the_smallest_size_within_two_paired_errors():
    rng = np.random.default_rng(0)
    rows = 10 * rng.normal(size=400)  # rows differ far more than models do
    gap = rng.normal(size=400)
    gap = (gap - gap.mean()) / gap.std(ddof=1) / 20  # of mean 0, with a standard error of 1 / 400
    error = 1 / 400
    best = cell(4, rows)
    near = cell(2, rows - gap - 1.9 * error)
    far = cell(2, rows - gap - 2.1 * error)
    assert recommended([near, best])[0] is near
    assert recommended([far, best])[0] is best
    # Of one size the better one, and a size that is better by chance needs no excuse.
    better = cell(2, rows - gap - 1.5 * error, beta=2.0)
    assert recommended([near, better, best])[0] is better
    chosen, reason, notes = recommended([cell(2, rows), cell(4, rows - 1.0)])
    assert chosen.latent_dim == 2
    assert "is the best" in reason
    assert len(notes) == 1


def test_notes_say_where_the_grid_ends_and_what_failed():
    rows = np.random.default_rng(0).normal(size=50)
    cells = [cell(2, rows - 1), cell(4, rows, cut=True), cell(2, [], beta=2.0, failed="not finite")]
    chosen, _, notes = recommended(cells)
    said = " ".join(notes)
    assert chosen.latent_dim == 4
    assert "4 is the largest size of the grid" in said
    assert "1 of 2 fits were still improving" in said
    assert "latent_dim 2, beta 2: failed (not finite)" in said
    with pytest.raises(TrainingError, match="every fit failed"):
        recommended(cells[-1:])


# ------------------------------------------------------------------------------- interrupted and resumed


def test_the_number_of_processes_changes_nothing(X, tmp_path):
    one = ct.sweep(X, run=tmp_path / "one", **GRID, **TINY)
    two = ct.sweep(X, run=tmp_path / "two", jobs=2, **GRID, **TINY)
    assert values(one) == values(two)
    assert one.reason == two.reason


class Counted:
    """Counts fits, and breaks one of them off as a killed program would."""

    def __init__(self, monkeypatch, stop_at=None, how=KeyboardInterrupt):
        self.fits, self.real = [], Fitting._train

        def train(estimator, task, keeping):
            self.fits.append((estimator.latent_dim, estimator.recipe_params["beta"]))
            if len(self.fits) == stop_at:
                keeping.due = lambda: True  # a checkpoint after every step
                keep = keeping.keep

                def kept(*given):
                    keep(*given)
                    raise how

                keeping.keep = kept
            self.real(estimator, task, keeping)

        monkeypatch.setattr(Fitting, "_train", train)


def test_a_sweep_that_was_killed_in_a_fit_goes_on_there(X, tmp_path, monkeypatch):
    whole = ct.sweep(X, run=tmp_path / "whole", **GRID, **TINY)
    with monkeypatch.context() as patch:
        counted = Counted(patch, stop_at=2)
        with pytest.raises(KeyboardInterrupt):
            ct.sweep(X, run=tmp_path / "s", **GRID, **TINY)
        assert counted.fits == [(1, 0.5), (1, 1.0)]
    assert is_unfinished(tmp_path / "s/cells/d1_beta1_noise-global")
    record = json.loads((tmp_path / "s/sweep.json").read_text())
    assert "recommended" not in record
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        found = ct.sweep(X, run=tmp_path / "s", **GRID, **TINY)
        assert counted.fits == [(1, 1.0), (2, 0.5), (2, 1.0)]
    assert values(found) == values(whole)


def test_a_fit_that_was_finished_and_not_measured_is_measured(X, tmp_path, monkeypatch):
    whole = ct.sweep(X, run=tmp_path / "s", **GRID, **TINY)
    measures = tmp_path / "s/cells/d2_beta1_noise-global/cell.json"
    measures.write_text(measures.read_text()[:40])  # as a disk that was full would leave it
    counted = Counted(monkeypatch)
    assert values(ct.sweep(X, run=tmp_path / "s", **GRID, **TINY)) == values(whole)
    assert counted.fits == []
    assert json.loads(measures.read_text())["parameters"] > 0


def test_another_grid_adds_cells(X, tmp_path, monkeypatch):
    ct.sweep(X, run=tmp_path / "s", latent_dims=(1,), betas=(1,), **TINY)
    counted = Counted(monkeypatch)
    found = ct.sweep(X, run=tmp_path / "s", latent_dims=[2, 1], betas=(1,), noises=("global", 0.5), **TINY)
    assert len(counted.fits) == 3
    assert [c.folder for c in found.cells] == [
        f"d{d}_beta1_noise-{noise}" for d in (1, 2) for noise in ("global", "0.5")
    ]
    assert len(found.plot().lines) == 6  # four cells of one point each, the mark and the line of the best


def test_other_data_and_parameters_are_refused(X, tmp_path):
    given = {"run": tmp_path / "s", "latent_dims": (1,), "betas": (1,), **TINY}
    ct.sweep(X, **given)
    for change, said in (
        ({"max_epochs": 3}, "begun with max_epochs=2, not max_epochs=3"),
        ({"random_state": 1}, "begun with random_state=0, not random_state=1"),
        ({"recipe_params": {"warmup": 1.0}}, "begun with warmup=None, not warmup=1.0"),
        ({"recipe": "vae", "betas": None}, "begun with recipe='beta-vae', not recipe='vae'"),
    ):
        with pytest.raises(RunFolderError, match=said):
            ct.sweep(X, **given | change)
    for other in (X[:-1], X + 1.0, X[::-1].copy()):
        with pytest.raises(RunFolderError, match="holds a sweep of other data"):
            ct.sweep(other, **given)
    assert ct.sweep(X, **given, device="cpu").cells  # where it runs is free


def test_a_fit_that_fails_is_left_out(X, tmp_path, monkeypatch):
    real = Fitting._train

    def train(estimator, task, keeping):
        if estimator.latent_dim == 2:
            raise TrainingError("the loss is not finite: lower learning_rate")
        real(estimator, task, keeping)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "_train", train)
        found = ct.sweep(X, run=tmp_path / "s", latent_dims=(1, 2), betas=(1,), **TINY)
    assert found.recommended.latent_dim == 1
    assert "failed (the loss is not finite" in found.notes[-1]
    assert json.loads((tmp_path / "s/sweep.json").read_text())["cells"][1]["distortion"] is None
    again = ct.sweep(X, run=tmp_path / "s", latent_dims=(1, 2), betas=(1,), **TINY)
    assert not any(c.failed for c in again.cells)  # what failed is tried again


# --------------------------------------------------------------------------------------- what comes in


@pytest.mark.parametrize(
    "given, error, said",
    [
        ({"latent_dims": 3}, PlanError, "latent_dims=3: give a list"),
        ({"latent_dims": ()}, PlanError, "latent_dims is empty"),
        ({"latent_dims": (0,)}, PlanError, "whole numbers from 1"),
        ({"latent_dims": (1.5,)}, PlanError, "whole numbers from 1"),
        ({"betas": (-1,)}, PlanError, "numbers from 0"),
        ({"betas": (float("nan"),)}, PlanError, "numbers from 0"),
        ({"betas": (1,), "recipe": "vae"}, PlanError, "'vae' has no beta"),
        ({"recipe": "beta"}, PlanError, "unknown recipe 'beta'"),
        ({"recipe_params": {"beta": 2}}, PlanError, "give values of it as betas="),
        ({"latent_dim": 2}, PlanError, "give values of it as latent_dims="),
        ({"noise": "item"}, PlanError, "give values of it as noises="),
        ({"noises": ("loud",)}, ValueError, "noise"),
        ({"noises": [None]}, PlanError, "numbers above 0"),
        ({"noises": [True]}, PlanError, "numbers above 0"),
        ({"noises": [[1]]}, PlanError, "numbers above 0"),
        ({"beta": 2}, PlanError, "recipe_params= takes those of the recipe"),
        ({"epochs": 2}, PlanError, "did you mean 'max_epochs'"),
        ({"max_time": 3.0}, PlanError, "use max_epochs"),
        ({"network": (None, None)}, PlanError, "name a network"),
        ({"random_state": None}, PlanError, "one seed"),
        ({"jobs": 0}, PlanError, "jobs=0"),
        ({"validation_fraction": 0.0}, DataError, "too few rows are held out"),
    ],
)
def test_bad_input_leaves_nothing(given, error, said, X, tmp_path):
    with pytest.raises(error, match=said) as caught:
        ct.sweep(X, **{"run": tmp_path / "s", **TINY, **given})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_folder_of_something_else_is_refused(X, tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    for place, said in ((tmp_path, "holds no sweep"), (tmp_path / "a.txt", "is a file")):
        with pytest.raises(RunFolderError, match=said):
            ct.sweep(X, run=place, **TINY)


def test_sizes_by_default_surround_the_dimension_of_the_data(tmp_path, monkeypatch):
    X, _ = linear(400, d=3, noise=0.0)
    monkeypatch.setattr(running, "_fitted", lambda work, *_: (c for c, _ in work))
    monkeypatch.setattr(running, "recommended", lambda cells: (cells[0], "", ()))
    monkeypatch.setattr(results, "best_of", lambda cells: cells[0])
    monkeypatch.setattr(results, "behind_of", lambda best, cell: (0.0, 0.0))
    found = ct.sweep(X, run=tmp_path / "s", **TINY)
    d = ct.VAE(**TINY, random_state=0).fit(X).latent_dim_
    assert d in (3, 4)
    assert {c.latent_dim for c in found.cells} == {2, d, 2 * d, 8}  # 4 d are more than there are columns
    assert sorted({c.beta for c in found.cells}) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("recipe", "sizes", "betas"),
    [
        ("svae", {2, 4, 8}, {None}),  # no sphere in one dimension
        ("ciwae", {1, 2, 4}, {None}),  # whose beta is a share of the ELBO
        ("beta-tc-vae", {1, 2, 4}, {None}),  # and here the weight of total correlation
    ],
)
def test_a_grid_by_default_is_one_that_the_recipe_takes(recipe, sizes, betas, tmp_path):
    X, _ = linear(200, d=1, noise=0.0)
    found = ct.sweep(X, run=tmp_path / "s", recipe=recipe, max_epochs=1, hidden=(4,))
    assert {c.latent_dim for c in found.cells} == sizes
    assert {c.beta for c in found.cells} == betas


def test_tables_with_gaps_and_conditional_recipes(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": rng.normal(size=120), "b": rng.poisson(3, 120), "c": rng.choice(["x", "y"], 120)}
    )
    table.loc[::9, "a"] = np.nan
    found = ct.sweep(table, run=tmp_path / "t", latent_dims=(1,), betas=(1,), **TINY)
    assert found.cells[0].rmse is None  # a category has no distance
    assert np.isfinite(found.cells[0].bound)
    X = rng.normal(size=(120, 3))
    labels = rng.choice(["p", "q"], 120)
    found = ct.sweep(X, labels, run=tmp_path / "c", recipe="cvae", latent_dims=(1, 2), **TINY)
    assert [c.beta for c in found.cells] == [None, None]
    with pytest.raises(RunFolderError, match="other data"):
        ct.sweep(X, labels[::-1], run=tmp_path / "c", recipe="cvae", latent_dims=(1, 2), **TINY)


# --------------------------------------------------------------------------------------- the command


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


FEW = ["--latent-dims", "1,2", "--betas", "0.5,1", "--epochs", "2", "--hidden", "8", "--batch-size", "64"]


@pytest.fixture(scope="module")
def file(tmp_path_factory, X):
    path = tmp_path_factory.mktemp("data") / "rows.npy"
    np.save(path, X)
    return path


def test_the_command_prints_draws_and_records(file, tmp_path):
    done = run("sweep", file, "--out", tmp_path / "s", *FEW)
    assert done.exit_code == 0, done.output
    said = done.stdout
    assert "→" in said
    lines = said.split("Take ")[0].splitlines()[2:]
    assert max(map(len, lines)) <= 80
    titles = ["d", "beta", "rate", "distortion", "rmse", "bound", "behind", "active", "weights", "s"]
    assert titles in [line.split() for line in lines]  # none of them is cut
    assert "Take latent_dim" in said
    assert "beta 1 is made for" in said
    assert done.stderr.count("cell ") == 4
    record = json.loads((tmp_path / "s/sweep.json").read_text())
    assert len(record["cells"]) == 4
    assert {"rate", "distortion", "rmse", "elbo", "bound", "active", "seconds", "parameters"} <= set(
        record["cells"][0]
    )
    assert record["reason"] in said
    assert (tmp_path / "s/sweep.png").read_bytes().startswith(b"\x89PNG")
    chosen = tmp_path / "s" / record["recommended"]
    assert f"chartae audit {chosen}" in said
    audited = run("audit", chosen, "--only", "reconstruction")
    assert audited.exit_code == 0 or "are needed to judge it by" in audited.stderr  # it knows its data
    assert run("sweep", file, "--out", tmp_path / "s", *FEW, "--quiet").output == ""


@pytest.mark.parametrize(
    "words, said",
    [
        (["--betas", "much"], "is not numbers with commas"),
        (["--latent-dims", "0"], "--latent-dims [0]: give whole numbers from 1"),
        (["--recipe", "vae", "--betas", "1"], "leave --betas out"),
        (["--param", "beta=2"], "as --betas"),
        (["--param", "latent_dim=2"], "as --latent-dims"),
        (["--noises", "loud"], "noise"),
        (["--param", "max_time=2"], "max_time cuts fits off"),
    ],
)
def test_misuse_of_the_command_costs_one_line(words, said, file, tmp_path):
    done = run("sweep", file, "--out", tmp_path / "s", *words)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals as a terminal sends them")
@pytest.mark.parametrize(
    "number, jobs, code",
    [
        (signal.SIGINT, 1, 130),
        pytest.param(signal.SIGINT, 2, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 2, 143, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_a_sweep_that_goes_on(number, jobs, code, file, tmp_path):
    words = ["sweep", str(file), "--out", "s", *FEW[:4], "--hidden", "8", "--jobs", str(jobs)]
    long = ["--epochs", "100000", "--param", "patience=None"]
    with subprocess.Popen(
        [sys.executable, "-m", "chartae", *words, *long],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        cells = tmp_path / "s/cells"
        while process.poll() is None and len(list(cells.glob("*/history.jsonl"))) < jobs:
            time.sleep(0.05)
        # Ctrl-C reaches all processes of a terminal, and SIGTERM the one that it is sent to.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        said = process.stderr.read()
    assert process.returncode == code, said
    assert "s holds what was fitted so far: the same command goes on" in said
    assert "Traceback" not in said
    # Nobody goes on fitting: the locks are free.
    for begun in cells.iterdir():
        with OpenRun(begun, overwrite=False, resume=True) as taken:
            assert taken.begun
    again = run("sweep", file, "--out", tmp_path / "s", *FEW)
    assert "begun with" in again.stderr


# ------------------------------------------------------------------------------------ scikit-learn's way


@pytest.mark.filterwarnings("ignore:with the code of another")  # some of the weights leave codes no room
def test_grid_search_over_sizes_and_parameters_of_recipes():
    X, _ = linear(200)
    given = {"network": "linear", "learning_rate": 0.05, "max_epochs": 12, "random_state": 0}
    search = GridSearchCV(ct.VAE(**given), {"latent_dim": [1, 2], "free_bits": [0.0, 3.0]}, cv=2).fit(X)
    assert search.best_params_ == {"latent_dim": 2, "free_bits": 0.0}
    search = GridSearchCV(
        ct.Autoencoder(recipe="beta-vae", **given),
        {"latent_dim": [1, 2], "recipe_params": [{"beta": 1.0}, {"beta": 8.0}]},
        cv=2,
    ).fit(X)
    assert search.best_params_ == {"latent_dim": 2, "recipe_params": {"beta": 1.0}}
    assert search.best_estimator_.transform(X).shape == (200, 2)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
