"""Run folders: config.json, model.safetensors, history.jsonl, and, until a fit is finished, its checkpoint.

Nothing in them is ever executed. One rule says what a folder holds: where there is a checkpoint, which has
everything in one file, it is the run; otherwise the three files are. A run is begun, replaced and finished by
the exchange or the removal of that one file, so that a folder opens at whatever moment a program was killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae import __version__
from chartae.core.errors import RunFolderError, one_line
from chartae.core.interrupts import interruptible
from chartae.core.trees import pack, unpack

try:
    import fcntl
except ImportError:  # Windows knows other locks
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMAT",
    "OpenRun",
    "config_of",
    "is_unfinished",
    "read_checkpoint",
    "read_run",
    "refuse_occupied",
    "write_run",
]

FORMAT = 1
CONFIG, WEIGHTS, HISTORY = FILES = ("config.json", "model.safetensors", "history.jsonl")
TIMES = ("seconds", "rows_per_second")  # of an epoch: the same fit takes another time each time
CHECKPOINT, LOCK = "checkpoint.safetensors", ".lock"


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
            config = json.loads(_metadata(path / CHECKPOINT)["config"])
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
        Replace a run that is there, with the first thing that is written; other files in its folder stay.
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
            refuse_occupied(path, overwrite=overwrite, resume=resume)
            #: Whether the folder holds the run that is written here, and not one that it replaces.
            self.begun = resume and is_unfinished(self.home)
            #: Whether this has made the folder.
            self.made = False
            if config_of(self.home) is not None:
                self.lock = _locked(self.home)
                if self.lock is None:
                    raise _busy(path)
                for name in (*FILES, CHECKPOINT):
                    for draft in self.home.glob(f".{name}.*.tmp"):  # of a program that was killed
                        draft.unlink(missing_ok=True)
                for draft in self.home.glob(".tmp??????"):  # within safetensors, which makes one of its own
                    draft.unlink(missing_ok=True)

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
                    (self.home / WEIGHTS).unlink(missing_ok=True)
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
                self._replace({CHECKPOINT: _whole(config, {"weights": dict(tensors)}, history), **files})
        self.begun = True

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Say in one line what a disk or a file system does not allow."""
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise RunFolderError(f"cannot write {self.path} ({reason}): choose another place") from None

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


#: Names of files, and what writes each of them.
_Files = dict[str, Callable[[Path], None]]


def _files(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], history: Sequence[Mapping[str, Any]]
) -> _Files:
    text, rows = _text(config), _lines(history)
    # Weights know what was written with them.
    sums = _sums(json.loads(text), _epochs(rows))
    return {
        CONFIG: lambda file: _put(file, text),
        WEIGHTS: lambda file: _save(file, tensors, {}, sums),
        HISTORY: lambda file: _put(file, rows),
    }


def _whole(
    config: Mapping[str, Any], tree: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> Callable[[Path], None]:
    """Give what writes a checkpoint."""
    tensors, text = pack(tree)
    texts = {"config": _text(config), "history": _lines(history), "tree": text}
    return lambda file: _save(file, tensors, texts)


def _numbers(home: Path) -> list[int]:
    """Tell which files stand under the three names."""
    return [(home / name).stat().st_ino if (home / name).exists() else 0 for name in FILES]


def _text(config: Mapping[str, Any]) -> str:
    stamp = {"format": FORMAT, "chartae": __version__}
    return json.dumps({**stamp, **config}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _lines(history: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in history)


def _sums(config: Any, history: Any) -> list[str]:
    """Sum up what the two texts say, however they are laid out, but for how long it took."""
    timeless = [{name: value for name, value in row.items() if name not in TIMES} for row in history]
    return [f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}" for values in (config, timeless)]


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


def _save(
    file: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], beside: Sequence[str] = ()
) -> None:
    """Write tensors and texts with their sum, and the sums of files beside this one.

    The sums are one text, since the order of several differs from file to file.
    """
    from safetensors.torch import save_file

    apart = _apart(tensors)
    save_file(apart, file, {**texts, "checksum": " ".join([_checksum(apart, texts), *beside])})


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Sum up what a file holds, so that a bit that has flipped is seen."""
    import torch

    found = 0
    for name in sorted(texts):
        found = zlib.crc32(f"{name} {texts[name]}".encode(), found)
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        # Strided anew: that of a single value may be anything.
        content: Any = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
        found = zlib.crc32(content, found)
    return f"{found:08x}"


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


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def _load(file: Path) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    from safetensors import safe_open

    # torch would take the exception of a Ctrl-C for a fault of the file.
    with interruptible(terminate=False) as wish, safe_open(file, "pt") as opened:
        texts = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    wish.leave("stopped while a run was read")
    # Where there are no texts, another program has written the file.
    known = bool(texts)
    own, *beside = texts.pop("checksum", "none").split()
    if known and own != _checksum(tensors, texts):
        raise ValueError("its checksum is not that of what it holds")
    return tensors, texts, beside


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
        history = _epochs((path / HISTORY).read_text(encoding="utf-8"))
    with _read(path, WEIGHTS):
        tensors, _, sums = _load(path / WEIGHTS)
    for name, written, found in zip((CONFIG, HISTORY), sums, _sums(config, history), strict=False):
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
        tensors, texts, _ = _load(path / CHECKPOINT)
        config, history = _checked(path, texts["config"]), _epochs(texts["history"])
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


def _epochs(text: str) -> list[dict[str, Any]]:
    history = [json.loads(line) for line in text.splitlines()]
    if not all(isinstance(row, dict) for row in history):
        raise ValueError("it holds other things than epochs")
    return history
