"""Parts for data whose values differ in kind, or are missing: tables first of all."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from chartae.core.contracts import Distribution, Draw, Posterior
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space, Units
from chartae.parts.distributions import Categorical
from chartae.parts.likelihoods import NetworkLikelihood, likelihoods

if TYPE_CHECKING:
    from chartae.parts.units import Facts

__all__ = ["ColumnsLikelihood", "Inputs", "Joint", "Prepared"]


class Joint(Distribution):
    """Independent groups of values, each with a distribution of its own.

    Parameters
    ----------
    parts : list of Distribution
        Of event shape ``(g,)`` each.
    order : Tensor
        ``(d,)``, the places of an event that the parts are of, one part after the other.
    back : Tensor or None
        ``(d,)``, the inverse of that order, where the caller has it.

    Examples
    --------
    >>> import torch
    >>> from chartae.parts.distributions import Bernoulli, DiagonalNormal
    >>> from chartae.parts.tables import Joint
    >>> numbers = DiagonalNormal(torch.zeros(5, 2), torch.zeros(5, 2))
    >>> joint = Joint([numbers, Bernoulli(torch.zeros(5, 1))], order=torch.tensor([0, 2, 1]))
    >>> joint.event_shape, joint.log_prob(torch.zeros(5, 3), per_dim=True)[0]
    (torch.Size([3]), tensor([-0.9189, -0.6931, -0.9189]))
    """

    offers = frozenset({"log_prob", "point"})

    def __init__(self, parts: list[Distribution], order: Tensor, back: Tensor | None = None) -> None:
        self.parts, self.order, self.back = parts, order, order.argsort() if back is None else back

    @property
    def batch_shape(self) -> torch.Size:
        return self.parts[0].batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return self.order.shape

    def apart(self, v: Tensor) -> tuple[Tensor, ...]:
        """Give each part what is its own.

        Parameters
        ----------
        v : Tensor
            ``(..., d)``.

        Returns
        -------
        tuple of Tensor
            ``(..., g)``, one for each part.
        """
        return v[..., self.order].split([part.event_shape.numel() for part in self.parts], -1)

    def draw(self, k: int, noise: Noise) -> Draw:
        return Draw(torch.cat([part.draw(k, noise).z for part in self.parts], -1)[..., self.back])

    def log_prob(self, v: Tensor, *, per_dim: bool = False) -> Tensor:
        rows = [
            part.log_prob(mine, per_dim=per_dim) for part, mine in zip(self.parts, self.apart(v), strict=True)
        ]
        return torch.cat(rows, -1)[..., self.back] if per_dim else functools.reduce(torch.add, rows)

    def point(self) -> Tensor:
        return torch.cat([part.point() for part in self.parts], -1)[..., self.back]


@likelihoods.register("columns")
class ColumnsLikelihood(NetworkLikelihood):
    """Each column of a table has the likelihood that its schema names; they share one network.

    Parameters
    ----------
    network : nn.Module
        From ``(n, d)`` to ``out_shape(space, noise)``.
    space : Space
        Of the table, with its schema.
    noise : {"global", "feature", "item"}
        Of the columns that have a noise; each of them has its own.

    References
    ----------
    Nazábal et al. 2020, arXiv:1807.03653 (variational autoencoders of heterogeneous, incomplete data).

    Examples
    --------
    >>> import pandas as pd, torch
    >>> from chartae.core.columns import Schema
    >>> from chartae.parts.tables import ColumnsLikelihood
    >>> from chartae.parts.units import infer_space
    >>> table = pd.DataFrame({"size": [1.5, 2.0, 0.5], "color": ["red", "blue", "red"]})
    >>> schema = Schema.learn(table)
    >>> space = infer_space(schema.encode(table), schema=schema)
    >>> network = torch.nn.Linear(2, *ColumnsLikelihood.out_shape(space))
    >>> ColumnsLikelihood.of(space, network)(torch.zeros(1, 3, 2)).event_shape
    torch.Size([2])
    """

    has_noise = True
    order: Tensor
    back: Tensor

    def __init__(self, network: nn.Module, space: Space, noise: Any = None) -> None:
        super().__init__(network, space.model_shape)
        groups = _groups(space)
        self.parts = nn.ModuleList(kind.of(part, nn.Identity(), _each(noise)) for kind, _, part in groups)
        self.widths = [kind.out_shape(part, _each(noise))[0] for kind, _, part in groups]
        order = torch.tensor([place for _, places, _ in groups for place in places])
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.estimated = any(part.estimated for part in self.parts)
        self.gaps = space.gaps

    @classmethod
    def of(cls, space: Space, network: nn.Module, noise: Any = None, hide: float = 0.0) -> ColumnsLikelihood:
        return cls(network, space, noise)

    @classmethod
    def out_shape(cls, space: Space, noise: Any = None) -> tuple[int, ...]:
        return (sum(kind.out_shape(part, _each(noise))[0] for kind, _, part in _groups(space)),)

    @staticmethod
    def units(facts: Facts, scale: str = "auto") -> Units:
        """Give each column the units that its own likelihood wants.

        Parameters
        ----------
        facts : Facts
            What the table looks like.
        scale : str
            No effect: columns of a table have units of their own.

        Returns
        -------
        Units
            Of all columns.

        Raises
        ------
        PlanError
            If the data are no table.
        """
        if facts.schema is None:
            raise PlanError(
                "likelihood='columns' is for a table as a whole: pass a DataFrame, or use another"
            )
        center, scales = np.zeros(len(facts.schema.columns)), np.ones(len(facts.schema.columns))
        for i, column in enumerate(facts.schema.columns):
            if column.categories is None:
                units = likelihoods[column.likelihood].units(facts.of_column(i), "global")
                center[i], scales[i] = np.ravel(units.center)[0], np.ravel(units.scale)[0]
        return Units(center, scales)

    def log_volume(self, space: Space) -> Tensor:
        density = [bool(part.continuous) for part in self.parts for _ in range(part.shape[0])]  # type: ignore
        return super().log_volume(space) * torch.tensor(density, device=space.scale.device)[self.back]

    def resting(self, x: Tensor) -> Tensor | None:
        own = x[:, self.order].split([part.shape[0] for part in self.parts], 1)  # type: ignore[index]
        each = [part.resting(of) for part, of in zip(self.parts, own, strict=True)]  # type: ignore[operator]
        return torch.cat(
            [x.new_zeros(n) if rest is None else rest for rest, n in zip(each, self.widths, strict=True)]
        )

    def distribution(self, out: Tensor) -> Distribution:
        split = out.split(self.widths, 2)
        parts = [part.distribution(own) for part, own in zip(self.parts, split, strict=True)]  # type: ignore
        return Joint(parts, self.order, self.back)

    def observe(self, px: Distribution, x: Tensor) -> None:
        for part, of, own in self._estimated(px, x):
            part.observe(of, own)

    def measured(self, px: Distribution, x: Tensor) -> Tensor:
        return torch.cat([part.measured(of, own).flatten(1) for part, of, own in self._estimated(px, x)], 1)

    def settle(self, sums: Tensor) -> None:
        parts: list[Any] = [part for part in self.parts if part.estimated]
        for part, own in zip(parts, sums.split([part.log_spread.numel() for part in parts], 1), strict=True):
            part.settle(own.reshape(2, *part.log_spread.shape))

    def _estimated(self, px: Distribution, x: Tensor) -> list[tuple[Any, Distribution, Tensor]]:
        """Parts that keep an estimate, each with what was said and what was there of it."""
        assert isinstance(px, Joint)
        each = zip(self.parts, px.parts, px.apart(x), strict=True)
        return [(part, of, own) for part, of, own in each if part.estimated]


def _each(noise: Any) -> Any:
    if noise in (None, "global", "feature"):
        return "feature"
    if noise == "item":
        return noise
    raise PlanError(
        f"noise={noise!r} is one number, and the columns of a table differ: use 'feature' or 'item'"
    )


def _groups(space: Space) -> list[tuple[type[NetworkLikelihood], list[int], Space]]:
    """Columns of one likelihood and number of categories go together, in a space of their own."""
    assert space.schema is not None
    together: defaultdict[tuple[str, int | None], list[int]] = defaultdict(list)
    for i, column in enumerate(space.schema.columns):
        levels = column.levels if column.likelihood == "categorical" else None
        together[column.likelihood, levels].append(i)
    return [
        (
            likelihoods[name],
            places,
            Space(
                (len(places),),
                name,
                levels,
                center=space.center[places].cpu().numpy(),
                scale=space.scale[places].cpu().numpy(),
                gaps=space.gaps,
            ),
        )
        for (name, levels), places in together.items()
    ]


class Inputs(nn.Module):
    """What an encoder sees of an item: categories one-hot, counts as logarithms, and what is missing.

    Where values may be missing, zeros stand in their place, and as many flags follow that are 1 where a value
    was there. In training some of the others are hidden as well, though the loss counts them: codes come to
    follow from what little is there, and the bound stays one, since it is one for any posterior.

    Parameters
    ----------
    space : Space
        Of the data.
    hide : float
        Share of values that are hidden in training, where values may be missing at all.

    Raises
    ------
    PlanError
        If ``hide`` is no share below 1.

    References
    ----------
    Vincent et al. 2008, doi:10.1145/1390156.1390294, section 2.3 (masking), here of a variational encoder.

    Attributes
    ----------
    shape : tuple of int
        Of what it gives for an item.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> from chartae.parts.tables import Inputs
    >>> Inputs(Space((2,), gaps=True))(torch.tensor([[1.5, torch.nan]]))
    tensor([[1.5000, 0.0000, 1.0000, 0.0000]])
    """

    rest: Tensor
    counts: Tensor

    def __init__(self, space: Space, hide: float = 0.0) -> None:
        super().__init__()
        if not (isinstance(hide, int | float) and 0 <= hide < 1):
            raise PlanError(f"hide={hide!r}: use a share from 0 to below 1")
        self.gaps, self.hide = space.gaps, hide
        columns = () if space.schema is None or space.likelihood != "columns" else space.schema.columns
        # Two categories need one number.
        self.one_hot = {
            i: len(c.categories) for i, c in enumerate(columns) if c.categories and len(c.categories) > 2
        }
        rest = [i for i in range(len(columns)) if i not in self.one_hot]
        self.register_buffer("rest", torch.tensor(rest, dtype=torch.int64), persistent=False)
        counts = torch.tensor([columns[i].kind == "count" for i in rest], dtype=torch.bool)
        self.register_buffer("counts", counts, persistent=False)
        #: Of the values of a table, as they come: of a category ``column=category``.
        self.names = [columns[i].name for i in rest]
        self.names += [f"{columns[i].name}={v}" for i in self.one_hot for v in columns[i].categories or ()]
        first, *others = space.model_shape
        width = len(rest) + sum(self.one_hot.values()) if columns else first
        self.shape = (width + (first if self.gaps else 0), *others)

    def forward(self, x: Tensor) -> Tensor:
        """Prepare a batch.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``, in the model's units; NaN where a value is missing.

        Returns
        -------
        Tensor
            ``(n, *shape)``.
        """
        if not self.gaps:
            return self.values(x)
        seen = ~x.isnan()
        if self.training and self.hide:
            seen &= torch.rand_like(x) >= self.hide
        return torch.cat([self.values(x, seen), seen.to(x.dtype)], 1)

    def values(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Prepare a batch without flags of what is missing.

        Parameters
        ----------
        x : Tensor
            ``(n, *x)``, in the model's units; NaN where a value is missing.
        seen : Tensor or None
            ``(n, *x)``, which values are there; None: those that are not NaN.

        Returns
        -------
        Tensor
            ``(n, f, ...)``, zeros where a value is missing.
        """
        if seen is None and self.gaps:
            seen = ~x.isnan()
        filled = x if seen is None else x.masked_fill(~seen, 0.0)
        if not self.tabular:
            return filled
        parts = [self._numbers(filled)]
        for place, levels in self.one_hot.items():
            code = filled[:, place].round().long().clamp(0, levels - 1)
            one_hot = nn.functional.one_hot(code, levels).to(x.dtype)
            parts.append(one_hot if seen is None else one_hot * seen[:, place, None])
        return torch.cat(parts, 1)

    @property
    def tabular(self) -> bool:
        """Whether items are rows of a table whose columns differ in kind."""
        return bool(len(self.rest) or self.one_hot)

    def expected(self, px: Distribution) -> Tensor:
        """Prepare what a decoder expects of an item: smooth in its code, categories as their probabilities.

        Parameters
        ----------
        px : Distribution
            p(x | z), batch shape ``(k, n)``.

        Returns
        -------
        Tensor
            ``(k, n, *shape)``, without flags of what is missing.
        """
        if not isinstance(px, Joint):
            return px.expected() if isinstance(px, Categorical) else px.point()
        means = [part.expected() if isinstance(part, Categorical) else part.point() for part in px.parts]
        chances: dict[int, Tensor] = {}
        places = px.order.tolist()
        for part in px.parts:
            mine, places = places[: part.event_shape.numel()], places[part.event_shape.numel() :]
            if isinstance(part, Categorical):
                chances |= dict(zip(mine, part.logits.softmax(-1).unbind(-2), strict=True))
        numbers = self._numbers(torch.cat(means, -1)[..., px.back])
        return torch.cat([numbers, *(chances[place] for place in self.one_hot)], -1)

    def _numbers(self, x: Tensor) -> Tensor:
        """Take the columns that are no categories, counts as logarithms."""
        rest: Tensor = x[..., self.rest]
        return torch.where(self.counts, rest.clamp_min(0).log1p(), rest)


