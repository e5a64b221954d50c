"""What multiplies and adds: dense layers, biases, normalisation, embeddings."""

from __future__ import annotations

from math import prod

import numpy as np

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.readers.recurrence import last_state
from dist_relu.integrations.onnx.readers.table import other, reads
from dist_relu.integrations.onnx.source import Node


@reads("Gemm")
def _(assembly: Assembly, node: Node) -> None:
    source = assembly.source
    weight, bias = source.needed(node, 1), source.constant(node, 2)
    if node.attributes.get("transA", 0):
        raise node.refuse("has transA=1; expected samples as rows.")
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    weight = weight.T if node.attributes.get("transB", 0) else weight
    if alpha != 1:
        weight = (weight * alpha).astype(weight.dtype)
    if bias is not None and bias.size not in (1, weight.shape[-1]):
        raise node.refuse(f"has a constant of shape {bias.shape} as its bias; expected one number for each unit.")
    if bias is not None:
        bias = np.broadcast_to(bias, (1, weight.shape[1])).reshape(-1)
        bias = bias if beta == 1 else (bias * beta).astype(bias.dtype)
    _dense(assembly, node, weight, bias)


@reads("MatMul")
def _(assembly: Assembly, node: Node) -> None:
    weight, position = other(assembly, node)
    if position == 0:
        raise node.refuse("multiplies a constant by samples; expected samples as rows, times a constant.")
    _dense(assembly, node, weight, None)


def _dense(assembly: Assembly, node: Node, weight: Array, bias: Array | None) -> None:
    if weight.ndim != 2:
        raise node.refuse(f"multiplies by an array of shape {weight.shape}; expected a matrix.")
    if assembly.flattened is not None:
        if weight.shape[0] != prod(assembly.flattened):
            raise node.refuse(f"multiplies by a matrix of shape {weight.shape}; expected {assembly.shape[0]} rows.")
        images = weight.reshape(*assembly.flattened, -1)
        weight = images.transpose(1, 2, 0, 3).reshape(weight.shape)
        assembly.flattened = None
    assembly.need_channels(node, len(assembly.axes) - 1)
    if weight.shape[0] != assembly.shape[-1]:
        raise node.refuse(f"multiplies by a matrix of shape {weight.shape}; expected {assembly.shape[-1]} rows.")
    layer = nn.Dense(weight.shape[1], bias=bias is not None)
    assembly.add(node, layer, weight, *([] if bias is None else [bias]))


@reads("Add", "Sub", "Mul", "Div")
def _(assembly: Assembly, node: Node) -> None:
    constant, position = other(assembly, node)
    if "axis" in node.attributes:
        raise node.refuse("has an axis to broadcast along, as before opset 7; expected a newer opset.")
    if position == 0 and node.operator in ("Sub", "Div"):
        raise node.refuse("takes a constant minus samples, or divides one by them; no layer does this.")
    if _add_bias(assembly, node, constant) or _add_to_norm(assembly, node, constant):
        return
    wide = constant.astype(np.float64)
    with np.errstate(divide="ignore"):
        scale = wide if node.operator == "Mul" else 1 / wide if node.operator == "Div" else np.ones(1)
    shift = wide if node.operator == "Add" else -wide if node.operator == "Sub" else np.zeros(1)
    assembly.move(node, scale, shift)


@reads("Scaler")
def _(assembly: Assembly, node: Node) -> None:
    """Do what StandardScaler of scikit-learn does."""
    offset, scale = (np.array(node.attributes.get(name, default), np.float64) for name, default in _OF_SCALER)
    assembly.move(node, scale, -offset * scale)


_OF_SCALER = ("offset", [0.0]), ("scale", [1.0])


def _add_bias(assembly: Assembly, node: Node, constant: Array) -> bool:
    """Let the layer right before have this bias, if it may; returns whether it does."""
    before, last = _before(assembly, node)
    if node.operator != "Add" or before is None or before.operator not in ("MatMul", "Gemm", "Conv"):
        return False
    if not isinstance(last, nn.Dense | nn.Conv2d) or last.bias or constant.size != assembly.shape[-1]:
        return False
    if constant.size != assembly.along(node, constant).size:
        return False
    last.bias = True
    assembly.values.append(constant.reshape(-1))
    return True


def _add_to_norm(assembly: Assembly, node: Node, constant: Array) -> bool:
    """Let the layer normalisation before, which several nodes are, have this weight or bias."""
    before, last = _before(assembly, node)
    place = {("Div", "Mul"): -2, ("Mul", "Add"): -1}.get((before.operator if before else "", node.operator))
    if (
        place is None
        or not assembly.is_settled
        or not isinstance(last, nn.LayerNorm)
        or constant.shape != assembly.shape[-1:]
    ):
        return False
    assembly.values[place] = constant
    return True


def _before(assembly: Assembly, node: Node) -> tuple[Node | None, nn.Layer | None]:
    """The node before one that has one input and a constant, and the last layer so far."""
    data = next(name for name in node.inputs if name not in assembly.source.constants)
    return assembly.source.producers.get(data), assembly.layers[-1] if assembly.layers else None


@reads("BatchNormalization")
def _(assembly: Assembly, node: Node) -> None:
    if node.attributes.get("training_mode", 0):
        raise node.refuse("is in training mode; expected a model that was exported for inference.")
    assembly.need_channels(node, assembly.axis(node, 1))
    numbers = [assembly.source.needed(node, position).reshape(-1) for position in range(1, 5)]
    momentum = round(1 - node.number("momentum", 0.9), 7)
    assembly.add(node, nn.BatchNorm(momentum or 0.1, node.number("epsilon", 1e-5)), *numbers)


@reads("LayerNormalization")
def _(assembly: Assembly, node: Node) -> None:
    axis = assembly.axis(node, int(node.attributes.get("axis", -1)))
    if axis != len(assembly.axes) - 1:
        raise node.refuse(f"normalises over axes from {axis} on; expected the last one.")
    assembly.need_channels(node, axis)
    weight = assembly.source.needed(node, 1).reshape(-1)
    bias = assembly.source.constant(node, 2)
    bias = np.zeros_like(weight) if bias is None else bias.reshape(-1)
    assembly.add(node, nn.LayerNorm(node.number("epsilon", 1e-5)), weight, bias)


@reads("Gather")
def _(assembly: Assembly, node: Node) -> None:
    if node.inputs[0] not in assembly.source.constants:
        last_state(assembly, node)
        return
    weight = assembly.source.needed(node, 0)
    if weight.ndim != 2 or node.attributes.get("axis", 0) not in (0, -2):
        raise node.refuse(f"takes from an array of shape {weight.shape}; expected rows of a matrix.")
    assembly.add(node, nn.Embedding(*weight.shape), weight)
    assembly.axes = (*assembly.axes, len(assembly.shape))
