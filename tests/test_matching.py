"""Distances of codes from the prior, and critics: closed forms, Monte Carlo and planted defects."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.models.recipes import build
from chartae.parts.distributions import DiagonalNormal, StandardNormal
from chartae.parts.objectives import (
    MMD,
    Adversary,
    CramerWold,
    EppsPulley,
    NegLogLik,
    SlicedWasserstein,
    TotalCorrelationCritic,
)

DISTANCES = {
    "mmd": MMD,
    "mmd closed": lambda: MMD(closed=True),
    "mmd rbf": lambda: MMD("rbf"),
    "mmd rbf closed": lambda: MMD("rbf", closed=True),
    "sliced wasserstein": SlicedWasserstein,
    "cramer-wold": CramerWold,
    "epps-pulley": EppsPulley,
}
#: Those whose expectation over codes of the prior is zero, whatever the size of the batch.
UNBIASED = [name for name in DISTANCES if name.startswith("mmd") or name == "epps-pulley"]
each_distance = pytest.mark.parametrize("name", DISTANCES)


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def measured(name: str, z: Tensor, seed: int = 0) -> Tensor:
    return DISTANCES[name]().distance(z, StandardNormal(z.shape[1]), Noise(seed))


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize("d", [1, 2, 16, 64])
def test_the_closed_form_is_the_expectation_of_the_sampled_one(kernel, d):
    z = 1.3 * normal(40, d) + 0.4
    closed = MMD(kernel, closed=True).distance(z.double(), StandardNormal(d), Noise(0)).item()
    drawn = torch.stack([MMD(kernel).distance(z, StandardNormal(d), Noise(s)) for s in range(400)])
    # Five standard errors: a false alarm in one of 1.7 million.
    assert abs(drawn.mean().item() - closed) < 5 * drawn.std().item() / 20


@pytest.mark.parametrize("d", [1, 2, 5, 40])
def test_the_inverse_multiquadric_is_its_mixture_of_normal_kernels(d):
    """E k(z, y), by quadrature over the distribution of |z - y|², which is noncentral chi squared."""
    z = torch.full((1, d), 0.7, dtype=torch.float64)
    for scale in (0.1, 1.0, 10.0):
        c = 2 * d * scale
        inside = scipy.stats.ncx2(d, 0.49 * d).expect(lambda r2, c=c: c / (c + r2))
        assert MMD(scales=(scale,), closed=True)._with_normal(z, [c]).item() == pytest.approx(
            inside, rel=2e-5
        )
        among = scipy.stats.chi2(d).expect(lambda r2, c=c: c / (c + 2 * r2))
        assert MMD(closed=True)._of_normal(d, [c]).item() == pytest.approx(among, rel=2e-5)


@pytest.mark.parametrize("far", [10.0, 100.0, 1000.0, 3e4])
@pytest.mark.parametrize("d", [1, 16])
def test_the_inverse_multiquadric_reaches_far_codes(d, far):
    """There E k(z, y) is 1 / (1 + |z|² / c), but for terms of d / |z|²."""
    z = torch.zeros(1, d, dtype=torch.float64)
    z[0, 0] = far
    c = 2.0 * d
    inside = scipy.stats.norm(far, 1).expect(lambda x: c / (c + x**2 + d - 1))
    found = MMD(scales=(1.0,), closed=True)._with_normal(z, [c]).item()
    assert found == pytest.approx(inside, rel=1e-6 if d == 1 else 30 * d / (far**2 + c))


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("n", [2, 7, 50])
def test_codes_of_the_prior_have_no_distance_on_average(name, n):
    values = torch.stack([measured(name, normal(n, 3, seed), seed + 1) for seed in range(600)])
    # 4.5 standard errors: a false alarm in one of 150,000.
    assert abs(values.mean().item()) < 4.5 * values.std().item() / math.sqrt(600)


@pytest.mark.parametrize("k", [1, 3])
def test_codes_of_their_own_priors_have_no_distance_on_average(k):
    """Means of rows differ, and so do not say that a code is near its own prior's draws."""
    values = []
    for seed in range(600):
        p = DiagonalNormal(3 * normal(8, 3, seed), torch.full((8, 3), -2.0))
        z = p.draw(k, Noise(seed + 1000)).z.flatten(0, 1)
        values.append(MMD("rbf").distance(z, p, Noise(seed + 2000)))
    found = torch.stack(values)
    assert abs(found.mean().item()) < 4.5 * found.std().item() / math.sqrt(600)


