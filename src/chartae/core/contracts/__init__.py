"""A model is three conditional distributions, and an objective says how to fit them.

``q(z | x, c)`` is the posterior, ``p(z | c)`` the prior, ``p(x | z, c)`` the likelihood. Everything
else (a VAE, an IWAE, a denoising autoencoder) is a choice of parts. Shapes throughout: ``n`` rows,
``k`` posterior samples of each, ``d`` latent dimensions, ``*x`` the shape of one item.
"""

from chartae.core.contracts.batches import Batch, RawCondition
from chartae.core.contracts.distributions import Distribution, Draw
from chartae.core.contracts.objectives import Level, Objective, Sum, Term, Trace
from chartae.core.contracts.parts import Likelihood, Part, Posterior, Prior
from chartae.core.contracts.plans import Model, Plan

__all__ = [
    "Batch",
    "Distribution",
    "Draw",
    "Level",
    "Likelihood",
    "Model",
    "Objective",
    "Part",
    "Plan",
    "Posterior",
    "Prior",
    "RawCondition",
    "Sum",
    "Term",
    "Trace",
]
