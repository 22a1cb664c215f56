"""Wall time of fitting one VAE with pythae, a plain loop, a tuned loop, and chartae; test -ELBO beside it.

The same model for all: 784-512-256-16 and its mirror, ReLU, Bernoulli likelihood, batch 128, Adam 1e-3, all
60,000 training images, no validation set. Each contender runs in a process of its own, in turn; the round is
the seed.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

SIZES, LATENT, BATCH, RATE = (784, 512, 256), 16, 128, 1e-3


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder (n, 784) -> (n, 2d) of means and log-variances; decoder (n, d) -> (n, 784) logits."""
    d, h, k = SIZES
    encoder = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, k), nn.ReLU(), nn.Linear(k, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, k), nn.ReLU(), nn.Linear(k, h), nn.ReLU(), nn.Linear(h, d))
    return encoder, decoder


def negative_elbo(mu: Tensor, log_var: Tensor, logits: Tensor, x: Tensor) -> Tensor:
    """-ELBO per row (n,), in nats, with one posterior sample already decoded to ``logits``."""
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    return nll + 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)


def loss_of(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Mean -ELBO of a batch; float32 from the networks' outputs on."""
    mu, log_var = encoder(x).float().chunk(2, dim=1)
    z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
    return negative_elbo(mu, log_var, decoder(z).float(), x).mean()


@torch.no_grad()
def evaluate(encode: Any, decode: Any, x: Tensor) -> float:
    """Test -ELBO, float32, the same noise for all: ``encode(x) -> mu, log_var``; ``decode(z) -> logits``."""
    mu, log_var = encode(x)
    noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(20260101))
    return negative_elbo(mu, log_var, decode(mu + torch.exp(0.5 * log_var) * noise), x).double().mean().item()


def train_data(args: Namespace) -> tuple[Any, Tensor]:
    data = common.load_data(args.data)
    return common.unit_rows(data["x_train"]), torch.from_numpy(common.unit_rows(data["x_test"]))


def report(epochs: list[float], fit: float, elbo: float) -> dict[str, Any]:
    return {"fit_seconds": fit, "negative_elbo": elbo, "epoch_seconds": epochs}


