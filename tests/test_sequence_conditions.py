"""Conditions that are sequences or sets of vectors: what is read in them, and what must not matter."""

import numpy as np
import pandas as pd
import pytest
import torch

import chartae as ct
from chartae.apps.cli import main
from chartae.core.contracts import RawCondition
from chartae.core.errors import DataError
from chartae.estimators.conditions import ConditionSchema
from chartae.parts.conditions import Condition

FIT = {
    "latent_dim": 1,
    "hidden": (64,),
    "batch_size": 128,
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "patience": None,
    "random_state": 0,
}
PLACES, SHAPES = 3, 3


def scenes(n: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Sets of one to three objects, each one vector (place, shape), and items that show a shape at its place.

    An object of shape s at place p writes s + 1 to column p, and the other columns hold 0.
    """
    rng = np.random.default_rng(seed)
    sets, X = [], np.zeros((n, PLACES))
    for row in X:
        at = rng.permutation(PLACES)[: rng.integers(1, PLACES + 1)]
        shape = rng.integers(0, SHAPES, len(at))
        row[at] = shape + 1
        sets.append(np.concatenate([np.eye(PLACES)[at], np.eye(SHAPES)[shape]], 1))
    return sets, X + 0.05 * rng.normal(size=X.shape)


# ------------------------------------------------------------------- the tensor


def made(ordered: bool) -> Condition:
    torch.manual_seed(0)
    return Condition(sequence_dim=3, ordered=ordered).eval()


@pytest.mark.parametrize("ordered", [True, False])
def test_padding_does_not_matter(ordered):
    c, x = made(ordered), torch.randn(4, 5, 3)
    longer = torch.cat([x, torch.full((4, 7, 3), torch.nan)], 1)
    torch.testing.assert_close(
        c(RawCondition(sequence=longer), 4), c(RawCondition(sequence=x), 4), atol=1e-6, rtol=0
    )
    # Beside longer rows as alone.
    short = x.clone()
    short[0, 2:] = torch.nan
    alone = c(RawCondition(sequence=x[:1, :2]), 1)
    torch.testing.assert_close(c(RawCondition(sequence=short), 4)[:1], alone, atol=1e-6, rtol=0)


def test_order_matters_in_a_sequence_and_not_in_a_set():
    x = torch.randn(6, 5, 3)
    turned = x.flip(1)
    for ordered in (True, False):
        c = made(ordered)
        gap = (c(RawCondition(sequence=x), 6) - c(RawCondition(sequence=turned), 6)).abs().amax(1)
        assert (gap > 1e-2).all() if ordered else (gap < 1e-5).all()


def test_a_row_without_vectors_is_no_condition_and_gives_finite_gradients():
    c, x = made(True), torch.randn(3, 4, 3)
    x[1] = torch.nan
    out = c(RawCondition(sequence=x), 3)
    torch.testing.assert_close(out[1:2], c(None, 1), atol=1e-6, rtol=0)
    assert (out[0] - out[1]).abs().max() > 1e-2
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in c.parameters())


def test_dropout_takes_a_whole_sequence_or_nothing():
    c, x = made(True), torch.randn(1, 4, 3).expand(2000, -1, -1)
    null, whole = c(None, 1), c(RawCondition(sequence=x[:1]), 1)
    out = c.train()(RawCondition(sequence=x), 2000)
    lost, kept = ((out - other).abs().amax(1) < 1e-5 for other in (null, whole))
    assert (lost ^ kept).all()
    # Five standard errors of a share of 0.1 of 2000.
    assert lost.float().mean().item() == pytest.approx(0.1, abs=5 * (0.09 / 2000) ** 0.5)


def test_vectors_are_standardized_without_padding():
    c = made(True)
    x = torch.tensor([[[1.0, 5.0, 2.0], [3.0, 9.0, 2.0]], [[2.0, 7.0, 2.0], [torch.nan] * 3]])
    c.standardize(RawCondition(sequence=x))
    assert c.sequence_center.tolist() == [2.0, 7.0, 2.0]
    np.testing.assert_allclose(c.sequence_scale, [(2 / 3) ** 0.5, 2 * (2 / 3) ** 0.5, 1.0])


# ------------------------------------------------------------------- the schema


def test_what_is_a_sequence_what_a_set_and_what_still_a_map():
    ragged = [np.ones((2, 3)), np.zeros((4, 3))]
    assert ConditionSchema.learn(ragged).parameters == {
        "n_labels": 0,
        "vector_dim": 0,
        "sequence_dim": 3,
        "ordered": True,
    }
    unordered = ConditionSchema.learn({"set": ragged})
    assert not unordered.ordered
    assert unordered.describe() == ", conditioned on sets of vectors of 3"
    assert ConditionSchema.learn(np.ones((2, 4, 3))).vector_shape == (4, 3)
    both = ConditionSchema.learn({"label": [0, 1], "sequence": np.ones((2, 4, 3))})
    assert ConditionSchema.from_config(both.config()).parameters == both.parameters
    raw = both.encode({"sequence": ragged}, 2)
    assert raw.label is None
    assert raw.sequence.isnan().any(2).tolist() == [[False, False, True, True], [False] * 4]
    single = ConditionSchema.learn(ragged).encode(np.ones((2, 3)), 5)
    assert single.sequence.shape == (5, 2, 3)


def test_a_list_of_arrays_is_a_sequence_of_any_lengths_and_an_array_is_a_map():
    """What a condition is must not depend on whether lengths happen to be equal."""
    alike = [np.ones((2, 3)), np.zeros((2, 3))]
    for listed in (alike, tuple(alike), [torch.ones(2, 3)] * 2, pd.Series(alike)):
        assert ConditionSchema.learn(listed).describe() == ", conditioned on sequences of vectors of 3"
    unordered = ConditionSchema.learn({"label": ["a", "b"], "set": alike})
    assert unordered.encode(alike, 2).sequence.shape == (2, 2, 3)
    assert unordered.encode(["b", "a"], 2).label.tolist() == [1, 0]
    maps = ConditionSchema.learn(np.stack(alike))
    assert maps.vector_shape == (2, 3)
    assert torch.equal(maps.encode(alike, 2).vector, maps.encode(np.stack(alike), 2).vector)


def test_sequences_are_filled_up_in_float32_and_rows_may_have_none():
    schema = ConditionSchema.learn([np.ones((2, 3)), np.empty((0, 3))])
    raw = schema.encode([np.ones((2, 3)), np.empty((0, 3))], 2)
    assert raw.sequence.dtype == torch.float32
    assert raw.sequence[1].isnan().all()


@pytest.mark.parametrize(
    "condition, message",
    [
        ([np.ones((2, 3)), None], r"row 1 \(from 0\) is empty, or None: write np.empty\(\(0, 3\)\) for no"),
        ({"sequence": [[], np.ones((2, 3))]}, r"row 0 \(from 0\) is empty, or None: write np.empty\(\(0, 3"),
        ({"sequence": [[], []]}, r"write np.empty\(\(0, m\)\)"),
        ([np.ones((2, 3)), np.ones(3)], r"has shape \(3,\) in row 1"),
        ([np.ones((2, 3)), np.full((1, 3), 1e300)], "row 1 .* or too large for float32"),
        ([np.ones((2, 3))] * 3, "3 sequences for 2 rows"),
        ([np.ones((2, 4)), np.ones((1, 4))], "have 4 numbers, and 3 are needed"),
        ([np.ones((2, 3)), np.ones((1, 4))], r"sequence has shape \(1, 4\)"),
        ([np.ones((2, 3)), np.full((1, 3), np.inf)], "row 1 .* is infinite"),
        ({"label": 3}, "conditioned on sequences alone"),
        ({"sequence": np.ones((2, 3)), "set": np.ones((2, 3))}, "give one of them"),
        (3, "give an array"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(condition, message):
    schema = ConditionSchema.learn([np.ones((2, 3)), np.zeros((4, 3))])
    with pytest.raises(DataError, match=message) as caught:
        schema.encode(condition, 2)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def drawn():
    sets, X = scenes(2000)
    return ct.CVAE(**FIT, max_epochs=30).fit(X, {"set": sets})


def test_the_model_draws_what_the_set_says_however_it_is_written(drawn):
    sets, X = scenes(400, seed=1)
    made = drawn.sample(400, {"set": sets}, random_state=0)
    # Columns hold 0 to 3: half a step away is another shape.
    right = (np.abs(made - X.round()) < 0.5).all(1).mean()
    again = drawn.sample(400, {"set": [s[::-1] for s in sets]}, random_state=0)
    np.testing.assert_allclose(again, made, atol=1e-4)
    assert right > 0.95


def test_which_shape_is_where_is_told_though_the_means_are_the_same(drawn):
    """A at 0 and B at 1, or B at 0 and A at 1: the mean of the vectors is the same."""
    place, shape = np.eye(PLACES), np.eye(SHAPES)

    def scene(first: int, second: int) -> np.ndarray:
        pairs = [(place[0], shape[first]), (place[1], shape[second])]
        return np.array([np.concatenate(pair) for pair in pairs])

    np.testing.assert_array_equal(scene(0, 2).mean(0), scene(2, 0).mean(0))
    for first, second in ((0, 2), (2, 0), (1, 2), (2, 1)):
        made = drawn.sample(200, scene(first, second), random_state=0)
        np.testing.assert_allclose(made.mean(0), [first + 1, second + 1, 0], atol=0.3)


def test_translate_guidance_and_report(drawn):
    sets, X = scenes(600, seed=2)
    other, wanted = scenes(600, seed=3)
    moved = drawn.translate(X, sets, to={"set": other})
    assert (np.abs(moved - wanted.round()) < 0.5).all(1).mean() > 0.95
    plain, one = (drawn.sample(20, sets[0], guidance=g, random_state=0) for g in (None, 1.0))
    np.testing.assert_allclose(one, plain, atol=1e-5)
    nothing, none = drawn.sample(20, sets[0], guidance=0.0, random_state=0), drawn.sample(20, random_state=0)
    np.testing.assert_allclose(nothing, none, atol=1e-5)
    kinds = X[:, 0].round().astype(int)
    report = ct.control_report(drawn, X, {"set": sets}, labels=kinds)
    assert report["obeyed"].verdict == "ok", str(report)


@pytest.mark.parametrize("form", [list, lambda sets: pd.Series(sets).to_numpy()], ids=["list", "objects"])
def test_audits_take_conditions_that_are_as_many_sequences_of_other_lengths(drawn, form):
    sets, X = scenes(120, seed=4)
    report = ct.audit(drawn, X, condition=form(sets), only=["reconstruction", "probe"])
    assert report["reconstruction"].verdict == "ok"
    assert "probe" in report.skipped  # sequences are no labels


def test_saved_and_opened_it_says_the_same(drawn, tmp_path):
    drawn.save(tmp_path / "run")
    again = ct.load(tmp_path / "run")
    sets, X = scenes(20, seed=4)
    np.testing.assert_array_equal(
        again.sample(20, sets, random_state=0), drawn.sample(20, sets, random_state=0)
    )
    np.testing.assert_array_equal(again.transform(X, sets), drawn.transform(X, sets))
    assert "sets of vectors of 6" in again.summary_
    np.save(tmp_path / "one.npy", sets[0])
    asked = ["--condition", str(tmp_path / "one.npy"), "--seed", "0", "--out", str(tmp_path / "new.npy")]
    assert main(["sample", str(tmp_path / "run"), "--n", "4", *asked]) == 0
    np.testing.assert_allclose(
        np.load(tmp_path / "new.npy"), drawn.sample(4, sets[0], random_state=0), atol=1e-6
    )


def test_words_are_bound_by_their_order():
    """Two words, "a b" or "b a": the same words, and another item."""
    rng = np.random.default_rng(0)
    words = np.array([rng.permutation(3)[:2] for _ in range(800)])
    X = words + 0.05 * rng.normal(size=words.shape)
    model = ct.CVAE(**FIT, max_epochs=30).fit(X, {"sequence": np.eye(3)[words]})
    for pair in ([0, 1], [1, 0], [2, 0]):
        np.testing.assert_allclose(model.sample(100, np.eye(3)[pair], random_state=0).mean(0), pair, atol=0.2)


def test_vectors_that_may_be_one_sequence_or_many_are_refused():
    schema = ConditionSchema.learn({"set": [np.eye(3)[:1], np.eye(3)]})
    assert schema.encode({"set": np.eye(3)[:2]}, 5).sequence.shape == (5, 2, 3)
    with pytest.raises(DataError, match=r"give \[a\], or a\[:, None\]"):
        schema.encode({"set": np.eye(3)[:2]}, 2)
    with pytest.raises(DataError, match="must be numbers, as many in each"):
        schema.encode({"set": [[[1.0, 2.0, 0.0], [3.0]]]}, 1)


def test_a_column_of_a_table_may_hold_the_sequences():
    rows = pd.Series([np.eye(3)[:1], np.eye(3)], index=[7, 9])
    schema = ConditionSchema.learn({"set": rows})
    assert schema.encode({"set": rows}, 2).sequence.shape == (2, 3, 3)
