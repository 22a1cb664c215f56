"""The command ``head``: what can be read off the codes of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chartae.apps.inputs import features_of, open_run, read_for, streamed
from chartae.apps.options import Data, Labels, Run, Size
from chartae.core.errors import DataError
from chartae.core.files import atomic

if TYPE_CHECKING:
    import numpy as np

    from chartae.training.readers import Dataset

__all__: list[str] = []


def head(
    run: Run,
    data: Data,
    labels: Labels = None,
    head: Annotated[str, typer.Option(metavar="NAME", help="linear, mlp, knn or spreading.")] = "linear",
    training: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="frozen; fine-tuned with a copy of the encoder; or the run's model fitted anew with labels: "
            "joint, bottleneck, or generative (of conditional runs), which sums over those not known.",
        ),
    ] = "frozen",
    numbers: Annotated[
        bool, typer.Option("--numbers", help="What is read are numbers; whole ones are else labels.")
    ] = False,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Average over draws of each code, not of its mean alone.")
    ] = False,
    held_out: Annotated[
        float,
        typer.Option("--test", min=0.01, max=0.99, metavar="SHARE", help="Share of labeled rows to test on."),
    ] = 0.2,
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .png: accuracy by the number of labels, beside PCA's."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .csv: what is read of every row, labeled or not."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of what is held out.")] = 0,
    size: Size = None,
) -> None:
    """Read labels or numbers off codes, and say how well.

    Rows labeled -1, and those without a label or a number, are predicted.
    """
    import numpy as np
    from sklearn.utils import _safe_indexing

    from chartae.estimators.heads import HeadClassifier, HeadRegressor
    from chartae.transfer import UNLABELED

    for path, suffix in ((curve, ".png"), (out, ".csv")):
        if path is not None and path.suffix != suffix:
            raise DataError(f"{path} does not end in {suffix}: name it so")
    if curve is not None and training != "frozen":
        raise DataError(f"--curve is of codes that stay, and --training {training} moves them: leave one out")
    estimator = open_run(run, encoder=True)
    items = read_for(estimator, data, labels, size, None)
    X, y = _with_labels(items, estimator)
    rows, names = _to_read(y, items.name, numbers)
    if names is None and curve is not None:
        raise DataError("a curve counts labels, and these are numbers: leave out --curve")
    train, test = _apart(X, rows, y, names, held_out, seed)
    kind: Any = HeadRegressor if names is None else HeadClassifier
    model = kind(estimator, head=head, training=training, stochastic=stochastic, random_state=seed)
    known, told = ((_safe_indexing(X, part), y[part]) for part in (train, test))
    if names is None:
        model.fit(*known)
    else:  # of all rows, along which labels may spread
        target = np.full(len(y), UNLABELED)
        target[train] = np.searchsorted(names, y[train])
        model.fit(X, target)
    reader = "classifier of items" if training == "generative" else f"{head} head"
    typer.echo(f"read      {len(train):,} labels by a {reader}, and told {len(test):,} other rows")
    _say_how_well(model, *told, names)
    if curve is not None:
        _draw_curve(estimator, known, told, head, seed, curve)
    if out is not None:
        _write_table(model, X, names, out)


def _with_labels(items: Dataset, estimator: Any) -> tuple[Any, np.ndarray]:
    """Items as the encoder takes them, and one label or number of each."""
    import numpy as np

    if items.y is None:
        raise DataError(f"{items.name} brings no labels: pass --labels")
    X, y = features_of(items, estimator), np.asarray(items.y)
    if streamed(X):
        raise DataError(f"{items.name} is read in blocks, and a head needs it at once: give fewer rows")
    if y.ndim > 1:
        several = bool(np.isin(y, (0, 1, -1)).all())
        cure = (
            "or HeadClassifier in Python, which takes several" if several else "one number or label an item"
        )
        raise DataError(f"the labels of {items.name} have shape {y.shape}: give one column of them, {cure}")
    return X, y


def _to_read(y: np.ndarray, name: str, numbers: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of which something is known, and the labels that there are; None: they are numbers."""
    import numpy as np
    from sklearn.utils.multiclass import type_of_target

    from chartae.training.labels import missing, typed
    from chartae.transfer import UNLABELED, labeled

    known = np.flatnonzero(~missing(y))
    if empty := len(y) - len(known):
        typer.echo(f"unknown   {empty:,} rows have no label")
    told = typed(y[known])
    if numbers and told.dtype.kind not in "iuf":
        raise DataError(f"the labels of {name} are no numbers: leave --numbers out")
    if numbers or type_of_target(told) == "continuous":
        return known, None
    there = labeled(told)
    rows, told = known[there], told[there]
    if unknown := len(known) - len(rows):
        cure = "which stands for none: write another, if it is one"
        typer.echo(f"unknown   {unknown:,} rows have the label {UNLABELED}, {cure}")
    names, times = np.unique(told, return_counts=True)
    if len(names) < 2 or times.min() < 2:
        which = repr(names.tolist()[times.argmin()]) + (" once" if len(names) > 1 else " alone")
        cure = "; if they are numbers, add --numbers" if told.dtype.kind in "iuf" else ""
        raise DataError(f"{name} holds the label {which}: a head needs two rows of two labels or more{cure}")
    return rows, names


