"""Rows of tokens, each told from those before it: texts under a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import DataError, PlanError
from chartae.core.spaces import Space, Support, Units
from chartae.parts.distributions import Sequences, Speaker
from chartae.parts.likelihoods.base import NetworkLikelihood, likelihoods

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["SequenceLikelihood"]


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
    >>> from chartae.parts.likelihoods import SequenceLikelihood
    >>> from chartae.parts.networks import TokenDecoder
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
