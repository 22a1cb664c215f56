"""Texts under a latent: probabilities that add up, teacher forcing, generation, text VAEs and captions."""

import inspect
import itertools
import json
import pickle
import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from torch import nn
from typer.testing import CliRunner

import chartae as ct
from chartae.apps.cli import app, main
from chartae.core.contracts import Batch, RawCondition
from chartae.core.errors import DataError, PackageError, PlanError, RunFolderError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.models.spoken import spoken
from chartae.parts.distributions import Sequences
from chartae.parts.likelihoods import SequenceLikelihood
from chartae.parts.networks import TokenDecoder, TokenEncoder
from chartae.parts.objectives import KL
from chartae.parts.units import infer_space
from chartae.training.splits import apart
from chartae.training.tokens import BytePairs, Bytes, tokenized

LEVELS, LENGTH = 4, 3  # two symbols, the end, and what fills rows up
EVERY = torch.tensor(list(itertools.product(range(LEVELS), repeat=LENGTH)), dtype=torch.float32)
SMALL = {"hidden": (16,), "random_state": 0}
TEXTS = ["a red fox", "a gray fox", "a red car", "one"] * 10


def sequences(z=2, c=1, hide=0.0, length=LENGTH, levels=LEVELS, context=None) -> Sequences:
    """Two draws of three rows, under random weights that are large enough for symbols to differ."""
    torch.manual_seed(0)
    decoder = TokenDecoder(levels, length, z, c, hidden=(8, 8), context=context)
    with torch.no_grad():
        decoder.token.weight *= 4
    return Sequences(decoder, torch.randn(2, 3, z), torch.randn(3, c) if c else None, length, levels, hide)


# ------------------------------------------------------------------- probabilities


@pytest.mark.parametrize(("z", "c"), [(2, 1), (2, 0), (0, 1), (0, 0)])
def test_the_probabilities_of_all_rows_sum_to_one(z, c):
    p = sequences(z, c)
    mass = p.log_prob(EVERY[:, None, None]).exp()
    assert mass.shape == (LEVELS**LENGTH, 2, 3)
    torch.testing.assert_close(mass.sum(0), torch.ones(2, 3))
    ends = (EVERY == LEVELS - 1).sum(1) == 1
    places = (EVERY == LEVELS - 1).float().argmax(1)[:, None] if ends.any() else None
    proper = ends & ((EVERY == 0) == (torch.arange(LENGTH) > places)).all(1)
    assert int(proper.sum()) == 1 + 2 + 4  # of no, one and two symbols
    assert (mass[proper] > 0).all()
    assert (mass[~proper] == 0).all()


