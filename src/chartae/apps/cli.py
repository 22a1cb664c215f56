"""The command ``chartae``: words in, files out, and one line where something is wrong.

Everything that takes time to import (torch, scikit-learn, pandas, even numpy) is imported inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import chartae
from chartae.core.errors import ChartaeError, DataError, PlanError, RunFolderError
from chartae.core.registry import suggest

if TYPE_CHECKING:
    from rich.table import Table

    from chartae.apps.health import Origin
    from chartae.training.readers import Dataset

__all__ = ["app", "main"]

_SHOWN = 64  # items in a picture: enough to judge by, few enough to look at
_COLUMNS = 16  # pairs a row
_SOUNDS = ("", ".wav")  # a folder of them, and one
_PICTURES = ("samples.png", "reconstructions.png")  # that fit adds to the run folder of images


class _Commands(TyperGroup):
    """Commands that answer an error in one line: exit code 2, and 130 after Ctrl-C."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False  # leaves errors to this method
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                code = super().main(args, *rest, **extra)
        except KeyboardInterrupt:
            code = 130
        except Exception as e:
            # Usage errors bring format_message; scikit-learn complains about data in plain ValueErrors.
            message = e.format_message() if hasattr(e, "format_message") else str(e)
            known = isinstance(e, ChartaeError | ValueError | OSError) or hasattr(e, "format_message")
            if isinstance(e, MemoryError) or re.search("allocate memory|out of memory", message):
                known, message = True, "the memory is not enough: use a smaller --batch-size or --hidden"
            if not known or os.environ.get("CHARTAE_DEBUG"):
                raise
            typer.echo(f"Error: {' '.join(message.split())}", err=True)
            code = 2
        if code == 130:
            typer.echo("Interrupted.", err=True)
        sys.exit(code or 0)