@each_distance
def test_codes_that_differ_are_told(name):
    """Shifted, wide, collapsed, ring-shaped and two-valued codes are farther than those of the prior."""
    z = normal(500, 2)
    ring = math.sqrt(2) * torch.nn.functional.normalize(z)
    planted = {
        "shifted": z + 1.0,
        "wide": 2.0 * z,
        "collapsed": 0.05 * z,
        "ring": ring,
        "signs": z.sign(),
        "line": z[:, :1].expand(-1, 2),
    }
    healthy = max(measured(name, normal(500, 2, seed), seed).item() for seed in range(1, 20))
    for what, codes in planted.items():
        assert measured(name, codes).item() > healthy, what


@each_distance
@pytest.mark.parametrize("d", [1, 3, 25])
def test_codes_that_follow_their_gradient_come_to_the_prior(name, d):
    """Codes of a normal, whose mean and scale are moved."""
    mean, scale = torch.full((d,), 1.0, requires_grad=True), torch.full((d,), 0.3, requires_grad=True)
    optimizer = torch.optim.Adam([mean, scale], lr=0.03)
    for seed in range(200):
        optimizer.zero_grad()
        measured(name, scale * normal(128, d, seed) + mean, seed).backward()
        optimizer.step()
    assert mean.abs().mean().item() < 0.15
    assert scale.abs().mean().item() == pytest.approx(1.0, abs=0.15)


