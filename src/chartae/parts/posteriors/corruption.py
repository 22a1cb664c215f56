"""Noise on what the encoder sees in training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior
from chartae.core.errors import PlanError
from chartae.core.registry import suggest

__all__ = ["Corrupted"]


def _stretched(x: Tensor, amount: float) -> Tensor:
    """Draw where the ends of each axis of each item come from, and read what is in between along a line."""
    for axis in range(2, x.ndim):
        length, along = x.shape[axis], [1] * x.ndim
        ends = amount * (2 * torch.rand(2, len(x), 1, device=x.device) - 1)
        steps = torch.linspace(0, 1, length, device=x.device)
        place = torch.lerp(ends[0], 1 + ends[1], steps).clamp(0, 1) * (length - 1)
        before = place.floor()
        along[0], along[axis] = len(x), length
        left = before.long().view(along)
        right = (left + 1).clamp(max=length - 1)
        low, high = (x.gather(axis, i.expand_as(x)) for i in (left, right))
        x = low.lerp(high, (place - before).view(along).to(x.dtype))
    return x


class Corrupted(Posterior):
    """A posterior that sees corrupted input in training, and clean input otherwise.

    Parameters
    ----------
    posterior : Posterior
        What is wrapped; :attr:`plain` gives it back.
    kind : {"gaussian", "masking", "stretching"}
        Added normal noise, values set to zero, or items stretched and moved along the axes behind their
        channels: each end of an axis comes to lie up to ``amount`` of its length further in or out, and what
        is beyond an item's edge is as its edge.
    amount : float
        Standard deviation in the model's units, the share of values that is masked, or of an axis.

    Raises
    ------
    PlanError
        If the kind is unknown or the amount makes no sense.

    References
    ----------
    Vincent et al. 2008, doi:10.1145/1390156.1390294; stretched spectra of speech: Jaitly and Hinton 2013,
    "Vocal tract length perturbation (VTLP) improves speech recognition".

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import Corrupted, DeltaPosterior
    >>> q = Corrupted(DeltaPosterior(MLP((4,), (3,), hidden=(8,)), 3), "gaussian", 0.5)
    >>> x = torch.zeros(1, 4)
    >>> torch.equal(q(x).point(), q(x).point()), torch.equal(q.eval()(x).point(), q(x).point())
    (False, True)
    """

    def __init__(self, posterior: Posterior, kind: str = "gaussian", amount: float = 0.3) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise PlanError(f"unknown corruption {kind!r}: {suggest(kind, self.KINDS)}")
        most = self.BELOW.get(kind, math.inf)
        if not (isinstance(amount, int | float) and 0 < amount < most):
            below = f" below {most:g}" if kind in self.BELOW else ""
            raise PlanError(
                f"corruption by {amount!r} makes no sense where it is {kind}: use a number above 0{below}"
            )
        self.posterior: Posterior = posterior
        self.kind, self.amount = kind, float(amount)
        self.takes_after(posterior)

    KINDS: dict[str, Callable[[Tensor, float], Tensor]] = {  # noqa: RUF012 - a constant table
        "gaussian": lambda x, amount: x + amount * torch.randn_like(x),
        "masking": lambda x, amount: x * (torch.rand_like(x) >= amount),
        "stretching": _stretched,
    }
    BELOW: dict[str, float] = {"masking": 1.0, "stretching": 0.5}  # noqa: RUF012 - at half, ends would meet

    @property
    def plain(self) -> Posterior:
        return self.posterior.plain

    @property
    def codebook(self) -> nn.Module | None:
        return self.posterior.codebook

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return self.posterior(self.KINDS[self.kind](x, self.amount) if self.training else x, c)