def _warn(
    message: Warning | str, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Say a warning in one line, and not where in the code it was raised."""
    typer.echo(f"Warning: {' '.join(str(message).split())}", err=True)


app = typer.Typer(
    cls=_Commands,
    name="chartae",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes take longer to load than all the rest of the help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn the manifold that data live on, sample from it, and reuse its codes.",
    epilog="Example: chartae fit digits --out runs/digits",
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    args : sequence of str, optional
        The words after ``chartae``; left out, those of the process.

    Returns
    -------
    int
        0, or 2 after an error (one line on stderr says what and the cure), 130 after Ctrl-C, or 143 after
        SIGTERM. With ``CHARTAE_DEBUG=1`` in the environment an error is raised with its traceback.

    Examples
    --------
    >>> from chartae.apps.cli import main
    >>> main(["info", "no/such/run"])
    2
    """
    # Read when torch is imported, which is later. By default a thread of GNU OpenMP that waits for another
    # spins for milliseconds, on the very core that the other one needs when a second program runs: steps
    # then take 20 times as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        app(None if args is None else list(args), prog_name="chartae")
    except SystemExit as e:
        return int(e.code or 0)
    return 0


# ------------------------------------------------------------------------------------ words to values


def _value(text: str) -> Any:
    """Read JSON where it is some (4, 0.5, [1, 2]), true, false and none in any case, and a word otherwise."""
    constants = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _noise(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _latent_dim(text: str) -> Any:
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither 'auto' nor a whole number from 1.")
    return "auto" if text == "auto" else int(text)


def _hidden(text: str) -> Any:
    if not all(width.strip().isdecimal() and int(width) for width in text.split(",")):
        raise typer.BadParameter(f"{text!r} is not widths with commas, such as 512,256.")
    return tuple(int(width) for width in text.split(","))


def _size(text: str) -> Any:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 28x28.")
    return int(height), int(width)


def _duration(text: str) -> Any:
    number, unit = (text[:-1], text[-1]) if text.endswith(("s", "m", "h")) else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{text!r} is no time, such as 90 (seconds), 30m or 2h.")
    return seconds


#: Parameters of an estimator that have an option of their own in ``fit``.
_OPTIONS = {
    "latent_dim": "--latent-dim",
    "likelihood": "--likelihood",
    "network": "--network",
    "hidden": "--hidden",
    "max_epochs": "--epochs",
    "max_time": "--max-time",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
    "noise": "--noise",
    "precision": "--precision",
    "device": "--device",
    "random_state": "--seed",
}


def _sorted_out(
    pairs: Sequence[str], own: Collection[str], common: Collection[str], asked: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the recipe's own parameters from the estimator's, and add what options ask for to these."""
    recipes: dict[str, Any] = {}
    estimators = {name: value for name, value in asked.items() if value is not None}
    for name, equals, text in (pair.partition("=") for pair in pairs):
        if not (name.isidentifier() and equals):
            raise DataError(f"--param {name}{equals}{text} is not NAME=VALUE: write it as in --param beta=4")
        if name not in own and name not in common:
            raise PlanError(f"there is no parameter {name!r}: {suggest(name, [*own, *common])}")
        if name in recipes or name in estimators:
            raise PlanError(f"{name} is given twice: leave one out")
        (recipes if name in own else estimators)[name] = _value(text)
    return recipes, estimators


def _kind_of(pair: str) -> tuple[str, str]:
    name, equals, kind = pair.rpartition("=")
    if not (name and equals and kind):
        raise DataError(f"--column {pair} is not NAME=KIND: write it as in --column age=count")
    return name, kind


def _as_options(message: str, names: Collection[str]) -> str:
    """Name parameters as they are given here: ``scale='global'`` is ``--param scale=global``."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1] or found[2], found[3]
        if name not in names:
            return found[0]
        words = (_OPTIONS[name], " ") if name in _OPTIONS else (f"--param {name}", "=")
        return words[0] if value is None else f"{words[0]}{words[1]}{value}"

    return re.sub(r"The '(\w+)' parameter of \w+|\b(\w+)='?([\w.+-]*\w)'?", option, message)


_DATA = typer.Argument(
    metavar="DATA",
    help="digits, or a .npy, .npz (file.npz:key), .csv, .parquet, .txt, or folder of images or sounds.",
    show_default=False,
)
_Data = Annotated[str, _DATA]
_Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that fit has written.", show_default=False)]
_Labels = Annotated[str | None, typer.Option(metavar="KEY", help="Array, column or .npy file of labels.")]
_Size = Annotated[
    Any, typer.Option(parser=_size, metavar="HxW", help="Resize the images of a folder, in pixels.")
]
_Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="What data may take, as in 2GB; larger files are read in blocks."),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A .npy, a .png for images, a .csv or .parquet for tables, a .wav for one sound or a new folder "
        "for several; by default in RUN.",
    ),
]
_Condition = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL",
        help="What to make, in a conditional run: a label, numbers as in [1, 2], or a .npy of a vector.",
    ),
]
_Guidance = Annotated[
    float | None,
    typer.Option(metavar="W", help="How far to follow the condition: 1 as trained, 2 as much again."),
]
_Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Same seed, same result.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chartae {chartae.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------ commands


@app.command("fit", epilog="Example: chartae fit images/ --recipe cvae --epochs 50 --out runs/faces")
def _fit(
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the results.", show_default=False)],
    data: Annotated[str | None, _DATA] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One of those that chartae recipes lists; vae by default."),
    ] = None,
    labels: _Labels = None,
    latent_dim: Annotated[
        Any, typer.Option(parser=_latent_dim, metavar="auto|N", help="Numbers in a code.")
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="normal, laplace, poisson ...; inferred by default."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="linear, mlp, conv1d, conv2d or resnet; chosen by default."),
    ] = None,
    hidden: Annotated[
        Any, typer.Option(parser=_hidden, metavar="N,N", help="Widths of the layers, such as 512,256.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    max_time: Annotated[
        Any, typer.Option(parser=_duration, metavar="TIME", help="Stop after 90 (seconds), 30m or 2h.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Items a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, metavar="RATE", help="Of Adam.")] = None,
    noise: Annotated[
        Any,
        typer.Option(
            parser=_noise,
            metavar="NAME|SD",
            help="global, feature or item, or a fixed standard deviation in the data's units.",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the recipe, or any of the estimator: patience, clip, schedule, scale ... "
            "VALUE is JSON, True, False, None or a word. May be repeated.",
        ),
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="auto, float32 or bf16.")] = None,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu or cuda.")] = None,
    seed: _Seed = None,
    size: _Size = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of texts: tfidf (the default), bytes, sentence-transformers/NAME."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KIND",
            help="What a column of a table holds: continuous, binary, categorical, count, or a likelihood. "
            "May be repeated.",
        ),
    ] = None,
    memory: _Memory = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that RUN holds.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the unfinished run that RUN holds; if there is none, begin."
        ),
    ] = False,
    origin: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="Fit as this run was fitted, but for what is given here."),
    ] = None,
    remedy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --from: what its health report says to try."),
    ] = None,
    no_audit: Annotated[bool, typer.Option("--no-audit", help="Write no health report at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Train on DATA, save the run to a folder, and check its health."""
    from chartae.models.persistence import is_unfinished, refuse_occupied

    refuse_occupied(out, overwrite=overwrite, resume=resume, how=("--overwrite", "--resume"))
    from chartae.estimators.parameters import COMMON
    from chartae.models.recipes import find

    before = _origin(origin, remedy)
    if data is None:
        if before is None:
            raise DataError("DATA is missing: name a file or a folder, digits, or a run with --from RUN")
        words = before.source
        data, labels = words["data"], labels or words.get("labels")
        size, encoder, memory = (
            size or words.get("size"),
            encoder or words.get("encoder"),
            memory or words.get("memory"),
        )
    entry = find(recipe or (before.recipe if before else "vae"))
    asked = {
        "latent_dim": latent_dim,
        "likelihood": likelihood,
        "network": network,
        "hidden": hidden,
        "max_epochs": epochs,
        "max_time": max_time,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "noise": noise,
        "precision": precision,
        "device": device,
        "random_state": seed,
    }
    own, given = _sorted_out(param or [], entry.parameters, COMMON, asked)
    if column:
        given["columns"] = dict(_kind_of(pair) for pair in column)
    items = _to_fit(entry, data, labels, size, encoder, memory, quiet=quiet)
    if before is not None:
        if before.is_trained and (own or given.keys() - {"random_state"}):
            raise PlanError(f"{remedy} trains nothing anew: leave the options of training out")
        own, given = before.own(entry.name) | own, before.parameters | given
    estimator = chartae.Autoencoder(
        recipe=entry.name, recipe_params=own or None, **{"verbose": 0 if quiet else 1, **given}
    )
    goes_on = f"{out} holds what was learned so far: the same command with --resume goes on"
    try:
        if before is not None and before.is_trained:
            estimator = before.trained
        else:
            estimator.fit(items, run=out, resume=resume, overwrite=overwrite)
        density = None if before is None else before.density(entry.name)
        if before is not None and density and not is_unfinished(out):
            # A density of codes is of the model that made them: it has to be fitted again.
            estimator.fit_prior(density, random_state=given["random_state"])
            estimator.save(out, overwrite=overwrite or not before.is_trained)
    except (KeyboardInterrupt, SystemExit):
        if "model_" in vars(estimator):
            _remove_stale(out)
            typer.echo(goes_on if is_unfinished(out) else f"{out} holds the finished run", err=True)
        raise
    except ValueError as error:
        message = _as_options(str(error), {*entry.parameters, *COMMON})
        if "model_" not in vars(estimator):
            raise PlanError(message) from error
        kept = estimator.save(Path(tempfile.mkdtemp(prefix="chartae-")) / (out.name or "run"))
        raise RunFolderError(f"{message}; meanwhile the run is kept in {kept}") from None
    _remove_stale(out)
    _picture_run(estimator, items, out)
    if is_unfinished(out):
        typer.echo(goes_on, err=True)
    from chartae.apps.health import write_source

    write_source(out, data=data, labels=labels, size=size, encoder=encoder, memory=memory)
    if not no_audit and not is_unfinished(out) and not estimator.model_.likelihood.sequential:
        _audit_fit(estimator, items, out, before, quiet=quiet)
    if not quiet:
        read = [
            data,
            *(["--labels", labels] if labels else []),
            *(["--size", "x".join(map(str, size))] if size else []),
            *(["--memory", memory] if memory else []),
        ]
        _say_what_next(estimator, shlex.join(read), out)


@app.command("audit", epilog="Example: chartae audit runs/digits --fail-on fail")
def _audit(
    run: _Run,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Items that the run has not seen; by default those that its fit held out of its own data.",
        ),
    ] = None,
    labels: _Labels = None,
    size: _Size = None,
    memory: _Memory = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="This check alone. May be repeated.")
    ] = None,
    budget: Annotated[str, typer.Option(metavar="fast|full", help="How much to look at.")] = "fast",
    fail_on: Annotated[
        str,
        typer.Option(metavar="VERDICT", help="Leave with code 1 at this verdict or a worse: fail or warn."),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .html, .json or .txt; by default report.html and .json in RUN."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of every choice and draw.")] = 0,
) -> None:
    """Check whether a learned latent space can be trusted, and say what to change."""
    from chartae.apps.health import REPORT, audited, source_of
    from chartae.audits.findings import VERDICTS

    if fail_on not in ("", "fail", "warn"):
        raise PlanError(f"--fail-on {fail_on}: use fail or warn")
    estimator = _open(run, encoder=True)
    words = {"data": data, "labels": labels, "size": size, "memory": memory}
    if data is None:
        kept = source_of(run)
        words = {name: words[name] or kept.get(name) for name in words}
    items = _read_for(estimator, words["data"], words["labels"], words["size"], words["memory"])
    report = audited(
        estimator,
        _features(items, estimator),
        items.y,
        held_out=estimator.validation_rows_ if data is None else None,
        budget=budget,
        only=only or None,
        seed=seed,
    )
    typer.echo(str(report))
    for target in [out] if out else [run / name for name in REPORT] if not only else []:
        typer.echo(f"written   {report.save(target)}")
    bad = VERDICTS[: 1 + VERDICTS.index(fail_on)] if fail_on else ()
    if report.verdict in bad:
        raise typer.Exit(1)


