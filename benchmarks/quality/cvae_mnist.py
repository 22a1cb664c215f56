"""Does a conditional VAE obey its label, and does it keep variety under it? MNIST, on a CPU.

A convolutional classifier that never sees the model reads the digit from 10,000 samples with given
labels. Beside the share that it reads as asked: the KL of the posterior (nats: is z used at all?), and the
variance of pixels within a class, as a share of the data's (is there variety?).

    python benchmarks/quality/cvae_mnist.py --data mnist.npz
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import load_data, machine_info, write_json

RESULT = Path(__file__).parent / "results" / "cvae_mnist.json"


def classifier(x: np.ndarray, y: np.ndarray, epochs: int) -> nn.Module:
    """A small convolutional network, trained on (n, 28, 28) images in [0, 1] with shifts of two pixels."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(48 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)),
    )
    images, labels = torch.from_numpy(x)[:, None], torch.from_numpy(y).long()
    steps = epochs * (len(x) // 256)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256)[: len(x) // 256]:
            shift = tuple(torch.randint(-2, 3, (2,)).tolist())
            loss = nn.functional.cross_entropy(net(images[rows].roll(shift, (2, 3))), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def read(net: nn.Module, x: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))[:, None]
    return np.concatenate([net(part).argmax(1).numpy() for part in images.split(1000)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--out", default=RESULT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--hidden", default="512,256")
    parser.add_argument("--classifier-epochs", type=int, default=3)
    parser.add_argument("--param", action="append", default=[], help="NAME=VALUE of CVAE")
    args = parser.parse_args()
    import chartae as ct

    data = load_data(args.data)
    x_train, x_test = (data[k].astype(np.float32) / 255 for k in ("x_train", "x_test"))
    net = classifier(x_train, data["y_train"], args.classifier_epochs)
    reads = float((read(net, x_test) == data["y_test"]).mean())

    extra = {k: float(v) for k, v in (p.split("=") for p in args.param)}
    hidden = tuple(int(h) for h in args.hidden.split(","))
    cvae = ct.CVAE(
        latent_dim=args.latent_dim,
        network="mlp",
        hidden=hidden,
        likelihood="bernoulli",
        max_epochs=args.epochs,
        batch_size=256,
        learning_rate=2e-3,
        schedule="cosine",
        conditional_prior=True,
        random_state=args.seed,
        **extra,
    )
    wall, cpu = time.perf_counter(), time.process_time()
    cvae.fit(data["x_train"], data["y_train"])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    asked = np.repeat(np.arange(10), 1000)
    samples = cvae.sample(10_000, condition=asked, random_state=args.seed) / 255
    obeyed = float((read(net, samples) == asked).mean())
    drawn = cvae.sample(10_000, condition=asked, random_state=args.seed, observation_noise=True) / 255
    within = {
        name: float(np.mean([x[y == digit].var(0).mean() for digit in range(10)]))
        for name, x, y in (
            ("data", x_test, data["y_test"]),
            ("means", samples, asked),
            ("draws", drawn, asked),
        )
    }
    kl = cvae.history_[cvae.best_epoch_ - 1]["val_kl"]
    rows = [
        ["the classifier on test images", f"{100 * reads:.2f} %", "≥ 99 %"],
        ["asked digit read from 10,000 samples", f"{100 * obeyed:.2f} %", "≥ 97 %"],
        ["KL on held-out rows", f"{kl:.2f} nats", "≥ 5 nats"],
        [
            "pixel variance within a class, decoded means / data",
            f"{within['means'] / within['data']:.3f}",
            "≥ .7",
        ],
        [
            "pixel variance within a class, with observation noise / data",
            f"{within['draws'] / within['data']:.3f}",
            "",
        ],
        ["time to fit", f"{wall:.0f} s wall, {cpu:.0f} s of processor time", "≤ 600 s"],
    ]
    write_json(
        args.out,
        title="A conditional VAE on MNIST: is the label obeyed?",
        command="python benchmarks/quality/cvae_mnist.py --data mnist.npz",
        machine=machine_info(torch.get_num_threads()),
        columns=["what", "measured", "wanted"],
        rows=rows,
        notes=[cvae.summary_, f"Epoch {cvae.best_epoch_} of {cvae.n_iter_}, seed {args.seed}"],
        raw={"classifier": reads, "obeyed": obeyed, "kl": kl, "within": within, "wall": wall, "cpu": cpu},
    )


if __name__ == "__main__":
    main()
