"""The command line: what it writes, what it says, and that an error costs one line and leaves nothing."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.io import wavfile
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app, main
from chartae.apps.health import write_source
from chartae.apps.options import value_of
from chartae.apps.outputs import write
from chartae.apps.using import _filled
from chartae.core.errors import RunFolderError
from chartae.models.persistence import FILES, OpenRun
from chartae.training.audio import LogMel

SMALL = ["--epochs", "2", "--seed", "0", "--hidden", "16", "--latent-dim", "3", "--no-audit"]
COMMANDS = typer.main.get_command(app).commands


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def done(*words):
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*words):
    """Run what must fail, and return its one line."""
    result = run(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Fitted runs of images, of a table with text labels, and of labelled images."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    y = rng.choice(["1", "2", "b"], 60)
    X = rng.normal(size=(60, 3)) + (y == "b")[:, None]
    rows = [",".join([*(f"{v:.4f}" for v in x), label]) for x, label in zip(X, y, strict=True)]
    (folder / "table.csv").write_text("\n".join(["a,b,c,kind", *rows]) + "\n")
    done("fit", "digits", "--out", folder / "digits", *SMALL, "--quiet")
    done("fit", "digits", "--recipe", "cvae", "--out", folder / "cvae", *SMALL, "--quiet")
    table = [folder / "table.csv", "--labels", "kind"]
    done("fit", *table, "--recipe", "cvae", "--out", folder / "table", *SMALL, "--quiet")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A file of few small images, for tests that care about files and not about training."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.npy"
    np.save(file, np.random.default_rng(0).random((40, 5, 6)))
    return file


@pytest.fixture(scope="module")
def digits():
    from chartae.training.readers import read

    return read("digits")


# -------------------------------------------------------------------------------------------------- fit


def test_fit_says_what_it_did_and_what_to_try(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = done("fit", "digits", "--out", "runs/my digits", *SMALL)
    assert "1,797 images of 8 × 8" in said
    pictures = ["reconstructions.png", "samples.png"]
    files = sorted([*FILES, *pictures, "source.json"])
    assert names("runs/my digits") == files
    assert all(file in said for file in files)
    assert "chartae sample 'runs/my digits' --n 64" in said
    assert names(tmp_path) == ["runs"]
    assert names("runs") == ["my digits"]


def test_fit_passes_its_options_on(tiny, tmp_path):
    params = ["--recipe", "beta-vae", "--param", "beta=2.5", "--param", "warmup=1", "--noise", "0.5"]
    given = [*SMALL, *params, "--batch-size", "20", "--device", "cpu"]
    done("fit", tiny, "--out", tmp_path / "a", *given, "-q")
    estimator = ct.load(tmp_path / "a")
    assert estimator.recipe == "beta-vae"
    assert estimator.recipe_params == {"beta": 2.5, "warmup": 1}
    asked = {
        "latent_dim": 3,
        "hidden": (16,),
        "max_epochs": 2,
        "batch_size": 20,
        "noise": 0.5,
        "random_state": 0,
    }
    known = estimator.get_params()
    assert {name: type(value)(known[name]) for name, value in asked.items()} == asked
    assert len(estimator.history_) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8,5", [8, 5]),
        ("[8,5]", [8, 5]),
        ("0.5", 0.5),
        ("none", None),
        ("TRUE", True),
        ("spline", "spline"),
        ("a,b", "a,b"),
        ("", ""),
    ],
)
def test_values_on_the_command_line(text, value):
    assert value_of(text) == value


def test_fit_takes_any_parameter_of_the_estimator(tiny, tmp_path):
    given = [
        "patience=none",
        "clip=2.5",
        "schedule=cosine",
        "compile=FALSE",
        "validation_fraction=0.5",
        "beta=3",
    ]
    params = [word for pair in given for word in ("--param", pair)]
    done("fit", tiny, "--out", tmp_path / "a", *SMALL, "--recipe", "beta-vae", *params, "-q")
    known = ct.load(tmp_path / "a").get_params()
    asked = {
        "patience": None,
        "clip": 2.5,
        "schedule": "cosine",
        "compile": False,
        "validation_fraction": 0.5,
        "recipe_params": {"beta": 3},
    }
    assert {name: known[name] for name in asked} == asked


def test_an_error_of_the_estimator_names_options(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{i / 7},{i * i / 7}\n" for i in range(40)))
    fit = ["fit", tmp_path / "a.csv", *SMALL, "--noise", "2", "-q", "--out", tmp_path / "run"]
    said = refused(*fit)
    assert "--noise 2" in said
    assert "pass --param scale=global, or --noise global" in said
    done(*fit, "--param", "scale=global")


@pytest.mark.filterwarnings("ignore:with the code of another")  # steps are so large that nothing is learned
def test_the_epoch_that_was_kept_is_shown(tiny, tmp_path):
    # Large steps: it gets worse after some epochs, and patience ends it.
    large = ["--epochs", "200", "--learning-rate", "0.1", "--seed", "0", "--param", "validation_fraction=0.5"]
    said = done("fit", tiny, "--out", tmp_path / "a", *large)
    run = ct.load(tmp_path / "a")
    assert run.best_epoch_ < run.n_iter_
    shown = f"epoch {run.best_epoch_}, the best of {run.n_iter_} epochs"
    loss = f"loss {run.history_[run.best_epoch_ - 1]['loss']:.3f}"
    for text in (said, done("info", tmp_path / "a")):
        text = " ".join(text.split())
        assert f"{shown}: {loss}" in text
    history = tmp_path / "a" / "history.jsonl"
    weights = tmp_path / "a" / "model.safetensors"
    save_file(load_file(weights), weights)  # which forget what was written with them
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    history.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "best"}) + "\n" for r in rows))
    assert f"epoch {run.best_epoch_}" in done("info", tmp_path / "a")


def test_what_the_command_line_reads_is_read_from_python_too(runs):
    data = ct.read(runs / "table.csv", labels="kind")
    assert data.columns == ("a", "b", "c")
    assert ct.CVAE(latent_dim=2, max_epochs=1).fit(data.X, data.y).sample(2, condition="b").shape == (2, 3)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A run fitted on tones of three pitches, and the file of them."""
    folder = tmp_path_factory.mktemp("speech")
    t = np.arange(2000) / 8000
    waves = np.concatenate([0.5 * np.sin(2 * np.pi * (300 + 300 * (i % 3)) * t) for i in range(30)])
    np.savez(folder / "tones.npz", wave=waves, offsets=np.arange(31) * 2000, sr=8000, y=np.arange(30) % 3)
    done("fit", folder / "tones.npz", "--recipe", "cvae", "--out", folder / "run", *SMALL, "-q")
    return folder


