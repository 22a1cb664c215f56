"""The fits of a sweep, which go on where they were stopped."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from chartae.audits.evidence import ACTIVE
from chartae.core.arrays import checksum, is_streamed
from chartae.core.columns import is_streamed_table
from chartae.core.counts import count, is_count
from chartae.core.errors import DataError, PlanError, RunFolderError, TrainingError, one_line
from chartae.core.files import atomic
from chartae.core.noise import Noise
from chartae.core.registry import suggest
from chartae.estimators.autoencoders import Autoencoder
from chartae.estimators.checking import brings_items
from chartae.estimators.keeping import Keeping
from chartae.estimators.parameters import COMMON, kept_as_json
from chartae.estimators.runs import load
from chartae.estimators.sweeps.cells import CELLS, MEASURES, Cell
from chartae.estimators.sweeps.choice import recommended
from chartae.estimators.sweeps.results import FORMAT, RECORD, Sweep, finite, head_of
from chartae.models.persistence import config_of, is_unfinished
from chartae.models.recipes import find
from chartae.parts.objectives import KL, importance_bound
from chartae.training.readers import Dataset, read
from chartae.training.sources import Source

__all__ = ["sweep"]

BETAS = (0.5, 1.0, 2.0)  # the weight that the bound itself has, half of it and twice
ROWS = 4096  # held-out rows that cells are compared on, at most
SAMPLES = 64  # importance samples of each
#: What may differ when a sweep goes on: where, and what is said of it.
FREE = ("device", "verbose")
SWEPT = ("latent_dim", "noise")


def sweep(
    X: Any,
    y: Any = None,
    *,
    run: str | os.PathLike[str],
    recipe: str = "beta-vae",
    recipe_params: dict[str, Any] | None = None,
    latent_dims: Sequence[int] | None = None,
    betas: Sequence[float] | None = None,
    noises: Sequence[str | float] = ("global",),
    jobs: int = 1,
    random_state: int = 0,
    verbose: int = 0,
    **parameters: Any,
) -> Sweep:
    """Fit a recipe for each latent size, beta and noise, and recommend one of these cells.

    Each cell is a run folder below ``run``, fitted as ``Autoencoder(...).fit(X, y, run=...)`` would, with one
    thread, so that cells come out the same whatever the number of processes. All hold the same rows out,
    on which they are compared by the rule of :func:`chartae.estimators.sweeps.recommended`. What was
    interrupted, or killed, goes on by the same call: finished cells are not fitted again. A call with another
    grid adds to it, and gives the cells of its own.

    Parameters
    ----------
    X, y : object
        As in ``fit``.
    run : str or path-like
        The folder.
    recipe : str
        Which; :func:`chartae.recipes` lists them.
    recipe_params : dict or None
        Its own parameters, but for beta.
    latent_dims : sequence of int or None
        None: a half, one, two and four times an estimate of the data's intrinsic dimension, or the next size
        that the recipe takes.
    betas : sequence of float or None
        Values of the recipe's parameter of that name; None: 0.5, 1 and 2 where it is the weight of the KL
        term, and its own value elsewhere.
    noises : sequence of str or float
        Values of ``noise``.
    jobs : int
        How many processes fit at once.
    random_state : int
        Of every cell.
    verbose : int
        0 is silent; 1 says which cells are done.
    **parameters : object
        Of the estimator.

    Returns
    -------
    Sweep
        Cells, and which of them to take.

    Raises
    ------
    DataError
        If the data cannot be used, or too few rows are held out.
    PlanError
        If parameters do not fit together.
    RunFolderError
        If the folder holds something else, or a sweep of other data or with other parameters.

    References
    ----------
    Alemi et al. 2018, arXiv:1711.00464; Higgins et al. 2017, "beta-VAE".

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, chartae as ct
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 1)) @ rng.normal(size=(1, 6)) + 0.1 * rng.normal(size=(400, 6))
    >>> given = {"betas": (1,), "network": "linear", "learning_rate": 0.02}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = ct.sweep(X, run=folder + "/s", latent_dims=(1, 2), **given)
    ...     ct.load(found.recommended.run).latent_dim_
    1
    """
    home = Path(run)
    own = dict(recipe_params or {})
    X = read(X) if brings_items(X) else X
    _refuse_parameters(recipe, own, parameters)
    if not is_count(random_state, 0):
        raise PlanError(f"random_state={random_state!r}: all cells share one seed, a whole number")
    shared = {**parameters, "random_state": int(random_state), "verbose": 0}
    before = _record(home)
    probe = Autoencoder(recipe=recipe, recipe_params=own, **shared)
    with Keeping(None) as keeping:
        task = probe._prepare(X, y, keeping)
    if task.held_out is None:
        raise DataError(
            "too few rows are held out to compare cells by: give more rows or validation_fraction"
        )
    if verbose:
        print(probe.summary_, flush=True)
    sizes, weights, noises = _grid(probe, task.plan.objective, latent_dims, betas, noises)
    cells = [_empty(home, d, beta, noise) for d in sizes for noise in noises for beta in weights]
    _refuse_jobs(count(jobs, "jobs"), recipe, X)
    facts = {
        "recipe": recipe,
        "recipe_params": kept_as_json(own),
        "parameters": kept_as_json(
            {k: v for k, v in {**COMMON, **shared}.items() if k not in (*FREE, *SWEPT)}
        ),
        "data": {
            "rows": len(task.X),
            "shape": list(task.X.shape[1:]),
            "sum": checksum(task.X, *(task.raw or ())),
        },
        "held_out": min(ROWS, len(task.held_out)),
    }
    _refuse_other(home, before, facts)
    work = []
    for cell in cells:
        given = {**shared, "latent_dim": cell.latent_dim, "noise": cell.noise}
        estimator = Autoencoder(
            recipe=recipe, recipe_params=own if cell.beta is None else own | {"beta": cell.beta}, **given
        )
        if not (cell.run / MEASURES).is_file() and config_of(cell.run) is None:
            with Keeping(None) as keeping:  # what cannot be fitted had better fail before hours of training
                Autoencoder(**estimator.get_params())._prepare(X, y, keeping)
        work.append((cell, estimator))
    if before is None:
        _write(home, head_of(facts))
    done: dict[str, Cell] = {}
    with _ending(), contextlib.closing(_fitted(work, X, y, jobs, recipe)) as results:
        for cell in results:
            done[cell.folder] = cell
            if verbose:
                print(f"cell {len(done)}/{len(cells)}  {cell.describe()}", file=sys.stderr, flush=True)
    found = tuple(done[cell.folder] for cell in cells)
    chosen, reason, notes = recommended(found)
    result = Sweep(home, found, chosen, reason, notes, facts)
    _write(home, result.to_dict())
    return result


def _empty(home: Path, d: int, beta: float | None, noise: str | float) -> Cell:
    cell = Cell(d, beta, noise, home)
    return Cell(d, beta, noise, home / CELLS / cell.folder)


def _refuse_parameters(recipe: str, own: dict[str, Any], parameters: dict[str, Any]) -> None:
    entry = find(recipe)
    for name, instead in (("latent_dim", "latent_dims"), ("noise", "noises")):
        if name in parameters:
            raise PlanError(f"{name} is what a sweep varies: give values of it as {instead}=")
    unknown = next((name for name in parameters if name not in COMMON), None)
    if unknown is not None:
        hint = " (recipe_params= takes those of the recipe)" if unknown in entry.parameters else ""
        raise PlanError(f"a sweep has no parameter {unknown!r}{hint}: {suggest(unknown, COMMON)}")
    if "beta" in own:
        raise PlanError("beta is what a sweep varies: give values of it as betas=")
    if parameters.get("max_time") is not None:
        raise PlanError("max_time cuts fits off, and cells are compared at their ends: use max_epochs")
    if not isinstance(parameters.get("network", "auto"), str):
        raise PlanError("modules of yours are of one latent size, and a sweep varies it: name a network")


def _grid(
    probe: Any, objective: Any, latent_dims: Any, betas: Any, noises: Any
) -> tuple[list[int], list[float | None], list[Any]]:
    """Sort out what is to be fitted."""
    (recipe, own), features, d = probe._recipe(), math.prod(probe.space_.shape), probe.latent_dim_
    entry = find(recipe)
    sizes = (
        (math.ceil(d / 2), d, 2 * d, 4 * d) if latent_dims is None else _several("latent_dims", latent_dims)
    )
    if not all(is_count(d, 1) for d in sizes):
        raise PlanError(f"latent_dims={list(sizes)}: give whole numbers from 1")
    if latent_dims is None:
        sizes = [entry.size(min(d, features), own) for d in sizes]
    weighted = "beta" in entry.parameters
    if betas is None:
        weighted = weighted and _weighs_kl(objective, entry.parameters["beta"])
    elif not weighted:
        raise PlanError(f"recipe {recipe!r} has no beta: leave betas out, or use beta-vae")
    weights = (BETAS if betas is None else _several("betas", betas)) if weighted else [None]
    noises = _several("noises", noises)
    if not all(isinstance(n, str | int | float) and not isinstance(n, bool) for n in noises):
        raise PlanError(f"noises={noises}: give 'global', 'feature', 'item' or numbers above 0")
    if weighted and not all(_is_weight(b) for b in weights):
        raise PlanError(f"betas={list(weights)}: give numbers from 0")
    kinds = [n if isinstance(n, str) else float(n) for n in noises]
    return (
        sorted({int(d) for d in sizes}),
        sorted({None if b is None else float(b) for b in weights}),  # type: ignore[type-var]
        list(dict.fromkeys(kinds)),
    )


def _weighs_kl(objective: Any, beta: float) -> bool:
    """Whether beta is the weight of the KL term, and not of another."""
    parts, factors = getattr(objective, "parts", [objective]), getattr(objective, "factors", [1.0])
    return any(isinstance(part, KL) and factor == beta for part, factor in zip(parts, factors, strict=True))


def _several(name: str, values: Any) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise PlanError(f"{name}={values!r}: give a list of values")
    found = [v.item() if isinstance(v, np.generic) else v for v in values]
    if not found:
        raise PlanError(f"{name} is empty: leave it out, or give values")
    return found


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _refuse_jobs(jobs: int, recipe: str, X: Any) -> None:
    """Refuse what other processes would not see."""
    if jobs == 1:
        return
    if find(recipe).make.__module__ == "__main__":
        raise PlanError(f"recipe {recipe!r} is of this program, which others do not see: use jobs=1")
    items = X.X if isinstance(X, Dataset) else X
    if is_streamed(items) or is_streamed_table(items):
        raise PlanError("what is larger than memory is read by one process: use jobs=1")


def _record(home: Path) -> dict[str, Any] | None:
    """Read what a folder says of the sweep in it."""
    try:
        with open(home / RECORD, "rb") as file:
            found = json.load(file)
        if found["format"] == FORMAT and isinstance(found["facts"], dict):
            return found
    except (OSError, ValueError, LookupError, TypeError):
        pass
    if home.exists() and not home.is_dir():
        raise RunFolderError(f"{home} is a file, and a sweep is a folder: choose another name")
    if home.is_dir() and any(home.iterdir()):
        raise RunFolderError(f"{home} is not empty and holds no sweep: choose another folder")
    return None


def _refuse_other(home: Path, before: dict[str, Any] | None, facts: dict[str, Any]) -> None:
    """Refuse to go on with something else."""
    if before is None:
        return
    began = before["facts"]
    if began.get("data") != facts["data"]:
        raise RunFolderError(f"{home} holds a sweep of other data: choose another folder")
    if began.get("recipe") != facts["recipe"]:
        _refuse(home, "recipe", began.get("recipe"), facts["recipe"])
    for group in ("recipe_params", "parameters"):
        one, two = (dict(each.get(group) or {}) for each in (began, facts))
        for name in sorted({*one, *two}):
            if one.get(name) != two.get(name):
                _refuse(home, name, one.get(name), two.get(name))


def _refuse(home: Path, name: str, began: Any, given: Any) -> NoReturn:
    raise RunFolderError(
        f"{home} was begun with {name}={began!r}, not {name}={given!r}: go on with the same, or choose "
        "another folder"
    )


def _write(home: Path, values: dict[str, Any]) -> None:
    with atomic(home / RECORD) as file:
        file.write(json.dumps(values, indent=1, ensure_ascii=False).encode())


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """Take SIGTERM as a reason to leave in good order, so that no process goes on alone."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _fitted(work: list[tuple[Cell, Autoencoder]], X: Any, y: Any, jobs: int, recipe: str) -> Generator[Cell]:
    """Give cells as they are done, here or by several processes."""
    if jobs == 1:
        for cell, estimator in work:
            yield _one(cell, estimator, X, y)
        return
    from sklearn.utils.parallel import Parallel, delayed

    module = find(recipe).make.__module__
    # Processes of loky start afresh, without what a fork would copy in the middle of a thread's work.
    several = Parallel(
        n_jobs=jobs, backend="loky", batch_size=1, pre_dispatch=jobs, return_as="generator_unordered"
    )
    yield from several(delayed(_one)(cell, estimator, X, y, module) for cell, estimator in work)


