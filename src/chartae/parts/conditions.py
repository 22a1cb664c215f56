"""One module turns a raw condition (labels, vectors, both) into a tensor, once a pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import RawCondition

__all__ = ["Condition"]


class Condition(nn.Module):
    """Embed labels, standardize vectors, and learn what stands for "no condition".

    An absent label has an embedding of its own; an absent vector is zeros and an indicator of 1, whose
    weights the networks learn. In training each row's condition is dropped with probability ``dropout``
    (Ho and Salimans 2022, arXiv:2207.12598), and where there are labels and vectors each of them alone with
    that probability too, so that one model answers with both, with either and with neither.

    Parameters
    ----------
    n_labels : int
        How many labels there are; 0 for none.
    vector_dim : int
        Width of the vectors; 0 for none.
    dropout : float
        Probability in training that a row's condition is dropped, and then that each part of it is.

    Attributes
    ----------
    width : int
        Of the tensor: ``min(n_labels, 32)``, and ``vector_dim + 1`` where there are vectors.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import RawCondition
    >>> from chartae.parts.conditions import Condition
    >>> c = Condition(n_labels=10, vector_dim=3).eval()
    >>> c(RawCondition(torch.tensor([9, -1]), torch.zeros(2, 3)), 2).shape[1] == c.width
    True
    """

    center: Tensor
    scale: Tensor
    _like: Tensor

    def __init__(self, n_labels: int = 0, vector_dim: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.n_labels, self.vector_dim, self.dropout = n_labels, vector_dim, dropout
        label_width = min(n_labels, 32)
        self.width = label_width + (vector_dim + 1 if vector_dim else 0)
        if n_labels:
            # The last row is the null token; few labels start one-hot, so that none begin alike.
            self.label = nn.Embedding(n_labels + 1, label_width)
            with torch.no_grad():
                if n_labels == label_width:
                    self.label.weight.copy_(torch.eye(n_labels + 1, label_width))
        if vector_dim:
            # float64: the center of a large offset must not be rounded before it is subtracted.
            self.register_buffer("center", torch.zeros(vector_dim, dtype=torch.float64))
            self.register_buffer("scale", torch.ones(vector_dim, dtype=torch.float64))
        self.register_buffer("_like", torch.zeros(()), persistent=False)  # follows the model's precision

    def standardize(self, vectors: Tensor) -> None:
        """Take the center and scale of vectors from training data.

        Parameters
        ----------
        vectors : Tensor
            ``(n, vector_dim)``; rows with NaN are left out.
        """
        seen = vectors[~vectors.isnan().any(1)]
        if len(seen):
            # In units of the largest: squares may overflow or vanish. A power of two rounds nothing.
            exponent = seen.abs().amax(0).double().frexp().exponent - 1
            unit = torch.ldexp(torch.ones_like(self.scale), exponent)
            self.center.copy_(unit * (seen / unit).mean(0))
            spread = unit * (seen / unit).std(0, correction=0)
            # The spread of equal values is not quite 0: their mean is rounded.
            varies = seen.amax(0) > seen.amin(0)
            self.scale.copy_(torch.where(varies, spread, torch.ones_like(spread)))

    def forward(self, raw: RawCondition | None, n: int) -> Tensor:
        """Make the tensor that the parts see.

        Parameters
        ----------
        raw : RawCondition or None
            Of ``n`` rows; None is the null token for all. A part that is None is absent in all rows, a label
            of -1 or a vector with a NaN in that row.
        n : int
            How many rows.

        Returns
        -------
        Tensor
            ``(n, width)``: the label's embedding, the standardized vector, and 1 where it is absent.
        """
        device = self._like.device
        label, vector = (None, None) if raw is None else raw
        lost = self._lost(n, device)
        parts = []
        if self.n_labels:
            if label is None:
                label = torch.full((n,), -1, device=device)
            parts.append(self.label(torch.where((label < 0) | lost[0], self.n_labels, label)))
        if self.vector_dim:
            if vector is None:
                vector = torch.full((n, self.vector_dim), torch.nan, device=device)
            null = (vector.isnan().any(1) | lost[-1])[:, None]
            value = ((vector - self.center) / self.scale).to(self._like.dtype)
            # Zeros are a real vector too, the mean: only the indicator tells them from no vector.
            parts += [value.masked_fill(null, 0), null.to(value.dtype)]
        return torch.cat(parts, 1)

    def _lost(self, n: int, device: torch.device) -> Tensor:
        """``(parts, n)``: which rows lose the label, and the vector, to dropout."""
        parts = bool(self.n_labels) + bool(self.vector_dim)
        if not self.training or not self.dropout:
            return torch.zeros(parts, n, dtype=torch.bool, device=device)
        draws = torch.rand(1 if parts == 1 else 3, n, device=device, dtype=torch.float32) < self.dropout
        return draws if parts == 1 else draws[:1] | draws[1:]
