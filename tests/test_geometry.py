"""Charts and the metric of decoders, against surfaces whose geometry is known."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

import chartae as ct
from chartae.core.errors import DataError, PlanError
from chartae.geometry import (
    Chart,
    decoder_jacobian,
    distortion,
    encoder_jacobian,
    interpolate,
    linearize,
    manifold_log_density,
    metric,
    traverse,
    validity_radius,
    volume,
)
from chartae.parts.distributions import DiagonalNormal, UniformSphere
from chartae.parts.priors import UniformSpherePrior


def sphere(z):
    """Latitude and longitude."""
    a, b = z[:, 0], z[:, 1]
    return torch.stack([a.cos() * b.cos(), a.cos() * b.sin(), a.sin()], 1)


def test_codes_that_are_not_finite_are_refused():
    same = (lambda x: x, lambda z: z)
    for asked in (metric, volume, validity_radius):
        with pytest.raises(DataError, match=r"the code in row 1 \(from 0\) is not finite"):
            asked(same, [[0.0, 0.0], [np.nan, 0.0]])
    with pytest.raises(DataError, match="is not finite"):
        interpolate(same, [0.0, 0.0], [np.inf, 0.0])
    with pytest.raises(PlanError, match=r"steps=5\.0: a path has a whole number of points"):
        interpolate(same, [0.0, 0.0], [1.0, 0.0], steps=5.0)


def test_points_of_a_codebook_have_no_density():
    X = np.random.default_rng(0).normal(size=(200, 4))
    model = ct.Autoencoder(recipe="fsq-vae", latent_dim=3, max_epochs=1, random_state=0).fit(X)
    with pytest.raises(PlanError, match="has no density"):
        manifold_log_density(model, X)


def torus(z):
    """Of revolution, radii 2 and 1: the angle around the tube first."""
    a, b = z[:, 0], z[:, 1]
    return torch.stack([(2 + a.cos()) * b.cos(), (2 + a.cos()) * b.sin(), a.sin()], 1)


def pair(decode):
    return (lambda x: x[:, :2], decode)


ANGLES = st.tuples(st.floats(-1.4, 1.4), st.floats(-3, 3))


@given(ANGLES)
@settings(max_examples=30)
def test_the_metric_of_a_sphere_and_a_torus(angles):
    a, _ = angles
    assert metric(pair(sphere), [angles])[0] == pytest.approx(np.diag([1, np.cos(a) ** 2]), abs=1e-5)
    assert volume(pair(sphere), [angles])[0] == pytest.approx(np.log(np.cos(a)), abs=1e-5)
    assert metric(pair(torus), [angles])[0] == pytest.approx(np.diag([1, (2 + np.cos(a)) ** 2]), abs=1e-5)
    assert volume(pair(torus), [angles])[0] == pytest.approx(np.log(2 + np.cos(a)), abs=1e-5)


def test_the_density_on_a_manifold_integrates_to_one():
    """An ellipse: normal angles, by arc length."""
    angle = torch.linspace(-3, 3, 4001)[:, None]
    spread = 0.4
    ellipse = Chart.of_pair(
        lambda x: torch.atan2(x[:, 1:], x[:, :1] / 3),
        lambda z: torch.cat([3 * z.cos(), z.sin()], 1),
        prior=DiagonalNormal(torch.zeros(1), torch.full((1,), 2 * math.log(spread))),
    )
    x = ellipse.decode(angle)
    density = np.exp(manifold_log_density(ellipse, x))
    steps = (x[1:] - x[:-1]).norm(dim=1).numpy()
    assert (steps * (density[1:] + density[:-1]) / 2).sum() == pytest.approx(1, abs=1e-3)
    with pytest.raises(PlanError, match="nothing that codes are drawn from"):
        manifold_log_density((ellipse.encode, ellipse.decode), x)


def test_the_density_of_an_autoencoder_is_that_of_its_fitted_prior():
    """A linear map of normal codes: normal data on a plane, whose density is known."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) * [2.0, 0.5] @ np.linalg.qr(rng.normal(size=(4, 2)))[0].T
    ae = ct.AE(latent_dim=2, network="linear", max_epochs=60, learning_rate=1e-2, random_state=0).fit(X)
    plane = X @ np.linalg.svd(X, full_matrices=False)[2][:2].T
    wanted = multivariate_normal(np.zeros(2), np.diag([4.0, 0.25])).logpdf(plane)
    assert np.abs(ae.manifold_log_density(X) - wanted).mean() < 0.1


