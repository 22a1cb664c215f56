"""Densities of codes and estimates of log p(x), against what is known of them."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.errors import DataError, PlanError, RunFolderError
from chartae.core.noise import Noise
from chartae.density import (
    FlowDensity,
    KernelDensity,
    MixtureDensity,
    NormalDensity,
    annealed_log_likelihood,
    densities,
    fit_density,
    log_likelihood,
)
from chartae.density.bounds import Estimate, tail_shape
from chartae.density.fitted import Density, _shrinkage
from chartae.density.learning import learn
from chartae.density.refining import refined
from chartae.estimators.decoding import _held
from chartae.models.persistence import read_run, write_run
from chartae.parts.distributions import (
    DiagonalNormal,
    FullNormal,
    FullNormalMixture,
    NormalMixture,
    StandardNormal,
)

NAMES = ["normal", "gmm", "kernel", "flow"]
each = pytest.mark.parametrize("name", NAMES)
SMALL = {"latent_dim": 2, "hidden": (8,), "max_epochs": 2, "random_state": 0}
X = np.random.default_rng(0).normal(size=(300, 4)) @ np.random.default_rng(1).normal(size=(4, 4))


@pytest.fixture(autouse=True)
def _short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train flows for a moment, but where it is about what they learn."""
    if "bends" not in request.node.name:
        monkeypatch.setattr("chartae.density.flows.EPOCHS", 5)


