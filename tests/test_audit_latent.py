"""The checks of the shape of a latent space: cases with a known answer, and what must not alarm them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import chartae.audits.report  # noqa: F401  # it registers all checks
from chartae.audits import audit
from chartae.audits.evidence import Evidence
from chartae.audits.findings import Finding, checks, judge
from chartae.audits.latent import scale_dimension, typical
from chartae.audits.projection import _limit, _tail
from chartae.audits.topology import _islands
from chartae.core.errors import DataError
from chartae.geometry import Chart, intrinsic_dimension, nearest

SHAPE = ["folds", "tears", "neighborhoods", "density", "components"]
PATHS = ["interpolation", "interpolated-items"]
SAMPLES = ["prior-holes", "sample-holes"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embedded(z: Tensor, D: int = 10, noise: float = 0.01, seed: int = 0, **more) -> tuple[Chart, Tensor]:
    """Codes, isometrically among D values, with an exact chart."""
    g = generator(seed + 100)
    B = torch.linalg.qr(torch.randn(D, z.shape[1], generator=g))[0]
    x = z @ B.T + noise * torch.randn(len(z), D, generator=g)
    return Chart.of_pair(lambda x: x @ B, lambda z: z @ B.T, latent_dim=z.shape[1], **more), x


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed))


def square(n: int = 1000, seed: int = 0) -> Tensor:
    return 2 * torch.rand(n, 2, generator=generator(seed)) - 1


def found(case: tuple[Chart, Tensor], names: list[str], seed: int = 0, **more) -> dict[str, Finding]:
    report = audit(*case, only=names, random_state=seed, **more)
    return {finding.name: finding for finding in report.findings}


def verdicts(case: tuple[Chart, Tensor], names: list[str], seed: int = 0) -> dict[str, str]:
    return {name: finding.verdict for name, finding in found(case, names, seed).items()}


def annulus(n: int = 1000, seed: int = 0) -> Tensor:
    turn, radius = torch.rand(2, n, 1, generator=generator(seed))
    turn, radius = 2 * math.pi * turn, 1.5 + radius / 2
    return torch.cat([radius * turn.cos(), radius * turn.sin()], 1)


def circle(n: int = 1000) -> tuple[Chart, Tensor]:
    turn = 2 * math.pi * torch.rand(n, 1, generator=generator())

    def decode(z: Tensor) -> Tensor:
        return torch.cat([z.cos(), z.sin()], 1)

    return Chart.of_pair(lambda x: torch.atan2(x[:, 1:], x[:, :1]), decode), decode(turn)


def torn(n: int = 1000) -> tuple[Chart, Tensor]:
    """A connected square whose halves have codes far apart."""
    away = torch.tensor([5.0, 0.0])
    return (
        Chart.of_pair(lambda x: x + away * (x[:, :1] > 0), lambda z: z - away * (z[:, :1] > 2.5)),
        square(n),
    )


def folded(n: int = 1000) -> tuple[Chart, Tensor]:
    """A sphere seen from above."""
    x = normal(n, 3)
    return (
        Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, 0 * z[:, :1]], 1)),
        x / x.norm(dim=1, keepdim=True),
    )


def ppca(d: int = 3, D: int = 20, n: int = 1000, noise: float = 0.3) -> tuple[Chart, Tensor]:
    """Probabilistic PCA with its true posterior."""
    W = torch.linalg.qr(normal(D, d, 1))[0] * torch.linspace(2, 1, d)
    x = normal(n, d, 2) @ W.T + noise * normal(n, D, 3)
    M = W.T @ W + noise**2 * torch.eye(d)
    A, std = torch.linalg.solve(M, W.T).T, noise * M.diagonal().rsqrt()
    chart = Chart.of_pair(
        lambda x: x @ A, lambda z: z @ W.T, std=lambda x: std.expand(len(x), d), prior="normal", latent_dim=d
    )
    return chart, x


# ------------------------------------------------------------------------------------------ neighbors


@pytest.mark.parametrize("d", [2, 7])
def test_nearest_is_exact(d):
    points, queries = normal(200, d).numpy(), normal(50, d, 1).numpy()
    apart = np.linalg.norm(queries[:, None] - points[None], axis=2)
    distances, indices = nearest(queries, points, 5)
    assert np.array_equal(indices, np.argsort(apart, axis=1)[:, :5])
    assert distances == pytest.approx(np.sort(apart, axis=1)[:, :5], rel=1e-6)


@pytest.mark.parametrize("d", [2, 7])
def test_nearest_leaves_out_the_row_itself_and_not_its_copies(d):
    points = np.repeat(normal(20, d).numpy(), 4, axis=0)
    distances, indices = nearest(points, points, 2, exclude_self=True)
    assert (indices != np.arange(80)[:, None]).all()
    assert np.abs(distances).max() < 1e-6
    assert (indices // 4 == np.arange(80)[:, None] // 4).all()


@pytest.mark.parametrize("d", [2, 5, 64])
def test_copies_are_no_distance_apart(d):
    x = np.random.default_rng(0).normal(size=(200, d)) + 5
    distances, indices = nearest(x, np.concatenate([x, x]), 2)
    assert not distances.any()
    assert (np.sort(indices) == np.arange(200)[:, None] + [0, 200]).all()


def test_nearest_is_exact_where_rows_are_near_against_their_size(monkeypatch):
    measured, norm = [], np.linalg.norm
    monkeypatch.setattr(np.linalg, "norm", lambda a, **more: measured.append(len(a)) or norm(a, **more))
    rng = np.random.default_rng(0)
    far = 100 * rng.normal(size=(30, 100))
    for apart in 10.0 ** np.arange(-7, 2):
        x = np.concatenate([far, far + apart * rng.normal(size=far.shape)])
        measured.clear()
        distances, indices = nearest(x, x, 5, exclude_self=True)
        assert (indices[:, 0] == (np.arange(60) + 30) % 60).all()
        assert distances[:, 0] == pytest.approx(norm(x - x[indices[:, 0]], axis=1), rel=1e-6)
    assert sum(measured) == 180  # sizes of queries and of points, and of pairs but each row with itself


def test_nearest_does_not_mind_where_the_points_lie():
    x = normal(100, 8).double()
    assert nearest(x + 1e7, x + 1e7, 3, True)[0] == pytest.approx(nearest(x, x, 3, True)[0], rel=1e-5)


def test_nearest_of_images():
    x = torch.arange(12.0).reshape(3, 2, 2)
    assert nearest(x, x, 1, exclude_self=True)[1].ravel().tolist() == [1, 0, 1]


def test_nearest_refuses_more_than_there_are():
    with pytest.raises(DataError, match="give more"):
        nearest(np.zeros((3, 2)), np.zeros((3, 2)), 3, exclude_self=True)


# ------------------------------------------------------------------------------------------ no alarm


@pytest.mark.parametrize("seed", [0, 1])
def test_an_exact_chart_of_a_square_is_well(seed):
    case = embedded(square(seed=seed), seed=seed)
    assert set(verdicts(case, SHAPE + PATHS, seed).values()) == {"ok"}


def test_an_exact_chart_of_a_normal_distribution_is_well():
    """Its outliers are near nothing, and neither folded nor torn."""
    case = embedded(normal(1000, 2), prior="normal")
    assert set(verdicts(case, SHAPE + PATHS + SAMPLES).values()) == {"ok"}


def test_perfect_probabilistic_pca_has_no_holes():
    of = found(ppca(n=2000), SAMPLES)
    assert [finding.verdict for finding in of.values()] == ["ok", "ok"]
    low, high = of["prior-holes"].interval
    assert low <= 0.01 <= high


def test_islands_that_data_have_are_no_fault():
    z = normal(1000, 2) + 5 * torch.tensor([[1.0, 0.0]]) * (2 * (torch.arange(1000)[:, None] % 2) - 1)
    of = found(embedded(z, prior="normal"), ["components", *SAMPLES, *PATHS])
    assert of["components"].verdict == "ok"
    assert of["components"].also["islands"] == of["components"].also["islands_of_data"] == 2
    assert {of[name].verdict for name in SAMPLES} == {"fail"}
    assert {of[name].verdict for name in PATHS} <= {"warn", "fail"}


# ------------------------------------------------------------------------------------------ planted


def conditional(kinds: int, noise: float, n: int, *, vectors: bool = False) -> tuple[Chart, Tensor, Tensor]:
    """Probabilistic PCA about a place of the condition's own, with its true posterior."""
    D, d = 20, 2
    W = torch.linalg.qr(normal(D, d, 1))[0] * torch.linspace(3, 1.5, d)
    B = normal(D, kinds, 2)
    M = W.T @ W + noise**2 * torch.eye(d)
    A, std = torch.linalg.solve(M, W.T).T, noise * M.diagonal().rsqrt()
    labels = torch.randint(0, kinds, (n,), generator=generator(3))
    c = normal(n, kinds, 4) if vectors else torch.nn.functional.one_hot(labels, kinds).float()
    chart = Chart.of_pair(
        lambda x, c: (x - c @ B.T) @ A,
        lambda z, c: z @ W.T + c @ B.T,
        std=lambda x, c: std.expand(len(x), d),
        prior="normal",
        latent_dim=d,
    )
    return chart, normal(n, d, 5) @ W.T + c @ B.T + noise * normal(n, D, 6), c


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("n", [200, 600])
def test_an_exact_conditional_model_is_not_alarmed_at(n, vectors):
    """Classes that lie apart are no neighbors, nor are directions of a condition those of codes."""
    chart, x, c = conditional(2 if vectors else 10, 0.3, n, vectors=vectors)
    names = ["tears", "folds", "decoder-tangent", "encoder-leakage", "idempotence"]
    for finding in found((chart, x), names, condition=c).values():
        assert finding.verdict in ("ok", "cannot tell"), finding


