"""A fitted estimator as a chart: data as geometry sees them, and the two maps between them and the codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chartae.core.contracts import Distribution
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.geometry.charts import Chart, rows_of
from chartae.parts.tables import Inputs, Prepared

__all__ = ["chart_of_estimator", "refuse_tokens"]


def refuse_tokens(estimator: Any) -> None:
    """Refuse a model of texts where what is decoded has to be numbers.

    Parameters
    ----------
    estimator : object
        Fitted.

    Raises
    ------
    PlanError
        If it decodes rows of tokens.

    Examples
    --------
    >>> from chartae import TextVAE
    >>> from chartae.estimators.charts import refuse_tokens
    >>> refuse_tokens(TextVAE(latent_dim=2, hidden=(8,), max_epochs=1).fit(["a fox", "a car"] * 5))
    Traceback (most recent call last):
    ...
    chartae.core.errors.PlanError: geometry and reports take what is decoded for numbers that ...
    """
    if estimator.model_.likelihood.sequential:
        raise PlanError(
            "geometry and reports take what is decoded for numbers that change little by little, and tokens "
            "do not: look at codes, scores and samples"
        )


def chart_of_estimator(estimator: Any, *, guidance: float | None = None) -> Chart:
    """Make the chart of a fitted estimator.

    Where all values have one unit, data are in it, centered, and laid out as the user has them. Columns of a
    table that have units of their own are in the model's: standardized, counts as logarithms, categories
    one-hot. Where values are missing, items hold a draw of p(missing | observed, condition): means would pile
    up in one place.

    Parameters
    ----------
    estimator : object
        Fitted.
    guidance : float or None
        With which codes are decoded.

    Returns
    -------
    Chart
        Of its model.

    Raises
    ------
    PlanError
        If it decodes rows of tokens.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> from chartae.estimators.charts import chart_of_estimator
    >>> chart = chart_of_estimator(VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20)))
    >>> chart.decode(chart.encode(chart.items(np.eye(20)))).shape
    torch.Size([20, 20])
    """
    refuse_tokens(estimator)
    if guidance is not None:
        estimator.model_.can_guide(guidance)
    maps = _Maps(estimator, guidance)
    model, posterior, tabular = maps.model, maps.posterior, maps.inputs.tabular
    return Chart(
        encode=maps.encode,
        decode=maps.decode,
        posterior=maps.q if "log_prob" in posterior.offers else None,
        draws=maps.draws if posterior.offers & {"log_prob", "density"} == {"density"} else None,
        likelihood=None if tabular else maps.likelihood,
        spread=maps.spread if maps.normal() and not tabular else None,
        observe=maps.observe,
        prior=maps.density(model.prior),
        sampler=maps.density(model.fitted_prior),
        items=maps.items,
        conditioned=maps.conditioned,
        width=model.width,
        given=estimator,
        smooth=posterior.codebook is None,
        latent_dim=model.latent_dim,
        onto=maps.onto if model.support else None,
        origin=maps.origin(),
        limits=maps.space.limits if maps.unit is not None else None,
    )


class _Maps:
    """The maps of an estimator's model, between what the chart has as items and codes.

    The model has units and a layout of its own. Geometry keeps codes on the CPU, wherever the model is.
    """

    def __init__(self, estimator: Any, guidance: float | None) -> None:
        self.estimator, self.guidance = estimator, guidance
        self.model = model = estimator.model_
        self.space = space = model.space
        self.device = space.scale.device
        self.inputs = Inputs(space).to(self.device).eval()
        self.posterior = model.posterior.plain
        # What is prepared for an encoder, the chart has as its items.
        prepared = isinstance(self.posterior, Prepared)
        self.encoder = self.posterior.posterior if prepared else self.posterior
        self.unit = float(space.scale) if space.scale.numel() == 1 and not self.inputs.tabular else None

    # ------------------------------------------------------------ items

    def outward(self, x: Tensor) -> Tensor:
        """From the model's units and layout to the chart's."""
        if self.unit is None:
            return x
        x, layout = x * self.unit, self.space.layout
        return x.squeeze(-3) if layout == "hw" else x.movedim(-3, -1) if layout == "hwc" else x

    def inward(self, x: Tensor) -> Tensor:
        if self.unit is None:
            return x
        layout = self.space.layout
        x = x.unsqueeze(1) if layout == "hw" else x.movedim(-1, 1) if layout == "hwc" else x
        return x / self.unit

    def seen(self, x: Tensor) -> Tensor:
        """From the model's item to the chart's."""
        if not self.inputs.tabular:
            return self.outward(x)
        flags = self.space.model_shape[0] if self.space.gaps else 0
        return self.inputs(x)[:, : self.inputs.shape[0] - flags]

    def items(self, X: Any, condition: Any = None) -> Tensor:
        array = torch.as_tensor(self.estimator._check(X, reset=False)[:])
        if self.space.gaps and array.isnan().any():
            return self.items(self.estimator.reconstruct(X, condition, n_draws=1, random_state=0)[0])
        return self.seen(self.space.to_model(array.to(self.device)))

    def origin(self) -> Tensor | None:
        if self.unit is None:
            return None
        zero = self.space.scale.new_zeros(1, *self.space.model_shape)
        found: Tensor = self.space.from_model(zero)[0]
        return found

    def conditioned(self, condition: Any, n: int) -> Tensor | None:
        found: Tensor | None = self.model.conditioned(self.estimator._raw(condition, n), n)
        return found

    # ------------------------------------------------------------ to codes

    def q(self, x: Tensor, *c: Tensor) -> Distribution:
        item = h = self.inward(x.to(self.device))
        if self.space.gaps:  # flags: nothing is missing
            h = torch.cat([h, h.new_ones(len(h), *self.space.model_shape)], 1)
        q = self.encoder(h, *c)
        found: Distribution = self.model.completed(
            q, None if self.inputs.tabular else item, c[0] if c else None
        )
        return found

    def encode(self, x: Tensor, *c: Tensor) -> Tensor:
        return self.q(x, *c).point()

    def draws(self, x: Tensor, noise: Noise, *c: Tensor) -> Tensor:
        return self.q(x, *c).draw(1, noise).z[0]

    def onto(self, z: Tensor) -> Tensor:
        found: Tensor = self.model.onto(z.to(self.device)).cpu()
        return found

    def density(self, part: Any) -> Any:
        return None if part is None else lambda c=None: part(c, posterior=self.posterior)

    # ------------------------------------------------------------ from codes

    def px(self, z: Tensor, *c: Tensor) -> Any:
        at = self.model.onto(z)[None].to(self.device)
        return self.model.px(at, *c, guidance=self.guidance if c else None)

    def decode(self, z: Tensor, *c: Tensor) -> Tensor:
        return self.outward(self.inputs.expected(self.px(z, *c))[0])

    def likelihood(self, x: Tensor, z: Tensor, *c: Tensor) -> Tensor:
        found: Tensor = self.model.log_likelihood(self.px(z, *c), self.inward(x))[0]
        return found

    def spread(self, z: Tensor, *c: Tensor) -> Tensor:
        return self.outward(self.px(z, *c).std()[0])

    def observe(self, z: Tensor, noise: Noise, *c: Tensor) -> Tensor:
        return self.seen(self.px(z, *c).draw(1, noise).z[0, 0])

    @torch.no_grad()
    def normal(self) -> bool:
        """Whether p(x | z) has standard deviations."""
        z = self.space.scale.new_zeros((1, 1, self.model.latent_dim), dtype=torch.float32)
        return hasattr(self.model.likelihood(z, *rows_of(self.model.conditioned(None, 1), slice(1))), "std")
