"""Recipes: a published variant is a short function that names its parts.

A module is a family; recipes are listed in the order of the families.
"""

from importlib import import_module

from chartae.models.assembly import assemble
from chartae.models.registry import Recipe, build, build_from, find, recipe, recipes

__all__ = ["Recipe", "assemble", "build", "build_from", "find", "recipe", "recipes"]

FAMILIES = [
    import_module(f"{__name__}.{family}")
    for family in (
        "plain",
        "variational",
        "bounds",
        "priors",
        "flows",
        "matching",
        "disentangled",
        "adversarial",
        "perceptual",
        "hierarchies",
        "hamiltonian",
        "manifolds",
        "discrete",
    )
]
