"""One command line for each kind of data: does it fit, sample and come back, and is its density any good?

Sounds, embeddings of texts, a folder of images of odd sizes, a table with missing values, and a parquet
file of ten times the memory allowed are each fitted by one `chartae fit`. Held-out rows, which fitting
never sees, are then scored by the model that was loaded again: a lower bound of log p(x) with 500
importance samples. What it has to beat is probabilistic PCA with as many dimensions, in the same units; for
the table, independent columns: mixtures of normals for numbers, frequencies for categories and counts.

    python benchmarks/quality/data_kinds.py --folder FOLDER

The folder holds fsdd_4speakers.npz (`wave` and `offsets`, 2,000 spoken digits of the Free Spoken Digit
Dataset), agnews_minilm.npz (`embedding`, of 7,600 news texts by all-MiniLM-L6-v2) and mnist.npz.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mixed_table import people

import chartae as ct
from chartae.apps.cli import main as chartae

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

SAMPLES = 500  # importance samples


def halves(n: int, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to fit, and to hold out."""
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: int(share * n)]), np.sort(order[int(share * n) :])


def sounds(source: Path, folder: Path) -> tuple[Path, Path]:
    with np.load(source / "fsdd_4speakers.npz") as data:
        wave, ends, rate = data["wave"], data["offsets"], data["sample_rate"]
    paths = folder / "sounds.npz", folder / "sounds-held-out.npz"
    for path, rows in zip(paths, halves(len(ends) - 1), strict=True):
        waves = [wave[ends[row] : ends[row + 1]] for row in rows]
        offsets = np.cumsum([0, *map(len, waves)])
        np.savez(path, wave=np.concatenate(waves), offsets=offsets, sample_rate=rate)
    return paths


def embeddings(source: Path, folder: Path) -> tuple[Path, Path]:
    with np.load(source / "agnews_minilm.npz") as data:
        X = data["embedding"].astype(np.float32)
    paths = folder / "embeddings.npy", folder / "embeddings-held-out.npy"
    for path, rows in zip(paths, halves(len(X)), strict=True):
        np.save(path, X[rows])
    return paths


def images(source: Path, folder: Path) -> tuple[Path, Path]:
    """Digits, stretched to heights and widths between 20 and 40 pixels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    with np.load(source / "mnist.npz") as data:
        X = data["x_train"][:5000]
    paths = folder / "images", folder / "images-held-out"
    for path, rows in zip(paths, halves(len(X)), strict=True):
        path.mkdir()
        for row in rows:
            size = tuple(int(side) for side in rng.integers(20, 41, 2))
            Image.fromarray(X[row]).resize(size, Image.Resampling.BILINEAR).save(path / f"{row:05}.png")
    return paths


def table(source: Path, folder: Path) -> tuple[Path, Path]:
    whole = people(5000, missing=0.1)
    paths = folder / "table.csv", folder / "table-held-out.csv"
    for path, rows in zip(paths, halves(len(whole)), strict=True):
        whole.iloc[rows].to_csv(path, index=False)
    return paths


def numbers(source: Path, folder: Path) -> tuple[Path, Path]:
    """A curved surface of 4 dimensions in 50, with noise: 40 MB of float32, and few rows more."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(205_000, 4))
    X = np.tanh(z @ rng.normal(size=(4, 30))) @ rng.normal(size=(30, 50))
    whole = pd.DataFrame(
        (X + rng.normal(size=X.shape)).astype(np.float32), columns=[f"c{i}" for i in range(50)]
    )
    paths = folder / "numbers.parquet", folder / "numbers-held-out.parquet"
    whole[:200_000].to_parquet(paths[0], row_group_size=20_000)
    whole[200_000:].to_parquet(paths[1])
    return paths


