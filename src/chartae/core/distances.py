"""Distances between points."""

from __future__ import annotations

from torch import Tensor

__all__ = ["squares"]


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of all pairs: from products, which is faster, and clamped where they cancel.

    Parameters
    ----------
    a, b : Tensor
        ``(..., n, d)`` and ``(..., m, d)``.

    Returns
    -------
    Tensor
        ``(..., n, m)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.distances import squares
    >>> squares(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[25.,  1.]])
    """
    norms = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
    return (norms - 2 * a @ b.mT).clamp_min(0.0)
