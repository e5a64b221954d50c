"""Pooling over windows, alone and together with bias and ReLU.

N batch, H W height and width, C channels, I J height and width of the output. A maximum's `choice` is the number of
the window's element that it came from, row by row, or NONE where ReLU cut it off: then no gradient flows. Choices have
the dtype of the images, because loops over numbers of unlike sizes are badly vectorised.
"""

from __future__ import annotations

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.jit import kernel
from dist_relu.kernels.llvm import CHAINS, empty, run_of
from dist_relu.kernels.long_sums import TERMS, end_sum, sum_rows, wide_sums
from dist_relu.kernels.windows import Windows, gather, scatter

NONE = -1


@kernel
def rows_of(images: Array) -> Array:
    """Return images (N, H, W, C) as flat rows, (N, H, W C)."""
    return images.reshape(images.shape[0], images.shape[1], images.shape[2] * images.shape[3])


@kernel
def _is_larger(v: float, best: float) -> bool:
    """Tell whether v is the new maximum; NaN is larger than all."""
    return (v > best) | (v != v)  # noqa: PLR0124


@gather
def _raise_to(x: Array, best: Array, number: int, h: int, at: int, choices: Array) -> None:
    """best = max(best, x), and choice = the number of the larger one: the first of equals, NaN before all."""
    this, choice = x.dtype.type(number), run_of(choices, at, best.shape[0])
    for c in range(best.shape[0]):
        v, m, chosen = x[c], best[c], choice[c]
        larger = _is_larger(v, m)
        best[c] = v if larger else m
        choice[c] = this if larger else chosen


