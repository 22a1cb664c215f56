"""Estimators: scikit-learn's contract, and the face that is chartae's own."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import chartae as ct
from chartae.core.contracts import Prior
from chartae.core.errors import DataError, PlanError
from chartae.models.assembly import assemble
from chartae.models.registry import _RECIPES, recipe
from chartae.parts.distributions import DiagonalNormal
from chartae.parts.objectives import KL, NegLogLik
from chartae.parts.priors import priors

QUICK = {"hidden": (16,), "max_epochs": 3}
SMALL = {"latent_dim": 2, "hidden": (16,), "max_epochs": 3, "random_state": 0}
KINDS = {
    "AE": lambda **p: ct.AE(**p),
    "VAE": lambda **p: ct.VAE(**p),
    "CVAE": lambda **p: ct.CVAE(**p),
    "IWAE": lambda **p: ct.Autoencoder(recipe="iwae", **p),
}

each_kind = pytest.mark.parametrize("kind", KINDS)


def plane(n: int = 200, features: int = 5, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Rows near a two-dimensional plane."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(2, features))
    return rng.normal(size=(n, 2)) @ basis + noise * rng.normal(size=(n, features))


@pytest.fixture(scope="module")
def vae() -> ct.VAE:
    return ct.VAE(**SMALL).fit(plane())


# ------------------------------------------------------------------- scikit-learn


@parametrize_with_checks([make(**QUICK) for make in KINDS.values()])
def test_scikit_learn_battery(estimator, check):
    check(estimator)


@each_kind
def test_clone_and_pickle(kind, tmp_path):
    X = plane()
    m = KINDS[kind](**SMALL).fit(X)
    fresh = clone(m)
    assert fresh.get_params() == m.get_params()
    assert not hasattr(fresh, "model_")
    joblib.dump(m, tmp_path / "m.joblib")
    for copy in (pickle.loads(pickle.dumps(m)), joblib.load(tmp_path / "m.joblib")):
        assert np.array_equal(copy.transform(X), m.transform(X))
        assert np.array_equal(copy.sample(3, random_state=0), m.sample(3, random_state=0))
        assert np.array_equal(copy.fit(X).transform(X), m.transform(X))


@each_kind
def test_pipeline(kind):
    X = plane() * [1, 10, 100, 1000, 1]
    pipe = make_pipeline(StandardScaler(), KINDS[kind](**SMALL)).fit(X)
    assert pipe.transform(X).shape == (200, 2)
    assert set(pipe.predict(X)) <= {-1, 1}
    assert np.isfinite(pipe.score(X))
    assert pipe.inverse_transform(pipe.transform(X)).shape == X.shape
    assert list(pipe.get_feature_names_out()) == [type(pipe[-1]).__name__.lower() + str(i) for i in range(2)]


def test_grid_search_prefers_the_true_dimension():
    X = plane(400, noise=0.05)
    search = GridSearchCV(
        Pipeline(
            [
                ("scale", StandardScaler()),
                ("vae", ct.VAE(**SMALL | {"max_epochs": 40, "learning_rate": 5e-3})),
            ]
        ),
        {"vae__latent_dim": [1, 2]},
        cv=2,
    ).fit(X)
    assert search.best_params_ == {"vae__latent_dim": 2}
    assert len(search.best_estimator_.transform(X)) == 400


def test_set_output(vae):
    frame = pd.DataFrame(plane(), columns=list("abcde"))
    m = ct.VAE(**SMALL).set_output(transform="pandas")
    codes = m.fit_transform(frame)
    assert list(codes.columns) == ["vae0", "vae1"] == list(m.get_feature_names_out())
    assert codes.index.equals(frame.index)
    assert list(m.feature_names_in_) == list("abcde")
    # Items are tables again, whatever set_output says.
    assert list(m.project(frame).columns) == list("abcde")
    assert len(m.interpolate(frame.iloc[0], frame.iloc[1])) == 9
    assert len(m.interpolate(frame[:1], frame[1:2])) == 9
    codes, std = m.transform(frame, return_std=True)
    assert codes.shape == std.shape
    with pytest.raises(ValueError, match="feature names should match"):
        m.transform(frame.rename(columns={"a": "z"}))


@each_kind
def test_html(kind):
    html = KINDS[kind](**SMALL)._repr_html_()
    assert "latent_dim" in html


@each_kind
@pytest.mark.parametrize(
    "method",
    ["transform", "project", "score_samples", "score", "predict", "decision_function", "sample_posterior"],
)
def test_not_fitted(kind, method):
    with pytest.raises(NotFittedError):
        getattr(KINDS[kind](), method)(plane())


@each_kind
def test_not_fitted_without_data(kind, tmp_path):
    m = KINDS[kind]()
    for call in (
        lambda: m.sample(3),
        lambda: m.inverse_transform(np.zeros((1, 2))),
        lambda: m.interpolate(np.zeros(5), np.ones(5)),
        lambda: m.save(tmp_path / "run"),
        lambda: m.export_decoder(tmp_path / "decoder"),
    ):
        with pytest.raises(NotFittedError):
            call()
    assert not list(tmp_path.iterdir())


@each_kind
def test_the_constructor_only_stores(kind):
    odd = {"latent_dim": "no", "max_epochs": -3, "hidden": "no"}
    m = KINDS[kind](**odd)
    assert {k: m.get_params()[k] for k in odd} == odd
    with pytest.raises(ValueError, match="hidden"):
        m.fit(plane())
    with pytest.raises(TypeError, match="has no parameter 'latentdim': did you mean 'latent_dim'"):
        KINDS[kind](latentdim=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"patience": 0}, "patience"),
        ({"contamination": 0.0}, "contamination"),
        ({"precision": "fp8"}, "precision"),
        ({"schedule": "stairs"}, "use one of constant, cosine, linear"),
        ({"likelihood": "norml"}, "did you mean 'normal'"),
        ({"network": "mpl"}, "did you mean 'mlp'"),
        ({"network": "conv2d"}, "conv2d needs images"),
        ({"network": "linear", "hidden": (8,)}, "has no hidden layers"),
        ({"network": (torch.nn.Linear(5, 4),)}, "a pair of torch modules"),
        (
            {"network": (torch.nn.Linear(5, 4), torch.nn.Linear(2, 6))},
            "gives 6 numbers an item and 5 are needed",
        ),
        ({"hidden": (8, 0)}, "a whole number of units, one or more"),
        ({"hidden": (8.5,)}, "a whole number of units, one or more"),
        ({"hidden": ("wide",)}, "a whole number of units, one or more"),
        ({"noise": "globl"}, "'noise' parameter of VAE must be a str among .*'global'"),
        ({"noise": -1.0}, "noise"),
        ({"compile": "yes"}, "compile"),
        ({"noise": 0.1, "scale": "feature"}, "different scales"),
        ({"device": "cuda:99"}, "use 'auto' or 'cpu'"),
        ({"free_bits": -1.0}, "free_bits"),
        ({"warmup": -1.0}, "warmup"),
        ({"warmup": np.nan}, "warmup=nan: give a number"),
        ({"warmup": "3"}, "warmup='3': give a number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_parameters_are_refused_in_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        ct.VAE(**SMALL | given).fit(plane() * [1, 2, 3, 4, 5])
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------- inputs


def test_kinds_of_input_that_mean_the_same():
    X = np.round(plane() * 20).clip(-100, 100)
    reference = ct.VAE(**SMALL).fit(X).transform(X)
    for given in (
        X.astype(np.float32),
        X.astype(np.int8),
        X.astype(np.int64),
        X.astype(">f8"),
        np.asfortranarray(X),
        X[::-1][::-1],
        torch.from_numpy(X),
        torch.from_numpy(X).float().requires_grad_(),
        torch.from_numpy(X).bfloat16(),  # whole numbers up to 100 are exact in it
        X.tolist(),
        pd.DataFrame(X).set_axis(range(5), axis=1),
    ):
        m = ct.VAE(**SMALL | {"scale": "global"}).fit(given)
        np.testing.assert_allclose(m.transform(given), reference, atol=2e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_precision_of_the_input_is_kept(dtype):
    X = plane().astype(dtype)
    m = ct.VAE(**SMALL).fit(X)
    assert m.transform(X).dtype == m.project(X).dtype == m.sample(2).dtype == dtype
    assert m.score_samples(X).dtype == np.float64


def test_a_memory_map_stays_one(tmp_path):
    X = plane().astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    m = ct.VAE(**SMALL).fit(mapped)
    assert np.array_equal(m.transform(mapped), ct.VAE(**SMALL).fit(X).transform(X))
    assert np.array_equal(X, plane().astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (3, 7, 5), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_items_keep_their_shape(shape, dtype):
    drawn = np.random.default_rng(0).uniform(size=(40, *shape))
    X = drawn > 0.5 if dtype is bool else (200 * drawn).astype(dtype)
    m = ct.VAE(**SMALL).fit(X)
    assert m.transform(X).shape == (40, 2)
    assert m.project(X).shape == X.shape
    assert m.sample(2).shape == (2, *shape)
    with pytest.raises(ValueError, match=r"shape|features"):
        m.transform(X[:, :-1])


def test_images_are_not_permuted():
    """Each pixel of each channel comes back at its place: a linear model of one-hot images."""
    for shape in ((2, 3), (2, 3, 3), (3, 4, 5)):
        X = 100 * np.eye(int(np.prod(shape))).reshape(-1, *shape).repeat(4, 0)
        m = ct.AE(
            latent_dim=len(X) // 4, network="linear", max_epochs=200, learning_rate=0.02, random_state=0
        )
        P = m.set_params(validation_fraction=0.0, batch_size=1000).fit(X).project(X)
        assert (P.reshape(len(X), -1).argmax(1) == X.reshape(len(X), -1).argmax(1)).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((20, 3), np.nan), "NaN"),
        (np.full((20, 3), np.inf), "infinity"),
        (np.array([["a", "b"]] * 20), "text, not real numbers"),
        (np.zeros((0, 3)), "0 sample"),
        (np.zeros(20), "items need"),
        (np.zeros((20, 0)), "0 feature"),
        (np.zeros((1, 3)), "1 sample"),
        (np.zeros((20, 3), dtype=complex), "[Cc]omplex"),
        (np.zeros((20, 2, 0)), "no values|0 feature|empty"),
    ],
    ids=["nan", "inf", "text", "no rows", "1-D", "no columns", "one row", "complex", "empty items"],
)
def test_bad_data(bad, message):
    with pytest.raises(ValueError, match=message):
        ct.VAE(**SMALL).fit(bad)


@pytest.mark.filterwarnings("ignore:column.* constant and tell")
@pytest.mark.parametrize("constant", [0.0, 1.0, -3.5, 1e-30, 1e30])
def test_constant_data(constant):
    X = np.full((40, 3), constant)
    m = ct.VAE(**SMALL).fit(X)
    assert np.isfinite(m.score_samples(X)).all()
    np.testing.assert_allclose(m.project(X), X, rtol=1.0, atol=1.0)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-4, 1e4, 1e30, 1e300])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_units_change_nothing_but_the_density(vae, scale, offset):
    X = plane()
    m = ct.VAE(**SMALL).fit(scale * (X + offset))
    np.testing.assert_allclose(m.transform(scale * (X + offset)), vae.transform(X), atol=1e-5)
    np.testing.assert_allclose(m.project(scale * (X + offset)) / scale - offset, vae.project(X), atol=1e-5)
    shift = 5 * np.log(scale)
    np.testing.assert_allclose(m.score_samples(scale * (X + offset)) + shift, vae.score_samples(X), atol=1e-4)


def test_a_small_change_of_a_large_value_survives(vae):
    X = plane()
    m = ct.VAE(**SMALL).fit(X + 1e9)
    np.testing.assert_allclose(m.project(X + 1e9) - 1e9, vae.project(X), atol=1e-4)


# ------------------------------------------------------------------- what is inferred


@pytest.mark.filterwarnings("ignore:column.* constant and tell")
def test_latent_dim_auto_says_what_it_chose():
    X, _ = make_swiss_roll(1000, random_state=0)
    X = X @ np.random.default_rng(0).normal(size=(3, 8))
    m = ct.VAE(**SMALL | {"latent_dim": "auto", "max_epochs": 1}).fit(X)
    assert m.latent_dim_ == m.transform(X).shape[1] == 2
    assert "latent_dim 2 (the data's dimension reads 2.0, 95 % " in m.summary_
    constant = ct.VAE(**SMALL | {"latent_dim": "auto"}).fit(np.ones((30, 4)))
    assert "too few different rows" in constant.summary_


@pytest.mark.parametrize(
    ("X", "likelihood", "top"),
    [
        (np.random.default_rng(0).integers(0, 2, (50, 4)), "bernoulli", 1),
        (np.random.default_rng(0).integers(0, 2, (50, 4)).astype(bool), "bernoulli", 1),
        (255 * np.random.default_rng(0).integers(0, 2, (50, 4)).astype(np.uint8), "bernoulli", 255),
        (np.random.default_rng(0).integers(0, 256, (50, 4)).astype(np.uint8), "normal", 255),
        (np.random.default_rng(0).uniform(size=(50, 4)), "normal", 1),
        pytest.param(
            np.zeros((50, 4)), "normal", 0, marks=pytest.mark.filterwarnings("ignore:.* constant and tell")
        ),
    ],
    ids=["0 and 1", "booleans", "0 and 255", "bytes", "unit interval", "zeros"],
)
def test_the_likelihood_is_inferred(X, likelihood, top):
    m = ct.VAE(**SMALL).fit(X)
    assert m.space_.likelihood == likelihood
    assert f"{likelihood} likelihood" in m.summary_
    if likelihood == "bernoulli":
        made = m.sample(200, random_state=0)
        assert made.min() >= 0
        assert 0.1 * top < made.max() <= top
        assert set(np.unique(m.sample(50, random_state=0, observation_noise=True))) == {0, top}
        # Half right by chance is log 2 a value; a mass has no units.
        assert -4 * 1.5 < m.score(X) < 0


def test_bytes_and_their_fraction_are_the_same_gray():
    X = load_digits().images[:200]
    gray = np.round(X / 16 * 255).astype(np.uint8)
    a, b = (ct.VAE(**SMALL, likelihood="bernoulli").fit(x) for x in (gray, gray / 255.0))
    np.testing.assert_allclose(a.score_samples(gray), b.score_samples(gray / 255.0), rtol=1e-4)
    np.testing.assert_allclose(a.project(gray), 255 * b.project(gray / 255.0), rtol=1e-3)


def test_categories_round_trip():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 600)
    X = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [4, 4, 0, 0]])[kind].astype(np.uint8)
    m = ct.VAE(
        likelihood="categorical",
        latent_dim=2,
        hidden=(32,),
        max_epochs=40,
        learning_rate=1e-2,
        random_state=0,
    )
    m.fit(X)
    assert (m.project(X) == X).mean() > 0.99
    # Three equally likely items: the best that log p(x) can be is -log 3.
    assert -np.log(3) - 0.4 < m.score(X, n_importance=256) < -np.log(3) + 0.02
    for other in (X + 1, X - 1.0, X + 0.5):
        with pytest.raises(DataError, match="knows the categories 0 to 4"):
            m.score_samples(other)


@pytest.mark.parametrize("noise", ["global", "feature", "item"])
def test_the_noise_estimate_is_the_residual_s(noise):
    """y = f(z) + ε with a known ε: drawn noise within 10 % of it (of which sampling is 1.1 %)."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, size=(4000, 1))
    sigma = np.tile([1.0, 2.0], 4) if noise == "feature" else np.full(8, 2.0)
    X = 4 * t @ rng.normal(size=(1, 8)) + sigma * rng.normal(size=(4000, 8))
    slow = {"max_epochs": 80, "learning_rate": 2e-2, "schedule": "cosine", "batch_size": 256}
    m = ct.VAE(latent_dim=1, network="linear", noise=noise, random_state=0, **slow).fit(X)
    drawn, mean = (m.sample(4000, random_state=1, observation_noise=on) for on in (True, False))
    np.testing.assert_allclose((drawn - mean).std(0), sigma, rtol=0.1)


