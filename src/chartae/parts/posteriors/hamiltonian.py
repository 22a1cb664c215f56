"""Posteriors whose draws move along the model's own log density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from chartae.core.contracts import Distribution, Draw
from chartae.core.errors import PlanError
from chartae.core.noise import Noise, SharedNoise
from chartae.core.registry import suggest
from chartae.parts.distributions import DiagonalNormal, StandardNormal
from chartae.parts.distributions.base import CAN
from chartae.parts.networks import derivable
from chartae.parts.posteriors.base import posteriors
from chartae.parts.posteriors.normal import NormalPosterior

__all__ = ["Hamiltonian", "HamiltonianPosterior"]

LARGEST = 0.5  # of a step: beyond, leaps through a posterior about as wide as the prior go astray
DRAWS = 64  # by which a spread is estimated: each leaps, and takes the slopes of a decoder
COLD = 0.3  # the first inverse temperature, before training

#: From √β_0, the root of the first inverse temperature, and the share of steps done, to √β.
TEMPERINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda root, share: torch.ones_like(root) + 0 * share,
    "fixed": lambda root, share: root ** (1 - share),
    "quadratic": lambda root, share: 1 / ((1 - 1 / root) * share.square() + 1 / root),
}

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Place:
    """Where a draw is, ``(k, n, d)``, and the slope of the log density there."""

    z: Tensor
    slope: Tensor


class Hamiltonian(Distribution):
    """Draws of a normal that leap along a log density, with a momentum that cools down.

    A draw comes with its density on positions and momenta together, over the standard normal density of the
    momentum that it ends with: against it, log p(x, z) is a weight whose mean is p(x).

    Parameters
    ----------
    start : DiagonalNormal
        Where draws start, batch shape ``(n,)``.
    log_density : callable
        From ``(k, n, d)`` to ``(k, n)``, in nats; up to a constant.
    step : Tensor
        ``(d,)``, how far they leap in each dimension.
    roots : Tensor
        ``(steps + 1,)``, square roots of inverse temperatures, of which the last is 1.
    second_order : bool
        Whether gradients also pass through the slopes that leaps follow; without, slopes count as given.

    References
    ----------
    Caterini, Doucet and Sejdinovic 2018, arXiv:1805.11328, section 3.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import DiagonalNormal, StandardNormal
    >>> from chartae.parts.posteriors import Hamiltonian
    >>> start = DiagonalNormal(torch.ones(5, 2), torch.zeros(5, 2))
    >>> q = Hamiltonian(start, StandardNormal(2).log_prob, torch.full((2,), 0.1), torch.ones(4))
    >>> q.draw(3, Noise(0)).log_prob.shape, bool((q.point() < 1).all())
    (torch.Size([3, 5]), True)
    """

    offers = CAN - {"log_prob"}

    def __init__(
        self,
        start: DiagonalNormal,
        log_density: Map,
        step: Tensor,
        roots: Tensor,
        second_order: bool = True,
    ) -> None:
        self.start, self.log_density, self.step, self.roots = start, log_density, step, roots
        self.second_order = second_order

    @property
    def batch_shape(self) -> torch.Size:
        return self.start.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return self.start.event_shape

    def draw(self, k: int, noise: Noise) -> Draw:
        z = self.start.draw(k, noise).z
        gamma = self._momentum(z, noise.normal(z.shape, z))
        log_start = self.start.log_prob(z) + self._log_momentum(z, gamma)
        z, momentum = self.leap(z, gamma / self.roots[0])
        # Heating at the start and cooling on the way change volumes by factors whose product is one.
        return Draw(z, log_start - self._log_momentum(z, momentum))

    def leap(self, z: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Move positions and momenta by all steps; volumes shrink by ``roots[0]`` in each dimension.

        Parameters
        ----------
        z, momentum : Tensor
            ``(k, n, d)``.

        Returns
        -------
        z, momentum : Tensor
            ``(k, n, d)``.
        """
        with derivable(z, momentum) as (z, momentum):
            here = self._at(z)
            for before, after in pairwise(self.roots):
                momentum = self._depart(here, momentum)
                z = self._drift(here, momentum)
                here = self._at(z)
                momentum = self._arrive(here, momentum) * (before / after)
            return z, momentum

    # What follows from how the momentum is distributed, which is N(0, I) here, wherever z lies.

    def _momentum(self, z: Tensor, gauss: Tensor) -> Tensor:
        return gauss

    def _log_momentum(self, z: Tensor, momentum: Tensor) -> Tensor:
        return StandardNormal(z.shape[-1]).log_prob(momentum)

    def _at(self, z: Tensor) -> Place:
        return Place(z, self._slope(z))

    def _depart(self, here: Place, momentum: Tensor) -> Tensor:
        return momentum + 0.5 * self.step * here.slope

    def _drift(self, here: Place, momentum: Tensor) -> Tensor:
        return here.z + self.step * momentum

    _arrive = _depart

    def _slope(self, z: Tensor) -> Tensor:
        learning = self.second_order and torch.is_grad_enabled()
        slope: Tensor
        if _transforming():
            with torch.set_grad_enabled(learning):
                slope = torch.func.grad(lambda v: self.log_density(v).sum())(z)
        else:  # faster, and torch.func imports the compiler, which takes seconds
            at = z if learning and z.requires_grad else z.detach().requires_grad_()
            # Attention's faster ways have no second derivative.
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                (slope,) = torch.autograd.grad(self.log_density(at).sum(), at, create_graph=learning)
        return slope

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Known for draws alone, which bring it.

        Parameters
        ----------
        v : Tensor
            Any ``(..., d)``.
        per_dim : bool
            No effect.

        Returns
        -------
        Tensor
            Of shape ``(...)``, were it known.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            "where draws have leapt to, only they bring their density: see Draw.log_prob"
        )

    def point(self) -> Tensor:
        """Return where the mean of the start leaps to without a momentum.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        mean = self.start.point().unsqueeze(0)
        return self.leap(mean, torch.zeros_like(mean))[0][0]

    def center(self) -> Tensor:
        """Return the mean of the draws that :meth:`std` is of.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self.moments()[0]

    def std(self) -> Tensor:
        """Return the standard deviation of each dimension, of draws.

        They are always the same draws of low discrepancy, so that the same distribution has the same spread.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self.moments()[1]

    def moments(self) -> tuple[Tensor, Tensor]:
        z = self.draw(DRAWS, SharedNoise(0)).z
        return z.mean(0), z.std(0)


@posteriors.register("hamiltonian")
class HamiltonianPosterior(NormalPosterior):
    """A diagonal normal whose draws leap along log p(x, z), by step sizes that are learned.

    Without tempering leaps keep the energy, and with it the bound: momenta that cool down tighten it.
    Where the item is not at hand in the model's units, as in charts of tables, draws stay where they start.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d)``.
    latent_dim : int
        d.
    leapfrogs : int
        How many steps; 0 leaves the normal as it is.
    step : float
        Their size before training, in code units: above 0 and below 0.5. Leaps much longer than the posterior
        is wide go astray: the default is for data with little noise, and images gain by 0.2 to 0.4.
    tempering : {"fixed", "quadratic", "none"}
        How momenta, which start out too large, cool down: by one factor a step, by less and less, or not.
    second_order : bool
        Whether gradients also pass through the slopes that leaps follow, as the bound asks. Without, training
        takes about half of the time. At the default step its result was the same on MNIST; with longer leaps
        it was worse by far, or diverged.

    Raises
    ------
    PlanError
        If a number makes no sense, or the tempering is unknown.

    References
    ----------
    Caterini, Doucet and Sejdinovic 2018, arXiv:1805.11328, section 3, and 3.2 for tempering.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import HamiltonianPosterior
    >>> q = HamiltonianPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=3, leapfrogs=2)(torch.zeros(5, 4))
    >>> p = q.within(None, lambda z: -z.square().sum(-1))
    >>> type(p).__name__, p.point().shape
    ('Hamiltonian', torch.Size([5, 3]))
    """

    offers = CAN - {"log_prob"}

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        leapfrogs: int = 3,
        step: float = 0.05,
        tempering: str = "fixed",
        second_order: bool = True,
    ) -> None:
        super().__init__(network, latent_dim)
        if leapfrogs < 0:
            raise PlanError(f"leapfrogs={leapfrogs}: use 0 or more")
        if not 0 < step < LARGEST:
            raise PlanError(f"step={step}: use a number above 0 and below {LARGEST}")
        if tempering not in TEMPERINGS:
            raise PlanError(f"unknown tempering {tempering!r}: {suggest(tempering, TEMPERINGS)}")
        self.leapfrogs, self.tempering, self.second_order = leapfrogs, tempering, second_order
        self.differentiates_networks = second_order and leapfrogs > 0
        if leapfrogs:  # as logits of shares of their largest value
            self.step = nn.Parameter(torch.full((latent_dim,), _logit(step / LARGEST)))
        if leapfrogs and tempering != "none":
            self.cold = nn.Parameter(torch.tensor(_logit(COLD)))

    @staticmethod
    def features(latent_dim: int, **dynamics: Any) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim, **dynamics
            As in the constructor.

        Returns
        -------
        int
            2 d.
        """
        return 2 * latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        start = super().forward(x, c)
        assert isinstance(start, DiagonalNormal)
        if not self.leapfrogs:
            return start
        share = torch.linspace(0, 1, self.leapfrogs + 1, dtype=self.step.dtype, device=self.step.device)
        root = self.step.new_ones(()) if self.tempering == "none" else self.cold.sigmoid().sqrt()
        roots = TEMPERINGS[self.tempering](root, share)
        return _Start(start, partial(self.leaping, step=LARGEST * self.step.sigmoid(), roots=roots))

    def leaping(self, start: DiagonalNormal, log_density: Map, step: Tensor, roots: Tensor) -> Hamiltonian:
        """Let draws leap.

        Parameters
        ----------
        start : DiagonalNormal
            Batch shape ``(n,)``.
        log_density : callable
            From ``(k, n, d)`` to ``(k, n)``, in nats.
        step : Tensor
            ``(d,)``.
        roots : Tensor
            ``(steps + 1,)``.

        Returns
        -------
        Hamiltonian
            That starts there.
        """
        return Hamiltonian(start, log_density, step, roots, self.second_order)


class _Start(DiagonalNormal):
    """Where draws start; within a model they leap from there."""

    def __init__(self, start: DiagonalNormal, leaping: Callable[[DiagonalNormal, Map], Distribution]) -> None:
        super().__init__(start.mean, start.log_var)
        self.leaping = leaping

    def within(self, p: Distribution | None, log_lik: Map | None) -> Distribution:
        if log_lik is None:
            return self
        given: Map = log_lik
        density = given if p is None else lambda z: p.log_prob(z) + given(z)
        return self.leaping(DiagonalNormal(self.mean, self.log_var), density)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _transforming() -> bool:
    """Whether a transform of ``torch.func`` is under way, within which autograd's own functions fail."""
    try:
        torch.zeros(()).requires_grad_()
    except RuntimeError:  # which says so
        return True
    return False
