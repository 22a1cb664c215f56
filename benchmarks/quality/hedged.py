"""Hedged embeddings beside points: numbers of two digits, some of them hidden, in two dimensions.

Images of two MNIST digits side by side, at half their resolution; in some a black rectangle hides a part of
each digit, in training of a fifth of the digits, and in one of two tests of all. Items are numbers from 00
to 99; those that the tests hold are new images. Embeddings: hedged (draws), the same trained as points. By
matches: the share of test items whose five likeliest matches vote for their number, and the average
precision of all pairs; whether uncertainty tells which votes are wrong (AUROC), in each test and in both
together; whether it is told by how many of the five vote for another, or of the five nearest of each pair of
draws. And zero-shot: digits 0 to 4 train, and 5 to 9 are retrieved, by these and by the posteriors of a VAE
that is told no labels; whether it is told by how unlike the best match is, which needs no label either.

    python benchmarks/quality/hedged.py --data mnist.npz
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import load_data, machine_info, write_json

KINDS = ("hedged", "point")
SHOTS = (*KINDS, "posteriors", "their means")
SIGNS = ("auroc", "sigma")  # of an item alone
NEAR = 5  # likeliest matches that vote
NONE = {"point": SIGNS, "gain": SIGNS, "their means": (*SIGNS, "drawn")}
WAYS = {"posteriors": "expected likelihood", "their means": "distance"}
SETTINGS = ("epochs", "learning_rate", "hidden", "rows", "tests", "latent_dim", "beta")


def composed(
    images: np.ndarray, labels: np.ndarray, n: int, hidden: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of digits side by side, ``(n, 14, 28)`` from 0 to 1, and their numbers."""
    rng = np.random.default_rng(seed)
    both = rng.integers(0, len(images), (n, 2))
    X = np.concatenate([images[both[:, 0]], images[both[:, 1]]], 2).astype(np.float32) / 255
    for side in (0, 1):
        for i in np.flatnonzero(rng.random(n) < hidden):
            height, width = rng.integers(0, 29, 2)  # of the rectangle, as far as it is within the digit
            top, left = rng.integers(0, 28, 2)
            X[i, top : top + height, 28 * side + left : 28 * side + min(left + width, 28)] = 0.0
    return X.reshape(n, 14, 2, 28, 2).mean((2, 4)), labels[both[:, 0]] * 10 + labels[both[:, 1]]


def signs(embedding: Any, X: np.ndarray) -> dict[str, np.ndarray]:
    """What an item says of whether it will be mistaken: its uncertainty, and its code's whole variance."""
    points = "log_prob" not in embedding.encoder_.model_.posterior.offers
    std = np.zeros((len(X), 1)) if points else embedding.transform(X, return_std=True)[1]
    return {"auroc": embedding.uncertainty(X), "sigma": np.square(std).sum(1)}


def told(wrong: np.ndarray, by: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(roc_auc_score(wrong, sign)) for name, sign in by.items()}


def judged(embedding: Any, X: np.ndarray, y: np.ndarray) -> tuple[dict[str, float], np.ndarray, Any]:
    """Accuracy of five neighbors, average precision over pairs, and AUROC of signs for wrong votes.

    And which votes are wrong, and the signs.
    """
    from chartae.transfer import votes

    similarity = embedding.similarity(X, X, by="match")
    np.fill_diagonal(similarity, -np.inf)
    shares, drawn = votes(similarity, y, NEAR), embedding.votes(X, y, k=NEAR)
    pairs = np.triu_indices(len(X), 1)
    answer, classes = shares.argmax(1), np.unique(y)
    wrong = classes[answer] != y
    by = signs(embedding, X) | {"unlike": -similarity.max(1)}
    by |= {"others": 1 - shares.max(1), "drawn": against(drawn, answer)}
    found = {
        "knn": float(1 - wrong.mean()),
        "drawn knn": float((classes[drawn.argmax(1)] == y).mean()),
        "ap": float(average_precision_score(y[pairs[0]] == y[pairs[1]], similarity[pairs])),
    }
    return found | told(wrong, by), wrong, by


