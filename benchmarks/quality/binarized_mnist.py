"""Test log-likelihood on fixed binarized MNIST, within a number of minutes of one core.

The data of Larochelle and Murray: 50,000 binary images to train on, 10,000 to choose an epoch by, 10,000 to
test on. Test log p(x) is estimated by 5,000 importance samples of each image, from the encoder's posterior,
and once more from one that has been refined image by image. The budget is counted in CPU time of all threads,
one unless more are asked for, or in minutes of a GPU; the learning rate falls by a cosine to zero at its end.
A run may have stages: bounds of few samples, which take little time, before those of many. How much of
log p(x) the encoder's samples miss is told by annealed importance sampling of some of the images. A run
writes its curve and its result into the JSON beside those of other runs. One that was cut off goes on from
its last epoch where the same command is given again.

    python benchmarks/quality/binarized_mnist.py --data mnist_static_binarized.npz --run vamp
    python benchmarks/quality/binarized_mnist.py --data binarized.npz --run "resnet iwae-5" --device cuda
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

TRIAL, EACH = 2, 10  # epochs of the trial that tells how many there is time for, and between two checkpoints
ANNEALED, CHAINS, STEPS = 500, 12, 300  # images; chains of each and their temperatures
REFINED = 100  # steps by which each image's posterior is refined


class Stage(NamedTuple):
    """A share of the time, and what of a run's parameters and learning rate is otherwise in it."""

    share: float
    parameters: dict[str, Any]
    rate: float | None = None


def growing(
    *shares: float, rate: float | None = None, asleep: float = 0.0, **first: Any
) -> tuple[Stage, ...]:
    """Of 1, 5 and 50 samples: most of what a decoder learns by 50 it learns by fewer, in less time."""
    last = {"asleep": asleep} if asleep else {}
    return (
        Stage(shares[0], {"k": 1, **first}),
        Stage(shares[1], {"k": 5, "warmup": 0.0}),
        Stage(shares[2], {"k": 50, "kept": 5, "warmup": 0.0, **last}, rate),
    )


GROWING = growing(0.2, 0.35, 0.45)
#: Of two and a half hours, the first stages are as long as of one.
LONGER = growing(0.08, 0.14, 0.78)
#: The whole KL of one sample empties dimensions that several make use of, and that do not come back.
#: A warm-up longer than half of a stage takes half of it.
OPEN = growing(0.08, 0.32, 0.6, warmup=1000.0)
#: An epoch of 50 samples takes as long as six of 5, and gains little before the rate falls.
FINE = growing(0.06, 0.6, 0.34, rate=3e-4, warmup=1000.0)
#: In the end the encoder learns of the model's own images, too, which it cannot learn by heart.
ASLEEP = growing(0.05, 0.45, 0.5, rate=3e-4, asleep=1.0, warmup=1000.0)
#: A mixture of 500 parts takes more time than the decoder: few samples are enough.
FEW = (Stage(0.5, {"k": 1, "warmup": 1000.0}), Stage(0.5, {"k": 5, "warmup": 0.0}))


class Run(NamedTuple):
    """A recipe, its parameters, widths of its networks, and what was published for it (nats)."""

    recipe: str
    parameters: dict[str, Any]
    hidden: tuple[int, ...]
    latent_dim: int
    published: float | None
    batch_size: int = 128
    rate: float = 1e-3
    network: str = "mlp"
    stages: tuple[Stage, ...] = (Stage(1.0, {}),)


