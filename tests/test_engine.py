"""The training loop: what an epoch is, when it stops, what it leaves behind, and what a broken loss does."""

import copy
import itertools
import math
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import chartae as ct
from chartae.core.arrays import as_tensor
from chartae.core.contracts import Batch, Objective, Plan, Term, Trace
from chartae.core.errors import PlanError, TrainingError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.parts.objectives import NegLogLik
from chartae.parts.units import infer_space
from chartae.training import loop
from chartae.training.engine import Epoch, _begin, train
from chartae.training.evaluation import evaluate
from chartae.training.kernels import Gradients, gradients_for
from chartae.training.sources import Source

X = np.random.default_rng(0).normal(size=(90, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
SPACE = infer_space(X)


def plan_of(name: str = "vae", seed: int = 0, **parameters: object) -> Plan:
    torch.manual_seed(seed)
    return build(name, copy.deepcopy(SPACE), **{"latent_dim": 2, "hidden": (16,), "noise": 1.0, **parameters})


def sources(share: float = 0.3) -> tuple[Source, Source]:
    held_out = int(share * len(X))
    whole = Source(X, SPACE)
    return whole.subset(torch.arange(held_out, len(X))), whole.subset(torch.arange(held_out))


def run(plan: Plan, **parameters: object) -> list[Epoch]:
    training, validation = sources()
    usual = {"epochs": 4, "validation": validation, "batch_size": 16}
    return list(train(plan, training, **{**usual, **parameters}))


def state_of(plan: Plan) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in plan.model.state_dict().items()}


def test_a_state_of_another_plan_leaves_the_model_as_it_was():
    state = run(plan_of(hidden=(8,)), epochs=1)[-1].checkpoint()
    plan = plan_of("iwae")
    with pytest.raises(PlanError, match="state is not of this plan"):
        run(plan, state=state)
    assert not any(getattr(m, "kernel", None) for m in plan.model.modules())
    assert not plan.objective.rounds


@pytest.fixture(params=["waits for each step", "as on a GPU"])
def either(request, monkeypatch):
    """The loop as on a CPU, and as on a GPU, whose weights move before the host has seen what a step gave."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(loop, "LATE", {"cpu"})


def begun(plan: Plan, source: Source) -> dict[str, Tensor]:
    """The state that training starts from: parts have looked at some rows."""
    _begin(plan, source, 0)
    return state_of(plan)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def finite(plan: Plan) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in plan.model.state_dict().values())


# ------------------------------------------------------------------- epochs


def test_an_epoch_says_what_happened():
    plan = plan_of()
    epochs = run(plan)
    assert [e.number for e in epochs] == [1, 2, 3, 4]
    terms = {"loss", "nll", "kl", "kl_per_dim"}
    for e in epochs:
        own = {"epoch", "seconds", "rows_per_second", "learning_rate", "grad_norm", "best"}
        assert set(e.log) == own | terms | {f"val_{t}" for t in terms}
        assert e.log["epoch"] == e.number
        assert e.log["grad_norm"] > 0
        for prefix in ("", "val_"):
            assert len(e.log[f"{prefix}kl_per_dim"]) == 2
            assert sum(e.log[f"{prefix}kl_per_dim"]) == pytest.approx(e.log[f"{prefix}kl"], rel=1e-4)
            total = e.log[f"{prefix}nll"] + e.log[f"{prefix}kl"]
            assert e.log[f"{prefix}loss"] == pytest.approx(total, rel=1e-5)
        assert e.log["rows_per_second"] == pytest.approx(63 / e.log["seconds"])
    assert epochs[-1].log["loss"] < epochs[0].log["loss"]


def test_means_weigh_rows_alike():
    """63 rows in batches of 16: the last one, of 15, must not count as much as the others."""
    plan = plan_of()
    training, _ = sources()
    for p in plan.model.parameters():
        p.requires_grad_(True)
    (epoch,) = train(plan, training, epochs=1, batch_size=16, learning_rate=0.0)
    again = evaluate(plan, training, batch_size=7)
    # Another noise in each, and 63 rows: the likelihoods agree roughly, the closed KL exactly.
    assert epoch.log["kl"] == pytest.approx(again["kl"], rel=1e-5)
    assert epoch.log["nll"] == pytest.approx(again["nll"], rel=0.1)


class Sometimes(Objective):
    """A term that only some batches have, and one that is a buffer which moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(2))

    def forward(self, trace: Trace) -> dict[str, Term]:
        self.count += 1
        terms = {"nll": Term(-trace.log_lik[0], per_dim=self.count)}
        return terms | ({"rare": Term(trace.batch.x.new_tensor(3.0), 0.0)} if self.count[0] % 2 else {})


