"""Objectives: their algebra, and each against the mathematics it stands for."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import chartae as ct
from chartae.core.contracts import (
    Batch,
    Distribution,
    Objective,
    Plan,
    Posterior,
    Prior,
    Term,
    Trace,
)
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density.bounds import log_likelihood_bound
from chartae.models.autoencoder import Autoencoder
from chartae.models.recipes import assemble, build
from chartae.parts.distributions import DiagonalNormal, FullNormal
from chartae.parts.likelihoods import NegativeBinomialLikelihood, StudentTLikelihood
from chartae.parts.networks import MLP
from chartae.parts.objectives import IWAE, KL, Asleep, CodeNorm, Contractive, NegLogLik, importance_bound
from chartae.parts.posteriors import Corrupted, DeltaPosterior
from chartae.training.evaluation import settle
from chartae.training.kernels import total
from chartae.training.sources import Source

N = 12


def batch(*shape: int, seed: int = 0) -> Batch:
    return Batch(torch.randn(N, *(shape or (5,)), generator=torch.Generator().manual_seed(seed)))


def plan(name: str = "vae", shape: tuple[int, ...] | Space = (5,), **parameters: object) -> Plan:
    torch.manual_seed(0)
    return build(name, shape, **{"latent_dim": 3, "hidden": (8,), **parameters})


def trace(p: Plan, b: Batch | None = None, k: int = 1, seed: int = 0) -> Trace:
    return p.model.trace(b or batch(), k=k, noise=Noise(seed))


def loss(objective: Objective, t: Trace) -> Tensor:
    return sum(term.value() for term in objective(t).values())


def number(objective: Objective, t: Trace) -> float:
    return float(loss(objective, t).detach())


# ------------------------------------------------------------------- algebra


def test_terms_compose():
    t = trace(plan())
    nll, kl, norm = (number(o, t) for o in (NegLogLik(), KL(), CodeNorm()))
    for objective, expected in (
        (NegLogLik() + KL(), nll + kl),
        (NegLogLik() + 4.0 * KL(), nll + 4 * kl),
        (NegLogLik() + KL() * 4, nll + 4 * kl),
        (2 * (NegLogLik() + 3 * KL()) + CodeNorm(), 2 * nll + 6 * kl + norm),
        (KL() + (NegLogLik() + 0.5 * CodeNorm()), kl + nll + 0.5 * norm),
        (0 * KL() + NegLogLik(), nll),
    ):
        assert number(objective, t) == pytest.approx(expected, rel=1e-5)


def test_what_is_logged_is_not_weighted():
    t = trace(plan())
    terms = (NegLogLik() + 4.0 * KL(warmup=2))(t)
    torch.testing.assert_close(terms["kl"].rows, KL()(t)["kl"].rows)
    assert terms["kl"].rows.shape == (N,)
    assert terms["kl"].per_dim.shape == (3,)
    assert list(terms) == ["nll", "kl"]


@pytest.mark.parametrize(
    "twice",
    [lambda: KL() + KL(), lambda: KL() + 2 * KL(free_bits=0.1), lambda: NegLogLik() + (KL() + NegLogLik())],
)
def test_a_term_is_refused_twice(twice):
    with pytest.raises(PlanError, match=r"two terms are called (kl|nll): use one of them"):
        twice()


def test_needs_and_samples_add_up():
    objective = NegLogLik() + KL() + IWAE(7)
    assert objective.needs == {"posterior.density", "posterior.reparameterized", "prior.log_prob"}
    assert objective.samples == 7
    assert (NegLogLik() + KL(warmup=5)).warmup == 5
    objective = 2 * (NegLogLik() + 3 * KL(warmup=2, free_bits=0.5))
    assert repr(objective) == "2 * nll + 6 * kl(free_bits=0.5, warmup=2)"


@pytest.mark.parametrize(
    ("objective", "parts", "message"),
    [
        (
            NegLogLik() + KL(),
            {"posterior": "delta"},
            "^kl does not go with posterior='delta', whose draws have no density: "
            "use posterior='normal', as recipe 'vae' does$",
        ),
        (IWAE(5), {"posterior": "delta"}, r"^iwae does not go with posterior='delta'"),
        (NegLogLik() + KL(), {"prior": None}, "^kl needs a prior, and this model has none: use a VAE recipe"),
        (
            NegLogLik() + KL(),
            {"posterior": "delta", "corruption": ("gaussian", 0.1)},
            "posterior='delta', whose draws have no density: use posterior='normal'",
        ),
    ],
)
def test_parts_that_do_not_offer_what_is_needed(objective, parts, message):
    with pytest.raises(PlanError, match=message) as caught:
        assemble((5,), objective=objective, **parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: IWAE(0),
        lambda: KL(free_bits=-1),
        lambda: KL(warmup=-1),
        lambda: Corrupted(DeltaPosterior(nn.Identity(), 5), "salt", 0.1),
        lambda: Corrupted(DeltaPosterior(nn.Identity(), 5), "masking", 1.5),
        lambda: Corrupted(DeltaPosterior(nn.Identity(), 5), "gaussian", -1.0),
        lambda: build("vae", (5,), latent_dim=0),
        lambda: build("vae", (5,), noise=0.0),
        lambda: build("vae", (5,), noise=math.inf),
        lambda: build("vae", (5,), noise=math.nan),
        lambda: build("vae", (5,), activation="rleu"),
        lambda: build("vae", (5,), hidden=(8, 0)),
        lambda: build("iwae", (5,), k=2.5),
        lambda: build("vae", Space((5,), "categorical")),
        lambda: build("vae", Space((5,), "poison")),
    ],
)
def test_parameters_that_make_no_sense(bad):
    with pytest.raises(PlanError):
        bad()


# ------------------------------------------------------------------- likelihood and KL


def test_nll_is_in_nats_and_in_the_input_s_units():
    """A change of units of the same data shifts it by exactly D log s, and by nothing for a mass."""
    x = batch().x.double().numpy() * 0.3
    for scale, center in ((7.0, 100.0), (1e-3, 0.0)):
        units = Space((5,), scale=scale, center=np.full(5, center))
        plain, scaled = plan(shape=Space((5,)), noise=1.0), plan(shape=units, noise=scale)
        inputs = (torch.from_numpy(x), torch.from_numpy(scale * x + center))
        values = [
            number(NegLogLik(), trace(p, Batch(p.model.space.to_model(t))))
            for p, t in zip((plain, scaled), inputs, strict=True)
        ]
        assert values[1] - values[0] == pytest.approx(5 * math.log(scale), abs=1e-4)
    binary = (x > 0).astype(float)
    values = [
        number(NegLogLik(), trace(p, Batch(p.model.space.to_model(torch.from_numpy(s * binary)))))
        for s in (1.0, 255.0)
        for p in [plan(shape=Space((5,), "bernoulli", scale=s))]
    ]
    assert values[0] == pytest.approx(values[1])


def test_nll_of_a_scale_for_each_column():
    scale = np.array([1.0, 10.0, 100.0, 0.1, 5.0])
    one, other = plan(shape=Space((5,))), plan(shape=Space((5,), scale=scale))
    difference = loss(NegLogLik(), trace(other)) - loss(NegLogLik(), trace(one))
    assert float(difference.detach()) == pytest.approx(np.log(scale).sum(), rel=1e-5)


def test_monte_carlo_kl_is_the_closed_one():
    """Five standard errors: a false alarm in a million runs."""
    p = plan()
    k = 4000
    t = trace(p, k=k)
    closed, sampled = KL()(t)["kl"].rows, KL(closed=False)(t)["kl"].rows
    level = t.levels[0]
    error = (level.log_posterior - level.log_prior).std(0) / math.sqrt(k)
    assert ((closed - sampled).abs() < 5 * error).all()
    assert not torch.equal(closed, sampled)


def test_warm_up_rises_linearly_and_stays():
    objective = NegLogLik() + 2.0 * KL(warmup=4)
    t = trace(plan())
    nll, kl = number(NegLogLik(), t), number(KL(), t)
    for epoch, share in ((0, 0.0), (1, 0.25), (2.5, 0.625), (4, 1.0), (9, 1.0)):
        objective.advance(epoch)
        assert number(objective, t) == pytest.approx(nll + 2 * share * kl, rel=1e-5)
    # The weight is state: it is saved with the objective.
    objective.advance(1)
    again = NegLogLik() + 2.0 * KL(warmup=4)
    again.load_state_dict(objective.state_dict())
    assert number(again, t) == pytest.approx(number(objective, t))


def test_free_bits_cost_nothing_and_push_nothing():
    p = plan()
    # Dimension 0 is far above the threshold, 1 and 2 are below it.
    last = p.model.posterior.network.layers[-1]
    with torch.no_grad():
        last.weight *= 0.01
        last.bias.zero_()
        last.bias[:3] = torch.tensor([2.0, 0.3, 0.1])
    t = trace(p)
    exact = KL()(t)["kl"]
    term = KL(free_bits=0.5)(t)["kl"]
    assert (exact.per_dim > 0.5).tolist() == [True, False, False]
    assert float(term.value().detach()) == pytest.approx(float(exact.per_dim[0]) + 2 * 0.5, rel=1e-5)
    torch.testing.assert_close(term.rows, exact.rows)  # the log shows what the KL is
    term.value().backward()
    gradient = last.bias.grad.reshape(2, 3)
    assert (gradient[:, 0] != 0).any()
    assert not gradient[:, 1:].any()


@pytest.mark.parametrize(("name", "numbers"), [("vae", 3), ("svae", 1), ("vae-iaf", 1)])
def test_free_bits_are_of_each_dimension_whether_or_not_they_are_apart(name, numbers):
    t = trace(plan(name))
    assert KL()(t)["kl"].per_dim.shape == (numbers,)
    assert KL(free_bits=100.0)(t)["kl"].value().item() == pytest.approx(300.0)


def test_free_bits_of_zero_change_nothing():
    t = trace(plan())
    torch.testing.assert_close(KL(free_bits=0.0)(t)["kl"].value(), KL(free_bits=1e-9)(t)["kl"].value())


def test_the_code_norm():
    t = trace(plan("l2-ae"))
    expected = t.levels[0].z[0].square().sum(1)
    torch.testing.assert_close(CodeNorm()(t)["code_norm"].rows, expected)
    assert CodeNorm()(t)["code_norm"].unit == "squared code units"


def test_several_samples_are_averaged():
    p = plan()
    t = trace(p, k=6)
    torch.testing.assert_close(NegLogLik()(t)["nll"].rows, -t.log_lik.mean(0))
    weights = torch.randn(6, N).log_softmax(0)
    weighted = Trace(t.batch, t.levels, t.px, t.log_lik, t.model, log_weight=weights)
    torch.testing.assert_close(NegLogLik()(weighted)["nll"].rows, -(weights.exp() * t.log_lik).sum(0))


def test_a_statistic_of_the_batch_is_a_term():
    class Spread(Objective):
        def forward(self, trace: Trace) -> dict[str, Term]:
            return {"spread": Term(trace.levels[0].z.std(), unit="code units")}

        def __repr__(self) -> str:
            return "spread"

    t = trace(plan())
    objective = NegLogLik() + 3.0 * Spread()
    expected = loss(NegLogLik(), t) + 3 * t.levels[0].z.std()
    torch.testing.assert_close(loss(objective, t), expected)


# ------------------------------------------------------------------- importance-weighted bounds


def test_the_bound_of_one_sample_is_the_elbo():
    p = plan()
    t = trace(p)
    torch.testing.assert_close(loss(IWAE(1), t), loss(NegLogLik() + KL(closed=False), t))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30)
def test_the_bound_is_between_the_mean_and_the_largest(k, n, seed):
    """Jensen: log of the mean weight is at least the mean of the logs, and at most the largest of them."""
    w = 10 * torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    bound = importance_bound(w)
    assert (bound >= w.mean(0) - 1e-9).all()
    assert (bound <= w.max(0).values + 1e-9).all()
    # Log weights of any size: no overflow, and a common factor comes out.
    torch.testing.assert_close(importance_bound(w + 1e4), bound + 1e4)


def test_the_bound_does_not_fall_with_k():
    """Burda et al. 2016, theorem 1: means over 600 sets of noise, at four standard errors."""
    p = plan()
    p.model.eval()
    b = batch()
    means, errors = [], []
    with torch.no_grad():
        for k in (1, 2, 5, 25):
            wide = p.model.trace(b, k=k * 600, noise=Noise(k)).log_joint_ratio
            bounds = torch.stack([importance_bound(part).mean() for part in wide.split(k)])
            means.append(float(bounds.mean()))
            errors.append(float(bounds.std()) / math.sqrt(600))
    for i in range(3):
        assert means[i + 1] > means[i] - 4 * math.hypot(errors[i], errors[i + 1])
    assert means[-1] > means[0] + 4 * errors[0]  # and it does rise: this posterior is not the exact one
    elbo = -number(NegLogLik() + KL(), trace(p, k=2000))
    assert means[0] == pytest.approx(elbo, abs=6 * errors[0])


class ExactPosterior(Posterior):
    """p(z | x) of x = W z + b + σ ε with z ~ N(0, I): normal, with a full covariance."""

    offers = frozenset({"log_prob", "density", "point", "reparameterized"})

    def __init__(self, W: Tensor, b: Tensor, sigma: float) -> None:
        super().__init__()
        precision = torch.eye(W.shape[1]).double() + W.T @ W / sigma**2
        self.covariance = torch.linalg.inv(precision)
        self.gain, self.b = self.covariance @ W.T / sigma**2, b
        self.tril = torch.linalg.cholesky(self.covariance)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return FullNormal((x - self.b) @ self.gain.T, self.tril.expand(len(x), -1, -1))


@pytest.fixture
def linear_gaussian() -> tuple[Autoencoder, Batch, Tensor]:
    """A model whose posterior is the exact one, rows, and their log p(x)."""
    sigma, scale, center = 0.4, 7.0, 100.0
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    space = Space((5,), scale=scale, center=np.full(5, center))
    template = build("vae", space, latent_dim=3, network="linear", noise=sigma * scale).model.double().eval()
    (layer,) = template.likelihood.network.layers
    W, b = layer.weight.detach(), layer.bias.detach()
    posterior = ExactPosterior(W, b, sigma)
    model = Autoencoder(posterior, template.prior, template.likelihood, template.space, 3).eval()
    x = torch.randn(N, 5, generator=generator, dtype=torch.float64)
    marginal = torch.distributions.MultivariateNormal(
        scale * b + center, scale**2 * (W @ W.T + sigma**2 * torch.eye(5).double())
    )
    return model, Batch(x), marginal.log_prob(scale * x + center)


@pytest.mark.parametrize("k", [1, 2, 10, 100])
def test_the_bound_is_tight_at_the_exact_posterior(linear_gaussian, k):
    """Every weight is p(x): no variance, for every k and every noise, in the input's units."""
    model, b, exact = linear_gaussian
    for seed in (0, 1):
        t = model.trace(b, k=k, noise=Noise(seed))
        torch.testing.assert_close(t.log_joint_ratio, exact.expand(k, N))
        torch.testing.assert_close(-IWAE(k)(t)["iwae"].rows, exact)
        torch.testing.assert_close(log_likelihood_bound(model, b, k=k, noise=Noise(seed)), exact)


