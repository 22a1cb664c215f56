"""Run folders: what comes back is what was saved, and a damaged folder is refused in one line."""

import contextlib
import json
import os
import pickle
import shutil
import stat
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import chartae as ct
from chartae.core.errors import RunFolderError
from chartae.estimators.runs import FITTED
from chartae.models.persistence import FORMAT, TIMES, config_of, read_run, write_run
from chartae.parts.units import infer_space

SMALL = {"latent_dim": 2, "hidden": (8,), "max_epochs": 2, "random_state": 0}
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(60, 4)) * [1, 10, 100, 1000] + [0, 5, -50, 1e6]
IMAGES = RNG.integers(0, 256, (60, 9, 7, 3)).astype(np.uint8)
LABELS = np.array(["a", "b", "c"])[np.arange(60) % 3]
FILES = {"config.json", "model.safetensors", "history.jsonl"}


def fitted(
    name: str = "vae", X: np.ndarray = TABLE, y: object = None, **parameters: object
) -> ct.Autoencoder:
    return ct.Autoencoder(recipe=name, **{**SMALL, **parameters}).fit(X, y)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fitted().save(tmp_path / "run")


def assert_same(a: ct.Autoencoder, b: ct.Autoencoder, X: np.ndarray, condition: object = None) -> None:
    for method in ("transform", "project", "score_samples", "decision_function"):
        assert np.array_equal(getattr(a, method)(X, condition), getattr(b, method)(X, condition)), method
    one = None if condition is None else condition[0]
    for noise in (False, True):
        made = [m.sample(3, one, random_state=1, observation_noise=noise) for m in (a, b)]
        assert np.array_equal(*made)
    assert np.array_equal(a.validation_rows_, b.validation_rows_)
    for name in ("history_", "gaps_", *FITTED):
        assert getattr(a, name) == getattr(b, name), name
    assert repr(a.schema_) == repr(b.schema_)
    assert list(a.get_feature_names_out()) == list(b.get_feature_names_out())


# ------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", [r.name for r in ct.recipes()])
@pytest.mark.parametrize("kind", ["table", "float32", "images", "binary", "categories"])
def test_every_recipe_comes_back(name, kind, refused, tmp_path):
    X = {
        "table": TABLE,
        "float32": TABLE.astype(np.float32),
        "images": IMAGES,
        "binary": IMAGES[..., 0] > 127,
        "categories": IMAGES // 64,
    }[kind]
    likelihood = {"likelihood": "categorical"} if kind == "categories" else {}
    if refused(name, infer_space(X, **likelihood)):
        return
    conditional = next(r for r in ct.recipes() if r.name == name).conditional
    y = LABELS if conditional else None
    m = fitted(name, X, y, network="conv2d" if kind == "images" else "auto", **likelihood)
    again = ct.load(m.save(tmp_path / "run"))
    assert_same(m, again, X, y)
    assert again.space_.config() == m.space_.config()
    assert not again.model_.training
    # What was loaded can be saved, and comes back once more; so can it be fitted.
    assert_same(m, ct.load(again.save(tmp_path / "again")), X, y)
    assert again.fit(X, y).history_[0]["loss"] == pytest.approx(m.history_[0]["loss"], rel=1e-6)


@pytest.mark.parametrize("noise", ["global", "feature", "item", 0.5])
@pytest.mark.parametrize("scale", ["auto", "none"])
def test_noise_and_scale_come_back(noise, scale, tmp_path):
    X = TABLE / [1, 10, 100, 1000]
    m = fitted(X=X, noise=noise, scale=scale)
    assert_same(m, ct.load(m.save(tmp_path / "run")), X)


@pytest.mark.parametrize("kind", ["AE", "VAE", "CVAE"])
def test_the_class_comes_back(kind, tmp_path):
    m = getattr(ct, kind)(**SMALL).fit(TABLE)
    again = ct.load(m.save(tmp_path / "run"))
    assert type(again) is type(m)
    assert again.get_params() == m.get_params() | {"hidden": [8]}
    assert isinstance(again.set_output(transform="pandas").transform(TABLE), pd.DataFrame)


@pytest.mark.parametrize(
    "y",
    [LABELS, LABELS.astype(object), np.arange(60) % 2 == 0, np.arange(60) % 5 - 2, TABLE[:, :2]],
    ids=["strings", "objects", "booleans", "integers", "vectors"],
)
def test_conditions_come_back(y, tmp_path):
    m = fitted("cvae", y=y, recipe_params={"conditional_prior": True})
    assert_same(m, ct.load(m.save(tmp_path / "run")), TABLE, y)


