"""Posteriors whose draws move along the model's log density, at a pace that a learned metric sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.parts.distributions import DiagonalNormal
from chartae.parts.distributions.base import LOG_2PI
from chartae.parts.networks import evaluating
from chartae.parts.posteriors.base import posteriors
from chartae.parts.posteriors.hamiltonian import Hamiltonian, HamiltonianPosterior, Map, Place

__all__ = ["Metric", "RiemannianHamiltonian", "RiemannianPosterior"]

ROUNDS = 6  # of a fixed point: volumes are then kept to 1e-6 at steps of 0.2, and 1e-3 at the largest


class Metric:
    """A metric of codes, by its inverse: pieces around centroids that fade with the distance, and a floor.

    ``inverse(z) = sum_i factor_i factor_i' exp(-|z - centroid_i|² / temperature²) + regularization I``.

    Parameters
    ----------
    centroids : Tensor
        ``(m, d)``.
    factors : Tensor
        ``(m, d, d)``.
    temperature : float
        How far pieces reach, in code units.
    regularization : float
        The floor.

    References
    ----------
    Chadebec et al. 2021, arXiv:2105.00026 (the metric).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.posteriors import Metric
    >>> metric = Metric(torch.zeros(1, 2), torch.eye(2)[None], temperature=1.0, regularization=0.5)
    >>> metric.inverse(torch.tensor([[0.0, 0.0], [9.0, 9.0]])).diagonal(dim1=1, dim2=2)
    tensor([[1.5000, 1.5000],
            [0.5000, 0.5000]])
    """

    def __init__(self, centroids: Tensor, factors: Tensor, temperature: float, regularization: float) -> None:
        self.centroids, self.temperature, self.regularization = centroids, temperature, regularization
        self.pieces = _product(factors, factors.mT).flatten(1)

    def weights(self, z: Tensor) -> Tensor:
        """Say how much of each piece there is.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., m)``, from 0 to 1.
        """
        # Expanded, which spares a difference for each code and centroid.
        own = self.centroids.square().sum(-1) - 2 * _product(z, self.centroids.mT)
        squares = (z.square().sum(-1, keepdim=True) + own).clamp_min(0)
        return (squares * -(self.temperature**-2)).exp()

    def inverse(self, z: Tensor, weights: Tensor | None = None) -> Tensor:
        """Give the inverse of the metric.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.
        weights : Tensor or None
            ``(..., m)``, as :meth:`weights` gives them, where they are known.

        Returns
        -------
        Tensor
            ``(..., d, d)``, symmetric and positive definite.
        """
        w, d = self.weights(z) if weights is None else weights, z.shape[-1]
        blend = _product(w, self.pieces).unflatten(-1, (d, d))
        return blend + self.regularization * torch.eye(d, dtype=blend.dtype, device=blend.device)

    def along(self, z: Tensor, weights: Tensor, coefficients: Tensor) -> Tensor:
        """Differentiate a weighted sum of the weights by where they are.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.
        weights, coefficients : Tensor
            ``(..., m)``, of which only the former depend on z.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        a = weights * coefficients * (-2 * self.temperature**-2)
        return a.sum(-1, keepdim=True) * z - _product(a, self.centroids)

    def products(self, matrices: Tensor) -> Tensor:
        """Multiply with each piece, value by value, and add up: traces of products.

        Parameters
        ----------
        matrices : Tensor
            ``(..., d, d)``, symmetric.

        Returns
        -------
        Tensor
            ``(..., m)``.
        """
        return _product(matrices.flatten(-2), self.pieces.mT)


@dataclass(frozen=True)
class _Bent(Place):
    """Where a draw is, and what is known of the metric there."""

    weights: Tensor
    inverse: Tensor
    traces: Tensor  # (k, n, m), of the metric times each piece


