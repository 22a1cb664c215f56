"""What makes the dimensions of a code independent, and holds the information in them at a given amount."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Objective, Term, Trace
from chartae.core.errors import PlanError
from chartae.core.registry import suggest
from chartae.parts.objectives.bounds import Warmed, _kl_values

__all__ = ["DIP", "GECO", "Capacity", "TotalCorrelation"]

PAIRS = 1 << 22  # values of q(z_i | x_j) that are held at once, where no gradient needs them


class TotalCorrelation(Objective):
    """Total correlation of the batch's codes, ``KL(q(z) || prod_j q(z_j))``.

    ``q(z)`` is the mean of the posteriors of the batch's rows, and their draws are the sample over which the
    expectation is taken: an unbiased estimate of the batch's own total correlation, which nears that of all
    rows as batches grow. A batch of one row has none, if its posterior is independent.

    Notes
    -----
    Its gradient is that of minibatch-weighted sampling, whose values differ by ``(d - 1) log N``: there each
    pair is also divided by the number N of all rows. Together with :class:`KL`, a weight of ``β - 1`` gives
    the mutual information and the dimensions' own KL the weight 1, and the total correlation ``β``.

    References
    ----------
    Chen et al. 2018, arXiv:1802.04942, equations 2 and 4, and appendix C.1.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, NegLogLik, TotalCorrelation
    >>> NegLogLik() + KL() + 5.0 * TotalCorrelation()
    nll + kl + 5 * tc
    """

    needs = frozenset({"posterior.log_prob", "posterior.marginals", "posterior.reparameterized"})

    def forward(self, trace: Trace) -> dict[str, Term]:
        rows = sum(trace.expect(_total_correlation(level.q, level.z)) for level in trace.levels)
        return {"tc": Term(rows.mean())}  # type: ignore[union-attr]

    def __repr__(self) -> str:
        return "tc"


def _total_correlation(q: Distribution, z: Tensor) -> Tensor:
    """Log q(z) - sum_j log q(z_j) of the batch's mixture, at each of ``(k, n, d)`` draws: ``(k, n)``."""
    alone, (k, n, d) = q.marginals(), z.shape
    # Relative to a draw's own posterior, in whose reach it is: its share is 1, no sum is 0, and there is no
    # need of a maximum over rows, which takes longer than all the rest.
    own = alone.log_prob(z, per_dim=True).detach()
    rows = max(1, PAIRS // (k * n * d))
    values = []
    for some, scale in zip(z.split(rows, 1), own.split(rows, 1), strict=True):
        pairs = alone.log_prob(some.unsqueeze(2), per_dim=True)  # (k, rows, n, d)
        joint = pairs.sum(-1) if alone is q else q.log_prob(some.unsqueeze(2))
        shares = (pairs - scale.unsqueeze(2)).exp().sum(2)
        values.append(joint.logsumexp(2) - (shares.log() + scale).sum(-1))
    return torch.cat(values, 1) + (d - 1) * math.log(n)


class Capacity(Warmed):
    """Distance of the KL from a number of nats, ``|KL(q(z | x) || p(z)) - C|``, which rises in training.

    It is of the batch's mean, and is logged as ``kl``. A weight far above one, as ``γ`` is in the
    publication, holds the KL at C.

    Parameters
    ----------
    nats : float
        C in the end.
    warmup : float
        Epochs over which C rises linearly from 0, half of a training at most.

    Raises
    ------
    PlanError
        If either is negative.

    References
    ----------
    Burgess et al. 2018, arXiv:1804.03599, equation 8.

    Examples
    --------
    >>> from chartae.parts.objectives import Capacity, NegLogLik
    >>> NegLogLik() + 1000.0 * Capacity(25.0, warmup=10.0)
    nll + 1000 * capacity(25, warmup=10)
    """

    needs = frozenset({"posterior.density", "prior.log_prob"})

    def __init__(self, nats: float = 25.0, *, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if nats < 0:
            raise PlanError(f"a capacity of {nats:g} nats is negative: use 0 for none")
        self.nats = nats

    def forward(self, trace: Trace) -> dict[str, Term]:
        values = _kl_values(trace)
        rows = values.sum(1)
        loss = (rows.mean() - self.share * self.nats).abs()
        return {"kl": Term(rows, per_dim=values.mean(0).detach(), loss=loss)}

    def __repr__(self) -> str:
        return f"capacity({self.nats:g}{f', warmup={self._warmup:g}' if self._warmup else ''})"


class GECO(Objective):
    """Reconstruction held at a given error by a multiplier that training moves; to be added to :class:`KL`.

    The constraint of a row is ``1/2 sum (x - point)^2 / κ^2 - D/2``, of D values: zero where their root mean
    squared error is ``κ``. It is in nats, those of a normal with that standard deviation, so that a
    multiplier of 1 is the VAE with that noise. In every training step it grows where a moving average of the
    constraint is above zero, and shrinks where it is below. Epochs are compared by the KL and a fixed
    multiple of the violation.

    Parameters
    ----------
    tolerance : float
        κ, in the model's units: standard deviations of the data where they are standardized, shares of the
        range where they lie between 0 and 1.
    rate : float
        Most that the logarithm of the multiplier grows in a step.

    Raises
    ------
    PlanError
        If the tolerance or the rate is not above zero.

    Notes
    -----
    The logarithm of the multiplier moves by ``rate`` times a moving average of ``error^2 / κ^2 - 1``, in
    which a batch counts as 1 at most: errors of the first steps would otherwise be remembered for long. The
    multiplier stays between 1e-4 and 1e4: where the error cannot be reached, there would be no end to it.

    References
    ----------
    Rezende and Viola 2018, arXiv:1810.00597, algorithm 1.

    Examples
    --------
    >>> from chartae.parts.objectives import GECO, KL
    >>> GECO(tolerance=0.1) + KL()
    geco(tolerance=0.1) + kl
    """

    needs = frozenset({"posterior.reparameterized", "likelihood.located"})
    multiplier: Tensor
    error: Tensor
    momentum = 0.9
    limits = (1e-4, 1e4)
    judged = 10.0  # nats for one of violation: more than a multiplier is where the error is reached at ease

    def __init__(self, tolerance: float = 0.2, *, rate: float = 0.02) -> None:
        super().__init__()
        if not (tolerance > 0 and rate > 0):
            raise PlanError(f"tolerance={tolerance:g}, rate={rate:g}: give numbers above 0")
        self.tolerance, self.rate = tolerance, rate
        self.register_buffer("multiplier", torch.tensor(1.0))
        self.register_buffer("error", torch.tensor(torch.nan))  # moving average; none has been seen

    def forward(self, trace: Trace) -> dict[str, Term]:
        x = trace.batch.x
        here = ~x.isnan()
        relative = (torch.where(here, x, 0.0) - trace.px.point()).square() / self.tolerance**2 - 1.0
        excess = torch.where(here, relative, 0.0)  # (k, n, *x): a value that is missing counts for nothing
        rows = 0.5 * trace.expect(excess.flatten(2).sum(2))
        multiplier = self.multiplier.clone()  # it moves before the gradient is taken
        if trace.model.training and torch.is_grad_enabled():
            self._move(excess.detach().sum() / (len(excess) * here.sum().clamp_min(1)))
        with torch.no_grad():
            violation, nll = rows.mean().clamp_min(0.0), -trace.expect(trace.log_lik)
        return {
            "constraint": Term(rows, multiplier, judged=0.0),
            "violation": Term(violation, 0.0, judged=self.judged),
            "multiplier": Term(multiplier, 0.0, unit="nats of KL per nat of the constraint"),
            "nll": Term(nll, 0.0),
        }

    @torch.no_grad()
    def _move(self, now: Tensor) -> None:
        """Follow the mean of ``error^2 / κ^2 - 1`` in a batch, where a large one counts as 1."""
        # Before it is averaged: otherwise the first, large errors would be remembered for long.
        now = now.clamp_max(1.0)
        before = torch.where(self.error.isnan(), now, self.error)
        after = torch.lerp(now, before, self.momentum)
        after = torch.where(after.isfinite(), after, self.error)  # a faulty batch leaves no trace
        self.error.copy_(after)
        step = (self.rate * after).nan_to_num(0.0).exp()
        self.multiplier.mul_(step).clamp_(*self.limits)

    def __repr__(self) -> str:
        return f"geco(tolerance={self.tolerance:g})"


class DIP(Objective):
    """Distance of the codes' covariance from the identity.

    The sum of squares beside the diagonal, and of the diagonal's distances from 1, weighted apart. ``"i"``
    takes the covariance of the posterior means in the batch, ``"ii"`` that of the codes: the mean covariance
    of the posteriors is added.

    Parameters
    ----------
    off : float
        Weight of what is beside the diagonal.
    on : float
        Weight of the diagonal.
    kind : {"i", "ii"}
        Of what the covariance is.

    Raises
    ------
    PlanError
        If a weight is negative, or there is no such kind.

    References
    ----------
    Kumar, Sattigeri and Balakrishnan 2018, arXiv:1711.00848, equations 6 and 7.

    Examples
    --------
    >>> from chartae.parts.objectives import DIP, KL, NegLogLik
    >>> NegLogLik() + KL() + DIP(10.0, 5.0)
    nll + kl + dip(off=10, on=5, kind=ii)
    """

    needs = frozenset({"posterior.point", "posterior.covariance", "posterior.reparameterized"})

    def __init__(self, off: float = 10.0, on: float = 10.0, *, kind: str = "ii") -> None:
        super().__init__()
        if off < 0 or on < 0:
            raise PlanError(f"off={off:g}, on={on:g}: weights are not negative")
        if kind not in ("i", "ii"):
            raise PlanError(f"unknown kind {kind!r}: {suggest(kind, ('i', 'ii'))}")
        self.off, self.on, self.kind = off, on, kind

    def forward(self, trace: Trace) -> dict[str, Term]:
        penalties = []
        for level in trace.levels:
            mean = level.q.point()
            gaps = mean - mean.mean(0)
            covariance = (gaps.unsqueeze(2) * gaps.unsqueeze(1)).mean(0)  # no product in half precision
            if self.kind == "ii":
                covariance = covariance + level.q.covariance().mean(0)
            diagonal = covariance.diagonal()
            beside = covariance.square().sum() - diagonal.square().sum()
            penalties.append(self.off * beside + self.on * (diagonal - 1.0).square().sum())
        return {"dip": Term(sum(penalties), unit="squared code units, squared")}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"dip(off={self.off:g}, on={self.on:g}, kind={self.kind})"
