"""Codes that keep who is near whom."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.models.recipes import assemble, build
from chartae.parts.objectives import NegLogLik, Neighbors
from chartae.parts.units import infer_space


def changed(x, z, **given) -> torch.Tensor:
    return Neighbors(**given)._changes(torch.as_tensor(x), torch.as_tensor(z)).mean(0)


def points(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def by_the_formula(x: np.ndarray, z: np.ndarray, t: float) -> np.ndarray:
    def shares(a):
        d = [[float(np.square(p - q).sum()) for q in a] for p in a]
        mean = sum(map(sum, d)) / (len(a) * (len(a) - 1))
        kernel = [[math.exp(-v / (2 * t * mean)) for v in row] for row in d]
        for i, row in enumerate(kernel):
            row[i] = 0.0
        return np.array([[v / sum(row) for v in row] for row in kernel])

    p, q = shares(x), shares(z)
    terms = [
        [a * math.log(a / b) for a, b in zip(*rows, strict=True) if a] for rows in zip(p, q, strict=True)
    ]
    return np.array([sum(row) for row in terms])


# ------------------------------------------------------------------- the value


@pytest.mark.parametrize("t", [0.1, 1.0])
def test_it_is_the_divergence_of_who_is_drawn(t):
    x, z = points(7, 5), points(7, 2, seed=1)
    expected = by_the_formula(x, z, t)
    torch.testing.assert_close(changed(x, z[None], temperature=t), torch.from_numpy(expected))
    directions = z / np.linalg.norm(z, axis=1, keepdims=True)
    by_angle = changed(x, z[None], temperature=t, metric="cosine")
    torch.testing.assert_close(by_angle, torch.from_numpy(by_the_formula(x, directions, t)))


def test_of_several_draws_it_is_the_mean():
    x, z = points(6, 3), points(4, 6, 2, seed=1)
    each = torch.stack([changed(x, draw[None]) for draw in z])
    torch.testing.assert_close(changed(x, z), each.mean(0))


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-5, 5), seed=st.integers(0, 99))
def test_neither_scale_nor_place_nor_rotation_nor_order_matter(scale, shift, seed):
    x, z = points(9, 4, seed=seed), points(9, 3, seed=seed + 1)
    rotation, order = np.linalg.qr(points(3, 3, seed=seed))[0], np.random.default_rng(seed).permutation(9)
    value = changed(x, z[None])
    moved = changed((scale * x + shift)[order], (z @ rotation / scale - shift)[None, order])
    torch.testing.assert_close(moved, value[order], rtol=1e-4, atol=1e-6)
    stretched = changed(x, z[None] * np.geomspace(0.1, 10, 9)[:, None], metric="cosine")
    torch.testing.assert_close(stretched, changed(x, z[None], metric="cosine"))


def test_codes_that_are_items_change_nothing_and_others_something():
    x = points(20, 3)
    torch.testing.assert_close(changed(x, x[None]), torch.zeros(20, dtype=torch.float64))
    values = changed(x, points(1, 20, 3, seed=1))
    assert float(values.min()) >= 0  # it is a divergence
    assert float(values.mean()) > 0.5


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_item_and_equal_ones_have_nothing_to_lose(n, metric):
    x, codes = np.ones((n, 3)), torch.zeros(1, n, 2, dtype=torch.float64, requires_grad=True)
    rows = changed(x, codes, metric=metric)
    assert torch.equal(rows, torch.zeros(len(x), dtype=torch.float64))
    rows.sum().backward()
    assert bool(codes.grad.isfinite().all())


# ------------------------------------------------------------------- in a model


def test_codes_that_coincide_have_a_finite_slope():
    z = torch.zeros(1, 5, 2, requires_grad=True)
    Neighbors()._changes(torch.eye(5), z).mean().backward()
    assert z.grad.isfinite().all()


def test_a_table_with_categories_and_gaps_has_neighbors():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"n": rng.normal(size=60), "k": rng.choice(list("abc"), 60)})
    table.loc[::7, "n"] = np.nan
    model = ct.Autoencoder(recipe="neighbor-ae", latent_dim=2, max_epochs=2, random_state=0).fit(table)
    term = model.history_[-1]["neighbors"]
    assert math.isfinite(term)
    assert term > 0


def test_directions_that_tell_neighbors_apart_are_kept_though_others_vary_more():
    # Five places that are far apart, in four dimensions, and in each of them neighbors by two further ones.
    rng = np.random.default_rng(0)
    X = np.hstack([5 * np.eye(5)[rng.integers(5, size=500)] + 0.05 * points(500, 5), points(500, 2, seed=1)])
    X = X @ np.linalg.qr(points(7, 7))[0]
    items, queries = X[:400], X[400:]
    near = NearestNeighbors(n_neighbors=10).fit(items).kneighbors(queries, return_distance=False)
    found = {}
    for recipe in ("ae", "neighbor-ae"):
        model = ct.Autoencoder(
            recipe=recipe,
            latent_dim=4,
            network="linear",
            max_epochs=60,
            learning_rate=1e-2,
            batch_size=100,
            validation_fraction=0,
            random_state=0,
        ).fit(items)
        search = NearestNeighbors(n_neighbors=10).fit(model.transform(items))
        by_codes = search.kneighbors(model.transform(queries), return_distance=False)
        found[recipe] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(near, by_codes, strict=True)])
    assert found["ae"] < 0.35
    assert found["neighbor-ae"] > 0.8


def test_its_weight_goes_with_the_number_of_values():
    assert repr(build("neighbor-ae", (2, 3), lam=0.5).objective) == "nll + 3 * neighbors"


def test_a_plan_has_the_mean_over_rows_and_draws():
    plan = assemble((5,), objective=NegLogLik() + Neighbors(), posterior="normal", latent_dim=3, hidden=(8,))
    x = torch.from_numpy(points(8, 5)).float()
    trace = plan.model.trace(Batch(x), k=2, noise=Noise(0))
    found = plan.objective(trace)["neighbors"].rows
    torch.testing.assert_close(found, changed(x, trace.levels[0].z).mean())


def test_precision_and_place_leave_the_value_as_it_is():
    plan = build("neighbor-ae", (5,), latent_dim=3, hidden=(8,))
    trace = plan.model.trace(Batch(torch.from_numpy(points(8, 5)).float()), k=1, noise=Noise(0))
    value = plan.objective(trace)["neighbors"].rows
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plan.objective(trace)["neighbors"].rows, value)
    far = changed(points(8, 5).astype(np.float32) + 1000, points(1, 8, 3, seed=1))
    torch.testing.assert_close(far, changed(points(8, 5), points(1, 8, 3, seed=1)), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Neighbors(0.0), "temperature=0: use a number above 0"),
        (lambda: Neighbors(metric="cosin"), "did you mean 'cosine'"),
        (
            lambda: build("neighbor-ae", infer_space(np.eye(4, dtype=int), likelihood="categorical")),
            "no distances",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(bad, message):
    with pytest.raises(PlanError, match=message):
        bad()
