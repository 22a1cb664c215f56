"""Several stochastic layers: chains of normals, products of two of them, and the models made of them."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from torch import nn

import chartae as ct
from chartae.core.contracts import Batch, RawCondition
from chartae.core.errors import PlanError
from chartae.core.noise import Noise, SharedNoise
from chartae.core.spaces import Space
from chartae.density import annealed_log_likelihood, log_likelihood
from chartae.models.recipes import assemble, build
from chartae.parts.distributions import Chain, DiagonalNormal, FullNormal, StandardNormal, kl
from chartae.parts.networks import MLP, damp
from chartae.parts.objectives import KL, NegLogLik
from chartae.parts.posteriors import BottomUpPosterior, LadderPosterior, layer_sizes
from chartae.parts.posteriors.hierarchies import _combine
from chartae.parts.priors import TopDownPrior
from chartae.training.kernels import Gradients, LayerGradients, gradients_for

NAMES = ("hierarchical-vae", "ladder-vae")
LAYERED = {"latent_dim": 5, "hidden": (8,), "activation": "tanh"}

each_kind = pytest.mark.parametrize("name", NAMES)
both_ways = pytest.mark.parametrize("downward", [False, True])


def bent(v: torch.Tensor) -> DiagonalNormal:
    """A normal whose mean and variance follow the part before in no simple way."""
    return DiagonalNormal((2 * v).sin() + v.square(), (v.cos() - 1.0))


def linear_chain(downward: bool, seed: int = 0) -> tuple[Chain, FullNormal]:
    """A chain of three linear parts, and the same as one normal, from its covariance."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    sizes = (3, 2, 2)
    mean, log_var = draw(3), draw(3)
    W, b, s = [draw(2, 3), draw(2, 2)], [draw(2), draw(2)], [draw(2), draw(2)]
    steps = [lambda v, i=i: DiagonalNormal(v @ W[i].T + b[i], s[i]) for i in range(2)]
    means = [mean, W[0] @ mean + b[0]]
    means.append(W[1] @ means[1] + b[1])
    # v = mean + A noise: each part is its own noise, and what it takes from the part before.
    own = [torch.diag((0.5 * t).exp()) for t in (log_var, *s)]
    A = torch.zeros(7, 7, dtype=torch.float64)
    A[:3, :3] = own[0]
    A[3:5, :3], A[3:5, 3:5] = W[0] @ own[0], own[1]
    A[5:, :5], A[5:, 5:] = W[1] @ A[3:5, :5], own[2]
    order = [5, 6, 3, 4, 0, 1, 2] if downward else list(range(7))
    A, joint_mean = A[order], torch.cat(means)[order]
    joint = FullNormal(joint_mean, torch.linalg.cholesky(A @ A.T))
    return Chain(DiagonalNormal(mean, log_var), steps, sizes, downward=downward), joint


@both_ways
def test_a_chain_s_density_integrates_to_one(downward):
    chain = Chain(StandardNormal(1), [bent], (1, 1), downward=downward)
    grid = torch.linspace(-12, 40, 1500, dtype=torch.float64)
    other = torch.linspace(-6, 6, 400, dtype=torch.float64)
    first, second = torch.meshgrid(other, grid, indexing="ij")
    v = torch.stack([second, first] if downward else [first, second], -1)
    density = chain.log_prob(v).exp().numpy()
    total = integrate.simpson(integrate.simpson(density, x=grid.numpy(), axis=1), x=other.numpy())
    assert total == pytest.approx(1.0, abs=1e-6)


