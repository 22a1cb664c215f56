"""Where training starts: weights that tell items apart, and decoders that know the mean of the data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from chartae.core.columns import Schema
from chartae.core.contracts import Batch
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.sources import Source


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize(("network", "shape"), [("mlp", (64,)), ("conv1d", (3, 40)), ("conv2d", (2, 20, 24))])
def test_codes_and_items_of_fresh_networks_differ(network, shape, activation):
    """Codes about as much as draws of the prior do; what is made of such draws, a little."""
    torch.manual_seed(0)
    space = Space(shape, "normal")
    for hidden in ((32, 32), (32, 32, 32)):
        model = build(
            "vae", space, latent_dim=16, network=network, hidden=hidden, activation=activation
        ).model
        with torch.no_grad():
            q = model.posterior(random(400, *shape))
            items = model.likelihood.network(random(400, 16))
        assert 0.03 < q.mean.std(0).mean() < 1.5
        assert q.log_var.std(0).mean() < 0.2 * q.mean.std(0).mean()
        assert 0.01 < items.std(0).mean() < 0.5


def skewed(likelihood: str) -> np.ndarray:
    """400 rows of 5 values whose means differ; one column is constant."""
    rng = np.random.default_rng(0)
    level = np.array([0.05, 0.2, 0.5, 0.9, 0.0])
    if likelihood in ("bernoulli", "continuous-bernoulli"):
        return (rng.random((400, 5)) < level).astype(np.float32)
    if likelihood in ("poisson", "negative-binomial"):
        return rng.poisson(20 * level, (400, 5)).astype(np.float32)
    if likelihood == "categorical":
        return rng.binomial(2, level, (400, 5)).astype(np.float32)
    return (rng.normal(size=(400, 5)) * 0.1 + 30 * level).astype(np.float32)


def begun(space: Space, x: Tensor, **more: object) -> nn.Module:
    """A model that has looked at rows, whose decoder says the same of all codes."""
    torch.manual_seed(0)
    model = build("vae", space, latent_dim=2, network="mlp", hidden=(8,), **more).model.eval()
    model.begin(Batch(x))
    with torch.no_grad():
        model.likelihood.network.layers[-1].weight.zero_()
    return model


@pytest.mark.parametrize("noise", [None, "item"])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    "likelihood",
    ["normal", "laplace", "student-t", "bernoulli", "poisson", "negative-binomial", "categorical"],
)
def test_decoders_start_at_the_mean_of_the_data(likelihood, gaps, noise):
    if noise is not None and likelihood in ("bernoulli", "poisson", "categorical"):
        pytest.skip("it has no noise")
    data = skewed(likelihood)
    space = infer_space(data, likelihood=likelihood, scale="none" if likelihood == "normal" else "auto")
    x = space.to_model(torch.from_numpy(data))
    if gaps:
        x[::7, 1] = torch.nan
    model = begun(space, x, noise=noise)
    px = model.likelihood(torch.zeros(1, 1, 2))
    if likelihood == "categorical":
        place = (x / model.likelihood.step).round()
        wanted = torch.stack([(place == i).sum(0) / (~x.isnan()).sum(0) for i in range(3)], -1)
        found = px.logits[0, 0].softmax(-1)
    else:
        wanted, found = x.nanmean(0), (px.expected() if hasattr(px, "expected") else px.point())[0, 0]
    # A value that was never seen is not impossible: one row in 401.
    torch.testing.assert_close(found, wanted, atol=0.005 * float(x.nan_to_num().abs().max()), rtol=0.01)


def test_each_column_of_a_table_starts_at_its_own_mean():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "color": rng.choice(["blue", "red"], 400, p=[0.1, 0.9]),
            "size": rng.normal(5.0, 2.0, 400),
            "visits": rng.poisson(3.0, 400),
        }
    )
    schema = Schema.learn(table)
    values = schema.encode(table)
    space = infer_space(values, schema=schema)
    x = space.to_model(torch.as_tensor(values, dtype=torch.float32))
    model = begun(space, x)
    drawn = model.likelihood(torch.zeros(1, 2000, 2)).draw(1, Noise(0)).z.reshape(-1, 3)
    spread = x.std(0) / 400**0.5
    assert ((drawn.mean(0) - x.mean(0)).abs() < 4.5 * spread * 1.5).all()


def test_a_module_of_the_user_s_is_left_as_it_is():
    mine = (nn.Linear(5, 4), nn.Linear(2, 5))
    before = [p.clone() for m in mine for p in m.parameters()]
    x = torch.ones(20, 5) * 3
    model = build("vae", Space((5,), "normal"), latent_dim=2, network=mine).model
    model.begin(Batch(x))
    after = [p for m in (model.posterior, model.likelihood) for p in m.network.module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_training_does_not_start_with_a_plateau():
    """Images of two classes: after 60 steps they are told apart; with PyTorch's weights they are not yet."""
    rng = np.random.default_rng(0)
    prototypes = rng.random((2, 196)) < 0.3
    y = rng.integers(0, 2, 960)
    x = (rng.random((960, 196)) < 0.05 + 0.9 * prototypes[y]).astype(np.float32)
    space = infer_space(x, likelihood="bernoulli", layout="flat")
    torch.manual_seed(0)
    plan = build("vae", space, latent_dim=2, hidden=(64, 64), network="mlp")
    _, epoch = train(plan, Source(x, space), epochs=2, batch_size=32, learning_rate=1e-3)
    mean = x.mean(0).clip(1e-3, 1 - 1e-3)
    alike = -(x * np.log(mean) + (1 - x) * np.log1p(-mean)).sum(1).mean()
    assert epoch.log["loss"] < alike - 20  # nats


@pytest.mark.parametrize(("recipe", "part"), [("vae", "likelihood"), ("vamp-vae", "prior")])
@pytest.mark.parametrize("begin", [True, False])
def test_a_trained_model_keeps_what_its_parts_began_with(recipe, part, begin):
    """A second training would else set a decoder's last bias, or pseudo-inputs, as if there had been none."""
    data = skewed("bernoulli")
    space = infer_space(data, likelihood="bernoulli")
    torch.manual_seed(0)
    plan, source = build(recipe, space, latent_dim=2, network="mlp", hidden=(8,)), Source(data, space)
    part = getattr(plan.model, part)
    with torch.no_grad():
        for p in part.parameters():
            p.add_(1.0)
    before = [p.detach().clone() for p in part.parameters()]
    for _ in train(plan, source, epochs=1, learning_rate=1e-6, begin=begin):
        pass
    moved = max(float((p.detach() - q).abs().max()) for p, q in zip(part.parameters(), before, strict=True))
    assert (moved > 0.1) == begin
