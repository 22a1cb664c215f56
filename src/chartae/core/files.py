"""Files: written whole or not at all, and found in folders whose subfolders are labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chartae.core.errors import ChartaeError, DataError, enumerated

__all__ = [
    "BUNDLED",
    "SOUNDS",
    "atomic",
    "atomic_folder",
    "folder_labels",
    "unwritable",
    "visible_files",
    "within",
]

BUNDLED = "digits"  # the word for data that come with this library, whatever folder has that name
SOUNDS = (".wav", ".flac")  # what is read as sound
HIDDEN = (".", "__")
WRITTEN = ({"config.json", "history.jsonl"}, {"sweep.json"})  # names by which a run and a sweep are known
#: How folders are called that split data rather than label them.
SPLITS = {"train", "training", "valid", "validation", "val", "dev", "test", "testing"}


def within(word: str) -> tuple[str, str]:
    """Tell a file from the array within it: ``file.npz:key`` names one of an archive's.

    Parameters
    ----------
    word : str
        As it is given to a reader.

    Returns
    -------
    file, key : str
        The key is empty where none is named.

    Examples
    --------
    >>> from chartae.core.files import within
    >>> within("data.npz:x_train"), within("data.npz")
    (('data.npz', 'x_train'), ('data.npz', ''))
    """
    file, archived, key = word.partition(".npz:")
    return (f"{file}.npz", key) if archived else (word, "")


@contextmanager
def unwritable(
    path: str | os.PathLike[str], kind: type[ChartaeError] = DataError, *others: type[Exception]
) -> Iterator[None]:
    """Say in one line what a disk or a file system does not allow.

    Parameters
    ----------
    path : str or path
        What is written.
    kind : type
        Of the error that says so.
    *others : type
        Errors that mean the same, beside those of the system.

    Yields
    ------
    None
        For the block that writes.

    Raises
    ------
    ChartaeError
        Of that kind.

    Examples
    --------
    >>> from chartae.core.files import unwritable
    >>> with unwritable("out/codes.npy"):
    ...     raise PermissionError(13, "Permission denied")
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: cannot write out/codes.npy (Permission denied): choose another place
    """
    refused: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except refused as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise kind(f"cannot write {path} ({reason}): choose another place") from None


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only once it is whole.

    Parameters
    ----------
    path : str or path
        The file; missing folders are made, and a file of that name is replaced.

    Yields
    ------
    binary file
        What is written into it stands beside ``path`` until the block ends; after an error it is removed.

    Raises
    ------
    DataError
        If the file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.core.files import atomic
    >>> with atomic("out/codes.bin") as file:
    ...     _ = file.write(b"abc")
    >>> Path("out/codes.bin").read_bytes()
    b'abc'
    """
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "wb") as file:
                yield file
            os.replace(draft, target)
        finally:
            with suppress(OSError):  # whose reason was said by what failed first
                draft.unlink()


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder that appears under its name only once all its files are there.

    Parameters
    ----------
    path : str or path
        The folder, which is not there yet, or empty; missing folders above it are made.

    Yields
    ------
    Path
        Where to put the files until the block ends; after an error it is removed.

    Raises
    ------
    DataError
        If something of that name is there, or the folder cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.core.files import atomic_folder
    >>> with atomic_folder("out/sounds") as folder:
    ...     _ = (folder / "0.wav").write_bytes(b"")
    >>> [file.name for file in Path("out/sounds").iterdir()]
    ['0.wav']
    """
    target = Path(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target} is there already: name a new folder, or an empty one")
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with unwritable(target):
        draft.mkdir(parents=True)
        try:
            yield draft
            if target.exists():
                target.rmdir()  # or some systems would not rename
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def visible_files(folder: Path) -> list[Path]:
    """List the files below a folder, without what a name that starts with ``.`` or ``__`` hides.

    What chartae has written into a folder below it, a run for instance, is no part of what it holds.

    Parameters
    ----------
    folder : Path
        Where to look, in subfolders too, and in those that are links, but in no folder twice.

    Returns
    -------
    list of Path
        Sorted.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.core.files import visible_files
    >>> for name in ("b.txt", "a.txt", ".hidden"):
    ...     Path(name).touch()
    >>> [str(file) for file in visible_files(Path("."))]
    ['a.txt', 'b.txt']
    """

    def _refuse(error: OSError) -> None:
        raise DataError(
            f"cannot read {error.filename} ({error.strerror}): change its permissions, or move it"
        )

    found: list[Path] = []
    walked: set[str] = set()
    tops = [str(folder)]
    for top in tops:  # links come after what is no link, so that a file keeps its own name
        for place, folders, files in os.walk(top, onerror=_refuse):
            if (real := os.path.realpath(place)) in walked:
                folders.clear()
                continue
            walked.add(real)
            if place != str(folder) and any(names <= set(files) for names in WRITTEN):
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
            inner = [os.path.join(place, name) for name in folders]
            tops += [path for path in inner if os.path.islink(path)]
            found += [Path(place, name) for name in files if not name.startswith(HIDDEN)]
    return sorted(path for path in found if path.is_file())


def folder_labels(folder: Path, files: Sequence[Path]) -> tuple[list[str] | None, str]:
    """Label files by the subfolder that holds them.

    Parameters
    ----------
    folder : Path
        Where the subfolders are.
    files : sequence of Path
        Below it, at least one.

    Returns
    -------
    labels : list of str or None
        The name of each file's first subfolder; None if there are none, or if they split the data, as train
        and test do.
    note : str
        What is to be said of that, or nothing.

    Raises
    ------
    DataError
        If some files are in subfolders and some are not.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.core.files import folder_labels
    >>> folder_labels(Path("pets"), [Path("pets/cat/1.png"), Path("pets/dog/1.png")])
    (['cat', 'dog'], '')
    >>> folder_labels(Path("pets"), [Path("pets/train/cat/1.png"), Path("pets/test/dog/1.png")])
    (None, 'test and train split the data and are no labels')
    """
    parts = [file.relative_to(folder).parts for file in files]
    nested = [len(p) > 1 for p in parts]
    if any(nested) and not all(nested):
        loose, deep = files[nested.index(False)], files[nested.index(True)]
        raise DataError(
            f"{loose} lies beside subfolders and {deep} in one: put every file into a subfolder"
            " named after its label, or none"
        )
    if not any(nested):
        return None, ""
    labels = [p[0] for p in parts]
    found = sorted(set(labels))
    if len(found) > 1 and SPLITS.issuperset(name.lower() for name in found):
        return None, f"{enumerated(found)} split the data and are no labels"
    return labels, ""