@pytest.mark.parametrize("context", [None, 1, 2, 3])
@pytest.mark.parametrize("z", [2, 0])
def test_a_row_s_probability_is_the_product_of_its_steps(z, context):
    """Teacher forcing in one pass says what generation says one token after the other."""
    p = sequences(z, z // 2, length=6, context=context)
    rows = p.draw(4, Noise(0)).z
    h, c = p._under(rows.shape[:-1])
    flat, state = rows.flatten(0, -2).long(), p.speaker.begin(h, c)
    token, total = torch.full((len(flat),), LEVELS - 1), torch.zeros(len(flat))
    for place in range(6):
        logits, state = p.speaker.step(token, state)
        token = flat[:, place]
        if place < 5:  # the last place holds the end, if no place before did
            told = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
            total += torch.where(token == 0, 0.0, told)
    torch.testing.assert_close(p.log_prob(rows), total.reshape(4, 2, 3))
    each = p.log_prob(rows, per_dim=True)
    assert each.shape == rows.shape
    torch.testing.assert_close(each.sum(-1), p.log_prob(rows))


def test_what_comes_later_changes_nothing_before():
    p = sequences(length=5, levels=9)
    a, b = torch.tensor([1.0, 2, 3, 4, 8]), torch.tensor([1.0, 2, 5, 8, 0])
    one, other = (p.log_prob(v, per_dim=True) for v in (a, b))
    torch.testing.assert_close(one[..., :2], other[..., :2])
    assert not torch.isclose(one[..., 2:4], other[..., 2:4]).any()


@pytest.mark.parametrize("context", [1, 2, 3])
def test_a_short_context_ends_what_a_token_depends_on(context):
    """Two blocks reach back twice as far, and the code and the condition are seen from everywhere."""
    p = sequences(length=8, levels=9, context=context)
    tokens = torch.tensor([[8, 1, 2, 3, 4, 5, 6, 7]]).repeat(3, 1)
    before = p.speaker(p.h[0], p.c, tokens)
    tokens[:, 0] = 1
    after, reach = p.speaker(p.h[0], p.c, tokens), 2 * (context - 1)
    assert not torch.isclose(before[:, : reach + 1], after[:, : reach + 1]).all(-1).any()
    torch.testing.assert_close(before[:, reach + 1 :], after[:, reach + 1 :])
    assert not torch.isclose(before, p.speaker(p.h[1], p.c, tokens)).all(-1).any()
    with pytest.raises(PlanError, match=r"context=0: a token is told by one token before it or more"):
        TokenDecoder(4, 3, 2, context=0)


def test_a_short_context_is_a_parameter_of_a_text_vae_alone(tmp_path):
    vae = ct.TextVAE(latent_dim=2, context=2, max_epochs=1, **SMALL).fit(TEXTS)
    vae.save(tmp_path / "run")
    again = ct.load(tmp_path / "run")
    assert again.context == again.model_.likelihood.network.context == 2
    np.testing.assert_array_equal(again.transform(TEXTS[:3]), vae.transform(TEXTS[:3]))
    assert again.sample(3, random_state=0) == vae.sample(3, random_state=0)
    with pytest.raises(PlanError, match="context=2 is of texts, said token after token: leave it out"):
        build("vae", (4,), context=2)


def test_a_text_vae_offers_what_texts_have():
    said = inspect.getdoc(ct.TextVAE)
    for name, words in {"network": "conv2d", "hidden": "mirrored", "likelihood": "poisson"}.items():
        assert len(re.findall(rf"^{name} : ", said, flags=re.M)) == 1
        assert words not in said
        assert words in inspect.getdoc(ct.VAE)
    with pytest.raises(PlanError, match="likelihood='normal' is not of texts: leave it out"):
        ct.TextVAE(likelihood="normal", **SMALL).fit(TEXTS)


def test_a_short_context_is_a_whole_number_of_a_transformer():
    with pytest.raises(PlanError, match="context='a': a token is told by one"):
        build("vae", infer_space(np.array([[1, 2], [2, 0]]), likelihood="sequence"), context="a")
    with pytest.raises(PlanError, match="needs network='transformer'"):
        ct.TextVAE(network="mlp", context=2, **SMALL).fit(TEXTS)


def test_texts_that_there_was_no_time_for_are_kept_as_they_began():
    vae = ct.TextVAE(latent_dim=2, max_time=1e-6, **SMALL).fit(TEXTS)
    assert vae.n_iter_ == 0
    assert vae.transform(TEXTS).shape == (len(TEXTS), 2)


def test_what_fills_a_row_up_counts_for_nothing():
    """Neither as more places, nor as rows beside it that are longer."""
    p = sequences(length=7)
    short, long = torch.tensor([1.0, 3, 0, 0, 0, 0, 0]), torch.tensor([1.0, 2, 2, 1, 2, 3, 0])
    alone = p.log_prob(short)
    beside = p.log_prob(torch.stack([short, long])[:, None, None])[0]
    torch.testing.assert_close(alone, beside)
    assert (p.log_prob(short, per_dim=True)[..., 2:] == 0).all()
    x = torch.tensor([[1.0, 3, 0, 0], [1.0, 2, 2, 3]])
    encoder = TokenEncoder(LEVELS, 4, 5, hidden=(8,)).eval()
    with torch.no_grad():
        encoder.token.weight[0] += 1
        before = encoder(x)
        encoder.token.weight[0] += 1
        encoder.place.weight[2:] *= 3
        torch.testing.assert_close(encoder(x)[0], before[0])
        assert not torch.isclose(encoder(x)[1], before[1]).any()


def test_draws_come_as_often_as_they_are_likely():
    """Each of the seven rows within 5 standard errors: a false alarm in fewer than one of 10^5 runs."""
    p = sequences()
    n = 4000
    drawn = p.draw(n, Noise(0)).z
    mass = p.log_prob(EVERY[:, None, None]).exp()
    seen = torch.stack([(drawn == row).all(-1).float().mean(0) for row in EVERY])
    assert ((seen - mass).abs() <= 5 * (mass * (1 - mass) / n).sqrt() + 1e-9).all()


def test_generation_is_that_of_its_seed_and_the_point_is_greedy():
    p = sequences(length=6)
    assert torch.equal(p.draw(3, Noise(1)).z, p.draw(3, Noise(1)).z)
    assert not torch.equal(p.draw(30, Noise(1)).z, p.draw(30, Noise(2)).z)
    taken = p.log_prob(p.point(), per_dim=True)[..., 0]
    end = LEVELS - 1
    for first in (1, 2, end):  # nothing is likelier at the first place than what was taken
        other = torch.tensor([first, 0 if first == end else end, 0, 0, 0, 0]).float()
        assert (p.log_prob(other, per_dim=True)[..., 0] <= taken + 1e-6).all()


def test_words_are_hidden_in_training_only():
    torch.manual_seed(0)
    likelihood = SequenceLikelihood(TokenDecoder(9, 6, 2, hidden=(8,)), (6,), levels=9, hide=0.5)
    z, x = torch.zeros(1, 1, 2), torch.tensor([1.0, 2, 3, 4, 5, 8])

    def values() -> set[float]:
        return {round(float(likelihood(z).log_prob(x).detach()), 5) for _ in range(8)}

    assert len(likelihood.train() and values()) > 4
    assert len(likelihood.eval() and values()) == 1


def test_the_code_and_the_condition_matter():
    p = sequences()
    row = torch.tensor([1.0, 3, 0])
    h = p.h.clone().requires_grad_()
    c = p.c.clone().requires_grad_()
    Sequences(p.speaker, h, c, LENGTH, LEVELS).log_prob(row).sum().backward()
    assert (h.grad != 0).all()
    assert (c.grad != 0).all()


def test_the_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    space = Space((5,), "sequence", levels=7)
    plan = build(
        "cyclical-vae", space, latent_dim=2, hidden=(8,), activation="tanh", condition={"n_labels": 2}
    )
    x = torch.randint(1, 6, (40, 5)).float()
    x[torch.arange(40), torch.arange(40) % 5] = 6
    x = x.masked_fill((x == 6).cumsum(1) - (x == 6).long() > 0, 0)
    assert infer_space(x.numpy(), likelihood="sequence").levels == 7
    plan.model.train()
    batch = Batch(x, RawCondition(label=torch.arange(40) % 2))
    terms = plan.objective(plan.model.trace(batch, k=1, noise=Noise(0)))
    sum(term.value() for term in terms.values()).backward()
    untouched = [n for n, p in plan.model.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert untouched == []


# ------------------------------------------------------------------- schedule


@pytest.mark.parametrize(("warmup", "cycles"), [(10.0, 1), (7.0, 4), (6.0, 2)])
def test_the_weight_of_the_kl_follows_fu_et_al(warmup, cycles):
    """Equations 6 and 7 with R = 1/2, of M cycles that are T / M long; and after them all is 1."""
    kl, period = KL(warmup=warmup, cycles=cycles), warmup / (cycles - 0.5)
    rises = 0
    for epoch in np.linspace(0, 1.5 * warmup, 200):
        kl.advance(epoch)
        tau = (epoch % period) / period
        expected = min(1.0, tau / 0.5) if epoch < warmup else 1.0
        assert float(kl.share) == pytest.approx(expected, abs=1e-6)
        rises += tau < 0.01
    kl.advance(warmup - 1e-9)
    assert float(kl.share) == pytest.approx(1.0, abs=1e-6)
    assert kl.warmup == warmup
    with pytest.raises(PlanError, match="cycles=0"):
        KL(warmup=1, cycles=0)


# ------------------------------------------------------------------- texts as tokens


def test_texts_come_back():
    texts = ["a fox", "Köln, 東京", "x", "\0\x7f", "🦊"]
    medium = Bytes.fit(texts)
    tokens = medium.encode(texts)
    assert medium.decode(tokens) == texts
    assert medium.max_length == len("Köln, 東京".encode())
    assert infer_space(tokens, likelihood="sequence").levels == 258
    assert Bytes.from_config(medium.config(), {}) == medium
    assert Bytes(3).decode(np.array([[200, 257, 0, 0]])) == ["�"]


@pytest.mark.parametrize("last", [127, 128, 32_767, 32_768])
def test_the_type_of_tokens_holds_the_last(last):
    class Many(Bytes):
        end = last

    assert Many(2).encode(["a"]).tolist() == [[98, last, 0]]


def test_byte_pairs_know_every_text_and_make_shorter_rows():
    learned = ["the small red fox", "the large gray fox", "a small fox"] * 3
    medium = BytePairs.fit(learned, 400, max_length=60)
    every = [chr(i) for i in (*range(1, 0x3000, 61), 0xFFFD, 0xFFFF, 0x1F98A, 0x10FFFF)]
    texts = [*learned, *every, " two  spaces ", "a\n\r\n\tb", "\0\x7f", "e\u0301 \u00e9", "Köln, 東京 🦊"]
    assert medium.decode(medium.encode(texts)) == texts
    assert BytePairs.fit(learned, 400).max_length <= 4 < Bytes.fit(learned).max_length
    # Its largest number ends every row, so that the space knows how many there are.
    assert infer_space(medium.encode(["fox"]), likelihood="sequence").levels == medium.end + 1
    # A piece that ends within a character.
    assert medium.decode(medium.encode(["é"])[:, :1]) == ["\ufffd"]


def test_byte_pairs_are_the_same_for_the_same_texts(monkeypatch):
    medium = BytePairs.fit(TEXTS, 300)
    assert BytePairs.fit(TEXTS[::-1], 300) == medium
    assert BytePairs.from_config(json.loads(json.dumps(medium.config()))) == medium
    assert pickle.loads(pickle.dumps(medium)).decode(medium.encode(TEXTS)) == TEXTS
    with pytest.raises(PlanError, match="no vocabulary of byte pairs"):
        BytePairs(3, "{}")
    with pytest.raises(PlanError, match="give 256 or more"):
        BytePairs.fit(TEXTS, 100)
    with pytest.raises(PlanError, match="give 'bytes', 'bpe'"):
        tokenized(TEXTS, "words")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PackageError, match=r"^byte pairs need tokenizers: pip install 'chartae\[text\]'$"):
        BytePairs.fit(TEXTS)


def test_models_of_byte_pairs_are_kept_with_their_vocabulary(tmp_path):
    vae = ct.TextVAE(tokens=300, latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(TEXTS)
    captioner = ct.Captioner(tokens="bpe", hidden=(32,), max_epochs=40, learning_rate=0.01, random_state=0)
    captioner.fit(np.repeat(np.eye(2), 50, axis=0), ["one fox"] * 50 + ["two dogs"] * 50)
    assert captioner.caption(np.eye(2)) == ["one fox", "two dogs"]
    vae.save(tmp_path / "vae")
    captioner.save(tmp_path / "captioner")
    again, said = ct.load(tmp_path / "vae"), ct.Captioner.load(tmp_path / "captioner")
    assert again.medium_ == vae.medium_
    assert again.sample(5, random_state=0) == vae.sample(5, random_state=0)
    np.testing.assert_array_equal(again.transform(TEXTS), vae.transform(TEXTS))
    assert said.medium_ == captioner.medium_
    assert said.caption(np.eye(2)) == captioner.caption(np.eye(2))
    np.testing.assert_array_equal(*(m.score_samples(np.eye(2), ["one fox"] * 2) for m in (said, captioner)))


def test_a_long_text_among_short_ones_is_cut():
    long = "x" * 200_000
    with pytest.warns(
        UserWarning, match=r"^1 of 41 texts cut to 512 bytes \(the longest has 200,000\): fit with "
    ):
        vae = ct.TextVAE(latent_dim=2, max_epochs=1, batch_size=41, hidden=(8,), random_state=0).fit(
            [*TEXTS, long]
        )
    assert vae.medium_.max_length == 512
    with pytest.warns(UserWarning, match="1 of 2 texts cut to 512 bytes"):
        codes = vae.transform([long, "x" * 512])
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-5)
    assert tokenized([long], max_length=2000).max_length == 2000
    assert tokenized([*TEXTS, long], "bpe").max_length <= 512


def test_a_decoder_that_uses_a_code_of_few_nats_is_no_reason_to_warn():
    """Of two texts a code need say no more than log 2 nats, and with another's a text is far less likely."""
    texts = ["the red fox runs", "a gray car stands"] * 50
    vae = ct.TextVAE(latent_dim=1, hidden=(16,), max_epochs=30, learning_rate=5e-3, free_bits=0.7, cycles=1,
                     patience=None, random_state=0)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vae.fit(texts).history_[-1]["kl"] < 2


def test_texts_that_are_all_the_same_are_told_of(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("a red fox\n" * 20, encoding="utf-8")
    for fit in (
        lambda: ct.TextVAE(latent_dim=2, max_epochs=1, **SMALL).fit(["a red fox"] * 20),
        lambda: ct.VAE(latent_dim=1, max_epochs=1, **SMALL).fit(ct.read(file)),
    ):
        with pytest.warns(
            UserWarning, match="all texts are the same, and there is nothing to learn"
        ) as caught:
            fit()
        assert len(caught) == 1


def test_one_text_is_too_few():
    with pytest.raises(DataError, match=r"^there is 1 text, and a model needs two or more: give more$"):
        ct.TextVAE(**SMALL).fit(["a red fox"])


def test_items_that_are_no_texts_are_refused_as_what_they_are(memorized):
    for X in (np.zeros((5, 8, 8)), np.zeros((5, 3))):
        with pytest.raises(
            DataError, match=r"^items have shape .*, and the model was fitted on \(11,\), which texts"
        ):
            memorized.transform(X)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], "text 1 (from 0) is empty: leave it out"),
        (["a", "a\ud800"], "text 1 (from 0) holds half of a character: read it with errors='replace'"),
        (["a", 3], "text 1 (from 0) is of type int: give str"),
        (["a", None], "text 1 (from 0) is of type NoneType: give str"),
        ("fox", "texts are a list of str, and this is a str: put it in a list"),
        (5, "texts are a list of str, and this is a int: put it in a list"),
        ([], "there are no texts: give one or more"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_in_one_line(texts, message):
    for use in (
        lambda: ct.TextVAE(max_length=3, **SMALL).fit(texts),
        lambda: ct.Captioner(max_length=3, **SMALL).fit(
            np.zeros((len(list(texts)) if texts != 5 else 1, 2)), texts
        ),
    ):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "tokens",
    [
        [[1, 2, 0], [2, 0, 0], [1, 1, 1]],  # a row without an end
        [[1, 3, 2], [3, 0, 0], [1, 3, 0]],  # one that goes on after it
        [[0, 3, 0], [3, 0, 0], [1, 3, 0]],  # one with nothing in between
        [[1.5, 3, 0], [3, 0, 0], [1, 3, 0]],
        [[-1, 3, 0], [3, 0, 0], [1, 3, 0]],
    ],
)
def test_rows_that_are_none_of_tokens_are_refused(tokens):
    with pytest.raises(DataError, match="rows of whole numbers from 1, each ended by the largest"):
        ct.VAE(likelihood="sequence", latent_dim=1, **SMALL).fit(np.array(tokens))


