"""Heads that are trained with their encoder: the objective, its mathematics, and what is gained by it."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.metrics import r2_score
from torch import nn
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app
from chartae.core.contracts import Batch, Plan, RawCondition
from chartae.core.errors import DataError, PlanError, RunFolderError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.estimators import fitting
from chartae.models.recipes import build
from chartae.parts.objectives import IWAE, KL, Labels, NegLogLik, SummedLabels
from chartae.parts.readouts import Silent, readout
from chartae.training.engine import train
from chartae.training.kernels import Gradients, LayerGradients, gradients_for
from chartae.training.optimizers import Shared
from chartae.training.sources import Source
from chartae.transfer import Spreading, base_rates, target_space, tune

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


@pytest.mark.parametrize("recipe", ["vae-iaf", "spline-vae", "hierarchical-vae", "svae"])
def test_posteriors_that_run_networks_are_tuned(recipe):
    X, y = turned(100)
    model = ct.Autoencoder(recipe=recipe, latent_dim=2, **{**QUICK, "max_epochs": 2}).fit(X)
    m = ct.HeadClassifier(model, training="fine-tuned", max_epochs=3, random_state=0).fit(X, y)
    weights = (next(of.model_.posterior.parameters()) for of in (model, m.encoder_))
    assert not torch.equal(*weights)


@pytest.mark.parametrize(
    "more", [{"head": "knn", "calibrate": False}, {"training": "fine-tuned", "max_epochs": 1}, {}]
)
def test_points_have_no_draws_to_average_over(more):
    X, y = turned(60)
    points = ct.AE(latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    with pytest.raises(PlanError, match="this encoder gives points"):
        ct.HeadClassifier(points, stochastic=True, random_state=0, **more).fit(X, y)


def test_codes_that_depend_on_the_decoder_are_not_tuned():
    X, y = turned(100)
    hvae = ct.Autoencoder(recipe="hvae", latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(X)
    with pytest.raises(PlanError, match="use training='frozen' or 'joint'"):
        ct.HeadClassifier(hvae, training="fine-tuned", random_state=0).fit(X, y)


@pytest.mark.parametrize(("share", "apart"), [(0.4, True), (0.2, False)])
def test_an_epoch_is_chosen_by_other_rows_than_the_temperature(monkeypatch, share, apart):
    """Of 240 held-out rows; of 120 all serve both. None of them is trained on."""
    from chartae.estimators.heads import classifier, reading

    X, y = turned()
    seen = {}

    def watched_tune(module, X, y, space, *, held_out, **options):
        seen.update(epoch=held_out, told=np.flatnonzero(~y.isnan()))
        return tune(module, X, y, space, held_out=held_out, **options)

    def watched_fit(probabilities, y):
        seen.update(temperature=len(y))
        return 1.0

    monkeypatch.setattr(reading, "tune", watched_tune)
    monkeypatch.setattr(classifier, "fit_temperature", watched_fit)
    options = {"training": "fine-tuned", "validation_fraction": share, **FAST, "max_epochs": 1}
    vae = ct.VAE(latent_dim=1, **QUICK).fit(X)
    ct.HeadClassifier(vae, **options).fit(X, y)
    held = round(share * 600)
    assert len(seen["epoch"]) == seen["temperature"] == (held // 2 if apart else held)
    assert len(seen["told"]) == 600 - seen["temperature"] * apart
    ct.HeadClassifier(vae, calibrate=False, **options).fit(X, y)
    assert len(seen["epoch"]) == held  # all of them, where there is no temperature to tell


def test_tuning_by_itself_is_the_function():
    X, y = turned()
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
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


@pytest.mark.parametrize("kind", [ct.VAE, ct.AE, ct.CVAE])
def test_an_encoder_without_a_decoder_is_kept_as_any_other(kind, tmp_path):
    X, y = turned(200)
    encoder = kind(latent_dim=1, **QUICK | {"max_epochs": 1})
    m = ct.HeadClassifier(encoder, training="bottleneck", random_state=0).fit(3 * X, y).encoder_
    again = ct.load(m.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.transform(X), m.transform(X))
    np.testing.assert_array_equal(again.score_samples(X), m.score_samples(X))
    with pytest.raises(PlanError, match="no decoder to export: use save, or fit with training='joint'"):
        again.export_decoder(tmp_path / "decoder")
    with pytest.raises(RunFolderError, match=r"without a decoder: open it with chartae.load"):
        ct.load_decoder(tmp_path / "run")
    with pytest.raises(PlanError, match="use training='joint'"):
        again.sample(1)
    captioner = ct.Captioner(m, hidden=(8,), max_epochs=1, random_state=0).fit(X[:4], list("abcd"))
    opened = ct.Captioner.load(captioner.save(tmp_path / "captioner"))
    assert opened.caption(X[:4]) == captioner.caption(X[:4])


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


def test_an_encoder_that_was_tuned_has_no_decoder_any_more(tmp_path):
    """The one that it had is of codes as they were."""
    X, y = turned(300)
    vae = ct.VAE(latent_dim=2, **QUICK).fit(X)
    tuned = ct.HeadClassifier(vae, training="fine-tuned", max_epochs=2, random_state=0).fit(X, y).encoder_
    for encoder in (tuned, ct.load(tuned.save(tmp_path / "run"))):
        for call, of in ((encoder.project, X[:3]), (encoder.sample, 3)):
            with pytest.raises(PlanError, match="this model has no decoder, so that there is"):
                call(of)
        assert encoder.transform(X[:3]).shape == (3, 2)
        assert (encoder.predict(X) == -1).mean() == pytest.approx(0.05, abs=0.03)
    assert np.isfinite(vae.score_samples(X)).all()  # the one that was given stays as it is


@pytest.mark.parametrize("training", ["frozen", "joint", "bottleneck"])
def test_what_is_seeded_is_repeated_with_an_encoder_that_has_no_seed(training):
    X, y = turned(120)
    told = [
        ct.HeadClassifier(ct.VAE(latent_dim=2, hidden=(8,), max_epochs=2), training=training, random_state=3)
        .fit(X, y)
        .predict_proba(X)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*told)


def test_embeddings_of_the_default_encoder_are_repeated():
    X, y = turned(60)
    codes = [ct.ProbabilisticEmbedding(random_state=0).fit(X, y).transform(X) for _ in range(2)]
    np.testing.assert_array_equal(*codes)


def test_columns_that_an_encoder_has_dropped_need_not_be_there():
    X, y = turned(120)
    table = pd.DataFrame(X, columns=["a", "b", "c"]).assign(id=np.arange(120))
    vae = ct.VAE(latent_dim=2, columns={"id": "drop"}, hidden=(8,), max_epochs=2, random_state=0).fit(table)
    for items in (table, table[["a", "b", "c"]]):
        head = ct.HeadClassifier(vae, training="joint", random_state=0).fit(items, y)
        assert list(head.encoder_.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(PlanError, match="the table has no column 'ids'"):
        ct.HeadClassifier(ct.VAE(columns={"ids": "drop"}), training="joint").fit(table, y)


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
    Y = np.eye(2)[y] * (labels != -1)[:, None]
    F = np.linalg.solve(np.eye(60) - 0.9 * S, Y / Y.sum(0))
    np.testing.assert_allclose(m.shares_, F / F.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize(("n", "k"), [(200, 4), (1000, 10)])
def test_labels_spread_to_the_end_of_a_long_line(n, k):
    """What arrives at the far end is less than a solver's error in what is near."""
    line = np.linspace(0, 1, n)[:, None]
    labels = np.full(2 * n, -1)
    labels[[0, -1]] = [0, 1]
    m = Spreading(n_neighbors=k).fit(np.vstack([line, line + 2]), labels)
    assert (m.shares_.argmax(1) == np.repeat([0, 1], n)).all()


