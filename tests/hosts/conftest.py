"""Three hosts with links of 1 Gbit/s, for all tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.hosts.network import network_of


@pytest.fixture(scope="session", autouse=True)
def network() -> Iterator[None]:
    """A network apart from those that others may have on this machine."""
    if os.geteuid() != 0:
        pytest.fail("These tests make network namespaces: run them as root.")
    with network_of(3, "test"):
        yield
