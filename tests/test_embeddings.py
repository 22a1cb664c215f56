"""Items as distributions: comparisons against mathematics, and embeddings against planted noise."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import chartae as ct
from chartae.core.contracts import Batch, Plan
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.estimators.embeddings import _odds
from chartae.models.recipes import build
from chartae.parts.objectives import Match, Matches, fit_match
from chartae.training.kernels import Gradients
from chartae.transfer import (
    bhattacharyya,
    calibration_error,
    compare,
    containment,
    expected_likelihood,
    most_alike,
    recall_at,
    risk_coverage,
    vendi_score,
    votes,
    votes_of_draws,
)

QUICK = {"hidden": (32,), "max_epochs": 20, "learning_rate": 5e-3, "patience": None, "random_state": 0}


# ------------------------------------------------------------- comparisons


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda: bhattacharyya([[0.0]], [[-1.0]], [[0.0]], [[1.0]]), "deviation is negative"),
        (lambda: bhattacharyya([[0.0]], [[1.0]], [[0.0, 1.0]], [[1.0]]), "give .n, d. and .m, d. of each"),
        (lambda: votes([[0.1, 0.2]], ["a", "b"], k=0), "k=0: look at one item"),
        (lambda: votes([[math.nan, 0.2]], ["a", "b"], k=1), "write minus infinity"),
        (lambda: risk_coverage([0.1, math.nan], [0, 1]), "leave such items out"),
        (lambda: risk_coverage([0.1, 0.2], [0, 1, 0]), "give .n,. of both"),
        (lambda: risk_coverage([], []), "give .n,. of both"),
        (lambda: vendi_score(np.eye(3), width=0.0), "width=0.0: use a distance above 0"),
        (lambda: vendi_score([1.0, 2.0]), "codes have shape .2,.: give .n, d., one item or more"),
        (lambda: vendi_score(np.empty((0, 3))), "codes have shape .0, 3.: give"),
        (lambda: vendi_score([[1.0, math.nan]]), "codes are not finite in places"),
        (lambda: recall_at([], [], []), "no query, or no item to find: give one or more of each"),
        (lambda: calibration_error([[5.0, 0.5]], [0]), "not all from 0 to 1"),
        (lambda: calibration_error([[0.5, 0.5]], [5]), "numbers of a class"),
        (lambda: calibration_error([0.5, 0.5], [0]), "give .n, m., .n,."),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(ask, message):
    with pytest.raises((DataError, PlanError), match=message):
        ask()


@given(st.integers(0, 1000), st.integers(1, 3))
def test_comparisons_are_the_integrals_they_are_named_after(seed, d):
    rng = np.random.default_rng(seed)
    (m, n), (s, t) = rng.normal(size=(2, 1, d)), np.exp(0.5 * rng.normal(size=(2, 1, d)))
    x = np.linspace(-30, 30, 20_001)
    both = [(norm.pdf(x, m[0, i], s[0, i]), norm.pdf(x, n[0, i], t[0, i])) for i in range(d)]
    product = [np.trapezoid(p * q, x) for p, q in both]
    root = [np.trapezoid(np.sqrt(p * q), x) for p, q in both]
    np.testing.assert_allclose(expected_likelihood(m, s, n, t)[0, 0], np.log(product).sum(), rtol=1e-6)
    np.testing.assert_allclose(bhattacharyya(m, s, n, t)[0, 0], np.log(root).sum(), rtol=1e-6, atol=1e-9)


def test_comparisons_are_symmetric_and_equal_ones_are_closest():
    rng = np.random.default_rng(0)
    m, s = rng.normal(size=(6, 3)), np.exp(rng.normal(size=(6, 3)))
    for by in (expected_likelihood, bhattacharyya):
        np.testing.assert_allclose(by(m, s, m, s), by(m, s, m, s).T)
    own = bhattacharyya(m, s, m, s)
    np.testing.assert_allclose(np.diag(own), 0, atol=1e-12)
    assert (own <= 1e-12).all()
    points = bhattacharyya(m, 0 * s, m, 0 * s)
    assert np.isfinite(points).all()
    assert (points.argmax(1) == np.arange(6)).all()


@pytest.mark.parametrize(("groups", "size"), [(1, 5), (4, 3), (7, 1)])
def test_the_vendi_score_counts_kinds(groups, size):
    assert vendi_score(np.repeat(np.eye(10)[:groups], size, axis=0)) == pytest.approx(groups)
    wide = np.repeat(np.eye(100)[:groups], size, axis=0)  # more dimensions than items
    assert vendi_score(wide) == pytest.approx(groups)
    both = np.vstack([wide, np.zeros((size, 100))])  # which have no direction, and are a kind of their own
    assert vendi_score(both) == pytest.approx(groups + 1)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 100))
def test_risk_and_coverage(wrong, seed):
    u = np.random.default_rng(seed).integers(0, 4, len(wrong))
    found = risk_coverage(u, wrong)
    assert found.risk[-1] == pytest.approx(np.mean(wrong))
    assert found.coverage[-1] == 1
    assert found.excess >= -1e-12
    assert risk_coverage(wrong, wrong).excess == pytest.approx(0)
    assert risk_coverage(np.zeros(len(wrong)), wrong).area == pytest.approx(np.mean(wrong))
    order = np.random.default_rng(seed).permutation(len(wrong))  # equal ones have no order
    assert risk_coverage(u[order], np.array(wrong)[order]).area == pytest.approx(found.area)


@given(st.integers(0, 1000), st.integers(1, 12))
def test_votes_are_those_of_nearest_neighbors(seed, k):
    rng = np.random.default_rng(seed)
    X, T, y = rng.normal(size=(12, 2)), rng.normal(size=(7, 2)), np.append([0, 1, 2], rng.integers(0, 3, 9))
    gaps = np.linalg.norm(T[:, None] - X, axis=2)
    shares = KNeighborsClassifier(k).fit(X, y).predict_proba(T)
    np.testing.assert_allclose(votes(-gaps, y, k), shares)
    assert recall_at(-gaps, y[:7], y, k) == (votes(-gaps, y, k)[np.arange(7), y[:7]] > 0).mean()


def test_who_is_left_out_has_no_vote():
    similarity = np.array([[-np.inf, 0.5, 0.2], [-np.inf, -np.inf, -np.inf]])
    assert votes(similarity, ["a", "b", "a"], 3).tolist() == [[0.5, 0.5], [0, 0]]
    assert votes(similarity, ["a", "b", "a"], 1).tolist() == [[0, 1], [0, 0]]


@given(st.integers(0, 1000), st.integers(1, 12))
def test_votes_of_points_are_those_of_their_distances(seed, k):
    rng = np.random.default_rng(seed)
    X, T, y = rng.normal(size=(12, 2)), rng.normal(size=(7, 2)), rng.integers(0, 3, 12)
    gaps = np.linalg.norm(T[:, None] - X, axis=2)
    np.testing.assert_allclose(votes_of_draws(np.stack([T] * 3), y, X[None], k), votes(-gaps, y, k))
    among = np.linalg.norm(X[:, None] - X, axis=2)
    np.fill_diagonal(among, np.inf)
    np.testing.assert_allclose(votes_of_draws(X[None], y, X[None], k, same=True), votes(-among, y, k))


def test_votes_of_draws_are_the_probability_of_being_on_a_side():
    """A query N(m, 1) between items at -1 and 1 is nearer to the right one with probability Φ(m)."""
    draws = np.random.default_rng(0).normal([[-1.0], [0.0], [0.5]], 1, (4000, 3, 1))
    shares = votes_of_draws(draws, ["left", "right"], [[[-1.0], [1.0]]], k=1)
    np.testing.assert_allclose(shares[:, 1], norm.cdf([-1.0, 0.0, 0.5]), atol=4 * 0.5 / 4000**0.5)
    # Midway between items that lie at 5 ± 1 on either side, neither is the likelier.
    both = np.random.default_rng(1).normal([[-5.0], [5.0]], 1, (40, 2, 1))
    assert votes_of_draws(draws[:40, 1:2], ["left", "right"], both, k=1)[0, 1] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, None],
        [0.0, 1.0, np.nan],
        pd.Series([0, 1, None]),
        pd.Series([0, 1, None], dtype="Int64"),
        pd.Series([0, 1, None], dtype="category"),
        np.ma.array([0, 1, 7], mask=[False, False, True]),
        ["a", "b", np.nan],
        np.array(["a", "b", -1], object),
    ],
    ids=str,
)
def test_what_has_no_label_neither_votes_nor_is_found(labels):
    assert votes([[0.9, 0.8, 0.7]], labels, k=3).tolist() == [[0.5, 0.5]]
    assert votes_of_draws([[[0.0]]], labels, [[[0.0], [1.0], [2.0]]], k=3).tolist() == [[0.5, 0.5]]
    assert recall_at(np.eye(3), labels, labels) == 1.0


def test_points_rank_by_their_distance_however_far():
    none, there = [[0.0]], [[1.0], [6.0], [100.0]]
    for by in (bhattacharyya, expected_likelihood, containment):
        alike = by(none, none, there, [[0.0]] * 3)[0]
        assert np.isfinite(alike).all()
        assert (np.diff(alike) < 0).all()


def test_where_codes_lie_does_not_matter():
    codes = np.random.default_rng(0).normal(size=(50, 2))
    assert vendi_score(codes + 1e8, width=0.5) == pytest.approx(vendi_score(codes, width=0.5), rel=1e-5)
    far = compare("distance", codes + 1e8, codes, codes + 1e8, codes)
    np.testing.assert_allclose(far, compare("distance", codes, codes, codes, codes), atol=1e-6)


@pytest.mark.parametrize("by", ["cosine", "distance", "bhattacharyya", "containment", "expected likelihood"])
def test_what_cannot_be_compared_is_refused(by):
    one, other = np.ones((2, 3)), np.ones((2, 4))
    with pytest.raises(DataError, match=r"have shapes \(2, 3\), .*: give \(n, d\) and \(m, d\)"):
        compare(by, one, one, other, other)
    with pytest.raises(DataError, match="not finite in places: leave such items out"):
        compare(by, one, one, np.nan * one, one)


def test_votes_need_a_label_of_each_item_and_a_vote():
    with pytest.raises(DataError, match="2 labels of 3 items"):
        votes_of_draws(np.zeros((1, 3, 2)), [0, 1], np.zeros((1, 3, 2)))
    with pytest.raises(DataError, match="2 items, and 3 queries"):
        votes_of_draws(np.zeros((1, 3, 2)), [0, 1], np.zeros((1, 2, 2)), same=True)
    with pytest.raises(PlanError, match="let one item vote"):
        votes_of_draws(np.zeros((1, 2, 2)), [0, 1], np.zeros((1, 2, 2)), k=0)
    for k in (2.5, np.nan, None, "a"):
        with pytest.raises(PlanError, match=f"^k={k!r}: let one item vote"):
            votes_of_draws(np.zeros((1, 2, 2)), [0, 1], np.zeros((1, 2, 2)), k=k)
        with pytest.raises(PlanError, match=f"^k={k!r}: look at one item"):
            votes(np.zeros((1, 2)), [0, 1], k=k)
    for draws, said in (
        (np.zeros((3, 2)), "give \\(draws, n, d\\)"),
        (np.zeros((1, 1, 3)), "draws have 3 dimensions, and those of items 2"),
        (np.full((1, 1, 2), np.nan), "not finite"),
    ):
        with pytest.raises(DataError, match=said):
            votes_of_draws(draws, [0], np.zeros((1, 1, 2)))


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equal_ones_share_the_last_places(k):
    """The mean over many orders of those that are equal, by noise that is smaller than all differences."""
    rng = np.random.default_rng(k)
    similarity = rng.integers(0, 4, (30, 20)).astype(float)
    similarity[rng.random(similarity.shape) < 0.2] = -np.inf
    labels, asked = rng.integers(0, 3, 20), rng.integers(0, 3, 30)
    similarity[0] = -np.inf
    orders = [similarity + 1e-6 * rng.random(similarity.shape) for _ in range(2000)]
    recalls = np.array([recall_at(order, asked, labels, k) for order in orders])
    assert recall_at(similarity, asked, labels, k) == pytest.approx(recalls.mean(), abs=3e-3)
    shares = np.mean([votes(order, labels, k) for order in orders], axis=0)
    np.testing.assert_allclose(votes(similarity, labels, k), shares, atol=5 * 0.5 / 2000**0.5)
    best = most_alike(similarity, k)
    np.testing.assert_array_equal(best, np.argsort(-similarity, axis=1, kind="stable")[:, :k])


def test_directions_are_compared_by_where_their_draws_lie():
    """Of nearly uniform posteriors on a sphere the coefficient is near 1: their means are near its center."""
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    sphere = ct.Autoencoder(recipe="svae", latent_dim=8, **QUICK | {"max_epochs": 1})
    embedding = ct.ProbabilisticEmbedding(sphere, method="reconstruction", random_state=0).fit(X)
    q = embedding.encoder_.model_.q(embedding.encoder_.space_.to_model(torch.from_numpy(X[:2])))
    # ∫ √(p q) of von Mises-Fisher densities, by draws of p.
    draws = q.draw(20_000, Noise(0)).z[:, :1].detach()
    log_p, log_q = q.log_prob(draws.expand(-1, 2, -1)).detach().T
    wanted = (0.5 * (log_q - log_p)).exp().mean().log().item()
    assert embedding.similarity(X[:1], X[1:2]).item() == pytest.approx(wanted, abs=0.02)


def test_recall_looks_at_the_nearest():
    similarity = np.array([[0.9, 0.8, 0.1], [0.2, 0.9, 0.8]])
    assert recall_at(similarity, [1, 0], [0, 1, 0], k=1) == 0.0
    assert recall_at(similarity, [1, 0], [0, 1, 0], k=2) == 1.0
    assert recall_at(similarity, [1, 0], [0, 1, 0], k=9) == 1.0
    with pytest.raises(DataError, match="queries have labels such as '1', items such as 0: give the same"):
        recall_at(similarity, ["1", "0"], [0, 1, 0])


def test_what_masks_hide_is_no_number():
    hidden = np.ma.array([[0.0, 1.0], [2.0, 3.0]], mask=[[False, False], [False, True]])
    with pytest.raises(DataError, match="codes are not finite"):
        vendi_score(hidden)
    with pytest.raises(DataError, match="not a number in places"):
        risk_coverage(hidden[1], [True, False])
    with pytest.raises(DataError, match="means or standard deviations are not finite"):
        bhattacharyya(hidden, np.ones((2, 2)), hidden, np.ones((2, 2)))


# ----------------------------------------------------------------- matches


def test_a_match_is_the_mean_of_a_logistic_function():
    match = Match()
    with torch.no_grad():
        match.log_slope.fill_(math.log(2.0))
        match.offset.fill_(1.5)
    gaps = torch.tensor([[0.0], [1.0], [3.0]])
    by_hand = torch.sigmoid(1.5 - 2 * gaps).mean(0)
    yes, no = match(gaps)
    torch.testing.assert_close(yes.exp(), by_hand)
    torch.testing.assert_close(no.exp(), 1 - by_hand)
    torch.testing.assert_close(match.probability(gaps), by_hand)


def test_pairs_of_both_kinds_count_for_half():
    plan = build("ae", (3,), latent_dim=2, hidden=(4,))
    plan.model.head = Match()
    batch = Batch(torch.randn(5, 3), y=torch.tensor([0.0, 0.0, 1.0, torch.nan, 1.0]))
    trace = plan.model.trace(batch, k=1, noise=Noise(0))
    z = trace.levels[0].z[0]

    def log(i, j):
        return [v.item() for v in plan.model.head((z[i] - z[j]).norm()[None])]

    same = -(log(0, 1)[0] + log(2, 4)[0]) / 2
    others = -np.mean([log(i, j)[1] for i in (0, 1) for j in (2, 4)])
    assert Matches(1)(trace)["matches"].value().item() == pytest.approx((same + others) / 2, rel=1e-5)


def test_odds_of_pairs_grow_by_equal_factors():
    plan = build("ae", (3,), latent_dim=2, hidden=(4,))
    plan.model.head = Match()
    trace = plan.model.trace(Batch(torch.randn(5, 3), y=torch.tensor([0.0, 0, 1, 1, 2])), k=1, noise=Noise(0))
    one, two = (Matches(1, odds=odds)(trace)["matches"].value().item() for odds in (1, 2))
    growing = Matches(1, odds=9, warmup=4)
    for epoch, odds in ((0.0, 1.0), (2.0, 3.0), (4.0, 9.0), (7.0, 9.0)):
        growing.advance(epoch)
        value = growing(trace)["matches"].value().item()
        assert value == pytest.approx(one + (odds - 1) * (two - one), rel=1e-5)
    with pytest.raises(PlanError, match="odds=0"):
        Matches(1, odds=0)


def test_odds_of_pairs_are_those_of_labels():
    y = np.random.default_rng(0).choice([3, 5, 9], 60, p=[0.2, 0.3, 0.5])
    same = (y[:, None] == y)[np.triu_indices(60, 1)]
    assert _odds(y) == pytest.approx((~same).sum() / same.sum())
    assert _odds(np.repeat([0, 1], [99, 1])) == 1  # what is rare counts for as much
    assert _odds(np.arange(9)) == 1  # nothing matches


def test_hedged_embeddings_count_pairs_as_often_as_they_occur(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "chartae.estimators.embeddings.Matches",
        lambda *args, **options: asked.append(Matches(*args, **options)) or asked[-1],
    )
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.repeat([0, 1, 2, -1], 15)
    vae = ct.VAE(latent_dim=2, hidden=(4,), max_epochs=2, random_state=0)
    ct.ProbabilisticEmbedding(vae, method="hedged", random_state=0).fit(X, y)
    (term,) = asked
    assert term.odds == pytest.approx(3 * 15**2 / (3 * 15 * 14 / 2))  # those without a label are no kind
    assert term.share == 1  # it has arrived


def test_many_pairs_that_do_not_match_are_told_by_some():
    plan = build("ae", (3,), latent_dim=2, hidden=(4,))
    plan.model.head, y = Match(), torch.arange(400) % 20
    trace = plan.model.trace(Batch(3 * torch.randn(400, 3), y=y.float()), k=1, noise=Noise(0))
    z = trace.levels[0].z[0]
    pairs = (y[:, None] != y).nonzero()  # each twice
    with torch.no_grad():
        yes, no = plan.model.head(torch.cdist(z, z)[None])
        every = -0.5 * (no[pairs[:, 0], pairs[:, 1]].mean() + yes[(y[:, None] == y).triu(1)].mean())
        found = torch.stack([Matches(1)(trace)["matches"].value() for _ in range(64)])
    error = found.std() / 64**0.5
    assert 0 < error < 0.01 * every
    assert abs(found.mean() - every) < 4 * error


def test_no_kind_of_pairs_takes_more_than_its_memory(monkeypatch):
    plan = build("ae", (3,), latent_dim=2, hidden=(4,))
    plan.model.head, y = Match(), torch.arange(300) % 2
    trace = plan.model.trace(Batch(3 * torch.randn(300, 3), y=y.float()), k=2, noise=Noise(0))
    every = Matches(2)(trace)["matches"].value()
    monkeypatch.setattr("chartae.parts.objectives.matches.VALUES", 8 * 500)  # of 22,350 pairs that match
    seen = []
    plan.model.head.register_forward_pre_hook(lambda _, gaps: seen.append(gaps[0].shape))
    found = torch.stack([Matches(2)(trace)["matches"].value() for _ in range(64)])
    assert set(seen) == {(4, 500)}
    assert abs(found.mean() - every) < 4 * found.std() / 64**0.5


@pytest.mark.parametrize("y", [[torch.nan] * 4, [0.0] * 4, [0.0, 1.0, 2.0, 3.0]])
def test_without_pairs_of_a_kind_nothing_breaks(y):
    plan = build("vae", (3,), latent_dim=2, hidden=(4,))
    plan.model.head = Match()
    loss, _ = Gradients(Plan(plan.model, Matches(2)))(Batch(torch.randn(4, 3), y=torch.tensor(y)), Noise(0))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in plan.model.parameters() if p.grad is not None)


# -------------------------------------------------------------- embeddings


def blurred(n: int = 800) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes, of which a third of the items cannot be told: they lie amid all."""
    rng = np.random.default_rng(0)
    y, lost = rng.integers(0, 3, n), rng.random(n) < 0.33
    X = 4 * np.eye(3)[y] * ~lost[:, None] + 0.4 * rng.normal(size=(n, 3))
    return X.astype(np.float32), y, lost


