"""Functions of one number, and of the channels of a pixel."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.readers.table import READERS, other, reads, single
from dist_relu.integrations.onnx.source import Node

_ELEMENTWISE: dict[str, Callable[[Node], nn.Layer]] = {
    "Relu": lambda node: nn.ReLU(),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.number("alpha", 0.01)),
    "Elu": lambda node: nn.ELU(node.number("alpha", 1.0)),
    "Celu": lambda node: nn.CELU(node.number("alpha", 1.0)),
    "Gelu": lambda node: nn.GELU(node.attributes.get("approximate", "none")),
    "Mish": lambda node: nn.Mish(),
    "Softplus": lambda node: nn.Softplus(),
    "HardSwish": lambda node: nn.Hardswish(),
    "Sigmoid": lambda node: nn.Sigmoid(),
    "Tanh": lambda node: nn.Tanh(),
    "ThresholdedRelu": lambda node: nn.Threshold(node.number("alpha", 1.0), 0.0),
}


def _elementwise(assembly: Assembly, node: Node) -> None:
    assembly.add(node, _ELEMENTWISE[node.operator](node))


READERS |= dict.fromkeys(_ELEMENTWISE, _elementwise)


@reads("Selu")
def _(assembly: Assembly, node: Node) -> None:
    alpha, gamma = node.number("alpha", 1.6732632), node.number("gamma", 1.0507010)
    if abs(alpha - 1.6732632) > 1e-5 or abs(gamma - 1.0507010) > 1e-5:
        raise node.refuse(f"has alpha={alpha} and gamma={gamma}; expected those of Klambauer et al. (2017).")
    assembly.add(node, nn.SELU())


@reads("Swish")
def _(assembly: Assembly, node: Node) -> None:
    if node.number("alpha", 1.0) != 1:
        raise node.refuse(f"has alpha={node.number('alpha', 1.0)}; expected 1.")
    assembly.add(node, nn.SiLU())


@reads("HardSigmoid")
def _(assembly: Assembly, node: Node) -> None:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    exact = abs(alpha - 1 / 6) < 1e-7
    assembly.move(node, np.array(1 if exact else 6 * alpha), np.array(6 * (beta - 0.5)))
    assembly.add(node, nn.Hardsigmoid())


@reads("Clip")
def _(assembly: Assembly, node: Node) -> None:
    low, high = (assembly.source.constant(node, position) for position in (1, 2))
    _bound(assembly, node, -inf if low is None else single(node, low), inf if high is None else single(node, high))


@reads("Max")
def _(assembly: Assembly, node: Node) -> None:
    _bound(assembly, node, single(node, other(assembly, node)[0]), inf)


@reads("Min")
def _(assembly: Assembly, node: Node) -> None:
    _bound(assembly, node, -inf, single(node, other(assembly, node)[0]))


def _bound(assembly: Assembly, node: Node, low: float, high: float) -> None:
    if low <= np.finfo(np.float32).min:
        low = -inf
    if high >= np.finfo(np.float32).max:
        high = inf
    if (low, high) == (-inf, inf):
        return
    layers: dict[tuple[float, float], nn.Layer] = {(0, inf): nn.ReLU(), (0, 6): nn.ReLU6()}
    assembly.add(node, layers.get((low, high)) or nn.Hardtanh(low, high))


@reads("Identity")
def _(assembly: Assembly, node: Node) -> None:
    pass


@reads("Cast")
def _(assembly: Assembly, node: Node) -> None:
    """Types are settled for the model as a whole, and symbols travel as its numbers."""


@reads("Dropout")
def _(assembly: Assembly, node: Node) -> None:
    ratio = assembly.source.constant(node, 1)
    training = assembly.source.constant(node, 2)
    if training is not None and training.any():
        raise node.refuse("is in training mode; expected a model that was exported for inference.")
    assembly.add(node, nn.Dropout(0.5 if ratio is None else single(node, ratio)))


@reads("PRelu")
def _(assembly: Assembly, node: Node) -> None:
    slope = assembly.source.needed(node, 1)
    if assembly.source.opset < 7 and slope.size > 1:  # which had no broadcasting along the last axes
        slope = slope.reshape(-1, *[1] * (len(assembly.axes) - 2))
    weight = assembly.along(node, slope)
    if weight.size not in (1, assembly.shape[-1]):
        raise node.refuse(f"has slopes of shape {slope.shape}; expected one, or one for each channel.")
    assembly.add(node, nn.PReLU(weight.size), slope.reshape(-1))


@reads("Softmax", "LogSoftmax")
def _(assembly: Assembly, node: Node) -> None:
    axis = assembly.axis(node, int(node.attributes.get("axis", -1 if assembly.source.opset >= 13 else 1)))
    if assembly.source.opset < 13 and axis != len(assembly.axes) - 1:
        raise node.refuse("is over several axes at once, as in opset 12 and before; expected one axis.")
    assembly.need_channels(node, axis)
    assembly.add(node, nn.Softmax() if node.operator == "Softmax" else nn.LogSoftmax())
