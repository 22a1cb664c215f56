"""What is fitted and measured of one cell of a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Cell"]

CELLS, MEASURES = "cells", "cell.json"


@dataclass(frozen=True)
class Cell:
    """One fit of a sweep, and what it is worth on rows that it was not trained on.

    Parameters
    ----------
    latent_dim : int
        d.
    beta : float or None
        Weight of the KL term; None in a recipe that has none.
    noise : str or float
        Of the likelihood.
    run : Path
        Its run folder, as :func:`chartae.load` opens it.
    rate : float or None
        KL(q(z | x) || p(z)), nats a row; None where codes have no density.
    distortion : float
        -E_q log p(x | z), nats a row, in the input's units.
    rmse : float or None
        Of reconstructions from posterior means, in the input's units; None in a table of mixed kinds.
    elbo, bound : float or None
        -(rate + distortion), and the bound of 64 importance samples, nats a row; None as for ``rate``.
    active : int or None
        Latent dimensions that are used: eigenvalues of the posterior means' covariance above 0.01, in units
        of the prior's variance.
    epochs, parameters : int
        Of the training, and numbers that were trained.
    seconds : float
        Of the training.
    cut : bool
        Whether it was still improving in the last tenth of its epochs when they were over.
    failed : str
        Why there is no model; empty where there is one.
    nats : ndarray
        ``(m,)`` what cells are compared by: each row's bound, or minus its distortion where there is none.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.estimators.sweeps import Cell
    >>> Cell(4, 0.5, "global", Path("runs/a")).name
    'latent_dim 4, beta 0.5'
    """

    latent_dim: int
    beta: float | None
    noise: str | float
    run: Path
    rate: float | None = None
    distortion: float = math.nan
    rmse: float | None = None
    elbo: float | None = None
    bound: float | None = None
    active: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    parameters: int = 0
    cut: bool = False
    failed: str = ""
    nats: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    @property
    def name(self) -> str:
        """What tells it from the others."""
        beta = "" if self.beta is None else f", beta {self.beta:g}"
        return (
            f"latent_dim {self.latent_dim}{beta}{'' if self.noise == 'global' else f', noise {self.noise}'}"
        )

    @property
    def folder(self) -> str:
        """Name of its folder."""
        beta = "" if self.beta is None else f"_beta{digits(self.beta)}"
        noise = self.noise if isinstance(self.noise, str) else digits(self.noise)
        return f"d{self.latent_dim}{beta}_noise-{noise}"

    def describe(self) -> str:
        """Say in a line what was measured.

        Returns
        -------
        str
            One line.
        """
        if self.failed:
            return f"{self.name}: failed ({self.failed})"
        rate = "" if self.rate is None else f"rate {self.rate:.2f} · "
        bound = "" if self.bound is None else f" · bound {self.bound:.2f}"
        return f"{self.name}: {rate}distortion {self.distortion:.2f}{bound} · {self.seconds:.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, without the rows.

        Returns
        -------
        dict
            Of its parameters.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "nats"}
        return values | {"run": f"{CELLS}/{self.folder}"}


def digits(value: float) -> str:
    return np.format_float_positional(value, trim="-")
