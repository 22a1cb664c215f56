"""What an encoder learns of items that the model itself has made."""

from __future__ import annotations

from typing import Any, cast

import torch

from chartae.core.contracts import Objective, Term, Trace
from chartae.parts.objectives.matching import draws_of

__all__ = ["Asleep"]


class Asleep(Objective):
    """``-log q(z | x)`` of dreams: codes drawn from the prior, and items drawn from what they decode to.

    An encoder overfits before its decoder does, and then reads codes off new items that explain them worse
    than others would. Of dreams there is no end. They teach the encoder alone (of a ladder, also what its
    encoder shares with the prior), beside a bound that both learn from; epochs are not compared by them.

    References
    ----------
    Hinton et al. 1995, doi:10.1126/science.7761831 (the sleep phase); Zhang, Hayes and Barber 2022,
    arXiv:2205.11640 (beside a bound, against overfitting).

    Examples
    --------
    >>> from chartae.parts.objectives import KL, Asleep, NegLogLik
    >>> NegLogLik() + KL() + Asleep()
    nll + kl + asleep
    """

    needs = frozenset({"posterior.log_prob", "prior.log_prob"})
    apart = True

    def forward(self, trace: Trace) -> dict[str, Term]:
        model, n, p = cast(Any, trace.model), len(trace.batch), trace.levels[0].p
        assert p is not None
        with torch.no_grad():
            z = draws_of(p, n, trace.noise)
            x = model.px(z[None], trace.c).draw(1, trace.noise).z[0, 0]
        c = None if trace.c is None else trace.c.detach()
        return {"asleep": Term(-model.q(x, c).log_prob(z), judged=0.0)}

    def __repr__(self) -> str:
        return "asleep"
