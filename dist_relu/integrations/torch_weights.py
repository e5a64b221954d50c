"""PyTorch's weights in models of ours: state dicts, as safetensors files hold them.  Needs no PyTorch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from safetensors import safe_open

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_is
from dist_relu.core.tensor_file import MOST_HEADER_BYTES
from dist_relu.core.untrusted import read_exactly, reading
from dist_relu.errors import CheckpointError
from dist_relu.nn import Layer, Param, Sequential
from dist_relu.nn.layer import Shape
from dist_relu.nn.layers.activations import Elementwise
from dist_relu.nn.structure import every_layer

__all__ = ["load_state_dict"]

_COUNTERS = "num_batches_tracked"
"""Of batch normalisation, which only PyTorch has."""
_NUMBERS = {"F64", "F32", "F16"}


def load_state_dict(model: Sequential, path: str | Path, mapping: Mapping[str, str] | None = None) -> Sequential:
    """Give a model the weights of a PyTorch model; returns the model.

    path: a safetensors file, as `safetensors.torch.save_file(network.state_dict(), path)` writes it.
    mapping: from names of layers or parameters here, such as "4.body.0" or "0.weight", to those there, such as
    "layer1.0.conv1"; for all, or for those that would not be found. Others go by kind and shape: a layer gets the
    weights that fit no other layer, or of several that do, those of its place, if their names differ by numbers alone.

    Weights of dense layers and recurrences are transposed, those of convolution from (K, C, kh, kw) to (kh, kw, C, K),
    and the two biases of a recurrence are added. Behind `nn.Flatten` of images rows of a dense layer are brought from
    PyTorch's order of channels, height and width into ours.
    Raises ValueError for a model that was not built or a name in `mapping` that it does not have; `CheckpointError` for
    a file that is none, or does not fit: it names parameters, what they are and what they should be.
    """
    check_is("model", model, Sequential)
    if not model.is_built:
        raise ValueError("The model was not built yet, so it doesn't know the shapes of its weights: build it first.")
    places = _places(model)
    with reading(path, CheckpointError, "a state dict"):
        with open(path, "rb") as stream:
            size_bytes = int.from_bytes(read_exactly(stream, 8), "little")
        if size_bytes > MOST_HEADER_BYTES:
            raise ValueError(f"its header has {size_bytes:,} bytes, which is more than {MOST_HEADER_BYTES:,}")
        with safe_open(path, framework="numpy") as file:
            shapes = {name: _shape(path, name, file) for name in file.keys() if not name.endswith(_COUNTERS)}  # noqa: SIM118
            sources = _sources(path, places, shapes, mapping or {})
            values = np.empty(model.num_params, model.dtype)
            by_param = {place.param: (place, names) for place, names in sources}
            for param, view in zip(model.params, model.views(values), strict=True):
                place, names = by_param[param]
                view[...] = place.ours([file.get_tensor(name) for name in names])
    model.bind(values)
    return model


@final
@dataclass(frozen=True)
class _Place:
    """A parameter of ours, with what PyTorch calls it.

    layer: the name of its layer here.  theirs: names behind that of the layer there; two are added.  shape: there.
    flattened: height, width and channels of images that a `Flatten` before its layer has made rows of.
    """

    name: str
    layer: str
    param: Param
    theirs: tuple[str, ...]
    shape: Shape
    is_transposed: bool
    flattened: Shape | None

    def ours(self, arrays: list[Array]) -> Array:
        """The parameter, from arrays of PyTorch's."""
        total = arrays[0] if len(arrays) == 1 else arrays[0] + arrays[1]
        if total.ndim == 4:
            return np.asarray(total.transpose(2, 3, 1, 0))
        if self.flattened is not None:
            height, width, channels = self.flattened
            images = total.reshape(len(total), channels, height, width)
            return np.asarray(images.transpose(2, 3, 1, 0).reshape(self.param.shape))
        return total.T if self.is_transposed else total


_THEIRS: dict[tuple[type, str], tuple[str, ...]] = {
    (nn.BatchNorm, "running_variance"): ("running_var",),
    (nn.RNN, "weight"): ("weight_ih_l0",),
    (nn.RNN, "recurrent"): ("weight_hh_l0",),
    (nn.RNN, "bias"): ("bias_ih_l0", "bias_hh_l0"),
}
"""What PyTorch calls parameters, where that is not what we do."""


def _places(model: Sequential) -> list[_Place]:
    owners = {
        param: layer
        for layer in every_layer(model.layers)
        if not isinstance(layer, nn.Residual | nn.Parallel)
        for param in layer.params()
    }
    flattened = _flattened(model)
    return [
        _place(name, param, owners[param], flattened.get(param))
        for name, param in zip(model.names, model.params, strict=True)
    ]


