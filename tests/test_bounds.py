"""Bounds of several samples: their values, and gradients that differ between encoder and decoder."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import chartae as ct
from chartae.core.contracts import Batch, Distribution, Draw, Objective, Plan, Posterior, Prior
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.models.autoencoder import Autoencoder
from chartae.models.recipes import assemble, build
from chartae.parts.distributions import DiagonalNormal, FullNormal
from chartae.parts.objectives import (
    CIWAE,
    IWAE,
    KL,
    MIWAE,
    PIWAE,
    CodeNorm,
    NegLogLik,
    elbo,
    importance_bound,
)
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.kernels import Gradients, LayerGradients, gradients_for, total
from chartae.training.sources import Source

N = 6


def warming(objective: Objective) -> Objective:
    """A bound in the middle of its warm-up of two epochs."""
    objective.advance(1.0)
    return objective


SPLIT = [
    IWAE(4, gradient="dreg"),
    MIWAE(3, 4, gradient="dreg"),
    CIWAE(4, 0.3, gradient="dreg"),
    PIWAE(3, 4),
    PIWAE(3, 4, gradient="dreg"),
    warming(CIWAE(4, 0.3, gradient="dreg", warmup=2.0)),
    warming(PIWAE(3, 4, warmup=2.0)),
]
each_split = pytest.mark.parametrize("objective", SPLIT, ids=repr)


def rows(seed: int = 0, n: int = N) -> Batch:
    return Batch(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)))


def plan(objective: Objective, **parameters: object) -> Plan:
    torch.manual_seed(0)
    given = {"latent_dim": 3, "hidden": (8,), "noise": 0.7, **parameters}
    return assemble((5,), objective=objective, **given)


def weights(p: Plan, k: int, seed: int = 0, batch: Batch | None = None) -> Tensor:
    return p.model.trace(batch or rows(), k=k, noise=Noise(seed)).log_joint_ratio


def value(objective: Objective, p: Plan, seed: int = 0) -> Tensor:
    t = p.model.trace(rows(), k=objective.samples, noise=Noise(seed))
    return next(iter(objective(t).values())).rows


# ------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("objective", "same"),
    [
        (MIWAE(1, 6), IWAE(6)),
        (CIWAE(6, 0.0), IWAE(6)),
        (PIWAE(2, 3), IWAE(6)),  # the decoder's bound is what is logged
        (CIWAE(1, 0.5), IWAE(1)),
        (IWAE(6, gradient="dreg"), IWAE(6)),
        (MIWAE(2, 3, gradient="dreg"), MIWAE(2, 3)),
    ],
    ids=repr,
)
def test_bounds_at_the_ends_of_their_family(objective, same):
    p = plan(same)
    torch.testing.assert_close(value(objective, p), value(same, p))


@pytest.mark.parametrize("objective", [MIWAE(6, 1), CIWAE(6, 1.0)], ids=repr)
def test_bounds_of_single_samples_are_the_elbo(objective):
    p = plan(objective)
    t = p.model.trace(rows(), k=6, noise=Noise(0))
    expected = NegLogLik()(t)["nll"].rows + KL(closed=False)(t)["kl"].rows
    torch.testing.assert_close(next(iter(objective(t).values())).rows, expected)


def test_a_mean_of_bounds_is_one():
    p = plan(MIWAE(3, 4))
    w = weights(p, 12)
    by_hand = torch.stack([importance_bound(w[4 * i : 4 * i + 4]) for i in range(3)]).mean(0)
    torch.testing.assert_close(value(MIWAE(3, 4), p), -by_hand)
    torch.testing.assert_close(value(CIWAE(12, 0.3), p), -(0.3 * w.mean(0) + 0.7 * importance_bound(w)))


def test_bounds_are_in_the_order_that_jensen_says():
    """ELBO, then the mean of bounds, then the bound of all: for the same samples, in every row."""
    p = plan(IWAE(1))
    w = 3 * torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
    least, mixed, means, whole = (o._bound(w) for o in (MIWAE(12, 1), CIWAE(12, 0.5), MIWAE(3, 4), IWAE(12)))
    assert bool((least <= means + 1e-5).all())
    assert bool((means <= whole + 1e-5).all())
    assert bool((least <= mixed + 1e-5).all() and (mixed <= whole + 1e-5).all())
    # And on average the bound grows with k: here over 4,000 sets of noise, at five standard errors.
    with torch.no_grad():
        wide = weights(p, 4 * 4000)
    few, many = (o._bound(wide[:, :1].reshape(-1, 4000)) for o in (MIWAE(4, 1), IWAE(4)))
    gain = many - few
    assert float(gain.mean()) > 5 * float(gain.std()) / math.sqrt(4000)


@pytest.mark.parametrize("objective", [IWAE(5), MIWAE(2, 3), CIWAE(4, 0.3), PIWAE(2, 3)], ids=repr)
def test_the_shares_are_derivatives_of_the_bound(objective):
    w = torch.randn(objective.samples, N, dtype=torch.float64, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(objective._bound(w).sum(), w)
    torch.testing.assert_close(objective._decoder_shares(w.detach()), by_autograd)


@each_split
def test_values_without_gradients_are_plain(objective):
    p = plan(objective)
    with_graph = value(objective, p)
    with torch.no_grad():
        without = value(objective, p)
    assert not without.requires_grad
    torch.testing.assert_close(with_graph.detach(), without)


@pytest.mark.parametrize("objective", [IWAE(4, warmup=2), PIWAE(2, 2, warmup=2)], ids=repr)
def test_a_warm_up_begins_with_the_likelihood_and_ends_with_the_bound(objective):
    """And on its way the log weights lie between the two."""
    p = plan(objective)
    t = p.model.trace(rows(), k=4, noise=Noise(0))
    kept = t.log_joint_ratio - t.log_lik
    for epoch, share in ((0, 0.0), (0.5, 0.25), (2, 1.0), (9, 1.0)):
        objective.advance(epoch)
        torch.testing.assert_close(value(objective, p), -importance_bound(t.log_lik + share * kept))
    assert repr(objective).endswith(", warmup=2)")
    assert objective.warmup == 2


@pytest.mark.parametrize("k", [1, 5])
def test_a_bound_of_k_samples(k):
    """The ELBO in two terms for one of them; whole, as long as no training has begun."""
    p = plan(elbo(k))
    t = p.model.trace(rows(), k=k, noise=Noise(0))
    expected = IWAE(k) if k > 1 else NegLogLik() + KL()
    torch.testing.assert_close(total(elbo(k)(t)), total(expected(t)))
    assert elbo(k).warmup == 0
    assert elbo(k, warmup=2.0).warmup == 2
    with pytest.raises(PlanError, match="bound of k=2 samples has none"):
        elbo(2, free_bits=0.1)


# ------------------------------------------------------------------- gradients, against two passes


class Held(Posterior):
    """q of the same rows, of which no gradient comes but by way of z."""

    def __init__(self, q: Posterior) -> None:
        super().__init__()
        self.q = q

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        q = self.q(x, c)
        if isinstance(q, FullNormal):
            return FullNormal(q.mean.detach(), q.scale_tril.detach())
        return DiagonalNormal(q.mean.detach(), q.log_var.detach())


def references(p: Plan, objective: Objective, batch: Batch) -> dict[str, Tensor]:
    """Gradients by one pass for the decoder and others for the encoder, sample by sample."""
    model, k, risen = p.model, objective.samples, float(objective.share)
    names = dict(model.named_parameters())
    decoder = [n for n in names if not n.startswith("posterior")]
    encoder = [n for n in names if n.startswith("posterior")]

    def parts() -> tuple[Tensor, Tensor, Tensor]:
        q = model.posterior(batch.x)
        z = q.draw(k, Noise(0)).z
        prior = model.prior()
        joint = model.log_likelihood(model.likelihood(z), batch.x) + risen * prior.log_prob(z)
        return joint, risen * q.log_prob(z), risen * Held(model.posterior)(batch.x).log_prob(z)

    joint, log_q, held = parts()
    w = (joint - log_q).detach()
    loss = -objective._bound(joint - log_q).mean()
    out = dict(zip(decoder, torch.autograd.grad(loss, [names[n] for n in decoder]), strict=True))
    joint, log_q, held = parts()
    m, each = objective.m, objective.k
    # Shares by hand, in a loop over groups.
    rows = []
    for group in w.split(each):
        share = (group - group.logsumexp(0)).exp()
        if objective.gradient == "dreg":
            share = (1 - risen) * share + risen * share**2
        rows.append(((1 - objective.beta) * share + objective.beta / each) / m)
    followed = joint - (held if objective.gradient == "dreg" else log_q)
    loss = -(torch.cat(rows) * followed).sum(0).mean()
    return out | dict(zip(encoder, torch.autograd.grad(loss, [names[n] for n in encoder]), strict=True))


@each_split
@pytest.mark.parametrize("way", [Gradients, LayerGradients], ids=lambda way: way.__name__)
@pytest.mark.parametrize("posterior", ["normal", "full-normal"])
def test_one_pass_gives_both_gradients(objective, way, posterior):
    p = plan(objective, posterior=posterior)
    expected = references(p, objective, rows())
    gradients = way(p)
    p.model.train()
    for _ in range(2):  # a second step must not see what the first one left
        gradients(rows(), Noise(0))
    for name, parameter in p.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
    gradients.close()


@each_split
def test_the_fast_layers_are_taken(objective):
    gradients = gradients_for(plan(objective), torch.float32)
    assert type(gradients) is LayerGradients
    assert gradients.thrifty
    assert objective.rounds
    gradients.close()
    assert not objective.rounds


@each_split
def test_a_factor_scales_both_gradients(objective):
    one, two = plan(objective), plan(2.0 * objective)
    for p in (one, two):
        Gradients(p)(rows(), Noise(0))
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(b.grad, 2 * a.grad)


def test_groups_that_count_for_nothing_in_the_whole_still_teach_the_encoder():
    """Where one group explains x far better, the others' share underflows; the encoder follows them still."""
    objective = PIWAE(2, 2)
    p = plan(objective, noise=0.02)  # log weights lie thousands of nats apart
    w = weights(p, 4).detach()
    assert bool((w.softmax(0).unflatten(0, (2, 2)).sum(1) == 0).any())
    expected = references(p, objective, rows())
    Gradients(p)(rows(), Noise(0))
    for name, parameter in p.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4)


