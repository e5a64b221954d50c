"""Normalisation and dropout.  N batch, C channels (the last axis), M = all other axes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Literal, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.core.checks import check_fields, check_float, check_positive, check_share, one_of
from dist_relu.core.hints import EPS, hinting
from dist_relu.kernels import dropout
from dist_relu.kernels import normalization as kernels
from dist_relu.nn.initializers import Constant
from dist_relu.nn.layer import PLAIN, Layer, Param, Pass, Shape


@final
@hinting(EPS)
@dataclass(eq=False)
class BatchNorm(Layer):
    """y = weight (x - mean) / √(variance + epsilon) + bias, for every channel; x: (N, ..., C).

    In training mean and variance are those of a shard, the samples that are computed together; with scope="batch" they
    are those of the whole batch, for which the workers meet three times in each layer. Either way they are the same on
    any number of workers. In evaluation they are running means of those over training, value = (1 - momentum) value +
    momentum new, with the unbiased variance as in PyTorch. One sample has no variance:
    `Coordinator.fit` refuses shards, or batches, in which a channel has a single element.
    Ioffe and Szegedy (2015), algorithm 1.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    scope: Literal["shard", "batch"] = "shard"
    weight: Param = field(init=False, repr=False)
    bias: Param = field(init=False, repr=False)
    running_mean: Param = field(init=False, repr=False)
    running_variance: Param = field(init=False, repr=False)
    _x: Array = field(init=False, repr=False)
    _mean: Array = field(init=False, repr=False)
    _inverse: Array = field(init=False, repr=False)  # 1 / √(variance + epsilon), float64
    _scale: Array = field(init=False, repr=False)
    _shift: Array = field(init=False, repr=False)
    _num_rows: float = field(init=False, repr=False)  # that mean and variance are of
    _in_training: bool = field(init=False, repr=False)
    elements_per_sample: int = field(init=False, repr=False)  # of a channel

    def __post_init__(self) -> None:
        check_fields(
            self,
            momentum=partial(check_float, above=0, most=1),
            epsilon=check_positive,
            scope=one_of("shard", "batch"),
        )

    def build(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1]
        self.elements_per_sample = prod(input_shape[:-1])
        self.weight = Param("weight", (channels,), Constant(1.0), channels, channels)
        self.bias = Param("bias", (channels,), Constant(0.0), channels, channels)
        self.running_mean = Param("running_mean", (channels,), Constant(0.0), channels, channels, self.momentum)
        self.running_variance = Param("running_variance", (channels,), Constant(1.0), channels, channels, self.momentum)
        return input_shape

    def params(self) -> Sequence[Param]:
        return [self.weight, self.bias, self.running_mean, self.running_variance]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        return self.normalise(x, run, relu=False)

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        return self.normalise_backward(dy, run, relu=False, wants_dx=wants_dx)

    def normalise(self, x: Array, run: Pass, *, relu: bool) -> Array:
        """The forward pass, with ReLU behind it if `relu`."""
        self._x, self._in_training = x, run.training
        rows = x.reshape(-1, x.shape[-1])
        if run.training:
            mean, variance = np.empty((2, x.shape[-1]))
            kernels.channel_statistics(rows, mean, variance)
            num_rows: float = len(rows)
            if self.scope == "batch":
                num_rows, mean, variance = _statistics_of_batch(num_rows, mean, variance, run)
            run.statistic(self.running_mean, mean)
            run.statistic(self.running_variance, variance * (num_rows / max(num_rows - 1, 1)))
            self._num_rows = num_rows
        else:
            mean, variance = self.running_mean.value.astype(float), self.running_variance.value.astype(float)
        self._mean, self._inverse = mean.astype(x.dtype), 1 / np.sqrt(variance + self.epsilon)
        scale = self.weight.value * self._inverse
        self._scale, self._shift = scale.astype(x.dtype), (self.bias.value - mean * scale).astype(x.dtype)
        y = run.empty(x.shape, x.dtype)
        kernels.scale_and_shift(rows, self._scale, self._shift, relu, y.reshape(rows.shape))
        return y

    def normalise_backward(self, dy: Array, run: Pass, *, relu: bool, wants_dx: bool) -> Array:
        """The backward pass of `normalise`."""
        rows = self._x.reshape(-1, self._x.shape[-1])
        dx = run.writable(dy)
        d_rows, scale, shift = dx.reshape(rows.shape), self._scale, self._shift
        d_scale, d_shift = np.empty((2, rows.shape[1]))
        kernels.batch_norm_sums(d_rows, rows, scale, shift, relu, self._mean, d_scale, d_shift)
        d_scale *= self._inverse
        self.weight.grad[...], self.bias.grad[...] = d_scale, d_shift
        if not wants_dx:
            return dy
        # dx = scale (dy - d_shift / M - x̂ d_scale / M), written as a function of dy and x.
        b = c = np.zeros_like(d_scale)
        if self._in_training:
            if self.scope == "batch":
                d_scale, d_shift = run.batch_sums(np.stack([d_scale, d_shift]))
            b = -scale * self._inverse * d_scale / self._num_rows
            c = -scale * d_shift / self._num_rows - b * self._mean
        kernels.batch_norm_backward(d_rows, rows, scale, shift, relu, b.astype(dy.dtype), c.astype(dy.dtype))
        return dx


