"""What puts parts together, so that a recipe becomes a plan."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from chartae.core.contracts import Objective, Plan
from chartae.core.counts import is_count
from chartae.core.errors import PlanError
from chartae.core.registry import Registry
from chartae.core.spaces import Space
from chartae.models.autoencoder import Autoencoder
from chartae.parts.conditions import Condition
from chartae.parts.likelihoods import likelihoods
from chartae.parts.networks import Foreign, Leading, damp, networks
from chartae.parts.objectives import Asleep
from chartae.parts.posteriors import Corrupted, posteriors
from chartae.parts.priors import priors
from chartae.parts.tables import Inputs, Prepared

__all__ = ["SHARED", "assemble", "features_of", "seen_of", "space_of"]


#: A part's name, and options of its own.
Choice = tuple[str, Mapping[str, Any]]


def _chosen(registry: Registry[Any], choice: str | Choice) -> tuple[str, Any, Mapping[str, Any]]:
    name, options = (choice, {}) if isinstance(choice, str) else choice
    return name, registry[name], options


OF_LOGITS = ("bernoulli", "continuous-bernoulli", "categorical")
RESERVED = ("posterior", "prior", "objective", "decoded")


def assemble(
    shape: tuple[int, ...] | Space,
    *,
    objective: Objective | Callable[[Autoencoder], Objective],
    posterior: str | Choice = "normal",
    prior: str | Choice | None = "standard-normal",
    decoded: int | None = None,
    latent_dim: int = 2,
    network: str | Sequence[nn.Module] = "auto",
    hidden: Sequence[int] | None = None,
    activation: str = "relu",
    noise: str | float = "global",
    hide: float = 0.3,
    context: int | None = None,
    corruption: float | Sequence[Any] | None = None,
    asleep: float = 0.0,
    condition: Mapping[str, Any] | None = None,
    conditioning: str = "concat",
) -> Plan:
    """Put parts together: what every recipe ends with.

    Parameters
    ----------
    shape : tuple of int or Space
        Shape of one item, or its space (with its likelihood).
    objective : Objective or callable
        What is minimized, or a function that makes it for the model, where it has networks of its own.
    posterior, prior : str or pair
        Names in the registries of parts, or a name and a dict of the part's own options; prior None for none.
    decoded : int or None
        How many leading dimensions of the code the decoder sees, where x depends on those alone; None: all.
    latent_dim : int
        d.
    network : str or pair of nn.Module
        "auto", a name in the registry of networks, or the user's encoder and decoder.
    hidden : sequence of int or None
        Widths, or channels of convolutions; None for the network's own.
    activation : str
        Between layers.
    noise : str or float
        Of a likelihood that has one; a float is in the input's units.
    hide : float
        Share of values that the encoder does not see in training, where values may be missing, or the decoder
        of sequences, of the tokens before each.
    context : int or None
        Of sequences: how many tokens just before the next each layer of the decoder looks at; None: all.
    corruption : float, pair or None
        Of the encoder's input in training: the standard deviation of normal noise, or a kind and an amount.
    asleep : float
        Weight of :class:`~chartae.parts.objectives.Asleep`, by which the encoder learns of the model's own
        items, beside the objective.
    condition : Mapping or None
        Parameters of :class:`~chartae.parts.conditions.Condition`.
    conditioning : {"concat", "film"}
        Whether networks take the condition beside their input, or it scales and shifts their hidden layers.

    Returns
    -------
    Plan
        Of these parts.

    Raises
    ------
    PlanError
        If they do not fit together.

    Examples
    --------
    >>> from chartae.models.recipes import assemble
    >>> from chartae.parts.objectives import NegLogLik
    >>> assemble((4,), objective=NegLogLik(), posterior="delta", prior=None).model.latent_dim
    2
    """
    space = space_of(shape)
    if not is_count(latent_dim):
        raise PlanError(f"latent_dim={latent_dim}: a code has one dimension or more")
    widths: Any = () if hidden is None else tuple(hidden)
    if not all(is_count(width) for width in widths):
        raise PlanError(f"hidden={widths}: a layer has a whole number of units, one or more")
    likelihood_class = likelihoods[space.likelihood]
    if noise not in (None, "global") and not likelihood_class.has_noise:
        raise PlanError(
            f"noise={noise!r} says nothing to likelihood={space.likelihood!r}, which has none: leave it out"
        )
    conditioner = Condition(**condition) if condition else None
    width = conditioner.width if conditioner else 0
    if conditioning != "concat" and not width:
        raise PlanError(
            f"conditioning={conditioning!r} needs a condition: pass y to fit, with a recipe such as 'cvae'"
        )
    if context is not None and space.likelihood != "sequence":
        raise PlanError(f"context={context!r} is of texts, said token after token: leave it out")
    facts = {"likelihood": space.likelihood}  # as they were chosen: refusals name them so
    facts["posterior"], q_class, q_options = _chosen(posteriors, posterior)
    features = q_class.features(latent_dim, **q_options)
    seen = latent_dim if decoded is None else decoded
    out_shape = likelihood_class.out_shape(space, noise)
    inputs = _inputs(space, hide)
    in_shape = space.model_shape if inputs is None else inputs.shape
    if isinstance(network, str):
        name = _network_for(space) if network == "auto" else network
        make = networks[name]
        shared = (hidden, width, activation, conditioning)
        # Of texts another network is refused below, by the likelihood.
        options = {"context": context} if context is not None and name == "transformer" else {}
        encoder, decoder = make(in_shape, out_shape, features, seen, *shared, **options)
        damp(encoder, 0.1, q_class.spreads(latent_dim, **q_options))
        damp(decoder, 0.3)  # the first draws of codes are noise
    else:
        name = "yours"
        mine = _copies(network, conditioning)
        encoder = Foreign(mine[0], in_shape, (features,), width, head=True)
        decoder = Foreign(mine[1], (seen,), out_shape, width)
        _warn_of_sigmoid(decoder, space)
    decoder = decoder if seen == latent_dim else Leading(decoder, seen)
    q = q_class(encoder, latent_dim, **q_options)
    if corruption is not None:
        q = Corrupted(q, *_corruption(corruption, space))
    if inputs is not None:
        q = Prepared(q, inputs)
    p = None
    if prior is not None:
        facts["prior"], p_class, p_options = _chosen(priors, prior)
        p = p_class(latent_dim, width, **p_options)
    x = likelihood_class.of(space, decoder, noise, hide)
    if p is not None and p.support not in (None, q.support):
        where, there = (t or "all over R^d" for t in (q.support, p.support))
        raise PlanError(
            f"posterior={facts['posterior']!r} gives codes {where}, and prior={facts['prior']!r} has them "
            f"{there}: choose two that share a space"
        )
    model = Autoencoder(q, p, x, space, latent_dim, conditioner)
    chosen = objective if isinstance(objective, Objective) else objective(model)
    chosen = chosen + asleep * Asleep() if asleep else chosen
    return Plan(model, chosen, facts={**facts, "network": name})


def _copies(network: Any, conditioning: str) -> list[nn.Module]:
    """Copy the user's encoder and decoder."""
    pair = isinstance(network, list | tuple | nn.ModuleList) and len(network) == 2
    if not pair or not all(isinstance(m, nn.Module) for m in network):
        given = type(network).__name__
        raise PlanError(f"network is {given}: give a name, or a pair of torch modules (encoder, decoder)")
    if conditioning != "concat":
        raise PlanError(
            f"conditioning={conditioning!r} acts inside the networks, and these are yours: leave it out, "
            "and use the condition that your modules are called with"
        )
    # Copied: fitting must not change what the caller passed in. Together: they may share layers.
    mine = copy.deepcopy(list(network))
    if not all(p.is_leaf for m in mine for p in m.parameters()):
        raise PlanError("a copy of these modules cannot be trained (TorchScript?): pass the plain modules")
    return [m.cpu() for m in mine]


