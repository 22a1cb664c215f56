"""Ctrl-C as a wish: it is noted at once and fulfilled where training can be left in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interrupts", "interruptible"]


class Interrupts:
    """Whether someone wishes that training stops.

    Attributes
    ----------
    signal : int or None
        The first signal that came, if any.

    Examples
    --------
    >>> from chartae.core.interrupts import Interrupts
    >>> Interrupts().signal is None
    True
    """

    signal: int | None = None

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal; the second one stops at once.

        Parameters
        ----------
        number : int
            Of the signal.
        frame : FrameType, optional
            Where it came.

        Raises
        ------
        KeyboardInterrupt
            If it is the second one.
        """
        if self.signal is not None:
            self.leave("stopped at once")
        self.signal = number

    def leave(self, why: str) -> None:
        """Leave, if there was a signal, as a program that takes no signals would have done at once.

        Parameters
        ----------
        why : str
            What is said of it.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C.
        SystemExit
            After a signal that asks a program to end; its code is 128 and the signal's number.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(why)
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


@contextlib.contextmanager
def interruptible(*, terminate: bool) -> Iterator[Interrupts]:
    """Take Ctrl-C as a wish for as long as the block runs; a signal that the program ignores stays ignored.

    Only the main thread hears signals; elsewhere nothing is changed.

    Parameters
    ----------
    terminate : bool
        Take SIGTERM, which batch systems send before they kill, as one too.

    Yields
    ------
    Interrupts
        What was heard.

    Examples
    --------
    >>> import signal
    >>> from chartae.core.interrupts import interruptible
    >>> with interruptible(terminate=False) as wish:
    ...     signal.raise_signal(signal.SIGINT)
    >>> wish.signal == signal.SIGINT
    True
    """
    wish = Interrupts()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *[signal.SIGTERM] * terminate):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, wish.hear)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
