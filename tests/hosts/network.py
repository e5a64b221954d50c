"""The test network of `cluster/hosts`, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.programs import ROOT, TIMEOUT_S

HOSTS = str(ROOT / "cluster" / "hosts")


def hosts(*arguments: str) -> str:
    """What the command says."""
    done = subprocess.run([HOSTS, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sent_bytes() -> dict[str, int]:
    """What each host has sent so far."""
    lines = [line.split() for line in hosts("status").splitlines()]
    return {name: int(sent.removeprefix("tx_bytes=")) for name, _, _, sent, _ in lines}


@contextmanager
def network_of(number: int, name: str) -> Iterator[None]:
    """Make hosts with links of 1 Gbit/s, which `hosts` finds, apart from those that others may have on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTS_NET", f"{name}{os.getpid()}")
        hosts("up", str(number), "--rate", "1gbit")
        try:
            yield
        finally:
            hosts("down")
