"""What numbers become when they are rounded, thinned out, or left at low rank, beside plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from dist_relu.kernels.compression import (
    DIGIT_BITS,
    keep_largest,
    leave_low_rank,
    orthonormalize_or_drop,
    pack_float16,
    project,
    project_columns,
    round_to_bfloat16,
    round_to_float16,
    unpack_float16,
)
from tests.twin import Array

SPECIAL = [0.0, -0.0, 1.0, -1.0, 65504, 65519.996, 65520, -65520, 3.4e38, np.inf, -np.inf, np.nan, 1e-45, 2**-24]
SPECIAL += [
    2**-25,
    1.0000001 * 2**-25,
    1.5 * 2**-24,
    2.5 * 2**-24,
    2**-14,
    (1 - 2**-12) * 2**-14,
    1 + 2**-11,
    1 + 3 * 2**-11,
]


@pytest.fixture
def numbers(rng: np.random.Generator) -> Array:
    random = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        between = [np.nextafter(halves, np.float32(sign * np.inf)) for sign in (1, -1)]
        middles = (halves[:-1] + halves[1:]) / 2
    return np.concatenate([np.array(SPECIAL, np.float32), random, halves, middles, *between])


def test_numbers_are_rounded_to_float16_as_numpy_does(numbers: Array) -> None:
    found = numbers.copy()
    round_to_float16(found.view(np.uint32))
    with np.errstate(all="ignore"):
        expected = numbers.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(numbers))


def test_every_number_of_float16_is_unpacked_as_numpy_does_and_packed_again() -> None:
    words = np.arange(2**16, dtype=np.uint16)
    unpacked, packed = np.empty(2**16, np.float32), np.empty_like(words)
    unpack_float16(words, unpacked.view(np.uint32))
    pack_float16(unpacked.view(np.uint32), packed)
    np.testing.assert_array_equal(unpacked, words.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(packed, words)


def test_numbers_are_rounded_to_the_nearest_bfloat16(numbers: Array) -> None:
    found = numbers.copy()
    round_to_bfloat16(found.view(np.uint32))
    assert not (found.view(np.uint32) & 0xFFFF).any()
    finite = np.isfinite(numbers) & np.isfinite(found)
    x, y = numbers[finite].astype(np.float64), found[finite].astype(np.float64)
    bits = found[finite].view(np.uint32)
    below = np.where(bits & 0x7FFFFFFF, bits - 0x10000, bits).astype(np.uint32)
    for neighbour in (below, bits + np.uint32(0x10000)):
        other = neighbour.view(np.float32).astype(np.float64)
        there = np.isfinite(other)
        near, far = np.abs(x - y)[there], np.abs(x - other)[there]
        is_even = (bits[there] >> 16) % 2 == 0
        assert ((near < far) | ((near == far) & is_even) | (other[there] == y[there])).all()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(numbers))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(numbers))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "count"), [(1, 1), (7, 3), (5000, 50), (5000, 5000), (5000, 4999)])
@pytest.mark.parametrize("values", [3, 10**9])
def test_the_largest_are_kept_and_of_equal_ones_the_first(
    rng: np.random.Generator, dtype: str, size: int, count: int, values: int
) -> None:
    x = (rng.integers(-values, values, size) * 10.0 ** rng.integers(-3, 3)).astype(dtype)
    kept, rest = x.copy(), np.full_like(x, 9)
    word = f"u{x.itemsize}"
    keep_largest(kept.view(word), rest.view(word), count, 8 * x.itemsize - 1, np.empty(1 << DIGIT_BITS, np.int64))
    largest = np.sort(np.argsort(-np.abs(x), kind="stable")[:count])
    expected = np.zeros_like(x)
    expected[largest] = x[largest]
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(rest, x - expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "rank"), [(30, 20, 3), (5, 40, 1), (64, 10, 4)])
def test_a_matrix_is_left_at_low_rank_as_numpy_would(
    rng: np.random.Generator, dtype: str, rows: int, columns: int, rank: int
) -> None:
    matrix = rng.standard_normal((rows, columns)).astype(dtype)
    q, p = rng.standard_normal((rank, columns)).astype(dtype), np.empty((rank, rows), dtype)
    cut, edge = rows // 3, columns // 2
    for part in (slice(0, cut), slice(cut, rows)):
        project(matrix[part], q, p, part.start)
    wide = p.astype(np.float64)
    orthonormalize_or_drop(wide)
    own, next_q = wide.astype(dtype), np.empty_like(q)
    for first, stop in ((0, edge), (edge, columns)):
        project_columns(matrix, own, next_q, first, stop)
    left, rest = matrix.copy(), np.empty_like(matrix)
    for part in (slice(0, cut), slice(cut, rows)):
        leave_low_rank(left[part], own, next_q, part.start, rest[part])
    basis, _ = np.linalg.qr(matrix.astype(np.float64) @ q.T.astype(np.float64))
    expected = basis @ (basis.T @ matrix)
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(left, expected, atol=tolerance)
    np.testing.assert_allclose(rest, matrix - expected, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_few_inputs_is_sent_whole_at_a_higher_rank(rng: np.random.Generator, dtype: str) -> None:
    matrix = np.zeros((64, 40), dtype)
    matrix[[3, 17]] = rng.standard_normal((2, 40))
    p, q = np.empty((4, 64), dtype), rng.standard_normal((4, 40)).astype(dtype)
    project(matrix, q, p, 0)
    wide = p.astype(np.float64)
    orthonormalize_or_drop(wide)
    assert not wide[2:].any()
    np.testing.assert_allclose(wide[:2] @ wide[:2].T, np.eye(2), atol=1e-12)
    rest = np.empty_like(matrix)
    project_columns(matrix, wide.astype(dtype), q, 0, 40)
    leave_low_rank(matrix, wide.astype(dtype), q, 0, rest)
    np.testing.assert_allclose(rest, 0, atol=20 * float(np.finfo(dtype).eps))


def test_rows_of_which_nothing_is_left_stay_zero(rng: np.random.Generator) -> None:
    rows = np.zeros((3, 8))
    rows[1] = rng.standard_normal(8)
    orthonormalize_or_drop(rows)
    assert not rows[[0, 2]].any()
    np.testing.assert_allclose(rows[1] @ rows[1], 1)