def test_where_two_labels_meet_the_nearer_one_wins():
    line = np.linspace(0, 1, 801)[:, None]
    labels = np.full(801, -1)
    labels[[0, -1]] = [0, 1]
    shares = Spreading(n_neighbors=4).fit(line, labels).shares_
    assert (shares.argmax(1)[:400] == 0).all()
    assert (shares.argmax(1)[401:] == 1).all()
    np.testing.assert_allclose(shares[400], 0.5, atol=0.02)


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


def test_classes_of_labels_that_spread_are_numbers_beside_none():
    Z = np.arange(30.0)[:, None]
    found = Spreading(n_neighbors=4).fit(Z, [0, None, None] * 5 + [1, None, None] * 5)
    assert found.score(Z, [0] * 15 + [1] * 15) > 0.9


@pytest.mark.slow
def test_digits_are_told_better_by_labels_that_tune():
    X, y = load_digits(return_X_y=True)
    vae = ct.VAE(latent_dim=8, max_epochs=30, random_state=0).fit(X[:1000])
    scores = {}
    for training in ("frozen", "fine-tuned"):
        m = ct.HeadClassifier(vae, training=training, random_state=0).fit(X[:1000], y[:1000])
        scores[training] = m.score(X[1000:], y[1000:])
    assert scores["fine-tuned"] > scores["frozen"] + 0.01


