"""Every activation forward and backward on 16 MB, beside PyTorch and beside the machine's copy bandwidth.

By turns in one run, one thread each. Both sides write into arrays that exist already, backward over the gradient that
came in, so that nobody pays for fresh pages. Where PyTorch has no such variant (`fresh`) it allocates, as it would in a
user's program; what it has no function for is written with those that it has, and its backward is autograd's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels import activations as table
from dist_relu.kernels import row_activations as rows
from dist_relu.kernels.elementwise import Activation

ROWS, COLUMNS = 4096, 1024
"""Of x: 16 MB of float32."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Medians.  copy_share: bytes read and written in a second, in relation to np.copyto of 16 MB."""

    activation: str
    direction: str
    ours_ms: float
    copy_share: float
    torch_ms: float | None
    fresh: bool


@dataclass(frozen=True)
class _Arrays:
    """x, dx: (ROWS, COLUMNS); y, dy: the same, or half or twice as wide."""

    x: Any
    y: Any
    dx: Any
    dy: Any


@dataclass(frozen=True)
class _Case:
    """How to compute an activation.

    width: columns of y for one of x.  fresh: (forward, backward) allocates.
    """

    forward: Callable[[_Arrays], object]
    backward: Callable[[_Arrays], object]
    width: float = 1
    fresh: tuple[bool, bool] = (False, False)

    def num_elements(self, direction: str) -> float:
        """Elements read or written for one of x: x to y; or x and dy to dx."""
        return 1 + self.width if direction == "forward" else 2 + self.width


def run(peer: str | None, rounds: int) -> Iterator[list[Timing]]:
    """Time all activations; yields all that was measured after each.

    peer: "torch", which must be installed, or None.
    """
    peers, wrap = _torch() if peer == "torch" else ({}, None)
    rng = np.random.default_rng(0)
    timings: list[Timing] = []
    for name, case in _OURS.items():
        arrays = _arrays(rng, case.width)
        case.forward(arrays)
        other = peers.get(name)
        others = _Arrays(*(wrap(array) for array in vars(arrays).values())) if wrap else None
        for direction in ("forward", "backward"):
            calls: dict[str, Call] = {
                "copy": partial(np.copyto, arrays.dx, arrays.x),
                "ours": partial(getattr(case, direction), arrays),
            }
            if other:
                calls["torch"] = partial(getattr(other, direction), others)
            ms = _by_turns(calls, partial(arrays.dy.fill, 1), rounds)
            share = case.num_elements(direction) / 2 * ms["copy"] / ms["ours"]
            fresh = bool(other and other.fresh[direction == "backward"])
            timings.append(Timing(name, direction, ms["ours"], share, ms.get("torch"), fresh))
        yield [*timings]


def _arrays(rng: np.random.Generator, width: float) -> _Arrays:
    x, dx = (aligned_empty((ROWS, COLUMNS), np.float32) for _ in range(2))
    y, dy = (aligned_empty((ROWS, int(COLUMNS * width)), np.float32) for _ in range(2))
    x[...] = rng.standard_normal(x.shape, np.float32)
    for array in (dx, y, dy):
        array.fill(0)
    return _Arrays(x, y, dx, dy)


