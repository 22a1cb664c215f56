"""What likelihoods that are networks share, and where they are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Likelihood
from chartae.core.errors import PlanError
from chartae.core.registry import Registry
from chartae.core.spaces import Space, Units
from chartae.parts.networks import center, full

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["NetworkLikelihood", "likelihoods"]

#: Classes with ``per_value(noise, levels)`` and ``units(facts, scale)``, built by
#: ``of(space, network, noise)``.
likelihoods: Registry[type[NetworkLikelihood]] = Registry("likelihood")


class NetworkLikelihood(Likelihood):
    """Base: flattens samples for the network, and unflattens after it.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``per_value`` numbers for each value of x.
    shape : tuple of int
        Shape of one item.
    noise, levels, step : object
        For subclasses that have a noise, or categories, or whole numbers: ``step`` is 1 of the input's units
        in the model's, a number or an array that broadcasts against an item.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, appendix C.

    Examples
    --------
    >>> from chartae.parts.likelihoods import BernoulliLikelihood, NetworkLikelihood
    >>> issubclass(BernoulliLikelihood, NetworkLikelihood)
    True
    """

    offers = frozenset({"log_prob", "point"})
    has_noise = False  # whether ``noise`` says anything to it
    step: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Both are of the very numbers that the network gave: whoever makes others of them says so anew.
        if {"forward", "decode", "distribution"} & vars(cls).keys() and "offers" not in vars(cls):
            cls.offers = cls.offers - {"score", "located"}

    def __init__(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        *,
        noise: Any = None,
        levels: int | None = None,
        step: Any = None,
    ) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)
        # Not kept: it follows from the units of the data, which are.
        self.register_buffer("step", torch.as_tensor(1.0 if step is None else step), persistent=False)

    @classmethod
    def of(cls, space: Space, network: nn.Module, noise: Any = None, hide: float = 0.0) -> NetworkLikelihood:
        """Make the likelihood of the items of a space.

        Parameters
        ----------
        space : Space
            Shape and units of the data.
        network : nn.Module
            From ``(n, d)`` to ``out_shape(space, noise)``.
        noise : object
            As the user gives it.
        hide : float
            Share of an item's values that the decoder does not see in training, where it sees any.

        Returns
        -------
        NetworkLikelihood
            Of this class.
        """
        noise = cls.noise_in_model_units(noise, space)
        step = 1.0 / space.scale.float()
        made = cls(network, space.model_shape, noise=noise, levels=space.levels, step=step)
        made.gaps = space.gaps
        return made

    @classmethod
    def out_shape(cls, space: Space, noise: Any = None) -> tuple[int, ...]:
        """Say what the network must give for an item.

        Parameters
        ----------
        space : Space
            Shape and units of the data.
        noise : object
            As the user gives it.

        Returns
        -------
        tuple of int
            :meth:`per_value` times as many channels as an item has.
        """
        return (cls.per_value(noise, space.levels) * space.model_shape[0], *space.model_shape[1:])

    def begin(self, x: Tensor, c: Tensor | None) -> None:
        resting = self.resting(x)
        if resting is not None:
            center(self.network, resting)

    def resting(self, x: Tensor) -> Tensor | None:
        """Say what the network should give where it knows nothing of an item: what suits their mean.

        Parameters
        ----------
        x : Tensor
            Of shape ``(n, *x)``: training rows; NaN where a value is missing.

        Returns
        -------
        Tensor or None
            Of shape ``(*out_shape)``; None where a likelihood does not say.
        """
        return None

    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        return self.distribution(self.decode(z, c))

    def guided(self, z: Tensor, c: Tensor, null: Tensor, guidance: float) -> Distribution:
        """Decode beyond the condition: from what the network gives without it, through what it gives with it.

        What is moved is the numbers that the network gave, of which every likelihood makes its parameters:
        logits, log rates, means and log spreads.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor
            ``(n, m)`` condition.
        null : Tensor
            ``(n, m)``, no condition.
        guidance : float
            w: 0 is p(x | z), 1 is p(x | z, c), and more goes on in that direction.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.

        Raises
        ------
        PlanError
            If a subclass has a ``forward`` of its own.

        References
        ----------
        Ho and Salimans 2022, arXiv:2207.12598, equation 6, with its w one larger, here of a decoder's
        output.

        Examples
        --------
        >>> import torch
        >>> from chartae.parts.likelihoods import BernoulliLikelihood
        >>> from chartae.parts.networks import MLP
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> p = BernoulliLikelihood(MLP((2,), (4,), hidden=(8,), condition_dim=1), (4,))
        >>> z, c, null = torch.zeros(1, 3, 2), torch.ones(3, 1), torch.zeros(3, 1)
        >>> bool((p.guided(z, c, null, 1.0).point() == p(z, c).point()).all())
        True
        """
        if type(self).forward is not NetworkLikelihood.forward:
            raise PlanError(
                f"guidance calls decode and distribution, and {type(self).__name__} has a forward of its "
                "own: write these two in its place"
            )
        # lerp gives either end to the last bit.
        return self.distribution(torch.lerp(self.decode(z, null), self.decode(z, c), guidance))

    def distribution(self, out: Tensor) -> Distribution:
        """Read what the network gave.

        Parameters
        ----------
        out : Tensor
            ``(k, n, *out_shape)``.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.

        Raises
        ------
        NotImplementedError
            If a subclass has neither this nor a ``forward`` of its own.
        """
        raise NotImplementedError

    @staticmethod
    def per_value(noise: object = None, levels: int | None = None) -> int:
        """How many numbers the network gives for each value of x.

        Parameters
        ----------
        noise : object
            As in the constructor.
        levels : int or None
            As in the constructor.

        Returns
        -------
        int
            1, unless a subclass says otherwise.
        """
        return 1

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Say how data are prepared for this likelihood, and which values it knows.

        Parameters
        ----------
        facts : Facts
            What the data look like.
        scale : {"auto", "global", "feature", "none"}
            What the user asked for.

        Returns
        -------
        Units
            The data as they are, and any number; a subclass may say otherwise.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.parts.likelihoods import likelihoods
        >>> from chartae.parts.units import Facts
        >>> data = Facts(np.array([[0.0, 16.0], [8.0, 4.0]]))
        >>> for name in ("normal", "bernoulli", "categorical", "poisson"):
        ...     units = likelihoods[name].units(data)
        ...     print(name, np.round(units.center, 1), np.round(units.scale, 1), units.support)
        normal [ 4. 10.] 5.1 values
        bernoulli 0.0 16.0 values from 0 to 16
        categorical 0.0 16 whole numbers from 0 to 16
        poisson 0.0 7.0 whole numbers from 0 up
        """
        return Units()

    @staticmethod
    def noise_in_model_units(noise: Any, space: Space) -> Any:
        """Convert the user's noise to what the constructor takes.

        Parameters
        ----------
        noise : object
            As the user gives it.
        space : Space
            Of the data.

        Returns
        -------
        object
            The same, unless a subclass says otherwise.
        """
        return noise

    def decode(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Run the network on every sample of every row.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(k, n, *out)``, float32 or better.
        """
        k, n = z.shape[:2]
        flat = z.reshape(k * n, *z.shape[2:])
        if c is None:
            out = self.network(flat)
        else:
            out = self.network(flat, c if k == 1 else c.repeat(k, 1))
        return full(out).unflatten(0, (k, n))


def mean_there(x: Tensor, prior: Any = None) -> Tensor:
    """Mean (*x) of rows (n, *x) over what is there, and one more row, of ``prior``."""
    there = (~x.isnan()).sum(0)
    total = x.nansum(0)
    return total / there.clamp_min(1) if prior is None else (total + prior) / (there + 1)
