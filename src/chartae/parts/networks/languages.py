"""Causal language models of another library as decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.parts.distributions import Speaker
from chartae.parts.networks.handling import full
from chartae.parts.networks.transformers import Prefixes

__all__ = ["Prefixed"]


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
    >>> from chartae.parts.networks import Prefixed
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
        self.levels, self.begins = len(ids), begins
        self.register_buffer("ids", torch.as_tensor(ids), persistent=False)
        known, width = self._words.weight.shape
        places = getattr(self._speaks.config.get_text_config(), "max_position_embeddings", None)
        self.prefixes = Prefixes(latent_dim, condition_dim, width, activation)
        needed = length + self.prefixes.count
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
        return [x.to(self._words.weight.dtype) for x in self.prefixes(h, c)]

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