def test_where_a_direction_does_nothing_there_is_no_volume():
    random = torch.Generator().manual_seed(0)
    z, plane = torch.randn(5, 3, generator=random), torch.randn(2, 7, generator=random)
    tilt = torch.tensor([[1.0, 0.0], [1 / 3, 1 / 7], [0.0, 1.0]]) @ plane
    decoders = (
        lambda z: z.sum(1, keepdim=True),
        lambda z: (z[:, :2] @ plane).tanh(),
        lambda z: (z @ tilt).tanh(),  # on a plane, but for rounding
        lambda z: 0 * z,
    )
    for decode in decoders:
        assert (volume(pair(decode), z) == -np.inf).all()
        chart = Chart.of_pair(lambda x: z, decode, prior="normal", latent_dim=3)
        assert (manifold_log_density(chart, torch.zeros(5, 7)) == np.inf).all()
    for units in torch.tensor([[1.0, 1e-3, 1e-5], [1e-7, 1.0, 1e-20]]):  # of the axes of the code
        expected = np.full(5, np.log(units.double().numpy()).sum())
        assert volume(pair(lambda z: z * units), z) == pytest.approx(expected, abs=1e-5)  # noqa: B023
        assert (volume(pair(lambda z: (z * units) @ tilt), z) == -np.inf).all()  # noqa: B023


def test_the_area_of_a_sphere_is_the_integral_of_its_volume():
    z = np.stack(np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, 401)[1:-1], [0.0]), -1).reshape(-1, 2)
    area = 2 * np.pi * np.exp(volume(pair(sphere), z)).sum() * np.pi / 400
    assert area == pytest.approx(4 * np.pi, rel=1e-3)


@given(st.integers(0, 100))
@settings(max_examples=20)
def test_rotating_the_data_changes_no_length(seed):
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=g))[0][:, :3].T
    z = torch.rand(5, 2, generator=g).numpy()
    turned = pair(lambda z: sphere(z) @ turn)
    assert metric(turned, z) == pytest.approx(metric(pair(sphere), z), abs=1e-5)
    assert validity_radius(turned, z, np.eye(2)[None]) == pytest.approx(
        validity_radius(pair(sphere), z, np.eye(2)[None]), rel=1e-3
    )


def test_the_validity_radius_of_a_circle():
    # |e^{ir} - 1 - ir| = .1 r at r = .2002
    circle = (lambda x: torch.atan2(x[:, 1:], x[:, :1]), lambda z: torch.cat([z.cos(), z.sin()], 1))
    assert validity_radius(circle, [[0.3], [2.0]], [[[1.0], [-1.0]]]) == pytest.approx(0.2002, rel=1e-2)
    # In standard deviations of the codes it does not depend on their scale.
    codes = np.random.default_rng(0).normal(scale=0.5, size=(4000, 1))
    scaled = (circle[0], lambda z: circle[1](z / 10))
    here = validity_radius(circle, [[0.3]], [[[1.0]]], codes=codes)
    assert here == pytest.approx(0.2002 / codes.std(), rel=1e-2)
    assert validity_radius(scaled, [[3.0]], [[[1.0]]], codes=10 * codes) == pytest.approx(here, rel=1e-2)


@pytest.mark.parametrize("at", [0.0, 1.0, -30.0])
def test_a_linear_map_holds_everywhere_also_along_what_it_does_not_see(at):
    W = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    narrow = (lambda x: x @ W.T, lambda z: z @ W)
    assert np.isinf(linearize(narrow, np.full(5, at)).radius).all()


def test_a_plane_is_linear_for_as_long_as_one_looks():
    plane = (lambda x: x[:, :2], lambda z: torch.cat([z, z], 1))
    assert np.isinf(validity_radius(plane, [[0.0, 1.0]])).all()
    near = linearize(plane, [0.0, 1.0])
    assert near(np.eye(2)) == pytest.approx(np.array([[1, 1, 1, 1], [0, 2, 0, 2]]), abs=1e-6)


def test_a_kink_ends_a_radius_where_it_is():
    # Beyond .5 the slope doubles: off by (r - .5) > .1 r at r = .5556.
    kink = (lambda x: x[:, :1], lambda z: torch.cat([z + (z - 0.5).relu(), 0 * z], 1))
    assert validity_radius(kink, [[0.0]], [[[1.0], [-1.0]]])[0] == pytest.approx([0.5556, np.inf], rel=1e-3)


