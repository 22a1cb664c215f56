"""Checks of codes, samples and embeddings, on linear VAEs whose optimum is known in closed form."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import chartae as ct
from chartae.audits import audit
from chartae.audits.evidence import Budget, Evidence
from chartae.audits.findings import checks
from chartae.audits.generation import _density, features, nearest
from chartae.audits.prior import standardized
from chartae.audits.report import _one_a_row
from chartae.core.errors import DataError
from chartae.geometry import Chart
from chartae.parts.distributions import Chain, DiagonalNormal, FullNormal, WrappedNormal

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
    measure = checks["prior-match"].measure
    values = [measure(Evidence(linear(), items(300, s), seed=s)).value for s in range(20)]
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
    assert finding.verdict in (("ok",) if beta == 1 else ("warn", "fail"))


def test_codes_that_follow_their_condition_alone_are_not_used():
    g = torch.Generator().manual_seed(0)
    c, mean = torch.randn(500, 2, generator=g), torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    x = torch.cat([c, torch.randn(500, 4, generator=g)], 1)
    chart = Chart.of_pair(
        lambda x, c: c @ mean,
        lambda z, c: torch.nn.functional.pad(z @ torch.linalg.inv(mean), (0, 4)),
        std=lambda x, c: torch.ones(len(x), 2),
        latent_dim=2,
    )
    chart = replace(chart, prior=lambda c: DiagonalNormal(c @ mean, torch.zeros(len(c), 2)))
    finding = found("active-dimensions", chart, x, condition=c)
    assert finding.also["active"] == 0
    np.testing.assert_allclose(finding.also["kl"], 0, atol=1e-6)
    moving = replace(chart, encode=lambda x, c: c @ mean + x[:, 2:4])
    moving = replace(
        moving, posterior=lambda x, c: DiagonalNormal(c @ mean + x[:, 2:4], torch.full((len(x), 2), -4.0))
    )
    assert found("active-dimensions", moving, x, condition=c).also["active"] == 2


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
    mean, std = Evidence(linear(), items(50)).moments(10)
    assert mean.shape == std.shape == (10, 5)
    np.testing.assert_allclose(std[0, :4], np.sqrt(SIGMA**2 / SPECTRUM), rtol=1e-6)


def test_each_item_is_asked_once_for_its_moments(monkeypatch):
    asked, moments = [], DiagonalNormal.moments
    monkeypatch.setattr(DiagonalNormal, "moments", lambda q: asked.append(len(q.mean)) or moments(q))
    evidence = Evidence(linear(), items(50))
    first = evidence.moments(10)
    assert evidence.active.tolist() == [True] * 4 + [False]
    for check in ("active-dimensions", "information", "sigma-informative"):
        checks[check].measure(evidence)
    again = evidence.moments(50)
    assert sum(asked) == 50
    for few, many in zip(first, again, strict=True):
        np.testing.assert_array_equal(few, many[:10])


def test_every_sentence_can_be_written():
    for name in ("prior-match", "prior-shape", "active-dimensions", "push-to-zero", "information", "bound"):
        finding = found(name, linear(), items(300))
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)


# -------------------------------------------------- samples against the data


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


@pytest.mark.parametrize("given", ["train", "codes"])
def test_sorted_training_rows_are_judged_as_shuffled_ones(given):
    random = np.random.default_rng(0)
    corners = np.array([[-1.2, -1.2], [1.2, -1.2], [-1.2, 1.2], [1.2, 1.2]])

    def islands(kinds):
        return torch.tensor(corners[kinds] + 0.2 * random.normal(size=(len(kinds), 2))).float()

    plane = Chart.of_pair(lambda x: x, lambda z: z, prior="normal", latent_dim=2)
    x, train = islands(random.integers(4, size=600)), islands(np.sort(random.integers(4, size=6000)))
    if given == "train":
        finding = found("density-gain", plane, x, train)
    else:  # as an estimator keeps them
        plane = replace(plane, given=SimpleNamespace(codes_=train.numpy()))
        finding = found("density-gain", plane, x)
    assert finding.verdict == "fail"
    assert finding.also["kind"] == "A mixture of 4 normals"


def test_training_rows_go_with_their_conditions_and_labels_and_keep_their_numbers():
    chart, rows = Chart.of_pair(lambda x, c: x, lambda z, c: z), torch.arange(500.0)[:, None]
    few = Budget(100, 50, 10, 10)
    of = Evidence(chart, rows, c=rows, train=rows, c_train=2 * rows, labels_train=3 * rows[:, 0], budget=few)
    number = of.index_train
    assert len(np.unique(number)) == 100 < np.ptp(number[:50])
    assert of.train is not None
    assert of.c_train is not None
    assert of.labels_train is not None
    assert (of.train[:, 0].numpy() == number).all()
    assert (of.c_train[:, 0].numpy() == 2 * number).all()
    assert (of.labels_train == 3 * number).all()


def test_samples_of_the_right_model_cover_the_data():
    finding = found("coverage", linear(spare=0), items(800))
    assert finding.verdict == "ok"
    assert finding.also["told"] < 0.6


def test_the_interval_of_coverage_holds_one_where_samples_are_as_items(monkeypatch):
    """In two dimensions, where neighbors share samples most: 1 % in each tail, as verdicts take it."""
    monkeypatch.setattr("chartae.audits.generation._told_apart", lambda *_: 0.5)  # slow, and not looked at
    chart = Chart.of_pair(lambda x: x[:, :2], lambda z: z @ torch.eye(2, 5), prior="normal", latent_dim=2)
    low, high = 0, 0
    for seed in range(100):
        z = torch.randn(600, 2, generator=torch.Generator().manual_seed(seed))
        interval = checks["coverage"].measure(Evidence(chart, z @ torch.eye(2, 5), seed=seed)).interval
        low, high = low + (interval[0] > 1), high + (interval[1] < 1)
    assert max(low, high) <= 4  # more come of one in a hundred once in 270


def test_copies_of_items_lie_where_these_are():
    x = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32) + 5
    assert _density(x, x, np.zeros(200)) == pytest.approx(1 / 5)


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
    copied = train[finding.also["copied"]]  # by rows of what was given, of which the nearest sample is none
    assert (decode(base.encode(copied)) == copied).all(1).float().mean() > 0.5
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


def test_every_sentence_about_samples_can_be_written():
    for name in ("density-gain", "coverage", "copying"):
        finding = found(name, linear(spare=0), items(450), items(450, seed=1))
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)


# -------------------------------------------------- embeddings and uncertainty


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


@pytest.mark.parametrize("none", [None, -1, np.nan])
def test_a_probe_passes_over_items_without_a_label(none):
    x, train = items(800), items(600, seed=1)
    y, y_train = ((each[:, 0] > 0).numpy().astype(object) for each in (x, train))
    known, kept = np.arange(800) % 2 > 0, np.arange(600) % 3 > 0
    rows = np.flatnonzero(known)
    whole = found("probe", linear(), x[known], train[kept], labels=y[known], labels_train=y_train[kept])
    y[~known], y_train[~kept] = none, none
    part = found("probe", linear(), x, train, labels=y, labels_train=y_train)
    assert part.verdict == whole.verdict == "ok"
    assert part.also["accuracy"] == pytest.approx(whole.also["accuracy"], abs=0.05)
    lost = found("probe", linear(), x, labels=np.where(known, (x[:, -1] > 0).numpy(), none))
    assert lost.verdict == "fail"
    assert len(lost.rows) == 20
    assert set(lost.rows) <= set(rows.tolist())


@pytest.mark.parametrize("n", [100, 800, 0])
def test_there_is_a_label_for_each_item(n):
    x = items(400)
    with pytest.raises(DataError, match=rf"labels have shape \({n},\) and items are 400: give one"):
        audit(linear(), x, labels=np.zeros(n, int), only="probe")
    with pytest.raises(DataError, match=rf"labels_train have shape \({n},\)"):
        audit(linear(), x, x, labels=np.zeros(400, int), labels_train=np.zeros(n, int), only="probe")


def test_labels_that_make_no_array_or_are_of_no_items_are_refused():
    x = items(60)
    with pytest.raises(DataError, match=r"^the labels do not make an array .*: pass one label an item$"):
        audit(linear(), x, labels=[[0, 1]] + [[0]] * 59, only="probe")
    for name in ("labels_train", "condition_train"):
        with pytest.raises(DataError, match=f"{name} is of the items of X_train, and there are none"):
            audit(linear(), x, labels=[0, 1] * 30, only="probe", **{name: [0, 1] * 30})


@pytest.mark.parametrize("known", [0, 99])
def test_a_probe_does_without_training_items_that_have_no_labels(known):
    x, train = items(400), items(200, seed=1)
    y, y_train = ((each[:, 0] > 0).numpy().astype(object) for each in (x, train))
    y_train[known:] = None
    both = found("probe", linear(), x, train, labels=y, labels_train=y_train)
    alone = found("probe", linear(), x, train, labels=y)
    assert (both.says, both.rows) == (alone.says, alone.rows)
    assert both.verdict == "ok"
    none = found("probe", linear(), x, labels=[None] * 400)
    assert none.says == "Cannot tell: items with a label are too few for a probe."


def test_whether_a_condition_is_one_label_a_row_is_told_without_looking_at_each():
    class Row(float):
        __slots__ = ()

        @property
        def ndim(self):
            raise AssertionError("each row was asked for its axes")

    n = 3
    for c in ([Row(1.0)] * n, np.arange(n), torch.arange(n), pd.Series([1, None, 2], dtype="Int64")):
        assert _one_a_row(c, n)
    assert _one_a_row(pd.Series(["a", None, "b"]), n)
    assert not any(_one_a_row(c, n) for c in ([np.zeros((2, 2))] * n, np.zeros((n, 1)), "abc", [1], None))


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
    """The encoder says β σ² / λ, and with W W^T = λ − β σ² codes are recovered with another error."""
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


def test_exact_posteriors_of_several_layers_are_as_wide_as_they_say():
    """b ~ N(0, 2), a ~ N(b / 2, 1/2), x = b + noise of variance 4: q(b | x), then q(a | b) = p(a | b)."""
    half = torch.tensor(float(np.log(0.5)))

    def chain(mean: torch.Tensor, variance: float) -> Chain:
        first = DiagonalNormal(mean, torch.full_like(mean, float(np.log(variance))))
        return Chain(first, [lambda b: DiagonalNormal(b / 2, half.expand_as(b))], (1, 1))

    chart = Chart(
        encode=lambda x: chain(x / 3, 4 / 3).point(),
        decode=lambda z: z[:, :1],
        posterior=lambda x: chain(x / 3, 4 / 3),
        observe=lambda z, noise: z[:, :1] + 2 * noise.normal((len(z), 1), z),
        prior=lambda c: chain(torch.zeros(1), 2.0),
        latent_dim=2,
    )
    x = 6**0.5 * torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    assert found("sigma", chart, x).verdict == "ok"


def missing(chart: Chart, by: float) -> Chart:
    """Codes that are off by so many standard deviations, along each dimension that is used."""
    away = by * (chart.posterior(items(1)).std() < 0.9)

    def posterior(x, *c):
        q = chart.posterior(x)
        return DiagonalNormal(q.mean + away * q.std(), q.log_var)

    return replace(chart, posterior=posterior)


@pytest.mark.parametrize(
    ("by", "verdict"), [(0.0, "ok"), (0.4, "ok"), (0.6, "warn"), (1.5, "warn"), (2.5, "fail")]
)
def test_an_encoder_that_misses_codes_is_found_out_by_how_far(by, verdict):
    """Of a linear decoder the best is known: means that are off by s cost s² / 2 nats a dimension."""
    finding = found("amortization", missing(linear(), by), items(500))
    assert finding.verdict == verdict
    assert finding.statistic == pytest.approx(by**2, rel=0.05, abs=1e-4)
    assert finding.also["nats"] == pytest.approx(4 * by**2 / 2, rel=0.2, abs=1e-3)
    assert finding.also["trained"] is None


def test_codes_that_a_beta_other_than_one_pulls_to_zero_are_no_best_codes():
    """The posterior of its decoder has mean W x / (W² + σ²), where the encoder says W x / λ."""
    beta = 4.0
    kept = SPECTRUM - beta * SIGMA**2
    precise = kept + SIGMA**2
    off = kept * (1 / precise - 1 / SPECTRUM) ** 2 * SPECTRUM / (SIGMA**2 / precise)
    finding = found("amortization", linear(beta=beta), items(4000), budget="full")
    assert finding.interval[0] < off.mean() < finding.interval[1]


@pytest.mark.parametrize("factor", [0.1, 4.0])
def test_an_encoder_that_is_too_sure_or_unsure_is_measured_by_the_spread_that_is_right(factor):
    base = linear(spare=0)

    def posterior(x, *c):
        q = base.posterior(x)
        return DiagonalNormal(q.mean + 2.5 * q.std(), q.log_var + 2 * np.log(factor))

    finding = found("amortization", replace(base, posterior=posterior), items(500))
    assert finding.verdict == "fail"
    assert finding.statistic == pytest.approx(2.5**2, rel=0.2)


def test_a_posterior_of_any_covariance_is_asked_along_what_is_narrow_in_it():
    """z' = A z has posteriors of correlation .98: what is off across that is no part of a marginal σ."""
    base, turn = linear(spare=0), torch.eye(4) + 0.8 * torch.eye(4).flip(0)
    back = torch.linalg.inv(turn)

    def posterior(x, off=0.0):
        q = base.posterior(x)
        factor = torch.linalg.cholesky(turn @ torch.diag_embed(q.std().square()) @ turn.T)
        return FullNormal(q.mean @ turn.T + off * factor[..., -1], factor)

    prior = FullNormal(torch.zeros(4), torch.linalg.cholesky(turn @ turn.T))
    for off, verdict in ((0.0, "ok"), (5.0, "fail")):
        chart = replace(
            base,
            encode=lambda x, off=off: posterior(x, off).mean,
            posterior=lambda x, off=off: posterior(x, off),
            decode=lambda z: base.decode(z @ back.T),
            likelihood=lambda x, z: base.likelihood(x, z @ back.T),
            prior=lambda c: prior,
        )
        finding = found("amortization", chart, items(500))
        assert finding.verdict == verdict
        assert finding.statistic == pytest.approx(off**2 / 4, rel=0.05, abs=1e-3)


