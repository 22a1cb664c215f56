"""Terms that part the dimensions of a code, or hold what is in them at an amount."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import chartae as ct
from chartae.core.contracts import Batch, Distribution, Draw, Level, Objective, Plan, Trace
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.recipes import assemble, build
from chartae.parts.distributions import DiagonalNormal, FullNormal, StandardNormal
from chartae.parts.objectives import DIP, GECO, KL, Capacity, NegLogLik, TotalCorrelation
from chartae.training.engine import train
from chartae.training.kernels import Gradients, total
from chartae.training.sources import Source

TRAINING = {"hidden": (16,), "patience": None, "batch_size": 50, "learning_rate": 5e-3, "random_state": 0}


def plan(objective: Objective | None = None, **parameters: object) -> Plan:
    torch.manual_seed(0)
    given = {"latent_dim": 3, "hidden": (8,), **parameters}
    return assemble((5,), objective=objective or NegLogLik(), **given)


def trace(p: Plan, n: int = 12, k: int = 1, seed: int = 0) -> Trace:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return p.model.trace(Batch(x), k=k, noise=Noise(seed))


def coded(q: Distribution, z: Tensor) -> Trace:
    """A trace of which only codes are looked at."""
    batch = Batch(torch.zeros(z.shape[1], 1))
    return Trace(batch, (Level(q, StandardNormal(z.shape[2]), Draw(z)),), None, None, None)  # type: ignore[arg-type]


def tc(q: Distribution, z: Tensor) -> Tensor:
    return TotalCorrelation()(coded(q, z))["tc"].rows


# ------------------------------------------------------------------- total correlation


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_total_correlation_of_a_normal(correlation):
    """Means N(0, C) and posteriors of variance s²: codes are N(0, C + s² I), of known total correlation."""
    generator = torch.Generator().manual_seed(0)
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    n, s = 4000, 0.5
    mean = torch.randn(n, 2, generator=generator) @ torch.linalg.cholesky(covariance).T
    q = DiagonalNormal(mean, torch.full((n, 2), 2 * math.log(s)))
    whole = covariance + s**2 * torch.eye(2)
    exact = -0.5 * math.log(float(torch.linalg.det(whole)) / float(whole.diagonal().prod()))
    assert float(tc(q, q.draw(1, Noise(1)).z)) == pytest.approx(exact, abs=0.08)


def test_the_total_correlation_of_the_batch_s_own_mixture():
    """It is an unbiased estimate of the mixture of the batch's posteriors: here, against a fine grid."""
    mean = torch.tensor([[-1.0, -1.0], [0.5, 1.0], [1.0, 0.0], [-0.5, 0.5]], dtype=torch.float64)
    q = DiagonalNormal(mean, torch.full((4, 2), 2 * math.log(0.6), dtype=torch.float64))
    axis = torch.linspace(-6, 6, 400, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    each = q.log_prob(grid.unsqueeze(1), per_dim=True).exp()  # (grid, 4, 2)
    joint, apart = each.prod(2).mean(1), each.mean(1).prod(1)
    exact = float((joint * (joint / apart).log()).sum()) * float(axis[1] - axis[0]) ** 2
    z = q.draw(20_000, Noise(0)).z
    values = torch.stack([tc(q, some) for some in z.split(200)])
    error = float(values.std()) / math.sqrt(len(values))
    assert float(values.mean()) == pytest.approx(exact, abs=5 * error)  # a false alarm in 10^6 runs
    assert error < 0.02 * exact


def test_it_is_the_sum_over_pairs_that_is_published():
    """Minibatch-weighted sampling by loops, up to its constant (d - 1) log N."""
    p = plan()
    t = trace(p, n=7, k=2)
    q, z = t.levels[0].q, t.levels[0].z
    normal = torch.distributions.Normal(q.mean, q.std())
    d, rows = 3, torch.zeros(2, 7)
    for s in range(2):
        for i in range(7):
            each = normal.log_prob(z[s, i])  # (7, d)
            joint = each.sum(1).logsumexp(0) - math.log(7)
            rows[s, i] = joint - sum(each[:, j].logsumexp(0) - math.log(7) for j in range(d))
    found, parameters = TotalCorrelation()(t)["tc"].rows, list(p.model.posterior.parameters())
    torch.testing.assert_close(found, rows.mean())
    for got, want in zip(
        *(torch.autograd.grad(v, parameters, retain_graph=True) for v in (found, rows.mean())), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_posteriors_may_be_as_narrow_and_as_wide_as_they_like():
    """Densities of a batch lie up to e^20 apart in each dimension, and their sums are those in float64."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(30, 4, generator=generator)
    log_var = torch.empty(30, 4).uniform_(-20, 20, generator=generator)
    q = DiagonalNormal(mean.requires_grad_(), log_var.requires_grad_())
    found = tc(q, q.draw(3, Noise(0)).z)
    exact = DiagonalNormal(mean.detach().double(), log_var.detach().double())
    z = q.draw(3, Noise(0)).z.detach().double()
    pairs = exact.log_prob(z.unsqueeze(2), per_dim=True)
    expected = (pairs.sum(-1).logsumexp(2) - pairs.logsumexp(2).sum(-1)).mean() + 3 * math.log(30)
    assert found.item() == pytest.approx(float(expected), rel=1e-5)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(found, [mean, log_var]))


def test_a_full_covariance_has_its_own_correlations():
    """One row alone: the total correlation of its posterior, which is in its covariance."""
    tril = torch.tensor([[[1.0, 0.0], [0.9, 0.5]]])
    q = FullNormal(torch.zeros(1, 2), tril)
    z = q.draw(50_000, Noise(0)).z
    covariance = (tril @ tril.mT)[0]
    exact = -0.5 * math.log(float(torch.linalg.det(covariance) / covariance.diagonal().prod()))
    assert float(tc(q, z)) == pytest.approx(exact, abs=0.03)  # a standard error of .005
    assert float(tc(q.marginals(), q.marginals().draw(5, Noise(0)).z)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("n", [1, 2])
def test_batches_of_a_row_are_finite(covariance, n):
    torch.manual_seed(0)
    for name in ("beta-tc-vae", "dip-vae", "disentangled-beta-vae", "geco-vae"):
        p = build(name, (5,), latent_dim=3, hidden=(8,), covariance=covariance)
        p.model.train()
        for _ in range(2):
            loss, _ = Gradients(p)(Batch(torch.randn(n, 5)), Noise(0))
            assert math.isfinite(loss)
        assert all(torch.isfinite(parameter.grad).all() for parameter in p.model.parameters())


def test_large_batches_are_taken_in_pieces(monkeypatch):
    p = plan()
    t = trace(p, n=50, k=3)
    whole = TotalCorrelation()(t)["tc"].rows
    monkeypatch.setattr("chartae.parts.objectives.disentangling.PAIRS", 3 * 50 * 3 * 7)
    torch.testing.assert_close(TotalCorrelation()(t)["tc"].rows, whole)


def test_the_weight_leaves_one_of_mutual_information():
    """nll + kl + (β - 1) tc, where kl holds the total correlation once."""
    p = build("beta-tc-vae", (5,), latent_dim=3, hidden=(8,), beta=4.0)
    assert repr(p.objective) == "nll + kl + 3 * tc"
    t = trace(p)
    expected = total((NegLogLik() + KL())(t)) + 3.0 * TotalCorrelation()(t)["tc"].rows
    torch.testing.assert_close(total(p.objective(t)), expected)
    terms = build("beta-tc-vae", (5,), beta=1.0).objective(t)
    torch.testing.assert_close(total(terms), total((NegLogLik() + KL())(t)))


def test_its_gradient_parts_the_dimensions():
    """Posteriors on a line, which are moved by nothing else: their codes end up nearly independent."""
    line = torch.randn(150, 1, generator=torch.Generator().manual_seed(0))
    mean = line.repeat(1, 2).requires_grad_()
    optimizer = torch.optim.Adam([mean], lr=0.05)
    found = []
    for step in range(60):
        q = DiagonalNormal(mean, torch.full((150, 2), -2.0))
        value = tc(q, q.draw(1, Noise(step)).z)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found.append(float(value.detach()))
    assert found[0] > 0.7
    assert found[-1] < 0.15


# ------------------------------------------------------------------- marginals and covariances


def test_what_normals_know_of_their_dimensions():
    tril = torch.tensor([[[1.0, 0.0], [0.9, 0.5]], [[0.3, 0.0], [-0.2, 2.0]]])
    q = FullNormal(torch.ones(2, 2), tril)
    torch.testing.assert_close(q.covariance(), tril @ tril.mT)
    alone = q.marginals()
    torch.testing.assert_close(alone.std(), q.std())
    torch.testing.assert_close(alone.mean, q.mean)
    torch.testing.assert_close(alone.covariance(), torch.diag_embed(q.std().square()))
    assert alone.marginals() is alone
    with pytest.raises(NotImplementedError, match="StandardNormal does not know its marginals"):
        StandardNormal(2).marginals()
    with pytest.raises(NotImplementedError, match="StandardNormal does not know its covariance"):
        StandardNormal(2).covariance()


# ------------------------------------------------------------------- capacity


def test_the_capacity_rises_linearly_and_stays():
    objective = 3.0 * Capacity(10.0, warmup=4.0)
    with torch.no_grad():
        t = trace(plan())
    kl = float(KL()(t)["kl"].rows.mean())
    for epoch, now in ((0, 0.0), (1, 2.5), (4, 10.0), (9, 10.0)):
        objective.advance(epoch)
        assert float(total(objective(t))) == pytest.approx(3 * abs(kl - now), rel=1e-5)
    torch.testing.assert_close(objective(t)["kl"].rows, KL()(t)["kl"].rows)  # the log shows what the KL is
    assert objective.warmup == 4
    # What has been reached is state.
    objective.advance(1)
    again = 3.0 * Capacity(10.0, warmup=4.0)
    again.load_state_dict(objective.state_dict())
    assert float(total(again(t))) == pytest.approx(3 * abs(kl - 2.5), rel=1e-5)


def test_the_kl_ends_at_its_capacity():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 8))
    m = ct.Autoencoder(
        recipe="disentangled-beta-vae",
        recipe_params={"capacity": 4.0, "warmup": 10.0},
        **TRAINING, latent_dim=3, max_epochs=40,
    ).fit(X)  # fmt: skip
    reached = [epoch["kl"] for epoch in m.history_]
    assert reached[0] < 1.0
    # It moves around it with the noise of steps, which the weight of 1000 makes large.
    assert np.mean(reached[-20:]) == pytest.approx(4.0, abs=0.2)
    assert m.best_epoch_ >= 10


# ------------------------------------------------------------------- GECO


def geco_step(objective: GECO, p: Plan, x: Tensor) -> dict:
    p.model.train()
    return objective(p.model.trace(Batch(x), k=1, noise=Noise(0)))


def test_the_constraint_is_zero_at_its_error():
    """Half the squared error over κ², less half the number of values: nats of a normal of that noise."""
    p = plan(noise=0.3)
    with torch.no_grad():
        t = trace(p)
    x, point = t.batch.x, t.px.point()[0]
    rows = GECO(0.3)(t)["constraint"].rows
    torch.testing.assert_close(rows, 0.5 * (x - point).square().sum(1) / 0.09 - 2.5)
    # A multiplier of one is the VAE with that noise, up to a constant.
    nll = NegLogLik()(t)["nll"].rows
    torch.testing.assert_close(rows - rows[0], nll - nll[0], rtol=1e-4, atol=1e-4)
    error = float((x - point).square().mean().sqrt())
    assert float(GECO(error)(t)["constraint"].rows.mean()) == pytest.approx(0, abs=1e-5)


def test_missing_values_are_left_out_of_the_constraint():
    space = Space((5,), gaps=True)
    torch.manual_seed(0)
    p = build("geco-vae", space, latent_dim=2, hidden=(8,), tolerance=0.5, noise=1.0)
    x = torch.randn(6, 5)
    x[torch.rand(6, 5) < 0.3] = torch.nan
    p.model.eval()
    t = p.model.trace(Batch(x), k=1, noise=Noise(0))
    here = ~x.isnan()
    squares = (x.nan_to_num() - t.px.point()[0]).square() / 0.25 - 1
    torch.testing.assert_close(p.objective(t)["constraint"].rows, 0.5 * (squares * here).sum(1))


def test_the_multiplier_follows_the_moving_average():
    p = plan()
    objective = GECO(0.1, rate=0.05)
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    moving, multiplier = None, 1.0
    for step in range(4):
        now = x * 0.03 * 4**step
        terms = geco_step(objective, p, now)
        assert float(terms["constraint"].weight) == pytest.approx(multiplier, rel=1e-5)
        excess = 2 * float(terms["constraint"].rows.detach().mean()) / 5
        excess = min(1.0, excess)
        moving = excess if moving is None else 0.9 * moving + 0.1 * excess
        multiplier *= math.exp(0.05 * moving)
    assert float(objective.multiplier) == pytest.approx(multiplier, rel=1e-4)
    # In evaluation, and without gradients, it stays where it is.
    p.model.eval()
    objective(trace(p))
    p.model.train()
    with torch.no_grad():
        objective(trace(p))
    assert float(objective.multiplier) == pytest.approx(multiplier, rel=1e-4)
    # And it is state.
    again = GECO(0.1)
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.multiplier, objective.multiplier)


def test_a_faulty_batch_leaves_no_trace():
    p = plan()
    objective = GECO(0.1)
    geco_step(objective, p, torch.zeros(4, 5))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    geco_step(objective, p, torch.full((4, 5), torch.inf))
    assert torch.equal(objective.error, before["error"])
    assert math.isfinite(objective.multiplier)


def test_epochs_are_compared_by_what_does_not_move():
    p = plan()
    p.model.eval()
    with torch.no_grad():
        objective, t = GECO(0.1) + KL(), trace(p)
    terms = objective(t)
    violation, kl = float(terms["constraint"].rows.mean()), float(terms["kl"].rows.mean())
    assert float(total(terms, judged=True)) == pytest.approx(10 * violation + kl, rel=1e-5)
    objective.parts[0].multiplier.fill_(77.0)
    assert float(total(objective(t), judged=True)) == pytest.approx(10 * violation + kl, rel=1e-5)
    assert float(total(objective(t))) == pytest.approx(77 * violation + kl, rel=1e-5)
    # Within the tolerance the KL alone counts.
    slack = (GECO(100.0) + KL())(t)
    assert float(total(slack, judged=True)) == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize("tolerance", [0.3, 0.6])
def test_the_error_ends_at_its_tolerance(tolerance):
    """A plane with noise of 0.2 standard deviations, which is the least that an error can be.

    Of 60 rows that epochs are compared by, the mean squared error is known to a tenth.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 10))
    X = X / X.std() + 0.2 * rng.normal(size=X.shape)
    m = ct.Autoencoder(
        recipe="geco-vae",
        recipe_params={"tolerance": tolerance, "rate": 0.05},
        **TRAINING, latent_dim=2, max_epochs=40,
    ).fit(X)  # fmt: skip
    draws = m.sample_posterior(X, 20, random_state=0)
    errors = [m.inverse_transform(z) - X for z in draws]
    reached = float(np.sqrt(np.mean(np.square(errors)))) / float(m.space_.scale)
    assert reached == pytest.approx(tolerance, rel=0.06)