def test_few_labels_that_spread_are_calibrated_by_leaving_each_out() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=600)
    X = rng.normal(size=(600, 2)) + 4 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])[truth]
    for few in (40, 200):
        labels = np.where(np.arange(600) < few, truth, -1)
        spread = ct.HeadClassifier(head="spreading", random_state=0).fit(X, labels)
        assert spread.temperature_ == 1  # labels that spread have their own
        assert spread.head_[-1].temperature_ < 0.7
        assert spread.calibration_error(X[few:], truth[few:]) < 0.1
        rows, shares = spread.head_[-1].left_out()
        assert rows.tolist() == list(range(few))
        # What is told of a row is what a fit without its label would tell.
        hidden = labels.copy()
        hidden[0] = -1
        again = Spreading().fit(spread.head_[0].transform(X), hidden).shares_[0]
        np.testing.assert_allclose(shares[0], again, atol=1e-4)


def test_a_class_of_many_labels_does_not_flood_another() -> None:
    X, y = load_digits(return_X_y=True)
    two = np.flatnonzero((y == 3) | (y == 5))
    X, y = X[two], y[two]
    for threes, fives in ((40, 5), (100, 10)):
        labels = np.full(240, -1)
        labels[np.flatnonzero(y[:240] == 3)[:threes]] = 3
        labels[np.flatnonzero(y[:240] == 5)[:fives]] = 5
        told = ct.HeadClassifier(head="spreading", random_state=0).fit(X[:240], labels).predict(X[240:])
        for c in (3, 5):
            assert (told[y[240:] == c] == c).mean() > 0.9


def test_where_classes_overlap_the_usual_one_is_likelier() -> None:
    """Probabilities come true, which are not those of classes that were alike."""
    rng = np.random.default_rng(0)
    y = (np.arange(1500) % 10 == 0).astype(int)
    X = rng.normal(size=(1500, 3))
    X[:, 0] += 1.5 * y
    spread = Spreading().fit(X, np.where(np.arange(1500) < 200, y, -1))
    p = spread.predict_proba(X[200:])
    exact = 1 / (1 + 9 * np.exp(1.125 - 1.5 * X[200:, 0]))
    assert np.abs(p[:, 1] - exact).mean() < 0.07
    assert np.corrcoef(p[:, 1], exact)[0, 1] > 0.8
    alike = p / spread.base_
    alike /= alike.sum(1, keepdims=True)
    assert np.abs(alike[:, 1] - exact).mean() > 0.2


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=12))
def test_base_rates_lie_between_equal_ones_and_shares_of_labels(counts):
    counts = np.array(counts)
    rates, shares = base_rates(counts), counts / counts.sum()
    assert rates.sum() == pytest.approx(1)
    low, high = np.minimum(shares, 1 / len(counts)), np.maximum(shares, 1 / len(counts))
    assert ((rates > low - 1e-9) & (rates < high + 1e-9)).all()
    if np.ptp(counts) == 0:
        np.testing.assert_allclose(rates, shares)
    if len(counts) == 2 and 10 * counts.min() < counts.max():
        np.testing.assert_allclose(rates, shares, rtol=0.5)


def test_labels_too_few_to_leave_out_have_no_temperature() -> None:
    X, y = np.arange(40.0)[:, None], np.full(40, -1)
    y[[0, 10, 20, 30]] = [0, 0, 1, 2]
    few = Spreading(n_neighbors=3).fit(X, y)
    assert few.temperature_ == 1
    np.testing.assert_allclose(few.base_, 1 / 3)
    assert few.left_out()[0].tolist() == [0, 10]
    y[:] = -1
    y[0] = 0
    assert Spreading(n_neighbors=3).fit(X, y).left_out()[1].shape == (0, 1)


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
    vq = ct.Autoencoder(recipe="vq-vae", latent_dim=2, validation_fraction=0.1, **QUICK).fit(X)
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


