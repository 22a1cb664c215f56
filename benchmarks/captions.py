"""Captions of MNIST digits from a small grammar over measured attributes: "a thin seven, leaning right".

``measure`` gives numbers, ``words`` the attributes that they stand for, ``caption`` a text that says them,
and ``parse`` the attributes that a text says: ``parse(caption(a, rng)) == a``. Size is no attribute, because
MNIST has scaled every digit to a box of 20 × 20; what is left of it is how wide a digit is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

#: In pixels and degrees. Below, between and above them an attribute has its first, second and third word;
#: they are about the quartiles of the training images.
THRESHOLDS = {"thickness": (2.0, 2.8), "slant": (-4.0, 16.0), "width": (11.0, 17.0)}

#: Each word with the ways to say it; one that has none is left unsaid.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "thickness": {"thin": ("thin", "fine", "light"), "medium": (), "thick": ("thick", "bold", "heavy")},
    "slant": {
        "left": ("leaning left", "tilted left"),
        "upright": ("upright", "straight"),
        "right": ("leaning right", "tilted right"),
    },
    "width": {"narrow": ("narrow", "slim"), "ordinary": (), "wide": ("wide", "broad")},
}


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    """Thickness and width in pixels and slant in degrees: (n,) each, of (n, 28, 28), uint8 or in [0, 1].

    Thickness is twice the ink over its total variation: a stroke of length l and width w has w l of ink and a
    boundary of 2 l, both of which a slight blur leaves as they are. Slant is how far ink shifts to the right
    from row to row upwards, by second moments; width is four standard deviations of the ink's columns once
    that shift is undone.
    """
    parts = [_measured(images[i : i + 500]) for i in range(0, len(images), 500)]
    return {name: np.concatenate([part[name] for part in parts]) for name in THRESHOLDS}


def _measured(images: np.ndarray) -> dict[str, np.ndarray]:
    x = images.reshape(-1, 28, 28) / np.float32(255 if images.dtype == np.uint8 else 1)
    least = np.float32(1e-6)
    ink = np.maximum(x.sum((1, 2)), least)
    edge = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(edge, axis=1)[:, :, :-1], np.diff(edge, axis=2)[:, :-1]
    variation = np.maximum(np.sqrt(down**2 + right**2).sum((1, 2)), least)
    by_row, by_column = x.sum(2) / ink[:, None], x.sum(1) / ink[:, None]
    rows, columns = (np.arange(28) - (p @ np.arange(28))[:, None] for p in (by_row, by_column))
    tall, wide = (by_row * rows**2).sum(1), (by_column * columns**2).sum(1)
    both = ((x @ columns[:, :, None])[:, :, 0] * rows).sum(1) / ink
    tall = np.maximum(tall, least)
    return {
        "thickness": 2 * ink / variation,
        "slant": np.degrees(np.arctan(-both / tall)),
        "width": 4 * np.sqrt(np.maximum(wide - both**2 / tall, 0)),
    }


def words(measured: Mapping[str, np.ndarray], digits: Sequence[int]) -> list[dict[str, str]]:
    """The attributes of each image: ``{"digit": "seven", "thickness": "thin", "slant": "left", ...}``."""
    said = {
        name: np.array(list(WORDS[name]))[np.digitize(measured[name], THRESHOLDS[name])] for name in WORDS
    }
    return [
        {"digit": DIGITS[int(digit)]} | {name: str(said[name][i]) for name in WORDS}
        for i, digit in enumerate(digits)
    ]


def caption(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """A text that says the attributes of one image, in words and an order drawn from ``rng``."""

    def say(name: str) -> list[str]:
        ways = WORDS[name][attributes[name]]
        return [str(rng.choice(ways))] if ways else []

    before, slant, digit = say("thickness") + say("width"), say("slant"), attributes["digit"]
    before = [before[i] for i in rng.permutation(len(before))]
    way = rng.integers(3)
    if way == 0:
        return " ".join(["a", *before, digit]) + f", {slant[0]}"
    if way == 1:
        return f"a {digit}, " + ", ".join(before + slant)
    return "a " + ", ".join(before + slant) + f" {digit}"


def parse(text: str) -> dict[str, str]:
    """The attributes that a text says; what it leaves unsaid is medium, ordinary, or upright.

    Raises
    ------
    ValueError
        If the text names no digit, or says two things of one attribute.
    """
    flat = f" {' '.join(text.lower().replace(',', ' ').split())} "

    def said(ways: Mapping[str, tuple[str, ...]]) -> list[str]:
        return [word for word, said in ways.items() if any(f" {way} " in flat for way in said)]

    out = {}
    for name, ways in ({"digit": {d: (d,) for d in DIGITS}} | WORDS).items():
        found = said(ways)
        if len(found) > 1 or (name == "digit" and not found):
            raise ValueError(f"{text!r} names {' and '.join(found) or 'no'} {name}: say one")
        out[name] = found[0] if found else list(ways)[1]
    return out