# ------------------------------------------------------------------- methods


@each_kind
def test_a_row_s_score_is_its_own(kind):
    X = plane()
    m = KINDS[kind](**SMALL).fit(X)
    whole = m.score_samples(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(m.score_samples(X[order]), whole[order], rtol=1e-9)
    np.testing.assert_allclose(m.score_samples(X[:7]), whole[:7], rtol=1e-9)
    assert m.score(X) == pytest.approx(whole.mean())


def test_scores_do_not_depend_on_blocks(vae, monkeypatch):
    X = plane()
    whole = vae.score_samples(X)
    monkeypatch.setattr("chartae.estimators.decoding.CHUNK", 16 * vae.model_.width * 7)  # seven rows
    np.testing.assert_allclose(vae.score_samples(X), whole, rtol=1e-9)


def test_many_importance_samples_converge(vae):
    X = plane()
    assert vae.score(X, n_importance=1024) == pytest.approx(vae.score(X, n_importance=4096), abs=0.01)
    assert vae.score(X, n_importance=4096) > vae.score(X, n_importance=1)


@each_kind
def test_predict_calls_the_share_it_was_told(kind):
    X = plane(1000)
    for share in (0.02, 0.2):
        m = KINDS[kind](**SMALL | {"contamination": share}).fit(X)
        assert (m.predict(X) == -1).mean() == pytest.approx(share, abs=0.01)
        assert np.array_equal(m.predict(X), np.where(m.decision_function(X) < 0, -1, 1))
    assert (m.predict(X + 50) == -1).all()
    assert np.array_equal(m.fit_predict(X), m.predict(X))


def test_sample_is_deterministic_with_a_seed(vae):
    a, b, c = (vae.sample(5, random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    np.random.seed(3)  # noqa: NPY002 - scikit-learn's None means NumPy's global generator
    a = vae.sample(5)
    np.random.seed(3)  # noqa: NPY002
    assert np.array_equal(a, vae.sample(5))
    assert np.array_equal(vae.sample(5, random_state=0), vae.sample(5, random_state=np.random.RandomState(0)))


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_sample_counts(vae, n):
    with pytest.raises(PlanError, match="positive whole number"):
        vae.sample(n)


def test_sample_does_not_depend_on_blocks(vae, monkeypatch):
    whole = vae.sample(50, random_state=0)
    monkeypatch.setattr("chartae.estimators.decoding.CHUNK", 7 * vae.model_.width)
    np.testing.assert_allclose(vae.sample(50, random_state=0), whole, rtol=1e-6)


def test_sample_posterior_has_the_posterior_s_moments(vae):
    X = plane(20)
    mean, std = vae.transform(X, return_std=True)
    draws = vae.sample_posterior(X, 20_000, random_state=0)
    assert draws.shape == (20_000, 20, 2)
    # 40 means and 40 spreads at five standard errors: a false alarm in 20,000 runs.
    assert (np.abs(draws.mean(0) - mean) < 5 * std / np.sqrt(20_000)).all()
    assert (np.abs(draws.std(0) / std - 1) < 5 / np.sqrt(40_000)).all()


@pytest.mark.parametrize("path", ["straight", "spherical"])
def test_a_path_ends_where_it_should(vae, path):
    X = plane(2, seed=5)
    line = vae.interpolate(X[0], X[1], steps=7, path=path)
    assert line.shape == (7, 5)
    np.testing.assert_allclose(line[[0, -1]], vae.project(X), atol=1e-5)
    # The way back is the same way.
    np.testing.assert_allclose(vae.interpolate(X[1], X[0], steps=7, path=path)[::-1], line, atol=1e-5)
    same = vae.interpolate(X[0], X[0], steps=3, path=path)
    np.testing.assert_allclose(same, np.tile(vae.project(X[:1]), (3, 1)), atol=1e-5)


def test_a_path_s_refusals(vae):
    X = plane(2)
    with pytest.raises(PlanError, match="'straight' or 'spherical'"):
        vae.interpolate(X[0], X[1], path="geodesc")
    with pytest.raises(PlanError, match="number of points, two or more"):
        vae.interpolate(X[0], X[1], steps=1)
    with pytest.raises(DataError, match="two items of one shape"):
        vae.interpolate(X[0], X)


@pytest.mark.parametrize("codes", [np.zeros((3, 4)), np.zeros(2), np.zeros((1, 3, 2))])
def test_codes_of_another_shape(vae, codes):
    with pytest.raises(DataError, match=r"\(n, 2\) is needed"):
        vae.inverse_transform(codes)


@pytest.mark.parametrize("n", [0, -1, 2.5, "3", None])
def test_other_counts(vae, n):
    X = plane(5)
    for call in (
        lambda: vae.sample_posterior(X, n),
        lambda: vae.score_samples(X, n_importance=n),
        lambda: vae.score(X, n_importance=n),
        lambda: vae.interpolate(X[0], X[1], steps=n),
    ):
        with pytest.raises(PlanError, match="give a positive whole number"):
            call()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("shape", [(5,), (16, 16)], ids=str)
def test_compiling_changes_rounding_at_most(shape, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    plain, compiled = (ct.VAE(**SMALL, compile=on).fit(X) for on in (False, True))
    np.testing.assert_allclose(compiled.transform(X), plain.transform(X), atol=1e-4)
    for copy in (ct.load(compiled.save(tmp_path / "run")), pickle.loads(pickle.dumps(compiled))):
        np.testing.assert_allclose(copy.transform(X), plain.transform(X), atol=1e-4)


def test_no_codes(vae):
    assert vae.inverse_transform(np.zeros((0, 2))).shape == (0, 5)


@each_kind
def test_std_is_zero_for_a_point_posterior_alone(kind):
    X = plane()
    _, std = KINDS[kind](**SMALL).fit(X).transform(X, return_std=True)
    assert (std == 0).all() if kind == "AE" else (std > 0).all()


def test_validation_rows_are_held_out():
    X = plane(200)
    m = ct.VAE(**SMALL, validation_fraction=0.2).fit(X)
    assert len(np.unique(m.validation_rows_)) == 40
    # Rows that are far away do not move the model if they are among those held out.
    moved = X.copy()
    moved[m.validation_rows_] = moved[m.validation_rows_[::-1]]
    again = ct.VAE(**SMALL, validation_fraction=0.2).fit(moved)
    train = [[e["nll"] for e in model.history_] for model in (m, again)]
    np.testing.assert_allclose(*train, rtol=1e-6)
    for none in (ct.VAE(**SMALL, validation_fraction=0.0), ct.VAE(**SMALL, validation_fraction=0.02)):
        none.fit(X)
        assert len(none.validation_rows_) == 0
        assert "val_loss" not in none.history_[0]


def test_fitting_again_forgets():
    X = plane()
    m = ct.VAE(**SMALL).fit(100 * X[:, :3])
    m.fit(X)
    assert np.array_equal(m.transform(X), ct.VAE(**SMALL).fit(X).transform(X))
    assert len(m.history_) == m.n_iter_ == 3
    assert m.n_features_in_ == 5


def test_the_input_is_left_alone():
    X = plane()
    before = X.copy()
    m = ct.VAE(**SMALL).fit(X)
    m.transform(X), m.project(X), m.score_samples(X), m.predict(X)
    assert np.array_equal(X, before)


def test_verbose(capfd):
    ct.VAE(**SMALL, verbose=0).fit(plane())
    assert capfd.readouterr() == ("", "")
    ct.VAE(**SMALL, verbose=1).fit(plane())
    out, err = capfd.readouterr()
    assert out.startswith("200 × 5 features, float64 in [")
    assert len(out.splitlines()) == 1
    assert err.splitlines()[0].startswith("epoch 1/3  loss ")
    assert len(err.splitlines()) == 3


def test_global_state_is_the_caller_s():
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    m = ct.CVAE(**SMALL).fit(plane(), np.arange(200) % 3)
    m.transform(plane()), m.sample(3, random_state=0), m.score_samples(plane())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)
    assert torch.get_default_dtype() == torch.float32


def test_results_need_no_gradient(vae):
    assert all(p.requires_grad for p in vae.model_.parameters())
    assert not vae.model_.training
    assert all(p.grad is None for p in vae.model_.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_codes_do_not_depend_on_the_rows_beside_them(kind):
    X = plane(64).astype(np.float32)
    m = KINDS[kind](**SMALL).fit(X)
    np.testing.assert_allclose(m.transform(X[10:11]), m.transform(X)[10:11], atol=1e-6)


# ------------------------------------------------------------------- conditions


@pytest.fixture(scope="module")
def cvae() -> ct.CVAE:
    return ct.CVAE(**SMALL).fit(plane(), np.array(["cat", "dog"])[np.arange(200) % 2])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("cow", "unknown label 'cow': known labels are 'cat', 'dog'"),
        (3, "unknown label 3: known labels are 'cat', 'dog'"),
        (["cat", "dog"], "2 labels for 3 rows: give one for each row, or a single one"),
        ({"vector": [1.0]}, "conditioned on labels alone"),
        ({"lable": "cat"}, "'vector' and 'sequence' or 'set', and not 'lable'"),
        ({}, "empty"),
    ],
)
def test_a_condition_that_is_not_known(cvae, condition, message):
    with pytest.raises(DataError, match=message):
        cvae.sample(3, condition=condition)


def test_a_condition_where_there_is_none(vae):
    with pytest.raises(DataError, match="fitted without a condition: give fit labels"):
        vae.sample(3, condition="cat")
    # scikit-learn passes y to every fit and score; a recipe without a condition does not look at it.
    y = np.arange(200) % 2
    assert np.array_equal(ct.VAE(**SMALL).fit(plane(), y).transform(plane()), vae.transform(plane()))
    assert vae.score(plane(), y) == vae.score(plane())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([1, "a"] * 100, dtype=object), "mix types"),
        (np.array(["a"] * 100), "100 labels for 200 rows"),
        ({"label": np.zeros((200, 2))}, "one for each row"),
        ({"labels": np.zeros(200)}, "a condition has 'label', 'vector'"),
        ({}, "is empty"),
        (np.zeros((100, 2, 2)), r"\(200, 2, 2\) is needed"),
        (np.zeros((200, 0)), r"give \(n, m\)"),
        (np.full((200, 2), np.inf), "infinite"),
        (np.array([["a", "b"]] * 200), "must be numbers"),
        (np.zeros((100, 2)), r"\(200, 2\) is needed"),
        (np.array(["2020-01-01"] * 200, dtype="datetime64[D]"), "cannot be a label"),
        ({"label": np.full(200, np.nan)}, "no row has a label"),
    ],
)
def test_conditions_that_cannot_be_learned(y, message):
    with pytest.raises(DataError, match=message):
        ct.CVAE(**SMALL).fit(plane(), y)