def _warn_of_sigmoid(decoder: Foreign, space: Space) -> None:
    """Say that a decoder made for another library gives what the likelihood does not take."""
    logits = space.likelihood in OF_LOGITS
    as_given = not bool(space.center.any()) and bool((space.scale == 1).all())
    if (logits or not as_given) and decoder.ends_in_sigmoid():
        wanted = "logits" if logits else "values that are centered and scaled as items are"
        cure = "" if logits else ", or pass scale='none'"
        warnings.warn(
            f"your decoder gives numbers from 0 to 1, and likelihood {space.likelihood!r} takes {wanted}: "
            f"leave its sigmoid out{cure}",
            stacklevel=2,
        )


def features_of(
    space: Space, width: int, network: Any = "auto", hidden: Sequence[int] | None = None
) -> nn.Module:
    """Make a network that looks at items, beside the encoder: of its kind, unless that is the user's own.

    Parameters
    ----------
    space : Space
        Of the items.
    width : int
        How many features it gives.
    network, hidden : object
        As in :func:`assemble`.

    Returns
    -------
    nn.Module
        From ``(n, *x)`` to ``(n, width)``.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.assembly import features_of
    >>> features_of(Space((4,)), 3)(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """
    named = isinstance(network, str) and network != "auto"
    name = network if named else _network_for(space)
    own = hidden if isinstance(network, str) else None
    inputs = _inputs(space)
    out_shape = likelihoods[space.likelihood].out_shape(space, "global")
    made = networks[name](seen_of(space), out_shape, width, 1, own, 0, "relu", "concat")[0]
    return made if inputs is None else nn.Sequential(inputs, made)


