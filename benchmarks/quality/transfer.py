"""What heads read off frozen codes of 16 numbers: MNIST, by recipe and by the number of labels.

Encoders see the 60,000 images without their labels. Beside each stands what as many principal components
give. With 100 labels, ten of each digit, labels also spread along the neighbors of all codes, or are summed
out of a conditional VAE of the codes (M1+M2). The curve of the best one and of the plain VAE is drawn into
docs/figures/label_efficiency.png.

    python benchmarks/quality/transfer.py --data mnist.npz
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from sklearn.decomposition import PCA

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import load_data, machine_info, unit_rows, write_json

ROOT = Path(__file__).resolve().parents[2]
LATENT, COUNTS, DRAWS = 16, (10, 30, 100, 300, 1000, 3000, 10_000, 60_000), 3
#: By name: the recipe, its parameters, and further ones of the estimator.
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ae": ("ae", {}, {}),
    "vae": ("vae", {}, {}),
    "denoising vae": ("vae", {}, {"corruption": ("masking", 0.3)}),
    "mixture-vae": ("mixture-vae", {"components": 20}, {}),
    "mixture-vae, 100": ("mixture-vae", {"components": 100}, {}),
    "vamp-vae": ("vamp-vae", {"components": 50}, {}),
    "vamp-vae, wide": ("vamp-vae", {"components": 100}, {"hidden": (1024, 512)}),
}


def fitted(name: str, X: np.ndarray, epochs: int, seed: int) -> tuple[Any, float]:
    import chartae as ct

    recipe, own, more = MODELS[name]
    model = ct.Autoencoder(
        recipe=recipe,
        recipe_params=own,
        latent_dim=LATENT,
        network="mlp",
        likelihood="bernoulli",
        max_epochs=epochs,
        schedule="cosine",
        patience=None,
        random_state=seed,
        **{"hidden": (512, 256)} | more,
    )
    start = time.perf_counter()
    return model.fit(X), time.perf_counter() - start


def hundred(y: np.ndarray, seed: int) -> np.ndarray:
    """Ten labels of each digit, and -1 for the rest."""
    rng = np.random.default_rng(seed)
    known = np.concatenate([rng.choice(np.flatnonzero(y == digit), 10, replace=False) for digit in range(10)])
    labels = np.full(len(y), -1)
    labels[known] = y[known]
    return labels


def ways(seed: int) -> dict[str, Any]:
    """Heads that learn from rows without a label, too."""
    import chartae as ct

    cvae = ct.CVAE(latent_dim=LATENT, hidden=(256,), max_epochs=10, schedule="cosine", random_state=seed)
    return {
        "spread": ct.HeadClassifier(head="spreading", random_state=seed),
        "summed out": ct.HeadClassifier(cvae, training="generative", random_state=seed),
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of MNIST; without it OpenML's is fetched")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "transfer.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "label_efficiency.png")
    args = parser.parse_args()
    import chartae as ct

    warnings.simplefilter("ignore")
    data = load_data(args.data)
    X, told = unit_rows(data["x_train"]), unit_rows(data["x_test"])
    y, truth = data["y_train"], data["y_test"]
    pca = PCA(LATENT, random_state=0).fit(X)
    codes = {"PCA": (pca.transform(X), pca.transform(told))}
    seconds = {"PCA": 0.0}
    for name in args.models:
        model, seconds[name] = fitted(name, X, args.epochs, 0)
        codes[name] = model.transform(X), model.transform(told)
    rows: list[list[str]] = []
    few: dict[str, dict[str, list[float]]] = {}
    for name, (known, unknown) in codes.items():
        line = [name]
        for head in ("linear", "knn"):
            m = ct.HeadClassifier(head=head, random_state=0).fit(known, y)
            line += [f"{m.score(unknown, truth):.4f}", f"{m.calibration_error(unknown, truth):.4f}"]
        few[name] = {}
        for seed in range(DRAWS):
            for way, model in ways(seed).items():
                error = 1 - model.fit(known, hundred(y, seed)).score(unknown, truth)
                few[name].setdefault(way, []).append(error)
        line += [f"{100 * np.mean(errors):.1f} %" for errors in few[name].values()]
        rows.append([*line, f"{seconds[name]:.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    best = max(rows[1:], key=lambda row: float(row[1]))[0]
    shown = {name: codes[name] for name in dict.fromkeys((best, "vae")) if name in codes} | {
        "PCA": codes["PCA"],
        "raw input": (X, told),
    }
    scores = {}
    for name, (known, unknown) in shown.items():
        counts = COUNTS if name != "raw input" else COUNTS[:-1]
        found = ct.label_efficiency_curve(
            None, known, y, test=(unknown, truth), counts=counts, repeats=DRAWS, random_state=0
        )
        scores[name] = found.scores["codes"].tolist()
    draw(scores, args.figure)
    write_json(
        str(args.out),
        title="Heads on frozen codes of MNIST, 16 numbers an image",
        command="python benchmarks/quality/transfer.py --data mnist.npz",
        machine=machine_info(torch.get_num_threads()),
        columns=[
            "codes",
            "linear head",
            "its ECE",
            "5 neighbors",
            "their ECE",
            "error with 100 labels that spread",
            "error with 100 labels, others summed out",
            "fit (s)",
        ],
        rows=rows,
        notes=[
            "Accuracy on 10,000 test images; encoders of 784-512-256-16 (wide: 784-1024-512-16, and 100 "
            f"components), {args.epochs} epochs on 60,000 images without labels, one seed. "
            "ECE: 15 bins, after a temperature.",
            f"The curve: {DRAWS} draws of labels, linear heads. 100 labels: the mean of {DRAWS} draws of ten "
            "of each digit; the other 59,900 images have none. Summed out: a conditional VAE of the codes, "
            "10 epochs (M1+M2).",
        ],
        raw={"counts": COUNTS, "scores": scores, "hundred": few},
        figure="figures/label_efficiency.png",
    )


def draw(scores: dict[str, Any], path: Path) -> None:
    from chartae.estimators.efficiency import LabelEfficiency

    mpl.use("Agg")
    whole = {name: np.full((len(COUNTS), DRAWS), np.nan) for name in scores}
    for name, lines in scores.items():
        whole[name][: len(lines)] = lines
    figure: Any = LabelEfficiency(COUNTS, whole).plot().figure
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
