"""Linear layers with functions between them, whose derivatives are written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from chartae.parts.networks import MLP

__all__ = ["HandwrittenLayers", "is_hooked", "is_known"]

FEW = 0.8  # of all rows: to gather them takes a part of what the products of the others would
HOOKS = ("forward", "forward_pre", "backward", "backward_pre")  # of a module


class _Pass(NamedTuple):
    """A function between layers, in place, and the gradient by its input ``(g, output)``, in place of g."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


PASSES: dict[type[nn.Module], _Pass] = {
    # Where the output is zero, nothing passes.
    nn.ReLU: _Pass(
        torch.relu_, lambda g, y: torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=g)
    ),
    nn.Tanh: _Pass(torch.tanh_, lambda g, y: torch.ops.aten.tanh_backward.grad_input(g, y, grad_input=g)),
}


def is_hooked(module: nn.Module) -> bool:
    """Tell whether functions of a user's are called as a module, or one in it, is passed through.

    Parameters
    ----------
    module : nn.Module
        The module.

    Returns
    -------
    bool
        Whether it has hooks, or its parameters have.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.handwritten import is_hooked
    >>> layer = torch.nn.Linear(2, 1)
    >>> _ = layer.weight.register_hook(lambda gradient: gradient * 0)
    >>> is_hooked(layer), is_hooked(torch.nn.Linear(2, 1))
    (True, False)
    """
    return any(getattr(m, f"_{when}_hooks") for m in module.modules() for when in HOOKS) or any(
        p._backward_hooks or p._post_accumulate_grad_hooks for p in module.parameters()
    )


def is_known(net: MLP) -> bool:
    """Tell whether a network is linear layers with known functions between them.

    All of them must have biases, be trained, and have no hooks. Exact types: a subclass, such as a masked or
    a parametrized layer, computes something else.

    Parameters
    ----------
    net : MLP
        The network.

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> from chartae.parts.networks import MLP
    >>> from chartae.training.handwritten import is_known
    >>> is_known(MLP((4,), (2,))), is_known(MLP((4,), (2,), activation="silu"))
    (True, False)
    """
    layers = list(net.layers)
    return (
        len(layers) % 2 == 1
        and all(type(m) is nn.Linear and m.bias is not None for m in layers[::2])
        and all(type(m) in PASSES for m in layers[1::2])
        and all(p.requires_grad for p in net.parameters())
        and not is_hooked(net.layers)
    )


