"""Recipes: a published variant is a short function that names its parts.

A module is a family; recipes are listed in the order of the families.
"""

from chartae.models.assembly import Recipe, assemble, build, build_from, find, recipe, recipes

# isort: off
from chartae.models.recipes import (
    plain,
    variational,
    discrete,
)

# isort: on

__all__ = ["Recipe", "assemble", "build", "build_from", "find", "recipe", "recipes"]

FAMILIES = (plain, variational, discrete)
