"""Averages of weights: their closed form, their exchange with the weights, and trainings that keep them."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

import chartae as ct
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.parts.units import infer_space
from chartae.training import averages
from chartae.training.averages import POWER, Average
from chartae.training.engine import best_weights, finish, train
from chartae.training.evaluation import evaluate
from chartae.training.optimizers import Adam
from chartae.training.sources import Source

X = np.random.default_rng(0).normal(size=(90, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
SPACE = infer_space(X)


def plan_of(name="vae", **more):
    torch.manual_seed(0)
    return build(name, copy.deepcopy(SPACE), latent_dim=2, hidden=(16,), **more)


def shares(steps):
    """What each step counts for: the difference of its number's power from the one before."""
    powers = (np.arange(steps + 1) / steps) ** (POWER + 1)
    return np.diff(powers)


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@given(st.integers(1, averages.WITHIN), st.integers(0, 1000))
def test_steps_count_by_a_power_of_their_number(steps, seed):
    path = np.random.default_rng(seed).normal(size=(steps, 3))
    module = nn.Linear(3, 1, bias=False).double()
    average = Average(module)
    for point in path:
        module.weight.data.copy_(torch.from_numpy(point)[None])
        average.update()
    average.swap()
    np.testing.assert_allclose(module.weight.detach()[0], shares(steps) @ path, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1000, 5000])
def test_some_steps_stand_for_others(steps):
    module = nn.Linear(1, 1, bias=False).double()
    average, line = Average(module), np.arange(1, steps + 1.0)
    for point in line:
        module.weight.data.fill_(point)
        average.update()
    average.update(last=True)
    assert average.added == steps
    average.swap()
    found, exact = module.weight.item(), shares(steps) @ line
    assert found == pytest.approx(exact, rel=1 / averages.WITHIN)


def test_exchanging_twice_changes_nothing():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    module[2].weight = module[0].weight  # one tensor by two names
    average = Average(module)
    for step in (1.0, 2.0, 4.0):
        for p in module.parameters():
            p.data.fill_(step)
        module[1].running_mean.fill_(step)
        average.update()
    before, mean = weights(module), float(shares(3) @ [1.0, 2.0, 4.0])
    average.swap()
    for name in ("0.weight", "1.running_mean", "2.weight", "2.bias"):
        torch.testing.assert_close(module.state_dict()[name], torch.full_like(before[name], mean))
    average.swap()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_buffer_of_another_size_begins_anew():
    module = nn.Module()
    module.register_buffer("seen", torch.zeros(2))
    average = Average(module)
    module.seen = torch.ones(3)
    average.update()
    average.swap()
    assert module.seen.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["vae", "iwae", "vq-vae", "aae", "hvae", "hierarchical-vae"])
def test_training_goes_on_from_the_last_step(name):
    paths = []
    for averaging in (None, 1):
        plan = plan_of(name)
        epochs = train(plan, Source(X, SPACE), epochs=3, batch_size=16, averaging=averaging)
        paths.append([epoch.checkpoint() for epoch in epochs])
    for plain, averaged in zip(*paths, strict=True):
        assert plain["model"].keys() == averaged["model"].keys()
        for key, value in plain["model"].items():
            assert torch.equal(value, averaged["model"][key]), key


def test_an_epoch_has_the_average_of_all_steps_so_far():
    path = []

    class Seen(Adam):
        def step(self, *args, **kwargs):
            super().step(*args, **kwargs)
            path.append([p.detach().clone() for p in self.param_groups[0]["params"]])

    plan = plan_of()
    plan = type(plan)(plan.model, plan.objective, Seen)
    for epoch in train(plan, Source(X, SPACE), epochs=4, batch_size=16, averaging=1):
        each = shares(len(path))
        for i, value in enumerate(path[-1]):
            mean = sum(share * step[i] for share, step in zip(each, path, strict=True))
            live = next(p for p in epoch.model.parameters() if p.shape == value.shape and _near(p, mean))
            assert not torch.equal(live, value)
        last = weights(plan.model)
    assert len(path) == 24
    assert all(torch.equal(p, last[name]) for name, p in plan.model.named_parameters())  # and so it ends


