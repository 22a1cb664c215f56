"""Labels that spread along neighbors: a few of them, and many rows without any."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, diags, eye
from scipy.sparse.linalg import cg
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import NearestNeighbors

from chartae.core.errors import DataError, PlanError
from chartae.training.labels import as_labels, marked, typed
from chartae.transfer.calibration import base_rates, fit_temperature, tempered

__all__ = ["Spreading"]

CLOSE = 1e-10  # residual of the solution, relative to what is known
FAINT = 1e-8  # what is below this share of the largest may be error
NEAR = 1e-6  # the same, of what only tells a temperature
FEWEST, MOST = 10, 200  # labels that are left out in turn, each for one solution, to tell a temperature
DILUTED = 0.8  # spread of its logarithm: of what arrives much comes from everywhere, and tells nothing
ROUNDABOUT = 10  # steps of what spreads, for each that it gets away from where it began


class Spreading(ClassifierMixin, BaseEstimator):
    """Classifier by the labels of a few rows and the neighborhoods of all: each row tells its neighbors.

    Unlike scikit-learn's label spreading, neighbors count by their distance in units of how dense rows lie
    there, and the fixed point is solved for. Labels of each class weigh as much as those of any other while
    they spread, so that a class of many does not flood the rows of the others; what has arrived is turned
    into probabilities by how usual each class is, and by a temperature, if there are 10 labels that are not
    the only one of their class: each is told by the others.

    Parameters
    ----------
    n_neighbors : int
        Of each row.
    alpha : float
        How far labels spread, from 0 to 1: the share that a row takes from its neighbors. Where most rows
        have a label, less than the 0.99 that serves few of them.

    Attributes
    ----------
    classes_ : ndarray
        The labels.
    scale_ : float
        A distance that is usual between a row and the farthest of its neighbors.
    scales_ : ndarray
        ``(n,)``, of each row.
    shares_ : ndarray
        ``(n, classes)``, of what has arrived at the rows it was fitted to.
    base_ : ndarray
        ``(classes,)``: how usual each class is.
    temperature_ : float
        1 where labels are too few.

    References
    ----------
    Zhou et al. 2004, "Learning with local and global consistency", section 2; the scale of a distance:
    Zelnik-Manor and Perona 2004, "Self-tuning spectral clustering", equation 2; classes of equal weight:
    Wang, Jebara and Chang 2008, "Graph transduction via alternating minimization" (normalized by nodes).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import Spreading
    >>> t = np.linspace(0, 1, 50)[:, None]
    >>> Z, y = np.concatenate([t, t + 2]), np.full(100, -1)
    >>> y[0], y[99] = 0, 1  # one label at the end of each line
    >>> Spreading(n_neighbors=4).fit(Z, y).predict([[0.9], [2.1]]).tolist()
    [0, 1]
    """

    def __init__(self, n_neighbors: int = 10, alpha: float = 0.99) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha

    def fit(self, Z: Any, y: Any) -> Spreading:
        """Spread labels.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.
        y : array_like
            ``(n,)`` labels; -1, None or NaN where there is none.

        Returns
        -------
        Spreading
            Itself.

        Raises
        ------
        DataError
            If there are fewer than three rows, or none has a label.
        PlanError
            If ``alpha`` is no share.
        """
        Z, y = np.asarray(Z), as_labels(y)
        n, none = len(Z), marked(y)
        if not 0 < self.alpha < 1:
            raise PlanError(f"alpha={self.alpha!r}: a row takes a share between 0 and 1 from its neighbors")
        if none.all():
            raise DataError("no row has a label to spread: give some")
        if n < 3:
            raise DataError(f"labels spread along neighbors, and there are {n} rows: give three or more")
        k = min(self.n_neighbors, n - 1)
        self.neighbors_ = NearestNeighbors(n_neighbors=k).fit(Z)
        distances, near = self.neighbors_.kneighbors()  # of other rows
        far = distances[:, -1]
        # Among copies of one row, which have no scale of their own, that of the others.
        self.scale_ = float(np.median(far[far > 0])) if (far > 0).any() else 1.0
        self.scales_ = np.where(far > 0, far, self.scale_)
        weights = _affinity(distances, self.scales_, self.scales_[near])
        one_way = csr_matrix((weights.ravel(), near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
        graph = one_way.maximum(one_way.T)
        root = diags(np.maximum(np.asarray(graph.sum(1)).ravel(), np.finfo(float).tiny) ** -0.5)
        shared = root @ graph @ root
        system = eye(n) - self.alpha * shared
        self.classes_ = np.unique(typed(y[~none]))
        labels = (y[:, None] == self.classes_).astype(float)
        labels /= labels.sum(0)
        found = np.column_stack([cg(system, label, rtol=CLOSE, maxiter=10_000)[0] for label in labels.T])
        self.shares_ = _normalized(_carried_on(found, self.alpha * shared, labels))
        self._system, self._labels = system, labels
        self.base_, self.temperature_ = np.full(len(self.classes_), 1 / len(self.classes_)), 1.0
        rows, shares = self.left_out()
        if len(rows) >= FEWEST:
            self.base_ = base_rates((labels > 0).sum(0))
            self.temperature_ = fit_temperature(shares, labels[rows].argmax(1), self.base_, spread=DILUTED)
        return self

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Tell what the other labels say of the rows that have one, as if each had none itself.

        What spreads adds up over labels, so that nothing is fitted again. Rows that are the only one of their
        class are left out altogether; of more than 200 labels as many are taken, evenly.

        Returns
        -------
        rows : ndarray
            ``(m,)``, of those that it was fitted to.
        shares : ndarray
            ``(m, classes)``, of what arrives at them.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.transfer import Spreading
        >>> Z = np.array([0, 1, 2, 3, 9, 10, 11, 12.0])[:, None]
        >>> rows, shares = Spreading(n_neighbors=2).fit(Z, [0, 0, -1, 0, 1, -1, 1, 1]).left_out()
        >>> rows.tolist(), shares.argmax(1).tolist()
        ([0, 1, 3, 4, 6, 7], [0, 0, 0, 1, 1, 1])
        """
        each = self._labels.max(1)  # what a label weighs: less than 1 where its class has several
        rows = np.flatnonzero((each > 0) & (each < 1))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST)).astype(int))]
        told = np.empty((len(rows), len(self.classes_)))
        for i, row in enumerate(rows):
            one = np.zeros(len(self._labels))
            one[row] = 1.0
            reached = cg(self._system, one, rtol=NEAR, maxiter=10_000)[0]  # of each row, and by it as well
            reached[row] = 0.0
            others = np.where(self._labels[row] > 0, 1 / (1 - each[row]), 1.0)  # weigh 1 without it, too
            told[i] = np.maximum(reached, 0.0) @ self._labels * others
        return rows, _normalized(told)

    def predict_proba(self, Z: Any) -> np.ndarray:
        """Probability of each class: what the nearest of the fitted rows say.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.

        Returns
        -------
        ndarray
            ``(n, classes)``.
        """
        distances, near = self.neighbors_.kneighbors(np.asarray(Z))
        scales = np.where(distances[:, -1] > 0, distances[:, -1], self.scale_)
        weights = _affinity(distances, scales, self.scales_[near])
        arrived = _normalized(np.einsum("nk,nkc->nc", weights, self.shares_[near]))
        return tempered(arrived, self.temperature_, self.base_)

    def predict(self, Z: Any) -> np.ndarray:
        """The likeliest class.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.

        Returns
        -------
        ndarray
            ``(n,)`` labels.
        """
        found: np.ndarray = self.classes_[self.predict_proba(Z).argmax(1)]
        return found


def _carried_on(found: np.ndarray, passed: Any, labels: np.ndarray) -> np.ndarray:
    """Carry labels on to rows so far from all of them that little arrives, which is below a solver's error.

    What is certain of a solution of ``F = passed F + labels``, of which nothing is negative, rises to the
    rest of it if that is repeated: each time by a neighbor, as far as float64 has small enough numbers.
    """
    certain = np.maximum(found - FAINT * found.max(0), 0.0)
    hops, before, now = 0, -1, int(certain.any(1).sum())
    while now > before:
        certain, hops = passed @ certain + labels, hops + 1
        before, now = now, int(certain.any(1).sum())
    # What arrives takes no straight way.
    for _ in range(ROUNDABOUT * (hops - 1)):
        certain = passed @ certain + labels
    return certain


def _affinity(distances: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Weights of neighbors, ``(n, k)``; equal rows are as close as can be."""
    out: np.ndarray = np.exp(-np.square(distances) / (here[:, None] * there))
    return out


def _normalized(shares: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; where nothing has arrived all classes are alike."""
    sums = shares.sum(1, keepdims=True)
    alike = np.full_like(shares, 1 / shares.shape[1])
    out: np.ndarray = np.divide(shares, sums, out=alike, where=sums > 0)
    return out
