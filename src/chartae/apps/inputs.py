"""What commands read: runs, data as a run was fitted to them, and conditions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import chartae
from chartae.apps.options import value_of
from chartae.core.errors import DataError, RunFolderError
from chartae.core.registry import suggest

if TYPE_CHECKING:
    from chartae.training.readers import Dataset

__all__: list[str] = []


def open_run(run: Path, *, encoder: bool = False) -> Any:
    """Open a run folder, or an exported decoder where that will do."""
    if not run.is_dir():  # before torch is imported
        raise RunFolderError(f"{run} is not a run folder: config.json is missing")
    from chartae.models.persistence import config_of

    if (config_of(run) or {}).get("content") != "decoder":
        return chartae.load(run)
    if encoder:
        raise RunFolderError(f"{run} holds a decoder alone: name the run folder that it was exported from")
    return chartae.load_decoder(run)


def read_data(
    data: str,
    labels: str | None,
    size: tuple[int, int] | None,
    encoder: Any = None,
    memory: str | None = None,
) -> Dataset:
    from chartae.training.readers import read

    return read(data, labels=labels, size=size, encoder=encoder, memory=memory)


def to_fit(recipe: Any, words: dict[str, Any], *, quiet: bool) -> Dataset:
    """Read what a recipe is fitted to, and say what was found."""
    items = read_data(**words)
    if recipe.conditional and items.y is None:
        raise DataError(f"recipe {recipe.name!r} needs labels, and {items.name} brings none: pass --labels")
    if not quiet:
        typer.echo(f"data      {items.summary}")
    return items


def read_for(
    estimator: Any, data: str, labels: str | None, size: tuple[int, int] | None, memory: str | None
) -> Dataset:
    """Read further data as those of the fit were read: the same encoder, the same size and kind of pixels."""
    from dataclasses import replace

    import numpy as np

    from chartae.training.readers import encoded_noun

    if labels is not None and labels in getattr(estimator, "feature_names_in_", []):
        raise DataError(
            f"the model was fitted to {labels!r} as well, and its codes hold these labels: fit it again with "
            f"--labels {shlex.quote(labels)}, or --column {shlex.quote(f'{labels}=drop')}"
        )
    space = estimator.space_
    noun, own = encoded_noun(data), getattr(estimator.medium_, "noun", None)
    fitted = f"the run was fitted to {f'{own}s' if own else space.what}"
    if noun not in (None, own):
        raise DataError(f"{data} holds {noun}s, and {fitted}: name such data")
    images = Path(data).is_dir() and space.is_image and noun is None
    if images and size is None:
        size = space.model_shape[1:]
    items = read_data(data, labels, size, estimator.medium_ if noun else None, memory)
    if own and not noun and items.X.shape[1:] != space.shape:
        raise DataError(f"{items.name} holds {items.what}, and {fitted}: name such data")
    if images and items.note:
        typer.echo(f"{items.name}: {items.note}")
    if images and items.X.ndim == 3 and space.shape == (*items.X.shape[1:], 3):
        items = replace(items, X=np.repeat(items.X[..., None], 3, -1))  # gray images as color
    return items


def features_of(items: Dataset, estimator: Any) -> Any:
    """Give an array the names of the columns that a model was fitted on."""
    from chartae.core.columns import is_frame, is_streamed_table

    columns = list(getattr(estimator, "feature_names_in_", []))
    if is_frame(items.X) and estimator.space_.schema is None:
        return items.X.to_numpy()
    if is_frame(items.X) or is_streamed_table(items.X):
        # By their names, wherever they stand, and without what else is there, such as labels.
        absent = next((name for name in columns if name not in items.X.columns), None)
        if absent is not None and columns == [str(i) for i in range(len(items.X.columns))]:
            raise DataError(
                f"the first line of {items.name} was taken for names of columns, and the run was fitted to "
                f"data without any: put {','.join(columns[:3])}{',…' * (len(columns) > 3)} before it"
            )
        if absent is not None:
            raise DataError(f"{items.name} has no column {absent!r}: {suggest(absent, items.X.columns)}")
        return items.X[columns] if is_frame(items.X) else items.X.select(columns)
    if not columns or streamed(items.X):
        return items.X
    if items.X.ndim != 2 or items.X.shape[1] != len(columns):
        raise DataError(
            f"{items.name} has items of shape {items.X.shape[1:]}, and {len(columns)} columns are needed"
        )
    import pandas as pd

    return pd.DataFrame(items.X, columns=columns, copy=False)


def streamed(X: Any) -> bool:
    from chartae.core.arrays import is_streamed
    from chartae.core.columns import is_streamed_table

    return is_streamed(X) or is_streamed_table(X)


def condition_of(estimator: Any, items: Dataset) -> Any:
    """Give a conditional run the labels that come with the data."""
    if estimator.condition_.parameters is None:
        return None
    if items.y is None:
        typer.echo(f"{items.name} brings no labels (--labels): taken without a condition")
        return None
    classes = estimator.condition_.classes
    if classes is None or classes.dtype.kind != "U" or items.y.ndim != 1:
        return items.y
    # A table has no types: labels that are texts in one file may look like numbers in another.
    import numpy as np

    by_text = {str(known): known for known in classes.tolist()}
    return np.array([by_text.get(str(label), label) for label in items.y.tolist()], dtype=object)


def condition_asked(estimator: Any, condition: str | None) -> Any:
    """Read a condition from the command line as the run knows it: "9" may be a number or a text."""
    if condition is None:
        return None
    classes = estimator.condition_.classes
    for known in [] if classes is None else classes.tolist():
        if condition == str(known):
            return known
    if not condition.endswith(".npy"):
        text = classes is not None and classes.dtype.kind == "U"
        return condition if text else value_of(condition)
    from chartae.training.readers import read_array

    return read_array(condition)
