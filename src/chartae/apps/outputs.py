"""What commands write, and what they say of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from chartae.core.errors import DataError
from chartae.core.files import BUNDLED, within

if TYPE_CHECKING:
    from rich.table import Table

__all__: list[str] = []

SHOWN = 64  # items in a picture: enough to judge by, few enough to look at
COLUMNS = 16  # pairs a row
_SOUNDS = ("", ".wav")  # a folder of them, and one
_WRITTEN = ("out", "curve")  # options that name what a command writes
_RUNS = ("run", "origin")  # into whose folders results go; all other words may name what is read
_READ: ContextVar[tuple[str, ...]] = ContextVar("_READ", default=())


@contextmanager
def kept_apart(words: Mapping[str, Any]) -> Iterator[None]:
    """Keep what a command writes from replacing what its other words name."""
    others = (word for name, word in words.items() if name not in (*_WRITTEN, *_RUNS))
    token = _READ.set(tuple(str(word) for word in others if isinstance(word, str | Path)))
    try:
        for name in _WRITTEN:
            if words.get(name) is not None:
                refuse_own(words[name])
        yield
    finally:
        _READ.reset(token)


def refuse_own(target: Path, *others: str | None) -> None:
    """Keep a result from replacing what the command line names, or other files that are read."""
    named = {word for word in (*_READ.get(), *others) if word} - {BUNDLED}
    if target.is_file() and any(_holds(word, target) for word in named):
        raise DataError(f"{target} is what is read, and would be replaced: choose another place")


def _holds(word: str, target: Path) -> bool:
    """Whether a word names a file, or a folder of data that it is a part of."""
    name, _ = within(word)
    if os.path.isdir(name):
        from chartae.core.files import SOUNDS
        from chartae.training.pictures import IMAGES

        whole = (*IMAGES, *SOUNDS, ".parquet")  # what makes a folder data
        return target.suffix.lower() in whole and Path(name).resolve() in target.resolve().parents
    return os.path.exists(name) and os.path.samefile(name, target)


def target_of(out: Path | None, run: Path, name: str, estimator: Any) -> Path:
    """Decide where a result goes, before the work is done."""
    target = _named(out, run, name, estimator)
    refuse_own(target)
    return target


def _named(out: Path | None, run: Path, name: str, estimator: Any) -> Path:
    from chartae.core.images import is_picture

    space = estimator.space_
    if getattr(estimator.medium_, "restores", False):
        target = out or run / f"{name}.txt"
        if target.suffix != ".txt":
            raise DataError(f"the model was fitted on texts, and {target} does not end in .txt: name it so")
        return target
    usual = ".csv" if space.schema is not None else ".png" if is_picture(space) else ".npy"
    target = out or run / f"{name}{usual}"
    if target.suffix in _SOUNDS and hasattr(estimator.medium_, "write"):
        return target
    if target.suffix in (foreign := {".wav": "sounds", ".txt": "texts"}):
        kind = foreign[target.suffix]
        if kind == "texts" and getattr(estimator.medium_, "noun", None) == "text":
            raise DataError(
                f"the model knows texts by their words, and writes none: let the name of {target} end in "
                f"{usual}, or fit with --encoder bytes"
            )
        raise DataError(f"the model was not fitted on {kind}: let the name of {target} end in {usual}")
    if target.suffix in (".csv", ".parquet") and space.schema is None:
        raise DataError(f"the model was fitted on arrays, and {target} is a table: let its name end in .npy")
    if target.suffix == ".npy" and (words := _words(space)):
        raise DataError(
            f"column {words!r} is no number, and {target} holds numbers alone: let its name end in {usual}"
        )
    if target.suffix not in (".npy", ".png", ".csv", ".parquet"):
        others = ".png (images), .csv and .parquet (tables), .txt (texts), .wav (a sound)"
        raise DataError(f"{target} ends in none of .npy (arrays), {others}")
    if target.suffix == ".png" and not is_picture(space):
        raise DataError(
            f"items of shape {space.shape} are no images, and {target} is one: let its name end in {usual}"
        )
    return target


def _words(space: Any) -> str | None:
    """Name the first column of a table that an array of numbers cannot hold."""
    if space.schema is None:
        return None
    return space.schema.wordy or next((c.name for c in space.schema.columns if c.clock), None)


def refuse_several(target: Path, n: int) -> None:
    if target.suffix == ".wav" and n != 1:
        raise DataError(f"{target} is one sound, and there are {n:,}: name a new folder, as in {target.stem}")


def shown(X: Any, target: Path) -> Any:
    """Keep what a picture has room for."""
    if target.suffix == ".png" and len(X) > SHOWN:
        typer.echo(f"showing the first {SHOWN} of {len(X):,} items; --out FILE.npy takes all")
        return X[:SHOWN]
    return X


def write(target: Path, X: Any, estimator: Any, columns: int | None = None) -> None:
    import numpy as np

    from chartae.core.columns import as_pandas, is_frame
    from chartae.core.files import atomic
    from chartae.core.images import save_grid

    if target.suffix == ".png":
        save_grid(target, X, columns, **look(estimator))
        typer.echo(f"{target}")
        return
    if target.suffix == ".txt":
        # One a line, whatever a text may hold.
        lines = "".join(f"{' '.join(text.splitlines())}\n" for text in X)
        with atomic(target) as file:
            file.write(lines.encode())
        typer.echo(f"{target}  {len(X):,} texts")
        return
    if target.suffix in _SOUNDS:
        _write_sounds(target, X, estimator.medium_)
        return
    with atomic(target) as file:
        if target.suffix == ".csv":
            as_pandas(X).to_csv(file, index=False)
        elif target.suffix == ".parquet":
            as_pandas(X).to_parquet(file)
        else:
            np.save(file, as_pandas(X).to_numpy(dtype=float, na_value=np.nan) if is_frame(X) else X)
    of = "rows" if is_frame(X) else str(X.dtype)
    typer.echo(f"{target}  {' × '.join(str(s) for s in X.shape)}, {of}")


def _write_sounds(target: Path, X: Any, medium: Any) -> None:
    from chartae.core.files import atomic_folder

    if target.suffix:
        waves = medium.decode(X)
        medium.write(target, waves[0])
    else:
        with atomic_folder(target) as folder:
            waves = medium.decode(X)
            for i, wave in enumerate(waves):
                medium.write(folder / f"{i:0{len(str(len(waves) - 1))}}.wav", wave)
    typer.echo(f"{target}  {len(waves)} × {len(waves[0]) / medium.rate:.2f} s at {medium.rate:,} Hz")


def look(estimator: Any) -> dict[str, Any]:
    from chartae.core.images import look_of

    return look_of(estimator.space_, estimator.medium_)


def weights_of(estimator: Any) -> str:
    """Describe the epoch whose weights the model has."""
    from chartae.estimators.progress import describe

    if not estimator.history_:
        return "the first steps; no epoch is complete"
    row = estimator.history_[estimator.best_epoch_ - 1]
    place = "best" if row.get("best") else "last"
    return f"epoch {estimator.best_epoch_}, the {place} of {estimator.n_iter_} epochs: {describe(row)}"


def model_of(estimator: Any) -> str:
    """Name what stands behind every "auto"."""
    space = estimator.space_
    return f"{space.likelihood} likelihood, {estimator.network_} network, latent_dim {estimator.latent_dim_}"


def titled(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def print_table(table: Table) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False).print(table)  # a folder may be named [bold]
