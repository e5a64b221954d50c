"""Where branches meet: residual sums, branches side by side, the ends of policies and of classifiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.chains import Link
from dist_relu.integrations.onnx.patterns import X, is_same
from dist_relu.integrations.onnx.source import Node

Run = Callable[[Assembly, Sequence[Link]], None]


def join(assembly: Assembly, node: Node, chains: Sequence[Sequence[Link]], run: Run) -> None:
    """Add what branches are that meet in a node.  run: adds what a chain is."""
    if node.operator in ("Add", "Sum") and len(chains) == 2:
        body, shortcut = assembly.join(node, run, chains)
        if not body.layers:
            body, shortcut = shortcut, body
        assembly.add(node, nn.Residual(body.layers, shortcut.layers), *body.values, *shortcut.values)
        assembly.axes, assembly.flattened = body.axes, body.flattened
    elif node.operator == "Concat" and not _add_head(assembly, node) and not _add_two_classes(assembly, node):
        branches = assembly.join(node, run, chains)
        axis = int(node.attributes["axis"]) % len(branches[0].axes)
        if axis != 1 or branches[0].axes != (0, 1) or not all(branch.layers for branch in branches):
            raise node.refuse("puts arrays side by side; expected rows of dense layers, along axis 1.")
        values = [value for branch in branches for value in branch.values]
        assembly.add(node, nn.Parallel([branch.layers for branch in branches]), *values)
        assembly.axes = (0, 1)
    elif node.operator != "Concat":
        raise node.refuse("puts branches together; expected Add of two (nn.Residual), or Concat (nn.Parallel).")


def _add_head(assembly: Assembly, node: Node) -> bool:
    """Add what `nn.Categorical` or `nn.TanhGaussian` is written as, if it is there."""
    split = _split_before(assembly, node)
    if split is None or assembly.axes != (0, 1):
        return False
    sizes = assembly.source.whole_numbers(split, 1) or []
    parts = list(split.outputs)
    if sizes[1:] == [1] and len(node.inputs) == 2 and node.inputs[1] == parts[1]:
        is_head = is_same(assembly.source, ("LogSoftmax", X), node.inputs[0], parts[0])
        if is_head:
            assembly.add(node, nn.Categorical(sizes[0]))
        return is_head
    if len(sizes) == 3 == len(node.inputs) and sizes[0] == sizes[1] and sizes[2] == 1:
        bounded = is_same(assembly.source, ("Clip", X, -20.0, 2.0), node.inputs[1], parts[1])
        if bounded and [node.inputs[0], node.inputs[2]] == [parts[0], parts[2]]:
            assembly.add(node, nn.TanhGaussian((-1.0,) * sizes[0], (1.0,) * sizes[0]))
            return True
    return False


def _split_before(assembly: Assembly, node: Node) -> Node | None:
    last = assembly.source.producers.get(node.inputs[-1])
    return last if last is not None and last.operator == "Split" else None


def _add_two_classes(assembly: Assembly, node: Node) -> bool:
    """Add what classifiers have for two classes: 1 - p and p, for p = σ(z), which is the softmax of 0 and z."""
    source = assembly.source
    if len(node.inputs) != 2 or not is_same(source, ("Sub", 1.0, X), node.inputs[0], node.inputs[1]):
        return False
    assembly.settle()
    if len(assembly.layers) < 2:
        return False
    last, sigmoid = assembly.layers[-2:]
    if not isinstance(sigmoid, nn.Sigmoid) or not isinstance(last, nn.Dense) or last.units != 1:
        return False
    assembly.layers[-2:] = [nn.Dense(2, last.bias), nn.Softmax()]
    count = 2 if last.bias else 1
    assembly.values[-count:] = [
        np.concatenate([np.zeros_like(value), value], axis=-1) for value in assembly.values[-count:]
    ]
    assembly.shape = (2,)
    return True
