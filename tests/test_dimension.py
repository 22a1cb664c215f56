"""Intrinsic dimension: of manifolds where it is known, in any units, and where it cannot be read."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import make_s_curve, make_swiss_roll

from chartae import intrinsic_dimension
from chartae.core.errors import DataError
from chartae.geometry.dimension import SCALES, Dimension, _sphere


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
    """Within 15 %: edges bias it, more the larger d is."""
    found = intrinsic_dimension(X)
    assert found.dimension == pytest.approx(d, rel=0.15)
    assert found.verdict == "ok"
    low, high = found.interval
    assert low < found.dimension < high
    assert high - low < 0.5 * d


def rotated(X: np.ndarray, noise: float, seed: int, ambient: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(ambient, X.shape[1])))
    return X @ basis.T + noise * rng.normal(size=(len(X), ambient))


def torus(n: int, seed: int) -> np.ndarray:
    """Uniform by area, radii 1 and 0.4."""
    rng = np.random.default_rng(seed)
    u, v, w = rng.uniform(0, 2 * math.pi, size=(3, 3 * n))
    u, v = (a[w < 2 * math.pi * (1 + 0.4 * np.cos(v)) / 1.4][:n] for a in (u, v))
    tube = 1 + 0.4 * np.cos(v)
    return np.column_stack([tube * np.cos(u), tube * np.sin(u), 0.4 * np.sin(v)])


def moebius(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    u, v = rng.uniform(0, 2 * math.pi, n), rng.uniform(-0.5, 0.5, n)
    tube = 1 + v * np.cos(u / 2)
    return np.column_stack([tube * np.cos(u), tube * np.sin(u), v * np.sin(u / 2)])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("make", "d"),
    [
        (lambda seed: sphere(2000, 2, seed), 2),
        (lambda seed: torus(2000, seed), 2),
        (lambda seed: make_swiss_roll(2000, random_state=seed)[0] / 10, 2),
        (lambda seed: moebius(2000, seed), 2),
        (lambda seed: sphere(2000, 5, seed), 5),
        (lambda seed: sphere(5000, 10, seed), 10),
    ],
    ids=["sphere", "torus", "swiss roll", "Möbius band", "5-sphere", "10-sphere"],
)
def test_noise_is_never_taken_for_dimensions(make, d, seed):
    """In 50 features: within 10 % without noise, and with noise within 15 % or "cannot tell"."""
    found = intrinsic_dimension(rotated(make(seed), 0, seed))
    assert found.verdict == "ok"
    assert found.dimension == pytest.approx(d, rel=0.1)
    assert abs(found.local_pca - d) <= 1
    for noise in (0.005, 0.02, 0.05):
        found = intrinsic_dimension(rotated(make(seed), noise, seed))
        assert found.verdict == "cannot tell" or found.dimension == pytest.approx(d, rel=0.15)


@pytest.mark.parametrize("d", [3, 10, 20])
def test_data_without_a_smaller_manifold_have_all_dimensions(d):
    found = intrinsic_dimension(np.random.default_rng(d).normal(size=(2000, d)))
    assert found.verdict == "ok"
    assert found.dimension == pytest.approx(d, rel=0.08)
    assert found.local_pca == d


def test_a_sphere_reads_its_dimension_at_every_scale():
    """Without the correction the largest scale of the 20-sphere reads 13. A cap's volume is summed here."""
    found = intrinsic_dimension(sphere(2000, 20))
    assert [d for _, d, _ in found.scales] == pytest.approx([20] * 7, rel=0.1)
    assert found.plain[-1] < 14
    assert found.twonn < 18
    angle = np.linspace(1e-9, 1.6, 200_001)  # the volume of a cap is the integral of sin^(d-1)
    volume = np.cumsum(np.sin(angle) ** 19)
    growth = np.gradient(np.log(volume[1000:]), np.log(2 * np.sin(angle[1000:] / 2)))
    whole = np.trapezoid(np.sin(np.linspace(0, math.pi, 200_001)) ** 19, dx=math.pi / 200_000)
    share = volume[1000:] * (angle[1] - angle[0]) / whole
    for wanted in (1e-3, 1e-2, 0.1):
        assert _sphere(20, wanted) == pytest.approx(np.interp(wanted, share, growth), rel=1e-3)


@pytest.mark.parametrize("n", [120, 129, 150, 200, 260])
def test_the_number_of_rows_does_not_change_what_is_read(n):
    """The farthest neighbor that is looked at is not the farthest row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 8)) @ np.linalg.qr(rng.normal(size=(30, 8)))[0].T
    assert 5.5 < intrinsic_dimension(X).dimension < 9


def test_a_few_near_duplicates_do_not_matter():
    X = sphere(1000, 2)
    copies = X[:100] + 1e-7 * np.random.default_rng(0).normal(size=(100, 3))
    found = intrinsic_dimension(np.concatenate([X, copies]))
    assert found.verdict == "ok"
    assert found.dimension == pytest.approx(2, rel=0.05)


def test_the_interval_covers_the_truth():
    """A flat torus has no edge and no curvature that matters: 95 % intervals of 60 samples, at two scales.

    By chance alone 51 or fewer of 60 would cover once in 700 runs.
    """
    covered = np.zeros(2, dtype=int)
    for seed in range(60):
        angles = np.random.default_rng(seed).uniform(0, 2 * math.pi, size=(500, 2))
        X = np.column_stack([np.cos(angles), np.sin(angles)])
        scales = intrinsic_dimension(X).scales
        covered += [abs(d - 2) < 1.96 * error for _, d, error in (scales[0], scales[2])]
    assert (covered >= 51).all()


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
    X = cube(6000, 2, 5)
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
    assert values[0] > 1.5 * values[-1]
    assert found.verdict == "cannot tell"
    assert found.interval[0] < values[-1] < values[0] < found.interval[1]


def test_scales_fit_the_number_of_rows():
    assert [s for s, _, _ in intrinsic_dimension(cube(1000, 2, 3)).scales] == list(SCALES)
    assert [s for s, _, _ in intrinsic_dimension(cube(20, 2, 3)).scales] == [1, 2, 4]
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
