"""Posteriors q(z | x, c)."""

from chartae.parts.posteriors.base import NetworkPosterior, bounded, bounded_slope, posteriors
from chartae.parts.posteriors.corruption import Corrupted
from chartae.parts.posteriors.flows import FlowPosterior
from chartae.parts.posteriors.hamiltonian import Hamiltonian, HamiltonianPosterior
from chartae.parts.posteriors.hierarchies import (
    BottomUpPosterior,
    ConditionalNormal,
    LadderPosterior,
    inner_widths,
    layer_sizes,
)
from chartae.parts.posteriors.linear import LinearDeltaPosterior
from chartae.parts.posteriors.manifolds import BallPosterior, SpherePosterior
from chartae.parts.posteriors.normal import DeltaPosterior, FullNormalPosterior, NormalPosterior
from chartae.parts.posteriors.quantized import (
    CodebookPosterior,
    FiniteScalarPosterior,
    HierarchicalPosterior,
    ResidualPosterior,
    VectorPosterior,
)
from chartae.parts.posteriors.riemannian import Metric, RiemannianHamiltonian, RiemannianPosterior

__all__ = [
    "BallPosterior",
    "BottomUpPosterior",
    "CodebookPosterior",
    "ConditionalNormal",
    "Corrupted",
    "DeltaPosterior",
    "FiniteScalarPosterior",
    "FlowPosterior",
    "FullNormalPosterior",
    "Hamiltonian",
    "HamiltonianPosterior",
    "HierarchicalPosterior",
    "LadderPosterior",
    "LinearDeltaPosterior",
    "Metric",
    "NetworkPosterior",
    "NormalPosterior",
    "ResidualPosterior",
    "RiemannianHamiltonian",
    "RiemannianPosterior",
    "SpherePosterior",
    "VectorPosterior",
    "bounded",
    "bounded_slope",
    "inner_widths",
    "layer_sizes",
    "posteriors",
]
