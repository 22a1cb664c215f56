"""The three conditional distributions of a model, as parts with parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from chartae.core.contracts.distributions import Distribution

if TYPE_CHECKING:
    from chartae.core.spaces import Space

__all__ = ["Likelihood", "Part", "Posterior", "Prior"]


class Part(nn.Module, ABC):
    """One of the conditional distributions that a model is made of.

    Examples
    --------
    >>> from chartae.core.contracts import Part
    >>> from chartae.parts.priors import StandardNormalPrior
    >>> isinstance(StandardNormalPrior(3), Part)
    True
    """

    offers: frozenset[str] = frozenset()

    def begin(self, x: Tensor, c: Tensor | None) -> None:
        """Look at some training rows before the first step, for a start that suits them; most have no need.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)`` condition.
        """


class Posterior(Part):
    """q(z | x, c): what the encoder says about the code of x.

    ``differentiates_networks`` tells whether its draws hold derivatives of a network, so that a gradient
    differentiates the network twice; ``support`` says where its codes lie, where that is not all of R^d;
    ``fitted_density`` names what is fitted to its codes, where the model has no prior; ``waits`` tells
    whether its draws make the host wait for a GPU without torch's knowledge, so that steps are not
    recorded; ``offers`` also names the auxiliary tensors that its draws bring.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> q = NormalPosterior(MLP((4,), (2 * 3,), hidden=(8,)), latent_dim=3)
    >>> q(torch.zeros(5, 4)).event_shape
    torch.Size([3])
    """

    differentiates_networks: bool = False
    support: str = ""
    fitted_density: str = "normal"
    waits: bool = False

    def takes_after(self, posterior: Posterior) -> None:
        """Say of a wrapper what the posterior says of itself.

        Parameters
        ----------
        posterior : Posterior
            What is wrapped.
        """
        for name in ("offers", "differentiates_networks", "support", "fitted_density", "waits"):
            setattr(self, name, getattr(posterior, name))

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        """Encode.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)`` condition.

        Returns
        -------
        Distribution
            With batch shape ``(n,)`` and event shape ``(d,)``.
        """

    @property
    def plain(self) -> Posterior:
        """The posterior without wrappers that act in training only (corruption)."""
        return self

    @property
    def codebook(self) -> nn.Module | None:
        """The finite set that all codes lie in, where there is one."""
        return None


class Prior(Part):
    """p(z | c): where codes live before any x is seen.

    ``support`` says where, if not in all of R^d ("on a sphere"): the posterior's codes must lie there too.
    None: where they lie, of a prior that is made of the posterior.
    ``needs`` names what other parts must offer, as an objective's does.

    Examples
    --------
    >>> from chartae.parts.priors import StandardNormalPrior
    >>> StandardNormalPrior(3)().event_shape
    torch.Size([3])
    """

    support: str | None = ""
    needs: frozenset[str] = frozenset()

    def onto(self, z: Tensor) -> Tensor:
        """Bring codes to where they can lie, from where a straight path or a user has put them.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        return z

    @abstractmethod
    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        """Give the distribution of codes.

        Parameters
        ----------
        c : Tensor or None
            ``(n, m)`` condition.
        posterior : Posterior or None
            The posterior, for priors that are made of it; it is never stored.

        Returns
        -------
        Distribution
            With batch shape ``()`` or ``(n,)`` and event shape ``(d,)``.
        """

    def taken(self, posterior: Posterior) -> dict[str, Tensor]:
        """Give those of its buffers that follow from the posterior, so that a decoder may go without one.

        Parameters
        ----------
        posterior : Posterior
            The posterior, as training left it.

        Returns
        -------
        dict of str to Tensor
            By name, each of its buffer's shape; most priors take nothing.
        """
        return {}


class Likelihood(Part):
    """p(x | z, c): what the decoder says about x.

    ``continuous`` tells whether it is a density (so that a change of units changes its logarithm),
    ``sequential`` whether items are rows of tokens, each told from those before it,
    ``estimated`` whether it keeps estimates of the training data (see :meth:`observe`), ``gaps`` whether
    values may be missing, as NaN. One that offers "score" gives distributions with a method of that name: the
    derivative of the log density by what the network gave, so that no graph is needed to train it. One that
    offers "located" has nothing to learn but where its point lies, which passes gradients on to all of it.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import BernoulliLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = BernoulliLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).batch_shape
    torch.Size([6, 5])
    """

    continuous: bool = True
    sequential: bool = False
    estimated: bool = False
    gaps: bool = False

    @abstractmethod
    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """Decode.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor or None
            ``(n, m)`` condition.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.
        """

    def log_volume(self, space: Space) -> Tensor:
        """Log of the model's unit in the input's, for each value: what a density loses by it.

        Parameters
        ----------
        space : Space
            Of the data.

        Returns
        -------
        Tensor
            Of the model's shape of an item, in nats.
        """
        log_scale = space.scale.log().expand(space.model_shape)
        return log_scale if self.continuous else torch.zeros_like(log_scale)

    def observe(self, px: Distribution, x: Tensor) -> None:
        """Update running estimates from a batch of training rows; most likelihoods have none.

        Parameters
        ----------
        px : Distribution
            What the decoder said, batch shape ``(k, n)``.
        x : Tensor
            What was there, ``(n, *x)``.
        """

    def measured(self, px: Distribution, x: Tensor) -> Tensor:
        """Give what a batch says of the estimates, as sums that add up over batches.

        Parameters
        ----------
        px : Distribution
            What the decoder said, batch shape ``(k, n)``.
        x : Tensor
            What was there, ``(n, *x)``.

        Returns
        -------
        Tensor
            ``(2, *s)``: of what is to be averaged, and of how much that is.

        Raises
        ------
        NotImplementedError
            If there are no estimates.
        """
        raise NotImplementedError(f"{type(self).__name__} estimates nothing")

    def settle(self, sums: Tensor) -> None:
        """Estimate from all batches together.

        Parameters
        ----------
        sums : Tensor
            ``(2, *s)``, of :meth:`measured`.

        Raises
        ------
        NotImplementedError
            If there are no estimates.
        """
        raise NotImplementedError(f"{type(self).__name__} estimates nothing")
