"""Adam over tensors that share one state: what the engine uses unless a plan brings its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["SCHEDULES", "Adam", "Shared"]

#: What a learning rate is multiplied by after a share of a training.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
}


class Adam:
    """Fused Adam, with the face of a torch optimizer.

    It is torch's own kernel. ``torch.optim.Adam`` imports the compiler when it is made, which takes longer
    than a small fit, and its bookkeeping takes a noticeable part of a small step.

    Parameters
    ----------
    parameters : sequence of Tensor
        Each of any shape, all on one device.
    lr : float
        Learning rate.
    eps : float
        Added to what gradients are divided by: much smaller ones hardly move anything.

    References
    ----------
    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.optimizers import Adam
    >>> w = torch.ones(1, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> (w * 3).sum().backward()
    >>> optimizer.step()
    >>> w.item()
    0.9
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, *, eps: float = 1e-8) -> None:
        self.parameters, self.eps = list(parameters), eps
        self.param_groups: list[dict[str, Any]] = [{"params": self.parameters, "lr": lr}]
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device, dtype=torch.float32) for p in self.parameters]

    @torch.no_grad()
    def step(self, skip: Tensor | None = None) -> None:
        """Move every parameter that has a gradient.

        Parameters
        ----------
        skip : Tensor or None
            ``()``, on the parameters' device: where it is true, nothing moves.
        """
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not used:
            return
        adam(
            [self.parameters[i] for i in used],
            [self.parameters[i].grad for i in used],  # type: ignore[misc]
            [self.means[i] for i in used],
            [self.squares[i] for i in used],
            [],
            [self.steps[i] for i in used],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.param_groups[0]["lr"],
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
            found_inf=None if skip is None else skip.float(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what is needed to go on.

        Returns
        -------
        dict
            Moments and step counts, not copied, and the learning rate.
        """
        return {
            "means": self.means,
            "squares": self.squares,
            "steps": self.steps,
            "lr": self.param_groups[0]["lr"],
        }

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Tell whether a state is of tensors such as these.

        Parameters
        ----------
        state : Mapping
            As :meth:`state_dict` gives it.

        Returns
        -------
        bool
            Whether :meth:`load_state_dict` takes it.
        """
        return [t.shape for t in state["means"]] == [t.shape for t in self.means]

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : Mapping
            As :meth:`state_dict` gives it.
        """
        for name in ("means", "squares", "steps"):
            for mine, theirs in zip(getattr(self, name), state[name], strict=True):
                mine.copy_(theirs)
        self.param_groups[0]["lr"] = state["lr"]


class Shared:
    """Adam for tensors that learn at rates of their own.

    Parameters
    ----------
    groups : sequence of (sequence of Tensor, float)
        Tensors of any shape, and their share of the learning rate.
    lr : float
        Learning rate, of which ``param_groups`` say the share.

    References
    ----------
    Howard and Ruder 2018, arXiv:1801.06146, section 3.2 (lower rates below).

    Examples
    --------
    >>> import torch
    >>> from chartae.training.optimizers import Shared
    >>> slow, fast = (torch.ones(1, requires_grad=True) for _ in range(2))
    >>> optimizer = Shared([([slow], 0.1), ([fast], 1.0)], lr=0.1)
    >>> (slow + fast).sum().backward()
    >>> optimizer.step()
    >>> round(slow.item(), 4), round(fast.item(), 4)
    (0.99, 0.9)
    """

    def __init__(self, groups: Sequence[tuple[Sequence[Tensor], float]], lr: float) -> None:
        self.each = [Adam(parameters, lr * share) for parameters, share in groups]
        self.param_groups = [one.param_groups[0] for one in self.each]
        for group, (_, share) in zip(self.param_groups, groups, strict=True):
            group["share"] = share

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for one in self.each:
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """Give what is needed to go on.

        Returns
        -------
        dict
            The states of its parts.
        """
        return {"each": [one.state_dict() for one in self.each]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : Mapping
            As :meth:`state_dict` gives it.
        """
        for mine, theirs in zip(self.each, state["each"], strict=True):
            mine.load_state_dict(theirs)