def ppca(model: Any, fitted: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Log density of rows under probabilistic PCA of the model's d, in nats of the input's units."""
    from sklearn.decomposition import PCA

    fitted, held_out = (np.asarray(X, np.float64).reshape(len(X), -1) for X in (fitted, held_out))
    return PCA(model.latent_dim_, svd_solver="full").fit(fitted).score_samples(held_out)


def marginals(model: Any, fitted: pd.DataFrame, held_out: pd.DataFrame) -> np.ndarray:
    """Log density of rows whose columns are independent; missing values count for nothing."""
    schema = model.space_.schema
    rows, others = schema.encode(fitted), schema.encode(held_out)
    total = np.zeros(len(others))
    for column, seen, asked in zip(schema.columns, rows.T, others.T, strict=True):
        density = smooth(seen) if column.kind == "continuous" else frequencies(seen, column.levels)
        there = ~np.isnan(asked)
        total[there] += density(asked[there])
    return total


def frequencies(seen: np.ndarray, levels: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """One more of each value than there was, so that nothing is impossible."""
    seen = seen[~np.isnan(seen)].astype(int)
    counts = np.bincount(seen, minlength=levels or 2 * seen.max() + 2) + 1.0
    log_share = np.log(counts / counts.sum())
    return lambda asked: log_share[np.minimum(asked.astype(int), len(counts) - 1)]


def smooth(seen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A mixture of one or more normals, of the values or their logarithms: the best by cross-validation."""
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import GridSearchCV

    seen, found = seen[~np.isnan(seen)], []
    for to, slope in [(np.positive, np.zeros_like), (np.log, np.log)][: 1 + (seen.min() > 0)]:
        center, scale = to(seen).mean(), to(seen).std()
        search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 3, 5, 8]}, cv=5)
        search.fit(((to(seen) - center) / scale)[:, None])
        score = search.best_score_ - np.log(scale) - slope(seen).mean()
        found.append((score, search, to, slope, center, scale))
    _, search, to, slope, center, scale = max(found, key=lambda each: each[0])
    return lambda x: search.score_samples(((to(x) - center) / scale)[:, None]) - np.log(scale) - slope(x)


#: What is made, the options of its one line, and what it has to beat.
KINDS: dict[str, tuple[Any, str, Any, str]] = {
    "spoken digits as log mels": (sounds, "", ppca, "probabilistic PCA"),
    "embeddings of news": (embeddings, "", ppca, "probabilistic PCA"),
    "images of odd sizes": (images, "", ppca, "probabilistic PCA"),
    "table with missing values": (table, "", marginals, "independent columns"),
    "40 MB of parquet in 4 MB": (numbers, "--memory 4MB", ppca, "probabilistic PCA"),
}


def one_kind(make: Any, options: str, rival: Any, source: Path, folder: Path, seed: int) -> dict[str, Any]:
    fitted, held_out = make(source, folder)
    run = folder / f"run-{fitted.stem}"
    line = f"fit {fitted} --out {run} --seed {seed} {options} --quiet"
    wall, cpu = time.perf_counter(), time.process_time()
    if chartae(shlex.split(line)):
        raise SystemExit(f"chartae {line} failed")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ends = "csv" if fitted.suffix in (".csv", ".parquet") else "npy"
    for name in ("first", "again"):
        made = folder / f"{name}-{fitted.stem}.{ends}"
        if chartae(shlex.split(f"sample {run} --n 100 --seed 1 --out {made}")):
            raise SystemExit("chartae sample failed")
    same = made.read_bytes() == (folder / f"first-{fitted.stem}.{ends}").read_bytes()
    model = ct.load(run)
    # Items of the held-out rows as those that were fitted: the same mels, the same size in pixels.
    size = model.space_.shape[:2] if fitted.is_dir() else None
    rows, others = (ct.read(path, encoder=model.medium_, size=size).X for path in (fitted, held_out))
    scores = model.score_samples(others, n_importance=SAMPLES)
    base = rival(model, rows, others)
    better = scores - base
    return {
        "line": "chartae " + line.replace(f"{folder}/", "").replace(" --quiet", ""),
        "summary": model.summary_,
        "epochs": [model.best_epoch_, model.n_iter_],
        "same_samples": same,
        "wall": wall,
        "cpu": cpu,
        "d": model.latent_dim_,
        "rows": len(others),
        "model": float(scores.mean()),
        "rival": float(base.mean()),
        "difference": float(better.mean()),
        "error": float(better.std() / np.sqrt(len(better))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "data_kinds.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="a word in the name of a kind")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    raw = {}
    for name, (make, options, rival, _) in KINDS.items():
        if args.only is None or args.only in name:
            with tempfile.TemporaryDirectory() as folder:
                raw[name] = one_kind(make, options, rival, args.folder, Path(folder), args.seed)
            print(name, raw[name], flush=True)
    if args.only is not None:
        return
    write_json(
        args.out,
        title="One command line for each kind of data: the log density of held-out rows",
        command="python benchmarks/quality/data_kinds.py --folder FOLDER",
        machine=machine_info(args.threads),
        columns=[
            "data",
            "d",
            "chartae, nats a row",
            "rival, nats a row",
            "difference ± standard error",
            "rival",
        ],
        rows=[
            [
                name,
                found["d"],
                f"≥ {found['model']:.2f}",
                f"{found['rival']:.2f}",
                f"{found['difference']:+.2f} ± {found['error']:.2f}",
                KINDS[name][3],
            ]
            for name, found in raw.items()
        ],
        notes=[
            f"chartae's is a lower bound, of {SAMPLES} importance samples; both in the units of the data.",
            *(f"{name}: `{found['line']}`; {found['summary']}" for name, found in raw.items()),
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
