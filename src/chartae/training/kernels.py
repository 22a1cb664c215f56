"""Gradients of a step: by autograd in general, with hand-written layers where the networks allow it.

The fast ways evaluate the same model and the same objective in the same order. What they write by hand are
derivatives: of fully connected layers, and of the bound of a plain or variational autoencoder. Posteriors,
likelihoods and objectives are computed by their own code, in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from chartae.core.contracts import Batch, Objective, Plan, Sum, Term
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.models.autoencoder import Autoencoder
from chartae.parts.distributions import DiagonalNormal, kl_slopes
from chartae.parts.networks import MLP, Leading
from chartae.parts.objectives import KL, NegLogLik
from chartae.parts.posteriors import (
    Corrupted,
    DeltaPosterior,
    HamiltonianPosterior,
    NormalPosterior,
    bounded_slope,
)
from chartae.parts.priors import StandardNormalPrior
from chartae.parts.readouts import Silent
from chartae.training.graphs import Recorded
from chartae.training.handwritten import HandwrittenLayers, is_hooked, is_known
from chartae.training.precision import autocast, gains_from_bf16

__all__ = ["BoundGradients", "Gradients", "LayerGradients", "RecordedGradients", "gradients_for", "total"]

T = TypeVar("T")


def total(terms: Mapping[str, Term], *, judged: bool = False) -> Tensor:
    """Add up what is minimized.

    Parameters
    ----------
    terms : Mapping of str to Term
        Of an objective.
    judged : bool
        Add up instead what epochs are compared by.

    Returns
    -------
    Tensor
        ``()``.

    Raises
    ------
    PlanError
        If all of them have weight 0, or one is no number of each row.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Term
    >>> from chartae.training.kernels import total
    >>> total({"a": Term(torch.tensor([1.0, 3.0])), "b": Term(torch.tensor(2.0), 0.5)})
    tensor(3.)
    """
    for name, term in terms.items():
        if term.rows.dim() > 1:
            raise PlanError(
                f"the term {name!r} has the shape {tuple(term.rows.shape)}, and one number a row, (n,), or "
                "one in all is needed: sum over the other dimensions"
            )
    if judged:
        terms = {n: t if t.judged is None else t._replace(weight=t.judged) for n, t in terms.items()}
    counted = [t.value() for t in terms.values() if not (isinstance(t.weight, float) and t.weight == 0.0)]
    if not counted:
        raise PlanError("every term has weight 0, so nothing is minimized: give one of them a weight")
    return functools.reduce(torch.add, counted).reshape(())  # of a weight that is a tensor of one number, too


class Gradients:
    """The general way to a step's gradients: a trace, its objective, and autograd.

    Parameters
    ----------
    plan : Plan
        What is trained.
    dtype : torch.dtype
        float32, or bfloat16 for autocast.
    compile : bool
        Compile the networks, for as long as this is not closed.

    Raises
    ------
    PlanError
        If no parameter requires a gradient.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import Gradients
    >>> plan = build("vae", (4,), latent_dim=2, hidden=(8,))
    >>> loss, terms = Gradients(plan)(Batch(torch.zeros(5, 4)), Noise(0))
    >>> sorted(terms), all(p.grad is not None for p in plan.model.parameters())
    (['kl', 'nll'], True)
    """

    def __init__(self, plan: Plan, dtype: torch.dtype = torch.float32, *, compile: bool = False) -> None:
        self.model, self.objective, self.dtype = plan.model, plan.objective, dtype
        self.compiled: list[nn.Module] = []
        if compile:
            self._compile()
        #: What an optimizer moves.
        self.parameters = [
            p for p in nn.ModuleList([plan.model, plan.objective]).parameters() if p.requires_grad
        ]
        if not self.parameters:
            raise PlanError("no parameter is to be trained: let one of the modules' require a gradient")

    def __call__(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Term]]:
        self.clear()
        pick = self.objective.pick if self.objective.picks else None
        with torch.enable_grad():
            with autocast(batch.x.device, self.dtype):
                trace = self.model.trace(batch, k=self.objective.samples, noise=noise, pick=pick)
                terms = self.objective(trace)
            loss = total(terms)
        self._backward(loss)
        return loss.detach(), terms

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _compile(self) -> None:
        parts = (self.model.posterior.plain, self.model.likelihood)
        self.compiled = [part.network for part in parts]  # type: ignore[misc]
        for network in self.compiled:
            network.compile()

    def clear(self) -> None:
        """Forget the last step's gradients."""
        for p in self.parameters:
            p.grad = None

    def norm(self) -> Tensor:
        """Measure the whole gradient.

        Returns
        -------
        Tensor
            ``()``; infinite where the squares overflow, before the gradients themselves do.
        """
        grads = [p.grad for p in self.parameters if p.grad is not None]
        if len(grads) == 1:
            return torch.dot(grads[0].flatten(), grads[0].flatten()).sqrt()  # twice as fast
        return torch.nn.utils.get_total_norm(grads)

    def wide_norm(self) -> Tensor:
        """Measure the whole gradient in float64.

        Returns
        -------
        Tensor
            ``()``.
        """
        return torch.nn.utils.get_total_norm([p.grad.double() for p in self.parameters if p.grad is not None])

    def moved(self) -> None:
        """Hear that the optimizer has moved the parameters."""

    def close(self) -> None:
        """Give the model back as it was, with its new weights."""
        self.clear()
        for network in self.compiled:
            network._compiled_call_impl = None


