"""Draws that leap along the model's log density: the dynamics, their density, and the bound they give."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density import log_likelihood
from chartae.geometry import encoder_jacobian
from chartae.geometry.jacobians import pushforward
from chartae.models.assembly import assemble
from chartae.models.recipes import build
from chartae.parts.distributions import DiagonalNormal, FullNormal, StandardNormal
from chartae.parts.networks import MLP, damp
from chartae.parts.objectives import KL, NegLogLik
from chartae.parts.posteriors import Hamiltonian, HamiltonianPosterior
from chartae.parts.posteriors.hamiltonian import TEMPERINGS
from chartae.training.kernels import Gradients, LayerGradients, gradients_for

D = 3
each_tempering = pytest.mark.parametrize("tempering", TEMPERINGS)


def bent(z: torch.Tensor) -> torch.Tensor:
    """A log density with curvature that changes, and no symmetry."""
    return -(0.5 * z.square() + 0.3 * (z + 0.7 * z.roll(1, -1)).sin() + 0.1 * z.pow(4)).sum(-1)


def dynamics(tempering: str = "none", steps: int = 4, step: float = 0.2, beta: float = 0.4) -> Hamiltonian:
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    roots = TEMPERINGS[tempering](
        torch.tensor(math.sqrt(beta if tempering != "none" else 1.0)).double(), share
    )
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 5, D, generator=g, dtype=torch.float64)
    start = DiagonalNormal(0.4 * mean, 0.2 * log_var)
    return Hamiltonian(start, bent, step * torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64), roots)


def state(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, 4, 5, D, generator=torch.Generator().manual_seed(seed)).double())


def test_leaps_can_be_taken_back():
    q = dynamics()
    z, momentum = state()
    there, moving = q.leap(z, momentum)
    assert (there - z).abs().max() > 0.1
    back, turned = q.leap(there, -moving)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned, -momentum, rtol=0, atol=1e-12)


@each_tempering
def test_volumes_change_by_the_cooling_alone(tempering):
    q = dynamics(tempering)
    z, momentum = state()

    def leap(both: torch.Tensor) -> torch.Tensor:
        return torch.cat(q.leap(both[None, None, :D], both[None, None, D:]), -1)[0, 0]

    J = torch.autograd.functional.jacobian(leap, torch.cat([z, momentum], -1)[0, 0])
    torch.testing.assert_close(torch.linalg.det(J), q.roots[0] ** D)
    assert q.roots[-1] == 1
    assert bool((q.roots.diff() >= 0).all())
    assert (q.roots[0] < 1) == (tempering != "none")


@each_tempering
def test_roots_of_inverse_temperatures(tempering):
    """Caterini, Doucet and Sejdinovic 2018, section 3.2."""
    roots = dynamics(tempering, steps=4, beta=0.4).roots.tolist()
    root = math.sqrt(0.4)
    expected = {
        "none": [1.0] * 5,
        "fixed": [root, root**0.75, root**0.5, root**0.25, 1.0],
        "quadratic": [1 / ((1 - 1 / root) * k * k / 16 + 1 / root) for k in range(5)],
    }
    assert roots == pytest.approx(expected[tempering], rel=1e-6)


def test_energy_is_kept_to_second_order():
    errors = []
    for steps in (8, 16, 32):
        q = dynamics(steps=steps, step=1.0 / steps)
        z, momentum = state()
        energies = [bent(a) - 0.5 * b.square().sum(-1) for a, b in ((z, momentum), q.leap(z, momentum))]
        errors.append((energies[1] - energies[0]).detach().abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@each_tempering
def test_the_density_of_a_draw_is_that_of_the_change_of_variables(tempering):
    q = dynamics(tempering)
    drawn = q.draw(1, Noise(0))
    noise = Noise(0)
    z = q.start.draw(1, noise).z
    gamma = noise.normal(z.shape, z)
    there, moving = q.leap(z, gamma / q.roots[0])
    torch.testing.assert_close(drawn.z, there)

    def whole(gauss: torch.Tensor) -> torch.Tensor:
        """From standard normal noise to where a draw and its momentum end."""
        mean, std = q.start.mean[:1], q.start.std()[:1]
        one = Hamiltonian(DiagonalNormal(mean, q.start.log_var[:1]), bent, q.step, q.roots)
        return torch.cat(one.leap((mean + std * gauss[:D])[None], (gauss[D:] / q.roots[0])[None, None]), -1)[
            0, 0
        ]

    own = (z[0, 0] - q.start.mean[0]) / q.start.std()[0]
    gauss = torch.cat([own, gamma[0, 0]])
    J = torch.autograd.functional.jacobian(whole, gauss)
    joint = StandardNormal(2 * D).log_prob(gauss) - torch.linalg.slogdet(J)[1]
    torch.testing.assert_close(drawn.log_prob[0, 0], joint - StandardNormal(D).log_prob(moving[0, 0]))


@each_tempering
def test_weights_have_the_mean_that_they_should(tempering):
    """The mean of exp(log density - log q) is the integral of the density, whatever the dynamics."""
    q = dynamics(tempering, steps=3)
    drawn = q.draw(40_000, Noise(0))
    grid = torch.linspace(-5, 5, 81, dtype=torch.float64)
    total = bent(torch.cartesian_prod(grid, grid, grid)).exp().sum() * (10 / 80) ** 3
    weights = (bent(drawn.z) - drawn.log_prob).exp() / total
    error = weights.std(0) / math.sqrt(len(weights))
    # Five rows: a false alarm in 3,000.
    assert ((weights.mean(0) - 1).abs() < 4 * error).all()
    assert (error < 0.03).all()


def test_gradients_pass_through_the_leaps():
    """By everything that a draw's weight depends on, through second derivatives of the density."""
    w = torch.randn(4, D, generator=torch.Generator().manual_seed(3)).double()

    def weight(w: torch.Tensor, mean: torch.Tensor, step: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        log_density = lambda z: bent(z) - (z @ w.T).sin().square().sum(-1)  # noqa: E731
        roots = TEMPERINGS["quadratic"](root, torch.linspace(0, 1, 3).double())
        q = Hamiltonian(DiagonalNormal(mean, torch.zeros_like(mean)), log_density, step, roots)
        drawn = q.draw(2, Noise(0))
        return log_density(drawn.z) - drawn.log_prob

    inputs = (w, torch.ones(2, D).double(), torch.full((D,), 0.2).double(), torch.tensor(0.6).double())
    assert torch.autograd.gradcheck(weight, [t.requires_grad_() for t in inputs])


def linear_plan(**parameters: object) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model whose posterior is far from diagonal, some items, and their log densities."""
    torch.manual_seed(0)
    space = Space((4,), "normal")
    model = build("hvae", space, latent_dim=2, network="linear", noise=1.0, **parameters).model.eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    damp(model.posterior.network, 0.2)  # a wide posterior, whose weights vary little
    layer = model.likelihood.network.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 0.5], [-1.0, -1.0], [0.5, 1.0]]))
        cov = layer.weight @ layer.weight.T + torch.eye(4)
        exact = FullNormal(layer.bias, torch.linalg.cholesky(cov)).log_prob(x).double()
    return model, x, exact


@torch.no_grad()
def log_weights(model: nn.Module, x: torch.Tensor, k: int = 2000) -> torch.Tensor:
    return model.trace(Batch(x), k=k, noise=Noise(0)).log_joint_ratio.double()


@each_tempering
def test_weights_give_the_density_of_a_linear_model(tempering):
    model, x, exact = linear_plan(leapfrogs=3, step=0.1, tempering=tempering)
    value, error = log_likelihood(model, Batch(x), k=4000, noise=Noise(1), block=4000)
    assert ((value - exact).abs() < 4.5 * error + 1e-4).all()
    assert (error < 0.2).all()


@pytest.mark.parametrize("second_order", [True, False])
def test_gradients_pass_through_slopes_or_take_them_as_given(second_order):
    """One leap along -z²/2 from z: z (1 - s²/2) + s m, of which slopes as given leave z + s m."""
    z, step = torch.randn(3, 5, 2, requires_grad=True), 0.3
    start = DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2))
    log_density = StandardNormal(2).log_prob
    q = Hamiltonian(start, log_density, torch.full((2,), step), torch.ones(2), second_order=second_order)
    after, _ = q.leap(z, torch.ones_like(z))
    torch.testing.assert_close(after, z * (1 - step**2 / 2) + step)
    after.sum().backward()
    expected = 1 - step**2 / 2 if second_order else 1.0
    torch.testing.assert_close(z.grad, torch.full_like(z, expected))


@pytest.mark.parametrize("second_order", [True, False])
def test_leaps_are_the_same_within_transforms(second_order):
    q, (z, momentum) = dynamics(), state()
    q.second_order = second_order
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(2)).double()
    value, (along,) = pushforward(lambda z: q.leap(z, momentum)[0], z, v[None])
    torch.testing.assert_close(value, q.leap(z, momentum)[0])
    ahead, behind = (q.leap(z + h * v, momentum)[0] for h in (1e-6, -1e-6))
    torch.testing.assert_close(along, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("prior", ["standard-normal", ("top-down", {"levels": 2})])
def test_slopes_leave_the_weights_gradients_alone(prior):
    plan = assemble(
        Space((6,), "bernoulli"),
        objective=NegLogLik() + KL(),
        posterior=("hamiltonian", {"step": 0.3, "second_order": False}),
        prior=prior,
        latent_dim=2,
        hidden=(8,),
    )
    plan.model.train()
    found = []
    for way in (Gradients, gradients_for):
        gradients = way(plan, torch.float32)
        loss, _ = gradients(Batch(torch.ones(5, 6)), Noise(0))
        found.append([loss.detach(), *(p.grad.clone() for p in plan.model.parameters())])
        gradients.close()
    assert type(gradients) is LayerGradients
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


def test_without_tempering_leaps_change_no_weight():
    """Energy is kept, and it is all that a weight holds of the dynamics: only the error of steps is seen."""
    plain, x, _ = linear_plan(leapfrogs=0)
    before = log_weights(plain, x)
    gaps = []
    for leapfrogs, step in ((8, 0.04), (16, 0.02)):
        moved, _, _ = linear_plan(leapfrogs=leapfrogs, step=step, tempering="none")
        moved.posterior.network.load_state_dict(plain.posterior.network.state_dict())
        gaps.append(float((log_weights(moved, x) - before).abs().mean()))
    assert gaps[0] < 0.01
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.1)


def test_with_tempering_the_bound_is_tighter():
    """Posteriors are trained, the model is not: the best diagonal normal falls short, and leaps fall less."""
    gaps = []
    for leapfrogs in (0, 8):
        model, x, exact = linear_plan(leapfrogs=leapfrogs, step=0.3, tempering="fixed")
        optimizer = torch.optim.Adam(model.posterior.parameters(), lr=0.05)
        for step in range(120):
            optimizer.zero_grad()
            (-model.trace(Batch(x), k=32, noise=Noise(step)).log_joint_ratio.mean()).backward()
            optimizer.step()
        weights = log_weights(model, x)
        assert (weights.mean(0) < exact + 4 * weights.std(0) / math.sqrt(len(weights))).all()
        gaps.append(float((exact - weights.mean(0)).mean()))
    W = model.likelihood.network.layers[0].weight.detach()
    precision = torch.eye(2) + W.T @ W
    best = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())  # of diagonal normals
    assert gaps[0] > best - 0.01  # nats; Monte Carlo errors are about 0.005
    assert gaps[1] < best - 0.02


def test_no_steps_are_the_plain_vae():
    X = np.random.default_rng(0).normal(size=(60, 5))
    shared = {"latent_dim": 3, "hidden": (8,), "max_epochs": 2, "random_state": 0}
    none = ct.Autoencoder(recipe="hvae", recipe_params={"leapfrogs": 0}, **shared).fit(X)
    plain = ct.Autoencoder(recipe="vae", **shared).fit(X)
    close = {"rtol": 1e-5, "atol": 1e-6}  # gradients are taken in another way
    np.testing.assert_allclose(*([e["loss"] for e in m.history_] for m in (none, plain)), **close)
    for method in ("transform", "score_samples", "project"):
        np.testing.assert_allclose(getattr(none, method)(X), getattr(plain, method)(X), **close)


def test_codes_lie_where_draws_do():
    model, x, _ = linear_plan(leapfrogs=5, step=0.2, tempering="none")
    with torch.no_grad():
        q = model.q(x)
        mean = q.draw(20_000, Noise(0)).z.mean(0)
    # In a linear model the dynamics are linear: the mean draw is where the mean leaps to.
    torch.testing.assert_close(q.point(), mean, rtol=0, atol=0.05)
    assert (q.point() - q.start.point()).abs().max() > 0.3
    with torch.no_grad():
        drawn = q.draw(20_000, Noise(0)).z.std(0)
    far = (q.start.std() - drawn).abs().max()
    assert far > 0.07  # draws are as wide as where they leap to
    assert (q.std() - drawn).abs().max() < 0.6 * far


def test_it_works_without_gradients_and_leaves_no_graph():
    model, x, _ = linear_plan(leapfrogs=3)
    q = model.q(x)
    with_graph = q.draw(2, Noise(0))
    assert with_graph.z.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            drawn = model.q(x.clone()).draw(2, Noise(0))
            torch.testing.assert_close(drawn.z, with_graph.z)
            torch.testing.assert_close(drawn.log_prob, with_graph.log_prob)
            torch.testing.assert_close(model.q(x.clone()).point(), q.point())
            assert not drawn.z.requires_grad
            assert not drawn.log_prob.requires_grad
            trace = model.trace(Batch(x.clone()), k=2, noise=Noise(0))
            assert bool(trace.log_joint_ratio.isfinite().all())


def test_the_step_is_what_was_asked_for():
    q = HamiltonianPosterior(MLP((4,), (6,), (8,)), 3, leapfrogs=2, step=0.07, tempering="quadratic")
    p = q(torch.zeros(5, 4)).within(StandardNormal(3), lambda z: -z.square().sum(-1))
    torch.testing.assert_close(p.step, torch.full((3,), 0.07))
    assert len(p.roots) == 3
    # What leaps follow is the prior and the likelihood together.
    z = torch.randn(2, 5, 3)
    torch.testing.assert_close(p.log_density(z), StandardNormal(3).log_prob(z) - z.square().sum(-1))


def test_batch_statistics_see_each_step_once():
    """Evaluations of the decoder on the way to a code are hidden ones."""
    X = np.random.default_rng(0).normal(size=(40, 4))
    pair = (
        nn.Linear(4, 5),
        nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.1), nn.Linear(6, 4)),
    )
    m = ct.Autoencoder(
        recipe="hvae", network=pair, latent_dim=2, max_epochs=2, batch_size=16, random_state=0
    ).fit(X)
    assert m.model_.likelihood.network.module[1].num_batches_tracked == m.n_iter_ * 3


def test_training_moves_steps_and_temperature_and_lowers_the_loss():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.2 * rng.normal(size=(200, 6))
    m = ct.Autoencoder(
        recipe="hvae",
        latent_dim=2,
        hidden=(16,),
        max_epochs=8,
        learning_rate=5e-3,
        batch_size=50,
        random_state=0,
    ).fit(X)
    q = m.model_.posterior
    assert len((0.5 * q.step.sigmoid()).detach().unique()) == 2
    assert abs(q.cold.sigmoid().item() - 0.3) > 1e-4
    assert m.history_[-1]["loss"] < m.history_[0]["loss"] - 0.5
    assert np.isfinite(m.log_likelihood(X[:5], n_importance=50, random_state=0)[0]).all()
    with pytest.raises(PlanError, match="use method='importance'"):
        m.log_likelihood(X[:5], method="ais")


def test_the_encoder_s_jacobian_is_that_of_codes():
    X = np.random.default_rng(0).normal(size=(50, 4))
    m = ct.Autoencoder(recipe="hvae", latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    J = encoder_jacobian(m, X[:3])
    h = 1e-5
    for j in range(4):
        step = h * np.eye(4)[j]
        central = (m.transform(X[:3] + step) - m.transform(X[:3] - step)) / (2 * h)
        np.testing.assert_allclose(J.reshape(3, 2, 4)[:, :, j], central, rtol=1e-3, atol=1e-4)


def test_tables_and_missing_values():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["x", "y", "z"], 60)})
    table.loc[::7, "a"] = np.nan
    m = ct.Autoencoder(recipe="hvae", latent_dim=2, hidden=(8,), max_epochs=2, random_state=0).fit(table)
    assert np.isfinite(m.score_samples(table)).all()
    assert m.reconstruct(table, random_state=0)["a"].notna().all()
    assert ct.audit(m, table).findings


def test_what_makes_no_sense_is_refused():
    for bad, said in (
        ({"leapfrogs": -1}, "leapfrogs=-1: use 0 or more"),
        ({"step": 0.0}, "step=0.0: use a number above 0 and below 0.5"),
        ({"step": 0.5}, "step=0.5: use a number above 0 and below 0.5"),
        ({"tempering": "fixd"}, "unknown tempering 'fixd': did you mean 'fixed'"),
    ):
        with pytest.raises(PlanError, match=said):
            build("hvae", (4,), **bad)
    with pytest.raises(NotImplementedError, match=r"only they bring their density: see Draw\.log_prob"):
        dynamics().log_prob(torch.zeros(D))
