"""ONNX files, damaged: as bytes, and as graphs whose nodes, constants and shapes are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from dist_relu.errors import CheckpointError
from dist_relu.integrations.onnx import import_model, to_onnx
from dist_relu.nn import Sequential
from tests.integrations.models import OF_LAYERS, OF_MODELS, of_layers, of_models
from tests.integrations.test_onnx_import import torchvision_graph
from tests.long.harness import check_refused, mutate_bytes

_LONG = [0, 1, -1, 2, 3, 7, 2**31, 2**62, -(2**63), 10**12]


def prepare(folder: Path) -> Path:
    for number, proto in enumerate(_protos()):
        (folder / f"{number}.bytes").write_bytes(proto.SerializeToString())
    return folder


def _protos() -> list[onnx.ModelProto]:
    models = [of_layers(number, "float32") for number in range(len(OF_LAYERS))]
    protos = [to_onnx(model) for model in [*models, *(of_models(name) for name in OF_MODELS if name != "cnn")]]
    return [*protos, torchvision_graph()]


def attempt(folder: Path, rng: np.random.Generator) -> None:
    files = sorted(folder.glob("*.bytes"))
    content = files[int(rng.integers(len(files)))].read_bytes()
    path = folder / "a.onnx"
    path.write_bytes(mutate_bytes(rng, content) if rng.random() < 0.4 else _changed(rng, content))
    model = check_refused(lambda: import_model(path), CheckpointError)
    assert model is None or isinstance(model, Sequential)


def _changed(rng: np.random.Generator, content: bytes) -> bytes:
    """With another graph, which is one."""
    proto = onnx.ModelProto.FromString(content)
    graph = proto.graph
    if rng.random() < 0.7:
        del proto.metadata_props[:]
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        node = graph.node[int(rng.integers(len(graph.node)))]
        other = graph.node[int(rng.integers(len(graph.node)))]
        match int(rng.integers(9)):
            case 0 if node.input:
                node.input[int(rng.integers(len(node.input)))] = str(rng.choice([*other.input, *other.output, ""]))
            case 1:
                node.op_type = other.op_type
            case 2 if node.attribute:
                _change_attribute(rng, node.attribute[int(rng.integers(len(node.attribute)))])
            case 3 | 4 if graph.initializer:
                _change_constant(rng, graph.initializer[int(rng.integers(len(graph.initializer)))])
            case 5:
                dims = graph.input[0].type.tensor_type.shape.dim
                dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice(_LONG))
            case 6:
                graph.node.remove(node)
                if not graph.node:
                    break
            case 7:
                copied = graph.node.add()
                copied.CopyFrom(node)
            case _ if node.output:
                node.output[0] = str(rng.choice([*other.input, *other.output]))
    return bytes(proto.SerializeToString())


def _change_constant(rng: np.random.Generator, tensor: onnx.TensorProto) -> None:
    if tensor.dims and rng.random() < 0.5:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(_LONG))
    else:
        tensor.data_type = int(rng.integers(25))


def _change_attribute(rng: np.random.Generator, attribute: onnx.AttributeProto) -> None:
    number = int(rng.choice(_LONG))
    match int(rng.integers(4)):
        case 0:
            attribute.type = int(rng.integers(12))
        case 1 if attribute.ints:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = number
        case 2 if attribute.ints:
            del attribute.ints[-1]
        case _:
            attribute.i = number
            attribute.f = float(rng.choice([0.0, -1.0, np.nan, np.inf, 1e30]))
