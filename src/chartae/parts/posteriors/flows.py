"""Posteriors of any shape: a normal through a sequence of transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.parts.distributions import Affine, DiagonalNormal, Planar, Radial, Transformed
from chartae.parts.distributions.base import CAN
from chartae.parts.flows import autoregressive, checked
from chartae.parts.posteriors.base import NetworkPosterior, bounded, posteriors

__all__ = ["FlowPosterior"]

KINDS = ("planar", "radial", "iaf", "spline")
NEARLY = 0.1  # of what the encoder says of a push: a fresh one says nearly none


@posteriors.register("flow")
class FlowPosterior(NetworkPosterior):
    """A diagonal normal through planar, radial, inverse autoregressive or spline transforms.

    The encoder gives the normal and, of planar and radial transforms, all parameters; of the others, a
    context that their own layers see. Draws take one pass and bring their density. Planar and radial
    transforms have no inverse that can be written down, so that other values have no density; where there is
    one, it takes a pass for each dimension. Splines bend the noise before it is scaled and shifted, so that
    they are as fine as the normal is narrow. All of them start near the normal.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, features)``.
    latent_dim : int
        d.
    kind : {"planar", "radial", "iaf", "spline"}
        Of the transforms.
    length : int
        How many there are.
    hidden : sequence of int
        Widths of the layers in each, of "iaf" and "spline".
    context : int
        How many numbers these layers get from the encoder.
    bins : int
        Of splines.

    References
    ----------
    Rezende and Mohamed 2015, arXiv:1505.05770 (planar, radial); Kingma et al. 2016, arXiv:1606.04934 (iaf);
    Durkan et al. 2019, arXiv:1906.04032 (splines).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import FlowPosterior
    >>> width = FlowPosterior.features(3, "iaf", context=4)
    >>> q = FlowPosterior(MLP((5,), (width,), hidden=(8,)), 3, "iaf", context=4)(torch.zeros(7, 5))
    >>> width, q.point().shape, q.std().shape
    (10, torch.Size([7, 3]), torch.Size([7, 3]))
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        kind: str = "planar",
        length: int = 4,
        hidden: Sequence[int] = (64, 64),
        context: int = 16,
        bins: int = 8,
    ) -> None:
        super().__init__(network, latent_dim)
        self.kind, self.length = kind, length
        self.offers = CAN - {"log_prob"} if kind in ("planar", "radial") else CAN
        self.layers = nn.ModuleList()
        if kind in ("iaf", "spline"):
            each = "affine" if kind == "iaf" else "spline"
            self.layers = autoregressive(
                each, latent_dim, context=context, length=length, hidden=hidden, bins=bins
            )

    @staticmethod
    def features(
        latent_dim: int,
        kind: str = "planar",
        length: int = 4,
        hidden: Sequence[int] = (64, 64),
        context: int = 16,
        bins: int = 8,
    ) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.
        kind, length, hidden, context, bins
            As of the class.

        Returns
        -------
        int
            2 d, and ``length`` times 2 d + 1 (planar) or d + 2 (radial), or ``context``.
        """
        checked(kind, KINDS, flows=length, flow_hidden=hidden, flow_context=context, bins=bins)
        more = {"planar": length * (2 * latent_dim + 1), "radial": length * (latent_dim + 2)}
        return 2 * latent_dim + more.get(kind, context)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        d, out = self.latent_dim, self.encode(x, c)
        mean, log_var, rest = out.split([d, d, out.shape[1] - 2 * d], 1)
        log_var = bounded(log_var)
        with torch.autocast(out.device.type, enabled=False):
            if self.layers:
                steps: list[Any] = [layer(rest) for layer in self.layers]
            else:
                make = self._planar if self.kind == "planar" else self._radial
                steps = [make(own) for own in rest.chunk(self.length, 1)]
        if self.kind != "spline":
            return Transformed(DiagonalNormal(mean, log_var), steps)
        noise = DiagonalNormal(torch.zeros_like(mean), log_var.new_zeros(()))
        return Transformed(noise, [*steps, Affine(mean, (0.5 * log_var).exp())])

    def _planar(self, own: Tensor) -> Planar:
        u, w, b = own.split([self.latent_dim, self.latent_dim, 1], 1)
        return Planar(NEARLY * u, w, b)

    def _radial(self, own: Tensor) -> Radial:
        center, log_reach, push = own.split([self.latent_dim, 1, 1], 1)
        return Radial(center, bounded(log_reach), NEARLY * push)