def test_sounds_are_written_as_sounds(speech, tmp_path):
    sample = ["sample", speech / "run", "--condition", 1, "--seed", 0, "--out"]
    said = done(*sample, tmp_path / "one.wav")
    assert "1 × 0.25 s at 8,000 Hz" in said
    rate, one = wavfile.read(tmp_path / "one.wav")
    assert (rate, one.shape, one.dtype) == (8000, (2000,), np.int16)
    estimator = ct.load(speech / "run")
    expected = estimator.medium_.decode(estimator.sample(1, condition=1, random_state=0))[0]
    np.testing.assert_allclose(one / 2**15, expected, atol=1 / 2**15)
    (tmp_path / "empty").mkdir()
    for folder in ("several", "empty"):
        done(*sample, tmp_path / folder, "--n", 11)
        assert names(tmp_path / folder) == [f"{i:02}.wav" for i in range(11)]
    # In a folder of sounds, and of their codes and of reconstructions.
    done("encode", speech / "run", speech / "tones.npz", "--out", tmp_path / "z.npy")
    done("decode", speech / "run", tmp_path / "z.npy", "--out", tmp_path / "decoded")
    done("reconstruct", speech / "run", tmp_path / "several", "--out", tmp_path / "again")
    assert [len(names(tmp_path / folder)) for folder in ("decoded", "again")] == [30, 11]
    assert ct.read(tmp_path / "several").X.shape == (11, 1, 40, 64)


def test_sounds_that_cannot_be_written_leave_nothing(speech, runs, tmp_path, monkeypatch):
    sample = ["sample", speech / "run", "--n", 2, "--out"]
    assert "one sound, and there are 2: name a new folder" in refused(*sample, tmp_path / "a.wav")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    for taken in ("full", "file"):
        assert "is there already: name a new folder" in refused(*sample, tmp_path / taken)
    assert "not fitted on sounds" in refused("sample", runs / "digits", "--out", tmp_path / "a.wav")
    assert "none of .npy" in refused("sample", runs / "digits", "--out", tmp_path / "a")
    write = LogMel.write

    def full(self, path, wave):
        if Path(path).name == "1.wav":
            raise OSError("no space left on device")
        write(self, path, wave)

    monkeypatch.setattr(LogMel, "write", full)
    assert "no space left" in refused(*sample, tmp_path / "new")
    assert names(tmp_path) == ["file", "full"]
    assert names(tmp_path / "full") == ["mine.txt"]


def test_spectra_stand_on_their_low_bands(speech, tmp_path):
    """Tones below 1 kHz: the lower third of each picture, and 60 dB from white to black."""
    done("reconstruct", speech / "run", speech / "tones.npz", "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        first = np.asarray(image, dtype=float)[2:42, 2:66]
    X = ct.read(speech / "tones.npz").X
    seen = (X[0, 0, ::-1] - X.max()) / (6 * np.log(10)) + 1
    np.testing.assert_allclose(first, 255 * np.clip(seen, 0, 1), atol=0.6)
    assert first[20:].mean() > 2 * first[:20].mean()


def test_fit_of_vectors_draws_no_pictures(runs):
    assert names(runs / "table") == sorted([*FILES, "source.json"])


def test_fit_of_a_folder_of_images(tmp_path):
    for i in range(20):
        folder = tmp_path / "images" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6 + i % 3, 5), (10 * i, 0, 0)).save(folder / f"{i}.png")
    fit = ["fit", tmp_path / "images", "--recipe", "cvae", "--size", "5x6", "--out", tmp_path / "a"]
    done(*fit, *SMALL, "-q")
    done("sample", tmp_path / "a", "--condition", "1", "--out", tmp_path / "ones.npy")
    assert np.load(tmp_path / "ones.npy").shape == (64, 5, 6, 3)


