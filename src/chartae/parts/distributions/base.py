"""What all distributions share, and the point mass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise

__all__ = ["Delta"]

LOG_2PI = math.log(2 * math.pi)
SPREAD = 256  # draws by which a spread is estimated that has no formula


CAN = frozenset({"log_prob", "density", "point", "reparameterized"})


CONDITIONAL = frozenset({"conditional"})


#: What vectors of normals know of their dimensions.
MOMENTS = frozenset({"marginals", "covariance"})


def _sum_event(rows: Tensor, event_dims: int, per_dim: bool) -> Tensor:
    if per_dim or event_dims == 0:
        return rows
    return rows.sum(-1) if event_dims == 1 else rows.flatten(-event_dims).sum(-1)


def _choose(logits: Tensor, k: int, noise: Noise) -> Tensor:
    """Draw ``k`` categories of each, ``(k, *logits.shape[:-1])``."""
    cumulative = logits.softmax(-1).cumsum(-1)
    u = noise.uniform((k, *logits.shape[:-1]), logits).unsqueeze(-1)
    # Clamped: rounding can leave the last cumulative probability a little below one.
    return (u > cumulative).sum(-1).clamp_max(logits.shape[-1] - 1)


class _Independent(Distribution):
    """Base of independent values: ``shape`` is ``(*batch, *event)``."""

    shape: torch.Size
    event_dims: int

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.shape[len(self.shape) - self.event_dims :]


class Delta(Distribution):
    """All mass on one point; it has no density.

    Parameters
    ----------
    value : Tensor
        ``(*batch, d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import Delta
    >>> Delta(torch.ones(5, 2)).draw(3, Noise(0)).z.shape
    torch.Size([3, 5, 2])
    """

    offers = frozenset({"point", "reparameterized"})

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @property
    def batch_shape(self) -> torch.Size:
        return self.value.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.value.shape[-1:]

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(self.value.expand(k, *self.value.shape))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """A point mass has no density.

        Parameters
        ----------
        v : Tensor
            Any ``(..., d)``.
        per_dim : bool
            No effect.

        Returns
        -------
        Tensor
            Of shape ``(..., d)`` or ``(...)``, were there one.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("a Delta distribution has no density")

    def point(self) -> Tensor:
        return self.value

    def std(self) -> Tensor:
        """Return the standard deviation: zero.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return torch.zeros_like(self.value)
