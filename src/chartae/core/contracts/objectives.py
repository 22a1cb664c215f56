"""What a pass through a model leaves behind, and what is made small of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from chartae.core.contracts.batches import Batch
from chartae.core.contracts.distributions import Distribution, Draw
from chartae.core.errors import PlanError
from chartae.core.noise import Noise

if TYPE_CHECKING:
    from chartae.core.contracts.plans import Model

__all__ = ["Level", "Objective", "Sum", "Term", "Trace"]


@dataclass(frozen=True)
class Level:
    """One stochastic layer of a pass.

    Parameters
    ----------
    q : Distribution
        The posterior, batch shape ``(n,)``.
    p : Distribution or None
        The prior, batch shape ``()`` or ``(n,)``; None for a model without one.
    drawn : Draw
        What was drawn from q, ``(k, n, d)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Level
    >>> from chartae.core.noise import Noise
    >>> from chartae.parts.distributions import DiagonalNormal, StandardNormal
    >>> q = DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2))
    >>> level = Level(q, StandardNormal(2), q.draw(3, Noise(0)))
    >>> level.log_posterior.shape, bool(torch.allclose(level.log_posterior, level.log_prior))
    (torch.Size([3, 5]), True)
    """

    q: Distribution
    p: Distribution | None
    drawn: Draw

    @property
    def z(self) -> Tensor:
        """The codes, ``(k, n, d)``."""
        return self.drawn.z

    @cached_property
    def log_posterior(self) -> Tensor:
        """log q(z | x, c), ``(k, n)`` in nats."""
        known = self.drawn.log_prob
        return self.q.log_prob(self.z) if known is None else known

    @cached_property
    def log_prior(self) -> Tensor:
        """log p(z | c), ``(k, n)`` in nats.

        Raises
        ------
        PlanError
            If the model has no prior.
        """
        if self.p is None:
            raise PlanError("this model has no prior, so its codes have no density: use a VAE recipe")
        return self.p.log_prob(self.z)


@dataclass(frozen=True)
class Trace:
    """One pass through a model: ``k`` posterior samples of ``n`` rows.

    Parameters
    ----------
    batch : Batch
        The rows.
    levels : tuple of Level
        Stochastic layers, the one nearest the data first.
    px : Distribution
        p(x | z, c), batch shape ``(k, n)``.
    log_lik : Tensor
        log p(x | z, c), ``(k, n)``, in nats and in the input's units.
    model : Model
        What was passed through.
    c : Tensor or None
        ``(n, m)``, the condition as the parts saw it.
    log_weight : Tensor or None
        ``(k, n)`` log weights of the samples; None: 1/k each.
    noise : Noise
        Where an objective takes further randomness from.
    screened : Trace or None
        Without a graph, the pass of all samples of which those here were picked; None: these are all.

    Examples
    --------
    >>> import torch, chartae as ct
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.models.recipes import build
    >>> plan = build("vae", (4,), latent_dim=2, hidden=(8,))
    >>> trace = plan.model.trace(Batch(torch.zeros(5, 4)), k=3, noise=Noise(0))
    >>> trace.log_lik.shape, trace.expect(trace.log_lik).shape
    (torch.Size([3, 5]), torch.Size([5]))
    """

    batch: Batch
    levels: tuple[Level, ...]
    px: Distribution
    log_lik: Tensor
    model: Model
    c: Tensor | None = None
    log_weight: Tensor | None = None
    noise: Noise = field(default_factory=Noise)
    screened: Trace | None = None

    def expect(self, f: Tensor) -> Tensor:
        """Average over posterior samples.

        Parameters
        ----------
        f : Tensor
            ``(k, n, ...)``.

        Returns
        -------
        Tensor
            ``(n, ...)``.
        """
        if self.log_weight is not None:
            weight = self.log_weight.exp()
            return (weight.reshape(*weight.shape, *(1,) * (f.dim() - 2)) * f).sum(0)
        return f[0] if len(f) == 1 else f.mean(0)

    @property
    def log_joint_ratio(self) -> Tensor:
        """log p(x, z) - log q(z | x), ``(k, n)`` in nats: the importance weights of every bound."""
        return self.log_lik + sum(level.log_prior - level.log_posterior for level in self.levels)


class Term(NamedTuple):
    """One row of an objective.

    Attributes
    ----------
    rows : Tensor
        ``(n,)``, or ``()`` for a statistic of the batch; this is what is logged.
    weight : float or Tensor
        ``()``, what multiplies it in the loss; the float 0 is for terms that are logged and no more.
    unit : str
        "nats", or what else it is measured in.
    per_dim : Tensor or None
        ``(d,)`` detail for the log.
    loss : Tensor or None
        ``()``, minimized in place of the mean of ``rows`` where the two differ (free bits).
    judged : float or None
        Weight in the loss by which epochs are compared, where that is another one: 0 for a term that says
        nothing of quality, as an adversary's, and a constant where ``weight`` moves; None: ``weight``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Term
    >>> Term(torch.tensor([1.0, 3.0]), weight=0.5).value()
    tensor(1.)
    """

    rows: Tensor
    weight: float | Tensor = 1.0
    unit: str = "nats"
    per_dim: Tensor | None = None
    loss: Tensor | None = None
    judged: float | None = None

    def value(self) -> Tensor:
        """Return what is minimized.

        Returns
        -------
        Tensor
            ``()``, weighted.
        """
        raw = self.loss if self.loss is not None else self.rows.mean() if self.rows.dim() else self.rows
        return raw if isinstance(self.weight, float) and self.weight == 1.0 else self.weight * raw

    def scaled(self, factor: float) -> Term:
        """Multiply the weight, and the one by which epochs are compared.

        Parameters
        ----------
        factor : float
            By what.

        Returns
        -------
        Term
            Of the same rows.
        """
        judged = None if self.judged is None else factor * self.judged
        return self if factor == 1.0 else self._replace(weight=factor * self.weight, judged=judged)


class Objective(nn.Module, ABC):
    """What is minimized: named terms that compose with ``+`` and ``*``.

    ``needs`` names what the parts must offer ("posterior.density"); ``samples`` how many posterior
    samples a training pass draws now; ``differentiates_networks`` whether its value holds derivatives of a
    network, so that its gradient differentiates the network twice, which hand-written layers know nothing
    of; ``weighs_networks`` whether it holds their weights themselves; ``picks`` whether its gradient needs
    some of the samples only, which :meth:`pick` tells; ``rounds`` whether of samples that hardly count it may
    let most go, by chance, and others count for them, which is set where layers skip what has no gradient;
    ``alone`` why no other term of the pass's samples can stand beside it, if none can; ``apart`` whether it
    looks at none of these samples.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, NegLogLik
    >>> NegLogLik() + 4.0 * KL()
    nll + 4 * kl
    """

    needs: frozenset[str] = frozenset()
    samples: int = 1
    differentiates_networks: bool = False
    weighs_networks: bool = False
    picks: bool = False
    rounds: bool = False
    alone: str = ""
    apart: bool = False

    @abstractmethod
    def forward(self, trace: Trace) -> dict[str, Term]:
        """Evaluate.

        Parameters
        ----------
        trace : Trace
            One pass.

        Returns
        -------
        dict of str to Term
            Its terms by name.
        """

    def pick(self, trace: Trace) -> tuple[Tensor, Tensor]:
        """Tell which samples a training pass goes back through, where it ``picks``.

        Parameters
        ----------
        trace : Trace
            One pass of ``k`` samples, without a graph.

        Returns
        -------
        index : Tensor
            ``(m, n)``, from 0 to ``k - 1``.
        weight : Tensor
            ``(m, n)``, by what each counts in :meth:`Trace.expect`.

        Raises
        ------
        NotImplementedError
            Where it goes back through all.
        """
        raise NotImplementedError(f"{self!r} goes back through all samples")

    def advance(self, epoch: float) -> None:
        """Move scheduled weights to a point of training.

        Parameters
        ----------
        epoch : float
            Epochs done so far, with their fraction.
        """

    @property
    def warmup(self) -> float:
        """Epochs until every scheduled weight has arrived."""
        return 0.0

    def __add__(self, other: Objective) -> Objective:
        return Sum(self, other)

    def __mul__(self, factor: float) -> Objective:
        if not factor >= 0:
            raise PlanError(f"the weight {factor:g} of {self!r} rewards what it should cost: use 0 or more")
        return Sum(self, factors=(float(factor),))

    __rmul__ = __mul__


class Sum(Objective):
    """Terms of several objectives, each with a factor.

    Parameters
    ----------
    *parts : Objective
        What to add.
    factors : sequence of float, optional
        One for each part; 1 by default.

    Raises
    ------
    PlanError
        If two of them make a term of the same name, or one of several has to stand alone.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, NegLogLik
    >>> 2.0 * (NegLogLik() + 3.0 * KL())
    2 * nll + 6 * kl
    """

    def __init__(self, *parts: Objective, factors: Iterable[float] | None = None) -> None:
        super().__init__()
        flat: list[Objective] = []
        scales: list[float] = []
        for part, factor in zip(parts, factors or [1.0] * len(parts), strict=True):
            inner = isinstance(part, Sum)
            flat += list(part.parts) if inner else [part]  # type: ignore[arg-type]
            scales += [factor * f for f in part.factors] if inner else [factor]  # type: ignore[union-attr]
        names = [repr(part).split("(")[0] for part in flat]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise PlanError(f"two terms are called {twice}: use one of them with the sum of the weights")
        lonely = next((part for part in flat if part.alone), None)
        if lonely is not None and sum(not part.apart for part in flat) > 1:
            raise PlanError(
                f"{lonely!r} {lonely.alone}: use it alone, or a bound with gradient='plain' that keeps all "
                "samples"
            )
        self.alone = "" if lonely is None else lonely.alone
        self.parts = nn.ModuleList(flat)
        self.factors = tuple(scales)
        self.needs = frozenset().union(*(part.needs for part in flat))
        self.differentiates_networks = any(part.differentiates_networks for part in flat)
        self.weighs_networks = any(part.weighs_networks for part in flat)

    @property
    def samples(self) -> int:  # type: ignore[override]
        """Posterior samples of a training pass: as many as a part wants."""
        return max(part.samples for part in self.parts)  # type: ignore[type-var, return-value]

    @property
    def picks(self) -> bool:  # type: ignore[override]
        """Whether the gradient needs some of the samples only."""
        return any(part.picks for part in self.parts)

    def forward(self, trace: Trace) -> dict[str, Term]:
        """Terms of all parts, each by its factor.

        Parameters
        ----------
        trace : Trace
            Of ``n`` rows and ``k`` samples.

        Returns
        -------
        dict of str to Term
            Nats of ``n`` rows each.

        Raises
        ------
        PlanError
            If two parts make a term of the same name, or one gives anything else than terms.
        """
        out: dict[str, Term] = {}
        for part, factor in zip(self.parts, self.factors, strict=True):
            terms = part(trace)
            if not isinstance(terms, Mapping):
                raise PlanError(
                    f"{type(part).__name__} gives {type(terms).__name__}, and terms by name are needed: "
                    "return {'name': Term(rows)}"
                )
            for name, term in terms.items():
                if name in out:
                    raise PlanError(f"two terms are called {name!r}: give one of them another name")
                out[name] = term.scaled(factor)
        return out

    def pick(self, trace: Trace) -> tuple[Tensor, Tensor]:
        (part,) = (part for part in self.parts if part.picks)  # others are apart
        return part.pick(trace)  # type: ignore[operator]

    def advance(self, epoch: float) -> None:
        for part in self.parts:
            part.advance(epoch)  # type: ignore[operator]

    @property
    def warmup(self) -> float:
        return max(part.warmup for part in self.parts)  # type: ignore[type-var, return-value]

    def __repr__(self) -> str:
        return " + ".join(
            repr(part) if factor == 1.0 else f"{factor:g} * {part!r}"
            for part, factor in zip(self.parts, self.factors, strict=True)
        )
