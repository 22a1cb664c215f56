"""Masses of discrete codes: which entries of a codebook go together."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Draw, Posterior
from chartae.core.errors import DataError
from chartae.core.noise import Noise
from chartae.density.fitted import Density, densities
from chartae.density.learning import learn
from chartae.parts.codebooks import Codebook

__all__ = ["AutoregressiveDensity", "CodeDensity", "IndependentDensity"]

SMOOTHING = (0.001, 0.01, 0.1, 0.5)  # codes that each entry is seen as beforehand; held-out codes choose
EPOCHS, PATIENCE, STEPS = 200, 6, 2000


class CodeDensity(Density):
    """A mass of codes on a codebook, of which it keeps a copy.

    Parameters
    ----------
    latent_dim : int
        d.
    codebook : Codebook, Mapping or None
        It, or what describes it (its entries are then loaded); None: each number is -1 or 1.

    Examples
    --------
    >>> from chartae.density import CodeDensity, densities
    >>> [name for name in densities if issubclass(densities[name], CodeDensity)]
    ['independent', 'autoregressive']
    """

    discrete: ClassVar[bool] = True
    logits: Tensor

    def __init__(self, latent_dim: int, codebook: Codebook | Mapping[str, Any] | None = None) -> None:
        super().__init__(latent_dim)
        if codebook is None:
            self.book = Codebook(latent_dim, 2, 1, learned=False)
            self.book.entries.copy_(torch.tensor([-1.0, 1.0])[:, None])
        else:
            self.book = Codebook.of(codebook) if isinstance(codebook, Mapping) else codebook.copy()
        # Of each token alone; entries that are none have no mass.
        logits = torch.zeros(self.book.tokens, max(self.book.sizes), dtype=torch.float32)
        past = torch.arange(logits.shape[1]) >= torch.tensor(self.book.sizes)[:, None]
        self.register_buffer("logits", logits.masked_fill(past, -torch.inf))

    @property
    def parameters_(self) -> dict[str, Any]:
        return {"codebook": self.book.config}

    def _reference(self, z: Tensor) -> Tensor:
        return torch.full((len(z),), -sum(map(math.log, self.book.sizes)), dtype=torch.float64)

    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        tokens = self._tokens(train)
        self._learn_tokens(tokens, tokens if choose is train else self._tokens(choose), seed)

    def _tokens(self, z: Tensor) -> Tensor:
        """Indices (n, tokens) of codes (n, d)."""
        tokens = self.book.find(z)
        off = ~self.book.holds(z, tokens)
        if bool(off.any()):
            row = int(off.nonzero()[0])
            raise DataError(
                f"the code in row {row} (from 0) is not on the codebook: encode items with the model"
            )
        return tokens

    def _count(self, tokens: Tensor, choose: Tensor | None) -> None:
        """Learn how often each entry is taken, with the smoothing that does best on other codes."""
        counts = torch.stack([torch.bincount(t, minlength=self.logits.shape[1]) for t in tokens.unbind(1)])
        past = self.logits.isinf()

        def smooth(by: float) -> Tensor:
            return (counts + by).log().masked_fill(past, -torch.inf).log_softmax(1)

        if choose is not None and choose is not tokens:
            scores = [float(smooth(by).gather(1, choose.T).mean()) for by in SMOOTHING]
            self.smoothing = SMOOTHING[scores.index(max(scores))]
        self.logits.copy_(smooth(self.smoothing))

    smoothing = SMOOTHING[-1]

    @abstractmethod
    def _learn_tokens(self, train: Tensor, choose: Tensor, seed: int) -> None:
        """Fit to indices (n, tokens), and choose by others, the same if there are few."""


@densities.register("independent")
class IndependentDensity(CodeDensity):
    """Each entry drawn for itself, as often as it was taken.

    Parameters
    ----------
    latent_dim : int
        d.
    codebook : Codebook, Mapping or None
        As of :class:`CodeDensity`.

    References
    ----------
    Lidstone 1920, "Note on the general case of the Bayes-Laplace formula" (smoothed frequencies).

    Examples
    --------
    >>> import torch
    >>> from chartae.density import IndependentDensity
    >>> p = IndependentDensity(1).fit([[1.0]] * 75 + [[-1.0]] * 25)
    >>> round(float(p().log_prob(torch.tensor([1.0])).exp()), 2)
    0.75
    """

    most = None

    def _learn_tokens(self, train: Tensor, choose: Tensor, seed: int) -> None:
        self._count(train, choose)

    def _finish(self, codes: Tensor, seed: int) -> None:
        self._count(self._tokens(codes), None)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        return _Codes(self.book, lambda tokens: self.logits.expand(*tokens.shape, -1))


class _Network(nn.Module):
    """Logits of each token given those before it, beside those of the token alone.

    Entries are known by their numbers and by where they lie, so that what is learned of one is soon known of
    its neighbors: in a slot a logit may be that of a normal around any place.
    """

    def __init__(self, book: Codebook, hidden: int) -> None:
        super().__init__()
        tokens, most = book.tokens, max(book.sizes)
        e = book.entries.flatten(0, 1)
        e = (e - e.mean(1, keepdim=True)) / e.std(1, keepdim=True, correction=0).clamp_min(1e-6)
        self.register_buffer("places", torch.cat([e, e.square() - 1], -1).float())
        wide = 2 * book.width
        self.embedding = nn.Embedding(len(e) * most, hidden)
        self.seen, self.shown = nn.Linear(wide, hidden), nn.Linear(hidden, wide)
        self.slot = nn.Parameter(torch.zeros(tokens, hidden))
        self.cell = nn.GRU(hidden, hidden, batch_first=True)
        self.last = nn.Linear(hidden, most)
        self.offset = nn.Parameter(torch.zeros(tokens, most))
        #: Which row of places a token takes its entries from.
        self.register_buffer("row", torch.arange(tokens) % len(e), persistent=False)

    places: Tensor
    row: Tensor

    def restart(self) -> None:
        for module in (self.seen, self.shown, self.cell, self.last):
            module.reset_parameters()
        nn.init.normal_(self.embedding.weight, std=0.1)
        nn.init.normal_(self.slot, std=0.5)
        for zero in (self.shown.weight, self.shown.bias, self.last.weight, self.last.bias, self.offset):
            nn.init.zeros_(zero)

    def _input(self, tokens: Tensor, row: Tensor) -> Tensor:
        """What is known (n, t, hidden) of entries (n, t) of given rows (t,)."""
        known = self.embedding.weight + self.seen(self.places).flatten(0, 1)  # of entries: fewer than tokens
        return nn.functional.embedding(tokens + row * self.places.shape[1], known)

    def _output(self, h: Tensor, at: slice, beside: Tensor) -> Tensor:
        """Logits (n, t, codes) by numbers and places of entries in one product, and others (t, codes)."""
        row = self.row[at]
        weight = (self.last.weight + self.places @ self.shown.weight)[row]
        bias = (self.last.bias + self.places @ self.shown.bias)[row] + self.offset[at] + beside
        return torch.baddbmm(bias.unsqueeze(1), h.transpose(0, 1), weight.mT).transpose(0, 1)

    def forward(self, tokens: Tensor, beside: Tensor) -> Tensor:
        """From (n, tokens), and logits to add to, to (n, tokens, codes); the last token is not looked at."""
        before = self._input(tokens[:, :-1], self.row[:-1])
        h = nn.functional.pad(before, (0, 0, 1, 0)) + self.slot
        return self._output(self.cell(h)[0], slice(None), beside)

    def step(
        self, t: int, token: Tensor | None, state: Tensor | None, n: int, beside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, codes) of token ``t`` given the one before it (n,) and the state."""
        h = self.slot[t].expand(n, 1, -1)
        if token is not None:
            h = h + self._input(token[:, None], self.row[t - 1 : t])
        out, state = self.cell(h, state)
        return self._output(out, slice(t, t + 1), beside[t])[:, 0], state


