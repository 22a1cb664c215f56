"""Words as distributions: log-odds against densities, widths and neighbors against planted corpora."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from torch.nn import functional as F

import chartae as ct
from chartae.core.errors import DataError, PlanError, RunFolderError, TrainingError
from chartae.core.noise import Noise
from chartae.parts.distributions import DiagonalNormal, kl
from chartae.parts.words import SkipGram
from chartae.training.pairs import near, numbered, vocabulary
from chartae.training.text import TextEncoder
from chartae.transfer import compare, containment

SMALL = {"latent_dim": 16, "random_state": 0}


def model(words: int = 6, dim: int = 3, *, spread: bool = True, seed: int = 0) -> SkipGram:
    rng = np.random.default_rng(seed)
    made = SkipGram(words, dim, spread, rng).double()
    if spread:
        torch.nn.init.normal_(made.log_std, generator=torch.Generator().manual_seed(seed), std=0.5)
    torch.nn.init.constant_(made.bias, 0.3)
    return made


def planted(n: int = 600, seed: int = 0) -> list[str]:
    """Texts of two topics; "general" is in all, and "rare00" to "rare19" in one or two of one topic each."""
    rng = np.random.default_rng(seed)
    topics = [[f"{name}{i:02}" for i in range(30)] for name in ("star", "ball")]
    texts = []
    for i in range(n):
        row = list(rng.choice(topics[i % 2], 7))
        row.insert(rng.integers(8), "general")
        texts.append(row)
    for i, at in enumerate(rng.choice(n, (20, 2), replace=False)):
        for text in at:
            texts[text].append(f"rare{i:02}")
    return [" ".join(row) for row in texts]


@pytest.fixture(scope="module")
def fitted() -> ct.WordEmbedding:
    return ct.WordEmbedding(min_count=1, **SMALL).fit(planted())


# --------------------------------------------------------------------- odds


def test_log_odds_are_log_densities_without_what_normalizes_them():
    m = model()
    odds = m(torch.arange(6)[None], torch.arange(6)[None])[0].detach().numpy()
    u, v = m.word.detach().numpy(), m.context.detach().numpy()
    s = m.log_std.detach().exp().numpy()[:, 0]
    by_hand = [[multivariate_normal.logpdf(v[j], u[i], s[i] ** 2) for j in range(6)] for i in range(6)]
    constant = 1.5 * np.log(2 * np.pi * s**2)[:, None]
    np.testing.assert_allclose(odds, np.array(by_hand) + constant + 0.3, rtol=1e-9)


def test_of_one_width_only_distances_count():
    points, wide = model(spread=False), model()
    wide.load_state_dict({**points.state_dict()})
    all_of = torch.arange(6)[None]
    for m in (points, wide):
        by_hand = 0.3 - 0.5 * torch.cdist(m.word, m.context).square()
        torch.testing.assert_close(m(all_of, all_of)[0], by_hand)
    assert not points.log_std.requires_grad


def test_the_loss_is_that_of_pairs_one_by_one():
    m = model()
    pairs, noise = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [0, 0]]]), torch.tensor([[1, 2, 3], [0, 5, 5]])
    costs = []
    for row, drawn in zip(pairs, noise, strict=True):
        for word, context in row:
            true = m(word.view(1, 1), context.view(1, 1)).squeeze()
            chance = [m(word.view(1, 1), c.view(1, 1)).squeeze() for c in drawn]
            costs.append(F.softplus(-true) + 5 * torch.stack([F.softplus(c) for c in chance]).mean())
    torch.testing.assert_close(m.loss(pairs, noise, 5), torch.stack(costs).mean())


@pytest.mark.parametrize("spread", [True, False])
def test_gradients_are_differences(spread):
    m = model(spread=spread)
    pairs, noise = torch.tensor([[[0, 1], [2, 3]]]), torch.tensor([[1, 4]])
    names = [name for name, _ in m.named_parameters()]

    def loss(*values):
        found = torch.func.functional_call(m, dict(zip(names, values, strict=True)), (pairs, noise))
        return found

    m.forward = lambda pairs, noise: m.loss(pairs, noise, 5) + 0.1 * m.kl()  # type: ignore[method-assign]
    assert torch.autograd.gradcheck(loss, [p for _, p in m.named_parameters()])


def test_the_price_of_a_width_is_its_divergence():
    m = model()
    prior = torch.full((6, 1), math.log(4.0))
    q, p = (DiagonalNormal(m.word, log_var.expand(6, 3)) for log_var in (2 * m.log_std, prior))
    torch.testing.assert_close(m.kl(), kl(q, p).sum())


# -------------------------------------------------------------- comparisons


def test_containment_is_an_expectation():
    rng = np.random.default_rng(0)
    (a, b), (s, t) = rng.normal(size=(2, 1, 2)), np.exp(0.5 * rng.normal(size=(2, 1, 2)))
    x = np.linspace(-30, 30, 20_001)
    terms = [
        np.trapezoid(
            norm.pdf(x, a[0, i], s[0, i])
            * (norm.logpdf(x, b[0, i], t[0, i]) - norm.logpdf(x, a[0, i], s[0, i])),
            x,
        )
        for i in range(2)
    ]
    assert containment(a, s, b, t)[0, 0] == pytest.approx(sum(terms), rel=1e-6)
    q, p = (DiagonalNormal(torch.from_numpy(m), 2 * torch.from_numpy(w).log()) for m, w in ((a, s), (b, t)))
    z = q.draw(200_000, Noise(0)).z
    drawn = (p.log_prob(z) - q.log_prob(z)).numpy()
    assert abs(drawn.mean() - sum(terms)) < 5 * drawn.std() / len(drawn) ** 0.5


def test_equal_points_contain_each_other():
    z = np.array([[0.0, 1.0], [0.0, 2.0]])
    found = containment(z, 0 * z, z, 0 * z)
    assert np.diag(found).tolist() == [0.0, 0.0]
    assert (found[~np.eye(2, dtype=bool)] < -1e9).all()
    part = containment([[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]])  # a point in one dimension
    assert part.tolist() == [[0.0]]


def test_containment_has_a_direction_and_others_have_none():
    rng = np.random.default_rng(1)
    m, s = rng.normal(size=(5, 3)), np.exp(rng.normal(size=(5, 3)))
    np.testing.assert_allclose(np.diag(containment(m, s, m, s)), 0, atol=1e-12)
    assert (containment(m, s, m, s) <= 1e-12).all()
    zero = np.zeros((1, 3))
    assert containment(zero, zero + 1, zero, zero + 3) > containment(zero, zero + 3, zero, zero + 1)
    for by in ("expected likelihood", "bhattacharyya", "cosine", "distance"):
        np.testing.assert_allclose(compare(by, m, s, m, s), compare(by, m, s, m, s).T)


@pytest.mark.parametrize("by", ["expected likelihood", "bhattacharyya", "containment"])
def test_narrow_words_are_ranked_as_points(by):
    rng = np.random.default_rng(2)
    m = rng.normal(size=(8, 3))
    by_distance = np.argsort(compare("distance", m, 0 * m, m, 0 * m), axis=1)
    narrow = np.full_like(m, 1e-3)
    np.testing.assert_array_equal(np.argsort(compare(by, m, narrow, m, narrow), axis=1), by_distance)
    with pytest.raises(PlanError, match="these are points: use by='distance'"):
        compare(by, m, 0 * m, m, 0 * m)


# --------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I saw a fox, O fox!", ["a", "fox", "i", "o", "saw"]),
        ("they don't, in the U.S.", ["don", "in", "the", "they", "u"]),
        ("文 字 x2 5", ["5", "x2", "字", "文"]),
        ("हिन्दी भाषा में", ["भाषा", "में", "हिन्दी"]),
        ("cafe\u0301 caf\u00e9 fox", ["caf\u00e9", "fox"]),
        ("good🦊🦊 ❤️ 👨‍👩‍👧 👍🏽 🇩🇪🇫🇷 %", ["good", "❤️", "🇩🇪", "🇫🇷", "👍🏽", "👨‍👩‍👧", "🦊"]),
    ],
)
def test_words_are_of_letters_or_emoji(text, words):
    assert sorted(vocabulary([text], 1)[0]) == words


def test_pairs_stand_within_the_window_and_in_one_text():
    texts = ["aa bb cc dd", "ee", "ff gg"]
    words, _ = vocabulary(texts, 1)
    corpus, ones = numbered(texts, words), np.ones(len(words))
    (pairs,) = near(corpus, ones, 1, np.random.default_rng(0))
    said = sorted(f"{words[a]} {words[b]}" for a, b in pairs)
    assert said == ["aa bb", "bb aa", "bb cc", "cc bb", "cc dd", "dd cc", "ff gg", "gg ff"]
    # A reach of up to 3 is 3 in a third of cases: how often "aa" sees "dd".
    counts = np.zeros((7, 7))
    rng = np.random.default_rng(1)
    for _ in range(3000):
        (pairs,) = near(corpus, ones, 3, rng)
        np.add.at(counts, tuple(pairs.T), 1)
    at = {word: i for i, word in enumerate(words)}
    for other, share in (("bb", 1.0), ("cc", 2 / 3), ("dd", 1 / 3), ("ff", 0.0)):
        assert counts[at["aa"], at[other]] / 3000 == pytest.approx(share, abs=0.05)


def test_frequent_words_are_left_out_at_random():
    corpus = numbered(["aa bb"] * 2000, ("aa", "bb"))
    (pairs,) = near(corpus, np.array([0.25, 1.0]), 1, np.random.default_rng(0))
    assert len(pairs) / 2 / 2000 == pytest.approx(0.25, abs=0.04)


def test_blocks_of_long_texts_hold_all_of_them(monkeypatch):
    corpus = numbered(["aa bb"] * 50, ("aa", "bb"))
    monkeypatch.setattr("chartae.training.pairs.BLOCK", 40)
    assert [len(block) for block in near(corpus, np.ones(2), 2, np.random.default_rng(0))] == [34, 32, 32]


def test_a_text_that_is_a_little_longer_than_a_block_gives_the_same_widths(monkeypatch):
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.geometric(0.05, 8)) for _ in range(400)]
    make = ct.WordEmbedding(latent_dim=4, max_epochs=3, random_state=0)
    whole = clone(make).fit(texts)
    monkeypatch.setattr("chartae.training.pairs.BLOCK", int(whole.counts_.sum()) - 20)
    parts = clone(make).fit(texts)
    one, other = (np.log(m.uncertainty(whole.words_)) for m in (whole, parts))
    assert abs(one.mean() - other.mean()) < 0.03


def test_words_are_counted():
    words, counts = vocabulary(["The fox, the FOX", "a fox jumps"], 2)
    assert words == ("fox", "the")
    assert counts.tolist() == [3, 2]


# ----------------------------------------------------------------- embedding


@pytest.mark.parametrize("spread", [True, False])
def test_topics_are_told_apart(spread):
    m = ct.WordEmbedding(spread=spread, **SMALL).fit(planted())
    names = [w for w in m.words_ if w.startswith(("star", "ball"))]
    near_by = m.similarity(names, names)
    np.fill_diagonal(near_by, -np.inf)
    same = np.array([[a[:4] == b[:4] for a in names] for b in names])
    assert same[np.arange(60), near_by.argmax(1)].all()
    assert all(word.startswith("star") for word, _ in m.most_similar("star03", 10))
    assert m.history_[-1]["loss"] < m.history_[0]["loss"]
    assert m.score(planted(500, seed=1)) > -6 * math.log(2)  # which is that of knowing nothing


def test_rare_and_general_words_are_wide(fitted):
    of_topics = [w for w in fitted.words_ if w.startswith(("star", "ball"))]
    rare = [w for w in fitted.words_ if w.startswith("rare")]
    typical = fitted.uncertainty(of_topics)
    assert fitted.uncertainty(["general"]) > typical.max()
    assert np.median(fitted.uncertainty(rare)) > typical.max()
    # A word of a topic lies within the general one more than the other way round.
    inside = fitted.similarity(of_topics, ["general"], by="containment")[:, 0]
    outside = fitted.similarity(["general"], of_topics, by="containment")[0]
    assert (inside > outside).all()


def test_words_of_which_the_prior_says_all_are_points_on_a_larger_map():
    texts = planted(300)
    dear, points = (
        ct.WordEmbedding(**SMALL, **more).fit(texts) for more in ({"beta": 1e9}, {"spread": False})
    )
    np.testing.assert_allclose(dear.uncertainty(dear.words_), 2, atol=0.01)
    assert dear.model_.kl() < 0.1
    assert dear.score(texts) == pytest.approx(points.score(texts), abs=0.1)


def test_the_same_seed_gives_the_same_words():
    texts = planted(200)
    a, b = (ct.WordEmbedding(latent_dim=4, max_epochs=1, random_state=0).fit(texts) for _ in range(2))
    np.testing.assert_array_equal(a.transform(a.words_), b.transform(b.words_))
    c = ct.WordEmbedding(latent_dim=4, max_epochs=1, random_state=1).fit(texts)
    assert not np.array_equal(a.transform(a.words_), c.transform(a.words_))
    d = ct.WordEmbedding(latent_dim=2, max_epochs=1).fit(texts)  # no seed: another each time, which is kept
    assert d.score(texts) == d.score(texts)


def test_fitting_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    ct.WordEmbedding(latent_dim=2, max_epochs=1, random_state=0).fit(planted(50))
    assert torch.equal(before, torch.get_rng_state())


def test_points_have_no_width():
    m = ct.WordEmbedding(spread=False, latent_dim=2, max_epochs=1, random_state=0).fit(planted(200))
    mean, std = m.transform(["general", "star00"], return_std=True)
    assert mean.shape == std.shape == (2, 2)
    assert not std.any()
    assert not m.uncertainty(["general"]).any()
    with pytest.raises(PlanError, match="these are points"):
        m.most_similar("general", by="containment")


def test_it_is_an_estimator(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    with pytest.raises(TypeError, match="no parameter 'latent_dims'"):
        ct.WordEmbedding(latent_dims=3)
    with pytest.raises(ValueError, match="max_epochs"):
        ct.WordEmbedding(max_epochs=0).fit(["a fox"])


def test_a_file_of_texts(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(planted(100)), encoding="utf-8")
    options = {"latent_dim": 2, "max_epochs": 1, "random_state": 0}
    of_file = ct.WordEmbedding(**options).fit(ct.read(file))
    of_list = ct.WordEmbedding(**options).fit(planted(100))
    assert of_file.words_ == of_list.words_
    np.testing.assert_array_equal(of_file.transform(["general"]), of_list.transform(["general"]))


def test_words_of_a_file_need_no_items(tmp_path, monkeypatch):
    """TF-IDF of texts is computed when items are asked for, and once."""
    file, calls = tmp_path / "texts.txt", []
    file.write_text("\n".join(planted(100)), encoding="utf-8")
    fit = TextEncoder.fit
    monkeypatch.setattr(TextEncoder, "fit", lambda texts: calls.append(1) or fit(texts))
    data = ct.read(file, labels=np.arange(100) % 2)
    ct.WordEmbedding(latent_dim=2, max_epochs=1, random_state=0).fit(data)
    assert calls == []
    assert data.X.shape[0] == len(data.texts) == len(data.y) == 100
    assert (data.medium.kind, calls) == ("tfidf", [1])
    assert data.summary.startswith("100 texts of ")
    same = replace(data, X=data.X[:5], y=None)
    assert (same.X.shape[0], same.medium, calls) == (5, data.medium, [1])


def test_texts_without_words_change_nothing():
    texts = planted(100)
    options = {"latent_dim": 2, "max_epochs": 1, "random_state": 0}
    plain = ct.WordEmbedding(**options).fit(texts)
    mixed = ct.WordEmbedding(**options).fit(["", *texts[:50], " ", "", *texts[50:]])
    assert mixed.words_ == plain.words_
    np.testing.assert_array_equal(mixed.transform(plain.words_), plain.transform(plain.words_))
    assert mixed.score(["", *texts]) == plain.score(texts)


def test_words_are_kept(tmp_path, fitted):
    fitted.save(tmp_path / "words")
    again = ct.WordEmbedding.load(tmp_path / "words")
    assert again.get_params() == fitted.get_params()
    assert again.words_ == fitted.words_
    assert again.history_ == fitted.history_
    np.testing.assert_array_equal(again.counts_, fitted.counts_)
    np.testing.assert_array_equal(again.uncertainty(again.words_), fitted.uncertainty(fitted.words_))
    assert again.score(planted(50)) == fitted.score(planted(50))
    with pytest.raises(RunFolderError, match=r"holds words: open it with WordEmbedding\.load$"):
        ct.load(tmp_path / "words")
    with pytest.raises(RunFolderError, match=r"holds a model: open it with chartae\.load$"):
        ct.WordEmbedding.load(ct.AE(latent_dim=1, max_epochs=1).fit(np.eye(9)).save(tmp_path / "ae"))


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "there are no texts"),
        ("a red fox", "put it in a list"),
        ([1, 2], "type int: give str"),
        (["", ""], r"0 words come 3 times or more \(the most frequent 0 times\)"),
        (["a b c"], r"0 words come 3 times or more \(the most frequent 1 times\)"),
        (["red fox", "red car"], r"the most frequent 2 times\): give more texts, or a smaller min_count"),
        (["fox", "car"] * 9, "no two known words stand in one text"),
        (ct.read(np.eye(4)), "array holds no texts: read a .txt file"),
    ],
)
def test_bad_texts_are_refused_in_a_line(texts, said):
    with pytest.raises(DataError, match=said) as error:
        ct.WordEmbedding(latent_dim=2, random_state=0).fit(texts)
    assert "\n" not in str(error.value)


def test_words_that_grow_without_bounds_are_told_of():
    texts = ["the red fox runs", "the gray car stops"] * 60
    with pytest.raises(TrainingError, match=r"not finite in epoch 1: use a learning_rate below 100$"):
        ct.WordEmbedding(latent_dim=4, max_epochs=3, learning_rate=100.0, random_state=0).fit(texts)


def test_words_are_looked_up_as_they_were_counted(fitted):
    word = fitted.words_[0]
    np.testing.assert_array_equal(fitted.transform([word.upper()]), fitted.transform([word]))
    cafe = ct.WordEmbedding(latent_dim=2, min_count=1, max_epochs=1, random_state=0).fit(
        ["le café noir", "un café"]
    )
    assert cafe.transform(["cafe\u0301"]).shape == (1, 2)


def test_texts_of_frequent_words_alone_have_a_score():
    """Of a pair that makes up two thirds of all words, nearly every one is left out."""
    texts = [f"the to rare{i}" for i in range(100)]
    words = ct.WordEmbedding(latent_dim=2, min_count=1, max_epochs=1, random_state=0).fit(texts)
    for text in ("the to", "to the", "the the"):
        assert np.isfinite(words.score([text]))


def test_unknown_words_are_refused_in_a_line(fitted):
    with pytest.raises(DataError, match=r"'genera' is not known.*did you mean 'general'\?"):
        fitted.transform(["general", "genera"])
    with pytest.raises(DataError, match=r"^words are a list of str, and this is a str: put it in a list$"):
        fitted.uncertainty("general")
    with pytest.raises(DataError, match=r"^word 1 \(from 0\) is of type int: give str$"):
        fitted.transform(["general", 3])
    with pytest.raises(DataError, match=r"^there are no words: give one or more$"):
        fitted.similarity(["general"], [])
    with pytest.raises(PlanError, match="did you mean 'distance'"):
        fitted.most_similar("general", by="distances")
    with pytest.raises(PlanError, match="n=0"):
        fitted.most_similar("general", 0)
    with pytest.raises(DataError, match="no two known words"):
        fitted.score(["nothing known", "here"])


# -------------------------------------------------------------------- tokens


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "quality" / "words.py"))


def test_a_drawn_table_is_its_mean_at_test_and_normal_in_training(benchmark):
    torch.manual_seed(0)
    table = benchmark["DrawnTable"](torch.nn.Embedding(5, 4), 0.3)
    q = DiagonalNormal(table.weight, 2 * table.log_std)
    p = DiagonalNormal(torch.zeros(5, 4), torch.full((5, 4), -math.log(4.0)))
    torch.testing.assert_close(table.kl(), kl(q, p).sum())
    tokens = torch.zeros(20_000, dtype=torch.long)
    drawn = table.train()(tokens)
    torch.testing.assert_close(drawn.mean(0), table.weight[0], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((4,), 0.3), atol=0.02, rtol=0)
    assert torch.equal(table.eval()(tokens[:2]), table.weight[:1].expand(2, 4))


def test_texts_as_rows_of_words(benchmark):
    rows = benchmark["as_words"](["fox fox car", "bus", "..", "fox car fox"], 2, 2)
    assert rows.tolist() == [[1, 1, 3], [3, 0, 0], [3, 0, 0], [1, 2, 3]]


def test_a_language_model_of_points_and_one_of_normals(benchmark):
    tokens = benchmark["as_words"](planted(60), 20, 5)
    points, drawn = (
        benchmark["spoken_of"](tokens, kind, 1.0, seed=0, epochs=1, held=20)
        for kind in ("points", "Gaussians")
    )
    assert drawn["parameters"] - points["parameters"] == 22 * 64
    for found in (points["mean"], drawn["mean"], drawn["draws"]):
        assert 0 < found["nats"] < 2 * math.log(22)
        assert 0 <= found["ece"] <= 1
