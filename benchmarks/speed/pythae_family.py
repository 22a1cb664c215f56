"""Every model of pythae against the recipe of the same name: seconds of a fit, and what it has learned.

The same networks (784-512-256-16 and the mirror, ReLU, unless `--hidden` names other widths), the same 10,000
images of MNIST, two epochs, batch 128 (`--batch-size`), Adam 1e-3. pythae trains with the trainer that its
pipeline takes for the model, chartae with `fit`; options are pythae's defaults, and the recipe's are set to
the same; critics have the recipe's networks in both. Each model of each library runs in a process of its
own, in turn, and its row is written at once; on a GPU all models of a library run in one.
Quality is the reconstruction of test images from one draw of the posterior: cross-entropy where the model
has Bernoulli pixels, squared error where pythae has no other loss.

    python benchmarks/speed/pythae_family.py --data mnist.npz --threads 1
    python benchmarks/speed/pythae_family.py --data mnist.npz --threads 1 --models VAE IWAE
    python benchmarks/speed/pythae_family.py --data mnist.npz --device cuda --out pythae_family_gpu.json
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import sys
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

LATENT, RATE, ROWS, EPOCHS = 16, 1e-3, 10_000, 2


class Pair(NamedTuple):
    """A model of pythae, and the recipe that does the same.

    ``kind`` says what the encoder gives beside the embedding, ``loss`` what pythae reconstructs by.
    """

    model: str
    config: str
    options: dict[str, Any]
    recipe: str
    parameters: dict[str, Any]
    kind: str = "log_covariance"
    loss: str = "bce"
    trainer: str = "Base"


POINT = {"kind": "", "loss": "mse"}
LEAPS = {"leapfrogs": 3, "step": 0.001, "second_order": False}  # slopes as given, as pythae takes them
PAIRS = [
    Pair("AE", "AEConfig", {}, "ae", {}, **POINT),
    Pair("VAE", "VAEConfig", {}, "vae", {}),
    Pair("BetaVAE", "BetaVAEConfig", {"beta": 4.0}, "beta-vae", {"beta": 4.0}),
    Pair(
        "VAE_LinNF",
        "VAE_LinNF_Config",
        {"flows": ["Planar"] * 4},
        "vae-lin-nf",
        {"kind": "planar", "flows": 4},
    ),
    Pair(
        "VAE_IAF",
        "VAE_IAF_Config",
        {"n_made_blocks": 2, "n_hidden_in_made": 2, "hidden_size": 64},
        "vae-iaf",
        {"flows": 2, "flow_hidden": [64, 64]},
    ),
    Pair(
        "DisentangledBetaVAE",
        "DisentangledBetaVAEConfig",
        {"beta": 10.0, "C": 25.0, "warmup_epoch": 25},
        "disentangled-beta-vae",
        {"gamma": 10.0, "capacity": 25.0, "warmup": 25.0},
    ),
    Pair("FactorVAE", "FactorVAEConfig", {"gamma": 2.0}, "factor-vae", {"gamma": 2.0}, trainer="Adversarial"),
    Pair("BetaTCVAE", "BetaTCVAEConfig", {"beta": 6.0}, "beta-tc-vae", {"beta": 6.0}),
    Pair("IWAE", "IWAEConfig", {"number_samples": 10}, "iwae", {"k": 10}),
    Pair(
        "MIWAE",
        "MIWAEConfig",
        {"number_gradient_estimates": 2, "number_samples": 5},
        "miwae",
        {"m": 2, "k": 5},
    ),
    Pair(
        "PIWAE",
        "PIWAEConfig",
        {"number_gradient_estimates": 2, "number_samples": 5},
        "piwae",
        {"m": 2, "k": 5},
        trainer="Coupled",
    ),
    Pair("CIWAE", "CIWAEConfig", {"number_samples": 10, "beta": 0.5}, "ciwae", {"k": 10, "beta": 0.5}),
    Pair("MSSSIM_VAE", "MSSSIM_VAEConfig", {}, "ms-ssim-vae", {}),
    Pair("WAE_MMD", "WAE_MMD_Config", {}, "wae-mmd", {}, **POINT),
    Pair("INFOVAE_MMD", "INFOVAE_MMD_Config", {}, "info-vae", {"alpha": 0.0}),
    Pair("VAMP", "VAMPConfig", {"number_components": 50}, "vamp-vae", {"components": 50}),
    Pair("SVAE", "SVAEConfig", {}, "svae", {}, kind="log_concentration"),
    Pair("PoincareVAE", "PoincareVAEConfig", {}, "poincare-vae", {}),
    Pair("Adversarial_AE", "Adversarial_AE_Config", {}, "aae", {}, trainer="Adversarial"),
    Pair("VAEGAN", "VAEGANConfig", {}, "vae-gan", {}, trainer="CoupledAdversarial"),
    Pair("VQVAE", "VQVAEConfig", {"num_embeddings": 64}, "vq-vae", {"codes": 64, "slots": LATENT}, **POINT),
    Pair("HVAE", "HVAEConfig", {"n_lf": 3, "eps_lf": 0.001}, "hvae", LEAPS),
    Pair("RAE_L2", "RAE_L2_Config", {}, "rae-l2", {}, trainer="CoupledPair", **POINT),
    Pair("RAE_GP", "RAE_GP_Config", {}, "rae-gp", {}, **POINT),
    Pair("RHVAE", "RHVAEConfig", {"n_lf": 3, "eps_lf": 0.001}, "rhvae", LEAPS),
]


def images(pair: Pair, rows: np.ndarray) -> np.ndarray:
    """Items as the model needs them: MS-SSIM sees images."""
    return rows.reshape(-1, 1, 28, 28) if pair.model == "MSSSIM_VAE" else rows


def pythae_model(pair: Pair, hidden: Sequence[int]) -> nn.Module:
    import pythae.models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    more = {"": 0, "log_covariance": LATENT, "log_concentration": 1}[pair.kind]
    more = 1 if pair.model == "PoincareVAE" else more
    shape = (1, 28, 28) if pair.model == "MSSSIM_VAE" else (784,)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), perceptron(784, *hidden, LATENT + more))

        def forward(self, x: Tensor) -> ModelOutput:
            out = self.net(x)
            given = {pair.kind: out[:, LATENT:]} if pair.kind else {}
            return ModelOutput(embedding=out[:, :LATENT], **given)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = perceptron(LATENT, *reversed(hidden), 784)

        def forward(self, z: Tensor) -> ModelOutput:
            out = self.net(z)
            out = torch.sigmoid(out) if pair.loss == "bce" else out
            return ModelOutput(reconstruction=out.reshape(-1, *shape))

    options = dict(pair.options)
    if pair.loss == "bce" and pair.model != "MSSSIM_VAE":
        options["reconstruction_loss"] = "bce"
    config = getattr(pythae.models, pair.config)(input_dim=shape, latent_dim=LATENT, **options)
    model: nn.Module = getattr(pythae.models, pair.model)(config, encoder=Encoder(), decoder=Decoder())
    if pair.model == "FactorVAE":
        model.discriminator = perceptron(LATENT, 256, 256, 2)
    elif pair.model == "Adversarial_AE":
        model.set_discriminator(pythae_critic([perceptron(LATENT, 256, 256), perceptron(256, 1)]))
    elif pair.model == "VAEGAN":
        layers = [perceptron(784, *hidden, 64), nn.Sequential(nn.LeakyReLU(0.2), perceptron(64, 1))]
        model.reconstruction_layer = 1
        model.set_discriminator(pythae_critic(layers))
    return model


def perceptron(*widths: int) -> nn.Sequential:
    """A perceptron with ReLUs between its layers."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def pythae_critic(layers: Sequence[nn.Module]) -> nn.Module:
    """What pythae asks of a discriminator: features by the number of the layer, and a probability."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDiscriminator

    class Critic(BaseDiscriminator):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.depth = nn.ModuleList(layers), len(layers)

        def forward(self, x: Tensor, output_layer_levels: Sequence[int] | None = None) -> ModelOutput:
            features = self.layers[0](x.reshape(len(x), -1))
            if output_layer_levels is not None:
                return ModelOutput(embedding_layer_1=features)
            return ModelOutput(embedding=torch.sigmoid(self.layers[1](features)))

    return Critic()


def pythae_fit(pair: Pair, rows: np.ndarray, args: Namespace) -> tuple[nn.Module, float]:
    from pythae import trainers
    from pythae.data.datasets import BaseDataset

    names = {
        "Base": "BaseTrainer",
        "Adversarial": "AdversarialTrainer",
        "Coupled": "CoupledOptimizerTrainer",
        "CoupledPair": "CoupledOptimizerTrainer",
        "CoupledAdversarial": "CoupledOptimizerAdversarialTrainer",
    }
    name = names[pair.trainer]
    torch.manual_seed(args.round)
    model = pythae_model(pair, args.hidden)
    rates: dict[str, float] = {"learning_rate": RATE}
    if pair.trainer == "Adversarial":
        rates = {"autoencoder_learning_rate": RATE, "discriminator_learning_rate": RATE}
    elif pair.trainer.startswith("Coupled"):
        rates = {"encoder_learning_rate": RATE, "decoder_learning_rate": RATE}
        if pair.trainer == "CoupledAdversarial":
            rates["discriminator_learning_rate"] = RATE
    with tempfile.TemporaryDirectory() as folder:
        config = getattr(trainers, f"{name}Config")(
            output_dir=folder,
            num_epochs=EPOCHS,
            per_device_train_batch_size=args.batch_size,
            seed=args.round,
            no_cuda=args.device == "cpu",
            **rates,
        )
        data = BaseDataset(torch.from_numpy(images(pair, rows)), torch.zeros(len(rows)))
        trainer = getattr(trainers, name)(model, train_dataset=data, training_config=config)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return trainer._best_model.eval(), seconds


def run_pythae(args: Namespace) -> dict[str, Any]:
    logging.disable(logging.CRITICAL)
    # HVAE takes the density of a Bernoulli distribution, which gray pixels are not values of.
    torch.distributions.Distribution.set_default_validate_args(False)
    x, test = data_of(args)
    torch.ones(1, 1, device=args.device) @ torch.ones(1, 1, device=args.device)  # starts a GPU for either
    found = {}
    for pair in chosen(args):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            model, seconds = pythae_fit(pair, x, args)
            model = model.to(args.device)
            torch.manual_seed(0)
            made = []
            for block in np.array_split(images(pair, test), 8):
                # Not without gradients: some models take them of the decoder.
                out = model.reconstruct(torch.from_numpy(block).to(args.device)).detach().cpu()
                made.append(out.reshape(len(block), -1)[:, -784:])
        found[pair.model] = {"seconds": seconds, "quality": quality(pair, torch.cat(made), test)}
    return found


def run_chartae(args: Namespace) -> dict[str, Any]:
    import chartae as ct
    from chartae.models.recipes import find

    x, test = data_of(args)
    torch.ones(1, 1, device=args.device) @ torch.ones(1, 1, device=args.device)  # starts a GPU for either
    found = {}
    for pair in chosen(args):
        bernoulli = pair.loss == "bce"
        warm = "warmup" in signature(find(pair.recipe).make).parameters
        model = ct.Autoencoder(
            recipe=pair.recipe,
            # pythae's terms have their weights from the first step on, but for its capacity.
            recipe_params=({"warmup": 0.0} if warm else {}) | pair.parameters,
            latent_dim=LATENT,
            network="mlp",
            hidden=tuple(args.hidden),
            likelihood="bernoulli" if bernoulli else "normal",
            # The squared error that pythae minimizes is the negative log density of this noise.
            noise="global" if bernoulli else 0.5**0.5,
            scale="auto" if bernoulli else "none",
            layout="chw" if pair.model == "MSSSIM_VAE" else "auto",
            max_epochs=EPOCHS,
            batch_size=args.batch_size,
            learning_rate=RATE,
            validation_fraction=0.0,
            patience=None,
            device=args.device,
            random_state=args.round,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pixels that are never lit
            start = time.perf_counter()
            model.fit(images(pair, x))
            seconds = time.perf_counter() - start
        model.set_params(precision="float32")
        z = model.sample_posterior(images(pair, test), 1, random_state=0)[0]
        made = torch.from_numpy(model.inverse_transform(z.astype(np.float32)).reshape(len(test), -1))
        trained = sum(h["seconds"] for h in model.history_)
        found[pair.model] = {
            "seconds": trained,
            "fit": seconds,
            "quality": quality(pair, made, test),
        }
    return found


def chosen(args: Namespace) -> list[Pair]:
    return [pair for pair in PAIRS if args.models is None or pair.model in args.models]


def data_of(args: Namespace) -> tuple[np.ndarray, np.ndarray]:
    data = common.load_data(args.data)
    return common.unit_rows(data["x_train"][:ROWS]), common.unit_rows(data["x_test"][:2000])


def quality(pair: Pair, made: Tensor, test: np.ndarray) -> float:
    """Cross-entropy (nats) or squared error of an image, from its reconstruction (n, 784)."""
    x = torch.from_numpy(test)
    if pair.loss == "mse":
        return float((made - x).square().sum(1).mean())
    return float(F.binary_cross_entropy(made.clamp(1e-6, 1 - 1e-6), x, reduction="none").sum(1).mean())


WORKERS = {"pythae": run_pythae, "chartae": run_chartae}


def main() -> None:
    p = common.parser(__doc__, out="speed/results/pythae_family.json", rounds=3)
    p.add_argument("--models", nargs="+", choices=[pair.model for pair in PAIRS], help="measure these anew")
    p.add_argument("--device", default="cpu")
    p.add_argument("--hidden", nargs="+", type=int, default=[512, 256], help="widths of the encoder's layers")
    p.add_argument("--batch-size", type=int, default=128)
    args = p.parse_args()
    if common.serve(args, WORKERS):
        return
    out = Path(args.out)
    raw = json.loads(out.read_text())["raw"] if out.exists() else {}
    names = [pair.model for pair in chosen(args)]
    # Of one model first the one, then the other library: a slow minute of the machine hits both. On a GPU a
    # process takes all models: it starts for longer than a fit takes.
    for group in [[name] for name in names] if args.device == "cpu" else [names]:
        runs = common.run_in_turn(__file__, Namespace(**vars(args) | {"models": group}), list(WORKERS))
        for model in group:
            raw[model] = {
                library: [{key: run[key] for key in (model, "others_cores")} for run in found]
                for library, found in runs.items()
            }
        write(args, raw)


def write(args: Namespace, raw: dict[str, Any]) -> None:
    rows, ratios = [], {}
    absent = [pair.model for pair in PAIRS if pair.model not in raw]
    often = [name for name, of in raw.items() if len(of["chartae"]) >= args.rounds]
    for pair in PAIRS:
        if pair.model not in raw:
            continue
        theirs, ours = ([run[pair.model] for run in raw[pair.model][name]] for name in WORKERS)
        times = common.ratios([r["seconds"] for r in theirs], [r["seconds"] for r in ours])
        ratios[pair.model] = common.median(times)
        values = [[r["quality"] for r in runs] for runs in (theirs, ours)]
        rows.append(
            [
                pair.model,
                pair.recipe,
                f"{common.median([r['seconds'] for r in theirs]):.2f}",
                f"{common.median([r['seconds'] for r in ours]):.2f} "
                f"({common.median([r['fit'] for r in ours]):.2f})",
                f"{ratios[pair.model]:.2f} ({min(times):.2f}–{max(times):.2f})",
                *(f"{fmean(v):.1f} ({min(v):.1f}–{max(v):.1f})" for v in values),
                "nats" if pair.loss == "bce" else "squared error",
            ]
        )
    machine = common.machine_info(args.threads)
    if args.device == "cpu":
        where = "a processor with products in bf16" if "avx512_bf16" in machine["isa"] else "a processor"
    else:
        machine["gpu"] = where = torch.cuda.get_device_name()
    common.write_json(
        args.out,
        title=f"Every model of pythae against its recipe, on {where}: 10,000 images of MNIST, two epochs",
        command=common.command_line(Namespace(**vars(args) | {"models": None}), "speed/pythae_family.py"),
        machine=machine,
        columns=[
            "pythae 0.1.2",
            "recipe",
            "pythae (s)",
            "chartae (s; whole fit)",
            "times as fast",
            "pythae's reconstruction",
            "chartae's",
            "in",
        ],
        rows=rows,
        notes=[
            f"Median {common.median(list(ratios.values())):.2f} times as fast, least "
            f"{min(ratios.values()):.2f}, most {max(ratios.values()):.2f}.",
            f"MLP {'-'.join(map(str, (784, *args.hidden, LATENT)))} and its mirror, ReLU, batch "
            f"{args.batch_size}, Adam 1e-3. Timed are pythae's `train` and "
            "the epochs of chartae's `fit`, which then keeps codes, fits a density where there is no prior, "
            "and sets the threshold of outliers: the whole of it is in brackets.",
            "Reconstruction of 2,000 test images from one draw of the posterior; lowest–highest "
            "of the rounds, whose number is the seed. HRQVAE is not in pythae 0.1.2.",
            "Weights of further terms are those that each library proposes where they mean different things "
            "(MMD, adversary, MS-SSIM, RAE), so that their reconstructions are not of the same objective.",
            "Critics have the recipe's networks in both. HVAE and RHVAE run with second_order=False, which "
            "leaves out of the gradient what pythae leaves out.",
            f"Not measured yet: {', '.join(absent)}." if absent else "",
            "" if len(often) == len(raw) else f"{args.rounds} rounds of {', '.join(often)}, fewer of others.",
            common.disturbance(
                {f"{name} {model}": runs for model, of in raw.items() for name, runs in of.items()}
            ),
        ],
        raw=raw,
        ratios=ratios,
    )


if __name__ == "__main__":
    main()