def test_the_elbo_is_tight_at_the_exact_posterior(linear_gaussian):
    model, b, exact = linear_gaussian
    t = model.trace(b, k=1, noise=Noise(0))
    # A Monte Carlo KL, whose noise cancels the likelihood's.
    kl = KL(closed=False)(t)["kl"]
    torch.testing.assert_close(-(NegLogLik()(t)["nll"].rows + kl.rows), exact)


def test_a_worse_posterior_gives_a_lower_bound(linear_gaussian):
    model, b, exact = linear_gaussian
    model.posterior.tril = 1.5 * model.posterior.tril
    k = 4000
    t = model.trace(b, k=k, noise=Noise(0))
    gap = exact - t.log_joint_ratio.mean(0)
    # KL(N(m, 1.5² S) || N(m, S)) = ½ d (1.5² - 1 - log 1.5²); six standard errors.
    expected = 0.5 * 3 * (1.5**2 - 1 - math.log(1.5**2))
    assert ((gap - expected).abs() < 6 * t.log_joint_ratio.std(0) / math.sqrt(k)).all()
    torch.testing.assert_close(importance_bound(t.log_joint_ratio), exact, atol=0.1, rtol=0)


# ------------------------------------------------------------------- contraction and corruption


@pytest.mark.parametrize(
    ("shape", "network"),
    [((5,), "linear"), ((5,), "mlp"), ((2, 3), "mlp"), ((8, 9), "conv2d"), ((3, 4, 5), "conv2d")],
)
def test_the_contractive_penalty_is_the_jacobian_s_norm(shape, network):
    torch.manual_seed(0)
    space = Space(shape)
    hidden = None if network == "linear" else (6,)
    p = build("contractive-ae", space, latent_dim=3, network=network, hidden=hidden, activation="tanh")
    b = batch(*space.model_shape)
    rows = Contractive()(trace(p, b))["contractive"].rows
    encode = p.model.posterior.network

    def code(x: Tensor) -> Tensor:
        return encode(x[None])[0]

    jacobian = torch.vmap(torch.func.jacrev(code))(b.x)
    assert jacobian.shape == (N, 3, *space.model_shape)
    torch.testing.assert_close(rows, jacobian.flatten(1).square().sum(1))


