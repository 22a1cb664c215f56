"""Codes on spheres and in hyperbolic space, against closed forms, scipy, quadrature and Monte Carlo."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor

import chartae as ct
from chartae.core.contracts import Batch, RawCondition
from chartae.core.errors import PlanError
from chartae.core.noise import Noise, SharedNoise
from chartae.geometry import Chart
from chartae.models.recipes import assemble, build
from chartae.parts.distributions import DiagonalNormal, UniformSphere, WrappedNormal, Zonal, kl
from chartae.parts.distributions.balls import clipped, exp_origin, mobius_add
from chartae.parts.objectives import IWAE, KL, NegLogLik

PROFILES = ("vmf", "power")
each_profile = pytest.mark.parametrize("profile", PROFILES)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def axis(d: int) -> Tensor:
    return torch.eye(1, d, dtype=torch.float64)[0]


def directions(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def log_area(d: int) -> float:
    return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


def log_bessel(order: float, kappa: float) -> float:
    """log I(κ) e^-κ; by its series where scipy underflows."""
    value = scipy.special.ive(order, kappa)
    if value > 1e-280:
        return math.log(value)
    m = np.arange(400)
    terms = (2 * m + order) * math.log(kappa / 2) - scipy.special.gammaln(m + 1)
    return float(scipy.special.logsumexp(terms - scipy.special.gammaln(m + order + 1))) - kappa


CASES = [(d, kappa) for d in (2, 3, 4, 10, 51, 300) for kappa in (1e-6, 0.1, 1.0, 12.0, 300.0, 1e5)]


# ------------------------------------------------------------------- sphere: densities


@pytest.mark.parametrize(("d", "kappa"), CASES)
def test_a_von_mises_fisher_density_has_its_closed_form(d, kappa):
    mean, v = directions(d), directions(5, d, seed=1)
    q = Zonal(mean, number(kappa))
    order = d / 2 - 1
    bessel = log_bessel(order, kappa)
    constant = order * math.log(kappa) - 0.5 * d * math.log(2 * math.pi) - bessel
    expected = kappa * (v @ mean - 1) + constant
    torch.testing.assert_close(q.log_prob(v), expected, rtol=1e-10, atol=1e-8)
    # KL to uniform: κ A(κ), less the constants, with the mean A = I(d/2) / I(d/2 - 1).
    length = math.exp(log_bessel(order + 1, kappa) - bessel)
    assert float(q.information) == pytest.approx(
        kappa * (length - 1) + constant + log_area(d), rel=1e-9, abs=1e-8
    )


@pytest.mark.parametrize(("d", "kappa"), [(2, 0.5), (3, 40.0), (8, 7.0), (20, 1000.0)])
def test_a_von_mises_fisher_density_is_scipy_s(d, kappa):
    mean, v = directions(d), directions(5, d, seed=1)
    expected = scipy.stats.vonmises_fisher(mean.numpy(), kappa).logpdf(v.numpy())
    np.testing.assert_allclose(Zonal(mean, number(kappa)).log_prob(v), expected, rtol=1e-9)


# Opposite the mean the power profile's logarithm has a pole: with mass there the grid alone loses digits.
@pytest.mark.parametrize(("d", "kappa"), [case for case in CASES if case[0] + 2 * case[1] > 8])
def test_sums_over_angles_are_the_closed_form(d, kappa):
    """The grid of angles, which von Mises-Fisher needs, against what is known of the other profile."""
    q = Zonal(axis(d), number(kappa), "power")
    closed = q.profile.closed(number(kappa), d)
    q.profile = q.profile._replace(closed=None)
    for ours, theirs in zip(q._sums(), closed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@each_profile
@pytest.mark.parametrize("kappa", [0.0, 0.3, 5.0, 2000.0])
def test_a_density_integrates_to_one(profile, kappa):
    angle = torch.linspace(-math.pi, math.pi, 200_001, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    density = Zonal(directions(2), number(kappa), profile).log_prob(circle).exp()
    assert float(torch.trapezoid(density, angle)) == pytest.approx(1, abs=1e-6)
    # In three dimensions heights are uniform: density around the axis times 2π.
    height = torch.linspace(-1, 1, 400_001, dtype=torch.float64)
    ball = torch.stack([height, (1 - height.square()).clamp_min(0).sqrt(), 0 * height], 1)
    density = Zonal(axis(3), number(kappa), profile).log_prob(ball).exp()
    assert float(2 * math.pi * torch.trapezoid(density, height)) == pytest.approx(1, abs=1e-5)


@each_profile
def test_a_density_depends_on_the_angle_alone(profile):
    mean, v = directions(4, 6), directions(7, 4, 6, seed=1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)).double())[0]
    kappa = number(3.0).expand(4)
    torch.testing.assert_close(
        Zonal(mean, kappa, profile).log_prob(v), Zonal(mean @ turn, kappa, profile).log_prob(v @ turn)
    )


@each_profile
def test_no_concentration_is_uniform(profile):
    q, p = Zonal(directions(5), number(0.0), profile), UniformSphere(5)
    v = directions(7, 5, seed=1)
    torch.testing.assert_close(q.log_prob(v), p.log_prob(v), rtol=1e-10, atol=1e-10)
    assert float(q.information) == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(q.std(), torch.full((5,), 5**-0.5, dtype=torch.float64))


@each_profile
def test_float32_is_enough_outside(profile):
    """Only what goes in and out is rounded: by about the digits of an angle."""
    mean, kappa = directions(6), number(1e4)
    v = Zonal(mean, kappa, profile).draw(200, Noise(0)).z
    ours = Zonal(mean.float(), kappa.float(), profile).log_prob(v.float())
    torch.testing.assert_close(ours.double(), Zonal(mean, kappa, profile).log_prob(v), rtol=0, atol=2e-3)


# ------------------------------------------------------------------- sphere: draws


@each_profile
@pytest.mark.parametrize("d", [2, 3, 4, 40, 300])
@pytest.mark.parametrize("kappa", [1.0, 30.0, 1e5])
def test_angles_invert_their_distribution_function(profile, d, kappa):
    q = Zonal(axis(d), number(kappa), profile)
    tails = torch.tensor([2**-25, 1e-5, 1 - 1e-5, 1 - 2**-25], dtype=torch.float64)
    u = torch.cat([torch.linspace(0.001, 0.999, 301, dtype=torch.float64), tails])
    angle = q._angle(u)
    assert (angle.diff()[:300] > 0).all()
    if profile == "power":
        b = 0.5 * (d - 1)
        found = scipy.stats.beta.cdf((0.5 * angle).sin().square(), b, b + kappa)
    else:
        fine = torch.linspace(0, float(angle.max()), 400_001, dtype=torch.float64)
        density = (q._log_height(fine, q._kappa) - q._log_masses().logsumexp((-2, -1))).exp()
        below = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, fine)])
        found = np.interp(angle, fine, below)
    np.testing.assert_allclose(found, u, atol=2e-6)


@each_profile
@pytest.mark.parametrize(("d", "kappa"), [(2, 1.0), (2, 50.0), (3, 2.0), (9, 20.0)])
def test_draws_follow_the_density(profile, d, kappa):
    """Means of several functions against quadrature: five standard errors, one false alarm in 10^5 runs."""
    n, mean = 40_000, directions(d)
    q = Zonal(mean, number(kappa), profile)
    z = q.draw(n, Noise(1)).z
    torch.testing.assert_close(z.norm(dim=1), torch.ones(n, dtype=torch.float64))
    angle = torch.linspace(0, math.pi, 100_001, dtype=torch.float64)
    weight = q._log_height(angle, q._kappa).softmax(0)
    for f in (torch.cos, lambda t: t.cos().square(), torch.sin):
        rows = f((z @ mean).clamp(-1, 1).acos())
        assert abs(float(rows.mean() - (weight * f(angle)).sum())) < 5 * float(rows.std()) / n**0.5 + 1e-5
    # Around the mean all ways are alike.
    across = F.normalize(z - (z @ mean)[:, None] * mean, dim=1)
    assert (across.mean(0).abs() < 5 * n**-0.5).all()
    moments = across.mT @ across / n
    flat = (torch.eye(d, dtype=torch.float64) - torch.outer(mean, mean)) / (d - 1)
    assert ((moments - flat).abs() < 5 * n**-0.5).all()
    # The entropy, as E[-log q], is that of the uniform distribution less the KL to it.
    rows = -q.log_prob(z)
    error = float(rows.std()) / n**0.5
    assert abs(float(rows.mean() - log_area(d) + q.information)) < 5 * error


@each_profile
def test_the_divergence_is_that_of_samples(profile):
    q, p = Zonal(directions(3, 5), torch.tensor([0.5, 5.0, 80.0]).double(), profile), UniformSphere(5)
    z = q.draw(40_000, Noise(0)).z
    rows = q.log_prob(z) - p.log_prob(z)
    error = rows.std(0) / 200
    assert kl(q, p).shape == (3, 1)
    assert ((rows.mean(0) - kl(q, p)[:, 0]).abs() < 5 * error).all()


@each_profile
@pytest.mark.parametrize(("d", "kappa"), [(2, 4.0), (3, 1.0), (3, 500.0), (60, 20.0)])
def test_gradients_of_draws_by_the_concentration_are_those_of_quantiles(profile, d, kappa):
    """Implicit differentiation, against differences of the inverse distribution function."""
    u = torch.linspace(0.02, 0.98, 7, dtype=torch.float64)
    k = number(kappa).requires_grad_()
    angle = Zonal(axis(d), k, profile)._angle(u)
    ours = torch.stack([torch.autograd.grad(a, k, retain_graph=True)[0] for a in angle])
    h = 1e-3 * kappa
    at = [Zonal(axis(d), number(kappa + s * h), profile)._angle(u) for s in (-2, -1, 1, 2)]
    theirs = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


@each_profile
def test_gradients_of_draws_are_those_of_expectations(profile):
    """d/dμ and d/dκ of E f(z) on a circle, where E is a sum: five standard errors."""
    n, angle0 = 40_000, number(0.7).requires_grad_()
    kappa = number(3.0).requires_grad_()
    turn = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1]

    def f(z: Tensor) -> Tensor:
        return (z[..., 0] + 0.5 * z[..., 1].square() - z[..., 0] * z[..., 1]).exp()

    def q() -> Zonal:
        return Zonal(torch.stack([angle0.cos(), angle0.sin()]), kappa, profile)

    circle = torch.stack([turn.cos(), turn.sin()], 1)
    exact = (q().log_prob(circle).exp() * f(circle)).sum() * 2 * math.pi / len(turn)
    expected = torch.autograd.grad(exact, (angle0, kappa))
    each = []
    for part in range(20):
        value = f(q().draw(n // 20, Noise(part)).z).mean()
        each.append(torch.stack(torch.autograd.grad(value, (angle0, kappa))))
    found = torch.stack(each)
    error = found.std(0) / 20**0.5
    assert ((found.mean(0) - torch.stack(expected)).abs() < 5 * error).all()
    assert (error < 0.1).all()


def test_gradients_by_the_mean_stay_bounded_in_every_direction():
    """A rotation that is fixed beforehand has a pole where it turns without bound; there is none here."""
    for mean in (axis(3), -axis(3), directions(3)):
        m = mean.clone().requires_grad_()
        z = Zonal(m, number(5.0)).draw(2000, Noise(0)).z
        norms = []
        for way in range(3):
            (g,) = torch.autograd.grad(z[:, way].sum(), m, retain_graph=True)
            norms.append(float(g.norm()) / 2000)
        assert max(norms) < 2


def test_gradients_do_not_depend_on_what_was_asked_before():
    kappa = number(3.0).requires_grad_()
    fresh, used = Zonal(axis(4), kappa), Zonal(axis(4), kappa)
    with torch.no_grad():
        used.std(), used.information, used.draw(2, Noise(0))
    v = directions(5, 4)
    for f in (lambda q: q.information, lambda q: q.log_prob(v).sum(), lambda q: q.draw(3, Noise(1)).z.sum()):
        assert torch.equal(*(torch.autograd.grad(f(q), kappa)[0] for q in (fresh, used)))


@each_profile
def test_deviations_are_those_of_draws(profile):
    q = Zonal(directions(2, 4), torch.tensor([2.0, 60.0]).double(), profile)
    z = q.draw(40_000, Noise(0)).z
    torch.testing.assert_close(z.std(0), q.std(), rtol=0.03, atol=0)
    torch.testing.assert_close(z.mean(0), q.center(), rtol=0, atol=0.02)  # five standard errors
    if profile == "vmf":
        assert float(q.center()[0].norm()) == pytest.approx(scipy.special.iv(2, 2) / scipy.special.iv(1, 2))


def test_shared_noise_serves_all_rows():
    q = Zonal(directions(6, 3).float(), torch.full((6,), 9.0))
    z = q.draw(8, SharedNoise(0)).z
    assert z.shape == (8, 6, 3)
    alone = Zonal(q.mean[2:3], q.concentration[2:3]).draw(8, SharedNoise(0)).z
    torch.testing.assert_close(z[:, 2:3], alone)


@given(
    kappa=st.floats(0, 1e5),
    d=st.integers(2, 12),
    k=st.integers(1, 3),
    batch=st.lists(st.integers(1, 3), max_size=2),
    profile=st.sampled_from(PROFILES),
)
@settings(max_examples=40)
def test_everything_is_finite_on_the_sphere(kappa, d, k, batch, profile):
    mean = directions(*batch, d).float().requires_grad_()
    concentration = torch.full(batch, kappa).requires_grad_()
    q = Zonal(mean, concentration, profile)
    z = q.draw(k, Noise(0)).z
    assert z.shape == (k, *batch, d)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(k, *batch))
    rows = q.log_prob(z)
    assert rows.shape == (k, *batch)
    torch.testing.assert_close(q.log_prob(z, per_dim=True).sum(-1), rows)
    total = rows.sum() + z.sum() + kl(q, UniformSphere(d)).sum() + q.std().sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, (mean, concentration)))


def test_the_uniform_distribution_has_no_direction():
    p, n = UniformSphere(4), 40_000
    z = p.draw(n, Noise(0)).z
    assert ((z.mean(0) - p.center()).abs() < 5 * float(p.std()[0]) / n**0.5).all()
    assert ((z.mT @ z / n - torch.eye(4) / 4).abs() < 5 * n**-0.5).all()
    assert len(p.log_prob(z).unique()) == 1


# ------------------------------------------------------------------- the Poincaré ball


def curved(*shape: int, c: float = 1.0, spread: float = 1.0, seed: int = 0) -> Tensor:
    v = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return exp_origin(spread * v, c)


def exp_map(x: Tensor, u: Tensor, c: float) -> Tensor:
    """Of a tangent vector at x, as it is written down in the literature."""
    norm = u.norm(dim=-1, keepdim=True)
    scale = 2 / (1 - c * x.square().sum(-1, keepdim=True))
    return mobius_add(x, (c**0.5 * scale * norm / 2).tanh() * u / (c**0.5 * norm), c)


def log_map(x: Tensor, y: Tensor, c: float) -> Tensor:
    w = mobius_add(-x, y, c)
    norm = w.norm(dim=-1, keepdim=True)
    scale = 2 / (1 - c * x.square().sum(-1, keepdim=True))
    return 2 / (scale * c**0.5) * (c**0.5 * norm).atanh() * w / norm


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    room = (1 - c * x.square().sum(-1)) * (1 - c * y.square().sum(-1))
    return (1 + 2 * c * (x - y).square().sum(-1) / room).acosh() / c**0.5


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_the_ball_is_a_gyrovector_space(c):
    x, y, z = (curved(20, 3, c=c, seed=seed) for seed in range(3))
    torch.testing.assert_close(mobius_add(-x, mobius_add(x, y, c), c), y)
    torch.testing.assert_close(mobius_add(torch.zeros_like(x), x, c), x)
    # Adding from the left is an isometry.
    torch.testing.assert_close(distance(mobius_add(z, x, c), mobius_add(z, y, c), c), distance(x, y, c))
    # How far the exponential goes is how long the vector is.
    v = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(
        distance(torch.zeros_like(v), exp_origin(v, c), c), v.norm(dim=1), rtol=1e-7, atol=0
    )
    torch.testing.assert_close(exp_map(x, log_map(x, y, c), c), y)


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_a_wrapped_normal_is_carried_and_wrapped(c):
    """Its density by the literature's steps: logarithm at the mean, transport to the origin, volume."""
    mean, z = curved(5, 3, c=c), curved(4, 5, 3, c=c, seed=1)
    log_var = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scale = 2 / (1 - c * mean.square().sum(-1, keepdim=True))
    at_origin = scale / 2 * log_map(mean, z, c)  # in parallel, to where the metric is 4
    tangent = 2 * at_origin
    r = c**0.5 * distance(mean, z, c)
    on_manifold = DiagonalNormal(torch.zeros_like(mean), log_var).log_prob(tangent) + 2 * (r / r.sinh()).log()
    volume = 3 * (2 / (1 - c * z.square().sum(-1))).log()
    torch.testing.assert_close(WrappedNormal(mean, log_var, c).log_prob(z), on_manifold + volume)


