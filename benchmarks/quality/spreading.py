"""Labels that spread, beside scikit-learn's, and beside heads that see rows with a label alone.

Bundled data of scikit-learn, and two normal distributions that overlap, one of them of few rows. Labels are
drawn at random, so that classes are as unequal among them as they are.

    python benchmarks/quality/spreading.py
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.preprocessing import scale
from sklearn.semi_supervised import LabelSpreading

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

HEADS: dict[str, Any] = {
    "spreading": "spreading",
    "scikit-learn's": LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.99, max_iter=1000),
    "5 neighbors": "knn",
    "linear": "linear",
}


def overlapping(share: float, gap: float, n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Two normals in five dimensions, ``gap`` standard deviations apart; of one there is a small share."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < share).astype(int)
    X = rng.normal(size=(n, 5))
    X[:, 0] += gap * y
    return X, y


def data() -> dict[str, tuple[np.ndarray, np.ndarray, tuple[int, ...]]]:
    """Items, classes, and how many labels are given."""
    cancer, wine = load_breast_cancer(), load_wine()
    return {
        "digits": (*load_digits(return_X_y=True), (50, 100, 600)),
        "breast cancer": (scale(cancer.data), cancer.target, (50, 300)),
        "wine": (scale(wine.data), wine.target, (30,)),
        "normals, a tenth, 2 apart": (*overlapping(0.1, 2.0), (100,)),
        "normals, a tenth, 4 apart": (*overlapping(0.1, 4.0), (100,)),
        "normals, a third, 2 apart": (*overlapping(0.33, 2.0), (100,)),
    }


def told(head: Any, X: np.ndarray, y: np.ndarray, labels: int, seed: int) -> tuple[float, float, float]:
    """Accuracy, its mean over classes, and nats, of the rows without a label."""
    import chartae as ct

    order = np.random.default_rng(seed).permutation(len(y))
    given = np.full(len(y), -1)
    given[order[:labels]] = y[order[:labels]]
    made = ct.HeadClassifier(head=head, random_state=seed).fit(X, given)
    rest, p = order[labels:], made.predict_proba(X[order[labels:]])
    read = made.classes_[p.argmax(1)]
    nats = log_loss(y[rest], np.clip(p, 1e-6, 1), labels=made.classes_)
    return (read == y[rest]).mean(), balanced_accuracy_score(y[rest], read), nats


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "spreading.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, (X, y, counts) in data().items():
        for labels in counts:
            found = {
                head: np.mean([told(made, X, y, labels, seed) for seed in range(args.seeds)], 0)
                for head, made in HEADS.items()
            }
            for head, (accuracy, balanced, nats) in found.items():
                rows.append([name, str(labels), head, f"{accuracy:.3f}", f"{balanced:.3f}", f"{nats:.3f}"])
            print(*rows[-len(HEADS) :], sep="\n", flush=True)
    write_json(
        str(args.out),
        title="Few labels that spread along all rows",
        command="python benchmarks/quality/spreading.py",
        machine=machine_info(1),
        columns=["data", "labels", "head", "accuracy", "its mean over classes", "nats a row"],
        rows=rows,
        notes=[
            f"Means over {args.seeds} draws of labels, at random; of the rows without one. No encoder.",
            "scikit-learn's: LabelSpreading, 10 neighbors and alpha = 0.99 as well. Nats: -log p(y), of "
            "probabilities of a millionth or more.",
        ],
    )


if __name__ == "__main__":
    main()
