"""What a processor can do, and what arithmetic a model can stand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Model
from chartae.core.errors import PlanError

__all__ = [
    "autocast",
    "channels_last",
    "choose_device",
    "choose_precision",
    "flushed_denormals",
    "gains_from_bf16",
    "start_threads",
]

WIDE = 128  # both sides of a layer: below, the casts to and from bf16 cost more than the product gains


def choose_device(device: str) -> torch.device:
    """Resolve "auto" to a GPU where there is one.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:1" ...

    Returns
    -------
    torch.device
        Which can compute.

    Raises
    ------
    PlanError
        If it is not there, or holds no numbers.

    Examples
    --------
    >>> from chartae.training.precision import choose_device
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).item()  # "meta" has no numbers to give back
    except (RuntimeError, AssertionError, ImportError):
        raise PlanError(f"device {device!r} cannot compute here: use 'auto' or 'cpu'") from None
    return chosen


def choose_precision(precision: str, model: Model, device: torch.device) -> torch.dtype:
    """Resolve "auto" to bf16 where it is faster and costs no quality.

    That is for wide layers, on hardware that multiplies in bf16, and for likelihoods of logits: a Normal
    likelihood with small noise would see the eight bits of a bf16 mean.

    Parameters
    ----------
    precision : {"auto", "float32", "bf16"}
        What the user asks for.
    model : Model
        What is trained.
    device : torch.device
        Where.

    Returns
    -------
    torch.dtype
        float32 or bfloat16.

    Raises
    ------
    PlanError
        If the precision is unknown.

    Examples
    --------
    >>> import torch
    >>> from chartae.models.recipes import build
    >>> from chartae.training.precision import choose_precision
    >>> choose_precision("auto", build("vae", (4,), hidden=(8,)).model, torch.device("cpu"))
    torch.float32
    """
    known = {"float32": torch.float32, "bf16": torch.bfloat16}
    if precision in known:
        return known[precision]
    if precision != "auto":
        raise PlanError(f"precision={precision!r}: use 'auto', 'float32' or 'bf16'")
    wide = any(gains_from_bf16(w) for w in model.parameters())
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
    return torch.bfloat16 if wide and able and not model.likelihood.continuous else torch.float32


def gains_from_bf16(weight: Tensor) -> bool:
    """Tell whether a layer is wide enough on both sides for bf16 to be faster.

    Parameters
    ----------
    weight : Tensor
        ``(out, in, ...)``.

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.precision import gains_from_bf16
    >>> gains_from_bf16(torch.zeros(512, 784)), gains_from_bf16(torch.zeros(2, 512))
    (True, False)
    """
    return weight.dim() >= 2 and min(weight.shape[:2]) >= WIDE


def _cpu_multiplies_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile")
    )


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Enter mixed precision, or nothing for float32.

    Parameters
    ----------
    device : torch.device
        Where.
    dtype : torch.dtype
        float32 or bfloat16.

    Returns
    -------
    context manager
        To be entered once an epoch.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.precision import autocast
    >>> with autocast(torch.device("cpu"), torch.bfloat16):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Make denormal numbers zero in this thread, for a while, and in the threads that start meanwhile.

    Adam's moments of rarely active weights decay into denormals, which triple the time of a step.
    The setting belongs to a thread: torch's pool, started by the first parallel work of a process, keeps
    what the starting thread had, so a first fit before other parallel work is the fastest. The calling
    thread gets its own setting back.

    Yields
    ------
    None
        Inside, results below 1.2e-38 are zero.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.precision import flushed_denormals
    >>> with flushed_denormals():
    ...     print((torch.tensor([1e-38]) * 1e-3).item())
    0.0
    """
    flushing = (torch.tensor([1e-38], dtype=torch.float32) * 1e-3).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushing)


def start_threads() -> None:
    """Start torch's pool with denormals flushed, if nothing has started it yet.

    Threads take the setting from the one that starts them and keep it, so this comes before any parallel
    work of a fit: a pool that is started by the sorting of row numbers slows every later step.

    Examples
    --------
    >>> from chartae.training.precision import start_threads
    >>> start_threads()
    """
    with flushed_denormals():
        # Large enough for a part of the work to go to each thread.
        torch.ones(torch.get_num_threads() << 16).add_(1)


def channels_last(model: nn.Module) -> nn.Module:
    """Lay convolution weights out the way CPUs and GPUs multiply them fastest.

    Parameters
    ----------
    model : nn.Module
        Changed in place.

    Returns
    -------
    nn.Module
        The same.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.precision import channels_last
    >>> net = channels_last(torch.nn.Conv2d(2, 3, 3))
    >>> net.weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    for layer in model.modules():
        for p in layer.parameters(recurse=False) if isinstance(layer, nn.modules.conv._ConvNd) else ():
            if p.dim() == 4:  # two-dimensional ones; entries of several codebooks have no channels
                p.data = p.data.contiguous(memory_format=torch.channels_last)
    return model