def against(shares: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """How many vote for another class than the one that is answered, ``(n,)``."""
    return 1 - shares[np.arange(len(shares)), answer]


def made(kind: str, latent_dim: int, args: argparse.Namespace, seed: int) -> Any:
    import chartae as ct

    common = {
        "latent_dim": latent_dim,
        "network": "conv2d",
        "hidden": tuple(args.hidden),
        "likelihood": "bernoulli",
        "learning_rate": args.learning_rate,
        "batch_size": 256,
        "max_epochs": args.epochs,
        "schedule": "cosine",
        "patience": None,
        "random_state": seed,
    }
    if kind == "posteriors":
        encoder = ct.VAE(**common | {"latent_dim": 2 * latent_dim, "learning_rate": 3e-3})
        return ct.ProbabilisticEmbedding(encoder, method="reconstruction", random_state=seed)
    encoder = ct.AE(**common) if kind == "point" else ct.VAE(covariance="full", **common)
    return ct.ProbabilisticEmbedding(encoder, method="hedged", beta=args.beta, random_state=seed)


def numbers(data: dict[str, np.ndarray], kind: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    X, y = composed(data["x_train"], data["y_train"], args.rows, 0.2, seed)
    tests = {
        name: composed(data["x_test"], data["y_test"], args.tests, hidden, 1000 + seed)
        for name, hidden in (("clean", 0.0), ("hidden", 1.0))
    }
    start = time.perf_counter()
    embedding = made(kind, args.latent_dim, args, seed).fit(X, y)
    seconds = time.perf_counter() - start
    each = [judged(embedding, *test) for test in tests.values()]
    wrong = np.concatenate([t[1] for t in each])
    both = told(wrong, {k: np.concatenate([t[2][k] for t in each]) for k in each[0][2]})
    return {name: t[0] for name, t in zip(tests, each, strict=True)} | {"seconds": seconds, "both": both}


def zero_shot(
    data: dict[str, np.ndarray], kinds: tuple[str, ...], seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train on digits 0 to 4, retrieve 5 to 9 among themselves: of each kind, by one embedding."""
    from chartae.transfer import votes

    X, T = (data[k].astype(np.float32) / 255 for k in ("x_train", "x_test"))
    seen = data["y_train"] < 5
    new = np.flatnonzero(data["y_test"] >= 5)
    embedding = made(kinds[0], 8, args, seed).fit(X[seen], data["y_train"][seen])
    found: dict[str, Any] = {}
    for kind in kinds:
        similarity = embedding.similarity(T[new], T[new], by=WAYS.get(kind, "match"))
        np.fill_diagonal(similarity, -np.inf)
        labels = data["y_test"][new]
        first = labels[similarity.argmax(1)]
        wrong = first != labels
        shares, drawn = votes(similarity, labels, NEAR), embedding.votes(T[new], labels, k=NEAR)
        by = signs(embedding, T[new]) | {"unlike": -similarity.max(1)}
        by |= {"others": against(shares, first - 5), "drawn": against(drawn, first - 5)}
        found[kind] = {"recall": float(1 - wrong.mean())} | told(wrong, by)
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of MNIST; without it OpenML's is fetched")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--latent-dim", type=int, default=2)
    parser.add_argument("--beta", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hedged.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    data = dict(load_data(args.data))
    settings = {k: getattr(args, k) for k in SETTINGS}
    kept: dict[str, Any] = {"settings": settings, "seeds": {}}
    if args.out.exists():
        before = json.loads(args.out.read_text())["raw"]
        kept = before if before["settings"] == settings else kept
    for seed in range(args.seeds):
        run = kept["seeds"].setdefault(str(seed), {"zero-shot": {}})
        for kind in KINDS:
            if kind not in run:
                run[kind] = numbers(data, kind, seed, args)
                print(seed, kind, run[kind], flush=True)
        for kinds in (("hedged",), ("point",), SHOTS[2:]):
            if kinds[0] not in run["zero-shot"]:
                run["zero-shot"] |= zero_shot(data, kinds, seed, args)
                print(seed, "zero-shot", kinds[0], run["zero-shot"], flush=True)
        write(args.out, kept, args.threads)


def of_kind(run: dict[str, Any], kind: str, test: str, name: str) -> Any:
    """A number of one seed; None: it has none."""
    if kind == "gain":
        more, less = (of_kind(run, each, test, name) for each in KINDS)
        return None if more is None else more - less
    found = run[test].get(kind, {}) if test == "zero-shot" else run[kind][test]
    return found.get("recall" if test == "zero-shot" and name == "knn" else name)


def write(out: Path, kept: dict[str, Any], threads: int) -> None:
    runs = list(kept["seeds"].values())
    more = len(runs) ** 0.5

    def shown(values: list[float]) -> str:
        error = np.std(values, ddof=1) / more if len(values) > 1 else float("nan")
        return f"{np.mean(values):.3f} ± {error:.3f}"

    def line(title: str, kind: str, test: str) -> list[str]:
        """Of a kind, or what the one has more than the other; points have no spread that could tell."""
        cells = []
        for name in ("knn", "drawn knn", "ap", *SIGNS, "unlike", "others", "drawn"):
            every = (of_kind(run, kind, test, name) for run in runs)
            each = [value for value in every if value is not None]
            cells.append("" if not each or name in NONE.get(kind, ()) else shown(each))
        return [title, kind, *cells]

    rows = [
        line(f"two digits, {test}", kind, test) for test in ("clean", "hidden") for kind in (*KINDS, "gain")
    ]
    rows.append(line("two digits, both", "hedged", "both"))
    rows += [line("zero-shot, 5 to 9", kind, "zero-shot") for kind in (*KINDS, "gain", *SHOTS[2:])]
    write_json(
        str(out),
        title="Hedged embeddings and points",
        command="python benchmarks/quality/hedged.py --data mnist.npz",
        machine=machine_info(threads),
        columns=[
            "test",
            "embedding",
            f"accuracy of {NEAR} neighbors (zero-shot: of 1)",
            f"of {NEAR} in each pair of draws",
            "average precision of pairs",
            "AUROC of uncertainty for errors",
            "of σ² for errors",
            "of how unlike the best match is",
            f"of votes for others among {NEAR}",
            "of such votes in each pair of draws",
        ],
        rows=rows,
        notes=[
            f"{len(runs)} seeds of data and training, ± is the standard error over them; two digits in "
            f"{kept['settings']['latent_dim']} dimensions, one digit in 8. Posteriors, of a VAE, are of 16 "
            "dimensions; the best match is by expected likelihood, or by the distance of means.",
            f"{kept['settings']['rows']:,} images of two digits; posteriors of all covariance, "
            f"β = {kept['settings']['beta']:g}, {kept['settings']['epochs']} epochs.",
            "Method: Oh et al. 2019, arXiv:1810.00319. Pairs of draws: 8 of the queries by 8 of the items, "
            f"in {sum('drawn' in run['hedged']['hidden'] for run in runs)} of the seeds.",
        ],
        raw=kept,
    )


if __name__ == "__main__":
    main()