@pytest.mark.parametrize("c", [1.0, 10.0, 100.0])
def test_the_spread_in_a_ball_is_that_of_draws(c):
    mean = torch.tensor([[0.0, 0.0], [0.6, -0.3]]).double() / c**0.5
    q = WrappedNormal(mean, torch.tensor([[-1.0, 0.2], [0.0, -3.0]]).double(), c)
    z = q.draw(50_000, Noise(0)).z
    torch.testing.assert_close(q.std(), z.std(0), rtol=0.04, atol=0)
    assert ((q.center() - z.mean(0)).abs() < 0.05 * q.std()).all()
    assert all(torch.equal(a, b) for a, b in zip(q.moments(), (q.center(), q.std()), strict=True))
    assert (q.std() < c**-0.5).all()  # the radius


def test_one_wrapped_normal_is_as_the_first_of_a_batch():
    mean, log_var = torch.tensor([0.6, 0.0, 0.0, 0.0]), torch.zeros(4)
    one, several = WrappedNormal(mean, log_var), WrappedNormal(mean[None], log_var[None])
    for of_one, of_several in zip(one.moments(), several.moments(), strict=True):
        torch.testing.assert_close(of_one, of_several[0])
    z = one.draw(100_000, Noise(0)).z
    torch.testing.assert_close(one.center(), z.mean(0), rtol=0.01, atol=0.005)
    torch.testing.assert_close(one.std(), z.std(0), rtol=0.02, atol=0)


