"""Flows and mixtures as posteriors and priors: against autograd, quadrature, torch and their own limits."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import chartae as ct
from chartae.core.contracts import Batch, Draw, Level, RawCondition, Trace
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density import annealed_log_likelihood
from chartae.models.assembly import assemble
from chartae.models.recipes import build
from chartae.parts import distributions
from chartae.parts.distributions import (
    Affine,
    DiagonalNormal,
    DiagonalNormalMixture,
    Planar,
    Radial,
    Transformed,
)
from chartae.parts.flows import autoregressive
from chartae.parts.networks import MLP
from chartae.parts.objectives import IWAE, KL, NegLogLik
from chartae.parts.posteriors import FlowPosterior, NormalPosterior
from chartae.parts.priors import FlowPrior, MixturePrior, VampPrior

SMALL = {"latent_dim": 2, "hidden": (8,), "max_epochs": 2, "batch_size": 16, "random_state": 0}
KINDS = ("planar", "radial", "iaf", "spline")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(n: int = 60, shape: tuple[int, ...] = (5,), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape))


def learned(kind: str, d: int, context: int = 0) -> nn.ModuleList:
    """Layers that are far from the identity."""
    layers = autoregressive(kind, d, context=context, length=2, hidden=(16,), bins=5).double()
    for i, parameter in enumerate(layers.parameters()):
        parameter.data = (0.3 if kind == "spline" else 0.7) * random(*parameter.shape, seed=i)
    return layers.requires_grad_(False)


#: A transform of each kind, of dimension d; those with a context have one for each of 4 rows.
TRANSFORMS = {
    "planar": lambda d: Planar(2 * random(d), random(d, seed=1), random(1, seed=2)),
    "folded planar": lambda d: Planar(-9 * random(d), 3 * random(d), random(1, seed=2)),
    "radial": lambda d: Radial(random(d), random(1, seed=1), 2 * random(1, seed=2).abs()),
    "drawn in": lambda d: Radial(random(d), random(1, seed=1), -9 * random(1, seed=2).abs()),
    "diagonal": lambda d: Affine(random(d), random(d, seed=1).exp()),
    "triangular": lambda d: Affine(random(d), random(d, d, seed=1).tril(-1) + random(d, seed=2).exp().diag()),
    "affine": lambda d: learned("affine", d)[0](None),
    "spline": lambda d: learned("spline", d)[0](None),
    "affine with context": lambda d: learned("affine", d, 3)[0](random(4, 3)),
    "spline with context": lambda d: learned("spline", d, 3)[1](random(4, 3)),
}
each = pytest.mark.parametrize("kind", TRANSFORMS)


# ------------------------------------------------------------------ transforms


@each
@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_change_of_volume_is_autograd_s(kind, d):
    transform, x = TRANSFORMS[kind](d), 2 * random(2, 4, d, seed=7)
    y, log_volume = transform.call_and_ladj(x)
    jacobian = torch.autograd.functional.jacobian(lambda v: transform.call_and_ladj(v)[0], x)
    own = torch.stack([jacobian[i, j, :, i, j] for i in range(2) for j in range(4)])
    expected = torch.linalg.slogdet(own)
    assert (expected.sign == 1).all()
    torch.testing.assert_close(log_volume.expand(2, 4).reshape(-1), expected.logabsdet, rtol=1e-8, atol=1e-9)
    assert y.shape == x.shape


@each
@pytest.mark.parametrize("d", [1, 3])
def test_the_inverse_undoes_the_transform(kind, d):
    transform, x = TRANSFORMS[kind](d), 2 * random(5, 4, d, seed=7)
    if not hasattr(transform, "inv"):
        assert kind in ("planar", "folded planar", "radial", "drawn in")
        return
    y, there = transform.call_and_ladj(x)
    again, back = transform.inv.call_and_ladj(y)
    torch.testing.assert_close(again, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back.expand(5, 4), -there.expand(5, 4), rtol=1e-8, atol=1e-8)


@settings(max_examples=60)
@given(size=st.floats(-60, 60), spread=st.floats(0, 60), seed=st.integers(0, 1000))
def test_space_is_never_folded_whatever_an_encoder_says(size, spread, seed):
    d, x = 3, random(50, 3, seed=seed).float()
    u, w, b = (size * random(n, seed=seed + i).float() for i, n in enumerate((d, d, 1)))
    for transform in (Planar(u, spread * w, b), Radial(w, torch.tanh(b), u[:1])):
        y, log_volume = transform.call_and_ladj(x)
        assert y.isfinite().all()
        assert (log_volume > d * math.log(0.5e-3)).all()


@pytest.mark.parametrize("kind", ["planar", "folded planar", "radial", "drawn in"])
def test_one_dimension_keeps_its_order(kind):
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64)[:, None]
    y = TRANSFORMS[kind](1).call_and_ladj(x)[0]
    assert (y.diff(dim=0) > 0).all()


def test_a_push_of_zero_is_the_identity_and_a_direction_of_zero_is_no_fault():
    x = random(7, 3)
    still = Planar(torch.zeros(3).double(), random(3), random(1)), Radial(random(3), random(1), random(1) * 0)
    for transform in still:
        y, log_volume = transform.call_and_ladj(x)
        assert torch.equal(y, x)
        assert not log_volume.any()
    u, w = random(3).requires_grad_(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    y, log_volume = Planar(u, w, random(1)).call_and_ladj(x)
    (y.sum() + log_volume.sum()).backward()
    assert u.grad.isfinite().all()
    assert w.grad.isfinite().all()


def test_the_gradient_at_the_center_of_a_radial_transform_is_finite():
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    y, log_volume = Radial(torch.zeros(2).double(), random(1), random(1)).call_and_ladj(x)
    (y.sum() + log_volume.sum()).backward()
    assert x.grad.isfinite().all()


# ---------------------------------------------------- transformed distributions


def transformed(kind: str, d: int) -> Transformed:
    base = DiagonalNormal(0.5 * random(4, d, seed=3), random(4, d, seed=4))
    return Transformed(base, [TRANSFORMS[kind](d), TRANSFORMS["diagonal"](d)])


@each
def test_a_draw_brings_its_density(kind):
    p = transformed(kind, 3)
    drawn = p.draw(6, Noise(0))
    assert drawn.z.shape == (6, 4, 3)
    assert drawn.log_prob.shape == (6, 4)
    if "log_prob" in p.offers:
        torch.testing.assert_close(drawn.log_prob, p.log_prob(drawn.z), rtol=1e-7, atol=1e-7)
        split = p.log_prob(drawn.z, per_dim=True)
        assert split.shape == (6, 4, 3)
        torch.testing.assert_close(split.sum(-1), drawn.log_prob, rtol=1e-7, atol=1e-7)
    else:
        with pytest.raises(NotImplementedError, match="the density of its draws only"):
            p.log_prob(drawn.z)


@each
def test_values_that_are_too_many_for_a_flow_at_once_are_no_others(kind, monkeypatch):
    p = transformed(kind, 3)
    whole = p.draw(6, Noise(0))
    monkeypatch.setattr(distributions.transformed, "VALUES", 25)
    with torch.no_grad():
        parts = p.draw(6, Noise(0))
        torch.testing.assert_close(parts.z, whole.z)
        torch.testing.assert_close(parts.log_prob, whole.log_prob)
        if "log_prob" in p.offers:
            torch.testing.assert_close(p.log_prob(whole.z), whole.log_prob, rtol=1e-7, atol=1e-7)


@each
def test_the_density_in_one_dimension_integrates_to_one(kind):
    """By change of variables along the line, which holds whether or not there is an inverse."""
    p = transformed(kind, 1)
    x = torch.linspace(-40, 40, 160_001, dtype=torch.float64)[:, None, None].expand(-1, 4, 1)
    y, change = x, torch.zeros(())
    for t in p.transforms:
        y, more = t.call_and_ladj(y)
        change = change + more
    density = (p.base.log_prob(x) - change).exp()
    for j in range(4):
        assert float(torch.trapezoid(density[:, j], y[:, j, 0])) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["planar", "folded planar", "radial", "drawn in", "triangular"])
def test_the_density_in_two_dimensions_has_the_mass_that_draws_have(kind):
    """E_q[f / q] is the integral of f, a normal where q has its mass; false alarms: 4 rows, 6 sigma."""
    p = transformed(kind, 2)
    z, log_q = p.draw(100_000, Noise(1))[:2]
    inside = DiagonalNormal(z.median(0).values, 2 * (0.3 * z.std(0)).log())
    ratio = (inside.log_prob(z) - log_q).exp()
    error = ratio.std(0) / len(z) ** 0.5
    assert (error < 0.05).all()
    assert ((ratio.mean(0) - 1).abs() < 6 * error).all()


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_the_density_in_two_dimensions_integrates_to_one(kind):
    p = Transformed(DiagonalNormal(torch.zeros(2).double(), torch.tensor(0.0)), [TRANSFORMS[kind](2)])
    axis = torch.linspace(-12, 12, 301, dtype=torch.float64)
    density = p.log_prob(torch.cartesian_prod(axis, axis)).exp().reshape(301, 301)
    total = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert float(total) == pytest.approx(1, abs=2e-3)


def test_without_transforms_it_is_its_base():
    base = DiagonalNormal(random(4, 3), random(4, 3, seed=1))
    p = Transformed(base, [])
    z, log_prob, _ = p.draw(5, Noise(0))
    assert torch.equal(z, base.draw(5, Noise(0)).z)
    assert torch.equal(log_prob, base.log_prob(z))
    assert torch.equal(p.point(), base.point())
    torch.testing.assert_close(p.center(), base.center())
    torch.testing.assert_close(p.std(), base.std(), rtol=0.05, atol=0)


@each
def test_the_spread_is_that_of_draws_and_always_the_same(kind):
    """256 draws of low discrepancy, against 20,000 others: within a tenth."""
    p = transformed(kind, 2)
    assert torch.equal(p.std(), p.std())
    assert p.std().shape == p.point().shape == (4, 2)
    assert all(torch.equal(a, b) for a, b in zip(p.moments(), (p.center(), p.std()), strict=True))
    z = p.draw(20_000, Noise(0)).z
    torch.testing.assert_close(p.std(), z.std(0), rtol=0.1, atol=0)
    assert ((p.center() - z.mean(0)).abs() < 0.1 * p.std()).all()
    # Without a batch as with one.
    alone = Transformed(DiagonalNormal(p.base.mean[0], p.base.log_var[0]), p.transforms)
    if "context" not in kind:
        torch.testing.assert_close(alone.std(), p.std()[0])


# -------------------------------------------------------------------- posteriors


def pair(kind: str, d: int = 3) -> tuple[FlowPosterior, NormalPosterior]:
    """A flow and a normal whose encoders say the same of mean and variance."""
    torch.manual_seed(0)
    flow = FlowPosterior(MLP((5,), (FlowPosterior.features(d, kind),), hidden=(8,)), d, kind).double()
    normal = NormalPosterior(MLP((5,), (2 * d,), hidden=(8,)), d).double()
    ours, theirs = flow.network.layers, normal.network.layers
    theirs[0].load_state_dict(ours[0].state_dict())
    theirs[2].load_state_dict({k: v[: 2 * d] for k, v in ours[2].state_dict().items()})
    return flow, normal


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_starts_near_a_normal_and_may_be_one(kind):
    flow, normal = pair(kind)
    x = random(6, 5)
    z, log_prob, _ = flow(x).draw(9, Noise(0))
    same = normal(x).draw(9, Noise(0)).z
    assert 0 < (z - same).square().mean().sqrt() < 0.15 * same.std()
    assert (log_prob - normal(x).log_prob(same)).abs().mean() < 0.3
    with torch.no_grad():
        flow.network.layers[2].weight[6:] = 0
        flow.network.layers[2].bias[6:] = 0
        for layer in flow.layers:
            for parameter in list(layer.parameters())[-2:]:
                parameter.zero_()
    z, log_prob, _ = flow(x).draw(9, Noise(0))
    torch.testing.assert_close(z, same)
    torch.testing.assert_close(log_prob, normal(x).log_prob(same))


@pytest.mark.parametrize("kind", ["iaf", "spline"])
@pytest.mark.parametrize("d", [1, 3])
def test_half_precision_stops_where_a_flow_begins(kind, d):
    torch.manual_seed(0)
    x, c = torch.randn(20, FlowPosterior.features(d, kind)), torch.randn(20, 2)
    q, prior = FlowPosterior(nn.Identity(), d, kind), FlowPrior(d, 2)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            drawn = q(x).draw(3, Noise(0))
            found.append((drawn.z, drawn.log_prob, q(x).std(), prior(c).log_prob(drawn.z)))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("kind", ["planar", "iaf", "spline"])
def test_a_flow_learns_what_no_normal_can(kind):
    """A parabola: what it costs to say that its dimensions are independent normals, and that they are not."""

    def target(z: Tensor) -> Tensor:
        first, second = z.unbind(-1)
        normal = DiagonalNormal(torch.zeros(()), torch.zeros(()), event_dims=0)
        return normal.log_prob(first) + normal.log_prob((second - first**2 + 1) / 0.5) + math.log(2)

    losses = {}
    for name in ("normal", kind):
        torch.manual_seed(0)
        options = {"kind": name, "length": 6 if name == "planar" else 2, "hidden": (16,)}
        width = 4 if name == "normal" else FlowPosterior.features(2, **options)
        network = MLP((1,), (width,), hidden=(16,))
        q = NormalPosterior(network, 2) if name == "normal" else FlowPosterior(network, 2, **options)
        optimizer = torch.optim.Adam(q.parameters(), lr=2e-2)
        noise, kept = Noise(0), []
        for _ in range(150):
            p = q(torch.zeros(1, 1))
            z, log_q, _ = p.draw(128, noise)
            loss = ((p.log_prob(z) if log_q is None else log_q) - target(z)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.append(loss.item())
        losses[name] = np.mean(kept[-40:])
    assert losses["normal"] > 0.35
    assert -0.02 < losses[kind] < 0.6 * losses["normal"]


@pytest.mark.parametrize("kind", ["planar", "iaf"])
def test_the_gradient_of_the_importance_weighted_bound_is_that_of_its_formula(kind):
    """Every density is part of the graph, in whatever order the objective asks for them."""
    torch.manual_seed(0)
    common = {"latent_dim": 2, "hidden": (8,), "prior": "mixture", "noise": 1.0}
    posterior = ("flow", {"kind": kind, "length": 2})
    plan = assemble((5,), posterior=posterior, objective=IWAE(4), **common)
    found = []
    for by_hand in (False, True):
        plan.model.zero_grad()
        trace = plan.model.trace(Batch(torch.ones(3, 5)), k=4, noise=Noise(0))
        if by_hand:
            level = trace.levels[0]
            log_weight = trace.log_lik + level.p.log_prob(level.z) - level.drawn.log_prob
            loss = -(log_weight.logsumexp(0) - math.log(4)).mean()
        else:
            loss = sum(term.value() for term in plan.objective(trace).values())
        loss.backward()
        found.append([p.grad.clone() for p in plan.model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "plana"}, "unknown flow 'plana': did you mean 'planar'"),
        ({"length": 0}, "flows=0: give whole numbers"),
        ({"kind": "iaf", "hidden": (8, 0)}, r"flow_hidden=\(8, 0\): give whole numbers"),
        ({"kind": "spline", "bins": 2.5}, "bins=2.5: give whole numbers"),
    ],
)
def test_what_is_no_flow_is_refused(options, message):
    with pytest.raises(PlanError, match=message):
        assemble((5,), posterior=("flow", options), objective=NegLogLik() + KL())


def test_recipes_of_flows_name_their_own_parameters():
    for name in ("vae-lin-nf", "vae-iaf", "spline-vae", "flow-prior-vae"):
        with pytest.raises(PlanError, match=r"^flows=0: give whole numbers"):
            build(name, (5,), flows=0)
    for name in ("vae-iaf", "spline-vae", "flow-prior-vae"):
        with pytest.raises(PlanError, match=r"^flow_hidden=64: give a width for each layer"):
            build(name, (5,), flow_hidden=64)
    with pytest.raises(PlanError, match=r"^flow_context=0: give whole numbers"):
        build("vae-iaf", (5,), flow_context=0)


def test_a_recipe_of_planar_flows_takes_no_others():
    with pytest.raises(PlanError, match="unknown flow 'iaf': known: planar, radial"):
        build("vae-lin-nf", (5,), kind="iaf")


# ---------------------------------------------------------------------- mixtures


def mixture(*, batch: bool, own: bool, m: int = 5, d: int = 3) -> DiagonalNormalMixture:
    """Weights for each of 4 rows, and means too, or the same for all."""
    logits, shape = random(*((4, m) if batch else (m,)), seed=1), (4, m, d) if own else (m, d)
    return DiagonalNormalMixture(logits, random(*shape, seed=2), random(*shape, seed=3))


MIXTURES = pytest.mark.parametrize(("batch", "own"), [(False, False), (True, False), (True, True)])


@MIXTURES
def test_a_mixture_is_torch_s(batch, own):
    p, v = mixture(batch=batch, own=own), 2 * random(7, 4, 3)
    tds = torch.distributions
    parts = tds.Independent(tds.Normal(p.mean, (0.5 * p.log_var).exp()), 1)
    if batch and not own:
        parts = parts.expand((4, 5))
    reference = tds.MixtureSameFamily(tds.Categorical(logits=p.logits), parts)
    torch.testing.assert_close(p.log_prob(v), reference.log_prob(v))
    torch.testing.assert_close(p.point(), reference.mean)
    torch.testing.assert_close(p.std(), reference.variance.sqrt())
    assert p.batch_shape == reference.batch_shape
    assert p.event_shape == reference.event_shape


@MIXTURES
def test_the_parts_of_a_mixture_s_density_are_conditionals(batch, own):
    p, v = mixture(batch=batch, own=own), random(7, 4, 3)
    split = p.log_prob(v, per_dim=True)
    torch.testing.assert_close(split.sum(-1), p.log_prob(v))
    upto = [DiagonalNormalMixture(p.logits, p.mean[..., :i], p.log_var[..., :i]) for i in (1, 2)]
    marginal = [m.log_prob(v[..., : i + 1]) for i, m in enumerate(upto)]
    torch.testing.assert_close(split[..., 0], marginal[0])
    torch.testing.assert_close(split[..., 1], marginal[1] - marginal[0])


@MIXTURES
def test_a_mixture_given_some_dimensions_is_bayes(batch, own):
    p, v = mixture(batch=batch, own=own), random(4, 3)
    held = DiagonalNormalMixture(p.logits, p.mean[..., [2]], p.log_var[..., [2]]).log_prob(v[:, [2]])
    conditional = p.given([2], v[:, [2]])
    assert conditional.batch_shape == (4,)
    torch.testing.assert_close(conditional.log_prob(v[:, :2]), p.log_prob(v) - held)


@MIXTURES
def test_draws_of_a_mixture_have_its_moments(batch, own):
    """20,000 draws: means and spreads within 6 standard errors."""
    p = mixture(batch=batch, own=own)
    z = p.draw(20_000, Noise(0)).z
    assert z.shape == (20_000, *p.batch_shape, 3)
    assert ((z.mean(0) - p.point()).abs() < 6 * p.std() / 20_000**0.5).all()
    torch.testing.assert_close(z.std(0), p.std(), rtol=0.08, atol=0)


def test_a_density_of_narrow_components_keeps_its_digits():
    mean = 5 + random(9, 40)
    exact = DiagonalNormalMixture(torch.zeros(9).double(), mean, torch.full((9, 40), -12.0).double())
    single = DiagonalNormalMixture(torch.zeros(9), mean.float(), torch.full((9, 40), -12.0))
    v = (mean.float() + 0.002 * random(9, 40, seed=1).float()).detach()
    exact.mean = mean.float().double()
    torch.testing.assert_close(single.log_prob(v).double(), exact.log_prob(v.double()), rtol=1e-6, atol=1e-4)


@MIXTURES
def test_values_that_are_too_many_at_once_are_no_others(batch, own, monkeypatch):
    p, v = mixture(batch=batch, own=own), random(7, 4, 3)
    whole = p.log_prob(v)
    monkeypatch.setattr(distributions.normals, "VALUES", 41)
    torch.testing.assert_close(p.log_prob(v), whole)
    if not batch:
        torch.testing.assert_close(p.log_prob(v.reshape(28, 3)), whole.reshape(28))


def test_an_estimated_kl_to_a_mixture_is_right_and_of_all_dimensions_together():
    p = DiagonalNormalMixture(torch.tensor([0.0, 1.0]), torch.tensor([[-2.0], [1.0]]), torch.zeros(2, 1))
    q = DiagonalNormal(torch.tensor([[0.5]]), torch.tensor([[-1.0]]))
    v = torch.linspace(-8, 8, 4001)[:, None, None]
    ours, theirs = q.log_prob(v)[:, 0], p.log_prob(v)[:, 0]
    exact = float(torch.trapezoid(ours.exp() * (ours - theirs), v[:, 0, 0]))
    drawn = q.draw(40_000, Noise(0))
    trace = Trace(Batch(torch.zeros(1, 1)), (Level(q, p, Draw(drawn.z)),), None, None, None)
    term = KL()(trace)["kl"]
    assert term.per_dim.shape == (1,)
    assert float(term.rows[0]) == pytest.approx(exact, abs=0.02)  # 6 standard errors


# ------------------------------------------------------------------------ priors


def vamp(x: Tensor, components: int, **options: object) -> VampPrior:
    torch.manual_seed(0)
    prior = VampPrior(3, space=Space(tuple(x.shape[1:])), components=components, **options).to(x)
    prior.begin(x, None)
    return prior


def test_pseudo_inputs_that_are_the_data_give_the_aggregate_posterior():
    torch.manual_seed(0)
    q = NormalPosterior(MLP((5,), (6,), hidden=(8,)), 3).double()
    x, z = random(20, 5), random(9, 3, seed=1)
    prior = vamp(x, 20)
    assert sorted(prior.inputs.tolist()) == sorted(x.tolist())
    aggregate = q(x).log_prob(z.unsqueeze(1)).logsumexp(1) - math.log(20)
    torch.testing.assert_close(prior(posterior=q).log_prob(z), aggregate)


def test_too_few_rows_repeat_with_a_little_noise():
    x = random(6, 5)
    inputs = vamp(x, 15).inputs.detach()
    apart = torch.cdist(inputs, x).min(1)
    assert apart.values[:6].max() == 0
    assert (apart.values[6:] > 0).all()
    assert apart.values.max() < 0.1
    assert sorted(apart.indices[:6].tolist()) == list(range(6))
    assert len(inputs.unique(dim=0)) == 15


def test_the_encoder_sees_pseudo_inputs_in_evaluation_mode():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    q = NormalPosterior(network, 3).train()
    prior = vamp(torch.randn(20, 5), 10).train()
    first, again = prior(posterior=q), prior(posterior=q)
    assert torch.equal(first.mean, again.mean)
    assert network[1].num_batches_tracked == 0
    assert network[2].training


def test_pseudo_conditions_start_as_those_of_their_rows_and_weights_follow_from_the_condition():
    torch.manual_seed(0)
    x, c = torch.randn(20, 5), torch.randn(20, 2)
    q = NormalPosterior(MLP((5,), (6,), hidden=(8,), condition_dim=2), 3)
    for conditional in (False, True):
        prior = VampPrior(3, 2, space=Space((5,)), components=20, conditional=conditional)
        prior.begin(x, c)
        p, z = prior(c[:4], posterior=q), torch.randn(7, 4, 3)
        assert p.batch_shape == ((4,) if conditional else ())
        aggregate = q(x, c).log_prob(z.unsqueeze(-2)).logsumexp(-1) - math.log(20)
        torch.testing.assert_close(p.log_prob(z), aggregate)
        if conditional:
            nn.init.normal_(prior.network.weight)
            moved = prior(c[:4], posterior=q).log_prob(z)
            weights = (c[:4] @ prior.network.weight.T).log_softmax(1)
            order = torch.cdist(prior.inputs, x).argmin(1)
            each = q(x[order], c[order]).log_prob(z.unsqueeze(-2))
            torch.testing.assert_close(moved, (weights + each).logsumexp(-1))


def test_a_mixture_starts_with_mean_zero_and_variance_one_and_follows_the_condition():
    torch.manual_seed(0)
    p = MixturePrior(4, components=4000)()
    assert p.point().abs().max() < 0.1
    torch.testing.assert_close(p.std(), torch.ones(4), rtol=0.1, atol=0)
    prior, c = MixturePrior(3, 2, components=5), torch.randn(4, 2)
    z = torch.randn(7, 4, 3)
    torch.testing.assert_close(prior(c).log_prob(z), prior(0 * c).log_prob(z))
    nn.init.normal_(prior.network.weight)
    for i in range(4):
        alone = prior(c[i : i + 1]).log_prob(z[:, i : i + 1])
        torch.testing.assert_close(prior(c).log_prob(z)[:, i : i + 1], alone)
    assert not torch.allclose(prior(c).log_prob(z), prior(0 * c).log_prob(z))


@pytest.mark.parametrize("kind", ["spline", "affine"])
@pytest.mark.parametrize("d", [1, 3])
def test_a_flow_prior_starts_near_n_0_1(kind, d):
    torch.manual_seed(0)
    z = torch.randn(500, d)
    normal = DiagonalNormal(torch.zeros(d), torch.tensor(0.0)).log_prob(z)
    for prior, c in ((FlowPrior(d, kind=kind), None), (FlowPrior(d, 2, kind=kind), torch.randn(500, 2))):
        p = prior(c)
        assert p.batch_shape == (() if c is None else (500,))
        assert (p.log_prob(z) - normal).abs().mean() < 0.1
        drawn = p.draw(4, Noise(0)).z
        assert drawn.shape == (4, *p.batch_shape, d)
    assert FlowPrior(d, 2, kind=kind, conditional=False)(torch.randn(5, 2)).batch_shape == ()


# ---------------------------------------------------------------- whole models

PRIORS = ("vamp-vae", "mixture-vae", "flow-prior-vae")
POSTERIORS = ("vae-lin-nf", "vae-iaf", "spline-vae")


@pytest.fixture(scope="module")
def models() -> dict[str, ct.Autoencoder]:
    X = rows()
    return {name: ct.Autoencoder(recipe=name, **SMALL).fit(X) for name in (*PRIORS, *POSTERIORS)}


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("conditional", [None, False, True])
def test_a_decoder_samples_without_its_encoder(name, conditional, tmp_path):
    X, y = rows(), None if conditional is None else np.arange(60) % 3
    own = {} if conditional is None else {"conditional_prior": conditional}
    m = ct.Autoencoder(recipe=name, recipe_params=own, **SMALL).fit(X, y)
    one = None if y is None else 1
    run, made = m.save(tmp_path / "run"), m.sample(5, one, random_state=0)
    alone = ct.load_decoder(m.export_decoder(tmp_path / "decoder"))
    for other in (alone, ct.load_decoder(run), ct.load(run)):
        assert np.array_equal(other.sample(5, one, random_state=0), made)
    if conditional:
        for model in (m, alone):
            assert not np.array_equal(model.sample(5, 2, random_state=0), made)
        with pytest.raises(PlanError, match="prior depends on the condition"):
            m.fit_prior("normal")
    else:
        m.fit_prior("normal", random_state=0)
        assert not np.array_equal(m.sample(5, one, random_state=0), made)


def test_a_decoder_of_a_fit_that_goes_on_says_that_its_prior_needs_an_encoder(models):
    plan = build("vamp-vae", (5,), latent_dim=2, hidden=(8,))
    assert plan.model.prior(posterior=plan.model.posterior).batch_shape == ()
    with pytest.raises(PlanError, match=r"made of the encoder, which is not here: .* with load"):
        plan.model.prior()


@pytest.mark.parametrize("name", ["vamp-vae", "mixture-vae"])
def test_dimensions_that_are_held_move_the_others(name, models):
    m = models[name]
    z = np.array([m.transform(m.sample(1, hold={0: 0.5}, random_state=i)) for i in range(3)])
    assert np.isfinite(z).all()
    with torch.no_grad():
        p = m.model_.sampler(posterior=m.model_.posterior)
        drawn = p.draw(200_000, Noise(0)).z
        held = p.given([0], torch.tensor([[0.5]])).point()[0, 0]
    near = drawn[(drawn[:, 0] - 0.5).abs() < 0.02, 1]
    assert (near.mean() - held).abs() < 6 * near.std() / len(near) ** 0.5


def test_a_flow_cannot_hold_dimensions_and_a_mixture_in_its_place_can(models):
    m = models["flow-prior-vae"]
    with pytest.raises(PlanError, match=r"use fit_prior\('gmm'\) first"):
        m.sample(2, hold={0: 0.0})
    m.fit_prior("gmm", random_state=0)
    assert m.sample(2, hold={0: 0.0}, random_state=0).shape == (2, 5)
    m.fit_prior(None)


@pytest.mark.parametrize("name", ["vamp-vae", "mixture-vae", "vae-iaf", "vae-lin-nf"])
def test_both_estimates_of_the_likelihood_agree(name, models):
    """Importance and annealed importance sampling on 3 rows: within 6 standard errors and a little more."""
    m, X = models[name], rows(3, seed=5)
    value, error = m.log_likelihood(X, n_importance=1000, random_state=0)
    assert (np.abs(value - m.score_samples(X, n_importance=1000)) < 6 * 2**0.5 * error + 0.02).all()
    if name == "vae-lin-nf":
        with pytest.raises(PlanError, match="use method='importance'"):
            m.log_likelihood(X, method="ais")
        return
    batch = Batch(m.space_.to_model(torch.from_numpy(X).float()))
    annealed, wide = (
        t.numpy() for t in annealed_log_likelihood(m.model_, batch, k=4, noise=Noise(0), steps=15)
    )
    assert (np.abs(value - annealed) < 6 * np.hypot(error, wide) + 0.02).all()


def test_a_vamp_prior_of_what_it_cannot_move_is_refused():
    gaps = rows()
    gaps[::7, 1] = np.nan
    with pytest.raises(PlanError, match="values may be missing: use recipe 'mixture-vae'"):
        ct.Autoencoder(recipe="vamp-vae", missing="mask", **SMALL).fit(gaps)
    table = pd.DataFrame({"a": rows()[:, 0], "b": np.resize(["x", "y", "z"], 60)})
    with pytest.raises(PlanError, match="columns differ in kind: use recipe 'mixture-vae'"):
        ct.Autoencoder(recipe="vamp-vae", **SMALL).fit(table)
    for name in ("mixture-vae", "flow-prior-vae", "vae-iaf"):
        m = ct.Autoencoder(recipe=name, missing="mask", **SMALL).fit(gaps)
        assert np.isfinite(m.score_samples(gaps)).all()
    assert len(ct.Autoencoder(recipe="mixture-vae", **SMALL).fit(table).sample(3)) == 3


def test_parts_that_do_not_go_together_are_refused():
    options = {"space": Space((5,))}
    with pytest.raises(PlanError, match=r"prior='vamp' does not go with posterior='flow', .*='mixture'"):
        assemble((5,), posterior="flow", prior=("vamp", options), objective=NegLogLik() + KL())
    with pytest.raises(PlanError, match="components=0: a mixture has one or more"):
        build("vamp-vae", (5,), components=0)
    with pytest.raises(PlanError, match="k=0: an importance-weighted bound"):
        build("vamp-vae", (5,), k=0)
    for name in PRIORS:
        with pytest.raises(PlanError, match="conditional_prior=True needs a condition"):
            build(name, (5,), conditional_prior=True)
        assert build(name, (5,), k=3).objective.samples == 3


def test_weights_that_follow_from_the_condition_find_their_pseudo_inputs():
    """Two labels, two clusters: codes of the one are likelier given that label."""
    y = np.arange(120) % 2
    X = np.where(y[:, None] == 1, 3.0, -3.0) + 0.3 * rows(120)
    own = {"components": 10, "conditional_prior": True}
    training = {"max_epochs": 30, "patience": None, "batch_size": 20, "learning_rate": 1e-2}
    shape = {"latent_dim": 1, "hidden": (16,), "random_state": 0}
    m = ct.Autoencoder(recipe="vamp-vae", recipe_params=own, **shape, **training).fit(X, y)
    for label in (0, 1):
        made = m.sample(100, condition=label, random_state=0)
        assert (np.sign(made.mean(1)) == (1 if label else -1)).mean() > 0.95


def test_conditions_reach_flows_through_the_encoder():
    torch.manual_seed(0)
    condition = {"n_labels": 3, "vector_dim": 0}
    for name in PRIORS:
        plan = build(name, (5,), latent_dim=2, hidden=(8,), condition=condition, conditional_prior=True)
        raw = RawCondition(torch.tensor([0, 1, 2]))
        trace = plan.model.trace(Batch(torch.zeros(3, 5), raw), k=2, noise=Noise(0))
        assert trace.levels[0].p.batch_shape == (3,)
        assert trace.levels[0].log_prior.shape == (2, 3)


def test_flows_leave_torch_s_distributions_as_they_are():
    """In an interpreter of its own: others may have imported the package before."""
    code = """
from torch.distributions import Distribution
from chartae.density import FlowDensity
from chartae.models.recipes import build
before = Distribution._validate_args
build("vae-iaf", (4,), latent_dim=2)
FlowDensity(2)
assert before and Distribution._validate_args
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
