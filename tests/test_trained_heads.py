"""Heads that are trained with their encoder: the objective, its mathematics, and what is gained by it."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from torch import nn
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app
from chartae.core.contracts import Batch, Plan
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.parts.objectives import KL, Labels, NegLogLik
from chartae.parts.readouts import Silent, readout
from chartae.training.engine import train
from chartae.training.kernels import Gradients, LayerGradients, gradients_for
from chartae.training.optimizers import Shared
from chartae.training.sources import Source
from chartae.transfer import Spreading, target_space, tune

QUICK = {"hidden": (32,), "max_epochs": 20, "learning_rate": 5e-3, "patience": None, "random_state": 0}

FAST = {"max_epochs": 50, "learning_rate": 0.05, "random_state": 0}


def turned(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Classes by a direction of little variance, which an autoencoder of one dimension has no use for."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(n, 3)) * [3.0, 2.0, 0.5]
    y = (Z[:, 2] > 0).astype(int)
    return (Z @ np.linalg.qr(rng.normal(size=(3, 3)))[0]).astype(np.float32), y


def planned(objective, y=None, **space):
    """A small VAE with a head of three classes, and a batch of which the second row is not known."""
    plan = build("vae", (4,), latent_dim=2, hidden=(8,))
    plan.model.head = readout(Space((1,), "categorical", levels=3, scale=2.0, gaps=True), 2)
    y = torch.tensor([0.0, torch.nan, 1.0, 0.5]) if y is None else y
    return Plan(plan.model, objective), Batch(torch.randn(4, 4), y=y)


# ------------------------------------------------------------- the objective


def test_labels_are_the_mean_over_rows_that_have_one():
    plan, batch = planned(NegLogLik() + KL() + 2.0 * Labels())
    trace = plan.model.trace(batch, k=3, noise=Noise(0))
    logits = plan.model.head(trace.levels[0].z).logits[:, :, 0].log_softmax(-1)
    by_hand = -torch.stack([logits[:, 0, 0], logits[:, 2, 2], logits[:, 3, 1]]).mean()
    term = plan.objective(trace)["labels"]
    torch.testing.assert_close(term.rows, by_hand)
    torch.testing.assert_close(term.value(), 2 * by_hand)


def test_without_any_label_nothing_is_lost_and_nothing_breaks():
    plan, batch = planned(Labels(), torch.full((4,), torch.nan))
    loss, _ = Gradients(plan)(batch, Noise(0))
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in plan.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("target", ["normal", "counts"])
def test_numbers_that_are_not_known_leave_estimates_as_they_are(target):
    y = np.random.default_rng(0).poisson(3.0, size=50).astype(float)
    space = target_space(target, y)
    head = readout(space, 2).train()
    model = build("vae", (4,), latent_dim=2, hidden=(8,)).model.train()
    model.head = head
    for told in (torch.full((4,), torch.nan), torch.tensor([0.1, torch.nan, 0.3, torch.nan])):
        value = Labels()(model.trace(Batch(torch.randn(4, 4), y=told), k=1, noise=Noise(0)))["labels"].value()
        assert torch.isfinite(value)
    assert all(torch.isfinite(b).all() for b in head.buffers())


def test_labels_need_a_head_and_labels():
    model = build("vae", (4,), latent_dim=2, hidden=(8,)).model
    with pytest.raises(PlanError, match="labels needs a head, and this model has none"):
        Plan(model, Labels())
    plan, _ = planned(Labels())
    with pytest.raises(PlanError, match="give the source its y"):
        plan.objective(plan.model.trace(Batch(torch.zeros(2, 4)), k=1, noise=Noise(0)))


def test_a_bottleneck_has_the_bound_of_its_paper():
    """Without a decoder, what is left of an ELBO is its KL: Alemi et al. 2017, equation 17."""
    plan, batch = planned(Labels() + 0.1 * KL())
    plan.model.likelihood = Silent((4,))
    trace = plan.model.trace(batch, k=1, noise=Noise(0))
    assert trace.log_lik.abs().max() == 0
    torch.testing.assert_close(
        trace.log_joint_ratio, trace.levels[0].log_prior - trace.levels[0].log_posterior
    )
    with pytest.raises(PlanError, match="no decoder"):
        trace.px.point()


def test_layers_without_a_decoder_have_autograd_s_gradients():
    plan, batch = planned(Labels() + 0.1 * KL())
    plan.model.likelihood = Silent((4,))
    state = {k: v.clone() for k, v in plan.model.state_dict().items()}
    slow = Gradients(plan)
    slow(batch, Noise(0))
    wanted = [p.grad.clone() for p in plan.model.parameters()]
    fast = gradients_for(plan, torch.float32)
    assert type(fast) is LayerGradients
    plan.model.load_state_dict(state)
    fast(batch, Noise(0))
    for p, grad in zip(plan.model.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, grad)


def test_a_source_tells_what_it_was_told():
    X, y = np.arange(12.0).reshape(6, 2), torch.arange(6.0)
    source = Source(X, Space((2,))).told(y)
    assert torch.cat([b.y for b in source.batches(4, torch.Generator().manual_seed(0))]).sort()[0].equal(y)
    assert source.subset([4, 1, 1]).take(torch.tensor([4, 1])).y.tolist() == [4.0, 1.0]
    assert source.slice(2, 4).y.tolist() == [2.0, 3.0]


def test_the_rate_below_is_a_share_and_goes_on_from_its_state():
    def run(steps, state=None):
        w = [torch.ones(3, requires_grad=True) for _ in range(2)]
        optimizer = Shared([(w[:1], 0.1), (w[1:], 1.0)], lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            for one in w:
                one.grad = torch.full((3,), 2.0)
            optimizer.step()
        return w, optimizer

    w, optimizer = run(1)
    torch.testing.assert_close(10 * (1 - w[0]), 1 - w[1])  # Adam's first step is the rate
    assert int(run(2, optimizer.state_dict())[1].state_dict()["each"][0]["steps"][0]) == 3


def test_the_best_epoch_s_head_is_kept():
    """A head is of the model, whose weights are those of its best epoch when training has ended."""
    torch.manual_seed(0)
    plan, _ = planned(Labels())
    X, y = torch.randn(64, 4), torch.randint(0, 3, (64,)) / 2
    source = Source(X.numpy(), Space((4,))).told(y)
    heads, best = [], 0
    rows, held_out = source.subset(range(32)), source.subset(range(32, 64))
    for epoch in train(plan, rows, validation=held_out, epochs=15, learning_rate=0.1):
        heads.append({k: v.clone() for k, v in plan.model.head.state_dict().items()})
        best = epoch.number if epoch.best else best
    assert best < 15  # labels are drawn by lot, and are learned by heart
    for name, value in plan.model.head.state_dict().items():
        torch.testing.assert_close(value, heads[best - 1][name])


# ----------------------------------------------------------------- fine-tuned


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_what_the_encoder_had_no_use_for_is_learned_from_labels(head):
    X, y = turned()
    vae = ct.VAE(latent_dim=1, **QUICK).fit(X)
    before = vae.transform(X)
    frozen = ct.HeadClassifier(vae, head=head, random_state=0).fit(X[::2], y[::2])
    options = {"head": head, "training": "fine-tuned", **FAST}
    tuned = ct.HeadClassifier(vae, **options).fit(X[::2], y[::2])
    assert frozen.score(X[1::2], y[1::2]) < 0.75
    assert tuned.score(X[1::2], y[1::2]) > 0.9
    np.testing.assert_array_equal(vae.transform(X), before)  # a copy was tuned
    assert np.abs(tuned.encoder_.transform(X) - before).max() > 0.1
    again = ct.HeadClassifier(vae, **options).fit(X[::2], y[::2])
    np.testing.assert_array_equal(tuned.predict_proba(X), again.predict_proba(X))
    kept = pickle.loads(pickle.dumps(tuned))
    np.testing.assert_array_equal(tuned.predict_proba(X), kept.predict_proba(X))


def test_modules_are_tuned_and_frozen_layers_stay():
    X, y = turned()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))
    net[0].requires_grad_(False)
    m = ct.HeadClassifier(net, training="fine-tuned", **FAST).fit(X[::2], y[::2])
    assert m.score(X[1::2], y[1::2]) > 0.85
    assert torch.equal(m.encoder_[0].weight, net[0].weight)
    assert not torch.equal(m.encoder_[2].weight, net[2].weight)
    net.requires_grad_(False)
    with pytest.raises(PlanError, match="nothing to train: use training='frozen'"):
        ct.HeadClassifier(net, training="fine-tuned").fit(X, y)


@pytest.mark.parametrize("stochastic", [False, True])
def test_numbers_are_learned_too(stochastic):
    X, _ = turned()
    y = 100 + 10 * X[:, 0] ** 2
    vae = ct.VAE(latent_dim=2, **QUICK).fit(X)
    options = {"head": "mlp", "hidden": (32,), **FAST}
    m = ct.HeadRegressor(vae, training="fine-tuned", stochastic=stochastic, **options).fit(X[::2], y[::2])
    assert r2_score(y[1::2], m.predict(X[1::2])) > 0.9
    _, std = m.predict(X[1::2], return_std=True)
    inside = np.abs(y[1::2] - m.predict(X[1::2])) < 2 * std
    assert inside.mean() > 0.8


def test_counts_are_learned_by_their_own_likelihood():
    X, _ = turned()
    rate = np.exp(0.3 * X[:, 0])
    y = np.random.default_rng(1).poisson(rate)
    options = {"distribution": "counts", "training": "fine-tuned", **FAST}
    m = ct.HeadRegressor(ct.AE(latent_dim=3, **QUICK).fit(X), **options).fit(X, y)
    assert np.corrcoef(np.log(m.predict(X)), np.log(rate))[0, 1] > 0.95


def test_tuning_a_quantizer_moves_its_encoder():
    X, y = turned()
    vq = ct.Autoencoder(recipe="vq-vae", latent_dim=2, **QUICK).fit(X)
    m = ct.HeadClassifier(vq, training="fine-tuned", max_epochs=10, random_state=0).fit(X, y)
    weights = (next(model.model_.posterior.parameters()) for model in (vq, m.encoder_))
    assert not torch.equal(*weights)


def test_codes_that_depend_on_the_decoder_are_not_tuned():
    X, y = turned(100)
    hvae = ct.Autoencoder(recipe="hvae", latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    with pytest.raises(PlanError, match="use training='frozen' or 'joint'"):
        ct.HeadClassifier(hvae, training="fine-tuned", random_state=0).fit(X, y)


def test_tuning_by_itself_is_the_function():
    X, y = turned()
    net = nn.Linear(3, 1)
    torch.manual_seed(0)
    head = tune(
        net, X, torch.from_numpy(y).float(), target_space("categorical", y), held_out=np.arange(0, 600, 5)
    )
    with torch.no_grad():
        told = head(net(torch.from_numpy(X))[None]).logits[0, :, 0].argmax(1)
    assert (told.numpy() == y).mean() > 0.95


# ---------------------------------------------------------------------- joint


def test_labels_shape_the_code_that_reconstructs():
    X, y = turned()
    vae = ct.VAE(latent_dim=1, **QUICK)
    some = np.where(np.arange(600) % 4, -1, y)
    m = ct.HeadClassifier(vae, training="joint", weight=30.0, random_state=0).fit(X, some)
    assert m.score(X, y) > 0.85
    assert m.encoder_.inverse_transform(m.encoder_.transform(X)).shape == X.shape
    assert "val_labels" in m.encoder_.history_[-1]
    assert not hasattr(vae, "model_")
    assert m.encoder_.model_.head is None
    assert len(m.encoder_.codes_) == 540  # each row once, however often it was trained on


def test_a_joint_encoder_is_kept_as_any_other(tmp_path):
    X, y = turned(200)
    m = ct.HeadClassifier(ct.VAE(latent_dim=1, **QUICK), training="joint", random_state=0).fit(X, y)
    again = ct.load(m.encoder_.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.transform(X), m.encoder_.transform(X))


def test_numbers_join_too():
    X, _ = turned()
    y = X @ [1.0, -1.0, 0.5]
    m = ct.HeadRegressor(ct.VAE(latent_dim=2, **QUICK), training="joint", weight=30.0, random_state=0)
    assert m.fit(X, y).score(X, y) > 0.85


@pytest.mark.parametrize(
    ("encoder", "parameters", "error"),
    [
        (None, {"training": "fine-tuned"}, "this encoder has none that it knows: use training='frozen'"),
        (nn.Linear(3, 1), {"training": "joint"}, "use VAE"),
        (ct.Autoencoder(recipe="rae-gp", max_epochs=1), {"training": "bottleneck"}, "use training='joint'"),
        (None, {"training": "fine-tuned", "head": "knn"}, "use 'linear' or 'mlp'"),
    ],
)
def test_what_cannot_be_trained_says_so(encoder, parameters, error):
    X, y = turned(60)
    with pytest.raises(PlanError, match=error):
        ct.HeadClassifier(encoder, **parameters).fit(X, y)


def test_parameters_come_by_name():
    with pytest.raises(TypeError, match="HeadClassifier has no parameter 'traning': did you mean 'training'"):
        ct.HeadClassifier(traning="joint")
    with pytest.raises(
        TypeError, match=r"takes its parameters by name, as in HeadClassifier\(calibrate=True\)"
    ):
        ct.HeadClassifier(None, "linear")
    with pytest.raises(TypeError, match="was given encoder twice"):
        ct.HeadClassifier(None, encoder=None)


# ------------------------------------------------------------------ spreading


def moons(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t, y = np.pi * rng.random(n), rng.integers(0, 2, n)
    X = np.column_stack([np.cos(t) + y, np.sin(t) * (1 - 2 * y) + 0.3 * y])
    return X + 0.05 * rng.normal(size=(n, 2)), y


def test_labels_spread_along_the_manifold():
    """Two labels and two half moons: a line between the two is wrong for a fifth of all rows."""
    scores = []
    for seed in range(8):
        X, y = moons(600, seed)
        new, truth = moons(200, 100 + seed)
        labels = np.full(600, -1)
        for c in (0, 1):
            labels[np.flatnonzero(y == c)[0]] = c
        scores.append((Spreading().fit(X, labels).predict(new) == truth).mean())
    assert np.mean(scores) > 0.97


def test_the_fixed_point_is_that_of_the_paper():
    X, y = moons(60, 0)
    labels = np.where(np.arange(60) < 20, y, -1)
    m = Spreading(n_neighbors=5, alpha=0.9).fit(X, labels)
    gaps = np.linalg.norm(X[:, None] - X[None], axis=2) + np.diag(np.full(60, np.inf))
    near = np.sort(gaps, 1)[:, 4]
    W = np.where(gaps <= near[:, None], np.exp(-(gaps**2) / np.outer(near, near)), 0.0)
    W = np.maximum(W, W.T)
    S = W / np.sqrt(np.outer(W.sum(1), W.sum(1)))
    F = np.linalg.solve(np.eye(60) - 0.9 * S, np.eye(2)[y] * (labels != -1)[:, None])
    np.testing.assert_allclose(m.shares_, F / F.sum(1, keepdims=True), atol=1e-4)


def test_heads_that_take_unlabeled_rows_are_given_them():
    X, y = moons(400, 3)
    labels = np.full(400, -1)
    labels[[np.flatnonzero(y == c)[0] for c in (0, 1)]] = [7, 9]
    spread = ct.HeadClassifier(head="spreading", random_state=0).fit(X, labels)
    linear = ct.HeadClassifier(random_state=0).fit(X, labels)
    truth = np.where(y, 9, 7)
    assert spread.score(X, truth) > 0.95 > linear.score(X, truth)


def test_far_rows_and_few_rows():
    X, y = moons(40, 0)
    p = Spreading().fit(X, y).predict_proba([[1e6, 1e6]])
    np.testing.assert_allclose(p.sum(1), 1.0)
    assert np.isfinite(Spreading().fit(np.zeros((5, 2)), np.array([0, 1, -1, -1, -1])).shares_).all()
    with pytest.raises(DataError, match="give three or more"):
        Spreading().fit(X[:2], y[:2])


@pytest.mark.slow
def test_digits_are_told_better_by_labels_that_tune():
    X, y = load_digits(return_X_y=True)
    vae = ct.VAE(latent_dim=8, max_epochs=30, random_state=0).fit(X[:1000])
    scores = {}
    for training in ("frozen", "fine-tuned"):
        m = ct.HeadClassifier(vae, training=training, random_state=0).fit(X[:1000], y[:1000])
        scores[training] = m.score(X[1000:], y[1000:])
    assert scores["fine-tuned"] > scores["frozen"] + 0.01


@pytest.mark.parametrize("how", [("--head", "spreading"), ("--training", "fine-tuned")])
def test_the_command_line_spreads_and_tunes(tmp_path, how):
    X, y = moons(300, 0)
    np.savez(tmp_path / "moons.npz", x=X, y=np.array(["up", "down"])[y])
    run, data = str(tmp_path / "run"), str(tmp_path / "moons.npz")
    ct.AE(latent_dim=2, **QUICK).fit(X).save(run)
    told = tmp_path / "told.csv"
    done = CliRunner().invoke(app, ["head", run, data, *how, "--out", str(told)])
    assert done.exit_code == 0, done.output
    assert float(re.findall(r"accuracy +([\d.]+)", done.output)[0]) > 0.9
    assert set(pd.read_csv(told)["label"]) == {"up", "down"}


def test_a_codebook_is_not_begun_anew():
    X, y = turned(200)
    vq = ct.Autoencoder(recipe="vq-vae", latent_dim=2, **QUICK).fit(X)
    still = {"training": "fine-tuned", "max_epochs": 1, "learning_rate": 1e-9, "random_state": 0}
    m = ct.HeadClassifier(vq, **still).fit(X, y)
    same = np.isclose(m.encoder_.transform(X), vq.transform(X), atol=1e-4).all(1)
    assert same.mean() > 0.8  # entries that no row of a step uses may move


@pytest.mark.parametrize("seed", range(4))
def test_none_of_few_labels_is_held_out(seed):
    X, _ = turned(400)
    y = (X[:, 0] > 0).astype(int)
    vae = ct.VAE(latent_dim=2, **QUICK | {"max_epochs": 2, "random_state": seed})
    held = vae.fit(X).validation_rows_
    some = np.full(400, -1)
    some[held[:20]] = y[held[:20]]  # all of them would be lost
    m = ct.HeadClassifier(vae, training="joint", validation_fraction=0.0, random_state=0).fit(X, some)
    assert m.encoder_.history_[-1]["labels"] > 0


def test_words_may_be_missing():
    X, y = turned(120)
    words = np.array(["down", "up"], object)[y]
    words[::3] = None
    for missing in (None, np.nan, -1):
        words[::3] = missing
        assert ct.HeadClassifier(random_state=0).fit(X, words).classes_.tolist() == ["down", "up"]
    mixed = ["a", "b", -1] * 40
    assert ct.HeadClassifier(random_state=0).fit(X, mixed).classes_.tolist() == ["a", "b"]


def test_streams_and_points_are_refused_at_once(tmp_path):
    X, y = turned(100)
    np.save(tmp_path / "x.npy", X)
    stream = ct.stream(str(tmp_path / "x.npy"), memory="1KB")
    with pytest.raises(DataError, match="these are a stream"):
        ct.HeadClassifier(ct.AE(latent_dim=1)).fit(stream, y)
    with pytest.raises(DataError, match="read in blocks"):
        ct.ProbabilisticEmbedding(ct.VAE(latent_dim=1)).fit(stream, y)
    with pytest.raises(PlanError, match="this encoder gives points"):
        ct.HeadClassifier(nn.Linear(3, 1), training="fine-tuned", stochastic=True).fit(X, y)


def test_copies_of_a_row_spread_as_well():
    Z = np.repeat(np.arange(10.0)[:, None], 50, axis=0)
    labels = np.full(500, -1)
    labels[0], labels[-1] = 0, 1
    told = Spreading(n_neighbors=60).fit(Z, labels).predict(np.arange(10.0)[:, None])
    assert told.tolist() == [0] * 5 + [1] * 5
    with pytest.raises(DataError, match="no row has a label"):
        Spreading().fit(Z, np.full(500, -1))
    with pytest.raises(PlanError, match="alpha=1"):
        Spreading(alpha=1).fit(Z, labels)
