"""Writers by their layers, and layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.nn.description import copy_unbuilt

OfElements = Callable[[Graph, Any, str], str]
OfLayer = Callable[[Graph, Any, Value], str | Value]
Function = TypeVar("Function", bound=Callable[..., Any])

ELEMENTWISE: dict[type, OfElements] = {}
"""What writes a function of one number, in any order of axes, by its layer."""
LAYERS: dict[type, OfLayer] = {}
"""What writes any other layer; one that gives no order of axes gives channels last."""


def translate(graph: Graph, layers: Iterable[nn.Layer], value: Value, place: str = "") -> Value:
    """Add layers, one after the other, to the graph, and give what the last of them gives.

    place: of the layers, before their numbers.  Raises ValueError for a layer that ONNX has no form for.
    """
    for number, layer in enumerate(layers):
        with graph.at(f"{place}{number}", layer):
            value = _translate_one(graph, layer, value)
    return value


def _translate_one(graph: Graph, layer: nn.Layer, value: Value) -> Value:
    shape = copy_unbuilt(layer).build(value.shape)
    if type(layer) in ELEMENTWISE:
        return replace(value, name=ELEMENTWISE[type(layer)](graph, layer, value.name))
    if type(layer) not in LAYERS:
        raise ValueError(
            f"{type(layer).__name__} can't be exported: it is a layer of your own, of which ONNX knows nothing. "
            "Expected layers of dist_relu.nn alone."
        )
    after = LAYERS[type(layer)](graph, layer, value)
    return Value(after, shape) if isinstance(after, str) else replace(after, shape=shape)


def writes_elementwise(kind: type[nn.Layer]) -> Callable[[Function], Function]:
    """Let a function write this layer, a function of one number."""

    def register(function: Function) -> Function:
        ELEMENTWISE[kind] = function
        return function

    return register


def writes(*kinds: type[nn.Layer]) -> Callable[[Function], Function]:
    """Let a function write these layers."""

    def register(function: Function) -> Function:
        LAYERS.update(dict.fromkeys(kinds, function))
        return function

    return register
