"""The way between the values of a column and numbers."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from chartae.core.columns.kinds import Column
from chartae.core.errors import DataError

__all__: list[str] = []

EXACT = 2**53  # whole numbers up to which float64 holds each
FIRST, LAST = -62_135_510_400.0, 253_402_214_400.0  # seconds of the years 1 to 9999, but for a day each


def numbers_of(column: Column, values: Any) -> np.ndarray:
    """``(n,)`` numbers, NaN where a value is missing."""
    import pandas as pd

    gaps = values.isna().to_numpy()
    if column.categories is not None:
        kinds = (pd.api.types.is_datetime64_any_dtype, pd.api.types.is_numeric_dtype)  # truths are numbers
        if isinstance(column.categories[0], str) and any(kind(values.dtype) for kind in kinds):
            values = values.astype(str)  # texts that all look like dates, numbers or truths, in this table
        known = pd.Index(column.categories)
        if isinstance(values.dtype, pd.CategoricalDtype):  # each category looked up once
            codes = np.append(known.get_indexer(values.dtype.categories.astype(object)), -1)[values.cat.codes]
        else:
            codes = known.get_indexer(values.astype(object))
        unknown = (codes < 0) & ~gaps
        if unknown.any():
            listed = ", ".join(map(repr, column.categories[:20])) + ", ..." * (len(column.categories) > 20)
            value = values.iloc[int(unknown.argmax())]
            value = value.item() if isinstance(value, np.generic) else value
            raise DataError(f"column {column.name!r} holds {value!r}, which is not known: it knows {listed}")
        return np.where(gaps, np.nan, codes.astype(np.float64))
    if column.clock:
        plain = pd.api.types.is_numeric_dtype(values.dtype)  # which pandas would take for nanoseconds
        given = values.where(gaps) if plain else values
        stamps = pd.to_datetime(given.astype(object), utc=True, format="ISO8601", errors="coerce")
        undated = ~gaps & stamps.isna().to_numpy()
        if undated.any():
            row = int(undated.argmax())
            raise DataError(
                f"column {column.name!r} holds {values.to_list()[row]!r} in row {row} (from 0), which is no "
                "date: write it as in 2024-12-31, or leave it empty"
            )
        stamps = stamps.astype("datetime64[us, UTC]")
        return np.where(gaps, np.nan, stamps.astype("int64").to_numpy() / 1e6)
    numbers = written(column, values)
    wrong = np.isinf(numbers)
    if column.kind == "count":
        wrong |= (numbers < 0) | (numbers != np.round(numbers)) & ~gaps
    if column.logged:
        wrong |= numbers <= 0
    if wrong.any():
        row = int(wrong.argmax())
        needed = {"count": "whole numbers from 0 up", "positive": "positive numbers"}.get(column.kind)
        other = f" (or columns={{{column.name!r}: 'continuous'}} in the fit)" if needed else ""
        raise DataError(
            f"column {column.name!r} holds {numbers[row]:g} in row {row} (from 0), and "
            f"{needed or 'finite numbers'} are needed{other}: correct it, or leave it empty"
        )
    return np.log(numbers.astype(np.float64)) if column.logged else numbers


def written(column: Column, values: Any) -> np.ndarray:
    """Give the values of a column of numbers as ``(n,)`` numbers, NaN where one is missing."""
    import pandas as pd

    gaps = values.isna().to_numpy()
    try:
        plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iuf"
        decimals = str(values.dtype).startswith("decimal")  # of Arrow, whose gaps to_numeric stumbles over
        numbers = values if plain else values.astype("float64") if decimals else pd.to_numeric(values)
        plain = isinstance(numbers.dtype, np.dtype)
        numbers = numbers.to_numpy() if plain else numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        bad = pd.to_numeric(values, errors="coerce").isna().to_numpy() & ~gaps
        row = int(bad.argmax())
        shown = f"{str(values.iloc[row])!r:.40}"
        raise DataError(
            f"column {column.name!r} holds {shown} in row {row} (from 0), and numbers are needed: correct it"
        ) from None
    return numbers


def given(column: Column, values: Any) -> np.ndarray:
    """Give ``(n,)`` numbers for :func:`values_of` to keep, NaN where one is missing."""
    return written(column, values) if column.logged else numbers_of(column, values)


def values_of(column: Column, numbers: np.ndarray, library: str, kept: np.ndarray | None = None) -> Any:
    """Give ``(n,)`` numbers as a series of a column's type; where :func:`given` ones are kept, these."""
    import pandas as pd

    gaps = ~np.isfinite(numbers)
    if column.logged:
        limits = np.finfo(small[0] if (small := re.match(r"float(16|32)", column.dtype.lower())) else float)
        numbers = np.exp(np.clip(numbers.astype(np.float64), math.log(limits.tiny), math.log(limits.max)))
    if column.kind == "count":  # what was drawn is whole up to rounding, what is expected need not be
        near = np.abs(numbers - np.round(numbers)) < 1e-5 * np.maximum(1.0, np.abs(numbers))
        numbers = np.where(near, np.round(numbers), numbers)
    if column.categories is not None:
        codes = np.clip(np.round(np.where(gaps, 0, numbers)), 0, len(column.categories) - 1).astype(np.int64)
        picked = pd.Series([column.categories[code] for code in codes], dtype=object)
        picked[gaps] = None
        if library == "polars":
            return picked
        if column.dtype == "category":
            return pd.Series(pd.Categorical(picked, list(column.categories), ordered=column.ordered))
        return _typed(picked, column.dtype, gaps)
    if column.clock:
        unit, zone = column.clock
        most = 2**63 / 1e9 - 172_800.0 if unit == "ns" else LAST  # two days: of rounding, and of zones
        if column.grain is not None:
            numbers = np.round(numbers / column.grain) * column.grain
        numbers = numbers if kept is None else np.where(np.isnan(kept), numbers, kept)
        seconds = np.clip(np.where(gaps, 0.0, numbers), max(FIRST, -most), most)
        stamps = pd.Series(np.round(seconds * 1e6).astype(np.int64).astype("datetime64[us]")).mask(gaps)
        stamps = stamps.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else stamps
        if column.days:  # by the local clock: where it is changed, a day has more or less than 24 hours
            days = (stamps.dt.tz_localize(None) + pd.Timedelta(hours=12)).dt.normalize()
            days = days.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward") if zone else days
            stamps = days if kept is None else days.where(np.isnan(kept), stamps)
        asked: Any = column.dtype
        if asked == "date":
            return stamps.dt.date.where(~gaps, None)
        return stamps if library == "polars" else stamps.astype(asked)
    if column.digits is not None and column.kind != "count":  # of which an expected one need not be whole
        least = 10.0**-column.digits if column.logged else -np.inf
        numbers = np.maximum(rounded(numbers.astype(np.float64), column.digits), least)
    numbers = numbers if kept is None else np.where(np.isnan(kept), numbers, kept)
    if whole := _whole(column.dtype):
        # The range in float64, whose nearest to the largest of 64 bits is one more than that.
        least = 1.0 if column.logged else float(whole.min)
        low, high = least, np.nextafter(float(whole.max), 0) if whole.bits == 64 else whole.max
        numbers = np.clip(np.round(numbers.astype(np.float64)), low, high)
    if small := re.match(r"float(16|32)", column.dtype.lower()):
        most = float(np.finfo(small[0]).max)
        numbers = np.clip(numbers, -most, most)
    return pd.Series(numbers) if library == "polars" else _typed(pd.Series(numbers), column.dtype, gaps)


