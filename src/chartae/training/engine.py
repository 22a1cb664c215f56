"""The training loop: one generator of epochs that every consumer reads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Model, Part, Plan
from chartae.core.errors import PlanError
from chartae.core.noise import LentGenerator
from chartae.parts.tables import Prepared
from chartae.training.evaluation import settle
from chartae.training.kernels import gradients_for
from chartae.training.loop import Loop, set_back
from chartae.training.optimizers import SCHEDULES
from chartae.training.precision import channels_last, start_threads
from chartae.training.sources import Source

__all__ = ["Epoch", "best_weights", "finish", "train"]

BEGUN = 1024  # rows that parts may look at before the first step


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch.

    Parameters
    ----------
    number : int
        From 1.
    log : Mapping
        ``epoch``, ``seconds``, ``rows_per_second``, ``loss``, each term (nats), ``kl_per_dim``,
        ``grad_norm``, ``learning_rate``, the same of validation rows with the prefix ``val_``, and ``best``:
        whether no epoch so far was better.
    best : bool
        Whether this is the best epoch so far.
    model : nn.Module
        What is being trained.
    complete : bool
        Whether it has come to its end; if not, training was asked to pause within it, and there is no log.
    loop : object
        The training, of which :meth:`checkpoint` makes a copy.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.engine import Epoch
    >>> Epoch(1, {"loss": 3.0}, True, torch.nn.Linear(1, 1)).state()["weight"].shape
    torch.Size([1, 1])
    """

    number: int
    log: Mapping[str, Any]
    best: bool
    model: nn.Module = field(repr=False)
    complete: bool = True
    loop: Any = field(default=None, repr=False)

    def state(self) -> dict[str, Tensor]:
        """Copy the weights as they are now.

        Returns
        -------
        dict of str to Tensor
            Parameters and buffers.
        """
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def checkpoint(self) -> dict[str, Any]:
        """Copy all that training needs to go on from here, as :func:`train` takes it.

        Returns
        -------
        dict
            Weights, optimizer, random streams and what was measured so far: tensors, numbers, and lists and
            dicts of them.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.core.spaces import Space
        >>> from chartae.models.recipes import build
        >>> from chartae.training.engine import train
        >>> from chartae.training.sources import Source
        >>> plan, source = build("ae", (4,)), Source(np.eye(4), Space((4,)))
        >>> state = next(train(plan, source, epochs=2)).checkpoint()
        >>> [epoch.number for epoch in train(plan, source, epochs=4, state=state)]
        [2, 3, 4]
        """
        return self.loop.state()


