"""Arrays of NumPy, each in a file of its own."""

from __future__ import annotations

import difflib
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from chartae.core.errors import DataError, one_line
from chartae.core.files import BUNDLED

__all__ = ["read_array"]

#: What NumPy raises of a damaged file.
DAMAGE = (
    *(ValueError, EOFError, OSError, KeyError, SyntaxError, NotImplementedError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


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
        refuse_missing(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as e:
        ours = is_npy(path)
        if ours and ("allow_pickle" in str(e) or "Python objects" in str(e)):
            refuse_pickled(str(path))
        why = one_line(e) if ours else "it is no array of NumPy"
        raise DataError(f"cannot read {path} ({why}): write it again with np.save") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path} is an archive of arrays: rename it to end in .npz")
    return array


def is_npy(path: Path) -> bool:
    """Tell an array of NumPy by how its file begins; what begins otherwise is a pickle to NumPy."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX


def refuse_missing(path: Path) -> NoReturn:
    parent = path.parent
    if not parent.is_dir():
        raise DataError(f"there is no {path}: its folder {parent} does not exist either")
    names = [p.name for p in parent.iterdir() if not p.name.startswith(".")]
    names += [BUNDLED] * (len(path.parts) == 1)
    close = difflib.get_close_matches(path.name, names, n=2)
    cure = f"did you mean {' or '.join(close)}?" if close else "pass a file, a folder of images, or digits"
    raise DataError(f"there is no {path}: {cure}")


def refuse_pickled(what: str) -> NoReturn:
    raise DataError(
        f"{what} holds Python objects, which could run code and are not loaded: save numbers of one shape,"
        " np.stack(list(X))"
    )
