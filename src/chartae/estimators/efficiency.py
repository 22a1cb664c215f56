"""How many labels a head needs on codes, and on what codes are made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import column_or_1d

from chartae.core.columns import is_frame
from chartae.core.counts import count
from chartae.core.errors import DataError, PlanError
from chartae.estimators.checking import in_memory
from chartae.estimators.decoding import seed_of
from chartae.estimators.heads import classes_of, targets
from chartae.training.labels import as_labels, typed
from chartae.training.splits import by_label
from chartae.transfer import UNLABELED, coded, fit_to_draws, fitted, labeled, takes_unlabeled, weighed
from chartae.transfer import head as make_head

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["LabelEfficiency", "label_efficiency_curve"]

STEPS = (1, 3)  # of each power of ten


@dataclass(frozen=True)
class LabelEfficiency:
    """Accuracy of a head by the number of labels.

    Attributes
    ----------
    counts : tuple of int
        Numbers of labels.
    scores : Mapping
        By what the head read: ``(len(counts), repeats)`` shares of held-out rows that were told right.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.estimators.efficiency import LabelEfficiency
    >>> LabelEfficiency((10,), {"codes": np.array([[0.5, 0.7]])}).to_frame()["accuracy"].tolist()
    [0.5, 0.7]
    """

    counts: tuple[int, ...]
    scores: Mapping[str, np.ndarray]

    def to_frame(self) -> pd.DataFrame:
        """Give a table with a row for each fit.

        Returns
        -------
        DataFrame
            ``of``, ``labels``, ``draw`` and ``accuracy``.
        """
        import pandas as pd

        rows = [
            (name, n, draw, value)
            for name, scores in self.scores.items()
            for n, line in zip(self.counts, scores.tolist(), strict=True)
            for draw, value in enumerate(line)
        ]
        return pd.DataFrame(rows, columns=["of", "labels", "draw", "accuracy"])

    def __str__(self) -> str:
        width = max(map(len, self.scores))
        lines = ["labels".rjust(width) + "".join(f"{n:>9,}" for n in self.counts)]
        lines += [
            name.rjust(width) + "".join(f"{m:>9.3f}" for m in s.mean(1)) for name, s in self.scores.items()
        ]
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the means, and the range of the draws.

        Parameters
        ----------
        ax : Axes or None
            Of matplotlib, to draw into; None: a new one.

        Returns
        -------
        Axes
            With a curve for each thing that was read.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.estimators.efficiency import LabelEfficiency
        >>> LabelEfficiency((10, 30), {"codes": np.array([[0.5], [0.7]])}).plot().get_xlabel()
        'labels'
        """
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(6.4, 4.2), layout="constrained").subplots()
        for name, scores in self.scores.items():
            (line,) = ax.plot(self.counts, scores.mean(1), marker="o", ms=4, label=name)
            ax.fill_between(
                self.counts, scores.min(1), scores.max(1), color=line.get_color(), alpha=0.15, linewidth=0
            )
        ax.set(xscale="log", xlabel="labels", ylabel="accuracy on held-out rows")
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)
        return ax


