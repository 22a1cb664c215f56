"""Distributions on the unit sphere, with respect to its area."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.arrays import constant
from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise
from chartae.parts.distributions.base import CAN

__all__ = ["PROFILES", "Profile", "UniformSphere", "Zonal"]

PANELS, WIDTHS = (
    16,
    15.0,
)  # of a grid of angles, which reaches 15 standard deviations to each side of the mode
STEPS = 4  # of Newton, in the panel where an angle lies

#: Gauss-Legendre nodes and weights of a panel, on [0, 1].
_NODES = 0.5 * np.add(np.polynomial.legendre.leggauss(8), [[1.0], [0.0]])


def log_area(d: int) -> float:
    """Log area of the unit sphere in d dimensions, 2 π^(d/2) / Γ(d/2); two points for d = 1."""
    return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


class Profile(NamedTuple):
    """How a density falls off with the angle θ to a mean direction: as exp(κ f(sin² θ/2)), with f(0) = 0.

    Attributes
    ----------
    f : callable
        f, on [0, 1).
    mode : callable
        ``mode(κ, m)``: cosine of the likeliest angle, whose density has sin^m θ for a further factor.
    bend : callable
        ``bend(κ, c)``: minus the second derivative of κ f by θ, where cos θ = c.
    closed : callable or None
        ``closed(κ, d)``: log of the integral of exp(κ f) over the sphere, and the mean of f, in closed form.

    Examples
    --------
    >>> from chartae.parts.distributions import PROFILES
    >>> sorted(PROFILES)
    ['power', 'vmf']
    """

    f: Callable[[Tensor], Tensor]
    mode: Callable[[Tensor, int], Tensor]
    bend: Callable[[Tensor, Tensor], Tensor]
    closed: Callable[[Tensor, int], tuple[Tensor, Tensor]] | None = None


def _beta(kappa: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Sum what is power spherical, whose cos² θ/2 follows a beta distribution."""
    b = 0.5 * (d - 1)
    log_normalizer = b * math.log(4 * math.pi) + torch.lgamma(b + kappa) - torch.lgamma(2 * b + kappa)
    return log_normalizer, torch.digamma(b + kappa) - torch.digamma(2 * b + kappa)


#: exp(κ cos θ), von Mises and Fisher's, and ((1 + cos θ) / 2)^κ, the power spherical one.
PROFILES = {
    "vmf": Profile(
        f=lambda w: -2 * w,
        mode=lambda kappa, m: 2 * kappa / (m + (m**2 + 4 * kappa.square()).sqrt()),
        bend=lambda kappa, c: kappa * c,
    ),
    "power": Profile(
        f=lambda w: torch.log1p(-w.clamp_max(1 - 1e-15)),
        mode=lambda kappa, m: kappa / (kappa + m),
        bend=lambda kappa, c: kappa / (1 + c),
        closed=_beta,
    ),
}


