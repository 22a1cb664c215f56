"""Where the randomness of draws comes from: it is handed in.

Dropout and corruption, which act in training only, draw from torch's global generator, which the training
loop seeds and gives back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["LentGenerator", "Noise", "RowNoise", "SharedNoise"]


# Of the grid by which rows are told apart. Neither is a fraction that values of data are likely to be.
CELL, OFFSET, FARTHEST = 0.00917, 0.3719, 2.0**53


class Noise:
    """Independent noise from a generator.

    Parameters
    ----------
    seed : int or torch.Generator
        A seed, or a CPU generator that is advanced.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> like = torch.zeros(1)
    >>> torch.equal(Noise(0).normal((2, 3), like), Noise(0).normal((2, 3), like))
    True
    """

    def __init__(self, seed: int | torch.Generator = 0) -> None:
        self.generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal draws.

        Parameters
        ----------
        shape : sequence of int
            ``(k, n, d)``.
        like : Tensor
            Of any shape; gives device and dtype.

        Returns
        -------
        Tensor
            Of the shape asked for.
        """
        return self._on(
            torch.randn(tuple(shape), generator=self.generator, dtype=torch.float32, device="cpu"), like
        )

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform draws on [0, 1).

        Parameters
        ----------
        shape : sequence of int
            ``(k, n, d)``.
        like : Tensor
            Of any shape; gives device and dtype.

        Returns
        -------
        Tensor
            Of the shape asked for.
        """
        return self._on(
            torch.rand(tuple(shape), generator=self.generator, dtype=torch.float32, device="cpu"), like
        )

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts.

        Source: :func:`torch.poisson`.

        Parameters
        ----------
        rate : Tensor
            Of any shape, zero or more.

        Returns
        -------
        Tensor
            Whole numbers, of that shape.

        Examples
        --------
        >>> import torch
        >>> from chartae.core.noise import Noise
        >>> Noise(0).poisson(torch.zeros(3))
        tensor([0., 0., 0.])
        """
        return self._on(torch.poisson(rate.detach().cpu(), generator=self.generator), rate)

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma draws of rate one.

        Source: Marsaglia and Tsang 2000, doi:10.1145/358407.358414, as torch has it.

        Parameters
        ----------
        shape : Tensor
            The parameter of that name, of any size, above zero: the mean of the draws.

        Returns
        -------
        Tensor
            Of the same shape.

        Examples
        --------
        >>> import torch
        >>> from chartae.core.noise import Noise
        >>> bool((Noise(0).gamma(torch.ones(3)) > 0).all())
        True
        """
        return self._on(torch._standard_gamma(shape.detach().cpu(), generator=self.generator), shape)

    @staticmethod
    def _on(draws: Tensor, like: Tensor) -> Tensor:
        # The generator lives on the CPU, so that a seed means the same on every device.
        return draws if draws.device == like.device and draws.dtype == like.dtype else draws.to(like)


class SharedNoise(Noise):
    """One low-discrepancy set of noise per draw, shared by all rows.

    A row's result then depends on that row alone, not on its place in the batch: scikit-learn's
    subset and order invariance. Each call of :meth:`normal` or :meth:`uniform` returns a further
    scrambled Sobol set (Owen 1998, doi:10.1006/jcom.1998.0487) of shape ``(k, 1, ...)``, which
    broadcasts over rows. Later sets are in an order of their own (Owen 1998, doi:10.1145/272991.273010):
    of two scrambles of one sequence the leading digits are the same, or the opposite, throughout.

    Parameters
    ----------
    seed : int
        Scrambles the sequence.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import SharedNoise
    >>> SharedNoise(0).normal((8, 100, 2), torch.zeros(1)).shape
    torch.Size([8, 1, 2])
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.seed = seed
        self.calls = 0

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        k, _, *event = shape
        size = max(1, int(torch.Size(event).numel()))
        self.calls += 1
        if size > torch.quasirandom.SobolEngine.MAXDIM:
            return super().uniform((k, 1, *event), like)
        sobol = torch.quasirandom.SobolEngine(size, scramble=True, seed=self.seed + 7919 * (self.calls - 1))
        drawn = sobol.draw(k, dtype=torch.float64)
        if self.calls > 1:
            drawn = drawn[torch.randperm(k, generator=self.generator)]
        return self._on(drawn.reshape(k, 1, *event), like)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        uniform = self.uniform(shape, torch.zeros((), dtype=torch.float64))
        # Clamped: an exact 0 or 1 would map to an infinite draw.
        return self._on(torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)), like)


