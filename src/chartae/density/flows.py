"""Normalizing flows as densities of codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Posterior
from chartae.core.errors import DataError
from chartae.density.fitted import Density, _moments, densities
from chartae.density.learning import learn
from chartae.parts.distributions import Affine, DiagonalNormal, Transformed
from chartae.parts.flows import zuko_flows

__all__ = ["FlowDensity"]

FEWEST = 100  # codes to train on
EPOCHS, PATIENCE, STEPS = 300, 15, 6000


@densities.register("flow")
class FlowDensity(Density):
    """A neural spline flow on whitened codes.

    It begins as the normal that fits the codes, and is trained until codes that are held out for this have no
    longer gained for 15 epochs; the best epoch is kept. Those that tell what was gained are others. The same
    seed gives the same flow on one machine, and torch's global generator stays as it was.

    Parameters
    ----------
    latent_dim : int
        d.
    transforms : int
        How many autoregressive transforms follow each other, of the dimensions in one order and the reverse.
    hidden : sequence of int
        Widths of the layers in each.
    bins : int
        Of the splines.

    References
    ----------
    Durkan et al. 2019, arXiv:1906.04032; Papamakarios, Pavlakou and Murray 2017, arXiv:1705.07057 (masks).
    The layers are those of zuko (Rozet et al. 2022, doi:10.5281/zenodo.7625672).

    Examples
    --------
    >>> import torch
    >>> from chartae.density import FlowDensity
    >>> FlowDensity(2)().log_prob(torch.zeros(2))  # before a fit it is N(0, I)
    tensor(-1.8379)
    """

    mean: Tensor
    scale_tril: Tensor

    def __init__(
        self, latent_dim: int, transforms: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8
    ) -> None:
        super().__init__(latent_dim)
        self.shape = {"transforms": int(transforms), "hidden": [int(h) for h in hidden], "bins": int(bins)}
        self.register_buffer("mean", torch.zeros(latent_dim, dtype=torch.float32))
        self.register_buffer("scale_tril", torch.eye(latent_dim, dtype=torch.float32))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.flow = (
                zuko_flows()
                .NSF(
                    latent_dim,
                    bins=self.shape["bins"],
                    transforms=self.shape["transforms"],
                    hidden_features=self.shape["hidden"],
                )
                .float()
            )
        self._restart(0)

    @property
    def parameters_(self) -> dict[str, Any]:
        return dict(self.shape)

    def _restart(self, seed: int) -> None:
        """Give the layers new weights, and the last ones zeros: all splines are then the identity."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for transform in self.flow.transform.transforms:
                layers = [layer for layer in transform.modules() if isinstance(layer, nn.Linear)]
                for layer in layers:
                    layer.reset_parameters()
                # Of a single dimension there are no layers: what the spline is made of stands alone.
                for parameter in (layers[-1] if layers else transform).parameters():
                    nn.init.zeros_(parameter)
        self.flow.requires_grad_(False)

    def _learn(self, train: Tensor, choose: Tensor, seed: int) -> None:
        if len(train) + len(choose) < FEWEST or choose is train:
            raise DataError(
                f"a flow needs more codes than {len(train)}: give {FEWEST * 4 // 3}, or fit 'normal'"
            )
        mean, scale_tril = _moments(train)
        self.mean.copy_(mean)
        self.scale_tril.copy_(scale_tril)
        self._restart(seed)
        inside, judged = (self._white(z.float()) for z in (train, choose))
        learn(
            self,
            self.flow,
            lambda z: self.flow().log_prob(z),
            inside,
            judged,
            learning_rate=2e-3,
            epochs=EPOCHS,
            steps=STEPS,
            patience=PATIENCE,
            seed=seed,
            device=self.workplace,
        )

    def _white(self, z: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.scale_tril, (z - self.mean).T, upper=False).T

    def forward(self, c: Tensor | None = None, *, posterior: Posterior | None = None) -> Distribution:
        base = DiagonalNormal(torch.zeros_like(self.mean), self.mean.new_zeros(()))
        return Transformed(base, [self.flow().transform.inv, Affine(self.mean, self.scale_tril)])