def test_quiet_is_quiet(tiny, tmp_path):
    result = run("fit", tiny, "--out", tmp_path / "a", *SMALL, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_an_occupied_folder_is_kept(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    assert "not empty" in refused("fit", "digits", "--out", mine, *SMALL)
    assert "no run to overwrite" in refused("fit", "digits", "--out", mine, *SMALL, "--overwrite")
    for config in ("{}", '{"format": 1}', "not JSON"):  # of another program, or of a run without its weights
        (mine / "config.json").write_text(config)
        assert "no run to overwrite" in refused("fit", "digits", "--out", mine, *SMALL, "--overwrite")
    (mine / "config.json").unlink()
    assert "is a file" in refused("fit", "digits", "--out", mine / "thesis.tex", *SMALL)
    assert names(mine) == ["thesis.tex"]


def test_overwrite_replaces_a_run(tiny, tmp_path):
    done("fit", tiny, "--out", tmp_path / "a", *SMALL, "-q")
    (tmp_path / "a" / "old.npy").touch()
    refused("fit", tiny, "--out", tmp_path / "a", *SMALL)
    assert (tmp_path / "a" / "old.npy").exists()
    done("fit", tiny, "--out", tmp_path / "a", *SMALL, "-q", "--recipe", "ae", "--overwrite")
    assert ct.load(tmp_path / "a").recipe == "ae"
    assert "old.npy" in names(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_a_fit_is_kept_elsewhere_when_its_folder_cannot_be_written(tiny, tmp_path, monkeypatch):
    out, finish = tmp_path / "a", OpenRun.finish

    def refuse(self, *content):
        if self.path == out:
            raise RunFolderError(f"cannot write {out} (No space left on device): choose another place")
        return finish(self, *content)

    monkeypatch.setattr(OpenRun, "finish", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = refused("fit", tiny, "--out", out, *SMALL, "-q")
    kept = said.partition("the run is kept in ")[2].strip()
    assert ct.load(kept).n_iter_ > 0


def test_no_pictures_of_an_older_run_remain(tmp_path):
    images, table = tmp_path / "images.npy", tmp_path / "table.npy"
    np.save(images, np.random.default_rng(0).random((30, 8, 8)))
    np.save(table, np.random.default_rng(0).random((30, 8)))
    done("fit", images, "--out", tmp_path / "a", *SMALL, "-q")
    assert {"samples.png", "reconstructions.png"} <= set(names(tmp_path / "a"))
    done("fit", table, "--out", tmp_path / "a", *SMALL, "-q", "--overwrite")
    assert not [name for name in names(tmp_path / "a") if name.endswith(".png")]


@pytest.mark.parametrize(
    "words, hint",
    [
        (["digit"], "did you mean digits?"),
        (["digits", "--recipe", "vea"], "did you mean 'vae'?"),
        (["digits", "--param", "gamma=1"], "no parameter 'gamma'"),
        (["digits", "--param", "warmpu=1"], "did you mean 'warmup'?"),
        (["digits", "--param", "patince=1"], "did you mean 'patience'?"),
        (["digits", "--param", "noise=1", "--noise", "2"], "noise is given twice"),
        (["digits", "--param", "recipe=ae"], "no parameter 'recipe'"),
        (["digits", "--param", "patience=0"], "--param patience must be"),
        (["digits", "--param", "warmup=slow"], "--param warmup=slow"),
        (["digits", "--param", "gamma"], "NAME=VALUE"),
        (["digits", "--latent-dim", "many"], "--latent-dim"),
        (["digits", "--latent-dim", "0"], "--latent-dim"),
        (["digits", "--hidden", "wide"], "512,256"),
        (["digits", "--size", "8x8"], "leave it out"),
        (["digits", "--size", "8"], "28x28"),
        (["digits", "--likelihood", "gauss"], "gauss"),
        (["digits", "--network", "lstm"], "lstm"),
        (["digits", "--noise", "loud"], "loud"),
        (["digits", "--noise", "none"], "none"),
        (["digits", "--device", "abacus"], "abacus"),
        (["digits", "--device", "meta"], "meta"),
        (["digits", "--precision", "int1"], "int1"),
        (["digits", "--epochs", "0"], "--epochs"),
        (["digits", "--batch-size", "0"], "--batch-size"),
        (["digits", "--learning-rate", "-1"], "--learning-rate"),
        (["digits", "--learning-rate", "0"], "--learning-rate must be"),
        (["digits", "--seed", "-1"], "--seed"),
        (["digits", "--hidden", "8,0"], "--hidden"),
        (["digits", "--bogus"], "--bogus"),
        (["digits", "--epochs", "ten"], "--epochs"),
        (["nan.npy"], "NaN"),
        (["bare.npy", "--recipe", "cvae"], "--labels"),
    ],
)
def test_bad_input_costs_one_line_and_leaves_nothing(tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    np.save("bare.npy", np.zeros((9, 2)))
    np.save("nan.npy", np.full((9, 2), np.nan))
    assert hint in refused("fit", *words, "--out", "runs/a", "-q")
    assert names(tmp_path) == ["bare.npy", "nan.npy"]


@pytest.mark.parametrize("words", [["ft"], ["fit"], ["fit", "digits"], ["sample"], ["encode", "a", "digits"]])
def test_misuse_costs_one_line(words):
    refused(*words)


def test_a_folder_that_may_not_be_written(tiny, tmp_path):
    (tmp_path / "file").touch()
    refused("fit", tiny, "--out", tmp_path / "file" / "a", *SMALL, "-q")
    assert names(tmp_path) == ["file"]


# ------------------------------------------------------------------------------------------ using a run


def test_sample(runs, tmp_path):
    done("sample", runs / "digits")
    with Image.open(runs / "digits" / "samples.png") as image:
        assert image.size == (8 * 58 + 2, 8 * 58 + 2)
    for file, seed in (("a", 1), ("b", 1), ("c", 2)):
        said = done("sample", runs / "digits", "--n", 5, "--seed", seed, "--out", tmp_path / f"{file}.npy")
        assert "5 × 8 × 8" in said
    a, b, c = (np.load(tmp_path / f"{file}.npy") for file in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(a, ct.load(runs / "digits").sample(5, random_state=1))


def test_sample_of_a_condition(runs, tmp_path):
    done("sample", runs / "cvae", "--condition", 9, "--seed", 0, "--out", tmp_path / "nines.npy")
    expected = ct.load(runs / "cvae").sample(64, condition=9, random_state=0)
    np.testing.assert_array_equal(np.load(tmp_path / "nines.npy"), expected)
    assert "12" in refused("sample", runs / "cvae", "--condition", 12, "--out", tmp_path / "a.npy")
    refused("sample", runs / "digits", "--condition", 9, "--out", tmp_path / "a.npy")
    assert names(tmp_path) == ["nines.npy"]


def test_text_labels_that_look_like_numbers(runs, tmp_path):
    for label in ("1", "b"):
        done("sample", runs / "table", "--condition", label, "--seed", 0, "--out", tmp_path / "a.npy")
        expected = ct.load(runs / "table").sample(64, condition=label, random_state=0)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)
    for word in ("none", "true", "9"):  # words, in a run whose labels are words
        assert f"unknown label '{word}'" in refused("sample", runs / "table", "--condition", word)


def test_samples_of_vectors_lie_in_the_run(runs):
    done("sample", runs / "table", "--n", 7, "--condition", "b")
    file = runs / "table" / "samples.csv"
    assert pd.read_csv(file).shape == (7, 3)
    file.unlink()


def test_encode_decode_reconstruct(runs, digits, tmp_path):
    estimator = ct.load(runs / "digits")
    codes = tmp_path / "codes.npy"
    done("encode", runs / "digits", "digits", "--out", codes, "--std")
    mean, std = estimator.transform(digits.X, return_std=True)
    np.testing.assert_array_equal(np.load(codes), mean)
    np.testing.assert_array_equal(np.load(tmp_path / "codes_std.npy"), std)
    np.save(tmp_path / "some.npy", digits.X[:5])
    done("encode", runs / "digits", tmp_path / "some.npy", "--out", tmp_path / "near.npy", "--refine", 5)
    np.testing.assert_array_equal(np.load(tmp_path / "near.npy"), estimator.transform(digits.X[:5], refine=5))
    done("decode", runs / "digits", codes, "--out", tmp_path / "decoded.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "decoded.npy"), estimator.inverse_transform(mean))
    done("reconstruct", runs / "digits", "digits", "--out", tmp_path / "again.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), estimator.project(digits.X))


def test_pictures_show_the_first_items(runs, tmp_path):
    np.save(tmp_path / "codes.npy", np.zeros((70, 3)))
    assert "first 64 of 70" in done("decode", runs / "digits", tmp_path / "codes.npy")
    with Image.open(runs / "digits" / "decoded.png") as image:
        assert image.size == (8 * 58 + 2, 8 * 58 + 2)
    assert "first 64 of 1,797" in done("reconstruct", runs / "digits", "digits")
    with Image.open(runs / "digits" / "reconstructions.png") as image:
        assert image.size == (16 * 58 + 2, 8 * 58 + 2)
        sheet = np.asarray(image)
    from chartae.training.readers import read

    first = read("digits").X[0].repeat(7, axis=0).repeat(7, axis=1)
    np.testing.assert_allclose(sheet[2:58, 2:58], first * (255 / 16), atol=0.6)


def test_conditions_go_with_the_data(runs, digits, tmp_path):
    done("encode", runs / "cvae", "digits", "--out", tmp_path / "codes.npy")
    expected = ct.load(runs / "cvae").transform(digits.X, condition=digits.y)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)
    done("reconstruct", runs / "cvae", "digits", "--out", tmp_path / "a.png")
    table = ["table", runs / "table.csv", "--labels", "kind"]
    done("encode", runs / table[0], *table[1:], "--out", tmp_path / "codes.npy")
    assert np.load(tmp_path / "codes.npy").shape == (60, 3)


def test_tables_are_known_by_their_columns(runs, tmp_path):
    X = np.loadtxt(runs / "table.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    np.save(tmp_path / "bare.npy", X)
    said = done("encode", runs / "table", tmp_path / "bare.npy", "--out", tmp_path / "codes.npy")
    assert "without a condition" in said
    expected = ct.load(runs / "table").transform(pd.DataFrame(X, columns=["a", "b", "c"]))
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), expected)
    np.save(tmp_path / "wide.npy", np.zeros((2, 4)))
    assert "3 columns are needed" in refused(
        "encode", runs / "table", tmp_path / "wide.npy", "--out", tmp_path / "a.npy"
    )
    pd.DataFrame(X, columns=["a", "b", "c"])[["b", "a", "c"]].to_csv(tmp_path / "swapped.csv", index=False)
    done("encode", runs / "table", tmp_path / "swapped.csv", "--out", tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


def test_vectors_as_conditions(tiny, tmp_path):
    vectors = np.random.default_rng(0).random((40, 2))
    np.savez(tmp_path / "a.npz", X=np.load(tiny), meaning=vectors)
    fit = ["fit", tmp_path / "a.npz", "--labels", "meaning", "--recipe", "cvae", "--out", tmp_path / "run"]
    said = done(*fit, *SMALL)
    assert f"{tmp_path / 'a.npz'} --labels meaning --out codes.npy" in said
    np.save(tmp_path / "c.npy", [0.5, 1.0])
    expected = ct.load(tmp_path / "run").sample(64, condition=[0.5, 1.0], random_state=0)
    for condition in ("[0.5, 1]", tmp_path / "c.npy"):
        done("sample", tmp_path / "run", "--condition", condition, "--seed", 0, "--out", tmp_path / "x.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_conditions_inside_the_layers(tiny, tmp_path):
    np.savez(tmp_path / "a.npz", X=np.load(tiny), y=np.arange(40) % 3)
    fit = ["fit", tmp_path / "a.npz", *SMALL, "--param", "conditioning=film", "-q", "--out", tmp_path / "run"]
    said = refused(*fit)
    assert "--param conditioning=film needs a condition" in said
    done(*fit, "--recipe", "cvae")
    assert ct.load(tmp_path / "run").conditioning == "film"
    done("sample", tmp_path / "run", "--condition", 2, "--out", tmp_path / "x.npy")


def test_numbers_and_maps_as_conditions(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "dose"])
    table.to_csv(tmp_path / "table.csv", index=False)
    table.loc[::3, "a"] = np.nan
    table.drop(columns="dose").to_csv(tmp_path / "gaps.csv", index=False)
    np.save(tmp_path / "number.npy", table["dose"].to_numpy())
    np.save(tmp_path / "map.npy", rng.normal(size=(40, 4, 5)).astype(np.float32))
    np.save(tmp_path / "one.npy", np.ones((4, 5)))
    np.save(tmp_path / "missing.npy", table[["a", "b"]].isna().to_numpy())
    for data, labels, condition, asked in [
        ("table.csv", "dose", "0.5", 0.5),
        ("table.csv", tmp_path / "number.npy", "-1", -1),
        ("table.csv", tmp_path / "map.npy", tmp_path / "one.npy", np.ones((4, 5))),
        ("gaps.csv", tmp_path / "missing.npy", "[true, false]", [True, False]),
    ]:
        fit = ["fit", tmp_path / data, "--labels", labels, "--recipe", "cvae", "--out", tmp_path / "run"]
        done(*fit, *SMALL, "-q", "--overwrite" if (tmp_path / "run").exists() else "-q")
        out = tmp_path / "x.csv"
        done("sample", tmp_path / "run", f"--condition={condition}", "--seed", 0, "--out", out)
        expected = ct.load(tmp_path / "run").sample(64, condition=asked, random_state=0)
        pd.testing.assert_frame_equal(pd.read_csv(out), expected, check_dtype=False)
        done("encode", tmp_path / "run", tmp_path / data, "--labels", labels, "--out", tmp_path / "z.npy")


def test_truth_values_as_conditions(tiny, tmp_path):
    np.savez(tmp_path / "a.npz", X=np.load(tiny), y=np.arange(40) % 3 == 0)
    done("fit", tmp_path / "a.npz", "--recipe", "cvae", "--out", tmp_path / "run", *SMALL, "-q")
    for word, condition in (("True", True), ("false", False)):
        done("sample", tmp_path / "run", "--condition", word, "--seed", 0, "--out", tmp_path / "x.npy")
        expected = ct.load(tmp_path / "run").sample(64, condition=condition, random_state=0)
        np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)


def test_an_exported_decoder(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator = ct.load(runs / "cvae")
    estimator.export_decoder("decoder")
    np.save("codes.npy", np.ones((3, 3)))
    for folder in (runs / "cvae", "decoder"):
        done("sample", folder, "--condition", 4, "--seed", 0, "--out", "x.npy")
        np.testing.assert_array_equal(np.load("x.npy"), estimator.sample(64, condition=4, random_state=0))
        done("decode", folder, "codes.npy", "--condition", 4, "--out", "x.npy")
        np.testing.assert_array_equal(np.load("x.npy"), estimator.inverse_transform(np.ones((3, 3)), 4))
    done("sample", "decoder")
    assert "samples.png" in names("decoder")
    said = " ".join(done("info", "decoder").split())
    assert "a decoder alone" in said
    assert "latent_dim 3" in said
    for words in (["encode", "decoder", "digits", "--out", "a.npy"], ["reconstruct", "decoder", "digits"]):
        assert "name the run folder" in refused(*words)
    done("fit", "digits", "--out", "decoder", *SMALL, "-q", "--overwrite")
    assert "encoder and decoder" in done("info", "decoder")


@pytest.mark.parametrize(
    "words, hint",
    [
        (["sample", "{runs}/cvae", "--condition", "absent.npy", "--out", "a.npy"], "there is no absent.npy"),
        (["sample", "{runs}/cvae", "--condition", "empty.npy", "--out", "a.npy"], "cannot read empty.npy"),
        (["sample", "{runs}/table", "--condition", "7", "--out", "a.npy"], "known labels are '1', '2', 'b'"),
        (["sample", "{runs}/none"], "config.json is missing"),
        (["sample", "{runs}/digits", "--n", "0"], "--n"),
        (["sample", "{runs}/digits", "--out", "a.jpg"], ".txt (texts)"),
        (
            ["sample", "{runs}/digits", "--out", "a.txt"],
            "not fitted on texts: let the name of a.txt end in .png",
        ),
        (["sample", "{runs}/table", "--out", "a.png"], "no images"),
        (["encode", "{runs}/digits", "digits", "--out", "a.png"], ".npy"),
        (["encode", "{runs}/digits", "{runs}/table.csv", "--labels", "kind", "--out", "a.npy"], "3"),
        (["decode", "{runs}/digits", "wide.npy", "--out", "a.npy"], "4"),
        (["decode", "{runs}/digits", "absent.npy", "--out", "a.npy"], "absent.npy"),
        (["reconstruct", "{runs}/digits", "wide.npy", "--out", "a.npy"], "4"),
        (["info", "{runs}"], "config.json is missing"),
        (["encode", "{runs}/digits", "digits", "--out", "wide.npy/z.npy"], "cannot write wide.npy/z.npy ("),
        (["decode", "{runs}/digits", "code.npy", "--out", "wide.npy/z.npy"], "choose another place"),
        (["audit", "{runs}/digits", "--budget", "medium"], "budget='medium': known: fast, full"),
        (["audit", "{runs}/digits", "--out", "a.pdf"], "a.pdf ends in none of .html"),
        (["fit", "digits", "--out", "a", "--resume", "--overwrite"], "leave one of them out"),
        (
            ["fit", "digits", "--out", "a", "--likelihood", "poisson", "--noise", "0.5"],
            "--noise 0.5 says nothing",
        ),
        (["fit", "digits", "--out", "a", "--column", "b=drop"], "--column says what columns of a table hold"),
        (["fit", "digits", "--out", "a", "--learning-rate", "0"], "--learning-rate must be a float"),
        (["sweep", "digits", "--out", "a", "--noises", "0,-1", "-q"], "--noises must be"),
    ],
)
def test_bad_use_of_a_run_leaves_nothing(runs, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.zeros((2, 4)))
    np.save("code.npy", np.zeros((2, 3)))
    Path("empty.npy").touch()
    before = names(runs / "digits")
    assert hint in refused(*(word.format(runs=runs) for word in words))
    assert names(tmp_path) == ["code.npy", "empty.npy", "wide.npy"]
    assert names(runs / "digits") == before


@pytest.mark.parametrize(
    "words",
    [
        "encode {runs}/digits a_std.npy --std --out a.npy",
        "encode {runs}/digits a_std.npy --labels y.npy --out y.npy",
        "encode {runs}/cvae arrays.npz:x --labels y.npy --out ./y.npy",
        "reconstruct {runs}/cvae a_std.npy --labels y.npy --out y.npy",
        "decode {runs}/cvae y.npy --condition c.npy --out c.npy",
        "sample {runs}/cvae --condition c.npy --out c.npy",
        "reconstruct {runs}/digits images --out images/0.png",
        "head {runs}/digits images --curve images/0.png",
        "audit {runs}/digits --data t.txt --out t.txt",
        "audit texts --out t.txt",
        "caption {runs}/digits t.txt --out t.txt",
    ],
)
def test_what_is_read_is_not_replaced(runs, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for name in ("a_std.npy", "y.npy", "c.npy", "images/0.png", "t.txt", "arrays.npz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    shutil.copytree(runs / "digits", "texts")
    write_source(Path("texts"), ct.read("t.txt"), data="t.txt", labels=None)
    assert "is what is read, and would be replaced" in refused(*words.format(runs=runs).split())
    for name in ("a_std.npy", "y.npy", "c.npy", "images/0.png", "t.txt", "arrays.npz"):
        assert Path(name).read_text() == name


def test_a_result_may_be_written_again(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "0.png")
    for _ in range(2):
        done("encode", runs / "digits", ".", "--out", "codes.npy")
        done("reconstruct", runs / "digits", ".", "--out", "items.npy")


def test_texts_are_written_whole_or_not_at_all(tmp_path):
    kept = tmp_path / "said.txt"
    kept.write_text("before")
    with pytest.raises(UnicodeEncodeError):
        write(kept, ["a fox", "\udcff"], None)
    assert kept.read_text() == "before"
    assert names(tmp_path) == ["said.txt"]


def test_info(runs):
    said = " ".join(done("info", runs / "digits").split())
    for word in (
        "vae",
        "8 × 8",
        "normal",
        "latent_dim 3",
        "epochs 2",
        "loss",
        "val_loss",
        "model.safetensors",
    ):
        assert word in said


def test_recipes_lists_them_all():
    said = done("recipes")
    assert all(r.name in said for r in ct.recipes())
    words = " ".join(" ".join(line.split()) for line in said.splitlines())
    assert all(word in words for r in ct.recipes() for word in r.summary.split())  # none is broken


# ------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_one_example_that_parses(name):
    said = done(name, "--help")
    assert said.count("Example:") == 1
    words = shlex.split(COMMANDS[name].epilog.removeprefix("Example: chartae "))
    COMMANDS[words[0]].make_context(words[0], words[1:])


def test_main_returns_the_exit_code(capsys):
    assert main([]) == 0
    assert "Example: chartae fit digits" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"chartae {ct.__version__}\n"
    assert main(["nothing"]) == 2


def test_bugs_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("chartae.load", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["info", "."])


def test_errors_show_their_traceback_on_request(monkeypatch):
    monkeypatch.setenv("CHARTAE_DEBUG", "1")
    with pytest.raises(RunFolderError):
        main(["info", "no/such/run"])


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True, **options)


@pytest.mark.skipif(os.name != "posix", reason="needs the processor time of child processes")
def test_help_answers_in_half_a_second():
    spent = []
    for _ in range(3):
        before = os.times()
        said = python("-m", "chartae", "fit", "--help").stdout
        after = os.times()
        # Processor time, and the least of it: on a busy machine the others only add to both clocks.
        spent.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(spent) < 0.5
    assert "--latent-dim" in said


# ----------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.skipif(os.name != "posix", reason="signals as a terminal sends them")
@pytest.mark.parametrize(
    "number, code, last", [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "")]
)
def test_a_signal_leaves_a_run_that_goes_on(number, code, last, tmp_path):
    words = [
        "fit",
        "digits",
        "--out",
        "runs/a",
        "--epochs",
        "100000",
        "--hidden",
        "16",
        "--param",
        "patience=3",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "chartae", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert any(line.startswith("epoch") for line in process.stderr)  # reads up to the first of them
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code
    goes_on = "runs/a holds what was learned so far: the same command with --resume goes on"
    assert f"{goes_on}\n{last}".strip() == "\n".join(said.splitlines()[-2 if last else -1 :])
    assert "Traceback" not in said
    folder = tmp_path / "runs/a"
    before = ct.load(folder).n_iter_
    assert "unfinished: the fit's command with --resume goes on" in " ".join(done("info", folder).split())
    done("sample", folder, "--n", 3)
    assert "unfinished run: go on with --resume, or pass --overwrite" in refused(
        "fit", "digits", "--out", folder
    )
    other = refused("fit", "digits", "--out", folder, "--resume", *words[4:-1], "patience=4", "-q")
    assert "begun with --param patience=3, not --param patience=4" in other
    other = refused("fit", "digits", "--out", folder, "--resume", *words[4:6], *words[8:], "-q")
    assert "begun with --hidden 16, not no --hidden" in other
    done("audit", folder, "--only", "sigma", "--out", tmp_path / "r.json")
    held_out = json.loads((tmp_path / "r.json").read_text())["facts"]["rows"]
    assert held_out == len(ct.load(folder).validation_rows_) < 1797  # it knows its data, and what it has seen
    done("fit", "digits", "--out", folder, "--resume", *words[4:], "--max-time", "0.01")
    assert ct.load(folder).n_iter_ >= before


def test_max_time_ends_a_fit_that_goes_on(tiny, tmp_path):
    words = ["fit", tiny, "--out", tmp_path / "a", "--resume", *SMALL]
    assert run(*words, "--max-time", "0.01s").stderr.endswith("the same command with --resume goes on\n")
    assert (tmp_path / "a/checkpoint.safetensors").is_file()
    assert "--resume goes on" not in run(*words, "--max-time", "1h").stderr
    assert names(tmp_path / "a") == sorted([*FILES, "source.json"])
    assert "finished run: leave --resume out" in refused(*words)


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "5d", "nan"])
def test_times_that_are_none(text, tiny, tmp_path):
    assert "is no time, such as 90 (seconds), 30m or 2h" in refused(
        "fit", tiny, "--out", tmp_path / "a", "--max-time", text
    )


@pytest.mark.parametrize("moment", ["chartae.apps.cli", "torch.nn"])
def test_ctrl_c_during_imports(moment):
    """Some of what torch imports runs in C++, where an exception would end the process with an abort."""
    code = f"""
import signal, sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "{moment}":
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["chartae", "info", "."]
from chartae.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def test_both_names_start_the_same():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"chartae": "chartae.__main__:main"}
    assert python("-m", "chartae", "--version").stdout == f"chartae {ct.__version__}\n"


# --------------------------------------------------------------------------------- data as those of the fit


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A table with gaps, labels and words, and a run of it."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(40, 9, 80), "income": rng.lognormal(3, 1, 80)})
    table["city"] = rng.choice(["Bonn", "Ulm"], 80)
    table.loc[::9, "income"] = np.nan
    table.to_csv(folder / "people.csv", index=False)
    done("fit", folder / "people.csv", "--labels", "city", "--out", folder / "run", *SMALL, "-q")
    done("fit", folder / "people.csv", "--out", folder / "words", *SMALL, "-q")
    return folder


def test_columns_are_found_by_their_names(people):
    run = people / "run"
    table = pd.read_csv(people / "people.csv")
    table[["income", "city", "age"]].to_csv(people / "other.csv", index=False)
    codes = []
    for data in ("people.csv", "other.csv"):
        done("encode", run, people / data, "--out", people / "z.npy")
        codes.append(np.load(people / "z.npy"))
    assert np.array_equal(*codes)
    table[["income", "city"]].to_csv(people / "less.csv", index=False)
    assert "less.csv has no column 'age'" in refused(
        "encode", run, people / "less.csv", "--out", people / "z.npy"
    )


def test_a_table_is_filled_and_not_changed(people):
    table = pd.read_csv(people / "people.csv")
    whole = table.dropna()
    whole.to_csv(people / "whole.csv", index=False)
    done("reconstruct", people / "words", people / "whole.csv", "--out", people / "same.csv")
    pd.testing.assert_frame_equal(pd.read_csv(people / "same.csv"), whole.reset_index(drop=True))


def test_an_array_of_words_is_refused_and_one_of_numbers_written(people):
    said = refused("sample", people / "words", "--out", people / "s.npy")
    assert "column 'city' is no number" in said
    assert "let its name end in .csv" in said
    done("sample", people / "run", "--n", 5, "--out", people / "s.npy")
    assert np.load(people / "s.npy").dtype == np.float64


def test_images_are_read_as_those_of_the_fit(tmp_path):
    rng = np.random.default_rng(0)
    for folder, sizes, mode in (("a", (16, 20), "RGB"), ("b", (30, 30), "L")):
        (tmp_path / folder).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 255, (sizes[0] + i % 2, sizes[1], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(tmp_path / folder / f"{i}.png")
    done("fit", tmp_path / "a", "--out", tmp_path / "run", *SMALL, "-q")
    said = done("encode", tmp_path / "run", tmp_path / "b", "--out", tmp_path / "z.npy")
    assert np.load(tmp_path / "z.npy").shape == (12, 3)
    assert "b: resized to 16 × 20 from sizes between 30 × 30 and 31 × 30" in said


def test_a_fit_of_few_rows_says_what_a_report_needs(tmp_path):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(61, 3)))
    said = done("fit", tmp_path / "few.npy", "--out", tmp_path / "a", *SMALL[:-1])
    assert "rows were held out of the fit, and 50 are needed to judge it by: fit more rows" in said
    assert said.count(f"chartae audit {tmp_path / 'a'} --data FILE") == 1
    np.save(tmp_path / "more.npy", np.random.default_rng(0).normal(size=(120, 3)))
    assert "--param validation_fraction=0.43)" in done(
        "fit", tmp_path / "more.npy", "--out", tmp_path / "b", *SMALL[:-1]
    )
    share = ["--param", "validation_fraction=0.43"]
    assert "no report" not in done("fit", tmp_path / "more.npy", "--out", tmp_path / "c", *SMALL[:-1], *share)
    np.save(tmp_path / "enough.npy", np.random.default_rng(0).normal(size=(150, 3)))
    assert "no report" not in done("fit", tmp_path / "enough.npy", "--out", tmp_path / "d", *SMALL[:-1])


@pytest.mark.parametrize(
    "memory, said",
    [("rubbish", "is no amount of memory"), ("1e400", "is no amount"), ("1KB", "is larger than")],
)
def test_an_amount_of_memory_is_taken_at_its_word(memory, said, people, tmp_path):
    assert said in refused("fit", people / "people.csv", "--memory", memory, "--out", tmp_path / "a")


def test_a_remedy_that_trains_nothing_is_of_the_same_data(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "digits", run)
    cure = {"name": "fit-density", "says": "", "changes": {"prior": "normal"}}
    (run / "report.json").write_text(json.dumps({"findings": [{"remedies": [cure]}]}))
    words = ("fit", "digits", "--from", run, "--remedy", "fit-density", "--out", tmp_path / "other")
    said = "fit-density trains nothing anew, on no other data: leave DATA and the options of training out"
    assert said in refused(*words)
    assert not (tmp_path / "other").exists()


def test_runs_in_a_folder_of_images_are_no_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in ("a", "b"):
        Path("kinds", label).mkdir(parents=True)
        for i in range(30):
            image = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(image).save(Path("kinds", label, f"{i}.png"))
    done("fit", "kinds", "--out", "kinds/run", "--epochs", 1, "--latent-dim", 2, "--hidden", 8, "--quiet")
    assert "samples.png" in names(Path("kinds/run"))
    assert ct.read("kinds").summary.startswith("60 images of 8 × 8, uint8, 2 labels (a, b)")


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """A run of 600 rows of an array in a file, which was audited."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(600, 4)))
    given = ("--out", "run", "--epochs", 1, "--latent-dim", 1, "--hidden", 8, "--seed", 0, "--quiet")
    done("fit", "x.npy", *given)
    return np.load("x.npy")


@pytest.mark.parametrize("change", ["more", "shuffled"])
def test_rows_held_out_of_other_data_are_not_known(noise, change):
    assert done("audit", "run", "--only", "reconstruction")
    np.save("x.npy", np.concatenate([noise[:50], noise]) if change == "more" else noise[::-1])
    told = refused("audit", "run", "--only", "reconstruction")
    assert "x.npy has changed since the fit" in told
    assert "--data" in told
    assert done("audit", "run", "--only", "reconstruction", "--data", "x.npy")


def test_what_was_said_of_a_run_goes_with_it(noise):
    """Of the same training, whatever is fitted to its codes, the data stay known; of another one, nothing."""
    kept = ct.load("run")
    kept.save("run", overwrite=True)
    assert "report.json" in names(Path("run"))
    kept.fit_prior("normal").save("run", overwrite=True)
    assert names(Path("run")) == sorted([*FILES, "source.json"])
    assert done("audit", "run", "--only", "reconstruction")
    ct.VAE(latent_dim=1, hidden=(8,), max_epochs=1).fit(noise[::2]).save("run", overwrite=True)
    assert names(Path("run")) == sorted(FILES)
    assert "does not say which data it was fitted on" in refused("audit", "run")


def test_few_rows_to_audit_are_not_said_to_be_held_out(noise):
    np.save("few.npy", noise[:3])
    assert "these are 3 rows, and 50 are needed" in refused("audit", "run", "--data", "few.npy")


def test_a_sweep_takes_parameters_that_have_an_option(noise):
    given = ("--latent-dims", 1, "--betas", 1, "--epochs", 1, "--hidden", 8, "--out", "sweep")
    done("sweep", "x.npy", *given, "--param", "random_state=2", "--param", "verbose=0")
    assert ct.load(next(Path("sweep/cells").iterdir())).random_state == 2
    assert "random_state is given twice" in refused(
        "sweep", "x.npy", *given, "--seed", 1, "--param", "random_state=2"
    )


def test_labels_of_a_table_are_texts_where_the_run_knows_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"x": np.arange(60.0) % 7, "store": ["a1", "1100", "1200"] * 20})
    table.to_csv("all.csv", index=False)
    table[table.store != "a1"].to_csv("some.csv", index=False)
    options = ("--labels", "store", "--recipe", "cvae", "--epochs", 1, "--hidden", 8, "--latent-dim", 1)
    done("fit", "all.csv", *options, "--out", "run", "--quiet")
    done("encode", "run", "some.csv", "--labels", "store", "--out", "z.npy")
    codes = ct.load("run").transform(table[["x"]], table.store.to_numpy())
    assert np.load("z.npy") == pytest.approx(codes[table.store != "a1"])


@pytest.mark.filterwarnings("ignore:with the code of another:UserWarning")
def test_whole_numbers_are_read_as_numbers_where_they_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=200)})
    table["w"] = table.x + 0.1 * rng.normal(size=200)
    table["age"] = (40 + 15 * table.x).round().astype(int)
    table.to_csv("age.csv", index=False)
    options = (
        "--labels",
        "age",
        "--epochs",
        30,
        "--hidden",
        8,
        "--latent-dim",
        2,
        "--param",
        "batch_size=16",
    )
    done("fit", "age.csv", *options, "--out", "run", "--quiet")
    assert "if they are numbers, add --numbers" in refused("head", "run", "age.csv", "--labels", "age")
    assert "R2        0." in done("head", "run", "age.csv", "--labels", "age", "--numbers")
    table.assign(age="old").to_csv("old.csv", index=False)
    assert "no numbers: leave --numbers out" in refused(
        "head", "run", "old.csv", "--labels", "age", "--numbers"
    )


