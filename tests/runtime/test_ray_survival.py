"""A group of Ray actors is made whole again after a loss, and grows and shrinks; those who stay are the same processes.

What becomes of a training meanwhile is a matter of `tests/conformance`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import dist_relu as dr
from dist_relu.errors import NoRoom
from dist_relu.runtime.backends import RayBackend
from dist_relu.runtime.backends.base import ignore_event, run_task
from dist_relu.runtime.backends.ray.reaper import processes_of
from dist_relu.runtime.worker import Task
from dist_relu.runtime.world import World
from tests.cases import chaos, long
from tests.programs import wait_until
from tests.ray_clusters import RayCluster

_numbers = count(1)


def meet(world: World, request: None) -> tuple[int, int]:
    """Wait for all others; returns the rank and the process."""
    world.barrier.wait()
    return world.rank, os.getpid()


def die_while_others_wait(world: World, request: Sequence[int]) -> None:
    world.barrier.wait()
    if world.rank in request:
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        world.barrier.wait()


def open_files(world: World, request: None) -> int:
    return len(os.listdir("/proc/self/fd"))


def run(backend: RayBackend, function: Callable[[World, Any], Any], request: object = None) -> list[Any]:
    task = Task.of(next(_numbers), function, request)
    return run_task(backend, task, range(len(backend.peers)), ignore_event)


def pids(backend: RayBackend) -> list[int]:
    """The processes of the workers, which have met."""
    met = run(backend, meet)
    assert [rank for rank, _ in met] == list(range(len(met)))
    assert [pid for _, pid in met] == [peer.pid for peer in backend.peers]
    return [pid for _, pid in met]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def backend(ray_cluster: RayCluster) -> Iterator[RayBackend]:
    """Three workers in a cluster with room for four."""
    started = RayBackend(3, worker_timeout_s=2)
    try:
        yield started
        room = started.room()
    finally:
        started.close()
    assert room == 4


@pytest.mark.parametrize("victims", [*long([1], [0, 2]), *chaos([0], [0, 1, 2])])
def test_workers_that_were_killed_are_replaced_and_the_others_stay(backend: RayBackend, victims: list[int]) -> None:
    before = pids(backend)
    with pytest.raises(dr.WorkerLost) as lost:
        run(backend, die_while_others_wait, victims)
    assert set(lost.value.ranks) <= set(victims)
    with pytest.raises(dr.WorkerLost):
        pids(backend)
    backend.regroup(3)
    after = pids(backend)
    assert [old == new for old, new in zip(before, after, strict=True)] == [rank not in victims for rank in range(3)]


@pytest.mark.long
def test_a_group_grows_and_shrinks_and_gives_back_the_cpus_of_those_who_left(backend: RayBackend) -> None:
    before = pids(backend)
    backend.regroup(1)
    assert pids(backend) == before[:1]
    wait_until(lambda: not any(map(is_alive, before[1:])))
    wait_until(lambda: backend.room() == 4)
    with dr.start(3, backend="ray") as others:
        assert others.workers == 3
    backend.regroup(4)
    assert pids(backend)[:1] == before[:1]


@pytest.mark.long
def test_workers_that_wait_for_a_place_are_the_same_processes_when_they_get_one(backend: RayBackend) -> None:
    before = pids(backend)
    backend.keep_spare(keeps=True)
    backend.regroup(1)
    assert pids(backend) == before[:1]
    assert backend.room() == 4
    backend.regroup(4)
    assert pids(backend)[:3] == before
    backend.regroup(2)
    backend.keep_spare(keeps=False)
    wait_until(lambda: not is_alive(before[2]))
    assert pids(backend) == before[:2]
    wait_until(lambda: backend.room() == 4)


@pytest.mark.long
def test_where_there_is_no_room_for_all_the_error_says_for_how_many_there_is(backend: RayBackend) -> None:
    before = pids(backend)
    with pytest.raises(NoRoom, match=r"There is no room for 5 workers with 1 CPUs each in this Ray cluster, but for 4"):
        backend.regroup(5)
    backend.regroup(3)
    assert pids(backend) == before


@pytest.mark.long
def test_a_worker_that_was_stopped_is_replaced(backend: RayBackend) -> None:
    before = pids(backend)
    os.kill(before[1], signal.SIGSTOP)
    with pytest.raises(dr.WorkerLost, match=rf"Worker 1 \(host .*, pid {before[1]}\) was stopped by a signal") as lost:
        pids(backend)
    assert lost.value.ranks == [1]
    backend.regroup(3)
    after = pids(backend)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert not is_alive(before[1])


@pytest.mark.long
def test_a_worker_that_dies_while_the_group_comes_together_is_replaced_too(
    ray_cluster: RayCluster, backend: RayBackend
) -> None:
    before = pids(backend)
    with pytest.raises(dr.WorkerLost):
        run(backend, die_while_others_wait, [0])
    killer = threading.Thread(target=kill_next, args=[ray_cluster, set(actors(ray_cluster))])
    killer.start()
    with pytest.raises(dr.WorkerLost, match="Worker 0"):
        backend.regroup(3)
    killer.join()
    backend.regroup(3)
    assert pids(backend)[1:] == before[1:]


def kill_next(cluster: RayCluster, known: set[int]) -> None:
    """Kill the next actor that starts, as soon as it is one."""
    wait_until(lambda: bool(set(actors(cluster)) - known))
    os.kill((set(actors(cluster)) - known).pop(), signal.SIGKILL)


def actors(cluster: RayCluster) -> list[int]:
    """The processes of all workers of a cluster."""
    found = []
    for pid in processes_of(cluster.environment["RAY_TMPDIR"]):
        with suppress(OSError):
            if "DistReluWorker" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"):
                found.append(pid)
    return found


@pytest.mark.chaos
def test_nothing_is_left_behind_however_often_the_group_changes(backend: RayBackend) -> None:
    for workers in (3, 2, 3, 1, 3):
        backend.regroup(workers)
    pids(backend)
    here, there = open_files_here(), run(backend, open_files)[0]
    for workers in (3, 2, 3, 1, 3, 2, 3):
        backend.regroup(workers)
    pids(backend)
    assert (open_files_here(), run(backend, open_files)[0]) == (here, there)


def open_files_here() -> int:
    return len(os.listdir("/proc/self/fd"))