# ------------------------------------------------------------------- DIP


@pytest.mark.parametrize("posterior", ["normal", "full-normal"])
def test_the_covariance_of_the_codes_is_what_is_penalized(posterior):
    p = plan(posterior=posterior)
    t = trace(p, n=400)
    q = t.levels[0].q
    means = np.cov(q.point().detach().numpy().T, bias=True)
    z = q.draw(4000, Noise(1)).z.detach().flatten(0, 1).numpy()
    for kind, covariance, tolerance in (("i", means, 1e-4), ("ii", np.cov(z.T, bias=True), 0.01)):
        off = covariance - np.diag(np.diag(covariance))
        expected = 3.0 * (off**2).sum() + 7.0 * ((np.diag(covariance) - 1) ** 2).sum()
        found = float(DIP(3.0, 7.0, kind=kind)(t)["dip"].rows.detach())
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_codes_of_the_prior_are_not_penalized():
    n, s = 20_000, 0.6
    mean = math.sqrt(1 - s**2) * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    q = DiagonalNormal(mean, torch.full((n, 3), 2 * math.log(s)))
    z = q.draw(1, Noise(0)).z
    assert float(DIP(10.0, 10.0, kind="ii")(coded(q, z))["dip"].rows) < 0.01
    # The means alone vary less.
    expected = 10 * 3 * (s**2) ** 2
    assert float(DIP(10.0, 10.0, kind="i")(coded(q, z))["dip"].rows) == pytest.approx(expected, rel=0.05)


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: build("beta-tc-vae", (5,), beta=0.5), "use 1 or more"),
        (lambda: build("disentangled-beta-vae", (5,), capacity=-1.0), "-1 nats is negative"),
        (lambda: build("disentangled-beta-vae", (5,), gamma=-1.0), "use 0 or more"),
        (lambda: build("geco-vae", (5,), tolerance=0.0), "above 0"),
        (lambda: build("geco-vae", (5,), rate=-1.0), "above 0"),
        (lambda: build("geco-vae", (5,), noise="item"), "with noise='global', 'feature' or a number"),
        (lambda: build("geco-vae", Space((5,), "categorical", 3)), "use likelihood='bernoulli'"),
        (lambda: build("geco-vae", Space((5,), "student-t")), "use likelihood='bernoulli'"),
        (lambda: build("dip-vae", (5,), kind="iii"), "did you mean 'ii'"),
        (lambda: build("dip-vae", (5,), off=-1.0), "not negative"),
        (lambda: plan(TotalCorrelation(), posterior="delta"), "use posterior='normal'"),
        (lambda: plan(DIP(), posterior="delta"), "use posterior='normal'"),
    ],
)
def test_what_makes_no_sense_is_refused(bad, message):
    with pytest.raises(PlanError, match=message) as caught:
        bad()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["disentangled-beta-vae", "geco-vae"])
def test_training_goes_on_as_if_it_had_never_stopped(name):
    X = np.random.default_rng(0).normal(size=(64, 5))
    space = Space((5,))

    def plan_() -> Plan:
        torch.manual_seed(0)
        return build(name, space, latent_dim=2, hidden=(8,))

    whole = [dict(e.log) for e in train(plan_(), Source(X, space), epochs=4, batch_size=16)]
    for epoch in train(plan_(), Source(X, space), epochs=4, batch_size=16):
        if epoch.number == 2:
            state = epoch.checkpoint()
            break
    rest = [dict(e.log) for e in train(plan_(), Source(X, space), epochs=4, batch_size=16, state=state)]
    for one, other in zip(whole[2:], rest, strict=True):
        assert {k: v for k, v in one.items() if "second" not in k} == {
            k: v for k, v in other.items() if "second" not in k
        }
