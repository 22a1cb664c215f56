"""The training loop: one generator of epochs that every consumer reads."""

from __future__ import annotations

import copy
import itertools
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Batch, Model, Part, Plan, Term
from chartae.core.errors import PlanError, TrainingError, one_line
from chartae.core.noise import LentGenerator, Noise
from chartae.parts.tables import Prepared
from chartae.training.averages import Average
from chartae.training.faults import diagnose
from chartae.training.kernels import Gradients, gradients_for, total
from chartae.training.logs import Log
from chartae.training.optimizers import Adam
from chartae.training.precision import channels_last, flushed_denormals, start_threads
from chartae.training.sources import Source

__all__ = ["Epoch", "best_weights", "evaluate", "finish", "settle", "train"]

TRIES = 3
EVALUATED, VALUES = 1024, 1 << 24  # rows, and values of them, in a batch that needs no gradients
BEGUN = 1024  # rows that parts may look at before the first step
SETTLED = 16384  # rows that are enough for a variance: its relative error is under 2 %, of one value
GRADIENT_LIMIT = math.sqrt(torch.finfo(torch.float32).max)
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}


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
    >>> from chartae.training.engine import evaluate
    >>> from chartae.training.sources import Source
    >>> sorted(evaluate(build("ae", (4,)), Source(np.zeros((8, 4)), Space((4,)))))
    ['loss', 'nll']
    """
    return _evaluate(plan, source, batch_size, seed)[0].means()


@torch.no_grad()
def _evaluate(
    plan: Plan, source: Source, batch_size: int, seed: int, place: str | None = None
) -> tuple[Log, str | None]:
    """Go through rows in evaluation mode; if a place is named, up to the first batch that is not finite."""
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
    if state is None:
        _begin(plan, source, seed)
    gradients = gradients_for(plan, precision, compile=compile)

    def shrink(done: float) -> float:
        return SCHEDULES[schedule](done / epochs)

    # Of a training that is short for its warm-up, half still is of the whole objective.
    pace = float(max(1.0, 2 * plan.objective.warmup / max(epochs, 1)))
    loop = _Loop(
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
    pause = pause or _never
    try:
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
            _restore([loop.best], plan.model)
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
        weights, _, average = state["begun"]
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


class _Loop:
    """A training, with all that changes in it: its state is what :meth:`Epoch.checkpoint` gives."""

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
        swapped = self.average.swapped
        if swapped:
            self.average.swap()
        moving = zip(("model", "objective", "optimizer", "average"), _snapshot(*self._moving()), strict=True)
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
        _restore([state[name] for name in ("model", "objective", "optimizer", "average")], *self._moving())
        self.gradients.moved()
        self.shuffle = state["order"]
        self.order.set_state(self.shuffle)
        self.noise.generator.set_state(state["noise"])
        self.dropout.states = state["dropout"]
        self.log = Log.of(state["log"], self.source.device)

    def _moving(self) -> tuple[Any, Any, Any, Any]:
        return self.plan.model, self.plan.objective, self.optimizer, self.average

    def swap(self) -> None:
        """Let the model have the average of its weights, or its own again."""
        self.average.swap()
        self.gradients.moved()

    def steps(self, pause: Callable[[], bool]) -> tuple[bool, str | None]:
        """Take the steps of an epoch up to its end, a pause or a fault, and say which."""
        plan, gradients, optimizer = self.plan, self.gradients, self.optimizer
        if self.batches is None:
            if self.begun is None:
                self.begun = _snapshot(plan.model, optimizer, self.average)
            self.batches = self.source.batches(self.batch_size, self.order, skip=self.step)
        batches = self.batches if self.held is None else itertools.chain((self.held,), self.batches)
        self.held = None
        steps, start = math.ceil(len(self.source) / self.batch_size), time.perf_counter()
        plan.model.train()
        try:
            with self.dropout, flushed_denormals():
                for batch in batches:
                    if not self.asked and pause():
                        self.held, self.asked = batch, True
                        plan.model.eval()
                        return True, None
                    self.asked = False
                    done = self.epoch + self.step / steps
                    plan.objective.advance(self.pace * done)
                    for group in optimizer.param_groups:
                        group["lr"] = self.rate * self.shrink(done) * group.get("share", 1.0)
                    loss, terms = gradients(batch, self.noise)
                    norm = gradients.norm()
                    # Beyond the limit the squares that Adam keeps would overflow, and stop it for good.
                    usable = float(norm) < GRADIENT_LIMIT if self.clip is None else math.isfinite(norm)
                    if not (usable and math.isfinite(loss)):
                        return False, self._diagnosis(batch, terms, self.step)
                    if self.clip is not None:
                        torch.nn.utils.clip_grads_with_norm_(gradients.parameters, self.clip, norm)
                    optimizer.step()
                    gradients.moved()
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

    def waited(self, patience: int | None) -> bool:
        """Whether as many epochs as patience has have not become better."""
        if patience is None or self.validation is None or not self.epoch:
            return False
        return self.epoch - max(self.best_epoch, self.arrival) >= patience

    def judge(self) -> tuple[Log | None, str | None]:
        """Let the model have the weights that count, see what held-out rows cost, and say what is wrong."""
        self.swap()
        self.plan.objective.advance(self.pace * (self.epoch + 1))
        if self.validation is None:
            return None, None
        place = f"epoch {self.epoch + 1}, validation batch"
        return _evaluate(self.plan, self.validation, EVALUATED, self.seed, place)

    def back(self, fault: str) -> None:
        """Go back to the last good state with a smaller step, or, after several tries, give up."""
        self.faults += 1
        _restore(self.good, self.plan.model, self.optimizer, self.average)
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
        """Count an epoch, and give what is logged of it; its weights are kept if they are the best so far."""
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
            (self.best,) = _snapshot(self.plan.model)
        return entry | {"best": best}

    def _diagnosis(self, batch: Batch, terms: Mapping[str, Term], step: int) -> str:
        return diagnose(self.plan, batch, terms, f"epoch {self.epoch + 1}, batch {step}")

    def end(self) -> tuple[Log, float]:
        """Leave an epoch, whatever became of it, and say what was seen in it and how long it took."""
        # A state is good once a finite step has come from it; before the first one there is no other.
        self.good = self.begun if self.log.steps or self.good is None else self.good
        seen = self.log, self.seconds
        self.log, self.seconds, self.step = Log(), 0.0, 0
        self.begun, self.batches, self.shuffle = None, None, self.order.get_state()
        return seen


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
    >>> from chartae.training.engine import settle
    >>> from chartae.training.sources import Source
    >>> settle(build("ae", (4,)), Source(np.eye(4), Space((4,))), seed=0)
    """
    model = plan.model.eval()
    if not model.likelihood.estimated:
        return
    noise, seen = Noise(seed), 0
    for batch in source.sample(SETTLED, seed).batches(_rows(plan, source, EVALUATED)):
        trace = model.trace(batch, k=plan.objective.samples, noise=noise)
        seen += len(batch)
        model.likelihood.observe(trace.px, batch.x, share=len(batch) / seen)


def _snapshot(*parts: Any) -> list[Any]:
    return [copy.deepcopy(part.state_dict()) for part in parts]


def _restore(states: list[Any], *parts: Any) -> None:
    for state, part in zip(states, parts, strict=True):
        # A copy: torch's optimizers keep what they are given, and change it in their next step.
        part.load_state_dict(copy.deepcopy(state))
