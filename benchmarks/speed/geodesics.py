"""Geodesics between 50 pairs of digits on MNIST VAEs: chartae against stochman, on the same decoder.

The VAE (784-512-256-d, Bernoulli) is fitted once for each d. Contenders take turns; each finds all 50
geodesics with what it offers: chartae.geometry.geodesic with 17 knots, and with 11, and stochman's
connecting_geodesic (a cubic spline and Adam, its defaults) with all pairs in one batch, and one pair at a
time (one round: it takes minutes). Every curve is then sampled at 17 equal steps of its parameter, between
knots by a cubic spline, and its energy n Σ|D(c_{i+1}) − D(c_i)|² taken in the same way.
"""

from __future__ import annotations

import sys
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

PAIRS, KNOTS, ROWS = 50, 17, 20_000


def fitted(args: Namespace, d: int) -> tuple[Any, np.ndarray]:
    """The chart of a VAE that the first round fits, and codes of the test set."""
    import chartae as ct

    warnings.filterwarnings("ignore", message="columns .* are constant")
    data = common.load_data(args.data)
    kept = Path(args.data).with_name(f"vae-{d}.ct")
    if not kept.exists():
        vae = ct.VAE(
            latent_dim=d,
            network="mlp",
            hidden=(512, 256),
            likelihood="bernoulli",
            max_epochs=args.epochs,
            random_state=0,
        )
        vae.fit(common.unit_rows(data["x_train"][:ROWS])).save(kept)
    vae = ct.load(kept)
    return vae.chart(), vae.transform(common.unit_rows(data["x_test"][:1000]))


def energies(chart: Any, path: Tensor) -> list[float]:
    """Of curves ``(m, knots, d)``, in squared units of the data."""
    with torch.no_grad():
        x = chart.decode(path.reshape(-1, path.shape[-1]).float()).reshape(*path.shape[:2], -1).double()
    return ((path.shape[1] - 1) * (x[:, 1:] - x[:, :-1]).square().sum((1, 2))).tolist()


def chartae(args: Namespace, d: int, knots: int) -> dict[str, Any]:
    from scipy.interpolate import CubicSpline

    from chartae.geometry import geodesic

    chart, z = fitted(args, d)
    a, b = z[:PAIRS], z[PAIRS : 2 * PAIRS]
    geodesic(chart, a[:2], b[:2])  # warm-up
    start = time.process_time()
    found = geodesic(chart, a, b, knots=knots)
    seconds = time.process_time() - start
    path = CubicSpline(np.linspace(0, 1, knots), found.codes, axis=1)(np.linspace(0, 1, KNOTS))
    every = energies(chart, torch.from_numpy(path))
    return {"seconds": seconds, "converged": float(found.converged.mean()), "energies": every}


def stochman(args: Namespace, d: int, at_once: int) -> dict[str, Any]:
    from stochman.manifold import EmbeddedManifold

    chart, z = fitted(args, d)

    class Decoded(EmbeddedManifold):
        def embed(self, c: Tensor) -> Tensor:
            return chart.decode(c.reshape(-1, c.shape[-1])).reshape(*c.shape[:-1], -1)

    a, b = (torch.from_numpy(z[rows]) for rows in (slice(PAIRS), slice(PAIRS, 2 * PAIRS)))
    manifold, grid = Decoded(), torch.linspace(0, 1, KNOTS)
    with torch.no_grad():
        manifold.curve_energy(torch.stack([a, b], 1))  # warm-up
    seconds, ended, every = 0.0, [], []
    for first in range(0, PAIRS, at_once):
        rows = slice(first, first + at_once)
        start = time.process_time()
        curve, converged = manifold.connecting_geodesic(a[rows], b[rows])
        seconds += time.process_time() - start
        with torch.no_grad():
            path = curve(grid)
        every += energies(chart, path if path.dim() == 3 else path[None])
        ended.append(float(converged))
    return {"seconds": seconds, "converged": float(np.mean(ended)), "energies": every}


CONTENDERS = {
    "chartae": lambda args, d: chartae(args, d, KNOTS),
    "chartae, 11 knots": lambda args, d: chartae(args, d, 11),
    "stochman, all at once": lambda args, d: stochman(args, d, PAIRS),
    "stochman, one by one": lambda args, d: stochman(args, d, 1),
}

RIVAL = "stochman, all at once"


def main() -> None:
    options = common.parser(__doc__, out="speed/results/geodesics.json")
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--sizes", type=int, nargs="+", default=[2, 16], help="of the code")
    options.add_argument("--one-by-one", action="store_true", help="also give stochman one pair at a time")
    args = options.parse_args()
    workers = {
        f"{name}, d = {d}": lambda a, run=run, d=d: run(a, d)
        for d in args.sizes
        for name, run in CONTENDERS.items()
    }
    if common.serve(args, workers):
        return
    slow = [name for name in workers if "one by one" in name]
    results = common.run_in_turn(__file__, args, [name for name in workers if name not in slow])
    once = Namespace(**vars(args) | {"rounds": 1})
    results |= common.run_in_turn(__file__, once, slow if args.one_by_one else [])
    rows, all_ratios, lower = [], {}, {}
    for d in args.sizes:
        theirs = results[f"{RIVAL}, d = {d}"]
        for name in CONTENDERS:
            if f"{name}, d = {d}" not in results:
                continue
            runs = results[f"{name}, d = {d}"]
            own, base = ([r["seconds"] for r in each[: len(runs)]] for each in (runs, theirs))
            ratio = common.ratios(base, own)
            all_ratios[f"{name}, d = {d}"] = ratio
            gap = np.array(runs[0]["energies"]) / np.array(theirs[0]["energies"])
            lower[f"{name}, d = {d}"] = float((gap <= 1 + 1e-6).mean())
            rows.append(
                [
                    f"d = {d}, {name}",
                    f"{common.median(own):.2f}",
                    f"{common.median(ratio):.1f} ({min(ratio):.1f}–{max(ratio):.1f})",
                    f"{np.mean(runs[0]['energies']):.2f}",
                    f"{common.median([r['converged'] for r in runs]):.0%}",
                    f"{lower[f'{name}, d = {d}']:.0%}",
                ]
            )
    common.write_json(
        args.out,
        title="50 geodesics on an MNIST VAE",
        command=common.command_line(args, "speed/geodesics.py"),
        machine=common.machine_info(args.threads),
        columns=[
            "code, contender",
            "50 geodesics (CPU s)",
            "times faster than stochman's",
            "mean energy",
            "converged",
            "pairs whose energy is no higher than its",
        ],
        rows=rows,
        notes=[
            "Wanted: 10 times faster than stochman all at once, with an energy no higher, and converged.",
            "Seconds are of CPU time, on one thread: the machine was shared.",
            f"MLP 784-512-256-d, {args.epochs} epochs on {ROWS} digits. Energy on {KNOTS} points of "
            "a curve, at equal steps of its parameter, in squared units of the data.",
            "stochman 0.3.0 with its defaults: a cubic spline with 5 nodes, at most 150 steps of Adam on 20 "
            "points. All at once it stops when no pair's gradient is above its threshold.",
            common.disturbance(results),
        ],
        raw={name: [r["seconds"] for r in runs] for name, runs in results.items()},
        ratios=all_ratios,
        no_higher=lower,
    )


if __name__ == "__main__":
    main()
