"""Posteriors of several stochastic layers: the code is all of them, the one nearest the data first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.counts import is_count
from chartae.core.errors import PlanError
from chartae.parts.distributions import Chain, DiagonalNormal
from chartae.parts.distributions.base import CAN
from chartae.parts.networks import MLP, damp, full
from chartae.parts.posteriors.base import NetworkPosterior, bounded, posteriors

__all__ = ["BottomUpPosterior", "ConditionalNormal", "LadderPosterior", "inner_widths", "layer_sizes"]

NARROWEST = 32  # hidden units of a network between two layers, however few dimensions they have


def layer_sizes(
    latent_dim: int, levels: int | None = None, sizes: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Divide a code into layers, each half as wide as the one below it.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, section 5.1.1 (100 and 50 dimensions).

    Parameters
    ----------
    latent_dim : int
        d.
    levels : int or None
        How many layers; None: as many as there are sizes, else two.
    sizes : sequence of int or None
        How wide they are, from the data upwards, where not each is half as wide.

    Returns
    -------
    tuple of int
        From the data upwards; they add up to d.

    Raises
    ------
    PlanError
        If there are more layers than dimensions, or sizes that do not add up or are not as many.

    Examples
    --------
    >>> from chartae.parts.posteriors import layer_sizes
    >>> layer_sizes(150, 2), layer_sizes(7, 3), layer_sizes(2, 2)
    ((100, 50), (4, 2, 1), (1, 1))
    """
    if sizes is not None:
        if not _are_counts(sizes) or sum(sizes) != latent_dim:
            raise PlanError(
                f"sizes={sizes!r}: give each layer a whole number, in sum latent_dim={latent_dim}"
            )
        if levels not in (None, len(sizes)):
            raise PlanError(f"levels={levels} and sizes={sizes!r} are not as many: leave levels out")
        return tuple(sizes)
    levels = 2 if levels is None else levels
    if not _are_counts([levels]) or levels > latent_dim:
        raise PlanError(
            f"levels={levels} with latent_dim={latent_dim}: use one layer or more, and a dimension for each"
        )
    down: list[int] = []
    for below in range(levels, 0, -1):
        down.append(max(1, (latent_dim - sum(down)) // (2**below - 1)))
    down[-1] = latent_dim - sum(down[:-1])
    return tuple(down[::-1])


def inner_widths(inner: Sequence[int] | None, above: int) -> tuple[int, ...]:
    """Say how wide the hidden layers of a network between two stochastic layers are.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, section 5.1.1 (two of 100 below 50).

    Parameters
    ----------
    inner : sequence of int or None
        As the user gives it; None: two layers, twice as wide as the code above, and 32 at least.
    above : int
        Dimensions of the upper of the two.

    Returns
    -------
    tuple of int
        Widths.

    Raises
    ------
    PlanError
        If a layer has no whole number of units.

    Examples
    --------
    >>> from chartae.parts.posteriors import inner_widths
    >>> inner_widths(None, 50), inner_widths([64], 50)
    ((100, 100), (64,))
    """
    if inner is None:
        return (max(NARROWEST, 2 * above),) * 2
    if not _are_counts(inner):
        raise PlanError(f"inner={inner!r}: give a whole number of units for each hidden layer")
    return tuple(inner)


def _are_counts(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(is_count(n) for n in given)


class ConditionalNormal(nn.Module):
    """A diagonal normal over one layer of a code, given the layer beside it.

    Source: Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equations 1 and 2.

    Parameters
    ----------
    before, after : int
        Dimensions of what is given and of what follows.
    hidden : sequence of int
        Widths of the layers between.
    condition_dim : int
        Width of the condition.
    activation : str
        Between layers.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.posteriors import ConditionalNormal
    >>> ConditionalNormal(3, 2, (8,))(torch.zeros(6, 5, 3)).mean.shape
    torch.Size([6, 5, 2])
    """

    def __init__(
        self,
        before: int,
        after: int,
        hidden: Sequence[int],
        condition_dim: int = 0,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.network = MLP((before,), (2 * after,), hidden, condition_dim, activation)
        damp(self.network, 0.1, slice(after, None))

    def forward(self, v: Tensor, c: Tensor | None = None) -> DiagonalNormal:
        """Map.

        Parameters
        ----------
        v : Tensor
            ``(..., before)``.
        c : Tensor or None
            ``(n, condition_dim)``, where the last batch dimension is of n rows.

        Returns
        -------
        DiagonalNormal
            With batch shape ``(...)``.
        """
        if c is not None:
            shape = np.broadcast_shapes(v.shape[:-1], c.shape[:-1])
            v, c = v.expand(*shape, -1), c.expand(*shape, -1).reshape(-1, c.shape[-1])
        flat = v.reshape(-1, v.shape[-1])
        out = full(self.network(flat) if c is None else self.network(flat, c))
        mean, log_var = out.reshape(*v.shape[:-1], -1).chunk(2, -1)
        return DiagonalNormal(mean, bounded(log_var))


@posteriors.register("bottom-up")
class BottomUpPosterior(NetworkPosterior):
    """Layers of normals, each given the one below it: q(z_1 | x) q(z_2 | z_1) and so on.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d_1)``: mean and log variance of the layer nearest the data.
    latent_dim : int
        d, of all layers together.
    levels, sizes
        As in :func:`layer_sizes`.
    inner : sequence of int or None
        Widths of the hidden layers between two stochastic ones, as in :func:`inner_widths`.
    activation : str
        Of those layers.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import BottomUpPosterior
    >>> q = BottomUpPosterior(MLP((4,), (2 * 2,), hidden=(8,)), latent_dim=3, levels=2)
    >>> q.sizes, q(torch.zeros(5, 4)).point().shape
    ((2, 1), torch.Size([5, 3]))
    """

    offers = CAN

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        levels: int | None = None,
        sizes: Sequence[int] | None = None,
        inner: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__(network, latent_dim)
        self.sizes = layer_sizes(latent_dim, levels, sizes)
        self.upward = nn.ModuleList(
            ConditionalNormal(below, above, inner_widths(inner, above), activation=activation)
            for below, above in zip(self.sizes, self.sizes[1:], strict=False)
        )

    @staticmethod
    def features(
        latent_dim: int,
        levels: int | None = None,
        sizes: Sequence[int] | None = None,
        inner: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim, levels, sizes, inner, activation
            As in the constructor.

        Returns
        -------
        int
            2 d_1.
        """
        return 2 * layer_sizes(latent_dim, levels, sizes)[0]

    @staticmethod
    def spreads(latent_dim: int, **options: Any) -> slice:
        return _lowest_spread(latent_dim, **options)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        mean, log_var = self.encode(x, c).chunk(2, 1)
        lowest = DiagonalNormal(mean, bounded(log_var))
        return Chain(lowest, list(self.upward), self.sizes) if len(self.upward) else lowest


@posteriors.register("ladder")
class LadderPosterior(NetworkPosterior):
    """What x says of each layer, combined with what the layer above says in the prior.

    The encoder goes up without drawing, and notes a normal for each layer. Draws then come down: the highest
    layer from its normal, each other one from the product of its own with the prior's conditional normal.
    The prior's networks are the prior's: this part asks for them when it is in a model (``within``), so that
    both sides always use the same, and a decoder needs no encoder. Without batch normalization.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, features)``: mean and log variance of the layer nearest the data, and what goes up.
    latent_dim : int
        d, of all layers together.
    levels, sizes
        As in :func:`layer_sizes`.
    inner : sequence of int or None
        Widths of the hidden layers between two stochastic ones, as in :func:`inner_widths`.
    activation : str
        Of those layers.

    References
    ----------
    Sønderby et al. 2016, arXiv:1602.02282, equations 10 to 19.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import LadderPosterior
    >>> from chartae.parts.priors import TopDownPrior
    >>> width = LadderPosterior.features(3, levels=2)
    >>> q = LadderPosterior(MLP((4,), (width,), hidden=(8,)), latent_dim=3, levels=2)
    >>> q(torch.zeros(5, 4)).within(TopDownPrior(3, levels=2)(), None).point().shape
    torch.Size([5, 3])
    """

    offers = CAN

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        levels: int | None = None,
        sizes: Sequence[int] | None = None,
        inner: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__(network, latent_dim)
        self.sizes = layer_sizes(latent_dim, levels, sizes)
        self.states = _states(self.sizes, inner)
        self.upward = nn.ModuleList(
            MLP((below,), (2 * d + above,), inner_widths(inner, d), activation=activation)
            for below, above, d in zip(self.states, self.states[1:], self.sizes[1:], strict=False)
        )

    @staticmethod
    def features(
        latent_dim: int,
        levels: int | None = None,
        sizes: Sequence[int] | None = None,
        inner: Sequence[int] | None = None,
        activation: str = "relu",
    ) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim, levels, sizes, inner, activation
            As in the constructor.

        Returns
        -------
        int
            2 d_1, and the width of what goes up.
        """
        each = layer_sizes(latent_dim, levels, sizes)
        return 2 * each[0] + _states(each, inner)[0]

    @staticmethod
    def spreads(latent_dim: int, **options: Any) -> slice:
        return _lowest_spread(latent_dim, **options)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        means, log_vars = [], []
        out = self.encode(x, c)
        for i, (d, state) in enumerate(zip(self.sizes, self.states, strict=True)):
            mean, log_var, up = out.split([d, d, state], 1)
            means.append(mean)
            log_vars.append(bounded(log_var))
            if i < len(self.upward):
                out = full(self.upward[i](up))
        q = DiagonalNormal if len(self.sizes) == 1 else partial(_Ladder, sizes=self.sizes)
        return q(torch.cat(means, 1), torch.cat(log_vars, 1))


def _lowest_spread(
    latent_dim: int, levels: int | None = None, sizes: Sequence[int] | None = None, **_: Any
) -> slice:
    d = layer_sizes(latent_dim, levels, sizes)[0]
    return slice(d, 2 * d)


def _states(sizes: Sequence[int], inner: Sequence[int] | None) -> list[int]:
    """Widths of what goes up from each layer: of the first hidden layer above; 0 from the highest."""
    return [*((*inner_widths(inner, above), 2 * above)[0] for above in sizes[1:]), 0]


class _Ladder(DiagonalNormal):
    """What x says of each layer by itself; within a model it becomes a chain that comes down."""

    def __init__(self, mean: Tensor, log_var: Tensor, sizes: Sequence[int]) -> None:
        super().__init__(mean, log_var)
        self.sizes = tuple(sizes)

    def within(self, p: Distribution | None, log_lik: Callable[[Tensor], Tensor] | None) -> Distribution:
        if not (isinstance(p, Chain) and p.downward and p.sizes == self.sizes[::-1]):
            raise PlanError("a ladder posterior combines with a prior of the same layers: use 'top-down'")
        means, log_vars = (t.split(self.sizes, -1)[::-1] for t in (self.mean, self.log_var))
        highest, *others = map(DiagonalNormal, means, log_vars)
        steps = [partial(_combine, own, step) for own, step in zip(others, p.steps, strict=True)]
        return Chain(highest, steps, p.sizes, downward=True)


def _combine(own: DiagonalNormal, step: Callable[[Tensor], DiagonalNormal], above: Tensor) -> DiagonalNormal:
    """Multiply two normal densities: precisions add up, and weigh the means."""
    p = step(above)
    share = p.log_var - own.log_var
    mean = torch.lerp(p.mean, own.mean.expand_as(p.mean), share.sigmoid())
    return DiagonalNormal(mean, own.log_var + nn.functional.logsigmoid(share))