def encoder_gradients(objective: Objective, p: Plan, draws: int) -> Tensor:
    """Gradients of the encoder, one row for each set of noise."""
    found, parameters = [], list(p.model.posterior.parameters())
    for seed in range(draws):
        t = p.model.trace(rows(n=2), k=objective.samples, noise=Noise(seed))
        loss = next(iter(objective(t).values())).value()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(found).double()


@pytest.mark.parametrize(
    ("reparameterized", "plain"),
    [
        (IWAE(4, gradient="dreg"), IWAE(4)),
        (MIWAE(2, 3, gradient="dreg"), MIWAE(2, 3)),
        (CIWAE(4, 0.5, gradient="dreg"), CIWAE(4, 0.5)),
        (
            warming(CIWAE(4, 0.3, gradient="dreg", warmup=2.0)),
            warming(CIWAE(4, 0.3, warmup=2.0)),
        ),
    ],
    ids=repr,
)
def test_both_gradients_have_one_mean(reparameterized, plain):
    """Of 12 numbers of a linear encoder, over 300 sets of noise.

    Five standard errors: a false alarm in 10^5 runs.
    """
    p = plan(plain, latent_dim=1, network="linear", hidden=None)
    one, other = (encoder_gradients(o, p, 300) for o in (reparameterized, plain))
    gap, error = (one - other).mean(0), (one - other).std(0) / math.sqrt(300)
    assert one.shape[1] == 12
    assert bool((gap.abs() < 5 * error).all())
    assert float(gap.abs().max()) > 0


