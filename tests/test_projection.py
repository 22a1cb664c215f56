"""Projections: exact ones, how far off items are, and what becomes of noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chartae as ct
from chartae.core.errors import DataError, PlanError
from chartae.geometry import code_shift, noise_gain, off_manifold_score, project


def plane(ambient: int, d: int, seed: int = 0):
    """The orthogonal projection onto a random d-plane, and a function that draws from the plane."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(ambient, d)))
    B = torch.from_numpy(basis.astype(np.float32))
    return (lambda x: x @ B, lambda z: z @ B.T), lambda n, rng: rng.normal(size=(n, d)) @ basis.T


def sphere_pair(ambient: int):
    return (
        lambda x: x[:, :3] / x[:, :3].norm(dim=1, keepdim=True),
        lambda z: torch.nn.functional.pad(z, (0, ambient - 3)),
    )


identity = (lambda x: x, lambda z: z)


# --- project


@settings(max_examples=20)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 1000))
def test_an_orthogonal_projection_rests_at_once(ambient, d, seed):
    pair, _ = plane(ambient, min(d, ambient - 1), seed)
    X = np.random.default_rng(seed).normal(size=(5, ambient))
    once = project(pair, X)
    assert (once.iterations == 1).all()
    off = np.linalg.norm(once.items - X, axis=1)
    assert once.residual == pytest.approx(off, rel=1e-4, abs=1e-5)
    rest = project(pair, X, iterations=None)
    assert rest.converged.all()
    assert (rest.iterations <= 2).all()
    assert rest.items == pytest.approx(once.items, abs=1e-4)


def test_each_item_stops_when_it_rests():
    """x → x · h(row): rows that halve take ten steps to a thousandth; the one that rests takes one."""
    pair = (lambda x: x, lambda z: torch.cat([z[:, :1] * z[:, 1:], z[:, 1:]], 1))
    found = project(pair, [[8.0, 0.5], [8.0, 1.0], [8.0, 0.1]], iterations=None, tolerance=1e-3)
    assert found.converged.all()
    assert found.iterations.tolist() == [11, 1, 4]
    assert found.items[1, 0] == 8
    assert found.residual[0] == pytest.approx(8 * 0.5**11, rel=1e-3)
    limited = project(pair, [[8.0, 0.5], [8.0, 1.0]], iterations=None, max_iterations=4)
    assert limited.converged.tolist() == [False, True]
    assert limited.iterations.tolist() == [4, 1]


def test_given_numbers_of_iterations_are_done():
    pair = (lambda x: x, lambda z: z / 2)
    found = project(pair, [[8.0]], iterations=3)
    assert found.items.tolist() == [[1.0]]
    assert found.iterations.tolist() == [3]
    assert found.residual.tolist() == [1.0]
    assert not found.converged.any()
    with pytest.raises(PlanError, match="1 or more"):
        project(pair, [[8.0]], iterations=0)


def test_what_the_user_handed_in_stays():
    X = torch.full((2, 2), 8.0)
    project((lambda x: x, lambda z: z / 2), X, iterations=5)
    assert (X == 8).all()


def test_a_fitted_estimator_projects_in_its_layout():
    X = np.random.default_rng(0).uniform(size=(60, 4, 4))
    model = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    assert project(model, X, iterations=2).items.shape == (60, 4, 4)


# --- off the manifold


@pytest.mark.parametrize("local", [False, True])
def test_p_values_of_the_same_kind_are_uniform(local):
    """Share of p ≤ α over 200 draws of 59 held-out and 40 further items.

    Items of a draw share their held-out ones: its share of a draw has a variance of α(1 − α) · (1/40 + 1/31)
    or less, with the half of 59 that ranks. The bar is four standard errors above α, which is passed by
    chance once in 30,000 runs.
    """
    pair, draw = plane(8, 2)
    rng = np.random.default_rng(0)
    alphas = np.array([0.02, 0.1, 0.5])
    shares = []
    for _ in range(200):
        made = draw(99, rng)
        X = made + rng.normal(size=(99, 8)) * np.exp(made[:, :1])  # noise that depends on where it is
        found = off_manifold_score(pair, X[:40], reference=X[40:], local=local, n_neighbors=10)
        shares.append((found.p_value[:, None] <= alphas).mean(0))
    error = np.sqrt(alphas * (1 - alphas) * (1 / 40 + 1 / 31) / 200)
    assert (np.mean(shares, axis=0) <= alphas + 4 * error).all()
    # Up to the steps of 1 / (m + 1) it is not below either.
    assert (np.mean(shares, axis=0) >= alphas - 4 * error - 1 / 31).all()


def test_ties_do_not_make_p_values_small():
    """Items on the manifold, all with residual zero, are as near as can be: p = 1."""
    pair, draw = plane(5, 2)
    found = off_manifold_score(identity, draw(10, np.random.default_rng(0)), reference=np.zeros((50, 5)))
    assert (found.p_value == 1).all()
    assert pair is not None


