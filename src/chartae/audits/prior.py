"""Do codes follow the prior? Their spread and shape, which dimensions are used, and what z tells about x."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from chartae.audits.evidence import ACTIVE, NORMALS, UNUSED, Evidence
from chartae.audits.findings import LEVEL, Reading, check, of_mean
from chartae.core.errors import DataError
from chartae.parts.distributions import DiagonalNormal, FullNormal

__all__: list[str] = []  # the checks are in the registry

Z = 2.3263478740408408  # of a normal: each end of an interval errs in 1 % of cases
ROWS_PER_DIMENSION = 5  # codes that a covariance needs, for each dimension
SLICES = 32
SHAPE_ROWS = 4_000  # codes whose shape is tested, at most
FREE_SCALE = 0.05  # size of codes below which a warning is due though nothing says what it should be
AT_ONCE = 1_000  # items whose codes are compared with all others
WEIGHTS = 1_024  # importance samples
HEAVY = 0.7  # tail index of weights whose mean cannot be trusted


# ------------------------------------------------------------------------- what several checks share


@torch.no_grad()
def standardized(evidence: Evidence, z: Tensor) -> np.ndarray | None:
    """Codes of the first items in units of their prior, so that N(0, I) is what they should follow.

    A prior that is the same for all items and no normal gives its mean and covariance, by its samples. None
    where that is impossible.
    """
    p = evidence.assumed(len(z))
    if isinstance(p, FullNormal):
        gap = (z - p.mean.cpu()).double().unsqueeze(-1)
        return torch.linalg.solve_triangular(p.scale_tril.cpu().double(), gap, upper=False)[..., 0].numpy()
    if isinstance(p, NORMALS):
        return ((z - p.point().cpu()) / p.std().cpu()).double().numpy()
    if p.batch_shape:
        return None
    drawn = p.draw(50_000, evidence.noise(20)).z.cpu().double().numpy()
    tril = np.linalg.cholesky(np.cov(drawn.T).reshape(z.shape[1], -1))
    return np.linalg.solve(tril, (z.double().numpy() - drawn.mean(0)).T).T


def _too_few(n: int, d: int) -> str:
    return f"{n} items are too few for a covariance of {d} dimensions"


# ----------------------------------------------------------------------------------- against the prior


@check(
    "prior-match",
    "Do codes have the mean and the spread of the prior?",
    ok=0.01,
    fail=0.1,
    unit="nats a dimension",
    says={
        "ok": "Codes have the mean and the covariance of the prior ({value:.3g} nats a dimension apart).",
        "warn": "Mean and covariance of codes are {value:.3g} nats a dimension from the prior's: samples are "
        "somewhat off.",
        "fail": "Mean and covariance of codes are {value:.3g} nats a dimension from the prior's: what is "
        "drawn from the prior is not where codes are.",
    },
    remedies=("fit-density", "variational"),
    reference="Hoffman and Johnson 2016, ELBO surgery (workshop on approximate inference, NIPS)",
    needs=("prior",),
)
def _prior_match(evidence: Evidence) -> Reading:
    """Measure KL(N(m, S) | N(0, I)) = ½ (tr S + |m|² − d − log |S|), without the bias that few rows bring."""
    from scipy.special import digamma

    z = standardized(evidence, evidence.drawn)
    if z is None:
        return Reading(None, because="the prior is a different one for each item, and not a normal")
    n, d = z.shape
    if n < ROWS_PER_DIMENSION * d:
        return Reading(None, because=_too_few(n, d))
    mean, S = z.mean(0), np.cov(z.T).reshape(d, d)
    values, vectors = np.linalg.eigh(S)
    variances = {"mean": mean, "std": np.sqrt(np.diag(S))}
    if values[0] <= 1e-12 * values[-1]:
        return Reading(100.0, also=variances)  # no less: codes are on a flat
    # Normal rows: E |m|² = |μ|² + tr Σ / n, and E log |S| = log |Σ| + Σ ψ((n − i) / 2) + d log(2 / (n − 1)).
    shrunk = digamma((n - np.arange(1, d + 1)) / 2).sum() + d * math.log(2 / (n - 1))
    total = values.sum() + mean @ mean - values.sum() / n - d - (np.log(values).sum() - shrunk)
    value = 0.5 * total / d
    # First order: what each row adds. Second order, all that is left at the null: that of a χ².
    inward = (z - mean) @ vectors
    rows = 0.5 * (inward**2 @ (1 - 1 / values)) + inward @ (vectors.T @ mean)
    freedom = d + d * (d + 1) / 2
    half = Z * math.sqrt(rows.var(ddof=1) / n + freedom / (2 * n**2)) / d
    return Reading(value, (value - half, value + half), also=variances)


PROPERTIES = ("slices", "kernel", "rotation", "independence", "marginals")


@lru_cache(maxsize=8)
def _views(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions ``(s, d)``, sets of coordinates ``(s, d)`` as 0 and 1, and frequencies ``(d, r)``."""
    random = np.random.default_rng(d)
    slices = random.normal(size=(SLICES, d))
    slices /= np.linalg.norm(slices, axis=1, keepdims=True)
    pairs = [random.choice(d, 2, replace=False) for _ in range(24)] if d > 1 else []
    wider = [random.choice(d, s, replace=False) for s in random.integers(3, d, 8)] if d > 3 else []
    sets = np.zeros((1 + len(pairs) + len(wider), d))
    sets[0] = 1
    for row, chosen in enumerate([*pairs, *wider], 1):
        sets[row, chosen] = 1
    lengths = np.repeat(np.array([0.35, 0.5, 0.7, 1.0]) * math.sqrt(d), 32)
    return slices, sets, random.normal(size=(d, len(lengths))) / lengths


