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
    model: Any = estimator.model_
    if guidance is not None:
        model.can_guide(guidance)
    refuse_tokens(estimator)
    space, inputs = model.space, Inputs(model.space).to(model.space.scale.device).eval()
    posterior = model.posterior.plain
    # What is prepared for an encoder, the chart has as its items.
    inner = posterior.posterior if isinstance(posterior, Prepared) else posterior
    features = inputs.shape[0] - (space.model_shape[0] if space.gaps else 0)
    unit = float(space.scale) if space.scale.numel() == 1 and not inputs.tabular else None

    def outward(x: Tensor) -> Tensor:
        """From the model's units and layout to the chart's."""
        if unit is None:
            return x
        x = x * unit
        return x.squeeze(-3) if space.layout == "hw" else x.movedim(-3, -1) if space.layout == "hwc" else x

    def inward(x: Tensor) -> Tensor:
        if unit is None:
            return x
        x = x.unsqueeze(1) if space.layout == "hw" else x.movedim(-1, 1) if space.layout == "hwc" else x
        return x / unit

    def items(X: Any, condition: Any = None) -> Tensor:
        array = torch.as_tensor(estimator._check(X, reset=False)[:])
        if space.gaps and array.isnan().any():
            return items(estimator.reconstruct(X, condition, n_draws=1, random_state=0)[0])
        return seen(space.to_model(array.to(space.scale.device)))

    def q(x: Tensor, *c: Tensor) -> Distribution:
        item = h = inward(x.to(space.scale.device))
        if space.gaps:  # flags: nothing is missing
            h = torch.cat([h, h.new_ones(len(h), *space.model_shape)], 1)
        return model.completed(inner(h, *c), None if inputs.tabular else item, c[0] if c else None)

    def draws(x: Tensor, noise: Noise, *c: Tensor) -> Tensor:
        return q(x, *c).draw(1, noise).z[0]

    def made(z: Tensor, *c: Tensor) -> Any:
        """p(x | z), wherever codes come from: geometry keeps them on the CPU."""
        given = guidance if c else None
        return model.px(model.onto(z)[None].to(space.scale.device), *c, guidance=given)

    def decode(z: Tensor, *c: Tensor) -> Tensor:
        return outward(inputs.expected(made(z, *c))[0])

    def conditioned(condition: Any, n: int) -> Tensor | None:
        return model.conditioned(estimator._raw(condition, n), n)

    with torch.no_grad():
        z = space.scale.new_zeros((1, 1, model.latent_dim), dtype=torch.float32)
        normal = hasattr(model.likelihood(z, *rows_of(model.conditioned(None, 1), slice(1))), "std")

    def prior(part: Any) -> Any:
        return None if part is None else lambda c=None: part(c, posterior=posterior)

    def likelihood(x: Tensor, z: Tensor, *c: Tensor) -> Tensor:
        return model.log_likelihood(made(z, *c), inward(x))[0]

    def spread(z: Tensor, *c: Tensor) -> Tensor:
        return outward(made(z, *c).std()[0])

    def observe(z: Tensor, noise: Noise, *c: Tensor) -> Tensor:
        return seen(made(z, *c).draw(1, noise).z[0, 0])

    def seen(x: Tensor) -> Tensor:
        """From the model's item to the chart's."""
        return outward(inputs(x)[:, :features] if inputs.tabular else x)

    return Chart(
        encode=lambda x, *c: q(x, *c).point(),
        decode=decode,
        posterior=q if "log_prob" in posterior.offers else None,
        draws=draws if posterior.offers & {"log_prob", "density"} == {"density"} else None,
        likelihood=None if inputs.tabular else likelihood,
        spread=spread if normal and not inputs.tabular else None,
        observe=observe,
        prior=prior(model.prior),
        sampler=prior(model.fitted_prior),
        items=items,
        conditioned=conditioned,
        width=model.width,
        given=estimator,
        smooth=posterior.codebook is None,
        latent_dim=model.latent_dim,
        onto=(lambda z: model.onto(z.to(space.scale.device)).cpu()) if model.support else None,
        origin=None if unit is None else space.from_model(space.scale.new_zeros(1, *space.model_shape))[0],
    )