def planted(n: int, d: int = 2, apart: float = 6.0, seed: int = 0) -> Tensor:
    """Rows of two equal normals, ``apart`` standard deviations from each other in the first dimension."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=g)
    z[:, 0] += apart * torch.randint(0, 2, (n,), generator=g)
    return z


def banana(n: int, seed: int = 0) -> Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([z[:, 0], 0.3 * z[:, 1] + z[:, 0] ** 2], 1)


@pytest.fixture(scope="module")
def fitted() -> dict[tuple[str, int], Density]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chartae.density.flows.EPOCHS", 20)
        return {(name, d): fit_density(name, planted(900, d)) for name in NAMES for d in (1, 2)}


# ------------------------------------------------------------------- densities


@each
@pytest.mark.parametrize("d", [1, 2])
def test_a_density_integrates_to_one(fitted, name, d):
    p = fitted[name, d]()
    axes = [torch.linspace(-8, 14, 300 if d == 2 else 5000), torch.linspace(-7, 7, 150)][:d]
    grid = torch.cartesian_prod(*axes).reshape(-1, d)
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    density = p.log_prob(grid).double().exp()
    assert float(density.sum()) * cell == pytest.approx(1.0, abs=2e-3)
    assert p.batch_shape == ()
    assert p.event_shape == p.point().shape == (d,)


@each
def test_draws_follow_the_density(fitted, name):
    p = fitted[name, 1]()
    axis = torch.linspace(-10, 16, 20_000)
    mass = p.log_prob(axis[:, None]).double().exp().numpy()
    drawn = p.draw(4000, Noise(1)).z[:, 0].numpy()
    cumulative = np.cumsum(mass) * float(axis[1] - axis[0])
    assert stats.kstest(drawn, lambda x: np.interp(x, axis.numpy(), cumulative)).pvalue > 0.01


@each
def test_draws_have_the_entropy_of_the_density(fitted, name):
    p = fitted[name, 2]()
    axes = torch.linspace(-8, 14, 300), torch.linspace(-7, 7, 150)
    log_p = p.log_prob(torch.cartesian_prod(*axes)).double()
    entropy = -float((log_p.exp() * log_p).sum()) * float(
        (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    )
    drawn = -p.log_prob(p.draw(4000, Noise(2)).z).double()
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert float(drawn.mean()) == pytest.approx(entropy, abs=4 * error + 2e-3)


@each
def test_dimensions_add_up(fitted, name):
    p, z = fitted[name, 2](), planted(50)
    split = p.log_prob(z, per_dim=True)
    assert split.shape == (50, 2)
    torch.testing.assert_close(split.sum(1), p.log_prob(z), rtol=1e-4, atol=1e-4)
    assert p.log_prob(z.reshape(5, 10, 2)).shape == (5, 10)


@each
def test_the_same_seed_gives_the_same_density_and_disturbs_nothing(name):
    z = banana(300)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other = np.random.mtrand._rand.get_state()[1].tolist()
    a, b = (fit_density(name, z, 3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.mtrand._rand.get_state()[1].tolist() == other
    assert a.held_out == b.held_out
    assert all(
        torch.equal(s, t) for s, t in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
    assert not any(parameter.requires_grad for parameter in a.parameters())


def test_a_mixture_gains_over_a_normal_what_it_should():
    """Two normals a distance a apart: h(normal) - h(mixture) is ½ log(1 + a²/4) less nearly log 2."""
    z = planted(4000, d=3)
    gmm, normal = (fit_density(name, z) for name in ("gmm", "normal"))
    first = torch.linspace(-8, 14, 20_000, dtype=torch.float64)
    log_p = np.logaddexp(stats.norm.logpdf(first), stats.norm.logpdf(first, 6.0)) - math.log(2)
    entropy = -float(np.sum(np.exp(log_p) * log_p)) * float(first[1] - first[0])
    gap = 0.5 * math.log(2 * math.pi * math.e * (1 + 9.0)) - entropy
    assert gmm.n_components == 2
    # Of the same codes, so that the error of the difference is smaller than that of either.
    assert gmm.held_out - normal.held_out == pytest.approx(gap, abs=0.05)
    means = gmm.mean[gmm.mean[:, 0].argsort()]
    torch.testing.assert_close(means[:, 0], torch.tensor([0.0, 6.0]), atol=0.1, rtol=0)


def test_what_was_gained_over_the_standard_normal():
    """N(m, s²) gains KL(N(m, s²) || N(0, 1)) in each dimension."""
    z = 1.0 + 2.0 * torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    expected = 2 * 0.5 * (4.0 + 1.0 - 1 - math.log(4.0))
    p = NormalDensity(2).fit(z)
    assert p.held_out == pytest.approx(expected, abs=4 * p.held_out_se)
    assert 0.02 < p.held_out_se < 0.2
    p = NormalDensity(2).fit(torch.randn(6000, 2, generator=torch.Generator().manual_seed(0)))
    assert p.held_out == pytest.approx(0.0, abs=0.01)


def test_a_normal_needs_one_component():
    found = [
        MixtureDensity(2).fit(torch.randn(500, 2, generator=torch.Generator().manual_seed(s)), s).n_components
        for s in range(8)
    ]
    assert found.count(1) >= 6


def test_auto_takes_the_simplest_of_the_best():
    normal = torch.randn(600, 2, generator=torch.Generator().manual_seed(1))
    assert isinstance(fit_density("auto", normal), NormalDensity)
    best = fit_density("auto", planted(800))
    assert isinstance(best, MixtureDensity)
    assert best.held_out == pytest.approx(MixtureDensity(2).fit(planted(800)).held_out)


def test_a_mixture_is_found_whatever_the_scale_and_the_dimension():
    """Clusters touch when whitened in many dimensions, and one scale hides those of the others."""
    z = planted(2500, d=16)
    assert MixtureDensity(16).fit(z).n_components == 2
    z = planted(2500, d=4) * torch.tensor([0.01, 1.0, 10.0, 100.0]) + 50
    assert MixtureDensity(4).fit(z).n_components == 2


def test_a_kernel_density_keeps_mean_and_covariance():
    z = planted(800)
    p = KernelDensity(2).fit(z)
    assert p.bandwidth < 0.6
    drawn = p().draw(100_000, Noise(0)).z
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), rtol=0.05, atol=0.05)
    torch.testing.assert_close(p().point(), z.mean(0), rtol=1e-3, atol=1e-3)


def test_a_kernel_density_as_wide_as_the_codes_is_the_normal():
    z = planted(300)
    wide, normal = KernelDensity(2), NormalDensity(2).fit(z)
    wide._take(z.double(), 1.0)
    torch.testing.assert_close(wide().log_prob(z), normal().log_prob(z), rtol=1e-4, atol=1e-4)


def test_a_flow_begins_as_n_0_i_and_bends():
    assert torch.allclose(FlowDensity(3)().log_prob(torch.ones(3)), StandardNormal(3).log_prob(torch.ones(3)))
    z = banana(1500)
    flow, normal = fit_density("flow", z), fit_density("normal", z)
    # The entropy of the banana is that of its noise: log(.3) nats below N(0, I).
    true = float((StandardNormal(2).log_prob(z)).mean()) + math.log(0.3) + 1 + math.log(2 * math.pi)
    assert flow.held_out > normal.held_out + 0.5
    assert flow.held_out < -true + 4 * flow.held_out_se


@pytest.mark.parametrize("name", ["normal", "gmm", "kernel", "auto"])
@pytest.mark.parametrize("n", [1, 2, 5, 19, 21])
def test_few_codes(name, n):
    p = fit_density(name, planted(n))
    assert bool(torch.isfinite(p().draw(20, Noise(0)).z).all())
    assert (p.held_out is None) == (n < 20)


@pytest.mark.parametrize("name", ["normal", "gmm", "kernel", "auto"])
@pytest.mark.parametrize(
    ("n", "d", "flat", "most"), [(30, 40, 0.0, 3.0), (30, 20, 1.5, 12.0), (200, 20, 1.5, 1.0)]
)
def test_fewer_codes_than_numbers_of_a_covariance(name, n, d, flat, most):
    """What is lost to the truth: 6 million nats, 27 and .6 where correlations do not shrink."""
    random = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(d, d, generator=random))[0]
    root = turn * torch.logspace(0, -flat, d)
    z = torch.randn(n + 1000, d, generator=random) @ root.T
    truth = torch.distributions.MultivariateNormal(
        torch.zeros(d), scale_tril=torch.linalg.cholesky(root @ root.T)
    )
    lost = truth.log_prob(z[n:]) - fit_density(name, z[:n])().log_prob(z[n:])
    assert float(lost.mean()) < most


def test_dimensions_that_do_not_vary_leave_the_shrinkage_of_the_others_as_it_is():
    z = torch.randn(30, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = z[:, :1] * torch.linspace(1, 2, 10) + 0.01 * z
    rounding = 3 + 1e-7 * torch.rand(30, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = torch.zeros(30, 1, dtype=torch.float64)
    one[7] = 5.0
    for codes in (z, line):
        share = _shrinkage(codes)
        for constant in (torch.zeros(30, 1), torch.full((30, 2), 3.1), rounding):
            assert _shrinkage(torch.cat([codes, constant], 1)) == share
            assert _shrinkage(torch.cat([z[:, :1], constant], 1)) == 0.0
        assert _shrinkage(torch.cat([codes, one], 1)) == pytest.approx(share, abs=0.3)
    assert _shrinkage(z) > 0.8


def test_a_dimension_without_spread_is_left_so():
    z = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    z[:, 3] = 7.0
    drawn = fit_density("auto", z)().draw(50, Noise(0)).z
    torch.testing.assert_close(drawn[:, 3], torch.full((50,), 7.0), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn[:, :3].std(), z[:, :3].std(), atol=0.3, rtol=0)


@each
def test_codes_that_repeat_or_lie_in_a_plane(name):
    z = planted(400)[:, [0, 1, 0]]
    z[:, 2] = 7.0
    for codes in (z, z[torch.arange(400) % 5]):
        p = fit_density(name, codes)
        drawn = p().draw(50, Noise(0)).z
        assert bool(torch.isfinite(drawn).all())
        torch.testing.assert_close(drawn[:, 2], torch.full((50,), 7.0), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "the code in row 1 "),
    ],
)
def test_codes_that_are_none(codes, message):
    with pytest.raises(DataError, match=message) as caught:
        fit_density("normal", codes)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="needed"):
        NormalDensity(5).fit(np.zeros((30, 2)))
    with pytest.raises(DataError, match="a flow needs more codes"):
        fit_density("flow", np.zeros((30, 2)))


# ------------------------------------------------------------------- conditionals


def covariances(m: int, d: int) -> Tensor:
    a = torch.randn(m, d, d + 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return a @ a.mT / d


def marginal(p: FullNormalMixture, dims: list[int]) -> FullNormalMixture:
    covariance = p.scale_tril @ p.scale_tril.mT
    tril = torch.linalg.cholesky(covariance[..., dims, :][..., dims])
    return FullNormalMixture(p.logits, p.mean[..., dims], tril)


@pytest.mark.parametrize("dims", [[1], [3, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("shared", [False, True])
def test_the_conditional_of_a_mixture(dims, shared):
    """log p(rest | held) = log p(z) - log p(held)."""
    g = torch.Generator().manual_seed(0)
    logits, mean = torch.randn(3, generator=g).double(), 2 * torch.randn(3, 4, generator=g).double()
    tril = torch.linalg.cholesky(covariances(3, 4))
    p = FullNormalMixture(logits, mean, tril[0] if shared else tril)
    z = p.draw(20, Noise(0)).z
    rest = [i for i in range(4) if i not in dims]
    q = p.given(dims, z[:, dims])
    assert q.batch_shape == (20,)
    assert q.event_shape == (len(rest),)
    expected = p.log_prob(z) - marginal(p, dims).log_prob(z[:, dims])
    torch.testing.assert_close(q.log_prob(z[:, rest]), expected)
    if rest:
        # Draws, against the conditional's own mean; its standard error is below .05.
        drawn = q.draw(20_000, Noise(1)).z
        torch.testing.assert_close(drawn.mean(0), q.point(), atol=0.1, rtol=0)
        one = p.given(dims, z[0, dims])
        torch.testing.assert_close(one.point(), q.point()[0])


def test_the_conditional_of_a_normal():
    cov = covariances(1, 4)[0]
    mean = torch.arange(4.0, dtype=torch.float64)
    p, values = FullNormal(mean, torch.linalg.cholesky(cov)), torch.tensor([[5.0, -1.0], [0.0, 2.0]]).double()
    q, h, r = p.given([2, 0], values), [2, 0], [1, 3]
    gain = cov[r][:, h] @ torch.linalg.inv(cov[h][:, h])
    torch.testing.assert_close(q.mean, mean[r] + (values - mean[h]) @ gain.T)
    torch.testing.assert_close(q.scale_tril @ q.scale_tril.T, cov[r][:, r] - gain @ cov[h][:, r])
    free = StandardNormal(4).given([1], torch.zeros(7, 1))
    assert free.event_shape == (3,)
    own = DiagonalNormal(torch.arange(6.0).reshape(2, 3), torch.zeros(())).given([1], torch.zeros(2, 1))
    assert own.mean.tolist() == [[0.0, 2.0], [3.0, 5.0]]
    with pytest.raises(NotImplementedError):
        NormalMixture(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2)).given([0], torch.zeros(1))


def test_held_dimensions_hold_and_the_others_follow():
    """Correlation .9: the mean of the one given the other is .9 of it, its variance 1 - .81."""
    tril = torch.linalg.cholesky(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    z = _held(FullNormal(torch.zeros(2), tril), {1: 2.0}, 5000, Noise(0))
    assert (z[:, 1] == 2.0).all()
    assert float(z[:, 0].mean()) == pytest.approx(1.8, abs=0.03)
    assert float(z[:, 0].var()) == pytest.approx(0.19, rel=0.1)
    z = _held(StandardNormal(3), {0: np.arange(5000), 2: -1.0}, 5000, Noise(0))
    assert z[:, 0].tolist() == list(range(5000))
    assert float(z[:, 1].mean()) == pytest.approx(0.0, abs=0.06)


def test_hold_in_sample():
    vae = ct.VAE(**SMALL).fit(X)
    both = vae.sample(6, hold={0: np.linspace(-2, 2, 6), 1: 0.5}, random_state=0)
    codes = np.column_stack([np.linspace(-2, 2, 6), np.full(6, 0.5)]).astype(np.float32)
    assert np.array_equal(both, vae.inverse_transform(codes))
    a, b = (vae.sample(300, hold={0: 1.0}, random_state=s) for s in (0, 0))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, vae.sample(300, hold={0: -1.0}, random_state=0))
    assert np.array_equal(vae.sample(5, hold={}, random_state=0), vae.sample(5, random_state=0))
    for hold, message in (
        ({2: 0.0}, "hold names dimension 2: the model has dimensions 0 to 1"),
        ({"a": 0.0}, "hold names dimension 'a'"),
        ({0: [1.0, 2.0]}, "give one, or 5"),
        ({0: "x"}, "give one, or 5"),
        ({0: np.nan}, "no finite number"),
    ):
        with pytest.raises((PlanError, DataError), match=message) as caught:
            vae.sample(5, hold=hold)
        assert "\n" not in str(caught.value)
    vae.fit_prior("gmm", random_state=0)
    assert np.isfinite(vae.sample(5, hold={0: 1.0}, random_state=0)).all()
    vae.fit_prior("flow", random_state=0)
    with pytest.raises(PlanError, match=r"use fit_prior\('gmm'\) first"):
        vae.sample(5, hold={0: 1.0})


def test_hold_where_the_prior_depends_on_the_condition():
    y = np.arange(300) % 3
    cvae = ct.CVAE(conditional_prior=True, **SMALL).fit(X, y)
    assert cvae.sample(4, condition=1, hold={0: 0.0}, random_state=0).shape == (4, 4)
    with pytest.raises(PlanError, match="conditional_prior=False"):
        cvae.fit_prior("gmm")


# ------------------------------------------------------------------- log p(x)


@pytest.fixture(scope="module")
def linear() -> ct.VAE:
    """A linear decoder with known noise, and a posterior that training has not brought to its optimum."""
    return ct.VAE(
        latent_dim=2, network="linear", noise=0.7, scale="none", max_epochs=20, random_state=0,
        validation_fraction=0.0,
    ).fit(X)  # fmt: skip


def exact(m: ct.VAE, rows: np.ndarray) -> np.ndarray:
    """Log N(x; b, W Wᵀ + σ²), the marginal of a linear decoder."""
    (layer,) = m.model_.likelihood.network.layers
    W, b = (t.detach().double().numpy() for t in (layer.weight, layer.bias))
    scale = float(m.space_.scale)
    W, b = W * scale, b * scale + m.space_.center.numpy()
    return stats.multivariate_normal(b, W @ W.T + 0.7**2 * np.eye(4)).logpdf(rows)


@pytest.mark.filterwarnings("ignore:the weights of")
def test_importance_sampling_finds_the_likelihood_of_a_linear_model(linear):
    rows, true = X[:60], exact(linear, X[:60])
    value, error = linear.log_likelihood(rows, n_importance=4000, random_state=0)
    assert value.shape == error.shape == (60,)
    good = error < 0.1
    assert good.sum() > 30
    pulls = (value - true)[good] / error[good]
    # A standard error that is honest: pulls are about standard normal.
    assert np.abs(pulls).max() < 4.5
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.5
    again = linear.log_likelihood(rows, n_importance=4000, random_state=0)
    assert np.array_equal(value, again[0])
    # Another number of samples at once is the same estimate but for rounding, and noise is each row's own.
    assert not np.allclose(value, linear.log_likelihood(rows, n_importance=4000, random_state=1)[0])


@pytest.mark.filterwarnings("ignore:the weights of")
def test_few_samples_are_biased_downwards_and_many_less_so(linear):
    rows = X[:40]
    few = np.mean([linear.log_likelihood(rows, n_importance=2, random_state=s)[0].mean() for s in range(20)])
    many = linear.log_likelihood(rows, random_state=0)[0].mean()
    true = exact(linear, rows).mean()
    assert few < many - 0.01
    assert many == pytest.approx(true, abs=0.15)


@pytest.fixture
def lost(linear):
    """The encoder is turned off: posteriors are narrow, and at the origin."""
    model = copy.deepcopy(linear)
    with torch.no_grad():
        for parameter in model.model_.posterior.parameters():
            parameter.zero_()
        far = [p for name, p in model.model_.posterior.named_parameters() if name.endswith("bias")]
        far[-1][2:] = -3.0
    return model


def test_annealing_finds_it_where_the_posterior_misses(lost):
    """Importance sampling is far below, and annealing is not."""
    rows, true = X[:12], exact(lost, X[:12])
    with pytest.warns(UserWarning, match="weights of 1[12] of 12 rows have tails so heavy .* method='ais'"):
        plain, _ = lost.log_likelihood(rows, n_importance=1000, random_state=0)
    value, error = lost.log_likelihood(rows, n_importance=32, method="ais", random_state=0)
    assert (true - plain).mean() > 3 * abs((true - value).mean())
    assert np.mean(np.abs(value - true)) < 0.3
    assert np.mean(np.abs(value - true) < 4 * error + 0.05) > 0.8


def test_a_refined_posterior_finds_it_where_the_encoder_s_misses(lost):
    rows, true = X[:12], exact(lost, X[:12])
    value, error = lost.log_likelihood(rows, n_importance=1000, refine=400, random_state=0)
    assert (error < 0.1).all()
    assert np.abs((value - true) / error).max() < 4
    assert all(p.grad is None for p in lost.model_.parameters())


@pytest.mark.filterwarnings("ignore:the weights of", "ignore:values are from")
def test_a_row_without_a_likelihood_leaves_others_refined(lost):
    rows = np.concatenate([np.full((1, 4), 1e200), X[:11]])
    value, error = lost.log_likelihood(rows, n_importance=1000, refine=400, random_state=0)
    plain, _ = lost.log_likelihood(rows[:1], n_importance=10, random_state=0)
    assert value[0] == plain[0] == -np.inf
    assert np.abs((value[1:] - exact(lost, X[:11])) / error[1:]).max() < 4


@pytest.mark.filterwarnings("ignore:the weights of")
def test_errors_of_refined_posteriors_are_honest(linear):
    """Samples that are weighed are not those that the posterior was refined by, or values would be high."""
    rows, true = X[:60], exact(linear, X[:60])
    value, error = linear.log_likelihood(rows, n_importance=2000, refine=30, random_state=0)
    good = error < 0.1
    pulls = (value - true)[good] / error[good]
    assert good.sum() > 30
    assert np.abs(pulls).max() < 4.5
    assert abs(pulls.mean()) < 4 / math.sqrt(good.sum())
    again = linear.log_likelihood(rows, n_importance=2000, refine=30, random_state=0)
    assert np.array_equal(value, again[0])


def test_refined_codes_are_those_of_the_exact_posterior(lost):
    """Of a linear decoder p(z | x) is normal; the best q of independent numbers has its mean."""
    (layer,) = lost.model_.likelihood.network.layers
    W, b = (t.detach().double().numpy() * float(lost.space_.scale) for t in (layer.weight, layer.bias))
    precision = np.eye(2) + W.T @ W / 0.7**2
    rows = X[:12].astype(np.float64)
    true = (rows - b - lost.space_.center.numpy()) @ W / 0.7**2 @ np.linalg.inv(precision)
    codes, std = lost.transform(rows, return_std=True, refine=1000)
    assert np.abs((codes - true) / std).max() < 0.1
    np.testing.assert_allclose(std, np.broadcast_to(np.diag(precision) ** -0.5, std.shape), rtol=0.02)
    assert np.abs((lost.transform(rows) - true) / std).max() > 2
    assert all(p.grad is None for p in lost.model_.parameters())


def test_of_any_covariance_the_refined_posterior_is_exact():
    """Of a linear decoder p(z | x) is normal: once it is found, each sample weighs p(x)."""
    full = ct.VAE(
        latent_dim=2, covariance="full", network="linear", noise=0.7, scale="none", max_epochs=3,
        random_state=0, validation_fraction=0.0,
    ).fit(X)  # fmt: skip
    rows = X[:12].astype(np.float64)
    value, error = full.log_likelihood(rows, n_importance=50, refine=400, random_state=0)
    plain = full.log_likelihood(rows, n_importance=50, random_state=0)[1]
    assert (error < 1e-3).all()
    assert (plain > 0.01).all()
    np.testing.assert_allclose(value, exact(full, rows), atol=1e-3)
    codes = full.transform(rows, refine=400)
    residual = rows - full.inverse_transform(codes).astype(np.float64)
    (layer,) = full.model_.likelihood.network.layers
    W = layer.weight.detach().double().numpy() * float(full.space_.scale)
    np.testing.assert_allclose(residual @ W / 0.7**2, codes, atol=1e-3)  # where the slope of log p(x, z) is 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_posterior_that_is_right_stays_where_it_is(steps, weighted):
    """x = w z + noise of variance s²: p(z | x) = N(w x / (w² + s²), s² / (w² + s²)); 30 rows of 3."""
    w, s2 = torch.tensor([3.0, 1.0, 0.2]), 0.25
    x = 3 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    right = DiagonalNormal(w * x / (w**2 + s2), (s2 / (w**2 + s2)).log().expand(30, 3))
    found = refined(
        right, StandardNormal(3), lambda z: -0.5 * ((x - w * z) ** 2).sum(-1) / s2, Noise(0), steps=steps,
        samples=4, weighted=weighted,
    )  # fmt: skip
    assert ((found.mean - right.mean) / right.std()).abs().max() < 0.01
    assert (found.log_var - right.log_var).abs().max() < 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_refined_code_is_of_its_row_alone_and_the_same_each_time(linear, dtype):
    rows = X[:9].astype(dtype)
    codes = linear.transform(rows, refine=20)
    assert codes.dtype == dtype
    assert np.array_equal(codes, linear.transform(rows, refine=20))
    np.testing.assert_allclose(linear.transform(rows[4:6], refine=20), codes[4:6], atol=1e-4)


@given(
    shape=st.floats(0.05, 1.5),
    scale=st.floats(-40.0, 40.0),
    k=st.sampled_from([1000, 5000]),
    seed=st.integers(0, 99),
)
def test_the_shape_of_a_pareto_tail_is_found(shape, scale, k, seed):
    uniform = torch.rand((k, 40), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    found = tail_shape(scale - shape * uniform.log())  # of weights u^-shape, whose tail is Pareto to the end
    m = min(k // 5, math.ceil(3 * math.sqrt(k)))
    expected = (m * shape + 5) / (m + 10)  # drawn towards a half
    spread = (1 + shape) / math.sqrt(m)  # of the likeliest shape
    assert abs(float(found.mean()) - expected) < 4 * spread / math.sqrt(40) + 0.04
    assert float(found.std()) < 2 * spread


def test_weights_are_trusted_where_their_mean_is_right():
    """Draws from N(0, 1) in place of N(a, 1): log weights a z - a²/2, whose mean weight is 1."""
    z = torch.randn((1000, 400), generator=torch.Generator().manual_seed(0), dtype=torch.double)
    near, far = (Estimate.of(a * z - a * a / 2) for a in (1.0, 5.0))
    assert near.trusted.double().mean() > 0.99  # a false alarm in a hundred at the most
    assert (near.value.abs() < 5 * near.error).all()
    assert not far.trusted.any()
    assert (far.value.abs() > 4 * far.error).double().mean() > 0.3
    alike = Estimate.of(torch.full((1000, 3), -7.0, dtype=torch.double))
    assert alike.trusted.all()
    assert torch.isneginf(tail_shape(torch.full((1000, 3), -7.0, dtype=torch.double))).all()
    one = torch.zeros((16, 2), dtype=torch.double)
    one[0] = 40.0  # a chain that alone makes up the mean
    assert not Estimate.of(one).trusted.any()


def test_annealing_agrees_with_the_closed_form(linear):
    rows, true = X[:20], exact(linear, X[:20])
    value, error = linear.log_likelihood(rows, method="ais", random_state=0)
    assert error.max() < 0.2
    assert np.abs((value - true) / error).max() < 4.5
    assert np.abs(value - true).mean() < 0.1


@pytest.mark.parametrize("recipe", ["hierarchical-vae", "ladder-vae"])
def test_annealing_goes_through_several_layers(recipe):
    m = ct.Autoencoder(recipe=recipe, latent_dim=4, hidden=(8,), max_epochs=5, random_state=0).fit(X)
    value, error = m.log_likelihood(X[:20], n_importance=20_000, random_state=0)
    annealed, wide = m.log_likelihood(X[:20], method="ais", random_state=0)
    assert max(error.max(), wide.max()) < 0.3
    assert (np.abs(value - annealed) / np.hypot(error, wide)).max() < 4.5


def test_memory_is_bounded_by_blocks(linear):
    batch = Batch(linear.space_.to_model(torch.from_numpy(X[:5]), torch.float32))
    seen = []
    trace = linear.model_.trace

    def watched(batch: Batch, *, k: int, noise: Noise) -> object:
        seen.append(k)
        return trace(batch, k=k, noise=noise)

    linear.model_.trace = watched
    try:
        log_likelihood(linear.model_, batch, k=100, noise=Noise(0), block=30)
    finally:
        del linear.model_.trace
    assert seen == [30, 30, 30, 10]


def test_what_has_no_likelihood(linear):
    ae = ct.AE(**SMALL).fit(X)
    for method in ("importance", "ais"):
        with pytest.raises(PlanError, match="codes of this model are points, given x"):
            ae.log_likelihood(X, method=method)
    with pytest.raises(PlanError, match="method='exact': use 'importance' or 'ais'"):
        linear.log_likelihood(X, method="exact")
    for wrong in (0, 2.5, True - 1):
        with pytest.raises(PlanError, match="n_importance"):
            linear.log_likelihood(X, n_importance=wrong)
    for wrong in (-1, 2.5, "10"):
        with pytest.raises(PlanError, match="refine"):
            linear.log_likelihood(X, refine=wrong)
        with pytest.raises(PlanError, match="refine"):
            linear.transform(X, refine=wrong)
    with pytest.raises(
        PlanError, match="is a Delta, and only normal distributions are refined: leave refine out"
    ):
        ae.transform(X, refine=10)
    with pytest.raises(PlanError, match="refine is of method='importance'"):
        linear.log_likelihood(X, method="ais", refine=10)
    ball = ct.Autoencoder(recipe="svae", **{**SMALL, "latent_dim": 3}).fit(X)
    with pytest.raises(PlanError, match="is a Zonal, and only normal"):
        ball.log_likelihood(X, refine=10)
    batch = Batch(torch.zeros(2, 4))
    for estimate in (log_likelihood, annealed_log_likelihood):
        with pytest.raises(PlanError, match="no standard error: take two or more"):
            estimate(linear.model_, batch, k=1, noise=Noise(0))


def test_the_likelihood_of_images_conditions_and_gaps():
    bits = (np.random.default_rng(0).random((60, 8, 8)) < 0.3).astype(np.uint8)
    cvae = ct.CVAE(**SMALL).fit(bits, np.arange(60) % 2)
    for way in ({}, {"method": "ais"}, {"refine": 5}):
        value, error = cvae.log_likelihood(bits[:3], 1, n_importance=8, random_state=0, **way)
        assert np.isfinite(value).all()
        assert np.isfinite(error).all()
        assert (value < 0).all()
    with torch.inference_mode():  # of whoever calls
        value, _ = cvae.log_likelihood(bits[:3], 1, n_importance=8, refine=5, random_state=0)
        assert value.shape == (3,)
    for c, other in ((0, 1), (1, 0)):
        codes = cvae.transform(bits[:20], c, refine=200)
        shift = cvae.transform(bits[:20], other, refine=200) - codes
        loss = [((cvae.inverse_transform(z, c) - bits[:20]) ** 2).sum() for z in (codes, codes + shift)]
        assert loss[0] < loss[1]
    gaps = X.copy()
    gaps[::3, 1] = np.nan
    vae = ct.VAE(missing="mask", **SMALL).fit(gaps)
    for refine in (0, 5):
        values, _ = vae.log_likelihood(gaps[:5], n_importance=8, refine=refine, random_state=0)
        assert np.isfinite(values).all()
        assert np.isfinite(vae.transform(gaps[:5], refine=refine)).all()


# ------------------------------------------------------------------- estimators


def test_codes_are_kept_one_draw_for_each_training_row():
    vae, ae = ct.VAE(**SMALL).fit(X), ct.AE(**SMALL).fit(X)
    kept = np.setdiff1d(np.arange(len(X)), vae.validation_rows_)
    for m in (vae, ae):
        assert m.codes_.shape == (len(kept), 2)
        assert m.codes_.dtype == np.float32
    np.testing.assert_allclose(ae.codes_, ae.transform(X[kept]), rtol=1e-4, atol=1e-5)
    mean, std = vae.transform(X[kept], return_std=True)
    assert np.sqrt(np.mean(((vae.codes_ - mean) / std) ** 2)) == pytest.approx(1.0, abs=0.15)
    assert np.array_equal(ct.VAE(**SMALL).fit(X).codes_, vae.codes_)


def test_of_many_rows_some_codes_are_kept(monkeypatch):
    monkeypatch.setattr("chartae.estimators.fitting.KEPT", 50)
    ae = ct.AE(**SMALL).fit(X)
    assert ae.codes_.shape == (50, 2)
    whole = ae.transform(X)
    nearest = np.abs(ae.codes_[:, None] - whole[None]).max(2).min(1)
    assert nearest.max() < 1e-4
    streamed = ct.AE(**SMALL).fit(ct.stream(X.astype(np.float32)))
    assert streamed.codes_.shape == (50, 2)


@pytest.mark.parametrize("kind", ["AE", "VAE", "CVAE"])
@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_a_fitted_prior_is_kept_and_samples_the_same(kind, name, tmp_path):
    y = np.arange(300) % 3 if kind == "CVAE" else None
    m = getattr(ct, kind)(**SMALL).fit(X, y)
    before = m.sample(5, random_state=0)
    assert m.fit_prior(name, random_state=0) is m
    fitted = m.model_.fitted_prior
    assert isinstance(fitted, Density)
    again = ct.load(m.save(tmp_path / "run"))
    generator = ct.load_decoder(m.export_decoder(tmp_path / "decoder"))
    for other in (again, generator, ct.load_decoder(tmp_path / "run")):
        assert np.array_equal(other.sample(5, random_state=0), m.sample(5, random_state=0))
        assert other.model_.fitted_prior.held_out == fitted.held_out
        assert other.model_.fitted_prior.parameters_ == fitted.parameters_
    assert np.array_equal(again.codes_, m.codes_)
    assert "codes" not in read_run(tmp_path / "decoder")[1]
    if kind != "AE":
        assert not np.array_equal(m.sample(5, random_state=0), before)
        for back in ("prior", None):
            again.fit_prior("normal", random_state=0).fit_prior(back)
            assert np.array_equal(again.sample(5, random_state=0), before)
    again.fit_prior(name, random_state=0)
    assert np.array_equal(again.sample(5, random_state=0), m.sample(5, random_state=0))
    assert np.array_equal(m.transform(X), again.transform(X))


def test_a_prior_is_fitted_to_rows_that_are_given():
    """Rows of one cluster: samples follow them, and not the training rows."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) + np.where(np.arange(400) % 2, 8.0, -8.0)[:, None]
    m = ct.VAE(latent_dim=1, network="linear", max_epochs=60, learning_rate=0.02, random_state=0).fit(rows)
    assert m.sample(200, random_state=0).std() > 4
    high = m.fit_prior("normal", rows[rows[:, 0] > 0], random_state=0).sample(200, random_state=0)
    assert high.mean() == pytest.approx(8.0, abs=1.5)
    kept = m.codes_.copy()
    mixed = m.fit_prior("gmm", random_state=0).sample(400, random_state=0)
    assert np.mean(np.abs(mixed.mean(1)) > 4) > np.mean(
        np.abs(m.fit_prior("prior").sample(400, random_state=0).mean(1)) > 4
    )
    assert np.array_equal(kept, m.codes_)


