"""A model's outputs for as many samples again and again, as environments ask for them: recorded, and then played."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array
from dist_relu.kernels.tape import Tapes, play
from dist_relu.nn import PlainPass, Sequential
from dist_relu.nn.layer import Shape


@final
class RepeatedForward:
    """The outputs of a model for `num_rows` samples, in memory that is used again each time."""

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
        tapes = self._tapes.ready([parameters])
        if tapes:
            play(tapes)
        else:
            self._tapes.record(parameters, self._pass)
        return self._outputs

    def _pass(self) -> None:
        self._run.begin()
        self._outputs = self._model.forward_inside(self._x, self._run)


@final
class _StandingPass(PlainPass):
    """Passes forward go one after another, and each uses the memory of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self._arrays: list[Array] = []
        self._next = 0
        self._scratch: dict[tuple[str, Shape, Any], Array] = {}

    def begin(self) -> None:
        """Begin with a pass."""
        self._next = 0

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        if self._next == len(self._arrays):
            self._arrays.append(np.empty(shape, dtype))
        self._next += 1
        return self._arrays[self._next - 1]

    def scratch(self, name: str, shape: Shape, dtype: npt.DTypeLike) -> Array:
        return self._scratch.setdefault((name, shape, np.dtype(dtype)), np.empty(shape, dtype))

    def bookmark(self) -> Callable[[], object]:
        return partial(setattr, self, "_next", self._next)
