"""Distributions of numbers, and what outputs come to, beside plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dist_relu.kernels.histogram import (
    EDGES,
    NUM_BINS,
    bin_of_place,
    count_sums,
    empty_table,
    keep_zero_columns,
    output_statistics,
    take_counts,
)

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def counted(z: Any, bias: Any) -> list[int]:
    table, counts = empty_table(z.dtype), np.zeros(NUM_BINS + 1, np.int64)
    count_sums(z, bias, table)
    take_counts(table, bin_of_place(z.dtype), counts)
    assert not table.any()
    return counts.tolist()


@dtypes
@pytest.mark.parametrize("columns", [1, 3, 4, 50])
def test_counts_are_those_of_numpy(rng: np.random.Generator, dtype: str, columns: int) -> None:
    scales = 10.0 ** rng.integers(-4, 4, (30, columns))
    z, bias = (rng.standard_normal((30, columns)) * scales).astype(dtype), rng.standard_normal(columns).astype(dtype)
    assert counted(z, bias) == [*np.histogram(z + bias, EDGES)[0].tolist(), 0]


@dtypes
def test_limits_belong_to_the_bin_that_is_farther_from_zero(dtype: str) -> None:
    middle = NUM_BINS // 2
    for number, edge in enumerate(EDGES):
        for value in {edge, -0.0} if edge == 0 else {edge}:
            counts = counted(np.array([[value]], dtype), np.zeros(1, dtype))
            assert counts.index(1) == (min(number, NUM_BINS - 1) if number >= middle else max(number - 1, 0))
            assert sum(counts) == 1


@dtypes
def test_what_is_no_number_lies_in_no_bin(dtype: str) -> None:
    counts = counted(np.array([[np.nan, 1.0, np.inf - np.inf]], dtype), np.zeros(3, dtype))
    assert counts[-1] == 2
    assert sum(counts) == 3


@dtypes
@pytest.mark.parametrize("rows", [1, 3, 4, 70])
@pytest.mark.parametrize("columns", [1, 7, 33])
def test_output_statistics_are_those_of_numpy(rng: np.random.Generator, dtype: str, rows: int, columns: int) -> None:
    x = np.maximum(rng.standard_normal((rows, columns)), 0).astype(dtype)
    for outputs in (x, x + 1000):
        nonzero, scratch = np.empty(columns, np.int64), np.empty((2, columns))
        zeros, mean, squares = output_statistics(outputs, nonzero, *scratch)
        assert zeros == (outputs == 0).sum()
        np.testing.assert_array_equal(nonzero, (outputs != 0).sum(axis=0))
        exact = outputs.astype(np.float64)
        assert mean == pytest.approx(exact.mean(), rel=1e-14)
        assert squares == pytest.approx(((exact - exact.mean()) ** 2).sum(), rel=1e-10, abs=1e-12)


@dtypes
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
def test_columns_are_kept_that_hold_nothing_but_zeros(rng: np.random.Generator, dtype: str, share: float) -> None:
    x = (rng.standard_normal((20, 50)) * (rng.random((20, 50)) >= share)).astype(dtype)
    x[:, 5:9] = [0.0, -0.0, np.nan, 5e-324 if dtype == "float64" else 1e-45]
    columns = rng.permutation(50)
    candidates = columns[:40].copy()
    num_kept = keep_zero_columns(x, columns, 40)
    assert columns[:num_kept].tolist() == [k for k in candidates if (x[:, k] == 0).all()]
