"""Tangent spaces, angles, and what a projection does along and across them, where both are known."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chartae as ct
from chartae.core.errors import DataError
from chartae.geometry import normal_gain, principal_angles, tangent_space


def sphere(n: int, ambient: int, d: int = 2, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d + 1))
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    return np.pad(X, ((0, 0), (0, ambient - d - 1))) + noise * rng.normal(size=(n, ambient))


def tangents(X: np.ndarray) -> np.ndarray:
    """``(n, D, 2)``: of the 2-sphere in the first three features."""
    made = []
    for x in X[:, :3]:
        made.append(np.pad(scipy.linalg.null_space(x[None]), ((0, X.shape[1] - 3), (0, 0))))
    return np.stack(made)


def nearest(x: torch.Tensor) -> torch.Tensor:
    """Of the sphere in the first three features: the projection that is exact, as an encoder."""
    return x[:, :3] / x[:, :3].norm(dim=1, keepdim=True)


def embedded(ambient: int, d: int = 3):
    return lambda z: torch.nn.functional.pad(z, (0, ambient - d))


# --- angles


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_angles_are_those_of_scipy(ambient, a, b, seed):
    rng = np.random.default_rng(seed)
    A, B = (rng.normal(size=(ambient, min(m, ambient))) for m in (a, b))
    expected = np.sort(scipy.linalg.subspace_angles(A, B))
    assert principal_angles(A, B) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-7, 0.3, math.pi / 2 - 1e-9, math.pi / 2])
def test_small_and_right_angles_keep_their_digits(angle):
    A, B = [[1.0], [0.0]], [[math.cos(angle)], [math.sin(angle)]]
    assert principal_angles(A, B)[0] == pytest.approx(angle, rel=1e-6, abs=1e-15)


def test_angles_of_many_at_once():
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 3))
    one = [principal_angles(a, b) for a, b in zip(A, B, strict=True)]
    assert principal_angles(A, B) == pytest.approx(np.stack(one))
    assert principal_angles(B, A) == pytest.approx(np.stack(one))


def test_a_direction_that_is_not_there_is_at_right_angles():
    plane, line = np.eye(4)[:, :2], np.eye(4)[:, [0]]
    twice = np.hstack([line, 1e-9 * plane[:, [1]]])  # a collapsed second axis
    for A, B in ((plane, twice), (twice, plane)):
        assert principal_angles(A, B) == pytest.approx([0, math.pi / 2])
    assert principal_angles(plane, 0 * line) == pytest.approx([math.pi / 2])


def test_columns_of_two_spaces_are_refused():
    with pytest.raises(DataError, match="not in one space"):
        principal_angles(np.eye(3), np.eye(4))


# --- tangent spaces


def test_tangent_spaces_of_a_sphere():
    X = sphere(2000, 20)
    found = tangent_space(X, X[:50])
    assert found.dimension == 2
    assert found.basis.shape == (50, 20, 2)
    assert np.einsum("nij,nik->njk", found.basis, found.basis) == pytest.approx(
        np.tile(np.eye(2), (50, 1, 1)), abs=1e-5
    )
    error = principal_angles(found.basis, tangents(X[:50]))[:, -1]
    assert np.median(error) < math.radians(6)
    assert found.reliable.mean() > 0.9


def test_rows_that_come_many_times_change_nothing():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(200, 6))
    once, often = tangent_space(X, dimension=2), tangent_space(np.repeat(X, 9, 0), dimension=2)
    assert often.n_neighbors == once.n_neighbors
    assert principal_angles(once.basis, often.basis[::9]).max() < 1e-3


def test_more_noise_takes_more_neighbors_and_the_halves_know_the_error():
    """Noise of .02: about 40° off with 10 neighbors, a few with 160."""
    X = sphere(2000, 20, noise=0.02)
    truth = tangents(X[:100])
    few, many, chosen = (tangent_space(X, X[:100], dimension=2, n_neighbors=k) for k in (10, 160, "auto"))
    off = [np.degrees(np.median(principal_angles(t.basis, truth)[:, -1])) for t in (few, many, chosen)]
    assert off[0] > 25
    assert off[1] < 6
    assert off[2] < 10
    assert chosen.n_neighbors >= 32
    assert few.reliable.mean() < 0.1
    assert many.reliable.mean() > 0.9
    # The halves differ by about twice the error of the whole.
    assert np.degrees(np.median(many.angle)) == pytest.approx(2 * off[1], rel=0.5)


def test_noise_has_no_tangent_space():
    X = np.random.default_rng(0).normal(size=(1000, 30))
    assert tangent_space(X, X[:100], dimension=2).reliable.mean() < 0.1


def test_wide_items_and_images():
    """784 features: k × k products in the place of 784 × 784."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(784, 3)))
    X = rng.uniform(size=(800, 3)) @ basis.T
    found = tangent_space(X.reshape(-1, 28, 28), X[:256].reshape(-1, 28, 28), dimension=3)
    assert found.basis.shape == (256, 784, 3)
    assert principal_angles(found.basis, basis[None]).max() < 1e-3
    assert found.reliable.all()


