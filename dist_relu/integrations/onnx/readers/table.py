"""Readers by their operators, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dist_relu.core.arrays import Array
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.source import Node

Reader = Callable[[Assembly, Node], None]
Function = TypeVar("Function", bound=Callable[..., Any])

READERS: dict[str, Reader] = {}
"""What adds the layer that an operator is, by the operator."""


def reads(*operators: str) -> Callable[[Function], Function]:
    """Let a function read these operators."""

    def register(function: Function) -> Function:
        READERS.update(dict.fromkeys(operators, function))
        return function

    return register


def single(node: Node, array: Array) -> float:
    """The number that a constant is."""
    if array.size != 1:
        raise node.refuse(f"has a constant of shape {array.shape}; expected one number.")
    return float(str(array.reshape(())))


def other(assembly: Assembly, node: Node) -> tuple[Array, int]:
    """The constant of an operator that has two inputs, and its position."""
    if len(node.inputs) != 2:
        raise node.refuse(f"has {len(node.inputs)} inputs; expected two, of which one is a constant.")
    position = 0 if node.inputs[0] in assembly.source.constants else 1
    return assembly.source.needed(node, position), position