def rounded(numbers: np.ndarray, digits: int) -> np.ndarray:
    """Round to digits after the point; numbers beyond 2^53 have none."""
    near = np.round(np.clip(numbers, -EXACT, EXACT), digits) + 0.0  # and no -0.0
    return np.where(np.abs(numbers) < EXACT, near, numbers)


def _whole(dtype: str) -> np.iinfo[Any] | None:
    """Range of a type of whole numbers, of whichever library; None for other types."""
    found = re.match(r"u?int\d+", dtype.lower())
    return np.iinfo(found[0]) if found else None


def _typed(values: Any, dtype: Any, gaps: np.ndarray) -> Any:
    whole = _whole(dtype) is not None
    if whole:
        values = values.astype(np.float64)
    if gaps.any() and (whole or dtype == "bool") and dtype[0].islower():
        return values  # NumPy's types have no missing value
    return values.astype(dtype)


def polars_series(column: Column, values: Any) -> Any:
    """Give values, as :func:`values_of` gives them for polars, as a series of it."""
    import polars as pl

    kind = column.dtype.partition("(")[0]
    items = values.astype(object).where(values.notna(), None).tolist()
    if kind.startswith(("Int", "UInt")):
        return pl.Series(
            column.name, [None if v is None else round(v) for v in items], dtype=getattr(pl, kind)
        )
    if kind == "Enum":
        return pl.Series(column.name, items, dtype=pl.Enum(list(column.categories or ())))
    if column.clock:
        if (unit_zone := column.clock)[1]:
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        items = values.astype(object).where(values.notna(), None).tolist()
        stamps = pl.Series(column.name, items, dtype=pl.Datetime("us"))
        if kind == "Date":
            return stamps.cast(pl.Date)
        unit, zone = unit_zone
        stamps = stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(zone) if zone else stamps
        return stamps.cast(pl.Datetime(unit, zone))  # type: ignore[arg-type]
    return pl.Series(column.name, items, dtype=getattr(pl, kind, None), strict=False)