@pytest.mark.parametrize("n", [500, 2000])
def test_a_tear_within_classes_is_found(n):
    chart, x, c = conditional(3, 0.1, n)

    def torn(x: Tensor, c: Tensor) -> Tensor:
        z = chart.encode(x, c)
        return z + torch.tensor([4.0, 0.0]) * z[:, :1].sign()

    well, torn = (
        found((one, x), ["tears"], condition=c)["tears"] for one in (chart, replace(chart, encode=torn))
    )
    assert (well.verdict, torn.verdict) == ("ok", "fail")
    assert torn.statistic > 0.05


@pytest.mark.parametrize(("d", "D"), [(2, 3), (4, 8)])
def test_what_the_prior_pulls_twice_is_no_disagreement(d, D):
    """P(P(x)) of the optimum differs from P(x) by a third of the residual, all of it the prior's."""
    chart, x = ppca(d, D, noise=0.8)
    again = chart.projected(chart.projected(x))
    residual = (x - chart.projected(x)).norm(dim=1).mean()
    assert (again - chart.projected(x)).norm(dim=1).mean() > 0.1 * residual
    assert found((chart, x), ["idempotence"])["idempotence"].statistic < 1e-3
    drift = replace(chart, decode=lambda z: 1.3 * chart.decode(z))
    assert found((drift, x), ["idempotence"])["idempotence"].statistic > 0.05


