"""Heads on codes: scikit-learn's battery, planted classes and numbers, calibration, and what is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app, main
from chartae.core.errors import DataError, PlanError
from chartae.estimators.efficiency import _in_turn
from chartae.transfer import Scaled, calibration_error, coded, fit_temperature, tempered

TRAINING = {"hidden": (16,), "max_epochs": 20, "patience": None, "random_state": 0}


@parametrize_with_checks(
    [ct.HeadClassifier(), ct.HeadClassifier(MinMaxScaler(), head="knn"), ct.HeadRegressor(), Scaled()]
)
def test_scikit_learn_s_battery(estimator, check):
    check(estimator)


def blobs(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_blobs(n, n_features=6, centers=3, cluster_std=1.0, random_state=1)
    return X.astype(np.float32), np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def vae() -> ct.VAE:
    return ct.VAE(latent_dim=2, **TRAINING).fit(blobs()[0])


# ------------------------------------------------------------------- classes


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("head", ["linear", "mlp", "knn", LogisticRegression()], ids=str)
def test_classes_are_read_off_codes(vae, head, stochastic):
    X, y = blobs()
    m = ct.HeadClassifier(vae, head=head, stochastic=stochastic, random_state=0).fit(X[::2], y[::2])
    assert m.score(X[1::2], y[1::2]) > 0.9
    p = m.predict_proba(X[1::2])
    assert p.shape == (150, 3)
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-5)
    assert m.encoder_ is vae
    np.testing.assert_array_equal(p, m.predict_proba(X[1::2]))  # draws are the same each time


def test_draws_are_averaged(vae):
    X, y = blobs()
    m = ct.HeadClassifier(vae, stochastic=True, n_samples=4, calibrate=False, random_state=3).fit(X, y)
    draws = vae.sample_posterior(X[:5], 4, shared=True, random_state=m.random_state_)
    by_hand = np.mean([m.head_.predict_proba(z) for z in draws], 0)
    np.testing.assert_allclose(m.predict_proba(X[:5]), by_hand, rtol=1e-6)
    np.testing.assert_allclose(m.predict_proba(X)[:5], by_hand, rtol=1e-5)  # whatever rows are beside them


def test_rows_without_a_label_serve_the_encoder():
    X, y = blobs()
    numbers = np.searchsorted(["a", "b", "c"], y)
    numbers[30:] = -1
    m = ct.HeadClassifier(ct.AE(latent_dim=2, **TRAINING), random_state=0).fit(X, numbers)
    assert m.classes_.tolist() == [0, 1, 2]
    assert m.encoder_.n_features_in_ == 6
    assert len(m.encoder_.codes_) == 250  # it saw all but what it held out
    assert m.score(X[30:], np.searchsorted(["a", "b", "c"], y[30:])) > 0.85
    two = ct.HeadClassifier().fit(X, np.where(y == "a", -1, 1))
    assert two.classes_.tolist() == [-1, 1]  # beside one other label, -1 is a class
    truth = np.where(y == "a", -1, 1)
    right = two.predict(X) == truth
    truth[0] = 5  # which was not fitted
    right[0] = False
    assert two.score(X, truth) == pytest.approx(right.mean())


class Narrow(TransformerMixin, BaseEstimator):
    """An encoder whose draws are hardly apart."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X)

    def sample_posterior(self, X, n_samples=1, *, random_state=None):
        noise = np.random.default_rng(random_state).normal(size=(n_samples, *np.shape(X)))
        return np.asarray(X) + 1e-4 * noise


@pytest.mark.parametrize("head", ["linear", "mlp", "knn", "spreading"])
def test_draws_that_are_hardly_apart_count_for_one(head):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (rng.random(60) < 1 / (1 + np.exp(-2 * X[:, 0]))).astype(int)
    told = [
        ct.HeadClassifier(Narrow(), head=head, stochastic=s, calibrate=False, random_state=0).fit(X, y)
        for s in (False, True)
    ]
    one, many = (m.predict_proba(X) for m in told)
    assert np.abs(one - many).max() < 0.05


def test_of_few_rows_fewer_are_neighbors():
    X, y = np.array([[0.0], [0.1], [5.0]]), np.array([0, 0, 1])
    assert ct.HeadClassifier(head="knn").fit(X, y).predict_proba(X).shape == (3, 2)
    np.testing.assert_allclose(ct.HeadRegressor(head="knn").fit(X, y).predict(X), 1 / 3)


def test_encoders_of_all_kinds():
    X, y = blobs()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Dropout(0.5))
    images = X.reshape(-1, 2, 3)
    for encoder, given in ((PCA(2), X), (PCA(2).fit(X[:50]), X), (module, images), (None, X)):
        m = ct.HeadClassifier(encoder, random_state=0).fit(given[::2], y[::2])
        assert m.score(given[1::2], y[1::2]) > 0.8, encoder
    assert module.training  # as it was
    assert not hasattr(PCA(2), "components_")
    with pytest.raises(PlanError, match="Ridge has no transform: use a model of chartae"):
        ct.HeadClassifier(Ridge()).fit(X, y)
    with pytest.raises(PlanError, match="this encoder gives points: use a model of chartae"):
        ct.HeadClassifier(PCA(2), stochastic=True).fit(X, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_modules_are_given_items_in_their_own_type(dtype):
    net = nn.Linear(1, 1).to(dtype)
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)
    number = 123456789.25
    assert coded(net, np.array([[number]])).item() == torch.tensor(number, dtype=dtype).item()


@pytest.mark.parametrize("y", [lambda X: X[:, 0], lambda X: (X > 0).astype(int)])
def test_rows_are_left_to_learn_from(y):
    X = np.random.default_rng(0).normal(size=(20, 2))
    head = ct.HeadRegressor if y(X).ndim == 1 else ct.HeadClassifier
    with pytest.raises(DataError, match=r"validation_fraction=0.99 leaves no row to learn from: give a sm"):
        head(validation_fraction=0.99, random_state=0).fit(X, y(X))


