"""Text: vectors that say what texts share, kept without pickle, from any encoder."""

import json
import sys
import unicodedata

import numpy as np
import pytest
import torch

import chartae as ct
from chartae.apps.cli import main
from chartae.core.errors import DataError, PlanError
from chartae.training.text import SentenceEncoder, TextEncoder, texts_in

TOPICS = {
    "sport": ["goal", "match", "team", "player", "league", "coach", "score", "season"],
    "money": ["bank", "stock", "market", "share", "profit", "trade", "price", "growth"],
    "space": ["orbit", "rocket", "planet", "moon", "launch", "satellite", "star", "comet"],
}


def corpus(n=60, seed=0):
    """Texts of one topic each, with words that all topics share."""
    rng = np.random.default_rng(seed)
    topics = [list(TOPICS)[i % 3] for i in range(n)]
    texts = [
        " ".join([*rng.choice(TOPICS[t], 5), *rng.choice(["the", "and", "of", "to"], 4)]) for t in topics
    ]
    return texts, np.array(topics)


def write(path, texts):
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------- tfidf


def test_texts_of_one_topic_are_near_each_other():
    texts, topics = corpus()
    encoder = TextEncoder.fit(texts, dim=8)
    X = encoder.encode(texts)
    assert (X.shape, X.dtype) == ((60, 8), np.float32)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    new, their = corpus(seed=1)
    assert (topics[(encoder.encode(new) @ X.T).argmax(1)] == their).mean() > 0.95


def test_weights_are_those_of_the_formula():
    texts = ["cat cat dog", "dog", "emu"]
    encoder = TextEncoder.fit(texts)
    assert encoder.vocabulary == ("cat", "dog", "emu")
    idf = np.log(4 / (1 + np.array([1, 2, 1]))) + 1
    np.testing.assert_allclose(encoder.idf, idf, rtol=1e-6)
    np.testing.assert_allclose(encoder.components @ encoder.components.T, np.eye(3), atol=1e-5)
    row = np.array([(1 + np.log(2)) * idf[0], idf[1], 0])
    np.testing.assert_allclose(  # as many directions as words: angles stay
        encoder.encode(texts)[0] @ encoder.encode(texts)[1], row[1] / np.linalg.norm(row), atol=1e-5
    )


def test_directions_are_the_best_of_their_number():
    texts, _ = corpus()
    all_of_them = TextEncoder.fit(texts)
    counts = all_of_them.encode(texts) @ all_of_them.components
    few = TextEncoder.fit(texts, dim=3).components
    error = np.linalg.norm(counts - counts @ few.T @ few)
    best = np.sqrt((np.linalg.svd(counts, compute_uv=False)[3:] ** 2).sum())
    assert best <= error * (1 + 1e-5) <= 1.001 * best


def test_dimensions_are_no_more_than_texts_or_words():
    assert TextEncoder.fit(["a red fox", "one blue car"]).components.shape == (2, 6)
    assert TextEncoder.fit(["red fox"]).encode(["red fox"]).shape == (1, 1)


def test_a_text_without_a_known_word_is_zero():
    assert not TextEncoder.fit(["red fox", "blue car"]).encode(["ß", "", "unseen"]).any()


def test_words_are_whole_in_all_scripts_and_in_either_form():
    texts = ["यह किताब बहुत अच्छी है", "दिल्ली भारत की राजधानी है", "हिन्दी भाषा"]
    assert {"किताब", "दिल्ली", "हिन्दी"} <= set(TextEncoder.fit(texts).vocabulary)
    german = ["größere Übung für Köln", "schöne Grüße", "ein Käse aus Bayern"]
    encoder = TextEncoder.fit(german)
    apart = [unicodedata.normalize("NFD", text) for text in german]
    np.testing.assert_array_equal(encoder.encode(apart), encoder.encode(german))


def test_texts_without_words_are_refused():
    with pytest.raises(DataError, match="no text holds a word"):
        TextEncoder.fit(["...", "!"])


def test_it_survives_json_and_tensors(tmp_path):
    texts, _ = corpus()
    encoder = TextEncoder.fit([*texts, "naïve 文字 text"], dim=4)
    config = json.loads(json.dumps(encoder.config()))
    tensors = {k: v.clone() for k, v in encoder.tensors().items()}
    np.testing.assert_array_equal(
        TextEncoder.from_config(config, tensors).encode(texts), encoder.encode(texts)
    )
    for changes, given in (
        ({"kind": "other"}, tensors),
        ({"vocabulary": "words"}, tensors),
        ({"vocabulary": ["one"]}, tensors),
        ({}, {"idf": torch.ones(2)}),
    ):
        with pytest.raises(PlanError):
            TextEncoder.from_config({**config, **changes}, given)