def _near(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_is_judged_is_kept():
    training, held = (Source(X, SPACE).subset(torch.arange(*cut)) for cut in ((20, 90), (0, 20)))
    plan = plan_of(noise=1.0)
    for epoch in train(plan, training, epochs=5, validation=held, batch_size=16, averaging=1):
        assert evaluate(plan, held)["loss"] == pytest.approx(epoch.log["val_loss"], rel=1e-5)
        state = epoch.checkpoint()
    assert evaluate(plan, held)["loss"] == pytest.approx(state["best_loss"], rel=1e-5)


@pytest.mark.parametrize("averaging", [None, 1])
def test_a_consumer_that_leaves_has_what_it_has_seen(averaging):
    plan = plan_of(noise=1.0)
    epochs = train(plan, Source(X, SPACE), epochs=5, batch_size=16, averaging=averaging)
    for epoch in itertools.islice(epochs, 2):
        state, seen = epoch.checkpoint(), weights(plan.model)
    epochs.close()
    assert all(torch.equal(seen[name], value) for name, value in plan.model.state_dict().items())
    assert all(torch.equal(seen[name], value) for name, value in best_weights(state).items())
    again = plan_of(noise=1.0)
    finish(again, Source(X, SPACE), state)
    assert all(torch.equal(seen[name], value) for name, value in again.model.state_dict().items())


def test_a_pause_changes_nothing():
    ends = []
    for batches in (1000, 4):  # between two pauses
        asks, plan = itertools.cycle([False] * (batches - 1) + [True]), plan_of(noise=1.0)
        source, state, done = Source(X, SPACE), None, 0
        while done < 3:
            epochs = train(
                plan, source, epochs=3, batch_size=16, averaging=1, state=state, pause=asks.__next__
            )
            for epoch in epochs:
                state, done = epoch.checkpoint(), epoch.number if epoch.complete else done
                if not epoch.complete:
                    break
            epochs.close()
        ends.append(best_weights(state))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_after_a_fault_the_average_is_of_what_came_before():
    bad = X.copy()
    bad[50] = 1e30
    plan = plan_of(noise=1.0)
    order = iter([X, bad])  # the first is for the start

    class Once(Source):
        def batches(self, *args, **kwargs):
            return Source(next(order, X), SPACE).batches(*args, **kwargs)

    with pytest.warns(UserWarning, match="back to the last good state"):
        epochs = list(_checkpoints(train(plan, Once(X, SPACE), epochs=2, batch_size=16, averaging=1)))
    assert all(torch.isfinite(value).all() for value in plan.model.state_dict().values())
    assert [state["average"]["steps"] for _, state in epochs] == [6, 12]  # and none of what was gone back on


def test_a_held_out_row_that_breaks_the_loss_leaves_weights_as_they_were():
    bad = X[:20].copy()
    bad[3] = 1e30
    plan = plan_of(noise=1.0)
    held = itertools.chain([Source(bad, SPACE)], itertools.repeat(Source(X[:20], SPACE)))

    class Once(Source):
        def batches(self, *args, **kwargs):
            return next(held).batches(*args, **kwargs)

    usual = {"epochs": 2, "validation": Once(X[:20], SPACE), "batch_size": 16, "averaging": 1}
    with pytest.warns(UserWarning, match="validation batch"):
        epochs = list(_checkpoints(train(plan, Source(X[20:], SPACE), **usual)))
    assert [state["average"]["steps"] for _, state in epochs] == [5, 10]
    assert [epoch.log["learning_rate"] for epoch, _ in epochs] == [pytest.approx(3e-4)] * 2


def _checkpoints(epochs):
    return ((epoch, epoch.checkpoint()) for epoch in epochs)


def test_an_average_of_few_steps_is_left_out():
    module = nn.Linear(1, 1, bias=False).double()
    average, line = Average(module, fewest=100), np.arange(1, 201.0)
    for step, point in enumerate(line, 1):
        module.weight.data.fill_(point)
        average.update()
        assert average.ready is (step >= 100)
        average.swap()
        if step < 100:
            assert module.weight.item() == point
        else:  # what lies before the start counts as its first step
            assert module.weight.item() == pytest.approx(shares(step) @ line[:step], rel=1e-3)
        average.swap()
        assert module.weight.item() == point


@pytest.mark.parametrize("fewest, kept", [(7, [False, True, True]), (1000, [False, False, False])])
def test_epochs_have_averages_once_there_are_enough_steps(fewest, kept):
    plain, averaged = (
        [
            best_weights(epoch.checkpoint())
            for epoch in train(plan_of(), Source(X, SPACE), epochs=3, batch_size=16, averaging=averaging)
        ]
        for averaging in (None, fewest)
    )
    differ = [
        any(not torch.equal(a[name], b[name]) for name in a) for a, b in zip(plain, averaged, strict=True)
    ]
    assert differ == kept


def test_estimators_keep_averages(monkeypatch):
    monkeypatch.setattr("chartae.estimators.fitting.FEWEST", 8)
    kept = {}
    options = {"latent_dim": 2, "hidden": (16,), "max_epochs": 2, "random_state": 0}
    for averaging in (True, False):
        m = ct.VAE(averaging=averaging, **options).fit(X)
        kept[averaging] = weights(m.model_)
        assert m.get_params()["averaging"] is averaging
    assert any(not torch.equal(value, kept[False][name]) for name, value in kept[True].items())
    default = weights(ct.VAE(**options).fit(X).model_)
    assert all(torch.equal(value, kept[True][name]) for name, value in default.items())


def test_states_that_are_no_tensors_are_left_alone(monkeypatch):
    monkeypatch.setattr("chartae.estimators.fitting.FEWEST", 1)

    class Own(nn.Linear):
        def get_extra_state(self):
            return {"anything": 1}

        def set_extra_state(self, state):
            assert state == {"anything": 1}

    torch.manual_seed(0)
    network = (Own(5, 4), Own(2, 5))
    m = ct.VAE(latent_dim=2, network=network, max_epochs=2, averaging=True, random_state=0).fit(X)
    assert m.transform(X).shape == (90, 2)


def test_a_state_of_another_model_is_refused():
    average = Average(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="are of another model"):
        average.load_state_dict(Average(None).state_dict())


def test_what_is_not_averaged_costs_nothing():
    average = Average(None)
    average.update()
    average.swap()
    assert average.state_dict()["weights"] == {}


def test_averages_are_better_where_steps_do_not_shrink():
    digits = load_digits().data.astype(np.float32)
    space = Space((64,), "bernoulli", scale=16.0)
    rows = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    training, held = (Source(digits, space).subset(part) for part in (rows[300:], rows[:300]))
    losses = []
    for averaging in (None, 1):
        torch.manual_seed(0)
        plan = build("vae", space, latent_dim=8, hidden=(128,))
        for _ in train(plan, training, epochs=15, batch_size=32, learning_rate=3e-3, averaging=averaging):
            pass
        losses.append(evaluate(plan, held)["loss"])
    assert losses[1] < losses[0] - 0.1
