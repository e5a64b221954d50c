"""Who else may use a Ray cluster, and whose notes of one are believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dist_relu.runtime.backends.ray.authentication import danger_of
from dist_relu.runtime.backends.ray.start_note import address_in


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "[fd00::1]:6379", "head:6379"])
def test_a_cluster_on_a_network_that_asks_for_no_token_is_told_of(address: str) -> None:
    danger = danger_of(address, has_authentication=False)
    assert danger is not None
    assert danger.startswith(f"The Ray cluster at {address} asks for no token")
    assert danger_of(address, has_authentication=True) is None


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "[::1]:6379", "localhost:6379"])
def test_a_cluster_on_the_loopback_address_is_not(address: str) -> None:
    assert danger_of(address, has_authentication=False) is None


def test_a_note_that_is_a_link_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("127.0.0.1:6379\n")
    (tmp_path / "note").symlink_to(tmp_path / "theirs")
    assert address_in(str(tmp_path / "note")) is None
