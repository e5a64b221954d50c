"""Dense layers, normalisation, embeddings."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import writes


@writes(nn.Dense)
def _(graph: Graph, layer: nn.Dense, value: Value) -> str:
    x = graph.with_channels_last(value).name
    weight = graph.parameter(layer.weight, layer.weight.value)
    if layer.offset is None:
        return graph.node("MatMul", x, weight)
    bias = graph.parameter(layer.offset, layer.offset.value)
    if len(value.shape) == 1:
        return graph.node("Gemm", x, weight, bias)
    return graph.node("Add", graph.node("MatMul", x, weight), bias)


@writes(nn.BatchNorm)
def _(graph: Graph, layer: nn.BatchNorm, value: Value) -> Value:
    images = graph.with_channels_first(value)
    numbers = [graph.parameter(param, param.value) for param in layer.params()]
    attributes = {"epsilon": layer.epsilon, "momentum": 1 - layer.momentum}
    return replace(images, name=graph.node("BatchNormalization", images.name, *numbers, **attributes))


@writes(nn.LayerNorm)
def _(graph: Graph, layer: nn.LayerNorm, value: Value) -> str:
    numbers = [graph.parameter(param, param.value) for param in layer.params()]
    x = graph.with_channels_last(value).name
    return graph.node("LayerNormalization", x, *numbers, axis=-1, epsilon=layer.epsilon)


@writes(nn.Embedding)
def _(graph: Graph, layer: nn.Embedding, value: Value) -> str:
    from onnx import TensorProto

    symbols = graph.node("Cast", graph.with_channels_last(value).name, to=TensorProto.INT64)
    return graph.node("Gather", graph.parameter(layer.weight, layer.weight.value), symbols, axis=0)


@writes(nn.Standardize)
def _(graph: Graph, layer: nn.Standardize, value: Value) -> Value:
    channels = len(layer.mean)
    mean, deviation = np.array(layer.mean), np.array(layer.deviation)
    if channels == value.shape[-1]:
        mean, deviation = value.along_channels(mean), value.along_channels(deviation)
    else:
        value = graph.with_channels_last(value)
        times = prod(value.shape) // channels
        mean, deviation = (np.tile(array, times).reshape(value.shape) for array in (mean, deviation))
    centred = graph.node("Sub", value.name, graph.numbers("mean", mean))
    return replace(value, name=graph.node("Div", centred, graph.numbers("deviation", deviation)))
