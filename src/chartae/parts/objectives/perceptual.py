"""Likeness of images as people see it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from chartae.core.contracts import Objective, Term, Trace
from chartae.core.errors import PlanError

__all__ = ["MSSSIM", "ms_ssim"]

WINDOW, SIGMA = 11, 1.5  # pixels
STABLE = (0.01**2, 0.03**2)  # of a range of one
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of scales, the finest first
FLOOR = 0.01


class MSSSIM(Objective):
    """Unlikeness of image and reconstruction, ``E_q[1 - MS-SSIM(x, point of p(x | z))]``.

    It takes images of any size and any number of channels. It is no likelihood: what density x has is said by
    the model's likelihood, whose noise is estimated beside it.

    Notes
    -----
    Contrast is relative to the range of values that the space of the data knows. A value that is missing
    counts as reconstructed. Needed are a likelihood with nothing to learn but where its point lies, since
    nothing else is taught, and items that are images.

    References
    ----------
    Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216, equation 7; as a loss: Snell et al. 2017,
    arXiv:1511.06409.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, MSSSIM
    >>> 100.0 * MSSSIM() + KL()
    100 * ms_ssim + kl
    """

    needs = frozenset({"posterior.reparameterized", "likelihood.located", "space.images"})

    def forward(self, trace: Trace) -> dict[str, Term]:
        space: Any = trace.model.space
        low, high = space.support.low, space.support.high
        if low is None or high is None:
            low, high = space.value_range
        size = (high - low) or 1.0
        scale, shift = (t.float() for t in (space.scale / size, (space.center - low) / size))
        point = trace.px.point()
        x = torch.where(trace.batch.x.isnan(), point.detach(), trace.batch.x)  # (k, n, C, H, W)
        one, other = (torch.addcmul(shift, t.expand_as(point).flatten(0, 1), scale) for t in (x, point))
        likeness = ms_ssim(one, other).unflatten(0, point.shape[:2])
        return {"ms_ssim": Term(trace.expect(1.0 - likeness), unit="1 - MS-SSIM")}

    def __repr__(self) -> str:
        return "ms_ssim"


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images at several scales; 1 for the same image.

    Parameters
    ----------
    x, y : Tensor
        ``(n, C, H, W)`` images whose values range over one unit.

    Returns
    -------
    Tensor
        ``(n,)``, above 0 and at most 1: the mean over channels.

    Raises
    ------
    PlanError
        If they are no such images.

    Notes
    -----
    Windows have 11 x 11 pixels, or as many as there are. There are up to five scales, each half of the one
    before it: as many as have 11 pixels a side, and one at least; their weights are divided by their sum.
    Below 0.01 the logarithm of a scale's likeness, which the published product raises to a fraction though it
    may be negative, goes on as its tangent.

    References
    ----------
    Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216, equation 7.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import ms_ssim
    >>> x = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    >>> ms_ssim(x, x), bool((ms_ssim(x, 1 - x) < 0.1).all())
    (tensor([1., 1.]), True)
    """
    if x.dim() != 4 or x.shape != y.shape:
        raise PlanError(f"images of shapes {tuple(x.shape)} and {tuple(y.shape)}: give two of (n, C, H, W)")
    side = min(x.shape[2:])
    scales = 1 + sum(side >> j >= WINDOW for j in range(1, len(WEIGHTS)))
    total = math.fsum(WEIGHTS[:scales])
    log_likeness = x.new_zeros(x.shape[:2])
    # Not in half precision: a variance is a small difference of squares.
    with torch.autocast(x.device.type, enabled=False):
        for j, weight in enumerate(WEIGHTS[:scales]):
            luminance, structure = _similarity(x, y)
            likeness = structure * luminance if j == scales - 1 else structure
            log_likeness = log_likeness + weight / total * _log(likeness.mean((2, 3)))
            if j < scales - 1:
                x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return log_likeness.exp().mean(1)


def _log(v: Tensor) -> Tensor:
    """Logarithm above the floor, and its tangent there below it."""
    kept = v.clamp_min(FLOOR)
    return kept.log() + (v - kept) / FLOOR


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Likeness in luminance, and in contrast and structure, at every place of the window."""
    pixels = torch.cat([x, y, x * x, y * y, x * y])
    flat = pixels.flatten(0, 1).unsqueeze(1)
    for axis in (2, 3):
        window = _window(min(WINDOW, flat.shape[axis]), flat)
        flat = F.conv2d(flat, window.view(1, 1, -1, 1) if axis == 2 else window.view(1, 1, 1, -1))
    mean_x, mean_y, xx, yy, xy = flat.unflatten(0, pixels.shape[:2]).squeeze(2).chunk(5)
    c1, c2 = STABLE
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * product + c1) / (squares + c1)
    return luminance, (2 * (xy - product) + c2) / (xx + yy - squares + c2)


def _window(size: int, like: Tensor) -> Tensor:
    """Weights of a normal, which add up to one."""
    places = torch.arange(size, dtype=like.dtype, device=like.device) - 0.5 * (size - 1)
    return (-0.5 * (places / SIGMA).square()).softmax(0)
