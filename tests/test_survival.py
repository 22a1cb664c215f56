"""A fit and its run folder: stopped, killed, out of room or out of time, and gone on with."""

import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import chartae as ct
from chartae.core.errors import DataError, PlanError, RunFolderError, TrainingError
from chartae.estimators import keeping
from chartae.models import persistence
from chartae.models.persistence import is_unfinished, writing

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(120, 3)) @ RNG.normal(size=(3, 6))).astype(np.float32)
LABELS = np.array(["a", "b", "c"])[np.arange(120) % 3]
SMALL = {"latent_dim": 2, "hidden": (16,), "max_epochs": 6, "batch_size": 16, "random_state": 0}
MODELS = {
    "vae": (lambda **p: ct.VAE(**SMALL, **p), None),
    "ae": (lambda **p: ct.AE(**SMALL, **p), None),
    "cvae": (lambda **p: ct.CVAE(**SMALL, warmup=2, **p), LABELS),
    "denoising": (lambda **p: ct.Autoencoder(recipe="denoising-ae", **SMALL, **p), None),
    "no rows held out": (lambda **p: ct.VAE(**SMALL, validation_fraction=0.0, schedule="cosine", **p), None),
}


@pytest.fixture(autouse=True)
def checkpoint_at_every_chance(monkeypatch):
    monkeypatch.setattr(keeping, "SELDOM", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # no power is lost here


def stop_at(monkeypatch, batch, number=signal.SIGINT):
    """Send a signal while the given batch (from 0, over all epochs) is trained with."""
    from chartae.training.optimizers import Adam

    step, seen = Adam.step, [0]

    def counted(self, *args, **kwargs):
        if seen[0] == batch:
            signal.raise_signal(number)
        seen[0] += 1
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Adam, "step", counted)


def stopped(monkeypatch, batch, model, y=None, **how):
    with monkeypatch.context() as m:
        stop_at(m, batch)
        with pytest.raises(KeyboardInterrupt, match="stopped after"):
            model.fit(X, y, **how)


def files(run):
    return {p.name: p.read_bytes() for p in run.iterdir()}


def weights(run):
    return (run / "model.safetensors").read_bytes()


def without_times(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "rows_per_second")} for row in history]


