"""Runs are written whole or not at all, by one program at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae.core.errors import RunFolderError
from chartae.core.files import unwritable
from chartae.core.trees import pack
from chartae.models.persistence.files import (
    CHECKPOINT,
    CONFIG,
    FILES,
    HISTORY,
    LOCK,
    PICTURES,
    REPORT,
    SOURCE,
    WEIGHTS,
    epochs,
    lines,
    save,
    sums_of,
    written,
)
from chartae.models.persistence.folders import config_of, is_unfinished, refuse_occupied

try:
    import fcntl
except ImportError:  # Windows knows other locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OpenRun", "write_run"]

#: Names of files, and what writes each of them.
_Files = dict[str, Callable[[Path], None]]


def write_run(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    history: Sequence[Mapping[str, Any]] = (),
    *,
    overwrite: bool = False,
) -> Path:
    """Write a finished run, whole or not at all.

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
        Replace a run that is there, with what commands have said of it; other files in its folder stay.

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
    with OpenRun(path, overwrite=overwrite) as run:
        run.finish(config, tensors, history)
    return Path(path)


class OpenRun:
    """A run folder that is written into, by one program at a time.

    Parameters
    ----------
    path : str or path-like
        The folder; it is made with the first thing that is written, and its parents too.
    overwrite : bool
        Replace a run that is there, and what commands have said of it, with the first thing that is written;
        other files in its folder stay.
    resume : bool
        Go on with an unfinished run that is there.

    Raises
    ------
    RunFolderError
        If something is there that may not be replaced, another fit is writing there, or the place cannot be
        written.

    Examples
    --------
    >>> import tempfile, torch
    >>> from chartae.models.persistence import OpenRun, is_unfinished, read_run
    >>> with tempfile.TemporaryDirectory() as folder, OpenRun(folder + "/a", overwrite=False) as run:
    ...     run.checkpoint({"answer": 42}, {"weights": {}}, [])
    ...     unfinished = is_unfinished(run.path)
    ...     run.finish({"answer": 42}, {"w": torch.ones(2)}, [])
    ...     unfinished, is_unfinished(run.path), read_run(run.path)[1]
    (True, False, {'w': tensor([1., 1.])})
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool, resume: bool = False) -> None:
        self.path = Path(path)
        self.home = Path(os.path.realpath(path))  # a link to a run stays a link
        self.lock: int | None = None  # from when on there is a folder
        with self._said():
            try:
                refuse_occupied(path, overwrite=overwrite, resume=resume)
            except RunFolderError:
                if is_unfinished(self.home):  # by a fit that is under way, perhaps, which no option passes by
                    self._take()
                    self.close()
                raise
            #: Whether the folder holds the run that is written here, and not one that it replaces.
            self.begun = resume and is_unfinished(self.home)
            #: Whether this has made the folder.
            self.made = False
            if config_of(self.home) is not None:
                self._take()
                for name in (*FILES, CHECKPOINT):
                    for draft in self.home.glob(f".{name}.*.tmp"):  # of a program that was killed
                        draft.unlink(missing_ok=True)
                for draft in self.home.glob(".tmp??????"):  # within safetensors, which makes one of its own
                    draft.unlink(missing_ok=True)

    def _take(self) -> None:
        self.lock = _locked(self.home)
        if self.lock is None:
            raise _busy(self.path)

    def __enter__(self) -> OpenRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write into the folder."""
        if self.lock is not None:
            with contextlib.suppress(OSError):
                (self.home / LOCK).unlink()
            os.close(self.lock)
            self.lock = None

    def discard(self) -> None:
        """Take away a folder that this has made, unless something else has been put there."""
        if self.made:
            for name in (*FILES, CHECKPOINT, LOCK):
                (self.home / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.home.rmdir()

    def checkpoint(
        self,
        config: Mapping[str, Any],
        tree: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a checkpoint in place of the last one; the first one makes or replaces the run.

        Parameters
        ----------
        config : Mapping
            JSON values, as of a finished run.
        tree : Mapping
            ``weights``, as the tensors of a finished run, and what else is kept, as
            :func:`~chartae.core.trees.pack` takes it.
        history : sequence of Mapping
            One for each epoch.

        Raises
        ------
        RunFolderError
            If the place cannot be written; then the last checkpoint is still there.
        """
        with self._said():
            files = _files(config, {}, history)
            del files[WEIGHTS]
            whole = {CHECKPOINT: _whole(config, tree, history)}
            if self.lock is None:
                self._make(whole | files)
            else:
                self._exchange(whole)
                if not self.begun:
                    for name in (WEIGHTS, *self._stale(config, history)):
                        (self.home / name).unlink(missing_ok=True)
                self._exchange(files)  # for those who want to see how it goes
        self.begun = True

    def finish(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write a finished run.

        Parameters
        ----------
        config : Mapping
            JSON values; the format and the version of chartae are added.
        tensors : Mapping of str to Tensor
            Each of any shape: weights and buffers.
        history : sequence of Mapping
            One for each epoch.

        Raises
        ------
        RunFolderError
            If the place cannot be written; then what was there before is still there.
        """
        with self._said():
            files = _files(config, tensors, history)
            if self.lock is None:
                self._make(files)
            elif self.begun:
                self._exchange(files)
                (self.home / CHECKPOINT).unlink(missing_ok=True)
            else:
                stale = self._stale(config, history)
                self._replace({CHECKPOINT: _whole(config, {"weights": dict(tensors)}, history), **files})
                for name in stale:
                    (self.home / name).unlink(missing_ok=True)
        self.begun = True

    def _stale(self, config: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Name what was said of the run that this one replaces; the same training is of the same data."""
        now, before = sums_of(json.loads(written(config)), epochs(lines(history))), ["", ""]
        with contextlib.suppress(OSError, ValueError):
            texts = ((self.home / name).read_text(encoding="utf-8") for name in (CONFIG, HISTORY))
            before = sums_of(json.loads(next(texts)), epochs(next(texts)))
        source = () if now[1] == before[1] else (SOURCE,)
        return () if now == before else (*source, *REPORT, *PICTURES)

    def _said(self) -> contextlib.AbstractContextManager[None]:
        from safetensors import SafetensorError

        return unwritable(self.path, RunFolderError, SafetensorError)

    def _make(self, files: _Files) -> None:
        """Make the folder beside its place, with files in it, and move it there."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{self.home.name}.", dir=self.home.parent))
        lock = None
        try:
            new = work / "new"  # with the rights that the umask gives
            new.mkdir()
            lock = _locked(new)
            for name, write in files.items():
                _write(new / name, write)
            try:
                new.replace(self.home)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise _busy(self.path) from None
                raise
            self.lock, lock, self.made = lock, None, True
            _keep_names(self.home.parent)
        finally:
            if lock is not None:
                os.close(lock)
            shutil.rmtree(work, ignore_errors=True)

    def _exchange(self, files: _Files) -> None:
        """Exchange files one by one, when all of them have been written beside their places."""
        drafts = {self.home / f".{name}.{os.getpid()}.tmp": name for name in files}
        try:
            for draft, name in drafts.items():
                _write(draft, files[name])
            for draft, name in drafts.items():
                draft.replace(self.home / name)
            _keep_names(self.home)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)

    def _replace(self, files: _Files) -> None:
        """Replace a run by a finished one, for which a checkpoint stands while files are exchanged."""
        was_unfinished, before = is_unfinished(self.home), _numbers(self.home)
        try:
            self._exchange(files)
            (self.home / CHECKPOINT).unlink()
        except BaseException:
            if not was_unfinished and _numbers(self.home) == before:
                (self.home / CHECKPOINT).unlink(missing_ok=True)  # the files are those of the old run
            raise


