"""Data larger than memory: what a stream gives is what the array holds, and a fit on it is the same fit."""

import gc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import chartae as ct
from chartae.core.arrays import blocks, ends, is_streamed, whole
from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.models.recipes import build
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.sources import Source
from chartae.training.streams import Streamed, parse_bytes, stream

X = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
MEMORY = 8192  # the array has 12,000 bytes


class Items(Dataset):
    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> object:
        return self.items[i]


class Once(IterableDataset):
    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __iter__(self):
        buffer = np.empty(6, np.float32)
        for item in self.items:
            buffer[:] = item
            yield buffer  # the same array again and again


@pytest.fixture
def parquet(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(
        name: str = "big.parquet", rows: slice = slice(None), group: int = 30, **columns: object
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        table = {f"c{i}": X[rows, i] for i in range(6)} | columns
        pq.write_table(pyarrow.table(table), path, row_group_size=group)
        return path

    return write


@pytest.fixture
def streams(tmp_path: Path, parquet) -> dict[str, Streamed]:
    np.save(tmp_path / "c.npy", X)
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    parquet("parts/a.parquet", slice(200))
    parquet("parts/b.parquet", slice(200, 500))
    return {
        "npy": stream(tmp_path / "c.npy", memory=MEMORY),
        "columns first": stream(tmp_path / "f.npy", memory=MEMORY),
        "parquet": stream(parquet(), memory=MEMORY),
        "folder": stream(tmp_path / "parts", memory=MEMORY),
        "large row groups": stream(parquet("one.parquet", group=500), memory=MEMORY),
        "array": stream(X, memory=MEMORY),
        "dataset": stream(TensorDataset(torch.from_numpy(X)), memory=MEMORY),
        "loader": stream(DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=7), memory=MEMORY),
        "iterable": stream(Once(list(X)), memory=MEMORY),
        "generator": stream((row for row in X), memory="1MB"),
    }


def test_a_stream_gives_what_the_array_holds(streams):
    rng = np.random.default_rng(1)
    for name, S in streams.items():
        assert is_streamed(S), name
        assert (S.shape, S.dtype, S.ndim, S.size, len(S)) == (X.shape, X.dtype, 2, X.size, 500), name
        assert S.edges[0] == 0, name
        assert S.edges[-1] == 500, name
        for part in (
            slice(None),
            slice(7, 123),
            slice(499, 600),
            slice(5, 5),
            slice(3, 90, 7),
            slice(-4, None),
        ):
            assert np.array_equal(S[part], X[part]), (name, part)
        rows = rng.integers(-500, 500, 80)  # in any order, some of them twice
        assert np.array_equal(S[rows], X[rows]), name
        assert np.array_equal(S[X[:, 0] > 1], X[X[:, 0] > 1]), name
        assert np.array_equal(S[17], X[17]), name
        assert np.array_equal(S[:, 2:4][10:90], X[10:90, 2:4]), name
        assert np.array_equal(np.stack(list(S)), X), name
        with pytest.raises(IndexError, match="count from 0"):
            S[[500]]
        with pytest.raises(DataError, match="larger than memory"):
            np.asarray(S)


def counted(edges: list[int]) -> tuple[Streamed, list[int]]:
    """A stream of rows of `X` in blocks of unequal size, and which of them have been read."""
    read: list[int] = []

    def block(i: int) -> np.ndarray:
        read.append(i)
        return X[edges[i] : edges[i + 1]].copy()

    return Streamed(block, edges, (6,), X.dtype, memory=MEMORY), read


EDGES = [0, 3, 50, 51, 120, 180, 300, 330, 417, 500]


def test_each_block_is_read_once_a_call():
    S, read = counted(EDGES)
    S[np.random.default_rng(0).permutation(500)]
    assert sorted(read) == list(range(9))
    for look in (ends, whole, lambda S: list(blocks(S)), lambda S: list(blocks(S, np.arange(0, 500, 2)))):
        read.clear()
        S._kept = None
        look(S)
        assert len(read) == len(set(read))
    read.clear()
    for start in range(0, 500, 32):  # the last block is kept
        S[start : start + 32]
    assert read == list(range(9))


def test_what_is_seen_of_a_stream_is_what_is_seen_of_the_array(streams):
    rows = np.sort(np.random.default_rng(2).permutation(500)[:300]).astype(np.int32)
    for S in streams.values():
        assert ends(S) == ends(X)
        assert np.array_equal(np.concatenate(list(blocks(S, rows))), X[rows])
        assert [len(b) for b in blocks(S)] == [b - a for a, b in pairwise(S.edges)]
        a, b = infer_space(S, rows=rows), infer_space(X, rows=rows)
        assert a.config() == b.config()
        assert torch.allclose(a.center, b.center, rtol=1e-12)
        assert torch.allclose(a.scale, b.scale, rtol=1e-12)
    assert whole(stream(np.arange(20.0)[:, None], memory=640))
    assert not whole(stream(np.arange(20.0)[:, None] / 2, memory=640))


# ------------------------------------------------------------------- order, and batches of it


def test_an_epoch_takes_every_row_once_and_windows_fit():
    S, _ = counted(EDGES)
    source = Source(S, infer_space(X), rows=torch.arange(10, 490))
    windows = list(source.order(torch.Generator().manual_seed(0)))
    assert sorted(torch.cat(windows).tolist()) == list(range(10, 490))
    largest = max(b - a for a, b in pairwise(EDGES))
    assert all(len(w) <= max(MEMORY // 8 // 24, largest) for w in windows)
    assert len(windows) > 3
    again = [torch.cat(list(source.order(g))).tolist() for g in [torch.Generator().manual_seed(0)] * 2]
    assert again[0] == torch.cat(windows).tolist()
    assert again[0] != again[1]
    assert torch.cat(list(source.order())).tolist() == list(range(10, 490))


def test_without_a_window_the_order_is_one_permutation():
    generator = torch.Generator().manual_seed(3)
    (order,) = Source(X, infer_space(X)).order(generator)
    assert torch.equal(order, torch.randperm(500, generator=torch.Generator().manual_seed(3)))


def test_rows_are_uniformly_shuffled_within_a_window():
    # Where a row of the window comes to lie: 4 standard errors around the mean (false alarm: 1 in 400).
    S, _ = counted([0, 20, 40])
    generator = torch.Generator().manual_seed(0)
    source = Source(S, infer_space(X))
    places = torch.stack([torch.cat(list(source.order(generator))).argsort() for _ in range(600)]).double()
    assert float((places.mean(0) - 19.5).abs().max()) < 4 * np.sqrt((40**2 - 1) / 12 / 600)


@pytest.mark.parametrize("size", [1, 7, 64, 83, 499, 500, 1000])
def test_batches_are_those_of_an_array_in_the_same_order(streams, size):
    c = RawCondition(label=torch.arange(500))
    space, kept = infer_space(X), torch.arange(1, 500)
    for name in ("npy", "array"):
        S = streams[name]
        both = [Source(A, space, c, window=MEMORY // 8).subset(kept) for A in (S, X)]
        for skip in (0, 1, 5):
            for seed in (None, 0):
                generators = [None if seed is None else torch.Generator().manual_seed(seed) for _ in both]
                ours, theirs = (list(s.batches(size, g, skip)) for s, g in zip(both, generators, strict=True))
                assert [len(b) for b in ours] == [len(b) for b in theirs]
                for a, b in zip(ours, theirs, strict=True):
                    assert torch.equal(a.x, b.x)
                    assert torch.equal(a.index, b.index)
                    assert torch.equal(a.c.label, b.c.label)


def test_skipped_batches_are_not_read():
    S, read = counted(EDGES)
    source = Source(S, infer_space(X))
    whole = list(source.batches(16, torch.Generator().manual_seed(0)))
    read.clear()
    S._kept = None
    rest = list(source.batches(16, torch.Generator().manual_seed(0), skip=25))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[25:], rest, strict=True))
    assert len(set(read)) < 5


def test_no_last_batch_of_one_row():
    S, _ = counted(EDGES)
    source = Source(S, infer_space(X), rows=torch.arange(33))
    assert [len(b) for b in source.batches(16, torch.Generator().manual_seed(0))] == [16, 17]
    assert [len(b) for b in source.batches(16)] == [16, 16, 1]


def test_training_on_a_stream_gives_the_same_weights_as_on_the_array(streams):
    states = []
    for data in (X, streams["npy"]):
        space = infer_space(X)
        torch.manual_seed(0)
        plan = build("vae", space, latent_dim=2, hidden=(8,))
        source = Source(data, space, window=MEMORY // 8)
        held = source.subset(torch.arange(40)).resident()
        assert not held.streamed
        list(train(plan, source.subset(torch.arange(40, 500)), epochs=2, validation=held, batch_size=32))
        states.append(plan.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_take_slice_and_resident():
    S, _ = counted(EDGES)
    space, rows = infer_space(X), torch.tensor([400, 3, 77])
    ours, theirs = Source(S, space), Source(X, space)
    assert torch.equal(ours.take(rows).x, theirs.take(rows).x)
    assert torch.equal(ours.slice(40, 200).x, theirs.slice(40, 200).x)
    few = Source(S, space, RawCondition(label=torch.arange(500)), rows).resident()
    (batch,) = few.batches(10)
    assert torch.equal(batch.x, theirs.take(rows.sort().values).x)
    assert batch.c.label.tolist() == [3, 77, 400]
    assert few.resident() is few


def test_an_error_in_the_reader_comes_up():
    def block(i: int) -> np.ndarray:
        if i == 2:
            raise DataError("the disk is gone: find it")
        return X[EDGES[i] : EDGES[i + 1]].copy()

    source = Source(Streamed(block, EDGES, (6,), X.dtype, memory=MEMORY), infer_space(X))
    with pytest.raises(DataError, match="the disk is gone"):
        list(source.batches(16))


# ------------------------------------------------------------------- what cannot be streamed, and files


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200MB", 200_000_000),
        ("1.5 GiB", 3 << 29),
        ("64 kb", 64_000),
        ("2G", 2 << 30),
        ("7", 7),
        (4096, 4096),
    ],
)
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "many", "-5MB", "3 XB", "1..2MB", 0])
def test_no_bytes(text):
    with pytest.raises(DataError, match="write bytes, or as in"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Items([]), "Items is empty"),
        (iter([]), "empty"),
        (Items([np.zeros(2), np.zeros(3)]), r"item 1 \(from 0\) is float64 of shape \(3,\), and item 0"),
        (iter([np.zeros(2), np.zeros(2, int)]), r"item 1 \(from 0\) is int64"),
        (Items(["a", "b"]), "holds <U1, not numbers"),
        (iter([{"x": 1}]), "holds object, not numbers"),
        (3, "int has neither items nor rows"),
        (np.array(["a"]), "array holds <U1"),
        ("no.csv", "save it as .parquet or .npy"),
    ],
)
def test_what_cannot_be_streamed_is_said_in_one_line(source, message):
    with pytest.raises(DataError, match=message) as e:
        list(stream(source, memory=100))
    assert "\n" not in str(e.value)


