"""Distributions of values of an item: what decoders speak of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Draw
from chartae.core.noise import Noise
from chartae.parts.distributions.base import CAN, LOG_2PI, _choose, _Independent, _sum_event

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Laplace",
    "NegativeBinomial",
    "NormalMixture",
    "Poisson",
    "StudentT",
]


def _inside(u: Tensor) -> Tensor:
    """Keep uniform draws off 0 and 1, where inverses of distribution functions are infinite."""
    return u.clamp(2**-25, 1 - 2**-24)


def _stirling(x: Tensor) -> Tensor:
    """log Γ(x) less (x - 1/2) log x - x + log(2π) / 2, without cancellation where x is large."""
    y = x.clamp_min(8.0)  # each branch sees what it can take, so that neither gives a NaN gradient
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / y**2) / y**2) / y**2) / y
    y = x.clamp_max(8.0)
    return torch.where(x > 8.0, series, torch.lgamma(y) - ((y - 0.5) * y.log() - y + 0.5 * LOG_2PI))


def _log_mass(logits: Tensor, v: Tensor, dims: int) -> Tensor:
    """Log mass of binary values, summed over trailing dimensions; both of one shape."""
    # From logits: finite where a sigmoid would saturate.
    less = -logits
    rows = less.sigmoid().clamp_min_(torch.finfo(less.dtype).tiny).log_()
    return _sum_event(rows.clamp_(max=less).addcmul_(v, logits), dims, False)


class _LogMass(torch.autograd.Function):
    """The same with its derivatives, in fewer passes over memory than autograd takes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, v: Tensor, dims: int) -> Tensor:
        ctx.save_for_backward(logits, v)
        ctx.dims = dims
        return _log_mass(logits, v, dims)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        logits, v = ctx.saved_tensors
        each = g.reshape(*g.shape, *(1,) * ctx.dims)
        by_logits, by_v = ctx.needs_input_grad[:2]
        slope: Tensor | None = None
        if by_logits and torch.is_grad_enabled():  # a derivative of the derivative is to be taken
            slope = (v - logits.sigmoid()) * each
        elif by_logits and logits.device.type == "cpu" and (used := g != 0).sum() < 0.5 * g.numel():
            slope = torch.zeros_like(logits)  # of bounds of several samples most count for nothing
            slope[used] = (v[used] - logits[used].sigmoid_()).mul_(each[used])
        elif by_logits:
            slope = logits.sigmoid()
            torch.sub(v, slope, out=slope).mul_(each)
        return slope, logits * each if by_v else None, None


class Bernoulli(_Independent):
    """Independent binary values from logits; a value between 0 and 1 gives the cross-entropy.

    Parameters
    ----------
    logits : Tensor
        ``(*batch, *event)``.
    event_dims : int
        How many trailing dimensions are one event.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Bernoulli
    >>> round(Bernoulli(torch.zeros(4)).log_prob(torch.ones(4)).item(), 4)
    -2.7726
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits, self.event_dims = logits, event_dims
        self.shape = logits.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw((noise.uniform((k, *self.logits.shape), self.logits) < self.point()).to(self.logits))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        logits = self.logits
        if v.shape != logits.shape:
            v, logits = torch.broadcast_tensors(v, logits)
        dims = 0 if per_dim else self.event_dims
        if torch.is_grad_enabled() and (logits.requires_grad or v.requires_grad):
            rows: Tensor = _LogMass.apply(logits, v, dims)
            return rows
        return _log_mass(logits, v, dims)

    def score(self, v: Tensor) -> Tensor:
        """Differentiate the log mass by the logits.

        Parameters
        ----------
        v : Tensor
            Values that broadcast against ``(*batch, *event)``.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """
        return v - torch.sigmoid(self.logits)

    def point(self) -> Tensor:
        return torch.sigmoid(self.logits)


class Categorical(_Independent):
    """Independent categories from logits; values are 0, 1, ..., m-1 times a step.

    Parameters
    ----------
    logits : Tensor
        ``(*batch, *event, m)``.
    event_dims : int
        How many dimensions before the last are one event.
    step : float or Tensor
        ``()``, or any shape that broadcasts against ``(*event)``: between values of neighboring categories.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Categorical
    >>> round(Categorical(torch.zeros(3, 4)).log_prob(torch.tensor([0.0, 1.0, 3.0])).item(), 4)
    -4.1589
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, logits: Tensor, event_dims: int = 1, step: float | Tensor = 1.0) -> None:
        self.logits, self.event_dims, self.step = logits, event_dims, step
        self.shape = logits.shape[:-1]

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(self.step * _choose(self.logits, k, noise).to(self.logits))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        log_mass = self.logits.log_softmax(-1)
        # NumPy's: torch's own imports an algebra system, and takes longer.
        shape = np.broadcast_shapes(v.shape, log_mass.shape[:-1])
        index = (v / self.step).round().long().expand(shape).unsqueeze(-1)
        rows = log_mass.expand(*shape, -1).gather(-1, index).squeeze(-1)
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.step * self.logits.argmax(-1).to(self.logits)

    def expected(self) -> Tensor:
        """Average the values: between two categories it moves smoothly, as the point does not.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """
        values = torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)
        return self.step * (self.logits.softmax(-1) @ values)


