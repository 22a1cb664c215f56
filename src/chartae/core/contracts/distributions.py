"""What is drawn, and from what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from chartae.core.noise import Noise

__all__ = ["Distribution", "Draw"]


class Draw(NamedTuple):
    """Samples, and what their distribution knows about them.

    Attributes
    ----------
    z : Tensor
        ``(k, *batch, *event)``.
    log_prob : Tensor or None
        ``(k, *batch)`` in nats, where the draw comes with its density (flows); None: ask ``log_prob``.
    auxiliary : Mapping
        Named extra terms, such as a codebook's.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Draw
    >>> Draw(torch.zeros(1, 2, 3)).log_prob is None
    True
    """

    z: Tensor
    log_prob: Tensor | None = None
    auxiliary: Mapping[str, Tensor] = {}

    def at(self, index: Tensor) -> Draw:
        """Keep some of the samples.

        Parameters
        ----------
        index : Tensor
            ``(m, *batch)``, which of the ``k`` of each.

        Returns
        -------
        Draw
            Of ``m`` samples, without what is auxiliary.

        Examples
        --------
        >>> import torch
        >>> from chartae.core.contracts import Draw
        >>> Draw(torch.arange(6.0).reshape(3, 2, 1)).at(torch.tensor([[2, 0]])).z[..., 0]
        tensor([[4., 1.]])
        """
        wide = index.reshape(*index.shape, *(1,) * (self.z.dim() - index.dim()))
        z = self.z.gather(0, wide.expand(*index.shape, *self.z.shape[index.dim() :]))
        return Draw(z, None if self.log_prob is None else self.log_prob.gather(0, index))


class Distribution(ABC):
    """Where a value may lie: ``batch_shape`` many distributions over values of ``event_shape``.

    ``offers`` names what it can do; an objective's ``needs`` are held against it when a plan is built.

    ===================  =====================================================================
    "log_prob"           the density of any value
    "mass"               what log_prob gives is a mass: its values are discrete, whatever they lie among
    "density"            the density of its own draws, which is less to ask
    "point"              a value to show
    "reparameterized"    draws pass gradients on to its parameters
    "conditional"        the distribution of some dimensions given others
    "marginals"          the distribution of each dimension by itself
    "covariance"         the covariance of its dimensions
    ===================  =====================================================================

    ``splits`` tells whether ``per_dim`` says something of each dimension by itself; where dimensions hang
    together, an estimated KL is not split over them.
    ``codimension`` counts the dimensions that its values lack: 1 on a sphere, where densities are of area.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal
    >>> p = DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2))
    >>> p.batch_shape, p.event_shape, {"log_prob", "point"} <= p.offers
    (torch.Size([5]), torch.Size([2]), True)
    """

    offers: frozenset[str] = frozenset()
    splits: bool = True
    codimension: int = 0

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of distributions."""

    @property
    @abstractmethod
    def event_shape(self) -> torch.Size:
        """Shape of one value."""

    @abstractmethod
    def draw(self, k: int, noise: Noise) -> Draw:
        """Draw ``k`` values of each.

        Parameters
        ----------
        k : int
            How many.
        noise : Noise
            Where the randomness comes from.

        Returns
        -------
        Draw
            With ``z`` of shape ``(k, *batch, *event)``.
        """

    @abstractmethod
    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density or log mass, in nats.

        Parameters
        ----------
        v : Tensor
            Values that broadcast against ``(*batch, *event)``.
        per_dim : bool
            Keep the event dimensions instead of summing over them.

        Returns
        -------
        Tensor
            ``(..., *batch)``, or ``(..., *batch, *event)`` with ``per_dim``.
        """

    @abstractmethod
    def point(self) -> Tensor:
        """Return the value to show: the mean, or the mode for categories.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """

    def center(self) -> Tensor:
        """Return the mean of draws, about which they have their standard deviation.

        On a sphere it lies inside, and where a flow bends space it is not what the mean becomes: there it is
        another than :meth:`point`.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """
        return self.point()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean of draws and their standard deviation, of the same draws where it takes some.

        Of distributions that have a standard deviation: those of codes.

        Returns
        -------
        mean, std : Tensor
            ``(*batch, *event)`` each: what ``center()`` and ``std()`` return, in one go.
        """
        return self.center(), self.std()  # type: ignore[attr-defined]

    def given(self, dims: Sequence[int], values: Tensor) -> Distribution:
        """Hold some dimensions of a vector: the distribution of the others, in their order.

        Only where ``offers`` names "conditional".

        Parameters
        ----------
        dims : sequence of int
            Which are held, each once.
        values : Tensor
            ``(*batch, m)``, what they hold; it may bring a batch of its own.

        Returns
        -------
        Distribution
            Over the ``d - m`` others.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be conditioned on some of its dimensions")

    def marginals(self) -> Distribution:
        """Take the dimensions apart: independent ones, each distributed as it is here.

        Only where ``offers`` names "marginals".

        Returns
        -------
        Distribution
            Of the same shapes.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know its marginals")

    def covariance(self) -> Tensor:
        """Say how the dimensions of a vector vary together.

        Only where ``offers`` names "covariance".

        Returns
        -------
        Tensor
            ``(*batch, d, d)``.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know its covariance")

    def within(self, p: Distribution | None, log_lik: Callable[[Tensor], Tensor] | None) -> Distribution:
        """Complete a posterior with what the rest of its model says; most need nothing of it.

        Parameters
        ----------
        p : Distribution or None
            The prior p(z | c).
        log_lik : callable or None
            From codes ``(k, n, d)`` to log p(x | z, c), ``(k, n)`` nats; None where x is not at hand.

        Returns
        -------
        Distribution
            Of the same shapes.
        """
        return self