def train(
    plan: Plan,
    source: Source,
    *,
    epochs: int,
    validation: Source | None = None,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    schedule: str = "constant",
    clip: float | None = None,
    averaging: int | None = None,
    patience: int | None = None,
    precision: torch.dtype = torch.float32,
    compile: bool = False,
    seed: int = 0,
    begin: bool = True,
    state: Mapping[str, Any] | None = None,
    pause: Callable[[], bool] | None = None,
) -> Generator[Epoch, None, None]:
    """Train, and yield after every epoch.

    When it ends by itself the best epoch's weights are restored (judged on validation rows, after
    warm-ups), and what the likelihood estimates of the training data, such as its noise, is estimated
    once more with them; a consumer that breaks off keeps the last epoch's.

    Parameters
    ----------
    plan : Plan
        What to train; its model is changed in place, on the source's device.
    source : Source
        Training rows.
    epochs : int
        At most.
    validation : Source or None
        Held-out rows.
    batch_size : int
        Rows of a step.
    learning_rate : float
        Of Adam.
    schedule : {"constant", "cosine", "linear"}
        Of the learning rate.
    clip : float or None
        Largest norm of the gradient.
    averaging : int or None
        Steps from which on an epoch's weights are a running average of those of the steps up to there
        (:class:`Average <chartae.training.averages.Average>`): what is judged, kept and yielded, while
        training goes on from the last step's. None: never.
    patience : int or None
        Epochs without improvement after which to stop; None: never.
    precision : torch.dtype
        float32 or bfloat16.
    compile : bool
        Compile the networks; on a GPU, record steps of modules that are neither torch's nor chartae's, too.
        A number of what is recorded, such as a share of dropout, has no effect if it is changed meanwhile.
    seed : int
        Of data order, posterior samples and dropout.
    begin : bool
        Let parts look at training rows before the first step: a decoder's last bias, a codebook and
        pseudo-inputs are set by them. False for a model that has been trained before, and that keeps them.
    state : Mapping or None
        Where to go on, as :meth:`Epoch.checkpoint` has given it: with the same plan, rows and parameters,
        what follows on the same machine is the same to the last bit as if training had never stopped; on a
        GPU, where sums have no order, nearly the same.
    pause : callable or None
        Asked between batches; where it says yes, an epoch that is not complete is yielded.

    Yields
    ------
    Epoch
        With its log, or, in a pause, without.

    Raises
    ------
    PlanError
        If the schedule is unknown, or the state is of another plan.
    TrainingError
        If the loss is still infinite or not a number in the third try, each with a smaller step.

    References
    ----------
    Kingma and Ba 2015, arXiv:1412.6980 (Adam).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.parts.units import infer_space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.engine import train
    >>> from chartae.training.sources import Source
    >>> X = np.random.default_rng(0).normal(size=(64, 3))
    >>> space = infer_space(X)
    >>> plan = build("vae", space, latent_dim=1, hidden=(8,))
    >>> [epoch.number for epoch in train(plan, Source(X, space), epochs=2)]
    [1, 2]
    """
    if schedule not in SCHEDULES:
        raise PlanError(f"schedule={schedule!r}: use one of {', '.join(SCHEDULES)}")
    start_threads()
    channels_last(plan.model.to(source.device))
    plan.objective.to(source.device)
    if begin and state is None:
        _begin(plan, source, seed)
    gradients = gradients_for(plan, precision, compile=compile)

    def shrink(done: float) -> float:
        return SCHEDULES[schedule](done / epochs)

    # Of a training that is short for its warm-up, half still is of the whole objective.
    pace = float(max(1.0, 2 * plan.objective.warmup / max(epochs, 1)))
    pause = pause or _never
    try:
        loop = Loop(
            plan,
            source,
            gradients,
            learning_rate,
            shrink,
            pace,
            validation=validation,
            batch_size=batch_size,
            clip=clip,
            averaging=averaging,
            seed=seed,
        )
        if state is not None:
            loop.restore(state)
        while loop.epoch < epochs and not loop.waited(patience):
            paused, fault = loop.steps(pause)
            if paused:
                yield Epoch(loop.epoch + 1, {}, False, plan.model, complete=False, loop=loop)
                continue
            judged, fault = loop.judge() if fault is None else (None, fault)
            log, seconds = loop.end()
            if fault is not None:
                loop.back(fault)
                continue
            entry = loop.entry(log, judged, seconds)
            yield Epoch(loop.epoch, entry, entry["best"], plan.model, loop=loop)
            loop.swap()
        if loop.best is not None:
            set_back([loop.best], plan.model)
        else:
            loop.swap()
        settle(plan, source, seed)
    finally:
        gradients.close()
        plan.model.eval()


@torch.no_grad()
def _begin(plan: Plan, source: Source, seed: int) -> None:
    """Let parts look at some training rows before the first step, where any part wants to."""
    model = plan.model
    if not any(type(m).begin is not Part.begin for m in _parts(model)):
        return
    model.eval()
    with LentGenerator(seed + 5, source.device):
        for batch in source.sample(BEGUN, seed + 5).batches(BEGUN):
            model.begin(batch)


def _parts(model: Model) -> Iterator[Part]:
    return (m for m in model.modules() if isinstance(m, Part) and not isinstance(m, Prepared))


def _never() -> bool:
    return False


def best_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the weights that a training would keep if it ended in a state.

    Parameters
    ----------
    state : Mapping
        As :meth:`Epoch.checkpoint` gives it.

    Returns
    -------
    dict of str to Tensor
        Those of the best epoch; where there was nothing to judge by, of the last one that is complete, or, in
        the first, of its steps so far.

    Examples
    --------
    >>> from chartae.training.engine import best_weights
    >>> state = {"best": None, "begun": None, "epoch": 3, "model": {"w": 1}}
    >>> best_weights(state | {"average": {"ready": False}})
    {'w': 1}
    """
    if state["best"] is not None:
        return state["best"]
    weights, average = state["model"], state["average"]
    if state["begun"] is not None and state["epoch"]:
        weights, *_, average = state["begun"]
    found: dict[str, Tensor] = copy.copy(weights)  # with what else a module's state has
    if average.get("ready", True):
        found.update(average["weights"])
    return found


def finish(plan: Plan, source: Source, state: Mapping[str, Any], *, seed: int = 0) -> None:
    """End a training that was broken off as one that ends by itself: with the best weights, and their noise.

    Parameters
    ----------
    plan : Plan
        What was trained; its model is changed in place.
    source : Source
        Training rows.
    state : Mapping
        As :meth:`Epoch.checkpoint` gives it.
    seed : int
        Of the training.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.parts.units import infer_space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.engine import finish, train
    >>> from chartae.training.sources import Source
    >>> X = np.random.default_rng(0).normal(size=(64, 3))
    >>> space = infer_space(X)
    >>> plan, source = build("vae", space, latent_dim=1, hidden=(8,)), Source(X, space)
    >>> for epoch in train(plan, source, epochs=9):
    ...     state = epoch.checkpoint()
    ...     break
    >>> finish(plan, source, state)
    """
    plan.model.load_state_dict(best_weights(state))
    settle(plan, source, seed)