@lru_cache(maxsize=64)
def _chi2_table(k: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import chi2

    levels = np.linspace(0, 1, 4097)[1:-1]
    return chi2.ppf(levels, k), levels


def _gap(levels: np.ndarray) -> np.ndarray:
    """Kolmogorov's distance of each row from the uniform distribution."""
    n = levels.shape[1]
    middle = (np.arange(n, dtype=levels.dtype) + 0.5) / n
    return np.abs(np.sort(levels, 1) - middle).max(1) + 0.5 / n


def _properties(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What sets codes apart from normal ones of the same mean and covariance.

    Returns the statistics of :data:`PROPERTIES`, and Kolmogorov's distance of each view: the axes, the
    principal axes, random slices, and norms of sets of coordinates.
    """
    from scipy.special import ndtr

    n, d = z.shape
    slices, sets, frequencies = _views(d)
    centered = z - z.mean(0)
    values, vectors = np.linalg.eigh(centered.T @ centered / n)
    white = ((centered @ vectors) / np.sqrt(values) @ vectors.T).astype(np.float32)
    directions = np.concatenate([np.eye(d), vectors.T, slices]).astype(np.float32)
    flat = _gap(ndtr(directions @ white.T))
    squares = np.square(white)
    norms = sets.astype(np.float32) @ squares.T
    levels = np.empty_like(norms)
    for row, k in enumerate(sets.sum(1).astype(int)):
        levels[row] = np.interp(norms[row], *_chi2_table(int(k)), left=0, right=1)
    round_ = _gap(levels)
    phase = white @ frequencies.astype(np.float32)
    cosine = np.cos(phase).mean(0) - np.exp(-0.5 * np.square(frequencies).sum(0))
    kernel = np.sum(cosine**2 + np.sin(phase).mean(0) ** 2) / frequencies.shape[1]
    correlation = np.corrcoef(squares.T).reshape(d, d) - np.eye(d)
    one = np.array([flat.max(), kernel, round_[0], np.abs(correlation).max(), round_.max()])
    return one, np.concatenate([flat, round_])


@lru_cache(maxsize=16)
def _null(n: int, d: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of normal codes, ``(draws, 5)``, and their largest distance, ``(draws,)``."""
    random = np.random.default_rng([n, d])
    made = [_properties(random.normal(size=(n, d))) for _ in range(draws)]
    return np.stack([one for one, _ in made]), np.array([views.max() for _, views in made])


@check(
    "prior-shape",
    "Do codes have the shape of a normal distribution?",
    ok=0.05,
    fail=0.15,
    unit="share of codes that are elsewhere, in the worst view",
    says={
        "ok": "Once mean and spread are as they are, codes look normal from every side: at most {value:.1%} "
        "of them are elsewhere.",
        "warn": "Codes are not quite normal: seen from {where}, {value:.1%} of them are elsewhere.",
        "fail": "Codes are not normal: seen from {where}, {value:.1%} of them are elsewhere, so that samples "
        "of a normal prior fall where there are none.",
    },
    remedies=("fit-density",),
    reference="Gretton et al. 2012 (JMLR 13); Ebner and Henze 2020, doi:10.1007/s11749-020-00740-0; "
    "Monte Carlo tests: Barnard 1963",
    needs=("prior",),
)
def _prior_shape(evidence: Evidence) -> Reading:
    """Compare draws of q(z | x), less their mean and covariance, with normal draws treated alike.

    Mean and covariance are what "prior-match" judges. The distance is Kolmogorov's, the largest over all
    views; it lies within the largest of normal codes from the truth, by the triangle inequality.
    """
    m = min(len(evidence), evidence.budget.neighbors, SHAPE_ROWS)
    z = standardized(evidence, evidence.drawn[:m])
    if z is None or not isinstance(evidence.assumed(m), NORMALS):
        return Reading(None, because="the prior is no normal, and its shape is not compared")
    n, d = z.shape
    if n < ROWS_PER_DIMENSION * d:
        return Reading(None, because=_too_few(n, d))
    spectrum = np.linalg.eigvalsh(np.cov(z.T).reshape(d, d))
    if spectrum[0] <= 1e-9 * spectrum[-1]:
        return Reading(None, because="codes fill fewer dimensions than they have")
    draws = min(evidence.budget.draws, 400)
    null, largest = _null(n, d, draws)
    one, views = _properties(z)
    p = (1 + (null >= one).sum(0)) / (1 + draws)
    # The largest of five, in standard deviations, against that of each simulation.
    center, scale = null.mean(0), null.std(0).clip(1e-12)
    top, tops = ((one - center) / scale).max(), ((null - center) / scale).max(1)
    p_value = (1 + int((tops >= top).sum())) / (1 + draws)
    value, half = float(views.max()), float(np.quantile(largest, 1 - LEVEL))
    worst = int(views.argmax())
    places = ("an axis", "a principal axis", "a slice", "their distance from the center", "a few coordinates")
    bounds = np.cumsum([d, d, SLICES, 1])
    return Reading(
        value,
        (max(0.0, value - half), value + half),
        p_value=float(p_value),
        also={
            "where": places[int(np.searchsorted(bounds, worst, side="right"))],
            "p": dict(zip(PROPERTIES, p.tolist(), strict=True)),
            "axes": views[:d],
        },
    )


# ---------------------------------------------------------------------------------------- collapse


@check(
    "active-dimensions",
    "Are enough latent dimensions used?",
    ok=0.9,
    fail=0.75,
    unit="of the dimensions that the data call for",
    says={
        "ok": "{active} of {latent} latent dimensions are used; the data call for {needed}.",
        "warn": "Only {active} of {latent} latent dimensions are used; the data call for {needed}.",
        "fail": "Only {active} of {latent} latent dimensions are used; the data call for {needed}: "
        "the others have collapsed.",
    },
    remedies=("lower-beta", "free-bits", "learned-noise"),
    reference="Burda et al. 2016, arXiv:1509.00519; Lucas et al. 2019, arXiv:1911.02469",
)
def _active_dimensions(evidence: Evidence) -> Reading:
    """Count dimensions whose mean moves with the item, against what is worth a dimension.

    That is the data's dimension, d where it is smaller, and the principal components above the noise of
    p(x | z) where it is known: a linear model uses no others.
    """
    m, d, room = evidence.spread_rows, evidence.d, evidence.room
    also: dict[str, object] = {"latent": room}
    if evidence.chart.posterior is None:
        strength = evidence.strengths[0]
        used = int((strength > max(UNUSED * strength.max(), _residual(evidence))).sum())
        also["strength"] = strength
    else:
        mean, std = evidence.moments(m)
        # About what is known without the item: a code that follows its condition alone tells nothing of it.
        scale = evidence.scale_of_prior
        mean, square = (mean - evidence.center_of_prior) / scale, np.square(std / scale)
        if evidence.normal:
            also["kl"] = 0.5 * (np.square(mean) + square - 1 - np.log(square)).mean(0)
        also["variance"] = mean.var(0)
        # Of the covariance, not of the axes: a full posterior may turn them, so that all move a little.
        covariance = np.cov(mean.T).reshape(d, d)
        used = int((np.linalg.eigvalsh(covariance) > ACTIVE).sum())
    try:
        dimension = evidence.dimension
    except DataError as error:
        return Reading(None, because=f"{error}".split(":")[0])
    low, high = evidence.dimension_range
    most = _above_noise(evidence)
    used = min(used, room)
    low, middle, high = (max(1.0, min(v, room, most)) for v in (low, dimension.dimension, high))
    about = f"about {middle:.1f}" if high - low < 1 else f"{low:.0f} to {high:.0f}"
    also |= {"active": used, "needed": about}
    few = len(evidence) < ROWS_PER_DIMENSION * d
    if few:
        return Reading(None, because=_too_few(len(evidence), d), also=also)
    return Reading(used / middle, (used / high, used / low), also=also)


def _above_noise(evidence: Evidence) -> float:
    """Principal components whose variance is above the noise of p(x | z), for certain."""
    if evidence.chart.spread is None:
        return math.inf
    m = min(len(evidence), evidence.budget.neighbors)
    with torch.no_grad():
        spread = evidence.chart.spread(evidence.z[:64].to(evidence.x.device), *evidence.conditions(slice(64)))
    x = evidence.flat[:m].double()
    noise = float(spread.double().square().mean())
    values = torch.linalg.svdvals(x - x.mean(0)).square() / max(1, m - 1)
    edge = noise * (1 + math.sqrt(x.shape[1] / m)) ** 2  # Marchenko and Pastur 1967
    return float((values > edge).sum())


def _residual(evidence: Evidence) -> float:
    return float(evidence.residuals.double().square().mean())


@check(
    "push-to-zero",
    "Are codes as large as samples assume?",
    ok=0.3,
    fail=0.1,
    unit="of the size of sampled codes",
    says={
        "ok": "Codes are not pushed to zero: {scale:.2g} in size, where {assumed:.2g} is {from_}.",
        "warn": "Codes are small: {scale:.2g} in size, where {assumed:.2g} is {from_}; the decoder makes up "
        "for it with a slope of {slope:.3g}.",
        "fail": "Codes are pushed to zero: {scale:.2g} in size, where {assumed:.2g} is {from_}; the decoder "
        "makes up for it with a slope of {slope:.3g}, and samples land far from all items.",
    },
    remedies=("fit-density", "lower-beta", "variational"),
    reference="Ghosh et al. 2020, arXiv:1903.12436",
)
def _push_to_zero(evidence: Evidence) -> Reading:
    """Compare the root mean square of codes with that of sampled codes; with 1 where none are sampled."""
    rows = evidence.drawn.double().square().mean(1).numpy()
    size = of_mean(rows)
    if size.value is None or size.interval is None:
        return Reading(None, because="too few rows")
    free = evidence.chart.source is None
    unit = 1.0
    if not free:
        n = min(len(evidence), 10_000)
        unit = float(evidence.sampled(max(n, 1_000), prior=False, stream=22).double().square().mean().sqrt())
        if unit <= 0:
            return Reading(None, because="samples have no spread")
    scale, low, high = (math.sqrt(max(0.0, v)) / unit for v in (size.value, *size.interval))
    if free:
        # No size is wrong by itself: at most a warning, and only where it is tiny.
        low, high = (low, 0.2) if high < FREE_SCALE else (max(low, 0.1), max(high, 0.3))
    also = {
        "scale": scale * unit,
        "assumed": unit,
        "from_": "what N(0, I) has, though nothing says that codes follow it"
        if free
        else "what samples have",
        "slope": math.sqrt(float(np.trace(evidence.metric.mean(0)))),
    }
    return Reading(scale, (low, high), also=also)


# -------------------------------------------------------------------------------------- information


@check(
    "information",
    "Does the decoder use the code?",
    ok=1.0,
    fail=0.1,
    unit="nats an item",
    says={
        "ok": "The decoder uses the code: with another item's, an item is {value:.3g} nats less likely. "
        "{mutual}",
        "warn": "The decoder hardly uses the code: with another item's, an item is only {value:.2g} nats "
        "less likely. {mutual}",
        "fail": "The decoder ignores the code: with another item's, an item is only {value:.2g} nats "
        "less likely. {mutual}",
    },
    remedies=("lower-beta", "free-bits", "learned-noise"),
    reference="Alemi et al. 2018, arXiv:1711.00464; Hoffman and Johnson 2016, ELBO surgery",
    needs=("likelihood",),
)
def _information(evidence: Evidence) -> Reading:
    """Compare −log p(x | z) with another item's z, and with its own."""
    m = min(len(evidence), evidence.budget.neighbors)
    chart, x, z = evidence.chart, evidence.x[:m], evidence.drawn[:m].to(evidence.x.device)
    likelihood = chart.likelihood
    assert likelihood is not None
    gaps = likelier(lambda b, z: likelihood(x[b], z, *evidence.conditions(b)), z, chart.blocks(m))
    mutual, capped = _mutual(evidence, m)
    says = ""
    if mutual is not None:
        more = "more than " if capped else ""
        says = f"A code carries {more}{max(mutual, 0.0):.2g} nats about its item."
    return of_mean(gaps, also={"mutual": says, "nats": mutual, "capped": capped})


def likelier(likelihood: Callable[[slice, Tensor], Tensor], z: Tensor, blocks: Iterable[slice]) -> np.ndarray:
    """Compare log p(x | z) with an item's own code, and with that of another, whichever comes.

    Parameters
    ----------
    likelihood : callable
        From some rows and their codes, ``(b, d)``, to ``(b,)`` nats.
    z : Tensor
        ``(n, d)`` codes.
    blocks : iterable of slice
        Rows that are taken in one go.

    Returns
    -------
    ndarray
        ``(n,)``: how many nats likelier each is with its own.

    Examples
    --------
    >>> import torch
    >>> from chartae.audits.prior import likelier
    >>> z = torch.arange(4.0)[:, None]
    >>> (likelier(lambda rows, given: -(given - z[rows]).abs().sum(1), z, [slice(4)]) > 0).all()
    np.True_
    """
    order, other = torch.randperm(len(z), generator=torch.Generator().manual_seed(0)), torch.empty_like(z)
    other[order] = z[order.roll(1)]
    with torch.no_grad():
        gaps = [likelihood(rows, z[rows]) - likelihood(rows, other[rows]) for rows in blocks]
    found: np.ndarray = torch.cat(gaps).cpu().double().numpy()
    return found


def _mutual(evidence: Evidence, m: int) -> tuple[float | None, bool]:
    """I(x; z) = E log q(z | x) / q(z), where q(z) is the mean over these items; and whether log m caps it."""
    if evidence.chart.posterior is None:
        return None, False
    with torch.no_grad():
        q = evidence.chart.q(evidence.x[:1], *evidence.conditions(slice(1)))
    if not isinstance(q, DiagonalNormal):
        return None, False
    mean, std = (torch.from_numpy(v) for v in evidence.moments(m))
    weight = std.square().reciprocal()
    constant = (mean.square() * weight).sum(1) + 2 * std.log().sum(1)
    gained = []
    for rows in torch.arange(m).split(AT_ONCE):
        z = evidence.drawn[rows].double()
        # log q(z_i | x_j), but for a constant: a quadratic form in three products.
        log_q = -0.5 * (z.square() @ weight.T - 2 * z @ (mean * weight).T + constant)
        gained.append(log_q[torch.arange(len(rows)), rows] - log_q.logsumexp(1) + math.log(m))
    value = float(torch.cat(gained).mean())
    return value, value > math.log(m) - 1


@check(
    "bound",
    "Is it known how likely items are?",
    ok=1.0,
    fail=math.inf,
    unit="nats an item",
    says={
        "ok": "log p(x) is known to about {value:.2g} nats: the bound hardly rises from 64 to 1,024 samples "
        "({few:.1f} to {many:.1f} nats an item).",
        "warn": "log p(x) is known to about {value:.2g} nats only.",
        "fail": "log p(x) is not known.",
    },
    reference="Burda et al. 2016, arXiv:1509.00519; Vehtari et al. 2024, arXiv:1507.02646",
    needs=("likelihood", "posterior", "prior"),
)
def _bound(evidence: Evidence) -> Reading:
    """Watch the bound L_K rise from K = 64 to 1,024 on the same samples, and the tail of their weights."""
    chart, m = evidence.chart, min(len(evidence), evidence.budget.points // 8)
    assert chart.likelihood is not None
    noise, weights = evidence.noise(23), []
    with torch.no_grad():
        for i in range(m):
            x, c = evidence.x[i : i + 1], evidence.conditions(slice(i, i + 1))
            q = chart.q(x, *c)
            p = evidence.assumed(1) if evidence.c is None else chart.prior(evidence.c[i : i + 1])  # type: ignore[misc]
            z = q.draw(WEIGHTS, noise).z
            ratio = p.log_prob(z[:, 0] if not p.batch_shape else z).reshape(-1) - q.log_prob(z).reshape(-1)
            z = z[:, 0]
            fits = [
                chart.likelihood(
                    x.expand(len(z[b]), *x.shape[1:]), z[b], *[v.expand(len(z[b]), *v.shape[1:]) for v in c]
                )
                for b in chart.blocks(WEIGHTS)
            ]
            weights.append((ratio + torch.cat(fits)).cpu().double())
    w = torch.stack(weights)
    few = (w.reshape(m, -1, 64).logsumexp(2) - math.log(64)).mean(1)
    many = w.logsumexp(1) - math.log(WEIGHTS)
    # Hill's estimate of the tail index of the weights: above .7 their mean converges too slowly to be seen.
    largest = w.sort(1, descending=True).values[:, : 3 * math.isqrt(WEIGHTS) + 1]
    tail = float((largest[:, :-1] - largest[:, -1:]).mean(1).median())
    also = {"one": float(w.mean()), "few": float(few.mean()), "many": float(many.mean()), "tail": tail}
    found = of_mean((many - few).numpy(), also=also)
    if found.value is None or found.interval is None:
        return found
    if found.interval[1] > 1:
        because = (
            f"the bound of log p(x) still rises, by {found.value:.1f} nats from 64 to {WEIGHTS:,} samples"
        )
        return Reading(None, because=because, also=also)
    if also["tail"] > HEAVY:
        because = "a few importance samples make up the bound of log p(x), and more of them may raise it much"
        return Reading(None, because=because, also=also)
    return found
