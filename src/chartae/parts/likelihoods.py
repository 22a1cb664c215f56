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
from chartae.parts.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiagonalNormal,
    Laplace,
    NegativeBinomial,
    NormalMixture,
    Poisson,
    StudentT,
)
from chartae.parts.networks import center
from chartae.parts.posteriors import bounded, full

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulliLikelihood",
    "LaplaceLikelihood",
    "NegativeBinomialLikelihood",
    "NormalLikelihood",
    "NormalMixtureLikelihood",
    "PoissonLikelihood",
    "StudentTLikelihood",
    "likelihoods",
]

#: Classes with ``per_value(noise, levels)`` and ``units(facts, scale)``, built by
#: ``of(space, network, noise)``.
likelihoods: Registry[type[NetworkLikelihood]] = Registry("likelihood")

SMALLEST = 1e-3  # spread, in units of the data's scale: below it, likelihoods only reward rounding


class NetworkLikelihood(Likelihood):
    """Base: flattens samples for the network, and unflattens after it.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``per_value`` numbers for each value of x.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : object
        For subclasses that have a noise, or categories, or whole numbers: ``step`` is 1 of the input's units
        in the model's, a number or an array that broadcasts against an item.

    Examples
    --------
    >>> from chartae.parts.likelihoods import BernoulliLikelihood, NetworkLikelihood
    >>> issubclass(BernoulliLikelihood, NetworkLikelihood)
    True
    """

    offers = frozenset({"log_prob", "point"})
    step: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Both are of the very numbers that the network gave: whoever makes others of them says so anew.
        if {"forward", "decode", "distribution"} & vars(cls).keys() and "offers" not in vars(cls):
            cls.offers = cls.offers - {"score", "located"}

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: Any = None,
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)
        # Not kept: it follows from the units of the data, which are.
        self.register_buffer("step", torch.as_tensor(1.0 if step is None else step), persistent=False)

    @classmethod
    def of(cls, space: Space, network: nn.Module, noise: Any = None, hide: float = 0.0) -> NetworkLikelihood:
        """Make the likelihood of the items of a space.

        Parameters
        ----------
        space : Space
            Shape and units of the data.
        network : nn.Module
            From ``(n, d)`` to ``out_shape(space, noise)``.
        noise : object
            As the user gives it.
        hide : float
            Share of an item's values that the decoder does not see in training, where it sees any.

        Returns
        -------
        NetworkLikelihood
            Of this class.
        """
        noise = cls.noise_in_model_units(noise, space)
        step = 1.0 / space.scale.float()
        made = cls(network, space.model_shape, noise=noise, levels=space.levels, step=step)
        made.gaps = space.gaps
        return made

    @classmethod
    def out_shape(cls, space: Space, noise: Any = None) -> tuple[int, ...]:
        """Say what the network must give for an item.

        Parameters
        ----------
        space : Space
            Shape and units of the data.
        noise : object
            As the user gives it.

        Returns
        -------
        tuple of int
            :meth:`per_value` times as many channels as an item has.
        """
        return (cls.per_value(noise, space.levels) * space.model_shape[0], *space.model_shape[1:])

    def begin(self, x: Tensor, c: Tensor | None) -> None:
        resting = self.resting(x)
        if resting is not None:
            center(self.network, resting)

    def resting(self, x: Tensor) -> Tensor | None:
        """Say what the network should give where it knows nothing of an item: what suits their mean.

        Parameters
        ----------
        x : Tensor
            Of shape ``(n, *x)``: training rows; NaN where a value is missing.

        Returns
        -------
        Tensor or None
            Of shape ``(*out_shape)``; None where a likelihood does not say.
        """
        return None

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        return self.distribution(self.decode(z, c))

    def guided(self, z: Tensor, c: Tensor, null: Tensor, guidance: float) -> Distribution:
        """Decode beyond the condition: from what the network gives without it, through what it gives with it.

        What is moved is the numbers that the network gave, of which every likelihood makes its parameters:
        logits, log rates, means and log spreads.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor
            ``(n, m)`` condition.
        null : Tensor
            ``(n, m)``, no condition.
        guidance : float
            w: 0 is p(x | z), 1 is p(x | z, c), and more goes on in that direction.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.

        Raises
        ------
        PlanError
            If a subclass has a ``forward`` of its own.

        References
        ----------
        Ho and Salimans 2022, arXiv:2207.12598, equation 6, with its w one larger, here of a decoder's
        output.

        Examples
        --------
        >>> import torch
        >>> from chartae.parts.likelihoods import BernoulliLikelihood
        >>> from chartae.parts.networks import MLP
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> p = BernoulliLikelihood(MLP((2,), (4,), hidden=(8,), condition_dim=1), (4,))
        >>> z, c, null = torch.zeros(1, 3, 2), torch.ones(3, 1), torch.zeros(3, 1)
        >>> bool((p.guided(z, c, null, 1.0).point() == p(z, c).point()).all())
        True
        """
        if type(self).forward is not NetworkLikelihood.forward:
            raise PlanError(
                f"guidance calls decode and distribution, and {type(self).__name__} has a forward of its "
                "own: write these two in its place"
            )
        # lerp gives either end to the last bit.
        return self.distribution(torch.lerp(self.decode(z, null), self.decode(z, c), guidance))

    def distribution(self, out: Tensor) -> Distribution:
        """Read what the network gave.

        Parameters
        ----------
        out : Tensor
            ``(k, n, *out_shape)``.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.

        Raises
        ------
        NotImplementedError
            If a subclass has neither this nor a ``forward`` of its own.
        """
        raise NotImplementedError

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
        >>> for name in ("normal", "bernoulli", "categorical", "poisson"):
        ...     units = likelihoods[name].units(data)
        ...     print(name, np.round(units.center, 1), np.round(units.scale, 1), units.support)
        normal [ 4. 10.] 5.1 values
        bernoulli 0.0 16.0 values from 0 to 16
        categorical 0.0 16 whole numbers from 0 to 16
        poisson 0.0 7.0 whole numbers from 0 up
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


