"""Steps on a GPU as graphs of kernels, recorded once and then replayed without Python in between.

Small networks keep a GPU waiting: Python takes longer to ask for a kernel than the kernel takes to run.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from chartae.core.contracts import Batch
from chartae.core.errors import one_line
from chartae.core.noise import Noise

__all__ = ["Recorded", "ScriptedNoise", "or_set_back"]

T = TypeVar("T")

BEFORE, MOST = 2, 4  # batches of a shape that come before it is recorded, and shapes that are
RECORDING = threading.Lock()  # torch looks out for what waits in all threads at once


class ScriptedNoise(Noise):
    """Noise that is drawn ahead, into memory where a recorded graph reads it.

    The first pass lays down what is asked for, and each further one reads the same memory in the same order.
    Draws are those of the generator, as without a recording. Before it is filled anew, the GPU must have read
    it: whoever replays a graph waits for one of its results.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU; it is advanced.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.noise import Noise
    >>> from chartae.training.graphs import ScriptedNoise
    >>> like, noise = torch.zeros(1), ScriptedNoise(torch.Generator().manual_seed(0))
    >>> first = noise.normal((2, 3), like)
    >>> noise.refill()
    >>> again, plain = noise.normal((2, 3), like), Noise(0)
    >>> (
    ...     again.data_ptr() == first.data_ptr(),
    ...     torch.equal(again, [plain.normal((2, 3), like) for _ in range(2)][1]),
    ... )
    (True, True)
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator)
        self._draws: list[tuple[Callable[..., Tensor], Tensor, Tensor]] = []
        self._next: Iterator[tuple[Callable[..., Tensor], Tensor, Tensor]] | None = None

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._drawn(Tensor.normal_, shape, like)

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        return self._drawn(Tensor.uniform_, shape, like)

    def _drawn(self, fill: Callable[..., Tensor], shape: Sequence[int], like: Tensor) -> Tensor:
        if self._next is not None:
            return next(self._next)[2].detach()  # whoever asks for a gradient by it asks for one of its own
        # From pinned memory, so that the copy is one that the host need not wait for.
        host = torch.empty(tuple(shape), dtype=torch.float32, device="cpu", pin_memory=like.is_cuda)
        fill(host, generator=self.generator)
        there = torch.empty_like(host, device=like.device, dtype=like.dtype, pin_memory=False)
        self._draws.append((fill, host, there.copy_(host, non_blocking=True)))
        return there.detach()

    def again(self) -> None:
        """Begin a pass over the memory as it is."""
        self._next = iter(self._draws)

    def refill(self) -> None:
        """Draw everything anew, and begin a pass over it."""
        for fill, host, there in self._draws:
            there.copy_(fill(host, generator=self.generator), non_blocking=True)
        self.again()