def test_columns_come_back(tmp_path):
    frame = pd.DataFrame(TABLE, columns=["größe", "b", "c", "d"])
    m = ct.VAE(**SMALL).fit(frame)
    again = ct.load(m.save(tmp_path / "run"))
    assert list(again.feature_names_in_) == list(frame.columns)
    assert again.space_.columns == m.space_.columns == tuple(frame.columns)
    assert again.schema_ == m.schema_ is not None
    assert np.array_equal(again.transform(frame), m.transform(frame))
    with pytest.raises(ValueError, match="feature names"):
        again.transform(frame[["b", "c", "d", "größe"]])


@pytest.mark.parametrize(
    "given",
    [{"hidden": np.array([8])}, {"latent_dim": np.int64(2)}, {"random_state": np.random.RandomState(0)}],
)
def test_parameters_of_numpy_s_types(given, tmp_path):
    m = ct.VAE(**SMALL | given).fit(TABLE)
    again = ct.load(m.save(tmp_path / "run"))
    assert np.array_equal(again.transform(TABLE), m.transform(TABLE))
    again.fit(TABLE)


def test_modules_of_the_user_are_passed_back(tmp_path):
    def pair() -> tuple[nn.Module, nn.Module]:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), nn.Linear(2, 4)

    m = ct.VAE(**SMALL | {"network": pair()}).fit(TABLE)
    path = m.save(tmp_path / "run")
    again = ct.load(path, network=pair())  # weights come from the folder
    assert_same(m, again, TABLE)
    again.fit(TABLE)
    with pytest.raises(RunFolderError, match=r"fitted with modules of yours: pass them as network="):
        ct.load(path)
    with pytest.raises(RunFolderError, match="do not fit"):
        ct.load(path, network=(nn.Linear(4, 5), nn.Linear(2, 4)))
    with pytest.raises(RunFolderError, match="do not fit"):
        ct.load(path, network=(pair()[0], nn.Linear(2, 5)))
    decoder = m.export_decoder(tmp_path / "decoder")
    made = ct.load_decoder(decoder, network=pair()[1]).sample(3, random_state=0)
    assert np.array_equal(made, m.sample(3, random_state=0))
    other = fitted().save(tmp_path / "other")
    with pytest.raises(RunFolderError, match="leave network out"):
        ct.load(other, network=pair())


class Tied(nn.Module):
    """Two layers with one weight; the second is the first, turned round."""

    def __init__(self, first: nn.Linear | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4) if first is None else first
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("across", [False, True])
def test_shared_weights(across, tmp_path):
    def pair() -> tuple[nn.Module, nn.Module]:
        encoder = Tied()
        return encoder, Tied(encoder.first) if across else nn.Linear(4, 4)

    m = ct.VAE(**SMALL | {"network": pair(), "latent_dim": 4}).fit(TABLE)
    path = m.save(tmp_path / "run")
    again = ct.load(path, network=pair())
    assert_same(m, again, TABLE)
    module = again.model_.posterior.network.module
    assert module.first.weight is module.second.weight
    generator = ct.load_decoder(m.export_decoder(tmp_path / "decoder"), network=pair()[1])
    assert np.array_equal(generator.sample(3, random_state=0), m.sample(3, random_state=0))


class Joined(nn.Linear):
    """A layer of its input and the condition."""

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([h, c], 1))


def test_a_decoder_of_the_user_s_with_a_condition(tmp_path):
    m = ct.CVAE(**SMALL | {"network": (Joined(4 + 3, 5), Joined(2 + 3, 4))}).fit(TABLE, LABELS)
    again = ct.load(m.save(tmp_path / "run"), network=(Joined(4 + 3, 5), Joined(2 + 3, 4)))
    assert_same(m, again, TABLE, LABELS)
    generator = ct.load_decoder(m.export_decoder(tmp_path / "decoder"), network=Joined(2 + 3, 4))
    assert np.array_equal(generator.sample(3, "b", random_state=0), m.sample(3, "b", random_state=0))


def test_load_takes_a_device(run):
    assert np.array_equal(ct.load(run, device="cpu").transform(TABLE), ct.load(str(run)).transform(TABLE))
    for device in ("cuda:99", "meta"):
        with pytest.raises(ValueError, match="use 'auto' or 'cpu'"):
            ct.load(run, device=device)