@app.command("sample", epilog="Example: chartae sample runs/digits --n 100 --out new.png")
def _sample(
    run: _Run,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=1, metavar="N", help="How many items; by default 64, or one .wav."),
    ] = None,
    condition: _Condition = None,
    guidance: _Guidance = None,
    out: _Out = None,
    seed: _Seed = None,
) -> None:
    """Draw new items."""
    estimator = _open(run)
    target = _target(out, run, "samples", estimator)
    n = n or (1 if target.suffix == ".wav" else 64)
    _refuse_several(target, n)
    asked = _asked(estimator, condition)
    X = estimator.sample(n, condition=asked, guidance=guidance, random_state=seed)
    _write(target, X, estimator)


@app.command("encode", epilog="Example: chartae encode runs/digits digits --out codes.npy")
def _encode(
    run: _Run,
    data: _Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .npy for the codes.", show_default=False)],
    std: Annotated[
        bool, typer.Option("--std", help="Their standard deviations too, to FILE with _std before .npy.")
    ] = False,
    labels: _Labels = None,
    size: _Size = None,
    memory: _Memory = None,
) -> None:
    """Write the code of every item. It is the posterior mean, of shape (n, latent_dim)."""
    if out.suffix != ".npy":
        raise DataError(f"codes are arrays, and {out} does not end in .npy: name it so")
    estimator = _open(run, encoder=True)
    items = _read_for(estimator, data, labels, size, memory)
    codes = estimator.transform(
        _features(items, estimator), condition=_condition(estimator, items), return_std=std
    )
    if std:
        codes, spread = codes
        _write(out.with_name(f"{out.stem}_std.npy"), spread, estimator)
    _write(out, codes, estimator)


