"""Where the program `dist-relu` starts: outside the package, so that Ctrl-C has an answer while that is imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; see `dist_relu.cli.main.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from dist_relu.cli import main as cli

    cli.load(arguments)
    try:
        cli.main(arguments)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what the command says by its exit code stands while Python ends


def _end(*_: object) -> None:
    """Nothing is there yet that would have to be put away."""
    os.write(2, b"dist-relu: error: interrupted.\n")
    os._exit(130)