class RowNoise(SharedNoise):
    """The set of :class:`SharedNoise`, moved for each row by an amount that what the row holds decides.

    A row's result depends on that row alone, and what is off by chance is off independently of other rows, so
    that it averages out over them. Each point of a set that is moved so, modulo 1, is uniform (Cranley and
    Patterson 1976, doi:10.1137/0713071): a mean over draws has no bias.

    Numbers count by the cell of a grid that they lie in, so that rounding, as by other units, hardly ever
    decides anything.

    Parameters
    ----------
    rows : ndarray
        ``(n, ...)``, numbers of the order of 1, or NaN; rows that are nearly equal are given equal noise.
    seed : int
        Scrambles the sequence.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from chartae.core.noise import RowNoise
    >>> X = np.arange(6.0).reshape(3, 2)
    >>> all_rows = RowNoise(X).normal((8, 3, 2), torch.zeros(1))
    >>> torch.equal(all_rows[:, 1:2], RowNoise(X[1:2]).normal((8, 1, 2), torch.zeros(1)))
    True
    """

    def __init__(self, rows: np.ndarray, seed: int = 0) -> None:
        super().__init__(seed)
        cells = np.floor(np.asarray(rows, dtype=np.float64).reshape(len(rows), -1) / CELL + OFFSET)
        cells = np.nan_to_num(cells, nan=-FARTHEST).clip(-FARTHEST, FARTHEST).astype(np.int64)
        odd = _mixed(np.arange(cells.shape[1], dtype=np.uint64)) | np.uint64(1)
        self.keys = _mixed(cells.view(np.uint64) @ odd)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform draws on [0, 1).

        Parameters
        ----------
        shape : sequence of int
            ``(k, n, ...)``.
        like : Tensor
            Of any shape; gives device and dtype.

        Returns
        -------
        Tensor
            Of the shape asked for.

        Raises
        ------
        ValueError
            If there are not ``n`` rows.
        """
        _, n, *event = shape
        if n != len(self.keys):
            raise ValueError(f"noise of {len(self.keys)} rows was asked for {n}")
        shared = super().uniform(shape, torch.zeros((), dtype=torch.float64))
        places = np.arange(int(torch.Size(event).numel()), dtype=np.uint64) + np.uint64(self.calls << 32)
        bits = _mixed(self.keys[:, None] ^ _mixed(places))
        moved = torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) / 2**53).reshape(n, *event)
        return self._on((shared + moved).frac_(), like)


def _mixed(keys: np.ndarray) -> np.ndarray:
    """Spread whole numbers over 64 bits (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""
    z = keys + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


class LentGenerator:
    """torch's global generator, lent to this run for the length of an epoch and given back after it.

    Dropout, corruption and condition dropout draw from the global generator; between epochs, when
    the consumer's code runs, it is the consumer's.

    Parameters
    ----------
    seed : int
        Of the first time.
    device : torch.device
        Whose generator is lent, too, if it is a GPU.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import LentGenerator
    >>> before, lent = torch.get_rng_state(), LentGenerator(0, torch.device("cpu"))
    >>> with lent:
    ...     first = torch.rand(1)
    >>> with lent:
    ...     second = torch.rand(1)
    >>> bool(first == second), torch.equal(torch.get_rng_state(), before)
    (False, True)
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        self.states: Any = None
        self.seed = seed

    def __enter__(self) -> None:
        self.fork = torch.random.fork_rng(self.devices)
        self.fork.__enter__()
        if self.states is None:
            # One by one: torch.manual_seed would also seed the devices that are not given back.
            torch.default_generator.manual_seed(self.seed)
            for device in self.devices:
                index = torch.cuda.current_device() if device.index is None else device.index
                torch.cuda.default_generators[index].manual_seed(self.seed)
        else:
            torch.set_rng_state(self.states[0])
            # Not strictly: what was begun on a GPU may go on elsewhere.
            for device, state in zip(self.devices, self.states[1:], strict=False):
                torch.cuda.set_rng_state(state, device)

    def __exit__(self, *error: object) -> None:
        self.states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in self.devices)]
        self.fork.__exit__(*error)  # type: ignore[arg-type]
