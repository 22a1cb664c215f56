"""The evidence lower bound and its kin, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chartae.core.contracts import Objective, Term, Trace
from chartae.core.errors import PlanError
from chartae.parts.distributions import kl

__all__ = ["IWAE", "KL", "NegLogLik", "importance_bound"]


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


class KL(Objective):
    """KL(q(z | x) || p(z)): in closed form where the pair has one, by Monte Carlo otherwise.

    Parameters
    ----------
    free_bits : float
        Nats of each latent dimension, averaged over the batch, that cost nothing.
    warmup : float
        Epochs over which the weight rises linearly from 0 to 1.
    closed : bool
        False forces Monte Carlo.

    Raises
    ------
    PlanError
        If ``free_bits`` or ``warmup`` is negative.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, equation 3; free bits: Kingma et al. 2016,
    arXiv:1606.04934, equation 15; warm-up: Sønderby et al. 2016, arXiv:1602.02282.

    Examples
    --------
    >>> from chartae.parts.objectives import KL
    >>> 4.0 * KL(free_bits=0.1)
    4 * kl(free_bits=0.1)
    """

    needs = frozenset({"posterior.density", "prior.log_prob"})

    def __init__(self, *, free_bits: float = 0.0, warmup: float = 0.0, closed: bool = True) -> None:
        super().__init__()
        if free_bits < 0 or warmup < 0:
            raise PlanError("free_bits and warmup are not negative: use 0 to switch them off")
        self.free_bits, self._warmup, self.closed = free_bits, warmup, closed
        self.register_buffer("weight", torch.tensor(0.0 if warmup else 1.0))

    def forward(self, trace: Trace) -> dict[str, Term]:
        values = _kl_values(trace, self.closed)
        per_dim = values.mean(0)
        loss = per_dim.clamp_min(self.free_bits).sum() if self.free_bits else None
        weight = self.weight if self._warmup else 1.0
        return {"kl": Term(values.sum(1), weight, per_dim=per_dim.detach(), loss=loss)}  # type: ignore[arg-type]

    def advance(self, epoch: float) -> None:
        if self._warmup:
            self.weight.fill_(min(1.0, epoch / self._warmup))  # type: ignore[operator]

    @property
    def warmup(self) -> float:
        return self._warmup

    def __repr__(self) -> str:
        options = [f"{k}={v:g}" for k, v in (("free_bits", self.free_bits), ("warmup", self._warmup)) if v]
        return f"kl({', '.join(options)})" if options else "kl"


def _kl_values(trace: Trace, closed: bool = True) -> Tensor:
    """KL(q || p) of each row and latent dimension, ``(n, d)``; ``(n, 1)`` where it cannot be split."""
    values = []
    for level in trace.levels:
        assert level.p is not None
        value = kl(level.q, level.p) if closed else None
        if value is None and level.drawn.log_prob is None:
            split = (p.log_prob(level.z, per_dim=True) for p in (level.q, level.p))
            value = trace.expect(next(split) - next(split))
        elif value is None:  # the draw came with its density, which is of all dimensions together
            value = trace.expect(level.log_posterior - level.log_prior).unsqueeze(1)
        values.append(value)
    return values[0] if len(values) == 1 else torch.cat(values, 1)


class IWAE(Objective):
    """Minus the importance-weighted bound, ``-E log 1/k sum_i p(x, z_i) / q(z_i | x)``.

    The two terms of the ELBO are logged beside it, with weight 0.

    Parameters
    ----------
    k : int
        Importance samples; ``k = 1`` is the ELBO with a Monte Carlo KL.

    Raises
    ------
    PlanError
        If ``k < 1``.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Examples
    --------
    >>> from chartae.parts.objectives import IWAE
    >>> IWAE(k=5)
    iwae(k=5)
    """

    needs = frozenset({"posterior.density", "posterior.reparameterized", "prior.log_prob"})

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        if k < 1:
            raise PlanError(f"k={k}: an importance-weighted bound needs one sample or more")
        self.samples = k

    def forward(self, trace: Trace) -> dict[str, Term]:
        with torch.no_grad():
            values = _kl_values(trace)
            nll = Term(-trace.expect(trace.log_lik), 0.0)
        kl_term = Term(values.sum(1), 0.0, per_dim=values.mean(0))
        return {"iwae": Term(-importance_bound(trace.log_joint_ratio)), "nll": nll, "kl": kl_term}

    def __repr__(self) -> str:
        return f"iwae(k={self.samples})"


def importance_bound(log_weights: Tensor) -> Tensor:
    """Log of the mean importance weight: the one place where a bound is computed.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Parameters
    ----------
    log_weights : Tensor
        ``(k, n)`` values of log p(x, z) - log q(z | x), in nats.

    Returns
    -------
    Tensor
        ``(n,)``, in nats.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import importance_bound
    >>> importance_bound(torch.zeros(5, 2))
    tensor([0., 0.])
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