class Recorded(Generic[T]):
    """A function of a batch on a GPU, recorded for each shape of batches that comes again.

    Before that it is tried once with all that would wait for the GPU forbidden, such as a decision by a
    number that lies there: no graph can hold that. Where the trial fails, nothing is recorded.

    The function must do the same thing with every batch of a shape, whatever is not a tensor on the GPU. Its
    results are overwritten by the next call, before which, where noise is drawn, one of them must have been
    waited for.

    Parameters
    ----------
    call : callable
        Of a batch and noise, to tensors in tuples, lists and dicts.
    state : sequence of Tensor
        Of any shape: what the function changes in place, to be set back where a trial fails.
    device : torch.device
        The GPU.

    Examples
    --------
    Without a GPU there is nothing to record on:

    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.training.graphs import Recorded
    >>> if torch.cuda.is_available():
    ...     double = Recorded(lambda batch, noise: 2 * batch.x, [], torch.device("cuda"))
    ...     for i in range(5):
    ...         assert double(Batch(torch.full((3,), float(i), device="cuda")), Noise(0))[0].item() == 2 * i
    """

    def __init__(
        self, call: Callable[[Batch, Noise], T], state: Sequence[Tensor], device: torch.device
    ) -> None:
        self.call, self.state, self.device = call, state, device
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self.able = True
        #: Why a trial failed.
        self.reason = ""
        self.seen: Counter[Any] = Counter()
        self.tapes: dict[Any, _Tape[T]] = {}

    def __call__(self, batch: Batch, noise: Noise) -> T:
        shape = tuple((t.shape, t.dtype, t.stride()) for t in _tensors(batch))
        if shape in self.tapes:
            return self.tapes[shape].play(batch)
        self.seen[shape] += 1
        try:
            if self.able and self.seen[shape] > BEFORE and len(self.tapes) < MOST:
                with RECORDING:
                    return self._record(shape, batch, noise)
            with self._beside():
                return self.call(batch, noise)
        except torch.cuda.OutOfMemoryError as error:
            if not self.tapes:
                raise
            self._give_up(error)
            torch.cuda.empty_cache()
        return self.call(batch, noise)

    @contextlib.contextmanager
    def _beside(self) -> Iterator[None]:
        """Work on the stream that is recorded: gradients are gathered on the stream they were first on."""
        now = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            yield
        now.wait_stream(self.stream)

    def _record(self, shape: Any, batch: Batch, noise: Noise) -> T:
        tape = _Tape[T](batch, noise)
        with self._beside():
            try:
                with or_set_back(self.state, noise.generator, self.device), _without_waiting():
                    result = self.call(tape.batch, tape.noise)
            except RuntimeError as error:
                self._give_up(error)
                return self.call(batch, noise)
            tape.noise.again()
            try:
                with _no_collection(), self._recording(tape.graph):
                    tape.result = self.call(tape.batch, tape.noise)
            except RuntimeError as error:  # of what waits without a word to torch
                self._give_up(error)
                warnings.warn(f"steps are not recorded ({one_line(error, 200)}), only taken", stacklevel=2)
                # The generator would go on as if recorded.
                generator = torch.cuda.default_generators[self.device.index or 0]
                generator.graphsafe_set_state(generator.clone_state())
                return result
        self.tapes[shape] = tape
        return result

    def _recording(self, graph: torch.cuda.CUDAGraph) -> contextlib.AbstractContextManager[None]:
        # What other threads do meanwhile is not in it.
        mode = "thread_local"
        return torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode=mode)

    def _give_up(self, error: RuntimeError) -> None:
        self.able, self.reason = False, str(error)
        self.close()

    def close(self) -> None:
        """Give back the graphs and their memory; what comes again is recorded anew."""
        for tape in self.tapes.values():
            tape.graph.reset()
        self.tapes.clear()
        self.seen.clear()


@contextlib.contextmanager
def or_set_back(state: Sequence[Tensor], generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Set back tensors and generators, torch's own among them, where what is done inside raises.

    Parameters
    ----------
    state : sequence of Tensor
        Of any shape.
    generator : torch.Generator
        On the CPU.
    device : torch.device
        Whose generator torch draws from.

    Yields
    ------
    None
        Inside.

    Examples
    --------
    >>> import torch
    >>> from chartae.training.graphs import or_set_back
    >>> t, generator = torch.zeros(1), torch.Generator()
    >>> try:
    ...     with or_set_back([t], generator, t.device):
    ...         print(t.add_(1), 1 / 0)
    ... except ZeroDivisionError:
    ...     print(t)
    tensor([0.])
    """
    before, own, torchs = [t.detach().clone() for t in state], generator.get_state(), torch.get_rng_state()
    there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for now, then in zip(state, before, strict=True):
                now.copy_(then)
        generator.set_state(own)
        torch.set_rng_state(torchs)
        if there is not None:
            torch.cuda.set_rng_state(there, device)
        raise


class _Tape(Generic[T]):
    """A graph, and the memory that it reads and writes."""

    result: T

    def __init__(self, batch: Batch, noise: Noise) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.batch = _mapped(batch, torch.clone)
        self.noise = ScriptedNoise(noise.generator)

    def play(self, batch: Batch) -> T:
        for mine, theirs in zip(_tensors(self.batch), _tensors(batch), strict=True):
            mine.copy_(theirs)
        self.noise.refill()
        self.graph.replay()
        return self.result


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage: to destroy what is of a GPU is forbidden during a recording."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """Let torch refuse whatever makes the host wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that this way of looking for them is new
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _mapped(batch: Batch, f: Callable[[Tensor], Tensor]) -> Batch:
    c = None if batch.c is None else batch.c.map(f)
    return Batch(f(batch.x), c, *(None if t is None else f(t) for t in (batch.index, batch.y)))


def _tensors(batch: Batch) -> list[Tensor]:
    parts = [batch.x, *(batch.c or ()), batch.index, batch.y]
    return [t for t in parts if t is not None]