# ------------------------------------------------------------------------------------------------- reading


def test_a_file_of_texts(tmp_path):
    texts, topics = corpus()
    data = ct.read(write(tmp_path / "a.txt", texts), labels=topics)
    assert data.X.shape[0] == 60
    assert data.y.tolist() == topics.tolist()
    assert data.summary.startswith("60 texts of ")
    assert "tfidf of 28 words" in data.note
    again = ct.read(write(tmp_path / "b.txt", texts[:5]), encoder=data.medium)
    np.testing.assert_array_equal(again.X, data.X[:5])
    assert again.medium is data.medium


def test_lines_are_texts(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffred fox\r\n\r\n  blue\u2028car \r\n \r\nlast one".encode())
    with pytest.warns(UserWarning, match="2 of 5 lines are empty and skipped, the first is line 2"):
        texts = texts_in(file)
    assert texts == ["red fox", "blue\u2028car", "last one"]


def test_what_is_no_text_is_refused(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("größer".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        ct.read(file)
    file.write_text("\n \n")
    with pytest.raises(DataError, match="holds no text"):
        ct.read(file)


def test_a_function_may_encode(tmp_path):
    file = write(tmp_path / "a.txt", ["a", "bbb"])

    def length(texts):
        return [[len(text)] for text in texts]

    data = ct.read(file, encoder=length)
    assert (data.X.tolist(), data.medium, data.note) == ([[1], [3]], None, "encoder length")
    for wrong, word in (
        (lambda t: np.zeros(2), r"shape \(2,\)"),
        (lambda t: np.zeros((1, 3)), r"shape \(1, 3\)"),
        (lambda t: np.zeros((2, 0)), r"shape \(2, 0\)"),
        (lambda t: [["x"], ["y"]], "<U1"),
        (lambda t: [[0.0], [np.inf]], "text 1"),
    ):
        with pytest.raises(DataError, match=word):
            ct.read(file, encoder=wrong)


def test_an_unknown_encoder_is_refused(tmp_path):
    file = write(tmp_path / "a.txt", ["one", "two"])
    for name in ("bert", "sentence-transformers/", 3):
        with pytest.raises(DataError, match="no text encoder"):
            ct.read(file, encoder=name)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match="pip install sentence-transformers"):
        ct.read(write(tmp_path / "a.txt", ["one"]), encoder="sentence-transformers/all-MiniLM-L6-v2")


def test_a_model_of_the_package_is_kept_by_its_name(tmp_path, monkeypatch):
    class Model:
        def __init__(self, name):
            assert name == "org/small"

        def encode(self, texts):
            return np.ones((len(texts), 2))

    monkeypatch.setitem(sys.modules, "sentence_transformers", type(sys)("fake"))
    sys.modules["sentence_transformers"].SentenceTransformer = Model
    data = ct.read(write(tmp_path / "a.txt", ["one", "two"]), encoder="sentence-transformers/org/small")
    assert data.X.tolist() == [[1, 1], [1, 1]]
    assert SentenceEncoder.from_config(json.loads(json.dumps(data.medium.config()))) == data.medium
    with pytest.raises(PlanError):
        SentenceEncoder.from_config({"kind": "tfidf"})


def test_a_run_reads_further_texts_as_it_read_the_first(tmp_path):
    """Other texts have other words: with an encoder of their own, their codes would mean nothing."""
    words = np.array(["red", "blue", "green", "fox", "car", "tree", "runs", "stands", "sleeps"])
    lines = [" ".join(row) for row in np.random.default_rng(0).choice(words, (60, 5))]
    (tmp_path / "all.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "some.txt").write_text("\n".join(lines[:7]), encoding="utf-8")
    run, codes = str(tmp_path / "run"), str(tmp_path / "codes.npy")
    options = ["--latent-dim", "2", "--epochs", "2", "--seed", "0", "-q"]
    assert main(["fit", str(tmp_path / "all.txt"), "--out", run, *options]) == 0
    assert main(["encode", run, str(tmp_path / "some.txt"), "--out", codes]) == 0
    model, data = ct.load(run), ct.read(str(tmp_path / "all.txt"))
    np.testing.assert_allclose(np.load(codes), model.transform(data.X)[:7], atol=1e-6)
    np.testing.assert_array_equal(model.medium_.encode(lines), data.X)
    assert ct.load_decoder(model.export_decoder(tmp_path / "decoder")).medium_ is not None
