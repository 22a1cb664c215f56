"""What is typed: words as values, and the options that commands share."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest

__all__: list[str] = []


def value_of(text: str) -> Any:
    """Read JSON where it is some (4, 0.5, [1, 2]), true, false and none in any case, and a word otherwise.

    Numbers with commas between them are a list, as those of --hidden are.
    """
    constants = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in constants:
        return constants[text.lower()]
    listed = [f"[{text}]"] if "," in text else []
    for json_text in (text, *listed):
        with contextlib.suppress(ValueError):
            return json.loads(json_text)
    return text


def noise_of(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def latent_dim_of(text: str) -> Any:
    if text != "auto" and not (text.isdecimal() and int(text)):
        raise typer.BadParameter(f"{text!r} is neither 'auto' nor a whole number from 1.")
    return "auto" if text == "auto" else int(text)


def hidden_of(text: str) -> Any:
    if not all(width.strip().isdecimal() and int(width) for width in text.split(",")):
        raise typer.BadParameter(f"{text!r} is not widths with commas, such as 512,256.")
    return tuple(int(width) for width in text.split(","))


def size_of(text: str) -> Any:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 28x28.")
    return int(height), int(width)


def duration_of(text: str) -> Any:
    number, unit = (text[:-1], text[-1]) if text.endswith(("s", "m", "h")) else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{text!r} is no time, such as 90 (seconds), 30m or 2h.")
    return seconds


#: Parameters that have an option of their own in ``fit``.
OPTIONS = {
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
    "max_length": "--max-length",
}


def sorted_out(
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
        (recipes if name in own else estimators)[name] = value_of(text)
    return recipes, estimators


def shortened(encoder: str | None, max_length: int | None) -> str | None:
    """Name the encoder of texts that have no more tokens than ``--max-length`` allows."""
    if max_length is None:
        return encoder
    kind = (encoder or "").partition(":")[0]
    if kind not in ("bytes", "bpe"):
        raise DataError("--max-length counts tokens, which these texts are not cut into: add --encoder bytes")
    return f"{kind}:{max_length}"


def own_of(recipe: Any) -> list[str]:
    """Name what ``--param`` knows of a recipe, beside what all estimators share."""
    from chartae.estimators.parameters import COMMON
    from chartae.models.assembly import SHARED

    return [*recipe.parameters, *sorted(SHARED - {*COMMON, "condition"})]


def kind_of(pair: str) -> tuple[str, str]:
    name, equals, kind = pair.rpartition("=")
    if not (name and equals and kind):
        raise DataError(f"--column {pair} is not NAME=KIND: write it as in --column age=count")
    return name, kind


def as_options(message: str, names: Collection[str]) -> str:
    """Name parameters as they are given here: ``scale='global'`` is ``--param scale=global``."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1] or found[2], found[3] and found[3].strip("'")
        if name not in names:
            return found[0]
        if name not in OPTIONS:
            return f"--param {name}" if value is None else f"--param {name}={value.replace(' ', '')}"
        if value == "None":
            return f"no {OPTIONS[name]}"
        return OPTIONS[name] if value is None else f"{OPTIONS[name]} {value.strip('[]').replace(', ', ',')}"

    # Neither a part of a path nor what has been put into the words of the command line already.
    value = r"'[^']*'|\[[^\]]*\]|[-+\w]+(?:\.\d[-+\w]*)?"
    pair = rf"(?<!--param )(?<![-\w/.])(\w+)=({value})(?=[\s,:;)]|\.(?:\s|$)|$)"
    return re.sub(rf"The '(\w+)' parameter of \w+|{pair}", option, message)


def as_bare_options(message: str) -> str:
    """Say what to pass as it is said here: ``condition=`` is ``--condition``."""
    return re.sub(r"(?<![-\w])(condition|guidance|labels)=(?=[\s,.:;)]|$)", r"--\1", message)


def as_column_options(message: str) -> str:
    """Say what a column holds as it is said here: ``columns={'id': 'drop'}`` is ``--column id=drop``."""

    def options(found: re.Match[str]) -> str:
        try:
            kinds = ast.literal_eval(found[1])
        except (ValueError, SyntaxError):  # a brace in a name
            return found[0]
        return " ".join(f"--column {shlex.quote(f'{name}={kind}')}" for name, kind in kinds.items())

    said = re.sub(r"columns=(\{.*?'\})", options, message)
    return re.sub(r"(?<![-\w])columns=(?=[\s,:;)]|$)", "--column", said)


DATA = typer.Argument(
    metavar="DATA",
    help="digits, or a .npy, .npz (file.npz:key), .csv, .parquet, .txt, or folder of images or sounds.",
    show_default=False,
)
Data = Annotated[str, DATA]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that fit has written.", show_default=False)]
Labels = Annotated[str | None, typer.Option(metavar="KEY", help="Array, column or .npy file of labels.")]
Size = Annotated[
    Any, typer.Option(parser=size_of, metavar="HxW", help="Resize the images of a folder, in pixels.")
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="What data may take, as in 2GB; larger files are read in blocks."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A .npy, a .png for images, a .csv or .parquet for tables, a .txt for texts, a .wav for one "
        "sound or a new folder for several; by default in RUN.",
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        metavar="LABEL",
        help="What to make, in a conditional run: a label, numbers as in [1, 2], or a .npy of a vector.",
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(metavar="W", help="How far to follow the condition: 1 as trained, 2 twice as far."),
]
Seed = Annotated[int | None, typer.Option(min=0, metavar="N", help="Same seed, same result.")]
Likelihood = Annotated[
    str | None, typer.Option(metavar="NAME", help="normal, laplace, poisson ...; inferred by default.")
]
Network = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="linear, mlp, conv1d, conv2d or resnet; chosen by default."),
]
Hidden = Annotated[
    Any, typer.Option(parser=hidden_of, metavar="N,N", help="Widths of the layers, such as 512,256.")
]
Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")]
BatchSize = Annotated[int | None, typer.Option(min=1, metavar="N", help="Items a step.")]
LearningRate = Annotated[float | None, typer.Option(metavar="RATE", help="Of Adam.")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="auto, cpu or cuda.")]
Param = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A parameter of the recipe, or any of the estimator: patience, clip, schedule, scale ... "
        "VALUE is JSON, numbers as in 8,5, True, False, None or a word. May be repeated.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Of texts: tfidf (the default), bytes, bpe, sentence-transformers/NAME."
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Tokens of the longest text, to which longer ones are cut."),
]
ColumnKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=KIND",
        help="What a column of a table holds: continuous, positive, binary, categorical, count, or a "
        "likelihood; drop leaves it out. May be repeated.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")]
