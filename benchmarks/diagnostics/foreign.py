"""Models of other libraries, audited through their two maps: pythae's VAE, and plain torch modules.

All have the networks of `speed/train_vae.py` (784-512-256-16) and are trained by a plain loop on MNIST:
pythae's VAE on its two losses, of which "mse" is its default, and an encoder and a decoder that are plain
modules.

    python benchmarks/diagnostics/foreign.py --data mnist.npz
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reports import side_by_side

import chartae as ct
from chartae.geometry import Chart
from common import command_line, load_data, machine_info, parser, unit_rows, write_json
from speed.train_vae import LATENT, SIZES, pythae_networks

ROWS, EPOCHS, BATCH = 10_000, 10, 128


def trained(model: nn.Module, loss: Any, x: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss(x[rows]).backward()
            optimizer.step()
    return model.eval()


def pythae_chart(x: Tensor, reconstruction_loss: str) -> Chart:
    from pythae.data.datasets import DatasetOutput
    from pythae.models import VAE, VAEConfig

    encoder, decoder = pythae_networks()
    config = VAEConfig(input_dim=(SIZES[0],), latent_dim=LATENT, reconstruction_loss=reconstruction_loss)
    vae: Any = VAE(config, encoder=encoder, decoder=decoder)
    trained(vae, lambda batch: vae(DatasetOutput(data=batch)).loss, x)
    return Chart.of_pair(
        lambda x: vae.encoder(x).embedding,
        lambda z: vae.decoder(z).reconstruction,
        std=lambda x: (0.5 * vae.encoder(x).log_covariance).exp(),
        prior="normal",
        latent_dim=LATENT,
    )


def plain_chart(x: Tensor) -> Chart:
    d, h, k = SIZES
    encoder = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, k), nn.ReLU(), nn.Linear(k, LATENT))
    decoder = nn.Sequential(
        nn.Linear(LATENT, k), nn.ReLU(), nn.Linear(k, h), nn.ReLU(), nn.Linear(h, d), nn.Sigmoid()
    )
    both = nn.Sequential(encoder, decoder)
    trained(both, lambda batch: (both(batch) - batch).square().sum(1).mean(), x)
    return Chart.of_pair(encoder, decoder, latent_dim=LATENT)


MODELS = {
    "pythae VAE, bce": lambda x: pythae_chart(x, "bce"),
    "pythae VAE, mse": lambda x: pythae_chart(x, "mse"),
    "plain modules": plain_chart,
}


def main() -> None:
    args = parser(__doc__, out="diagnostics/results/foreign.json").parse_args()
    torch.set_num_threads(args.threads)
    data = load_data(args.data)
    train, test = unit_rows(data["x_train"][:ROWS]), unit_rows(data["x_test"])
    reports = {}
    for name, make in MODELS.items():
        torch.manual_seed(0)
        reports[name] = ct.audit(
            make(torch.from_numpy(train)), test, train, labels=data["y_test"],
            labels_train=data["y_train"][:ROWS], random_state=0,
        )  # fmt: skip
        print(name, reports[name], sep="\n", file=sys.stderr, flush=True)
    write_json(
        args.out,
        title="Models of other libraries, as the health report sees them",
        command=command_line(args, "diagnostics/foreign.py"),
        machine=machine_info(args.threads),
        **side_by_side(reports),
        notes=[
            f"MLP 784-512-256-16, {EPOCHS} epochs on {ROWS:,} items, audited on 10,000 others; one seed.",
            "-: it does not apply, or the model does not say enough: a pair of maps has no likelihood.",
        ],
    )


if __name__ == "__main__":
    main()