@pytest.mark.parametrize("method", ["bottleneck", "hedged"])
def test_what_cannot_be_told_is_uncertain(method):
    X, y, lost = blurred()
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method=method, random_state=0)
    m.fit(X[:500], y[:500])
    assert roc_auc_score(lost[500:], m.uncertainty(X[500:])) > 0.95
    match = m.similarity(X[500:], X[500:])
    clear = np.flatnonzero(~lost[500:])
    same = y[500:][clear][:, None] == y[500:][clear]
    assert match[np.ix_(clear, clear)][same].min() > match[np.ix_(clear, clear)][~same].max()
    assert ((match >= 0) & (match <= 1 + 1e-6)).all()
    np.testing.assert_array_equal(match, m.similarity(X[500:], X[500:]))
    shares = m.votes(X[500:], y[:500], X[:500])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert roc_auc_score(lost[500:], 1 - shares.max(1)) > 0.95
    np.testing.assert_allclose(m.votes(X[510:520], y[:500], X[:500]), shares[10:20], atol=0.02)
    assert (m.votes(X[500:], y[500:]).argmax(1) == y[500:])[clear].mean() > 0.95
    if method == "hedged":
        _, std = m.transform(X[500:], return_std=True)
        assert roc_auc_score(lost[500:], std.sum(1)) > 0.8