def _one(cell: Cell, estimator: Autoencoder, X: Any, y: Any, module: str | None = None) -> Cell:
    """Fit a cell, or go on with it, and measure it, unless that is done."""
    if module is not None:
        importlib.import_module(module)  # which registers the recipe
    kept = cell.run / MEASURES
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        values = json.loads(kept.read_bytes())
        nats = np.array(values.pop("nats"), dtype=np.float64)
        return Cell(cell.latent_dim, cell.beta, cell.noise, cell.run, **values, nats=nats)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in another number the last digits differ
    try:
        with threadpool_limits(1):
            if config_of(cell.run) is not None and not is_unfinished(cell.run):
                estimator = load(cell.run, device=estimator.device)
            else:
                estimator.fit(X, y, run=cell.run, resume=True)
            values = _measured(estimator, X, y)
    except TrainingError as error:
        return Cell(cell.latent_dim, cell.beta, cell.noise, cell.run, failed=one_line(error))
    finally:
        torch.set_num_threads(threads)
    nats = values.pop("nats")
    with atomic(kept) as file:
        file.write(json.dumps({**finite(values), "nats": nats.tolist()}).encode())
    return Cell(cell.latent_dim, cell.beta, cell.noise, cell.run, **values, nats=nats)


def _is_rated(model: Any) -> bool:
    """Whether codes have densities, given x and before, and so a KL divergence."""
    prior = model.prior
    return prior is not None and "log_prob" in prior.offers and "density" in model.posterior.offers


