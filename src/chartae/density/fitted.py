"""Densities fitted to codes after training: where samples take their codes from instead of the prior."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.core.errors import DataError, PlanError
from chartae.core.registry import Registry, suggest
from chartae.parts.distributions import FullNormal, FullNormalMixture, StandardNormal

__all__ = [
    "AUTOMATIC",
    "Density",
    "KernelDensity",
    "MixtureDensity",
    "NormalDensity",
    "densities",
    "fit_density",
]

#: Classes built as ``(latent_dim, **parameters)``.
densities: Registry[type[Density]] = Registry("density")
#: Those that "auto" chooses from, the simplest first.
AUTOMATIC = ("normal", "gmm", "kernel")
DISCRETE = ("independent", "autoregressive")  # of codes on a codebook

FEWEST = 20  # codes of which a part can be held out
MOST = 10_000  # codes that are split
PARTS = (0.7, 0.85)  # up to where codes are fitted to, and chosen by; the rest tells what has been gained
SCORED = 4096  # codes scored in one go
AMPLE = 20  # codes of each dimension, of which correlations are taken as they are
FOLDS = 5  # in which fewer of them are left out in turn
CONSTANT = 1e-6  # of its largest value: a dimension whose deviation is below it does not vary
SHRINKAGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)


class Density(Prior):
    """A density fitted to codes, whatever the condition of each.

    Codes are split in three: 70 % are fitted to, 15 % choose (how many components, how wide, when to stop)
    and 15 % tell what was gained. Then all of them are fitted to, in the way that was chosen; networks stay
    as the 70 % have taught them.

    Parameters
    ----------
    latent_dim : int
        d.

    Attributes
    ----------
    held_out : float or None
        Nats that a held-out code gains over N(0, I), or, on a codebook, over one whose entries are drawn
        uniformly, on average; None before the fit, or if there are fewer than 20 codes.
    held_out_se : float or None
        The standard error of that mean.

    Examples
    --------
    >>> from chartae.density import Density, densities
    >>> all(issubclass(densities[name], Density) for name in densities)
    True
    """

    offers = frozenset({"log_prob", "point"})
    #: Codes that are fitted to, at most: a random choice of more of them.
    most: ClassVar[int | None] = MOST
    #: Whether it is a mass of codes on a codebook, which it is then built with.
    discrete: ClassVar[bool] = False

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.held_out: float | None = None
        self.held_out_se: float | None = None
        #: Where it learns, if it is a network; whatever else is done is done where it lies.
        self.workplace = torch.device("cpu")

    @property
    def parameters_(self) -> dict[str, Any]:
        """What the class is built with again beside the number of dimensions, as JSON values."""
        return {}

    @abstractmethod
    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        """Fit to ``train`` (n, d) in a random order, and choose by ``choose``, the same if there are few."""

    def _finish(self, codes: Tensor, seed: int) -> None:
        """Fit to all codes as was chosen."""

    def fit(self, codes: Any, random_state: int = 0) -> Self:
        """Fit to codes.

        Parameters
        ----------
        codes : array_like
            ``(n, d)``, finite.
        random_state : int
            Splits the codes, and seeds what is random in the fit.

        Returns
        -------
        Density
            Itself.

        Raises
        ------
        DataError
            If the codes have another width, are not finite, or are too few for this density.
        """
        self._gains(codes, random_state)
        return self

    def _reference(self, z: Tensor) -> Tensor:
        """Log density (n,) of codes (n, d) under what is known without a fit."""
        return StandardNormal(self.latent_dim).log_prob(z)

    def _gains(self, codes: Any, seed: int) -> Tensor:
        """Fit, and give the nats that each held-out code gains over :meth:`_reference`; of none if few."""
        z = torch.as_tensor(np.asarray(codes), dtype=torch.float64, device="cpu")
        if z.dim() != 2 or z.shape[1] != self.latent_dim or not len(z):
            raise DataError(f"codes have shape {tuple(z.shape)} and (n, {self.latent_dim}) is needed")
        if not bool(z.isfinite().all()):
            row = int((~z.isfinite().all(1)).nonzero()[0])
            raise DataError(f"the code in row {row} (from 0) is not finite: leave it out")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(z)))
        some = z[order[: self.most or MOST]]
        every = z if self.most is None else some
        if len(some) < FEWEST:
            self._learn(every, every, seed)
            return z.new_zeros(0)
        train, choose, test = some.tensor_split([int(share * len(some)) for share in PARTS])
        self._learn(train, choose, seed)
        gains = self._nats(test) - self._reference(test)
        self.held_out = float(gains.mean())
        self.held_out_se = float(gains.std() / math.sqrt(len(gains)))
        self._finish(every, seed)
        return gains

    @torch.no_grad()
    def _nats(self, z: Tensor) -> Tensor:
        """Log density of codes (n, d) in blocks: (n,), float64."""
        p = self()
        return torch.cat([p.log_prob(part.float()).double() for part in z.split(SCORED)])


@densities.register("normal")
class NormalDensity(Density):
    """The normal that best fits the codes.

    Of fewer than 20 codes a dimension, correlations shrink as far as codes that are left out in turn ask for.

    Parameters
    ----------
    latent_dim : int
        d.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436, section 4 (density estimation after training); Hoffbeck and Landgrebe
    1996, doi:10.1109/34.506799 (how far to shrink).

    Examples
    --------
    >>> import torch
    >>> from chartae.density import NormalDensity
    >>> codes = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * 3
    >>> NormalDensity(2).fit(codes)().std().round(decimals=0)
    tensor([3., 3.])
    """

    most = None
    mean: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("mean", torch.zeros(latent_dim, dtype=torch.float32))
        self.register_buffer("scale_tril", torch.eye(latent_dim, dtype=torch.float32))

    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        mean, scale_tril = _moments(train)
        self.mean.copy_(mean)
        self.scale_tril.copy_(scale_tril)

    def _finish(self, codes: Tensor, seed: int) -> None:
        self._learn(codes, codes, seed)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return FullNormal(self.mean, self.scale_tril)


@densities.register("gmm")
class MixtureDensity(Density):
    """A mixture of normals of any covariances, of as many as held-out codes ask for.

    1, 2, 4, ... 64 components are tried, as long as there is a code for each number that is fitted. The
    fewest are taken whose held-out log density is within two standard errors of the best.

    Parameters
    ----------
    latent_dim : int
        d.
    n_components : int
        How many there are before a fit, which chooses.

    References
    ----------
    Ghosh et al. 2020, arXiv:1903.12436, section 4; Dempster, Laird and Rubin 1977 (EM, by scikit-learn).

    Examples
    --------
    >>> import torch
    >>> from chartae.density import MixtureDensity
    >>> codes = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    >>> codes[:300] += 8.0
    >>> p = MixtureDensity(2).fit(codes)
    >>> p.n_components, p.held_out > 20
    (2, True)
    """

    COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
    logits: Tensor
    mean: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, n_components: int = 1) -> None:
        super().__init__(latent_dim)
        shape = (n_components, latent_dim)
        self.register_buffer("logits", torch.zeros(n_components, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer(
            "scale_tril", torch.eye(latent_dim, dtype=torch.float32).repeat(*shape[:1], 1, 1)
        )

    @property
    def n_components(self) -> int:
        """How many normals are mixed."""
        return len(self.logits)

    @property
    def parameters_(self) -> dict[str, Any]:
        return {"n_components": self.n_components}

    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        if choose is train:  # too few to choose by
            found = _mixture(train, 1, seed)
            assert found is not None
            self._take(found)
            return
        numbers = 1 + self.latent_dim * (self.latent_dim + 3) // 2  # of a component
        tried: list[tuple[Tensor, ...]] = []
        scores: list[Tensor] = []
        for m in self.COMPONENTS:
            if m > 1 and m * numbers > len(train):
                break
            found = _mixture(train, m, seed)
            if found is None:
                break
            self._take(found)
            tried.append(found)
            scores.append(self._nats(choose))
            if len(scores) > 2 and _simplest(scores) < len(scores) - 2:  # twice as many did not help, twice
                break
        self._take(tried[_simplest(scores)])

    def _finish(self, codes: Tensor, seed: int) -> None:
        # From where the choice had ended, so that it is the same mixture.
        begin = tuple(t.double() for t in (self.logits, self.mean, self.scale_tril))
        found = _mixture(codes, self.n_components, seed, begin)
        if found is not None:
            self._take(found)

    def _take(self, found: Sequence[Tensor]) -> None:
        # Laid out as they are read from a file: another layout adds up in another order.
        self.logits, self.mean, self.scale_tril = (t.float().contiguous() for t in found)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return FullNormalMixture(self.logits, self.mean, self.scale_tril)


@densities.register("kernel")
class KernelDensity(Density):
    """A normal around each of up to 4,000 codes, of the codes' covariance times h².

    The codes are drawn towards their mean by √(1 - h²), so that the density keeps their covariance: at h = 1
    it is the normal. Held-out codes choose h.

    Parameters
    ----------
    latent_dim : int
        d.
    n_centers : int
        How many codes are kept; a fit keeps as many as it was given, up to 4,000.
    bandwidth : float
        h, which a fit chooses.

    References
    ----------
    West 1993, "Approximating posterior distributions by mixtures", section 2 (kernels that shrink).

    Examples
    --------
    >>> import math, torch
    >>> from chartae.density import KernelDensity
    >>> t = 2 * math.pi * torch.rand(900, generator=torch.Generator().manual_seed(0))
    >>> p = KernelDensity(2).fit(torch.stack([t.cos(), t.sin()], 1))
    >>> p.n_centers, p.bandwidth < 0.2
    (900, True)
    """

    CENTERS = 4000
    BANDWIDTHS = tuple(float(h) for h in np.geomspace(0.02, 1.0, 18))
    mean: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int, n_centers: int = 1, bandwidth: float = 1.0) -> None:
        super().__init__(latent_dim)
        self.bandwidth = float(bandwidth)
        self.register_buffer("mean", torch.zeros(n_centers, latent_dim, dtype=torch.float32))
        self.register_buffer("scale_tril", torch.eye(latent_dim, dtype=torch.float32))

    @property
    def n_centers(self) -> int:
        """How many codes were kept."""
        return len(self.mean)

    @property
    def parameters_(self) -> dict[str, Any]:
        return {"n_centers": self.n_centers, "bandwidth": self.bandwidth}

    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        if choose is train:  # too few to choose: the width that is best for a normal (Silverman 1986)
            n, d = train.shape
            self._take(train, min(1.0, (4 / ((d + 2) * n)) ** (1 / (d + 4))))
            return
        scores = []
        moments = _moments(train)
        for h in self.BANDWIDTHS:
            self._take(train, h, moments)
            scores.append(float(self._nats(choose).mean()))
        self._take(train, self.BANDWIDTHS[int(np.argmax(scores))])

    def _finish(self, codes: Tensor, seed: int) -> None:
        self._take(codes, self.bandwidth)

    def _take(self, codes: Tensor, h: float, moments: tuple[Tensor, Tensor] | None = None) -> None:
        mean, scale_tril = moments or _moments(codes)
        centers = codes[: self.CENTERS]  # of codes in a random order
        self.mean = (mean + math.sqrt(max(0.0, 1 - h * h)) * (centers - mean)).float()
        self.scale_tril = (h * scale_tril).float().contiguous()
        self.bandwidth = h

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return FullNormalMixture(self.mean.new_zeros(self.n_centers), self.mean, self.scale_tril)


def fit_density(
    name: str,
    codes: Any,
    random_state: int = 0,
    *,
    codebook: Any = None,
    device: torch.device | str = "cpu",
) -> Density:
    """Fit a density to codes.

    Parameters
    ----------
    name : str
        "normal", "gmm", "kernel", "flow", another of :data:`densities`, or "auto": the simplest of the first
        three whose held-out log density is within two standard errors of the best of them. On a codebook
        "auto" chooses from "independent" and "autoregressive" alone.
    codes : array_like
        ``(n, d)``, finite.
    random_state : int
        Splits the codes, and seeds what is random in the fit.
    codebook : Codebook or None
        What the codes lie on, where there is one.
    device : torch.device or str
        Where densities learn that are networks.

    Returns
    -------
    Density
        Fitted, on the CPU.

    Raises
    ------
    PlanError
        If there is no such density, or it is of codes on a codebook and there is none.
    DataError
        If the codes are no matrix, or not finite.

    Examples
    --------
    >>> import torch
    >>> from chartae.density import fit_density
    >>> codes = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> type(fit_density("auto", codes)).__name__
    'NormalDensity'
    >>> fit_density("mixture", codes)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: unknown density 'mixture': known: auto, normal, gmm, ...
    """
    if name != "auto" and name not in densities:
        raise PlanError(f"unknown density {name!r}: {suggest(name, ['auto', *densities])}")
    shape = np.shape(codes)
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"codes have shape {shape} and (n, d) is needed")

    def made(name: str) -> Density:
        kind: Any = densities[name]
        if kind.discrete and codebook is None:
            raise PlanError(f"{name!r} is of codes on a codebook, and these are on none: use 'auto'")
        density = kind(shape[1], **({"codebook": codebook} if kind.discrete else {}))
        density.workplace = torch.device(device)
        return density

    if name != "auto":
        return made(name).fit(codes, random_state)
    # The same codes for all of them, so that they are held against each other on the same ones.
    fitted = [made(each) for each in (AUTOMATIC if codebook is None else DISCRETE)]
    gains = [each._gains(codes, random_state) for each in fitted]
    return fitted[_simplest(gains) if len(gains[0]) else 0]


def _moments(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,), and Cholesky factor (d, d) of the covariance, float64.

    Correlations shrink where codes are few. With a little jitter, in each dimension's own scale: a dead
    dimension leaves a singular covariance.
    """
    z = codes.double()
    mean = z.mean(0)
    centered = z - mean
    covariance = centered.T @ centered / max(1, len(z) - 1)
    variance, shrinkage = covariance.diagonal(), _shrinkage(z)
    covariance = (1 - shrinkage) * covariance + shrinkage * variance.diag()
    jitter = 1e-6 * variance + 1e-9 * variance.mean().clamp_min(1e-9)
    return mean, torch.linalg.cholesky(covariance + jitter.diag())


