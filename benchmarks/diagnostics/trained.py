"""Are all checks right on models that were trained? Small data and networks, whose health follows from how.

Every seed has data and an initialization of its own; cases of one seed share what was fitted. Audits see
items that were held out, those trained on, and labels.

    python benchmarks/diagnostics/trained.py --seeds 40 --first-seed 1000
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from harness import Case, Made, frame, main, normal, uniform, wants
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import Tensor

import chartae as ct
from chartae.geometry import Chart
from chartae.parts.distributions import FullNormalMixture, StandardNormal

HELD = 1000  # items
SHORT: dict[str, Any] = {
    "likelihood": "normal",
    "max_epochs": 40,
    "batch_size": 100,
    "schedule": "cosine",
    "validation_fraction": 0.0,
}
SMALL = {**SHORT, "hidden": (64, 64), "learning_rate": 3e-3}
LINEAR = {**SHORT, "network": "linear", "learning_rate": 4e-2}
LONG = {**LINEAR, "max_epochs": 80}

Data = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]

# ---------------------------------------------------------------------------- items and their labels


def factors(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Five factors among 20 values, noise .5: a linear VAE of them is probabilistic PCA."""
    z = normal(g, n, 5)
    size = (torch.tensor([9.0, 6.0, 4.0, 2.5, 1.5]) - 0.25).sqrt()
    return z * size @ frame(g, 20, 5).T + 0.5 * normal(g, n, 20), z[:, 0] > 0