class RiemannianHamiltonian(Hamiltonian):
    """Draws of a normal that leap along a log density, with a momentum that is N(0, G(z)).

    Steps are those of the generalized leapfrog. It is implicit, and found by rounds of a fixed point.

    Parameters
    ----------
    start : DiagonalNormal
        Where draws start, batch shape ``(n,)``.
    log_density : callable
        From ``(k, n, d)`` to ``(k, n)``, in nats; up to a constant.
    step : Tensor
        ``(d,)``, how far they leap in each dimension.
    roots : Tensor
        ``(steps + 1,)``, square roots of inverse temperatures, of which the last is 1.
    metric : Metric
        G.
    second_order : bool
        As of :class:`Hamiltonian`.

    References
    ----------
    Chadebec, Mantoux and Allassonnière 2020, arXiv:2010.11518; Girolami and Calderhead 2011,
    doi:10.1111/j.1467-9868.2010.00765.x, equations 16 to 18 (generalized leapfrog).

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import DiagonalNormal, StandardNormal
    >>> from chartae.parts.posteriors import Metric, RiemannianHamiltonian
    >>> start = DiagonalNormal(torch.ones(5, 2), torch.zeros(5, 2))
    >>> metric = Metric(torch.zeros(1, 2), torch.eye(2)[None], 1.0, 0.1)
    >>> log_density, step = StandardNormal(2).log_prob, torch.full((2,), 0.1)
    >>> q = RiemannianHamiltonian(start, log_density, step, torch.ones(4), metric)
    >>> q.draw(3, Noise(0)).log_prob.shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        start: DiagonalNormal,
        log_density: Map,
        step: Tensor,
        roots: Tensor,
        metric: Metric,
        second_order: bool = True,
    ) -> None:
        super().__init__(start, log_density, step, roots, second_order)
        self.metric = metric

    def _momentum(self, z: Tensor, gauss: Tensor) -> Tensor:
        root = _root(self.metric.inverse(z))  # of the precision
        return torch.linalg.solve_triangular(root.mT, gauss.unsqueeze(-1), upper=True).squeeze(-1)

    def _log_momentum(self, z: Tensor, momentum: Tensor) -> Tensor:
        root = _root(self.metric.inverse(z))
        white = _times(root.mT, momentum)
        log_root = root.diagonal(dim1=-2, dim2=-1).log()
        return (log_root - 0.5 * (white.square() + LOG_2PI)).sum(-1)

    def _at(self, z: Tensor) -> Place:
        weights = self.metric.weights(z)
        inverse = self.metric.inverse(z, weights)
        traces = self.metric.products(torch.cholesky_inverse(_root(inverse)))
        return _Bent(z, self._slope(z), weights, inverse, traces)

    def _depart(self, here: Any, momentum: Tensor) -> Tensor:
        pushed = momentum + 0.5 * self.step * here.slope
        for _ in range(ROUNDS):
            momentum = pushed - 0.5 * self.step * self._bend(here, momentum)
        return momentum

    def _drift(self, here: Any, momentum: Tensor) -> Tensor:
        half = here.z + 0.5 * self.step * _times(here.inverse, momentum)
        z = 2 * half - here.z
        for _ in range(ROUNDS):
            z = half + 0.5 * self.step * _times(self.metric.inverse(z), momentum)
        return z

    def _arrive(self, here: Any, momentum: Tensor) -> Tensor:
        return momentum + 0.5 * self.step * (here.slope - self._bend(here, momentum))

    def _bend(self, here: Any, momentum: Tensor) -> Tensor:
        """Differentiate the kinetic energy, -log N(momentum; 0, G(z)), by z."""
        squares = self.metric.products(momentum.unsqueeze(-1) * momentum.unsqueeze(-2))
        return self.metric.along(here.z, here.weights, 0.5 * (squares - here.traces))


@posteriors.register("riemannian")
class RiemannianPosterior(HamiltonianPosterior):
    """A diagonal normal whose draws leap along log p(x, z), further where a learned metric is small.

    Centroids are the codes of some training rows, which are chosen before the first step and kept with the
    model. Their codes, and the pieces of the metric around them, are found anew whenever draws leap, so that
    gradients reach what gives them: the encoder itself, by further outputs. Rows of a factor are kept shorter
    than 1, and pieces are divided by the number of centroids, so that no leap is much longer than the step.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, 2 d + d (d + 1) / 2)``: mean, log variances, and a triangle of the factor.
    latent_dim : int
        d.
    leapfrogs, step, tempering, second_order
        As of :class:`HamiltonianPosterior`.
    shape : tuple of int
        Of one item, as the encoder sees it.
    temperature : float
        How far the pieces of the metric reach, in code units.
    regularization : float
        The least that the inverse of the metric is, far from all centroids.
    centroids : int
        How many.

    Raises
    ------
    PlanError
        If a number makes no sense, or there is a condition.

    References
    ----------
    Chadebec, Mantoux and Allassonnière 2020, arXiv:2010.11518; Chadebec et al. 2021,
    arXiv:2105.00026 (the metric). There a network of its own gives the factors, and all training rows are
    centroids.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import RiemannianPosterior
    >>> q = RiemannianPosterior(MLP((4,), (12,), hidden=(8,)), latent_dim=3, shape=(4,))
    >>> q.begin(torch.randn(20, 4), None)
    >>> p = q(torch.zeros(5, 4)).within(None, lambda z: -z.square().sum(-1))
    >>> type(p).__name__, p.point().shape
    ('RiemannianHamiltonian', torch.Size([5, 3]))
    """

    waits = True  # for the inverse of a metric
    rows: Tensor

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        leapfrogs: int = 3,
        step: float = 0.05,
        tempering: str = "fixed",
        second_order: bool = True,
        *,
        shape: Sequence[int],
        temperature: float = 1.5,
        regularization: float = 0.01,
        centroids: int = 100,
    ) -> None:
        super().__init__(network, latent_dim, leapfrogs, step, tempering, second_order)
        for name, value in (("temperature", temperature), ("regularization", regularization)):
            if not value > 0:
                raise PlanError(f"{name}={value}: use a number above 0")
        if centroids < 1:
            raise PlanError(f"centroids={centroids}: use 1 or more")
        self.temperature, self.regularization = temperature, regularization
        self.register_buffer("rows", torch.randn(centroids, *shape))

    @staticmethod
    def features(latent_dim: int, **options: Any) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim, **options
            As in the constructor.

        Returns
        -------
        int
            2 d + d (d + 1) / 2.
        """
        return 2 * latent_dim + latent_dim * (latent_dim + 1) // 2

    @torch.no_grad()
    def begin(self, x: Tensor, c: Tensor | None) -> None:
        """Choose the rows whose codes are the centroids.

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``.
        c : Tensor or None
            ``(n, m)`` condition, which must not be there.

        Raises
        ------
        PlanError
            If it is.
        """
        if c is not None:
            raise PlanError("a metric of codes follows no condition: use recipe 'hvae'")
        m, n = len(self.rows), len(x)
        # Where there are too few rows they repeat, and count for as much.
        chosen = torch.cat([torch.randperm(n, device="cpu") for _ in range(-(-m // n))])[:m]
        self.rows.copy_(x[chosen.to(x.device)])

    def encode(self, x: Tensor, c: Tensor | None) -> Tensor:
        return super().encode(x, c)[:, : 2 * self.latent_dim]

    def metric(self) -> Metric:
        """Make the metric, as the encoder has it now.

        Returns
        -------
        Metric
            Around the codes of the rows that were kept.
        """
        d = self.latent_dim
        with evaluating(self.network):
            centroids, _, out = super().encode(self.rows, None).split([d, d, d * (d + 1) // 2], 1)
        row, column = torch.tril_indices(d, d, device=out.device)
        factors = torch.eye(d, dtype=out.dtype, device=out.device).repeat(len(out), 1, 1)
        # Over the root of d, so that a fresh encoder says nearly diagonal.
        factors[:, row, column] = factors[:, row, column] + out / d**0.5
        factors = factors / (1 + factors.square().sum(-1, keepdim=True)).sqrt() / len(out) ** 0.5
        return Metric(centroids, factors, self.temperature, self.regularization)

    def leaping(self, start: DiagonalNormal, log_density: Map, step: Tensor, roots: Tensor) -> Hamiltonian:
        return RiemannianHamiltonian(start, log_density, step, roots, self.metric(), self.second_order)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Multiply row by row: no matrix is shared, and sums are short."""
    return (matrices * vectors.unsqueeze(-2)).sum(-1)


def _root(matrices: Tensor) -> Tensor:
    """Give Cholesky factors; not a number where a fit has lost its way, which the training loop sees."""
    return torch.linalg.cholesky_ex(matrices)[0]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply where networks may run in half precision, of which a metric would keep two digits."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