class Exact(Posterior):
    """p(z | x) of x = W z + b + σ ε with z ~ N(0, I), as a linear map that could be trained."""

    offers = frozenset({"log_prob", "density", "point", "reparameterized"})

    def __init__(self, W: Tensor, b: Tensor, sigma: float) -> None:
        super().__init__()
        covariance = torch.linalg.inv(torch.eye(W.shape[1]).to(W) + W.T @ W / sigma**2)
        self.gain = nn.Parameter(covariance @ W.T / sigma**2)
        self.tril = nn.Parameter(torch.linalg.cholesky(covariance))
        self.b = b

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return FullNormal((x - self.b) @ self.gain.T, self.tril.expand(len(x), -1, -1))


@pytest.mark.parametrize("objective", [o for o in SPLIT if o.gradient == "dreg" and not o.warmup], ids=repr)
def test_no_noise_is_left_where_the_posterior_is_exact(objective):
    sigma = 0.4
    torch.manual_seed(0)
    template = build("vae", (5,), latent_dim=3, network="linear", noise=sigma).model.double()
    sigma = float((0.5 * template.likelihood.log_spread).exp())  # as it was kept, in float32
    (layer,) = template.likelihood.network.layers
    posterior = Exact(layer.weight.detach(), layer.bias.detach(), sigma)
    model = Autoencoder(posterior, template.prior, template.likelihood, template.space, 3)
    batch = Batch(rows().x.double())
    # The plain gradient of the same bound has noise: what log q says of its own parameters.
    plain = IWAE(4)
    for o, silent in ((objective, True), (plain, False)):
        t = model.trace(batch, k=o.samples, noise=Noise(0))
        loss = next(iter(o(t).values())).value()
        found = torch.autograd.grad(loss, list(posterior.parameters()))
        size = max(float(g.abs().max()) for g in found)
        assert size < 1e-9 if silent else size > 0.01, size


