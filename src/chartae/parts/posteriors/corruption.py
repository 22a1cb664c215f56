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


class Corrupted(Posterior):
    """A posterior that sees corrupted input in training, and clean input otherwise.

    Parameters
    ----------
    posterior : Posterior
        What is wrapped; :attr:`plain` gives it back.
    kind : {"gaussian", "masking"}
        Added normal noise, or values set to zero.
    amount : float
        Standard deviation in the model's units, or the share of values that is masked.

    Raises
    ------
    PlanError
        If the kind is unknown or the amount makes no sense.

    References
    ----------
    Vincent et al. 2008, doi:10.1145/1390156.1390294.

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
        most = 1 if kind == "masking" else math.inf
        if not (isinstance(amount, int | float) and 0 < amount < most):
            below = " below 1" if kind == "masking" else ""
            raise PlanError(
                f"corruption by {amount!r} makes no sense where it is {kind}: use a number above 0{below}"
            )
        self.posterior: Posterior = posterior
        self.kind, self.amount = kind, float(amount)
        self.takes_after(posterior)

    KINDS: dict[str, Callable[[Tensor, float], Tensor]] = {  # noqa: RUF012 - a constant table
        "gaussian": lambda x, amount: x + amount * torch.randn_like(x),
        "masking": lambda x, amount: x * (torch.rand_like(x) >= amount),
    }

    @property
    def plain(self) -> Posterior:
        return self.posterior.plain

    @property
    def codebook(self) -> nn.Module | None:
        return self.posterior.codebook

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return self.posterior(self.KINDS[self.kind](x, self.amount) if self.training else x, c)
