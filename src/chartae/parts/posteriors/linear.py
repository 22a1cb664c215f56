"""Codes behind layers without activations."""

from __future__ import annotations

from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.parts.networks import full
from chartae.parts.posteriors.base import posteriors
from chartae.parts.posteriors.normal import DeltaPosterior

__all__ = ["LinearDeltaPosterior"]


@posteriors.register("linear-delta")
class LinearDeltaPosterior(DeltaPosterior):
    """A point mass on the encoder's output behind square matrices, which are one matrix in what they can say.

    Trained by gradients, a product of matrices prefers a low rank, and with it the code does.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    depth : int
        How many matrices.

    References
    ----------
    Jing, Zbontar and LeCun 2020, arXiv:2010.00679, section 3.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import LinearDeltaPosterior
    >>> q = LinearDeltaPosterior(MLP((4,), (3,), hidden=(8,)), latent_dim=3, depth=2)
    >>> q(torch.zeros(5, 4)).point().shape
    torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module, latent_dim: int, depth: int = 4) -> None:
        super().__init__(network, latent_dim)
        self.product = nn.Sequential(*(nn.Linear(latent_dim, latent_dim, bias=False) for _ in range(depth)))
        for layer in self.product:  # small at first: a product that keeps its input's size keeps its rank too
            nn.init.normal_(layer.weight, std=(3 * latent_dim) ** -0.5)  # type: ignore[arg-type]

    @staticmethod
    def features(latent_dim: int, depth: int = 4) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.
        depth : int
            How many matrices.

        Returns
        -------
        int
            d.

        Raises
        ------
        PlanError
            If there are none.
        """
        if depth < 1:
            raise PlanError(f"depth={depth}: use one matrix or more, or recipe 'ae' for none")
        return latent_dim

    def encode(self, x: Tensor, c: Tensor | None) -> Tensor:
        return full(self.product(super().encode(x, c)))
