"""Geometry of data and of learned charts."""

from chartae.geometry.charts import Chart, chart_of
from chartae.geometry.dimension import Dimension, intrinsic_dimension
from chartae.geometry.jacobians import decoder_jacobian, encoder_jacobian
from chartae.geometry.neighbors import nearest

__all__ = [
    "Chart",
    "Dimension",
    "chart_of",
    "decoder_jacobian",
    "encoder_jacobian",
    "intrinsic_dimension",
    "nearest",
]
