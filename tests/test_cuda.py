"""What is promised on a GPU, of which a CPU tests what of recorded steps needs none."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import chartae as ct
from chartae.core.arrays import constant
from chartae.core.contracts import Batch, Plan
from chartae.core.errors import TrainingError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density import fit_density, learning
from chartae.models.recipes import build
from chartae.training import kernels
from chartae.training.engine import train
from chartae.training.graphs import Recorded, ScriptedNoise, or_set_back
from chartae.training.kernels import RecordedGradients, gradients_for
from chartae.training.sources import Source

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NAMES = [r.name for r in ct.recipes()]
SMALL = {"latent_dim": 2, "hidden": (16,), "max_epochs": 3, "batch_size": 32, "random_state": 0}


def rows(n: int, shape: tuple[int, ...] = (5,), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape))


def test_scripted_noise_is_that_of_the_generator():
    like, plain = torch.zeros(1), Noise(3)
    noise = ScriptedNoise(torch.Generator().manual_seed(3))
    for step in range(3):
        if step:
            noise.refill()
        for shape in ((2, 3, 4), (1, 5)):
            assert torch.equal(noise.normal(shape, like), plain.normal(shape, like))
            assert torch.equal(noise.uniform(shape, like), plain.uniform(shape, like))


def test_scripted_noise_is_read_again_where_it_lies():
    like, noise = torch.zeros(1), ScriptedNoise(torch.Generator().manual_seed(3))
    first = noise.normal((2, 3), like), noise.uniform((4,), like)
    noise.again()
    assert noise.normal((2, 3), like).data_ptr() == first[0].data_ptr()
    assert noise.uniform((4,), like).data_ptr() == first[1].data_ptr()


def test_what_raises_is_set_back():
    parameter, buffer = nn.Parameter(torch.zeros(2)), torch.zeros(3)
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    torch.manual_seed(1)
    before = torch.rand(1, generator=generator.clone_state()), torch.get_rng_state()

    def work() -> None:
        with or_set_back([parameter, buffer], generator, cpu):
            with torch.no_grad():
                parameter.add_(1)
            buffer.add_(torch.rand(3) + torch.rand(3, generator=generator))
            raise RuntimeError("waits")

    with pytest.raises(RuntimeError, match="waits"):
        work()
    assert not parameter.any()
    assert not buffer.any()
    assert torch.equal(torch.rand(1, generator=generator), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    with or_set_back([buffer], generator, cpu):
        buffer.add_(1)
    assert buffer.all()


def test_constants_are_made_once_and_kept():
    like = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        first = constant([0.25, 0.5], like)
    for i in range(300):
        constant([float(i)], like)
    assert constant(np.array([0.25, 0.5]), like) is first
    assert constant([0.25, 0.5], torch.zeros(1)).dtype == torch.float32
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (x * first).sum().backward()
    assert x.grad.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_recipes_are_known_to_repeat(name, item):
    plan = build(name, Space(item[name], "normal"), latent_dim=2, hidden=(8,))
    assert kernels._is_known_to_repeat(plan)
    assert plan.model.posterior.waits == (name == "rhvae")


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


Mine.__module__ = "mine"


def test_steps_of_what_may_count_or_toss_coins_are_not_known_to_repeat():
    def plan(encoder: nn.Module) -> Plan:
        return build("ae", (4,), latent_dim=2, network=(encoder, nn.Linear(2, 4)))

    assert kernels._is_known_to_repeat(plan(nn.Linear(4, 2)))
    assert not kernels._is_known_to_repeat(plan(Mine()))
    for hook in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_pre_hook"):
        watched = plan(nn.Linear(4, 2))
        getattr(watched.model.posterior, hook)(lambda *args: None)
        assert not kernels._is_known_to_repeat(watched), hook
    watched = plan(nn.Linear(4, 2))
    next(watched.model.parameters()).register_hook(lambda grad: None)
    assert not kernels._is_known_to_repeat(watched)
    wrapped = build("rhvae", (4,), latent_dim=2, hidden=(8,), corruption=("gaussian", 0.1))
    assert wrapped.model.posterior.waits


@pytest.fixture(scope="module")
def item(refused) -> dict[str, tuple[int, ...]]:
    return {name: (9, 8) if refused(name, (5,)) else (5,) for name in NAMES}


def history(name: str, shape: tuple[int, ...], device: str, **parameters: object) -> ct.Autoencoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.Autoencoder(recipe=name, device=device, **{**SMALL, **parameters})
        return model.fit(rows(200, shape))


@on_gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_learns_on_a_gpu_as_on_a_cpu(name, item):
    gpu, cpu = (history(name, item[name], device, precision="float32") for device in ("cuda", "cpu"))
    for one, other in zip(gpu.history_, cpu.history_, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=2e-2, abs=2e-2)
    x = rows(20, item[name], seed=1)
    np.testing.assert_allclose(gpu.transform(x).shape, cpu.transform(x).shape)
    assert np.isfinite(gpu.transform(x)).all()
    assert np.isfinite(gpu.sample(4, random_state=0)).all()


@on_gpu
@pytest.mark.parametrize("name", [name for name in NAMES if name != "rhvae"])
def test_a_recorded_step_is_the_step(name, item, monkeypatch):
    losses, reasons = [], []

    class Spied(RecordedGradients):
        def close(self):
            reasons.append((self.recorded.able, len(self.recorded.tapes), self.recorded.reason))
            super().close()

    for way in (Spied, kernels.Gradients):
        torch.manual_seed(0)
        space = Space(item[name], "normal")
        plan = build(name, space, latent_dim=2, hidden=(16,))
        source = Source(rows(200, item[name]).astype(np.float32), space, device="cuda")
        with monkeypatch.context() as patch:
            patch.setattr(
                "chartae.training.engine.gradients_for", lambda p, d, compile=False, way=way: way(p, d)
            )
            found = [dict(e.log) for e in train(plan, source, epochs=4, batch_size=32)]
        losses.append([e["loss"] for e in found])
    able, tapes, reason = reasons[0]
    assert able, reason
    assert tapes
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-3)


@on_gpu
def test_recorded_draws_are_new_in_every_step():
    torch.manual_seed(0)
    plan = build("vae", (4,), latent_dim=2, hidden=(8,), corruption=("gaussian", 1.0))
    plan.model.cuda().train()
    gradients = gradients_for(plan, torch.float32)
    assert type(gradients) is RecordedGradients
    batch = Batch(torch.ones(6, 4, device="cuda"))
    found = [float(gradients(batch, Noise(0))[0]) for _ in range(8)]
    assert gradients.recorded.tapes
    assert len(set(found)) == 8


@on_gpu
def test_what_waits_for_the_gpu_is_not_recorded():
    def call(batch: Batch, noise: Noise) -> torch.Tensor:
        state.add_(1)
        return noise.normal((2,), batch.x) if batch.x.sum().item() > 0 else batch.x

    state = torch.zeros(1, device="cuda")
    recorded = Recorded(call, [state], torch.device("cuda"))
    noise, plain = Noise(0), Noise(0)
    for i in range(6):
        assert torch.equal(
            recorded(Batch(torch.ones(2, device="cuda")), noise).cpu(), plain.normal((2,), torch.zeros(1))
        )
        assert state.item() == i + 1
    assert not recorded.able
    assert not recorded.tapes
    assert "synchron" in recorded.reason


@on_gpu
def test_a_recording_that_fails_leaves_draws_as_they_were():
    def call(batch: Batch, noise: Noise) -> torch.Tensor:
        torch.cholesky_inverse(eye)  # waits, and torch does not know
        return torch.rand(2, device="cuda")

    eye, found = torch.eye(3, device="cuda").expand(8, 3, 3).contiguous(), []
    recorded = Recorded(call, [], torch.device("cuda"))
    for way in (recorded, call):
        torch.cuda.manual_seed(0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found.append([way(Batch(torch.ones(2, device="cuda")), Noise(0)).tolist() for _ in range(6)])
        assert ("not recorded" in str([w.message for w in said])) == (way is recorded)
    assert not recorded.able
    assert found[0] == found[1]


@on_gpu
def test_modules_of_the_users_are_recorded_where_they_are_vouched_for():
    plan = build("ae", (4,), latent_dim=2, network=(Mine(), nn.Linear(2, 4)))
    plan.model.cuda()
    assert type(gradients_for(plan, torch.float32)) is kernels.Gradients
    assert type(gradients_for(plan, torch.float32, compile=True)) is RecordedGradients


@on_gpu
@pytest.mark.parametrize("name", ["vae", "vq-vae", "iwae", "cvae"])
def test_a_training_on_a_gpu_goes_on_from_a_checkpoint(name):
    def fresh():
        torch.manual_seed(0)
        space = Space((5,), "normal")
        return build(name, space, latent_dim=2, hidden=(16,)), Source(
            rows(200).astype(np.float32), space, device="cuda"
        )

    whole = [dict(e.log)["loss"] for e in train(*fresh(), epochs=6, batch_size=32)]
    state = next(train(*fresh(), epochs=6, batch_size=32)).checkpoint()
    rest = [dict(e.log)["loss"] for e in train(*fresh(), epochs=6, batch_size=32, state=state)]
    assert rest == pytest.approx(whole[-len(rest) :], rel=1e-4)


@on_gpu
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_learns(name, item):
    model = history(name, item[name], "cuda", precision="bf16")
    assert np.isfinite([e["loss"] for e in model.history_]).all()


@on_gpu
def test_what_was_trained_on_a_gpu_is_read_without_one(tmp_path):
    model = history("vae", (5,), "cuda")
    model.save(tmp_path / "model")
    again = ct.load(tmp_path / "model").set_params(device="cpu")
    x = rows(20, seed=1)
    np.testing.assert_allclose(again.transform(x), model.transform(x), atol=1e-4)


@on_gpu
def test_conditions_and_heads_learn_on_a_gpu():
    y = np.arange(200) % 3
    model = ct.Autoencoder(recipe="cvae", device="cuda", **SMALL).fit(rows(200), y)
    assert np.isfinite(model.sample(4, [0, 1, 2, 1], random_state=0)).all()


@on_gpu
def test_rows_of_tokens_learn_on_a_gpu_though_their_steps_wait():
    texts = ["a thin one", "a wide two", "three"] * 30
    model = ct.TextVAE(latent_dim=2, hidden=(16,), max_epochs=4, batch_size=16, random_state=0, device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = [e["loss"] for e in model.fit(texts).history_]
    assert losses[-1] < losses[0]


@on_gpu
def test_densities_learn_on_a_gpu_and_end_where_the_model_is():
    z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    there, here = (fit_density("flow", z, device=device) for device in ("cuda", "cpu"))
    assert {p.device.type for p in there.parameters()} == {"cpu"}
    assert there.held_out == pytest.approx(here.held_out, abs=0.05)


@on_gpu
def test_the_learning_of_densities_is_recorded(monkeypatch):
    made = []

    class Watched(Recorded):
        def __call__(self, batch, noise):
            result = super().__call__(batch, noise)
            made.append((self.able, len(self.tapes)))
            return result

    monkeypatch.setattr(learning, "Recorded", Watched)
    fit_density("flow", torch.randn(400, 2, generator=torch.Generator().manual_seed(0)), device="cuda")
    assert made[-1][0]
    assert made[-1][1] > 0


@on_gpu
def test_a_fault_on_a_gpu_ends_with_finite_weights():
    X = rows(96)
    X[40, 0] = 1e25
    plan = build("ae", Space((5,), "normal"), latent_dim=2, hidden=(8,))
    source = Source(X, Space((5,), "normal"), device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TrainingError, match=r"not finite|too large"):
            list(train(plan, source, epochs=2, batch_size=16))
    assert all(bool(p.isfinite().all()) for p in plan.model.parameters())


@on_gpu
@pytest.mark.parametrize("network", ["conv2d", "resnet"])
def test_convolutions_learn_on_a_gpu(network):
    images = (np.random.default_rng(0).random((200, 16, 16)) > 0.5).astype(np.uint8)
    model = ct.Autoencoder(
        network=network,
        device="cuda",
        latent_dim=2,
        hidden=(8, 16),
        max_epochs=4,
        batch_size=32,
        random_state=0,
    ).fit(images)
    losses = [e["loss"] for e in model.history_]
    assert losses[-1] < losses[0]
