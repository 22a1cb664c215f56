"""Codebooks: finite sets of vectors, and the indices of what is taken from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["Codebook"]

BEAM, MOST = 32, 1 << 14  # sums that are followed while one is taken apart, at first and at most
AT_ONCE = 1 << 22  # differences computed in one go
OFF = 1e-5  # how far from the codebook a vector may lie, of its largest value, that rounding has moved


class Codebook(nn.Module):
    """The vectors that a code is made of: in each slot the sum of one entry of each level.

    A code of d numbers is cut into slots of equal width. Its tokens are the numbers of its entries, slot by
    slot, and level by level within a slot. The entries of a level are shared by all slots, or each slot has
    its own.

    Source: van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937, section 3.1 (one level); Lee et al.
    2022, arXiv:2203.01941, equation 3 (several).

    Parameters
    ----------
    slots : int
        How many vectors a code is cut into.
    codes : int or sequence of int
        Entries of a level: one number for all slots, which share them, or one for each slot.
    width : int
        Of a vector.
    depth : int
        Levels.
    learned : bool
        Whether gradients move the entries, which are then random at first, and zero otherwise.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.codebooks import Codebook
    >>> book = Codebook(slots=2, codes=8, width=3)
    >>> z = book.lookup(torch.tensor([[5, 0]]))
    >>> z.shape, book.find(z)
    (torch.Size([1, 6]), tensor([[5, 0]]))
    """

    entries: Tensor
    _past: Tensor | None

    def __init__(
        self, slots: int, codes: int | Sequence[int], width: int, depth: int = 1, *, learned: bool = True
    ) -> None:
        super().__init__()
        self.slots, self.width, self.depth = slots, width, depth
        self.shared = isinstance(codes, int)
        each = (codes,) * slots if isinstance(codes, int) else tuple(codes)
        self.sizes = torch.Size(size for size in each for _ in range(depth))
        shape = 1 if self.shared else slots, depth, max(each), width
        if learned:
            self.entries = nn.Parameter(torch.randn(shape))
        else:
            self.register_buffer("entries", torch.zeros(shape))
        past = torch.arange(max(each)) >= torch.tensor(each)[:, None]
        self.register_buffer("_past", past if past.any() else None, persistent=False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Make what :attr:`config` describes, of entries that stay as they are.

        Parameters
        ----------
        config : Mapping
            JSON values.

        Returns
        -------
        Codebook
            Of entries that are zero.
        """
        return cls(**config, learned=False)

    @property
    def config(self) -> dict[str, Any]:
        """All but the entries, as JSON values."""
        sizes = [int(size) for size in self.sizes[:: self.depth]]
        codes = sizes[0] if self.shared else sizes
        return {"slots": self.slots, "codes": codes, "width": self.width, "depth": self.depth}

    @property
    def tokens(self) -> int:
        """How many indices a code has: slots times levels."""
        return self.slots * self.depth

    def copy(self) -> Codebook:
        """Copy it, so that no further training moves it.

        Returns
        -------
        Codebook
            On the CPU, of the same entries.
        """
        made = Codebook.of(self.config)
        made.entries.copy_(self.entries.detach())
        return made

    def cut(self, z: Tensor) -> Tensor:
        """Cut codes into slots.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., slots, width)``.
        """
        return z.unflatten(-1, (self.slots, self.width))

    def forward(self, v: Tensor, level: int = 0) -> Tensor:
        """Measure squared distances to the entries of a level.

        Parameters
        ----------
        v : Tensor
            ``(..., slots, width)``.
        level : int
            Which, from 0.

        Returns
        -------
        Tensor
            ``(..., slots, codes)``; infinite past the entries of a slot that has fewer than others.
        """
        e = self.entries[:, level]
        # In half precision the nearest of many entries is another one.
        with torch.autocast(v.device.type, enabled=False):
            product = v @ e[0].mT if self.shared else torch.einsum("...sw,skw->...sk", v, e)
            distance = v.square().sum(-1, keepdim=True) - 2 * product + e.square().sum(-1)
        distance = distance.clamp_min(0.0)
        return distance if self._past is None else distance.masked_fill(self._past, torch.inf)

    def entry(self, index: Tensor, level: int = 0) -> Tensor:
        """Take entries of a level.

        Parameters
        ----------
        index : Tensor
            ``(..., slots)``, whole numbers.
        level : int
            Which, from 0.

        Returns
        -------
        Tensor
            ``(..., slots, width)``.
        """
        e = self.entries[:, level]
        return e[0][index] if self.shared else e[torch.arange(self.slots, device=index.device), index]

    def nearest(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take the nearest entry, level by level, each of what the levels before have left.

        Parameters
        ----------
        v : Tensor
            ``(..., slots, width)``.

        Returns
        -------
        index : Tensor
            ``(..., slots, depth)``.
        entries : Tensor
            ``(..., slots, depth, width)``.
        """
        rest, index, taken = v.detach(), [], []
        for level in range(self.depth):
            with torch.no_grad():
                index.append(self(rest, level).argmin(-1))
            taken.append(self.entry(index[-1], level))
            rest = rest - taken[-1].detach()
        return torch.stack(index, -1), torch.stack(taken, -2)

    def lookup(self, indices: Tensor) -> Tensor:
        """Make codes of indices.

        Parameters
        ----------
        indices : Tensor
            ``(..., slots * depth)``, whole numbers.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        each = indices.unflatten(-1, (self.slots, self.depth)).unbind(-1)
        return sum(self.entry(i, level) for level, i in enumerate(each)).flatten(-2)  # type: ignore[union-attr]

    @torch.no_grad()
    def find(self, z: Tensor) -> Tensor:
        """Find the indices of codes; of a code that is not on the codebook those of one that is near.

        The nearest entry is taken, level by level. Where that ends beside a code, it is searched for along
        the nearest sums so far: 32, and more of them where those end beside it, too.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., slots * depth)``.
        """
        v = self.cut(z.reshape(-1, z.shape[-1]).to(self.entries))
        found = torch.cat([self.nearest(part)[0] for part in v.split(self._rows(1))])
        beam = BEAM
        while bool((missed := ~self._hit(v, found).all(1)).any()) and beam <= MOST:
            # Sums are seldom of entries that are not the nearest for long.
            found[missed] = self._apart(v[missed], beam)
            beam = 8 * beam if self.depth > 1 else MOST + 1  # of one level all entries have been looked at
        return found.reshape(*z.shape[:-1], self.tokens)

    def _apart(self, v: Tensor, beam: int) -> Tensor:
        """Take vectors (n, slots, width) apart into indices (n, slots, depth), by the sums nearest so far."""
        rows = self._rows(self.width * (beam if self.depth > 1 else 1))
        return torch.cat([self._apart_at_once(part, beam) for part in v.split(rows)])

    def _rows(self, numbers: int) -> int:
        """How many vectors to compare at once, if each comparison with an entry takes so many numbers."""
        return max(1, AT_ONCE // (numbers * self.slots * max(self.sizes)))

    def _apart_at_once(self, v: Tensor, beam: int) -> Tensor:
        rest, paths = v.unsqueeze(1), v.new_zeros(len(v), 1, self.slots, 0).long()  # (n, beam, slots, ...)
        for level in range(self.depth):
            # By differences, which are exact where it matters: sums lie close together.
            distance = (rest.unsqueeze(-2) - self.entries[:, level]).square().sum(-1)
            distance = distance if self._past is None else distance.masked_fill(self._past, torch.inf)
            distance = distance.transpose(1, 2).flatten(2)  # (n, slots, beam * codes)
            kept = 1 if level == self.depth - 1 else min(beam, distance.shape[-1])
            best, codes = distance.topk(kept, largest=False).indices.mT, self.entries.shape[2]
            before, index = (best // codes).unsqueeze(-1), best % codes
            rest = rest.gather(1, before.expand(-1, -1, -1, self.width)) - self.entry(index, level)
            paths = torch.cat([paths.gather(1, before.expand(-1, -1, -1, level)), index.unsqueeze(-1)], -1)
        return paths[:, 0]

    def _hit(self, v: Tensor, indices: Tensor) -> Tensor:
        """Tell which vectors (n, slots, width) are those of indices (n, slots, depth), up to rounding."""
        off = (self.cut(self.lookup(indices.flatten(-2))) - v).abs().amax(-1)
        return off <= OFF * self.entries.abs().amax().clamp_min(1e-30)

    def holds(self, z: Tensor, indices: Tensor) -> Tensor:
        """Tell which codes are those of their indices, up to rounding.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.
        indices : Tensor
            ``(..., slots * depth)``.

        Returns
        -------
        Tensor
            Of bool, of shape ``(...)``.
        """
        return self._hit(self.cut(z.to(self.entries)), indices.unflatten(-1, (self.slots, -1))).all(-1)
