"""Directions: walks that go where they should, planted attributes found, and attributes of nothing not."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import chartae as ct
from chartae.core.errors import DataError, PlanError
from chartae.geometry import directions, traverse
from chartae.geometry.steering import _auc, _rank_correlation

same = (lambda x: x, lambda z: z)


def angle(v: np.ndarray, w: np.ndarray) -> float:
    w = np.asarray(w, dtype=float)
    return math.degrees(math.acos(np.clip(v @ w / np.linalg.norm(v) / np.linalg.norm(w), -1, 1)))


def test_a_direction_is_shown_in_a_line():
    Z = np.random.default_rng(0).normal(size=(400, 3))
    number, label = directions(same, Z, Z[:, 0])[0], directions(same, Z, np.where(Z[:, 1] > 0, "b", "a"))[0]
    for found, begins in ((number, "Direction(correlation="), (label, "Direction('b', auc=")):
        assert repr(found).startswith(begins)
        assert repr(found).endswith("), d=3)")
        assert len(repr(found)) < 80


# --- walks


def test_axes_vectors_and_their_unit():
    walk = traverse(same, [[1.0, 2.0], [0.0, 0.0]], 1, extent=2, steps=5)
    assert walk.codes.shape == walk.items.shape == (2, 5, 2)
    assert walk.offsets.tolist() == [-2, -1, 0, 1, 2]
    assert walk.codes[0].tolist() == [[1, 0], [1, 1], [1, 2], [1, 3], [1, 4]]
    assert np.array_equal(walk.codes, walk.items)
    assert traverse(same, [0.0, 0.0], [3.0, 4.0], extent=5, steps=2).codes[0] == pytest.approx(
        np.array([[-3, -4], [3, 4]])
    )
    assert traverse(same, [0.0, 0.0], -1, steps=1).codes.tolist() == [[[0, 0]]]


def test_standard_deviations_of_the_codes():
    codes = np.random.default_rng(0).normal(size=(1000, 2)) * [1, 5]
    walk = traverse(same, [0.0, 0.0], [0, 1], extent=2, steps=2, codes=codes)
    assert walk.codes[0, 1] == pytest.approx([0, 2 * codes[:, 1].std()])


def test_principal_axes_of_the_metric():
    """Of a decoder whose metric changes from place to place: the longest axis at each start."""
    decode = lambda z: torch.stack([z[:, 0] * (1 + 10 * (z[:, 0] > 0)), z[:, 1] * 3], 1)  # noqa: E731
    walk = traverse((same[0], decode), [[-1.0, 0.0], [1.0, 0.0]], "principal", extent=1, steps=3)
    assert walk.direction == pytest.approx(np.array([[0, 1], [1, 0]]))
    second = traverse((same[0], decode), [[-1.0, 0.0]], "principal", which=1, steps=3)
    assert second.direction == pytest.approx(np.array([[1, 0]]))


@pytest.mark.parametrize(
    ("direction", "change"),
    [
        (2, {}),
        ("steepest", {}),
        ("principal", {"which": 2}),
        ([1.0], {}),
        ([0.0, 0.0], {}),
        ([math.nan, 1.0], {}),
        (0, {"steps": 0}),
        (0, {"extent": -1}),
        (0, {"steps": 2.5}),
        (0, {"extent": math.inf}),
        (0, {"codes": np.zeros((5, 3))}),
        (0, {"codes": np.full((5, 2), math.nan)}),
    ],
)
def test_what_is_no_walk_is_refused(direction, change):
    with pytest.raises(PlanError) as caught:
        traverse(same, [0.0, 0.0], direction, **change)
    assert "\n" not in str(caught.value)


def test_a_fitted_estimator_with_a_condition():
    X = np.random.default_rng(0).uniform(size=(60, 6))
    y = np.arange(60) % 3
    model = ct.CVAE(latent_dim=2, max_epochs=1, random_state=0).fit(X, y)
    assert traverse(model, np.zeros((2, 2)), "principal", condition=1, steps=3).items.shape == (2, 3, 6)
    Z = model.transform(X, condition=y)
    assert len(directions(model, Z, y, condition=y)) == 3


# --- attributes


@settings(max_examples=15)
@given(st.integers(2, 12), st.integers(0, 1000), st.booleans())
def test_a_planted_direction_is_found(d, seed, labels):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d)
    Z = rng.normal(size=(2000, d))
    a = Z @ truth / np.linalg.norm(truth) + 0.3 * rng.normal(size=2000)
    (found,) = directions(same, Z, a > 0 if labels else a)
    assert angle(found.vector, truth) < 12
    assert np.linalg.norm(found.vector) == pytest.approx(1)
    assert found.found
    assert found.effect > 0.9
    assert found.interval[0] < found.effect < found.interval[1]
    assert found.agreement > 0.9
    assert found.kind == ("auc" if labels else "correlation")
    assert found.speed == pytest.approx(np.ones(len(found.rows)), abs=1e-4)


def test_the_direction_is_a_gradient_though_codes_are_correlated():
    """The attribute is the first axis alone, with which the second correlates."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(3000, 2)) @ [[1.0, 0.9], [0.0, 0.5]]
    (found,) = directions(same, Z, Z[:, 0] + 0.1 * rng.normal(size=3000))
    assert angle(found.vector, [1, 0]) < 5


