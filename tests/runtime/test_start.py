"""What workers may be started with."""

from __future__ import annotations

from typing import Any

import pytest

import dist_relu as dr
from dist_relu.runtime.backends import LocalBackend, SerialBackend


def rank_and_size(world: dr.World, request: None) -> tuple[int, int]:
    return world.rank, world.size


def test_a_backend_may_be_given_as_an_object() -> None:
    with dr.start(backend=LocalBackend(1)) as coordinator:
        assert coordinator.backend == "local"
        assert coordinator.run(rank_and_size, None) == [(0, 1)]


@pytest.mark.parametrize(
    "passed", [{"workers": 1}, {"threads_per_worker": 2}, {"address": "h:1"}, {"nodes": 1}, {"spread": True}]
)
def test_a_backend_has_its_workers_already(passed: dict[str, Any]) -> None:
    (name,) = passed
    backend = SerialBackend()
    with pytest.raises(ValueError, match=rf"{name}=.*, but this SerialBackend has its workers already\."):
        dr.start(backend=backend, **passed)
    backend.close()


def test_a_backend_has_one_coordinator() -> None:
    backend = SerialBackend()
    with dr.start(backend=backend), pytest.raises(ValueError, match="This SerialBackend has a coordinator already"):
        dr.start(backend=backend)


@pytest.mark.parametrize(
    ("passed", "message"),
    [
        ({"workers": 2, "nodes": 2, "spread": True}, "nodes=2 and spread=True both say where workers go"),
        ({"workers": "2:4", "nodes": 2}, "nodes=2 can't be kept while workers='2:4' come and go. Pass one number."),
        ({"workers": 2, "nodes": 0}, "nodes=0: must be at least 1"),
    ],
)
def test_nodes_that_make_no_sense_are_refused(passed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dr.start(backend="ray", **passed)


def test_what_is_no_backend_is_refused() -> None:
    names = "auto, serial, local, mpi, ray"
    with pytest.raises(ValueError, match=rf"backend='locall' is unknown\. Choose one of: {names}\."):
        dr.start(backend="locall")
    wrong: Any = SerialBackend
    with pytest.raises(TypeError, match=rf"backend=<class .*SerialBackend'>: expected a Backend, or one of .* {names}"):
        dr.start(backend=wrong)