@both_ways
def test_a_linear_chain_is_a_normal(downward):
    chain, joint = linear_chain(downward)
    v = 3 * torch.randn(4, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(chain.log_prob(v), joint.log_prob(v))
    torch.testing.assert_close(chain.log_prob(v, per_dim=True).sum(-1), joint.log_prob(v))
    torch.testing.assert_close(chain.point(), joint.point())
    assert chain.event_shape == joint.event_shape
    assert chain.batch_shape == joint.batch_shape == ()
    # Draws: 40 tests of means and of covariances at a rate of false alarms below 1e-3.
    z = chain.draw(20_000, Noise(0)).z
    white = torch.linalg.solve_triangular(joint.scale_tril, (z - joint.mean).T, upper=False)
    assert (white.mean(1) * math.sqrt(20_000)).abs().max() < 4.5
    assert ((white @ white.T / 20_000 - torch.eye(7)).abs().max()) < 4.5 * math.sqrt(2 / 20_000)


def test_the_standard_deviation_is_that_of_each_part_given_the_means_before():
    chain, _ = linear_chain(downward=True)
    laws = [chain.first, chain.steps[0](chain.first.mean)]
    laws.append(chain.steps[1](laws[1].mean))
    torch.testing.assert_close(chain.std(), torch.cat([p.std() for p in laws[::-1]]))


def test_parts_given_values_of_a_batch_broadcast():
    first = DiagonalNormal(torch.randn(6, 2), torch.zeros(6, 2))
    shift = torch.randn(6, 1)
    chain = Chain(first, [lambda v: DiagonalNormal(v[..., :1] + shift, torch.zeros(()))], (2, 1))
    v = torch.randn(4, 1, 3)
    expected = torch.stack([chain.log_prob(v.expand(4, 6, 3))[:, i] for i in range(6)], 1)
    torch.testing.assert_close(chain.log_prob(v), expected)
    assert chain.log_prob(v, per_dim=True).shape == (4, 6, 3)


def test_all_rows_share_the_noise_that_is_to_be_shared():
    chain = Chain(DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2)), [bent], (2, 2))
    z = chain.draw(8, SharedNoise(0)).z
    assert z.shape == (8, 5, 4)
    assert torch.equal(z, z[:, :1].expand_as(z))
    assert len(z[:, 0].unique(dim=0)) == 8


def test_what_is_kept_of_the_last_value_is_never_stale():
    """Laws of the last value are used again: not where it has changed, nor where they would cut gradients."""
    w = torch.ones((), requires_grad=True)
    chain = Chain(StandardNormal(1), [lambda v: DiagonalNormal(w * v, torch.zeros(()))], (1, 1))
    fresh = lambda: Chain(chain.first, chain.steps, chain.sizes)  # noqa: E731
    with torch.no_grad():
        v = chain.draw(3, Noise(0)).z
        assert torch.equal(chain.log_prob(v), fresh().log_prob(v))
    assert torch.autograd.grad(chain.log_prob(v).sum(), w)[0] != 0
    with torch.no_grad():
        v.mul_(2)
    assert torch.equal(chain.log_prob(v), fresh().log_prob(v))
    with torch.inference_mode():
        v = chain.draw(3, Noise(0)).z
        chain.log_prob(v)
        v.mul_(2)
        assert torch.equal(chain.log_prob(v), fresh().log_prob(v))


def test_the_derivative_by_a_value_is_whole():
    """By z itself, though z was drawn from what its laws are made of."""
    chain = Chain(StandardNormal(1), [bent], (1, 1))
    with torch.enable_grad():
        mean = torch.zeros(1, requires_grad=True)
        drawn = Chain(DiagonalNormal(mean, torch.zeros(1)), [bent], (1, 1)).draw(5, Noise(0)).z
    z = drawn.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(chain.log_prob(z).sum(), z)
    h = 1e-6 * torch.eye(2, dtype=torch.float64)
    central = torch.stack([(chain.log_prob(z + e) - chain.log_prob(z - e)) / 2e-6 for e in h], -1)
    torch.testing.assert_close(slope, central.detach(), rtol=1e-6, atol=1e-8)


@given(st.integers(1, 200), st.integers(1, 8))
def test_layers_halve_and_add_up(latent_dim, levels):
    if levels > latent_dim:
        with pytest.raises(PlanError, match=f"levels={levels} with latent_dim={latent_dim}"):
            layer_sizes(latent_dim, levels)
        return
    sizes = layer_sizes(latent_dim, levels)
    assert len(sizes) == levels
    assert sum(sizes) == latent_dim
    assert min(sizes) >= 1
    assert all(above <= below for below, above in pairwise(sizes))
    if latent_dim % (2**levels - 1) == 0:
        assert all(2 * above == below for below, above in pairwise(sizes))


