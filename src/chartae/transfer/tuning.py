"""Heads that are trained as networks: with an encoder that moves with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Likelihood, Model, Plan, Posterior
from chartae.core.errors import PlanError
from chartae.core.spaces import Space
from chartae.models.autoencoder import Autoencoder
from chartae.parts.networks import evaluating
from chartae.parts.objectives import Labels
from chartae.parts.readouts import Encoded, Pointed, Silent, readout
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.optimizers import Shared
from chartae.training.sources import Source

__all__ = ["Read", "in_units", "target_space", "tune"]

AT_ONCE = 2048  # rows that an encoder sees in one go
SHARE = 0.1  # of the head's learning rate, for the encoder
STEPS, LEAST_EPOCHS, PATIENCE = 1000, 10, 5  # of a training whose length is not given


class Read:
    """A head that was trained as a network, read as scikit-learn reads one.

    Parameters
    ----------
    likelihood : Likelihood
        p(y | z).
    space : Space
        Of y.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.parts.readouts import readout
    >>> from chartae.transfer import Read, target_space
    >>> space = target_space("categorical", np.array([0, 1, 2]))
    >>> Read(readout(space, 4), space).predict_proba(np.zeros((5, 4))).shape
    (5, 3)
    """

    def __init__(self, likelihood: Likelihood, space: Space) -> None:
        self.likelihood, self.space = likelihood.cpu().eval(), space.cpu()

    @torch.no_grad()
    def _read(self, Z: Any, of: Callable[[Any], Tensor]) -> np.ndarray:
        """What is asked of p(y | z), block by block."""
        codes = torch.as_tensor(np.asarray(Z), dtype=torch.float32)
        return np.concatenate([of(self.likelihood(z[None])).numpy() for z in codes.split(AT_ONCE)])

    def predict_proba(self, Z: Any) -> np.ndarray:
        """Probability of each class, or of each of several labels.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.

        Returns
        -------
        ndarray
            ``(n, classes)``.
        """
        if self.space.likelihood == "bernoulli":
            return self._read(Z, lambda p: p.logits[0].double().sigmoid())
        return self._read(Z, lambda p: p.logits[0, :, 0].double().softmax(-1))

    def predict(self, Z: Any) -> np.ndarray:
        """Mean of p(y | z), or the number of the likeliest class.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.

        Returns
        -------
        ndarray
            ``(n,)``.
        """
        return self._read(Z, lambda p: self.space.from_model(p.point())[0, :, 0].double())


def target_space(target: str, y: np.ndarray) -> Space:
    """Say what values a target has, and in which units a head sees them.

    Parameters
    ----------
    target : {"categorical", "bernoulli", "normal", "counts"}
        How it is distributed, given a code; classes are numbered from 0, several labels are zeros and ones.
    y : ndarray
        ``(n,)``; of several labels ``(n, m)``.

    Returns
    -------
    Space
        Of one number, or of m.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import target_space
    >>> target_space("categorical", np.array([0, 2, 1])).levels
    3
    """
    if target == "bernoulli":
        return Space(y.shape[1:], "bernoulli", gaps=True, layout="flat")
    if target == "categorical":
        levels = int(y.max()) + 1
        return Space((1,), "categorical", levels=levels, scale=float(max(levels - 1, 1)), gaps=True)
    likelihood = "poisson" if target == "counts" else target
    return infer_space(y[:, None].astype(np.float64), likelihood=likelihood, gaps=True)


def in_units(space: Space, y: np.ndarray, rows: np.ndarray, n: int) -> Tensor:
    """Say what a head is told, in the units that it sees.

    Parameters
    ----------
    space : Space
        Of y, as :func:`target_space` gives it.
    y : ndarray
        ``(m,)`` or ``(m, labels)``, what is known.
    rows : ndarray
        ``(m,)``, of which rows.
    n : int
        Rows in all.

    Returns
    -------
    Tensor
        ``(n,)`` or ``(n, labels)``; NaN where y is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.transfer import in_units, target_space
    >>> in_units(target_space("categorical", np.arange(3)), np.array([2, 1]), np.array([0, 3]), 4)
    tensor([1.0000,    nan,    nan, 0.5000])
    """
    told = torch.full((n, *y.shape[1:]), torch.nan)
    told[rows] = space.to_model(torch.as_tensor(y.reshape(len(y), -1))).float().reshape(y.shape)
    return told


def tune(
    module: nn.Module,
    X: np.ndarray,
    y: Tensor,
    space: Space,
    *,
    held_out: np.ndarray,
    hidden: Sequence[int] = (),
    stochastic: bool = False,
    epochs: int | None = None,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Likelihood:
    """Train a head on an encoder, at first alone, then with the encoder, which learns more slowly.

    Parameters
    ----------
    module : nn.Module
        A model of chartae, or any module that maps ``(n, *shape)`` to what flattens; it is changed in place.
    X : ndarray
        ``(n, *shape)``.
    y : Tensor
        ``(n,)`` or ``(n, m)`` in the units of ``space``; NaN where it is not known.
    space : Space
        Of y.
    held_out : ndarray
        ``(m,)`` rows that an epoch is chosen by; none: the last one is.
    hidden : sequence of int
        Widths of the head's layers; none for a linear one.
    stochastic : bool
        Train on draws of codes, not on their means.
    epochs : int or None
        Of each of the two, at most; None: what 1,000 steps need, 10 or more.
    learning_rate : float
        Of the head; the encoder's is a tenth of it.
    seed : int
        Of the head's first weights, and of the order of rows.

    Returns
    -------
    Likelihood
        The head.

    Raises
    ------
    PlanError
        If there is nothing to move in the encoder, or its codes depend on more than it.

    References
    ----------
    Kumar et al. 2022, arXiv:2202.10054 (the head first); Howard and Ruder 2018, arXiv:1801.06146, section 3
    (unfreezing in stages, lower rates below).

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.transfer import target_space, tune
    >>> X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    >>> y = (X[:, 0] > 0).astype(float)
    >>> encoder = torch.nn.Linear(3, 2)
    >>> tune(encoder, X, torch.from_numpy(y), target_space("categorical", y), held_out=np.arange(0)).levels
    2
    """
    given: Any = module
    posterior: Posterior = given.posterior if isinstance(module, Model) else Encoded(module, X.shape[1:])
    units = given.space if isinstance(module, Model) else Space(X.shape[1:])
    condition = given.condition if isinstance(module, Model) else None
    below = [p for p in module.parameters() if p.requires_grad]
    if not below:
        raise PlanError("the encoder has nothing to train: use training='frozen'")
    device = below[0].device
    source = Source(X, units.to(device), device=device).told(y)
    rows = np.setdiff1d(np.flatnonzero(~y.isnan().numpy().reshape(len(y), -1).all(1)), held_out)
    batch_size = min(128, max(16, len(rows) // 10))
    most = max(LEAST_EPOCHS, STEPS * batch_size // len(rows)) if epochs is None else epochs

    def fit(model: Autoencoder, source: Source, slow: Sequence[Tensor] = ()) -> None:
        def optimizer(parameters: Sequence[Tensor], lr: float) -> Shared:
            mine = {id(p) for p in slow}
            groups = [([p for p in parameters if (id(p) in mine) == held], held) for held in (True, False)]
            return Shared([(group, SHARE if held else 1.0) for group, held in groups if group], lr)

        for _ in train(
            Plan(model, Labels(), optimizer),
            source.subset(rows),
            validation=source.subset(held_out) if len(held_out) else None,
            epochs=most,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule="cosine",
            patience=max(PATIENCE, most // 5),
            seed=seed,
            begin=not slow,  # what a fitted encoder has learned, a codebook say, it keeps
        ):
            pass

    with torch.no_grad(), evaluating(posterior):
        each = [
            posterior(batch.x, None if condition is None else condition(None, len(batch)))
            for batch in source.batches(AT_ONCE)
        ]
        if type(each[0]).within is not Distribution.within:
            raise PlanError(
                f"codes of {type(posterior.plain).__name__} depend on the decoder, which a tuned encoder "
                "leaves behind: use training='frozen' or 'joint'"
            )
        codes = torch.cat([q.point() for q in each]).float()
    d = codes.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        read = readout(space, d, hidden=tuple(hidden), codes=codes[rows].cpu()).to(device)
    alone = Autoencoder(Encoded(nn.Identity(), (d,)), None, Silent((d,)), Space((d,)), d)
    alone.head = read
    fit(alone, Source(codes, Space((d,)).to(device), device=device).told(y))
    # A quantizer passes gradients through its draws alone.
    drawn = stochastic or posterior.plain.codebook is not None
    both = Autoencoder(
        posterior if drawn else Pointed(posterior), None, Silent(units.model_shape), units, d, condition
    )
    both.head = read
    fit(both, source, below)
    return read
