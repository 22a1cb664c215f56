"""Conditions: what a model is told, what it was trained to do without, and what cannot be a condition."""

import json
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import chartae as ct
from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.estimators.conditions import ConditionSchema
from chartae.parts.conditions import Condition
from chartae.training.labels import as_labels

# Large batches and a decaying rate: with the defaults the code of the few rows without a condition takes
# hundreds of epochs to shrink to the prior's scale.
FIT = {
    "hidden": (64,),
    "max_epochs": 100,
    "batch_size": 512,
    "learning_rate": 1e-2,
    "schedule": "cosine",
    "patience": None,
    "random_state": 0,
}
N = 20_000


def rows(n: int, label: bool = True, vector: bool = True) -> RawCondition:
    return RawCondition(torch.arange(n) % 3 if label else None, torch.randn(n, 2) if vector else None)


# ------------------------------------------------------------------- the tensor


def test_no_vector_differs_from_every_vector():
    c = Condition(vector_dim=2).eval()
    seen = torch.tensor([[1.0, 5.0], [3.0, 9.0], [2.0, torch.nan]])
    c.standardize(RawCondition(None, seen))
    given = c(RawCondition(None, torch.tensor([[2.0, 7.0], [4.0, 9.0], [2.0, torch.nan]])), 3)
    # (v - mean) / standard deviation, without the row that holds a NaN; the mean is not "no vector".
    assert given.tolist() == [[0.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert torch.equal(c(None, 3), given[2:].expand(3, -1))
    assert c.width == 3


def test_a_constant_column_is_centered_alone():
    c = Condition(vector_dim=2).eval()
    c.standardize(RawCondition(None, torch.tensor([[0.3, -1.0], [0.3, 1.0]]).repeat(900, 1)))
    torch.testing.assert_close(
        c(RawCondition(None, torch.tensor([[0.4, 1.0]])), 1), torch.tensor([[0.1, 1, 0]])
    )


def test_a_part_that_is_left_out_is_the_null_token():
    c = Condition(3, 2).eval()
    raw = rows(6)
    whole, label, vector = c(raw, 6), c(raw._replace(vector=None), 6), c(raw._replace(label=None), 6)
    nothing = c(None, 6)
    assert c.width == whole.shape[1] == 6
    assert torch.equal(whole[:, :3], torch.eye(3).repeat(2, 1))
    assert torch.equal(label, torch.cat([whole[:, :3], nothing[:, 3:]], 1))
    assert torch.equal(vector, torch.cat([nothing[:, :3], whole[:, 3:]], 1))
    assert nothing[0].tolist() == [0, 0, 0, 0, 0, 1]


def test_dropout_leaves_out_all_and_each_part():
    """(1 - p)² of what is not dropped as a whole keeps both parts, (1 - p) p each one alone."""
    torch.manual_seed(0)
    n, p = 100_000, 0.2
    c = Condition(3, 2, dropout=p)(rows(n), n)
    label, vector = c[:, :3].sum(1) == 1, c[:, 5] == 0
    expected = {
        (True, True): (1 - p) ** 3,
        (True, False): (1 - p) ** 2 * p,
        (False, True): (1 - p) ** 2 * p,
        (False, False): p + (1 - p) * p**2,
    }
    for (has_label, has_vector), share in expected.items():
        found = ((label == has_label) & (vector == has_vector)).float().mean().item()
        # Five standard errors of a share.
        assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


@pytest.mark.parametrize("labels", [True, False])
def test_a_single_part_takes_one_random_number_a_row(labels):
    n, p = 50, 0.3
    c = Condition(3, dropout=p) if labels else Condition(vector_dim=2, dropout=p)
    raw = rows(n, label=labels, vector=not labels)
    torch.manual_seed(0)
    dropped = torch.rand(n) < p
    after = torch.get_rng_state()
    torch.manual_seed(0)
    out = c(raw, n)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(out.sum(1) == 0 if labels else out[:, 2] == 1, dropped)
    # Nothing is drawn where nothing is dropped.
    c.eval()(None, n)
    assert torch.equal(torch.get_rng_state(), after)


# ------------------------------------------------------------------- with, without, and with a part


def test_without_a_scalar_the_marginal_with_it_the_conditional():
    """x = (3c, -3c) + noise: p(x) and p(x | c = 0) are normals that are known.

    The mean is the one vector that an absent one must not be mistaken for.
    """
    rng = np.random.default_rng(0)
    c = rng.normal(size=2000)
    X = np.column_stack([3 * c, -3 * c]) + 0.1 * rng.normal(size=(2000, 2))
    m = ct.CVAE(latent_dim=1, **FIT).fit(X, c)

    def drawn(condition: object) -> np.ndarray:
        return m.sample(N, condition, observation_noise=True, random_state=1)

    # A VAE fitted to 200 rows (as many as lose their condition in an epoch) is as far off as this.
    np.testing.assert_allclose(drawn(None).std(0), 3.0, rtol=0.2)
    for at in (-1.0, 0.0, 1.0):
        # The noise of .1, and the error of a network of 64 units and the codes' leak into it.
        np.testing.assert_allclose(drawn(at).mean(0), [3 * at, -3 * at], atol=0.1)
        np.testing.assert_allclose(drawn(at).std(0), 0.1, atol=0.05)
    # Nats a row: the negative entropies of N(0, [[9, -9], [-9, 9]] + .01 I) and of N(., .01 I).
    without = -math.log(2 * math.pi * math.e) - 0.5 * math.log(18.01 * 0.01)
    given = -math.log(2 * math.pi * math.e) - math.log(0.01)
    assert m.score_samples(X, c).mean() == pytest.approx(given, abs=0.2)
    assert m.score_samples(X).mean() == pytest.approx(without, abs=0.4)


def test_half_a_condition_leaves_the_other_half_free():
    """x = (5 onehot(label), 2 vector): a part says nothing of the other, whose marginal is left."""
    rng = np.random.default_rng(0)
    label, vector = rng.integers(0, 3, 2000), rng.normal(size=(2000, 2))
    X = np.column_stack([5 * np.eye(3)[label], 2 * vector]) + 0.1 * rng.normal(size=(2000, 5))
    m = ct.CVAE(latent_dim=3, **FIT | {"max_epochs": 200}).fit(X, {"label": label, "vector": vector})

    def drawn(condition: object) -> tuple[np.ndarray, np.ndarray]:
        made = m.sample(N, condition, observation_noise=True, random_state=1)
        return made[:, :3], made[:, 3:]

    both = {"label": 2, "vector": [2.0, -2.0]}
    for condition in ({"label": 2}, 2, both):
        labels, vectors = drawn(condition)
        np.testing.assert_allclose(labels.mean(0), [0, 0, 5], atol=0.3)
        if condition is not both:
            # 180 rows an epoch have a label alone, 60 of each: as in the test above, and less.
            np.testing.assert_allclose(vectors.std(0), 2.0, rtol=0.3)
    for condition in ({"vector": [2.0, -2.0]}, both):
        labels, vectors = drawn(condition)
        # Codes that fall between the clusters decode to something in between, hence the spread of .1 to .7.
        np.testing.assert_allclose(vectors.mean(0), [4, -4], atol=0.6)
        assert (vectors.std(0) < 1.0).all()
        if condition is not both:
            # The prior falls on three clusters of codes, evenly but for the fit: .11 to .62 over four seeds.
            shares = np.bincount(labels.argmax(1), minlength=3) / N
            assert (shares > 0.05).all()
    # Nats a row, negative entropies: N(., .01) for each of three values that the label gives and two that the
    # vector does, N(0, 4.01) for each of these two without it, log 3 for the label.
    known, free = (-0.5 * math.log(2 * math.pi * math.e * v) for v in (0.01, 4.01))
    for condition, expected, gap in (
        ({"label": label, "vector": vector}, 5 * known, 0.5),
        # .3 to .9 over four seeds; 330 where a part is never dropped alone.
        ({"label": label}, 3 * known + 2 * free, 2.0),
        # 3.3 to 3.8: one normal and a continuous decoder for three clusters; 13 to 22 in the other case.
        ({"vector": vector}, 5 * known - math.log(3), 6.0),
    ):
        assert expected - gap < m.score_samples(X, condition).mean() < expected + 0.1


# ------------------------------------------------------------------- what is a label, what a vector


@pytest.mark.parametrize(
    ("y", "classes", "vector_dim"),
    [
        (np.array([[3], [1]]), [1, 3], 0),
        (np.array([[True], [False]]), [False, True], 0),
        (np.array([["b"], ["a"]]), ["a", "b"], 0),
        ([["b"], ["a"]], ["a", "b"], 0),
        (pd.DataFrame({"kind": ["b", "a"]}), ["a", "b"], 0),
        (torch.tensor([[3], [1]]), [1, 3], 0),
        (pd.Series([3, 1], dtype="Int64"), [1, 3], 0),
        ({"label": [[3], [1]], "vector": [[1], [2]]}, [1, 3], 1),
        (np.array([[3.0], [1.0]]), None, 1),
        (np.array([3.0, np.nan]), None, 1),
        (np.array([[3, 1], [1, 2]]), None, 2),
        (pd.Series([[3, 1], [1, 2]]), None, 2),
        (torch.ones(2, 3, dtype=torch.bfloat16), None, 3),
        (torch.ones(2, requires_grad=True), None, 1),
        ([[1.0, None], [2.0, 3.0]], None, 2),
        (np.array([[True, False], [False, False]]), None, 2),
        (np.zeros((2, 3, 4), np.uint8), None, 12),
        ({"label": [3, 1], "vector": np.zeros((2, 3, 4))}, [1, 3], 12),
    ],
    ids=str,
)
def test_labels_and_vectors(y, classes, vector_dim):
    schema = ConditionSchema.learn(y)
    assert (None if schema.classes is None else schema.classes.tolist()) == classes
    assert schema.vector_dim == vector_dim
    raw = schema.encode(y, 2)
    assert raw.label is None if classes is None else raw.label.tolist() == [1, 0]
    assert raw.vector is None if not vector_dim else raw.vector.shape == (2, vector_dim)
    again = ConditionSchema.from_config(schema.config())
    assert (again.parameters, again.vector_shape) == (schema.parameters, schema.vector_shape)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([None, None], "no row has a label"),
        ({"label": np.full(3, np.nan)}, "no row has a label"),
        (
            {"label": np.array([1.0, np.inf], dtype=object)},
            r"labels hold inf in row 1 \(from 0\), .*: drop such",
        ),
        ([1, "a"], "labels mix types, as in 'a' and 1: make them all strings"),
        (np.array(["a", True], dtype=object), "labels mix types, as in 'a' and True"),
        ([[1.0, 2.0], [3.0]], "rows of the condition differ in length: give each one label, or a vector"),
        (np.array([[1], [2, 3]], dtype=object), "differ in length"),
        ({"vector": [[1.0], [2.0, 3.0]]}, "differ in length"),
        ([{"a": 1}, {"a": 2}], "{'a': 1} cannot be a label: use integers, booleans or strings"),
        ([2**70, 1], f"{2**70} cannot be a label"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), r"datetime64\[D\] cannot be a label"),
        (np.array([1j, 2j]), "complex128 cannot be a label"),
        ({"label": "a"}, r"labels have shape \(\): give one for each row"),
        ({"label": [["a", "b"], ["c", "d"]]}, r"labels have shape \(2, 2\): give one for each row"),
        (1.5, r"condition vectors have shape \(\): give \(n, m\)"),
        (np.zeros((2, 0)), r"condition vectors have shape \(2, 0\)"),
    ],
    ids=str,
)
def test_what_cannot_be_a_condition(y, message):
    with pytest.raises(DataError, match=message) as caught:
        ConditionSchema.learn(y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "asked", "message"),
    [
        ([False, True], "True", "'True' is text, and the known True a boolean: known labels are False, True"),
        (["False", "True"], True, "True is a boolean, and the known True text: known labels are 'False', "),
        ([1, 2], "2", "unknown label '2' is text, and the known 2 an integer: known labels are 1, 2"),
        (["1", "2"], 2, "unknown label 2 is an integer, and the known 2 text"),
        (["1", "2"], [2, 1], "unknown label 2 is an integer"),
        ({"label": [0.5, 1.5]}, "0.5", "unknown label '0.5' is text, and the known 0.5 a float"),
        ([1, 2], True, "unknown label True is a boolean, and the known 1 an integer: known labels are 1, 2"),
        ([0, 1], [False, True], "unknown label False is a boolean, and the known 0 an integer"),
        ([False, True], 1, "unknown label 1 is an integer, and the known True a boolean: known labels are"),
        ([1, 2], 3, "unknown label 3: known labels are 1, 2"),
        ([1, 2], 1.5, "unknown label 1.5: known"),
        (["a", "b"], ["c", None], "unknown label 'c'"),
        (["a", "b"], np.inf, "inf cannot be a label"),
        (["a", "b"], [["a", "b"]], r"labels have shape \(1, 2\)"),
    ],
    ids=str,
)
def test_labels_that_cannot_be_asked_for(y, asked, message):
    with pytest.raises(DataError, match=message):
        ConditionSchema.learn(y).encode(asked, 2)