@pytest.mark.parametrize("labels", [390, 60, 4])
@pytest.mark.parametrize("training", ["joint", "bottleneck"])
def test_rows_that_were_trained_on_are_not_held_out(training, labels, monkeypatch):
    X, y = turned(400)
    some = np.where(np.arange(400) < labels, y, -1)
    seen = {}

    def watched(plan, source, *, validation, **options):
        seen.update(trained=np.unique(source.rows), held=[] if validation is None else validation.rows)
        return train(plan, source, validation=validation, **options)

    monkeypatch.setattr(fitting, "train", watched)
    vae = ct.VAE(latent_dim=1, **QUICK | {"max_epochs": 1})
    m = ct.HeadClassifier(vae, training=training, validation_fraction=0.0, random_state=0).fit(X, some)
    np.testing.assert_array_equal(m.encoder_.validation_rows_, seen["held"])
    assert not np.isin(seen["held"], seen["trained"]).any()
    # Without a decoder the others are not looked at.
    assert len(seen["held"]) + len(seen["trained"]) == (400 if training == "joint" else labels)
    assert np.isin(np.arange(labels), seen["trained"]).all() == (labels < 390)


@pytest.mark.parametrize("method", ["bottleneck", "hedged"])
def test_few_labels_are_enough_for_a_code(method):
    """Other rows would ask for narrow codes of nothing, without a decoder, and outweigh them."""
    X, y = turned(500)
    some = np.where(np.arange(500) < 25, y, -1)
    vae = ct.VAE(latent_dim=1, **QUICK | {"max_epochs": 12})
    m = ct.ProbabilisticEmbedding(vae, method=method, n_samples=2, random_state=0).fit(X, some)
    told = m.votes(X[25:], y[:25], X[:25]).argmax(1)
    assert (told == y[25:]).mean() > 0.8  # .48 and .60 where other rows counted


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
    words = np.array(["left", "right"])[np.maximum(labels, 0)]
    for none in (None, np.nan, -1, "-1"):
        given = np.where(labels < 0, none, words.astype(object))
        for some in (given, given.tolist()):
            found = Spreading(n_neighbors=60).fit(Z, some)
            assert found.classes_.tolist() == ["left", "right"]
            assert (found.predict(np.arange(10.0)[:, None]) == ["left"] * 5 + ["right"] * 5).all()
    assert Spreading(n_neighbors=60).fit(Z, np.where(labels < 0, np.nan, labels)).classes_.tolist() == [0, 1]
    assert Spreading(n_neighbors=60).fit(Z, np.minimum(labels, 0)).classes_.tolist() == [0]
    for none in (-1, np.nan):
        with pytest.raises(DataError, match="no row has a label"):
            Spreading().fit(Z, np.full(500, none))
    with pytest.raises(PlanError, match="alpha=1"):
        Spreading(alpha=1).fit(Z, labels)


# ------------------------------------------------------------ labels summed out


def conditional(recipe="cvae", m=3, **options):
    """A small conditional plan whose labels are summed out, with a head that reads items."""
    torch.manual_seed(0)
    plan = build(
        recipe, (4,), latent_dim=2, hidden=(8,), condition={"n_labels": m, "vector_dim": 0}, **options
    )
    space = Space((1,), "categorical", levels=m, scale=float(m - 1), gaps=True)
    plan.model.head = readout(space, 4, hidden=(8,))
    shares = torch.arange(1.0, m + 1)
    return Plan(plan.model, SummedLabels(plan.objective, shares / shares.sum()) + 0.5 * Labels(items=True))


def rows_of(label: list[int], m: int = 3) -> Batch:
    label = torch.tensor(label)
    y = torch.where(label < 0, torch.nan, label / (m - 1))
    x = torch.randn(len(label), 4, generator=torch.Generator().manual_seed(1))
    return Batch(x, RawCondition(label), y=y)


def cost(terms, *names: str) -> torch.Tensor:
    return sum(terms[name].rows for name in names)


