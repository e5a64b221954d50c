"""A model: layers one after the other, over one flat vector of parameters."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from textwrap import shorten
from typing import Any, Literal, cast, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_dtype, check_ints, check_is, check_seed
from dist_relu.core.html import table
from dist_relu.kernels.tape import in_python
from dist_relu.nn.boundary import Inside, array_of, inside
from dist_relu.nn.composition import check_layer, check_params, check_places, layers_in
from dist_relu.nn.description import brief, copy_unbuilt
from dist_relu.nn.fusion import ACTIVATIONS, ActivationFused, fuse
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, PassObserver, PreactivationObserver, Shape
from dist_relu.nn.losses.loss import Loss
from dist_relu.nn.states import Owner, State, state_of
from dist_relu.partition import Purpose, generator

Predicts = Literal["classes", "labels", "numbers"]
"""One of several classes, which of some labels are there, or numbers."""

_NOT_BUILT = "The model was not built yet, so it has no shapes: build it first, model.build(input_shape)."
_NO_PARAMETERS = "The model has no parameters yet: fit it, or build and initialize it."
_WIDTH = 80
"""Of a layer in a table."""

_FIXED = frozenset({"layers", "dtype", "input_shape", "output_shape", "layer_shapes", "params", "names", "passes"})
"""What can't be set: layers have arrays for it."""


@final
@dataclass(frozen=True, kw_only=True)
class _Built:
    """What `build` has found out; see the properties of `Sequential`."""

    input_shape: Shape
    output_shape: Shape
    layer_shapes: list[Shape]
    params: list[Param]
    names: list[str]
    passes: list[Layer]


