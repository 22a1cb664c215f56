"""Text: from texts to vectors, offline by counting words, or by a model of another package."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from chartae.core.errors import DataError, PlanError, one_line
from chartae.training.pairs import analyzer
from chartae.training.tokens import BytePairs, Bytes, texts_of, tokenized

__all__ = ["SentenceEncoder", "TextEncoder", "encoded", "lines_of", "texts_in"]

_WORDS = 20_000  # the most frequent ones are kept: rarer words tie few texts together
_DIM = 256
_SENTENCE = "sentence-transformers/"


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """Latent semantic analysis: weighted word counts, projected onto their main directions.

    A text's counts enter as ``1 + log(count)``, times the rarity of the word, ``log((1 + n) / (1 + df)) + 1``
    of ``n`` texts of which ``df`` hold it; a truncated SVD of these rows, each of length 1, gives the
    directions. Vectors have length 1; a text without a known word is the zero vector.

    Parameters
    ----------
    vocabulary : tuple of str
        The words that count, in the order of the arrays.
    idf : ndarray of shape (words,)
        Their rarities, float32.
    components : ndarray of shape (d, words)
        The directions, float32.

    Raises
    ------
    PlanError
        If the shapes do not agree.

    References
    ----------
    Salton and Buckley 1988, doi:10.1016/0306-4573(88)90021-0 (weights); Deerwester et al. 1990,
    doi:10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9 (latent semantic analysis); Halko,
    Martinsson and Tropp 2011, arXiv:0909.4061 (the SVD).

    Examples
    --------
    >>> from chartae.training.text import TextEncoder
    >>> texts = ["the cat sat", "a cat sat down", "shares fell", "shares fell again"]
    >>> encoder = TextEncoder.fit(texts, dim=2)
    >>> X = encoder.encode([*texts, "cat", "unseen"])
    >>> X.shape, [round(abs(float(X[4] @ X[i])), 2) for i in (0, 2, 5)]
    ((6, 2), [1.0, 0.0, 0.0])
    """

    vocabulary: tuple[str, ...]
    idf: NDArray[np.float32]
    components: NDArray[np.float32]

    kind: ClassVar[str] = "tfidf"
    noun: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        words = len(set(self.vocabulary))
        if not (words == len(self.vocabulary) == len(self.idf) and self.components.shape[1:] == (words,)):
            raise PlanError(
                f"{words} different words, rarities {self.idf.shape} and directions {self.components.shape}"
                " do not fit: pass (words,) and (d, words)"
            )

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int = _DIM) -> TextEncoder:
        """Learn words, rarities and directions.

        Parameters
        ----------
        texts : sequence of str
            The texts to learn from.
        dim : int
            Dimensions of a vector, at most; there are no more than texts or words.

        Returns
        -------
        TextEncoder
            The same for the same texts.

        Raises
        ------
        DataError
            If they are no texts, or none holds a word.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd

        texts = texts_of(texts)
        vectorizer = TfidfVectorizer(
            analyzer=analyzer(), max_features=_WORDS, sublinear_tf=True, dtype=np.float32
        )
        try:
            counts = vectorizer.fit_transform(texts)
        except ValueError:  # an empty vocabulary
            raise DataError("no text holds a word: pass another encoder") from None
        _, _, components = randomized_svd(counts, min(dim, *counts.shape), random_state=0)
        words = tuple(str(word) for word in vectorizer.get_feature_names_out())
        return cls(words, vectorizer.idf_.astype(np.float32), components.astype(np.float32))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Make a vector of each text.

        Parameters
        ----------
        texts : sequence of str
            The texts.

        Returns
        -------
        ndarray of shape (n, d)
            Float32, of length 1 each, or 0.

        Raises
        ------
        DataError
            If they are no texts.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize

        texts = texts_of(texts)
        vectorizer = TfidfVectorizer(
            analyzer=analyzer(), vocabulary=self.vocabulary, sublinear_tf=True, dtype=np.float32
        )
        vectorizer.idf_ = self.idf
        return normalize(np.asarray(vectorizer.transform(texts) @ self.components.T), copy=False)

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again, but for the arrays.

        Returns
        -------
        dict
            JSON values.
        """
        return {"kind": self.kind, "vocabulary": list(self.vocabulary)}

    def tensors(self) -> dict[str, Tensor]:
        """Give the arrays that it needs besides.

        Returns
        -------
        dict of str to Tensor
            ``idf``, ``(words,)``, and ``components``, ``(d, words)``.
        """
        return {name: torch.tensor(getattr(self, name)) for name in ("idf", "components")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TextEncoder:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.
        tensors : Mapping of str to Tensor
            As :meth:`tensors` gives them, ``(words,)`` and ``(d, words)``.

        Returns
        -------
        TextEncoder
            One that gives the same vectors.

        Raises
        ------
        PlanError
            If something is missing, or does not fit.
        """
        words = config.get("vocabulary")
        if config.get("kind") != cls.kind or not {"idf", "components"} <= tensors.keys():
            raise PlanError("these are not the values of a text encoder: take config() and tensors()")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise PlanError("the vocabulary of a text encoder is a list of words: take config()")
        return cls(tuple(words), tensors["idf"].numpy(), tensors["components"].numpy())


