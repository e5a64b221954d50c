"""JAX's side of comparisons: the whole step jitted, its buffers donated, on all cores that the process may use.

Parameters are a list, in the order of ours.  A model returns its outputs, and what running statistics are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import numpy as np

from dist_relu.bench.cases import LR, MOMENTUM, Beginning, Case
from dist_relu.bench.sides import UNKNOWN, Side


@final
class Jax(Side):
    """Training in this process; steps follow one another as fast as JAX takes them."""

    def __init__(self) -> None:
        self._step: Any
        self._state: Any

    def instruction_set(self) -> str:
        return UNKNOWN

    def prepare(self, case: Case, beginning: Beginning) -> None:
        import jax

        x, y = case.samples()
        size = case.batch_size
        self._batches = [jax.device_put((x[i : i + size], y[i : i + size])) for i in range(0, len(x), size)]
        self._number = 0
        apply = partial(_MODELS[case.kind], case)

        def loss(params: Any, x: Any, y: Any) -> Any:
            outputs, statistics = apply(params, x)
            log_probabilities = jax.nn.log_softmax(outputs)
            return -jax.numpy.take_along_axis(log_probabilities, y[:, None], axis=1).mean(), statistics

        def step(params: Any, velocity: Any, running: Any, x: Any, y: Any) -> Any:
            (value, statistics), gradient = jax.value_and_grad(loss, has_aux=True)(params, x, y)
            velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
            params = jax.tree.map(lambda p, v: p - LR * v, params, velocity)
            return (params, velocity, jax.tree.map(lambda r, s: 0.9 * r + 0.1 * s, running, statistics)), value

        params = jax.tree.map(jax.numpy.array, beginning.parameters())
        _, statistics = jax.eval_shape(apply, params, self._batches[0][0])
        zeros = partial(jax.tree.map, lambda a: jax.numpy.zeros(a.shape, a.dtype))
        self._state = params, zeros(params), zeros(statistics)
        self._step = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*self._state, *self._batches[0]).compile()

    def train(self, num_steps: int) -> float:
        import jax

        for _ in range(num_steps):
            self._state, loss = self._step(*self._state, *self._batches[self._number])
            self._number = (self._number + 1) % len(self._batches)
        jax.block_until_ready(self._state)
        return float(loss)


@contextmanager
def with_jit(number: int) -> Iterator[Jax]:
    """Start JAX's side."""
    yield Jax()


def _mlp(case: Case, params: Sequence[Any], x: Any) -> Any:
    import jax

    for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = jax.nn.relu(x @ weight + bias)
    return x @ params[-2] + params[-1], []


def _cnn(case: Case, params: Sequence[Any], x: Any) -> Any:
    import jax

    for weight, bias in (params[:2], params[2:4]):
        x = jax.nn.relu(_convolved(x, weight) + bias)
        x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _mlp(case, params[4:], x.reshape(len(x), -1))


def _strided(case: Case, params: Sequence[Any], x: Any) -> Any:
    import jax

    for weight, bias in zip(params[:-2:2], params[1:-2:2], strict=True):
        x = jax.nn.relu(_convolved(x, weight, 2, [(2, 2), (2, 2)]) + bias)
    return x.reshape(len(x), -1) @ params[-2] + params[-1], []


def _resnet(case: Case, params: Sequence[Any], x: Any) -> Any:
    import jax

    left, statistics = iter(params), []

    def normalised(x: Any, stride: int = 1) -> Any:
        x = _convolved(x, next(left), stride)
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        statistics.extend([mean, variance])
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * next(left) + next(left)

    x = jax.nn.relu(normalised(x))
    for channels in (16, 32, 64):
        for _ in range((case.sizes[0] - 2) // 6):
            stride = 1 if x.shape[-1] == channels else 2
            y = normalised(jax.nn.relu(normalised(x, stride)))
            x = jax.nn.relu(y + (x if stride == 1 else normalised(x, stride)))
    return x.mean(axis=(1, 2)) @ next(left) + next(left), statistics


def _rnn(case: Case, params: Sequence[Any], x: Any) -> Any:
    import jax

    weight, recurrent, bias, head, head_bias = params
    inputs = (x @ weight + bias).transpose(1, 0, 2)

    def step(state: Any, z: Any) -> Any:
        return jax.nn.relu(z + state @ recurrent), None

    last, _ = jax.lax.scan(step, jax.numpy.zeros((len(x), case.sizes[0])), inputs)
    return last @ head + head_bias, []


def _convolved(x: Any, weight: Any, stride: int = 1, padding: Any = "SAME") -> Any:
    import jax

    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), padding, dimension_numbers=layout)


_MODELS: dict[str, Callable[[Case, Sequence[Any], Any], Any]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "strided": _strided,
    "resnet": _resnet,
    "rnn": _rnn,
}
