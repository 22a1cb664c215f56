"""Distributions of transformed noise, and transforms of which the change of volume is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Distribution, Draw
from chartae.core.errors import PlanError
from chartae.core.noise import Noise, SharedNoise
from chartae.parts.distributions.base import CAN, SPREAD
from chartae.parts.distributions.normals import DiagonalNormal, _white

__all__ = ["Affine", "Planar", "Radial", "Transformed", "carried"]

VALUES = 1 << 18  # at once, where no gradient is asked for: a spline takes some hundred numbers for each
NEARLY = 0.999  # of what a layer may take away: at 1 it would flatten space, and its volume have no logarithm


class Transformed(Distribution):
    """Normal noise through a sequence of transforms.

    A transform has ``call_and_ladj(x)``, which gives ``y`` and the log of ``|det dy/dx|`` with the dimensions
    of the event summed over, as those of zuko have. Where each has an inverse ``inv`` of the same kind, any
    value has a density; where not, only draws have, which bring theirs along.

    Parameters
    ----------
    base : DiagonalNormal
        Of the noise, batch shape ``(*batch)`` and event shape ``(d,)``.
    transforms : sequence
        From noise to values, the first one first.

    References
    ----------
    Rezende and Mohamed 2015, arXiv:1505.05770, equation 7.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import Affine, DiagonalNormal, Transformed
    >>> base = DiagonalNormal(torch.zeros(2), torch.tensor(0.0))
    >>> p = Transformed(base, [Affine(torch.ones(2), torch.full((2,), 3.0))])
    >>> drawn = p.draw(5, Noise(0))
    >>> p.point(), bool(torch.allclose(drawn.log_prob, p.log_prob(drawn.z)))
    (tensor([1., 1.]), True)
    """

    splits = False

    def __init__(self, base: DiagonalNormal, transforms: Sequence[Any]) -> None:
        self.base, self.transforms = base, transforms
        self.offers = CAN if all(hasattr(t, "inv") for t in transforms) else CAN - {"log_prob"}

    @property
    def batch_shape(self) -> torch.Size:
        return self.base.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return self.base.event_shape

    def draw(self, k: int, noise: Noise) -> Draw:
        drawn = self.base.draw(k, noise).z
        z, log_volume = self._through(self.transforms, drawn)
        return Draw(z, self.base.log_prob(drawn) - log_volume)

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density; with ``per_dim`` in the dimensions of the noise.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.
        per_dim : bool
            Split what the noise says over its dimensions, and the change of volume evenly.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats.

        Raises
        ------
        NotImplementedError
            If a transform has no inverse.
        """
        if "log_prob" not in self.offers:
            raise NotImplementedError("a transform without an inverse knows the density of its draws only")
        noise, log_volume = self._noise(v)
        base = self.base.log_prob(noise, per_dim=per_dim)
        return base + (log_volume.unsqueeze(-1) / v.shape[-1] if per_dim else log_volume)

    def point(self) -> Tensor:
        """Return what the mean of the noise becomes.

        Returns
        -------
        Tensor
            ``(*batch, d)``; not the mean of the values, unless the transforms are linear.
        """
        return self._through(self.transforms, self.base.point())[0]

    def center(self) -> Tensor:
        """Return the mean of draws, of those that :meth:`std` is of and of their opposites.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self.moments()[0]

    def std(self) -> Tensor:
        """Return the standard deviation of each dimension, of draws.

        They are always the same draws of low discrepancy, so that the same distribution has the same spread.

        Returns
        -------
        Tensor
            ``(*batch, d)``.
        """
        return self._through(self.transforms, self.base.point() + self._spread_of_base())[0].std(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        eps = self._spread_of_base()
        z = self._through(self.transforms, self.base.point() + torch.cat([eps, -eps]))[0]
        return z.mean(0), z[:SPREAD].std(0)

    def _spread_of_base(self) -> Tensor:
        """Draws of the noise less its mean, always the same, ``(s, *batch, d)``."""
        d = self.event_shape[0]
        shape = (SPREAD, *(1 for _ in self.batch_shape), d)
        spread: Tensor = self.base.std()
        return spread * SharedNoise(0).normal((SPREAD, 1, d), spread).reshape(shape)

    def _noise(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the transforms."""
        return self._through([t.inv for t in reversed(self.transforms)], v)

    def _through(self, transforms: Sequence[Any], x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform ``(..., d)``, and give the log of the change of volume, ``(...)``."""
        most = max(1, VALUES * len(x) // max(1, x.numel()))
        if most < len(x) and x.dim() > len(self.batch_shape) + 1 and not torch.is_grad_enabled():
            parts = [self._through(transforms, part) for part in x.split(most)]
            z, change = zip(*parts, strict=True)
            return torch.cat(z), torch.cat(change)
        log_volume = x.new_zeros(())
        # Not in half precision: what a layer does to x and to its volume would no longer belong together.
        with torch.autocast(x.device.type, enabled=False):
            for transform in transforms:
                x, change = transform.call_and_ladj(x)
                log_volume = log_volume + change
        return x, log_volume.expand(x.shape[:-1])


def carried(z: Tensor, p: Distribution, q: Distribution) -> Tensor:
    """Take values from where p has them to where q has them: what follows p then follows q.

    Of normals whose dimensions are independent, as many standard deviations from the mean, which moves values
    least; of noise through transforms, the same noise.

    Parameters
    ----------
    z : Tensor
        ``(n, d)``.
    p, q : Distribution
        Batch shape ``(n,)``, or ``()`` where they are one and the same for all rows, and nothing moves.

    Returns
    -------
    Tensor
        ``(n, d)``.

    Raises
    ------
    PlanError
        If their kind does not say where a value belongs.

    References
    ----------
    Peyré and Cuturi 2019, arXiv:1803.00567, remark 2.31 (transport between normals).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal, carried
    >>> p = DiagonalNormal(torch.zeros(1, 2), torch.zeros(1, 2))
    >>> q = DiagonalNormal(torch.ones(1, 2), torch.full((1, 2), 4.0).log())
    >>> carried(torch.tensor([[0.0, 1.5]]), p, q)
    tensor([[1., 4.]])
    """
    if not p.batch_shape:
        return z
    if isinstance(p, DiagonalNormal) and isinstance(q, DiagonalNormal):
        return q.mean + (z - p.mean) * (0.5 * (q.log_var - p.log_var)).exp()
    if isinstance(p, Transformed) and isinstance(q, Transformed) and "log_prob" in p.offers:
        return q._through(q.transforms, carried(p._noise(z)[0], p.base, q.base))[0]
    raise PlanError(
        f"p(z | c) is a {type(p).__name__}, which does not say where a code belongs under another condition: "
        "use recipe 'cvae', or 'flow-prior-vae' with conditional_prior=True"
    )


class Affine:
    """Scale, or mix linearly, and shift.

    Parameters
    ----------
    mean : Tensor
        ``(*batch, d)``, what is added.
    scale : Tensor
        ``(*batch, d)``, above zero, of each dimension; or ``(d, d)`` beside a mean ``(d,)``: a lower triangle
        with a positive diagonal.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Affine
    >>> move = Affine(torch.tensor([5.0, 5.0]), torch.tensor([1.0, 2.0]))
    >>> move.call_and_ladj(torch.ones(2))
    (tensor([6., 7.]), tensor(0.6931))
    >>> move.inv.call_and_ladj(torch.tensor([6.0, 7.0]))
    (tensor([1., 1.]), tensor(-0.6931))
    """

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.mean, self.scale, self.mixes = mean, scale, scale.dim() > mean.dim()

    @property
    def _log_volume(self) -> Tensor:
        return (self.scale.diagonal() if self.mixes else self.scale).log().sum(-1)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform, and tell by how much volumes change.

        Parameters
        ----------
        x : Tensor
            ``(..., *batch, d)``.

        Returns
        -------
        y, log_volume : Tensor
            Of the shape of x, and ``(*batch)``.
        """
        return self.mean + (x @ self.scale.mT if self.mixes else x * self.scale), self._log_volume

    @property
    def inv(self) -> _Back:
        """The inverse transform."""
        return _Back(self)


class _Back:
    """The inverse of an affine transform."""

    def __init__(self, of: Affine) -> None:
        self.inv = of

    def call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        gap = y - self.inv.mean
        return _white(self.inv.scale, gap) if self.inv.mixes else gap / self.inv.scale, -self.inv._log_volume


class Planar:
    """Push along one direction, by as much as another one says: z + û tanh(w·z + b).

    û is u, less a part along w where that would fold space (w·û < -1). The part is continuous, zero where w·u
    is not negative, and never longer than u, so that u = 0 is the identity and no w is singular.

    Parameters
    ----------
    u, w : Tensor
        ``(*batch, d)``.
    b : Tensor
        ``(*batch, 1)``.

    References
    ----------
    Rezende and Mohamed 2015, arXiv:1505.05770, equations 10 to 12 and appendix A.1, with another function
    from w·u to what may be.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Planar
    >>> flat = Planar(torch.tensor([-9.0, 0.0]), torch.tensor([1.0, 0.0]), torch.zeros(1))
    >>> flat.call_and_ladj(torch.zeros(2))  # nearly, and not quite
    (tensor([0., 0.]), tensor(-6.7914))
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        along = (w * u).sum(-1, keepdim=True)
        self.along = F.elu(along, NEARLY)
        self.u = u + (self.along - along) * w / w.square().sum(-1, keepdim=True).clamp_min(1e-12)
        self.w, self.b = w, b

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform, and tell by how much volumes change.

        Parameters
        ----------
        x : Tensor
            ``(..., *batch, d)``.

        Returns
        -------
        y, log_volume : Tensor
            Of the shape of x, and ``(..., *batch)``.
        """
        step = torch.tanh((x * self.w).sum(-1, keepdim=True) + self.b)
        return x + self.u * step, torch.log1p(self.along * (1 - step.square())).squeeze(-1)


class Radial:
    """Push away from a point, or draw towards it: z + β (z - center) / (α + |z - center|).

    β is above -α, so that space is not folded.

    Parameters
    ----------
    center : Tensor
        ``(*batch, d)``.
    log_reach : Tensor
        ``(*batch, 1)``, log α.
    push : Tensor
        ``(*batch, 1)``: β / α where it is not negative; where it is, what keeps β above -α is taken of it.

    References
    ----------
    Rezende and Mohamed 2015, arXiv:1505.05770, equation 14 and appendix A.2, with another function to what
    β may be.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Radial
    >>> out = Radial(torch.zeros(2), torch.zeros(1), torch.ones(1))
    >>> out.call_and_ladj(torch.tensor([1.0, 0.0]))  # volume: 1.5 across, and 1.25 along
    (tensor([1.5000, 0.0000]), tensor(0.6286))
    """

    def __init__(self, center: Tensor, log_reach: Tensor, push: Tensor) -> None:
        self.center, self.reach = center, log_reach.exp()
        self.push = self.reach * F.elu(push, NEARLY)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform, and tell by how much volumes change.

        Parameters
        ----------
        x : Tensor
            ``(..., *batch, d)``.

        Returns
        -------
        y, log_volume : Tensor
            Of the shape of x, and ``(..., *batch)``.
        """
        gap = x - self.center
        h = 1 / (self.reach + torch.linalg.vector_norm(gap, dim=-1, keepdim=True))
        across, along = torch.log1p(self.push * h), torch.log1p(self.push * self.reach * h.square())
        return x + self.push * h * gap, ((x.shape[-1] - 1) * across + along).squeeze(-1)