class HandwrittenLayers:
    """Linear layers with functions between them, as one node of the graph, or outside of any.

    Parameters
    ----------
    net : MLP
        Whose layers they are.
    tensors : list of (weight, bias, weight gradient, bias gradient)
        ``(m, l)``, ``(m,)``, ``(m, l)`` and ``(m,)`` of each layer; the first backward pass of a step writes
        gradients, further ones add.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.training.handwritten import HandwrittenLayers
    >>> net = MLP((4,), (2,), hidden=(8,))
    >>> pairs = [(m.weight.detach(), m.bias.detach()) for m in net.layers[::2]]
    >>> layers = HandwrittenLayers(net, [(w, b, torch.zeros_like(w), torch.zeros_like(b)) for w, b in pairs])
    >>> x = torch.ones(3, 4)
    >>> torch.allclose(layers(x), net(x))
    True
    """

    def __init__(self, net: MLP, tensors: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        self.passes = [PASSES[type(m)] for m in list(net.layers)[1::2]]
        self.tensors = [(w, w.t(), b, gw, gb) for w, b, gw, gb in tensors]
        self.fresh = True
        #: Whether a gradient that passes by is the loss's; an objective may ask for others on the way to it.
        self.writing = False
        #: Whether rows that nothing flows back to are worth looking for.
        self.skips = False
        #: Of the last pass, where there was no graph to keep them.
        self.inputs: list[Tensor] = []
        # Autograd sees no parameters: without an input that needs a gradient it would skip the backward pass.
        self.anchor = torch.zeros((), requires_grad=True)

    def __call__(self, h: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            out: Tensor = _Apply.apply(h, self.anchor, self)
        else:
            out, self.inputs = self.forward(h)
        return out

    def forward(self, h: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Go through all layers.

        Parameters
        ----------
        h : Tensor
            ``(n, l)``, what goes into the first.

        Returns
        -------
        out : Tensor
            ``(n, m)``, what comes out of the last, in float32.
        inputs : list of Tensor
            ``(n, l)`` of each layer, as :meth:`backward` wants them.
        """
        inputs, last = [], len(self.tensors) - 1
        for i, (weight, transposed, bias, _, _) in enumerate(self.tensors):
            h = h if h.dtype == weight.dtype else h.to(weight.dtype)
            inputs.append(h)
            h = torch.addmm(bias, h, transposed)
            if i < last:
                h = self.passes[i].forward(h)
        return h.float(), inputs

    def backward(
        self, g: Tensor, inputs: list[Tensor], needs_input: bool, write: bool = True
    ) -> Tensor | None:
        """Write the gradients by all weights, or add them where this step has written some.

        Parameters
        ----------
        g : Tensor
            ``(n, m)``, the gradient by what came out; it may be overwritten.
        inputs : list of Tensor
            ``(n, l)`` of each layer.
        needs_input : bool
            Whether the gradient by what went in is wanted, too.
        write : bool
            Whether those by weights are wanted at all.

        Returns
        -------
        Tensor or None
            ``(n, l)``, that gradient.
        """
        n, rows = len(g), self._used(g) if self.skips else None
        if rows is not None:
            g, inputs = g.index_select(0, rows), [h.index_select(0, rows) for h in inputs]
        for i in range(len(self.tensors) - 1, -1, -1):
            weight, whole = self.tensors[i][0], g
            g = g if g.dtype == weight.dtype else g.to(weight.dtype)
            if write:
                self._write(i, whole, g, inputs[i])
            if i:
                g = self.passes[i - 1].backward(torch.mm(g, weight), inputs[i])
        self.fresh = self.fresh and not write
        if not needs_input:
            return None
        g = torch.mm(g, weight).float()
        return g if rows is None else g.new_zeros(n, g.shape[1]).index_copy_(0, rows, g)

    @staticmethod
    def _used(g: Tensor) -> Tensor | None:
        """Indices of the rows that something flows back to, where they are worth a copy."""
        rows = (g.amax(1) != 0).logical_or(g.amin(1) != 0).nonzero().squeeze(1)
        return rows if len(rows) < FEW * len(g) else None

    def _write(self, i: int, g: Tensor, low: Tensor, h: Tensor) -> None:
        """Gradients of layer ``i``, into which h went, and by whose output g is, in the weights' type low."""
        weight_grad, bias_grad = self.tensors[i][3:]
        if self.fresh and bias_grad.dtype == g.dtype:
            torch.sum(g, 0, out=bias_grad)
        elif self.fresh:
            bias_grad.copy_(g.sum(0))
        else:
            bias_grad.add_(g.sum(0))
        if self.fresh:
            torch.mm(low.t(), h, out=weight_grad)
        else:
            weight_grad.addmm_(low.t(), h)

    def finish(self) -> None:
        """Leave no old gradient where a step had no use for the network."""
        if self.fresh:
            for _, _, _, weight_grad, bias_grad in self.tensors:
                weight_grad.zero_()
                bias_grad.zero_()


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, h: Tensor, anchor: Tensor, layers: HandwrittenLayers) -> Tensor:
        out, inputs = layers.forward(h)
        ctx.layers, ctx.inputs = layers, inputs  # type: ignore[attr-defined]
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, g: Tensor) -> tuple[Tensor | None, None, None]:
        layers, needs_input = ctx.layers, ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        return layers.backward(g, ctx.inputs, needs_input, layers.writing), None, None  # type: ignore[attr-defined]