def _busy(path: Any) -> RunFolderError:
    return RunFolderError(f"{path} is being written by another fit: wait for it, or choose another folder")


def _files(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], history: Sequence[Mapping[str, Any]]
) -> _Files:
    text, rows = written(config), lines(history)
    # Weights know what was written with them.
    sums = sums_of(json.loads(text), epochs(rows))
    return {
        CONFIG: lambda file: _put(file, text),
        WEIGHTS: lambda file: save(file, tensors, {}, sums),
        HISTORY: lambda file: _put(file, rows),
    }


def _whole(
    config: Mapping[str, Any], tree: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> Callable[[Path], None]:
    """Give what writes a checkpoint."""
    tensors, text = pack(tree)
    texts = {"config": written(config), "history": lines(history), "tree": text}
    return lambda file: save(file, tensors, texts)


def _numbers(home: Path) -> list[int]:
    """Tell which files stand under the three names."""
    return [(home / name).stat().st_ino if (home / name).exists() else 0 for name in FILES]


def _write(file: Path, write: Callable[[Path], None]) -> None:
    file.touch()
    mode = file.stat().st_mode
    write(file)
    file.chmod(mode)  # safetensors gives it to its owner alone
    with open(file, "rb+") as written:
        os.fsync(written)  # or the name might be on the disk before the content


def _keep_names(folder: Path) -> None:
    """Wait until a folder's list of names is on the disk, where a file system can be asked."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _put(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _locked(folder: Path) -> int | None:
    """Take a folder's lock, which the system gives back when a program ends, however it does."""
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:  # a file system that knows no locks
            pass
        # Whoever had it may have removed it meanwhile, and a lock without a name keeps nobody out.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(folder / LOCK), os.fstat(handle)):
                return handle
        os.close(handle)