def test_attributes_of_nothing_are_not_found():
    """95 % intervals: of 200 a share of 2.5 % lies above by chance, and more than 13 once in 1,000 runs."""
    false = 0
    agreement = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        Z = rng.normal(size=(300, 3))
        for a in (rng.normal(size=300), rng.integers(0, 2, 300)):
            (found,) = directions(same, Z, a, max_rows=50)
            false += found.found
            agreement.append(found.agreement)
    assert false <= 13
    assert np.mean(agreement) == pytest.approx(0.5, abs=0.06)


def test_the_intervals_cover():
    """Two normals a shift apart, and a correlation that is known: 90 % of 200 at the least."""
    from scipy.stats import norm

    covered = np.zeros(2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a = np.repeat([0.0, 1.0], [100, 60])
        low, high = _auc(rng.normal(size=160) + a, a)[1]
        covered[0] += low <= norm.cdf(1 / math.sqrt(2)) <= high
        x = rng.normal(size=160)
        low, high = _rank_correlation(x, 0.6 * x + 0.8 * rng.normal(size=160))[1]
        covered[1] += low <= 6 / math.pi * math.asin(0.3) <= high
    assert (covered >= 180).all()


def test_a_direction_that_turns_is_seen_where_it_turns():
    """The attribute rises outward on both sides, more on one: an effect on the whole, not on the other."""
    rng = np.random.default_rng(0)
    Z = np.column_stack([rng.uniform(-1, 2, 4000), rng.normal(size=4000)])
    (found,) = directions(same, Z, np.abs(Z[:, 0]) + 0.05 * rng.normal(size=4000))
    assert found.found
    at = Z[found.rows, 0]
    assert (found.slope[at > 0.3] > 2).mean() > 0.95
    assert (found.slope[at < -0.3] < -2).mean() > 0.95
    assert 0.55 < found.agreement < 0.8


def test_every_label_against_the_others():
    centers = np.array([[0, 3], [3, 0], [-3, -3]])
    y = np.random.default_rng(0).integers(0, 3, 900)
    Z = centers[y] + np.random.default_rng(1).normal(size=(900, 2))
    found = directions(same, Z, np.array(["up", "right", "down"])[y])
    assert [each.name for each in found] == ["down", "right", "up"]
    assert min(each.effect for each in found) > 0.9
    assert angle(found[0].vector, [-1, -1]) < 10
    # Far from the border all labels are the same, and no slope is told.
    assert np.isnan(found[0].slope).any()
    for held in (y.astype(object), pd.Series(y, dtype="Int64"), pd.Series(y, dtype="category")):
        numbered = directions(same, Z, held)
        assert [each.name for each in numbered] == [0, 1, 2]
        assert numbered[2].effect == found[0].effect


def test_axes_of_the_code_that_collapsed_do_not_matter():
    rng = np.random.default_rng(0)
    Z = np.column_stack([rng.normal(size=(500, 2)), np.full(500, 3.0)])
    (found,) = directions(same, Z, Z[:, 1] > 0)
    assert angle(found.vector, [0, 1, 0]) < 8
    assert np.isfinite(found.agreement)


def test_neighborhoods_may_be_taken_a_few_at_a_time(monkeypatch):
    Z = np.random.default_rng(0).normal(size=(300, 3))
    same = (lambda x: x, lambda z: z)
    (whole,) = directions(same, Z, Z[:, 0] ** 2)
    monkeypatch.setattr("chartae.geometry.steering.VALUES", 1000)
    (few,) = directions(same, Z, Z[:, 0] ** 2)
    np.testing.assert_allclose(few.slope, whole.slope, rtol=1e-9)


def test_steps_are_decoded_to_numbers_as_large_as_the_data():
    """A day of 1.7e9 seconds takes all digits of float32."""
    X = 1.7e9 + np.random.default_rng(0).normal(size=(200, 3))
    vae = ct.AE(latent_dim=1, max_epochs=20, random_state=0).fit(X)
    walk = vae.traverse(vae.transform(X[:1])[0], 0, steps=3)
    assert np.ptp(walk.items) > 0.1
    np.testing.assert_allclose(walk.items[0], vae.inverse_transform(walk.codes[0]), rtol=0, atol=1e-5)


def test_speed_is_that_of_the_decoder():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(200, 2))
    (found,) = directions((same[0], lambda z: z * torch.tensor([4.0, 1.0])), Z, Z[:, 0])
    assert found.speed == pytest.approx(np.full(100, 4), rel=0.01)