class RecordedGradients(Gradients):
    """The general way on a GPU, where the passes of a step are a graph that is recorded and replayed.

    That is for modules that do the same thing in every step. What cannot be recorded goes the general way.
    The next call overwrites what the last one gave.

    Parameters
    ----------
    plan : Plan
        What is trained, on a GPU.
    dtype : torch.dtype
        float32, or bfloat16 for autocast.
    compile : bool
        Compile the networks where nothing can be recorded.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import RecordedGradients
    >>> if torch.cuda.is_available():
    ...     plan = build("vae", (4,), latent_dim=2, hidden=(8,))
    ...     _ = plan.model.cuda()
    ...     loss, terms = RecordedGradients(plan)(Batch(torch.zeros(5, 4, device="cuda")), Noise(0))
    """

    def __init__(self, plan: Plan, dtype: torch.dtype = torch.float32, *, compile: bool = False) -> None:
        super().__init__(plan, dtype)
        both = nn.ModuleList([plan.model, plan.objective])
        state = [*both.buffers(), *both.parameters()]  # entries of a codebook begin anew within a pass
        self.recorded = Recorded(self._step, state, self.parameters[0].device)
        self._samples = self.objective.samples
        self._size: Tensor | None = None
        self._to_compile = compile

    def _step(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Term], Tensor, list[Any]]:
        loss, terms = super().__call__(batch, noise)
        # Graphs of autograd that live on would tie the next step to this one's stream.
        terms = {
            name: Term._make(t.detach() if isinstance(t, Tensor) else t for t in term)
            for name, term in terms.items()
        }
        return loss, terms, super().norm(), [p.grad for p in self.parameters]

    def __call__(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Term]]:
        if self.objective.samples != self._samples:  # a schedule has come to its next number, and not back
            self._samples = self.objective.samples
            self.recorded.close()
        loss, terms, norm, grads = self.recorded(batch, noise)
        for p, grad in zip(self.parameters, grads, strict=True):
            p.grad = grad
        if self._to_compile and not self.recorded.able:
            self._to_compile = False
            self._compile()
        self._size = norm
        return loss, terms

    def norm(self) -> Tensor:
        return super().norm() if self._size is None else self._size

    def close(self) -> None:
        super().close()
        self.recorded.close()


