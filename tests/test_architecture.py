"""Imports only go down the floors, importing has no side effects, and the command line starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "chartae"
FLOORS = {
    "core": 0, "parts": 1, "models": 2, "training": 3, "geometry": 4, "density": 4, "transfer": 4,
    "audits": 5, "estimators": 6, "apps": 7,
}  # fmt: skip
EXEMPT = {"__init__.py", "__main__.py"}  # the public face looks up names on every floor


def imported(tree: ast.AST, package: list[str]) -> list[tuple[int, str]]:
    """Every absolute name that a module imports, wherever in the file it does so, with the line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            if called in {"import_module", "__import__"}:
                found.append((node.lineno, str(node.args[0].value)))
    return found


def violations(source: Path) -> list[str]:
    """Every import that goes up, sideways or through the public face, as ``file:line: what is wrong``."""
    wrong = []
    for file in sorted(source.rglob("*.py")):
        inside = file.relative_to(source)
        if str(inside) in EXEMPT:
            continue
        own = inside.parts[0]
        if own not in FLOORS:
            wrong.append(f"{inside}:1: {own} is on no floor")
            continue
        package = ["chartae", *inside.parts[:-1]]
        for line, name in imported(ast.parse(file.read_text(encoding="utf-8")), package):
            root, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if root != "chartae" or target == own or target.startswith("__"):
                continue
            where = f"{inside}:{line}: {own} (floor {FLOORS[own]}) imports {name}"
            if target not in FLOORS:
                if own != "apps":  # only the top floor stands above the public face
                    wrong.append(f"{where}, the public face: import it from where it is defined")
            elif FLOORS[target] > FLOORS[own]:
                wrong.append(f"{where} from floor {FLOORS[target]}, above it")
            elif FLOORS[target] == FLOORS[own]:
                wrong.append(f"{where}, a sibling on its own floor")
    return wrong


def test_imports_only_go_down():
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("core/a.py", "\nfrom chartae.parts.networks import MLP"),
        ("core/a.py", "\nimport chartae.parts.networks as n"),
        ("core/a.py", "\nfrom chartae import parts"),
        ("core/a.py", "\nfrom chartae import VAE"),
        ("core/a.py", "\nimport chartae"),
        ("core/a.py", "\nfrom .. import training"),
        ("models/deep/a.py", "\nfrom ...training import engine"),
        ("models/a.py", "def f():\n    from ..estimators.autoencoders import VAE"),
        ("models/a.py", "import importlib\nm = importlib.import_module('chartae.apps.cli')"),
        ("parts/__init__.py", "\nfrom ..models import recipes"),
        ("geometry/a.py", "\nfrom chartae.density import bounds"),
        ("density/a.py", "\nfrom ..transfer.heads import Head"),
        ("somewhere.py", ""),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, code):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(code)
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{file}:{2 if code else 1}: ")


def test_what_is_allowed_passes(tmp_path):
    for file, code in {
        "__init__.py": "from chartae.estimators import autoencoders",
        "core/a.py": "import torch\nfrom . import b\nfrom chartae.core.errors import PlanError",
        "audits/a.py": "from ..geometry import dimension\nfrom chartae import __version__",
        "apps/a.py": "import chartae as ct\nfrom chartae import VAE",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(code)
    assert violations(tmp_path) == []


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_everything_changes_no_global_state():
    # The other packages come first: what they do when imported is not ours.
    run("""
import importlib, locale, logging, os, pickle, pkgutil, random, signal, warnings
import numpy as np, pandas, PIL.Image, rich.progress, scipy.stats, torch, typer
import sklearn.base, sklearn.datasets, sklearn.model_selection, sklearn.utils.validation

def state():
    tiny = torch.full((64,), 1e-40)
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "denormals survive": bool((tiny * 0.5 > 0).all()) and float(np.float32(1e-40) * np.float32(0.5)) > 0,
        "numpy generator": pickle.dumps(np.random.get_state()),
        "numpy errors": np.geterr(),
        "random": random.getstate(),
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers)),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "scikit-learn": sklearn.get_config(),
        "locale": locale.setlocale(locale.LC_ALL),
    }

before = state()
assert before["denormals survive"]
import chartae
for module in pkgutil.walk_packages(chartae.__path__, "chartae."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in chartae.__all__:
    getattr(chartae, name)
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, changed
""")


HEAVY = "{'torch', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'jinja2', 'numpy', 'transformers'}"


def test_importing_chartae_loads_nothing_heavy():
    assert run(f"import sys, chartae; print(sorted({HEAVY} & set(sys.modules)))").strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import sys
sys.argv = ["chartae", *{arguments}]
from chartae.apps.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", sorted({HEAVY} & set(sys.modules)))
"""
    assert run(code).splitlines()[-1] == "loaded: []"
