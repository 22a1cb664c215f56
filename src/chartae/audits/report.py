"""The health report: all checks on one model, and what they say together."""

from __future__ import annotations

import json
import os
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from chartae.audits.evidence import Budget, Evidence, budget_of
from chartae.audits.findings import VERDICTS, Check, Finding, Reading, Verdict, as_json, checks, judge
from chartae.audits.remedies import Setting, proposed
from chartae.core.errors import ChartaeError, DataError, PlanError, one_line
from chartae.core.files import atomic
from chartae.core.registry import suggest
from chartae.geometry.charts import Chart, chart_of
from chartae.models.recipes import find
from chartae.parts.networks import MLP, ConvEncoder, Film, Residual
from chartae.training.labels import as_labels
from chartae.training.splits import JUDGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each of these registers its checks.
from chartae.audits import data, projection, tangents, latent, topology, holes  # noqa: F401  # isort: skip
from chartae.audits import prior, generation, embeddings  # noqa: F401  # isort: skip

__all__ = ["Report", "audit", "form_of"]

FAMILY = 0.05  # share of healthy models whose report may show a fail
SHOWN = (-2.0, 3.0)  # of a plot, in distances of the two thresholds
LACKING = {
    "prior": "the model has no prior",
    "posterior": "codes are points, and have no spread",
    "train": "no training items were given (X_train)",
    "labels": "no labels were given",
    "observe": "the noise of p(x | z) is not known",
    "likelihood": "the likelihood is not known",
    "source": "there is nothing to sample codes from",
    "smooth": "codes lie on a codebook, so that a small change of an item leaves its code or makes it jump",
    "alone": "conditions hold a part of how the data vary, which codes need not follow",
}


