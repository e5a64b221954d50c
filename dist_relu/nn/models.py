"""Models by name.  They take samples as data sets hold them: images as flat rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from dist_relu.core.checks import (
    check_choice,
    check_float,
    check_floats,
    check_int,
    check_ints,
    check_not_negative,
    check_shape,
    shown,
)
from dist_relu.nn.initializers import HeNormal, Orthogonal
from dist_relu.nn.layer import Layer, Shape
from dist_relu.nn.layers.activations import ReLU
from dist_relu.nn.layers.convolution import Conv2d
from dist_relu.nn.layers.dense import Dense
from dist_relu.nn.layers.normalization import BatchNorm
from dist_relu.nn.layers.parallel import Parallel
from dist_relu.nn.layers.policy_heads import Categorical, PolicyHead, TanhGaussian
from dist_relu.nn.layers.pooling import GlobalAvgPool2d, MaxPool2d
from dist_relu.nn.layers.recurrent import RNN
from dist_relu.nn.layers.reshaping import Flatten, Reshape
from dist_relu.nn.layers.residual import Residual
from dist_relu.nn.sequential import Sequential


def mlp(hidden: Sequence[int], outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """Dense layers with ReLU between them: `hidden` units each, then `outputs` without ReLU."""
    layers: list[Layer] = []
    for units in check_ints("hidden", hidden):
        layers += [Dense(units), ReLU()]
    return Sequential(*layers, Dense(check_int("outputs", outputs)), dtype=dtype)


def actor(hidden: Sequence[int], outputs: int, gain: float = 0.01, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """An `mlp` that begins nearly indifferent between its outputs: orthogonal weights, the last ones a hundredth.

    gain: of the last weights.  Andrychowicz et al. (2021), section 3.2.
    """
    layers: list[Layer] = []
    for units in check_ints("hidden", hidden):
        layers += [Dense(units, init=Orthogonal(2**0.5)), ReLU()]
    gain = check_not_negative("gain", gain)
    return Sequential(*layers, Dense(check_int("outputs", outputs), init=Orthogonal(gain)), dtype=dtype)


def policy(
    state_dim: int,
    action_dim: int,
    hidden: Sequence[int] = (64, 64),
    head: Literal["softmax", "tanh-gaussian"] = "softmax",
    *,
    low: float | Sequence[float] = -1.0,
    high: float | Sequence[float] = 1.0,
    dtype: npt.DTypeLike = np.float32,
) -> Sequential:
    """A policy network and, beside it, a value network, each with layers of `hidden` units and ReLU.

    From states (N, state_dim) to what fixes the distribution of actions, and last the value: with the head "softmax"
    the logarithms of the probabilities of action_dim actions, (N, action_dim + 1); with "tanh-gaussian" means and
    logarithms of standard deviations, (N, 2·action_dim + 1), of actions with action_dim numbers.

    low, high: of those numbers, one for all or one for each.
    """
    state_dim, action_dim = check_int("state_dim", state_dim), check_int("action_dim", action_dim)
    last: PolicyHead
    if check_choice("head", head, ("softmax", "tanh-gaussian")) == "softmax":
        last = Categorical(action_dim)
    else:
        last = TanhGaussian(_bounds("low", low, action_dim), _bounds("high", high, action_dim))
    branches = actor(hidden, last.inputs - 1).layers, actor(hidden, 1, gain=1.0).layers
    return Sequential(Parallel(branches), last, dtype=dtype).build((state_dim,))


def cnn(image_shape: Shape, outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """A small network for images of `image_shape` (H, W, C) in flat rows: two convolutions with pooling, two dense."""
    return Sequential(
        Reshape(_image_shape(image_shape)),
        Conv2d(32, 3),
        ReLU(),
        MaxPool2d(2),
        Conv2d(64, 3),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(128),
        ReLU(),
        Dense(check_int("outputs", outputs)),
        dtype=dtype,
    )


def resnet(depth: int, image_shape: Shape, outputs: int, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """The residual network for small images, of `depth` 6n + 2 layers; image_shape: (H, W, C), in flat rows.

    He et al. (2016), section 4.2, with projections where a shortcut changes shape.
    """
    depth, outputs = check_int("depth", depth), check_int("outputs", outputs)
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth={depth}: a residual network has 6n + 2 layers: 8, 14, 20, ..., not {depth}.")
    layers: list[Layer] = [Reshape(_image_shape(image_shape)), *_normalised(16, 3), ReLU()]
    channels = 16
    for stage_channels in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            stride = 1 if stage_channels == channels else 2
            body = [*_normalised(stage_channels, 3, stride), ReLU(), *_normalised(stage_channels, 3)]
            layers += [Residual(body, [] if stride == 1 else _normalised(stage_channels, 1, stride)), ReLU()]
            channels = stage_channels
    return Sequential(*layers, GlobalAvgPool2d(), Dense(outputs, init=HeNormal(gain=1.0)), dtype=dtype)


def rnn(units: int, outputs: int, rows: Shape | None = None, dtype: npt.DTypeLike = np.float32) -> Sequential:
    """A ReLU recurrence that begins as the identity, and a dense layer on its last state.

    rows: (steps, inputs) of a sequence, when samples are flat rows.  Le, Jaitly and Hinton (2015).
    """
    shape: list[Layer] = [] if rows is None else [Reshape(check_shape("rows", rows, ("steps", "inputs")))]
    return Sequential(*shape, RNN(check_int("units", units)), Dense(check_int("outputs", outputs)), dtype=dtype)


def _image_shape(shape: Shape) -> Shape:
    return check_shape("image_shape", shape, ("height", "width", "channels"))


def _bounds(name: str, value: float | Sequence[float], size: int) -> tuple[float, ...]:
    """One for each of so many numbers, from one for all or one for each."""
    if np.ndim(value) == 0:
        return (check_float(name, value),) * size
    values = check_floats(name, value)
    if len(values) != size:
        raise ValueError(f"{shown(name, value)}: expected one number, or {size}.")
    return values


def _normalised(channels: int, kernel_size: int, stride: int = 1) -> list[Layer]:
    return [Conv2d(channels, kernel_size, stride=stride, bias=False), BatchNorm()]