def test_parts_that_do_not_fit_together_are_refused():
    tokens = Bytes(4).encode(["a", "b"] * 10)
    for parameters, message in (
        ({"network": "mlp"}, "needs network='transformer'"),
        ({"hidden": (8, 16)}, "layers of one width"),
        ({"hidden": (65,)}, "multiple of 32"),
    ):
        with pytest.raises(PlanError, match=message):
            ct.VAE(likelihood="sequence", latent_dim=1, **{**SMALL, **parameters}).fit(tokens)
    with pytest.raises(PlanError, match="likelihood='sequence'"):
        ct.VAE(network="transformer", latent_dim=1, **SMALL).fit(
            np.random.default_rng(0).normal(size=(20, 4))
        )
    with pytest.raises(PlanError, match="use 'concat'"):
        ct.CVAE(likelihood="sequence", conditioning="film", latent_dim=1, **SMALL).fit(tokens, [0, 1] * 10)


# ------------------------------------------------------------------- text VAEs


@pytest.fixture(scope="module")
def memorized() -> ct.TextVAE:
    model = ct.TextVAE(
        latent_dim=2, hidden=(32,), max_epochs=100, warmup=10, cycles=1, learning_rate=2e-3, batch_size=20,
        patience=None, free_bits=2.0, random_state=0,
    )  # fmt: skip
    return model.fit(TEXTS)