@pytest.mark.parametrize(("c", "mean"), [(1.0, [0.0, 0.0]), (1.0, [0.6, -0.3]), (0.25, [1.0, 0.5])])
def test_a_wrapped_density_integrates_to_one(c, mean):
    q = WrappedNormal(torch.tensor(mean).double(), torch.tensor([-1.0, 0.2]).double(), c)
    # Polar coordinates, whose radius is spread as distances are: the edge is far away.
    r = torch.linspace(0, 15, 1501, dtype=torch.float64)
    angle = torch.linspace(0, 2 * math.pi, 201, dtype=torch.float64)[:-1]
    norm = (0.5 * c**0.5 * r).tanh() / c**0.5
    stretch = (0.5 * (1 - c * norm.square())) * norm
    z = norm[:, None, None] * torch.stack([angle.cos(), angle.sin()], 1)
    density = q.log_prob(z).exp().mean(1) * 2 * math.pi * stretch
    assert scipy.integrate.simpson(density, x=r) == pytest.approx(1, abs=1e-5)


def test_wrapped_draws_follow_the_density():
    """E[f] by draws, and by weights against draws of another: five standard errors."""
    n, c = 100_000, 0.7
    q = WrappedNormal(curved(3, c=c), torch.full((3,), -0.5).double(), c)
    p = WrappedNormal(torch.zeros(3).double(), torch.full((3,), 1.0).double(), c)
    ours, theirs = q.draw(n, Noise(0)), p.draw(n, Noise(1)).z
    torch.testing.assert_close(ours.log_prob, q.log_prob(ours.z))
    weight = (q.log_prob(theirs) - p.log_prob(theirs)).exp()
    fs = (
        lambda z: torch.ones_like(z[:, 0]),
        lambda z: z[:, 0],
        lambda z: z.norm(dim=1),
        lambda z: z[:, 1] > 0,
    )
    for f in fs:
        mine, other = f(ours.z).double(), weight * f(theirs).double()
        error = math.hypot(float(mine.std()), float(other.std())) / n**0.5
        assert abs(float(mine.mean() - other.mean())) < 5 * error
    # Distances from the mean are those of the normal in its tangent space.
    r = distance(ours.z, q.mean, c)
    assert scipy.stats.kstest(r / math.exp(-0.25), scipy.stats.chi(3).cdf).pvalue > 1e-5