def test_the_contractive_penalty_s_gradient_is_right():
    """Of a linear encoder: |W|², whose gradient is 2 W."""
    p = plan("contractive-ae", network="linear", hidden=None)
    (layer,) = p.model.posterior.network.layers
    Contractive()(trace(p))["contractive"].value().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * layer.weight.detach())


class Statistics(nn.Module):
    """An encoder whose second call would show: batch statistics, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("corruption", [None, ("gaussian", 0.5)])
def test_the_contractive_penalty_has_no_side_effect(corruption):
    torch.manual_seed(0)
    p = assemble(
        (5,),
        objective=NegLogLik() + Contractive(),
        posterior="delta",
        prior=None,
        latent_dim=3,
        network=(Statistics(), nn.Linear(3, 5)),
        corruption=corruption,
    )
    p.model.train()
    t = trace(p)
    before = {name: value.clone() for name, value in p.model.state_dict().items()}
    modes = [m.training for m in p.model.modules()]
    rng = torch.get_rng_state()
    once, twice = (Contractive()(t)["contractive"].rows for _ in range(2))
    assert torch.equal(once, twice)  # no dropout, no corruption
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(before[name], value) for name, value in p.model.state_dict().items())
    assert [m.training for m in p.model.modules()] == modes


def test_the_contractive_penalty_works_without_gradients():
    """Validation runs under no_grad, and the penalty is a gradient."""
    p = plan("contractive-ae")
    with torch.no_grad():
        rows = Contractive()(trace(p))["contractive"].rows
    assert not rows.requires_grad
    torch.testing.assert_close(rows, Contractive()(trace(p))["contractive"].rows.detach())


@pytest.mark.parametrize(("kind", "amount"), [("gaussian", 0.5), ("masking", 0.5)])
def test_corruption_acts_in_training_only(kind, amount):
    p = plan("vae", corruption=(kind, amount))
    b = batch()
    p.model.train()
    assert not torch.equal(p.model.posterior(b.x).point(), p.model.posterior(b.x).point())
    clean = p.model.posterior.plain(b.x).point()
    assert torch.equal(clean, p.model.posterior.plain(b.x).point())
    p.model.eval()
    assert torch.equal(p.model.posterior(b.x).point(), clean)


def test_corruption_is_what_it_says():
    x = torch.ones(400, 50)

    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.x = x
            return x

    torch.manual_seed(0)
    seen = Seen()
    Corrupted(DeltaPosterior(seen, 50), "masking", 0.3)(x)
    assert set(seen.x.unique().tolist()) == {0.0, 1.0}
    # 20,000 values: a standard error of .0032, at five of them.
    assert float((seen.x == 0).float().mean()) == pytest.approx(0.3, abs=0.016)
    Corrupted(DeltaPosterior(seen, 50), "gaussian", 0.3)(x)
    assert float((seen.x - x).std()) == pytest.approx(0.3, abs=0.008)
    assert float((seen.x - x).mean()) == pytest.approx(0, abs=0.011)


def test_stretching_moves_the_ends_of_axes_and_what_lies_between_along():
    """Of a ramp it makes a ramp, cut at the edges, whose ends lie where the law says, other for each item."""
    ramp = torch.linspace(0, 1, 41).expand(500, 2, 9, 41)
    torch.manual_seed(0)
    out = Corrupted.KINDS["stretching"](ramp, 0.2)
    assert out.shape == ramp.shape
    torch.testing.assert_close(out, out[:, :1, :1].expand_as(out))  # rows are alike, whatever their place
    line = out[:, 0, 0]
    inner = (line > 0.01) & (line < 0.99)
    curved = line.diff(dim=1).diff(dim=1).abs()[inner[:, 2:] & inner[:, 1:-1] & inner[:, :-2]]
    assert float(curved.max()) < 1e-5
    slope = torch.stack([row.diff()[i[1:] & i[:-1]].mean() for row, i in zip(line, inner, strict=True)]) * 40
    # 1 + u - v of two uniform ends between -.2 and .2: standard deviation .163, of 500 items.
    assert float(slope.mean()) == pytest.approx(1, abs=0.03)
    assert float(slope.std()) == pytest.approx(0.4 / 6**0.5, abs=0.02)
    assert float(slope.max()) <= 1.4 + 1e-4
    torch.testing.assert_close(Corrupted.KINDS["stretching"](ramp, 1e-7), ramp)


def test_images_are_stretched_and_rows_are_not():
    x = torch.rand(30, 1, 8, 8)
    p = build("ae", Space((8, 8)), latent_dim=2, hidden=(8,), corruption=("stretching", 0.2))
    p.model.train()
    assert not torch.equal(p.model.posterior(x).point(), p.model.posterior.plain(x).point())
    p.model.eval()
    assert torch.equal(p.model.posterior(x).point(), p.model.posterior.plain(x).point())
    with pytest.raises(PlanError, match="not for rows"):
        build("ae", (8,), latent_dim=2, corruption=("stretching", 0.2))


def test_a_denoiser_is_scored_on_clean_rows():
    """The target is the clean row: the likelihood is of it, not of the corrupted one."""
    p = plan("denoising-ae", corruption=5.0, noise=1.0)
    p.model.train()
    b = batch()
    t = trace(p, b)
    torch.testing.assert_close(t.log_lik, t.px.log_prob(b.x))


def test_denoising_helps_where_there_is_noise():
    """A line in ten dimensions: an encoder trained on corrupted rows projects noisy rows nearer to it."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(1, 10)) / math.sqrt(10)
    X = rng.uniform(-3, 3, size=(500, 1)) @ direction
    noisy = X + 0.4 * rng.normal(size=X.shape)
    errors = []
    for corruption in (None, 0.5):
        m = ct.AE(corruption=corruption, latent_dim=2, hidden=(32,), max_epochs=60, learning_rate=5e-3,
                  random_state=0).fit(X)  # fmt: skip
        errors.append(float(np.sqrt(np.mean((m.project(noisy) - X) ** 2))))
    assert errors[1] < errors[0]
    assert errors[1] < 0.4


