"""Kullback-Leibler divergences in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.parts.distributions.normals import DiagonalNormal, FullNormal, StandardNormal
from chartae.parts.distributions.spheres import UniformSphere, Zonal

__all__ = ["kl", "kl_slopes"]

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
    return 0.5 * torch.addcmul(q.log_var.expm1() - q.log_var, q.mean, q.mean)


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
    return q.mean, 0.5 * q.log_var.expm1()


@_closed(DiagonalNormal, DiagonalNormal)
def _(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    gap = q.log_var - p.log_var
    return 0.5 * ((q.mean - p.mean).square() * (-p.log_var).exp() + gap.expm1() - gap)


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


@_closed(Zonal, UniformSphere)
def _(q: Zonal, p: UniformSphere) -> Tensor:
    return q.information.unsqueeze(-1)
