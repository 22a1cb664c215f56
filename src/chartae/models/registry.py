"""Recipes by their names, and the plans that they make."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import torch

from chartae.core.contracts import Plan
from chartae.core.errors import PlanError
from chartae.core.registry import Registry, suggest
from chartae.core.spaces import Space
from chartae.models.assembly import SHARED

__all__ = ["Recipe", "build", "build_from", "find", "recipe", "recipes"]


@dataclass(frozen=True)
class Recipe:
    """A named choice of parts.

    Parameters
    ----------
    name : str
        As ``Autoencoder(recipe=name)`` takes it.
    paper : str
        Where it was published.
    summary : str
        One line.
    parts : str
        What it is made of.
    conditional : bool
        Whether it takes a condition.
    make : callable
        ``make(shape, **parameters) -> Plan``.
    sized : callable or None
        ``sized(d, **own) -> int``: the size of code that it takes in place of d, by its own parameters. None:
        it takes any.

    Examples
    --------
    >>> import chartae as ct
    >>> next(r for r in ct.recipes() if r.name == "iwae").paper
    'arXiv:1509.00519'
    """

    name: str
    paper: str
    summary: str
    parts: str
    conditional: bool
    make: Callable[..., Plan]
    sized: Callable[..., int] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The recipe's own parameters and their defaults."""
        signature = inspect.signature(self.make)
        own = (p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY)
        return {p.name: p.default for p in own}

    def size(self, d: int, own: Mapping[str, Any]) -> int:
        """Say which size of code to take where the data call for d.

        Parameters
        ----------
        d : int
            One or more.
        own : Mapping
            What is given of the recipe's own parameters. What is wrong with them is for :func:`build` to say.

        Returns
        -------
        int
            d, unless the recipe cannot have it.

        Examples
        --------
        >>> from chartae.models.recipes import find
        >>> find("vae").size(1, {}), find("svae").size(1, {}), find("vq-vae").size(5, {"slots": 4})
        (1, 2, 8)
        """
        if self.sized is None:
            return d
        try:
            return self.sized(d, **self.parameters | dict(own))
        except TypeError:
            return d


_RECIPES: Registry[Recipe] = Registry("recipe")


def recipe(
    name: str,
    *,
    paper: str,
    parts: str,
    conditional: bool = False,
    sized: Callable[..., int] | None = None,
) -> Callable[[Callable[..., Plan]], Callable[..., Plan]]:
    """Register a function ``(shape, *, own parameters, **common) -> Plan`` as a recipe.

    Parameters
    ----------
    name : str
        Its name.
    paper : str
        Where it was published.
    parts : str
        What it is made of.
    conditional : bool
        Whether it takes a condition.
    sized : callable or None
        As of :class:`Recipe`.

    Returns
    -------
    callable
        A decorator; the first line of the docstring becomes the summary.

    Examples
    --------
    >>> from chartae.models.recipes import build, recipe
    >>> from chartae.models.recipes.variational import vae
    >>> @recipe("tutorial-vae", paper="none", parts="as vae")
    ... def tutorial_vae(shape, **common):
    ...     '''VAE under another name.'''
    ...     return vae(shape, **common)
    >>> build("tutorial-vae", (4,), latent_dim=2, hidden=(8,)).objective
    nll + kl
    >>> _RECIPES._items.pop("tutorial-vae").summary
    'VAE under another name.'
    """

    def put(make: Callable[..., Plan]) -> Callable[..., Plan]:
        summary = (inspect.getdoc(make) or name).splitlines()[0]
        _RECIPES.register(name)(Recipe(name, paper, summary, parts, conditional, make, sized))
        return make

    return put


def recipes() -> list[Recipe]:
    """List all recipes.

    Returns
    -------
    list of Recipe
        In the order in which they were registered.

    Examples
    --------
    >>> import chartae as ct
    >>> [r.name for r in ct.recipes()][:3]
    ['ae', 'denoising-ae', 'contractive-ae']
    """
    return [_RECIPES[name] for name in _RECIPES]


