"""pythae's VQ-VAE of MNIST on a GPU, trained by pythae and by chartae: seconds, and what it reconstructs.

The network, batch, rate and codebook of pythae's own script for the figure in its README (235 s on one V100,
batch 256 a card): strided convolutions and residual blocks, 16 vectors of 32 numbers from 256 entries that
follow as running means, Adam 1e-3, 100 epochs. 50,000 images are trained on, and 10,000 are held out to
choose the epoch by, in both. Each runs in a process of its own, in turn.

    python benchmarks/speed/vq_vae.py --data mnist.npz
    python benchmarks/speed/vq_vae.py --data mnist.npz --device cpu --epochs 1
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

CODES, SLOTS, WIDTH, DECAY, BATCH, RATE, HELD = 256, 16, 32, 0.99, 256, 1e-3, 10_000


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), nn.Conv2d(128, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 128, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Placed(nn.Module):
    """Move channels first or last, as codes have them last."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def networks() -> tuple[nn.Module, nn.Module]:
    """pythae's encoder and decoder, from images (n, 1, 28, 28) to codes (n, 512), and back.

    But for its last function, a sigmoid: from most seeds training by squared error saturates it within ten
    steps, all images are black then, and no gradient is left to change that for hundreds of steps.
    """
    encoder = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1),
        nn.Conv2d(64, 128, 4, 2, 1),
        nn.Conv2d(128, 128, 3, 2, 1),
        Residual(),
        Residual(),
        nn.Conv2d(128, WIDTH, 1),
        Placed(0, 2, 3, 1),
        nn.Flatten(),
    )
    decoder = nn.Sequential(
        nn.Unflatten(1, (4, 4, WIDTH)),
        Placed(0, 3, 1, 2),
        nn.ConvTranspose2d(WIDTH, 128, 1, 1),
        nn.ConvTranspose2d(128, 128, 3, 2, 1),
        Residual(),
        Residual(),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 3, 2, 1, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 3, 2, 1, 1),
    )
    return encoder, decoder


def images_of(args: Namespace) -> tuple[np.ndarray, np.ndarray]:
    data = common.load_data(args.data)
    train, test = (common.unit_rows(data[name]).reshape(-1, 1, 28, 28) for name in ("x_train", "x_test"))
    return train, test


def run_pythae(args: Namespace) -> dict[str, Any]:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VQVAE, VQVAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_ResNet_VQVAE_MNIST, Encoder_ResNet_VQVAE_MNIST
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.CRITICAL)
    x, test = (torch.from_numpy(rows) for rows in images_of(args))
    torch.manual_seed(args.round)
    config = VQVAEConfig(
        input_dim=(1, 28, 28), latent_dim=WIDTH, use_ema=True, num_embeddings=CODES, decay=DECAY
    )
    model = VQVAE(config, Encoder_ResNet_VQVAE_MNIST(config), Decoder_ResNet_VQVAE_MNIST(config))
    train, held = (BaseDataset(rows, torch.zeros(len(rows))) for rows in (x[HELD:], x[:HELD]))
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
    ):
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=args.theirs,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            train_dataloader_num_workers=args.loaders,
            eval_dataloader_num_workers=args.loaders,
            seed=args.round,
            no_cuda=args.device == "cpu",
        )
        trainer = BaseTrainer(model, train_dataset=train, eval_dataset=held, training_config=training)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    best = trainer._best_model.eval().to(args.device)
    with torch.no_grad():
        made = [best.reconstruct(part.to(args.device)).cpu() for part in test.split(1000)]
    return {"whole": seconds, "error": error(torch.cat(made), test)}