def test_a_file_of_texts_that_was_read_is_fitted_as_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n".join(f"the {c} {a} sat" for c in ("red", "blue") for a in ("cat", "dog")))
    model = ct.TextVAE(latent_dim=2, hidden=(16,), max_epochs=1, random_state=0).fit(ct.read("t.txt"))
    assert model.transform(ct.read("t.txt").texts).shape == (4, 2)


@pytest.mark.filterwarnings("ignore:column 3:UserWarning")
def test_texts_that_are_known_by_their_words_are_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\n".join(f"the {c} {a} sat" for c in ("red", "blue") for a in ("cat", "dog")))
    done("fit", "t.txt", "--out", "run", "--epochs", 1, "--latent-dim", 2, "--hidden", 8, "--quiet")
    assert "or fit with --encoder bytes" in refused("sample", "run", "--out", "n.txt")


def test_a_head_is_told_of_no_copies(tmp_path):
    """Labels by chance cannot be read off other items, however often an item comes."""
    rng = np.random.default_rng(0)
    X, y = np.repeat(rng.normal(size=(40, 3)), 10, axis=0), np.repeat(rng.integers(0, 2, 40), 10)
    order = rng.permutation(400)
    pd.DataFrame(X[order], columns=list("abc")).assign(y=y[order]).to_csv(tmp_path / "t.csv", index=False)
    done("fit", tmp_path / "t.csv", "--labels", "y", "--out", tmp_path / "run", *SMALL, "--quiet")
    said = done("head", tmp_path / "run", tmp_path / "t.csv", "--labels", "y", "--head", "knn")
    assert float(re.search(r"accuracy  ([.\d]+)", said)[1]) < 0.8


