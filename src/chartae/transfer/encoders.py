"""Whatever turns items into codes: models of chartae, transformers of scikit-learn, modules of torch."""

from __future__ import annotations

import math
from inspect import signature
from typing import Any, NoReturn

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from chartae.core.arrays import as_tensor
from chartae.core.errors import DataError, PlanError
from chartae.parts.networks import evaluating
from chartae.training.items import array_of

__all__ = ["coded", "copied", "drawn", "fitted", "gives_points", "is_fitted", "refuse_points"]

AT_ONCE = 2048  # rows that a module of torch sees in one go


def fitted(encoder: Any, X: Any, seed: int | None = None) -> Any:
    """Give an encoder that is ready: as it is where it was fitted before, else a copy that is fitted to X.

    Parameters
    ----------
    encoder : object or None
        A model of chartae, a transformer of scikit-learn, or a module of torch; None: X are codes.
    X : array_like
        ``(n, *shape)``, which no labels are needed for.
    seed : int or None
        Of a copy, as in :func:`copied`.

    Returns
    -------
    object or None
        What has ``transform``, or a module.

    Raises
    ------
    PlanError
        If it cannot encode.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.decomposition import PCA
    >>> from chartae.transfer import fitted
    >>> fitted(PCA(1), np.eye(3)).n_components_
    1
    """
    if encoder is None or isinstance(encoder, nn.Module):
        return encoder
    if not hasattr(encoder, "transform"):
        raise PlanError(
            f"{type(encoder).__name__} has no transform: use a model of chartae, a transformer of "
            "scikit-learn, or a torch module"
        )
    if is_fitted(encoder):
        return encoder
    if get_tags(encoder).target_tags.required:
        raise PlanError(f"{type(encoder).__name__} learns from labels: fit it first, and it stays as it is")
    return copied(encoder, seed).fit(X)


def copied(encoder: Any, seed: int | None) -> Any:
    """Copy an estimator that is to be fitted as a part of another: with the seed of that, if it has none.

    Parameters
    ----------
    encoder : estimator
        Of chartae or scikit-learn.
    seed : int or None
        What takes the place of None in ``random_state``, its own and that of each step.

    Returns
    -------
    estimator
        The copy, not fitted.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.transfer import copied
    >>> copied(VAE(), 3).random_state, copied(VAE(random_state=7), 3).random_state
    (3, 7)
    """
    made = clone(encoder)
    unset = [
        name
        for name, value in made.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    return made.set_params(**dict.fromkeys(unset, seed)) if unset else made


def is_fitted(encoder: Any) -> bool:
    """Tell an encoder that stays as it is from one that a copy is to be fitted of.

    Parameters
    ----------
    encoder : object or None
        As of :func:`fitted`.

    Returns
    -------
    bool
        Whether it was fitted before; modules of torch are what they are.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from chartae.transfer import is_fitted
    >>> is_fitted(PCA(1)), is_fitted(PCA(1).fit([[0.0], [1.0]]))
    (False, True)
    """
    if not hasattr(encoder, "get_params"):
        return True
    try:
        check_is_fitted(encoder)
    except NotFittedError:
        return False
    return True


def coded(encoder: Any, X: Any) -> np.ndarray:
    """Encode: one code for each item.

    Parameters
    ----------
    encoder : object or None
        As :func:`fitted` gives it.
    X : array_like
        ``(n, *shape)``.

    Returns
    -------
    ndarray
        ``(n, d)``.

    Raises
    ------
    DataError
        If codes are not finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from chartae.transfer import coded
    >>> coded(nn.Flatten(), np.zeros((4, 2, 3), np.float32)).shape
    (4, 6)
    """
    if encoder is None:
        codes = X
    elif isinstance(encoder, nn.Module):
        codes = _through(encoder, X)
    else:
        codes = encoder.transform(X)
    out: np.ndarray = codes.toarray() if hasattr(codes, "toarray") else np.asarray(codes)
    out = out.reshape(len(out), math.prod(out.shape[1:]))
    wrong = ~np.isfinite(out).all(1)
    if wrong.any():
        raise DataError(f"the code of row {wrong.argmax()} (from 0) holds NaN or infinity: look at that row")
    return out


def _through(module: nn.Module, X: Any) -> np.ndarray:
    X = X.toarray() if hasattr(X, "toarray") else X
    like = next(module.parameters(), torch.zeros(()))
    first = next((m for m in module.modules() if next(m.parameters(recurse=False), None) is not None), None)
    x = as_tensor(array_of(X))
    # Numbers of entries of a table are no numbers to compute with.
    x = x.long() if isinstance(first, nn.Embedding | nn.EmbeddingBag) else x.to(like.dtype)
    out = []
    with torch.no_grad(), evaluating(module):
        for block in x.split(AT_ONCE):
            codes = module(block.to(like.device))
            if not isinstance(codes, torch.Tensor):
                given = f"{type(module).__name__} gives a {type(codes).__name__}"
                raise PlanError(f"{given}, and codes are a tensor: wrap it in a module that picks one")
            out.append(codes.flatten(1).cpu())
    codes = torch.cat(out)
    found: np.ndarray = (codes.float() if codes.dtype == torch.bfloat16 else codes).numpy()
    return found


def drawn(encoder: Any, X: Any, k: int, random_state: Any, *, shared: bool = False) -> np.ndarray:
    """Draw codes from what an encoder says about each item.

    Parameters
    ----------
    encoder : object or None
        As :func:`fitted` gives it.
    X : array_like
        ``(n, *shape)``.
    k : int
        Draws of each.
    random_state : int or None
        None: different each time.
    shared : bool
        Spread draws evenly, by the same noise for all items, if the encoder can: to average over few of them.

    Returns
    -------
    ndarray
        ``(k, n, d)``.

    Raises
    ------
    PlanError
        If its codes are points.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> from chartae.transfer import drawn
    >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> drawn(vae, np.eye(20), 3, 0).shape
    (3, 20, 2)
    """
    if gives_points(encoder):
        refuse_points()
    how = {"shared": True} if shared and "shared" in signature(encoder.sample_posterior).parameters else {}
    found: np.ndarray = encoder.sample_posterior(X, k, random_state=random_state, **how)
    return found.reshape(*found.shape[:2], -1)


def gives_points(encoder: Any) -> bool:
    """Tell an encoder of which all draws are the same.

    Parameters
    ----------
    encoder : object or None
        As :func:`fitted` gives it.

    Returns
    -------
    bool
        Whether it has no draws, or is a model of chartae whose posterior has no density.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import AE
    >>> from chartae.transfer import gives_points
    >>> gives_points(None), gives_points(AE(latent_dim=1, max_epochs=1, random_state=0).fit(np.eye(20)))
    (True, True)
    """
    model = getattr(encoder, "model_", None)
    return not hasattr(encoder, "sample_posterior") or (
        model is not None and "density" not in model.posterior.offers
    )


def refuse_points() -> NoReturn:
    """Say that an encoder has no draws.

    Raises
    ------
    PlanError
        Always.

    Examples
    --------
    >>> from chartae.transfer import refuse_points
    >>> refuse_points()
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: stochastic=True averages over draws of codes, and this encoder gives ...
    """
    raise PlanError(
        "stochastic=True averages over draws of codes, and this encoder gives points: use a model of "
        "chartae, or stochastic=False"
    )