def test_a_single_vector_or_map_is_meant_for_all_rows():
    maps = np.arange(24.0).reshape(2, 3, 4)
    schema = ConditionSchema.learn(maps)
    assert torch.equal(schema.encode(maps, 2).vector, torch.from_numpy(maps).flatten(1))
    assert torch.equal(schema.encode(maps[1], 2).vector, torch.from_numpy(maps[[1, 1]]).flatten(1))
    assert ConditionSchema.learn(maps[:, 0, 0]).encode(7, 3).vector.tolist() == [[7], [7], [7]]
    for wrong in (7.0, maps[:, 0], np.zeros((3, 3, 4)), np.zeros((2, 12))):
        with pytest.raises(DataError, match=r"and \(2, 3, 4\) is needed"):
            schema.encode(wrong, 2)
    with pytest.raises(DataError, match=r"the condition in row 1 .* is infinite: correct it, or write NaN"):
        schema.encode(np.where(maps == 20, np.inf, maps), 2)


def test_runs_from_before_there_were_maps_know_a_width():
    schema = ConditionSchema.from_config({"classes": None, "vector_dim": 2})
    assert schema.encode([[1.0, 2.0]], 1).vector.tolist() == [[1.0, 2.0]]
    assert ConditionSchema.from_config({"classes": ["a"], "vector_dim": 0}).vector_shape is None


