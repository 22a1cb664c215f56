"""Layers of autoregressive flows, which posteriors and priors are made of."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import nn

from chartae.core.errors import PlanError
from chartae.core.registry import suggest

__all__ = ["autoregressive", "checked", "zuko_flows"]

NEARLY = 0.01  # of the last layers' usual size: a start at the identity itself would give others no gradient


def zuko_flows() -> Any:
    """Import zuko's flows, and leave torch's distributions as they are: the import ends their checks.

    Returns
    -------
    module
        ``zuko.flows``.

    Examples
    --------
    >>> from chartae.parts.flows import zuko_flows
    >>> zuko_flows().NSF.__name__
    'NSF'
    """
    from torch.distributions import Distribution

    before = Distribution._validate_args
    from zuko import flows

    Distribution.set_default_validate_args(before)
    return flows


def checked(kind: str, kinds: Sequence[str], **counts: Any) -> None:
    """Refuse what is no kind of flow, or counts nothing.

    Parameters
    ----------
    kind : str
        Which.
    kinds : sequence of str
        All there are.
    **counts : int or sequence of int
        Numbers that are one or more, by the names that recipes give them.

    Raises
    ------
    PlanError
        If it is unknown, or a number is none.

    Examples
    --------
    >>> from chartae.parts.flows import checked
    >>> checked("plana", ["planar", "radial"])
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: unknown flow 'plana': did you mean 'planar'? (known: planar, radial)
    """
    if kind not in kinds:
        raise PlanError(f"unknown flow {kind!r}: {suggest(kind, kinds)}")
    for name, value in counts.items():
        if name == "flow_hidden" and not isinstance(value, list | tuple):
            raise PlanError(f"{name}={value!r}: give a width for each layer, such as [64, 64]")
        each = value if isinstance(value, list | tuple) and value else (value,)
        if not all(isinstance(v, Integral) and int(v) > 0 for v in each):
            raise PlanError(f"{name}={value!r}: give whole numbers, one or more")


def autoregressive(
    kind: str, d: int, *, context: int = 0, length: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8
) -> nn.ModuleList:
    """Make transforms in which a dimension follows those before it, in one order and the reverse by turns.

    They start near the identity. The layers are those of zuko (Rozet et al. 2022,
    doi:10.5281/zenodo.7625672).

    Parameters
    ----------
    kind : {"affine", "spline"}
        Of each dimension: a shift and a scale, or a monotonic spline from -5 to 5.
    d : int
        How many dimensions.
    context : int
        Width of a condition.
    length : int
        How many transforms.
    hidden : sequence of int
        Widths of the layers in each.
    bins : int
        Of the splines.

    Returns
    -------
    nn.ModuleList
        Modules that give a transform of a context ``(n, context)`` or None.

    References
    ----------
    Papamakarios, Pavlakou and Murray 2017, arXiv:1705.07057; Durkan et al. 2019, arXiv:1906.04032.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.flows import autoregressive
    >>> (layer,) = autoregressive("affine", 3, context=2, length=1)
    >>> layer(torch.zeros(5, 2)).call_and_ladj(torch.zeros(5, 3))[1].shape
    torch.Size([5])
    """
    flows = zuko_flows()
    shape: dict[str, Any] = {"transforms": length, "hidden_features": list(hidden)}
    made = flows.MAF(d, context, **shape) if kind == "affine" else flows.NSF(d, context, bins=bins, **shape)
    layers: nn.ModuleList = made.transform.transforms.float()
    with torch.no_grad():
        for layer in layers:
            linear = [m for m in layer.modules() if isinstance(m, nn.Linear) or hasattr(m, "in_features")]
            # Of a single dimension without context there are no layers, but the numbers themselves.
            for p in (linear[-1] if linear else layer).parameters():
                p.mul_(NEARLY)
    return layers
