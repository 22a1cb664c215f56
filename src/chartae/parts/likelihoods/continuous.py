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
from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods
from chartae.parts.likelihoods.spreads import SMALLEST, SpreadLikelihood
from chartae.parts.posteriors import bounded

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = [
    "LaplaceLikelihood",
    "NormalLikelihood",
    "NormalMixtureLikelihood",
    "StudentTLikelihood",
]


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