def test_each_mean_is_over_the_batches_that_had_it():
    training, _ = sources()
    log = evaluate(Plan(plan_of().model, Sometimes()), training.subset(torch.arange(40)), batch_size=10)
    assert log["rare"] == 3.0
    assert log["nll_per_dim"] == [2.5, 2.5]  # of 1, 2, 3 and 4


def test_validation_is_the_same_each_time():
    plan = plan_of()
    _, validation = sources()
    before = torch.get_rng_state()
    plan.model.train()
    assert evaluate(plan, validation) == evaluate(plan, validation)
    assert evaluate(plan, validation, seed=1)["nll"] != evaluate(plan, validation)["nll"]
    assert plan.model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in plan.model.parameters())


def test_a_state_is_a_copy():
    plan = plan_of()
    training, _ = sources()
    states = [epoch.state() for epoch in train(plan, training, epochs=3, batch_size=16)]
    assert not same(states[0], states[1])
    assert same(states[2], state_of(plan))


def test_nothing_is_done_before_it_is_asked_for():
    plan = plan_of()
    before = state_of(plan)
    epochs = train(plan, sources()[0], epochs=3, batch_size=16)
    assert same(state_of(plan), before)
    next(epochs)
    assert not same(state_of(plan), before)
    epochs.close()


# ------------------------------------------------------------------- when it stops, and what it leaves


def test_the_best_weights_are_restored():
    plan = plan_of()
    training, validation = sources()
    states, losses, flags = [], [], []
    # A rate this large overshoots: the best epoch is not the last.
    for epoch in train(plan, training, epochs=12, validation=validation, batch_size=16, learning_rate=0.3):
        states.append(epoch.state())
        losses.append(epoch.log["val_loss"])
        flags.append(epoch.best)
    best = int(np.argmin(losses))
    assert best < 11
    assert same(state_of(plan), states[best])
    assert flags == [loss < min([math.inf, *losses[:i]]) for i, loss in enumerate(losses)]
    assert not plan.model.training
    assert evaluate(plan, validation)["loss"] == pytest.approx(losses[best], rel=1e-6)


def test_without_validation_the_last_weights_stay():
    plan = plan_of()
    *_, last = train(plan, sources()[0], epochs=3, batch_size=16)
    assert same(state_of(plan), last.state())
    assert not last.best


@pytest.mark.parametrize("leave", ["break", "close", "raise"])
def test_a_consumer_that_leaves_keeps_the_last_weights(leave):
    plan = plan_of()
    training, validation = sources()
    epochs = train(plan, training, epochs=50, validation=validation, batch_size=16, learning_rate=0.1)
    kept = None
    try:
        for epoch in epochs:
            kept = epoch.state()
            if epoch.number == 5:
                if leave == "raise":
                    raise KeyboardInterrupt
                break
    except KeyboardInterrupt:
        pass
    epochs.close()
    assert same(state_of(plan), kept)
    assert not plan.model.training
    assert all(p.grad is None for p in plan.model.parameters())
    copy.deepcopy(plan.model)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience(patience):
    """Nothing moves at rate 0: the first epoch is the best, and then it waits."""
    assert len(run(plan_of(), epochs=20, learning_rate=0.0, patience=patience)) == 1 + patience
    assert len(run(plan_of(), epochs=5, learning_rate=0.0, patience=None)) == 5
    assert len(run(plan_of(), epochs=5, learning_rate=0.0, patience=patience, validation=None)) == 5


@pytest.mark.parametrize("warmup", [3, 6.5])
def test_patience_waits_for_warm_ups(warmup):
    epochs = run(plan_of(warmup=warmup), epochs=30, learning_rate=0.0, patience=2)
    arrival = math.ceil(warmup)
    assert [e.number for e in epochs if e.best] == [arrival]
    assert len(epochs) == arrival + 2


def test_weights_from_before_a_warm_up_are_not_the_best():
    """With the KL switched off the loss is lower, and those weights are of another objective."""
    plan = plan_of(warmup=5)
    training, validation = sources()
    epochs = list(train(plan, training, epochs=10, validation=validation, batch_size=16))
    assert not any(e.best for e in epochs[:4])
    assert any(e.best for e in epochs[4:])