def test_two_normals_are_combined_as_their_product():
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 6, 3, generator=g).double(), 4 * torch.randn(2, 6, 3, generator=g).double()
    own, p = (DiagonalNormal(m, s) for m, s in zip(mean, log_var, strict=True))
    both = _combine(own, lambda _: p, torch.zeros(6, 1))
    precision = (-log_var).exp()
    torch.testing.assert_close(both.log_var, -precision.sum(0).log())
    torch.testing.assert_close(both.mean, (precision * mean).sum(0) / precision.sum(0))
    # The density of the product, up to a constant in the value.
    v = torch.randn(9, 6, 3, generator=g).double()
    gap = own.log_prob(v) + p.log_prob(v) - both.log_prob(v)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap))
    # Nothing is lost where one of them says next to nothing.
    flat = DiagonalNormal(torch.zeros(6, 3).double(), torch.tensor(20.0).double())
    torch.testing.assert_close(_combine(own, lambda _: flat, v).mean, own.mean, rtol=1e-3, atol=1e-3)


def test_a_ladder_s_layers_are_products_with_the_prior_s():
    torch.manual_seed(0)
    width = LadderPosterior.features(4, sizes=(2, 1, 1))
    q_part = LadderPosterior(MLP((6,), (width,), (8,)), 4, sizes=(2, 1, 1)).double()
    p = TopDownPrior(4, sizes=(2, 1, 1)).double()()
    own = q_part(torch.randn(5, 6).double())
    q = own.within(p, None)
    z = q.draw(3, Noise(0)).z
    parts = z.split((2, 1, 1), -1)
    says = list(zip(*(t.split((2, 1, 1), -1) for t in (own.mean, own.log_var)), strict=True))
    expected = [DiagonalNormal(*says[2]).log_prob(parts[2])]
    for above, part, mine, step in zip(parts[:0:-1], parts[1::-1], says[1::-1], p.steps, strict=True):
        theirs = step(above)
        precision = (-mine[1]).exp() + (-theirs.log_var).exp()
        mean = (mine[0] * (-mine[1]).exp() + theirs.mean * (-theirs.log_var).exp()) / precision
        expected.append(DiagonalNormal(mean, -precision.log()).log_prob(part))
    torch.testing.assert_close(q.log_prob(z), sum(expected))


@each_kind
def test_the_kl_term_is_the_difference_of_log_densities(name):
    torch.manual_seed(0)
    plan = build(name, (6,), levels=2, **LAYERED)
    trace = plan.model.trace(Batch(torch.randn(9, 6)), k=4, noise=Noise(0))
    (level,), term = trace.levels, KL()(trace)["kl"]
    torch.testing.assert_close(term.rows, (level.q.log_prob(level.z) - level.p.log_prob(level.z)).mean(0))
    assert term.per_dim.shape == (5,)
    torch.testing.assert_close(term.per_dim.sum(), term.rows.mean())
    free = KL(free_bits=0.5)(trace)["kl"]
    torch.testing.assert_close(free.loss, term.per_dim.clamp_min(0.5).sum())


def test_its_mean_is_the_divergence_of_the_joint_normals():
    q, q_joint = linear_chain(downward=False, seed=2)
    p, p_joint = linear_chain(downward=False, seed=3)
    z = q.draw(40_000, Noise(0)).z
    gaps = q.log_prob(z) - p.log_prob(z)
    exact = kl(q_joint, p_joint).sum()
    # Four standard errors: a false alarm in 16,000.
    assert abs(gaps.mean() - exact) < 4 * gaps.std() / math.sqrt(len(gaps))


