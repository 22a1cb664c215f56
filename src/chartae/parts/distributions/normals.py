"""Normal distributions and mixtures of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise
from chartae.parts.distributions.base import (
    CAN,
    CONDITIONAL,
    LOG_2PI,
    MOMENTS,
    _choose,
    _Independent,
    _sum_event,
)

__all__ = ["DiagonalNormal", "DiagonalNormalMixture", "FullNormal", "FullNormalMixture", "StandardNormal"]


def _others(dims: Sequence[int], d: int) -> list[int]:
    """List the dimensions that are not held."""
    return [i for i in range(d) if i not in set(dims)]


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

    offers = CAN | CONDITIONAL | MOMENTS

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

    def marginals(self) -> DiagonalNormal:
        return self

    def covariance(self) -> Tensor:
        return torch.diag_embed(self.std().square())


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

    offers = CAN | CONDITIONAL | MOMENTS

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

    def marginals(self) -> DiagonalNormal:
        return DiagonalNormal(self.mean, self.scale_tril.square().sum(-1).log())

    def covariance(self) -> Tensor:
        rows, columns = self.scale_tril.unsqueeze(-2), self.scale_tril.unsqueeze(-3)
        return (rows * columns).sum(-1)  # a product of matrices would be in half precision in training


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


VALUES = 1 << 22  # of pairs of a value and a component, at once


class DiagonalNormalMixture(Distribution):
    """A mixture of normals whose dimensions are independent within each.

    Parameters
    ----------
    logits : Tensor
        ``(*batch, m)``, log weights up to a constant.
    mean, log_var : Tensor
        ``(m, d)``, the same for the whole batch, or ``(*batch, m, d)``. The first costs no array of values,
        components and dimensions.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormalMixture
    >>> p = DiagonalNormalMixture(torch.zeros(2), torch.tensor([[-1.0, 0.0], [3.0, 0.0]]), torch.zeros(2, 2))
    >>> p.point(), p.std(), round(p.log_prob(torch.zeros(2)).item(), 4)
    (tensor([1., 0.]), tensor([2.2361, 1.0000]), -3.0129)
    """

    offers = frozenset({"log_prob", "point"}) | CONDITIONAL
    splits = False

    def __init__(self, logits: Tensor, mean: Tensor, log_var: Tensor) -> None:
        self.logits, self.mean, self.log_var = logits, mean, log_var

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        index = _choose(self.logits, k, noise)  # (k, *batch)

        def chosen(t: Tensor) -> Tensor:
            if t.dim() == 2:
                return t[index]
            where = index[..., None, None].expand(*index.shape, 1, t.shape[-1])
            return t.expand(k, *t.shape).gather(-2, where).squeeze(-2)

        mean = chosen(self.mean)
        return Draw(torch.addcmul(mean, (0.5 * chosen(self.log_var)).exp(), noise.normal(mean.shape, mean)))

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
        if per_dim:
            rows = DiagonalNormal(self.mean, self.log_var).log_prob(v.unsqueeze(-2), per_dim=True).cumsum(-1)
            up_to = (log_weight.unsqueeze(-1) + rows).logsumexp(-2)
            return up_to.diff(dim=-1, prepend=torch.zeros_like(up_to[..., :1]))
        alone = v.dim() - 1 - len(self.batch_shape)  # dimensions of v that are not the batch's
        most = max(1, VALUES * v.shape[-1] * v.shape[0] // max(1, v.numel() * self.logits.shape[-1]))
        if alone > 0 and most < len(v):
            return torch.cat([self.log_prob(part) for part in v.split(most)])
        return (log_weight + self._each(v)).logsumexp(-1).to(v.dtype)

    def _each(self, v: Tensor) -> Tensor:
        """Log density of each component, ``(..., m)``."""
        if self.mean.dim() > 2 or self.log_var.dim() > 2:
            return DiagonalNormal(self.mean, self.log_var).log_prob(v.unsqueeze(-2))
        # A quadratic form in one product. In float64: narrow components are small differences of large sums.
        v, mean, log_var = v.double(), self.mean.double(), self.log_var.double()
        weight = (-log_var).exp()
        constant = -0.5 * (mean.square() * weight + log_var + LOG_2PI).sum(-1)
        powers = torch.cat([v.square(), v], -1).reshape(-1, 2 * v.shape[-1])
        form = torch.cat([-0.5 * weight, mean * weight], -1)
        return torch.addmm(constant, powers, form.T).reshape(*v.shape[:-1], -1)

    def point(self) -> Tensor:
        return (self.logits.softmax(-1).unsqueeze(-1) * self.mean).sum(-2)

    def std(self) -> Tensor:
        """Return the standard deviation of each dimension.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        gap = self.mean - self.point().unsqueeze(-2)
        square = gap.square() + self.log_var.exp()
        return (self.logits.softmax(-1).unsqueeze(-1) * square).sum(-2).sqrt()

    def given(self, dims: Sequence[int], values: Tensor) -> DiagonalNormalMixture:
        rest, held = _others(dims, self.mean.shape[-1]), list(dims)
        # Each component counts by how well it explains what is held.
        seen = DiagonalNormalMixture(self.logits, self.mean[..., held], self.log_var[..., held])
        logits = self.logits.log_softmax(-1) + seen._each(values).to(self.logits.dtype)
        return DiagonalNormalMixture(logits, self.mean[..., rest], self.log_var[..., rest])


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
    splits = False

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
