"""Constructor parameters that all estimators share: defaults, constraints, words, and the constructor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from chartae.core.errors import PlanError
from chartae.core.registry import suggest
from chartae.core.spaces import LAYOUTS
from chartae.models.assembly import SHARED
from chartae.models.recipes import find
from chartae.parts.networks import CONDITIONING

__all__ = ["COMMON", "CONSTRAINTS", "kept_as_json", "widths"]

#: Parameters of every estimator, and their defaults.
COMMON: dict[str, Any] = {
    "latent_dim": "auto",
    "network": "auto",
    "hidden": None,
    "conditioning": "concat",
    "likelihood": "auto",
    "noise": "global",
    "scale": "auto",
    "layout": "auto",
    "columns": None,
    "missing": "auto",
    "hide": 0.3,
    "corruption": None,
    "asleep": 0.0,
    "max_epochs": 100,
    "max_time": None,
    "batch_size": "auto",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "clip": None,
    "averaging": True,
    "validation_fraction": "auto",
    "patience": 10,
    "contamination": 0.05,
    "device": "auto",
    "precision": "auto",
    "compile": False,
    "random_state": None,
    "verbose": 0,
}

COMMON_TEXT = """
latent_dim : int or "auto"
    d; "auto" takes an estimate of the data's intrinsic dimension, and ``summary_`` says which.
network : str or pair of nn.Module
    "auto" (convolutions for images of 16 pixels or more, layers for the rest), "linear", "mlp", "conv1d",
    "conv2d", "resnet", or your own encoder and decoder. The encoder maps ``(n, *shape)`` to anything that
    flattens; the decoder maps ``(n, d)`` to ``(n, *shape)``, or to as many numbers for each value as the
    likelihood needs (two for ``noise="item"``, one for each category); images come as
    ``(n, channels, height, width)``. Both see the model's units: items are centered and scaled (see
    ``scale``), and so is the mean that a decoder gives; of "bernoulli", "continuous-bernoulli" and
    "categorical" it gives logits, of counts the logarithm of the mean. So it does not end in a sigmoid.
hidden : int, sequence of int or None
    Widths of the encoder's layers, mirrored in the decoder; channels, for convolutions.
    A number is one layer.
conditioning : {"concat", "film"}
    How a conditional recipe's networks take the condition: beside their input, or as what scales and shifts
    their hidden layers (arXiv:1709.07871). Modules of your own get it as their second argument.
likelihood : str
    p(x | z): "normal", "laplace", "student-t", "normal-mixture", "bernoulli", "continuous-bernoulli",
    "categorical", "poisson", "negative-binomial", "sequence" of tokens, or "columns" for a table with several
    kinds of columns. "auto" takes "columns" for such a table, "bernoulli" for data of two values, "normal"
    otherwise.
noise : {"global", "feature", "item"} or float
    Of a likelihood that has one: the same for all values, one for each feature, given by the decoder for each
    value of each item, or, of a normal or Laplace likelihood, a fixed one in the input's units.
scale : {"auto", "global", "feature", "none"}
    Of a normal likelihood. "auto": columns are centered and share one scale; those of data frames have
    their own, and if those of an array seem to, a warning says so.
layout : {"auto", "flat", "hw", "hwc", "chw", "any"}
    How an item is ordered: as features, as an image (height, width, channels), or as neither. "auto" takes
    two axes of 8 or more for a gray image, three axes for an image if the last or the first counts 1, 3 or
    4 channels, and all else for "any".
columns : dict or None
    Of a table: what some of its columns hold, by name, where it is not what they look like: "continuous",
    "positive", "binary", "categorical", "count", or the name of a likelihood; "drop" leaves a column out.
missing : {"auto", "mask", "refuse"}
    What NaN and None mean: values that are left out of encoder and loss, and that :meth:`reconstruct` fills
    in, or an error. "auto" is "mask" for tables with gaps, and "refuse" for all else.
hide : float
    Share of values that the encoder does not see in training, where values may be missing: it learns to fill
    in. Of texts, share of tokens that the decoder does not see before the next: it learns to ask the code.
corruption : float, pair or None
    Of what the encoder sees in training: the standard deviation of normal noise, where 1 is that of the data
    (or the whole range, of items that are not scaled), or a kind ("gaussian", "masking", "stretching") and an
    amount. The model learns to take noise away, whatever its recipe (arXiv:1511.06406). Stretching, by up to
    a share of each axis of images, sounds and series, stands for speakers or hands that were not seen.
