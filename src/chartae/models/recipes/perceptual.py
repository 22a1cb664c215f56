"""Images compared as people do."""

from __future__ import annotations

from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble
from chartae.models.recipes.variational import _normal
from chartae.models.registry import recipe
from chartae.parts.objectives import KL, MSSSIM, NegLogLik

__all__: list[str] = []


@recipe(
    "ms-ssim-vae",
    paper="arXiv:1511.06409, with a KL term",
    parts="normal posterior, N(0, I) prior, images; λ (1 - MS-SSIM) + kl",
)
def ms_ssim_vae(
    shape: Any, *, lam: float = 100.0, covariance: str = "diagonal", warmup: float = 0.0, **common: Any
) -> Plan:
    """VAE of images that reconstructs what they look like rather than every pixel.

    References
    ----------
    Snell et al. 2017, arXiv:1511.06409; Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216.
    """
    objective = lam * MSSSIM() + KL(warmup=warmup) + 0.0 * NegLogLik()  # which is logged
    return assemble(shape, posterior=_normal(covariance), objective=objective, **common)
