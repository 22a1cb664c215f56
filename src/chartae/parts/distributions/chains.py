"""Normals that follow one another: the code of a model with several stochastic layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise
from chartae.parts.distributions.base import CAN
from chartae.parts.distributions.normals import DiagonalNormal, StandardNormal

__all__ = ["Chain"]


class Chain(Distribution):
    """A value in several parts, each a diagonal normal given the part before: a Markov chain.

    Parameters
    ----------
    first : DiagonalNormal or StandardNormal
        Of the part that is drawn first, with event shape ``(d_1,)``.
    steps : sequence of callable
        Each from a part ``(..., d_i)`` to the DiagonalNormal of the next, with batch shape ``(...)``.
    sizes : sequence of int
        How wide the parts are, in the order in which they are drawn.
    downward : bool
        Lay the parts out in the reverse order: the one drawn last comes first in the value.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equations 1 and 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import Chain, DiagonalNormal, StandardNormal
    >>> walk = Chain(StandardNormal(2), [lambda v: DiagonalNormal(v[..., :1], torch.zeros(()))], (2, 1))
    >>> walk.draw(4, Noise(0)).z.shape, walk.log_prob(torch.zeros(3), per_dim=True)
    (torch.Size([4, 3]), tensor([-0.9189, -0.9189, -0.9189]))
    """

    offers = CAN

    def __init__(
        self,
        first: DiagonalNormal | StandardNormal,
        steps: Sequence[Callable[[Tensor], DiagonalNormal]],
        sizes: Sequence[int],
        *,
        downward: bool = False,
    ) -> None:
        self.first, self.steps, self.sizes, self.downward = first, tuple(steps), tuple(sizes), downward
        self._known: tuple[Tensor | None, float, bool, list[Any]] = (None, 0, False, [])

    @property
    def batch_shape(self) -> torch.Size:
        return self.first.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((sum(self.sizes),))

    def draw(self, k: int, noise: Noise) -> Draw:
        eps = noise.normal((k, *self.batch_shape, sum(self.sizes)), self.first.point())
        parts: list[Tensor] = []

        def move(p: DiagonalNormal | StandardNormal, e: Tensor) -> Tensor:
            return torch.addcmul(p.point(), p.std(), e)

        laws = self._follow(parts, move, self._apart(eps))
        z = self._together(parts)
        self._keep(z, laws)
        return Draw(z)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density; with ``per_dim`` that of each dimension given the part before its own.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.
        per_dim : bool
            Keep dimensions apart.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats.
        """
        laws = self._laws(v)
        rows = [p.log_prob(part, per_dim=per_dim) for p, part in zip(laws, self._apart(v), strict=True)]
        if not per_dim:
            return torch.stack(torch.broadcast_tensors(*rows)).sum(0)
        shape = np.broadcast_shapes(*(row.shape[:-1] for row in rows))
        return self._together([row.expand(*shape, -1) for row in rows])

    def point(self) -> Tensor:
        """Return the means, each given the means before it.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        parts: list[Tensor] = []
        self._follow(parts, lambda p, _: p.point(), self.sizes)
        return self._together(parts)

    def std(self) -> Tensor:
        """Return the standard deviation of each part, given that those before it are at their means.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self._together([p.std() for p in self._follow([], lambda p, _: p.point(), self.sizes)])

    def standardized(self, v: Tensor) -> Tensor:
        """Say how far each part is from its mean given the part before it, in standard deviations.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., d)``; of draws these are independent and standard normal.
        """
        laws = self._laws(v)
        return self._together(
            [(part - p.point()) / p.std() for p, part in zip(laws, self._apart(v), strict=True)]
        )

    def _follow(self, parts: list[Tensor], value: Callable[..., Tensor], given: Sequence[Any]) -> list[Any]:
        """Go along the chain: the value of each part is found from its law, and gives the next law."""
        laws: list[Any] = [self.first]
        for i, each in enumerate(given):
            parts.append(value(laws[i], each))
            if i < len(self.steps):
                laws.append(self.steps[i](parts[i]))
        return laws

    def _laws(self, v: Tensor) -> list[Any]:
        """The normals of the parts of a value; those of the last value are kept, which is asked for again."""
        known, version, with_graph, laws = self._known
        if known is v and version == _version(v) and (with_graph or not torch.is_grad_enabled()):
            return laws
        laws = [self.first, *(step(part) for step, part in zip(self.steps, self._apart(v), strict=False))]
        self._keep(v, laws)
        return laws

    def _keep(self, v: Tensor, laws: list[Any]) -> None:
        self._known = (v, _version(v), torch.is_grad_enabled(), laws)

    def _apart(self, v: Tensor) -> list[Tensor]:
        parts = v.split(self.sizes[::-1] if self.downward else self.sizes, -1)
        return list(parts[::-1] if self.downward else parts)

    def _together(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts[::-1] if self.downward else parts), -1)


def _version(v: Tensor) -> float:
    """How often a tensor has been changed in place; nan, which equals nothing, where that is not counted."""
    return math.nan if v.is_inference() else v._version