# ------------------------------------------------------------------- likelihoods and priors in training


def test_global_noise_starts_at_the_first_batch_and_then_follows():
    p = plan(noise="global")
    p.model.train()
    b = batch()
    t = trace(p, b)
    first = (b.x - t.px.mean[0].detach()).square().mean()
    likelihood = p.model.likelihood
    torch.testing.assert_close(likelihood.log_spread.exp(), first)
    t = trace(p, Batch(3 * b.x))
    now = (3 * b.x - t.px.mean[0].detach()).square().mean()
    torch.testing.assert_close(likelihood.log_spread.exp(), 0.95 * first + 0.05 * now)
    frozen = likelihood.log_spread.clone()
    p.model.eval()
    trace(p, b)
    assert torch.equal(likelihood.log_spread, frozen)


def test_feature_noise_is_one_for_each_feature():
    p = plan(noise="feature")
    p.model.train()
    b = Batch(batch().x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    t = trace(p, b, k=3)
    expected = (b.x - t.px.mean.detach()).square().mean((0, 1))
    torch.testing.assert_close(p.model.likelihood.log_spread.exp(), expected)


def test_noise_has_a_floor():
    """A perfect reconstruction has no likelihood: the variance stops at a millionth of the data's."""
    p = plan(noise="global")
    p.model.train()
    px = DiagonalNormal(batch().x[None], torch.zeros(()))
    p.model.likelihood.observe(px, batch().x)
    assert float(p.model.likelihood.log_spread) == pytest.approx(math.log(1e-6))


@pytest.mark.parametrize("noise", ["global", "feature"])
def test_the_final_noise_does_not_depend_on_the_order_of_rows(noise):
    """Each value that was observed counts once, also where a batch has few of them, or none of a feature."""
    X = np.random.default_rng(0).normal(size=(3000, 5)).astype(np.float32) * [3.0, 1.0, 1.0, 1.0, 1.0]
    X[:2300, 1:] = np.nan  # more than two batches
    found = []
    for rows in (np.arange(3000), np.random.default_rng(1).permutation(3000)):
        p = plan("ae", Space((5,), gaps=True), noise=noise)
        settle(p, Source(X[rows], p.model.space), seed=0)
        found.append(p.model.likelihood.log_spread.exp())
        with torch.no_grad():
            t = trace(p.__class__(p.model.eval(), p.objective), Batch(torch.from_numpy(X[rows]).float()))
        squares = (t.batch.x - t.px.point()[0]).square()
        expected = squares.nanmean() if noise == "global" else squares.nanmean(0)
        torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(*found, rtol=1e-4, atol=0)


def settled_spread(likelihood, location, x, steps=40):
    """The spread after looking at the same values again and again."""
    likelihood.train()
    for _ in range(steps):
        likelihood.observe(likelihood.distribution(location), x)
    return likelihood.log_spread.exp()


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("noise", ["global", "feature"])
@pytest.mark.parametrize("spread", [0.0, 0.25, 2.0])
def test_the_spread_of_counts_is_that_of_their_residuals(spread, noise, gaps):
    """Of counts of many means: r is found again, and none is made up where they are a Poisson's."""
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(1.0, 1.0, (20_000, 3)))
    counts = rng.poisson(mean * rng.gamma(1 / spread, spread, mean.shape) if spread else mean)
    x = torch.from_numpy(counts).float()
    if gaps:
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = torch.nan
    likelihood = NegativeBinomialLikelihood(torch.nn.Identity(), (3,), noise=noise)
    likelihood.gaps = gaps
    location = torch.from_numpy(mean).float().log()[None]
    found = settled_spread(likelihood, location, x)
    assert found.shape == ((3,) if noise == "feature" else ())
    # A standard error is 4 % of a spread of 2, of which the likeliest estimate has half.
    torch.testing.assert_close(found, torch.full_like(found, spread), rtol=0.15, atol=0.01)


