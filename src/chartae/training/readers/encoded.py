"""Sounds and texts, which become numbers by an encoder."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from chartae.core.errors import DataError
from chartae.core.files import SOUNDS, visible_files
from chartae.training.pictures import IMAGES
from chartae.training.readers.dataset import Dataset, dataset, labels_of

__all__ = ["encoded_noun", "medium_of"]


def encoded_noun(source: str | Path) -> str | None:
    """Tell what a file or a folder holds of which items are made: sounds, or texts.

    Parameters
    ----------
    source : str or path
        As for :func:`read`.

    Returns
    -------
    str or None
        One of them, where :func:`read` takes an encoder for it.

    Examples
    --------
    >>> from chartae.training.readers import encoded_noun
    >>> encoded_noun("news.txt"), encoded_noun("digits")
    ('text', None)
    """
    nouns: dict[Any, str] = {sounds: "utterance", texts_of: "text"}
    return nouns.get(reader_of_encoded(Path(source)))


def medium_of(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Make again what turned sounds or texts into items.

    Parameters
    ----------
    config : Mapping
        As its ``config`` gave it.
    tensors : Mapping of str to Tensor
        As its ``tensors`` gave them, each of a shape of its own.

    Returns
    -------
    LogMel, TextEncoder, SentenceEncoder, Bytes, BytePairs or Borrowed
        An equal one.

    Raises
    ------
    DataError
        If it is of no known kind.

    Examples
    --------
    >>> from chartae.training.audio import LogMel
    >>> from chartae.training.readers import medium_of
    >>> medium_of(LogMel(8000).config(), {}) == LogMel(8000)
    True
    """
    from chartae.training.audio import LogMel
    from chartae.training.text import SentenceEncoder, TextEncoder
    from chartae.training.tokens import Borrowed, BytePairs, Bytes

    known: tuple[Any, ...] = (LogMel, TextEncoder, SentenceEncoder, Bytes, BytePairs, Borrowed)
    kinds = {kind.kind: kind for kind in known}
    if config["kind"] not in kinds:
        raise DataError(f"there is no encoder of the kind {config['kind']!r}: known are {', '.join(kinds)}")
    return kinds[config["kind"]].from_config(config, tensors)


def reader_of_encoded(path: Path) -> Callable[[Path, Any, Any], Dataset] | None:
    """Find the reader of what becomes numbers by an encoder; None for what is numbers already."""
    if path.is_dir():
        return sounds if count_of(path, SOUNDS) > count_of(path, IMAGES) else None
    if path.suffix.lower() == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                return sounds if {"wave.npy", "offsets.npy"} <= set(archive.namelist()) else None
        except (OSError, zipfile.BadZipFile):  # which the reader of arrays puts into words
            return None
    return texts_of if path.suffix.lower() == ".txt" else None


def count_of(path: Path, suffixes: tuple[str, ...]) -> int:
    return sum(file.suffix.lower() in suffixes for file in visible_files(path)) if path.is_dir() else 0


def sounds(path: Path, labels: Any, encoder: Any) -> Dataset:
    from chartae.training.audio import read_audio

    X, y, medium, note = read_audio(path, labels, encoder)
    return replace(dataset(X, y, name=path.resolve().name, note=note), medium=medium)


def texts_of(path: Path, labels: Any, encoder: Any) -> Dataset:
    from chartae.training.text import encoded, texts_in

    texts = texts_in(path)
    if encoder is None:
        y = None if labels is None else labels_of(labels, len(texts), path.name)
        return _Texts(texts=texts, y=y, name=path.name)
    X, medium, note = encoded(texts, encoder)
    return replace(dataset(X, labels, name=path.name, note=note), medium=medium, texts=texts)


class _Texts(Dataset):
    """Texts that become items by TF-IDF when these are asked for: who learns words needs none."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    @cached_property
    def _items(self) -> tuple[Any, Any, str]:
        from chartae.training.text import encoded

        return encoded(self.texts or [])

    @cached_property
    def X(self) -> Any:
        return self._items[0]

    @cached_property
    def medium(self) -> Any:
        return self._items[1]

    @cached_property
    def note(self) -> str:
        return self._items[2]