def test_the_weight_of_a_warm_up_rises_within_epochs():
    plan = plan_of(warmup=2)
    seen = []
    (kl,) = [part for part in plan.objective.parts if repr(part).startswith("kl")]
    kl.register_forward_hook(lambda *_: seen.append(float(kl.share)) if plan.model.training else None)
    list(train(plan, sources()[0], epochs=4, batch_size=16))
    np.testing.assert_allclose(seen, [*np.arange(8) / 8, *[1] * 8], atol=1e-6)  # four steps an epoch


@pytest.mark.parametrize("epochs", [1, 4])
def test_half_of_a_short_training_is_of_the_whole_objective(epochs):
    plan = plan_of(warmup=50.0)
    shares = []
    (kl,) = [part for part in plan.objective.parts if repr(part).startswith("kl")]
    kl.register_forward_hook(lambda *_: shares.append(float(kl.share)) if plan.model.training else None)
    found = run(plan, epochs=epochs, batch_size=16)
    steps = len(shares) // epochs
    expected = [min(1.0, 2 * i / steps / epochs) for i in range(epochs * steps)]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    assert any(e.best for e in found)  # and it has weights to keep


# ------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4)]),
    ],
)
def test_schedules(schedule, rates):
    epochs = run(plan_of(), schedule=schedule, learning_rate=1e-3, batch_size=1000)
    np.testing.assert_allclose([e.log["learning_rate"] for e in epochs], 1e-3 * np.array(rates))


def test_an_unknown_schedule():
    with pytest.raises(PlanError, match="use one of constant, cosine, linear"):
        next(train(plan_of(), sources()[0], epochs=1, schedule="stairs"))


@pytest.mark.parametrize("network", ["mlp", "linear"])
def test_clipping_bounds_a_step(network):
    """A step of plain gradient descent is the gradient: no longer than the bound."""
    hidden = None if network == "linear" else (16,)
    for clip, bound in ((0.5, 0.5), (None, math.inf)):
        plan = replace(plan_of(network=network, hidden=hidden), optimizer=torch.optim.SGD)
        before = begun(plan, sources()[0])
        (epoch,) = train(plan, sources()[0], epochs=1, batch_size=1000, learning_rate=1.0, clip=clip)
        after, names = state_of(plan), dict(plan.model.named_parameters())
        moved = torch.cat([(after[name] - before[name]).flatten() for name in names])
        assert float(moved.norm()) == pytest.approx(min(bound, epoch.log["grad_norm"]), rel=1e-3)
        assert epoch.log["grad_norm"] > 1  # what is logged is the gradient before it was clipped


def test_a_plan_may_bring_its_optimizer():
    made = []

    def optimizer(parameters: object, lr: float) -> torch.optim.Optimizer:
        made.append(torch.optim.RMSprop(parameters, lr=lr))
        return made[-1]

    run(replace(plan_of(), optimizer=optimizer), epochs=1)
    assert len(made) == 1
    assert made[0].state


def test_parameters_that_are_frozen_stay():
    plan = plan_of(network=(nn.Linear(5, 4), nn.Linear(2, 5)))
    for p in plan.model.posterior.parameters():
        p.requires_grad_(False)
    before = state_of(plan)
    run(plan)
    for name, value in state_of(plan).items():
        assert torch.equal(value, before[name]) == (not name.startswith("likelihood.network")), name


def test_frozen_layers_stay_in_a_plain_network():
    plan = plan_of()
    for p in plan.model.posterior.parameters():
        p.requires_grad_(False)
    before = state_of(plan)
    run(plan)
    after = state_of(plan)
    assert all(torch.equal(after[n], before[n]) for n in after if n.startswith("posterior."))
    assert not all(torch.equal(after[n], before[n]) for n in after if n.startswith("likelihood.network"))


class Twice(Objective):
    """A term that encodes the batch a second time."""

    def forward(self, trace: Trace) -> dict[str, Term]:
        again = trace.model.posterior(2 * trace.batch.x).point()
        rows = (again - trace.levels[0].q.point()).square().sum(1)
        return {"twice": Term(rows, unit="squared code units")}

    def __repr__(self) -> str:
        return "twice"


