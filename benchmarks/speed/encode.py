"""Encoding 60,000 rows, numpy in and numpy out: pythae's `embed` against chartae's `transform`.

pythae is measured with several batch sizes and all rows at once, and the fastest counts. The precision of
bf16 codes is told beside its speed.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_vae

import common

REPEATS = 5
PYTHAE_BATCHES = (512, 4096, None)


def seconds_of(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    call()  # warm-up
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return common.median(times)


def run_pythae(args: Namespace) -> dict[str, Any]:
    x = common.unit_rows(common.load_data(args.data)["x_train"])
    torch.manual_seed(args.round)
    model = train_vae.pythae_vae().eval()

    def embed(batch: int | None) -> np.ndarray:
        with torch.no_grad():
            return torch.cat(
                [model.embed(part) for part in torch.from_numpy(x).split(batch or len(x))]
            ).numpy()

    assert embed(None).shape == (len(x), train_vae.LATENT)
    times = {str(batch or "all"): seconds_of(lambda b=batch: embed(b)) for batch in PYTHAE_BATCHES}
    return {"seconds": min(times.values()), "by_batch": times}


def run_chartae(args: Namespace, *, precision: str) -> dict[str, Any]:
    x = common.unit_rows(common.load_data(args.data)["x_train"])
    vae = train_vae.chartae_vae("float32", 1, args.round).fit(x)
    exact, std = vae.transform(x, return_std=True)
    vae.set_params(precision=precision)
    codes = vae.transform(x)
    assert codes.shape == (len(x), train_vae.LATENT)
    error = np.abs(codes - exact)
    scale = exact.std(axis=0)
    used = scale > 0.1  # dimensions that the prior has not switched off; the others carry nothing
    relative = (codes - exact)[:, used] / scale[used]
    return {
        "seconds": seconds_of(lambda: vae.transform(x)),
        "largest_error_in_stds": float(np.abs(relative).max()),
        "rms_error_in_stds": float(np.sqrt(np.mean(np.square(relative)))),
        "largest_error": float(error.max()),
        "rms_error_in_posterior_stds": float(np.sqrt(np.mean(np.square((codes - exact) / std)))),
        "used_dimensions": int(used.sum()),
    }


WORKERS = {
    "pythae": run_pythae,
    "chartae float32": lambda args: run_chartae(args, precision="float32"),
    "chartae bf16": lambda args: run_chartae(args, precision="bf16"),
}
WANTED = {"chartae float32": "≥ 3", "chartae bf16": "≥ 8"}
LABELS = {
    "pythae": "pythae 0.1.2, model.embed",
    "chartae float32": "chartae, transform, precision='float32'",
    "chartae bf16": "chartae, transform, precision='bf16'",
}


def main() -> None:
    args = common.parser(__doc__, out="speed/results/encode.json").parse_args()
    if common.serve(args, WORKERS):
        return
    raw = common.run_in_turn(__file__, args, list(WORKERS))
    times = {n: [r["seconds"] for r in raw[n]] for n in WORKERS}
    batches = ", ".join(str(batch) for batch in PYTHAE_BATCHES if batch)
    rows, all_ratios = [], {}
    for n in WORKERS:
        ratio = all_ratios[n] = common.ratios(times["pythae"], times[n])
        spread = f"{common.median(ratio):.1f} ({min(ratio):.1f}–{max(ratio):.1f})"
        errors = ["–", "–"]
        if n != "pythae":
            keys = ("rms_error_in_stds", "largest_error_in_stds")
            errors = [f"{common.median([r[key] for r in raw[n]]):.2g}" for key in keys]
        rows.append([LABELS[n], f"{common.median(times[n]):.3f}", spread, WANTED.get(n, ""), *errors])
    # The simplest call of it, all rows at once, beside the fastest.
    called = [r["by_batch"]["all"] for r in raw["pythae"]]
    as_called = {n: f"{common.median(common.ratios(called, times[n])):.1f}" for n in WANTED}
    common.write_json(
        args.out,
        title="Encoding 60,000 rows of 784 float32 values",
        command=common.command_line(args, "speed/encode.py"),
        machine=common.machine_info(args.threads),
        columns=[
            "contender",
            "seconds",
            "times as fast as pythae",
            "wanted",
            "RMS error (code stds)",
            "largest error (code stds)",
        ],
        rows=rows,
        notes=[
            "The encoder of train_vae.py; numpy array in, (60000, 16) numpy array out. The model is trained "
            "for one epoch (chartae) or not at all (pythae), which does not matter to the time.",
            f"pythae: the fastest of batches of {batches} and all rows at once. Its embed also decodes, and "
            "returns a random draw of the posterior; transform returns the mean.",
            f"All rows in one call take pythae {common.median(called):.3f} s: against that, float32 is "
            f"{as_called['chartae float32']} and bf16 {as_called['chartae bf16']} times as fast.",
            "The matrix products alone are timed by limit.py.",
            "Errors against float32, in standard deviations of a code over the data; dimensions in use only.",
            common.disturbance(raw),
        ],
        raw=raw,
        ratios=all_ratios,
    )


if __name__ == "__main__":
    main()
