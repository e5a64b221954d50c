"""A model as it grows from an ONNX graph: layers, their parameters, and how axes here and there belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, final

import numpy as np

from dist_relu import nn
from dist_relu.core.arrays import Array
from dist_relu.integrations.onnx.source import Node, Source
from dist_relu.nn.description import copy_unbuilt
from dist_relu.nn.layer import Shape

Axes = tuple[int | None, ...]

_IMAGES: Axes = (0, 3, 1, 2)


@final
@dataclass
class Assembly:
    """Layers so far, and what the array behind them is.

    shape: of a sample, as the layers have it.  axes: for each axis of ONNX's array, which of ours it is, with that of
    the batch as 0; None for one of length 1 that we have not. Images there are (0, 3, 1, 2), for theirs have channels
    first.  flattened: the channels, height and width of images that ONNX has flattened in that order, and we in ours.
    """

    source: Source
    shape: Shape
    axes: Axes
    layers: list[nn.Layer] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    flattened: tuple[int, int, int] | None = None
    margins: list[int] | None = None  # top, left, bottom, right: zeros around images, for the convolution behind
    _scale: Array | None = None  # of what elements are multiplied by and moved, until there is another layer
    _shift: Array | None = None

    def fork(self) -> Assembly:
        """A branch, which begins where this one ends."""
        self.settle()
        return replace(self, layers=[], values=[])

    def add(self, node: Node, layer: nn.Layer, *values: Array) -> None:
        """Add a layer, with its parameters."""
        self.settle()
        if self.margins is not None:
            raise node.refuse("is behind a Pad; expected a convolution there.")
        self._append(node, layer, *values)

    def settle(self) -> None:
        """Make a layer of what elements are multiplied by and moved."""
        if self._scale is None or self._shift is None:
            return
        scale, shift = self._scale, self._shift
        self._scale = self._shift = None
        if not ((scale == 1).all() and (shift == 0).all()):
            self.layers.append(nn.Standardize((-shift / scale).tolist(), (1 / scale).tolist()))

    def move(self, node: Node, scale: Array, shift: Array) -> None:
        """Multiply by `scale` and add `shift`: numbers, or arrays that ONNX broadcasts over its array."""
        factors, summands = self.along(node, scale), self.along(node, shift)
        if not (factors > 0).all() or not np.isfinite(factors).all() or not np.isfinite(summands).all():
            raise node.refuse("multiplies by numbers that are not all above 0, or not finite; no layer does this.")
        if self._scale is not None and self._shift is not None:
            factors, summands = self._scale * factors, self._shift * factors + summands
        self._scale, self._shift = (array.copy() for array in np.broadcast_arrays(factors, summands))

    def along(self, node: Node, array: Array) -> Array:
        """A constant that ONNX broadcasts over its array as (1,), or as (C,) along our last axis."""
        array = np.asarray(array, np.float64)
        if array.size == 1:
            return array.reshape(1)
        if array.ndim > len(self.axes) or max(array.shape) > prod(self.shape):
            raise node.refuse(f"has a constant of shape {array.shape}; its other input has samples {self.shape}.")
        lengths = (*[1] * (len(self.axes) - array.ndim), *array.shape)
        long = [axis for axis, length in enumerate(lengths) if length > 1]
        if len(long) > 1:
            if self.is_plain and lengths == (1, *self.shape) and self.flattened is None:
                return array.reshape(-1)
            raise node.refuse(f"has a constant of shape {array.shape}; expected one number, or one for each channel.")
        self.need_channels(node, long[0])
        if lengths[long[0]] != self.shape[-1]:
            raise node.refuse(f"has a constant of shape {array.shape}, but there are {self.shape[-1]} channels.")
        return array.reshape(-1)

    @property
    def is_settled(self) -> bool:
        """Whether the last layer is the last thing that was done."""
        return self._scale is None and self.margins is None

    @property
    def is_plain(self) -> bool:
        """Whether ONNX's axes are ours."""
        return self.axes == tuple(range(len(self.shape) + 1))

    @property
    def are_images(self) -> bool:
        """Whether it is images, as ONNX has them."""
        return self.axes == _IMAGES

    def lengths(self) -> list[int | None]:
        """The shape of ONNX's array, None for the batch."""
        return [1 if axis is None else None if axis == 0 else self.shape[axis - 1] for axis in self.axes]

    def axis(self, node: Node, axis: int) -> int:
        """An axis of ONNX's array, counted from the first."""
        rank = len(self.axes)
        if not -rank <= axis < rank:
            raise node.refuse(f"works along axis {axis} of an array that has {rank}.")
        return axis % rank

    def need_channels(self, node: Node, axis: int) -> None:
        """Let an axis of ONNX's array be our last one."""
        if self.flattened is not None:
            raise node.refuse("is behind images that were flattened; expected a dense layer there (Gemm, MatMul).")
        ours = self.axes[axis]
        if ours == 1 and len(self.shape) == 3 and None not in self.axes:
            self.turn(node)
        elif ours is None or ours != len(self.shape):
            raise node.refuse(
                f"works along axis {axis} of an array whose samples have shape {self.shape}; expected that of channels."
            )

    def need_images(self, node: Node) -> None:
        """Let ONNX's array be images."""
        if None in self.axes and self.flattened is None:
            self.keep_ones(node)
        if len(self.shape) == 3 and self.is_plain:
            self.turn(node)
        if not self.are_images:
            raise node.refuse(f"takes images (N, C, H, W); its input has samples of shape {self.shape}.")

    def turn(self, node: Node) -> None:
        """Let our last axis be the first one of a sample: images of theirs become ours."""
        self.add(node, nn.FromNCHW())
        after = {0: 0, 1: 3, 2: 1, 3: 2}
        self.axes = tuple(None if axis is None else after[axis] for axis in self.axes)

    def keep_ones(self, node: Node) -> None:
        """Let axes of length 1 that only ONNX has be ours, too."""
        ours = [axis for axis in self.axes if axis is not None]
        if ours != sorted(ours) or self.axes[0] != 0:
            raise node.refuse(f"has axes in an order ({self.axes}) that layers here don't have.")
        shape = tuple(1 if axis is None else self.shape[axis - 1] for axis in self.axes[1:])
        self.add(node, nn.Reshape(shape))
        self.axes = tuple(range(len(shape) + 1))

    def flatten(self, node: Node) -> None:
        """Let samples be rows of numbers."""
        if len(self.shape) == 1 and self.axes[0] == 0:
            self.axes = (0, 1)
            return
        if self.are_images:
            height, width, channels = self.shape
            self.add(node, nn.Flatten())
            self.flattened = (channels, height, width) if channels > 1 and height * width > 1 else None
        elif [axis for axis in self.axes if axis is not None] == list(range(len(self.shape) + 1)):
            self.add(node, nn.Flatten())
        else:
            raise node.refuse(f"flattens an array whose axes are in another order ({self.axes}) than any layer's.")
        self.axes = (0, 1)

    def finish(self, node: Node) -> None:
        """Let the array be what a model may end with."""
        self.settle()
        if self.flattened is not None:
            raise node.refuse("ends with images that were flattened; expected a dense layer behind them.")
        if self.margins is not None:
            raise node.refuse("ends with a Pad; expected a convolution behind it.")
        if None in self.axes:
            self.keep_ones(node)
        if not self.is_plain and not self.are_images:
            raise node.refuse(f"gives an array with axes in another order ({self.axes}) than any layer does.")

    def join(self, node: Node, run: Callable[[Assembly, Any], None], chains: Any) -> list[Assembly]:
        """Branches that begin here, run; all with the same axes behind them."""
        branches = self._run(run, chains)
        if len({branch.axes for branch in branches}) > 1 and len(self.shape) == 3 and self.is_plain:
            self.turn(node)
            branches = self._run(run, chains)
        for branch in branches:
            branch.settle()
        if len({(branch.axes, branch.flattened) for branch in branches}) > 1:
            orders = ", ".join(str(branch.axes) for branch in branches)
            raise node.refuse(f"puts together arrays whose axes are in unlike orders: {orders}.")
        return branches

    def _run(self, run: Callable[[Assembly, Any], None], chains: Any) -> list[Assembly]:
        branches = [self.fork() for _ in chains]
        for branch, chain in zip(branches, chains, strict=True):
            run(branch, chain)
        return branches

    def _append(self, node: Node, layer: nn.Layer, *values: Array) -> None:
        try:
            self.shape = copy_unbuilt(layer).build(self.shape)
        except ValueError as error:
            raise node.refuse(f"can't be done here: {error}") from None
        self.layers.append(layer)
        self.values += values
