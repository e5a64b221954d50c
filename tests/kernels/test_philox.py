"""Kernels draw the random numbers that NumPy draws from the same streams."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu.core.arrays import Array
from dist_relu.kernels import philox
from dist_relu.kernels.augment import draw_windows
from dist_relu.partition import Purpose, generator

SEEDS = [0, 1, 2**63, 2**64 - 1]
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 1000]


def stream(seed: int, number: int) -> tuple[Array, Array, int, int]:
    """A stream as kernels take it: that of (seed, Purpose.LAYERS, number, 3, 2)."""
    return np.array([seed, Purpose.LAYERS], np.uint64), np.array([number]), 3, 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_bits(seed: int, size: int) -> None:
    out = np.empty(size, np.uint16)
    philox.random_bits(*stream(seed, size), out)
    assert out.tobytes() == generator(seed, Purpose.LAYERS, size, 3, 2).bytes(2 * size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_numbers(seed: int, size: int, dtype: type[np.float32] | type[np.float64]) -> None:
    out = np.empty(size, dtype)
    philox.uniform(*stream(seed, size), out)
    np.testing.assert_array_equal(out, generator(seed, Purpose.LAYERS, size, 3, 2).random(size, dtype))


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 100, 10**9])  # of the last, every second one is drawn again
@pytest.mark.parametrize("seed", SEEDS)
def test_windows(seed: int, most: int) -> None:
    shifts, flips = np.empty((41, 2), np.int64), np.empty(41, np.bool_)
    draw_windows(np.array([seed, Purpose.AUGMENTATION], np.uint64), np.array([7]), 3, most, 0.5, shifts, flips)
    rng = generator(seed, Purpose.AUGMENTATION, 7, 3)
    np.testing.assert_array_equal(shifts, rng.integers(-most, most, (41, 2), endpoint=True))
    np.testing.assert_array_equal(flips, rng.random(41) < 0.5)
