"""The hand-written layers give autograd's gradients, for every recipe whose networks they fit."""

from itertools import product

import pytest
import torch
from torch import nn

from chartae.core.contracts import Batch, Objective, Plan, Posterior, RawCondition, Term
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.assembly import assemble
from chartae.models.recipes import build, recipes
from chartae.parts.distributions import Bernoulli, DiagonalNormal
from chartae.parts.likelihoods import BernoulliLikelihood
from chartae.parts.networks import MLP
from chartae.parts.objectives import IWAE, KL, PIWAE, NegLogLik
from chartae.parts.posteriors import NormalPosterior
from chartae.training.engine import train
from chartae.training.handwritten import HandwrittenLayers
from chartae.training.kernels import BoundGradients, Gradients, LayerGradients, _is_bound, gradients_for
from chartae.training.sources import Source

LIKELIHOODS = [("normal", None), ("bernoulli", None), ("categorical", 3)]
FITTING = ("ae", "denoising-ae", "vae", "beta-vae")  # recipes whose objective is nll with or without kl


def plan_of(
    name: str, likelihood: str = "bernoulli", levels: int | None = None, shape=(300,), **kw
) -> tuple[Plan, Batch]:
    torch.manual_seed(0)
    conditional = next(r.conditional for r in recipes() if r.name == name)
    condition = {"n_labels": 3, "vector_dim": 2, "dropout": 0.0} if conditional else None
    space = Space(shape, likelihood, levels)
    plan = build(name, space, latent_dim=4, condition=condition, **({"hidden": (200, 150)} | kw))
    x = torch.randint(0, levels or 2, (32, *shape)) / ((levels or 2) - 1)
    c = RawCondition(torch.arange(32) % 3, torch.randn(32, 2)) if conditional else None
    plan.model.train()
    return plan, Batch(x, c)


def gradients(way: Gradients, batch: Batch) -> list[torch.Tensor]:
    # Twice: a second step must not see what the first one left.
    for _ in range(2):
        torch.manual_seed(1)
        way(batch, Noise(0))
    return [p.grad.clone() for p in nn.ModuleList([way.model, way.objective]).parameters()]


def ways(plan: Plan) -> list[type[LayerGradients]]:
    """The fast ways that fit a plan."""
    if plan.objective.differentiates_networks or plan.model.posterior.differentiates_networks:
        return []
    return [LayerGradients, *([BoundGradients] if _is_bound(plan) else [])]


@pytest.mark.parametrize("noise", ["global", "feature", "item", 0.7])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda v: v[0])
@pytest.mark.parametrize("name", [r.name for r in recipes()])
def test_float32_gradients_are_those_of_autograd(name, likelihood, noise, refused):
    if noise != "global" and likelihood[0] != "normal":
        return
    shape = (1, 15, 20) if refused(name, (300,)) else (300,)
    if refused(name, Space(shape, *likelihood), noise=noise):
        return
    plan, batch = plan_of(name, *likelihood, shape=shape, noise=noise)
    if not ways(plan):
        return
    moving = nn.ModuleList([plan.model, plan.objective])
    state = {k: v.clone() for k, v in moving.state_dict().items()}
    slow = Gradients(plan)
    expected = gradients(slow, batch)
    loss, terms = slow(batch, Noise(0))
    for way in ways(plan):
        moving.load_state_dict(state)  # a running noise estimate has moved, or a multiplier
        fast = way(plan)
        check(fast, batch, expected)
        again, others = fast(batch, Noise(0))
        torch.testing.assert_close(again, loss.detach())
        assert others.keys() == terms.keys()
        fast.close()


def check(fast: LayerGradients, batch: Batch, expected: list[torch.Tensor]) -> None:
    for got, want in zip(gradients(fast, batch), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)
    whole = torch.cat([g.flatten() for g in expected]).double().norm().float()
    torch.testing.assert_close(fast.norm(), whole, rtol=1e-4, atol=0)


