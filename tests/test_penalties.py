"""Penalties on decoders against exact Jacobians, and what they do to codes."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import chartae as ct
from chartae.core.contracts import Batch, Plan, RawCondition, Trace
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.geometry import distortion
from chartae.models.recipes import build
from chartae.parts.objectives import DecoderGradient, DecoderWeights, Distortion
from chartae.training.kernels import Gradients, gradients_for

N = 40


def trace(space: object = (6,), *, seed: int = 0, rows: int = N, **parameters: object) -> Trace:
    torch.manual_seed(0)
    given = {"latent_dim": 3, "hidden": (8,), "activation": "tanh", **parameters}
    plan = build("ae", space, **given)
    plan.model.eval()
    shape = plan.model.space.model_shape
    x = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(1)).round(decimals=0)
    c = RawCondition(label=torch.arange(rows) % 2) if "condition" in parameters else None
    return plan.model.trace(Batch(x, c), k=1, noise=Noise(seed))


def jacobians(t: Trace, z: Tensor) -> Tensor:
    """Exact, of the expected item: ``(n, x, d)``."""

    def decode(z: Tensor, c: Tensor | None) -> Tensor:
        px = t.model.likelihood(z[None, None], None if c is None else c[None])
        return (px.expected() if hasattr(px, "expected") else px.point()).flatten()

    c = t.c
    rows = [
        torch.autograd.functional.jacobian(lambda z, i=i: decode(z, None if c is None else c[i]), z[i])
        for i in range(len(z))
    ]
    return torch.stack(rows)


KINDS = {
    "normal": {},
    "item": {"noise": "item"},
    "bernoulli": {"space": Space((6,), "bernoulli")},
    "categorical": {"space": Space((6,), "categorical", levels=3)},
    "images": {"space": (9, 8), "network": "conv2d"},
    "conditional": {"condition": {"n_labels": 2, "vector_dim": 0}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_s_gradient_is_estimated_without_bias(kind):
    """Means over 400 vectors against the exact norm: five standard errors, one false alarm in 10^5 runs."""
    t = trace(**KINDS[kind], rows=6)
    rows = torch.stack([DecoderGradient()(t)["decoder_gradient"].rows.detach() for _ in range(400)])
    exact = jacobians(t, t.levels[0].z[0].detach()).square().sum((1, 2))
    assert exact.min() > 0
    assert ((rows.mean(0) - exact).abs() < 5 * rows.std(0) / 20).all()


def test_the_gradient_of_a_linear_decoder_is_its_matrix():
    t = trace(network="linear", hidden=None)
    exact = float(t.model.likelihood.network.layers[0].weight.detach().square().sum())
    means = [float(DecoderGradient()(t)["decoder_gradient"].rows.detach().mean()) for _ in range(30)]
    assert np.mean(means) == pytest.approx(exact, abs=5 * np.std(means) / 30**0.5)


def test_penalties_are_the_same_without_a_graph():
    for objective in (DecoderGradient(), Distortion(), DecoderWeights()):
        with torch.no_grad():
            without = objective(trace())
        for name, term in objective(trace()).items():
            torch.testing.assert_close(without[name].rows, term.rows.detach())
            assert not without[name].rows.requires_grad


@pytest.mark.parametrize("image", [False, True])
def test_what_a_pass_has_decoded_is_not_decoded_again(image, monkeypatch):
    """The same value and gradients as from codes decoded anew, as they are by modules of the user's."""
    found = []
    for own in (True, False):
        monkeypatch.setattr("chartae.parts.objectives.penalties.is_own", lambda network, own=own: own)
        torch.manual_seed(0)
        shape, network = ((1, 8, 8), "conv2d") if image else ((6,), "mlp")
        plan = build("rae-gp", shape, latent_dim=3, hidden=(8, 4), network=network)
        plan.model.train()
        calls: list[int] = []
        plan.model.likelihood.network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        batch = Batch(torch.randn(N, *shape, generator=torch.Generator().manual_seed(1)))
        loss, _ = Gradients(plan)(batch, Noise(0))
        found.append([loss, *(p.grad for p in plan.model.parameters())])
        assert len(calls) == (1 if own else 2)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("objective", [DecoderGradient(), Distortion(), DecoderWeights()])
