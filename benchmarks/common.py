"""What all benchmarks share: data, machine, workers run in turn, and the JSON that `render.py` reads.

Every benchmark runs each contender in a subprocess of its own, because flushing denormals, thread pools and
allocator state belong to a process and would leak from one contender to the next. Contenders alternate
(A B C A B C ...), so that a slow minute of the machine hits all of them, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Splits = dict[str, np.ndarray]


def load_data(path: str | None) -> Splits:
    """MNIST as uint8: ``x_train`` (60000, 28, 28), ``y_train``, ``x_test`` (10000, 28, 28), ``y_test``.

    ``path`` names an .npz with these four keys. Without one, OpenML's ``mnist_784`` is fetched, whose first
    60,000 rows are the training set.
    """
    if path is not None:
        with np.load(path) as data:
            return {key: data[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    from sklearn.datasets import fetch_openml

    x, y = fetch_openml("mnist_784", version=1, as_frame=False, parser="auto", return_X_y=True)
    x, y = x.astype(np.uint8).reshape(-1, 28, 28), y.astype(np.uint8)
    return {"x_train": x[:60000], "y_train": y[:60000], "x_test": x[60000:], "y_test": y[60000:]}


def unit_rows(images: np.ndarray) -> np.ndarray:
    """uint8 images (n, 28, 28) -> float32 rows (n, 784) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def machine_info(threads: int) -> dict[str, Any]:
    """CPU model, cores, instruction sets that decide the speed of bfloat16, and library versions."""
    model, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = value
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    from importlib.metadata import PackageNotFoundError, version

    for package in ("torch", "pythae", "chartae"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "cpu": model,
        "cores": cores,
        "threads": threads,
        "isa": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags.split()],
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
    }


def parser(description: str | None, *, out: str, rounds: int = 3) -> argparse.ArgumentParser:
    """Options of every benchmark. ``--worker`` and ``--result`` are for the subprocesses."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", help=".npz with x_train, y_train, x_test, y_test (default: OpenML's mnist_784)")
    p.add_argument("--out", default=str(Path(__file__).parent / out), help="JSON to write")
    p.add_argument("--rounds", type=int, default=rounds, help="how often each contender runs")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--worker", help=argparse.SUPPRESS)
    p.add_argument("--result", help=argparse.SUPPRESS)
    p.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    return p


def command_line(args: argparse.Namespace, script: str) -> str:
    """The command as a reader would repeat it: no local paths."""
    words = ["python", f"benchmarks/{script}"]
    for key, value in vars(args).items():
        if key in {"out", "worker", "result", "round"} or value is None or value is False:
            continue
        if key == "data":
            value = Path(value).name
        values = value if isinstance(value, list) else [value]
        words.append("--" + key.replace("_", "-"))
        words += [] if value is True else [str(v) for v in values]
    return " ".join(words)


def serve(args: argparse.Namespace, workers: Mapping[str, Callable[..., dict[str, Any]]]) -> bool:
    """In a subprocess: run the worker that ``--worker`` names, write its dict, return True."""
    if args.worker is None:
        return False
    import torch

    torch.set_num_threads(args.threads)
    result = workers[args.worker](args)
    Path(args.result).write_text(json.dumps(result))
    return True


def run_in_turn(
    script: str, args: argparse.Namespace, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Run every contender once a round, each in a fresh process; return their dicts, one a round."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    env = os.environ | {key: str(args.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **(load_data(None) if args.data is None else np.load(args.data)))  # uncompressed: fast
        passed = []
        for key, value in vars(args).items():
            if (
                key in {"data", "out", "rounds", "worker", "result", "round"}
                or value is None
                or value is False
            ):
                continue
            values = value if isinstance(value, list) else [value]
            passed += ["--" + key.replace("_", "-")] + ([] if value is True else [str(v) for v in values])
        for turn in range(args.rounds):
            # every other round backwards: nobody always runs after the same neighbor
            for name in names if turn % 2 == 0 else names[::-1]:
                out = Path(folder) / "result.json"
                out.unlink(missing_ok=True)
                words = [sys.executable, script, "--data", str(data), "--worker", name]
                words += ["--result", str(out), "--round", str(turn), *passed]
                before, began = _busy(), time.perf_counter()
                done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, check=False)
                after, wall = _busy(), time.perf_counter() - began
                if done.returncode != 0:
                    raise SystemExit(f"{name} failed in round {turn}:\n{done.stderr[-3000:]}")
                result = json.loads(out.read_text())
                # Whether the machine was left alone: cores that other processes took meanwhile.
                result["others_cores"] = round((after - before) / wall, 3)
                results[name].append(result)
                seen = {k: v for k, v in results[name][-1].items() if not isinstance(v, (list, dict))}
                print(f"round {turn} {name}: {seen}", file=sys.stderr, flush=True)
    return results


def _busy() -> float:
    """CPU seconds that the machine has spent so far on anything but this process and its ended children."""
    try:
        user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    except OSError:
        return 0.0
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own


def disturbance(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A note on how many cores other processes took while the contenders ran."""
    most = max(run["others_cores"] for runs in results.values() for run in runs)
    return f"Other processes took at most {most:.2f} cores meanwhile."


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """How many times longer ``base`` took than ``other``, round by round."""
    return [b / o for b, o in zip(base, other, strict=True)]


def write_json(path: str, **content: Any) -> None:
    """Write what `render.py` reads (title, command, machine, columns, rows, notes) and whatever is raw."""
    missing = {"title", "command", "machine", "columns", "rows", "notes"} - content.keys()
    if missing:
        raise ValueError(f"the JSON of a benchmark needs {sorted(missing)}")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = content.pop("raw", {})  # a line for each: there may be thousands of numbers
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in raw.items())
    text = json.dumps(content, indent=1).removesuffix("\n}")
    target.write_text(text + (f',\n "raw": {{\n{lines}\n }}' if raw else "") + "\n}\n")
    print(target.name, file=sys.stderr)
    print(" | ".join(content["columns"]))
    for row in content["rows"]:
        print(" | ".join(str(cell) for cell in row))
