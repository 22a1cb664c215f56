"""What an item may hold where its values are missing."""

from __future__ import annotations

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Distribution, Model, Trace
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.parts.distributions import Categorical
from chartae.parts.tables import Joint

__all__ = ["complete"]


@torch.no_grad()
def complete(
    model: Model, space: Space, batch: Batch, *, k: int, noise: Noise, draws: int | None = None
) -> Tensor:
    """Say what items hold, given what was observed of them: p(x | observed values).

    Codes are drawn from q(z | observed) and weighted by their importance; those of a point posterior, or of a
    model without a prior, count alike.

    Parameters
    ----------
    model : Model
        In evaluation mode.
    space : Space
        Of the data.
    batch : Batch
        ``n`` rows, NaN where a value is missing.
    k : int
        Codes of each row.
    noise : Noise
        Where the randomness comes from.
    draws : int or None
        How many draws to make; None: the expected value, or the likeliest category.

    Returns
    -------
    Tensor
        ``(draws or 1, n, *shape)``, in the input's units.

    References
    ----------
    Mattei and Frellsen 2019, arXiv:1812.02633, equations 11 and 12.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.core.spaces import Space
    >>> from chartae.density.completion import complete
    >>> from chartae.models.recipes import build
    >>> space = Space((3,), gaps=True)
    >>> model = build("vae", space, latent_dim=2, hidden=(8,)).model.eval()
    >>> complete(model, space, Batch(torch.tensor([[1.0, torch.nan, 2.0]])), k=8, noise=Noise(0)).shape
    torch.Size([1, 1, 3])
    """
    trace = model.trace(batch, k=k, noise=noise)
    weight = _weights(trace)
    if draws is None:
        return space.from_model(_expected(trace.px, weight))[None]
    # On the CPU, where the generator is.
    chosen = torch.multinomial(weight.T.cpu(), draws, replacement=True, generator=noise.generator).T
    z, made = trace.levels[0].z, []
    for some in chosen.to(z.device).split(k):  # as many items at once as there were codes
        picked = z.gather(0, _along(some, z))
        made.append(space.from_model(model.likelihood(picked, trace.c).draw(1, noise).z[0]))
    return torch.cat(made)


def _weights(trace: Trace) -> Tensor:
    """``(k, n)``, adding up to 1 over the codes of a row; float64."""
    if "density" in trace.model.posterior.offers and trace.model.prior is not None:
        return torch.softmax(trace.log_joint_ratio.double(), 0)
    return torch.full_like(trace.log_lik, 1 / len(trace.log_lik), dtype=torch.float64)


def _expected(px: Distribution, weight: Tensor) -> Tensor:
    """Average by weights ``(k, n)``; of categories, which have no mean, give the likeliest."""
    if isinstance(px, Joint):
        return torch.cat([_expected(part, weight) for part in px.parts], -1)[..., px.back]
    if isinstance(px, Categorical):
        shares = px.logits.softmax(-1)
        return px.step * (_along(weight, shares) * shares).sum(0).argmax(-1).to(shares)
    point = px.point()
    return (_along(weight, point) * point).sum(0).to(point)


def _along(t: Tensor, like: Tensor) -> Tensor:
    """Expand over the trailing dimensions of another tensor."""
    return t.reshape(*t.shape, *(1,) * (like.dim() - t.dim())).expand(*t.shape, *like.shape[t.dim() :])