def test_copies_keep_a_fitted_encoder(vae):
    X, y = blobs()
    m = ct.HeadClassifier(vae, random_state=0)
    assert clone(m).encoder is vae
    assert cross_val_score(m, X, y, cv=3).min() > 0.85
    search = GridSearchCV(m, {"head": ["linear", "knn"]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.85


@pytest.mark.parametrize(
    ("parameters", "y", "message"),
    [
        ({"head": "linaer"}, None, "unknown head 'linaer' of a categorical target: did you mean 'linear'"),
        ({"head": 3}, None, "unknown head '?3'? of a categorical target"),
        ({}, np.zeros(300, int), "all labels are of one class"),
        ({}, -np.ones(300, int), "-1, which stands for no label"),
        ({}, np.zeros(299, int), "X has 300 rows and y has 299: give one target for each row"),
        ({"n_samples": 0}, None, "n_samples"),
        ({"validation_fraction": 0.995}, None, "leaves 2 rows to learn 3 classes from"),
        ({"stochastic": "yes"}, None, "stochastic"),
    ],
)
def test_what_makes_no_sense_is_refused(parameters, y, message):
    X, labels = blobs()
    with pytest.raises(ValueError, match=message):
        ct.HeadClassifier(**parameters).fit(X, labels if y is None else y)


# ------------------------------------------------------------------- calibration


def test_a_temperature_that_was_planted_is_found():
    """Labels drawn from softmax(l / 3), where the head says softmax(l): 20,000 rows tell it to 3 %."""
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(20_000, 5))
    truth = softmax(logits / 3, axis=1)
    y = (truth.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    said = softmax(logits, axis=1)
    found = fit_temperature(said, y)
    assert found == pytest.approx(3.0, rel=0.05)
    assert calibration_error(tempered(said, found), y) < 0.015
    assert calibration_error(said, y) > 0.2
    np.testing.assert_array_equal(tempered(said, found).argmax(1), said.argmax(1))


def test_the_calibration_error_of_the_truth_is_small():
    """Of 50,000 rows in 15 bins, sampling alone leaves less than .01."""
    rng = np.random.default_rng(1)
    p = softmax(2 * rng.normal(size=(50_000, 3)), axis=1)
    y = (p.cumsum(1) > rng.random((50_000, 1))).argmax(1)
    assert calibration_error(p, y) < 0.01
    assert calibration_error(np.eye(2)[[0, 0, 1]], np.array([0, 1, 1])) == pytest.approx(1 / 3)


def test_heads_are_calibrated_by_rows_that_they_did_not_see():
    """More features than rows can tell apart: a regression without a penalty is sure of all it has seen."""
    X, y = blobs(2000)
    rng = np.random.default_rng(0)
    wide = np.hstack([X / 30, rng.normal(size=(2000, 60))])
    sure = LogisticRegression(C=1e4, max_iter=5000)
    m = ct.HeadClassifier(head=sure, validation_fraction=0.3, random_state=0).fit(wide[:300], y[:300])
    calibrated = m.calibration_error(wide[300:], y[300:])
    assert m.temperature_ > 1.5
    m.temperature_ = 1.0
    assert calibrated < 0.5 * m.calibration_error(wide[300:], y[300:])
    with pytest.raises(DataError, match="the label 'd' is none of those fitted"):
        m.calibration_error(wide[:2], ["a", "d"])


@pytest.mark.parametrize("copies", [2, 16])
def test_a_linear_head_is_regularized_alike_however_wide_codes_are(copies):
    """Codes written down several times have the same inner products, so that a head's prior is the same."""
    X, y = blobs()
    rng = np.random.default_rng(0)
    X = X + 20 * rng.normal(size=X.shape)  # where the prior matters
    once, often = (ct.HeadClassifier(random_state=0).fit(Z, y) for Z in (X, np.tile(X, copies)))
    np.testing.assert_allclose(once.predict_proba(X), often.predict_proba(np.tile(X, copies)), atol=1e-3)
    line = ct.HeadRegressor(random_state=0).fit(X, X[:, 0] + X[:, 1])
    wide = ct.HeadRegressor(random_state=0).fit(np.tile(X, copies), X[:, 0] + X[:, 1])
    np.testing.assert_allclose(line.predict(X), wide.predict(np.tile(X, copies)), atol=1e-6)


# ------------------------------------------------------------------- numbers


def test_a_line_and_its_noise_are_found():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 3))
    y = X @ [1.0, -2.0, 0.5] + 3 + 0.7 * rng.normal(size=4000)
    m = ct.HeadRegressor(random_state=0).fit(X, y)
    mean, std = m.predict(X, return_std=True)
    np.testing.assert_allclose(mean, X @ [1.0, -2.0, 0.5] + 3, atol=0.2)
    np.testing.assert_allclose(std, 0.7, rtol=0.12)  # of 400 held-out rows: 3.5 % is one standard error
    assert m.score(X, y) > 0.85


def test_counts_are_poisson():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    rate = np.exp(0.5 + X @ [0.6, -0.4])
    m = ct.HeadRegressor(distribution="counts", random_state=0).fit(X, rng.poisson(rate))
    mean, std = m.predict(X, return_std=True)
    assert np.median(np.abs(mean / rate - 1)) < 0.1
    np.testing.assert_allclose(std, np.sqrt(mean))
    for bad in (np.full(4000, 0.5), np.full(4000, -1)):
        with pytest.raises(DataError, match="holds what is no count"):
            ct.HeadRegressor(distribution="counts").fit(X, bad)
    with pytest.raises(PlanError, match="unknown head 'knn' of a counts target: known: linear"):
        ct.HeadRegressor(head="knn", distribution="counts").fit(X, rng.poisson(rate))