RUNS = {
    "vae": Run("vae", {}, (200, 200), 50, 88.71),
    "vae, tanh": Run("vae", {"activation": "tanh"}, (200, 200), 50, 88.71),
    "iwae-50": Run("iwae", {"k": 50}, (200, 200), 50, 87.10),
    "two-layer iwae-50": Run("hierarchical-vae", {"levels": 2, "k": 50}, (200, 200), 150, 85.32),
    "iwae-50, tanh, k growing": Run("iwae", {"activation": "tanh"}, (200, 200), 50, 87.10, stages=GROWING),
    "two-layer iwae-50, tanh, k growing": Run(
        "hierarchical-vae", {"levels": 2, "activation": "tanh"}, (200, 200), 150, 85.32, stages=GROWING
    ),
    "iwae-50, tanh, KL and k growing": Run(
        "iwae", {"activation": "tanh"}, (200, 200), 50, 87.10, stages=OPEN
    ),
    "iwae-50, tanh, KL and k growing, fine": Run(
        "iwae", {"activation": "tanh"}, (200, 200), 50, 87.10, stages=FINE
    ),
    "iwae-50, tanh, KL and k growing, asleep": Run(
        "iwae", {"activation": "tanh"}, (200, 200), 50, 87.10, stages=ASLEEP
    ),
    "two-layer iwae-50, tanh, KL and k growing": Run(
        "hierarchical-vae", {"levels": 2, "activation": "tanh"}, (200, 200), 150, 85.32, stages=OPEN
    ),
    "iwae-50, tanh, k growing, longer": Run(
        "iwae", {"activation": "tanh"}, (200, 200), 50, 87.10, stages=LONGER
    ),
    "two-layer iwae-50, tanh, k growing, longer": Run(
        "hierarchical-vae", {"levels": 2, "activation": "tanh"}, (200, 200), 150, 85.32, stages=LONGER
    ),
    "ladder": Run("ladder-vae", {"levels": 2, "warmup": 10.0}, (300, 300), 60, None),
    "hierarchical": Run("hierarchical-vae", {"levels": 2, "warmup": 3.0}, (300, 300), 100, None),
    "hierarchical iwae-5": Run(
        "hierarchical-vae", {"levels": 2, "k": 5, "warmup": 3.0}, (300, 300), 100, None
    ),
    "vamp": Run("vamp-vae", {"components": 500, "warmup": 10.0}, (300, 300), 40, 85.57),
    "vamp, tanh, KL and k growing": Run(
        "vamp-vae", {"components": 500, "activation": "tanh"}, (300, 300), 40, 85.57, stages=FEW
    ),
    "vamp-iwae": Run("vamp-vae", {"components": 500, "k": 5}, (300, 300), 40, None),
    "resnet iwae-5": Run(
        "hierarchical-vae", {"levels": 2, "k": 5, "warmup": 20.0}, (64, 128), 96, None, network="resnet"
    ),
}


def rows(path: str | None) -> dict[str, np.ndarray] | None:
    """Images as rows of zeros and ones; None where the file holds other data."""
    if path is None:
        return None
    with np.load(path) as data:
        names = ("train", "valid", "test")
        if not set(names) <= set(data.files):
            return None
        return {name: np.unpackbits(data[name], axis=1)[:, :784].astype(np.float32) for name in names}


def fitted(
    run: Run, data: dict[str, np.ndarray], minutes: float, seed: int, kept: Path, device: str
) -> tuple[Any, list[dict[str, Any]]]:
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.engine import train
    from chartae.training.sources import Source

    clock = time.process_time if device == "cpu" else time.perf_counter
    images = {name: items(run, rows) for name, rows in data.items()}
    space = infer_space(
        images["train"], likelihood="bernoulli", layout="flat" if run.network == "mlp" else "chw"
    )
    source, judged = (Source(images[name], space, device=device) for name in ("train", "valid"))

    def plan(stage: Stage) -> Any:
        torch.manual_seed(seed)
        return build(
            run.recipe,
            space,
            latent_dim=run.latent_dim,
            hidden=run.hidden,
            network=run.network,
            **run.parameters | stage.parameters,
        )

    def epochs(plan: Any, n: int, state: Any = None) -> Any:
        return train(
            plan,
            source,
            validation=judged,
            epochs=n,
            batch_size=run.batch_size,
            learning_rate=run.stages[now["stage"]].rate or run.rate,
            schedule="cosine" if now["stage"] == len(run.stages) - 1 else "constant",
            precision=torch.float32,
            seed=seed + now["stage"],
            begin=now["weights"] is None,
            state=state,
        )

    now = {"stage": 0, "weights": None, "epochs": None, "curve": [], "state": None}
    now |= torch.load(kept, map_location="cpu") if kept.exists() else {}
    curve = now["curve"]
    while now["stage"] < len(run.stages):
        stage, started = run.stages[now["stage"]], 0.0
        if now["epochs"] is None:  # how many there is time for, from the last one of a trial
            for epoch in epochs(plan(stage), 100):
                if epoch.number == TRIAL:
                    break
                started = clock()
            now["epochs"] = max(2, int(60 * stage.share * minutes / (clock() - started)))
            print(f"{now['epochs']} epochs", file=sys.stderr, flush=True)
        model, start = plan(stage), clock()
        if now["weights"] is not None:
            model.model.load_state_dict(now["weights"])
        before = curve[-1]["cpu_seconds"] if curve else 0.0
        for epoch in epochs(model, now["epochs"], now["state"]):
            log = {k: v for k, v in epoch.log.items() if not isinstance(v, list)}
            curve.append({"cpu_seconds": before + clock() - start, **log})
            if epoch.number % EACH == 0 or epoch.number == now["epochs"]:
                print(epoch.number, f"{epoch.log['val_loss']:.3f}", file=sys.stderr, flush=True)
                torch.save(now | {"state": epoch.checkpoint()}, kept)
        now["stage"] += 1
        if now["stage"] < len(run.stages):
            now |= {"weights": model.model.state_dict(), "epochs": None, "state": None}
    return model.model.eval(), curve


