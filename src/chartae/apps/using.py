"""The commands that use a run: its health, new items, codes, and what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import chartae
from chartae.apps.inputs import (
    condition_asked,
    condition_of,
    features_of,
    open_run,
    read_data,
    read_for,
    streamed,
)
from chartae.apps.options import Condition, Data, Guidance, Labels, Memory, Out, Run, Seed, Size
from chartae.apps.outputs import (
    COLUMNS,
    SHOWN,
    model_of,
    print_table,
    refuse_own,
    refuse_several,
    shown,
    target_of,
    titled,
    weights_of,
    write,
)
from chartae.core.errors import DataError, PlanError

__all__: list[str] = []


def audit(
    run: Run,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Items that the run has not seen; by default those that its fit held out of its own data.",
        ),
    ] = None,
    labels: Labels = None,
    size: Size = None,
    memory: Memory = None,
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
    from chartae.apps.health import audited, refuse_changed, source_of
    from chartae.audits.findings import VERDICTS
    from chartae.audits.report import form_of
    from chartae.models.persistence.files import REPORT

    if fail_on not in ("", "fail", "warn"):
        raise PlanError(f"--fail-on {fail_on}: use fail or warn")
    if out is not None:
        form_of(out)  # or it would be refused after the work
    estimator = open_run(run, encoder=True)
    words = {"data": data, "labels": labels, "size": size, "memory": memory}
    if data is None:
        kept = source_of(run)
        words = {name: words[name] or kept.get(name) for name in words}
        if out is not None:
            refuse_own(out, words["data"], words["labels"])
    items = read_for(estimator, words["data"], words["labels"], words["size"], words["memory"])
    if data is None and labels is None and size is None:
        refuse_changed(kept, items)
    conditional = estimator.condition_.parameters is not None
    report = audited(
        estimator,
        features_of(items, estimator),
        condition_of(estimator, items) if conditional else items.y,
        held_out=estimator.validation_rows_ if data is None else None,
        budget=budget,
        only=only or None,
        seed=seed,
    )
    targets = [out] if out else [run / name for name in REPORT] if not only else []
    written = [report.save(target) for target in targets]
    typer.echo(str(report))
    for target in written:
        typer.echo(f"written   {target}")
    bad = VERDICTS[: 1 + VERDICTS.index(fail_on)] if fail_on else ()
    if report.verdict in bad:
        raise typer.Exit(1)


def sample(
    run: Run,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=1, metavar="N", help="How many items; by default 64, or one .wav."),
    ] = None,
    condition: Condition = None,
    guidance: Guidance = None,
    out: Out = None,
    seed: Seed = None,
) -> None:
    """Draw new items."""
    estimator = open_run(run)
    target = target_of(out, run, "samples", estimator)
    n = n or (1 if target.suffix == ".wav" else 64)
    refuse_several(target, n)
    asked = condition_asked(estimator, condition)
    X = estimator.sample(n, condition=asked, guidance=guidance, random_state=seed)
    write(target, X, estimator)


def encode(
    run: Run,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .npy for the codes.", show_default=False)],
    std: Annotated[
        bool, typer.Option("--std", help="Their standard deviations too, to FILE with _std before .npy.")
    ] = False,
    refine: Annotated[
        int,
        typer.Option(metavar="STEPS", min=0, help="Go on from each code, to a better one: 100, say."),
    ] = 0,
    labels: Labels = None,
    size: Size = None,
    memory: Memory = None,
) -> None:
    """Write the code of every item. It is the posterior mean, of shape (n, latent_dim)."""
    if out.suffix != ".npy":
        raise DataError(f"codes are arrays, and {out} does not end in .npy: name it so")
    deviations = out.with_name(f"{out.stem}_std.npy")
    if std:
        refuse_own(deviations)
    estimator = open_run(run, encoder=True)
    items = read_for(estimator, data, labels, size, memory)
    codes = estimator.transform(
        features_of(items, estimator), condition=condition_of(estimator, items), return_std=std, refine=refine
    )
    if std:
        codes, spread = codes
        write(deviations, spread, estimator)
    write(out, codes, estimator)


def decode(
    run: Run,
    codes: Annotated[
        str, typer.Argument(metavar="CODES", help="A .npy of shape (n, latent_dim).", show_default=False)
    ],
    condition: Condition = None,
    guidance: Guidance = None,
    out: Out = None,
) -> None:
    """Turn codes into items."""
    estimator = open_run(run)
    target = target_of(out, run, "decoded", estimator)
    Z = shown(read_data(codes, None, None).X, target)
    refuse_several(target, len(Z))
    X = estimator.inverse_transform(Z, condition=condition_asked(estimator, condition), guidance=guidance)
    write(target, X, estimator)


def reconstruct(
    run: Run,
    data: Data,
    out: Out = None,
    labels: Labels = None,
    size: Size = None,
    memory: Memory = None,
) -> None:
    """Encode and decode items. What is missing is filled in; a picture shows the originals above.

    Of a run that knows missing values, those that are there stay as they are.
    """
    from dataclasses import replace

    from chartae.core.images import pairs

    estimator = open_run(run, encoder=True)
    target = target_of(out, run, "reconstructions", estimator)
    items = read_for(estimator, data, labels, size, memory)
    if target.suffix != ".png" and streamed(items.X):
        raise DataError(
            f"reconstructions are as large as the data, and {items.name} is larger than the memory: allow "
            "more with --memory, or give some rows of it"
        )
    if target.suffix == ".png":
        y = None if items.y is None else items.y[:SHOWN]
        items = replace(items, X=shown(items.X, target), y=y)
    refuse_several(target, len(items.X))
    features = features_of(items, estimator)
    X = estimator.reconstruct(features, condition=condition_of(estimator, items))
    if estimator.space_.gaps:
        typer.echo(_filled(features))
    if target.suffix != ".png":
        write(target, X, estimator)
    else:
        columns = min(len(X), COLUMNS)
        write(target, pairs(items.X, X, columns), estimator, columns)


def _filled(features: Any) -> str:
    """Say what a run that knows missing values makes of items."""
    import numpy as np
    import pandas as pd

    missing = int(np.asarray(pd.isna(features)).sum())
    if missing:
        return f"{missing:,} missing value{'s' * (missing > 1)} filled in; what was there stays as it is"
    return "no value is missing, so that all stay as they are: encode, then decode, gives reconstructions"


def recipes() -> None:
    """List the recipes."""
    table = titled("recipe", "what it is, of which parts, and its paper")
    table.columns[0].no_wrap = True  # a name is to be copied
    for r in chartae.recipes():
        table.add_row(r.name, "\n".join(filter(None, (r.summary, r.parts, r.paper))))
    print_table(table)


def info(run: Run) -> None:
    """Say what a run folder holds."""
    estimator = open_run(run)
    table = titled("", "")
    table.show_header = False
    for name, value in _facts(estimator, run).items():
        table.add_row(name, value)
    print_table(table)


def _facts(estimator: Any, run: Path) -> dict[str, str]:
    from chartae.models.persistence import is_unfinished

    unfinished = ", unfinished: the fit's command with --resume goes on" if is_unfinished(run) else ""
    return {
        "recipe": estimator.blueprint_["recipe"],
        "holds": "encoder and decoder" if hasattr(estimator, "transform") else "a decoder alone",
        "data": estimator.summary_.partition(";")[0],
        "model": model_of(estimator),
        "epochs": f"{estimator.n_iter_}{unfinished}",
        "weights": f"of {weights_of(estimator)}",
        "files": "\n".join(f"{p.name}  {p.stat().st_size / 1024:,.0f} KiB" for p in sorted(run.iterdir())),
    }
