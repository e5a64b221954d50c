"""The disturbances, each of which fills a row of the table."""

from __future__ import annotations

import gc
import os
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dist_relu as dr
from dist_relu.runtime.backends import Backend, LocalBackend, RayBackend
from dist_relu.runtime.backends.local.supervisor import descendants
from dist_relu.runtime.recovery import FailurePolicy, OnFailure, Recovery
from tests.chaos.strikes import PHASES, Strike, Striker, kill, workers_of
from tests.chaos.table import Row
from tests.chaos.trainings import CNN, MLP, RNN, Training, undisturbed
from tests.programs import shared_files, unused_files

BACKENDS: dict[str, Callable[[int], Backend]] = {
    "local": lambda workers: LocalBackend(workers, worker_timeout_s=1),
    "ray": lambda workers: RayBackend(workers, worker_timeout_s=1),
}
_MAX_RESTARTS = 100
_TIME_TO_CLEAR_UP_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training, on so many workers, and the phases in which they are struck at."""

    training: Training
    backend: str
    workers: int
    on_failure: OnFailure
    phases: Sequence[str]
    seed: int

    def __str__(self) -> str:
        phases = ", ".join(self.phases)
        return f"{self.training.name} on {self.workers} workers ({self.backend}, {self.on_failure}, {phases})"


def plan(number: int, backend: str, most: int) -> Plan:
    """Draw the plan with this number, of `most` strikes or fewer."""
    choose = random.Random(number)
    on_failure: OnFailure = "shrink" if number % 4 == 3 else "replace"
    workers = 4 if on_failure == "shrink" else choose.randint(2, 4)
    num_strikes = min(3 if on_failure == "shrink" else 8, most)
    phases = [choose.choice(PHASES) for _ in range(num_strikes)]
    training = (MLP, CNN, RNN)[number % 3]
    return Plan(training=training, backend=backend, workers=workers, on_failure=on_failure, phases=phases, seed=number)


def carry_out(planned: Plan, row: Row, strike: Strike = kill, each: int = 1) -> None:
    """Train, and disturb it as planned; notes in `row` what it came to.  each: how many workers a strike hits."""
    expected = undisturbed(planned.training)
    before = Surroundings.now(planned.backend)
    digest, struck, recoveries, trouble = _disturbed(planned, strike)
    if not recoveries and not trouble:
        struck = []  # the last call was over, and nobody missed the worker
    row.phases.update(struck)
    row.note(len(struck) * each, digest, expected, [recovery.seconds for recovery in recoveries])
    if trouble is None and digest != expected:
        trouble = f"other bits after {[recovery.loss for recovery in recoveries]}"
    if left := left_behind(planned.backend, before):
        trouble = f"{trouble or ''} left behind: {left}"
    if trouble:
        row.troubles.append(f"{planned}: {trouble}")


def _disturbed(planned: Plan, strike: Strike) -> tuple[str | None, list[str], Sequence[Recovery], str | None]:
    """Train and strike; returns the digest, in which phases it was struck, and what followed, or what went wrong."""
    backend = BACKENDS[planned.backend](planned.workers)
    striker = Striker(backend, planned.phases, planned.seed, strike)
    policy = FailurePolicy(planned.on_failure, _MAX_RESTARTS, most=planned.workers)
    digest = trouble = None
    with dr.Coordinator(backend, policy) as coordinator:
        striker.begin(coordinator)
        try:
            digest = planned.training.run(coordinator, callbacks=[striker])
        except Exception:
            trouble = traceback.format_exc()
        striker.end()
        return digest, striker.struck, coordinator.recoveries, trouble


@dataclass(frozen=True)
class Surroundings:
    """What a training may leave behind, and what was there before: other tests' processes, say, which joblib keeps."""

    processes: frozenset[int]
    files: frozenset[str]
    descriptors: int

    @staticmethod
    def now(backend: str) -> Surroundings:
        pids = descendants() if backend == "local" else workers_of(backend)
        return Surroundings(frozenset(pids), frozenset(shared_files()), len(os.listdir("/proc/self/fd")))


def left_behind(backend: str, before: Surroundings) -> list[str]:
    """What is there that was not there before, also after a moment."""
    gc.collect()  # a trainer and its callbacks know one another
    deadline = time.monotonic() + _TIME_TO_CLEAR_UP_S
    while True:
        now = Surroundings.now(backend)
        left = [f"process {pid}" for pid in now.processes - before.processes] + unused_files(set(before.files))
        if backend == "local" and now.descriptors > before.descriptors:
            left.append(f"{now.descriptors - before.descriptors} descriptors")
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def resize(backend: str, times: int, row: Row) -> None:
    """Train, and let the number of workers change so often at random, from 1 to 4."""
    expected = undisturbed(MLP)
    before = Surroundings.now(backend)
    digest, seconds, trouble = _resized(backend, times)
    row.note(len(seconds), digest, expected, seconds)
    if trouble is None and digest != expected:
        trouble = "other bits"
    if left := left_behind(backend, before):
        trouble = f"{trouble or ''} left behind: {left}"
    if trouble:
        row.troubles.append(f"{row.disturbance}: {trouble}")


def _resized(backend: str, times: int) -> tuple[str | None, Sequence[float], str | None]:
    steps = MLP.epochs * 23
    with dr.Coordinator(BACKENDS[backend](2), FailurePolicy(most=2)) as coordinator:
        resizing = _Resizing(coordinator, every=steps // times)
        try:
            return MLP.run(coordinator, callbacks=[resizing]), resizing.seconds, None
        except Exception:
            return None, resizing.seconds, traceback.format_exc()


class _Resizing:
    """Changes the number of workers after every so many steps.  seconds: that each change has taken."""

    def __init__(self, coordinator: dr.Coordinator, every: int) -> None:
        self.every, self.seconds = every, list[float]()
        self._coordinator, self._random = coordinator, random.Random(1)

    def on_steps(self, trainer: dr.Trainer) -> None:
        """Change it, always to another one."""
        began = time.monotonic()
        self._coordinator.resize(self._random.choice([n for n in range(1, 5) if n != self._coordinator.workers]))
        self.seconds.append(time.monotonic() - began)
