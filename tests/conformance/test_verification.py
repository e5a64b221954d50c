"""A worker that computes wrong is found and named; to look for it changes no bits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import dist_relu as dr
from dist_relu import nn, optim
from tests.twin import Array

RNG = np.random.default_rng(3)
X = RNG.standard_normal((70, 6)).astype("float32")
Y = RNG.integers(0, 3, 70)
IMAGES = RNG.standard_normal((70, 6, 6, 1)).astype("float32")
ARGUMENTS: dict[str, Any] = {"batch_size": 16, "shards": 4, "seed": 5}


@dataclass(eq=False)
class Flips(nn.Layer):
    """The identity, which flips the last bit of a gradient in one process: in every `every`-th pass after so many."""

    pid: int
    after: int
    every: int
    _passes: int = field(init=False, default=0)

    def build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def params(self) -> Sequence[nn.Param]:
        return []

    def forward(self, x: Array, run: nn.Pass = nn.PLAIN) -> Array:
        y = run.empty(x.shape, x.dtype)
        y[...] = x
        return y

    def backward(self, dy: Array, run: nn.Pass = nn.PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.empty(dy.shape, dy.dtype)
        dx[...] = dy
        self._passes += 1
        if self.pid == os.getpid() and self._passes > self.after and self._passes % self.every == 0:
            dx.view(np.uint32)[0, 0] ^= 1
        return dx


def pid_of(world: dr.World, request: None) -> int:
    return os.getpid()


def model(pid: int, every: int) -> nn.Sequential:
    return nn.Sequential(nn.Dense(160), nn.ReLU(), nn.Dense(160), Flips(pid, 25, every), nn.Dense(3))


def test_a_worker_that_flips_a_bit_is_found(coordinator: dr.Coordinator) -> None:
    workers = coordinator.workers
    faulty = min(1, workers - 1)
    pid = coordinator.run(pid_of, None)[faulty]
    every = 1 if workers > 1 else 2  # who is always wrong never differs from itself
    with coordinator.trainer(model(pid, every), (X, Y), optim.SGD(0.01), verify_every=1, **ARGUMENTS) as trainer:
        trainer.fit(steps=4)
        before = trainer.state()
        with pytest.raises(dr.FaultyWorker, match=rf"orker {faulty} \(host \S+, pid {pid}\)") as caught:
            trainer.fit(steps=60)
        error = caught.value
        assert error.workers == ([0, 1] if workers == 2 else [faulty])
        assert len(error.hosts) == len(error.workers)
        assert error.step >= 4
        assert "The run stands before step 4 again" in str(error)
        assert trainer.state() == before
        assert trainer.model.sha256() == before.params_sha256


CASES: dict[str, tuple[Any, Callable[[], nn.Sequential], dict[str, Any]]] = {
    "products": (X, lambda: nn.mlp((160, 160), 3), {}),
    "slots, accumulated": (
        IMAGES,
        lambda: nn.Sequential(nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Dense(3)),
        {"accumulate": 2, "augment": dr.data.Augment(crop=1, flip=True, mixup=0.3)},
    ),
    "watched": (X, lambda: nn.mlp((160, 160), 3), {"watch": dr.Watch(every=2), "clip_norm": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_verification_changes_no_bits_and_finds_nothing(coordinator: dr.Coordinator, case: str) -> None:
    x, make, options = CASES[case]
    digests = set()
    for verify_every in (None, 1, 3):
        trained = make()
        coordinator.fit(trained, (x, Y), optim.Adam(), epochs=3, verify_every=verify_every, **ARGUMENTS, **options)
        digests.add(trained.sha256())
    assert len(digests) == 1


def test_shards_that_depend_on_the_whole_batch_cannot_be_verified(coordinator: dr.Coordinator) -> None:
    norm = nn.Sequential(nn.Dense(4), nn.BatchNorm(scope="batch"), nn.Dense(3))
    with pytest.raises(ValueError, match="verify_every=2, but layers of the model take sums over the whole batch"):
        coordinator.fit(norm, (X, Y), optim.SGD(), epochs=1, verify_every=2, **ARGUMENTS)