def pythae_networks() -> tuple[nn.Module, nn.Module]:
    """The same networks in pythae's terms: its decoder has to end in a sigmoid."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    encoder, decoder = networks()

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = encoder

        def forward(self, x: Tensor) -> ModelOutput:
            mu, log_var = self.net(x).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(self.net(z)))

    return Encoder(), Decoder()


def pythae_vae() -> nn.Module:
    from pythae.models import VAE, VAEConfig

    encoder, decoder = pythae_networks()
    config = VAEConfig(input_dim=(SIZES[0],), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, encoder=encoder, decoder=decoder)


def run_pythae(args: Namespace) -> dict[str, Any]:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    x, test = train_data(args)
    torch.manual_seed(args.round)
    marks: list[float] = []

    class Clock(TrainingCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            marks.append(-time.perf_counter())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            marks[-1] += time.perf_counter()

    config = BaseTrainerConfig(
        output_dir="pythae",
        num_epochs=args.epochs,
        learning_rate=RATE,
        per_device_train_batch_size=BATCH,
        optimizer_cls="Adam",
        seed=args.round,
        no_cuda=True,
    )
    model = pythae_vae()
    data = BaseDataset(torch.from_numpy(x), torch.zeros(len(x)))
    trainer = BaseTrainer(model, train_dataset=data, training_config=config, callbacks=[Clock()])
    start = time.perf_counter()
    trainer.train()
    fit = time.perf_counter() - start
    best = trainer._best_model.eval()
    elbo = evaluate(lambda x: best.encoder.net(x).chunk(2, dim=1), best.decoder.net, test)
    return report(marks, fit, elbo)


def run_loader(args: Namespace) -> dict[str, Any]:
    from torch.utils.data import DataLoader, TensorDataset

    x, test = train_data(args)
    torch.manual_seed(args.round)
    encoder, decoder = networks()
    start, epochs = time.perf_counter(), []
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
    loader = DataLoader(TensorDataset(torch.from_numpy(x)), batch_size=BATCH, shuffle=True)
    for _ in range(args.epochs):
        began, total = time.perf_counter(), 0.0
        for (batch,) in loader:
            optimizer.zero_grad()
            loss = loss_of(encoder, decoder, batch)
            loss.backward()
            optimizer.step()
            total += loss.item()
        epochs.append(time.perf_counter() - began)
    fit = time.perf_counter() - start
    return report(epochs, fit, evaluate(lambda x: encoder(x).chunk(2, dim=1), decoder, test))


def run_hand(args: Namespace, *, bf16: bool) -> dict[str, Any]:
    torch.set_flush_denormal(True)  # before the first parallel region: the pool's workers inherit it
    x, test = train_data(args)
    torch.manual_seed(args.round)
    encoder, decoder = networks()
    start, epochs = time.perf_counter(), []
    rows = torch.from_numpy(x)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE, fused=True)
    for _ in range(args.epochs):
        began, total = time.perf_counter(), torch.zeros(())
        for index in torch.randperm(len(rows)).split(BATCH):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(encoder, decoder, rows[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        epochs.append(time.perf_counter() - began)
    fit = time.perf_counter() - start
    return report(epochs, fit, evaluate(lambda x: encoder(x).chunk(2, dim=1), decoder, test))


def chartae_vae(precision: str, epochs: int, seed: int) -> Any:
    import chartae as ct

    return ct.VAE(
        latent_dim=LATENT,
        hidden=SIZES[1:],
        likelihood="bernoulli",
        max_epochs=epochs,
        batch_size=BATCH,
        learning_rate=RATE,
        validation_fraction=0.0,
        patience=None,
        precision=precision,
        random_state=seed,
        verbose=0,
    )


def run_chartae(args: Namespace, *, precision: str) -> dict[str, Any]:
    x, test = train_data(args)
    vae = chartae_vae(precision, args.epochs, args.round)
    start = time.perf_counter()
    vae.fit(x)
    fit = time.perf_counter() - start
    vae.set_params(precision="float32")  # encode and decode in float32, as everyone else

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, sd = vae.transform(x.numpy(), return_std=True)
        return torch.as_tensor(mu), 2 * torch.as_tensor(sd).log()

    def decode(z: Tensor) -> Tensor:
        return vae.model_.likelihood(z[None]).logits[0].flatten(1)

    return report([h["seconds"] for h in vae.history_], fit, evaluate(encode, decode, test))


WORKERS = {
    "pythae": run_pythae,
    "plain loop": run_loader,
    "hand float32": lambda args: run_hand(args, bf16=False),
    "hand bf16": lambda args: run_hand(args, bf16=True),
    "chartae float32": lambda args: run_chartae(args, precision="float32"),
    "chartae auto": lambda args: run_chartae(args, precision="auto"),
}
LABELS = {
    "pythae": "pythae 0.1.2, BaseTrainer",
    "plain loop": "DataLoader loop, torch.optim.Adam",
    "hand float32": "tuned autograd loop, float32",
    "hand bf16": "tuned autograd loop, bf16 autocast",
    "chartae float32": "chartae, precision='float32'",
    "chartae auto": "chartae, precision='auto'",
}


def main() -> None:
    p = common.parser(__doc__, out="speed/results/train_vae.json")
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--contenders", nargs="+", choices=list(WORKERS), default=list(WORKERS))
    args = p.parse_args()
    if common.serve(args, WORKERS):
        return
    names = args.contenders
    raw = common.run_in_turn(__file__, args, names)
    fit = {n: [r["fit_seconds"] for r in raw[n]] for n in names}
    elbo = {n: [r["negative_elbo"] for r in raw[n]] for n in names}
    epoch = {n: [common.median(r["epoch_seconds"]) for r in raw[n]] for n in names}
    base = names[0]
    rows = []
    for n in names:
        ratio = common.ratios(fit[base], fit[n])
        spread = f"{common.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})"
        quality = f"{fmean(elbo[n]):.2f} ({min(elbo[n]):.2f}–{max(elbo[n]):.2f})"
        wanted = "≥ 2, ≥ 1.6 × the DataLoader loop" if n == "chartae auto" else ""
        rows.append(
            [
                LABELS[n],
                f"{common.median(fit[n]):.2f}",
                f"{common.median(epoch[n]):.2f}",
                spread,
                wanted,
                quality,
            ]
        )
    plain = []
    if {"plain loop", "chartae auto"} <= set(names):
        against = common.ratios(fit["plain loop"], fit["chartae auto"])
        spread = f"{common.median(against):.2f} ({min(against):.2f}–{max(against):.2f})"
        plain = [f"chartae, precision='auto', is {spread} times as fast as the DataLoader loop."]
    command = common.command_line(args, "speed/train_vae.py")
    cost = []
    if {"pythae", "chartae auto"} <= set(names):
        gap = fmean(elbo["chartae auto"]) - fmean(elbo["pythae"])
        cost = [
            f"Mean test −ELBO of the {args.rounds} seeds, chartae (auto) less pythae: {gap:+.2f} nats "
            "(wanted: at most +0.5)."
        ]
    if names == list(WORKERS):
        command = command.partition(" --contenders")[0]
    common.write_json(
        args.out,
        title=f"Fitting a VAE on 60,000 MNIST images, {args.epochs} epochs",
        command=command,
        machine=common.machine_info(args.threads),
        columns=[
            "contender",
            "fit (s)",
            "epoch (s)",
            f"times as fast as {base}",
            "wanted",
            "mean test −ELBO (nats)",
        ],
        rows=rows,
        notes=[
            *plain,
            *cost,
            "MLP 784-512-256-16 and its mirror, ReLU, Bernoulli likelihood, batch 128, Adam 1e-3.",
            "Contenders alternate in processes of their own; ratios are taken within a round. In "
            "parentheses: lowest–highest of the rounds, whose number is the seed.",
            "Timed is training from float32 rows in memory: no import and no loading; for chartae the whole "
            "`fit`. −ELBO: pixels/255 as targets, one posterior sample, float32, the same noise for all.",
            "The tuned loop keeps the data as one tensor, shuffles by index, uses fused Adam, and "
            "flushes denormals.",
            "What stands between a step and the limit: see the table of limit.py.",
            common.disturbance(raw),
        ],
        raw=raw,
        ratios={n: common.ratios(fit[base], fit[n]) for n in names},
        medians={n: {"fit": common.median(fit[n]), "epoch": common.median(epoch[n])} for n in names},
    )


if __name__ == "__main__":
    main()