# ------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [0, 3, 13, 40])
def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_bytes(name, batch, tmp_path, monkeypatch):
    make, y = MODELS[name]
    make().fit(X, y, run=tmp_path / "whole")
    cut = make()
    stopped(monkeypatch, batch, cut, y, run=tmp_path / "cut")
    assert is_unfinished(tmp_path / "cut")
    # What is there is a fitted model, in the program and in the folder.
    loaded = ct.load(tmp_path / "cut")
    assert loaded.n_iter_ == cut.n_iter_ < 6
    for model in (cut, loaded):
        assert np.isfinite(model.sample(3, random_state=0)).all()
        assert set(model.predict(X)) <= {-1, 1}
    assert np.array_equal(cut.transform(X), loaded.transform(X))
    again = make().fit(X, y, run=tmp_path / "cut", resume=True)
    assert not is_unfinished(tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert (tmp_path / "cut/config.json").read_bytes() == (tmp_path / "whole/config.json").read_bytes()
    whole = ct.load(tmp_path / "whole")
    assert without_times(again.history_) == without_times(whole.history_)
    assert sorted(files(tmp_path / "cut")) == ["config.json", "history.jsonl", "model.safetensors"]


def test_a_random_fit_goes_on_with_its_seed(tmp_path, monkeypatch):
    def make():
        return ct.VAE(**{**SMALL, "random_state": next(generators)})

    generators = iter([np.random.RandomState(seed) for seed in (3, 3, 4)])
    whole = make().fit(X, run=tmp_path / "whole")
    stopped(monkeypatch, 9, make(), run=tmp_path / "cut")
    again = make().fit(X, run=tmp_path / "cut", resume=True)
    assert np.array_equal(again.transform(X), whole.transform(X))


def test_sigterm_ends_the_program_in_good_order(tmp_path, monkeypatch):
    stop_at(monkeypatch, 9, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        ct.VAE(**SMALL).fit(X, run=tmp_path / "a")
    assert ended.value.code == 143
    assert ct.load(tmp_path / "a").n_iter_ == 1


def test_without_a_folder_ctrl_c_leaves_a_fitted_model(monkeypatch):
    vae = ct.VAE(**SMALL)
    stopped(monkeypatch, 22, vae)
    assert vae.n_iter_ == 3
    assert np.isfinite(vae.score_samples(X)).all()


@pytest.mark.parametrize("moment", ["_set_offsets", "settle", "end"])
def test_a_wish_after_the_last_epoch_loses_nothing(moment, tmp_path, monkeypatch):
    from chartae.estimators.fitting import Fitting
    from chartae.training import engine

    home = {"_set_offsets": Fitting, "settle": engine, "end": keeping.Keeping}[moment]
    real = getattr(home, moment)

    def meanwhile(*args):
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    whole = ct.AE(**SMALL).fit(X)
    monkeypatch.setattr(home, moment, meanwhile)
    monkeypatch.setattr(keeping, "SELDOM", 60.0)
    ae = ct.AE(**SMALL)
    with pytest.raises(KeyboardInterrupt, match="came to its end after 6 epochs"):
        ae.fit(X, run=tmp_path / "a")
    assert not is_unfinished(tmp_path / "a")
    for model in (ae, ct.load(tmp_path / "a")):
        assert np.array_equal(model.transform(X), whole.transform(X))
        assert np.array_equal(model.predict(X), whole.predict(X))


def test_handlers_are_those_of_before(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ct.VAE(**SMALL).fit(X, run=tmp_path / "a")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_fit_in_a_thread_is_kept_too(tmp_path):
    thread = threading.Thread(target=lambda: ct.VAE(**SMALL).fit(X, run=tmp_path / "a"))
    thread.start()
    thread.join()
    assert ct.load(tmp_path / "a").n_iter_ == 6


# ------------------------------------------------------------------- time


def test_max_time_ends_a_fit_that_can_go_on(tmp_path, monkeypatch):
    whole = ct.VAE(**SMALL).fit(X)
    for _ in range(100):
        vae = ct.VAE(**SMALL, max_time=1e-9)  # a batch at least, in every call
        assert vae.fit(X, run=tmp_path / "a", resume=True) is vae
        if not is_unfinished(tmp_path / "a"):
            break
    assert vae.n_iter_ == 6
    assert np.array_equal(vae.transform(X), whole.transform(X))


@pytest.mark.filterwarnings("ignore:with the code of another")  # by what there is time for
def test_max_time_counts_in_seconds():
    start = time.monotonic()
    vae = ct.VAE(**{**SMALL, "max_epochs": 10**6, "patience": None}, max_time=0.3).fit(X)
    assert 0.3 <= time.monotonic() - start < 5.0
    assert vae.n_iter_ >= 1


@pytest.mark.parametrize("bad", [0, -1.0, "long"])
def test_times_that_are_none(bad):
    with pytest.raises(ValueError, match="max_time"):
        ct.VAE(**SMALL, max_time=bad).fit(X)


# ------------------------------------------------------------------- what is refused


@pytest.fixture
def cut(tmp_path, monkeypatch):
    stopped(monkeypatch, 9, ct.CVAE(**SMALL), LABELS, run=tmp_path / "cut")
    return tmp_path / "cut"


@pytest.mark.parametrize(
    "change, y, data, said",
    [
        ({"learning_rate": 0.01}, LABELS, X, "begun with learning_rate=0.001, not learning_rate=0.01"),
        ({"latent_dim": 3}, LABELS, X, "begun with latent_dim=2, not latent_dim=3"),
        ({"max_epochs": 7}, LABELS, X, "begun with max_epochs=6"),
        ({}, LABELS, X + 1, "other data"),
        ({}, LABELS, X[:, :5], "other data"),
        ({}, LABELS[:100], X[:100], "other data"),
        ({}, LABELS == "a", X, "other conditions"),
        ({}, np.roll(LABELS, 1), X, "other data"),
        ({}, None, X, "other conditions"),
    ],
)
def test_resume_refuses_another_fit(cut, change, y, data, said):
    before = files(cut)
    with pytest.raises(RunFolderError, match=said) as refused:
        ct.CVAE(**{**SMALL, **change}).fit(data, y, run=cut, resume=True)
    assert "damaged" not in str(refused.value)
    assert files(cut) == before


def test_resume_refuses_another_class_and_allows_other_words(cut):
    with pytest.raises(RunFolderError, match="begun with"):
        ct.VAE(**SMALL).fit(X, run=cut, resume=True)
    assert ct.CVAE(**SMALL, verbose=1, device="cpu", max_time=1e6).fit(X, LABELS, run=cut, resume=True)


def test_one_row_that_is_another_is_seen(cut, tmp_path):
    changed = LABELS.copy()
    changed[17] = "a" if changed[17] == "b" else "b"
    for data, y in ((np.where(np.arange(len(X))[:, None] == 17, X[::-1], X), LABELS), (X, changed)):
        with pytest.raises(RunFolderError, match="other data"):
            ct.CVAE(**SMALL).fit(data, y, run=cut, resume=True)


def test_resume_refuses_other_modules(tmp_path, monkeypatch):
    def model(act, p):
        net = torch.nn.Sequential(torch.nn.Linear(6, 8), act, torch.nn.Dropout(p), torch.nn.Linear(8, 4))
        return ct.VAE(**{**SMALL, "hidden": None}, network=(net, torch.nn.Linear(2, 6)))

    stopped(monkeypatch, 5, model(torch.nn.ReLU(), 0.1), run=tmp_path / "a")
    for act, p in ((torch.nn.Tanh(), 0.1), (torch.nn.ReLU(), 0.9)):
        with pytest.raises(RunFolderError, match="other modules"):
            model(act, p).fit(X, run=tmp_path / "a", resume=True)
    model(torch.nn.ReLU(), 0.1).fit(X, run=tmp_path / "a", resume=True)


def test_a_stream_goes_on_with_its_memory_alone(tmp_path, monkeypatch):
    run = tmp_path / "a"
    with monkeypatch.context() as m:
        stop_at(m, 5)
        with pytest.raises(KeyboardInterrupt):
            ct.VAE(**SMALL).fit(ct.stream(X, memory="4KB"), run=run)
    with pytest.raises(RunFolderError, match="begun with memory=4000, not memory=5000"):
        ct.VAE(**SMALL).fit(ct.stream(X, memory="5KB"), run=run, resume=True)
    ct.VAE(**SMALL).fit(ct.stream(X, memory="4KB"), run=run, resume=True)


def test_what_is_free_may_change_a_little(monkeypatch):
    from chartae.training.streams import memory

    given = []
    for free in (9_000_000_000, 9_100_000_000, 15_999_999_999):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free)
        given.append(memory.parse_bytes(None))
    assert given == [2**32] * 3


def test_numbers_of_numpy_are_numbers(tmp_path):
    numbers = {
        "learning_rate": np.float32(1e-3),
        "latent_dim": np.int64(2),
        "max_epochs": np.int32(6),
        "batch_size": np.int64(16),
        "clip": np.float64(5.0),
        "random_state": np.int64(3),
        "hidden": np.array([8]),
    }
    model = ct.VAE(**{**SMALL, **numbers}).fit(X, run=tmp_path / "a")
    assert not is_unfinished(tmp_path / "a")
    np.testing.assert_array_equal(ct.load(tmp_path / "a").transform(X), model.transform(X))


def test_a_checkpoint_alone_is_the_run(cut):
    (cut / "config.json").unlink()
    ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)
    assert ct.load(cut).n_iter_ == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda config, tree: config.pop("blueprint"),
        lambda config, tree: config.update(estimator=True),
        lambda config, tree: tree["state"].update(rate="fast"),
        lambda config, tree: tree["state"].update(step=None),
        lambda config, tree: tree["state"].update(best_loss=[1.0]),
        lambda config, tree: tree["state"].update(dropout=-1),
        lambda config, tree: tree["state"].update(model={}),
        lambda config, tree: tree["state"].pop("log"),
    ],
)
def test_what_someone_has_changed_in_a_checkpoint_is_refused(change, cut):
    config, tree, history = persistence.read_checkpoint(cut)
    change(config, tree)
    with persistence.OpenRun(cut, overwrite=False, resume=True) as run:
        run.checkpoint(config, tree, history)
    with pytest.raises(RunFolderError, match=str(cut)) as caught:
        ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)
    assert "\n" not in str(caught.value)


