"""Likelihoods of zeros and ones, of shares between them, and of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import Support, Units
from chartae.parts.distributions import Bernoulli, Categorical, ContinuousBernoulli
from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods, mean_there

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "ContinuousBernoulliLikelihood"]


@likelihoods.register("bernoulli")
class BernoulliLikelihood(NetworkLikelihood):
    """Independent binary values from logits; for values between 0 and 1, the cross-entropy.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : None
        No effect.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, appendix C.1.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import BernoulliLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = BernoulliLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(1, 3, 2)).log_prob(torch.ones(3, 4)).shape
    torch.Size([1, 3])
    """

    offers = frozenset({"log_prob", "point", "score", "located"})
    continuous = False

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Divide by the value that stands for 1.

        That is the positive one of two values; of more values in bytes, an image's white, 255, if one is
        above half of it; otherwise the largest, or 1 if that is larger. Where rows to come may hold larger
        values, divide all of them by the largest possible one first.

        Parameters
        ----------
        facts : Facts
            What the data look like.
        scale : str
            No effect.

        Returns
        -------
        Units
            From 0 to that value.

        Raises
        ------
        DataError
            If there are negative values.
        """
        if facts.two_valued:
            top = facts.high
        else:
            top = 255.0 if facts.dtype == np.uint8 and facts.high > 127 else max(facts.high, 1.0)
        support = Support(0.0, top)
        if not support.covers(facts.low, facts.high):
            raise DataError(
                "a Bernoulli likelihood needs values from 0 up, and the smallest is "
                f"{facts.low:g}: use 'normal'"
            )
        return Units(scale=top, support=support)

    def resting(self, x: Tensor) -> Tensor | None:
        return mean_there(x, 0.5).logit()

    def distribution(self, out: Tensor) -> Distribution:
        return Bernoulli(out, len(self.shape))


@likelihoods.register("continuous-bernoulli")
class ContinuousBernoulliLikelihood(NetworkLikelihood):
    """A density on [0, 1] from logits: what the cross-entropy of gray values should have been.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : None
        No effect.

    References
    ----------
    Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import ContinuousBernoulliLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = ContinuousBernoulliLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    offers = frozenset({"log_prob", "point", "located"})

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return BernoulliLikelihood.units(facts, scale)

    def distribution(self, out: Tensor) -> Distribution:
        return ContinuousBernoulli(out, len(self.shape))


@likelihoods.register("categorical")
class CategoricalLikelihood(NetworkLikelihood):
    """Independent categories from logits; in the model's units they lie evenly on [0, 1].

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``m`` times as many channels as x has.
    shape : tuple of int
        Shape of one item.
    noise : None
        No effect.
    levels : int
        m, the number of categories.
    step : float or None
        Between the values of neighboring categories; None: they lie evenly on [0, 1].

    Raises
    ------
    PlanError
        If there are fewer than two categories.

    References
    ----------
    van den Oord, Kalchbrenner and Kavukcuoglu 2016, arXiv:1601.06759 (categorical pixels).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import CategoricalLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = CategoricalLikelihood(MLP((2,), (3 * 4,), hidden=(8,)), (4,), levels=3)
    >>> p(torch.zeros(1, 5, 2)).event_shape
    torch.Size([4])
    """

    continuous = False

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: object = None,
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__(network, shape, step=1 / max(1, (levels or 1) - 1) if step is None else step)
        if levels is None or levels < 1:
            raise PlanError("a categorical likelihood needs the number of categories: use 'normal'")
        self.levels = levels

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return levels or 2

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Count the categories, which are whole numbers, and lay them evenly on [0, 1].

        Parameters
        ----------
        facts : Facts
            What the data look like.
        scale : str
            No effect.

        Returns
        -------
        Units
            With as many levels as the largest number needs, two at least.

        Raises
        ------
        DataError
            If values are not whole numbers from 0 to 255.
        """
        if facts.low < 0 or facts.high > 255 or not facts.whole:
            raise DataError(
                "a categorical likelihood needs whole numbers from 0 to 255, and values lie in "
                f"[{facts.low:g}, {facts.high:g}]: number the categories from 0, or use 'normal'"
            )
        levels = max(2, int(facts.high) + 1)
        return Units(scale=levels - 1, levels=levels, support=Support(0.0, levels - 1.0, whole=True))

    def resting(self, x: Tensor) -> Tensor | None:
        place = (x / self.step).round()
        each = [
            mean_there((place == i).to(x.dtype).where(~x.isnan(), x), 1 / self.levels)
            for i in range(self.levels)
        ]
        return torch.cat(each).log()

    def distribution(self, out: Tensor) -> Distribution:
        logits = out.unflatten(2, (self.levels, self.shape[0])).movedim(2, -1)
        return Categorical(logits, len(self.shape), step=self.step)
