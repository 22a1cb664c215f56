"""One module turns a raw condition (labels, vectors, sequences of vectors) into a tensor, once a pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import RawCondition
from chartae.parts.networks import Block

__all__ = ["Condition", "Pooling"]

QUERIES = 4  # vectors that read a sequence ...
POOLED = 64  # ... how wide they are, and what is made of them
DEPTH = 2  # layers of attention


class Pooling(nn.Module):
    """A vector of a sequence of vectors of any length, by what learned queries find in it.

    Queries and vectors attend to each other in a few blocks, in which places without a vector are not looked
    at; of a row without any, the queries are left, which stand for "no sequence".

    Parameters
    ----------
    width : int
        Numbers of one vector.
    ordered : bool
        Whether vectors are told their places, by sines and cosines; else they are a set.

    References
    ----------
    Lee et al. 2019, arXiv:1810.00825, section 3.2 (pooling by attention with learned seeds); Vaswani et al.
    2017, arXiv:1706.03762, section 3.5 (places).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.conditions import Pooling
    >>> pooled = Pooling(3, ordered=False)(torch.ones(2, 5, 3), torch.tensor([[True] * 5, [False] * 5]))
    >>> pooled.shape
    torch.Size([2, 64])
    """

    def __init__(self, width: int, ordered: bool) -> None:
        super().__init__()
        self.ordered = ordered
        self.queries = nn.Parameter(torch.randn(QUERIES, POOLED) * POOLED**-0.5)
        self.given = nn.Linear(width, POOLED)
        self.blocks = nn.ModuleList(Block(POOLED) for _ in range(DEPTH))
        self.made = nn.Sequential(nn.LayerNorm(QUERIES * POOLED), nn.Linear(QUERIES * POOLED, POOLED))

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Map.

        Parameters
        ----------
        x : Tensor
            ``(n, t, width)``, finite.
        there : Tensor
            ``(n, t)``, true where there is a vector.

        Returns
        -------
        Tensor
            ``(n, 64)``.
        """
        x = self.given(x)
        if self.ordered:
            x = x + _places(x)
        x = torch.cat([self.queries.expand(len(x), -1, -1), x], 1)
        mask = nn.functional.pad(there, (QUERIES, 0), value=True)[:, None, None]
        for block in self.blocks:
            x, _ = block(x, mask=mask)
        pooled: Tensor = self.made(x[:, :QUERIES].flatten(1))
        return pooled


def _places(x: Tensor) -> Tensor:
    """``(t, width)``: sines and cosines of each place, in wavelengths from 2π to 20,000π."""
    half = x.shape[2] // 2
    rates = 1e4 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[1], device=x.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype)