def test_load_leaves_the_caller_s_generator_alone(run):
    before = torch.get_rng_state()
    ct.load(run), ct.load_decoder(run)
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------- the decoder alone


@pytest.mark.parametrize("name", [r.name for r in ct.recipes()])
def test_a_decoder_samples_without_its_encoder(name, tmp_path):
    conditional = next(r for r in ct.recipes() if r.name == name).conditional
    y, one = (LABELS, "b") if conditional else (None, None)
    m = fitted(name, IMAGES, y, network="conv2d")
    path = m.export_decoder(tmp_path / "decoder")
    generator = ct.load_decoder(path)
    assert generator.model_.posterior is None
    assert np.array_equal(generator.sample(4, one, random_state=0), m.sample(4, one, random_state=0))
    codes = RNG.normal(size=(5, 2))
    assert np.array_equal(generator.inverse_transform(codes, one), m.inverse_transform(codes, one))
    facts = ("latent_dim_", "n_iter_", "best_epoch_", "summary_", "network_", "history_", "blueprint_")
    assert all(getattr(generator, fact) == getattr(m, fact) for fact in facts)
    assert generator.space_.config() == m.space_.config()
    _, tensors, _ = read_run(path)
    assert not any("posterior" in key or "validation" in key for key in tensors)
    with pytest.raises(RunFolderError, match="a decoder alone: open it with load_decoder"):
        ct.load(path)


def test_a_whole_run_will_do_as_a_decoder(run):
    made = [ct.load_decoder(run).sample(3, random_state=0), ct.load(run).sample(3, random_state=0)]
    assert np.array_equal(*made)


# ------------------------------------------------------------------- what is written


def test_three_files_and_no_pickle(run):
    assert {p.name for p in run.iterdir()} == FILES
    for p in run.iterdir():
        with pytest.raises(
            (pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError, AttributeError)
        ):
            pickle.loads(p.read_bytes())
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == FORMAT
    assert config["blueprint"]["recipe"] == "vae"
    assert {"torch", "numpy", "threads"} <= set(config["environment"])
    lines = (run / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    size = struct.unpack("<Q", (run / "model.safetensors").read_bytes()[:8])[0]
    assert json.loads((run / "model.safetensors").read_bytes()[8 : 8 + size])


def test_nothing_of_the_data_is_written(tmp_path):
    secret = 123456.789
    X = TABLE.copy()
    X[5] = secret
    path = fitted(X=X, scale="none").save(tmp_path / "run")
    config = json.loads((path / "config.json").read_text())
    config["space"].pop("value_range")
    assert "123456" not in json.dumps(config)


def test_a_model_saves_its_own_tensors_only(tmp_path):
    """A view of something larger must not take it along."""
    path = fitted().save(tmp_path / "run")
    numbers = sum(t.numel() for t in read_run(path)[1].values())
    assert (path / "model.safetensors").stat().st_size < 8 * numbers + 5000


def test_an_occupied_place_is_refused(run, tmp_path):
    m = fitted()
    with pytest.raises(
        RunFolderError, match="holds a run already: choose another folder, or pass overwrite=True"
    ):
        m.save(run)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError):
            m.save(other, overwrite=overwrite)
    file = tmp_path / "file"
    file.write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError):
            m.save(file, overwrite=overwrite)
    assert (other / "chapter.txt").read_text() == file.read_text() == "precious"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert {p.name for p in m.save(empty).iterdir()} == FILES


def test_overwriting_replaces_the_run_and_keeps_what_else_is_there(run, monkeypatch):
    (run / "notes.txt").write_text("mine")
    (run / "codes").mkdir()
    (run / "codes" / "config.json").write_text("mine too")
    (run / "link").symlink_to("nowhere")
    m = fitted("ae")
    for hard_links in (True, False):
        if not hard_links:
            monkeypatch.setattr(os, "link", refuse)
        m.save(run, overwrite=True)
        assert ct.load(run).recipe == "ae"
        m.export_decoder(run, overwrite=True)
        assert ct.load_decoder(run).latent_dim_ == 2
        assert {p.name for p in run.iterdir()} == {*FILES, "notes.txt", "codes", "link"}
        assert (run / "notes.txt").read_text() == "mine"
        assert (run / "codes" / "config.json").read_text() == "mine too"
        assert (run / "link").readlink() == Path("nowhere")