def test_distortion_is_one_for_similarities_alone():
    assert distortion(np.eye(3)[None] * 7) == pytest.approx(1.0)
    assert distortion([np.eye(2), 4 * np.eye(2)]) > 1.3
    assert distortion(np.diag([1.0, 0.0])[None]) == pytest.approx(2.0)


def test_the_expected_metric_adds_what_the_noise_does():
    z = np.array([[0.2, 0.4]])
    known = Chart.of_pair(*pair(sphere), noise=0.1)
    assert metric(known, z, expected=True) == pytest.approx(metric(known, z))  # a noise that is constant
    grows = Chart(known.encode, known.decode, spread=lambda z: 3 * z)
    assert metric(grows, z, expected=True) - metric(grows, z) == pytest.approx(9 * np.eye(2)[None], abs=1e-4)
    with pytest.raises(PlanError, match="leave out expected=True"):
        metric(pair(sphere), z, expected=True)


@pytest.fixture(scope="module")
def fitted():
    """Estimators of every kind of data, with items that they know."""
    rng = np.random.default_rng(0)
    small = {"latent_dim": 2, "hidden": (16,), "max_epochs": 2, "random_state": 0}
    X = rng.normal(size=(120, 4)) * 7 + 100
    images = rng.integers(0, 5, size=(120, 8, 8)).astype(float)
    y = rng.integers(0, 3, 120)
    table = pd.DataFrame(
        {
            "size": rng.normal(size=120),
            "number": rng.poisson(3, 120),
            "color": rng.choice(list("xyz"), 120),
            "wet": rng.choice(["yes", "no"], 120),
        }
    )
    gaps = X.copy()
    gaps[::9, 1] = np.nan
    return {
        "vectors": ct.VAE(**small).fit(X), "vectors_X": X,
        "images": ct.AE(**small).fit(images), "images_X": images,
        "convolutions": ct.VAE(network="conv2d", **small | {"hidden": (4, 8)}).fit(images),
        "convolutions_X": images,
        "categories": ct.VAE(likelihood="categorical", **small).fit(images), "categories_X": images,
        "conditional": ct.CVAE(**small).fit(images, y), "conditional_X": images,
        "table": ct.VAE(**small).fit(table), "table_X": table,
        "gaps": ct.VAE(missing="mask", **small).fit(gaps), "gaps_X": X,
    }  # fmt: skip


KINDS = ["vectors", "images", "convolutions", "categories", "conditional", "table", "gaps"]