def _apart(
    X: Any, rows: np.ndarray, y: np.ndarray, names: np.ndarray | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows to tell: of equal items all on one side, where that leaves enough."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    from chartae.training.splits import by_label, kinds_of

    kind = kinds_of(X)[0][rows]
    one_of_each = rows[np.unique(kind, return_index=True)[1]]
    for among in (one_of_each, rows):
        held = math.ceil(share * len(among))
        if names is None and len(among) > 1:
            told = train_test_split(among, test_size=share, random_state=seed)[1]
        else:
            told = among[:0] if names is None else by_label(among, y[among], held, seed)[1]
        if len(told):
            break
    held_out = np.isin(kind, kind[np.isin(rows, told)]) if among is one_of_each else np.isin(rows, told)
    train, test = rows[~held_out], rows[held_out]
    if names is None and not len(test):
        raise DataError("one row is too few to learn from and to tell: give more rows with a number")
    if names is not None and not len(test):
        lacks, other = ("tell", "larger") if held < len(names) else ("learn from", "smaller")
        raise DataError(f"no row of some label is left to {lacks}: give a {other} --test")
    return train, test


def _say_how_well(model: Any, X: Any, y: np.ndarray, names: np.ndarray | None) -> None:
    import numpy as np
    from sklearn.metrics import r2_score

    from chartae.transfer import calibration_error

    if names is None:
        typer.echo(f"R2        {r2_score(y, model.predict(X)):.3f}, noise {model.noise_:.3g}")
        return
    probabilities, truth = model.predict_proba(X), np.searchsorted(names, y)
    right, most = (probabilities.argmax(1) == truth).mean(), np.bincount(truth).max() / len(truth)
    typer.echo(f"accuracy  {right:.3f} (the most frequent label alone: {most:.3f})")
    error = calibration_error(probabilities, truth)
    typer.echo(f"ECE       {error:.3f}, at temperature {model.temperature_:.2f}")


def _draw_curve(estimator: Any, known: Any, told: Any, head: str, seed: int, path: Path) -> None:
    from chartae.estimators.efficiency import label_efficiency_curve

    found = label_efficiency_curve(estimator, *known, test=told, head=head, random_state=seed)
    typer.echo(str(found))
    figure: Any = found.plot().figure
    with atomic(path) as file:
        figure.savefig(file, dpi=110, format="png")
    typer.echo(f"wrote     {path}")


def _write_table(model: Any, X: Any, names: np.ndarray | None, path: Path) -> None:
    """Write what is read of every row, labeled or not."""
    import pandas as pd

    if names is None:
        columns = dict(zip(("label", "std"), model.predict(X, return_std=True), strict=True))
    else:
        each = model.predict_proba(X)
        columns = {"label": names[each.argmax(1)], "probability": each.max(1)}
    with atomic(path) as file:
        pd.DataFrame(columns).to_csv(file, index=False)
    typer.echo(f"wrote     {path}")
