"""A model of parts that belong together, and the plan to train it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from chartae.core.contracts.batches import Batch
from chartae.core.contracts.objectives import Objective, Trace
from chartae.core.contracts.parts import Likelihood, Posterior, Prior
from chartae.core.errors import PlanError
from chartae.core.noise import Noise

__all__ = ["Model", "Plan"]


#: What to do where a part does not offer what an objective needs.
CURES = {
    "posterior.independence": "use a posterior whose dimensions are independent normals, or prior 'mixture'",
    "prior.standard": "use a recipe whose prior is N(0, I), or match by samples (MMD, sliced Wasserstein)",
    "likelihood.point": "use a likelihood that has a mean",
    "likelihood.located": "use likelihood 'normal' or 'bernoulli', and of the former use noise='global', "
    "'feature' or a number",
    "space.images": "use another recipe, or give items as (n, height, width), layout='hw', or with channels",
    "posterior.codebook": "use the posterior 'vq' or 'rq', with gradients for its entries (ema=0)",
    "posterior.commitment": "use the posterior 'vq' or 'rq'",
    "posterior.code_kl": "use the posterior 'hrq'",
}


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
        self, batch: Batch, *, k: int, noise: Noise, pick: Callable[[Trace], Tensor] | None = None
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
            through again with one, ``(m, n)``. None: all are, at once.

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
