"""Tables of pandas and polars, and those that are read block by block."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from chartae.core.columns.kinds import DROP

__all__ = ["as_pandas", "is_frame", "is_streamed_table", "without"]


def is_frame(X: Any) -> bool:
    """Tell a table of pandas or polars from everything else.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it is one.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import is_frame
    >>> is_frame(pd.DataFrame({"a": [1]})), is_frame([[1]])
    (True, False)
    """
    # Only a caller who has imported a library can hold one of its frames.
    return any(
        (module := sys.modules.get(name)) is not None and isinstance(X, module.DataFrame)
        for name in ("pandas", "polars")
    )


def is_streamed_table(X: Any) -> bool:
    """Tell a table that is read block by block, and never whole.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it gives its blocks one after the other.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import is_streamed_table
    >>> is_streamed_table(pd.DataFrame({"a": [1]}))
    False
    """
    return hasattr(X, "frames")


def as_pandas(frame: Any) -> Any:
    """Give a table as one of pandas.

    Parameters
    ----------
    frame : DataFrame
        Of pandas, which comes back itself, or of polars.

    Returns
    -------
    DataFrame
        Of pandas; text and categories as objects.

    Examples
    --------
    >>> import polars as pl
    >>> from chartae.core.columns import as_pandas
    >>> as_pandas(pl.DataFrame({"a": [1, 2]})).shape
    (2, 1)
    """
    if not type(frame).__module__.startswith("polars"):
        return frame
    import pandas as pd

    def series(column: Any) -> Any:
        kind = str(column.dtype)
        if kind.startswith("Date"):
            return pd.to_datetime(pd.Series(column.to_list(), name=column.name))
        if kind.startswith("Enum"):
            levels = column.dtype.categories.to_list()
            return pd.Series(pd.Categorical(column.to_list(), levels, ordered=True), name=column.name)
        if kind.startswith(("Cat", "Str", "Utf8", "Bool")):
            return pd.Series(column.to_list(), name=column.name, dtype=object)
        return pd.Series(column.to_numpy(), name=column.name)

    return pd.DataFrame({column.name: series(column) for column in frame.get_columns()})


def without(frame: Any, kinds: Mapping[str, str] | None) -> Any:
    """Leave columns out of a table.

    Parameters
    ----------
    frame : DataFrame or StreamedTable
        ``(n, columns)``.
    kinds : Mapping of str to str or None
        What the user says that columns are; those that are "drop" go, where the table has them.

    Returns
    -------
    DataFrame or StreamedTable
        The others, in their order.

    Examples
    --------
    >>> import pandas as pd
    >>> from chartae.core.columns import without
    >>> list(without(pd.DataFrame({"id": [1], "size": [2]}), {"id": "drop"}))
    ['size']
    """
    kept = [name for name in frame.columns if (kinds or {}).get(str(name)) != DROP]
    if len(kept) == len(frame.columns):
        return frame
    return frame.select(kept) if is_streamed_table(frame) else frame[kept]
