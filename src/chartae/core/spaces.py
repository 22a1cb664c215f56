"""The space that data live in: shape, units, and the way between the user's array and the model's tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.errors import DataError, PlanError

__all__ = ["Space", "infer_space"]

ROUNDING = 16 * np.finfo(np.float64).eps
BLOCK = 1 << 22  # values looked at in one go: bounded memory on arrays of any length


class Space(nn.Module):
    """Shape and units of one item, for the user and for the model.

    The user's ``(height, width)`` or ``(height, width, channels)`` is the model's
    ``(channels, height, width)``; the model's units are ``(x - center) / scale``.

    Parameters
    ----------
    shape : tuple of int
        Shape of one item as the user has it.
    likelihood : str
        The likelihood that suits the data.
    levels : int or None
        Number of categories, for a categorical likelihood.
    center, scale : array_like
        Broadcast against the model's shape.
    value_range : tuple of float
        Smallest and largest value seen.
    dtype : str
        The data's type.
    columns : sequence of str or None
        Names of the features.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> space = Space((8, 8), scale=16.0)
    >>> space.model_shape, space.to_model(torch.full((1, 8, 8), 16.0)).unique()
    ((1, 8, 8), tensor([1.]))
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        likelihood: str = "normal",
        levels: int | None = None,
        center: Any = 0.0,
        scale: Any = 1.0,
        value_range: tuple[float, float] = (0.0, 1.0),
        dtype: str = "float32",
        columns: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.likelihood, self.levels = tuple(int(s) for s in shape), likelihood, levels
        self.value_range, self.dtype = (float(value_range[0]), float(value_range[1])), dtype
        self.columns = None if columns is None else tuple(columns)
        # float64: the center of a large offset must not be rounded before it is subtracted.
        self.register_buffer("center", torch.as_tensor(np.asarray(center, dtype=np.float64)))
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale, dtype=np.float64)))

    @property
    def layout(self) -> str:
        """How the user orders one item: "flat", "hw", "hwc", "chw" or "any"."""
        if len(self.shape) == 1:
            return "flat"
        if len(self.shape) == 2:
            return "hw"
        if len(self.shape) == 3:
            return "hwc" if self.shape[-1] in (1, 3, 4) else "chw"
        return "any"

    @property
    def model_shape(self) -> tuple[int, ...]:
        """Shape of one item in the model: ``(channels, height, width)`` for images."""
        if self.layout == "hw":
            return (1, *self.shape)
        return (self.shape[2], *self.shape[:2]) if self.layout == "hwc" else self.shape

    @property
    def is_image(self) -> bool:
        """Whether an item is laid out as an image."""
        return self.layout in ("hw", "hwc", "chw")

    def log_det(self, continuous: bool) -> float:
        """Log volume of one model unit in the input's units: what a density loses by it.

        Parameters
        ----------
        continuous : bool
            Whether the likelihood is a density; a mass has no units.

        Returns
        -------
        float
            Nats an item.
        """
        if not continuous:
            return 0.0
        return float(self.scale.log().expand(self.model_shape).sum())

    def to_model(self, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Go from the user's units and layout to the model's.

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``, any type of number.
        dtype : torch.dtype
            float32, or float64.

        Returns
        -------
        Tensor
            ``(n, *model_shape)``, of that type.
        """
        if self.layout == "hw":
            x = x.unsqueeze(1)
        elif self.layout == "hwc":
            x = x.movedim(-1, 1)
        if x.dtype == torch.float64 or not (x.dtype.is_floating_point or x.element_size() < 4):
            return ((x.double() - self.center) / self.scale).to(dtype)
        center, scale = self._float32()
        if center is None and scale is not None and not x.is_floating_point():
            return (x * scale).to(dtype)  # one pass over whole numbers: this runs in every training step
        x = x.to(dtype) if center is None else x.to(dtype) - center
        return x if scale is None else x * scale

    def from_model(self, x: Tensor) -> Tensor:
        """Go from the model's units and layout to the user's.

        Parameters
        ----------
        x : Tensor
            ``(..., *model_shape)``.

        Returns
        -------
        Tensor
            ``(..., *shape)``: float64 where the data had that many digits, float32 otherwise.
        """
        fine = x.dtype == torch.float64 or self._is_fine
        if fine or bool(self.center.any()):
            x = x.double() * self.scale + self.center
            x = x if fine else x.float()
        else:
            x = x * self.scale.float()
        if self.layout == "hw":
            return x.squeeze(-3)
        return x.movedim(-3, -1) if self.layout == "hwc" else x

    @property
    def _is_fine(self) -> bool:
        """Whether the data had more digits than float32: a small change of a large value must survive."""
        return np.dtype(self.dtype).itemsize >= 4 and self.dtype != "float32"

    def _float32(self) -> tuple[Tensor | None, Tensor | None]:
        """Center and reciprocal scale, or None where they change nothing; made once a device."""
        key = (self.center.device, self.center.data_ptr(), self.center._version, self.scale._version)
        if getattr(self, "_cache_key", None) != key:
            self._cache_key = key
            self._cache = (
                self.center.float() if bool((self.center != 0).any()) else None,
                self.scale.reciprocal().float() if bool((self.scale != 1).any()) else None,
            )
        return self._cache

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_cache")}

    def extra_repr(self) -> str:
        """Describe it in one line.

        Returns
        -------
        str
            Shape, type and likelihood.
        """
        size = " × ".join(str(s) for s in self.shape)
        what = {"flat": f"{size} features", "any": f"items of {size}"}.get(self.layout, f"images of {size}")
        low, high = self.value_range
        return f"{what}, {self.dtype} in [{low:.4g}, {high:.4g}], {self.likelihood} likelihood"

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again, but for center and scale.

        Returns
        -------
        dict
            JSON values.
        """
        return {
            "shape": list(self.shape),
            "likelihood": self.likelihood,
            "levels": self.levels,
            "value_range": list(self.value_range),
            "dtype": self.dtype,
            "columns": None if self.columns is None else list(self.columns),
            "center_shape": list(self.center.shape),
            "scale_shape": list(self.scale.shape),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Space:
        """Make a space whose center and scale are to be loaded.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.

        Returns
        -------
        Space
            With neutral units.
        """
        known = {k: v for k, v in config.items() if k not in ("center_shape", "scale_shape", "columns")}
        columns = config["columns"]
        return cls(
            **{**known, "shape": tuple(config["shape"]), "value_range": tuple(config["value_range"])},
            columns=None if columns is None else tuple(columns),
            center=np.zeros(config["center_shape"]),
            scale=np.ones(config["scale_shape"]),
        )


def _blocks(X: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, BLOCK // max(1, math.prod(X.shape[1:])))
    for start in range(0, len(X), rows):
        yield X[start : start + rows]


def infer_space(
    X: np.ndarray,
    *,
    likelihood: str = "auto",
    scale: str = "auto",
    columns: tuple[str, ...] | None = None,
) -> Space:
    """Look at data once, in blocks, and choose shape, units and likelihood.

    Two values (0 and 1, or 0 and one other) suggest "bernoulli", anything else "normal". For
    "normal", columns (or the channels of images) are centered, and one scalar scale is taken
    for all; a table with named columns is scaled column by column.

    Parameters
    ----------
    X : ndarray
        ``(n, *shape)``.
    likelihood : str
        "auto", or the likelihood to prepare for.
    scale : {"auto", "global", "feature", "none"}
        One scale for all, one for each column (or channel), or the data as they are.
    columns : tuple of str or None
        Names of the features.

    Returns
    -------
    Space
        For one item.

    Raises
    ------
    DataError
        If the values do not fit the likelihood asked for.
    PlanError
        If ``scale`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import infer_space
    >>> infer_space(np.eye(4)).likelihood, infer_space(np.arange(12.0).reshape(4, 3)).likelihood
    ('bernoulli', 'normal')
    """
    if scale not in ("auto", "global", "feature", "none"):
        raise PlanError(f"scale={scale!r}: use 'auto', 'global', 'feature' or 'none'")
    if X.size == 0:
        raise DataError(f"{len(X)} items of shape {X.shape[1:]} hold no values: give data")
    low = min(float(b.min()) for b in _blocks(X))
    high = max(float(b.max()) for b in _blocks(X))
    if likelihood == "auto":
        two = low == 0 and high > 0 and all(bool(((b == 0) | (b == high)).all()) for b in _blocks(X))
        likelihood = "bernoulli" if two else "normal"
    facts: dict[str, Any] = {
        "shape": X.shape[1:],
        "likelihood": likelihood,
        "value_range": (low, high),
        "dtype": str(X.dtype),
        "columns": columns,
    }
    if likelihood == "bernoulli":
        if low < 0:
            raise DataError(
                f"a Bernoulli likelihood needs values from 0 up, and the smallest is {low:g}: use 'normal'"
            )
        top = 255.0 if X.dtype == np.uint8 and high > 1 and high > 128 else max(high, 1.0)
        return Space(**facts, scale=top if high > 1 else 1.0)
    if likelihood == "categorical":
        if low < 0 or high > 255 or not all(bool((b == np.floor(b)).all()) for b in _blocks(X)):
            raise DataError(
                f"a categorical likelihood needs whole numbers from 0 to 255, and values lie in [{low:g}, "
                f"{high:g}]: number the categories from 0, or use 'normal'"
            )
        levels = max(2, int(high) + 1)
        return Space(**facts, levels=levels, scale=levels - 1)
    if scale == "none":
        return Space(**facts)
    center, spread = _moments(X, Space(**facts))
    if scale == "feature" or (scale == "auto" and columns is not None):
        spread = np.where(spread > 0, spread, 1.0)
    else:
        largest = spread.max() or 1.0
        spread = largest * np.asarray(np.sqrt(np.mean(np.square(spread / largest))) or 1.0)
    return Space(**facts, center=center, scale=spread)


def _moments(X: np.ndarray, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, or of each channel of images."""
    axes = {"hw": (0, 1, 2), "hwc": (0, 1, 2), "chw": (0, 2, 3)}.get(space.layout, (0,))
    count, mean, squares = 0, np.float64(0.0), np.float64(0.0)
    # In units of the largest value: the squares of what float64 can hold may overflow or vanish.
    unit = max(abs(v) for v in space.value_range) or 1.0
    for block in _blocks(X):
        # Chan's pairwise update: stable where the mean is far from zero.
        b = block.astype(np.float64) / unit
        size = b.size // max(1, b.mean(axes).size)
        m = b.mean(axes)
        delta = m - mean
        squares = (
            squares
            + np.square(b - np.expand_dims(m, axes)).sum(axes)
            + delta**2 * count * size / (count + size)
        )
        mean = mean + delta * size / (count + size)
        count += size
    spread = np.sqrt(squares / count)
    # A constant column has the spread that rounding of its mean leaves: dividing by it would blow that up.
    spread = np.where(spread > ROUNDING * np.abs(mean), spread, 0.0)
    mean, spread = unit * mean, unit * spread
    trailing = (1, 1) if space.is_image else ()
    shape = (space.model_shape[0], *trailing) if space.is_image else space.shape
    return np.asarray(mean).reshape(shape), np.asarray(spread).reshape(shape)
