"""The columns of a table: what each holds, and the way between a data frame and an array of numbers."""

from chartae.core.columns.frames import as_pandas, is_frame, is_streamed_table, without
from chartae.core.columns.kinds import DROP, KINDS, Column, leave_out
from chartae.core.columns.schema import Schema

__all__ = [
    "DROP",
    "KINDS",
    "Column",
    "Schema",
    "as_pandas",
    "is_frame",
    "is_streamed_table",
    "leave_out",
    "without",
]