@dataclass(frozen=True)
class SentenceEncoder:
    """A model of the package sentence-transformers, by its name.

    Parameters
    ----------
    name : str
        Such as ``"all-MiniLM-L6-v2"``, or the path of a folder.

    References
    ----------
    Reimers and Gurevych 2019, arXiv:1908.10084.

    Examples
    --------
    >>> from chartae.training.text import SentenceEncoder
    >>> SentenceEncoder("all-MiniLM-L6-v2").config()
    {'kind': 'sentence-transformers', 'name': 'all-MiniLM-L6-v2'}
    """

    name: str

    kind: ClassVar[str] = "sentence-transformers"
    noun: ClassVar[str] = "text"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Make a vector of each text.

        Parameters
        ----------
        texts : sequence of str
            The texts.

        Returns
        -------
        ndarray of shape (n, d)
            Float32.

        Raises
        ------
        DataError
            If the package is not there, or has no such model.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise DataError(
                f"the encoder {self.name} needs a package that is missing: pip install sentence-transformers"
            ) from None
        try:
            model = SentenceTransformer(self.name)
        except (OSError, ValueError) as e:
            why = one_line(e)
            raise DataError(f"cannot load the encoder {self.name} ({why}): check its name") from None
        return np.asarray(model.encode(list(texts)), dtype=np.float32)

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        return {"kind": self.kind, "name": self.name}

    def tensors(self) -> dict[str, Tensor]:
        """Give the arrays that it needs besides: none.

        Returns
        -------
        dict of str to Tensor
            Empty; no shapes, as there is nothing.
        """
        return {}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> SentenceEncoder:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.
        tensors : Mapping of str to Tensor, optional
            As :meth:`tensors` gives them, of no shape: none are needed.

        Returns
        -------
        SentenceEncoder
            An equal one.

        Raises
        ------
        PlanError
            If the values are not those of such an encoder.
        """
        if config.get("kind") != cls.kind or not isinstance(config.get("name"), str):
            raise PlanError("these are not the values of a sentence encoder, kind and name: take config()")
        return cls(config["name"])


def texts_in(path: str | os.PathLike[str]) -> list[str]:
    r"""Read texts from a file, one a line.

    Parameters
    ----------
    path : str or path
        A UTF-8 ``.txt`` file; empty lines are skipped, with a warning, since rows are then no line numbers.

    Returns
    -------
    list of str
        The texts, without spaces around them.

    Raises
    ------
    DataError
        If the file is not UTF-8 or holds no text.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.training.text import texts_in
    >>> _ = Path("toy.txt").write_text("a red fox\n a red car\n", encoding="utf-8")
    >>> texts_in("toy.txt")
    ['a red fox', 'a red car']
    """
    lines = lines_of(path)
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path} holds no text: write one a line")
    if len(texts) < len(lines):
        line = next(i for i, text in enumerate(lines, 1) if not text.strip())
        warnings.warn(
            f"{path}: {len(lines) - len(texts):,} of {len(lines):,} lines are empty and skipped, "
            f"the first is line {line}",
            stacklevel=5,
        )
    return texts


def encoded(
    texts: Sequence[str], encoder: Any = "tfidf"
) -> tuple[NDArray[np.float32], TextEncoder | SentenceEncoder | Bytes | BytePairs | None, str]:
    r"""Make vectors of texts.

    Parameters
    ----------
    texts : sequence of str
        ``n`` of them.
    encoder : str, encoder or callable
        "tfidf" fits a :class:`TextEncoder`; "bytes" and "bpe" take texts as tokens, for a likelihood of
        sequences (:func:`~chartae.training.tokens.tokenized`), and "bytes:256" no more than so many of each;
        "sentence-transformers/NAME" takes a model of that package; or an encoder that is there already; or a
        function from a list of str to an array of shape (n, d).

    Returns
    -------
    X : ndarray of shape (n, d)
        Float32.
    encoder : TextEncoder, SentenceEncoder, Bytes, BytePairs or None
        How vectors were made; None for a function, which is nowhere kept.
    note : str
        What was chosen on the way.

    Raises
    ------
    DataError
        If the encoder is unknown, or gives no array of finite numbers with one row a text.

    Examples
    --------
    >>> from chartae.training.text import encoded
    >>> X, encoder, note = encoded(["a red fox", "a red car"])
    >>> X.shape, note
    ((2, 2), 'tfidf of 4 words')
    """
    made, note = _encoder(encoder, texts)
    X = _vectors(made.encode(texts) if made else encoder(texts), len(texts))
    return X, made, note


def lines_of(path: str | os.PathLike[str]) -> list[str]:
    r"""Read the lines of a text file.

    Parameters
    ----------
    path : str or path
        UTF-8, with or without a byte order mark.

    Returns
    -------
    list of str
        Without what ends them.

    Raises
    ------
    DataError
        If it cannot be read, or is not UTF-8.

    Examples
    --------
    >>> from pathlib import Path
    >>> from chartae.training.text import lines_of
    >>> _ = Path("toy.txt").write_text("a red fox\na red car\n", encoding="utf-8")
    >>> lines_of("toy.txt")
    ['a red fox', 'a red car']
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as e:
        raise DataError(f"cannot read {path} ({e.strerror}): look at its name") from None
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 (byte {e.start}): save it as UTF-8") from None
    return lines[:-1] if lines[-1] == "" else lines  # the last line ends too


