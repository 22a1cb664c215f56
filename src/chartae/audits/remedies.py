"""What to do about a finding: the exact argument to change, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chartae.core.registry import Registry
from chartae.models.recipes.plain import DENOISING

__all__ = ["Remedy", "Setting", "proposed", "remedies"]

PLAIN = (  # recipes without a prior
    *("ae", "denoising-ae", "contractive-ae", "neighbor-ae"),
    *("l2-ae", "rae-l2", "rae-gp", "isometric-ae", "irmae"),
)


@dataclass(frozen=True)
class Remedy:
    """Something to try.

    Parameters
    ----------
    name : str
        By which ``chartae fit --remedy`` knows it.
    says : str
        What to do, in words.
    changes : Mapping
        Parameters to fit with, and "prior" for a density to fit to the codes; empty where nothing is fitted.

    Examples
    --------
    >>> from chartae.audits.remedies import Remedy
    >>> Remedy("more-dimensions", "raise latent_dim from 2 to 6", {"latent_dim": 6}).changes
    {'latent_dim': 6}
    """

    name: str
    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values.

        Returns
        -------
        dict
            Of name, says, changes.
        """
        return {"name": self.name, "says": self.says, "changes": dict(self.changes)}


@dataclass(frozen=True)
class Setting:
    """What a model was fitted with, as far as a remedy asks.

    Parameters
    ----------
    recipe : str
        Empty for a model of another library.
    recipe_params : Mapping
        The recipe's own, also those that were not given.
    parameters : Mapping
        The estimator's.
    latent_dim : int
        d.
    dimension : float or None
        Of the data, where it could be read.
    corruption : tuple or None
        Kind and amount, of what the encoder sees in training.
    features : int or None
        Values of an item, D; None: not known.
    widths : tuple of int or None
        Of the hidden layers, or their channels; None where a number of layers is not all there is.
    fitted_prior : bool
        Whether samples take codes from a density that was fitted, and not from the model's own prior.

    Examples
    --------
    >>> from chartae.audits.remedies import Setting
    >>> Setting(latent_dim=2).recipe
    ''
    """

    recipe: str = ""
    recipe_params: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    latent_dim: int = 0
    dimension: float | None = None
    corruption: tuple[str, float] | None = None
    features: int | None = None
    widths: tuple[int, ...] | None = None
    fitted_prior: bool = False


#: Functions from a :class:`Setting` to words and changes; None where it would change nothing.
remedies: Registry[Callable[[Setting], tuple[str, dict[str, Any]] | None]] = Registry("remedy")


def proposed(names: tuple[str, ...], setting: Setting) -> tuple[Remedy, ...]:
    """Say what remedies mean for a model.

    Parameters
    ----------
    names : tuple of str
        Of the registry, best first.
    setting : Setting
        What the model was fitted with.

    Returns
    -------
    tuple of Remedy
        Those that change something.

    Examples
    --------
    >>> from chartae.audits.remedies import Setting, proposed
    >>> [r.says for r in proposed(("more-dimensions",), Setting("vae", latent_dim=2, dimension=7.3))]
    ['raise latent_dim from 2 to 9']
    """
    found = [(name, remedies[name](setting)) for name in names]
    # Of another library's model chartae changes nothing.
    ours = bool(setting.recipe)
    return tuple(Remedy(name, made[0], made[1] if ours else {}) for name, made in found if made is not None)


@remedies.register("more-dimensions")
def _more_dimensions(now: Setting) -> tuple[str, dict[str, Any]] | None:
    m = now.dimension
    # A fifth more than the dimension is where to begin, and 2 m + 1 coordinates hold any manifold (Whitney).
    enough = (round(1.2 * m), round(2 * m) + 1) if m else (2 * now.latent_dim,)
    # Items themselves are codes that lose nothing.
    most = now.features or max(enough)
    wanted = next((min(size, most) for size in enough if size > now.latent_dim), now.latent_dim)
    if wanted <= now.latent_dim:
        return None
    return f"raise latent_dim from {now.latent_dim} to {wanted}", {"latent_dim": wanted}


