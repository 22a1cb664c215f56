"""Fits that break leave an estimator as it was; those that are stopped leave it fitted."""

import signal

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import chartae as ct
from chartae.core.errors import DataError
from chartae.estimators import captions, fitting
from chartae.estimators import words as skipgrams
from chartae.estimators.heads import reading

X = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
UP = (X[:, 1] > 0).astype(int)
QUICK = {"hidden": (8,), "max_epochs": 2, "random_state": 0}


def broken(*given, **options):
    raise KeyboardInterrupt


def interrupted(epochs, *given):
    """Show no progress, and be broken off after the first epoch."""
    yield next(iter(epochs))
    raise KeyboardInterrupt


def vae(**more):
    return ct.VAE(latent_dim=2, **QUICK | more)


HEAD = ct.HeadClassifier(vae().fit(X), random_state=0)
TUNED = {"training": "fine-tuned", "max_epochs": 1}
#: An estimator, what it is fitted to, then anew, what breaks that fit, and what is asked of it.
BROKEN = {
    "head": (
        HEAD,
        (X, np.array(["a", "b"])[UP]),
        (X, np.array(["y", "x"])[UP]),
        (reading, "fit_to_draws"),
        lambda m: m.predict(X),
    ),
    "fine-tuned": (
        HEAD.__sklearn_clone__().set_params(**TUNED),
        (X, np.array(["a", "b"])[UP]),
        (X, np.array(["y", "x"])[UP]),
        (reading, "tune"),
        lambda m: m.predict(X),
    ),
    "regressor": (
        ct.HeadRegressor(random_state=0),
        (X, X[:, 0]),
        (X[:, :2], 10 * X[:, 1]),
        (reading, "fit_to_draws"),
        lambda m: m.predict(X, return_std=True)[1],
    ),
    "embedding": (
        ct.ProbabilisticEmbedding(vae(), random_state=0),
        (X, UP),
        (X, np.arange(120) % 3),
        (fitting, "train"),
        lambda m: m.predict_proba(X),
    ),
    "captioner": (
        ct.Captioner(random_state=0, hidden=(8,), max_epochs=2),
        (np.eye(4), list("abcd")),
        (np.eye(4)[:, :3], ["xx", "yy", "zz", "ww"]),
        (captions, "show_progress"),
        lambda m: m.caption(np.eye(4)),
    ),
    "words": (
        ct.WordEmbedding(latent_dim=2, max_epochs=1, random_state=0),
        (["red fox", "red car"] * 9,),
        (["blue sea", "blue sky"] * 9,),
        (skipgrams, "numbered"),
        lambda m: m.transform(["red", "fox"]),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fit_that_breaks_leaves_an_estimator_as_it_was(name, monkeypatch):
    estimator, first, second, (module, what), ask = BROKEN[name]
    with monkeypatch.context() as patched:
        patched.setattr(module, what, interrupted if what == "show_progress" else broken)
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(*first)
    with pytest.raises(NotFittedError):
        ask(estimator)
    before = ask(estimator.fit(*first))
    monkeypatch.setattr(module, what, interrupted if what == "show_progress" else broken)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*second)
    np.testing.assert_array_equal(ask(estimator), before)


def test_a_fit_that_is_refused_leaves_an_estimator_as_it_was(tmp_path):
    head = ct.HeadClassifier(random_state=0).fit(X, np.array(["a", "b"])[UP])
    with pytest.raises(DataError, match="all labels are of one class"):
        head.fit(X[:, :2], np.full(120, "x"))
    assert head.classes_.tolist() == ["a", "b"]
    assert set(head.predict(X)) == {"a", "b"}
    words = ct.WordEmbedding(latent_dim=2, max_epochs=1, random_state=0)
    with pytest.raises(DataError, match="no two known words stand in one text"):
        words.fit(["blue"] * 9 + ["green"] * 9)
    with pytest.raises(NotFittedError):
        words.save(tmp_path / "words")


def stopping(epochs, total, verbose):
    """Ctrl-C after two epochs."""
    for epoch in epochs:
        yield epoch
        if epoch.number == 2:
            signal.raise_signal(signal.SIGINT)


STOPPED = {
    "frozen": ct.HeadClassifier(vae(max_epochs=9), random_state=0),
    "joint": ct.HeadClassifier(vae(max_epochs=9), training="joint", random_state=0),
    "bottleneck": ct.HeadClassifier(vae(max_epochs=9), training="bottleneck", random_state=0),
    "generative": ct.HeadClassifier(
        ct.CVAE(latent_dim=1, **QUICK | {"max_epochs": 9}), training="generative", random_state=0
    ),
    "numbers": ct.HeadRegressor(vae(max_epochs=9), training="joint", random_state=0),
    **{
        f"embedding, {method}": ct.ProbabilisticEmbedding(vae(max_epochs=9), method=method, random_state=0)
        for method in ("bottleneck", "hedged", "reconstruction")
    },
}


@pytest.mark.parametrize("name", STOPPED)
def test_what_was_learned_before_it_was_stopped_is_kept(name, monkeypatch):
    estimator = STOPPED[name]
    monkeypatch.setattr(fitting, "show_progress", stopping)
    with pytest.raises(KeyboardInterrupt, match="stopped after 2 epochs, with which the model is fitted"):
        estimator.fit(X, UP)
    assert estimator.encoder_.n_iter_ == 2
    assert not [value for value in vars(estimator).values() if isinstance(value, BaseException)]
    use = estimator.uncertainty if name.startswith("embedding") else estimator.predict
    assert np.isfinite(use(X)).all()