def test_a_standard_deviation_that_all_items_share_is_refined_for_each():
    base = linear(spare=0)
    chart = replace(base, posterior=lambda x: DiagonalNormal(base.posterior(x).mean, torch.zeros(4)))
    finding = found("amortization", chart, items(500))
    assert finding.statistic == pytest.approx(0, abs=0.03)
    wider = SPECTRUM / SIGMA**2  # in variance
    assert finding.also["nats"] == pytest.approx(0.5 * (wider - 1 - np.log(wider)).sum(), rel=0.1)


def test_a_decoder_that_cuts_gradients_is_refused():
    base = linear()
    chart = replace(base, likelihood=torch.no_grad()(base.likelihood))
    finding = found("amortization", chart, items(500))
    assert finding.verdict == "cannot tell"
    assert "the decoder cuts gradients" in finding.says


def test_codes_of_items_in_training_are_asked_as_well():
    x, train = items(200), items(500, seed=1)
    base = linear()
    known = {tuple(row) for row in train.tolist()}

    def posterior(x, *c):  # an encoder that has overfitted
        q, new = base.posterior(x), torch.tensor([tuple(row) not in known for row in x.tolist()])
        return DiagonalNormal(q.mean + 2.5 * q.std() * new[:, None], q.log_var)

    finding = found("amortization", replace(base, posterior=posterior), x, train)
    assert finding.verdict == "fail"
    assert finding.also["trained"] < 0.01
    assert "where it was trained)" in finding.says