def test_penalties_differ_in_what_the_decoder_learns(objective):
    """The gradient by weights, against a difference quotient in double precision."""
    t = trace()
    t.model.double()
    t = t.model.trace(Batch(t.batch.x.double()), k=1, noise=Noise(0))
    weight = t.model.likelihood.network.layers[0].weight

    def value() -> Tensor:
        fresh = t.model.trace(t.batch, k=1, noise=Noise(0))
        return sum(term.value() for term in objective(fresh).values())

    (slope,) = torch.autograd.grad(value(), weight)
    way = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight.add_(step * way)
            ends.append(float(value()))
            weight.sub_(step * way)
    assert float((slope * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


# ------------------------------------------------------------------- distortion


class Scaled(nn.Module):
    """An isometry times a factor."""

    def __init__(self, d: int, out: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrix = nn.Parameter(3 * torch.linalg.qr(torch.randn(out, d))[0])

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix.T


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_scaled_isometry_has_the_least_distortion(d):
    t = trace(rows=4000, latent_dim=d, network=(nn.Linear(6, d), Scaled(d, 6)), activation="relu")
    rows = Distortion()(t)["distortion"].rows
    assert rows.shape == ()
    # d over the mean of |v|², of 4000 vectors: five standard errors.
    assert float(rows.detach()) == pytest.approx(1, abs=5 * math.sqrt(2 / d / 4000))


def test_distortion_is_that_of_exact_metrics():
    """At codes as they are, not between them; with weights that stretch unevenly."""
    t = trace(rows=300)
    with torch.no_grad():
        for p in t.model.likelihood.network.parameters():
            p.mul_(2.0)
    z = t.levels[0].z
    J = jacobians(t, z[0].detach()).double()
    exact = distortion((J.mT @ J).numpy())
    assert exact > 1.2
    still = Distortion()
    still.beyond = -0.5  # the middle of each line
    middle = 0.5 * (z + z.roll(1, 1))[0].detach()
    J = jacobians(t, middle).double()
    exact = distortion((J.mT @ J).numpy())
    found = np.array([float(still(t)["distortion"].rows.detach()) for _ in range(60)])
    # A ratio of means over 300 codes: its own bias is of the order of one in 300.
    assert found.mean() == pytest.approx(exact, abs=5 * found.std() / 60**0.5 + 0.02 * exact)


def test_distortion_falls_in_training():
    X = np.random.default_rng(0).uniform(-1, 1, (400, 2)) * [4, 1]
    small = {"latent_dim": 2, "hidden": (32,), "max_epochs": 20, "batch_size": 32, "random_state": 0}
    found = {}
    for lam in (0.0, 10.0):
        m = ct.Autoencoder(recipe="isometric-ae", recipe_params={"lam": lam}, learning_rate=5e-3, **small)
        found[lam] = distortion(m.fit(X).metric(m.transform(X)))
    assert found[10.0] - 1 < 0.3 * (found[0.0] - 1)


# ------------------------------------------------------------------- regularized autoencoders


def test_weights_of_the_decoder_and_no_others_are_counted():
    t = trace()
    network = t.model.likelihood.network
    exact = sum(float(p.detach().square().sum()) for p in network.parameters())
    term = DecoderWeights()(t)["decoder_weights"]
    assert term.rows.shape == ()
    assert float(term.rows.detach()) == pytest.approx(exact, rel=1e-5)
    grads = torch.autograd.grad(term.value(), list(t.model.parameters()), allow_unused=True)
    touched = {id(p) for p, g in zip(t.model.parameters(), grads, strict=True) if g is not None}
    assert touched == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("name", ["rae-gp", "isometric-ae"])
def test_layers_by_hand_are_not_used_where_they_would_miss_a_gradient(name):
    assert type(gradients_for(build(name, (5,), latent_dim=2, hidden=(8,)), torch.float32)) is Gradients


def test_what_a_penalty_is_on_becomes_small():
    X = np.random.default_rng(0).normal(size=(200, 3)) @ np.random.default_rng(1).normal(size=(3, 10))
    small = {"latent_dim": 3, "hidden": (16,), "max_epochs": 15, "batch_size": 32, "random_state": 0}

    def fit(name: str, **own: float) -> ct.Autoencoder:
        return ct.Autoencoder(recipe=name, recipe_params=own, learning_rate=1e-2, **small).fit(X)

    def weights(m: ct.Autoencoder) -> float:
        return sum(float(p.detach().square().sum()) for p in m.model_.likelihood.network.parameters())

    def steepness(m: ct.Autoencoder) -> float:
        return float(np.trace(m.metric(m.transform(X)), axis1=1, axis2=2).mean())

    assert weights(fit("rae-l2", lam=1.0)) < 0.7 * weights(fit("rae-l2", lam=0.0))
    assert steepness(fit("rae-gp", lam=5.0)) < 0.7 * steepness(fit("rae-gp", lam=0.0))
    loose, tight = (np.square(fit("rae-l2", beta=b).transform(X)).sum(1).mean() for b in (0.0, 20.0))
    assert tight < 0.7 * loose


@pytest.mark.parametrize("own", [{"lam": -1.0}, {"beta": -1.0}])
@pytest.mark.parametrize("name", ["rae-l2", "rae-gp"])
def test_a_penalty_does_not_reward(name, own):
    with pytest.raises(PlanError, match="use 0 or more"):
        build(name, (5,), **own)


# ------------------------------------------------------------------- implicit rank


def dimensions(codes: np.ndarray) -> int:
    """How many principal directions hold more than a thousandth of the variance."""
    share = np.linalg.svd(codes - codes.mean(0), compute_uv=False) ** 2
    return int((share > 1e-3 * share.sum()).sum())


def test_square_matrices_make_codes_of_low_rank():
    """Two planted dimensions and a code of ten: matrices keep it small, and a plain encoder does not."""
    generator = np.random.default_rng(0)
    X = np.tanh(generator.normal(size=(300, 2)) @ generator.normal(size=(2, 12)))
    small = {"latent_dim": 10, "hidden": (64,), "max_epochs": 40, "batch_size": 32, "learning_rate": 3e-3}
    ranks = {}
    for name, own in (("ae", {}), ("irmae", {"depth": 8})):
        m = ct.Autoencoder(recipe=name, recipe_params=own, random_state=0, **small).fit(X)
        assert np.square(m.project(X) - X).mean() < 0.02 * X.var()
        ranks[name] = dimensions(m.transform(X))
    assert ranks["irmae"] <= 3 < 6 <= ranks["ae"]


def test_the_matrices_are_one_in_what_they_say():
    plan: Plan = build("irmae", (5,), latent_dim=3, hidden=(8,), depth=3)
    q, x = plan.model.posterior, torch.randn(4, 5)
    product = torch.linalg.multi_dot([layer.weight for layer in reversed(q.product)])
    torch.testing.assert_close(q(x).point(), q.network(x) @ product.T)
    assert len(q.product) == 3
    with pytest.raises(PlanError, match="or recipe 'ae' for none"):
        build("irmae", (5,), depth=0)


@pytest.mark.parametrize("recipe", ["contractive-ae", "rae-gp", "isometric-ae", "vae-gan", "hvae", "rhvae"])
def test_tokens_have_no_slopes(recipe):
    """What takes derivatives along items is refused; along codes of texts there are second ones, too."""
    tokens = np.tile([[1, 2, 3, 1, 4], [2, 1, 4, 0, 0]], (20, 1))
    model = ct.Autoencoder(recipe=recipe, likelihood="sequence", latent_dim=2, hidden=(8,), max_epochs=1)
    if recipe in ("hvae", "rhvae"):
        model.fit(tokens)
        return
    with pytest.raises(PlanError, match="whose tokens are steps"):
        model.fit(tokens)


def test_a_decoder_that_does_not_react_has_no_distortion():
    plan = build("isometric-ae", Space((6,)), latent_dim=2, hidden=(8,))
    with torch.no_grad():
        plan.model.likelihood.network.layers[0].bias.fill_(-50.0)
    t = plan.model.trace(Batch(torch.randn(10, 6)), k=1, noise=Noise(0))
    value = plan.objective(t)["distortion"].rows
    assert float(value.detach()) == 0.0
    value.backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in plan.model.parameters())


def test_decoder_weights_need_a_decoder():
    X = np.random.default_rng(0).normal(size=(100, 4))
    head = ct.HeadClassifier(
        ct.Autoencoder(recipe="rae-l2", latent_dim=2, max_epochs=1), training="bottleneck"
    )
    with pytest.raises(PlanError, match="decodes nothing: use training='joint'"):
        head.fit(X, X[:, 0] > 0)