def label_efficiency_curve(
    encoder: Any,
    X: Any,
    y: Any,
    *,
    test: tuple[Any, Any] | None = None,
    counts: int | Sequence[int] | None = None,
    head: Any = "linear",
    repeats: int = 5,
    random_state: Any = None,
) -> LabelEfficiency:
    """Accuracy against the number of labels: of codes, of as many principal components, and of the raw input.

    Labels of one draw are a part of those of the next larger number, and the same for all.

    Parameters
    ----------
    encoder : object or Mapping
        As in :class:`chartae.HeadClassifier`; several by name.
    X : array_like
        ``(n, *shape)``.
    y : array_like
        ``(n,)`` labels, -1 or None where there is none: an encoder that is still to be fitted and principal
        components learn from such rows, too.
    test : tuple or None
        Rows and labels to be told; None: a fifth of the rows with a label.
    counts : int, sequence of int or None
        Numbers of labels; None: 10, 30, 100 and so on, up to all.
    head : {"linear", "mlp", "knn", "spreading"} or estimator
        As in :class:`chartae.HeadClassifier`; labels spread along all rows.
    repeats : int
        Draws of labels for each number.
    random_state : int, RandomState or None
        Of draws.

    Returns
    -------
    LabelEfficiency
        With ``plot`` and ``to_frame``.

    Raises
    ------
    DataError
        If a number of labels is not whole, more than there are, or less than there are classes, y is several
        labels of each row, or a label too rare to be held out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import chartae as ct
    >>> X, y = load_iris(return_X_y=True)
    >>> vae = ct.VAE(latent_dim=2, max_epochs=20, random_state=0).fit(X)
    >>> found = ct.label_efficiency_curve(vae, X, y, counts=(10, 100), random_state=0)
    >>> list(found.scores), found.scores["codes"].shape
    (['codes', 'PCA, 2', 'raw input'], (2, 5))
    """
    if np.ndim(y) > 1 and np.shape(y)[1] > 1:
        raise DataError(f"y has {np.shape(y)[1]} labels of each row, and a curve is of one: give a column")
    seed, repeats = seed_of(random_state), count(repeats, "repeats")
    X, y, known = _with_labels(X, y)
    classes = classes_of(y[known])
    if test is None:
        known, held_out = by_label(known, y[known], math.ceil(len(known) / 5), seed)
        if not len(held_out):
            raise DataError("a fifth of the rows does not hold each label: give test, or drop rare labels")
        told, right = _safe_indexing(X, held_out), y[held_out]
        kept = np.setdiff1d(np.arange(len(y)), held_out)
        X, y, known = _safe_indexing(X, kept), y[kept], np.searchsorted(kept, known)
    else:
        told, right, rows = _with_labels(*test)
        told, right = _safe_indexing(told, rows), right[rows]
        if not set(right.tolist()) & set(y[known].tolist()):
            raise DataError(
                f"no label of test, of type {right.dtype}, is one of y, of {y.dtype}: give the same"
            )
    numbers = np.searchsorted(classes, typed(y[known]))
    chosen = _counts(len(known), len(classes)) if counts is None else tuple(np.atleast_1d(counts).tolist())
    wrong = next((n for n in chosen if not len(classes) <= n <= len(known) or n != int(n)), None)
    if wrong is not None:
        raise DataError(
            f"counts holds {wrong}: give whole numbers from {len(classes)} (classes) to {len(known)} (labels)"
        )
    chosen = tuple(map(int, chosen))
    codes = _seen(encoder, X, told, seed)
    scores = {name: np.empty((len(chosen), repeats)) for name in codes}
    for draw in range(repeats):
        order = _in_turn(numbers, np.random.default_rng(seed + draw))
        for i, n in enumerate(chosen):
            labels, some = np.full(len(y), UNLABELED), known[order[:n]]
            labels[some] = numbers[order[:n]]
            for name, (seen, asked) in codes.items():
                made = weighed(make_head("categorical", head, random_state=seed + draw), classes.tolist())
                rows = np.arange(len(y)) if takes_unlabeled(made) else some
                fit_to_draws(made, seen[rows][None], labels[rows])
                scores[name][i, draw] = (classes[made.predict(asked)] == right).mean()
    return LabelEfficiency(chosen, scores)


def _with_labels(X: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """Items and labels as arrays, and which rows have one."""
    X, y = in_memory(X), column_or_1d(as_labels(y))
    return X, y, np.flatnonzero(labeled(targets(None, X, y)))


def _counts(n: int, classes: int) -> tuple[int, ...]:
    steps = [step * 10**power for power in range(1, 10) for step in STEPS]
    return (*(m for m in steps if classes <= m < n), n)


def _seen(encoder: Any, X: Any, told: Any, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What heads read of rows to learn from, and of rows to be told, by name."""
    given = encoder if isinstance(encoder, Mapping) else {"codes": encoder}
    if not given:
        raise PlanError("there is no encoder whose codes a head could read: give one, or several by name")
    out = {}
    for name, each in given.items():
        ready = fitted(each, X, seed)
        out[name] = coded(ready, X), coded(ready, told)
    try:
        flat = [np.asarray(part, np.float64).reshape(len(part), -1) for part in (X, told)]
    except (TypeError, ValueError):  # of tables with words, and of texts
        return out
    if any(np.isnan(part).any() for part in flat):
        filler = SimpleImputer(keep_empty_features=True).fit(flat[0])
        flat = [filler.transform(part) for part in flat]
    spaces = [getattr(each, "space_", None) for each in given.values()]
    if is_frame(X) or any(space is not None and space.scale.numel() > 1 for space in spaces):
        scaler = StandardScaler().fit(flat[0])  # columns have units of their own
        flat = [scaler.transform(part) for part in flat]
    raw = coded(None, flat[0]), coded(None, flat[1])
    d = min(next(iter(out.values()))[0].shape[1], *raw[0].shape)
    pca = PCA(d, random_state=0).fit(raw[0])
    known, asked = (np.asarray(pca.transform(v)) for v in raw)
    return out | {f"PCA, {d}": (known, asked), "raw input": raw}


def _in_turn(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows in an order of which every beginning holds classes about equally often."""
    order = rng.permutation(len(y))
    labels = np.unique(y, return_inverse=True)[1][order]
    rank = np.empty(len(y), int)
    for c in range(labels.max() + 1):
        rank[labels == c] = np.arange((labels == c).sum())
    return order[np.lexsort((rng.random(len(y)), rank))]
