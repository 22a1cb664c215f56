"""Data larger than memory: what a stream gives is what the array holds, and a fit on it is the same fit."""

import copy
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import chartae as ct
from chartae.core.arrays import AllBut, blocks, ends, is_streamed, whole
from chartae.core.columns import Schema, is_streamed_table
from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.models.recipes import build
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.sources import Source
from chartae.training.streams import Streamed, parse_bytes, stream

X = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
MEMORY = 8192  # the array has 12,000 bytes
TABLE = 150_000  # of which a table read in blocks takes a 32nd at a time


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


def test_labels_of_a_stream_are_the_condition():
    items = [(x, i % 3) for i, x in enumerate(X)]
    cvae = ct.CVAE(latent_dim=1, hidden=(8,), max_epochs=1).fit(stream(Items(items), memory=MEMORY))
    assert cvae.condition_.classes.tolist() == [0, 1, 2]
    assert cvae.sample(2, condition=1).shape == (2, 6)


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
    table = stream(parquet(), memory=MEMORY)
    return {
        "npy": stream(tmp_path / "c.npy", memory=MEMORY),
        "columns first": stream(tmp_path / "f.npy", memory=MEMORY),
        "parquet": Schema.learn(table).encode(table),
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
        for none in ([], np.zeros(0, int), np.zeros(500, bool), slice(9, 3, 2)):
            assert S[none].shape == (0, 6), name
            assert S[none].dtype == X.dtype, name
        assert np.array_equal(S[17], X[17]), name
        assert np.array_equal(S[:, 2:4][10:90], X[10:90, 2:4]), name
        assert np.array_equal(np.stack(list(S)), X), name
        with pytest.raises(IndexError, match="count from 0"):
            S[[500]]
        with pytest.raises(DataError, match="larger than memory"):
            np.asarray(S)


def counted(memory: int = MEMORY) -> tuple[Streamed, list[int]]:
    """A stream of rows of `X`, and which of them have been read."""
    read: list[int] = []

    def rows(start: int, stop: int, out: np.ndarray) -> None:
        read.extend(range(start, stop))
        out[...] = X[start:stop]

    return Streamed(rows, X.shape, X.dtype, memory=memory), read


def test_each_row_is_read_once_a_call():
    S, read = counted()
    S[np.random.default_rng(0).permutation(500)[:300]]
    assert len(read) == len(set(read)) == 300
    for look in (ends, whole, lambda S: list(blocks(S)), lambda S: list(Source(S, SPACE).batches(7))):
        read.clear()
        look(S)
        assert len(read) == len(set(read))


def test_all_but_a_few():
    few = [0, 3, 4, 499]
    rows, listed = AllBut(500, few), np.delete(np.arange(500), few)
    assert len(rows) == 496
    assert np.array_equal(rows[np.arange(496)], listed)
    assert np.array_equal(rows[:], listed)
    assert np.array_equal(rows.within(3, 9), [5, 6, 7, 8])
    assert np.array_equal(rows.within(490, 900), np.arange(490, 499))
    assert np.array_equal(AllBut(3)[[2, 0]], [2, 0])


def test_what_is_seen_of_a_stream_is_what_is_seen_of_the_array(streams):
    rows = AllBut(500, np.arange(0, 500, 3))
    for S in streams.values():
        assert ends(S) == ends(X)
        assert np.array_equal(np.concatenate(list(blocks(S, rows))), X[rows[:]])
        assert all(len(b) <= S.rows_of_block for b in blocks(S))
        a, b = infer_space(S, rows=rows), infer_space(X, rows=rows[:])
        assert a.config() == b.config()
        assert torch.allclose(a.center, b.center, rtol=1e-12)
        assert torch.allclose(a.scale, b.scale, rtol=1e-12)
    assert whole(stream(np.arange(20.0)[:, None], memory=640))
    assert not whole(stream(np.arange(20.0)[:, None] / 2, memory=640))


# ------------------------------------------------------------------- order, and batches of it

SPACE = infer_space(X)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("memory", [1, 300, 1000, 3000, MEMORY, 20_000, 10**6])
@pytest.mark.parametrize("few", [[], [0, 7, 499], list(range(10, 490))])
def test_an_epoch_takes_every_row_once(memory, few):
    S, _ = counted(memory)
    source = Source(S, SPACE, rows=AllBut(500, few))
    kept = np.delete(np.arange(500), few).tolist()
    for seed in range(3):
        windows = list(source.order(seeded(seed)))
        assert sorted(torch.cat(windows).tolist()) == kept
        assert all(len(w) <= S.rows_of_block * S.blocks_of_window for w in windows)
        assert torch.equal(torch.cat(windows), torch.cat(list(source.order(seeded(seed)))))
        batches = list(source.batches(16, seeded(seed)))
        assert torch.equal(torch.cat([b.index for b in batches]), torch.cat(windows))
    assert torch.cat(list(source.order())).tolist() == kept


def test_epochs_differ_and_windows_fit():
    S, _ = counted()
    source, generator = Source(S, SPACE), seeded(0)
    first, second = (list(source.order(generator)) for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert len(first) > 3
    # Two of them are there at a time, beside rows that are held.
    assert 2 * S.window().nbytes + S.rows_to_hold * 24 < MEMORY


def test_an_array_is_permuted_as_a_whole():
    (order,) = Source(X, SPACE).order(seeded(3))
    assert torch.equal(order, torch.randperm(500, generator=seeded(3)))


def test_rows_are_uniformly_shuffled_within_a_window():
    # Where a row of the only window comes to lie: 4 standard errors around the mean (false alarm: 1 in 400).
    S, generator = stream(X[:40], memory=10**6), seeded(0)
    source = Source(S, SPACE)
    places = torch.stack([torch.cat(list(source.order(generator))).argsort() for _ in range(600)]).double()
    assert float((places.mean(0) - 19.5).abs().max()) < 4 * np.sqrt((40**2 - 1) / 12 / 600)


class SameOrder(Source):
    """Rows of an array in the order of a stream, in one go."""

    def __init__(self, S: Streamed, *rest: object) -> None:
        super().__init__(X, *rest)
        self.streamed_rows = Source(S, *rest)

    def order(self, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        yield torch.cat(list(self.streamed_rows.order(generator)))

    def sample(self, most: int, seed: int) -> Source:
        return self.streamed_rows.sample(most, seed)

    def __len__(self) -> int:
        return len(self.streamed_rows)


@pytest.mark.parametrize("size", [1, 7, 64, 83, 499, 500, 1000])
def test_batches_are_those_of_an_array_in_the_same_order(streams, size):
    c = RawCondition(label=torch.arange(500))
    for name in ("npy", "array"):
        rest = streams[name], SPACE, c, AllBut(500, [0])
        for skip in (0, 1, 5):
            for seed in (None, 0):
                generators = [None if seed is None else seeded(seed) for _ in range(2)]
                both = (Source(*rest), generators[0]), (SameOrder(*rest), generators[1])
                ours, theirs = (list(s.batches(size, g, skip)) for s, g in both)
                assert [len(b) for b in ours] == [len(b) for b in theirs]
                for a, b in zip(ours, theirs, strict=True):
                    assert torch.equal(a.x, b.x)
                    assert torch.equal(a.index, b.index)
                    assert torch.equal(a.c.label, b.c.label)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">f4", "float16", "float64", "bool"])
def test_batches_of_any_type(dtype):
    A = np.random.default_rng(0).integers(0, 2, (100, 3, 2)).astype(dtype)
    space = infer_space(A)
    batches = list(Source(stream(A, memory=200), space).batches(16, seeded(0)))
    rows = torch.cat([b.index for b in batches])
    assert torch.equal(torch.cat([b.x for b in batches]), Source(A, space).take(rows).x)


def test_skipped_batches_are_not_read():
    S, read = counted()
    source = Source(S, SPACE)
    whole = list(source.batches(16, seeded(0)))
    read.clear()
    rest = list(source.batches(16, seeded(0), skip=25))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[25:], rest, strict=True))
    assert len(rest) == 7
    assert len(read) < 200