class Laplace(_Independent):
    """Independent Laplace (double exponential) values.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, *event)``.
    log_scale : Tensor
        Log of the mean absolute deviation, ``()`` or any shape that broadcasts against ``mean``.
    event_dims : int
        How many trailing dimensions are one event.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Laplace
    >>> round(Laplace(torch.zeros(1), torch.zeros(1)).log_prob(torch.ones(1)).item(), 4)
    -1.6931
    """

    offers = CAN

    def __init__(self, mean: Tensor, log_scale: Tensor, event_dims: int = 1) -> None:
        self.mean, self.log_scale, self.event_dims = mean, log_scale, event_dims
        self.shape = mean.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        u = _inside(noise.uniform((k, *self.shape), self.mean))
        # Each half from its own end: the smaller of u and 1 - u has the digits.
        unit = torch.where(u < 0.5, (2 * u).log(), -(2 * (1 - u)).log())
        return Draw(self.mean + self.log_scale.exp() * unit)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        rows = -(v - self.mean).abs() * (-self.log_scale).exp() - self.log_scale - math.log(2)
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.mean


class StudentT(_Independent):
    """Independent Student's t values: normals with heavier tails.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, *event)``, the center; the mean where there is one (beyond one degree of freedom).
    log_scale : Tensor
        Log scale, ``()`` or any shape that broadcasts against ``mean``.
    log_dof : Tensor
        ``()``, or any shape that broadcasts against ``mean``: log of the degrees of freedom; beyond 40 or
        below -40 as there.
    event_dims : int
        How many trailing dimensions are one event.

    References
    ----------
    Bailey 1994, "Polar generation of random variates with the t-distribution" (draws).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import StudentT
    >>> cauchy = StudentT(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    >>> round(cauchy.log_prob(torch.zeros(1)).exp().item(), 4)
    0.3183
    """

    offers = CAN

    def __init__(self, mean: Tensor, log_scale: Tensor, log_dof: Tensor, event_dims: int = 1) -> None:
        self.mean, self.log_scale, self.event_dims = mean, log_scale, event_dims
        # Beyond, it is a normal in double precision; below, its inverse leaves float32.
        self.log_dof = log_dof.clamp(-40.0, 40.0)
        self.shape = mean.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        u, v = (_inside(noise.uniform((k, *self.shape), self.mean)) for _ in range(2))
        dof = self.log_dof.exp()
        radius = (dof * torch.expm1(-2 * u.log() / dof)).sqrt()
        return Draw(self.mean + self.log_scale.exp() * radius * (2 * math.pi * v).cos())

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        x = 0.5 * self.log_dof.exp()
        # log Γ(x + 1/2) - log Γ(x) - log(x) / 2: the difference of the two would lose every digit.
        constant = x * torch.log1p(0.5 / x) - 0.5 + _stirling(x + 0.5) - _stirling(x)
        size = ((v - self.mean) * (-self.log_scale - 0.5 * self.log_dof).exp()).abs()
        # Beyond 1e8, 1 is nothing to a square, which leaves float32 soon after.
        log_tail = torch.where(
            size < 1e8, torch.log1p(size.clamp_max(1e8).square()), 2 * size.clamp_min(1e8).log()
        )
        rows = constant - (x + 0.5) * log_tail - self.log_scale - 0.5 * LOG_2PI
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.mean


