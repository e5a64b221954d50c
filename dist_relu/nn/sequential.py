"""A model: layers one after the other, over one flat vector of parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod
from typing import final

import numpy as np
import numpy.typing as npt

from dist_relu.arrays import Array
from dist_relu.checks import check_dtype, check_ints, check_seed
from dist_relu.nn.description import fresh
from dist_relu.nn.fusion import fuse
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape
from dist_relu.partition import Purpose, generator


@final
class Sequential:
    """Layers one after the other.

    `build` fixes the shapes, `initialize` draws the parameters; `Coordinator.fit` does both when it has not been
    done. dtype: float32, or float64 for numerical checks.
    """

    def __init__(self, *layers: Layer, dtype: npt.DTypeLike = np.float32) -> None:
        if not layers:
            raise ValueError("Sequential() needs at least one layer.")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential takes layers, not {layer!r}.")
        if len(set(map(id, layers))) < len(layers):
            raise ValueError("A layer stands twice in Sequential; build a second one.")
        self.dtype = check_dtype("dtype", dtype)
        self.layers = layers
        self.input_shape: Shape | None = None
        self.output_shape: Shape = ()
        self.layer_shapes: list[Shape] = []  # of their outputs
        self.params: list[Param] = []
        self.names: list[str] = []
        self.values: Array | None = None
        self.passes: list[Layer] = []  # what is computed with, of which neighbouring layers may share one

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))}, dtype={self.dtype.name!r})"

    @property
    def num_params(self) -> int:
        return sum(prod(param.shape) for param in self.params)

    def build(self, input_shape: Shape) -> Sequential:
        """Fix the shape of a sample; a model keeps the shape that it was built for.  Returns the model itself."""
        input_shape = check_ints("input_shape", input_shape, 0)
        if self.input_shape is not None:
            if input_shape != self.input_shape:
                raise ValueError(
                    f"The model was built for samples of shape {self.input_shape}, but these have shape {input_shape}."
                )
            return self
        if not input_shape:
            raise ValueError("Samples must have at least one dimension; expected x of shape (N, ...).")
        shape = input_shape
        self.layer_shapes = []
        for i, layer in enumerate(self.layers):
            try:
                shape = layer.build(shape)
                self.layer_shapes.append(shape)
            except ValueError as error:
                raise ValueError(f"Layer {i}: {error}") from None
        self.params = [param for layer in self.layers for param in layer.params()]
        if len(set(map(id, self.params))) < len(self.params):
            raise ValueError("A layer stands twice in the model; build a second one.")
        self.names = [f"{i}.{param.name}" for i, layer in enumerate(self.layers) for param in layer.params()]
        self.passes = fuse(self.layers)
        self.input_shape, self.output_shape = input_shape, shape
        return self

    def initialize(self, seed: int = 0) -> Sequential:
        """Draw the parameters, each a pure function of (seed, its number).  Returns the model itself.

        Raises ValueError for a model that was not built: it doesn't know the shapes of its parameters yet.
        """
        seed = check_seed(seed)
        if self.input_shape is None:
            raise ValueError(
                "The model was not built yet, so it has no parameters to initialize: build it first, "
                "model.build(input_shape).initialize(seed), or leave both to Coordinator.fit(..., seed=seed)."
            )
        values = np.empty(self.num_params, self.dtype)
        for number, (param, view) in enumerate(zip(self.params, self.views(values), strict=True)):
            rng = generator(seed, Purpose.INITIAL_WEIGHTS, number)
            view[...] = param.init.draw(param.shape, param.fan_in, param.fan_out, rng)
        self.bind(values)
        return self

    def views(self, vector: Array) -> list[Array]:
        """The flat vector (P,) as one view per parameter."""
        views, start = [], 0
        for param in self.params:
            stop = start + prod(param.shape)
            views.append(vector[start:stop].reshape(param.shape))
            start = stop
        return views

    def bind(self, values: Array) -> None:
        """Compute with the parameters in `values` (P,) from now on, wherever they lie; nothing is copied."""
        self.values = values
        gradient = np.zeros(self.num_params, self.dtype)
        for param, value, grad in zip(self.params, self.views(values), self.views(gradient), strict=True):
            param.value, param.grad = value, grad

    def forward(self, x: Array, run: Run = PLAIN) -> Array:
        """(N, *input_shape) to (N, *output_shape)."""
        for layer in self.passes:
            x = layer.forward(x, run)
        return x

    def forward_seen(self, x: Array, run: Run = PLAIN) -> list[Array]:
        """As `forward`, with the output of every pass, of which neighbouring layers may share one."""
        outputs = []
        for layer in self.passes:
            x = layer.forward(x, run)
            outputs.append(x)
        return outputs

    def backward(
        self, dy: Array, run: Run = PLAIN, *, wants_dx: bool = True, left: Callable[[int], object] | None = None
    ) -> Array:
        """Leave the gradients of all parameters; return that of the input of the last `forward`.

        Without `wants_dx` the layers before the first one with parameters have nothing to do.  left: called after
        every layer with the number of the parameter from which on all gradients are left.
        """
        first = 0
        if not wants_dx:
            first = next((i for i, layer in enumerate(self.passes) if layer.params()), 0)
        number = len(self.params)
        for i in range(len(self.passes) - 1, first - 1, -1):
            layer = self.passes[i]
            dy = layer.backward(dy, run, wants_dx=wants_dx or i > first)
            if left:
                number -= len(layer.params())
                left(number)
        return dy

    def activations(self, x: Array, run: Run = PLAIN) -> list[Array]:
        """The output of every layer as the user wrote them, unfused; each (N, ...)."""
        outputs = []
        for layer in self.layers:
            x = layer.forward(x, run)
            outputs.append(x)
        return outputs

    def blueprint(self) -> Sequential:
        """The same model, unbuilt and without parameters."""
        return Sequential(*map(fresh, self.layers), dtype=self.dtype)

    def sha256(self) -> str:
        """The digest of the parameters, little-endian, in layer order."""
        if self.values is None:
            raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
        return digest_of(self.values)


def digest_of(values: Array) -> str:
    """The SHA-256 of an array's bytes, little-endian."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
