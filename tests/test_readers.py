"""Readers: every source gives the same arrays back, and every refusal is one line that names the cure."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import chartae as ct
from chartae.core.errors import DataError
from chartae.training.items import array_of, refuse_bad_values
from chartae.training.readers import Dataset, read

RNG = np.random.default_rng(0)


def refused(source, *words, **options):
    """Check that reading is refused in one line that holds all the words."""
    with pytest.raises(DataError) as caught:
        read(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def write_image(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


NUMBERS = st.sampled_from([np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64])
# No subnormals: an earlier fit in this process may have set the processor to flush them.
ARRAYS = NUMBERS.flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=None if np.dtype(dtype).kind != "f" else st.floats(-9, 9, width=16, allow_subnormal=False),
    )
)

# ------------------------------------------------------------------------------------------------- arrays


@given(X=ARRAYS)
def test_an_array_is_the_same_from_memory_and_from_every_file(tmp_path_factory, X):
    folder = tmp_path_factory.mktemp("arrays")
    y = np.arange(len(X))
    np.save(folder / "a.npy", X)
    np.savez(folder / "a.npz", X=X, y=y)
    from_npy, from_npz, from_memory = read(folder / "a.npy"), read(folder / "a.npz"), read((X, y))
    for data in (from_npy, from_npz, from_memory):
        assert data.X.dtype == X.dtype
        np.testing.assert_array_equal(data.X, X)
        assert data.summary.startswith(f"{len(X):,} ")
    assert isinstance(from_npy.X, np.memmap)
    assert from_npy.y is None
    np.testing.assert_array_equal(from_npz.y, y)
    assert from_memory.X is X


def test_digits():
    data = read("digits")
    assert (data.X.dtype, int(data.X.max()), data.name) == (np.dtype(np.uint8), 16, "digits")
    assert data.summary == "1,797 images of 8 × 8, uint8, 10 labels, from digits"
    refused("digits", "leave the labels out", labels="y")


def test_a_dataset_passes_through():
    data = read(np.zeros((2, 2)))
    assert read(data) is data


def test_tensors():
    np.testing.assert_array_equal(read(torch.ones(2, 3, requires_grad=True)).X, np.ones((2, 3)))
    assert read(torch.ones(2, 3, dtype=torch.bfloat16)).X.dtype == np.float32
    np.testing.assert_array_equal(read((torch.ones(2, 3), torch.tensor([0, 1]))).y, [0, 1])
    half = torch.rand(2, 3).bfloat16().requires_grad_()
    np.testing.assert_array_equal(array_of(half), half.detach().float())


def test_lists():
    assert read([[1, 2], [3, 4]]).X.shape == (2, 2)
    refused([[1, 2], [3]], "give all items one shape")


@pytest.mark.parametrize(
    "X, words",
    [
        (np.zeros(5), ("(5,)", "reshape")),
        (np.float64(3), ("reshape",)),
        (np.zeros((0, 3)), ("empty",)),
        (np.zeros((3, 0)), ("empty",)),
        (np.array([["a"]]), ("text",)),
        (np.array([[None, 1]]), ("Python objects",)),
        (np.zeros((2, 2), complex), ("complex",)),
        (np.zeros((2, 2), "M8[s]"), ("dates",)),
    ],
)
def test_what_is_not_items_of_real_numbers_is_refused(X, words):
    refused(X, *words)


def test_sparse_matrices_are_refused():
    from scipy.sparse import csr_array

    refused(csr_array(np.eye(3)), "toarray()")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@given(row=st.integers(0, 40), column=st.integers(0, 6), later=st.integers(0, 40))
def test_the_first_value_that_is_not_finite_is_named(value, row, column, later):
    X = np.zeros((41, 7), np.float32)
    X[row + 1 + later :] = np.nan
    X[row, column:] = value
    shown = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}[str(value)]
    with pytest.raises(DataError, match=rf"^X holds {shown} in row {row}, column {column} \(from 0\): fill"):
        refuse_bad_values(X)
    if np.isnan(value):  # a missing value, of which a fit may know
        assert np.isnan(read(X).X[row, column])
    else:
        refused(X, f"holds {shown} in row {row}, column {column} (from 0)", "fill")


def test_the_search_for_what_is_not_finite_goes_by_blocks(monkeypatch):
    monkeypatch.setattr("chartae.training.items._BLOCK", 64)
    X = np.zeros((100, 3, 2))
    X[77, 2, 1] = np.inf
    refused(X, "infinity in row 77, column 2, 1")


# ------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "y, words",
    [
        ([0, 1], ("(2,)", "3 items")),
        ([0.0, np.inf, 1.0], ("row 1", "NaN for no condition")),
        ([None, None, None], ("no item", "has a label")),
        (np.ma.array([0, 9, 1], mask=True), ("no item", "has a label")),
        (np.array([[0], [0, 1], 1], object), ("do not make an array",)),
        (pd.Series([0, "a", 1]), ("labels are object",)),
        (np.zeros((2, 3, 1)), ("(2, 3, 1)", "3 items")),
        (np.float64(1.0), ("shape ()",)),
        (np.zeros(3, complex), ("complex",)),
        ("y", ("no labels 'y'",)),
        ("absent.npy", ("there is no absent.npy",)),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, words):
    refused(np.zeros((3, 2)), *words, labels=y)


def test_a_number_to_condition_on_may_be_absent():
    data = read(np.zeros((3, 2)), labels=[0.0, np.nan, 1.0])
    assert "one number an item to condition on (none in 1 row)" in data.summary
    assert np.isnan(data.y).tolist() == [False, True, False]
    hidden = np.ma.array([0.0, 9.0, 1.0], mask=[False, True, False])
    np.testing.assert_array_equal(read(np.zeros((3, 2)), labels=hidden).y, data.y)
    assert read(np.zeros((3, 2)), labels=pd.Series([0, 2, 1], dtype="Int64")).y.dtype == np.int64


def test_maps_to_condition_on():
    data = read(np.zeros((3, 2)), labels=np.zeros((3, 4, 5), bool))
    assert data.y.shape == (3, 4, 5)
    assert "4 × 5 numbers an item to condition on" in data.summary


@pytest.mark.parametrize("fmt", ["%.18e", "%.1f", "%d"])
def test_the_first_row_of_a_table_without_a_header_is_kept(tmp_path, fmt):
    """Its values may be equal; pandas renames equal names."""
    X = np.array([[0, 0, 5, 5], [1, 2, 3, 4], [0, 1, 0, 1]])
    np.savetxt(tmp_path / "a.csv", X, delimiter=",", fmt=fmt)
    data = read(tmp_path / "a.csv")
    np.testing.assert_array_equal(data.X, X)
    assert "no header, its first line is a row" in data.summary


IRIS = "5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.3,0.2,Iris-setosa\n7.0,3.3,4.7,1.4,Iris-versicolor\n"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (IRIS, None),
        (IRIS.replace("Iris-setosa", "first", 1), None),
        ("39, State-gov, 77516\n50, Private, 83311\n38, State-gov, 215646\n", None),  # whole numbers
        ("sample,1100.5,1102.5\na,.31,.32\nb,.35,.33\n", "sample 1100.5 1102.5"),
        ("1100.5,1102.5,y\n.31,.32,7\n.35,.33,8\n", "1100.5 1102.5 y"),
        ("country,2019,2020\nMali,900,2100\nTogo,2500,920\n", "country 2019 2020"),
        ("2019,2020,2021\n1,2,4\n5,7,6\n", "2019 2020 2021"),
        (",2019,2020,2021\n3,1,2,4\n1,5,7,6\n", "2019 2020 2021"),
        (",5,7\n3,1.5,2\n1,5,7\n", "5 7"),
        ("date,0.1,0.5\n2020-01-01,0.2,0.4\n2020-01-02,0.4,0.7\n", "date 0.1 0.5"),
        ("2020-01-01,0.2,0.4\n2020-01-02,0.1,0.5\n2020-01-03,0.4,0.7\n", None),
        ("0.5,1.0,label\n0.1,0.9,a\n0.8,1.4,b\n", "0.5 1.0 label"),
        ("1.0,0.5,label\n0.1,0.9,a\n0.8,0.4,a\n", "1.0 0.5 label"),
        ("0.5,first\n0.1,second\n0.8,third\n", None),
        ("1,2,3\n4,5,6\n7,8,9\n", None),
        ("1,2,3\n2,2,1\n7,3,9\n", None),
    ],
)
def test_a_first_line_is_a_row_where_it_looks_like_one(tmp_path, content, names):
    (tmp_path / "a.csv").write_text(content)
    data = read(tmp_path / "a.csv")
    assert len(data.X) == (3 if names is None else 2)
    assert names is None or " ".join(data.columns) == names
    assert ("its first line is a row" in data.summary) == (names is None)


def test_row_names_of_a_part_of_a_frame_are_no_feature(tmp_path):
    frame = pd.DataFrame({"a": np.arange(9) / 7, "b": np.arange(9) ** 2})
    for part in (frame[frame.a > 0.3], frame.sample(frac=1, random_state=0)):
        part.to_csv(tmp_path / "a.csv")
        data = read(tmp_path / "a.csv")
        assert data.columns == ("a", "b")
        assert "without its index column" in data.summary
    frame.assign(k=3).set_index("k").rename_axis(None).to_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv").columns == ("Unnamed: 0", "a", "b")  # it numbers no rows


def test_bad_values_are_looked_for_in_items_only():
    for X in (np.zeros((0, 2)), np.zeros((3, 0)), np.array([[1j]])):  # left to scikit-learn
        refuse_bad_values(X)
    for X in (np.array(np.nan), np.array([np.inf])):
        with pytest.raises(DataError, match="items need"):
            refuse_bad_values(X)
    with pytest.raises(DataError, match=r"X holds NaN in row 0, column 1 \(from 0\)"):
        refuse_bad_values(np.array([[0.0, np.nan]]))


@pytest.mark.parametrize("name", ["x", "notes"])
def test_a_damaged_member_is_passed_over_where_it_holds_no_items(tmp_path, name):
    path = tmp_path / "a.npz"
    np.savez(path, **{name: np.zeros((3, 2))}, other=np.ones((4, 3)))
    raw = bytearray(path.read_bytes())
    start = raw.index(b"NUMPY")
    raw[start + 60 : start + 90] = b"?" * 30  # the checksum of the first array no longer fits
    path.write_bytes(raw)
    if name == "x":
        refused(path, "cannot read 'x'")
    else:
        assert "array other" in read(path).summary


def test_labels_keep_their_kind(tmp_path):
    X = np.zeros((3, 2))
    assert read((X, np.array(["b", "a", "b"], object))).y.dtype.kind == "U"
    assert read((X, [[0], [1], [2]])).y.shape == (3,)
    assert read((X, [[0.0], [1.0], [2.0]])).y.shape == (3, 1)
    assert "one number an item" in read((X, [0.0, 1.0, 2.0])).summary
    assert "4 numbers an item" in read((X, np.zeros((3, 4)))).summary
    np.save(tmp_path / "y.npy", [5, 6, 5])
    np.testing.assert_array_equal(read(X, labels=str(tmp_path / "y.npy")).y, [5, 6, 5])


# ----------------------------------------------------------------------------------------- .npy and .npz


def test_npz_chooses_and_says_so(tmp_path):
    x, t = np.zeros((4, 3)), np.ones((2, 3))
    file = tmp_path / "a.npz"
    np.savez(file, x_train=x, y_train=[0, 1, 2, 3], x_test=t, y_test=[8, 9])
    data = read(file)
    assert "(array x_train, labels y_train)" in data.summary
    np.testing.assert_array_equal(read(f"{file}:x_test").y, [8, 9])
    np.testing.assert_array_equal(read(f"{file}:x_test", labels="y_test").y, [8, 9])
    refused(f"{file}:x_valid", "no array 'x_valid'", "x_test")
    refused(file, "no array 'z'", labels="z")
    refused(file, "(2,)", "4 items", labels="y_test")


def test_npz_labels_of_another_set_are_not_taken(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((3, 2)), y_train=[0, 1, 2], x_valid=np.ones((3, 2)))
    assert read(f"{tmp_path / 'a.npz'}:x_valid").y is None


def test_npz_labels_of_another_length_are_not_taken(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 2)), y=[0, 1], target=[1, 2, 3])
    np.testing.assert_array_equal(read(tmp_path / "a.npz").y, [1, 2, 3])


def test_npz_with_one_matrix_needs_no_name(tmp_path):
    np.savez(tmp_path / "a.npz", names=["a", "b"], anything=np.zeros((2, 2)), objects=np.array([None]))
    assert "(array anything)" in read(tmp_path / "a.npz").summary


def test_npz_without_a_choice_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.zeros((2, 2)), second=np.zeros((3, 3)))
    refused(tmp_path / "a.npz", "first, second", "a.npz:first")
    np.savez(tmp_path / "b.npz", wave=np.zeros(9))
    refused(tmp_path / "b.npz", "wave")


class Bomb:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return open, ("exploded", "w")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"a.{suffix}"
    bomb = np.array([[Bomb()]], dtype=object)
    if suffix == "npy":
        np.save(file, bomb)
    else:
        np.savez(file, X=bomb)
    refused(file if suffix == "npy" else f"{file}:X", "Python objects", "np.stack")
    file.write_bytes(pickle.dumps(Bomb()))
    refused(file, file)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_damaged_files_are_refused(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    file.touch()
    refused(file, file, "empty")
    file.write_bytes(bytes(range(128, 256)))
    refused(file, file)


def test_truncated_files_are_refused(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, RNG.random((50, 50)))
    file.write_bytes(file.read_bytes()[:9000])
    refused(file, file)
    buffer = io.BytesIO()
    np.save(buffer, RNG.random((50, 50)))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("X.npy", buffer.getvalue()[:9000])
        archive.writestr("readme.txt", "hello")
    refused(f"{tmp_path / 'b.npz'}:X", "cannot read 'X'")
    refused(f"{tmp_path / 'b.npz'}:readme.txt", "not an array")
    refused(tmp_path / "b.npz", "cannot read 'X'")


def test_a_suffix_that_lies_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.zeros((2, 2)))
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    refused(tmp_path / "a.npy", "end in .npz")
    refused(tmp_path / "b.npz", "end in .npy")


# ------------------------------------------------------------------------------------------------- tables


def test_csv_with_labels(tmp_path):
    file = tmp_path / "iris.csv"
    file.write_text("length,width,species\n1.5,2,setosa\n3.5,4,virginica\n")
    data = read(file, labels="species")
    assert data.columns == ("length", "width")
    np.testing.assert_array_equal(data.X, [[1.5, 2.0], [3.5, 4.0]])
    assert data.y.tolist() == ["setosa", "virginica"]
    assert data.summary == "2 rows of 2 columns, 2 labels (setosa, virginica), from iris.csv (labels species)"
    assert list(read(file).X.columns) == ["length", "width", "species"]
    refused(file, "did you mean 'species'", labels="specis")
    refused(file, "its columns are length, width", labels="q")


def test_dates_in_csv_are_dates(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(
        "day,time,other,none\n2024-02-29,2024-01-01 10:30,29.02.2024,2024-02-30\n,2024-01-02T08:00:01,x,\n"
    )
    X = read(file).X
    assert [pd.api.types.is_datetime64_dtype(X[name]) for name in X] == [True, True, False, False]
    assert X["day"].iloc[0] == pd.Timestamp("2024-02-29")
    assert X["day"].isna().tolist() == [False, True]


def test_whole_numbers_with_gaps_in_csv_stay_whole(tmp_path):
    (tmp_path / "a.csv").write_text("k,decimal,none\n1,2,\n,3.0,\n3,,\n")
    frame = read(tmp_path / "a.csv").X
    assert [str(kind) for kind in frame.dtypes] == ["Int64", "float64", "float64"]
    assert frame["k"].tolist() == [1, pd.NA, 3]
    (tmp_path / "b.csv").write_text("1,2.5\n,3.5\n3,4.5\n2,2.5\n")  # without names
    assert [str(kind) for kind in read(tmp_path / "b.csv").X.dtypes] == ["Int64", "float64"]


def test_csv_layouts(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("1,2\n3,4\n")
    assert read(file).X.to_numpy().tolist() == [[1, 2], [3, 4]]
    pd.DataFrame(np.arange(4).reshape(2, 2)).to_csv(file, index=False)
    assert read(file).X.to_numpy().tolist() == [[0, 1], [2, 3]]
    pd.DataFrame({"a": [7, 8]}).to_csv(file)
    assert read(file).summary == "2 rows of 1 column, from a.csv (without its index column)"
    file.write_text("a;b\n1;2\n")
    refused(file, "'a;b'", "commas")
    file.write_text("a,b\n1,2,3\n4,5,6\n")
    refused(file, "more values than its header")
    file.write_text("a,b\n1,2\n4,5,6\n")
    refused(file, file)
    file.write_text("a,b\n")
    refused(file, "empty")
    file.write_text("a,b\n1,2\n3,\n")
    assert read(file).summary == "2 rows of 2 columns, 25.0% of values missing, from a.csv"
    file.write_text("a,b\n1,x\n2,\n")
    assert read(file, labels="b").y.tolist() == ["x", None]
    assert "1 label (x) (none in 1 row)" in read(file, labels="b").summary
    file.write_text("a,b\n1,\n2,\n")
    refused(file, "no item", "has a label", labels="b")


def test_frames():
    frame = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": pd.array([3, 4], "Int64")})
    data = read(frame)
    pd.testing.assert_frame_equal(data.X, frame)
    labelled = read(frame, labels="a")
    assert labelled.y.tolist() == [1, 2]
    assert labelled.columns == ("b", "c")
    assert list(frame.columns) == ["a", "b", "c"]
    assert read((frame, [1, 0])).y.tolist() == [1, 0]
    refused(pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a'", "twice")
    # What no model can use is for a fit to refuse, which may be told to leave it out.
    assert read(pd.DataFrame({"a": [1, "x"]})).columns == ("a",)


@pytest.mark.parametrize("method", ["fit", "transform"])
def test_an_estimator_names_bad_values_as_the_reader_does(method):
    good = pd.DataFrame(RNG.normal(size=(40, 2)), columns=["size", "kind"])
    use = getattr(ct.AE(latent_dim=1, max_epochs=1, missing="refuse").fit(good), method)
    use(good.astype(object))
    for value, said in (
        (np.nan, "no value in row 3"),
        (np.inf, "row 3"),
        ("big", "mixes numbers and text" if method == "fit" else "'big' in row 3"),
    ):
        bad = good.astype(object if value == "big" else float)
        bad.loc[3, "kind"] = value
        with pytest.raises(DataError, match=f"(?s)(?=.*'kind').*{said}"):
            use(bad)


def test_an_estimator_names_bad_values_of_an_array():
    X = RNG.normal(size=(40, 2))
    ae = ct.AE(latent_dim=1, max_epochs=1).fit(X)
    X[3, 1] = np.nan
    for use in (ae.fit, ae.transform):
        with pytest.raises(DataError, match="X holds NaN in row 3, column 1"):
            use(X)


# ------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_images_come_back_as_stored(tmp_path, suffix, shape):
    X = RNG.integers(0, 256, (3, *shape), dtype=np.uint8)
    for i, pixels in enumerate(X):
        write_image(tmp_path / f"{i}{suffix}", pixels)
    data = read(tmp_path)
    assert data.X.dtype == np.uint8
    np.testing.assert_array_equal(data.X, X)
    assert data.y is None


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_compressed_images_are_read(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", np.full((8, 8, 3), 100, np.uint8))
    assert abs(read(tmp_path).X.astype(int) - 100).max() <= 3


def test_subfolders_are_labels(tmp_path):
    for label, value in (("cat", 1), ("dog", 2), ("cat", 3)):
        write_image(tmp_path / label / f"{value}.png", np.full((2, 2), value, np.uint8))
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".hidden").mkdir()
    write_image(tmp_path / ".hidden" / "x.png", np.zeros((9, 9), np.uint8))
    data = read(tmp_path)
    assert data.y.tolist() == ["cat", "cat", "dog"]
    assert data.X[:, 0, 0].tolist() == [1, 3, 2]
    assert data.summary.endswith(f"2 labels (cat, dog), from {tmp_path.name} (without 1 other file)")
    write_image(tmp_path / "loose.png", np.zeros((2, 2), np.uint8))
    refused(tmp_path, "loose.png", "subfolder")
    assert read(tmp_path, labels=[0, 1, 2, 3]).y.tolist() == [0, 1, 2, 3]


def test_subfolders_that_are_links_are_subfolders(tmp_path):
    for place in ("pets/cat/deep", "elsewhere", "pets/.hidden"):
        (tmp_path / place).mkdir(parents=True)
        write_image(tmp_path / place / "1.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "pets/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "pets/wolf").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "pets/cat/round").symlink_to(tmp_path / "pets", target_is_directory=True)
    assert read(tmp_path / "pets").y.tolist() == ["cat", "dog"]  # the wolf is the dog
    (tmp_path / "link").symlink_to(tmp_path / "pets", target_is_directory=True)
    assert read(tmp_path / "link").y.tolist() == ["cat", "dog"]


def test_a_link_to_a_folder_beside_it_gives_nothing_twice(tmp_path):
    for name in "bcd":
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "1.png", np.zeros((4, 4), np.uint8))
        for other in {*"bcd"} - {name}:
            (tmp_path / name / other).symlink_to(tmp_path / other, target_is_directory=True)
    (tmp_path / "a").symlink_to(tmp_path / "b", target_is_directory=True)
    assert read(tmp_path).y.tolist() == ["b", "c", "d"]


def test_subfolders_that_split_the_data_are_no_labels(tmp_path):
    for place in ("Train/cat/1", "Train/dog/2", "test/cat/3"):
        write_image(tmp_path / f"{place}.png", np.full((2, 2), 1, np.uint8))
    whole = read(tmp_path)
    assert (len(whole.X), whole.y, whole.note) == (3, None, "Train and test split the data and are no labels")
    assert read(tmp_path / "Train").y.tolist() == ["cat", "dog"]
    assert read(tmp_path, labels=[0, 1, 2]).y.tolist() == [0, 1, 2]
    write_image(tmp_path / "plane" / "4.png", np.full((2, 2), 1, np.uint8))
    assert read(tmp_path).y.tolist() == ["Train", "Train", "plane", "test"]


def test_one_size_is_chosen_where_sizes_differ(tmp_path):
    for i, shape in enumerate([(4, 6), (5, 6), (5, 8)]):
        write_image(tmp_path / f"{i}.png", np.full(shape, 7, np.uint8))
    data = read(tmp_path)
    assert data.X.shape == (3, 5, 6)
    assert (data.X == 7).all()
    assert data.note == "resized to 5 × 6 from sizes between 4 × 6 and 5 × 8; --size chooses"
    given = read(tmp_path, size=(3, 2))
    assert given.X.shape == (3, 3, 2)
    assert given.note == "resized to 3 × 2 from sizes between 4 × 6 and 5 × 8"
    refused(np.zeros((2, 2)), "leave it out", size=(3, 2))


def test_a_chosen_size_is_small_and_keeps_the_shape(tmp_path):
    for i, shape in enumerate([(100, 200), (90, 210), (110, 190)]):
        write_image(tmp_path / f"{i}.png", np.zeros(shape, np.uint8))
    assert read(tmp_path).X.shape == (3, 32, 64)
    for i in (0, 1):
        (tmp_path / f"{i}.png").unlink()
    assert read(tmp_path).X.shape == (1, 110, 190)  # all of one size: as they are


def test_size_resizes_every_kind(tmp_path):
    write_image(tmp_path / "a.png", np.full((8, 8), 40_000, np.uint16))
    data = read(tmp_path, size=(4, 4))
    assert data.X.dtype == np.uint16
    assert (data.X == 40_000).all()


def test_gray_and_color_together_are_color(tmp_path):
    write_image(tmp_path / "a.png", np.full((2, 2), 7, np.uint8))
    write_image(tmp_path / "b.png", np.full((2, 2, 3), 9, np.uint8))
    data = read(tmp_path)
    assert data.X[:, 0, 0].tolist() == [[7, 7, 7], [9, 9, 9]]
    assert "1 gray image as color" in data.summary


def test_transparency_lies_on_white(tmp_path):
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1, 3] = 255
    write_image(tmp_path / "a.png", pixels)
    data = read(tmp_path)
    assert data.X.tolist() == [[[[255, 255, 255], [0, 0, 0]]]]
    assert "transparency on white" in data.summary


def test_palettes_become_color(tmp_path):
    Image.fromarray(np.full((2, 2, 3), (10, 20, 30), np.uint8)).convert("P").save(tmp_path / "a.png")
    assert read(tmp_path).X.shape == (1, 2, 2, 3)


def test_deep_pixels_stay_deep_and_do_not_mix(tmp_path):
    deep = np.array([[1, 40_000]], np.uint16)
    write_image(tmp_path / "a.png", deep)
    np.testing.assert_array_equal(read(tmp_path).X, [deep])
    write_image(tmp_path / "b.png", np.zeros((1, 2), np.uint8))
    refused(tmp_path, "a.png", "b.png", "one type")
    (tmp_path / "b.png").unlink()
    write_image(tmp_path / "0.png", np.zeros((1, 2, 3), np.uint8))
    refused(tmp_path, "a.png", "0.png", "one type")


def test_cameras_held_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(tmp_path / "a.jpg", np.zeros((4, 6), np.uint8), exif=exif)
    assert read(tmp_path).X.shape == (1, 6, 4)


def test_unreadable_images_are_named(tmp_path):
    write_image(tmp_path / "a.png", RNG.integers(0, 256, (64, 64), dtype=np.uint8))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:500])
    refused(tmp_path, "b.png", "remove it")
    (tmp_path / "b.png").write_bytes(b"no image")
    refused(tmp_path, "b.png", "remove it")


def test_several_images_in_a_file_are_refused(tmp_path):
    pages = [Image.new("L", (2, 2), i) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    refused(tmp_path, "a.tif", "3 images")


def test_the_first_image_of_a_camera_s_file_is_its_photograph(tmp_path):
    first, preview = (Image.new("RGB", size, color) for size, color in (((4, 6), "white"), ((2, 2), "black")))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    write_image(tmp_path / "b.jpg", np.zeros((6, 4, 3), np.uint8))
    assert read(tmp_path).X.mean((1, 2, 3)).round().tolist() == [255, 0]


def test_folders_without_images(tmp_path):
    refused(tmp_path, "no images", "another folder")
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    refused(tmp_path, "pass the file", "a.npy")


# ------------------------------------------------------------------------------------------------- paths


def test_missing_files_suggest_a_close_name(tmp_path):
    np.save(tmp_path / "faces.npy", np.zeros((2, 2)))
    refused(tmp_path / "face.npy", "did you mean faces.npy?")
    refused(tmp_path / "no" / "such.npy", "does not exist either")
    refused(f"{tmp_path}/faces.npz:X", "did you mean faces.npy?")
    refused("digit", "did you mean digits?")
    refused("qqqqqqq", "pass a file")


def test_other_formats_are_refused(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    refused(tmp_path / "a.xlsx", "format that is not read", ".csv")
    write_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    refused(tmp_path / "a.png", "one image", "folder")


def test_reading_changes_nothing(tmp_path):
    X = np.zeros((2, 2))
    np.save(tmp_path / "a.npy", X)
    data = read(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="read-only"):
        data.X[0, 0] = 1
    with pytest.raises(AttributeError):
        data.X = X
    assert isinstance(data, Dataset)


def test_a_folder_may_be_called_as_the_bundled_data(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("digits")).X) == 1
    assert len(read("digits").X) == 1797


def test_parquet(tmp_path):
    frame = pd.DataFrame({"a": [1.5, None, 3.0], "b": pd.Categorical(["x", "y", "x"]), "y": [0, 1, 0]})
    frame.to_parquet(tmp_path / "a.parquet")
    data = read(tmp_path / "a.parquet", labels="y")
    pd.testing.assert_frame_equal(data.X, frame[["a", "b"]])
    assert data.y.tolist() == [0, 1, 0]
    frame.set_index("y").to_parquet(tmp_path / "a.parquet")
    named = read(tmp_path / "a.parquet").X
    assert list(named) == ["a", "b"]
    assert named.index.tolist() == [0, 1, 0]


def test_a_line_that_ends_early_is_no_row_with_gaps(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n1,2,3\n\n4,,\n7,8\n")
    refused(path, "line 5", "ends after 2 values", "3 columns")
    path.write_text("a,b,c\n1,2,3\n\n4,,\n7,8,\n")
    assert read(path).X["c"].isna().tolist() == [False, True, True]


def test_long_texts_may_stand_beside_gaps(tmp_path):
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f"a,b\n{long},1\n{long},\n")
    assert read(tmp_path / "a.csv").X["b"].isna().tolist() == [False, True]
    (tmp_path / "a.csv").write_text(f"a,b\n{long},1\n{long}\n")
    refused(tmp_path / "a.csv", "line 3", "ends after 1 value")


@pytest.mark.parametrize("blank", ["", " ", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_zeros_in_front_are_kept_however_a_file_is_laid_out(tmp_path, blank, end):
    (tmp_path / "a.csv").write_bytes(f"zip,n{end}01234,{blank}007{end}99999,{blank}123{end}".encode())
    X = read(tmp_path / "a.csv").X
    assert X.to_numpy().tolist() == [["01234", "007"], ["99999", "123"]]


def test_zeros_in_front_of_numbers_are_kept(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(
        "zip,n,gap,v\n" + "".join(f"0{i % 5},{i * i},{'007' if i % 2 else ''},0.{i}\n" for i in range(20))
    )
    table = ct.read(file).X
    assert table["zip"].tolist()[:2] == ["00", "01"]
    assert table["gap"].tolist()[1] == "007"
    assert [str(table[name].dtype) for name in ("n", "v")] == ["int64", "float64"]
    model = ct.VAE(latent_dim=2, hidden=(4,), max_epochs=1, random_state=0).fit(table.drop(columns="gap"))
    assert set(model.sample(30, random_state=0)["zip"]) <= set(table["zip"])
    with pytest.raises(DataError, match="column 'zip' holds '9', which is not known"):
        model.transform(table.drop(columns="gap").assign(zip=9))


def test_gaps_in_a_number_to_condition_on_are_no_condition(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("a,b,y\n" + "".join(f"{i},{i * i},{'' if i == 3 else i / 4}\n" for i in range(20)))
    assert np.isnan(ct.read(file, labels="y").y).tolist() == [i == 3 for i in range(20)]
    file.write_text("a,b,y\n" + "".join(f"{i},{i * i},{'' if i == 3 else i % 2}\n" for i in range(20)))
    assert ct.read(file, labels="y").y.tolist() == [None if i == 3 else i % 2 for i in range(20)]


def png_of_16_bits(file: Path, pixels: np.ndarray, color: int, transparent: int | None = None) -> None:
    """Written by hand: Pillow has no such images of several channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))]
    parts += [chunk(b"tRNS", struct.pack(">H", transparent))] if transparent is not None else []
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_gray_of_16_bits_is_as_stored_whatever_is_transparent(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 5))
    png_of_16_bits(tmp_path / "a.png", pixels, 0, transparent=int(pixels[0, 0]))
    data = read(tmp_path)
    np.testing.assert_array_equal(data.X[0], pixels)
    assert "white" not in data.summary


