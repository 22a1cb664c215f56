"""Units: what can be seen of data, and the space that suits them and a likelihood."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np

from chartae.core.arrays import blocks, ends, whole
from chartae.core.columns import Schema
from chartae.core.errors import DataError, PlanError, enumerated
from chartae.core.spaces import Space, Units, layout_of
from chartae.parts.likelihoods import likelihoods

__all__ = ["Facts", "infer_space"]

HUGE = 1e100  # squares of values up to here, and of their roundings, are far from float64's ends
NARROW = 100  # columns: wider items are spectra, embeddings or pixels, and have one unit
SMALL = 0.01  # of the scale that all columns share: a column of this size is next to noise
RARE = 0.05  # share of ones, or zeros, up to which these may be a noisy pixel
ROUNDING = 16 * np.finfo(np.float64).eps
#: Axes of ``(n, *shape)`` over which a value has the same meaning; each column of other layouts has its own.
POOLED = {"hw": (0, 1, 2), "hwc": (0, 1, 2), "chw": (0, 2, 3)}


class Facts:
    """What a likelihood may ask about data before it chooses their units; each is looked up when asked.

    Range and kind of values are those of all rows, so that rows held out are values that the model
    knows. Moments are those of the training rows, so that rows held out do not shape what they judge.

    Parameters
    ----------
    X : ndarray
        ``(n, *shape)``, finite; a memory map is read in blocks.
    layout : str
        How an item is ordered (see :func:`chartae.core.spaces.layout_of`).
    named : bool
        Whether columns have names, and so probably different units.
    rows : ndarray or None
        ``(m,)`` row numbers over which moments are taken; None for all.
    schema : Schema or None
        The columns of a table.
    gaps : bool
        Whether NaN stands for a missing value.

    Raises
    ------
    DataError
        If there are no values.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.parts.units import Facts
    >>> facts = Facts(np.array([[0.0, 4.0], [2.0, 4.0]]))
    >>> (facts.low, facts.high), facts.whole, facts.two_valued, facts.moments[0]
    ((0.0, 4.0), True, False, array([1., 4.]))
    """

    def __init__(
        self,
        X: np.ndarray,
        layout: str = "auto",
        *,
        named: bool = False,
        rows: np.ndarray | None = None,
        schema: Schema | None = None,
        gaps: bool = False,
    ) -> None:
        if X.size == 0:
            raise DataError(f"{len(X)} items of shape {X.shape[1:]} hold no values: give data")
        self._X, self._rows, self.named = X, rows, named
        self.layout, self.dtype = layout_of(X.shape[1:], layout), X.dtype
        self.schema, self.gaps = schema, gaps
        if not gaps:
            self.low, self.high = ends(X)
            return
        seen = (b[~np.isnan(b)] for b in blocks(X))
        pairs = [(float(b.min()), float(b.max())) for b in seen if b.size]
        if not pairs:
            raise DataError("all values are missing: give data")
        self.low, self.high = min(low for low, _ in pairs), max(high for _, high in pairs)

    def of_column(self, i: int) -> Facts:
        """Look at one column of a table alone.

        Parameters
        ----------
        i : int
            Its place.

        Returns
        -------
        Facts
            Of an array ``(n, 1)``.
        """
        return Facts(self._X[:, i : i + 1], "flat", rows=self._rows, gaps=self.gaps)

    @cached_property
    def two_valued(self) -> bool:
        """Whether all values are 0 or one positive number, and both occur."""
        if self.low != 0 or self.high <= 0:
            return False
        return all(
            bool(((b == 0) | (b == self.high) | (self.gaps & np.isnan(b))).all()) for b in blocks(self._X)
        )

    @cached_property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(whole(b[~np.isnan(b)]) for b in blocks(self._X)) if self.gaps else whole(self._X)

    @cached_property
    def ended(self) -> bool:
        """Whether items are rows of numbers from 1, ended by the largest of all and filled up with zeros."""
        if self.low < 0 or not self.whole or self.layout != "flat" or self.gaps:
            return False
        ends = ((b, b == self.high) for b in blocks(self._X))
        # Each has one, up to which there is no zero, and after which there is nothing else.
        return all(
            bool((end.sum(1) == 1).all() and ((b == 0) == (end.cumsum(1) - end == 1)).all())
            for b, end in ends
        )

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each column, ``(*shape)``, or channel, ``(channels, 1, 1)``."""
        axes = POOLED.get(self.layout, (0,))
        count: Any = 0
        mean, squares = np.float64(0.0), np.float64(0.0)
        # In units of the largest value: the squares of what float64 can hold may overflow or vanish.
        kept = [1 if axis in axes else size for axis, size in enumerate(self._X.shape)]
        unit = np.full(kept, max(abs(self.low), abs(self.high)) or 1.0)
        if unit.max() > HUGE:
            # Of each column's: beside such a value all others would seem constant.
            sizes = (np.abs(b.astype(np.float64)) for b in blocks(self._X))
            most = [size.max(axes, initial=0.0, where=~np.isnan(size), keepdims=True) for size in sizes]
            unit = np.max(most, 0)
            unit[unit == 0] = 1.0
        for block in blocks(self._X, self._rows):
            # Chan's pairwise update: stable where the mean is far from zero.
            b = block.astype(np.float64) / unit
            if self.gaps:
                size: Any = (~np.isnan(b)).sum(axes)
                m = np.nansum(b, axes) / np.maximum(size, 1)
            else:
                m = b.mean(axes)
                size = b.size // m.size
            delta, total = m - mean, np.maximum(count + size, 1)
            within = np.square(b - np.expand_dims(m, axes))
            squares = (
                squares
                + (np.nansum(within, axes) if self.gaps else within.sum(axes))
                + delta**2 * count * size / total
            )
            mean = mean + delta * size / total
            count = count + size
        spread = np.sqrt(squares / np.maximum(count, 1))
        # A constant column has the spread that rounding of its mean leaves: dividing by it would blow it up.
        spread = np.where(spread > ROUNDING * np.abs(mean), spread, 0.0)
        shape = (-1, 1, 1) if self.layout in POOLED else self._X.shape[1:]
        unit = unit.reshape(shape)
        center, scale = unit * np.reshape(mean, shape), unit * np.reshape(spread, shape)
        # Training takes denormal numbers for zero, and so must the units.
        least = np.finfo(self.dtype if self.dtype in (np.float32, np.float64) else np.float64).tiny
        return center, np.where(scale >= least, scale, 0.0)

    def standardized(self, scale: str = "auto") -> Units:
        """Give the units in which data are centered and of size one.

        Parameters
        ----------
        scale : {"auto", "global", "feature", "none"}
            One scale for all columns (the root of their mean variance), one for each column or channel,
            or the data as they are; "auto" is "feature" for named columns, "global" otherwise, with a
            warning if columns seem to have units of their own.

        Returns
        -------
        Units
            A column that is constant keeps its scale.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.parts.units import Facts
        >>> Facts(np.array([[0.0, 4.0], [2.0, 4.0]])).standardized("feature").scale
        array([1., 1.])
        """
        if scale == "none":
            return Units()
        center, spread = self.moments
        if scale == "feature" or (scale == "auto" and self.named):
            return Units(center, np.where(spread > 0, spread, 1.0))
        # In units of the largest: squares may overflow or vanish.
        largest = spread.max() or 1.0
        shared = largest * (np.sqrt(np.mean(np.square(spread / largest))) or 1.0)
        if scale == "auto" and self.layout == "flat" and len(spread) <= NARROW:
            # Columns of one unit may vary little, but then about zero (scores of a PCA), or are of its size.
            small = (spread < np.abs(center)) & (np.abs(center) + spread < SMALL * shared) & (spread > 0)
            # Of zeros and ones, and of nothing else that is whole, the mean square is the mean.
            with np.errstate(over="ignore"):
                flag = np.isclose(np.square(spread), center * (1 - center), rtol=1e-9, atol=0)
            flag &= (np.abs(center - 0.5) < 0.5 - RARE) & (SMALL * shared > 1)
            _warn_of_small(np.flatnonzero(small | flag))
        return Units(center, shared)


