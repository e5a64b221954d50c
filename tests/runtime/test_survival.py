"""Workers die, come and go, and whatever was under way ends with the same bits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import dist_relu as dr
from dist_relu.runtime.backends import LocalBackend
from dist_relu.runtime.workers import Workers
from dist_relu.runtime.world import World
from tests.programs import wait_until


def pid(world: World, request: None) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def data() -> dr.data.Split:
    return dr.data.load("digits")


@pytest.fixture(scope="module")
def undisturbed(data: dr.data.Split) -> tuple[np.ndarray, np.ndarray]:
    """The parameters and the losses of a run that nobody disturbs."""
    with dr.start(1, backend="serial") as coordinator:
        return trained(coordinator, data)


def trained(
    coordinator: dr.Coordinator, data: dr.data.Split, disturb: Callable[[int], object] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Train, and be told each epoch."""

    class Disturbance:
        def on_epoch_end(self, trainer: dr.Trainer, summary: dr.EpochSummary) -> None:
            if disturb:
                disturb(summary.epoch)

    model = dr.nn.mlp([32], 10)
    result = coordinator.fit(
        model,
        data.train,
        dr.optim.AdamW(1e-3),
        epochs=4,
        batch_size=64,
        shards=4,
        seed=3,
        clip_norm=1.0,
        validation=data.test,
        callbacks=[Disturbance()],
    )
    assert [epoch.epoch for epoch in result.epochs] == [0, 1, 2, 3]
    assert len(result.validations) == 4
    return model.values.copy(), result.losses


@pytest.fixture
def workers() -> Iterator[dr.Coordinator]:
    with dr.start(3, backend="local") as coordinator:
        yield coordinator


def test_a_killed_worker_is_replaced_and_training_ends_with_the_same_bits(
    data: dr.data.Split, undisturbed: tuple[np.ndarray, np.ndarray]
) -> None:
    with dr.start(2, backend="local") as workers:
        pids = workers.run(pid, None)
        values, losses = trained(workers, data, lambda epoch: os.kill(pids[1], signal.SIGKILL) if epoch == 1 else None)
        assert np.array_equal(values, undisturbed[0])
        assert np.array_equal(losses, undisturbed[1])
        after = workers.run(pid, None)
        assert after[0] == pids[0]
        assert pids[1] not in after
        (recovery,) = workers.recoveries
    assert recovery.workers == (2, 2)
    assert f"pid {pids[1]}) was killed by signal 9 (Killed)" in recovery.loss
    assert recovery.step == 2 * 23


@dataclass(eq=False)
class SleepsOnce(dr.nn.Layer):
    """The identity, which sleeps in the worker that is the first to make a file."""

    path: str
    coordinator: int

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[dr.nn.Param]:
        return []

    def forward(self, x: np.ndarray, run: dr.nn.Pass = dr.nn.PLAIN) -> np.ndarray:
        if len(x) > 1 and os.getpid() != self.coordinator:  # in a step
            with suppress(FileExistsError), open(self.path, "x"):
                time.sleep(1000)
        return x.copy()

    def backward(self, dy: np.ndarray, run: dr.nn.Pass = dr.nn.PLAIN, *, wants_dx: bool = True) -> np.ndarray:
        return dy


@pytest.mark.long
def test_a_worker_that_stands_still_in_a_step_is_replaced(tmp_path: Path, data: dr.data.Split) -> None:
    values = []
    for workers in (2, 1):
        sleeper = SleepsOnce(str(tmp_path / "slept"), os.getpid())
        model = dr.nn.Sequential(dr.nn.Dense(16), sleeper, dr.nn.Dense(10))
        with dr.start(workers, backend="local", worker_timeout_s=1) as coordinator:
            coordinator.fit(model, data.train, dr.optim.SGD(0.1), epochs=1, batch_size=100, shards=2)
            values.append(model.values.copy())
            assert [recovery.step for recovery in coordinator.recoveries] == ([0] if workers == 2 else [])
    assert np.array_equal(values[0], values[1])


