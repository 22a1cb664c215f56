"""What a linear head reads off frozen codes of spoken digits, of speakers that were heard and of new ones.

2,000 utterances of four speakers (the Free Spoken Digit Dataset). Codes are learned without labels, of the
log mel power as it is, or less the mean of each band over an utterance, which takes away much of a voice.
Known speakers: takes 0 to 4 are the test, as the data set has it. New speakers: neither the encoder nor the
head has heard the one that is told; the mean over all four. Beside each stand as many principal components
of standardized values.

    python benchmarks/quality/speech.py --data fsdd_4speakers.npz
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
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import machine_info, write_json

ITEMS = ("log mel", "log mel, less each band's mean")


def encoders(latent_dim: int, seed: int, epochs: int) -> dict[str, Any]:
    import chartae as ct

    common = {
        "latent_dim": latent_dim,
        "network": "mlp",
        "hidden": (256, 128),
        "batch_size": 64,
        "max_epochs": epochs,
        "schedule": "cosine",
        "patience": None,
        "random_state": seed,
    }
    return {
        "PCA": make_pipeline(StandardScaler(), PCA(latent_dim, random_state=seed)),
        "vae": ct.VAE(**common),
        "denoising vae": ct.VAE(**common, corruption=1.0),
        "vae, stretched items": ct.VAE(**common, corruption=("stretching", 0.1)),
    }


def read(encoder: Any, X: np.ndarray, seen: np.ndarray, told: dict[str, np.ndarray]) -> dict[str, float]:
    """Fit to what was seen, and score heads on the rest."""
    import chartae as ct

    flat = X if hasattr(encoder, "latent_dim") else X.reshape(len(X), -1)
    codes = encoder.fit(flat[seen]).transform(flat)
    return {
        name: ct.HeadClassifier(random_state=0).fit(codes[seen], y[seen]).score(codes[~seen], y[~seen])
        for name, y in told.items()
    }


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--data", help=".npz of wave, offsets, sample_rate, digit, speaker and take")
    parser.add_argument("--latent-dims", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "speech.json")
    args = parser.parse_args()
    if args.data is None:
        print("speech.py needs --data with the waves of spoken digits: left out")
        return
    import chartae as ct

    warnings.simplefilter("ignore")
    sounds = ct.read(args.data).X.astype(np.float32)
    with np.load(args.data) as data:
        truth, take = {name: data[name] for name in ("digit", "speaker")}, data["take"]
    known, digits = take >= 5, {"digit": truth["digit"]}
    rows, scores = [], []
    for which, X in zip(ITEMS, (sounds, sounds - sounds.mean(3, keepdims=True)), strict=True):
        for latent_dim in args.latent_dims:
            for name in encoders(2, 0, 1):
                start = time.perf_counter()
                told = read(encoders(latent_dim, args.seed, args.epochs)[name], X, known, truth)
                new = [
                    read(encoders(latent_dim, args.seed, args.epochs)[name], X, truth["speaker"] != s, digits)
                    for s in np.unique(truth["speaker"])
                ]
                seconds = (time.perf_counter() - start) / (1 + len(new))
                heard = [found["digit"] for found in new]
                scores.append([which, latent_dim, name, told, heard])
                got = (told["digit"], told["speaker"], np.mean(heard))
                rows.append([which, latent_dim, name, *(f"{v:.3f}" for v in got), f"{seconds:.1f}"])
                print(rows[-1], file=sys.stderr, flush=True)
    write_json(
        str(args.out),
        title="Spoken digits: a linear head on frozen codes",
        command="python benchmarks/quality/speech.py --data fsdd_4speakers.npz",
        machine=machine_info(torch.get_num_threads()),
        columns=["items", "numbers", "codes", "digit", "speaker", "digit of new speakers", "one fit (s)"],
        rows=rows,
        notes=[
            "Accuracy. Digit and speaker: 200 utterances of known speakers. New speakers: each of four is "
            f"left out of all that is learned; 500 utterances. Encoders: 2560-256-128, {args.epochs} epochs.",
            "An utterance is 40 bands at 64 times that span it, whatever it lasts. Timed beside other work.",
        ],
        raw={"scores": scores},
    )


if __name__ == "__main__":
    main()