def refuse(*_: object, **__: object) -> None:
    raise OSError(1, "Operation not permitted")


def test_a_link_to_a_run_stays_one(run, tmp_path):
    latest = tmp_path / "latest"
    latest.symlink_to(run, target_is_directory=True)
    assert fitted("ae").save(latest, overwrite=True) == latest
    assert latest.is_symlink()
    assert ct.load(run).recipe == "ae"


def test_a_folder_of_another_program_is_no_run(tmp_path):
    """Many programs write a config.json, and some a model.safetensors beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text("{}")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for config in ('{"model_type": "bert"}', "[]", "", '{"format": 1}'):
        (folder / "config.json").write_text(config)
        assert config_of(folder) is None
        with pytest.raises(RunFolderError, match="not empty and holds no run to overwrite"):
            fitted().save(folder, overwrite=True)
    assert {p.name for p in folder.iterdir()} == FILES


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_run_that_lacks_a_file_is_not_overwritten(run, name):
    assert config_of(run)["content"] == "model"
    (run / name).unlink()
    assert config_of(run) is None
    with pytest.raises(RunFolderError, match="not empty and holds no run to overwrite"):
        fitted().save(run, overwrite=True)


def test_nothing_is_left_beside_a_run(tmp_path, run):
    fitted().save(run, overwrite=True)
    fitted().save(tmp_path / "a" / "b" / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "run"]
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", ["save_file", "dumps"])
def test_a_write_that_fails_leaves_what_was_there(run, tmp_path, monkeypatch, overwrite, step):
    """The disk fills up half way: no half folder, no trace, and the old run as it was."""
    before = {p.name: p.read_bytes() for p in run.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "save_file":
        monkeypatch.setattr("safetensors.torch.save_file", full)
    else:
        monkeypatch.setattr("chartae.models.persistence.files.json.dumps", full)
    target = run if overwrite else tmp_path / "new"
    with pytest.raises(RunFolderError, match="No space left on device"):
        write_run(target, {"a": 1}, {"w": torch.ones(3)}, [{"epoch": 1}], overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_an_exchange_that_fails_half_way_is_undone(run, tmp_path, monkeypatch, error):
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    replace, calls = Path.replace, []

    def fail_at_the_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_second)
    with pytest.raises((RunFolderError, KeyboardInterrupt)):
        write_run(run, {"a": 1}, {"w": torch.ones(3)}, overwrite=True)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(RunFolderError, match=r"cannot be made|cannot write"):
            fitted().save(locked / "run")
    finally:
        locked.chmod(stat.S_IRWXU)


def test_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", tmp_path / ("x" * 400), Path("/proc/no/such")):
        with pytest.raises(RunFolderError, match=r"cannot be made|cannot write") as caught:
            fitted().save(place)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for place in (".", "..", tmp_path / "here", "/proc"):
        with pytest.raises(RunFolderError, match="name a folder in it"):
            fitted().save(place)
    fitted().save("run")
    fitted("ae").save(tmp_path / "here" / "beside")
    assert [p.name for p in Path().iterdir()] == ["run"]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_run_can_be_read_by_those_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        run = fitted().save(tmp_path / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE(run.stat().st_mode) == 0o777 & ~mask
    assert {stat.S_IMODE(p.stat().st_mode) for p in run.iterdir()} == {0o666 & ~mask}


# ------------------------------------------------------------------- damage


def opened(path: Path) -> list[str]:
    """The one-line messages with which both ways of opening refuse a folder."""
    said = []
    for way in (ct.load, ct.load_decoder):
        with pytest.raises(RunFolderError) as caught:
            way(path)
        said.append(str(caught.value))
    assert all("\n" not in text and str(path) in text for text in said)
    return said


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file(run, name):
    (run / name).unlink()
    assert all(f"{name} is missing" in text for text in opened(run))


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("keep", [1, 7, 100, -2])
def test_a_truncated_file(run, name, keep):
    (run / name).write_bytes((run / name).read_bytes()[:keep])
    assert all(name in text for text in opened(run))


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_of_something_else(run, name):
    for junk in (b"\x00" * 100, b"\xff\xfe" * 50, b"[]", b"3", b'{"a": 1}', b"<html></html>", b"\n"):
        (run / name).write_bytes(junk)
        if name == "history.jsonl" and junk in (b'{"a": 1}',):
            continue
        opened(run)


def test_a_folder_in_a_file_s_place(run):
    (run / "config.json").unlink()
    (run / "config.json").mkdir()
    opened(run)


def test_no_run_at_all(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        assert all("is not a run folder" in text for text in opened(place))


def test_a_newer_format(run):
    change(run, format=FORMAT + 1)
    assert all("newer chartae" in text and "update" in text for text in opened(run))


def unseal(run: Path) -> None:
    """Let weights forget what was written with them, as a program that knows tensors only would."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(run / "model.safetensors"), run / "model.safetensors")