@pytest.mark.long
def test_others_do_the_work_of_workers_that_were_ended(
    data: dr.data.Split, undisturbed: tuple[np.ndarray, np.ndarray]
) -> None:
    with dr.start(3, backend="local", on_failure="shrink") as coordinator:
        pids = coordinator.run(pid, None)
        signals = [signal.SIGKILL, signal.SIGTERM]
        values, losses = trained(
            coordinator, data, lambda epoch: os.kill(pids[epoch], signals[epoch]) if epoch < 2 else None
        )
        assert coordinator.run(pid, None) == pids[2:]
        assert [recovery.workers for recovery in coordinator.recoveries] == [(3, 2), (2, 1)]
    assert np.array_equal(values, undisturbed[0])
    assert np.array_equal(losses, undisturbed[1])


@pytest.mark.long
def test_workers_come_and_go_between_the_steps_of_a_run(
    workers: dr.Coordinator, data: dr.data.Split, undisturbed: tuple[np.ndarray, np.ndarray]
) -> None:
    sizes = [1, 4, 2]
    values, losses = trained(workers, data, lambda epoch: workers.resize(sizes[epoch]) if epoch < 3 else None)
    assert workers.workers == 2
    assert len(set(workers.run(pid, None))) == 2
    assert np.array_equal(values, undisturbed[0])
    assert np.array_equal(losses, undisturbed[1])


def die_once(world: World, victim: int) -> int:
    world.barrier.wait()
    if os.getpid() == victim:
        os.kill(victim, signal.SIGKILL)
    world.barrier.wait()
    return os.getpid()


@pytest.mark.long
def test_a_function_of_the_users_raises_the_loss_and_the_next_call_finds_workers(workers: dr.Coordinator) -> None:
    pids = workers.run(pid, None)
    with pytest.raises(dr.WorkerLost, match=rf"Worker 2 \(host .*, pid {pids[2]}\) was killed by signal 9") as caught:
        workers.run(die_once, pids[2])
    assert caught.value.ranks == [2]
    assert workers.run(pid, None)[:2] == pids[:2]


@pytest.mark.long
def test_forward_and_evaluate_are_done_again(workers: dr.Coordinator, data: dr.data.Split) -> None:
    model = dr.nn.mlp([32], 10).build((64,)).initialize(0)
    outputs, evaluation = workers.forward(model, data.test.x), workers.evaluate(model, data.test)
    os.kill(workers.run(pid, None)[0], signal.SIGKILL)
    assert np.array_equal(workers.forward(model, data.test.x), outputs)
    os.kill(workers.run(pid, None)[1], signal.SIGKILL)
    assert workers.evaluate(model, data.test) == evaluation
    assert len(workers.recoveries) == 2


@pytest.mark.long
def test_functions_of_a_coordinator_are_done_again(workers: dr.Coordinator) -> None:
    pids = workers.run(pid, None)
    after = workers.survive(lambda: workers.run(die_once, pids[1]))
    assert after[:2] == [pids[0], pids[2]]


def always_die(world: World, request: None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_the_loss_is_raised_where_nothing_is_to_be_done(data: dr.data.Split) -> None:
    with dr.start(2, backend="local", on_failure="stop") as coordinator:
        pids = coordinator.run(pid, None)
        with pytest.raises(dr.WorkerLost, match="killed by signal 9"):
            trained(coordinator, data, lambda epoch: os.kill(pids[0], signal.SIGKILL))
        with pytest.raises(dr.WorkerLost, match="killed by signal 9"):
            coordinator.run(pid, None)


@pytest.mark.long
def test_workers_are_not_replaced_for_ever() -> None:
    with dr.start(1, backend="local", max_restarts=1) as coordinator:
        for _ in range(2):
            with pytest.raises(dr.WorkerLost, match="killed by signal 9"):
                coordinator.run(always_die, None)
        with pytest.raises(dr.WorkerLost, match="killed by signal 9") as caught:
            coordinator.run(pid, None)
        assert caught.value.__notes__ == ["Workers were replaced 1 times in a row, and no step was done since."]
        assert len(coordinator.recoveries) == 1


def test_workers_that_wait_for_a_place_are_the_same_processes_when_they_get_one() -> None:
    workers = Workers(LocalBackend(2))
    before = [peer.pid for peer in workers.peers]
    with workers.kept():
        workers.resize(1)
        assert workers.run([0], pid, None) == before[:1]
        workers.resize(2)
        assert workers.run([0, 1], pid, None) == before
        workers.resize(1)
    wait_until(lambda: not Path(f"/proc/{before[1]}").exists())
    assert workers.run([0], pid, None) == before[:1]
    workers.close()