def test_labels_come_along():
    pairs = [(x, i % 3) for i, x in enumerate(X)]
    for source in (Items(pairs), iter(pairs)):
        assert np.array_equal(stream(source, memory=MEMORY).labels, np.arange(500) % 3)
    assert stream(Items(list(X))).labels is None


def test_temporary_files_go_with_the_stream(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    S = stream(Once(list(X)), memory=MEMORY)
    view = S[:, :2]
    assert len(list(tmp_path.iterdir())) == 1
    del S
    gc.collect()
    assert np.array_equal(view[:5], X[:5, :2])
    del view
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_columns_of_parquet(parquet):
    gaps = np.where(np.arange(500) % 9 == 0, None, np.arange(500))
    path = parquet(n=gaps.tolist(), word=["a"] * 500, yes=[True, None] * 250)
    S = stream(path, memory=MEMORY)
    assert S.columns == (*(f"c{i}" for i in range(6)), "n", "yes")  # no words
    assert S.dtype == np.float64  # of whole numbers of 64 bits
    assert np.array_equal(np.isnan(S[:][:, 6]), np.arange(500) % 9 == 0)
    assert np.array_equal(S[:][:, 7], [1.0, np.nan] * 250, equal_nan=True)
    assert np.array_equal(stream(path, memory=MEMORY, columns=["c3", "c1"])[:], X[:, [3, 1]])
    lengths = stream(
        path,
        memory=MEMORY,
        columns=["word"],
        encode=lambda frame: frame["word"].str.len().to_numpy()[:, None],
    )
    assert np.array_equal(lengths[:], np.ones((500, 1)))
    with pytest.raises(DataError, match="did you mean"):
        stream(path, columns=["wrd"])
    with pytest.raises(DataError, match="holds string, no numbers"):
        stream(path, columns=["word"])


def test_damaged_parquet(parquet, tmp_path):
    path = parquet()
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"cannot read .*write it again") as e:
        stream(path)
    assert "\n" not in str(e.value)
    path.write_bytes(good[:4] + b"\xff" * 3000 + good[3004:])  # the pages, and not the index at the end
    with pytest.raises(DataError, match=r"cannot read .*write it again") as e:
        stream(path, memory=MEMORY)[:]
    assert "\n" not in str(e.value)
    with pytest.raises(DataError, match="there is no parquet file"):
        stream(tmp_path / "none.parquet")


