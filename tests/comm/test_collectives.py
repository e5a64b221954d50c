"""Shared memory, barrier and all-reduce, on their own."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.comm.barrier import NodeBarrier, TaskAborted, abort, control_shape
from dist_relu.comm.shared_memory import SharedArray, attach


def mapped_segments() -> int:
    return Path("/proc/self/maps").read_text().count("/memfd:dist_relu")


def open_segments() -> int:
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum("/memfd:dist_relu" in link for link in links)


def test_shared_arrays_are_seen_by_all_and_gone_with_the_last() -> None:
    gc.collect()
    mapped, opened = mapped_segments(), open_segments()
    shared = SharedArray((3, 4), np.float32)
    other = attach(shared.handle)
    other[1, 2] = 5
    assert shared.array[1, 2] == 5
    assert shared.array.sum() == 5
    del shared
    assert other[1, 2] == 5
    del other
    assert (mapped_segments(), open_segments()) == (mapped, opened)


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MemoryError, match=r"No room for [\d,]+ MB of shared memory: [\d,]+ MB available"):
        SharedArray((1 << 50,), np.float64)


def test_calls_leave_no_memory_behind(digits: dr.data.Split) -> None:
    model = dr.nn.Sequential(dr.nn.Dense(10))
    with dr.start(backend="serial") as coordinator:
        coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=100)
        coordinator.forward(model, digits.test.x)
        gc.collect()
        before = mapped_segments(), open_segments()
        for _ in range(5):
            coordinator.fit(model, digits.train, dr.optim.SGD(), epochs=1, batch_size=100)
            coordinator.forward(model, digits.test.x)
        gc.collect()
        assert (mapped_segments(), open_segments()) <= before


def barriers(num: int) -> tuple[list[NodeBarrier], SharedArray]:
    """Barriers of threads of this process, which stand for ranks."""
    control = SharedArray(control_shape(num), np.int64)
    made = [NodeBarrier(control.array, rank, [os.getpid()] * num) for rank in range(num)]
    for barrier in made:
        barrier.begin(1)
    return made, control


def test_nobody_passes_a_barrier_before_the_last_has_come() -> None:
    made, _ = barriers(3)
    counts = np.zeros(3, int)
    failures: list[tuple[int, ...]] = []

    def work(rank: int) -> None:
        for step in range(1, 200):
            counts[rank] = step
            made[rank].wait()
            if counts.min() < step:
                failures.append((rank, step, *counts))
            made[rank].wait()

    threads = [threading.Thread(target=work, args=[rank]) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_call_that_was_given_up_releases_those_who_wait() -> None:
    made, control = barriers(2)
    threading.Timer(0.05, abort, [control.array, 1]).start()
    with pytest.raises(TaskAborted):
        made[0].wait()
    with pytest.raises(TaskAborted):
        made[0].check()
    made[0].begin(2)
    made[0].check()