def _encoder(
    encoder: Any, texts: Sequence[str]
) -> tuple[TextEncoder | SentenceEncoder | Bytes | BytePairs | None, str]:
    """Make or take an encoder, and say in a few words what it is; None for a function."""
    if encoder == "tfidf":
        encoder = TextEncoder.fit(texts)
    elif isinstance(encoder, str) and (found := re.fullmatch(r"(bytes|bpe)(?::([1-9]\d*))?", encoder)):
        encoder = tokenized(texts, found[1], int(found[2]) if found[2] else None)
    elif isinstance(encoder, str) and encoder.startswith(_SENTENCE) and encoder != _SENTENCE:
        encoder = SentenceEncoder(encoder.removeprefix(_SENTENCE))
    if isinstance(encoder, TextEncoder):
        return encoder, f"tfidf of {len(encoder.vocabulary):,} words"
    if isinstance(encoder, SentenceEncoder):
        return encoder, f"encoder {encoder.name}"
    if isinstance(encoder, Bytes | BytePairs):
        return encoder, f"up to {encoder.max_length} {encoder.unit}s"
    if callable(encoder):
        return None, f"encoder {getattr(encoder, '__name__', type(encoder).__name__)}"
    raise DataError(
        f"there is no text encoder {encoder!r}: pass 'tfidf', 'bytes', 'bpe', '{_SENTENCE}NAME', or a "
        "function from a list of str to an array"
    )


def _vectors(values: ArrayLike, n: int) -> NDArray[np.float32]:
    X = np.asarray(values)
    if X.ndim != 2 or len(X) != n or not X.shape[1] or X.dtype.kind not in "biuf":
        raise DataError(
            f"the encoder gave an array of shape {X.shape} and type {X.dtype} for {n} texts: let it give"
            f" numbers of shape ({n}, d)"
        )
    X = X.astype(np.float32, copy=False)
    if not np.isfinite(X).all():
        row = int(np.argwhere(~np.isfinite(X))[0][0])
        raise DataError(f"the encoder gave a value that is not finite for text {row} (from 0): mend it there")
    return X
