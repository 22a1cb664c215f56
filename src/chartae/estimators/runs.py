"""Estimators to run folders and back."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from chartae.core.contracts import Prior
from chartae.core.errors import ChartaeError, PackageError, PlanError, RunFolderError, one_line
from chartae.core.spaces import Space
from chartae.density import Density, densities
from chartae.estimators.conditions import ConditionSchema
from chartae.estimators.decoding import Generator
from chartae.estimators.parameters import kept_as_json
from chartae.models.persistence import read_run, write_run
from chartae.models.recipes import build_from, find
from chartae.parts.priors import priors
from chartae.training.precision import channels_last, choose_device
from chartae.training.readers import medium_of

if TYPE_CHECKING:
    from chartae.estimators.autoencoders import Autoencoder

__all__ = ["described", "keep", "kept", "load", "load_decoder", "save"]

FITTED = (
    "latent_dim_",
    "random_state_",
    "n_iter_",
    "best_epoch_",
    "n_features_in_",
    "offset_",
    "null_offset_",
    "summary_",
    "network_",
)
#: What reading a configuration raises if someone has changed it.
DAMAGE = (
    *(LookupError, TypeError, AttributeError, ValueError),
    *(AssertionError, ArithmeticError, MemoryError, RuntimeError),
)
#: What a folder holds, and what opens it.
HELD = {
    "model": "a model: open it with chartae.load",
    "captioner": "a captioner: open it with Captioner.load, or use it by chartae caption",
    "words": "words: open it with WordEmbedding.load",
}
DECODER = ("likelihood.", "prior.", "fitted_prior.", "condition.", "space.", "medium.")


def save(
    estimator: Any, path: str | os.PathLike[str], *, overwrite: bool = False, decoder_only: bool = False
) -> Path:
    """Write a fitted estimator, or its decoder alone.

    Parameters
    ----------
    estimator : object
        Fitted.
    path : str or path-like
        The folder.
    overwrite : bool
        Replace a run folder that is there.
    decoder_only : bool
        Leave the encoder out.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    PlanError
        If it has no decoder, which alone is to be written.
    RunFolderError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> from chartae.estimators.runs import save
    >>> ae = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(p.name for p in save(ae, folder + "/run").iterdir())
    ['config.json', 'history.jsonl', 'model.safetensors']
    """
    config, tensors = described(estimator)
    if decoder_only:
        if config["silent"]:
            raise PlanError("this model has no decoder to export: use save, or fit with training='joint'")
        config["content"] = "decoder"
        tensors = {name: t for name, t in tensors.items() if name.startswith(DECODER)}
    return write_run(path, config, tensors, estimator.history_, overwrite=overwrite)


def described(estimator: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Put all that fitting has learned, or is about to learn, into JSON values and tensors.

    Parameters
    ----------
    estimator : object
        Whose model is built.

    Returns
    -------
    config : dict
        JSON values.
    tensors : dict of str to Tensor
        Each of any shape: weights, units, and which rows were held out.

    Raises
    ------
    PlanError
        If modules of the user's have a state that is no tensor.

    Examples
    --------
    >>> import numpy as np, chartae as ct
    >>> from chartae.estimators.runs import described
    >>> config, tensors = described(ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20)))
    >>> config["blueprint"]["recipe"], tensors["validation_rows"]
    ('ae', tensor([], dtype=torch.int64))
    """
    from chartae.estimators import autoencoders

    model = estimator.model_
    # A subclass of the user's is kept as what it is one of: its code is not in the folder.
    kind = next(c for c in type(estimator).__mro__ if getattr(autoencoders, c.__name__, None) is c)
    given = {name: getattr(estimator, name) for name in kind._get_param_names()}
    config = {
        "content": "model",
        "estimator": {
            "class": kind.__name__,
            "parameters": kept_as_json(given, unless=("network", "random_state")),
        },
        "blueprint": estimator.blueprint_,
        "space": estimator.space_.config(),
        "condition": estimator.condition_.config(),
        "medium": None if estimator.medium_ is None else estimator.medium_.config(),
        "fitted_prior": None if model.fitted_prior is None else _description(model.fitted_prior),
        "silent": model.silent,  # which no blueprint tells
        "fitted": {name: getattr(estimator, name) for name in FITTED},
        "feature_names": list(map(str, getattr(estimator, "feature_names_in_", []))) or None,
        "environment": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
        },
    }
    tensors = dict(model.state_dict())
    if model.prior is not None:
        taken = model.prior.taken(model.posterior.plain)
        tensors |= {f"prior.{name}": value for name, value in taken.items()}
    odd = next((name for name, value in tensors.items() if not isinstance(value, torch.Tensor)), None)
    if odd is not None:
        raise PlanError(
            f"network= keeps {odd!r} in its state, which is no tensor and cannot be kept in a run folder: "
            "make it a buffer"
        )
    if estimator.medium_ is not None:
        tensors |= {f"medium.{name}": t for name, t in estimator.medium_.tensors().items()}
    tensors["validation_rows"] = torch.from_numpy(estimator.validation_rows_)
    if estimator.codes_ is not None:
        tensors["codes"] = torch.from_numpy(estimator.codes_)
    return config, tensors