def test_what_is_off_is_found_and_the_score_is_the_distance():
    pair, draw = plane(8, 2)
    rng = np.random.default_rng(0)
    held = draw(200, rng) + 0.1 * rng.normal(size=(200, 8))
    X = draw(30, rng)
    normal = rng.normal(size=(30, 8))
    normal -= project(pair, normal).items
    X = X + 2 * normal / np.linalg.norm(normal, axis=1, keepdims=True)
    for local in (False, True):
        found = off_manifold_score(pair, X, reference=held, local=local)
        assert (found.p_value <= 1 / (len(found.reference) + 1)).all()
    assert off_manifold_score(pair, X, reference=held).score == pytest.approx(np.full(30, 2), rel=1e-4)


def test_a_local_scale_finds_what_is_off_where_noise_is_small():
    pair, _ = plane(6, 1)
    basis = pair[1](torch.ones(1, 1)).numpy()[0]
    rng = np.random.default_rng(0)

    def draw(n):
        t = rng.choice([-1, 1], n)[:, None] + 0.1 * rng.normal(size=(n, 1))
        return t * basis + np.where(t > 0, 1, 0.01) * rng.normal(size=(n, 6))

    held = draw(600)
    odd = -basis + 0.2 * rng.normal(size=(40, 6))  # twenty times the noise there, and less than elsewhere
    assert np.median(off_manifold_score(pair, odd, reference=held).p_value) > 0.3
    # Some of them are encoded as of the other side, where so much is usual.
    assert np.mean(off_manifold_score(pair, odd, reference=held, local=True).p_value < 0.05) > 0.9


def test_too_few_held_out_items_are_refused():
    with pytest.raises(DataError, match="give 40 or more"):
        off_manifold_score(identity, np.zeros((3, 2)), reference=np.zeros((39, 2)), local=True)


# --- noise


@pytest.mark.parametrize(("ambient", "d"), [(10, 2), (30, 5)])
def test_an_orthogonal_projection_passes_its_share(ambient, d):
    pair, draw = plane(ambient, d)
    found = noise_gain(pair, draw(500, np.random.default_rng(0)))
    assert found.levels.shape == found.gain.shape == (5,)
    assert (np.abs(found.gain - d / ambient) < 4 * found.error).all()
    assert found.error.max() < 0.03 * d / ambient
    assert noise_gain(identity, draw(500, np.random.default_rng(0)), [0.3]).gain == pytest.approx(1, abs=0.03)


def test_the_gain_of_a_sphere():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    X = np.pad(X / np.linalg.norm(X, axis=1, keepdims=True), ((0, 0), (0, 17)))
    assert noise_gain(sphere_pair(20), X, [0.01]).gain == pytest.approx([2 / 20], rel=0.05)


def test_normal_moves_collapse_and_tangential_ones_do_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3))
    X = np.pad(X / np.linalg.norm(X, axis=1, keepdims=True), ((0, 0), (0, 9)))
    found = code_shift(sphere_pair(12), X, [0.01, 0.1], dimension=2, max_rows=100)
    assert found.normal.shape == found.tangential.shape == (2, 100)
    assert (found.ratio < 0.1).all()
    # A sphere's axes each have a standard deviation of 1/√3.
    assert np.median(found.tangential[0]) == pytest.approx(0.01 * math.sqrt(3), rel=0.1)
    same = code_shift(identity, X, [0.1], dimension=2, max_rows=100)
    assert same.ratio > 0.5  # axes of the data without spread count as one of the largest


def test_an_oblique_encoder_does_not_collapse():
    rng = np.random.default_rng(0)
    X = np.pad(rng.normal(size=(500, 2)), ((0, 0), (0, 2)))
    pair = (lambda x: x[:, :2] + x[:, 2:], lambda z: torch.nn.functional.pad(z, (0, 2)))
    assert code_shift(pair, X, [0.1, 1.0], dimension=2).ratio == pytest.approx([1, 1], rel=0.1)


@pytest.mark.parametrize("levels", [[], [0.0], [-1.0, 1.0]])
def test_levels_that_are_none_are_refused(levels):
    for f in (noise_gain, code_shift):
        with pytest.raises(PlanError, match="above zero"):
            f(identity, np.random.default_rng(0).normal(size=(50, 3)), levels)


def test_data_that_fill_their_space_have_no_normal():
    with pytest.raises(DataError, match="nothing is normal"):
        code_shift(identity, np.random.default_rng(0).normal(size=(200, 3)), dimension=3)


@pytest.mark.parametrize(("rows", "told"), [([[np.nan, 0.0]], "row 0"), (np.zeros((0, 2)), "no items")])
def test_items_that_are_none_have_no_score(rows, told):
    line = (lambda x: x[:, :1], lambda z: torch.cat([z, 0 * z], 1))
    with pytest.raises(DataError, match=told):
        off_manifold_score(line, rows, reference=np.ones((99, 2)))