def test_no_last_batch_of_one_row():
    S, _ = counted()
    source = Source(S, SPACE, rows=AllBut(500, np.arange(33, 500)))
    assert [len(b) for b in source.batches(16, seeded(0))] == [16, 17]
    assert [len(b) for b in source.batches(16)] == [16, 16, 1]


def training(source: Source, **more: object) -> tuple[dict[str, Tensor], list[object]]:
    torch.manual_seed(0)
    plan = build("vae", SPACE, latent_dim=2, hidden=(8,))
    epochs = list(train(plan, source, epochs=3, batch_size=32, **more))
    return plan.model.state_dict(), epochs


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_on_a_stream_gives_the_same_weights_as_on_the_array(streams):
    held, rows = np.arange(0, 500, 12), AllBut(500, np.arange(0, 500, 12))
    rest = streams["npy"], SPACE, None, rows
    states = [
        training(source, validation=Source(X, SPACE, rows=torch.from_numpy(held)))[0]
        for source in (Source(*rest), SameOrder(*rest))
    ]
    assert equal(*states)


@pytest.mark.parametrize("stop", [1, 5, 16, 20])
def test_training_on_a_stream_goes_on_within_an_epoch(stop):
    S, _ = counted()
    whole, _ = training(Source(S, SPACE))
    torch.manual_seed(0)
    plan = build("vae", SPACE, latent_dim=2, hidden=(8,))
    pause = iter([i == stop for i in range(1000)])
    for epoch in train(plan, Source(S, SPACE), epochs=3, batch_size=32, pause=lambda: next(pause)):
        state = copy.deepcopy(epoch.checkpoint())
        if not epoch.complete:
            break
    rest, _ = training(Source(S, SPACE), state=state)
    assert equal(whole, rest)