def test_what_was_begun_on_a_gpu_goes_on_elsewhere(cut):
    config, tree, history = persistence.read_checkpoint(cut)
    tree["state"]["dropout"].append(torch.zeros(16, dtype=torch.uint8))  # a GPU's stream is as short as that
    with persistence.OpenRun(cut, overwrite=False, resume=True) as run:
        run.checkpoint(config, tree, history)
    ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)
    assert ct.load(cut).n_iter_ == 6


def test_ctrl_c_while_a_run_is_read_is_no_damage(cut, monkeypatch):
    import safetensors

    opened = safetensors.safe_open

    def signalled(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return opened(*args, **kwargs)

    monkeypatch.setattr(safetensors, "safe_open", signalled)
    with pytest.raises(KeyboardInterrupt):
        persistence.read_checkpoint(cut)


def test_without_asking_nothing_is_gone_on_with(cut):
    with pytest.raises(
        RunFolderError, match="unfinished run: go on with resume=True, or pass overwrite=True"
    ):
        ct.CVAE(**SMALL).fit(X, LABELS, run=cut)
    ct.CVAE(**SMALL).fit(X, LABELS, run=cut, overwrite=True)
    assert not is_unfinished(cut)
    with pytest.raises(RunFolderError, match="finished run: leave resume=True out"):
        ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)


