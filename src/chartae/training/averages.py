"""Averages of weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FEWEST", "Average"]

POWER = 17.0  # step s counts as s**17: half of the average is of the last 4 % of the steps
#: Steps from which on an average is better than the last weights: measured, of tables, texts and images.
FEWEST = 400
START = 0.7  # of the fewest steps: what lies before counts for 0.2 % of an average
WITHIN = 200  # updates in the time that a training has lasted: some ten for what counts


class Average:
    """A running average of a model's weights, which changes places with them.

    Steps of one size keep weights from settling; their average has settled. It forgets as training goes on,
    in proportion to how long it has lasted, so that nothing is to be chosen for a training of another length.
    Where a step is a small part of that time, not each is added, but one that stands for several.

    Parameters
    ----------
    model : nn.Module or None
        Whose parameters and buffers are averaged; None: nothing is.
    fewest : int
        Steps without which the average does not change places with the weights: it is behind at first.

    References
    ----------
    Polyak and Juditsky 1992, doi:10.1137/0330046; Karras et al. 2024, arXiv:2312.02696, section 3.1 (powers).

    Examples
    --------
    >>> import torch
    >>> from chartae.training.averages import Average
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> average = Average(model)
    >>> for step in range(1, 101):
    ...     _ = model.weight.data.fill_(step)
    ...     average.update()
    >>> average.swap()
    >>> round(model.weight.item(), 1)
    95.2
    """

    def __init__(self, model: nn.Module | None, fewest: int = 1) -> None:
        self.model, self.fewest = model, fewest
        self.steps, self.added, self.swapped = 0, 0, False
        self.weights = {name: value.clone() for name, value in self._live().items()}

    def _live(self) -> dict[str, Tensor]:
        """What changes, as it is now: buffers may be other tensors than before."""
        if self.model is None:
            return {}
        state = self.model.state_dict().items()  # which may hold more than tensors
        return {name: v for name, v in state if isinstance(v, Tensor) and v.is_floating_point()}

    @property
    def ready(self) -> bool:
        """Whether it is of enough steps."""
        return self.model is not None and self.steps >= self.fewest

    @torch.no_grad()
    def update(self, *, last: bool = False) -> None:
        """Note that a step was taken.

        Parameters
        ----------
        last : bool
            Take no step, and add the last one, if it was left out.
        """
        self.steps += not last
        passed = self.steps - self.added
        if self.model is None or self.steps < START * self.fewest:
            return
        if passed < (1 if last else max(1, self.steps // WITHIN)):
            return
        live, share = self._live(), 1 - (self.added / self.steps) ** (POWER + 1)
        for name, value in live.items():
            if name not in self.weights or value.shape != self.weights[name].shape:
                self.weights[name] = value.clone()
        names = list(live)
        if names:
            torch._foreach_lerp_([self.weights[n] for n in names], [live[n] for n in names], share)
        self.added = self.steps

    @torch.no_grad()
    def swap(self) -> None:
        """Let the model have the average, and keep its weights here; or the other way round."""
        if not self.ready:
            return
        self.swapped = not self.swapped
        live = self._live()
        kept = {name: value.clone() for name, value in live.items()}  # all of them first: some may be one
        for name, value in live.items():
            value.copy_(self.weights[name])
        self.weights = kept

    def state_dict(self) -> dict[str, Any]:
        """Give all that changes, while the model has its own weights.

        Returns
        -------
        dict
            Numbers of steps, whether they are enough, and the average by the names of the model's state.
        """
        numbers = {"steps": self.steps, "added": self.added, "ready": self.ready}
        return {**numbers, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the model is to have its own weights.

        Parameters
        ----------
        state : Mapping
            As :meth:`state_dict` gives it.

        Raises
        ------
        ValueError
            If it is of another model.
        """
        weights = state["weights"]
        if weights.keys() != self.weights.keys():
            raise ValueError("weights that are averaged are of another model")
        self.steps, self.added, self.swapped = state["steps"], state["added"], False
        self.weights = {name: weights[name].to(mine) for name, mine in self.weights.items()}
