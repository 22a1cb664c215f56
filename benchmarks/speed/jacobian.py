"""Jacobians of a decoder 16-256-512-784 (Bernoulli) at 1000 codes: chartae against a batch by hand.

The hand-written one pushes all 16 tangents of a block of codes through each layer as one matrix product. All
give (1000, 784, 16) in float32, 48 MiB. Times are taken in turn in one process, on one thread; peaks in a
process of its own for each, above what was in memory before, warm-up included.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import peak, resident
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

POINTS, LATENT, BLOCK = 1000, 16, 250


def contenders() -> dict[str, Callable[[], Any]]:
    """Three functions without arguments that give the same Jacobians."""
    import chartae as ct
    from chartae.geometry import decoder_jacobian

    warnings.filterwarnings("ignore", message="columns .* are constant")
    torch.manual_seed(0)
    vae = ct.VAE(
        latent_dim=LATENT,
        network="mlp",
        hidden=(512, 256),
        likelihood="bernoulli",
        max_epochs=1,
        random_state=0,
    ).fit(torch.rand(256, 784).numpy())
    chart, z = vae.chart(), torch.randn(POINTS, LATENT)
    layers = [m for m in vae.model_.likelihood.modules() if isinstance(m, nn.Linear)]
    weights = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
    assert [tuple(w.shape) for w, _ in weights] == [(256, 16), (512, 256), (784, 512)]

    def by_hand() -> np.ndarray:
        out = np.empty((POINTS, 784, LATENT), dtype=np.float32)
        for start in range(0, POINTS, BLOCK):
            h = z[start : start + BLOCK]
            v = torch.eye(LATENT)[:, None].expand(LATENT, len(h), LATENT).reshape(-1, LATENT)
            for i, (w, b) in enumerate(weights):
                h, v = torch.addmm(b, h, w.T), v @ w.T
                slope = (h > 0).float() if i < 2 else h.sigmoid() * (1 - h.sigmoid())
                v = v.view(LATENT, len(h), -1).mul_(slope).view(len(v), -1)
                h = h.relu()
            out[start : start + BLOCK] = v.view(LATENT, -1, 784).permute(1, 2, 0).numpy()
        return out

    def one(code: Tensor) -> Tensor:
        return chart.decode(code[None])[0]

    def with_jacfwd() -> np.ndarray:
        with torch.no_grad():
            return torch.func.vmap(torch.func.jacfwd(one))(z).numpy()

    return {
        "by hand": by_hand,
        "decoder_jacobian": lambda: decoder_jacobian(chart, z),
        "vmap(jacfwd)": with_jacfwd,
    }


def timed(args: Namespace) -> dict[str, Any]:
    """Seconds of CPU time of each contender in each turn, and how far each is from the first."""
    made = contenders()
    values = {name: run() for name, run in made.items()}  # warm-up
    gaps = {name: float(np.abs(value - values["by hand"]).max()) for name, value in values.items()}
    del values
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(args.turns):
        for name in list(made) if turn % 2 == 0 else list(made)[::-1]:
            start = time.process_time()
            made[name]()
            seconds[name].append(time.process_time() - start)
    return {"times": seconds, "gaps": gaps}


def peaked(name: str) -> dict[str, Any]:
    """Peak memory of one contender above what was in memory before."""
    run = contenders()[name]
    before = resident()
    run()
    return {"mib": (peak() - before) / 2**20}


NAMES = ("by hand", "decoder_jacobian", "vmap(jacfwd)")


def main() -> None:
    options = common.parser(__doc__, out="speed/results/jacobian.json", rounds=3)
    options.add_argument("--turns", type=int, default=15, help="in each round")
    options.set_defaults(threads=1)
    args = options.parse_args()
    workers: dict[str, Callable[..., dict[str, Any]]] = {"times": timed}
    workers |= {f"peak of {name}": lambda _, name=name: peaked(name) for name in NAMES}
    if common.serve(args, workers):
        return
    with tempfile.TemporaryDirectory() as folder:  # no data are needed
        empty = Path(folder) / "none.npz"
        none = np.zeros(0, dtype=np.uint8)
        np.savez(empty, x_train=none, y_train=none, x_test=none, y_test=none)
        results = common.run_in_turn(__file__, Namespace(**vars(args) | {"data": str(empty)}), list(workers))
    times = {name: [t for run in results["times"] for t in run["times"][name]] for name in NAMES}
    peaks = {name: max(run["mib"] for run in results[f"peak of {name}"]) for name in NAMES}
    hand, rows, all_ratios = times["by hand"], [], {}
    for name in NAMES:
        ratio = all_ratios[name] = common.ratios(times[name], hand)
        low, high = np.quantile(ratio, [0.1, 0.9])
        rows.append(
            [
                name,
                f"{1e3 * common.median(times[name]):.0f}",
                "" if name == "by hand" else f"{common.median(ratio):.2f} ({low:.2f}–{high:.2f})",
                f"{peaks[name]:.0f}",
                "≤ 1.5 times, < 300 MiB" if name == "decoder_jacobian" else "",
            ]
        )
    common.write_json(
        args.out,
        title="Jacobians of a decoder at 1000 codes",
        command=common.command_line(args, "speed/jacobian.py"),
        machine=common.machine_info(args.threads),
        columns=["contender", "1000 Jacobians (CPU ms)", "times by hand", "peak (MiB)", "wanted"],
        rows=rows,
        notes=[
            "Decoder 16-256-512-784 with a sigmoid at its end; the result alone takes 48 MiB. Medians of "
            f"{len(hand)} turns, with the 10th and the 90th percentile.",
            "Seconds are of CPU time, on one thread: the machine was shared.",
            f"Largest difference from by hand: {max(max(r['gaps'].values()) for r in results['times']):.1g}.",
            common.disturbance(results),
        ],
        raw=times,
        ratios=all_ratios,
        peaks=peaks,
    )


if __name__ == "__main__":
    main()
