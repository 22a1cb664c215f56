"""Where priors are registered."""

from __future__ import annotations

from chartae.core.contracts import Prior
from chartae.core.registry import Registry

__all__ = ["priors"]

#: Classes built as ``(latent_dim, condition_dim)``.
priors: Registry[type[Prior]] = Registry("prior")