class Shifted(Prior):
    """A prior with a parameter of its own, which belongs to the decoder's side."""

    offers = frozenset({"log_prob", "point"})

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return DiagonalNormal(self.mean, torch.zeros(3))


@each_split
def test_a_prior_with_parameters_follows_the_decoder_s_bound(objective):
    p = plan(objective)
    p.model.prior = Shifted()
    expected = references(p, objective, rows())
    Gradients(p)(rows(), Noise(0))
    for name, parameter in p.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
    assert "prior.mean" in expected


def test_a_draw_that_knows_its_density_passes_all_gradients_on():
    """A prior without a closed KL: what is logged must not hide the prior's part from the bound."""

    class Known(DiagonalNormal):
        def draw(self, k: int, noise: Noise) -> Draw:
            z = super().draw(k, noise).z
            return Draw(z, self.log_prob(z))

    class Knowing(Held):
        offers = frozenset({"density", "log_prob", "reparameterized"})

        def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
            q = self.q(x, c)
            return Known(q.mean, q.log_var)

    p = plan(IWAE(4))
    p.model.prior = Shifted()
    expected = references(p, IWAE(4), rows())
    p.model.posterior = Knowing(p.model.posterior)
    t = p.model.trace(rows(), k=4, noise=Noise(0))
    IWAE(4)(t)["iwae"].value().backward()
    for name, parameter in p.model.named_parameters():
        name = name.replace("posterior.q.", "posterior.")
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------- a gradient of some samples


class At(Noise):
    """Codes of a seed, of which samples are picked by one number between 0 and 1."""

    def __init__(self, seed: int, u: float) -> None:
        super().__init__(seed)
        self.u = u

    def uniform(self, shape, like):
        return torch.full(tuple(shape), self.u)


def gradient(p: Plan, noise: Noise) -> tuple[Tensor, Tensor]:
    p.model.train()
    calculated = Gradients(p)
    loss, _ = calculated(rows(), noise)
    return loss, torch.cat([q.grad.flatten() for q in calculated.parameters])


