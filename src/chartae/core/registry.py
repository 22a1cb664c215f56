"""Named tables in place of branches on names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from chartae.core.errors import PlanError

__all__ = ["Registry", "suggest"]

T = TypeVar("T")


def suggest(name: object, known: object) -> str:
    """Say what is known, and what may have been meant.

    Parameters
    ----------
    name : object
        What was asked for.
    known : iterable of str
        What there is.

    Returns
    -------
    str
        ``"did you mean 'x'? (known: x, y)"``.

    Examples
    --------
    >>> from chartae.core.registry import suggest
    >>> suggest("vea", ["vae", "iwae"])
    "did you mean 'vae'? (known: vae, iwae)"
    """
    names = [str(k) for k in known]  # type: ignore[attr-defined]
    close = difflib.get_close_matches(str(name), names, n=1)
    listed = ", ".join(names)
    return f"did you mean {close[0]!r}? (known: {listed})" if close else f"known: {listed}"


class Registry(Generic[T]):
    """A table from name to thing that answers an unknown name with what is known.

    Parameters
    ----------
    kind : str
        What the table holds, for messages.

    Examples
    --------
    >>> from chartae.core.registry import Registry
    >>> colors = Registry("color")
    >>> @colors.register("red")
    ... def red():
    ...     return 0xFF0000
    >>> colors["red"]() == 0xFF0000, list(colors)
    (True, ['red'])
    >>> colors["rod"]
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: unknown color 'rod': did you mean 'red'? (known: red)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under ``name``.

        Parameters
        ----------
        name : str
            The name; it must be free, or of an earlier definition of the same function or class, as when a
            cell of a notebook runs again.

        Returns
        -------
        callable
            The decorator.

        Raises
        ------
        PlanError
            If the name is taken.
        """

        def put(item: T) -> T:
            if name in self._items and _home(self._items[name]) != _home(item):
                raise PlanError(f"there is a {self.kind} {name!r} already: choose another name")
            self._items[name] = item
            return item

        return put

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except (KeyError, TypeError):
            raise PlanError(f"unknown {self.kind} {name!r}: {suggest(name, self._items)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)


def _home(item: Any) -> Any:
    """Where an item was defined; of what does not say so, itself."""
    made = getattr(item, "make", getattr(item, "measure", item))
    place = getattr(made, "__module__", None), getattr(made, "__qualname__", None)
    return place if None not in place else id(item)
