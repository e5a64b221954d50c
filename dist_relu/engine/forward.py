"""Passes forward again and again: recorded, and then played, in memory that is used again each time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from math import prod
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.ahead import no_kernels
from dist_relu.kernels.tape import Tapes
from dist_relu.nn import PlainPass, Sequential
from dist_relu.nn.layer import Shape


@final
class RepeatedForward:
    """The outputs of a model for `num_rows` samples, as environments ask for them."""

    def __init__(self, model: Sequential, num_rows: int) -> None:
        self._model, self._tapes = model, Tapes()
        self._x = np.empty((num_rows, *model.input_shape), model.dtype)
        self._run = _StandingPass()
        self._outputs = self._x

    def __call__(self, x: Array, parameters: Hashable = None) -> Array:
        """Return the outputs (num_rows, *output_shape) for x (num_rows, *input_shape), valid until the next call.

        parameters: tells apart where those of the model may lie.
        """
        self._x[...] = x
        self._tapes.do(parameters, self._pass)
        return self._outputs

    def _pass(self) -> None:
        self._run.begin()
        self._outputs = self._model.forward_inside(self._x, self._run)


@final
class BlockPasses:
    """Passes forward over blocks of samples, wherever these and the model's parameters lie."""

    def __init__(self, model: Sequential, finish: Callable[..., object]) -> None:
        """finish: (outputs, run, *others) does with the outputs of a block what is to be done."""
        self._model, self._finish, self._tapes = model, finish, Tapes()
        self._run = _StandingPass()
        self._holds_samples = False

    @property
    def size_bytes(self) -> int:
        """The memory that they hold."""
        return self._run.size_bytes

    def __call__(self, x: Array, *others: Array) -> None:
        """Pass over a block.  x: (N, *input_shape), of the model's dtype; others: what belongs to it, in one piece."""
        kind = tuple((part.shape, part.dtype) for part in (x, *others))
        self._tapes.do(kind, partial(self._pass, x, *others), (self._model.values, x, *others))

    def let_go(self) -> None:
        """Hold no samples any more: layers know the last ones that they have seen, so they see none now."""
        if self._holds_samples:
            with no_kernels():
                self._model.forward_inside(np.empty((0, *self._model.input_shape), self._model.dtype), PlainPass())
        self._holds_samples = False

    def _pass(self, x: Array, *others: Array) -> None:
        self._holds_samples = True
        self._run.begin()
        self._finish(self._model.forward_inside(x, self._run), self._run, *others)


@final
class _StandingPass(PlainPass):
    """Passes forward go one after another, and each uses the memory of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self._arrays: dict[tuple[int | str, np.dtype[Any]], Array] = {}  # by number or name
        self._next = 0

    @property
    def size_bytes(self) -> int:
        """The memory of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def begin(self) -> None:
        """Begin with a pass."""
        self._next = 0

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        self._next += 1
        return self._array((self._next, np.dtype(dtype)), shape)

    def scratch(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> Array:
        return self._array((name, np.dtype(dtype)), shape)

    def bookmark(self) -> Callable[[], object]:
        return partial(setattr, self, "_next", self._next)

    def _array(self, key: tuple[int | str, np.dtype[Any]], shape: Shape) -> Array:
        """The array of this number or name, a larger one if it has no room; a tape that knows it goes on with it."""
        size, array = prod(shape), self._arrays.get(key)
        if array is None or array.size < size:
            array = self._arrays[key] = aligned_empty((size,), key[1])
        return array[:size].reshape(shape)
