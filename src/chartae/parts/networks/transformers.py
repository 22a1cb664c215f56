"""Transformers that read and write rows of tokens, such as the bytes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chartae.core.errors import PlanError
from chartae.parts.distributions import Speaker
from chartae.parts.networks.families import networks
from chartae.parts.networks.handling import full
from chartae.parts.networks.layers import ACTIVATIONS, Shape
from chartae.parts.networks.perceptrons import MLP

__all__ = ["PREFIX", "Block", "Prefixes", "TokenDecoder", "TokenEncoder"]

HIDDEN = (128, 128)
HEAD = 32  # numbers that a head of attention looks at
PREFIX = 4  # tokens that stand for a code, and as many for a condition ...
PREPARED = (512, 512)  # ... and the layers in between


class Block(nn.Module):
    """Attention and a layer of its own for each place, each added to what comes in.

    Parameters
    ----------
    width : int
        Numbers at a place.
    activation : str
        Within the second.

    Raises
    ------
    PlanError
        If the width is 64 or more, and no multiple of 32.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762, section 3; normalized before: Xiong et al. 2020, arXiv:2002.04745.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Block
    >>> x, (k, v) = Block(8)(torch.zeros(2, 5, 8), causal=True)
    >>> x.shape, k.shape
    (torch.Size([2, 5, 8]), torch.Size([2, 1, 5, 8]))
    """

    def __init__(self, width: int, activation: str = "relu") -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        if width % self.heads:
            raise PlanError(f"hidden={width}: give a multiple of {HEAD}, or less than {2 * HEAD}")
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked, self.told = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.own = nn.Sequential(
            nn.Linear(width, 4 * width), ACTIVATIONS[activation](), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map.

        Parameters
        ----------
        x : Tensor
            ``(n, t, width)``.
        mask : Tensor or None
            ``(n, 1, 1, t)``, true where there is something to look at, or ``(t, t)``, for each place; None:
            everywhere.
        causal : bool
            Whether a place looks at itself and those before it only.
        past : tuple of Tensor or None
            Keys and values of places before these, ``(n, heads, s, width / heads)`` each.

        Returns
        -------
        x : Tensor
            ``(n, t, width)``.
        past : tuple of Tensor
            Keys and values, with those of these places, ``(n, heads, s + t, width / heads)``.
        """
        q, k, v = self.asked(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.told(found.transpose(1, 2).flatten(2))
        return x + self.own(self.between(x)), (k, v)


class _Tokens(nn.Module):
    """What both sides share: a vector for each token and for each place, and blocks."""

    def __init__(self, levels: int, length: int, hidden: Sequence[int] | None, activation: str) -> None:
        super().__init__()
        hidden = HIDDEN if hidden is None else tuple(hidden)
        if not hidden or len(set(hidden)) > 1 or hidden[0] < 1 or hidden[0] != int(hidden[0]):
            raise PlanError(f"hidden={hidden}: a Transformer has layers of one width, a whole number")
        if activation not in ACTIVATIONS:
            raise PlanError(f"unknown activation {activation!r} (known: {', '.join(ACTIVATIONS)})")
        self.levels, self.length, self.width = levels, length, int(hidden[0])
        self.token, self.place = nn.Embedding(levels, self.width), nn.Embedding(length, self.width)
        for embedding in (self.token, self.place):
            nn.init.normal_(embedding.weight, std=self.width**-0.5)
        self.blocks = nn.ModuleList(Block(self.width, activation) for _ in hidden)
        self.last = nn.LayerNorm(self.width)

    def _embedded(self, tokens: Tensor, first: int = 0) -> Tensor:
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        return self.token(tokens) + self.place(places)


class TokenEncoder(_Tokens):
    """A Transformer that sees whole rows, and the mean over their places of what it makes of them.

    Parameters
    ----------
    levels, length : int
        Numbers that a place may hold, and places in a row; 0 fills a row up, and is not looked at.
    features : int
        How many numbers it gives.
    condition_dim : int
        Width of the condition, which joins the mean.
    hidden : sequence of int or None
        One width for each block, all equal; None: two of 128.
    activation : str
        In blocks.

    Raises
    ------
    PlanError
        If widths differ, or are no multiple of 32.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import TokenEncoder
    >>> encoder = TokenEncoder(5, 4, features=3, hidden=(8,)).eval()
    >>> encoder(torch.tensor([[1.0, 4.0, 0.0, 0.0]])).shape
    torch.Size([1, 3])
    """

    def __init__(
        self,
        levels: int,
        length: int,
        features: int,
        condition_dim: int = 0,
        hidden: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__(levels, length, hidden, activation)
        self.head = nn.Linear(self.width + condition_dim, features)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        x : Tensor
            ``(n, length)`` whole numbers; what noise has made of them is rounded.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, features)``.
        """
        tokens = x.round().long().clamp(0, self.levels - 1)
        there = tokens != 0
        there[:, 0] = True  # of an empty row, too, something is looked at
        h = self._embedded(tokens)
        for block in self.blocks:
            h, _ = block(h, mask=there[:, None, None])
        share = there.to(h.dtype)
        mean = (share.unsqueeze(1) @ self.last(h)).squeeze(1) / share.sum(1, keepdim=True)
        out: Tensor = self.head(mean if c is None else torch.cat([mean, c], 1))
        return out


class Prefixes(nn.ModuleList):
    """What turns a code and a condition into tokens in front of a row.

    Parameters
    ----------
    latent_dim, condition_dim : int
        Widths of code and condition; 0 for none.
    width : int
        Of a token.
    activation : str
        Between the layers that make them.

    References
    ----------
    Li and Liang 2021, arXiv:2101.00190, section 4.3 (small vectors widened by a perceptron).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Prefixes
    >>> [tokens.shape for tokens in Prefixes(2, 0, width=8)(torch.zeros(3, 2), None)]
    [torch.Size([3, 4, 8])]
    """

    def __init__(self, latent_dim: int, condition_dim: int, width: int, activation: str = "relu") -> None:
        self.sizes = latent_dim, condition_dim
        # Wide: they are run once a row, and have to find in a code what the words are about.
        made = (MLP((size,), (PREFIX * width,), PREPARED, 0, activation) for size in self.sizes if size)
        super().__init__(made)
        self.count = PREFIX * len(self)

    def forward(self, h: Tensor, c: Tensor | None) -> list[Tensor]:
        """Make them.

        Parameters
        ----------
        h : Tensor
            ``(n, latent_dim)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        list of Tensor
            ``(n, 4, width)`` each, of what has a width.
        """
        given = [part for part, size in zip((h, c), self.sizes, strict=True) if size]
        return [make(part).unflatten(1, (PREFIX, -1)) for make, part in zip(self, given, strict=True)]


class TokenDecoder(_Tokens, Speaker):
    """A causal Transformer that says rows under a code and a condition, each a few tokens in front.

    Parameters
    ----------
    levels, length : int
        Numbers that a place may hold, and places in a row.
    latent_dim, condition_dim : int
        Widths of code and condition; 0 for none.
    hidden : sequence of int or None
        One width for each block, all equal; None: two of 128.
    activation : str
        In blocks.
    context : int or None
        How many places each block looks at, itself and those just before it, beside the tokens in front;
        None: all. The fewer, the more the code has to say.

    Raises
    ------
    PlanError
        If widths differ, or are no multiple of 32, or the context is no whole number from 1.

    References
    ----------
    Vaswani et al. 2017, arXiv:1706.03762; a vector as tokens in front of a text: Li and Liang 2021,
    arXiv:2101.00190; of an image: Liu et al. 2023, arXiv:2304.08485. That a decoder with a short context
    makes use of its code: Yang et al. 2017, arXiv:1702.08139; a window beside tokens that all see: Beltagy et
    al. 2020, arXiv:2004.05150.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import TokenDecoder
    >>> decoder = TokenDecoder(5, 4, latent_dim=2, hidden=(8,))
    >>> decoder(torch.zeros(3, 2), None, torch.ones(3, 4, dtype=torch.long)).shape
    torch.Size([3, 4, 5])
    """

    never: Tensor

    def __init__(
        self,
        levels: int,
        length: int,
        latent_dim: int,
        condition_dim: int = 0,
        hidden: Sequence[int] | None = None,
        activation: str = "relu",
        context: int | None = None,
    ) -> None:
        super().__init__(levels, length, hidden, activation)
        if context is not None and not (isinstance(context, int) and context >= 1):
            raise PlanError(f"context={context!r}: a token is told by one token before it or more")
        self.context = length if context is None else context
        self.prefixes = Prefixes(latent_dim, condition_dim, self.width, activation)
        self.front = self.prefixes.count
        self.bias = nn.Parameter(torch.zeros(levels))
        # What fills rows up is never told.
        never = torch.zeros(levels).index_fill(0, torch.tensor([0]), -torch.inf)
        self.register_buffer("never", never, persistent=False)

    def forward(self, h: Tensor, c: Tensor | None, tokens: Tensor) -> Tensor:
        x = torch.cat([*self.prefixes(h, c), self._embedded(tokens)], 1)
        mask = self._near(x.shape[1], x.device) if self.context < tokens.shape[1] else None
        for block in self.blocks:
            x, _ = block(x, mask=mask, causal=mask is None)
        return self._logits(x[:, self.front :])

    def _near(self, places: int, device: torch.device) -> Tensor:
        """Tell which places each looks at, ``(places, places)``."""
        place = torch.arange(places, device=device)
        back = place[:, None] - place
        return (back >= 0) & ((back < self.context) | (place < self.front))

    def begin(self, h: Tensor, c: Tensor | None) -> tuple[int, list[Any]]:
        prefix, past = self.prefixes(h, c), []
        if not prefix:
            return 0, [None] * len(self.blocks)
        x = torch.cat(prefix, 1)
        for block in self.blocks:
            x, kept = block(x, causal=True)
            past.append(kept)
        return 0, past

    def step(self, token: Tensor, state: tuple[int, list[Any]]) -> tuple[Tensor, tuple[int, list[Any]]]:
        place, past = state
        x, kept = self._embedded(token[:, None], place), []
        for block, before in zip(self.blocks, past, strict=True):
            x, now = block(x, past=before)
            kept.append(self._kept(now))
        return self._logits(x)[:, 0], (place + 1, kept)

    def _kept(self, past: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Forget what the next token does not look at."""
        old = past[0].shape[2] - self.front - self.context + 1
        if old <= 0:
            return past
        k, v = (torch.cat([kept[:, :, : self.front], kept[:, :, self.front + old :]], 2) for kept in past)
        return k, v

    def _logits(self, x: Tensor) -> Tensor:
        # The vectors that tokens have on their way in: Press and Wolf 2017, arXiv:1608.05859.
        return full(F.linear(self.last(x), self.token.weight, self.bias + self.never))


@networks.register("transformer")
def _transformer(
    in_shape: Shape,
    out_shape: Shape,
    code_features: int,
    latent_dim: int,
    hidden: Sequence[int] | None,
    condition_dim: int,
    activation: str,
    conditioning: str = "concat",
    context: int | None = None,
) -> tuple[nn.Module, nn.Module]:
    if len(in_shape) != 1 or out_shape[1:] != in_shape:
        raise PlanError(
            "transformer reads and writes rows of tokens: use it with likelihood='sequence', or network='mlp'"
        )
    if conditioning != "concat":
        raise PlanError(
            f"conditioning={conditioning!r}: a transformer has it as tokens in front, so use 'concat'"
        )
    levels, length = out_shape
    return (
        TokenEncoder(levels, length, code_features, condition_dim, hidden, activation),
        TokenDecoder(levels, length, latent_dim, condition_dim, hidden, activation, context),
    )
