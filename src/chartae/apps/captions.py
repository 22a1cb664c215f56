"""The command ``caption``: texts under the codes of a run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chartae.apps.inputs import features_of, open_run, read_for, streamed
from chartae.apps.options import Data, MaxLength, Run, Size
from chartae.apps.outputs import write
from chartae.core.errors import DataError, enumerated

if TYPE_CHECKING:
    from chartae.estimators.captions import Captioner

__all__: list[str] = []


def caption(
    run: Run,
    data: Data,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .txt of one text a row, to learn from; RUN is then a model."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PLACE", help="A folder for what was learned, or a .txt for what is said."),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--test", min=0.01, max=0.99, metavar="SHARE", help="Of texts, to tell how well; 0.1 by default."
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="What texts are cut into: bytes, bpe, or a number of pieces."),
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name or folder of one of transformers, to say texts; it is frozen."
        ),
    ] = None,
    max_length: MaxLength = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most; 20 by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of weights and of what is held out; 0 by default.")
    ] = None,
    size: Size = None,
) -> None:
    """Learn to say texts of the items that a run encodes, or, of a captioner's folder, say them."""
    from chartae.estimators.captions import Captioner
    from chartae.models.persistence import config_of, refuse_occupied

    learned = (config_of(run) or {}).get("content") == "captioner"
    if learned and texts is not None:
        raise DataError(f"{run} holds a captioner already: leave out --texts, or name the model's run")
    if not learned and texts is None:
        raise DataError(f"{run} has learned no texts: pass --texts")
    if learned:
        _refuse_learning(
            run,
            {
                "--tokens": tokens,
                "--language-model": language_model,
                "--max-length": max_length,
                "--epochs": epochs,
                "--test": held_out,
                "--seed": seed,
            },
        )
    if tokens and language_model:
        raise DataError("a language model has tokens of its own: leave out --tokens")
    if learned and out is not None and out.suffix != ".txt":
        raise DataError(f"captions are texts, and {out} does not end in .txt: name it so")
    if learned:
        captioner = Captioner.load(run)
        if not hasattr(captioner.encoder, "space_"):
            raise DataError(f"{run} was fitted to codes: use Captioner.load in Python")
    elif out is not None:
        if out.resolve() == Path(run).resolve():
            raise DataError(f"{out} holds the model, and would be replaced: choose another place")
        refuse_occupied(out, overwrite=overwrite, how=("--overwrite", ""))
    estimator: Any = captioner.encoder if learned else open_run(run, encoder=True)
    items = read_for(estimator, data, None, size, None)
    X = features_of(items, estimator)
    if streamed(X):
        raise DataError(f"{items.name} is read in blocks, and captions need it at once: give fewer rows")
    if texts is None:
        _say(captioner, X, out)
        return
    lines = _one_a_row(texts, len(X), items.name)
    spoken = _language(tokens, language_model, lines, max_length)
    seed = seed or 0
    captioner = Captioner(estimator, **spoken, max_epochs=epochs or 20, random_state=seed, verbose=1)
    _learn(captioner, X, lines, held_out or 0.1, seed)
    if out is not None:
        captioner.save(out, overwrite=overwrite)
        typer.echo(f"wrote     {out}")


def _refuse_learning(run: Path, options: dict[str, Any]) -> None:
    """Name the options that a captioner has no use for which has learned."""
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise DataError(f"{run} has learned to say texts: leave out {enumerated(given)}")


def _say(captioner: Captioner, X: Any, out: Path | None) -> None:
    said = captioner.caption(X)
    if out is None:
        typer.echo("\n".join(" ".join(text.splitlines()) for text in said))  # one line for each item
    else:
        write(out, said, captioner)


def _one_a_row(texts: Path, rows: int, name: str) -> list[str]:
    from chartae.training.text import lines_of

    if texts.suffix != ".txt":
        raise DataError(f"{texts} does not end in .txt: write the texts into one, a line each")
    lines = lines_of(texts)
    if len(lines) != rows:
        raise DataError(f"{texts} has {len(lines):,} lines and {name} {rows:,} rows: write one a row")
    empty = next((i for i, line in enumerate(lines, 1) if not line), None)
    if empty is not None:
        raise DataError(f"line {empty} of {texts} is empty: write one a row, or leave that row out")
    return lines


def _language(
    tokens: str | None, language_model: str | None, lines: list[str], most: int | None
) -> dict[str, Any]:
    """What says texts, of which tokens, and how many at most."""
    from chartae.training.tokens import Borrowed, Bytes, language_model_of

    if language_model:  # whose tokens may be more, or fewer, than bytes
        opened, tokenizer = language_model_of(language_model)
        pieces = Borrowed.of(tokenizer, lines, most)
        return {"language_model": opened, "tokens": pieces, "max_length": pieces.max_length}
    cut = int(tokens) if tokens and tokens.isdecimal() else tokens or "bytes"
    return {"tokens": cut, "max_length": Bytes.fit(lines, most).max_length}


def _learn(captioner: Captioner, X: Any, lines: list[str], share: float, seed: int) -> None:
    """Learn most texts, and tell how well the others are said."""
    import numpy as np
    from sklearn.utils import _safe_indexing

    from chartae.training.splits import apart

    known, told = apart(X, share, seed)
    captioner.fit(_safe_indexing(X, known), [lines[i] for i in known])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that texts are cut, which has been said of all
        lines = captioner.medium_.decode(captioner.medium_.encode([lines[i] for i in told]))
    X = _safe_indexing(X, told)
    said, nats = captioner.caption(X), captioner.score_samples(X, lines)
    exact = np.mean([one == other for one, other in zip(said, lines, strict=True)])
    typer.echo(f"learned   {len(known):,} texts, and told {len(told):,} others")
    typer.echo(f"exact     {exact:.3f}")
    each = -nats.sum() / sum(len(line.encode()) + 1 for line in lines)
    typer.echo(f"nats      {-nats.mean():.2f} a text, {each:.3f} a byte")
    for one, other in list(zip(said, lines, strict=True))[:5]:
        typer.echo(f"          {one!r}  (for {other!r})")
