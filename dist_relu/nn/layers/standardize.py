"""Samples of mean 0 and variance 1: a layer whose numbers come from data, and stay with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, final

import numpy as np

from dist_relu.core.array_checks import check_finite, check_numbers
from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_floats, check_int, check_is, check_positive, check_sequence
from dist_relu.kernels import normalization as kernels
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape
from dist_relu.nn.layers.reshaping import FromNCHW, Reshape
from dist_relu.nn.sequential import Sequential

_MOST_SHOWN = 4


@final
@dataclass(eq=False, repr=False)
class Standardize(Layer):
    """y = (x - mean) / deviation, channel by channel; what the channels are of the data that a model was trained on.

    mean, deviation: (C,).  x: (N, ..., C), or flat rows of such.  Nothing in it is trained.
    """

    mean: Sequence[float]
    deviation: Sequence[float]
    _scale: Array = field(init=False, repr=False)
    _shift: Array = field(init=False, repr=False)
    _in_dtype: dict[np.dtype[Any], tuple[Array, Array, Array]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        positive = partial(check_sequence, check=check_positive, what="numbers above 0")
        check_fields(self, mean=check_floats, deviation=positive)
        if len(self.mean) != len(self.deviation) or not self.mean:
            raise ValueError(
                f"Standardize: mean has {len(self.mean)} numbers, and deviation {len(self.deviation)}; expected one of "
                "each for every channel."
            )

    def __repr__(self) -> str:
        if len(self.mean) > _MOST_SHOWN:
            return f"Standardize({len(self.mean):,} channels)"
        return f"Standardize(mean={self.mean}, deviation={self.deviation})"

    def build(self, input_shape: Shape) -> Shape:
        if prod(input_shape) % len(self.mean):
            raise ValueError(
                f"Standardize has {len(self.mean)} channels; samples of shape {input_shape} can't be cut into so many."
            )
        self._scale = 1 / np.array(self.deviation)
        self._shift = -np.array(self.mean) * self._scale
        self._in_dtype = {}
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        y = run.empty(x.shape, x.dtype)
        rows = x.reshape(-1, len(self._scale))
        scale, shift, _ = self._cast(x.dtype)
        kernels.scale_and_shift(rows, scale, shift, False, y.reshape(rows.shape))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        rows = dx.reshape(-1, len(self._scale))
        scale, _, zeros = self._cast(dx.dtype)
        kernels.scale_and_shift(rows, scale, zeros, False, rows)
        return dx

    def _cast(self, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
        """Scale, shift and zeros in a dtype, which stay where they are."""
        if dtype not in self._in_dtype:
            self._in_dtype[dtype] = (
                self._scale.astype(dtype),
                self._shift.astype(dtype),
                np.zeros(len(self._scale), dtype),
            )
        return self._in_dtype[dtype]


def standardized(model: Sequential, x: Array, channels: int | None = None) -> Sequential:
    """A model that first standardises samples, by mean and deviation of the channels of x (N, ...), then is `model`.

    channels: of samples, where flat rows hold images; by default the last axis of what the model gets when it has
    reshaped them. Channels that are the same everywhere become 0. Parameters are those of `model`, which keeps its own.
    """
    check_is("model", model, Sequential)
    x = check_numbers("x", x)
    if x.ndim < 2 or not x.size:
        raise ValueError(f"standardized: x has shape {x.shape}; expected (N, ...), with samples in it.")
    check_finite("x", x)
    layers = model.blueprint().layers
    first = next((i for i, layer in enumerate(layers) if not isinstance(layer, Reshape | FromNCHW)), len(layers))
    if first:
        x = Sequential(*layers[:first], dtype=model.dtype).build(x.shape[1:]).forward(x)
        layers = model.blueprint().layers
    if first or channels is None:
        channels = x.shape[-1]
    if prod(x.shape[1:]) % check_int("channels", channels):
        raise ValueError(f"channels={channels}: samples of shape {x.shape[1:]} can't be cut into so many.")
    rows = np.ascontiguousarray(x.reshape(-1, channels), model.dtype)
    mean, variance = np.empty((2, rows.shape[1]))
    kernels.channel_statistics(rows, 0, len(rows), mean, variance)
    constant = rows.min(axis=0) == rows.max(axis=0)
    mean[constant], variance[constant] = rows[0, constant], 1
    layer = Standardize(mean.tolist(), np.sqrt(variance).tolist())
    changed = Sequential(*layers[:first], layer, *layers[first:], dtype=model.dtype)
    if model.has_values:
        changed.build(model.input_shape).bind(model.values.copy())
    return changed
