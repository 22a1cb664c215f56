"""What figures are made of: charts in the inks of light and of dark paper, and sheets of pictures."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ACCENT", "INK", "SECOND", "Figure", "Panel", "chart", "sheet"]

INK = "#1f1f1f"  # any gray: on dark paper it becomes light
SOFT = "#828282"
ACCENT = "#3b76c4"
SECOND = "#d95f02"
ALARM = (214, 39, 40, 255)
GAP = 4  # pixels between tiles: room for a frame
LONGEST = 64  # pixels of a tile's longer side; smaller where they are many
HEAVY = 150_000  # bytes from which on a picture gets along with 256 colors
RESOLUTION = 160


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Parameters
    ----------
    light, dark : str
        Addresses that hold the picture, for light paper and for dark; empty where one serves for both.
    size : tuple of int
        Width and height on the page.
    alt : str
        What it shows, for those who cannot see it.
    label : str
        What stands above it.
    pixels : bool
        Whether it is made of pixels that are to be seen.

    Examples
    --------
    >>> from chartae.audits.page.panels import Panel
    >>> Panel("data:,", "", (1, 1), "A dot").label
    ''
    """

    light: str
    dark: str
    size: tuple[int, int]
    alt: str
    label: str = ""
    pixels: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure of the page.

    Parameters
    ----------
    name, title : str
        By which it is linked, and its heading.
    shows, good : str
        What is seen, and what a good one looks like.
    panels : tuple of Panel
        Its pictures.

    Examples
    --------
    >>> from chartae.audits.page.panels import Figure
    >>> Figure("map", "Map", "Codes.", "No gaps.", ()).name
    'map'
    """

    name: str
    title: str
    shows: str
    good: str
    panels: tuple[Panel, ...]


class chart:
    """Axes to draw into, which become a panel: ``with chart("Loss", "Loss by epoch") as c: c.ax.plot(...)``.

    Parameters
    ----------
    label, alt : str
        Of the :class:`Panel`.
    width, height : float
        In inches; 3.5 is the width of a phone.
    right, bottom : float
        Inches left for what stands there.

    Attributes
    ----------
    ax : Axes
        Of matplotlib.

    Examples
    --------
    >>> from chartae.audits.page.panels import chart
    >>> made = chart("Loss", "Loss by epoch")
    >>> made.ax.plot([3, 2, 1])
    [<matplotlib.lines.Line2D object at ...>]
    >>> made.panel().light[:15]
    'data:image/png;'
    """

    def __init__(
        self,
        label: str,
        alt: str,
        *,
        width: float = 3.5,
        height: float = 2.7,
        right: float = 0.12,
        bottom: float = 0.46,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing

        self.label, self.alt = label, alt
        self.drawing = Drawing(figsize=(width, height), dpi=RESOLUTION)
        self.canvas = FigureCanvasAgg(self.drawing)
        self.drawing.patch.set_alpha(0)
        # Room by rule: a layout that measures text first takes twice the time of drawing.
        room = (0.68 / width, bottom / height, 1 - (0.68 + right) / width, 1 - (bottom + 0.12) / height)
        self.ax: Axes = self.drawing.add_axes(room)
        self.ax.set_facecolor("none")
        for side, spine in self.ax.spines.items():
            spine.set(visible=side in ("left", "bottom"), color=SOFT)
        self.ax.tick_params(colors=INK, labelsize=8, color=SOFT, which="both")
        for axis in (self.ax.xaxis, self.ax.yaxis):
            axis.label.set(color=INK, fontsize=9)

    def logarithmic(self, *axes: str) -> None:
        """Make axes logarithmic, with plain numbers.

        Parameters
        ----------
        *axes : {"x", "y"}
            Which.
        """
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        for name in axes:
            self.ax.set(**{f"{name}scale": "log"})
            axis = self.ax.xaxis if name == "x" else self.ax.yaxis
            low, high = sorted(axis.get_view_interval())
            subs = (1.0,) if low > 0 and high / low > 200 else (1.0, 2.0, 5.0)
            axis.set_major_locator(LogLocator(subs=subs))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_minor_formatter(NullFormatter())

    def legend(self, **options: Any) -> None:
        """Name what was drawn.

        Parameters
        ----------
        **options : object
            Of ``Axes.legend``.
        """
        self.ax.legend(**{"frameon": False, "fontsize": 8, "labelcolor": INK, **options})

    def panel(self) -> Panel:
        """Draw it.

        Returns
        -------
        Panel
            In both inks.
        """
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of letters that no font has
            self.canvas.draw()
        light = np.asarray(self.canvas.buffer_rgba())
        dark = light.copy()
        rgb = light[..., :3]
        gray = (rgb.max(-1) - rgb.min(-1)) < 12
        dark[gray, :3] = np.clip(260 - rgb[gray].astype(int), 0, 255)
        width, height = (round(v * 100) for v in self.drawing.get_size_inches())
        return Panel(_png(light), _png(dark), (width, height), self.alt, self.label)


def sheet(
    rows: Sequence[np.ndarray], alt: str, label: str = "", marked: Sequence[np.ndarray] | None = None
) -> Panel:
    """Lay tiles out in rows.

    Parameters
    ----------
    rows : sequence of ndarray
        ``(n, height, width, channels)`` bytes each.
    alt, label : str
        Of the :class:`Panel`.
    marked : sequence of ndarray or None
        ``(n,)`` for each row: tiles that get a frame.

    Returns
    -------
    Panel
        One picture.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.audits.page.panels import sheet
    >>> sheet([np.zeros((3, 8, 8, 1), np.uint8)], "Three tiles").size
    (40, 16)
    """
    height, width = rows[0].shape[1:3]
    most = max(len(row) for row in rows)
    shape = (len(rows) * (height + GAP) + GAP, most * (width + GAP) + GAP, 4)
    page = np.zeros(shape, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = GAP + i * (height + GAP), GAP + j * (width + GAP)
            if marked is not None and marked[i][j]:
                page[top - 3 : top + height + 3, left - 3 : left + width + 3] = ALARM
            page[top : top + height, left : left + width, :3] = tile
            page[top : top + height, left : left + width, 3] = 255
    return Panel(_png(page), "", (page.shape[1], page.shape[0]), alt, label, pixels=True)


def _png(pixels: np.ndarray) -> str:
    """Encode ``(height, width, 4)`` bytes as an address."""
    from PIL import Image

    image = Image.fromarray(pixels)
    data = _saved(image)
    if len(data) > HEAVY:
        data = _saved(image.quantize(256, method=Image.Quantize.FASTOCTREE))
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _saved(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