@app.command("decode", epilog="Example: chartae decode runs/digits codes.npy --out decoded.npy")
def _decode(
    run: _Run,
    codes: Annotated[
        str, typer.Argument(metavar="CODES", help="A .npy of shape (n, latent_dim).", show_default=False)
    ],
    condition: _Condition = None,
    guidance: _Guidance = None,
    out: _Out = None,
) -> None:
    """Turn codes into items."""
    estimator = _open(run)
    target = _target(out, run, "decoded", estimator)
    Z = _shown(_read(codes, None, None).X, target)
    _refuse_several(target, len(Z))
    X = estimator.inverse_transform(Z, condition=_asked(estimator, condition), guidance=guidance)
    _write(target, X, estimator)


@app.command("reconstruct", epilog="Example: chartae reconstruct runs/digits digits --out reconstructed.npy")
def _reconstruct(
    run: _Run,
    data: _Data,
    out: _Out = None,
    labels: _Labels = None,
    size: _Size = None,
    memory: _Memory = None,
) -> None:
    """Encode and decode items. What is missing is filled in; a picture shows the originals above."""
    from dataclasses import replace

    from chartae.core.images import pairs

    estimator = _open(run, encoder=True)
    target = _target(out, run, "reconstructions", estimator)
    items = _read_for(estimator, data, labels, size, memory)
    if target.suffix != ".png" and _is_streamed(items.X):
        raise DataError(
            f"reconstructions are as large as the data, and {items.name} is larger than the memory: allow "
            "more with --memory, or give some rows of it"
        )
    if target.suffix == ".png":
        y = None if items.y is None else items.y[:_SHOWN]
        items = replace(items, X=_shown(items.X, target), y=y)
    _refuse_several(target, len(items.X))
    X = estimator.reconstruct(_features(items, estimator), condition=_condition(estimator, items))
    if target.suffix != ".png":
        _write(target, X, estimator)
    else:
        columns = min(len(X), _COLUMNS)
        _write(target, pairs(items.X, X, columns), estimator, columns)


