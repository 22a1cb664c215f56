"""The command ``chartae``: words in, files out, and one line where something is wrong.

Everything that takes time to import (torch, scikit-learn, pandas, even numpy) is imported inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import chartae
from chartae.apps import captions, fitting, heads, sweeping, using
from chartae.apps.options import OPTIONS, as_bare_options, as_column_options, as_options, own_of
from chartae.apps.outputs import kept_apart
from chartae.core.errors import ChartaeError

__all__ = ["app", "main"]

#: Name, what is run, and an example.
COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("fit", fitting.fit, "fit images/ --recipe cvae --epochs 50 --out runs/faces"),
    ("audit", using.audit, "audit runs/digits --fail-on fail"),
    ("sample", using.sample, "sample runs/digits --n 100 --out new.png"),
    ("encode", using.encode, "encode runs/digits digits --out codes.npy"),
    ("decode", using.decode, "decode runs/digits codes.npy --out decoded.npy"),
    ("reconstruct", using.reconstruct, "reconstruct runs/digits digits --out reconstructed.npy"),
    ("recipes", using.recipes, "fit digits --recipe beta-vae --param beta=8 --out runs/beta"),
    ("info", using.info, "info runs/digits"),
    ("caption", captions.caption, "caption runs/digits digits --texts t.txt --out runs/said"),
    ("head", heads.head, "head runs/digits digits --curve runs/curve.png"),
    ("sweep", sweeping.swept, "sweep digits --latent-dims 4,8,16 --betas 0.5,1,2 --out runs/sweep"),
)


class _Commands(TyperGroup):
    """Commands that answer an error in one line: exit code 2, and 130 after Ctrl-C."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False  # leaves errors to this method
        args = list(sys.argv[1:] if args is None else args) or ["--help"]
        for stream in (sys.stdout, sys.stderr):  # what a file in another encoding cannot hold is no error
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
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
            typer.echo(f"Error: {_said(message)}", err=True)
            code = 2
        if code == 130:
            typer.echo("Interrupted.", err=True)
        sys.exit(code or 0)


class _Command(TyperCommand):
    """A command that replaces nothing that it reads."""

    def invoke(self, ctx: Any) -> Any:
        with kept_apart(ctx.params):
            return super().invoke(ctx)


def _warn(
    message: Warning | str, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Say a warning in one line, and not where in the code it was raised."""
    fits = sys.modules.get("chartae.models.recipes")  # what has not been imported has said nothing
    own = {name for recipe in fits.recipes() for name in own_of(recipe)} if fits else ()
    typer.echo(f"Warning: {_said(str(message), own)}", err=True)


def _said(message: str, own: Collection[str] = ()) -> str:
    """Put a message into one line, in the words of the command line; ``own`` are parameters of recipes."""
    fits = sys.modules.get("chartae.estimators.parameters")
    said = as_options(" ".join(message.split()), {*fits.COMMON, *OPTIONS, *own} if fits else ())
    return as_column_options(as_bare_options(said))


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


for _name, _command, _example in COMMANDS:
    app.command(_name, cls=_Command, epilog=f"Example: chartae {_example}")(_command)


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