def change(run: Path, **parts: object) -> None:
    config = json.loads((run / "config.json").read_text())
    for key, value in parts.items():
        at, *path = key.split("__")
        place = config
        for step in path:
            place, at = place[at], step
        place[at] = value
    (run / "config.json").write_text(json.dumps(config))
    unseal(run)


def without(run: Path, key: str) -> None:
    config = json.loads((run / "config.json").read_text())
    del config[key]
    (run / "config.json").write_text(json.dumps(config))
    unseal(run)


@pytest.mark.parametrize(
    "parts",
    [
        {"blueprint__latent_dim": 3},
        {"blueprint__latent_dim": "two"},
        {"blueprint__latent_dim": -1},
        {"blueprint__hidden": [9]},
        {"blueprint__hidden": "wide"},
        {"blueprint__recipe": "no-such-recipe"},
        {"blueprint__surprise": 1},
        {"blueprint": []},
        {"blueprint": None},
        {"space": {}},
        {"space__shape": [5]},
        {"space__shape": []},
        {"space__likelihood": "poison"},
        {"space__likelihood": "bernoulli", "space__center_shape": [2]},
        {"space__center_shape": "x"},
        {"condition": {}},
        {"condition": None},
        {"fitted": {}},
        {"fitted__network_": "no-such-network"},
        {"fitted__network_": 3},
        {"fitted_prior": "no-such-prior"},
        {"fitted_prior": "fitted-normal"},
        {"format": "one"},
        {"format": None},
    ],
    ids=str,
)
def test_a_configuration_that_was_changed(run, parts):
    change(run, **parts)
    opened(run)


@pytest.mark.parametrize(
    "parts",
    [
        {"estimator__class": "Unpickler"},
        {"estimator__class": "os.system"},
        {"estimator__parameters": {"no_such": 1}},
        {"estimator__parameters": 3},
        {"estimator": None},
        {"content": "something"},
        {"feature_names": 3},
    ],
    ids=str,
)
def test_an_estimator_that_was_changed(run, parts):
    change(run, **parts)
    with pytest.raises(RunFolderError) as caught:
        ct.load(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["blueprint", "space", "condition", "fitted", "fitted_prior", "format"])
def test_a_configuration_that_lacks_a_part(run, key):
    without(run, key)
    opened(run)


@pytest.mark.parametrize("change", ["shape", "missing", "more", "type"])
def test_weights_that_do_not_fit(run, change):
    config, tensors, history = read_run(run)
    name = "likelihood.network.layers.0.weight"
    if change == "shape":
        tensors[name] = tensors[name][:, :1].clone()
    elif change == "missing":
        del tensors[name]
    elif change == "more":
        tensors["likelihood.surprise"] = torch.zeros(1)
    else:
        tensors["space.center"] = torch.zeros(7, 7)
    write_run(run, config, tensors, history, overwrite=True)
    assert all("do not fit the configuration" in text or "damaged" in text for text in opened(run))


def test_weights_of_another_run(run, tmp_path):
    other = fitted(X=IMAGES, network="conv2d").save(tmp_path / "other")
    shutil.copy(other / "model.safetensors", run / "model.safetensors")
    opened(run)


def test_weights_that_are_not_finite_are_loaded_as_they_are(run):
    """Weights are the user's: loading neither mends nor judges them."""
    config, tensors, history = read_run(run)
    tensors["likelihood.network.layers.0.bias"][:] = torch.nan
    write_run(run, config, tensors, history, overwrite=True)
    assert np.isnan(ct.load(run).sample(1)).any()