def test_color_of_16_bits_is_said_to_be_cut(tmp_path):
    png_of_16_bits(tmp_path / "a.png", np.full((4, 5, 3), 0x1234), 2)
    data = read(tmp_path)
    assert (data.X == 0x12).all()
    assert "16 bits a channel as 8" in data.summary


def test_images_that_are_too_large_or_no_image_are_refused_in_a_line(tmp_path, monkeypatch):
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"cannot read image .*a.png .*: make it smaller first"):
        read(tmp_path)

    def damaged(*args, **more):
        raise TypeError("Missing dimensions")

    monkeypatch.setattr(Image, "open", damaged)
    with pytest.raises(DataError, match=r"\(Missing dimensions\): remove it, or save it again"):
        read(tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    write_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    look = os.scandir

    def scandir(place):
        if str(place).endswith("b"):
            raise PermissionError(13, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"cannot read .*b \(Permission denied\): change its permissions"):
        read(tmp_path)


def test_whole_numbers_that_no_float_holds_stay_apart(tmp_path):
    large = [123456789012345678, 123456789012345679]
    (tmp_path / "a.csv").write_text(f"v,user\n1,{large[0]}\n2,{large[1]}\n3,\n")
    assert read(tmp_path / "a.csv").X["user"].tolist() == [*large, pd.NA]
    assert read(tmp_path / "a.csv", labels="user").y.tolist() == [*large, None]


def test_partitions_are_not_left_out_silently(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1.0, 2.0], "city": ["x", "y"]})
    frame.to_parquet(tmp_path / "hive", partition_cols=["city"])
    with pytest.raises(DataError, match=r"keeps the column 'city' in the names of its folders"):
        read(tmp_path / "hive")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("red,small,y\nblue,small,n\nred,large,y\nblue,small,n\n", None),
        ("p,x,s,x\ne,y,s,x\np,x,t,y\n", None),
        ("color,size\nred,small\nblue,color\n", "color size"),
        ("2020-01-01,red\n2020-01-02,blue\n", None),
        ("day,red\n2020-01-01,green\n2020-01-02,blue\n", "day red"),
        ("NA,1.5,2\n3,4.5,5\n6,7.5,8\n9,2.5,1\n", None),
    ],
)
def test_a_first_line_of_texts_or_gaps(tmp_path, content, names):
    (tmp_path / "a.csv").write_text(content)
    data = read(tmp_path / "a.csv")
    assert len(data.X) == content.count("\n") - (names is not None)
    assert names is None or " ".join(data.columns) == names