@pytest.mark.parametrize(
    "of",
    [
        lambda: IWAE(6),
        lambda: MIWAE(2, 6),
        lambda: CIWAE(6, 0.05),  # all shares but the largest are rounded
        lambda: IWAE(6, gradient="dreg"),
        lambda: PIWAE(2, 6),
        lambda: IWAE(6) + CodeNorm(),
    ],
)
def test_layers_that_skip_samples_give_the_same_gradient_in_the_mean(of):
    found, steps = [], 400
    for thrifty in (False, True):
        p = plan(of(), noise=0.1)  # log weights lie tens of nats apart
        calculated = LayerGradients(p, thrifty=thrifty)
        p.model.train()
        for i in range(steps if thrifty else 1):
            loss, _ = calculated(rows(), At(0, (i + 0.5) / steps))
            found.append((loss, calculated.gradient.clone()))
        calculated.close()
    (bound, exact), each = found[0], torch.stack([g for _, g in found[1:]])
    assert all(torch.allclose(loss, bound) for loss, _ in found)  # what is logged is the bound of all
    # A sample stays where its number says so; a grid of numbers leaves 1 / steps of one.
    assert float((each.mean(0) - exact).norm()) < 0.01 * float(exact.norm())
    assert 0 < float((each[0] - exact).norm()) < 0.1 * float(exact.norm())


@given(log_weights=st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=60))
def test_small_shares_are_rounded_without_bias_and_add_next_to_no_noise(log_weights):
    k = len(log_weights)
    shares = torch.tensor(log_weights).softmax(0)[:, None]
    u = (torch.arange(2000) + 0.5) / 2000
    factors = torch.stack([IWAE(k)._rounding(shares, At(0, float(v))) for v in u])[:, :, 0]
    shares = shares[:, 0]
    large = shares >= 0.1 / k
    assert bool((factors[:, large] == 1).all())
    counted = factors[:, ~large] * shares[~large]
    assert bool(((counted - 0.1 / k).abs() < 1e-6).logical_or(counted == 0).all())
    torch.testing.assert_close(counted.mean(0), shares[~large], rtol=0.01, atol=0.1 / k / 2000)
    noise = float((counted - counted.mean(0)).square().mean(0).sum())
    assert noise <= 1 / (400 * k) + 1e-6 <= float(shares.square().sum())


@pytest.mark.parametrize("posterior", ["normal", "bottom-up", "hamiltonian", "poincare"])
@pytest.mark.parametrize("kept", [1, 3])
def test_the_mean_gradient_of_kept_samples_is_that_of_all(posterior, kept):
    """Also of draws that bring their density, and its graph, with them."""

    def of(kept):
        if posterior == "bottom-up":
            torch.manual_seed(0)
            given = {"latent_dim": 3, "hidden": (8,), "noise": 0.7, "warmup": 0.0}
            return build("hierarchical-vae", (5,), k=8, kept=kept, **given)
        prior = {"prior": "wrapped-normal"} if posterior == "poincare" else {}
        return plan(IWAE(8, kept=kept), posterior=posterior, **prior)

    loss, exact = gradient(of(kept=8), Noise(0))
    p, steps = of(kept=kept), 400
    found = [gradient(p, At(0, (i + 0.5) / steps)) for i in range(steps)]
    assert all(torch.allclose(value, loss) for value, _ in found)  # what is logged is the bound of all
    each = torch.stack([grad for _, grad in found])
    # Systematic draws keep a sample as often as they should; a grid of numbers leaves 1 / steps of one.
    assert float((each.mean(0) - exact).norm()) < 0.01 * float(exact.norm())
    assert float((each[0] - exact).norm()) > (0.05 if kept == 1 else 0.001) * float(exact.norm())


