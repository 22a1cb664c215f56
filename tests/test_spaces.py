"""Spaces: between the user's array and the model's tensor, without losing a digit that matters."""

import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import chartae as ct
from chartae.core import arrays
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import LAYOUTS, Space, Support, Units, layout_of
from chartae.parts.likelihoods import NetworkLikelihood, NormalLikelihood, PoissonLikelihood, likelihoods
from chartae.parts.units import Facts, infer_space

SHAPES = {
    (7,): ("flat", (7,)),
    (8, 9): ("hw", (1, 8, 9)),
    (5, 9): ("any", (5, 9)),
    (100, 3): ("any", (100, 3)),
    (5, 6, 1): ("hwc", (1, 5, 6)),
    (5, 6, 3): ("hwc", (3, 5, 6)),
    (5, 6, 4): ("hwc", (4, 5, 6)),
    (3, 5, 6): ("chw", (3, 5, 6)),
    (1, 5, 6): ("chw", (1, 5, 6)),
    (3, 5, 4): ("hwc", (4, 3, 5)),
    (12, 5, 6): ("any", (12, 5, 6)),
    (2, 3, 4, 5): ("any", (2, 3, 4, 5)),
}


def there(space: Space, X: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return space.to_model(torch.from_numpy(X), dtype)


# ------------------------------------------------------------------- layouts


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts(shape):
    space = Space(shape)
    assert (space.layout, space.model_shape) == SHAPES[shape]
    assert space.is_image == (space.layout in ("hw", "hwc", "chw"))
    assert layout_of(shape) == space.layout
    X = np.arange(2 * math.prod(shape), dtype=np.float32).reshape(2, *shape)
    model = there(space, X)
    assert model.shape == (2, *space.model_shape)
    if space.layout == "hwc":
        assert np.array_equal(model[1, -1].numpy(), X[1, ..., -1])
    assert np.array_equal(space.from_model(model).numpy(), X)
    # Leading dimensions are free on the way back: samples of rows.
    assert space.from_model(model.expand(4, *model.shape)).shape == (4, 2, *shape)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16"])
def test_whole_numbers_do_not_wrap_around_in_their_type(kind):
    limits, far = np.iinfo(kind), torch.tensor([[-50.0], [50.0]])
    X = np.array([[limits.min], [limits.max], [3]], kind)
    back = infer_space(X, likelihood="normal").from_model(far).numpy()
    assert back[:, 0].tolist() == [limits.min, limits.max]
    free = infer_space(X.astype(np.float32), likelihood="normal").from_model(far).numpy()
    assert free[0] < limits.min < limits.max < free[1]


@pytest.mark.parametrize(
    ("layout", "shape", "model_shape"),
    [
        ("hw", (5, 6), (1, 5, 6)),
        ("hwc", (3, 5, 6), (6, 3, 5)),
        ("hwc", (5, 6, 12), (12, 5, 6)),
        ("chw", (5, 6, 3), (5, 6, 3)),
        ("any", (28, 28), (28, 28)),
        ("any", (28, 28, 3), (28, 28, 3)),
        ("flat", (7,), (7,)),
    ],
)
def test_a_layout_that_is_asked_for(layout, shape, model_shape):
    X = np.random.default_rng(0).normal(size=(4, *shape))
    space = infer_space(X, layout=layout)
    assert (space.layout, space.model_shape) == (layout, model_shape)
    np.testing.assert_allclose(space.from_model(there(space, X, torch.float64)).numpy(), X, atol=1e-12)
    assert Space.from_config(space.config()).layout == layout


@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple),
    layout=st.sampled_from(["auto", *LAYOUTS]),
)
@settings(max_examples=100)
def test_a_layout_is_taken_or_refused_in_one_line(shape, layout):
    axes = {"auto": len(shape), **LAYOUTS}[layout]
    if axes in (None, len(shape)):
        assert LAYOUTS[Space(shape, layout=layout).layout] in (None, len(shape))
        return
    with pytest.raises(PlanError, match=f"layout='{layout}' is for items of {axes} axes") as caught:
        Space(shape, layout=layout)
    assert "\n" not in str(caught.value)


