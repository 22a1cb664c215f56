"""Run folders: config.json, model.safetensors, history.jsonl; nothing in them is ever executed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from chartae.core.errors import RunFolderError

__all__ = ["FORMAT", "read_run", "write_run"]

FORMAT = 1
CONFIG, WEIGHTS, HISTORY = "config.json", "model.safetensors", "history.jsonl"


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
        JSON values.
    tensors : Mapping of str to Tensor
        Weights and buffers.
    history : sequence of Mapping
        One for each epoch.
    overwrite : bool
        Replace a folder that is there.

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
    from safetensors.torch import save_file

    path = Path(path)
    partial = None
    try:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            if not overwrite:
                raise RunFolderError(
                    f"{path} is there already: choose another folder, or pass overwrite=True"
                )
            if not (path / CONFIG).is_file():
                raise RunFolderError(
                    f"{path} is not a run folder, so it is not overwritten: choose another folder"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        partial.chmod(0o777 & ~_umask())
        text = json.dumps({"format": FORMAT, **config}, indent=2, ensure_ascii=False, allow_nan=False)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial / WEIGHTS)
        rows = "".join(json.dumps(row) + "\n" for row in history)
        (partial / HISTORY).write_text(rows, encoding="utf-8")
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(old / "run")
            try:
                partial.replace(path)
            except BaseException:
                (old / "run").replace(path)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            partial.replace(path)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path} ({error.strerror or error}): choose another place"
        ) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    for name in (CONFIG, WEIGHTS, HISTORY):
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
