"""The same training steps in PyTorch and JAX, as their users write them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, final

import numpy as np

from dist_relu.core.arrays import Array

LR, MOMENTUM = 0.001, 0.9


class Peer(ABC):
    """One side of a comparison."""

    @abstractmethod
    def step(self) -> None:
        """Take one training step, and wait until it is done."""


@final
class Torch(Peer):
    """Eager PyTorch on one thread; images in the faster of its two memory formats."""

    def __init__(self, kind: str, sizes: Sequence[int], x: Array, y: Array, outputs: int) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        model = _TORCH_MODELS[kind](torch.nn, sizes, x.shape, outputs)
        self._y = torch.from_numpy(y)
        self._loss = torch.nn.CrossEntropyLoss()
        if x.ndim == 4:
            images = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
            formats = torch.contiguous_format, torch.channels_last
            tries = [self._prepared(model, images, memory_format) for memory_format in formats]
            self._take = min(tries, key=_seconds)
        else:
            self._take = self._prepared(model, torch.from_numpy(x), torch.preserve_format)

    def step(self) -> None:
        self._take()

    def _prepared(self, model: Any, x: Any, memory_format: Any) -> Callable[[], None]:
        import torch

        model = copy.deepcopy(model).to(memory_format=memory_format)
        x = x.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

        def take() -> None:
            optimizer.zero_grad()
            self._loss(model(x), self._y).backward()
            optimizer.step()

        return take


def _seconds(take: Callable[[], None]) -> float:
    times = []
    for _ in range(10):
        begin = perf_counter()
        take()
        times.append(perf_counter() - begin)
    return float(np.median(times))


def _torch_mlp(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    layers, inputs = [], shape[1]
    for units in sizes:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _torch_cnn(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    first, second, units = sizes
    _, height, width, channels = shape
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), units),
        nn.ReLU(),
        nn.Linear(units, outputs),
    )


def _torch_resnet(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *_torch_normalised(nn, inputs, channels, 3, stride),
                nn.ReLU(),
                *_torch_normalised(nn, channels, channels, 3, 1),
            )
            self.shortcut = nn.Sequential(*(_torch_normalised(nn, inputs, channels, 1, stride) if stride > 1 else []))

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    layers, inputs = [*_torch_normalised(nn, shape[3], 16, 3, 1), nn.ReLU()], 16
    for channels in (16, 32, 64):
        for _ in range((sizes[0] - 2) // 6):
            layers.append(Block(inputs, channels, 1 if channels == inputs else 2))
            inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def _torch_normalised(nn: Any, inputs: int, channels: int, kernel_size: int, stride: int) -> list[Any]:
    conv = nn.Conv2d(inputs, channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _torch_rnn(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(shape[2], sizes[0], nonlinearity="relu", batch_first=True)
            nn.init.eye_(self.rnn.weight_hh_l0)
            self.head = nn.Linear(sizes[0], outputs)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    return Recurrent()


_TORCH_MODELS = {"mlp": _torch_mlp, "cnn": _torch_cnn, "resnet": _torch_resnet, "rnn": _torch_rnn}


@final
class Jax(Peer):
    """JAX on the CPU, the whole step jitted, its buffers donated."""

    def __init__(self, kind: str, sizes: Sequence[int], x: Array, y: Array, outputs: int) -> None:
        import jax

        apply, params = _JAX_MODELS[kind](sizes, x.shape, outputs)

        def loss(params: Any, x: Any, y: Any) -> Any:
            log_probabilities = jax.nn.log_softmax(apply(params, x))
            return -jax.numpy.take_along_axis(log_probabilities, y[:, None], axis=1).mean()

        def step(params: Any, velocity: Any, x: Any, y: Any) -> Any:
            gradient = jax.grad(loss)(params, x, y)
            velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
            return jax.tree.map(lambda p, v: p - LR * v, params, velocity), velocity

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._state = jax.tree.map(jax.numpy.asarray, params), jax.tree.map(jax.numpy.zeros_like, params)
        self._x, self._y = jax.numpy.asarray(x), jax.numpy.asarray(y)

    def step(self) -> None:
        import jax

        self._state = self._step(*self._state, self._x, self._y)
        jax.block_until_ready(self._state)


def _jax_mlp(sizes: Sequence[int], shape: Sequence[int], outputs: int) -> tuple[Callable[[Any, Any], Any], Any]:
    import jax

    rng = np.random.default_rng(0)
    widths = [shape[1], *sizes, outputs]
    params = [(_he(rng, a, b), np.zeros(b, np.float32)) for a, b in pairwise(widths)]

    def apply(params: Any, x: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return apply, params


def _jax_cnn(sizes: Sequence[int], shape: Sequence[int], outputs: int) -> tuple[Callable[[Any, Any], Any], Any]:
    import jax

    rng = np.random.default_rng(0)
    first, second, units = sizes
    _, height, width, channels = shape
    flat = second * (height // 4) * (width // 4)
    shapes = (3, 3, channels, first), (3, 3, first, second), (flat, units), (units, outputs)
    params = [(_he(rng, *shape), np.zeros(shape[-1], np.float32)) for shape in shapes]

    def apply(params: Any, x: Any) -> Any:
        for weight, bias in params[:2]:
            x = jax.nn.relu(_jax_convolve(x, weight) + bias)
            x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jax.nn.relu(x.reshape(len(x), -1) @ params[2][0] + params[2][1])
        return x @ params[3][0] + params[3][1]

    return apply, params


def _jax_resnet(sizes: Sequence[int], shape: Sequence[int], outputs: int) -> tuple[Callable[[Any, Any], Any], Any]:
    import jax

    rng = np.random.default_rng(0)

    def normalised(inputs: int, channels: int, size: int) -> Any:
        return _he(rng, size, size, inputs, channels), np.ones(channels, np.float32), np.zeros(channels, np.float32)

    blocks, strides, inputs = [], [], 16
    for channels in (16, 32, 64):
        for _ in range((sizes[0] - 2) // 6):
            strides.append(1 if channels == inputs else 2)
            shortcut = [normalised(inputs, channels, 1)] if strides[-1] == 2 else []
            blocks.append(([normalised(inputs, channels, 3), normalised(channels, channels, 3)], shortcut))
            inputs = channels
    params = (normalised(shape[3], 16, 3), blocks, (_he(rng, inputs, outputs), np.zeros(outputs, np.float32)))

    def normalise(x: Any, layer: Any, stride: int) -> Any:
        x = _jax_convolve(x, layer[0], stride)
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * layer[1] + layer[2]

    def apply(params: Any, x: Any) -> Any:
        stem, blocks, (weight, bias) = params
        x = jax.nn.relu(normalise(x, stem, 1))
        for (body, shortcut), stride in zip(blocks, strides, strict=True):
            y = normalise(jax.nn.relu(normalise(x, body[0], stride)), body[1], 1)
            x = jax.nn.relu(y + (normalise(x, shortcut[0], stride) if shortcut else x))
        return x.mean(axis=(1, 2)) @ weight + bias

    return apply, params


def _jax_rnn(sizes: Sequence[int], shape: Sequence[int], outputs: int) -> tuple[Callable[[Any, Any], Any], Any]:
    import jax

    rng = np.random.default_rng(0)
    (units,) = sizes
    zeros = np.zeros(units, np.float32)
    recurrence = (_he(rng, shape[2], units), np.eye(units, dtype=np.float32), zeros)
    params = (recurrence, (_he(rng, units, outputs), np.zeros(outputs, np.float32)))

    def apply(params: Any, x: Any) -> Any:
        (weight, recurrent, bias), (head, head_bias) = params
        inputs = (x @ weight + bias).transpose(1, 0, 2)

        def step(state: Any, z: Any) -> Any:
            return jax.nn.relu(z + state @ recurrent), None

        last, _ = jax.lax.scan(step, jax.numpy.zeros((len(x), units)), inputs)
        return last @ head + head_bias

    return apply, params


def _jax_convolve(x: Any, weight: Any, stride: int = 1) -> Any:
    import jax

    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), "SAME", dimension_numbers=layout)


def _he(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) * (2 / np.prod(shape[:-1])) ** 0.5).astype(np.float32)


_JAX_MODELS = {"mlp": _jax_mlp, "cnn": _jax_cnn, "resnet": _jax_resnet, "rnn": _jax_rnn}

PEERS: dict[str, Callable[[str, Sequence[int], Array, Array, int], Peer]] = {"torch": Torch, "jax": Jax}