class LocationLikelihood(NetworkLikelihood):
    """Base of densities around the decoder's output, whose spread is that of the residuals.

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
    levels, step : None
        No effect.

    Raises
    ------
    PlanError
        If ``noise`` is none of these.
    """

    offers = frozenset({"log_prob", "point", "located"})
    log_spread: Tensor
    seen: Tensor
    momentum = 0.05

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: Any = "global",
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__(network, shape)
        fixed = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not (noise in ("global", "feature", "item") or (fixed and 0 < float(noise) < math.inf)):
            raise PlanError(f"noise={noise!r}: use 'global', 'feature', 'item' or a positive number")
        self.noise, self.estimated = noise, noise in ("global", "feature")
        if noise == "item":  # the network gives more than the location
            self.offers = self.offers - {"score", "located"}
            return
        self.floor = float(self._spread(torch.tensor(SMALLEST)).log())
        size = self.shape if noise == "feature" else ()
        start = self._spread(torch.tensor(float(noise))).log() if fixed else torch.zeros(())
        self.register_buffer("log_spread", start.expand(size).clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def _spread(residual: Tensor) -> Tensor:
        """Say what is averaged over residuals, of which the estimate of the spread is the mean."""
        raise NotImplementedError

    def _around(self, location: Tensor, log_spread: Tensor) -> Distribution:
        """Make the distribution, of batch shape ``(k, n)``."""
        raise NotImplementedError

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
        if noise is None:
            return "global"
        if isinstance(noise, str | bool):
            return noise
        scales = space.scale.flatten()
        if bool((scales != scales[0]).any()):
            raise PlanError(
                f"noise={noise!r} is one standard deviation in the input's units, and columns have different "
                "scales: pass scale='global', or noise='global'"
            )
        return float(noise) / float(scales[0])

    def resting(self, x: Tensor) -> Tensor | None:
        return _beside_spread(_mean(x), self.noise)

    def distribution(self, out: Tensor) -> Distribution:
        if self.noise == "item":
            location, log_spread = out.chunk(2, 2)
            return self._around(location, bounded(log_spread))
        # A copy: the running estimate moves on, and what was said of this batch must not.
        return self._around(out, self.log_spread.clone())

    @torch.no_grad()
    def observe(self, px: Distribution, x: Tensor, *, share: float | None = None) -> None:
        if not self.estimated:
            return
        sizes = self._spread(x - px.point())
        mean = torch.nanmean if self.gaps else torch.mean
        now = mean(sizes) if self.noise == "global" else mean(sizes, (0, 1))
        if self.gaps:  # a value that no row of the batch has says nothing
            now = torch.where(now.isnan(), self.log_spread.exp(), now)
        # The first batch replaces the starting value; later ones are averaged in.
        weight = 1.0 - (1.0 - self.momentum) * (self.seen > 0) if share is None else now.new_tensor(share)
        self.log_spread.copy_(torch.lerp(self.log_spread.exp(), now, weight).log().clamp_min(self.floor))
        self.seen += 1


@likelihoods.register("normal")
class NormalLikelihood(LocationLikelihood):
    """A normal around the decoder's output; its variance is the mean squared residual.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`LocationLikelihood`; a fixed noise is a standard deviation.

    Raises
    ------
    PlanError
        If ``noise`` is none that is known.

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

    offers = frozenset({"log_prob", "point", "score", "located"})

    @staticmethod
    def _spread(residual: Tensor) -> Tensor:
        return residual.square()

    def _around(self, location: Tensor, log_spread: Tensor) -> Distribution:
        return DiagonalNormal(location, log_spread, len(self.shape))


@likelihoods.register("laplace")
class LaplaceLikelihood(LocationLikelihood):
    """A Laplace density around the decoder's output, which a few wild values move less than a normal.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`LocationLikelihood`; a fixed noise is the scale b, the mean absolute deviation.

    References
    ----------
    Norton 1984, doi:10.1080/00031305.1984.10483185 (the mean absolute residual maximizes the likelihood).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import LaplaceLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = LaplaceLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    @staticmethod
    def _spread(residual: Tensor) -> Tensor:
        return residual.abs()

    def _around(self, location: Tensor, log_spread: Tensor) -> Distribution:
        return Laplace(location, log_spread, len(self.shape))


class LearnedSpread(NetworkLikelihood):
    """Base of likelihoods whose spread is learned by its gradient: one for all values, or one for each.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``, or twice as many channels for ``noise="item"``.
    shape : tuple of int
        Shape of one item.
    noise : {"global", "feature", "item"}
        One spread for all values, one for each value, or one that the network gives.
    levels : None
        No effect.
    step : Tensor or None
        1 of the input's units in the model's.

    Raises
    ------
    PlanError
        If ``noise`` is none of these.
    """

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
        if noise not in ("global", "feature", "item"):
            raise PlanError(f"noise={noise!r}: use 'global', 'feature' or 'item' with this likelihood")
        self.noise = noise
        if noise != "item":
            self.log_spread = nn.Parameter(torch.zeros(self.shape if noise == "feature" else ()))

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 2 if noise == "item" else 1

    def resting(self, x: Tensor) -> Tensor | None:
        return _beside_spread(_mean(x), self.noise)

    def _split(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the location from the log of the spread, bounded; the two broadcast."""
        if self.noise == "item":
            location, log_spread = out.chunk(2, 2)
            return location, bounded(log_spread)
        return out, bounded(self.log_spread)


@likelihoods.register("student-t")
class StudentTLikelihood(LearnedSpread):
    """Student's t around the decoder's output, for values with outliers; scale and tails are learned.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`LearnedSpread`; the spread is the scale.

    References
    ----------
    Lange, Little and Taylor 1989, doi:10.1080/01621459.1989.10478852.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import StudentTLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = StudentTLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(network, shape, **options)
        start = math.log(5.0)  # degrees of freedom: a variance exists, and tails are heavy
        self.log_dof = nn.Parameter(torch.full(self.shape if self.noise == "feature" else (), start))

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return facts.standardized(scale)

    def distribution(self, out: Tensor) -> Distribution:
        location, log_scale = self._split(out)
        # Half a degree has no mean, and beyond a thousand it is a normal in float32.
        log_dof = self.log_dof.clamp(math.log(0.5), math.log(1e3))
        return StudentT(location, log_scale.clamp_min(math.log(SMALLEST)), log_dof, len(self.shape))


@likelihoods.register("normal-mixture")
class NormalMixtureLikelihood(NetworkLikelihood):
    """A mixture of normals for each value, given by the decoder: for skewed and many-peaked values.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to 15 times as many channels as x has: weights, means and spreads of five normals.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : None
        No effect.

    References
    ----------
    Bishop 1994, "Mixture density networks", equation 22.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import NormalMixtureLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = NormalMixtureLikelihood(MLP((2,), (15 * 4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    starts: Tensor
    components = 5

    def __init__(self, network: nn.Module, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(network, shape)
        # Components that start alike would stay alike.
        self.register_buffer("starts", torch.linspace(-1.5, 1.5, self.components), persistent=False)

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 3 * NormalMixtureLikelihood.components

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return facts.standardized(scale)

    def distribution(self, out: Tensor) -> Distribution:
        parts = out.unflatten(2, (3, self.components, self.shape[0])).movedim(3, -1).unbind(2)
        logits, mean, log_scale = parts
        log_scale = bounded(log_scale - 0.5).clamp_min(math.log(SMALLEST))
        return NormalMixture(logits, mean + self.starts, log_scale, len(self.shape))


@likelihoods.register("bernoulli")
class BernoulliLikelihood(NetworkLikelihood):
    """Independent binary values from logits; for values between 0 and 1, the cross-entropy.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : None
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

    offers = frozenset({"log_prob", "point", "score", "located"})
    continuous = False

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

    def resting(self, x: Tensor) -> Tensor | None:
        return _mean(x, 0.5).logit()

    def distribution(self, out: Tensor) -> Distribution:
        return Bernoulli(out, len(self.shape))


@likelihoods.register("continuous-bernoulli")
class ContinuousBernoulliLikelihood(NetworkLikelihood):
    """A density on [0, 1] from logits: what the cross-entropy of gray values should have been.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : None
        No effect.

    References
    ----------
    Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import ContinuousBernoulliLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = ContinuousBernoulliLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    offers = frozenset({"log_prob", "point", "located"})

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return BernoulliLikelihood.units(facts, scale)

    def distribution(self, out: Tensor) -> Distribution:
        return ContinuousBernoulli(out, len(self.shape))


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
    step : float or None
        Between the values of neighboring categories; None: they lie evenly on [0, 1].

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
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: object = None,
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__(network, shape, step=1 / max(1, (levels or 1) - 1) if step is None else step)
        if levels is None or levels < 1:
            raise PlanError("a categorical likelihood needs the number of categories: use 'normal'")
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

    def resting(self, x: Tensor) -> Tensor | None:
        place = (x / self.step).round()
        each = [
            _mean((place == i).to(x.dtype).where(~x.isnan(), x), 1 / self.levels) for i in range(self.levels)
        ]
        return torch.cat(each).log()

    def distribution(self, out: Tensor) -> Distribution:
        logits = out.unflatten(2, (self.levels, self.shape[0])).movedim(2, -1)
        return Categorical(logits, len(self.shape), step=self.step)


def _mean(x: Tensor, prior: Any = None) -> Tensor:
    """Mean (*x) of rows (n, *x) over what is there, and one more row, of ``prior``."""
    there = (~x.isnan()).sum(0)
    total = x.nansum(0)
    return total / there.clamp_min(1) if prior is None else (total + prior) / (there + 1)


def _beside_spread(location: Tensor, noise: Any) -> Tensor:
    """The location, and log spreads of zero where the network gives those as well."""
    return torch.cat([location, torch.zeros_like(location)]) if noise == "item" else location


def _counted(facts: Facts, scale: str) -> Units:
    """Units of counts: one is their mean, so that a decoder that says nothing says the mean."""
    if facts.low < 0 or not facts.whole:
        raise DataError(
            f"counts are whole numbers from 0 up, and values lie in [{facts.low:g}, {facts.high:g}]"
            f"{'' if facts.whole else ', some between whole numbers'}: use 'normal'"
        )
    mean = facts.moments[0]
    each = scale == "feature" or (scale == "auto" and facts.named)
    unit = np.where(mean > 0, mean, 1.0) if each else float(mean.mean()) or 1.0
    return Units(scale=unit, support=Support(0.0, whole=True))


@likelihoods.register("poisson")
class PoissonLikelihood(NetworkLikelihood):
    """Independent counts whose rates the decoder gives, as logarithms.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``(n, *x)``.
    shape : tuple of int
        Shape of one item.
    noise, levels : None
        No effect.
    step : Tensor or None
        A count of 1 in the model's units.

    References
    ----------
    Gopalan, Hofman and Blei 2015, arXiv:1311.1704 (counts from latent factors).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import PoissonLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = PoissonLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.ones(5, 4)).shape
    torch.Size([6, 5])
    """

    offers = frozenset({"log_prob", "point", "located"})
    continuous = False

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return _counted(facts, scale)

    def resting(self, x: Tensor) -> Tensor | None:
        return _mean(x, self.step).log()

    def distribution(self, out: Tensor) -> Distribution:
        return Poisson(bounded(out) - self.step.log(), len(self.shape), step=self.step)


@likelihoods.register("negative-binomial")
class NegativeBinomialLikelihood(LearnedSpread):
    """Independent counts that vary more than a Poisson's; means from the decoder, dispersion learned.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`LearnedSpread`; the spread is the inverse of the dispersion r, so that the variance is
        mean + spread * mean^2.

    References
    ----------
    Lopez et al. 2018, doi:10.1038/s41592-018-0229-2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import NegativeBinomialLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = NegativeBinomialLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.ones(5, 4)).shape
    torch.Size([6, 5])
    """

    continuous = False

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        return _counted(facts, scale)

    def resting(self, x: Tensor) -> Tensor | None:
        return _beside_spread(_mean(x, self.step).log(), self.noise)

    def distribution(self, out: Tensor) -> Distribution:
        log_mean, log_spread = self._split(out)
        return NegativeBinomial(
            bounded(log_mean) - self.step.log(), -log_spread, len(self.shape), step=self.step
        )
