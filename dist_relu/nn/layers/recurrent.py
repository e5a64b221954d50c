"""Recurrence.  N batch, T steps, C inputs, K units.

Inside, arrays are time-major, (T, N, K), so that each step works on contiguous memory; they live in buffers with one
row per sample, which have the same size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.core.arrays import Array, as_rows
from dist_relu.core.checks import check_bool, check_fields, check_int, instance_of, optional
from dist_relu.kernels.elementwise import add_to_rows
from dist_relu.kernels.products import add_multiplied, multiply, multiply_by_transpose
from dist_relu.kernels.recurrent import recurrence_of
from dist_relu.kernels.tiles import AS_IS, BIAS, BIAS_RELU
from dist_relu.nn.boundary import array_of
from dist_relu.nn.description import copy_unbuilt
from dist_relu.nn.initializers import Constant, HeNormal, Identity, Initializer
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.activations import Elementwise, ReLU


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
    _last: Array = field(init=False, repr=False)
    _z: Array = field(init=False, repr=False)  # where slopes are functions of it; otherwise anything
    _dz: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(
            self,
            units=check_int,
            activation=instance_of(Elementwise),
            sequences=check_bool,
            truncate=optional(check_int),
            init=instance_of(Initializer),
            recurrent_init=instance_of(Initializer),
        )
        self.activation = copy_unbuilt(self.activation)  # which others may have been given too

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

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        num, steps, inputs = x.shape
        function, arguments = self.activation.function()
        recur, _ = recurrence_of(function)
        bias = self.bias.value
        self._x = run.empty(x.shape, bias.dtype).reshape(steps, num, inputs)
        self._before = run.empty((num, steps, self.units), bias.dtype).reshape(steps, num, self.units)
        self._last = run.empty((num, self.units), bias.dtype)
        self._z = self._before
        if not function.keeps_output:
            self._z = run.empty((num, steps, self.units), bias.dtype).reshape(steps, num, self.units)
        y = run.empty((num, steps, self.units), bias.dtype) if self.sequences else self._last
        recur(
            x,
            self._x,
            self.weight.value,
            self.recurrent.value,
            bias,
            self._z,
            self._before,
            self._last,
            y if self.sequences else self._before[:0],
            function.keeps_output,
            BIAS_RELU if isinstance(self.activation, ReLU) else BIAS,
            *function.in_dtype(bias.dtype, arguments),
        )
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        steps, num, inputs = self._x.shape
        function, arguments = self.activation.function()
        _, recur_backward = recurrence_of(function)
        dz = self._dz = run.empty((num, steps, self.units), dy.dtype).reshape(steps, num, self.units)
        dx = run.empty((num, steps, inputs), dy.dtype) if wants_dx else self._x[:0]
        recur_backward(
            dy.reshape(num, steps if self.sequences else 1, self.units),
            dz,
            self._z,
            self._before,
            self._last,
            self.weight.value,
            self.recurrent.value,
            self.bias.grad,
            dx,
            function.keeps_output,
            self.truncate or steps,
            *function.in_dtype(dy.dtype, arguments),
        )
        rows = as_rows(dz)
        run.product(self.weight, as_rows(self._x), rows)
        run.product(self.recurrent, as_rows(self._before), rows)
        return dx if wants_dx else dy

    def state_gradients(self, dy: Array) -> Array:
        """The gradient of every state hₜ, (N, T, K), after `backward(dy)` and with the dy that was passed to it.

        Of a state that stands at the end of a truncated segment, without the part that comes from later ones.
        """
        if not hasattr(self, "_dz"):
            raise ValueError("RNN.state_gradients needs a backward pass before it.")
        steps, num, units = self._dz.shape
        shape = (steps, units) if self.sequences else (units,)
        dy = array_of("RNN.state_gradients", "dy", dy, self._dz.dtype, num, shape)
        dh = np.zeros_like(self._dz)
        multiply_by_transpose(as_rows(self._dz[1:]), self.recurrent.value, as_rows(dh[:-1]))
        if self.truncate is not None:
            dh[self.truncate - 1 : -1 : self.truncate] = 0
        of_states = dh.transpose(1, 0, 2)
        if self.sequences:
            of_states += dy
        else:
            of_states[:, -1] = dy
        return of_states

    def step(self, x: Array, state: Array | None = None) -> Array:
        """One step of a stream: the state (N, K) after the inputs x (N, C), from the one before, by default 0."""
        if not hasattr(self, "bias") or not hasattr(self.bias, "value"):
            raise ValueError("RNN.step needs parameters: build and initialize the model first.")
        bias = self.bias.value
        x = array_of("RNN.step", "x", x, bias.dtype, None, self.weight.shape[:1])
        z = np.empty((len(x), self.units), bias.dtype)
        multiply(x, self.weight.value, bias, AS_IS, z)
        if state is not None:
            state = array_of("RNN.step", "state", state, bias.dtype, len(x), (self.units,))
            add_multiplied(state, self.recurrent.value, bias, AS_IS, z)
        add_to_rows(z, bias)
        function, arguments = self.activation.function()
        after = np.empty_like(z)
        function.forward(z.reshape(-1), after.reshape(-1), *function.in_dtype(z.dtype, arguments))
        return after
