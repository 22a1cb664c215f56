"""Networks around others: for part of the input, for another shape, and of the user's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.parts.networks.layers import Shape

__all__ = ["Foreign", "Leading", "Reshaped"]

PROBES, FAR = 64, 100.0  # inputs that show where outputs end, and how far away they are


class Leading(nn.Module):
    """A network that sees the first numbers of a code only.

    Parameters
    ----------
    network : nn.Module
        What is wrapped.
    width : int
        How many it sees.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, Leading
    >>> Leading(MLP((2,), (4,), hidden=()), 2)(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, d)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, ...)``.
        """
        h = h[:, : self.width]
        out: Tensor = self.network(h) if c is None else self.network(h, c)
        return out


class Reshaped(nn.Module):
    """A network whose items have another shape before or after it.

    Parameters
    ----------
    network : nn.Module
        What is wrapped.
    before, after : tuple of int or None
        Shape of an item as the network takes it, and as this one gives it; None: as it comes.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP, Reshaped
    >>> Reshaped(MLP((1, 6), (4,), hidden=()), before=(1, 6), after=(2, 2))(torch.zeros(5, 6)).shape
    torch.Size([5, 2, 2])
    """

    def __init__(self, network: nn.Module, before: Shape | None = None, after: Shape | None = None) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, ...)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, *after)``.
        """
        h = h if self.before is None else h.reshape(len(h), *self.before)
        out: Tensor = self.network(h, c)
        return out if self.after is None else out.reshape(len(out), *self.after)


class Foreign(nn.Module):
    """A module of the user's, checked once, with a linear head where its width is another.

    Parameters
    ----------
    module : nn.Module
        Called as ``module(h)``, or ``module(h, c)`` in a conditional model.
    in_shape, out_shape : tuple of int
        Shapes of one item before and after.
    condition_dim : int
        Width of the condition.
    head : bool
        Whether a linear layer may adapt the output width (encoders).

    Raises
    ------
    PlanError
        If the module cannot take ``(2, *in_shape)`` or gives another size than ``out_shape``.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import Foreign
    >>> Foreign(torch.nn.Linear(4, 9), (4,), (6,), head=True)(torch.zeros(5, 4)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self, module: nn.Module, in_shape: Shape, out_shape: Shape, condition_dim: int = 0, head: bool = False
    ) -> None:
        super().__init__()
        self.module, self.out_shape = module, tuple(out_shape)
        self.head: nn.Module = nn.Identity()
        self.seen = [tuple(in_shape), *([(condition_dim,)] if condition_dim else [])]
        probe = [torch.zeros(2, *shape) for shape in self.seen]
        was_training = module.training
        try:
            with torch.no_grad():
                got = module.eval()(*probe)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            also = f", with a condition of {condition_dim} numbers beside them" if condition_dim else ""
            raise PlanError(
                f"{type(module).__name__} does not take items of shape {tuple(in_shape)}{also} ({reason}): "
                f"give a module that is called as module(items{', condition' if condition_dim else ''})"
            ) from None
        finally:
            module.train(was_training)
        if not isinstance(got, torch.Tensor) or len(got) != 2:
            what = f"a tensor of shape {tuple(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
            raise PlanError(
                f"{type(module).__name__} does not turn two items into one tensor of two rows, but into "
                f"{what}: make it do so"
            )
        width, wanted = got[0].numel(), math.prod(out_shape)
        if width != wanted and head:
            self.head = nn.Linear(width, wanted)
        elif width != wanted:
            raise PlanError(
                f"{type(module).__name__} gives {width} numbers an item and {wanted} are needed "
                f"(shape {self.out_shape}): change its last layer"
            )

    @torch.no_grad()
    def ends_in_sigmoid(self) -> bool:
        """Tell whether outputs lie between 0 and 1, and reach both, wherever inputs lie.

        Returns
        -------
        bool
            From a few inputs that are far away.
        """
        made = torch.Generator().manual_seed(0)
        probe = [FAR * torch.randn(PROBES, *shape, generator=made) for shape in self.seen]
        was_training = self.module.training
        out = self.module.eval()(*probe)
        self.module.train(was_training)
        low, high = out.aminmax()
        return bool(low >= 0 and high <= 1 and high - low > 0.9)

    def forward(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """Map.

        Parameters
        ----------
        h : Tensor
            ``(n, *in_shape)``.
        c : Tensor or None
            ``(n, condition_dim)``.

        Returns
        -------
        Tensor
            ``(n, *out_shape)``.
        """
        out = self.module(h) if c is None else self.module(h, c)
        return self.head(out.flatten(1)).unflatten(1, self.out_shape)
