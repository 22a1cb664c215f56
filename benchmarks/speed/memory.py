"""Peak memory of fitting 60,000 x 784 uint8 values, above what imports and the loaded array already take.

Given as a multiple of the data's size in float32 (188 MB). A tiny fit comes first, so that lazily imported
libraries and thread pools are not counted.
"""

from __future__ import annotations

import resource
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_vae

import common


def resident() -> int:
    """Bytes in memory now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS")


def peak() -> int:
    """Bytes in memory at most since the last `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure(args: Namespace, fit: Callable[[np.ndarray], object]) -> dict[str, Any]:
    with np.load(args.data) as data:
        x = data["x_train"].reshape(-1, train_vae.SIZES[0])
    fit(x[:256])
    reset = forget_peak()
    before = resident() if reset else peak()
    fit(x)
    extra = peak() - before
    return {"extra_bytes": extra, "multiple": extra / (4 * x.size), "peak_was_reset": reset}


def fit_chartae(args: Namespace, precision: str) -> Callable[[np.ndarray], object]:
    return lambda x: train_vae.chartae_vae(precision, 1, args.round).fit(x)


def fit_pythae(x: np.ndarray) -> object:
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    config = BaseTrainerConfig(output_dir="pythae", num_epochs=1, per_device_train_batch_size=train_vae.BATCH)
    pipeline = TrainingPipeline(model=train_vae.pythae_vae(), training_config=config)
    return pipeline(train_data=x.astype(np.float32) / np.float32(255))


def fit_loader(x: np.ndarray) -> object:
    from torch.utils.data import DataLoader, TensorDataset

    encoder, decoder = train_vae.networks()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=train_vae.RATE)
    rows = torch.from_numpy(x).float() / 255
    for (batch,) in DataLoader(TensorDataset(rows), batch_size=train_vae.BATCH, shuffle=True):
        optimizer.zero_grad()
        train_vae.loss_of(encoder, decoder, batch).backward()
        optimizer.step()
    return encoder, decoder


WORKERS = {
    "pythae": lambda args: measure(args, fit_pythae),
    "plain loop": lambda args: measure(args, fit_loader),
    "chartae float32": lambda args: measure(args, fit_chartae(args, "float32")),
    "chartae auto": lambda args: measure(args, fit_chartae(args, "auto")),
}
LABELS = train_vae.LABELS | {"pythae": "pythae 0.1.2, TrainingPipeline"}


def main() -> None:
    args = common.parser(__doc__, out="speed/results/memory.json").parse_args()
    if common.serve(args, WORKERS):
        return
    raw = common.run_in_turn(__file__, args, list(WORKERS))
    rows = []
    for name in WORKERS:
        extra = common.median([r["extra_bytes"] for r in raw[name]])
        multiple = common.median([r["multiple"] for r in raw[name]])
        rows.append(
            [
                LABELS[name],
                f"{extra / 2**20:.0f}",
                f"{multiple:.2f}",
                "< 2" if name.startswith("chartae") else "",
            ]
        )
    common.write_json(
        args.out,
        title="Peak memory of fitting 60,000 × 784 uint8 values",
        command=common.command_line(args, "speed/memory.py"),
        machine=common.machine_info(args.threads),
        columns=["contender", "above imports and the array (MiB)", "× the data in float32", "wanted"],
        rows=rows,
        notes=[
            "One epoch of the VAE of train_vae.py. pythae and the plain loop need the array as float32, "
            "which counts; chartae takes uint8 as it is.",
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
