"""Captions of MNIST under a frozen encoder: how often a text says all that was measured of an image.

The encoder is a linear autoencoder of what strokes look like: edges by direction, and ink, on a coarse grid
(histograms of gradients, Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177). It sees no caption. The
captioner sees training images and variants of them (bolder, finer, sheared, stretched, moved), each of which
is measured anew, so that its caption is true. Captions of the 10,000 test images are parsed; all four
attributes have to be those that were measured.

    python benchmarks/quality/captions_mnist.py --data mnist.npz
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from captions import WORDS, caption, measure, parse, words
from common import load_data, machine_info, write_json

CELLS, WAYS, BLOCK = 7, 8, 2000


def strokes(images: np.ndarray) -> np.ndarray:
    """(n, 28, 28) uint8 -> (n, 729): ink, and edges in each of 8 directions, on 9 x 9 overlapping cells."""
    ink, edges = _cells(np.arange(28) + 0.5), _cells(np.arange(29))
    return np.concatenate([_strokes(images[i : i + BLOCK], ink, edges) for i in range(0, len(images), BLOCK)])


def _cells(at: np.ndarray) -> np.ndarray:
    """Quadratic B-splines at positions (m,): their sums over cells keep moments up to the second."""
    t = np.abs(at[:, None] * CELLS / 28 - (np.arange(-1, CELLS + 1) + 0.5))
    spline = np.where(t < 0.5, 0.75 - t**2, np.where(t < 1.5, 0.5 * (1.5 - t) ** 2, 0.0))
    return spline.astype(np.float32)


def _strokes(images: np.ndarray, ink: np.ndarray, edges: np.ndarray) -> np.ndarray:
    x = images.astype(np.float32) / 255
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(padded, axis=1)[:, :, :-1], np.diff(padded, axis=2)[:, :-1]
    size = np.hypot(down, right)
    way = np.arctan2(down, right) * np.float32(WAYS / (2 * np.pi)) % WAYS
    found = [ink.T @ x @ ink]
    for k in range(WAYS):  # shared between the two directions that are next to it
        away = np.abs((way - k + WAYS / 2) % WAYS - WAYS / 2)
        found.append(edges.T @ (size * np.maximum(1 - away, 0)) @ edges)
    return np.stack(found, 1).reshape(len(x), -1)


def vary(images: np.ndarray, seed: int) -> np.ndarray:
    """Each image bolder or finer, turned, stretched, sheared and moved a little."""
    generator = torch.Generator().manual_seed(seed)
    made = [_varied(images[i : i + BLOCK], generator) for i in range(0, len(images), BLOCK)]
    return np.concatenate(made)


def _varied(images: np.ndarray, generator: torch.Generator) -> np.ndarray:
    x = torch.from_numpy(images).float()[:, None] / 255

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(x), generator=generator)

    bolder = uniform(-0.7, 0.4)[:, None, None, None]
    most, least = F.max_pool2d(x, 3, 1, 1), -F.max_pool2d(-x, 3, 1, 1)
    x = torch.where(bolder > 0, torch.lerp(x, most, bolder.abs()), torch.lerp(x, least, bolder.abs()))
    turn, shear = uniform(-0.12, 0.12), uniform(-0.25, 0.25)
    across = torch.stack([turn.cos() * uniform(0.85, 1.2), shear - turn.sin(), uniform(-0.1, 0.1)], 1)
    down = torch.stack([turn.sin(), turn.cos() * uniform(0.92, 1.1), uniform(-0.1, 0.1)], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False)
    return (255 * x[:, 0].clamp(0, 1)).round().to(torch.uint8).numpy()


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of MNIST; without it OpenML's is fetched")
    parser.add_argument("--variants", type=int, default=4, help="of each training image")
    parser.add_argument("--rows", type=int, default=60_000, help="training images")
    parser.add_argument("--latent", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    out = Path(__file__).parent / "results" / "captions_mnist.json"
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    import chartae as ct

    warnings.simplefilter("ignore")
    data, rng = load_data(args.data), np.random.default_rng(0)
    X, digits = data["x_train"][: args.rows], data["y_train"][: args.rows]
    began = time.process_time()
    ae = ct.AE(
        latent_dim=args.latent,
        network="linear",
        max_epochs=6,
        schedule="cosine",
        batch_size=256,
        patience=None,
        random_state=0,
    )
    encoder = make_pipeline(FunctionTransformer(strokes), ae).fit(X)
    encoded = time.process_time()
    images = np.concatenate([X, *(vary(X, seed) for seed in range(args.variants))])
    said = words(measure(images), np.tile(digits, 1 + args.variants))
    captioner = ct.Captioner(
        encoder,
        max_length=40,
        hidden=tuple(args.hidden),
        max_epochs=args.epochs,
        validation_fraction=0.02,
        patience=None,
        random_state=0,
        verbose=1,
    )
    captioner.fit(images, [caption(attributes, rng) for attributes in said])
    learned = time.process_time()
    truth = words(measure(data["x_test"]), data["y_test"])
    texts = [caption(attributes, rng) for attributes in truth]
    made = captioner.caption(data["x_test"])
    nats = -captioner.score_samples(data["x_test"], texts)
    told = [_parsed(text) for text in made]
    names = ["digit", *WORDS]
    pairs = list(zip(told, truth, strict=True))
    each = {name: np.mean([t.get(name) == a[name] for t, a in pairs]) for name in names}
    whole = float(np.mean([t == a for t, a in pairs]))
    sizes = sum(len(text.encode()) + 1 for text in texts)
    write_json(
        str(args.out),
        title="Captions of MNIST under a frozen autoencoder",
        command="python benchmarks/quality/captions_mnist.py --data mnist.npz",
        machine=machine_info(torch.get_num_threads()),
        columns=["what a caption of a test image says", "as measured"],
        rows=[["all four attributes", f"{whole:.4f}"], *([name, f"{each[name]:.4f}"] for name in names)],
        notes=[
            f"10,000 test images; encoder of {args.latent} numbers, fitted to {len(X):,} training images "
            f"without captions; captioner of {args.hidden}, fitted to {len(images):,} images in "
            f"{args.epochs} epochs.",
            f"Captions of test images cost {nats.mean():.2f} nats each, {nats.sum() / sizes:.3f} a byte; "
            "words and their order are drawn at random, which no image tells.",
            f"CPU: {encoded - began:.0f} s for the encoder, {learned - encoded:.0f} s for images, captions "
            "and the captioner.",
        ],
        raw={"examples": [[m, t] for m, t in list(zip(made, texts, strict=True))[:10]]},
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        return parse(text)
    except ValueError:
        return {}


if __name__ == "__main__":
    main()
