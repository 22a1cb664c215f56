"""The command ``fit``: from data to a run folder and its health."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import chartae
from chartae.apps.inputs import condition_of, features_of, to_fit
from chartae.apps.options import (
    DATA,
    BatchSize,
    ColumnKinds,
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
    Seed,
    Size,
    as_options,
    duration_of,
    kind_of,
    latent_dim_of,
    noise_of,
    own_of,
    shortened,
    sorted_out,
)
from chartae.apps.outputs import COLUMNS, SHOWN, look, model_of, print_table, titled, weights_of
from chartae.core.errors import DataError, PlanError, RunFolderError

if TYPE_CHECKING:
    from chartae.apps.health import Origin
    from chartae.audits import Remedy
    from chartae.training.readers import Dataset

__all__: list[str] = []


def fit(
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the results.", show_default=False)],
    data: Annotated[str | None, DATA] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One of those that chartae recipes lists; vae by default."),
    ] = None,
    labels: Labels = None,
    latent_dim: Annotated[
        Any, typer.Option(parser=latent_dim_of, metavar="auto|N", help="Numbers in a code.")
    ] = None,
    likelihood: Likelihood = None,
    network: Network = None,
    hidden: Hidden = None,
    epochs: Epochs = None,
    max_time: Annotated[
        Any, typer.Option(parser=duration_of, metavar="TIME", help="Stop after 90 (seconds), 30m or 2h.")
    ] = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    noise: Annotated[
        Any,
        typer.Option(
            parser=noise_of,
            metavar="NAME|SD",
            help="global, feature or item, or a fixed standard deviation in the data's units.",
        ),
    ] = None,
    param: Param = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="auto, float32 or bf16.")] = None,
    device: Device = None,
    seed: Seed = None,
    size: Size = None,
    encoder: Encoder = None,
    max_length: MaxLength = None,
    column: ColumnKinds = None,
    memory: Memory = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that RUN holds.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the unfinished run that RUN holds; if there is none, begin; a finished one is "
            "refused.",
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
    quiet: Quiet = False,
) -> None:
    """Train on DATA, save the run to a folder, and check its health."""
    from chartae.models.persistence import is_unfinished, read_checkpoint, refuse_occupied

    refuse_occupied(out, overwrite=overwrite, resume=resume, how=("--overwrite", "--resume"))
    from chartae.estimators.parameters import COMMON
    from chartae.models.recipes import find

    before = _origin(origin, remedy)
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
    own, given = sorted_out(param or [], own_of(entry), COMMON, asked)
    if column:
        known = (before.parameters.get("columns") if before else None) or {}
        given["columns"] = known | dict(kind_of(pair) for pair in column)
    words = {"data": data, "labels": labels, "size": size, "encoder": encoder, "memory": memory}
    if before is not None:
        elsewhere = any(words[name] for name in words if name != "memory")
        if before.is_trained and (elsewhere or own or given.keys() - {"random_state"}):
            raise PlanError(
                f"{remedy} trains nothing anew, on no other data: leave DATA and the options of training out"
            )
        own, given = before.own(entry.name) | own, before.parameters | given
        if data is None:
            source = before.source
            words = {name: word or source.get(name) for name, word in words.items()}
    if words["data"] is None:
        raise DataError("DATA is missing: name a file or a folder, digits, or a run with --from RUN")
    words["encoder"] = shortened(words["encoder"], max_length)
    if resume and words["memory"] is None and is_unfinished(out):
        # A stream shuffles by it, and what is free at the moment is another number.
        begun = read_checkpoint(out)[1].get("memory")
        words["memory"] = None if begun is None else f"{begun}"
    items = to_fit(entry, words, quiet=quiet)
    trained = before.trained if before is not None and before.is_trained else None
    estimator = trained or chartae.Autoencoder(
        recipe=entry.name, recipe_params=own or None, **{"verbose": 0 if quiet else 1, **given}
    )
    from chartae.apps.health import write_source

    with _kept(estimator, out, items, words, own_of(entry)):
        if trained is None:
            estimator.fit(items, run=out, resume=resume, overwrite=overwrite)
        density = None if before is None else before.density(entry.name)
        if density and not is_unfinished(out):
            # A density of codes is of the model that made them: it has to be fitted again.
            estimator.fit_prior(density, random_state=given["random_state"])
            estimator.save(out, overwrite=overwrite or trained is None)
    _picture_run(estimator, items, out)
    if is_unfinished(out):
        typer.echo(_goes_on(out), err=True)
    write_source(out, items, **words)
    judged = len(estimator.validation_rows_) > 0
    if not no_audit and not is_unfinished(out) and not estimator.model_.likelihood.sequential:
        judged = _audit_fit(estimator, items, out, before, quiet=quiet)
    if not quiet:
        _say_what_next(estimator, _typed(words), out, judged=judged)


def _origin(run: Path | None, remedy: str | None) -> Origin | None:
    if run is None and remedy is not None:
        raise PlanError("--remedy is of a health report: name its run with --from RUN")
    if run is None:
        return None
    from chartae.apps.health import Origin

    return Origin(run, remedy)


@contextmanager
def _kept(
    estimator: Any, out: Path, items: Dataset, words: dict[str, Any], own: Collection[str]
) -> Iterator[None]:
    """Keep what was learned, whatever ends training."""
    from chartae.apps.health import write_source
    from chartae.models.persistence import is_unfinished

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if "model_" in vars(estimator):
            write_source(out, items, **words)
            typer.echo(_goes_on(out) if is_unfinished(out) else f"{out} holds the finished run", err=True)
        raise
    except ValueError as error:
        message = as_options(str(error), own)
        if "model_" not in vars(estimator):
            raise PlanError(message) from error
        kept = estimator.save(Path(tempfile.mkdtemp(prefix="chartae-")) / (out.name or "run"))
        raise RunFolderError(f"{message}; meanwhile the run is kept in {kept}") from None


def _goes_on(out: Path) -> str:
    return f"{out} holds what was learned so far: the same command with --resume goes on"


def _picture_run(estimator: Any, items: Dataset, out: Path) -> None:
    """Put samples and reconstructions of images into a fresh run folder."""
    from chartae.core.images import is_picture, pairs, save_grid
    from chartae.models.persistence.files import PICTURES

    if not is_picture(estimator.space_):
        return
    X, condition = items.X[:SHOWN], condition_of(estimator, items)
    condition = None if condition is None else condition[: len(X)]
    samples = estimator.sample(len(X), condition=condition, random_state=0)
    save_grid(out / PICTURES[0], samples, **look(estimator))
    columns = min(len(X), COLUMNS)
    both = pairs(X, estimator.project(X, condition=condition), columns)
    save_grid(out / PICTURES[1], both, columns, **look(estimator))


def _audit_fit(estimator: Any, items: Dataset, out: Path, before: Origin | None, *, quiet: bool) -> bool:
    """Write the health report of a fresh run, say what it found, and whether there are rows to judge by."""
    from chartae.apps.health import audited, compared
    from chartae.models.persistence.files import REPORT

    try:
        report = audited(
            estimator, features_of(items, estimator), items.y, held_out=estimator.validation_rows_
        )
    except DataError as error:
        if not quiet:
            typer.echo(f"health    no report: {error}")
        return False
    for name in REPORT:
        report.save(out / name)
    if quiet:
        return True
    if before is not None and before.report is not None:
        table = titled("check", "before", "after")
        for row in compared(before.report, report.to_dict()):
            table.add_row(*row)
        print_table(table)
    typer.echo(f"health    {report.summary}")
    for finding in report.findings:
        if finding.verdict == "fail":
            cures = [f" Try {_cure(remedy)}." for remedy in finding.remedies[:1]]
            typer.echo(f"          {finding.name}: {finding.says}{''.join(cures)}")
    return True


def _cure(remedy: Remedy) -> str:
    """Name a remedy's option, where it is of a fit, and say what it does."""
    return f"--remedy {remedy.name}: {remedy.says}" if remedy.changes else f"this: {remedy.says}"


def _typed(words: dict[str, Any]) -> str:
    """Write down how the data are read again; a run knows its encoder."""
    size = words["size"] and "x".join(map(str, words["size"]))
    options = {"--labels": words["labels"], "--size": size, "--memory": words["memory"]}
    given = [part for option, value in options.items() if value for part in (option, value)]
    return shlex.join([words["data"], *given])


def _say_what_next(estimator: Any, data: str, out: Path, *, judged: bool) -> None:
    run, files = shlex.quote(str(out)), ", ".join(sorted(p.name for p in out.iterdir()))
    typer.echo(f"trained   {weights_of(estimator)}")
    typer.echo(f"model     {model_of(estimator)}")
    typer.echo(f"results   {out} ({files})")
    tokens = estimator.model_.likelihood.sequential  # which have no report
    commands = [] if tokens else [f"audit {run}{'' if judged else ' --data FILE'}"]
    commands += [f"sample {run} --n 64", f"encode {run} {data} --out codes.npy", f"info {run}"]
    for i, command in enumerate(commands):
        typer.echo(f"{'' if i else 'next':10}chartae {command}")
