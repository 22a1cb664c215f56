"""One epoch of the hand-written autograd loop against one epoch of chartae's engine, at the same precision.

Both processes stay alive and take turns epoch by epoch: the ratio is what the library costs (or saves) on top
of the arithmetic, on the same machine in the same minute. The first epoch of each is a warm-up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_vae

import common

PRECISIONS = ("float32", "bf16")


def hand_epochs(x: np.ndarray, precision: str) -> Iterator[None]:
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    encoder, decoder = train_vae.networks()
    rows = torch.from_numpy(x)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=train_vae.RATE, fused=True)
    while True:
        total = torch.zeros(())
        for index in torch.randperm(len(rows)).split(train_vae.BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = train_vae.loss_of(encoder, decoder, rows[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        yield


def chartae_epochs(x: np.ndarray, precision: str) -> Iterator[None]:
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.engine import train
    from chartae.training.precision import start_threads
    from chartae.training.sources import Source

    start_threads()
    torch.manual_seed(0)
    space = infer_space(x, likelihood="bernoulli")
    plan = build("vae", space, latent_dim=train_vae.LATENT, hidden=train_vae.SIZES[1:])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    options = {"batch_size": train_vae.BATCH, "learning_rate": train_vae.RATE, "precision": dtype}
    for _ in train(plan, Source(x, space), epochs=10**6, **options):
        yield


EPOCHS: dict[str, Callable[[np.ndarray, str], Iterator[None]]] = {
    "hand": hand_epochs,
    "chartae": chartae_epochs,
}


def serve(args: Namespace) -> None:
    """Run one epoch for every line on standard input, and answer with its seconds."""
    torch.set_num_threads(args.threads)
    name, precision = args.worker.split()
    epochs = EPOCHS[name](common.unit_rows(common.load_data(args.data)["x_train"]), precision)
    for _ in sys.stdin:
        start = time.perf_counter()
        next(epochs)
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    args = common.parser(__doc__, out="speed/results/step.json", rounds=8).parse_args()
    if args.worker is not None:
        return serve(args)
    env = os.environ | {key: str(args.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    names = [f"{name} {precision}" for precision in PRECISIONS for name in EPOCHS]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **common.load_data(args.data))
        words = [sys.executable, __file__, "--data", str(data), "--threads", str(args.threads), "--worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        workers = {name: subprocess.Popen([*words, name], env=env, **pipes) for name in names}
        try:
            for turn in range(args.rounds + 1):
                for name in names if turn % 2 == 0 else names[::-1]:
                    worker = workers[name]
                    worker.stdin.write("go\n")
                    answer = worker.stdout.readline()
                    if not answer:
                        raise SystemExit(f"{name} ended with exit code {worker.wait()}")
                    if turn:
                        seconds[name].append(float(answer))
                        print(f"round {turn} {name}: {float(answer):.2f} s", file=sys.stderr, flush=True)
        finally:
            for worker in workers.values():
                worker.stdin.close()
                worker.wait()
    rows, all_ratios = [], {}
    for precision in PRECISIONS:
        hand, own = seconds[f"hand {precision}"], seconds[f"chartae {precision}"]
        ratio = all_ratios[precision] = common.ratios(own, hand)
        spread = f"{common.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})"
        rows.append([precision, f"{common.median(hand):.2f}", f"{common.median(own):.2f}", spread, "≤ 1.12"])
    common.write_json(
        args.out,
        title="chartae's engine against a hand-written autograd loop",
        command=common.command_line(args, "speed/step.py"),
        machine=common.machine_info(args.threads),
        columns=[
            "precision",
            "hand-written, epoch (s)",
            "chartae, epoch (s)",
            "chartae / hand-written",
            "wanted",
        ],
        rows=rows,
        notes=[
            "The VAE of train_vae.py. The processes take turns epoch by epoch; the first epoch is left out.",
            "Below 1: chartae is faster. The hand-written loop uses fused Adam, flushed denormals, data "
            "indexed in memory, and autocast for bf16. chartae also logs each term and the gradient's norm.",
        ],
        raw=seconds,
        ratios=all_ratios,
    )


if __name__ == "__main__":
    main()
