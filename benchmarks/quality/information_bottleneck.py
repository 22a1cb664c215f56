"""The variational information bottleneck on permutation-invariant MNIST, beside its deterministic twin.

Both are the same layers, rows, order and optimizer, and in training both see images with normal noise on
each pixel; the twin's code is a point, and has no rate to pay for. The bottleneck is read by draws, and by
its mean alone. Probabilities are judged as they are, and at a temperature that held-out rows choose for each.

    python benchmarks/quality/information_bottleneck.py --data mnist.npz
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import load_data, machine_info, unit_rows, write_json

KINDS = ("bottleneck", "bottleneck, mean alone", "deterministic twin")
JUDGED = ("error", "ece", "tempered")


def told(head: Any, temperature: float, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    from chartae.transfer import calibration_error, tempered

    head.temperature_ = 1.0
    p = head.predict_proba(X)
    return {
        "error": float((p.argmax(1) != y).mean()),
        "ece": calibration_error(p, y),
        "tempered": calibration_error(tempered(p, temperature), y),
        "temperature": temperature,
    }


def run(data: dict[str, np.ndarray], seed: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    import chartae as ct

    common = {
        "network": "mlp",
        "hidden": tuple(args.hidden),
        "latent_dim": args.latent_dim,
        "likelihood": "bernoulli",
        "corruption": ("gaussian", args.noise),
        "max_epochs": args.epochs,
        "schedule": "cosine",
        "patience": None,
        "validation_fraction": 0.0,
        "random_state": seed,
    }
    found = {}
    for kind, encoder in ((KINDS[0], ct.VAE(**common)), (KINDS[2], ct.AE(**common))):
        start = time.perf_counter()
        head = ct.HeadClassifier(
            encoder,
            training="bottleneck",
            weight=1 / args.beta,
            stochastic=kind == KINDS[0],
            n_samples=12,
            validation_fraction=1 / 12,
            random_state=seed,
        )
        head.fit(data["x_train"], data["y_train"])
        seconds = time.perf_counter() - start
        rest = head.temperature_, data["x_test"], data["y_test"]
        found[kind] = told(head, *rest) | {"seconds": seconds}
        if kind == KINDS[0]:
            last = head.encoder_.history_[-1]
            found[kind]["rate"] = last["kl"]
            head.stochastic = False
            found[KINDS[1]] = told(head, *rest) | {"seconds": seconds}
        print(seed, kind, found[kind], flush=True)
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of MNIST; without it OpenML's is fetched")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 512])
    parser.add_argument("--latent-dim", type=int, default=256)
    parser.add_argument("--beta", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=0.2, help="on pixels from 0 to 1, in training")
    parser.add_argument("--threads", type=int, default=2)
    out = Path(__file__).parent / "results" / "information_bottleneck.json"
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    data = load_data(args.data)
    data = {k: unit_rows(v) if k.startswith("x") else v for k, v in data.items()}
    settings = {
        "epochs": args.epochs,
        "hidden": args.hidden,
        "latent_dim": args.latent_dim,
        "beta": args.beta,
        "noise": args.noise,
    }
    kept: dict[str, Any] = {"settings": settings, "seeds": {}}
    if args.out.exists():
        before = json.loads(args.out.read_text())["raw"]
        kept = before if before["settings"] == settings else kept
    for seed in range(args.seeds):
        if str(seed) not in kept["seeds"]:
            kept["seeds"][str(seed)] = run(data, seed, args)
        write(args.out, kept, args.threads)


def write(out: Path, kept: dict[str, Any], threads: int) -> None:
    runs = list(kept["seeds"].values())
    rows = []
    for kind in KINDS:
        error, *eces = (np.array([r[kind][name] for r in runs]) for name in JUDGED)
        gains = [np.array([r[KINDS[2]][name] - r[kind][name] for r in runs]) for name in JUDGED]
        better = "" if kind == KINDS[2] else ", ".join(f"{(gain > 0).sum()} of {len(gain)}" for gain in gains)
        rows.append(
            [
                kind,
                f"{100 * error.mean():.2f} % ({100 * error.min():.2f}-{100 * error.max():.2f})",
                *(f"{ece.mean():.4f} ({ece.min():.4f}-{ece.max():.4f})" for ece in eces),
                better,
                f"{np.mean([r[kind]['seconds'] for r in runs]):.0f}",
            ]
        )
    hidden = "-".join(map(str, kept["settings"]["hidden"]))
    write_json(
        str(out),
        title="The information bottleneck and its deterministic twin, MNIST without its grid",
        command="python benchmarks/quality/information_bottleneck.py --data mnist.npz",
        machine=machine_info(threads),
        columns=[
            "classifier",
            "test error",
            "ECE",
            "ECE at a temperature",
            "better than its twin, in each of the three",
            "fit (s)",
        ],
        rows=rows,
        notes=[
            f"{len(runs)} seeds; layers of {hidden} and {kept['settings']['latent_dim']} numbers, "
            f"{kept['settings']['epochs']} epochs, β = {kept['settings']['beta']:g}, "
            f"noise of {kept['settings']['noise']:g} on pixels in training; 55,000 rows, and 5,000 "
            "for the temperature. The bottleneck averages over 12 draws.",
            "Published: 1.13 % for the bottleneck and 1.38 % for its twin, of 200 epochs (Alemi et al. 2017, "
            "arXiv:1612.00410).",
        ],
        raw=kept,
    )


if __name__ == "__main__":
    main()
