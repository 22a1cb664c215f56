"""Arrays as they lie in memory or stream into it: viewed by torch, and read in blocks."""

from __future__ import annotations

import functools
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["AllBut", "as_tensor", "blocks", "checksum", "constant", "ends", "is_streamed", "whole"]

BLOCK = 1 << 22  # values looked at in one go: bounded memory on arrays of any length


def as_tensor(X: np.ndarray) -> Tensor:
    """View an array as a tensor, without a copy where torch knows its type.

    Parameters
    ----------
    X : ndarray
        ``(n, ...)``, any type of number; a memory map stays one.

    Returns
    -------
    Tensor
        Of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import as_tensor
    >>> as_tensor(np.zeros((2, 3), dtype=np.uint16)).dtype
    torch.int32
    """
    wider = {
        "uint16": np.int32,
        "uint32": np.int64,
        "uint64": np.float64,
        "float128": np.float64,
        "longdouble": np.float64,
    }
    X = X.astype(wider[X.dtype.name]) if X.dtype.name in wider else X
    X = X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))
    X = X if all(s >= 0 for s in X.strides) else np.ascontiguousarray(X)
    with warnings.catch_warnings():
        # A read-only array is only read here.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.asarray(X))


def constant(values: Sequence[float] | np.ndarray, like: Tensor) -> Tensor:
    """Bring numbers that never change to where a tensor is, once: a GPU need not be waited for each time.

    Parameters
    ----------
    values : sequence of float or ndarray
        ``(n,)``.
    like : Tensor
        Of any shape; gives device and dtype.

    Returns
    -------
    Tensor
        ``(n,)``, shared by all who ask for the same: it is not to be changed.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.arrays import constant
    >>> constant([1, 2], torch.zeros(()))
    tensor([1., 2.])
    """
    return _constant(np.asarray(values, dtype=np.float64).tobytes(), like.dtype, like.device)


@functools.cache  # for good: recorded graphs read them where they lie
def _constant(values: bytes, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # what is made in it can have no part in a gradient
        return torch.tensor(np.frombuffer(values), dtype=dtype, device=device)


class AllBut:
    """All row numbers but a few, in increasing order: only the few take memory.

    Parameters
    ----------
    n : int
        How many there are with the few.
    few : array_like
        ``(m,)`` row numbers, in increasing order, each once.

    Examples
    --------
    >>> from chartae.core.arrays import AllBut
    >>> rows = AllBut(6, [1, 4])
    >>> len(rows), rows.within(1, 6).tolist(), rows[[0, 3]].tolist()
    (4, [2, 3, 5], [0, 5])
    """

    def __init__(self, n: int, few: Any = ()) -> None:
        self.n, self.few = n, np.asarray(few, dtype=np.int64)

    def __len__(self) -> int:
        return self.n - len(self.few)

    def within(self, start: int, stop: int) -> np.ndarray:
        """List those in a range.

        Parameters
        ----------
        start, stop : int
            From and up to which row number.

        Returns
        -------
        ndarray
            ``(k,)`` row numbers.
        """
        first, last = np.searchsorted(self.few, [start, stop])
        rows = np.arange(start, min(stop, self.n))
        return np.delete(rows, self.few[first:last] - start) if first < last else rows

    def __getitem__(self, places: Any) -> np.ndarray:
        if isinstance(places, slice):
            places = np.arange(*places.indices(len(self)))
        # Before the j-th of the few come as many of the others as its number says, less j.
        before = self.few - np.arange(len(self.few))
        return np.asarray(places) + np.searchsorted(before, places, side="right")


def is_streamed(X: Any) -> bool:
    """Tell what is read block by block, and never whole, from an array.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it says how many rows make a block.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import is_streamed
    >>> is_streamed(np.zeros(3))
    False
    """
    return hasattr(X, "rows_of_block")


def blocks(X: Any, rows: Any = None) -> Iterator[np.ndarray]:
    """Go through rows in blocks of bounded memory.

    Parameters
    ----------
    X : ndarray or Streamed
        ``(n, *shape)``; a memory map is read block by block, and what is streamed by its own blocks.
    rows : ndarray, AllBut or None
        ``(m,)`` row numbers; of what is streamed, all but a few; None for all.

    Yields
    ------
    ndarray
        ``(k, *shape)``, some of these rows.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import blocks
    >>> [block.tolist() for block in blocks(np.arange(4), rows=np.array([0, 3]))]
    [[0, 3]]
    """
    size = X.rows_of_block if is_streamed(X) else max(1, BLOCK // max(1, math.prod(X.shape[1:])))
    for start in range(0, len(X) if rows is None or is_streamed(X) else len(rows), size):
        part = slice(start, start + size)
        if rows is None:
            yield X[part]
        elif not is_streamed(X):
            yield X[rows[part]]
        elif len(chosen := rows.within(start, start + size)):
            yield X[part][chosen - start]


def checksum(*arrays: Any) -> str:
    """Sum up arrays, by which they are known again.

    Parameters
    ----------
    *arrays : ndarray, Tensor, Streamed or None
        ``(n, ...)``, read block by block.

    Returns
    -------
    str
        CRC-32 of their bytes, one after the other, in hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import checksum
    >>> checksum(np.arange(4)), checksum(np.arange(4), None) == checksum(np.arange(2), np.arange(2, 4))
    ('...', True)
    """
    found = 0
    for array in arrays:
        array = array.cpu() if isinstance(array, Tensor) else array
        for part in () if array is None else blocks(array):
            whole: Any = np.ascontiguousarray(part)
            found = zlib.crc32(whole, found)
    return f"{found:08x}"


def ends(X: Any) -> tuple[float, float]:
    """Find the smallest and the largest value, in one pass.

    Parameters
    ----------
    X : ndarray or Streamed
        ``(n, *shape)``, any type of number, not empty.

    Returns
    -------
    low, high : float
        NaN where there is one.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import ends
    >>> ends(np.array([[3.0, -1.0], [2.0, 7.0]]))
    (-1.0, 7.0)
    """
    pairs = [as_tensor(b).aminmax() for b in blocks(X)]
    # NumPy's, which hand a NaN on: Python's own pass over one that does not come first.
    return float(np.min([float(low) for low, _ in pairs])), float(np.max([float(high) for _, high in pairs]))


def whole(X: Any) -> bool:
    """Tell whether all values are whole numbers.

    Parameters
    ----------
    X : ndarray or Streamed
        ``(n, *shape)``, any type of number, finite.

    Returns
    -------
    bool
        Whether they are.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.arrays import whole
    >>> whole(np.array([1.0, 2.0])), whole(np.array([1.5]))
    (True, False)
    """
    return X.dtype.kind != "f" or all(bool((b == np.floor(b)).all()) for b in blocks(X))
