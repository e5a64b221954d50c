"""What layers do, in plain NumPy: exported modules have copies of those functions that they need.

Nothing in here may need more than NumPy, Python's own math, and other functions of this module. It is not what models
compute with here: NumPy's products and its exponential have other last digits on other processors.

N batch, H W height and width, C channels; channels are the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dist_relu.core.arrays import Array


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def leaky_relu(x: Array, negative_slope: float) -> Array:
    return np.where(x > 0, x, negative_slope * x)


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


def threshold(x: Array, least: float, value: float) -> Array:
    return np.where(x <= least, value, x).astype(x.dtype)


def squared_relu(x: Array) -> Array:
    return np.maximum(x, 0) ** 2


def elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def selu(x: Array) -> Array:
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def celu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def gelu(x: Array) -> Array:
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return np.maximum(x, -1000) * (np.asarray(erfc(x * -math.sqrt(0.5)), x.dtype) / 2)


def gelu_tanh(x: Array) -> Array:
    return np.maximum(x, -1000) * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def silu(x: Array) -> Array:
    return np.maximum(x, -1000) * sigmoid(x)


def mish(x: Array) -> Array:
    return np.maximum(x, -1000) * np.tanh(np.logaddexp(0, x))


def softplus(x: Array, beta: float, largest: float) -> Array:
    z = beta * x
    return np.where(z > largest, x, np.logaddexp(0, z) / beta)


def hardswish(x: Array) -> Array:
    return np.asarray(np.maximum(x, -3) * (np.clip(x + 3, 0, 6) / 6))


def hardsigmoid(x: Array) -> Array:
    return np.asarray(np.clip(x + 3, 0, 6) / 6)


def hardtanh(x: Array, least: float, most: float) -> Array:
    return np.clip(x, least, most)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def tanh(x: Array) -> Array:
    return np.tanh(x)


def crelu(x: Array) -> Array:
    return np.concatenate([relu(x), relu(-x)], axis=-1)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    z = x - x.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def glu(x: Array) -> Array:
    a, b = np.split(x, 2, axis=-1)
    return a * sigmoid(b)


def reglu(x: Array) -> Array:
    a, b = np.split(x, 2, axis=-1)
    return a * relu(b)


def swiglu(x: Array) -> Array:
    a, b = np.split(x, 2, axis=-1)
    return a * silu(b)


def dense(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = x @ weight
    return y if bias is None else y + bias


def convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    shape: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    margin: tuple[int, int],
    groups: int,
) -> Array:
    """x: (N, H, W, C), weight: (kh, kw, C / groups, K).  shape: of outputs.  margin: zeros above and to the left."""
    parts = windows(x, weight.shape[:2], shape, stride, dilation, margin, 0)
    filters = weight.reshape(len(parts), -1, groups, weight.shape[3] // groups)
    y = np.asarray(0, x.dtype)
    for part, each in zip(parts, filters, strict=True):
        cut = part.reshape(*part.shape[:3], groups, -1)
        y = y + (part @ each[:, 0] if groups == 1 else np.einsum("nijgc,cgk->nijgk", cut, each))
    y = y.reshape(len(x), *shape, weight.shape[3])
    return y if bias is None else y + bias


def windows(
    x: Array,
    size: tuple[int, ...],
    shape: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    margin: tuple[int, int],
    value: float,
) -> list[Array]:
    """For each place in a window, what all windows have there: (N, *shape, C).  value: around the images."""
    behind = [
        max((n - 1) * s + d * (k - 1) + 1 - m - length, 0)
        for n, s, d, k, m, length in zip(shape, stride, dilation, size, margin, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, [(0, 0), *zip(margin, behind, strict=True), (0, 0)], constant_values=value)
    parts = []
    for i in range(size[0]):
        for j in range(size[1]):
            rows = x[:, i * dilation[0] :: stride[0]][:, : shape[0]]
            parts.append(rows[:, :, j * dilation[1] :: stride[1]][:, :, : shape[1]])
    return parts


def max_pool(
    x: Array, size: tuple[int, int], shape: tuple[int, int], stride: tuple[int, int], margin: tuple[int, int]
) -> Array:
    return np.asarray(np.max(windows(x, size, shape, stride, (1, 1), margin, -np.inf), axis=0))


def average_pool(
    x: Array, size: tuple[int, int], shape: tuple[int, int], stride: tuple[int, int], margin: tuple[int, int]
) -> Array:
    return np.asarray(np.mean(windows(x, size, shape, stride, (1, 1), margin, 0), axis=0))


def global_average(x: Array) -> Array:
    return np.asarray(x.mean(axis=(1, 2)))


def batch_norm(x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    return np.asarray((x - mean) * (weight / np.sqrt(variance + epsilon)) + bias)


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    z = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(z / np.sqrt((z * z).mean(axis=-1, keepdims=True) + epsilon) * weight + bias)


def standardize(x: Array, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Array:
    rows = x.reshape(-1, len(mean))
    return np.asarray(((rows - np.array(mean, x.dtype)) / np.array(deviation, x.dtype)).reshape(x.shape))


def embedding(x: Array, weight: Array) -> Array:
    return np.asarray(weight[x.astype(np.int64)])


def recurrence(
    x: Array,
    weight: Array,
    recurrent: Array,
    bias: Array,
    activation: Callable[[Array], Array],
    sequences: bool,
) -> Array:
    """x: (N, T, C).  The last state (N, K), or all of them (N, T, K)."""
    states = [np.zeros((len(x), len(recurrent)), x.dtype)]
    for step in range(x.shape[1]):
        states.append(activation(x[:, step] @ weight + states[-1] @ recurrent + bias))
    return np.stack(states[1:], axis=1) if sequences else states[-1]


def reshape(x: Array, *shape: int) -> Array:
    return x.reshape(len(x), *shape)


def from_nchw(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1)


def categorical(x: Array) -> Array:
    return np.concatenate([log_softmax(x[:, :-1]), x[:, -1:]], axis=1)


def tanh_gaussian(x: Array, width: int) -> Array:
    return np.concatenate([x[:, :width], np.clip(x[:, width:-1], -20, 2), x[:, -1:]], axis=1)