def test_a_null_condition_is_learned_from_missing_vectors():
    vectors = plane(200, 2)
    vectors[::2, 0] = np.nan
    m = ct.CVAE(**SMALL).fit(plane(), vectors)
    given = m.transform(plane(), vectors)
    assert np.isfinite(given).all()
    np.testing.assert_allclose(given[::2], m.transform(plane())[::2], atol=1e-6)


def test_score_passes_the_condition(cvae):
    y = np.array(["cat", "dog"])[np.arange(200) % 2]
    assert cvae.score(plane(), y) == pytest.approx(cvae.score_samples(plane(), y).mean())
    assert cvae.score(plane(), y) != cvae.score(plane())


# ------------------------------------------------------------------- fits that end early, and outliers


def test_an_interrupted_fit_leaves_the_last_one(monkeypatch):
    m = ct.VAE(**SMALL).fit(plane())
    before, codes = dict(vars(m)), m.transform(plane())

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chartae.estimators.fitting.show_progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        m.set_params(latent_dim=1).fit(plane(features=7))
    assert {**before, "latent_dim": 1} == vars(m)
    np.testing.assert_array_equal(m.transform(plane()), codes)
    fresh = ct.VAE(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(plane())
    with pytest.raises(NotFittedError):
        fresh.transform(plane())


def test_outliers_are_judged_like_the_rows_that_set_the_threshold():
    """With their labels or without: about the share that contamination names, either way."""
    y = np.repeat(np.arange(4), 100)
    X = 5 * np.eye(4)[y] + 0.1 * np.random.default_rng(0).normal(size=(400, 4))
    m = ct.CVAE(latent_dim=1, hidden=(16,), max_epochs=15, contamination=0.05, random_state=0)
    assert (m.fit_predict(X, y) == -1).mean() == pytest.approx(0.05, abs=0.01)
    assert (m.predict(X, y) == -1).mean() == pytest.approx(0.05, abs=0.01)
    assert np.array_equal(m.fit_predict(ct.read((X, y))), m.predict(X, y))  # which bring their labels
    assert (m.predict(X) == -1).mean() == pytest.approx(0.05, abs=0.01)
    assert m.condition_.classes.tolist() == [0, 1, 2, 3]


def test_the_epoch_that_was_kept_is_named():
    m = ct.VAE(latent_dim=2, hidden=(32,), max_epochs=40, patience=3, learning_rate=0.02, random_state=0)
    m.fit(plane())
    best = m.history_[m.best_epoch_ - 1]
    assert best["best"]
    assert best["val_loss"] == min(h["val_loss"] for h in m.history_)
    none = ct.VAE(**{**SMALL, "validation_fraction": 0.0}).fit(plane())
    assert none.best_epoch_ == none.n_iter_


def test_parameters_are_given_by_name():
    with pytest.raises(TypeError, match=r"by name, as in VAE\(latent_dim=16\)"):
        ct.VAE(16)


@pytest.mark.parametrize("noise", ["bogus", 0.0, -1.0])
def test_noise_is_checked_whatever_the_likelihood(noise):
    with pytest.raises(ValueError, match="'noise' parameter"):
        ct.VAE(noise=noise, max_epochs=1).fit(np.eye(20))


def test_noise_may_be_a_number_of_numpy():
    m = ct.VAE(noise=np.float32(0.5), latent_dim=1, max_epochs=1).fit(plane())
    assert float(m.model_.likelihood.log_spread.exp().sqrt() * m.space_.scale) == pytest.approx(0.5, rel=1e-5)


def test_codes_have_the_digits_of_their_input():
    X = np.random.default_rng(0).normal(size=(60, 4))
    vae = ct.VAE(**SMALL).fit(X)
    fine, coarse = vae.transform(X), vae.transform(X.astype(np.float32))
    assert (fine.dtype, coarse.dtype) == (np.float64, np.float32)
    assert (fine != fine.astype(np.float32)).any()
    np.testing.assert_allclose(fine, coarse, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [20, 200])
def test_a_row_is_left_to_train_on(n):
    vae = ct.VAE(**SMALL, validation_fraction=0.999).fit(np.random.default_rng(0).normal(size=(n, 3)))
    assert len(vae.validation_rows_) == n - 1


class Float32Only(torch.nn.Module):
    """As many modules are written: it fixes its own precision."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 5)

    def forward(self, z):
        return self.layer(z.float())


def test_modules_that_know_one_precision():
    m = ct.VAE(**SMALL | {"hidden": None}, network=(torch.nn.Linear(5, 4), Float32Only()))
    m.fit(plane())
    assert m.transform(plane()).dtype == np.float64
    assert np.isfinite(m.score_samples(plane())).all()


def test_a_row_without_a_score_does_not_cost_the_fit(monkeypatch):
    scores = ct.VAE._scores

    def broken(self, X, raw, k):
        return np.where(np.arange(len(X)) == 7, np.nan, scores(self, X, raw, k))

    monkeypatch.setattr(ct.VAE, "_scores", broken)
    with pytest.warns(UserWarning, match="row 7 .from 0. has no finite score"):
        m = ct.VAE(**SMALL).fit(plane())
    assert np.isfinite(m.offset_)


def test_rows_at_once_are_bounded_by_the_widest_layer():
    wide = ct.VAE(latent_dim=1, hidden=(3000, 10), max_epochs=1, random_state=0).fit(plane())
    assert wide.model_.width == 3000
    assert wide._rows_at_once(16) == (1 << 22) // (16 * 3000)
    images = ct.VAE(latent_dim=1, max_epochs=1, random_state=0).fit(
        np.random.default_rng(0).random((20, 32, 32))
    )
    layers = [m for m in images.model_.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert images.model_.width >= max(m.out_channels for m in layers) * 32
    assert not any(m._forward_hooks for m in images.model_.modules())


def test_a_scalar_condition_keeps_its_digits():
    """Seconds since 1970 differ in digits that float32 does not have."""
    t = np.linspace(0, 1, 200)
    X = np.column_stack([np.cos(6 * t), np.sin(6 * t)])
    small, large = (
        ct.CVAE(latent_dim=1, hidden=(32,), max_epochs=5, random_state=0).fit(X, offset + 100 * t)
        for offset in (0.0, 1.7e9)
    )
    made = large.inverse_transform(np.zeros((200, 1)), condition=1.7e9 + 100 * t)
    np.testing.assert_allclose(
        made, small.inverse_transform(np.zeros((200, 1)), condition=100 * t), atol=1e-4
    )
    assert len(np.unique(made[:, 0].round(7))) > 150


def test_codes_that_are_no_numbers(vae):
    for code in (np.nan, np.inf, 1e39):
        with pytest.raises(DataError, match="code in row 1"):
            vae.inverse_transform(np.array([[0.0, 0.0], [code, 0.0]]))


def test_tensors_are_taken_everywhere(vae):
    X, Z = plane(), vae.transform(plane()[:3].astype(np.float32))
    tensor = torch.tensor(Z, requires_grad=True)
    np.testing.assert_array_equal(vae.inverse_transform(tensor), vae.inverse_transform(Z))
    assert vae.inverse_transform(torch.from_numpy(Z).bfloat16()).shape == (3, 5)
    path = vae.interpolate(torch.tensor(X[0], requires_grad=True), torch.tensor(X[1]))
    np.testing.assert_array_equal(path, vae.interpolate(X[0], X[1]))


def test_the_process_s_default_type_does_not_matter(tmp_path):
    X = plane()
    expected = ct.VAE(**SMALL).fit(X)
    torch.set_default_dtype(torch.float64)
    try:
        m = ct.VAE(**SMALL).fit(X)
        np.testing.assert_allclose(m.transform(X), expected.transform(X), atol=1e-5)
        np.testing.assert_allclose(m.sample(5, random_state=0), expected.sample(5, random_state=0), atol=1e-5)
        np.testing.assert_allclose(m.score_samples(X), expected.score_samples(X), atol=1e-5)
        again = ct.load(m.save(tmp_path / "run"))
        np.testing.assert_allclose(again.project(X), expected.project(X), atol=1e-5)
        plain = ct.AE(**SMALL).fit(X)
        assert plain.sample(5, random_state=0, observation_noise=True).shape == (5, 5)
        y = np.arange(len(X)) % 3
        assert ct.CVAE(**SMALL, conditional_prior=True).fit(X, y).sample(4, condition=1).shape == (4, 5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_large_whole_numbers_keep_their_sign():
    X = np.array([[2**63 + 5, 2**62], [2**62, 2**63]], dtype=np.uint64).repeat(20, 0)
    assert ct.VAE(**SMALL).fit(X).space_.value_range == (2.0**62, 2.0**63)


def test_a_conditional_recipe_without_a_condition_says_so():
    m = ct.CVAE(**SMALL).fit(plane())
    assert "without a condition (no y)" in m.summary_
    assert "without" not in ct.CVAE(**SMALL).fit(plane(), np.arange(len(plane())) % 2).summary_
    ct.CVAE(**SMALL, conditional_prior=np.bool_(False)).fit(plane())


def test_a_parameter_that_no_folder_can_keep_is_refused_at_once():
    @recipe("function-vae", paper="none", parts="as vae")
    def function_vae(shape, *, f=None, **common):
        """VAE with a function for a parameter."""
        return assemble(shape, objective=NegLogLik() + KL(), **common)

    m = ct.Autoencoder(recipe="function-vae", recipe_params={"f": abs}, **SMALL)
    try:
        with pytest.raises(PlanError, match="f=<built-in function abs> cannot be kept in a run folder"):
            m.fit(plane())
    finally:
        _RECIPES._items.pop("function-vae")


def test_a_nan_far_into_the_data_is_seen(vae):
    """Data are looked at in blocks, and the ends of the first one are not those of all."""
    X = np.tile(plane()[:100], (10_000, 1))
    X[-1, 3] = np.nan
    for call in (ct.VAE(**SMALL).fit, vae.transform, vae.score_samples):
        with pytest.raises(ValueError, match="NaN in row 999999, column 3"):
            call(X)


def test_a_row_without_a_score_is_an_outlier(vae):
    with np.errstate(all="ignore"):
        X = plane()[:3].astype(np.float32)
        X[1] = 3e38
        with pytest.warns(UserWarning, match="are these in the same units"):
            assert vae.predict(X)[1] == -1


def test_items_in_a_smaller_unit_than_those_of_the_fit_are_named(vae):
    X = plane()[:50]
    with pytest.warns(UserWarning, match="are these in the same units"):
        vae.transform(X / 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae.transform(X)
        vae.transform(X[:3] / 1000)  # a few may be alike


def test_categories_are_whole_numbers():
    X = np.random.default_rng(0).integers(0, 50, (200, 4))
    m = ct.VAE(**SMALL, likelihood="categorical").fit(X)
    for made in (m.sample(200, random_state=0, observation_noise=True), m.project(X)):
        np.testing.assert_array_equal(made, made.astype(int))
        assert np.isfinite(m.score_samples(made)).all()


class Volume(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.Flatten())

    def forward(self, x):
        return self.layers(x)


def test_modules_of_every_kind():
    volumes = np.random.default_rng(0).normal(size=(40, 1, 4, 4, 4))
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Unflatten(1, (1, 4, 4, 4)))
    assert ct.VAE(**SMALL | {"hidden": None}, network=(Volume(), decoder)).fit(volumes).n_iter_ == 3
    frozen = torch.nn.Linear(5, 2).requires_grad_(False), torch.nn.Linear(2, 5).requires_grad_(False)
    with pytest.raises(PlanError, match="no parameter is to be trained"):
        ct.AE(**SMALL | {"hidden": None}, network=frozen).fit(plane())


def test_modules_whose_copies_would_not_learn_are_refused():
    """A copy of a TorchScript module has parameters that no gradient reaches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pair = torch.jit.script(torch.nn.Linear(5, 4)), torch.nn.Linear(2, 5)
    with pytest.raises(PlanError, match="cannot be trained"):
        ct.VAE(**SMALL | {"hidden": None}, network=pair).fit(plane())


def test_gradients_may_be_switched_off_around_a_fit(vae):
    with torch.no_grad():
        m = ct.VAE(**SMALL, free_bits=0.1).fit(plane())
        again = ct.VAE(**SMALL).fit(plane())
    assert m.history_[-1]["loss"] < m.history_[0]["loss"]
    np.testing.assert_array_equal(again.transform(plane()), vae.transform(plane()))


def test_a_column_of_dates_comes_back():
    frame = pd.DataFrame({"a": np.arange(30.0) ** 2, "when": pd.date_range("2026-01-01", periods=30)})
    back = ct.VAE(**SMALL).fit(frame).sample(4, random_state=0)
    assert back.dtypes.equals(frame.dtypes)


def test_what_cannot_be_scored_fails_before_training(monkeypatch):
    def refuse(*_):
        raise RuntimeError("no scores")

    def never(*_, **__):
        pytest.fail("trained in vain")

    monkeypatch.setattr(ct.VAE, "_scores", refuse)
    monkeypatch.setattr("chartae.estimators.fitting.train", never)
    with pytest.raises(RuntimeError, match="no scores"):
        ct.VAE(**SMALL).fit(plane())


def test_a_prior_made_of_the_posterior_samples():
    class OfPosterior(Prior):
        offers = frozenset({"log_prob", "point"})

        def __init__(self, latent_dim, condition_dim=0):
            super().__init__()

        def forward(self, c=None, *, posterior=None):
            q = posterior(next(posterior.parameters()).new_zeros(1, 5))
            return DiagonalNormal(q.point()[0], torch.zeros_like(q.point()[0]))

    priors.register("of-posterior")(OfPosterior)

    @recipe("of-posterior-vae", paper="none", parts="prior made of the posterior")
    def made(shape, **common):
        return assemble(shape, prior="of-posterior", objective=NegLogLik() + KL(), **common)

    try:
        m = ct.Autoencoder(recipe="of-posterior-vae", **SMALL).fit(plane())
        assert m.sample(3).shape == (3, 5)
    finally:
        _RECIPES._items.pop("of-posterior-vae")
        priors._items.pop("of-posterior")


def test_a_grid_may_name_parameters_of_the_recipe():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = ct.Autoencoder(recipe="beta-vae", recipe_params={"warmup": 1.0}, latent_dim=2, max_epochs=2)
    search = GridSearchCV(model, {"recipe_params__beta": [1.0, 4.0]}, cv=2).fit(X)
    beta = search.best_params_["recipe_params__beta"]
    assert search.best_estimator_.recipe_params == {"warmup": 1.0, "beta": beta}
    assert model.recipe_params == {"warmup": 1.0}
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(recipe_param__beta=1.0)


def test_a_decoder_that_does_without_codes_is_told_of_and_how_to_mend_it():
    """A swiss roll has no direction of much more variance than others: codes are not used at first."""
    t = 1.5 * np.pi * (1 + 2 * np.random.default_rng(0).random(1000))
    X = np.stack([t * np.cos(t), 21 * np.random.default_rng(1).random(1000), t * np.sin(t)], 1)
    with pytest.warns(UserWarning, match=r"only 0\.\d\d nats less likely.*: fit with warmup=30"):
        silent = ct.VAE(latent_dim=2, random_state=0).fit(X)
    mended = ct.VAE(latent_dim=2, warmup=30, random_state=0).fit(X)
    assert mended.score(X) > silent.score(X) + 0.2