class Poisson(_Independent):
    """Independent counts; values are 0, 1, 2, ... times a step.

    Parameters
    ----------
    log_rate : Tensor
        Log of the mean count, ``(*batch, *event)``.
    event_dims : int
        How many trailing dimensions are one event.
    step : float or Tensor
        ``()``, or any shape that broadcasts against ``(*event)``: between the values of neighboring counts.

    References
    ----------
    Loader 2000, "Fast and accurate computation of binomial probabilities" (digits at large counts).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Poisson
    >>> Poisson(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]), per_dim=True)
    tensor([-1., -1.])
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, log_rate: Tensor, event_dims: int = 1, step: float | Tensor = 1.0) -> None:
        self.log_rate, self.event_dims, self.step = log_rate, event_dims, step
        self.shape = log_rate.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(self.step * noise.poisson(self.log_rate.exp().expand(k, *self.shape)))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        count = (v / self.step).round()
        k = count.clamp_min(1)
        gap = self.log_rate - k.log()
        some = -k * (torch.expm1(gap) - gap) - 0.5 * (LOG_2PI + k.log()) - _stirling(k)
        rows = torch.where(count > 0, some, -self.log_rate.exp())
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.step * self.log_rate.exp()


class NegativeBinomial(_Independent):
    """Independent counts of variance mean + mean^2 / r; values are 0, 1, 2, ... times a step.

    Parameters
    ----------
    log_mean : Tensor
        Log of the mean count, ``(*batch, *event)``.
    log_dispersion : Tensor
        log r, ``()`` or any shape that broadcasts against ``log_mean``: infinity is a Poisson distribution;
        beyond 40 or below -40 as there.
    event_dims : int
        How many trailing dimensions are one event.
    step : float or Tensor
        ``()``, or any shape that broadcasts against ``(*event)``: between the values of neighboring counts.

    References
    ----------
    Loader 2000, "Fast and accurate computation of binomial probabilities" (digits at large counts).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import NegativeBinomial
    >>> geometric = NegativeBinomial(torch.zeros(3), torch.tensor(0.0))
    >>> geometric.log_prob(torch.tensor([0.0, 1.0, 2.0]), per_dim=True).exp()
    tensor([0.5000, 0.2500, 0.1250])
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(
        self, log_mean: Tensor, log_dispersion: Tensor, event_dims: int = 1, step: float | Tensor = 1.0
    ) -> None:
        self.log_mean, self.event_dims, self.step = log_mean, event_dims, step
        # Beyond, it is a Poisson in double precision; below, its inverse leaves float32.
        self.log_dispersion = log_dispersion.clamp(-40.0, 40.0)
        self.shape = log_mean.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        share = noise.gamma(self.log_dispersion.exp().expand(k, *self.shape))
        return Draw(self.step * noise.poisson(share * (self.log_mean - self.log_dispersion).exp()))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        log_r, r = self.log_dispersion, self.log_dispersion.exp()
        count = (v / self.step).round()
        k = count.clamp_min(1)
        gap = self.log_mean - k.log()
        # log((r + mean) / (r + k)): the first has the digits where mean and k are near, the second a range.
        small = gap.clamp(-1.0, 1.0)
        near = torch.log1p(k / (r + k) * torch.expm1(small))
        far = torch.logaddexp(F.logsigmoid(log_r - k.log()), F.logsigmoid(k.log() - log_r) + gap)
        change = torch.where(gap.abs() < 1, near, far)
        # The same three times: where the count, or count and mean, are beyond r, terms of the last cancel.
        apart = k * (F.softplus(log_r - k.log()) - F.softplus(log_r - self.log_mean)) - r * change
        close = -k * torch.log1p(r / (r + k) * torch.expm1(-small)) - r * change
        beyond, within = log_r < torch.minimum(k.log(), self.log_mean), k * gap - (r + k) * change
        some = torch.where(
            gap.abs() < 1, torch.where(r < k, close, within), torch.where(beyond, apart, within)
        )
        some = some - 0.5 * (LOG_2PI + k.log() + torch.log1p(k / r))
        some = some + _stirling(r + k) - _stirling(r) - _stirling(k)
        rows = torch.where(count > 0, some, -r * F.softplus(self.log_mean - log_r))
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.step * self.log_mean.exp()


