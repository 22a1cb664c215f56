"""Distributions: small, our own, and without validation in the training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Delta",
    "DiagonalNormal",
    "FullNormal",
    "FullNormalMixture",
    "Laplace",
    "NegativeBinomial",
    "NormalMixture",
    "Poisson",
    "StandardNormal",
    "StudentT",
    "kl",
    "kl_slopes",
]

LOG_2PI = math.log(2 * math.pi)
CAN = frozenset({"log_prob", "point", "reparameterized"})
CONDITIONAL = frozenset({"conditional"})


def _sum_event(rows: Tensor, event_dims: int, per_dim: bool) -> Tensor:
    if per_dim or event_dims == 0:
        return rows
    return rows.sum(-1) if event_dims == 1 else rows.flatten(-event_dims).sum(-1)


def _inside(u: Tensor) -> Tensor:
    """Keep uniform draws off 0 and 1, where inverses of distribution functions are infinite."""
    return u.clamp(2**-25, 1 - 2**-24)


def _choose(logits: Tensor, k: int, noise: Noise) -> Tensor:
    """Draw ``k`` categories of each, ``(k, *logits.shape[:-1])``."""
    cumulative = logits.softmax(-1).cumsum(-1)
    u = noise.uniform((k, *logits.shape[:-1]), logits).unsqueeze(-1)
    # Clamped: rounding can leave the last cumulative probability a little below one.
    return (u > cumulative).sum(-1).clamp_max(logits.shape[-1] - 1)


def _stirling(x: Tensor) -> Tensor:
    """log Γ(x) less (x - 1/2) log x - x + log(2π) / 2, without cancellation where x is large."""
    y = x.clamp_min(8.0)  # each branch sees what it can take, so that neither gives a NaN gradient
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / y**2) / y**2) / y**2) / y
    y = x.clamp_max(8.0)
    return torch.where(x > 8.0, series, torch.lgamma(y) - ((y - 0.5) * y.log() - y + 0.5 * LOG_2PI))


def _others(dims: Sequence[int], d: int) -> list[int]:
    """List the dimensions that are not held."""
    return [i for i in range(d) if i not in set(dims)]


class _Independent(Distribution):
    """Base of independent values: ``shape`` is ``(*batch, *event)``."""

    shape: torch.Size
    event_dims: int

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.shape[len(self.shape) - self.event_dims :]


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


class DiagonalNormal(_Independent):
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

    offers = CAN | CONDITIONAL

    def __init__(self, mean: Tensor, log_var: Tensor, event_dims: int = 1) -> None:
        self.mean, self.log_var, self.event_dims = mean, log_var, event_dims
        self.shape = mean.shape

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

    def given(self, dims: Sequence[int], values: Tensor) -> DiagonalNormal:
        rest = _others(dims, self.shape[-1])
        return DiagonalNormal(self.mean[..., rest], self.log_var.expand_as(self.mean)[..., rest])


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

    offers = CAN | CONDITIONAL

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

    def given(self, dims: Sequence[int], values: Tensor) -> StandardNormal:
        return StandardNormal(len(_others(dims, self.d)), self.device)


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

    offers = CAN | CONDITIONAL

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

    def given(self, dims: Sequence[int], values: Tensor) -> FullNormal:
        rest = _others(dims, self.mean.shape[-1])
        held, across, own = _blocks(self.scale_tril, dims, rest)
        gap = (values - self.mean[..., list(dims)]).unsqueeze(-1)
        white = torch.linalg.solve_triangular(held, gap, upper=False)
        return FullNormal(self.mean[..., rest] + (across @ white).squeeze(-1), own)


def _blocks(scale_tril: Tensor, dims: Sequence[int], rest: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Give the Cholesky factor of the covariance with the held dimensions first, as its three blocks.

    ``(*batch, m, m)``, ``(*batch, d - m, m)`` and ``(*batch, d - m, d - m)``: of what is held, of how the
    others follow it, and of what is left of them.
    """
    # Rows in another order are no triangle any more; QR turns them into one without squaring them.
    upper = torch.linalg.qr(scale_tril[..., [*dims, *rest], :].mT)[1]
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper)
    factor, m = (signs.unsqueeze(-1) * upper).mT, len(dims)
    return factor[..., :m, :m], factor[..., m:, :m], factor[..., m:, m:]


