"""What a head loses by labels, and bounds of items whose label is not known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from chartae.core.contracts import Batch, Objective, RawCondition, Term, Trace
from chartae.core.errors import PlanError

__all__ = ["Labels", "SummedLabels"]


class Labels(Objective):
    """Expected negative log-likelihood of what a head is told, ``E_q[-log p(y | z)]``, of rows that have it.

    With a weight and a recipe's own objective beside it, encoder and head are trained jointly; with β of a KL
    and no decoder it is the variational information bottleneck; alone it tunes an encoder to a target.

    Parameters
    ----------
    items : bool
        Whether the head reads items in place of codes: p(y | x).

    References
    ----------
    Alemi et al. 2017, arXiv:1612.00410, equation 17; joint: Kingma et al. 2014, arXiv:1406.5298, equation 9.

    Examples
    --------
    >>> from chartae.parts.objectives import KL, Labels
    >>> Labels() + 0.001 * KL()
    labels + 0.001 * kl
    """

    needs = frozenset({"head.log_prob", "posterior.reparameterized"})

    def __init__(self, items: bool = False) -> None:
        super().__init__()
        self.items = items

    def forward(self, trace: Trace) -> dict[str, Term]:
        head, z, y = _told(trace, self.items)
        y = y.reshape(len(y), -1)
        py, known = head(z), ~y.isnan()
        if trace.model.training:
            head.observe(py, y)
        # Filled before, masked after: the density of NaN has a gradient of NaN, masked or not.
        each = -trace.expect(py.log_prob(y.nan_to_num(), per_dim=True)) * known
        return {"labels": Term(each.sum() / known.any(1).sum().clamp_min(1))}

    def __repr__(self) -> str:
        return "labels"


class SummedLabels(Objective):
    """A bound of items whose label is the condition; where it is not known, it is summed out: M2.

    With the bound's cost J(x, y) of an item under a label, and the head's q(y | x), an item that has a label
    costs ``J(x, y) - log p(y)``, and one without ``Σ_y q(y | x) J(x, y) + KL(q(y | x) || p(y))``. Each term
    of the bound keeps its name and weight; that in p(y) is "label". In training some items without a label
    are taken under the null token instead, as often as others lose theirs: so it learns what they are like.

    Parameters
    ----------
    bound : Objective
        Minus a bound on log p(x | y), as terms of each row.
    shares : Tensor
        ``(m,)``, p(y).
    again : float
        How often training draws a row with a label for each time that it draws another: the terms of such a
        row count so much less, that p(x | y) be of all rows alike.

    Raises
    ------
    PlanError
        If the bound weighs what flows back to the codes.

    References
    ----------
    Kingma et al. 2014, arXiv:1406.5298, equations 6 to 8.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.objectives import Labels, SummedLabels, elbo
    >>> SummedLabels(elbo(), torch.tensor([0.5, 0.5])) + 10 * Labels(items=True)
    summed(nll + kl) + 10 * labels
    """

    log_shares: Tensor

    def __init__(self, bound: Objective, shares: Tensor, again: float = 1.0) -> None:
        super().__init__()
        if bound.alone:
            raise PlanError(
                f"labels cannot be summed out of {bound!r}, which {bound.alone}: use a bound with "
                "gradient='plain' that keeps all samples"
            )
        self.bound, self.again = bound, again
        self.register_buffer("log_shares", shares.log())
        self.needs = bound.needs | {"head.log_prob"}
        self.differentiates_networks = bound.differentiates_networks
        self.weighs_networks = bound.weighs_networks

    def forward(self, trace: Trace) -> dict[str, Term]:
        model, label = cast(Any, trace.model), _condition(trace)
        known = label >= 0
        terms = {name: _of_rows(name, term) for name, term in self.bound(trace).items()}
        terms["label"] = Term(-self.log_shares[label.clamp_min(0)] * known)
        open_ = (~known).nonzero()[:, 0]
        if model.training:
            kept = trace.noise.uniform((len(open_),), trace.batch.x) >= model.condition.dropout
            open_ = open_[kept]
        if len(open_):
            summed = self._summed(trace, open_)
            terms = {n: t._replace(rows=t.rows.index_copy(0, open_, summed[n])) for n, t in terms.items()}
        if model.training and self.again != 1:
            counts = torch.where(known, 1 / self.again, 1.0)
            counts = counts / counts.mean()
            terms = {name: term._replace(rows=counts * term.rows) for name, term in terms.items()}
        return terms

    def _summed(self, trace: Trace, open_: Tensor) -> dict[str, Tensor]:
        """Terms of rows that are taken under every label, averaged over q(y | x)."""
        m = len(self.log_shares)
        head, x = _head(trace), trace.batch.x[open_]
        log_q = head(x.flatten(1)[None]).logits[0, :, 0].log_softmax(-1).T
        # Many rows are evaluated at once, and are not to take m times that memory.
        labels = torch.arange(m, device=x.device).split(m if trace.model.training else 1)
        under = [self._under(trace, x, each) for each in labels]
        costs = {name: torch.cat([found[name] for found in under]) for name in under[0]}
        costs["label"] = log_q - self.log_shares[:, None]
        return {name: (log_q.exp() * cost).sum(0) for name, cost in costs.items()}

    def _under(self, trace: Trace, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Terms of all rows under each of some labels, ``(labels, rows)``."""
        model = cast(Any, trace.model)
        batch = Batch(torch.cat([x] * len(labels)), RawCondition(labels.repeat_interleave(len(x))))
        with _told_apart(model, model.condition):
            terms = self.bound(model.trace(batch, k=len(trace.log_lik), noise=trace.noise))
        return {name: term.rows.reshape(len(labels), -1) for name, term in terms.items()}

    @property
    def samples(self) -> int:  # type: ignore[override]
        """Posterior samples of a training pass: those of the bound."""
        return self.bound.samples

    def advance(self, epoch: float) -> None:
        self.bound.advance(epoch)

    @property
    def warmup(self) -> float:
        return self.bound.warmup

    def __repr__(self) -> str:
        return f"summed({self.bound!r})"


@contextmanager
def _told_apart(*modules: nn.Module) -> Iterator[None]:
    """Leave conditions as they are, and estimates, too: most labels of an item are not its own."""
    before = [module.training for module in modules]
    for module in modules:  # and not what is in them, which is trained
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


def _condition(trace: Trace) -> Tensor:
    """Labels as the condition has them, -1 where one is not known."""
    c = trace.batch.c
    if c is None or c.label is None:
        raise PlanError("labels to be summed out are missing: make them the condition")
    return c.label


def _of_rows(name: str, term: Term) -> Term:
    if term.loss is not None or term.rows.dim() != 1:
        raise PlanError(
            f"labels are summed out row by row, and {name!r} is of a batch as a whole: leave out free_bits, "
            "or use a recipe of nll + kl or iwae"
        )
    return term._replace(per_dim=None)


def _head(trace: Trace) -> Any:
    head = getattr(trace.model, "head", None)
    if head is None:
        raise PlanError("labels to learn from are missing: fit a head to them")
    return head


def _told(trace: Trace, items: bool) -> tuple[Any, Tensor, Tensor]:
    """The head, what it reads and what it is told."""
    head, y = _head(trace), trace.batch.y
    if y is None:
        raise PlanError("labels to learn from are missing: give the source its y")
    if items:
        return head, trace.batch.x.flatten(1)[None], y
    if len(trace.levels) != 1:
        raise PlanError("a head reads one code of each item, and this model has more: use another recipe")
    return head, trace.levels[0].z, y
