"""One module turns a raw condition (labels, vectors, both) into a tensor, once a pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import RawCondition

__all__ = ["Condition"]


class Condition(nn.Module):
    """Embed labels, pass vectors through, and learn a token that stands for "no condition".

    In training each row's condition is dropped with probability ``dropout`` (Ho and Salimans 2022,
    arXiv:2207.12598), so that one model answers with and without it.

    Parameters
    ----------
    n_labels : int
        How many labels there are; 0 for none.
    vector_dim : int
        Width of the vectors; 0 for none.
    dropout : float
        Probability of the null token in training.

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

    def __init__(self, n_labels: int = 0, vector_dim: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.n_labels, self.vector_dim, self.dropout = n_labels, vector_dim, dropout
        label_width = min(n_labels, 32)
        self.width = label_width + vector_dim
        if n_labels:
            # The last row is the null token; few labels start one-hot, so that none begin alike.
            self.label = nn.Embedding(n_labels + 1, label_width)
            with torch.no_grad():
                if n_labels == label_width:
                    self.label.weight.copy_(torch.eye(n_labels + 1, label_width))
        if vector_dim:
            self.null_vector = nn.Parameter(torch.zeros(vector_dim))
            self.register_buffer("center", torch.zeros(vector_dim))
            self.register_buffer("scale", torch.ones(vector_dim))

    def standardize(self, vectors: Tensor) -> None:
        """Take the center and scale of vectors from training data.

        Parameters
        ----------
        vectors : Tensor
            ``(n, vector_dim)``; rows with NaN are left out.
        """
        seen = vectors[~vectors.isnan().any(1)]
        if len(seen):
            self.center.copy_(seen.mean(0))
            spread = seen.std(0, correction=0)
            self.scale.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, raw: RawCondition | None, n: int) -> Tensor:
        """Make the tensor that the parts see.

        Parameters
        ----------
        raw : RawCondition or None
            Of ``n`` rows; None is the null token for all.
        n : int
            How many rows.

        Returns
        -------
        Tensor
            ``(n, width)``.
        """
        device = next(self.parameters()).device
        label = (
            raw.label if raw is not None and raw.label is not None else torch.full((n,), -1, device=device)
        )
        vector = raw.vector if raw is not None else None
        # Labels and vectors are dropped together: half a condition is another condition.
        dropped = (torch.rand(n, device=device) < self.dropout) if self.training and self.dropout else None
        parts = []
        if self.n_labels:
            null = label < 0 if dropped is None else (label < 0) | dropped
            parts.append(self.label(torch.where(null, self.n_labels, label)))
        if self.vector_dim:
            if vector is None:
                vector = torch.full((n, self.vector_dim), torch.nan, device=device)
            null = vector.isnan().any(1)
            null = null if dropped is None else null | dropped
            # Filled before it is used: a NaN behind torch.where still poisons gradients.
            value = (torch.nan_to_num(vector) - self.center) / self.scale
            parts.append(torch.where(null[:, None], self.null_vector, value))
        return torch.cat(parts, 1)
