"""Activations that graphs write as several nodes, and how they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from math import isclose, pi, sqrt
from typing import Any

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.source import Source

X = "x"
"""What the activation is of."""
A, B = "a", "b"
"""Its halves along the axis of channels."""

Tree = Any
"""A number, `X`, `A`, `B`, a name for a constant such as "=beta", or (operator, trees of its inputs...)."""

_COMMUTATIVE = {"Add", "Mul", "Sum"}

_ERF = ("Add", ("Erf", ("Div", X, sqrt(2))), 1.0)
_ERF_TIMES = ("Add", ("Erf", ("Mul", X, sqrt(0.5))), 1.0)
_CUBE = ("Mul", X, ("Mul", X, X)), ("Pow", X, 3.0)
_TANH = [("Add", ("Tanh", ("Mul", ("Add", X, ("Mul", cube, 0.044715)), sqrt(2 / pi))), 1.0) for cube in _CUBE]
_SILU_OF_B = ("Mul", B, ("Sigmoid", B))


_CENTRED = ("Sub", X, ("ReduceMean", X, -1.0))
_SQUARES = ("Pow", _CENTRED, 2.0), ("Mul", _CENTRED, _CENTRED)


def _halved(tree: Tree) -> list[Tree]:
    """x · tree / 2, in the orders in which it is written."""
    half = 0.5
    return [
        *(("Mul", ("Mul", X, tree), half), ("Mul", X, ("Mul", tree, half)), ("Mul", ("Mul", X, half), tree)),
        *(("Div", ("Mul", X, tree), 2.0),),
    ]


PATTERNS: list[tuple[Tree, Callable[..., nn.Layer]]] = [
    (("Mul", X, ("Sigmoid", X)), nn.SiLU),
    (("Mul", X, ("HardSigmoid", X)), nn.Hardswish),
    (("Mul", X, ("Div", ("Clip", ("Add", X, 3.0), 0.0, 6.0), 6.0)), nn.Hardswish),
    (("Div", ("Mul", X, ("Clip", ("Add", X, 3.0), 0.0, 6.0)), 6.0), nn.Hardswish),
    (("Mul", X, ("Tanh", ("Softplus", X))), nn.Mish),
    (("Mul", ("Relu", X), ("Relu", X)), nn.SquaredReLU),
    (("Pow", ("Relu", X), 2.0), nn.SquaredReLU),
    *((tree, nn.GELU) for base in (_ERF, _ERF_TIMES) for tree in _halved(base)),
    *((tree, lambda: nn.GELU("tanh")) for base in _TANH for tree in _halved(base)),
    (("Where", ("LessOrEqual", X, "=threshold"), "=value", X), nn.Threshold),
    (("Where", ("Greater", X, "=threshold"), X, "=value"), nn.Threshold),
    (("Mul", ("Elu", ("Div", X, "=alpha")), "=alpha"), nn.CELU),
    (
        (
            "Where",
            ("Greater", ("Mul", X, "=beta"), "=threshold"),
            X,
            ("Div", ("Softplus", ("Mul", X, "=beta")), "=beta"),
        ),
        nn.Softplus,
    ),
    *(
        (("Div", _CENTRED, ("Sqrt", ("Add", ("ReduceMean", square, -1.0), "=epsilon"))), nn.LayerNorm)
        for square in _SQUARES
    ),
    (("Concat", ("Relu", X), ("Relu", ("Neg", X))), nn.CReLU),
    (("Mul", A, ("Sigmoid", B)), nn.GLU),
    (("Mul", A, ("Relu", B)), nn.ReGLU),
    (("Mul", A, _SILU_OF_B), nn.SwiGLU),
]
"""Trees, and the layers that they are: called with the constants of that name.

Layer normalisation, as graphs write it before opset 17, has its weight and bias in nodes behind it.
"""


def find(source: Source, name: str, start: str) -> nn.Layer | None:
    """The activation that makes `name` of `start`, if it is one of these."""
    for tree, make in PATTERNS:
        for found in _matches(source, tree, name, start, {}):
            return make(**found)
    return None


def is_same(source: Source, tree: Tree, name: str, start: str) -> bool:
    """Whether `name` is this tree of `start`."""
    return next(_matches(source, tree, name, start, {}), None) is not None


def _matches(source: Source, tree: Tree, name: str, start: str, found: dict[str, float]) -> Iterator[dict[str, float]]:
    """The constants that a tree has, once for every way in which it is there."""
    if isinstance(tree, tuple):
        yield from _matches_node(source, tree, name, start, found)
    elif tree == X:
        if name == start:
            yield found
    elif tree in (A, B):
        if _is_half(source, name, start, 0 if tree == A else 1):
            yield found
    elif name in source.constants and source.constants[name].size == 1:
        value = float(source.constants[name].reshape(()))
        if isinstance(tree, float):
            if isclose(value, tree, rel_tol=1e-3, abs_tol=1e-6):
                yield found
        elif found.get(tree[1:], value) == value:
            yield found | {tree[1:]: value}


def _matches_node(
    source: Source, tree: Tree, name: str, start: str, found: dict[str, float]
) -> Iterator[dict[str, float]]:
    operator, *inputs = tree
    node = source.producers.get(name)
    if node is None or node.operator != operator or len(node.inputs) != len(inputs):
        return
    if not _has_usual_attributes(node.operator, node.attributes):
        return
    for order in permutations(node.inputs) if operator in _COMMUTATIVE else [tuple(node.inputs)]:
        ways = [found]
        for each, input_name in zip(inputs, order, strict=True):
            ways = [more for way in ways for more in _matches(source, each, input_name, start, way)]
        yield from ways


def _has_usual_attributes(operator: str, attributes: Any) -> bool:
    if operator == "HardSigmoid":
        return isclose(attributes.get("alpha", 0.2), 1 / 6, rel_tol=1e-5) and attributes.get("beta", 0.5) == 0.5
    if operator == "ReduceMean":
        return bool(attributes.get("keepdims", 1))
    return operator != "Elu" or attributes.get("alpha", 1.0) == 1.0


def _is_half(source: Source, name: str, start: str, number: int) -> bool:
    """Whether `name` is this half of `start`, along whatever axis."""
    node = source.producers.get(name)
    if node is None or node.operator != "Split" or node.inputs[0] != start or len(node.outputs) != 2:
        return False
    sizes = source.whole_numbers(node, 1)
    return node.outputs[number] == name and (sizes is None or (len(sizes) == 2 and sizes[0] == sizes[1]))


def is_constant(source: Source, name: str, value: float) -> bool:
    """Whether `name` is this single number."""
    array = source.constants.get(name)
    return array is not None and array.size == 1 and bool(np.all(array == value))
