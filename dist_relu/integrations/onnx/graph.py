"""An ONNX graph that grows, and how what our layers give lies in it.

Our layers have channels last, ONNX has them first. A value says which of both it is in the graph, so that arrays are
transposed only where a layer needs the other order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.nn import Layer, Param
from dist_relu.nn.description import brief
from dist_relu.nn.layer import Shape


@final
@dataclass(frozen=True)
class Value:
    """An array of a graph, with what a layer would call it.

    shape: of a sample, as layers have it, with channels last.  channels_first: the array is (N, C, ...) in place of
    (N, ..., C).
    """

    name: str
    shape: Shape
    channels_first: bool = False

    @property
    def channel_axis(self) -> int:
        """Where channels are in the array."""
        return 1 if self.channels_first else len(self.shape)

    def along_channels(self, array: Array) -> Array:
        """An array (C,) in the shape that ONNX broadcasts along the channels of this value."""
        return array.reshape(-1, *[1] * (len(self.shape) - 1)) if self.channels_first else array


@final
class Graph:
    """Nodes and constants of an ONNX graph, with names that tell which layer they come from.

    names: of parameters, by the parameter.  dtype: that it computes in.
    """

    def __init__(self, names: Mapping[Param, str], dtype: np.dtype[Any]) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.dtype = dtype
        self._names = names
        self._place: list[str] = []
        self._layer = ""
        self._taken: set[str] = set()

    @contextmanager
    def at(self, place: str, layer: Layer) -> Iterator[None]:
        """Let names begin with the place of a layer, such as "3" or "body.0" within it."""
        outer = self._layer
        self._place.append(place)
        self._layer = brief(layer)
        try:
            yield
        finally:
            self._place.pop()
            self._layer = outer

    def within(self) -> Graph:
        """A graph for what a node repeats, which sees the names of this one."""
        inner = Graph(self._names, self.dtype)
        inner._place, inner._layer, inner._taken = self._place, self._layer, self._taken
        return inner

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and give that output's name."""
        (output,) = self.nodes_of(operator, 1, *inputs, **attributes)
        return output

    def nodes_of(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node, and give the names of its outputs."""
        from onnx import helper

        name = self._unused(operator)
        outputs = [name] if count == 1 else [f"{name}:{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, doc_string=self._layer, **attributes))
        return outputs

    def parameter(self, param: Param, array: Array) -> str:
        """Add a parameter, in the order of axes that the graph needs."""
        return self._add(self._names[param], array)

    def numbers(self, name: str, values: Any) -> str:
        """Add numbers of the type that the graph computes in."""
        return self._add(self._unused(name), np.asarray(values, self.dtype))

    def whole_numbers(self, name: str, values: Any) -> str:
        """Add whole numbers, as shapes and axes are."""
        return self._add(self._unused(name), np.asarray(values, np.int64))

    def with_channels_first(self, value: Value) -> Value:
        """The value as (N, C, ...)."""
        rank = len(value.shape) + 1
        if value.channels_first or rank == 2:
            return value
        order = [0, rank - 1, *range(1, rank - 1)]
        return replace(value, name=self.node("Transpose", value.name, perm=order), channels_first=True)

    def with_channels_last(self, value: Value) -> Value:
        """The value as (N, ..., C)."""
        if not value.channels_first:
            return value
        order = [0, *range(2, len(value.shape) + 1), 1]
        return replace(value, name=self.node("Transpose", value.name, perm=order), channels_first=False)

    def end(self, value: Value, name: str) -> None:
        """Let the graph end with this value, under a name of its own."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [value.name], [name], name))

    def _unused(self, name: str) -> str:
        """A name that begins with the place of the layer, and that nothing else has."""
        wished = unused = ".".join([*self._place, name])
        number = 1
        while unused in self._taken:
            number += 1
            unused = f"{wished}.{number}"
        self._taken.add(unused)
        return unused

    def _add(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name
