"""ONNX's own tests of backends: each is computed as it should be, or refused for a reason that is known."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as cases

import dist_relu as dr
from dist_relu.integrations.onnx import import_model
from tests.twin import Array

MODULES = [
    *("add", "averagepool", "batch_normalization", "celu", "clip", "conv", "div", "dropout", "elu", "flatten", "gelu"),
    *("gemm", "globalaveragepool", "hardsigmoid", "hardswish", "identity", "layernormalization", "leakyrelu"),
    *("logsoftmax", "matmul", "max", "maxpool", "min", "mish", "mul", "pad", "prelu", "reducemean", "relu", "reshape"),
    *("rnn", "selu", "sigmoid", "softmax", "softplus", "squeeze", "sub", "swish", "tanh", "thresholdedrelu"),
    *("transpose", "unsqueeze"),
]
"""What layers express; names of onnx.backend.test.case.node."""

OF_NUMBERS = {
    *("Add", "Celu", "Clip", "Div", "Dropout", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu"),
    *("Max", "Min", "Mish", "Mul", "Relu", "Selu", "Sigmoid", "Softplus", "Sub", "Swish", "Tanh", "ThresholdedRelu"),
}
"""Operators for which an array of one dimension may be samples of a single number."""

REASONS = {
    r"gives no numbers of float32|has numbers of (float16|bfloat16)": "models compute in float32 and float64",
    r"leaves samples open": "samples have no dimension",
    r"takes images \(N, C, H, W\)|has filters of shape .* expected those of images": "images have two dimensions",
    r"multiplies by numbers that are not all above 0": "factors stand in Standardize, as deviations above 0",
    r"has a constant of shape|expected one, the samples|multiplies by an array|inputs; expected": "what is no weight",
    r"normalises over axes|works along axis|takes the mean over axes|is over several axes": "other axes than channels'",
    r"count_include_pad=0": "means over windows count zeros",
    r"pads more below|zeros above and below|at most half of kernel": "pooling pads both sides, by half a window",
    r"ceil_mode=1": "windows lie within images",
    r"dilations=": "pooling has no dilation",
    r"transA=1|multiplies a constant by samples": "samples are rows",
    r"is in training mode|say which one": "models are for inference",
    r"pads by something else|ends with a Pad|has pads": "zeros are added by convolution alone",
    r"flattens an array|has axis=|to stay apart|don't fit|no layer does this|takes out": "samples stay apart",
    r"axes with another order|has axes in an order|in another order": "layers have axes in one order",
    r"goes backward|lengths of sequences|takes axes": "recurrence goes forward, from 0, over the first axis of samples",
    r"expected those of Klambauer|has alpha=": "SELU has no arguments, nor has SiLU",
    r"gives back its input": "there is no layer in it",
    r"adds axes|works along": "other axes",
    r"min_val must be smaller": "bounds that leave nothing between them",
    r"is nothing that a layer here does": "operators without a layer",
    r"puts branches together": "branches that are no sum and not side by side",
}
"""Why a test can't be expressed, by what the error says."""


@dataclass(frozen=True)
class Case:
    name: str
    node: onnx.NodeProto
    inputs: list[Array]
    outputs: list[Array]
    opset: int

    def proto(self) -> onnx.ModelProto:
        """A graph of the node, with all inputs but the first as constants; a recurrence gets samples first."""
        first, *others = [name for name in self.node.input if name]
        elements = helper.np_dtype_to_tensor_dtype(self.inputs[0].dtype)
        nodes, constants = [self.node], list(zip(self.inputs[1:], others, strict=True))
        if self.is_recurrence:
            nodes.insert(0, helper.make_node("Transpose", ["samples"], [first], perm=[1, 0, 2]))
            nodes.append(helper.make_node("Squeeze", [self.node.output[1], "axes"], ["state"]))
            first = "samples"
            constants.append((np.array([0]), "axes"))
        outputs = ["state"] if self.is_recurrence else [name for name in self.node.output if name]
        kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in self.outputs[-len(outputs) :]]
        return helper.make_model(
            helper.make_graph(
                nodes,
                self.name,
                [helper.make_tensor_value_info(first, elements, self.x().shape)],
                [helper.make_tensor_value_info(*each, None) for each in zip(outputs, kinds, strict=True)],
                [numpy_helper.from_array(*each) for each in constants],
            ),
            opset_imports=[helper.make_opsetid("", self.opset)],
        )

    @property
    def is_recurrence(self) -> bool:
        """Whether samples stand behind steps, as those of ours do not."""
        return self.node.op_type == "RNN" and not any(one.name == "layout" for one in self.node.attribute)

    def x(self) -> Array:
        x = self.inputs[0]
        if self.is_recurrence:
            return x.transpose(1, 0, 2)
        return x.reshape(-1, 1) if x.ndim == 1 and self.node.op_type in OF_NUMBERS else x


