"""Texts as rows of tokens, and back."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chartae.core.errors import ChartaeError, DataError, PackageError, PlanError, one_line
from chartae.parts.networks import evaluating

__all__ = ["Borrowed", "BytePairs", "Bytes", "language_model_of", "texts_of", "tokenized"]

VOCABULARY = 2048  # byte pairs, unless a number says how many
BYTES = 4  # of a character, at most
LONGEST = 512  # tokens of a text, unless a number says how many: all rows are as long as the longest
ROUNDING = 8  # digits in the last place, by which two rows of one batch may differ


@dataclass(frozen=True)
class _Tokens(ABC):
    """Texts as rows of numbers: tokens count from 1, the largest number ends a text, and zeros fill it up."""

    max_length: int
    kind: ClassVar[str]
    noun: ClassVar[str] = "text"
    restores: ClassVar[bool] = True  # what a model says is shown as text again
    likelihood: ClassVar[str] = "sequence"  # that suits what it gives
    unit: ClassVar[str]

    @property
    @abstractmethod
    def end(self) -> int:
        """The number that ends a text."""

    @abstractmethod
    def _numbers(self, text: str) -> NDArray[np.int64]:
        """Give the tokens of a text, from 0."""

    @abstractmethod
    def _text(self, numbers: NDArray[np.int64]) -> str:
        """Read tokens from 0 as a text."""

    def __post_init__(self) -> None:
        if isinstance(self.max_length, bool) or not isinstance(self.max_length, int) or self.max_length < 1:
            raise PlanError(f"max_length={self.max_length!r}: a text has one {self.unit} or more")

    def encode(self, texts: Any) -> NDArray[np.integer[Any]]:
        """Number the tokens of texts; those that are longer than may be are cut, with a warning.

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
            If they are no texts, or one is empty.
        """
        texts = texts_of(texts)
        lengths = np.zeros(len(texts), int)
        out = np.zeros((len(texts), self.max_length + 1), np.min_scalar_type(-self.end - 1))
        for i, (row, text) in enumerate(zip(out, texts, strict=True)):
            if not text:
                raise DataError(f"text {i} (from 0) is empty: leave it out")
            found = self._numbers(text)
            lengths[i], found = len(found), self._cut(found)
            row[: len(found)] = found + 1
            row[len(found)] = self.end
        if (cut := int((lengths > self.max_length).sum())) > 0:
            more = min(int(lengths.max()), 2 * self.max_length)
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts cut to {self.max_length:,} {self.unit}s (the longest has "
                f"{lengths.max():,}): fit with max_length={more} to keep more of them, which takes longer",
                stacklevel=5,
            )
        return out

    def _cut(self, found: Any) -> Any:
        """Keep the first numbers, and no part of a character, of which a token may hold a byte."""
        kept = found[: self.max_length]
        if len(kept) < len(found):
            whole = (kept[: len(kept) - i] for i in range(min(BYTES, len(kept) - 1)))
            return next((part for part in whole if not self._text(np.asarray(part)).endswith("�")), kept)
        return kept

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
            stop = np.flatnonzero((row == self.end) | (row == 0))
            kept = row[: stop[0]] if len(stop) else row
            texts.append(self._text((kept - 1).clip(0, self.end - 2)))
        return texts

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        return {"kind": self.kind, **self.__getstate__()}

    def tensors(self) -> dict[str, Tensor]:
        """Give the arrays that it needs besides: none.

        Returns
        -------
        dict of str to Tensor
            Empty; no shapes, as there is nothing.
        """
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Self:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.
        tensors : Mapping of str to Tensor, optional
            As :meth:`tensors` gives them, of no shape: none are needed.

        Returns
        -------
        object
            An equal one.

        Raises
        ------
        PlanError
            If the values are not those of one, or a library is missing.
        """
        names = [f.name for f in fields(cls)]
        if config.get("kind") != cls.kind or not {*names} <= {*config}:
            raise PlanError(
                f"these are not the values of {cls.__name__}, kind, {', '.join(names)}: take config()"
            )
        return cls(**{name: config[name] for name in names})


