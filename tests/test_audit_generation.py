"""Checks of samples against the data: density, coverage, copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from chartae.audits.findings import checks
from chartae.audits.generation import features, nearest
from chartae.geometry import Chart
from chartae.parts.distributions import DiagonalNormal
from test_audit_prior import found, items, linear


def narrow(chart: Chart, size: float) -> Chart:
    """Samples from the middle of the prior alone."""
    p = DiagonalNormal(torch.zeros(4), torch.full((4,), 2 * float(np.log(size))))
    return replace(chart, sampler=lambda c: p)


def test_a_density_gains_nothing_over_a_prior_that_codes_follow():
    finding = found("density-gain", linear(spare=0), items(1500))
    assert finding.verdict == "ok"
    assert abs(finding.statistic) < 0.02


def test_a_density_gains_what_the_prior_is_off():
    finding = found("density-gain", linear(spare=0, gain=0.5), items(1500))
    assert finding.verdict == "fail"
    # KL(N(0, ¼) | N(0, 1)) a dimension, less what 600 codes do not tell of a covariance.
    assert finding.statistic == pytest.approx(0.5 * (0.25 - 1 - np.log(0.25)), abs=0.04)
    assert found("density-gain", linear(spare=0, gain=0.5), items(200)).verdict == "cannot tell"


def test_islands_are_worth_a_mixture():
    x = items(2000)
    x[:, 0] = 2.9 * x[:, 0].sign() + 0.3 * x[:, 0] / 3
    finding = found("density-gain", linear(spare=0), x)
    assert finding.verdict == "fail" or finding.verdict == "warn"
    assert "mixture" in finding.also["kind"]


def test_samples_of_the_right_model_cover_the_data():
    finding = found("coverage", linear(spare=0), items(800))
    assert finding.verdict == "ok"
    assert finding.also["told"] < 0.6


def test_samples_from_the_middle_do_not():
    finding = found("coverage", narrow(linear(spare=0), 0.2), items(800))
    assert finding.verdict == "fail"
    assert len(finding.rows)
    assert found("coverage", linear(spare=0), items(100)).verdict == "cannot tell"


@pytest.mark.parametrize("size", [1.0, 0.5])
def test_samples_that_are_merely_alike_are_no_copies(size):
    finding = found("copying", narrow(linear(spare=0), size), items(1500), items(1500, seed=1))
    assert finding.verdict in ("ok", "cannot tell")


@pytest.mark.parametrize("share", [0.15, 1.0])
def test_copies_are_found(share):
    train, base = items(1500, seed=1), linear(spare=0)
    codes = base.encode(train)

    def decode(z, *c):
        x = base.decode(z)
        inside = torch.special.ndtr(z[:, 0]) < share
        x[inside] = train[torch.cdist(z[inside], codes).argmin(1)]
        return x

    parrot = replace(base, decode=decode, posterior=None, observe=None)
    finding = found("copying", parrot, items(1500), train)
    assert finding.verdict == "fail"
    assert finding.statistic == pytest.approx(share, rel=0.4)
    assert found("copying", parrot, items(150), train).verdict == "cannot tell"


def test_neighbors_are_exact_far_from_the_origin():
    points = np.array([[1000.0, 0.0], [1000.01, 0.0]], dtype=np.float32)
    distance, which = nearest(points, points, 2)
    assert which.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_allclose(distance[:, 0], 0)


def test_features_keep_distances_where_there_are_few_values():
    x = items(20)
    a, b = features(x[:10], x[10:])
    np.testing.assert_allclose(np.linalg.norm(a[0] - b[0]), (x[0] - x[10]).norm(), rtol=1e-5)
    assert features(torch.randn(60, 80), torch.randn(60, 80))[0].shape == (60, 50)


def test_every_sentence_can_be_written():
    for name in ("density-gain", "coverage", "copying"):
        finding = found(name, linear(spare=0), items(450), items(450, seed=1))
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)
