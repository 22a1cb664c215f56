"""Priors on curved spaces: the sphere and the Poincaré ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.parts.distributions import UniformSphere, WrappedNormal
from chartae.parts.distributions.balls import clipped
from chartae.parts.posteriors.manifolds import ball
from chartae.parts.priors.base import priors

__all__ = ["UniformSpherePrior", "WrappedNormalPrior"]

CENTER = 1e-12  # of a norm: below it, rounding alone says where a code lies


@priors.register("uniform-sphere")
class UniformSpherePrior(Prior):
    """All directions alike, whatever the condition.

    Parameters
    ----------
    latent_dim : int
        d, of the space around the sphere.
    condition_dim : int
        No effect.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891, section 3.2.

    Examples
    --------
    >>> from chartae.parts.priors import UniformSpherePrior
    >>> UniformSpherePrior(3)().event_shape
    torch.Size([3])
    """

    offers = frozenset({"log_prob", "point"})
    support = "on a sphere"
    _where: Tensor

    def __init__(self, latent_dim: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("_where", torch.zeros(()), persistent=False)

    def onto(self, z: Tensor) -> Tensor:
        pole = torch.eye(1, self.latent_dim, dtype=z.dtype, device=z.device)[0]
        # The center is as near to every code, and no decoder was trained on it.
        lost = torch.linalg.vector_norm(z.detach(), dim=-1, keepdim=True) < CENTER
        return F.normalize(z + pole * lost, dim=-1)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return UniformSphere(self.latent_dim, self._where.device)


@priors.register("wrapped-normal")
class WrappedNormalPrior(Prior):
    """A standard normal wrapped around the Poincaré ball, whatever the condition.

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        No effect.
    curvature : float
        c > 0, of a ball of radius 1/√c and curvature -c.

    References
    ----------
    Mathieu et al. 2019, arXiv:1901.06033, section 3.

    Examples
    --------
    >>> from chartae.parts.priors import WrappedNormalPrior
    >>> WrappedNormalPrior(3, curvature=2.0)().point()
    tensor([0., 0., 0.])
    """

    offers = frozenset({"log_prob", "point"})
    _origin: Tensor

    def __init__(self, latent_dim: int, condition_dim: int = 0, curvature: float = 1.0) -> None:
        super().__init__()
        self.latent_dim, self.curvature, self.support = latent_dim, curvature, ball(curvature)
        self.register_buffer("_origin", torch.zeros(latent_dim), persistent=False)

    def onto(self, z: Tensor) -> Tensor:
        return clipped(z, self.curvature)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return WrappedNormal(self._origin, torch.zeros_like(self._origin), self.curvature)