def test_a_memorized_text_is_said(memorized):
    """Reconstructions are the texts, so the code tells them apart, and no text is far from likely."""
    assert memorized.reconstruct(TEXTS[:4]) == TEXTS[:4]
    assert memorized.inverse_transform(memorized.transform(TEXTS[:4])) == TEXTS[:4]
    assert memorized.history_[-1]["kl"] > np.log(4)
    nats = memorized.score_samples(TEXTS[:4])
    assert nats.shape == (4,)
    assert (nats < 0).all()
    assert nats.mean() > -4  # log 4 for the choice, and what free bits cost
    assert set(memorized.sample(20, random_state=0)) & set(TEXTS)
    assert memorized.sample(5, random_state=0) == memorized.sample(5, random_state=0)
    path = memorized.interpolate(TEXTS[0], TEXTS[3], steps=5)
    assert len(path) == 5
    assert (path[0], path[-1]) == (TEXTS[0], TEXTS[3])


def test_draws_of_what_is_not_missing_are_refused(memorized):
    with pytest.raises(DataError, match="n_draws=2 are of what is missing"):
        memorized.reconstruct(TEXTS[:4], n_draws=2, random_state=0)


def test_texts_may_come_one_after_the_other():
    model = ct.TextVAE(**{**SMALL, "max_epochs": 1, "latent_dim": 2})
    assert len(model.fit(text for text in TEXTS).transform(TEXTS)) == len(TEXTS)


