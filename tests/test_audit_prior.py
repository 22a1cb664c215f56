"""Checks of codes against their prior, on linear VAEs whose optimum is known in closed form."""

import numpy as np
import pytest
import torch

from chartae.audits import audit
from chartae.audits.evidence import Evidence
from chartae.audits.findings import checks
from chartae.audits.prior import moments, standardized
from chartae.geometry import Chart
from chartae.parts.distributions import DiagonalNormal, FullNormal

D, SIGMA = 12, 0.5
SPECTRUM = np.array([9.0, 6.0, 4.0, 2.5])


def linear(beta: float = 1.0, spare: int = 1, gain: float = 1.0) -> Chart:
    """A linear beta-VAE at its optimum: KL_i = ½ log(λ_i / (β σ²)), posterior variance β σ² / λ_i."""
    values = np.concatenate([SPECTRUM, np.full(D - len(SPECTRUM), SIGMA**2)])
    d = len(SPECTRUM) + spare
    used = values[:d] > 1.001 * beta * SIGMA**2
    W = np.eye(D)[:, :d] * np.sqrt(np.where(used, values[:d] - beta * SIGMA**2, 0.0))
    std = torch.tensor(np.sqrt(np.where(used, beta * SIGMA**2 / values[:d], 1.0))).float()
    back, forth = torch.tensor(W / values[:d]).float(), torch.tensor(W.T).float()
    return Chart.of_pair(
        lambda x: gain * x @ back,
        lambda z: z / gain @ forth,
        std=lambda x: gain * std.expand(len(x), d),
        noise=SIGMA,
        prior="normal",
        latent_dim=d,
    )


def items(n: int, seed: int = 0) -> torch.Tensor:
    values = np.concatenate([SPECTRUM, np.full(D - len(SPECTRUM), SIGMA**2)])
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, D)) * np.sqrt(values)).float()


def found(name: str, chart: Chart, x: torch.Tensor, *more: torch.Tensor, **rest):
    return audit(chart, x, *more, only=[name], **rest)[name]


