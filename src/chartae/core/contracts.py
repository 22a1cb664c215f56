"""A model is three conditional distributions, and an objective says how to fit them.

``q(z | x, c)`` is the posterior, ``p(z | c)`` the prior, ``p(x | z, c)`` the likelihood. Everything
else (a VAE, an IWAE, a denoising autoencoder) is a choice of parts. Shapes throughout: ``n`` rows,
``k`` posterior samples of each, ``d`` latent dimensions, ``*x`` the shape of one item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.core.noise import Noise

if TYPE_CHECKING:
    from chartae.core.spaces import Space

__all__ = [
    "Batch",
    "Distribution",
    "Draw",
    "Level",
    "Likelihood",
    "Model",
    "Objective",
    "Plan",
    "Posterior",
    "Prior",
    "RawCondition",
    "Term",
    "Trace",
]


#: What to do where a part does not offer what an objective needs.
CURES = {
    "posterior.independence": "use a posterior whose dimensions are independent normals, or prior 'mixture'",
    "prior.standard": "use a recipe whose prior is N(0, I), or match by samples (MMD, sliced Wasserstein)",
    "likelihood.point": "use a likelihood that has a mean",
    "likelihood.located": "use noise='global', 'feature' or a number, or a likelihood of logits",
    "space.images": "use another recipe, or say how items are laid out with layout='hw', 'hwc' or 'chw'",
    "posterior.codebook": "use the posterior 'vq' or 'rq', with gradients for its entries (ema=0)",
    "posterior.commitment": "use the posterior 'vq' or 'rq'",
    "posterior.code_kl": "use the posterior 'hrq'",
}


class Draw(NamedTuple):
    """Samples, and what their distribution knows about them.

    Attributes
    ----------
    z : Tensor
        ``(k, *batch, *event)``.
    log_prob : Tensor or None
        ``(k, *batch)`` in nats, where the draw comes with its density (flows); None: ask ``log_prob``.
    auxiliary : Mapping
        Named extra terms, such as a codebook's.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Draw
    >>> Draw(torch.zeros(1, 2, 3)).log_prob is None
    True
    """

    z: Tensor
    log_prob: Tensor | None = None
    auxiliary: Mapping[str, Tensor] = {}


class Distribution(ABC):
    """Where a value may lie: ``batch_shape`` many distributions over values of ``event_shape``.

    ``offers`` names what it can do; an objective's ``needs`` are held against it when a plan is built.

    ===================  =====================================================================
    "log_prob"           the density of any value
    "mass"               what log_prob gives is a mass: its values are discrete, whatever they lie among
    "density"            the density of its own draws, which is less to ask
    "point"              a value to show
    "reparameterized"    draws pass gradients on to its parameters
    "conditional"        the distribution of some dimensions given others
    "marginals"          the distribution of each dimension by itself
    "covariance"         the covariance of its dimensions
    ===================  =====================================================================

    ``splits`` tells whether ``per_dim`` says something of each dimension by itself; where dimensions hang
    together, an estimated KL is not split over them.
    ``codimension`` counts the dimensions that its values lack: 1 on a sphere, where densities are of area.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import DiagonalNormal
    >>> p = DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2))
    >>> p.batch_shape, p.event_shape, {"log_prob", "point"} <= p.offers
    (torch.Size([5]), torch.Size([2]), True)
    """

    offers: frozenset[str] = frozenset()
    splits: bool = True
    codimension: int = 0

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of distributions."""

    @property
    @abstractmethod
    def event_shape(self) -> torch.Size:
        """Shape of one value."""

    @abstractmethod
    def draw(self, k: int, noise: Noise) -> Draw:
        """Draw ``k`` values of each.

        Parameters
        ----------
        k : int
            How many.
        noise : Noise
            Where the randomness comes from.

        Returns
        -------
        Draw
            With ``z`` of shape ``(k, *batch, *event)``.
        """

    @abstractmethod
    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        """Log density or log mass, in nats.

        Parameters
        ----------
        v : Tensor
            Values that broadcast against ``(*batch, *event)``.
        per_dim : bool
            Keep the event dimensions instead of summing over them.

        Returns
        -------
        Tensor
            ``(..., *batch)``, or ``(..., *batch, *event)`` with ``per_dim``.
        """

    @abstractmethod
    def point(self) -> Tensor:
        """Return the value to show: the mean, or the mode for categories.

        Returns
        -------
        Tensor
            ``(*batch, *event)``.
        """

    def given(self, dims: Sequence[int], values: Tensor) -> Distribution:
        """Hold some dimensions of a vector: the distribution of the others, in their order.

        Only where ``offers`` names "conditional".

        Parameters
        ----------
        dims : sequence of int
            Which are held, each once.
        values : Tensor
            ``(*batch, m)``, what they hold; it may bring a batch of its own.

        Returns
        -------
        Distribution
            Over the ``d - m`` others.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be conditioned on some of its dimensions")

    def marginals(self) -> Distribution:
        """Take the dimensions apart: independent ones, each distributed as it is here.

        Only where ``offers`` names "marginals".

        Returns
        -------
        Distribution
            Of the same shapes.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know its marginals")

    def covariance(self) -> Tensor:
        """Say how the dimensions of a vector vary together.

        Only where ``offers`` names "covariance".

        Returns
        -------
        Tensor
            ``(*batch, d, d)``.

        Raises
        ------
        NotImplementedError
            If it cannot be said.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know its covariance")

    def within(self, p: Distribution | None, log_lik: Callable[[Tensor], Tensor] | None) -> Distribution:
        """Complete a posterior with what the rest of its model says; most need nothing of it.

        Parameters
        ----------
        p : Distribution or None
            The prior p(z | c).
        log_lik : callable or None
            From codes ``(k, n, d)`` to log p(x | z, c), ``(k, n)`` nats; None where x is not at hand.

        Returns
        -------
        Distribution
            Of the same shapes.
        """
        return self


class RawCondition(NamedTuple):
    """A condition as the user gave it, row by row; one module turns it into a tensor once a pass.

    Attributes
    ----------
    label : Tensor or None
        ``(n,)`` integers; -1 is the null token.
    vector : Tensor or None
        ``(n, m)``; a row that holds a NaN is the null token.
    sequence : Tensor or None
        ``(n, t, m)``; a place that holds a NaN is none, and a row without places is the null token.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import RawCondition
    >>> RawCondition(label=torch.tensor([3, -1])).take(torch.tensor([1])).label
    tensor([-1])
    """

    label: Tensor | None = None
    vector: Tensor | None = None
    sequence: Tensor | None = None

    def map(self, f: Callable[[Tensor], Tensor]) -> RawCondition:
        """Apply a function to each tensor that is there.

        Parameters
        ----------
        f : callable
            From tensor to tensor.

        Returns
        -------
        RawCondition
            With the results.
        """
        return RawCondition(*(None if t is None else f(t) for t in self))

    def take(self, index: Any) -> RawCondition:
        """Choose rows.

        Parameters
        ----------
        index : Tensor, ndarray or slice
            Row numbers, ``(m,)``.

        Returns
        -------
        RawCondition
            Of those rows.
        """
        return self.map(lambda t: t[index])

    def to(self, device: torch.device | str) -> RawCondition:
        """Move to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to.

        Returns
        -------
        RawCondition
            There.
        """
        return self.map(lambda t: t.to(device))


@dataclass(frozen=True)
class Batch:
    """Some rows of data in the model's units.

    Parameters
    ----------
    x : Tensor
        ``(n, *x)``, float32, centered and scaled; NaN where a value is missing.
    c : RawCondition or None
        The condition of each row.
    index : Tensor or None
        ``(n,)`` row numbers in the source.
    y : Tensor or None
        ``(n,)`` or ``(n, m)``, what a head is to predict, in its own units; NaN where it is not known.
    weight : Tensor or None
        ``(n,)`` row weights.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> len(Batch(torch.zeros(5, 3)))
    5
    """

    x: Tensor
    c: RawCondition | None = None
    index: Tensor | None = None
    y: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


class Part(nn.Module, ABC):
    """One of the conditional distributions that a model is made of.

    Examples
    --------
    >>> from chartae.core.contracts import Part
    >>> from chartae.parts.priors import StandardNormalPrior
    >>> isinstance(StandardNormalPrior(3), Part)
    True
    """

    offers: frozenset[str] = frozenset()

    def begin(self, x: Tensor, c: Tensor | None) -> None:
        """Look at some training rows before the first step, for a start that suits them; most have no need.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)`` condition.
        """


class Posterior(Part):
    """q(z | x, c): what the encoder says about the code of x.

    ``differentiates_networks`` tells whether its draws hold derivatives of a network, so that a gradient
    differentiates the network twice; ``support`` says where its codes lie, where that is not all of R^d;
    ``fitted_density`` names what is fitted to its codes, where the model has no prior; ``waits`` tells
    whether its draws make the host wait for a GPU without torch's knowledge, so that steps are not
    recorded; ``offers`` also names the auxiliary tensors that its draws bring.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> q = NormalPosterior(MLP((4,), (2 * 3,), hidden=(8,)), latent_dim=3)
    >>> q(torch.zeros(5, 4)).event_shape
    torch.Size([3])
    """

    differentiates_networks: bool = False
    support: str = ""
    fitted_density: str = "normal"
    waits: bool = False

    def takes_after(self, posterior: Posterior) -> None:
        """Say of a wrapper what the posterior says of itself.

        Parameters
        ----------
        posterior : Posterior
            What is wrapped.
        """
        for name in ("offers", "differentiates_networks", "support", "fitted_density", "waits"):
            setattr(self, name, getattr(posterior, name))

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        """Encode.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``.
        c : Tensor or None
            ``(n, m)`` condition.

        Returns
        -------
        Distribution
            With batch shape ``(n,)`` and event shape ``(d,)``.
        """

    @property
    def plain(self) -> Posterior:
        """The posterior without wrappers that act in training only (corruption)."""
        return self

    @property
    def codebook(self) -> nn.Module | None:
        """The finite set that all codes lie in, where there is one."""
        return None


class Prior(Part):
    """p(z | c): where codes live before any x is seen.

    ``support`` says where, if not in all of R^d ("on a sphere"): the posterior's codes must lie there too.
    None: where they lie, of a prior that is made of the posterior.
    ``needs`` names what other parts must offer, as an objective's does.

    Examples
    --------
    >>> from chartae.parts.priors import StandardNormalPrior
    >>> StandardNormalPrior(3)().event_shape
    torch.Size([3])
    """

    support: str | None = ""
    needs: frozenset[str] = frozenset()

    def onto(self, z: Tensor) -> Tensor:
        """Bring codes to where they can lie, from where a straight path or a user has put them.

        Parameters
        ----------
        z : Tensor
            ``(..., d)``.

        Returns
        -------
        Tensor
            ``(..., d)``.
        """
        return z

    @abstractmethod
    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        """Give the distribution of codes.

        Parameters
        ----------
        c : Tensor or None
            ``(n, m)`` condition.
        posterior : Posterior or None
            The posterior, for priors that are made of it; it is never stored.

        Returns
        -------
        Distribution
            With batch shape ``()`` or ``(n,)`` and event shape ``(d,)``.
        """

    def taken(self, posterior: Posterior) -> dict[str, Tensor]:
        """Give those of its buffers that follow from the posterior, so that a decoder may go without one.

        Parameters
        ----------
        posterior : Posterior
            The posterior, as training left it.

        Returns
        -------
        dict of str to Tensor
            By name, each of its buffer's shape; most priors take nothing.
        """
        return {}


class Likelihood(Part):
    """p(x | z, c): what the decoder says about x.

    ``continuous`` tells whether it is a density (so that a change of units changes its logarithm),
    ``sequential`` whether items are rows of tokens, each told from those before it,
    ``estimated`` whether it keeps estimates of the training data (see :meth:`observe`), ``gaps`` whether
    values may be missing, as NaN. One that offers "score" gives distributions with a method of that name: the
    derivative of the log density by what the network gave, so that no graph is needed to train it. One that
    offers "located" has nothing to learn but where its point lies, which passes gradients on to all of it.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.likelihoods import BernoulliLikelihood
    >>> from chartae.parts.networks import MLP
    >>> p = BernoulliLikelihood(MLP((2,), (4,), hidden=(8,)), (4,))
    >>> p(torch.zeros(6, 5, 2)).batch_shape
    torch.Size([6, 5])
    """

    continuous: bool = True
    sequential: bool = False
    estimated: bool = False
    gaps: bool = False

    @abstractmethod
    def forward(self, z: Tensor, c: Tensor | None = None) -> Distribution:
        """Decode.

        Parameters
        ----------
        z : Tensor
            ``(k, n, d)``.
        c : Tensor or None
            ``(n, m)`` condition.

        Returns
        -------
        Distribution
            With batch shape ``(k, n)`` and event shape ``(*x)``.
        """

    def log_volume(self, space: Space) -> Tensor:
        """Log of the model's unit in the input's, for each value: what a density loses by it.

        Parameters
        ----------
        space : Space
            Of the data.

        Returns
        -------
        Tensor
            Of the model's shape of an item, in nats.
        """
        log_scale = space.scale.log().expand(space.model_shape)
        return log_scale if self.continuous else torch.zeros_like(log_scale)

    def observe(self, px: Distribution, x: Tensor, *, share: float | None = None) -> None:
        """Update estimates from a batch of training rows; most likelihoods have none.

        Parameters
        ----------
        px : Distribution
            What the decoder said, batch shape ``(k, n)``.
        x : Tensor
            What was there, ``(n, *x)``.
        share : float or None
            Weight of this batch against all before it; None: of a running estimate.
        """


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
    samples a training pass draws; ``differentiates_networks`` whether its value holds derivatives of a
    network, so that its gradient differentiates the network twice, or its weights themselves: gradients that
    hand-written layers do not know of; ``alone`` whether it weighs whatever flows back to the codes, so that
    no other term can stand beside it.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, NegLogLik
    >>> NegLogLik() + 4.0 * KL()
    nll + 4 * kl
    """

    needs: frozenset[str] = frozenset()
    samples: int = 1
    differentiates_networks: bool = False
    alone: bool = False

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
        if lonely is not None and len(flat) > 1:
            raise PlanError(
                f"{lonely!r} weighs what flows back to the codes, and would weigh that of other terms, too: "
                "use it alone, or a bound with gradient='plain'"
            )
        self.alone = lonely is not None
        self.parts = nn.ModuleList(flat)
        self.factors = tuple(scales)
        self.needs = frozenset().union(*(part.needs for part in flat))
        self.samples = max(part.samples for part in flat)
        self.differentiates_networks = any(part.differentiates_networks for part in flat)

    def forward(self, trace: Trace) -> dict[str, Term]:
        out: dict[str, Term] = {}
        for part, factor in zip(self.parts, self.factors, strict=True):
            for name, term in part(trace).items():
                if name in out:
                    raise PlanError(f"two terms are called {name!r}: give one of them another name")
                out[name] = term.scaled(factor)
        return out

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