def test_an_unknown_layout_is_refused():
    with pytest.raises(PlanError, match="use 'auto', 'flat', 'hw', 'hwc', 'chw', 'any'"):
        infer_space(np.zeros((3, 2)), layout="whc")


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    center=st.floats(-1e6, 1e6),
    scale=st.floats(1e-6, 1e6),
    any_layout=st.booleans(),
    data=st.data(),
)
@settings(max_examples=80)
def test_there_and_back(shape, center, scale, any_layout, data):
    layout = "any" if any_layout else "auto"
    space = Space(shape, center=center, scale=scale, dtype="float64", layout=layout)
    unit = data.draw(hnp.arrays(np.float64, (2, *shape), elements=st.floats(-100, 100)))
    X = center + scale * unit
    back = space.from_model(there(space, X, torch.float64)).numpy()
    np.testing.assert_allclose(back, X, rtol=1e-12, atol=1e-12 * (abs(center) + scale))


@given(
    data=st.data(), dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
)
@settings(max_examples=60)
def test_there_and_back_of_inferred_spaces(data, dtype):
    shape = data.draw(st.sampled_from([(3,), (2, 3), (2, 2, 3)]))
    low, high = (0, 255) if dtype == np.uint8 else (-1000, 1000)
    values = st.integers(low, high).map(float)
    X = data.draw(hnp.arrays(np.float64, (6, *shape), elements=values)).astype(dtype)
    space = infer_space(X)
    back = space.from_model(there(space, X)).numpy()
    assert back.dtype == (np.float32 if dtype in (np.uint8, np.int16, np.float32) else np.float64)
    np.testing.assert_allclose(back, X.astype(float), atol=1e-3)


# ------------------------------------------------------------------- units


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(2, 40), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32)
    ),
    st.floats(-1e6, 1e6),
)
@settings(max_examples=80)
def test_moments_are_numpy_s(X, offset):
    X = X + offset
    space = infer_space(X, likelihood="normal", scale="feature")
    tolerance = 1e-9 * (1 + np.abs(X).max())
    np.testing.assert_allclose(space.center.numpy(), X.mean(0), atol=tolerance)
    # A constant column keeps its units: there is nothing to divide by.
    spread = X.std(0)
    real = spread > tolerance
    np.testing.assert_allclose(space.scale.numpy()[real], spread[real], rtol=1e-4, atol=tolerance)
    assert (space.scale > 0).all()


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("shape", [(4,), (5, 6), (8, 9), (5, 6, 3), (3, 5, 6), (2, 3, 4, 5)], ids=str)
def test_moments_in_blocks(shape, block, monkeypatch):
    """Columns have their own center; images one for each channel; all share one scale."""
    monkeypatch.setattr(arrays, "BLOCK", block * math.prod(shape))
    X = np.random.default_rng(0).normal(3, 2, size=(50, *shape))
    space = infer_space(X)
    model = np.moveaxis(X, -1, 1) if space.layout == "hwc" else X
    axes = {"hw": (0, 1, 2), "hwc": (0, 2, 3), "chw": (0, 2, 3)}.get(space.layout, (0,))
    center, spread = model.mean(axes), model.std(axes)
    np.testing.assert_allclose(space.center.numpy().ravel(), center.ravel(), rtol=1e-12)
    assert float(space.scale) == pytest.approx(np.sqrt(np.mean(spread**2)), rel=1e-12)
    out = there(space, X, torch.float64).numpy()
    np.testing.assert_allclose(out.mean((0, 2, 3) if space.is_image else 0), 0, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, -1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_offsets(offset, dtype):
    """Subtracted before they are rounded: what is left is as exact as the data were."""
    X = np.random.default_rng(0).normal(size=(500, 3))
    space = infer_space(X + offset)
    exact = (X - X.mean(0)) / math.sqrt(np.mean(X.var(0)))
    np.testing.assert_allclose(there(space, X + offset, dtype), exact, atol=1e-6 + 1e-15 * abs(offset))
    back = space.from_model(there(space, X + offset, dtype)).numpy() - offset
    np.testing.assert_allclose(back, X, atol=1e-5 + 1e-15 * abs(offset))


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e100, 1e300])
def test_extreme_units(scale):
    X = np.random.default_rng(0).normal(size=(200, 3))
    ours = infer_space(scale * X)
    np.testing.assert_allclose(there(ours, scale * X), there(infer_space(X), X), atol=1e-6)
    assert volume(ours) == pytest.approx(volume(infer_space(X)) + 3 * math.log(scale))


