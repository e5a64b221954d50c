"""Models as files: safetensors with a JSON header.  Nothing that is loaded is ever executed.

The header holds the layers, the shape of a sample and a digest of the parameters. A file appears under its name only
when it is complete and on the disk.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dist_relu import nn
from dist_relu.errors import CheckpointError
from dist_relu.files import write_file
from dist_relu.nn import Sequential
from dist_relu.nn.description import construct, describe
from dist_relu.nn.sequential import digest_of

_FORMAT = "dist_relu 1"
_CLASSES = {name: value for name, value in vars(nn).items() if isinstance(value, type)}


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


def load_model(path: str | Path, layers: Sequential | None = None) -> Sequential:
    """The model in a file that `save_model` wrote.

    layers: the model to fill, needed only when it has layers of the user's own.
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
    model = layers or _construct(path, header)
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


def _construct(path: str | Path, header: dict[str, Any]) -> Sequential:
    try:
        layers = [construct(layer, _CLASSES) for layer in json.loads(header["layers"])]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} has layers that this version does not know ({error}). Pass the model that they belong to."
        ) from None
    return Sequential(*layers, dtype=header["dtype"])