def test_a_network_may_be_called_twice_in_a_pass():
    batch = Source(X, SPACE).slice(0, 20)
    found = []
    for way in (Gradients, lambda plan: gradients_for(plan, torch.float32)):
        plan = plan_of()
        plan = replace(plan, objective=plan.objective + Twice())
        plan.model.train()
        chosen = way(plan)
        for _ in range(2):  # a second step must not see what the first one left
            chosen(batch, Noise(0))
        found.append([p.grad.clone() for p in plan.model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_between_epochs_the_model_is_the_consumer_s():
    """In evaluation mode, and differentiable as often as one likes."""
    plan = plan_of()
    x = Source(X, SPACE).slice(0, 3).x
    for _ in train(plan, sources()[0], epochs=2, batch_size=16):
        assert not plan.model.training
        jacobian = torch.func.jacrev(plan.model.posterior.network)(x)
        assert jacobian.shape == (3, 4, 3, 5)
        plan.model.posterior.network(x).sum().backward()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_fast_way_takes_the_same_steps(monkeypatch, clip, schedule):
    trained = []
    for way in (None, Gradients):
        if way is not None:
            monkeypatch.setattr("chartae.training.engine.gradients_for", lambda *a, compile: Gradients(*a))
        plan = plan_of()
        list(train(plan, sources()[0], epochs=2, batch_size=16, clip=clip, schedule=schedule))
        trained.append(state_of(plan))
    for name in trained[0]:
        torch.testing.assert_close(trained[0][name], trained[1][name], rtol=0, atol=2e-4)


# ------------------------------------------------------------------- randomness


class Noisy(nn.Module):
    """An encoder that draws from torch's global generator in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.5), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("network", ["mlp", "noisy"])
def test_the_generator_is_the_consumer_s_between_epochs(network):
    def plan() -> Plan:
        if network == "mlp":
            return plan_of("denoising-ae")
        torch.manual_seed(0)
        return plan_of(network=(Noisy(), nn.Linear(2, 5)), hidden=None)

    training, validation = sources()
    trained, drawn = [], []
    for disturb in (False, True):
        p = plan()
        torch.manual_seed(11)
        expected = torch.get_rng_state()
        for _ in train(p, training, epochs=3, validation=validation, batch_size=16):
            assert torch.equal(torch.get_rng_state(), expected)
            if disturb:
                drawn.append(torch.rand(3))
                expected = torch.get_rng_state()
        assert torch.equal(torch.get_rng_state(), expected)
        trained.append(state_of(p))
    # What the consumer draws neither changes training nor is changed by it.
    assert same(*trained)
    torch.manual_seed(11)
    assert torch.equal(torch.stack(drawn), torch.stack([torch.rand(3) for _ in range(3)]))


def test_dropout_differs_from_epoch_to_epoch():
    masks = []
    plan = plan_of(network=(Noisy(), nn.Linear(2, 5)), hidden=None)
    dropout = plan.model.posterior.network.module.layers[1]
    dropout.register_forward_hook(lambda m, a, out: masks.append(out == 0) if m.training else None)
    list(train(plan, sources()[0], epochs=2, batch_size=1000))
    assert not torch.equal(masks[0], masks[1])


def test_the_caller_s_settings_stay():
    torch.set_flush_denormal(False)
    training, validation = sources()
    small = torch.tensor([1e-38])
    for _ in train(plan_of(), training, epochs=2, validation=validation, batch_size=16):
        assert float((small * 1e-3)[0]) != 0  # not flushed to zero
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    for _ in train(plan_of(), training, epochs=2, batch_size=16, precision=torch.bfloat16):
        assert not torch.is_autocast_enabled("cpu")


class Seeing(nn.Module):
    """An encoder that notes which rows it meets in training."""

    seen: set[float] = set()  # noqa: RUF012 - of the class: a fit trains a copy

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.update(x[:, 0].tolist())
        return self.layer(x)


def test_held_out_rows_are_never_trained_on():
    Seeing.seen = set()
    rows = X.astype(np.float32)
    m = ct.VAE(latent_dim=2, network=(Seeing(), nn.Linear(2, 5)), scale="none", validation_fraction=0.3,
               max_epochs=2, random_state=0).fit(rows)  # fmt: skip
    held_out = set(rows[m.validation_rows_, 0].tolist())
    kept = set(np.delete(rows[:, 0], m.validation_rows_).tolist())
    assert len(held_out) == 27
    assert Seeing.seen == kept


@pytest.mark.parametrize("recipe", ["vae", "vq-vae"])
def test_a_gpu_s_loop_is_the_same_training(recipe, monkeypatch):
    plans = [plan_of(recipe, **({"codes": 8} if recipe == "vq-vae" else {})) for _ in range(2)]
    ours = run(plans[0])
    monkeypatch.setattr(loop, "LATE", {"cpu"})
    theirs = run(plans[1])
    assert same(*map(state_of, plans))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.log.keys() == other.log.keys()
        for name in mine.log.keys() - {"seconds", "rows_per_second"}:
            np.testing.assert_allclose(mine.log[name], other.log[name], rtol=1e-6, err_msg=name)


def test_a_gpu_s_loop_goes_on_from_a_pause(monkeypatch):
    """The batch that was taken ahead is the next one."""
    whole, parts = plan_of(), plan_of()
    asked, states = itertools.count(), []
    list(train(whole, sources()[0], epochs=3, batch_size=16))
    monkeypatch.setattr(loop, "LATE", {"cpu"})
    for epoch in train(parts, sources()[0], epochs=3, batch_size=16, pause=lambda: next(asked) % 3 == 1):
        if not epoch.complete:
            states.append(epoch.checkpoint())
    assert len(states) > 2
    again = plan_of()
    list(train(again, sources()[0], epochs=3, batch_size=16, state=states[1]))
    assert same(state_of(again), state_of(whole))


class Weighed(Objective):
    """What a plan's objective gives, with a weight of one number in a vector, and a number that is logged."""

    def __init__(self, inner: Objective) -> None:
        super().__init__()
        self.inner, self.weight = inner, nn.Parameter(torch.ones(1))
        self.needs, self.samples = inner.needs, inner.samples

    def forward(self, trace: Trace) -> dict[str, Term]:
        terms = {name: term._replace(weight=self.weight) for name, term in self.inner(trace).items()}
        return {**terms, "told": Term(torch.tensor(2.0, dtype=torch.float64), 0.0)}


@pytest.mark.usefixtures("either")
def test_a_weight_may_be_a_vector_of_one_number():
    plan = plan_of()
    plan = replace(plan, objective=Weighed(plan.objective))
    logs = [epoch.log for epoch in run(plan)]
    assert all(isinstance(log["loss"], float) and log["told"] == 2.0 for log in logs)
    assert finite(plan)


def test_a_copy_of_a_state_is_one():
    layer = nn.BatchNorm1d(3)
    (kept,) = loop.snapshot(layer)
    assert type(kept) is type(layer.state_dict())
    assert kept._metadata == layer.state_dict()._metadata
    layer(torch.randn(8, 3))
    assert not kept["running_mean"].any()
    loop.set_back([kept], layer)
    layer(torch.randn(8, 3))
    assert not kept["running_mean"].any()


# ------------------------------------------------------------------- losses that are not finite


class Bomb(nn.Module):
    """A layer whose output is not finite where the first value is large."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1] > 50, math.inf, x)


class Once(nn.Module):
    """A layer that fails at one call of training."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.calls, self.at = 0, at

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return x / 0 if self.calls == self.at and self.training else x


def unusual(value: float = 100.0) -> Source:
    rows = X.copy()
    rows[70, 0] = value
    return Source(rows, Space((5,)))


def failing(plan: Plan, source: Source, **parameters: object) -> tuple[list[str], str]:
    """Warnings of a training that fails, and its error."""
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        with pytest.raises(TrainingError) as caught:
            list(train(plan, source, **parameters))
    return [str(w.message) for w in recorded], str(caught.value)


@pytest.mark.usefixtures("either")
def test_a_row_that_breaks_the_loss_is_named():
    encoder = nn.Sequential(nn.Linear(5, 5), Bomb(), nn.Linear(5, 4))
    plan = plan_of(network=(encoder, nn.Linear(2, 5)), hidden=None)
    with torch.no_grad():  # the bomb sees the row as it is
        plan.model.posterior.network.module[0].weight.copy_(torch.eye(5))
        plan.model.posterior.network.module[0].bias.zero_()
    before = state_of(plan)
    said, error = failing(plan, unusual(), epochs=3, batch_size=30, learning_rate=1e-3)
    assert len(said) == 2
    what = r"the term 'nll' is not finite in epoch 1, batch \d "
    where = r"\(first seen in the output of layer posterior\.network\.module\.1 \(Bomb\)\)"
    assert all(re.match(what + where, text) for text in said)
    assert "learning_rate 0.0003" in said[0]
    assert "learning_rate 9e-05" in said[1]
    assert "3 tries" in error
    assert "\n" not in error
    assert same(state_of(plan), before)
    assert not plan.model.training


@pytest.mark.usefixtures("either")
def test_a_single_fault_is_survived_with_a_smaller_step():
    plan = plan_of(network=(nn.Sequential(Once(at=6), nn.Linear(5, 4)), nn.Linear(2, 5)), hidden=None)
    with pytest.warns(UserWarning, match=r"back to the last good state with learning_rate 0\.0003"):
        epochs = list(train(plan, sources()[0], epochs=4, batch_size=16, learning_rate=1e-3))
    assert [e.number for e in epochs] == [1, 2, 3, 4]
    np.testing.assert_allclose([e.log["learning_rate"] for e in epochs], [1e-3, 3e-4, 3e-4, 3e-4])
    assert finite(plan)


@pytest.mark.usefixtures("either")
def test_a_fault_goes_back_to_the_start_of_the_epoch():
    """Weights, optimizer and running estimates: as if the broken epoch had not begun."""
    encoder = nn.Sequential(Once(at=7), nn.Linear(5, 4))
    plan = plan_of(network=(encoder, nn.Linear(2, 5)), hidden=None, noise="global")
    training, _ = sources()
    seen: dict[str, Tensor] = {}
    later: list[dict[str, Tensor]] = []

    def watch(*_: object) -> None:
        if plan.model.training and plan.model.posterior.network.module[0].calls > 7:
            later.append(state_of(plan))

    plan.model.posterior.network.module[0].register_forward_hook(watch)
    with pytest.warns(UserWarning, match="not finite"):  # noqa: PT031
        for epoch in train(plan, training, epochs=2, batch_size=16):
            seen = seen or epoch.state()
    # One call may have been to look for the fault.
    assert any(same(state, seen) for state in later[:2])


@pytest.mark.usefixtures("either")
def test_a_step_far_too_large_ends_with_finite_weights():
    plan = plan_of()
    before = begun(plan, sources()[0])
    said, error = failing(plan, sources()[0], epochs=3, batch_size=16, learning_rate=1e30)
    assert len(said) == 2
    assert "lower learning_rate (it was 1e+30)" in error
    assert same(state_of(plan), before)


@pytest.mark.usefixtures("either")
def test_the_first_broken_layer_of_a_plain_network_is_named():
    """The layers that training evaluates in one go are looked at one by one."""
    plan = plan_of(hidden=(16, 16))
    with torch.no_grad():
        plan.model.posterior.network.layers[2].weight.fill_(3e38)
    _, error = failing(plan, sources()[0], epochs=1, batch_size=16)
    assert "output of layer posterior.network.layers.2 (Linear)" in error


@pytest.mark.usefixtures("either")
def test_the_last_good_state_is_one_that_a_step_came_from():
    """One step an epoch: the state after a step that was too large is no state to go back to."""
    plan = plan_of()
    before = begun(plan, sources()[0])
    failing(plan, sources()[0], epochs=5, batch_size=1000, learning_rate=1e30)
    assert same(state_of(plan), before)


@pytest.mark.usefixtures("either")
def test_a_smaller_step_helps_at_one_step_an_epoch():
    plan = plan_of(network="linear", hidden=None)
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        epochs = list(train(plan, sources()[0], epochs=6, batch_size=1000, learning_rate=1.5e6))
    assert "the gradient is too large for float32 in epoch 2, batch 0" in str(recorded[0].message)
    assert finite(plan)
    assert epochs[-1].number == 6


@pytest.mark.parametrize("validation", [False, True])
def test_the_last_step_is_checked_too(validation):
    plan = plan_of()
    training, held_out = sources()
    validation = held_out if validation else None
    failing(plan, training, validation=validation, epochs=1, batch_size=1000, learning_rate=1e38)
    assert math.isfinite(evaluate(plan, training)["loss"])


@pytest.mark.usefixtures("either")
def test_faults_that_were_recovered_from_are_forgotten():
    """Tries are counted for each fault: three faults in a long run are not three tries at one."""
    encoder = nn.Sequential(*(Once(at=at) for at in (6, 40, 80)), nn.Linear(5, 4))
    plan = plan_of(network=(encoder, nn.Linear(2, 5)), hidden=None)
    with pytest.warns(UserWarning, match="back to the last good state") as recorded:
        epochs = list(train(plan, sources()[0], epochs=25, batch_size=16, learning_rate=1e-3))
    assert len(recorded) == 3
    assert len(epochs) == 25
    assert epochs[-1].log["learning_rate"] == pytest.approx(1e-3 * 0.3**3)


@pytest.mark.usefixtures("either")
def test_a_held_out_row_that_breaks_the_loss_is_named():
    plan = plan_of()
    whole = unusual(1e25)
    training, held_out = (whole.subset(torch.arange(*ends)) for ends in ((60,), (60, 90)))
    before = begun(plan, training)
    said, error = failing(plan, training, validation=held_out, epochs=4, batch_size=16)
    assert "the term 'nll' is not finite in epoch 1, validation batch 0" in error
    assert "first seen in the likelihood" in error
    assert len(said) == 2
    assert same(state_of(plan), before)


@pytest.mark.usefixtures("either")
def test_gradients_whose_squares_overflow_are_clipped_or_refused():
    """Adam squares them in float32: an infinite second moment would stop a weight for good."""
    rows = 1e18 * X / np.abs(X).max()
    source = Source(rows, Space((5,)))
    clipped = plan_of(network="linear", hidden=None, noise=1e6)
    before = state_of(clipped)
    list(train(clipped, source, epochs=2, batch_size=16, clip=1.0))
    assert not same(state_of(clipped), before)
    _, error = failing(plan_of(network="linear", hidden=None, noise=1e6), source, epochs=2, batch_size=16)
    assert "the gradient is too large for float32" in error


class InTraining(nn.Module):
    """A layer that is broken in training only, as dropout or batch statistics may be."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 0 if self.training else x


def test_a_layer_that_breaks_in_training_only_is_named():
    plan = plan_of(network=(nn.Sequential(InTraining(), nn.Linear(5, 4)), nn.Linear(2, 5)), hidden=None)
    _, error = failing(plan, sources()[0], epochs=1, batch_size=16)
    assert "output of layer posterior.network.module.0 (InTraining)" in error


@pytest.mark.parametrize("recipe", ["ae", "denoising-ae", "vae"])
def test_the_noise_that_is_kept_is_of_the_final_weights_and_clean_rows(recipe):
    plan = plan_of(recipe, noise="feature")
    training, validation = sources()
    list(train(plan, training, validation=validation, epochs=5, batch_size=16, learning_rate=1e-2, seed=3))
    batch = training.take(training.rows)
    with torch.no_grad():
        # Many posterior samples: the estimate of a VAE is of one sample a row.
        px = plan.model.trace(batch, k=200 if recipe == "vae" else 1, noise=Noise(0)).px
    wanted = (batch.x - px.mean).square().mean((0, 1))
    tolerance = 0.25 if recipe == "vae" else 1e-5
    torch.testing.assert_close(plan.model.likelihood.log_spread.exp(), wanted, rtol=tolerance, atol=1e-6)


class Uncopied(InTraining):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("cannot be copied")


def test_a_fault_in_a_model_that_cannot_be_copied_is_reported():
    plan = plan_of(network=(nn.Sequential(nn.Identity(), nn.Linear(5, 4)), nn.Linear(2, 5)), hidden=None)
    plan.model.posterior.network.module[0] = Uncopied()
    _, error = failing(plan, sources()[0], epochs=1, batch_size=16)
    assert "the term 'nll' is not finite in epoch 1, batch 0" in error


def test_looking_for_a_fault_draws_nothing_from_the_caller_s_generator():
    """A denoising model corrupts its input in training mode, and so in the search."""
    encoder = nn.Sequential(InTraining(), nn.Linear(5, 2))
    plan = plan_of("denoising-ae", network=(encoder, nn.Linear(2, 5)), hidden=None)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    failing(plan, sources()[0], epochs=1, batch_size=16)
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_statistics_survive_a_last_row_alone():
    encoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    plan = plan_of(network=(encoder, nn.Linear(2, 5)), hidden=None)
    (epoch,) = train(plan, Source(X, SPACE).subset(torch.arange(33)), epochs=1, batch_size=16)
    assert math.isfinite(epoch.log["loss"])


def test_rows_that_are_not_finite_are_said_to_be():
    plan = plan_of()
    _, error = failing(plan, unusual(math.nan), epochs=1, batch_size=16)
    assert "the data themselves are not finite" in error


@pytest.mark.parametrize(
    ("noise", "scale"), [("global", "none"), ("feature", "none"), ("global", "auto"), ("item", "auto")]
)
@pytest.mark.parametrize("recipe", ["ae", "vae", "iwae"])
def test_inputs_of_a_million_do_not_overflow(recipe, noise, scale):
    """Log variances are bounded: a network's output of a million is a variance of e^20, and not infinite."""
    rows = 1e6 * X
    m = ct.Autoencoder(recipe=recipe, latent_dim=2, hidden=(16,), noise=noise, scale=scale, max_epochs=3,
                       learning_rate=1e-2, random_state=0).fit(rows)  # fmt: skip
    assert all(math.isfinite(e["loss"]) for e in m.history_)
    assert np.isfinite(m.score_samples(rows)).all()
    assert np.isfinite(m.sample(5, observation_noise=True, random_state=0)).all()


def test_one_outlier_does_not_overflow():
    rows = X.copy()
    rows[13] = 1e6
    m = ct.VAE(latent_dim=2, hidden=(16,), max_epochs=3, scale="none", random_state=0).fit(rows)
    assert np.isfinite(m.score_samples(rows)).all()
    assert m.predict(rows)[13] == -1


# ------------------------------------------------------------------- sources


def test_batches_go_through_every_row_once():
    source = Source(X, SPACE).subset(torch.arange(10, 75))
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = list(source.batches(16, generator))
        # A row alone has no batch statistics: in training it joins the batch before it.
        assert [len(b) for b in batches] == ([16] * 4 + [1] if generator is None else [16, 16, 16, 17])
        index = torch.cat([b.index for b in batches])
        assert sorted(index.tolist()) == list(range(10, 75))
        for b in batches:
            expected = SPACE.to_model(torch.from_numpy(X[b.index.numpy()]))
            torch.testing.assert_close(b.x, expected)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.cat([b.index for b in source.batches(16, generator)]).tolist() for _ in range(2)]
    assert orders[0] != orders[1]


def test_a_slice_is_a_batch():
    source = Source(X, SPACE)
    assert torch.equal(source.slice(3, 20).x, source.take(torch.arange(3, 20)).x)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">i2", ">f4", ">f8", "?"]
)
def test_every_type_of_number(dtype):
    rows = (np.arange(12).reshape(4, 3) % 2).astype(dtype)
    np.testing.assert_array_equal(as_tensor(rows).double().numpy(), rows.astype(float))
    for view in (rows[::-1], rows[:, ::2], rows.T):
        np.testing.assert_array_equal(as_tensor(view).double().numpy(), view.astype(float))
    assert Source(rows, Space((3,))).slice(0, 4).x.dtype == torch.float32