class Zonal(Distribution):
    """A density on the sphere that depends on the angle to a mean direction alone.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, d)``, unit vectors, d ≥ 2.
    concentration : Tensor
        κ ≥ 0, of shape ``(*batch)``; 0 is uniform.
    profile : {"vmf", "power"}
        exp(κ cos θ), or (1 + cos θ)^κ.

    Notes
    -----
    Whatever the profile, all that is needed is of one dimension: the angle has a density proportional to
    exp(κ f) sin^(d-2) θ. It is summed in float64 on Gauss-Legendre nodes in panels around its mode (where
    there is no closed form), and draws invert its distribution function there, by Newton's method. Gradients
    by κ are those of the sums, for a draw by implicit differentiation. By the mean, a draw moves as the
    tangent space does on the shortest way.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891 (von Mises-Fisher); De Cao and Aziz 2020, arXiv:2006.04437 (power
    spherical); Figurnov, Mohamed and Mnih 2018, arXiv:1805.08498 (implicit reparameterization).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import Zonal
    >>> q = Zonal(torch.tensor([1.0, 0.0, 0.0]), torch.tensor(50.0))
    >>> bool((q.draw(100, Noise(0)).z[:, 0] > 0.7).all())
    True
    """

    offers = CAN
    codimension = 1

    def __init__(self, mean: Tensor, concentration: Tensor, profile: str = "vmf") -> None:
        self.mean, self.concentration, self.profile = mean, concentration, PROFILES[profile]
        self.d, self._kappa = mean.shape[-1], concentration.double()

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        u = noise.uniform((k, *self.batch_shape), self.mean).double().clamp(2**-25, 1 - 2**-25)
        angle = self._angle(u.expand(k, *self.batch_shape)).unsqueeze(-1)
        mean = self.mean.double()
        with torch.no_grad():
            away = noise.normal((k, *self.mean.shape), self.mean).double()
            away = F.normalize(away - (away * mean).sum(-1, keepdim=True) * mean, dim=-1)
        # Orthogonal already: what is subtracted is zero, and how it stays zero where the mean turns.
        away = away - (away * mean).sum(-1, keepdim=True) * mean
        return Draw((angle.cos() * mean + angle.sin() * away).to(self.mean.dtype))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density with respect to area; with ``per_dim`` in equal shares.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``, unit vectors.
        per_dim : bool
            Spread it evenly over the coordinates, of which none has a density of its own.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats.
        """
        # Half a chord's square: a cosine near 1 has lost the digits that a large κ asks for.
        w = 0.25 * (v.double() - self.mean.double()).square().sum(-1)
        rows = (self._kappa * self.profile.f(w) - self._sums()[0]).to(self.mean.dtype)
        return _shares(rows, self.d) if per_dim else rows

    def point(self) -> Tensor:
        """Return the mean direction.

        Returns
        -------
        Tensor
            ``(*batch, d)``, unit vectors.
        """
        return self.mean

    def center(self) -> Tensor:
        """Return the mean of draws, inside of the sphere: the nearer to 0, the wider they are spread.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        w = self._expect(self._grid.w.flatten(-2)).unsqueeze(-1)
        return ((1 - 2 * w) * self.mean.double()).to(self.mean.dtype)

    def std(self) -> Tensor:
        """Return the standard deviation of each coordinate, about its mean inside of the sphere.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        w = self._grid.w.flatten(-2)
        first, second = (self._expect(f).unsqueeze(-1) for f in (w, w.square()))
        along, across = 4 * (second - first.square()), 4 * (first - second) / (self.d - 1)
        square = self.mean.double().square()
        return (square * along.clamp_min(0) + (1 - square) * across).sqrt().to(self.mean.dtype)

    @property
    def information(self) -> Tensor:
        """KL to the uniform distribution, of shape ``(*batch)``, in nats."""
        log_normalizer, f = self._sums()
        return (self._kappa * f - log_normalizer + log_area(self.d)).to(self.mean.dtype)

    def _sums(self) -> tuple[Tensor, Tensor]:
        """Log of the integral of exp(κ f) over the sphere, and the mean of f."""
        if self.profile.closed is not None:
            return self.profile.closed(self._kappa, self.d)
        f = self._expect(self.profile.f(self._grid.w.flatten(-2)))
        return self._log_masses().flatten(-2).logsumexp(-1) + log_area(self.d - 1), f

    def _log_height(self, angle: Tensor, kappa: Tensor) -> Tensor:
        """Log density of angles, up to a constant."""
        m, height = self.d - 2, kappa * self.profile.f((0.5 * angle).sin().square())
        return height + m * angle.sin().clamp_min(1e-300).log() if m else height

    @cached_property
    @torch.no_grad()
    def _grid(self) -> _Grid:
        """Panels of angles around the mode, beyond which there is next to no mass."""
        kappa, m = self._kappa.clamp_min(1e-12), self.d - 2
        mode = self.profile.mode(kappa, m).clamp(-1, 1)
        bend = self.profile.bend(kappa, mode) + m / (1 - mode.square()).clamp_min(1e-300)
        reach, center = WIDTHS / bend.clamp_min(1e-2).sqrt(), mode.acos()
        low, high = (center - reach).clamp_min(0), (center + reach).clamp_max(math.pi)
        width = ((high - low) / PANELS).unsqueeze(-1)
        left = low.unsqueeze(-1) + width * torch.arange(PANELS, device=kappa.device)
        nodes, weights = _nodes(kappa)
        angle = left.unsqueeze(-1) + width.unsqueeze(-1) * nodes
        flat = self._log_height(angle, torch.zeros_like(angle)) + (width.unsqueeze(-1) * weights).log()
        return _Grid(left, width, (0.5 * angle).sin().square(), flat)

    def _log_masses(self) -> Tensor:
        """Log of what each node stands for, up to a constant, ``(*batch, p, g)``."""
        return self._kappa[..., None, None] * self.profile.f(self._grid.w) + self._grid.flat

    def _expect(self, values: Tensor) -> Tensor:
        """Average a function of the angle, given at all nodes."""
        return (self._log_masses().flatten(-2).softmax(-1) * values).sum(-1)

    def _angle(self, u: Tensor) -> Tensor:
        """Find the angles below which there is a share u of the mass, ``(k, *batch)``."""
        grid, kappa, log_masses = self._grid, self._kappa, self._log_masses()
        log_total = log_masses.flatten(-2).logsumexp(-1)
        panel = (log_masses.logsumexp(-1) - log_total.unsqueeze(-1)).exp()
        right = panel.cumsum(-1)
        with torch.no_grad():
            index = (u.unsqueeze(-1) > right).sum(-1, keepdim=True).clamp_max(PANELS - 1)

        def chosen(t: Tensor) -> Tensor:
            return t.expand(*u.shape, PANELS).gather(-1, index).squeeze(-1)

        left, width, before = chosen(grid.left), grid.width.squeeze(-1), chosen(right - panel)
        nodes, weights = _nodes(u)

        def shares(angle: Tensor) -> tuple[Tensor, Tensor]:
            """Mass below an angle, and the density there."""
            reach = (angle - left).unsqueeze(-1)
            inside = self._log_height(left.unsqueeze(-1) + reach * nodes, kappa.unsqueeze(-1))
            mass = (reach * weights * (inside - log_total.unsqueeze(-1)).exp()).sum(-1)
            return before + mass, (self._log_height(angle, kappa) - log_total).exp()

        with torch.no_grad():
            low, high = left, left + width
            share = ((u - before) / chosen(panel).clamp_min(1e-300)).clamp(0, 1)
            # To begin with, a density that is exponential within a panel, or a power next to a pole.
            slope = chosen(log_masses[..., -1] - log_masses[..., 0]) / (nodes[-1] - nodes[0])
            slope = torch.where(slope.abs() < 1e-3, 1e-3, slope)
            power, usual = 1 / (self.d - 1), torch.log1p(share * slope.expm1()) / slope
            usual = torch.where(high >= math.pi, 1 - (1 - share) ** power, usual)
            share = torch.where(low <= 0, share**power, usual)
            angle = left + width * share
            for _ in range(STEPS):
                mass, height = shares(angle)
                low, high = torch.where(mass < u, angle, low), torch.where(mass < u, high, angle)
                step = angle - (mass - u) / height.clamp_min(1e-300)
                angle = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        if not kappa.requires_grad:
            return angle
        mass, height = shares(angle)
        return angle - (mass - mass.detach()) / height.detach()


class _Grid(NamedTuple):
    """Left ends ``(*batch, p)`` and width ``(*batch, 1)`` of panels; of nodes sin² θ/2 and log sin^m θ dθ."""

    left: Tensor
    width: Tensor
    w: Tensor
    flat: Tensor


def _nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    nodes, weights = _NODES
    return constant(nodes, like), constant(weights, like)


def _shares(rows: Tensor, d: int) -> Tensor:
    return (rows / d).unsqueeze(-1).expand(*rows.shape, d)


class UniformSphere(Distribution):
    """All directions alike.

    Parameters
    ----------
    d : int
        Dimensions of the space around the sphere.
    device : torch.device, optional
        Where samples are made.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891, section 3.2.

    Examples
    --------
    >>> import math, torch
    >>> from chartae.parts.distributions import UniformSphere
    >>> round(UniformSphere(3).log_prob(torch.tensor([0.0, 0.0, 1.0])).exp().item() * 4 * math.pi, 4)
    1.0
    """

    offers = frozenset({"log_prob", "density", "point"})
    codimension = 1

    def __init__(self, d: int, device: torch.device | None = None) -> None:
        self.d, self.device = d, device

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((self.d,))

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(F.normalize(noise.normal((k, self.d), self.point()), dim=-1))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        rows = v.new_full(v.shape[:-1], -log_area(self.d))
        return _shares(rows, self.d) if per_dim else rows

    def point(self) -> Tensor:
        """Return the first axis, for want of a direction before others.

        Returns
        -------
        Tensor
            ``(d,)``.
        """
        return torch.eye(1, self.d, device=self.device, dtype=torch.float32)[0]

    def center(self) -> Tensor:
        """Return the mean of draws.

        Returns
        -------
        Tensor
            ``(d,)``, zeros.
        """
        return torch.zeros(self.d, device=self.device, dtype=torch.float32)

    def std(self) -> Tensor:
        """Return the standard deviation of each coordinate.

        Returns
        -------
        Tensor
            ``(d,)``.
        """
        return torch.full((self.d,), self.d**-0.5, device=self.device, dtype=torch.float32)