@pytest.fixture(scope="module")
def node_cases() -> Iterator[list[Case]]:
    """All tests of single operators that layers express, but for those that decompose an operator into others."""
    found: list[Case] = []

    def expect(node: onnx.NodeProto, inputs: Any, outputs: Any, name: str, **options: Any) -> None:
        imports = options.get("opset_imports")
        opset = imports[0].version if imports else onnx.defs.get_schema(node.op_type, domain=node.domain).since_version
        if all(hasattr(array, "dtype") for array in [*inputs, *outputs]):
            found.append(Case(name, node, list(map(np.asarray, inputs)), list(map(np.asarray, outputs)), opset))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases, "expect", expect)
        for name in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{name}")
        yield found


def result(case: Case, folder: Path) -> str:
    """What becomes of a test: "passed", the reason why it is refused, or what is wrong."""
    try:
        onnx.save(case.proto(), folder / "case.onnx")
    except (KeyError, ValueError) as error:  # types that NumPy has not
        return f"models compute in float32 and float64: {error}".partition(":")[0]
    output = "state" if case.is_recurrence else next(name for name in case.node.output if name)
    return outcome(folder / "case.onnx", case.x(), case.outputs[-1 if case.is_recurrence else 0], output)


def outcome(path: Path, x: Array, expected: Array, output: str | None = None) -> str:
    try:
        model = import_model(path, output=output)
    except dr.CheckpointError as error:
        reasons = [why for pattern, why in REASONS.items() if re.search(pattern, str(error))]
        return reasons[0] if reasons else f"refused for another reason: {error}"
    y = model.forward(x)
    for found in (y, y.transpose(0, 3, 1, 2) if y.ndim == 4 else y):  # images here have channels last
        fits = found.size == expected.size and (found.shape == expected.shape or expected.ndim in (1, 3))
        if fits and np.allclose(found.reshape(expected.shape), expected, 1e-3, 1e-5):
            return "passed"
    return f"wrong: {y.shape} {expected.shape} {model}"


@pytest.mark.long
def test_operators_that_layers_express(node_cases: list[Case], tmp_path: Path) -> None:
    results = {case.name: result(case, tmp_path) for case in node_cases}
    known = {"passed", *REASONS.values()}
    assert {name: told for name, told in results.items() if told not in known} == {}
    counts = Counter(results.values())
    assert counts["passed"] >= 112, counts  # of 280 in ONNX 1.23, of which 52 are of other types


def test_what_torch_has_converted(tmp_path: Path) -> None:
    """Files of PyTorch's first exporter, of opset 6, which come with ONNX."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    results = {}
    for path in sorted([*folder.glob("pytorch-converted/*/model.onnx"), *folder.glob("pytorch-operator/*/model.onnx")]):
        x, y = (
            numpy_helper.to_array(onnx.load_tensor(path.parent / "test_data_set_0" / f"{name}_0.pb"))
            for name in ("input", "output")
        )
        results[path.parent.name] = outcome(path, x, y)
    known = {"passed", *REASONS.values()}
    assert {name: told for name, told in results.items() if told not in known} == {}
    counts = Counter(results.values())
    assert counts["passed"] >= 44, counts  # of 117
