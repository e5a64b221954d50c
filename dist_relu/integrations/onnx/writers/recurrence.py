"""Recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import ELEMENTWISE, writes
from dist_relu.nn.layers.activations import Elementwise

_OF_RECURRENCE: dict[type[Elementwise], tuple[str, Callable[[Any], tuple[float, float]]]] = {
    nn.ReLU: ("Relu", lambda f: (0.0, 0.0)),
    nn.Tanh: ("Tanh", lambda f: (0.0, 0.0)),
    nn.Sigmoid: ("Sigmoid", lambda f: (0.0, 0.0)),
    nn.LeakyReLU: ("LeakyRelu", lambda f: (f.negative_slope, 0.0)),
    nn.ELU: ("Elu", lambda f: (f.alpha, 0.0)),
    nn.Hardsigmoid: ("HardSigmoid", lambda f: (1 / 6, 0.5)),
}
"""Activations that ONNX's RNN has, and their alpha and beta there."""


@writes(nn.RNN)
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
    state = ELEMENTWISE[type(layer.activation)](step, layer.activation, z)
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
