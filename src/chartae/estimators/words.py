"""Words as points, or as distributions that know how sure they are."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from chartae.core.counts import count
from chartae.core.errors import DataError, TrainingError
from chartae.estimators.decoding import begun_from
from chartae.estimators.parameters import constructor
from chartae.estimators.runs import keep, kept
from chartae.estimators.whole import whole
from chartae.parts.words import SkipGram
from chartae.training.pairs import Corpus, blocks, near, numbered, plain, vocabulary
from chartae.training.precision import flushed_denormals
from chartae.training.readers import Dataset
from chartae.training.tokens import texts_of
from chartae.transfer import compare

__all__ = ["WordEmbedding"]

BATCH, STEPS = 4096, 100  # pairs of a step, where a pass has so many steps or more
ROW = 64  # pairs that share their noise ...
NOISE = 16  # ... which are so many words
RARER = 0.75  # power of the frequency with which noise is drawn
ALONE = "no two known words stand in one text: give longer texts, or more of them"


class _Step(NamedTuple):
    pairs: torch.Tensor  # (g, n, 2)
    noise: torch.Tensor  # (g, m)
    done: float  # share of the pass that lies behind
    share: float  # of the pass, that a pair is


class WordEmbedding(BaseEstimator):
    """Words of texts as normal distributions, or as points: skip-gram with negative sampling.

    Words are of letters and digits, one or more, in lower case; an emoji is one, too.

    A word is N(u, s² I) over where its contexts lie, and wide where they are few or lie far apart; points all
    have the same width. Widths are in the units of the map, which has no scale of its own: compare them with
    each other.

    Parameters
    ----------
    latent_dim : int
        d.
    spread : bool
        Whether words have widths of their own; False: points.
    beta : float
        For how many pairs a word's prior, which is wide, counts in a pass over the texts.
    window : int
        Words on either side that are contexts, at most; how many is drawn each time.
    negatives : int
        Words drawn at random that a pair counts for.
    min_count : int
        Words that come less often are left out.
    subsample : float
        Frequency above which words are left out at random; that of an average word, where that is higher.
    max_epochs : int
        Passes over the texts.
    batch_size : int or None
        Pairs of a step, rounded down to a multiple of 64; None: 4,096, or, of few texts, so many that a pass
        has a hundred steps.
    learning_rate : float
        Of Adam; it falls to 0.
    random_state : int, RandomState or None
        Of first places and pairs.

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    words_ : tuple of str
        The most frequent first.
    counts_ : ndarray
        ``(words,)``, how often each comes.
    model_ : SkipGram
        The torch model.
    history_ : list of dict
        One for each epoch: ``loss``, nats a pair.
    random_state_ : int
        ``random_state``, or the number that was drawn in its place.

    References
    ----------
    Mikolov et al. 2013, arXiv:1310.4546 (negative sampling, equation 4; frequent words, equation 5); Vilnis
    and McCallum 2015, arXiv:1412.6623 (words as normal distributions).

    Examples
    --------
    >>> from chartae import WordEmbedding
    >>> texts = ["red fox runs", "gray fox runs", "red car stops", "gray car stops"] * 50
    >>> words = WordEmbedding(latent_dim=4, max_epochs=20, random_state=0).fit(texts)
    >>> mean, std = words.transform(["fox", "red"], return_std=True)
    >>> mean.shape, std.shape, words.similarity(["fox"], ["car", "gray"]).shape
    ((2, 4), (2, 4), (1, 2))
    """

    _parameter_constraints = {  # noqa: RUF012 - as scikit-learn has it
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "spread": ["boolean"],
        "beta": [Interval(Real, 0, None, closed="left")],
        "window": [Interval(Integral, 1, None, closed="left")],
        "negatives": [Interval(Integral, 1, None, closed="left")],
        "min_count": [Interval(Integral, 1, None, closed="left")],
        "subsample": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    __init__ = constructor(
        {
            "latent_dim": 64,
            "spread": True,
            "beta": 0.3,
            "window": 5,
            "negatives": 5,
            "min_count": 3,
            "subsample": 1e-3,
            "max_epochs": 5,
            "batch_size": None,
            "learning_rate": 0.01,
            "random_state": None,
        },
        {},
    )

    # ---------------------------------------------------------------- fit

    def fit(self, texts: Any, y: Any = None) -> WordEmbedding:
        """Learn where words lie.

        Parameters
        ----------
        texts : sequence of str or Dataset
            The texts, or what :func:`chartae.read` gives of a ``.txt`` file, which is not encoded for this;
            a text without words, an empty one say, is skipped.
        y : None
            No effect.

        Returns
        -------
        WordEmbedding
            Itself.

        Raises
        ------
        DataError
            If they are no texts, or hold no words that come often enough, or none beside another.
        TrainingError
            If vectors grow without bounds.
        """
        with whole(self):
            self._validate_params()
            texts = _texts(texts)
            self.random_state_ = seed = begun_from(self.random_state)
            rng = np.random.default_rng(seed)
            self.words_, self.counts_ = vocabulary(texts, self.min_count)
            corpus = numbered(texts, self.words_)
            self.model_ = model = SkipGram(len(self.words_), self.latent_dim, self.spread, rng)
            optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate, fused=True)
            self.history_: list[dict[str, Any]] = []
            for epoch in range(self.max_epochs):
                lost = seen = 0.0
                with flushed_denormals():
                    for step in self._steps(corpus, rng):
                        loss = model.loss(step.pairs, step.noise, self.negatives)
                        cost = loss + self.beta * step.share * model.kl() if self.spread else loss
                        for group in optimizer.param_groups:
                            group["lr"] = self.learning_rate * (1 - (epoch + step.done) / self.max_epochs)
                        optimizer.zero_grad()
                        cost.backward()
                        optimizer.step()
                        n = step.pairs[..., 0].numel()
                        lost, seen = lost + n * loss.item(), seen + n
                        if not math.isfinite(lost):
                            raise TrainingError(
                                f"the loss is not finite in epoch {epoch + 1}: use a learning_rate below "
                                f"{self.learning_rate:g}"
                            )
                if not seen:
                    raise DataError(ALONE)
                self.history_.append({"epoch": epoch, "loss": lost / seen})
        return self

    def _steps(self, corpus: Corpus, rng: np.random.Generator, *, thinned: bool = True) -> Iterator[_Step]:
        """Draw pairs and noise for a pass over texts."""
        frequency = self.counts_ / self.counts_.sum()
        # The form of equation 5 that word2vec has, which keeps a few more than the paper's.
        # Of a few words all are frequent: those no more so than the average stay.
        rare = np.sqrt(max(self.subsample, 1 / len(frequency)) / frequency)
        stays = np.minimum(1.0, rare + rare**2) if thinned else np.ones_like(rare)
        chance = np.cumsum(frequency**RARER)
        parts = blocks(corpus)
        for i, block in enumerate(near(corpus, stays, self.window, rng)):
            if not len(block):
                continue
            size = self.batch_size or min(BATCH, max(ROW, len(block) // STEPS))
            row = min(ROW, len(block), size)
            rows = torch.from_numpy(block[: len(block) // row * row].reshape(-1, row, 2))
            at_once = size // row
            for start in range(0, len(rows), at_once):
                pairs = rows[start : start + at_once]
                drawn = np.searchsorted(chance, rng.random((len(pairs), NOISE)) * chance[-1])
                done = (i + start / len(rows)) / parts
                yield _Step(pairs, torch.from_numpy(drawn), done, 1 / (parts * len(block)))

    # ---------------------------------------------------------------- use

    def transform(self, words: Any, *, return_std: bool = False) -> Any:
        """Embed words: where their contexts lie, on average.

        Parameters
        ----------
        words : sequence of str
            ``n`` known ones.
        return_std : bool
            Give how far contexts lie apart as well.

        Returns
        -------
        mean : ndarray
            ``(n, d)``.
        std : ndarray
            ``(n, d)``, with ``return_std`` only: the same in all dimensions, and 0 of points.

        Raises
        ------
        DataError
            If a word is not known.
        """
        rows = self._rows(words)
        mean = self.model_.word.detach().numpy()[rows]
        return (mean, np.repeat(self._width[rows, None], mean.shape[1], 1)) if return_std else mean

    def uncertainty(self, words: Any) -> NDArray[np.float32]:
        """Say how wide words are: the standard deviation in each dimension.

        Parameters
        ----------
        words : sequence of str
            ``n`` known ones.

        Returns
        -------
        ndarray
            ``(n,)``; 0 of points.

        Raises
        ------
        DataError
            If a word is not known.
        """
        return self._width[self._rows(words)]

    def similarity(self, words: Any, others: Any, *, by: str = "cosine") -> np.ndarray:
        """Compare words, each with each.

        Parameters
        ----------
        words : sequence of str
            ``n`` known ones.
        others : sequence of str
            ``m`` known ones.
        by : {"cosine", "distance", "expected likelihood", "bhattacharyya", "containment"}
            Of means, the cosine or minus the distance; of distributions, the integral of the product or of
            its root, as logarithms, or minus KL(word || other), which has a direction: it is the higher, the
            more the word lies within the other.

        Returns
        -------
        ndarray
            ``(n, m)``; larger is more alike.

        Raises
        ------
        DataError
            If a word is not known.
        PlanError
            If there is no such comparison, or it is one of distributions, and words are points.
        """
        (a, s), (b, t) = (self.transform(each, return_std=True) for each in (words, others))
        return compare(by, a, s, b, t)

    def most_similar(self, word: str, n: int = 10, *, by: str = "cosine") -> list[tuple[str, float]]:
        """Find the words that are most like one.

        Parameters
        ----------
        word : str
            A known one.
        n : int
            How many.
        by : str
            As in :meth:`similarity`.

        Returns
        -------
        list of (str, float)
            The most similar first.

        Raises
        ------
        DataError
            If the word is not known.
        PlanError
            If there is no such comparison.
        """
        found = self.similarity([word], self.words_, by=by)[0]
        best = [i for i in np.argsort(-found, kind="stable") if self.words_[i] != word][: count(n, "n")]
        return [(self.words_[i], float(found[i])) for i in best]

    def score(self, texts: Any, y: Any = None) -> float:
        """Say how well words that stand near each other are told from words drawn at random.

        Parameters
        ----------
        texts : sequence of str or Dataset
            Others than those of the fit; words that are not known are left out.
        y : None
            No effect.

        Returns
        -------
        float
            Minus the loss, nats a pair; the same texts have the same score.

        Raises
        ------
        DataError
            If they are no texts, or no two known words stand in one.
        """
        check_is_fitted(self)
        corpus, rng = numbered(_texts(texts), self.words_), np.random.default_rng(self.random_state_)

        def judged(thinned: bool) -> list[tuple[float, int]]:
            return [
                (float(self.model_.loss(step.pairs, step.noise, self.negatives)), step.pairs[..., 0].numel())
                for step in self._steps(corpus, rng, thinned=thinned)
            ]

        with torch.no_grad():
            told = judged(True) or judged(False)  # of a few frequent words none may be left
        if not told:
            raise DataError(ALONE)
        loss, n = np.array(told).T
        return -float(np.average(loss, weights=n))

    @property
    def _width(self) -> NDArray[np.float32]:
        width: NDArray[np.float32] = self.model_.log_std.detach().exp()[:, 0].numpy()
        return width if self.spread else np.zeros_like(width)

    def _rows(self, words: Any) -> NDArray[np.int64]:
        check_is_fitted(self)
        number = {word: i for i, word in enumerate(self.words_)}
        found = [word if word in number else plain(word) for word in texts_of(words, "word")]
        for word in found:
            if word not in number:
                close = difflib.get_close_matches(word, self.words_, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                raise DataError(f"the word {word!r} is not known: words_ holds those that are{meant}")
        return np.array([number[word] for word in found])

    # ---------------------------------------------------------------- keep

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder.

        Parameters
        ----------
        path : str or path-like
            The folder.
        overwrite : bool
            Replace a run folder that is there.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        check_is_fitted(self)
        tensors = {**self.model_.state_dict(), "counts": torch.from_numpy(self.counts_)}
        return keep(self, path, "words", {"words": list(self.words_)}, tensors, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WordEmbedding:
        """Open what :meth:`save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like
            The folder.

        Returns
        -------
        WordEmbedding
            Fitted.

        Raises
        ------
        RunFolderError
            If the folder holds no words, or is broken.

        Examples
        --------
        >>> import tempfile
        >>> from chartae import WordEmbedding
        >>> words = WordEmbedding(latent_dim=2, max_epochs=1, random_state=0).fit(["red fox", "red car"] * 9)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = WordEmbedding.load(words.save(folder + "/words"))
        >>> bool((again.transform(["fox"]) == words.transform(["fox"])).all())
        True
        """
        with kept(cls, path, "words") as (made, config, tensors):
            made.words_, made.counts_ = tuple(config["words"]), tensors.pop("counts").numpy()
            made.model_ = SkipGram(len(made.words_), made.latent_dim, made.spread)
            made.model_.load_state_dict(tensors)
        return cast(WordEmbedding, made)


def _texts(texts: Any) -> Sequence[str]:
    """Take the texts of a file that was read, or texts."""
    if isinstance(texts, Dataset):
        if texts.texts is None:
            raise DataError(f"{texts.name} holds no texts: read a .txt file of one text a line")
        texts = texts.texts
    return texts_of(texts)
