"""Matching the distribution of codes to the prior: distances between a batch of codes and p(z).

Each is a statistic of the batch, estimated without bias where that is possible, so that its expectation does
not depend on the size of the batch. A batch of one code has no distribution, and costs nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import roots_genlaguerre, roots_jacobi
from torch import Tensor

from chartae.core.arrays import constant
from chartae.core.contracts import Distribution, Objective, Term, Trace
from chartae.core.distances import squares
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.registry import suggest
from chartae.parts.distributions import StandardNormal

__all__ = ["MMD", "CramerWold", "EppsPulley", "Matching", "SlicedWasserstein"]

FAR = 24.0  # how steep the integrand of the Cramér-Wold distance is where other nodes take over


class Matching(Objective):
    """Base of distances between a batch of codes and the prior.

    Source: Tolstikhin et al. 2018, arXiv:1711.01558, equation 4 (a divergence between q(z) and p(z)).

    Examples
    --------
    >>> from chartae.parts.objectives import MMD, Matching
    >>> issubclass(MMD, Matching)
    True
    """

    needs = frozenset({"posterior.reparameterized", "prior.point"})
    name = "matching"

    @abstractmethod
    def distance(self, z: Tensor, p: Distribution, noise: Noise) -> Tensor:
        """Measure.

        Parameters
        ----------
        z : Tensor
            ``(n, d)`` codes, two or more.
        p : Distribution
            The prior, of batch shape ``()`` or ``(n,)``.
        noise : Noise
            For draws and directions.

        Returns
        -------
        Tensor
            ``()``.
        """

    def forward(self, trace: Trace) -> dict[str, Term]:
        total: Tensor | float = 0.0
        # In full precision: differences of kernels cancel.
        with torch.autocast(trace.log_lik.device.type, enabled=False):
            for level in trace.levels:
                assert level.p is not None
                z = level.z.flatten(0, 1)
                total = total + (self.distance(z, level.p, trace.noise) if len(z) > 1 else 0.0 * z.sum())
        return {self.name: Term(total, unit="a distance")}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return self.name


def draws_of(p: Distribution, n: int, noise: Noise) -> Tensor:
    """Draw codes to compare ``n`` codes with.

    Source: ancestral sampling of p(z | c).

    Parameters
    ----------
    p : Distribution
        Of batch shape ``()``, or of one that divides ``n``.
    n : int
        How many.
    noise : Noise
        Where the randomness comes from.

    Returns
    -------
    Tensor
        ``(n, d)``, without a gradient.

    Examples
    --------
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import StandardNormal
    >>> from chartae.parts.objectives.matching import draws_of
    >>> draws_of(StandardNormal(2), 5, Noise(0)).shape
    torch.Size([5, 2])
    """
    rows = p.batch_shape.numel()
    return p.draw(n // rows, noise).z.detach().reshape(n, -1)


class _Kernel(NamedTuple):
    """A kernel of squared distance over ``c``, and the normal kernels exp(-t r² / c) it is a mixture of.

    ``falls`` gives the derivative, with its sign turned, from what the kernel is.
    """

    of: Callable[[Tensor], Tensor]
    falls: Callable[[Tensor], Tensor]
    nodes: Callable[[], tuple[np.ndarray, np.ndarray]]


def _exponential() -> tuple[np.ndarray, np.ndarray]:
    """Nodes u and weights of the integral of exp(-u) f(u) over u > 0, for f that may fall faster still.

    By trapezoids of log u, which are as fine where f falls within 1e-9 as where it does not.
    """
    v = np.linspace(-30.0, 4.0, 64)
    return np.exp(v), (v[1] - v[0]) * np.exp(v - np.exp(v))


#: By the square of a distance in units of the bandwidth: both are one at zero. The inverse multiquadric is
#: a mixture of normal kernels: 1 / (1 + s) is the integral of exp(-t) exp(-t s).
KERNELS = {
    "rbf": _Kernel(lambda s: (-s).exp_(), lambda k: k, lambda: (np.ones(1), np.ones(1))),
    "imq": _Kernel(lambda s: (1 + s).reciprocal_(), torch.square, _exponential),
}


class _KernelMean(torch.autograd.Function):
    """Mean of a kernel over pairs and widths; its gradient by squared distances is found on the way."""

    @staticmethod
    def forward(
        ctx: Any, apart: Tensor, kernel: _Kernel, bandwidths: Sequence[float], weight: Tensor | None
    ) -> Tensor:
        rates = constant(bandwidths, apart).reciprocal()
        each = kernel.of(torch.outer(rates, apart.flatten()))
        if weight is None:
            share: Tensor | float = 1 / each.numel()
            out = each.mean()
        else:
            share = weight.flatten() / (weight.sum() * len(bandwidths))
            out = each.sum(0) @ share
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward((rates @ kernel.falls(each)).mul_(-share).view(apart.shape))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * g, None, None, None


class MMD(Matching):
    """Squared maximum mean discrepancy, ``E k(z, z') - 2 E k(z, y) + E k(y, y')``, without bias.

    The kernel is a mean of kernels of several widths. Under a prior of each item's own, pairs of one item are
    left out. Several draws of an item are not independent, and have a bias under a prior of all.

    Parameters
    ----------
    kernel : {"imq", "rbf"}
        Inverse multiquadric ``C / (C + r²)``, whose tails reach far codes, or normal ``exp(-r² / C)``.
    scales : sequence of float
        ``C`` in units of 2 d, the expected squared distance between two codes of N(0, I).
    closed : bool
        Take expectations over N(0, I) in closed form instead of over draws: less noise.

    Raises
    ------
    PlanError
        If the kernel is unknown, or a scale is not positive.

    References
    ----------
    Gretton et al. 2012, "A kernel two-sample test", lemma 6; Tolstikhin et al. 2018, arXiv:1711.01558,
    algorithm 2 (kernels and scales); Rustamov 2021, arXiv:1901.03227 (closed forms against the normal).

    Examples
    --------
    >>> from chartae.parts.objectives import MMD, NegLogLik
    >>> NegLogLik() + 100 * MMD()
    nll + 100 * mmd
    """

    name = "mmd"

    def __init__(
        self,
        kernel: str = "imq",
        scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        *,
        closed: bool = False,
    ) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise PlanError(f"unknown kernel {kernel!r}: {suggest(kernel, KERNELS)}")
        if not scales or not all(scale > 0 for scale in scales):
            raise PlanError(f"scales={scales!r}: give numbers above 0")
        self.kernel, self.scales, self.closed = KERNELS[kernel], tuple(scales), closed
        if closed:
            self.needs = self.needs | {"prior.standard"}

    def distance(self, z: Tensor, p: Distribution, noise: Noise) -> Tensor:
        n, d = z.shape
        bandwidths = [2 * d * scale for scale in self.scales]
        rows = p.batch_shape.numel()
        if rows > 1:
            y, row = draws_of(p, n, noise), torch.arange(n, device=z.device) % rows
            others = (row[:, None] != row).to(z.dtype)
            of_z, of_both, of_y = (
                self._mean(squares(*pair), bandwidths, others) for pair in ((z, z), (z, y), (y, y))
            )
            return of_z - 2 * of_both + of_y
        among = self._mean(_pairs(z), bandwidths)
        if self.closed:
            return among - 2 * self._with_normal(z, bandwidths) + self._of_normal(d, bandwidths)
        y = draws_of(p, n, noise)
        return among - 2 * self._mean(squares(z, y), bandwidths) + self._mean(_pairs(y), bandwidths)

    def _mean(self, apart: Tensor, bandwidths: Sequence[float], weight: Tensor | None = None) -> Tensor:
        """Of all widths and all pairs, by weights of pairs if there are any."""
        return _KernelMean.apply(apart, self.kernel, bandwidths, weight)

    def _with_normal(self, z: Tensor, bandwidths: Sequence[float]) -> Tensor:
        """E k(z, y) for y from N(0, I)."""
        t, weight = self._rates(z, bandwidths)
        factor = weight * (1 + 2 * t) ** (-0.5 * z.shape[1])
        return torch.exp(-z.square().sum(1, keepdim=True) * (t / (1 + 2 * t))).mean(0) @ factor

    def _of_normal(self, d: int, bandwidths: Sequence[float]) -> Tensor:
        """E k(y, y') for both from N(0, I)."""
        t, weight = self._rates(torch.zeros((), dtype=torch.float64), bandwidths)  # on the CPU, as numbers
        return (weight * (1 + 4 * t) ** (-0.5 * d)).sum().float()

    def _rates(self, like: Tensor, bandwidths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Rates t of the kernels exp(-t r²) that this one is a mixture of, and their weights."""
        nodes, weights = self.kernel.nodes()
        t = np.concatenate([nodes / c for c in bandwidths])
        return constant(t, like), constant(np.tile(weights / len(bandwidths), len(bandwidths)), like)


def _pairs(z: Tensor) -> Tensor:
    """Squared distances of all pairs of different codes, ``(n (n - 1) / 2,)``."""
    return torch.pdist(z).square()


def _directions(z: Tensor, slices: int, noise: Noise) -> Tensor:
    """Random unit vectors, ``(d, slices)``."""
    return torch.nn.functional.normalize(noise.normal((slices, z.shape[1]), z), dim=1).T


class SlicedWasserstein(Matching):
    """Squared Wasserstein distance of one-dimensional projections, averaged over random directions.

    In squared code units. Against N(0, I) sorted projections are compared with its quantiles, against another
    prior with sorted projections of draws. Its expectation falls with the size of the batch: a few codes
    never lie as the prior does.

    Parameters
    ----------
    slices : int
        Directions.

    Raises
    ------
    PlanError
        If ``slices`` is not positive.

    References
    ----------
    Kolouri et al. 2019, arXiv:1804.01947, equation 11.

    Examples
    --------
    >>> from chartae.parts.objectives import NegLogLik, SlicedWasserstein
    >>> NegLogLik() + 10 * SlicedWasserstein()
    nll + 10 * sliced_wasserstein
    """

    name = "sliced_wasserstein"

    def __init__(self, slices: int = 64) -> None:
        super().__init__()
        self.slices = _positive(slices)

    def distance(self, z: Tensor, p: Distribution, noise: Noise) -> Tensor:
        directions = _directions(z, self.slices, noise)
        ours = (z @ directions).sort(0).values
        if isinstance(p, StandardNormal):
            places = (torch.arange(len(z), dtype=torch.float64, device=z.device) + 0.5) / len(z)
            theirs = torch.special.ndtri(places).to(z).unsqueeze(1)
        else:
            theirs = (draws_of(p, len(z), noise) @ directions).sort(0).values
        return (ours - theirs).square().mean()


def _positive(slices: int) -> int:
    if slices < 1:
        raise PlanError(f"slices={slices}: project on one direction or more")
    return slices


class CramerWold(Matching):
    """Logarithm of the Cramér–Wold distance to N(0, I): smoothed projections in all directions, closed form.

    References
    ----------
    Knop et al. 2020, arXiv:1805.09235, equations 5 and 10 (the distance and its logarithm), theorem 3.1 (its
    function of squared distance is computed to nine digits in any dimension; the asymptotic formula that the
    paper takes from 20 on is off by up to one in a hundred, which is more than what is left of sums that
    cancel).

    Examples
    --------
    >>> from chartae.parts.objectives import CramerWold, NegLogLik
    >>> NegLogLik() + CramerWold()
    nll + cramer_wold
    """

    needs = Matching.needs | {"prior.standard"}
    name = "cramer_wold"

    def distance(self, z: Tensor, p: Distribution, noise: Noise) -> Tensor:
        return self.squared(z).clamp_min(torch.finfo(z.dtype).tiny).log()

    def squared(self, z: Tensor) -> Tensor:
        """Square of the distance itself.

        Parameters
        ----------
        z : Tensor
            ``(n, d)``.

        Returns
        -------
        Tensor
            ``()``.
        """
        n, d = z.shape
        width = (4 / (3 * n)) ** 0.4  # Silverman's rule, as a variance
        among = 2 * self._phi(_pairs(z) / (4 * width), d).sum() / n**2 + 1 / n
        with_normal = self._phi(z.square().sum(1) / (2 + 4 * width), d).mean()
        parts = among / width**0.5 - 2 * with_normal / (width + 0.5) ** 0.5 + 1 / (1 + width) ** 0.5
        return parts / (2 * math.sqrt(math.pi))

    @staticmethod
    def _phi(s: Tensor, d: int) -> Tensor:
        """E exp(-s u²), where u is a coordinate of a random unit vector: 1F1(1/2; d/2; -s).

        The density of u² is t^(-1/2) (1 - t)^c, but for a constant; where it falls as exp(-(s + c) t) does,
        or faster than the nodes are apart, Gauss-Laguerre nodes take that as their weight.
        """
        if d == 1:
            return (-s).exp()
        c = 0.5 * (d - 3)
        steep = s.clamp_min(FAR - c) + c
        nodes, weights = _laguerre()
        t = constant(nodes, s) / steep.unsqueeze(-1)
        volume = math.exp(math.lgamma(0.5 * d) - math.lgamma(c + 1))
        far = volume * steep.rsqrt() * ((c * (torch.log1p(-t) + t)).exp() @ constant(weights, s))
        if c >= FAR:
            return far
        nodes, weights = _gegenbauer(d)
        near = torch.exp(-s.clamp_max(FAR - c).unsqueeze(-1) * constant(nodes, s)) @ constant(weights, s)
        return torch.where(s > FAR - c, far, near)


@cache
def _laguerre() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a mean over t^(-1/2) exp(-t), from 0 on; the last node lies before ``FAR``."""
    x, weight = roots_genlaguerre(8, -0.5)
    return x, weight / weight.sum()


@cache
def _gegenbauer(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares and weights of a mean over a coordinate of unit vectors in d dimensions."""
    u, weight = roots_jacobi(24, 0.5 * (d - 3), 0.5 * (d - 3))
    return u**2, weight / weight.sum()


class EppsPulley(Matching):
    """Squared distance of characteristic functions on random slices, weighted by exp(-t²/2), without bias.

    ``∫ |E exp(i t <a, z>) - exp(-t²/2)|² exp(-t²/2) dt``, averaged over directions ``a``; the integral is
    taken over |t| up to ``reach`` (in inverse code units) by the trapezoid rule, so that what differs only
    at higher frequencies is not seen.

    Parameters
    ----------
    slices : int
        Directions.
    knots : int
        Of the integral, from 0 to ``reach``; the other half is its mirror image.
    reach : float
        Largest frequency.

    Raises
    ------
    PlanError
        If a number is not positive.

    References
    ----------
    Epps and Pulley 1983, doi:10.1093/biomet/70.3.723; on random slices: Balestriero and LeCun 2025,
    arXiv:2511.08544, section 4.

    Examples
    --------
    >>> from chartae.parts.objectives import EppsPulley, NegLogLik
    >>> NegLogLik() + 100 * EppsPulley()
    nll + 100 * epps_pulley
    """

    needs = Matching.needs | {"prior.standard"}
    name = "epps_pulley"

    def __init__(self, slices: int = 64, knots: int = 17, reach: float = 4.0) -> None:
        super().__init__()
        if knots < 2 or not reach > 0:
            raise PlanError(f"knots={knots} up to reach={reach}: give two or more, up to a number above 0")
        self.slices, self.knots, self.reach = _positive(slices), knots, reach

    def distance(self, z: Tensor, p: Distribution, noise: Noise) -> Tensor:
        n, t = len(z), np.linspace(0, self.reach, self.knots)
        step = np.full_like(t, 2 * self.reach / (self.knots - 1))
        step[[0, -1]] *= 0.5
        weight, normal = constant(step * np.exp(-0.5 * t**2), z), constant(np.exp(-0.5 * t**2), z)
        angles = (z @ _directions(z, self.slices, noise)).unsqueeze(-1) * constant(t, z)
        real, imaginary = angles.cos().mean(0), angles.sin().mean(0)
        # Of n codes the square of the mean has an expectation of its own, which is taken off.
        size = (n * (real.square() + imaginary.square()) - 1) / (n - 1)
        return ((size - 2 * real * normal + normal.square()) @ weight).mean()
