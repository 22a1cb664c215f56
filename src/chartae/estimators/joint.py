"""Estimators of chartae that are fitted to what is known of items, too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from chartae.core.arrays import is_streamed
from chartae.core.columns import DROP, is_frame
from chartae.core.contracts import Objective, RawCondition
from chartae.core.errors import DataError
from chartae.estimators.fitting import Fitting, _Task
from chartae.estimators.whole import stopped_by
from chartae.parts.objectives import SummedLabels
from chartae.transfer import copied, is_fitted

__all__ = ["fit_jointly"]

LEAST_SHARE = 0.2  # of rows with a label among those of an epoch
FEWEST_APART = 30  # rows with a label for an epoch to be chosen by them alone: fewer choose one by chance


def fit_jointly(
    encoder: Fitting,
    X: Any,
    y: Tensor,
    head: Callable[[Any], nn.Module],
    term: Objective,
    *,
    weight: float = 1.0,
    decoder: bool = True,
    labels: Any = None,
    seed: int = 0,
) -> tuple[Any, Any, BaseException | None]:
    """Fit a copy of an estimator to its own objective and a further term.

    Rows whose y is known are seen so often that they are a fifth of an epoch, at least; where they are fewer,
    none of them is held out. Without a decoder they are all that is seen, as often as makes an epoch as long
    as with the others, and where fewer than 30 would be held out, none is.

    Parameters
    ----------
    encoder : Fitting
        An estimator of chartae, fitted or not.
    X : array_like
        ``(n, *shape)``.
    y : Tensor
        ``(n,)`` or ``(n, m)`` as the head takes it; NaN where it is not known.
    head : callable
        From a model to the head that ``term`` speaks of.
    term : Objective
        What is minimized beside the model's own objective.
    weight : float
        Of the term.
    decoder : bool
        Whether x counts; False leaves the decoder silent, so that codes need only keep what y asks for.
    labels : array_like or None
        ``(n,)``: the labels by their names, which become the condition of a conditional estimator; where y
        is not known they count for nothing, and are summed out.
    seed : int
        Of the head's first weights, and of an estimator that has none.

    Returns
    -------
    estimator : Fitting
        As it was fitted, without the head.
    head : nn.Module
        Of the best epoch, as the estimator's weights are.
    stopped : BaseException or None
        What training was stopped by, if it was, to be raised when all else is done.

    Raises
    ------
    DataError
        If y is known of no row, or rows are read in blocks.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae import VAE
    >>> from chartae.estimators.joint import fit_jointly
    >>> from chartae.parts.objectives import Labels
    >>> from chartae.parts.readouts import readout
    >>> from chartae.transfer import target_space
    >>> X, y = np.eye(20), np.arange(20) % 2
    >>> space = target_space("categorical", y)
    >>> made = lambda model: readout(space, model.latent_dim)
    >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0)
    >>> fitted, head, _ = fit_jointly(vae, X, torch.from_numpy(y).float(), made, Labels())
    >>> fitted.latent_dim_, head.levels
    (2, 2)
    """
    if is_streamed(X):
        raise DataError(
            "labels are learned from rows in memory, and these are read in blocks: give fewer rows"
        )
    if bool(y.isnan().all()):
        raise DataError("no row has a label to learn from: give some")
    fitted: Any = copied(encoder, seed)
    if is_fitted(encoder) and fitted.columns and is_frame(X):  # what it has dropped may be gone by now
        there = set(map(str, X.columns))
        fitted.columns = {name: v for name, v in fitted.columns.items() if v != DROP or name in there}

    def joined(task: _Task) -> _Task:
        model: Any = task.plan.model
        if not decoder:
            model.silence()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model.head = head(model).to(task.training.device)
        raw, missing = task.raw, y.isnan()
        rows, known = task.training.rows, (~missing).reshape(len(y), -1).any(1).nonzero()[:, 0]
        shares = None
        if labels is not None:
            raw = cast(RawCondition, raw)
            label = cast(Tensor, raw.label)
            shares = label[known].bincount() / len(known)
            raw = raw._replace(label=label.masked_fill(missing, -1))
        training = task.training.told(y, raw)
        held_out = task.held_out and task.held_out.told(y, raw)
        seen = torch.isin(known, rows)
        if decoder:
            if len(known) < LEAST_SHARE * len(rows):  # labels are few, so that none is to be held out
                rows = torch.cat([rows, known[~seen]])
                held_out = held_out and held_out.subset(held_out.rows[~torch.isin(held_out.rows, known)])
            known = known[torch.isin(known, rows)]
            times = max(0, math.ceil((LEAST_SHARE * len(rows) / len(known) - 1) / (1 - LEAST_SHARE)))
        else:  # of a row whose y is not known the divergence alone would count, which asks for no code at all
            as_many = len(rows)
            if held_out and (~seen).sum() >= FEWEST_APART:
                rows, held_out = rows[torch.isin(rows, known)], held_out.subset(known[~seen])
            else:
                rows, held_out = known, None
            known, times = rows, max(0, as_many // len(rows) - 1)
        training = training.subset(rows)
        drawn = training.subset(torch.cat([rows, known.repeat(times)])) if times else training
        objective = task.plan.objective
        if shares is not None:
            objective = SummedLabels(objective, shares, again=1 + times)
        return task._replace(
            plan=replace(task.plan, objective=(objective + weight * term).to(task.training.device)),
            raw=raw,
            training=training,
            drawn=drawn,
            held_out=held_out or None,
        )

    stopped = stopped_by(fitted, lambda: fitted._fit(X, labels, joined=joined))
    read, fitted.model_.head = fitted.model_.head, None
    return fitted, read, stopped
