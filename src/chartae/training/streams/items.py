"""Items that are asked for, or come, one by one, and make arrays together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from chartae.core.errors import DataError, one_line
from chartae.training.items import array_of
from chartae.training.streams.arrays import Streamed, kept, refuse_others

__all__: list[str] = []


def of_dataset(items: Any, memory: int) -> Streamed:
    n, name = len(items), type(items).__name__
    if not n:
        raise DataError(f"{name} is empty: give at least one item")
    first, _ = _split(items[0])
    told = _is_told(items[0])
    refuse_others(first, "item 0 (from 0)")

    def read(start: int, stop: int, out: np.ndarray) -> None:
        for i in range(start, stop):
            out[i - start] = _alike(_split(items[i])[0], first, i)

    def labels() -> np.ndarray | None:
        return _together([_split(items[i])[1] for i in range(n)]) if told else None

    return Streamed(read, (n, *first.shape), first.dtype, memory=memory, name=name, labels=labels)


def of_iterable(items: Iterable[Any], memory: int) -> Streamed:
    """Keep items that come once."""
    labels: list[np.ndarray | None] = []

    def blocks() -> Iterator[np.ndarray]:
        first = None
        for i, item in enumerate(items):
            x, label = _split(item)
            first = np.array(x) if first is None else first
            labels.extend([label] if _is_told(item) else [])
            yield _alike(x, first, i)[None]

    return kept(
        blocks(),
        memory=memory,
        name=type(items).__name__,
        labels=lambda: _together(labels),
    )


def _is_told(item: Any) -> bool:
    """Whether an item comes with a label, be it None, which is one that is not known."""
    return isinstance(item, tuple) and len(item) > 1


def _together(labels: list[np.ndarray | None]) -> np.ndarray | None:
    """One array of labels, None where one is not known; no array where none is."""
    if all(label is None for label in labels):
        return None
    if all(label is not None for label in labels):
        return np.array(labels)
    found = np.empty(len(labels), dtype=object)
    found[:] = [None if label is None else label.item() if label.ndim == 0 else label for label in labels]
    return found


def _split(item: Any) -> tuple[np.ndarray, Any]:
    """Tell an item from its label."""
    x, label = (*item, None)[:2] if isinstance(item, tuple) else (item, None)
    try:
        return array_of(x), None if label is None else array_of(label)
    except ValueError as e:
        raise DataError(f"an item does not make an array ({one_line(e)}): give arrays of numbers") from None


def _alike(x: np.ndarray, first: np.ndarray, i: int) -> np.ndarray:
    refuse_others(x, f"item {i} (from 0)")
    if x.shape != first.shape or x.dtype != first.dtype:
        raise DataError(
            f"item {i} (from 0) is {x.dtype} of shape {x.shape}, and item 0 is {first.dtype} of shape "
            f"{first.shape}: give all items one shape and type"
        )
    return x
