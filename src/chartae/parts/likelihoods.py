"""Likelihoods p(x | z, c): what the decoder says about x."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Likelihood
from chartae.core.errors import DataError, PlanError
from chartae.core.registry import Registry
from chartae.core.spaces import Space, Support, Units
from chartae.parts.distributions import Bernoulli, Categorical, DiagonalNormal
from chartae.parts.posteriors import bounded, full

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["BernoulliLikelihood", "CategoricalLikelihood", "NormalLikelihood", "likelihoods"]

#: Classes with ``per_value(noise, levels)`` and ``units(facts, scale)``, built as
#: ``(network, shape, noise=..., levels=...)``.
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A score is of the very numbers that the network gave: whoever makes others of them says so anew.
        if {"forward", "decode"} & vars(cls).keys() and "offers" not in vars(cls):
            cls.offers = cls.offers - {"score"}

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

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Say how data are prepared for this likelihood, and which values it knows.

        Parameters
        ----------
        facts : Facts
            What the data look like.
        scale : {"auto", "global", "feature", "none"}
            What the user asked for.

        Returns
        -------
        Units
            The data as they are, and any number; a subclass may say otherwise.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.parts.likelihoods import likelihoods
        >>> from chartae.parts.units import Facts
        >>> data = Facts(np.array([[0.0, 16.0], [8.0, 4.0]]))
        >>> for name in likelihoods:
        ...     units = likelihoods[name].units(data)
        ...     print(name, np.round(units.center, 1), np.round(units.scale, 1), units.support)
        normal [ 4. 10.] 5.1 values
        bernoulli 0.0 16.0 values from 0 to 16
        categorical 0.0 16 whole numbers from 0 to 16
        """
        return Units()

    @staticmethod
    def noise_in_model_units(noise: Any, space: Space) -> Any:
        """Convert the user's noise to what the constructor takes.

        Parameters
        ----------
        noise : object
            As the user gives it.
        space : Space
            Of the data.

        Returns
        -------
        object
            The same, unless a subclass says otherwise.
        """
        return noise

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
        "global": one variance, the mean squared residual of the training data: a running estimate in
        training, taken once more with the final weights and then frozen; "feature": one for each
        value, likewise; "item": the network gives it for each value of each item; a float: a fixed
        standard deviation, in the model's units.
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

    offers = frozenset({"log_prob", "point", "score"})
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
        fixed = not isinstance(noise, str | bool)
        if not (noise in ("global", "feature", "item") or (fixed and 0 < float(noise) < math.inf)):
            raise PlanError(
                f"noise={noise!r}: use 'global', 'feature', 'item', or a positive standard deviation"
            )
        self.noise = noise
        if noise == "item":
            self.offers = self.offers - {"score"}
        self.estimated = noise in ("global", "feature")
        if noise != "item":
            start = torch.zeros(shape if noise == "feature" else ())
            self.register_buffer("log_var", start + 2 * math.log(float(noise)) if fixed else start)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 2 if noise == "item" else 1

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return facts.standardized(scale)

    @staticmethod
    def noise_in_model_units(noise: Any, space: Space) -> Any:
        """Convert a standard deviation in the input's units to the model's.

        Parameters
        ----------
        noise : str or float
            As in the constructor, but in the input's units.
        space : Space
            Of the data.

        Returns
        -------
        str or float
            In the model's units.

        Raises
        ------
        PlanError
            If columns have different scales, so that one number in the input's units is many in the model's.
        """
        if isinstance(noise, str | bool):
            return noise
        scales = space.scale.flatten()
        if bool((scales != scales[0]).any()):
            raise PlanError(
                f"noise={noise!r} is one standard deviation in the input's units, and columns have different "
                "scales: pass scale='global', or noise='global'"
            )
        return float(noise) / float(scales[0])

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        out = self.decode(z, c)
        if self.noise == "item":
            mean, log_var = out.chunk(2, 2)
            return DiagonalNormal(mean, bounded(log_var), len(self.shape))
        # A copy: the running estimate moves on, and what was said of this batch must not.
        return DiagonalNormal(out, self.log_var.clone(), len(self.shape))

    @torch.no_grad()
    def observe(self, px: Distribution, x: Tensor, *, share: float | None = None) -> None:
        if not self.estimated:
            return
        assert isinstance(px, DiagonalNormal)
        squares = (x - px.mean).square()
        now = squares.mean() if self.noise == "global" else squares.mean((0, 1))
        # The first batch replaces the starting value; later ones are averaged in.
        weight = 1.0 - (1.0 - self.momentum) * (self.seen > 0) if share is None else now.new_tensor(share)
        self.log_var.copy_(torch.lerp(self.log_var.exp(), now, weight).log().clamp_min(LOG_VAR_FLOOR))
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

    offers = frozenset({"log_prob", "point", "score"})
    continuous = False

    def __init__(
        self, network: nn.Module, shape: tuple[int, ...], *, noise: object = None, levels: int | None = None
    ):
        super().__init__(network, shape)

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

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        logits = self.decode(z, c).unflatten(2, (self.levels, self.shape[0])).movedim(2, -1)
        return Categorical(logits, len(self.shape), step=1 / (self.levels - 1))
