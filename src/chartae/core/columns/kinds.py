"""Kinds of columns, and what is known of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from chartae.core.errors import DataError

__all__ = ["KINDS", "Column", "leave_out"]

#: Kinds of columns, and the likelihood that suits each.
KINDS: dict[str, str] = {
    "continuous": "normal-mixture",
    "positive": "normal-mixture",  # of logarithms
    "binary": "bernoulli",
    "categorical": "categorical",
    "count": "negative-binomial",
}
#: What kind of column a likelihood makes; any other one makes it continuous.
KIND_OF = {KINDS[kind]: kind for kind in ("continuous", "binary", "categorical", "count")} | {
    "poisson": "count"
}
DROP = "drop"  # said of a column that no model is to see


def kind_of(asked: str) -> str:
    return asked if asked in KINDS else KIND_OF.get(asked, "continuous")


def leave_out(*names: str) -> str:
    """Say how columns are left out of a fit.

    Parameters
    ----------
    *names : str
        Of the columns.

    Returns
    -------
    str
        The parameter of an estimator, as it is written.

    Examples
    --------
    >>> from chartae.core.columns import leave_out
    >>> leave_out("id")
    "columns={'id': 'drop'}"
    """
    return f"columns={dict.fromkeys(names, DROP)}"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
        Its name.
    kind : str
        One of :data:`KINDS`.
    likelihood : str
        p(x | z) of its values.
    dtype : str
        Its type in the user's table.
    categories : tuple or None
        Of a binary or a categorical column: what the numbers 0, 1, ... stand for.
    ordered : bool
        Whether the table says that its categories have an order.
    missing : float
        Share of values that are missing.
    constant : bool
        Whether all values that are there are the same.
    names_rows : bool
        Whether values number the rows, or are as many texts as there are rows, so that they tell nothing.
    days : bool
        Whether all values are dates without a time of day, so that what is decoded is rounded to such dates.
    digits : int or None
        Of numbers that are no counts: digits after the point that are enough to write each of them, to which
        what is decoded is rounded; None if they have more than six.
    grain : int or None
        Of dates: 3600, 60 or 1 seconds, of which all are multiples, and what is decoded is; None if none is.
    spelled : str or None
        Of texts that spell numbers or dates: one of them.

    Examples
    --------
    >>> from chartae.core.columns import Column
    >>> Column("color", "categorical", "categorical", "str", ("blue", "red")).levels
    2
    """

    name: str
    kind: str
    likelihood: str
    dtype: str
    categories: tuple[Any, ...] | None = None
    ordered: bool = False
    missing: float = 0.0
    constant: bool = False
    names_rows: bool = False
    days: bool = False
    digits: int | None = None
    grain: int | None = None
    spelled: str | None = None

    @property
    def levels(self) -> int | None:
        """How many categories there are; None for numbers."""
        return None if self.categories is None else len(self.categories)

    @property
    def logged(self) -> bool:
        """Whether its numbers are logarithms of its values."""
        return self.kind == "positive"

    @property
    def clock(self) -> tuple[str, str | None] | None:
        """Unit and time zone of a column of dates; None for other columns."""
        if not self.dtype.lower().startswith(("date", "timestamp")):
            return None
        unit = re.search(r"[\['](ns|us|ms|s)\b", self.dtype)
        zone = re.search(r"(?:time_zone='|tz=|, )([\w/+:-]+)['\]]", self.dtype.replace("time_unit", ""))
        return unit[1] if unit else "us", zone[1] if zone else None

    def check_type(self) -> None:
        """Refuse a type of pandas that cannot be made again by its name.

        Raises
        ------
        DataError
            If it is one.
        """
        import pandas as pd

        if (self.clock is None or self.dtype.startswith("datetime64[")) and self.dtype != "category":
            if self.dtype.startswith("Sparse["):
                raise DataError(
                    f"column {self.name!r} is sparse, and chartae reads dense ones: pass "
                    f"X[{self.name!r}].sparse.to_dense() in its place"
                )
            try:
                pd.api.types.pandas_dtype(self.dtype)
            except TypeError:
                raise DataError(
                    f"column {self.name!r} has the type {self.dtype}, which pandas cannot make again by its "
                    "name: convert it, as by "
                    + (".dt.tz_convert('UTC')" if self.clock else ".astype('category') or .astype(str)")
                ) from None
