"""Intrinsic dimension: of manifolds where it is known, in any units, and where it cannot be read."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_s_curve, make_swiss_roll

from chartae import intrinsic_dimension
from chartae.core.errors import DataError
from chartae.geometry.dimension import SCALES, Dimension


def cube(n: int, d: int, ambient: int, seed: int = 0) -> np.ndarray:
    """Uniform on a d-dimensional cube, isometrically in a larger space."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(ambient, d)))
    return rng.uniform(size=(n, d)) @ basis.T


def sphere(n: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, d + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("X", "d"),
    [
        (cube(1500, 1, 7), 1),
        (cube(1500, 2, 7), 2),
        (cube(2000, 4, 9), 4),
        (sphere(1500, 1), 1),
        (sphere(1500, 2), 2),
        (sphere(2000, 5), 5),
        (make_swiss_roll(1500, random_state=0)[0], 2),
        (make_s_curve(1500, random_state=0)[0], 2),
    ],
    ids=["line", "plane", "cube", "circle", "sphere", "5-sphere", "swiss roll", "s curve"],
)
def test_known_manifolds(X, d):
    """Within 15 %: edges and curvature bias it, more the larger d is."""
    found = intrinsic_dimension(X)
    assert found.dimension == pytest.approx(d, rel=0.15)
    assert found.verdict == "ok"
    low, high = found.interval
    assert low < found.dimension < high
    assert high - low < 0.5 * d


def test_the_interval_covers_the_truth():
    """A flat torus has no edge and no curvature that matters: 95 % intervals of 60 samples.

    By chance alone 50 or fewer of 60 would cover once in 3,000 runs; neighbors overlap, so that the
    interval is a little too narrow, and 48 is the bar.
    """
    covered = 0
    for seed in range(60):
        angles = np.random.default_rng(seed).uniform(0, 2 * math.pi, size=(500, 2))
        X = np.column_stack([np.cos(angles), np.sin(angles)])
        _, d, error = intrinsic_dimension(X).scales[0]
        covered += abs(d - 2) < 1.96 * error
    assert covered >= 48


def test_the_standard_error_falls_with_the_root_of_n():
    few, many = (intrinsic_dimension(cube(n, 2, 3)).scales[0][2] for n in (400, 1600))
    assert few / many == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e-10, 1e10, 1e30, 1e300])
def test_units_do_not_matter(scale):
    X = cube(400, 2, 5)
    assert intrinsic_dimension(scale * X).dimension == pytest.approx(
        intrinsic_dimension(X).dimension, rel=1e-6
    )


@pytest.mark.parametrize("features", [5, 40])  # many features: distances come from products, and cancel
@pytest.mark.parametrize("offset", [1e3, 1e6, -1e8])
def test_where_it_lies_does_not_matter(offset, features):
    X = cube(400, 2, features)
    expected = intrinsic_dimension(X).dimension
    assert intrinsic_dimension(X + offset).dimension == pytest.approx(expected, rel=1e-3)


def test_duplicates_do_not_matter():
    X = cube(400, 2, 5)
    tripled = np.repeat(X, 3, axis=0)[np.random.default_rng(0).permutation(1200)]
    assert intrinsic_dimension(tripled).dimension == pytest.approx(intrinsic_dimension(X).dimension, rel=1e-9)


def test_dead_and_repeated_columns_do_not_matter():
    X = cube(400, 2, 5)
    wide = np.column_stack([X, np.full((400, 3), 7.0)])
    assert intrinsic_dimension(wide).dimension == pytest.approx(intrinsic_dimension(X).dimension, rel=1e-9)


def test_images_are_flattened():
    X = cube(300, 2, 12)
    assert intrinsic_dimension(X.reshape(300, 3, 4)) == intrinsic_dimension(X)


def test_the_order_of_rows_does_not_matter():
    X = cube(400, 2, 5)
    shuffled = X[np.random.default_rng(1).permutation(400)]
    assert intrinsic_dimension(shuffled).dimension == pytest.approx(
        intrinsic_dimension(X).dimension, rel=1e-9
    )


