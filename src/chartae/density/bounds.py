"""Bounds on log p(x)."""

from __future__ import annotations

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Model
from chartae.core.noise import Noise
from chartae.parts.objectives import importance_bound

__all__ = ["log_likelihood_bound"]


@torch.no_grad()
def log_likelihood_bound(model: Model, batch: Batch, *, k: int, noise: Noise) -> Tensor:
    """Importance-weighted lower bound of log p(x), or log p(x | z = E(x)) for a point posterior.

    Parameters
    ----------
    model : Model
        In evaluation mode.
    batch : Batch
        ``n`` rows.
    k : int
        Importance samples.
    noise : Noise
        Where the randomness comes from.

    Returns
    -------
    Tensor
        ``(n,)`` nats an item, in the input's units. A lower bound in expectation; for a Delta posterior
        it is a score and not a density.

    References
    ----------
    Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519, equation 8.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.density.bounds import log_likelihood_bound
    >>> from chartae.models.recipes import build
    >>> model = build("vae", (4,), latent_dim=2).model.eval()
    >>> log_likelihood_bound(model, Batch(torch.zeros(3, 4)), k=8, noise=Noise(0)).shape
    torch.Size([3])
    """
    explicit = "log_prob" in model.posterior.offers and model.prior is not None
    trace = model.trace(batch, k=k if explicit else 1, noise=noise)
    return importance_bound(trace.log_joint_ratio) if explicit else trace.log_lik[0]
