"""What a penalty on the code's norm alone does to an autoencoder: a table and docs/figures/l2_ae.png.

Minimizing |x - D(E(x))|^2 + λ|E(x)|^2 has no minimum with codes away from zero: a code half as long,
decoded by a decoder twice as steep, reconstructs as well and costs less. So codes shrink at every λ > 0,
the decoder's Jacobian grows to make up for it, and N(0, I) lies far outside of what the decoder was
trained on.

    python benchmarks/quality/l2_ae.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

ROOT = Path(__file__).resolve().parents[2]
LAMBDAS = (0.0, 0.1, 1.0, 10.0, 100.0)
STEPS = 50  # of an epoch
CHECKED = (1, 2, 6, 20, 60, 200, 600)  # epochs


def jacobian_norm(model: torch.nn.Module, codes: torch.Tensor) -> float:
    """Root mean square of |dD/dz|_F over codes (n, d), in model units per code unit."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        return model.likelihood(z[None, None]).point().flatten()

    jacobians = torch.func.vmap(torch.func.jacfwd(decode))(codes)
    return float(jacobians.detach().square().sum((1, 2)).mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=Path(__file__).parent / "results" / "l2_ae.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "l2_ae.png")
    args = parser.parse_args()
    from chartae.models.recipes import build
    from chartae.parts.units import infer_space
    from chartae.training.engine import train
    from chartae.training.sources import Source

    X = load_digits().data.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(X))
    X, held_out = X[order[:1500]], X[order[1500:]]
    space, neighbors = infer_space(X), NearestNeighbors(n_neighbors=1).fit(X)
    normal = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    usual = float(np.median(neighbors.kneighbors(held_out)[0]))
    curves, rows, pictures = {}, [], {}
    for lam in LAMBDAS:
        torch.manual_seed(0)
        plan = build("l2-ae", space, lam=lam, latent_dim=2, hidden=(64, 32), noise=2.0)
        source = Source(X, space, rows=torch.arange(len(X)).repeat(STEPS))
        batch = source.take(torch.arange(300))
        for epoch in train(plan, source, epochs=max(CHECKED), batch_size=len(X), learning_rate=3e-3, seed=0):
            if epoch.number not in CHECKED:
                continue
            plan.model.eval()
            with torch.no_grad():
                codes = plan.model.posterior(batch.x).point()
            norms = float(codes.square().sum(1).mean()), jacobian_norm(plan.model, codes)
            curves.setdefault(lam, []).append((STEPS * epoch.number, *norms, epoch.log["nll"]))
        with torch.no_grad():
            made = space.from_model(plan.model.likelihood(normal[None]).point()[0]).numpy()
        pictures[lam] = made[:8]
        far = float(np.median(neighbors.kneighbors(made)[0])) / usual
        _, squared, steep, nll = curves[lam][-1]
        rows.append([f"{lam:g}", f"{squared:.2e}", f"{steep:.3g}", f"{nll:.1f}", f"{far:.1f}"])
    write_json(
        args.out,
        title="A penalty on the code's norm alone: codes go to zero, and the decoder grows steeper",
        command="python benchmarks/quality/l2_ae.py",
        machine=machine_info(torch.get_num_threads()),
        columns=[
            "λ",
            "E|z|²",
            "decoder Jacobian (rms)",
            "nll (nats)",
            "distance of decoded N(0, I) to data / held-out's",
        ],
        rows=rows,
        notes=[
            f"l2-ae on 1,500 digits of 8 × 8 pixels, d = 2, {STEPS * CHECKED[-1]:,} steps of 1,500 rows.",
            "Jacobian in model units; medians of Euclidean distances to the nearest training digit.",
        ],
        raw={"curves": curves},
        figure="figures/l2_ae.png",
    )
    draw(curves, pictures, args.figure)


def draw(curves: dict, pictures: dict, path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9, 6.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = top.subplots(1, 2)
    for color, (lam, points) in zip(
        plt.cm.viridis(np.linspace(0, 0.85, len(curves))), curves.items(), strict=True
    ):
        epochs, squared, steep, _ = zip(*points, strict=True)
        left.loglog(epochs, squared, marker="o", color=color, label=f"λ = {lam:g}")
        right.loglog(epochs, steep, marker="o", color=color)
    left.set(xlabel="step of Adam", ylabel="E |z|²", title="codes shrink at every λ > 0")
    right.set(
        xlabel="step of Adam", ylabel="|∂D/∂z|, rms", title="the decoder grows steeper to make up for it"
    )
    top.legend(loc="outside lower center", ncols=len(curves), frameon=False)
    axes = bottom.subplots(len(pictures), 8)
    for row, (lam, images) in zip(axes, pictures.items(), strict=True):
        for ax, image in zip(row, images, strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"λ = {lam:g}", rotation=0, ha="right", va="center")
    bottom.suptitle("what N(0, I) decodes to")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