def space_of(shape: tuple[int, ...] | Space) -> Space:
    """Give the space of items of which a recipe may know the shape alone.

    Parameters
    ----------
    shape : tuple of int or Space
        As a recipe gets it.

    Returns
    -------
    Space
        Of one item.

    Examples
    --------
    >>> from chartae.models.assembly import space_of
    >>> space_of((28, 28)).model_shape
    (1, 28, 28)
    """
    return shape if isinstance(shape, Space) else Space(shape)


def seen_of(shape: tuple[int, ...] | Space) -> tuple[int, ...]:
    """Give the shape of what an encoder sees of an item.

    Parameters
    ----------
    shape : tuple of int or Space
        As a recipe gets it.

    Returns
    -------
    tuple of int
        The model's, unless items are prepared: rows of tables, or with values that may be missing.

    Examples
    --------
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.assembly import seen_of
    >>> seen_of((28, 28)), seen_of(Space((4,), gaps=True))
    ((1, 28, 28), (8,))
    """
    space = space_of(shape)
    inputs = _inputs(space)
    return space.model_shape if inputs is None else inputs.shape


def _inputs(space: Space, hide: float = 0.0) -> Inputs | None:
    return Inputs(space, hide) if space.gaps or space.likelihood == "columns" else None


#: Parameters of :func:`assemble` that every recipe passes on, and none may have of its own.
SHARED = frozenset(inspect.signature(assemble).parameters) - {*RESERVED, "shape"}


def _corruption(given: float | Sequence[Any], space: Space) -> tuple[str, float]:
    """Kind and amount; a number alone is of normal noise."""
    if isinstance(given, int | float):
        given = ("gaussian", given)
    if isinstance(given, str) or len(given) != 2:
        raise PlanError(f"corruption={given!r}: give a number, or a kind and an amount: ('masking', 0.3)")
    if given[0] == "stretching" and len(space.model_shape) < 2:
        raise PlanError(f"corruption={given!r} is for images, sounds and series, not for rows")
    if given[0] == "gaussian" and likelihoods[space.likelihood].sequential:
        raise PlanError(f"corruption={given!r} adds to numbers, and tokens are names: use ('masking', 0.3)")
    return given[0], given[1]


def _network_for(space: Space) -> str:
    """Blocks for tokens, convolutions for images large enough to have scales, layers for the rest."""
    if likelihoods[space.likelihood].sequential:
        return "transformer"
    return "conv2d" if space.is_image and min(space.model_shape[1:]) >= 16 else "mlp"
