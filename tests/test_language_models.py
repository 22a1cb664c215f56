"""Captions said by a causal language model of another library, with the code in front of its tokens."""

import copy
import itertools
import json
import sys

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import chartae as ct
from chartae.apps.cli import main
from chartae.core.errors import DataError, PlanError, RunFolderError
from chartae.core.noise import Noise
from chartae.parts.distributions import Sequences
from chartae.parts.likelihoods import SequenceLikelihood
from chartae.parts.networks import Prefixed
from chartae.parts.networks.transformers import PREFIX
from chartae.training.readers import medium_of
from chartae.training.tokens import Borrowed, language_model_of

TEXTS = ["one red fox"] * 20 + ["two dogs"] * 20
CODES = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
FEW = {"max_epochs": 25, "learning_rate": 0.01, "batch_size": 20, "random_state": 0}


def tokenizer(**special):
    """Cut into bytes and a few pairs; the token that ends texts is neither the first nor the last."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<begin>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=library, **{"eos_token": "<end>", **special})


def language_model(kind, vocabulary=270, places=32):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=vocabulary,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=places,
            bos_token_id=0,
            eos_token_id=1,
        )
        return GPT2LMHeadModel(config)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=places,
    )  # fmt: skip
    return LlamaForCausalLM(config)


KINDS = pytest.mark.parametrize("kind", ["gpt2", "llama"])


def speaker(kind, z=2, c=1, frozen=True):
    model = language_model(kind, vocabulary=5)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # so that tokens differ
    return Prefixed(model, [1, 0, 3, 1], 3, begins=4, latent_dim=z, condition_dim=c, frozen=frozen).eval()


@KINDS
@pytest.mark.parametrize(("z", "c"), [(2, 1), (0, 1), (0, 0)])
def test_the_probabilities_of_all_rows_sum_to_one(kind, z, c):
    made = speaker(kind, z, c)
    p = Sequences(made, torch.randn(2, z), torch.randn(2, c) if c else None, 3, made.levels)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)), dtype=torch.float32)
    mass = p.log_prob(every[:, None]).exp()
    torch.testing.assert_close(mass.sum(0), torch.ones(2))
    assert int((mass[:, 0] > 0).sum()) == 1 + 2 + 4  # of no, one and two symbols


@KINDS
def test_probabilities_are_those_of_the_model_called_by_hand(kind):
    made = speaker(kind)
    model, h, c = made.held[0], torch.randn(1, 2), torch.randn(1, 1)
    found = Sequences(made, h, c, 3, 4).log_prob(torch.tensor([[2.0, 1.0, 3.0]]))
    words = model.get_input_embeddings()(torch.tensor([[4, 3, 0]]))  # begins, then the ids of 2 and 1
    front = [made.prefixes[0](h).view(1, PREFIX, 16), made.prefixes[1](c).view(1, PREFIX, 16)]
    logits = model(inputs_embeds=torch.cat([*front, words], 1)).logits[0, 2 * PREFIX :]
    logs = logits[:, [0, 3, 1]].log_softmax(-1)  # of those that a row may hold
    torch.testing.assert_close(
        found[0], logs[0, 1] + logs[1, 0]
    )  # the end is all that the last place may hold


@KINDS
@pytest.mark.parametrize("z", [0, 2])
def test_with_a_cache_the_same_is_said_as_without(kind, z):
    made = speaker(kind, z, 0)
    h = torch.randn(5, z)
    rows = torch.randint(1, 3, (5, 3))
    rows[:, 0] = 3
    with torch.no_grad():
        whole, state, steps = made(h, None, rows), made.begin(h, None), []
        for token in rows.T:
            logits, state = made.step(token, state)
            steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    assert (whole[..., 0] == -torch.inf).all()
    p = Sequences(made, h, None, 3, 4)
    drawn = p.draw(2000, Noise(0)).z[:, 0]
    ends = (drawn[:, 0] == 3).float().mean()
    assert abs(ends - p.log_prob(torch.tensor([3.0, 0.0, 0.0])).exp()[0]) < 0.05


def test_tokens_are_numbered_so_that_the_last_ends_a_text():
    own = tokenizer(bos_token="<begin>")
    medium = Borrowed.of(own, TEXTS)
    rows = medium.encode(["two dogs", "one red fox"])
    assert (rows.max(1) == medium.end).all()
    assert medium.end == len(own)
    assert (medium.begins, medium.ends) == (0, 1)
    assert medium.decode(rows) == ["two dogs", "one red fox"]
    there = rows[0][rows[0] > 0]
    assert medium.ids[there].tolist() == [*own("two dogs")["input_ids"], 1]
    assert medium_of(json.loads(json.dumps(medium.config())), {}) == medium
    with pytest.raises(DataError, match=r"^'a<end>b' holds the token that ends texts: leave it out$"):
        Borrowed.of(own, TEXTS).encode(["a<end>b"])
    with pytest.raises(PlanError, match="set its eos_token"):
        Borrowed.of(tokenizer(eos_token=None), TEXTS)


@KINDS
def test_a_frozen_model_stays_as_it_is_and_says_what_was_learned(kind, tmp_path):
    own = tokenizer()
    taught = ct.Captioner(language_model=language_model(kind), tokens=own, frozen=False, **FEW)
    model = taught.fit(CODES[::-1].copy(), TEXTS).model_.likelihood.network.language_model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    captioner = ct.Captioner(language_model=model, tokens=own, **{**FEW, "random_state": 1})
    captioner.fit(CODES, TEXTS)  # the other way round
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert captioner.caption(np.eye(2)) == ["one red fox", "two dogs"]
    nats = captioner.score_samples(np.eye(2), ["one red fox", "two dogs"])
    assert (nats > captioner.score_samples(np.eye(2), ["two dogs", "one red fox"])).all()
    path = captioner.save(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"language model without a name: pass it as language_model=$"):
        ct.Captioner.load(path)
    again = ct.Captioner.load(path, language_model=copy.deepcopy(model))
    np.testing.assert_array_equal(again.score_samples(np.eye(2), ["one red fox", "two dogs"]), nats)
    assert again.caption(np.eye(2)) == captioner.caption(np.eye(2))
    assert not any("language_model" in name for name in again.model_.state_dict())
    again.set_params(max_epochs=1).fit(CODES, TEXTS)
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] += 1.0
    with pytest.raises(RunFolderError, match="a language model whose weights were others: pass that one as"):
        ct.Captioner.load(path, language_model=model)


def test_a_folder_of_a_language_model_is_found_from_elsewhere(tmp_path, monkeypatch):
    language_model("gpt2").save_pretrained(tmp_path / "gpt")
    tokenizer().save_pretrained(tmp_path / "gpt")
    monkeypatch.chdir(tmp_path)
    captioner = ct.Captioner(language_model="gpt", **{**FEW, "max_epochs": 1}).fit(CODES, TEXTS)
    captioner.save(tmp_path / "run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    again = ct.Captioner.load(tmp_path / "run")
    np.testing.assert_array_equal(again.score_samples(CODES, TEXTS), captioner.score_samples(CODES, TEXTS))


def test_all_can_be_learned_and_a_caption_is_said(tmp_path):
    model, own = language_model("gpt2"), tokenizer()
    model.save_pretrained(tmp_path / "gpt")
    own.save_pretrained(tmp_path / "gpt")
    name = str(tmp_path / "gpt")
    captioner = ct.Captioner(language_model=name, frozen=False, **FEW).fit(CODES, TEXTS)
    assert captioner.caption(np.eye(2)) == ["one red fox", "two dogs"]
    again = ct.Captioner.load(captioner.save(tmp_path / "run"))  # opened by its name
    assert again.caption(np.eye(2)) == ["one red fox", "two dogs"]
    before = model.transformer.wte.weight.clone()
    ct.Captioner(language_model=model, tokens=own, frozen=False, max_epochs=1).fit(CODES, TEXTS)
    assert torch.equal(model.transformer.wte.weight, before)
    (tmp_path / "gpt").rename(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"cannot open the language model .*pass it as language_model=$"):
        ct.Captioner.load(tmp_path / "run")


def test_the_command_line_has_captions_said_by_one(tmp_path, capsys):
    language_model("gpt2").save_pretrained(tmp_path / "gpt")
    tokenizer().save_pretrained(tmp_path / "gpt")
    ct.AE(latent_dim=2, hidden=(8,), max_epochs=1, random_state=0).fit(CODES).save(tmp_path / "run")
    np.save(tmp_path / "x.npy", CODES)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    run, data, said = str(tmp_path / "run"), str(tmp_path / "x.npy"), str(tmp_path / "said")
    learn = ["caption", run, data, "--texts", str(tmp_path / "t.txt"), "--epochs", "1", "--out", said]
    by = ["--language-model", str(tmp_path / "gpt")]
    assert main([*learn, *by]) == 0
    assert ct.Captioner.load(said).medium_.kind == "language-model"
    assert main(["caption", said, data]) == 0
    capsys.readouterr()
    assert main([*learn, *by, "--tokens", "bpe"]) == 2
    assert "leave out --tokens" in capsys.readouterr().err
    assert main(["caption", said, data, *by]) == 2
    assert "has learned to say texts: leave out --language-model" in capsys.readouterr().err


BERT = BertConfig(
    vocab_size=270, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
)


def test_a_model_whose_tokens_look_ahead_is_refused():
    """It says that it can generate, and yet a later token changes what was told before."""
    looks = BertLMHeadModel(BERT)
    assert looks.can_generate()
    with pytest.raises(PlanError, match="BertLMHeadModel, tokens look at those after them: pass a causal"):
        language_model_of(looks, tokenizer())
    causal = BertLMHeadModel(BertConfig(**{**BERT.to_dict(), "is_decoder": True})).train()
    assert language_model_of(causal, "own")[0] is causal
    assert causal.training
    for kind in ("gpt2", "llama"):
        language_model_of(language_model(kind).bfloat16(), "own")


def test_bad_input_is_refused_in_one_line(monkeypatch):
    model, own = language_model("gpt2"), tokenizer()
    bert = BertModel(BERT)
    for parameters, message in (
        ({"language_model": model}, "a language model needs its tokenizer, a fast one of transformers: pass"),
        ({"language_model": bert, "tokens": own}, "of type BertModel, and no causal language model"),
        ({"language_model": torch.nn.Linear(2, 2), "tokens": own}, "of type Linear, and no causal language"),
        ({"tokens": own}, "tokens= is a tokenizer: pass its model as language_model="),
        ({"language_model": language_model("gpt2", 20), "tokens": own}, "the language model knows 20: pass"),
        ({"language_model": language_model("gpt2", places=8), "tokens": own}, "has 8 places, and"),
    ):
        with pytest.raises(PlanError, match=message) as caught:
            ct.Captioner(**parameters).fit(CODES, TEXTS)
        assert "\n" not in str(caught.value)
    with pytest.raises(PlanError, match="needs network='transformer'"):
        SequenceLikelihood(torch.nn.Linear(2, 2), (3,), levels=4)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PlanError, match=r"^language models need transformers: pip install 'chartae\[tr"):
        ct.Captioner(language_model="gpt2").fit(CODES, TEXTS)
