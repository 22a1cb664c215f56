"""A fit that is stopped, at whatever moment, goes on as if it had not been."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chartae.core.contracts import Plan, RawCondition
from chartae.core.errors import PlanError
from chartae.core.spaces import Space
from chartae.core.trees import pack, unpack
from chartae.models.recipes import build
from chartae.parts.units import infer_space
from chartae.training.engine import Epoch, best_weights, finish, train
from chartae.training.kernels import Gradients, gradients_for
from chartae.training.sources import Source

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5)) @ RNG.normal(size=(5, 5))
BITS = (RNG.random((90, 5)) < 0.4).astype(np.uint8)
LABELS = RawCondition(label=torch.from_numpy(np.arange(90) % 3))
TIMES = {"seconds", "rows_per_second"}


# ------------------------------------------------------------------- trees


def same(a: object, b: object) -> bool:
    """Whether two trees are equal, to the last bit and in their types."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_a_tree_comes_back_exactly():
    tree = {
        "numbers": [0.1, -0.0, 1e-320, math.inf, -math.inf, math.nan, 2**80, True, None, "ü/\n"],
        3: {None: (), True: []},
        "tensors": {
            "none": torch.zeros(0, 3),
            "one": torch.tensor(1.5, dtype=torch.float64),
            "low": torch.randn(3, 4).to(torch.bfloat16),
            "bytes": torch.get_rng_state(),
            "images": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        },
        "tuple": (1, (2.0, [torch.arange(3)])),
    }
    tensors, text = pack(tree)
    assert same(unpack(tensors, text), tree)
    assert all(t.is_contiguous() for t in tensors.values())


def test_what_is_there_twice_is_kept_once():
    w = torch.randn(3)
    tensors, text = pack({"a": w, "b": w, "view": w[:2], "copy": w.clone()})
    assert list(tensors) == ["a", "view", "copy"]
    assert same(unpack(tensors, text)["b"], w)


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(PlanError, match="a/0 is a Linear"):
        pack({"a": [nn.Linear(1, 1)]})


# ------------------------------------------------------------------- training


def plan_of(name: str, X: np.ndarray = X, **parameters: object) -> Plan:
    torch.manual_seed(1)
    return build(name, infer_space(X), **{"latent_dim": 2, "hidden": (16,), **parameters})


