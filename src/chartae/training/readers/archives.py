"""Arrays of NumPy in archives."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chartae.core.errors import DataError, one_line
from chartae.training.readers.arrays import DAMAGE, is_npy, refuse_pickled
from chartae.training.readers.dataset import Dataset, dataset

__all__: list[str] = []

_DATA_NAMES = ("x", "x_train", "data", "images", "embedding")
_LABEL_NAMES = ("y", "y_train", "label", "labels", "target")


def npz(path: Path, key: str | None, labels: Any) -> Dataset:
    if not zipfile.is_zipfile(path):
        if is_npy(path):
            raise DataError(f"{path} is a single array: rename it to end in .npy")
        raise DataError(f"cannot read {path} (it is no archive of NumPy, or cut off): write it with np.savez")
    try:
        archive = np.load(path, allow_pickle=False)
    except DAMAGE as e:
        raise DataError(f"cannot read {path} ({one_line(e)}): write it again with np.savez") from None
    with archive:
        names: list[str] = archive.files
        key, X = (key, _member(path, archive, key)) if key else _choose(path, archive)
        note = f"array {key}"
        if isinstance(labels, str) and labels in names:
            note, labels = f"{note}, labels {labels}", _member(path, archive, labels)
        elif isinstance(labels, str) and not labels.endswith(".npy"):
            raise DataError(f"{path.name} has no array {labels!r}: its arrays are {', '.join(names)}")
        elif labels is None:
            for name in _label_names(key, names):
                y = _member(path, archive, name)
                if y.ndim in (1, 2) and len(y) == len(X):
                    note, labels = f"{note}, labels {name}", y
                    break
        return dataset(X, labels, name=path.name, note=note)


def _choose(path: Path, archive: Any) -> tuple[str, NDArray[Any]]:
    """Pick the array that holds the items."""
    known = {name.lower(): name for name in reversed(archive.files)}
    for name in _DATA_NAMES:
        if name in known and _are_items(X := _member(path, archive, known[name])):
            return known[name], X
    found, fault = {}, None
    for name in archive.files:
        try:
            X = _member(path, archive, name)
        except DataError as e:  # there may be others
            fault = fault or e
            continue
        if _are_items(X):
            found[name] = X
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        cure = f"name one, as in {path}:{next(iter(found))}"
        raise DataError(f"{path.name} holds several arrays of items ({', '.join(found)}): {cure}")
    if fault:
        raise fault
    listed = ", ".join(archive.files) or "nothing"
    raise DataError(f"{path.name} holds no array of numbers of shape (n, ...), only {listed}: save X in it")


def _are_items(array: NDArray[Any]) -> bool:
    return array.ndim >= 2 and array.dtype.kind in "biuf"


def _member(path: Path, archive: Any, name: str) -> NDArray[Any]:
    if name not in archive.files:
        raise DataError(f"{path.name} has no array {name!r}: its arrays are {', '.join(archive.files)}")
    try:
        array = archive[name]
    except DAMAGE as e:
        if "allow_pickle" in str(e):
            refuse_pickled(f"{path.name}:{name}")
        raise DataError(f"cannot read {name!r} in {path} ({one_line(e)}): write it again") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name!r} in {path} is not an array: write the file with np.savez")
    return array


def _label_names(key: str, names: Sequence[str]) -> list[str]:
    """List the arrays that may label ``key``, the likeliest first."""
    lower = key.lower()
    pair = "y" + lower[1:] if lower.startswith("x") else ""
    known = {name.lower(): name for name in reversed(names) if name != key}
    # y_train labels x_train and nothing else, even where x_valid happens to be as long.
    taken = "y_train" if "x_train" in (n.lower() for n in names) and lower != "x_train" else ""
    return [known[n] for n in (pair, *_LABEL_NAMES) if n in known and n != taken]
