"""What layers must be to make a model together, checked once."""

from __future__ import annotations

from collections.abc import Sequence

from dist_relu.nn.description import check_is_data, parts
from dist_relu.nn.layer import Layer, Param


def check_layer(value: object) -> Layer:
    """`value`, which must be a layer.  Raises TypeError."""
    if isinstance(value, Layer):
        return value
    if isinstance(value, type) and issubclass(value, Layer):
        raise TypeError(f"Sequential takes layers, not their class {value.__name__}: write {value.__name__}().")
    raise TypeError(f"Sequential takes layers, not an object of type {type(value).__name__}.")


def layers_in(layers: Sequence[Layer]) -> list[tuple[str, Layer]]:
    """All layers, those inside of others too, with their places."""
    return [(place, part) for place, part in parts(layers) if isinstance(part, Layer)]


def check_places(layers: Sequence[Layer]) -> None:
    """Raise ValueError where a layer stands twice, and TypeError for one that can't be made anew from its fields."""
    places: dict[int, str] = {}
    for place, layer in layers_in(layers):
        check_is_data(layer)
        if id(layer) in places:
            raise ValueError(
                f"{type(layer).__name__} stands twice in the model, at {places[id(layer)]} and at {place}. A layer "
                "remembers what it saw, so it can't be shared: build a second one."
            )
        places[id(layer)] = place


def check_params(name: str, layer: Layer, of_model: Sequence[Param]) -> None:
    """Raise an error unless a layer has a list of parameters, all of which are its own, with names of their own."""
    params = list(layer.params())
    for param in params:
        if not isinstance(param, Param):
            raise TypeError(f"{name}: params() has {param!r}; expected nn.Param.")
    if list(map(id, params)) != list(map(id, layer.params())):
        raise ValueError(f"{name}: params() makes new parameters when it is called. Make them in build.")
    seen: dict[str, Param] = {}
    for param in params:
        if param.name in seen:
            raise ValueError(
                f"{name} has two parameters called {param.name!r}, of shapes {seen[param.name].shape} and "
                f"{param.shape}; files and gradients tell parameters apart by their names. Name them differently."
            )
        seen[param.name] = param
        if "value" in vars(param) or sum(other is param for other in of_model) > 1:
            raise ValueError(
                f"{name}: its parameter {param.name!r} is that of another layer or model too. Make parameters in build."
            )
