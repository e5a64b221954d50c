"""What elements of windows join, beside a search over all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_relu.core.arrays import Array
from dist_relu.kernels.windows import Windows, gather, scatter

NO_SUM = np.empty(0)
CHANNELS = 2


def add_to_output(image: Array, output: Array, number: int, row: int, at: int, weights: Array) -> None:
    for c in range(output.shape[0]):
        output[c] += weights[number] * image[c]


def add_to_image(image: Array, output: Array, number: int, row: int, at: int, weights: Array) -> None:
    for c in range(image.shape[0]):
        image[c] += weights[number] * output[c]


def note_row(image: Array, output: Array, number: int, row: int, at: int, visits: Array) -> None:
    """Append the row of the source; visits[0] counts."""
    visits[0] += 1
    visits[int(visits[0])] = row


gathered, scattered, visited = gather(add_to_output), scatter(add_to_image), scatter(note_row)


@st.composite
def some_windows(draw: st.DrawFn) -> Windows:
    low_high = [(1, 7), (1, 7), (1, 6), (1, 6), (1, 4), (1, 4), (1, 3), (1, 3), (1, 3), (1, 3), (0, 3), (0, 3)]
    return Windows(*(draw(st.integers(*limits)) for limits in low_high))


def joins(w: Windows) -> list[tuple[int, int, int, int, int]]:
    """All (i, j, number, h, column): this element of window (i, j) lies at (h, column) of the image."""
    found = []
    for i, j, a, b in np.ndindex(w.out_height, w.out_width, w.kernel_h, w.kernel_w):
        h, column = i * w.stride_h + a * w.dilation_h - w.top, j * w.stride_w + b * w.dilation_w - w.left
        if 0 <= h < w.height and 0 <= column < w.width:
            found.append((i, j, a * w.kernel_w + b, h, column))
    return found


def numbers(*shape: int) -> Array:
    """Whole numbers, so that sums don't depend on their order."""
    return np.random.default_rng(0).integers(-9, 10, shape).astype(float)


@settings(max_examples=100, deadline=None)
@given(some_windows())
def test_outputs_gather_what_lies_in_their_windows(w: Windows) -> None:
    image, weights = numbers(w.height, w.width, CHANNELS), numbers(w.kernel_h * w.kernel_w)
    output, expected = np.zeros((2, w.out_height, w.out_width, CHANNELS))
    for i in range(w.out_height):
        gathered(image.reshape(w.height, -1), output[i].reshape(-1), w, CHANNELS, i, NO_SUM, weights)
    for i, j, number, h, column in joins(w):
        expected[i, j] += weights[number] * image[h, column]
    np.testing.assert_array_equal(output, expected)


@settings(max_examples=100, deadline=None)
@given(some_windows())
def test_images_get_back_what_their_windows_gave(w: Windows) -> None:
    output, weights = numbers(w.out_height, w.out_width, CHANNELS), numbers(w.kernel_h * w.kernel_w)
    image, expected = np.zeros((2, w.height, w.width, CHANNELS))
    for h in range(w.height):
        scattered(output.reshape(w.out_height, -1), image[h].reshape(-1), w, CHANNELS, h, NO_SUM, weights)
    for i, j, number, h, column in joins(w):
        expected[h, column] += weights[number] * output[i, j]
    np.testing.assert_array_equal(image, expected)


@settings(max_examples=100, deadline=None)
@given(some_windows())
def test_images_take_from_rows_of_outputs_from_above_to_below(w: Windows) -> None:
    for h in range(w.height):
        visits = np.zeros(1 + w.kernel_h * w.kernel_w * w.out_width)
        visited(np.empty((w.out_height, w.out_width)), np.empty(w.width), w, 1, h, NO_SUM, visits)
        rows = visits[1 : 1 + int(visits[0])]
        assert (np.diff(rows) >= 0).all()
        assert set(rows) == {i for i, _, _, row, _ in joins(w) if row == h}