def test_a_text_is_not_cut_within_a_character():
    texts = ["Привет мир", "日本語テキスト", "naïve 🦊", "abcdefgh", "é"]
    with pytest.warns(UserWarning, match="cut to 5"):
        rows = Bytes(5).encode(texts)
    assert Bytes(5).decode(rows) == ["Пр", "日", "naïv", "abcde", "é"]
    with pytest.warns(UserWarning, match="cut to 2"):  # of less than a character nothing whole is left
        assert Bytes(2).decode(Bytes(2).encode(["日本"])) == ["�"]


def test_what_texts_have_no_place_for_is_refused(memorized):
    with pytest.raises(PlanError, match=r"tokens are names: use \('masking', 0.3\)"):
        ct.TextVAE(corruption=0.3, max_epochs=1, **SMALL).fit(TEXTS)
    said = ct.Autoencoder(recipe="cvae", likelihood="sequence", latent_dim=1, max_epochs=1, **SMALL)
    said.fit(np.tile([[1, 2, 3], [2, 1, 3]], (10, 1)), np.arange(20) % 2)
    with pytest.raises(PlanError, match="texts are said token after token: leave it out"):
        said.sample(2, 1, guidance=2.0)
    texts = ct.ProbabilisticEmbedding(memorized, method="reconstruction").fit(TEXTS)
    with pytest.raises(PlanError, match="of numbers, and these are texts: use by='distance'"):
        texts.similarity(TEXTS[:1], TEXTS[1:2], by="decoded")


def test_a_decoder_that_does_without_the_code_is_told_of():
    """Of 27 texts; with no free bits the code is not used, and with the default it is."""
    rng = np.random.default_rng(0)
    words = (["light", "plain", "bold"], ["one", "two", "three"], ["left", "up", "right"])
    texts = [" ".join(rng.choice(kind) for kind in words) for _ in range(200)]
    few = ct.TextVAE(
        hidden=(16,),
        max_epochs=20,
        learning_rate=5e-3,
        validation_fraction=0.1,
        patience=None,
        random_state=0,
    )
    assert min(h["val_kl"] for h in few.fit(texts).history_[-5:]) > 2
    with pytest.warns(
        UserWarning, match=r"a row is only 0\.00 nats less likely, .*: fit with free_bits=0\.5 or context=3$"
    ):
        few.set_params(free_bits=0.0, max_epochs=10).fit(texts)
    assert few.history_[-1]["val_kl"] < 0.1


def test_a_text_vae_is_kept(memorized, tmp_path):
    same = ct.load(memorized.save(tmp_path / "run"))
    assert type(same) is ct.TextVAE
    np.testing.assert_array_equal(same.transform(TEXTS), memorized.transform(TEXTS))
    np.testing.assert_array_equal(same.score_samples(TEXTS[:4]), memorized.score_samples(TEXTS[:4]))
    generator = ct.load_decoder(memorized.export_decoder(tmp_path / "decoder"))
    assert generator.sample(3, random_state=0) == memorized.sample(3, random_state=0)
    with pytest.warns(
        UserWarning, match=r"1 of 1 texts cut to 10 bytes \(the longest has 12\): .*max_length=12"
    ):
        same.transform(["a purple fox"])


def test_scores_of_rows_do_not_depend_on_others(memorized):
    together = memorized.score_samples(TEXTS[:4])
    alone = np.concatenate([memorized.score_samples([text]) for text in TEXTS[:4]])
    np.testing.assert_allclose(together, alone, rtol=1e-4)


@pytest.mark.parametrize("parameter", [{"tokens": None}, {"tokens": ["bpe"]}, {"max_length": 3.7}])
def test_parameters_are_looked_at_before_texts(parameter):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameter))}' parameter of TextVAE must be"):
        ct.TextVAE(**parameter, **SMALL).fit(["a fox"] * 20)


def test_any_recipe_takes_tokens():
    tokens = Bytes.fit(TEXTS).encode(TEXTS)
    for recipe in ("ae", "beta-vae", "vq-vae"):
        model = ct.Autoencoder(recipe=recipe, likelihood="sequence", latent_dim=4, max_epochs=1, **SMALL)
        assert model.fit(tokens).project(tokens[:3]).shape == (3, tokens.shape[1])
    cvae = ct.CVAE(likelihood="sequence", latent_dim=2, max_epochs=1, **SMALL).fit(tokens, [0, 1] * 20)
    assert cvae.sample(3, condition=1, random_state=0).shape == (3, tokens.shape[1])


