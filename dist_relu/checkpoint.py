"""Models as files: safetensors with a JSON header.  Nothing that is loaded is ever executed.

The header holds the layers, the shape of a sample and a digest of the parameters. A file appears under its name only
when it is complete and on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import is_dataclass
from inspect import isabstract
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dist_relu import nn
from dist_relu.checks import check_sequence, instance_of
from dist_relu.errors import CheckpointError
from dist_relu.files import write_file
from dist_relu.nn import Initializer, Layer, Sequential
from dist_relu.nn.description import construct, describe, parts
from dist_relu.nn.sequential import digest_of

_FORMAT = "dist_relu 1"
_CLASSES = {
    name: value
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, Layer | Initializer) and not isabstract(value)
}


def save_model(model: Sequential, path: str | Path) -> None:
    """Write the model's layers and parameters.  Raises `WriteError`; then the file of that name is as it was before."""
    if model.values is None or model.input_shape is None:
        raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
    header = {
        "format": _FORMAT,
        "dtype": model.dtype.name,
        "input_shape": json.dumps(model.input_shape),
        "layers": json.dumps([describe(layer) for layer in model.layers]),
        "params_sha256": model.sha256(),
    }
    header["header_sha256"] = _digest(header)
    tensors = dict(zip(model.names, map(np.ascontiguousarray, model.views(model.values)), strict=True))
    content = save(tensors, header)
    write_file(path, content)


def load_model(path: str | Path, layers: Sequential | None = None, *, classes: Sequence[type] = ()) -> Sequential:
    """The model in a file that `save_model` wrote.

    layers: the model to fill, which must have the layers that the file describes, with the same arguments.
    classes: of the user's own, where the model has layers or initialisers of such; those of `layers` are known. No
    other class is ever looked up by a name in a file.
    Raises `CheckpointError` for a file that is none, is not whole, or does not fit.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read as a model: {error}.") from None
    if header.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no model of this version: its format is {header.get('format')!r}.")
    if header.pop("header_sha256", None) != _digest(header):
        raise CheckpointError(f"{path} is damaged: the digest of its header is not the one that it holds.")
    own = set(check_sequence("classes", classes, instance_of(type), "classes"))
    if layers is not None:
        own |= {type(part) for _, part in parts(layers.layers) if is_dataclass(part)}
    model = _construct(path, header, own)
    if layers is not None:
        _check_same_layers(path, model, layers)
        model = layers
    if model.dtype != header["dtype"]:
        raise CheckpointError(f"{path} holds a model of {header['dtype']}; the one to be filled is of {model.dtype}.")
    try:
        model.build(tuple(json.loads(header["input_shape"])))
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from None
    values = np.empty(model.num_params, model.dtype)
    for name, view in zip(model.names, model.views(values), strict=True):
        if name not in tensors or tensors[name].shape != view.shape:
            found = tensors[name].shape if name in tensors else "missing"
            raise CheckpointError(f"{path}: parameter {name} is {found}; the model needs shape {view.shape}.")
        view[...] = tensors[name]
    if digest_of(values) != header["params_sha256"]:
        raise CheckpointError(f"{path} is damaged: the digest of its parameters is not the one in its header.")
    model.bind(values)
    return model


def _digest(header: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _construct(path: str | Path, header: dict[str, Any], own: set[type]) -> Sequential:
    try:
        layers = [construct(layer, _CLASSES, own) for layer in json.loads(header["layers"])]
    except KeyError as error:
        raise CheckpointError(
            f"{path} has layers that this version does not know: {error.args[0]}. If that is a class of your own, pass "
            "it, load_model(path, classes=[...]), or pass the model that it belongs to, load_model(path, model)."
        ) from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has layers that this version can't make: {error}") from None
    return Sequential(*layers, dtype=header["dtype"])


def _check_same_layers(path: str | Path, stored: Sequential, model: Sequential) -> None:
    """Raise `CheckpointError` unless `model` has the layers that a file describes."""
    if len(stored.layers) != len(model.layers):
        raise CheckpointError(
            f"{path} does not fit the model: it has {len(stored.layers)} layers, the model {len(model.layers)}."
        )
    for number, (one, other) in enumerate(zip(stored.layers, model.layers, strict=True)):
        if describe(one) != describe(other):
            raise CheckpointError(f"{path} does not fit the model: its layer {number} is {one}, the model's {other}.")