def test_fewer_directions_than_asked_for():
    """A line has no second tangent: what comes back is orthonormal, and not reliable."""
    X = np.linspace(0, 1, 200)[:, None] * np.ones(30)
    found = tangent_space(X, dimension=2, n_neighbors=10)
    assert np.isfinite(found.basis).all()
    assert np.einsum("nij,nik->njk", found.basis, found.basis)[7] == pytest.approx(np.eye(2), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": 9}, "use 1 to 5"),
        ({"dimension": 2, "n_neighbors": 5}, "n_neighbors=6 or more"),
        ({"dimension": 2, "n_neighbors": 500}, "cannot give"),
        ({"at": np.zeros((3, 4))}, "give them as X is"),
        ({"at": np.zeros(5)}, "holds no rows"),
        ({"at": np.full((1, 5), np.nan)}, "not finite"),
    ],
)
def test_what_gives_no_tangent_space_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        tangent_space(np.random.default_rng(0).normal(size=(100, 5)), **change)


# --- retention and normal gain


@pytest.mark.parametrize("ambient", [4, 20, 100])
def test_the_nearest_point_of_a_sphere(ambient):
    """Retention 1, normal gain 0, no angle; tangent spaces are estimated, to a few degrees."""
    found = normal_gain((nearest, embedded(ambient)), sphere(1000, ambient), max_rows=100)
    assert found.dimension == 2
    assert found.retention.mean() == pytest.approx(1, abs=0.02)
    assert found.normal_gain.mean() == pytest.approx(0, abs=0.02)
    assert np.degrees(np.median(found.decoder_angles[:, -1])) < 6
    assert np.degrees(np.median(found.encoder_angles[:, -1])) < 6
    assert found.reliable.mean() > 0.9


@pytest.mark.parametrize("ambient", [4, 10, 60])
def test_an_oblique_encoder_reads_one_in_any_number_of_features(ambient):
    """Rows at 45° to the plane: what they take from normal directions is as large as from tangent ones."""
    X = np.pad(np.random.default_rng(0).uniform(size=(500, 2)), ((0, 0), (0, ambient - 2)))
    pair = (lambda x: x[:, :2] + x[:, 2:4], embedded(ambient, 2))
    found = normal_gain(pair, X, dimension=2, max_rows=20)
    assert found.retention == pytest.approx(np.ones(20), abs=1e-4)
    assert found.normal_gain == pytest.approx(np.ones(20), abs=1e-4)
    assert found.encoder_angles == pytest.approx(np.full((20, 2), math.pi / 4), abs=1e-4)
    assert found.decoder_angles == pytest.approx(np.zeros((20, 2)), abs=1e-3)


def test_the_identity_removes_nothing():
    X = sphere(800, 10)
    found = normal_gain((lambda x: x, lambda z: z), X, dimension=2, max_rows=20)
    assert found.retention == pytest.approx(np.ones(20), abs=1e-5)
    assert found.normal_gain == pytest.approx(np.full(20, (10 - 2) / 2), abs=1e-4)


def test_a_wider_code_is_asked_whether_it_contains_the_tangents():
    """d = 4 over a plane: two of the decoder's columns leave it, and the plane is still within their span."""
    mix = torch.tensor([[1.0, 0, 3, 0, 0], [0, 1, 0, 2, 0], [0, 0, 5, 0, 0], [0, 0, 0, 5, 0]])
    X = np.pad(np.random.default_rng(0).uniform(size=(300, 2)), ((0, 0), (0, 3)))
    found = normal_gain((lambda x: x[:, :4], lambda z: z @ mix), X, dimension=2, max_rows=10)
    assert found.decoder_angles.shape == (10, 2)
    assert found.decoder_angles.max() < 1e-3


def test_a_lost_direction_is_seen():
    """d = 1 over a plane, and a decoder whose second axis has collapsed: half of it is retained."""
    X = np.pad(np.random.default_rng(0).uniform(size=(300, 2)), ((0, 0), (0, 3)))
    thin = normal_gain((lambda x: x[:, :1], embedded(5, 1)), X, dimension=2, max_rows=10)
    assert thin.retention == pytest.approx(np.full(10, 0.5), abs=1e-4)
    assert thin.decoder_angles.shape == (10, 1)
    weak = torch.tensor([1.0, 1e-5])
    flat = normal_gain((lambda x: x[:, :2], lambda z: embedded(5, 2)(z * weak)), X, dimension=2, max_rows=10)
    assert flat.decoder_angles == pytest.approx(np.tile([0, math.pi / 2], (10, 1)), abs=1e-3)


def test_the_trace_formulas_are_those_of_the_whole_jacobian():
    """Against J_P as one matrix, by automatic differentiation of D∘E."""
    torch.manual_seed(0)
    encode = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
    decode = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).eval()
    X = sphere(400, 6, seed=1).astype(np.float32)
    found = normal_gain((encode, decode), X, dimension=2, n_neighbors=20, max_rows=5)
    T = tangent_space(X, X[found.rows], dimension=2, n_neighbors=20).basis
    for i, row in enumerate(found.rows):
        J = torch.func.jacrev(lambda h: decode(encode(h)))(torch.from_numpy(X[row])).detach().numpy()
        assert found.retention[i] == pytest.approx(np.trace(T[i].T @ J @ T[i]) / 2, abs=1e-5)
        rest = (np.square(J).sum() - np.square(J @ T[i]).sum()) / 2
        assert found.normal_gain[i] == pytest.approx(rest, abs=1e-5)


def test_a_fitted_estimator_with_a_condition():
    X = sphere(200, 6, noise=0.01)
    y = (X[:, 0] > 0).astype(int)
    model = ct.CVAE(latent_dim=2, max_epochs=2, random_state=0).fit(X, y)
    found = normal_gain(model, X, condition=y, max_rows=30)
    assert found.retention.shape == found.normal_gain.shape == (30,)
    assert np.isfinite(found.retention).all()
