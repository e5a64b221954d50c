"""Matrix products against NumPy's in float64, and what sets them apart: bits that don't depend on what lies around."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_relu.core.arrays import Array
from dist_relu.kernels.products import add_multiplied, multiply, multiply_by_transpose, multiply_transposed
from dist_relu.kernels.tiles import AS_IS, BIAS, BIAS_RELU

DTYPES = st.sampled_from(["float32", "float64"])
TOLERANCES = {"float32": 1e-5, "float64": 1e-13}


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(actual: Array, expected: Array, terms: int) -> None:
    scale = np.sqrt(terms) * np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCES[actual.dtype.name] * scale)


def product(x: Array, w: Array) -> Array:
    z = np.full((len(x), w.shape[1]), np.nan, x.dtype)
    multiply(x, w, w[0], AS_IS, z)
    return z


@given(st.integers(0, 40), st.integers(1, 600), st.integers(1, 90), DTYPES, st.integers(0, 99))
def test_products_are_those_of_float64(rows: int, terms: int, columns: int, dtype: str, seed: int) -> None:
    x, w = numbers((rows, terms), dtype, seed), numbers((terms, columns), dtype, seed + 1)
    z, dx, dw = product(x, w), np.full_like(x, np.nan), np.full_like(w, np.nan)
    multiply_by_transpose(z, w, dx)
    multiply_transposed(x, 0, terms, z, dw)
    exact_x, exact_w, exact_z = x.astype(float), w.astype(float), z.astype(float)
    assert_close(z, exact_x @ exact_w, terms)
    assert_close(dx, exact_z @ exact_w.T, columns)
    assert_close(dw, exact_x.T @ exact_z, rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bias_and_relu_come_after_the_last_term(dtype: str) -> None:
    x, w, bias = numbers((30, 700), dtype), numbers((700, 45), dtype, 1), numbers((45,), dtype, 2)
    plain, biased, cut = product(x, w), np.empty((30, 45), dtype), np.empty((30, 45), dtype)
    multiply(x, w, bias, BIAS, biased)
    multiply(x, w, bias, BIAS_RELU, cut)
    np.testing.assert_array_equal(biased, plain + bias)
    np.testing.assert_array_equal(cut, np.maximum(biased, 0))


def test_relu_lets_nan_through() -> None:
    z = np.empty((1, 2), np.float32)
    multiply(np.array([[np.nan]], np.float32), np.ones((1, 2), np.float32), np.zeros(2, np.float32), BIAS_RELU, z)
    assert np.isnan(z).all()


def test_products_are_added() -> None:
    x, w, z = numbers((13, 20), "float64"), numbers((20, 7), "float64", 1), numbers((13, 7), "float64", 2)
    expected = z + x @ w
    add_multiplied(x, w, w[0], AS_IS, z)
    np.testing.assert_allclose(z, expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_has_the_same_bits_wherever_it_stands(dtype: str) -> None:
    x, w = numbers((50, 900), dtype), numbers((900, 70), dtype, 1)
    whole = product(x, w)
    for start, stop in ((0, 1), (3, 5), (7, 20), (13, 50)):
        np.testing.assert_array_equal(product(x[start:stop].copy(), w), whole[start:stop])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_column_has_the_same_bits_wherever_it_stands(dtype: str) -> None:
    x, w = numbers((50, 900), dtype), numbers((900, 70), dtype, 1)
    whole = product(x, w)
    for start, stop in ((0, 1), (3, 5), (7, 30), (13, 70)):
        np.testing.assert_array_equal(product(x, w[:, start:stop].copy()), whole[:, start:stop])


@pytest.mark.parametrize("terms", [3, 400])
@pytest.mark.parametrize("rows", [2, 6, 50])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_ways_to_the_same_product_have_the_same_bits(dtype: str, rows: int, terms: int) -> None:
    x, w = numbers((50, terms), dtype), numbers((terms, 70), dtype, 1)
    expected, z, x = product(x, w)[:rows], np.empty((rows, 70), dtype), x[:rows].copy()
    multiply(x, w, w[0], AS_IS, z)
    np.testing.assert_array_equal(z, expected)
    multiply_by_transpose(x, w.T.copy(), z)
    np.testing.assert_array_equal(z, expected)
    multiply_transposed(x.T.copy(), 0, rows, w, z)
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("terms", [33, 256, 320, 577])
def test_bits_are_the_same_in_every_tile(dtype: str, terms: int) -> None:
    """Any number of rows, so that tiles of all sizes are met, beside each row and some columns alone."""
    num_rows, columns = 40, 300
    x, w = numbers((num_rows, terms), dtype), numbers((terms, columns), dtype, 1)
    expected = np.concatenate([product(row, w) for row in np.split(x, num_rows)])
    narrow = np.hstack([product(x, w[:, k : k + 1].copy()) for k in range(0, columns, 7)])
    np.testing.assert_array_equal(narrow, expected[:, ::7])
    for rows in range(1, num_rows + 1):
        part, z = x[:rows].copy(), np.empty((rows, columns), dtype)
        np.testing.assert_array_equal(product(part, w), expected[:rows])
        multiply_by_transpose(part, w.T.copy(), z)
        np.testing.assert_array_equal(z, expected[:rows])
        multiply_transposed(x.T.copy(), num_rows - rows, num_rows, w, z)
        np.testing.assert_array_equal(z, expected[num_rows - rows :])


def test_some_columns_of_a_gradient_are_those_of_the_whole() -> None:
    x, dz = numbers((64, 50), "float32"), numbers((64, 33), "float32", 1)
    whole, part = np.empty((50, 33), np.float32), np.empty((12, 33), np.float32)
    multiply_transposed(x, 0, 50, dz, whole)
    multiply_transposed(x, 17, 29, dz, part)
    np.testing.assert_array_equal(part, whole[17:29])


def test_more_rows_than_are_packed_at_a_time_have_the_same_bits() -> None:
    x, w = numbers((1100, 40), "float32"), numbers((40, 200), "float32", 1)
    whole = product(x, w)
    for start, stop in ((0, 20), (500, 530), (1010, 1100)):
        np.testing.assert_array_equal(product(x[start:stop].copy(), w), whole[start:stop])


def test_a_product_without_terms_is_zero() -> None:
    z = np.full((3, 5), np.nan, np.float32)
    multiply_transposed(np.empty((0, 3), np.float32), 0, 3, np.empty((0, 5), np.float32), z)
    assert not z.any()