@densities.register("autoregressive")
class AutoregressiveDensity(CodeDensity):
    """Each entry given those before it, slot by slot and level by level, by a gated recurrent network.

    It begins as "independent", and is trained until codes that are held out for this have no longer gained
    for 6 epochs; the best epoch is kept. Those that tell what was gained are others. The same seed gives the
    same density on one machine, and torch's global generator stays as it was.

    Parameters
    ----------
    latent_dim : int
        d.
    codebook : Codebook, Mapping or None
        As of :class:`CodeDensity`.
    hidden : int
        Width of the network.

    References
    ----------
    Van den Oord, Vinyals and Kavukcuoglu 2017, arXiv:1711.00937, section 3.3 (a prior fitted after training);
    Cho et al. 2014, arXiv:1406.1078 (the unit).

    Examples
    --------
    >>> import torch
    >>> from chartae.density import AutoregressiveDensity
    >>> z = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).sign().expand(-1, 2)
    >>> p = AutoregressiveDensity(2).fit(z)  # the second number is the first
    >>> p.held_out > 0.6, p().log_prob(torch.tensor([0.5, 1.0]))
    (True, tensor(-inf))
    """

    def __init__(
        self, latent_dim: int, codebook: Codebook | Mapping[str, Any] | None = None, hidden: int = 64
    ) -> None:
        super().__init__(latent_dim, codebook)
        self.hidden = int(hidden)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.network = _Network(self.book, self.hidden).float()
            self.network.restart()
        self.network.requires_grad_(False)

    @property
    def parameters_(self) -> dict[str, Any]:
        return {**super().parameters_, "hidden": self.hidden}

    def _learn_tokens(self, train: Tensor, choose: Tensor, seed: int) -> None:
        self._count(train, choose)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.network.restart()
        if choose is train or self.book.tokens == 1:  # nothing to choose by, or to learn
            return
        learn(
            self,
            self.network,
            lambda tokens: _of(self._logits(tokens), tokens).mean(1),
            train,
            choose,
            learning_rate=5e-3,
            epochs=EPOCHS,
            steps=STEPS,
            patience=PATIENCE,
            seed=seed,
            device=self.workplace,
        )

    def _logits(self, tokens: Tensor) -> Tensor:
        return self.network(tokens, self.logits)

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        def step(t: int, token: Tensor | None, state: Any, n: int) -> tuple[Tensor, Any]:
            return self.network.step(t, token, state, n, self.logits)

        return _Codes(self.book, self._logits, step)