class Condition(nn.Module):
    """Embed labels, standardize vectors, read sequences, and learn what stands for "no condition".

    An absent label has an embedding of its own; an absent vector is zeros and an indicator of 1, whose
    weights the networks learn; an absent sequence is one without vectors. In training each row's condition is
    dropped with probability ``dropout`` (Ho and Salimans 2022, arXiv:2207.12598), and where it has several
    parts each of them alone with that probability too, so that one model answers with all, some or none.

    Parameters
    ----------
    n_labels : int
        How many labels there are; 0 for none.
    vector_dim : int
        Width of the vectors; 0 for none.
    dropout : float
        Probability in training that a row's condition is dropped, and then that each part of it is.
    sequence_dim : int
        Width of the vectors of a sequence; 0 for none.
    ordered : bool
        Whether their order matters.

    Attributes
    ----------
    width : int
        Of the tensor: ``min(n_labels, 32)``, ``vector_dim + 1`` where there are vectors, and 64 where there
        are sequences.

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
    sequence_center: Tensor
    sequence_scale: Tensor
    _like: Tensor

    def __init__(
        self,
        n_labels: int = 0,
        vector_dim: int = 0,
        dropout: float = 0.1,
        sequence_dim: int = 0,
        ordered: bool = True,
    ) -> None:
        super().__init__()
        self.n_labels, self.vector_dim, self.dropout = n_labels, vector_dim, dropout
        self.sequence_dim = sequence_dim
        label_width = min(n_labels, 32)
        self.width = label_width + (vector_dim + 1 if vector_dim else 0) + POOLED * bool(sequence_dim)
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
        if sequence_dim:
            self.register_buffer("sequence_center", torch.zeros(sequence_dim, dtype=torch.float64))
            self.register_buffer("sequence_scale", torch.ones(sequence_dim, dtype=torch.float64))
            self.pooling = Pooling(sequence_dim, ordered)
        self.register_buffer("_like", torch.zeros(()), persistent=False)  # follows the model's precision

    def standardize(self, raw: RawCondition) -> None:
        """Take the center and scale of vectors, and of those of sequences, from training data.

        Parameters
        ----------
        raw : RawCondition
            Of ``n`` rows; vectors with NaN are left out.
        """
        if raw.vector is not None:
            _standardize(raw.vector, self.center, self.scale)
        if raw.sequence is not None:
            _standardize(raw.sequence.flatten(0, 1), self.sequence_center, self.sequence_scale)

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
            ``(n, width)``: the label's embedding, the standardized vector, 1 where it is absent, and what
            was read in the sequence.
        """
        device = self._like.device
        label, vector, sequence = RawCondition() if raw is None else raw
        lost = iter(self._lost(n, device))
        parts = []
        if self.n_labels:
            if label is None:
                label = torch.full((n,), -1, device=device)
            parts.append(self.label(torch.where((label < 0) | next(lost), self.n_labels, label)))
        if self.vector_dim:
            if vector is None:
                vector = torch.full((n, self.vector_dim), torch.nan, device=device)
            null = (vector.isnan().any(1) | next(lost))[:, None]
            value = ((vector - self.center) / self.scale).to(self._like.dtype)
            # Zeros are a real vector too, the mean: only the indicator tells them from no vector.
            parts += [value.masked_fill(null, 0), null.to(value.dtype)]
        if self.sequence_dim:
            if sequence is None:
                sequence = torch.full((n, 1, self.sequence_dim), torch.nan, device=device)
            there = ~(sequence.isnan().any(2) | next(lost)[:, None])
            value = ((sequence - self.sequence_center) / self.sequence_scale).to(self._like.dtype)
            parts.append(self.pooling(value.masked_fill(~there[..., None], 0), there))
        return torch.cat(parts, 1)

    def _lost(self, n: int, device: torch.device) -> Tensor:
        """``(parts, n)``: which rows lose the label, the vector and the sequence to dropout."""
        parts = bool(self.n_labels) + bool(self.vector_dim) + bool(self.sequence_dim)
        if not self.training or not self.dropout:
            return torch.zeros(parts, n, dtype=torch.bool, device=device)
        draws = (
            torch.rand(1 if parts == 1 else 1 + parts, n, device=device, dtype=torch.float32) < self.dropout
        )
        return draws if parts == 1 else draws[:1] | draws[1:]


def _standardize(vectors: Tensor, center: Tensor, scale: Tensor) -> None:
    """Write the center and scale of the rows of ``(n, m)`` that hold no NaN, if there are any."""
    seen = vectors[~vectors.isnan().any(1)]
    if len(seen):
        # In units of the largest: squares may overflow or vanish. A power of two rounds nothing.
        exponent = seen.abs().amax(0).double().frexp().exponent - 1
        unit = torch.ldexp(torch.ones_like(scale), exponent)
        center.copy_(unit * (seen / unit).mean(0))
        spread = unit * (seen / unit).std(0, correction=0)
        # The spread of equal values is not quite 0: their mean is rounded.
        varies = seen.amax(0) > seen.amin(0)
        scale.copy_(torch.where(varies, spread, torch.ones_like(spread)))