def test_codes_of_a_conditional_model_need_not_hold_what_it_is_told():
    # Two squares far apart, which one code serves: folded without the class, and right with it.
    z, c = square(), (torch.arange(1000) % 2).float()[:, None]
    x = torch.cat([z, 5 * c], 1)
    told = (lambda x, c: x[:, :2], lambda z, c: torch.cat([z, 5 * c], 1))
    more = {"condition": c, "labels": c[:, 0].numpy()}
    well = found((told, x), ["folds", "tears", "neighborhoods", "probe"], **more)
    assert [f.verdict for f in well.values()] == ["ok", "ok", "ok", "cannot tell"]
    untold = (lambda x: x[:, :2], lambda z: torch.cat([z, 2.5 + 0 * z[:, :1]], 1))
    assert verdicts((untold, x), ["folds"])["folds"] == "fail"
    turned = (lambda x, c: x[:, :2].abs(), lambda z, c: torch.cat([z, 5 * c], 1))
    assert found((turned, x), ["folds"], **more)["folds"].verdict == "fail"  # within a class


@pytest.mark.parametrize("turned", [False, True])
def test_directions_that_the_decoder_ignores_are_left_out_however_codes_are_turned(turned):
    x = torch.cat([square(), 0.5 * square(seed=1)[:, :1]], 1)
    Q = torch.linalg.qr(normal(3, 3))[0] if turned else torch.eye(3)
    flat = (lambda x: x @ Q, lambda z: z @ Q.T * torch.tensor([1.0, 1.0, 1e-3]))
    assert found((flat, x), ["distortion"])["distortion"].statistic == pytest.approx(1, abs=1e-4)


