"""What a person sees while a model is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from chartae.training.engine import Epoch

__all__ = ["describe", "show_progress"]

SHOWN = ("loss", "val_loss", "rows_per_second")  # beside a bar


def describe(log: dict[str, Any]) -> str:
    """Put an epoch's numbers into one line.

    Parameters
    ----------
    log : dict
        Of an :class:`~chartae.training.engine.Epoch`.

    Returns
    -------
    str
        Loss, terms and speed.

    Examples
    --------
    >>> from chartae.estimators.progress import describe
    >>> describe(
    ...     {"epoch": 1, "loss": 3.5, "nll": 3.0, "kl": 0.5, "val_loss": 3.7, "rows_per_second": 10000.0}
    ... )
    'loss 3.500 · nll 3.000 · kl 0.500 · val_loss 3.700 · 10,000 rows/s'
    """
    skip = {"epoch", "seconds", "rows_per_second", "learning_rate", "grad_norm"}
    shown = [
        f"{name} {value:.3f}"
        for name, value in log.items()
        if name not in skip
        and isinstance(value, float)
        and (not name.startswith("val_") or name == "val_loss")
    ]
    return " · ".join([*shown, f"{log['rows_per_second']:,.0f} rows/s"])


def show_progress(epochs: Iterable[Epoch], total: int, verbose: int) -> Iterator[Epoch]:
    """Pass epochs on and show those that are complete: a bar in a terminal, lines elsewhere, nothing at 0.

    Parameters
    ----------
    epochs : iterable of Epoch
        From :func:`~chartae.training.engine.train`.
    total : int
        How many there can be.
    verbose : int
        0 is silent.

    Yields
    ------
    Epoch
        The same.

    Examples
    --------
    >>> from chartae.estimators.progress import show_progress
    >>> list(show_progress([], 3, verbose=0))
    []
    """
    if not verbose:
        yield from epochs
        return
    if not sys.stderr.isatty():
        for epoch in epochs:
            if epoch.complete:
                print(
                    f"epoch {epoch.number}/{total}  {describe(dict(epoch.log))}", file=sys.stderr, flush=True
                )
            yield epoch
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("epoch {task.completed}/{task.total}"), BarColumn(20), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[line]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("fit", total=total, line="")
        for epoch in epochs:
            if epoch.complete:
                # As much as a narrow terminal has room for.
                some = {name: epoch.log[name] for name in SHOWN if name in epoch.log}
                bar.update(task, completed=epoch.number, line=describe(some))
            yield epoch