class Dropping(nn.Sequential):
    """An encoder of the user's whose layers have statistics and noise of their own."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def adamw(parameters: object, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, amsgrad=True)


#: How to make a plan, whether rows have labels, and the parameters of its training.
CASES = {
    "vae": ({"name": "vae"}, {}),
    "ae-feature": ({"name": "ae", "noise": "feature"}, {}),
    "denoising": ({"name": "denoising-ae"}, {}),
    "cvae": ({"name": "cvae", "condition": {"n_labels": 3, "vector_dim": 0}}, {}),
    "bernoulli": ({"name": "vae", "X": BITS}, {"schedule": "cosine"}),
    "warmup": ({"name": "vae", "warmup": 2.5}, {"schedule": "linear", "clip": 1.0}),
    "iwae": ({"name": "iwae"}, {}),
    "contractive": ({"name": "contractive-ae"}, {}),
    "yours": ({"name": "vae", "network": (Dropping(), nn.Linear(2, 5)), "hidden": None}, {}),
    "bf16": ({"name": "vae", "X": BITS}, {"precision": torch.bfloat16}),
    "wide": ({"name": "vae", "X": BITS, "hidden": (160, 160)}, {"precision": torch.bfloat16}),
    "overshoot": ({"name": "vae"}, {"learning_rate": 0.1, "patience": 2}),
    "optimizer": ({"name": "vae", "optimizer": adamw}, {}),
}


class Case:
    """A training that can be begun over and over."""

    def __init__(self, which: str) -> None:
        plan, self.training = CASES[which]
        self.plan_parameters = {**plan}
        self.optimizer = self.plan_parameters.pop("optimizer", None)
        self.rows = plan.get("X", X)
        self.condition = LABELS if "condition" in plan else None

    def begin(self, **more: object) -> tuple[Plan, object]:
        plan = plan_of(**copy.deepcopy(self.plan_parameters))
        if self.optimizer:
            plan = Plan(plan.model, plan.objective, self.optimizer)
        source = Source(self.rows, plan.model.space, self.condition)
        held_out, kept = torch.arange(27), torch.arange(27, 90)
        usual = {"epochs": 5, "batch_size": 16, "validation": source.subset(held_out), "seed": 3}
        return plan, train(plan, source.subset(kept), **{**usual, **self.training, **more})


def outcome(plan: Plan, log: list[dict]) -> dict:
    """All that a training leaves behind, but for the times."""
    history = [{k: v for k, v in row.items() if k not in TIMES} for row in log]
    return {"model": dict(plan.model.state_dict()), "history": history}


def through_a_file(state: dict) -> dict:
    return unpack(*pack(state))


@pytest.mark.parametrize("which", CASES)
def test_training_goes_on_to_the_same_bits(which):
    """After every step it is broken off, and gone on with in a new plan from what a file can hold."""
    case = Case(which)
    plan, epochs = case.begin()
    whole = outcome(plan, [dict(epoch.log) for epoch in epochs])
    state, log, stops = None, [], 0
    while True:
        plan, epochs = case.begin(state=state, pause=lambda: True)
        for epoch in epochs:
            if not epoch.complete:
                break
            log.append(dict(epoch.log))
        else:
            break
        state, stops = through_a_file(epoch.checkpoint()), stops + 1
        epochs.close()
        torch.rand(3)  # the caller's generator is nothing to it
    assert stops > 5
    assert same(outcome(plan, log), whole)
    # From the ends of epochs.
    plan, epochs = case.begin()
    states = [(through_a_file(epoch.checkpoint()), dict(epoch.log)) for epoch in epochs]
    for i, (state, _) in enumerate(states):
        plan, epochs = case.begin(state=state)
        log = [row for _, row in states[: i + 1]] + [dict(epoch.log) for epoch in epochs]
        assert same(outcome(plan, log), whole), i


def test_a_pause_changes_nothing():
    case = Case("denoising")
    plan, epochs = case.begin()
    whole = outcome(plan, [dict(epoch.log) for epoch in epochs])
    plan, epochs = case.begin(pause=lambda: True)
    seen = list(epochs)
    assert [e.number for e in seen if not e.complete] == [n for n in range(1, 6) for _ in range(4)][1:]
    assert same(outcome(plan, [dict(e.log) for e in seen if e.complete]), whole)


def test_a_checkpoint_is_a_copy():
    _, epochs = Case("vae").begin()
    first = next(epochs).checkpoint()
    before = copy.deepcopy(first)
    list(epochs)
    assert same(first, before)


class Failing(nn.Module):
    """A layer that fails now and then in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h / 0 if self.training and torch.rand(()) < 0.05 else h


@pytest.mark.filterwarnings("ignore:.*back to the last good state")
def test_a_recovery_from_faults_goes_on_too(monkeypatch):
    plan = {"name": "vae", "network": (Failing(), nn.Linear(2, 5)), "hidden": None}
    monkeypatch.setitem(CASES, "faults", (plan, {"epochs": 8}))
    case = Case("faults")
    plan, epochs = case.begin()
    whole = outcome(plan, [dict(epoch.log) for epoch in epochs])
    assert len({row["learning_rate"] for row in whole["history"]}) > 1  # there were faults
    state, log, stops = None, [], 0
    while True:
        plan, epochs = case.begin(state=state, pause=lambda: True)
        for epoch in epochs:
            if not epoch.complete:
                break
            log.append(dict(epoch.log))
        else:
            break
        state, stops = through_a_file(epoch.checkpoint()), stops + 1
    assert stops > 20
    assert same(outcome(plan, log), whole)


def test_a_state_whose_epoch_began_without_the_objective_s_own_is_taken_up():
    """Older states went back to the model, the optimizer and the average alone."""
    _, epoch, _ = broken_off(Case("vae"), 7)
    state = epoch.checkpoint()
    wanted = best_weights(state | {"best": None})
    for name in ("begun", "good"):
        model, _, optimizer, average = state[name]
        state[name] = (model, optimizer, average)
    assert same(best_weights(state | {"best": None}), wanted)
    epoch = next(Case("vae").begin(state=state)[1])
    with pytest.warns(UserWarning, match="back to the last good state"):
        epoch.loop.back("a fault")