class LayerGradients(Gradients):
    """The fast way, for plans whose encoder and decoder are layers of ReLU or tanh.

    So may be networks within the posterior and the prior; what is not is left to autograd.

    All parameters lie in one float32 vector, with one gradient vector beside it: one call of the
    optimizer, one of the norm. In bf16, wide layers multiply a replica that follows the vector;
    their gradients are cast back once a step. Same noise, same gradients as autograd's, to rounding.

    Parameters
    ----------
    plan : Plan
        What is trained.
    dtype : torch.dtype
        float32, or bfloat16 for wide layers.
    thrifty : bool
        Of samples that hardly count let most go, by chance, and others count for them (``rounds`` of
        objectives), and go back through none that count for nothing: the same gradient in the mean.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import Gradients, LayerGradients
    >>> plan, batch = build("vae", (4,), latent_dim=2, hidden=(8,)), Batch(torch.ones(5, 4))
    >>> state = {k: v.clone() for k, v in plan.model.state_dict().items()}
    >>> slow = Gradients(plan)(batch, Noise(0))[0]
    >>> fast = LayerGradients(plan)
    >>> plan.model.load_state_dict(state)
    <All keys matched successfully>
    >>> torch.allclose(slow, fast(batch, Noise(0))[0])
    True
    """

    def __init__(self, plan: Plan, dtype: torch.dtype = torch.float32, *, thrifty: bool = False) -> None:
        super().__init__(plan, torch.float32)
        self.thrifty = thrifty
        self.networks = list(filter(None, _networks(plan)))
        #: Whether autograd, too, has a gradient by the layers' weights, to which they add theirs.
        self.adds = plan.objective.weighs_networks
        linears = [m for net in self.networks for m in net.layers if isinstance(m, nn.Linear)]
        low = [m for m in linears if dtype == torch.bfloat16 and gains_from_bf16(m.weight)]
        mine = [p for m in linears for p in (m.weight, m.bias)]
        wide = [p for m in low for p in (m.weight, m.bias)]
        # Wide ones first: the replica is one slice. Then other layers, then what autograd takes care of.
        ordered = _different([*wide, *mine, *self.parameters])
        sizes = [-(-p.numel() // 64) * 64 for p in ordered]  # whole cache lines
        flat = torch.zeros(sum(sizes), device=ordered[0].device, dtype=torch.float32)
        self.gradient = torch.zeros_like(flat)
        values, grads = _views(flat, ordered), _views(self.gradient, ordered)
        with torch.no_grad():
            for p, value, grad in zip(ordered, values, grads, strict=True):
                value.copy_(p)
                p.data, p.grad = value, grad
        self.mine = 0 if self.adds else sum(sizes[: len(mine)])  # what layers overwrite in each step
        self.wide = sum(sizes[: len(wide)])
        self.flat = nn.Parameter(flat)
        self.flat.grad = self.gradient
        self.parameters = [self.flat]
        self.replica = flat[: self.wide].to(torch.bfloat16)
        self.low_gradient = torch.zeros_like(self.replica)
        place = {id(p): i for i, p in enumerate(ordered)}
        low_values, low_grads = _views(self.replica, wide), _views(self.low_gradient, wide)

        def tensors(layer: nn.Linear) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            v, g = (low_values, low_grads) if layer in low else (values, grads)
            w, b = place[id(layer.weight)], place[id(layer.bias)]
            return v[w], v[b], g[w], g[b]

        self.kernels = [
            HandwrittenLayers(net, [tensors(m) for m in net.layers if isinstance(m, nn.Linear)])
            for net in self.networks
        ]
        for net, kernel in zip(self.networks, self.kernels, strict=True):
            net.kernel = kernel
        self._round(thrifty)

    def _round(self, yes: bool) -> None:
        for part in self.objective.modules():
            if isinstance(part, Objective):
                part.rounds = yes

    def __call__(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Term]]:
        result = super().__call__(batch, noise)
        self._gather()
        return result

    def _backward(self, loss: Tensor) -> None:
        for kernel in self.kernels:
            kernel.writing = True
        try:
            loss.backward()
        finally:
            for kernel in self.kernels:
                kernel.writing = False

    def clear(self) -> None:
        # Layers overwrite their gradients; autograd adds to the rest.
        if self.mine < len(self.gradient):
            self.gradient[self.mine :].zero_()
        if self.adds:
            self.low_gradient.zero_()
        for kernel in self.kernels:
            kernel.fresh, kernel.inputs = not self.adds, []
            kernel.skips = self.thrifty and self.objective.samples > 1

    def _gather(self) -> None:
        """Bring all gradients of a step into the one vector."""
        for kernel in self.kernels:
            kernel.finish()
        if self.wide and self.adds:
            self.gradient[: self.wide].add_(self.low_gradient)
        elif self.wide:
            self.gradient[: self.wide].copy_(self.low_gradient)

    def moved(self) -> None:
        if self.wide:
            self.replica.copy_(self.flat.detach()[: self.wide])

    def close(self) -> None:
        self._round(False)
        for net in self.networks:
            net.kernel = None
        for p in nn.ModuleList([self.model, self.objective]).parameters():
            p.data, p.grad = p.data.clone(), None


class BoundGradients(LayerGradients):
    """The fastest way, for ``nll`` with or without ``kl``: no graph is made, the chain rule is written out.

    It takes a normal posterior against N(0, I), or a point, and a likelihood whose distribution knows the
    derivative of its density by what the decoder gives (``score``). The model must be in training mode: in
    evaluation it does not call the layers that note their inputs.

    Parameters
    ----------
    plan : Plan
        What is trained.
    dtype : torch.dtype
        float32, or bfloat16 for wide layers.
    thrifty : bool
        No effect: there is one sample of a row.

    Raises
    ------
    PlanError
        When it is called and the model is in evaluation mode.

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114, equation 10: the estimator whose gradient this is.

    Examples
    --------
    >>> import torch
    >>> from chartae.core.contracts import Batch
    >>> from chartae.core.noise import Noise
    >>> from chartae.core.spaces import Space
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import BoundGradients, LayerGradients
    >>> plan = build("vae", Space((4,), "bernoulli"), latent_dim=2, hidden=(8,))
    >>> batch, found = Batch(torch.ones(5, 4)), []
    >>> for way in (LayerGradients, BoundGradients):
    ...     gradients = way(plan)
    ...     _ = plan.model.train()
    ...     _ = gradients(batch, Noise(0))
    ...     found.append(gradients.gradient.clone())
    ...     gradients.close()
    >>> torch.allclose(*found, atol=1e-6)
    True
    """

    @torch.no_grad()
    def __call__(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Term]]:
        self.clear()
        trace = self.model.trace(batch, k=1, noise=noise)
        if not all(kernel.inputs for kernel in self.kernels):
            raise PlanError("gradients are taken in training mode: call model.train() first")
        terms = self.objective(trace)
        level, n = trace.levels[0], len(batch)
        encoder, decoder = self.kernels
        score = trace.px.score(batch.x).reshape(n, -1)  # type: ignore[attr-defined]
        g = decoder.backward(score.mul_(-terms["nll"].weight / n), decoder.inputs, True)
        assert g is not None
        if isinstance(level.q, DiagonalNormal):
            mean, log_var = level.q.mean, level.q.log_var
            # z = mean + exp(log_var / 2) eps, so that dz / dlog_var = (z - mean) / 2.
            g_log_var = torch.sub(level.z[0], mean).mul_(g).mul_(0.5)
            if "kl" in terms:
                weight = float(terms["kl"].weight) / n
                by_mean, by_log_var = kl_slopes(level.q)
                g = torch.add(g, by_mean, alpha=weight)
                g_log_var.add_(by_log_var, alpha=weight)
            g = torch.cat([g, g_log_var.mul_(bounded_slope(log_var))], 1)
        encoder.backward(g, encoder.inputs, False)
        self._gather()
        return total(terms), terms


