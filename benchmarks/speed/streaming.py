"""Fitting a parquet file ten times as large as the memory given: peak memory and time, against an array.

Rows of 50 float32 values, 8 of whose dimensions carry the signal, in row groups of 20,000. Peak memory is
that of the process above what imports and a small fit take. The array is the whole file, read before the
clock runs.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

LIMIT, TIMES, COLUMNS, GROUP = 64_000_000, 10, 50, 20_000
ROWS = TIMES * LIMIT // (4 * COLUMNS)
SETTINGS = {"latent_dim": 8, "hidden": (64,), "batch_size": 1024, "max_epochs": 2, "random_state": 0}
LABELS = {"array": "array in memory", "stream": "read in blocks, memory of 64 MB"}


def write(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, COLUMNS)).astype(np.float32)
    names = [f"c{i}" for i in range(COLUMNS)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float32()) for name in names])) as writer:
        for _ in range(ROWS // GROUP):
            x = rng.normal(size=(GROUP, 8)).astype(np.float32) @ mix
            x += 0.1 * rng.normal(size=x.shape).astype(np.float32)
            writer.write_table(pa.table(dict(zip(names, x.T, strict=True))), row_group_size=GROUP)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(args: Namespace) -> dict[str, Any]:
    import chartae as ct

    path = Path(os.environ["CHARTAE_BENCHMARK_FILE"])
    small = np.random.default_rng(0).normal(size=(2000, COLUMNS)).astype(np.float32)
    for data in (small, ct.stream(small, memory=LIMIT)):  # what is imported or started late
        ct.VAE(**SETTINGS | {"max_epochs": 1}).fit(data)
    ct.stream(path, columns=["c0"])[:1]
    before = peak()
    data = ct.stream(path, memory=LIMIT if args.worker == "stream" else "1TB")
    data = data if args.worker == "stream" else data[:]
    begun = perf_counter()
    vae = ct.VAE(**SETTINGS, scale="feature").fit(data)
    seconds = perf_counter() - begun
    epochs = [epoch["seconds"] for epoch in vae.history_]
    return {
        "extra_bytes": peak() - before,
        "fit_seconds": seconds,
        "epoch_seconds": min(epochs),
        "val_loss": vae.history_[-1]["val_loss"],
    }


WORKERS = dict.fromkeys(LABELS, measure)


def main() -> None:
    args = common.parser(__doc__, out="speed/results/streaming.json").parse_args()
    if common.serve(args, WORKERS):
        return
    raw: dict[str, list[dict[str, Any]]] = {name: [] for name in LABELS}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "rows.parquet", Path(folder) / "result.json"
        write(path)
        threads = {key: str(args.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        env = os.environ | threads | {"CHARTAE_BENCHMARK_FILE": str(path)}
        for turn in range(args.rounds):
            for name in list(LABELS)[:: 1 if turn % 2 == 0 else -1]:
                words = [sys.executable, __file__, "--worker", name, "--result", str(out)]
                subprocess.run([*words, "--threads", str(args.threads)], env=env, check=True)
                raw[name].append(json.loads(out.read_text()))
                print(f"round {turn} {name}: {raw[name][-1]}", file=sys.stderr, flush=True)
    rows = []
    for name, label in LABELS.items():
        extra = common.median([r["extra_bytes"] for r in raw[name]])
        pairs = zip(raw[name], raw["array"], strict=True)
        ratio = common.median([r["epoch_seconds"] / a["epoch_seconds"] for r, a in pairs])
        streamed = name == "stream"
        rows.append(
            [
                label,
                f"{extra / 1e6:.0f}",
                f"{extra / LIMIT:.2f}",
                f"{common.median([r['epoch_seconds'] for r in raw[name]]):.1f}",
                f"{ratio:.2f}",
                "≤ 1 and ≤ 1.3" if streamed else "",
            ]
        )
    common.write_json(
        args.out,
        title="640 MB of numbers in a parquet file, and 64 MB of memory",
        command=common.command_line(args, "speed/streaming.py"),
        machine=common.machine_info(args.threads),
        columns=["data", "peak memory (MB)", "of the limit", "seconds an epoch", "of the array's", "wanted"],
        rows=rows,
        notes=[
            "3,200,000 rows of 50 float32 values; a VAE with a hidden layer of 64, batches of 1,024.",
            "Peak memory counts what lies above imports and a small fit; the array itself counts.",
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
