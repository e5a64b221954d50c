"""The boundary between arrays of users and kernels.

Kernels trust the shape, dtype and order of what they are given, and would read and write memory that is not theirs
otherwise. So `forward` and `backward` of every layer, as users call them, check their array first, convert it where
that changes no meaning, and name the layer where they can't. A model does so for its own input and gradient, once for
all its layers: it calls those of this package without these checks, and those of others with a check of what they
return (`inside`).

A backward pass works on what the forward pass before it has left in the layers. Who ran last is known by `State`s, see
`dist_relu.nn.states`.

N samples.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, final

import numpy as np

from dist_relu.core.array_checks import check_numbers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_ints
from dist_relu.core.guards import is_ours, unchecked
from dist_relu.errors import DataError
from dist_relu.kernels.tape import Tape, in_python
from dist_relu.nn.description import parts
from dist_relu.nn.states import ATTRIBUTE, Owner, Shape, State, name_of, state_of

_ORDER: Sequence[Literal["C", "A", "W"]] = "C", "A", "W"


def build(kind: type, method: Callable[..., Any], layer: Any, input_shape: Any) -> Shape:
    """`Layer.build`."""
    state = state_of(layer)
    name = type(layer).__name__
    if any(owner.is_model for owner, _ in state.living_owners()):
        raise ValueError(
            f"{name} belongs to another model, which would lose its parameters to this one. Take fresh layers, as from "
            "model.blueprint().layers, and copy the parameters that are to stay once this model is built."
        )
    input_shape = check_ints(f"{name}.build(input_shape)", input_shape, 0)
    state.shapes.pop(kind, None)
    was_building, state.is_building = state.is_building, True  # it may be that of a class above
    try:
        returned = method(layer, input_shape)
    except IndexError:
        if not is_ours(kind):
            raise
        raise ValueError(f"{name} can't take samples of shape {input_shape}: they have too few dimensions.") from None
    finally:
        state.is_building = was_building
    try:
        output_shape = check_ints("shape", returned, 0)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}.build returned {returned!r}; expected the shape of a sample's output, such as {input_shape}."
        ) from None
    state.shapes[kind] = input_shape, output_shape
    state.is_implied = False
    state.owners.clear()
    state.rows = None
    for _, part in parts(layer):
        if part is not layer and ATTRIBUTE in getattr(part, "__dict__", ()):
            state_of(part).owners.append(Owner(state))
    return output_shape


def check_change(layer: Any, name: str) -> None:
    """Raise ValueError where an attribute of a layer of ours can't change any more, as arrays were made for it.

    Numbers like a slope or a probability may change all the time.
    """
    state = vars(layer).get(ATTRIBUTE)
    if state is None or state.is_building or state.is_implied or not state.shapes:
        return
    owners = (kind for kind in type(layer).__mro__ if name in vars(kind).get("__annotations__", ()))
    if is_ours(next(owners, object)) and not isinstance(vars(layer).get(name), float):
        raise ValueError(
            f"{name_of(layer)} was built, and its {name} is fixed since: make a new layer, and a model of it."
        )


def forward(kind: type, method: Callable[..., Any], layer: Any, x: Any, *run: Any, **options: Any) -> Any:
    """`Layer.forward`, called from outside of a model."""
    state = state_of(layer)
    if not state.shapes or state.is_implied:
        _build_for(layer, state, x)
    input_shape, output_shape = _shapes(layer, state, kind)
    dtype = _dtype_of_params(layer)
    x = array_of(name_of(layer), "x", x, dtype, None, input_shape)
    state.begin()
    for owner, _ in state.living_owners():
        owner.rows = None
    y = method(layer, x, *run, **options)
    if not is_ours(type(layer)):
        y = returned(layer, "forward", y, (len(x), *output_shape), dtype or x.dtype)
    state.rows, state.dtype = len(x), dtype or x.dtype
    return y


def backward(kind: type, method: Callable[..., Any], layer: Any, dy: Any, *run: Any, **options: Any) -> Any:
    """`Layer.backward`, called from outside of a model."""
    state = state_of(layer)
    input_shape, output_shape = _shapes(layer, state, kind)
    _dtype_of_params(layer)
    of_pass = _last_pass(state)
    if of_pass.rows is None:
        raise ValueError(
            f"{name_of(layer)}: backward needs a forward pass of this layer, or `activations` of its model, right "
            "before it."
        )
    dy = array_of(name_of(layer), "dy", dy, of_pass.dtype, of_pass.rows, output_shape)
    dx = method(layer, dy, *run, **options)
    if not is_ours(type(layer)) and options.get("wants_dx", True):
        dx = returned(layer, "backward", dx, (of_pass.rows, *input_shape), of_pass.dtype)
    return dx


class Inside(Protocol):
    """A layer as a model calls it: with arrays that were checked, and the model's own dtype."""

    @property
    def forward(self) -> Callable[..., Array]: ...

    @property
    def backward(self) -> Callable[..., Array]: ...