def gradients_for(plan: Plan, dtype: torch.dtype, *, compile: bool = False) -> Gradients:
    """Choose the fastest way that fits the structure of a plan.

    Parameters
    ----------
    plan : Plan
        What is trained.
    dtype : torch.dtype
        float32 or bfloat16.
    compile : bool
        Compile the networks, in the general way; on a GPU record steps also of modules that are neither
        torch's nor chartae's.

    Returns
    -------
    Gradients
        Or its fast variant.

    Examples
    --------
    >>> import torch
    >>> from chartae.models.recipes import build
    >>> from chartae.training.kernels import gradients_for
    >>> type(gradients_for(build("vae", (4,), latent_dim=2, hidden=(8,)), torch.float32)).__name__
    'BoundGradients'
    """
    devices = {p.device.type for p in plan.model.parameters()}
    if devices == {"cuda"} and not plan.model.posterior.waits and (compile or _is_known_to_repeat(plan)):
        return RecordedGradients(plan, dtype, compile=compile)
    twice = plan.objective.differentiates_networks or plan.model.posterior.differentiates_networks
    nets = _networks(plan)
    layers = (m for net in nets if net is not None for m in net.layers if type(m) is nn.Linear)
    own = [p for m in layers for p in (m.weight, m.bias)]
    # A weight that two layers share has one gradient, and each layer would write its own there.
    fits = None not in nets and len(_different(own)) == len(own) and not twice
    fits = fits and plan.optimizer is None  # an optimizer of the caller's may treat tensors apart
    plain = all(p.dtype == torch.float32 and p.is_contiguous() for p in plan.model.parameters())
    if compile or devices != {"cpu"} or not (fits and plain):
        return Gradients(plan, dtype, compile=compile)
    return BoundGradients(plan, dtype) if _is_bound(plan) else LayerGradients(plan, dtype, thrifty=True)


