"""Layers around others, and the ends of policies, whose parts meet."""

from __future__ import annotations

from dataclasses import replace

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import translate, writes


@writes(nn.Residual)
def _(graph: Graph, layer: nn.Residual, value: Value) -> Value:
    body = translate(graph, layer.body, value, "body.")
    shortcut = translate(graph, layer.shortcut, value, "shortcut.")
    if body.channels_first:
        shortcut = graph.with_channels_first(shortcut)
    elif shortcut.channels_first:
        body = graph.with_channels_first(body)
    return replace(body, name=graph.node("Add", body.name, shortcut.name))


@writes(nn.Parallel)
def _(graph: Graph, layer: nn.Parallel, value: Value) -> str:
    outputs = [translate(graph, branch, value, f"{i}.").name for i, branch in enumerate(layer.branches)]
    return graph.node("Concat", *outputs, axis=1)


@writes(nn.Categorical)
def _(graph: Graph, layer: nn.Categorical, value: Value) -> str:
    logits, last = graph.nodes_of("Split", 2, value.name, graph.whole_numbers("widths", [layer.actions, 1]), axis=1)
    return graph.node("Concat", graph.node("LogSoftmax", logits, axis=1), last, axis=1)


@writes(nn.TanhGaussian)
def _(graph: Graph, layer: nn.TanhGaussian, value: Value) -> str:
    widths = graph.whole_numbers("widths", [layer.action_width, layer.action_width, 1])
    mean, log_std, last = graph.nodes_of("Split", 3, value.name, widths, axis=1)
    bounded = graph.node("Clip", log_std, graph.numbers("least", -20), graph.numbers("most", 2))
    return graph.node("Concat", mean, bounded, last, axis=1)
