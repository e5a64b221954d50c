"""Steps get no new pages from the system, whatever their kernels need besides."""

import resource
from typing import Any

import numpy as np

import dist_relu as dr
from dist_relu import nn, optim
from dist_relu.data import Dataset
from dist_relu.runtime.world import World

STEPS = 20
PAGES_PER_STEP = 20
"""Far fewer than the kernels' scratch memory has, which is over a thousand."""


def test_steps_of_convolutions_get_no_new_pages() -> None:
    rng = np.random.default_rng(0)
    data = Dataset(rng.standard_normal((64, 784), np.float32), rng.integers(0, 10, 64))
    with (
        dr.start(1, backend="local") as coordinator,
        coordinator.trainer(nn.cnn((28, 28, 1), 10), data, optim.SGD(0.01), batch_size=64) as trainer,
    ):
        trainer.fit(steps=5)
        before = coordinator.run(count_pages, None)[0]
        trainer.fit(steps=STEPS)
        assert coordinator.run(count_pages, None)[0] - before < PAGES_PER_STEP * STEPS


def count_pages(world: World, request: Any) -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