def test_a_prior_is_refused_in_one_line(tmp_path):
    vae, ae = ct.VAE(**SMALL).fit(X), ct.AE(**SMALL).fit(X)
    with pytest.raises(PlanError, match=r"unknown density 'gnm': did you mean 'gmm'\?"):
        vae.fit_prior("gnm")
    assert vae.model_.fitted_prior is None
    with pytest.raises(PlanError, match=r"no prior of its own: use fit_prior\('normal'\)"):
        ae.fit_prior("prior")
    with pytest.raises(ValueError, match="2 features"):
        vae.fit_prior("gmm", X[:, :2])
    with pytest.raises(ValueError, match="not fitted"):
        ct.VAE().fit_prior("gmm")


def test_a_new_fit_forgets_the_prior_that_was_fitted():
    vae = ct.VAE(**SMALL).fit(X).fit_prior("gmm", random_state=0)
    assert vae.fit(X).model_.fitted_prior is None


def test_a_run_of_before_there_were_densities(tmp_path):
    for kind in (ct.AE, ct.VAE):
        m = kind(**SMALL).fit(X)
        config, tensors, history = read_run(m.save(tmp_path / kind.__name__))
        config["fitted_prior"] = "fitted-normal" if kind is ct.AE else None
        del tensors["codes"]
        old = ct.load(write_run(tmp_path / "old", config, tensors, history, overwrite=True))
        assert np.array_equal(old.sample(5, random_state=0), m.sample(5, random_state=0))
        assert old.codes_ is None
        with pytest.raises(PlanError, match="no codes of training rows were kept with this model: pass X"):
            old.fit_prior("gmm")
        again = ct.load(old.fit_prior("gmm", X, random_state=0).save(tmp_path / "again", overwrite=True))
        assert np.array_equal(again.sample(5, random_state=0), old.sample(5, random_state=0))