def _shrinkage(z: Tensor) -> float:
    """By which share correlations of codes (n, d) are to shrink, as codes that are left out in turn say."""
    n = len(z)
    if n < 4:
        return 1.0
    z = z[:, z.std(0) > CONSTANT * z.abs().amax(0)]  # of others there is a density without end at any share
    d = z.shape[1]
    if d <= 1 or n >= AMPLE * d:
        return 0.0
    folds, score = min(FOLDS, n // 2), torch.zeros(len(SHRINKAGES), dtype=torch.float64)
    share = torch.tensor(SHRINKAGES, dtype=torch.float64)[:, None]
    fold = torch.arange(n) % folds
    for i in range(folds):
        known, other = z[fold != i], z[fold == i]
        varies = known.std(0) > 1e-3 * z.std(0)  # not where what is left out is all that differs
        scale = known.std(0)
        known, other = (((part - known.mean(0)) / scale)[:, varies] for part in (known, other))
        values, axes = torch.linalg.eigh(known.T @ known / (len(known) - 1))
        values = (1 - share) * values.clamp_min(0) + share + 1e-6
        score -= len(other) * values.log().sum(1) + ((other @ axes).square().sum(0) / values).sum(1)
    return SHRINKAGES[int(score.argmax())]


def _mixture(
    codes: Tensor, m: int, seed: int, begin: Sequence[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Log weights (m,), means (m, d) and factors (m, d, d) of a mixture; None if there is none of so many."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    mean, scale = _moments(codes)
    if m == 1:
        return mean.new_zeros(1), mean[None], scale[None]

    def white(t: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(scale, t, upper=False)

    def start(weights: Tensor, means: Tensor, factors: Tensor) -> dict[str, Any]:
        inverse = torch.linalg.inv(white(factors))
        return {
            "weights_init": weights.numpy(),
            "means_init": white((means - mean).T).T.numpy(),
            "precisions_init": (inverse.mT @ inverse).numpy(),
        }

    # Whitened, so that the least variance of a component means the same in all directions.
    rows, best = white((codes - mean).T).T.numpy(), None
    # One thread: these products are small, and threads that wait for each other take several times as long.
    with warnings.catch_warnings(), threadpool_limits(1):
        # A few steps more would change nothing that held-out codes could tell; fewer clusters are no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        starts: list[dict[str, Any]] = []
        if begin is not None:
            starts.append(start(begin[0].softmax(0), *begin[1:]))
        else:
            # Clusters as they lie, since whitened ones may touch, and whitened, since one scale may hide all.
            for seen in (codes.numpy(), rows):
                labels = torch.from_numpy(KMeans(m, n_init=3, random_state=seed).fit_predict(seen))
                parts = [codes[labels == j] for j in range(m)]
                if all(len(part) > 1 for part in parts):
                    within = sum((len(part) - 1) * part.T.cov().reshape(scale.shape) for part in parts)
                    factor = torch.linalg.cholesky(within / len(codes) + 1e-3 * scale @ scale.T)
                    shares = torch.tensor([len(part) / len(codes) for part in parts], dtype=codes.dtype)
                    means = torch.stack([part.mean(0) for part in parts])
                    starts.append(start(shares, means, factor.expand(m, -1, -1)))
        for each in starts:
            mixture = GaussianMixture(m, reg_covar=1e-5, random_state=seed, **each)
            try:
                mixture.fit(rows)
            except ValueError:  # a component has come down to a single code
                continue
            if best is None or mixture.lower_bound_ > best.lower_bound_:
                best = mixture
    if best is None:
        return None
    factors = torch.linalg.cholesky(torch.from_numpy(best.covariances_))
    weights = torch.from_numpy(best.weights_).clamp_min(1e-30)
    # A product of two lower triangles is one, and its diagonal is positive.
    return weights.log(), mean + torch.from_numpy(best.means_) @ scale.T, scale @ factors


def _behind(scores: Tensor, best: Tensor) -> float:
    """How far the mean of scores (n,) is behind another's of the same codes, in its standard errors."""
    gap = best - scores
    error = float(gap.std()) / math.sqrt(len(gap)) if len(gap) > 1 else 0.0
    return float(gap.mean()) / max(error, 1e-12)


def _simplest(scores: Sequence[Tensor]) -> int:
    """Find the first whose mean is within two standard errors of the best one's."""
    best = max(scores, key=lambda s: float(s.mean()))
    return next(i for i, each in enumerate(scores) if _behind(each, best) <= 2.0)
