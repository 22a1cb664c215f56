"""Any array: a result that is finite, or one clear error; never a silent NaN."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chartae as ct
from chartae.core.errors import ChartaeError, DataError
from chartae.parts.units import infer_space

SCIKIT_LEARN = r"Found array with|Input X contains"
NUMBERS = [*"?bBhHiIlLefdg"]
OTHERS = ["F", "D", "O", "U8", "S8", "M8[D]", "m8[s]"]
#: Powers of ten; beyond 1e38 float32 has no numbers, and below 1e-38 few.
SCALES = [0, *range(-30, 31, 5), -320, -310, -200, -100, -45, -39, 38, 100, 200, 300, 308]
SPECIAL = [0.0, np.nan, np.inf, -np.inf, 5e-324, -1e-310, 1e-45, 65504.0, 3.4e38, 1e300, 1.7e308, -1.7e308]


@st.composite
def arrays(draw, kinds):
    """Normal values of some scale and offset in an array of some type; some equal, missing, or extreme."""
    n = draw(st.sampled_from([*range(2, 41, 3), 1]))
    shape = draw(st.sampled_from([(1,), (2,), (3,), (6,), (2, 3), (8, 8), (3, 8, 8), (8, 9, 3)]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    kind = np.dtype(draw(st.sampled_from(kinds)))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = rng.normal(size=(n, *shape)) + draw(st.sampled_from([0.0, 0.0, 1.0, 1e3, 1e8]))
        X = X.astype(np.float64) * 10.0 ** draw(st.sampled_from(SCALES))
        if draw(st.booleans()):
            X[:, 0] = X[0, 0]  # a constant column, or row of pixels
        if draw(st.booleans()):
            X[rng.random(n) < 0.5] = X[-1]
        for value in draw(st.sampled_from([[], SPECIAL, SPECIAL[:2], SPECIAL[4:7], SPECIAL[4:]])):
            if draw(st.booleans()):
                X.flat[rng.integers(X.size)] = value
        if kind.kind in "Mm":
            return X.astype(np.int64).astype(kind)
        return X.astype(kind)


options = st.fixed_dictionaries(
    {
        "missing": st.sampled_from(["auto", "mask"]),
        "scale": st.sampled_from(["auto", "global", "feature", "none"]),
        "noise": st.sampled_from(["global", "feature", "item"]),
        "latent_dim": st.sampled_from([1, 2, "auto"]),
    }
)


def check(X, estimator, given_options):
    """Fit, and use what was fitted: what the error says, or nothing where all is finite."""
    model = estimator(hidden=(4,), max_epochs=1, random_state=0, **given_options)
    made, error = {}, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of steps that are taken back
        try:
            codes = model.fit(X).transform(X)
            made = {
                "transform": codes,
                "inverse_transform": model.inverse_transform(codes),
                "sample": model.sample(3, random_state=0),
                "score_samples": model.score_samples(X),
                "reconstruct": model.reconstruct(X),
            }
        except ValueError as caught:
            error = caught
    for method, values in made.items():
        assert np.isfinite(values).all(), method
    if error is None:
        return ""
    assert isinstance(error, ChartaeError) or re.match(SCIKIT_LEARN, str(error)), repr(error)
    assert "\n" not in str(error)
    return str(error)


cases = [arrays(NUMBERS), st.sampled_from([ct.AE, ct.VAE]), options]


@given(*cases)
@settings(max_examples=100)
def test_any_array_of_numbers(X, estimator, given_options):
    check(X, estimator, given_options)


@pytest.mark.slow
@given(*cases)
@settings(max_examples=2000)
def test_very_many_arrays_of_numbers(X, estimator, given_options):
    check(X, estimator, given_options)


@given(arrays(OTHERS), st.sampled_from([ct.AE, ct.VAE]), options)
@settings(max_examples=20)
def test_arrays_of_anything_else(X, estimator, given_options):
    said = check(X, estimator, given_options)
    assert said or X.dtype == object


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("estimator", [ct.AE, ct.VAE])
@pytest.mark.parametrize("scale", ["auto", "feature"])
def test_all_that_a_type_can_hold(dtype, estimator, scale):
    """The smallest and the largest numbers side by side in a column, and in columns beside usual ones."""
    most = np.finfo(np.float64 if dtype is np.longdouble else dtype)
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(dtype)
    X[0, 0], X[1, 0], X[2, 0] = most.max, -most.max, most.smallest_subnormal
    X[:, 1] *= most.smallest_subnormal * 16
    said = check(X, estimator, {"scale": scale})
    assert said == ""


def test_a_column_beside_a_huge_one_keeps_its_own_units():
    X = np.random.default_rng(0).normal(size=(20, 3)) * [1.0, 1e200, 1e300]
    space = infer_space(X, scale="feature")
    sizes = np.abs(X).max(0)
    np.testing.assert_allclose(space.scale, sizes * (X / sizes).std(0))


@pytest.mark.parametrize("size", [1e-36, 3e38])
def test_units_at_the_ends_of_float32(size):
    """Codes are those of the same data at a usual scale, where one over the scale is denormal too."""
    X = (np.random.default_rng(0).integers(-9, 10, (40, 3)) / 9).astype(np.float32)
    usual, extreme = (ct.AE(latent_dim=1, hidden=(4,), max_epochs=3, random_state=0) for _ in range(2))
    Z = usual.fit(X).transform(X)
    np.testing.assert_allclose(
        extreme.fit(X * np.float32(size)).transform(X * np.float32(size)), Z, atol=1e-3
    )
    assert float(extreme.space_.scale) == pytest.approx(size * float(usual.space_.scale), rel=1e-5)


@pytest.mark.filterwarnings("ignore:column.* constant and tell")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_denormal_numbers_are_zeros_in_training_and_after_it(dtype):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(dtype)
    X[:, 1] = X[:, 1] * np.finfo(dtype).smallest_subnormal * 50
    Z = ct.AE(latent_dim=1, hidden=(4,), max_epochs=3, random_state=0, scale="feature").fit(X).transform(X)
    X[:, 1] = 0
    again = ct.AE(latent_dim=1, hidden=(4,), max_epochs=3, random_state=0, scale="feature").fit(X)
    np.testing.assert_allclose(again.transform(X), Z, atol=1e-5)


@pytest.mark.filterwarnings("ignore:values are from")
def test_what_is_far_from_the_training_data_has_no_code():
    X = np.random.default_rng(0).normal(size=(40, 3))
    model = ct.AE(latent_dim=1, hidden=(4,), max_epochs=1, random_state=0).fit(1e-300 * X)
    far = np.vstack([1e-300 * X, 1e300 * X[:1]])
    with pytest.raises(DataError, match=r"row 40 \(from 0\) is so far from the training data"):
        model.transform(far)
