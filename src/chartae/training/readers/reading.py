"""From a name, a file, a folder of images or an object in memory to its reader."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from chartae.core.columns import as_pandas, is_frame, is_streamed_table
from chartae.core.errors import DataError
from chartae.core.files import BUNDLED, SOUNDS, folder_labels, visible_files, within
from chartae.training.items import array_of, as_array
from chartae.training.pictures import IMAGES, load_images
from chartae.training.readers.archives import npz
from chartae.training.readers.arrays import read_array, refuse_missing
from chartae.training.readers.dataset import Dataset, count, dataset
from chartae.training.readers.encoded import count_of, reader_of_encoded
from chartae.training.readers.tables import csv_table, parquet, streamed, table

__all__ = ["read"]

_NOTHING_TO_ENCODE = "an encoder is for texts and sounds in files, and the data are none: leave it out"


def read(
    source: Any,
    *,
    labels: Any = None,
    size: tuple[int, int] | None = None,
    encoder: Any = None,
    memory: str | int | None = None,
) -> Dataset:
    """Read items, and labels where there are any, from a file, a folder or an object in memory.

    Parameters
    ----------
    source : str, path, array, tensor, DataFrame or (X, y)
        ``"digits"`` (bundled: 1,797 images of 8 × 8, values 0 to 16), a ``.npy`` file (memory-mapped), a
        ``.npz`` file (``file.npz:key`` picks the array), a ``.csv`` or ``.parquet`` file or a folder of
        ``.parquet`` files, a folder of images (one subfolder a label, or none; values as stored, color as
        RGB), speech (a folder of ``.wav`` and ``.flac`` files, or a ``.npz`` file with ``wave`` and
        ``offsets``; see :func:`~chartae.training.audio.read_audio`), a ``.txt`` file of one text a line (see
        :func:`~chartae.training.text.encoded`), or an object in memory: anything that numpy turns into an
        array of shape (n, ...), a torch tensor or ``Dataset``, a pandas DataFrame, what
        :func:`chartae.stream` gives, or a tuple.
    labels : str or array of shape (n,) or (n, ...), optional
        Where the labels are, or the numbers to condition on: a key of the ``.npz``, a column of the table, a
        ``.npy`` file, or the labels themselves. Left out, a ``.npz`` is searched for y, y_train, label,
        labels and target. Where a label is missing it becomes None.
    size : (int, int), optional
        Height and width in pixels that every image of a folder is resized to. Left out, images of several
        sizes are resized to the median height and width, of at most 64 pixels.
    encoder : str, encoder or callable, optional
        How texts or sounds become items. For texts "tfidf" (if left out; then once the items are asked for),
        "bytes" or "bpe" (tokens, for a likelihood of sequences; "bytes:256": at most so many of each),
        "sentence-transformers/NAME" or a function from a list of str to an array of shape (n, d); for sounds
        a LogMel; or the ``medium`` of the data that a model was trained on.
    memory : str or int, optional
        Bytes, as in "2GB", that data may take; up to half of what is available if left out. A ``.parquet``
        file or a ``Dataset`` that does not fit is streamed (see :func:`chartae.stream`), and so is a ``.npy``
        file that is larger than a ``memory`` given here.

    Returns
    -------
    Dataset
        The items in their own dtype, as arrays for ``fit(data.X, data.y)``. Nothing is scaled, and no array
        is copied that need not be. A table stays one: an estimator scales it column by column, and knows
        categories, counts and missing values in it.

    Raises
    ------
    DataError
        If there is nothing to read, if a number of an array is infinite (the first such row and column are
        named; rows count from 0), or if shapes do not agree. Python objects in ``.npy`` and ``.npz`` files
        are refused: they could run code.

    Examples
    --------
    >>> import numpy as np, chartae as ct
    >>> np.savez("toy.npz", X=np.random.default_rng(0).random((50, 3)), y=np.repeat(["a", "b"], 25))
    >>> data = ct.read("toy.npz")
    >>> data.summary
    '50 rows of 3 columns, float64, 2 labels (a, b), from toy.npz (array X, labels y)'
    >>> ct.CVAE(latent_dim=1, max_epochs=1).fit(data.X, data.y).sample(2, condition="a").shape
    (2, 3)
    >>> ct.read((np.zeros((4, 2)), [0, 1, 0, 1])).y
    array([0, 1, 0, 1])
    """
    if isinstance(source, Dataset):
        return source
    if size is not None and not (isinstance(source, str | Path) and Path(source).is_dir()):
        raise DataError("a size resizes the images of a folder, and the data are none: leave it out")
    if encoder is not None and (not isinstance(source, str | Path) or source == BUNDLED):
        raise DataError(_NOTHING_TO_ENCODE)
    if isinstance(source, str) and source == BUNDLED:  # and not Path("digits"), which is a folder
        return _digits(labels)
    if isinstance(source, str | Path):
        return _read_path(str(source), labels, size, encoder, memory)
    if isinstance(source, tuple) and len(source) == 2 and labels is None:
        source, labels = source
    if is_frame(source):
        return table(source if hasattr(source, "iloc") else as_pandas(source), labels, "table")
    if is_streamed_table(source) or hasattr(source, "rows_of_block"):
        return streamed(source, labels)
    # Only a caller who has imported torch can hold a tensor.
    if torch := sys.modules.get("torch"):
        if isinstance(source, torch.Tensor):
            return dataset(array_of(source), labels, name="tensor")
        if isinstance(source, torch.utils.data.Dataset | torch.utils.data.DataLoader):
            return _items_of(source, labels, memory)
    return dataset(as_array(source), labels, name="array")


def _digits(labels: Any) -> Dataset:
    from sklearn.datasets import load_digits

    if labels is not None:
        raise DataError("the bundled digits bring their labels: leave the labels out")
    bunch = load_digits()
    return dataset(bunch.images.astype(np.uint8), bunch.target, name=BUNDLED)


def _read_path(source: str, labels: Any, size: tuple[int, int] | None, encoder: Any, memory: Any) -> Dataset:
    file, key = within(source)
    path = Path(file)
    if not path.exists():
        refuse_missing(path)
    if not os.access(path, os.R_OK):
        raise DataError(f"cannot read {path} (Permission denied): change its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty: write it again, or pass another file")
    if not key and (encoded := reader_of_encoded(path)):
        if size is not None:
            raise DataError(f"a size resizes images, and {path} holds none: leave it out")
        return encoded(path, labels, encoder)
    if encoder is not None:
        raise DataError(_NOTHING_TO_ENCODE)
    suffix = path.suffix.lower()
    large = memory is not None and path.stat().st_size > _bytes(memory)
    if large and suffix in (".csv", ".npz"):
        raise DataError(
            f"{path} is larger than memory={memory!r}, and {suffix} files are read whole: save it as .npy or "
            ".parquet"
        )
    if suffix == ".parquet" or count_of(path, (".parquet",)) > count_of(path, IMAGES):
        return parquet(path, labels, memory)
    if path.is_dir():
        return _folder(path, labels, size)
    if large and suffix == ".npy":
        from chartae.training.streams import stream

        return streamed(stream(path, memory=memory), labels)
    if suffix == ".npz":
        return npz(path, key or None, labels)
    if suffix in _READERS:
        return _READERS[suffix](path, labels)
    if suffix in IMAGES:
        raise DataError(f"{path} is one image: pass the folder that holds the images")
    if suffix in SOUNDS:
        raise DataError(f"{path} is one sound: pass the folder that holds the sounds")
    raise DataError(
        f"{path} has a format that is not read: pass .npy, .npz, .csv, .parquet, .txt, or a folder of "
        "images or sounds; other tables can be written as .csv or .parquet"
    )


def _bytes(memory: Any) -> int:
    from chartae.training.streams import parse_bytes

    return parse_bytes(memory)


def npy(path: Path, labels: Any) -> Dataset:
    return dataset(read_array(path), labels, name=path.name)


def _folder(folder: Path, labels: Any, size: tuple[int, int] | None) -> Dataset:
    visible = visible_files(folder)
    files = [p for p in visible if p.suffix.lower() in IMAGES]
    if not files:
        arrays = [str(p) for p in visible if p.suffix.lower() in (".npz", ".txt", *_READERS)]
        cure = f"pass the file {arrays[0]}" if arrays else "pass another folder"
        raise DataError(f"folder {folder} holds no images ({', '.join(IMAGES)}) or sounds: {cure}")
    others = len(visible) - len(files)
    notes = [f"without {count(others, 'other file')}"] if others else []
    if labels is None:
        labels, note = folder_labels(folder, files)
        notes += filter(None, [note])
    X, more = load_images(files, size)
    return dataset(X, labels, name=folder.resolve().name, note=", ".join(notes + more))


def _items_of(source: Any, labels: Any, memory: Any) -> Dataset:
    """Items of a torch Dataset: read once where all fit, and asked for each time where not."""
    from chartae.training.streams import stream
    from chartae.training.streams.memory import TABLE

    X: Any = stream(source, memory=memory)
    if X.nbytes > TABLE * X.memory:
        return streamed(X, labels)
    return dataset(X[:], X.labels if labels is None else labels, name=X.name)


_READERS = {".npy": npy, ".csv": csv_table}
