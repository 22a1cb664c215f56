"""Rows of tokens, each told from those before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chartae.core.contracts import Distribution, Draw
from chartae.core.noise import Noise

__all__ = ["Sequences", "Speaker"]


class Speaker(nn.Module, ABC):
    """What tells the next token: of whole rows at once, or one token after the other.

    Attributes
    ----------
    levels : int
        Numbers that a place may hold.

    Examples
    --------
    >>> from chartae.parts.distributions.sequences import Speaker
    >>> from chartae.parts.networks import TokenDecoder
    >>> isinstance(TokenDecoder(5, 4, latent_dim=2, hidden=(8,)), Speaker)
    True
    """

    levels: int

    @abstractmethod
    def forward(self, h: Tensor, c: Tensor | None, tokens: Tensor) -> Tensor:
        """Give the logits of each next token.

        Parameters
        ----------
        h : Tensor
            ``(n, d)`` codes.
        c : Tensor or None
            ``(n, m)`` condition.
        tokens : Tensor
            ``(n, t)`` whole numbers, of which the first stands for the beginning.

        Returns
        -------
        Tensor
            ``(n, t, levels)``: those at a place depend on tokens up to there alone.
        """

    @abstractmethod
    def begin(self, h: Tensor, c: Tensor | None) -> Any:
        """Look at codes and condition, before anything is said.

        Parameters
        ----------
        h : Tensor
            ``(n, d)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        object
            What :meth:`step` needs.
        """

    @abstractmethod
    def step(self, token: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Go one token further.

        Parameters
        ----------
        token : Tensor
            ``(n,)``, the last one.
        state : object
            As it was given; it may be written to.

        Returns
        -------
        logits : Tensor
            ``(n, levels)``.
        state : object
            For the next step.
        """


class Sequences(Distribution):
    """Rows of whole numbers, each row ended by the largest and filled up with zeros.

    ``p(x) = prod_t p(x_t | x_<t, h, c)`` over the tokens up to the end, with the true ones before each
    (teacher forcing). What fills a row up counts for nothing; the last place holds the end, if no place
    before did; rows of any other form have probability 0. So the probabilities of all rows sum to 1.

    Parameters
    ----------
    speaker : Speaker
        Tells the next token, which is never 0.
    h : Tensor
        ``(*batch, d)`` codes.
    c : Tensor or None
        ``(n, m)`` condition, where ``n`` is the last of the batch's dimensions.
    length, levels : int
        Places in a row, and numbers that a place may hold.
    hide : float
        Share of the tokens before each that are hidden from the speaker at random, by torch's global
        generator: for training only.

    References
    ----------
    Bowman et al. 2016, arXiv:1511.06349, sections 2 and 3.1 (a text given its code; word dropout).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Sequences
    >>> from chartae.parts.networks import TokenDecoder
    >>> _ = torch.manual_seed(0)
    >>> p = Sequences(TokenDecoder(3, 2, latent_dim=1, hidden=(8,)), torch.zeros(1, 1), None, 2, 3)
    >>> rows = torch.tensor([[1.0, 2.0], [2.0, 0.0]])  # "one, end" and "end" are all there is
    >>> p.log_prob(rows[:, None]).exp().sum().round(decimals=5).item()
    1.0
    """

    offers = frozenset({"log_prob", "mass", "point"})

    def __init__(
        self, speaker: Speaker, h: Tensor, c: Tensor | None, length: int, levels: int, hide: float = 0.0
    ) -> None:
        self.speaker, self.h, self.c = speaker, h, c
        self.length, self.levels, self.hide = length, levels, hide

    @property
    def batch_shape(self) -> torch.Size:
        return self.h.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((self.length,))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        lead = np.broadcast_shapes(v.shape[:-1], self.batch_shape)
        tokens = v.round().long().expand(*lead, -1).reshape(-1, self.length)
        places = tokens.any(0).nonzero()
        # Rows are shorter than they may be: what fills all of them up need not be looked at.
        tokens = tokens[:, : int(places.max()) + 1 if len(places) else 1]
        end = self.levels - 1
        before = seen = F.pad(tokens[:, :-1], (1, 0), value=end)
        if self.hide:
            hidden = torch.rand(before.shape, device=before.device) < self.hide
            hidden[:, 0] = False  # of the beginning there is nothing to guess
            seen = before.masked_fill(hidden, 0)
        logits = self.speaker(*self._under(lead), seen)
        rows = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        over = (before == end).cumsum(1) > 1  # the first of them stands for the beginning
        wrong = (over & (tokens != 0)) | ~(tokens == end).any(1, keepdim=True)
        # The last place leaves no choice, and neither do those after the end.
        rows = rows.masked_fill(over | self._last(rows), 0.0).masked_fill(wrong, -torch.inf)
        if per_dim:
            return F.pad(rows, (0, self.length - rows.shape[1])).reshape(*lead, self.length)
        return rows.sum(1).reshape(lead)

    def draw(self, k: int, noise: Noise) -> Draw:
        lead = (k, *self.batch_shape)
        u = noise.uniform((*lead, self.length), self.h).expand(*lead, self.length).reshape(-1, self.length)

        def choose(logits: Tensor, place: int) -> Tensor:
            # Clamped: rounding can leave the last cumulative probability a little below one.
            below = u[:, place, None] >= logits.softmax(-1).cumsum(-1)
            return below.sum(-1).clamp_max(self.levels - 1)

        return Draw(self._spoken(lead, choose))

    def point(self) -> Tensor:
        """Take the likeliest token at each place, which need not give the likeliest row.

        Returns
        -------
        Tensor
            ``(*batch, length)``.
        """
        return self._spoken(self.batch_shape, lambda logits, place: logits.argmax(-1))

    def _spoken(self, lead: Sequence[int], choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Say rows of batch shape ``lead``, token by token."""
        h, c = self._under(lead)
        end = self.levels - 1
        token = torch.full((len(h),), end, device=h.device)
        out = token.new_zeros(len(h), self.length)
        over = torch.zeros_like(token, dtype=torch.bool)
        state = self.speaker.begin(h, c)
        for place in range(self.length):
            logits, state = self.speaker.step(token, state)
            token = choose(logits, place) if place < self.length - 1 else torch.full_like(token, end)
            token = token.masked_fill(over, 0)
            out[:, place] = token
            over = over | (token == end)
            if bool(over.all()):
                break
        return out.to(h.dtype).reshape(*lead, self.length)

    def _under(self, lead: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Codes and conditions of a batch shape, one a row."""
        h, c = self.h.expand(*lead, -1).flatten(0, -2), self.c
        return h, None if c is None else c.expand(*lead, -1).flatten(0, -2)

    def _last(self, rows: Tensor) -> Tensor:
        return torch.arange(rows.shape[1], device=rows.device) == self.length - 1
