"""Why a step has come to nothing."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Batch, Plan, Term
from chartae.core.noise import LentGenerator, Noise
from chartae.parts.networks import MLP

__all__ = ["diagnose"]


def diagnose(plan: Plan, batch: Batch, terms: Mapping[str, Term], place: str) -> str:
    """Name the batch, the term and the first layer that is not finite.

    Parameters
    ----------
    plan : Plan
        What is trained, as it was after the fault.
    batch : Batch
        Of the step.
    terms : Mapping of str to Term
        What came of it, whose values are nats.
    place : str
        What to call the batch.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.models.recipes import build
    >>> from chartae.training.faults import diagnose
    >>> plan, batch = build("ae", (4,), hidden=(8,)), Batch(torch.full((5, 4), torch.nan))
    >>> terms = plan.objective(plan.model.trace(batch, k=1, noise=Noise(0)))
    >>> diagnose(plan, batch, terms, "epoch 1, batch 0")
    "the term 'nll' is not finite in epoch 1, batch 0 (the data themselves are not finite)"
    """

    def broken(t: object) -> bool:
        return isinstance(t, Tensor) and not bool(torch.isfinite(t).all())

    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            if not found and isinstance(out, Tensor) and broken(out):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    log_lik = torch.zeros(())
    # Modules of the user's may not be made for copies or hooks: the fault is reported all the same.
    with contextlib.suppress(Exception), torch.no_grad(), LentGenerator(0, batch.x.device):
        # A copy, without kernels that hide layers: another pass must not move running estimates.
        model = copy.deepcopy(plan.model)
        for name, module in model.named_modules():
            if isinstance(module, MLP):
                module.kernel = None
            if not list(module.children()):
                module.register_forward_hook(watch(name))
        # What dropout, corruption or batch statistics break shows in training only.
        for training in (False, True):
            if not (found or broken(log_lik)):
                trace = model.train(training).trace(batch, k=plan.objective.samples, noise=Noise(0))
                log_lik = trace.log_lik
    term = next((name for name, t in terms.items() if broken(t.rows) or broken(t.value())), None)
    what = f"the term {term!r} is not finite" if term else "the gradient is not finite"
    weights = next((name for name, p in plan.model.named_parameters() if broken(p)), None)
    grads = next((name for name, p in plan.model.named_parameters() if broken(p.grad)), None)
    if broken(batch.x.nan_to_num(nan=0.0) if plan.model.likelihood.gaps else batch.x):
        where = "the data themselves are not finite"
    elif found:
        where = f"first seen in the output of layer {found[0]}"
    elif weights:
        where = f"first seen in the weights {weights}"
    elif broken(log_lik):
        where = "first seen in the likelihood"
    elif grads:
        where = f"first seen in the gradient of {grads}"
    elif term:
        where = "seen once, and not again"
    else:
        what, where = "the gradient is too large for float32", "clip, or a smaller learning_rate, may help"
    return f"{what} in {place} ({where})"
