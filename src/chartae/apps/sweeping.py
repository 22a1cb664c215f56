"""The command ``sweep``: how large a code is to be, and how much the KL term is to weigh."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chartae.apps.inputs import to_fit
from chartae.apps.options import (
    BatchSize,
    ColumnKinds,
    Data,
    Device,
    Encoder,
    Epochs,
    Hidden,
    Labels,
    LearningRate,
    Likelihood,
    MaxLength,
    Memory,
    Network,
    Param,
    Quiet,
    Size,
    as_options,
    kind_of,
    noise_of,
    own_of,
    shortened,
    sorted_out,
)
from chartae.apps.outputs import print_table, titled
from chartae.core.errors import PlanError

if TYPE_CHECKING:
    from rich.table import Table

    from chartae.estimators.sweeps import Cell, Sweep

__all__: list[str] = []

#: Parameters of a sweep that have an option of their own, beside those of ``fit``.
_SWEPT = {"latent_dims": "--latent-dims", "betas": "--betas", "noises": "--noises", "jobs": "--jobs"}


def _numbers(text: str) -> Any:
    try:
        return [int(part) if part.strip().isdecimal() else float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not numbers with commas, such as 0.5,1,2.") from None


def _noises(text: str) -> Any:
    return [noise_of(part.strip()) for part in text.split(",")]


def swept(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="For the results, and a run folder for each fit. A sweep that is there goes on.",
            show_default=False,
        ),
    ],
    data: Data,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="One of those that chartae recipes lists.")
    ] = "beta-vae",
    labels: Labels = None,
    latent_dims: Annotated[
        Any,
        typer.Option(
            parser=_numbers,
            metavar="N,N",
            help="Numbers in a code; by default a half, one, two and four times the data's dimension.",
        ),
    ] = None,
    betas: Annotated[
        Any, typer.Option(parser=_numbers, metavar="B,B", help="Weights of the KL term; 0.5,1,2 by default.")
    ] = None,
    noises: Annotated[
        Any,
        typer.Option(
            parser=_noises, metavar="NAME|SD,...", help="global, feature, item, or fixed standard deviations."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many fit at once, each with one thread.")
    ] = 1,
    likelihood: Likelihood = None,
    network: Network = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    param: Param = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of every fit; by default 0.")] = None,
    size: Size = None,
    encoder: Encoder = None,
    max_length: MaxLength = None,
    column: ColumnKinds = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Fit DATA for several latent sizes and betas, and recommend which to take."""
    from chartae.estimators.parameters import COMMON
    from chartae.models.recipes import find

    entry = find(recipe)
    asked = {
        "likelihood": likelihood,
        "network": network,
        "hidden": hidden,
        "max_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "device": device,
        "random_state": seed,
    }
    own, given = sorted_out(param or [], own_of(entry), COMMON, asked)
    if column:
        given["columns"] = dict(kind_of(pair) for pair in column)
    words = {"data": data, "labels": labels, "size": size, "memory": memory}
    words["encoder"] = shortened(encoder, max_length)
    items = to_fit(entry, words, quiet=quiet)
    from chartae.apps.health import write_source
    from chartae.estimators.sweeps import FIGURE, RECORD, sweep

    try:
        found = sweep(
            items,
            run=out,
            recipe=entry.name,
            recipe_params=own,
            latent_dims=latent_dims,
            betas=betas,
            noises=noises or ("global",),
            jobs=jobs,
            **{"random_state": 0, "verbose": 0 if quiet else 1, **given},
        )
    except (KeyboardInterrupt, SystemExit):
        if (out / RECORD).is_file():
            typer.echo(f"{out} holds what was fitted so far: the same command goes on", err=True)
        raise
    except ValueError as error:
        raise PlanError(_as_swept(as_options(str(error), {*COMMON, *own_of(entry)}))) from error
    for cell in found.cells:
        if not cell.failed:
            write_source(cell.run, items, **words)  # so that its audit need not be told
    _draw(found, out / FIGURE)
    if not quiet:
        _say_what_was_found(found, out)


def _as_swept(message: str) -> str:
    """Name parameters of a sweep as they are given here, and its values by the option for all of them."""
    names = re.compile(rf"\b({'|'.join(_SWEPT)})\b(=?)")
    said = names.sub(lambda found: _SWEPT[found[1]] + " " * len(found[2]), message).strip()
    return re.sub(
        r"--(latent-dim|noise)(?=\s)|--param (beta)[= ]",
        lambda m: f"--{m[1] or m[2]}s" + " " * bool(m[2]),
        said,
    )


def _say_what_was_found(found: Sweep, out: Path) -> None:
    from chartae.estimators.sweeps import FIGURE, RECORD

    print_table(_shown(found))
    typer.echo(found.reason)
    for note in found.notes:
        typer.echo(f"note      {note.replace('max_epochs', '--epochs')}")
    typer.echo(f"results   {out} ({RECORD}, {FIGURE}, cells)")
    run = shlex.quote(str(found.recommended.run))
    typer.echo(f"next      chartae audit {run}")
    typer.echo(f"          chartae info {run}")


def _draw(found: Sweep, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from chartae.core.files import atomic

    figure = Figure(figsize=(6.4, 4.6), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    found.plot(figure.subplots())
    with atomic(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})


def _shown(found: Sweep) -> Table:
    """Put the cells into a table, without the columns that say nothing of any of them."""
    several = len({cell.noise for cell in found.cells}) > 1
    columns: dict[str, Any] = {
        "d": lambda c: f"→ {c.latent_dim}" if c is found.recommended else f"{c.latent_dim}",
        "beta": lambda c: None if c.beta is None else f"{c.beta:g}",
        "noise": lambda c: f"{c.noise}" if several else None,
        "rate": lambda c: _nats(c.rate),
        "distortion": lambda c: "failed" if c.failed else _nats(c.distortion),
        "rmse": lambda c: None if c.rmse is None else f"{c.rmse:.3g}",
        "bound": lambda c: _nats(c.bound),
        "behind": lambda c: _behind(found, c),
        "active": lambda c: None if c.active is None else f"{c.active}",
        "weights": lambda c: f"{c.parameters:,}",
        "s": lambda c: f"{c.seconds:.0f}",
    }
    rows = {title: [show(cell) for cell in found.cells] for title, show in columns.items()}
    rows = {title: cells for title, cells in rows.items() if any(cell is not None for cell in cells)}
    table = titled(*rows)
    table.padding = (0, 0)  # one space between columns: more would not fit into 80
    for column in table.columns:
        column.justify, column.no_wrap = "right", True
    for row in zip(*rows.values(), strict=True):
        table.add_row(*(cell or "" for cell in row))
    return table


def _nats(value: float | None) -> str | None:
    return None if value is None or value != value else f"{value:.1f}"


def _behind(found: Sweep, cell: Cell) -> str:
    gap, error = found.behind(cell)
    return "best" if cell is found.best else "" if cell.failed else f"{gap:.1f} ± {error:.1f}"
