"""The evidence lower bound, in nats: its terms, and how they warm up."""

from __future__ import annotations

import torch
from torch import Tensor

from chartae.core.contracts import Objective, Term, Trace
from chartae.core.errors import PlanError
from chartae.parts.distributions import kl

__all__ = ["KL", "NegLogLik", "Warmed"]


class Warmed(Objective):
    """Objective with a share that rises from 0 to 1 over the first epochs of training, once or several times.

    Each cycle of ``P`` epochs rises for its first half and stays at 1 for its second; the last one rises up
    to the end of the warm-up and stays for good: ``warmup = (cycles - 1/2) P``. One cycle is a straight line.

    Parameters
    ----------
    warmup : float
        Epochs until it is 1 for good, half of a training at most; 0 for none. Outside of training the share
        is 1.
    cycles : int
        How often it rises.

    Raises
    ------
    PlanError
        If the warm-up is negative, or there is less than one cycle.

    References
    ----------
    Sønderby et al. 2016, arXiv:1602.02282, section 2.3; Bowman et al. 2016, arXiv:1511.06349; cycles: Fu et
    al. 2019, arXiv:1903.10145, equations 6 and 7 with R = 1/2.

    Examples
    --------
    >>> from chartae.parts.objectives import KL
    >>> kl, cyclical = KL(warmup=4), KL(warmup=6, cycles=2)
    >>> for epoch in (1.0, 3.0, 5.0):
    ...     kl.advance(epoch)
    ...     cyclical.advance(epoch)
    ...     print(float(kl.share), float(cyclical.share))
    0.25 0.5
    0.75 1.0
    1.0 0.5
    """

    share: Tensor

    def __init__(self, warmup: float, cycles: int = 1) -> None:
        super().__init__()
        if warmup < 0:
            raise PlanError(f"warmup={warmup:g} is negative: use 0 to switch it off")
        if cycles < 1:
            raise PlanError(f"cycles={cycles}: a warm-up rises once or more")
        self._warmup, self.cycles = float(warmup), cycles
        self.register_buffer("share", torch.tensor(1.0))

    def advance(self, epoch: float) -> None:
        if self._warmup:
            period = self._warmup / (self.cycles - 0.5)
            self.share.fill_(min(1.0, 2 * (epoch % period) / period) if epoch < self._warmup else 1.0)

    @property
    def warmup(self) -> float:
        return self._warmup


class NegLogLik(Objective):
    """Expected negative log-likelihood, ``E_q[-log p(x | z)]``.

    Notes
    -----
    In the input's units: the logarithm of the scale of standardized data is counted.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, equation 3, second term.

    Examples
    --------
    >>> from chartae.parts.objectives import NegLogLik
    >>> NegLogLik()
    nll
    """

    needs = frozenset({"posterior.reparameterized"})

    def forward(self, trace: Trace) -> dict[str, Term]:
        return {"nll": Term(-trace.expect(trace.log_lik))}

    def __repr__(self) -> str:
        return "nll"


class KL(Warmed):
    """KL(q(z | x) || p(z)): in closed form where the pair has one, by Monte Carlo otherwise.

    Parameters
    ----------
    free_bits : float
        Nats of each latent dimension, averaged over the batch, that cost nothing; where the KL of a code
        cannot be split, those of all dimensions together.
    warmup : float
        Epochs over which the weight rises linearly from 0 to 1, half of a training at most.
    cycles : int
        How often it rises within them (see :class:`Warmed`).
    closed : bool
        False forces Monte Carlo.

    Raises
    ------
    PlanError
        If ``free_bits`` or ``warmup`` is negative, or there is less than one cycle.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, equation 3; free bits: Kingma et al. 2016,
    arXiv:1606.04934, equation 15; warm-up: Sønderby et al. 2016, arXiv:1602.02282; cycles: Fu et al. 2019,
    arXiv:1903.10145.

    Examples
    --------
    >>> from chartae.parts.objectives import KL
    >>> 4.0 * KL(free_bits=0.1)
    4 * kl(free_bits=0.1)
    """

    needs = frozenset({"posterior.density", "prior.log_prob"})

    def __init__(
        self, *, free_bits: float = 0.0, warmup: float = 0.0, cycles: int = 1, closed: bool = True
    ) -> None:
        super().__init__(warmup, cycles)
        if free_bits < 0:
            raise PlanError(f"free_bits={free_bits:g} is negative: use 0 to switch them off")
        self.free_bits, self.closed = free_bits, closed

    def forward(self, trace: Trace) -> dict[str, Term]:
        each = _kl_levels(trace, self.closed)
        values = torch.cat(each, 1)
        per_dim, loss = values.mean(0), None
        if self.free_bits:
            # Where a KL cannot be split, its one number has what is free of all dimensions.
            dims = [level.z.shape[-1] / v.shape[1] for level, v in zip(trace.levels, each, strict=True)]
            free = [v.new_full((v.shape[1],), self.free_bits * d) for v, d in zip(each, dims, strict=True)]
            loss = torch.maximum(per_dim, torch.cat(free)).sum()
        weight = self.share if self._warmup else 1.0
        return {"kl": Term(values.sum(1), weight, per_dim=per_dim.detach(), loss=loss)}

    def __repr__(self) -> str:
        shown = {
            "free_bits": self.free_bits,
            "warmup": self._warmup,
            "cycles": (self.cycles > 1) * self.cycles,
        }
        options = [f"{k}={v:g}" for k, v in shown.items() if v]
        return f"kl({', '.join(options)})" if options else "kl"


def _kl_levels(trace: Trace, closed: bool = True) -> list[Tensor]:
    """KL(q || p) of each row and latent dimension, ``(n, d)``; ``(n, 1)`` where it cannot be split."""
    values = []
    for level in trace.levels:
        assert level.p is not None
        value = kl(level.q, level.p) if closed else None
        if value is None and level.drawn.log_prob is None and level.p.splits:
            split = (p.log_prob(level.z, per_dim=True) for p in (level.q, level.p))
            value = trace.expect(next(split) - next(split))
        elif value is None:  # a density of all dimensions together
            value = trace.expect(level.log_posterior - level.log_prior).unsqueeze(1)
        values.append(value)
    return values


def _kl_values(trace: Trace) -> Tensor:
    return torch.cat(_kl_levels(trace), 1)
