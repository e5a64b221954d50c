"""The test network of `cluster/hosts`, for tests."""

from __future__ import annotations

import subprocess

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