def test_a_label_that_is_not_known_is_summed_out():
    """Equation 7: the sum over classes of q(y | x) times the bound of a row with that label, and H(q)."""
    plan = conditional()
    plan.model.eval()
    logits = plan.model.head(rows_of([-1] * 5).x[None]).logits[0, :, 0]
    q, log_p = logits.softmax(-1), torch.tensor([1 / 6, 2 / 6, 3 / 6]).log()

    def ended(label: int) -> torch.Tensor:  # in the limit of many draws, z and all: closed in the KL
        trace = plan.model.trace(rows_of([label] * 5), k=20_000, noise=Noise(0))
        return cost(plan.objective(trace), "nll", "kl", "label")

    of_each = torch.stack([ended(y) for y in range(3)], 1)
    by_hand = (q * (of_each + q.log())).sum(1)
    torch.testing.assert_close(ended(-1), by_hand, rtol=2e-3, atol=0.02)
    own = plan.objective.parts[0].bound(plan.model.trace(rows_of([1] * 5), k=20_000, noise=Noise(0)))
    torch.testing.assert_close(of_each[:, 1], cost(own, "nll", "kl") - log_p[1], rtol=2e-3, atol=0.02)


class Still(Noise):
    """No noise: every draw is a mean, and costs are the same whenever they are asked for."""

    def normal(self, shape, like):
        return torch.zeros(tuple(shape)).to(like)


def by_loop(plan, x: torch.Tensor) -> torch.Tensor:
    """J(x, y) + log q(y | x) - log p(y) of every row and label, ``(n, m)``, one label at a time."""
    log_q = plan.model.head(x[None]).logits[0, :, 0].log_softmax(-1)
    out = []
    for y in range(3):
        batch = Batch(x, RawCondition(torch.full((len(x),), y)))
        terms = plan.objective.parts[0].bound(plan.model.trace(batch, k=1, noise=Still()))
        out.append(cost(terms, "nll", "kl") + log_q[:, y] - torch.tensor((y + 1) / 6).log())
    return torch.stack(out, 1)


def test_the_sum_is_that_of_a_loop_and_so_is_the_gradient_in_the_head():
    """d/d logits of Σ_y q(y | x) C(x, y) is q(y | x) (C(x, y) - Σ_y q(y | x) C(x, y))."""
    plan = conditional()
    plan.model.eval()
    batch = rows_of([-1] * 5)
    said = []
    head = plan.model.head.network
    hook = head.register_forward_hook(lambda _, x, out: (out.retain_grad(), said.append(out))[1])
    terms = plan.objective.parts[0](plan.model.trace(batch, k=1, noise=Still()))
    hook.remove()
    rows = cost(terms, "nll", "kl", "label")
    rows.sum().backward()
    with torch.no_grad():
        each = by_loop(plan, batch.x)
        q = said[0].reshape(5, 3).softmax(-1)
    torch.testing.assert_close(rows.detach(), (q * each).sum(1))
    expected = q * (each - (q * each).sum(1, keepdim=True))
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(said[0].grad.reshape(5, 3), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("training", "passes"), [(False, [5, 5, 5]), (True, [15])])
def test_an_evaluation_takes_no_more_rows_at_once_than_it_is_given(training, passes):
    plan = conditional()
    plan.model.train(training)
    plan.model.condition.dropout = 0.0
    trace = plan.model.trace(rows_of([-1] * 5), k=1, noise=Still())
    seen, forward = [], type(plan.model).trace
    plan.model.trace = lambda batch, **options: (
        seen.append(len(batch)),
        forward(plan.model, batch, **options),
    )[1]
    plan.objective.parts[0](trace)
    assert seen == passes


def test_labels_that_are_drawn_again_count_once():
    """An epoch in which rows with a label come four times is worth one in which they come once."""
    once, often = conditional(noise=0.5), conditional(noise=0.5)
    shares = once.objective.parts[0].log_shares.exp()
    often.objective.parts[0] = SummedLabels(often.objective.parts[0].bound, shares, again=4)
    whole = rows_of([0, -1, 2, -1, -1])
    rows = torch.tensor([0, 2] * 3 + [0, 1, 2, 3, 4])
    repeated = Batch(whole.x[rows], RawCondition(whole.c.label[rows]), y=whole.y[rows])
    losses = []
    for plan, batch in ((once, whole), (often, repeated)):
        plan.model.condition.dropout = 0.0
        terms = plan.objective(plan.model.train().trace(batch, k=1, noise=Still()))
        losses.append(torch.stack([terms[name].value() for name in ("nll", "kl", "label", "labels")]))
    torch.testing.assert_close(*losses)
    often.model.eval()  # where nothing is drawn again
    terms = often.objective(often.model.trace(whole, k=1, noise=Still()))
    torch.testing.assert_close(cost(terms, "label").mean(), losses[0][2])