@pytest.mark.parametrize("dof", [1.5, 5.0, 50.0])
def test_the_scale_of_students_t_is_the_likeliest(dof):
    x = 0.3 * torch.from_numpy(np.random.default_rng(0).standard_t(dof, (20_000, 2))).float()
    likelihood = StudentTLikelihood(torch.nn.Identity(), (2,))
    likelihood.log_dof.data.fill_(math.log(dof))
    location = torch.zeros(1, *x.shape)
    variance = settled_spread(likelihood, location, x, steps=500)
    assert float(variance.sqrt()) == pytest.approx(0.3, rel=0.03)  # a standard error is 1 % at most
    _, likeliest = scipy.stats.t.fit(x.numpy().ravel(), fdf=dof, floc=0.0)[1:]
    assert float(variance.sqrt()) == pytest.approx(likeliest, rel=1e-3)


def test_the_prior_is_handed_the_plain_posterior():
    class Asking(Prior):
        offers = frozenset({"log_prob", "point"})
        seen: Posterior | None = None

        def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
            Asking.seen = posterior
            return DiagonalNormal(torch.zeros(3), torch.zeros(3))

    inner = plan().model
    corrupted = Corrupted(inner.posterior, "gaussian", 0.1)
    model = Autoencoder(corrupted, Asking(), inner.likelihood, inner.space, 3)
    model.trace(batch(), k=1, noise=Noise(0))
    assert Asking.seen is inner.posterior
    assert "seen" not in dict(model.named_modules())


