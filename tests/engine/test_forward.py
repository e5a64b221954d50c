"""Passes forward over blocks of samples, which are played, say what the model says."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.engine.forward import BlockPasses
from dist_relu.kernels.copies import copy
from tests.nn.test_played_passes import CASES, samples


def _put(outputs: Array, run: nn.Pass, y: Array) -> None:
    copy(outputs.reshape(-1), y.reshape(-1))


OURS = {name: case for name, case in CASES.items() if "one's own" not in name}  # those draw numbers in evaluation, too


@pytest.mark.parametrize(("layers", "shape", "loss"), OURS.values(), ids=OURS)
def test_blocks_are_passed_over_wherever_they_and_the_parameters_lie(
    layers: list[nn.Layer], shape: tuple[int, ...], loss: nn.Loss
) -> None:
    model = nn.Sequential(layers).blueprint().build(shape).initialize(1)
    reference = model.blueprint().build(shape)
    passes = BlockPasses(model, _put)
    for seed, num_rows in enumerate([4, 4, 6, 4, 6, 6, 4]):
        x = samples(layers, shape, loss, seed)[0][:num_rows].astype(np.float32)
        values = model.values * np.float32(1 + seed / 16)
        model.bind(values)
        reference.bind(values.copy())
        expected = reference.forward(x.copy())
        y = np.full_like(expected, np.nan)
        passes(x, y)
        assert y.tobytes() == expected.tobytes()
        passes.let_go()