def test_take_slice_and_a_few_rows():
    S, _ = counted()
    rows = torch.tensor([3, 77, 400])
    ours, theirs = Source(S, SPACE, RawCondition(label=torch.arange(500))), Source(X, SPACE)
    assert torch.equal(ours.take(rows).x, theirs.take(rows).x)
    assert torch.equal(ours.slice(40, 200).x, theirs.slice(40, 200).x)
    few = ours.subset(rows)
    assert not few.streamed
    (batch,) = few.batches(10)
    assert torch.equal(batch.x, theirs.take(rows).x)
    assert batch.c.label.tolist() == [3, 77, 400]
    some = ours.sample(20, seed=0)
    assert len(some) == len(set(next(iter(some.batches(20))).c.label.tolist())) == 20
    assert len(ours.sample(400, seed=0)) == S.rows_to_hold
    assert theirs.sample(500, seed=0) is theirs


def test_an_error_in_the_reader_comes_up():
    def read(start: int, stop: int, out: np.ndarray) -> None:
        if start > 200:
            raise DataError("the disk is gone: find it")

    source = Source(Streamed(read, X.shape, X.dtype, memory=MEMORY), SPACE)
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


class Doubled(Dataset):
    """A wrapper that holds what it wraps under the name that loaders have for it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> object:
        return 2 * self.dataset[i]


def test_a_part_of_a_dataset_stays_a_part():
    whole, rows = Items(list(X)), [7, 3, 400]
    for part in (
        Subset(whole, rows),
        DataLoader(Subset(whole, rows), shuffle=True),
        DataLoader(whole, sampler=SubsetRandomSampler(rows)),
        DataLoader(whole, batch_sampler=BatchSampler(SubsetRandomSampler(rows), 2, drop_last=False)),
        DataLoader(whole, batch_size=None, sampler=SubsetRandomSampler(torch.tensor(rows))),
    ):
        assert np.array_equal(stream(part, memory=MEMORY)[:], X[rows])
        assert np.array_equal(ct.read(part).X, X[rows])
    assert np.array_equal(stream(Doubled(whole))[:3], 2 * X[:3])
    assert np.array_equal(stream(DataLoader(Doubled(whole), shuffle=True))[:3], 2 * X[:3])


def test_a_loader_says_that_its_own_way_to_batches_is_not_taken():
    X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    whole = TensorDataset(torch.from_numpy(X))
    with pytest.warns(UserWarning, match="its collate_fn is not called"):
        found = stream(DataLoader(whole, collate_fn=lambda items: 2 * torch.stack([x for (x,) in items])))
    assert np.array_equal(found[:], X)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("RandomSampler", {"sampler": RandomSampler(X, replacement=True)}),
        ("RandomSampler", {"sampler": RandomSampler(X, num_samples=9)}),
        ("SequentialSampler", {"sampler": torch.utils.data.SequentialSampler(X[:9])}),
        ("WeightedRandomSampler", {"sampler": WeightedRandomSampler([0.5] * 500, 500)}),
        ("list", {"batch_sampler": [[0, 1], [2]]}),
    ],
)
def test_a_loader_of_other_rows_than_its_dataset_has_is_refused(name, sampler):
    with pytest.raises(DataError, match=f"loader's {name} leaves rows out or takes some twice"):
        stream(DataLoader(Items(list(X)), **sampler))


def test_temporary_files_go_with_the_stream(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    S = stream(Once(list(X)), memory=MEMORY)
    view, file = S[:, :2], S.read.__self__.file
    del S
    gc.collect()
    assert np.array_equal(view[:5], X[:5, :2])
    del view
    gc.collect()
    assert file.closed
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_line(monkeypatch):
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(
        DataError, match=r"No space left on device.*point TMPDIR to a disk that holds all rows"
    ):
        stream(iter(X), memory=MEMORY)


# ------------------------------------------------------------------- parquet


def encoded(path: Path, **more: object) -> Streamed:
    table = stream(path, memory=MEMORY, **more)
    return Schema.learn(table).encode(table)


@pytest.mark.parametrize("group", [1, 30, 500])
def test_a_streamed_table_is_the_table(parquet, group):
    rng = np.random.default_rng(0)
    gaps = np.arange(500) % 9 == 0
    table = {
        "word": [*rng.choice(["a", "b", "c"], 499).tolist(), "late"],
        "yes": pd.array(np.where(gaps, None, rng.random(500) < 0.5), dtype="boolean"),
        "n": pd.array(np.where(gaps, None, rng.integers(0, 99, 500)), dtype="Int64"),
        "two": rng.integers(3, 5, 500),
        "day": pd.date_range("2020-01-01", periods=500).as_unit("us"),
        "date": pd.date_range("2020-01-01", periods=500).date,
        "kind": pd.Categorical(rng.choice(["x", "y", "z"], 500)),
    }
    path = parquet(group=group, **table)
    S = stream(path, memory=TABLE)
    assert is_streamed_table(S)
    whole = S.whole()
    assert pd.concat(S.frames()).shape == whole.shape == (500, 13)
    ours, theirs = Schema.learn(S), Schema.learn(whole)
    assert [(c.name, c.kind, c.categories) for c in ours.columns] == [
        (c.name, c.kind, c.categories) for c in theirs.columns
    ]
    assert [c.missing for c in ours.columns] == [c.missing for c in theirs.columns]
    assert [c.dtype for c in ours.columns] == [c.dtype for c in theirs.columns]
    assert [str(whole[name].dtype) for name in ("n", "yes")] == ["Int64", "boolean"]
    assert np.array_equal(ours.encode(S)[:], theirs.encode(whole), equal_nan=True)
    kinds = {"two": "categorical", "c0": "normal"}
    ours, theirs = (Schema.learn(table, kinds, ["normal"]) for table in (S, whole))
    assert [c.kind for c in ours.columns] == [c.kind for c in theirs.columns]
    assert ours.columns[9].categories == (3, 4)


@pytest.mark.parametrize("name", [None, "key"])
def test_names_of_rows_stay_with_them(name, tmp_path):
    table = pd.DataFrame(
        X[:, :3], columns=list("abc"), index=pd.Index([f"id{i}" for i in range(len(X))], name=name)
    )
    table.to_parquet(tmp_path / "a.parquet")
    read = ct.read(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read.X, table)
    labelled = ct.read(tmp_path / "a.parquet", labels="c")
    pd.testing.assert_frame_equal(labelled.X, table[["a", "b"]])
    model = ct.VAE(latent_dim=2, hidden=(4,), max_epochs=1).fit(read)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    pd.testing.assert_index_equal(model.reconstruct(read.X).index, table.index)


def test_hidden_files_of_a_folder_are_no_part_of_a_table(parquet, tmp_path):
    parquet("data/a.parquet")
    parquet("data/b.PARQUET")
    (tmp_path / "data/.ipynb_checkpoints").mkdir()
    for hidden in ("data/.ipynb_checkpoints/a-checkpoint.parquet", "data/.part.parquet"):
        parquet(hidden)
    assert stream(tmp_path / "data").shape == ct.read(tmp_path / "data").X.shape == (1000, 6)


def test_columns_of_parquet(parquet, monkeypatch):
    path = parquet(word=["a"] * 500)
    assert np.array_equal(encoded(path, columns=["c3", "c1"])[:], X[:, [3, 1]])
    with pytest.raises(DataError, match="did you mean"):
        stream(path, columns=["wrd"])
    names = stream(parquet(word=[str(i) for i in range(500)]), memory=TABLE)
    monkeypatch.setattr("chartae.core.columns.seen.MOST_CATEGORIES", 9)
    with pytest.raises(DataError, match=r"\d+ different texts"):
        Schema.learn(names)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.inf, r"column 'more' is infinite in row 321 \(from 0\)"), (None, "column 'more' holds no values")],
)
def test_values_of_parquet_that_no_model_can_use(parquet, value, message):
    more = X[:, 0].tolist() if value else [None] * 500
    more[321] = value
    with pytest.raises(DataError, match=message):
        ct.VAE().fit(stream(parquet(more=more), memory=TABLE))


def test_columns_that_are_no_values(parquet):
    for column, shown in (([[1, 2]] * 500, r"\[1 2\]"), ([b"a"] * 500, "b'a'")):
        with pytest.raises(
            DataError, match=f"column 'more' holds .*{shown}.*neither number nor text nor date"
        ):
            Schema.learn(stream(parquet(more=column), memory=TABLE))


def test_damaged_parquet(parquet, tmp_path):
    path = parquet()
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"cannot read .*write it again") as e:
        stream(path)
    assert "\n" not in str(e.value)
    path.write_bytes(good[:4] + b"\xff" * 3000 + good[3004:])  # the pages, and not the index at the end
    with pytest.raises(DataError, match=r"cannot read .*write it again") as e:
        encoded(path)
    assert "\n" not in str(e.value)
    with pytest.raises(DataError, match="there is no parquet file"):
        stream(tmp_path / "none.parquet")


def test_files_of_a_folder_agree(parquet, tmp_path):
    parquet("two/a.parquet", more=X[:, 0])
    parquet("two/b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has no column 'more'"):
        stream(tmp_path / "two")
    parquet("two/b.parquet", more=["a"] * 500)
    with pytest.raises(DataError, match=r"column 'more' holds string in .*b\.parquet and float in .*alike"):
        stream(tmp_path / "two")


def test_files_that_change_while_they_are_read(parquet, tmp_path):
    table = stream(parquet(), memory=MEMORY)
    schema = Schema.learn(table)
    parquet(rows=slice(100))  # the same file
    with pytest.raises(DataError, match="has changed since it was opened: open it again"):
        schema.encode(table)
    np.save(tmp_path / "x.npy", X)
    S = stream(tmp_path / "x.npy", memory=MEMORY)
    (tmp_path / "x.npy").write_bytes(b"")
    with pytest.raises(DataError, match="has changed since it was opened: open it again"):
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
    assert is_streamed_table(data.X)
    assert data.columns == tuple(f"c{i}" for i in range(6))
    assert data.y.tolist() == ["a", "b"] * 250
    how = "(read in blocks, labels word)"
    assert data.summary == f"500 rows of 6 columns, 2 labels (a, b), from big.parquet {how}"
    assert ct.read(path, memory=MEMORY).columns[-1] == "word"
    assert is_streamed_table(ct.read(path.parent, memory=MEMORY).X)
    with pytest.raises(DataError, match="no column 'wrd': did you mean 'word'"):
        ct.read(path, labels="wrd", memory=MEMORY)
    model = ct.CVAE(latent_dim=2, max_epochs=1, random_state=0).fit(data)
    assert model.space_.columns == data.columns
    other = stream(path, columns=["c1", "c0", "c2", "c3", "c4", "c5"], memory=MEMORY)
    with pytest.raises(ValueError, match="same order"):
        model.transform(other)


def test_a_fit_on_a_streamed_table_is_a_fit_on_a_table(parquet):
    rng = np.random.default_rng(0)
    word = np.where(X[:, 0] > 0, "big", rng.choice(["a", "b"], 500))
    word[-1] = "late"
    more = {"word": word.tolist(), "n": rng.poisson(9, 500), "gap": np.where(X[:, 1] > 1, np.nan, X[:, 1])}
    S = stream(parquet(**more), memory=TABLE)
    frame, settings = S.whole(), {"latent_dim": 2, "max_epochs": 2, "random_state": 0}
    model, resident = (ct.VAE(**settings).fit(data) for data in (S, frame))
    assert model.space_.config() == resident.space_.config()
    assert model.space_.likelihood == "columns"
    for method in (model.transform, model.score_samples, model.predict):
        assert np.array_equal(method(S), method(frame))
    filled = model.reconstruct(S)
    assert filled.equals(model.reconstruct(frame))
    assert not filled.isna().any().any()
    with pytest.raises(DataError, match="fitted on arrays"), pytest.warns(UserWarning, match="names"):
        ct.VAE(**settings).fit(X).transform(S.select(S.columns[:6]))
    with pytest.raises(
        DataError, match=r"column 'gap' of the table has no value in row \d+ \(from 0\): fill"
    ):
        ct.VAE(missing="refuse").fit(S)


@pytest.mark.parametrize("kind", [Items, Once])
def test_a_fit_on_a_dataset_of_torch(kind):
    items = list(SCALED) if kind is Once else [(x, f"label {i % 2}") for i, x in enumerate(SCALED)]
    streamed = ct.read(kind(items), memory=MEMORY)
    assert is_streamed(streamed.X)
    fits = ct.read(kind(items))
    assert np.array_equal(fits.X, SCALED)
    if kind is Items:
        assert streamed.y.tolist() == fits.y.tolist() == ["label 0", "label 1"] * 250
    model = ct.CVAE(latent_dim=2, max_epochs=1, random_state=0).fit(kind(items))
    assert (model.condition_.classes is None) == (kind is Once)
    assert np.allclose(model.transform(DataLoader(kind(items))), model.transform(SCALED), atol=1e-5)
    for data in (streamed, fits):
        ct.CVAE(latent_dim=2, max_epochs=1, random_state=0).fit(data)


def test_the_command_line_fits_a_stream(parquet, tmp_path, capsys):
    from chartae.apps.cli import main

    path, run = parquet(word=["a", "b"] * 250), tmp_path / "run"
    small = ["--memory", "8KB"]
    words = ["fit", str(path), "--out", str(run), "--epochs", "1", "--latent-dim", "2"]
    assert main([*words, *small]) == 0
    assert "read in blocks" in capsys.readouterr().out
    model = ct.load(run)
    assert model.space_.columns[-1] == "word"
    codes = tmp_path / "codes.npy"
    for more in ([], small):
        assert main(["encode", str(run), str(path), "--out", str(codes), *more]) == 0
        assert np.array_equal(np.load(codes), model.transform(pd.read_parquet(path)))
    assert main(["reconstruct", str(run), str(path), *small]) == 2
    assert "as large as the data" in capsys.readouterr().err
    assert main([*words, "--memory", "much"]) == 2
    assert main([*words, "--overwrite", "--recipe", "cvae", "--labels", "word", *small]) == 0
    assert ct.load(run).condition_.classes.tolist() == ["a", "b"]


@pytest.mark.parametrize("other", [np.zeros((500, 12), np.float32), X + 1])
def test_an_array_that_is_written_again_is_noticed(tmp_path, other):
    np.save(tmp_path / "a.npy", X)
    streamed = stream(tmp_path / "a.npy", memory=MEMORY)
    assert np.array_equal(streamed[3:5], X[3:5])
    time.sleep(0.01)  # some file systems tell times apart no better
    np.save(tmp_path / "a.npy", other)
    with pytest.raises(DataError, match="has changed since it was opened"):
        streamed[3:5]