def test_geometry_of_tokens_is_refused(memorized):
    for ask in (
        memorized.chart,
        lambda: ct.audit(memorized, TEXTS),
        lambda: ct.control_report(memorized, TEXTS, TEXTS),
    ):
        with pytest.raises(PlanError, match=r"and tokens do not: look at codes, scores and samples$"):
            ask()


def test_codes_of_texts_are_drawn(memorized):
    ax = ct.plot(memorized, TEXTS, [text[-1] for text in TEXTS], ax=Figure().subplots())
    drawn = np.concatenate([dots.get_offsets() for dots in ax.collections])
    np.testing.assert_allclose(np.sort(drawn, 0), np.sort(memorized.transform(TEXTS), 0), rtol=1e-5)


# ------------------------------------------------------------------- captions


def images(n=200, seed=0):
    """Squares at one of two places, bright or dim, and what to say of them."""
    rng = np.random.default_rng(seed)
    X, texts = rng.normal(0, 0.05, (n, 4, 6)), []
    for x in X:
        right, bright = rng.random(2) < 0.5
        x[1:3, 3 * right : 3 * right + 2] += 2.0 if bright else 1.0
        texts.append(f"{'bright' if bright else 'dim'}, {'right' if right else 'left'}")
    return X.reshape(n, -1).astype(np.float32), texts


@pytest.fixture(scope="module")
def captioner() -> ct.Captioner:
    X, texts = images()
    ae = ct.AE(latent_dim=2, hidden=(32,), max_epochs=40, random_state=0).fit(X)
    return ct.Captioner(
        ae, hidden=(32,), max_epochs=25, learning_rate=5e-3, batch_size=32, random_state=0
    ).fit(X, texts)


def test_captions_are_said_of_items_that_were_not_seen(captioner):
    X, texts = images(60, seed=1)
    assert captioner.score(X, texts) > 0.9
    assert captioner.caption(X) == captioner.caption(X)
    nats = captioner.score_samples(X, texts)
    wrong = captioner.score_samples(X, texts[1:] + texts[:1])
    assert nats.mean() > -0.5
    assert (nats >= wrong - 1e-3).mean() > 0.9
    drawn = captioner.caption(X, sampled=True, random_state=0)
    assert drawn == captioner.caption(X, sampled=True, random_state=0)
    assert len(captioner.validation_rows_) == 20
    assert captioner.history_[-1]["val_nll"] < captioner.history_[0]["val_nll"]


def test_a_captioner_is_kept_with_its_encoder(captioner, tmp_path):
    X, texts = images(20, seed=2)
    path = captioner.save(tmp_path / "run")
    assert not list(path.rglob("*.pkl"))
    same = ct.Captioner.load(path)
    assert same.caption(X) == captioner.caption(X)
    np.testing.assert_array_equal(same.score_samples(X, texts), captioner.score_samples(X, texts))
    captioner.save(path, overwrite=True)
    with pytest.raises(RunFolderError, match=r"holds a captioner: open it with Captioner\.load"):
        ct.load(path)
    with pytest.raises(RunFolderError, match=r"holds a model: open it with chartae\.load"):
        ct.Captioner.load(path / "encoder")


def test_a_captioner_is_opened_with_its_own_encoder_alone(captioner, tmp_path):
    path = captioner.save(tmp_path / "run")
    X = images(40)[0]
    ct.VAE(latent_dim=4, hidden=(8,), max_epochs=1, random_state=1).fit(X).save(
        path / "encoder", overwrite=True
    )
    with pytest.raises(RunFolderError, match="is not the encoder of this captioner"):
        ct.Captioner.load(path)