def test_large_integers_keep_their_digits():
    X = np.array([[2**53 - 3], [2**53 - 1]], dtype=np.int64)
    space = infer_space(X)
    assert there(space, X)[:, 0].tolist() == [-1.0, 1.0]
    assert space.from_model(torch.tensor([[-1.0], [1.0]])).numpy()[:, 0].tolist() == X[:, 0].tolist()


def test_constant_columns():
    for value in (0.0, 0.1, 7.0, -1e9 / 3, 1e-30):
        X = np.column_stack([np.full(20, value), np.arange(20.0)])
        for scale in ("auto", "feature", "global"):
            space = infer_space(X, scale=scale)
            assert there(space, X)[:, 0].abs().max() < 1e-9
            assert np.allclose(
                space.scale, [1, X[:, 1].std()] if scale == "feature" else X.std(0).max() / 2**0.5
            )
    constant = infer_space(np.full((20, 2), 1e9))
    assert float(constant.scale) == 1.0
    assert volume(constant) == 0.0


def test_scales():
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 100] + [5, 0, -5]
    assert infer_space(X).scale.shape == ()
    assert infer_space(X, columns=("a", "b", "c")).scale.shape == (3,)
    np.testing.assert_allclose(infer_space(X, scale="feature").scale, X.std(0))
    none = infer_space(X, scale="none")
    assert float(none.scale) == 1.0
    assert not none.center.any()
    images = np.random.default_rng(0).normal(size=(50, 4, 5, 3)) * [1, 2, 3]
    per_channel = infer_space(images, scale="feature")
    assert per_channel.scale.shape == (3, 1, 1)
    np.testing.assert_allclose(per_channel.scale.ravel(), images.std((0, 1, 2)))
    with pytest.raises(PlanError, match="use 'auto', 'global', 'feature' or 'none'"):
        infer_space(X, scale="columns")


def volume(space, likelihood=NormalLikelihood):
    return float(likelihood(torch.nn.Identity(), space.model_shape).log_volume(space).sum())


def test_log_volume_is_the_change_of_units():
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 100]
    space = infer_space(X, scale="feature")
    assert volume(space) == pytest.approx(np.log(X.std(0)).sum())
    assert volume(space, PoissonLikelihood) == 0.0
    assert volume(infer_space(X)) == pytest.approx(3 * math.log(float(infer_space(X).scale)))