def test_a_longer_training_goes_on_from_a_shorter_one():
    case = Case("vae")
    plan, epochs = case.begin(epochs=5)
    whole = outcome(plan, [dict(epoch.log) for epoch in epochs])
    plan, epochs = case.begin(epochs=2)
    short = list(epochs)
    state = None
    plan, epochs = case.begin(epochs=2)
    for epoch in epochs:
        state = epoch.checkpoint()
    plan, epochs = case.begin(epochs=5, state=state)
    log = [dict(e.log) for e in [*short, *epochs]]
    assert same(outcome(plan, log), whole)


def broken_off(case: Case, batches: int) -> tuple[Plan, Epoch, list[Epoch]]:
    """Break off after so many batches."""
    asked = itertools.count(1)
    plan, epochs = case.begin(pause=lambda: next(asked) >= batches)
    done = []
    for epoch in epochs:
        if not epoch.complete:
            epochs.close()
            return plan, epoch, done
        done.append(epoch)
    raise AssertionError("it came to its end")


def test_what_is_kept_of_a_training_that_was_broken_off():
    """The best epoch's weights; without validation the last whole epoch's; in the first, the last step's."""
    case = Case("vae")
    states = {}
    for epoch in case.begin()[1]:
        states[epoch.number] = (epoch.best, epoch.state())
    for more, batches, wanted in (
        ({}, 14, max(n for n in (1, 2, 3) if states[n][0])),
        ({"validation": None}, 14, 3),
        ({}, 2, None),
    ):
        case.training = more
        plan, epoch, done = broken_off(case, batches)
        assert len(done) == (batches - 1) // 4
        best = best_weights(epoch.checkpoint())
        last = {name: value.clone() for name, value in plan.model.state_dict().items()}
        assert same(dict(best), last if wanted is None else states[wanted][1])


def test_finishing_settles_as_an_end_does():
    case = Case("ae-feature")
    plan, epochs = case.begin(epochs=3)
    *_, last = epochs
    ended = outcome(plan, [])
    case.training = {"epochs": 9}
    plan, epochs = case.begin()
    for epoch in epochs:
        if epoch.number == last.number:
            break
    state = epoch.checkpoint()
    epochs.close()
    finish(plan, Source(X, plan.model.space).subset(torch.arange(27, 90)), state, seed=3)
    assert same(outcome(plan, []), ended)


def test_batches_can_be_left_out():
    source = Source(X, Space((5,))).subset(torch.arange(10, 75))
    for skip in range(6):
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        whole = [b.index for b in source.batches(16, generators[0])]
        rest = [b.index for b in source.batches(16, generators[1], skip=skip)]
        assert same(rest, whole[skip:])
        assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_training_goes_on_where_gradients_lie_otherwise(monkeypatch):
    """As on a device of another kind: weights and all else go on, averages of the optimizer begin anew."""

    def general(plan, dtype, *, compile=False):
        return Gradients(plan, dtype)

    def epochs(p: Plan, count: int, state: object = None) -> list[tuple[dict, dict]]:
        source = Source(X, infer_space(X))
        passed = train(p, source, epochs=count, batch_size=32, seed=3, state=state)
        return [(dict(epoch.log), through_a_file(epoch.checkpoint())) for epoch in passed]

    for first, then in ((general, gradients_for), (gradients_for, general)):
        monkeypatch.setattr("chartae.training.engine.gradients_for", first)
        begun = epochs(plan_of("vae"), 3)
        monkeypatch.setattr("chartae.training.engine.gradients_for", then)
        with pytest.warns(UserWarning, match="begun on another device: the optimizer's averages begin anew"):
            further = epochs(plan_of("vae"), 6, begun[1][1])
        assert [log["epoch"] for log, _ in further] == [3, 4, 5, 6]
        assert further[0][0]["loss"] == pytest.approx(begun[2][0]["loss"], rel=0.1)