asleep : float
    Weight of what the encoder learns, beside the recipe's objective, of items that the model itself draws:
    -log q(z | x) of their codes (arXiv:2205.11640). For encoders that overfit, as in long trainings or of few
    rows: new items are then read more nearly as those of training are. 1 is a start.
max_epochs : int
    Passes over the data, at most.
max_time : float or None
    Seconds after which training stops, with what it has learned so far; a run folder can go on.
batch_size : int or "auto"
    "auto" is 128, and less for fewer than 1,280 rows.
learning_rate : float
    Of Adam.
schedule : {"constant", "cosine", "linear"}
    Of the learning rate.
clip : float or None
    Largest norm of a step's gradient.
averaging : bool
    Keep of an epoch the average of weights over the steps up to there, most of it over the last tenth of
    training so far (arXiv:2312.02696, section 3.1), once there are 400 steps: steps of one size keep the
    weights themselves from settling.
validation_fraction : float or "auto"
    Share of rows held out (none if that is fewer than 10 rows); ``validation_rows_`` says which. "auto": a
    tenth, and from 150 rows on the 50 at least that a health report needs.
patience : int or None
    Epochs without improvement on held-out rows before training stops; None: never.
contamination : float
    Share of training rows that :meth:`predict` calls outliers.
device : str
    "auto", "cpu", "cuda" ...
precision : {"auto", "float32", "bf16"}
    "auto" trains in bf16 where that is faster and costs no quality, and encodes in the input's precision.
compile : bool
    Compile the networks; worth it for long runs only. On a GPU record whole steps instead, which is done of
    torch's and chartae's modules in any case: your own must then do the same thing in every step of training.
random_state : int, RandomState or None
    The same seed gives the same result on one machine; None differs each time. Fits in several threads of one
    process share torch's generator, and differ: run them in processes.
verbose : int
    0 is silent; 1 shows what was inferred, and progress.
"""

ATTRIBUTES_TEXT = """
model_ : nn.Module
    The torch model.
latent_dim_ : int
    d.
random_state_ : int
    ``random_state``, or the number that was drawn in its place: giving it repeats the fit.
history_ : list of dict
    One for each epoch: ``loss`` and its terms in nats, ``val_`` the same on held-out rows, speed.
summary_ : str
    What was inferred from the data.
space_ : Space
    Shape, units and likelihood of the data.
medium_ : object or None
    How sounds or texts became items, where :func:`chartae.read` made them.
validation_rows_ : ndarray
    ``(m,)`` row numbers that were held out.
codes_ : ndarray or None
    ``(n, d)``, one draw of q(z | x) for each of up to 10,000 training rows, chosen at random.
best_epoch_ : int
    The epoch (from 1) whose weights were kept.
n_iter_, n_features_in_, offset_ : int, int, float
    As in scikit-learn; ``null_offset_`` is the threshold for rows that come without their condition.
