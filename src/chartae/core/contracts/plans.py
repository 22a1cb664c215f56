"""A model of parts that belong together, and the plan to train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from chartae.core.contracts.batches import Batch
from chartae.core.contracts.objectives import Objective, Sum, Trace
from chartae.core.contracts.parts import Likelihood, Posterior, Prior
from chartae.core.errors import PlanError
from chartae.core.noise import Noise

__all__ = ["Model", "Plan"]


_NORMAL = "use posterior='normal', as recipe 'vae' does"
_ENTRIES = "which has no entries to learn"

#: Of a part that does not offer what is needed: what it lacks, and what to use.
LACKS = {
    "posterior.density": ("whose draws have no density", _NORMAL),
    "posterior.log_prob": ("whose codes have no density that could be computed", _NORMAL),
    "posterior.marginals": ("whose dimensions have no density of their own", _NORMAL),
    "posterior.covariance": ("whose covariance is not known", _NORMAL),
    "posterior.independence": (
        "whose dimensions are not independent normals",
        "use posterior='normal', or prior='mixture' as recipe 'mixture-vae' does",
    ),
    "posterior.codebook": (
        _ENTRIES,
        "use posterior='vq', as recipe 'vq-vae' does, with ema=0",
    ),
    "posterior.commitment": (_ENTRIES, "use posterior='vq', as recipe 'vq-vae' does"),
    "posterior.code_kl": ("which has no entries to draw", "use posterior='hrq', as recipe 'hrq-vae' does"),
    "prior.standard": (
        "which is not N(0, I)",
        "use prior='standard-normal', as recipe 'vae' does, or match by samples (MMD, sliced Wasserstein)",
    ),
    "prior.log_prob": ("which has no density", "use prior='standard-normal', as recipe 'vae' does"),
    "likelihood.located": (
        "which learns more of values than where they lie",
        "use likelihood='bernoulli', or likelihood='normal' with noise='global', 'feature' or a number",
    ),
    "likelihood.point": ("which decodes nothing", "use training='joint', or another recipe"),
    "likelihood.repeats": (
        "which drops or hides at random in training, or looks at the whole batch, and says other things in "
        "its second pass",
        "leave kept out, or decode with hide=0 and without dropout or batch normalization",
    ),
    "space.images": (
        "which are no images",
        "use another recipe, or give items as (n, height, width), layout='hw', or with channels",
    ),
    "space.differentiable": (
        "whose tokens are steps, along which nothing has a slope",
        "use another recipe, or give items as numbers",
    ),
    "space.distances": (
        "whose values are categories or tokens, between which there are no distances",
        "use another recipe, or give items as numbers",
    ),
}


def _repeats(part: Any) -> bool:
    """Whether a part gives the same for the same codes in training, whatever comes with them in a batch."""
    drops = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
    return not any(
        getattr(m, "hide", 0.0)
        or (isinstance(m, drops) and getattr(m, "p", 1.0))
        or (isinstance(m, nn.MultiheadAttention) and m.dropout)
        for m in part.modules()
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
    def trace(
        self,
        batch: Batch,
        *,
        k: int,
        noise: Noise,
        pick: Callable[[Trace], tuple[Tensor, Tensor]] | None = None,
    ) -> Trace:
        """Pass a batch through.

        Parameters
        ----------
        batch : Batch
            ``n`` rows.
        k : int
            Posterior samples of each.
        noise : Noise
            Where the randomness comes from.
        pick : callable or None
            Given a pass of all samples, which is made without a graph, tells which of them are to be passed
            through again with one, and by what each counts, both ``(m, n)``. None: all are, at once.

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
        terms: Any = self.objective.parts if isinstance(self.objective, Sum) else [self.objective]
        needs = [(repr(term).split("(")[0], need) for term in terms for need in sorted(term.needs)]
        needs += [(self._named("prior"), need) for need in sorted(getattr(self.model.prior, "needs", ()))]
        for who, need in needs:
            name, ability = need.split(".")
            part = getattr(self.model, name, None)
            if part is None:
                cure = "train it by HeadClassifier" if name == "head" else "use a VAE recipe"
                raise PlanError(f"{who} needs a {name}, and this model has none: {cure}")
            if not (_repeats(part) if ability == "repeats" else ability in getattr(part, "offers", ())):
                lacks, cure = LACKS.get(need, (f"which offers no {ability}", f"use another {name}"))
                raise PlanError(f"{who} does not go with {self._named(name)}, {lacks}: {cure}")

    def _named(self, part: str) -> str:
        """Name a part as it was chosen, or by its class; and items, whose space is nobody's choice."""
        found = getattr(self.model, part)
        if part == "space":
            return f"items of shape {found.shape}"
        return f"{part}={self.facts.get(part, type(found).__name__)!r}"