class Model(nn.Module, ABC):
    """Three conditional distributions that belong together.

    While there is something to be told of items, a fourth stands beside them, ``head``: p(y | z).

    Examples
    --------
    >>> from chartae.models.recipes import build
    >>> build("vae", (4,), latent_dim=2, hidden=(8,)).model.latent_dim
    2
    """

    latent_dim: int
    posterior: Posterior
    likelihood: Likelihood
    prior: Prior | None
    head: Likelihood | None

    def begin(self, batch: Batch) -> None:
        """Look at some training rows before the first step, for a start that suits them.

        Parameters
        ----------
        batch : Batch
            ``n`` rows.
        """

    @abstractmethod
    def trace(self, batch: Batch, *, k: int, noise: Noise) -> Trace:
        """Pass a batch through.

        Parameters
        ----------
        batch : Batch
            ``n`` rows.
        k : int
            Posterior samples of each.
        noise : Noise
            Where the randomness comes from.

        Returns
        -------
        Trace
            Of that pass.
        """


@dataclass(frozen=True)
class Plan:
    """What to train, how it is judged, and what moves it.

    Parameters
    ----------
    model : Model
        The parts.
    objective : Objective
        What is minimized.
    optimizer : callable, optional
        ``optimizer(parameters, lr=...)``; fused Adam by default.
    facts : Mapping
        What the recipe chose, for the run folder and the report.

    Raises
    ------
    PlanError
        If the objective needs what the parts do not offer.

    Examples
    --------
    >>> from chartae.models.recipes import build
    >>> build("beta-vae", (4,), latent_dim=2, hidden=(8,), beta=4.0).objective
    nll + 4 * kl
    """

    model: Model
    objective: Objective
    optimizer: Callable[..., Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prior = self.model.prior
        parts = {
            "posterior": self.model.posterior,
            "prior": prior,
            "likelihood": self.model.likelihood,
            "head": getattr(self.model, "head", None),
            "space": getattr(self.model, "space", None),
        }
        needs = [(repr(self.objective), need) for need in sorted(self.objective.needs)]
        needs += [(type(prior).__name__, need) for need in sorted(getattr(prior, "needs", ()))]
        for who, need in needs:
            part, ability = need.split(".")
            if parts[part] is None:
                cure = "train it by HeadClassifier" if part == "head" else "use a VAE recipe"
                raise PlanError(f"{who} needs a {part}, and this model has none: {cure}")
            if ability not in getattr(parts[part], "offers", ()):
                raise PlanError(
                    f"{who} needs {ability} of the {part}, and "
                    f"{type(parts[part]).__name__} has none: {CURES.get(need, f'use a Normal {part}')}"
                )