@pytest.mark.parametrize("sure", [0, 2])
def test_a_head_that_is_sure_has_the_bound_of_its_label(sure):
    plan = conditional()
    plan.model.eval()
    last = plan.model.head.network.network.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(200.0 * torch.eye(3)[sure])
    open_, told = (
        cost(
            plan.objective(plan.model.trace(rows_of([y] * 5), k=20_000, noise=Noise(0))), "nll", "kl", "label"
        )
        for y in (-1, sure)
    )
    torch.testing.assert_close(open_, told, rtol=2e-3, atol=0.02)


def test_the_bound_is_below_the_evidence():
    """p(x) by a grid over the code, summed over labels; no head and no posterior can be above it."""
    torch.manual_seed(0)
    plan = build(
        "cvae", (3,), latent_dim=1, hidden=(8,), condition={"n_labels": 2, "vector_dim": 0}, noise=0.5
    )
    model = plan.model.eval()
    model.head = readout(Space((1,), "categorical", levels=2, gaps=True), 3)
    shares = torch.tensor([0.3, 0.7])
    x, open_ = torch.randn(6, 3), RawCondition(torch.full((6,), -1))
    grid = torch.linspace(-8, 8, 4001)
    log_joint = []
    for y in range(2):
        c = model.conditioned(RawCondition(torch.tensor([y])), 1).expand(6, -1)
        z = grid[:, None, None].expand(-1, 6, 1)
        log_x = model.log_likelihood(model.likelihood(z, c), x)
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid)[:, None]
        log_joint.append((log_x + prior).logsumexp(0) + (grid[1] - grid[0]).log() + shares[y].log())
    evidence = torch.stack(log_joint).logsumexp(0)
    terms = SummedLabels(plan.objective, shares)(
        model.trace(Batch(x, open_, y=torch.full((6,), torch.nan)), k=20_000, noise=Noise(0))
    )
    assert (-cost(terms, "nll", "kl", "label") < evidence).all()


