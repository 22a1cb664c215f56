"""Points and normals."""

from __future__ import annotations

import torch
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.parts.distributions import Delta, DiagonalNormal, FullNormal
from chartae.parts.distributions.base import CAN, MOMENTS
from chartae.parts.posteriors.base import NetworkPosterior, bounded, posteriors

__all__ = ["DeltaPosterior", "FullNormalPosterior", "NormalPosterior"]


@posteriors.register("delta")
class DeltaPosterior(NetworkPosterior):
    """A point mass on the encoder's output: a plain autoencoder.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.

    References
    ----------
    Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import DeltaPosterior
    >>> DeltaPosterior(MLP((4,), (3,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4)).point().shape
    torch.Size([5, 3])
    """

    offers = frozenset({"point", "reparameterized"})

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            d.
        """
        return latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return Delta(self.encode(x, c))


@posteriors.register("normal")
class NormalPosterior(NetworkPosterior):
    """A diagonal normal whose mean and log variance the encoder gives.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d)``.
    latent_dim : int
        d.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, appendix C.2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> q = NormalPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> q.point().shape, bool((q.std() > 0).all())
    (torch.Size([5, 3]), True)
    """

    offers = CAN | MOMENTS | {"independence"}

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            2 d.
        """
        return 2 * latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        mean, log_var = self.encode(x, c).chunk(2, 1)
        return DiagonalNormal(mean, bounded(log_var))


@posteriors.register("full-normal")
class FullNormalPosterior(NetworkPosterior):
    """A normal with any covariance, whose Cholesky factor the encoder gives.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d + d (d + 1) / 2)``: mean, log variances given the dimensions before, and how each
        dimension follows those before it.
    latent_dim : int
        d.

    References
    ----------
    Kingma and Welling 2019, arXiv:1906.02691, section 2.5.1.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import FullNormalPosterior
    >>> q = FullNormalPosterior(MLP((4,), (9,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> q.point().shape, q.scale_tril.shape
    (torch.Size([5, 3]), torch.Size([5, 3, 3]))
    """

    offers = CAN | MOMENTS

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            d + d (d + 1) / 2.
        """
        return latent_dim + latent_dim * (latent_dim + 1) // 2

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        d = self.latent_dim
        out = self.encode(x, c)
        mean, log_var, below = out.split([d, d, d * (d - 1) // 2], 1)
        row, column = torch.tril_indices(d, d, -1, device=out.device)
        unit = torch.eye(d, dtype=out.dtype, device=out.device).repeat(len(out), 1, 1)
        # Over the root of d, so that a fresh encoder says nearly diagonal, however many dimensions add up.
        unit[:, row, column] = below / d**0.5
        return FullNormal(mean, (0.5 * bounded(log_var)).exp().unsqueeze(-1) * unit)
