"""A training between two epochs: its steps, what becomes of a fault, and its state."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Plan, Term
from chartae.core.errors import PlanError, TrainingError, one_line
from chartae.core.noise import LentGenerator, Noise
from chartae.training.averages import Average
from chartae.training.evaluation import judge
from chartae.training.faults import diagnose
from chartae.training.kernels import Gradients, total
from chartae.training.logs import Log
from chartae.training.optimizers import Adam
from chartae.training.precision import flushed_denormals
from chartae.training.sources import Source

__all__ = ["Loop", "set_back", "snapshot"]

TRIES = 3
GRADIENT_LIMIT = 2.0**64  # whose square float32 does not hold
LATE = {"cuda"}  # devices whose numbers are there only some time after they were asked for


class Loop:
    """A training, with all that changes in it.

    An epoch is :meth:`steps`, until it says neither pause nor fault, :meth:`judge`, :meth:`end`, and then
    :meth:`entry`, or, where something was wrong, :meth:`back`. :meth:`swap` gives the model its own weights
    again, where it was judged with their average.

    Parameters
    ----------
    plan : Plan
        What is trained.
    source : Source
        Training rows.
    gradients : Gradients
        How a step's are found.
    learning_rate : float
        Of the optimizer.
    shrink : callable
        By what the learning rate is multiplied after so many epochs.
    pace : float
        Epochs that schedules of the objective count for one.
    validation : Source or None
        Held-out rows.
    batch_size : int
        Rows of a step.
    clip : float or None
        Largest norm of the gradient.
    averaging : int or None
        As :func:`train <chartae.training.engine.train>` takes it.
    seed : int
        Of data order, posterior samples and dropout.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import Gradients
    >>> from chartae.training.loop import Loop
    >>> from chartae.training.sources import Source
    >>> plan, source = build("ae", (4,)), Source(np.eye(4), Space((4,)))
    >>> given = {"validation": None, "batch_size": 2, "clip": None, "averaging": None, "seed": 0}
    >>> loop = Loop(plan, source, Gradients(plan), 1e-3, lambda done: 1.0, 1.0, **given)
    >>> loop.steps(lambda: False), loop.judge(), loop.step
    ((False, None), (None, None), 2)
    """

    #: Plain numbers and snapshots, which are never changed in place.
    KEPT = ("epoch", "step", "rate", "faults", "best_loss", "best_epoch", "best", "good", "begun", "seconds")

    def __init__(
        self,
        plan: Plan,
        source: Source,
        gradients: Gradients,
        learning_rate: float,
        shrink: Callable[[float], float],
        pace: float,
        *,
        validation: Source | None,
        batch_size: int,
        clip: float | None,
        averaging: int | None,
        seed: int,
    ) -> None:
        self.plan, self.source, self.gradients, self.shrink, self.pace = plan, source, gradients, shrink, pace
        self.validation, self.arrival = validation, plan.objective.warmup / pace
        self.optimizer: Any = (plan.optimizer or Adam)(gradients.parameters, lr=float(learning_rate))
        self.late = source.device.type in LATE
        # A GPU can find by itself that weights are not to be moved, and is not waited for before.
        self.trusted = self.late and clip is None and type(self.optimizer) is Adam
        # Beyond it the squares that Adam keeps would overflow, and stop it for good.
        self.limit = GRADIENT_LIMIT if clip is None else math.inf
        self.batch_size, self.clip, self.seed = batch_size, clip, seed
        self.average = Average(plan.model if averaging else None, averaging or 1)
        self.order = torch.Generator().manual_seed(seed)
        self.noise = Noise(torch.Generator().manual_seed(seed + 1))
        self.dropout = LentGenerator(seed + 2, source.device)
        self.epoch, self.step, self.faults = 0, 0, 0
        self.rate = self.first_rate = float(learning_rate)
        self.best_loss, self.best_epoch, self.seconds = math.inf, 0, 0.0
        self.best: Any = None
        self.good: Any = None
        self.begun: Any = None
        self.log, self.shuffle = Log(), self.order.get_state()
        self.batches: Iterator[Batch] | None = None
        self.held: Batch | None = None
        self.asked = True  # whoever goes on goes on by one batch at least

    def state(self) -> dict[str, Any]:
        """Copy all that the training needs to go on.

        Returns
        -------
        dict
            Weights, optimizer, random streams and what was measured so far.
        """
        swapped = self.average.swapped
        if swapped:
            self.average.swap()
        moving = zip(("model", "objective", "optimizer", "average"), snapshot(*self._moving()), strict=True)
        if swapped:
            self.average.swap()
        streams = {
            "order": self.shuffle,  # as it was before this epoch's order was drawn
            "noise": self.noise.generator.get_state(),
            "dropout": self.dropout.states,
        }
        return {**{name: getattr(self, name) for name in self.KEPT}, **dict(moving), **streams} | {
            "begun": self.begun if self.step else None,  # before the first step it is what is there
            "log": self.log.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : Mapping
            As :meth:`state` gives it.

        Raises
        ------
        PlanError
            If it is of another plan.
        """
        try:
            self._take_up(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = one_line(error, 200)
            raise PlanError(f"state is not of this plan ({reason}): begin again without it") from None

    def _take_up(self, state: Mapping[str, Any]) -> None:
        for name in self.KEPT:
            now, then = getattr(self, name), state[name]
            if isinstance(now, int | float) and type(then) is not type(now):
                raise TypeError(f"{name} is {then!r:.40}")
            setattr(self, name, then)
        for stream in (state["dropout"] or ())[:1]:  # others are of GPUs, which may not be here
            torch.Generator().set_state(stream)  # which refuses what is no such state
        optimizer = state["optimizer"]
        # Where gradients lie otherwise, as on a device of another kind, averages of theirs are of no use.
        elsewhere = isinstance(self.optimizer, Adam) and not self.optimizer.fits(optimizer)
        if elsewhere:
            (optimizer,) = snapshot(self.optimizer)
        set_back([state["model"], state["objective"], optimizer, state["average"]], *self._moving())
        for name in ("good", "begun"):
            kept = getattr(self, name)
            if kept is not None and len(kept) == 3:  # of a time when the objective was no part of it
                kept = [kept[0], *snapshot(self.plan.objective), *kept[1:]]
            if kept is not None and elsewhere:
                kept = [*kept[:2], optimizer, kept[3]]
            setattr(self, name, kept)
        if elsewhere:
            warnings.warn(
                "this training was begun on another device: the optimizer's averages begin anew",
                stacklevel=4,
            )
        self.gradients.moved()
        self.shuffle = state["order"]
        self.order.set_state(self.shuffle)
        self.noise.generator.set_state(state["noise"])
        self.dropout.states = state["dropout"]
        self.log = Log.of(state["log"])

    def _moving(self) -> tuple[Any, Any, Any, Any]:
        return self.plan.model, self.plan.objective, self.optimizer, self.average

    def swap(self) -> None:
        """Let the model have the average of its weights, or its own again."""
        self.average.swap()
        self.gradients.moved()

    def steps(self, pause: Callable[[], bool]) -> tuple[bool, str | None]:
        """Take the steps of an epoch up to its end, a pause or a fault.

        Parameters
        ----------
        pause : callable
            Asked between batches.

        Returns
        -------
        paused : bool
            Whether it has said yes.
        fault : str or None
            What was wrong with a batch.
        """
        plan, gradients = self.plan, self.gradients
        if self.batches is None:
            if self.begun is None:
                self.begun = snapshot(*self._moving())
            self.batches = self.source.batches(self.batch_size, self.order, skip=self.step)
        steps, start = math.ceil(len(self.source) / self.batch_size), time.perf_counter()
        plan.model.train()
        try:
            with self.dropout, flushed_denormals():
                for batch in iter(self._next, None):
                    if not self.asked and pause():
                        self.held, self.asked = batch, True
                        plan.model.eval()
                        return True, None
                    self.asked = False
                    done = self.epoch + self.step / steps
                    plan.objective.advance(self.pace * done)
                    for group in self.optimizer.param_groups:
                        group["lr"] = self.rate * self.shrink(done) * group.get("share", 1.0)
                    loss, terms = gradients(batch, self.noise)
                    norm = gradients.norm()
                    if self.trusted:
                        self._move(skip=~((norm < self.limit) & loss.isfinite()))
                        self.held = self._next()
                    if self.late:
                        loss, norm, terms = _told(loss, norm, terms)
                    if self.clip is not None and not math.isfinite(norm):
                        norm = gradients.wide_norm()
                    if not (norm < self.limit and math.isfinite(loss)):
                        return False, self._diagnosis(batch, terms, self.step)
                    if self.clip is not None:
                        torch.nn.utils.clip_grads_with_norm_(gradients.parameters, self.clip, norm)
                    if not self.trusted:
                        self._move()
                    self.average.update()
                    self.log.add(terms, len(batch), loss=loss, grad_norm=norm)
                    self.step += 1
                self.average.update(last=True)
                plan.model.eval()
                # No further step would notice what the last one did.
                with torch.no_grad():
                    noise = Noise(self.seed)
                    terms = plan.objective(plan.model.trace(batch, k=plan.objective.samples, noise=noise))
                    broken = not math.isfinite(total(terms))
            return False, self._diagnosis(batch, terms, self.step - 1) if broken else None
        finally:
            self.seconds += time.perf_counter() - start

    def _next(self) -> Batch | None:
        batch, self.held = self.held, None
        return next(self.batches, None) if batch is None else batch  # type: ignore[arg-type]

    def _move(self, **how: Tensor) -> None:
        self.optimizer.step(**how)
        self.gradients.moved()

    def waited(self, patience: int | None) -> bool:
        """Tell whether as many epochs as patience has have not become better.

        Parameters
        ----------
        patience : int or None
            Epochs; None: never.

        Returns
        -------
        bool
            Whether to stop.
        """
        if patience is None or self.validation is None or not self.epoch:
            return False
        return self.epoch - max(self.best_epoch, self.arrival) >= patience

    def judge(self) -> tuple[Log | None, str | None]:
        """Let the model have the weights that count, and see what held-out rows cost.

        Returns
        -------
        log : Log or None
            Of held-out rows, if there are any.
        fault : str or None
            What is wrong with a batch of them.
        """
        self.swap()
        self.plan.objective.advance(self.pace * (self.epoch + 1))
        if self.validation is None:
            return None, None
        place = f"epoch {self.epoch + 1}, validation batch"
        return judge(self.plan, self.validation, seed=self.seed, place=place)

    def back(self, fault: str) -> None:
        """Go back to the last good state with a smaller step.

        Parameters
        ----------
        fault : str
            Why.

        Raises
        ------
        TrainingError
            If this is the last of several tries.
        """
        self.faults += 1
        set_back(self.good, *self._moving())
        self.gradients.moved()
        if self.faults >= TRIES:
            raise TrainingError(
                f"{fault}; {TRIES} tries with ever smaller steps did not help: look at that batch's "
                f"rows, or lower learning_rate (it was {self.first_rate:g})"
            )
        self.rate *= 0.3
        warnings.warn(
            f"{fault}; back to the last good state with learning_rate {self.rate:.2g}", stacklevel=3
        )

    def entry(self, log: Log, judged: Log | None, seconds: float) -> dict[str, Any]:
        """Count an epoch; its weights are kept if they are the best so far.

        Parameters
        ----------
        log : Log
            Of its steps.
        judged : Log or None
            Of held-out rows.
        seconds : float
            That it took.

        Returns
        -------
        dict
            What is logged of it.
        """
        self.epoch, self.faults = self.epoch + 1, 0
        speed = {"seconds": seconds, "rows_per_second": log.rows / seconds}
        rate = self.optimizer.param_groups[0]["lr"]
        entry = {"epoch": self.epoch, **speed, "learning_rate": rate, **log.means()}
        if judged is not None:
            entry |= {f"val_{k}": v for k, v in judged.means().items()}
        # Losses before warm-ups have arrived are of another objective.
        best = self.epoch >= self.arrival and entry.get("val_loss", math.inf) < self.best_loss
        if best:
            self.best_loss, self.best_epoch = entry["val_loss"], self.epoch
            (self.best,) = snapshot(self.plan.model)
        return entry | {"best": best}

    def _diagnosis(self, batch: Batch, terms: Mapping[str, Term], step: int) -> str:
        return diagnose(self.plan, batch, terms, f"epoch {self.epoch + 1}, batch {step}")

    def end(self) -> tuple[Log, float]:
        """Leave an epoch, whatever became of it.

        Returns
        -------
        log : Log
            Of its steps.
        seconds : float
            That it took.
        """
        # A state is good once a finite step has come from it; before the first one there is no other.
        self.good = self.begun if self.log.steps or self.good is None else self.good
        seen = self.log, self.seconds
        self.log, self.seconds, self.step = Log(), 0.0, 0
        self.begun, self.batches, self.held, self.shuffle = None, None, None, self.order.get_state()
        return seen


def _told(loss: Tensor, norm: Tensor, terms: Mapping[str, Term]) -> tuple[Tensor, Tensor, dict[str, Term]]:
    """Bring the numbers of a step to the host in one copy: each is waited for anew."""
    means = [term.rows.detach().mean() for term in terms.values()]
    loss, norm, *rows = torch.stack([t.to(loss.device) for t in (loss, norm, *means)]).cpu().unbind()
    return loss, norm, {n: t._replace(rows=r) for (n, t), r in zip(terms.items(), rows, strict=True)}


def snapshot(*parts: Any) -> list[Any]:
    """Copy the state of modules, optimizers and the like.

    Parameters
    ----------
    *parts : object
        With a ``state_dict``.

    Returns
    -------
    list
        A state of each.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.loop import set_back, snapshot
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> before = snapshot(layer)
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> set_back(before, layer)
    >>> bool(layer.weight == 0)
    False
    """
    return [_copied(part.state_dict()) for part in parts]


def set_back(states: list[Any], *parts: Any) -> None:
    """Give modules, optimizers and the like the state that they had.

    Parameters
    ----------
    states : list
        As :func:`snapshot` gives it.
    *parts : object
        The same.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.loop import set_back, snapshot
    >>> layers = [torch.nn.Linear(1, 1) for _ in range(2)]
    >>> set_back(snapshot(layers[0]), layers[1])
    >>> bool(layers[0].weight == layers[1].weight)
    True
    """
    for state, part in zip(states, parts, strict=True):
        # A copy: torch's optimizers keep what they are given, and change it in their next step.
        part.load_state_dict(_copied(state))


def _copied(value: Any) -> Any:
    """Copy a state deeply: as ``copy.deepcopy``, which takes many times as long, but for what is shared."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is list:
        return [_copied(v) for v in value]
    if isinstance(value, dict):
        made = copy.copy(value)  # with what else a module's state has
        for k, v in value.items():
            made[k] = _copied(v)
        return made
    return copy.deepcopy(value)