class ContinuousBernoulli(_Independent):
    """Independent values on [0, 1] of density proportional to exp(η x), where η is the logit.

    Parameters
    ----------
    logits : Tensor
        η, ``(*batch, *event)``; 0 is uniform.
    event_dims : int
        How many trailing dimensions are one event.

    References
    ----------
    Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845, with λ = sigmoid(η).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import ContinuousBernoulli
    >>> p = ContinuousBernoulli(torch.tensor([0.0, 100.0]))
    >>> p.log_prob(torch.tensor([0.3, 1.0]), per_dim=True), p.point()
    (tensor([0.0000, 4.6052]), tensor([0.5000, 0.9900]))
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits, self.event_dims = logits, event_dims
        self.shape = logits.shape

    def draw(self, k: int, noise: Noise) -> Draw:
        u = noise.uniform((k, *self.shape), self.logits)
        size = self.logits.abs().clamp_min(1e-6)  # below, it is uniform to the last digit of float32
        near_zero = -torch.log1p(u * torch.expm1(-size)) / size
        return Draw(torch.where(self.logits < 0, near_zero, 1 - near_zero))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        eta, size = self.logits, self._size()
        square = eta.clamp(-0.5, 0.5).square()
        # log(sinh(η / 2) / (η / 2)), and its series around 0.
        series = square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square / 9676800)))
        near = eta * (v - 0.5) - series
        # η v - max(η, 0) before the rest: at v = 1 the two are equal, whatever their size.
        far = eta * v - eta.clamp_min(0) + size.log() - torch.log(-torch.expm1(-size))
        return _sum_event(torch.where(eta.abs() < 0.5, near, far), self.event_dims, per_dim)

    def point(self) -> Tensor:
        eta, size = self.logits, self._size()
        square = eta.clamp(-0.5, 0.5).square()
        series = eta.clamp(-0.5, 0.5) * (
            1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600))
        )
        gap = 1 / size + 1 / torch.expm1(size.clamp_max(80.0)) * -1  # from the nearer end
        far = torch.where(eta < 0, gap, 1 - gap)
        return torch.where(eta.abs() < 0.5, 0.5 + series, far)

    def _size(self) -> Tensor:
        """|η|, kept from 0 where another branch is taken."""
        return self.logits.abs().clamp_min(0.5)


class NormalMixture(_Independent):
    """Independent values, each from a mixture of m normals of its own.

    Parameters
    ----------
    logits, mean, log_scale : Tensor
        Of the components: ``(*batch, *event, m)``, or broadcasting to it.
    event_dims : int
        How many dimensions before the last are one event.

    References
    ----------
    Bishop 1994, "Mixture density networks".

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import NormalMixture
    >>> p = NormalMixture(torch.zeros(1, 2), torch.tensor([[-1.0, 3.0]]), torch.zeros(1, 2))
    >>> p.event_shape, p.point()
    (torch.Size([1]), tensor([1.]))
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, logits: Tensor, mean: Tensor, log_scale: Tensor, event_dims: int = 1) -> None:
        self.logits, self.mean, self.log_scale = torch.broadcast_tensors(logits, mean, log_scale)
        self.event_dims, self.shape = event_dims, self.mean.shape[:-1]

    def draw(self, k: int, noise: Noise) -> Draw:
        index = _choose(self.logits, k, noise).unsqueeze(-1)
        mean, log_scale = (
            t.expand(*index.shape[:-1], -1).gather(-1, index).squeeze(-1) for t in (self.mean, self.log_scale)
        )
        return Draw(mean + log_scale.exp() * noise.normal((k, *self.shape), mean))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        squares = ((v.unsqueeze(-1) - self.mean) * (-self.log_scale).exp()).square()
        each = self.logits.log_softmax(-1) - 0.5 * (squares + LOG_2PI) - self.log_scale
        return _sum_event(each.logsumexp(-1), self.event_dims, per_dim)

    def point(self) -> Tensor:
        return (self.logits.softmax(-1) * self.mean).sum(-1)
