"""The Poincaré ball, and normals on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise, SharedNoise
from chartae.parts.distributions.base import CAN, LOG_2PI, SPREAD
from chartae.parts.distributions.spheres import _shares

__all__ = ["WrappedNormal", "clipped", "exp_origin", "mobius_add"]

EDGE = 1e-5  # share of the radius below the edge that float32 codes keep clear of


def clipped(z: Tensor, curvature: float) -> Tensor:
    """Bring points to where the ball's distances have digits: within 0.99999 of its radius.

    Parameters
    ----------
    z : Tensor
        ``(..., d)``.
    curvature : float
        c > 0: the ball has radius 1/√c and curvature -c.

    Returns
    -------
    Tensor
        ``(..., d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions.balls import clipped
    >>> clipped(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    """
    most = (1 - EDGE) / math.sqrt(curvature)
    return z * (most / z.norm(dim=-1, keepdim=True).clamp_min(most))


def mobius_add(x: Tensor, y: Tensor, curvature: float) -> Tensor:
    """Add as gyrovectors: the point y as it lies around the origin, carried to lie so around x.

    Parameters
    ----------
    x, y : Tensor
        ``(..., d)``, points in the ball.
    curvature : float
        c > 0: the ball has radius 1/√c and curvature -c.

    Returns
    -------
    Tensor
        ``(..., d)``.

    References
    ----------
    Ganea, Bécigneul and Hofmann 2018, arXiv:1805.09112, equation 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions.balls import mobius_add
    >>> mobius_add(torch.tensor([0.5]), torch.tensor([0.5]), 1.0)
    tensor([0.8000])
    """
    c = curvature
    xy, xx, yy = ((a * b).sum(-1, keepdim=True) for a, b in ((x, y), (x, x), (y, y)))
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return above / (1 + 2 * c * xy + c**2 * xx * yy)


def exp_origin(v: Tensor, curvature: float) -> Tensor:
    """Go from the origin in the direction of v, as far as v is long.

    Parameters
    ----------
    v : Tensor
        ``(..., d)``, in units of distance: half of it is the velocity in the ball's coordinates.
    curvature : float
        c > 0: the ball has radius 1/√c and curvature -c.

    Returns
    -------
    Tensor
        ``(..., d)``, points in the ball.

    References
    ----------
    Ganea, Bécigneul and Hofmann 2018, arXiv:1805.09112, lemma 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions.balls import exp_origin
    >>> exp_origin(torch.tensor([[2.0], [0.0]]), 1.0)
    tensor([[0.7616],
            [0.0000]])
    """
    return 0.5 * v * _over(torch.tanh, -1 / 3, 2 / 15, 0.25 * curvature * v.square().sum(-1, keepdim=True))


def _over(f: Callable[[Tensor], Tensor], a: float, b: float, square: Tensor) -> Tensor:
    """f(x) / x = 1 + a x² + b x⁴ + ... given x²: smooth at zero, where a root is not."""
    x = square.clamp_min(1e-6).sqrt()
    return torch.where(square < 1e-5, 1 + square * (a + b * square), f(x) / x)


class WrappedNormal(Distribution):
    """A normal in the tangent space of the Poincaré ball, wrapped around it.

    A draw of N(0, diag σ²) is a tangent vector at the origin; it is carried in parallel to the mean, and
    from there the draw lies in its direction, as far away as it is long.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, d)``, in the ball.
    log_var : Tensor
        Log σ², ``(*batch, d)``; σ is in units of distance.
    curvature : float
        c > 0: the ball has radius 1/√c and curvature -c.

    Notes
    -----
    Carrying to the mean and going on from there is one Möbius addition, mean ⊕ exp(v) with exp at the origin.
    The density is that of codes as d numbers, with respect to their volume: the density on the manifold times
    the volume λ^d that its metric gives to a unit of theirs. It is zero outside of the ball, and all of it
    is computed in float64: near the edge, where lengths are large, coordinates lie close together. As c goes
    to 0 the distribution becomes N(mean, σ²/4), of codes whose distance is twice the Euclidean one.

    References
    ----------
    Mathieu et al. 2019, arXiv:1901.06033, equation 6 and appendix B; Nagano et al. 2019, arXiv:1902.02992.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import WrappedNormal
    >>> q = WrappedNormal(torch.tensor([0.9, 0.0]), torch.zeros(2), curvature=1.0)
    >>> bool((q.draw(100, Noise(0)).z.norm(dim=1) < 1).all())
    True
    """

    offers = CAN

    def __init__(self, mean: Tensor, log_var: Tensor, curvature: float = 1.0) -> None:
        self.mean, self.log_var, self.curvature = mean, log_var, curvature

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        z = self._wrapped(noise.normal((k, *self.mean.shape), self.mean))
        # Of the draw before it is rounded: where σ is small near the edge, float32 steps over it.
        return Draw(z.to(self.mean.dtype), self.log_prob(z))

    def _wrapped(self, noise: Tensor) -> Tensor:
        """Where draws of N(0, I), ``(k, *batch, d)``, come to lie in the ball, in float64."""
        v = (0.5 * self.log_var).exp().double() * noise.double()
        z = mobius_add(self.mean.double(), exp_origin(v, self.curvature), self.curvature)
        return clipped(z, self.curvature)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density of codes; with ``per_dim`` in equal shares.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.
        per_dim : bool
            Spread it evenly over the coordinates, whose densities are no factors of it.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats; -inf outside of the ball.
        """
        z, mean, c, d = v.double(), self.mean.double(), self.curvature, self.mean.shape[-1]
        inside = c * z.square().sum(-1, keepdim=True) < 1
        z = torch.where(inside, z, torch.zeros_like(z))  # so that no gradient is NaN
        gap = z - mean
        squares = gap.square().sum(-1, keepdim=True)
        room_z, room_mean = (1 - c * t.square().sum(-1, keepdim=True) for t in (z, mean))
        # sinh² of half the distance, in units of the curvature: nothing cancels, near or far.
        s = c * squares / (room_z * room_mean)
        ratio = _over(torch.asinh, -1 / 6, 3 / 40, s)
        # (-mean) ⊕ z up to a factor, whose norm is that of the gap times `stretch`.
        aside = room_mean * gap - c * squares * mean
        stretch = room_mean.square() - 2 * c * room_mean * (gap * mean).sum(-1, keepdim=True)
        stretch = (stretch + c**2 * squares * mean.square().sum(-1, keepdim=True)).sqrt()
        tangent = 2 * ratio * aside / (stretch * (room_z * room_mean).sqrt())
        log_var = self.log_var.double()
        flat = -0.5 * (tangent.square() * (-log_var).exp() + log_var + LOG_2PI).sum(-1)
        bent = (d - 1) * (ratio.log() - 0.5 * torch.log1p(s)) + d * (math.log(2) - room_z.log())
        rows = (flat + bent.squeeze(-1)).masked_fill(~inside.squeeze(-1), -math.inf).to(self.mean.dtype)
        return _shares(rows, d) if per_dim else rows

    def point(self) -> Tensor:
        """Return the mean, from which draws lie in all directions alike.

        Returns
        -------
        Tensor
            ``(*batch, d)``, in the ball.
        """
        return self.mean

    def center(self) -> Tensor:
        """Return the mean of the ball's coordinates, of draws that are always the same.

        Returns
        -------
        Tensor
            ``(*batch, d)``, in the ball.
        """
        return self.moments()[0]

    def std(self) -> Tensor:
        """Return the standard deviations of the ball's coordinates, of draws that are always the same.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        noise = self._spread()
        # As wide as these draws' noise is, which is about 1: where the ball is flat nothing is estimated.
        return self._wrapped(noise).to(self.mean.dtype).std(0) / noise.std(0)

    def _spread(self) -> Tensor:
        """Draws of the noise, always the same and for all of a batch, ``(s, *ones, d)``."""
        *batch, d = self.mean.shape
        return SharedNoise(0).normal((SPREAD, 1, d), self.mean).reshape(SPREAD, *(1 for _ in batch), d)

    def moments(self) -> tuple[Tensor, Tensor]:
        noise = self._spread()
        # With its opposite: where the ball is flat nothing is estimated.
        z = self._wrapped(torch.cat([noise, -noise])).to(self.mean.dtype)
        return z.mean(0), z[:SPREAD].std(0) / noise.std(0)