@each_distance
def test_order_and_rotation_change_nothing(name):
    z = normal(60, 3) + 1.0
    turned = torch.linalg.qr(normal(3, 3, 1))[0]
    values = [
        torch.stack([measured(name, codes, seed) for seed in range(300)]).mean() for codes in (z, z @ turned)
    ]
    assert values[0].item() == pytest.approx(values[1].item(), rel=0.05)
    torch.testing.assert_close(measured(name, z), measured(name, z.flip(0)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_single_code_has_no_distribution(name):
    plan = build("wae-mmd", (4,), latent_dim=2, hidden=(8,))
    trace = plan.model.trace(Batch(torch.randn(1, 4)), k=1, noise=Noise(0))
    (term,) = DISTANCES[name]()(trace).values()
    assert term.value().item() == 0.0


def test_sliced_wasserstein_of_normals():
    """Between N(m, s² I) and N(0, I), a slice is m_a² + (s - 1)²; one of one dimension has no noise."""
    z = 2.0 * normal(50_000, 1) + 3.0
    assert SlicedWasserstein(1).distance(z, StandardNormal(1), Noise(0)).item() == pytest.approx(10, rel=0.02)
    z = 2.0 * normal(5_000, 4) + torch.tensor([1.0, 0.0, 0.0, 2.0])
    found = SlicedWasserstein(1000).distance(z, StandardNormal(4), Noise(0)).item()
    assert found == pytest.approx(5 / 4 + 1, rel=0.05)
    other = DiagonalNormal(torch.tensor([1.0, 0.0, 0.0, 2.0]), torch.full((4,), math.log(4.0)))
    assert SlicedWasserstein(200).distance(z, other, Noise(0)).item() < 0.01


@pytest.mark.parametrize("d", [1, 2, 3, 7, 19, 30])
def test_cramer_wold_is_the_distance_of_smoothed_slices(d):
    """By its definition: the L2 distance of smoothed densities of slices, averaged over directions."""
    z = (0.5 * normal(6, d) + 1.0).double()
    width = (4 / (3 * len(z))) ** 0.4
    # Products of normal densities integrate to normal densities; directions are drawn.
    a = torch.nn.functional.normalize(
        torch.randn(200_000, d, generator=torch.Generator().manual_seed(1)).double()
    )
    slices = a @ z.T

    def density(gap: Tensor, variance: float) -> Tensor:
        return (-0.5 * gap.square() / variance).exp() / math.sqrt(2 * math.pi * variance)

    among = density(slices[:, :, None] - slices[:, None], 2 * width).mean((1, 2))
    with_normal = density(slices, 1 + 2 * width).mean(1)
    of_normal = 1 / math.sqrt(2 * math.pi * (2 + 2 * width))
    values = among - 2 * with_normal + of_normal
    tolerance = 5 * values.std().item() / math.sqrt(len(values)) + 1e-7
    assert CramerWold().squared(z).item() == pytest.approx(values.mean().item(), abs=tolerance)


@pytest.mark.parametrize("d", [2, 3, 10, 19, 20, 50, 51, 300])
def test_the_function_of_cramer_wold(d):
    s = torch.tensor([0.0, 0.1, 1.0, 5.0, 15.0, 23.0, 25.0, 60.0, 100.0, 1e3, 1e5], dtype=torch.float64)
    expected = scipy.special.hyp1f1(0.5, 0.5 * d, -s.numpy())
    np.testing.assert_allclose(CramerWold._phi(s, d), expected, rtol=1e-8)
    assert torch.autograd.gradcheck(lambda s: CramerWold._phi(s, d), s[1:].requires_grad_(), atol=1e-8)


@pytest.mark.parametrize("d", [19, 20, 64])
def test_cramer_wold_of_codes_that_follow_the_prior_is_what_chance_leaves(d):
    """Its mean over batches: of 1/n from each code with itself, less what pairs and the prior share."""
    n, found = 128, []
    for seed in range(100):
        z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found.append(CramerWold().squared(z).item())
    width = (4 / (3 * n)) ** 0.4
    expected = (width**-0.5 - (1 + width) ** -0.5) / n / (2 * math.sqrt(math.pi))
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / 10


def test_epps_pulley_is_its_integral():
    """Of one slice, with n codes: the integral by scipy, with the square of the mean made unbiased."""
    z, n = (normal(9, 1) + 0.5).double(), 9
    values = z[:, 0].numpy()

    def integrand(t: float) -> float:
        mean = np.exp(1j * t * values).mean()
        size = (n * abs(mean) ** 2 - 1) / (n - 1)
        return (size - 2 * mean.real * math.exp(-t * t / 2) + math.exp(-t * t)) * math.exp(-t * t / 2)

    expected = scipy.integrate.quad(integrand, -8, 8)[0]
    fine = EppsPulley(slices=1, knots=200, reach=8.0).distance(z, StandardNormal(1), Noise(0)).item()
    assert fine == pytest.approx(expected, rel=1e-4)
    assert EppsPulley(1).distance(z, StandardNormal(1), Noise(0)).item() == pytest.approx(expected, rel=2e-3)


def test_a_code_whose_frequencies_are_out_of_reach_is_not_seen():
    """What the range costs: a fine lattice of normal weights looks like the normal itself."""
    places = torch.arange(-4, 4, 0.02)
    lattice = places[torch.multinomial((-0.5 * places.square()).exp(), 4000, True)].unsqueeze(1)
    assert abs(EppsPulley(1).distance(lattice, StandardNormal(1), Noise(0)).item()) < 2e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: MMD("imp"),
        lambda: MMD(scales=()),
        lambda: MMD(scales=(0.0,)),
        lambda: SlicedWasserstein(0),
        lambda: EppsPulley(0),
        lambda: EppsPulley(knots=1),
        lambda: EppsPulley(reach=0.0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make):
    with pytest.raises(PlanError):
        make()


@pytest.mark.parametrize("objective", [CramerWold(), EppsPulley(), MMD(closed=True)])
def test_closed_forms_need_a_standard_normal_prior(objective):
    from chartae.models.recipes import assemble

    with pytest.raises(
        PlanError, match=r"prior='conditional-normal', which is not N\(0, I\): use prior='standard-normal'"
    ):
        assemble(
            (4,),
            objective=NegLogLik() + objective,
            prior="conditional-normal",
            condition={"n_labels": 3},
            latent_dim=2,
        )
    with pytest.raises(PlanError, match="needs a prior"):
        assemble((4,), objective=NegLogLik() + objective, posterior="delta", prior=None, latent_dim=2)


# ------------------------------------------------------------------- critics


def trace_of(recipe: str, x: Tensor, **parameters):
    torch.manual_seed(0)
    plan = build(recipe, tuple(x.shape[1:]), latent_dim=2, hidden=(16,), **parameters)
    plan.model.train()
    return plan, plan.model.trace(Batch(x), k=1, noise=Noise(0))


@pytest.mark.parametrize("recipe", ["aae", "factor-vae", "vae-gan"])
def test_each_side_learns_from_its_own_terms_alone(recipe):
    """One backward pass gives the critic the gradient of its loss, and the model that of everything else."""
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    plan, trace = trace_of(recipe, x)
    terms = plan.objective(trace)
    critics, own = list(plan.objective.parameters()), list(plan.model.parameters())

    def gradient(loss: Tensor, of: list) -> list[Tensor]:
        found = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(of, found, strict=True)]

    whole = sum(term.value() for term in terms.values())
    alone = terms["critic"].value()
    for got, want in zip(gradient(whole, critics), gradient(alone, critics), strict=True):
        torch.testing.assert_close(got, want)
    assert all((g == 0).all() for g in gradient(alone, own))
    assert any((g != 0).any() for g in gradient(whole - alone, own))
    assert all((g == 0).all() for g in gradient(whole - alone, critics))


def test_the_adversary_of_a_gan_trains_the_decoder_alone():
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    plan, trace = trace_of("vae-gan", x)
    loss = plan.objective(trace)["adversary"].value()
    encoder = torch.autograd.grad(
        loss, list(plan.model.posterior.parameters()), allow_unused=True, retain_graph=True
    )
    assert all(g is None or (g == 0).all() for g in encoder)
    decoder = torch.autograd.grad(loss, list(plan.model.likelihood.parameters()))
    assert any((g != 0).any() for g in decoder)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_a_critic_learns_the_total_correlation(rho):
    """Of a normal with correlation ρ it is -log(1 - ρ²) / 2, to which a critic comes from below."""
    torch.manual_seed(0)
    objective = TotalCorrelationCritic(2, (64,))
    plan = build("ae", (2,), latent_dim=2, network="linear")
    layer = plan.model.posterior.network.layers[0]
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    factor = torch.tensor([[1.0, 0.0], [rho, math.sqrt(1 - rho**2)]])

    @torch.no_grad()
    def terms(n: int, seed: int) -> dict:
        trace = plan.model.trace(Batch(normal(n, 2, seed) @ factor.T), k=1, noise=Noise(seed))
        with torch.enable_grad():
            return objective(trace)

    for seed in range(300):
        optimizer.zero_grad()
        terms(256, seed)["critic"].value().backward()
        optimizer.step()
    found, true = terms(5000, 999)["total_correlation"].rows.mean().item(), -0.5 * math.log(1 - rho**2)
    assert 0.6 * true - 0.1 < found < 1.1 * true + 0.1


def test_epochs_are_not_compared_by_what_a_critic_says():
    X = np.random.default_rng(0).normal(size=(200, 5))
    aae = ct.Autoencoder(recipe="aae", latent_dim=2, hidden=(8,), max_epochs=3, random_state=0).fit(X)
    for epoch in aae.history_:
        assert epoch["val_loss"] == pytest.approx(epoch["val_nll"])
        assert epoch["val_critic"] > 0
        assert {"critic", "adversary", "nll"} < epoch.keys()


@pytest.mark.parametrize("recipe", ["wae-mmd", "swae", "cramer-wold-ae", "epps-pulley-ae", "aae"])
def test_codes_are_matched_where_a_plain_autoencoder_s_are_not(recipe):
    """By the distance of sorted projections, which no recipe but one minimizes."""
    X = np.random.default_rng(0).uniform(-2, 2, size=(1000, 2)) @ np.random.default_rng(1).normal(size=(2, 6))
    shared = {"latent_dim": 2, "hidden": (64,), "max_epochs": 40, "random_state": 0, "learning_rate": 3e-3}
    distance = SlicedWasserstein(200)
    far, near = (
        distance.distance(torch.from_numpy(m.fit(X).transform(X)), StandardNormal(2), Noise(0)).item()
        for m in (
            ct.Autoencoder(recipe="ae", **shared),
            ct.Autoencoder(recipe=recipe, **shared),
        )
    )
    assert near < 0.5 * far, far
    assert near < 0.1


def test_an_adversary_of_a_given_size():
    objective = NegLogLik() + 2.0 * Adversary(3, hidden=(4,))
    assert [tuple(p.shape) for p in objective.parameters()] == [(4, 3), (4,), (1, 4), (1,)]
    assert repr(objective) == "nll + 2 * adversary"