class FullNormalMixture(Distribution):
    """A mixture of normals with any covariances.

    Parameters
    ----------
    logits : Tensor
        ``(*batch, m)``, log weights up to a constant.
    mean : Tensor
        ``(*batch, m, d)``.
    scale_tril : Tensor
        ``(m, d, d)``, the lower Cholesky factor of each covariance, or ``(d, d)``, that of all; the same for
        the whole batch.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import FullNormalMixture
    >>> p = FullNormalMixture(torch.zeros(2), torch.tensor([[-1.0, 0.0], [3.0, 0.0]]), torch.eye(2))
    >>> p.event_shape, p.point(), round(p.log_prob(torch.zeros(2)).item(), 4)
    (torch.Size([2]), tensor([1., 0.]), -3.0129)
    """

    offers = frozenset({"log_prob", "point"}) | CONDITIONAL

    def __init__(self, logits: Tensor, mean: Tensor, scale_tril: Tensor) -> None:
        self.logits, self.mean, self.scale_tril = logits, mean, scale_tril

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        index = _choose(self.logits, k, noise)  # (k, *batch)
        mean = self.mean.expand(*self.logits.shape, -1)
        z = noise.normal((*index.shape, mean.shape[-1]), mean)
        if self.scale_tril.dim() == 2:
            z = z @ self.scale_tril.mT
        else:
            # Component by component: a factor for each draw would be many matrices.
            turned = torch.empty_like(z)
            for j in index.unique().tolist():
                rows = index == j
                turned[rows] = z[rows] @ self.scale_tril[j].mT
            z = turned
        if not self.batch_shape:
            return Draw(mean[index] + z)
        where = index[..., None, None].expand(*index.shape, 1, mean.shape[-1])
        return Draw(mean.expand(k, *mean.shape).gather(-2, where).squeeze(-2) + z)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density; with ``per_dim`` split into the conditionals of the dimensions before each.

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
        log_weight = self.logits.log_softmax(-1)
        log_scale = self.scale_tril.diagonal(dim1=-2, dim2=-1).log()
        if per_dim:
            white = _white(self.scale_tril, v.unsqueeze(-2) - self.mean)
            rows = (-0.5 * (white.square() + LOG_2PI) - log_scale).cumsum(-1)
            up_to = (log_weight.unsqueeze(-1) + rows).logsumexp(-2)
            return up_to.diff(dim=-1, prepend=torch.zeros_like(up_to[..., :1]))
        if self.scale_tril.dim() == 2:
            # Distances between whitened points: no array of values, components and dimensions.
            ours, theirs = (_white(self.scale_tril, t) for t in (v, self.mean))
            exact = "donot_use_mm_for_euclid_dist"
            if self.mean.dim() == 2:
                flat = torch.cdist(ours.reshape(-1, ours.shape[-1]), theirs, compute_mode=exact)
                squares = flat.square().reshape(*ours.shape[:-1], -1)
            else:
                squares = torch.cdist(ours.unsqueeze(-2), theirs, compute_mode=exact).square().squeeze(-2)
        else:
            squares = _white(self.scale_tril, v.unsqueeze(-2) - self.mean).square().sum(-1)
        constant = 0.5 * v.shape[-1] * LOG_2PI + log_scale.sum(-1)
        return (log_weight - 0.5 * squares - constant).logsumexp(-1)

    def point(self) -> Tensor:
        return (self.logits.softmax(-1).unsqueeze(-1) * self.mean).sum(-2)

    def given(self, dims: Sequence[int], values: Tensor) -> FullNormalMixture:
        rest, held_dims = _others(dims, self.mean.shape[-1]), list(dims)
        held, across, own = _blocks(self.scale_tril, dims, rest)
        white = _white(held, values.unsqueeze(-2) - self.mean[..., held_dims])
        # Each component counts by how well it explains what is held.
        log_density = -0.5 * white.square().sum(-1) - held.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        turned = white @ across.mT if across.dim() == 2 else torch.einsum("...kj,kij->...ki", white, across)
        return FullNormalMixture(
            self.logits.log_softmax(-1) + log_density, self.mean[..., rest] + turned, own
        )


def _white(scale_tril: Tensor, gap: Tensor) -> Tensor:
    """Solve for all gaps ``(..., m, d)`` with ``(m, d, d)``, or ``(..., d)`` with ``(d, d)``, at once."""
    if not gap.numel():  # nothing is left that could be reshaped
        return gap
    if scale_tril.dim() == 2:
        flat = gap.reshape(-1, gap.shape[-1]).T
        return torch.linalg.solve_triangular(scale_tril, flat, upper=False).T.reshape(gap.shape)
    flat = gap.reshape(-1, *gap.shape[-2:]).permute(1, 2, 0)
    return torch.linalg.solve_triangular(scale_tril, flat, upper=False).permute(2, 0, 1).reshape(gap.shape)


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
        shape = torch.broadcast_shapes(v.shape, log_mass.shape[:-1])
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
        near = torch.log1p(k / (r + k) * torch.expm1(gap.clamp(-1.0, 1.0)))
        far = torch.logaddexp(F.logsigmoid(log_r - k.log()), F.logsigmoid(k.log() - log_r) + gap)
        some = k * gap - (r + k) * torch.where(gap.abs() < 1, near, far)
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


def _factor(p: DiagonalNormal | FullNormal | StandardNormal) -> Tensor:
    """Lower Cholesky factor of the covariance, ``(*batch, d, d)``."""
    return p.scale_tril if isinstance(p, FullNormal) else torch.diag_embed(p.std())


@_closed(DiagonalNormal, FullNormal)
@_closed(FullNormal, DiagonalNormal)
@_closed(FullNormal, FullNormal)
@_closed(FullNormal, StandardNormal)
def _(q: DiagonalNormal | FullNormal, p: DiagonalNormal | FullNormal | StandardNormal) -> Tensor:
    # In the coordinates in which p is N(0, I), dimension by dimension given those before it.
    ours, theirs = _factor(q), _factor(p).to(q.mean)
    shift = (q.mean - p.point()).unsqueeze(-1)
    white = torch.linalg.solve_triangular(theirs, torch.cat([ours, shift], -1), upper=False)
    log_ratio = ours.diagonal(dim1=-2, dim2=-1).log() - theirs.diagonal(dim1=-2, dim2=-1).log()
    return 0.5 * (white.square().sum(-1) - 1.0) - log_ratio