def test_fitted_prior_of_dead_and_correlated_dimensions():
    from chartae.density import NormalDensity

    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    z = torch.randn(500, 3, generator=generator) @ mixing + 4
    p = NormalDensity(3).fit(z)()
    np.testing.assert_allclose((p.scale_tril @ p.scale_tril.T).numpy(), np.cov(z.T.numpy()), atol=1e-4)
    np.testing.assert_allclose(p.mean.numpy(), z.mean(0).numpy(), rtol=1e-5)
    for few in (z[:1], z[:2], torch.zeros(5, 3)):
        assert torch.isfinite(NormalDensity(3).fit(few)().draw(10, Noise(0)).z).all()


def test_a_network_may_be_shared_by_the_parts():
    """A module in both encoder and decoder is one set of parameters, counted once."""
    shared = MLP((4,), (4,), hidden=(8,))
    parts = {"posterior": "delta", "prior": None, "network": (shared, shared)}
    p = assemble((4,), objective=NegLogLik(), latent_dim=4, **parts)
    loss(p.objective, p.model.trace(batch(4), k=1, noise=Noise(0))).backward()
    assert all(parameter.grad is not None for parameter in p.model.parameters())


def test_a_sampled_kl_is_split_over_dimensions_too():
    """Free bits are of each dimension, whether or not the pair has a closed form."""
    p = plan()
    exact = KL()(trace(p, k=20_000))["kl"]
    sampled = KL(closed=False, free_bits=0.05)(trace(p, k=20_000))["kl"]
    assert sampled.per_dim.shape == (3,)
    # Monte Carlo over 20,000 samples of 12 rows; the largest standard error of a dimension is below 0.005.
    torch.testing.assert_close(sampled.per_dim, exact.per_dim, rtol=0, atol=0.02)
    torch.testing.assert_close(sampled.rows.mean(), sampled.per_dim.sum())
    torch.testing.assert_close(sampled.loss, sampled.per_dim.clamp_min(0.05).sum())


