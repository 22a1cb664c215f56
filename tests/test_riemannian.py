"""Draws that leap by a metric: its mathematics, the implicit dynamics, and the bound they give."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density import log_likelihood
from chartae.models.recipes import build
from chartae.parts.distributions import DiagonalNormal, FullNormal, StandardNormal
from chartae.parts.networks import MLP, damp
from chartae.parts.posteriors import Hamiltonian, Metric, RiemannianHamiltonian, RiemannianPosterior
from chartae.parts.posteriors.hamiltonian import LARGEST, TEMPERINGS

D = 3
each_tempering = pytest.mark.parametrize("tempering", TEMPERINGS)


def bent(z: torch.Tensor) -> torch.Tensor:
    """A log density with curvature that changes, and no symmetry."""
    return -(0.5 * z.square() + 0.3 * (z + 0.7 * z.roll(1, -1)).sin() + 0.1 * z.pow(4)).sum(-1)


def metric(temperature: float = 1.2, regularization: float = 0.2, away: float = 0.0) -> Metric:
    g = torch.Generator().manual_seed(4)
    centroids = torch.randn(7, D, generator=g, dtype=torch.float64) + away
    factors = (0.3 * torch.randn(7, D, D, generator=g, dtype=torch.float64)).tril()
    return Metric(centroids, factors, temperature, regularization)


def dynamics(
    tempering: str = "none", steps: int = 4, step: float = 0.1, G: Metric | None = None
) -> RiemannianHamiltonian:
    root = torch.tensor(math.sqrt(0.4 if tempering != "none" else 1.0)).double()
    roots = TEMPERINGS[tempering](root, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 5, D, generator=g, dtype=torch.float64)
    start = DiagonalNormal(0.4 * mean, 0.2 * log_var)
    steps_of = step * torch.tensor([1.0, 0.7, 1.3], dtype=torch.float64)
    return RiemannianHamiltonian(start, bent, steps_of, roots, G or metric())


def state(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, 4, 5, D, generator=torch.Generator().manual_seed(seed)).double())


def precise(z: torch.Tensor, G: Metric) -> torch.Tensor:
    """The inverse of the metric, as it is defined."""
    total = G.regularization * torch.eye(D).double().expand(*z.shape[:-1], D, D)
    g = torch.Generator().manual_seed(4)
    torch.randn(7, D, generator=g, dtype=torch.float64)
    factors = (0.3 * torch.randn(7, D, D, generator=g, dtype=torch.float64)).tril()
    for centroid, L in zip(G.centroids, factors, strict=True):
        fade = torch.exp(-((z - centroid).norm(dim=-1) ** 2) / G.temperature**2)
        total = total + fade[..., None, None] * (L @ L.T)
    return total


# ------------------------------------------------------------------- the metric


def test_the_inverse_of_the_metric_is_its_formula_and_positive_definite():
    G = metric()
    z = torch.cat([state()[0], G.centroids.expand(4, 7, D), 100 * state(2)[0]], 1)
    torch.testing.assert_close(G.inverse(z), precise(z, G))
    assert (torch.linalg.eigvalsh(G.inverse(z)) >= G.regularization - 1e-12).all()
    assert (torch.linalg.eigvalsh(G.inverse(G.centroids)) > G.regularization + 1e-3).all()
    torch.testing.assert_close(
        G.inverse(z)[:, -5:], G.regularization * torch.eye(D).double().expand(4, 5, D, D)
    )


def kinetic(z: torch.Tensor, momentum: torch.Tensor, G: Metric) -> torch.Tensor:
    A = precise(z, G)
    return 0.5 * torch.einsum("...i,...ij,...j->...", momentum, A, momentum) - 0.5 * torch.logdet(A)


def test_the_slope_of_the_kinetic_energy_is_that_of_its_formula():
    q, (z, momentum) = dynamics(), state()
    expected = torch.func.grad(lambda v: kinetic(v, momentum, q.metric).sum())(z)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(q._bend(q._at(z), momentum), expected)


def test_momenta_are_normal_with_the_metric_as_covariance():
    q, (z, momentum) = dynamics(), state()
    A = precise(z, q.metric)
    p = torch.distributions.MultivariateNormal(torch.zeros(D).double(), precision_matrix=A)
    torch.testing.assert_close(q._log_momentum(z, momentum), p.log_prob(momentum))
    # From white noise by a linear map, whose square is the covariance.
    columns = torch.stack([q._momentum(z, e.expand_as(z)) for e in torch.eye(D).double()], -1)
    torch.testing.assert_close(columns @ columns.mT, torch.linalg.inv(A))


# ----------------------------------------------------------------- the dynamics


@pytest.mark.parametrize("tempering", ["none", "quadratic"])
@pytest.mark.parametrize(
    "G", [metric(away=1e3), metric(temperature=1e-4), metric(temperature=1e6)], ids=["far", "cold", "hot"]
)
def test_a_constant_metric_gives_euclidean_dynamics_in_other_coordinates(tempering, G):
    """Where z = R u and the inverse metric is R R', u moves as if that were the identity, by R' rho."""
    q, (z, momentum) = dynamics(tempering, G=G), state()
    q.step = torch.full((D,), 0.2).double()
    A = G.inverse(torch.zeros(D).double())
    R = torch.linalg.cholesky(A)
    flat = Hamiltonian(q.start, lambda u: bent(u @ R.T), q.step, q.roots)
    there, moving = q.leap(z, momentum)
    u, turned = flat.leap(z @ torch.linalg.inv(R).T, momentum @ R)
    assert (there - z).abs().max() > 0.1
    torch.testing.assert_close(there, u @ R.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(moving @ R, turned, rtol=0, atol=1e-8)


def test_leaps_can_be_taken_back():
    q, (z, momentum) = dynamics(), state()
    there, moving = q.leap(z, momentum)
    assert (there - z).abs().max() > 0.1
    back, turned = q.leap(there, -moving)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-8)
    torch.testing.assert_close(turned, -momentum, rtol=0, atol=1e-8)


def volume(q: RiemannianHamiltonian, z: torch.Tensor, momentum: torch.Tensor) -> torch.Tensor:
    def leap(both: torch.Tensor) -> torch.Tensor:
        return torch.cat(q.leap(both[None, None, :D], both[None, None, D:]), -1)[0, 0]

    return torch.linalg.det(torch.autograd.functional.jacobian(leap, torch.cat([z, momentum])))


@each_tempering
def test_volumes_change_by_the_cooling_alone(tempering):
    q, (z, momentum) = dynamics(tempering), state()
    for i in range(4):
        found = volume(q, z[i, 0], momentum[i, 0])
        torch.testing.assert_close(found, q.roots[0] ** D, rtol=1e-8, atol=0)


def test_rounds_of_the_fixed_point_suffice_for_the_largest_steps():
    """As metrics can be in a model: the error in nats of a draw's density, where it is worst."""
    g = torch.Generator().manual_seed(2)
    factors = torch.eye(D) + 0.5 * torch.randn(50, D, D, generator=g).tril()
    factors = factors / (1 + factors.square().sum(-1, keepdim=True)).sqrt() / 50**0.5
    G = Metric(torch.randn(50, D, generator=g).double(), factors.double(), 1.5, 0.01)
    z, gauss = state()
    for step, most in ((0.2, 1e-5), (LARGEST, 3e-3)):
        q = dynamics("fixed", steps=3, step=step / 1.3, G=G)
        momentum = q._momentum(z, gauss) / q.roots[0]
        errors = [volume(q, z[i, 0], momentum[i, 0]) / q.roots[0] ** D - 1 for i in range(4)]
        assert max(map(abs, errors)) < most


