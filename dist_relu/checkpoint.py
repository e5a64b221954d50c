"""Models as files: safetensors with a JSON header.  Nothing that is loaded is ever executed.

The header holds the layers, the shape of a sample and a digest of the parameters. A file appears under its name only
when it is complete and on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import isabstract
from math import prod
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np
from safetensors import safe_open

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is, check_sequence, instance_of, shown
from dist_relu.core.tensor_file import MOST_HEADER_BYTES, Block, HeaderTooLarge, checksum, write_tensors
from dist_relu.core.untrusted import made, parse_json, read_up_to, reading
from dist_relu.data.labels import check_classes
from dist_relu.errors import CheckpointError
from dist_relu.nn import Initializer, Layer, Sequential
from dist_relu.nn.description import construct, describe, parts
from dist_relu.nn.sequential import Predicts, digest_of

_FORMAT = "dist_relu 1"
RUN_FORMAT = "dist_relu run 1"
"""Of the state of a run, which has a model in it: see `dist_relu/run/state_file.py`."""
_CLASSES = {
    name: value
    for name, value in vars(nn).items()
    if isinstance(value, type) and issubclass(value, Layer | Initializer) and not isabstract(value)
}
_LOSSES = {name: value for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Loss)}


_HEADER_KEYS = {"format", "dtype", "input_shape", "layers", "header_sha256"}
_MORE_KEYS = {_FORMAT: {"params_sha256"}, RUN_FORMAT: {"run", "params_crc32", "others_crc32"}}
_PREDICTS = set(get_args(Predicts))
_OPTIONAL_KEYS = {"predicts", "classes", "loss"}
"""Of a model that was trained; others don't say, as those of older versions. Classes have names in some data only, and
a loss is there only if it is not the one that such targets have by default."""

_DTYPES = {"float32": "F32", "float64": "F64"}
"""What safetensors calls them."""


def save_model(model: Sequential, path: str | Path) -> None:
    """Write the model's layers and parameters; the same ones give the same bytes.

    Raises `WriteError`, and then the file of that name is as it was before; ValueError for a model that
    `check_can_be_saved` refuses, or that has no parameters yet.
    """
    check_is("model", model, Sequential)
    if not model.has_values:
        raise ValueError("The model has no parameters yet: fit it, or build and initialize it.")
    check_can_be_saved(model)
    header = {
        "format": _FORMAT,
        "dtype": model.dtype.name,
        "input_shape": json.dumps(model.input_shape),
        "layers": json.dumps([describe(layer) for layer in model.layers]),
        "params_sha256": model.sha256(),
        **described_use(model),
    }
    header["header_sha256"] = digest_of_header(header)
    block = Block(model.dtype, [(name, param.shape) for name, param in zip(model.names, model.params, strict=True)])
    try:
        write_tensors(path, header, [block], [model.values])
    except HeaderTooLarge as error:
        raise ValueError(f"The model can't be saved: its layers take {error} to describe.") from None


def described_use(model: Sequential) -> dict[str, str]:
    """What is known of a trained model beside layers and parameters, as texts by their names."""
    texts: dict[str, str] = {}
    if model.predicts is not None:
        texts["predicts"] = model.predicts
    if model.classes is not None:
        texts["classes"] = json.dumps(model.classes)
    if model.loss is not None:
        texts["loss"] = json.dumps(describe(model.loss))
    return texts


def add_use(path: str | Path, texts: Mapping[str, str], model: Sequential) -> None:
    """Let a model know what `described_use` wrote into a file.

    Raises ValueError for names of more classes than it has outputs, and `CheckpointError` for a loss that is none.
    """
    names, loss = _names_of_classes(texts, model), _loss(path, texts)
    model.predicts = texts.get("predicts")  # type: ignore[assignment]  # one of _PREDICTS
    model.classes, model.loss = names, loss


def check_can_be_saved(model: Sequential) -> None:
    """Raise ValueError, which names layer and field, unless a file can hold what the layers are made of."""
    own = _classes_in(model)
    for number, layer in enumerate(model.layers):
        name = f"Layer {number} ({type(layer).__name__})"
        _check_field(name, "", layer)
        description = json.dumps(describe(layer))
        try:
            same = json.dumps(describe(construct(json.loads(description), _CLASSES, own))) == description
        except Exception as error:  # from a constructor of the user's own
            raise ValueError(f"{name} can't be saved: it can't be made again from its fields: {error}") from error
        if not same:
            raise ValueError(f"{name} can't be saved: its constructor makes another layer of the same fields.")


def load_model(path: str | Path, layers: Sequential | None = None, *, classes: Sequence[type] = ()) -> Sequential:
    """The model in a file that `save_model` wrote, or that of a run in one that `save_state` or `Checkpoint` did.

    layers: the model to fill, which must have the layers that the file describes, with the same arguments.
    classes: of the user's own, where the model has layers or initialisers of such; those of `layers` are known. No
    other class is ever looked up by a name in a file.
    Raises `CheckpointError` for a file that is none, is not whole, or does not fit. Memory is taken only for parameters
    that are in the file.
    """
    own = set(check_sequence("classes", classes, instance_of(type), "classes"))
    os.fspath(path)  # raises TypeError for what is no path
    with reading(path, CheckpointError, "a model"):
        _check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            header = _checked_header(path, file.metadata() or {})
            model = _construct(path, header, own | (_classes_in(layers) if layers else set()))
            if layers is not None:
                _check_same_layers(path, model, layers)
                model = layers
            _build(path, header, model)
            values = _read_values(path, file, model, is_of_run=header["format"] == RUN_FORMAT)
        if not _are_whole(header, values):
            raise CheckpointError(f"{path} is damaged: the digest of its parameters is not the one in its header.")
        add_use(path, header, model)
    model.bind(values)
    return model


def _classes_in(model: Sequential) -> set[type]:
    return {type(part) for _, part in parts(model.layers) if is_dataclass(part)}


def _check_field(layer: str, field: str, value: Any) -> None:
    """Raise ValueError for what JSON does not give back as it was."""
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_field(layer, f"{field}[{number}]", item)
    elif isinstance(value, dict) and all(type(key) is str for key in value):
        for key, item in value.items():
            _check_field(layer, f"{field}[{key!r}]", item)
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            if each.init:
                _check_field(layer, f"{field}.{each.name}".removeprefix("."), getattr(value, each.name))
    elif type(value.tolist() if isinstance(value, np.generic) else value) not in (bool, int, float, str, NoneType):
        raise ValueError(
            f"{layer} can't be saved: {shown(field, value)} is no number, text, layer or initialiser, nor a list or a "
            "dict with text for keys of such."
        )


def _check_header_size(path: str | Path) -> None:
    with open(path, "rb") as file:
        size_bytes = int.from_bytes(read_up_to(file, 8), "little")
    if size_bytes > MOST_HEADER_BYTES:
        raise ValueError(f"its header has {size_bytes:,} bytes, which is more than {MOST_HEADER_BYTES:,}")


def _checked_header(path: str | Path, header: dict[str, str]) -> dict[str, str]:
    """The header without its digest."""
    if header.get("format") not in _MORE_KEYS:
        raise CheckpointError(f"{path} is no model of this version: its format is {header.get('format')!r}.")
    keys = _HEADER_KEYS | _MORE_KEYS[header["format"]]
    if header.keys() - _OPTIONAL_KEYS != keys or header.get("predicts", "classes") not in _PREDICTS:
        raise CheckpointError(f"{path} is no model of this version: its header has {', '.join(sorted(header))}.")
    if header.pop("header_sha256") != digest_of_header(header):
        raise CheckpointError(f"{path} is damaged: the digest of its header is not the one that it holds.")
    return header


def _names_of_classes(header: Mapping[str, str], model: Sequential) -> tuple[str, ...] | None:
    """The names of classes.  Raises ValueError for names that are none, or more than the model has outputs."""
    if "classes" not in header:
        return None
    names = check_classes(made(list[str], parse_json(header["classes"])))
    if header.get("predicts") != "classes" or len(names) > prod(model.output_shape):
        raise ValueError(f"it has names of {len(names):,} classes, which the model does not predict")
    return names


def _are_whole(header: Mapping[str, str], values: Array) -> bool:
    """Whether the parameters are those that were written."""
    if header["format"] == RUN_FORMAT:
        return checksum([values]) == header["params_crc32"]
    return digest_of(values) == header["params_sha256"]


def digest_of_header(header: Mapping[str, str]) -> str:
    """The SHA-256 of a header without its digest."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def described_layers(text: str, own: set[type]) -> list[Any]:
    """The layers that a file describes.  own: classes of the user's.

    Raises KeyError for a class that is not known, and whatever constructors raise.
    """
    descriptions = parse_json(text)
    if not isinstance(descriptions, list):
        raise ValueError("they are no list")
    return [construct(layer, _CLASSES, own) for layer in descriptions]