def test_without_curvature_it_is_a_normal():
    mean, log_var = curved(4, 3), torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()
    flat = DiagonalNormal(mean, log_var - math.log(4))
    bent = WrappedNormal(mean, log_var, 1e-9)
    v = mean + 0.3 * directions(4, 3, seed=2)
    torch.testing.assert_close(bent.log_prob(v), flat.log_prob(v), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bent.draw(5, Noise(0)).z, flat.draw(5, Noise(0)).z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bent.std(), flat.std(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bent.center(), flat.center(), rtol=1e-6, atol=1e-6)


def test_first_order_deviations_are_those_of_small_draws():
    q = WrappedNormal(curved(3, 2), torch.full((3, 2), -7.0).double())
    torch.testing.assert_close(q.draw(40_000, Noise(0)).z.std(0), q.std(), rtol=0.03, atol=0)


@given(
    reach=st.floats(0, 1e3),
    log_var=st.floats(-20, 20),
    c=st.sampled_from([1e-6, 0.1, 1.0, 50.0]),
    d=st.integers(1, 9),
)
@settings(max_examples=60)
def test_everything_is_finite_near_the_edge(reach, log_var, c, d):
    v = (reach * directions(2, d)).float().requires_grad_()
    spread = torch.full((2, d), log_var).requires_grad_()
    q = WrappedNormal(clipped(exp_origin(v, c), c), spread, c)
    drawn = q.draw(3, Noise(0))
    assert drawn.z.dtype == torch.float32
    assert (c**0.5 * drawn.z.norm(dim=-1) < 1).all()
    p = WrappedNormal(torch.zeros(d), torch.zeros(d), c)
    rows = drawn.log_prob, q.log_prob(drawn.z), p.log_prob(drawn.z)
    assert all(t.isfinite().all() for t in (*rows, q.std()))
    total = rows[0].sum() - rows[2].sum() + drawn.z.sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, (v, spread)))