def test_no_code_is_run_from_a_folder(run, tmp_path):
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (marker,)

    (run / "model.pkl").write_bytes(pickle.dumps(Evil()))
    (run / "network.py").write_text(f"open({str(marker)!r}, 'w')")
    (run / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    change(run, estimator__parameters__network="network.py")
    ct.load(run)
    assert not marker.exists()


def test_a_decoder_may_not_be_opened_as_a_model_after_a_change(tmp_path):
    path = fitted().export_decoder(tmp_path / "decoder")
    change(path, content="model")
    with pytest.raises(RunFolderError):
        ct.load(path)


def test_a_subclass_is_opened_as_what_it_is_one_of(tmp_path):
    class Mine(ct.VAE):
        pass

    mine = Mine(**SMALL).fit(TABLE)
    again = ct.load(mine.save(tmp_path / "run"))
    assert type(again) is ct.VAE
    np.testing.assert_array_equal(again.transform(TABLE), mine.transform(TABLE))


def test_a_disk_that_fills_up_under_the_weights(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")

    m = fitted()
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunFolderError, match="File too large"):
        m.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_history_that_was_cut_is_refused(run):
    (run / "history.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="not what was written with the weights"):
        ct.load(run)
    unseal(run)
    with pytest.raises(RunFolderError, match="another number of epochs"):
        ct.load(run)


def test_a_number_that_was_changed_is_refused_and_another_layout_is_not(run):
    before = ct.load(run)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=1))
    assert np.array_equal(ct.load(run).transform(TABLE), before.transform(TABLE))
    config["estimator"]["parameters"]["learning_rate"] *= 2
    (run / "config.json").write_text(json.dumps(config))
    assert all("config.json is not what was written with the weights" in text for text in opened(run))


# ------------------------------------------------------------------- a hundred changes


MUTATIONS = ("bit", "byte", "cut", "grow", "zeros", "swap", "delete", "twice", "empty")


def mutated(content: bytes, how: str, rng: np.random.Generator) -> bytes:
    """Damage a file as disks, transfers and editors do."""
    data = bytearray(content)
    at, length = int(rng.integers(len(data) or 1)), int(rng.integers(1, 64))
    if how == "bit" and data:
        data[at] ^= 1 << int(rng.integers(8))
    elif how == "byte" and data:
        data[at] = int(rng.integers(256))
    elif how == "cut":
        del data[at:]
    elif how == "grow":
        data += rng.bytes(length)
    elif how == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif how == "swap":
        data[at : at + length] = data[at : at + length][::-1]
    elif how == "delete":
        del data[at : at + length]
    elif how == "twice":
        data[at:at] = data[at : at + length]
    else:
        data.clear()
    return bytes(data)


@pytest.fixture(scope="module", params=["vae", "cvae", "table", "unfinished", "decoder"])
def whole(request, tmp_path_factory):
    """A run, what it makes, and how it is opened."""
    run = tmp_path_factory.mktemp("whole") / "run"
    load = ct.load
    if request.param == "cvae":
        ct.CVAE(**SMALL).fit(TABLE, np.arange(len(TABLE)) % 3, run=run)
    elif request.param == "table":
        frame = pd.DataFrame({"a": TABLE[:, 0], "b": np.array(["x", "y"])[np.arange(len(TABLE)) % 2]})
        ct.VAE(**SMALL).fit(frame, run=run)
    elif request.param == "unfinished":
        ct.VAE(**SMALL, max_time=1e-9).fit(TABLE, run=run)
        assert (run / "checkpoint.safetensors").exists()
    elif request.param == "decoder":
        fitted().export_decoder(run)
        load = ct.load_decoder
    else:
        ct.VAE(**SMALL).fit(TABLE, run=run)
    return run, load


def made(model: object) -> list[object]:
    sample = np.asarray(model.sample(5, random_state=0), dtype=str)
    untimed = [{k: v for k, v in row.items() if k not in TIMES} for row in model.history_]
    parameters = model.get_params() if hasattr(model, "get_params") else None
    return [sample.tolist(), str(parameters), str(untimed), model.summary_, model.n_iter_, str(model.space_)]


def test_a_hundred_mutations_are_refused_or_open_as_what_was_written(whole, tmp_path):
    run, load = whole
    before = made(load(run))
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(100):
        broken = tmp_path / f"run{number}"
        shutil.copytree(run, broken)
        names = sorted(p.name for p in run.iterdir())
        name, how = names[number % len(names)], MUTATIONS[number % len(MUTATIONS)]
        (broken / name).write_bytes(mutated((run / name).read_bytes(), how, rng))
        after = before
        with contextlib.suppress(RunFolderError):
            refused += 1
            after = made(load(broken))
            refused -= 1
        assert after == before, (name, how)
        shutil.rmtree(broken)
    assert refused >= 20