@pytest.mark.parametrize(
    "changed",
    [
        {"density": "no-such"},
        {"density": "kernel"},
        {"parameters": {"n_components": 7}},
        {"parameters": {"n_components": -1}},
        {"parameters": {"n_components": 10**13}},
        {"parameters": {"surprise": 7}},
        {"parameters": 3},
        {"held_out": "much"},
    ],
    ids=str,
)
def test_a_fitted_prior_that_was_changed_is_refused(changed, tmp_path):
    path = ct.VAE(**SMALL).fit(X).fit_prior("gmm", random_state=0).save(tmp_path / "run")
    config, tensors, history = read_run(path)
    config["fitted_prior"] |= changed
    write_run(path, config, tensors, history, overwrite=True)
    for way in (ct.load, ct.load_decoder):
        with pytest.raises(RunFolderError) as caught:
            way(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codes", [torch.zeros(5, 3), torch.zeros(5)])
def test_codes_that_were_changed_are_refused(codes, tmp_path):
    path = ct.VAE(**SMALL).fit(X).save(tmp_path / "run")
    config, tensors, history = read_run(path)
    write_run(path, config, {**tensors, "codes": codes}, history, overwrite=True)
    with pytest.raises(RunFolderError, match="codes"):
        ct.load(path)


def test_a_fit_that_goes_on_keeps_the_same_codes(tmp_path):
    whole = ct.VAE(**SMALL | {"max_epochs": 4}).fit(X, run=tmp_path / "whole")
    part = ct.VAE(**SMALL | {"max_epochs": 4, "max_time": 1e-9}).fit(X, run=tmp_path / "part")
    assert part.codes_ is not None  # a model that was stopped is a usable one
    assert ct.load(tmp_path / "part").codes_.shape == whole.codes_.shape
    on = ct.VAE(**SMALL | {"max_epochs": 4}).fit(X, run=tmp_path / "part", resume=True)
    assert np.array_equal(on.codes_, whole.codes_)


def test_a_density_of_the_user_s():
    """A density is a class in a table; what it is built with comes back from a run folder."""
    assert sorted(densities) == sorted([*NAMES, "independent", "autoregressive"])
    assert all(isinstance(densities[name](3).parameters_, dict) for name in densities)


def test_a_gradient_that_is_not_finite_moves_nothing():
    """Of a finite log density: the root of what is zero in some batches."""
    z = torch.rand(400, 1, generator=torch.Generator().manual_seed(0))
    z[:4] = 0.0
    factor = nn.Linear(1, 1, bias=False).requires_grad_(False)
    before = nn.init.ones_(factor.weight).clone()

    def log_prob(z: Tensor) -> Tensor:
        return -((factor(z).abs().sqrt() - 0.5) ** 2).flatten()

    given = {"epochs": 6, "steps": 500, "patience": 6, "seed": 0}
    learn(factor, factor, log_prob, z[:300], z[300:], learning_rate=0.05, **given)
    assert bool(torch.isfinite(factor.weight).all())
    assert not torch.equal(factor.weight, before)
    assert factor.weight.grad is None