@pytest.mark.parametrize(
    ("recipe", "options"), [("cvae", {}), ("vamp-vae", {"components": 5}), ("mixture-vae", {"k": 3})]
)
def test_labels_that_are_summed_out_reach_every_weight(recipe, options):
    """By hand-written layers as by autograd, in the same draws."""
    plan = conditional(recipe, **options)
    batch = rows_of([0, -1, 2, -1, -1, 1] * 8)
    found, state = [], copy.deepcopy(plan.model.state_dict())
    for kind in (Gradients, LayerGradients):
        way = kind(plan)
        plan.model.load_state_dict(state)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            way(batch, Noise(5))
        found.append([p.grad.clone() for p in plan.model.parameters()])
        way.close()
    assert all(bool(g.any()) for g in found[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_conditions_are_kept_and_estimates_left_alone_while_labels_are_summed_out():
    plan = conditional()
    plan.model.train()
    plan.model.condition.dropout = 0.5
    seen = []
    forward = type(plan.model).trace

    def watched(batch, **options):
        seen.append((plan.model.training, plan.model.condition.training, len(batch)))
        return forward(plan.model, batch, **options)

    plan.model.trace = watched
    trace = plan.model.trace(rows_of([-1] * 400), k=1, noise=Noise(0))
    estimates = {n: t.tolist() for n, t in plan.model.likelihood.named_buffers()}
    assert estimates["seen"] != 0
    terms = plan.objective(trace)
    assert seen[0] == (True, True, 400)
    assert seen[1][:2] == (False, False)
    assert 3 * 150 < seen[1][2] < 3 * 250  # half of them are under no condition, and have no label to tell
    assert seen[1][2] == 3 * int((terms["label"].rows != 0).sum())
    assert plan.model.training
    assert plan.model.condition.training
    assert {n: t.tolist() for n, t in plan.model.likelihood.named_buffers()} == estimates


def test_what_cannot_be_summed_out_is_refused():
    plan = conditional(free_bits=0.5)
    with pytest.raises(PlanError, match="leave out free_bits"):
        plan.objective(plan.model.trace(rows_of([-1, 0]), k=1, noise=Noise(0)))
    with pytest.raises(PlanError, match="gradient='plain'"):
        SummedLabels(IWAE(5, gradient="dreg"), torch.ones(1))
    with pytest.raises(PlanError, match="make them the condition"):
        plan.objective(plan.model.trace(Batch(torch.zeros(2, 4), y=torch.zeros(2)), k=1, noise=Noise(0)))


def test_labels_may_be_numbers_of_any_type_and_rare():
    X = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    y = np.arange(400) % 2
    cvae = ct.CVAE(latent_dim=2, hidden=(8,), max_epochs=1, random_state=0)
    options = {"training": "generative", "random_state": 0}
    whole, floats = (ct.HeadClassifier(cvae, **options).fit(X, v) for v in (y, y.astype(float)))
    np.testing.assert_array_equal(whole.predict_proba(X), floats.predict_proba(X))
    assert floats.predict(X).dtype == float
    assert floats.encoder_.sample(2, condition=1).shape == (2, 4)
    for rare in (2, 1):  # the last class, and one in the middle, of two rows
        few = np.where(np.arange(400) < 2, rare, np.where(y == rare, 3, y))
        for encoder, more in ((cvae, options), (None, {"random_state": 0})):
            head = ct.HeadClassifier(encoder, validation_fraction=0.9, **more).fit(X, few)
            assert head.predict_proba(X).shape == (400, 3)
            assert head.temperature_ == 1.0


def test_rows_of_tokens_have_a_classifier_beside_them():
    X, y = np.array([[1, 2, 3], [2, 3, 0]] * 30), np.array([0, 1] * 30)
    cvae = ct.CVAE(likelihood="sequence", latent_dim=2, hidden=(8,), max_epochs=20, random_state=0)
    head = ct.HeadClassifier(cvae, training="generative", random_state=0).fit(X, y)
    assert head.score(X, y) == 1.0


def layers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two layers that are wide and thin: few labels do not say which way they lie, and all rows do."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    Z = np.column_stack([rng.normal(size=(n, 2)) * [2.0, 1.5], 2 * y - 1 + 0.25 * rng.normal(size=n)])
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(6, 6)))[0][:3]
    return (Z @ turn + 0.1 * rng.normal(size=(n, 6))).astype(np.float32), np.array(["low", "high"])[y]


def few(y: np.ndarray, each: int, seed: int) -> np.ndarray:
    """All but some of each class lose their label."""
    rng = np.random.default_rng(seed)
    out = np.full(len(y), None, object)
    for name in np.unique(y):
        kept = rng.choice(np.flatnonzero(y == name), each, replace=False)
        out[kept] = name
    return out


LAYERED = {"latent_dim": 2, "hidden": (32,), "max_epochs": 30, "learning_rate": 5e-3, "patience": None}


def test_rows_without_a_label_tell_where_classes_lie():
    scores = []
    for seed in range(3):
        (X, y), (unseen, truth) = layers(600, seed), layers(1000, seed + 50)
        labels = few(y, 4, seed)
        known = labels != None  # noqa: E711
        alone = ct.HeadClassifier(random_state=0).fit(X[known], labels[known]).score(unseen, truth)
        head = ct.HeadClassifier(ct.CVAE(**LAYERED, random_state=seed), training="generative", random_state=0)
        scores.append((alone, head.fit(X, labels).score(unseen, truth)))
    alone, told = np.mean(scores, 0)
    assert min(told for _, told in scores) > 0.98
    assert told - alone > 5 * np.sqrt(alone * (1 - alone) / 3000)
    assert head.predict_proba(unseen).shape == (1000, 2)
    assert head.encoder_.model_.head is None


def test_the_generative_side_follows_the_label_and_is_kept(tmp_path):
    X, y = layers(600, 0)
    labels = few(y, 4, 0)
    head = ct.HeadClassifier(ct.CVAE(**LAYERED, random_state=0), training="generative", random_state=0)
    head.fit(X, labels)
    again = ct.load(head.encoder_.save(tmp_path / "run"))
    for name in ("low", "high"):
        assert np.mean(head.predict(again.sample(300, condition=name, random_state=0)) == name) > 0.9
    twin = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(twin.predict_proba(X), head.predict_proba(X))


