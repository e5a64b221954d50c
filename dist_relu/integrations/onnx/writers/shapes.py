"""Other shapes and orders."""

from __future__ import annotations

from dataclasses import replace

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import writes


@writes(nn.Flatten)
def _(graph: Graph, layer: nn.Flatten, value: Value) -> str:
    return graph.node("Flatten", graph.with_channels_last(value).name, axis=1)


@writes(nn.Reshape)
def _(graph: Graph, layer: nn.Reshape, value: Value) -> str:
    shape = graph.whole_numbers("shape", [-1, *layer.shape])
    return graph.node("Reshape", graph.with_channels_last(value).name, shape)


@writes(nn.FromNCHW)
def _(graph: Graph, layer: nn.FromNCHW, value: Value) -> Value:
    return replace(graph.with_channels_last(value), channels_first=True)
