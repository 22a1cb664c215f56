"""Runs are read as a whole, and what is broken is named."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.core.errors import RunFolderError, one_line
from chartae.core.trees import unpack
from chartae.models.persistence.files import (
    CHECKPOINT,
    CONFIG,
    FILES,
    FORMAT,
    HISTORY,
    WEIGHTS,
    epochs,
    load,
    sums_of,
)
from chartae.models.persistence.folders import is_unfinished

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_checkpoint", "read_run"]


def read_run(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
    """Read a run folder, finished or not.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    config : dict
        JSON values.
    tensors : dict of str to Tensor
        On the CPU.
    history : list of dict
        One for each epoch.

    Raises
    ------
    RunFolderError
        If a file is missing, broken, or of a newer format.

    Examples
    --------
    >>> from chartae.models.persistence import read_run
    >>> read_run("nowhere")
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: nowhere is not a run folder: config.json is missing
    """
    path = Path(path)
    if is_unfinished(path):
        config, tree, history = read_checkpoint(path)
        return config, tree["weights"], history
    for name in FILES:
        if not (path / name).is_file():
            raise RunFolderError(f"{path} is not a run folder: {name} is missing")
    with _read(path, CONFIG):
        config = _checked(path, (path / CONFIG).read_text(encoding="utf-8"))
    with _read(path, HISTORY):
        history = epochs((path / HISTORY).read_text(encoding="utf-8"))
    with _read(path, WEIGHTS):
        tensors, _, sums = load(path / WEIGHTS)
    for name, written, found in zip((CONFIG, HISTORY), sums, sums_of(config, history), strict=False):
        if written != found:
            raise RunFolderError(
                f"{path}: {name} is not what was written with the weights: restore it, or fit again"
            )
    return config, tensors, history


def read_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Read the checkpoint of an unfinished run.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    config : dict
        JSON values.
    tree : dict
        As :meth:`OpenRun.checkpoint` was given it, on the CPU.
    history : list of dict
        One for each epoch.

    Raises
    ------
    RunFolderError
        If it is missing, broken, or of a newer format.

    Examples
    --------
    >>> from chartae.models.persistence import read_checkpoint
    >>> read_checkpoint("nowhere")
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: nowhere holds no unfinished run: checkpoint.safetensors is missing
    """
    from torch import Tensor

    path = Path(path)
    if not is_unfinished(path):
        raise RunFolderError(f"{path} holds no unfinished run: {CHECKPOINT} is missing")
    with _read(path, CHECKPOINT):
        tensors, texts, _ = load(path / CHECKPOINT)
        config, history = _checked(path, texts["config"]), epochs(texts["history"])
        tree = unpack(tensors, texts["tree"])
        if not all(isinstance(t, Tensor) for t in tree["weights"].values()):
            raise ValueError("its weights are no tensors")
    return config, tree, history


@contextlib.contextmanager
def _read(path: Path, name: str) -> Iterator[None]:
    """Say in one line that a file is broken, whatever is found in it."""
    try:
        yield
    except RunFolderError:
        raise
    except Exception as error:
        reason = one_line(error, 300)
        raise RunFolderError(f"{path}: {name} cannot be read ({reason}): restore it, or fit again") from None


def _checked(path: Path, text: str) -> dict[str, Any]:
    config = json.loads(text)
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise RunFolderError(f"{path}: config.json does not say its format: it was not written by chartae")
    if config["format"] > FORMAT:
        raise RunFolderError(
            f"{path} was written by a newer chartae (format {config['format']}): update chartae"
        )
    return config