def _construct(path: str | Path, header: dict[str, str], own: set[type]) -> Sequential:
    try:
        layers = described_layers(header["layers"], own)
    except KeyError as error:
        raise CheckpointError(
            f"{path} has layers that this version does not know: {error.args[0]}. If that is a class of your own, pass "
            "it, load_model(path, classes=[...]), or pass the model that it belongs to, load_model(path, model)."
        ) from None
    except RecursionError:
        raise
    except Exception as error:  # constructors take anything for granted
        raise CheckpointError(f"{path} has layers that this version can't make: {error}") from error
    return Sequential(*layers, dtype=header["dtype"])


def _loss(path: str | Path, header: Mapping[str, str]) -> nn.Loss | None:
    """What the model was trained with, where its file says so."""
    if "loss" not in header:
        return None
    try:
        return check_is("loss", construct(parse_json(header["loss"]), _LOSSES), nn.Loss)
    except RecursionError:
        raise
    except Exception as error:  # constructors take anything for granted
        raise CheckpointError(f"{path} has a loss that this version can't make: {error}") from error


def _check_same_layers(path: str | Path, stored: Sequential, model: Sequential) -> None:
    """Raise `CheckpointError` unless `model` has the layers that a file describes."""
    if len(stored.layers) != len(model.layers):
        raise CheckpointError(
            f"{path} does not fit the model: it has {len(stored.layers)} layers, the model {len(model.layers)}."
        )
    for number, (one, other) in enumerate(zip(stored.layers, model.layers, strict=True)):
        if describe(one) != describe(other):
            raise CheckpointError(f"{path} does not fit the model: its layer {number} is {one}, the model's {other}.")