@each_kind
def test_one_layer_is_the_plain_vae(name):
    X = np.random.default_rng(0).normal(size=(60, 5))
    shared = {"latent_dim": 3, "hidden": (8,), "max_epochs": 2, "random_state": 0}
    one = ct.Autoencoder(recipe=name, recipe_params={"levels": 1, "warmup": 0.0}, **shared).fit(X)
    plain = ct.Autoencoder(recipe="vae", **shared).fit(X)
    close = {"rtol": 1e-5, "atol": 1e-6}  # gradients are taken in another way
    np.testing.assert_allclose(*([e["loss"] for e in m.history_] for m in (one, plain)), **close)
    for method in ("transform", "score_samples", "project"):
        np.testing.assert_allclose(getattr(one, method)(X), getattr(plain, method)(X), **close)
    np.testing.assert_allclose(*(m.sample(5, random_state=0) for m in (one, plain)), **close)


@each_kind
def test_the_decoder_sees_the_lowest_layer_alone(name):
    model = build(name, (6,), levels=2, **LAYERED).model
    z, changed = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    changed[..., :4] = z[..., :4]
    with torch.no_grad():
        points = [model.likelihood(t).point() for t in (z, changed)]
        assert torch.equal(*points)
        changed[..., 3] += 1
        assert not torch.equal(points[0], model.likelihood(changed).point())
    assert layer_sizes(5, 2) == (4, 1)


def test_the_two_layer_model_of_the_paper():
    plan = build(
        "hierarchical-vae", Space((784,), "bernoulli"), latent_dim=150, k=50, hidden=(200, 200), network="mlp"
    )
    model = plan.model
    widths = {
        name: [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)]
        for name, net in model.named_children()
    }
    assert widths["posterior"] == [
        (200, 784), (200, 200), (200, 200),  # to the mean and log variance of 100 dimensions
        (100, 100), (100, 100), (100, 100),  # to those of 50
    ]  # fmt: skip
    assert widths["prior"] == [(100, 50), (100, 100), (200, 100)]
    assert widths["likelihood"] == [(200, 100), (200, 200), (784, 200)]
    assert plan.objective.samples == 50


