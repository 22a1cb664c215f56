"""What an item may hold where its values are missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from chartae.core.contracts import Batch, Model, Trace
from chartae.core.noise import Noise
from chartae.core.spaces import Space

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
        return _expected(space.from_model(trace.px.point()), weight, _categories(space))[None]
    # On the CPU, where the generator is.
    chosen = torch.multinomial(weight.T.cpu(), draws, replacement=True, generator=noise.generator).T
    values = space.from_model(trace.px.draw(draws, noise).z)
    return values.gather(1, _along(chosen[:, None].to(values.device), values))[:, 0]


def _weights(trace: Trace) -> Tensor:
    """``(k, n)``, adding up to 1 over the codes of a row; float64."""
    if "density" in trace.model.posterior.offers and trace.model.prior is not None:
        return torch.softmax(trace.log_joint_ratio.double(), 0)
    return torch.full_like(trace.log_lik, 1 / len(trace.log_lik), dtype=torch.float64)


def _categories(space: Space) -> Sequence[int]:
    """Places of an item, flat, that hold categories: they have no mean."""
    if space.levels is not None:
        return range(torch.Size(space.shape).numel())
    if space.likelihood == "columns" and space.schema is not None:
        return [i for i, column in enumerate(space.schema.columns) if column.kind == "categorical"]
    return ()


def _expected(points: Tensor, weight: Tensor, categories: Sequence[int]) -> Tensor:
    """Average ``(k, n, *shape)`` by weights ``(k, n)``; categories are put to the vote."""
    flat = points.flatten(2) if points.dim() > 2 else points[..., None]
    mean = (weight[..., None] * flat).sum(0).to(points.dtype)
    for place in categories:
        codes = flat[..., place].round().long()
        votes = weight.new_zeros(len(mean), int(codes.max()) + 1).scatter_add_(1, codes.T, weight.T)
        mean[:, place] = votes.argmax(1).to(mean.dtype)
    return mean.reshape(points.shape[1:])


def _along(t: Tensor, like: Tensor) -> Tensor:
    """Expand over the trailing dimensions of another tensor."""
    return t.reshape(*t.shape, *(1,) * (like.dim() - t.dim())).expand(*t.shape, *like.shape[t.dim() :])
