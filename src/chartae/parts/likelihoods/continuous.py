"""Likelihoods of numbers: densities around what the decoder gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.core.spaces import Space, Units
from chartae.parts.distributions import DiagonalNormal, Laplace, NormalMixture, StudentT
from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods, mean_there
from chartae.parts.posteriors import bounded

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = [
    "LaplaceLikelihood",
    "NormalLikelihood",
    "NormalMixtureLikelihood",
    "StudentTLikelihood",
]

SMALLEST = 1e-3  # spread, in units of the data's scale: below it, likelihoods only reward rounding


class SpreadLikelihood(NetworkLikelihood):
    """Base of likelihoods with a spread that is no output of the network: what the residuals say it is.

    A spread that follows its gradient moves by about a learning rate each step, which takes longer than many
    trainings do, and codes are not used for what is within it.

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
    levels : None
        No effect.
    step : Tensor or None
        1 of the input's units in the model's.

    Raises
    ------
    PlanError
        If ``noise`` is none of these.
    """

    has_noise = True
    log_spread: Tensor
    seen: Tensor
    momentum = 0.05
    smallest = SMALLEST

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
        fixed = isinstance(noise, int | float) and not isinstance(noise, bool)
        if not (noise in ("global", "feature", "item") or (fixed and 0 < float(noise) < math.inf)):
            raise PlanError(f"noise={noise!r}: use 'global', 'feature', 'item' or a positive number")
        self.noise, self.estimated = noise, noise in ("global", "feature")
        if noise == "item":  # the network gives more than the location
            self.offers = self.offers - {"score", "located"}
            return
        self.floor = float(self._spread(torch.tensor(self.smallest)))
        size = self.shape if noise == "feature" else ()
        start = self._spread(torch.tensor(float(noise))).log() if fixed else torch.zeros(())
        self.register_buffer("log_spread", start.expand(size).clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @staticmethod
    def _spread(noise: Tensor) -> Tensor:
        """What a spread is kept as: of residuals, what is averaged over them."""
        return noise

    def _sizes(self, px: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the spread is the mean of, and the mean of what that is divided by, if by anything."""
        return self._spread(x - px.point()), None

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        return 2 if noise == "item" else 1

    def resting(self, x: Tensor) -> Tensor | None:
        location = self._rests(x)
        return torch.cat([location, torch.zeros_like(location)]) if self.noise == "item" else location

    def _rests(self, x: Tensor) -> Tensor:
        """What the network should give for the mean of rows, beside a spread."""
        return mean_there(x)

    def _split(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the location from the log of the spread; the two broadcast."""
        if self.noise == "item":
            location, log_spread = out.chunk(2, 2)
            return location, bounded(log_spread)
        # A copy: the running estimate moves on, and what was said of this batch must not.
        return out, self.log_spread.clone()

    @torch.no_grad()
    def observe(self, px: Distribution, x: Tensor, *, share: float | None = None) -> None:
        if not self.estimated:
            return
        each = torch.nanmean if self.gaps else torch.mean

        def mean(sizes: Tensor) -> Tensor:
            return each(sizes) if self.noise == "global" else each(sizes, (0, 1))

        over, under = self._sizes(px, x)
        now = mean(over) if under is None else mean(over) / mean(under)
        if self.gaps:  # a value that no row of the batch has says nothing
            now = torch.where(now.isnan(), self.log_spread.exp(), now)
        # The first batch replaces the starting value; later ones are averaged in.
        weight = 1.0 - (1.0 - self.momentum) * (self.seen > 0) if share is None else now.new_tensor(share)
        spread = torch.lerp(self.log_spread.exp(), now, weight)
        self.log_spread.copy_(spread.clamp_min(self.floor).log())
        self.seen += 1


class LocationLikelihood(SpreadLikelihood):
    """Base of densities around the decoder's output, in the units of the data's spread.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`SpreadLikelihood`.

    Raises
    ------
    PlanError
        If ``noise`` is none that is known.
    """

    offers = frozenset({"log_prob", "point", "located"})

    def _around(self, location: Tensor, log_spread: Tensor) -> Distribution:
        """Make the distribution, of batch shape ``(k, n)``."""
        raise NotImplementedError

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

    def distribution(self, out: Tensor) -> Distribution:
        return self._around(*self._split(out))


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


@likelihoods.register("student-t")
class StudentTLikelihood(LocationLikelihood):
    """Student's t around the decoder's output, for values with outliers; its tails are learned.

    Parameters
    ----------
    network, shape, noise, levels, step
        As in :class:`LocationLikelihood`; a fixed noise is the scale.

    References
    ----------
    Lange, Little and Taylor 1989, doi:10.1080/01621459.1989.10478852 (also of the estimate of the scale, by
    EM).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import StudentTLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = StudentTLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).log_prob(torch.zeros(5, 4)).shape
    torch.Size([6, 5])
    """

    offers = frozenset({"log_prob", "point"})  # its tails are learned beside the location

    def __init__(self, network: nn.Module, shape: tuple[int, ...], **options: Any) -> None:
        super().__init__(network, shape, **options)
        start = math.log(5.0)  # degrees of freedom: a variance exists, and tails are heavy
        self.log_dof = nn.Parameter(torch.full(self.shape if self.noise == "feature" else (), start))

    @staticmethod
    def _spread(noise: Tensor) -> Tensor:
        return noise.square()

    def _sizes(self, px: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        # Squares by the expected precision of each, given the scale so far: a step of EM.
        squares, dof = (x - px.point()).square(), px.log_dof.exp()
        return squares * (dof + 1) / (dof + squares / (2 * px.log_scale).exp()), None

    def _around(self, location: Tensor, log_spread: Tensor) -> Distribution:
        # Half a degree has no mean, and beyond a thousand it is a normal in float32.
        log_dof = self.log_dof.clamp(math.log(0.5), math.log(1e3))
        return StudentT(location, (0.5 * log_spread).clamp_min(math.log(SMALLEST)), log_dof, len(self.shape))


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
