"""Autoencoders without a prior."""

from __future__ import annotations

import math
from typing import Any

from chartae.core.contracts import Plan
from chartae.models.assembly import assemble, space_of
from chartae.models.registry import recipe
from chartae.parts.objectives import (
    CodeNorm,
    Contractive,
    DecoderGradient,
    DecoderWeights,
    Distortion,
    NegLogLik,
    Neighbors,
)

__all__: list[str] = []

DENOISING = 0.3  # of the model's units: standard deviations of the data, where it has a scale


@recipe("ae", paper="doi:10.1126/science.1127647", parts="delta posterior; nll")
def ae(shape: Any, **common: Any) -> Plan:
    """Plain autoencoder: a chart of the data, without a density.

    References
    ----------
    Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647.
    """
    return assemble(shape, posterior="delta", prior=None, objective=NegLogLik(), **common)


@recipe("denoising-ae", paper="doi:10.1145/1390156.1390294", parts="delta posterior of corrupted input; nll")
def denoising_ae(shape: Any, **common: Any) -> Plan:
    """Autoencoder that reconstructs clean items from corrupted ones: of 0.3 standard deviations, by default.

    References
    ----------
    Vincent et al. 2008, doi:10.1145/1390156.1390294.
    """
    given = common.get("corruption")
    return ae(shape, **common | {"corruption": DENOISING if given is None else given})


@recipe("contractive-ae", paper="Rifai et al. 2011 (ICML)", parts="delta posterior; nll + λ contractive")
def contractive_ae(shape: Any, *, lam: float = 0.1, **common: Any) -> Plan:
    """Autoencoder whose code reacts little to changes of the input.

    References
    ----------
    Rifai et al. 2011, "Contractive auto-encoders: explicit invariance during feature extraction".
    """
    return assemble(
        shape, posterior="delta", prior=None, objective=NegLogLik() + lam * Contractive(), **common
    )


@recipe("l2-ae", paper="arXiv:1903.12436 (without its decoder bound)", parts="delta posterior; nll + λ |z|²")
def l2_ae(shape: Any, *, lam: float = 1.0, **common: Any) -> Plan:
    """Autoencoder with a penalty on the code's norm, which pushes every code to zero.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436.
    """
    return assemble(shape, posterior="delta", prior=None, objective=NegLogLik() + lam * CodeNorm(), **common)


@recipe("rae-l2", paper="arXiv:1903.12436", parts="delta posterior; nll + β/2 |z|² + λ |decoder's weights|²")
def rae_l2(shape: Any, *, beta: float = 1.0, lam: float = 1e-3, **common: Any) -> Plan:
    """Regularized autoencoder: small codes, and a decoder of small weights; finish it with fit_prior("gmm").

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436.
    """
    objective = NegLogLik() + 0.5 * beta * CodeNorm() + lam * DecoderWeights()
    return assemble(shape, posterior="delta", prior=None, objective=objective, **common)


@recipe("rae-gp", paper="arXiv:1903.12436", parts="delta posterior; nll + β/2 |z|² + λ |dD/dz|²")
def rae_gp(shape: Any, *, beta: float = 1.0, lam: float = 0.1, **common: Any) -> Plan:
    """Regularized autoencoder: small codes, and a decoder that is not steep; finish it with fit_prior("gmm").

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436.
    """
    objective = NegLogLik() + 0.5 * beta * CodeNorm() + lam * DecoderGradient()
    return assemble(shape, posterior="delta", prior=None, objective=objective, **common)


@recipe(
    "isometric-ae", paper="Lee et al. 2022 (ICLR)", parts="delta posterior; nll + λ distortion of the decoder"
)
def isometric_ae(shape: Any, *, lam: float = 1.0, **common: Any) -> Plan:
    """Autoencoder whose decoder keeps distances and angles between codes, up to one scale.

    References
    ----------
    Lee, Yoon, Son and Park 2022, "Regularized autoencoders for isometric representation learning".
    """
    objective = NegLogLik() + lam * Distortion()
    return assemble(shape, posterior="delta", prior=None, objective=objective, **common)


@recipe(
    "neighbor-ae",
    paper="van der Maaten 2009 (AISTATS)",
    parts="delta posterior; nll + λ d (neighbors of items kept among codes), of d values",
)
def neighbor_ae(
    shape: Any, *, lam: float = 1.0, temperature: float = 0.03, metric: str = "euclidean", **common: Any
) -> Plan:
    """Autoencoder whose codes have the neighbors that items have, for retrieval by codes.

    References
    ----------
    Hinton and Roweis 2002, "Stochastic neighbor embedding"; of an encoder: van der Maaten 2009, "Learning a
    parametric embedding by preserving local structure"; beside a reconstruction it is chartae's own.
    """
    values = math.prod(space_of(shape).model_shape)
    objective = NegLogLik() + lam * values * Neighbors(temperature, metric=metric)
    return assemble(shape, posterior="delta", prior=None, objective=objective, **common)


@recipe("irmae", paper="arXiv:2010.00679", parts="delta posterior behind square matrices; nll")
def irmae(shape: Any, *, depth: int = 4, **common: Any) -> Plan:
    """Autoencoder whose codes take few dimensions: so training is drawn by matrices between encoder and code.

    References
    ----------
    Jing, Zbontar and LeCun 2020, arXiv:2010.00679.
    """
    posterior = ("linear-delta", {"depth": depth})
    return assemble(shape, posterior=posterior, prior=None, objective=NegLogLik(), **common)
