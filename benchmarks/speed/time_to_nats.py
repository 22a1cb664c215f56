"""Seconds of training until -ELBO on validation images is 100 nats or less: pythae and chartae.

Fixed binarized MNIST (Larochelle and Murray), of which 50,000 images are trained on and 10,000 are looked at
after each epoch. The same VAE for both, as in `train_vae.py`: 784-512-256-16 and its mirror, ReLU, Bernoulli
likelihood, no warm-up, batch 128, Adam at a constant 1e-3. chartae runs twice: its epochs end with the
weights of their last step, as pythae's do, or with the average of weights (`averaging=True`, the
default). Looking at the validation images is not timed.

    python benchmarks/speed/time_to_nats.py --data mnist_static_binarized.npz
"""

from __future__ import annotations

import contextlib
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from train_vae import BATCH, LATENT, RATE, SIZES, evaluate, pythae_vae

import common

GOAL, MOST = 100.0, 60  # nats, and epochs after which there is no more waiting


class Reached(Exception):
    """Validation images have come to the goal."""


class Watch:
    """A clock that stops while validation images are looked at."""

    def __init__(self, valid: Tensor) -> None:
        self.valid, self.seconds, self.began = valid, 0.0, time.perf_counter()
        self.curve: list[dict[str, float]] = []

    def look(self, encode: Callable[[Tensor], Any], decode: Callable[[Tensor], Tensor]) -> None:
        self.seconds += time.perf_counter() - self.began
        nats = evaluate(encode, decode, self.valid)
        self.curve.append({"seconds": self.seconds, "nats": nats})
        if nats <= GOAL:
            raise Reached
        self.began = time.perf_counter()

    def report(self) -> dict[str, Any]:
        last = self.curve[-1]
        return {**last, "epochs": len(self.curve), "reached": last["nats"] <= GOAL, "curve": self.curve}


def rows(args: Namespace) -> tuple[np.ndarray, Tensor]:
    with np.load(args.data) as data:
        train, valid = (
            np.unpackbits(data[name], axis=1)[:, : SIZES[0]].astype(np.float32) for name in ("train", "valid")
        )
    return train, torch.from_numpy(valid)


def run_pythae(args: Namespace) -> dict[str, Any]:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    x, valid = rows(args)
    torch.manual_seed(args.round)
    model = pythae_vae()
    watch = Watch(valid)

    class Look(TrainingCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            watch.look(lambda x: model.encoder.net(x).chunk(2, dim=1), model.decoder.net)

    config = BaseTrainerConfig(
        output_dir="pythae",
        num_epochs=MOST,
        learning_rate=RATE,
        per_device_train_batch_size=BATCH,
        optimizer_cls="Adam",
        seed=args.round,
        no_cuda=True,
    )
    data = BaseDataset(torch.from_numpy(x), torch.zeros(len(x)))
    trainer = BaseTrainer(model, train_dataset=data, training_config=config, callbacks=[Look()])
    watch.began = time.perf_counter()
    with contextlib.suppress(Reached):
        trainer.train()
    return watch.report()


def run_chartae(args: Namespace, *, averaging: bool = False) -> dict[str, Any]:
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.averages import FEWEST
    from chartae.training.engine import train
    from chartae.training.precision import choose_precision
    from chartae.training.sources import Source

    x, valid = rows(args)
    watch = Watch(valid)
    torch.manual_seed(args.round)
    space = infer_space(x, likelihood="bernoulli", layout="flat")
    plan = build("vae", space, latent_dim=LATENT, hidden=SIZES[1:], network="mlp", warmup=0.0)
    model = plan.model

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        q = model.posterior(x)
        return q.mean, q.log_var

    def decode(z: Tensor) -> Tensor:
        logits: Tensor = model.likelihood(z[None]).logits[0].flatten(1)
        return logits

    precision = choose_precision("auto", model, torch.device("cpu"))
    settings = {"batch_size": BATCH, "learning_rate": RATE, "schedule": "constant", "seed": args.round}
    settings["averaging"] = FEWEST if averaging else None
    with contextlib.suppress(Reached):
        for _ in train(plan, Source(x, space), epochs=MOST, precision=precision, **settings):
            watch.look(encode, decode)
    return watch.report()


AVERAGED = "chartae, averaging=True"
WORKERS = {"pythae": run_pythae, "chartae": run_chartae, AVERAGED: partial(run_chartae, averaging=True)}


def main() -> None:
    p = common.parser(__doc__, out="speed/results/time_to_nats.json")
    args = p.parse_args()
    if args.data is None:
        p.error("--data: give an .npz with train and valid as packed bits")
    if common.serve(args, WORKERS):
        return
    raw = common.run_in_turn(__file__, args, list(WORKERS))
    seconds = {name: [run["seconds"] for run in runs] for name, runs in raw.items()}
    ratios = {name: common.ratios(seconds["pythae"], seconds[name]) for name in raw}
    table = [
        [
            name,
            f"{common.median(seconds[name]):.1f} ({min(seconds[name]):.1f}–{max(seconds[name]):.1f})",
            f"{common.median([run['epochs'] for run in runs]):g}",
            f"{common.median([run['nats'] for run in runs]):.2f}",
            "1"
            if name == "pythae"
            else f"{common.median(ratios[name]):.2f} ({min(ratios[name]):.2f}–{max(ratios[name]):.2f})",
        ]
        for name, runs in raw.items()
    ]
    common.write_json(
        args.out,
        title="Time to a validation −ELBO of 100 nats, fixed binarized MNIST",
        command=common.command_line(args, "speed/time_to_nats.py"),
        machine=common.machine_info(args.threads),
        columns=["", "seconds", "epochs", "−ELBO then", "times as fast"],
        rows=table,
        notes=[
            "MLP 784-512-256-16 and its mirror, ReLU, batch 128, Adam 1e-3 throughout; 50,000 images.",
            "averaging=True, the default of a fit, keeps the average of weights over steps, and looks at it.",
            "Median of the rounds, lowest–highest in brackets; the round is the seed. Looking is not timed.",
            common.disturbance(raw),
        ],
        raw=raw,
        ratios=ratios,
    )


if __name__ == "__main__":
    main()
