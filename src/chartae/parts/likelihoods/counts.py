"""Likelihoods of counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.core.errors import DataError
from chartae.core.spaces import Support, Units
from chartae.parts.distributions import NegativeBinomial, Poisson
from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods, mean_there
from chartae.parts.likelihoods.spreads import SpreadLikelihood
from chartae.parts.posteriors import bounded

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["NegativeBinomialLikelihood", "PoissonLikelihood"]


def _counted(facts: Facts, scale: str) -> Units:
    """Units of counts: one is their mean, so that a decoder that says nothing says the mean."""
    if facts.low < 0 or not facts.whole:
        raise DataError(
            f"counts are whole numbers from 0 up, and values lie in [{facts.low:g}, {facts.high:g}]"
            f"{'' if facts.whole else ', some between whole numbers'}: use 'normal'"
        )
    mean = facts.moments[0]
    each = scale == "feature" or (scale == "auto" and facts.named)
    unit = np.where(mean > 0, mean, 1.0) if each else float(mean.mean()) or 1.0
    return Units(scale=unit, support=Support(0.0, whole=True))


@likelihoods.register("poisson")
class PoissonLikelihood(NetworkLikelihood):
    """Independent counts whose rates the decoder gives, as logarithms.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels : None
        No effect.
    step : Tensor or None
        A count of 1 in the model's units.

    References
    ----------
    Gopalan, Hofman and Blei 2015, arXiv:1311.1704 (counts from latent factors).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import PoissonLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = PoissonLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.ones(5, 4)).shape
    torch.Size([6, 5])
    """

    offers = frozenset({"log_prob", "point", "located"})
    continuous = False

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return _counted(facts, scale)

    def resting(self, x: Tensor) -> Tensor | None:
        return mean_there(x, self.step).log()

    def distribution(self, out: Tensor) -> Distribution:
        return Poisson(bounded(out) - self.step.log(), len(self.shape), step=self.step)


@likelihoods.register("negative-binomial")
class NegativeBinomialLikelihood(SpreadLikelihood):
    """Independent counts that vary more than a Poisson's; means from the decoder, dispersion estimated.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`SpreadLikelihood`; the spread is the inverse of the dispersion r, so that the variance
        of a count is mean + spread * mean^2, and has no unit, where it is fixed, either.

    References
    ----------
    Lopez et al. 2018, doi:10.1038/s41592-018-0229-2; the estimate: Davidian and Carroll 1987, "Variance
    function estimation" (squared residuals by weights).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import NegativeBinomialLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = NegativeBinomialLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.ones(5, 4)).shape
    torch.Size([6, 5])
    """

    continuous = False
    smallest = 1e-6  # below, a Poisson in float32

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return _counted(facts, scale)

    def _rests(self, x: Tensor) -> Tensor:
        return mean_there(x, self.step).log()

    def _sizes(self, px: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        # What squares are above a Poisson's, over squared means; each by how well it is known, given the
        # spread so far.
        count, mean = x / self.step, px.log_mean.exp()
        weight = (1 + mean * (-px.log_dispersion).exp()).square().reciprocal()
        over, under = (count - mean).square() - mean, mean.square().where(~count.isnan(), math.nan)
        return weight * over, weight * under

    def distribution(self, out: Tensor) -> Distribution:
        log_mean, log_spread = self._split(out)
        return NegativeBinomial(
            bounded(log_mean) - self.step.log(), -log_spread, len(self.shape), step=self.step
        )