def test_missing_values_of_items_are_drawn(fitted):
    estimator, X = fitted["gaps"], fitted["gaps_X"].copy()
    X[:60, 1] = np.nan
    chart = estimator.chart()
    x, whole = chart.items(X), chart.items(fitted["gaps_X"])
    assert torch.equal(x, chart.items(X))
    there = ~np.isnan(X)
    assert x.numpy()[there] == pytest.approx(whole.numpy()[there])
    drawn = x.numpy()[~there]
    # As wide as the column: an expected value, or the column's mean, would not be.
    assert 0.5 < drawn.std() / whole[:, 1].numpy().std() < 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_chart_of_an_estimator_encodes_and_decodes_as_it_does(fitted, kind):
    estimator, X = fitted[kind], fitted[f"{kind}_X"]
    chart = estimator.chart()
    x, c = chart.items(X), chart.condition(None, len(X))
    assert chart.codes(x, c).numpy() == pytest.approx(estimator.transform(X), abs=1e-4)
    assert chart.decoded(chart.codes(x, c), c).shape == x.shape
    if kind not in ("table", "categories"):
        unit = estimator.space_.center.numpy()
        unit = unit.mean() if kind in ("images", "convolutions", "conditional") else unit
        assert chart.projected(x, c).numpy() + unit == pytest.approx(estimator.project(X), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_are_those_of_differences(fitted, kind):
    estimator, X = fitted[kind], fitted[f"{kind}_X"]
    chart = estimator.chart()
    c = chart.condition(None, 20)
    more = () if c is None else (c,)
    x = chart.items(X)[:20]
    z = chart.codes(x, c)
    J = torch.from_numpy(decoder_jacobian(estimator, z))
    step = torch.tensor([1e-3, 0.0])
    with torch.no_grad():
        moved = (chart.decode(z + step, *more) - chart.decode(z - step, *more)) / 2e-3
    gap = (moved - J[..., 0]).flatten(1).norm(dim=1) / (1e-2 + J[..., 0].flatten(1).norm(dim=1))
    assert gap.median() < 0.02  # a kink of a ReLU lies between the two points of some
    of_encoder = torch.from_numpy(encoder_jacobian(chart, X.iloc[:20] if kind == "table" else X[:20]))
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moved = (chart.encode(x + 1e-3 * v, *more) - chart.encode(x - 1e-3 * v, *more)) / 2e-3
    along = (of_encoder.flatten(2) @ v.flatten(1)[..., None])[..., 0]
    assert ((moved - along).norm(dim=1) / (1e-2 + along.norm(dim=1))).median() < 0.02


def test_estimators_know_their_geometry(fitted):
    vae = fitted["vectors"]
    z = vae.transform(fitted["vectors_X"])[:3]
    assert vae.metric(z) == pytest.approx(metric(vae, z))
    assert vae.metric(z, expected=True).shape == (3, 2, 2)
    assert vae.linearize(z[0]).jacobian.shape == (4, 2)


def test_what_is_no_chart_is_refused():
    for wrong, message in [
        (lambda: Chart.of_pair(1, len), "encode=1 is no function"),
        (lambda: Chart.of_pair(len, len, prior="normal"), "give latent_dim"),
        (lambda: Chart.of_pair(len, len, prior="uniform"), "use 'normal'"),
        (lambda: metric(pair(sphere), [0.0, 1.0]), r"\(n, d\) is needed"),
        (lambda: metric(pair(lambda z: z @ torch.zeros(5, 5)), [[0.0, 1.0]]), "decode fails on a tensor"),
        (lambda: validity_radius(pair(sphere), [[0.0, 1.0]], [[[1.0]]]), r"\(1, m, 2\) is needed"),
    ]:
        with pytest.raises((PlanError, DataError), match=message):
            wrong()


# ------------------------------------------------------------- maps and codes that do not do


def looked_at():
    """A small model, and some of its codes."""
    X = 100 + np.random.default_rng(0).normal(size=(60, 4)) @ np.diag([1.0, 2.0, 3.0, 4.0])
    model = ct.VAE(latent_dim=2, hidden=(8,), max_epochs=2, random_state=0).fit(X)
    return model, X, model.transform(X[:3])


def no_grad(f):
    def within(v):
        with torch.no_grad():
            return f(v)

    return within


def test_maps_that_cut_gradients_are_refused():
    model, X, Z = looked_at()
    chart = model.chart()
    cut = Chart.of_pair(lambda x: chart.encode(x).detach(), lambda z: chart.decode(z).detach())
    bare = Chart.of_pair(no_grad(chart.encode), no_grad(chart.decode))
    rows = chart.items(X[:3])
    for measure in (
        lambda: metric(cut, Z),
        lambda: linearize(cut, Z[0]),
        lambda: encoder_jacobian(cut, rows),
        lambda: encoder_jacobian(bare, rows),
    ):
        with pytest.raises(DataError, match=r"cuts gradients: take torch\.no_grad"):
            measure()
    np.testing.assert_allclose(metric(bare, Z), metric(chart, Z), rtol=1e-5)  # forward, none is needed


def test_a_map_that_ignores_its_input_has_a_slope_of_zero():
    flat = (lambda x: x[:, :1], lambda z: torch.ones(len(z), 3))
    assert not metric(flat, [[1.0], [2.0]]).any()


def test_what_a_walk_or_a_plane_decodes_is_what_the_model_decodes():
    model, _, Z = looked_at()
    walk, plane = model.traverse(Z, 0, steps=3), model.linearize(Z[0])
    for codes, items in zip(walk.codes, walk.items, strict=True):
        np.testing.assert_allclose(items, model.inverse_transform(codes), rtol=1e-5)
    np.testing.assert_allclose(plane([0.0, 0.0]), model.inverse_transform(Z[:1])[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m, Z: m.metric(Z[:, :1]), r"\(3, 1\), and \(n, 2\) is needed"),
        (lambda m, Z: m.volume(np.zeros((2, 3))), r"\(n, 2\) is needed"),
        (lambda m, Z: m.geodesic(Z[:1, :1], Z[1:2, :1]), r"\(n, 2\) is needed"),
        (lambda m, Z: m.traverse(Z[0, :1]), r"\(n, 2\) is needed"),
        (lambda m, Z: m.linearize(np.zeros(5)), r"\(n, 2\) is needed"),
        (lambda m, Z: m.decoder_jacobian(Z[:0]), "no codes: give one"),
        (lambda m, Z: m.traverse(Z[0], np.ones((2, 2))), "2 directions do not fit 1 codes"),
        (lambda m, Z: m.linearize(Z[:2]), "2 codes are given, and a plane touches at one"),
        (lambda m, Z: m.linearize(Z[0], [[0.0, 0.0]]), "finite length above zero"),
    ],
)
def test_codes_that_do_not_fit_are_refused(ask, message):
    model, _, Z = looked_at()
    with pytest.raises((DataError, PlanError), match=message):
        ask(model, Z)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (np.zeros(90), r"\(90,\): give \(90, m\), as condition\[:, None\] is, or \(1, m\)"),
        (np.zeros((4, 1)), r"\(4, 1\): give \(90, m\), or"),
        (np.zeros((0, 1)), r"\(0, 1\): give"),
        (1.0, r"\(\): give"),
        (["a"] * 90, "condition of numbers"),
    ],
)
def test_conditions_of_callables_are_rows(condition, said):
    pair = (lambda x, c: x - c, lambda z, c: z + c)
    with pytest.raises(DataError, match=said):
        volume(pair, np.zeros((90, 2)), condition)
    with pytest.raises(DataError, match=said):
        ct.audit(pair, np.zeros((90, 2)), condition=condition)