@dataclass(frozen=True)
class Report:
    """What an audit has found.

    Parameters
    ----------
    findings : tuple of Finding
        One for each check that ran, in the order of the checks.
    skipped : Mapping
        Checks that do not apply, with the reason.
    facts : Mapping
        Of the model and the data: what was audited, and how.
    evidence : Evidence
        What the checks have looked at; the page draws its figures from it.

    Examples
    --------
    >>> import numpy as np
    >>> import chartae as ct
    >>> X = np.random.default_rng(0).normal(size=(300, 5))
    >>> vae = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(X[:200])
    >>> report = ct.audit(vae, X[200:], only=["reconstruction"])
    >>> [finding.name for finding in report.findings]
    ['reconstruction']
    """

    findings: tuple[Finding, ...]
    skipped: Mapping[str, str]
    facts: Mapping[str, Any]
    evidence: Evidence = field(repr=False)

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(
            f"{name!r} is no finding of this report: {suggest(name, [f.name for f in self.findings])}"
        )

    @property
    def verdict(self) -> Verdict:
        """The worst of all verdicts."""
        found = {finding.verdict for finding in self.findings}
        return next((v for v in VERDICTS if v in found), "cannot tell")

    @property
    def summary(self) -> str:
        """All verdicts, counted, in a line."""
        count = Counter(finding.verdict for finding in self.findings)
        return ", ".join(f"{count[v]} {v}" for v in VERDICTS if count[v])

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values.

        Returns
        -------
        dict
            ``verdict``, ``summary``, ``facts``, ``findings``, ``skipped``.
        """
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "facts": as_json(self.facts),
            "findings": [finding.to_dict() for finding in self.findings],
            "skipped": dict(self.skipped),
        }

    def to_json(self) -> str:
        """Give it as JSON.

        Returns
        -------
        str
            Of :meth:`to_dict`.
        """
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it: a page (.html), its values (.json), or its text (.txt).

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        PlanError
            If it ends in none of these.
        """
        path = Path(path)
        text = form_of(path)(self)
        with atomic(path) as file:
            file.write(f"{text}\n".encode())
        return path

    def to_html(self) -> str:
        """Give it as a page that needs nothing else: figures are inside.

        Returns
        -------
        str
            HTML.
        """
        from chartae.audits.page import render

        return render(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each finding with its interval between its two thresholds, which are at 0 and 1.

        Parameters
        ----------
        ax : Axes or None
            Of matplotlib, to draw into; None: a new one.

        Returns
        -------
        Axes
            With a row for each finding that was measured and has thresholds.

        Examples
        --------
        >>> import torch, chartae as ct
        >>> line = (lambda x: x[:, :1], lambda z: torch.cat([z, z], 1))
        >>> report = ct.audit(line, torch.rand(60, 2), only=["reconstruction"])
        >>> [text.get_text() for text in report.plot().get_yticklabels()]
        ['reconstruction']
        """
        from matplotlib.figure import Figure

        shown = [
            f
            for f in self.findings
            if f.statistic is not None and np.isfinite([f.statistic, *f.thresholds]).all()
        ]
        if ax is None:
            ax = Figure(figsize=(6.4, 0.8 + 0.35 * len(shown)), layout="constrained").subplots()
        for edge, label in ((0.0, "ok"), (1.0, "fails")):
            ax.axvline(edge, color="0.7", linewidth=1)
            ax.annotate(label, (edge, 1.0), (3, 2), ("data", "axes fraction"), "offset points", color="0.4")
        for row, finding in enumerate(shown):
            ok, fail = finding.thresholds
            assert finding.statistic is not None
            value, *ends = (
                (v - ok) / ((fail - ok) or 1.0)
                for v in (finding.statistic, *(finding.interval or (finding.statistic,) * 2))
            )
            (line,) = ax.plot(np.clip(ends, *SHOWN), [row, row], linewidth=3, alpha=0.4)
            ax.plot(np.clip(value, *SHOWN), row, "o", color=line.get_color())
        ax.set(xlim=SHOWN, ylim=(len(shown) - 0.5, -0.5), xlabel="from ok (0) to fail (1)")
        ax.set_yticks(range(len(shown)), [finding.name for finding in shown])
        return ax

    def _repr_html_(self) -> str:
        from chartae.audits.page import table

        return table(self)

    def __str__(self) -> str:
        lines = [f"{self.facts['model']}: {self.summary}", ""]
        for finding in sorted(self.findings, key=lambda f: VERDICTS.index(f.verdict)):
            says = textwrap.wrap(finding.says, 92)
            lines.append(f"{finding.verdict:<12}{finding.name:<22}{says[0] if says else ''}")
            lines += [" " * 34 + line for line in says[1:]]
            if finding.verdict in ("fail", "warn") and finding.remedies:
                lines += [f"{'':34}try: {remedy.says}" for remedy in finding.remedies[:2]]
        return "\n".join(lines)


def audit(
    model: Any,
    X_test: Any,
    X_train: Any = None,
    *,
    condition: Any = None,
    condition_train: Any = None,
    labels: Any = None,
    labels_train: Any = None,
    row_numbers: Any = None,
    only: str | Sequence[str] | None = None,
    budget: str = "fast",
    random_state: int = 0,
) -> Report:
    """Check whether a learned latent space can be trusted, and for what.

    Parameters
    ----------
    model : object
        A fitted estimator, a pair of torch callables ``(encode, decode)``, or a
        :class:`chartae.geometry.Chart`, which may say more of a model of another library.
    X_test : array_like
        ``(n, *shape)`` items that the model was not trained on, as the model takes them.
    X_train : array_like or None
        Those that it was trained on: some checks compare with them.
    condition, condition_train : object, optional
        Of these items, in a conditional model.
    labels, labels_train : array_like or None
        ``(n,)`` classes of these items, for checks of what codes are good for; the condition, if it is one.
        Items whose label is missing, or -1 beside two or more others, count for nothing there.
    row_numbers : array_like or None
        ``(n,)`` whole numbers by which the report names the rows of X_test; None: 0 to n − 1.
    only : str, sequence of str or None
        Names of checks, or one; None: all that apply.
    budget : {"fast", "full"}
        How much to look at.
    random_state : int
        Of every choice and draw.

    Returns
    -------
    Report
        Of all findings.

    Raises
    ------
    DataError
        If the items cannot be used, or are too few, or there is not one label for each.
    PlanError
        If the model, a check or the budget is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> import chartae as ct
    >>> X = np.random.default_rng(0).normal(size=(300, 5))
    >>> vae = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(X[:200])
    >>> ct.audit(vae, X[200:], only=["reconstruction"])["reconstruction"].unit
    'of the variance of the data is lost'
    """
    start = time.perf_counter()
    amount, named = budget_of(budget), _named(only)
    with torch.random.fork_rng(devices=[]):
        evidence = _evidence(
            chart_of(model),
            X_test,
            X_train,
            conditions=(condition, condition_train),
            labels=(labels, labels_train),
            row_numbers=row_numbers,
            budget=amount,
            seed=random_state,
        )
        findings, skipped = [], {}
        for name in named or checks:
            kind = checks[name]
            lacking = next((need for need in kind.needs if not evidence.has(need)), None)
            if lacking is not None:
                skipped[name] = _lacking(lacking, evidence)
            elif not named and kind.budget == "full" and budget != "full":
                skipped[name] = "only with budget='full'"
            else:
                findings.append(_found(kind, evidence))
    facts = {
        "model": getattr(evidence.chart.given, "summary_", None) or "a pair of encoder and decoder",
        "rows": len(evidence),
        "shape": list(evidence.x.shape[1:]),
        "latent_dim": evidence.d,
        "budget": budget,
        "seconds": round(time.perf_counter() - start, 1),
    }
    return Report(_together(findings), skipped, facts, evidence)


def _named(only: str | Sequence[str] | None) -> Sequence[str]:
    """Give the names of checks that are asked for; none: all."""
    names = [only] if isinstance(only, str) else only
    if names is None:
        return ()
    if not len(names):
        raise PlanError(f"only={only!r} names no check: leave it out, or name some of {', '.join(checks)}")
    unknown = next((name for name in names if name not in checks), None)
    if unknown is not None:
        raise PlanError(f"there is no check {unknown!r}: {suggest(unknown, checks)}")
    return names


def _evidence(
    chart: Chart,
    X_test: Any,
    X_train: Any,
    *,
    conditions: tuple[Any, Any],
    labels: tuple[Any, Any],
    row_numbers: Any,
    budget: Budget,
    seed: int,
) -> Evidence:
    """Take what a user has given, of held-out and of training items, and refuse what cannot be judged."""
    if conditions[0] is None and getattr(getattr(chart.given, "model_", None), "condition", None) is not None:
        warnings.warn(
            "the model follows a condition, and is judged as if it was told none: give condition=",
            stacklevel=4,
        )
    x, c = chart.take(X_test, conditions[0])
    if len(x) < JUDGED:
        raise DataError(f"{len(x)} items are too few to judge a model by: give {JUDGED} or more")
    if row_numbers is not None:
        row_numbers = np.asarray(row_numbers)
        if row_numbers.shape != (len(x),) or row_numbers.dtype.kind not in "iu":
            raise DataError(
                f"row_numbers of shape {row_numbers.shape} and type {row_numbers.dtype}: give {len(x)} whole "
                "numbers"
            )
    if getattr(X_train, "ndim", None) == 1:
        raise DataError(
            f"X_train has shape {tuple(X_train.shape)} and holds no items: give labels as labels=, and "
            "what the model was conditioned on as condition="
        )
    for name, given in (("condition_train", conditions[1]), ("labels_train", labels[1])):
        if X_train is None and given is not None:
            raise DataError(f"{name} is of the items of X_train, and there are none: give X_train, too")
    train, c_train = (None, None) if X_train is None else chart.take(X_train, conditions[1])
    if labels[0] is None and _one_a_row(conditions[0], len(x)):
        alike = train is not None and _one_a_row(conditions[1], len(train))
        labels = conditions[0], conditions[1] if alike else None
    codes = getattr(chart.given, "codes_", None)
    evidence = Evidence(
        chart,
        x,
        c=c,
        train=train,
        c_train=c_train,
        codes=None if codes is None else torch.as_tensor(codes),
        labels=_one_each(labels[0], x, "labels"),
        labels_train=None if train is None else _one_each(labels[1], train, "labels_train"),
        row_numbers=row_numbers,
        budget=budget,
        seed=seed,
    )
    if evidence.p.shape != evidence.flat.shape:  # and what fails at all fails here
        raise DataError(
            f"decoded items have {evidence.p.shape[1]} values and these have {evidence.features}: give "
            "items as the model makes them"
        )
    for what, values in (("item", evidence.flat), ("code", evidence.z), ("decoded item", evidence.p)):
        wrong = (~values.isfinite().all(1)).nonzero()[:, 0].numpy()
        if len(wrong):
            raise DataError(
                f"the {what} of row {evidence.index[wrong[0]]}"
                + (f" and of {len(wrong) - 1} others are" if len(wrong) > 1 else " is")
                + " not finite: leave such rows out, or train again"
            )
    return evidence


def _one_each(labels: Any, items: torch.Tensor, name: str) -> np.ndarray | None:
    """Labels as an array, one for each item."""
    if labels is None:
        return None
    found = as_labels(labels)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    if found.shape != (len(items),):
        raise DataError(f"{name} have shape {found.shape} and items are {len(items)}: give one for each item")
    return found


def _one_a_row(condition: Any, n: int) -> bool:
    """Whether a condition is one label or number for each of ``n`` rows, and no sequence of vectors."""
    if not hasattr(condition, "__len__") or isinstance(condition, str | Mapping):
        return False
    if getattr(condition, "ndim", 1) != 1 or len(condition) != n:
        return False
    objects = getattr(getattr(condition, "dtype", None), "kind", "O") == "O"
    if isinstance(condition, torch.Tensor) or not objects:
        return True
    # Their types first: rows are many, and kinds of them few.
    flat = all(issubclass(kind, str | int | float | np.generic | None) for kind in set(map(type, condition)))
    return flat or all(np.ndim(row) == 0 for row in condition)


def _found(kind: Check, evidence: Evidence) -> Finding:
    """Run one check."""
    start = time.perf_counter()
    try:
        reading = kind.measure(evidence)
    except (ChartaeError, RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        reading = Reading(None, because=one_line(error, 200))
    except Exception as error:  # a mistake in code, ours or the model's: it is seen, and others go on
        fault = one_line(f"{type(error).__name__}: {error}", 200)
        warnings.warn(
            f"the check {kind.name!r} broke off ({fault}): report it, unless the model's code is to blame",
            stacklevel=3,
        )
        reading = Reading(None, because=f"the check broke off ({fault})")
    verdict = judge(reading, kind.ok, kind.fail)
    rows = () if reading.rows is None else tuple(int(i) for i in evidence.index[reading.rows])
    codes = () if reading.codes is None else tuple(tuple(map(float, z)) for z in reading.codes)
    # Numbers of Python, which are written as they are read.
    statistic, p_value = (None if v is None else float(v) for v in (reading.value, reading.p_value))
    low_high = None if reading.interval is None else (float(reading.interval[0]), float(reading.interval[1]))
    return Finding(
        name=kind.name,
        title=kind.title,
        verdict=verdict,
        says=_says(kind, verdict, reading),
        statistic=statistic,
        unit=kind.unit,
        thresholds=(kind.ok, kind.fail),
        interval=low_high,
        p_value=p_value,
        rows=rows,
        codes=codes,
        remedies=proposed(kind.remedies, _setting(evidence)) if verdict in ("fail", "warn") else (),
        reference=kind.reference,
        seconds=time.perf_counter() - start,
        also=reading.also,
    )


def _says(kind: Check, verdict: Verdict, reading: Reading) -> str:
    if verdict == "cannot tell":
        if reading.because:
            return f"Cannot tell: {reading.because}."
        assert reading.value is not None
        value, low, high = map(_Told, (reading.value, *(reading.interval or (float("nan"), float("nan")))))
        return (
            f"Cannot tell: {value:.3g} ({kind.unit}) may be anything from {low:.3g} to {high:.3g}; "
            "more items may help."
        )
    told = {"value": reading.value, **reading.also}
    return kind.says[verdict].format(**{k: _Told(v) if isinstance(v, float) else v for k, v in told.items()})


class _Told(float):
    """A number in a sentence: large ones are 1,170 and not 1.17e+03."""

    def __format__(self, spec: str) -> str:
        text = super().__format__(spec)
        return f"{float(text):,.0f}" if "e+" in text else text


def form_of(path: Path) -> Callable[[Report], str]:
    """Tell by a file's name how a report is written to it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    callable
        From a report to text.

    Raises
    ------
    PlanError
        If its name ends otherwise than a report's.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.audits.report import form_of
    >>> form_of(Path("report.json")).__name__
    'to_json'
    """
    forms = {".html": Report.to_html, ".json": Report.to_json, ".txt": Report.__str__}
    if path.suffix not in forms:
        raise PlanError(f"{path} ends in none of .html (a page), .json (its values), .txt: name it so")
    return forms[path.suffix]


def _together(findings: list[Finding]) -> tuple[Finding, ...]:
    """Correct simple nulls for their number: a fail that the whole report makes likely is a warning.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tested = sorted((f for f in findings if f.p_value is not None), key=lambda f: f.p_value or 0.0)
    kept, passed = {}, True
    for i, finding in enumerate(tested):
        passed = passed and (finding.p_value or 0.0) <= FAMILY / (len(tested) - i)
        kept[finding.name] = passed
    return tuple(_warning(f) if f.verdict == "fail" and not kept.get(f.name, True) else f for f in findings)


def _warning(finding: Finding) -> Finding:
    """Make a fail a warning, which says no more than that."""
    reading = Reading(finding.statistic, finding.interval, also=finding.also)
    return replace(finding, verdict="warn", says=_says(checks[finding.name], "warn", reading))


def _lacking(need: str, evidence: Evidence) -> str:
    """Say why a check does not apply."""
    space = getattr(evidence.chart.given, "space_", None)
    if need == "likelihood" and getattr(space, "likelihood", "") == "columns":
        return "columns of several kinds are judged as numbers, of which p(x | z) says nothing"
    return LACKING[need]


def _setting(evidence: Evidence) -> Setting:
    """Say what a model was fitted with."""
    estimator = evidence.chart.given
    try:
        # Where the scales disagree, the least of them: noise makes the others.
        found = evidence.dimension
        dimension: float | None = (
            found.dimension if found.verdict == "ok" else min(value for _, value, _ in found.scales)
        )
    except DataError:
        dimension = None
    if not hasattr(estimator, "blueprint_"):
        return Setting(latent_dim=evidence.d, dimension=dimension, features=evidence.features)
    blueprint = estimator.blueprint_
    return Setting(
        recipe=blueprint["recipe"],
        recipe_params=find(blueprint["recipe"]).parameters | blueprint["parameters"],
        parameters=estimator.get_params(deep=False),
        latent_dim=evidence.d,
        dimension=dimension,
        corruption=evidence.corruption,
        features=evidence.features,
        widths=_widths(estimator.model_.posterior.plain.network),
        fitted_prior=None not in (estimator.model_.prior, estimator.model_.fitted_prior),
    )


def _widths(encoder: nn.Module) -> tuple[int, ...] | None:
    """Features or channels of the hidden layers, where they are all that an encoder is made of."""
    plain = isinstance(encoder, MLP | ConvEncoder)
    if not plain or any(isinstance(m, Film | Residual) for m in encoder.modules()):
        return None
    layers = [m for m in encoder.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    return tuple(len(layer.weight) for layer in layers[:-1])
