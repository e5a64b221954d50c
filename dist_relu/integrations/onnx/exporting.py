"""From a model to ONNX."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dist_relu.checkpoint import check_can_be_saved, described_use
from dist_relu.core.checks import check_is
from dist_relu.core.files import write_file
from dist_relu.errors import DataError
from dist_relu.integrations.onnx.certificate import Certificate, certify
from dist_relu.integrations.onnx.graph import Graph, Value
from dist_relu.integrations.onnx.writers import elements, images, joins, products, recurrence, shapes  # noqa: F401 - fill the table
from dist_relu.integrations.onnx.writers.table import translate
from dist_relu.nn import Sequential
from dist_relu.nn.description import describe

OPSET = 20
"""With GELU as an operator; onnxruntime has it since 1.17, of January 2024."""
IR_VERSION = 9
"""The oldest version of ONNX's files that may have this opset, so that as many programs as possible read them."""
INPUT, OUTPUT = "x", "y"
PREFIX = "dist_relu."
"""Of all metadata."""
_MOST_BYTES = 2**31 - 1
"""Of a file by itself, as protobuf has it."""


def export_model(model: Sequential, path: str | Path) -> Certificate:
    """Write a model as ONNX, and beside it its certificate, NAME.json; returns the certificate.

    The graph goes from x (N, ...) to y (N, ...), with any N, as `model.forward` does in evaluation: batch
    normalisation has running statistics, and dropout does nothing. Its metadata hold the version of this package,
    the layers, the digest of the parameters, names of classes, and the loss.
    Raises ValueError for a model without parameters or with layers of the user's own, ImportError without onnx,
    and `WriteError`.
    """
    path = Path(path)
    content = to_onnx(model).SerializeToString(deterministic=True)
    certificate = certify(model, path.name, content)
    write_file(path, content)
    certificate.write(path)
    return certificate


def to_onnx(model: Sequential) -> Any:
    """A model as an `onnx.ModelProto`, which passes ONNX's full check.  Raises as `export_model` does."""
    check_is("model", model, Sequential)
    if not model.has_values:
        raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
    if model.values.nbytes > _MOST_BYTES - 2**24:
        raise ValueError(f"The model's parameters have {model.values.nbytes:,} bytes; an ONNX file has 2 GiB at most.")
    onnx = import_onnx()
    helper = onnx.helper
    graph = Graph(dict(zip(model.params, model.names, strict=True)), model.dtype)
    graph.end(graph.with_channels_last(translate(graph, model.layers, Value(INPUT, model.input_shape))), OUTPUT)
    element = helper.np_dtype_to_tensor_dtype(model.dtype)
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "dist_relu",
            [helper.make_tensor_value_info(INPUT, element, ["N", *model.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, element, ["N", *model.output_shape])],
            graph.constants,
            doc_string=f"x: (N, {_listed(model.input_shape)}).  y: (N, {_listed(model.output_shape)}).",
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dist_relu",
        producer_version=version("dist_relu"),
        doc_string=repr(model),
    )
    helper.set_model_props(proto, _metadata(model))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def import_onnx() -> Any:
    """The package onnx.  Raises `DataError` where it is missing."""
    try:
        import onnx
    except ImportError as error:
        raise DataError(f"ONNX needs the package onnx: pip install 'dist_relu[onnx]'. ({error})") from None
    return onnx


def _metadata(model: Sequential) -> dict[str, str]:
    check_can_be_saved(model)
    texts = {
        "version": version("dist_relu"),
        "params_sha256": model.sha256(),
        "layers": json.dumps([describe(layer) for layer in model.layers]),
        **described_use(model),
    }
    return {f"{PREFIX}{name}": text for name, text in texts.items()}


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
