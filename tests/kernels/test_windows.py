"""Which elements of windows join which rows, beside a search over all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_relu.core.arrays import Array
from dist_relu.kernels.windows import Windows, gather, scatter

NO_SUM = np.empty(0)


def note(source: Array, target: Array, w: Windows, row: int, a: int, b: int, visits: Array) -> None:
    """Write down the row of the source and the tap; visits[0, 0] counts them."""
    visits[0, 0] += 1
    visit = visits[int(visits[0, 0])]
    visit[0], visit[1], visit[2] = source[0], a, b


note_gathered, note_scattered = gather(note), scatter(note)


@st.composite
def some_windows(draw: st.DrawFn) -> Windows:
    height, kernel, stride, dilation, top = (
        draw(st.integers(*limits)) for limits in ((1, 9), (1, 4), (1, 3), (1, 3), (0, 3))
    )
    out_height = draw(st.integers(1, 9))
    return Windows(height, height, out_height, out_height, kernel, 2, stride, stride, dilation, dilation, top, top)


def joined(w: Windows) -> list[tuple[int, int, int]]:
    """All (i, a, h): row `a` of the elements of the windows in row `i` lies in row `h` of the image."""
    rows = [(i, a, i * w.stride_h + a * w.dilation_h - w.top) for i in range(w.out_height) for a in range(w.kernel_h)]
    return [(i, a, h) for i, a, h in rows if 0 <= h < w.height]


def visits_of(kernel: Callable[..., None], w: Windows, row: int, num_sources: int) -> list[list[int]]:
    sources, visits = np.arange(float(num_sources))[:, np.newaxis], np.zeros((w.kernel_h * w.kernel_w + 1, 3))
    kernel(sources, np.empty(1), w, row, NO_SUM, visits)
    return [[int(number) for number in visit] for visit in visits[1 : int(visits[0, 0]) + 1]]


@settings(max_examples=60, deadline=None)
@given(some_windows())
def test_each_row_of_outputs_gathers_from_the_rows_of_the_image_in_its_windows(w: Windows) -> None:
    for row in range(w.out_height):
        expected = [[h, a, b] for i, a, h in joined(w) if i == row for b in range(w.kernel_w)]
        assert visits_of(note_gathered, w, row, w.height) == expected


@settings(max_examples=60, deadline=None)
@given(some_windows())
def test_each_row_of_the_image_scatters_to_the_outputs_from_above_to_below(w: Windows) -> None:
    for row in range(w.height):
        expected = [[i, a, b] for i, a, h in joined(w) if h == row for b in range(w.kernel_w)]
        assert visits_of(note_scattered, w, row, w.out_height) == expected
