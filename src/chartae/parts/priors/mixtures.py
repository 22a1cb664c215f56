"""Priors that are mixtures of normals."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior, Prior
from chartae.core.errors import PlanError
from chartae.core.spaces import Space
from chartae.parts.distributions import DiagonalNormal, DiagonalNormalMixture
from chartae.parts.networks import evaluating, full
from chartae.parts.posteriors import bounded
from chartae.parts.priors.base import priors

__all__ = ["MixturePrior", "VampPrior"]

NEAR = 0.01  # what sets copies of a training row apart, in the model's units


def _linear(before: int, after: int) -> nn.Linear:
    """A map that gives zeros at first, whatever it is given."""
    layer = nn.Linear(before, after, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def _refuse_few(components: int) -> None:
    if components < 1:
        raise PlanError(f"components={components}: a mixture has one or more")


@priors.register("mixture")
class MixturePrior(Prior):
    """A mixture of normals, whose weights, means and variances are learned with the rest.

    Where there is a condition, weights and means follow from it. It starts as normals that are spread so as
    to have mean zero and variance one together.

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        Width of the condition.
    components : int
        How many normals.
    conditional : bool
        Whether the mixture follows the condition, where there is one.

    Raises
    ------
    PlanError
        If there are no components.

    References
    ----------
    Tomczak and Welling 2018, arXiv:1705.07120, section 2 (mixture of Gaussians).

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.priors import MixturePrior
    >>> MixturePrior(3)().batch_shape, MixturePrior(3, 2)(torch.zeros(7, 2)).batch_shape
    (torch.Size([]), torch.Size([7]))
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(
        self, latent_dim: int, condition_dim: int = 0, components: int = 20, conditional: bool = True
    ) -> None:
        super().__init__()
        _refuse_few(components)
        shape = (components, latent_dim)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(0.5**0.5 * torch.randn(shape))
        self.log_var = nn.Parameter(torch.full(shape, 0.5).log())
        follows = conditional and condition_dim
        self.network = _linear(condition_dim, components * (1 + latent_dim)) if follows else None

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        logits, mean = self.logits, self.mean
        if self.network is not None:
            assert c is not None, "a conditional prior is called with its condition"
            weights, moves = full(self.network(c)).split([len(logits), mean.numel()], 1)
            logits, mean = logits + weights, mean + moves.unflatten(1, mean.shape)
        return DiagonalNormalMixture(logits, mean, bounded(self.log_var))


@priors.register("vamp")
class VampPrior(Prior):
    """The mean of the posteriors of pseudo-inputs: items that are learned with the rest.

    They begin as training rows, which repeat with a little noise where there are too few. The encoder sees
    them in evaluation mode. Where there is a condition, each has one of its own, which is learned as well,
    and the weights of the mixture may follow from the condition.

    Parameters
    ----------
    latent_dim : int
        d.
    condition_dim : int
        Width of the condition.
    space : Space
        Of the data.
    components : int
        How many pseudo-inputs.
    conditional : bool
        Whether weights follow the condition, where there is one.

    Raises
    ------
    PlanError
        If there are no components, or an item is no point that could be moved: values may be missing, or it
        is a row of a table whose columns differ in kind.

    References
    ----------
    Tomczak and Welling 2018, arXiv:1705.07120, equation 9. Pseudo-inputs are not kept in the range of data.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> from chartae.parts.priors import VampPrior
    >>> prior = VampPrior(3, space=Space((5,)), components=10)
    >>> prior.begin(torch.zeros(20, 5), None)
    >>> prior(posterior=NormalPosterior(MLP((5,), (6,), hidden=(8,)), 3)).mean.shape
    torch.Size([10, 3])
    """

    offers = frozenset({"log_prob", "point"})
    needs = frozenset({"posterior.independence"})
    mean: Tensor
    log_var: Tensor
    equal: Tensor

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int = 0,
        *,
        space: Space,
        components: int = 500,
        conditional: bool = True,
    ) -> None:
        super().__init__()
        _refuse_few(components)
        if space.gaps or space.likelihood == "columns":
            what = "values may be missing" if space.gaps else "columns differ in kind"
            raise PlanError(f"pseudo-inputs are items of numbers, and here {what}: use recipe 'mixture-vae'")
        self.inputs = nn.Parameter(0.1 * torch.randn(components, *space.model_shape))
        c = 0.1 * torch.randn(components, condition_dim)
        self.conditions = nn.Parameter(c) if condition_dim else None
        self.network = _linear(condition_dim, components) if conditional and condition_dim else None
        self.register_buffer("equal", torch.zeros(components), persistent=False)
        for name in ("mean", "log_var"):  # what a decoder keeps that goes without an encoder
            self.register_buffer(name, torch.full((components, latent_dim), torch.nan))

    @torch.no_grad()
    def begin(self, x: Tensor, c: Tensor | None) -> None:
        m, n = len(self.inputs), len(x)
        rows = torch.cat([torch.randperm(n, device="cpu") for _ in range(-(-m // n))])[:m].to(x.device)
        again = torch.arange(m, device=x.device).reshape(m, *(1 for _ in x.shape[1:])) >= n
        start = x[rows]
        self.inputs.copy_(start + again * NEAR * torch.randn_like(start))
        if self.conditions is not None and c is not None:
            self.conditions.copy_(c[rows])

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        mean, log_var = self._kept() if posterior is None else self._components(posterior)
        if self.network is None:
            return DiagonalNormalMixture(self.equal, mean, log_var)
        assert c is not None, "a conditional prior is called with its condition"
        return DiagonalNormalMixture(full(self.network(c)), mean, log_var)

    def _components(self, posterior: Posterior) -> tuple[Tensor, Tensor]:
        with evaluating(posterior) as encoder:
            q = encoder(self.inputs, self.conditions)
        assert isinstance(q, DiagonalNormal)
        return q.mean, q.log_var

    def _kept(self) -> tuple[Tensor, Tensor]:
        if not bool(self.mean.isfinite().all()):
            raise PlanError(
                "this prior is made of the encoder, which is not here: finish the fit, or open it with load"
            )
        return self.mean, self.log_var

    @torch.no_grad()
    def taken(self, posterior: Posterior) -> dict[str, Tensor]:
        return dict(zip(("mean", "log_var"), self._components(posterior), strict=True))
