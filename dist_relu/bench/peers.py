"""The same training steps in PyTorch and JAX, as their users write them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any, final

import numpy as np

from dist_relu.arrays import Array

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


_TORCH_MODELS = {"mlp": _torch_mlp}


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
    params = [
        ((rng.standard_normal((a, b)) * (2 / a) ** 0.5).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(widths)
    ]

    def apply(params: Any, x: Any) -> Any:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return apply, params


_JAX_MODELS = {"mlp": _jax_mlp}

PEERS: dict[str, Callable[[str, Sequence[int], Array, Array, int], Peer]] = {"torch": Torch, "jax": Jax}