def test_files_of_a_folder_agree(parquet, tmp_path):
    parquet("two/a.parquet", more=X[:, 0])
    parquet("two/b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has no column 'more'"):
        stream(tmp_path / "two")


def test_a_file_cut_while_it_is_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    S = stream(tmp_path / "x.npy", memory=MEMORY)
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot read row"):
        S[:]


# ------------------------------------------------------------------- estimators


SCALED = X @ np.diag([1, 2, 3, 4, 5, 6]).astype(np.float32)


@pytest.mark.parametrize("recipe", ["vae", "ae"])
def test_a_fit_on_a_stream(recipe):
    S = stream(SCALED, memory=MEMORY)
    model = ct.Autoencoder(recipe=recipe, latent_dim=2, max_epochs=3, random_state=0).fit(S)
    resident = ct.Autoencoder(recipe=recipe, latent_dim=2, max_epochs=3, random_state=0).fit(SCALED)
    assert len(model.validation_rows_) == MEMORY // 8 // 24  # what may stay in memory
    assert model.space_.config() == resident.space_.config()
    for method in (model.transform, model.score_samples, model.predict, model.project):
        assert np.allclose(method(S), method(SCALED), atol=1e-4)
    # Other rows in another order, and yet the same model but for chance: means of 500 rows.
    assert abs(model.score(S) - resident.score(SCALED)) < 1
    again = ct.Autoencoder(recipe=recipe, latent_dim=2, max_epochs=3, random_state=0).fit(S)
    assert np.array_equal(again.transform(S), model.transform(S))


