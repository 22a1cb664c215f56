"""Which cell to take, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chartae.core.errors import TrainingError
from chartae.estimators.sweeps.cells import Cell

__all__ = ["recommended"]

ERRORS = 2.0  # standard errors within which a bound counts as good as the best
CAVEAT = (
    "The rule knows one fit of each cell, and not how much another seed would change; the rows have also "
    "chosen each fit's epoch. It asks for the likelihood of new rows alone, which beta 1 is made for: "
    "where codes are to be few and independent, a larger beta may suit at the price that the table shows."
)
POINTS = (
    "Codes without a density have no rate: sizes are compared by distortion alone, which says how well rows "
    "come back and nothing of how well new ones are made."
)


def recommended(cells: Sequence[Cell]) -> tuple[Cell, str, tuple[str, ...]]:
    """Take the smallest latent size that is as good as the best, as far as the rows can tell.

    As good is a cell whose rows are behind those of the best by a mean within two of its standard errors;
    rows are paired, since all cells see the same ones. Of several such cells of that size the one with the
    best mean is taken.

    Parameters
    ----------
    cells : sequence of Cell
        Of a sweep; one that failed is left out.

    Returns
    -------
    cell : Cell
        Which to take.
    reason : str
        Why.
    notes : tuple of str
        What the rule does not know.

    Raises
    ------
    TrainingError
        If all of them failed.

    References
    ----------
    Hastie, Tibshirani and Friedman 2009, "The elements of statistical learning", section 7.10 (the simplest
    model within an error of the best).

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from chartae.estimators.sweeps import Cell, recommended
    >>> rows = np.random.default_rng(0).normal(size=100)
    >>> nats = {1: rows - 3, 2: rows - 0.01 * rows**2, 4: rows}
    >>> cells = [Cell(d, 1.0, "global", Path(), rate=1.0, bound=v.mean(), nats=v) for d, v in nats.items()]
    >>> recommended(cells)[0].latent_dim
    4
    """
    done = [cell for cell in cells if not cell.failed]
    if not done:
        raise TrainingError(f"every fit failed ({cells[0].failed}): scale the data, or lower learning_rate")
    best = best_of(done)
    gaps = [(cell, *behind_of(best, cell)) for cell in done]
    good = [cell for cell, gap, error in gaps if gap <= ERRORS * error or cell is best]
    d = min(cell.latent_dim for cell in good)
    chosen = best_of([cell for cell in good if cell.latent_dim == d])
    rated = chosen.rate is not None
    what = "bound on log p(x)" if rated else "distortion"
    sign = 1 if rated else -1
    mean, top = (sign * float(cell.nats.mean()) for cell in (chosen, best))
    rows = f"paired over {len(best.nats):,} held-out rows"
    if chosen is best:
        smaller = any(cell.latent_dim < d for cell in done)
        why = f"its {what} is the best, {top:.2f} nats a row"
        why += f", and no smaller size is within two standard errors of it ({rows})" if smaller else ""
    else:
        gap, error = behind_of(best, chosen)
        why = (
            f"it is the smallest size whose {what} is within two standard errors of the best: {mean:.2f} "
            f"nats a row against {top:.2f} ({best.name}), {gap:.2f} ± {error:.2f} behind, {rows}"
        )
    notes = [CAVEAT if rated else POINTS + " " + CAVEAT.partition(" It asks")[0]]
    sizes, betas = ({getattr(cell, name) for cell in done} for name in ("latent_dim", "beta"))
    if len(sizes) > 1 and d == max(sizes):
        notes.append(f"{d} is the largest size of the grid: larger ones may be better still.")
    if len(betas) > 1 and chosen.beta in (min(betas), max(betas)):
        notes.append(f"beta {chosen.beta:g} is at the end of the grid: try further ones.")
    cut = sum(cell.cut for cell in done)
    if cut:
        notes.append(
            f"{cut} of {len(done)} fits were still improving when their epochs were over: raise max_epochs."
        )
    notes += [f"{cell.describe()}." for cell in cells if cell.failed]
    return chosen, f"Take {chosen.name}: {why}.", tuple(notes)


def best_of(cells: Sequence[Cell]) -> Cell:
    return max((cell for cell in cells if not cell.failed), key=lambda cell: float(cell.nats.mean()))


def behind_of(best: Cell, cell: Cell) -> tuple[float, float]:
    if cell.failed:
        return math.nan, math.nan
    gap = best.nats - cell.nats
    return float(gap.mean()), float(gap.std(ddof=1) / math.sqrt(len(gap)))
