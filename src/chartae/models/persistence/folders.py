"""What a folder holds, and whether a run can be put there."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from chartae.core.errors import RunFolderError
from chartae.models.persistence.files import CHECKPOINT, CONFIG, FILES, metadata

__all__ = ["config_of", "is_unfinished", "refuse_occupied"]


def config_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Tell a run folder (or an exported decoder) from any other folder, and read what it says of itself.

    Parameters
    ----------
    path : str or path-like
        Anything.

    Returns
    -------
    dict or None
        The JSON values of its configuration; None if chartae has not written this folder.

    Examples
    --------
    >>> import tempfile, torch
    >>> from chartae.models.persistence import config_of, write_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config_of(folder), config_of(write_run(folder + "/a", {"answer": 42}, {}))["answer"]
    (None, 42)
    """
    path, config = Path(path), None
    if is_unfinished(path) or all((path / name).is_file() for name in FILES):
        # Beside a checkpoint it tells, where that is damaged, that the folder is a run all the same.
        with contextlib.suppress(Exception):  # whatever a file of someone else's may hold
            config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    if is_unfinished(path):
        with contextlib.suppress(Exception):
            config = json.loads(metadata(path / CHECKPOINT)["config"])
    return config if isinstance(config, dict) and {"format", "chartae"} <= config.keys() else None


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Tell a run whose fit has not come to its end, and can go on.

    Parameters
    ----------
    path : str or path-like
        Anything.

    Returns
    -------
    bool
        Whether it is one.

    Examples
    --------
    >>> from chartae.models.persistence import is_unfinished
    >>> is_unfinished("nowhere")
    False
    """
    return (Path(path) / CHECKPOINT).is_file()


def refuse_occupied(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    resume: bool = False,
    how: tuple[str, str] = ("overwrite=True", "resume=True"),
) -> None:
    """Refuse a place where no run folder can be put.

    Parameters
    ----------
    path : str or path-like
        The folder to be.
    overwrite : bool
        Whether a run that is there may be replaced.
    resume : bool
        Whether an unfinished run that is there is to go on.
    how : tuple of str
        What the caller writes to allow the one and the other, for messages.

    Raises
    ------
    RunFolderError
        If both are asked for, it is a file, a folder of other things, a run that may not be replaced, or a
        folder that cannot be replaced as a whole.

    Examples
    --------
    >>> from chartae.models.persistence import refuse_occupied
    >>> refuse_occupied(".", overwrite=True)
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: . is the working folder, or above it, and cannot be replaced: ...
    """
    if overwrite and resume:
        raise RunFolderError(f"{how[1]} goes on with a run, and {how[0]} replaces it: leave one of them out")
    path = Path(path)
    home = Path(os.path.realpath(path))
    if home.exists() and not home.is_dir():
        raise RunFolderError(f"{path} is a file, and a run is a folder: choose another name")
    here = Path(os.path.realpath(os.curdir))
    if home == here or home in here.parents or os.path.ismount(home):
        what = "a mount point" if os.path.ismount(home) else "the working folder, or above it,"
        raise RunFolderError(f"{path} is {what} and cannot be replaced: name a folder in it, {path / 'run'}")
    config = config_of(home)
    # What is replaced is exchanged in its place; what is new is moved into the folder above.
    places = home.parents if config is None else (home,)
    above = next(folder for folder in places if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise RunFolderError(f"{path} cannot be made, {above} is no folder to write in: choose another place")
    if home.is_dir() and any(home.iterdir()):
        if config is None:
            raise RunFolderError(f"{path} is not empty and holds no run to overwrite: choose another folder")
        if resume and not is_unfinished(home):
            raise RunFolderError(
                f"{path} holds a finished run: leave {how[1]} out, and choose another folder"
            )
        if is_unfinished(home) and not (overwrite or resume):
            raise RunFolderError(f"{path} holds an unfinished run: go on with {how[1]}, or pass {how[0]}")
        if not (overwrite or resume):
            raise RunFolderError(f"{path} holds a run already: choose another folder, or pass {how[0]}")
