"""Workers that wait long for another one say for whom, and where that one is."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.comm.stacks import offer_stack, stack_of
from dist_relu.core.arrays import Array
from dist_relu.core.progress_log import PROGRESS_LOG
from dist_relu.runtime.backends import LocalBackend

SLOW_AFTER_S = 0.3
NOBODY = -1
"""The rank of no worker."""


def wait_for(path: Path) -> None:
    """Where a worker hangs until a file appears."""
    while not path.exists():
        time.sleep(0.01)


def hang(world: dr.World, request: tuple[int, Path]) -> int:
    """Let one worker hang while the others wait for it; returns its pid."""
    rank, path = request
    world.barrier.wait()
    if world.rank == rank:
        wait_for(path)
    world.barrier.wait()
    return os.getpid()


class Told(logging.Handler):
    """What the user is told of workers, whatever else is slow on this machine; calls `react` for the first of it.

    about: stands in each text.
    """

    def __init__(self, about: str, react: Callable[[], object]) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._about, self._react = about, react

    def emit(self, record: logging.LogRecord) -> None:
        if self._about in record.getMessage():
            self.texts.append(record.getMessage())
            if len(self.texts) == 1:
                self._react()


@pytest.fixture(scope="module")
def coordinator() -> Iterator[dr.Coordinator]:
    with dr.Coordinator(LocalBackend(3, slow_after_s=SLOW_AFTER_S)) as coordinator:
        coordinator.run(hang, (NOBODY, Path()))  # loads this module, and what they wait with
        yield coordinator


@contextmanager
def listening(about: str, react: Callable[[], object]) -> Iterator[Told]:
    log, told = logging.getLogger(PROGRESS_LOG), Told(about, react)
    log.addHandler(told)
    try:
        yield told
    finally:
        log.removeHandler(told)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_user_hears_who_is_waited_for_and_where_its_python_is(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "go on"
    with listening("worker 1", path.touch) as told:
        pids = coordinator.run(hang, (1, path))
    first, over = told.texts
    name = rf"worker 1 \(host \S+, pid {pids[1]}\)"
    assert re.search(
        rf"Waiting for {name} for \d+ s: it is in a call, \d+ s after that began\. Workers? \S.* for it\.", first
    )
    assert "in hang" in first
    assert re.match(rf"The wait for .*{name}.* is over, after \d+ s\.", over)


def test_ctrl_c_during_such_a_wait_says_for_whom(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    path = tmp_path / "go on"
    with listening("worker 0", interrupt), pytest.raises(KeyboardInterrupt) as raised:
        coordinator.run(hang, (0, path))
    path.touch()
    (note,) = raised.value.__notes__
    assert "Waiting for worker 0 " in note


def test_a_worker_that_returns_without_the_barrier_of_the_others_is_named(coordinator: dr.Coordinator) -> None:
    def leave(world: dr.World, request: None) -> None:
        if world.rank != 2:
            world.barrier.wait()

    with listening("worker 2", interrupt), pytest.raises(KeyboardInterrupt) as raised:
        coordinator.run(leave, None)
    assert "It has done its part of this call, and never came to the barrier" in raised.value.__notes__[0]


MARK = 1.0


@dataclass(eq=False)
class Hanging(dr.nn.Layer):
    """Hangs when it is given the sample of which everything is `MARK`, until a file appears."""

    path: str

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[dr.nn.Param]:
        return ()

    def forward(self, x: Array, run: dr.nn.Pass = dr.nn.PLAIN) -> Array:
        if (x == MARK).all(axis=1).any():
            wait_for(Path(self.path))
        return x

    def backward(self, dy: Array, run: dr.nn.Pass = dr.nn.PLAIN, *, wants_dx: bool = True) -> Array:
        return dy


@pytest.mark.long
def test_step_and_phase_of_a_training_are_told(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((90, 4))
    x[75] = MARK  # step 2 has samples 60 to 89, and worker 1 those from 70 to 79
    model = dr.nn.Sequential(Hanging(str(tmp_path / "go on")), dr.nn.Dense(1))
    data = dr.Dataset(x, np.zeros((90, 1)))
    with listening("in step 2,", (tmp_path / "go on").touch) as told:
        coordinator.fit(model, data, dr.optim.SGD(1e-6), epochs=1, batch_size=30, shards=3, shuffle=False)
    assert re.search(r"Waiting for worker 1 .*: it is in step 2, in the pass over its samples", told.texts[0])


def test_an_evaluation_that_only_some_have_done_is_told_of(coordinator: dr.Coordinator, tmp_path: Path) -> None:
    x = np.zeros((600, 4))
    x[300] = MARK  # in the second of three blocks
    path = tmp_path / "go on"
    model = dr.nn.Sequential(Hanging(str(path)), dr.nn.Dense(1)).build((4,)).initialize(0)
    with listening("Others are done", path.touch) as told:
        coordinator.forward(model, x)
    assert re.search(r"Waiting for worker 1 .*: it is in an evaluation", told.texts[0])
    assert "in wait_for" in told.texts[0]


@pytest.mark.long
def test_the_next_call_says_who_is_still_busy_with_one_that_was_given_up(
    coordinator: dr.Coordinator, tmp_path: Path
) -> None:
    path = tmp_path / "go on"
    with listening("worker 1", interrupt), pytest.raises(KeyboardInterrupt):
        coordinator.run(hang, (1, path))
    with listening("The call was given up", path.touch) as told:
        assert coordinator.run(lambda world, _: world.rank, None) == [0, 1, 2]
    assert re.search(r"Waiting for worker 1 .*: it is in a call", told.texts[0])


def test_a_stack_shows_where_a_process_is() -> None:
    assert "test_a_stack_shows_where_a_process_is" in stack_of(os.getpid(), *offer_stack())


def test_no_stack_is_asked_of_a_process_that_offers_none() -> None:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        descriptor, inode = offer_stack()
        assert "it offers none" in stack_of(pid, descriptor, inode + 1)
        os.kill(pid, signal.SIGSTOP)
        assert "SIGSTOP has stopped it" in stack_of(pid, descriptor, inode, timeout_s=0.1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert "has ended" in stack_of(pid, descriptor, inode)
