"""What is read off codes in place of x: a target, or nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Draw, Likelihood, Posterior
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.parts.distributions import Delta
from chartae.parts.likelihoods import likelihoods
from chartae.parts.networks import MLP

__all__ = ["Encoded", "Pointed", "Silent", "readout"]

WITHOUT, INSTEAD = "this model has no decoder, so that there", "use training='joint', or another recipe"


class Silent(Likelihood):
    """A decoder that says nothing of x, whose every value it holds for equally likely: 0 nats.

    Parameters
    ----------
    shape : tuple of int
        Shape of one item.

    References
    ----------
    Alemi et al. 2017, arXiv:1612.00410, equation 17: the bound has no term in p(x | z).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.readouts import Silent
    >>> Silent((4,))(torch.zeros(3, 5, 2)).log_prob(torch.ones(5, 4)).unique()
    tensor([0.])
    """

    continuous = False

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        return _Anything(z, self.shape)


class _Anything(Distribution):
    def __init__(self, z: Tensor, shape: tuple[int, ...]) -> None:
        self.zeros, self.shape = z.new_zeros(z.shape[:2]), shape

    @property
    def batch_shape(self) -> torch.Size:
        return self.zeros.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size(self.shape)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        return self.zeros.reshape(*self.zeros.shape, *(1,) * len(self.shape)) * v if per_dim else self.zeros

    def draw(self, k: int, noise: Noise) -> Draw:
        raise PlanError(f"{WITHOUT} is no x to draw: {INSTEAD}")

    def point(self) -> Tensor:
        raise PlanError(f"{WITHOUT} is no x to show: {INSTEAD}")


class Pointed(Posterior):
    """A posterior of which the point alone is used: the code that ``transform`` gives.

    Parameters
    ----------
    posterior : Posterior
        What is wrapped.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> from chartae.parts.readouts import Pointed
    >>> q = NormalPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=3)
    >>> torch.equal(Pointed(q)(torch.ones(5, 4)).point(), q(torch.ones(5, 4)).point())
    True
    """

    offers = frozenset({"point", "reparameterized"})

    def __init__(self, posterior: Posterior) -> None:
        super().__init__()
        self.posterior: Posterior = posterior

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return Delta(self.posterior(x, c).point())

    @property
    def plain(self) -> Posterior:
        return self.posterior.plain


class Encoded(Posterior):
    """The output of any module as a code, flattened.

    Parameters
    ----------
    network : nn.Module
        From ``(n, *shape)`` to ``(n, ...)``.
    shape : tuple of int
        Shape of one item.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.readouts import Encoded
    >>> Encoded(torch.nn.Conv1d(2, 3, 1), (2, 5))(torch.zeros(4, 2, 5)).event_shape
    torch.Size([15])
    """

    offers = frozenset({"point", "reparameterized"})

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return Delta(self.network(x.reshape(-1, *self.shape)).flatten(1))


class _Standardized(nn.Module):
    """Codes around 0 and of size 1, by numbers that are fixed, and a network that sees them so."""

    center: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, codes: Tensor | None) -> None:
        super().__init__()
        center = torch.zeros(()) if codes is None else codes.mean(0)
        spread = torch.ones(()) if codes is None else (codes - center).square().mean().sqrt()
        self.network = network
        self.register_buffer("center", center)
        self.register_buffer("scale", spread if spread > 0 else torch.ones_like(spread))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.network((z - self.center) / self.scale)
        return out


def readout(
    space: Space,
    latent_dim: int = 0,
    *,
    hidden: tuple[int, ...] = (),
    codes: Tensor | None = None,
    network: nn.Module | None = None,
) -> Likelihood:
    """Make p(y | z): a likelihood whose item is a target, and whose network sees a code.

    Parameters
    ----------
    space : Space
        Of the target, ``(1,)``, with its likelihood and units.
    latent_dim : int
        d.
    hidden : tuple of int
        Widths of layers; none for a linear one.
    codes : Tensor or None
        ``(n, d)``: what codes are like, where that is known.
    network : nn.Module or None
        In place of layers, from ``(n, d)`` to as many numbers as the likelihood takes.

    Returns
    -------
    Likelihood
        Which takes codes ``(k, n, d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> from chartae.parts.readouts import readout
    >>> p = readout(Space((1,), "categorical", levels=3, scale=2.0), latent_dim=4)
    >>> p(torch.zeros(2, 5, 4)).logits.shape
    torch.Size([2, 5, 1, 3])
    """
    chosen = likelihoods[space.likelihood]
    shape = chosen.out_shape(space, "global")
    if network is not None:
        return chosen.of(space, nn.Sequential(network, nn.Unflatten(1, shape)), "global")
    return chosen.of(space, _Standardized(MLP((latent_dim,), shape, hidden=hidden), codes), "global")
