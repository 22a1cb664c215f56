"""Spaces: between the user's array and the model's tensor, without losing a digit that matters."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chartae.core import spaces
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import Space, infer_space

SHAPES = {
    (7,): ("flat", (7,)),
    (5, 6): ("hw", (1, 5, 6)),
    (5, 6, 1): ("hwc", (1, 5, 6)),
    (5, 6, 3): ("hwc", (3, 5, 6)),
    (5, 6, 4): ("hwc", (4, 5, 6)),
    (3, 5, 6): ("chw", (3, 5, 6)),
    (1, 5, 6): ("chw", (1, 5, 6)),
    (12, 5, 6): ("chw", (12, 5, 6)),
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
    X = np.arange(2 * math.prod(shape), dtype=np.float32).reshape(2, *shape)
    model = there(space, X)
    assert model.shape == (2, *space.model_shape)
    if space.layout == "hwc":
        assert torch.equal(model[1, 2 % shape[2], 3, 4], torch.tensor(X[1, 3, 4, 2 % shape[2]]))
    assert np.array_equal(space.from_model(model).numpy(), X)
    # Leading dimensions are free on the way back: samples of rows.
    assert space.from_model(model.expand(4, *model.shape)).shape == (4, 2, *shape)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    center=st.floats(-1e6, 1e6),
    scale=st.floats(1e-6, 1e6),
    data=st.data(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_there_and_back(shape, center, scale, data):
    space = Space(shape, center=center, scale=scale, dtype="float64")
    unit = data.draw(hnp.arrays(np.float64, (2, *shape), elements=st.floats(-100, 100)))
    X = center + scale * unit
    back = space.from_model(there(space, X, torch.float64)).numpy()
    np.testing.assert_allclose(back, X, rtol=1e-12, atol=1e-12 * (abs(center) + scale))


@given(
    data=st.data(), dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
)
@settings(max_examples=60, deadline=None, derandomize=True)
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
@settings(max_examples=80, deadline=None, derandomize=True)
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
@pytest.mark.parametrize("shape", [(4,), (5, 6), (5, 6, 3), (3, 5, 6), (2, 3, 4, 5)], ids=str)
def test_moments_in_blocks(shape, block, monkeypatch):
    """Columns have their own center; images one for each channel; all share one scale."""
    monkeypatch.setattr(spaces, "BLOCK", block * math.prod(shape))
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
    assert ours.log_det(True) == pytest.approx(infer_space(X).log_det(True) + 3 * math.log(scale))


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
    assert constant.log_det(True) == 0.0


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


def test_log_det_is_the_change_of_volume():
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 10, 100]
    space = infer_space(X, scale="feature")
    assert space.log_det(True) == pytest.approx(np.log(X.std(0)).sum())
    assert space.log_det(False) == 0.0
    assert infer_space(X).log_det(True) == pytest.approx(3 * math.log(float(infer_space(X).scale)))


# ------------------------------------------------------------------- inference


@pytest.mark.parametrize(
    ("X", "likelihood", "scale"),
    [
        (np.array([[0, 1], [1, 0]]), "bernoulli", 1.0),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "bernoulli", 1.0),
        (np.array([[False, True], [True, False]]), "bernoulli", 1.0),
        (np.array([[0, 255], [255, 0]], dtype=np.uint8), "bernoulli", 255.0),
        (np.array([[0.0, 16.0], [16.0, 0.0]]), "bernoulli", 16.0),
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
        (np.array([[0, 200]], dtype=np.uint8), 255.0),  # bytes of an image that has no white
        (np.array([[0, 100]], dtype=np.uint8), 100.0),
        (np.array([[0.0, 0.7]]), 1.0),
        (np.array([[0.0, 16.0]]), 16.0),
        (np.array([[0, 1]], dtype=np.uint8), 1.0),
    ],
)
def test_gray_values_of_a_bernoulli_likelihood_lie_between_0_and_1(X, scale):
    space = infer_space(X, likelihood="bernoulli")
    assert float(space.scale) == scale
    assert 0 <= there(space, X).min() <= there(space, X).max() <= 1


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
    text = infer_space(X).extra_repr()
    assert text == "images of 5 × 6 × 3, uint8 in [0, 255], normal likelihood"
    assert infer_space(X[:, 0, 0]).extra_repr().startswith("3 features, uint8 in [")
    assert infer_space(X[:, None]).extra_repr().startswith("items of 1 × 5 × 6 × 3")


# ------------------------------------------------------------------- keeping


@pytest.mark.parametrize("scale", ["auto", "feature", "none"])
def test_it_is_made_again(scale):
    X = np.random.default_rng(0).normal(size=(20, 4, 5, 3)) + 1e6
    space = infer_space(X, scale=scale)
    again = Space.from_config(space.config())
    again.load_state_dict(space.state_dict())
    assert again.config() == space.config()
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
