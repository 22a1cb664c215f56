"""Normal priors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.parts.distributions import DiagonalNormal, StandardNormal
from chartae.parts.networks import full
from chartae.parts.posteriors import bounded
from chartae.parts.priors.base import priors

__all__ = ["ConditionalNormalPrior", "StandardNormalPrior"]


@priors.register("standard-normal")
class StandardNormalPrior(Prior):
    """N(0, I), whatever the condition.

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        No effect.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, section 3.

    Examples
    --------
    >>> from chartae.parts.priors import StandardNormalPrior
    >>> StandardNormalPrior(3)().point()
    tensor([0., 0., 0.])
    """

    offers = frozenset({"log_prob", "point", "standard"})
    _where: Tensor

    def __init__(self, latent_dim: int, condition_dim: int = 0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("_where", torch.zeros(()), persistent=False)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return StandardNormal(self.latent_dim, self._where.device)


@priors.register("conditional-normal")
class ConditionalNormalPrior(Prior):
    """A diagonal normal whose mean and log variance follow from the condition.

    It starts as N(0, I).

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        Width of the condition.

    References
    ----------
    Sohn, Lee and Yan 2015, "Learning structured output representation using deep conditional
    generative models", equation 4.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.priors import ConditionalNormalPrior
    >>> ConditionalNormalPrior(3, 5)(torch.zeros(7, 5)).batch_shape
    torch.Size([7])
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, latent_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.network = nn.Linear(condition_dim, 2 * latent_dim)
        nn.init.zeros_(self.network.weight)
        nn.init.zeros_(self.network.bias)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        assert c is not None, "a conditional prior is called with its condition"
        mean, log_var = full(self.network(c)).chunk(2, 1)
        return DiagonalNormal(mean, bounded(log_var))
