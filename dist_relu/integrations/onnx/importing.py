"""From ONNX to a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dist_relu.checkpoint import add_use, described_layers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_ints
from dist_relu.core.untrusted import reading
from dist_relu.errors import CheckpointError
from dist_relu.integrations.onnx.assembly import Assembly
from dist_relu.integrations.onnx.chains import Chains
from dist_relu.integrations.onnx.exporting import PREFIX, import_onnx, to_onnx
from dist_relu.integrations.onnx.readers.chain import run
from dist_relu.integrations.onnx.source import Source, read
from dist_relu.nn import Sequential
from dist_relu.nn.layer import Shape


def import_model(
    path: str | Path, *, output: str | None = None, input_shape: Sequence[int] | None = None
) -> Sequential:
    """The model in an ONNX file, whoever wrote it, with its parameters.

    It takes the samples that the graph takes: images (N, C, H, W) of other libraries as they are, since such models
    begin with `nn.FromNCHW`. Only where a graph gives images, these have channels last. Files of `export_model` come
    back with the layers that the model had; others with layers that compute the same in evaluation.

    output: which one, where a graph has several; by default the only one that is numbers, as that of probabilities.
    input_shape: of a sample, where the file leaves it open.
    Raises `CheckpointError`, which names node and operator, for what the layers here can't express, for files that are
    damaged, and for constants outside of the file's folder; `DataError` without the package onnx.
    """
    path = Path(path)
    import_onnx()  # which may be missing, through no fault of the file
    with reading(path, CheckpointError, "ONNX"):
        source = read(path)
        shape = _sample_shape(path, source, input_shape)
        model = _restored(source, shape) or _assembled(path, source, shape, output)
        texts = {name.removeprefix(PREFIX): text for name, text in source.metadata.items() if name.startswith(PREFIX)}
        if texts.get("predicts", "classes") not in ("classes", "numbers"):
            raise ValueError(f"its metadata say that it predicts {texts['predicts']!r}")
        add_use(path, texts, model)
    return model


def _sample_shape(path: Path, source: Source, given: Sequence[int] | None) -> Shape:
    found = source.input_shape[1:]
    if given is None and None not in found and found:
        return check_ints("the shape of its samples", found)
    if given is None:
        shown = ", ".join("?" if length is None else str(length) for length in source.input_shape)
        raise CheckpointError(
            f"{path}: its input {source.input!r} has the shape ({shown}), which leaves samples open. Pass input_shape."
        )
    shape = check_ints("input_shape", given)
    if found and (len(shape) != len(found) or any(b not in (None, a) for a, b in zip(shape, found, strict=True))):
        raise CheckpointError(f"{path}: its samples have the shape {found}, not {shape} as input_shape says.")
    return shape


def _assembled(path: Path, source: Source, shape: Shape, output: str | None) -> Sequential:
    """The model that a graph is, whatever its metadata say."""
    name = _output(path, source, output)
    dtype = _dtype(path, source)
    chain = Chains(source).to(name)
    if not chain:
        raise CheckpointError(f"{path} gives back its input; there is no model in it.")
    assembly = Assembly(source, shape, tuple(range(len(shape) + 1)))
    run(assembly, chain)
    assembly.finish(chain[-1].node)
    if not assembly.layers:
        raise CheckpointError(f"{path} gives back its input; there is no model in it.")
    model = Sequential(*assembly.layers, dtype=dtype).build(shape)
    for param_name, param, value in zip(model.names, model.params, assembly.values, strict=True):
        if param.shape != value.shape or value.dtype.kind != "f":
            raise CheckpointError(
                f"{path}: parameter {param_name} is {value.dtype} of shape {value.shape}; expected numbers of shape "
                f"{param.shape}."
            )
    model.bind(np.concatenate([np.zeros(0, dtype), *(value.reshape(-1) for value in assembly.values)]).astype(dtype))
    return model


def _output(path: Path, source: Source, wanted: str | None) -> str:
    """The output that is asked for, or the only one that is numbers."""
    names = ", ".join(map(repr, source.outputs))
    if wanted is not None and wanted not in source.outputs:
        raise CheckpointError(f"{path} has no output {wanted!r}; expected one of {names}.")
    asked = source.outputs if wanted is None else [wanted]
    found = [name for name in asked if source.outputs[name] in _TYPES or not source.outputs[name]]
    if not found:
        raise CheckpointError(f"{path} gives no numbers of float32 or float64; its outputs are {names}.")
    if len(found) != 1:
        raise CheckpointError(f"{path} has the outputs {names}; say which one: output=...")
    producer = source.producers.get(found[0])
    return producer.inputs[0] if producer is not None and producer.operator == "ZipMap" else found[0]


_TYPES = {1, 11}
"""float32 and float64, as ONNX numbers types; what is no tensor has none."""


def _dtype(path: Path, source: Source) -> np.dtype[Any]:
    """That of the parameters, float64 if there are any of it."""
    found = {array.dtype for array in source.constants.values() if array.dtype.kind not in "iubUSO"}
    if others := {dtype.name for dtype in found} - {"float32", "float64"}:
        raise CheckpointError(f"{path} has numbers of {min(others)}; expected float32 or float64. Convert it first.")
    return np.dtype(np.float64 if np.dtype(np.float64) in found else np.float32)


def _restored(source: Source, shape: Shape) -> Sequential | None:
    """The model that a file of ours says it is of; None where it says nothing, or is not what that model exports to.

    Where its parameters stand in the graph is found out by exporting their numbers in their places.
    """
    text = source.metadata.get(f"{PREFIX}layers")
    if text is None:
        return None
    dtype = next((array.dtype for array in source.constants.values() if array.dtype.kind == "f"), np.dtype(np.float32))
    try:
        layers = described_layers(text, set())
        model = Sequential(*layers, dtype=dtype).build(shape)
        if model.num_params > sum(array.size for array in source.constants.values()):
            return None
        model.bind(_values(source, model, shape))
        content = to_onnx(model).graph.SerializeToString(deterministic=True)
    except Exception:  # of whatever was written there by somebody else
        return None
    return model if content == source.content else None


def _values(source: Source, model: Sequential, shape: Shape) -> Array:
    from onnx import numpy_helper

    numbered = Sequential(*model.blueprint().layers, dtype=np.float64).build(shape)
    numbered.bind(np.arange(1.0, model.num_params + 1))
    values = np.zeros(model.num_params, model.dtype)
    for tensor in to_onnx(numbered).graph.initializer:
        if tensor.name in numbered.names:
            places = numpy_helper.to_array(tensor).astype(np.int64)
            values[places[places > 0] - 1] = source.constants[tensor.name][places > 0]
    return values
