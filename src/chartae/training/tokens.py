"""Texts as rows of tokens, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from chartae.core.errors import DataError, PlanError

__all__ = ["Bytes", "texts_of"]

END = 257


@dataclass(frozen=True)
class Bytes:
    """The bytes of a text in UTF-8, as numbers from 1 to 256; 257 ends it, and zeros fill its row up.

    Parameters
    ----------
    max_length : int
        Bytes of the longest text.

    Raises
    ------
    PlanError
        If that is less than one.

    Examples
    --------
    >>> from chartae.training.tokens import Bytes
    >>> tokens = Bytes(5).encode(["fox", "Köln"])
    >>> tokens.tolist()
    [[103, 112, 121, 257, 0, 0], [76, 196, 183, 109, 111, 257]]
    >>> Bytes(5).decode(tokens)
    ['fox', 'Köln']
    """

    max_length: int

    kind: ClassVar[str] = "bytes"
    noun: ClassVar[str] = "text"
    restores: ClassVar[bool] = True  # what a model says is shown as text again

    def __post_init__(self) -> None:
        if isinstance(self.max_length, bool) or not isinstance(self.max_length, int) or self.max_length < 1:
            raise PlanError(f"max_length={self.max_length!r}: a text has one byte or more")

    @classmethod
    def fit(cls, texts: Any, max_length: int | None = None) -> Bytes:
        """Make room for texts.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        max_length : int or None
            Bytes of the longest that there may be; None: of these.

        Returns
        -------
        Bytes
            For texts up to that length.

        Raises
        ------
        DataError
            If they are no texts.
        """
        longest = max(len(text.encode()) for text in texts_of(texts))
        return cls(longest if max_length is None else int(max_length))

    def encode(self, texts: Any) -> NDArray[np.int16]:
        """Number the bytes of texts.

        Parameters
        ----------
        texts : sequence of str
            The texts.

        Returns
        -------
        ndarray of shape (n, max_length + 1)
            Tokens.

        Raises
        ------
        DataError
            If they are no texts, or one is empty or too long.
        """
        texts = texts_of(texts)
        out = np.zeros((len(texts), self.max_length + 1), np.int16)
        for i, (row, text) in enumerate(zip(out, texts, strict=True)):
            found = np.frombuffer(text.encode(), np.uint8)
            if len(found) > self.max_length:
                raise DataError(
                    f"text {i} (from 0) has {len(found)} bytes, and the longest may have {self.max_length}: "
                    "shorten it, or fit with a larger max_length"
                )
            row[: len(found)] = found
            row[: len(found)] += 1
            row[len(found)] = END
        return out

    def decode(self, items: Any) -> list[str]:
        """Read tokens as texts.

        Parameters
        ----------
        items : array_like
            ``(n, length)`` tokens.

        Returns
        -------
        list of str
            Up to the end of each; bytes that are no UTF-8 become "�".
        """
        rows = np.asarray(items).round().astype(np.int64)
        texts = []
        for row in rows:
            stop = np.flatnonzero((row == END) | (row == 0))
            kept = row[: stop[0]] if len(stop) else row
            texts.append((kept - 1).clip(0, 255).astype(np.uint8).tobytes().decode(errors="replace"))
        return texts

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        return {"kind": self.kind, "max_length": self.max_length}

    def tensors(self) -> dict[str, Tensor]:
        """Give the arrays that it needs besides: none.

        Returns
        -------
        dict of str to Tensor
            Empty; no shapes, as there is nothing.
        """
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Bytes:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.
        tensors : Mapping of str to Tensor, optional
            As :meth:`tensors` gives them, of no shape: none are needed.

        Returns
        -------
        Bytes
            An equal one.

        Raises
        ------
        PlanError
            If the values are not those of one.
        """
        if config.get("kind") != cls.kind or "max_length" not in config:
            raise PlanError("these are not the values of texts as bytes, kind and max_length: take config()")
        return cls(config["max_length"])


def texts_of(texts: Any) -> Sequence[str]:
    """Check that texts are texts, and give them as a list.

    Parameters
    ----------
    texts : sequence of str
        A list, an array or a column of a table.

    Returns
    -------
    sequence of str
        The same.

    Raises
    ------
    DataError
        If they are not, or one of them is empty.

    Examples
    --------
    >>> from chartae.training.tokens import texts_of
    >>> texts_of(["a fox", ""])
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: text 1 (from 0) is empty: leave it out
    """
    if hasattr(texts, "columns") or isinstance(texts, dict):
        raise DataError("texts are a list of str, and this is a table: pass the column that holds them")
    if isinstance(texts, str) or not hasattr(texts, "__iter__"):
        raise DataError(f"texts are a list of str, and this is a {type(texts).__name__}: put it in a list")
    found = list(texts)
    if not found:
        raise DataError("there are no texts: give one or more")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(f"text {i} (from 0) is of type {type(text).__name__}: give str")
        if not text:
            raise DataError(f"text {i} (from 0) is empty: leave it out")
    return found