@kernel
def max_pool(x: Array, w: Windows, y: Array, choice: Array) -> None:
    """y = the maximum of every window.  x: (N, H, W, C); y, choice: (N, I, J, C)."""
    number, no_sum = x.dtype.type, wide_sums(0, 0)
    for i in range(w.out_height):
        first_a = max((w.top - i * w.stride_h + w.dilation_h - 1) // w.dilation_h, 0)
        for j in range(w.out_width):
            first_b = max((w.left - j * w.stride_w + w.dilation_w - 1) // w.dilation_w, 0)
            y[:, i, j] = -np.inf
            choice[:, i, j] = number(first_a * w.kernel_w + first_b)
    images, outputs, choices = rows_of(x), rows_of(y), rows_of(choice)
    for n in range(y.shape[0]):
        for i in range(w.out_height):
            _raise_to(images[n], outputs[n, i], w, x.shape[3], i, no_sum, choices[n, i])


@kernel
def add_bias_relu_max_pool_2x2(z: Array, bias: Array, y: Array, choice: Array) -> None:
    """y = the maximum over squares of 2 x 2 of max(z + bias, 0).

    z: (N, H, W, K).  y, choice: (N, H // 2, W // 2, K).
    """
    number = z.dtype.type
    none, zero, one, two, three = number(NONE), number(0), number(1), number(2), number(3)
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                z0, z1 = z[n, 2 * i, 2 * j], z[n, 2 * i, 2 * j + 1]
                z2, z3 = z[n, 2 * i + 1, 2 * j], z[n, 2 * i + 1, 2 * j + 1]
                best, chosen = y[n, i, j], choice[n, i, j]
                for k in range(bias.shape[0]):
                    offset = bias[k]
                    v = z0[k] + offset
                    m, c = v, zero
                    v = z1[k] + offset
                    larger = _is_larger(v, m)
                    m, c = v if larger else m, one if larger else c
                    v = z2[k] + offset
                    larger = _is_larger(v, m)
                    m, c = v if larger else m, two if larger else c
                    v = z3[k] + offset
                    larger = _is_larger(v, m)
                    m, c = v if larger else m, three if larger else c
                    best[k] = zero if m <= zero else m
                    chosen[k] = none if m <= zero else c


@scatter
def _add_chosen(dx: Array, dy: Array, number: int, i: int, at: int, choices: Array) -> None:
    """dx += dy where the maximum came from this tap."""
    this, zero, choice = dy.dtype.type(number), dy.dtype.type(0), run_of(choices[i], at, dy.shape[0])
    for c in range(dy.shape[0]):
        d, chosen, before = dy[c], choice[c], dx[c]
        dx[c] = before + (d if chosen == this else zero)


@kernel
def max_pool_backward(dy: Array, choice: Array, w: Windows, dx: Array) -> None:
    """dx = dy where the maximum came from, summed over overlapping windows.  Shapes as in `max_pool`."""
    images, outputs, choices = rows_of(dx), rows_of(dy), rows_of(choice)
    wide = wide_sums(w.kernel_h * w.kernel_w, images.shape[2])
    for n in range(dy.shape[0]):
        for h in range(w.height):
            row = images[n, h]
            row[:] = 0
            _add_chosen(outputs[n], row, w, dx.shape[3], h, wide, choices[n])
            end_sum(row, wide)


@kernel
def max_pool_2x2_backward(dy: Array, choice: Array, dx: Array) -> None:
    """Do what `max_pool_backward` does, for windows of 2 x 2 side by side."""
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                for a in range(2):
                    for b in range(2):
                        number = dy.dtype.type(2 * a + b)
                        _put_chosen(dy[n, i, j], choice[n, i, j], number, dx[n, 2 * i + a, 2 * j + b])
        dx[n, 2 * dy.shape[1] :] = 0
        dx[n, :, 2 * dy.shape[2] :] = 0


@kernel
def _put_chosen(dy: Array, choice: Array, number: float, dx: Array) -> None:
    zero = dy.dtype.type(0)
    for c in range(dx.shape[0]):
        d, chosen = dy[c], choice[c]
        dx[c] = d if chosen == number else zero


@gather
def _add_pixels(x: Array, y: Array, number: int, h: int, at: int) -> None:
    """y += x."""
    for c in range(y.shape[0]):
        y[c] += x[c]


@kernel
def average_pool(x: Array, w: Windows, y: Array) -> None:
    """y = the mean of every window, padding counted as 0.  x: (N, H, W, C); y: (N, I, J, C)."""
    images, outputs = rows_of(x), rows_of(y)
    wide = wide_sums(w.kernel_h * w.kernel_w, outputs.shape[2])
    factor = y.dtype.type(1 / (w.kernel_h * w.kernel_w))
    for n in range(y.shape[0]):
        for i in range(w.out_height):
            row = outputs[n, i]
            row[:] = 0
            _add_pixels(images[n], row, w, x.shape[3], i, wide)
            end_sum(row, wide)
            row *= factor


@kernel
def average_images(x: Array, y: Array) -> None:
    """y = the mean over the M pixels of every image; x: (N, M, C), y: (N, C).

    Few channels of many pixels are taken several pixels at a time, as if they were more channels of fewer pixels.
    """
    num_pixels, channels = x.shape[1], x.shape[2]
    at_once = 1
    while num_pixels > TERMS and num_pixels % (2 * at_once) == 0 and at_once * channels < CHAINS:
        at_once *= 2
    total = empty(at_once * channels, x.dtype)
    for n in range(x.shape[0]):
        sum_rows(x[n].reshape(num_pixels // at_once, at_once * channels), total)
        sum_rows(total.reshape(at_once, channels), y[n])
        for c in range(channels):
            y[n, c] /= y.dtype.type(num_pixels)


@kernel
def average_images_backward(dy: Array, dx: Array) -> None:
    """dx = dy shared out equally over the pixels of its image.  Shapes as in `average_images`."""
    factor = dx.dtype.type(1 / dx.shape[1])
    for n in range(dx.shape[0]):
        for m in range(dx.shape[1]):
            for c in range(dx.shape[2]):
                dx[n, m, c] = dy[n, c] * factor


@scatter
def _add_scaled(dx: Array, dy: Array, number: int, i: int, at: int, factor: float) -> None:
    """dx += factor dy."""
    for c in range(dy.shape[0]):
        dx[c] += factor * dy[c]


@kernel
def average_pool_backward(dy: Array, w: Windows, dx: Array) -> None:
    """dx = dy shared out equally over its window, summed over overlapping windows.  Shapes as in `average_pool`."""
    images, outputs = rows_of(dx), rows_of(dy)
    wide = wide_sums(w.kernel_h * w.kernel_w, images.shape[2])
    factor = dx.dtype.type(1 / (w.kernel_h * w.kernel_w))
    for n in range(dy.shape[0]):
        for h in range(w.height):
            row = images[n, h]
            row[:] = 0
            _add_scaled(outputs[n], row, w, dx.shape[3], h, wide, factor)
            end_sum(row, wide)
