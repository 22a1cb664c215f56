"""Penalties on codes and on the maps between items and codes."""

from __future__ import annotations

import torch

from chartae.core.contracts import Objective, Term, Trace
from chartae.parts.networks import evaluating

__all__ = ["CodeNorm", "Contractive"]


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