def run_chartae(args: Namespace) -> dict[str, Any]:
    import chartae as ct

    x, test = images_of(args)
    torch.manual_seed(args.round)
    encoder, decoder = networks()
    model = ct.Autoencoder(
        recipe="vq-vae",
        # pythae's commitment is a mean over numbers, beside a sum over pixels.
        recipe_params={"codes": CODES, "slots": SLOTS, "ema": DECAY, "commitment": 0.25 / (SLOTS * WIDTH)},
        latent_dim=SLOTS * WIDTH,
        network=(encoder, decoder),
        likelihood="normal",
        noise=0.5**0.5,  # whose negative log density is the squared error that pythae minimizes
        scale="none",
        layout="chw",
        max_epochs=args.epochs,
        batch_size=BATCH,
        learning_rate=RATE,
        validation_fraction=HELD / len(x),
        patience=None,
        device=args.device,
        compile=args.device != "cpu",
        random_state=args.round,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pixels that are never lit
        start = time.perf_counter()
        model.fit(x)
        seconds = time.perf_counter() - start
    made = np.concatenate([model.inverse_transform(model.transform(part)) for part in np.split(test, 10)])
    return {
        "whole": seconds,
        "steps": sum(epoch["seconds"] for epoch in model.history_),  # without the held-out images
        "error": error(torch.from_numpy(made), torch.from_numpy(test)),
    }


def error(made: Tensor, x: Tensor) -> float:
    """Squared error of an image, on average."""
    return float((made.reshape(len(x), -1) - x.reshape(len(x), -1)).square().sum(1).mean())


def run_briefly(args: Namespace) -> dict[str, Any]:
    return run_chartae(Namespace(**vars(args) | {"epochs": args.theirs}))


WORKERS = {"pythae": run_pythae, "chartae": run_chartae, "chartae, as many epochs": run_briefly}


def main() -> None:
    p = common.parser(__doc__, out="speed/results/vq_vae.json", rounds=1)
    p.add_argument("--epochs", type=int, default=100)
    p.add_argument("--theirs", type=int, help="epochs that pythae is given, where it is not to take minutes")
    p.add_argument("--device", default="cuda")
    p.add_argument("--loaders", type=int, default=0, help="processes of pythae's data loaders")
    args = p.parse_args()
    fewer = args.theirs is not None and args.theirs != args.epochs
    args.theirs = args.theirs or args.epochs
    if common.serve(args, WORKERS):
        return
    raw = common.run_in_turn(__file__, args, list(WORKERS) if fewer else ["pythae", "chartae"])
    write(args, raw)


def write(args: Namespace, raw: dict[str, list[dict[str, Any]]]) -> None:
    rows = []
    for name, runs in raw.items():
        epochs = args.epochs if name == "chartae" else args.theirs
        seconds, wrong = (common.median([run[key] for run in runs]) for key in ("whole", "error"))
        rows.append([name, epochs, f"{seconds:.1f}", f"{seconds / epochs:.3f}", f"{wrong:.2f}"])
    theirs = [run["whole"] / args.theirs for run in raw["pythae"]]
    times = common.ratios(theirs, [run["whole"] / args.epochs for run in raw["chartae"]])
    notes = [
        f"{args.epochs} epochs of chartae's are {common.median(times):.1f} times as fast as so many of "
        f"pythae's ({min(times):.1f}–{max(times):.1f}; rounds: {args.rounds}).",
        "Timed are pythae's `train` and the whole of chartae's `fit`: both judge each epoch by the held-out "
        "images, and chartae ends with a prior of the codes, which pythae does not fit.",
        common.disturbance(raw),
    ]
    if brief := raw.get("chartae, as many epochs"):
        more = [
            (many["whole"] - few["whole"]) / (args.epochs - args.theirs)
            for few, many in zip(brief, raw["chartae"], strict=True)
        ]
        ratio = common.median(common.ratios(theirs, more))
        notes.insert(
            1, f"An epoch more adds {common.median(more):.3f} s to chartae's, {ratio:.1f} times less."
        )
    card = torch.cuda.get_device_name() if args.device != "cpu" else "no GPU"
    common.write_json(
        args.out,
        title=f"VQ-VAE of MNIST, pythae's network, batch {BATCH}: {card}",
        command=common.command_line(args, "speed/vq_vae.py"),
        machine=common.machine_info(args.threads) | {"gpu": card},
        columns=["", "epochs", "whole (s)", "seconds an epoch", "squared error of a test image"],
        rows=rows,
        notes=notes,
        raw=raw,
    )


if __name__ == "__main__":
    main()