def test_paths_stay_where_codes_can_lie():
    X = np.random.default_rng(0).normal(size=(60, 4))
    model = ct.Autoencoder(recipe="svae", latent_dim=3, hidden=(8,), max_epochs=2, random_state=0).fit(X)
    Z = model.transform(X[:2])
    paths = [
        model.geodesic(Z[:1], Z[1:]).codes[0],
        model.traverse(Z[0], 0).codes[0],
        interpolate(model, Z[0], -Z[0] + 0.1, 9),
    ]
    for codes in paths:
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("path", ["straight", "spherical", "geodesic"])
def test_a_path_between_opposite_codes_goes_around_the_sphere(path):
    X = np.random.default_rng(0).normal(size=(60, 4))
    model = ct.Autoencoder(recipe="svae", latent_dim=3, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    code = model.transform(X[:1])[0].astype(float)
    code /= np.linalg.norm(code)
    walk = interpolate(model, code, -code, 9, path=path)
    np.testing.assert_allclose(np.linalg.norm(walk, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(walk[[0, -1]], [code, -code], atol=1e-6)
    assert np.linalg.norm(np.diff(walk, axis=0), axis=1).max() < 1
    if path != "geodesic":
        steps = np.linalg.norm(np.diff(walk, axis=0), axis=1)
        np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 16), rtol=1e-5)


def test_a_walk_on_a_sphere_goes_along_a_great_circle():
    def onto(z):
        return z / z.norm(dim=-1, keepdim=True)

    ball = Chart.of_pair(onto, onto, prior=UniformSphere(3), latent_dim=3)
    starts = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -2.0]]  # along the axis, between, and across
    for chart in (ball, replace(ball, onto=onto)):
        walk = traverse(chart, starts[: 3 if chart.onto else 2], 0, extent=3, steps=31)
        np.testing.assert_allclose(np.linalg.norm(walk.codes, axis=2), 1, rtol=1e-6)
        steps = np.linalg.norm(np.diff(walk.codes, axis=1), axis=2)
        np.testing.assert_allclose(steps, 2 * np.sin(0.1), rtol=1e-4)
        assert np.linalg.matrix_rank(walk.codes, tol=1e-5).tolist() == [2] * len(walk.codes)
        np.testing.assert_allclose(walk.codes[:, 15], chart.placed(np.array(starts[: len(walk.codes)])))
        assert (np.abs(walk.codes[:, :, 0]).max(1) > 0.99).all()  # over the axis
    moved = traverse(replace(ball, onto=onto), starts[1], 0, extent=1e-3, steps=3)
    np.testing.assert_allclose(
        np.diff(moved.codes[0], axis=0), 1e-3 * moved.direction.repeat(2, 0), atol=1e-6
    )
    np.testing.assert_allclose(moved.direction, [[0.8, -0.6, 0.0]], atol=1e-6)


