"""What a warm-up of the KL term changes: -ELBO of held-out rows after short and after whole trainings.

Digits and a table of tumors come with scikit-learn; files add fixed binarized MNIST (train as packed bits, of
which 5,000 rows are taken) and any embeddings (the first table of real numbers).

    python benchmarks/quality/warmup.py --data mnist_static_binarized.npz embeddings.npz
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

WARMUPS, SEEDS, ROWS = (0.0, 1.0, 5.0), 3, 5_000


class Case(NamedTuple):
    """Rows, the recipe, its parameters, and the most epochs of a training (patience ends the long ones)."""

    name: str
    X: np.ndarray
    recipe: str
    parameters: dict[str, Any]
    epochs: int


def cases(files: list[str]) -> list[Case]:
    found = [Case("digits", load_digits().data, "vae", {"latent_dim": 8}, n) for n in (6, 100)] + [
        Case("tumors", load_breast_cancer().data, "vae", {"latent_dim": 4}, n) for n in (6, 100)
    ]
    for path in files:
        with np.load(path) as data:
            if {"train", "valid"} <= set(data.files):
                X = np.unpackbits(data["train"][:ROWS], axis=1)[:, :784].astype(np.float32)
                binary = {"latent_dim": 40, "likelihood": "bernoulli", "network": "mlp"}
                found += [Case("binary images", X, "vae", binary, n) for n in (6, 100)]
                found += [
                    Case("binary images", X, recipe, binary, 20)
                    for recipe in ("ladder-vae", "hierarchical-vae")
                ]
            else:
                tables = (data[name] for name in data.files)
                X = next(t for t in tables if t.ndim == 2 and t.dtype.kind == "f")[:ROWS]
                found += [Case("embeddings", X, "vae", {"latent_dim": 16}, n) for n in (6, 100)]
    return [case._replace(X=case.X.astype(np.float32)) for case in found]


def reached(case: Case, warmup: float, seed: int) -> float:
    """-ELBO of held-out rows, in nats, of the epoch that the fit keeps."""
    import chartae as ct

    model = ct.Autoencoder(
        recipe=case.recipe,
        recipe_params={"warmup": warmup},
        max_epochs=case.epochs,
        random_state=seed,
        **case.parameters,
    ).fit(case.X)
    return float(model.history_[model.best_epoch_ - 1]["val_loss"])


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", nargs="*", default=[], help=".npz files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "warmup.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[list[Any]] = []
    kept: dict[str, Any] = {}
    for case in cases(args.data):
        nats = np.array([[reached(case, w, seed) for seed in range(SEEDS)] for w in WARMUPS])
        gains = nats[0] - nats
        errors = gains.std(1, ddof=1) / SEEDS**0.5
        told = [f"{m:+.1f} ± {e:.1f}" for m, e in zip(gains.mean(1), errors, strict=True)]
        rows.append([f"{case.name}, {case.recipe}", case.epochs, f"{nats[0].mean():.1f}", *told[1:]])
        kept[f"{case.name}, {case.recipe}, {case.epochs} epochs"] = nats.tolist()
        print(rows[-1], file=sys.stderr, flush=True)
    write_json(
        str(args.out),
        title="A warm-up of the KL term: −ELBO of held-out rows",
        command="python benchmarks/quality/warmup.py --data mnist_static_binarized.npz embeddings.npz",
        machine=machine_info(1),
        columns=["data and recipe", "epochs, at most", "none (nats)", "1 epoch gains", "5 epochs gain"],
        rows=rows,
        notes=[
            f"Nats by which −ELBO is lower than without a warm-up; mean and standard error of {SEEDS} seeds, "
            "in pairs. Of 100 epochs, patience leaves 15 to 60.",
            "Networks, batch and patience as `fit` takes them, but a dense network for the binary images.",
        ],
        raw=kept,
    )


if __name__ == "__main__":
    main()
