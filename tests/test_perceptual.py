"""MS-SSIM: its identities, a slow direct computation, and training by it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import chartae as ct
from chartae.core.contracts import Batch, Plan
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space, Support
from chartae.models.recipes import build
from chartae.parts.objectives import MSSSIM, ms_ssim
from chartae.training.kernels import Gradients


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Noise that is smooth, so that it has structure at several scales."""
    noise = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)
    return (0.5 + 2 * (smooth - 0.5) + 0.2 * (noise - 0.5)).clamp(0, 1)


# ------------------------------------------------------------------- a direct computation


def window_of(size: int) -> np.ndarray:
    places = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(places**2) / (2 * 1.5**2))
    return weights / weights.sum()


def slow_similarity(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Means over all places of a window of l * cs and of cs, by loops and weighted moments."""
    high, wide = min(11, x.shape[0]), min(11, x.shape[1])
    weight = np.outer(window_of(high), window_of(wide))
    both, structure = [], []
    for i in range(x.shape[0] - high + 1):
        for j in range(x.shape[1] - wide + 1):
            a, b = x[i : i + high, j : j + wide], y[i : i + high, j : j + wide]
            mu_a, mu_b = (weight * a).sum(), (weight * b).sum()
            var_a, var_b = (weight * (a - mu_a) ** 2).sum(), (weight * (b - mu_b) ** 2).sum()
            cov = (weight * (a - mu_a) * (b - mu_b)).sum()
            luminance = (2 * mu_a * mu_b + 0.01**2) / (mu_a**2 + mu_b**2 + 0.01**2)
            structure.append((2 * cov + 0.03**2) / (var_a + var_b + 0.03**2))
            both.append(luminance * structure[-1])
    return float(np.mean(both)), float(np.mean(structure))


def slow(x: np.ndarray, y: np.ndarray) -> float:
    """MS-SSIM of one channel, as published, for likenesses that are not negative."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    scales = 1
    while scales < 5 and min(x.shape) >> scales >= 11:
        scales += 1
    weights = np.array(weights[:scales]) / sum(weights[:scales])
    out = 1.0
    for j, weight in enumerate(weights):
        both, structure = slow_similarity(x, y)
        factor = both if j == scales - 1 else structure
        assert factor > 0.01
        out *= factor**weight
        h, w = x.shape[0] // 2, x.shape[1] // 2
        x, y = (t[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for t in (x, y))
    return out


@pytest.mark.parametrize("shape", [(28, 28), (45, 23), (12, 30), (9, 8), (5, 40), (1, 3)], ids=str)
def test_it_is_what_loops_say(shape):
    x = images(3, 2, *shape).double()
    y = (0.8 * x + 0.2 * images(3, 2, *shape, seed=1).double()).clamp(0, 1)
    expected = [[slow(x[i, c].numpy(), y[i, c].numpy()) for c in range(2)] for i in range(3)]
    torch.testing.assert_close(ms_ssim(x, y), torch.tensor(expected, dtype=torch.float64).mean(1))


@pytest.mark.parametrize(
    ("side", "scales"), [(1, 1), (11, 1), (21, 1), (22, 2), (44, 3), (88, 4), (175, 4), (176, 5), (400, 5)]
)
def test_images_have_as_many_scales_as_fit(side, scales, monkeypatch):
    seen = []
    from chartae.parts.objectives import perceptual

    known = perceptual._similarity
    monkeypatch.setattr(perceptual, "_similarity", lambda x, y: seen.append(x.shape[-1]) or known(x, y))
    ms_ssim(*images(2, 1, side, side).unsqueeze(1))
    assert seen == [side >> j for j in range(scales)]


# ------------------------------------------------------------------- identities


@given(st.integers(1, 3), st.integers(1, 50), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=25)
def test_identities_at_any_size(channels, height, width, seed):
    x, y = images(2, channels, height, width, seed=seed), images(2, channels, height, width, seed=seed + 100)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(2))
    torch.testing.assert_close(ms_ssim(x, y), ms_ssim(y, x))
    assert bool(((ms_ssim(x, y) > 0) & (ms_ssim(x, y) <= 1)).all())
    # Turned, and with channels in another order, it is the same.
    torch.testing.assert_close(ms_ssim(x.mT, y.mT), ms_ssim(x, y))
    torch.testing.assert_close(ms_ssim(x.flip(1), y.flip(1)), ms_ssim(x, y))
    # Rows do not know of each other.
    torch.testing.assert_close(ms_ssim(x[:1], y[:1]), ms_ssim(x, y)[:1])


def test_it_falls_as_images_grow_unlike():
    x = images(4, 1, 48, 48)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = torch.stack([ms_ssim(x, x + s * noise) for s in (0.0, 0.02, 0.05, 0.1, 0.3)])
    assert bool((found.diff(dim=0) < 0).all())


def test_a_change_of_brightness_weighs_less_than_one_of_structure():
    """Of the same squared error: what MS-SSIM is for."""
    x = 0.25 + 0.5 * images(4, 1, 48, 48)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert bool((ms_ssim(x, x + 0.1) > ms_ssim(x, x + 0.1 * noise / noise.std()) + 0.05).all())


@pytest.mark.parametrize("other", ["itself", "negative", "constant", "far"])
def test_gradients_are_finite_wherever_images_are(other):
    x = images(3, 2, 24, 30)
    y = {"itself": x, "negative": 1 - x, "constant": 0 * x + 0.3, "far": 50 * x - 20}[other]
    y = y.clone().requires_grad_()
    ms_ssim(x, y).sum().backward()
    assert bool(torch.isfinite(y.grad).all())
    if other != "itself":  # which is the maximum
        assert bool((y.grad.flatten(1).abs().max(1).values > 0).all())


def test_its_gradient_is_right_below_the_floor_too():
    x = images(2, 1, 12, 12).double()
    y = (1 - x).requires_grad_()
    assert bool((ms_ssim(x, y) < 0.01).any())
    assert torch.autograd.gradcheck(lambda y: ms_ssim(x, y), y, eps=1e-7, atol=1e-6)


def test_it_is_not_computed_in_half_precision():
    x, y = images(2, 1, 30, 30), images(2, 1, 30, 30, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        half = ms_ssim(x, y)
    assert torch.equal(half, ms_ssim(x, y))


@pytest.mark.parametrize("shapes", [((2, 8, 8), (2, 8, 8)), ((2, 1, 8, 8), (2, 1, 8, 9))])
def test_what_is_no_pair_of_images_is_refused(shapes):
    with pytest.raises(PlanError, match=r"give two of \(n, C, H, W\)"):
        ms_ssim(*(torch.zeros(shape) for shape in shapes))


# ------------------------------------------------------------------- the objective


def plan(space: Space, **parameters: object) -> Plan:
    torch.manual_seed(0)
    given = {"latent_dim": 3, "hidden": (8,), "network": "mlp", **parameters}
    return build("ms-ssim-vae", space, **given)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize(
    "space",
    [
        Space((24, 20), "bernoulli", scale=255.0, support=Support(0.0, 255.0), value_range=(3.0, 250.0)),
        Space((24, 20, 3), "normal", center=np.full((3, 1, 1), 90.0), scale=50.0, value_range=(10.0, 250.0)),
    ],
    ids=["bernoulli", "normal"],
)
def test_the_objective_compares_in_the_range_of_the_data(space, k):
    p = plan(space)
    low, high = (0.0, 255.0) if space.likelihood == "bernoulli" else (10.0, 250.0)
    X = low + (high - low) * images(4, *space.model_shape)
    x = space.to_model(X.squeeze(1) if space.layout == "hw" else X.movedim(1, -1))
    p.model.eval()
    t = p.model.trace(Batch(x), k=k, noise=Noise(0))
    point = t.px.point() * space.scale.float() + space.center.float()
    rows = torch.stack([1 - ms_ssim((X - low) / (high - low), (y - low) / (high - low)) for y in point])
    terms = p.objective(t)
    torch.testing.assert_close(terms["ms_ssim"].rows, rows.mean(0), rtol=1e-4, atol=1e-5)
    assert set(terms) == {"ms_ssim", "kl", "nll"}
    assert terms["nll"].weight == 0.0
    assert terms["ms_ssim"].weight == 100.0


def test_missing_values_count_as_reconstructed():
    p = plan(Space((12, 12), gaps=True), noise=1.0)
    p.model.eval()
    x = images(3, 1, 12, 12)
    x[0], x[1, :, 3:6] = torch.nan, torch.nan
    t = p.model.trace(Batch(x), k=1, noise=Noise(0))
    term = MSSSIM()(t)["ms_ssim"]
    assert float(term.rows[0].detach()) == pytest.approx(0, abs=1e-6)
    filled = torch.where(x.isnan(), t.px.point()[0], x)
    torch.testing.assert_close(term.rows, 1 - ms_ssim(filled, t.px.point()[0]))
    term.value().backward()
    assert all(torch.isfinite(g.grad).all() for g in p.model.parameters() if g.grad is not None)


def test_data_of_one_value_have_a_likeness():
    m = ct.Autoencoder(recipe="ms-ssim-vae", latent_dim=1, hidden=(4,), max_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match="all items are the same, and there is nothing to learn"):
        m.fit(np.full((20, 9, 9), 7.0))
    assert math.isfinite(m.history_[0]["loss"])


@pytest.mark.parametrize(
    ("space", "parameters", "message"),
    [
        (Space((64,)), {}, r"^ms_ssim does not go with items of shape \(64,\), .*layout='hw'"),
        (Space((9, 9), layout="any"), {}, "which are no images"),
        (
            Space((9, 9)),
            {"noise": "item"},
            "does not go with likelihood='normal', .* with noise='global', 'feature' or",
        ),
        (Space((9, 9), "categorical", 3), {}, "use likelihood='bernoulli'"),
        (Space((9, 9), "student-t"), {}, "likelihood='student-t', .*: use likelihood='bernoulli'"),
        (Space((9, 9), "normal-mixture"), {}, "use likelihood='bernoulli'"),
    ],
)
def test_what_it_cannot_teach_is_refused(space, parameters, message):
    with pytest.raises(PlanError, match=message) as caught:
        plan(space, **parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("likelihood", ["normal", "laplace", "bernoulli", "continuous-bernoulli", "poisson"])
def test_whatever_is_located_is_taught_whole(likelihood):
    p = plan(Space((9, 9), likelihood), activation="tanh")
    Gradients(p)(Batch(torch.rand(8, 1, 9, 9)), Noise(0))
    assert all(bool((g.grad != 0).any()) for g in p.model.parameters())


def test_training_by_likeness_makes_images_more_alike():
    """Blobs at random places: with MS-SSIM in the loss, reconstructions are more alike than an ELBO's."""
    rng = np.random.default_rng(0)
    at = rng.uniform(4, 12, (300, 2, 1, 1))
    row, column = np.mgrid[:16, :16]
    X = np.exp(-((row - at[:, 0]) ** 2 + (column - at[:, 1]) ** 2) / 8)
    training = {"latent_dim": 2, "hidden": (64,), "network": "mlp", "max_epochs": 25, "patience": None}
    training |= {"learning_rate": 5e-3, "batch_size": 50, "random_state": 0, "likelihood": "bernoulli"}
    m = ct.Autoencoder(recipe="ms-ssim-vae", recipe_params={"lam": 1000.0}, **training).fit(X)
    first, last = (m.history_[i]["val_ms_ssim"] for i in (0, -1))
    assert last < 0.3 < 0.6 < first
    likeness = ms_ssim(*(torch.from_numpy(np.asarray(t)).double().unsqueeze(1) for t in (X, m.project(X))))
    assert float(likeness.mean()) > 0.7
