"""Who is near whom among items, kept among their codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Objective, Term, Trace
from chartae.core.distances import squares
from chartae.core.errors import PlanError
from chartae.core.registry import suggest
from chartae.parts.tables import Prepared

__all__ = ["Neighbors"]

#: How codes are compared.
METRICS = ("euclidean", "cosine")


class Neighbors(Objective):
    """How much codes change who is near whom: the mean of ``KL(p(. | x_i) || q(. | z_i))``, in nats.

    p draws another item j of the batch by ``exp(-d_ij^2 / (2 t))``, where squared distances have a mean of 1
    over the batch, and q draws one by the same of the codes. What is far away weighs next to nothing, so that
    codes are free in how they lay out the whole, and there is no unit to choose.

    Parameters
    ----------
    temperature : float
        t: the smaller, the nearer are those that count.
    metric : {"euclidean", "cosine"}
        How codes are compared: by their distance, or by that of their directions, as in retrieval.

    Notes
    -----
    A batch has to hold neighbors for there to be something to learn: of many kinds of items take larger ones.
    The number of rows changes the value. Values of a table are compared as its encoder sees them, and where
    one is missing it is in the middle.

    Raises
    ------
    PlanError
        If the temperature is not above zero, or there is no such metric.

    References
    ----------
    Hinton and Roweis 2002, "Stochastic neighbor embedding", equations 1 to 4, with one temperature for all
    items; of an encoder: van der Maaten 2009, "Learning a parametric embedding by preserving local
    structure".

    Examples
    --------
    >>> from chartae.parts.objectives import Neighbors, NegLogLik
    >>> NegLogLik() + 100.0 * Neighbors()
    nll + 100 * neighbors
    """

    needs = frozenset({"posterior.reparameterized", "space.distances"})

    def __init__(self, temperature: float = 0.03, *, metric: str = "euclidean") -> None:
        super().__init__()
        if not temperature > 0:
            raise PlanError(f"temperature={temperature:g}: use a number above 0, such as 0.03")
        if metric not in METRICS:
            raise PlanError(f"unknown metric {metric!r}: {suggest(metric, METRICS)}")
        self.temperature, self.metric = temperature, metric

    def forward(self, trace: Trace) -> dict[str, Term]:
        z = torch.cat([level.z.flatten(2) for level in trace.levels], 2)
        with torch.autocast(z.device.type, enabled=False):  # differences of squares are all rounding in bf16
            return {"neighbors": Term(self._changes(_values(trace), z).mean())}

    def _changes(self, x: Tensor, z: Tensor) -> Tensor:
        """The divergence of each item and draw of its code, ``(k, n)``, of ``(n, d)`` and ``(k, n, d)``."""
        if len(x) < 2:
            return 0.0 * z.sum(2)
        if self.metric == "cosine":
            z = torch.nn.functional.normalize(z, dim=2)
        p, q = self._log_shares(x[None]), self._log_shares(z)
        return (p.exp() * (p - q)).sum(2)

    def _log_shares(self, points: Tensor) -> Tensor:
        """Log of the chance of each other point to be drawn, ``(k, n, n - 1)``, of points ``(k, n, d)``."""
        n = points.shape[1]
        points = points - points.mean(1, keepdim=True)  # or rounding would be of where they lie
        pairs = squares(points, points).flatten(1)
        # Without the diagonal, row by row: from the first on, every n + 1st entry is of it.
        others = pairs[:, 1:].unflatten(1, (n - 1, n + 1))[:, :, :n].reshape(-1, n, n - 1)
        # Of points that coincide: not so small that the slope of a share would be infinite.
        mean = others.mean((1, 2), keepdim=True).clamp_min(torch.finfo(others.dtype).eps ** 2)
        return (others / (-2 * self.temperature * mean)).log_softmax(2)

    def __repr__(self) -> str:
        return "neighbors"


def _values(trace: Trace) -> Tensor:
    """Items as numbers that have distances, ``(n, d)``."""
    model: Any = trace.model
    posterior, x = model.posterior.plain, trace.batch.x
    return (posterior.inputs.values(x) if isinstance(posterior, Prepared) else x).flatten(1)