@pytest.mark.parametrize(
    ("layer", "fits"), [(nn.Dropout(0.5), False), (nn.BatchNorm1d(8), False), (nn.Dropout(0.0), True)]
)
def test_samples_are_kept_where_the_decoder_says_the_same_twice(layer, fits):
    """Else weights would be of one mask, and gradients of another: those of no bound."""
    encoder = nn.Sequential(nn.Linear(3, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), layer, nn.Linear(8, 3))
    model = ct.Autoencoder(recipe="iwae", recipe_params={"k": 8, "kept": 2}, latent_dim=2, max_epochs=1)
    model.set_params(network=(encoder, decoder))
    X = np.random.default_rng(0).normal(size=(60, 3))
    if fits:
        model.fit(X)
    else:
        with pytest.raises(PlanError, match="leave kept out, or decode with hide=0"):
            model.fit(X)


def test_one_sample_that_has_all_the_weight_counts_once():
    p = plan(IWAE(4, kept=3))
    trace = p.model.trace(rows(), k=4, noise=Noise(0))
    trace.__dict__["log_lik"] = torch.tensor([-900.0, 0.0, -900.0, -900.0])[:, None].expand(4, N)
    index, weight = p.objective.pick(trace)
    counted = torch.zeros(4, N).scatter_add_(0, index, weight)
    torch.testing.assert_close(counted, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, N))