def test_noise_everywhere_is_no_dimension_that_codes_lack():
    noisy = embedded(normal(500, 3), D=20, noise=0.5)
    plane, x = embedded(square(), D=20, noise=0.02)  # no plateau here either, but two eigenvalues stand out
    line = Chart.of_pair(lambda x: plane.encode(x)[:, :1], lambda z: z @ torch.ones(1, 20))
    assert verdicts(noisy, ["latent-dimension"])["latent-dimension"] == "cannot tell"
    assert verdicts((line, x), ["latent-dimension"])["latent-dimension"] == "fail"


def test_data_that_fill_all_their_values_have_nothing_off_them():
    filled = (Chart.of_pair(lambda x: x[:, :1], lambda z: torch.cat([z, z], 1)), square())
    names = ["retention", "decoder-tangent"]
    assert set(verdicts(filled, names).values()) == {"cannot tell"}


# ------------------------------------------------------------------------------------------ what is lost


def worst(weight: np.ndarray, n: int, samples: int, random: np.random.Generator) -> np.ndarray:
    """The worst in a thousand over the median of normal residuals with these variances, of some samples."""
    square = [np.square(random.normal(size=(n, len(weight)))) @ weight for _ in range(samples)]
    return np.array([_tail(np.sqrt(one)) for one in square])


@pytest.mark.parametrize(
    "weight",
    [
        np.ones(1),
        np.ones(30),
        np.array([1.0] + [0.02] * 100),
        np.array([1.0] * 20 + [0.05] * 100),
        1 / np.arange(1, 30.0),
        0.9 ** np.arange(60.0),
    ],
    ids=["one", "alike", "one above many", "some above many", "1/k", "falling"],
)
def test_the_worst_of_normal_residuals_are_rarely_worse_than_chance(weight):
    """1 % of 300 samples are 3; more than 12 has a probability of 1e-5, and one of 2 % gives 6."""
    weight = weight / weight.sum()
    limit = _limit(weight, 250, np.random.default_rng(0))
    assert (worst(weight, 250, 300, np.random.default_rng(1)) > limit).sum() <= 12
    # And the limit is not far above: it is the .99 quantile.
    assert (worst(weight, 250, 300, np.random.default_rng(2)) > 0.9 * limit).any()


def test_items_that_are_reconstructed_alike_have_no_worst():
    x = torch.rand(1, 5, generator=generator()).repeat(60, 1)
    chart = Chart.of_pair(lambda x: x[:, :1], lambda z: torch.nn.functional.pad(z, (0, 4)))
    finding = found((chart, x), ["reconstruction-tail"])["reconstruction-tail"]
    assert finding.verdict == "cannot tell"
    assert "in the same way" in finding.says


def lossy(change, D: int = 20, noise: float = 0.05, seed: int = 0, n: int = 1000) -> tuple[Chart, Tensor]:
    """A square among D values, and a chart whose decoder changes its codes or what becomes of them."""
    chart, x = embedded(square(n, seed), D=D, noise=noise, seed=seed)
    return Chart.of_pair(chart.encode, change(chart.decode)), x


def missed(case: tuple[Chart, Tensor], **more) -> Finding:
    return found(case, ["missed"], **more)["missed"]


