"""A model: layers one after the other, over one flat vector of parameters."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from dist_relu.arrays import Array
from dist_relu.checks import check_dtype, check_ints, check_seed
from dist_relu.nn.description import brief, check_is_data, fresh, parts
from dist_relu.nn.fusion import fuse
from dist_relu.nn.layer import PLAIN, Layer, Param, Run, Shape
from dist_relu.partition import Purpose, generator


@final
class Owner:
    """The model that a layer belongs to, as long as there is one; what is copied belongs to nobody yet."""

    def __init__(self, model: Sequential | None = None) -> None:
        self._model = None if model is None else weakref.ref(model)

    def model(self) -> Sequential | None:
        return None if self._model is None else self._model()

    def __reduce__(self) -> tuple[type[Owner], tuple[()]]:
        return Owner, ()


@final
class Sequential:
    """Layers one after the other.

    `build` fixes the shapes, `initialize` draws the parameters; `Coordinator.fit` does both when it has not been
    done. dtype: float32, or float64 for numerical checks.

    A layer has one place in one model, which owns its parameters and what it remembers of a pass. One that stands twice
    is refused, and so is one of another model that was built and is still there: `blueprint` makes fresh ones.
    """

    def __init__(self, *layers: Layer | Sequence[Layer], dtype: npt.DTypeLike = np.float32) -> None:
        """layers: one after the other, or a single list of them."""
        if len(layers) == 1 and isinstance(layers[0], list | tuple):
            layers = tuple(layers[0])
        if not layers:
            raise ValueError("Sequential() needs at least one layer.")
        checked = tuple(map(_layer, layers))
        _check_places(checked)
        self.dtype = check_dtype("dtype", dtype)
        self.predicts: Literal["classes", "numbers"] | None = None  # what the targets were that it was trained on
        self.layers = checked
        self.input_shape: Shape | None = None
        self.output_shape: Shape = ()
        self.layer_shapes: list[Shape] = []  # of their outputs
        self.params: list[Param] = []
        self.names: list[str] = []
        self.values: Array | None = None
        self.passes: list[Layer] = []  # what is computed with, of which neighbouring layers may share one

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(brief, self.layers))}, dtype={self.dtype.name!r})"

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
        _check_free(self.layers)
        shape = input_shape
        self.layer_shapes = []
        for i, layer in enumerate(self.layers):
            try:
                shape = layer.build(shape)
                self.layer_shapes.append(shape)
            except ValueError as error:
                raise ValueError(f"Layer {i}: {error}") from None
        for i, layer in enumerate(self.layers):
            _check_params(f"Layer {i} ({type(layer).__name__})", layer)
        self.params = [param for layer in self.layers for param in layer.params()]
        self.names = [f"{i}.{param.name}" for i, layer in enumerate(self.layers) for param in layer.params()]
        self.passes = fuse(self.layers)
        self.input_shape, self.output_shape = input_shape, shape
        self._own_layers()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.input_shape is not None:
            self._own_layers()

    def _own_layers(self) -> None:
        for _, layer in _layers_in(self.layers):
            vars(layer)["_owner"] = Owner(self)

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
        copy = Sequential(*map(fresh, self.layers), dtype=self.dtype)
        copy.predicts = self.predicts
        return copy

    def sha256(self) -> str:
        """The digest of the parameters, little-endian, in layer order."""
        if self.values is None:
            raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
        return digest_of(self.values)


def _layers_in(layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    """All layers, those inside of others too, with their places."""
    return [(place, part) for place, part in parts(layers) if isinstance(part, Layer)]


def _check_places(layers: Sequence[Layer]) -> None:
    """Raise ValueError where a layer stands twice, and TypeError for one that can't be made anew from its fields."""
    places: dict[int, str] = {}
    for place, layer in _layers_in(layers):
        check_is_data(layer)
        if id(layer) in places:
            raise ValueError(
                f"{type(layer).__name__} stands twice in the model, at {places[id(layer)]} and at {place}. A layer "
                "remembers what it saw, so it can't be shared: build a second one."
            )
        places[id(layer)] = place


def _check_free(layers: Sequence[Layer]) -> None:
    """Raise ValueError for a layer of another model."""
    for place, layer in _layers_in(layers):
        owner = vars(layer).get("_owner")
        if owner and owner.model() is not None:
            raise ValueError(
                f"Layer {place} ({type(layer).__name__}) belongs to another model, which would lose its parameters to "
                "this one. Take fresh layers, as from model.blueprint().layers, and copy the parameters that are to "
                "stay once this model is built."
            )


def _check_params(name: str, layer: Layer) -> None:
    """Raise an error unless a layer has a list of parameters, each with a name of its own."""
    params = list(layer.params())
    for param in params:
        if not isinstance(param, Param):
            raise TypeError(f"{name}: params() has {param!r}; expected nn.Param.")
    if list(map(id, params)) != list(map(id, layer.params())):
        raise ValueError(f"{name}: params() makes new parameters when it is called. Make them in build.")
    seen: dict[str, Param] = {}
    for param in params:
        if param.name in seen:
            raise ValueError(
                f"{name} has two parameters called {param.name!r}, of shapes {seen[param.name].shape} and "
                f"{param.shape}; files and gradients tell parameters apart by their names. Name them differently."
            )
        seen[param.name] = param


def digest_of(values: Array) -> str:
    """The SHA-256 of an array's bytes, little-endian."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


def _layer(value: object) -> Layer:
    if isinstance(value, Layer):
        return value
    if isinstance(value, type) and issubclass(value, Layer):
        raise TypeError(f"Sequential takes layers, not their class {value.__name__}: write {value.__name__}().")
    raise TypeError(f"Sequential takes layers, not an object of type {type(value).__name__}.")