@given(
    log_weights=st.lists(st.floats(-40, 40, width=32), min_size=5, max_size=60),
    kept=st.integers(1, 4),
)
def test_samples_are_kept_by_their_shares_without_bias(log_weights, kept):
    p, k = plan(IWAE(len(log_weights), kept=kept)), len(log_weights)
    shares = torch.tensor(log_weights).softmax(0)
    steps = 1000
    trace = SimpleNamespace(log_joint_ratio=torch.tensor(log_weights)[:, None].expand(k, steps))
    trace.noise = SimpleNamespace(uniform=lambda shape, like: ((torch.arange(steps) + 0.5) / steps)[:, None])
    index, weight = p.objective.pick(trace)
    counted = torch.zeros(k, steps).scatter_add_(0, index, weight)
    torch.testing.assert_close(counted.mean(1), shares, atol=2 / steps, rtol=0)  # of a grid of numbers
    distinct = torch.zeros(k, steps).scatter_add_(0, index, (weight > 0).float())
    assert float(distinct.max()) <= 1
    # The heaviest are there in every draw, and count for what they are.
    sure = shares > 1.001 / kept
    torch.testing.assert_close(counted[sure], shares[sure, None].expand(-1, steps), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("of", [lambda kept: IWAE(10, kept=kept), lambda kept: MIWAE(2, 5, kept=kept)])
def test_samples_that_are_left_out_add_little_noise_where_weights_differ(of):
    """Mean squared deviation from the gradient of all samples, and theirs from its mean."""

    def draws(kept):
        found = []
        for seed in range(60):
            p = plan(of(kept), noise=0.1)  # values say much of a code, so that most draws miss it
            found.append(gradient(p, Noise(seed))[1])
        return torch.stack(found)

    some, whole = draws(4), draws(None)
    own = (whole - whole.mean(0)).square().sum(1).mean()
    assert 0 < float((some - whole).square().sum(1).mean()) < 0.05 * float(own)


def test_layers_by_hand_give_the_gradient_of_kept_samples():
    torch.manual_seed(0)
    p, ways = build("iwae", (5,), latent_dim=3, hidden=(8,), noise=0.7, k=6, kept=2), []
    p.model.train()
    for way in (Gradients, LayerGradients):
        calculated = way(p)
        loss, _ = calculated(rows(), Noise(3))
        ways.append([loss, *(q.grad.clone() for q in p.model.parameters())])
        calculated.close()
    for one, other in zip(*ways, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_bound_whose_gradient_keeps_samples_is_judged_by_all():
    p, whole = plan(IWAE(6, kept=2)), IWAE(6)
    torch.testing.assert_close(value(p.objective, p), value(whole, p))
    assert repr(2.0 * p.objective) == "2 * iwae(k=6, kept=2)"


@given(k=st.integers(2, 70), growth=st.floats(0.1, 50))
def test_samples_double_up_to_all_and_stay(k, growth):
    bound = 0.5 * IWAE(k, growth=growth)
    assert bound.samples == k
    assert bound.warmup == growth
    counts = []
    for epoch in np.linspace(0, growth, 200, endpoint=False):
        bound.advance(float(epoch))
        counts.append(bound.samples)
    different = list(dict.fromkeys(counts))
    assert different == sorted(different)
    assert different[0] == 1
    assert all(a < b <= 2 * a for a, b in pairwise(different))
    assert 2 * different[-1] >= k
    times = np.unique(counts, return_counts=True)[1]
    assert np.ptp(times) <= 2  # each number for as long as the others
    bound.advance(growth)
    assert bound.samples == k


def test_a_training_draws_the_samples_of_its_point_and_is_judged_by_all():
    options = {"latent_dim": 2, "hidden": (8,), "k": 6, "kept": 2, "growth": 100.0}
    x = np.random.default_rng(0).normal(size=(40, 5))
    source = Source(x, infer_space(x))

    def told(state=None):
        torch.manual_seed(0)
        p, seen = build("iwae", source.space, **options), []
        for epoch in train(p, source, validation=source, epochs=8, batch_size=20, seed=1, state=state):
            seen.append((p.objective.samples, epoch.best, epoch.log["loss"], epoch.checkpoint()))
        return p, seen

    p, seen = told()
    # A growth that is long for its training takes half of it; an epoch is judged by what comes next.
    assert [count for count, *_ in seen] == [1, 2, 3, 6, 6, 6, 6, 6]
    assert [best for _, best, *_ in seen[:4]] == [False, False, False, True]
    assert p.objective.samples == 6
    assert p.objective.picks
    _, again = told(seen[1][3])
    assert [loss for _, _, loss, _ in again] == [loss for _, _, loss, _ in seen[2:]]


def test_fewer_samples_than_are_kept_are_all_gone_back_through():
    p = plan(IWAE(8, kept=3, growth=4))
    for epoch, picks in ((0.0, False), (1.4, False), (2.8, True), (4.0, True)):
        p.objective.advance(epoch)
        assert p.objective.picks is picks
        torch.testing.assert_close(value(p.objective, p), value(IWAE(p.objective.samples), p))


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: MIWAE(0, 5), "one sample or more"),
        (lambda: PIWAE(2, 0), "one sample or more"),
        (lambda: CIWAE(5, 1.5), "from 0 to 1"),
        (lambda: CIWAE(5, -0.1), "from 0 to 1"),
        (lambda: IWAE(5, gradient="drag"), "did you mean 'dreg'"),
        (lambda: build("iwae", (5,), gradient="none"), "unknown gradient 'none': known: plain, dreg"),
        (lambda: IWAE(1, growth=5.0), "growth=5 is of the number of samples, and there is k=1"),
        (lambda: IWAE(5, kept=6), "kept=6: keep 1 to 5 of the samples"),
        (lambda: IWAE(5, kept=0), "keep 1 to 5"),
        (lambda: elbo(kept=2), "keep 1 to 1"),
        (lambda: IWAE(5, growth=-1), "growth=-1 is negative"),
        (lambda: IWAE(5, kept=2, gradient="dreg"), "for gradient='plain'"),
        (lambda: IWAE(5, kept=2) + CodeNorm(), "goes back through some of its samples.*use it alone"),
        (lambda: build("miwae", (5,), covariance="ful"), "did you mean 'full'"),
        (lambda: assemble((5,), objective=PIWAE(), posterior="delta"), "use posterior='normal'"),
    ],
)
def test_what_makes_no_sense_is_refused(bad, message):
    with pytest.raises(PlanError, match=message):
        bad()


@each_split
def test_other_terms_would_be_weighed_too(objective):
    with pytest.raises(PlanError, match="use it alone, or a bound with gradient='plain'"):
        objective + CodeNorm()
    with pytest.raises(PlanError, match="use it alone"):
        CodeNorm() + 2.0 * (0.5 * objective)
    plan(IWAE(3) + CodeNorm())
