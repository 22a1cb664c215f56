"""Which rows are held out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from chartae.core.arrays import AllBut, is_streamed
from chartae.core.columns import as_pandas, is_frame

__all__ = ["FEWEST", "JUDGED", "apart", "by_label", "kinds_of", "split"]

FEWEST = 10  # fewer held-out rows than this say nothing about when to stop
JUDGED = 50  # or about how good a model is
SHARE = 0.1
STREAMED = 16384  # of a stream, at most: they stay in memory


def split(X: Any, share: float | str, seed: int) -> tuple[Any, np.ndarray]:
    """Hold out rows at random; none, where those were too few to say anything.

    Parameters
    ----------
    X : array_like or stream
        ``(n, *shape)``.
    share : float or "auto"
        Of the rows, to be held out; "auto": a tenth, and from 150 rows on 50 at least.
    seed : int
        Of the choice.

    Returns
    -------
    kept : ndarray or AllBut
        ``(n - m,)`` row numbers, rising.
    held_out : ndarray
        ``(m,)``, likewise.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.splits import split
    >>> [len(rows) for rows in split(np.zeros((100, 2)), 0.1, 0)], len(split(np.zeros((50, 2)), 0.1, 0)[1])
    ([90, 10], 0)
    >>> [len(split(np.zeros((n, 2)), "auto", 0)[1]) for n in (149, 150, 499, 1000)]
    [15, 50, 50, 100]
    """
    n = len(X)
    fewest = JUDGED if share == "auto" and n >= 3 * JUDGED else 0
    held = max(fewest, round((SHARE if share == "auto" else float(share)) * n))
    held = min(held, n - 1) if held >= FEWEST else 0
    if is_streamed(X):
        # Few enough to stay in memory, and without a permutation, which would take more than they do.
        held = min(held, STREAMED, X.rows_to_hold)
        rows = np.sort(np.random.default_rng(seed + 3).choice(n, held, replace=False))
        return AllBut(n, rows), rows
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 3), device="cpu")
    return order[held:].sort().values.numpy(), order[:held].sort().values.numpy()


def by_label(rows: np.ndarray, labels: np.ndarray, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out rows of every label, about as often as it comes.

    Parameters
    ----------
    rows : ndarray
        ``(n,)`` row numbers.
    labels : ndarray
        ``(n,)``, theirs.
    held : int
        How many rows are held out.
    seed : int
        Of the choice.

    Returns
    -------
    kept, held_out : ndarray
        Of shapes ``(n - m,)`` and ``(m,)``: row numbers. Nothing is held out where some label is too rare:
        where it has but one row, where none would be left to learn it from, or ``held`` is not one for each.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.splits import by_label
    >>> kept, held_out = by_label(np.arange(8), np.array(list("aaaabbbb")), 2, 0)
    >>> kept.shape, np.unique(held_out // 4), by_label(np.arange(3), np.array([0, 0, 1]), 2, 0)[1]
    ((6,), array([0, 1]), array([], dtype=int64))
    """
    from sklearn.model_selection import train_test_split  # it is slow to import

    names, times = np.unique(labels, return_counts=True)
    if times.min() > 1 and len(names) <= held <= len(rows) - len(names):
        sides = train_test_split(rows, labels, test_size=held, random_state=seed, stratify=labels)
        kept, held_out, learned, _ = sides
        if len(np.unique(learned)) == len(names):
            return kept, held_out
    return rows, rows[:0]


def apart(X: Any, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows so that equal ones stay together: an item with several texts is not on both sides.

    Where that leaves too little, of few kinds of items that come often, rows are split as they are.

    Parameters
    ----------
    X : array_like, sparse matrix or DataFrame
        ``(n, *shape)``.
    share : float
        Of the rows, to be held out; one row at least, and one is kept.
    seed : int
        Of the choice.

    Returns
    -------
    kept, held_out : ndarray
        Of shapes ``(n - m,)`` and ``(m,)``: row numbers, rising.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.splits import apart
    >>> kept, held_out = apart(np.tile(np.arange(50.0), 3)[:, None], 0.5, 0)
    >>> kept.shape, np.intersect1d(kept % 50, held_out % 50)
    ((75,), array([], dtype=int64))
    """
    own, kinds = kinds_of(X)
    order = np.random.default_rng(seed).permutation(len(kinds))
    wanted = min(max(1, round(share * len(own))), len(own) - 1)  # neither side is empty
    sizes, taken, left = np.bincount(own), np.zeros(len(kinds), bool), wanted
    for kind in order:
        taken[kind] = sizes[kind] <= left
        left -= sizes[kind] * taken[kind]
    held_out = taken[own]
    if left > wanted / 2:
        held_out = np.random.default_rng(seed).permutation(len(own)) < wanted
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def kinds_of(X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Number rows so that equal ones have the same number.

    Parameters
    ----------
    X : array_like, sparse matrix or DataFrame
        ``(n, *shape)``.

    Returns
    -------
    own, kinds : ndarray
        ``(n,)`` numbers, and ``(kinds,)``, one sum for each number.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.splits import kinds_of
    >>> kinds_of(np.array([[1.0], [2.0], [1.0]]))[0]
    array([0, 1, 0])
    """
    import pandas as pd  # it is slow to import

    if hasattr(X, "tocsr"):
        X = X.tocsr(copy=True)
        X.sum_duplicates()
        X.eliminate_zeros()
        cells = pd.util.hash_array(X.indices) * pd.util.hash_array(X.data)
        sums = np.array([cells[a:b].sum() for a, b in pairwise(X.indptr)])
    else:
        frame = as_pandas(X) if is_frame(X) else pd.DataFrame(np.asarray(X).reshape(len(X), -1))
        sums = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return pd.factorize(sums)
