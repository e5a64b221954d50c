"""What every layer is in ONNX's operators: one function for each, from the graph and a value to the next value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.nn.description import copy_unbuilt
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.nn.layers.row_activations import Gate
from dist_relu.nn.layers.windows import Padding, Size, pair, windows

OPSET = 20
"""With GELU as an operator; onnxruntime has it since 1.17, of January 2024."""
IR_VERSION = 9
"""The oldest version of ONNX's files that may have this opset, so that as many programs as possible read them."""

OfElements = Callable[[Graph, Any, str], str]
OfLayer = Callable[[Graph, Any, Value], str | Value]
Function = TypeVar("Function", bound=Callable[..., Any])

_ELEMENTWISE: dict[type, OfElements] = {}
_LAYERS: dict[type, OfLayer] = {}


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
    if type(layer) in _ELEMENTWISE:
        return replace(value, name=_ELEMENTWISE[type(layer)](graph, layer, value.name))
    if type(layer) not in _LAYERS:
        raise ValueError(
            f"{type(layer).__name__} can't be exported: it is a layer of your own, of which ONNX knows nothing. "
            "Expected layers of dist_relu.nn alone."
        )
    after = _LAYERS[type(layer)](graph, layer, value)
    return Value(after, shape) if isinstance(after, str) else replace(after, shape=shape)


def _of_elements(kind: type[nn.Layer]) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        _ELEMENTWISE[kind] = function
        return function

    return register


def _of(*kinds: type[nn.Layer]) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        _LAYERS.update(dict.fromkeys(kinds, function))
        return function

    return register


# Functions of one number.


def _plain(operator: str, **attributes: float) -> OfElements:
    return lambda graph, layer, x: graph.node(operator, x, **attributes)


_ELEMENTWISE |= {
    nn.ReLU: _plain("Relu"),
    nn.SELU: _plain("Selu"),
    nn.Mish: _plain("Mish"),
    nn.Hardswish: _plain("HardSwish"),
    nn.Hardsigmoid: _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    nn.Sigmoid: _plain("Sigmoid"),
    nn.Tanh: _plain("Tanh"),
}


@_of_elements(nn.LeakyReLU)
def _(graph: Graph, layer: nn.LeakyReLU, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=layer.negative_slope)


@_of_elements(nn.RReLU)
def _(graph: Graph, layer: nn.RReLU, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=(layer.lower + layer.upper) / 2)


@_of_elements(nn.ReLU6)
def _(graph: Graph, layer: nn.ReLU6, x: str) -> str:
    return graph.node("Clip", x, graph.numbers("min", 0), graph.numbers("max", 6))


@_of_elements(nn.Hardtanh)
def _(graph: Graph, layer: nn.Hardtanh, x: str) -> str:
    return graph.node("Clip", x, graph.numbers("min", layer.min_val), graph.numbers("max", layer.max_val))


@_of_elements(nn.Threshold)
def _(graph: Graph, layer: nn.Threshold, x: str) -> str:
    is_below = graph.node("LessOrEqual", x, graph.numbers("threshold", layer.threshold))
    return graph.node("Where", is_below, graph.numbers("value", layer.value), x)


@_of_elements(nn.SquaredReLU)
def _(graph: Graph, layer: nn.SquaredReLU, x: str) -> str:
    y = graph.node("Relu", x)
    return graph.node("Mul", y, y)


@_of_elements(nn.ELU)
def _(graph: Graph, layer: nn.ELU, x: str) -> str:
    return graph.node("Elu", x, alpha=layer.alpha)


@_of_elements(nn.CELU)
def _(graph: Graph, layer: nn.CELU, x: str) -> str:
    if graph.dtype == np.float32:
        return graph.node("Celu", x, alpha=layer.alpha)
    alpha = graph.numbers("alpha", layer.alpha)  # ONNX has Celu for float32 alone
    return graph.node("Mul", graph.node("Elu", graph.node("Div", x, alpha), alpha=1.0), alpha)


@_of_elements(nn.GELU)
def _(graph: Graph, layer: nn.GELU, x: str) -> str:
    return graph.node("Gelu", x, approximate=layer.approximate)


