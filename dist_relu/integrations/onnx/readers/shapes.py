"""What gives arrays another shape or order."""

from __future__ import annotations

from math import prod

from dist_relu import nn
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.readers.table import reads
from dist_relu.integrations.onnx.source import Node


@reads("Flatten")
def _(assembly: Assembly, node: Node) -> None:
    if assembly.axis(node, int(node.attributes.get("axis", 1))) != 1:
        raise node.refuse(f"has axis={node.attributes['axis']}; expected 1, so that samples stay apart.")
    if assembly.axes[0] != 0:
        raise node.refuse("flattens an array whose first axis is not the batch.")
    assembly.flatten(node)


@reads("Reshape")
def _(assembly: Assembly, node: Node) -> None:
    lengths = assembly.lengths()
    if lengths[0] is not None:
        raise node.refuse("has an input whose first axis is not the batch.")
    target = _target(assembly, node)
    if target == lengths[1:]:
        return
    if len(target) == 1:
        assembly.flatten(node)
    elif assembly.is_plain and assembly.flattened is None:
        assembly.add(node, nn.Reshape(target))
        assembly.axes = tuple(range(len(target) + 1))
    elif assembly.axes[:2] == (0, 1) and len(assembly.shape) == 1 and target.count(1) >= len(target) - 1:
        assembly.axes = (0, *(1 if length > 1 else None for length in target))
        if assembly.shape == (1,):
            assembly.axes = (0, 1, *[None] * (len(target) - 1))
    else:
        raise node.refuse(f"makes {target} of samples that are {assembly.shape} here; no layer does this.")


def _target(assembly: Assembly, node: Node) -> list[int]:
    """The shape of a sample behind a Reshape."""
    source, total = assembly.source, prod(assembly.shape)
    if len(node.inputs) > 1 and node.inputs[1] in source.constants:
        first, *rest = source.whole_numbers(node, 1) or [0]
    else:
        first, rest = 0, _computed(assembly, node)
    if not node.attributes.get("allowzero", 0):
        lengths = assembly.lengths()
        rest = [(lengths[i] or 0) if length == 0 and i < len(lengths) else length for i, length in enumerate(rest, 1)]
    known = prod(length for length in rest if length != -1)
    batch = source.input_shape[0]
    if rest.count(-1) > 1 or known <= 0 or total % known or not rest:
        raise node.refuse(f"has the shape {[first, *rest]}, which samples of {total} numbers don't fit.")
    rest = [total // known if length == -1 else length for length in rest]
    if first not in (0, -1, batch) or prod(rest) != total:
        raise node.refuse(f"has the shape {[first, *rest]}; expected samples to stay apart: (0, {total}), or so.")
    return rest


def _computed(assembly: Assembly, node: Node) -> list[int]:
    """The shape of a sample behind a Reshape whose shape the graph computes, such as that of x.view(x.size(0), -1)."""
    source = assembly.source
    shape = source.producers.get(node.inputs[1])
    parts = list(shape.inputs) if shape is not None and shape.operator == "Concat" else []
    if parts and all(part in source.constants for part in parts[1:]):
        return [int(length) for part in parts[1:] for length in source.constants[part].reshape(-1)]
    inferred = source.shapes().get(node.outputs[0]) or [None]
    return [-1 if length is None else length for length in inferred[1:]]


@reads("Squeeze")
def _(assembly: Assembly, node: Node) -> None:
    axes = assembly.source.whole_numbers(node, 1)
    gone = {assembly.axis(node, axis) for axis in axes or []}
    if not gone or any(assembly.lengths()[axis] != 1 for axis in gone):
        raise node.refuse(f"takes out axes {axes} of {assembly.lengths()}; expected those of length 1.")
    if any(assembly.axes[axis] is not None for axis in gone):
        if not assembly.is_plain:
            raise node.refuse(f"takes out axes {axes} of samples that are {assembly.shape} here.")
        shape = [length for axis, length in enumerate(assembly.shape, 1) if axis not in gone]
        assembly.add(node, nn.Reshape(shape))
        assembly.axes = tuple(range(len(shape) + 1))
    else:
        assembly.axes = tuple(axis for place, axis in enumerate(assembly.axes) if place not in gone)


@reads("Unsqueeze")
def _(assembly: Assembly, node: Node) -> None:
    axes = assembly.source.whole_numbers(node, 1) or []
    rank = len(assembly.axes) + len(axes)
    if rank > 8 or not all(-rank <= axis < rank for axis in axes):
        raise node.refuse(f"adds axes {axes} to {len(assembly.axes)}; expected fewer than 8 in all.")
    after = list(assembly.axes)
    for axis in sorted(axis % rank for axis in axes):
        after.insert(axis, None)
    assembly.axes = tuple(after)


@reads("Transpose")
def _(assembly: Assembly, node: Node) -> None:
    rank = len(assembly.axes)
    order = node.numbers("perm", range(rank)[::-1])
    if sorted(order) != list(range(rank)) or assembly.flattened is not None:
        raise node.refuse(f"has perm={order} for an array with {rank} axes.")
    assembly.axes = tuple(assembly.axes[place] for place in order)