def test_rows_are_not_copied(tmp_path):
    rows = np.ascontiguousarray(X, dtype=np.float32)
    assert Source(rows, SPACE).data.data_ptr() == rows.ctypes.data
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    source = Source(mapped, SPACE)
    assert source.data.data_ptr() == mapped.ctypes.data
    list(train(plan_of(), source, epochs=1, batch_size=16))
    assert np.array_equal(mapped, rows)


def test_a_trace_in_evaluation_leaves_estimates_alone():
    plan = plan_of(noise="global")
    list(itertools.islice(train(plan, sources()[0], epochs=1, batch_size=16), 1))
    before = state_of(plan)
    plan.model.eval()
    plan.model.trace(Source(X, SPACE).slice(0, 90), k=2, noise=Noise(0))
    assert same(state_of(plan), before)


def test_a_term_may_not_take_a_name_of_the_log():
    class Named(Objective):
        def forward(self, trace: Trace) -> dict[str, Term]:
            return {"loss": Term(-trace.log_lik[0])}

    with pytest.raises(PlanError, match="a term may not be called 'loss'"):
        list(train(Plan(plan_of().model, Named()), sources()[0], epochs=1))


@pytest.mark.parametrize("name", ["aae", "vae-gan", "geco-vae"])
def test_what_an_objective_has_learned_is_set_back_too(name):
    """A critic that a step too large has broken would break every further try."""
    plan = plan_of(name)
    before = {key: value.clone() for key, value in plan.objective.state_dict().items()}
    failing(plan, sources()[0], epochs=3, batch_size=16, learning_rate=1e30)
    for key, value in plan.objective.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