@final
class Sequential:
    """Layers one after the other.

    `build` fixes the shapes, `initialize` draws the parameters; `Coordinator.fit` does both when it has not been
    done. What is asked for before it is there raises ValueError: `is_built` and `has_values` tell.

    dtype: float32, or float64 for numerical checks.  predicts: what the targets were that it was trained on.
    loss: what it was trained with, where targets alone don't tell.
    classes: the names of the class numbers that it predicts, where the data had names for them.

    A layer has one place in one model, which owns its parameters and what it remembers of a pass. One that stands twice
    is refused, and so is one of another model that was built and is still there: `blueprint` makes fresh ones.
    """

    layers: tuple[Layer, ...]
    dtype: np.dtype[Any]
    predicts: Predicts | None
    loss: Loss | None
    classes: tuple[str, ...] | None

    def __init__(self, *layers: Layer | Sequence[Layer], dtype: npt.DTypeLike = np.float32) -> None:
        """layers: one after the other, or a single list of them."""
        if len(layers) == 1 and isinstance(layers[0], list | tuple):
            layers = tuple(layers[0])
        if not layers:
            raise ValueError("Sequential() needs at least one layer.")
        checked = tuple(map(check_layer, layers))
        check_places(checked)
        vars(self).update(layers=checked, dtype=check_dtype("dtype", dtype))
        self.predicts, self.loss, self.classes = None, None, None
        self._built: _Built | None = None
        self._values: Array | None = None
        self._inside: list[Inside] = []  # the passes, and then every layer alone, as the model calls them
        self._singly: list[Inside] = []
        self._params_of_passes: list[int] = []
        self._state = State(is_model=True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise ValueError(f"A model's {name} can't be set: make another model.")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(brief, self.layers))}, dtype={self.dtype.name!r})"

    def _repr_html_(self) -> str:
        """A table of the layers, for notebooks."""
        total = f", {self.num_params:,} parameters" if self.is_built else ", not built yet"
        shapes = self.layer_shapes if self.is_built else [None] * len(self.layers)
        rows = (
            (
                f"{number} {shorten(brief(layer), _WIDTH)}",
                shape,
                sum(prod(param.shape) for param in layer.params()) if shape else None,
            )
            for number, (layer, shape) in enumerate(zip(self.layers, shapes, strict=True))
        )
        return table(f"Sequential, {self.dtype.name}{total}", ["layer", "output shape", "parameters"], rows)

    @property
    def is_built(self) -> bool:
        """Whether `build` has fixed the shapes."""
        return self._built is not None

    @property
    def has_values(self) -> bool:
        """Whether there are parameters to compute with: drawn, trained, loaded or bound."""
        return self._values is not None

    @property
    def input_shape(self) -> Shape:
        """The shape of a sample."""
        return self._known.input_shape

    @property
    def output_shape(self) -> Shape:
        """The shape of what the model makes of a sample."""
        return self._known.output_shape

    @property
    def layer_shapes(self) -> list[Shape]:
        """The shape of what each layer makes of a sample."""
        return self._known.layer_shapes

    @property
    def params(self) -> list[Param]:
        """The parameters of all layers, in the order in which they stand in `values`."""
        return self._known.params

    @property
    def names(self) -> list[str]:
        """The parameters' names, with the number of their layer: "0.weight"."""
        return self._known.names

    @property
    def passes(self) -> list[Layer]:
        """The layers that are computed with, of which neighbouring ones may share a pass over memory."""
        return self._known.passes

    @property
    def _known(self) -> _Built:
        """What `build` has found out.  Raises ValueError for a model that was not built."""
        if self._built is None:
            raise ValueError(_NOT_BUILT)
        return self._built

    @property
    def values(self) -> Array:
        """All parameters as one vector (P,).  Set it to let the model have other numbers, which are copied."""
        if self._values is None:
            raise ValueError(_NO_PARAMETERS)
        return self._values

    @values.setter
    def values(self, values: Array) -> None:
        self.views(values)  # raises an error for what is no such vector
        self.values[...] = values

    @property
    def num_params(self) -> int:
        """P, the number of numbers in `values`."""
        return sum(prod(param.shape) for param in self.params)

    def build(self, input_shape: Shape) -> Sequential:
        """Fix the shape of a sample; a model keeps the shape that it was built for.  Returns the model itself."""
        input_shape = check_ints("input_shape", input_shape, 0)
        if self.is_built:
            if input_shape != self.input_shape:
                raise ValueError(
                    f"The model was built for samples of shape {self.input_shape}, but these have shape {input_shape}."
                )
            return self
        if not input_shape:
            raise ValueError("Samples must have at least one dimension; expected x of shape (N, ...).")
        shape = input_shape
        layer_shapes = []
        for i, layer in enumerate(self.layers):
            try:
                shape = layer.build(shape)
                layer_shapes.append(shape)
            except ValueError as error:
                raise ValueError(f"Layer {i}: {error}") from None
        params = [param for layer in self.layers for param in layer.params()]
        for i, layer in enumerate(self.layers):
            check_params(f"Layer {i} ({type(layer).__name__})", layer, params)
        names = [f"{i}.{param.name}" for i, layer in enumerate(self.layers) for param in layer.params()]
        passes = fuse(self.layers)
        self._inside, self._singly = list(map(inside, passes)), list(map(inside, self.layers))
        self._params_of_passes = [len(layer.params()) for layer in passes]
        self._built = _Built(
            input_shape=input_shape,
            output_shape=shape,
            layer_shapes=layer_shapes,
            params=params,
            names=names,
            passes=passes,
        )
        self._own_layers()
        return self

    def __copy__(self) -> Sequential:
        """With layers of its own, for these know where their parameters are."""
        return copy.deepcopy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.is_built:
            self._own_layers()
        if self.has_values:
            # Views of one vector have become arrays of their own, and those of a file that is mapped can't be written.
            self.bind(self.values if self.values.flags.carray else self.values.copy())

    def _own_layers(self) -> None:
        """Let every layer know where it stands, and in what."""
        everything = layers_in(self.layers)
        for place, layer in everything:
            state_of(layer).place = place
            state_of(layer).owners.clear()
        for place, layer in everything:
            state_of(layer).owners.append(Owner(self._state, is_direct="." not in place))
            for _, part in layers_in([layer])[1:]:
                state_of(part).owners.append(Owner(state_of(layer)))

    def initialize(self, seed: int = 0) -> Sequential:
        """Draw the parameters, each a pure function of (seed, its number).  Returns the model itself.

        Raises ValueError for a model that was not built: it doesn't know the shapes of its parameters yet.
        """
        seed = check_seed(seed)
        if not self.is_built:
            raise ValueError(
                "The model was not built yet, so it has no parameters to initialize: build it first, "
                "model.build(input_shape).initialize(seed), or leave both to Coordinator.fit(..., seed=seed)."
            )
        values = np.empty(self.num_params, self.dtype)
        for number, (param, view) in enumerate(zip(self.params, self.views(values), strict=True)):
            rng = generator(seed, Purpose.INITIAL_WEIGHTS, number)
            drawn = np.asarray(param.init.draw(param.shape, param.fan_in, param.fan_out, rng))
            if drawn.shape != param.shape or drawn.dtype.kind not in "fiu":
                raise ValueError(
                    f"{param.init!r} drew {drawn.dtype} of shape {drawn.shape} for {self.names[number]}; expected real "
                    f"numbers of shape {param.shape}."
                )
            view[...] = drawn
        self.bind(values)
        return self

    def views(self, vector: Array) -> list[Array]:
        """The flat vector (P,) as one view per parameter."""
        if not isinstance(vector, np.ndarray) or vector.shape != (self.num_params,):
            found = vector.shape if isinstance(vector, np.ndarray) else type(vector).__name__
            raise ValueError(f"The parameters of this model are a vector of shape ({self.num_params},), not {found}.")
        views, start = [], 0
        for param in self.params:
            stop = start + prod(param.shape)
            views.append(vector[start:stop].reshape(param.shape))
            start = stop
        return views

    def bind(self, values: Array) -> None:
        """Compute with the parameters in `values` (P,) from now on, wherever they lie; nothing is copied.

        Raises ValueError for a vector of another length or dtype, or one that does not lie in one piece.
        """
        views = self.views(values)
        if values.dtype != self.dtype or not values.flags.carray:
            raise ValueError(
                f"values are {values.dtype}{'' if values.flags.carray else ' that do not lie in one piece'}; expected "
                f"{self.dtype}, as the model, one behind the other in memory that may be written to."
            )
        self._values = values
        gradient = np.zeros(self.num_params, self.dtype)
        for param, value, grad in zip(self.params, views, self.views(gradient), strict=True):
            param.places().update(value=value, grad=grad)

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        """(N, *input_shape) to (N, *output_shape).

        x: anything that is an array of numbers; computed with in the model's dtype.  Raises ValueError for another
        shape, and for a model that has no parameters yet.
        """
        x = self._begin(x, run)
        y = self.forward_inside(x, run)
        self._end(x, singly=False)
        return y

    def forward_inside(self, x: Array, run: Pass, on_layer: Callable[[int], object] | None = None) -> Array:
        """`forward` of samples that are known to be what the model takes, in memory that only `run` knows.

        on_layer: called before every one of `passes` with its number.
        """
        observer = run.observer
        if observer is not None:
            return self._forward_observed(x, run, observer, on_layer)
        for number, layer in enumerate(self._inside):
            if on_layer:
                on_layer(number)
            x = layer.forward(x, run)
        return x

    def _forward_observed(
        self, x: Array, run: Pass, observer: PassObserver, on_layer: Callable[[int], object] | None
    ) -> Array:
        """The same outputs, to the bit, while an observer looks on."""
        see = observer.see_preactivations if isinstance(observer, PreactivationObserver) else None
        for number, (layer, inside_of_model) in enumerate(zip(self.passes, self._inside, strict=True)):
            if on_layer:
                on_layer(number)
            if see and isinstance(layer, ActivationFused):
                x = layer.forward_observed(x, run, partial(see, number))
            else:
                if see and isinstance(layer, ACTIVATIONS):
                    see(number, x, None)
                x = inside_of_model.forward(x, run)
            in_python(partial(observer.see_output, number, x))
        return x

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        """Leave the gradients of all parameters; return that of the input of the last `forward`.

        Without `wants_dx` the layers before the first one with parameters have nothing to do.

        Raises ValueError for another shape than that of the last `forward`, and where there was none.
        """
        check_is("run", run, Pass)
        return self.backward_inside(self._gradient(dy), run, wants_dx=wants_dx)

    def backward_inside(
        self,
        dy: Array,
        run: Pass,
        *,
        wants_dx: bool,
        on_grads_ready: Callable[[int], object] | None = None,
        on_layer: Callable[[int], object] | None = None,
    ) -> Array:
        """`backward` of the gradient of what `forward_inside` has just returned.

        on_grads_ready: called after every layer with the number of the parameter from which on all gradients are there.
        on_layer: called before every one of `passes` with its number.
        """
        first, of_passes = 0, self._params_of_passes
        if not wants_dx:
            first = next((i for i, num_params in enumerate(of_passes) if num_params), 0)
        number = len(self.params)
        for i in range(len(of_passes) - 1, first - 1, -1):
            if on_layer:
                on_layer(i)
            dy = self._inside[i].backward(dy, run, wants_dx=wants_dx or i > first)
            if on_grads_ready:
                number -= of_passes[i]
                on_grads_ready(number)
        return dy

    def activations(self, x: Array, run: Pass = PLAIN) -> list[Array]:
        """The output of every layer as the user wrote them, unfused; each (N, ...).

        Layers may go backward one by one after it.
        """
        y = x = self._begin(x, run)
        outputs = [y := layer.forward(y, run) for layer in self._singly]
        self._end(x, singly=True)
        return outputs

    def _begin(self, x: Any, run: Pass) -> Array:
        """Samples as an array that layers can work on, mostly x itself.  A pass begins with them."""
        check_is("run", run, Pass)
        built = self._known
        if self._values is None and built.params:
            raise ValueError(_NO_PARAMETERS)
        is_array = x.__class__ is np.ndarray and x.dtype is self.dtype and x.flags.carray
        if not (is_array and x.shape[1:] == built.input_shape):
            x = array_of("The model", "x", x, self.dtype, None, built.input_shape)
        self._state.begin()
        return cast(Array, x)

    def _end(self, x: Array, *, singly: bool) -> None:
        """A pass forward is through, and one backward may follow."""
        state = self._state
        state.rows, state.dtype, state.singly = len(x), self.dtype, singly

    def _gradient(self, dy: Any) -> Array:
        """The gradient of the last outputs as an array that layers can work on, mostly dy itself."""
        state = self._state
        if state.rows is None or state.singly:
            raise ValueError("backward needs a `forward` of the model right before it: its layers have seen others.")
        is_array = dy.__class__ is np.ndarray and dy.dtype is self.dtype and dy.flags.carray
        if is_array and dy.shape == (state.rows, *self.output_shape):
            return cast(Array, dy)
        return array_of("The model", "dy", dy, self.dtype, state.rows, self.output_shape)

    def blueprint(self) -> Sequential:
        """The same model, unbuilt and without parameters."""
        unbuilt = Sequential(*map(copy_unbuilt, self.layers), dtype=self.dtype)
        unbuilt.predicts, unbuilt.loss, unbuilt.classes = self.predicts, self.loss, self.classes
        return unbuilt

    def sha256(self) -> str:
        """The digest of the parameters, little-endian, in layer order."""
        return digest_of(self.values)


def digest_of(values: Array) -> str:
    """The SHA-256 of an array's bytes, little-endian."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
