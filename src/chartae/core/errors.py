"""Errors that a user can act on: one line that says what is wrong and what to do about it."""

from __future__ import annotations

__all__ = [
    "ChartaeError",
    "DataError",
    "PackageError",
    "PlanError",
    "RunFolderError",
    "TrainingError",
    "enumerated",
    "one_line",
]


class ChartaeError(ValueError):
    """Base of every error that chartae raises on purpose.

    It is a ``ValueError``, as scikit-learn expects of bad input, and its message is one line.

    Examples
    --------
    >>> from chartae.core.errors import ChartaeError, DataError
    >>> issubclass(DataError, ChartaeError) and issubclass(ChartaeError, ValueError)
    True
    """


class DataError(ChartaeError):
    """The data cannot be used as they are.

    Examples
    --------
    >>> from chartae.core.errors import DataError
    >>> str(DataError("column 'age' holds text: drop it, or pass it as labels"))
    "column 'age' holds text: drop it, or pass it as labels"
    """


class PlanError(ChartaeError):
    """The parts of a model, or its parameters, do not fit together.

    Examples
    --------
    >>> from chartae.core.errors import PlanError
    >>> raise PlanError("KL needs a density, and a Delta posterior has none: use a Normal posterior")
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: KL needs a density, and a Delta posterior has none: use a Normal posterior
    """


class PackageError(ChartaeError):
    """A package that one feature needs is not installed.

    Examples
    --------
    >>> from chartae.core.errors import ChartaeError, PackageError
    >>> issubclass(PackageError, ChartaeError)
    True
    """


class RunFolderError(ChartaeError):
    """A run folder is missing, incomplete, or not one of ours.

    Examples
    --------
    >>> import chartae as ct
    >>> ct.load("no/such/run")
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: no/such/run is not a run folder: config.json is missing
    """


class TrainingError(ChartaeError, RuntimeError):
    """Training could not go on.

    Examples
    --------
    >>> from chartae.core.errors import TrainingError
    >>> issubclass(TrainingError, RuntimeError)
    True
    """


def enumerated(names: list[str]) -> str:
    """Put names into a sentence: up to five of them, or four and how many there are besides.

    Parameters
    ----------
    names : list of str
        One or more.

    Returns
    -------
    str
        With commas, and an "and" before the last.

    Examples
    --------
    >>> from chartae.core.errors import enumerated
    >>> enumerated(["a"]), enumerated(["a", "b", "c"]), enumerated(list("abcdefg"))
    ('a', 'a, b and c', 'a, b, c, d and 3 others')
    """
    names = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def one_line(error: object, most: int = 120) -> str:
    r"""Put what others say of an error into one line.

    Parameters
    ----------
    error : object
        Theirs.
    most : int
        Letters.

    Returns
    -------
    str
        Its beginning; the name of its type if it says nothing.

    Examples
    --------
    >>> from chartae.core.errors import one_line
    >>> one_line(ValueError("too\n  long"))
    'too long'
    """
    return " ".join(str(error).split())[:most] or type(error).__name__
