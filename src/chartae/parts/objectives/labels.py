"""What a head loses by labels."""

from __future__ import annotations

from torch import Tensor

from chartae.core.contracts import Likelihood, Objective, Term, Trace
from chartae.core.errors import PlanError

__all__ = ["Labels"]


class Labels(Objective):
    """Expected negative log-likelihood of what a head is told, ``E_q[-log p(y | z)]``, of rows that have it.

    With a weight and a recipe's own objective beside it, encoder and head are trained jointly; with β of a KL
    and no decoder it is the variational information bottleneck; alone it tunes an encoder to a target.

    References
    ----------
    Alemi et al. 2017, arXiv:1612.00410, equation 17; joint: Kingma et al. 2014, arXiv:1406.5298, equation 9.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, Labels
    >>> Labels() + 0.001 * KL()
    labels + 0.001 * kl
    """

    needs = frozenset({"head.log_prob", "posterior.reparameterized"})

    def forward(self, trace: Trace) -> dict[str, Term]:
        head, z, y = _told(trace)
        py, known = head(z), ~y.isnan()
        if trace.model.training:
            head.observe(py, y[:, None])
        # Filled before, masked after: the density of NaN has a gradient of NaN, masked or not.
        rows = -trace.expect(py.log_prob(y.nan_to_num()[:, None])) * known
        return {"labels": Term(rows.sum() / known.sum().clamp_min(1))}

    def __repr__(self) -> str:
        return "labels"


def _told(trace: Trace) -> tuple[Likelihood, Tensor, Tensor]:
    """The head, what it reads and what it is told."""
    head, y = getattr(trace.model, "head", None), trace.batch.y
    if head is None or y is None:
        raise PlanError("labels to learn from are missing: give the source its y")
    if len(trace.levels) != 1:
        raise PlanError("a head reads one code of each item, and this model has more: use another recipe")
    return head, trace.levels[0].z, y