def test_large_comparisons_are_cut_into_blocks(monkeypatch):
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method="hedged", random_state=0).fit(X, y)
    whole = m.similarity(X[:30], X[:20])
    monkeypatch.setattr("chartae.estimators.embeddings.AT_ONCE", 8 * 8 * 20 * 7)
    np.testing.assert_allclose(m.similarity(X[:30], X[:20]), whole, rtol=1e-5)


def test_what_is_said_of_an_item_does_not_depend_on_others():
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method="hedged", random_state=0).fit(X, y)
    order = np.random.default_rng(0).permutation(200)[:50]
    np.testing.assert_allclose(m.similarity(X[order], X), m.similarity(X, X)[order], atol=1e-5)
    np.testing.assert_allclose(m.uncertainty(X[order]), m.uncertainty(X)[order], atol=1e-5)


def test_matches_of_codes_far_from_zero_do_not_depend_on_others():
    m = ct.ProbabilisticEmbedding(random_state=0)
    m.head_ = Match()
    far = 30 + 0.01 * np.random.default_rng(0).normal(size=(200, 1, 8))
    alone = np.array([m._match(far[:1], far[i : i + 1])[0, 0] for i in range(9)])
    np.testing.assert_allclose(m._match(far, far)[0, :9], alone, atol=1e-6)


