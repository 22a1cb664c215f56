"""Whether a conditional model does as it is told, holds nothing of it in its codes, and keeps variety."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.audits.evidence import Evidence
from chartae.audits.findings import Check, Reading, of_mean, of_pairs, of_ratio
from chartae.audits.generation import features, generated
from chartae.audits.report import Report, _found
from chartae.core.errors import DataError, PlanError
from chartae.geometry.charts import Chart, chart_of
from chartae.geometry.neighbors import nearest
from chartae.parts.distributions import carried
from chartae.training.labels import as_labels
from chartae.transfer import Scaled, head, labeled, vendi_score, weighed

__all__ = ["Asked", "control_report"]

FEWEST = 100  # items below which nothing can be told
READ = 4_000  # items that a reader is fitted to, at most
COMPARED = 2_000  # items and samples that are read, at most
REPEATED = 5  # items of each kind, on average, from which on kinds of conditions are classes
AMONG = (99, 9, 1)  # other conditions, among which the right one is looked for
READABLE = 0.5  # share of items whose condition must be found among as many
FOLDS = 5
GROUP = 20  # items with like conditions, and groups of them


class Asked:
    """Held-out items, what they are to be told by, and samples that were asked for with their conditions.

    Parameters
    ----------
    evidence : Evidence
        Items with their conditions, and labels where these judge them.
    chart : Chart
        Of the model.
    reader : estimator or None
        As in :func:`control_report`.

    Raises
    ------
    DataError
        If all items are of one kind.

    Attributes
    ----------
    own : ndarray
        ``(n,)``, which kind of condition each item has.
    classes : bool
        Whether kinds are classes; else they are points with distances.
    kinds : ndarray
        ``(m, w)``: corners of a simplex, or vectors in units of their spread.

    Examples
    --------
    >>> import torch
    >>> from chartae.audits.control import Asked
    >>> from chartae.audits.evidence import Evidence
    >>> from chartae.geometry import Chart
    >>> line = Chart.of_pair(lambda x, c: x[:, :1], lambda z, c: torch.cat([z, c], 1))
    >>> Asked(Evidence(line, torch.rand(60, 2), c=torch.arange(60.0)[:, None] % 3), line).classes
    True
    """

    def __init__(self, evidence: Evidence, chart: Chart, reader: Any = None) -> None:
        self.evidence, self.chart, self.reader = evidence, chart, reader
        assert evidence.c is not None
        c = evidence.c.detach().flatten(1).cpu().double().numpy()
        by = c if evidence.labels is None else evidence.labels
        kinds, own = np.unique(by, axis=0, return_inverse=True)
        self.own, m = own.ravel(), len(kinds)
        self.names = None if evidence.labels is None else kinds.tolist()
        if m < 2:
            raise DataError("all items have the same condition, which cannot be told by them: give others")
        self.classes = evidence.labels is not None or len(c) >= REPEATED * m
        if evidence.labels is not None and m == len(c):
            raise DataError("all labels are different, and classes come more than once: leave labels out")
        spread = c.std(0)
        vectors = (kinds - c.mean(0)) / np.where(spread > 0, spread, 1.0) if not self.classes else None
        self.kinds = np.eye(m) if vectors is None else vectors
        n = len(evidence)
        self.seen = np.arange(min(n // 2, READ))  # by the reader
        self.rows = np.arange(n // 2, min(n, n // 2 + COMPARED))  # that are compared
        if self.classes and len(np.intersect1d(self.own[self.seen], self.own[self.rows])) < 2:
            raise DataError("fewer than two classes come often enough to be told apart: give more items")

    def made(self, *, noisy: bool = False, stream: int = 30) -> Tensor:
        """Make a sample under the condition of each item that is compared.

        Parameters
        ----------
        noisy : bool
            Draw from p(x | z, c), where it is known; columns of a table always do, of which a mean is no
            value.
        stream : int
            Of random numbers.

        Returns
        -------
        Tensor
            Flat, ``(n, D)``.
        """
        space = getattr(self.chart.given, "space_", None)
        noisy = noisy or (space is not None and space.likelihood == "columns")
        return generated(self.evidence, int(self.rows[-1]) + 1, noisy=noisy, stream=stream)[self.rows]

    @cached_property
    def read(self) -> Callable[[Tensor], np.ndarray]:
        """Reads what items were asked for: from ``(n, D)`` to ``(n, w)``."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.pipeline import make_pipeline

        reader = make_pipeline(Scaled(), KernelRidge(alpha=0.1, kernel="rbf"))
        chosen = reader if self.reader is None else self.reader
        return self._fitted(chosen, self.evidence.flat[self.seen].numpy(), self.seen)

    def can_read(self) -> None:
        """Refuse a reader of the user's that cannot be used.

        Raises
        ------
        PlanError
            If it is none.
        """
        if self.reader is None:
            return
        cure = "give a classifier of scikit-learn, or a regressor to several columns"
        if not (hasattr(self.reader, "fit") and hasattr(self.reader, "predict")):
            raise PlanError(f"reader={self.reader!r} can neither fit nor predict: {cure}")
        try:
            self.read(self.evidence.flat[:1])
        except (TypeError, ValueError) as error:
            raise PlanError(f"reader={self.reader!r} cannot read conditions ({error}): {cure}") from None

    def _fitted(self, reader: Any, X: np.ndarray, rows: np.ndarray) -> Callable[[Any], np.ndarray]:
        """Fit a reader to what rows were asked for; a classifier's answers are corners of the simplex."""
        from sklearn.base import clone, is_classifier

        if is_classifier(reader):
            made = clone(reader)
            if self.names is not None:
                weighed(made, self.names)
            fitted = made.fit(X, self.own[rows])
            return lambda Q: self.kinds[fitted.predict(np.asarray(Q))]
        fitted = clone(reader).fit(X, self.kinds[self.own[rows]])
        return lambda Q: np.asarray(fitted.predict(np.asarray(Q))).reshape(len(Q), -1)

    @cached_property
    def among(self) -> int:
        """Among how many other kinds the right one is looked for: all classes, or as many as items allow."""
        others = len(np.unique(self.own[self.rows])) - 1
        if self.classes:
            return others
        real = self.read(self.evidence.flat[self.rows])
        fits = [k for k in AMONG if k <= others]
        right = (k for k in fits if self.told(real, self.rows, k)[0].mean() >= READABLE)
        return next(right, fits[-1])

    def told(self, read: np.ndarray, rows: np.ndarray, among: int | None = None) -> tuple[Any, Any]:
        """How often what was read is nearest to the right kind, and to the kinds of the other rows.

        Parameters
        ----------
        read : ndarray
            ``(n, w)``.
        rows : ndarray
            ``(n,)``, of which items.
        among : int or None
            Among how many other kinds; None: as many as :attr:`among` says.

        Returns
        -------
        hits, chance : ndarray
            ``(n,)`` each: for each row, the chance that its own kind is nearest among those drawn, and the
            mean of that over what was read of all rows.
        """
        from scipy.spatial.distance import cdist
        from scipy.stats import hypergeom

        kinds, own = np.unique(self.own[rows], return_inverse=True)
        others = len(kinds) - 1
        nearer = cdist(read, self.kinds[kinds]).argsort(1).argsort(1)
        # None of those drawn is nearer: exact, where a draw would add its noise.
        drawn = min(self.among if among is None else among, others)
        shares = np.asarray(hypergeom(others, np.arange(others + 1), drawn).pmf(0))[nearer]
        return shares[np.arange(len(rows)), own], shares.mean(0)[own]

    @property
    def question(self) -> str:
        """What a reader is to find."""
        if self.classes:
            return "The class that was asked for is read"
        return f"The condition that was asked for is read as the nearest of {self.among + 1}"