def test_elsewhere_a_straight_line_goes_through_the_center_and_a_circle_around_it():
    for path, norms in (("straight", [2, 0, 2, 4]), ("spherical", [2, 8 / 3, 10 / 3, 4])):
        walk = interpolate(None, [0.0, 2.0], [0.0, -4.0], 4, path=path)
        np.testing.assert_allclose(np.linalg.norm(walk, axis=1), norms, atol=1e-9)
    np.testing.assert_allclose(interpolate(None, [1.0], [-1.0], 3, path="spherical"), [[1], [0], [-1]])


def test_the_center_of_a_sphere_is_decoded_as_a_code_on_it():
    onto = UniformSpherePrior(3).onto
    z = torch.tensor([[1e-15, 0.0, 0.0], [0.0, 3.0, 4.0]], requires_grad=True)
    onto(z).sum().backward()
    torch.testing.assert_close(onto(z), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]))
    assert 0 < z.grad.abs().max() <= 1


def test_codes_on_a_sphere_do_not_leave_it():
    """Where they would, the decoder has no direction: of areas, of planes, and of what is even."""
    n, scale = 400, 3.0
    z = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)

    def onto(z):
        return z / z.norm(dim=-1, keepdim=True)

    ball = Chart.of_pair(
        lambda x: onto(x[:, :3]),
        lambda z: scale * torch.cat([onto(z), 0 * z[:, :1]], 1),
        prior=UniformSphere(3),
        latent_dim=3,
    )
    np.testing.assert_allclose(volume(ball, z), 2 * np.log(scale), atol=1e-4)
    near = linearize(ball, z[0])
    assert near.directions.shape == (2, 3)
    np.testing.assert_allclose(near.directions @ z[0], 0, atol=1e-4)
    assert near.radius.min() > 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ct.audit(ball, ball.decode(torch.from_numpy(z)), only=["distortion"])["distortion"]
    assert found.verdict == "ok"
    assert found.statistic == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("recipe", ["svae", "poincare-vae"])
def test_a_density_that_was_fitted_to_codes_is_none_on_a_sphere_or_in_a_ball(recipe):
    X = np.random.default_rng(0).normal(size=(60, 4))
    model = ct.Autoencoder(recipe=recipe, latent_dim=3, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    before = manifold_log_density(model, X)
    with pytest.raises(PlanError, match=r"go back to the model's own prior with fit_prior\('prior'\)"):
        manifold_log_density(model.fit_prior("gmm", random_state=0), X)
    np.testing.assert_array_equal(manifold_log_density(model.fit_prior("prior"), X), before)


def test_a_direction_without_effect_has_no_radius_at_which_it_leaves_its_plane():
    """Rounding is no departure: an item of large values, of which a direction changes nothing."""
    chart = Chart.of_pair(
        lambda x: x[:, :2], lambda z: 300 + torch.cat([z[:, :1].sin(), 0 * z[:, 1:], z[:, :1]], 1) / 3
    )
    found = linearize(chart, np.array([[0.3, 0.1]]))
    assert sorted(np.isinf(found.radius).ravel().tolist()) == [False, True]
    assert found.radius.min() > 1e-2


def test_a_direction_that_is_given_keeps_where_it_points():
    """Exactly linear along one axis: no spread of codes turns it, and lengths are those of Σ⁻¹."""
    decode = lambda z: torch.stack([z[:, 0], z[:, 1].cos(), z[:, 1].sin()], 1)  # noqa: E731
    codes = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 5000)
    model, at, axes = (lambda x: x[:, :2], decode), [[0.0, 0.0]], np.eye(2)[None]
    plain, inside = validity_radius(model, at, axes)[0], validity_radius(model, at, axes, codes=codes)[0]
    assert np.isinf([plain[0], inside[0]]).all()
    assert inside[1] == pytest.approx(plain[1] * np.linalg.inv(np.cov(codes.T))[1, 1] ** 0.5, rel=1e-2)
    with pytest.raises(DataError, match="two or more"):
        validity_radius(model, at, axes, codes=codes[:1])
    with pytest.raises(DataError, match="do not vary"):
        validity_radius(model, at, axes[:, :1], codes=codes * [0, 1])


@pytest.mark.parametrize(("f", "at"), [(torch.square, 0.0), (torch.cos, 0.0), (torch.relu, -0.0005)])
def test_a_map_that_rests_at_a_code_cuts_no_gradients(f, at):
    assert metric((lambda x: x, f), [[at]]).tolist() == [[[0.0]]]
