"""Our side of comparisons, as a user trains: one run, gone on with in every turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from dist_relu.bench.cases import LR, MOMENTUM, Beginning, Case
from dist_relu.bench.networks import dataset, network
from dist_relu.bench.sides import Side
from dist_relu.coordinator import Coordinator, start
from dist_relu.kernels.registers import REGISTERS, Registers
from dist_relu.optim import SGD
from dist_relu.run.trainer import Trainer

_NAMES = {Registers(16, 32): "AVX2", Registers(32, 64): "AVX-512", Registers(32, 16): "NEON"}


@final
class Ours(Side):
    """Training on the workers of a coordinator."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._trainer: Trainer | None = None

    def instruction_set(self) -> str:
        return _NAMES.get(REGISTERS, f"{REGISTERS.number} registers of {REGISTERS.width_bytes} bytes")

    def prepare(self, case: Case, beginning: Beginning) -> None:
        self.close()
        self._trainer = self._coordinator.trainer(
            network(case), dataset(case), SGD(LR, momentum=MOMENTUM), batch_size=case.batch_size, shuffle=False
        )

    def train(self, num_steps: int) -> float:
        assert self._trainer is not None
        return float(self._trainer.fit(steps=num_steps).losses[-1])

    def close(self) -> None:
        """Let go of the present case."""
        if self._trainer is not None:
            self._trainer.close()
            self._trainer = None


@contextmanager
def on_one_worker(number: int) -> Iterator[Ours]:
    """Start our side with one worker, which is the process itself."""
    with start(backend="serial") as coordinator:
        yield Ours(coordinator)


@contextmanager
def on_workers(workers: int, number: int) -> Iterator[Ours]:
    """Start our side with so many workers."""
    with start(workers, backend="local") as coordinator:
        yield Ours(coordinator)