@pytest.mark.parametrize("block", [3, 1000])
@pytest.mark.parametrize("shape", [(4,), (8, 9), (5, 6, 3)], ids=str)
def test_units_are_those_of_the_training_rows(shape, block, monkeypatch):
    """Moments of the rows alone; but the range, and so the values that are known, of all."""
    monkeypatch.setattr(arrays, "BLOCK", block * math.prod(shape))
    X = np.random.default_rng(0).normal(size=(30, *shape))
    X[20:] *= 100.0
    rows = np.array([0, 2, 3, 7, 11, 19])
    some, alone = infer_space(X, scale="feature", rows=rows), infer_space(X[rows], scale="feature")
    np.testing.assert_allclose(some.center, alone.center, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(some.scale, alone.scale, rtol=1e-12)
    assert some.value_range == (X.min(), X.max())
    kinds = np.array([[0, 1], [1, 0], [0, 4]])
    assert infer_space(kinds, rows=np.array([0, 1])).likelihood == "normal"
    assert infer_space(kinds, rows=np.array([0, 1]), likelihood="categorical").levels == 5


@pytest.mark.parametrize("frame", [False, True])
def test_rows_held_out_do_not_shape_the_units(frame):
    X = np.random.default_rng(0).normal(size=(200, 3)) * [1, 5, 9]
    m = ct.AE(latent_dim=1, hidden=(4,), max_epochs=1, random_state=0)
    m.fit(pd.DataFrame(X, columns=list("abc")) if frame else X)
    assert len(m.validation_rows_) == 50
    kept = np.delete(X, m.validation_rows_, 0)
    np.testing.assert_allclose(m.space_.center, kept.mean(0), rtol=1e-12)
    spread = kept.std(0)
    np.testing.assert_allclose(m.space_.scale, spread if frame else np.sqrt(np.mean(spread**2)))


# ------------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("X", "likelihood", "scale"),
    [
        (np.array([[0, 1], [1, 0]]), "bernoulli", 1.0),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "bernoulli", 1.0),
        (np.array([[False, True], [True, False]]), "bernoulli", 1.0),
        (np.array([[0, 255], [255, 0]], dtype=np.uint8), "bernoulli", 255.0),
        (np.array([[0.0, 16.0], [16.0, 0.0]]), "bernoulli", 16.0),
        (np.array([[0.0, 0.25], [0.25, 0.0]]), "bernoulli", 0.25),
        (np.array([[0, 200], [200, 0]], dtype=np.uint8), "bernoulli", 200.0),
        (np.array([[0, 1], [2, 0]]), "normal", None),
        (np.array([[0.0, 0.5], [1.0, 0.0]]), "normal", None),
        (np.array([[-1.0, 1.0], [1.0, -1.0]]), "normal", None),
        (np.zeros((3, 2)), "normal", None),
        (np.ones((3, 2)), "normal", None),
    ],
    ids=str,
)
def test_the_likelihood(X, likelihood, scale):
    space = infer_space(X)
    assert space.likelihood == likelihood
    if scale is not None:
        assert float(space.scale) == scale
        assert there(space, X).unique().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("X", "scale"),
    [
        (np.array([[0, 50, 200]], dtype=np.uint8), 255.0),  # bytes of an image that has no white
        (np.array([[0, 1, 16]], dtype=np.uint8), 16.0),  # bytes that are not of an image with 256 grays
        (np.array([[0, 100]], dtype=np.uint8), 100.0),  # two values are those two values
        (np.array([[0, 1]], dtype=np.uint8), 1.0),
        (np.array([[1, 1]], dtype=np.uint8), 1.0),
        (np.array([[0.0, 0.7]]), 0.7),
        (np.array([[0.0, 0.2, 0.7]]), 1.0),
        (np.array([[0.0, 2.0, 16.0]]), 16.0),
        (np.array([[0, 2, 16]]), 16.0),
        (np.zeros((2, 3)), 1.0),
    ],
)
def test_gray_values_of_a_bernoulli_likelihood_lie_between_0_and_1(X, scale):
    space = infer_space(X, likelihood="bernoulli")
    assert float(space.scale) == scale
    assert 0 <= there(space, X).min() <= there(space, X).max() <= 1
    assert space.support == Support(0.0, scale)


@given(st.floats(1e-6, 1e6), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=40)
def test_two_values_come_back_as_they_were(high, dtype):
    X = np.array([[0, high], [high, 0]], dtype=dtype)
    space = infer_space(X)
    assert space.likelihood == "bernoulli"
    np.testing.assert_allclose(there(space, X), X > 0, rtol=1e-6)
    drawn = torch.eye(2).flip(0)  # what a Bernoulli likelihood draws
    assert np.array_equal(space.from_model(drawn).numpy(), X)
    space.check(X.astype(np.float32))  # the same values, rounded


