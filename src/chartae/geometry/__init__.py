"""Geometry of data and of learned charts."""

from chartae.geometry.charts import Chart, chart_of
from chartae.geometry.dimension import Dimension, intrinsic_dimension
from chartae.geometry.geodesics import Geodesic, distance, geodesic
from chartae.geometry.interpolation import interpolate, off_support, round_trip
from chartae.geometry.jacobians import decoder_jacobian, encoder_jacobian
from chartae.geometry.metrics import (
    Linearization,
    distortion,
    linearize,
    manifold_log_density,
    metric,
    validity_radius,
    volume,
)
from chartae.geometry.neighbors import nearest
from chartae.geometry.projection import (
    CodeShift,
    NoiseGain,
    OffManifold,
    Projected,
    code_shift,
    noise_gain,
    off_manifold_score,
    project,
)
from chartae.geometry.steering import Direction, Traversal, directions, traverse
from chartae.geometry.tangent import (
    NormalGain,
    TangentSpace,
    normal_gain,
    principal_angles,
    tangent_space,
)

__all__ = [
    "Chart",
    "CodeShift",
    "Dimension",
    "Direction",
    "Geodesic",
    "Linearization",
    "NoiseGain",
    "NormalGain",
    "OffManifold",
    "Projected",
    "TangentSpace",
    "Traversal",
    "chart_of",
    "code_shift",
    "decoder_jacobian",
    "directions",
    "distance",
    "distortion",
    "encoder_jacobian",
    "geodesic",
    "interpolate",
    "intrinsic_dimension",
    "linearize",
    "manifold_log_density",
    "metric",
    "nearest",
    "noise_gain",
    "normal_gain",
    "off_manifold_score",
    "off_support",
    "principal_angles",
    "project",
    "round_trip",
    "tangent_space",
    "traverse",
    "validity_radius",
    "volume",
]
