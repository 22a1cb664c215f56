"""How well are missing values filled in? Tables of scikit-learn, 20 % of whose cells are hidden at random.

Every method sees the same cells, and says what it expects in the others. The error is the root mean square
over hidden cells, in standard deviations of their columns; constant columns are left out. The rivals see
columns that are standardized by what is observed, which suits them best. One setting of the VAE serves all
tables. Its likelihood, and how much is hidden from its encoder in training, were chosen on masks of other
seeds.

    python benchmarks/quality/imputation.py
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

TABLES = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
SETTING = {
    "missing": "mask",
    "scale": "feature",
    "likelihood": "student-t",  # columns that are nearly always zero have values of 40 standard deviations
    "max_epochs": 800,
    "patience": 40,
}
MISSING = 0.2


def vae(X: np.ndarray, seed: int) -> np.ndarray:
    import chartae as ct

    return ct.VAE(**SETTING, random_state=seed).fit(X).reconstruct(X)


def knn(X: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.impute import KNNImputer

    return standardized(KNNImputer(), X)


def mean(X: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.impute import SimpleImputer

    return SimpleImputer().fit_transform(X)


def regressions(X: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return standardized(IterativeImputer(random_state=seed), X)


def standardized(imputer: object, X: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X)
    return scaler.inverse_transform(imputer.fit_transform(scaler.transform(X)))


METHODS = {"VAE": vae, "KNNImputer": knn, "mean": mean, "IterativeImputer": regressions}


def error(full: np.ndarray, filled: np.ndarray, hidden: np.ndarray) -> float:
    """Root mean square over hidden cells, in standard deviations of their columns."""
    spread = full.std(0)
    varied = spread > 0
    off = (filled - full)[:, varied] / spread[varied]
    return float(np.sqrt(np.mean(off[hidden[:, varied]] ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "imputation.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22, 23, 24])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")  # regressions that have not converged

    raw: dict[str, dict[str, list[float]]] = {}
    for table, load in TABLES.items():
        full = load().data.astype(float)
        raw[table] = {name: [] for name in METHODS}
        for seed in args.seeds:
            hidden = np.random.default_rng(seed).random(full.shape) < MISSING
            X = np.where(hidden, np.nan, full)
            for name, fill in METHODS.items():
                raw[table][name].append(error(full, fill(X, seed), hidden))
            print(
                table, seed, {name: round(errors[-1], 3) for name, errors in raw[table].items()}, flush=True
            )
    write_json(
        args.out,
        title="Missing values: the error of what is filled in, where 20 % of the cells are hidden at random",
        command="python benchmarks/quality/imputation.py",
        machine=machine_info(args.threads),
        columns=["table", *(f"{name} (seeds)" for name in METHODS)],
        rows=[
            [table] + [f"{np.mean(e):.3f} ({', '.join(f'{one:.3f}' for one in e)})" for e in errors.values()]
            for table, errors in raw.items()
        ],
        notes=[
            "Root mean square over hidden cells, in standard deviations of their columns; lower is better.",
            "VAE("
            + ", ".join(f"{k}={v!r}" for k, v in SETTING.items())
            + "), d chosen by itself; the rivals "
            "with scikit-learn's defaults, on standardized columns.",
            "The IterativeImputer is a linear regression of each column on the others.",
        ],
        raw={"seeds": args.seeds, "errors": raw},
    )


if __name__ == "__main__":
    main()