def test_a_few_draws_tell_matches_as_many_do():
    """As noise that each item has for itself does not."""
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method="hedged", random_state=0).fit(X, y)
    few, drawn = m.similarity(X, X), [m.sample_posterior(X, 8, random_state=i) for i in (0, 1)]
    m.n_samples = 128
    many = m.similarity(X, X)
    gaps = np.linalg.norm(drawn[0][:, None, :, None] - drawn[1][None, :, None], axis=-1)
    alone = m.head_.probability(torch.from_numpy(gaps.reshape(64, 200, 200)).float()).detach().numpy()
    assert np.abs(few - many).mean() < 0.5 * np.abs(alone - many).mean()


def test_points_have_one_uncertainty():
    X, y, _ = blurred(300)
    m = ct.ProbabilisticEmbedding(ct.AE(latent_dim=2, **QUICK), method="hedged", random_state=0).fit(X, y)
    assert np.ptp(m.uncertainty(X)) < 1e-6
    shares = KNeighborsClassifier(5).fit(m.transform(X[100:]), y[100:]).predict_proba(m.transform(X[:100]))
    np.testing.assert_allclose(m.votes(X[:100], y[100:], X[100:]), shares, atol=1e-6)
    order = np.argsort(m.similarity(X[:1], X)[0])
    by_distance = np.argsort(m.similarity(X[:1], X, by="distance")[0])
    np.testing.assert_array_equal(order[-20:], by_distance[-20:])


