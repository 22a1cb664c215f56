"""Does a text VAE use its code, and what does the code gain over the same decoder without one?

Texts are captions of MNIST's training images, from a small grammar over measured attributes; held-out ones
are of its test images. Decoders see all that was said before a token, or the last few bytes only, or are
kept from seeing some of it in training. Each is trained with a code and without one, as a language model,
by the same blocks, bytes, epochs and steps. Of the VAE an upper bound of -log p(x) counts, by importance
sampling; of the language model -log p(x) itself.

    python benchmarks/quality/text_vae.py --data mnist.npz
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from captions import caption, measure, words
from common import command_line, load_data, machine_info, write_json


def captions_of(images: np.ndarray, digits: np.ndarray, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [caption(attributes, rng) for attributes in words(measure(images), digits[: len(images)])]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of MNIST; without it OpenML's is fetched")
    parser.add_argument("--rows", type=int, default=12_000, help="training texts")
    parser.add_argument("--told", type=int, default=400, help="held-out texts")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--latent", type=int, default=4)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64])
    parser.add_argument("--contexts", type=int, nargs="+", default=[3, 0], help="bytes; 0: all")
    parser.add_argument("--hides", type=float, nargs="+", default=[0.8], help="of a decoder that sees all")
    parser.add_argument("--free-bits", type=float, default=0.6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "text_vae.json")
    args = parser.parse_args()
    import chartae as ct
    from chartae.models.spoken import spoken
    from chartae.training.engine import train
    from chartae.training.evaluation import evaluate
    from chartae.training.sources import Source

    warnings.simplefilter("ignore")
    data = load_data(args.data)
    texts = captions_of(data["x_train"][: args.rows], data["y_train"], 0)
    told = captions_of(data["x_test"][: args.told], data["y_test"], 1)
    sizes = sum(len(text.encode()) + 1 for text in told)
    options = {
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "schedule": "cosine",
    }
    rows = []

    def tell(name: str, decoder: str, nats: float, *more: str) -> None:
        rows.append([name, decoder, f"{nats / len(told):.2f}", f"{np.exp(nats / sizes):.4f}", *more])
        print(rows[-1], file=sys.stderr, flush=True)

    ways = [{"context": n or None} for n in args.contexts] + [{"hide": share} for share in args.hides]
    for way in ways:
        how = {"context": None, "hide": 0.0} | way
        seen = "all" if how["context"] is None else f"{how['context']} bytes a block"
        seen += f", {how['hide']:.0%} of them hidden" if how["hide"] else ""
        began = time.process_time()
        vae = ct.TextVAE(
            latent_dim=args.latent,
            hidden=tuple(args.hidden),
            max_length=40,
            free_bits=args.free_bits,
            max_epochs=args.epochs,
            warmup=args.epochs / 2,
            validation_fraction=0.0,
            patience=None,
            random_state=0,
            verbose=1,
            **how,
            **options,
        )
        vae.fit(texts)
        seconds = time.process_time() - began
        bound = -vae.score_samples(told, n_importance=128).sum()
        same = np.mean([a == b for a, b in zip(vae.reconstruct(told), told, strict=True)])
        tell("text VAE", seen, bound, f"{kl_of(vae, told):.2f}", f"{same:.3f}", f"{seconds:.0f}")
        began = time.process_time()
        torch.manual_seed(0)
        space, encode = vae.space_, vae.medium_.encode
        plan = spoken(space, hidden=tuple(args.hidden), **how)
        for _ in train(plan, Source(encode(texts), space), epochs=args.epochs, seed=0, **options):
            pass
        seconds = time.process_time() - began
        nats = evaluate(plan, Source(encode(told), space))["nll"] * len(told)
        tell("language model", seen, nats, "", "", f"{seconds:.0f}")
    write_json(
        str(args.out),
        title="Text VAEs, each beside the same decoder without a code",
        command=command_line(args, "quality/text_vae.py"),
        machine=machine_info(torch.get_num_threads()),
        columns=[
            "model",
            "what the decoder sees",
            "nats a text",
            "perplexity a byte",
            "KL (nats)",
            "said again",
            "fit (CPU s)",
        ],
        rows=rows,
        notes=[
            f"{len(texts):,} texts, {len(told):,} held-out ones of {sizes / len(told):.1f} bytes; blocks of "
            f"{args.hidden}, {args.latent} latent dimensions, {args.epochs} epochs, one seed.",
            "Nats and perplexity are of held-out texts: -log p(x) of the language model, an upper bound of "
            "it by 128 importance samples of the VAE. Said again: texts that come back to the letter.",
            "What is hidden is so in training alone; in the end all are seen.",
        ],
    )


def kl_of(vae: Any, texts: list[str]) -> float:
    """Mean KL(q(z | x) || N(0, I)) of texts, in nats."""
    mu, sd = vae.transform(texts, return_std=True)
    return float((0.5 * (mu**2 + sd**2 - 1) - np.log(sd)).sum(1).mean())


if __name__ == "__main__":
    main()
