"""Recipes: a published variant is a short function that names its parts.

A module is a family; recipes are listed in the order in which their modules come here.
"""

from chartae.models.assembly import Recipe, assemble, build, build_from, find, recipe, recipes
from chartae.models.recipes import adversarial, bounds, disentangled, matching, perceptual, plain, variational

__all__ = ["Recipe", "assemble", "build", "build_from", "find", "recipe", "recipes"]

#: In the order in which recipes are listed.
FAMILIES = (plain, variational, bounds, matching, disentangled, adversarial, perceptual)