@pytest.mark.parametrize("method", ["bottleneck", "hedged"])
def test_codes_on_a_sphere(method):
    X, y, _ = blurred(300)
    sphere = ct.Autoencoder(recipe="svae", latent_dim=3, **QUICK | {"max_epochs": 4})
    m = ct.ProbabilisticEmbedding(sphere, method=method, random_state=0).fit(X, y)
    np.testing.assert_allclose(np.linalg.norm(m.sample_posterior(X, 2, random_state=0), axis=2), 1, rtol=1e-5)
    assert m.similarity(X[:4], X).shape == (4, 300)
    assert np.isfinite(m.uncertainty(X)).all()


@pytest.mark.parametrize(
    "recipe", [{}, {"recipe": "vae-iaf"}, {"recipe": "svae", "latent_dim": 3}, {"recipe": "mixture-vae"}]
)
def test_a_code_says_less_of_what_is_hidden(recipe):
    """Also where KL has no closed form; as much in any order of rows, and alone."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 2))
    X = z @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(400, 8))
    hidden = np.where(np.arange(8) < 7, np.nan, X)
    given = np.where(rng.random(X.shape) < 0.5, np.nan, X)
    given[np.isnan(given).all(1), 0] = 0.0
    parameters = {"latent_dim": 2, "missing": "mask"} | QUICK | {"max_epochs": 40} | recipe
    encoder = ct.Autoencoder(**{"recipe": "vae"} | parameters)
    m = ct.ProbabilisticEmbedding(encoder, method="reconstruction", random_state=0).fit(given)
    whole, part = m.uncertainty(X), m.uncertainty(hidden)
    assert roc_auc_score(np.repeat([0, 1], 400), np.concatenate([whole, part])) > 0.9
    assert whole.mean() < part.mean() - 0.5
    np.testing.assert_allclose(m.uncertainty(X[::-1][:7]), whole[::-1][:7], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(m.encoder_.information(X), -whole, rtol=1e-6)


def test_information_of_an_item_is_that_of_its_posterior():
    X, _, _ = blurred(300)
    vae = ct.VAE(latent_dim=2, **QUICK).fit(X)
    mean, std = vae.transform(X, return_std=True)
    by_hand = 0.5 * (mean**2 + std**2 - 1).sum(1) - np.log(std).sum(1)
    np.testing.assert_allclose(vae.information(X), by_hand, rtol=1e-4, atol=1e-4)
    with pytest.raises(PlanError, match="are points"):
        ct.AE(latent_dim=2, **QUICK).fit(X).information(X)


def test_reconstruction_needs_no_labels():
    X, _, _ = blurred(300)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method="reconstruction").fit(X)
    assert m.uncertainty(X).shape == (300,)
    near = m.similarity(X[:50], X)
    assert near.shape == (50, 300)
    np.testing.assert_allclose(near[np.arange(50), np.arange(50)], 0, atol=1e-9)
    with pytest.raises(PlanError, match="knows no match"):
        m.similarity(X, X, by="match")
    with pytest.raises(PlanError, match="did you mean 'cosine'"):
        m.similarity(X, X, by="cosin")
    with pytest.raises(PlanError, match="reads no labels"):
        m.predict_proba(X)


def test_items_without_a_label_do_not_vote():
    queries, items, labels = [[[0.1], [0.9]]], [[[0.0], [0.2], [1.0]]], [-1, 0, 1]
    np.testing.assert_array_equal(votes_of_draws(queries, [*labels], items, k=1), np.eye(2))
    among = votes_of_draws(items, labels, items, k=1, same=True)
    np.testing.assert_array_equal(among, [[1, 0], [0, 1], [1, 0]])
    np.testing.assert_array_equal(votes([[0.9, 0.5, 0.1]], ["x", None, "y"], k=1), [[1, 0]])
    with pytest.raises(DataError, match="2 labels: give one for each item"):
        votes([[0.9, 0.5, 0.1]], [0, 1])
    with pytest.raises(DataError, match="1 labels of queries and 3 of items"):
        recall_at(np.eye(3), ["a"], ["a", "b", "c"])
    with pytest.raises(DataError, match="no item has a label"):
        votes([[0.9, 0.5]], [None, None])


def test_whole_queries_are_compared_with_decoded_items():
    X = np.random.default_rng(0).normal(size=(200, 2)) @ np.random.default_rng(1).normal(size=(2, 6)) + 1
    linear = ct.AE(latent_dim=2, network="linear", max_epochs=150, learning_rate=1e-2, random_state=0)
    m = ct.ProbabilisticEmbedding(linear, method="reconstruction").fit(X)
    found = m.similarity(X[:20], X, by="decoded")
    np.testing.assert_allclose(found, cosine_similarity(X[:20], X), atol=0.01)  # two dimensions hold all
    shaped = m.encoder_.project(X)
    np.testing.assert_allclose(found, cosine_similarity(X[:20], shaped), atol=1e-6)
    images = X.reshape(200, 3, 2)
    m = ct.ProbabilisticEmbedding(ct.AE(latent_dim=2, **QUICK), method="reconstruction").fit(images)
    assert m.similarity(images[:5], images, by="decoded").shape == (5, 200)
    labels = np.arange(200) % 2
    with pytest.raises(PlanError, match="decodes nothing: use by='match'"):
        ct.ProbabilisticEmbedding(ct.AE(latent_dim=2, **QUICK)).fit(X, labels).similarity(X, X, by="decoded")
    table = pd.DataFrame(X, columns=list("abcdef"))
    m.fit(table)
    kept = m.similarity(table[:5], table, by="decoded")
    units = table * [1e4, 1, 1, 1, 1e-3, 1] + [5e4, 0, 0, 0, 0, 0]  # of columns say nothing of likeness
    np.testing.assert_allclose(m.fit(units).similarity(units[:5], units, by="decoded"), kept, atol=1e-3)
    gaps = units.mask(np.random.default_rng(0).random(units.shape) < 0.1)
    assert np.isfinite(m.fit(gaps).similarity(gaps[:5], gaps, by="decoded")).all()
    m.fit(table.assign(of=pd.date_range("2020-01-01", periods=200)))
    with pytest.raises(PlanError, match="and 'of' is a date"):
        m.similarity(table, table, by="decoded")
    m.fit(table.assign(of=np.where(labels, "a", "b")))
    with pytest.raises(PlanError, match="and 'of' is categorical: use by='distance'"):
        m.similarity(table.assign(of="a"), table.assign(of="b"), by="decoded")


@pytest.mark.parametrize("method", ["bottleneck", "hedged", "reconstruction"])
def test_the_most_alike_are_retrieved(method, monkeypatch):
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method=method, random_state=0).fit(X, y)
    for by in ("auto", "distance", "expected likelihood", *(["decoded"] * (method == "reconstruction"))):
        pairs = m.similarity(X[:40], X, by=by)
        alike, items = m.retrieve(X[:40], X, k=200, by=by)
        np.testing.assert_allclose(alike, -np.sort(-pairs, axis=1), rtol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(pairs, items, 1), alike, rtol=1e-6)
        np.testing.assert_array_equal(np.sort(items, axis=1), np.tile(np.arange(200), (40, 1)))
    whole = m.retrieve(X, k=3)
    assert (whole[1] != np.arange(200)[:, None]).all()  # none finds itself
    monkeypatch.setattr("chartae.estimators.embeddings.AT_ONCE", 8 * 8 * 200 * 7)
    for found, kept in zip(m.retrieve(X, k=3), whole, strict=True):
        np.testing.assert_allclose(found, kept, rtol=1e-5)
    for k, most in ((0, 199), (200, 199), (2.5, 199)):
        with pytest.raises(PlanError, match=f"k={k}: there are {most} items to find"):
            m.retrieve(X, k=k)
    with pytest.raises(PlanError, match="did you mean 'cosine'"):
        m.retrieve(X, X, by="cosin")


def test_how_unlike_the_best_is_tells_wrong_retrievals_of_new_kinds():
    """Of items of a kind that was never seen, some of which lie where they have no neighbor of their kind."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(400, 6)).astype(np.float32)
    kinds = np.repeat([0, 1], 150)
    X = (4 * np.eye(6)[kinds] + 0.4 * rng.normal(size=(300, 6))).astype(np.float32)
    far = rng.random(300) < 0.2
    X[far] += 4 * rng.normal(size=(far.sum(), 6)).astype(np.float32)
    whole = ct.Autoencoder(recipe="beta-vae", recipe_params={"beta": 0.01}, latent_dim=6, **QUICK)
    m = ct.ProbabilisticEmbedding(whole, method="reconstruction", random_state=0)
    alike, items = m.fit(known).retrieve(X, k=1, by="expected likelihood")
    wrong = kinds[items[:, 0]] != kinds
    assert 5 < wrong.sum() < 100
    assert roc_auc_score(wrong, -alike[:, 0]) > 0.8


