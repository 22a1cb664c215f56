"""The geometry of a fitted model, as methods of its estimator."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

from chartae import geometry
from chartae.estimators.encoding import Encoding

__all__ = ["Geometry"]


UNITS = """

Columns with units of their own, in a table or by ``scale="feature"``, are measured in standard deviations.

"""


def _method(function: Callable[..., Any]) -> Any:
    """Make a method of a function whose first parameter is the model."""

    @functools.wraps(function)
    def method(self: Any, *given: Any, **named: Any) -> Any:
        return function(self.chart(), *given, **named)

    signature = inspect.signature(function)
    first, *rest = signature.parameters.values()
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[first.replace(name="self", annotation=inspect.Parameter.empty), *rest]
    )
    method.__doc__ = re.sub(r"model : object\n(?:    .*\n)+", "", inspect.getdoc(function) or "", count=1)
    method.__doc__ = method.__doc__.replace("\n\n", UNITS, 1)
    return method


class Geometry(Encoding):
    """What :mod:`chartae.geometry` says of a model, of the model itself.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> vae.decoder_jacobian(np.zeros((3, 2))).shape
    (3, 20, 2)
    """

    decoder_jacobian = _method(geometry.decoder_jacobian)
    encoder_jacobian = _method(geometry.encoder_jacobian)
    metric = _method(geometry.metric)
    volume = _method(geometry.volume)
    manifold_log_density = _method(geometry.manifold_log_density)
    linearize = _method(geometry.linearize)
    validity_radius = _method(geometry.validity_radius)
    geodesic = _method(geometry.geodesic)
    distance = _method(geometry.distance)
    normal_gain = _method(geometry.normal_gain)
    noise_gain = _method(geometry.noise_gain)
    off_manifold_score = _method(geometry.off_manifold_score)
    traverse = _method(geometry.traverse)
    directions = _method(geometry.directions)
