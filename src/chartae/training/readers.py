"""Readers: from a name, a file, a folder of images or an object in memory to arrays of numbers."""

from __future__ import annotations

import contextlib
import csv
import difflib
import mmap
import re
import sys
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from chartae.core.columns import as_pandas, is_frame, is_streamed_table
from chartae.core.errors import DataError, one_line
from chartae.core.files import SOUNDS, folder_labels, visible_files
from chartae.training.items import array_of, as_array, refuse_non_finite, refuse_other_than_items
from chartae.training.pictures import IMAGES, load_images

__all__ = ["Dataset", "is_encoded", "medium_of", "read", "read_array"]

_DATA_NAMES = ("x", "x_train", "data", "images", "embedding")
_LABEL_NAMES = ("y", "y_train", "label", "labels", "target")
#: What NumPy raises of a damaged file.
_DAMAGE = (
    *(ValueError, EOFError, OSError, KeyError, SyntaxError, NotImplementedError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_NAMED = 6  # labels in a summary; more are counted
_BLOCK = 1 << 26  # bytes looked at in one go: a memory-mapped file need not fit in memory


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items as one array, with their labels if there are any.

    Parameters
    ----------
    X : ndarray, memmap, DataFrame or stream of shape (n, features), (n, H, W) or (n, H, W, C)
        The items, in their own units and dtype; arrays are finite, and tables stay tables.
    y : ndarray of shape (n,) or (n, ...), optional
        Labels, or one number, vector or map an item.
    columns : tuple of str, optional
        The names of the features of a table.
    name : str
        Where the items come from.
    note : str
        What was chosen on the way, for the summary.
    medium : LogMel, TextEncoder, SentenceEncoder or Bytes, optional
        How sounds or texts became the items; it has ``encode``, ``config`` and ``tensors``.
    texts : list of str, optional
        What the items of a ``.txt`` file stand for.

    Examples
    --------
    >>> from chartae.training.readers import read
    >>> data = read("digits")
    >>> data.X.shape, data.y.shape, data.columns is None
    ((1797, 8, 8), (1797,), True)
    """

    X: Any
    y: NDArray[Any] | None = None
    columns: tuple[str, ...] | None = None
    name: str = "array"
    note: str = ""
    medium: Any = None
    texts: list[str] | None = None

    @property
    def summary(self) -> str:
        """One line that says what the data are.

        Returns
        -------
        str
            Count, shape, dtype, labels, source, and what was chosen.

        Examples
        --------
        >>> from chartae.training.readers import read
        >>> read("digits").summary
        '1,797 images of 8 × 8, uint8, 10 labels, from digits'
        """
        n, *shape = self.X.shape
        sizes = " × ".join(str(s) for s in shape)
        kind = {1: "row", 2: "image", 3: "image"}.get(len(shape), "item")
        kind = self.medium.noun if self.medium else kind
        of = f"of {_count(shape[0], 'column')}" if len(shape) == 1 else f"of {sizes}"
        parts = [f"{_count(n, kind)} {of}"]
        if hasattr(self.X, "dtype"):
            parts.append(str(self.X.dtype))
        elif is_frame(self.X) and (share := float(self.X.isna().to_numpy().mean())):
            parts.append(f"{share:.1%} of values missing")
        if self.y is not None:
            parts.append(_describe_labels(self.y))
        parts.append(f"from {self.name}" + (f" ({self.note})" if self.note else ""))
        return ", ".join(parts)


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
        labels and target.
    size : (int, int), optional
        Height and width in pixels that every image of a folder is resized to. Left out, images of several
        sizes are resized to the median height and width, of at most 64 pixels.
    encoder : str, encoder or callable, optional
        How texts or sounds become items. For texts "tfidf" (if left out; then once the items are asked for),
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
        If there is nothing to read, if something is not a finite number (the first such row and column are
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
    if encoder is not None and (not isinstance(source, str | Path) or source == "digits"):
        raise DataError(_NOTHING_TO_ENCODE)
    if isinstance(source, str) and source == "digits":  # and not Path("digits"), which is a folder
        return _digits(labels)
    if isinstance(source, str | Path):
        return _read_path(str(source), labels, size, encoder, memory)
    if isinstance(source, tuple) and len(source) == 2 and labels is None:
        source, labels = source
    if is_frame(source):
        return _table(source if hasattr(source, "iloc") else as_pandas(source), labels, "table")
    if is_streamed_table(source) or hasattr(source, "rows_of_block"):
        return _streamed(source, labels)
    # Only a caller who has imported torch can hold a tensor.
    if torch := sys.modules.get("torch"):
        if isinstance(source, torch.Tensor):
            return _dataset(array_of(source), labels, name="tensor")
        if isinstance(source, torch.utils.data.Dataset | torch.utils.data.DataLoader):
            return _items_of(source, labels, memory)
    return _dataset(as_array(source), labels, name="array")


def read_array(path: str | Path) -> NDArray[Any]:
    """Read a ``.npy`` file, memory-mapped.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    ndarray
        Of any shape.

    Raises
    ------
    DataError
        If the file is not there, is damaged, or holds Python objects, which could run code.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.readers import read_array
    >>> np.save("codes.npy", np.zeros(3))
    >>> read_array("codes.npy").shape
    (3,)
    """
    path = Path(path)
    if not path.exists():
        _missing(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as e:
        ours = _is_npy(path)
        if ours and ("allow_pickle" in str(e) or "Python objects" in str(e)):
            _pickled(str(path))
        why = one_line(e) if ours else "it is no array of NumPy"
        raise DataError(f"cannot read {path} ({why}): write it again with np.save") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} is an archive of arrays: rename it to end in .npz")
    return array


def is_encoded(source: str | Path) -> bool:
    """Tell whether items are made of what a file or a folder holds: of sounds, or of texts.

    Parameters
    ----------
    source : str or path
        As for :func:`read`.

    Returns
    -------
    bool
        Whether :func:`read` takes an encoder for it.

    Examples
    --------
    >>> from chartae.training.readers import is_encoded
    >>> is_encoded("news.txt"), is_encoded("digits")
    (True, False)
    """
    return _reader_of_encoded(Path(source)) is not None


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


# ------------------------------------------------------------------------------------------------- files


def _read_path(source: str, labels: Any, size: tuple[int, int] | None, encoder: Any, memory: Any) -> Dataset:
    file, archived, key = source.partition(".npz:")
    path = Path(file + ".npz" if archived else file)
    if not path.exists():
        _missing(path)
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty: write it again, or pass another file")
    if not key and (encoded := _reader_of_encoded(path)):
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
    if suffix == ".parquet" or _count_of(path, (".parquet",)) > _count_of(path, IMAGES):
        return _parquet(path, labels, memory)
    if path.is_dir():
        return _folder(path, labels, size)
    if large and suffix == ".npy":
        from chartae.training.streams import stream

        return _streamed(stream(path, memory=memory), labels)
    if suffix == ".npz":
        return _npz(path, key or None, labels)
    if suffix in _READERS:
        return _READERS[suffix](path, labels)
    if suffix in IMAGES:
        raise DataError(f"{path} is one image: pass the folder that holds the images")
    if suffix in SOUNDS:
        raise DataError(f"{path} is one sound: pass the folder that holds the sounds")
    raise DataError(
        f"{path} has a format that is not read: pass .npy, .npz, .csv, .parquet, .txt, or a folder of "
        "images or sounds"
    )


def _bytes(memory: Any) -> int:
    from chartae.training.streams import parse_bytes

    return parse_bytes(memory)


_NOTHING_TO_ENCODE = "an encoder is for texts and sounds in files, and the data are none: leave it out"


def _reader_of_encoded(path: Path) -> Callable[[Path, Any, Any], Dataset] | None:
    """Find the reader of what becomes numbers by an encoder; None for what is numbers already."""
    if path.is_dir():
        return _sounds if _count_of(path, SOUNDS) > _count_of(path, IMAGES) else None
    if path.suffix.lower() == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                return _sounds if {"wave.npy", "offsets.npy"} <= set(archive.namelist()) else None
        except (OSError, zipfile.BadZipFile):  # which the reader of arrays puts into words
            return None
    return _texts if path.suffix.lower() == ".txt" else None


def _count_of(path: Path, suffixes: tuple[str, ...]) -> int:
    return sum(file.suffix.lower() in suffixes for file in visible_files(path)) if path.is_dir() else 0


def _sounds(path: Path, labels: Any, encoder: Any) -> Dataset:
    from chartae.training.audio import read_audio

    X, y, medium, note = read_audio(path, labels, encoder)
    return replace(_dataset(X, y, name=path.resolve().name, note=note), medium=medium)


def _texts(path: Path, labels: Any, encoder: Any) -> Dataset:
    from chartae.training.text import encoded, texts_in

    texts = texts_in(path)
    if encoder is None:
        y = None if labels is None else _labels(labels, len(texts), path.name)
        return _Texts(texts=texts, y=y, name=path.name)
    X, medium, note = encoded(texts, encoder)
    return replace(_dataset(X, labels, name=path.name, note=note), medium=medium, texts=texts)


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


def _digits(labels: Any) -> Dataset:
    from sklearn.datasets import load_digits

    if labels is not None:
        raise DataError("the bundled digits bring their labels: leave the labels out")
    bunch = load_digits()
    return _dataset(bunch.images.astype(np.uint8), bunch.target, name="digits")


def _npy(path: Path, labels: Any) -> Dataset:
    return _dataset(read_array(path), labels, name=path.name)


def _is_npy(path: Path) -> bool:
    """Tell an array of NumPy by how its file begins; what begins otherwise is a pickle to NumPy."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX


def _npz(path: Path, key: str | None, labels: Any) -> Dataset:
    if not zipfile.is_zipfile(path):
        if _is_npy(path):
            raise DataError(f"{path} is a single array: rename it to end in .npy")
        raise DataError(f"cannot read {path} (it is no archive of NumPy, or cut off): write it with np.savez")
    try:
        archive = np.load(path, allow_pickle=False)
    except _DAMAGE as e:
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
        return _dataset(X, labels, name=path.name, note=note)


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
    except _DAMAGE as e:
        if "allow_pickle" in str(e):
            _pickled(f"{path.name}:{name}")
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


def _csv(path: Path, labels: Any) -> Dataset:
    import pandas as pd

    try:
        # Read apart and as it stands: among names, pandas renames the second of two equal numbers.
        head = pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0].dropna()
        headless = _is_number_line(head)
        frame = _with_codes(
            pd.read_csv(path, low_memory=False, header=None if headless else 0), path, headless
        )
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8: save it as UTF-8") from None
    except ValueError as e:
        raise DataError(f"cannot read {path} ({one_line(e)}): write one row an item, with commas") from None
    first = frame.columns[0]
    if len(frame.columns) == 1 and any(mark in str(first) for mark in ";\t|"):
        raise DataError(f"{path} has one column, {str(first)!r:.40}: put commas between its columns")
    if not np.array_equal(
        frame.index, np.arange(len(frame))
    ):  # pandas takes the surplus for row names, silently
        raise DataError(f"the rows of {path} have more values than its header has names: name every column")
    twice = head[head.duplicated()]
    if len(twice) and not headless:  # pandas renames it, silently
        raise DataError(f"column {twice.iloc[0]!r} is there twice in {path}: rename one of them")
    if frame.iloc[:, -1].isna().any():
        _refuse_short_lines(path, len(frame.columns))
    note = "no header, its first line is a row" if headless else ""
    if str(first) == "Unnamed: 0" and np.array_equal(frame[first], np.arange(len(frame))):
        frame, note = frame.drop(columns=first), "without its index column"
    return _table(_with_dates(frame, but=labels), labels, path.name, note)


def _with_codes(frame: Any, path: Path, headless: bool) -> Any:
    """Keep whole numbers that are written with zeros in front, as postal codes are, as texts."""
    import pandas as pd

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not re.search(rb"(^|[,\n\"])0\d", content):
            return frame
    numbers = [i for i, kind in enumerate(frame.dtypes) if kind.kind in "if"]
    texts = pd.read_csv(path, usecols=numbers, dtype=str, header=None if headless else 0)
    for i, name in zip(numbers, texts, strict=True):
        if texts[name].str.fullmatch(r"0\d+").any() and texts[name].dropna().str.fullmatch(r"\d+").all():
            frame.isetitem(i, texts[name])
    return frame


#: A date with its year first, as ISO 8601 has it, and perhaps a time of day.
_ISO_DATE = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?"


def _with_dates(frame: Any, *, but: Any) -> Any:
    """Take columns of nothing but dates as such; other orders of day and month could mean two dates."""
    import pandas as pd

    for name in frame.columns:
        texts = frame[name].dropna()
        if str(name) == but or pd.api.types.infer_dtype(texts) != "string":
            continue
        if texts.str.fullmatch(_ISO_DATE).all():
            with contextlib.suppress(ValueError):  # no such day, or several time zones: they stay texts
                frame[name] = pd.to_datetime(frame[name], format="ISO8601")
    return frame


def _refuse_short_lines(path: Path, width: int) -> None:
    """Tell lines that end early, which pandas fills up silently, from missing values between commas."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        for row in lines:
            if row and len(row) < width:
                raise DataError(
                    f"line {lines.line_num} of {path} ends after {_count(len(row), 'value')}, and there are "
                    f"{width} columns: complete it, with a comma before each missing value"
                )


def _parquet(path: Path, labels: Any, memory: Any) -> Dataset:
    from chartae.training.streams import StreamedTable

    table = StreamedTable(path, memory)
    return _table(table.whole(), labels, path.name) if table.fits else _streamed(table, labels)


def _streamed(X: Any, labels: Any) -> Dataset:
    """Labels are read whole; a column of them is no feature."""
    note = "read in blocks"
    if not is_streamed_table(X):
        labels = X.labels if labels is None else labels
    elif _names_column(labels, X.columns):
        column = X.select([labels]).whole()[labels]
        X = X.select([c for c in X.columns if c != labels])
        labels, note = _label_column(column, labels, X.name), f"{note}, labels {labels}"
    y = None if labels is None else _labels(labels, len(X), X.name)
    return Dataset(X, y, X.columns, X.name, note)


def _items_of(source: Any, labels: Any, memory: Any) -> Dataset:
    """Items of a torch Dataset: read once where all fit, and asked for each time where not."""
    from chartae.training.streams import TABLE, stream

    X: Any = stream(source, memory=memory)
    if X.nbytes > TABLE * X.memory:
        return _streamed(X, labels)
    return _dataset(X[:], X.labels if labels is None else labels, name=X.name)


def _is_number_line(names: Iterable[Any]) -> bool:
    """Tell whether a header is a row of data; names 0, 1, 2 … are what pandas writes by default."""
    texts = [str(name) for name in names]
    if texts == [str(i) for i in range(len(texts))]:
        return False
    try:
        return bool([float(text) for text in texts])
    except ValueError:
        return False


def _table(frame: Any, labels: Any, name: str, note: str = "") -> Dataset:
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    if not len(frame):
        raise DataError(f"{name} is empty, it has no rows: pass at least one")
    twice = [c for c, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} is there twice in {name}: rename one of them")
    if _names_column(labels, names):
        note = f"{note}, labels {labels}".lstrip(", ")
        column = frame.pop(labels) if labels in frame else None
        labels = _label_column(column, labels, name)
    if not len(frame.columns):
        raise DataError(f"{name} is empty, it has no columns but the labels: pass one feature at least")
    y = None if labels is None else _labels(labels, len(frame), name)
    return Dataset(frame, y, tuple(frame.columns), name, note)


def _names_column(labels: Any, names: Sequence[str]) -> bool:
    """Tell the name of a column from what else labels may be; it must be there."""
    if not isinstance(labels, str) or (labels.endswith(".npy") and labels not in names):
        return False
    if labels not in names:
        near = difflib.get_close_matches(labels, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its columns are {_some(names)}"
        raise DataError(f"the table has no column {labels!r}: {hint}")
    return True


def _label_column(column: Any, key: str, name: str) -> NDArray[Any]:
    numbers = column.dropna()
    measured = column.dtype.kind == "f" and bool((numbers != numbers.round()).any())
    if column.isna().any() and not measured:  # of measured numbers, a missing one is no condition
        row = int(column.isna().to_numpy().argmax())
        raise DataError(
            f"label column {key!r} of {name} is empty in row {row} (from 0): fill it or drop the row"
        )
    array = column.to_numpy()
    return array.astype(str) if array.dtype == object else array


_READERS = {".npy": _npy, ".csv": _csv}


# ------------------------------------------------------------------------------------------ folders of images


def _folder(folder: Path, labels: Any, size: tuple[int, int] | None) -> Dataset:
    visible = visible_files(folder)
    files = [p for p in visible if p.suffix.lower() in IMAGES]
    if not files:
        arrays = [str(p) for p in visible if p.suffix.lower() in (".npz", ".txt", *_READERS)]
        cure = f"pass the file {arrays[0]}" if arrays else "pass another folder"
        raise DataError(f"folder {folder} holds no images ({', '.join(IMAGES)}) or sounds: {cure}")
    others = len(visible) - len(files)
    notes = [f"without {_count(others, 'other file')}"] if others else []
    labels = folder_labels(folder, files) if labels is None else labels
    X, more = load_images(files, size)
    return _dataset(X, labels, name=folder.resolve().name, note=", ".join(notes + more))


# ------------------------------------------------------------------------------------------------- checks


def _dataset(
    X: NDArray[Any],
    labels: Any,
    *,
    columns: tuple[str, ...] | None = None,
    name: str,
    note: str = "",
) -> Dataset:
    refuse_other_than_items(X, name)
    if X.size == 0:
        raise DataError(f"{name} is empty (shape {X.shape}): pass at least one item with one feature")
    refuse_non_finite(X, columns, name)
    return Dataset(X, None if labels is None else _labels(labels, len(X), name), columns, name, note)


def _labels(labels: Any, n: int, name: str) -> NDArray[Any]:
    if isinstance(labels, str):
        if not labels.endswith(".npy"):
            raise DataError(f"{name} has no named parts, so no labels {labels!r}: pass a .npy file of labels")
        labels = read_array(labels)
    try:
        y = array_of(labels)
    except ValueError as e:
        raise DataError(f"the labels do not make an array ({e}): pass one label an item") from None
    if y.dtype == object and all(isinstance(label, str) for label in y.ravel()):
        y = y.astype(str)
    if y.dtype.kind not in "biufU":
        raise DataError(f"the labels are {y.dtype}: pass text, whole numbers, or floats to condition on")
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind != "f":
        y = y[:, 0]  # a column of classes is one label an item; a column of floats is a vector of one
    if y.ndim == 0 or len(y) != n:
        raise DataError(f"the labels have shape {y.shape} and {name} has {n} items: pass one label an item")
    if y.dtype.kind == "f" and np.isinf(y).any():
        row = int(np.argwhere(np.isinf(y))[0][0])
        raise DataError(
            f"the condition in row {row} (from 0) is infinite: correct it, or write NaN for no condition"
        )
    return y


def _describe_labels(y: NDArray[Any]) -> str:
    if y.ndim == 1 and y.dtype.kind != "f":
        found = np.unique(y)
        named = f" ({', '.join(found.tolist())})" if y.dtype.kind == "U" and len(found) <= _NAMED else ""
        return _count(len(found), "label") + named
    absent = int(np.isnan(y).reshape(len(y), -1).any(1).sum()) if y.dtype.kind == "f" else 0
    size = " × ".join(map(str, y.shape[1:]))
    numbers = "one number" if y.ndim == 1 else f"{size} number" + "s" * (size != "1")
    return f"{numbers} an item to condition on" + (f" (none in {_count(absent, 'row')})" if absent else "")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + "s" * (n != 1)


def _missing(path: Path) -> NoReturn:
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"there is no {path}: its folder {parent} does not exist either")
    names = [p.name for p in parent.iterdir() if not p.name.startswith(".")]
    names += ["digits"] * (len(path.parts) == 1)
    close = difflib.get_close_matches(path.name, names, n=2)
    cure = f"did you mean {' or '.join(close)}?" if close else "pass a file, a folder of images, or digits"
    raise DataError(f"there is no {path}: {cure}")


def _pickled(what: str) -> NoReturn:
    raise DataError(
        f"{what} holds Python objects, which could run code and are not loaded: save numbers of one shape,"
        " np.stack(list(X))"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
