"""Bounds of several samples, by their importance weights, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chartae.core.contracts import Objective, Term, Trace
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.registry import suggest
from chartae.parts.objectives.bounds import KL, NegLogLik, Warmed, _kl_values

__all__ = ["CIWAE", "IWAE", "MIWAE", "PIWAE", "elbo", "importance_bound"]

#: How an importance-weighted bound is differentiated.
GRADIENTS = ("plain", "dreg")

LEAST = 1e-16  # of a sample's share: less would move no digit of a sum
SMALL = 0.1  # of an even share: what is less goes back in proportion to its chance, or not at all


class _Weighted(Warmed):
    """Minus a bound made of importance weights, with the two terms of the ELBO logged beside it.

    The bound is the mean over ``m`` groups of the log of the mean weight of ``k`` samples, mixed by ``beta``
    with the mean of the logs of all. In a warm-up, weights are ``p(x | z) (p(z) / q(z | x))^share``.

    Its gradient is a mean of the gradients of log weights, each by its share in the bound. Most shares are
    next to nothing: where it ``rounds``, those below a tenth of an even one become that or zero, by chance.
    With ``kept`` the gradient is estimated by that many samples, and only these need a graph. With
    ``growth``, ``k`` doubles from 1 up to what it is for good.
    """

    needs = frozenset({"posterior.density", "posterior.reparameterized", "prior.log_prob"})
    name: str
    shown: tuple[str, ...] = ("gradient",)
    split = False  # whether decoder and encoder follow bounds of their own

    def __init__(
        self,
        k: int,
        *,
        m: int = 1,
        beta: float = 0.0,
        gradient: str = "plain",
        kept: int | None = None,
        growth: float = 0.0,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(warmup)
        if growth < 0:
            raise PlanError(f"growth={growth:g} is negative: use 0 for all samples from the start")
        if growth and k == 1:
            raise PlanError(f"growth={growth:g} is of the number of samples, and there is k=1: use k=5, say")
        if min(k, m) < 1:
            which = f"k={k}" if m == 1 else f"k={k}, m={m}"
            raise PlanError(f"{which}: an importance-weighted bound needs one sample or more")
        if not 0 <= beta <= 1:
            raise PlanError(f"beta={beta:g}: the share of the ELBO is from 0 to 1")
        if gradient not in GRADIENTS:
            raise PlanError(f"unknown gradient {gradient!r}: {suggest(gradient, GRADIENTS)}")
        self.k, self.m, self.beta, self.gradient = k, m, beta, gradient
        self.weighs = self.split or gradient == "dreg"
        self.kept, self.growth = kept, float(growth)
        self._draw(k)
        if kept is not None and not 1 <= kept <= self.samples:
            raise PlanError(f"kept={kept}: keep 1 to {self.samples} of the samples")
        if kept is not None and self.weighs:
            raise PlanError(f"kept={kept} is for gradient='plain', which goes by each sample's share alone")
        if self.weighs:
            self.alone = "weighs what flows back to the codes, and would weigh that of other terms, too"
            self.needs = self.needs | {"posterior.log_prob"}
        elif kept is not None:
            self.needs = self.needs | {"likelihood.repeats"}
            self.alone = "goes back through some of its samples, which are not those of other terms"

    def _draw(self, k: int) -> None:
        self.samples = k * self.m
        self.picks = self.kept is not None and self.kept < self.samples

    def advance(self, epoch: float) -> None:
        super().advance(epoch)
        if self.growth:
            doublings = math.ceil(math.log2(self.k))
            left = doublings - int(doublings * min(1.0, epoch / self.growth))
            self._draw(math.ceil(self.k / 2**left))

    @property
    def warmup(self) -> float:
        return max(self._warmup, self.growth)

    def _bound(self, log_weights: Tensor) -> Tensor:
        """Bound log p(x) by ``(m k, n)`` log weights, ``(n,)``."""
        groups = log_weights.unflatten(0, (self.m, -1)).transpose(0, 1)
        value = importance_bound(groups).mean(0)
        return torch.lerp(value, log_weights.mean(0), self.beta) if self.beta else value

    def _shares(self, log_weights: Tensor, power: int = 1) -> Tensor:
        """Derivative of the bound by each log weight, ``(m k, n)``; of power 2, what DReG has in its place.

        That is the square of a sample's share in the log of a mean, and the same in a mean of logs.
        """
        within = log_weights.unflatten(0, (self.m, -1)).softmax(1) ** power
        each = torch.full_like(within, 1 / within.shape[1])
        return (torch.lerp(within, each, self.beta) / self.m).flatten(0, 1)

    def _rounding(self, shares: Tensor, noise: Noise) -> Tensor:
        """Factors of samples' gradients, ``(m k, n)``: 1, but for small shares, of which most have 0.

        Their mean is 1. To the sum of squared shares, which is 1/k or more, they add 1/(400 k) at most.
        """
        small = SMALL / len(shares)
        stays = noise.uniform(shares.shape, shares) < shares / small
        return (small / shares).clamp_min_(1.0).masked_fill_(~stays, 0.0)

    def _log_weights(self, trace: Trace) -> Tensor:
        log_weights = trace.log_joint_ratio
        return torch.lerp(trace.log_lik, log_weights, self.share) if self._warmup else log_weights

    def pick(self, trace: Trace) -> tuple[Tensor, Tensor]:
        # By systematic draws: a sample is kept once at most, with a probability in proportion to its share.
        assert self.kept is not None
        shares = self._shares(self._log_weights(trace)).float()
        least = _threshold(shares, self.kept)
        ends = (shares / least).clamp_max(1.0).cumsum(0).T.contiguous()
        first = trace.noise.uniform((len(ends), 1), ends)
        at = first + torch.arange(self.kept, device=ends.device)
        index = torch.searchsorted(ends, at, right=True).T
        beyond, index = index == len(shares), index.clamp_max(len(shares) - 1)
        # Beyond all where fewer have any share at all: those that are left count for nothing.
        return index, shares.gather(0, index).maximum(least).masked_fill(beyond, 0.0)

    def forward(self, trace: Trace) -> dict[str, Term]:
        # First: levels keep what they have once been asked for, with or without its graph.
        log_weights = self._log_weights(trace)
        whole = trace if trace.screened is None else trace.screened
        with torch.no_grad():
            values = _kl_values(whole)
            nll = Term(-whole.expect(whole.log_lik), 0.0)
        kl_term = Term(values.sum(1), 0.0, per_dim=values.mean(0))
        if whole is not trace:
            rows = trace.expect(log_weights)
            with torch.no_grad():  # draws that bring their density have its graph in either pass
                bound = self._bound(self._log_weights(whole))
            bound = bound + (rows - rows.detach())
        else:
            bound = self._bound(log_weights)
            if self.weighs and torch.is_grad_enabled():
                bound = bound.detach() + self._slopes(trace, log_weights.detach())
            elif self.rounds and log_weights.requires_grad:
                factor = self._rounding(self._shares(log_weights.detach()), trace.noise)
                log_weights.register_hook(lambda g: g * factor)
        return {self.name: Term(-bound), "nll": nll, "kl": kl_term}

    def _slopes(self, trace: Trace, log_weights: Tensor) -> Tensor:
        """Zeros, ``(n,)``, with the gradient of the bound: a share for what made x, another for what made z.

        One pass carries both. Decoder and prior get theirs from the sum; on the way on to the encoder, a hook
        on z puts the other share in its place.
        """
        made_x = self._decoder_shares(log_weights).clamp_min(LEAST)
        made_z = self._shares(log_weights)
        if self.gradient == "dreg":  # which the weights hold log q in, as far as it has warmed up
            made_z = torch.lerp(made_z, self._shares(log_weights, 2), self.share)
        if len(trace.levels) != 1:
            raise PlanError(f"{self!r} is for one stochastic layer: use gradient='plain', or miwae for piwae")
        (level,) = trace.levels
        # log q(z) changes with z, and with what the encoder says of q while z stays: the two are told apart.
        at = level.z.detach().requires_grad_()
        log_q = level.q.log_prob(at)
        (slope,) = torch.autograd.grad(log_q.sum(), at, retain_graph=True)
        through_z = (slope * level.z).flatten(2).sum(2)
        rows = made_x * (trace.log_lik + self.share * (level.log_prior - through_z))
        if self.rounds:
            rows = rows * self._rounding(torch.maximum(made_x, made_z), trace.noise)
        if self.gradient == "plain":  # of which DReG says the mean by way of z
            rows = rows - self.share * made_z * log_q
        if level.z.requires_grad:
            ratio = (made_z / made_x).reshape(*made_x.shape, *(1,) * (level.z.dim() - 2))
            level.z.register_hook(lambda g: g * ratio)
        rows = rows.sum(0)
        return rows - rows.detach()

    def _decoder_shares(self, log_weights: Tensor) -> Tensor:
        """Derivative by each log weight of the bound that decoder and prior follow, ``(m k, n)``."""
        return self._shares(log_weights)

    def __repr__(self) -> str:
        given = {"m": self.m, "k": self.k, "beta": self.beta, "gradient": self.gradient, "kept": self.kept}
        shown = {"k", "kept", *self.shown}
        shown -= {"gradient"} if self.gradient == "plain" else set()
        shown -= {"kept"} if self.kept is None else set()
        options = [f"{n}={v}" for n, v in given.items() if n in shown]
        scheduled = {"growth": self.growth, "warmup": self._warmup}
        return f"{self.name}({', '.join(options + [f'{n}={v:g}' for n, v in scheduled.items() if v])})"


class IWAE(_Weighted):
    """Minus the importance-weighted bound, ``-E log 1/k sum_i p(x, z_i) / q(z_i | x)``.

    The two terms of the ELBO are logged beside it, with weight 0.

    Parameters
    ----------
    k : int
        Importance samples; ``k = 1`` is the ELBO with a Monte Carlo KL.
    gradient : {"plain", "dreg"}
        What the encoder learns from: the bound's own gradient, whose noise drowns it as ``k`` grows, or the
        doubly reparameterized one, of the same mean and less noise. With the latter no other term of
        the samples can be added.
    kept : int or None
        How many of the samples a step goes back through, the heaviest and some others by chance: a gradient
        of the same mean in less time and memory, and with more noise. None: all, by their weights. With
        some, no other term of the samples can be added.
    growth : float
        Epochs over which the samples of a step double from 1 up to ``k``, half of a training at most: most of
        what a decoder learns by many it learns by a few, in less time. 0 for ``k`` from the start. One sample
        empties dimensions that many would use; fewer with a ``warmup`` meanwhile.
    warmup : float
        Epochs over which the prior's and the posterior's share of the weights rises from 0 to 1, half of a
        training at most.

    Raises
    ------
    PlanError
        If ``k < 1``, there is no such gradient, more samples are kept than drawn, or the growth is negative.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8, and section 3 (a gradient by some of
    the samples; which, by Fearnhead and Clifford 2003, doi:10.1111/1467-9868.00421, section 3.2); "dreg":
    Tucker et al. 2019, arXiv:1810.04152.

    Examples
    --------
    >>> from chartae.parts.objectives import IWAE
    >>> IWAE(k=5), IWAE(k=5, gradient="dreg"), IWAE(k=50, kept=5)
    (iwae(k=5), iwae(k=5, gradient=dreg), iwae(k=50, kept=5))
    >>> growing = IWAE(k=50, growth=12)
    >>> for epoch in (0, 2, 4, 10, 12):
    ...     growing.advance(epoch)
    ...     print(growing.samples, end=" ")
    1 2 4 25 50
    """

    name = "iwae"

    def __init__(
        self,
        k: int = 5,
        *,
        gradient: str = "plain",
        kept: int | None = None,
        growth: float = 0.0,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(k, gradient=gradient, kept=kept, growth=growth, warmup=warmup)


class MIWAE(_Weighted):
    """Minus the mean of ``m`` importance-weighted bounds of ``k`` samples each.

    ``m = 1`` is :class:`IWAE`, ``k = 1`` the ELBO of ``m`` samples.

    Parameters
    ----------
    m : int
        Bounds that are averaged: more of them lower the noise of the gradient.
    k : int
        Importance samples of each: more of them tighten the bound.
    gradient : {"plain", "dreg"}
        As in :class:`IWAE`.
    kept : int or None
        As in :class:`IWAE`, of all ``m k``.
    warmup : float
        Epochs over which the prior's and the posterior's share of the weights rises from 0 to 1, half of a
        training at most.

    Raises
    ------
    PlanError
        If ``m`` or ``k`` is below one, there is no such gradient, or more samples are kept than drawn.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537, section 5; "dreg": Tucker et al. 2019, arXiv:1810.04152.

    Examples
    --------
    >>> from chartae.parts.objectives import MIWAE
    >>> MIWAE(m=3, k=5).samples
    15
    """

    name, shown = "miwae", ("m", "gradient")

    def __init__(
        self,
        m: int = 3,
        k: int = 5,
        *,
        gradient: str = "plain",
        kept: int | None = None,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(k, m=m, gradient=gradient, kept=kept, warmup=warmup)


class CIWAE(_Weighted):
    """Minus a mixture of two bounds of the same samples: ``β`` of the ELBO, the rest importance-weighted.

    Parameters
    ----------
    k : int
        Samples of each row.
    beta : float
        Share of the ELBO: 0 is :class:`IWAE`, 1 the ELBO of ``k`` samples with a Monte Carlo KL.
    gradient : {"plain", "dreg"}
        As in :class:`IWAE`.
    warmup : float
        Epochs over which the prior's and the posterior's share of the weights rises from 0 to 1, half of a
        training at most.

    Raises
    ------
    PlanError
        If ``k < 1``, ``beta`` is no share, or there is no such gradient.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537, section 5; "dreg": Tucker et al. 2019, arXiv:1810.04152.

    Examples
    --------
    >>> from chartae.parts.objectives import CIWAE
    >>> CIWAE(k=5, beta=0.5)
    ciwae(k=5, beta=0.5)
    """

    name, shown = "ciwae", ("beta", "gradient")

    def __init__(
        self, k: int = 5, beta: float = 0.5, *, gradient: str = "plain", warmup: float = 0.0
    ) -> None:
        super().__init__(k, beta=beta, gradient=gradient, warmup=warmup)


class PIWAE(_Weighted):
    """Minus two bounds of the same ``m k`` samples, each for one side.

    Decoder and prior follow the tightest, of all samples at once, which is the value of this term; the
    encoder follows the mean of ``m`` bounds of ``k`` samples, whose gradient is less noisy. No other term can
    be added.

    Parameters
    ----------
    m : int
        Bounds that are averaged for the encoder.
    k : int
        Importance samples of each.
    gradient : {"plain", "dreg"}
        As in :class:`IWAE`, of the encoder's bound.
    warmup : float
        Epochs over which the prior's and the posterior's share of the weights rises from 0 to 1, half of a
        training at most.

    Raises
    ------
    PlanError
        If ``m`` or ``k`` is below one, or there is no such gradient.

    References
    ----------
    Rainforth et al. 2018, arXiv:1802.04537, section 5; "dreg": Tucker et al. 2019, arXiv:1810.04152.

    Examples
    --------
    >>> from chartae.parts.objectives import PIWAE
    >>> PIWAE(m=3, k=5)
    piwae(m=3, k=5)
    """

    name, shown, split = "piwae", ("m", "gradient"), True

    def __init__(self, m: int = 3, k: int = 5, *, gradient: str = "plain", warmup: float = 0.0) -> None:
        super().__init__(k, m=m, gradient=gradient, warmup=warmup)

    def _bound(self, log_weights: Tensor) -> Tensor:
        return importance_bound(log_weights)

    def _decoder_shares(self, log_weights: Tensor) -> Tensor:
        return log_weights.softmax(0)


def _threshold(shares: Tensor, kept: int) -> Tensor:
    """Share from which on a sample is kept for sure, others in proportion: ``kept`` in all, ``(n,)``.

    Fearnhead and Clifford 2003, doi:10.1111/1467-9868.00421, section 3.2: no unbiased way varies less.
    """
    # Of the smallest first: what is left beside large ones would be lost in rounding.
    left = shares.sort(0).values.cumsum(0)[-kept:]
    least = left / torch.arange(1, kept + 1, device=shares.device).unsqueeze(1)
    return least.amin(0).clamp_min(torch.finfo(shares.dtype).tiny)


def elbo(
    k: int = 1,
    *,
    free_bits: float = 0.0,
    kept: int | None = None,
    growth: float = 0.0,
    warmup: float = 0.0,
) -> Objective:
    """Give the bound of k importance samples: for one of them the ELBO, in two terms.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Parameters
    ----------
    k : int
        Importance samples.
    free_bits, warmup : float
        Of :class:`KL`, or of :class:`IWAE`.
    kept, growth : int or None, float
        Of :class:`IWAE`.

    Returns
    -------
    Objective
        ``NegLogLik() + KL()``, or ``IWAE(k)``.

    Raises
    ------
    PlanError
        If free bits are asked of a bound of several samples, or growth of one.

    Examples
    --------
    >>> from chartae.parts.objectives import elbo
    >>> elbo(), elbo(5, warmup=2.0)
    (nll + kl, iwae(k=5, warmup=2))
    """
    if k == 1 and kept in (None, 1) and not growth:
        return NegLogLik() + KL(free_bits=free_bits, warmup=warmup)
    if free_bits and k > 1:
        raise PlanError(f"free_bits act on the kl term, and the bound of k={k} samples has none: use k=1")
    return IWAE(k, kept=kept, growth=growth, warmup=warmup)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Log of the mean importance weight: the one place where a bound is computed.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Parameters
    ----------
    log_weights : Tensor
        ``(k, n)`` values of log p(x, z) - log q(z | x), in nats; or ``(k, ..., n)``.

    Returns
    -------
    Tensor
        ``(n,)``, or ``(..., n)``, in nats.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import importance_bound
    >>> importance_bound(torch.zeros(5, 2))
    tensor([0., 0.])
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
