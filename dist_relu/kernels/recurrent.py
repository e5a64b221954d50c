"""Recurrences over whole sequences: one call forward, one backward.

The weights are packed once for all steps. What comes from the inputs is multiplied for several steps at once, what
comes from the state before step by step; each element is a sum in the order of `dist_relu.kernels.products`.

N samples, T steps, C inputs, K units. Arrays of a call have one dtype, and arguments are numbers of it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.kernels.elementwise import Activation, Kernel, add_to_rows, slope, times, value
from dist_relu.kernels.jit import kernel, linked_kernel
from dist_relu.kernels.llvm import zeros
from dist_relu.kernels.long_sums import sum_rows
from dist_relu.kernels.packing import DEPTH, aligned, lanes_of, pack, vectors_for
from dist_relu.kernels.products import FEW_ROWS, multiply_into
from dist_relu.kernels.tiles import AS_IS, BIAS

_ROWS = 192
"""Rows of the products that take several steps at once: many tiles, and few enough for the second-level cache."""


@kernel
def _steps_at_once(num: int) -> int:
    """Tell how many steps of so many samples such a product takes."""
    return max(_ROWS // max(num, 1), 1)


@kernel
def _padded(columns: int, lanes: int) -> int:
    """Tell how many numbers whole vectors for so many columns hold."""
    return (columns + lanes - 1) // lanes * lanes


@linked_kernel
def _packed(w: Array, transposes: bool, bias: Array) -> Array:
    """Return what `_multiply_packed` needs of w or wᵀ, and of the bias that its epilogue adds.

    bias: (K,), or anything flat where none is added.  That is scratch memory for edges, the bias, and all panels.
    """
    lanes = lanes_of(w)
    depth, columns = (w.shape[1], w.shape[0]) if transposes else w.shape
    padded, edge = _padded(columns, lanes), FEW_ROWS * 2 * lanes
    packed = aligned(edge + (1 + depth) * padded, w)
    for k in range(min(columns, bias.shape[0])):
        packed[edge + k] = bias[k]
    panels = packed[edge + padded :]
    for first in range(0, depth, DEPTH):
        size = min(depth - first, DEPTH)
        pack(w, transposes, first, size, 0, columns, panels[first * padded :])
    return packed


@linked_kernel
def _multiply_packed(x: Array, packed: Array, adds: bool, epilogue: int, z: Array) -> None:
    """z = x·w, or z + x·w where it `adds`, then what `epilogue` says; packed: w and bias, as `_packed` returns them."""
    lanes, (rows, depth), columns = lanes_of(x), x.shape, z.shape[1]
    padded, edge, width = _padded(columns, lanes), FEW_ROWS * 2 * lanes, 2 * lanes
    x_flat, z_flat, runs, start = x.reshape(-1), z.reshape(-1), zeros(1, np.int64), edge + padded
    for first in range(0, depth, DEPTH):
        size = min(depth - first, DEPTH)
        last = epilogue if first + size == depth else AS_IS
        for k in range(0, columns, width):
            here = min(columns - k, width)
            multiply_into(
                x_flat,
                first,
                depth,
                1,
                runs,
                size,
                packed,
                start + first * padded + k * size,
                vectors_for(here, lanes),
                z_flat,
                k,
                columns,
                rows,
                here,
                adds or first > 0,
                packed[edge + k :],
                last,
                packed,
            )


def recur(
    x: Array,
    inputs: Array,
    weight: Array,
    recurrent: Array,
    bias: Array,
    z: Array,
    before: Array,
    last: Array,
    y: Array,
    keeps_output: bool,
    epilogue: int,
    *arguments: float,
) -> None:
    """Take all steps of hₜ = value(xₜ·weight + hₜ₋₁·recurrent + bias), from h₋₁ = 0 on.

    x: (N, T, C).  inputs: (T, N, C), gets x.  before: (T, N, K), gets the state before each step.  last: (N, K), gets
    the last one.  z: (T, N, K), gets what values are taken of; it is not used where outputs are kept, since then that
    lies where states will.  y: (N, T, K), gets all states, or has no rows.  epilogue: BIAS, or BIAS_RELU where `value`
    is ReLU.
    """
    steps, num, units = before.shape
    from_inputs, from_state = _packed(weight, False, bias), _packed(recurrent, False, bias)
    sums_of_inputs = before[1:] if keeps_output else z
    before[0] = 0
    at_once = _steps_at_once(num)
    for start in range(0, steps, at_once):
        stop = min(start + at_once, steps)
        _multiply_inputs(x, start, stop, from_inputs, inputs, sums_of_inputs, last)
        for t in range(start, stop):
            state = before[t + 1] if t + 1 < steps else last
            sums = state if keeps_output else z[t]
            if t:
                _multiply_packed(before[t], from_state, True, epilogue, sums)
            else:  # from a state of zeros comes nothing
                add_to_rows(sums, bias)
            if not keeps_output:
                for n in range(num):
                    for k in range(units):
                        state[n, k] = value(sums[n, k], *arguments)
            elif t == 0 or epilogue == BIAS:  # in place: with two names for the same memory it would not be vectorised
                for n in range(num):
                    for k in range(units):
                        state[n, k] = value(state[n, k], *arguments)
        for t in range(start, stop if y.shape[0] else start):
            _put_step(before[t + 1] if t + 1 < steps else last, y, t)


@linked_kernel
def _multiply_inputs(x: Array, start: int, stop: int, weight: Array, inputs: Array, sums: Array, last: Array) -> None:
    """Let `sums` of the steps from `start` to `stop` be x·weight, and `inputs` x.  weight: packed.

    x: (N, T, C).  inputs: (T, N, C).  sums: (T, N, K), or (T - 1, N, K), where those of the last go to `last`.
    """
    num, end = x.shape[0], min(stop, sums.shape[0])
    for t in range(start, stop):
        _take_step(x, t, inputs[t])
    rows, sums_rows = inputs.reshape(-1, inputs.shape[2]), sums.reshape(-1, sums.shape[2])
    _multiply_packed(rows[start * num : end * num], weight, False, AS_IS, sums_rows[start * num : end * num])
    if end < stop:
        _multiply_packed(inputs[end], weight, False, AS_IS, last)


def recur_backward(
    dy: Array,
    dz: Array,
    z: Array,
    before: Array,
    last: Array,
    weight: Array,
    recurrent: Array,
    d_bias: Array,
    dx: Array,
    keeps_output: bool,
    truncate: int,
    *arguments: float,
) -> None:
    """dz = the gradient of what `recur` takes values of, back through up to `truncate` steps at a time.

    dy: (N, T, K), the gradient of all states, or that of the last one alone, (N, 1, K).  dz: (T, N, K).  d_bias: (K,),
    gets the sum of its rows.  dx: (N, T, C), gets the gradient of the inputs, or has no rows.
    """
    steps, num, units = dz.shape
    from_later = _packed(recurrent, True, d_bias[:0])
    to_inputs = _packed(weight, True, d_bias[:0]) if dx.shape[0] else from_later
    dz_rows, at_once, sees_all = dz.reshape(-1, units), _steps_at_once(num), dy.shape[1] == steps
    d_inputs = np.empty((at_once if dx.shape[0] else 0, num, dx.shape[2]), dz.dtype)
    for stop in range(steps, 0, -at_once):
        start = max(stop - at_once, 0)
        for t in range(stop - 1, start - 1, -1):
            kept, now = (before[t + 1] if t + 1 < steps else last) if keeps_output else z[t], dz[t]
            comes_from_later = t + 1 < steps and (t + 1) % truncate > 0
            if sees_all or t + 1 == steps:
                _take_step(dy, t if sees_all else 0, now)
            elif not comes_from_later:
                now[:] = 0
            if comes_from_later:
                _multiply_packed(dz[t + 1], from_later, sees_all, AS_IS, now)
            for n in range(num):
                for k in range(units):
                    now[n, k] = times(now[n, k], slope(kept[n, k], *arguments))
        if dx.shape[0]:
            rows = d_inputs.reshape(-1, dx.shape[2])[: (stop - start) * num]
            _multiply_packed(dz_rows[start * num : stop * num], to_inputs, False, AS_IS, rows)
            for t in range(start, stop):
                _put_step(d_inputs[t - start], dx, t)
    sum_rows(dz_rows, d_bias)


@kernel
def _take_step(x: Array, t: int, rows: Array) -> None:
    """rows = step t of x; x: (N, T, C), rows: (N, C)."""
    for n in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            rows[n, c] = x[n, t, c]


@kernel
def _put_step(rows: Array, x: Array, t: int) -> None:
    """Step t of x = rows; rows: (N, C), x: (N, T, C)."""
    for n in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            x[n, t, c] = rows[n, c]


@cache
def recurrence_of(activation: Activation) -> tuple[Kernel, Kernel]:
    """Return `recur` and `recur_backward` for the value and slope of an activation."""
    return activation.specialise(recur), activation.specialise(recur_backward)