def test_a_linear_vae_follows_its_prior_within_the_error_of_the_estimate():
    # 20 draws of 300 items: the mean estimate is unbiased, which 4 standard errors bound.
    values = [found("prior-match", linear(), items(300, seed)).statistic for seed in range(20)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(20)
    assert found("prior-match", linear(), items(1000)).verdict == "ok"


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_codes_of_another_size_are_as_far_from_the_prior_as_the_formula_says(gain):
    finding = found("prior-match", linear(gain=gain), items(2000))
    assert finding.verdict == "fail"
    assert finding.interval[0] < 0.5 * (gain**2 - 1 - 2 * np.log(gain)) < finding.interval[1]


def test_few_items_do_not_tell_a_covariance():
    assert found("prior-match", linear(spare=8), items(55)).verdict == "cannot tell"
    assert found("prior-shape", linear(), items(60)).verdict == "cannot tell"


def test_codes_are_standardized_by_a_prior_of_their_own():
    mean, scale = torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    for prior in (FullNormal(mean, scale), DiagonalNormal(mean, scale.diagonal().log() * 2)):
        chart = Chart.of_pair(lambda x: mean + x @ scale.T, lambda z: z, prior=prior)
        white = standardized(Evidence(chart, x), (mean + x @ scale.T))
        exact = x if isinstance(prior, FullNormal) else (x @ scale.T) / scale.diagonal()
        np.testing.assert_allclose(white, exact.numpy(), atol=1e-5)


def test_the_shape_is_judged_apart_from_the_spread():
    x = items(1000)
    finding = found("prior-shape", linear(gain=2.0), x)
    assert finding.verdict == "ok"
    assert finding.p_value > 0.01
    assert set(finding.also["p"]) == {"slices", "kernel", "rotation", "independence", "marginals"}
    # Two islands along the first axis.
    x[:, 0] = 2.9 * x[:, 0].sign() + 0.3 * x[:, 0] / 3
    finding = found("prior-shape", linear(spare=0), x)
    assert finding.verdict in ("warn", "fail")
    assert finding.p_value < 0.01


@pytest.mark.parametrize("beta", [1.0, 12.0, 100.0])
def test_kl_and_active_units_are_those_of_the_closed_form(beta):
    finding = found("active-dimensions", linear(beta), items(2000))
    expected = np.maximum(0.5 * np.log(SPECTRUM / (beta * SIGMA**2)), 0)
    # E |μ|² of 2,000 rows has a relative standard error of 3 %.
    np.testing.assert_allclose(finding.also["kl"][:4], expected, atol=0.06)
    assert finding.also["active"] == (expected > 0).sum()
    assert finding.verdict == ("ok" if beta == 1 else "fail")


def test_points_are_counted_by_what_they_decode_to():
    values = torch.tensor([1.0, 1.0, 1.0, 1e-4])
    chart = Chart.of_pair(lambda x: x[:, :4], lambda z: torch.cat([z * values, torch.zeros(len(z), 8)], 1))
    x = torch.zeros(500, 12)
    x[:, :4] = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * values
    finding = found("active-dimensions", chart, x)
    assert finding.also["active"] == 3
    assert finding.verdict == "ok"


@pytest.mark.parametrize(
    ("gain", "prior", "verdict"), [(1.0, None, "ok"), (0.02, None, "warn"), (0.05, "normal", "fail")]
)
def test_codes_that_are_pushed_to_zero(gain, prior, verdict):
    root = torch.tensor(np.sqrt(SPECTRUM)).float()
    chart = Chart.of_pair(
        lambda x: gain * x[:, :4] / root,
        lambda z: torch.nn.functional.pad(z * root / gain, (0, D - 4)),
        prior=prior,
        latent_dim=4,
    )
    finding = found("push-to-zero", chart, items(500))
    assert finding.verdict == verdict
    assert finding.also["slope"] == pytest.approx(np.sqrt(SPECTRUM.sum()) / gain, rel=1e-4)


def test_information_is_that_of_the_closed_form_until_the_sample_caps_it():
    # 40 times the noise: two dimensions that carry about 1 nat each.
    finding = found("information", linear(beta=20.0), items(1000))
    expected = np.maximum(0.5 * np.log(SPECTRUM / (20 * SIGMA**2)), 0).sum()
    assert finding.also["nats"] == pytest.approx(expected, abs=0.05)
    assert found("information", linear(), items(200)).also["capped"]
    assert found("information", linear(), items(200)).verdict == "ok"
    assert found("information", linear(beta=100.0), items(200)).verdict == "fail"


def test_the_bound_is_the_likelihood_of_a_linear_vae_and_unknown_for_a_narrow_posterior():
    x = items(64)
    finding = found("bound", linear(), x)
    values = np.concatenate([SPECTRUM, np.full(D - len(SPECTRUM), SIGMA**2)])
    exact = -0.5 * (np.log(2 * np.pi * values) + x.numpy() ** 2 / values).sum(1)
    rows = Evidence(linear(), x).index[:32]
    assert finding.also["many"] == pytest.approx(exact[rows].mean(), abs=1e-3)
    assert finding.verdict == "ok"
    chart = linear()
    narrow = Chart.of_pair(
        chart.encode,
        chart.decode,
        std=lambda x: 0.1 * chart.posterior(x).std(),
        noise=SIGMA,
        prior="normal",
        latent_dim=5,
    )
    assert found("bound", narrow, x).verdict == "cannot tell"


def test_moments_are_the_posterior_s():
    mean, std = moments(Evidence(linear(), items(50)), 10)
    assert mean.shape == std.shape == (10, 5)
    np.testing.assert_allclose(std[0, :4], np.sqrt(SIGMA**2 / SPECTRUM), rtol=1e-6)


def test_every_sentence_can_be_written():
    for name in ("prior-match", "prior-shape", "active-dimensions", "push-to-zero", "information", "bound"):
        finding = found(name, linear(), items(300))
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)