def test_a_stream_with_conditions_and_a_dimension_to_find():
    S, y = stream(SCALED, memory=MEMORY), np.arange(500) % 3
    model = ct.CVAE(max_epochs=1, random_state=0).fit(S, y)
    assert np.allclose(model.transform(S, y), model.transform(SCALED, y), atol=1e-5)


def test_missing_values_of_a_stream():
    gaps = SCALED.copy()
    gaps[7, 3] = np.nan
    S = stream(gaps, memory=MEMORY)
    with pytest.raises(DataError, match="NaN in row 7, column 3"):
        ct.VAE(max_epochs=1).fit(S)
    model = ct.VAE(latent_dim=2, max_epochs=1, missing="mask", random_state=0).fit(S)
    assert np.isfinite(model.transform(S)).all()


def test_a_stream_of_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    data = ct.read(tmp_path / "images.npy", memory="4KB")
    assert is_streamed(data.X)
    assert data.summary == "60 images of 8 × 8 × 3, uint8, from images.npy (read in blocks)"
    model = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(data.X)
    assert np.allclose(model.transform(data.X), model.transform(images), atol=1e-5)


def test_reading_parquet(parquet):
    path = parquet(word=["a", "b"] * 250)
    data = ct.read(path, labels="word")  # it fits
    assert data.X.shape == (500, 6)
    data = ct.read(path, labels="word", memory=MEMORY)
    assert is_streamed(data.X)
    assert data.columns == tuple(f"c{i}" for i in range(6))
    assert data.y.tolist() == ["a", "b"] * 250
    assert data.summary == "500 rows of 6 columns, float32, 2 labels, from big.parquet (read in blocks)"
    assert "without 1 column that hold" in ct.read(path, memory=MEMORY).summary
    assert is_streamed(ct.read(path.parent, memory=MEMORY).X)
    model = ct.CVAE(latent_dim=2, max_epochs=1, random_state=0).fit(data.X, data.y)
    assert model.space_.columns == data.columns
    with pytest.raises(DataError, match="not those of the model"):
        model.transform(stream(path, columns=["c1", "c0", "c2", "c3", "c4", "c5"], memory=MEMORY))


def test_a_dataset_of_torch_is_read():
    data = ct.read(Items([(x, i % 2) for i, x in enumerate(SCALED)]), memory=MEMORY)
    assert is_streamed(data.X)
    assert data.y.tolist() == [0, 1] * 250


def test_the_command_line_fits_a_stream(parquet, tmp_path, capsys):
    from chartae.apps.cli import main

    path, run = parquet(word=["a"] * 500), tmp_path / "run"
    words = ["fit", str(path), "--out", str(run), "--epochs", "1", "--memory", "8KB", "--latent-dim", "2"]
    assert main(words) == 0
    assert "read in blocks" in capsys.readouterr().out
    codes = tmp_path / "codes.npy"
    assert main(["encode", str(run), str(path), "--out", str(codes)]) == 0  # which fits by itself
    model = ct.load(run)
    assert np.allclose(np.load(codes), model.transform(X), atol=1e-4)
    assert main([*words[:-4], "--memory", "much"]) == 2