def test_an_importance_bound_logs_the_terms_of_the_elbo_without_counting_them():
    p = plan()
    terms = IWAE(k=4)(trace(p, k=4))
    assert set(terms) == {"iwae", "nll", "kl"}
    torch.testing.assert_close(total(terms), terms["iwae"].rows.mean())
    assert not terms["kl"].rows.requires_grad
    assert terms["kl"].per_dim.shape == (3,)
    # Jensen: the bound of several samples is no looser than the ELBO of the same samples.
    sampled = KL(closed=False)(trace(p, k=4))["kl"].rows
    assert bool((terms["iwae"].rows <= terms["nll"].rows + sampled + 1e-5).all())


def test_terms_of_one_name_are_refused_wherever_they_come_from():
    class Other(Objective):
        def forward(self, trace: Trace) -> dict[str, Term]:
            return {"kl": Term(trace.expect(trace.log_lik))}

        def __repr__(self) -> str:
            return "other"

    with pytest.raises(PlanError, match="two terms are called 'kl'"):
        (NegLogLik() + KL() + Other())(trace(plan()))


@pytest.mark.parametrize("factor", [-1.0, math.nan])
def test_a_weight_that_rewards_a_cost_is_refused(factor):
    with pytest.raises(PlanError, match="use 0 or more"):
        factor * KL()
    if factor < 0:
        with pytest.raises(PlanError, match="use 0 or more"):
            build("beta-vae", (4,), beta=factor)


