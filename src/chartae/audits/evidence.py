"""What checks look at: held-out items, their codes and projections, computed once and shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.registry import suggest
from chartae.geometry.charts import Chart, rows_of
from chartae.geometry.dimension import Dimension, intrinsic_dimension
from chartae.geometry.metrics import metric
from chartae.geometry.neighbors import nearest
from chartae.geometry.tangent import NormalGain, TangentSpace, normal_gain, tangent_space
from chartae.parts.distributions import DiagonalNormal, FullNormal, StandardNormal
from chartae.parts.posteriors import Corrupted

__all__ = ["ACTIVE", "BUDGETS", "NORMALS", "UNUSED", "Budget", "Evidence", "budget_of"]

NORMALS = (StandardNormal, DiagonalNormal, FullNormal)
UNUSED = 1e-3  # a direction with less of the power of the strongest one does nothing
ACTIVE = 0.01  # variance of the posterior's mean, in units of the prior's
SPREAD_ROWS = 4_000  # items whose codes are asked how much they vary, at most
NEAR = 50  # neighbors of each item that are kept


class Budget(NamedTuple):
    """How much may be looked at.

    Attributes
    ----------
    rows : int
        Items at most.
    neighbors : int
        Items among which neighbors are looked for.
    points : int
        Items at which derivatives are taken.
    draws : int
        Simulations of a null.

    Examples
    --------
    >>> from chartae.audits.evidence import BUDGETS
    >>> BUDGETS["fast"].points < BUDGETS["full"].points
    True
    """

    rows: int
    neighbors: int
    points: int
    draws: int


BUDGETS = {"fast": Budget(10_000, 2_000, 256, 200), "full": Budget(50_000, 10_000, 1_024, 1_000)}


def budget_of(name: str) -> Budget:
    """Find how much may be looked at.

    Parameters
    ----------
    name : {"fast", "full"}
        Which.

    Returns
    -------
    Budget
        In numbers.

    Raises
    ------
    PlanError
        If there is no such budget.

    Examples
    --------
    >>> from chartae.audits.evidence import budget_of
    >>> budget_of("fast").rows
    10000
    """
    if name not in BUDGETS:
        raise PlanError(f"budget={name!r}: {suggest(name, BUDGETS)}")
    return BUDGETS[name]


class Evidence:
    """A chart and items, in random order: the first ``m`` are a random choice, of whatever kind of row.

    Rows that are given may be sorted, by class for instance, so that their first would be of few kinds.

    Parameters
    ----------
    chart : Chart
        Of the model.
    x : Tensor
        ``(n, *shape)`` held-out items, in the chart's units.
    c : Tensor or None
        ``(n, m)`` their conditions.
    train : Tensor or None
        ``(n_train, *shape)`` items that the model was trained on; as many as ``budget.rows`` are kept.
    c_train : Tensor or None
        ``(n_train, m)`` their conditions.
    codes : Tensor or None
        ``(m, d)`` codes drawn from q(z | x) of training items.
    labels : ndarray or None
        ``(n,)`` of the held-out items.
    labels_train : ndarray or None
        ``(n_train,)``.
    row_numbers : ndarray or None
        ``(n,)`` what the rows are called; None: 0 to n − 1.
    budget : Budget
        How much may be looked at.
    seed : int
        Of every choice and draw.

    Attributes
    ----------
    index : ndarray
        ``(n,)`` the row of the data that was given, for each item.
    index_train : ndarray
        ``(m,)`` the same for each training item that is kept.

    Raises
    ------
    PlanError
        If the seed is no whole number.

    Examples
    --------
    >>> import torch
    >>> from chartae.audits.evidence import Evidence
    >>> from chartae.geometry import Chart
    >>> line = Chart.of_pair(lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
    >>> Evidence(line, torch.ones(5, 2)).residuals.sum()
    tensor(0.)
    """

    def __init__(
        self,
        chart: Chart,
        x: Tensor,
        *,
        c: Tensor | None = None,
        train: Tensor | None = None,
        c_train: Tensor | None = None,
        codes: Tensor | None = None,
        labels: np.ndarray | None = None,
        labels_train: np.ndarray | None = None,
        row_numbers: np.ndarray | None = None,
        budget: Budget = BUDGETS["fast"],
        seed: int = 0,
    ) -> None:
        try:
            seed = index(seed)
        except TypeError:
            raise PlanError(f"random_state={seed!r} is no seed: give a whole number") from None
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: budget.rows]
        # Items and conditions are tensors already: geometry must not turn them into some again.
        self.chart = replace(chart, items=Chart.items, conditioned=None)
        self.budget, self.seed = budget, seed
        self.index = order.numpy() if row_numbers is None else np.asarray(row_numbers)[order.numpy()]
        self.x, self.c = x[order], None if c is None else c[order]
        self.labels = None if labels is None else np.asarray(labels)[order.numpy()]
        self.index_train = self.random(4).permutation(0 if train is None else len(train))[: budget.rows]
        kept = torch.from_numpy(self.index_train)
        self.train = None if train is None else train[kept]
        self.c_train = None if train is None or c_train is None else c_train[kept]
        labeled = train is not None and labels_train is not None
        self.labels_train = np.asarray(labels_train)[self.index_train] if labeled else None
        order = torch.from_numpy(self.random(5).permutation(0 if codes is None else len(codes)))
        self._codes = None if codes is None else codes[order]
        self._moments = (np.empty((0, 0)), np.empty((0, 0)))

    def __len__(self) -> int:
        return len(self.x)

    def noise(self, stream: int) -> Noise:
        """Give a stream of random numbers of its own.

        Parameters
        ----------
        stream : int
            Which: every use has another.

        Returns
        -------
        Noise
            Always the same for the same evidence and stream.
        """
        return Noise(self.seed * 1000 + stream)

    def random(self, stream: int) -> np.random.Generator:
        """Give a generator of its own, for choices.

        Parameters
        ----------
        stream : int
            Which.

        Returns
        -------
        numpy.random.Generator
            Always the same for the same evidence and stream.
        """
        return np.random.default_rng([self.seed, stream])

    def has(self, need: str) -> bool:
        """Tell whether something is there, or is so: what :class:`Check` may need.

        Parameters
        ----------
        need : str
            What.

        Returns
        -------
        bool
            Whether it is.
        """
        found = getattr(self.chart if hasattr(self.chart, need) else self, need)
        return found is not None and found is not False

    def conditions(self, rows: Any) -> tuple[Tensor, ...]:
        """Choose conditions, as further arguments of the chart's maps.

        Parameters
        ----------
        rows : slice or Tensor
            Which.

        Returns
        -------
        tuple of Tensor
            ``(rows, m)``, or nothing where there are none.
        """
        return rows_of(self.c, rows)

    def flat_condition(self, m: int) -> Tensor | None:
        """Give conditions of the first items as rows of numbers.

        Parameters
        ----------
        m : int
            How many.

        Returns
        -------
        Tensor or None
            ``(m, c)``.
        """
        return None if self.c is None else self.c[:m].detach().flatten(1).cpu()

    @property
    def corruption(self) -> tuple[str, float] | None:
        """Kind and amount of corruption that the encoder saw in training."""
        modules = self.chart.given.model_.modules() if hasattr(self.chart.given, "model_") else ()
        return next(((m.kind, m.amount) for m in modules if isinstance(m, Corrupted)), None)

    # ---------------------------------------------------------------- of the items

    @cached_property
    def z(self) -> Tensor:
        """Codes E(x), ``(n, d)``."""
        return self.chart.codes(self.x, self.c).cpu()

    @cached_property
    def p(self) -> Tensor:
        """Projections P(x) = D(E(x)), flat, ``(n, D)``."""
        return self.chart.decoded(self.z.to(self.x.device), self.c).flatten(1).cpu()

    @cached_property
    def flat(self) -> Tensor:
        """Items, flat, ``(n, D)``."""
        return self.x.flatten(1).cpu()

    @cached_property
    def residuals(self) -> Tensor:
        """r = x − P(x), flat, ``(n, D)``."""
        return self.flat - self.p

    @cached_property
    def drawn(self) -> Tensor:
        """One draw from q(z | x) of each item, ``(n, d)``; the codes where the posterior is a point."""
        if self.chart.posterior is None and self.chart.draws is None:
            return self.z
        return self.chart.drawn(self.x, self.noise(1), self.c).cpu()

    def moments(self, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Give mean and standard deviation of q(z | x) of the first items, each of which is asked once.

        Parameters
        ----------
        m : int
            How many.

        Returns
        -------
        mean, std : ndarray
            ``(m, d)`` each.
        """
        done = len(self._moments[0])
        if m > done:
            found = [self._moments] if done else []
            with torch.no_grad():
                for b in self.chart.blocks(m - done):
                    b = slice(done + b.start, done + b.stop)
                    both = self.chart.q(self.x[b], *self.conditions(b)).moments()
                    found.append((both[0].cpu().double().numpy(), both[1].cpu().double().numpy()))
            self._moments = np.concatenate([v[0] for v in found]), np.concatenate([v[1] for v in found])
        return self._moments[0][:m], self._moments[1][:m]

    def assumed(self, m: int) -> Distribution:
        """Give the prior of the first items.

        Parameters
        ----------
        m : int
            How many.

        Returns
        -------
        Distribution
            Of batch shape ``(m,)``, or ``()`` where it is the same for all.
        """
        assert self.chart.prior is not None
        with torch.no_grad():
            return self.chart.prior(None if self.c is None else self.c[:m])

    @property
    def spread_rows(self) -> int:
        """Items, the first of all, whose codes are asked how much they vary."""
        return min(len(self), SPREAD_ROWS)

    @cached_property
    def scale_of_prior(self) -> np.ndarray:
        """Standard deviations of the prior, ``(spread_rows, d)`` or ``(d,)``; one where there is no prior."""
        if self.chart.prior is None:
            return np.ones(self.d)
        p = self.assumed(self.spread_rows)
        if isinstance(p, NORMALS):
            return p.std().cpu().double().numpy()
        with torch.no_grad():
            drawn = p.draw(1 if p.batch_shape else 10_000, self.noise(21)).z
        return drawn.flatten(0, -2).cpu().double().std(0).numpy()

    @cached_property
    def center_of_prior(self) -> np.ndarray:
        """Means of the prior, ``(spread_rows, d)`` or ``(d,)``; zero where there is no prior."""
        if self.chart.prior is None:
            return np.zeros(self.d)
        return self.assumed(self.spread_rows).center().detach().cpu().double().numpy()

    @cached_property
    def normal(self) -> bool:
        """Whether codes have normal distributions, given their items and before."""
        if self.chart.posterior is None:
            return False
        with torch.no_grad():
            q = self.chart.q(self.x[:1], *self.conditions(slice(1)))
        return isinstance(q, NORMALS) and (self.chart.prior is None or isinstance(self.assumed(1), NORMALS))

    @cached_property
    def active(self) -> np.ndarray:
        """Which dimensions of the posterior's mean move with the item, ``(d,)`` of bool."""
        m = self.spread_rows
        # A code on a sphere moves however little is known of it; the mean of what may be it does not.
        known = self.chart.posterior is not None
        mean = self.moments(m)[0] if known else self.z[:m].double().numpy()
        return np.asarray(((mean - self.center_of_prior) / self.scale_of_prior).var(0) > ACTIVE)

    @cached_property
    def support(self) -> Tensor:
        """Draws from q(z | x) of other items than these: where codes are, ``(m, d)``.

        Training items, if there are any; else the second half of these, so that no item is compared with
        itself as long as only :attr:`queries` are asked.
        """
        if self._codes is not None and len(self._codes):
            return self._codes.cpu()
        if self.train is not None:
            return self.chart.drawn(self.train, self.noise(2), self.c_train).cpu()
        return self.drawn[len(self) // 2 :]

    @cached_property
    def queries(self) -> Tensor:
        """Draws from q(z | x) of held-out items that are not in :attr:`support`, ``(m, d)``."""
        own = (self._codes is None or not len(self._codes)) and self.train is None
        return self.drawn[: len(self) // 2] if own else self.drawn

    @property
    def d(self) -> int:
        """Latent dimensions."""
        return self.z.shape[1]

    @property
    def room(self) -> int:
        """Dimensions that codes have room for: on a sphere one fewer than a code has numbers."""
        return self.d - self.chart.lacking(self.c)

    @property
    def features(self) -> int:
        """Values of an item, D."""
        return self.flat.shape[1]

    @cached_property
    def code_std(self) -> Tensor:
        """Standard deviation of the codes, ``(d,)``."""
        return self.z.std(0)

    @cached_property
    def dimension(self) -> Dimension:
        """Intrinsic dimension of the items."""
        return intrinsic_dimension(self.flat.numpy(), max_rows=self.budget.neighbors, random_state=self.seed)

    @cached_property
    def dimension_range(self) -> tuple[float, float]:
        """Where the dimension of the items may lie: its interval on a plateau, else what scales leave open.

        Noise makes readings fall with scale. Where they do and reach no plateau, even the least may be one of
        noise, and only eigenvalues that stand out from others say how many dimensions there are at least.
        """
        found = self.dimension
        if found.verdict == "ok":
            return found.interval
        readings = [d for _, d, _ in found.scales]
        least = min(readings)
        if readings[-1] < readings[0]:
            stand_out = found.local_pca if found.local_pca is not None else self.features
            least = min(least, stand_out if stand_out < self.features else 1)
        return least, max(readings)

    @cached_property
    def dimension_z(self) -> Dimension:
        """Intrinsic dimension of the codes."""
        return intrinsic_dimension(self.z.numpy(), max_rows=self.budget.neighbors, random_state=self.seed)

    @cached_property
    def told_dimension(self) -> float:
        """Dimensions along which conditions vary, so that codes need not; 0 for labels, which are few."""
        c = self.flat_condition(len(self))
        if c is None or 2 * len(c.unique(dim=0)) <= len(c):
            return 0.0
        most = self.budget.neighbors
        return intrinsic_dimension(c.numpy(), max_rows=most, random_state=self.seed).dimension

    @property
    def alone(self) -> bool:
        """Whether codes are all that tells how items vary, but for what class they are of."""
        return not self.told_dimension

    @cached_property
    def tangent_dimension(self) -> float:
        """Dimensions along which items vary, as far as codes can follow them."""
        return min(self.dimension.dimension, float(self.room))

    # ---------------------------------------------------------------- of some points

    @cached_property
    def points(self) -> np.ndarray:
        """The items at which derivatives are taken, ``(m,)``."""
        return np.arange(min(len(self), self.budget.points))

    @cached_property
    def tangents(self) -> TangentSpace:
        """Tangent spaces of the data at the points."""
        near = self.flat[: self.budget.neighbors].numpy()
        return tangent_space(
            near, near[self.points], dimension=max(1, round(self.dimension.dimension)), random_state=self.seed
        )

    @cached_property
    def gains(self) -> NormalGain:
        """What projection does along and across the tangent spaces at the points."""
        m = len(self.points)
        return normal_gain(
            self.chart, self.x[:m], tangents=self.tangents, condition=None if self.c is None else self.c[:m]
        )

    @cached_property
    def metric(self) -> np.ndarray:
        """G = J_DᵀJ_D at the points' codes, ``(m, d, d)``."""
        m = len(self.points)
        return metric(self.chart, self.z[:m], None if self.c is None else self.c[:m])

    @cached_property
    def strengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance of decoded items along each principal latent direction, strongest first, and these.

        Eigenvalues ``(d,)`` of Cov(z) E JᵀJ, and directions ``(d, d)`` in columns. Axes are not what a
        decoder uses: a posterior whose dimensions go together may turn them as it likes.
        """
        values, vectors = np.linalg.eigh(np.cov(self.z.double().numpy().T).reshape(self.d, self.d))
        root = vectors * np.sqrt(values.clip(0))
        power, turn = np.linalg.eigh(root.T @ self.metric.mean(0) @ root)
        return power[::-1].clip(0), (root @ turn)[:, ::-1]

    @property
    def used_metric(self) -> np.ndarray:
        """The metric on the latent directions that the decoder uses, ``(m, k, k)``; k = 0 for a constant.

        Where codes lack a dimension, as on a sphere, those directions are other ones at every point: there it
        is the metric's principal stretches.
        """
        lacking = self.chart.lacking(self.c)
        if lacking:
            stretches = np.linalg.eigvalsh(self.metric)[:, lacking:]
            return stretches[:, :, None] * np.eye(stretches.shape[1])
        power, directions = self.strengths
        used = np.linalg.qr(directions[:, power > UNUSED * max(power[0], 1e-12)])[0]
        return used.T @ self.metric @ used

    # ---------------------------------------------------------------- of neighbors

    @property
    def compared(self) -> int:
        """Items, the first of all, among which neighbors are looked for."""
        return min(len(self), self.budget.neighbors)

    def told(self, rows: Tensor) -> Tensor:
        """Put conditions beside items or codes, as large as these, so that like ones have like conditions.

        A conditional model need not keep in its codes what it is told.

        Parameters
        ----------
        rows : Tensor
            ``(m, k)``, of the first items.

        Returns
        -------
        Tensor
            ``(m, k + c)``; as they were where there is no condition.
        """
        c = self.flat_condition(len(rows))
        if c is None:
            return rows
        c = c.to(rows)
        sizes = [v.var(0).sum().sqrt() for v in (rows, c)]
        return torch.cat([rows, c * (sizes[0] / sizes[1].clamp_min(1e-12))], 1)

    @cached_property
    def others(self) -> Tensor:
        """Another row at random for each that is compared, ``(n,)``: of the same condition, if there are any.

        Of conditions that are all different, the nearest is taken for the same.
        """
        m, c = self.compared, self.flat_condition(self.compared)
        others = torch.arange(m).roll(1)
        if c is None:
            return others
        kinds, kind = c.unique(dim=0, return_inverse=True)
        if 2 * len(kinds) > m:
            return torch.from_numpy(nearest(c, c, 1, exclude_self=True)[1][:, 0])
        order = kind.argsort(stable=True)  # in which the row before is mostly of the same condition
        others[order] = order.roll(1)
        return others

    def _near(self, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return nearest(rows, rows, min(NEAR, self.compared - 1), exclude_self=True)

    @cached_property
    def near_x(self) -> tuple[np.ndarray, np.ndarray]:
        """Nearest other items of each of those that are compared, ``(n, NEAR)``: distances and rows."""
        return self._near(self.flat[: self.compared])

    @cached_property
    def near_z(self) -> tuple[np.ndarray, np.ndarray]:
        """The same by their codes, ``(n, NEAR)``: distances and rows."""
        return self._near(self.z[: self.compared])

    @cached_property
    def near_told_x(self) -> tuple[np.ndarray, np.ndarray]:
        """The same by items with their conditions, ``(n, NEAR)``."""
        return self.near_x if self.c is None else self._near(self.told(self.flat[: self.compared]))

    @cached_property
    def near_told_z(self) -> tuple[np.ndarray, np.ndarray]:
        """The same by codes with their conditions, ``(n, NEAR)``."""
        return self.near_z if self.c is None else self._near(self.told(self.z[: self.compared]))

    # ---------------------------------------------------------------- of samples

    def sampled(self, n: int, *, prior: bool, stream: int = 3) -> Tensor:
        """Draw codes from the prior, or from where samples take theirs.

        Parameters
        ----------
        n : int
            How many; of a conditional prior, as many as there are conditions of the items.
        prior : bool
            The prior, and not a density that was fitted in its place.
        stream : int
            Of random numbers.

        Returns
        -------
        Tensor
            ``(n, d)``.
        """
        source: Callable[[Tensor | None], Distribution] | None = (
            self.chart.prior if prior else self.chart.source
        )
        assert source is not None
        with torch.no_grad():
            rows = torch.arange(n) % len(self)
            p = source(None if self.c is None else self.c[rows])
            noise = self.noise(stream)
            z = (p.draw(1, noise).z[0] if p.batch_shape else p.draw(n, noise).z).cpu()
        # A density that was fitted knows nothing of the surface that its codes are decoded from.
        return z if prior else torch.from_numpy(self.chart.placed(z.numpy()))
