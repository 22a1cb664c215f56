"""Figures of training and of what each latent dimension holds."""

from __future__ import annotations

import math

import numpy as np

from chartae.audits.page.figures.view import SIGNIFICANT, View, finite_numbers
from chartae.audits.page.panels import ACCENT, SECOND, SOFT, Figure, chart
from chartae.parts.distributions import kl

__all__: list[str] = []


def draw_rates(view: View) -> Figure | None:
    rate = _kl_per_dimension(view)
    if rate is None or len(rate) < 2:
        return None
    order = np.argsort(-rate)
    shown = order[:64]
    drawn = chart("KL", f"KL per latent dimension, from {rate[order[0]]:.2g} to {rate[order[-1]]:.2g} nats")
    used = rate[shown] > SIGNIFICANT
    drawn.ax.bar(np.arange(len(shown)), rate[shown], color=np.where(used, ACCENT, SECOND))
    drawn.ax.set_xlim(-0.7, max(len(shown), 5) - 0.3)
    drawn.ax.set_ylabel("nats")
    drawn.ax.set_xlabel("latent dimension, most used first")
    if len(shown) <= 16:
        drawn.ax.set_xticks(range(len(shown)), labels=[str(i + 1) for i in shown])
    else:
        drawn.ax.set_xticks([])
    idle = int((rate <= SIGNIFICANT).sum())
    return Figure(
        "kl",
        "What each dimension carries",
        "KL(q(z | x) ‖ p(z)) of each latent dimension, averaged over items: how much it says of an item. "
        f"{idle or 'None'} of {len(rate)} {'is' if idle == 1 else 'are'} below {SIGNIFICANT} nats.",
        "at least as many dimensions as the data have are clearly above zero; one near zero is not used.",
        (drawn.panel(),),
    )


def _kl_per_dimension(view: View) -> np.ndarray | None:
    brought = view.also("active-dimensions", "kl")
    if brought is None and view.chart.posterior is not None and view.chart.prior is not None:
        rows = slice(1_000)
        q = view.chart.q(view.evidence.x[rows], None if view.evidence.c is None else view.evidence.c[rows])
        brought = kl(q, view.chart.prior(None if view.evidence.c is None else view.evidence.c[rows]))
        brought = None if brought is None else brought.mean(0).cpu().numpy()
    rate = finite_numbers(brought)
    return rate if rate is not None and rate.ndim == 1 else None


_NO_TERM = {"epoch", "seconds", "rows_per_second", "learning_rate", "grad_norm", "best", "loss", "val_loss"}


def draw_training(view: View) -> Figure | None:
    history = getattr(view.given, "history_", None) or []
    if len(history) < 2:
        return None
    terms = [
        k
        for k, v in history[-1].items()
        if isinstance(v, int | float) and k not in _NO_TERM and not k.startswith("val_")
    ]
    best = getattr(view.given, "best_epoch_", None)
    panels = []
    for name in ["loss", *(terms[:3] if len(terms) > 1 else [])]:  # a single term is the loss
        drawn = chart(name, f"{name} by epoch, of training and of held-out rows")
        later = []
        for key, label, color, style in (
            (name, "training", ACCENT, "-"),
            (f"val_{name}", "held out", SECOND, "--"),
        ):
            seen = [
                (h["epoch"], h[key])
                for h in history
                if isinstance(h.get(key), int | float) and math.isfinite(h[key])
            ]
            if seen:
                drawn.ax.plot(
                    [e for e, _ in seen], [v for _, v in seen], label=label, lw=1.4, color=color, ls=style
                )
                later += [v for _, v in seen[len(seen) // 10 :]]
        if not later:
            continue
        if best is not None and len(history) > 2:
            drawn.ax.axvline(best, color=SOFT, lw=0.9, ls=":", label="weights kept")
        margin = 0.05 * (max(later) - min(later)) or 1.0
        drawn.ax.set_ylim(min(later) - margin, max(later) + margin)
        drawn.ax.set_xlabel("epoch")
        drawn.legend(loc="best")
        panels.append(drawn.panel())
    return Figure(
        "training",
        "Training",
        "The loss and its terms by epoch; the first tenth may lie outside.",
        "both curves have become flat and stay close; a held-out curve that rises means that training "
        "items are learned by heart.",
        tuple(panels),
    )
