"""The command ``chartae``, and ``python -m chartae``: Ctrl-C costs one line, from the first import on."""

import os
import signal
import sys
from typing import Any


def main() -> int:
    """Start the command line."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job has none
            signal.signal(signal.SIGINT, _interrupt)
        from chartae.apps.cli import main as command

        return command()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is to end
        return _stopped()


def _interrupt(number: int, frame: Any) -> None:
    # Another one, on the way out, is not to break the way out.
    signal.signal(signal.SIGINT, lambda *_: os._exit(_stopped()))
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        # An exception would pass through C++, which answers with an abort. Nothing has been done yet.
        os._exit(_stopped())
    signal.default_int_handler(number, frame)


def _stopped() -> int:
    print("Interrupted.", file=sys.stderr, flush=True)
    return 130


if __name__ == "__main__":
    sys.exit(main())
