"""Trees of plain values and tensors, as tensors and a text: what a file can hold without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chartae.core.errors import PlanError

__all__ = ["pack", "unpack"]


def pack(tree: Any) -> tuple[dict[str, Tensor], str]:
    """Take a tree apart; :func:`unpack` puts it together again, exactly.

    Parameters
    ----------
    tree : object
        Dicts (of any keys that are plain values), lists and tuples of tensors, numbers, words and None.
        Numbers may be infinite.

    Returns
    -------
    tensors : dict of str to Tensor
        Each of any shape, on the CPU, named by its place; what is there twice is given once.
    text : str
        JSON of all the rest.

    Raises
    ------
    PlanError
        If something else is in it.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.trees import pack, unpack
    >>> tensors, text = pack({"w": torch.ones(2), 0: (1.5, None)})
    >>> list(tensors), unpack(tensors, text)
    (['w'], {'w': tensor([1., 1.]), 0: (1.5, None)})
    """
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}

    def visit(node: Any, place: str) -> Any:
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, Tensor):
            last = node.dim() == 4 and not node.is_contiguous()
            key = (node.data_ptr(), node.shape, node.stride(), node.dtype) if node.numel() else len(names)
            if key not in names:
                names[key] = place
                tensors[place] = node.detach().cpu().contiguous()
            # The layout is kept too: another one is computed in another order, and the last digits differ.
            return {"tensor": names[key]} | ({"channels_last": True} if last else {})
        if isinstance(node, Mapping):
            return {"dict": [[visit(k, place), visit(v, f"{place}/{k}")] for k, v in node.items()]}
        if isinstance(node, list | tuple):
            kind = "list" if isinstance(node, list) else "tuple"
            return {kind: [visit(v, f"{place}/{i}") for i, v in enumerate(node)]}
        raise PlanError(f"{place[1:]} is a {type(node).__name__}, which no file can hold: use plain values")

    text = json.dumps(visit(tree, ""))
    return {name[1:]: tensor for name, tensor in tensors.items()}, text


def unpack(tensors: Mapping[str, Tensor], text: str) -> Any:
    """Put a tree together.

    Parameters
    ----------
    tensors : Mapping of str to Tensor
        As :func:`pack` gives them.
    text : str
        And their text.

    Returns
    -------
    object
        The tree.

    Raises
    ------
    ValueError
        If the text is no tree.
    KeyError
        If a tensor is missing.

    Examples
    --------
    >>> from chartae.core.trees import unpack
    >>> unpack({}, '{"list": [1, 2]}')
    [1, 2]
    """

    def visit(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if "tensor" in node:
            # A copy: what a file gives may lie anywhere, and kernels want whole cache lines.
            form = torch.channels_last if node.get("channels_last") else torch.contiguous_format
            return tensors[node["tensor"][1:]].clone(memory_format=form)
        ((kind, values),) = node.items()
        if kind == "dict":
            return {visit(k): visit(v) for k, v in values}
        made = [visit(v) for v in values]
        return tuple(made) if kind == "tuple" else made

    return visit(json.loads(text))