@pytest.mark.parametrize("seed", range(5))
def test_of_independent_noise_like_items_tell_nothing(seed):
    finding = missed(lossy(lambda decode: decode, seed=seed), seed=seed)
    assert finding.verdict == "ok"
    assert finding.interval[0] < 0 < finding.interval[1] < 0.05


@pytest.mark.parametrize("share", [0.05, 0.25, 0.6])
def test_a_shift_is_lost_as_far_as_it_stands_out_of_the_noise(share):
    off = torch.linalg.qr(normal(20, 1, 5))[0].T * math.sqrt(share / (1 - share) * 18 * 0.05**2)
    finding = missed(lossy(lambda decode: lambda z: decode(z) + off))
    # The shift is not quite at right angles to the plane: what lies along it is lost as well.
    assert finding.statistic == pytest.approx(share, abs=0.03)
    assert finding.interval[0] < finding.statistic < finding.interval[1]
    assert finding.verdict == {0.05: "ok", 0.25: "warn", 0.6: "fail"}[share]


def test_a_lost_dimension_is_part_of_the_data():
    finding = missed(lossy(lambda decode: lambda z: decode(z * torch.tensor([1.0, 0.0]))))
    share = (1 / 3 + 0.05**2) / (1 / 3 + 19 * 0.05**2)
    assert share - 0.05 < finding.statistic < share  # neighbors are not quite alike: a lower bound
    assert finding.verdict == "fail"
    assert finding.remedies[0].name == "more-dimensions"


def test_neither_the_order_of_features_nor_constants_nor_copies_of_items_matter():
    chart, x = lossy(lambda decode: lambda z: 0.9 * decode(z))
    plain = missed((chart, x)).statistic
    order = torch.randperm(20, generator=generator(1))
    turned = Chart.of_pair(lambda x: chart.encode(x[:, order.argsort()]), lambda z: chart.decode(z)[:, order])
    assert missed((turned, x[:, order])).statistic == pytest.approx(plain, abs=0.02)

    def pad(x: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(x, (0, 9), value=value)

    padded = Chart.of_pair(lambda x: chart.encode(x[:, :20]), lambda z: pad(chart.decode(z), 7.0))
    assert missed((padded, pad(x, 3.0))).statistic == pytest.approx(plain, abs=1e-6)
    exact = lossy(lambda decode: decode)
    assert missed((exact[0], torch.cat([exact[1], exact[1]]))).verdict == "ok"


def test_like_items_have_like_conditions():
    chart, x = lossy(lambda decode: decode)
    c = torch.rand(1000, 1, generator=generator(9))
    x = torch.cat([x, c], 1)  # no other value tells this one

    def of(kept: float) -> tuple:
        told = lambda z, c: torch.cat([chart.decode(z), kept * c], 1)  # noqa: E731
        return (lambda x, c: chart.encode(x[:, :20]), told), x

    assert missed(of(1.0), condition=c).verdict == "ok"
    assert missed(of(0.0), condition=c).verdict == "fail"


def test_equal_items_of_unlike_conditions_are_no_copies():
    x = normal(100, 6)
    x, c = torch.cat([x, x[:1].expand(60, 6)]), torch.zeros(160, 1)
    c[105:] = 1.0  # only of equal items does the condition make a difference
    assert missed(((lambda x, c: x, lambda z, c: z + c), x), condition=c).verdict == "cannot tell"


@pytest.mark.parametrize(
    ("case", "because"),
    [
        (lambda: embedded(square(), noise=0.0), "exact"),
        (lambda: folded(), "too few values"),
        (lambda: lossy(lambda decode: decode, n=60), "too few different items"),
        (lambda: lossy(lambda decode: decode, noise=3.0), "not like enough"),  # nobody sees the square
        (lambda: embedded(normal(500, 8), D=20), "not like enough"),
    ],
)
def test_where_like_items_are_not_alike_what_is_lost_cannot_be_told(case, because):
    finding = missed(case())
    assert finding.verdict == "cannot tell"
    assert because in finding.says


def test_a_loss_finer_than_neighbors_are_apart_is_never_ok():
    z = normal(1000, 6) * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.12, 0.12])
    chart, x = embedded(z, D=30, noise=0.02)
    kept = Chart.of_pair(
        lambda x: chart.encode(x)[:, :4], lambda z: chart.decode(torch.nn.functional.pad(z, (0, 2)))
    )
    assert missed((kept, x)).verdict in ("cannot tell", "warn")


