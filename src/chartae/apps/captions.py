"""The command ``caption``: texts under the codes of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chartae.apps.inputs import features_of, open_run, read_for, streamed
from chartae.apps.options import Data, MaxLength, Run, Size
from chartae.apps.outputs import refuse_own, write
from chartae.core.errors import DataError

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
        float,
        typer.Option("--test", min=0.01, max=0.99, metavar="SHARE", help="Of texts, to tell how well."),
    ] = 0.1,
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
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="At most.")] = 20,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights and of what is held out.")] = 0,
    size: Size = None,
) -> None:
    """Learn to say texts of the items that a run encodes, or, of a captioner's folder, say them."""
    import numpy as np
    from sklearn.utils import _safe_indexing

    from chartae.estimators.captions import Captioner
    from chartae.models.persistence import config_of, refuse_occupied
    from chartae.training.splits import apart
    from chartae.training.text import lines_of
    from chartae.training.tokens import Borrowed, Bytes, language_model_of

    learned = (config_of(run) or {}).get("content") == "captioner"
    if learned and texts is not None:
        raise DataError(f"{run} holds a captioner already: leave out --texts, or name the model's run")
    if not learned and texts is None:
        raise DataError(f"{run} has learned no texts: pass --texts")
    if learned and (tokens or language_model or max_length):
        options = "--tokens, --language-model and --max-length"
        raise DataError(f"{run} has learned to say texts: leave out {options}")
    if tokens and language_model:
        raise DataError("a language model has tokens of its own: leave out --tokens")
    if learned and out is not None and out.suffix != ".txt":
        raise DataError(f"captions are texts, and {out} does not end in .txt: name it so")
    if out is not None:
        refuse_own(out, data)
    if learned:
        captioner = Captioner.load(run)
        if not hasattr(captioner.encoder, "space_"):
            raise DataError(f"{run} was fitted to codes: use Captioner.load in Python")
    elif out is not None:
        refuse_occupied(out, overwrite=overwrite, how=("--overwrite", ""))
    estimator: Any = captioner.encoder if learned else open_run(run, encoder=True)
    items = read_for(estimator, data, None, size, None)
    X = features_of(items, estimator)
    if streamed(X):
        raise DataError(f"{items.name} is read in blocks, and captions need it at once: give fewer rows")
    if learned:
        said = captioner.caption(X)
        if out is None:
            typer.echo("\n".join(" ".join(text.splitlines()) for text in said))  # one line for each item
        else:
            write(out, said, captioner)
        return
    if texts.suffix != ".txt":  # type: ignore[union-attr]
        raise DataError(f"{texts} does not end in .txt: write the texts into one, a line each")
    lines = lines_of(texts)  # type: ignore[arg-type]
    if len(lines) != len(X):
        raise DataError(f"{texts} has {len(lines):,} lines and {items.name} {len(X):,} rows: write one a row")
    known, told = apart(X, held_out, seed)
    cut: Any = int(tokens) if tokens and tokens.isdecimal() else tokens or "bytes"
    medium: Any = {"tokens": cut, "max_length": Bytes.fit(lines, max_length).max_length}
    if language_model:  # whose tokens may be more, or fewer, than bytes
        opened, tokenizer = language_model_of(language_model)
        pieces = Borrowed.of(tokenizer, lines, max_length)
        medium = {"language_model": opened, "tokens": pieces, "max_length": pieces.max_length}
    captioner = Captioner(estimator, **medium, max_epochs=epochs, random_state=seed, verbose=1)
    captioner.fit(_safe_indexing(X, known), [lines[i] for i in known])
    X, lines = _safe_indexing(X, told), [lines[i] for i in told]
    said, nats = captioner.caption(X), captioner.score_samples(X, lines)
    exact = np.mean([one == other for one, other in zip(said, lines, strict=True)])
    typer.echo(f"learned   {len(known):,} texts, and told {len(told):,} others")
    typer.echo(f"exact     {exact:.3f}")
    each = -nats.sum() / sum(len(line.encode()) + 1 for line in lines)
    typer.echo(f"nats      {-nats.mean():.2f} a text, {each:.3f} a byte")
    for one, other in list(zip(said, lines, strict=True))[:5]:
        typer.echo(f"          {one!r}  (for {other!r})")
    if out is not None:
        captioner.save(out, overwrite=overwrite)
        typer.echo(f"wrote     {out}")