def test_codes_of_a_fitted_model_are_items_as_well():
    """M1+M2: what is told apart are codes of an encoder that never saw a label."""
    (X, y), (unseen, truth) = layers(600, 0), layers(1000, 50)
    vae = ct.VAE(**LAYERED | {"latent_dim": 3}, random_state=0).fit(X)
    head = ct.HeadClassifier(ct.CVAE(**LAYERED, random_state=0), training="generative", random_state=0)
    head.fit(vae.sample_posterior(X, random_state=0)[0], few(y, 4, 0))
    assert head.score(vae.transform(unseen), truth) > 0.95


def test_the_command_line_sums_labels_out_of_a_conditional_run(tmp_path):
    X, y = layers(300, 0)
    np.savez(tmp_path / "layers.npz", X=X, y=np.where(np.arange(300) < 150, y == "high", -1))
    run, data = str(tmp_path / "run"), f"{tmp_path / 'layers.npz'}:X"
    ct.CVAE(**LAYERED | {"max_epochs": 5}, random_state=0).fit(X, y).save(run)
    done = CliRunner().invoke(app, ["head", run, data, "--labels", "y", "--training", "generative"])
    assert done.exit_code == 0, done.output
    assert "told 30 other rows" in done.output  # of 150 with a label
    assert float(re.findall(r"accuracy +([\d.]+)", done.output)[0]) > 0.7


def test_a_fitted_model_reads_streams_of_items(tmp_path):
    X, y = layers(200, 0)
    np.save(tmp_path / "X.npy", X)
    cvae = ct.CVAE(**LAYERED | {"max_epochs": 1}, random_state=0)
    head = ct.HeadClassifier(cvae, training="generative", random_state=0).fit(X, y)
    streamed = ct.stream(tmp_path / "X.npy")
    np.testing.assert_allclose(head.predict_proba(streamed), head.predict_proba(X), rtol=1e-5)
    with pytest.raises(DataError, match="give fewer rows"):
        head.fit(streamed, y)


def test_images_tables_and_gaps_are_told_in_their_own_way():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(80) < 20, np.arange(80) % 2, -1)
    images = rng.random((80, 16, 16)).astype(np.float32)
    gaps = np.where(rng.random((80, 3)) < 0.2, np.nan, rng.normal(size=(80, 3)))
    table = pd.DataFrame({"a": rng.normal(size=80), "b": rng.choice(["x", "y"], 80)})
    for X in (images, gaps, table):
        cvae = ct.CVAE(latent_dim=2, hidden=(8,), max_epochs=1, missing="mask", random_state=0)
        head = ct.HeadClassifier(cvae, training="generative", random_state=0).fit(X, y)
        np.testing.assert_allclose(head.predict_proba(X).sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "encoder", "more", "message"),
    [
        (ct.HeadClassifier, ct.VAE(), {}, "use CVAE"),
        (ct.HeadClassifier, None, {}, "fits an estimator of chartae"),
        (ct.HeadClassifier, ct.CVAE(), {"head": "mlp"}, "leave out head and stochastic"),
        (ct.HeadClassifier, ct.CVAE(), {"stochastic": True}, "leave out head and stochastic"),
        (ct.HeadRegressor, ct.CVAE(), {}, "use 'joint'"),
        (ct.HeadClassifier, ct.CVAE(free_bits=0.5), {}, "leave out free_bits"),
    ],
)
def test_what_labels_cannot_be_summed_out_of(kind, encoder, more, message):
    with pytest.raises(PlanError, match=message):
        kind(encoder, training="generative", **more).fit(*layers(40, 0))


def test_one_number_is_one_hidden_layer() -> None:
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    one, listed = (ct.AE(hidden=h, max_epochs=1, random_state=0).fit(X).transform(X) for h in (8, (8,)))
    np.testing.assert_array_equal(one, listed)
    head = ct.HeadClassifier(head="mlp", hidden=4, random_state=0).fit(X, X[:, 0] > 0)
    assert head.head_[-1].hidden_layer_sizes == (4,)