def test_a_fold_is_found_and_shown():
    case = folded()
    fold = found(case, ["folds", "tears"])["folds"]
    assert fold.verdict == "fail"
    assert found(case, ["tears"])["tears"].verdict == "ok"
    x = case[1]
    for i, j in fold.also["pairs"]:
        assert (x[i, :2] - x[j, :2]).norm() < 0.5  # one code
        assert x[i, 2] * x[j, 2] < 0  # two sides
    assert set(fold.rows) <= set(fold.also["pairs"][:, 0].tolist())
    assert fold.remedies[0].name == "more-dimensions"


def test_a_tear_is_found_and_shown():
    of = found(torn(), ["tears", "components", *PATHS])
    assert of["tears"].verdict == "fail"
    assert torn()[1][list(of["tears"].rows), 0].abs().max() < 0.3
    assert of["components"].verdict == "fail"
    labels = of["components"].also["labels"]
    assert sorted(set(labels.tolist()) - {-1}) == [0, 1]
    assert of["interpolation"].verdict == "fail"
    # Where paths leave the codes is between the halves.
    middle = np.array(of["interpolation"].codes)[:, 0]
    assert ((middle > 0) & (middle < 5)).all()


@pytest.mark.parametrize("n", [1000, 2000])
def test_a_circle_in_one_dimension_is_torn(n):
    tear = found(circle(n), ["tears", "folds"])
    assert tear["tears"].verdict in ("warn", "fail")
    assert tear["folds"].verdict == "ok"
    angles = torch.atan2(circle(n)[1][:, 1], circle(n)[1][:, 0])[list(tear["tears"].rows)]
    assert angles.abs().min() > 3


def test_a_hole_is_found_and_shown():
    of = found(embedded(annulus(), prior="normal"), SAMPLES + PATHS)
    assert {finding.verdict for finding in of.values()} == {"fail"}
    assert np.linalg.norm(of["prior-holes"].codes, axis=1).shape == (20,)
    crossing = np.linalg.norm(of["interpolation"].codes, axis=1)
    assert crossing.max() < 1.4


def test_samples_of_a_fitted_density_are_judged_and_not_the_prior():
    from dataclasses import replace

    from chartae.parts.distributions import DiagonalNormal

    chart, x = embedded(5 + normal(1000, 2), prior="normal")
    right = DiagonalNormal(torch.full((2,), 5.0), torch.zeros(2))
    assert verdicts((chart, x), ["prior-holes"]) == {"prior-holes": "fail"}
    assert verdicts((replace(chart, sampler=lambda c: right), x), ["prior-holes"]) == {"prior-holes": "ok"}


def test_lost_neighbors_are_found():
    x = torch.rand(1000, 3, generator=generator())
    lost = Chart.of_pair(lambda x: x[:, :1], lambda z: z.expand(-1, 3))
    of = found((lost, x), ["neighborhoods", "folds"])
    assert of["neighborhoods"].verdict == "fail"
    assert of["folds"].verdict == "fail"


def test_trustworthiness_is_that_of_scikit_learn():
    from sklearn.manifold import trustworthiness

    x = torch.rand(400, 3, generator=generator())
    of = found(
        (Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, z[:, :1]], 1)), x), ["neighborhoods"]
    )
    also, X, Z = of["neighborhoods"].also, x.double().numpy(), x[:, :2].double().numpy()
    assert also["trustworthiness"] == pytest.approx(trustworthiness(X, Z, n_neighbors=10), abs=1e-6)
    assert also["continuity"] == pytest.approx(trustworthiness(Z, X, n_neighbors=10), abs=1e-6)


def test_crowded_codes_are_found():
    x = square()
    crowd = Chart.of_pair(lambda x: x * x.norm(dim=1, keepdim=True) ** 7, lambda z: z)
    density = found((crowd, x), ["density"])["density"]
    assert density.verdict in ("warn", "fail")
    assert density.also["log_density"].shape == (1000,)


