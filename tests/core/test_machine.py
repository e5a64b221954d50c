"""Which CPUs of a machine are taken, and which of them are one core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dist_relu.core import machine


@contextmanager
def machine_of(cores: dict[int, str]) -> Iterator[None]:
    """Pretend to have these CPUs, each of a core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: set(cores))
        patch.setattr(machine, "_core_of", lambda cpu: (cores[cpu],))
        yield


@pytest.mark.parametrize("names", ["aabb", "abab"])
def test_hardware_threads_of_one_core_are_taken_last(names: str) -> None:
    cores = dict(enumerate(names))
    with machine_of(cores):
        assert machine.num_cores() <= 2
        taken = [machine.last_cpus(number) for number in (1, 2, 3, 9)]
        assert [machine.count_cores(cpus) for cpus in taken] == [1, 2, 2, 2]
    assert {cores[cpu] for cpu in taken[1]} == {"a", "b"}
    assert [len(cpus) for cpus in taken] == [1, 2, 3, 4]
    assert len(set(taken[3])) == 4


def test_without_such_threads_the_last_cpus_are_taken() -> None:
    with machine_of({0: "a", 1: "b", 2: "c", 5: "d"}):
        assert machine.last_cpus(2) == [5, 2]