@_of_elements(nn.SiLU)
def _(graph: Graph, layer: nn.SiLU, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@_of_elements(nn.Softplus)
def _(graph: Graph, layer: nn.Softplus, x: str) -> str:
    if (layer.beta, layer.threshold) == (1, 20) and graph.dtype == np.float32:
        return graph.node("Softplus", x)  # above 20, float32 knows no difference
    beta = graph.numbers("beta", layer.beta)
    z = graph.node("Mul", x, beta)
    is_above = graph.node("Greater", z, graph.numbers("threshold", layer.threshold))
    return graph.node("Where", is_above, x, graph.node("Div", graph.node("Softplus", z), beta))


@_of_elements(nn.Dropout)
def _(graph: Graph, layer: nn.Dropout, x: str) -> str:
    return graph.node("Dropout", x, graph.numbers("ratio", layer.p))


@_of_elements(nn.ActivityPenalty)
def _(graph: Graph, layer: nn.ActivityPenalty, x: str) -> str:
    return graph.node("Identity", x)


# Functions of rows.


@_of(nn.PReLU)
def _(graph: Graph, layer: nn.PReLU, value: Value) -> Value:
    slope = graph.parameter(layer.weight, value.along_channels(layer.weight.value))
    return replace(value, name=graph.node("PRelu", value.name, slope))


@_of(nn.CReLU)
def _(graph: Graph, layer: nn.CReLU, value: Value) -> Value:
    halves = graph.node("Relu", value.name), graph.node("Relu", graph.node("Neg", value.name))
    return replace(value, name=graph.node("Concat", *halves, axis=value.channel_axis))


@_of(nn.Softmax, nn.LogSoftmax)
def _(graph: Graph, layer: nn.Softmax | nn.LogSoftmax, value: Value) -> Value:
    return replace(value, name=graph.node(type(layer).__name__, value.name, axis=value.channel_axis))


_GATES: dict[type[Gate], nn.Layer] = {nn.GLU: nn.Sigmoid(), nn.ReGLU: nn.ReLU(), nn.SwiGLU: nn.SiLU()}


@_of(*_GATES)
def _(graph: Graph, layer: Gate, value: Value) -> Value:
    a, b = graph.nodes_of("Split", 2, value.name, axis=value.channel_axis, num_outputs=2)
    gate = _GATES[type(layer)]
    return replace(value, name=graph.node("Mul", a, _ELEMENTWISE[type(gate)](graph, gate, b)))


# Layers with parameters.


@_of(nn.Dense)
def _(graph: Graph, layer: nn.Dense, value: Value) -> str:
    x = graph.with_channels_last(value).name
    weight = graph.parameter(layer.weight, layer.weight.value)
    if layer.offset is None:
        return graph.node("MatMul", x, weight)
    bias = graph.parameter(layer.offset, layer.offset.value)
    if len(value.shape) == 1:
        return graph.node("Gemm", x, weight, bias)
    return graph.node("Add", graph.node("MatMul", x, weight), bias)


@_of(nn.Conv2d)
def _(graph: Graph, layer: nn.Conv2d, value: Value) -> Value:
    images = graph.with_channels_first(value)
    weight = graph.parameter(layer.weight, layer.weight.value.transpose(3, 2, 0, 1))
    bias = [] if layer.offset is None else [graph.parameter(layer.offset, layer.offset.value)]
    name = graph.node(
        "Conv",
        images.name,
        weight,
        *bias,
        kernel_shape=pair(layer.kernel_size),
        strides=pair(layer.stride),
        dilations=pair(layer.dilation),
        group=layer.groups,
        pads=_pads(value, layer.kernel_size, layer.stride, layer.padding, layer.dilation),
    )
    return replace(images, name=name)


def _pads(value: Value, kernel_size: Size, stride: Size, padding: Padding, dilation: Size = 1) -> list[int]:
    """Top, left, bottom and right."""
    w = windows("Layer", value.shape, kernel_size, stride, padding, dilation)
    if padding != "same":
        return [w.top, w.left, w.top, w.left]
    bottom = (w.out_height - 1) * w.stride_h + w.dilation_h * (w.kernel_h - 1) + 1 - w.height - w.top
    right = (w.out_width - 1) * w.stride_w + w.dilation_w * (w.kernel_w - 1) + 1 - w.width - w.left
    return [w.top, w.left, max(bottom, 0), max(right, 0)]


@_of(nn.BatchNorm)
def _(graph: Graph, layer: nn.BatchNorm, value: Value) -> Value:
    images = graph.with_channels_first(value)
    numbers = [graph.parameter(param, param.value) for param in layer.params()]
    attributes = {"epsilon": layer.epsilon, "momentum": 1 - layer.momentum}
    return replace(images, name=graph.node("BatchNormalization", images.name, *numbers, **attributes))


@_of(nn.LayerNorm)
def _(graph: Graph, layer: nn.LayerNorm, value: Value) -> str:
    numbers = [graph.parameter(param, param.value) for param in layer.params()]
    x = graph.with_channels_last(value).name
    return graph.node("LayerNormalization", x, *numbers, axis=-1, epsilon=layer.epsilon)


@_of(nn.Embedding)
def _(graph: Graph, layer: nn.Embedding, value: Value) -> str:
    from onnx import TensorProto

    symbols = graph.node("Cast", graph.with_channels_last(value).name, to=TensorProto.INT64)
    return graph.node("Gather", graph.parameter(layer.weight, layer.weight.value), symbols, axis=0)


@_of(nn.Standardize)
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


# Images.


@_of(nn.MaxPool2d, nn.AvgPool2d)
def _(graph: Graph, layer: nn.MaxPool2d | nn.AvgPool2d, value: Value) -> Value:
    images = graph.with_channels_first(value)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    pads = _pads(value, layer.kernel_size, stride, layer.padding)
    attributes = {"kernel_shape": pair(layer.kernel_size), "strides": pair(stride), "pads": pads}
    if isinstance(layer, nn.MaxPool2d):
        return replace(images, name=graph.node("MaxPool", images.name, **attributes))
    return replace(images, name=graph.node("AveragePool", images.name, count_include_pad=1, **attributes))


@_of(nn.GlobalAvgPool2d)
def _(graph: Graph, layer: nn.GlobalAvgPool2d, value: Value) -> str:
    return graph.node("Flatten", graph.node("GlobalAveragePool", graph.with_channels_first(value).name), axis=1)


@_of(nn.Flatten)
def _(graph: Graph, layer: nn.Flatten, value: Value) -> str:
    return graph.node("Flatten", graph.with_channels_last(value).name, axis=1)


@_of(nn.Reshape)
def _(graph: Graph, layer: nn.Reshape, value: Value) -> str:
    shape = graph.whole_numbers("shape", [-1, *layer.shape])
    return graph.node("Reshape", graph.with_channels_last(value).name, shape)


@_of(nn.FromNCHW)
def _(graph: Graph, layer: nn.FromNCHW, value: Value) -> Value:
    return replace(graph.with_channels_last(value), channels_first=True)


# Layers around others.


@_of(nn.Residual)
def _(graph: Graph, layer: nn.Residual, value: Value) -> Value:
    body = translate(graph, layer.body, value, "body.")
    shortcut = translate(graph, layer.shortcut, value, "shortcut.")
    if body.channels_first:
        shortcut = graph.with_channels_first(shortcut)
    elif shortcut.channels_first:
        body = graph.with_channels_first(body)
    return replace(body, name=graph.node("Add", body.name, shortcut.name))


@_of(nn.Parallel)
def _(graph: Graph, layer: nn.Parallel, value: Value) -> str:
    outputs = [translate(graph, branch, value, f"{i}.").name for i, branch in enumerate(layer.branches)]
    return graph.node("Concat", *outputs, axis=1)


@_of(nn.Categorical)
def _(graph: Graph, layer: nn.Categorical, value: Value) -> str:
    logits, last = graph.nodes_of("Split", 2, value.name, graph.whole_numbers("widths", [layer.actions, 1]), axis=1)
    return graph.node("Concat", graph.node("LogSoftmax", logits, axis=1), last, axis=1)


@_of(nn.TanhGaussian)
def _(graph: Graph, layer: nn.TanhGaussian, value: Value) -> str:
    widths = graph.whole_numbers("widths", [layer.action_width, layer.action_width, 1])
    mean, log_std, last = graph.nodes_of("Split", 3, value.name, widths, axis=1)
    bounded = graph.node("Clip", log_std, graph.numbers("least", -20), graph.numbers("most", 2))
    return graph.node("Concat", mean, bounded, last, axis=1)


# Recurrence.

_OF_RECURRENCE: dict[type[Elementwise], tuple[str, Callable[[Any], tuple[float, float]]]] = {
    nn.ReLU: ("Relu", lambda f: (0.0, 0.0)),
    nn.Tanh: ("Tanh", lambda f: (0.0, 0.0)),
    nn.Sigmoid: ("Sigmoid", lambda f: (0.0, 0.0)),
    nn.LeakyReLU: ("LeakyRelu", lambda f: (f.negative_slope, 0.0)),
    nn.ELU: ("Elu", lambda f: (f.alpha, 0.0)),
    nn.Hardsigmoid: ("HardSigmoid", lambda f: (1 / 6, 0.5)),
}
"""Activations that ONNX's RNN has, and their alpha and beta there."""


@_of(nn.RNN)
def _(graph: Graph, layer: nn.RNN, value: Value) -> str:
    x = graph.node("Transpose", graph.with_channels_last(value).name, perm=[1, 0, 2])  # (T, N, C)
    if type(layer.activation) not in _OF_RECURRENCE:
        return _scan(graph, layer, x)
    function, numbers = _OF_RECURRENCE[type(layer.activation)]
    alpha, beta = numbers(layer.activation)
    weight = graph.parameter(layer.weight, layer.weight.value.T[None])
    recurrent = graph.parameter(layer.recurrent, layer.recurrent.value.T[None])
    both = np.concatenate([layer.bias.value, np.zeros_like(layer.bias.value)])
    bias = graph.parameter(layer.bias, both[None])
    attributes: dict[str, Any] = {"hidden_size": layer.units, "activations": [function]}
    if alpha:
        attributes["activation_alpha"] = [alpha]
    if beta:
        attributes["activation_beta"] = [beta]
    states, last = graph.nodes_of("RNN", 2, x, weight, recurrent, bias, **attributes)
    if not layer.sequences:
        return graph.node("Squeeze", last, graph.whole_numbers("axes", [0]))
    states = graph.node("Squeeze", states, graph.whole_numbers("axes", [1]))
    return graph.node("Transpose", states, perm=[1, 0, 2])


def _scan(graph: Graph, layer: nn.RNN, x: str) -> str:
    """A recurrence whose activation ONNX's RNN has not: step by step, x (T, N, C)."""
    from onnx import helper

    element = helper.np_dtype_to_tensor_dtype(graph.dtype)
    weight = graph.parameter(layer.weight, layer.weight.value)
    recurrent = graph.parameter(layer.recurrent, layer.recurrent.value)
    bias = graph.parameter(layer.bias, layer.bias.value)
    step = graph.within()
    from_x = step.node("MatMul", "x of step", weight)
    z = step.node("Add", step.node("Add", from_x, step.node("MatMul", "state before", recurrent)), bias)
    state = _ELEMENTWISE[type(layer.activation)](step, layer.activation, z)
    inputs = [("state before", layer.units), ("x of step", layer.weight.shape[0])]
    outputs = [(state, layer.units), (step.node("Identity", state), layer.units)]
    body = helper.make_graph(
        step.nodes,
        "step",
        [helper.make_tensor_value_info(name, element, ["N", size]) for name, size in inputs],
        [helper.make_tensor_value_info(name, element, ["N", size]) for name, size in outputs],
        step.constants,
    )
    shape = graph.node("Shape", x, start=1, end=2)
    shape = graph.node("Concat", shape, graph.whole_numbers("units", [layer.units]), axis=0)
    start = graph.node("Expand", graph.numbers("start", 0), shape)
    last, states = graph.nodes_of("Scan", 2, start, x, body=body, num_scan_inputs=1)
    return graph.node("Transpose", states, perm=[1, 0, 2]) if layer.sequences else last
