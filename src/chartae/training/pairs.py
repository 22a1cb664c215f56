"""Texts as numbers of words, and the pairs of words that stand near each other."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chartae.core.errors import DataError

__all__ = ["Corpus", "analyzer", "blocks", "near", "numbered", "plain", "vocabulary"]

BLOCK = 1 << 20  # words of which pairs are made in one go
#: Pictures, with what joins and changes them.
PICTURE = (
    "[\U0001f000-\U0001f1e5\U0001f200-\U0001faff\u2600-\u27bf\u2b00-\u2bff][\ufe0f\U0001f3fb-\U0001f3ff]*"
)
FLAG = "[\U0001f1e6-\U0001f1ff]{2}"
UNMARKED = range(0xFE00, 0xFE10)  # they choose how a picture looks, and stand after no letter


class Corpus(NamedTuple):
    """Texts, one after the other.

    Attributes
    ----------
    words : ndarray
        ``(t,)`` numbers of words.
    text : ndarray
        ``(t,)``, which text each stands in.

    Examples
    --------
    >>> from chartae.training.pairs import numbered
    >>> numbered(["the red fox", "a fox"], ("fox", "red")).words.tolist()
    [1, 0, 0]
    """

    words: NDArray[np.int64]
    text: NDArray[np.int64]


@cache
def _word() -> str:
    """Letters with their marks, numbers, and pictures; the t of "don't" is no word.

    Vowels of many scripts are marks, which Python does not count among what words are made of.
    """
    marks = (chr(i) for i in range(0x300, 0x10000) if i not in UNMARKED)
    marked = rf"[{''.join(mark for mark in marks if unicodedata.category(mark) in ('Mn', 'Mc'))}]\w*"
    letters = rf"\w\w+(?:{marked})*|\w(?:{marked})+|(?<!\w['’.])\w"
    return rf"{letters}|{FLAG}|{PICTURE}(?:\u200d{PICTURE})*"


def plain(text: str) -> str:
    """Write a text as its words are known: in lower case, a letter and its mark as one, where there is one.

    Parameters
    ----------
    text : str
        The text.

    Returns
    -------
    str
        In normal form C.

    Examples
    --------
    >>> from chartae.training.pairs import plain
    >>> plain("CAFE\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).lower()


def analyzer() -> Callable[[str], list[str]]:
    """Give what tells the words of a text, in lower case: letters with their marks, digits, or an emoji.

    Returns
    -------
    callable
        From a text to its words.

    Examples
    --------
    >>> from chartae.training.pairs import analyzer
    >>> analyzer()("The fox. 🦊 यह")
    ['the', 'fox', '🦊', 'यह']
    """
    from sklearn.feature_extraction.text import CountVectorizer

    found: Callable[[str], list[str]] = CountVectorizer(
        preprocessor=plain, token_pattern=_word()
    ).build_analyzer()
    return found


def vocabulary(texts: Sequence[str], min_count: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Find the words of texts: in lower case, of letters and digits, or an emoji.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    min_count : int
        Words that come less often are left out.

    Returns
    -------
    words : tuple of str
        The most frequent first, equal ones by the alphabet.
    counts : ndarray
        ``(words,)``.

    Raises
    ------
    DataError
        If fewer than two words come so often.

    Examples
    --------
    >>> from chartae.training.pairs import vocabulary
    >>> vocabulary(["the red fox", "The fox. 🦊"], 2)
    (('fox', 'the'), array([2, 2]))
    """
    split = analyzer()
    counts = Counter(word for text in texts for word in split(text))
    found = sorted((-n, word) for word, n in counts.items() if n >= min_count)
    if len(found) < 2:
        most = max(counts.values(), default=0)
        raise DataError(
            f"{len(found)} words come {min_count} times or more (the most frequent {most} times): give more "
            "texts, or a smaller min_count"
        )
    return tuple(word for _, word in found), np.array([-n for n, _ in found])


def numbered(texts: Sequence[str], words: Sequence[str]) -> Corpus:
    """Number the words of texts, and leave out those that are not known.

    Parameters
    ----------
    texts : sequence of str
        The texts.
    words : sequence of str
        Known ones, which have the numbers from 0.

    Returns
    -------
    Corpus
        The texts one after the other.

    Examples
    --------
    >>> from chartae.training.pairs import numbered
    >>> numbered(["red fox", "fox"], ("fox", "red")).text.tolist()
    [0, 0, 1]
    """
    split, number = analyzer(), {word: i for i, word in enumerate(words)}
    rows = [[number[word] for word in split(text) if word in number] for text in texts]
    lengths = [len(row) for row in rows]
    flat = np.fromiter((word for row in rows for word in row), np.int64, sum(lengths))
    return Corpus(flat, np.repeat(np.arange(len(rows)), lengths))


def blocks(corpus: Corpus) -> int:
    """Say in how many parts, of nearly equal length, pairs of a corpus are drawn.

    Parameters
    ----------
    corpus : Corpus
        The texts.

    Returns
    -------
    int
        One or more.

    Examples
    --------
    >>> from chartae.training.pairs import blocks, numbered
    >>> blocks(numbered(["red fox"], ("fox", "red")))
    1
    """
    return max(1, -(-len(corpus.words) // BLOCK))


def near(
    corpus: Corpus, keep: NDArray[np.floating], window: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Draw pairs of words that stand near each other in a text, block by block of the texts.

    A word stays with a probability of its own, and looks at up to ``window`` of those that stay on either
    side, a number that is drawn for each.

    Parameters
    ----------
    corpus : Corpus
        The texts.
    keep : ndarray
        ``(words,)`` probabilities.
    window : int
        Words on either side, at most.
    rng : Generator
        Of what stays, of how far each looks, and of the order of pairs within a block.

    Yields
    ------
    ndarray
        ``(pairs, 2)``: words and their contexts.

    References
    ----------
    Mikolov et al. 2013, arXiv:1310.4546, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.pairs import near, numbered
    >>> corpus = numbered(["red fox", "fox"], ("fox", "red"))
    >>> [np.sort(pairs, 0).tolist() for pairs in near(corpus, np.ones(2), 1, np.random.default_rng(0))]
    [[[0, 0], [1, 1]]]
    """
    parts = blocks(corpus)
    for words, text in zip(*(np.array_split(each, parts) for each in corpus), strict=True):
        stays = rng.random(len(words)) < keep[words]
        words, text = words[stays], text[stays]
        reach = rng.integers(1, window + 1, len(words))
        found = []
        for gap in range(1, window + 1):
            left, right = words[:-gap], words[gap:]
            same = text[:-gap] == text[gap:]
            ahead, behind = same & (reach[:-gap] >= gap), same & (reach[gap:] >= gap)
            found += [np.stack([left, right], 1)[ahead], np.stack([right, left], 1)[behind]]
        pairs = np.concatenate(found)
        yield pairs[rng.permutation(len(pairs))]