@app.command("recipes", epilog="Example: chartae fit digits --recipe beta-vae --param beta=8 --out runs/beta")
def _recipes() -> None:
    """List the recipes."""
    table = _table("recipe", "what it is", "parts", "paper")
    table.columns[0].no_wrap = True  # a name is to be copied
    for r in chartae.recipes():
        table.add_row(r.name, r.summary, r.parts, r.paper)
    _print(table)


@app.command("info", epilog="Example: chartae info runs/digits")
def _info(run: _Run) -> None:
    """Say what a run folder holds."""
    estimator = _open(run)
    table = _table("", "")
    table.show_header = False
    for name, value in _facts(estimator, run).items():
        table.add_row(name, value)
    _print(table)


# --------------------------------------------------------------------------------------- what they share


def _open(run: Path, *, encoder: bool = False) -> Any:
    """Open a run folder, or an exported decoder where that will do."""
    from chartae.models.persistence import config_of

    if (config_of(run) or {}).get("content") != "decoder":
        return chartae.load(run)
    if encoder:
        raise RunFolderError(f"{run} holds a decoder alone: name the run folder that it was exported from")
    return chartae.load_decoder(run)


def _read(
    data: str,
    labels: str | None,
    size: tuple[int, int] | None,
    encoder: Any = None,
    memory: str | None = None,
) -> Dataset:
    from chartae.training.readers import read

    return read(data, labels=labels, size=size, encoder=encoder, memory=memory)


def _to_fit(recipe: Any, data: str, labels: str | None, *how: Any, quiet: bool) -> Dataset:
    """Read what a recipe is fitted to, and say what was found."""
    items = _read(data, labels, *how)
    if recipe.conditional and items.y is None:
        raise DataError(f"recipe {recipe.name!r} needs labels, and {items.name} brings none: pass --labels")
    if not quiet:
        typer.echo(f"data      {items.summary}")
    return items


def _read_for(
    estimator: Any, data: str, labels: str | None, size: tuple[int, int] | None, memory: str | None
) -> Dataset:
    """Read further data as those of the fit were read: the same encoder, the same size and kind of pixels."""
    from dataclasses import replace

    import numpy as np

    from chartae.training.readers import is_encoded

    space = estimator.space_
    images = Path(data).is_dir() and space.is_image and not is_encoded(data)
    if images and size is None:
        size = space.model_shape[1:]
    items = _read(data, labels, size, estimator.medium_ if is_encoded(data) else None, memory)
    if images and items.X.ndim == 3 and space.shape == (*items.X.shape[1:], 3):
        items = replace(items, X=np.repeat(items.X[..., None], 3, -1))  # gray images as color
    return items


