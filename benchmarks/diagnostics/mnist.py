"""Does the health report tell models of MNIST apart?

Five models of the same networks: a plain autoencoder, a VAE, the autoencoder with a density fitted to its
codes, a VAE that has collapsed (β = 50), and an autoencoder with two latent dimensions. Each is audited on
the 10,000 test items.

    python benchmarks/diagnostics/mnist.py --data mnist.npz
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import chartae as ct
from chartae.audits.findings import checks
from common import command_line, load_data, machine_info, parser, write_json

ROWS, EPOCHS = 30_000, 10
SHORT = {"ok": "ok", "warn": "warn", "fail": "FAIL", "cannot tell": "?"}
MODELS: dict[str, tuple[str, dict[str, Any], int, str | None]] = {
    "AE": ("ae", {}, 16, "prior"),
    "VAE": ("vae", {}, 16, None),
    "AE, density fitted": ("ae", {}, 16, "gmm"),
    "VAE, β = 50": ("beta-vae", {"beta": 50.0}, 16, None),
    "AE, d = 2": ("ae", {}, 2, "prior"),
}


def main() -> None:
    p = parser(__doc__, out="results/mnist.json")
    args = p.parse_args()
    data = load_data(args.data)
    train = data["x_train"][:ROWS]
    found, seconds, kept = {}, {}, {}
    for name, (recipe, own, d, density) in MODELS.items():
        key = (recipe, d)
        if key not in kept:
            kept[key] = ct.Autoencoder(
                recipe=recipe, recipe_params=own or None, latent_dim=d, network="mlp", likelihood="bernoulli",
                max_epochs=EPOCHS, random_state=0, verbose=0,
            ).fit(train)  # fmt: skip
        model = kept[key]
        if density is not None:
            model.fit_prior("normal" if density == "prior" else density, random_state=0)
        began = time.perf_counter()
        report = ct.audit(
            model, data["x_test"], train, labels=data["y_test"], labels_train=data["y_train"][:ROWS]
        )
        seconds[name] = time.perf_counter() - began
        found[name] = {f.name: f for f in report.findings}
        print(name, report.summary, f"{seconds[name]:.0f} s", file=sys.stderr, flush=True)

    def cell(name: str, check: str) -> str:
        finding = found[name].get(check)
        if finding is None:
            return "-"
        value = "" if finding.statistic is None else f" {finding.statistic:.3g}"
        return SHORT[finding.verdict] + value

    names = [check for check in checks if any(check in f for f in found.values())]
    write_json(
        args.out,
        title="Five models of MNIST, as the health report sees them",
        command=command_line(args, "diagnostics/mnist.py"),
        machine=machine_info(args.threads),
        columns=["check", *MODELS],
        rows=[
            *([check, *(cell(name, check) for name in MODELS)] for check in names),
            ["seconds", *(f"{seconds[name]:.0f}" for name in MODELS)],
        ],
        notes=[
            f"MLP 784-512-256-d, Bernoulli, {EPOCHS} epochs on {ROWS:,} items; one seed; fast budget.",
            "Verdict and statistic of each check; -: it does not apply.",
        ],
        raw={name: [f.to_dict() | {"also": None} for f in each.values()] for name, each in found.items()},
    )


if __name__ == "__main__":
    main()
