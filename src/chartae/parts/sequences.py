"""Rows of tokens, such as the bytes of texts: Transformers that read and write them, and their likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chartae.core.contracts import Distribution
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import Space, Support, Units
from chartae.parts.distributions import Sequences
from chartae.parts.distributions.sequences import Speaker
from chartae.parts.likelihoods import NetworkLikelihood, likelihoods
from chartae.parts.networks import ACTIVATIONS, MLP, networks
from chartae.parts.posteriors import full
from chartae.parts.units import Facts

__all__ = ["Block", "Prefixed", "SequenceLikelihood", "TokenDecoder", "TokenEncoder"]

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
    >>> from chartae.parts.sequences import Block
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
    >>> from chartae.parts.sequences import TokenEncoder
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


def _prefixes(sizes: tuple[int, int], width: int, activation: str) -> nn.ModuleList:
    """Make what turns a code and a condition into tokens in front of a row."""
    # Wide: it is run once a row, and has to find in a code what the words are about.
    return nn.ModuleList(MLP((size,), (PREFIX * width,), PREPARED, 0, activation) for size in sizes if size)


def _in_front(prefixes: nn.ModuleList, sizes: tuple[int, int], h: Tensor, c: Tensor | None) -> list[Tensor]:
    given = [part for part, size in zip((h, c), sizes, strict=True) if size]
    return [prefix(part).unflatten(1, (PREFIX, -1)) for prefix, part in zip(prefixes, given, strict=True)]


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
    >>> from chartae.parts.sequences import TokenDecoder
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
        self.sizes = latent_dim, condition_dim
        self.front = PREFIX * sum(size > 0 for size in self.sizes)
        self.prefixes = _prefixes(self.sizes, self.width, activation)
        self.bias = nn.Parameter(torch.zeros(levels))
        # What fills rows up is never told.
        never = torch.zeros(levels).index_fill(0, torch.tensor([0]), -torch.inf)
        self.register_buffer("never", never, persistent=False)

    def forward(self, h: Tensor, c: Tensor | None, tokens: Tensor) -> Tensor:
        x = torch.cat([*self._prefix(h, c), self._embedded(tokens)], 1)
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
        prefix, past = self._prefix(h, c), []
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

    def _prefix(self, h: Tensor, c: Tensor | None) -> list[Tensor]:
        return _in_front(self.prefixes, self.sizes, h, c)

    def _logits(self, x: Tensor) -> Tensor:
        # The vectors that tokens have on their way in: Press and Wolf 2017, arXiv:1608.05859.
        return full(F.linear(self.last(x), self.token.weight, self.bias + self.never))


class Prefixed(Speaker):
    """A causal language model of another library that says rows under a code and a condition in front.

    It has the form of those of the library transformers: it maps ``inputs_embeds`` to ``logits``, and keeps
    keys and values in a cache.

    Parameters
    ----------
    language_model : nn.Module
        The model. If it is frozen, it is put into evaluation mode, and its weights take no gradients and are
        no part of this module's state; otherwise it is trained in place.
    ids : sequence of int
        The model's number of each number that a place may hold; the last ends a row.
    length : int
        Places in a row.
    begins : int
        The model's number of what stands before a row.
    latent_dim, condition_dim : int
        Widths of code and condition; 0 for none.
    frozen : bool
        Whether the model stays as it is, so that the tokens in front alone are learned.
    activation : str
        Of the layers that make them.

    Raises
    ------
    PlanError
        If the model knows fewer tokens or places than are needed.

    References
    ----------
    Liu et al. 2023, arXiv:2304.08485, section 4.1 (features become vectors among those of words); Mokady et
    al. 2021, arXiv:2111.09734 (with a frozen language model).

    Examples
    --------
    >>> import torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from chartae.parts.sequences import Prefixed
    >>> gpt = GPT2LMHeadModel(GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1, n_positions=16))
    >>> speaker = Prefixed(gpt, [3, 0, 1, 2, 3], 4, begins=3, latent_dim=2)
    >>> speaker(torch.zeros(3, 2), None, torch.ones(3, 4, dtype=torch.long)).shape
    torch.Size([3, 4, 5])
    """

    ids: Tensor

    def __init__(
        self,
        language_model: nn.Module,
        ids: Sequence[int],
        length: int,
        *,
        begins: int,
        latent_dim: int,
        condition_dim: int = 0,
        frozen: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        # Outside of the modules where it is frozen: no optimizer, snapshot or file has to hold it.
        self.held = (language_model,) if frozen else ()
        if frozen:
            language_model.requires_grad_(False).eval()
        else:
            self.language_model = language_model
        self.levels, self.begins, self.sizes = len(ids), begins, (latent_dim, condition_dim)
        self.register_buffer("ids", torch.as_tensor(ids), persistent=False)
        known, width = self._words.weight.shape
        places = getattr(self._speaks.config.get_text_config(), "max_position_embeddings", None)
        needed = length + PREFIX * sum(size > 0 for size in self.sizes)
        if int(self.ids.max()) >= known:
            raise PlanError(
                f"the tokenizer has a token {int(self.ids.max())}, and the language model knows {known}: "
                "pass the model's own"
            )
        if places is not None and needed > places:
            raise PlanError(
                f"the language model has {places} places, and {needed} are needed: use "
                f"max_length={length - 1 - (needed - places)}"
            )
        self.prefixes = _prefixes(self.sizes, width, activation)

    @property
    def _speaks(self) -> Any:
        return self.held[0] if self.held else self.language_model

    @property
    def _words(self) -> Any:
        return self._speaks.get_input_embeddings()

    def train(self, mode: bool = True) -> Prefixed:
        """Set the mode of what is learned; a frozen model stays in evaluation mode.

        Parameters
        ----------
        mode : bool
            Whether to train.

        Returns
        -------
        Prefixed
            Itself.
        """
        super().train(mode)
        for model in self.held:
            model.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Prefixed:
        for model in self.held:
            model._apply(fn)
        super()._apply(fn, recurse)
        return self

    def forward(self, h: Tensor, c: Tensor | None, tokens: Tensor) -> Tensor:
        prefix, told = self._prefix(h, c), self._embedded(tokens, begins=True)
        out = self._speaks(inputs_embeds=torch.cat([*prefix, told], 1), use_cache=False)
        return self._logits(out.logits[:, -tokens.shape[1] :])

    def begin(self, h: Tensor, c: Tensor | None) -> tuple[bool, Any]:
        prefix = self._prefix(h, c)
        if not prefix:
            return True, None
        return True, self._speaks(inputs_embeds=torch.cat(prefix, 1), use_cache=True).cache

    def step(self, token: Tensor, state: tuple[bool, Any]) -> tuple[Tensor, tuple[bool, Any]]:
        begins, cache = state
        x = self._embedded(token[:, None], begins=begins)
        out = self._speaks(inputs_embeds=x, cache=cache, use_cache=True)
        return self._logits(out.logits)[:, 0], (False, out.cache)

    def _prefix(self, h: Tensor, c: Tensor | None) -> list[Tensor]:
        made = _in_front(self.prefixes, self.sizes, h, c)
        return [x.to(self._words.weight.dtype) for x in made]

    def _embedded(self, tokens: Tensor, *, begins: bool) -> Tensor:
        ids = self.ids[tokens]
        if begins:
            ids[:, 0] = self.begins
        x: Tensor = self._words(ids)
        return x.masked_fill((tokens == 0).unsqueeze(-1), 0.0)  # hidden, or beyond the end

    def _logits(self, x: Tensor) -> Tensor:
        logits = full(x)[..., self.ids]
        logits[..., 0] = -torch.inf  # what fills rows up is never told
        return logits


@networks.register("transformer")
def _transformer(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
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


@likelihoods.register("sequence")
class SequenceLikelihood(NetworkLikelihood):
    """Rows of tokens, each told from those before it and from the code: texts under a latent.

    A row holds whole numbers from 1; the largest number ends it, and zeros fill it up.

    Parameters
    ----------
    network : nn.Module
        What tells the next token, a :class:`Speaker`: :class:`TokenDecoder`, or :class:`Prefixed`.
    shape : tuple of int
        ``(length,)``.
    noise, step : None
        No effect.
    levels : int
        Numbers that a place may hold, 0 and the end among them.
    hide : float
        Share of the tokens before each that are hidden in training, so that the code has something to say.

    Raises
    ------
    PlanError
        If the network tells no tokens.

    References
    ----------
    Bowman et al. 2016, arXiv:1511.06349, sections 2 and 3.1.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.sequences import SequenceLikelihood, TokenDecoder
    >>> p = SequenceLikelihood(TokenDecoder(5, 4, latent_dim=2, hidden=(8,)), (4,), levels=5)
    >>> p(torch.zeros(6, 3, 2)).log_prob(torch.tensor([1.0, 2.0, 4.0, 0.0])).shape
    torch.Size([6, 3])
    """

    continuous = False
    sequential = True

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: Any = None,
        levels: int | None = None,
        step: Any = None,
        hide: float = 0.0,
    ) -> None:
        super().__init__(network, shape, levels=levels)
        if not isinstance(network, Speaker):
            raise PlanError("a sequence likelihood needs network='transformer', which tells tokens")
        self.levels, self.hide = network.levels, hide

    @classmethod
    def of(cls, space: Space, network: nn.Module, noise: Any = None, hide: float = 0.0) -> SequenceLikelihood:
        return cls(network, space.model_shape, levels=space.levels, hide=hide)

    @classmethod
    def out_shape(cls, space: Space, noise: Any = None) -> tuple[int, ...]:
        """Say what the network must give for an item.

        Parameters
        ----------
        space : Space
            Shape and units of the data.
        noise : None
            No effect.

        Returns
        -------
        tuple of int
            ``(levels, length)``.

        Raises
        ------
        PlanError
            If an item is no row, or the number of levels is not known.
        """
        if space.levels is None or len(space.model_shape) != 1:
            raise PlanError(f"a sequence likelihood needs rows of tokens, not items of shape {space.shape}")
        return (space.levels, *space.model_shape)

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Count the tokens, which stay as they are.

        Parameters
        ----------
        facts : Facts
            What the data look like.
        scale : str
            No effect.

        Returns
        -------
        Units
            With as many levels as the largest number, which ends rows, needs.

        Raises
        ------
        DataError
            If items are no rows of tokens.
        """
        if not facts.ended:
            raise DataError(
                "a sequence likelihood needs rows of whole numbers from 1, each ended by the largest of all "
                "numbers and filled up with zeros: number the tokens so, or fit texts with TextVAE"
            )
        levels = int(facts.high) + 1
        return Units(levels=levels, support=Support(0.0, levels - 1.0, whole=True))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        hide = self.hide if self.training else 0.0
        network: Any = self.network
        return Sequences(network, z, c, self.shape[0], self.levels, hide)