def find(name: str) -> Recipe:
    """Look a recipe up.

    Parameters
    ----------
    name : str
        Its name.

    Returns
    -------
    Recipe
        Of that name.

    Raises
    ------
    PlanError
        If there is none.

    Examples
    --------
    >>> from chartae.models.recipes import find
    >>> find("cvae").conditional
    True
    """
    return _RECIPES[name]


def build(name: str, shape: tuple[int, ...] | Space, **parameters: Any) -> Plan:
    """Make the plan of a recipe.

    Parameters
    ----------
    name : str
        A recipe.
    shape : tuple of int or Space
        Shape of one item, or the space that was inferred from data.
    **parameters
        The recipe's own parameters and the common ones (see :func:`~chartae.models.assembly.assemble`).

    Returns
    -------
    Plan
        With a freshly initialized model, drawn from torch's global generator.

    Raises
    ------
    PlanError
        If the recipe or a parameter is unknown, or parts do not fit together.

    Examples
    --------
    >>> from chartae.models.recipes import build
    >>> build("vae", (4,), latent_dim=2, gamma=1)
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: recipe 'vae' has no parameter 'gamma': known: covariance, free_bits, warmup
    """
    chosen = find(name)
    for given in parameters:
        if given not in chosen.parameters and given not in SHARED:
            known = chosen.parameters
            cure = suggest(given, known) if known else "it has none, so leave it out"
            raise PlanError(f"recipe {name!r} has no parameter {given!r}: {cure}")
    own = {parameter: parameters[parameter] for parameter in chosen.parameters if parameter in parameters}
    for parameter, annotation in _annotations(chosen).items():
        if parameter in own:
            _check_type(parameter, own[parameter], annotation)
    try:
        with _float32():
            plan = chosen.make(shape, **parameters)
    except PlanError as error:
        altered = {p: repr(value) for p, value in own.items() if repr(value) != repr(chosen.parameters[p])}
        if not altered or any(f"{parameter}=" in str(error) for parameter in parameters):
            raise
        said = ", ".join(f"{parameter}={value}" for parameter, value in altered.items())
        raise PlanError(f"{error} (recipe {name!r}, {said})") from None
    return replace(plan, facts={**plan.facts, "recipe": name})


@contextmanager
def _float32() -> Iterator[None]:
    """Make parameters in float32, which batches are in, whatever the process has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_from(blueprint: Mapping[str, Any], space: Space, network: Any) -> Plan:
    """Make the plan that a blueprint describes.

    Parameters
    ----------
    blueprint : Mapping
        ``recipe``, its own ``parameters``, and the shared ones, as JSON values.
    space : Space
        Of the data.
    network : str or pair of nn.Module
        As in :func:`~chartae.models.assembly.assemble`.

    Returns
    -------
    Plan
        As :func:`build` makes it.

    Examples
    --------
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build_from
    >>> blueprint = {"recipe": "beta-vae", "parameters": {"beta": 2.0}, "latent_dim": 3}
    >>> build_from(blueprint, Space((4,)), "mlp").objective
    nll + 2 * kl
    """
    shared = {name: value for name, value in blueprint.items() if name not in ("recipe", "parameters")}
    return build(blueprint["recipe"], space, network=network, **blueprint["parameters"], **shared)


#: What a value must be where a parameter is annotated with some type, and how to say it.
_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a word"),
    NoneType: (NoneType, "None"),
}


def _annotations(chosen: Recipe) -> dict[str, Any]:
    """Annotations of a recipe's own parameters; where there is none, the type of the default."""
    try:
        hints = get_type_hints(chosen.make)
    except NameError:  # of a recipe whose annotations are for a type checker alone
        hints = {}
    return {own: hints.get(own, type(default)) for own, default in chosen.parameters.items()}


def _check_type(name: str, value: Any, annotation: Any) -> None:
    """Refuse a value of another type than is annotated: text such as "False" is true."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if not all(kind in _TYPES for kind in kinds):
        return  # what is in a sequence is checked where it is used
    value = value.item() if isinstance(value, np.bool_) else value
    if not any(_is_of(value, _TYPES[kind][0]) for kind in kinds):
        raise PlanError(f"{name}={value!r}: give {' or '.join(_TYPES[kind][1] for kind in kinds)}")


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return isinstance(value, bool) and kind is bool
    return kind is not Real or math.isfinite(value)