@dataclass(frozen=True)
class Bytes(_Tokens):
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

    kind: ClassVar[str] = "bytes"
    unit: ClassVar[str] = "byte"
    end = 257

    @classmethod
    def fit(cls, texts: Any, max_length: int | None = None) -> Bytes:
        """Make room for texts.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        max_length : int or None
            Bytes of the longest that there may be; None: of these, 512 at most.

        Returns
        -------
        Bytes
            For texts up to that length.

        Raises
        ------
        DataError
            If they are no texts.
        """
        return cls(_room(max_length, (len(text.encode()) for text in texts_of(texts))))

    def _numbers(self, text: str) -> NDArray[np.int64]:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def _text(self, numbers: NDArray[np.int64]) -> str:
        return numbers.astype(np.uint8).tobytes().decode(errors="replace")


@dataclass(frozen=True)
class _Pieces(_Tokens):
    """Pieces of texts that the library tokenizers cuts."""

    vocabulary: str = field(repr=False)
    unit: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._tokenizer  # a vocabulary that is broken is refused here

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            return _library().Tokenizer.from_str(self.vocabulary)
        except ChartaeError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise PlanError(
                f"this is no vocabulary of byte pairs ({one_line(error)}): take config()"
            ) from None


@dataclass(frozen=True)
class BytePairs(_Pieces):
    """Pieces of texts that come often, merged from their bytes: shorter rows, and every text has one.

    A piece is a number from 1; the one after the last ends a text, and zeros fill its row up.

    Parameters
    ----------
    max_length : int
        Pieces of the longest text.
    vocabulary : str
        The pieces and how they are merged, as the JSON of the library tokenizers.

    Raises
    ------
    PlanError
        If the length is less than one, the vocabulary none, or the library missing.

    References
    ----------
    Sennrich, Haddow and Birch 2016, arXiv:1508.07909, section 3.2.

    Examples
    --------
    >>> from chartae.training.tokens import BytePairs
    >>> pairs = BytePairs.fit(["a small red fox", "a small gray fox"], 300)
    >>> pairs.max_length, pairs.decode(pairs.encode(["a small 🦊"]))
    (8, ['a small 🦊'])
    """

    kind: ClassVar[str] = "byte-pairs"

    @property
    def end(self) -> int:
        """The number that ends a text."""
        return int(self._tokenizer.get_vocab_size()) + 1

    @classmethod
    def fit(cls, texts: Any, size: int = VOCABULARY, max_length: int | None = None) -> BytePairs:
        """Learn which pieces come often.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        size : int
            Pieces, at most, 256 bytes among them; fewer, where no more come twice.
        max_length : int or None
            Pieces of the longest text that there may be; None: of these, 512 at most.

        Returns
        -------
        BytePairs
            The same for the same texts.

        Raises
        ------
        DataError
            If they are no texts.
        PlanError
            If there are fewer pieces than bytes, or the library is missing.
        """
        if size < 256:
            raise PlanError(f"tokens={size!r}: every byte is a token, so give 256 or more, 'bpe' or 'bytes'")
        library, texts = _library(), texts_of(texts)
        level = library.pre_tokenizers.ByteLevel
        made = library.Tokenizer(library.models.BPE())
        made.pre_tokenizer, made.decoder = level(add_prefix_space=False), library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=int(size),
            min_frequency=2,
            initial_alphabet=sorted(level.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        lengths = (len(made.encode(text).ids) for text in texts)
        return cls(_room(max_length, lengths), made.to_str())

    def _numbers(self, text: str) -> NDArray[np.int64]:
        return np.array(self._tokenizer.encode(text).ids, np.int64)

    def _text(self, numbers: NDArray[np.int64]) -> str:
        return str(self._tokenizer.decode(numbers.tolist()))


@dataclass(frozen=True)
class Borrowed(_Pieces):
    """Pieces of texts as the tokenizer of a language model cuts them, numbered as rows are here.

    The model's tokens keep their order and count from 1, except for the one that ends texts: it is the last.

    Parameters
    ----------
    max_length : int
        Pieces of the longest text.
    vocabulary : str
        The JSON of the library tokenizers.
    begins, ends : int
        The model's numbers of what stands before a text, and of what ends it.

    Raises
    ------
    PlanError
        If the length is less than one, the vocabulary none or without these, or the library missing.

    Examples
    --------
    >>> from transformers import PreTrainedTokenizerFast
    >>> from chartae.training.tokens import Borrowed, BytePairs
    >>> library = BytePairs.fit(["a fox"], 256)._tokenizer
    >>> _ = library.add_special_tokens(["<end>"])
    >>> medium = Borrowed.of(PreTrainedTokenizerFast(tokenizer_object=library, eos_token="<end>"), ["a fox"])
    >>> medium.encode(["a"]).tolist(), medium.decode(medium.encode(["a fox"]))
    ([[65, 257, 0, 0, 0, 0]], ['a fox'])
    """

    begins: int
    ends: int

    kind: ClassVar[str] = "language-model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not {self.begins, self.ends} <= {*self._tokenizer.get_vocab().values()}:
            raise PlanError("the tokens that begin and end texts are not in the vocabulary: take config()")

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The model's number of each here, ``(levels,)``; 0, which is never told, has that of the end."""
        others = sorted({*self._tokenizer.get_vocab().values()} - {self.ends})
        return np.array([self.ends, *others, self.ends], np.int64)

    @cached_property
    def _here(self) -> dict[int, int]:
        return {int(found): number for number, found in enumerate(self.ids[1:-1])}

    @property
    def end(self) -> int:
        """The number that ends a text."""
        return len(self.ids) - 1

    @classmethod
    def of(cls, tokenizer: Any, texts: Any, max_length: int | None = None) -> Borrowed:
        """Take the tokenizer of a language model, and make room for texts.

        Parameters
        ----------
        tokenizer : PreTrainedTokenizerBase or Borrowed
            Of the library transformers, backed by the library tokenizers.
        texts : sequence of str
            The texts.
        max_length : int or None
            Pieces of the longest that there may be; None: of these, 512 at most.

        Returns
        -------
        Borrowed
            For texts up to that length.

        Raises
        ------
        DataError
            If they are no texts.
        PlanError
            If the tokenizer is none, or has no token that ends texts.
        """
        if isinstance(tokenizer, Borrowed):
            made = tokenizer
        else:
            library = getattr(tokenizer, "backend_tokenizer", None)
            if library is None:
                raise PlanError(
                    "a language model needs its tokenizer, a fast one of transformers: pass it as tokens="
                )
            ends, begins = tokenizer.eos_token_id, tokenizer.bos_token_id
            if ends is None:
                raise PlanError("the tokenizer has no token that ends texts: set its eos_token")
            made = cls(1, library.to_str(), ends if begins is None else begins, ends)
        texts = texts_of(texts)
        return replace(made, max_length=_room(max_length, (len(made._ids(text)) for text in texts)))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _numbers(self, text: str) -> NDArray[np.int64]:
        ids = self._ids(text)
        if self.ends in ids:
            raise DataError(f"{text!r} holds the token that ends texts: leave it out")
        return np.array([self._here[i] for i in ids], np.int64)

    def _text(self, numbers: NDArray[np.int64]) -> str:
        return str(self._tokenizer.decode(self.ids[1:][numbers].tolist(), skip_special_tokens=False))


def language_model_of(language_model: Any, tokens: Any = None) -> tuple[Any, Any]:
    """Check a causal language model and its tokenizer, or open both by name.

    Parameters
    ----------
    language_model : str or nn.Module
        A name or folder, which the library transformers opens, or a model of it.
    tokens : object
        Its tokenizer; None or "bytes", the default elsewhere: the one of that name.

    Returns
    -------
    tuple
        Model and tokenizer.

    Raises
    ------
    PlanError
        If it is no causal language model, in which what follows a token changes nothing, the tokenizer is
        missing, or they cannot be opened.

    Examples
    --------
    >>> from chartae.training.tokens import language_model_of
    >>> language_model_of(3)
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: language_model is of type int, and no causal language model ...
    """
    if isinstance(language_model, str):
        name = language_model
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise PlanError(
                "language models need transformers: pip install 'chartae[transformers]'"
            ) from None
        try:
            language_model = AutoModelForCausalLM.from_pretrained(name)
            tokens = AutoTokenizer.from_pretrained(name) if tokens in (None, "bytes") else tokens
        except (OSError, ValueError) as error:
            raise PlanError(f"cannot open the language model {name!r} ({one_line(error)})") from None
    config = getattr(language_model, "config", None)
    speaks = callable(getattr(language_model, "can_generate", None)) and language_model.can_generate()
    if not speaks or getattr(config, "is_encoder_decoder", False):
        raise PlanError(
            f"language_model is of type {type(language_model).__name__}, and no causal language model of "
            "transformers: pass one, as AutoModelForCausalLM opens it"
        )
    if not _is_causal(language_model):
        raise PlanError(
            f"in the language model, a {type(language_model).__name__}, tokens look at those after them: "
            "pass a causal one, or set is_decoder=True in its config"
        )
    return language_model, tokens


def _is_causal(language_model: Any) -> bool:
    """Whether another last vector leaves the logits of places before it as they are."""
    words = language_model.get_input_embeddings().weight
    with torch.no_grad(), evaluating(language_model):
        x = words.std() * torch.randn(3, words.shape[1], generator=torch.Generator().manual_seed(0)).to(words)
        logits = language_model(inputs_embeds=torch.stack([x, torch.cat([x[:2], -x[2:]])])).logits[:, :2]
    gap = (logits[0] - logits[1]).abs().max()
    return bool(gap <= ROUNDING * torch.finfo(logits.dtype).eps * logits.abs().max())


def tokenized(texts: Any, tokens: str | int = "bytes", max_length: int | None = None) -> Bytes | BytePairs:
    """Choose how texts become tokens.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    tokens : {"bytes", "bpe"} or int
        Bytes, or byte pairs, of which there are as many as the number says.
    max_length : int or None
        Tokens of the longest text that there may be; None: of these, 512 at most.

    Returns
    -------
    Bytes or BytePairs
        Fitted to the texts.

    Raises
    ------
    PlanError
        If there are no such tokens.

    Examples
    --------
    >>> from chartae.training.tokens import tokenized
    >>> tokenized(["a fox"])
    Bytes(max_length=5)
    """
    if isinstance(tokens, str) and tokens == Bytes.kind:
        return Bytes.fit(texts, max_length)
    if isinstance(tokens, str) and tokens != "bpe":
        raise PlanError(f"tokens={tokens!r}: give 'bytes', 'bpe' or a number of byte pairs")
    return BytePairs.fit(texts, VOCABULARY if isinstance(tokens, str) else tokens, max_length)


def _room(max_length: int | None, lengths: Iterable[int]) -> int:
    """Tokens that there is room for: as many as are asked for, or as the longest text has, within reason."""
    return max(1, min(LONGEST, max(lengths))) if max_length is None else int(max_length)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise PackageError("byte pairs need tokenizers: pip install 'chartae[text]'") from None
    return tokenizers


def texts_of(texts: Any, noun: str = "text") -> Sequence[str]:
    """Check that texts are texts, and give them as a list.

    Parameters
    ----------
    texts : sequence of str
        A list, an array or a column of a table.
    noun : str
        What one of them is, for messages.

    Returns
    -------
    sequence of str
        The same.

    Raises
    ------
    DataError
        If they are not.

    Examples
    --------
    >>> from chartae.training.tokens import texts_of
    >>> texts_of(["a fox", 3])
    Traceback (most recent call last):
    ...
    chartae.core.errors.DataError: text 1 (from 0) is of type int: give str
    """
    if hasattr(texts, "columns") or isinstance(texts, dict):
        raise DataError(f"{noun}s are a list of str, and this is a table: pass the column that holds them")
    if isinstance(texts, str) or not hasattr(texts, "__iter__"):
        raise DataError(f"{noun}s are a list of str, and this is a {type(texts).__name__}: put it in a list")
    found = list(texts)
    if not found:
        raise DataError(f"there are no {noun}s: give one or more")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(f"{noun} {i} (from 0) is of type {type(text).__name__}: give str")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{noun} {i} (from 0) holds half of a character: read it with errors='replace'")
    return found
