"""The metric that a decoder gives to its codes, and how far its linear approximation holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import Chart, chart_of, codes_of, rows_of, units_of
from chartae.geometry.jacobians import pushforward

__all__ = [
    "Linearization",
    "distortion",
    "linearize",
    "manifold_log_density",
    "metric",
    "validity_radius",
    "volume",
]

SHORTEST, LONGEST, STEPS = 1e-3, 10.0, 17  # radii that are tried, in standard deviations of the codes
BISECTIONS = 12  # to within a four-thousandth of a step of the grid
ROUNDING = 8  # units in the last place of a decoded item that say nothing


def metric(model: Any, Z: Any, condition: Any = None, *, expected: bool = False) -> np.ndarray:
    """Pull the metric of the data back to the codes: G = JᵀJ.

    The length of a small step δ of the code is √(δᵀGδ) in the data.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    Z : array_like
        ``(n, d)`` codes.
    condition : object, optional
        As the model takes it.
    expected : bool
        The expected metric of a stochastic decoder, whose noise may change with the code as well:
        G = J_μᵀJ_μ + J_σᵀJ_σ.

    Returns
    -------
    ndarray
        ``(n, d, d)``, float64, in squared units of the data per squared unit of the code.

    Raises
    ------
    PlanError
        If the noise of the decoder is not known, and asked for.

    References
    ----------
    Arvanitidis, Hansen and Hauberg 2018, arXiv:1710.11379, equations 3 and 8.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import metric
    >>> sphere = lambda z: torch.stack(
    ...     [z[:, 0].cos() * z[:, 1].cos(), z[:, 0].cos() * z[:, 1].sin(), z[:, 0].sin()], 1
    ... )
    >>> metric((lambda x: x[:, :2], sphere), [[torch.pi / 3, 0.0]]).round(3)
    array([[[1.  , 0.  ],
            [0.  , 0.25]]])
    """
    chart = chart_of(model)
    if expected and chart.spread is None:
        raise PlanError("the noise of this decoder is not known: leave out expected=True")
    maps = [chart.decode, chart.spread] if expected and chart.spread is not None else [chart.decode]
    Z = codes_of(Z, chart.latent_dim)
    out = np.zeros((*Z.shape, Z.shape[1]))
    for b, z, c in _blocks(chart, Z, condition):
        for f in maps:
            J = _jacobian(f, z, c)
            out[b] += (J @ J.mT).cpu().numpy()
    return out


def volume(model: Any, Z: Any, condition: Any = None) -> np.ndarray:
    """Log of how much larger the image of a small piece of codes is: ½ log det JᵀJ.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    Z : array_like
        ``(n, d)`` codes.
    condition : object, optional
        As the model takes it.

    Returns
    -------
    ndarray
        ``(n,)``: nats; -inf where the decoder does not react to some direction of the code. That it does not
        if, with the axes of the code in units that change what is decoded alike, it changes no more than 1e-6
        of what the strongest direction does: rounding to float32 was measured to do up to 0.65e-6. Of codes
        on a sphere it is that of a piece of the sphere.

    References
    ----------
    Arvanitidis, Hansen and Hauberg 2018, arXiv:1710.11379, section 2; Chen et al. 2018, arXiv:1711.01204.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import volume
    >>> volume((lambda x: x, lambda z: 2 * z), torch.zeros(1, 3)).round(4)
    array([2.0794])
    """
    chart = chart_of(model)
    return _log_volume(chart, codes_of(Z, chart.latent_dim), condition)


def _log_volume(chart: Chart, Z: Tensor, condition: Any) -> np.ndarray:
    """As :func:`volume` gives it, of codes that have been checked.

    On a sphere there is no direction in which codes leave it, and the decoder does not react to it.
    """
    found = np.full(len(Z), -np.inf)  # where codes have more dimensions than the data, too
    lacking = chart.lacking(chart.condition(condition, len(Z)))
    d = Z.shape[1] - lacking
    for b, z, c in _blocks(chart, Z, condition):
        # Of J and not of JᵀJ: squaring loses half of the digits of the small ones.
        J = _jacobian(chart.decode, z, c)
        if J.shape[2] < d:
            break
        # Each axis is differentiated on its own, and rounding is a share of what it changes. On a sphere axes
        # are mixed with the direction that there is not.
        lengths = J.norm(dim=2)
        lengths = lengths.amax(1, keepdim=True).expand_as(lengths) if lacking else lengths
        values = torch.linalg.svdvals(J / lengths.clamp_min(1e-300)[:, :, None])
        values[values <= ROUNDING * torch.finfo(torch.float32).eps * values[:, :1]] = 0.0
        found[b] = (values[:, :d] * lengths[:, :d]).log().sum(1).cpu().numpy()
    return found


def manifold_log_density(model: Any, X: Any, condition: Any = None) -> np.ndarray:
    """Say how dense a model takes items to be on its manifold: log p(z) − ½ log det JᵀJ at their codes.

    The density is that of the items' projections, per unit of d-dimensional volume on the decoded manifold;
    p(z) is what samples take their codes from, the density fitted to the codes of a plain autoencoder. How
    far an item lies off the manifold is another question: see :func:`off_manifold_score`.

    Parameters
    ----------
    model : object
        A fitted estimator, or a :class:`Chart` with a prior.
    X : array_like
        ``(n, *shape)`` items.
    condition : object, optional
        As the model takes it.

    Returns
    -------
    ndarray
        ``(n,)``: nats, for volume in units of the data to the d; inf where the decoder does not react to some
        direction of the code.

    Raises
    ------
    PlanError
        If there is nothing to sample codes from, or it has no density: one that was fitted to codes on a
        sphere or in a ball is none there.

    References
    ----------
    Ben-Israel 1999, "The change-of-variables formula using matrix volume", doi:10.1137/S0895479895296896;
    Gemici, Rezende and Mohamed 2016, arXiv:1611.02304.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import Chart, manifold_log_density
    >>> steep = Chart.of_pair(lambda x: x / 2, lambda z: 2 * z, prior="normal", latent_dim=1)
    >>> manifold_log_density(steep, [[0.0]]).round(3)  # log N(0; 0, 1) − log 2
    array([-1.612])
    """
    chart = chart_of(model)
    if chart.source is None:
        raise PlanError("there is nothing that codes are drawn from: use fit_prior, or Chart.of_pair(prior=)")
    if chart.sampler is not None and chart.onto is not None:
        raise PlanError(
            "codes lie on a sphere or in a ball, and what was fitted to them is a density of all of R^d: go "
            "back to the model's own prior with fit_prior('prior')"
        )
    x, c = chart.take(X, condition)
    z = chart.codes(x, c)
    with torch.no_grad():
        p = chart.source(c)
        if "log_prob" not in p.offers or "mass" in p.offers:
            raise PlanError(
                "what codes are drawn from has no density: use fit_prior, but not of codes on a codebook"
            )
        return p.log_prob(z).double().cpu().numpy() - _log_volume(chart, z, condition)


def distortion(G: Any) -> float:
    """Say how unevenly a decoder stretches its codes: d·E tr G² / (E tr G)².

    Parameters
    ----------
    G : array_like
        ``(n, d, d)`` metrics at codes.

    Returns
    -------
    float
        1 where it stretches all directions at all places alike; more otherwise.

    References
    ----------
    Lee et al. 2022, "Regularized autoencoders for isometric representation learning" (ICLR), equation 9.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import distortion
    >>> distortion(np.eye(3)[None]), distortion(np.diag([1.0, 9.0])[None])
    (1.0, 1.64)
    """
    G = np.asarray(G, dtype=np.float64)
    return float(G.shape[-1] * (G**2).sum((1, 2)).mean() / np.trace(G, axis1=1, axis2=2).mean() ** 2)


@dataclass(frozen=True)
class Linearization:
    """A decoder near one code: D(z + δ) ≈ D(z) + Jδ.

    Parameters
    ----------
    code : ndarray
        ``(d,)``, z.
    point : ndarray
        ``(*shape)``, D(z).
    jacobian : ndarray
        ``(*shape, d)``, J.
    directions : ndarray
        ``(m, d)``, unit directions of the code.
    radius : ndarray
        ``(m,)``, how far along each of them the approximation holds, in units of the code.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.geometry import Linearization
    >>> Linearization(np.zeros(1), np.ones(2), np.ones((2, 1)), np.eye(1), np.ones(1))([0.5])
    array([1.5, 1.5])
    """

    code: np.ndarray
    point: np.ndarray
    jacobian: np.ndarray
    directions: np.ndarray
    radius: np.ndarray

    def __call__(self, delta: Any) -> np.ndarray:
        """Approximate D(z + δ).

        Parameters
        ----------
        delta : array_like
            ``(d,)`` or ``(n, d)``, steps of the code.

        Returns
        -------
        ndarray
            ``(*shape)`` or ``(n, *shape)``.
        """
        return self.point + np.tensordot(np.asarray(delta, dtype=np.float64), self.jacobian, (-1, -1))


def linearize(
    model: Any, z: Any, directions: Any = None, condition: Any = None, *, tolerance: float = 0.1
) -> Linearization:
    """Approximate a decoder near a code by a plane, and say how far that holds.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    z : array_like
        ``(d,)``, the code.
    directions : array_like or None
        ``(m, d)``; None: the principal directions of the metric, which the decoder stretches most first.
    condition : object, optional
        As the model takes it.
    tolerance : float
        Of :func:`validity_radius`.

    Returns
    -------
    Linearization
        D(z), J and the radii.

    Raises
    ------
    DataError
        If there are several codes.
    PlanError
        If a direction has no length.

    References
    ----------
    Shao, Kumar and Fletcher 2018, arXiv:1711.08014, section 2 (tangents of a generator).

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import linearize
    >>> circle = (lambda x: torch.atan2(x[:, 1:], x[:, :1]), lambda z: torch.cat([z.cos(), z.sin()], 1))
    >>> near = linearize(circle, [0.0])
    >>> near([0.1]).round(2).tolist(), near.radius.round(2).tolist()
    ([1.0, 0.1], [0.2])
    """
    chart = chart_of(model)
    codes = np.atleast_2d(np.asarray(z, dtype=np.float64))
    if len(codes) != 1:
        raise DataError(f"{len(codes)} codes are given, and a plane touches at one: give (d,)")
    c = chart.condition(condition, 1)
    at = codes_of(codes, chart.latent_dim)
    point, J = pushforward(lambda h: chart.decode(h, *rows_of(c, slice(1))), at)
    jacobian = J[:, 0].movedim(0, -1).double().cpu().numpy()
    if directions is None:
        flat = jacobian.reshape(-1, codes.shape[1])
        directions = np.linalg.svd(flat, full_matrices=len(flat) < codes.shape[1])[2]
        directions = directions[: codes.shape[1] - chart.lacking(c)]
    unit = units_of(np.atleast_2d(np.asarray(directions, dtype=np.float64)))
    radius = validity_radius(chart, codes, unit[None], condition=condition, tolerance=tolerance)
    return Linearization(codes[0], chart.shown(point[0].double()), jacobian, unit, radius[0])


def validity_radius(
    model: Any,
    Z: Any,
    directions: Any = None,
    *,
    codes: Any = None,
    condition: Any = None,
    tolerance: float = 0.1,
    random_state: int = 0,
) -> np.ndarray:
    """Say how far D(z + rv) ≈ D(z) + rJv holds: the first r at which they differ by a share of |rJv|.

    Only finite steps are tried: a decoder of ReLU has no second derivative almost everywhere.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a :class:`Chart`.
    Z : array_like
        ``(n, d)`` codes.
    directions : array_like or None
        ``(n, m, d)``, or ``(1, m, d)`` for all; None: four random ones each.
    codes : array_like or None
        ``(N, d)`` whose covariance sets the unit: directions are made of length 1 in it, so that radii are in
        standard deviations of the codes. None: directions are taken as they are.
    condition : object, optional
        As the model takes it.
    tolerance : float
        The share.
    random_state : int
        Of random directions.

    Returns
    -------
    ndarray
        ``(n, m)``; inf where they agree up to ten units.

    Raises
    ------
    DataError
        If codes or directions do not fit each other.

    References
    ----------
    Definition of this library's own; Shao, Kumar and Fletcher 2018, arXiv:1711.08014, on what it is about.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import validity_radius
    >>> circle = (lambda x: torch.atan2(x[:, 1:], x[:, :1]), lambda z: torch.cat([z.cos(), z.sin()], 1))
    >>> validity_radius(circle, [[0.0]], [[[1.0]]]).round(3)
    array([[0.2]])
    """
    chart = chart_of(model)
    Z = codes_of(Z, chart.latent_dim)
    n, d = Z.shape
    random = directions is None
    if random:
        directions = np.random.default_rng(random_state).normal(size=(n, 4, d))
        directions = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    v = np.asarray(directions, dtype=np.float64)
    if v.ndim != 3 or v.shape[2] != d or len(v) not in (1, n):
        raise DataError(f"directions have shape {v.shape}, and (n, m, {d}) or (1, m, {d}) is needed")
    v = np.array(np.broadcast_to(v, (n, *v.shape[1:])))
    if codes is not None:
        v = _whitened(v, np.asarray(codes, dtype=np.float64), stretch=random)
    out = [
        _radii(chart, z, torch.as_tensor(v[b], dtype=torch.float32).to(z), c, tolerance)
        for b, z, c in _blocks(chart, Z, condition, 2 * v.shape[1])
    ]
    return np.concatenate(out)


def _whitened(v: np.ndarray, codes: np.ndarray, stretch: bool) -> np.ndarray:
    """Make directions of length 1 in standard deviations of the codes, without axes that are dead.

    Those that are to be stretched are drawn evenly where codes spread evenly; others keep where they point.
    """
    if len(codes) < 2:
        raise DataError("the spread of codes takes two or more of them: give more, or none")
    values, axes = np.linalg.eigh(np.atleast_2d(np.cov(codes, rowvar=False)))
    alive = values > 1e-6 * values.max()
    axes, sd = axes[:, alive], np.sqrt(values[alive])
    w = v @ axes * (sd if stretch else 1.0)  # along the principal axes
    length = np.linalg.norm(w / sd, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise DataError("a direction leads where codes do not vary, and has no length in their spread")
    return (w / length) @ axes.T


def _radii(chart: Chart, z: Tensor, v: Tensor, c: tuple[Tensor, ...], tolerance: float) -> np.ndarray:
    """The first radius at which decoding leaves the plane, ``(n, m)``: on a grid, then by bisection."""
    n, m, d = v.shape
    point, linear = pushforward(lambda h: chart.decode(h, *c), z, v.movedim(1, 0))
    point = point.flatten(1).repeat_interleave(m, 0).to(z.device)  # where codes are, wherever the decoder is
    linear = linear.flatten(2).movedim(0, 1).reshape(n * m, -1).to(z.device)
    z, v = z.repeat_interleave(m, 0), v.reshape(n * m, d)
    c = tuple(each.repeat_interleave(m, 0) for each in c)
    # In a direction to which the decoder does not react, rounding is all that there is: of the point itself,
    # and of what is added up to it, which goes by the direction to which the decoder reacts most.
    length = v.norm(dim=1)
    most = (linear.norm(dim=1) / length).view(-1, m).amax(1).repeat_interleave(m)
    eps = ROUNDING * torch.finfo(point.dtype).eps
    rounding, growing = eps * (point.norm(dim=1) + most * z.norm(dim=1)), eps * most * length

    def leaves(rows: Tensor, r: Tensor) -> Tensor:
        """Whether the approximation is off at radii ``(rows,)``."""
        with torch.no_grad():
            moved = chart.decode(z[rows] + r[:, None] * v[rows], *(each[rows] for each in c)).flatten(1)
        gap = moved.to(z.device) - point[rows] - r[:, None] * linear[rows]
        small = rounding[rows] + r * growing[rows]
        return gap.norm(dim=1) > tolerance * r * linear[rows].norm(dim=1) + small

    low, high = z.new_zeros(n * m), z.new_full((n * m,), torch.inf)
    open_ = torch.arange(n * m, device=z.device)
    for r in np.geomspace(SHORTEST, LONGEST, STEPS).tolist():
        off = leaves(open_, z.new_full((len(open_),), r))
        high[open_[off]] = r
        open_ = open_[~off]
        low[open_] = r
        if not len(open_):
            break
    found = high.isfinite().nonzero()[:, 0]
    for _ in range(BISECTIONS if len(found) else 0):
        middle = (low[found] + high[found]) / 2
        off = leaves(found, middle)
        high[found[off]], low[found[~off]] = middle[off], middle[~off]
    return high.reshape(n, m).double().cpu().numpy()


def _jacobian(f: Any, z: Tensor, c: tuple[Tensor, ...]) -> Tensor:
    """``(n, d, D)``, float64: its rows are what the axes of the code become."""
    return pushforward(lambda h: f(h, *c), z)[1].flatten(2).movedim(0, 1).double()


def _blocks(chart: Chart, z: Tensor, condition: Any, k: int | None = None) -> Any:
    """Codes in blocks: which, as a tensor, with their conditions."""
    c = chart.condition(condition, len(z))
    for b in chart.blocks(len(z), z.shape[1] if k is None else k):
        yield b, z[b], rows_of(c, b)