class Counts(NetworkLikelihood):
    """What a user registers: it leaves its units to the base."""


class Angles(NetworkLikelihood):
    """What a user registers: it says which units it needs, and which values it knows."""

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        assert (facts.low, facts.high, facts.whole, facts.two_valued) == (-90.0, 180.0, True, False)
        return Units(center=90.0, scale=180.0 / math.pi, support=Support(-180.0, 180.0))


def test_a_new_likelihood_prepares_its_own_data(monkeypatch):
    monkeypatch.setattr(likelihoods, "_items", {**likelihoods._items, "counts": Counts, "angles": Angles})
    X = np.array([[0, 7], [3, 1]])
    counts = infer_space(X, likelihood="counts")
    assert np.array_equal(there(counts, X), X)
    assert counts.support == Support()
    counts.check(X - 100.5)
    X = np.array([[-90.0, 180.0], [90.0, 0.0]])
    angles = infer_space(X, likelihood="angles")
    torch.testing.assert_close(there(angles, X), torch.tensor([[-1.0, 0.5], [0.0, -0.5]]) * math.pi)
    with pytest.raises(DataError, match="the model knows values from -180 to 180"):
        angles.check(2 * X)


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(PlanError, match="did you mean 'normal'"):
        infer_space(np.zeros((3, 2)), likelihood="norml")


def test_categories_lie_between_0_and_1():
    X = np.array([[0, 3], [4, 1]], dtype=np.uint8)
    space = infer_space(X, likelihood="categorical")
    assert space.levels == 5
    torch.testing.assert_close(there(space, X), torch.tensor([[0, 0.75], [1.0, 0.25]]))
    assert np.array_equal(space.from_model(there(space, X)), X)
    assert infer_space(np.zeros((3, 2)), likelihood="categorical").levels == 2


@pytest.mark.parametrize(
    ("X", "likelihood", "message"),
    [
        (np.array([[-1.0, 1.0]]), "bernoulli", "the smallest is -1: use 'normal'"),
        (np.array([[0.5, 1.0]]), "categorical", "whole numbers from 0 to 255"),
        (np.array([[-1, 1]]), "categorical", "whole numbers from 0 to 255"),
        (np.array([[0, 256]]), "categorical", "whole numbers from 0 to 255"),
        (np.zeros((3, 0)), "auto", "hold no values"),
        (np.zeros((0, 3)), "auto", "hold no values"),
        (np.zeros((3, 2, 0)), "auto", "hold no values"),
    ],
)
def test_values_that_do_not_fit(X, likelihood, message):
    with pytest.raises(DataError, match=message) as caught:
        infer_space(X, likelihood=likelihood)
    assert "\n" not in str(caught.value)


def test_what_it_says():
    X = np.random.default_rng(0).integers(0, 256, (10, 5, 6, 3)).astype(np.uint8)
    scale = math.sqrt(np.mean(X.var((0, 1, 2))))
    text = infer_space(X).extra_repr()
    assert text == f"images of 5 × 6 × 3, uint8 in [0, 255], centered, scale {scale:.4g}, normal likelihood"
    assert infer_space(X[:, 0, 0]).extra_repr().startswith("3 features, uint8 in [")
    assert infer_space(X[:, None]).extra_repr().startswith("items of 1 × 5 × 6 × 3")
    assert infer_space(np.moveaxis(X, -1, 1)).extra_repr().startswith("images of 3 × 5 × 6 (channels first)")


