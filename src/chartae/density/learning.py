"""The training of densities that are networks: by held-out codes, for as long as these gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Batch
from chartae.core.noise import Noise
from chartae.training.graphs import Recorded
from chartae.training.loop import set_back, snapshot
from chartae.training.optimizers import SCHEDULES, Adam

__all__ = ["learn"]

CLIP = 5.0  # largest norm of a gradient


def learn(
    density: nn.Module,
    network: nn.Module,
    log_prob: Callable[[Tensor], Tensor],
    train: Tensor,
    choose: Tensor,
    *,
    learning_rate: float,
    epochs: int,
    steps: int,
    patience: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> None:
    """Maximize a mean log density, and keep the weights of the best epoch.

    Parameters
    ----------
    density : nn.Module
        All that the log density is of, on the CPU.
    network : nn.Module
        What of it is trained, in place; its weights require no gradient before and after.
    log_prob : callable
        From codes ``(m, ...)`` to ``(m,)`` nats, whole or a share of each code's. On a GPU it is recorded, if
        it can be, and does the same thing each time.
    train, choose : Tensor
        ``(n, ...)`` codes to train on, and to compare epochs by, on the CPU.
    learning_rate : float
        Of Adam, at first; it falls to zero by a cosine.
    epochs, steps : int
        At most.
    patience : int
        Epochs without a gain after which to stop.
    seed : int
        Of the order of codes.
    device : torch.device or str
        Where to work meanwhile.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from chartae.density.learning import learn
    >>> from chartae.parts.distributions import DiagonalNormal
    >>> z, mean = (
    ...     3 + torch.randn(400, 1, generator=torch.Generator().manual_seed(0)),
    ...     nn.Linear(1, 1, bias=False),
    ... )
    >>> _ = nn.init.zeros_(mean.weight)
    >>> learn(
    ...     mean,
    ...     mean.requires_grad_(False),
    ...     lambda z: DiagonalNormal(mean(torch.ones_like(z)), torch.zeros(())).log_prob(z),
    ...     z[:300],
    ...     z[300:],
    ...     learning_rate=0.1,
    ...     epochs=50,
    ...     steps=500,
    ...     patience=5,
    ...     seed=0,
    ... )
    >>> bool((mean.weight - 3).abs() < 0.2)
    True
    """

    def score() -> float:
        with torch.no_grad():
            value = float(log_prob(choose).mean())
        return value if value == value else -math.inf

    def slopes(batch: Batch, noise: Noise) -> tuple[Tensor, list[Any]]:
        for p in parameters:
            p.grad = None
        loss = -log_prob(batch.x).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, CLIP)
        return ~(loss.detach() + norm).isfinite(), [p.grad for p in parameters]

    density.to(device)
    train, choose = train.to(device), choose.to(device)
    call: Callable[[Batch, Noise], tuple[Tensor, list[Any]]] = slopes
    silent = Noise(seed)  # which no log density asks for
    generator = torch.Generator().manual_seed(seed)
    size = min(256, max(32, len(train) // 10))
    epochs = max(1, min(epochs, steps * size // len(train)))
    parameters = list(network.parameters())
    with torch.enable_grad():
        network.requires_grad_(True)
        optimizer = Adam(parameters, lr=learning_rate)
        if train.is_cuda:
            call = Recorded(slopes, [*density.buffers(), *density.parameters()], train.device)
        best, kept, waited = score(), snapshot(network), 0
        for epoch in range(epochs):
            for rows in torch.randperm(len(train), generator=generator, device="cpu").to(device).split(size):
                useless, grads = call(Batch(train[rows]), silent)
                for p, grad in zip(parameters, grads, strict=True):
                    p.grad = grad
                optimizer.step(skip=useless)
            optimizer.param_groups[0]["lr"] = learning_rate * SCHEDULES["cosine"]((epoch + 1) / epochs)
            if (now := score()) > best:
                best, kept, waited = now, snapshot(network), 0
            elif (waited := waited + 1) >= patience:
                break
    for p in parameters:
        p.grad = None
    set_back(kept, network)
    network.requires_grad_(False)
    density.to("cpu")
