"""Recurrence.  N batch, T steps, C inputs, K units.

Inside, arrays are time-major, (T, N, K), so that each step works on contiguous memory; they live in buffers with one
row per sample, which have the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.arrays import Array, whole
from dist_relu.kernels import layers as kernels
from dist_relu.nn.activations import Elementwise, ReLU
from dist_relu.nn.initializers import Constant, HeNormal, Identity, Initializer
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape


@final
@dataclass(eq=False)
class RNN(Layer):
    """hₜ = f(xₜ·W + hₜ₋₁·U + b), h₀ = 0.  x: (N, T, C); y: the last state (N, K), or all of them (N, T, K).

    W: (C, K), U: (K, K), by default the identity, b: (K,).  Elman (1990), equation 1; Le, Jaitly and Hinton (2015) for
    f = ReLU and U = 1.

    sequences: whether y holds all states.  truncate: gradients go back through so many steps at most, counted in
    segments from the first step; by default through all of them.
    """

    units: int
    activation: Elementwise = field(default_factory=ReLU)
    sequences: bool = False
    truncate: int | None = None
    init: Initializer = field(default_factory=HeNormal)
    recurrent_init: Initializer = field(default_factory=Identity)
    weight: Param = field(init=False, repr=False)
    recurrent: Param = field(init=False, repr=False)
    bias: Param = field(init=False, repr=False)
    _x: Array = field(init=False, repr=False)
    _before: Array = field(init=False, repr=False)
    _kept: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.units = whole("RNN(units)", self.units)
        if self.truncate is not None:
            self.truncate = whole("RNN(truncate)", self.truncate)

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2 or 0 in input_shape:
            raise ValueError(f"RNN takes samples of shape (steps, inputs), not {input_shape}.")
        steps, inputs = input_shape
        self.weight = Param("weight", (inputs, self.units), self.init, inputs, self.units)
        self.recurrent = Param("recurrent", (self.units, self.units), self.recurrent_init, self.units, self.units)
        self.bias = Param("bias", (self.units,), Constant(0.0), inputs, self.units)
        return (steps, self.units) if self.sequences else (self.units,)

    def params(self) -> Sequence[Param]:
        return [self.weight, self.recurrent, self.bias]

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        num, steps, inputs = x.shape
        self._x = run.empty(x.shape, x.dtype).reshape(steps, num, inputs)
        np.copyto(self._x, x.transpose(1, 0, 2))
        z = run.empty((num, steps, self.units), x.dtype).reshape(steps, num, self.units)
        np.matmul(self._x.reshape(-1, inputs), self.weight.value, out=z.reshape(-1, self.units))
        self._before = run.empty((num, steps, self.units), x.dtype).reshape(z.shape)  # the states before each step
        last = run.empty((num, self.units), x.dtype)
        function, arguments = self.activation.function()
        self._kept = run.empty((num, steps, self.units), x.dtype).reshape(z.shape) if function.keeps_output else z
        numbers = function.in_dtype(x.dtype, arguments)
        from_state = run.scratch("RNN", (num, self.units), x.dtype)
        self._before[:1] = 0
        for t in range(steps):
            if t:
                np.matmul(self._before[t], self.recurrent.value, out=from_state)
                kernels.add_rows(z[t], from_state, self.bias.value)
            else:
                kernels.add_bias(z[0], self.bias.value)
            state = self._before[t + 1] if t + 1 < steps else last
            function.forward(z[t].reshape(-1), state.reshape(-1), *numbers)
            if function.keeps_output:
                self._kept[t] = state
        if not self.sequences:
            return last
        y = run.empty((num, steps, self.units), x.dtype)
        np.copyto(y[:, :-1], self._before[1:].transpose(1, 0, 2))
        y[:, -1] = last
        return y

    def backward(self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True) -> Array:
        steps, num, inputs = self._x.shape
        function, arguments = self.activation.function()
        numbers = function.in_dtype(dy.dtype, arguments)
        dz = run.empty((num, steps, self.units), dy.dtype).reshape(steps, num, self.units)
        np.copyto(dz[-1], dy[:, -1] if self.sequences else dy)
        for t in reversed(range(steps)):
            function.backward(dz[t].reshape(-1), self._kept[t].reshape(-1), *numbers)
            if t == 0:
                break
            if self.truncate is None or t % self.truncate:
                np.matmul(dz[t], self.recurrent.value.T, out=dz[t - 1])
            else:
                dz[t - 1] = 0
            if self.sequences:
                dz[t - 1] += dy[:, t - 1]
        rows = dz.reshape(-1, self.units)
        kernels.sum_rows(rows, self.bias.grad)
        run.product(self.weight, self._x.reshape(-1, inputs), rows)
        run.product(self.recurrent, self._before.reshape(-1, self.units), rows)
        if not wants_dx:
            return dy
        d_inputs = run.scratch("RNN inputs", (steps, num, inputs), dy.dtype)
        np.matmul(rows, self.weight.value.T, out=d_inputs.reshape(-1, inputs))
        dx = run.empty((num, steps, inputs), dy.dtype)
        np.copyto(dx, d_inputs.transpose(1, 0, 2))
        return dx

    def step(self, x: Array, state: Array | None = None) -> Array:
        """One step of a stream: the state (N, K) after the inputs x (N, C), from the one before, by default 0."""
        z = x @ self.weight.value + self.bias.value
        if state is not None:
            z += state @ self.recurrent.value
        function, arguments = self.activation.function()
        after = np.empty_like(z)
        function.forward(z.reshape(-1), after.reshape(-1), *function.in_dtype(z.dtype, arguments))
        return after