def _description(prior: Prior) -> Any:
    """What a fitted prior is built from again, as JSON values."""
    if not isinstance(prior, Density):
        return next(name for name in priors if priors[name] is type(prior))
    return {
        "density": next(name for name in densities if densities[name] is type(prior)),
        "parameters": kept_as_json(prior.parameters_),
        "held_out": prior.held_out,
        "held_out_se": prior.held_out_se,
    }


def _fitted_prior(described: Any, latent_dim: int) -> Prior:
    """Build what :func:`_description` describes, without its weights."""
    if described == "fitted-normal":  # as it was called before there were others
        return densities["normal"](latent_dim)
    if isinstance(described, str):
        return priors[described](latent_dim, 0)
    density = densities[described["density"]](latent_dim, **described["parameters"])
    held_out = described["held_out"], described["held_out_se"]
    if not all(value is None or isinstance(value, float) for value in held_out):
        raise ValueError("held_out is no number")
    density.held_out, density.held_out_se = held_out
    return density


def load(path: str | os.PathLike[str], *, device: str = "auto", network: Any = None) -> Autoencoder:
    """Open a run folder; nothing in it is executed.

    Parameters
    ----------
    path : str or path-like
        The folder.
    device : str
        Where the model goes; a run from a GPU opens on a CPU.
    network : pair of nn.Module, optional
        Encoder and decoder, for a run that was fitted with modules of yours.

    Returns
    -------
    estimator
        Of the class that was saved, fitted.

    Raises
    ------
    RunFolderError
        If the folder is not a run, is broken, or needs modules of yours.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> ae = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ct.load(ae.save(folder + "/run")).latent_dim_
    2
    """
    from chartae.estimators import autoencoders

    config, tensors, history = read_run(path)
    if config.get("content") != "model":
        raise RunFolderError(f"{path} holds {_held(config)}")
    with reading(path):
        saved = config["estimator"]
        if saved["class"] not in autoencoders.__all__:
            raise RunFolderError(f"{path}: unknown estimator {saved['class']!r}: was config.json changed?")
        estimator = getattr(autoencoders, saved["class"])(**saved["parameters"])
        rows, codes = tensors.pop("validation_rows"), tensors.pop("codes", None)
        _fill(estimator, path, config, tensors, history, network)
        if codes is not None and (codes.dim() != 2 or codes.shape[1] != estimator.model_.latent_dim):
            raise ValueError("its codes have another width than latent_dim")
    if network is not None:
        estimator.network = network
    estimator.validation_rows_, estimator.codes_ = rows.numpy(), None if codes is None else codes.numpy()
    estimator.model_.to(choose_device(device))
    return estimator