def test_many_rows_are_sampled():
    X = cube(5000, 2, 5)
    first, again, other = (intrinsic_dimension(X, random_state=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert intrinsic_dimension(X, max_rows=300).scales != first.scales
    assert first.dimension == pytest.approx(2, rel=0.15)


def test_noise_is_seen_at_small_scales():
    """A thick line: three dimensions below the noise, one above it."""
    rng = np.random.default_rng(0)
    line = np.column_stack([np.linspace(0, 100, 1500), np.zeros(1500), np.zeros(1500)])
    X = line + 0.2 * rng.normal(size=line.shape)
    found = intrinsic_dimension(X)
    fine, coarse = found.scales[0][1], found.scales[-1][1]
    assert fine > 1.5
    assert coarse == pytest.approx(1, abs=0.1)


def test_a_changing_dimension_is_not_called_ok():
    """Noise of many dimensions around a curve: the estimate keeps falling with scale."""
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 6, 400)
    X = np.column_stack([np.cos(t), np.sin(t), t, *rng.normal(size=(5, 400)) * 0.12])
    found = intrinsic_dimension(X)
    values = [d for _, d, _ in found.scales]
    spread = [np.ptp(values[i : i + 3]) / values[i + 1] for i in range(len(values) - 2)]
    assert found.verdict == ("ok" if min(spread) <= 0.1 else "cannot tell")
    assert found.verdict == "cannot tell"


def test_scales_fit_the_number_of_rows():
    assert [s for s, _, _ in intrinsic_dimension(cube(1000, 2, 3)).scales] == list(SCALES)
    assert [s for s, _, _ in intrinsic_dimension(cube(20, 2, 3)).scales] == [1, 2, 4, 8]
    assert isinstance(intrinsic_dimension(cube(5, 1, 2)), Dimension)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((50, 3)),
        np.repeat(np.eye(4), 20, axis=0),
        np.eye(4),
        np.zeros((1, 3)),
        np.zeros((0, 3)),
        np.eye(30),
    ],
    ids=["constant", "four values", "four rows", "one row", "no rows", "all equally far"],
)
def test_what_has_no_dimension_is_refused(X):
    with pytest.raises(DataError, match="give latent_dim a number") as caught:
        intrinsic_dimension(X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    X = cube(50, 2, 3)
    X[3, 1] = bad
    with pytest.raises(DataError, match="not finite"):
        intrinsic_dimension(X)


@pytest.mark.parametrize(
    "X", [np.array([["a", "b"]] * 20), np.zeros(20), np.float64(3)], ids=["text", "1-D", "0-D"]
)
def test_what_is_no_data_is_refused(X):
    with pytest.raises(ValueError, match=r"numbers|rows"):
        intrinsic_dimension(X)


@pytest.mark.parametrize(
    "X", [np.random.default_rng(0).integers(0, 3, (300, 4)), np.eye(30) + 1e-3 * np.eye(30)[::-1]]
)
def test_grids_do_not_break_it(X):
    """Ties: neighbors at the same distance say nothing, and are left out."""
    try:
        found = intrinsic_dimension(X)
    except DataError:
        return
    assert math.isfinite(found.dimension)
    assert found.dimension > 0


def test_integers_and_float32():
    X = np.round(1000 * cube(400, 2, 5))
    whole = intrinsic_dimension(X).dimension
    assert intrinsic_dimension(X.astype(np.int16)).dimension == pytest.approx(whole)
    assert intrinsic_dimension(X.astype(np.float32)).dimension == pytest.approx(whole)
    assert intrinsic_dimension(X.tolist()).dimension == pytest.approx(whole)


def test_a_tensor_will_do():
    X = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    expected = intrinsic_dimension(X.numpy().astype(np.float64)).dimension
    assert intrinsic_dimension(X.requires_grad_()).dimension == pytest.approx(expected)
    assert intrinsic_dimension(X.bfloat16()).dimension == pytest.approx(expected, rel=0.2)