@pytest.mark.parametrize(
    ("X", "likelihood", "hinted"),
    [
        (np.array([[0, 7], [3, 1]]), "auto", True),
        (np.array([[0, 7], [3, 1]]), "poisson", False),
        (np.array([[0, 1], [1, 1]]), "auto", False),  # bernoulli
        (np.array([[-2, 7], [3, 1]]), "auto", False),
        (np.array([[0.0, 7.0], [3.0, 1.0]]), "auto", False),
        (np.array([[0, 7], [3, 1]], np.uint8), "auto", False),  # pixels, mostly
    ],
)
def test_whole_numbers_from_zero_may_be_counts(X, likelihood, hinted):
    assert ("'poisson'" in infer_space(X, likelihood=likelihood).extra_repr()) == hinted


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((3,), {}, "centered, scale "),
        ((3,), {"columns": ("a", "b", "c")}, "each column centered and scaled"),
        ((5, 6, 3), {"scale": "feature"}, "each channel centered and scaled"),
        ((5, 6), {"scale": "feature"}, "each value centered and scaled"),
        ((3,), {"scale": "none"}, "as they are"),
        ((3,), {"likelihood": "bernoulli"}, "divided by 16"),
    ],
)
def test_what_it_says_of_the_scaling(shape, options, said):
    X = np.random.default_rng(0).uniform(size=(10, *shape)) * 16 / 0.99
    X.flat[0], X.flat[1] = 0.0, 16.0
    assert f"], {said}" in infer_space(np.minimum(X, 16.0), **options).extra_repr()


# ------------------------------------------------------------------- values that are known


@given(
    hnp.arrays(np.float64, (4, 3), elements=st.floats(-20, 20, width=16) | st.integers(-20, 20).map(float)),
    st.none() | st.integers(-9, 0),
    st.none() | st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=200)
def test_support(X, low, high, whole):
    slack = 0.0 if low is None or high is None else 1e-6 * (high - low)
    bottom, top = -np.inf if low is None else low - slack, np.inf if high is None else high + slack
    inside = (bottom <= X) & (top >= X) & ((np.floor(X) == X) | (not whole))
    assert Support(low, high, whole).holds(X) == inside.all()


def test_support_in_words():
    assert str(Support()) == "values"
    assert str(Support(0.0, 255.0)) == "values from 0 to 255"
    assert str(Support(high=1.0, whole=True)) == "whole numbers up to 1"
    assert str(Support(low=0.5)) == "values from 0.5 up"


@pytest.mark.parametrize("block", [1, 1000])
@pytest.mark.parametrize(
    ("likelihood", "other", "known"),
    [
        ("bernoulli", -1.0, "values from 0 to 4"),
        ("bernoulli", 5, "values from 0 to 4"),
        ("bernoulli", 255, "values from 0 to 4"),
        ("categorical", -1.0, "the categories 0 to 4"),
        ("categorical", 5, "the categories 0 to 4"),
        ("categorical", 0.5, "the categories 0 to 4"),
    ],
)
def test_values_that_the_likelihood_does_not_know(likelihood, other, known, block, monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 3 * block)
    X = np.random.default_rng(0).integers(0, 5, (20, 3))
    space = infer_space(X, likelihood=likelihood)
    again = Space.from_config(json.loads(json.dumps(space.config())))
    wrong = X.astype(np.asarray(other).dtype)
    wrong[11, 1] = other
    for one in (space, again):
        one.check(X)
        one.check(X[:0])
        one.check((X > 2).astype(bool))
        with pytest.raises(DataError, match=f"the model knows {known}, and the data hold others") as caught:
            one.check(wrong)
        assert "\n" not in str(caught.value)
    infer_space(X, likelihood="normal").check(1e9 * wrong)


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
def test_an_estimator_refuses_values_that_its_likelihood_does_not_know(likelihood, tmp_path):
    X = np.random.default_rng(0).integers(0, 5, (30, 3))
    m = ct.VAE(latent_dim=1, hidden=(4,), max_epochs=1, likelihood=likelihood, random_state=0).fit(X)
    again = ct.load(m.save(tmp_path / "run"))
    for one in (m, again):
        for method in (one.transform, one.project, one.score_samples, one.sample_posterior, one.predict):
            method(X)
            with pytest.raises(DataError, match="give them in the units of the training data"):
                method(51 * X)


