"""What every test shares, the examples in docstrings included."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read when torch is imported, which is later than this.
# The models of tests are too small for two threads to gain anything, and on a busy machine threads that wait
# for each other take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, however slow the machine is.
settings.register_profile(
    "same",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("same")

# A shell's background job ignores Ctrl-C, and what tests say of it is of programs that do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _examples_write_elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each docstring's example in an empty folder, so that it may save without leaving a trace."""
    if isinstance(request.node, pytest.DoctestItem):
        folder: Path = request.getfixturevalue("tmp_path")
        monkeypatch.chdir(folder)


@pytest.fixture(scope="session")
def refused() -> Callable[..., bool]:
    """Tell whether a recipe's objective needs of items or parts what they do not offer, and says what would.

    That is no fault of a recipe; any other refusal is raised.
    """
    from chartae.core.errors import PlanError
    from chartae.models.recipes import build

    def told(name: str, shape: object, **parameters: object) -> bool:
        try:
            build(name, shape, **{"latent_dim": 2, **parameters})
        except PlanError as error:
            if re.fullmatch(r"\w+ does not go with .+, (which|whose) .+: use .+", str(error)):
                return True
            raise
        return False

    return told
