"""Pictures: items as one PNG of tiles."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chartae.core.errors import DataError, PlanError
from chartae.core.files import atomic
from chartae.core.spaces import Space

__all__ = ["is_picture", "look_of", "pairs", "save_grid", "tiles"]

_TILE = 56  # pixels: below this an item is a postage stamp on a modern screen
_GAP = 2
_GAP_GRAY = 128  # told apart from white paper and from black background


def is_picture(item: Space | Sequence[int]) -> bool:
    """Tell whether items can be shown as images.

    Parameters
    ----------
    item : Space or sequence of int
        The space of the items; or the shape of one, whose layout is then guessed as for a space.

    Returns
    -------
    bool
        True for images of one channel or three.

    Examples
    --------
    >>> from chartae.core.images import is_picture
    >>> from chartae.core.spaces import Space
    >>> is_picture((28, 28)), is_picture((32, 32, 3)), is_picture((12, 32, 32)), is_picture((784,))
    (True, True, False, False)
    >>> is_picture(Space((28, 28), layout="any"))
    False
    """
    space = item if isinstance(item, Space) else Space(tuple(item))
    return space.is_image and space.model_shape[0] in (1, 3)


def save_grid(
    path: str | os.PathLike[str],
    X: ArrayLike,
    columns: int | None = None,
    *,
    value_range: tuple[float, float] | None = None,
    layout: str = "auto",
    origin: str = "upper",
) -> None:
    """Save images as one PNG of tiles, row by row.

    Small images are enlarged by a whole factor without smoothing, so that a tile's longer side has 56 pixels
    or more; between tiles lies a thin gray line. The file appears at once and whole.

    Parameters
    ----------
    path : str or path
        The file; missing folders are made.
    X : array of shape (n, H, W), (n, H, W, C) or (n, C, H, W), with C of 1 or 3
        The images, in the input's units. What is not a number stays gray.
    columns : int, optional
        Tiles a row; left out, the grid is about square.
    value_range : (float, float), optional
        The values shown as black and as white; what lies outside is clipped. Left out, the least and the
        greatest value of ``X``.
    layout : {"auto", "hw", "hwc", "chw"}
        How an item is ordered, as a :class:`~chartae.core.spaces.Space` says; "auto" guesses as that does.
    origin : {"upper", "lower"}
        Where an item's first row is drawn: at the top, or at the bottom, as spectra are.

    Raises
    ------
    DataError
        If ``X`` is not made of such images, or if ``columns`` is below 1.
    PlanError
        If ``layout`` is one of items with another number of axes, or ``origin`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> from chartae.core.images import save_grid
    >>> save_grid("grid.png", np.random.default_rng(0).random((6, 8, 8)), columns=3, value_range=(0, 1))
    >>> with Image.open("grid.png") as image:
    ...     image.size
    (176, 118)
    """
    from PIL import Image

    if columns is not None and columns < 1:
        raise DataError(f"a grid of {columns} columns shows nothing: pass columns=1 or more")
    drawn = tiles(X, value_range=value_range, layout=layout, origin=origin)
    n, height, width, channels = drawn.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    shape = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels)
    sheet = np.full(shape, _GAP_GRAY, np.uint8)
    for i, tile in enumerate(drawn):
        top = _GAP + i // columns * (height + _GAP)
        left = _GAP + i % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    with atomic(path) as file:
        Image.fromarray(sheet[..., 0] if channels == 1 else sheet).save(file, format="PNG")


def tiles(
    X: ArrayLike,
    *,
    value_range: tuple[float, float] | None = None,
    layout: str = "auto",
    origin: str = "upper",
) -> NDArray[np.uint8]:
    """Turn images into what a screen shows, small ones enlarged without smoothing.

    Parameters
    ----------
    X : array of shape (n, H, W), (n, H, W, C) or (n, C, H, W), with C of 1 or 3
        The images.
    value_range, layout, origin : object
        As of :func:`save_grid`.

    Returns
    -------
    ndarray of shape (n, height, width, 1 or 3)
        Of bytes; the longer side has 56 pixels or more.

    Raises
    ------
    DataError
        If ``X`` is not made of such images.
    PlanError
        If ``layout`` is one of items with another number of axes, or ``origin`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.images import tiles
    >>> tiles(np.eye(8)[None], value_range=(0, 1)).shape
    (1, 56, 56, 1)
    """
    if origin not in ("upper", "lower"):
        raise PlanError(f"origin={origin!r}: use 'upper' or 'lower'")
    images = _channels_last(np.asarray(X, dtype=np.float32), layout)
    images = images[:, ::-1] if origin == "lower" else images
    factor = math.ceil(_TILE / max(images.shape[1:3]))
    return _to_bytes(images, value_range).repeat(factor, axis=1).repeat(factor, axis=2)


def look_of(space: Space, medium: Any = None) -> dict[str, Any]:
    """Say how a model's items are shown.

    Parameters
    ----------
    space : Space
        Of the items.
    medium : object, optional
        How they became numbers, such as sounds did.

    Returns
    -------
    dict
        Options of :func:`save_grid`.

    Examples
    --------
    >>> from chartae.core.images import look_of
    >>> from chartae.core.spaces import Space
    >>> look_of(Space((8, 8), value_range=(0, 16)))
    {'value_range': (0.0, 16.0), 'layout': 'hw'}
    """
    look = {"value_range": space.value_range, "layout": space.layout}
    return look | medium.look(space.value_range) if hasattr(medium, "look") else look


def pairs(above: ArrayLike, below: ArrayLike, columns: int) -> NDArray[np.float32]:
    """Lay two sets of images out for :func:`save_grid`, so that the second lies under the first.

    Parameters
    ----------
    above, below : arrays of shape (n, ...)
        The images, such as originals and their reconstructions.
    columns : int
        Tiles a row; the same number goes to ``save_grid``.

    Returns
    -------
    ndarray of shape (2 * columns * rows, ...)
        A row of ``above``, then the same row of ``below``, and so on; the last rows are filled with NaN,
        which is shown as gray.

    Raises
    ------
    DataError
        If the two differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.core.images import pairs
    >>> pairs(np.zeros((3, 1, 1)), np.ones((3, 1, 1)), columns=2).ravel()
    array([ 0.,  0.,  1.,  1.,  0., nan,  1., nan], dtype=float32)
    """
    both = [np.asarray(a, dtype=np.float32) for a in (above, below)]
    if both[0].shape != both[1].shape:
        raise DataError(f"pairs need one shape, and these have {both[0].shape} and {both[1].shape}")
    n, *shape = both[0].shape
    rows = math.ceil(n / columns)
    laid = np.full((2, rows * columns, *shape), np.nan, np.float32)
    laid[:, :n] = both
    return laid.reshape(2, rows, columns, *shape).swapaxes(0, 1).reshape(-1, *shape)


def _channels_last(X: NDArray[np.float32], layout: str) -> NDArray[np.float32]:
    import torch

    space = Space(X.shape[1:], layout=layout) if X.ndim > 1 and len(X) else None
    if space is None or not is_picture(space):
        raise DataError(
            f"an array of shape {X.shape} is not images of one channel or three: pass (n, H, W) or "
            "(n, H, W, C), with layout='hw' if H or W is below 8"
        )
    return np.moveaxis(space.to_model(torch.from_numpy(X)).numpy(), 1, -1)


def _to_bytes(X: NDArray[np.float32], value_range: tuple[float, float] | None) -> NDArray[Any]:
    known = np.isfinite(X)
    low, high = value_range or ((X[known].min(), X[known].max()) if known.any() else (0.0, 1.0))
    span = float(high) - float(low) or 1.0
    unit = np.clip((X - low) / span, 0, 1)
    return np.where(known, np.rint(unit * 255), _GAP_GRAY).astype(np.uint8)