def test_loops_of_codes_and_of_data():
    pytest.importorskip("ripser")
    assert verdicts(circle(), ["loops"]) == {"loops": "fail"}
    both = found(embedded(annulus()), ["loops"])["loops"]
    assert (both.verdict, both.also) == ("ok", {"loops": 1, "loops_of_data": 1})
    assert found(embedded(square()), ["loops"])["loops"].also == {"loops": 0, "loops_of_data": 0}


def test_loops_without_ripser_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ripser", None)
    loops = found(embedded(square(300)), ["loops"])["loops"]
    assert loops.verdict == "cannot tell"
    assert "pip install 'chartae[topology]'" in loops.says


# ------------------------------------------------------------------------------------------ cannot tell


def test_few_items_tell_nothing():
    case = embedded(normal(60, 2), prior="normal")
    assert set(verdicts(case, [*SHAPE, "loops", *PATHS, *SAMPLES]).values()) == {"cannot tell"}


def test_a_fold_in_eight_dimensions_is_not_denied():
    x = normal(2000, 9)
    x = x / x.norm(dim=1, keepdim=True)
    flat = Chart.of_pair(lambda x: x[:, :8], lambda z: torch.cat([z, 0 * z[:, :1]], 1))
    assert verdicts((flat, x), ["folds", "tears", "loops"]) == dict.fromkeys(
        ("folds", "tears", "loops"), "cannot tell"
    )


def test_where_all_is_reconstructed_nothing_is_folded():
    """Codes too sparse for neighbors, and residuals too small for a fold."""
    fold = found(embedded(normal(1000, 8), 20), ["folds"])["folds"]
    assert (fold.verdict, fold.also["by"]) == ("ok", "residuals")


def test_noise_tells_nothing_of_folds():
    x = normal(1000, 50)
    first = Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, z.new_zeros(len(z), 48)], 1))
    assert verdicts((first, x), ["folds", "tears"]) == {"folds": "cannot tell", "tears": "cannot tell"}


@pytest.mark.parametrize("name", [*SHAPE, "loops", *PATHS])
def test_codes_that_are_all_the_same_break_nothing(name):
    x = normal(500, 5)
    collapsed = Chart.of_pair(lambda x: 0 * x[:, :2], lambda z: torch.zeros(len(z), 5))
    kind = checks[name]
    try:
        reading = kind.measure(Evidence(collapsed, x))
    except DataError:
        return
    assert judge(reading, kind.ok, kind.fail) in ("cannot tell", "ok", "warn", "fail")


# ------------------------------------------------------------------------------------------ parts


def test_typical_distance_of_a_normal_distribution():
    assert typical(normal(4000, 1)) == pytest.approx(0.954, rel=0.05)  # median of |N(0, 2)|


def test_islands_are_counted():
    z = normal(900, 2) + 8 * torch.eye(3, 2).repeat(300, 1)
    labels = _islands(*nearest(z, z, 30, exclude_self=True), 30, 2.0)
    for i in range(3):
        assert len(set(labels[i::3].tolist())) == 1
    assert len(set(labels.tolist())) == 3
    assert scale_dimension(intrinsic_dimension(normal(1000, 2))) == pytest.approx(2, rel=0.15)


def test_what_is_said_reads_well():
    """Every sentence of every verdict can be filled in."""
    names = [*SHAPE, *PATHS, *SAMPLES]
    for case in (embedded(annulus(), prior="normal"), torn()):
        for name, finding in found(case, names).items():
            kind = checks[name]
            for sentence in kind.says.values():
                text = sentence.format(value=finding.statistic or 0.0, **finding.also)
                assert "{" not in text
            assert finding.says.endswith(".")


def test_it_is_the_same_each_time():
    one, two = (found(embedded(annulus(), prior="normal"), [*SHAPE, *PATHS, *SAMPLES]) for _ in range(2))
    assert {n: f.statistic for n, f in one.items()} == {n: f.statistic for n, f in two.items()}