def test_a_captioner_whose_encoder_cannot_be_kept_leaves_nothing(tmp_path):
    class Remembers(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    X, texts = images(40)
    vae = ct.VAE(latent_dim=2, network=(Remembers(24, 8), nn.Linear(2, 24)), max_epochs=1, random_state=0)
    said = ct.Captioner(vae, max_epochs=1, **SMALL).fit(X, texts)
    with pytest.raises(PlanError):
        said.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_captioner_says_how_to_open_modules_of_yours(tmp_path):
    X, texts = images(40)
    pair = nn.Linear(24, 8), nn.Linear(2, 24)
    vae = ct.VAE(latent_dim=2, network=pair, max_epochs=1, random_state=0)
    said = ct.Captioner(vae, max_epochs=1, **SMALL).fit(X, texts)
    path = said.save(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"open it by chartae\.load.*pass that as encoder="):
        ct.Captioner.load(path)
    again = ct.Captioner.load(path, encoder=ct.load(path / "encoder", network=pair))
    assert again.caption(X[:5]) == said.caption(X[:5])


@pytest.mark.parametrize("encoder", [PCA(2), nn.Linear(24, 3), None], ids=["PCA", "module", "codes"])
def test_any_encoder_will_do(encoder, tmp_path):
    X, texts = images(40)
    said = ct.Captioner(encoder, max_epochs=1, **SMALL).fit(X, texts)
    path = said.save(tmp_path / "run")
    again = ct.Captioner.load(path, encoder=said.encoder_)
    assert again.caption(X[:5]) == said.caption(X[:5])
    if encoder is not None:
        with pytest.raises(RunFolderError, match="pass it as encoder="):
            ct.Captioner.load(path)


@pytest.mark.parametrize("kind", [bool, np.uint16, np.float64])
def test_codes_of_any_number_are_captioned(kind):
    codes = np.eye(4, dtype=kind)
    captioner = ct.Captioner(max_epochs=1, **SMALL).fit(codes, list("abcd"))
    wanted = captioner.score_samples(codes.astype(np.float32), list("abcd"))
    np.testing.assert_allclose(captioner.score_samples(codes, list("abcd")), wanted, rtol=1e-6)


def test_bad_input_of_a_captioner_is_refused_in_one_line(captioner):
    X, texts = images(20)
    with pytest.raises(DataError, match="there are 20 items and 19 texts: give one for each"):
        ct.Captioner(**SMALL).fit(X, texts[1:])
    for hidden in ((0,), (32.5,), (8, 16), ()):
        with pytest.raises(PlanError, match="layers of one width"):
            ct.Captioner(hidden=hidden).fit(X, texts)
    with pytest.raises(DataError, match="there are 20 items and 19 texts: give one for each"):
        captioner.score(X, texts[1:])
    with pytest.warns(UserWarning, match="1 of 1 texts cut to"):
        captioner.score_samples(X[:1], ["a text that is longer than all of those that were learned"])


def test_an_item_with_several_texts_is_on_one_side():
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 3))
    kept, held_out = apart(np.eye(100)[rows], 0.25, 0)
    assert sorted([*kept, *held_out]) == list(range(300))
    assert len(held_out) == 75
    assert not np.isin(rows[held_out], rows[kept]).any()


def test_rows_are_equal_however_they_are_kept():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.integers(0, 3, (60, 5)), 2, axis=0).astype(float)
    for other in (csr_matrix(X), pd.DataFrame(X)):
        kept, held_out = apart(other, 0.25, 0)
        assert not {*map(tuple, X[held_out])} & {*map(tuple, X[kept])}
    assert len(held_out) == 30


def test_a_kind_that_comes_often_is_no_item():
    """Of 2,000 equal rows and 200 others a tenth is held out, none of them equal to one that is kept."""
    X = np.concatenate([np.zeros(2000), np.arange(1.0, 201.0)])
    for seed in range(5):
        kept, held_out = apart(X, 0.05, seed)
        assert len(held_out) == 110
        assert X[held_out].all()
        assert not np.isin(X[held_out], X[kept]).any()


@pytest.mark.parametrize("share", [0.1, 0.99])
def test_neither_side_is_empty(share):
    kept, held_out = apart(np.arange(4.0), share, 0)
    assert sorted([*kept, *held_out]) == [0, 1, 2, 3]
    assert len(kept) >= 1
    assert len(held_out) >= 1


def test_no_kind_of_few_is_held_out_whole():
    rows = np.repeat(np.arange(3), 100)
    kept, held_out = apart(np.eye(3)[rows], 0.25, 0)
    assert len(held_out) == 75
    assert set(rows[kept]) == {0, 1, 2}


def test_a_language_model_has_no_code():
    space = infer_space(Bytes.fit(TEXTS).encode(TEXTS), likelihood="sequence")
    plan = spoken(space, hidden=(8,))
    assert plan.model.latent_dim == 0
    x = torch.from_numpy(Bytes.fit(TEXTS).encode(TEXTS[:2])).float()
    assert plan.model.trace(Batch(x), k=1, noise=Noise(0)).log_lik.shape == (1, 2)


# ------------------------------------------------------------------- command line


