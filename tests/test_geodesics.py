"""Geodesics against surfaces whose shortest paths are known, and paths that keep to where codes are."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import chartae as ct
from chartae.core.errors import DataError, PlanError
from chartae.geometry import distance, geodesic, interpolate, off_support, round_trip
from chartae.geometry.charts import chart_of
from chartae.geometry.neighbors import distinct
from chartae.geometry.paths import RIDGE, Energy, Rarity, _descend, _GaussNewton


def nowhere(x):
    raise AssertionError("geodesics need no encoder")


def sphere(z):
    """Longitude and latitude."""
    return torch.stack([z[:, 0].cos() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].cos(), z[:, 1].sin()], 1)


def torus(z):
    ring = 2 + z[:, 1].cos()
    return torch.stack([ring * z[:, 0].cos(), ring * z[:, 0].sin(), z[:, 1].sin()], 1)


def flat(ambient: int, d: int, seed: int = 0):
    A = torch.from_numpy(np.random.default_rng(seed).normal(size=(d, ambient)).astype(np.float32))
    return lambda z: z @ A


def net(d: int, seed: int, width: int = 32, ambient: int = 12):
    """A random network with ReLUs."""
    rng = np.random.default_rng(seed)
    sizes = [d, width, width, ambient]
    W = [
        torch.from_numpy((rng.normal(size=(a, b)) * np.sqrt(2 / a)).astype(np.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return lambda z: torch.relu(torch.relu(z @ W[0] + 0.5) @ W[1]) @ W[2]


def annulus(n: int = 1000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.8, 1.2, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def energy_of(decode, path: np.ndarray) -> np.ndarray:
    m, k, d = path.shape
    x = decode(torch.from_numpy(path.reshape(-1, d)).float()).double().numpy().reshape(m, k, -1)
    return (k - 1) * np.square(np.diff(x, axis=1)).sum((1, 2))


def line(a: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    return a[:, None] + np.linspace(0, 1, k)[:, None] * (b - a)[:, None]


# --- surfaces whose geodesics are known


def test_a_quarter_of_a_parallel():
    north = np.pi / 3
    path = geodesic((nowhere, sphere), [[0, north]], [[np.pi / 2, north]])
    assert path.converged.all()
    assert path.length == pytest.approx(0.7227, rel=0.01)
    assert path.ratio == pytest.approx(1.0867, rel=0.01)
    assert path.energy == pytest.approx(path.length**2, rel=1e-3)  # constant speed
    assert path.codes[0, 8, 1] > north  # toward the pole


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_great_circles(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform([-1, -1], [1, 1], (2, 8, 2))
    path = geodesic((nowhere, sphere), a, b)
    x, y = sphere(torch.from_numpy(a)).numpy(), sphere(torch.from_numpy(b)).numpy()
    angle = np.arccos(np.clip((x * y).sum(1), -1, 1))
    assert path.converged.all()
    assert path.length == pytest.approx(angle, rel=0.01, abs=1e-5)
    # Every knot is on the plane of its great circle.
    on = sphere(torch.from_numpy(path.codes.reshape(-1, 2))).numpy().reshape(8, -1, 3)
    off = np.abs(np.einsum("mki,mi->mk", on, np.cross(x, y)))
    assert off.max() < 0.02


@settings(max_examples=10)
@given(st.floats(0.2, 1.3), st.floats(-1.0, 1.0))
def test_geodesics_of_a_torus(heading, start):
    """Shoot a geodesic by its differential equation (Clairaut), and find it again from its ends."""

    def moves(t, s):
        _, v, du, dv = s
        ring = 2 + np.cos(v)
        return [du, dv, 2 * np.sin(v) / ring * du * dv, -ring * np.sin(v) * du * du]

    speed = [np.cos(heading) / (2 + np.cos(start)), np.sin(heading)]
    shot = solve_ivp(moves, (0, 1.5), [0, start, *speed], rtol=1e-10, atol=1e-10)
    found = geodesic((nowhere, torus), [[0, start]], shot.y[None, :2, -1], knots=33, tolerance=1e-6)
    assert found.converged.all()
    assert found.length == pytest.approx(1.5, rel=0.01)


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(3, 30), st.integers(0, 10**6))
def test_planes_have_straight_geodesics(d, knots, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 4, d)).astype(np.float32).astype(float)
    decode = flat(9, d, seed)
    path = geodesic((nowhere, decode), a, b, knots=knots)
    scale = np.abs(b - a).max()
    assert path.codes == pytest.approx(line(a, b, knots), abs=1e-3 * scale)
    assert path.length == pytest.approx(
        np.linalg.norm((decode(torch.from_numpy(b - a).float())), axis=1), rel=1e-4
    )
    assert path.ratio == pytest.approx(1, abs=1e-4)
    assert path.converged.all()


def test_a_stretched_line_is_walked_at_constant_speed():
    pair = (nowhere, lambda z: z.square())
    path = geodesic(pair, [[0.0]], [[1.0]], tolerance=1e-8)
    assert np.diff(path.codes[0, :, 0] ** 2) == pytest.approx(1 / 16, rel=0.02)
    five = interpolate(pair, [0.0], [1.0], 5, path="geodesic")
    assert five[:, 0] == pytest.approx(np.sqrt(np.linspace(0, 1, 5)), abs=0.01)


# --- what holds for any decoder


@settings(max_examples=10)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_energy_is_never_above_the_straight_line_s(d, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 6, d)).astype(np.float32).astype(float)
    decode = net(d, seed)
    path = geodesic((nowhere, decode), a, b)
    assert path.codes[:, 0] == pytest.approx(a)
    assert path.codes[:, -1] == pytest.approx(b)
    found = energy_of(decode, path.codes)
    assert (found <= energy_of(decode, line(a, b, 17)) * (1 + 1e-6)).all()
    assert path.energy == pytest.approx(found, rel=1e-4)
    assert path.converged.all()


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_the_way_back_is_the_same_way(d, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 5, d))
    decode = net(d, seed)
    there, back = geodesic((nowhere, decode), a, b), geodesic((nowhere, decode), b, a)
    np.testing.assert_array_equal(there.codes, back.codes[:, ::-1])
    np.testing.assert_array_equal(there.length, back.length)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_rotating_the_data_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (2, 5, 2))
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32))
    plain = geodesic((nowhere, torus), a, b)
    turned = geodesic((nowhere, lambda z: torus(z) @ Q + 1), a, b)
    assert turned.length == pytest.approx(plain.length, rel=1e-3)
    assert turned.codes == pytest.approx(plain.codes, abs=0.02)


def test_pairs_do_not_depend_on_each_other():
    a, b = np.random.default_rng(0).normal(size=(2, 40, 3))
    decode = net(3, 0)
    together = geodesic((nowhere, decode), a, b)
    alone = geodesic((nowhere, decode), a[7:8], b[7:8])
    assert alone.length == pytest.approx(together.length[7:8], rel=1e-3)


def test_the_same_code_twice_and_a_constant_decoder():
    path = geodesic((nowhere, sphere), [[0.3, 0.2]], [[0.3, 0.2]])
    assert path.length[0] == 0
    assert path.ratio[0] == 1
    assert path.converged.all()
    bias = torch.ones(4, requires_grad=True)
    for constant in (lambda z: z.new_ones(len(z), 4), lambda z: bias + z.new_zeros(len(z), 1)):
        still = geodesic((nowhere, constant), [[0.0, 0.0]], [[1.0, 1.0]])
        assert still.length[0] == 0
        assert still.converged.all()
    assert interpolate(
        (nowhere, torch.zeros_like), [0.0], [1.0], 3, path="geodesic"
    ).ravel() == pytest.approx([0, 0.5, 1])


def test_a_decoder_may_change_its_input_in_place():
    found = geodesic((nowhere, lambda z: z.mul_(2)), [[0.0, 0.0]], [[3.0, 4.0]])
    assert found.length == pytest.approx([10.0])


def test_gradients_are_taken_whatever_mode_the_caller_is_in():
    a, b = [[0.0, np.pi / 3]], [[np.pi / 2, np.pi / 3]]
    plain = geodesic((nowhere, sphere), a, b)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert geodesic((nowhere, sphere), a, b).length == pytest.approx(plain.length)
    for cut in (lambda z: sphere(z).detach(), torch.no_grad()(sphere)):
        with pytest.raises(DataError, match="cuts gradients"):
            geodesic((nowhere, cut), a, b)


def test_a_step_into_values_that_are_no_numbers_is_shortened():
    def decode(z):  # a bump to walk around, and nothing beyond
        height = 2 * (-4 * z.square().sum(1, keepdim=True)).exp()
        return torch.cat([z, torch.where(z[:, 1:].abs() < 0.9, height, torch.nan)], 1)

    found = geodesic((nowhere, decode), [[-1.0, 0.05]], [[1.0, 0.05]])
    assert found.converged.all()
    assert found.length[0] < found.straight[0] - 0.5
    assert np.isfinite(found.codes).all()


def test_few_iterations_do_not_claim_to_have_converged():
    north = 1.4
    path = geodesic((nowhere, sphere), [[0, north]], [[2.5, north]], max_iterations=1, tolerance=1e-9)
    assert not path.converged.any()


def test_distances_are_the_lengths():
    a, b = np.random.default_rng(0).uniform(-1, 1, (2, 5, 2))
    np.testing.assert_array_equal(distance((nowhere, sphere), a, b), geodesic((nowhere, sphere), a, b).length)


def test_a_condition_may_have_several_axes():
    maps = (nowhere, lambda z, c: (c @ torch.cat([z, z.square()], 1)[..., None])[..., 0])
    alike = (nowhere, lambda z: torch.cat([2 * z, 3 * z.square()], 1))
    path = interpolate(maps, [0.0], [1.0], 5, path="geodesic", condition=[[[2.0, 0.0], [0.0, 3.0]]])
    np.testing.assert_allclose(path, interpolate(alike, [0.0], [1.0], 5, path="geodesic"), atol=1e-4)


def test_conditions_choose_the_map():
    def decode(z, c):
        return torch.cat([z * c, z.square()], 1)

    pair = (nowhere, decode)
    found = geodesic(pair, [[-1.0], [-1.0]], [[1.0], [1.0]], condition=[[1.0], [3.0]], tolerance=1e-7)
    t = np.linspace(-1, 1, 10001)
    for length, c in zip(found.length, (1.0, 3.0), strict=True):
        assert length == pytest.approx(np.hypot(c * np.diff(t), np.diff(t**2)).sum(), rel=0.01)


# --- where codes are


@pytest.mark.parametrize("seed", range(3))
def test_a_weighted_path_goes_around_a_hole_and_a_plain_one_through(seed):
    codes, pair = annulus(seed=seed), (nowhere, flat(5, 2, seed))
    ends = [[-1.0, 0.05]], [[1.0, 0.05]]
    plain = geodesic(pair, *ends, codes=codes)
    kept = geodesic(pair, *ends, codes=codes, density_weight=10)
    assert np.linalg.norm(plain.codes[0], axis=1).min() < 0.1
    assert np.linalg.norm(kept.codes[0], axis=1).min() > 0.7
    assert kept.converged.all()
    assert off_support(plain.codes, codes) > 0.5
    assert off_support(kept.codes, codes) < 0.1
    assert kept.length > plain.length


def test_copies_of_codes_change_no_path():
    codes, pair = annulus(n=200), (nowhere, flat(5, 2, 0))
    ends = [[-1.0, 0.05]], [[1.0, 0.05]]
    # As an encoder gives them, whose rounding depends on the batch.
    often = np.repeat(codes, 20, 0) + np.random.default_rng(0).uniform(-1e-7, 1e-7, (4000, 2))
    once, many = (geodesic(pair, *ends, codes=c, density_weight=1) for c in (codes, often))
    assert many.converged.all()
    assert many.energy == pytest.approx(once.energy, rel=0.02)
    np.testing.assert_allclose(many.codes, once.codes, atol=0.05)
    assert off_support(codes[::2], often) < 0.1
    alone = geodesic(pair, *ends, codes=np.zeros((9, 2)), density_weight=1)
    np.testing.assert_array_equal(alone.codes, geodesic(pair, *ends).codes)


def test_where_codes_are_rare_does_not_depend_on_where_zero_is():
    codes, at = (1e-4 * np.random.default_rng(i).normal(size=(100, 2)) for i in range(2))
    for near, far in zip(*(Rarity(codes + o, 1.0)(torch.from_numpy(at + o)) for o in (0, 1e3)), strict=True):
        torch.testing.assert_close(far, near, rtol=1e-5, atol=1e-5 * float(near.abs().max()))


def test_the_graph_finds_the_way_that_a_straight_line_does_not():
    """The decoder lifts a wall between two arms, and codes know the way around it."""

    def wall(z):
        return torch.cat([z, 8 * torch.exp(-4 * z[:, :1].square()) * torch.sigmoid(8 * (1 - z[:, 1:]))], 1)

    grid = np.random.default_rng(0).uniform([-1.5, -1], [1.5, 2.5], (1500, 2))
    pair, ends = (nowhere, wall), ([[-1.3, -0.5]], [[1.3, -0.5]])
    alone = geodesic(pair, *ends, knots=33)
    led = geodesic(pair, *ends, codes=grid, knots=33)
    # Between its knots as well: alone, they step over the wall.
    between = [np.concatenate(line(p.codes[0, :-1], p.codes[0, 1:], 20))[None] for p in (led, alone)]
    led_length, alone_length = (np.sqrt(energy_of(wall, c)) for c in between)
    assert led_length < 0.7 * alone_length
    assert led.codes[0, :, 1].max() > 1  # past the end of the wall


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([0.0, 3.0]))
def test_the_gradient_is_the_energy_s_slope(d, seed, weight):
    rng = np.random.default_rng(seed)
    path = torch.from_numpy(line(*rng.normal(size=(2, 3, d)), 6))
    support = Rarity(rng.normal(size=(100, d)), weight) if weight else None
    task = Energy(chart_of((nowhere, flat(7, d, seed))), None, support, path[:, [0, -1]])
    pairs = torch.arange(3)
    energy, squares, gradient = task.slope(path, pairs)
    for found, expected in zip((energy, squares), task.energy(path, pairs), strict=True):
        torch.testing.assert_close(found, expected)
    move = torch.from_numpy(rng.normal(size=gradient.shape))
    ahead, behind = path.clone(), path.clone()
    ahead[:, 1:-1] += 1e-3 * move
    behind[:, 1:-1] -= 1e-3 * move
    slope = (task.energy(ahead, pairs)[0] - task.energy(behind, pairs)[0]) / 2e-3
    torch.testing.assert_close(slope, (gradient * move).sum((1, 2)), rtol=2e-2, atol=0.2)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(3, 9), st.integers(0, 10**6))
def test_the_gauss_newton_matrix_is_that_of_the_segments(d, knots, seed):
    """On a plane it is the Hessian, but for the ridge: of all differences of neighbors, block tridiagonal."""
    G = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, d, d)))
    G = G @ G.mT + torch.eye(d)
    g = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(5, knots - 2, d)))
    found = _GaussNewton(G[:, None, :, None].expand(5, 3, d, 3, d), knots)
    mean = G.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(d)
    differences = torch.diff(torch.eye(knots, dtype=torch.float64), dim=0)[:, 1:-1]
    stiff, here = differences.T @ differences, torch.eye(knots - 2, dtype=torch.float64)
    each = [
        torch.kron(stiff, M + RIDGE[1] * r) + 2 * RIDGE[0] * torch.kron(here, r)
        for M, r in zip(G, mean, strict=True)
    ]
    H = 2 * (knots - 1) * torch.stack(each)
    found.only(torch.tensor([3, 1]))
    x = found.solve(g[[3, 1], ..., None])
    torch.testing.assert_close((H[[3, 1]] @ x.reshape(2, -1, 1))[..., 0], g[[3, 1]].reshape(2, -1))


def gap(decode, a, b, **more) -> np.ndarray:
    """By which share of it energy is above that of the least that a small tolerance finds from there."""
    found = geodesic((nowhere, decode), a, b, **more)
    assert found.converged.all()
    path = torch.from_numpy(found.codes)
    task, pairs = Energy(chart_of((nowhere, decode)), None, None, path[:, [0, -1]]), torch.arange(len(path))
    for _ in range(4):
        path, least = _descend(task, path, pairs, task.gram(path, pairs), 100, 1e-9)[:2]
    return found.energy / least.numpy() - 1


@pytest.mark.parametrize("decode", [sphere, torus, net(2, 0), net(2, 1)])
def test_energy_is_near_the_least_at_the_default_tolerance(decode):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 1, (2, 30, 2))
    above = gap(decode, a, b)
    assert above.mean() < 5e-4
    assert above.max() < 3e-3
    assert gap(decode, a, b, tolerance=1e-6).max() < 1e-4


def test_what_is_not_finite_has_not_converged():
    def log(z):
        return torch.cat([z, z[:, :1].log()], 1)

    path = geodesic((nowhere, log), [[-1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [2.0, 1.0]])
    assert path.converged.tolist() == [False, True]
    assert np.isfinite(path.codes).all()


def test_off_support_is_about_a_hundredth_for_codes_themselves():
    rng = np.random.default_rng(0)
    codes, fresh = rng.normal(size=(4000, 3)), rng.normal(size=(20, 200, 3))
    assert np.mean(off_support(fresh, codes)) == pytest.approx(0.01, abs=0.008)
    assert np.mean(off_support(fresh, codes, held_out=rng.normal(size=(2000, 3)))) == pytest.approx(
        0.01, abs=0.008
    )
    assert off_support(np.full((4, 3), 9.0), codes) == 1.0
    assert off_support(fresh, codes).shape == (20,)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e30])
def test_an_outlier_makes_no_copies_of_other_codes(far):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(1000, 3))
    codes[5, 0] = far
    constant = np.column_stack([codes, np.full(1000, 3.0)])
    constant[7, 3] = -far  # a dimension that is constant but for a row
    for Z in (codes, constant):
        assert len(distinct(Z)) == 1000
        often = np.repeat(Z, 3, 0)
        often *= 1 + rng.uniform(-1e-7, 1e-7, often.shape)  # as rounding to float32 changes them
        assert 1000 <= len(distinct(often)) < 1050
    assert off_support(codes[:20], codes) < 0.2


def test_codes_that_are_copies_of_one_but_for_a_few():
    rng = np.random.default_rng(0)
    codes = np.repeat([[0.5, 0.0]], 1000, 0)
    codes[:20] = rng.normal(size=(20, 2))
    assert len(distinct(codes)) == 21
    assert len(distinct(codes + rng.uniform(-3e-8, 3e-8, codes.shape))) < 30
    assert len(distinct(1e3 + rng.normal(size=(1000, 2)))) > 990
    assert len(distinct(np.zeros((0, 2)))) == 0


def test_a_round_trip():
    pair = (lambda x: x[:, :2] + 3, lambda z: torch.cat([z, z], 1))
    assert round_trip(pair, np.zeros((4, 2))) == pytest.approx(np.full(4, np.sqrt(18)))


# --- interpolation


def test_straight_and_spherical_paths():
    pair = (nowhere, lambda z: z)
    assert interpolate(pair, [0, 0], [1, 2], 3).tolist() == [[0, 0], [0.5, 1], [1, 2]]
    arc = interpolate(pair, [1, 0], [0, 1], 5, path="spherical")
    assert np.linalg.norm(arc, axis=1) == pytest.approx(1)


def test_a_geodesic_has_equal_steps_in_the_data():
    path = interpolate((nowhere, sphere), [0, 1.2], [2, 1.2], 6, path="geodesic")
    x = sphere(torch.from_numpy(path)).numpy()
    steps = np.linalg.norm(np.diff(x, axis=0), axis=1)
    assert steps == pytest.approx(steps.mean(), rel=0.02)


def test_an_estimator_s_geodesic():
    X = np.random.default_rng(0).normal(size=(300, 2)) @ np.random.default_rng(1).normal(size=(2, 6))
    vae = ct.VAE(latent_dim=2, max_epochs=5, random_state=0).fit(X)
    path = vae.interpolate(X[0], X[1], steps=7, path="geodesic")
    assert path.shape == (7, 6)
    np.testing.assert_allclose(path[[0, -1]], vae.project(X[:2]), atol=1e-4)
    np.testing.assert_allclose(vae.interpolate(X[1], X[0], steps=7, path="geodesic")[::-1], path, atol=1e-3)
    vae.codes_ = vae.transform(X)
    assert vae.interpolate(X[0], X[1], path="geodesic").shape == (9, 6)
    z = vae.transform(X[:10])
    found = geodesic(vae, z[:5], z[5:], codes=vae.codes_, density_weight=1)
    assert found.converged.all()


# --- refusals


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"knots": 2}, PlanError, "3 or more"),
        ({"density_weight": -1.0}, PlanError, "0 or more"),
        ({"tolerance": 0.0}, PlanError, "above 0"),
        ({"max_iterations": 0}, PlanError, "1 or more"),
        ({"density_weight": 1.0}, PlanError, "give codes"),
        ({"codes": np.zeros((5, 3))}, DataError, r"\(n, 2\) are needed"),
        ({"z1": [[0.0, 1.0], [0.0, 1.0]]}, DataError, "no pairs"),
        ({"z1": [[0.0, np.nan]]}, DataError, "not finite"),
        ({"z1": [0.0, 1.0]}, DataError, "no pairs"),
    ],
)
def test_refusals(change, error, said):
    given_ = {"z0": [[0.0, 0.0]], "z1": [[0.0, 1.0]]} | change
    with pytest.raises(error, match=said):
        geodesic((nowhere, sphere), **given_)


def test_refusals_of_paths():
    pair = (nowhere, sphere)
    with pytest.raises(PlanError, match="'straight' or 'spherical' or 'geodesic'"):
        interpolate(pair, [0, 0], [1, 1], path="curly")
    with pytest.raises(PlanError, match="two or more"):
        interpolate(pair, [0, 0], [1, 1], 1)
    with pytest.raises(DataError, match="one code"):
        interpolate(pair, [0, 0], [1, 1, 1])
    with pytest.raises(DataError, match="fit together"):
        off_support(np.zeros((3, 2)), np.zeros((50, 3)))
    with pytest.raises(DataError, match="too few"):
        off_support(np.zeros((3, 2)), np.zeros((5, 2)))