def _warn_of_small(places: np.ndarray) -> None:
    if len(places):
        listed = enumerated([str(place) for place in places])
        warnings.warn(
            f"column{'s' * (len(places) > 1)} {listed} (from 0) will hardly count, since all columns share "
            "one scale, a hundred times their size: fit with scale='feature' if columns have units of "
            "their own, or with scale='global' if they have one",
            stacklevel=8,
        )


def infer_space(
    X: np.ndarray,
    *,
    likelihood: str = "auto",
    scale: str = "auto",
    layout: str = "auto",
    columns: tuple[str, ...] | None = None,
    rows: np.ndarray | None = None,
    schema: Schema | None = None,
    gaps: bool = False,
) -> Space:
    """Look at data, in blocks, and choose shape, layout, units and likelihood.

    Two values (0 and 1, or 0 and one other) suggest "bernoulli", anything else "normal". The likelihood
    says which units it needs: see ``units`` of each in :mod:`chartae.parts.likelihoods`.

    Parameters
    ----------
    X : ndarray
        ``(n, *shape)``.
    likelihood : str
        "auto", or the likelihood to prepare for.
    scale : {"auto", "global", "feature", "none"}
        For likelihoods that center and scale: one scale for all columns, one for each column (or
        channel), or the data as they are; "auto" is "feature" for named columns, "global" otherwise.
    layout : {"auto", "flat", "hw", "hwc", "chw", "any"}
        How an item is ordered; "auto" guesses (see :func:`chartae.core.spaces.layout_of`).
    columns : tuple of str or None
        Names of the features.
    rows : ndarray or None
        ``(m,)``, the training rows, over which mean and spread are taken; None for all. The range of
        values, and with it the likelihood, is that of all rows.
    schema : Schema or None
        The columns of a table; if they are of several kinds, "auto" is "columns".
    gaps : bool
        Whether NaN stands for a missing value.

    Returns
    -------
    Space
        For one item.

    Raises
    ------
    DataError
        If the values do not fit the likelihood asked for.
    PlanError
        If ``scale``, ``layout`` or the likelihood is unknown, or the layout does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.parts.units import infer_space
    >>> infer_space(np.eye(4)).likelihood, infer_space(np.arange(12.0).reshape(4, 3)).likelihood
    ('bernoulli', 'normal')
    """
    if scale not in ("auto", "global", "feature", "none"):
        raise PlanError(f"scale={scale!r}: use 'auto', 'global', 'feature' or 'none'")
    facts = Facts(X, layout, named=columns is not None, rows=rows, schema=schema, gaps=gaps)
    if likelihood == "auto" and schema is not None and not schema.uniform:
        likelihood = "columns"
    elif likelihood == "auto":
        likelihood = "bernoulli" if facts.two_valued else "normal"
    if schema is not None and likelihood != "columns" and (text := schema.wordy) is not None:
        raise DataError(
            f"column {text!r} holds no numbers, which likelihood={likelihood!r} needs: use 'columns'"
        )
    return Space(
        X.shape[1:],
        likelihood,
        value_range=(facts.low, facts.high),
        dtype=str(X.dtype),
        columns=columns,
        layout=facts.layout,
        gaps=gaps,
        schema=schema,
        **vars(likelihoods[likelihood].units(facts, scale)),
    )