def _features(items: Dataset, estimator: Any) -> Any:
    """Give an array the names of the columns that a model was fitted on."""
    from chartae.core.columns import is_frame, is_streamed_table

    columns = list(getattr(estimator, "feature_names_in_", []))
    if is_frame(items.X) and estimator.space_.schema is None:
        return items.X.to_numpy()
    if is_frame(items.X) or is_streamed_table(items.X):
        # By their names, wherever they stand, and without what else is there, such as labels.
        absent = next((name for name in columns if name not in items.X.columns), None)
        if absent is not None:
            raise DataError(f"{items.name} has no column {absent!r}: {suggest(absent, items.X.columns)}")
        return items.X[columns] if is_frame(items.X) else items.X.select(columns)
    if not columns or _is_streamed(items.X):
        return items.X
    if items.X.ndim != 2 or items.X.shape[1] != len(columns):
        raise DataError(
            f"{items.name} has items of shape {items.X.shape[1:]}, and {len(columns)} columns are needed"
        )
    import pandas as pd

    return pd.DataFrame(items.X, columns=columns, copy=False)


def _is_streamed(X: Any) -> bool:
    from chartae.core.arrays import is_streamed
    from chartae.core.columns import is_streamed_table

    return is_streamed(X) or is_streamed_table(X)


def _condition(estimator: Any, items: Dataset) -> Any:
    """Give a conditional run the labels that come with the data."""
    if estimator.condition_.parameters is None:
        return None
    if items.y is None:
        typer.echo(f"{items.name} brings no labels (--labels): taken without a condition")
    return items.y


def _asked(estimator: Any, condition: str | None) -> Any:
    """Read a condition from the command line as the run knows it: "9" may be a number or a text."""
    if condition is None:
        return None
    classes = estimator.condition_.classes
    for known in [] if classes is None else classes.tolist():
        if condition == str(known):
            return known
    if not condition.endswith(".npy"):
        text = classes is not None and classes.dtype.kind == "U"
        return condition if text else _value(condition)
    from chartae.training.readers import read_array

    return read_array(condition)


def _target(out: Path | None, run: Path, name: str, estimator: Any) -> Path:
    """Decide where a result goes, before the work is done."""
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
    if target.suffix == ".wav":
        raise DataError(f"the model was not fitted on sounds, and {target} is one: name it .npy")
    if target.suffix in (".csv", ".parquet") and space.schema is None:
        raise DataError(f"the model was fitted on arrays, and {target} is a table: name it .npy")
    if target.suffix == ".npy" and (words := _words(space)):
        raise DataError(f"column {words!r} is no number, and {target} holds numbers alone: name it .csv")
    if target.suffix not in (".npy", ".png", ".csv", ".parquet"):
        others = ".png (images), .csv and .parquet (tables), .wav (a sound)"
        raise DataError(f"{target} ends in none of .npy (arrays), {others}")
    if target.suffix == ".png" and not is_picture(space):
        raise DataError(f"items of shape {space.shape} are no images: name {target} .npy")
    return target


def _words(space: Any) -> str | None:
    """Name the first column of a table that an array of numbers cannot hold."""
    if space.schema is None:
        return None
    return space.schema.wordy or next((c.name for c in space.schema.columns if c.clock), None)


def _refuse_several(target: Path, n: int) -> None:
    if target.suffix == ".wav" and n != 1:
        raise DataError(f"{target} is one sound, and there are {n:,}: name a new folder, as in {target.stem}")


def _shown(X: Any, target: Path) -> Any:
    """Keep what a picture has room for."""
    if target.suffix == ".png" and len(X) > _SHOWN:
        typer.echo(f"showing the first {_SHOWN} of {len(X):,} items; --out FILE.npy takes all")
        return X[:_SHOWN]
    return X


def _write(target: Path, X: Any, estimator: Any, columns: int | None = None) -> None:
    import numpy as np

    from chartae.core.columns import as_pandas, is_frame
    from chartae.core.files import atomic
    from chartae.core.images import save_grid

    if target.suffix == ".png":
        save_grid(target, X, columns, **_look(estimator))
        typer.echo(f"{target}")
        return
    if target.suffix == ".txt":
        # One a line, whatever a text may hold.
        target.write_text("".join(f"{' '.join(text.splitlines())}\n" for text in X), encoding="utf-8")
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


def _look(estimator: Any) -> dict[str, Any]:
    from chartae.core.images import look_of

    return look_of(estimator.space_, estimator.medium_)