def test_similarities_of_any_number_are_ranked():
    for kind in (np.uint8, bool, np.float32):
        assert most_alike(np.array([[0, 5, 3]]).astype(kind), 1)[0, 0] == 1
    with pytest.raises(PlanError, match="k=4: there are 3 items to find"):
        most_alike(np.eye(3), 4)
    for wrong, message in ((np.ones(3), "have shape"), ([[np.nan, 1.0]], "are not numbers in places")):
        for of in (lambda S: most_alike(S, 1), lambda S: recall_at(S, ["a"] * len(S), ["a", "b"])):
            with pytest.raises(DataError, match=message):
                of(wrong)
    assert recall_at([[2, 1, 0]], [1], [-1, 1, 0]) == 1  # an item without a label is none to find
    assert recall_at([[1, 0]] * 2, ["a", None], ["a", "b"]) == 1
    with pytest.raises(DataError, match="has a label to be found by"):
        recall_at([[1, 0]], ["a"], [None, None])


def test_a_match_is_as_likely_as_it_is_said_to_be():
    """Of pairs half of which match, in bins of what held-out pairs have calibrated."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    X = 2.2 * np.eye(3)[y] + rng.normal(size=(3000, 3))
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), method="hedged", random_state=0)
    p = m.fit(X[:2000], y[:2000]).similarity(X[2000:], X[2000:])
    i, j = np.triu_indices(1000, 1)
    p, same = p[i, j], (y[2000:][i] == y[2000:][j])
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    bins = np.digitize(p, np.linspace(0, 1, 11))
    gaps = [weight[bins == b] @ (same - p)[bins == b] for b in range(1, 12)]
    assert np.abs(gaps).sum() < 0.1
    assert p.min() < 0.1
    assert p.max() > 0.9


def test_a_match_of_few_rows_is_as_likely_as_of_many():
    """Of labels that say nothing, where none is held out, though pairs were learned as they occur."""
    rng = np.random.default_rng(0)
    for rows in (140, 300):
        X, y = rng.normal(size=(rows, 2)), rng.integers(0, 10, rows)
        encoder = ct.VAE(latent_dim=2, hidden=(8,), max_epochs=60, patience=None, random_state=0)
        m = ct.ProbabilisticEmbedding(encoder, method="hedged", random_state=0).fit(X, y)
        alike = m.similarity(X[:50], X[50:100])
        assert alike.mean() == pytest.approx(0.5, abs=0.06)


def test_slope_and_offset_that_were_planted_are_found():
    rng = np.random.default_rng(0)
    gaps = torch.from_numpy(rng.uniform(0, 4, 20_000))
    match = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < torch.sigmoid(3.0 * (1.5 - gaps))
    # Shares of half and half: what has more of a kind has its offset moved by the logarithm of their ratio.
    odds = float((~match).sum() / match.sum())
    found = fit_match(Match(), gaps[match][None], gaps[~match][None], 100_000)
    assert found.log_slope.exp().item() == pytest.approx(3.0, rel=0.05)
    assert found.offset.item() == pytest.approx(4.5 + np.log(odds), rel=0.05)
    few = fit_match(Match(), torch.tensor([[0.1]]), torch.tensor([[2.0]]), 2)
    assert few.log_slope.exp().item() < 3.0  # two rows that are told apart make nothing sure
    assert Match().log_slope.item() == 0


def test_items_are_found_whatever_output_is_set_and_none_of_none():
    X = pd.DataFrame(blurred(100)[0]).rename(columns=str)
    whole = ct.Autoencoder(recipe="beta-vae", recipe_params={"beta": 0.01}, latent_dim=2, **QUICK)
    m = ct.ProbabilisticEmbedding(whole, method="reconstruction", random_state=0)
    wanted = m.fit(X).retrieve(X[:5], X, k=3)
    assert m.similarity(X[:0], X).shape == (0, 100)
    assert m.encoder_.sample_posterior(X[:0], 3).shape == (3, 0, 2)
    assert len(m.encoder_.score_samples(X[:0])) == len(m.encoder_.predict(X[:0])) == 0
    for each, other in zip(m.set_output(transform="pandas").retrieve(X[:5], X, k=3), wanted, strict=True):
        np.testing.assert_array_equal(each, other)


def test_labels_may_be_missing_and_are_needed():
    X, y, lost = blurred(300)
    some = np.where(np.arange(300) % 3, -1, y)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), random_state=0).fit(X, some)
    told = m.classes_[m.predict_proba(X).argmax(1)]
    assert (told == y)[~lost].mean() > 0.95
    with pytest.raises(DataError, match="learns from labels: give y"):
        m.fit(X)
    with pytest.raises(DataError, match="give rows of two classes"):
        m.fit(X, np.zeros(300))
    with pytest.raises(PlanError, match="use an estimator such as VAE"):
        ct.ProbabilisticEmbedding(torch.nn.Linear(3, 2)).fit(X, y)


def test_draws_that_are_compared_have_their_own_noise():
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(
        ct.VAE(latent_dim=2, **QUICK), method="hedged", n_samples=1, random_state=0
    ).fit(X, y)
    assert np.ptp(m.uncertainty(X)) > 0.01  # a draw beside itself would be as sure everywhere
    m.n_samples = 400
    np.testing.assert_allclose(np.diag(m.similarity(X[:5], X[:5])), 1 - m.uncertainty(X[:5]), atol=1e-5)


def test_a_match_of_labels_is_of_draws_on_their_own():
    X, y, _ = blurred(200)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK), n_samples=1, random_state=2**32 - 1)
    one, other = m.fit(X, y)._labels(X), m._labels(X, 1)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(m.similarity(X, X), one @ other.T)


@pytest.mark.parametrize("recipe", ["hvae", "vae-lin-nf"])
def test_draws_whose_density_is_their_own_alone_are_no_points(recipe):
    X, y, _ = blurred(100)
    own = ct.Autoencoder(recipe=recipe, latent_dim=2, **QUICK | {"max_epochs": 2})
    m = ct.ProbabilisticEmbedding(own, method="reconstruction").fit(X)
    np.testing.assert_array_equal(m.similarity(X, X), m.similarity(X, X, by="bhattacharyya"))
    told = ct.HeadClassifier(m.encoder_, stochastic=True, random_state=0).fit(X, y).predict_proba(X)
    assert np.isfinite(told).all()


def test_points_are_compared_by_distance():
    X, _, _ = blurred(100)
    m = ct.ProbabilisticEmbedding(ct.AE(latent_dim=2, **QUICK), method="reconstruction").fit(X)
    assert (m.similarity(X, X).argmax(1) == np.arange(100)).all()
    with pytest.raises(PlanError, match="these are points: use by='distance'"):
        m.similarity(X, X, by="bhattacharyya")


def test_labels_are_as_many_as_items():
    X, y, _ = blurred(100)
    for wrong in (y[:50], np.tile(y, 2)):
        with pytest.raises(DataError, match="give one target for each row"):
            ct.ProbabilisticEmbedding(ct.VAE()).fit(X, wrong)


def test_pairs_that_are_left_out_are_not_found():
    assert recall_at([[-np.inf, 0.5], [0.5, -np.inf]], ["a", "b"], ["a", "b"], k=2) == 0.0
    assert recall_at(np.array([[0, 2, 1]], np.uint8), [1], [0, 1, 0]) == 1.0


def test_embeddings_have_names_in_a_pipeline():
    X, y, _ = blurred(60)
    table = pd.DataFrame(X.reshape(60, -1)).rename(columns="x{}".format)
    m = ct.ProbabilisticEmbedding(ct.VAE(latent_dim=2, **QUICK | {"max_epochs": 1}), random_state=0)
    pipe = make_pipeline(StandardScaler(), m).set_output(transform="pandas")
    assert list(pipe.fit_transform(table, y)) == ["probabilisticembedding0", "probabilisticembedding1"]
    assert list(pipe.get_feature_names_out()) == ["probabilisticembedding0", "probabilisticembedding1"]
    assert pipe[1].n_features_in_ == table.shape[1]
    assert list(pipe[1].feature_names_in_) == list(table)
