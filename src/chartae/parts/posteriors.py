"""Posteriors q(z | x, c)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior
from chartae.core.errors import PlanError
from chartae.core.registry import Registry, suggest
from chartae.parts.distributions import Delta, DiagonalNormal, FullNormal

__all__ = [
    "Corrupted",
    "DeltaPosterior",
    "FullNormalPosterior",
    "NormalPosterior",
    "bounded",
    "bounded_slope",
    "posteriors",
]

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


def full(t: Tensor) -> Tensor:
    """Leave half precision: distributions are computed in float32 or better.

    A variance in bf16 has two digits.

    Parameters
    ----------
    t : Tensor
        Any shape, from a network.

    Returns
    -------
    Tensor
        float32 or float64.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.posteriors import full
    >>> full(torch.zeros(1, dtype=torch.bfloat16)).dtype, full(torch.zeros(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return t.float() if t.element_size() < 4 else t


class NetworkPosterior(Posterior):
    """Base of posteriors whose parameters an encoder gives."""

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

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


@posteriors.register("delta")
class DeltaPosterior(NetworkPosterior):
    """A point mass on the encoder's output: a plain autoencoder.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.

    References
    ----------
    Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import DeltaPosterior
    >>> DeltaPosterior(MLP((4,), (3,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4)).point().shape
    torch.Size([5, 3])
    """

    offers = frozenset({"point", "reparameterized"})

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            d.
        """
        return latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return Delta(self.encode(x, c))


@posteriors.register("normal")
class NormalPosterior(NetworkPosterior):
    """A diagonal normal whose mean and log variance the encoder gives.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d)``.
    latent_dim : int
        d.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, appendix C.2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> q = NormalPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> q.point().shape, bool((q.std() > 0).all())
    (torch.Size([5, 3]), True)
    """

    offers = frozenset({"log_prob", "point", "reparameterized"})

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            2 d.
        """
        return 2 * latent_dim

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        mean, log_var = self.encode(x, c).chunk(2, 1)
        return DiagonalNormal(mean, bounded(log_var))


@posteriors.register("full-normal")
class FullNormalPosterior(NetworkPosterior):
    """A normal with any covariance, whose Cholesky factor the encoder gives.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d + d (d + 1) / 2)``: mean, log variances given the dimensions before, and how each
        dimension follows those before it.
    latent_dim : int
        d.

    References
    ----------
    Kingma and Welling 2019, arXiv:1906.02691, section 2.5.1.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import FullNormalPosterior
    >>> q = FullNormalPosterior(MLP((4,), (9,), hidden=(8,)), latent_dim=3)(torch.zeros(5, 4))
    >>> q.point().shape, q.scale_tril.shape
    (torch.Size([5, 3]), torch.Size([5, 3, 3]))
    """

    offers = frozenset({"log_prob", "point", "reparameterized"})

    @staticmethod
    def features(latent_dim: int) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.

        Returns
        -------
        int
            d + d (d + 1) / 2.
        """
        return latent_dim + latent_dim * (latent_dim + 1) // 2

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        d = self.latent_dim
        out = self.encode(x, c)
        mean, log_var, below = out.split([d, d, d * (d - 1) // 2], 1)
        row, column = torch.tril_indices(d, d, -1, device=out.device)
        unit = torch.eye(d, dtype=out.dtype, device=out.device).repeat(len(out), 1, 1)
        # Over the root of d, so that a fresh encoder says nearly diagonal, however many dimensions add up.
        unit[:, row, column] = below / d**0.5
        return FullNormal(mean, (0.5 * bounded(log_var)).exp().unsqueeze(-1) * unit)


class Corrupted(Posterior):
    """A posterior that sees corrupted input in training, and clean input otherwise.

    Parameters
    ----------
    posterior : Posterior
        What is wrapped; :attr:`plain` gives it back.
    kind : {"gaussian", "masking"}
        Added normal noise, or values set to zero.
    amount : float
        Standard deviation in the model's units, or the share of values that is masked.

    Raises
    ------
    PlanError
        If the kind is unknown or the amount makes no sense.

    References
    ----------
    Vincent et al. 2008, doi:10.1145/1390156.1390294.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import Corrupted, DeltaPosterior
    >>> q = Corrupted(DeltaPosterior(MLP((4,), (3,), hidden=(8,)), 3), "gaussian", 0.5)
    >>> x = torch.zeros(1, 4)
    >>> torch.equal(q(x).point(), q(x).point()), torch.equal(q.eval()(x).point(), q(x).point())
    (False, True)
    """

    def __init__(self, posterior: Posterior, kind: str = "gaussian", amount: float = 0.3) -> None:
        super().__init__()
        if kind not in self.KINDS:
            raise PlanError(f"unknown corruption {kind!r}: {suggest(kind, self.KINDS)}")
        most = 1 if kind == "masking" else math.inf
        if not (isinstance(amount, int | float) and 0 < amount < most):
            below = " below 1" if kind == "masking" else ""
            raise PlanError(
                f"corruption by {amount!r} makes no sense where it is {kind}: use a number above 0{below}"
            )
        self.posterior: Posterior = posterior
        self.kind, self.amount = kind, float(amount)
        self.offers = posterior.offers

    KINDS: dict[str, Callable[[Tensor, float], Tensor]] = {  # noqa: RUF012 - a constant table
        "gaussian": lambda x, amount: x + amount * torch.randn_like(x),
        "masking": lambda x, amount: x * (torch.rand_like(x) >= amount),
    }

    @property
    def plain(self) -> Posterior:
        return self.posterior.plain

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return self.posterior(self.KINDS[self.kind](x, self.amount) if self.training else x, c)