def load_decoder(path: str | os.PathLike[str], *, device: str = "auto", network: Any = None) -> Generator:
    """Open what :meth:`export_decoder` wrote: a generator that has no encoder.

    Parameters
    ----------
    path : str or path-like
        The folder; a whole run folder will do as well.
    device : str
        Where the model goes.
    network : nn.Module, optional
        The decoder, for a run that was fitted with modules of yours.

    Returns
    -------
    Generator
        With ``sample`` and ``inverse_transform``, and what an estimator knows of its data and its fit.

    Raises
    ------
    RunFolderError
        If the folder is not a run, is broken, needs a module of yours, or holds a model without a decoder.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> ae = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ct.load_decoder(ae.export_decoder(folder + "/decoder")).sample(3).shape
    (3, 20)
    """
    config, tensors, history = read_run(path)
    if config.get("silent"):
        raise RunFolderError(f"{path} holds a model without a decoder: open it with chartae.load")
    tensors = {name: t for name, t in tensors.items() if name.startswith(DECODER)}
    generator = Generator()
    with reading(path):
        pair = None if network is None else (_NoEncoder(), network)
        _fill(generator, path, config, tensors, history, pair, decoder_only=True)
    generator.model_.to(choose_device(device))
    return generator


def keep(
    estimator: Any,
    path: str | os.PathLike[str],
    content: str,
    facts: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    *,
    yours: Collection[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a fitted estimator of another kind than those of data.

    Parameters
    ----------
    estimator : object
        With parameters, ``history_`` and ``random_state_``.
    path : str or path-like
        The folder.
    content : str
        What it holds.
    facts : Mapping
        JSON values that :func:`kept` is to find, beside the parameters.
    tensors : Mapping of str to Tensor
        Each of any shape.
    yours : collection of str
        Parameters of which a value that is no JSON is left out.
    overwrite : bool
        Replace a run folder that is there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunFolderError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from chartae import WordEmbedding
    >>> from chartae.estimators.runs import keep, kept
    >>> words = WordEmbedding(latent_dim=2, max_epochs=1, random_state=0).fit(["red fox", "red car"] * 9)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = keep(words, folder + "/run", "words", {"answer": 42}, {})
    ...     with kept(WordEmbedding, path, "words") as (made, config, tensors):
    ...         made.latent_dim, config["answer"]
    (2, 42)
    """
    check_is_fitted(estimator)
    config = {
        "content": content,
        "parameters": kept_as_json(estimator.get_params(deep=False), unless=("random_state", *yours)),
        "random_state": estimator.random_state_,
        **facts,
    }
    return write_run(path, config, tensors, estimator.history_, overwrite=overwrite)


@contextmanager
def kept(
    kind: type, path: str | os.PathLike[str], content: str, **given: Any
) -> Iterator[tuple[Any, dict[str, Any], dict[str, torch.Tensor]]]:
    """Open what :func:`keep` wrote; what is raised meanwhile says that the folder is damaged.

    Parameters
    ----------
    kind : type
        Of the estimator.
    path : str or path-like
        The folder.
    content : str
        What it must hold.
    **given : object
        Parameters in place of those that are kept.

    Yields
    ------
    tuple
        The estimator, which has its parameters, ``history_`` and ``random_state_``; the JSON values; and the
        tensors, each of any shape.

    Raises
    ------
    RunFolderError
        If the folder holds something else, or is broken.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> from chartae.estimators.runs import kept
    >>> ae = ct.AE(latent_dim=2, max_epochs=1, random_state=0).fit(np.eye(20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with kept(ct.WordEmbedding, ae.save(folder + "/run"), "words"):
    ...         pass
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: ... holds a model: open it with chartae.load
    """
    config, tensors, history = read_run(path)
    if config.get("content") != content:
        raise RunFolderError(f"{path} holds {_held(config)}")
    with reading(path):
        made = kind(**{**config["parameters"], **given})
        made.history_, made.random_state_ = history, config["random_state"]
        yield made, config, tensors


def _held(config: Mapping[str, Any]) -> str:
    return HELD.get(config.get("content", ""), "a decoder alone: open it with load_decoder")


class _NoEncoder(nn.Module):
    """Stands where a recipe wants an encoder, and is thrown away."""

    def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return x.flatten(1)[:, :1]


def _fill(
    fitted: Any,
    path: Any,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    history: list[dict[str, Any]],
    network: Any,
    decoder_only: bool = False,
) -> None:
    """Give an estimator, or a generator, all that fitting it had learned."""
    mine = [name for name in tensors if name.startswith("medium.")]
    own = {name.removeprefix("medium."): tensors.pop(name) for name in mine}
    fitted.medium_ = None if config["medium"] is None else medium_of(config["medium"], own)
    fitted.model_, fitted.condition_ = _model(path, config, tensors, network, decoder_only)
    fitted.space_, fitted.blueprint_, fitted.history_ = fitted.model_.space, config["blueprint"], history
    fitted.schema_, fitted.gaps_ = fitted.space_.schema, fitted.space_.gaps
    for name in FITTED:
        setattr(fitted, name, config["fitted"][name])
    if not min(1, len(history)) <= fitted.best_epoch_ <= fitted.n_iter_ == len(history):
        raise ValueError("history.jsonl has another number of epochs than the fit")
    if config["feature_names"] is not None:
        names = np.array(config["feature_names"], dtype=object)
        if names.shape != (fitted.n_features_in_,):
            raise ValueError("feature_names has another length than n_features_in_")
        fitted.feature_names_in_ = names


@contextmanager
def reading(path: Any) -> Iterator[None]:
    """Say of whatever is raised that a configuration has been changed.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Yields
    ------
    None
        For as long as it is read.

    Raises
    ------
    RunFolderError
        In place of what was raised.

    Examples
    --------
    >>> from chartae.estimators.runs import reading
    >>> with reading("runs/a"):
    ...     {}["space"]
    Traceback (most recent call last):
    ...
    chartae.core.errors.RunFolderError: runs/a: config.json is damaged ('space'): restore it, or fit again
    """
    try:
        yield
    except (RunFolderError, PackageError):
        raise
    except DAMAGE as error:
        raise damaged(path, error) from None


def damaged(path: Any, error: Exception) -> RunFolderError:
    """Say that a configuration has been changed.

    Parameters
    ----------
    path : str or path-like
        The folder.
    error : Exception
        What reading it has raised.

    Returns
    -------
    RunFolderError
        In one line.

    Examples
    --------
    >>> from chartae.estimators.runs import damaged
    >>> str(damaged("runs/a", ValueError("no such space")))
    'runs/a: config.json is damaged (no such space): restore it, or fit again'
    """
    reason = one_line(error, 300)
    return RunFolderError(f"{path}: config.json is damaged ({reason}): restore it, or fit again")


def _model(
    path: Any,
    config: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    network: Any,
    decoder_only: bool = False,
) -> tuple[Any, ConditionSchema]:
    space = Space.from_config(config["space"])
    try:
        find(config["blueprint"]["recipe"])
    except ChartaeError as error:
        raise RunFolderError(f"{path}: {error}; a recipe of yours is imported first") from None
    yours = config["fitted"]["network_"] == "yours"
    if yours and network is None:
        raise RunFolderError(f"{path} was fitted with modules of yours: pass them as network=")
    if not yours and network is not None:
        raise RunFolderError(
            f"{path} was fitted with the network {config['fitted']['network_']!r}: leave network out"
        )
    try:
        # Made with the units it was fitted in: a fixed noise in the input's units depends on them.
        space.load_state_dict({name: tensors[f"space.{name}"] for name in ("center", "scale")})
        with torch.random.fork_rng(devices=[]):
            plan = build_from(config["blueprint"], space, network if yours else config["fitted"]["network_"])
        model: Any = plan.model
        if config.get("silent"):
            model.silence()
        if config["fitted_prior"] is not None:
            model.fitted_prior = _fitted_prior(config["fitted_prior"], model.latent_dim)
        if decoder_only:
            model.posterior = None
        model.load_state_dict(tensors)
    except (RuntimeError, ChartaeError) as error:
        reason = one_line(error, 300)
        raise RunFolderError(f"{path}: the weights do not fit the configuration ({reason})") from None
    # Laid out as in training: another layout adds up in another order, and the last digits differ.
    return channels_last(model.eval()), ConditionSchema.from_config(config["condition"])
