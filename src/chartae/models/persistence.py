"""Run folders: config.json, model.safetensors, history.jsonl; nothing in them is ever executed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae import __version__
from chartae.core.errors import RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT", "config_of", "read_run", "refuse_occupied", "write_run"]

FORMAT = 1
CONFIG, WEIGHTS, HISTORY = FILES = ("config.json", "model.safetensors", "history.jsonl")


def config_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Tell a run folder (or an exported decoder) from any other folder, and read what it says of itself.

    Parameters
    ----------
    path : str or path-like
        Anything.

    Returns
    -------
    dict or None
        The JSON values of ``config.json``; None if chartae has not written this folder.

    Examples
    --------
    >>> import tempfile, torch
    >>> from chartae.models.persistence import config_of, write_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config_of(folder), config_of(write_run(folder + "/a", {"answer": 42}, {}))["answer"]
    (None, 42)
    """
    path = Path(path)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(config, dict) and {"format", "chartae"} <= config.keys()
    return config if ours and all((path / name).is_file() for name in FILES) else None


def refuse_occupied(path: str | os.PathLike[str], *, overwrite: bool, how: str = "overwrite=True") -> None:
    """Refuse a place where no run folder can be put.

    Parameters
    ----------
    path : str or path-like
        The folder to be.
    overwrite : bool
        Whether a run that is there may be replaced.
    how : str
        What the caller writes to allow it, for the message.

    Raises
    ------
    RunFolderError
        If it is a file, a folder of other things, a run that may not be replaced, or a folder that cannot be
        replaced as a whole.

    Examples
    --------
    >>> from chartae.models.persistence import refuse_occupied
    >>> refuse_occupied(".", overwrite=True)
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: . is the working folder, or above it, and cannot be replaced: ...
    """
    path = Path(path)
    home = Path(os.path.realpath(path))
    if home.exists() and not home.is_dir():
        raise RunFolderError(f"{path} is a file, and a run is a folder: choose another name")
    here = Path(os.path.realpath(os.curdir))
    if home == here or home in here.parents or os.path.ismount(home):
        what = "a mount point" if os.path.ismount(home) else "the working folder, or above it,"
        raise RunFolderError(f"{path} is {what} and cannot be replaced: name a folder in it, {path / 'run'}")
    above = next(folder for folder in home.parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise RunFolderError(f"{path} cannot be made, {above} is no folder to write in: choose another place")
    if home.is_dir() and any(home.iterdir()):
        if config_of(home) is None:
            raise RunFolderError(f"{path} is not empty and holds no run to overwrite: choose another folder")
        if not overwrite:
            raise RunFolderError(f"{path} holds a run already: choose another folder, or pass {how}")


def write_run(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    history: Sequence[Mapping[str, Any]] = (),
    *,
    overwrite: bool = False,
) -> Path:
    """Write a run folder, whole or not at all.

    Parameters
    ----------
    path : str or path-like
        The folder; its parents are made.
    config : Mapping
        JSON values; the format and the version of chartae are added.
    tensors : Mapping of str to Tensor
        Weights and buffers.
    history : sequence of Mapping
        One for each epoch.
    overwrite : bool
        Replace a run that is there; other files in its folder stay.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunFolderError
        If something is there that may not be replaced, or the place cannot be written.

    Examples
    --------
    >>> import tempfile, torch
    >>> from chartae.models.persistence import read_run, write_run
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = write_run(folder + "/a", {"answer": 42}, {"w": torch.ones(2)})
    ...     config, tensors, history = read_run(run)
    >>> config["answer"], tensors["w"], history
    (42, tensor([1., 1.]), [])
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    home = Path(os.path.realpath(path))  # a link to a run stays a link
    work = None
    try:
        refuse_occupied(path, overwrite=overwrite)
        home.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{home.name}.", dir=home.parent))
        new = work / "new"
        new.mkdir()
        stamp = {"format": FORMAT, "chartae": __version__}
        text = json.dumps({**stamp, **config}, indent=2, ensure_ascii=False, allow_nan=False)
        (new / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(_apart(tensors), new / WEIGHTS)
        (new / WEIGHTS).chmod((new / CONFIG).stat().st_mode)  # safetensors gives it to its owner alone
        rows = "".join(json.dumps(row) + "\n" for row in history)
        (new / HISTORY).write_text(rows, encoding="utf-8")
        if home.exists():
            _carry_over(home, new)
            home.replace(work / "old")
        new.replace(home)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunFolderError(f"cannot write {path} ({reason}): choose another place") from None
    finally:
        if work is not None:
            if not home.exists() and (work / "old").exists():
                (work / "old").replace(home)
            shutil.rmtree(work, ignore_errors=True)
    return path


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor a storage of its own, as safetensors wants it: tied weights are written twice."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return apart


def _carry_over(home: Path, new: Path) -> None:
    """Put whatever else a run folder holds into the one that takes its place."""

    def ours(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name in FILES] if Path(folder) == home else []

    def link(file: str, copy: str) -> None:
        # A second name for the same file costs nothing, and nothing is lost whatever happens meanwhile.
        try:
            os.link(file, copy)
        except OSError:  # not on every file system
            shutil.copy2(file, copy)

    shutil.copytree(home, new, symlinks=True, ignore=ours, copy_function=link, dirs_exist_ok=True)


def read_run(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
    """Read a run folder.

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
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    for name in FILES:
        if not (path / name).is_file():
            raise RunFolderError(f"{path} is not a run folder: {name} is missing")
    name = CONFIG
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("format"), int):
            raise RunFolderError(
                f"{path}: config.json does not say its format: it was not written by chartae"
            )
        if config["format"] > FORMAT:
            raise RunFolderError(
                f"{path} was written by a newer chartae (format {config['format']}): update chartae"
            )
        name = HISTORY
        history = [json.loads(line) for line in (path / HISTORY).read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(row, dict) for row in history):
            raise RunFolderError(f"{path}: {name} holds other things than epochs: restore it, or fit again")
        name = WEIGHTS
        tensors = load_file(path / WEIGHTS)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise RunFolderError(f"{path}: {name} cannot be read ({reason}): restore it, or fit again") from None
    return config, tensors, history
