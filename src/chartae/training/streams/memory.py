"""How much memory data may take."""

from __future__ import annotations

import os
import re
from pathlib import Path

from chartae.core.errors import DataError

__all__ = ["available_memory", "parse_bytes"]

UNITS = {"": 1, "b": 1} | {
    prefix + end: base**power
    for power, prefix in enumerate("kmgt", 1)
    for end, base in (("", 1024), ("b", 1000), ("ib", 1024))
}
# Shares of the memory. Two windows are there at a time, one in use and one on its way, beside the rows that
# are held for validation.
WINDOW, HELD, BLOCK = 1 / 6, 1 / 8, 1 / 128
TABLE, FRAME = 1 / 4, 1 / 32  # a table is there as it was stored, as pandas has it, and as numbers
TEXT = 64  # bytes that a text takes in a table, at least


def available_memory() -> int:
    """Look up how much memory other programs, and this one, leave free.

    Returns
    -------
    int
        Bytes; 4 GiB where the system does not say.

    Examples
    --------
    >>> from chartae.training.streams import available_memory
    >>> available_memory() > 0
    True
    """
    try:
        free = 1024 * int(re.findall(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    except (OSError, IndexError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            free = 4 << 30
    try:  # what a container may take, which the system's own numbers do not show
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return free


def parse_bytes(memory: str | int | None = None) -> int:
    """Read an amount of memory.

    Parameters
    ----------
    memory : str, int or None
        As in "200MB" (of 1000² bytes) and "1.5 GiB" (of 1024³), or bytes; None: the power of two up
        to half of what is available.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    DataError
        If it cannot be read, or is nothing.

    Examples
    --------
    >>> from chartae.training.streams import parse_bytes
    >>> parse_bytes("200MB"), parse_bytes("1.5 GiB"), parse_bytes(4096)
    (200000000, 1610612736, 4096)
    """
    if memory is None:
        # A power of two: what is free changes a little from one moment to the next, and the order of rows is
        # not to change with it.
        return 1 << (available_memory() // 2).bit_length() - 1
    found = re.fullmatch(r"\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*", str(memory).lower())
    try:
        size = int(float(found[1]) * UNITS[found[2]]) if found else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise DataError(
            f"memory={memory!r} is no amount of memory: write bytes, or as in '200MB' and '1.5GiB'"
        )
    return size
