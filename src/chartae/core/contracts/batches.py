"""What a model is given: rows, and conditions of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "RawCondition"]


class RawCondition(NamedTuple):
    """A condition as the user gave it, row by row; one module turns it into a tensor once a pass.

    Attributes
    ----------
    label : Tensor or None
        ``(n,)`` integers; -1 is the null token.
    vector : Tensor or None
        ``(n, m)``; a row that holds a NaN is the null token.
    sequence : Tensor or None
        ``(n, t, m)``; a place that holds a NaN is none, and a row without places is the null token.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import RawCondition
    >>> RawCondition(label=torch.tensor([3, -1])).take(torch.tensor([1])).label
    tensor([-1])
    """

    label: Tensor | None = None
    vector: Tensor | None = None
    sequence: Tensor | None = None

    def map(self, f: Callable[[Tensor], Tensor]) -> RawCondition:
        """Apply a function to each tensor that is there.

        Parameters
        ----------
        f : callable
            From tensor to tensor.

        Returns
        -------
        RawCondition
            With the results.
        """
        return RawCondition(*(None if t is None else f(t) for t in self))

    def take(self, index: Any) -> RawCondition:
        """Choose rows.

        Parameters
        ----------
        index : Tensor, ndarray or slice
            Row numbers, ``(m,)``.

        Returns
        -------
        RawCondition
            Of those rows.
        """
        return self.map(lambda t: t[index])

    def to(self, device: torch.device | str) -> RawCondition:
        """Move to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to.

        Returns
        -------
        RawCondition
            There.
        """
        return self.map(lambda t: t.to(device))


@dataclass(frozen=True)
class Batch:
    """Some rows of data in the model's units.

    Parameters
    ----------
    x : Tensor
        ``(n, *x)``, float32, centered and scaled; NaN where a value is missing.
    c : RawCondition or None
        The condition of each row.
    index : Tensor or None
        ``(n,)`` row numbers in the source.
    y : Tensor or None
        ``(n,)`` or ``(n, m)``, what a head is to predict, in its own units; NaN where it is not known.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> len(Batch(torch.zeros(5, 3)))
    5
    """

    x: Tensor
    c: RawCondition | None = None
    index: Tensor | None = None
    y: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)
