"""What needs no encoder: decoding codes, and sampling new items."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chartae.core.contracts import Distribution, RawCondition
from chartae.core.counts import count
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.estimators.conditions import ConditionSchema
from chartae.models.autoencoder import Autoencoder
from chartae.training.items import array_of

__all__ = ["Decoding", "Generator"]

HELD = 256  # codes drawn in one go where dimensions hold values: many kernels each have a mean for each
CHUNK = 1 << 22  # values of the widest layer in one go: bounded memory


class Decoding:
    """Methods of everything that has a fitted decoder.

    Examples
    --------
    >>> from chartae import VAE
    >>> from chartae.estimators.decoding import Decoding
    >>> issubclass(VAE, Decoding)
    True
    """

    model_: Autoencoder
    condition_: ConditionSchema
    medium_: Any

    def _ready(self) -> Autoencoder:
        return self.model_

    @property
    def _device(self) -> torch.device:
        return self.model_.space.center.device

    def _raw(self, condition: Any, n: int) -> RawCondition | None:
        raw = self.condition_.encode(condition, n)
        return None if raw is None else raw.to(self._device)

    def _rows_at_once(self, k: int = 1) -> int:
        """How many rows, of ``k`` samples each, fit into bounded memory in the widest layer."""
        return max(1, CHUNK // (k * self.model_.width))

    @torch.inference_mode()
    def inverse_transform(self, Z: Any, condition: Any = None, *, guidance: float | None = None) -> Any:
        """Decode codes: the mean of p(x | z), or the most likely category.

        Parameters
        ----------
        Z : array_like
            ``(n, d)`` codes.
        condition : object, optional
            One for each row, or a single one for all; None is "no condition".
        guidance : float, optional
            As in :meth:`sample`.

        Returns
        -------
        ndarray or DataFrame
            ``(n, *shape)``, float, in the input's units; a table where the model was fitted on one.

        Raises
        ------
        DataError
            If the codes have another width than d, or are not finite.
        PlanError
            If there is guidance without a condition.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.inverse_transform(np.zeros((3, 2))).shape
        (3, 20)
        """
        model = self._ready()
        self._can_guide(guidance, condition)
        Z = array_of(Z)
        if Z.dtype.kind not in "fiub":
            raise DataError(f"codes of type {Z.dtype} are no real numbers: convert them")
        if Z.ndim != 2 or Z.shape[1] != model.latent_dim:
            raise DataError(f"codes have shape {Z.shape} and (n, {model.latent_dim}) is needed")
        with np.errstate(over="ignore"):
            codes = Z.astype(np.float32)
        if not np.isfinite(codes).all():
            row = int(np.argwhere(~np.isfinite(codes))[0][0])
            raise DataError(f"the code in row {row} (from 0) is no finite number in float32: correct it")
        out = self._decode(torch.from_numpy(codes), self._raw(condition, len(Z)), None, guidance)
        return self._present(out.astype(np.float64) if Z.dtype == np.float64 else out)

    @torch.inference_mode()
    def sample(
        self,
        n_samples: int = 1,
        condition: Any = None,
        *,
        random_state: int | np.random.RandomState | None = None,
        observation_noise: bool | None = None,
        hold: Mapping[int, Any] | None = None,
        guidance: float | None = None,
    ) -> Any:
        """Make new items: z from the prior, then the point of p(x | z).

        A model without a prior samples z from a normal fitted to its training codes, or, where these lie on a
        codebook, from an autoregressive density of its entries; where a density was fitted to codes by
        ``fit_prior``, z is drawn from that.

        Parameters
        ----------
        n_samples : int
            How many.
        condition : object, optional
            One for each sample, or a single one for all; None is "no condition".
        random_state : int, RandomState or None
            None: different each time.
        observation_noise : bool or None
            Draw x from p(x | z) instead of showing its mean; None: of tables, of which a mean is no row.
        hold : Mapping of int to float or array_like, optional
            Dimensions of z (from 0) that hold a value, or one for each sample; the others are drawn given
            these, as they go together where z is drawn from.
        guidance : float, optional
            How far to follow the condition, with z drawn as ever: 1 as it was trained, 0 not at all, and 2 as
            much again, which makes items more of what was asked for than the data are. The decoder's output
            is extrapolated from what it is without a condition, before it becomes means, probabilities or
            rates.

        Returns
        -------
        ndarray or DataFrame
            ``(n_samples, *shape)``, in the input's units; a table where the model was fitted on one.

        Raises
        ------
        PlanError
            If ``n_samples`` is not a positive number, or dimensions are held that the model does not have or
            whose density does not say how the others follow, or if there is guidance without a condition.
        DataError
            If what they hold is not finite, or not as many values as samples.

        References
        ----------
        Ho and Salimans 2022, arXiv:2207.12598, equation 6 (guidance without a classifier; w = guidance − 1).

        Examples
        --------
        >>> import numpy as np
        >>> from chartae import VAE
        >>> vae = VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
        >>> vae.sample(5, random_state=1).shape
        (5, 20)
        >>> vae.sample(5, hold={0: np.linspace(-2, 2, 5)}, random_state=1).shape
        (5, 20)
        """
        model = self._ready()
        n_samples = count(n_samples, "n_samples")
        self._can_guide(guidance, condition)
        noise = Noise(seed_of(random_state))
        raw = self._raw(condition, n_samples)
        posterior = None if model.posterior is None else model.posterior.plain
        p = model.sampler(model.conditioned(raw, n_samples), posterior=posterior)
        if hold and model.support:
            raise PlanError(
                f"codes lie {model.support}, where no dimension can be held and the others drawn: "
                "choose codes and use inverse_transform"
            )
        z = _held(p, hold, n_samples, noise) if hold else _drawn(p, n_samples, noise)
        if observation_noise is None:
            observation_noise = model.space.schema is not None
        return self._present(self._decode(z, raw, noise if observation_noise else None, guidance))

    def _present(self, x: np.ndarray, given: Any = None) -> Any:
        """Give items as the user knows them: texts, or tables with the values that were given."""
        if getattr(self.medium_, "restores", False):
            return self.medium_.decode(x)
        schema = self.model_.space.schema
        return x if schema is None else schema.decode(x, given)

    def _can_guide(self, guidance: float | None, condition: Any) -> None:
        if guidance is None:
            return
        self.model_.can_guide(guidance)
        if condition is None:
            raise PlanError(f"guidance={guidance:g} follows a condition, and none was given: pass condition=")

    def _decode(
        self, z: Tensor, raw: RawCondition | None, noise: Noise | None, guidance: float | None = None
    ) -> np.ndarray:
        model = self.model_
        rows = self._rows_at_once()
        out = []
        for start in range(0, len(z), rows):
            part = slice(start, start + rows)
            zs = z[part].to(self._device)
            c = model.conditioned(None if raw is None else raw.take(part), len(zs))
            px = model.px(model.onto(zs)[None], c, guidance)
            x = px.point()[0] if noise is None else px.draw(1, noise).z[0, 0]
            out.append(model.space.from_model(x).cpu().numpy())
        shape = (0, *model.space.shape)
        return np.concatenate(out) if out else np.zeros(shape, dtype=np.float32)


def _drawn(p: Distribution, n: int, noise: Noise) -> Tensor:
    return p.draw(1, noise).z[0] if p.batch_shape else p.draw(n, noise).z


def _held(p: Distribution, hold: Mapping[int, Any], n: int, noise: Noise) -> Tensor:
    """Draw codes (n, d) some of whose dimensions hold values."""
    (d,) = p.event_shape
    wrong = next((i for i in hold if not isinstance(i, int | np.integer) or not 0 <= i < d), None)
    if wrong is not None:
        raise PlanError(f"hold names dimension {wrong!r}: the model has dimensions 0 to {d - 1}")
    if "conditional" not in p.offers:
        raise PlanError(
            "the density that codes are drawn from does not say how they go on from what is held: "
            "use fit_prior('gmm') first"
        )
    values = np.empty((n, len(hold)), np.float32)
    for column, (i, value) in zip(values.T, hold.items(), strict=True):
        try:
            column[:] = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError):
            raise DataError(f"dimension {i} is to hold {np.shape(value)} values: give one, or {n}") from None
    if not np.isfinite(values).all():
        raise DataError("hold has a value that is no finite number in float32: correct it")
    dims = [int(i) for i in hold]
    like = p.point()
    z = torch.empty((n, d), dtype=like.dtype, device=like.device)
    z[:, dims] = torch.from_numpy(values).to(z)
    rest = [i for i in range(d) if i not in hold]
    if p.batch_shape:
        z[:, rest] = _drawn(p.given(dims, z[:, dims]), n, noise)
        return z
    for rows in torch.arange(n, device="cpu").split(HELD):
        z[rows[:, None], rest] = _drawn(p.given(dims, z[rows][:, dims]), len(rows), noise)
    return z


def seed_of(random_state: Any) -> int:
    """Turn what scikit-learn calls a random state into a seed.

    Parameters
    ----------
    random_state : int, RandomState or None
        None takes from NumPy's global generator.

    Returns
    -------
    int
        Below 2^31.

    Examples
    --------
    >>> from chartae.estimators.decoding import seed_of
    >>> seed_of(0) == seed_of(0)
    True
    """
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**31 - 1))


def begun_from(random_state: Any) -> int:
    """Say what an estimator keeps as ``random_state_``: the number it was given, or one that is drawn.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in :func:`seed_of`.

    Returns
    -------
    int
        Below 2^31, where it is drawn.

    Examples
    --------
    >>> from chartae.estimators.decoding import begun_from
    >>> begun_from(7)
    7
    """
    return int(random_state) if isinstance(random_state, Integral) else seed_of(random_state)


class Generator(Decoding):
    """A decoder that samples without its encoder, as :func:`chartae.load_decoder` opens it.

    Attributes
    ----------
    model_ : Autoencoder
        Its posterior is None.
    condition_ : ConditionSchema
        What it was conditioned on.
    space_, medium_, latent_dim_, summary_, history_, best_epoch_ : object
        As those of the estimator that it was exported from.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> vae = ct.VAE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     generator = ct.load_decoder(vae.export_decoder(folder + "/decoder"))
    >>> bool((generator.sample(3, random_state=0) == vae.sample(3, random_state=0)).all())
    True
    """

    space_: Space
    latent_dim_: int
    summary_: str
    history_: list[dict[str, Any]]
    best_epoch_: int