class Prepared(Posterior):
    """A posterior whose encoder sees prepared items.

    Parameters
    ----------
    posterior : Posterior
        What is wrapped.
    inputs : Inputs
        Prepares.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.spaces import Space
    >>> from chartae.parts.networks import MLP
    >>> from chartae.parts.posteriors import NormalPosterior
    >>> from chartae.parts.tables import Inputs, Prepared
    >>> inputs = Inputs(Space((2,), gaps=True))
    >>> q = Prepared(NormalPosterior(MLP(inputs.shape, (6,), hidden=(8,)), 3), inputs)
    >>> bool(q(torch.tensor([[1.0, torch.nan]])).point().isfinite().all())
    True
    """

    def __init__(self, posterior: Posterior, inputs: Inputs) -> None:
        super().__init__()
        self.posterior, self.inputs = posterior, inputs
        self.takes_after(posterior)

    @property
    def plain(self) -> Posterior:
        plain = self.posterior.plain
        return self if plain is self.posterior else Prepared(plain, self.inputs)

    @property
    def codebook(self) -> nn.Module | None:
        return self.posterior.codebook

    @property
    def network(self) -> nn.Module:
        """The encoder itself."""
        return self.posterior.network  # type: ignore[return-value]

    def begin(self, x: Tensor, c: Tensor | None) -> None:
        self.posterior.begin(self.inputs(x), c)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        return self.posterior(self.inputs(x), c)
