"""What all posteriors share: the encoder and its numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Posterior
from chartae.core.registry import Registry
from chartae.parts.networks import full

__all__ = ["NetworkPosterior", "bounded", "bounded_slope", "posteriors"]

#: Classes with a ``features(latent_dim)`` that says how wide the encoder must be.
posteriors: Registry[type[Posterior]] = Registry("posterior")


LOG_VAR_LIMIT = 20.0


def bounded(log_var: Tensor) -> Tensor:
    """Bound a log variance smoothly to (-20, 20); near zero it is the identity.

    A hard clamp has no gradient beyond its edge, and no bound lets one item overflow.

    Source: this library's own; any smooth bound would do.

    Parameters
    ----------
    log_var : Tensor
        Any shape.

    Returns
    -------
    Tensor
        Of the same shape.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.posteriors import bounded
    >>> bounded(torch.tensor([-1e6, 0.0, 1e6])).tolist()
    [-20.0, 0.0, 20.0]
    """
    return LOG_VAR_LIMIT * torch.tanh(log_var * (1 / LOG_VAR_LIMIT))


def bounded_slope(log_var: Tensor) -> Tensor:
    """Differentiate :func:`bounded`, given its result.

    Source: the derivative of the hyperbolic tangent.

    Parameters
    ----------
    log_var : Tensor
        What :func:`bounded` gave, any shape.

    Returns
    -------
    Tensor
        Of the same shape.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.posteriors import bounded, bounded_slope
    >>> bounded_slope(bounded(torch.tensor([0.0, 1e6]))).tolist()
    [1.0, 0.0]
    """
    return 1.0 - (log_var * (1 / LOG_VAR_LIMIT)).square()


class NetworkPosterior(Posterior):
    """Base of posteriors whose parameters an encoder gives.

    A subclass has a static ``features(latent_dim, **options)``, which says how wide the encoder's output is.

    Source: Kingma and Welling 2014, arXiv:1312.6114, appendix C (an encoder that gives parameters).

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, features)``.
    latent_dim : int
        d.

    Examples
    --------
    >>> from chartae.parts.posteriors import NetworkPosterior, NormalPosterior
    >>> issubclass(NormalPosterior, NetworkPosterior)
    True
    """

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    @staticmethod
    def spreads(latent_dim: int, **options: Any) -> slice:
        """Say which features tell how wide the posterior is: before training they should hardly differ.

        Parameters
        ----------
        latent_dim, **options
            As in the constructor.

        Returns
        -------
        slice
            All that follow the first d, unless a subclass says otherwise.
        """
        return slice(latent_dim, None)

    def encode(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Run the encoder.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, features)``, float32 or better.
        """
        return full(self.network(x) if c is None else self.network(x, c))