@remedies.register("more-capacity")
def _more_capacity(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.widths is None:
        return "use wider networks", {}
    if not now.widths:
        return "use a network with hidden layers: network='mlp'", {"network": "mlp"}
    wider = tuple(2 * width for width in now.widths)
    return f"widen the hidden layers: hidden={wider}", {"hidden": wider}


@remedies.register("longer-training")
def _longer_training(now: Setting) -> tuple[str, dict[str, Any]] | None:
    epochs = now.parameters.get("max_epochs")
    wanted = 3 * int(epochs) if epochs else None
    says = f"train longer: max_epochs={wanted}" if wanted else "train longer"
    return says, {"max_epochs": wanted} if wanted else {}


@remedies.register("asleep")
def _asleep(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.parameters.get("asleep", 1.0):
        return None
    return "let the encoder learn of the model's own samples, too: asleep=1", {"asleep": 1.0}


@remedies.register("refine")
def _refine(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if not now.recipe:
        return None
    return "refine codes, each on its own: transform(X, refine=100)", {}


@remedies.register("denoising")
def _denoising(now: Setting) -> tuple[str, dict[str, Any]] | None:
    kind, amount = now.corruption or ("", 0.0)
    # Masking hides values, and teaches little about noise.
    wanted = 2 * amount if kind == "gaussian" else DENOISING
    return f"train on noisier input: corruption={wanted:g}", {"corruption": wanted}


@remedies.register("contractive")
def _contractive(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.recipe == "contractive-ae":
        lam = 10 * now.recipe_params["lam"]
        return f"contract the encoder more: lam={lam:g}", {"recipe_params": {"lam": lam}}
    without = "" if now.recipe in ("", *PLAIN) else ", which has no prior"
    says = f"contract the encoder: recipe='contractive-ae'{without}"
    return says, {"recipe": "contractive-ae", "recipe_params": {}}


@remedies.register("fit-density")
def _fit_density(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.fitted_prior:
        return None
    return "sample from a density fitted to the codes: fit_prior('auto')", {"prior": "auto"}


@remedies.register("variational")
def _variational(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.recipe not in PLAIN:
        return None
    return "give codes a prior: recipe='vae'", {"recipe": "vae", "recipe_params": {}}


@remedies.register("lower-beta")
def _lower_beta(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if "beta" in now.recipe_params:
        beta = now.recipe_params["beta"]
        wanted = 1.0 if beta > 1 else beta / 2
        changes = {"recipe_params": {**now.recipe_params, "beta": wanted}}
        return f"lower beta from {beta:g} to {wanted:g}", changes
    if now.recipe == "l2-ae":
        lam = now.recipe_params["lam"] / 10
        return f"lower the penalty on the codes: lam={lam:g}", {"recipe_params": {"lam": lam}}
    return None


@remedies.register("unit-beta")
def _unit_beta(now: Setting) -> tuple[str, dict[str, Any]] | None:
    # Of another weight than the ELBO's, q(z | x) is no posterior of the decoder that it is trained with.
    beta = now.recipe_params.get("beta", 1.0)
    if beta == 1:
        return None
    return f"weigh the KL as the ELBO does: beta=1, not {beta:g}", {
        "recipe_params": {**now.recipe_params, "beta": 1.0}
    }


@remedies.register("free-bits")
def _free_bits(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if "free_bits" not in now.recipe_params:
        return None
    bits = 2 * now.recipe_params["free_bits"] or 0.1
    says = f"let {bits:g} nats of each latent dimension cost nothing: free_bits={bits:g}"
    return says, {"recipe_params": {**now.recipe_params, "free_bits": bits}}


@remedies.register("full-covariance")
def _full_covariance(now: Setting) -> tuple[str, dict[str, Any]] | None:
    # A posterior whose dimensions go together is wider along each axis than one without correlations can say.
    if now.recipe_params.get("covariance") != "diagonal":
        return None
    says = "let q(z | x) say how dimensions go together: covariance='full'"
    return says, {"recipe_params": {**now.recipe_params, "covariance": "full"}}


@remedies.register("learned-noise")
def _learned_noise(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(now.parameters.get("noise"), int | float):
        return None
    return "let the noise of p(x | z) be learned: noise='global'", {"noise": "global"}


@remedies.register("geodesic-paths")
def _geodesic_paths(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "walk along geodesics: interpolate(..., path='geodesic')", {}


@remedies.register("metric-distances")
def _metric_distances(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "measure distances by the metric: chartae.geometry.distance", {}


@remedies.register("use-the-mean")
def _use_the_mean(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "use the mean of a code and not its standard deviation", {}


@remedies.register("deduplicate")
def _deduplicate(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "remove copies from the training data", {}


@remedies.register("more-data")
def _more_data(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "give more items", {}


@remedies.register("guidance")
def _guidance(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "sample with guidance=2, which exaggerates the condition", {}


@remedies.register("fewer-dimensions")
def _fewer_dimensions(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if now.latent_dim < 2:
        return None
    wanted = now.latent_dim // 2
    return f"lower latent_dim from {now.latent_dim} to {wanted}", {"latent_dim": wanted}


@remedies.register("conditional-prior")
def _conditional_prior(now: Setting) -> tuple[str, dict[str, Any]] | None:
    if not now.recipe_params.get("conditional_prior", True):
        says = "draw codes from a prior that knows the condition: conditional_prior=True"
        return says, {"recipe_params": {**now.recipe_params, "conditional_prior": True}}
    if now.recipe != "cvae":
        return None
    says = "let a flow learn where codes lie: recipe='flow-prior-vae' with conditional_prior=True"
    return says, {"recipe": "flow-prior-vae", "recipe_params": {"conditional_prior": True}}


@remedies.register("draw-noise")
def _draw_noise(now: Setting) -> tuple[str, dict[str, Any]] | None:
    return "sample with observation_noise=True, where the noise is part of the data", {}
