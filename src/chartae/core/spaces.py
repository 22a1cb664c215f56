"""The space that data live in: shape, units, and the way between the user's array and the model's tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.arrays import blocks, ends, whole
from chartae.core.columns import Column, Schema
from chartae.core.errors import DataError, PlanError

__all__ = ["LAYOUTS", "Space", "Support", "Units", "layout_of"]

SLACK = 1e-6  # of a bounded range: the same value in float32 and in float64 is one value
CHANNELS = (1, 3, 4)  # gray, color, and color with transparency
SMALLEST_IMAGE = 8  # pixels a side: below it, two axes are more likely a series or a small table

#: Layouts of an item, and how many axes an item has in each (None: any number).
LAYOUTS: dict[str, int | None] = {"flat": 1, "hw": 2, "hwc": 3, "chw": 3, "any": None}


def layout_of(shape: tuple[int, ...], layout: str = "auto") -> str:
    """Say how an item is ordered: as asked, or guessed from its shape.

    One axis is "flat". Two are the rows and columns of a gray image, "hw", if both have 8 pixels or
    more. Three are an image with channels last, "hwc", or first, "chw", if there are 1, 3 or 4 of them
    (last, where both could be meant). All else is "any": a series, a volume, or an unusual image.

    Parameters
    ----------
    shape : tuple of int
        Shape of one item.
    layout : {"auto", "flat", "hw", "hwc", "chw", "any"}
        "auto" guesses.

    Returns
    -------
    str
        One of :data:`LAYOUTS`.

    Raises
    ------
    PlanError
        If the layout is unknown, or is one of items with another number of axes.

    Examples
    --------
    >>> from chartae.core.spaces import layout_of
    >>> [layout_of(shape) for shape in [(64,), (28, 28), (100, 3), (32, 32, 3), (3, 32, 32), (9, 9, 9)]]
    ['flat', 'hw', 'any', 'hwc', 'chw', 'any']
    >>> layout_of((28, 28), "hwc")
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: layout='hwc' is for items of 3 axes, and these have shape (28, 28): ...
    """
    axes = len(shape)
    if layout == "auto":
        if axes == 1:
            return "flat"
        if axes == 2 and min(shape) >= SMALLEST_IMAGE:
            return "hw"
        if axes == 3 and shape[-1] in CHANNELS:
            return "hwc"
        return "chw" if axes == 3 and shape[0] in CHANNELS else "any"
    if layout not in LAYOUTS:
        raise PlanError(f"layout={layout!r}: use 'auto', {', '.join(map(repr, LAYOUTS))}")
    if LAYOUTS[layout] not in (axes, None):
        fitting = ", ".join(repr(name) for name, n in LAYOUTS.items() if n in (axes, None))
        raise PlanError(
            f"layout={layout!r} is for items of {LAYOUTS[layout]} axes, and these have shape {tuple(shape)}: "
            f"use {fitting} or 'auto'"
        )
    return layout


@dataclass(frozen=True)
class Support:
    """The values that a likelihood knows, in the input's units; by default every number.

    Parameters
    ----------
    low, high : float or None
        The smallest and the largest; None for no bound.
    whole : bool
        Whether they are whole numbers only.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.spaces import Support
    >>> counts = Support(low=0.0, whole=True)
    >>> counts.holds(np.array([0, 7])), counts.holds(np.array([0.5])), str(counts)
    (True, False, 'whole numbers from 0 up')
    """

    low: float | None = None
    high: float | None = None
    whole: bool = False

    def covers(self, low: float, high: float) -> bool:
        """Tell whether a range lies within the bounds, up to rounding.

        Parameters
        ----------
        low, high : float
            Its ends.

        Returns
        -------
        bool
            Whether it does.
        """
        slack = 0.0 if self.low is None or self.high is None else SLACK * (self.high - self.low)
        return (self.low is None or low >= self.low - slack) and (
            self.high is None or high <= self.high + slack
        )

    def holds(self, X: np.ndarray, range: tuple[float, float] | None = None) -> bool:
        """Tell whether all values are known.

        Parameters
        ----------
        X : ndarray
            ``(n, *shape)``, finite.
        range : tuple of float or None
            Its smallest and largest value, where the caller knows them.

        Returns
        -------
        bool
            Whether they are.
        """
        if X.size == 0 or self == Support():
            return True
        return self.covers(*(range or ends(X))) and (not self.whole or whole(X))

    def __str__(self) -> str:
        what = "whole numbers" if self.whole else "values"
        if self.low is None:
            return f"{what} up to {self.high:g}" if self.high is not None else what
        return f"{what} from {self.low:g} " + ("up" if self.high is None else f"to {self.high:g}")


@dataclass(frozen=True)
class Units:
    """How a likelihood wants its data prepared: as they are, unless it says otherwise.

    Parameters
    ----------
    center, scale : array_like
        The model sees ``(x - center) / scale``; they broadcast against the model's shape of an item.
    levels : int or None
        Number of categories.
    support : Support
        The values that it knows, in the input's units.

    Examples
    --------
    >>> from chartae.core.spaces import Support, Units
    >>> Units(scale=255.0, support=Support(0.0, 255.0)).center
    0.0
    """

    center: Any = 0.0
    scale: Any = 1.0
    levels: int | None = None
    support: Support = Support()


class Space(nn.Module):
    """Shape and units of one item, for the user and for the model.

    The user's ``(height, width)`` or ``(height, width, channels)`` is the model's
    ``(channels, height, width)``; the model's units are ``(x - center) / scale``. It is inferred from
    data by :func:`chartae.parts.units.infer_space`.

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
    layout : {"auto", "flat", "hw", "hwc", "chw", "any"}
        How the user orders an item; "auto" guesses (see :func:`layout_of`).
    support : Support
        The values that the likelihood knows.
    gaps : bool
        Whether values may be missing, as NaN.
    schema : Schema or None
        The columns of a table.

    Raises
    ------
    PlanError
        If the layout does not fit the shape.

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
    logged: Tensor | None

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
        layout: str = "auto",
        support: Support = Support(),
        gaps: bool = False,
        schema: Schema | None = None,
    ) -> None:
        super().__init__()
        self.gaps, self.schema = gaps, schema
        self.shape, self.likelihood, self.levels = tuple(int(s) for s in shape), likelihood, levels
        self.layout, self.support = layout_of(self.shape, layout), support
        self.value_range, self.dtype = (float(value_range[0]), float(value_range[1])), dtype
        self.columns = None if columns is None else tuple(columns)
        # float64: the center of a large offset must not be rounded before it is subtracted.
        self.register_buffer("center", torch.as_tensor(np.asarray(center, dtype=np.float64)))
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale, dtype=np.float64)))
        logged = [False] if schema is None else [column.logged for column in schema.columns]
        self.register_buffer("logged", torch.tensor(logged) if any(logged) else None, persistent=False)

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

    @property
    def limits(self) -> tuple[float, float] | None:
        """The smallest and the largest number that the input's type holds, where it is a short integer's."""
        kind = np.dtype(self.dtype)
        if kind.kind not in "iu" or kind.itemsize > 2:
            return None
        return float(np.iinfo(kind).min), float(np.iinfo(kind).max)

    @property
    def offers(self) -> frozenset[str]:
        """What an objective may need: "images", "distances", or to be "differentiable", as tokens are not."""
        offers = {
            "images": self.is_image,
            "distances": self.likelihood not in ("categorical", "sequence"),
            "differentiable": self.likelihood != "sequence",
        }
        return frozenset(name for name, offered in offers.items() if offered)

    def check(self, X: np.ndarray, range: tuple[float, float] | None = None) -> None:
        """Refuse values that the likelihood does not know.

        Parameters
        ----------
        X : ndarray or Streamed
            ``(n, *shape)`` in the user's units, finite.
        range : tuple of float or None
            Its smallest and largest value, where the caller knows them.

        Raises
        ------
        DataError
            If there are such values.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.core.spaces import Space, Support
        >>> Space((2,), "bernoulli", support=Support(0.0, 16.0)).check(np.array([[0.0, 20.0]]))
        Traceback (most recent call last):
        ...
        chartae.core.errors.DataError: the model knows values from 0 to 16, and the data hold others, ...
        """
        for seen in (b[~np.isnan(b)] for b in blocks(X)) if self.gaps else [X]:
            if not self.support.holds(seen, None if self.gaps else range):
                known = str(self.support) if self.levels is None else f"the categories 0 to {self.levels - 1}"
                low, high = ends(seen)
                raise DataError(
                    f"the model knows {known}, and the data hold others, within [{low:g}, {high:g}]: "
                    "give them in the units of the training data, or fit with likelihood='normal'"
                )

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
        units = self._float32()
        if (
            units is None
            or x.dtype == torch.float64
            or not (x.dtype.is_floating_point or x.element_size() < 4)
        ):
            return ((x.double() - self.center) / self.scale).to(dtype)
        center, scale = units
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
            ``(..., *shape)``: float64 where the data had that many digits, float32 otherwise. Where these are
            bytes, or whole numbers of 16 bits, nothing is beyond what their type holds: it would wrap around.
        """
        fine = x.dtype == torch.float64 or self._is_fine
        if fine or bool(self.center.any()) or self._float32() is None:
            x = x.double() * self.scale + self.center
            x = _finite(x if fine else x.float())
        else:
            x = _finite(x * self.scale.float())
        if self.levels is not None:
            x = x.round()  # categories are whole numbers, and their steps in model units are not
        if self.limits is not None:
            x = x.clamp(*self.limits)
        if self.layout == "hw":
            return x.squeeze(-3)
        return x.movedim(-3, -1) if self.layout == "hwc" else x

    def log_slope(self, x: Tensor) -> Tensor | None:
        """Log of how fast values of a table change with the numbers that stand for them: those of logarithms.

        Parameters
        ----------
        x : Tensor
            ``(n, *model_shape)``, in the model's units; NaN where a value is missing.

        Returns
        -------
        Tensor or None
            ``(n,)`` in nats, which a density of values is less by; None where all numbers are the values.

        Examples
        --------
        >>> import torch
        >>> from chartae.core.columns import Column, Schema
        >>> from chartae.core.spaces import Space
        >>> schema = Schema((Column("price", "positive", "normal-mixture", "float64"),))
        >>> Space((1,), scale=2.0, schema=schema).log_slope(torch.tensor([[0.0], [1.5]]))
        tensor([0., 3.])
        """
        if self.logged is None:
            return None
        logs = x * self.scale.to(x) + self.center.to(x)  # exp is its own derivative
        return torch.where(self.logged, logs, 0.0).nansum(-1)

    @property
    def _is_fine(self) -> bool:
        """Whether the data had more digits than float32: a small change of a large value must survive."""
        return np.dtype(self.dtype).itemsize >= 4 and self.dtype != "float32"

    def _float32(self) -> tuple[Tensor | None, Tensor | None] | None:
        """Center and reciprocal scale, each None where it changes nothing; made once a device.

        None for both where float32 has no such number, or only a denormal one, which training takes for zero.
        """
        key = (self.center.device, self.center.data_ptr(), self.center._version, self.scale._version)
        if getattr(self, "_cache_key", None) != key:
            self._cache_key = key
            center, factor = self.center, self.scale.reciprocal()
            limits = torch.finfo(torch.float32)
            known = ((factor >= limits.tiny) & (factor <= limits.max)).all() & (
                center.abs() <= limits.max
            ).all()
            self._cache = (
                (
                    center.float() if bool((center != 0).any()) else None,
                    factor.float() if bool((self.scale != 1).any()) else None,
                )
                if known
                else None
            )
        return self._cache

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_cache")}

    @property
    def what(self) -> str:
        """Say what an item is, and of which shape.

        Returns
        -------
        str
            In a few words.
        """
        size = " × ".join(str(s) for s in self.shape)
        if self._columns:
            return f"{size} columns"
        return {
            "flat": f"{size} features",
            "any": f"items of {size}",
            "chw": f"images of {size} (channels first)",
        }.get(self.layout, f"images of {size}")

    @property
    def _columns(self) -> tuple[Column, ...]:
        """Columns of a table that have kinds of their own."""
        mixed = self.likelihood == "columns" or self.logged is not None
        return self.schema.columns if self.schema is not None and mixed else ()

    def extra_repr(self) -> str:
        """Describe it in one line.

        Returns
        -------
        str
            Shape, type, scaling and likelihood.
        """
        low, high = self.value_range
        values = f"{self.dtype} in [{low:.4g}, {high:.4g}], {self._scaling()}"
        if self._columns:
            kinds = Counter(column.kind for column in self._columns)
            values = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        gaps = ", missing values" * self.gaps
        whole = np.issubdtype(self.dtype, np.integer) and np.dtype(self.dtype).itemsize > 1
        counts = self.likelihood == "normal" and self.layout == "flat" and whole and low >= 0
        hint = " (counts have 'poisson' and 'negative-binomial')" * counts
        return f"{self.what}, {values}{gaps}, {self.likelihood} likelihood{hint}"

    def _scaling(self) -> str:
        centered = bool(self.center.any())
        if self.scale.numel() > 1:
            each = "channel" if self.is_image else "column" if self.layout == "flat" else "value"
            return f"each {each} {'centered and ' if centered else ''}scaled"
        scale = float(self.scale)
        if centered:
            return f"centered, scale {scale:.4g}"
        return "as they are" if scale == 1.0 else f"divided by {scale:.4g}"

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
            "layout": self.layout,
            "support": asdict(self.support),
            "gaps": self.gaps,
            "schema": None if self.schema is None else self.schema.config(),
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
        known = {k: v for k, v in config.items() if k not in ("center_shape", "scale_shape")}
        made = {
            "value_range": tuple(config["value_range"]),
            "support": Support(**config["support"]),
            "schema": None if config["schema"] is None else Schema.from_config(config["schema"]),
        }
        return cls(
            **{**known, **made},
            center=np.zeros(config["center_shape"]),
            scale=np.ones(config["scale_shape"]),
        )


def _finite(x: Tensor) -> Tensor:
    """Stay within what a type holds: data may use all of it, and what is decoded lie a little beyond."""
    limit = torch.finfo(x.dtype).max
    return x.clamp(-limit, limit)
