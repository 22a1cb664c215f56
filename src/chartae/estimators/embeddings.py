"""Embeddings that are distributions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import entr
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from chartae.core.arrays import as_tensor
from chartae.core.columns import is_frame
from chartae.core.counts import is_count
from chartae.core.errors import DataError, PlanError
from chartae.core.registry import suggest
from chartae.estimators.autoencoders import VAE
from chartae.estimators.checking import in_memory
from chartae.estimators.decoding import begun_from
from chartae.estimators.fitting import Fitting
from chartae.estimators.heads import classes_of, targets
from chartae.estimators.joint import fit_jointly
from chartae.estimators.parameters import constructor
from chartae.estimators.whole import stopped_by, whole
from chartae.parts.objectives import Labels, Match, Matches, fit_match
from chartae.parts.readouts import readout
from chartae.transfer import (
    COMPARISONS,
    Read,
    compare,
    copied,
    gives_points,
    in_units,
    labeled,
    most_alike,
    target_space,
    votes_of_draws,
)

__all__ = ["ProbabilisticEmbedding"]

METHODS = ("bottleneck", "hedged", "reconstruction")
AT_ONCE = 1 << 22  # pairs of draws
FEWEST, MOST = 20, 1000  # held-out rows by whose pairs the probability of a match is told
PAIRS = 4096  # of each kind, at most
WARMUP = 20.0  # epochs in which pairs that do not match come to count as often as they occur


class _Comparison(NamedTuple):
    """How items are compared."""

    see: Callable[[Any, int], tuple[np.ndarray, ...]]  # what of queries (0), or of items (1), rows first
    alike: Callable[..., np.ndarray]  # of both, each with each


class ProbabilisticEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Items as distributions: a mean, how sure it is, and draws.

    Parameters
    ----------
    encoder : estimator or None
        An estimator of chartae, which is copied: its encoder, posterior and prior are what is trained. None
        is ``VAE()``; a recipe such as "svae" has codes on a sphere; ``AE()`` gives points, the embedding
        that all others are to be compared with.
    method : {"bottleneck", "hedged", "reconstruction"}
        What a code is to keep: what tells the label (variational information bottleneck), what tells whether
        two items have the same label (hedged instance embedding), or the item.
    beta : float
        Nats of the label, or of the match, that a nat of the code costs.
    n_samples : int
        Draws of each item, in matches and in what is said of labels.
    random_state : int, RandomState or None
        Of draws, of a head's first weights, and of an encoder that has none.

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    encoder_ : estimator
        As it was fitted.
    classes_ : ndarray or None
        The labels.
    head_ : object
        What reads labels off codes, or tells whether two match; None for "reconstruction".
    random_state_ : int
        ``random_state``, or the number that was drawn in its place.

    References
    ----------
    Alemi et al. 2017, arXiv:1612.00410 (bottleneck); Oh et al. 2019, arXiv:1810.00319 (hedged).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from chartae import VAE, ProbabilisticEmbedding
    >>> X, y = load_iris(return_X_y=True)
    >>> encoder = VAE(latent_dim=2, max_epochs=30, random_state=0)
    >>> embedding = ProbabilisticEmbedding(encoder, method="hedged", random_state=0).fit(X, y)
    >>> mean, std = embedding.transform(X, return_std=True)
    >>> mean.shape, std.shape, embedding.similarity(X[:5], X).shape
    ((150, 2), (150, 2), (5, 150))
    """

    _parameter_constraints = {  # noqa: RUF012 - as scikit-learn has it
        "method": [StrOptions(set(METHODS))],
        "beta": [Interval(Real, 0, None, closed="neither")],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    __init__ = constructor(
        {"encoder": None, "method": "bottleneck", "beta": 1e-3, "n_samples": 8, "random_state": None},
        {},
        first="encoder",
    )

    def fit(self, X: Any, y: Any = None) -> ProbabilisticEmbedding:
        """Learn to embed.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        y : array_like or None
        ``(n,)`` labels, -1 or None where there is none, as in :class:`chartae.HeadClassifier`;
        "reconstruction" needs none.

        Returns
        -------
        ProbabilisticEmbedding
            Itself.

        Raises
        ------
        DataError
            If there are no labels, or all are alike.
        PlanError
            If the encoder is no estimator of chartae.
        """
        with whole(self):
            self._learn(X, y)
        return self

    def _learn(self, X: Any, y: Any) -> None:
        self._validate_params()
        encoder = VAE() if self.encoder is None else self.encoder
        if not isinstance(encoder, Fitting):
            raise PlanError(
                f"{type(encoder).__name__} has no posterior to train: use an estimator such as VAE()"
            )
        self.random_state_ = seed = begun_from(self.random_state)
        X = in_memory(X)
        if self.method == "reconstruction":
            self.head_: Read | Match | None = None
            self.encoder_, self.classes_ = copied(encoder, seed), None
            self._stopped = stopped_by(self.encoder_, lambda: self.encoder_.fit(X))
            return
        if y is None:
            raise DataError(f"method={self.method!r} learns from labels: give y, or use 'reconstruction'")
        y = targets(self, X, y)
        known = labeled(y)
        self.classes_ = classes_of(y[known])
        space = target_space("categorical", np.arange(len(self.classes_)))
        numbers = in_units(space, np.searchsorted(self.classes_, y[known]), np.flatnonzero(known), len(y))
        common = {"weight": 1 / self.beta, "decoder": False, "seed": seed}
        if self.method == "hedged":
            term = Matches(self.n_samples, odds=_odds(y[known]), warmup=WARMUP)
            found = fit_jointly(encoder, X, numbers, lambda model: Match(), term, **common)
        else:
            found = fit_jointly(
                encoder, X, numbers, lambda model: readout(space, model.latent_dim), Labels(), **common
            )
        self.encoder_, head, self._stopped = found
        hedged = self.method == "hedged"
        self.head_ = self._calibrated(head.cpu(), X, numbers) if hedged else Read(head, space)

    @property
    def n_features_in_(self) -> int:
        """Of the items, as the encoder has seen them."""
        found: int = self.encoder_.n_features_in_
        return found

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of columns, ``(n_features,)``, of items that had them."""
        found: np.ndarray = self.encoder_.feature_names_in_
        return found

    @property
    def _n_features_out(self) -> int:
        found: int = self.encoder_.model_.latent_dim
        return found

    def transform(self, X: Any, *, return_std: bool = False) -> Any:
        """Embed: the posterior's mean.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        return_std : bool
            Give its standard deviation as well.

        Returns
        -------
        codes : ndarray
            ``(n, d)``.
        std : ndarray
            ``(n, d)``, with ``return_std`` only.
        """
        check_is_fitted(self)
        return self.encoder_.transform(X, return_std=return_std)

    def sample_posterior(
        self, X: Any, n_samples: int = 1, *, shared: bool = False, random_state: Any = None
    ) -> np.ndarray:
        """Draw codes of each item.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        n_samples : int
            k, of each.
        shared : bool
            Spread draws evenly, by the same noise for all items: to average over few, or to compare items.
        random_state : int, RandomState or None
            The same seed gives the same draws.

        Returns
        -------
        ndarray
            ``(k, n, d)``.
        """
        check_is_fitted(self)
        found: np.ndarray = self.encoder_.sample_posterior(
            X, n_samples, shared=shared, random_state=random_state
        )
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each label, averaged over draws.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.

        Returns
        -------
        ndarray
            ``(n, classes)``, in the order of ``classes_``.

        Raises
        ------
        PlanError
            If the embedding was not made to tell labels.
        """
        check_is_fitted(self)
        if self.method != "bottleneck":
            raise PlanError(f"method={self.method!r} reads no labels: use 'bottleneck', or a HeadClassifier")
        return self._labels(X)

    def uncertainty(self, X: Any) -> np.ndarray:
        """Say how uncertain each item is: larger is less sure.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.

        Returns
        -------
        ndarray
            ``(n,)``: of a bottleneck, the entropy of the labels (nats); of a hedged embedding, how likely
            two draws of the item do not match; otherwise minus the nats that the code says of the item
            (:meth:`chartae.VAE.information`), and 0 of points.
        """
        check_is_fitted(self)
        if self.method == "bottleneck":
            entropy: np.ndarray = entr(self.predict_proba(X)).sum(1)
            return entropy
        if self.method == "reconstruction":
            if gives_points(self.encoder_):
                return np.zeros(len(self.transform(X)))
            told: np.ndarray = self.encoder_.information(X)
            return -told
        z, other = (torch.from_numpy(self._draws(X, i)).float() for i in (0, 1))
        head = self.head_
        assert isinstance(head, Match)
        with torch.no_grad():
            gaps = torch.linalg.vector_norm(z[:, None] - other, dim=-1).flatten(0, 1)
            missed: np.ndarray = head(gaps)[1].exp().numpy()
        return missed

    def similarity(self, X: Any, Y: Any, *, by: str = "auto") -> np.ndarray:
        """Compare items, each with each.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        Y : array_like
            ``(m, *shape)``.
        by : str
            "match": the probability of a match, where as many pairs match as do not, or of the same label.
            Of posteriors, as independent normals:
            "expected likelihood" or "bhattacharyya", the integral of the product or of its root, as
            logarithms, or "containment", minus KL(x || y). Of means: "cosine", or "distance", minus it.
            "decoded", of "reconstruction" only: the cosine of an item of X, whole, and what the code of an
            item of Y is decoded to, for items that are kept as codes and queries that are not. "auto" is
            "match" where there is one, else "bhattacharyya", or, of points, "distance".

        Returns
        -------
        ndarray
            ``(n, m)``; larger is more alike.

        Raises
        ------
        PlanError
            If there is no such comparison, the embedding knows no match, its items are points, or it decodes
            nothing that a cosine could be taken of.

        References
        ----------
        Oh et al. 2019, arXiv:1810.00319, equation 3 (match); Jebara and Kondor 2003, "Bhattacharyya and
        expected likelihood kernels"; Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57, section III
        (decoded: their asymmetric distance).
        """
        check_is_fitted(self)
        see, alike = self._comparison(by)
        return alike(*see(X, 0), *see(Y, 1))

    def retrieve(
        self, X: Any, gallery: Any = None, *, k: int = 10, by: str = "auto"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the items that are most like each query.

        How little alike the first of them is says how uncertain the retrieval is, of kinds of items that the
        embedding has never seen as well, and without a label: ``-similarity[:, 0]`` is to rank mistakes.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)`` queries.
        gallery : array_like or None
            ``(m, *shape)``, the items; None: the queries themselves, of which none finds itself.
        k : int
            How many.
        by : str
            As in :meth:`similarity`.

        Returns
        -------
        similarity : ndarray
            ``(n, k)``, the largest first.
        items : ndarray
            ``(n, k)``, rows of the gallery.

        Raises
        ------
        PlanError
            If there are not as many items, or they cannot be compared so.

        References
        ----------
        Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57, section II (exhaustive search).

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from chartae import VAE, ProbabilisticEmbedding
        >>> X, _ = load_iris(return_X_y=True)
        >>> encoder = VAE(latent_dim=2, max_epochs=30, random_state=0)
        >>> embedding = ProbabilisticEmbedding(encoder, method="reconstruction", random_state=0).fit(X)
        >>> similarity, items = embedding.retrieve(X[:5], X, k=3, by="expected likelihood")
        >>> similarity.shape, items.shape
        ((5, 3), (5, 3))
        """
        check_is_fitted(self)
        (see, alike), same = self._comparison(by), gallery is None
        asked, there = see(X, 0), see(X if same else gallery, 1)
        n, m = len(asked[0]), len(there[0])
        if not is_count(k) or k > m - same:
            raise PlanError(f"k={k}: there are {m - same} items to find, so use 1 to {m - same}")
        found, items = np.empty((n, k)), np.empty((n, k), dtype=np.intp)
        for rows in np.array_split(np.arange(n), max(1, min(n, n * m // AT_ONCE))):
            pairs = alike(*(v[rows] for v in asked), *there)
            if same:
                pairs[np.arange(len(rows)), rows] = -np.inf
            items[rows] = most_alike(pairs, k)
            found[rows] = np.take_along_axis(pairs, items[rows], 1)
        return found, items

    def votes(self, X: Any, labels: Any, gallery: Any = None, *, k: int = 5) -> np.ndarray:
        """Ask the nearest items for a label, as often as there are draws.

        The largest share is the answer, and how far it is from one says how uncertain: also of an item whose
        neighbors agree, and whose draws do not. Labels need not be those of training.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)`` queries.
        labels : array_like
            ``(m,)`` of the items that are asked; one of -1, or None, does not vote.
        gallery : array_like or None
            ``(m, *shape)``, those items; None: the queries themselves, of which none votes for itself.
        k : int
            How many vote in a draw.

        Returns
        -------
        ndarray
            ``(n, classes)`` shares, of the labels in their order.

        Raises
        ------
        DataError
            If there are not as many labels as items.
        PlanError
            If none is to vote.

        References
        ----------
        Oh et al. 2019, arXiv:1810.00319, section 2.2 (draws of both sides).

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from chartae import VAE, ProbabilisticEmbedding
        >>> X, y = load_iris(return_X_y=True)
        >>> encoder = VAE(latent_dim=2, max_epochs=30, random_state=0)
        >>> embedding = ProbabilisticEmbedding(encoder, method="hedged", random_state=0).fit(X, y)
        >>> embedding.votes(X[:5], y, X).shape
        (5, 3)
        """
        check_is_fitted(self)
        same = gallery is None
        draws, asked = self._draws(X, 0), self._draws(X if same else gallery, 1)
        return votes_of_draws(draws, labels, asked, k, same=same)

    def _comparisons(self) -> dict[str, _Comparison]:
        """All that there are, by name."""
        match = _Comparison(lambda V, which: (self._draws(V, which).swapaxes(0, 1),), self._match)
        same = _Comparison(lambda V, which: (self._labels(V, which),), lambda a, b: a @ b.T)
        whole = _Comparison(
            lambda V, which: (self._decoded(V) if which else self._whole(V),), cosine_similarity
        )
        posteriors = {name: _Comparison(self._posteriors, partial(compare, name)) for name in COMPARISONS}
        return {"match": same if self.method == "bottleneck" else match, "decoded": whole, **posteriors}

    def _comparison(self, by: str) -> _Comparison:
        """One by its name, for which there is what it needs."""
        known = self._comparisons()
        if by == "auto":
            points = gives_points(self.encoder_)
            by = "match" if self.head_ is not None else "distance" if points else "bhattacharyya"
        if by not in known:
            raise PlanError(f"by={by!r} compares nothing: {suggest(by, known)}")
        if by == "match" and self.head_ is None:
            raise PlanError(
                "method='reconstruction' knows no match: use by='bhattacharyya', or another method"
            )
        if by == "decoded" and self.method != "reconstruction":
            raise PlanError(f"method={self.method!r} decodes nothing: use by='match', or 'reconstruction'")
        if by == "decoded" and getattr(self.encoder_.medium_, "restores", False):
            raise PlanError("by='decoded' is of numbers, and these are texts: use by='distance'")
        schema = self.encoder_.space_.schema if by == "decoded" else None
        other = [c for c in schema.columns if c.kind != "continuous" or c.clock] if schema else []
        if other:
            kind = "a date" if other[0].clock else other[0].kind
            raise PlanError(f"by='decoded' is of numbers, and {other[0].name!r} is {kind}: use by='distance'")
        return known[by]

    def _match(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of draws ``(n, k, d)`` and ``(m, k, d)``."""
        assert isinstance(self.head_, Match)
        # As float64: from products, which are fast, small distances of codes far from 0 are lost.
        a, b = (torch.from_numpy(v.swapaxes(0, 1)).double().contiguous() for v in (x, y))
        k, (draws, m) = len(a), b.shape[:2]
        size = max(1, AT_ONCE // (k * draws * m))
        blocks = []
        with torch.no_grad():
            for rows in a.split(size, 1):
                gaps = torch.cdist(rows.flatten(0, 1), b.flatten(0, 1)).float().reshape(k, -1, draws, m)
                blocks.append(self.head_.probability(gaps.transpose(1, 2).flatten(0, 1)))
        found: np.ndarray = torch.cat(blocks).numpy()
        return found

    def _posteriors(self, X: Any, _: int) -> tuple[np.ndarray, np.ndarray]:
        """Means of draws and deviations about them: a code on a sphere is no mean, which lies inside."""
        model: Any = self.encoder_
        if gives_points(model):
            points = np.asarray(self.transform(X))
            return points, np.zeros_like(points)
        items = model._check(X, reset=False)
        mean, std = np.empty((2, len(items), model.latent_dim_))

        def keep(rows: slice, q: Any) -> None:
            mean[rows], std[rows] = (v.cpu().numpy() for v in q.moments())

        model._each_posterior(items, None, keep)
        return mean, std

    def _whole(self, X: Any) -> np.ndarray:
        """Items as they are given, flat; what is missing is what the model expects there."""
        model: Any = self.encoder_
        given = model._check(X, reset=False)
        return self._flat(model.reconstruct(X) if np.isnan(given).any() else given)

    def _decoded(self, X: Any) -> np.ndarray:
        """What the codes of items are decoded to, flat."""
        return self._flat(self.encoder_.project(X))

    def _flat(self, items: Any) -> np.ndarray:
        """Rows of numbers; those of a table, whose columns have units of their own, as the model has them."""
        model: Any = self.encoder_
        if model.space_.schema is not None:
            items = model._check(items, reset=False, named=False) if is_frame(items) else items
            items = model.space_.to_model(as_tensor(items).to(model.space_.scale.device)).cpu()
        found: np.ndarray = np.asarray(items, dtype=np.float64)
        return found.reshape(len(found), -1)

    def _calibrated(self, head: Match, X: Any, y: torch.Tensor) -> Match:
        """Let held-out pairs say how likely a match is at a distance; where those are too few, all pairs."""
        random = np.random.default_rng(self.random_state_)
        known, held_out = ~y.isnan().numpy(), self.encoder_.validation_rows_
        for rows, fewest in ((held_out[known[held_out]], FEWEST), (np.flatnonzero(known), 2)):
            rows = random.permutation(rows)[:MOST]
            i, j = np.triu_indices(len(rows), 1)
            same = y[rows].numpy()[i] == y[rows].numpy()[j]
            kinds = [np.flatnonzero(same), np.flatnonzero(~same)]
            if len(rows) >= fewest and all(len(pairs) for pairs in kinds):
                break
        else:
            return head
        z, other = (self._draws(_safe_indexing(X, rows), which) for which in (0, 1))
        gaps = []
        for pairs in kinds:
            some = random.permutation(pairs)[:PAIRS]
            apart = z[:, None, i[some]] - other[None, :, j[some]]
            gaps.append(torch.from_numpy(np.linalg.norm(apart, axis=-1)).flatten(0, 1))
        return fit_match(head, gaps[0], gaps[1], len(rows))

    def _labels(self, X: Any, which: int = 0) -> np.ndarray:
        """Probabilities of labels, averaged over draws."""
        z, head = self._draws(X, which), self.head_
        assert isinstance(head, Read)
        each = head.predict_proba(z.reshape(-1, z.shape[2]))
        found: np.ndarray = each.reshape(*z.shape[:2], -1).mean(0)
        return found

    def _draws(self, X: Any, which: int = 0) -> np.ndarray:
        """Draws of each item: of two sets whose items are compared, each has its own noise, as a whole.

        Noise of an item's own would make one item look nearer than another by chance.
        """
        seed = (self.random_state_ + which) % (1 << 32)
        return self.sample_posterior(X, self.n_samples, shared=True, random_state=seed)


def _odds(y: np.ndarray) -> float:
    """How many pairs of items have different labels for each that has the same, and 1 at least."""
    counts = np.unique(y, return_counts=True)[1].astype(float)
    same = (counts * (counts - 1)).sum()
    return max(1.0, len(y) * (len(y) - 1) / same - 1) if same else 1.0