def test_what_cannot_be_refined_is_said():
    base = linear()

    def posterior(x, *c):
        return WrappedNormal(base.posterior(x).mean.tanh() / 4, torch.zeros(len(x), 5))

    for chart, why in (
        (replace(base, posterior=posterior), "no normal distribution"),
        (linear(beta=100.0), "no latent dimension is used"),
    ):
        finding = found("amortization", chart, items(500))
        assert finding.verdict == "cannot tell"
        assert why in finding.says
    report = audit(replace(base, likelihood=None), items(100), only="amortization")
    assert report.skipped == {"amortization": "the likelihood is not known"}


def test_sigma_that_is_the_same_for_all_items():
    assert found("sigma-informative", linear(), items(500)).verdict == "warn"
    varied = with_std(lambda x: (0.2 * torch.tanh(x[:, :1])).exp())
    assert found("sigma-informative", varied, items(500)).verdict == "ok"
    for name in ("sigma", "sigma-informative"):
        assert found(name, linear(beta=100.0), items(500)).verdict == "cannot tell"


def test_every_sentence_about_embeddings_can_be_written():
    x = items(500)
    for name in ("probe", "sigma", "amortization", "sigma-informative"):
        finding = found(name, linear(), x, labels=(x[:, 0] > 0).numpy())
        for text in checks[name].says.values():
            assert text.format(value=0.1, **finding.also)


def test_a_model_that_is_judged_without_its_condition_says_so():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = rng.normal(size=(400, 3)) + 5.0 * y[:, None]
    cvae = ct.CVAE(latent_dim=1, max_epochs=2, random_state=0).fit(X, y)
    with pytest.warns(UserWarning, match="judged as if it was told none: give condition="):
        audit(cvae, X, only=["reconstruction"])
    audit(cvae, X, condition=y, only=["reconstruction"])  # a warning would be an error
