"""Bad input: refused in one line that says what is wrong and the cure, in Python and on the command line."""

import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from PIL import Image
from scipy.io import wavfile
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app
from chartae.core.errors import DataError
from chartae.estimators.suspicions import warn_of_constant

SMALL = {"latent_dim": 2, "hidden": (4,), "max_epochs": 1, "random_state": 0}
X = np.random.default_rng(0).normal(size=(30, 3))
Y = np.arange(30) % 3


def one_line(error, words):
    """Check the message of an error that a user can act on."""
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error)


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def command_refuses(words, *parts):
    """Run a command that must fail: one line, exit code 2, and nothing is written."""
    before = sorted(Path().rglob("*"))
    result = run(*words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    assert sorted(Path().rglob("*")) == before
    one_line(result.stderr.strip(), parts)


def fit(*words):
    """Words of a command that fits quickly; what is given again replaces what is given here."""
    usual = {"--latent-dim": "2", "--hidden": "4", "--epochs": "1", "--seed": "0"}
    return [
        "fit",
        *words,
        "-q",
        "--out",
        "run",
        *(w for k, v in usual.items() if k not in words for w in (k, v)),
    ]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------------------------------- arrays


def changed(value, dtype=float):
    out = X.astype(dtype)
    out[4, 1] = value
    return out


ARRAYS = {
    "infinity": (changed(np.inf), ["infinity in row 4, column 1"]),
    "NaN": (changed(np.nan), ["NaN in row 4, column 1", "fill such values"]),
    "no rows": (X[:0], ["(0, 3)"]),
    "no columns": (X[:, :0], ["(30, 0)"]),
    "one row": (X[:1], ["there is 1 sample, and a model needs two or more: give more"]),
    "no features axis": (X[:, 0], ["(30,)", "X.reshape(-1, 1)"]),
    "a number": (np.array(1.0), ["shape ()"]),
    "text": (X.astype(str), ["text, not real numbers", "astype(float)"]),
    "bytes": (X.astype("S"), ["bytes, not real numbers"]),
    "dates": (np.zeros((30, 3), "M8[D]"), ["dates, not real numbers"]),
    "durations": (np.zeros((30, 3), "m8[s]"), ["timedelta64[s]"]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind):
    array, words = ARRAYS[kind]
    with pytest.raises(ValueError) as caught:
        ct.VAE(**SMALL).fit(array)
    one_line(caught.value, words if array.size else ["0 "])
    np.save("a.npy", array)
    command_refuses(fit("a.npy"), *words)


def test_an_array_column_without_values_is_not_called_constant():
    X = np.random.default_rng(0).normal(size=(30, 3))
    X[:, 1] = np.nan
    with pytest.warns(UserWarning, match=r"^no value was observed in column 1 \(from 0\): leave it out$"):
        warn_of_constant(X, None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed("many", object), ["'many' in row 4, column 1 (from 0)", "convert it"]),
        (X + 1j, ["Complex data not supported: pass real numbers"]),
        ([[1, 2], [3]], ["give all items one shape"]),
        ("abc.csv", ["X is a name", "pass chartae.read('abc.csv')"]),
        (["a fox", "a dog"], ["chartae.TextVAE learns texts"]),
        (None, ["X is None"]),
        ({"a": [1, 2]}, ["X is a dict: pass pandas.DataFrame(X)"]),
        (pl.DataFrame({"a": [1, 2]}).lazy(), ["pass X.collect()"]),
        (pd.Series([1.0, 2.0]), ["pass X.to_frame(), or of a row X.to_frame().T"]),
        (pl.Series([1.0, 2.0]), ["pass X.to_frame()"]),
        (np.zeros(5, dtype=[("a", float)]), ["pass real numbers"]),
        (scipy.sparse.csr_matrix(X), ["X.toarray()"]),
        (pd.DataFrame({"a": [1.0, np.inf, 2.0]}), ["column 'a' is infinite in row 1"]),
        (pd.DataFrame({"a": [1.0], "b": [2.0]}), ["1 row", "two or more"]),
        (
            pd.DataFrame({"a": [1, 2], "b": [None, None]}),
            ["column 'b' holds no values: leave it out (columns={'b': 'drop'})"],
        ),
        (pd.DataFrame({"a": [1, "x", 2]}), ["column 'a' mixes numbers and text"]),
        (pd.DataFrame({"a": [[1], [2]]}), ["column 'a' holds '[1]'"]),
        (pd.DataFrame({"a": []}), ["(0, 1)"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else type(value).__name__,
)
def test_other_objects(data, words):
    with pytest.raises(ValueError) as caught:
        ct.VAE(**SMALL).fit(data)
    one_line(caught.value, words)


@pytest.fixture(scope="module")
def vae():
    return ct.VAE(**SMALL).fit(X)


@pytest.mark.parametrize("kind", [kind for kind in ARRAYS if kind != "one row"])
def test_arrays_after_the_fit(kind, vae):
    array, words = ARRAYS[kind]
    vae.save("run")
    np.save("a.npy", array)
    for method in (vae.transform, vae.score_samples, vae.reconstruct, vae.project):
        with pytest.raises(ValueError) as caught:
            method(array)
        one_line(caught.value, words if array.size else ["0 "])
    command_refuses(["encode", "run", "a.npy", "--out", "z.npy"], *words)


@pytest.mark.parametrize("shape", [(30, 2), (30, 4), (30, 3, 1), (30, 1, 3)])
def test_items_of_another_shape(shape, vae):
    vae.save("run")
    np.save("a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"items have shape|features, but VAE is expecting 3") as caught:
        vae.transform(np.zeros(shape))
    one_line(caught.value, ["3"])
    command_refuses(["encode", "run", "a.npy", "--out", "z.npy"], "3")
    before = Path("a.npy").read_bytes()
    command_refuses(["encode", "run", "a.npy", "--out", "./a.npy"], "is what is read, and would be replaced")
    assert Path("a.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.zeros((5, 3)), ["(5, 3)", "(n, 2) is needed"]),
        (np.zeros(2), ["(2,)"]),
        (changed(np.nan)[:, :2], ["row 4", "finite"]),
        (np.full((5, 2), 1e300), ["row 0", "finite"]),
        (np.zeros((5, 2), str), ["codes of type", "convert them"]),
        (np.zeros((5, 2), complex), ["codes of type complex128 are no real numbers"]),
    ],
    ids=["wide", "flat", "NaN", "huge", "text", "complex"],
)
def test_codes(codes, words, vae):
    with pytest.raises(ValueError) as caught:
        vae.inverse_transform(codes)
    one_line(caught.value, words)
    vae.save("run")
    np.save("z.npy", codes)
    command_refuses(["decode", "run", "z.npy", "--out", "x.npy"])


def test_images_of_another_shape():
    images = ct.VAE(**SMALL).fit(np.random.default_rng(0).normal(size=(20, 1, 4, 4)))
    with pytest.raises(ValueError) as caught:
        images.transform(np.zeros((3, 8, 8)))
    one_line(caught.value, ["items have shape (8, 8), and the model was fitted on (1, 4, 4)"])


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_constant_column_is_a_warning():
    frame = pd.DataFrame(X, columns=list("abc")).assign(b=7.5)
    with pytest.warns(UserWarning, match="column 'b' is constant and tells nothing: drop it"):
        ct.VAE(**SMALL).fit(frame)
    frame.to_csv("a.csv", index=False)
    result = run(*fit("a.csv"))
    assert (result.exit_code, result.stderr) == (
        0,
        "Warning: column 'b' is constant and tells nothing: drop it (--column b=drop)\n",
    )


@pytest.mark.parametrize("missing", ["auto", "mask"])
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([1], "column 1 (from 0) is constant and tells nothing: drop it, unless it is a pixel"),
        ([0, 2], "columns 0 and 2 (from 0) are constant and tell nothing: drop them, unless they are pixels"),
        ([*range(6)], "columns 0, 1, 2, 3 and 2 others (from 0) are constant"),
    ],
)
def test_constant_columns_of_arrays_are_named(columns, words, missing):
    array = np.random.default_rng(0).normal(size=(20, 7))
    array[:, columns] = 7.5
    np.save("a.npy", array)
    for given in (array, ct.stream("a.npy", memory="1KB")):
        with pytest.warns(UserWarning, match="constant") as caught:
            ct.VAE(missing=missing, **SMALL).fit(given)
        assert str(caught[0].message).startswith(words)
        assert caught[0].filename == __file__


# ------------------------------------------------------------------------------------------- files


def stored(save, *values, **options):
    out = io.BytesIO()
    save(out, *values, **options)
    return out.getvalue()


class Trap:
    """What a pickle runs when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


TRAP = np.array([[Trap()]], dtype=object)
CSV = "a,b,c\n" + "".join(",".join(f"{v:.3f}" for v in row) + "\n" for row in X)
NPY, NPZ = stored(np.save, X), stored(np.savez_compressed, X=X)
PARQUET = stored(pd.DataFrame(X, columns=list("abc")).to_parquet)
PNG = stored(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save, format="PNG")
WAV = stored(wavfile.write, 8000, np.arange(4000, dtype=np.int16))

#: Name, content, words of the message. A name with a folder is read as that folder.
FILES = [
    ("long.csv", CSV + "1,2,3,4\n", ["long.csv", "Expected 3 fields in line 32"]),
    ("short.csv", CSV + "1,2\n", ["line 32 of short.csv ends after 2 values", "3 columns"]),
    ("cut.csv", CSV[:-12], ["line 31 of cut.csv ends after 2 values"]),
    ("names.csv", "a,b\n1,2,3\n4,5,6\n", ["more values than its header has names"]),
    ("header.csv", "a,b,c\n", ["no rows"]),
    ("none.csv", "", ["none.csv is empty"]),
    ("blank.csv", "\n\n", ["cannot read blank.csv"]),
    ("latin.csv", "größe,b\n1,2\n".encode("latin1"), ["latin.csv is not UTF-8: save it as UTF-8"]),
    ("wide.csv", CSV.encode("utf16"), ["not UTF-8"]),
    ("bytes.csv", bytes(range(256)) * 9, ["bytes.csv"]),
    ("quote.csv", 'a,b\n"1,2\n3,4\n', ["cannot read quote.csv"]),
    ("infinite.csv", "a,b\n1.5,inf\n3,4\n2,5\n", ["column 'b' is infinite in row 0"]),
    ("huge.csv", "a,b\n1.5,1e999\n3,4\n2,5\n", ["column 'b' is infinite in row 0"]),
    ("twice.csv", "a,a\n1.5,2\n3,4\n", ["column 'a' is there twice", "rename one"]),
    ("marks.csv", "a;b\n1;2\n3;4\n", ["put commas between its columns"]),
    ("empty.csv", "a,b\n1.5,\n2.5,\n", ["column 'b' holds no values"]),
    ("one.csv", "a,b\n1.5,2\n", ["two or more"]),
    (
        "ids.csv",
        "a,b\n" + "".join(f"n{i},{i / 7}\n" for i in range(1500)),
        ["column 'a'", "different texts", "leave it out"],
    ),
    ("cut.npy", NPY[:-50], ["cannot read cut.npy"]),
    ("head.npy", NPY[:20], ["cannot read head.npy"]),
    ("other.npy", b"something" * 9, ["other.npy (it is no array of NumPy)"]),
    ("trap.npy", stored(np.save, TRAP, allow_pickle=True), ["could run code", "not loaded"]),
    ("pickle.npy", pickle.dumps(Trap()), ["no array of NumPy"]),
    ("archive.npy", NPZ, ["rename it to end in .npz"]),
    ("cut.npz", NPZ[:-50], ["cannot read cut.npz"]),
    ("bits.npz", NPZ[:150] + bytes([NPZ[150] ^ 255]) + NPZ[151:], ["cannot read 'X' in bits.npz"]),
    ("other.npz", b"something" * 9, ["cannot read other.npz"]),
    ("trap.npz", stored(np.savez, X=TRAP), ["trap.npz:X holds Python objects", "could run code"]),
    ("array.npz", NPY, ["rename it to end in .npy"]),
    ("flat.npz", stored(np.savez, a=Y), ["no array of numbers of shape (n, ...)", "a"]),
    ("several.npz", stored(np.savez, a=X, b=X), ["several arrays", "several.npz:a"]),
    ("cut.parquet", PARQUET[:-50], ["cannot read cut.parquet"]),
    ("other.parquet", b"something" * 9, ["cannot read other.parquet"]),
    ("cut/a.png", PNG[: len(PNG) // 2], ["cannot read image cut/a.png", "save it again"]),
    ("other/a.png", b"something", ["cannot read image other/a.png"]),
    ("none/a.png", b"", ["cannot read image none/a.png"]),
    ("a.png", PNG, ["one image: pass the folder"]),
    ("cut/a.wav", WAV[: len(WAV) // 2], ["cut/a.wav", "expected 8044 bytes"]),
    ("short/a.wav", WAV[:20], ["cannot read short/a.wav"]),
    ("other/a.wav", b"something" * 9, ["cannot read other/a.wav"]),
    ("none/a.wav", b"", ["cannot read none/a.wav"]),
    ("a.wav", WAV, ["one sound: pass the folder"]),
    ("latin.txt", "größe\nviel\n".encode("latin1"), ["latin.txt is not UTF-8"]),
    ("blank.txt", "\n\n", ["holds no text"]),
    ("notes/a.md", "text", ["folder notes holds no images"]),
    ("hidden/.a.png", PNG, ["folder hidden holds no images"]),
    ("trap.pkl", pickle.dumps(Trap()), ["a format that is not read"]),
    ("trap.pt", pickle.dumps(Trap()), ["a format that is not read"]),
    ("nested.parquet", stored(pd.DataFrame({"a": [[1], [2]]}).to_parquet), ["column 'a' holds '[1]'"]),
]


@pytest.mark.parametrize(("name", "content", "words"), FILES, ids=[name for name, _, _ in FILES])
def test_files(name, content, words):
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = path if path.parent == Path() else path.parent
    with pytest.raises(ValueError) as caught:
        ct.VAE(**SMALL).fit(ct.read(source))
    one_line(caught.value, words)
    command_refuses(fit(source), *words)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["absent.csv", "absent", "no/folder/absent.npy"])
def test_what_is_not_there(name):
    with pytest.raises(ValueError, match=f"there is no {name}"):
        ct.read(name)
    command_refuses(fit(name), f"there is no {name}")


def test_an_empty_folder():
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="folder empty holds no images"):
        ct.read("empty")
    command_refuses(fit("empty"), "folder empty holds no images")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", NPY),
        ("a.npz", NPZ),
        ("a.parquet", PARQUET),
        ("a.csv", CSV.encode()),
        ("f/a.png", PNG),
        ("f/a.wav", WAV),
    ],
    ids=["npy", "npz", "parquet", "csv", "png", "wav"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_is_read_or_refused(name, content):
    """Files cut off, or with some bytes changed: what is found is one error of ours, or data."""
    rng, path = np.random.default_rng(0), Path(name)
    path.parent.mkdir(exist_ok=True)
    for attempt in range(60):
        damaged = bytearray(content[: rng.integers(len(content))] if attempt % 3 == 0 else content)
        for place in rng.integers(0, max(1, len(damaged)), 3 if attempt % 3 else 0):
            # Half of them near the beginning, where formats keep what matters.
            damaged[place if attempt % 2 else place % 100 % len(damaged)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            data = ct.read(path if path.parent == Path() else path.parent)
        except ct.core.errors.ChartaeError as error:
            one_line(error, [])
        else:
            assert data.X.ndim >= 2


# ------------------------------------------------------------------------------------------- labels


LABELS = {
    "too few": (Y[:10], ["10", "30"]),
    "too many": (np.arange(31), ["31", "30"]),
    "none": (Y[:0], ["0", "30"]),
    "one": (np.array(3), ["()"]),
    "a table of text": (
        np.full((30, 2), "a"),
        ["must be numbers, as many in each, [1, 2, 3] say: pass anything else as labels"],
    ),
    "infinite": (changed(np.inf)[:, 1], ["row 4", "NaN for no condition"]),
    "complex": (Y + 1j, ["complex128"]),
    "dates": (np.zeros(30, "M8[D]"), ["datetime64[D]"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind):
    y, words = LABELS[kind]
    with pytest.raises(ValueError) as caught:
        ct.CVAE(**SMALL).fit(X, y)
    one_line(caught.value, words)
    np.save("x.npy", X)
    np.save("y.npy", y)
    command_refuses(fit("x.npy", "--labels", "y.npy", "--recipe", "cvae"), *words)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("z", ["no column 'z'", "a, b, c"]),
        ("C", ["no column 'C'"]),
        ("absent.npy", ["there is no absent.npy"]),
        (None, ["needs labels", "--labels"]),
    ],
)
def test_labels_that_are_not_there(labels, words):
    Path("a.csv").write_text(CSV)
    if labels:
        with pytest.raises(ValueError) as caught:
            ct.read("a.csv", labels=labels)
        one_line(caught.value, words)
    command_refuses(fit("a.csv", "--recipe", "cvae", *(["--labels", labels] if labels else [])), *words)


@pytest.fixture(scope="module")
def cvae():
    return ct.CVAE(**SMALL).fit(X, np.array(["a", "b", "c"])[Y])


@pytest.mark.parametrize(
    ("condition", "word", "words"),
    [
        ("d", "d", ["unknown label 'd': known labels are 'a', 'b', 'c'"]),
        (1, "1", ["unknown label", "1", "known labels are 'a', 'b', 'c'"]),
        (["a", "b"], None, ["2 labels for 3 rows"]),
        ({"vector": [1.0]}, None, ["conditioned on labels alone"]),
        ({"labels": "a"}, None, ["'label', 'vector' and 'sequence' or 'set', and not 'labels'"]),
        ({}, None, ["empty"]),
    ],
    ids=str,
)
def test_conditions(condition, word, words, cvae):
    with pytest.raises(ValueError) as caught:
        cvae.sample(3, condition=condition)
    one_line(caught.value, words)
    cvae.save("run")
    if word:
        command_refuses(["sample", "run", "--condition", word, "--out", "a.npy"], *words[-1:])


def test_labels_after_the_fit(cvae):
    cvae.save("run")
    np.save("x.npy", X)
    for y, words in (
        (np.full(30, "d"), ["unknown label 'd'", "'a', 'b', 'c'"]),
        (np.full(7, "a"), ["7", "30"]),
    ):
        np.save("y.npy", y)
        for method in (cvae.transform, cvae.score_samples, cvae.predict):
            with pytest.raises(ValueError) as caught:
                method(X, y)
            one_line(caught.value, words)
        command_refuses(["encode", "run", "x.npy", "--labels", "y.npy", "--out", "z.npy"], *words)


def test_a_condition_where_there_is_none(vae):
    vae.save("run")
    with pytest.raises(ValueError, match="fitted without a condition: give fit labels"):
        vae.sample(2, condition="a")
    command_refuses(["sample", "run", "--condition", "a"], "fitted without a condition")


# ------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize(
    ("likelihood", "data", "words"),
    [
        ("bernoulli", X, ["values from 0 up", "use 'normal'"]),
        ("continuous-bernoulli", X, ["values from 0 up"]),
        ("categorical", X, ["whole numbers from 0 to 255"]),
        ("categorical", np.full((9, 2), 999), ["whole numbers from 0 to 255"]),
        ("poisson", X, ["whole numbers from 0 up"]),
        ("poisson", -np.ones((9, 2), int), ["whole numbers from 0 up"]),
        ("negative-binomial", X, ["whole numbers from 0 up"]),
        ("columns", X, ["pass a DataFrame"]),
        ("gauss", X, ["unknown likelihood 'gauss'", "normal"]),
    ],
)
def test_likelihoods_that_do_not_fit(likelihood, data, words):
    with pytest.raises(ValueError) as caught:
        ct.VAE(likelihood=likelihood, **SMALL).fit(data)
    one_line(caught.value, words)
    np.save("x.npy", data)
    command_refuses(fit("x.npy", "--likelihood", likelihood), *words)


@pytest.mark.parametrize(
    ("column", "kind", "words"),
    [
        ("word", "count", ["column 'word' holds text", "use 'categorical'"]),
        ("word", "continuous", ["column 'word' holds text"]),
        ("less", "count", ["column 'less' holds -1 in row 1", "whole numbers from 0 up"]),
        ("less", "positive", ["column 'less' holds 0 in row 0", "positive numbers"]),
        ("more", "poisson", ["column 'more' holds 0.142857 in row 1"]),
        ("more", "binary", ["column 'more' holds 30 values and cannot be binary"]),
        ("more", "real", ["column 'more' cannot be 'real'", "continuous"]),
        ("mores", "count", ["no column 'mores': did you mean 'more'"]),
    ],
)
def test_columns_that_hold_something_else(column, kind, words):
    frame = pd.DataFrame({"word": ["x", "y"] * 15, "more": np.arange(30) / 7, "less": -np.arange(30)})
    with pytest.raises(ValueError) as caught:
        ct.VAE(columns={column: kind}, **SMALL).fit(frame)
    one_line(caught.value, words)
    frame.to_csv("a.csv", index=False)
    command_refuses(fit("a.csv", "--column", f"{column}={kind}"), *words)


@pytest.mark.parametrize(
    ("likelihood", "data", "later", "words"),
    [
        ("bernoulli", np.eye(9), 2 * np.eye(9), ["the model knows values from 0 to 1", "[0, 2]"]),
        ("poisson", np.eye(9, dtype=int), -np.eye(9, dtype=int), ["whole numbers from 0 up"]),
        ("categorical", np.eye(9, dtype=int), 2 * np.eye(9, dtype=int), ["the categories 0 to 1"]),
    ],
)
def test_values_that_the_model_does_not_know(likelihood, data, later, words):
    model = ct.VAE(likelihood=likelihood, **SMALL).fit(data)
    model.save("run")
    with pytest.raises(ValueError) as caught:
        model.transform(later)
    one_line(caught.value, words)
    np.save("x.npy", later)
    command_refuses(["encode", "run", "x.npy", "--out", "z.npy"], *words)


# ------------------------------------------------------------------------------------------- parameters

NAN, INFINITY = float("nan"), float("inf")
#: Parameter, and what it cannot be.
PARAMETERS = {
    "latent_dim": [0, -1, 1.5, "many", None],
    "hidden": [(0,), (-1,), (1.5,), "wide", 0, True, (True,), ("a",), ((3,),)],
    "network": ["lstm", "conv2d", None, 3, ()],
    "conditioning": ["film", "flim", None],
    "likelihood": [None, 3],
    "noise": [0, -1, NAN, INFINITY, "loud", None],
    "scale": ["big", None],
    "layout": ["hw", "x"],
    "columns": [{"a": "count"}, "a"],
    "missing": ["maybe"],
    "hide": [-0.1, 1, NAN],
    "corruption": [
        *(0, -1, NAN, INFINITY, "x", ("x", 0.3), ("masking", 1), ("gaussian", "a"), (1, 2, 3)),
        ("stretching", 0.1),  # of rows
    ],
    "asleep": [-1, NAN, "yes", None],
    "max_epochs": [0, -1, 1.5, None],
    "max_time": [0, -1, NAN, "soon"],
    "batch_size": [0, -1, 2.5, "big", None],
    "learning_rate": [0, -1, NAN, INFINITY, "fast", None],
    "schedule": ["zigzag", 3],
    "clip": [-1, 0, NAN, "tight"],
    "validation_fraction": [-0.1, 1, NAN, "some"],
    "patience": [0, -1, 1.5],
    "contamination": [0, 0.6, NAN],
    "device": ["abacus", "cuda:99", 3],
    "precision": ["int1", None],
    "compile": ["yes", 3],
    "random_state": ["a", -1, 1.5, 2**40],
    "verbose": ["loud", -1],
    "free_bits": [-1, NAN, "a", None],
    "warmup": [-1, INFINITY, "a"],
    "covariance": ["round", 3],
}
GIVEN = [(name, value) for name, values in PARAMETERS.items() for value in values]


def as_text(value):
    if isinstance(value, str):
        return value
    return (
        repr(value)
        .replace("(", "[")
        .replace(",)", "]")
        .replace(")", "]")
        .replace("'", '"')
        .replace("True", "true")
        .replace("nan", "NaN")
        .replace("inf", "Infinity")
    )


@pytest.mark.parametrize(("name", "value"), GIVEN, ids=[f"{name}={value}" for name, value in GIVEN])
def test_parameters(name, value):
    with pytest.raises(ValueError) as caught:
        ct.VAE(**{**SMALL, name: value}).fit(X)
    one_line(caught.value, [name if name not in ("network", "device", "likelihood") else ""])
    np.save("x.npy", X)
    option = {
        "latent_dim": "--latent-dim",
        "hidden": "--hidden",
        "max_epochs": "--epochs",
        "random_state": "--seed",
    }
    usual = fit("x.npy")
    if name in option:  # which fit gives a value of its own
        place = usual.index(option[name])
        del usual[place : place + 2]
    command_refuses([*usual, "--param", f"{name}={as_text(value)}"])


@pytest.mark.parametrize(
    ("recipe", "name", "value", "words"),
    [
        ("beta-vae", "beta", -1, ["weight -1 of kl", "use 0 or more"]),
        ("beta-vae", "beta", NAN, ["beta"]),
        ("beta-vae", "beta", "x", ["beta"]),
        ("iwae", "k", 0, ["k=0"]),
        ("iwae", "k", 1.5, ["k=1.5"]),
        ("contractive-ae", "lam", -1, ["weight -1"]),
        ("l2-ae", "lam", -1, ["weight -1"]),
        ("cvae", "conditional_prior", "x", ["give True or False"]),
        ("vae", "beta", 1, ["no parameter 'beta'", "free_bits"]),
        ("vae-iaf", "flows", 0, ["flows=0: give whole numbers"]),
        ("spline-vae", "flow_hidden", 64, ["flow_hidden=64: give a width for each layer"]),
        ("hierarchical-vae", "levels", 9, ["levels=9", "a dimension for each"]),
        ("ms-ssim-vae", "warmup", 1.0, ["ms_ssim does not go with items of shape (", "use another recipe"]),
        ("vea", "beta", 1, ["unknown recipe 'vea'", "did you mean 'vae'"]),
    ],
)
def test_parameters_of_recipes(recipe, name, value, words):
    with pytest.raises(ValueError) as caught:
        ct.Autoencoder(recipe=recipe, recipe_params={name: value}, **SMALL).fit(X)
    one_line(caught.value, words)
    np.savez("x.npz", X=X, y=Y)
    command_refuses([*fit("x.npz", "--recipe", recipe), "--param", f"{name}={as_text(value)}"], *words)


def test_unknown_parameters():
    with pytest.raises(TypeError, match="VAE has no parameter 'latentdim': did you mean 'latent_dim'"):
        ct.VAE(latentdim=2)
    np.save("x.npy", X)
    command_refuses([*fit("x.npy"), "--param", "latentdim=2"], "no parameter 'latentdim'", "'latent_dim'")


@pytest.mark.parametrize("n", [0, -1, 1.5, "a"])
def test_how_many(n, vae):
    for call in (vae.sample, lambda n: vae.sample_posterior(X, n), lambda n: vae.interpolate(X[0], X[1], n)):
        with pytest.raises(ValueError, match="give a positive whole number") as caught:
            call(n)
        one_line(caught.value, [])
    vae.save("run")
    command_refuses(["sample", "run", "--n", n], "--n")


def test_a_refused_fit_leaves_the_estimator_as_it_was():
    model = ct.VAE(**SMALL).fit(X)
    before = model.transform(X)
    with pytest.raises(ValueError):
        model.fit(changed(np.inf))
    assert np.array_equal(model.transform(X), before)


@pytest.mark.filterwarnings("default::UserWarning")
def test_what_a_command_says_to_do_can_be_done():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    rows[5, 2] = 1e6
    np.save("a.npy", rows)
    said = run(*fit("a.npy")).stderr
    assert "write NaN with --param missing=mask if it" in said
    rows[5, 2] = np.nan
    np.save("a.npy", rows)
    command_refuses(fit("a.npy", "--overwrite"), "row 5, column 2", "or fit with --param missing=mask")
    result = run(*fit("a.npy", "--overwrite", "--param", "missing=mask"))
    assert (result.exit_code, result.stderr) == (0, "")
    rows[7, 0] = np.inf
    np.save("c.npy", rows)
    command_refuses(fit("c.npy", "--overwrite", "--param", "missing=mask"), "infinity in row 7, column 0")


def test_labels_that_codes_hold_are_no_labels_of_a_head():
    frame = pd.DataFrame(X, columns=list("abc")).assign(kind=np.repeat(["u", "v"], len(X) // 2))
    frame.to_csv("t.csv", index=False)
    assert run(*fit("t.csv")).exit_code == 0
    cure = "--labels kind, or --column kind=drop"
    command_refuses(["head", "run", "t.csv", "--labels", "kind"], "its codes hold these labels", cure)
    for how in (("--labels", "kind"), ("--column", "kind=drop")):  # as it says
        assert run(*fit("t.csv", "--overwrite", *how)).exit_code == 0
        result = run("head", "run", "t.csv", "--labels", "kind")
        assert result.exit_code == 0, result.output


def test_what_a_command_lacks_is_named_as_an_option(vae, cvae):
    cvae.save("labelled", overwrite=True)
    vae.save("plain", overwrite=True)
    command_refuses(["sample", "labelled", "--guidance", "2"], "none was given: pass --condition")
    command_refuses(["sample", "plain", "--condition", "1"], "give fit labels")
    command_refuses(["sample", "plain", "--out", "v.png"], "v.png is one: let its name end in .npy")
    np.save("rows.npy", X)
    np.save("several.npy", np.eye(len(X))[:, :3] + 0.5)
    command_refuses(["head", "plain", "rows.npy", "--labels", "several.npy"], "one number or label an item")


def test_names_of_files_stay_as_they_are():
    assert run(*fit("digits")).exit_code == 0
    command_refuses(["encode", "run", "hidden=3.npy", "--out", "c.npy"], "there is no hidden=3.npy")
    command_refuses(
        ["encode", "run", "a/latent_dim=8/x.npy", "--out", "c.npy"], "there is no a/latent_dim=8/x.npy"
    )


def test_items_of_another_shape_are_told_the_cure(vae):
    square = ct.VAE(**SMALL).fit(np.random.default_rng(0).random((30, 4, 2)))
    for given, cure in (
        (np.zeros((4, 2)), "that is one item, pass X[None]"),
        (np.zeros((5, 8)), "pass X.reshape(-1, 4, 2)"),
    ):
        with pytest.raises(DataError, match=re.escape(cure)):
            square.transform(given)
    assert square.transform(np.zeros((4, 2))[None]).shape == (1, 2)
    items = torch.utils.data.TensorDataset(torch.from_numpy(np.tile(X, (2, 1))))
    assert ct.audit(vae, items, items, only=["reconstruction"]).findings
    with pytest.raises(DataError, match="give labels as labels="):
        ct.audit(vae, np.tile(X, (2, 1)), np.arange(2 * len(X)))
    flat = ct.VAE(network="conv2d", max_epochs=1)
    with pytest.raises(ValueError, match=re.escape("give items as (n, height, width)")):
        flat.fit(np.zeros((30, 64)) + np.arange(64))


@pytest.mark.parametrize("dtype", [float, np.float32, int])
def test_what_a_masked_array_hides_is_missing(dtype):
    X = np.random.default_rng(0).normal(0, 5, size=(60, 3)).astype(dtype)
    X[:9, 0] = -999
    hidden, gaps = np.ma.masked_equal(X, -999), np.where(X == -999, np.nan, X.astype(float))
    with pytest.raises(DataError, match="X holds NaN in row 0, column 0"):
        ct.VAE(max_epochs=1).fit(hidden)
    fits = [ct.VAE(max_epochs=1, missing="mask", random_state=0).fit(data) for data in (hidden, gaps)]
    codes = [fit.transform(data) for fit, data in zip(fits, (hidden, gaps), strict=True)]
    np.testing.assert_allclose(*codes, rtol=1e-4, atol=1e-4)
    seen = ct.VAE(max_epochs=1, random_state=0).fit(np.ma.masked_array(X[9:], mask=False))
    assert seen.sample(2, random_state=0).shape == (2, 3)