def test_a_finished_run_stays_until_another_has_learned_something(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SELDOM", 60.0)
    ct.VAE(**SMALL).fit(X, run=tmp_path / "a")
    before = files(tmp_path / "a")
    with pytest.warns(UserWarning, match="last good state"), pytest.raises(TrainingError):
        ct.VAE(**SMALL, learning_rate=1e30).fit(X, run=tmp_path / "a", overwrite=True)
    assert files(tmp_path / "a") == before
    bits = (X > 0).astype(np.uint8)
    with monkeypatch.context() as m:
        stop_at(m, 3)
        with pytest.raises(KeyboardInterrupt):
            ct.VAE(**SMALL).fit(bits, run=tmp_path / "b")
    with pytest.raises(RunFolderError, match="other data"):
        ct.VAE(**SMALL).fit(bits[::-1], run=tmp_path / "b", resume=True)


def test_resume_without_a_folder():
    with pytest.raises(PlanError, match="name it with run="):
        ct.VAE(**SMALL).fit(X, resume=True)


def test_bad_data_leave_no_folder_and_no_lock(tmp_path):
    with pytest.raises(DataError):
        ct.VAE(**SMALL).fit(np.full((20, 3), np.inf), run=tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*last good state")
def test_training_that_breaks_down_leaves_what_was_learned(tmp_path, monkeypatch):
    from chartae.training import loop

    run = loop.Loop.steps

    def broken(self, pause):
        if self.epoch >= 2:
            return False, "the loss is not finite"
        return run(self, pause)

    with monkeypatch.context() as m:
        m.setattr(loop.Loop, "steps", broken)
        with pytest.raises(TrainingError):
            ct.VAE(**SMALL).fit(X, run=tmp_path / "a")
    assert ct.load(tmp_path / "a").n_iter_ == 2
    with pytest.raises(TrainingError):
        ct.VAE(**SMALL, learning_rate=1e30).fit(X, run=tmp_path / "b")
    assert not (tmp_path / "b").exists()


# ------------------------------------------------------------------- two programs, and no room


def test_a_second_fit_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    said = []

    def meanwhile(*args):
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(RunFolderError, match="being written by another fit") as error:
                ct.VAE(**SMALL).fit(X, run=tmp_path / "a", **how)
            said.append(error)
        said.append(ct.load(tmp_path / "a"))  # reading is allowed

    from chartae.training import engine

    settle = engine.settle
    monkeypatch.setattr(engine, "settle", lambda *args: (meanwhile(), settle(*args)))
    ct.VAE(**SMALL).fit(X, run=tmp_path / "a")
    assert len(said) == 4
    assert ct.load(tmp_path / "a").n_iter_ == 6


def full(monkeypatch, first):
    """Let the disk be full from some file on."""
    write, seen = writing._write, [0]

    def refuse(file, how):
        seen[0] += 1
        if seen[0] >= first:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(file, how)

    monkeypatch.setattr(writing, "_write", refuse)


def test_a_disk_that_is_full_is_known_before_training(tmp_path, monkeypatch):
    full(monkeypatch, 1)
    with pytest.raises(RunFolderError, match="No space left on device"):
        ct.VAE(**{**SMALL, "max_epochs": 10**9}).fit(X, run=tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_costs_no_training(tmp_path, monkeypatch):
    vae = ct.VAE(**SMALL)
    with monkeypatch.context() as m:
        full(m, 12)
        with (
            pytest.warns(UserWarning, match=r"No space left.*without further checkpoints"),
            pytest.raises(RunFolderError, match="No space left"),
        ):
            vae.fit(X, run=tmp_path / "a")
    assert vae.n_iter_ == 6  # in memory it is whole
    assert np.array_equal(ct.VAE(**SMALL).fit(X).transform(X), vae.transform(X))
    # In the folder is the last checkpoint that found room, and it goes on.
    assert is_unfinished(tmp_path / "a")
    assert not [p.name for p in (tmp_path / "a").iterdir() if p.name.endswith(".tmp")]
    ct.VAE(**SMALL).fit(X, run=tmp_path / "a", resume=True)
    assert np.array_equal(ct.load(tmp_path / "a").transform(X), vae.transform(X))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="no folder to write in"):
        ct.VAE(**SMALL).fit(X, run=tmp_path / "a")


def test_a_file_system_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(RunFolderError, match=r"cannot write .*a \(Read-only file system\): choose another"):
        ct.VAE(**SMALL).fit(X, run=tmp_path / "a")


def test_two_fits_that_begin_together_are_told_so(tmp_path, monkeypatch):
    fresh = keeping.OpenRun

    class Late(fresh):
        def checkpoint(self, *content):
            if not (tmp_path / "a").exists():
                with fresh(tmp_path / "a", overwrite=False) as other:
                    other.checkpoint(*content)
                    super().checkpoint(*content)

    monkeypatch.setattr(keeping, "OpenRun", Late)
    with pytest.raises(RunFolderError, match="being written by another fit"):
        ct.VAE(**SMALL).fit(X, run=tmp_path / "a")


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:20] + b"#" + b[21:]])
def test_a_damaged_checkpoint_is_a_run_that_can_be_replaced(damage, cut):
    file = cut / "checkpoint.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    for again in (lambda: ct.load(cut), lambda: ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)):
        with pytest.raises(RunFolderError, match="cannot be read"):
            again()
    ct.CVAE(**SMALL).fit(X, LABELS, run=cut, overwrite=True)
    assert ct.load(cut).n_iter_ == 6


