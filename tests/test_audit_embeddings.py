"""Checks of what codes and their standard deviations are good for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from chartae.audits.findings import checks
from chartae.parts.distributions import DiagonalNormal, FullNormal
from test_audit_prior import SIGMA, SPECTRUM, found, items, linear


def with_std(factor):
    """A linear VAE whose standard deviations are multiplied."""
    base = linear()

    def posterior(x, *c):
        q = base.posterior(x)
        return DiagonalNormal(q.point(), 2 * (factor(x) * q.std()).log())

    return replace(base, posterior=posterior)


def test_labels_that_codes_keep():
    x = items(1500)
    finding = found("probe", linear(), x, labels=(x[:, 0] > 0).numpy())
    assert finding.verdict == "ok"
    assert finding.also["accuracy"] > 0.9


def test_labels_that_codes_lose():
    x = items(1500)
    y = (x[:, -1] > 0).numpy()
    finding = found("probe", linear(), x, labels=y)
    assert finding.verdict == "fail"
    # Rows that the probe of the items got right.
    assert len(finding.rows) == 20
    assert found("probe", linear(), x[:150], labels=y[:150]).verdict == "cannot tell"


def test_labels_that_nothing_tells():
    y = np.random.default_rng(0).integers(0, 2, 1000)
    finding = found("probe", linear(), items(1000), labels=y)
    assert finding.verdict == "cannot tell"
    assert "from the items themselves" in finding.says
    assert found("probe", linear(), items(1000), labels=np.arange(1000)).verdict == "cannot tell"


def test_probes_learn_from_training_items_where_these_have_labels():
    x, train = items(400), items(1000, seed=1)
    finding = found(
        "probe", linear(), x, train, labels=(x[:, 0] > 0).numpy(), labels_train=(train[:, 0] > 0).numpy()
    )
    assert finding.verdict == "ok"


def test_the_posterior_of_a_linear_vae_is_exact():
    finding = found("sigma", linear(), items(500))
    assert finding.verdict == "ok"
    np.testing.assert_allclose(finding.also["zeta2"][:4], 1, atol=0.15)
    assert np.isnan(finding.also["zeta2"][4])  # not used
    assert finding.also["covered"] == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_standard_deviations_that_are_off(factor):
    finding = found("sigma", with_std(lambda x: factor), items(500))
    assert finding.verdict == "fail"
    np.testing.assert_allclose(finding.also["zeta2"][:4], factor**-2, rtol=0.15)
    assert finding.also["side"] == ("too small" if factor < 1 else "too large")


def test_a_beta_other_than_one_makes_standard_deviations_wrong():
    """The encoder says β σ² / λ; with W W^T = λ − β σ², codes of the prior come back with another error."""
    beta = 4.0
    kept, top = SPECTRUM - beta * SIGMA**2, SPECTRUM
    bias = (1 - kept / top) ** 2
    expected = (bias + SIGMA**2 * kept / top**2) / (beta * SIGMA**2 / top)
    finding = found("sigma", linear(beta=beta), items(500))
    np.testing.assert_allclose(finding.also["zeta2"][:4], expected, rtol=0.15)
    assert finding.verdict == "fail"


def test_a_full_covariance_is_whitened():
    base = linear(spare=0)

    def posterior(x, *c):
        q = base.posterior(x)
        return FullNormal(q.point(), torch.diag_embed(q.std()))

    finding = found("sigma", replace(base, posterior=posterior), items(500))
    assert finding.verdict == "ok"
    assert "whitening" in finding.says


def test_sigma_that_is_the_same_for_all_items():
    assert found("sigma-informative", linear(), items(500)).verdict == "warn"
    varied = with_std(lambda x: (0.2 * torch.tanh(x[:, :1])).exp())
    assert found("sigma-informative", varied, items(500)).verdict == "ok"
    for name in ("sigma", "sigma-informative"):
        assert found(name, linear(beta=100.0), items(500)).verdict == "cannot tell"


def test_every_sentence_can_be_written():
    x = items(500)
    for name in ("probe", "sigma", "sigma-informative"):
        finding = found(name, linear(), x, labels=(x[:, 0] > 0).numpy())
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)