"""

#: As scikit-learn validates them.
CONSTRAINTS: dict[str, Any] = {
    "latent_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "network": [str, "array-like"],
    "hidden": [None, Interval(Integral, 1, None, closed="left"), "array-like"],
    "conditioning": [StrOptions(set(CONDITIONING))],
    "likelihood": [str],
    "noise": [StrOptions({"global", "feature", "item"}), Interval(Real, 0, None, closed="neither")],
    "scale": [StrOptions({"auto", "global", "feature", "none"})],
    "layout": [StrOptions({"auto", *LAYOUTS})],
    "columns": [dict, None],
    "missing": [StrOptions({"auto", "mask", "refuse"})],
    "hide": [Interval(Real, 0, 1, closed="left")],
    "corruption": [None, Interval(Real, 0, None, closed="neither"), "array-like"],
    "asleep": [Interval(Real, 0, None, closed="left")],
    "max_epochs": [Interval(Integral, 1, None, closed="left")],
    "max_time": [None, Interval(Real, 0, None, closed="neither")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "schedule": [str],
    "clip": [None, Interval(Real, 0, None, closed="neither")],
    "averaging": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
    "patience": [None, Interval(Integral, 1, None, closed="left")],
    "contamination": [Interval(Real, 0, 0.5, closed="right")],
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bf16"})],
    "compile": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "context": [None, Interval(Integral, 1, None, closed="left")],
    "max_length": [None, Interval(Integral, 1, None, closed="left")],
    "tokens": [StrOptions({"bytes", "bpe"}), Interval(Integral, 256, None, closed="left")],
    "recipe": [str],
    "recipe_params": [dict, None],
}


def constructor(
    own: dict[str, Any], common: Mapping[str, Any] = COMMON, *, first: str | None = None
) -> Callable[..., None]:
    """An ``__init__`` that only stores: its own parameters, then the common ones, by keyword.

    Written once for all estimators; scikit-learn reads the parameters off the signature. The one called
    ``first`` may come without its name.
    """
    every = {**own, **common, **own}  # own ones first, and with their own values
    kind, named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kind if name == first else named, default=value)
        for name, value in every.items()
    ]
    signature = inspect.Signature([inspect.Parameter("self", kind), *parameters])

    def __init__(self: Any, *unnamed: Any, **given: Any) -> None:
        name = type(self).__name__
        if first is not None and unnamed:
            if first in given:
                raise TypeError(f"{name} was given {first} twice: leave one of them out")
            given[first], *rest = unnamed
        else:
            rest = list(unnamed)
        if rest:
            example = next(n for n in ("latent_dim", *every) if n in every and n != first)
            default = 16 if example == "latent_dim" else every[example]
            raise TypeError(f"{name} takes its parameters by name, as in {name}({example}={default!r})")
        unknown = next((name for name in given if name not in every), None)
        if unknown:
            raise TypeError(f"{name} has no parameter {unknown!r}: {suggest(unknown, every)}")
        for key, value in {**every, **given}.items():
            setattr(self, key, value)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def of_recipe(name: str, **defaults: Any) -> Callable[[type], type]:
    """Make an estimator of a recipe: the recipe's own parameters become the estimator's.

    ``defaults`` are of further parameters, or others than those that all estimators have.
    """
    chosen = find(name)
    own = [*chosen.parameters, *(p for p in defaults if p in SHARED and p not in COMMON)]

    def finish(cls: type) -> type:
        cls.__init__ = constructor({**chosen.parameters, **defaults})  # type: ignore[misc]
        cls._recipe = lambda self: (name, {k: getattr(self, k) for k in own})  # type: ignore[attr-defined]
        return documented(cls)

    return finish


def documented(cls: type) -> type:
    """Fill the shared parts into a class docstring."""
    return told(cls, common=COMMON_TEXT, attributes=ATTRIBUTES_TEXT)


def told(cls: type, **texts: str) -> type:
    """Put texts where a class docstring names them in braces, but for entries that it has itself."""
    words = inspect.cleandoc(cls.__doc__ or "")
    own = set(re.findall(r"^(\w+) : ", words, flags=re.M))
    for name, text in texts.items():
        entries = re.split(r"^(?=\S)", text.strip() + "\n", flags=re.M)
        shared = "".join(entry for entry in entries if entry.partition(" : ")[0] not in own)
        words = words.replace(f"{{{name}}}", shared.strip())
    cls.__doc__ = words
    return cls


def widths(hidden: Any) -> list[int] | None:
    """Give widths of layers as a list, of which a number is one.

    Parameters
    ----------
    hidden : int, array_like or None
        As estimators take it.

    Returns
    -------
    list of int or None
        None where the network is to choose.

    Examples
    --------
    >>> from chartae.estimators.parameters import widths
    >>> widths(32), widths((64, 32)), widths(None)
    ([32], [64, 32], None)
    """
    return None if hidden is None else np.atleast_1d(hidden).tolist()


def kept_as_json(parameters: Mapping[str, Any], *, unless: Collection[str] = ()) -> dict[str, Any]:
    """Give parameters as JSON values, which a run folder can keep.

    Parameters
    ----------
    parameters : Mapping
        By name.
    unless : collection of str
        Those of which a value that is no JSON becomes None: modules and random states of the user's.

    Returns
    -------
    dict
        JSON values.

    Raises
    ------
    PlanError
        If another value is no JSON.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.estimators.parameters import kept_as_json
    >>> kept_as_json({"hidden": np.array([8, 4]), "beta": np.float32(2.0)})
    {'hidden': [8, 4], 'beta': 2.0}
    """

    def json(name: str, value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Mapping):
            return {str(k): json(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple | np.ndarray):
            return [json(name, v) for v in value]
        if not isinstance(value, str | int | float | bool | None):
            raise PlanError(f"{name}={value!r} cannot be kept in a run folder: use numbers, words or lists")
        return value

    out = {}
    for name, value in parameters.items():
        try:
            out[name] = json(name, value)
        except PlanError:
            if name not in unless:
                raise
            out[name] = None
    return out