def test_a_folder_that_is_called_digits_is_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done("fit", "digits", "--out", "digits", *SMALL, "--quiet")
    assert json.loads((tmp_path / "digits" / "source.json").read_text())["data"] == "digits"
    done("reconstruct", "digits", "digits")


def test_a_report_is_written_where_the_terminal_cannot_show_it(runs, tmp_path):
    words = ["audit", str(runs / "digits"), "--out", str(tmp_path / "r.json"), "--only", "sigma"]
    env = os.environ | {"PYTHONIOENCODING": "cp1252"}
    result = subprocess.run([sys.executable, "-m", "chartae", *words], env=env, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "r.json").is_file()
    assert "images of 8 × 8" in result.stdout.decode("cp1252")


def test_a_stream_goes_on_with_the_memory_that_it_was_begun_with(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(2000, 4))
    pd.DataFrame(X, columns=list("abcd")).to_parquet(tmp_path / "t.parquet")
    line = ["fit", tmp_path / "t.parquet", "--out", tmp_path / "run", "--epochs", 3, "--no-audit"]
    done(*line, "--max-time", "0.01", "--memory", "20KB")
    assert "goes on" not in done(*line, "--resume")
    again = tmp_path / "again"
    line[3] = again
    done(*line, "--max-time", "0.01", "--memory", "20KB")
    assert "memory=" in refused(*line, "--resume", "--memory", "40KB")


def test_what_is_filled_in_is_counted():
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None]})
    assert _filled(frame) == "2 missing values filled in; what was there stays as it is"
    assert _filled(np.array([[np.nan, 1.0]])).startswith("1 missing value filled in")
    assert _filled(np.eye(2)).startswith("no value is missing, so that all stay as they are")
