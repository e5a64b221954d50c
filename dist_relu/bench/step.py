"""A whole training step (SGD with momentum) beside PyTorch and JAX, by turns in one process, on one core."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np

from dist_relu import nn
from dist_relu.bench.peers import PEERS, Peer
from dist_relu.coordinator import Coordinator, start
from dist_relu.core.arrays import Array
from dist_relu.data import Dataset
from dist_relu.kernels import convolution, products
from dist_relu.optim import SGD

ROUND_S = 0.4

_WARM_UP = 2

_PRODUCTS = [(products, "product"), (convolution, "correlate"), (convolution, "add_correlated")]
"""The kernels of matrix products; what they do on the way (packing, padding, bias and ReLU) is theirs."""


@dataclass(frozen=True)
class Case:
    """What is trained: a model of ours, the architecture for the peers, the shape of a batch of its inputs."""

    name: str
    kind: str
    sizes: tuple[int, ...]
    batch_size: int
    input_shape: tuple[int, ...]
    outputs: int
    model: Callable[[], nn.Sequential]


def _mlp(name: str, batch_size: int, inputs: int, *hidden: int, outputs: int = 10) -> Case:
    return Case(name, "mlp", hidden, batch_size, (inputs,), outputs, lambda: nn.mlp(hidden, outputs))


def _image_case(name: str, kind: str, sizes: tuple[int, ...], image_shape: tuple[int, int, int]) -> Case:
    models = {"cnn": lambda: nn.cnn(image_shape, 10), "resnet": lambda: nn.resnet(sizes[0], image_shape, 10)}
    return Case(name, kind, sizes, 64, image_shape, 10, models[kind])


CASES = [
    _mlp("mlp-tiny", 64, 784, 64, 32, 16),
    _mlp("mlp-small", 128, 784, 256, 128),
    _mlp("mlp-medium", 256, 784, 1024, 1024),
    _mlp("mlp-large", 512, 1024, 4096, 4096, 1024),
    _image_case("cnn-mnist", "cnn", (32, 64, 128), (28, 28, 1)),
    _image_case("cnn-cifar", "cnn", (32, 64, 128), (32, 32, 3)),
    _image_case("resnet-8", "resnet", (8,), (32, 32, 3)),
    Case("rnn", "rnn", (128,), 64, (64, 32), 10, lambda: nn.rnn(128, 10)),
    _mlp("policy-1", 1, 4, 64, 64, outputs=2),
    _mlp("policy-64", 64, 4, 64, 64, outputs=2),
]


@dataclass(frozen=True)
class Timing:
    """Medians of a step in milliseconds, by peer; ratio: of the peer's time and ours, the median over rounds.

    outside_products: the share of our step that is spent outside matrix products.
    """

    case: str
    ours_ms: float
    peers_ms: dict[str, float]
    ratios: dict[str, float]
    outside_products: float


def run(case_names: list[str], peer_names: list[str], rounds: int) -> list[Timing]:
    """Time the cases, each side for some tenths of a second a turn.  Keeps this process on one core from now on."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with start(backend="serial") as coordinator:
        return [_time(coordinator, case, peer_names, rounds) for case in CASES if case.name in case_names]


def _time(coordinator: Coordinator, case: Case, peer_names: list[str], rounds: int) -> Timing:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch_size, *case.input_shape), np.float32)
    y = rng.integers(0, case.outputs, case.batch_size)
    ours = _Ours(coordinator, case, x, y)
    peers: dict[str, Peer] = {name: PEERS[name](case.kind, case.sizes, x, y, case.outputs) for name in peer_names}
    times: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(rounds):
        times["ours"].append(ours.median_ms())
        for name, peer in peers.items():
            times[name].append(_median_ms(peer))
    ratios = {name: float(np.median(np.divide(times[name], times["ours"]))) for name in peers}
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return Timing(case.name, medians.pop("ours"), medians, ratios, ours.share_outside_products())


class _Ours:
    """Our side of a case: training on one batch, again and again."""

    def __init__(self, coordinator: Coordinator, case: Case, x: Array, y: Array) -> None:
        self._coordinator = coordinator
        self._batch_size = case.batch_size
        self._model = case.model()
        self._data = Dataset(x.reshape(len(x), -1) if x.ndim == 4 else x, y)
        self._num_steps = 2
        step_s = float(np.median(self._steps()))
        self._num_steps = int(np.clip(ROUND_S / step_s, 3, 2000))

    def median_ms(self) -> float:
        return float(np.median(self._steps())) * 1e3

    def share_outside_products(self) -> float:
        """From a run of its own, in which every matrix product is timed."""
        spent = [0.0]

        def timed(function: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                begin = perf_counter()
                function(*arguments)
                spent[0] += perf_counter() - begin

            return call

        with ExitStack() as patches:
            for module, name in _PRODUCTS:
                patches.enter_context(patch.object(module, name, timed(getattr(module, name))))
            total = float(self._all_steps().sum())
        return 1 - spent[0] / total

    def _steps(self) -> Array:
        """Seconds of each step; the peers' memory has been touched before, and so has ours after two steps."""
        return self._all_steps()[_WARM_UP:]

    def _all_steps(self) -> Array:
        result = self._coordinator.fit(
            self._model,
            self._data,
            SGD(0.001, momentum=0.9),
            epochs=_WARM_UP + self._num_steps,
            batch_size=self._batch_size,
            shuffle=False,
        )
        return result.step_seconds


def _median_ms(peer: Peer) -> float:
    peer.step()
    times: list[float] = []
    while sum(times) < ROUND_S or len(times) < 3:
        begin = perf_counter()
        peer.step()
        times.append(perf_counter() - begin)
    return float(np.median(times)) * 1e3
