"""ONNX files of strangers, read: nodes, constants and shapes, with sizes checked before memory is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.untrusted import read_exactly, read_file
from dist_relu.errors import CheckpointError
from dist_relu.integrations.onnx.exporting import import_onnx

MOST_BYTES = 2**31 - 1
_MOST_NODES = 20_000

OPSETS = range(6, 29)
"""Versions of ONNX's operators that are known here."""

_ARGUMENTS = {
    "Clip": ["min", "max"],
    "Dropout": ["ratio"],
    "Squeeze": ["axes"],
    "Unsqueeze": ["axes"],
    "ReduceMean": ["axes"],
    "Split": ["split"],
    "Pad": ["pads", "value"],
}
"""What older opsets have as attributes and newer ones as inputs behind the first."""


@final
@dataclass(frozen=True)
class Node:
    """A node of a graph: an operator, the names of what goes in and comes out, and its attributes.

    Inputs that are left out have empty names; the strings of attributes are decoded.
    """

    name: str
    operator: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name!r} ({self.operator})"

    def refuse(self, what: str) -> CheckpointError:
        """The error that this node is something that no layer here does."""
        return CheckpointError(f"{self} {what}")

    def numbers(self, attribute: str, default: Sequence[int]) -> list[int]:
        """An attribute that is a list of whole numbers."""
        return list(self.attributes.get(attribute, default))

    def number(self, attribute: str, default: float) -> float:
        """An attribute that is a number, as its writer will have had it: ONNX keeps float32."""
        value = self.attributes.get(attribute, default)
        return float(str(np.float32(value))) if isinstance(value, float) else value


@final
@dataclass
class Source:
    """A graph: who makes which array, and what is known of them before anything runs.

    nodes: in an order in which they can run.  input_shape: of the input, None for what may change.
    """

    input: str
    input_shape: list[int | None]
    nodes: list[Node]
    constants: dict[str, Array]
    outputs: dict[str, int]
    opset: int
    metadata: dict[str, str]
    content: bytes
    shapes: Callable[[], dict[str, list[int | None]]]
    producers: dict[str, Node] = field(init=False)

    def __post_init__(self) -> None:
        self.producers = {output: node for node in self.nodes for output in node.outputs}

    def constant(self, node: Node, position: int) -> Array | None:
        """An input of a node that is a constant; None where it is left out.  Raises an error for any other."""
        if position >= len(node.inputs) or not node.inputs[position]:
            return None
        if node.inputs[position] not in self.constants:
            raise node.refuse(f"computes its input {position}; expected a constant there.")
        return self.constants[node.inputs[position]]

    def needed(self, node: Node, position: int) -> Array:
        """An input of a node that must be a constant."""
        found = self.constant(node, position)
        if found is None:
            raise node.refuse(f"has no input {position}; expected a constant there.")
        return found

    def whole_numbers(self, node: Node, position: int) -> list[int] | None:
        """A constant input that is a list of whole numbers."""
        found = self.constant(node, position)
        if found is None:
            return None
        if found.dtype.kind not in "iu" or found.ndim > 1:
            raise node.refuse(f"has {found.dtype} of shape {found.shape} as its input {position}; expected integers.")
        return [int(number) for number in found.reshape(-1)]

    def data(self, node: Node) -> list[str]:
        """The inputs of a node that are no constants."""
        return [name for name in node.inputs if name and name not in self.constants]


def read(path: Path) -> Source:
    """The graph in a file.  Raises whatever `dist_relu.core.untrusted.reading` turns into errors."""
    onnx = import_onnx()
    proto = onnx.ModelProto.FromString(read_file(path, MOST_BYTES))
    if not proto.HasField("graph") or not proto.graph.node:
        raise CheckpointError(f"{path} is no ONNX model: it has no graph.")
    _check_operators(path, proto)
    if len(proto.graph.node) > _MOST_NODES:
        raise CheckpointError(f"{path} has {len(proto.graph.node):,} nodes; at most {_MOST_NODES:,} are read.")
    constants = {tensor.name: _array(path, tensor) for tensor in proto.graph.initializer}
    if proto.graph.sparse_initializer:
        raise CheckpointError(f"{path} has sparse constants, which are not read. Save it with dense ones.")
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs)
        raise CheckpointError(f"{path} has {len(inputs)} inputs ({names}); expected one, the samples.")
    nodes: list[Node] = []
    for number, each in enumerate(proto.graph.node):
        nodes += _read_node(path, number, each, constants)
    return Source(
        input=inputs[0].name,
        input_shape=_shape(inputs[0]),
        nodes=nodes,
        constants=constants,
        outputs={value.name: value.type.tensor_type.elem_type for value in proto.graph.output},
        opset=max(one.version for one in proto.opset_import if one.domain in _DOMAINS),
        metadata={one.key: one.value for one in proto.metadata_props},
        content=proto.graph.SerializeToString(deterministic=True),
        shapes=lambda: _inferred(onnx, proto),
    )


