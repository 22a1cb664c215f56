"""What a training step and an encoding consist of, and what is left if only the arithmetic is counted.

The limit is the matrix products alone, at the speed that torch reaches on operands that are ready, and, in
training, the optimizer's pass over its memory. What stands between chartae and it is told part by part.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_vae

import common

REPEATS, CALLS = 9, 100
D, H, K = train_vae.SIZES
LAYERS = (*pairwise((D, H, K, 2 * train_vae.LATENT)), *pairwise((train_vae.LATENT, K, H, D)))


def milliseconds(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Time of one call: the median of several runs of many."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e3)
    return common.median(times)


def products(rows: int, dtype: torch.dtype, layers: Any, *, training: bool) -> float:
    """Milliseconds of the matrix products of all layers, forward and, in training, backward."""
    from chartae.training.precision import gains_from_bf16

    total = 0.0
    for i, (before, after) in enumerate(layers):
        kind = dtype if gains_from_bf16(torch.empty(after, before)) or not training else torch.float32
        x, w, g = (torch.randn(size).to(kind) for size in ((rows, before), (after, before), (rows, after)))
        calls = max(2, CALLS * train_vae.BATCH // rows)
        total += milliseconds(lambda x=x, w=w: torch.mm(x, w.t()), calls)
        if training:
            out = torch.empty_like(w)
            total += milliseconds(lambda x=x, g=g, out=out: torch.mm(g.t(), x, out=out), calls)
            if i:  # nothing needs the gradient of the data
                total += milliseconds(lambda g=g, w=w: torch.mm(g, w), calls)
    return total


def step(args: Namespace, dtype: torch.dtype) -> dict[str, float]:
    from chartae.core.noise import Noise
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.kernels import BoundGradients
    from chartae.training.optimizers import Adam
    from chartae.training.precision import start_threads
    from chartae.training.sources import Source

    start_threads()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    x = common.unit_rows(common.load_data(args.data)["x_train"])
    space = infer_space(x, likelihood="bernoulli")
    plan = build("vae", space, latent_dim=train_vae.LATENT, hidden=train_vae.SIZES[1:])
    plan.model.train()
    source, noise = Source(x, space), Noise(0)
    gradients = BoundGradients(plan, dtype)
    adam = Adam(gradients.parameters, train_vae.RATE)
    rows = torch.randperm(len(x))[: train_vae.BATCH]
    batch = source.take(rows)

    def whole() -> None:
        gradients(source.take(rows), noise)
        float(gradients.norm())
        adam.step()
        gradients.moved()

    encoder, decoder = gradients.kernels
    z = torch.randn(train_vae.BATCH, train_vae.LATENT)

    def passes() -> None:
        with torch.no_grad():
            for kernel, h, needs_input in ((encoder, batch.x, False), (decoder, z, True)):
                out, inputs = kernel.forward(h)
                kernel.fresh = True
                kernel.backward(out, inputs, needs_input)

    parts = {"whole step": milliseconds(whole)}
    parts["matrix products"] = products(train_vae.BATCH, dtype, LAYERS, training=True)
    parts["Adam"] = milliseconds(adam.step)
    both = milliseconds(passes)
    parts["casts, biases and ReLU of the layers"] = both - parts["matrix products"]
    parts["posterior, likelihood and KL"] = milliseconds(lambda: gradients(batch, noise)) - both
    parts["gathering the rows"] = milliseconds(lambda: source.take(rows))
    parts["gradient norm"] = milliseconds(lambda: float(gradients.norm()))
    parts["bf16 copy of the weights"] = milliseconds(gradients.moved)
    return parts


WORKERS = {
    "step float32": lambda args: step(args, torch.float32),
    "step bf16": lambda args: step(args, torch.bfloat16),
    "encode float32": lambda args: encoding(torch.float32),
    "encode bf16": lambda args: encoding(torch.bfloat16),
}


def encoding(dtype: torch.dtype) -> dict[str, float]:
    rows = 1024
    with torch.inference_mode():
        once = products(rows, dtype, LAYERS[:3], training=False)
    return {"matrix products": once * 60_000 / rows}


def main() -> None:
    args = common.parser(__doc__, out="speed/results/limit.json").parse_args()
    if common.serve(args, WORKERS):
        return
    raw = common.run_in_turn(__file__, args, list(WORKERS))
    middle = {
        name: {part: common.median([run[part] for run in runs]) for part in runs[0] if part != "others_cores"}
        for name, runs in raw.items()
    }
    full, low = middle["step float32"], middle["step bf16"]
    rows = [[part, f"{full[part]:.2f}", f"{low[part]:.2f}"] for part in full]
    limits = [m["matrix products"] + m["Adam"] for m in (full, low)]
    rows.insert(1, ["limit: products and Adam", *(f"{limit:.2f}" for limit in limits)])
    encode = [middle[f"encode {name}"]["matrix products"] for name in ("float32", "bf16")]
    rows.append(["limit of encoding 60,000 rows: products", *(f"{ms:.0f}" for ms in encode)])
    common.write_json(
        args.out,
        title="What a training step consists of, and its limit",
        command=common.command_line(args, "speed/limit.py"),
        machine=common.machine_info(args.threads),
        columns=["part", "float32 (ms)", "bf16 (ms)"],
        rows=rows,
        notes=[
            "The VAE of train_vae.py, 128 rows a step; each part is timed alone, so that parts need not add "
            "up to the whole. What the list leaves out is the dispatch of many small operations.",
            "Products: torch.mm on operands that are ready, forward and backward. In training, layers that "
            "are narrow on one side stay in float32.",
            common.disturbance(raw),
        ],
        raw=raw,
    )


if __name__ == "__main__":
    main()
