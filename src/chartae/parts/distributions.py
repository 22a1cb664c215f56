"""Distributions: small, our own, and without validation in the training step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise

__all__ = [
    "Bernoulli",
    "Categorical",
    "Delta",
    "DiagonalNormal",
    "FullNormal",
    "StandardNormal",
    "kl",
    "kl_slopes",
]

LOG_2PI = math.log(2 * math.pi)
CAN = frozenset({"log_prob", "point", "reparameterized"})


def _sum_event(rows: Tensor, event_dims: int, per_dim: bool) -> Tensor:
    if per_dim or event_dims == 0:
        return rows
    return rows.sum(-1) if event_dims == 1 else rows.flatten(-event_dims).sum(-1)


class Delta(Distribution):
    """All mass on one point; it has no density.

    Parameters
    ----------
    value : Tensor
        ``(*batch, d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import Delta
    >>> Delta(torch.ones(5, 2)).draw(3, Noise(0)).z.shape
    torch.Size([3, 5, 2])
    """

    offers = frozenset({"point", "reparameterized"})

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @property
    def batch_shape(self) -> torch.Size:
        return self.value.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.value.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(self.value.expand(k, *self.value.shape))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """A point mass has no density.

        Parameters
        ----------
        v : Tensor
            Any ``(..., d)``.
        per_dim : bool
            No effect.

        Returns
        -------
        Tensor
            Of shape ``(..., d)`` or ``(...)``, were there one.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("a Delta distribution has no density")

    def point(self) -> Tensor:
        return self.value

    def std(self) -> Tensor:
        """Return the standard deviation: zero.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return torch.zeros_like(self.value)


class DiagonalNormal(Distribution):
    """Independent normals.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, *event)``.
    log_var : Tensor
        Log variance, ``()`` or any shape that broadcasts against ``mean``.
    event_dims : int
        How many trailing dimensions are one event.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal
    >>> p = DiagonalNormal(torch.zeros(2), torch.zeros(2))
    >>> round(p.log_prob(torch.zeros(2)).item(), 4)
    -1.8379
    """

    offers = CAN

    def __init__(self, mean: Tensor, log_var: Tensor, event_dims: int = 1) -> None:
        self.mean, self.log_var, self.event_dims = mean, log_var, event_dims

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[: self.mean.dim() - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[self.mean.dim() - self.event_dims :]

    def draw(self, k: int, noise: Noise) -> Draw:
        eps = noise.normal((k, *self.mean.shape), self.mean)
        return Draw(torch.addcmul(self.mean, (0.5 * self.log_var).exp(), eps))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        squares = (v - self.mean).square()
        if self.log_var.dim() == 0 and not per_dim:
            # One variance for all: two passes over the values fewer.
            total = _sum_event(squares, self.event_dims, per_dim)
            return -0.5 * (
                total * (-self.log_var).exp() + self.event_shape.numel() * (self.log_var + LOG_2PI)
            )
        rows = -0.5 * (squares * (-self.log_var).exp() + self.log_var + LOG_2PI)
        return _sum_event(rows, self.event_dims, per_dim)

    def score(self, v: Tensor) -> Tensor:
        """Differentiate the log density by the mean.

        Parameters
        ----------
        v : Tensor
            Values that broadcast against ``(*batch, *event)``.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """
        return (v - self.mean) * (-self.log_var).exp()

    def point(self) -> Tensor:
        return self.mean

    def std(self) -> Tensor:
        """Return the standard deviation of each dimension.

        Returns
        -------
        Tensor
            ``(*batch, *event)``, in the units of the mean.
        """
        return (0.5 * self.log_var).exp().expand_as(self.mean)


class StandardNormal(Distribution):
    """N(0, I) in d dimensions.

    Parameters
    ----------
    d : int
        How many dimensions.
    device : torch.device, optional
        Where samples are made.

    Examples
    --------
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import StandardNormal
    >>> StandardNormal(3).draw(4, Noise(0)).z.shape
    torch.Size([4, 3])
    """

    offers = CAN

    def __init__(self, d: int, device: torch.device | None = None) -> None:
        self.d, self.device = d, device

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((self.d,))

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(noise.normal((k, self.d), self.point()))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        return _sum_event(-0.5 * (v.square() + LOG_2PI), 1, per_dim)

    def point(self) -> Tensor:
        return torch.zeros(self.d, device=self.device, dtype=torch.float32)

    def std(self) -> Tensor:
        """Return the standard deviation: one.

        Returns
        -------
        Tensor
            ``(d,)``.
        """
        return torch.ones(self.d, device=self.device, dtype=torch.float32)


class FullNormal(Distribution):
    """A normal with any covariance.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, d)``.
    scale_tril : Tensor
        ``(*batch, d, d)``, the lower Cholesky factor of the covariance.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import FullNormal
    >>> round(FullNormal(torch.zeros(2), torch.eye(2)).log_prob(torch.zeros(2)).item(), 4)
    -1.8379
    """

    offers = CAN

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        self.mean, self.scale_tril = mean, scale_tril

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        eps = noise.normal((k, *self.mean.shape), self.mean)
        return Draw(self.mean + (self.scale_tril @ eps.unsqueeze(-1)).squeeze(-1))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density; with ``per_dim`` split into the conditionals of the Cholesky factor.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.
        per_dim : bool
            Keep log p(v_i | v_<i) apart.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats.
        """
        white = torch.linalg.solve_triangular(
            self.scale_tril, (v - self.mean).unsqueeze(-1), upper=False
        ).squeeze(-1)
        log_scale = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()
        return _sum_event(-0.5 * (white.square() + LOG_2PI) - log_scale, 1, per_dim)

    def point(self) -> Tensor:
        return self.mean

    def std(self) -> Tensor:
        """Return the marginal standard deviations.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self.scale_tril.square().sum(-1).sqrt()


class Bernoulli(Distribution):
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

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[: self.logits.dim() - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.logits.shape[self.logits.dim() - self.event_dims :]

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw((noise.uniform((k, *self.logits.shape), self.logits) < self.point()).to(self.logits))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        logits = self.logits
        if v.shape != logits.shape:
            v, logits = torch.broadcast_tensors(v, logits)
        # From logits: finite where a sigmoid would saturate, and seven times faster than through one.
        rows = F.binary_cross_entropy_with_logits(logits, v, reduction="none")
        return -_sum_event(rows, self.event_dims, per_dim)

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


class Categorical(Distribution):
    """Independent categories from logits; values are 0, 1, ..., m-1 times a step.

    Parameters
    ----------
    logits : Tensor
        ``(*batch, *event, m)``.
    event_dims : int
        How many dimensions before the last are one event.
    step : float
        Between the values of neighboring categories.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Categorical
    >>> round(Categorical(torch.zeros(3, 4)).log_prob(torch.tensor([0.0, 1.0, 3.0])).item(), 4)
    -4.1589
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, logits: Tensor, event_dims: int = 1, step: float = 1.0) -> None:
        self.logits, self.event_dims, self.step = logits, event_dims, step

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[: self.logits.dim() - 1 - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.logits.shape[self.logits.dim() - 1 - self.event_dims : -1]

    def draw(self, k: int, noise: Noise) -> Draw:
        cumulative = self.logits.softmax(-1).cumsum(-1)
        u = noise.uniform((k, *self.logits.shape[:-1]), self.logits).unsqueeze(-1)
        # Clamped: rounding can leave the last cumulative probability a little below one.
        return Draw(self.step * (u > cumulative).sum(-1).clamp_max(self.logits.shape[-1] - 1).to(self.logits))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        log_mass = self.logits.log_softmax(-1)
        shape = torch.broadcast_shapes(v.shape, log_mass.shape[:-1])
        index = (v / self.step).round().long().expand(shape).unsqueeze(-1)
        rows = log_mass.expand(*shape, -1).gather(-1, index).squeeze(-1)
        return _sum_event(rows, self.event_dims, per_dim)

    def point(self) -> Tensor:
        return self.step * self.logits.argmax(-1).to(self.logits)


_CLOSED: dict[tuple[type, type], Callable[..., Tensor]] = {}


def _closed(q: type, p: type) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def put(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _CLOSED[q, p] = f
        return f

    return put


def kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) in closed form, where the pair has one.

    Parameters
    ----------
    q : Distribution
        With batch shape ``(n,)``.
    p : Distribution
        With batch shape ``()`` or ``(n,)``.

    Returns
    -------
    Tensor or None
        ``(n, d)`` in nats, split over dimensions; ``(n, 1)`` where it does not factorize; None where no
        closed form is known, so that the caller takes Monte Carlo.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal, StandardNormal, kl
    >>> kl(DiagonalNormal(torch.ones(1, 2), torch.zeros(1, 2)), StandardNormal(2))
    tensor([[0.5000, 0.5000]])
    """
    f = _CLOSED.get((type(q), type(p)))
    return None if f is None else f(q, p)


@_closed(DiagonalNormal, StandardNormal)
def _(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    return 0.5 * (q.mean.square() + q.log_var.exp() - 1.0 - q.log_var)


def kl_slopes(q: DiagonalNormal) -> tuple[Tensor, Tensor]:
    """Differentiate KL(q || N(0, I)).

    Source: Kingma and Welling 2014, arXiv:1312.6114, appendix B, differentiated.

    Parameters
    ----------
    q : DiagonalNormal
        With batch shape ``(n,)``.

    Returns
    -------
    by_mean, by_log_var : Tensor
        ``(n, d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal, kl_slopes
    >>> kl_slopes(DiagonalNormal(torch.ones(1, 2), torch.zeros(1, 2)))
    (tensor([[1., 1.]]), tensor([[0., 0.]]))
    """
    return q.mean, 0.5 * (q.log_var.exp() - 1.0)


@_closed(DiagonalNormal, DiagonalNormal)
def _(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    gap = q.log_var - p.log_var
    return 0.5 * ((q.mean - p.mean).square() * (-p.log_var).exp() + gap.exp() - 1.0 - gap)


@_closed(DiagonalNormal, FullNormal)
def _(q: DiagonalNormal, p: FullNormal) -> Tensor:
    precision = torch.cholesky_inverse(p.scale_tril)
    shift = (p.mean - q.mean).unsqueeze(-1)
    quadratic = (shift * (precision @ shift)).flatten(1).sum(-1)
    log_det = 2 * p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - q.log_var.sum(-1)
    trace = (precision.diagonal(dim1=-2, dim2=-1) * q.log_var.exp()).sum(-1)
    return 0.5 * (trace + quadratic - q.mean.shape[-1] + log_det).unsqueeze(-1)
