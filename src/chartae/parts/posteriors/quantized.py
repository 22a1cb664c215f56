"""Points on a codebook: discrete codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.parts.codebooks import Codebook
from chartae.parts.distributions import CodePoint, RelaxedCodes
from chartae.parts.posteriors.base import NetworkPosterior, posteriors

__all__ = [
    "CodebookPosterior",
    "FiniteScalarPosterior",
    "HierarchicalPosterior",
    "ResidualPosterior",
    "VectorPosterior",
]

JITTER = 0.01  # standard deviations by which entries that begin at the same row differ
SPREAD = 2.0  # standard deviation of the first level's entries, whose squared distances are nats
RESTART = 5  # an entry that was not once the nearest to so many vectors for each entry begins anew


def _slots(latent_dim: int, slots: int | None) -> int:
    """How many vectors a code is cut into: as many as leave each two numbers, where nothing is asked for."""
    divisors = [m for m in range(1, latent_dim + 1) if latent_dim % m == 0]
    if slots is None:
        return max(m for m in divisors if m == 1 or 2 * m <= latent_dim)
    if isinstance(slots, bool) or slots not in divisors:
        listed = ", ".join(map(str, divisors))
        raise PlanError(f"slots={slots!r} cuts {latent_dim} numbers into no equal parts: use one of {listed}")
    return int(slots)


def _count(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise PlanError(f"{name}={value!r}: use a whole number from {least}")
    return int(value)


def _between(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) < high:
        below = f" and below {high:g}" if high < math.inf else ""
        raise PlanError(f"{name}={value!r}: use a number from {low:g}{below}")
    return float(value)


def _straight_through(v: Tensor, value: Tensor) -> Tensor:
    """Give a value, and its gradient to v as if the two were one; exact, unlike v + (value - v)."""
    return value.detach() + (v - v.detach())


class CodebookPosterior(NetworkPosterior):
    """Base of posteriors whose codes lie on a codebook.

    Source: van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937, section 3.1.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    book : Codebook
        What codes are made of.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import VectorPosterior
    >>> q, x = VectorPosterior(MLP((4,), (6,), hidden=(8,)), 6, codes=16).eval(), torch.randn(5, 4)
    >>> indices = q.indices(x)
    >>> indices.shape, torch.equal(q.lookup(indices), q(x).point())
    (torch.Size([5, 3]), True)
    """

    offers = frozenset({"point", "reparameterized"})
    fitted_density = "autoregressive"

    def __init__(self, network: nn.Module, latent_dim: int, book: Codebook) -> None:
        super().__init__(network, latent_dim)
        self.book = book

    @staticmethod
    def features(latent_dim: int, **options: Any) -> int:
        """Width of the encoder's output.

        Parameters
        ----------
        latent_dim : int
            d.
        **options
            No effect.

        Returns
        -------
        int
            d.
        """
        return latent_dim

    @property
    def codebook(self) -> Codebook:
        return self.book

    def indices(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Number the entries that items are encoded as.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)``.

        Returns
        -------
        Tensor
            ``(n, slots * depth)``, whole numbers, slot by slot.
        """
        return self(x, c).indices

    def lookup(self, indices: Tensor) -> Tensor:
        """Make codes of indices.

        Parameters
        ----------
        indices : Tensor
            ``(..., slots * depth)``.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        return self.book.lookup(indices)


@posteriors.register("vq")
class VectorPosterior(CodebookPosterior):
    """The entries of a codebook that are nearest to the encoder's output, slot by slot.

    The decoder's gradient goes to the encoder's output as it is. Draws bring ``commitment``, the squared
    distance by which the encoder moves towards the entries, and ``codebook``, by which entries move towards
    the encoder, unless they follow it as a running mean. Before the first step entries lie at encoded rows of
    the training data; those that were of no use for a while begin anew at encoded rows of the batch.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    codes : int
        Entries of the codebook, or of each level.
    slots : int or None
        How many vectors a code is cut into, which divides d; None: as many as leave each two numbers.
    depth : int
        Levels: each takes the entry nearest to what the levels before have left.
    ema : float
        Decay of the running mean that entries follow; 0: gradients move them.
    restart : float
        How many vectors, for each entry of a level, must pass before one that was not the nearest to any of
        them begins anew; 0: never.

    Raises
    ------
    PlanError
        If an option makes no sense.

    References
    ----------
    Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937, equations 1 to 3, and appendix A.1 (running
    means); Dhariwal et al. 2020, arXiv:2005.00341, section 3.1 (restarts).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import VectorPosterior
    >>> q = VectorPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=6, codes=16)(torch.zeros(5, 4))
    >>> q.point().shape, sorted(q.auxiliary)
    (torch.Size([5, 6]), ['codebook', 'commitment'])
    """

    offers = CodebookPosterior.offers | {"codebook", "commitment"}
    idle: Tensor
    share: Tensor
    total: Tensor

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        codes: int = 256,
        slots: int | None = None,
        depth: int = 1,
        ema: float = 0.0,
        restart: float = RESTART,
    ) -> None:
        slots, codes, depth = _slots(latent_dim, slots), _count(codes, "codes", 2), _count(depth, "depth", 1)
        ema, restart = _between(ema, "ema", 0, 1), _between(restart, "restart", 0, math.inf)
        book = Codebook(slots, codes, latent_dim // slots, depth, learned=not ema)
        super().__init__(network, latent_dim, book)
        self.ema, self.restart = ema, restart
        self.register_buffer("idle", torch.zeros(depth, codes, dtype=torch.long))
        if ema:
            self.offers = self.offers - {"codebook"}
            self.register_buffer("share", torch.ones(depth, codes))
            self.register_buffer("total", nn.init.normal_(self.book.entries)[0].clone())

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        v = self.book.cut(self.encode(x, c))
        index, entries = self.book.nearest(v)
        past = entries.detach().cumsum(-2) - entries.detach()
        rest = v.unsqueeze(-2) - past  # what each level was given
        auxiliary = {"commitment": (rest - entries.detach()).square().flatten(1).sum(1)}
        if not self.ema:
            auxiliary["codebook"] = (rest.detach() - entries).square().flatten(1).sum(1)
        if self.training:
            self._follow(rest.detach(), index)
        return CodePoint(_straight_through(v, entries.sum(-2)).flatten(1), index.flatten(1), auxiliary)

    @torch.no_grad()
    def _follow(self, rest: Tensor, index: Tensor) -> None:
        """Move running means, and restart entries, by vectors (n, slots, depth, width) and their entries."""
        for level in range(self.book.depth):
            v, i = rest[:, :, level].flatten(0, 1), index[:, :, level].flatten()
            e, idle = self.book.entries[0, level], self.idle[level]
            count = e.new_zeros(len(e)).index_add_(0, i, e.new_ones(()).expand(len(i)))
            idle.add_(len(v)).masked_fill_(count > 0, 0)
            followed = []
            if self.ema:
                share, total = self.share[level], self.total[level]
                share.lerp_(count, 1 - self.ema)
                total.lerp_(torch.zeros_like(total).index_add_(0, i, v.to(total)), 1 - self.ema)
                # What nothing was near for long has no mean any more, and stays where it was.
                e.copy_(torch.where(share.unsqueeze(-1) > 1e-5, total / share.unsqueeze(-1), e))
                followed = [total]
            if self.restart:
                # Whether there are any is not asked: a GPU would have to be waited for.
                dead = idle > self.restart * len(e)
                turn = dead.cumsum(0) - 1
                dead &= turn < len(v)
                rows = v[torch.randperm(len(v), device=v.device)[turn.clamp(0, len(v) - 1)]].to(e)
                idle.masked_fill_(dead, 0)
                for entries in (e, *followed):
                    entries.copy_(torch.where(dead.unsqueeze(-1), rows, entries))
                if self.ema:
                    share.masked_fill_(dead, 1.0)

    @torch.no_grad()
    def begin(self, x: Tensor, c: Tensor | None) -> None:
        rest = self.book.cut(self.encode(x, c))
        for level, e in enumerate(self.book.entries[0].detach()):
            v = rest.flatten(0, 1)
            rows = torch.randperm(len(v), device="cpu").repeat(-(-len(e) // len(v)))[: len(e)]
            e.copy_(v[rows.to(v.device)])
            e.add_(torch.randn(e.shape, device="cpu").to(e) * JITTER * v.std(correction=0).clamp_min(JITTER))
            rest = rest - self.book.entry(self.book(rest, level).argmin(-1), level)
        if self.ema:
            self.total.copy_(self.book.entries[0])
            self.share.fill_(1.0)


@posteriors.register("rq")
class ResidualPosterior(VectorPosterior):
    """Vector quantization of what earlier levels have left over: each level has a codebook of its own.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    depth : int
        Levels.
    **options
        As of :class:`VectorPosterior`.

    References
    ----------
    Lee et al. 2022, arXiv:2203.01941, equations 3 to 6; Zeghidour et al. 2021, arXiv:2107.03312,
    algorithm 1 (a codebook for each level).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import ResidualPosterior
    >>> q = ResidualPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=6, codes=16, depth=3, slots=2)
    >>> q.indices(torch.zeros(5, 4)).shape
    torch.Size([5, 6])
    """

    def __init__(self, network: nn.Module, latent_dim: int, depth: int = 4, **options: Any) -> None:
        super().__init__(network, latent_dim, depth=depth, **options)


@posteriors.register("fsq")
class FiniteScalarPosterior(CodebookPosterior):
    """Each number of a code rounded to one of a few levels from -1 to 1; nothing is learned but the encoder.

    The encoder's output passes a hyperbolic tangent and is rounded. Levels lie symmetrically about zero,
    where the published ones of an even number are moved down by half a step.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    levels : int or sequence of int
        How many, for all dimensions or for each.

    Raises
    ------
    PlanError
        If there are fewer than two, or not as many numbers as dimensions.

    References
    ----------
    Mentzer et al. 2023, arXiv:2309.15505, section 3.1.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import FiniteScalarPosterior
    >>> q = FiniteScalarPosterior(MLP((4,), (2,), hidden=(8,)), latent_dim=2, levels=(3, 2))
    >>> q.lookup(torch.tensor([[0, 0], [1, 1], [2, 1]]))
    tensor([[-1., -1.],
            [ 0.,  1.],
            [ 1.,  1.]])
    """

    def __init__(self, network: nn.Module, latent_dim: int, levels: int | Sequence[int] = 8) -> None:
        each = [levels] if isinstance(levels, Integral) or not isinstance(levels, Sequence) else list(levels)
        each = [_count(m, "levels", 2) for m in each]
        if len(each) not in (1, latent_dim):
            raise PlanError(f"levels={levels!r}: give one number, or one for each of {latent_dim} dimensions")
        same = len(set(each)) == 1
        super().__init__(
            network, latent_dim, Codebook(latent_dim, each[0] if same else each, 1, learned=False)
        )
        for entries, m in zip(self.book.entries[:, 0, :, 0], each, strict=False):
            entries.copy_((2 * torch.arange(len(entries)).clamp_max(m - 1) - (m - 1)) / (m - 1))
        sizes = torch.tensor(each * (latent_dim // len(each)), dtype=torch.float32)
        self.register_buffer("most", sizes - 1, persistent=False)

    most: Tensor

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        bounded = self.encode(x, c).tanh()
        index = (0.5 * (bounded.detach() + 1) * self.most).round().nan_to_num().long()
        return CodePoint(_straight_through(bounded, self.book.lookup(index)), index)


@posteriors.register("hrq")
class HierarchicalPosterior(CodebookPosterior):
    """A categorical for each level of a residual codebook: coarse entries first, finer ones for what is left.

    In training the entries of a level are mixed by a Gumbel-softmax, and some rows stop at a level before the
    last; otherwise the likeliest entry is taken. Draws bring ``code_kl``, the divergence of the categoricals
    from uniform ones. Before the first step the encoder's output is scaled to be as wide as the entries.

    Parameters
    ----------
    network : nn.Module
        From x to ``(n, d)``.
    latent_dim : int
        d.
    codes : int
        Entries of each level.
    slots : int or None
        How many vectors a code is cut into, which divides d; None: as many as leave each two numbers.
    depth : int
        Levels.
    temperature : float
        Of the Gumbel-softmax.
    drop : float
        Share of rows that stop early in training, each at a level drawn at random.
    decay : float
        How much smaller the entries of each level begin than those of the one before.

    Raises
    ------
    PlanError
        If an option makes no sense.

    References
    ----------
    Hosking, Tang and Lapata 2022, arXiv:2203.03463, section 3; Jang, Gu and Poole 2017, arXiv:1611.01144, and
    Maddison, Mnih and Teh 2017, arXiv:1611.00712 (Gumbel-softmax).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import HierarchicalPosterior
    >>> q = HierarchicalPosterior(MLP((4,), (6,), hidden=(8,)), latent_dim=6, slots=1).eval()
    >>> q(torch.zeros(5, 4)).indices.shape
    torch.Size([5, 3])
    """

    offers = CodebookPosterior.offers | {"code_kl"}

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        codes: int = 16,
        slots: int | None = None,
        depth: int = 3,
        temperature: float = 1.0,
        drop: float = 0.1,
        decay: float = 0.5,
    ) -> None:
        slots, codes, depth = _slots(latent_dim, slots), _count(codes, "codes", 2), _count(depth, "depth", 1)
        super().__init__(network, latent_dim, Codebook(slots, codes, latent_dim // slots, depth))
        self.temperature = _between(temperature, "temperature", 1e-3, math.inf)
        self.drop, self.decay = _between(drop, "drop", 0, 1), _between(decay, "decay", 0, math.inf)
        self.register_buffer("gain", torch.tensor(1.0))
        with torch.no_grad():
            self.book.entries.mul_(SPREAD * self.decay ** torch.arange(depth)[:, None, None])

    gain: Tensor

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        v = self.book.cut(self.gain * self.encode(x, c))
        if not self.training:
            z, indices, kl = (t[0] for t in RelaxedCodes(v, self.book, 0.0).descend(1, Noise(0)))
            return CodePoint(_straight_through(v.flatten(1), z), indices, {"code_kl": kl})
        stop = torch.randint(1, self.book.depth + 1, (len(v),), device=v.device)
        stop.masked_fill_(torch.rand(len(v), device=v.device) >= self.drop, self.book.depth)
        return RelaxedCodes(v, self.book, self.temperature, stop)

    @torch.no_grad()
    def begin(self, x: Tensor, c: Tensor | None) -> None:
        # As wide as the entries: among those that are all far away, or near, none would be the likelier one.
        self.gain.copy_(SPREAD / self.encode(x, c).std(correction=0).clamp_min(JITTER))
