"""Does the health report tell models of MNIST apart, and do its remedies help?

Five models of the same networks: a plain autoencoder, a VAE, the autoencoder with a density fitted to its
codes, a VAE that has collapsed (β = 50), and an autoencoder with two latent dimensions. Each is audited on
the 10,000 test items. Then, as long as a report has a fail: the first remedy of the first fail that changes
something and was not tried before is applied, as ``chartae fit --from RUN --remedy NAME`` does it.

    python benchmarks/diagnostics/mnist.py --data mnist.npz
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from reports import side_by_side

import chartae as ct
from chartae.apps.health import REPORT, Origin
from common import command_line, load_data, machine_info, parser, write_json

ROWS, EPOCHS, STEPS = 30_000, 10, 10
MODELS: dict[str, tuple[str, dict[str, Any], int, str | None]] = {
    "AE": ("ae", {}, 16, None),
    "VAE": ("vae", {}, 16, None),
    "AE, density fitted": ("ae", {}, 16, "gmm"),
    "VAE, β = 50": ("beta-vae", {"beta": 50.0}, 16, None),
    "AE, d = 2": ("ae", {}, 2, None),
}


def refitted(model: Any, report: ct.Report, remedy: str, train: Any) -> Any:
    """Apply a remedy of a report, as the command line does it."""
    with tempfile.TemporaryDirectory() as folder:
        run = model.save(Path(folder) / "run")
        report.save(run / REPORT[1])
        origin = Origin(run, remedy)
    if not origin.is_trained:
        own = origin.own(origin.recipe)
        model = ct.Autoencoder(recipe=origin.recipe, recipe_params=own, **origin.parameters).fit(train)
    density = origin.density(origin.recipe)
    return model if density is None else model.fit_prior(density, random_state=0)


def main() -> None:
    p = parser(__doc__, out="diagnostics/results/mnist.json")
    p.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="with fewer, nothing is written"
    )
    args = p.parse_args()
    data = load_data(args.data)
    train = data["x_train"][:ROWS]
    first: dict[str, ct.Report] = {}
    walks = []

    def audited(model: Any) -> ct.Report:
        return ct.audit(
            model, data["x_test"], train, labels=data["y_test"], labels_train=data["y_train"][:ROWS]
        )

    def fails(report: ct.Report) -> list[str]:
        return [f.name for f in report.findings if f.verdict == "fail"]

    for name in args.models:
        recipe, own, d, density = MODELS[name]
        model: Any = ct.Autoencoder(
            recipe=recipe, recipe_params=own or None, latent_dim=d, network="mlp", likelihood="bernoulli",
            max_epochs=EPOCHS, random_state=0,
        ).fit(train)  # fmt: skip
        if density is not None:
            model.fit_prior(density, random_state=0)
        report = first[name] = audited(model)
        walks.append([name, "", report.summary, ", ".join(fails(report))])
        tried: set[str] = set()
        for _ in range(STEPS):
            print(*walks[-1], sep=" | ", file=sys.stderr, flush=True)
            offered = [
                r for f in report.findings if f.verdict == "fail" for r in f.remedies
                if r.changes and r.says not in tried
            ]  # fmt: skip
            if not offered:
                break
            tried.add(offered[0].says)
            model = refitted(model, report, offered[0].name, train)
            report = audited(model)
            walks.append(["", offered[0].says, report.summary, ", ".join(fails(report))])

    if args.models != list(MODELS):
        return
    write_json(
        args.out,
        title="Five models of MNIST, as the health report sees them",
        command=command_line(args, "diagnostics/mnist.py"),
        machine=machine_info(args.threads),
        **side_by_side(first),
        notes=[
            f"MLP 784-512-256-d, Bernoulli, {EPOCHS} epochs on {ROWS:,} items; one seed; fast budget.",
            "Verdict and statistic of each check; -: it does not apply.",
            *(
                f"{name or '…'}{f' → {says}' if says else ''}: {summary}{f' ({fail})' if fail else ''}"
                for name, says, summary, fail in walks
            ),
        ],
    )


if __name__ == "__main__":
    main()