def _place(name: str, param: Param, layer: Layer, flattened: Shape | None) -> _Place:
    place, _, kind = name.rpartition(".")
    theirs, shape = _THEIRS.get((type(layer), kind), (kind,)), param.shape
    is_transposed = isinstance(layer, nn.Dense | nn.RNN) and len(shape) == 2
    if is_transposed:
        shape = shape[::-1]
    elif isinstance(layer, nn.Conv2d) and kind == "weight":
        height, width, channels, filters = shape
        shape = filters, channels, height, width
    return _Place(name, place, param, theirs, shape, is_transposed, flattened if is_transposed else None)


def _flattened(model: Sequential) -> dict[Param, Shape]:
    """What images the samples of dense layers were before they were flattened, by the parameters of these."""
    found: dict[Param, Shape] = {}
    images: Shape | None = None
    for layer, shape in zip(model.layers, [model.input_shape, *model.layer_shapes], strict=False):
        if isinstance(layer, nn.Flatten) and len(shape) == 3:
            images = shape
        elif isinstance(layer, nn.Dense) and images is not None:
            found |= dict.fromkeys(layer.params(), images)
            images = None
        elif not isinstance(layer, Elementwise | nn.Dropout | nn.ActivityPenalty):
            images = None
    return found


def _shape(path: str | Path, name: str, file: Any) -> Shape:
    part = file.get_slice(name)
    if part.get_dtype() not in _NUMBERS:
        raise CheckpointError(f"{path}: {name} is of {part.get_dtype()}; expected {', '.join(sorted(_NUMBERS))}.")
    return tuple(part.get_shape())


def _sources(
    path: str | Path, places: list[_Place], shapes: dict[str, Shape], mapping: Mapping[str, str]
) -> list[tuple[_Place, list[str]]]:
    """For each parameter the names of what it is made of."""
    for name in mapping:
        if not any(name in (place.name, place.layer) for place in places):
            known = ", ".join(dict.fromkeys(place.layer for place in places))
            raise ValueError(f"mapping: the model has no layer with parameters {name!r}; expected one of {known}.")
    layers = dict(mapping) | _found(path, places, shapes, mapping)
    sources = []
    for place in places:
        names = [mapping[place.name]] if place.name in mapping else []
        names = names or [f"{layers[place.layer]}.{each}".removeprefix(".") for each in place.theirs]
        for name in names:
            if shapes.get(name) != place.shape:
                there = f"has the shape {shapes[name]}" if name in shapes else "is missing"
                raise CheckpointError(f"{path}: {name}, for {place.name}, {there}; expected shape {place.shape}.")
        sources.append((place, names))
    used = [name for _, names in sources for name in names]
    if unused := shapes.keys() - set(used):
        raise CheckpointError(f"{path} has {min(unused)} of shape {shapes[min(unused)]}, which no layer takes.")
    if len(used) > len(set(used)):
        twice = next(name for name in used if used.count(name) > 1)
        raise CheckpointError(f"{path}: {twice} is the source of several parameters; check the mapping.")
    return sources


Signature = tuple[tuple[str, Shape], ...]


def _found(
    path: str | Path, places: list[_Place], shapes: dict[str, Shape], mapping: Mapping[str, str]
) -> dict[str, str]:
    """Layers there for those layers here that no mapping tells of, by what their parameters are."""
    here: dict[str, dict[str, Shape]] = defaultdict(dict)
    for place in places:
        if place.layer not in mapping and place.name not in mapping:
            here[place.layer] |= dict.fromkeys(place.theirs, place.shape)
    there: dict[str, dict[str, Shape]] = defaultdict(dict)
    taken = set(mapping.values())
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        if name not in taken and layer not in taken:
            there[layer][kind] = shape
    free: dict[Signature, list[str]] = defaultdict(list)
    for layer in sorted(there, key=_natural):
        free[_signature(there[layer])].append(layer)
    asking: dict[Signature, list[str]] = defaultdict(list)
    for layer, kinds in here.items():
        asking[_signature(kinds)].append(layer)
    found: dict[str, str] = {}
    for signature, layers in asking.items():
        candidates = free.get(signature, [])
        if len(candidates) != len(layers):
            raise CheckpointError(
                f"{path} has {len(candidates)} layers with {_told(signature)}; the model has {len(layers)} "
                f"({', '.join(layers)}). The file has {', '.join(f'{name} {shape}' for name, shape in shapes.items())}."
            )
        if len({re.sub(r"\d+", "0", name) for name in candidates}) > 1:
            raise CheckpointError(
                f"{path}: which of {', '.join(candidates)} are which of {', '.join(layers)}? All have "
                f'{_told(signature)}. Say so: mapping={{"{layers[0]}": "{candidates[0]}", ...}}.'
            )
        found |= dict(zip(layers, candidates, strict=True))
    return found


def _signature(kinds: Mapping[str, Shape]) -> Signature:
    return tuple(sorted(kinds.items()))


def _told(signature: Signature) -> str:
    return ", ".join(f"{kind} {shape}" for kind, shape in signature)


def _natural(name: str) -> list[tuple[int, str]]:
    """To sort names with, so that 10 comes behind 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
