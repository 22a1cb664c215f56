"""Terms that a draw of the posterior brings with it."""

from __future__ import annotations

from chartae.core.contracts import Objective, Term, Trace

__all__ = ["Auxiliary"]


class Auxiliary(Objective):
    """What a draw says of itself under a name, averaged over posterior samples and summed over levels.

    The posterior must offer that name: those on a codebook offer "codebook" and "commitment", or "code_kl".

    Parameters
    ----------
    name : str
        Of the draw's auxiliary tensors, and of the term.
    unit : str
        It is measured in.
    judged : float or None
        Weight in the loss by which epochs are compared; None: the same as in training.

    References
    ----------
    Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937, equation 3 (second and third term).

    Examples
    --------
    >>> from chartae.parts.objectives import Auxiliary, NegLogLik
    >>> NegLogLik() + Auxiliary("codebook") + 0.25 * Auxiliary("commitment")
    nll + codebook + 0.25 * commitment
    """

    def __init__(self, name: str, *, unit: str = "nats", judged: float | None = None) -> None:
        super().__init__()
        self.name, self.unit, self.judged = name, unit, judged
        self.needs = frozenset({f"posterior.{name}"})

    def forward(self, trace: Trace) -> dict[str, Term]:
        drawn = (level.drawn.auxiliary for level in trace.levels)
        rows = sum(trace.expect(more[self.name]) for more in drawn if self.name in more)
        return {self.name: Term(rows, unit=self.unit, judged=self.judged)}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return self.name