def _picture_run(estimator: Any, items: Dataset, out: Path) -> None:
    """Put samples and reconstructions of images into a fresh run folder."""
    from chartae.core.images import is_picture, pairs, save_grid

    if not is_picture(estimator.space_):
        return
    X, condition = items.X[:_SHOWN], _condition(estimator, items)
    condition = None if condition is None else condition[: len(X)]
    samples = estimator.sample(len(X), condition=condition, random_state=0)
    save_grid(out / _PICTURES[0], samples, **_look(estimator))
    columns = min(len(X), _COLUMNS)
    both = pairs(X, estimator.project(X, condition=condition), columns)
    save_grid(out / _PICTURES[1], both, columns, **_look(estimator))


def _origin(run: Path | None, remedy: str | None) -> Origin | None:
    if run is None and remedy is not None:
        raise PlanError("--remedy is of a health report: name its run with --from RUN")
    if run is None:
        return None
    from chartae.apps.health import Origin

    return Origin(run, remedy)


def _audit_fit(estimator: Any, items: Dataset, out: Path, before: Origin | None, *, quiet: bool) -> None:
    """Write the health report of a fresh run, and say what it found."""
    from chartae.apps.health import REPORT, audited, compared

    try:
        report = audited(estimator, _features(items, estimator), items.y, held_out=estimator.validation_rows_)
    except DataError as error:
        if not quiet:
            typer.echo(f"health    no report: {error}")
        return
    for name in REPORT:
        report.save(out / name)
    if quiet:
        return
    if before is not None and before.report is not None:
        table = _table("check", "before", "after")
        for row in compared(before.report, report.to_dict()):
            table.add_row(*row)
        _print(table)
    typer.echo(f"health    {report.summary}")
    for finding in report.findings:
        if finding.verdict == "fail":
            cures = [f" Try --remedy {cure.name}: {cure.says}." for cure in finding.remedies[:1]]
            typer.echo(f"          {finding.name}: {finding.says}{''.join(cures)}")


def _remove_stale(out: Path) -> None:
    """Take away the pictures and reports of the run that this one has replaced."""
    from chartae.apps.health import REPORT, SOURCE

    for stale in (*_PICTURES, *REPORT, SOURCE):
        (out / stale).unlink(missing_ok=True)


def _say_what_next(estimator: Any, data: str, out: Path) -> None:
    run, files = shlex.quote(str(out)), ", ".join(sorted(p.name for p in out.iterdir()))
    typer.echo(f"trained   {_kept(estimator)}")
    typer.echo(f"model     {_model(estimator)}")
    typer.echo(f"results   {out} ({files})")
    typer.echo(f"next      chartae audit {run}")
    typer.echo(f"          chartae sample {run} --n 64")
    typer.echo(f"          chartae encode {run} {data} --out codes.npy")
    typer.echo(f"          chartae info {run}")


def _kept(estimator: Any) -> str:
    """Describe the epoch whose weights the model has."""
    from chartae.estimators.progress import describe

    if not estimator.history_:
        return "the first steps; no epoch is complete"
    row = estimator.history_[estimator.best_epoch_ - 1]
    place = "best" if row.get("best") else "last"
    return f"epoch {estimator.best_epoch_}, the {place} of {estimator.n_iter_} epochs: {describe(row)}"


def _model(estimator: Any) -> str:
    """Name what stands behind every "auto"."""
    space = estimator.space_
    return f"{space.likelihood} likelihood, {estimator.network_} network, latent_dim {estimator.latent_dim_}"


def _facts(estimator: Any, run: Path) -> dict[str, str]:
    from chartae.models.persistence import is_unfinished

    unfinished = ", unfinished: the fit's command with --resume goes on" if is_unfinished(run) else ""
    return {
        "recipe": estimator.blueprint_["recipe"],
        "holds": "encoder and decoder" if hasattr(estimator, "transform") else "a decoder alone",
        "data": estimator.summary_.partition(";")[0],
        "model": _model(estimator),
        "epochs": f"{estimator.n_iter_}{unfinished}",
        "weights": f"of {_kept(estimator)}",
        "files": "\n".join(f"{p.name}  {p.stat().st_size / 1024:,.0f} KiB" for p in sorted(run.iterdir())),
    }


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False).print(table)  # a folder may be named [bold]


# Commands in modules of their own, which build on this one.
import chartae.apps.captions  # noqa: E402
import chartae.apps.heads  # noqa: E402
import chartae.apps.sweeping  # noqa: E402
