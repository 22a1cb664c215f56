"""What likelihoods with a spread have in common: how it is estimated from residuals."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.parts.likelihoods.base import NetworkLikelihood, mean_there
from chartae.parts.posteriors import bounded

__all__ = ["SMALLEST", "SpreadLikelihood"]

SMALLEST = 1e-3  # spread, in units of the data's scale: below it, likelihoods only reward rounding


class SpreadLikelihood(NetworkLikelihood):
    """Base of likelihoods with a spread that is no output of the network: what the residuals say it is.

    A spread that follows its gradient moves by about a learning rate each step, which takes longer than many
    trainings do, and codes are not used for what is within it.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``, or twice as many channels for ``noise="item"``.
    shape : tuple of int
        Shape of one item.
    noise : {"global", "feature", "item"} or float
        "global": one spread, estimated from the residuals of the training data: a running estimate in
        training, taken once more with the final weights and then frozen; "feature": one for each
        value, likewise; "item": the network gives it for each value of each item; a float: a fixed
        one, in the model's units.
    levels : None
        No effect.
    step : Tensor or None
        1 of the input's units in the model's.

    Raises
    ------
    PlanError
        If ``noise`` is none of these.

    References
    ----------
    Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202, section 3 (computed, and not learned).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import NormalLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p, x = NormalLikelihood(MLP((2,), (4,), hidden=(8,)), (4,)), torch.randn(100, 4)
    >>> px = p(torch.zeros(1, 100, 2))
    >>> p.observe(px, x)
    >>> residual = (x - px.point()).square().mean().sqrt()
    >>> torch.allclose(p(torch.zeros(1, 3, 2)).std(), residual)
    True
    """

    has_noise = True
    log_spread: Tensor
    seen: Tensor
    momentum = 0.05
    smallest = SMALLEST

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: Any = "global",
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__(network, shape, step=step)
        noise = "global" if noise is None else noise
        fixed = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not (noise in ("global", "feature", "item") or (fixed and 0 < float(noise) < math.inf)):
            raise PlanError(f"noise={noise!r}: use 'global', 'feature', 'item' or a positive number")
        self.noise, self.estimated = noise, noise in ("global", "feature")
        if noise == "item":  # the network gives more than the location
            self.offers = self.offers - {"score", "located"}
            return
        self.floor = float(self._spread(torch.tensor(self.smallest)))
        size = self.shape if noise == "feature" else ()
        start = self._spread(torch.tensor(float(noise))).log() if fixed else torch.zeros(())
        self.register_buffer("log_spread", start.expand(size).clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def _spread(noise: Tensor) -> Tensor:
        """What a spread is kept as: of residuals, what is averaged over them."""
        return noise

    def _sizes(self, px: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the spread is the mean of, and the mean of what that is divided by, if by anything."""
        return self._spread(x - px.point()), None

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 2 if noise == "item" else 1

    def resting(self, x: Tensor) -> Tensor | None:
        location = self._rests(x)
        return torch.cat([location, torch.zeros_like(location)]) if self.noise == "item" else location

    def _rests(self, x: Tensor) -> Tensor:
        """What the network should give for the mean of rows, beside a spread."""
        return mean_there(x)

    def _split(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the location from the log of the spread; the two broadcast."""
        if self.noise == "item":
            location, log_spread = out.chunk(2, 2)
            return location, bounded(log_spread)
        # A copy: the running estimate moves on, and what was said of this batch must not.
        return out, self.log_spread.clone()

    @torch.no_grad()
    def observe(self, px: Distribution, x: Tensor) -> None:
        if self.estimated:  # the first batch replaces the starting value; later ones are averaged in
            self._move(self.measured(px, x), 1.0 - (1.0 - self.momentum) * (self.seen > 0))
            self.seen += 1

    @torch.no_grad()
    def measured(self, px: Distribution, x: Tensor) -> Tensor:
        each = torch.nansum if self.gaps else torch.sum

        def total(sizes: Tensor) -> Tensor:
            return each(sizes) if self.noise == "global" else each(sizes, (0, 1))

        over, under = self._sizes(px, x)
        if under is not None:
            count = total(under)
        elif self.gaps:
            count = total((~over.isnan()).to(over))
        else:
            count = over.new_full(self.log_spread.shape, over.numel() / self.log_spread.numel())
        return torch.stack([total(over), count])

    @torch.no_grad()
    def settle(self, sums: Tensor) -> None:
        self._move(sums, 1.0)

    def _move(self, sums: Tensor, weight: Tensor | float) -> None:
        """Go a share of the way to what was measured; a value that no row has says nothing."""
        now = torch.where(sums[1] > 0, sums[0] / sums[1], self.log_spread.exp()).to(self.log_spread)
        spread = torch.lerp(self.log_spread.exp(), now, weight)
        self.log_spread.copy_(spread.clamp_min(self.floor).log())
