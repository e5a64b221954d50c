"""What stands in a model: every layer, and those that samples reach first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from dist_relu.nn.layer import Layer, Shape
from dist_relu.nn.parallel import Parallel
from dist_relu.nn.reshaping import Flatten, Reshape
from dist_relu.nn.residual import Residual


def every_layer(value: Any) -> Iterator[Layer]:
    """All layers among the items of a list, and all that these were made of."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from every_layer(item)
    elif isinstance(value, Layer):
        yield value
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                if field.init:
                    yield from every_layer(getattr(value, field.name))


def entries(layers: Sequence[Layer], shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """The layers that get samples as they are, but for their shape, and the shape in which they do.

    shape: of a sample.
    """
    for layer in layers:
        match layer:
            case Reshape():
                shape = tuple(layer.shape)
            case Flatten():
                shape = (prod(shape),)
            case Residual():
                yield from entries(layer.body, shape)
                yield from entries(layer.shortcut, shape)
                return
            case Parallel():
                for branch in layer.branches:
                    yield from entries(branch, shape)
                return
            case _:
                yield layer, shape
                return