def test_drawn_values_are_values_of_the_data():
    X = 0.25 * np.random.default_rng(0).integers(0, 2, (50, 4))
    m = ct.VAE(latent_dim=1, hidden=(4,), max_epochs=1, random_state=0).fit(X)
    drawn = m.sample(50, random_state=0, observation_noise=True)
    assert set(np.unique(drawn)) == {0.0, 0.25}
    m.score_samples(drawn)


# ------------------------------------------------------------------- estimators


def test_an_estimator_takes_a_layout(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 16, 17))
    options = {"latent_dim": 1, "hidden": (4,), "max_epochs": 1, "random_state": 0}
    image = ct.AE(**options).fit(X)
    table = ct.AE(**options, layout="any").fit(X)
    assert (image.network_, table.network_) == ("conv2d", "mlp")
    assert "images of 16 × 17" in image.summary_
    assert "items of 16 × 17" in table.summary_
    again = ct.load(table.save(tmp_path / "run"))
    assert again.space_.layout == "any"
    assert np.array_equal(again.project(X), table.project(X))
    with pytest.raises(PlanError, match="items of 3 axes"):
        ct.AE(**options, layout="hwc").fit(X)


def test_a_series_is_no_image():
    X = np.random.default_rng(0).normal(size=(30, 100, 3)) * [1.0, 10.0, 100.0] + [0.0, 50.0, -9.0]
    m = ct.AE(latent_dim=1, hidden=(4,), max_epochs=1, random_state=0, scale="feature").fit(X)
    assert m.network_ == "mlp"
    model = there(m.space_, np.delete(X, m.validation_rows_, 0), torch.float64)
    np.testing.assert_allclose(model.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(model.std(0, correction=0), 1, rtol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_the_latent_dimension_does_not_depend_on_units(unit):
    """Five independent normals read about five, whatever unit one of them is in."""
    X = np.random.default_rng(0).normal(size=(3000, 5)) * [unit, 1, 1, 1, 1]
    options = {"hidden": (4,), "max_epochs": 1, "random_state": 0}
    m = ct.AE(**options).fit(pd.DataFrame(X, columns=list("abcde")))
    assert m.latent_dim_ in (4, 5)
    assert ct.AE(**options, scale="feature").fit(X).latent_dim_ == m.latent_dim_


# ------------------------------------------------------------------- keeping


@pytest.mark.parametrize("scale", ["auto", "feature", "none"])
def test_it_is_made_again(scale):
    X = np.random.default_rng(0).normal(size=(20, 4, 5, 3)) + 1e6
    space = infer_space(X, scale=scale)
    again = Space.from_config(space.config())
    again.load_state_dict(space.state_dict())
    assert again.config() == space.config() == json.loads(json.dumps(space.config()))
    for copy in (again, pickle.loads(pickle.dumps(space))):
        assert torch.equal(there(copy, X), there(space, X))
        assert copy.extra_repr() == space.extra_repr()
    assert space.state_dict()["center"].dtype == torch.float64


def test_units_that_change_are_noticed():
    """The reciprocal is remembered, and must not outlive the scale it was made of."""
    space = Space((3,), scale=2.0)
    x = np.ones((1, 3), dtype=np.float32)
    assert there(space, x)[0, 0] == 0.5
    space.load_state_dict({"center": torch.tensor(1.0).double(), "scale": torch.tensor(4.0).double()})
    assert there(space, x)[0, 0] == 0.0
    space.scale = torch.tensor(8.0, dtype=torch.float64)
    assert there(space, 9 * x)[0, 0] == 1.0


def test_a_double_model_keeps_double_units():
    """In the precision of the data: a model in double precision must not round its input."""
    X = np.random.default_rng(0).normal(size=(20, 3))
    space = infer_space(X)
    exact = (X - X.mean(0)) / math.sqrt(np.mean(X.var(0)))
    np.testing.assert_allclose(there(space, X, torch.float64), exact, rtol=1e-12, atol=1e-14)
    assert there(space, X.astype(np.float32), torch.float64).dtype == torch.float64
