"""Tables in files and in memory."""

from __future__ import annotations

import contextlib
import csv
import difflib
import itertools
import mmap
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.core.columns import is_streamed_table
from chartae.core.errors import DataError, one_line
from chartae.training.labels import as_condition, missing, typed
from chartae.training.readers.dataset import Dataset, count, labels_of

__all__: list[str] = []

ENOUGH = 1000  # rows that the first line is compared with


def csv_table(path: Path, labels: Any) -> Dataset:
    import pandas as pd

    try:
        # Read apart and as it stands: among names, pandas renames the second of two equal numbers.
        head, stands = (
            pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=lost).iloc[0]
            for lost in (True, False)
        )
        headless = _is_row(head, pd.read_csv(path, nrows=ENOUGH), unnamed=stands.iloc[0] == "")
        frame = _with_codes(
            pd.read_csv(path, low_memory=False, header=None if headless else 0), path, headless
        )
        frame = _with_whole(frame, path, headless)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it as UTF-8") from None
    except ValueError as e:
        raise DataError(f"cannot read {path} ({one_line(e)}): write one row an item, with commas") from None
    if str(head.iloc[0]).lower().startswith("sep="):
        raise DataError(f"the first line of {path} is {head.iloc[0]!r}, which is Excel's own: delete it")
    first = frame.columns[0]
    if len(frame.columns) == 1 and any(mark in str(first) for mark in ";\t|"):
        raise DataError(f"{path} has one column, {str(first)!r:.40}: put commas between its columns")
    if any(";" in str(cell) for cell in head) and _parted(path, b";"):
        raise DataError(f"{path} has semicolons between its columns: put commas there, and points in numbers")
    if not np.array_equal(
        frame.index, np.arange(len(frame))
    ):  # pandas takes the surplus for row names, silently
        raise DataError(f"the rows of {path} have more values than its header has names: name every column")
    twice = head[head.duplicated() & head.notna()]
    if len(twice) and not headless:  # pandas renames it, silently
        raise DataError(f"column {twice.iloc[0]!r} is there twice in {path}: rename one of them")
    if frame.iloc[:, -1].isna().any():
        _refuse_short_lines(path, len(frame.columns))
    notes = ["no header, its first line is a row"] if headless else []
    if len(frame.columns) == 1 and (blank := _blank_lines(path)):
        notes.append(f"{count(blank, 'blank line')} left out")
    if str(first) == "Unnamed: 0" and _is_index(frame[first]):
        frame = frame.drop(columns=first)
        notes.append("without its index column")
    return table(_with_dates(frame, but=labels), labels, path.name, ", ".join(notes))


def _parted(path: Path, mark: bytes) -> bool:
    """Whether a mark comes equally often in each of the first lines."""
    with path.open("rb") as file:
        times = {line.count(mark) for line in itertools.islice(file, ENOUGH) if line.strip()}
    return len(times) == 1 and times != {0}


def _blank_lines(path: Path) -> int:
    """Count lines of nothing between others: of one column pandas takes them for none, and not for gaps."""
    with path.open("rb") as file:
        lines = [bool(line.strip()) for line in file]
    last = max((i for i, line in enumerate(lines) if line), default=0)
    return lines[:last].count(False)


def _with_codes(frame: Any, path: Path, headless: bool) -> Any:
    """Keep whole numbers that are written with zeros in front, as postal codes are, as texts."""
    import pandas as pd

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not re.search(rb"(^|[,\r\n\"])[ \t]*0\d", content):
            return frame
    numbers = [i for i, kind in enumerate(frame.dtypes) if kind.kind in "if"]
    texts = pd.read_csv(path, usecols=numbers, dtype=str, header=None if headless else 0)
    for i, name in zip(numbers, texts, strict=True):
        column = texts[name].str.strip()
        if column.str.fullmatch(r"0\d+").any() and column.dropna().str.fullmatch(r"\d+").all():
            frame.isetitem(i, column)
    return frame


def _with_whole(frame: Any, path: Path, headless: bool) -> Any:
    """Keep whole numbers that are written without a point so where values are missing, too.

    NumPy's whole numbers have no missing value, and pandas would make them floats.
    """
    import pandas as pd

    def gapped(column: Any) -> bool:
        there = column.dropna()
        return 0 < len(there) < len(column) and bool((there % 1 == 0).all())

    numbers = [i for i, kind in enumerate(frame.dtypes) if kind.kind == "f" and gapped(frame.iloc[:, i])]
    if not numbers:
        return frame
    texts = pd.read_csv(path, usecols=numbers, dtype=str, header=None if headless else 0)
    for i, name in zip(numbers, texts, strict=True):
        written = texts[name].str.strip()
        if written.dropna().str.fullmatch(r"[+-]?\d+").all():
            # From what is written: floats have lost the digits of large ones.
            whole = pd.to_numeric(written, dtype_backend="numpy_nullable")
            frame.isetitem(i, whole if whole.dtype.kind in "iu" else frame.iloc[:, i])
    return frame


#: A date with its year first, as ISO 8601 has it, and perhaps a time of day.
_ISO_DATE = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?"


def _with_dates(frame: Any, *, but: Any) -> Any:
    """Take columns of nothing but dates as such; other orders of day and month could mean two dates."""
    import pandas as pd

    for name in frame.columns:
        texts = frame[name].dropna()
        if (isinstance(but, str) and str(name) == but) or pd.api.types.infer_dtype(texts) != "string":
            continue
        if _are_dates(texts):
            with contextlib.suppress(ValueError):  # no such day, or several time zones: they stay texts
                frame[name] = pd.to_datetime(frame[name], format="ISO8601")
    return frame