def test_a_state_that_is_no_tensor_is_known_before_training(tmp_path):
    class Odd(torch.nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            pass

    vae = ct.VAE(**{**SMALL, "hidden": None}, network=(Odd(6, 4), torch.nn.Linear(2, 6)))
    with pytest.raises(PlanError, match="which is no tensor"):
        vae.fit(X, run=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_drafts_of_a_killed_program_are_cleared(cut):
    for name in (".model.safetensors.123.tmp", ".checkpoint.safetensors.9.tmp", ".tmpnxP8ei"):
        (cut / name).write_bytes(b"half")
    (cut / ".notes.tmp").write_bytes(b"somebody's")
    ct.CVAE(**SMALL).fit(X, LABELS, run=cut, resume=True)
    assert files(cut).keys() == {".notes.tmp", "config.json", "history.jsonl", "model.safetensors"}


# ------------------------------------------------------------------- killed

KILLED = """
import os, sys, signal, threading, numpy as np, chartae as ct
from chartae.estimators import keeping
from chartae.models.persistence import writing
keeping.SELDOM, keeping.SHARE = 0.0, 0
os.fsync = lambda handle: None
X, left, write = np.load(sys.argv[1]), [float(sys.argv[3])], writing._write
def counted(file, how):
    left[0] -= 1
    write(file, how)
    if left[0] == 0:
        threading.Timer(float(sys.argv[4]), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
writing._write = counted
ct.VAE(latent_dim=2, hidden=(16,), max_epochs=6, batch_size=16, patience=None, random_state=0).fit(
    X, run=sys.argv[2], resume=True
)
"""


def lives(data, run, *, files=math.inf, delay=0.0):
    """Go on with a fit, kill it so many files and seconds from then, and say whether it was still alive."""
    words = [sys.executable, "-c", KILLED, str(data), str(run), str(files), str(delay)]
    code = subprocess.run(words).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    np.save(tmp_path / "X.npy", X)
    assert lives(tmp_path / "X.npy", tmp_path / "cut", files=50)
    assert ct.load(tmp_path / "cut").n_iter_ == 2
    for name in ("whole", "cut"):
        ct.VAE(**SMALL, patience=None).fit(X, run=tmp_path / name, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert files(tmp_path / "cut").keys() == {"config.json", "history.jsonl", "model.safetensors"}


@pytest.mark.slow
def test_a_fit_that_was_killed_at_many_moments_goes_on_to_the_same_bytes(tmp_path):
    data, whole = tmp_path / "X.npy", tmp_path / "whole"
    np.save(data, X)
    assert not lives(data, whole)
    rng = np.random.default_rng(1)
    for moment in range(20):
        run = tmp_path / f"cut{moment}"
        # Within a step, a checkpoint, or the exchange of files.
        assert lives(data, run, files=int(rng.integers(1, 120)), delay=rng.uniform(0, 0.02))
        assert is_unfinished(run)
        assert np.isfinite(ct.load(run).transform(X)).all()
        assert not lives(data, run)
        assert weights(run) == weights(whole)
        assert files(run).keys() == files(whole).keys()