@torch.inference_mode()
def _measured(estimator: Any, X: Any, y: Any) -> dict[str, Any]:
    """Say what a model is worth on the rows that its fit has held out."""
    items, labels = (X.X, X.y) if isinstance(X, Dataset) else (X, None)
    y = labels if y is None else y
    y = items.labels if y is None and is_streamed(items) else y
    data = estimator._check(items, reset=False)
    raw = estimator._raw(y if estimator.condition_.parameters is not None else None, len(data))
    model, seed = estimator.model_, int(estimator.random_state_)
    rows = estimator.validation_rows_
    if len(rows) > ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, ROWS, replace=False))
    source = Source(data, model.space, raw, device=estimator._device).subset(rows)
    rated = _is_rated(model)
    noise, divergence, found = Noise(seed), KL(), []
    for batch in source.batches(estimator._rows_at_once(SAMPLES)):
        trace = model.trace(batch, k=SAMPLES if rated else 1, noise=noise)
        code = model.posterior.plain(batch.x, trace.c).point()
        px = model.likelihood(code[None], trace.c)
        squares = (model.space.from_model(px.point()[0]) - model.space.from_model(batch.x)).double().square()
        part = {"distortion": -trace.expect(trace.log_lik), "squares": squares.flatten(1), "code": code}
        if rated:
            part["rate"] = divergence(trace)["kl"].rows
            part["bound"] = importance_bound(trace.log_joint_ratio)
            spread = getattr(trace.levels[0].p, "std", None)
            part["code"] = code / spread() if spread is not None else code * math.nan
        found.append({name: value.double().cpu().numpy() for name, value in part.items()})
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    means = {name: float(whole[name].mean()) for name in ("rate", "distortion", "bound") if name in whole}
    nats = whole["bound"] if rated else -whole["distortion"]
    if not np.isfinite(nats).all():
        raise TrainingError(f"row {rows[~np.isfinite(nats)][0]} (from 0) has no finite score")
    mixed = model.space.likelihood == "columns"
    active = None
    if rated and np.isfinite(whole["code"]).all() and len(rows) > 1:
        covariance = np.atleast_2d(np.cov(whole["code"].T))
        active = int((np.linalg.eigvalsh(covariance) > ACTIVE).sum())
    return {
        "rate": means.get("rate"),
        "distortion": means["distortion"],
        "rmse": None if mixed else math.sqrt(float(np.nanmean(whole["squares"]))),
        "elbo": -(means["rate"] + means["distortion"]) if rated else None,
        "bound": means.get("bound"),
        "active": active,
        "epochs": estimator.n_iter_,
        "seconds": float(sum(row["seconds"] for row in estimator.history_)),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "cut": estimator.n_iter_ == estimator.max_epochs and estimator.best_epoch_ > 0.9 * estimator.n_iter_,
        "nats": nats,
    }
