"""Folders of images as one array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from chartae.core.errors import DataError, one_line

__all__ = ["IMAGES", "load_images"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
LONGEST = 64  # pixels of the longer side, where images differ in size and none is given


def load_images(files: Sequence[Path], size: tuple[int, int] | None) -> tuple[NDArray[Any], list[str]]:
    """Load images into one array: a first pass reads the headers, a second the pixels.

    Parameters
    ----------
    files : sequence of Path
        ``n`` of them.
    size : (int, int) or None
        Height and width in pixels; None: their own, or, where they differ, the median.

    Returns
    -------
    X : ndarray of shape (n, height, width) or (n, height, width, 3)
        Pixels as stored.
    notes : list of str
        What was chosen on the way.

    Raises
    ------
    DataError
        If a file cannot be read, or types of pixels differ.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from PIL import Image
    >>> from chartae.training.pictures import load_images
    >>> for side in (2, 6):
    ...     Image.fromarray(np.zeros((4, side), np.uint8)).save(f"{side}.png")
    >>> X, notes = load_images([Path("2.png"), Path("6.png")], None)
    >>> X.shape, notes
    ((2, 4, 4), ['resized to 4 × 4 from sizes between 4 × 2 and 4 × 6; --size chooses'])
    """
    heads = [_head(file) for file in files]
    notes = []
    sizes = sorted({head[0] for head in heads}, key=math.prod)
    chooses = "; --size chooses" if size is None else ""
    size = size or (_usual_size([head[0] for head in heads]) if len(sizes) > 1 else sizes[0])
    if sizes != [tuple(size)]:
        to, least, most = (f"{h} × {w}" for h, w in (size, sizes[0], sizes[-1]))
        between = f"sizes between {least} and {most}" if len(sizes) > 1 else least
        notes.append(f"resized to {to} from {between}{chooses}")
    kinds = [head[1] for head in heads]
    kind = "RGB" if set(kinds) == {"L", "RGB"} else kinds[0]
    odd = [i for i, k in enumerate(kinds) if k != kind]
    if odd and set(kinds) != {"L", "RGB"}:
        other = next(i for i in odd if {kind, kinds[i]} != {"L", "RGB"})  # of which there is one
        types = f"{files[0]} has pixels of type {kind} and {files[other]} of type {kinds[other]}"
        raise DataError(f"{types}: save all images as one type")
    if odd:
        notes.append(f"{len(odd):,} gray image{'s' * (len(odd) > 1)} as color")
    if any(head[2] for head in heads):
        notes.append("transparency on white")
    if any(head[3] for head in heads):
        notes.append("16 bits a channel as 8")
    first = _pixels(files[0], kind, size)
    X = np.empty((len(files), *first.shape), first.dtype)
    for i, file in enumerate(files):
        X[i] = _pixels(file, kind, size)
    return X, notes


def _usual_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Choose one size for images of several: the median height and width, scaled down to ``LONGEST``."""
    height, width = (float(side) for side in np.median(sizes, axis=0))
    factor = min(1.0, LONGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def _head(file: Path) -> tuple[tuple[int, int], str, bool, bool]:
    """Return (height, width) as shown, the kind of pixel, whether some are transparent, and bits are cut."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            # Cameras put previews and depths behind a photograph, which alone is its image.
            frames: int = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            width, height = image.size
            if image.getexif().get(0x0112, 1) >= 5:  # Exif: the camera was held upright
                width, height = height, width
            if frames > 1:
                raise DataError(f"{file} holds {frames} images: save each as a file of its own")
            kind = _kind(image.mode)
            cut = image.format == "PNG" and not kind.startswith("I") and _bits_of_png(file) == 16
            return (height, width), kind, _is_transparent(image), cut
    except Exception as e:
        _unreadable(file, e)


def _bits_of_png(file: Path) -> int:
    """Bits a channel, of which Pillow keeps 8 where there are several channels."""
    with file.open("rb") as content:
        return content.read(25)[24]


def _is_transparent(image: Any) -> bool:
    """Tell whether some pixels may be so; of 16 bits they are left as they are stored."""
    stated = "transparency" in image.info and _kind(image.mode) in ("L", "RGB")
    return stated or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _kind(mode: str) -> str:
    """Return the mode that an image of pillow's ``mode`` is read in."""
    if mode in ("1", "L", "LA", "La"):
        return "L"
    if mode.startswith("I;16"):
        return "I;16"
    return mode if mode in ("I", "F") else "RGB"


def _pixels(file: Path, kind: str, size: tuple[int, int] | None) -> NDArray[Any]:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if _is_transparent(image):
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            if not image.mode.startswith("I;16"):  # 16 bits stay as they are, in their own byte order
                image = image.convert(kind)
            if size is not None:
                image = image.resize((size[1], size[0]), Image.Resampling.BOX)
            return np.asarray(image)
    except Exception as e:
        _unreadable(file, e)


def _unreadable(file: Path, error: Exception) -> NoReturn:
    if isinstance(error, DataError):
        raise error
    cure = "remove it, or save it again"
    if type(error).__name__ == "DecompressionBombError":  # of Pillow, which is not imported for this
        cure = "make it smaller first"
    elif isinstance(error, PermissionError):
        error, cure = OSError(error.strerror), "change its permissions"
    raise DataError(f"cannot read image {file} ({one_line(error)}): {cure}") from None
