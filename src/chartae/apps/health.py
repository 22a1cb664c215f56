"""The health report of a run folder: on which rows, where it is written, and how two of them compare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import chartae
from chartae.audits.evidence import budget_of
from chartae.audits.findings import VERDICTS
from chartae.audits.report import Report, audit
from chartae.core.arrays import checksum, is_streamed
from chartae.core.columns import is_frame, is_streamed_table
from chartae.core.errors import DataError, PlanError, RunFolderError
from chartae.core.files import BUNDLED, atomic, within
from chartae.core.registry import suggest
from chartae.density.fitted import densities
from chartae.estimators.charts import refuse_tokens
from chartae.estimators.parameters import COMMON
from chartae.models.persistence.files import REPORT, SOURCE
from chartae.training.readers import Dataset
from chartae.training.splits import JUDGED

__all__ = ["Origin", "audited", "compared", "refuse_changed", "source_of", "take", "write_source"]

VALUES = 1 << 26  # of the items that a report looks at, at most
MOST = 0.5  # of the rows that one would hold out to judge a fit by


def take(X: Any, rows: np.ndarray) -> Any:
    """Choose rows of whatever items come as.

    Parameters
    ----------
    X : ndarray, DataFrame or stream
        ``(n, ...)``.
    rows : ndarray
        ``(m,)`` row numbers, ascending.

    Returns
    -------
    ndarray or DataFrame
        ``(m, ...)``.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.apps.health import take
    >>> take(np.arange(6).reshape(3, 2), np.array([0, 2])).tolist()
    [[0, 1], [4, 5]]
    """
    if is_streamed_table(X):
        import pandas as pd

        start, found = 0, []
        for frame in X.frames():
            mine = rows[(rows >= start) & (rows < start + len(frame))] - start
            found.append(frame.iloc[mine])
            start += len(frame)
        return pd.concat(found)
    if is_frame(X):
        return X.iloc[rows] if hasattr(X, "iloc") else X[rows]
    return X[rows]


def audited(
    estimator: Any,
    X: Any,
    y: np.ndarray | None,
    *,
    held_out: np.ndarray | None = None,
    budget: str = "fast",
    only: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    """Audit a run on rows that it was not trained on.

    Parameters
    ----------
    estimator : object
        Fitted.
    X : ndarray, DataFrame or stream
        ``(n, ...)``, as the estimator takes it.
    y : ndarray or None
        ``(n, ...)`` labels.
    held_out : ndarray or None
        ``(m,)`` the rows that were held out, where the model was trained on the others; None: it has seen
        none of them.
    budget, only, seed : object
        As of :func:`chartae.audit`.

    Returns
    -------
    Report
        Of those rows.

    Raises
    ------
    DataError
        If too few rows were held out.
    PlanError
        If the run decodes rows of tokens.

    Examples
    --------
    >>> import numpy as np, chartae as ct
    >>> from chartae.apps.health import audited
    >>> X = np.random.default_rng(0).normal(size=(600, 5))
    >>> vae = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(X)
    >>> audited(vae, X, None, held_out=vae.validation_rows_, only=["reconstruction"]).facts["rows"]
    60
    """
    n = len(X)
    refuse_tokens(estimator)  # before rows are counted, of which more would not help
    most = max(JUDGED, min(budget_of(budget).rows, VALUES // max(1, math.prod(X.shape[1:]))))
    random = np.random.default_rng(seed)
    test = np.arange(n) if held_out is None else held_out
    if len(test) < JUDGED and held_out is None:
        raise DataError(f"these are {n} rows, and {JUDGED} are needed to judge a run by: name more")
    if len(test) < JUDGED:
        share = math.ceil(100 * (JUDGED + 1) / max(n, 1)) / 100  # one more: a share is rounded to rows
        cure = f"hold out more (--param validation_fraction={share:g})" if share <= MOST else "fit more rows"
        if len(test) == getattr(X, "rows_to_hold", None):
            cure = "let more rows stay in memory (--memory)"
        raise DataError(
            f"{len(test)} rows were held out of the fit, and {JUDGED} are needed to judge it by: {cure}, or "
            "audit other rows (--data FILE)"
        )
    if test.max() >= n:
        raise DataError(
            f"the run has held out row {test.max()}, and these data have {n}: they are other data, so name "
            "them with --data"
        )
    seen = np.setdiff1d(np.arange(n), test, assume_unique=True) if held_out is not None else np.empty(0, int)
    test, seen = (
        np.sort(random.choice(rows, most, replace=False)) if len(rows) > most else rows
        for rows in (test, seen)
    )
    conditional = estimator.condition_.parameters is not None

    def of(rows: np.ndarray) -> tuple[Any, Any, Any]:
        mine = None if y is None else np.asarray(y)[rows]
        return take(X, rows), mine if conditional else None, mine if mine is None or mine.ndim == 1 else None

    x, c, labels = of(test)
    more: dict[str, Any] = {}
    if len(seen):
        more["X_train"], more["condition_train"], more["labels_train"] = of(seen)
    return audit(
        estimator,
        x,
        condition=c,
        labels=labels,
        row_numbers=test,
        budget=budget,
        only=only,
        random_state=seed,
        **more,
    )


def write_source(run: Path, items: Dataset, **words: Any) -> None:
    """Keep which data a run was fitted on, so that further commands need not be told.

    Parameters
    ----------
    run : Path
        The run folder.
    items : Dataset
        The data, which are known again by their number and a sum, where they are in memory.
    **words : object
        The words of the command line: ``data``, ``labels`` ...

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import chartae as ct
    >>> from chartae.apps.health import source_of, write_source
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_source(Path(folder), ct.read("digits"), data="digits", labels=None)
    ...     source_of(Path(folder))
    {'data': 'digits', 'labels': None, 'rows': 1797, 'sum': '...'}
    """
    for name in ("data", "labels"):  # of labels, what is no file is the name of a column
        word = words.get(name) or ""
        path, _ = within(word)
        if word != BUNDLED and Path(path).exists() and (name == "data" or path.endswith(".npy")):
            words[name] = str(Path(word).absolute())
    with atomic(run / SOURCE) as file:
        file.write(json.dumps(words | _identity(items)).encode())


def _identity(items: Dataset) -> dict[str, Any]:
    """Say by what data are known again: how many there are, and a sum of what was read."""
    if items.texts is not None:  # and not what they become, which is asked for once it is needed
        whole = np.frombuffer("\n".join(items.texts).encode(), np.uint8)
        return {"rows": len(items.texts), "sum": checksum(whole)}
    X = items.X
    if items.medium is not None or is_streamed(X) or is_streamed_table(X):
        return {"rows": len(X), "sum": None}  # another pass over sounds, or what does not fit, takes long
    if is_frame(X):
        import pandas as pd

        X = pd.util.hash_pandas_object(X, index=False).to_numpy()
    return {"rows": len(X), "sum": checksum(X)}


def refuse_changed(source: Mapping[str, Any], items: Dataset) -> None:
    """Refuse data that are no longer those of the fit, so that nobody knows which rows it has not seen.

    Parameters
    ----------
    source : Mapping
        As :func:`source_of` gives it.
    items : Dataset
        What has been read there now.

    Raises
    ------
    DataError
        If they are others.

    Examples
    --------
    >>> import chartae as ct
    >>> from chartae.apps.health import refuse_changed
    >>> refuse_changed({"rows": 1800}, ct.read("digits"))
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: digits has changed since the fit, so that ...
    """
    now = _identity(items)
    if any(source.get(name) not in (None, value) for name, value in now.items() if value is not None):
        raise DataError(
            f"{items.name} has changed since the fit, so that the rows that it held out are no longer known: "
            "name rows that the run has not seen with --data, or fit again"
        )


def source_of(run: Path) -> dict[str, Any]:
    """Say which data a run was fitted on.

    Parameters
    ----------
    run : Path
        The run folder.

    Returns
    -------
    dict
        The words of the command line: ``data``, ``labels`` ...

    Raises
    ------
    RunFolderError
        If the folder does not say.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.apps.health import source_of
    >>> source_of(Path("no/such/run"))
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: no/such/run does not say which data it was fitted on: name them ...
    """
    try:
        words = json.loads((run / SOURCE).read_bytes())
    except (OSError, ValueError):
        words = None
    if not isinstance(words, dict) or not isinstance(words.get("data"), str):
        raise RunFolderError(f"{run} does not say which data it was fitted on: name them with --data")
    return words


class Origin:
    """The run that a fit starts from: its data, its parameters, and what a remedy changes of them.

    Parameters
    ----------
    run : Path
        The run folder.
    remedy : str or None
        Of its health report.

    Attributes
    ----------
    recipe : str
        To fit with.
    parameters : dict
        To fit with, of those that all estimators share.
    report : Mapping or None
        What was found before.

    Raises
    ------
    PlanError
        If its report has no such remedy, or one that changes nothing in a fit.
    RunFolderError
        If it has no report.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np, chartae as ct
    >>> from chartae.apps.health import Origin
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = ct.VAE(latent_dim=2, free_bits=0.1, max_epochs=1).fit(np.eye(20)).save(folder + "/run")
    ...     origin = Origin(run, None)
    >>> origin.recipe, origin.own("vae")["free_bits"], origin.parameters["latent_dim"]
    ('vae', 0.1, 2)
    """

    def __init__(self, run: Path, remedy: str | None = None) -> None:
        self.run, self.trained = run, chartae.load(run)
        try:
            self.report: Mapping[str, Any] | None = json.loads((run / REPORT[1]).read_bytes())
        except (OSError, ValueError):
            self.report = None
        self.changes: dict[str, Any] = {} if remedy is None else self._changes(remedy)
        self.recipe, self._own = self.trained._recipe()
        self.recipe = self.changes.get("recipe", self.recipe)
        self._own = self.changes.get("recipe_params", self._own)
        given = self.trained.get_params(deep=False)
        self.parameters = {k: v for k, v in given.items() if k in COMMON and k != "verbose"}
        # The same rows are held out and the same numbers drawn, so that nothing but the changes differ.
        self.parameters["random_state"] = self.trained.random_state_
        self.parameters |= {k: v for k, v in self.changes.items() if k in COMMON}

    def _changes(self, remedy: str) -> dict[str, Any]:
        if self.report is None:
            raise RunFolderError(f"{self.run} has no health report: chartae audit {self.run} writes it")
        known = {r["name"]: r["changes"] for f in self.report["findings"] for r in f["remedies"]}
        if remedy not in known:
            raise PlanError(
                f"the health report of {self.run} has no remedy {remedy!r}: {suggest(remedy, known)}"
            )
        if not known[remedy]:
            raise PlanError(f"{remedy} is about how a model is used, and changes nothing in its fit")
        return dict(known[remedy])

    @property
    def source(self) -> dict[str, Any]:
        """Which data the run was fitted on, in words of the command line."""
        return source_of(self.run)

    def own(self, recipe: str) -> dict[str, Any]:
        """Give the recipe's own parameters.

        Parameters
        ----------
        recipe : str
            That is to be fitted; those of another one are of no use.

        Returns
        -------
        dict
            Their values.
        """
        return dict(self._own) if recipe == self.recipe else {}

    @property
    def is_trained(self) -> bool:
        """Whether the remedy leaves the weights as they are."""
        return set(self.changes) == {"prior"}

    def density(self, recipe: str) -> str | None:
        """Say which density is to be fitted to the codes: the remedy's, or the kind that the run has.

        Parameters
        ----------
        recipe : str
            That is fitted; of another one than the run's, samples come from where it takes them.

        Returns
        -------
        str or None
            As ``fit_prior`` takes it.
        """
        if "prior" in self.changes or recipe != self.trained._recipe()[0]:
            return self.changes.get("prior")
        has, own = type(self.trained.model_.fitted_prior), self.trained.model_.posterior.fitted_density
        # A fit gives the posterior's own by itself, where there is no prior.
        return next((name for name in densities if densities[name] is has and name != own), None)


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Put two reports side by side, as :meth:`Report.to_dict` gives them.

    Parameters
    ----------
    before, after : Mapping
        The reports.

    Returns
    -------
    list of tuple of str
        Name, and what it was and is, for each finding of either; what has changed most comes first.

    Examples
    --------
    >>> from chartae.apps.health import compared
    >>> one = {"findings": [{"name": "folds", "verdict": "fail", "statistic": 0.2}]}
    >>> two = {"findings": [{"name": "folds", "verdict": "ok", "statistic": 0.0}]}
    >>> compared(one, two)
    [('folds', 'fail (0.2)', 'ok (0)')]
    """
    found = [{f["name"]: f for f in report["findings"]} for report in (before, after)]

    def show(finding: Mapping[str, Any] | None) -> str:
        if finding is None:
            return "-"
        value = finding["statistic"]
        return finding["verdict"] + (f" ({value:.3g})" if value is not None else "")

    def step(name: str) -> int:
        places = [VERDICTS.index(f[name]["verdict"]) if name in f else len(VERDICTS) for f in found]
        return -abs(places[1] - places[0])

    names = sorted(dict.fromkeys([*found[0], *found[1]]), key=step)
    return [(name, show(found[0].get(name)), show(found[1].get(name))) for name in names]
