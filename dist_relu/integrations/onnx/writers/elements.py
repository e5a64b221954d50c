"""Functions of one number, of channels, and of halves of rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import ELEMENTWISE, OfElements, writes, writes_elementwise
from dist_relu.nn.layers.row_activations import Gate


def _plain(operator: str, **attributes: float) -> OfElements:
    return lambda graph, layer, x: graph.node(operator, x, **attributes)


ELEMENTWISE |= {
    nn.ReLU: _plain("Relu"),
    nn.SELU: _plain("Selu"),
    nn.Mish: _plain("Mish"),
    nn.Hardswish: _plain("HardSwish"),
    nn.Hardsigmoid: _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.Sigmoid: _plain("Sigmoid"),
    nn.Tanh: _plain("Tanh"),
}


@writes_elementwise(nn.LeakyReLU)
def _(graph: Graph, layer: nn.LeakyReLU, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=layer.negative_slope)


@writes_elementwise(nn.RReLU)
def _(graph: Graph, layer: nn.RReLU, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=(layer.lower + layer.upper) / 2)


@writes_elementwise(nn.ReLU6)
def _(graph: Graph, layer: nn.ReLU6, x: str) -> str:
    return graph.node("Clip", x, graph.numbers("min", 0), graph.numbers("max", 6))


@writes_elementwise(nn.Hardtanh)
def _(graph: Graph, layer: nn.Hardtanh, x: str) -> str:
    return graph.node("Clip", x, graph.numbers("min", layer.min_val), graph.numbers("max", layer.max_val))


@writes_elementwise(nn.Threshold)
def _(graph: Graph, layer: nn.Threshold, x: str) -> str:
    is_below = graph.node("LessOrEqual", x, graph.numbers("threshold", layer.threshold))
    return graph.node("Where", is_below, graph.numbers("value", layer.value), x)


@writes_elementwise(nn.SquaredReLU)
def _(graph: Graph, layer: nn.SquaredReLU, x: str) -> str:
    y = graph.node("Relu", x)
    return graph.node("Mul", y, y)


@writes_elementwise(nn.ELU)
def _(graph: Graph, layer: nn.ELU, x: str) -> str:
    return graph.node("Elu", x, alpha=layer.alpha)


@writes_elementwise(nn.CELU)
def _(graph: Graph, layer: nn.CELU, x: str) -> str:
    if graph.dtype == np.float32:
        return graph.node("Celu", x, alpha=layer.alpha)
    alpha = graph.numbers("alpha", layer.alpha)  # ONNX has Celu for float32 alone
    return graph.node("Mul", graph.node("Elu", graph.node("Div", x, alpha), alpha=1.0), alpha)


@writes_elementwise(nn.GELU)
def _(graph: Graph, layer: nn.GELU, x: str) -> str:
    return graph.node("Gelu", x, approximate=layer.approximate)


@writes_elementwise(nn.SiLU)
def _(graph: Graph, layer: nn.SiLU, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@writes_elementwise(nn.Softplus)
def _(graph: Graph, layer: nn.Softplus, x: str) -> str:
    if (layer.beta, layer.threshold) == (1, 20) and graph.dtype == np.float32:
        return graph.node("Softplus", x)  # above 20, float32 knows no difference
    beta = graph.numbers("beta", layer.beta)
    z = graph.node("Mul", x, beta)
    is_above = graph.node("Greater", z, graph.numbers("threshold", layer.threshold))
    return graph.node("Where", is_above, x, graph.node("Div", graph.node("Softplus", z), beta))


@writes_elementwise(nn.Dropout)
def _(graph: Graph, layer: nn.Dropout, x: str) -> str:
    return graph.node("Dropout", x, graph.numbers("ratio", layer.p))


@writes_elementwise(nn.ActivityPenalty)
def _(graph: Graph, layer: nn.ActivityPenalty, x: str) -> str:
    return graph.node("Identity", x)


@writes(nn.PReLU)
def _(graph: Graph, layer: nn.PReLU, value: Value) -> Value:
    slope = graph.parameter(layer.weight, value.along_channels(layer.weight.value))
    return replace(value, name=graph.node("PRelu", value.name, slope))


@writes(nn.CReLU)
def _(graph: Graph, layer: nn.CReLU, value: Value) -> Value:
    halves = graph.node("Relu", value.name), graph.node("Relu", graph.node("Neg", value.name))
    return replace(value, name=graph.node("Concat", *halves, axis=value.channel_axis))


@writes(nn.Softmax, nn.LogSoftmax)
def _(graph: Graph, layer: nn.Softmax | nn.LogSoftmax, value: Value) -> Value:
    return replace(value, name=graph.node(type(layer).__name__, value.name, axis=value.channel_axis))


_GATES: dict[type[Gate], nn.Layer] = {nn.GLU: nn.Sigmoid(), nn.ReGLU: nn.ReLU(), nn.SwiGLU: nn.SiLU()}


@writes(*_GATES)
def _(graph: Graph, layer: Gate, value: Value) -> Value:
    a, b = graph.nodes_of("Split", 2, value.name, axis=value.channel_axis, num_outputs=2)
    gate = _GATES[type(layer)]
    return replace(value, name=graph.node("Mul", a, ELEMENTWISE[type(gate)](graph, gate, b)))
