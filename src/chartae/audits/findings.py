"""What a check finds: a verdict that follows from an interval and two thresholds, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chartae.core.registry import Registry

if TYPE_CHECKING:
    from chartae.audits.evidence import Evidence
    from chartae.audits.remedies import Remedy

__all__ = [
    "Check",
    "Finding",
    "Reading",
    "Verdict",
    "check",
    "checks",
    "judge",
    "of_mean",
    "of_pairs",
    "of_ratio",
    "of_share",
]

Verdict = Literal["ok", "warn", "fail", "cannot tell"]

VERDICTS: tuple[Verdict, ...] = ("fail", "warn", "cannot tell", "ok")  # worst first
LEVEL = 0.01  # evidence that a verdict needs, on each side
#: Items are neighbors of each other: intervals that take them for independent are up to twice too short.
WIDER = 2.0


@dataclass(frozen=True)
class Reading:
    """What a check has measured.

    Parameters
    ----------
    value : float or None
        The statistic; None: it cannot be read, and ``because`` says why.
    interval : tuple of float or None
        Where it may lie: each end errs in 1 % of cases. None: it is exact.
    p_value : float or None
        Of the hypothesis that all is well, where it is simple.
    because : str
        Why nothing can be told.
    rows : ndarray or None
        ``(m,)`` rows where it is worst, worst first, in the order of the evidence.
    codes : ndarray or None
        ``(m, d)`` codes where it is worst, where these are no items.
    also : Mapping
        Further numbers and arrays, for the text, the figures and the file.

    Examples
    --------
    >>> from chartae.audits.findings import Reading
    >>> Reading(0.1, (0.05, 0.2)).value
    0.1
    """

    value: float | None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    because: str = ""
    rows: np.ndarray | None = None
    codes: np.ndarray | None = None
    also: Mapping[str, Any] = field(default_factory=dict)


def judge(reading: Reading, ok: float, fail: float) -> Verdict:
    """Turn an interval into a verdict.

    Beyond the second threshold for certain: "fail". Beyond the first for certain: "warn". Within the second
    for certain: "ok". Otherwise it may be anything: "cannot tell".

    Parameters
    ----------
    reading : Reading
        The statistic with its interval.
    ok, fail : float
        The thresholds; where ``ok`` is the larger one, small values are bad.

    Returns
    -------
    str
        The verdict.

    Examples
    --------
    >>> from chartae.audits.findings import Reading, judge
    >>> [judge(Reading(v, (v - 0.1, v + 0.1)), ok=0.3, fail=1.0) for v in (0.2, 0.5, 1.2)]
    ['ok', 'warn', 'fail']
    >>> judge(Reading(0.5, (0.0, 2.0)), ok=0.3, fail=1.0)
    'cannot tell'
    """
    if reading.value is None or not math.isfinite(reading.value):
        return "cannot tell"
    low, high = reading.interval or (reading.value, reading.value)
    if ok > fail:
        low, high, ok, fail = -high, -low, -ok, -fail
    if not (math.isfinite(low) or math.isfinite(high)):
        return "cannot tell"
    if low > fail:
        return "fail"
    if low > ok:
        return "warn"
    return "ok" if high <= fail else "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One row of the report.

    Parameters
    ----------
    name : str
        Of the check.
    title : str
        What it asks, in plain language.
    verdict : str
        "ok", "warn", "fail" or "cannot tell".
    says : str
        The answer, in a sentence.
    statistic : float or None
        What was measured.
    unit : str
        Of the statistic.
    thresholds : tuple of float
        Up to where it is ok, and from where it fails.
    interval : tuple of float or None
        Where the statistic may lie; each end errs in 1 % of cases.
    p_value : float or None
        Of the hypothesis that all is well, where it is simple.
    rows : tuple of int
        Items where it is worst, worst first, as numbers of rows of the data that were given.
    codes : tuple
        Codes where it is worst.
    remedies : tuple of Remedy
        What to try, best first; none where all is well.
    reference : str
        The source of the method.
    seconds : float
        What it took.
    also : Mapping
        Further numbers and arrays.

    Examples
    --------
    >>> from chartae.audits.findings import Finding
    >>> Finding("folds", "Do different items share codes?", "ok", "No.", 0.0, "", (0.001, 0.01)).verdict
    'ok'
    """

    name: str
    title: str
    verdict: Verdict
    says: str
    statistic: float | None
    unit: str
    thresholds: tuple[float, float]
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    rows: tuple[int, ...] = ()
    codes: tuple[tuple[float, ...], ...] = ()
    remedies: tuple[Remedy, ...] = ()
    reference: str = ""
    seconds: float = 0.0
    also: Mapping[str, Any] = field(default_factory=dict, repr=False)  # arrays as long as the data

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values.

        Returns
        -------
        dict
            Of what JSON knows: arrays as lists, what is not finite as None.
        """
        out = {name: as_json(getattr(self, name)) for name in self.__dataclass_fields__ if name != "remedies"}
        return out | {"remedies": [remedy.to_dict() for remedy in self.remedies]}


@dataclass(frozen=True)
class Check:
    """A check as data: what it asks, its thresholds, and how its answers read.

    Parameters
    ----------
    name : str
        Its name.
    title : str
        What it asks, in plain language.
    measure : callable
        From :class:`Evidence` to a :class:`Reading`.
    ok, fail : float
        Thresholds of :func:`judge`.
    says : Mapping
        A sentence for each verdict, with ``{value}`` and what else the reading brings in ``also``.
    unit : str
        Of the statistic.
    remedies : tuple of str
        Names of what to try, best first.
    reference : str
        The source.
    needs : tuple of str
        What the evidence must hold: "prior", "posterior", "train", "labels", "observe", "likelihood",
        "source"; or be: "smooth", or "alone" in telling how items vary.
    budget : {"fast", "full"}
        The smallest budget in which it runs.

    Examples
    --------
    >>> from chartae.audits.findings import checks
    >>> import chartae.audits.projection
    >>> checks["denoising"].ok < checks["denoising"].fail
    True
    """

    name: str
    title: str
    measure: Callable[[Any], Reading]
    ok: float
    fail: float
    says: Mapping[str, str]
    unit: str = ""
    remedies: tuple[str, ...] = ()
    reference: str = ""
    needs: tuple[str, ...] = ()
    budget: str = "fast"


checks: Registry[Check] = Registry("check")


def check(name: str, title: str, **facts: Any) -> Callable[[Callable[[Evidence], Reading]], Any]:
    """Register a function as a check.

    Parameters
    ----------
    name, title : str
        Of :class:`Check`.
    **facts : object
        The rest of its fields.

    Returns
    -------
    callable
        A decorator that gives the function back.

    Examples
    --------
    >>> from chartae.audits.findings import Reading, checks
    >>> import chartae.audits.projection
    >>> checks["denoising"].title
    'Is noise removed?'
    """

    def register(measure: Callable[[Evidence], Reading]) -> Callable[[Evidence], Reading]:
        checks.register(name)(Check(name, title, measure, **facts))
        return measure

    return register


# ------------------------------------------------------------------------------------------ intervals


def of_mean(values: Any, **more: Any) -> Reading:
    """Read a mean, with its interval by Student's t.

    Parameters
    ----------
    values : array_like
        ``(n,)``, independent.
    **more : object
        Other fields of the reading.

    Returns
    -------
    Reading
        Of the mean.

    Examples
    --------
    >>> from chartae.audits.findings import of_mean
    >>> of_mean([1.0, 2.0, 3.0]).value
    2.0
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return Reading(None, because="too few rows", **more)
    half = t.ppf(1 - LEVEL, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    mean = float(values.mean())
    return Reading(mean, (mean - half, mean + half), **more)


def of_ratio(above: Any, below: Any, *, wider: float = 1.0, **more: Any) -> Reading:
    """Read a ratio of two means over the same rows, with its interval by linearization.

    Parameters
    ----------
    above, below : array_like
        ``(n,)``, rows independent of each other.
    wider : float
        Times the interval of independent rows, for rows that are not.
    **more : object
        Other fields of the reading.

    Returns
    -------
    Reading
        Of Σ above / Σ below.

    References
    ----------
    Cochran 1977, "Sampling techniques", section 6.4.

    Examples
    --------
    >>> from chartae.audits.findings import of_ratio
    >>> of_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).value
    0.5
    """
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    if len(above) < 2 or below.sum() <= 0:
        return Reading(None, because="there is nothing to compare with", **more)
    ratio = float(above.sum() / below.sum())
    around = of_mean((above - ratio * below) / below.mean())
    assert around.interval is not None
    low, high = (ratio + wider * end for end in around.interval)
    return Reading(ratio, (low, high), **more)


def of_pairs(above: Any, below: Any, left: np.ndarray, right: np.ndarray, **more: Any) -> Reading:
    """Read a ratio of two means of squares over pairs of rows, each of which may be in several pairs.

    Pairs that have a row in common vary together: an interval of independent ones would be too short.

    Parameters
    ----------
    above, below : array_like
        ``(n,)``, of pairs.
    left, right : ndarray
        ``(n,)`` row numbers, two different ones in each pair.
    **more : object
        Other fields of the reading.

    Returns
    -------
    Reading
        Of Σ above / Σ below.

    References
    ----------
    Aronow, Samii and Assenova 2015, arXiv:1312.3398 (variance of sums over pairs).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.audits.findings import of_pairs
    >>> of_pairs([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], np.array([0, 1, 2]), np.array([1, 2, 0])).value
    0.5
    """
    found = of_ratio(above, below, **more)
    if found.value is None or found.interval is None:
        return found
    gap = np.asarray(above, dtype=np.float64) - found.value * np.asarray(below, dtype=np.float64)
    rows = 1 + int(max(left.max(), right.max()))
    ends = np.sort(np.stack([left, right]), 0)
    pairs, which = np.unique(ends[0] * rows + ends[1], return_inverse=True)  # (i, j) and (j, i) are one
    of_pair = np.bincount(which, gap)
    of_row = sum(np.bincount(end, of_pair, rows) for end in (pairs // rows, pairs % rows))
    # Each pair by itself is in the sums of both of its rows, and is to count once.
    total = np.square(of_row).sum() - np.square(of_pair).sum()
    alone = np.square(gap).sum()
    wider = math.sqrt(max(1.0, total / alone)) if alone > 0 else 1.0
    half = wider * (found.interval[1] - found.value)
    if found.value <= 0:
        return replace(found, interval=(found.value - half, found.value + half))
    # Of the logarithm: a mean of squares that is small by chance makes a ratio larger than a large one small.
    factor = math.exp(min(half / found.value, 700.0))
    return replace(found, interval=(found.value / factor, found.value * factor))


def of_share(hits: int, n: int, **more: Any) -> Reading:
    """Read a share, with its exact interval.

    Parameters
    ----------
    hits, n : int
        So many of how many.
    **more : object
        Other fields of the reading.

    Returns
    -------
    Reading
        Of the share.

    References
    ----------
    Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.

    Examples
    --------
    >>> from chartae.audits.findings import of_share
    >>> of_share(0, 100).interval
    (0.0, 0.045)
    """
    from scipy.stats import beta

    if n < 1:
        return Reading(None, because="too few rows", **more)
    low = 0.0 if hits == 0 else float(beta.ppf(LEVEL, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - LEVEL, hits + 1, n - hits))
    return Reading(hits / n, (low, high), **more)


def as_json(value: Any) -> Any:
    """Turn into what JSON knows.

    Source: this library's own.

    Parameters
    ----------
    value : object
        Numbers, arrays, mappings and sequences of them.

    Returns
    -------
    object
        Arrays as lists, what is not finite as None.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.audits.findings import as_json
    >>> as_json({"a": np.array([1.0, np.nan])})
    {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