def test_a_perfect_separation_has_an_interval():
    score, a = np.arange(40.0), np.repeat([0.0, 1.0], 20)
    effect, (low, high) = _auc(score, a)
    assert (effect, high) == (1, 1)
    assert low == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("Z", "a", "message"),
    [
        (np.zeros((50, 2)), np.arange(50.0), "collapsed"),
        (np.eye(50), np.ones(50), "the same in all rows"),
        (np.eye(50), np.arange(49.0), "do not fit"),
        (np.eye(50)[:, :2], np.r_[1, np.zeros(49, dtype=int)], "too few rows"),
        (np.eye(50)[:, :2], np.arange(50), "label 0 has too few rows: .* numbers and no labels, floats"),
        (np.full((50, 2), np.nan), np.arange(50.0), "not finite"),
        (
            np.eye(50),
            np.array(["a", "b", None, "a", "b"] * 10),
            r"missing in row 2 \(from 0\): leave such rows",
        ),
        (np.eye(50), np.ma.array(np.arange(50) % 2, mask=np.arange(50) == 7), "missing in row 7"),
        (np.eye(50), np.full(50, np.nan), "not finite"),
        (np.eye(5), np.arange(5.0), "too few to fit"),
    ],
)
def test_what_has_no_direction_is_refused(Z, a, message):
    with pytest.raises(DataError, match=message):
        directions(same, Z, a)


@pytest.mark.parametrize("given", [{"max_rows": 0}, {"n_neighbors": 20.5}, {"max_rows": None}])
def test_numbers_of_rows_are_whole(given):
    (name, value), *_ = given.items()
    with pytest.raises(PlanError, match=f"{name}={value}: give a positive whole number"):
        directions(same, np.random.default_rng(0).normal(size=(50, 2)), np.arange(50.0), **given)


@pytest.mark.parametrize("seed", range(40))
def test_ten_rows_of_a_label_are_enough(seed):
    """Half of them fit, and half tell: by chance alone, one half in some thirty has fewer than three."""
    Z = np.random.default_rng(seed).normal(size=(300, 2))
    rare = np.repeat(["a", "b", "c"], [10, 145, 145])
    assert len(directions(same, Z, rare, random_state=seed)) == 3
