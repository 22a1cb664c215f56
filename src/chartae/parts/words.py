"""Words as normal distributions over the places of their contexts."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SkipGram"]

PRIOR = 2.0  # width of a word of which nothing is known; they start at half of it, where points stay


class SkipGram(nn.Module):
    """Tells words that stand near a word from words drawn at random.

    A context is a point v, a word a normal distribution N(u, s² I) over where its contexts lie, and the
    log-odds that a context is a word's are ``b - |v - u|² / 2s²``: the log of its density, up to what
    normalizes it. A word whose contexts lie far apart has to be wide, and one of few contexts stays as wide
    as its prior. Words that are points all have s = 1.

    Parameters
    ----------
    words : int
        How many there are.
    dim : int
        d.
    spread : bool
        Whether each word has a width of its own; otherwise all have 1.
    rng : Generator or None
        Of the first places.

    References
    ----------
    Mikolov et al. 2013, arXiv:1310.4546, equation 4 (negative sampling); Vilnis and McCallum 2015,
    arXiv:1412.6623 (words as normal distributions; theirs are compared by the expected likelihood).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.words import SkipGram
    >>> model = SkipGram(7, 2)
    >>> model(torch.tensor([[0, 1, 2]]), torch.tensor([[5, 6]])).shape
    torch.Size([1, 3, 2])
    """

    log_std: Tensor

    def __init__(
        self, words: int, dim: int, spread: bool = True, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        rng = np.random.default_rng() if rng is None else rng
        first = rng.normal(0.0, 0.5 * dim**-0.5, (2, words, dim)).astype(np.float32)
        self.word, self.context = (nn.Parameter(torch.from_numpy(each)) for each in first)
        self.bias = nn.Parameter(torch.zeros(()))
        width = torch.zeros(words, 1)
        if spread:
            self.log_std = nn.Parameter(width)
        else:
            self.register_buffer("log_std", width)

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        """Give the log-odds of each word with each context.

        Parameters
        ----------
        words : Tensor
            ``(g, n)`` whole numbers.
        contexts : Tensor
            ``(g, m)`` whole numbers.

        Returns
        -------
        Tensor
            ``(g, n, m)``.
        """
        u, log_std = F.embedding(words, self.word), F.embedding(words, self.log_std)
        return self._log_odds(_gaps(u, F.embedding(contexts, self.context)), log_std)

    def loss(self, pairs: Tensor, noise: Tensor, negatives: float) -> Tensor:
        """Mean over pairs of what it costs to take them for chance, and chance for them.

        Parameters
        ----------
        pairs : Tensor
            ``(g, n, 2)``, words and their contexts.
        noise : Tensor
            ``(g, m)``, words drawn at random, shared by the pairs of a row.
        negatives : float
            How many such words a pair counts for.

        Returns
        -------
        Tensor
            Of shape (), in nats.
        """
        # Each table is looked up once: the gradient of every further time is as large as the table.
        words, contexts, n = pairs[..., 0], pairs[..., 1], pairs.shape[1]
        u, log_std = F.embedding(words, self.word), F.embedding(words, self.log_std)
        both = F.embedding(torch.cat([contexts, noise], 1), self.context)
        true = self._log_odds((u - both[:, :n]).square().sum(-1, keepdim=True), log_std)
        chance = self._log_odds(_gaps(u, both[:, n:]), log_std)
        return F.softplus(-true).mean() + negatives * F.softplus(chance).mean()

    def kl(self) -> Tensor:
        """Sum over words of KL(N(u, s² I) || N(u, 4 I)): what it costs to have another width than the prior.

        Returns
        -------
        Tensor
            Of shape (), in nats.
        """
        ratio = self.log_std - math.log(PRIOR)
        return (0.5 * torch.expm1(2 * ratio) - ratio).sum() * self.word.shape[1]

    def _log_odds(self, gap: Tensor, log_std: Tensor) -> Tensor:
        return self.bias - 0.5 * gap * (-2 * log_std).exp()


def _gaps(u: Tensor, v: Tensor) -> Tensor:
    """Squared distances ``(..., n, m)`` of ``(..., n, d)`` and ``(..., m, d)``."""
    squares = u.square().sum(-1, keepdim=True) + v.square().sum(-1).unsqueeze(-2)
    return squares - 2 * u @ v.transpose(-1, -2)