def _statistics_of_batch(num_rows: float, mean: Array, variance: Array, run: Pass) -> tuple[float, Array, Array]:
    """Return the number of rows, mean and variance over the whole batch, from those of this shard.

    The mean is known to all before squared distances from it are added: a sum of numbers that are not negative, of
    which none cancel. These are the distances within shards and those between their means, as Chan et al. (1979) put
    two samples together.
    """
    sums = run.batch_sums(np.append(num_rows, num_rows * mean))
    total, whole = float(sums[0]), sums[1:] / sums[0]
    squares = run.batch_sums(num_rows * (variance + (mean - whole) ** 2))
    return total, whole, squares / total


@final
@hinting(EPS)
@dataclass(eq=False)
class LayerNorm(Layer):
    """y = weight (x - mean) / √(variance + epsilon) + bias over the last axis of every sample; x: (N, ..., C).

    Ba, Kiros and Hinton (2016), equation 3.
    """

    epsilon: float = 1e-5
    weight: Param = field(init=False, repr=False)
    bias: Param = field(init=False, repr=False)
    _normed: Array = field(init=False, repr=False)
    _inverse: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, epsilon=check_positive)

    def build(self, input_shape: Shape) -> Shape:
        channels = input_shape[-1]
        if channels == 1:
            raise ValueError(
                f"LayerNorm over the single channel of samples of shape {input_shape} gives its bias, whatever they "
                "hold; expected at least 2 channels."
            )
        self.weight = Param("weight", (channels,), Constant(1.0), channels, channels)
        self.bias = Param("bias", (channels,), Constant(0.0), channels, channels)
        return input_shape

    def params(self) -> Sequence[Param]:
        return [self.weight, self.bias]

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        self._normed = run.empty(x.shape, x.dtype)
        self._inverse = run.empty(x.shape[:-1], x.dtype)
        y = run.empty(x.shape, x.dtype)
        normed, inverse = self._normed.reshape(rows.shape), self._inverse.reshape(-1)
        kernels.layer_norm(
            rows, self.weight.value, self.bias.value, self.epsilon, normed, inverse, y.reshape(rows.shape)
        )
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        dx = run.writable(dy)
        rows = dx.reshape(-1, dx.shape[-1])
        normed, inverse = self._normed.reshape(rows.shape), self._inverse.reshape(-1)
        kernels.layer_norm_backward(rows, normed, inverse, self.weight.value, self.weight.grad, self.bias.grad)
        return dx


@final
@dataclass(eq=False)
class Dropout(Layer):
    """In training each element is 0 with probability `p`, else x / (1 - p); otherwise y = x.  Any shape.

    What is dropped is fixed by seed, step and shard, to within 2⁻¹⁶ of `p`.  Srivastava et al. (2014).
    """

    p: float = 0.5
    _bits: Array = field(init=False, repr=False)
    _in_training: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self, p=check_share)

    def build(self, input_shape: Shape) -> Shape:
        return input_shape

    def params(self) -> Sequence[Param]:
        return []

    def forward(self, x: Array, run: Pass = PLAIN) -> Array:
        self._in_training = run.training
        if not run.training:
            return x
        self._bits = np.frombuffer(run.generator().bytes(2 * x.size), np.uint16)
        y = run.empty(x.shape, x.dtype)
        dropout.drop(x.reshape(-1), self._bits, self._threshold, 1 / (1 - self.p), y.reshape(-1))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        if not self._in_training:
            return dy
        dx = run.writable(dy)
        dropout.drop_backward(dx.reshape(-1), self._bits, self._threshold, 1 / (1 - self.p))
        return dx

    @property
    def _threshold(self) -> int:
        return round(self.p * 2**16)
