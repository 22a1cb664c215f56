"""Points on a codebook."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise
from chartae.parts.codebooks import Codebook
from chartae.parts.distributions.base import Delta

__all__ = ["CodePoint", "RelaxedCodes"]


class CodePoint(Delta):
    """All mass on one point of a codebook.

    Parameters
    ----------
    value : Tensor
        ``(*batch, d)``.
    indices : Tensor
        ``(*batch, slots * depth)``, of its entries.
    auxiliary : Mapping of str to Tensor
        ``(*batch)`` each, which comes with every draw.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import CodePoint
    >>> q = CodePoint(torch.ones(5, 2), torch.zeros(5, 1, dtype=torch.long), {"commitment": torch.zeros(5)})
    >>> q.draw(3, Noise(0)).auxiliary["commitment"].shape
    torch.Size([3, 5])
    """

    def __init__(self, value: Tensor, indices: Tensor, auxiliary: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(value)
        self.indices, self.auxiliary = indices, dict(auxiliary or {})

    def draw(self, k: int, noise: Noise) -> Draw:
        more = {name: rows.expand(k, *rows.shape) for name, rows in self.auxiliary.items()}
        return super().draw(k, noise)._replace(auxiliary=more)


class RelaxedCodes(Distribution):
    """Codes whose entries are chosen at random, level by level, and mixed so that gradients pass.

    The nearer an entry is to what the levels before have left, the likelier it is: its logit is minus the
    squared distance. A draw mixes the entries of a level by a relaxed categorical (Gumbel-softmax), and
    brings ``code_kl``, the divergence of the categoricals of all levels and slots from uniform ones.

    Parameters
    ----------
    v : Tensor
        ``(*batch, slots, width)``, where the encoder points.
    book : Codebook
        Entries.
    temperature : float
        Of the relaxation; at 0 an entry is chosen as a whole, and it is the likeliest.
    keep : Tensor or None
        How many levels are used, of shape ``(*batch)``; None for all.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.codebooks import Codebook
    >>> from chartae.parts.distributions import RelaxedCodes
    >>> q = RelaxedCodes(torch.zeros(5, 2, 3), Codebook(slots=2, codes=8, width=3, depth=2), temperature=0.5)
    >>> drawn = q.draw(4, Noise(0))
    >>> drawn.z.shape, drawn.auxiliary["code_kl"].shape
    (torch.Size([4, 5, 6]), torch.Size([4, 5]))
    """

    offers = frozenset({"point", "reparameterized"})

    def __init__(self, v: Tensor, book: Codebook, temperature: float, keep: Tensor | None = None) -> None:
        self.v, self.book, self.temperature, self.keep = v, book, temperature, keep

    @property
    def batch_shape(self) -> torch.Size:
        return self.v.shape[:-2]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((self.book.slots * self.book.width,))

    def draw(self, k: int, noise: Noise) -> Draw:
        z, _, kl = self.descend(k, noise)
        return Draw(z, auxiliary={"code_kl": kl})

    def descend(self, k: int, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """Go from level to level.

        Parameters
        ----------
        k : int
            How many times.
        noise : Noise
            Where the randomness comes from.

        Returns
        -------
        z : Tensor
            ``(k, *batch, d)``.
        indices : Tensor
            ``(k, *batch, slots * depth)``, the likeliest entries on that way.
        kl : Tensor
            ``(k, *batch)`` nats.
        """
        book, tiny = self.book, torch.finfo(self.v.dtype).tiny
        v = self.v.expand(k, *self.v.shape)
        total, z, kl, indices = torch.zeros_like(v), torch.zeros_like(v), v.new_zeros(v.shape[:-2]), []
        for level in range(book.depth):
            log_q = (-book(v - total, level)).log_softmax(-1)
            indices.append(log_q.argmax(-1))
            if self.temperature:
                u = noise.uniform(log_q.shape, log_q).clamp_min(tiny)
                gumbel = -(-u.log()).clamp_min(tiny).log()
                chosen = ((log_q + gumbel) / self.temperature).softmax(-1)
                with torch.autocast(v.device.type, enabled=False):
                    e = chosen @ book.entries[0, level]
            else:
                e = book.entry(indices[-1], level)
            here = v.new_ones(()) if self.keep is None else (level < self.keep).to(v)
            total = total + e
            z = z + here[..., None, None] * e
            uniform = (log_q.exp() * log_q).sum((-2, -1)) + book.slots * math.log(log_q.shape[-1])
            kl = kl + here * uniform
        return z.flatten(-2), torch.stack(indices, -1).flatten(-2), kl

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Relaxed codes have a density that nobody needs.

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
        raise NotImplementedError("relaxed codes have no density here")

    @property
    def indices(self) -> Tensor:
        """Likeliest entries, ``(*batch, slots * depth)``."""
        return self._likeliest()[1]

    def point(self) -> Tensor:
        return self._likeliest()[0]

    def _likeliest(self) -> tuple[Tensor, Tensor]:
        z, indices, _ = RelaxedCodes(self.v, self.book, 0.0).descend(1, Noise(0))
        return z[0], indices[0]

    def std(self) -> Tensor:
        """Return the standard deviation of what is shown: zero.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return torch.zeros_like(self.v.flatten(-2))
