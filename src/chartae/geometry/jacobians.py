"""Exact derivatives of a chart's two maps, for many rows at once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vjp, vmap

from chartae.core.errors import DataError
from chartae.geometry.charts import chart_of, codes_of, rows_of

__all__ = ["decoder_jacobian", "encoder_jacobian", "pullback", "pushforward"]


def pushforward(
    f: Callable[[Tensor], Tensor], at: Tensor, tangents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Push tangents through a map of independent rows: f(x) and J v.

    All tangents of all rows go through each layer as one batch, and the values once.

    Source: forward-mode differentiation, as :func:`torch.func.jvp` does it.

    Parameters
    ----------
    f : callable
        ``(n, *a)`` to ``(n, *b)``; its rows do not depend on each other.
    at : Tensor
        ``(n, *a)``.
    tangents : Tensor or None
        ``(k, n, *a)``; None: the axes of ``(n, a)``, so that J is what comes back.

    Returns
    -------
    tuple of Tensor
        ``(n, *b)`` and ``(k, n, *b)``.

    Raises
    ------
    DataError
        If the map cuts gradients.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry.jacobians import pushforward
    >>> pushforward(torch.square, torch.tensor([[3.0]]), torch.ones(1, 1, 1))
    (tensor([[9.]]), tensor([[[6.]]]))
    """
    tangents = _axes(at) if tangents is None else tangents

    def slopes(at: Tensor) -> tuple[Tensor, Tensor]:
        def along(v: Tensor) -> Any:
            return jvp(f, (at,), (v,))

        with torch.no_grad(), _quiet():
            found: tuple[Tensor, Tensor] = vmap(along, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
        return found

    out, pushed = slopes(at)
    _refuse_cuts(slopes, at, out, pushed)
    return out, pushed


def pullback(
    f: Callable[[Tensor], Tensor], at: Tensor, cotangents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pull cotangents back through a map of independent rows: f(x) and Jᵀ u.

    Source: reverse-mode differentiation, as :func:`torch.func.vjp` does it.

    Parameters
    ----------
    f : callable
        ``(n, *a)`` to ``(n, *b)``; its rows do not depend on each other.
    at : Tensor
        ``(n, *a)``.
    cotangents : Tensor or None
        ``(k, n, *b)``; None: the axes of ``(n, b)``, so that J is what comes back, row by row.

    Returns
    -------
    tuple of Tensor
        ``(n, *b)`` and ``(k, n, *a)``.

    Raises
    ------
    DataError
        If the map cuts gradients.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry.jacobians import pullback
    >>> pullback(torch.square, torch.tensor([[3.0]]), torch.ones(1, 1, 1))
    (tensor([[9.]]), tensor([[[6.]]]))
    """

    def slopes(at: Tensor) -> tuple[Tensor, Tensor]:
        out, back = vjp(f, at)[:2]
        given = _axes(out) if cotangents is None else cotangents
        return out.detach(), vmap(lambda u: back(u)[0])(given).detach()

    try:
        out, pulled = slopes(at)
        _refuse_cuts(slopes, at, out, pulled)
    except RuntimeError as error:
        if "does not require grad" in str(error):
            raise DataError(CUT) from None
        raise
    return out, pulled


CUT = "the map cuts gradients: take torch.no_grad, inference_mode or detach out of encode and decode"
NUDGE = 1e-3  # of a value, which a map without a slope does not feel


def _refuse_cuts(
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]], at: Tensor, out: Tensor, found: Tensor
) -> None:
    """Refuse slopes that are all zero, here and nearby, of a map that moves, where they were asked for."""
    if found.numel() and not found.any():
        moved, nearby = slopes(at * (1 + NUDGE) + NUDGE)
        if not nearby.any() and not torch.equal(moved, out):
            raise DataError(CUT)


def _quiet() -> AbstractContextManager[Any]:
    """Silence what torch says when it first loads its rules of differentiation, which it scripts."""
    if "torch._decomp.decompositions_for_jvp" in sys.modules:
        return nullcontext()
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)


def _axes(like: Tensor) -> Tensor:
    """``(d, n, d)``: every axis, for every row of ``(n, d)``."""
    n, d = like.shape
    return torch.eye(d, dtype=like.dtype, device=like.device)[:, None].expand(d, n, d)


def decoder_jacobian(model: Any, Z: Any, condition: Any = None) -> np.ndarray:
    """Differentiate the decoder: column i is ∂D/∂z_i, a tangent of the decoded manifold.

    Source: the definition, by :func:`pushforward`.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    Z : array_like
        ``(n, d)`` codes.
    condition : object, optional
        As the model takes it.

    Returns
    -------
    ndarray
        ``(n, *shape, d)``, in units of the data per unit of the code.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import decoder_jacobian
    >>> circle = (lambda x: torch.atan2(x[:, 1:], x[:, :1]), lambda z: torch.cat([z.cos(), z.sin()], 1))
    >>> decoder_jacobian(circle, [[0.0]]).tolist()
    [[[0.0], [1.0]]]
    """
    chart = chart_of(model)
    z = codes_of(Z, chart.latent_dim)
    c = chart.condition(condition, len(z))
    shape = chart.decoded(z[:1], None if c is None else c[:1]).shape[1:]
    made = np.empty((len(z), *shape, z.shape[1]), dtype=np.float32)
    for b in chart.blocks(len(z), z.shape[1]):
        J = pushforward(lambda h: chart.decode(h, *rows_of(c, b)), z[b])[1]  # noqa: B023
        made[b] = J.movedim(0, -1).cpu().numpy()
    return made


def encoder_jacobian(model: Any, X: Any, condition: Any = None) -> np.ndarray:
    """Differentiate the encoder: row i is the gradient of z_i, where in the data it looks.

    Source: the definition, by :func:`pullback`.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    X : array_like
        ``(n, *shape)`` items.
    condition : object, optional
        As the model takes it.

    Returns
    -------
    ndarray
        ``(n, d, *shape)``, in units of the code per unit of the data.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import encoder_jacobian
    >>> plane = (lambda x: x[:, :1] * x[:, 1:], lambda z: torch.cat([z, z], 1))
    >>> encoder_jacobian(plane, [[2.0, 3.0]]).tolist()
    [[[3.0, 2.0]]]
    """
    chart = chart_of(model)
    x, c = chart.take(X, condition)
    made = []
    for b in chart.blocks(len(x), chart.codes(x[:1], None if c is None else c[:1]).shape[1]):
        made.append(pullback(lambda h: chart.encode(h, *rows_of(c, b)), x[b])[1])  # noqa: B023
    return torch.cat([g.movedim(0, 1) for g in made]).cpu().numpy()
