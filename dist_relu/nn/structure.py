"""What stands in a model: every layer, those that samples reach first, and what its outputs say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from dist_relu.nn.description import parts
from dist_relu.nn.layer import Layer, Shape
from dist_relu.nn.layers.parallel import Parallel
from dist_relu.nn.layers.policy_heads import PolicyHead
from dist_relu.nn.layers.reshaping import Flatten, Reshape
from dist_relu.nn.layers.residual import Residual
from dist_relu.nn.sequential import Sequential


def every_layer(layers: Sequence[Layer]) -> Iterator[Layer]:
    """All these layers, and all that they were made of."""
    return (part for _, part in parts(layers) if isinstance(part, Layer))


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


def layer_names(model: Sequential) -> list[str]:
    """The layers as the user wrote them: "0 Dense", "1 ReLU", ..."""
    return [f"{number} {type(layer).__name__}" for number, layer in enumerate(model.layers)]


def tells_classes(model: Sequential) -> bool:
    """Whether the largest output is the class; of models that don't know what they predict, where it can be."""
    one_of_several = len(model.output_shape) == 1 and model.output_shape[0] > 1
    is_class = model.predicts in ("classes", None)
    return one_of_several and is_class and not isinstance(model.layers[-1], PolicyHead)


def tells_labels(model: Sequential) -> bool:
    """Whether an output above 0 says that its label is there; a single one also tells two classes apart."""
    return model.predicts == "labels" or (model.predicts == "classes" and model.output_shape == (1,))
