"""Fitting a parquet file ten times as large as the memory given: peak memory and time, against an array.

Rows of 50 float32 values, 8 of whose dimensions carry the signal, in row groups of 20,000. Peak memory is
that of a process above what imports and a small fit take. Epochs are timed in turn in one process: of the
array as usual, with its rows permuted as a whole; of the array in the order of the stream; and of the stream,
whose weights must be those of the second to the last bit.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

LIMIT, TIMES, COLUMNS, GROUP = 64_000_000, 10, 50, 20_000
ROWS = TIMES * LIMIT // (4 * COLUMNS)
HELD = 16_000  # rows that no epoch takes
MODEL = {"latent_dim": 8, "hidden": (64,)}
SETTINGS = {**MODEL, "batch_size": 1024, "max_epochs": 2, "random_state": 0, "scale": "feature"}
FITS = {"array": "array in memory", "stream": "read in blocks, memory of 64 MB"}
EPOCHS = {
    "array": "array in memory",
    "ordered": "array in memory, in the order of the stream",
    "stream": "read in blocks, memory of 64 MB",
}


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


def fit(args: Namespace) -> dict[str, Any]:
    """Peak memory and time from the file to the fitted model."""
    import chartae as ct

    path = Path(os.environ["CHARTAE_BENCHMARK_FILE"])
    small = np.random.default_rng(0).normal(size=(2000, COLUMNS)).astype(np.float32)
    for data in (small, ct.stream(small, memory=LIMIT)):  # what is imported or started late
        ct.VAE(**SETTINGS | {"max_epochs": 1}).fit(data)
    next(iter(ct.stream(path, memory="1MB", columns=["c0"]).frames()))
    before, begun = peak(), perf_counter()
    data = ct.stream(path, memory=LIMIT)
    if args.worker == "array":
        data = np.concatenate([frame.to_numpy() for frame in data.frames()])
    vae = ct.VAE(**SETTINGS).fit(data)
    seconds = perf_counter() - begun
    return {"extra_bytes": peak() - before, "fit_seconds": seconds, "val_loss": vae.history_[-1]["val_loss"]}


def epochs(args: Namespace) -> dict[str, Any]:
    """Seconds of an epoch, and the weights after it."""
    import torch

    import chartae as ct
    from chartae.core.arrays import AllBut
    from chartae.core.columns import Schema
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.engine import train
    from chartae.training.sources import Source

    table = ct.stream(os.environ["CHARTAE_BENCHMARK_FILE"], memory=LIMIT)
    streamed = Schema.learn(table).encode(table)
    array = np.concatenate([frame.to_numpy() for frame in table.frames()])
    kept = AllBut(ROWS, np.sort(np.random.default_rng(0).choice(ROWS, HELD, replace=False)))
    space = infer_space(streamed, scale="feature", rows=kept)

    class Ordered(Source):
        def order(self, generator: Any = None) -> Iterator[Any]:
            yield torch.cat(list(Source(streamed, space, rows=kept).order(generator)))

    rows = torch.from_numpy(kept[:])
    sources = {
        "array": Source(array, space, rows=rows),
        "ordered": Ordered(array, space, rows=rows),
        "stream": Source(streamed, space, rows=kept),
    }
    seconds: dict[str, list[float]] = {name: [] for name in EPOCHS}
    processor: dict[str, list[float]] = {name: [] for name in EPOCHS}  # of all threads
    weights = {}
    for turn in range(args.rounds):
        for name in list(EPOCHS)[:: 1 if turn % 2 == 0 else -1]:
            torch.manual_seed(0)
            plan = build("vae", space, **MODEL)
            begun = process_time()
            # Broken off after the epoch: what comes after the last one is another matter.
            epoch = next(train(plan, sources[name], epochs=2, batch_size=SETTINGS["batch_size"]))
            processor[name].append(process_time() - begun)
            seconds[name].append(epoch.log["seconds"])
            weights[name] = epoch.state()
    same = all(torch.equal(weights["ordered"][key], weights["stream"][key]) for key in weights["stream"])
    return {"epoch_seconds": seconds, "cpu_seconds": processor, "same_weights": same}


WORKERS = {**dict.fromkeys(FITS, fit), "epochs": epochs}


def main() -> None:
    args = common.parser(__doc__, out="speed/results/streaming.json").parse_args()
    if common.serve(args, WORKERS):
        return
    raw: dict[str, list[dict[str, Any]]] = {name: [] for name in WORKERS}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "rows.parquet", Path(folder) / "result.json"
        write(path)
        threads = {key: str(args.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        env = os.environ | threads | {"CHARTAE_BENCHMARK_FILE": str(path)}
        for name in ["epochs", *FITS] + ["stream"] * (args.rounds - 1):
            words = [sys.executable, __file__, "--worker", name, "--result", str(out)]
            words += ["--threads", str(args.threads), "--rounds", str(args.rounds)]
            subprocess.run(words, env=env, check=True)
            raw[name].append(json.loads(out.read_text()))
            print(f"{name}: {raw[name][-1]}", file=sys.stderr, flush=True)
    (timed,) = raw["epochs"]
    if not timed["same_weights"]:
        raise SystemExit("the stream's weights are not those of the array in the same order")
    rows = []
    for name, label in EPOCHS.items():
        memory = max((r["extra_bytes"] for r in raw.get(name, [])), default=None)
        seconds = timed["epoch_seconds"]
        of = {
            base: common.median([a / b for a, b in zip(seconds[name], seconds[base], strict=True)])
            for base in ("array", "ordered")
        }
        rows.append(
            [
                label,
                "" if memory is None else f"{memory / 1e6:.0f}",
                "" if memory is None else f"{memory / LIMIT:.2f}",
                "" if memory is None else f"{common.median([r['fit_seconds'] for r in raw[name]]):.0f}",
                f"{common.median(seconds[name]):.1f}",
                f"{of['array']:.2f}",
                f"{of['ordered']:.2f}",
                f"{common.median(timed['cpu_seconds'][name]):.1f}",
                "≤ 1 and ≤ 1.3" if name == "stream" else "",
            ]
        )
    common.write_json(
        args.out,
        title="640 MB of numbers in a parquet file, and 64 MB of memory",
        command=common.command_line(args, "speed/streaming.py"),
        machine=common.machine_info(args.threads),
        columns=[
            "data",
            "peak memory (MB)",
            "of the limit",
            "seconds of the fit",
            "seconds an epoch",
            "of the array's",
            "of the same order's",
            "CPU seconds an epoch",
            "wanted",
        ],
        rows=rows,
        notes=[
            "3,200,000 rows of 50 float32 values; a VAE with a hidden layer of 64, batches of 1,024; fits of "
            "2 epochs. Epochs are timed in turn; the machine did other work meanwhile, of which CPU seconds "
            "are free.",
            "Peak memory counts what lies above imports and a small fit, and is the largest of the runs; the "
            "array itself counts.",
            "A fit on the stream reads the file twice before its first epoch, to learn the columns and to "
            "write them as numbers to a temporary file. Its weights after an epoch are to the last bit those "
            "of the array in the same order.",
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
