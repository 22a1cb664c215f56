"""The command ``head``: what can be read off the codes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chartae.apps.inputs import features_of, open_run, read_for, streamed
from chartae.apps.options import Data, Labels, Run, Size
from chartae.apps.outputs import refuse_own
from chartae.core.errors import DataError
from chartae.core.files import atomic

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
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Average over draws of each code, not of its mean alone.")
    ] = False,
    held_out: Annotated[
        float,
        typer.Option("--test", min=0.01, max=0.99, metavar="SHARE", help="Of labeled rows, to tell."),
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
    """Read labels or numbers off codes, and say how well. Labels of -1, and missing numbers, are told."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import _safe_indexing
    from sklearn.utils.multiclass import type_of_target

    from chartae.estimators.efficiency import label_efficiency_curve
    from chartae.estimators.heads import HeadClassifier, HeadRegressor
    from chartae.transfer import UNLABELED, calibration_error, labeled

    for path, suffix in ((curve, ".png"), (out, ".csv")):
        if path is not None and path.suffix != suffix:
            raise DataError(f"{path} does not end in {suffix}: name it so")
        if path is not None:
            refuse_own(path, data)
    if curve is not None and training != "frozen":
        raise DataError(f"--curve is of codes that stay, and --training {training} moves them: leave one out")
    estimator = open_run(run, encoder=True)
    items = read_for(estimator, data, labels, size, None)
    if items.y is None:
        raise DataError(f"{items.name} brings no labels: pass --labels")
    X = features_of(items, estimator)
    if streamed(X):
        raise DataError(f"{items.name} is read in blocks, and a head needs it at once: give fewer rows")
    y = np.asarray(items.y)
    if y.ndim > 1:
        several = bool(np.isin(y, (0, 1, -1)).all())
        cure = (
            "or HeadClassifier in Python, which takes several" if several else "one number or label an item"
        )
        raise DataError(f"the labels of {items.name} have shape {y.shape}: give one column of them, {cure}")
    known = ~np.asarray(pd.isna(y))
    numbers = type_of_target(y[known]) == "continuous"
    if numbers and curve is not None:
        raise DataError("a curve counts labels, and these are numbers: leave out --curve")
    rows = np.flatnonzero(known)
    if not numbers:
        rows = rows[labeled(y[rows])]
        if unknown := known.sum() - len(rows):
            cure = "which stands for none: write another, if it is one"
            typer.echo(f"unknown   {unknown:,} rows have the label {UNLABELED}, {cure}")
        names, times = np.unique(y[rows], return_counts=True)
        if len(names) < 2 or times.min() < 2:
            which = repr(names.tolist()[times.argmin()]) + (" once" if len(names) > 1 else " alone")
            raise DataError(
                f"{items.name} holds the label {which}: a head needs two rows of two labels or more"
            )
    train, test = train_test_split(
        rows, test_size=held_out, random_state=seed, stratify=None if numbers else y[rows]
    )
    if not numbers and len(np.unique(y[train])) < len(names):
        raise DataError("no row of some label is left to learn from: give a smaller --test")
    kind: Any = HeadRegressor if numbers else HeadClassifier
    model = kind(estimator, head=head, training=training, stochastic=stochastic, random_state=seed)
    if numbers:
        model.fit(_safe_indexing(X, train), y[train])
    else:  # of all rows, along which labels may spread
        target = np.full(len(y), UNLABELED)
        target[train] = np.searchsorted(names, y[train])
        model.fit(X, target)
    told = _safe_indexing(X, test)
    reader = "classifier of items" if training == "generative" else f"{head} head"
    typer.echo(f"read      {len(train):,} labels by a {reader}, and told {len(test):,} other rows")
    if numbers:
        typer.echo(f"R2        {r2_score(y[test], model.predict(told)):.3f}, noise {model.noise_:.3g}")
    else:
        probabilities, truth = model.predict_proba(told), np.searchsorted(names, y[test])
        right = (probabilities.argmax(1) == truth).mean()
        most = np.bincount(truth).max() / len(test)
        typer.echo(f"accuracy  {right:.3f} (the most frequent label alone: {most:.3f})")
        error = calibration_error(probabilities, truth)
        typer.echo(f"ECE       {error:.3f}, at temperature {model.temperature_:.2f}")
    if curve is not None:
        found = label_efficiency_curve(
            estimator,
            _safe_indexing(X, train),
            y[train],
            test=(told, y[test]),
            head=head,
            random_state=seed,
        )
        typer.echo(str(found))
        figure: Any = found.plot().figure
        with atomic(curve) as file:
            figure.savefig(file, dpi=110, format="png")
        typer.echo(f"wrote     {curve}")
    if out is not None:
        if numbers:
            columns = dict(zip(("label", "std"), model.predict(X, return_std=True), strict=True))
        else:
            each = model.predict_proba(X)
            columns = {"label": names[each.argmax(1)], "probability": each.max(1)}
        with atomic(out) as file:
            pd.DataFrame(columns).to_csv(file, index=False)
        typer.echo(f"wrote     {out}")