@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e200, 1e308])
def test_vectors_of_any_size(size):
    c = Condition(vector_dim=1).eval()
    given = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64) * size
    c.standardize(RawCondition(None, given))
    root = (3 / 2) ** 0.5
    torch.testing.assert_close(c(RawCondition(None, given), 3)[:, 0], torch.tensor([-root, 0.0, root]))


def test_missing_numbers_are_rows_without_a_condition():
    schema = ConditionSchema.learn({"label": ["a", "b"], "vector": [[1.0, 2.0], [np.nan, 2.0]]})
    raw = schema.encode({"vector": [[1.0, 2.0], [np.nan, 2.0]]}, 2)
    c = Condition(**schema.parameters).eval()
    out = c(raw, 2)
    assert torch.equal(out[1], c(None, 1)[0])
    assert not torch.equal(out[0], out[1])


def test_a_column_of_labels_fits_as_its_values_do():
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.arange(60) % 3
    small = {"latent_dim": 1, "hidden": (8,), "max_epochs": 2, "random_state": 0}
    flat, column = (ct.CVAE(**small).fit(X, labels) for labels in (y, y[:, None]))
    assert np.array_equal(flat.transform(X, y), column.transform(X, y[:, None]))


def test_which_values_are_missing_as_a_condition():
    """x0 = 5 where x1 is missing and -5 where it is not: a pattern that is told decides what is made."""
    rng = np.random.default_rng(0)
    gone = rng.random(400) < 0.5
    X = np.column_stack([np.where(gone, 5.0, -5.0), rng.normal(size=400)]) + 0.1 * rng.normal(size=(400, 2))
    X[gone, 1] = np.nan
    m = ct.CVAE(latent_dim=1, missing="mask", **FIT | {"batch_size": 50}).fit(X, np.isnan(X))
    for pattern, center in (([False, True], 5.0), ([False, False], -5.0)):
        made = m.sample(200, condition=pattern, random_state=0)
        np.testing.assert_allclose(made[:, 0], center, atol=1.0)
    full = m.reconstruct(X, condition=np.isnan(X))
    assert np.isfinite(full).all()
    assert np.array_equal(full[~np.isnan(X)], X[~np.isnan(X)])


