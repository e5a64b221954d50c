"""A chain of a graph, link by link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dist_relu import nn
from dist_relu.errors import CheckpointError
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.chains import Link
from dist_relu.integrations.onnx.readers import elements, images, products, recurrence, shapes  # noqa: F401 - fill the table
from dist_relu.integrations.onnx.readers.joins import join
from dist_relu.integrations.onnx.readers.table import READERS
from dist_relu.integrations.onnx.source import Node
from dist_relu.nn.layers.row_activations import Gate


def run(assembly: Assembly, chain: Sequence[Link]) -> None:
    """Add what a chain of a graph is.  Raises `CheckpointError`, which names the node, for what no layer does."""
    for link in chain:
        node = link.node
        try:
            _run_one(assembly, link)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise node.refuse(f"has attributes or constants that make no sense: {error}") from error


def known_operators() -> list[str]:
    """The names of operators that are read."""
    return sorted({*READERS, "Concat", "Split", "Sum", "Where"})


def _run_one(assembly: Assembly, link: Link) -> None:
    node = link.node
    if link.layer is not None:
        _add_pattern(assembly, node, link.layer)
    elif link.branches:
        join(assembly, node, link.branches, run)
    elif node.operator in READERS:
        READERS[node.operator](assembly, node)
    else:
        raise node.refuse(f"is nothing that a layer here does; expected one of {', '.join(known_operators())}.")


def _add_pattern(assembly: Assembly, node: Node, layer: nn.Layer) -> None:
    if isinstance(layer, nn.CReLU):
        assembly.need_channels(node, assembly.axis(node, int(node.attributes["axis"])))
    elif isinstance(layer, Gate):
        splits = [assembly.source.producers[name] for name in node.inputs]
        split = next(one for one in splits if one.operator == "Split")
        assembly.need_channels(node, assembly.axis(split, int(split.attributes.get("axis", 0))))
    elif isinstance(layer, nn.LayerNorm):
        assembly.need_channels(node, len(assembly.axes) - 1)
        layer.epsilon = float(str(np.float32(layer.epsilon)))
        assembly.add(node, layer, np.ones(assembly.shape[-1:], "f"), np.zeros(assembly.shape[-1:], "f"))
        return
    assembly.add(node, layer)
