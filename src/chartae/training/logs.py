"""What is logged of an epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Term
from chartae.core.errors import PlanError

__all__: list[str] = []

TAKEN = {"epoch", "seconds", "rows_per_second", "loss", "grad_norm", "learning_rate", "best"}  # in the log


class _Mean:
    """A mean over rows that stays where the values are; batches are added up a few dozen at a time."""

    def __init__(self) -> None:
        self.rows, self.sum = 0, torch.zeros(())
        self.sizes: list[int] = []
        self.values: list[Tensor] = []

    def add(self, value: Tensor, n: int) -> None:
        self.sizes.append(n)
        self.values.append(value)
        if len(self.sizes) == 64:
            self._flush()

    def _flush(self) -> None:
        # float64: a long epoch's sum has more digits than one of its steps.
        stacked = self._stacked().double()
        sizes = torch.tensor(self.sizes, dtype=torch.float64, device=stacked.device)
        self.sum = self.sum.to(stacked) + torch.tensordot(sizes, stacked, 1)
        self.rows += sum(self.sizes)
        self.sizes, self.values = [], []

    def _stacked(self) -> Tensor:
        # Some may lie elsewhere: those of a state, or what a GPU was asked for apart.
        return torch.stack([value.to(self.values[-1].device) for value in self.values])

    def value(self) -> Any:
        if self.sizes:
            self._flush()
        return (self.sum / self.rows).tolist()

    def state(self) -> dict[str, Any]:
        # As they are: added up now, the sum would be rounded in other places.
        values = self._stacked() if self.values else None
        return {"rows": self.rows, "sum": self.sum.clone(), "sizes": list(self.sizes), "values": values}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> _Mean:
        mean = cls()
        mean.rows, mean.sum, mean.sizes = state["rows"], state["sum"], list(state["sizes"])
        mean.values = [] if state["values"] is None else list(state["values"].unbind())
        return mean


class Log:
    """Means over an epoch, each over the rows of those batches that it was given for.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Term
    >>> from chartae.training.logs import Log
    >>> log = Log()
    >>> log.add({"nll": Term(torch.tensor([1.0, 3.0]))}, 2)
    >>> log.add({"nll": Term(torch.tensor([8.0]))}, 1)
    >>> log.rows, log.means()
    (3, {'nll': 4.0})
    """

    def __init__(self) -> None:
        self.rows, self.steps = 0, 0
        self.kept: defaultdict[str, _Mean] = defaultdict(_Mean)

    def add(self, terms: Mapping[str, Term], n: int, **more: Tensor) -> None:
        taken = TAKEN & terms.keys()
        if taken:
            raise PlanError(
                f"a term may not be called {min(taken)!r}, which the log keeps for itself: rename it"
            )
        self.steps += 1
        self.rows += n
        for name, term in terms.items():
            more[name] = term.rows.detach().mean()
            if term.per_dim is not None:
                more[f"{name}_per_dim"] = term.per_dim.detach().clone()  # it may be a buffer that moves on
        for name, value in more.items():
            self.kept[name].add(value, n)

    def means(self) -> dict[str, Any]:
        return {name: mean.value() for name, mean in self.kept.items()}

    def state(self) -> dict[str, Any]:
        kept = {name: mean.state() for name, mean in self.kept.items()}
        return {"rows": self.rows, "steps": self.steps, "kept": kept}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Log:
        log = cls()
        log.rows, log.steps = state["rows"], state["steps"]
        log.kept.update({name: _Mean.of(mean) for name, mean in state["kept"].items()})
        return log
