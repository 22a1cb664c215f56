"""Can synthetic rows be told from real ones? 20,000 rows of known structure, and CTGAN's TVAE beside.

Half of the rows are fitted, and as many synthetic ones are made. A gradient-boosted classifier is trained on
half of the other real rows and half of the synthetic ones, and its AUC is measured on the rest: 0.5 means
that it cannot tell. What every method has to beat are columns that are drawn independently of each other.
Every column must come back with its type, and with values that the real one could hold.

    pip install ctgan  # in an environment of its own: it needs an older pandas than the others
    python benchmarks/quality/synthetic_rows.py
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mixed_table import CITIES, FARES, JOBS, people
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

ROWS = 20_000
WORDS = ["owner", "car", "job", "city", "fare"]
EPOCH = pd.Timestamp("2022-01-01")


def chartae(real: pd.DataFrame, n: int, seed: int) -> tuple[pd.DataFrame, str]:
    import chartae as ct

    vae = ct.VAE(random_state=seed).fit(real)
    made = vae.sample(n, random_state=seed + 1)
    return made, f"{vae.summary_}; epoch {vae.best_epoch_} of {vae.n_iter_}"


def tvae(real: pd.DataFrame, n: int, seed: int) -> tuple[pd.DataFrame, str]:
    from ctgan import TVAE

    days = (real["since"] - EPOCH).dt.days  # it knows no dates
    plain = real.astype(dict.fromkeys(WORDS, str)).assign(since=days)
    np.random.seed(seed)  # noqa: NPY002 - it draws from the global generators
    torch.manual_seed(seed)
    model = TVAE(enable_gpu=False)
    model.fit(plain, WORDS)
    made = model.sample(n)
    made["since"] = EPOCH + pd.to_timedelta(made["since"], unit="D")
    made["owner"], made["car"] = made["owner"] == "True", made["car"].astype(np.int64)
    return made.astype(real.dtypes.to_dict()), f"TVAE() of ctgan, {model.epochs} epochs"


def columns_alone(real: pd.DataFrame, n: int, seed: int) -> tuple[pd.DataFrame, str]:
    rng = np.random.default_rng(seed)
    made = {name: real[name].iloc[rng.integers(len(real), size=n)].array for name in real}
    return pd.DataFrame(made), "each column drawn from the real one by itself"


def real_rows(real: pd.DataFrame, n: int, seed: int) -> tuple[pd.DataFrame, str]:
    return real, "the rows that were fitted, in place of synthetic ones"


METHODS = {
    "chartae": chartae,
    "ctgan TVAE": tvae,
    "independent columns": columns_alone,
    "real rows": real_rows,
}


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """What the classifier sees: categories as codes, dates as days."""
    out = {name: table[name] for name in table}
    for name, known in (("job", JOBS), ("city", CITIES), ("fare", FARES)):
        out[name] = pd.Categorical(table[name].astype(object), known).codes.astype(float)
    out["since"] = (table["since"] - EPOCH).dt.total_seconds() / 86400
    return pd.DataFrame(out).astype(float)


def told_apart(real: pd.DataFrame, made: pd.DataFrame) -> float:
    """AUC of a classifier that tells synthetic rows from real ones, on rows that it was not trained on."""
    both = pd.concat([numbers(real), numbers(made[list(real)])], ignore_index=True)
    label = np.repeat([0, 1], [len(real), len(made)])
    order = np.random.default_rng(0).permutation(len(both))
    half, rest = order[::2], order[1::2]
    named = [name in ("job", "city", "fare") for name in both]
    judge = HistGradientBoostingClassifier(categorical_features=named, random_state=0)
    judge.fit(both.iloc[half], label[half])
    return float(roc_auc_score(label[rest], judge.predict_proba(both.iloc[rest])[:, 1]))


def wrong_columns(real: pd.DataFrame, made: pd.DataFrame) -> list[str]:
    """Columns of another type, or with values that the real one cannot hold."""
    wrong = [name for name in real if name not in made or made[name].dtype != real[name].dtype]
    for name in ("job", "fare", "city", "owner", "car"):
        if not set(made[name]) <= set(real[name]):
            wrong.append(name)
    if (made[["children", "visits"]] < 0).any(axis=None):
        wrong.append("counts below zero")
    if (made["since"] != made["since"].dt.normalize()).any():
        wrong.append("since")
    return wrong


def listed(values: list[float]) -> str:
    return f"{np.median(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "synthetic_rows.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")

    methods = dict(METHODS)
    if importlib.util.find_spec("ctgan") is None:
        print("ctgan is not installed, and its TVAE is left out: pip install ctgan", file=sys.stderr)
        del methods["ctgan TVAE"]
    raw: dict[str, list[dict]] = {name: [] for name in methods}
    for seed in args.seeds:
        table = people(ROWS, seed)
        real = table.iloc[: ROWS // 2].reset_index(drop=True)
        held_out = table.iloc[ROWS // 2 :].reset_index(drop=True)
        for name, make in methods.items():
            cpu = time.process_time()
            made, what = make(real, len(held_out), seed)
            cpu = time.process_time() - cpu
            found = {"auc": told_apart(held_out, made), "wrong": wrong_columns(real, made)}
            raw[name].append({"seed": seed, **found, "cpu": cpu, "what": what})
            print(seed, name, found, f"{cpu:.0f} s", flush=True)
    write_json(
        args.out,
        title="Synthetic rows of a mixed table: can a classifier tell them from real ones?",
        command="python benchmarks/quality/synthetic_rows.py",
        machine=machine_info(args.threads),
        columns=[
            "rows",
            "AUC, median (seeds)",
            "columns of another type or with impossible values",
            "seconds of processor",
        ],
        rows=[
            [
                name,
                listed([run["auc"] for run in runs]),
                max(len(run["wrong"]) for run in runs),
                f"{np.median([run['cpu'] for run in runs]):.0f}",
            ]
            for name, runs in raw.items()
        ],
        notes=[
            f"{ROWS:,} rows, half of them fitted: three continuous columns (one skewed, one with two modes), "
            "two counts, two binary ones, three of 3 to 12 categories, a date. 0.5: cannot be told apart.",
            *(f"{name}: {runs[0]['what']}" for name, runs in raw.items()),
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
