"""Posteriors on curved spaces: the sphere and the Poincaré ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.core.registry import suggest
from chartae.parts.distributions import PROFILES, WrappedNormal, Zonal
from chartae.parts.distributions.balls import clipped, exp_origin
from chartae.parts.distributions.base import CAN
from chartae.parts.posteriors.base import NetworkPosterior, bounded, posteriors

__all__ = ["BallPosterior", "SpherePosterior"]

CONCENTRATION_LIMIT = 1e5
TINY = 1e-6  # of the first axis, so that zeros have a direction too


@posteriors.register("sphere")
class SpherePosterior(NetworkPosterior):
    """A density around a mean direction on the unit sphere; the encoder gives the direction and how dense.

    The concentration is 1 + softplus of a number, bent smoothly so as to stay below 100,000.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d + 1)``.
    latent_dim : int
        d, of the space around the sphere.
    profile : {"vmf", "power"}
        Von Mises-Fisher, or power spherical.

    References
    ----------
    Davidson et al. 2018, arXiv:1804.00891; De Cao and Aziz 2020, arXiv:2006.04437.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import SpherePosterior
    >>> q = SpherePosterior(MLP((4,), (4,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> torch.allclose(q.point().norm(dim=1), torch.ones(5)), bool((q.concentration > 1).all())
    (True, True)
    """

    offers = CAN
    support = "on a sphere"

    def __init__(self, network: nn.Module, latent_dim: int, profile: str = "vmf") -> None:
        super().__init__(network, latent_dim)
        self.profile = profile

    @staticmethod
    def features(latent_dim: int, profile: str = "vmf") -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.
        profile : {"vmf", "power"}
            No effect.

        Returns
        -------
        int
            d + 1.

        Raises
        ------
        PlanError
            If the sphere is two points, or there is no such profile.
        """
        if latent_dim < 2:
            raise PlanError("a sphere in one dimension is two points: use latent_dim=2, a circle, or more")
        if profile not in PROFILES:
            raise PlanError(f"unknown profile {profile!r}: {suggest(profile, PROFILES)}")
        return latent_dim + 1

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        direction, dense = self.encode(x, c).split([self.latent_dim, 1], 1)
        first = torch.eye(1, self.latent_dim, dtype=direction.dtype, device=direction.device)
        dense = F.softplus(dense.squeeze(1))
        concentration = 1 + dense / (1 + dense / CONCENTRATION_LIMIT)
        return Zonal(F.normalize(direction + TINY * first, dim=1), concentration, self.profile)


@posteriors.register("poincare")
class BallPosterior(NetworkPosterior):
    """A wrapped normal on the Poincaré ball; the encoder gives its mean and variances.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d)``: the direction and the distance of the mean from the origin, and log variances.
    latent_dim : int
        d.
    curvature : float
        c > 0, of a ball of radius 1/√c and curvature -c.

    References
    ----------
    Mathieu et al. 2019, arXiv:1901.06033, section 3.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import BallPosterior
    >>> q = BallPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> bool((q.point().norm(dim=1) < 1).all())
    True
    """

    offers = CAN

    def __init__(self, network: nn.Module, latent_dim: int, curvature: float = 1.0) -> None:
        super().__init__(network, latent_dim)
        self.curvature, self.support = curvature, ball(curvature)

    @staticmethod
    def features(latent_dim: int, curvature: float = 1.0) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.
        curvature : float
            c.

        Returns
        -------
        int
            2 d.
        """
        ball(curvature)
        return 2 * latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        v, log_var = self.encode(x, c).chunk(2, 1)
        return WrappedNormal(
            clipped(exp_origin(v, self.curvature), self.curvature), bounded(log_var), self.curvature
        )


def ball(curvature: float) -> str:
    """Say where codes of a ball lie.

    Source: this library's own.

    Parameters
    ----------
    curvature : float
        c > 0.

    Returns
    -------
    str
        In words.

    Raises
    ------
    PlanError
        If there is no such ball.

    Examples
    --------
    >>> from chartae.parts.posteriors.manifolds import ball
    >>> ball(2.0)
    'in a ball of curvature -2'
    """
    if not curvature > 0:
        raise PlanError(f"curvature={curvature:g}: a ball has one above 0; for a flat space use recipe 'vae'")
    return f"in a ball of curvature -{curvature:g}"
