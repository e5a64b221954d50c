"""Normalisation and dropout.  N batch, C channels (the last axis), M = all other axes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Literal, final

import numpy as np

from dist_relu.core.arrays import Array, as_rows
from dist_relu.core.checks import check_fields, check_float, check_positive, check_share, one_of
from dist_relu.core.hints import EPS, hinting
from dist_relu.kernels import dropout
from dist_relu.kernels import normalization as kernels
from dist_relu.kernels.copies import copy, fill
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
    _rows: Array = field(init=False, repr=False)  # x as (M, C)
    _num_seen: int = field(init=False, repr=False)
    _numbers: _Numbers | None = field(init=False, repr=False, default=None)
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
        self.begin(x, run)
        self.look_at(len(x))
        self.end(run)
        y = run.empty(x.shape, x.dtype)
        self.scale(relu, y)
        return y

    def begin(self, x: Array, run: Pass) -> None:
        """Begin the forward pass over x (N, ..., C), whose samples may not be there yet."""
        self._x, self._rows, self._in_training, self._num_seen = x, as_rows(x), run.training, 0
        if self._numbers is None or self._numbers.scale.dtype != x.dtype:
            self._numbers = _Numbers(x.shape[-1], x.dtype)

    def look_at(self, stop: int) -> None:
        """Take the samples before `stop` into account, which are there now."""
        if self._in_training:
            stop *= self.elements_per_sample
            if stop < len(self._rows):
                stop -= stop % kernels.ROWS_PER_SUM
            kernels.channel_statistics(self._rows, self._num_seen, stop, self._kept.mean, self._kept.variance)
            self._num_seen = stop

    def end(self, run: Pass) -> None:
        """Fix mean and variance: all samples have been looked at."""
        kept = self._kept
        if self._in_training:
            fill(kept.num_rows, float(len(self._rows)))
            if self.scope == "batch":
                kept.join_batch(run)
            run.statistic(self.running_mean, kept.mean)
            estimate = run.scratch("estimated variance", kept.variance.shape, np.float64)
            kernels.unbiased(kept.variance, kept.num_rows, estimate)
            run.statistic(self.running_variance, estimate)
        else:
            copy(self.running_mean.value, kept.mean)
            copy(self.running_variance.value, kept.variance)
        kernels.batch_norm_factors(
            kept.mean,
            kept.variance,
            self.epsilon,
            self.weight.value,
            self.bias.value,
            kept.inverse,
            kept.centre,
            kept.scale,
            kept.shift,
        )

    def scale(self, relu: bool, y: Array) -> None:
        """y = what `begin` was given, normalised, with ReLU behind it if `relu`."""
        kernels.scale_and_shift(self._rows, self._kept.scale, self._kept.shift, relu, as_rows(y))

    def scale_and_add(self, side: Array, relu: bool, y: Array) -> None:
        """y = what `begin` was given, normalised, + side, with ReLU behind the sum if `relu`."""
        scale, shift = self._kept.scale, self._kept.shift
        kernels.scale_and_add(self._rows, scale, shift, as_rows(side), relu, as_rows(y))

    def normalise_backward(self, dy: Array, run: Pass, *, relu: bool, wants_dx: bool) -> Array:
        """The backward pass of `normalise`."""
        self.begin_backward(dy, run, relu=relu)
        if not wants_dx:
            return dy
        dx = run.empty(dy.shape, dy.dtype)
        self.scale_backward(slice(len(dy)), dy, relu, dx)
        return dx

    def begin_backward(self, dy: Array, run: Pass, *, relu: bool) -> None:
        """Leave the gradients of the parameters, and find out what `scale_backward` needs."""
        kept = self._kept
        kernels.batch_norm_sums(
            as_rows(dy), self._rows, kept.scale, kept.shift, relu, kept.centre, kept.sums[0], kept.sums[1]
        )
        kernels.batch_norm_gradients(kept.inverse, kept.sums[0], kept.sums[1], self.weight.grad, self.bias.grad)
        if not self._in_training:
            fill(kept.b, 0.0)
            fill(kept.c, 0.0)
            return
        d_scale, d_shift = run.batch_sums(kept.sums) if self.scope == "batch" else kept.sums
        kernels.batch_norm_coefficients(
            d_scale, d_shift, kept.num_rows, kept.scale, kept.inverse, kept.centre, kept.b, kept.c
        )

    def scale_backward(self, piece: slice, dy: Array, relu: bool, dx: Array) -> None:
        """dx = the gradient of some samples, from dy, that of their outputs, which stays as it is."""
        kept = self._kept
        kernels.batch_norm_backward(
            as_rows(dy), as_rows(self._x[piece]), kept.scale, kept.shift, relu, kept.b, kept.c, as_rows(dx)
        )

    @property
    def _kept(self) -> _Numbers:
        assert self._numbers is not None
        return self._numbers


@final
class _Numbers:
    """What a pass of `BatchNorm` keeps of every channel for its way back."""

    def __init__(self, channels: int, dtype: np.dtype[Any]) -> None:
        self.num_rows = np.empty(1)  # that mean and variance are of
        self.mean, self.variance, self.inverse = np.empty((3, channels))  # inverse: 1 / √(variance + epsilon)
        self.sums = np.empty((2, channels))  # d_scale and d_shift of `batch_norm_sums`
        self.centre, self.scale, self.shift, self.b, self.c = np.empty((5, channels), dtype)

    def join_batch(self, run: Pass) -> None:
        """Let number of rows, mean and variance of this shard become those of the whole batch.

        The mean is known to all before squared distances from it are added: a sum of numbers that are not negative, of
        which none cancel. These are the distances within shards and those between their means, as Chan et al. (1979)
        put two samples together.
        """
        channels = len(self.mean)
        sums = run.scratch("sums of rows", (1 + channels,), np.float64)
        kernels.sums_of_rows(self.mean, self.num_rows, sums)
        sums = run.batch_sums(sums)
        squares = run.scratch("squared distances", (channels,), np.float64)
        kernels.squares_from_means(self.mean, self.variance, self.num_rows, sums, squares)
        kernels.variances_from_squares(run.batch_sums(squares), sums, self.num_rows, self.variance)


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
        self._bits = run.empty(x.shape, np.uint16)
        run.random_bits(self._bits)
        y = run.empty(x.shape, x.dtype)
        dropout.drop(x.reshape(-1), self._bits.reshape(-1), self._threshold, 1 / (1 - self.p), y.reshape(-1))
        return y

    def backward(self, dy: Array, run: Pass = PLAIN, *, wants_dx: bool = True) -> Array:
        if not self._in_training:
            return dy
        dx = run.writable(dy)
        dropout.drop_backward(dx.reshape(-1), self._bits.reshape(-1), self._threshold, 1 / (1 - self.p))
        return dx

    @property
    def _threshold(self) -> int:
        return round(self.p * 2**16)
