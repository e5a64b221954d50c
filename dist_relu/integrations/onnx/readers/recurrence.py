"""Recurrence, and its last state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dist_relu import nn
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.readers.table import reads
from dist_relu.integrations.onnx.source import Node
from dist_relu.nn.layers.activations import Elementwise

_OF_RECURRENCE: dict[str, Callable[[float, float], Elementwise]] = {
    "Relu": lambda alpha, beta: nn.ReLU(),
    "Tanh": lambda alpha, beta: nn.Tanh(),
    "Sigmoid": lambda alpha, beta: nn.Sigmoid(),
    "LeakyRelu": lambda alpha, beta: nn.LeakyReLU(alpha),
    "Elu": lambda alpha, beta: nn.ELU(alpha),
    "HardSigmoid": lambda alpha, beta: nn.Hardsigmoid(),
}
_DEFAULTS = {"LeakyRelu": (0.01, 0.0), "Elu": (1.0, 0.0), "HardSigmoid": (0.2, 0.5)}


@reads("RNN")
def _(assembly: Assembly, node: Node) -> None:
    source, attributes = assembly.source, node.attributes
    if attributes.get("direction", "forward") != "forward" or "clip" in attributes:
        raise node.refuse("goes backward, or clips; expected direction='forward', and no clip.")
    weight, recurrent, both = source.needed(node, 1), source.needed(node, 2), source.constant(node, 3)
    if (len(node.inputs) > 4 and node.inputs[4]) or not _is_zero(assembly, node, 5):
        raise node.refuse("has lengths of sequences, or a state to begin with; expected neither.")
    steps_first = not attributes.get("layout", 0)
    if assembly.axes != ((1, 0, 2) if steps_first else (0, 1, 2)):
        raise node.refuse(f"takes axes {assembly.axes} of samples {assembly.shape}; expected (steps, inputs).")
    function = (attributes.get("activations") or ["Tanh"])[0]
    if function not in _OF_RECURRENCE or weight.ndim != 3 or len(weight) != 1:
        raise node.refuse(f"has the activation {function}; expected one of {', '.join(_OF_RECURRENCE)}.")
    alpha, beta = _DEFAULTS.get(function, (0.0, 0.0))
    alpha = float(str(np.float32((attributes.get("activation_alpha") or [alpha])[0])))
    beta = float(str(np.float32((attributes.get("activation_beta") or [beta])[0])))
    if function == "HardSigmoid" and (abs(alpha - 1 / 6) > 1e-6 or beta != 0.5):
        raise node.refuse(f"has HardSigmoid with {alpha} and {beta}; expected 1/6 and 0.5.")
    units = weight.shape[1]
    halves = np.zeros((2, units), weight.dtype) if both is None else both.reshape(2, units)
    bias = halves[0] if not halves[1].any() else halves[0] + halves[1]
    only_last = any(node.outputs[1:2]) and not _is_used(assembly, node.outputs[0])
    layer = nn.RNN(units, _OF_RECURRENCE[function](alpha, beta), sequences=not only_last)
    assembly.add(node, layer, weight[0].T, recurrent[0].T, bias)
    if only_last:
        assembly.axes = (None, 0, 1) if steps_first else (0, None, 1)
    else:
        assembly.axes = (1, None, 0, 2) if steps_first else (0, 1, None, 2)


def _is_used(assembly: Assembly, name: str) -> bool:
    source = assembly.source
    return name in source.outputs or any(name in node.inputs for node in source.nodes)


def _is_zero(assembly: Assembly, node: Node, position: int) -> bool:
    """Whether an input is left out or holds zeros, perhaps as many as there are samples."""
    if position >= len(node.inputs) or not node.inputs[position]:
        return True
    source, name = assembly.source, node.inputs[position]
    for _ in range(5):
        if name in source.constants:
            return not source.constants[name].any()
        producer = source.producers.get(name)
        if producer is None:
            return False
        if producer.operator == "ConstantOfShape":
            return not np.any(producer.attributes.get("value", 0))
        if producer.operator not in ("Expand", "Slice", "Identity"):
            return False
        name = producer.inputs[0]
    return False


def last_state(assembly: Assembly, node: Node) -> None:
    """Take the last of the states of a recurrence."""
    index = assembly.source.needed(node, 1)
    axis = assembly.axis(node, int(node.attributes.get("axis", 0)))
    last = assembly.layers[-1] if assembly.layers else None
    steps = assembly.shape[0] if assembly.shape else 0
    is_last = index.size == 1 and int(index.reshape(())) in (-1, steps - 1)
    if not isinstance(last, nn.RNN) or not last.sequences or assembly.axes[axis] != 1 or not is_last:
        raise node.refuse("takes a part of an array; expected the last state of a recurrence.")
    last.sequences = False
    assembly.shape = assembly.shape[1:]
    after = {0: 0, 2: 1, None: None}
    rest = [one for place, one in enumerate(assembly.axes) if place != axis or index.ndim]
    assembly.axes = tuple(after[None if one == 1 else one] for one in rest)
