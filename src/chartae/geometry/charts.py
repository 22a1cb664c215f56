"""A chart: the pair of maps between data and codes that all of geometry and every diagnostic works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.parts.distributions import Delta, DiagonalNormal, StandardNormal

__all__ = ["Chart", "chart_of", "codes_of", "rows_of"]

VALUES = 1 << 22  # values of the widest layer in one go: bounded memory

Map = Callable[..., Tensor]


def _as_items(X: Any, condition: Any = None) -> Tensor:
    """Take items as they are.

    Source: this library's own.

    Parameters
    ----------
    X : array_like
        ``(n, *shape)``.
    condition : object
        Of no effect: nothing is missing that it could tell.

    Returns
    -------
    Tensor
        ``(n, *shape)``, float32.

    Examples
    --------
    >>> from chartae.geometry import Chart
    >>> Chart.items([[1, 2]])
    tensor([[1., 2.]])
    """
    return torch.as_tensor(X if isinstance(X, Tensor) else np.asarray(X)).detach().to(torch.float32)


@dataclass(frozen=True)
class Chart:
    """Two maps, data to codes and back, with what else is known of a model.

    A fitted estimator gives its own (``estimator.chart()``); a model of another library is a pair of torch
    callables, ``Chart.of_pair(encode, decode)``. Rows must not depend on each other: modules are in
    evaluation mode. Data have one unit in all their values: the input's, or standard deviations where the
    columns of a table have units of their own.

    Parameters
    ----------
    encode : callable
        ``(n, *shape)`` to ``(n, d)``: the posterior's mean. Called as ``encode(x, c)`` where there is a
        condition ``c`` of ``n`` rows.
    decode : callable
        ``(n, d)`` to ``(n, *shape)``: the mean of p(x | z).
    posterior : callable or None
        From items to q(z | x), batch shape ``(n,)``; None: a point, or unknown.
    draws : callable or None
        ``(x, noise)`` to codes drawn from q(z | x), ``(n, d)``, where no more is known of it than draws;
        None: they are drawn from ``posterior``.
    likelihood : callable or None
        ``(x, z)`` to log p(x | z), ``(n,)`` nats; None: unknown.
    spread : callable or None
        Codes to the standard deviation of p(x | z), ``(n, *shape)``; None: unknown.
    observe : callable or None
        ``(z, noise)`` to items drawn from p(x | z), ``(n, *shape)``; None: unknown.
    prior : callable or None
        From a condition, or None, to p(z), which the codes were trained to follow; None: there is none.
    sampler : callable or None
        The same, of what samples take their codes from; None: the prior.
    items : callable
        From what a user has, and its condition or None, to a tensor of items, ``(n, *shape)``.
    conditioned : callable or None
        ``(condition, n)`` to a tensor of ``n`` rows; None: a model without a condition.
    width : int
        Values that one item takes in the widest layer: it bounds how many go through at once.
    given : object
        What the chart is of: a fitted estimator, which may know more than its chart.
    smooth : bool
        Whether a small change of an item changes its code by little; codes on a codebook jump.
    latent_dim : int or None
        d; None: any that the maps take.
    onto : callable or None
        From codes ``(..., d)`` to the nearest where codes can lie, on a sphere for instance; None: anywhere.
    origin : Tensor or None
        ``(*shape)``: what is to be added to items to have them as the user has them; None: nothing.
    limits : (float, float) or None
        The smallest and the largest number of the user's type, within which items are shown; None: any.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import Chart
    >>> plane = Chart.of_pair(lambda x: x[:, :2], lambda z: torch.cat([z, z.sum(1, keepdim=True)], 1))
    >>> plane.decode(plane.encode(torch.ones(1, 3)))
    tensor([[1., 1., 2.]])
    """

    encode: Map
    decode: Map
    posterior: Callable[..., Distribution] | None = None
    draws: Map | None = None
    likelihood: Map | None = None
    spread: Map | None = None
    observe: Map | None = None
    prior: Callable[[Tensor | None], Distribution] | None = None
    sampler: Callable[[Tensor | None], Distribution] | None = None
    items: Callable[..., Tensor] = _as_items
    conditioned: Callable[[Any, int], Tensor | None] | None = None
    width: int = 1024
    given: Any = None
    smooth: bool = True
    latent_dim: int | None = None
    onto: Callable[[Tensor], Tensor] | None = None
    origin: Tensor | None = None
    limits: tuple[float, float] | None = None

    @staticmethod
    def of_pair(
        encode: Any,
        decode: Any,
        *,
        std: Any = None,
        noise: float | None = None,
        prior: str | Distribution | None = None,
        latent_dim: int | None = None,
    ) -> Chart:
        """Make a chart of two torch callables.

        Parameters
        ----------
        encode, decode : callable
            ``(n, *shape)`` to ``(n, d)`` and back; a second argument is the condition, where one is given.
        std : callable or None
            From items to the posterior's standard deviations, ``(n, d)``; None: codes are points.
        noise : float or None
            Standard deviation of p(x | z), where it is normal; None: unknown.
        prior : "normal", Distribution or None
            What codes were trained to follow: N(0, I), another distribution, or nothing.
        latent_dim : int or None
            d, which prior="normal" needs.

        Returns
        -------
        Chart
            Of both.

        Raises
        ------
        PlanError
            If one of them cannot be called, is in training mode, or the prior is unknown or without its size.

        Examples
        --------
        >>> import torch
        >>> from chartae.geometry import Chart
        >>> Chart.of_pair(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3))
        Traceback (most recent call last):
        ...
        chartae.core.errors.PlanError: encode is in training mode, where rows may depend on each other: ...
        """
        for name, f in (("encode", encode), ("decode", decode)):
            if not callable(f):
                raise PlanError(f"{name}={f!r} is no function: give a torch callable")
            if isinstance(f, nn.Module) and f.training:
                raise PlanError(
                    f"{name} is in training mode, where rows may depend on each other: call its eval() first"
                )
        if prior == "normal":
            if latent_dim is None:
                raise PlanError("prior='normal' needs the size of the codes: give latent_dim as well")
            prior = StandardNormal(latent_dim)
        if not (prior is None or isinstance(prior, Distribution)):
            raise PlanError(f"prior={prior!r}: use 'normal', a Distribution of chartae, or None")

        def posterior(x: Tensor, *c: Tensor) -> Distribution:
            return DiagonalNormal(encode(x, *c), 2 * std(x, *c).log())

        def likelihood(x: Tensor, z: Tensor, *c: Tensor) -> Tensor:
            gap = (x - decode(z, *c)).flatten(1) / noise
            return -0.5 * (gap.square() + np.log(2 * np.pi * float(noise or 1) ** 2)).sum(1)

        def spread(z: Tensor, *c: Tensor) -> Tensor:
            return torch.full_like(decode(z, *c), float(noise or 0))

        def observe(z: Tensor, draws: Noise, *c: Tensor) -> Tensor:
            x = decode(z, *c)
            return x + spread(z, *c) * draws.normal(x.shape, x)

        return Chart(
            encode=_tensor("encode", encode),
            decode=_tensor("decode", decode),
            posterior=None if std is None else posterior,
            likelihood=None if noise is None else likelihood,
            spread=None if noise is None else spread,
            observe=None if noise is None else observe,
            prior=None if prior is None else lambda c: prior,
            latent_dim=latent_dim,
        )

    def placed(self, codes: Any) -> np.ndarray:
        """Bring codes to where codes can lie, which is where they are decoded.

        Parameters
        ----------
        codes : array_like
            ``(..., d)``.

        Returns
        -------
        ndarray
            ``(..., d)``.
        """
        codes = np.asarray(codes)
        if self.onto is None:
            return codes
        with torch.no_grad():
            return self.onto(torch.from_numpy(codes)).numpy().astype(codes.dtype)

    def shown(self, items: Tensor) -> np.ndarray:
        """Give items as the user has them, as far as they have one unit.

        Parameters
        ----------
        items : Tensor
            ``(..., *shape)``.

        Returns
        -------
        ndarray
            ``(..., *shape)``.
        """
        # In float64 where the data are: their offset may take all digits of float32.
        items = items if self.origin is None else items + self.origin.to(items.device)
        return (items if self.limits is None else items.clamp(*self.limits)).cpu().numpy()

    def take(self, X: Any, condition: Any = None) -> tuple[Tensor, Tensor | None]:
        """Make tensors of items and of their condition, which tells what is missing in them, too.

        Parameters
        ----------
        X : object
            As the model takes it.
        condition : object
            As :meth:`condition` takes it.

        Returns
        -------
        x : Tensor
            ``(n, *shape)``.
        c : Tensor or None
            ``(n, m)``.

        Raises
        ------
        DataError
            If there are no items, or if they are not finite.
        """
        x = self.items(X, condition)
        if not len(x):
            raise DataError("there are no items: give one or more")
        if not bool(x.isfinite().all()):
            row = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
            raise DataError(f"the item in row {row} (from 0) is not finite: leave it out")
        return x, self.condition(condition, len(x))

    def condition(self, condition: Any, n: int) -> Tensor | None:
        """Make the tensor of a condition.

        Parameters
        ----------
        condition : object
            As the model takes it; numbers of ``n`` rows or of one, ``(n, m)``, for a pair of callables; None
            for none.
        n : int
            Rows.

        Returns
        -------
        Tensor or None
            ``(n, m)``.

        Raises
        ------
        DataError
            If it is no numbers, or of other rows.
        """
        if self.conditioned is not None:
            return self.conditioned(condition, n)
        if condition is None:
            return None
        try:
            c = _as_items(condition)
        except (TypeError, ValueError):
            raise DataError("a pair of callables takes a condition of numbers: give them as (n, m)") from None
        if c.dim() < 2 or len(c) not in (1, n):
            how = ", as condition[:, None] is" if c.shape == (n,) else ""
            raise DataError(
                f"the condition has shape {tuple(c.shape)}: give ({n}, m){how}, or (1, m) for all rows"
            )
        return c.expand(n, *c.shape[1:]) if len(c) == 1 else c

    def lacking(self, c: Tensor | None = None) -> int:
        """Count the dimensions that codes lack in the space that they are in: one on a sphere.

        Parameters
        ----------
        c : Tensor or None
            ``(n, m)``: conditions of some rows, where the model has any.

        Returns
        -------
        int
            0 where codes fill their space, or nothing is known of it.
        """
        of = self.prior or self.source
        with torch.no_grad():
            return 0 if of is None else of(None if c is None else c[:1]).codimension

    def blocks(self, n: int, k: int = 1) -> Iterator[slice]:
        """Cut rows into blocks that fit into bounded memory.

        Parameters
        ----------
        n : int
            Rows.
        k : int
            Tensors of the size of a layer that each row takes.

        Yields
        ------
        slice
            Of rows.
        """
        size = max(1, VALUES // (k * max(self.width, 1)))
        for start in range(0, n, size):
            yield slice(start, min(n, start + size))

    @torch.no_grad()
    def codes(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Encode block by block.

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, d)``.
        """
        return torch.cat([self.encode(x[b], *rows_of(c, b)) for b in self.blocks(len(x))])

    @torch.no_grad()
    def decoded(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Decode block by block.

        Parameters
        ----------
        z : Tensor
            ``(n, d)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, *shape)``.
        """
        return torch.cat([self.decode(z[b], *rows_of(c, b)) for b in self.blocks(len(z))])

    def projected(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Project: P(x) = D(E(x)).

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, *shape)``.
        """
        return self.decoded(self.codes(x, c), c)

    def q(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        """q(z | x), a point where there is no other.

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Distribution
            Batch shape ``(n,)``.
        """
        more = () if c is None else (c,)
        return Delta(self.encode(x, *more)) if self.posterior is None else self.posterior(x, *more)

    @torch.no_grad()
    def drawn(self, x: Tensor, noise: Noise, c: Tensor | None = None) -> Tensor:
        """Draw one code of each item from q(z | x).

        Parameters
        ----------
        x : Tensor
            ``(n, *shape)``.
        noise : Noise
            Where the randomness comes from.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, d)``.
        """
        made = []
        for b in self.blocks(len(x)):
            given = rows_of(c, b)
            if self.draws is not None:
                made.append(self.draws(x[b], noise, *given))
            else:
                made.append(self.q(x[b], *given).draw(1, noise).z[0])
        return torch.cat(made)

    @property
    def source(self) -> Callable[[Tensor | None], Distribution] | None:
        """Where samples take their codes from."""
        return self.prior if self.sampler is None else self.sampler


def rows_of(c: Tensor | None, rows: Any) -> tuple[Tensor, ...]:
    """Choose the conditions of some rows, as further arguments of a map.

    Source: this library's own.

    Parameters
    ----------
    c : Tensor or None
        ``(n, m)``.
    rows : slice or Tensor
        Which.

    Returns
    -------
    tuple of Tensor
        ``(rows, m)``, or nothing where there is no condition.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry.charts import rows_of
    >>> rows_of(None, slice(3)), len(rows_of(torch.zeros(9, 2), slice(3))[0])
    ((), 3)
    """
    return () if c is None else (c[rows],)


def chart_of(model: Any) -> Chart:
    """Find the chart of whatever has one.

    Source: this library's own.

    Parameters
    ----------
    model : Chart, tuple or object
        A chart, a pair of torch callables ``(encode, decode)``, or a fitted estimator.

    Returns
    -------
    Chart
        Of it.

    Raises
    ------
    PlanError
        If it has none.

    Examples
    --------
    >>> import torch
    >>> from chartae.geometry import chart_of
    >>> chart_of((lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))).decode(torch.ones(1, 1))
    tensor([[1., 1.]])
    >>> chart_of("vae")
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: 'vae' is no model: give a fitted estimator, ...
    """
    if isinstance(model, Chart):
        return model
    if isinstance(model, tuple) and len(model) == 2:
        return Chart.of_pair(*model)
    if hasattr(model, "chart"):
        return model.chart()
    raise PlanError(
        f"{model!r} is no model: give a fitted estimator, a pair (encode, decode) of torch callables, or a "
        "Chart"
    )


def codes_of(Z: Any, d: int | None = None) -> Tensor:
    """Take codes as decoders do.

    Source: this library's own.

    Parameters
    ----------
    Z : array_like
        ``(n, d)``.
    d : int or None
        How many numbers a code has; None: any.

    Returns
    -------
    Tensor
        ``(n, d)``, float32.

    Raises
    ------
    DataError
        If they are no rows, none at all, of another size, or not finite.

    Examples
    --------
    >>> from chartae.geometry.charts import codes_of
    >>> codes_of([[1, 2]])
    tensor([[1., 2.]])
    """
    z = _as_items(Z)
    if z.dim() != 2 or d not in (None, z.shape[1]):
        raise DataError(f"codes have shape {tuple(z.shape)}, and (n, {d or 'd'}) is needed")
    if not len(z):
        raise DataError("there are no codes: give one or more")
    lost = ~z.isfinite().all(1)
    if bool(lost.any()):
        raise DataError(f"the code in row {int(lost.nonzero()[0])} (from 0) is not finite: leave it out")
    return z


def _tensor(name: str, f: Callable[..., Any]) -> Map:
    """Check what a foreign callable gives."""

    def checked(*given: Tensor) -> Tensor:
        try:
            out = f(*given)
        except RuntimeError as error:
            said = " ".join(f"{error}".split())
            raise DataError(f"{name} fails on a tensor of shape {tuple(given[0].shape)}: {said}") from error
        if not isinstance(out, Tensor):
            raise DataError(
                f"{name} gave {type(out).__name__} and not a tensor: wrap it, as in "
                f"lambda x: model.{name}(x)[0]"
            )
        if name == "encode" and out.dim() != 2:
            raise DataError(
                f"encode gave codes of shape {tuple(out.shape)}, and (n, d) is needed: flatten them"
            )
        return out

    return checked


def units_of(directions: np.ndarray) -> np.ndarray:
    """Make vectors of length one, ``(m, d)``, or say which cannot be."""
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise PlanError("a direction needs a finite length above zero: give another vector")
    unit: np.ndarray = directions / length
    return unit