def _build(path: str | Path, header: dict[str, str], model: Sequential) -> None:
    if model.dtype != header["dtype"]:
        raise CheckpointError(f"{path} holds a model of {header['dtype']}; the one to be filled is of {model.dtype}.")
    try:
        model.build(tuple(made(list[int], parse_json(header["input_shape"]))))
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from None


def _read_values(path: str | Path, file: Any, model: Sequential, *, is_of_run: bool) -> Array:
    """The parameters (P,), of which all have the shape and type that the model needs before memory is taken.

    is_of_run: the file has other tensors besides.
    """
    found = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in _slices(file)}
    needed = {param_name: param.shape for param_name, param in zip(model.names, model.params, strict=True)}
    dtype = _DTYPES[model.dtype.name]
    for name, shape in needed.items():
        if found.get(name) != (shape, dtype):
            there = "{1} of shape {0}".format(*found[name]) if name in found else "missing"
            raise CheckpointError(f"{path}: parameter {name} is {there}; the model needs {dtype} of shape {shape}.")
    if (more := found.keys() - needed.keys()) and not is_of_run:
        raise CheckpointError(f"{path} has {min(more)}, which the model has not.")
    values = np.empty(model.num_params, model.dtype)
    for name, view in zip(model.names, model.views(values), strict=True):
        view[...] = file.get_tensor(name)
    return values


def _slices(file: Any) -> list[tuple[str, Any]]:
    return [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 - not a mapping