def inside(layer: Any) -> Inside:
    """A layer for those who know what they pass to it; it must be built."""
    return _Trusted(layer) if is_ours(type(layer)) else _Watched(layer)


@final
class _Trusted:
    """A layer of ours."""

    __slots__ = ("_layer", "backward", "forward")

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.forward = unchecked(layer.forward)
        self.backward = unchecked(layer.backward)

    def __reduce__(self) -> tuple[Callable[..., Inside], tuple[Any]]:
        return inside, (self._layer,)


@final
class _Watched:
    """A layer of somebody else's: what it returns is looked at before anything else works on it."""

    __slots__ = ("_backward", "_forward", "_input_shape", "_layer", "_output_shape")

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._forward = unchecked(layer.forward)
        self._backward = unchecked(layer.backward)
        self._input_shape, self._output_shape = _shapes(layer, state_of(layer), type(layer))

    def forward(self, x: Array, run: Any) -> Array:
        return self._between_kernels("forward", run, partial(self._checked_forward, x, run))

    def backward(self, dy: Array, run: Any, *, wants_dx: bool = True) -> Array:
        return self._between_kernels("backward", run, partial(self._checked_backward, dy, run, wants_dx=wants_dx))

    def _checked_forward(self, x: Array, run: Any) -> Array:
        y = self._forward(x, run)
        return returned(self._layer, "forward", y, (len(x), *self._output_shape), x.dtype)

    def _checked_backward(self, dy: Array, run: Any, *, wants_dx: bool) -> Array:
        dx = self._backward(dy, run, wants_dx=wants_dx)
        if not wants_dx:
            return dy
        return returned(self._layer, "backward", dx, (len(dy), *self._input_shape), dy.dtype)

    def _between_kernels(self, name: str, run: Any, method: Callable[[], Array]) -> Array:
        """Call a method; where kernels are recorded, again whenever they are played, as in the same place of a pass.

        What it returns then goes where it was when it was recorded, in memory that stays.
        """
        if Tape.current() is None:
            return method()
        go_back = run.bookmark()
        bound = [(param.places(), param.value, param.grad) for param in self._layer.params()]
        results: list[Array] = []

        def call() -> None:
            go_back()
            for places, value, grad in bound:
                places.update(value=value, grad=grad)
            result = method()
            if not results:
                stays = run.owns(result)
                results.append(result if stays else run.scratch(f"{id(self)} {name}", result.shape, result.dtype))
            if result is not results[0]:
                np.copyto(results[0], result)

        in_python(call)
        return results[0]

    def __reduce__(self) -> tuple[Callable[..., Inside], tuple[Any]]:
        return inside, (self._layer,)


def loss_backward(
    kind: type, method: Callable[..., Any], loss: Any, outputs: Any, targets: Any, scale: Any, d_outputs: Any
) -> tuple[float, int]:
    """`Loss.backward`, called by users or written by them."""
    name = type(loss).__name__
    if not is_ours(kind):
        return _checked_sums(name, method(loss, outputs, targets, scale, d_outputs))
    is_array = isinstance(d_outputs, np.ndarray) and d_outputs.dtype in (np.float32, np.float64) and d_outputs.ndim
    if not is_array or not d_outputs.flags.carray:
        raise ValueError(
            f"{name}.backward writes the gradient into d_outputs; expected an array of float32 or float64, of the "
            "shape of the outputs, in one piece that may be written to."
        )
    dtype, rows, shape = d_outputs.dtype, len(d_outputs), d_outputs.shape[1:]
    outputs = array_of(f"{name}.backward", "outputs", outputs, dtype, rows, shape)
    targets = check_numbers("targets", targets)
    if not targets.ndim or len(targets) != rows:
        raise ValueError(f"{name}.backward: targets have shape {targets.shape}; expected {rows} targets.")
    loss.check(targets, shape)
    targets = targets.astype(dtype if targets.dtype.kind == "f" else np.int64, copy=False)
    return _checked_sums(name, method(loss, outputs, _in_one_piece(targets), float(scale), d_outputs))