def exact_log_density(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """log p(x) of a model of two layers whose networks are linear and whose variances are constants."""
    decoder, step = model.likelihood.network.network.layers[0], model.prior.downward[0].network.layers[0]
    d = model.prior.sizes[1]
    W, b, log_var = step.weight[:d], step.bias[:d], step.bias[d:]
    low_cov = W @ W.T + torch.diag(log_var.exp())
    cov = decoder.weight @ low_cov @ decoder.weight.T
    cov = cov + model.likelihood.log_spread.exp() * torch.eye(len(cov))
    return FullNormal(decoder.weight @ b + decoder.bias, torch.linalg.cholesky(cov)).log_prob(x)


def linear_model(name: str, k: int = 1) -> nn.Module:
    torch.manual_seed(3)
    space = Space((4,), "normal")
    plan = build(name, space, latent_dim=3, sizes=(2, 1), k=k, network="linear", inner=(), noise=2.0)
    step = plan.model.prior.downward[0].network.layers[0]
    damp(plan.model.posterior.network, 0.2)
    with torch.no_grad():  # a variance that does not follow the layer above
        step.weight[2:] = 0
        step.bias[2:] = torch.tensor([-0.5, 0.3])
        # Wide enough for weights whose variance is small.
        upper = plan.model.posterior.upward[0]
        plan.model.posterior.network.layers[0].bias[2:4] += 1.0
        getattr(upper, "network", upper).layers[0].bias[1:2] += 1.0
    return plan.model.eval()


@each_kind
def test_bounds_lie_below_the_density_and_close_in_on_it(name):
    model = linear_model(name)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = exact_log_density(model, x).double()
    value, error = log_likelihood(model, Batch(x), k=20_000, noise=Noise(0))
    assert ((value - exact).abs() < 4.5 * error + 1e-4).all()
    assert (error < 0.1).all()
    elbo = log_likelihood_mean(model, x, k=1)
    ten = log_likelihood_mean(model, x, k=10)
    assert (elbo < ten).all()
    assert (ten < exact).all()


@torch.no_grad()
def log_likelihood_mean(model: nn.Module, x: torch.Tensor, k: int, times: int = 4000) -> torch.Tensor:
    """The bound of k samples, averaged over many draws of them."""
    ratios = model.trace(Batch(x), k=k * times, noise=Noise(1)).log_joint_ratio.double()
    return (ratios.reshape(k, times, -1).logsumexp(0) - math.log(k)).mean(0)


@each_kind
def test_annealing_through_all_layers_gives_the_density(name):
    model = linear_model(name)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = exact_log_density(model, x).double()
    value, error = annealed_log_likelihood(model, Batch(x), k=200, noise=Noise(0), steps=30)
    assert ((value - exact).abs() < 4.5 * error + 1e-4).all()
    assert (error < 0.1).all()


def test_sharing_is_by_asking():
    """The prior owns what both sides use; the posterior's gradient arrives there; nothing is kept twice."""
    torch.manual_seed(0)
    model = build("ladder-vae", (6,), levels=3, **LAYERED).model
    ours, theirs = ({id(p) for p in part.parameters()} for part in (model.posterior, model.prior))
    assert not ours & theirs
    x = torch.randn(4, 6)
    q = model.q(x)
    q.draw(2, Noise(0)).z.square().sum().backward()
    # The mean and variance that the prior gives are in the posterior's draws.
    assert all((p.grad != 0).any() for p in model.prior.parameters())
    doubled = copy.deepcopy(model).double()
    torch.testing.assert_close(doubled.q(x.double()).point().float(), q.point(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # a copy has a prior of its own
        doubled.prior.downward[0].network.layers[0].weight.zero_()
    torch.testing.assert_close(model.q(x).point(), q.point())


@each_kind
@pytest.mark.parametrize("params", [{"levels": 3}, {"sizes": [2, 2, 1], "inner": [7], "k": 3}])
def test_a_run_and_its_decoder_open_again(name, params, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 6))
    m = ct.Autoencoder(
        recipe=name, recipe_params=params, latent_dim=5, hidden=(8,), max_epochs=2, random_state=0
    ).fit(X)
    again = ct.load(m.save(tmp_path / "run"))
    for method in ("transform", "score_samples", "sample_posterior"):
        kw = {"random_state": 0} if method == "sample_posterior" else {}
        assert np.array_equal(getattr(again, method)(X, **kw), getattr(m, method)(X, **kw)), method
    decoder = ct.load_decoder(m.export_decoder(tmp_path / "decoder"))
    assert np.array_equal(decoder.sample(5, random_state=1), m.sample(5, random_state=1))
    codes, std = m.transform(X, return_std=True)
    assert codes.shape == std.shape == (60, 5)
    assert (std > 0).all()
    assert len(m.history_[-1]["kl_per_dim"]) == 5
    m.fit_prior("normal")
    assert m.sample(5, random_state=1).shape == (5, 6)


@pytest.mark.parametrize("posterior", ["bottom-up", "ladder"])
def test_a_condition_goes_to_the_encoder_the_prior_and_the_decoder(posterior):
    torch.manual_seed(0)
    plan = assemble(
        (6,),
        posterior=(posterior, {"levels": 2}),
        prior=("top-down", {"levels": 2}),
        decoded=4,
        objective=NegLogLik() + KL(),
        condition={"n_labels": 3, "dropout": 0.0},
        **LAYERED,
    )
    model, x = plan.model, torch.randn(4, 6)
    batches = [Batch(x, RawCondition(torch.full((4,), label))) for label in (0, 1)]
    a, b = (model.trace(batch, k=3, noise=Noise(0)) for batch in batches)
    z = a.levels[0].z
    assert a.levels[0].p.batch_shape == (4,)
    for one, other in (
        (a.levels[0].q.point(), b.levels[0].q.point()),
        (a.levels[0].p.log_prob(z), b.levels[0].p.log_prob(z)),
        (a.px.point(), model.likelihood(z, b.c).point()),
    ):
        assert not torch.isclose(one, other).all()
    drawn = a.levels[0].p.draw(1, Noise(0)).z
    assert drawn.shape == (1, 4, 5)
    sum(t.value() for t in plan.objective(a).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@each_kind
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_all_networks_take_the_fast_way_to_the_same_gradients(name, activation):
    torch.manual_seed(0)
    plan = build(name, (6,), levels=3, k=4, **LAYERED | {"activation": activation})
    plan.model.train()
    batch, found = Batch(torch.randn(9, 6)), []
    chosen = gradients_for(plan, torch.float32)
    assert type(chosen) is LayerGradients
    chosen.close()
    for way in (Gradients, LayerGradients):
        gradients = way(plan, torch.float32)
        for _ in range(2):  # a second step must not see what the first one left
            gradients(batch, Noise(0))
        found.append([p.grad.clone() for p in plan.model.parameters()])
        fast = [m.kernel is not None for m in plan.model.modules() if isinstance(m, MLP)]
        gradients.close()
    assert fast == [True] * (1 + 2 + 2 + 1)
    for slow, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, slow, rtol=1e-5, atol=1e-6)


def test_what_makes_no_sense_is_refused():
    for bad in ({"sizes": [3, 3]}, {"sizes": [5, 0]}, {"sizes": 5}, {"sizes": [2.5, 2.5]}, {"sizes": []}):
        with pytest.raises(PlanError, match=r"sizes=.*: give each layer a whole number, in sum latent_dim=5"):
            build("ladder-vae", (6,), **LAYERED, **bad)
    for bad in ([0], 7, [True], ["a"]):
        with pytest.raises(PlanError, match=r"inner=.*: give a whole number of units"):
            build("hierarchical-vae", (6,), **LAYERED, inner=bad)
    for levels in (1, 2):
        with pytest.raises(PlanError, match=r"sizes=\[3, 1, 1\] are not as many: leave levels out"):
            build("hierarchical-vae", (6,), **LAYERED, levels=levels, sizes=[3, 1, 1])
    assert build("hierarchical-vae", (6,), **LAYERED, levels=3, sizes=[3, 1, 1]).model.latent_dim == 5
    for bad in (0, 6):
        with pytest.raises(PlanError, match=f"levels={bad} with latent_dim=5"):
            build("ladder-vae", (6,), **LAYERED, levels=bad)
    for bad in ("2", True):
        with pytest.raises(PlanError, match=f"levels={bad!r}: give a whole number or None"):
            build("ladder-vae", (6,), **LAYERED, levels=bad)
    with pytest.raises(PlanError, match="free_bits act on the kl term"):
        build("hierarchical-vae", (6,), **LAYERED, k=5, free_bits=0.1)
    with pytest.raises(PlanError, match="k=0"):
        build("hierarchical-vae", (6,), **LAYERED, k=0)
    model = assemble((6,), posterior="ladder", objective=NegLogLik() + KL(), **LAYERED).model
    with pytest.raises(PlanError, match="a ladder posterior combines with a prior of the same layers"):
        model.trace(Batch(torch.zeros(2, 6)), k=1, noise=Noise(0))


def test_the_highest_of_two_layers_can_be_used():
    """Means of the lower layer that the upper one's sign would tell: the ladder finds two clusters."""
    rng = np.random.default_rng(0)
    X = 3.0 * rng.choice([-1, 1], (400, 1)) + rng.normal(size=(400, 4)) * 0.3
    m = ct.Autoencoder(
        recipe="ladder-vae",
        recipe_params={"sizes": [1, 1], "free_bits": 0.3},
        latent_dim=2,
        hidden=(16,),
        max_epochs=40,
        learning_rate=1e-2,
        batch_size=100,
        patience=None,
        random_state=0,
    ).fit(X)
    assert m.history_[-1]["kl_per_dim"][-1] > 0.1
    made = np.abs(m.sample(500, random_state=0)[:, 0])
    assert (np.abs(made - 3) < 1).mean() > 0.8


def test_a_posterior_may_be_asked_without_its_model():
    q = BottomUpPosterior(MLP((4,), (4,), (8,)), 3)(torch.zeros(5, 4))
    assert q.within(None, None) is q
