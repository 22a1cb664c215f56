"""Penalties on codes and on the maps between items and codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Objective, Term, Trace
from chartae.parts.networks import evaluating, is_own

__all__ = ["CodeNorm", "Contractive", "DecoderGradient", "DecoderWeights", "Distortion"]

TINY = torch.finfo(torch.float32).tiny  # a decoder that does not react to any code of a batch divides by it


class CodeNorm(Objective):
    """Squared norm of the code, ``E_q |z|^2``: minus twice log N(z; 0, I), up to a constant.

    Alone with a reconstruction term it pushes every code to zero while the decoder's Jacobian
    grows to make up for it; the recipe ``l2-ae`` exists to show that.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436, equation 10 (which bounds the decoder as well).

    Examples
    --------
    >>> from chartae.parts.objectives import CodeNorm, NegLogLik
    >>> NegLogLik() + 0.5 * CodeNorm()
    nll + 0.5 * code_norm
    """

    def forward(self, trace: Trace) -> dict[str, Term]:
        rows = sum(trace.expect(level.z.square().sum(-1)) for level in trace.levels)
        return {"code_norm": Term(rows, unit="squared code units")}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return "code_norm"


class Contractive(Objective):
    """Squared Frobenius norm of the encoder's Jacobian, ``|dE/dx|_F^2``, exact.

    It costs one backward pass for each latent dimension; the encoder is called without
    corruption and in evaluation mode.

    References
    ----------
    Rifai et al. 2011, "Contractive auto-encoders: explicit invariance during feature extraction",
    equation 2.

    Examples
    --------
    >>> from chartae.parts.objectives import Contractive, NegLogLik
    >>> NegLogLik() + 0.1 * Contractive()
    nll + 0.1 * contractive
    """

    needs = frozenset({"space.differentiable"})
    differentiates_networks = True

    def forward(self, trace: Trace) -> dict[str, Term]:
        x, learning = trace.batch.x.detach().requires_grad_(True), torch.is_grad_enabled()
        with torch.enable_grad(), evaluating(trace.model.posterior.plain) as encoder:
            code = encoder(x, None if trace.c is None else trace.c.detach()).point()
            jacobian = (
                torch.autograd.grad(column.sum(), x, retain_graph=True, create_graph=learning)[0]
                for column in code.unbind(1)
            )
            rows = sum(row.flatten(1).square().sum(1) for row in jacobian)
        return {"contractive": Term(rows, unit="squared code units per squared model unit")}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return "contractive"


class DecoderWeights(Objective):
    """Squared norm of all that the decoder learns, one number whatever the batch.

    Beside :class:`CodeNorm` it keeps the decoder from making up for small codes.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436, section 3.1 (Tikhonov regularization).

    Examples
    --------
    >>> from chartae.parts.objectives import CodeNorm, DecoderWeights, NegLogLik
    >>> NegLogLik() + 0.5 * CodeNorm() + 0.001 * DecoderWeights()
    nll + 0.5 * code_norm + 0.001 * decoder_weights
    """

    needs = frozenset({"likelihood.point"})
    weighs_networks = True

    def forward(self, trace: Trace) -> dict[str, Term]:
        weights = [w.flatten() for w in trace.model.likelihood.network.parameters()]  # type: ignore[union-attr]
        norm = torch.stack([torch.dot(w, w) for w in weights]).sum()
        return {"decoder_weights": Term(norm, unit="squared weights")}

    def __repr__(self) -> str:
        return "decoder_weights"


class DecoderGradient(Objective):
    """Squared Frobenius norm of the decoder's Jacobian, ``E_q |dD/dz|_F^2``, without bias.

    It is ``E |J^T v|^2`` for v of N(0, I), at the cost of one backward pass; the decoder's output is its
    expected item in the model's units, in evaluation mode.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436, section 3.1 (gradient penalty); Hutchinson 1990,
    doi:10.1080/03610919008812866.

    Examples
    --------
    >>> from chartae.parts.objectives import DecoderGradient, NegLogLik
    >>> NegLogLik() + 0.1 * DecoderGradient()
    nll + 0.1 * decoder_gradient
    """

    needs = frozenset({"space.differentiable"})
    differentiates_networks = True

    def forward(self, trace: Trace) -> dict[str, Term]:
        learning = torch.is_grad_enabled()
        with _decoded(trace, trace.levels[0].z) as (z, x):
            v = trace.noise.normal(x.shape, x)
            back = _pulled(x, z, v, learning)
            rows = trace.expect(back.square().sum(-1))
        return {"decoder_gradient": Term(rows, unit="squared model units per squared code unit")}

    def __repr__(self) -> str:
        return "decoder_gradient"


class Distortion(Objective):
    """How unevenly the decoder stretches codes: ``d E tr(H^2) / (E tr H)^2`` with the metric ``H = J^T J``.

    It is 1 where the decoder keeps angles and distances up to one scale, and more elsewhere. Traces are
    estimated with one vector v of N(0, I) for each code, as ``|J v|^2`` and ``|J^T J v|^2``, at codes between
    and a little beyond pairs of the batch. A batch has one value, to which all of its rows contribute.

    Parameters
    ----------
    beyond : float
        How far lines between two codes go on, as a share of their length.

    References
    ----------
    Lee, Yoon, Son and Park 2022, "Regularized autoencoders for isometric representation learning", equation
    8 (the relaxed distortion, here times d), and section 4.2 (codes between codes).

    Examples
    --------
    >>> from chartae.parts.objectives import Distortion, NegLogLik
    >>> NegLogLik() + 2.0 * Distortion()
    nll + 2 * distortion
    """

    needs = frozenset({"space.differentiable"})
    differentiates_networks = True

    def __init__(self, beyond: float = 0.2) -> None:
        super().__init__()
        self.beyond = beyond

    def forward(self, trace: Trace) -> dict[str, Term]:
        learning, z = torch.is_grad_enabled(), trace.levels[0].z
        share = (1 + 2 * self.beyond) * trace.noise.uniform((*z.shape[:2], 1), z) - self.beyond
        # Each row with its neighbor: training batches come in a random order.
        with _decoded(trace, z + share * (z.roll(1, 1) - z)) as (z, x):
            v = trace.noise.normal(z.shape, z).requires_grad_()
            u = torch.zeros_like(x, requires_grad=True)
            # J^T u is linear in u, and its derivative along v is J v; that of |J v|^2 / 2 by v is J^T J v.
            ahead = _pulled(_pulled(x, z, u, True), u, v, True)
            (both,) = torch.autograd.grad(0.5 * ahead.square().sum(), v, create_graph=learning)
            first, second = (t.square().flatten(2).sum(2).mean() for t in (ahead, both))
        return {"distortion": Term(z.shape[-1] * second / first.square().clamp_min(TINY), unit="")}

    def __repr__(self) -> str:
        return "distortion"


@contextmanager
def _decoded(trace: Trace, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes with a graph, and the expected items that they decode to in evaluation mode, flat."""
    decoder = trace.model.likelihood
    traced = z is trace.levels[0].z and z.requires_grad and torch.is_grad_enabled()
    if traced and is_own(getattr(decoder, "network", None)):
        yield z, _expected(trace.px)  # as decoded in training, in which networks of ours do not differ
        return
    with torch.enable_grad(), evaluating(decoder):
        z = z if z.requires_grad else z.detach().requires_grad_(True)
        yield z, _expected(decoder(z, trace.c)).flatten(2)


def _expected(px: Distribution) -> Tensor:
    """Give the mean item, which moves smoothly with the code where a most likely category jumps."""
    parts = getattr(px, "parts", (px,))
    return torch.cat([(p.expected() if hasattr(p, "expected") else p.point()).flatten(2) for p in parts], 2)


def _pulled(y: Tensor, x: Tensor, v: Tensor, learning: bool) -> Tensor:
    """Jᵀ v of the map from x to y, where v does not depend on x.

    By a sum: autograd imports the compiler where it is given v.
    """
    return torch.autograd.grad((y * v).sum(), x, create_graph=learning)[0]