def test_the_plain_bounds_take_the_fastest_way(refused):
    for name in (r.name for r in recipes()):
        for likelihood in LIKELIHOODS:
            if refused(name, Space((300,), *likelihood)):
                continue
            plan, _ = plan_of(name, *likelihood)
            assert _is_bound(plan) == (name in FITTING and likelihood[0] != "categorical"), (name, likelihood)
    assert not _is_bound(plan_of("vae", "normal", noise="item")[0])
    assert not _is_bound(plan_of("vae", free_bits=0.1)[0])
    for condition in ({"n_labels": 3}, {"vector_dim": 2}):  # vectors bring no parameters
        assert not _is_bound(build("cvae", (300,), latent_dim=4, hidden=(8,), condition=condition))
    assert _is_bound(plan_of("vae", warmup=3.0)[0])


class Warmer(BernoulliLikelihood):
    """Its logits are not what the network gave."""

    def forward(self, z, c=None):
        return Bernoulli(self.decode(z, c) / 3, len(self.shape))


class Sharper(BernoulliLikelihood):
    def decode(self, z, c):
        return 3 * super().decode(z, c)


class Scored(BernoulliLikelihood):
    """The same numbers, said to be so."""

    offers = BernoulliLikelihood.offers

    def forward(self, z, c=None):
        return Bernoulli(self.decode(z, c), len(self.shape))


class Tempered(NormalPosterior):
    def forward(self, x, c=None):
        q = super().forward(x, c)
        return DiagonalNormal(q.mean, q.log_var - 1.0)


class Halved(NegLogLik):
    def forward(self, trace):
        return {"nll": Term(-0.5 * trace.expect(trace.log_lik))}