def _of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log mass (n, tokens) of tokens."""
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


class _Codes(Distribution):
    """Codes on a codebook, whose tokens have logits given those before."""

    offers = frozenset({"log_prob", "mass", "point"})

    def __init__(self, book: Codebook, logits: Callable[[Tensor], Tensor], step: Any = None) -> None:
        self.book, self.logits = book, logits
        self.step = step or self._alone

    def _alone(self, t: int, token: Tensor | None, state: Any, n: int) -> tuple[Tensor, Any]:
        """Logits (n, codes) of token ``t``, whatever comes before it."""
        return self.logits(self.zeros(1))[0, t].expand(n, -1), None

    def zeros(self, n: int) -> Tensor:
        return torch.zeros(n, self.book.tokens, dtype=torch.long, device=self.book.entries.device)

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size((self.book.slots * self.book.width,))

    def _walk(self, n: int, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        tokens, state, token = self.zeros(n), None, None
        for t in range(tokens.shape[1]):
            logits, state = self.step(t, token, state, n)
            token = tokens[:, t] = choose(logits, t)
        return self.book.lookup(tokens)

    def draw(self, k: int, noise: Noise) -> Draw:
        u = noise.uniform((k, self.book.tokens), self.book.entries)

        def choose(logits: Tensor, t: int) -> Tensor:
            cumulative = logits.softmax(-1).cumsum(-1)
            # In shares of the last sum, which rounding leaves off one: no entry without mass is taken.
            return (u[:, t, None] * cumulative[:, -1:] >= cumulative).sum(-1).clamp_max(logits.shape[-1] - 1)

        return Draw(self._walk(k, choose))

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log mass; minus infinity beside the codebook.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.
        per_dim : bool
            Split what each slot says, given those before it, evenly over its numbers.

        Returns
        -------
        Tensor
            ``(...)`` or ``(..., d)`` in nats.
        """
        flat = v.reshape(-1, v.shape[-1])
        tokens = self.book.find(flat)
        each = _of(self.logits(tokens), tokens).unflatten(1, (self.book.slots, -1)).sum(2)
        each = each.masked_fill(~self.book.holds(flat, tokens)[:, None], -torch.inf)
        if per_dim:
            return (each / self.book.width).repeat_interleave(self.book.width, 1).reshape(v.shape)
        return each.sum(1).reshape(v.shape[:-1])

    def point(self) -> Tensor:
        """Return the code of the likeliest entries, one after the other.

        Returns
        -------
        Tensor
            ``(d,)``.
        """
        return self._walk(1, lambda logits, t: logits.argmax(-1))[0]
