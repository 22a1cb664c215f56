"""What an embedding loses by pairs that match, or do not."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn

from chartae.core.contracts import Term, Trace
from chartae.core.errors import PlanError
from chartae.parts.objectives.bounds import Warmed

__all__ = ["Match", "Matches", "fit_match"]

OTHERS = 4096  # pairs of a batch that do not match and are looked at
VALUES = 1 << 25  # of differences of pairs of a kind at once, of all pairs of draws
SPREAD = 1.0  # of the logarithm of a slope around what was trained, before any other pair is seen


class Match(nn.Module):
    """Probability that two codes are of a kind: it falls with their distance, by a slope that is learned.

    Attributes
    ----------
    offers : frozenset of str
        "match".

    References
    ----------
    Oh et al. 2019, arXiv:1810.00319, equation 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import Match
    >>> log_match, log_other = Match()(torch.tensor([[0.0, 9.0]]))  # a pair of draws of two pairs of items
    >>> log_match.exp().round(decimals=2).tolist()
    [0.5, 0.0]
    """

    offers = frozenset({"match"})

    def __init__(self) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, gaps: Tensor) -> tuple[Tensor, Tensor]:
        """Average over pairs of draws.

        Parameters
        ----------
        gaps : Tensor
            Of shape ``(pairs, ...)``: distances between a draw of the one and a draw of the other item.

        Returns
        -------
        log_match : Tensor
            Of shape ``(...)``: log of the probability that two items are of a kind.
        log_other : Tensor
            Of shape ``(...)``: log of the probability that they are not.
        """
        logits = self._logits(gaps)
        yes, no = (
            nn.functional.logsigmoid(sign * logits).logsumexp(0) - math.log(len(logits))
            for sign in (1.0, -1.0)
        )
        return yes, no

    def probability(self, gaps: Tensor) -> Tensor:
        """Average over pairs of draws, where no logarithm is needed.

        Parameters
        ----------
        gaps : Tensor
            Of shape ``(pairs, ...)``, as :meth:`forward` takes them.

        Returns
        -------
        Tensor
            Of shape ``(...)``: how likely two items are of a kind.
        """
        return self._logits(gaps).sigmoid_().mean(0)

    def _logits(self, gaps: Tensor) -> Tensor:
        return torch.addcmul(self.offset, gaps, self.log_slope.exp(), value=-1)


def fit_match(match: Match, same: Tensor, apart: Tensor, n: int) -> Match:
    """Find the slope and the offset under which held-out pairs are likeliest, half of each kind.

    Training moves codes more than these two numbers, which are left where codes hardly overlap. The slope's
    logarithm has a normal prior around what was trained, so that few rows make nothing sure.

    Parameters
    ----------
    match : Match
        As it was trained, and stays.
    same, apart : Tensor
        ``(k, pairs)`` distances between draws of items of a kind, and of others.
    n : int
        Rows that these pairs are made of.

    Returns
    -------
    Match
        Another one.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.1 (Platt scaling); Oh et al. 2019, arXiv:1810.00319,
    equation 2.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import Match, fit_match
    >>> near, far = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.8, 0.9]])
    >>> log_match, _ = fit_match(Match(), near, far, 1000)(torch.tensor([[0.1, 0.5, 0.9]]))
    >>> log_match.exp().round(decimals=1).tolist()
    [1.0, 0.5, 0.0]
    """
    fitted = deepcopy(match).double()
    before = fitted.log_slope.detach().clone()
    pairs = (same.double(), apart.double())
    optimizer = torch.optim.LBFGS(fitted.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        told = sum(-fitted(gaps)[i].mean() for i, gaps in enumerate(pairs))
        value: Tensor = 0.5 * (n * told + ((fitted.log_slope - before) / SPREAD) ** 2)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return fitted.to(match.offset.dtype)


class Matches(Warmed):
    """Mean negative log-probability that pairs of a batch match where they do, and do not where they do not.

    Half of the mean over pairs that match, and half of ``odds`` times the mean over those that do not. Where
    the latter are many, some are chosen by lot, up to 4,096 or as many as match; and of either kind no more
    than those whose differences take 128 MiB. With β of a KL beside it, it is the hedged instance embedding,
    which has odds of 1: among a hundred kinds it then costs little to lie on a few others.

    Parameters
    ----------
    k : int
        Draws of each item.
    odds : float
        What pairs that do not match count for beside those that do; as many as there are of them for each
        that matches, every pair counts alike.
    warmup : float
        Epochs in which the odds grow from 1, half of a training at most: from the beginning, high odds leave
        draws of all items on one another.

    Raises
    ------
    PlanError
        If ``k < 1``, the odds are not positive, or the warm-up is negative.

    References
    ----------
    Oh et al. 2019, arXiv:1810.00319, equations 3 to 6.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, Matches
    >>> Matches(k=8) + 0.001 * KL(), Matches(k=8, odds=99, warmup=20)
    (matches(k=8) + 0.001 * kl, matches(k=8, odds=99, warmup=20))
    """

    needs = frozenset({"head.match", "posterior.reparameterized"})

    def __init__(self, k: int = 8, *, odds: float = 1.0, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if k < 1:
            raise PlanError(f"k={k}: a match is told by one draw of each item or more")
        if not odds > 0:
            raise PlanError(f"odds={odds:g}: pairs that do not match count for something")
        self.samples, self.odds = k, float(odds)

    def forward(self, trace: Trace) -> dict[str, Term]:
        z, y = trace.levels[0].z, trace.batch.y
        assert y is not None
        same = (y[:, None] == y).triu(1).nonzero()  # NaN is equal to nothing
        apart = (y[:, None] < y).nonzero()
        most = max(1, VALUES // (len(z) ** 2 * z.shape[-1]))
        others = min(most, max(OTHERS, len(same)))
        losses = []
        for which, (pairs, some) in enumerate(((same, most), (apart, others))):
            i, j = _drawn(pairs, some, trace).unbind(1)
            gaps = torch.linalg.vector_norm(z[:, None, i] - z[None, :, j], dim=-1).flatten(0, 1)
            log = trace.model.head(gaps)[which]  # type: ignore[misc]
            losses.append(-log.sum() / max(1, len(i)))
        return {"matches": Term(0.5 * (losses[0] + self.odds**self.share * losses[1]))}

    def __repr__(self) -> str:
        given = {"odds": self.odds if self.odds != 1 else 0, "warmup": self._warmup}
        return f"matches({', '.join([f'k={self.samples}', *(f'{n}={v:g}' for n, v in given.items() if v)])})"


def _drawn(pairs: Tensor, some: int, trace: Trace) -> Tensor:
    """Choose some pairs by lot, where there are more."""
    if len(pairs) <= some:
        return pairs
    lot = trace.noise.uniform((some,), trace.levels[0].z) * len(pairs)
    return pairs[lot.long().clamp_max(len(pairs) - 1)]