def test_draws_that_differ_widen_a_prediction(vae):
    X, _ = blobs()
    y = X[:, 0].astype(float)
    still = ct.HeadRegressor(vae, random_state=0).fit(X, y)
    moved = ct.HeadRegressor(vae, stochastic=True, random_state=0).fit(X, y)
    assert np.ptp(still.predict(X, return_std=True)[1]) == 0
    assert np.ptp(moved.predict(X, return_std=True)[1]) > 0
    with pytest.raises(DataError, match="y has infinity or NaN in row 3"):
        still.fit(X, np.where(np.arange(300) == 3, np.nan, y))
    with pytest.raises(DataError, match="convert them, or use HeadClassifier"):
        still.fit(X, blobs()[1])


# ------------------------------------------------------------------- codes


def test_one_scale_for_all_dimensions():
    codes = np.random.default_rng(0).normal(size=(500, 3)) * [4.0, 1.0, 1e-3] + 7
    scaled = Scaled().fit_transform(codes)
    np.testing.assert_allclose(scaled.mean(0), 0.0, atol=1e-12)
    assert np.square(scaled).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(scaled.std(0) / scaled.std(0)[0], codes.std(0) / codes.std(0)[0])
    assert (Scaled().fit_transform(np.ones((4, 2))) == 0).all()


def test_codes_that_are_not_finite_are_refused():
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.bias.fill_(float("nan"))
    with pytest.raises(DataError, match=r"the code of row 0 \(from 0\) holds NaN or infinity"):
        coded(module, np.zeros((3, 2)))
    assert coded(module, np.zeros((0, 2))).shape == (0, 2)


# ------------------------------------------------------------------- by the number of labels


def test_more_labels_tell_more():
    X, y = make_blobs(600, n_features=6, centers=4, cluster_std=4.0, random_state=1)
    found = ct.label_efficiency_curve(PCA(3), X, y, counts=(4, 40, 480), repeats=4, random_state=0)
    assert list(found.scores) == ["codes", "PCA, 3", "raw input"]
    for scores in found.scores.values():
        assert scores.shape == (3, 4)
        few, some, many = scores.mean(1)
        assert few < some < many + 0.01
        assert np.ptp(scores[2]) == 0  # all labels are the same labels each time
    np.testing.assert_allclose(found.scores["codes"], found.scores["PCA, 3"])  # which they are
    table = found.to_frame()
    assert len(table) == 36
    assert table.groupby("of").accuracy.mean()["codes"] == pytest.approx(found.scores["codes"].mean())
    assert "480" in str(found).splitlines()[0]