def _refuse_short_lines(path: Path, width: int) -> None:
    """Tell lines that end early, which pandas fills up silently, from missing values between commas."""
    usual = csv.field_size_limit(2**31 - 1)  # texts may be long
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            for row in lines:
                if row and len(row) < width:
                    raise DataError(
                        f"line {lines.line_num} of {path} ends after {count(len(row), 'value')}, and there "
                        f"are {width} columns: complete it, with a comma before each missing value"
                    )
    finally:
        csv.field_size_limit(usual)


def parquet(path: Path, labels: Any, memory: Any) -> Dataset:
    from chartae.training.streams import StreamedTable

    X = StreamedTable(path, memory)
    return table(X.whole(), labels, path.name) if X.fits else streamed(X, labels)


def streamed(X: Any, labels: Any) -> Dataset:
    """Labels are read whole; a column of them is no feature."""
    note = "read in blocks"
    if not is_streamed_table(X):
        labels = X.labels if labels is None else labels
    elif _names_column(labels, X.columns):
        column = X.select([labels]).whole()[labels]
        X = X.select([c for c in X.columns if c != labels])
        labels, note = _label_column(column), f"{note}, labels {labels}"
    y = None if labels is None else labels_of(labels, len(X), X.name)
    return Dataset(X, y, X.columns, X.name, note)


def _is_row(line: Any, rest: Any, *, unnamed: bool) -> bool:
    """Tell whether the first line of a file is a row of data; names may be numbers, too, as years are.

    Its first cell may be empty, above the numbers of rows, which then have no name.

    A text above numbers or dates is a name. Of others one that comes again below, or is a date among dates,
    is a value; and one that is alone is a name where values mostly come again. Where texts do not tell,
    numbers are values if they are as large as those below, fractional, and do not rise from left to right.
    Where there are no texts, numbers that rise or fall are names if most are not as large as those below.
    """
    columns = [rest.iloc[:, i] for i in range(min(len(line), rest.shape[1]))]
    if unnamed and columns and _is_index(columns[0]):
        return False
    cells = [(cell, column) for cell, column in zip(line, columns, strict=False) if isinstance(cell, str)]
    numbers = [(float(cell), column) for cell, column in cells if _is_number(cell)]
    texts = [(cell, column.dropna()) for cell, column in cells if not _is_number(cell)]
    if not cells or any(column.dtype.kind in "iuf" for _, column in texts):
        return False
    like = [_is_like(number, column) for number, column in numbers]
    steps = np.diff([number for number, _ in numbers])
    if not texts:
        if [cell for cell, _ in cells] == [str(i) for i in range(len(cells))]:  # as pandas writes them
            return False
        in_order = len(cells) > 2 and (all(steps > 0) or all(steps < 0))
        return sum(like) > len(like) / 2 or not in_order or len(rest) < 2
    dates = [re.fullmatch(_ISO_DATE, cell) for cell, column in texts if _are_dates(column)]
    if dates:
        return all(dates)
    again = [cell in set(column.astype(str)) for cell, column in texts]
    if not numbers:
        return all(again)  # one alone may well be a name
    if any(again):
        return True
    if any(column.duplicated(keep=False).mean() > 0.5 for _, column in texts):
        return False
    rising = len(steps) > 0 and all(steps > 0)
    return all(like) and any(number % 1 for number, _ in numbers) and not rising


def _are_dates(column: Any) -> bool:
    """Tell a column of dates, as texts, from others."""
    return bool(len(column)) and bool(column.astype(str).str.fullmatch(_ISO_DATE).all())


def _is_number(cell: str) -> bool:
    try:
        return np.isfinite(float(cell))
    except ValueError:
        return False


def _is_like(number: float, column: Any) -> bool:
    """Tell whether a number is about as large as those of a column."""
    if column.dtype.kind not in "iuf" or column.isna().all():
        return False
    least, most = float(column.min()), float(column.max())
    return 2 * least - most <= number <= 2 * most - least


def _is_index(column: Any) -> bool:
    """Tell whether a column without a name numbers the rows, or those that were left of them."""
    return column.dtype.kind in "iu" and bool(column.is_unique)


def table(frame: Any, labels: Any, name: str, note: str = "") -> Dataset:
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    if not len(frame):
        raise DataError(f"{name} is empty, it has no rows: pass at least one")
    twice = [c for c, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} is there twice in {name}: rename one of them")
    if _names_column(labels, names):
        note = f"{note}, labels {labels}".lstrip(", ")
        column = frame.pop(labels) if labels in frame else None
        labels = _label_column(column)
    if not len(frame.columns):
        raise DataError(f"{name} is empty, it has no columns but the labels: pass one feature at least")
    y = None if labels is None else labels_of(labels, len(frame), name)
    return Dataset(frame, y, tuple(frame.columns), name, note)


def _names_column(labels: Any, names: Sequence[str]) -> bool:
    """Tell the name of a column from what else labels may be; it must be there."""
    if not isinstance(labels, str) or (labels.endswith(".npy") and labels not in names):
        return False
    if labels not in names:
        near = difflib.get_close_matches(labels, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its columns are {_some(names)}"
        raise DataError(f"the table has no column {labels!r}: {hint}")
    return True


def _label_column(column: Any) -> NDArray[Any]:
    """Labels, None where a cell is empty, or numbers to condition on, NaN there."""
    import pandas as pd

    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) == "decimal":
        column = column.astype(float)
    array = as_condition(column)
    none = missing(array)
    if array.dtype.kind == "f" and none.any() and not (array[~none] % 1).any():
        # Whole numbers are floats only for their gaps.
        array = array.astype(object)
        array[none], array[~none] = None, [int(value) for value in array[~none]]
    if array.dtype == object and typed(array[~none]).dtype == object:
        array[~none] = array[~none].astype(str)
    return array


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