def test_energy_is_kept_to_second_order():
    errors = []
    for steps in (8, 16, 32):
        q, (z, momentum) = dynamics(steps=steps, step=1.0 / steps), state()
        states = ((z, momentum), q.leap(z, momentum))
        energies = [bent(a) - kinetic(a, b, q.metric) for a, b in states]
        errors.append((energies[1] - energies[0]).detach().abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@each_tempering
def test_the_density_of_a_draw_is_that_of_the_change_of_variables(tempering):
    q = dynamics(tempering)
    drawn, noise = q.draw(1, Noise(0)), Noise(0)
    z = q.start.draw(1, noise).z
    gauss = noise.normal(z.shape, z)
    mean, std = q.start.mean[:1], q.start.std()[:1]
    one = RiemannianHamiltonian(DiagonalNormal(mean, q.start.log_var[:1]), bent, q.step, q.roots, q.metric)

    def whole(white: torch.Tensor) -> torch.Tensor:
        """From standard normal noise to where a draw and its momentum end."""
        first = (mean + std * white[:D])[None]
        return torch.cat(one.leap(first, one._momentum(first, white[None, None, D:]) / q.roots[0]), -1)[0, 0]

    white = torch.cat([(z[0, 0] - mean[0]) / std[0], gauss[0, 0]])
    there, moving = whole(white).split(D)
    torch.testing.assert_close(drawn.z[0, 0], there)
    J = torch.autograd.functional.jacobian(whole, white)
    joint = StandardNormal(2 * D).log_prob(white) - torch.linalg.slogdet(J)[1]
    last = torch.distributions.MultivariateNormal(
        torch.zeros(D).double(), precision_matrix=precise(there, q.metric)
    )
    torch.testing.assert_close(drawn.log_prob[0, 0], joint - last.log_prob(moving))


@each_tempering
def test_weights_have_the_mean_that_they_should(tempering):
    """The mean of exp(log density - log q) is the integral of the density, whatever the metric."""
    q = dynamics(tempering, steps=3)
    drawn = q.draw(10_000, Noise(0))
    grid = torch.linspace(-5, 5, 61, dtype=torch.float64)
    total = bent(torch.cartesian_prod(grid, grid, grid)).exp().sum() * (10 / 60) ** 3
    weights = (bent(drawn.z) - drawn.log_prob).exp() / total
    error = weights.std(0) / math.sqrt(len(weights))
    # Five rows: a false alarm in 3,000.
    assert ((weights.mean(0) - 1).abs() < 4 * error).all()
    assert (error < 0.03).all()


def test_gradients_pass_through_the_leaps():
    """By everything that a draw's weight depends on, the metric included."""
    G = metric()
    factors = 0.3 * torch.randn(7, D, D, generator=torch.Generator().manual_seed(5)).double().tril()

    def weight(
        centroids: torch.Tensor, factors: torch.Tensor, mean: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        roots = TEMPERINGS["fixed"](torch.tensor(0.6).double(), torch.linspace(0, 1, 3).double())
        start = DiagonalNormal(mean, torch.zeros_like(mean))
        drawn = RiemannianHamiltonian(start, bent, step, roots, Metric(centroids, factors, 1.2, 0.2)).draw(
            1, Noise(0)
        )
        return bent(drawn.z) - drawn.log_prob

    inputs = (G.centroids[:3].clone(), factors[:3], torch.ones(2, D).double(), torch.full((D,), 0.2).double())
    assert torch.autograd.gradcheck(weight, [t.requires_grad_() for t in inputs])


# --------------------------------------------------------------------- the model


def linear_plan(**parameters: object) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model whose posterior is far from diagonal, some items, and their log densities."""
    torch.manual_seed(0)
    space = Space((4,), "normal")
    given = {"latent_dim": 2, "network": "linear", "noise": 1.0, "centroids": 20}
    model = build("rhvae", space, **given, **parameters).model.eval()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    damp(model.posterior.network, 0.2)  # a wide posterior, whose weights vary little
    model.begin(Batch(torch.randn(40, 4, generator=torch.Generator().manual_seed(2))))
    layer = model.likelihood.network.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 0.5], [-1.0, -1.0], [0.5, 1.0]]))
        cov = layer.weight @ layer.weight.T + torch.eye(4)
        exact = FullNormal(layer.bias, torch.linalg.cholesky(cov)).log_prob(x).double()
    return model, x, exact


@each_tempering
def test_weights_give_the_density_of_a_linear_model_and_the_bound_is_below(tempering):
    model, x, exact = linear_plan(leapfrogs=3, step=0.2, tempering=tempering)
    value, error = log_likelihood(model, Batch(x), k=4000, noise=Noise(1), block=4000)
    assert ((value - exact).abs() < 4.5 * error + 1e-4).all()
    assert (error < 0.2).all()
    with torch.no_grad():
        bound = model.trace(Batch(x), k=2000, noise=Noise(0)).log_joint_ratio.double()
    assert (bound.mean(0) < exact + 4 * bound.std(0) / math.sqrt(len(bound))).all()


def test_with_tempering_and_training_the_bound_is_tighter():
    """Posteriors are trained, the model is not: the best diagonal normal falls short, and leaps fall less."""
    model, x, exact = linear_plan(leapfrogs=3, step=0.3, tempering="fixed", temperature=4.0)
    optimizer = torch.optim.Adam(model.posterior.parameters(), lr=0.1)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, 100)
    for step in range(100):
        optimizer.zero_grad()
        (-model.trace(Batch(x), k=16, noise=Noise(step)).log_joint_ratio.mean()).backward()
        optimizer.step()
        slower.step()
    with torch.no_grad():
        bound = model.trace(Batch(x), k=4000, noise=Noise(0)).log_joint_ratio.double()
    assert (bound.mean(0) < exact + 4 * bound.std(0) / math.sqrt(len(bound))).all()
    W = model.likelihood.network.layers[0].weight.detach()
    precision = torch.eye(2) + W.T @ W
    best = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())  # of diagonal normals
    assert float((exact - bound.mean(0)).mean()) < best - 0.02  # nats; Monte Carlo errors are about 0.005


def test_it_works_without_gradients_and_leaves_no_graph():
    model, x, _ = linear_plan(leapfrogs=3)
    q = model.q(x)
    with_graph = q.draw(2, Noise(0))
    assert with_graph.z.requires_grad
    assert with_graph.z.dtype == with_graph.log_prob.dtype == torch.float32
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            drawn = model.q(x.clone()).draw(2, Noise(0))
            torch.testing.assert_close(drawn.z, with_graph.z)
            torch.testing.assert_close(drawn.log_prob, with_graph.log_prob)
            torch.testing.assert_close(model.q(x.clone()).point(), q.point())
            assert not drawn.z.requires_grad
            assert not drawn.log_prob.requires_grad
            assert bool(model.trace(Batch(x.clone()), k=2, noise=Noise(0)).log_joint_ratio.isfinite().all())


def test_half_precision_leaves_the_metric_as_it_is():
    model, x, _ = linear_plan()
    G = model.posterior.metric()
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(3))
    expected = G.inverse(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(G.inverse(z), expected)
        # The networks are what half precision changes, by their digits.
        torch.testing.assert_close(model.posterior.metric().inverse(z), expected, rtol=0.05, atol=0.01)
        assert model.trace(Batch(x), k=2, noise=Noise(0)).log_joint_ratio.dtype == torch.float32


@pytest.mark.parametrize("n", [3, 200])
def test_centroids_are_codes_of_training_rows(n):
    torch.manual_seed(0)
    q = RiemannianPosterior(MLP((4,), (12,), (8,)), 3, shape=(4,), centroids=20)
    x = torch.randn(n, 4)
    q.begin(x, None)
    assert all(any(torch.equal(row, item) for item in x) for row in q.rows)
    assert len(q.rows.unique(dim=0)) == min(n, 20)  # some repeat where there are too few
    G = q.metric()
    torch.testing.assert_close(G.centroids, q(q.rows).mean)
    # However the encoder is, the pace is bounded: pieces add up to less than one in each dimension.
    nn.init.normal_(q.network.layers[-1].weight, std=50.0)
    inverse = q.metric().inverse(q.metric().centroids)
    assert (inverse.diagonal(dim1=1, dim2=2) < 1 + q.regularization).all()
    with pytest.raises(PlanError, match="use recipe 'hvae'"):
        q.begin(x, torch.zeros(n, 2))


def test_training_moves_the_metric_and_lowers_the_loss(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6)) + 0.2 * rng.normal(size=(200, 6))
    training = {"hidden": (16,), "max_epochs": 10, "learning_rate": 1e-2, "batch_size": 50, "random_state": 0}
    m = ct.Autoencoder(recipe="rhvae", latent_dim=2, **training).fit(X)
    assert m.history_[-1]["loss"] < m.history_[0]["loss"] - 0.5
    assert np.isfinite(m.log_likelihood(X[:5], n_importance=50, random_state=0)[0]).all()
    with pytest.raises(PlanError, match="use method='importance'"):
        m.log_likelihood(X[:5], method="ais")
    rows = m.model_.posterior.rows
    assert rows.shape == (100, 6)
    inputs = m.space_.to_model(torch.from_numpy(X))
    assert all((inputs - row).abs().amax(1).min() < 1e-6 for row in rows)
    again = ct.load(m.save(tmp_path / "run"))
    assert torch.equal(again.model_.posterior.rows, rows)


def test_batch_statistics_see_each_step_once():
    X = np.random.default_rng(0).normal(size=(40, 4))
    encoder = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.1), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.1), nn.Linear(6, 4))
    training = {"max_epochs": 2, "batch_size": 16, "random_state": 0}
    m = ct.Autoencoder(recipe="rhvae", network=(encoder, decoder), latent_dim=2, **training).fit(X)
    for network in (m.model_.posterior.network, m.model_.likelihood.network):
        assert network.module[1].num_batches_tracked == m.n_iter_ * 3


def test_tables_and_missing_values():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["x", "y", "z"], 60)})
    table.loc[::7, "a"] = np.nan
    m = ct.Autoencoder(recipe="rhvae", latent_dim=2, hidden=(8,), max_epochs=2, random_state=0).fit(table)
    assert np.isfinite(m.score_samples(table)).all()
    assert m.reconstruct(table, random_state=0)["a"].notna().all()


def test_an_audit_of_digits():
    X = load_digits().images[:150]
    m = ct.Autoencoder(recipe="rhvae", latent_dim=2, hidden=(32,), max_epochs=3, random_state=0).fit(X)
    assert ct.audit(m, X).findings


def test_what_makes_no_sense_is_refused():
    for bad, said in (
        ({"leapfrogs": -1}, "leapfrogs=-1: use 0 or more"),
        ({"temperature": 0.0}, r"temperature=0\.0: use a number above 0"),
        ({"regularization": -1.0}, r"regularization=-1\.0: use a number above 0"),
        ({"centroids": 0}, "centroids=0: use 1 or more"),
    ):
        with pytest.raises(PlanError, match=said):
            build("rhvae", (4,), **bad)