class Wrapped(Posterior):
    """A wrapper of someone else's, which acts in training only."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior, self.offers = posterior, posterior.offers

    plain = property(lambda self: self.posterior)

    def forward(self, x, c=None):
        return self.posterior(2 * x, c)


def test_whatever_computes_something_else_takes_a_general_way():
    """Each of them would inherit derivatives that are not its own."""

    def changed(change) -> Plan:
        plan, _ = plan_of("vae")
        model, objective = plan.model, plan.objective
        if issubclass(change, BernoulliLikelihood):
            model.likelihood = change(model.likelihood.network, (300,))
        elif issubclass(change, Objective):
            objective = change() + KL()
        elif change is Wrapped:
            model.posterior = Wrapped(model.posterior)
        else:
            model.posterior = change(model.posterior.network, 4)
        return Plan(model, objective)

    for change in (Warmer, Sharper, Tempered, Halved, Wrapped):
        plan = changed(change)
        assert type(gradients_for(plan, torch.float32)) is LayerGradients, change
    plan = changed(Scored)
    assert type(gradients_for(plan, torch.float32)) is BoundGradients


class Tripled(MLP):
    def forward(self, h, c=None):
        return 3 * super().forward(h, c)


class Masked(nn.Linear):
    def forward(self, h):
        return nn.functional.linear(h, self.weight * (self.weight > 0), self.bias)


@pytest.mark.parametrize("change", ["subclass", "masked", "last ReLU", "parametrized", "hook"])
def test_networks_that_only_look_like_layers_of_relu_are_left_to_autograd(change):
    plan, batch = plan_of("vae")
    encoder = plan.model.posterior.network
    if change == "subclass":
        encoder.__class__ = Tripled
    elif change == "masked":
        encoder.layers[0].__class__ = Masked
    elif change == "last ReLU":
        encoder.layers.append(nn.ReLU())
    elif change == "parametrized":
        nn.utils.parametrizations.weight_norm(encoder.layers[0])
    else:
        encoder.layers[0].register_forward_hook(lambda m, x, out: 2 * out)
    way = gradients_for(plan, torch.float32)
    assert type(way) is Gradients
    way(batch, Noise(0))
    assert all(p.grad is not None for p in plan.model.parameters())


@pytest.mark.parametrize("place", ["layer", "weight", "weight's sum", "network", "likelihood"])
def test_hooks_are_called(place):
    """Derivatives that are written by hand know nothing of them."""
    plan, batch = plan_of("vae")
    network, called = plan.model.posterior.network, []
    if place == "layer":
        network.layers[-1].register_full_backward_hook(lambda *_: called.append(1))
    elif place == "weight":
        network.layers[0].weight.register_hook(lambda gradient: called.append(1))
    elif place == "weight's sum":
        network.layers[0].weight.register_post_accumulate_grad_hook(lambda weight: called.append(1))
    elif place == "network":
        plan.model.likelihood.network.register_full_backward_hook(lambda *_: called.append(1))
    else:
        plan.model.likelihood.network.register_forward_hook(lambda m, x, out: called.append(1) or 2 * out)
    wanted = [g.clone() for g in gradients(Gradients(plan), batch)]
    called.clear()
    way = gradients_for(plan, torch.float32)
    found = gradients(way, batch)
    assert called
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("kw", [{"hidden": (7,)}, {"network": "linear", "hidden": None}], ids=str)
@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3), (3, 9, 8)], ids=str)
@pytest.mark.parametrize("name", FITTING)
def test_images_and_linear_networks(name, shape, kw):
    torch.manual_seed(0)
    space = Space(shape, "bernoulli")
    plan = build(name, space, latent_dim=4, **({"network": "mlp"} | kw))
    plan.model.train()
    batch = Batch(space.to_model(torch.rand(6, *shape)))
    expected = gradients(Gradients(plan), batch)
    assert _is_bound(plan)
    check(BoundGradients(plan), batch, expected)


def test_a_model_in_evaluation_is_refused():
    plan, batch = plan_of("vae")
    fast = BoundGradients(plan)
    fast(batch, Noise(0))
    plan.model.eval()
    with pytest.raises(PlanError, match=r"call model\.train\(\) first"):
        fast(batch, Noise(0))  # and not the gradient of the step before


def test_an_objective_without_weight_minimizes_nothing():
    plan, batch = plan_of("ae")
    with pytest.raises(PlanError, match="every term has weight 0"):
        Gradients(Plan(plan.model, 0.0 * NegLogLik()))(batch, Noise(0))


@pytest.mark.parametrize("way", [LayerGradients, BoundGradients])
def test_a_weight_that_warms_up_counts(way):
    plan, batch = plan_of("beta-vae", beta=4.0, warmup=4.0)
    plan.objective.advance(1.0)
    expected = gradients(Gradients(plan), batch)
    check(way(plan), batch, expected)


@pytest.mark.parametrize(
    ("way", "name"), [(LayerGradients, "rae-l2"), *product([LayerGradients, BoundGradients], FITTING)]
)
def test_bf16_gradients_point_the_same_way(way, name):
    plan, batch = plan_of(name)
    expected = torch.cat([g.flatten() for g in gradients(Gradients(plan), batch)])
    fast = way(plan, torch.bfloat16)
    assert fast.wide > 0
    got = torch.cat([g.flatten() for g in gradients(fast, batch)])
    assert torch.cosine_similarity(got, expected, 0) > 0.999


def test_the_replica_follows_the_weights():
    plan, _ = plan_of("vae")
    fast = LayerGradients(plan, torch.bfloat16)
    with torch.no_grad():
        fast.flat.add_(1.0)
    fast.moved()
    weight = plan.model.posterior.network.layers[0].weight
    kernel = plan.model.posterior.network.kernel
    assert kernel.tensors[0][0].dtype == torch.bfloat16
    assert torch.equal(kernel.tensors[0][0], weight.to(torch.bfloat16))


@pytest.mark.parametrize("posterior", ["bottom-up", "ladder"])
@pytest.mark.parametrize("objective", [IWAE(5, gradient="dreg"), PIWAE(2, 3)], ids=repr)
def test_a_derivative_on_the_way_to_a_loss_writes_no_gradient(posterior, objective):
    """Both ask for that of log q by z, which goes through layers where codes have several layers."""
    found, batch = [], Batch(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)))
    for way in (Gradients, LayerGradients):
        torch.manual_seed(0)
        options = {"posterior": posterior, "prior": "top-down", "decoded": 2, "latent_dim": 3, "hidden": (8,)}
        plan = assemble(Space((6,)), objective=objective, **options)
        plan.model.train()
        found.append(gradients(way(plan), batch))
    for fast, slow in zip(*found[::-1], strict=True):
        torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("decoded", [1, 2])
def test_a_decoder_of_some_dimensions_gives_gradients_to_these(decoded):
    found, batch = [], Batch(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)))
    for way in (Gradients, gradients_for):
        torch.manual_seed(0)
        options = {"decoded": decoded, "latent_dim": 4, "hidden": (8,)}
        plan = assemble(Space((6,)), objective=NegLogLik() + KL(), **options)
        plan.model.train()
        found.append(gradients(way(plan, torch.float32), batch))
    for fast, slow in zip(*found[::-1], strict=True):
        torch.testing.assert_close(fast, slow)


def test_a_weight_that_two_layers_share_is_left_to_autograd():
    plan = plan_of("vae", shape=(6,), hidden=(8, 8))[0]
    encoder, decoder = plan.model.posterior.network, plan.model.likelihood.network
    decoder.layers[2].weight = encoder.layers[2].weight
    assert type(gradients_for(plan, torch.float32)) is Gradients


def test_a_closed_model_is_as_it_was():
    plan, batch = plan_of("vae")
    before = [p.detach().clone() for p in plan.model.parameters()]
    fast = LayerGradients(plan)
    fast.close()
    for p, old in zip(plan.model.parameters(), before, strict=True):
        assert torch.equal(p, old)
        assert p.grad is None
        assert p.untyped_storage().nbytes() == p.numel() * 4  # no longer a view of one long vector
    assert plan.model.posterior.network.kernel is None
    # Away from training, derivatives of derivatives work as ever.
    torch.autograd.functional.hessian(lambda x: plan.model.posterior(x[None]).point().sum(), batch.x[0])


@pytest.mark.parametrize("used", [0, 1, 3, 20])
def test_rows_that_nothing_flows_back_to_are_skipped(used):
    net = MLP((6,), (4,), hidden=(8, 8))
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    g = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    g[torch.randperm(20, generator=torch.Generator().manual_seed(2))[used:]] = 0.0
    found = {}
    for skips in (False, True):
        weights = [(m.weight.detach(), m.bias.detach()) for m in net.layers[::2]]
        tensors = [(w, b, torch.ones_like(w), torch.ones_like(b)) for w, b in weights]
        layers = HandwrittenLayers(net, tensors)
        layers.skips = skips
        by_x = layers.backward(g.clone(), layers.forward(x)[1], True)
        found[skips] = [by_x, *(t for of in tensors for t in of[2:])]
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other)
    rows = HandwrittenLayers._used(g)
    assert rows is None if used == 20 else len(rows) == used
    g[0, 0] = torch.nan  # a fault is not lost
    assert used == 20 or 0 in HandwrittenLayers._used(g)


def test_it_is_chosen_where_it_fits_and_only_there():
    fits, _ = plan_of("vae")
    assert type(gradients_for(fits, torch.float32)) is BoundGradients
    assert type(gradients_for(plan_of("iwae")[0], torch.float32)) is LayerGradients
    for name, kw in (("contractive-ae", {}), ("vae", {"activation": "silu"})):
        assert type(gradients_for(plan_of(name, **kw)[0], torch.float32)) is Gradients
    own = build("vae", (3,), network=(nn.Linear(3, 4), nn.Linear(2, 3)))
    assert type(gradients_for(own, torch.float32)) is Gradients
    images = build("vae", Space((16, 16)), network="conv2d")
    assert type(gradients_for(images, torch.float32)) is Gradients


def test_training_ends_at_the_same_weights_either_way(monkeypatch):
    X = (torch.rand(200, 300, generator=torch.Generator().manual_seed(0)) < 0.3).float()

    def trained():
        plan, _ = plan_of("vae")
        for _ in train(plan, Source(X, plan.model.space), epochs=3, batch_size=50, seed=0):
            pass
        return plan.model.state_dict()

    fast = trained()
    monkeypatch.setattr("chartae.training.engine.gradients_for", lambda *a, compile: Gradients(*a))
    slow = trained()
    for name in fast:
        # Adam divides by the gradient's size, which blows up the last digits of the smallest gradients.
        torch.testing.assert_close(fast[name], slow[name], rtol=0, atol=2e-4)