def _is_known_to_repeat(plan: Plan) -> bool:
    """Whether all modules do the same thing in every step: a user's, or hooks, might count, or toss coins."""
    both = nn.ModuleList([plan.model, plan.objective])
    known = ("torch", "chartae", "zuko")
    return not is_hooked(both) and all(type(m).__module__.partition(".")[0] in known for m in both.modules())


def _is_bound(plan: Plan) -> bool:
    """Whether :class:`BoundGradients` knows every derivative of a plan."""
    model, objective = plan.model, plan.objective
    parts = list(objective.parts) if type(objective) is Sum else [objective]
    bounds = [part for part in parts if type(part) is KL]
    posterior = model.posterior
    if type(posterior) is Corrupted:
        posterior = posterior.posterior
    networks = {id(p) for net in _networks(plan) if net is not None for p in net.parameters()}
    # Exact types throughout: a subclass may compute something else, whose derivative is not known here.
    return (
        type(model) is Autoencoder
        and not is_hooked(model)
        and model.condition is None
        and objective.samples == 1
        and [type(part) for part in parts] in ([NegLogLik], [NegLogLik, KL], [KL, NegLogLik])
        and all(part.closed and not part.free_bits for part in bounds)
        and type(posterior) in ((NormalPosterior,) if bounds else (NormalPosterior, DeltaPosterior))
        and (not bounds or type(model.prior) is StandardNormalPrior)
        and "score" in model.likelihood.offers
        and type(getattr(model.likelihood, "network", None)) is MLP  # which sees all of a code
        and all(id(p) in networks for p in nn.ModuleList([model, objective]).parameters())
    )


def _networks(plan: Plan) -> list[MLP | None]:
    """Encoder and decoder, or None where it is not of layers that are known here; then others that are."""
    model, posterior = plan.model, plan.model.posterior.plain
    both = [part for part in (posterior, model.likelihood) if type(part) is not Silent]
    found = [getattr(part, "network", None) for part in both]
    ends = [net.network if type(net) is Leading else net for net in found]
    # Leaps follow slopes of the prior's density, which are no gradients of its weights.
    prior = None if isinstance(posterior, HamiltonianPosterior) else model.prior
    sides = [part for part in (posterior, prior) if part is not None]
    inner = [m for side in sides for m in side.modules() if type(m) is MLP and m not in ends and is_known(m)]
    return [*(net if type(net) is MLP and is_known(net) else None for net in ends), *_different(inner)]


def _different(things: Sequence[T]) -> list[T]:
    return list({id(thing): thing for thing in things}.values())


def _views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    out, start = [], 0
    for p in like:
        out.append(flat[start : start + p.numel()].view(p.shape))
        start += -(-p.numel() // 64) * 64
    return out