def _checked_sums(name: str, result: Any) -> tuple[float, int]:
    """What a loss returned, as numbers."""
    try:
        loss, num_correct = result
        return float(loss), operator.index(num_correct)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}.backward returned {result!r}; expected two numbers: the sum of the losses of the samples, and how "
            "many of them were predicted right (0 where that makes no sense)."
        ) from None


def returned(layer: Any, method: str, array: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """What a layer returned, in one piece that may be written to."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name_of(layer)}: {method} returned {_what(array)}; expected an array of shape {shape}.")
    if array.shape != shape:
        origin = "as its build has said" if method == "forward" else "as its input had"
        raise ValueError(
            f"{name_of(layer)}: {method} returned an array of shape {array.shape}; expected {shape}, {origin}."
        )
    if array.dtype != dtype:
        raise ValueError(
            f"{name_of(layer)}: {method} returned an array of {array.dtype}; expected {dtype}, in which the model "
            f"computes. Write into an array of run.empty(shape, x.dtype), or return it .astype(x.dtype)."
        )
    return _in_one_piece(array)


def array_of(owner: str, name: str, value: Any, dtype: np.dtype[Any] | None, rows: int | None, shape: Shape) -> Array:
    """`value` (rows, *shape) as an array that kernels can work on, itself where it is one.

    dtype: None for float32 or float64, whichever it is, and float32 for whole numbers.  rows: None for any number.
    Raises `DataError` for what holds no numbers, ValueError for other shapes.
    """
    array = check_numbers(name, value)
    if dtype is None:
        dtype = array.dtype if array.dtype.kind == "f" else np.dtype(np.float32)
    if not array.ndim or array.shape[1:] != shape or rows not in (None, len(array)):
        expected = ", ".join(map(str, ("N" if rows is None else rows, *shape)))
        reason = f"it was built for samples of shape {shape}" if rows is None else "the shape of its last output"
        raise ValueError(f"{owner}: {name} has shape {array.shape}; expected ({expected}): {reason}.")
    return _in_one_piece(_narrowed(name, array, dtype))


def _narrowed(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in a dtype.  Raises `DataError` where a finite number is too large for it."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        copy = array.astype(dtype)
        lost = np.isinf(copy) & np.isfinite(array)
    if lost.any():
        where = tuple(map(int, np.unravel_index(int(np.argmax(lost)), lost.shape)))
        raise DataError(
            f"{name}[{', '.join(map(str, where))}] is {array[where]}, too large for {dtype}. Scale the data, or build "
            "the model with dtype float64."
        )
    return copy


def _in_one_piece(array: Array) -> Array:
    return (
        array if array.__class__ is np.ndarray and array.flags.carray else np.require(np.asarray(array), None, _ORDER)
    )


def _shapes(layer: Any, state: State, kind: type) -> tuple[Shape, Shape]:
    """Of the input and the output of a sample, as `build` of the class, or of the next one above it, has fixed them."""
    for owner in (*kind.__mro__, *type(layer).__mro__):
        if owner in state.shapes:
            return state.shapes[owner]
    raise ValueError(f"{name_of(layer)} was not built yet: it doesn't know its shapes. Build the model first.")


def _build_for(layer: Any, state: State, x: Any) -> None:
    """Build a layer that has no parameters, and was not built, for whatever comes."""
    layer.build(check_numbers("x", x).shape[1:])
    state.is_implied = not layer.params()
    if not state.is_implied:
        state.shapes.clear()


def _dtype_of_params(layer: Any) -> np.dtype[Any] | None:
    """In which a layer computes; None where it has no parameters.  Those without a gradient get room for it."""
    dtype: np.dtype[Any] | None = None
    for param in layer.params():
        value = vars(param).get("value")
        if value is None:
            raise ValueError(
                f"{name_of(layer)} has no parameters yet: initialize the model, or set {param.name}.value."
            )
        if dtype not in (None, value.dtype):
            raise ValueError(f"{name_of(layer)}: {param.name} is of {value.dtype}, but others are of {dtype}.")
        dtype = value.dtype
        grad = vars(param).get("grad")
        if grad is None or grad.dtype != dtype:
            param.places()["grad"] = np.zeros(param.shape, dtype)
    return dtype


def _last_pass(state: State) -> State:
    """Of the pass that has gone through a layer last: its own, or that of a model that it stands in."""
    last, is_direct = max([(state, True), *state.living_owners()], key=lambda one: one[0].stamp)
    if last is not state and not (is_direct and last.singly):
        return State()
    return last


def _what(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