def test_an_adversary_survives_a_step_that_is_too_large():
    plan = plan_of("aae")
    with pytest.warns(UserWarning, match="back to the last good state"):
        epochs = list(train(plan, sources()[0], epochs=3, batch_size=16, learning_rate=1000))
    assert epochs[-1].number == 3


def test_what_is_gone_back_to_stays_as_it_was():
    """A second fault goes back to the same state: optimizers may keep the tensors that they are given."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()

    step()
    good = loop.snapshot(model, optimizer)
    kept = copy.deepcopy(good)
    loop.set_back(good, model, optimizer)
    step()
    for now, then in zip(good[1]["state"].values(), kept[1]["state"].values(), strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)


class Odd(Objective):
    """What a user may write by mistake."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, trace):
        return self.made(trace)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda t: {"odd": Term(t.levels[0].z[0].abs())},
            r"'odd' has the shape \(5, 2\).*sum over the other",
        ),
        (lambda t: t.log_lik.mean(), "Odd gives Tensor, and terms by name are needed"),
    ],
)
def test_objectives_of_the_users_are_told_what_is_wrong(made, message):
    plan = build("vae", (4,), latent_dim=2, hidden=(8,))
    with pytest.raises(PlanError, match=message):
        Gradients(Plan(plan.model, NegLogLik() + Odd(made)))(Batch(torch.ones(5, 4)), Noise(0))