def control_report(
    model: Any,
    X: Any,
    y: Any,
    *,
    labels: Any = None,
    guidance: float | None = None,
    reader: Any = None,
    random_state: int = 0,
) -> Report:
    """Check whether a conditional model does as it is told.

    Three findings. *obeyed*: a reader that knows nothing of the model is fitted to half of the items, and
    recovers the condition from samples nearly as well as from the other half. *leakage*: the condition cannot
    be read off codes, which a reader of codes tries that is cross-validated; where the model has learned
    p(z | c), off what codes hold beside it. *variety*: samples under a condition differ as much as items do.

    Few kinds of conditions that repeat are classes, of which the right one is to be found. Of all others,
    such as embeddings, the right one is to be the nearest among as many as can be told apart by real items.

    Parameters
    ----------
    model : object
        A fitted conditional estimator, or a :class:`chartae.geometry.Chart` whose maps take a condition.
    X : array_like
        ``(n, *shape)`` items that the model was not trained on.
    y : array_like or dict
        Their conditions, as the model takes them; items whose condition is not known are left out.
    labels : array_like or None
        ``(n,)`` classes, -1 or None where one is not known, by which conditions are judged, in place of the
        conditions themselves: what a rich vector is to bring about.
    guidance : float or None
        With which samples are made, as in ``sample``.
    reader : estimator or None
        A regressor of scikit-learn, to one column for each class or number of the condition, or a classifier;
        None: kernel ridge regression.
    random_state : int
        Of every choice and draw.

    Returns
    -------
    Report
        With the findings "obeyed", "leakage" and "variety".

    Raises
    ------
    DataError
        If the items cannot be used, or are too few, or all have the same condition.
    PlanError
        If the model has no condition, or is no estimator and there is guidance, or the reader cannot be used.

    References
    ----------
    Ravuri and Vinyals 2019, arXiv:1905.10887 (classifiers of samples and items); Cohen 1960,
    doi:10.1177/001316446002000104 (agreement beyond chance); Friedman and Dieng 2023, arXiv:2210.02410
    (effective number).

    Examples
    --------
    >>> import numpy as np
    >>> import chartae as ct
    >>> y = np.arange(600) % 2
    >>> X = np.random.default_rng(0).normal(size=(600, 3)) + 4.0 * y[:, None]
    >>> cvae = ct.CVAE(latent_dim=1, hidden=(8,), max_epochs=60, random_state=0).fit(X[:300], y[:300])
    >>> report = ct.control_report(cvae, X[300:], y[300:])
    >>> report["obeyed"].verdict
    'ok'
    >>> print(report["obeyed"].says)
    The class that was asked for is read from ...% of samples, and from ...% of items; chance is 50%.
    """
    start = time.perf_counter()
    if guidance is not None and not hasattr(model, "chart"):
        raise PlanError(
            f"guidance={guidance!r} is for estimators of chartae: give decode as it is to be judged"
        )
    chart = chart_of(model) if guidance is None else model.chart(guidance=guidance)
    x, c = chart.take(X, y)
    if c is None or y is None:
        raise PlanError("this model has no condition, or none was given: fit it with y, and give y")
    labels = None if labels is None else as_labels(labels)
    if labels is not None and labels.ndim != 1:
        raise DataError(f"labels have shape {labels.shape}: give one for each item")
    if labels is not None and len(labels) != len(x):
        raise DataError(f"{len(labels)} labels for {len(x)} items: give one for each")
    known = _known(chart, y, c, labels)
    x, c = x[known], c[known]
    labels = None if labels is None else labels[known.numpy()]
    if len(x) < FEWEST:
        told = "" if known.all() else " whose condition and label are known"
        raise DataError(f"{len(x)} items{told} are too few to judge a model by: give {FEWEST} or more")
    with torch.random.fork_rng(devices=[]):
        rows = np.flatnonzero(known.numpy())
        evidence = Evidence(chart, x, c=c, labels=labels, row_numbers=rows, seed=random_state)
        asked = Asked(evidence, chart, reader)
        asked.can_read()
        findings = tuple(
            _found(replace(kind, measure=partial(_of, kind.measure, asked)), asked.evidence)
            for kind in CONTROL
        )
    facts = {
        "model": getattr(chart.given, "summary_", None) or "a pair of encoder and decoder",
        "rows": len(asked.evidence),
        "shape": list(x.shape[1:]),
        "latent_dim": asked.evidence.d,
        "judged by": f"{len(asked.kinds)} {'classes' if asked.classes else 'conditions'}",
        "guidance": 1.0 if guidance is None else float(guidance),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return Report(findings, {}, facts, asked.evidence)


def _known(chart: Chart, y: Any, c: Tensor, labels: Any) -> Tensor:
    """Items whose condition is known, and their label where it is that which judges, ``(n,)``."""
    schema = getattr(chart.given, "condition_", None)
    known = torch.ones(len(c), dtype=torch.bool)
    # A model of this library has something to say of what is not known: its ``c`` holds no NaN.
    for part in (c,) if schema is None else schema.encode(y, len(c)):
        if part is not None and part.ndim == 1:
            known &= part.cpu() >= 0
        elif part is not None:
            lost = part.isnan().cpu()
            lost = lost.any(-1) if part.ndim == 2 else lost.any(-1).flatten(1).all(1)  # some are shorter
            known &= ~lost
    return known if labels is None else known & torch.from_numpy(labeled(labels))


def _of(measure: Callable[[Asked], Reading], asked: Asked, evidence: Evidence) -> Reading:
    return measure(asked)


def _obeyed(asked: Asked) -> Reading:
    """Compare how well conditions are read from samples, beyond chance, with how well from items."""
    real = asked.read(asked.evidence.flat[asked.rows])
    made = asked.read(asked.made())
    (right, chance), (obeyed, by_chance) = (asked.told(read, asked.rows) for read in (real, made))
    also = {
        "question": asked.question,
        "obeyed": float(obeyed.mean()),
        "ceiling": float(right.mean()),
        "chance": float(chance.mean()),
        "among": asked.among + 1,
    }
    if not asked.classes:
        truth = asked.kinds[asked.own[asked.rows]]
        also |= {"r2": _r2(made, truth), "r2_ceiling": _r2(real, truth)}
    readable = of_mean(right - chance)
    if readable.interval is None or readable.interval[0] <= 0:
        return Reading(None, because="conditions cannot be read from the items themselves", also=also)
    missed = asked.rows[np.argsort(obeyed - right, kind="stable")][:20]
    return of_ratio(obeyed - by_chance, right - chance, rows=missed, also=also)


def _r2(read: np.ndarray, truth: np.ndarray) -> float:
    return float(1 - np.square(read - truth).sum() / np.square(truth - truth.mean(0)).sum())


def _leakage(asked: Asked) -> Reading:
    """Read conditions off codes, by the better of a linear reader and one of neighbors, cross-validated."""
    evidence = asked.evidence
    means, draws = (_beside_prior(asked, z).numpy() for z in (evidence.z, evidence.drawn))
    found = {
        (of, kind): _off_codes(asked, z, kind)
        for of, z in (("mean", means), ("draw", draws))
        for kind in ("linear", "knn")
    }

    def best(of: str) -> tuple[np.ndarray, float, float]:
        """Excess over chance of each row, as a share of what chance leaves; accuracy; chance."""
        hits, chance = max((found[of, k] for k in ("linear", "knn")), key=lambda f: (f[0] - f[1]).mean())
        guess = float(chance.mean())
        return (hits - chance) / (1 - guess), float(hits.mean()), guess

    excess, accuracy, chance = best("draw")
    told, by_mean, mean_chance = best("mean")
    also = {
        "read": "the class is read" if asked.classes else "the right one of two is read",
        "accuracy": accuracy,
        "chance": chance,
        "mean_accuracy": by_mean,
        "mean_chance": mean_chance,
        "mean_excess": float(told.mean()),
        "beside": ", beside what p(z | c) says," if _moves(asked) else "",
    }
    return of_mean(excess, also=also)


def _moves(asked: Asked) -> bool:
    """Tell whether p(z | c) depends on c."""
    prior, c = asked.chart.prior, asked.evidence.c
    return prior is not None and bool(prior(c).batch_shape)


@torch.no_grad()
def _beside_prior(asked: Asked, z: Tensor) -> Tensor:
    """Codes where p(z | c) would have them if all had one condition: what they hold of c beside it."""
    prior, c = asked.chart.prior, asked.evidence.c
    if prior is None or not _moves(asked):
        return z
    assert c is not None
    return carried(z.to(c.device), prior(c), prior(c[:1].expand_as(c))).cpu()


def _off_codes(asked: Asked, z: np.ndarray, kind: str) -> tuple[Any, Any]:
    """Hits and chance of a reader of codes, each row by one that has not seen it."""
    from sklearn.model_selection import KFold

    rows = np.arange(min(len(z), READ if asked.classes else COMPARED))  # all pairs of which are compared
    reader = head("categorical" if asked.classes else "normal", kind)
    read = np.empty((len(rows), asked.kinds.shape[1]))
    for seen, held in KFold(FOLDS).split(rows):  # in random order already
        read[held] = asked._fitted(reader, z[seen], seen)(z[held])
    # Of two conditions, where they are no classes: a little knowledge does not find one among many.
    return asked.told(read, rows, None if asked.classes else 1)


def _variety(asked: Asked) -> Reading:
    """Compare the variance of samples of a condition with that of items of a condition.

    Items whose conditions are vectors have no twins of the same condition: what two differ by because their
    conditions do is taken from samples, |s_i - s_j|² - |s_i - s_i'|² on average, where s_i' is another sample
    under the condition of s_i.
    """
    rows = asked.rows
    own = asked.own[rows]
    real, made, again, noisy = features(
        asked.evidence.flat[rows], asked.made(), asked.made(stream=50), asked.made(noisy=True)
    )
    if asked.classes:
        order = np.argsort(own, kind="stable")  # within a kind at random
        left, right = order, np.roll(order, -1)
        left, right = left[own[left] == own[right]], right[own[left] == own[right]]
        groups = [np.flatnonzero(own == kind)[: 5 * GROUP] for kind in np.unique(own)]
    else:
        like = nearest(asked.kinds[own], asked.kinds[own], min(GROUP, len(own) - 1), exclude_self=True)[1]
        left, right = np.arange(len(own)), like[:, 0]
        groups = list(like[:GROUP])

    def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.square(a[left] - b[right]).sum(1)

    twins = np.square(made - again).sum(1)
    # Of one class, conditions may differ in what the class does not say: then they do in samples as well.
    samples, items = apart(made, made), apart(real, real)
    if not asked.classes:
        samples, items = twins, items - (samples - twins)
    width = float(np.sqrt(np.median(apart(real, real)))) or 1.0
    groups = [g for g in groups if len(g) >= GROUP // 2]
    vendi = {
        name: float(np.mean([vendi_score(v[g], width=width) for g in groups])) if groups else float("nan")
        for name, v in (("vendi", made), ("vendi_items", real))
    }
    # Between a sample and the same with noise lies the noise once, and between two with noise twice.
    extra = 2 * np.square(noisy - made).sum(1).mean()
    noise = float((samples.mean() + extra) / items.mean()) if items.mean() > 0 else float("nan")
    told = "; some tens of them are as different as {vendi:.1f} kinds, items as {vendi_items:.1f}"
    kinds = told.format(**vendi) if groups else ""
    return of_pairs(samples, items, left, right, also=vendi | {"with_noise": noise, "kinds": kinds})


CONTROL = (
    Check(
        "obeyed",
        "Is the condition obeyed?",
        _obeyed,
        ok=0.95,
        fail=0.8,
        unit="of what is read from items beyond chance",
        says=dict.fromkeys(
            ("ok", "warn", "fail"),
            "{question} from {obeyed:.0%} of samples, and from {ceiling:.0%} of items; chance is "
            "{chance:.0%}.",
        ),
        remedies=("conditional-prior", "fewer-dimensions", "longer-training", "guidance"),
        reference="Ravuri and Vinyals 2019, arXiv:1905.10887; Cohen 1960, doi:10.1177/001316446002000104",
    ),
    Check(
        "leakage",
        "Do codes hold the condition?",
        _leakage,
        ok=0.05,
        fail=0.2,
        unit="of what chance leaves to be read",
        says={
            "ok": "Codes do not tell{beside} the condition: {read} off {accuracy:.0%} of them, chance "
            "{chance:.0%} (off posterior means {mean_accuracy:.0%}).",
            "warn": "Codes tell{beside} a little of the condition: {read} off {accuracy:.0%} of them, chance "
            "{chance:.0%} (off posterior means {mean_accuracy:.0%}).",
            "fail": "Codes hold{beside} the condition: {read} off {accuracy:.0%} of them, chance "
            "{chance:.0%} (off posterior means {mean_accuracy:.0%}).",
        },
        remedies=("conditional-prior", "fewer-dimensions", "longer-training"),
        reference="Zemel et al. 2013 (ICML); Louizos et al. 2016, arXiv:1511.00830",
    ),
    Check(
        "variety",
        "Do samples under a condition vary as the data do?",
        _variety,
        ok=0.6,
        fail=0.2,
        unit="of the variance of items of a condition",
        says=dict.fromkeys(
            ("ok", "warn", "fail"),
            "Samples of a condition have {value:.0%} of the variance of items of a condition, and with the "
            "noise of p(x | z) {with_noise:.0%}{kinds}.",
        ),
        remedies=("draw-noise", "lower-beta"),
        reference="Friedman and Dieng 2023, arXiv:2210.02410",
    ),
)