def items(run: Run, rows: np.ndarray) -> np.ndarray:
    """Rows, or images for a network that looks at neighbors."""
    return rows if run.network == "mlp" else rows.reshape(-1, 1, 28, 28)


def tested(model: Any, test: np.ndarray, k: int, device: str, refine: int) -> np.ndarray:
    """Test -log p(x) of each image."""
    from chartae.core.contracts import Batch
    from chartae.core.noise import Noise
    from chartae.density import log_likelihood

    class There(Noise):
        """Drawn on the GPU, to which billions of numbers would have to be brought."""

        def normal(self, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
            return torch.randn(shape, device=like.device, dtype=like.dtype)

    torch.manual_seed(0)
    noise, block = (Noise(0), 20) if device == "cpu" else (There(), 250)
    values = [
        log_likelihood(
            model, Batch(torch.from_numpy(rows).to(device)), k=k, noise=noise, block=block, refine=refine
        )[0].cpu()
        for rows in np.array_split(test, max(1, len(test) // 100))
    ]
    return -torch.cat(values).numpy()


def refined(model: Any, test: np.ndarray, k: int, device: str) -> tuple[float, float] | None:
    """The same by posteriors that are refined first, where they can be."""
    from chartae.core.errors import PlanError

    try:
        return mean_and_error(tested(model, test, k, device, REFINED))
    except PlanError:
        return None


def missed(model: Any, test: np.ndarray, nats: np.ndarray, device: str) -> tuple[float, float]:
    """How far annealing is below these estimates, and the standard error over images."""
    from chartae.core.contracts import Batch
    from chartae.core.noise import Noise
    from chartae.density import annealed_log_likelihood

    def annealed(rows: np.ndarray) -> np.ndarray:
        batch = Batch(torch.from_numpy(rows).to(device))
        return -annealed_log_likelihood(model, batch, k=CHAINS, noise=Noise(0), steps=STEPS)[0].cpu().numpy()

    found = [annealed(rows) for rows in np.array_split(test[:ANNEALED], ANNEALED // 100)]
    return mean_and_error(nats[:ANNEALED] - np.concatenate(found))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz with train, valid and test as packed bits")
    parser.add_argument("--run", choices=list(RUNS), nargs="+", default=list(RUNS))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "binarized_mnist.json"
    )
    cache = Path(__file__).parents[1] / ".cache"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for what a run goes on from")
    args = parser.parse_args()
    args.cache.mkdir(exist_ok=True)
    torch.set_num_threads(args.threads)
    cores = "one core" if args.threads == 1 else f"{args.threads} cores"
    data = rows(args.data)
    if data is None:
        print("binarized_mnist.py needs --data with train, valid and test as packed bits: left out")
        return
    for name in args.run:
        on = "" if args.device == "cpu" else f" {args.device}"
        kept, run = args.cache / f"binarized {name} {args.minutes:g} {args.seed}{on}.pt", RUNS[name]
        model, curve = fitted(run, data, args.minutes, args.seed, kept, args.device)
        test = items(run, data["test"])
        each = tested(model, test, args.samples, args.device, 0)
        nats, error = mean_and_error(each)
        found = json.loads(args.out.read_text())["raw"] if args.out.exists() else {}
        found[name] = {
            "minutes": args.minutes,
            "samples": args.samples,
            "seed": args.seed,
            "on": cores if args.device == "cpu" else torch.cuda.get_device_name(),
            "nats": nats,
            "error": error,
            "missed": missed(model, test, each, args.device),
            "refined": refined(model, test, args.samples, args.device),
            "cpu_minutes": curve[-1]["cpu_seconds"] / 60,
            "epochs": len(curve),
            "validation": min(epoch["val_loss"] for epoch in curve),
            "curve": [{k: round(v, 4) for k, v in epoch.items() if k in CURVE} for epoch in curve],
        }
        write(args.out, found)


CURVE = {"cpu_seconds", "loss", "val_loss"}


def write(out: Path, kept: dict[str, Any]) -> None:
    found = []
    for name, run in RUNS.items():
        if name not in kept:
            continue
        got, widths = kept[name], "-".join(map(str, run.hidden))
        published = "" if run.published is None else f"{run.published:.2f}"
        # The last tenth of the time tells whether more of it would help.
        tail = got["curve"][int(0.9 * len(got["curve"])) :]
        falling = (tail[0]["val_loss"] - min(e["val_loss"] for e in tail)) if tail else 0.0
        found.append(
            [
                name,
                f"{widths}-{run.latent_dim}",
                f"{got['nats']:.2f} ± {got['error']:.2f}",
                *(
                    "{:.2f} ± {:.2f}".format(*got[name]) if got.get(name) else ""
                    for name in ("refined", "missed")
                ),
                published,
                f"{got['cpu_minutes']:.0f}",
                got.get("on", "one core"),
                got["epochs"],
                f"{falling:.2f}",
            ]
        )
    shares, longer, opened, fine, asleep, few = (
        ", ".join(f"k = {stage.parameters['k']} for {stage.share:.0%}" for stage in stages)
        for stages in (GROWING, LONGER, OPEN, FINE, ASLEEP, FEW)
    )
    write_json(
        str(out),
        title="Test −log p(x) on fixed binarized MNIST, within hours of one core, or minutes of a GPU",
        command="python benchmarks/quality/binarized_mnist.py --data mnist_static_binarized.npz --run vamp",
        machine=machine_info(1),
        columns=[
            "run",
            "network",
            "test −log p(x) (nats)",
            "by refined posteriors",
            "missed by the encoder's samples",
            "published, to convergence",
            "minutes",
            "on",
            "epochs",
            "validation gain of the last tenth",
        ],
        rows=found,
        notes=[
            "5,000 importance samples of each of 10,000 test images; ± is the standard error over images. "
            f"Refined: {REFINED} steps of each image's own lead from what the encoder gives to the normal "
            "distribution that is sampled; other samples are weighed then, so that the estimate of p(x) has "
            "no bias. What is published was sampled from the encoder's.",
            "Published: Burda et al. 2016 (arXiv:1509.00519) for VAE and IWAE, Tomczak and Welling 2018 "
            "(arXiv:1705.07120) for the VampPrior, with tanh or gated networks and more epochs; ReLU here "
            "unless tanh is named.",
            f"k growing: {shares} of the time, where a step goes back through 5 of the 50 samples, drawn by "
            f"their weights; the rate falls in the last of these stages. Longer: {longer}. KL and k growing: "
            f"{opened} (VampPrior: {few}), and the KL counts from 0 to 1 in the first half of k = 1. Fine: "
            f"{fine}, and the rate of the last falls from {FINE[-1].rate:g}, not from 0.001. Asleep: "
            f"{asleep}, in the last of which the encoder learns of images that the model draws, too.",
            f"Missed: how much less {CHAINS} chains of annealed importance sampling, of {STEPS} temperatures "
            f"each, find on the first {ANNEALED} test images. What is published has such a part, too, not "
            "known. Empty: not measured.",
            "The rate has fallen to zero at the end of each run, so that a curve has no slope to go on from: "
            "what more time would give is told by runs of other lengths alone.",
        ],
        raw=kept,
    )


if __name__ == "__main__":
    main()