_DOMAINS = ("", "ai.onnx")
_OF_SCIKIT_LEARN = "ai.onnx.ml"
"""Has the ends of classifiers; what leads to probabilities does without."""


def _check_operators(path: Path, proto: Any) -> None:
    versions = [one.version for one in proto.opset_import if one.domain in _DOMAINS]
    if not versions or max(versions) not in OPSETS:
        raise CheckpointError(
            f"{path} has operators of opset {max(versions, default=0)}; opsets {OPSETS[0]} to {OPSETS[-1]} are read."
        )
    for node in proto.graph.node:
        if node.domain not in (*_DOMAINS, _OF_SCIKIT_LEARN):
            raise CheckpointError(
                f"{path}: node {node.name!r} ({node.op_type}) is of {node.domain!r}; expected operators of ONNX itself."
            )


def _shape(value: Any) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _inferred(onnx: Any, proto: Any) -> dict[str, list[int | None]]:
    """The shapes that ONNX infers, as far as it can."""
    found = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    return {value.name: _shape(value) for value in [*found.value_info, *found.output]}


def _read_node(path: Path, number: int, proto: Any, constants: dict[str, Array]) -> list[Node]:
    """A node, or none where it makes a constant, which is added to the others."""
    from onnx import helper

    attributes = {}
    for one in proto.attribute:
        if one.type == one.TENSOR:
            attributes[one.name] = _array(path, one.t)
        elif one.type in (one.FLOAT, one.INT, one.STRING, one.FLOATS, one.INTS, one.STRINGS):
            attributes[one.name] = _decoded(helper.get_attribute_value(one))
    inputs = list(proto.input)
    name = proto.name or f"#{number}"
    for position, argument in enumerate(_ARGUMENTS.get(proto.op_type, ()), 1):
        if argument in attributes:
            inputs += [""] * (position + 1 - len(inputs))
            inputs[position] = f"{name}, {argument}"
            constants[inputs[position]] = np.asarray(attributes.pop(argument))
    node = Node(name, proto.op_type, inputs, list(proto.output), attributes)
    folded = _folded(node, constants)
    if folded is None:
        return [node]
    constants[node.outputs[0]] = folded
    return []


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_decoded(item) for item in value] if isinstance(value, list) else value


_FOLDED: dict[str, Callable[..., Array]] = {
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: x.astype(_dtype(node)),
    "Transpose": lambda node, x: x.transpose(node.attributes.get("perm")),
    "Reshape": lambda node, x, shape: x.reshape(shape),
    "Squeeze": lambda node, x, axes=None: x.squeeze(None if axes is None else tuple(axes)),
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, tuple(axes)),
    "Concat": lambda node, *arrays: np.concatenate(arrays, node.attributes["axis"]),
    "Neg": lambda node, x: -x,
    "Sqrt": lambda node, x: np.sqrt(x),
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": lambda node, a, b: a / b if a.dtype.kind == "f" else a // b,
}
"""Operators whose outputs are constants where their inputs are."""


def _folded(node: Node, constants: Mapping[str, Array]) -> Array | None:
    """The constant that a node makes; None where it makes none, or one that is larger than what it is made of."""
    if node.operator == "Constant":
        (value,) = node.attributes.values()
        return np.asarray(value)
    if node.operator not in _FOLDED or not all(name in constants for name in node.inputs):
        return None
    arrays = [constants[name] for name in node.inputs]
    if node.operator in ("Add", "Sub", "Mul", "Div"):
        most = max(array.size for array in arrays)
        if prod(np.broadcast_shapes(*(array.shape for array in arrays))) > most:
            return None
    return np.asarray(_FOLDED[node.operator](node, *arrays))


def _dtype(node: Node) -> np.dtype[Any]:
    from onnx import helper

    dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(node.attributes["to"]))
    return dtype


def _array(path: Path, tensor: Any) -> Array:
    """The numbers of a tensor, which are in the file or in one beside it."""
    from onnx import helper, numpy_helper

    if tensor.data_location != tensor.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    entries = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.parent.resolve()
    place = (folder / entries.get("location", "")).resolve()
    if not place.is_relative_to(folder) or not place.is_file():
        raise CheckpointError(
            f"{path}: constant {tensor.name!r} lies in {entries.get('location')!r}; expected a file in {folder}."
        )
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).newbyteorder("<")
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize > place.stat().st_size:
        raise CheckpointError(f"{path}: constant {tensor.name!r} of shape {shape} is larger than the file it lies in.")
    with place.open("rb") as stream:
        stream.seek(int(entries.get("offset", 0)))
        content = read_exactly(stream, prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
