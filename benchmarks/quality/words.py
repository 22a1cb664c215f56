"""Words and tokens as normal distributions beside points: is it worth it?

Words: skip-gram of three kinds on the same pairs. "dot product" is negative sampling as published (Mikolov et
al. 2013), "points" has distances in its place, "Gaussians" a width for each word. On texts that were held
out: the loss of pairs, how often a context is ranked above a word drawn at random, how calibrated these odds
are, and what a linear head reads off the mean vector of a text (of Gaussians weighted by precision as well).
Widths are compared with how often a word comes, and, at equal frequency (partial rank correlation), with how
general it is: the entropy of the labels of its texts, and how many words differ among 40 drawn contexts.

Tokens: a causal Transformer of texts, as bytes and as words, whose token table is points or normal
distributions with a KL to their prior, which is paid once for all texts (the evidence lower bound). At test,
the mean table, or the probabilities of 8 draws averaged.

    python benchmarks/quality/words.py --data agnews.npz
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor, nn
from torch.nn import functional as F

import chartae as ct
from chartae.core.contracts import Objective, Plan, Term, Trace
from chartae.models.spoken import spoken
from chartae.parts.objectives import NegLogLik
from chartae.parts.units import infer_space
from chartae.parts.words import SkipGram
from chartae.training.engine import train
from chartae.training.pairs import near, numbered, vocabulary
from chartae.training.sources import Source
from chartae.training.tokens import Bytes
from chartae.transfer import calibration_error

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import command_line, machine_info, write_json

RESULTS = Path(__file__).parent / "results"
CONTEXTS, DRAWS = 40, 8
BANDS = (10, 100, 1000)  # counts between which median widths are taken


def load(path: str) -> tuple[list[str], np.ndarray | None]:
    """Texts, and labels where there are any: of an .npz with ``text`` and ``label``, or a .txt."""
    if path.endswith(".txt"):
        return ct.read(path).texts or [], None
    with np.load(path) as data:
        return [text.decode() for text in data["text"]], data["label"] if "label" in data.files else None


# --------------------------------------------------------------------- words


class Dot(SkipGram):
    """Negative sampling as it was published: the log-odds are a dot product."""

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        return self.word[words] @ self.context[contexts].transpose(-1, -2)

    def loss(self, pairs: Tensor, noise: Tensor, negatives: float) -> Tensor:
        u, n = F.embedding(pairs[..., 0], self.word), pairs.shape[1]
        both = F.embedding(torch.cat([pairs[..., 1], noise], 1), self.context)
        true, chance = (u * both[:, :n]).sum(-1), u @ both[:, n:].transpose(-1, -2)
        return F.softplus(-true).mean() + negatives * F.softplus(chance).mean()


KINDS: dict[str, tuple[type[SkipGram], bool]] = {
    "dot product": (Dot, False),
    "points": (SkipGram, False),
    "Gaussians": (SkipGram, True),
}


def pairs_of(m: ct.WordEmbedding, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Log-odds of held-out pairs, the same for all kinds: ``(n,)``, and ``(n, 5)`` of words by chance."""
    rng, chance = np.random.default_rng(0), m.counts_**0.75 / (m.counts_**0.75).sum()
    keep = np.minimum(1.0, np.sqrt(m.subsample * m.counts_.sum() / m.counts_))
    pairs = np.concatenate(list(near(numbered(texts, m.words_), keep, m.window, rng)))[:50_000]
    noise = rng.choice(len(chance), (len(pairs), 5), p=chance)
    with torch.no_grad():
        both = torch.from_numpy(np.concatenate([pairs[:, 1:], noise], 1))
        odds = m.model_(torch.from_numpy(pairs[:, :1]), both)[:, 0]
    return odds[:, 0], odds[:, 1:]


def pooled(m: ct.WordEmbedding, texts: list[str], weight: np.ndarray) -> np.ndarray:
    """Weighted mean of the vectors of each text's words, ``(n, d)``."""
    counts = CountVectorizer(vocabulary=list(m.words_)).transform(texts)
    sums = counts @ (weight[:, None] * m.transform(m.words_))
    return np.asarray(sums / np.maximum(counts @ weight, 1e-12)[:, None])


