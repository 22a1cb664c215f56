"""Estimators of chartae that are fitted to what is known of items, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor, nn

from chartae.core.contracts import Objective
from chartae.estimators.fitting import Fitting, _Task
from chartae.parts.readouts import Silent

__all__ = ["fit_jointly"]

LEAST_SHARE = 0.2  # of rows with a label among those of an epoch


def fit_jointly(
    encoder: Fitting,
    X: Any,
    y: Tensor,
    head: Callable[[Any], nn.Module],
    term: Objective,
    *,
    weight: float = 1.0,
    decoder: bool = True,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Fit a copy of an estimator to its own objective and a further term.

    Rows whose y is known are seen so often that they are a fifth of an epoch, at least.

    Parameters
    ----------
    encoder : Fitting
        An estimator of chartae, fitted or not.
    X : array_like
        ``(n, *shape)``.
    y : Tensor
        ``(n,)`` as the head takes it; NaN where it is not known.
    head : callable
        From a model to the head that ``term`` speaks of.
    term : Objective
        What is minimized beside the model's own objective.
    weight : float
        Of the term.
    decoder : bool
        Whether x counts; False leaves the decoder silent, so that codes need only keep what y asks for.
    seed : int
        Of the head's first weights.

    Returns
    -------
    estimator : Fitting
        As it was fitted, without the head.
    head : nn.Module
        Of the best epoch, as the estimator's weights are.

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
    >>> fitted, head = fit_jointly(vae, X, torch.from_numpy(y).float(), made, Labels())
    >>> fitted.latent_dim_, head.levels
    (2, 2)
    """
    fitted: Any = clone(encoder)

    def joined(task: _Task) -> _Task:
        model: Any = task.plan.model
        if not decoder:
            model.likelihood = Silent(model.space.model_shape)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model.head = head(model).to(task.training.device)
        told = task.training.told(y)
        known = told.rows[~y[told.rows].isnan()]
        missing = LEAST_SHARE * len(told) - len(known)
        times = max(0, round(missing / max(1.0, (1 - LEAST_SHARE) * len(known))))
        return task._replace(
            plan=replace(task.plan, objective=task.plan.objective + weight * term),
            drawn=told.subset(torch.cat([told.rows, known.repeat(times)])) if times else told,
            held_out=None if task.held_out is None else task.held_out.told(y),
        )

    fitted._fit(X, joined=joined)
    read, fitted.model_.head = fitted.model_.head, None
    return fitted, read
