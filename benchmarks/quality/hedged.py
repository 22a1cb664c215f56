"""Hedged embeddings beside points: numbers of two digits, some of them hidden, in two dimensions.

Images of two MNIST digits side by side, at half their resolution; in some a black rectangle hides a part of
each digit, in training of a fifth of the digits, and in one of two tests of all. Items are numbers from 00
to 99; those that the tests hold are new images. Embeddings: hedged (draws), the same trained as points. By
matches: the share of test items whose five likeliest matches vote for their number, and the average
precision of all pairs; whether uncertainty tells which votes are wrong (AUROC), in each test and in both
together; whether it is told by how many of the five vote for another, or of the five nearest of each pair of
draws. And zero-shot: digits 0 to 4 train, and 5 to 9 are retrieved, by these and by the posteriors of a VAE
that is told no labels, half of whose digits have a part that is not known; queries are whole, or have such a
part, or half of them do. Whether it is told by how unlike the best match is, too, which as uncertainty needs
no label.

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
WAYS = {"posteriors": "expected likelihood", "their means": "distance"}
SIGNS = ("auroc", "sigma")  # of an item alone
NEAR = 5  # likeliest matches that vote
NONE = {"point": SIGNS, "gain": SIGNS}
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
            cover(X[i, :, 28 * side : 28 * (side + 1)], 0.0, rng)
    return X.reshape(n, 14, 2, 28, 2).mean((2, 4)), labels[both[:, 0]] * 10 + labels[both[:, 1]]


def cover(digit: np.ndarray, by: float, rng: np.random.Generator) -> None:
    """Put a number in place of a rectangle of ``(28, 28)``, as far as it is within the digit."""
    height, width = rng.integers(0, 29, 2)
    top, left = rng.integers(0, 28, 2)
    digit[top : top + height, left : left + width] = by


def in_part(images: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Images, of some of which a part is not known."""
    images, rng = images.copy(), np.random.default_rng(seed)
    for i in np.flatnonzero(rng.random(len(images)) < share):
        cover(images[i], np.nan, rng)
    return images


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
        encoder = ct.VAE(missing="mask", **common | {"learning_rate": 3e-3})
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


def digits(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Digits 0 to 4 of training and 5 to 9 of the test, and their labels."""
    seen, new = data["y_train"] < 5, data["y_test"] >= 5
    X, T = (data[name][rows].astype(np.float32) / 255 for name, rows in (("x_train", seen), ("x_test", new)))
    return X, data["y_train"][seen], T, data["y_test"][new]


def zero_shot(
    data: dict[str, np.ndarray], kind: str, seed: int, args: argparse.Namespace
) -> dict[str, float]:
    """Train on digits 0 to 4, retrieve 5 to 9 among themselves."""
    X, y, T, labels = digits(data)
    embedding = made(kind, 8, args, seed).fit(X, y)
    first, wrong, by = retrieved(embedding, T, T, labels, "match")
    by["drawn"] = against(embedding.votes(T, labels, k=NEAR), first - 5)
    return summed(wrong, by)


def by_posteriors(data: dict[str, np.ndarray], seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The same without labels, of queries that are whole, that are not, and of both together."""
    X, _, T, labels = digits(data)
    embedding = made("posteriors", 32, args, seed).fit(in_part(X, 0.5, seed))
    asked = {"zero-shot": T, "zero-shot, hidden": in_part(T, 1.0, 1000 + seed)}
    found: dict[str, Any] = {test: {} for test in (*asked, "zero-shot, both")}
    for kind, way in WAYS.items():
        each = [retrieved(embedding, Q, T, labels, way)[1:] for Q in asked.values()]
        wrong, by = np.concatenate([e[0] for e in each]), [e[1] for e in each]
        each.append((wrong, {name: np.concatenate([one[name] for one in by]) for name in by[0]}))
        for test, one in zip(found, each, strict=True):
            found[test][kind] = summed(*one)
    return found


def retrieved(
    embedding: Any, Q: np.ndarray, T: np.ndarray, labels: np.ndarray, by: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Label of each query's best match, other than itself, whether it is wrong, and signs of that."""
    from chartae.transfer import votes

    similarity = embedding.similarity(Q, T, by=by)
    np.fill_diagonal(similarity, -np.inf)
    first = labels[similarity.argmax(1)]
    wrong = first != labels
    others = against(votes(similarity, labels, NEAR), first - 5)
    return first, wrong, signs(embedding, Q) | {"unlike": -similarity.max(1), "others": others}


def summed(wrong: np.ndarray, by: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of queries whose best match has their label, and AUROC of signs."""
    return {"recall": float(1 - wrong.mean())} | told(wrong, by)


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
            if kind not in run["zero-shot"]:
                run["zero-shot"][kind] = zero_shot(data, kind, seed, args)
                print(seed, "zero-shot", kind, run["zero-shot"][kind], flush=True)
        if "zero-shot, both" not in run:
            for test, found in by_posteriors(data, seed, args).items():
                run[test] = run.get(test, {}) | found
                print(seed, test, found, flush=True)
        write(args.out, kept, args.threads)


def of_kind(run: dict[str, Any], kind: str, test: str, name: str) -> Any:
    """A number of one seed; None: it has none."""
    if kind == "gain":
        more, less = (of_kind(run, each, test, name) for each in KINDS)
        return None if more is None else more - less
    found = run.get(test, {}).get(kind, {}) if "zero-shot" in test else run[kind][test]
    return found.get("recall" if "zero-shot" in test and name == "knn" else name)


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
    rows += [line("zero-shot, 5 to 9", kind, "zero-shot") for kind in (*KINDS, "gain", *WAYS)]
    rows += [line("the same, hidden in part", kind, "zero-shot, hidden") for kind in WAYS]
    rows += [line("the same, both kinds of queries", kind, "zero-shot, both") for kind in WAYS]
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
            f"{kept['settings']['latent_dim']} dimensions, one digit in 8. Posteriors, of a VAE, are of 32; "
            "there the best match is a whole digit, by expected likelihood or by the distance of means.",
            f"{kept['settings']['rows']:,} images of two digits; posteriors of all covariance, "
            f"β = {kept['settings']['beta']:g}, {kept['settings']['epochs']} epochs.",
            "Method: Oh et al. 2019, arXiv:1810.00319. Pairs of draws: 8 of the queries by 8 of the items, "
            f"in {sum('drawn' in run['hedged']['hidden'] for run in runs)} of the seeds.",
        ],
        raw=kept,
    )


if __name__ == "__main__":
    main()