def _by_turns(calls: Mapping[str, Call], prepare: Call, rounds: int) -> dict[str, float]:
    """Median milliseconds of each call; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            prepare()
            begin = perf_counter()
            call()
            times[name].append((perf_counter() - begin) * 1e3)
    return {name: float(np.median(each[1:])) for name, each in times.items()}


def _flat(array: Array) -> Array:
    return array.reshape(-1)


def _elementwise(activation: Activation, *arguments: float) -> _Case:
    numbers = activation.in_dtype(np.dtype(np.float32), arguments)

    def backward(a: _Arrays) -> None:
        activation.backward(_flat(a.dy), _flat(a.y if activation.keeps_output else a.x), *numbers)

    return _Case(lambda a: activation.forward(_flat(a.x), _flat(a.y), *numbers), backward)


def _gate(activation: Activation) -> _Case:
    return _Case(
        lambda a: activation.gate(a.x, a.y),
        lambda a: activation.gate_backward(a.dy, a.x, a.dx),
        width=0.5,
    )


def _prelu() -> _Case:
    weights = np.full(1, 0.25, np.float32)
    d_weights = np.empty_like(weights)
    return _Case(
        lambda a: rows.prelu(_flat(a.x), weights, _flat(a.y)),
        lambda a: rows.prelu_backward(_flat(a.dy), _flat(a.x), weights, d_weights),
    )


def _rrelu() -> _Case:
    lower, width = np.array([1 / 8, 1 / 3 - 1 / 8], np.float32)
    rng, factors = np.random.default_rng(0), np.empty((ROWS, COLUMNS), np.float32)

    def forward(a: _Arrays) -> None:
        rng.random(dtype=np.float32, out=factors)
        rows.rrelu(_flat(a.x), _flat(factors), _flat(a.y), lower, width)

    return _Case(forward, lambda a: rows.rrelu_backward(_flat(a.dy), _flat(factors)))


_OURS = {
    "relu": _elementwise(table.relu),
    "leaky_relu": _elementwise(table.leaky_relu, 0.01),
    "prelu": _prelu(),
    "rrelu": _rrelu(),
    "relu6": _elementwise(table.relu6),
    "threshold": _elementwise(table.threshold, 0.5, 0.0),
    "crelu": _Case(lambda a: rows.crelu(a.x, a.y), lambda a: rows.crelu_backward(a.dy, a.x, a.dx), width=2),
    "squared_relu": _elementwise(table.squared_relu),
    "elu": _elementwise(table.elu, 1.0),
    "selu": _elementwise(table.selu),
    "celu": _elementwise(table.celu, 1.0),
    "gelu": _elementwise(table.gelu),
    "gelu_tanh": _elementwise(table.gelu_tanh),
    "silu": _elementwise(table.silu),
    "mish": _elementwise(table.mish),
    "softplus": _elementwise(table.softplus, 1.0, 20.0),
    "hardswish": _elementwise(table.hardswish),
    "hardsigmoid": _elementwise(table.hardsigmoid),
    "hardtanh": _elementwise(table.hardtanh, -1.0, 1.0),
    "sigmoid": _elementwise(table.sigmoid),
    "tanh": _elementwise(table.tanh),
    "softmax": _Case(lambda a: rows.softmax(a.x, a.y), lambda a: rows.softmax_backward(a.dy, a.y)),
    "log_softmax": _Case(lambda a: rows.log_softmax(a.x, a.y), lambda a: rows.log_softmax_backward(a.dy, a.y)),
    "glu": _gate(table.sigmoid),
    "reglu": _gate(table.relu),
    "swiglu": _gate(table.silu),
}


def _torch() -> tuple[dict[str, _Case], Callable[[Array], Any]]:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    ops = torch.ops.aten
    weight = torch.full((1,), 0.25)
    noise = torch.empty(ROWS, COLUMNS)
    scale, alpha = 1.0507009873554805, 1.6732632423543772

    def written(function: Callable[[Any], Any], width: float) -> _Case:
        """What PyTorch has no function for; its graph is made once."""
        graph: list[Any] = []

        def backward(a: _Arrays) -> Any:
            if not graph:
                x = a.x.clone().requires_grad_()
                graph[:] = [function(x), x]
            return torch.autograd.grad(*graph, a.dy, retain_graph=True)

        return _Case(lambda a: function(a.x), backward, width, fresh=(True, True))

    def halves(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: x[:, : COLUMNS // 2] * function(x[:, COLUMNS // 2 :])

    def elu(*arguments: float) -> _Case:
        return _Case(
            lambda a: ops.elu.out(a.x, *arguments, out=a.y),
            lambda a: ops.elu_backward.grad_input(a.dy, *arguments, False, a.x, grad_input=a.dy),
        )

    def clipped(*bounds: float) -> _Case:
        return _Case(
            lambda a: ops.hardtanh.out(a.x, *bounds, out=a.y),
            lambda a: ops.hardtanh_backward.grad_input(a.dy, a.x, *bounds, grad_input=a.dy),
        )

    def gelu(approximate: str) -> _Case:
        return _Case(
            lambda a: ops.gelu.out(a.x, approximate=approximate, out=a.y),
            lambda a: ops.gelu_backward.grad_input(a.dy, a.x, approximate=approximate, grad_input=a.dy),
        )

    cases = {
        "relu": _Case(
            lambda a: ops.relu.out(a.x, out=a.y),
            lambda a: ops.threshold_backward.grad_input(a.dy, a.y, 0, grad_input=a.dy),
        ),
        "leaky_relu": _Case(
            lambda a: ops.leaky_relu.out(a.x, 0.01, out=a.y),
            lambda a: ops.leaky_relu_backward.grad_input(a.dy, a.x, 0.01, False, grad_input=a.dy),
        ),
        "prelu": _Case(
            lambda a: functional.prelu(a.x, weight),
            lambda a: ops._prelu_kernel_backward(a.dy, a.x, weight.view(1, 1))[1].sum(),
            fresh=(True, True),
        ),
        "rrelu": _Case(
            lambda a: ops.rrelu_with_noise.out(a.x, noise, 1 / 8, 1 / 3, True, out=a.y),
            lambda a: ops.rrelu_with_noise_backward(a.dy, a.x, noise, 1 / 8, 1 / 3, True, False),
            fresh=(False, True),
        ),
        "relu6": clipped(0, 6),
        "threshold": _Case(
            lambda a: ops.threshold.out(a.x, 0.5, 0.0, out=a.y),
            lambda a: ops.threshold_backward.grad_input(a.dy, a.x, 0.5, grad_input=a.dy),
        ),
        "crelu": written(lambda x: torch.cat([functional.relu(x), functional.relu(-x)], 1), 2),
        "squared_relu": written(lambda x: functional.relu(x).square(), 1),
        "elu": elu(1, 1, 1),
        "selu": elu(alpha, scale, 1),
        "celu": elu(1, 1, 1),
        "gelu": gelu("none"),
        "gelu_tanh": gelu("tanh"),
        "silu": _Case(
            lambda a: ops.silu.out(a.x, out=a.y),
            lambda a: ops.silu_backward.grad_input(a.dy, a.x, grad_input=a.dy),
        ),
        "mish": _Case(
            lambda a: ops.mish.out(a.x, out=a.y), lambda a: ops.mish_backward(a.dy, a.x), fresh=(False, True)
        ),
        "softplus": _Case(
            lambda a: ops.softplus.out(a.x, 1, 20, out=a.y),
            lambda a: ops.softplus_backward.grad_input(a.dy, a.x, 1, 20, grad_input=a.dy),
        ),
        "hardswish": _Case(
            lambda a: ops.hardswish.out(a.x, out=a.y),
            lambda a: ops.hardswish_backward(a.dy, a.x),
            fresh=(False, True),
        ),
        "hardsigmoid": _Case(
            lambda a: ops.hardsigmoid.out(a.x, out=a.y),
            lambda a: ops.hardsigmoid_backward.grad_input(a.dy, a.x, grad_input=a.dy),
        ),
        "hardtanh": clipped(-1, 1),
        "sigmoid": _Case(
            lambda a: ops.sigmoid.out(a.x, out=a.y),
            lambda a: ops.sigmoid_backward.grad_input(a.dy, a.y, grad_input=a.dy),
        ),
        "tanh": _Case(
            lambda a: ops.tanh.out(a.x, out=a.y),
            lambda a: ops.tanh_backward.grad_input(a.dy, a.y, grad_input=a.dy),
        ),
        "softmax": _Case(
            lambda a: ops._softmax.out(a.x, 1, False, out=a.y),
            lambda a: ops._softmax_backward_data.out(a.dy, a.y, 1, torch.float32, grad_input=a.dy),
        ),
        "log_softmax": _Case(
            lambda a: ops._log_softmax.out(a.x, 1, False, out=a.y),
            lambda a: ops._log_softmax_backward_data.out(a.dy, a.y, 1, torch.float32, out=a.dy),
        ),
        "glu": _Case(
            lambda a: ops.glu.out(a.x, 1, out=a.y),
            lambda a: ops.glu_backward.grad_input(a.dy, a.x, 1, grad_input=a.dx),
        ),
        "reglu": written(halves(functional.relu), 0.5),
        "swiglu": written(halves(functional.silu), 0.5),
    }
    return cases, torch.from_numpy