def test_the_command_line_learns_captions_and_says_them(tmp_path, captioner, capsys):
    X, texts = images(60)
    run, data, file = tmp_path / "run", tmp_path / "x.npy", tmp_path / "texts.txt"
    captioner.encoder_.save(run)
    np.save(data, X)
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    words = [
        "caption",
        str(run),
        str(data),
        "--texts",
        str(file),
        "--out",
        str(tmp_path / "said"),
        "--epochs",
        "2",
    ]
    assert main([*words, "--tokens", "words"]) == 2
    assert "'words'" in capsys.readouterr().err
    assert main([*words, "--tokens", "bpe"]) == 0
    assert ct.Captioner.load(tmp_path / "said").medium_.kind == "byte-pairs"
    capsys.readouterr()
    assert main([*words, "--overwrite"]) == 0
    said = capsys.readouterr().out
    assert "learned   54 texts, and told 6 others" in said
    assert "nats" in said
    assert main(["caption", str(tmp_path / "said"), str(data), "--out", str(tmp_path / "new.txt")]) == 0
    lines = (tmp_path / "new.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ct.Captioner.load(tmp_path / "said").caption(X)
    assert main(["caption", str(tmp_path / "said"), str(data), "--epochs", "9", "--seed", "0"]) == 2
    assert "said has learned to say texts: leave out --epochs and --seed" in capsys.readouterr().err


def test_the_command_line_fits_texts_and_says_them(tmp_path, capsys):
    run, file = str(tmp_path / "run"), tmp_path / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS * 15), encoding="utf-8")
    tokens = ["--encoder", "bytes"]
    words = ["--recipe", "cyclical-vae", "--latent-dim", "2", "--hidden", "8", "--epochs", "1"]
    assert main(["fit", str(file), *tokens, *words, "--out", run]) == 0
    assert main(["sample", run, "--n", "3"]) == 0
    assert (
        ct.Autoencoder(latent_dim=2, hidden=(8,), max_epochs=1)
        .fit(ct.read(str(file), encoder="bytes"))
        .space_.likelihood
        == "sequence"
    )
    assert main(["encode", run, str(file), "--out", str(tmp_path / "codes.npy")]) == 0
    assert main(["reconstruct", run, str(file)]) == 0
    assert np.load(tmp_path / "codes.npy").shape == (600, 2)
    assert (tmp_path / "run" / "samples.txt").read_text(encoding="utf-8").count("\n") == 3
    capsys.readouterr()
    assert main(["audit", run, "--data", str(file)]) == 2
    assert main(["sample", run, "--out", str(tmp_path / "x.npy")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 2
    assert "tokens do not: look at codes, scores and samples" in said[0]
    assert "does not end in .txt" in said[1]


@pytest.mark.filterwarnings("default")
def test_advice_on_texts_can_be_typed(tmp_path, capsys):
    file, run = tmp_path / "texts.txt", tmp_path / "run"
    file.write_text("\n".join([*TEXTS, "x" * 200]), encoding="utf-8")
    small = ["--hidden", "8", "--latent-dim", "2", "--seed", "0", "-q", "--overwrite"]
    fit = ["fit", str(file), "--encoder", "bytes", "--out", str(run), *small]
    assert main([*fit, "--max-length", "20", "--epochs", "10"]) == 0
    cut, silent = capsys.readouterr().err.splitlines()
    assert cut.startswith(
        "Warning: 1 of 41 texts cut to 20 bytes (the longest has 200): fit with --max-length 40 to"
    )
    assert silent.endswith(": fit with --param free_bits=0.5 or --param context=3")
    advised = ["--max-length", "40", "--param", "free_bits=0.5", "--param", "context=3", "--epochs", "1"]
    assert main([*fit, *advised]) == 0
    model = ct.load(run)
    assert (model.medium_.max_length, model.model_.likelihood.network.context) == (40, 3)
    again = ["fit", "--from", str(run), "--out", str(tmp_path / "again"), "--epochs", "1", "-q"]
    assert main(again) == 0
    assert ct.load(tmp_path / "again").medium_.max_length == 40
    capsys.readouterr()
    assert main(["fit", str(file), "--max-length", "20", "--out", str(run), "--overwrite"]) == 2
    assert "add --encoder bytes" in capsys.readouterr().err


def test_a_run_says_what_it_wants_and_what_it_got(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("a red fox\na gray car\n" * 10, encoding="utf-8")
    np.save("table.npy", np.eye(20)[:, :5])
    usual = ["--epochs", "1", "--latent-dim", "2", "--no-audit", "-q"]
    for run, data, *more in (
        ("words", "texts.txt"),
        ("bytes", "texts.txt", "--encoder", "bytes"),
        ("images", "digits"),
        ("table", "table.npy"),
    ):
        assert main(["fit", data, "--out", run, *more, *usual]) == 0
    capsys.readouterr()
    for run, data, said in (
        ("words", "digits", "digits holds 1,797 images of 8 × 8, and the run was fitted to texts"),
        ("bytes", "table.npy", "table.npy holds 20 rows of 5 columns, and the run was fitted to texts"),
        ("images", "texts.txt", "texts.txt holds texts, and the run was fitted to images of 8 × 8"),
        ("table", "texts.txt", "texts.txt holds texts, and the run was fitted to 5 features"),
    ):
        assert main(["encode", run, data, "--out", "codes.npy"]) == 2
        assert capsys.readouterr().err == f"Error: {said}: name such data\n"


def test_the_command_line_refuses_in_one_line(tmp_path, captioner):
    X, _ = images(20)
    run, data, file = tmp_path / "run", tmp_path / "x.npy", tmp_path / "texts.txt"
    captioner.encoder_.save(run)
    np.save(data, X)
    file.write_text("one\n", encoding="utf-8")
    gap = tmp_path / "gap.txt"
    gap.write_text("one\n" * 12 + "\n" + "one\n" * 7, encoding="utf-8")
    for words, message in (
        (["caption", str(run), str(data)], "has learned no texts: pass --texts"),
        (["caption", str(run), str(data), "--texts", "none.txt"], "cannot read none.txt (No such file"),
        (["caption", str(run), str(data), "--texts", str(file)], "has 1 lines and x.npy 20 rows"),
        (
            ["caption", str(run), str(data), "--texts", str(gap)],
            f"line 13 of {gap} is empty: write one",
        ),
        (
            ["caption", str(run), str(data), "--texts", str(gap), "--out", str(run), "--overwrite"],
            "holds the model, and would be replaced",
        ),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1


def test_a_captioner_of_images_is_kept_with_its_encoder(tmp_path):
    """Weights of convolutions lie in memory in another order than files have them."""
    X = np.random.default_rng(0).normal(size=(40, 16, 16)).astype(np.float32)
    encoder = ct.VAE(latent_dim=2, network="conv2d", max_epochs=1, random_state=0).fit(X)
    texts = ["one", "two"] * 20
    captioner = ct.Captioner(encoder, **{**SMALL, "max_epochs": 1}).fit(X, texts)
    again = ct.Captioner.load(captioner.save(tmp_path / "captioner"))
    np.testing.assert_allclose(again.score_samples(X, texts), captioner.score_samples(X, texts), rtol=1e-5)
