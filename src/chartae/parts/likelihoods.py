"""Likelihoods p(x | z, c): what the decoder says about x."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Likelihood
from chartae.core.errors import PlanError
from chartae.core.registry import Registry
from chartae.parts.distributions import Bernoulli, Categorical, DiagonalNormal
from chartae.parts.posteriors import bounded, full

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "NormalLikelihood", "likelihoods"]

#: Classes with ``per_value(noise, levels)``, built as ``(network, shape, noise=..., levels=...)``.
likelihoods: Registry[type[NetworkLikelihood]] = Registry("likelihood")

LOG_VAR_FLOOR = math.log(1e-6)  # a thousandth of the data's scale: below it, likelihoods only reward rounding


class NetworkLikelihood(Likelihood):
    """Base: flattens samples for the network, and unflattens after it.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``per_value`` numbers for each value of x.
    shape : tuple of int
        Shape of one item.
    noise, levels : object
        For subclasses that have a noise, or categories.

    Examples
    --------
    >>> from chartae.parts.likelihoods import BernoulliLikelihood, NetworkLikelihood
    >>> issubclass(BernoulliLikelihood, NetworkLikelihood)
    True
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(
        self, network: nn.Module, shape: tuple[int, ...], *, noise: Any = None, levels: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        """How many numbers the network gives for each value of x.

        Parameters
        ----------
        noise : object
            As in the constructor.
        levels : int or None
            As in the constructor.

        Returns
        -------
        int
            1, unless a subclass says otherwise.
        """
        return 1

    def decode(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Run the network on every sample of every row.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(k, n, *out)``, float32 or better.
        """
        k, n = z.shape[:2]
        flat = z.reshape(k * n, *z.shape[2:])
        if c is None:
            out = self.network(flat)
        else:
            out = self.network(flat, c if k == 1 else c.repeat(k, 1))
        return full(out).unflatten(0, (k, n))


@likelihoods.register("normal")
class NormalLikelihood(NetworkLikelihood):
    """A normal around the decoder's output.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``, or twice as many channels for ``noise="item"``.
    shape : tuple of int
        Shape of one item.
    noise : {"global", "feature", "item"} or float
        "global": one variance, a running estimate of the mean squared residual over training batches,
        frozen for test time; "feature": one for each value, likewise; "item": the network gives
        it for each value of each item; a float: a fixed standard deviation, in the model's units.
    levels : None
        No effect.

    Raises
    ------
    PlanError
        If ``noise`` is none of these.

    References
    ----------
    Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202 (the optimal global variance).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import NormalLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = NormalLikelihood(MLP((2,), (4,), hidden=(8,)), (4,), noise=0.5)
    >>> p(torch.zeros(1, 3, 2)).std().unique()
    tensor([0.5000])
    """

    momentum = 0.05
    log_var: Tensor
    seen: Tensor

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: str | float = "global",
        levels: int | None = None,
    ) -> None:
        super().__init__(network, shape)
        fixed = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not (noise in ("global", "feature", "item") or (fixed and 0 < float(noise) < math.inf)):
            raise PlanError(
                f"noise={noise!r}: use 'global', 'feature', 'item', or a positive standard deviation"
            )
        self.noise = noise
        self.estimated = noise in ("global", "feature")
        if noise != "item":
            start = torch.zeros(shape if noise == "feature" else ())
            self.register_buffer("log_var", start + 2 * math.log(float(noise)) if fixed else start)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 2 if noise == "item" else 1

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        out = self.decode(z, c)
        if self.noise == "item":
            mean, log_var = out.chunk(2, 2)
            return DiagonalNormal(mean, bounded(log_var), len(self.shape))
        # A copy: the running estimate moves on, and what was said of this batch must not.
        return DiagonalNormal(out, self.log_var.clone(), len(self.shape))

    @torch.no_grad()
    def observe(self, px: Distribution, x: Tensor) -> None:
        if not self.estimated:
            return
        assert isinstance(px, DiagonalNormal)
        squares = (x - px.mean).square()
        now = squares.mean() if self.noise == "global" else squares.mean((0, 1))
        # The first batch replaces the starting value; later ones are averaged in.
        share = 1.0 - (1.0 - self.momentum) * (self.seen > 0)
        self.log_var.copy_(torch.lerp(self.log_var.exp(), now, share).log().clamp_min(LOG_VAR_FLOOR))
        self.seen += 1


@likelihoods.register("bernoulli")
class BernoulliLikelihood(NetworkLikelihood):
    """Independent binary values from logits; for values between 0 and 1, the cross-entropy.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels : None
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

    continuous = False

    def __init__(
        self, network: nn.Module, shape: tuple[int, ...], *, noise: object = None, levels: int | None = None
    ):
        super().__init__(network, shape)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        return Bernoulli(self.decode(z, c), len(self.shape))


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
        self, network: nn.Module, shape: tuple[int, ...], *, noise: object = None, levels: int | None = None
    ) -> None:
        super().__init__(network, shape)
        if levels is None or levels < 2:
            raise PlanError("a categorical likelihood needs two categories or more: use 'normal'")
        self.levels = levels

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return levels or 2

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        logits = self.decode(z, c).unflatten(2, (self.levels, self.shape[0])).movedim(2, -1)
        return Categorical(logits, len(self.shape), step=1 / (self.levels - 1))
