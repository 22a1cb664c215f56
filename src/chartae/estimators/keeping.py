"""A fit and its folder: checkpoints while it goes on, how it is stopped, and where it goes on from."""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor

from chartae.core.errors import PlanError, RunFolderError, TrainingError
from chartae.core.interrupts import Interrupts
from chartae.estimators.runs import DAMAGE, damaged, described
from chartae.models.persistence import OpenRun, read_checkpoint
from chartae.training.engine import best_weights

__all__ = ["Keeping"]

#: A checkpoint may cost one part in so many of the time; and seconds that are worth no checkpoint.
SHARE, SELDOM = 20, 2.0
PRECISIONS = ("float32", "bfloat16")
#: What may differ when a fit goes on: how long, where, and what is said of it.
FREE = {"max_time", "device", "verbose"}
#: What may not, in the configuration and among the tensors, and what it is of.
FACTS = {
    "condition": "conditions",
    "space": "data",
    "feature_names": "data",
    "medium": "data",
    "blueprint": "parts",
}
MEASURED = ("validation_rows", "space.center", "space.scale")


class Keeping:
    """The run folder of a fit, if it has one, and the reasons to stop before the end.

    Parameters
    ----------
    path : str, path-like or None
        The run folder; None: nothing is written.
    resume : bool
        Go on with an unfinished run that is there.
    overwrite : bool
        Replace a run that is there.

    Attributes
    ----------
    begun : Mapping
        What an unfinished run says of its beginning: ``random_state``, ``precision``, and the ``state`` of
        training; empty where a fit begins.
    history : list of dict
        Its epochs.
    stopped : bool
        Whether this fit ended before its time.

    Raises
    ------
    PlanError
        If there is no folder to resume from or to overwrite.
    RunFolderError
        If the folder cannot be used.

    Examples
    --------
    >>> from chartae.estimators.keeping import Keeping
    >>> with Keeping(None) as keeping:
    ...     keeping.begun, keeping.due(), keeping.asked()
    ({}, False, False)
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        if path is None and (resume or overwrite):
            raise PlanError("resume=True and overwrite=True are about a run folder: name it with run=")
        self.path, self.start = path, time.monotonic()
        self.run = None if path is None else OpenRun(path, overwrite=overwrite, resume=resume)
        self.config: dict[str, Any] | None = None
        self.begun: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.wish, self.max_time = Interrupts(), math.inf
        self.stopped, self.warned, self.next = False, False, 0.0
        if self.run is not None and self.run.begun:
            try:
                self.config, self.begun, self.history = read_checkpoint(self.run.path)
                seed, precision = self.begun.get("random_state"), self.begun.get("precision")
                if not (isinstance(seed, int) and precision in PRECISIONS and "state" in self.begun):
                    raise RunFolderError(f"{path}: its checkpoint is not of a fit: fit again")
            except BaseException:
                self.run.close()
                raise

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.run is not None:
            failed = isinstance(error, TrainingError) and not self.history
            if error is not None and (failed or self.begun.get("state") is None):
                self.run.discard()  # there is nothing in it to go on with
            self.run.close()

    # ---------------------------------------------------------------- when

    def asked(self) -> bool:
        """Say whether training is to stop: a signal has come, or the time is over.

        Returns
        -------
        bool
            Whether it is.
        """
        late = time.monotonic() - self.start >= self.max_time
        return late or self.wish.signal is not None

    def due(self) -> bool:
        """Say whether training is to pause: to stop, or because the last checkpoint is old.

        Returns
        -------
        bool
            Whether it is.
        """
        return self.asked() or (self.run is not None and time.monotonic() >= self.next)

    # ---------------------------------------------------------------- what

    def begin(self, estimator: Any, *, data: Callable[[], str], **facts: Any) -> None:
        """Put the run where it will be, so that what cannot be written is known before hours of training.

        Parameters
        ----------
        estimator : object
            Whose model is built and not trained.
        data : callable
            Gives a sum of the data.
        **facts : object
            What else a fit that goes on must know: ``random_state``, ``precision``, and the ``memory`` of a
            stream.

        Raises
        ------
        RunFolderError
            If the run that is there was begun with other data or parameters, or the place cannot be written.
        """
        if self.run is not None:
            facts |= {"data": data(), "modules": _modules(estimator.network)}
        if self.config is not None:
            # By which a stream shuffles, and holds rows out.
            self._refuse_other("memory", self.begun.get("memory"), facts["memory"])
            config, tensors = described(estimator)
            try:
                self._compare(json.loads(json.dumps(config)), tensors)
            except RunFolderError:
                raise
            except DAMAGE as error:
                raise damaged(self.path, error) from None
            for name in ("modules", "data"):
                if facts[name] != self.begun.get(name):
                    self._refuse(name)
            return
        self.begun = {**facts, "state": None}
        if self.run is not None and self.run.lock is not None:
            # A run is there, which stays until this one has learned something.
            self.next = time.monotonic() + SELDOM
        else:
            self._write(estimator)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the folder where training finds that it cannot go on from what is there.

        Yields
        ------
        None
            For as long as training goes on.

        Raises
        ------
        RunFolderError
            In place of what training has raised.
        """
        try:
            yield
        except PlanError as error:
            if self.config is None:
                raise
            raise RunFolderError(f"{self.path}: {error}") from None

    def keep(self, estimator: Any, state: dict[str, Any]) -> None:
        """Keep a state of training, in memory and in the folder.

        Parameters
        ----------
        estimator : object
            Being fitted.
        state : dict
            As :meth:`Epoch.checkpoint` gives it.
        """
        self.begun["state"], self.history = state, estimator.history_
        try:
            self._write(estimator, best_weights(state))
        except RunFolderError as error:  # the last checkpoint is still there, and training is worth more
            if not self.warned:
                warnings.warn(f"{error}; training goes on without further checkpoints", stacklevel=3)
            self.warned, self.next = True, time.monotonic() + 60.0

    def end(self, estimator: Any) -> None:
        """Write the fitted estimator: as a finished run, or as one that can go on.

        Parameters
        ----------
        estimator : object
            Fitted.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        if self.stopped:
            self._write(estimator)
        elif self.run is not None:
            config, tensors = described(estimator)
            self.run.finish(config, tensors, estimator.history_)

    def _write(self, estimator: Any, weights: dict[str, Tensor] | None = None) -> None:
        if self.run is None:
            return
        start = time.monotonic()
        config, tensors = described(estimator)
        tree = {"weights": {**tensors, **(weights or {})}, **self.begun}
        self.run.checkpoint(config, tree, estimator.history_)
        now = time.monotonic()
        self.next = now + max(SELDOM, SHARE * (now - start))

    def _compare(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Refuse to go on with something else."""
        assert self.config is not None
        began, given = self.config["estimator"]["parameters"], config["estimator"]["parameters"]
        if began.keys() != given.keys():
            raise RunFolderError(
                f"{self.path} was begun with another estimator, or by another version of chartae "
                f"({self.config['chartae']}): resume with the same, or choose another folder"
            )
        for name in sorted(given.keys() - FREE):
            self._refuse_other(name, began[name], given[name])
        other = [what for name, what in FACTS.items() if config[name] != self.config[name]]
        if other or not all(_alike(tensors[name], self.begun["weights"][name]) for name in MEASURED):
            self._refuse(other[0] if other else "data")

    def _refuse_other(self, name: str, began: Any, given: Any) -> None:
        if given != began:
            raise RunFolderError(
                f"{self.path} was begun with {name}={began!r}, not {name}={given!r}: "
                "resume with the same, or choose another folder"
            )

    def _refuse(self, what: str) -> NoReturn:
        raise RunFolderError(
            f"{self.path} was begun with other {what}: resume with the same, or choose another folder"
        )


def _modules(network: Any) -> str | None:
    """Write down modules of the user's, without the places in memory of what is in them."""
    return None if network is None or isinstance(network, str) else re.sub(r"0x[0-9a-f]+", "", repr(network))


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal, but for the last digits that another machine may add up otherwise."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, equal_nan=True)