def test_a_term_of_weight_zero_is_logged_alone():
    p = plan()
    objective = NegLogLik() + 0.0 * KL()
    terms = objective(trace(p))
    torch.testing.assert_close(total(terms), terms["nll"].rows.mean())
    assert bool(terms["kl"].rows.mean() > 0)


# ------------------------------------------------------------------- dreams


def test_dreams_teach_the_encoder_alone():
    for name in ("vae", "vamp-vae", "hierarchical-vae", "vae-iaf", "svae"):
        p = plan(name, Space((5,), likelihood="bernoulli"))
        taught = trace(p)
        loss(Asleep(), taught).backward()
        of = {
            part: [q.grad is not None and bool(q.grad.any()) for q in getattr(p.model, part).parameters()]
            for part in ("posterior", "prior", "likelihood")
        }
        assert any(of["posterior"])
        # A VampPrior encodes: there the encoder is a part of it.
        assert not any(of["likelihood"])
        assert not any(of["prior"])


def test_dreams_teach_the_true_posterior():
    """Of a linear decoder and a linear encoder, in closed form: Bishop 2006, equation 12.42."""
    W, sigma = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 0.5
    p = plan("vae", Space((3,)), latent_dim=2, network="linear", hidden=None, noise=sigma)
    (decoder,) = (m for m in p.model.likelihood.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        decoder.weight.copy_(W)
        decoder.bias.zero_()
    optimizer = torch.optim.Adam(p.model.posterior.parameters(), lr=0.02)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
        optimizer.zero_grad()
        t = trace(p, Batch(torch.zeros(256, 3)), seed=step)
        loss(Asleep(), t).backward()
        optimizer.step()
    precision = W.T @ W / sigma**2 + torch.eye(2)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    q = p.model.q(x)
    exact = x @ W @ torch.linalg.inv(precision) / sigma**2
    torch.testing.assert_close(q.point(), exact, atol=0.03, rtol=0)
    # Of independent normals the likeliest have the conditional variances on average: the marginal ones.
    torch.testing.assert_close(q.std()[0], torch.linalg.inv(precision).diagonal().sqrt(), atol=0.02, rtol=0)


def test_dreams_stand_beside_what_stands_alone():
    kept = IWAE(6, kept=2) + 0.5 * Asleep()
    assert (kept.samples, kept.picks) == (6, True)
    p = plan("iwae", k=6, kept=2, asleep=0.5)
    loss(p.objective, p.model.trace(batch(), k=6, noise=Noise(0), pick=p.objective.pick)).backward()
    assert {"iwae", "asleep"} <= set(p.objective(trace(p, k=6)))
    with pytest.raises(PlanError, match="goes back through some of its samples"):
        IWAE(6, kept=2) + KL() + Asleep()
    with pytest.raises(PlanError, match="asleep does not go with posterior='delta'"):
        plan("ae", asleep=1.0)


def test_epochs_are_not_compared_by_dreams():
    (term,) = Asleep()(trace(plan())).values()
    assert term.judged == 0


def test_an_encoder_of_few_rows_reads_new_ones_better_for_its_dreams():
    """What codes of new rows cost, beyond the best ones: the bound of one sample against that of many."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 4))
    X = (z @ rng.normal(size=(4, 30)) + rng.normal(size=(400, 30)) > 0).astype(np.float32)
    lost = []
    for asleep in (0.0, 1.0):
        m = ct.VAE(
            latent_dim=4,
            hidden=(128,),
            likelihood="bernoulli",
            max_epochs=150,
            patience=None,
            validation_fraction=0,
            asleep=asleep,
            random_state=0,
        ).fit(X[:150])
        lost.append(m.score(X[150:], n_importance=200) - m.score(X[150:], n_importance=1))
    assert lost[1] < 0.75 * lost[0]