def test_there_is_nothing_outside_of_the_ball():
    q = WrappedNormal(torch.zeros(2), torch.zeros(2))
    assert q.log_prob(torch.tensor([[1.0, 0.0], [3.0, 4.0]])).tolist() == [-math.inf, -math.inf]


# ------------------------------------------------------------------- recipes


def losses(name: str, condition: bool = False, **own: object) -> dict:
    torch.manual_seed(0)
    more = {"condition": {"n_labels": 3, "vector_dim": 0, "dropout": 0.0}} if condition else {}
    plan = build(name, (5,), latent_dim=3, hidden=(8,), **own, **more)
    c = RawCondition(label=torch.arange(12) % 3) if condition else None
    batch = Batch(torch.randn(12, 5), c)
    return plan.objective(plan.model.trace(batch, k=plan.objective.samples, noise=Noise(0)))


@pytest.mark.parametrize("own", [{}, {"profile": "power"}])
def test_the_closed_divergence_is_used_and_right(own):
    plan = build("svae", (5,), latent_dim=3, hidden=(8,), **own)
    batch = Batch(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    trace = plan.model.trace(batch, k=20_000, noise=Noise(0))
    closed, sampled = (KL(closed=closed)(trace)["kl"].rows for closed in (True, False))
    error = (trace.levels[0].log_posterior - trace.levels[0].log_prior).std(0) / 20_000**0.5
    assert ((closed - sampled).abs() < 5 * error).all()


@pytest.mark.parametrize("name", ["svae", "poincare-vae"])
def test_a_conditional_importance_weighted_one_is_one_call(name):
    assert list(losses(name)) == ["nll", "kl"]
    terms = losses(name, condition=True, k=4)
    assert list(terms) == ["iwae", "nll", "kl"]
    assert terms["iwae"].rows.isfinite().all()


@pytest.mark.parametrize("name", ["svae", "poincare-vae"])
def test_one_importance_sample_has_the_gradient_of_the_bound(name):
    """What is logged without a gradient must not take it from what is minimized."""
    plan = build(name, (5,), latent_dim=3, hidden=(8,))
    plan.model.eval()  # the noise is not estimated on the way
    batch, found = Batch(torch.randn(12, 5, generator=torch.Generator().manual_seed(0))), []
    for objective in (IWAE(1), NegLogLik() + KL(closed=False)):
        terms = objective(plan.model.trace(batch, k=1, noise=Noise(0)))
        loss = sum(term.value() for term in terms.values())
        found.append(torch.autograd.grad(loss, list(plan.model.posterior.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("svae", (5,), latent_dim=1), "two points: use latent_dim=2"),
        (lambda: build("svae", (5,), profile="powder"), "unknown profile 'powder': did you mean 'power'"),
        (lambda: build("svae", (5,), k=0), "one sample or more"),
        (lambda: build("poincare-vae", (5,), curvature=0.0), "above 0; for a flat space use recipe 'vae'"),
        (lambda: build("poincare-vae", (5,), curvature=-1.0), "above 0"),
        (
            lambda: assemble((5,), posterior="sphere", objective=NegLogLik() + KL()),
            "gives codes on a sphere, and prior='standard-normal' has them all over R",
        ),
        (
            lambda: assemble(
                (5,),
                posterior=("poincare", {"curvature": 2.0}),
                prior="wrapped-normal",
                objective=NegLogLik() + KL(),
                corruption=0.1,
            ),
            "choose two that share a space",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(PlanError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return load_digits().images / 16


@pytest.fixture(scope="module", params=["svae", "poincare-vae"])
def fitted(request, digits) -> ct.Autoencoder:
    model = ct.Autoencoder(recipe=request.param, latent_dim=3, hidden=(64,), max_epochs=8, random_state=0)
    return model.fit(digits[:600])


def norms(model: ct.Autoencoder, codes: np.ndarray) -> tuple[float, float]:
    lengths = np.linalg.norm(codes, axis=-1)
    return (
        (lengths.min(), lengths.max()) if model.recipe == "svae" else (1.0, 1.0 + max(0, lengths.max() - 1))
    )


def test_codes_stay_where_they_can_lie(fitted, digits):
    codes, std = fitted.transform(digits[600:700], return_std=True)
    drawn = fitted.sample_posterior(digits[600:700], 50, random_state=0)
    for lot in (codes, drawn):
        assert norms(fitted, lot) == pytest.approx((1, 1), abs=1e-5)
    assert np.median(drawn.std(0) / std) == pytest.approx(1, abs=0.25)
    # A straight line is brought back: what is decoded is what lies there.
    line = fitted.interpolate(digits[0], digits[1], steps=5)
    ends = fitted.transform(digits[:2])
    middle = fitted.model_.onto(torch.tensor(ends.mean(0, keepdims=True))).numpy()
    assert norms(fitted, middle) == pytest.approx((1, 1), abs=1e-5)
    np.testing.assert_allclose(fitted.inverse_transform(middle)[0], line[2], atol=1e-4)
    # So is a code of the user's, and what a fitted density draws.
    np.testing.assert_allclose(*(fitted.inverse_transform(z) for z in (5 * ends, 9 * ends)), atol=1e-2)


def test_what_a_curved_space_cannot_do_is_said(fitted, digits):
    with pytest.raises(PlanError, match="no dimension can be held"):
        fitted.sample(2, hold={0: 0.5})
    with pytest.raises(PlanError, match="use method='importance'"):
        fitted.log_likelihood(digits[:2], method="ais", n_importance=2)


def test_a_fitted_density_is_sampled_where_codes_can_lie(fitted, digits):
    before = fitted.sample(200, random_state=0)
    try:
        after = fitted.fit_prior("gmm", random_state=0).sample(200, random_state=0)
        assert np.isfinite(after).all()
        assert not np.array_equal(before, after)
    finally:
        fitted.fit_prior(None)
    np.testing.assert_array_equal(fitted.sample(200, random_state=0), before)


@pytest.mark.filterwarnings("ignore:the weights of")
def test_scores_agree_with_many_samples(fitted, digits):
    """The bound by shared noise, against importance sampling with noise of its own."""
    bound = fitted.score_samples(digits[600:620], n_importance=256)
    value, error = fitted.log_likelihood(digits[600:620], n_importance=1000, random_state=0)
    assert (np.abs(bound - value) < 1 + 5 * error).mean() > 0.9


def test_density_on_the_manifold_counts_its_dimensions(fitted, digits):
    """log p(x) on the decoded surface, by the areas of small patches of codes."""
    X = digits[600:603]
    found = fitted.manifold_log_density(X)
    model, codes = fitted.model_, torch.from_numpy(fitted.transform(X)).double()
    p = model.prior()
    decode = fitted.chart().decode
    for row, z in zip(found, codes, strict=True):
        if fitted.recipe == "svae":
            basis = torch.linalg.svd(z[None])[2][1:]  # of the tangent plane
        else:
            basis = torch.eye(3, dtype=torch.float64)
        h = 1e-2
        ends = [decode((z + s * h * basis).float()).flatten(1).double() for s in (1, -1)]
        J = (ends[0] - ends[1]).detach() / (2 * h)
        expected = float(p.log_prob(z)) - 0.5 * float(torch.logdet(J @ J.mT))
        assert row == pytest.approx(expected, abs=0.15)


def on_sphere(d: int, known: float) -> Chart:
    """x = z + noise of ``known``⁻¹ᐟ²: q(z | x) is von Mises-Fisher with κ = known |x|, exactly."""

    def q(x: Tensor) -> Zonal:
        return Zonal(F.normalize(x, dim=1), known * x.norm(dim=1))

    return Chart(
        encode=lambda x: q(x).point(),
        decode=lambda z: F.normalize(z, dim=1),
        posterior=q,
        observe=lambda z, noise: F.normalize(z, dim=1) + known**-0.5 * noise.normal(z.shape, z),
        prior=lambda c: UniformSphere(d),
        latent_dim=d,
    )


@pytest.mark.parametrize(("d", "known"), [(3, 4.0), (8, 1.0)])
def test_exact_posteriors_on_a_sphere_are_as_wide_as_they_say(d, known):
    x = directions(600, d).float()
    x = x + known**-0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert ct.audit(on_sphere(d, known), x, only="sigma")["sigma"].verdict == "ok"
    sure = replace(on_sphere(d, known), observe=on_sphere(d, known / 4).observe)
    assert ct.audit(sure, x, only="sigma")["sigma"].verdict in ("warn", "fail")


def test_a_posterior_that_leaves_its_sphere_alone_uses_no_dimension():
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    for known, verdict, used in ((1e-3, "fail", 0), (1e3, "ok", 2)):
        report = ct.audit(on_sphere(3, known), x, only=["active-dimensions", "sigma-informative"])
        assert report["active-dimensions"].verdict == verdict
        assert report["active-dimensions"].also["active"] == used
        assert report["active-dimensions"].also["latent"] == 2
    collapsed = ct.audit(on_sphere(3, 1e-3), x, only="sigma-informative")["sigma-informative"]
    assert "no latent dimension is used" in collapsed.says


def test_a_circle_is_one_dimension_for_items_of_two():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    finding = ct.audit(on_sphere(2, 10.0), x, only="latent-dimension")["latent-dimension"]
    assert finding.also["d"] == 1
    assert finding.verdict == "fail"


def test_an_audit_runs(fitted, digits):
    report = ct.audit(
        fitted, digits[600:900], only=["reconstruction", "prior-match", "density-gain", "bound"]
    )
    assert len(report.findings) == 4
    if fitted.recipe == "svae":
        assert report["density-gain"].verdict == "cannot tell"