def partial(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of a and b, where both have a third linearly removed."""
    a, b, given = (rankdata(v) for v in (a, b, given))
    a, b = (v - np.polyval(np.polyfit(given, v, 1), given) for v in (a, b))
    return float(np.corrcoef(a, b)[0, 1])


def generality(texts: list[str], y: np.ndarray | None, min_count: int) -> dict[str, np.ndarray]:
    """Of each word: the entropy of its texts' labels (nats), and different words among 40 drawn contexts."""
    words, counts = vocabulary(texts, min_count)
    corpus, rng = numbered(texts, words), np.random.default_rng(0)
    found = {}
    if y is not None:
        of = np.full((len(words), int(y.max()) + 1), 0.5)
        np.add.at(of, (corpus.words, y[corpus.text]), 1.0)
        share = of / of.sum(1, keepdims=True)
        found["entropy"] = -(share * np.log(share)).sum(1)
    pairs = np.concatenate(list(near(corpus, np.ones(len(words)), 5, rng)))
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    ends = np.searchsorted(pairs[:, 0], np.arange(len(words) + 1))
    found["contexts"] = different = np.full(len(words), np.nan)
    for i, (start, stop) in enumerate(pairwise(ends)):
        if stop - start >= CONTEXTS:
            different[i] = len(np.unique(rng.choice(pairs[start:stop, 1], CONTEXTS, replace=False)))
    return found | {"counts": counts}


def judged(
    m: ct.WordEmbedding, texts: list[str], y: np.ndarray | None, held: np.ndarray, fitted: np.ndarray
) -> dict[str, Any]:
    told = [texts[i] for i in held]
    true, chance = pairs_of(m, told)
    p = torch.cat([true, chance.flatten()]).sigmoid().numpy()
    real = np.repeat([1, 0], [len(true), chance.numel()])
    found: dict[str, Any] = {
        "loss": -m.score(told),
        "ranked": float((true[:, None] > chance).float().mean()),
        "ece": calibration_error(np.stack([1 - p, p], 1), real),
        "parameters": sum(v.numel() for v in m.model_.parameters()),
    }
    if y is not None:
        weights = {"mean": np.ones(len(m.words_))}
        if m.spread:
            weights["precision"] = 1 / np.square(m.uncertainty(m.words_))
        for name, weight in weights.items():
            Z = pooled(m, texts, weight)
            head = ct.HeadClassifier(random_state=0).fit(Z[fitted], y[fitted])
            found[f"accuracy, {name}"] = head.score(Z[held], y[held])
            found[f"ece, {name}"] = head.calibration_error(Z[held], y[held])
            few = ct.HeadClassifier(random_state=0).fit(Z[fitted[:200]], y[fitted[:200]])
            found[f"few, {name}"] = few.score(Z[held], y[held])
    return found


def widths(m: ct.WordEmbedding, general: dict[str, np.ndarray]) -> dict[str, Any]:
    """What widths go with, and the widest and narrowest words of those that come 60 to 200 times."""
    log, counts = np.log(m.uncertainty(m.words_)), np.log(m.counts_)
    alike = np.flatnonzero((m.counts_ >= 60) & (m.counts_ <= 200))
    order = alike[np.argsort(log[alike])]
    found: dict[str, Any] = {"frequency": float(spearmanr(log, counts).statistic)}
    for name in ("entropy", "contexts"):
        if name in general:
            seen = np.isfinite(general[name]) & (m.counts_ >= 20)
            found[name] = partial(log[seen], general[name][seen], counts[seen])
    band = np.digitize(m.counts_, BANDS)
    found["by count"] = [float(np.exp(np.median(log[band == i]))) for i in range(len(BANDS) + 1)]
    found["narrow"], found["wide"] = ([m.words_[i] for i in part] for part in (order[:15], order[-15:][::-1]))
    return found


def words(texts: list[str], y: np.ndarray | None, args: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for seed in range(args.seeds):
        order = np.random.default_rng(seed).permutation(len(texts))
        held, fitted = np.split(order, [len(texts) // 8])
        seen = [texts[i] for i in fitted]
        general = generality(seen, None if y is None else y[fitted], 3)
        for kind, (model, spread) in KINDS.items():
            start = time.process_time()
            with patch("chartae.estimators.words.SkipGram", model):
                m = ct.WordEmbedding(spread=spread, max_epochs=args.epochs, random_state=seed).fit(seen)
            found = {"seconds": time.process_time() - start} | judged(m, texts, y, held, fitted)
            runs[kind].append(found | (widths(m, general) if spread else {}))
            print(seed, kind, runs[kind][-1], file=sys.stderr, flush=True)
    names = {"loss": "loss (nats a pair)", "ranked": "ranked right", "ece": "ECE of pairs"}
    if y is not None:
        names |= {"few, {}": "accuracy, 200 labels", "accuracy, {}": "all labels", "ece, {}": "ECE of labels"}
    names |= {"parameters": "parameters", "seconds": "fit (CPU s)"}
    rows = []
    for kind in KINDS:
        for way in ("mean", "precision") if kind == "Gaussians" and y is not None else ("mean",):
            own = way == "mean"
            cells = [
                shown([run[name.format(way)] for run in runs[kind]], f"{name:.4}")
                if own or "{}" in name
                else ""
                for name in names
            ]
            rows.append([kind if own else f"{kind}, weighted by precision", *cells])
    gaussians = runs["Gaussians"]
    labels = {"frequency": "frequency", "entropy": "the entropy of labels", "contexts": "different contexts"}
    write_json(
        str(RESULTS / "words.json"),
        title="Words as normal distributions, and as points",
        command=command_line(args, "quality/words.py"),
        machine=machine_info(torch.get_num_threads()),
        columns=["skip-gram", *names.values()],
        rows=rows,
        notes=[
            f"{len(texts):,} texts, an eighth held out; {args.seeds} seeds of split and training, ± is the "
            f"standard error over them; 64 dimensions, {args.epochs} epochs.",
            "Rank correlation of a word's width with "
            + ", ".join(
                f"{label}{'' if name == 'frequency' else ' at equal frequency'} "
                f"{shown([run[name] for run in gaussians], '')}"
                for name, label in labels.items()
                if name in gaussians[0]
            )
            + " (the last two among words that come 20 times or more).",
            "Median width of words that come 3 to 9, 10 to 99, 100 to 999 times, and more often: "
            + ", ".join(f"{width:.2f}" for width in np.mean([run["by count"] for run in gaussians], 0))
            + ".",
            f"Among words that come 60 to 200 times the widest are {', '.join(gaussians[0]['wide'])}; the "
            f"narrowest {', '.join(gaussians[0]['narrow'])}.",
        ],
        raw={"runs": runs},
    )


def shown(values: list[float], name: str) -> str:
    if name == "para":
        return f"{np.mean(values):,.0f}"
    if name == "seco":
        return f"{np.mean(values):.0f}"
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


# -------------------------------------------------------------------- tokens


class DrawnTable(nn.Embedding):
    """A table whose rows are independent normals: drawn anew at each place in training, else their means."""

    def __init__(self, table: nn.Embedding, std: float) -> None:
        super().__init__(*table.weight.shape, _weight=table.weight.detach().clone())
        self.log_std = nn.Parameter(torch.full_like(self.weight, math.log(std)))

    def forward(self, tokens: Tensor) -> Tensor:
        mean = super().forward(tokens)
        if not self.training:
            return mean
        return mean + F.embedding(tokens, self.log_std).exp() * torch.randn_like(mean)

    def kl(self) -> Tensor:
        """KL to N(0, I / d), which is where tables start, in nats."""
        d = self.embedding_dim
        variance = (2 * self.log_std).exp()
        return 0.5 * (d * (self.weight.square() + variance) - 1 - math.log(d) - 2 * self.log_std).sum()


class TableKL(Objective):
    """What the table costs, once for all texts."""

    def forward(self, trace: Trace) -> dict[str, Term]:
        return {"table_kl": Term(trace.model.likelihood.network.token.kl(), unit="nats")}  # type: ignore[union-attr]

    def __repr__(self) -> str:
        return "table_kl"


def as_words(texts: list[str], most: int, length: int) -> np.ndarray:
    """Rows of numbers from 1 of the most frequent words; the largest ends a row."""
    known = vocabulary(texts, 1)[0][:most]
    corpus = numbered(texts, known)
    rows = np.zeros((len(texts), length + 1), np.int16)
    starts = np.searchsorted(corpus.text, np.arange(1, len(texts)))
    for row, own in zip(rows, np.split(corpus.words, starts), strict=True):
        said = own[:length] + 1
        row[: len(said)] = said
        row[len(said)] = len(known) + 1
    return rows


def next_tokens(decoder: Any, rows: Tensor, draws: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities ``(n, levels)`` of tokens that there is a choice of, and what they were, by blocks."""
    decoder.eval()
    decoder.token.train(draws > 0)
    for block in rows.split(100):
        before = F.pad(block[:, :-1], (1, 0), value=decoder.levels - 1)
        there = block != 0
        there[:, -1] = False
        with torch.no_grad():
            each = [
                decoder(torch.zeros(len(block), 0), None, before)[there].softmax(-1)
                for _ in range(max(1, draws))
            ]
        yield torch.stack(each).mean(0), block[there]


def spoken_of(
    tokens: np.ndarray, kind: str, weight: float, seed: int, epochs: int, held: int
) -> dict[str, Any]:
    space = infer_space(tokens, likelihood="sequence")
    torch.manual_seed(seed)
    plan = spoken(space, hidden=(64, 64))
    decoder: Any = plan.model.likelihood.network
    order = np.random.default_rng(seed).permutation(len(tokens))
    source = Source(tokens, space)
    if kind != "points":
        decoder.token = DrawnTable(decoder.token, 0.02)
        plan = Plan(plan.model, NegLogLik() + weight / (len(tokens) - held) * TableKL())
    start = time.process_time()
    for _ in train(
        plan,
        source.subset(order[held:]),
        epochs=epochs,
        batch_size=16,
        learning_rate=3e-3,
        schedule="cosine",
        seed=seed,
    ):
        pass
    found: dict[str, Any] = {"seconds": time.process_time() - start}
    found["parameters"] = sum(v.numel() for v in plan.model.parameters())
    told = torch.from_numpy(tokens[np.sort(order[:held])].astype(np.int64))
    for name, draws in (("mean", 0), ("draws", DRAWS)) if kind != "points" else (("mean", 0),):
        nats, sure, right = [], [], []
        torch.manual_seed(seed)
        for p, is_one in next_tokens(decoder, told, draws):
            nats.append(-p.gather(1, is_one[:, None]).log()[:, 0])
            most, which = p.max(1)
            sure.append(most)
            right.append(which == is_one)
        p, hit = torch.cat(sure).numpy(), torch.cat(right).numpy()
        found[name] = {
            "nats": float(torch.cat(nats).mean()),
            "accuracy": float(hit.mean()),
            # Of the likeliest token: two classes, of which it is one.
            "ece": binned(p, hit),
        }
    if kind != "points":
        found["width"] = float(decoder.token.log_std.detach().exp().mean())
    return found


def binned(sure: np.ndarray, right: np.ndarray) -> float:
    """ECE of 15 bins of the likeliest token's probability."""
    which = np.minimum((sure * 15).astype(int), 14)
    return float(np.abs(np.bincount(which, right - sure, 15)).sum() / len(sure))


def language(texts: list[str], args: argparse.Namespace) -> None:
    short = [text.encode()[:64].decode(errors="ignore") for text in texts]
    of: dict[str, Callable[[], np.ndarray]] = {
        "bytes": lambda: Bytes.fit(short).encode(short),
        "words": lambda: as_words(texts, 2000, 24),
    }
    kinds = {"points": 0.0, "Gaussians": 1.0, "Gaussians, a tenth of the KL": 0.1}
    runs: dict[str, list[dict[str, Any]]] = {}
    for unit, make in of.items():
        tokens = make()
        for seed in range(args.language_seeds):
            for kind, weight in kinds.items():
                found = spoken_of(tokens, kind, weight, seed, args.language_epochs, len(texts) // 8)
                runs.setdefault(f"{unit}, {kind}", []).append(found)
                print(seed, unit, kind, found, file=sys.stderr, flush=True)
    rows = []
    for name, found in runs.items():
        for way, said in (("mean", ""), ("draws", f", {DRAWS} draws averaged")):
            if way in found[0]:
                cells = [shown([run[way][key] for run in found], "") for key in ("nats", "accuracy", "ece")]
                more = [shown([run[key] for run in found], key[:4]) for key in ("parameters", "seconds")]
                rows.append([name + said, *cells, *(more if way == "mean" else ["", ""])])
    write_json(
        str(RESULTS / "words_language.json"),
        title="A language model whose token table is drawn, and one of points",
        command=command_line(args, "quality/words.py"),
        machine=machine_info(torch.get_num_threads()),
        columns=["tokens and table", "nats a token", "accuracy", "ECE", "parameters", "fit (CPU s)"],
        rows=rows,
        notes=[
            f"{len(texts):,} texts, an eighth held out, {args.language_seeds} seeds, {args.language_epochs} "
            "epochs; two blocks of 64. Bytes: the first 64 of a text; words: the first 24 of the 2,000 most "
            "frequent ones, others left out. Nats, accuracy and calibration error are of the next token.",
            "Tables of normals start at a standard deviation of 0.02 about the same means; their prior is "
            "N(0, 1/64) in each dimension.",
        ],
        raw={"runs": runs},
    )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", required=True, help=".npz with text and label, or .txt of one text a line")
    parser.add_argument("--only", choices=("words", "language"), help="one of the two tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--language-seeds", type=int, default=2)
    parser.add_argument("--language-epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    texts, y = load(args.data)
    if args.only != "language":
        words(texts, y, args)
    if args.only != "words":
        language(texts, args)


if __name__ == "__main__":
    main()
