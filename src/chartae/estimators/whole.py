"""Fits are whole: they come to an end of their own, or leave an estimator as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["stopped_by", "undone", "whole"]


@contextmanager
def undone(estimator: Any, before: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Leave an estimator as it was if a fit breaks: half of this one and half of the last is neither.

    Parameters
    ----------
    estimator : object
        Being fitted.
    before : Mapping or None
        Its attributes, as they were; None: as they are now.

    Yields
    ------
    None
        For as long as it is fitted.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from chartae.estimators.whole import undone
    >>> pca = PCA(1)
    >>> with undone(pca):
    ...     pca.fit([[0.0], [1.0]]).transform([["a"]])
    Traceback (most recent call last):
    ...
    ValueError: could not convert string to float: 'a'
    >>> hasattr(pca, "components_")
    False
    """
    before = dict(estimator.__dict__) if before is None else before
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise


def stopped_by(estimator: Any, fit: Callable[[], Any]) -> BaseException | None:
    """Fit a part of another estimator, and tell what stopped it, for when the whole is fitted to it.

    Parameters
    ----------
    estimator : object
        An estimator of chartae that is not fitted yet.
    fit : callable
        Fits it.

    Returns
    -------
    BaseException or None
        Of Ctrl-C, which leaves it fitted; it is to be raised by :func:`whole`, as ``_stopped``.

    Raises
    ------
    KeyboardInterrupt
        If it is not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> from chartae.estimators.whole import stopped_by
    >>> vae = VAE(latent_dim=2, max_epochs=1)
    >>> stopped_by(vae, lambda: vae.fit(np.eye(20))) is None, vae.n_iter_
    (True, 1)
    """
    try:
        fit()
    except (KeyboardInterrupt, SystemExit) as stop:
        if not hasattr(estimator, "model_"):
            raise
        return stop
    return None


@contextmanager
def whole(estimator: Any) -> Iterator[None]:
    """Leave an estimator as it was if a fit breaks; what stopped a part of it is raised when all is fitted.

    Parameters
    ----------
    estimator : object
        Being fitted; its ``_stopped`` is what :func:`stopped_by` has given.

    Yields
    ------
    None
        For as long as it is fitted.

    Raises
    ------
    KeyboardInterrupt
        If a part was stopped by Ctrl-C; the estimator is fitted then.

    Examples
    --------
    >>> from chartae import HeadClassifier
    >>> from chartae.estimators.whole import whole
    >>> head = HeadClassifier()
    >>> with whole(head):
    ...     head.classes_ = [0, 1]
    >>> head.classes_
    [0, 1]
    """
    with undone(estimator):
        yield
    stopped: BaseException | None = estimator.__dict__.pop("_stopped", None)
    if stopped is not None:
        raise stopped