def sheet(g: torch.Generator, n: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Normal codes of two dimensions, on a gently curved sheet among 20."""
    z = normal(g, n, 2)
    a, b = z.unbind(1)
    bent = torch.stack([a, b, (a / 2).sin() ** 2, (a * b / 4).tanh()], 1)
    return bent @ frame(g, 20, 4).T + noise * normal(g, n, 20), a > 0


def shifted(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Two classes, which differ by where the sheet lies."""
    x, _ = sheet(g, n)
    y = uniform(g, n, 1)[:, 0] > 0
    return x + y[:, None] * normal(g, 20), y


def cube(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    z = uniform(g, n, 3)
    return z @ frame(g, 12, 3).T + 0.01 * normal(g, n, 12), z[:, 0] > 0


def circle(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    t = uniform(g, n, 1, 0, 2 * math.pi)
    x = torch.cat([t.cos(), t.sin()], 1) @ frame(g, 10, 2).T + 0.01 * normal(g, n, 10)
    return x, t[:, 0] > math.pi


def clusters(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Two clusters, twelve of their standard deviations apart, and a factor more."""
    z = normal(g, n, 2)
    side = uniform(g, n, 1)[:, 0] > 0
    z[:, 0] = 0.5 * z[:, 0] + torch.where(side, 3.0, -3.0)
    return z @ frame(g, 12, 2).T + 0.3 * normal(g, n, 12), side


def digits(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Handwritten digits of 8 x 8 pixels, without those pixels that are nearly always empty."""
    x, y = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    rows = torch.randperm(len(x), generator=g)[:n]
    return (x[:, x.std(0) > 1] / 16).float()[rows], y[rows]


# ------------------------------------------------------------------------------------------- models


@cache
def fitted(seed: int, data: Data, model: Any, n: int) -> tuple[Any, Tensor, Tensor]:
    x, y = data(torch.Generator().manual_seed(seed), n + HELD)
    new = clone(model).set_params(random_state=seed)
    return new.fit(x[:n].numpy(), *([y[:n].numpy()] if isinstance(new, ct.CVAE) else [])), x, y


def case(
    data: Data,
    model: Any,
    *,
    n: int = 1000,
    held: int = HELD,
    change: Callable[[Any, int], Any] = lambda model, seed: model,
) -> Callable[[torch.Generator], Made]:
    """Items that a model, trained on n others, has not seen; and what is done to the model after."""

    def make(g: torch.Generator) -> Made:
        seed = g.initial_seed()
        found, x, y = fitted(seed, data, model, n)
        name = "condition" if isinstance(model, ct.CVAE) else "labels"
        items, labels = x.numpy(), y.numpy()
        more = {"X_train": items[:n], name: labels[n : n + held], f"{name}_train": labels[:n]}
        return Made(change(found, seed), items[n : n + held], more)

    return make


def standard(model: Any, seed: int) -> Chart:
    """Samples come from N(0, I), of which the codes were told nothing."""
    return replace(model.chart(), sampler=lambda c: StandardNormal(model.model_.latent_dim))


def copies(model: Any, seed: int) -> Chart:
    """Samples come from within a hundredth of the codes' spread around those of training items."""
    codes = torch.as_tensor(model.codes_).float()
    narrow = FullNormalMixture(torch.zeros(len(codes)), codes, 0.01 * torch.diag(codes.std(0)))
    return replace(model.chart(), sampler=lambda c: narrow)


def density(model: Any, seed: int) -> Any:
    return model.fit_prior("auto", random_state=seed)


def noisy_sheet(g: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    return sheet(g, n, noise=0.5)


SHAPE = "folds tears neighborhoods density components interpolation interpolated-items "
USED = "reconstruction denoising latent-dimension active-dimensions push-to-zero probe "
SAMPLED = "prior-holes sample-holes coverage copying "

vae = ct.VAE(latent_dim=2, **SMALL)
ae = ct.AE(latent_dim=2, **SMALL)
line = ct.AE(latent_dim=1, **SMALL)

CASES: dict[str, Case] = {
    # Not idempotent, and rightly so: the mean of a posterior is nearer to the prior's than the item's code.
    "linear VAE": (
        case(factors, ct.VAE(latent_dim=5, **LONG)),
        wants(
            USED
            + SAMPLED
            + "reconstruction-tail missed validity-radius distortion neighborhoods density components "
            "interpolation interpolated-items prior-match prior-shape information bound density-gain sigma "
            "amortization",
            "sigma-informative",
            whole=True,
        ),
    ),
    "VAE of a sheet": (
        case(sheet, vae),
        wants(USED + SHAPE + SAMPLED + "missed information amortization", whole=True),
    ),
    "AE of a sheet, density fitted": (
        case(sheet, ae, change=density),
        wants(USED + SHAPE + SAMPLED + "missed density-gain", whole=True),
    ),
    # Its codes need not hold the label that it is told, so that no probe can judge them. Trained as shortly
    # as the VAE, it is off in sigma by two in one of five seeds, and its report says so.
    "conditional VAE": (
        case(shifted, ct.CVAE(latent_dim=2, **{**SMALL, "max_epochs": 60}), n=2000),
        wants(
            SHAPE + "missed active-dimensions push-to-zero information prior-holes sample-holes amortization",
            "",
            "probe",
            whole=True,
        ),
    ),
    # Means of codes still point where labels differ, though ever so little: a probe reads them.
    "beta = 50": (
        case(
            factors,
            ct.Autoencoder(recipe="beta-vae", recipe_params={"beta": 50.0}, latent_dim=5, **LINEAR),
        ),
        wants("", "reconstruction missed active-dimensions information coverage"),
    ),
    # Variances of codes are a quarter of the true posterior's.
    "beta = .25, noise given": (
        case(
            factors,
            ct.Autoencoder(
                recipe="beta-vae", recipe_params={"beta": 0.25}, latent_dim=5, **{**LONG, "noise": 0.5}
            ),
        ),
        wants("", "sigma"),
    ),
    "VAE of 50 items, overfitted": (
        case(factors, ct.VAE(latent_dim=5, **{**SMALL, "hidden": (128, 128), "max_epochs": 400}), n=50),
        wants("", "sigma amortization"),
    ),
    "AE of a circle, N(0, I)": (
        case(circle, ae, change=standard),
        wants(
            "folds tears", "coverage density-gain interpolation interpolated-items prior-holes sample-holes"
        ),
    ),
    "VAE of two clusters": (
        case(clusters, ct.VAE(latent_dim=2, **LINEAR)),
        wants("folds components missed", "density-gain prior-shape sample-holes"),
    ),
    "AE of 16 dimensions, copies": (
        case(factors, ct.AE(latent_dim=16, **LINEAR), change=copies),
        wants("", "copying density-gain"),
    ),
    "AE of a cube, d = 1": (case(cube, line), wants("", "latent-dimension missed tears")),
    "AE of digits, d = 2": (case(digits, ae, n=797), wants("", "missed")),
    "AE of a circle, d = 1": (case(circle, line), wants("", "reconstruction-tail tears")),
    "AE of 200 items, high noise": (
        case(noisy_sheet, ct.AE(latent_dim=2, **{**SMALL, "max_epochs": 200}), n=200),
        wants("", "denoising"),
    ),
    "VAE of a sheet, 60 items": (
        case(sheet, vae, held=60),
        wants(
            "", "", SHAPE + SAMPLED + "data-dimension decoder-tangent encoder-leakage missed probe retention"
        ),
    ),
}

if __name__ == "__main__":
    main(
        __file__,
        __doc__,
        "All checks on trained models of known health",
        "Models of chartae, trained for seconds on 1,000 items where nothing else is said (the conditional "
        "VAE: 2,000), and audited on 1,000 others.",
    )
