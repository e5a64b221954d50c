"""Convolution and pooling."""

from __future__ import annotations

from dataclasses import replace

from dist_relu import nn
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers.table import writes
from dist_relu.nn.layers.windows import Padding, Size, pair, windows


@writes(nn.Conv2d)
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


@writes(nn.MaxPool2d, nn.AvgPool2d)
def _(graph: Graph, layer: nn.MaxPool2d | nn.AvgPool2d, value: Value) -> Value:
    images = graph.with_channels_first(value)
    stride = layer.kernel_size if layer.stride is None else layer.stride
    pads = _pads(value, layer.kernel_size, stride, layer.padding)
    attributes = {"kernel_shape": pair(layer.kernel_size), "strides": pair(stride), "pads": pads}
    if isinstance(layer, nn.MaxPool2d):
        return replace(images, name=graph.node("MaxPool", images.name, **attributes))
    return replace(images, name=graph.node("AveragePool", images.name, count_include_pad=1, **attributes))


@writes(nn.GlobalAvgPool2d)
def _(graph: Graph, layer: nn.GlobalAvgPool2d, value: Value) -> str:
    return graph.node("Flatten", graph.node("GlobalAveragePool", graph.with_channels_first(value).name), axis=1)


def _pads(value: Value, kernel_size: Size, stride: Size, padding: Padding, dilation: Size = 1) -> list[int]:
    """Top, left, bottom and right."""
    w = windows("Layer", value.shape, kernel_size, stride, padding, dilation)
    if padding != "same":
        return [w.top, w.left, w.top, w.left]
    bottom = (w.out_height - 1) * w.stride_h + w.dilation_h * (w.kernel_h - 1) + 1 - w.height - w.top
    right = (w.out_width - 1) * w.stride_w + w.dilation_w * (w.kernel_w - 1) + 1 - w.width - w.left
    return [w.top, w.left, max(bottom, 0), max(right, 0)]