@pytest.mark.parametrize("framed", [True, False])
def test_columns_have_units_of_their_own(framed):
    """What tells classes apart is lost beside a column of large numbers, unless both are scaled."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    X = np.stack([y + 0.2 * rng.normal(size=300), 1e4 * rng.normal(size=300)], 1)
    given = ct.VAE(latent_dim=1, hidden=(8,), scale="feature", max_epochs=1, random_state=0).fit(X)
    given = PCA(1) if framed else given
    X = pd.DataFrame(X, columns=["a", "b"]) if framed else X
    found = ct.label_efficiency_curve(given, X, y, counts=(200,), repeats=2, random_state=0)
    assert found.scores["raw input"].mean() > 0.95


def test_every_class_is_among_few_labels():
    y = np.repeat([3, 5, 8], [400, 90, 10])
    for seed in range(5):
        order = _in_turn(y, np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(500))
        assert sorted(y[order[:3]]) == [3, 5, 8]
        assert sorted(y[order[:30]]) == [3] * 10 + [5] * 10 + [8] * 10


def test_several_encoders_by_name(vae):
    X, y = blobs()
    given = {"VAE": vae, "two components": PCA(2)}
    test = (X[200:], y[200:])
    found = ct.label_efficiency_curve(given, X[:200], y[:200], test=test, head="knn", random_state=0)
    assert list(found.scores) == ["VAE", "two components", "PCA, 2", "raw input"]
    assert found.counts == (10, 30, 100, 200)
    assert found.scores["VAE"][-1].mean() > 0.9
    axes = found.plot()
    assert [line.get_label() for line in axes.lines] == list(found.scores)
    for counts, message in (
        ((2,), "counts holds 2: give whole numbers from 3 "),
        ((201,), r"to 200 \(labels\)"),
        ((9.5,), "holds 9.5: give whole"),
    ):
        with pytest.raises(DataError, match=message):
            ct.label_efficiency_curve(vae, X[:200], y[:200], test=test, counts=counts)
    with pytest.raises(DataError, match="X has 200 rows and y has 300"):
        ct.label_efficiency_curve(vae, X[:200], y)


def test_a_curve_lets_labels_spread_along_all_rows():
    t = np.linspace(0, 1, 300)
    X = np.concatenate([np.stack([t, np.zeros(300)], 1), np.stack([t, np.ones(300)], 1)])
    y = np.repeat(["above", "below"], 300)
    found = ct.label_efficiency_curve(PCA(2), X, y, counts=(2,), head="spreading", repeats=3, random_state=0)
    assert (found.scores["codes"] == 1).all()  # one label on each line tells all of it


@pytest.mark.parametrize("given", [None, "test"])
def test_a_curve_lets_labels_spread_along_rows_without_one(given):
    t = np.linspace(0, 1, 300)
    X = np.concatenate([np.stack([t, np.zeros(300)], 1), np.stack([t, np.ones(300)], 1)])
    truth = np.repeat(["above", "below"], 300)
    y = np.where(np.arange(600) % 40 == 7, truth, None)
    found = ct.label_efficiency_curve(
        None,
        X,
        y,
        test=None if given is None else (X, truth),
        counts=np.array([2.0]),
        head="spreading",
        repeats=3,
        random_state=0,
    )
    assert found.counts == (2,)
    assert (found.scores["raw input"] == 1).all()  # nearest labels alone would be wrong for many rows


def test_a_curve_of_data_with_gaps_has_something_to_compare_with():
    X, y = blobs()
    X[::7, 1] = np.nan
    vae = ct.VAE(latent_dim=2, missing="mask", **TRAINING).fit(X)
    found = ct.label_efficiency_curve(vae, X, y, counts=30, repeats=1, random_state=0)
    assert list(found.scores) == ["codes", "PCA, 2", "raw input"]
    assert found.scores["raw input"].min() > 0.8


def test_images_are_no_codes():
    with pytest.raises(DataError, match=r"items of shape \(6, 2, 2\) are no codes: flatten them"):
        ct.HeadClassifier().fit(np.zeros((6, 2, 2)), np.arange(6) % 2)


# ------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def run(tmp_path_factory, vae):
    return vae.save(tmp_path_factory.mktemp("head") / "run")


def told(*args: object) -> str:
    result = CliRunner().invoke(app, ["head", *map(str, args)])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_head_of_a_run(run, tmp_path):
    X, y = blobs()
    numbers = np.searchsorted(["a", "b", "c"], y)
    numbers[::10] = -1
    np.savez(tmp_path / "rows.npz", X=X, y=numbers)
    said = told(run, f"{tmp_path / 'rows.npz'}:X", "--labels", "y", "--out", tmp_path / "told.csv")
    assert "read      216 labels by a linear head, and told 54 other rows" in said
    assert "unknown   30 rows have the label -1, which stands for none: write another, if it is one" in said
    assert float(said.split("accuracy  ")[1].split()[0]) > 0.9
    assert "ECE" in said
    table = pd.read_csv(tmp_path / "told.csv")
    assert len(table) == 300
    hidden = np.searchsorted(["a", "b", "c"], y)[::10]
    assert (table.label[::10] == hidden).mean() > 0.85  # of rows that had no label
    assert table.probability.between(1 / 3, 1).all()
    said = told(run, f"{tmp_path / 'rows.npz'}:X", "--labels", "y", "--head", "knn", "--stochastic",
                "--curve", tmp_path / "curve.png")  # fmt: skip
    assert "PCA, 2" in said
    assert (tmp_path / "curve.png").stat().st_size > 5000


@pytest.mark.parametrize("names", [["a", "b", "c"], [0, 1, 2]], ids=str)
def test_empty_cells_are_rows_without_a_label(run, tmp_path, names):
    X, y = blobs()
    truth = np.array(names)[np.searchsorted(["a", "b", "c"], y)]
    known = np.arange(len(y)) % 4 == 0
    frame = pd.DataFrame(X).assign(y=pd.Series(truth, dtype=object).where(known))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    said = told(run, tmp_path / "rows.csv", "--labels", "y", "--out", tmp_path / "told.csv")
    assert "unknown   225 rows have no label" in said
    assert "read      60 labels by a linear head, and told 15 other rows" in said
    table = pd.read_csv(tmp_path / "told.csv")
    assert (table.label == truth)[~known].mean() > 0.85


def test_numbers_of_a_run(run, tmp_path, capsys):
    X, _ = blobs()
    np.savez(tmp_path / "rows.npz", X=X, y=X[:, 0] + 0.01)
    data = f"{tmp_path / 'rows.npz'}:X", "--labels", "y"
    said = told(run, *data, "--head", "mlp", "--out", tmp_path / "o.csv")
    assert float(said.split("R2        ")[1].split(",")[0]) > 0.5
    assert set(pd.read_csv(tmp_path / "o.csv")) == {"label", "std"}
    assert main(["head", str(run), *data, "--curve", "c.png"]) == 2
    refused = capsys.readouterr()
    assert "leave out --curve" in refused.err
    assert not refused.out  # before anything is fitted


@pytest.mark.parametrize(
    ("more", "labels", "message"),
    [
        ([], None, "brings no labels: pass --labels"),
        (["--head", "tree"], [0, 1] * 150, "unknown head 'tree' of a categorical target"),
        (["--out", "a.txt"], [0, 1] * 150, "a.txt does not end in .csv"),
        (["--curve", "a.jpg"], [0, 1] * 150, "a.jpg does not end in .png"),
        (["--curve", "a.png", "--training", "joint"], [0, 1] * 150, "--training joint moves them"),
        ([], [0] * 300, "holds the label 0 alone"),
        ([], [0] * 299 + [7], "7 once: a head needs two rows"),
        (["--test", "0.01"], [*range(5)] * 60, "no row of some label is left to tell: give a larger --test"),
        (["--test", "0.99"], [*range(5)] * 60, "is left to learn from: give a smaller --test"),
        ([], [[0, 1]] * 300, "give one column of them, or HeadClassifier in Python"),
    ],
)
def test_a_head_says_what_is_wrong(run, tmp_path, capsys, more, labels, message):
    X, _ = blobs()
    np.savez(tmp_path / "rows.npz", X=X, **({} if labels is None else {"y": labels}))
    asked = [] if labels is None else ["--labels", "y"]
    assert main(["head", str(run), f"{tmp_path / 'rows.npz'}:X", *asked, *more]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_nothing_is_held_out_where_nothing_is_chosen_by_it():
    X, y = make_blobs(300, cluster_std=3.0, random_state=0)
    whole = ct.HeadClassifier(calibrate=False, random_state=0).fit(X, y)
    same = ct.HeadClassifier(validation_fraction=0.0, random_state=0).fit(X, y)
    most = ct.HeadClassifier(random_state=0).fit(X, y)
    assert np.array_equal(whole.predict_proba(X), same.predict_proba(X))
    assert not np.array_equal(whole.head_[-1].coef_, most.head_[-1].coef_)


def test_a_perceptron_ends_by_itself():
    """Without a warning, also where codes do not say the target, and in whatever units a number is."""
    rng = np.random.default_rng(0)
    X, coin = rng.normal(size=(300, 4)).astype(np.float32), rng.integers(2, size=300)
    head = ct.HeadClassifier(head="mlp", calibrate=False, random_state=0).fit(X, coin)
    assert head.head_[-1].n_iter_ < 2000
    y = np.abs(X[:, 0]) + X[:, 1]
    near, far = (ct.HeadRegressor(head="mlp", random_state=0).fit(X, scale * y) for scale in (1.0, 1e4))
    np.testing.assert_allclose(far.predict(X), 1e4 * near.predict(X), rtol=1e-3, atol=10.0)
    assert near.score(X, y) > 0.95


# ------------------------------------------------------------ several labels at once


def several(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three labels, each of which moves items along a direction of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, 3))
    X = (2 * y - 1) @ np.eye(3, 5) + 0.35 * rng.normal(size=(n, 5))
    return X.astype(np.float32), y


@pytest.mark.parametrize("head", ["linear", "mlp", "knn", "spreading", LogisticRegression()], ids=str)
def test_several_labels_are_read_each_by_itself(head):
    (X, y), (unseen, truth) = several(), several(seed=1)
    model = ct.HeadClassifier(head=head, random_state=0).fit(X, y)
    told = model.predict_proba(unseen)
    assert told.shape == truth.shape
    assert ((told >= 0) & (told <= 1)).all()
    np.testing.assert_array_equal(model.predict(unseen), told > 0.5)
    assert (model.predict(unseen) == truth).mean(0).min() > 0.95
    assert model.calibration_error(unseen, truth) < 0.06
    assert model.classes_.tolist() == [0, 1, 2]


def test_a_linear_head_of_several_labels_is_one_for_each():
    X, y = several()
    together = ct.HeadClassifier(calibrate=False, validation_fraction=0.0).fit(X, y).predict_proba(X)
    for j in range(3):
        alone = ct.HeadClassifier(calibrate=False, validation_fraction=0.0).fit(X, y[:, j]).predict_proba(X)
        np.testing.assert_allclose(together[:, j], alone[:, 1], atol=1e-6)


def test_the_temperature_of_several_labels_is_theirs_together():
    """Labels that are flipped by chance: a head that memorizes is too sure, and is told so."""
    X, y = several(400)
    y = y ^ (np.random.default_rng(1).random(y.shape) < 0.25)
    unseen, truth = several(1000, seed=2)
    truth = truth ^ (np.random.default_rng(3).random(truth.shape) < 0.25)
    kinds = {"head": KNeighborsClassifier(1), "random_state": 0, "validation_fraction": 0.3}
    sure, mended = (ct.HeadClassifier(calibrate=c, **kinds).fit(X, y) for c in (False, True))
    assert mended.temperature_ > 1.5
    assert mended.calibration_error(unseen, truth) < 0.5 * sure.calibration_error(unseen, truth)


@pytest.mark.parametrize("training", ["frozen", "joint", "bottleneck", "fine-tuned"])
@pytest.mark.parametrize("mark", [-1, np.nan])
def test_some_of_several_labels_need_not_be_known(training, mark):
    """Each is known of a third of the rows, and no row has all of them."""
    (X, y), (unseen, truth) = several(600), several(seed=1)
    y = np.where(np.arange(600)[:, None] % 3 == np.arange(3), y, mark)
    vae = ct.VAE(latent_dim=3, hidden=(16,), max_epochs=20, learning_rate=1e-2, patience=None, random_state=0)
    model = ct.HeadClassifier(vae, training=training, random_state=0).fit(X, y)
    assert (model.predict(unseen) == truth).mean(0).min() > 0.9


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([[0, 2], [1, 0]] * 10), "zeros and ones"),
        (np.array([[0, 1], [1, 1]] * 10), "column 1 .* the same in all rows"),
        (np.array([[0, 1], [1, 0]] * 9), "one target for each row"),
    ],
)
def test_what_several_labels_cannot_be(y, message):
    with pytest.raises(DataError, match=message):
        ct.HeadClassifier().fit(np.eye(20), y)


def test_several_labels_where_one_is_asked_for():
    X, y = several(40)
    with pytest.raises(DataError, match="3 labels of each row, and a curve is of one"):
        ct.label_efficiency_curve(None, X, y)
    model = ct.HeadClassifier().fit(X, y)
    for wrong in (y[:, 0], y[:, :2]):
        with pytest.raises(DataError, match=r"give \(40, 3\)"):
            model.calibration_error(X, wrong)


def test_the_score_of_several_labels_is_of_items_told_in_full():
    X, y = several(seed=1)
    model = ct.HeadClassifier(validation_fraction=0.0).fit(*several())
    assert model.score(X, y) == (model.predict(X) == y).all(1).mean() < (model.predict(X) == y).mean()


def test_a_score_passes_over_labels_that_are_not_known():
    X, y = several(seed=1)
    model = ct.HeadClassifier(validation_fraction=0.0).fit(*several())
    found, gaps = model.predict(X), y.astype(float)
    wrong = found != y
    gaps[wrong] = np.nan
    gaps[0] = -1
    assert wrong.any()
    assert model.score(X, gaps) == 1.0 > model.score(X, y)
    gaps[1, 0] = 1 - found[1, 0]  # one known label that is told wrong
    counted = (~np.isnan(gaps[1:])).any(1).sum()  # rows that have a label
    assert model.score(X, gaps) == pytest.approx(1 - 1 / counted)
    with pytest.raises(DataError, match=r"give \(500, 3\)"):
        model.score(X, y[:, :2])
    with pytest.raises(DataError, match="no row has a label"):
        model.score(X, np.full(y.shape, -1))


def test_the_calibration_error_passes_over_rows_without_a_label():
    X, y = load_iris(return_X_y=True)
    model, hidden = ct.HeadClassifier().fit(X, y), np.arange(len(y)) % 3 == 0
    expected = model.calibration_error(X[~hidden], y[~hidden])
    assert model.calibration_error(X, np.where(hidden, -1, y)) == expected != model.calibration_error(X, y)
    with pytest.raises(DataError, match=r"give \(150,\)"):
        model.calibration_error(X, np.eye(3, dtype=int)[y])


def test_a_score_of_classes_passes_over_rows_without_a_label():
    X, y = load_iris(return_X_y=True)
    model = ct.HeadClassifier().fit(X, y)
    wrong = model.predict(X) != y
    assert wrong.any()
    assert model.score(X, np.where(wrong, -1, y)) == 1.0 > model.score(X, y)
    weight = wrong.astype(float)
    assert model.score(X, y, weight) == 0.0
    # Where -1 was a class it is one, whatever else the rows to be scored hold.
    signed = np.where(y == 0, -1, 1)
    of_signs = ct.HeadClassifier().fit(X, signed)
    assert of_signs.score(X[:60], -signed[:60]) < 0.05
    with pytest.raises(DataError, match=r"give \(150,\)"):
        model.score(X, np.eye(3)[y])


@pytest.mark.parametrize("kind", ["sparse", "table", "bool"])
def test_several_labels_come_in_several_forms(kind):
    X, y = several(100)
    forms = {"sparse": csr_matrix(y), "table": pd.DataFrame(y, columns=list("abc")), "bool": y.astype(bool)}
    model, same = (ct.HeadClassifier(random_state=0).fit(X, each) for each in (forms[kind], y))
    np.testing.assert_array_equal(model.predict_proba(X), same.predict_proba(X))
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict(X), same.predict(X))


def test_several_labels_are_no_numbers_and_not_summed_out():
    X, y = several(40)
    with pytest.raises(PlanError, match="use 'joint'"):
        ct.HeadClassifier(ct.CVAE(), training="generative").fit(X, y)
    with pytest.raises(ValueError, match="1d array"):
        ct.HeadRegressor().fit(X, y)


# ------------------------------------------------------------- what is the user's own


def test_a_grid_over_an_encoder_leaves_the_users_alone():
    X, y = blobs(120)
    encoder = PCA(2)
    h = ct.HeadClassifier(encoder, random_state=0)
    grids = [{"encoder__n_components": [1]}, {"head": ["linear", "knn"]}]
    both = GridSearchCV(h, grids, cv=2, refit=False).fit(X, y).cv_results_["mean_test_score"]
    alone = GridSearchCV(h, grids[1], cv=2, refit=False).fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(both[1:], alone)
    assert encoder.n_components == 2
    own = LogisticRegression()
    assert clone(ct.HeadClassifier(head=own)).head is not own
    module = nn.Linear(6, 2)
    assert clone(ct.HeadClassifier(module)).encoder is module
    ready = ct.HeadClassifier(PCA(2).fit(X))
    assert clone(ready).encoder is ready.encoder
    with pytest.raises(PlanError, match="of an encoder that is fitted and stays so"):
        ready.set_params(encoder__n_components=1)


def test_weights_go_to_the_classes_they_name():
    Z, y = np.random.default_rng(0).normal(size=(300, 2)), np.repeat([3, 1, 2], 100)
    wanted = LogisticRegression(class_weight={1: 50.0}).fit(Z, y).predict(Z)
    assert (wanted == 1).mean() > 0.9
    for labels, weights in ((y, {1: 50.0}), (y.astype(str), {"1": 50.0})):
        own = LogisticRegression(class_weight=weights)
        for made in (
            own,
            make_pipeline(FunctionTransformer(), own),
            VotingClassifier([("a", own)], voting="soft"),
        ):
            told = ct.HeadClassifier(head=made, calibrate=False).fit(Z, labels).predict(Z)
            np.testing.assert_array_equal(told.astype(int), wanted)
        assert own.class_weight == weights
    with pytest.raises(DataError, match="class_weight names 9"):
        ct.HeadClassifier(head=make_pipeline(LogisticRegression(class_weight={9: 1.0}))).fit(Z, y)
    with pytest.raises(PlanError, match="LinearSVC gives no probabilities"):
        ct.HeadClassifier(head=LinearSVC()).fit(Z, y)


def test_few_rows_that_are_all_right_make_a_head_hardly_surer():
    sure = np.tile([[0.98, 0.02]], (20, 1))
    assert 0.5 < fit_temperature(sure, np.zeros(20, int)) < 1
    assert fit_temperature(np.repeat(sure, 1000, 0), np.zeros(20_000, int)) < 0.4  # many say so


def test_rows_without_a_label_count_for_nothing_in_a_curve(vae):
    X, y = blobs()
    whole = ct.label_efficiency_curve(vae, X[:200], y[:200], counts=(30,), random_state=0).scores["codes"]
    for none in (None, "-1"):
        some = np.append(y[:200], [none] * 100)
        part = ct.label_efficiency_curve(vae, X, some, counts=(30,), random_state=0).scores["codes"]
        np.testing.assert_array_equal(part, whole)

    def told(right):
        test = X[200:], right
        return ct.label_efficiency_curve(vae, X[:200], y[:200], counts=(30,), test=test, random_state=0)

    column = told(y[200:, None]).scores["codes"]
    np.testing.assert_array_equal(column, told(y[200:]).scores["codes"])
    with pytest.raises(DataError, match="X has 100 rows and y has 1"):
        told(y[200:201])
    with pytest.raises(DataError, match="no label of test, of type int64, is one of y"):
        told(np.arange(100) % 3)
    one = ct.label_efficiency_curve(vae, X[:200], y[:200], counts=30, random_state=0).scores["codes"]
    np.testing.assert_array_equal(one, whole)
    with pytest.raises(DataError, match="all labels are of one class"):
        ct.label_efficiency_curve(vae, X, np.zeros(300))
    with pytest.raises(DataError, match="a fifth of the rows does not hold each label: give test"):
        ct.label_efficiency_curve(vae, X, np.arange(300) == 7)
    with pytest.raises(PlanError, match="there is no encoder"):
        ct.label_efficiency_curve({}, X, y)


@pytest.mark.parametrize("kind", ["Int64", "category", "masked", "integers", "truth values"])
def test_labels_of_any_type_may_be_missing(kind):
    X, words = blobs()
    known = np.arange(300) % 4 > 0
    whole = words == "a" if kind == "truth values" else np.searchsorted(["a", "b", "c"], words)
    some = np.where(known, whole.astype(object), None)
    some = pd.Series(whole).astype(kind).where(known) if kind in ("Int64", "category") else some
    some = np.ma.array(np.where(known, whole, 999), mask=~known) if kind == "masked" else some
    for given in (some,) if kind == "category" else (some, some.tolist()):
        head = ct.HeadClassifier(random_state=0).fit(X, given)
        np.testing.assert_array_equal(head.classes_, np.unique(whole))
        assert head.classes_.dtype == whole.dtype
        assert head.score(X, given) == head.score(X[known], whole[known])
    embedding = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **TRAINING | {"max_epochs": 1})).fit(X, some)
    np.testing.assert_array_equal(embedding.classes_, np.unique(whole))
    with pytest.raises(DataError, match="NaN in row 0"):
        ct.HeadRegressor().fit(X, some)


def test_there_is_a_weight_for_each_row():
    X, y = blobs()
    head = ct.HeadClassifier().fit(X, y)
    right = head.predict(X) == y
    assert head.score(X, y, sample_weight=np.where(right, 1.0, 0.0)) == 1
    with pytest.raises(DataError, match="3 weights and 300 rows"):
        head.score(X, y, sample_weight=np.ones(3))


def test_counts_that_are_all_zero_tell_no_rate():
    with pytest.raises(DataError, match="all counts are 0"):
        ct.HeadRegressor(distribution="counts").fit(blobs()[0], np.zeros(300))


def test_what_was_read_is_taken_as_it_is(tmp_path):
    X, y = blobs()
    frame = pd.DataFrame(X, columns=[f"of {i}" for i in range(X.shape[1])])
    frame.assign(y=y).to_csv(tmp_path / "rows.csv", index=False)
    data = ct.read(tmp_path / "rows.csv", labels="y")
    vae = ct.VAE(latent_dim=2, **TRAINING).fit(data)
    np.testing.assert_allclose(vae.transform(data), vae.transform(frame), rtol=1e-4, atol=1e-6)
    head = ct.HeadClassifier(vae, random_state=0).fit(data, data.y)
    np.testing.assert_array_equal(head.predict(data), head.predict(frame))


def test_targets_that_are_no_numbers_are_refused():
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60.0)
    lost = np.where(y == 7, None, y)
    with pytest.raises(DataError, match="NaN in row 7"):
        ct.HeadRegressor().fit(X, lost)
    with pytest.raises(DataError, match="are times"):
        ct.HeadRegressor().fit(X, pd.to_datetime("2020-01-01") + pd.to_timedelta(y, unit="D"))
    words = pd.Series(np.where(y < 30, "a", "b")).where(y > 5).astype("string")
    assert ct.HeadClassifier().fit(X, words).classes_.tolist() == ["a", "b"]
    with pytest.raises(PlanError, match="this encoder gives points"):
        ct.HeadClassifier(ct.AE(latent_dim=1, hidden=(4,), max_epochs=1), stochastic=True).fit(X, y < 30)


def test_minus_one_is_a_class_beside_one_other_whatever_holds_it():
    X = blobs()[0]
    y = np.where(X[:, 0] > X[:, 0].mean(), 1, -1)
    column = pd.Series(y, dtype="Int64")
    for given in (y.astype(object), column, column.where(np.arange(300) > 5), y.astype(object).tolist()):
        head = ct.HeadClassifier(random_state=0).fit(X, given)
        assert head.classes_.tolist() == [-1, 1]
        assert head.classes_.dtype == y.dtype
        assert head.score(X, given) > 0.95


def test_large_whole_numbers_stay_apart_as_labels():
    X = blobs()[0]
    y = 2**53 + (X[:, 0] > X[:, 0].mean())
    for given in (y, pd.Series(y, dtype="Int64"), np.array(y, np.uint64) + np.uint64(2**63)):
        found = ct.HeadClassifier(random_state=0).fit(X, given).classes_
        assert found.tolist() == sorted(set(given.tolist()))


def test_what_a_mask_hides_is_no_number():
    X = blobs()[0].astype(np.float64)
    hidden = np.ma.array(np.where(np.arange(300) < 5, 1e4, X[:, 0]), mask=np.arange(300) < 5)
    with pytest.raises(DataError, match="NaN in row 0"):
        ct.HeadRegressor().fit(X, hidden)
    with pytest.raises(ValueError, match="X contains NaN"):
        ct.HeadRegressor().fit(np.ma.masked_equal(X, X.max()), X[:, 0])
    several = np.ma.array(X[:, :2] > X[:, :2].mean(0), mask=False)
    several[:9, 0] = np.ma.masked
    marked = np.where(several.mask, -1, several.data)
    told = (ct.HeadClassifier(random_state=0).fit(X, y).predict_proba(X) for y in (several, marked))
    np.testing.assert_array_equal(*told)


def test_a_curve_gives_weights_to_the_classes_they_name():
    Z, y = np.random.default_rng(0).normal(size=(300, 2)), np.repeat([3, 1, 2], 100)
    own = LogisticRegression(class_weight={1: 50.0})
    shares = [
        ct.label_efficiency_curve(
            None, Z, y, test=(Z[y == c], y[y == c]), counts=300, repeats=1, head=own, random_state=0
        ).scores["codes"][0, 0]
        for c in (1, 2, 3)
    ]
    assert shares[0] > 0.9
    assert max(shares[1:]) < 0.1
    assert own.class_weight == {1: 50.0}


def test_one_rare_event_is_not_held_out():
    Z = np.random.default_rng(0).normal(size=(300, 2))
    for event in range(0, 300, 20):
        y = np.zeros(300, int)
        y[event] = 300
        m = ct.HeadRegressor(distribution="counts", random_state=0).fit(Z, y)
        assert 0.5 < m.predict(Z).mean() < 2
    made = ct.HeadRegressor(head=Ridge(), distribution="counts", random_state=0).fit(Z, y)
    mean, std = made.predict(Z, return_std=True)
    assert mean.min() < 0  # of a line, which knows no counts
    assert np.isfinite(std).all()


def test_labels_of_another_kind_score_nothing():
    X, y = blobs()
    numbers = np.searchsorted(np.unique(y), y)
    for mine, other in ((y, numbers), (numbers, y)):
        m = ct.HeadClassifier(random_state=0).fit(X, mine)
        with pytest.raises(DataError, match=r"labels such as .* are none of those fitted, such as"):
            m.score(X, other)


def test_tables_as_output_change_nothing(vae):
    X, y = blobs()
    few = {"counts": (10,), "repeats": 1, "random_state": 0}
    plain = ct.label_efficiency_curve(vae, X, y, **few)
    with config_context(transform_output="pandas"):
        np.testing.assert_array_equal(
            ct.label_efficiency_curve(vae, X, y, **few).scores["PCA, 2"], plain.scores["PCA, 2"]
        )
        gaps = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
        ct.VAE(max_epochs=1, random_state=0).fit(pd.DataFrame(gaps))


def test_heads_on_a_fitted_encoder_are_put_into_others(vae):
    X, y = blobs()
    m = ct.HeadClassifier(vae)
    assert m.set_params(**m.get_params()) is m
    assert "encoder__latent_dim" in ct.HeadClassifier(ct.VAE()).get_params()
    bag = BaggingClassifier(ct.HeadClassifier(vae), n_estimators=2, random_state=0).fit(X, y)
    assert bag.score(X, y) > 0.9
    scaled = make_pipeline(MinMaxScaler(), LogisticRegression())
    with config_context(enable_metadata_routing=True):
        told = ct.HeadClassifier(vae, head=scaled, stochastic=True, random_state=0).fit(X, y)
    assert told.score(X, y) > 0.8


def test_numbers_as_labels_may_be_missing(vae):
    """As pandas reads a column of whole numbers in which cells are empty: as floats, NaN among them."""
    X, y = blobs()
    some = np.where(np.arange(300) % 5, np.nan, np.searchsorted(np.unique(y), y))
    m = ct.HeadClassifier(vae, head="spreading", random_state=0).fit(X, some)
    assert m.classes_.tolist() == [0, 1, 2]
    assert m.score(X, np.searchsorted(np.unique(y), y)) > 0.9
    assert m.score(X, some) > 0.9
    assert ct.label_efficiency_curve(vae, X, some, counts=30, repeats=1, random_state=0).counts == (30,)
    with pytest.raises(DataError, match="infinity in row 1"):
        m.fit(X, np.where(np.isnan(some), np.inf, some))


def test_what_was_read_is_scored_as_it_is():
    d = ct.read("digits")
    m = ct.HeadClassifier(nn.Flatten(), random_state=0).fit(d, d.y)
    assert m.score(d, d.y) == m.score(d.X, d.y) > 0.8
    assert m.calibration_error(d, d.y) < 0.1
    found = ct.label_efficiency_curve(nn.Flatten(), d, d.y, counts=100, repeats=1, random_state=0)
    assert found.scores["codes"][0, 0] > 0.6


def test_tensors_and_modules_of_several_kinds():
    X, y = blobs()
    x = torch.tensor(X)
    for given in (x.bfloat16(), x.clone().requires_grad_() * 1):
        assert ct.HeadClassifier(random_state=0).fit(given, y).score(given, y) > 0.9
    numbers = np.searchsorted(np.unique(y), y)[:, None]
    assert ct.HeadClassifier(nn.Embedding(3, 8), random_state=0).fit(numbers, y).score(numbers, y) == 1
    tuned = ct.HeadClassifier(nn.Linear(6, 2), training="fine-tuned", max_epochs=1, random_state=0)
    assert tuned.fit(csr_matrix(X), y).predict(csr_matrix(X)).shape == (300,)
    with pytest.raises(PlanError, match="GRU gives a tuple, and codes are a tensor"):
        ct.HeadClassifier(nn.GRU(6, 2)).fit(X, y)
    with pytest.raises(PlanError, match="LinearDiscriminantAnalysis learns from labels: fit it first"):
        ct.HeadClassifier(LinearDiscriminantAnalysis()).fit(X, y)


def test_scorers_rank_by_each_of_two_labels():
    X, y = blobs()
    M = np.column_stack([y == "a", y == "b"]).astype(int)
    cv = KFold(3, shuffle=True, random_state=0)
    found = cross_val_score(ct.HeadClassifier(random_state=0), X, M, cv=cv, scoring="roc_auc")
    assert (found > 0.9).all()
    m = ct.HeadClassifier(random_state=0).fit(X, M)
    np.testing.assert_allclose(expit(m.decision_function(X)), m.predict_proba(X))
    assert not hasattr(ct.HeadClassifier(random_state=0).fit(X, y), "decision_function")
