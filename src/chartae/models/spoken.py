"""Rows of tokens without a code of their own: p(x | c), or p(x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from chartae.core.contracts import Plan
from chartae.core.spaces import Space
from chartae.models.autoencoder import Autoencoder
from chartae.parts.conditions import Condition
from chartae.parts.likelihoods import SequenceLikelihood
from chartae.parts.networks import TokenDecoder
from chartae.parts.objectives import NegLogLik
from chartae.parts.posteriors import DeltaPosterior

__all__ = ["spoken"]


class _Nothing(nn.Module):
    """An encoder whose codes have no dimensions."""

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return torch.zeros(len(x), 0, dtype=x.dtype, device=x.device)


def spoken(
    space: Space,
    vector_dim: int = 0,
    *,
    hidden: Sequence[int] | None = None,
    hide: float = 0.0,
    context: int | None = None,
    speaker: Callable[[int], nn.Module] | None = None,
) -> Plan:
    """Plan a text decoder that has a given vector in the place of a code, or nothing at all.

    It is an autoencoder whose codes have no dimensions, so that training, bounds and scores are the same.

    Parameters
    ----------
    space : Space
        Of rows of tokens.
    vector_dim : int
        Width of the condition, an image's code for instance; 0: p(x) alone, a language model.
    hidden : sequence of int or None
        One width for each block.
    hide : float
        Share of tokens that the decoder does not see in training.
    context : int or None
        How many tokens just before the next each block looks at; None: all.
    speaker : callable or None
        Makes another decoder, such as :class:`chartae.parts.networks.Prefixed`, of a width of the condition.

    Returns
    -------
    Plan
        Fitted by likelihood.

    References
    ----------
    Vinyals et al. 2015, arXiv:1411.4555 (texts under an image's code).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.models.spoken import spoken
    >>> from chartae.parts.units import infer_space
    >>> plan = spoken(infer_space(np.array([[1, 2], [2, 0]]), likelihood="sequence"), 3, hidden=(8,))
    >>> plan.objective, plan.model.latent_dim
    (nll, 0)
    """
    levels, length = SequenceLikelihood.out_shape(space)
    # No row goes without its vector, and none needs to stand for its absence.
    condition = Condition(vector_dim=vector_dim, dropout=0.0) if vector_dim else None
    width = condition.width if condition else 0
    decoder = speaker(width) if speaker else TokenDecoder(levels, length, 0, width, hidden, context=context)
    likelihood = SequenceLikelihood.of(space, decoder, hide=hide)
    model = Autoencoder(DeltaPosterior(_Nothing(), 0), None, likelihood, space, 0, condition)
    return Plan(model, NegLogLik())