def test_blank_lines_of_one_column_are_told(tmp_path):
    (tmp_path / "a.csv").write_text("amount\n1\n\n3\n\n\n6\n\n")
    data = read(tmp_path / "a.csv")
    assert len(data.X) == 3
    assert "3 blank lines left out" in data.summary
    (tmp_path / "b.csv").write_text("a,b\n1,2\n\n3,4\n")
    assert "blank" not in read(tmp_path / "b.csv").summary


def test_a_line_of_excel_s_own_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("sep=,\na,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match=r"is 'sep=', which is Excel's own: delete it"):
        read(tmp_path / "a.csv")


# ------------------------------------------------------------------- names that are numbers, labels that lack


@pytest.mark.parametrize(
    "names",
    [
        range(400, 600, 10),
        [2000, 2005, 2010, 2015],
        [800, 400, 200, 100],
        [0, 5, 10, 20],
        range(1, 9),
        [400.0, 402.5, 405.0],
    ],
)
def test_numbers_in_order_that_are_not_as_large_as_those_below_are_names(tmp_path, names):
    pd.DataFrame(RNG.uniform(size=(50, len(names))), columns=names).to_csv(tmp_path / "t.csv", index=False)
    data = read(tmp_path / "t.csv")
    assert (data.X.shape, data.note) == ((50, len(names)), "")
    assert list(data.X.columns) == [str(name) for name in names]


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_of_numbers_are_no_names_in_whatever_order(tmp_path, ordered):
    X = RNG.normal(size=(50, 4))
    np.savetxt(tmp_path / "t.csv", np.sort(X, 1) if ordered else X, delimiter=",")
    assert read(tmp_path / "t.csv").X.shape == (50, 4)


def test_semicolons_are_refused_whatever_stands_between_them(tmp_path):
    (tmp_path / "t.csv").write_text("-0,13;0,64;1,2\n" * 50)
    refused(tmp_path / "t.csv", "has semicolons between its columns", "put commas there")
    table = pd.DataFrame({"a": RNG.normal(size=60), "b": ["one; two", "three"] * 30})
    table.to_csv(tmp_path / "text.csv", index=False)
    assert read(tmp_path / "text.csv").X.shape == (60, 2)


def test_labels_of_a_csv_may_be_an_array(tmp_path):
    pd.DataFrame({"a": RNG.normal(size=6)}).to_csv(tmp_path / "t.csv", index=False)
    for labels in (np.arange(6) % 3, pd.Series(["x", "y"] * 3), [0, 1] * 3):
        assert read(tmp_path / "t.csv", labels=labels).y.tolist() == list(labels)


class Told(torch.utils.data.Dataset):
    """Of every third item no label is known."""

    def __len__(self):
        return 9

    def __getitem__(self, i):
        if i >= 9:
            raise IndexError
        return torch.full((2,), float(i)), None if i % 3 == 0 else i % 2


def test_the_first_item_need_not_have_a_label():
    expected = [None if i % 3 == 0 else i % 2 for i in range(9)]
    assert ct.read(Told()).y.tolist() == expected

    class Passing(torch.utils.data.IterableDataset):
        def __iter__(self):
            return (Told()[i] for i in range(9))

    assert ct.read(Passing()).y.tolist() == expected


def test_decimals_are_numbers_to_condition_on(tmp_path):
    prices = [Decimal("1.5") * i for i in range(9)]
    pd.DataFrame({"a": RNG.normal(size=9), "price": prices}).to_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", labels="price").y.tolist() == [1.5 * i for i in range(9)]


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    twice = pyarrow.Table.from_arrays([pyarrow.array([1.0, 2.0])] * 2, names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", "column 'a' is there twice", "rename one")
