"""Signals that ask for an end: the first lets a command write what it has, a second Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from dist_relu.cli.signals import ending_signals
from tests.programs import TIMEOUT_S, wait_for_line

SLOW_TO_END = """
import os, signal, sys, time
from dist_relu.cli.signals import ending_signals

with ending_signals() as signals:
    try:
        os.kill(os.getpid(), signal.Signals[sys.argv[1]])
        time.sleep(1000)
    except KeyboardInterrupt:
        print("writing", signals.exit_code, flush=True)
        sys.stdin.readline()
        print("wrote", flush=True)
sys.exit(signals.exit_code)
"""


def slow_to_end(first: signal.Signals) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_END, first.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_for_line(program, f"writing {128 + first}")
    return program


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_at_once_what_is_ending_already(first: signal.Signals) -> None:
    program = slow_to_end(first)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=TIMEOUT_S)[0] == ""
    assert program.returncode == 130


def test_other_signals_don_t_disturb_what_is_ending() -> None:
    program = slow_to_end(signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGHUP):
        program.send_signal(number)
    assert program.communicate("\n", timeout=TIMEOUT_S)[0] == "wrote\n"
    assert program.returncode == 143


def broken_by_ctrl_c() -> None:
    """Do as modules written in C do."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None


def test_an_import_that_ctrl_c_has_broken_is_an_interruption() -> None:
    with ending_signals() as signals, pytest.raises(KeyboardInterrupt), signals.kept():
        broken_by_ctrl_c()
    with ending_signals() as signals, pytest.raises(ImportError), signals.kept():
        raise ImportError("no module of this name")


class BrokenByCtrlC:
    """Is interrupted while it goes away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_of_a_finalizer_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with ending_signals() as signals, pytest.raises(KeyboardInterrupt):
        interrupted_late()
    assert signals.exit_code == 130
    assert capsys.readouterr().err == ""


def interrupted_late() -> None:
    BrokenByCtrlC()
    time.sleep(TIMEOUT_S)
