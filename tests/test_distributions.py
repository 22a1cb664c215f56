"""Distributions against closed forms, scipy, torch and Monte Carlo; noise, and what it depends on."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.core.noise import Noise, RowNoise, SharedNoise
from chartae.parts.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Delta,
    DiagonalNormal,
    FullNormal,
    Laplace,
    NegativeBinomial,
    NormalMixture,
    Poisson,
    StandardNormal,
    StudentT,
    Zonal,
    kl,
)
from chartae.parts.distributions.divergences import _CLOSED
from chartae.parts.networks import MLP, damp
from chartae.parts.posteriors import FullNormalPosterior, NormalPosterior, bounded


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tril(*batch: int, d: int = 3, seed: int = 0) -> Tensor:
    factor = torch.tril(random(*batch, d, d, seed=seed), -1)
    return factor + torch.diag_embed(0.3 + random(*batch, d, seed=seed + 1).abs())


#: One of each kind, with batch shape (4,) where it has one and event shape (3,).
MAKE = {
    DiagonalNormal: lambda seed: DiagonalNormal(random(4, 3, seed=seed), random(4, 3, seed=seed + 50)),
    StandardNormal: lambda seed: StandardNormal(3),
    FullNormal: lambda seed: FullNormal(random(4, 3, seed=seed), tril(4, seed=seed + 50)),
    Bernoulli: lambda seed: Bernoulli(2 * random(4, 3, seed=seed)),
    Categorical: lambda seed: Categorical(2 * random(4, 3, 5, seed=seed)),
}
NORMAL = [pair for pair in _CLOSED if set(pair) <= MAKE.keys()]  # those on spheres: tests/test_manifolds.py
each = pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)


def reference(p: Distribution) -> torch.distributions.Distribution:
    """The same distribution, as torch has it."""
    tds = torch.distributions
    match p:
        case DiagonalNormal():
            return tds.Independent(tds.Normal(p.mean, p.std()), p.event_dims)
        case StandardNormal():
            return tds.Independent(tds.Normal(torch.zeros(p.d), torch.ones(p.d)), 1)
        case FullNormal():
            return tds.MultivariateNormal(p.mean, scale_tril=p.scale_tril)
        case Bernoulli():
            return tds.Independent(tds.Bernoulli(logits=p.logits), p.event_dims)
        case Categorical():
            return tds.Independent(tds.Categorical(logits=p.logits), p.event_dims)
    raise AssertionError


# ------------------------------------------------------------------- densities


@each
def test_log_prob_is_torch_s(kind):
    p = MAKE[kind](0)
    v = reference(p).sample((7,))
    expected = reference(p).log_prob(v)
    torch.testing.assert_close(p.log_prob(v), expected, check_dtype=False, rtol=1e-5, atol=1e-6)


def test_log_prob_is_scipy_s():
    mean, log_var, L, v = random(3), random(3, seed=1), tril(seed=2), random(3, seed=3)
    std = (0.5 * log_var).exp()
    normal = scipy.stats.norm(mean, std).logpdf(v)
    np.testing.assert_allclose(DiagonalNormal(mean, log_var).log_prob(v, per_dim=True), normal)
    full = scipy.stats.multivariate_normal(mean, L @ L.T).logpdf(v)
    np.testing.assert_allclose(FullNormal(mean, L).log_prob(v), full)
    np.testing.assert_allclose(StandardNormal(3).log_prob(v), scipy.stats.norm().logpdf(v).sum())
    k = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    mass = scipy.stats.bernoulli(torch.sigmoid(mean)).logpmf(k)
    np.testing.assert_allclose(Bernoulli(mean).log_prob(k, per_dim=True), mass)


@pytest.mark.parametrize(
    "p",
    [
        DiagonalNormal(torch.tensor([0.7]), torch.tensor([-1.0])),
        DiagonalNormal(torch.tensor([0.7]), torch.tensor(1.0)),
        StandardNormal(1),
        FullNormal(torch.tensor([-0.4]), torch.tensor([[1.7]])),
    ],
    ids=lambda p: type(p).__name__,
)
def test_a_density_integrates_to_one(p):
    v = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None]
    assert float(torch.trapezoid(p.log_prob(v).exp(), v[:, 0])) == pytest.approx(1, abs=1e-6)


def test_a_mass_sums_to_one():
    p = Bernoulli(random(3))
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).double()
    assert float(p.log_prob(every).exp().sum()) == pytest.approx(1)
    p = Categorical(random(2, 5))
    every = torch.cartesian_prod(*[torch.arange(5.0)] * 2)
    assert float(p.log_prob(every).exp().sum()) == pytest.approx(1)


@each
def test_per_dim_sums_to_the_whole(kind):
    p = MAKE[kind](1)
    v = reference(p).sample((6,))
    split = p.log_prob(v, per_dim=True)
    assert split.shape == (6, *p.batch_shape, 3)
    torch.testing.assert_close(split.sum(-1), p.log_prob(v))


def test_per_dim_of_a_full_normal_is_its_conditionals():
    """log p(v_1), log p(v_2 | v_1), ...: each is a difference of marginal log densities."""
    mean, L, v = random(3), tril(seed=2), random(3, seed=3)
    covariance = (L @ L.T).numpy()
    marginal = [0.0] + [
        scipy.stats.multivariate_normal(mean[:i], covariance[:i, :i]).logpdf(v[:i]) for i in (1, 2, 3)
    ]
    np.testing.assert_allclose(FullNormal(mean, L).log_prob(v, per_dim=True), np.diff(marginal))


# ------------------------------------------------------------------- shapes


@given(
    k=st.integers(1, 4),
    batch=st.lists(st.integers(1, 3), max_size=2),
    event=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    kind=st.sampled_from([DiagonalNormal, Bernoulli, Categorical]),
    scalar=st.booleans(),
)
@settings(max_examples=60)
def test_shapes(k, batch, event, kind, scalar):
    shape, dims = (*batch, *event), len(event)
    log_var = torch.zeros(() if scalar else shape)
    p = {
        DiagonalNormal: lambda: DiagonalNormal(torch.zeros(shape), log_var, dims),
        Bernoulli: lambda: Bernoulli(torch.zeros(shape), dims),
        Categorical: lambda: Categorical(torch.zeros(*shape, 4), dims),
    }[kind]()
    assert p.batch_shape == tuple(batch)
    assert p.event_shape == tuple(event)
    assert p.point().shape == shape
    z = p.draw(k, Noise(0)).z
    assert z.shape == (k, *shape)
    assert p.log_prob(z).shape == (k, *batch)
    assert p.log_prob(z, per_dim=True).shape == (k, *shape)
    one = torch.zeros(tuple(event))
    assert p.log_prob(one).shape == tuple(batch)  # one value against a batch of distributions


def test_samples_and_rows_broadcast():
    """Rows (n, *event) against distributions of batch (k, n): what a likelihood of k samples is asked for."""
    x = torch.randint(0, 2, (5, 2, 3)).float()
    for p in (
        DiagonalNormal(torch.randn(4, 5, 2, 3), torch.tensor(0.3), 2),
        DiagonalNormal(torch.randn(4, 5, 2, 3), torch.randn(2, 3), 2),
        Bernoulli(torch.randn(4, 5, 2, 3), 2),
        Categorical(torch.randn(4, 5, 2, 3, 6), 2),
    ):
        together = p.log_prob(x)
        assert together.shape == (4, 5)
        torch.testing.assert_close(together, p.log_prob(x.expand(4, 5, 2, 3)))


def test_one_variance_for_all_is_a_variance_for_each():
    mean, v = random(4, 3), random(7, 4, 3, seed=1)
    scalar = DiagonalNormal(mean, torch.tensor(-1.2, dtype=torch.float64))
    each_one = DiagonalNormal(mean, torch.full((4, 3), -1.2, dtype=torch.float64))
    torch.testing.assert_close(scalar.log_prob(v), each_one.log_prob(v))
    torch.testing.assert_close(scalar.std(), each_one.std())
    assert torch.equal(scalar.draw(2, Noise(0)).z, each_one.draw(2, Noise(0)).z)


# ------------------------------------------------------------------- draws


@each
def test_draws_have_the_moments(kind):
    p = MAKE[kind](3)
    k = 40_000
    z = p.draw(k, Noise(5)).z.double()
    ours = reference(p)
    if kind is Categorical:
        values = torch.arange(5).double()
        mean = (p.logits.softmax(-1) * values).sum(-1)
        variance = (p.logits.softmax(-1) * values**2).sum(-1) - mean**2
    elif kind is FullNormal:
        mean, variance = p.mean, p.std() ** 2
    else:
        mean, variance = ours.mean.double(), ours.variance.double()
    # Up to 12 means at five standard errors: a false alarm in 10^5 runs.
    assert ((z.mean(0) - mean).abs() < 5 * (variance / k).sqrt()).all()
    fourth = ((z - mean) ** 4).mean(0)
    error = ((fourth - variance**2) / k).sqrt()
    assert (((z - mean).square().mean(0) - variance).abs() < 5 * error + 1e-12).all()


@each
def test_draws_follow_the_density(kind):
    """E[-log p(v)] of draws is the entropy: five standard errors, one false alarm in 10^6 runs."""
    p = MAKE[kind](4)
    rows = -p.log_prob(p.draw(20_000, Noise(6)).z).double()
    expected = reference(p).entropy().double()
    error = rows.std(0) / math.sqrt(20_000)
    assert ((rows.mean(0) - expected).abs() < 5 * error).all()


def test_a_full_normal_s_draws_are_correlated_as_it_says():
    p = FullNormal(random(3), tril(seed=1))
    z = p.draw(200_000, Noise(0)).z
    expected = p.scale_tril @ p.scale_tril.T
    error = float(expected.max()) * math.sqrt(2 / 200_000)
    np.testing.assert_allclose(np.cov(z.numpy().T), expected, atol=5 * error)


def test_draws_carry_gradients_where_they_can():
    mean, log_var = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    noise = Noise(0).normal((1, 2, 3), mean)
    DiagonalNormal(mean, log_var).draw(1, Noise(0)).z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(2, 3))
    torch.testing.assert_close(log_var.grad, 0.5 * noise[0])
    value = torch.zeros(2, 3, requires_grad=True)
    Delta(value).draw(4, Noise(0)).z.sum().backward()
    torch.testing.assert_close(value.grad, torch.full((2, 3), 4.0))


def test_point_is_the_mean_or_the_mode():
    assert torch.equal(DiagonalNormal(torch.tensor([2.0]), torch.tensor([0.0])).point(), torch.tensor([2.0]))
    torch.testing.assert_close(Bernoulli(torch.tensor([0.0, 100.0])).point(), torch.tensor([0.5, 1.0]))
    assert Categorical(torch.tensor([[0.0, 3.0, 1.0]])).point().tolist() == [1.0]
    assert StandardNormal(2).point().tolist() == [0.0, 0.0]


def test_a_delta_has_no_density():
    p = Delta(torch.ones(5, 2))
    assert "log_prob" not in p.offers
    assert torch.equal(p.draw(3, Noise(0)).z, torch.ones(3, 5, 2))
    assert not p.std().any()
    with pytest.raises(NotImplementedError, match="no density"):
        p.log_prob(torch.ones(2))


# ------------------------------------------------------------------- extremes


def test_bernoulli_is_finite_where_a_sigmoid_saturates():
    logits = torch.tensor([-1e4, 1e4, -200.0, 200.0], requires_grad=True)
    for v in (torch.zeros(4), torch.ones(4), torch.full((4,), 0.5)):
        value = Bernoulli(logits).log_prob(v)
        (gradient,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
    assert Bernoulli(torch.tensor([200.0])).log_prob(torch.ones(1)) == 0


@given(
    scale=st.floats(0.1, 300), seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_bernoulli_is_the_same_without_a_graph(scale, seed, dtype):
    logits = (scale * random(3, 50, seed=seed)).to(dtype)
    v = random(2, 3, 50, seed=seed + 1).to(dtype).sigmoid()
    v[0] = v[0].round()
    p = Bernoulli(logits.requires_grad_())
    whole = p.log_prob(v, per_dim=True)
    with torch.no_grad():
        torch.testing.assert_close(p.log_prob(v, per_dim=True), whole.detach(), rtol=3e-6, atol=2e-6)
        torch.testing.assert_close(p.log_prob(v), whole.detach().sum(-1), rtol=3e-6, atol=1e-4)


def test_bernoulli_of_a_gray_value_is_the_cross_entropy():
    logits, v = random(5), torch.linspace(0, 1, 5, dtype=torch.float64)
    p = torch.sigmoid(logits)
    expected = v * p.log() + (1 - v) * (1 - p).log()
    torch.testing.assert_close(Bernoulli(logits).log_prob(v, per_dim=True), expected)


def test_categorical_draws_stay_in_range():
    logits = torch.tensor([[0.0, -1e4, -1e4], [-1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    z = Categorical(logits).draw(5000, Noise(0)).z
    assert z.min() >= 0
    assert z.max() <= 2
    assert (z[:, 0] == 0).all()
    assert (z[:, 1] == 2).all()


@given(st.floats(-1e30, 1e30))
def test_log_variances_are_bounded_smoothly(value):
    t = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    out = bounded(t)
    (gradient,) = torch.autograd.grad(out, t)
    assert -20 <= out <= 20
    assert 0 <= gradient <= 1
    assert torch.isfinite(out.exp())
    if abs(value) < 1:
        assert float(out.detach()) == pytest.approx(value, abs=1e-3)


# ------------------------------------------------------------------- values of other kinds


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


#: Of one value each, and what scipy calls it.
ONE = {
    "laplace": (Laplace(scalar(0.4), scalar(-0.7), 0), scipy.stats.laplace(0.4, math.exp(-0.7))),
    "student": (
        StudentT(scalar(0.4), scalar(0.3), scalar(1.1), 0),
        scipy.stats.t(math.exp(1.1), 0.4, math.exp(0.3)),
    ),
    "cauchy-like": (StudentT(scalar(0), scalar(0), scalar(-0.5), 0), scipy.stats.t(math.exp(-0.5))),
    "poisson": (Poisson(scalar(1.3), 0), scipy.stats.poisson(math.exp(1.3))),
    "rare": (Poisson(scalar(-3.0), 0), scipy.stats.poisson(math.exp(-3.0))),
    "negative-binomial": (
        NegativeBinomial(scalar(1.3), scalar(0.2), 0),
        scipy.stats.nbinom(math.exp(0.2), 1 / (1 + math.exp(1.1))),
    ),
    "overdispersed": (
        NegativeBinomial(scalar(1.0), scalar(-2.0), 0),
        scipy.stats.nbinom(math.exp(-2.0), 1 / (1 + math.exp(3.0))),
    ),
    "rising": (ContinuousBernoulli(scalar(3.0), 0), scipy.stats.truncexpon(3.0, 1.0, -1 / 3.0)),
    "falling": (ContinuousBernoulli(scalar(-3.0), 0), scipy.stats.truncexpon(3.0, 0.0, 1 / 3.0)),
}
# A truncated exponential falls; its mirror image rises.
RISING = ONE.pop("rising")[0]
one = pytest.mark.parametrize("name", ONE)
COUNTS = (Poisson, NegativeBinomial)


@one
def test_the_others_are_scipy_s(name):
    p, theirs = ONE[name]
    q = np.array([0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
    v = theirs.ppf(q)
    expected = theirs.logpmf(v) if isinstance(p, COUNTS) else theirs.logpdf(v)
    np.testing.assert_allclose(p.log_prob(torch.as_tensor(v)), expected, rtol=1e-8, atol=1e-9)
    if name != "cauchy-like":  # which has no mean: its point is the center
        np.testing.assert_allclose(p.point(), theirs.mean(), rtol=1e-9)


def test_a_rising_continuous_bernoulli_mirrors_a_falling_one():
    v, falling = torch.linspace(0, 1, 7, dtype=torch.float64), ONE["falling"][0]
    torch.testing.assert_close(RISING.log_prob(v), falling.log_prob(1 - v))
    torch.testing.assert_close(RISING.point(), 1 - falling.point())


@one
def test_draws_of_the_others_follow_their_distribution_functions(name):
    """Eight tests, one false alarm in 10,000 seeds each."""
    p, theirs = ONE[name]
    z = p.draw(20_000, Noise(1)).z.numpy()
    if isinstance(p, COUNTS):
        values = np.arange(int(theirs.ppf(0.999)))
        seen = np.array([(z == value).sum() for value in values])
        expected = 20_000 * theirs.pmf(values)
        keep = expected > 5
        seen, expected = seen[keep], expected[keep]
        rest = [20_000 - seen.sum(), 20_000 - expected.sum()]
        if rest[1] > 5:
            seen, expected = np.append(seen, rest[0]), np.append(expected, rest[1])
            pvalue = scipy.stats.chisquare(seen, expected).pvalue
        else:
            pvalue = scipy.stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue
        assert pvalue > 1e-4
        assert (z == z.round()).all()
    else:
        assert scipy.stats.kstest(z, theirs.cdf).pvalue > 1e-4


def test_every_mass_and_density_is_whole():
    for log_r in (-2.0, 0.0, 3.0, 12.0, 40.0):
        counts = torch.arange(20_000, dtype=torch.float64)
        p = NegativeBinomial(scalar(2.0), scalar(log_r), 0)
        assert float(p.log_prob(counts).exp().sum()) == pytest.approx(1, abs=1e-9)
    assert float(Poisson(scalar(7.0), 0).log_prob(counts).exp().sum()) == pytest.approx(1, abs=1e-9)
    v = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    for eta in (-40.0, -0.6, -0.4, 0.0, 1e-6, 0.499, 0.501, 40.0):
        mass = torch.trapezoid(ContinuousBernoulli(scalar(eta), 0).log_prob(v).exp(), v)
        assert float(mass) == pytest.approx(1, abs=1e-5)
        mean = torch.trapezoid(ContinuousBernoulli(scalar(eta), 0).log_prob(v).exp() * v, v)
        assert float(ContinuousBernoulli(scalar(eta), 0).point()) == pytest.approx(float(mean), abs=1e-5)
    v = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    mixture = NormalMixture(random(5), 3 * random(5, seed=1), random(5, seed=2), 0)
    assert float(torch.trapezoid(mixture.log_prob(v).exp(), v)) == pytest.approx(1, abs=1e-6)
    mean = torch.trapezoid(mixture.log_prob(v).exp() * v, v)
    torch.testing.assert_close(mixture.point(), mean, rtol=1e-5, atol=1e-5)


def test_limits():
    v = random(20) * 3
    normal = DiagonalNormal(scalar(0.5), scalar(-0.8), 0).log_prob(v)
    far = StudentT(scalar(0.5), scalar(-0.4), scalar(35.0), 0)
    torch.testing.assert_close(far.log_prob(v), normal)
    alone = NormalMixture(torch.zeros(1).double(), scalar(0.5).reshape(1), scalar(-0.4).reshape(1), 0)
    torch.testing.assert_close(alone.log_prob(v), normal)
    alike = NormalMixture(random(4), scalar(0.5).expand(4), scalar(-0.4).expand(4), 0)
    torch.testing.assert_close(alike.log_prob(v), normal)
    counts = torch.arange(60.0).double()
    poisson = Poisson(scalar(2.5), 0).log_prob(counts)
    torch.testing.assert_close(NegativeBinomial(scalar(2.5), scalar(38.0), 0).log_prob(counts), poisson)
    uniform = ContinuousBernoulli(scalar(0.0), 0)
    assert not uniform.log_prob(torch.linspace(0, 1, 5).double()).any()
    assert uniform.point() == 0.5


def test_draws_of_a_mixture_have_its_distribution_function():
    """One false alarm in 10,000 seeds."""
    logits, mean, log_scale = random(3), 2 * random(3, seed=1), random(3, seed=2)
    weights = logits.softmax(-1).numpy()

    def cdf(v):
        return sum(
            w * scipy.stats.norm.cdf(v, m, s)
            for w, m, s in zip(weights, mean.numpy(), log_scale.exp().numpy(), strict=True)
        )

    z = NormalMixture(logits, mean, log_scale, 0).draw(20_000, Noise(2)).z.numpy()
    assert scipy.stats.kstest(z, cdf).pvalue > 1e-4


def others(dtype: torch.dtype, size: float = 1.0) -> list[tuple[type, list[Tensor], Tensor]]:
    """Kinds, parameters of shape (6,), and values."""
    a, b, c = (size * random(6, seed=seed).to(dtype) for seed in (1, 2, 3))
    v, counts = random(6, seed=4).to(dtype), torch.tensor([0, 1, 2, 5, 40, 300], dtype=dtype)
    return [
        (Laplace, [a, b], v),
        (StudentT, [a, b, c], v),
        (Poisson, [a], counts),
        (NegativeBinomial, [a, b], counts),
        (ContinuousBernoulli, [a], v.sigmoid()),
        (NormalMixture, [torch.stack([t, -t], -1) for t in (a, b, c)], v),
    ]


@pytest.mark.parametrize("size", [0.1, 1.0, 8.0])
def test_gradients_are_those_of_the_log_density(size):
    for kind, parameters, v in others(torch.float64, size):
        inputs = [t.clone().requires_grad_() for t in parameters]
        assert torch.autograd.gradcheck(
            lambda *t, kind=kind, v=v: kind(*t).log_prob(v, per_dim=True), inputs, rtol=1e-3, atol=1e-4
        )


def test_gradients_are_finite_at_extremes():
    ends = torch.tensor([-30.0, -12.0, -1e-8, 0.0, 1e-8, 12.0, 30.0])
    first, second = (t.flatten() for t in torch.meshgrid(ends, ends, indexing="ij"))
    for kind, count in ((StudentT, 3), (Laplace, 2), (NegativeBinomial, 2), (Poisson, 1)):
        for value in (0.0, 1.0, 1000.0):
            inputs = [t.clone().requires_grad_() for t in (first, second, second)[:count]]
            out = kind(*inputs).log_prob(torch.tensor(value), per_dim=True)
            assert out.isfinite().all(), (kind, value)
            for gradient in torch.autograd.grad(out.sum(), inputs):
                assert gradient.isfinite().all(), (kind, value)
    eta = torch.tensor([-1e4, -88.0, -0.5, 0.0, 1e-20, 0.5, 88.0, 1e4], requires_grad=True)
    p = ContinuousBernoulli(eta)
    for out in (p.log_prob(torch.zeros(1)), p.log_prob(torch.ones(1)), p.point().sum()):
        (gradient,) = torch.autograd.grad(out, eta)
        assert out.isfinite()
        assert gradient.isfinite().all()
    # d log p / dη is v less the mean, also where a branch meets the other.
    (gradient,) = torch.autograd.grad(ContinuousBernoulli(eta).log_prob(torch.tensor(0.25)), eta)
    torch.testing.assert_close(gradient, 0.25 - p.point().detach(), rtol=1e-5, atol=1e-6)


def test_float32_has_the_digits():
    """Where differences of log gammas would have lost them: at a million counts, a third of a nat."""
    log_r = torch.linspace(-12, 30, 60)
    for mean, count in ((1e5, 1e4), (1e6, 1e5), (3e6, 1e6), (1e5, 1e6)):  # geometric
        single, double = (
            NegativeBinomial(torch.tensor(math.log(mean), dtype=dtype), torch.zeros((), dtype=dtype), 0)
            .log_prob(torch.tensor(count))
            .double()
            for dtype in (torch.float32, torch.float64)
        )
        exact = -count * math.log1p(1 / mean) - math.log1p(mean)
        assert double.item() == pytest.approx(exact, rel=3e-8)
        assert single.item() == pytest.approx(exact, rel=3e-6)
    for mean, count in ((1e-3, 1.0), (5.0, 4.0), (1e3, 1.2e3), (1e6, 1.001e6), (1e6, 3.0), (2.0, 5e3)):
        log_mean = torch.full((60,), math.log(mean))
        single = NegativeBinomial(log_mean, log_r, 0).log_prob(torch.tensor(count))
        double = NegativeBinomial(log_mean.double(), log_r.double(), 0).log_prob(scalar(count))
        torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-2)
        single, double = (
            Poisson(t, 0).log_prob(torch.tensor(count)) for t in (log_mean[:1], log_mean[:1].double())
        )
        torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-2)
    spread = log_r[log_r < 0]  # more than a mean says: count and mean are beyond it, and near each other
    for count in (1e5, 1e6, 1e8):
        for gap in (-0.9, -0.01, 0.0, 0.3, 0.9):
            log_mean = torch.full_like(spread, math.log(count) + gap, requires_grad=True)
            fine = log_mean.detach().double().requires_grad_()
            single = NegativeBinomial(log_mean, spread, 0).log_prob(torch.tensor(count))
            double = NegativeBinomial(fine, spread.double(), 0).log_prob(scalar(count))
            torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-5)
            slopes = (torch.autograd.grad(v.sum(), at)[0] for v, at in ((single, log_mean), (double, fine)))
            torch.testing.assert_close(next(slopes).double(), next(slopes), rtol=1e-4, atol=1e-5)
    for v in (0.0, 0.3, 30.0, 3e4):
        single = StudentT(torch.zeros(60), torch.zeros(60), log_r, 0).log_prob(torch.tensor(v))
        double = StudentT(torch.zeros(60).double(), scalar(0), log_r.double(), 0).log_prob(scalar(v))
        torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-5)
    eta = torch.linspace(-60, 60, 241)
    single, double = ContinuousBernoulli(eta, 0), ContinuousBernoulli(eta.double(), 0)
    v = torch.tensor(0.3)
    torch.testing.assert_close(single.log_prob(v).double(), double.log_prob(v), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(single.point().double(), double.point(), rtol=1e-5, atol=1e-6)


@given(
    k=st.integers(1, 3),
    batch=st.lists(st.integers(1, 3), max_size=2),
    event=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
@settings(max_examples=20)
def test_shapes_of_the_others(k, batch, event):
    shape, dims = (*batch, *event), len(event)
    zero, step = torch.zeros(shape), torch.full(tuple(event), 0.25)
    many = torch.zeros(*shape, 4)
    for p in (
        Laplace(zero, torch.tensor(0.0), dims),
        StudentT(zero, torch.tensor(0.0), torch.zeros(tuple(event)), dims),
        Poisson(zero, dims, step),
        NegativeBinomial(zero, torch.tensor(0.0), dims, step),
        ContinuousBernoulli(zero, dims),
        NormalMixture(many, many, many, dims),
    ):
        assert (p.batch_shape, p.event_shape) == (tuple(batch), tuple(event))
        assert p.point().shape == shape
        z = p.draw(k, Noise(0)).z
        assert z.shape == (k, *shape)
        assert p.log_prob(z).shape == (k, *batch)
        assert p.log_prob(z, per_dim=True).shape == (k, *shape)
        assert p.log_prob(torch.zeros(tuple(event))).shape == tuple(batch)


@pytest.mark.parametrize("kind", COUNTS)
def test_counts_on_a_scale(kind):
    """The same masses, whatever one count is called, for each value apart."""
    parameters = [random(4, 3), scalar(0.5)][: 1 if kind is Poisson else 2]
    step = torch.tensor([1.0, 0.1, 3.0]).double()
    whole, scaled = kind(*parameters), kind(*parameters, step=step)
    z = whole.draw(50, Noise(0)).z
    torch.testing.assert_close(scaled.draw(50, Noise(0)).z, step * z)
    torch.testing.assert_close(scaled.point(), step * whole.point())
    torch.testing.assert_close(scaled.log_prob((step * z).float()), whole.log_prob(z))


def test_draws_of_the_others_are_finite_at_the_ends_of_the_uniform():
    class Ends(Noise):
        def uniform(self, shape, like):
            return torch.linspace(0, 1, 5).expand(shape)

    zero = torch.zeros(5)
    for p in (Laplace(zero, zero), StudentT(zero, zero, zero), ContinuousBernoulli(zero + 3)):
        assert p.draw(2, Ends()).z.isfinite().all()


def test_gamma_and_poisson_noise():
    """Means and variances at five standard errors: a false alarm in 400,000 seeds."""
    shape = torch.tensor([0.2, 3.0, 50.0])
    gamma, poisson = Noise(0).gamma(shape.expand(40_000, 3)), Noise(0).poisson(shape.expand(40_000, 3))
    assert torch.equal(gamma, Noise(0).gamma(shape.expand(40_000, 3)))
    assert torch.equal(poisson, Noise(0).poisson(shape.expand(40_000, 3)))
    for draws in (gamma, poisson):
        assert ((draws.mean(0) - shape).abs() < 5 * (shape / 40_000).sqrt()).all()
        spread = (((draws - shape) ** 4).mean(0) / 40_000).sqrt()
        assert ((draws.var(0) - shape).abs() < 5 * spread).all()


# ------------------------------------------------------------------- KL


@pytest.mark.parametrize("pair", NORMAL, ids=lambda pair: " ".join(kind.__name__ for kind in pair))
def test_closed_kl_is_the_monte_carlo_kl(pair):
    """24 means and as many splits by three at five standard errors: a false alarm in 15,000 runs."""
    q, p = MAKE[pair[0]](10), MAKE[pair[1]](20)
    closed = kl(q, p)
    assert closed.shape[0] == 4
    z = q.draw(100_000, Noise(0)).z
    rows = q.log_prob(z) - p.log_prob(z)
    error = rows.std(0) / math.sqrt(len(z))
    assert ((closed.sum(1) - rows.mean(0)).abs() < 5 * error).all()
    if closed.shape[1] > 1:
        split = q.log_prob(z, per_dim=True) - p.log_prob(z, per_dim=True)
        error = split.std(0) / math.sqrt(len(z))
        assert ((closed - split.mean(0)).abs() < 5 * error).all()


@pytest.mark.parametrize("pair", NORMAL, ids=lambda pair: " ".join(kind.__name__ for kind in pair))
def test_closed_kl_is_torch_s(pair):
    q, p = MAKE[pair[0]](11), MAKE[pair[1]](21)

    def full(d: Distribution) -> torch.distributions.MultivariateNormal:
        if isinstance(d, FullNormal):
            return torch.distributions.MultivariateNormal(d.mean, scale_tril=d.scale_tril)
        mean, std = (t.double().expand(4, 3) for t in (d.point(), d.std()))
        return torch.distributions.MultivariateNormal(mean, scale_tril=torch.diag_embed(std))

    torch.testing.assert_close(kl(q, p).sum(1), torch.distributions.kl_divergence(full(q), full(p)))


def test_one_full_prior_for_all_rows():
    q = DiagonalNormal(random(4, 3), random(4, 3, seed=1))
    mean, L = random(3, seed=2), tril()
    one, tiled = FullNormal(mean, L), FullNormal(mean.expand(4, 3), L.expand(4, 3, 3))
    torch.testing.assert_close(kl(q, one), kl(q, tiled))


def test_kl_of_a_full_normal_is_that_of_a_diagonal_one_where_it_is_diagonal():
    mean, log_var = random(4, 3), random(4, 3, seed=1)
    diagonal = DiagonalNormal(mean, log_var)
    full = FullNormal(mean, torch.diag_embed(diagonal.std()))
    other = DiagonalNormal(random(4, 3, seed=2), random(4, 3, seed=3))
    for p in (StandardNormal(3), other):
        torch.testing.assert_close(kl(full, p), kl(diagonal, p))
    p = FullNormal(other.mean, torch.diag_embed(other.std()))
    torch.testing.assert_close(kl(full, p), kl(diagonal, other))
    torch.testing.assert_close(kl(diagonal, p), kl(diagonal, other))


def test_kl_of_a_distribution_with_itself_is_zero():
    q = DiagonalNormal(random(4, 3), random(4, 3, seed=1))
    torch.testing.assert_close(kl(q, q), torch.zeros(4, 3, dtype=torch.float64))
    zero = torch.zeros(4, 3)
    assert not kl(DiagonalNormal(zero, zero), StandardNormal(3)).any()


@given(st.floats(-5, 5), st.floats(-8, 8), st.floats(-5, 5), st.floats(-8, 8))
def test_kl_is_not_negative(m1, v1, m2, v2):
    pair = torch.tensor([[m1, v1], [m2, v2]], dtype=torch.float64)
    q, p = (DiagonalNormal(m.reshape(1, 1), v.reshape(1, 1)) for m, v in pair)
    assert kl(q, p).item() >= -1e-12
    assert kl(q, StandardNormal(1)).item() >= -1e-12


def test_no_closed_form_is_said():
    assert kl(Laplace(random(4, 3), random(4, 3)), StandardNormal(3)) is None
    assert kl(Delta(random(4, 3)), StandardNormal(3)) is None


# ------------------------------------------------------------------- noise


@pytest.mark.parametrize("noise", [Noise, SharedNoise])
def test_noise_follows_its_seed(noise):
    like = torch.zeros(1)
    draws = [noise(seed).normal((4, 6, 2), like) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    one = noise(0)
    assert not torch.equal(one.normal((4, 6, 2), like), one.normal((4, 6, 2), like))


@pytest.mark.parametrize("noise", [Noise, SharedNoise])
def test_noise_leaves_torch_s_generator_alone(noise):
    before = torch.get_rng_state()
    noise(0).normal((4, 6, 2), torch.zeros(1)), noise(0).uniform((4, 6, 2), torch.zeros(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("noise", [Noise, SharedNoise])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_of_the_type_asked_for(noise, dtype):
    like = torch.zeros(1, dtype=dtype)
    assert noise(0).normal((2, 3, 2), like).dtype == noise(0).uniform((2, 3, 2), like).dtype == dtype


def test_noise_is_normal():
    rows = Noise(0).normal((1, 20_000, 2), torch.zeros(1)).flatten()
    assert scipy.stats.kstest(rows.numpy(), "norm").pvalue > 1e-4  # false alarms: one in 10,000 seeds


def test_shared_noise_is_shared_by_rows():
    q = DiagonalNormal(random(6, 2), random(6, 2, seed=1))
    whole = q.draw(8, SharedNoise(0)).z
    for i in range(6):
        one = DiagonalNormal(q.mean[i : i + 1], q.log_var[i : i + 1]).draw(8, SharedNoise(0)).z
        assert torch.equal(one[:, 0], whole[:, i])


@pytest.mark.parametrize("event", [(1,), (2,), (3, 4), (100,), (21_000,), (30_000,)], ids=str)
def test_shared_noise_of_any_width(event):
    draws = SharedNoise(0).normal((4, 10, *event), torch.zeros(1))
    assert draws.shape == (4, 1, *event)
    assert torch.isfinite(draws).all()


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_shared_noise_are_independent(seed):
    noise = SharedNoise(seed)
    sets = [noise.normal((4096, 1, 2), torch.zeros(1))[:, 0] for _ in range(3)]
    table = torch.cat(sets, 1).T.numpy()
    off = ~np.eye(6, dtype=bool)
    for rows in (table, np.sign(table), table**2):  # 5 standard errors of independent rows
        assert np.abs(np.corrcoef(rows)[off]).max() < 5 / 4096**0.5


@pytest.mark.parametrize("kappa", [0.5, 4.0, 40.0])
def test_shared_noise_draws_directions_as_they_are_distributed(kappa):
    q = Zonal(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([kappa]))
    mean = q.draw(4096, SharedNoise(0)).z.double().mean((0, 1))
    exact = torch.tensor([0.0, 0.0, 1 / math.tanh(kappa) - 1 / kappa], dtype=torch.float64)
    torch.testing.assert_close(mean, exact, atol=0.01, rtol=0)


def test_shared_noise_is_of_low_discrepancy():
    """Error of the mean of a smooth function: far below that of independent draws."""
    z = SharedNoise(3).normal((1024, 1, 2), torch.zeros(1, dtype=torch.float64))[:, 0]
    assert float((z.square().sum(1).mean() - 2).abs()) < 0.1 * math.sqrt(4 / 1024)
    assert float(z.mean(0).abs().max()) < 0.1 / math.sqrt(1024)


def test_noise_of_a_row_follows_from_the_row():
    """In any order, in any subset and of any type that holds the same numbers; other rows, other noise."""
    X = np.random.default_rng(0).integers(0, 9, (40, 3)).astype(np.float64)
    X[7], X[9] = 0.0, -0.0
    whole = [RowNoise(X).normal((8, 40, 2), torch.zeros(1)) for _ in range(2)]
    assert torch.equal(*whole)
    order = np.random.default_rng(1).permutation(40)[:15]
    for rows in (X[order], X[order].astype(np.int64), np.asfortranarray(X[order]).astype(np.float32)):
        assert torch.equal(RowNoise(rows).normal((8, 15, 2), torch.zeros(1)), whole[0][:, order])
    assert torch.equal(whole[0][:, 7], whole[0][:, 9])
    assert len(torch.unique(whole[0].movedim(1, 0).flatten(1), dim=0)) == len(np.unique(X + 0.0, axis=0))
    with pytest.raises(ValueError, match="noise of 40 rows was asked for 3"):
        RowNoise(X).uniform((8, 3, 2), torch.zeros(1))


@pytest.mark.parametrize("k", [1, 16])
def test_noise_of_rows_is_normal_and_independent(k):
    """False alarms: one in 10,000 seeds, and 5 standard errors."""
    X = np.random.default_rng(2).normal(size=(4000, 5))
    noise = RowNoise(X)
    sets = [noise.normal((k, 4000, 2), torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
    for one in sets:
        for draw in (one[0], one[-1]):
            assert scipy.stats.kstest(draw.flatten().numpy(), "norm").pvalue > 1e-4
    first = torch.cat([one[0] for one in sets], 1)
    # Beside its neighbor's, and beside the row's own further draws.
    table = np.hstack([first.numpy(), first.roll(1, 0).numpy()]).T
    off = ~np.eye(8, dtype=bool)
    assert np.abs(np.corrcoef(table)[off]).max() < 5 / 4000**0.5


def test_categories_on_a_scale():
    """The same masses, whatever the values are called: 0, 1, 2 or 0, 1/2, 1."""
    logits = random(4, 5, 3)
    whole, unit = Categorical(logits), Categorical(logits, step=0.5)
    z = whole.draw(50, Noise(0)).z
    assert torch.equal(unit.draw(50, Noise(0)).z, 0.5 * z)
    assert torch.equal(unit.point(), 0.5 * whole.point())
    assert torch.equal(unit.log_prob(0.5 * z), whole.log_prob(z))
    # Values that come from bytes divided by 255 are near a category, and not on it.
    fine = Categorical(random(4, 256), step=1 / 255, event_dims=0)
    rounded = torch.tensor([0, 3, 127, 255]).float() / 255
    expected = fine.logits.log_softmax(-1)[torch.arange(4), [0, 3, 127, 255]]
    torch.testing.assert_close(fine.log_prob(rounded), expected)


def test_a_full_normal_posterior_is_as_its_encoder_says():
    out = random(5, 9)
    q = FullNormalPosterior(torch.nn.Identity(), 3)(out)
    assert FullNormalPosterior.features(3) == 9
    factor = q.scale_tril
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(q.point(), out[:, :3])
    torch.testing.assert_close(factor.diagonal(dim1=-2, dim2=-1).square(), bounded(out[:, 3:6]).exp())
    torch.testing.assert_close(factor[:, 2, 1] / factor[:, 2, 2], out[:, 8] / math.sqrt(3))
    # Without the last numbers it is the diagonal posterior.
    diagonal = NormalPosterior(torch.nn.Identity(), 3)(out[:, :6])
    full = FullNormalPosterior(torch.nn.Identity(), 3)(torch.cat([out[:, :6], torch.zeros(5, 3)], 1))
    torch.testing.assert_close(full.log_prob(random(5, 3, seed=1)), diagonal.log_prob(random(5, 3, seed=1)))
    torch.testing.assert_close(full.std(), diagonal.std())


@pytest.mark.parametrize("d", [1, 4, 32])
def test_a_fresh_full_normal_posterior_is_nearly_diagonal(d):
    network = MLP((20,), (FullNormalPosterior.features(d),), hidden=(64,))
    damp(network, 0.1, FullNormalPosterior.spreads(d))
    q = FullNormalPosterior(network, d)(random(50, 20).float())
    q.log_prob(q.draw(1, Noise(0)).z).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    share = 1 - (q.scale_tril.diagonal(dim1=-2, dim2=-1) / q.std()).square()
    assert share.max() < 0.5
    assert share.mean() < 0.1


@pytest.mark.parametrize("per_dim", [False, True])
def test_the_log_mass_of_binary_values_has_all_its_derivatives(per_dim):
    """By logits and by values, of first and second order, where some rows' weights are zero, too."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 2, 3, generator=g, dtype=torch.float64).mul_(3).requires_grad_()
    v = torch.rand(4, 2, 3, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.zeros(3, 4, *((2, 3) if per_dim else ())).double()
    weight[0], weight[1, 2] = 1.0, -0.5

    def mass(logits, v):
        return (weight * Bernoulli(logits, 2).log_prob(v, per_dim=per_dim)).sum()

    assert torch.autograd.gradcheck(mass, (logits, v))
    assert torch.autograd.gradgradcheck(mass, (logits, v))
    for one, other in ((logits, v.detach()), (logits.detach(), v)):
        (alone,) = torch.autograd.grad(mass(one, other), one if one.requires_grad else other)
        both = torch.autograd.grad(mass(logits, v), logits if one.requires_grad else v)[0]
        torch.testing.assert_close(alone, both)
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits, v.expand_as(logits), reduction="none"
    )
    got = Bernoulli(logits, 2).log_prob(v, per_dim=per_dim)
    torch.testing.assert_close(got, expected if per_dim else expected.sum((2, 3)))
    with torch.no_grad():
        assert torch.equal(Bernoulli(logits, 2).log_prob(v, per_dim=per_dim), got)


def test_the_log_mass_of_binary_values_is_finite_where_a_sigmoid_saturates():
    logits = torch.tensor([-800.0, -90.0, 0.0, 90.0, 800.0], requires_grad=True)
    for value in (0.0, 0.3, 1.0):
        rows = Bernoulli(logits[:, None]).log_prob(torch.full((5, 1), value))
        torch.testing.assert_close(rows, value * logits - torch.nn.functional.softplus(logits))
        (slope,) = torch.autograd.grad(rows.sum(), logits)
        torch.testing.assert_close(slope, value - logits.detach().sigmoid())
