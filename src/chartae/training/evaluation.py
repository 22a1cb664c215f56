"""What rows say of a model, in evaluation mode and with the same noise each time."""

from __future__ import annotations

import math
from typing import Any

import torch

from chartae.core.contracts import Plan
from chartae.core.noise import Noise
from chartae.training.faults import diagnose
from chartae.training.kernels import total
from chartae.training.logs import Log
from chartae.training.sources import Source

__all__ = ["EVALUATED", "evaluate", "judge", "settle"]

EVALUATED, VALUES = 1024, 1 << 24  # rows, and values of them, in a batch that needs no gradients
SETTLED = 16384  # rows that are enough for a variance: its relative error is under 2 %, of one value


def evaluate(plan: Plan, source: Source, *, batch_size: int = EVALUATED, seed: int = 0) -> dict[str, Any]:
    """Average an objective's terms over rows, in evaluation mode and with the same noise each time.

    Parameters
    ----------
    plan : Plan
        Model and objective.
    source : Source
        Rows.
    batch_size : int
        Rows of a batch.
    seed : int
        Of the noise.

    Returns
    -------
    dict
        ``loss`` and each term, in nats.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.evaluation import evaluate
    >>> from chartae.training.sources import Source
    >>> sorted(evaluate(build("ae", (4,)), Source(np.zeros((8, 4)), Space((4,)))))
    ['loss', 'nll']
    """
    return judge(plan, source, batch_size=batch_size, seed=seed)[0].means()


@torch.no_grad()
def judge(
    plan: Plan, source: Source, *, batch_size: int = EVALUATED, seed: int = 0, place: str | None = None
) -> tuple[Log, str | None]:
    """Log an objective's terms over rows as :func:`evaluate` does, up to a batch that is not finite.

    Parameters
    ----------
    plan : Plan
        Model and objective.
    source : Source
        Rows.
    batch_size : int
        Rows of a batch.
    seed : int
        Of the noise.
    place : str or None
        How to call the batches in what is said of one that is not finite; None to go on through such.

    Returns
    -------
    log : Log
        The terms, in nats.
    fault : str or None
        What is wrong with a batch.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.evaluation import judge
    >>> from chartae.training.sources import Source
    >>> log, fault = judge(build("ae", (4,)), Source(np.zeros((8, 4)), Space((4,))), place="batch")
    >>> log.rows, fault
    (8, None)
    """
    was_training = plan.model.training
    plan.model.eval()
    log, noise, fault = Log(), Noise(seed), None
    for step, batch in enumerate(source.batches(_rows(plan, source, batch_size))):
        terms = plan.objective(plan.model.trace(batch, k=plan.objective.samples, noise=noise))
        loss = total(terms, judged=True)
        log.add(terms, len(batch), loss=loss)
        if place and not math.isfinite(loss):
            fault = diagnose(plan, batch, terms, f"{place} {step}")
            break
    plan.model.train(was_training)
    return log, fault


def _rows(plan: Plan, source: Source, most: int) -> int:
    """How many rows to evaluate at once: fewer of large items, and of many samples."""
    return max(1, min(most, VALUES // math.prod(source.data.shape[1:])) // plan.objective.samples)


@torch.no_grad()
def settle(plan: Plan, source: Source, seed: int) -> None:
    """Estimate anew, with the final weights, what the likelihood keeps of the training data.

    The running estimate is of weights that have moved since, and of corrupted input where there is any.

    Parameters
    ----------
    plan : Plan
        What was trained; its model is changed in place.
    source : Source
        Training rows.
    seed : int
        Of the training.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.evaluation import settle
    >>> from chartae.training.sources import Source
    >>> settle(build("ae", (4,)), Source(np.eye(4), Space((4,))), seed=0)
    """
    model = plan.model.eval()
    if not model.likelihood.estimated:
        return
    noise, sums = Noise(seed), torch.zeros((), dtype=torch.float64)
    for batch in source.sample(SETTLED, seed).batches(_rows(plan, source, EVALUATED)):
        trace = model.trace(batch, k=plan.objective.samples, noise=noise)
        sums = sums + model.likelihood.measured(trace.px, batch.x).cpu()
    model.likelihood.settle(sums.to(trace.log_lik))
