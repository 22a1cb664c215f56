"""Whole numbers that say how many."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from chartae.core.errors import PlanError

__all__ = ["count", "is_count"]


def is_count(value: Any, least: int = 1) -> bool:
    """Tell a whole number that says how many from all else, truth values among it.

    Parameters
    ----------
    value : object
        Anything.
    least : int
        The smallest that will do.

    Returns
    -------
    bool
        Whether it is one.

    Examples
    --------
    >>> from chartae.core.counts import is_count
    >>> is_count(3), is_count(0), is_count(0, 0), is_count(2.0), is_count(True)
    (True, False, True, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def count(value: Any, name: str) -> int:
    """Check that a number says how many.

    Parameters
    ----------
    value : int
        From 1.
    name : str
        What it is called, for the message.

    Returns
    -------
    int
        The same.

    Raises
    ------
    PlanError
        If it is anything else.

    Examples
    --------
    >>> from chartae.core.counts import count
    >>> count(3, "n_samples")
    3
    """
    if not is_count(value):
        raise PlanError(f"{name}={value!r}: give a positive whole number")
    return int(value)