@pytest.mark.parametrize("kind", [int, bool])
def test_several_labels_at_once_are_followed_in_a_combination_that_was_not_seen(kind):
    """Each of three labels adds an effect of its own; all three together are for the test."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (900, 3))
    y = y[~y.all(1)]
    effects = np.kron(np.eye(3), np.full(2, 3.0))  # (3, 6)
    X = y @ effects + rng.normal(size=(len(y), 1)) + 0.1 * rng.normal(size=(len(y), 6))
    m = ct.CVAE(latent_dim=1, **FIT | {"max_epochs": 60, "batch_size": 50}).fit(X, y.astype(kind))
    for asked in ([0, 1, 0], [1, 1, 1]):
        made = m.sample(300, condition=np.array(asked, kind), random_state=0)
        np.testing.assert_allclose(made.mean(0), np.array(asked) @ effects, atol=0.5)
    report = ct.control_report(m, X, y)
    assert report["obeyed"].verdict == report["leakage"].verdict == "ok"
    assert "7 classes" in report.facts["judged by"]


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(pd.array([None, 1, 2, 1] * 10, dtype="Int64")),
        pd.Series(pd.array([None, True, False, True] * 10, dtype="boolean")),
        pd.Series([None, 1, 2, 1] * 10, dtype="category"),
        pl.Series([None, 1, 2, 1] * 10),
        pa.array([None, 1, 2, 1] * 10),
        np.ma.array([9, 1, 2, 1] * 10, mask=[1, 0, 0, 0] * 10),
    ],
    ids=lambda y: type(y).__name__,
)
def test_integers_with_gaps_are_labels_that_are_missing_and_no_numbers(y):
    schema = ConditionSchema.learn(y)
    assert schema.vector_shape is None
    codes = schema.encode(y, 40).label
    assert codes[:4].tolist() == [-1, *([0, 1, 0] if schema.classes.dtype.kind == "i" else [1, 0, 1])]


FLOATS = [1.5, None, 2.5]
WHOLE = [1, None, 2]


@pytest.mark.parametrize(
    "c",
    [
        pd.Series(FLOATS, dtype="category"),
        pd.Series(FLOATS, dtype=object),
        pd.DataFrame({"a": FLOATS, "b": 1.0}, dtype="Float64"),
        pd.DataFrame({"a": WHOLE, "b": 1}, dtype="Int64"),
        pa.chunked_array([pa.array(FLOATS).dictionary_encode()]),
        pd.Series([1, None, None], dtype="Float64"),
    ],
)
def test_numbers_to_condition_on_are_the_same_to_a_reader_and_a_model(c):
    y = ct.read(np.zeros((3, 2)), labels=c).y
    schema = ConditionSchema.learn(c)
    assert schema.classes is None
    np.testing.assert_array_equal(y.reshape(3, -1), schema.encode(c, 3).vector)
    assert np.isnan(y).reshape(3, -1).any(1)[1]


@pytest.mark.parametrize(
    "y",
    [
        pd.Series(WHOLE, dtype="category"),
        pd.DataFrame({"a": WHOLE}, dtype="Int64"),
        pl.DataFrame({"a": WHOLE}),
        pa.chunked_array([pa.array(WHOLE).dictionary_encode()]),
    ],
)
def test_whole_numbers_with_gaps_are_labels_that_are_missing_to_both(y):
    found = ct.read(np.zeros((3, 2)), labels=y)
    assert found.y.tolist() == WHOLE
    assert "2 labels (none in 1 row)" in found.summary
    for labels in (y, found.y):
        assert ConditionSchema.learn(labels).encode(labels, 3).label.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    "y",
    [
        ["a", None, "b"],
        ["a", np.nan, "b"],
        [1, None, 2],
        pd.Series([False, None, True], dtype="boolean"),
        pd.Series(["a", None, "b"]),
        {"label": [1.0, np.nan, 2.0]},
    ],
    ids=str,
)
def test_a_missing_label_is_a_row_without_a_condition(y):
    schema = ConditionSchema.learn(y)
    assert schema.encode(y, 3).label.tolist() == [0, -1, 1]
    again = ConditionSchema.from_config(json.loads(json.dumps(schema.config())))
    assert again.encode(y, 3).label.tolist() == [0, -1, 1]


def test_rows_without_a_label_are_fitted_beside_those_with_one():
    """Items of a and b lie at -3 and 3, those without a label at 0."""
    rng = np.random.default_rng(0)
    y = np.array(["a", None, "b"], object)[np.arange(600) % 3]
    X = np.select([y == "a", y == "b"], [-3.0, 3.0], 0.0)[:, None] + 0.1 * rng.normal(size=(600, 4))
    m = ct.CVAE(latent_dim=1, **FIT | {"batch_size": 50, "max_epochs": 60}).fit(X, y)
    for condition, center in (("a", -3.0), ("b", 3.0)):
        made = m.sample(200, condition=condition, random_state=0)
        np.testing.assert_allclose(made.mean(0), center, atol=0.5)
    back = m.reconstruct(X, condition=y)
    assert np.abs(back - X).mean() < 0.5
    assert np.array_equal(m.transform(X[1::3], [None] * 200), m.transform(X[1::3]))
    known = ct.control_report(m, X, y, random_state=0)
    assert known.facts["rows"] == 400


def test_a_column_of_a_table_is_floats_to_condition_on_in_a_category_too():
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "c": pd.Series(FLOATS, dtype="category")})
    np.testing.assert_array_equal(ct.read(frame, labels="c").y, [1.5, np.nan, 2.5])


def test_no_labels_are_no_whole_numbers():
    assert as_labels([]).dtype == np.float64


def test_what_a_mask_hides_is_no_condition():
    hidden = np.ma.array([[0.5, 1.5], [9e9, 2.5]], mask=[[False, False], [True, False]], dtype=np.float32)
    for y, wanted in ((hidden, [[0.5, 1.5], [np.nan, 2.5]]), (hidden[:, 0], [[0.5], [np.nan]])):
        schema = ConditionSchema.learn(y)
        assert schema.classes is None
        np.testing.assert_array_equal(schema.encode(y, 2).vector, wanted)
    schema = ConditionSchema.learn({"sequence": [hidden, hidden]})
    assert schema.encode({"sequence": [hidden, hidden]}, 2).sequence[0, 1].isnan().tolist() == [True, False]
    kept = np.ma.array([3, 1], mask=False)
    assert ConditionSchema.learn(kept).classes.tolist() == [1, 3]


def test_labels_of_64_bits_stay_apart():
    largest = 2**64 - 1
    for y in (np.array([1, largest], np.uint64), [1, largest], np.array([1, largest], object)):
        schema = ConditionSchema.learn(y)
        again = ConditionSchema.from_config(json.loads(json.dumps(schema.config())))
        assert schema.classes.tolist() == again.classes.tolist() == [1, largest]
    near = np.array([2**53, 2**53 + 1], np.uint64)
    again = ConditionSchema.from_config(ConditionSchema.learn(near).config())
    assert again.encode(near, 2).label.tolist() == [0, 1]
    with pytest.raises(DataError, match=f"unknown label {2**53 + 2}"):
        again.encode(np.uint64(2**53 + 2), 1)
    with pytest.raises(DataError, match="unknown label -1"):
        ConditionSchema.learn(np.array([1, largest], np.uint64)).encode(-1, 1)
    with pytest.raises(DataError, match="-1 cannot be a label"):
        ConditionSchema.learn([-1, largest])


# ------------------------------------------------------------------- names, and one for all


@pytest.mark.parametrize("library", [pd, pl])
def test_columns_of_a_table_are_known_by_their_names(library):
    rng = np.random.default_rng(0)
    given = library.DataFrame({"age": rng.normal(40, 9, 50), "dose": rng.normal(size=50)})
    schema = ConditionSchema.learn(given)
    schema = ConditionSchema.from_config(json.loads(json.dumps(schema.config())))
    wanted = schema.encode(given, 50).vector
    for part in (given[["dose", "age"]], given[["dose", "age"]].to_numpy()[:, ::-1]):
        torch.testing.assert_close(schema.encode(part, 50).vector, wanted)
    torch.testing.assert_close(schema.encode({"vector": given[["dose", "age"]]}, 50).vector, wanted)
    other = library.DataFrame({"age": given["age"], "weight": given["dose"]})
    with pytest.raises(DataError, match="has columns age, weight, and the model was fitted with age, dose"):
        schema.encode(other, 50)


@pytest.mark.parametrize(
    ("y", "one"),
    [
        (np.arange(6) % 3, [2]),
        (np.ones((6, 2)) * np.arange(6)[:, None], [[1.0, 2.0]]),
        ([np.ones((2, 3))] * 6, [np.ones((4, 3))]),
        ([np.ones((2, 3))] * 6, np.ones((1, 4, 3))),
        ([np.ones((2, 3))] * 6, np.empty((0, 3))),
    ],
)
def test_one_row_of_a_condition_stands_for_all_but_not_in_a_fit(y, one):
    schema = ConditionSchema.learn(y)
    found = schema.encode(one, 4)
    part = next(p for p in (found.label, found.vector, found.sequence) if p is not None)
    assert len(part) == 4
    torch.testing.assert_close(part, part[:1].expand_as(part), equal_nan=True)
    if len(one):
        with pytest.raises(DataError, match="there is one condition for 4 rows: give one for each"):
            schema.encode(one, 4, single=False)


@pytest.mark.parametrize("y", [np.full(5, np.nan), np.full((5, 2), np.nan), [np.empty((0, 4))] * 5])
def test_a_condition_that_no_row_has_is_refused(y):
    with pytest.raises(DataError, match="no row has a"):
        ConditionSchema.learn(y)
