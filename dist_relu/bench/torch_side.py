"""PyTorch's side of comparisons: eager, as its users write it; on several cores with threads, or with DDP."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, final

import numpy as np

from dist_relu.bench.cases import LR, MOMENTUM, Beginning, Case
from dist_relu.bench.sides import Side
from dist_relu.core.arrays import Array


@final
class Torch(Side):
    """Training in this process; images in the faster of PyTorch's two memory formats.

    wrap: what becomes of the model before it is trained.  part: which part of each batch is trained on here, and of
    how many.
    """

    def __init__(self, wrap: Callable[[Any], Any], part: int = 0, num_parts: int = 1) -> None:
        self._wrap = wrap
        self._part, self._num_parts = part, num_parts
        self._take: Callable[[], Any]

    def instruction_set(self) -> str:
        import torch

        capability = str(torch.backends.cpu.get_cpu_capability())
        return {"AVX512": "AVX-512"}.get(capability, capability)

    def prepare(self, case: Case, beginning: Beginning) -> None:
        import torch

        x, y = case.samples()
        model = _MODELS[case.kind](torch.nn, case.sizes, (case.batch_size, *case.input_shape), case.outputs)
        _load(model, case, beginning)
        xs = self._parts(torch.from_numpy(x), case)
        ys = self._parts(torch.from_numpy(y), case)
        if x.ndim == 4:
            xs = [x.permute(0, 3, 1, 2).contiguous() for x in xs]
            formats = torch.contiguous_format, torch.channels_last
            times = [_seconds(self._prepared(model, xs, ys, memory_format)) for memory_format in formats]
            self._take = self._prepared(model, xs, ys, formats[self._agreed(int(np.argmin(times)))])
        else:
            self._take = self._prepared(model, xs, ys, torch.preserve_format)

    def train(self, num_steps: int) -> float:
        for _ in range(num_steps):
            loss = self._take()
        return float(loss.detach())

    def _parts(self, samples: Any, case: Case) -> list[Any]:
        """Cut the samples of an epoch into batches, and take our part of each."""
        return [batch.chunk(self._num_parts)[self._part].contiguous() for batch in samples.split(case.batch_size)]

    def _agreed(self, number: int) -> int:
        """Return the first process's number in all of them."""
        if self._num_parts == 1:
            return number
        from torch import distributed

        numbers = [number]
        distributed.broadcast_object_list(numbers)
        return numbers[0]

    def _prepared(self, model: Any, xs: Sequence[Any], ys: Sequence[Any], memory_format: Any) -> Callable[[], Any]:
        """Make a function that trains a copy of the model on one batch after another."""
        import torch

        model = self._wrap(copy.deepcopy(model).to(memory_format=memory_format))
        xs = [x.to(memory_format=memory_format) for x in xs]
        criterion = torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
        step = 0

        def take() -> Any:
            nonlocal step
            x, y = xs[step % len(xs)], ys[step % len(ys)]
            step += 1
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return take


@contextmanager
def with_threads(number: int) -> Iterator[Torch]:
    """Start PyTorch's side with a thread for each core."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield Torch(lambda model: model)


@contextmanager
def with_ddp(processes: int, meeting_point: Path, number: int) -> Iterator[Torch]:
    """Start PyTorch's side in one of several processes of one thread that add their gradients, with gloo.

    meeting_point: a file that isn't there yet.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    place = f"file://{meeting_point.absolute()}"
    distributed.init_process_group("gloo", init_method=place, rank=number, world_size=processes)
    try:
        yield Torch(lambda model: DistributedDataParallel(model, gradient_as_bucket_view=True), number, processes)
    finally:
        distributed.destroy_process_group()


def _seconds(take: Callable[[], Any]) -> float:
    times = []
    for _ in range(10):
        begin = perf_counter()
        take()
        times.append(perf_counter() - begin)
    return float(np.median(times))


def _load(model: Any, case: Case, beginning: Beginning) -> None:
    """Let a model begin with the numbers of ours, whose weights have outputs last, and images channels."""
    import torch

    ours = beginning.parameters()
    if case.kind == "rnn":
        ours.insert(3, np.zeros_like(ours[2]))  # it has a second bias
    channels = 0  # that images have here
    with torch.no_grad():
        for theirs, weight in zip(model.parameters(), ours, strict=True):
            values = weight
            if weight.ndim == 4:
                channels, values = weight.shape[3], weight.transpose(3, 2, 0, 1)
            elif weight.ndim == 2:
                is_behind_images = 0 < channels < len(weight)
                values = (_channels_first(weight, channels) if is_behind_images else weight).T
                channels = 0
            theirs.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _channels_first(weight: Array, channels: int) -> Array:
    """Order the rows of a weight, one for each number in (pixels, channels), as (channels, pixels)."""
    return weight.reshape(-1, channels, weight.shape[1]).swapaxes(0, 1).reshape(weight.shape)


def _mlp(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    layers, inputs = [], shape[1]
    for units in sizes:
        layers += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _cnn(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
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


def _strided(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    _, height, width, channels = shape
    layers: list[Any] = []
    for filters in sizes:
        layers += [nn.Conv2d(channels, filters, 5, 2, padding=2), nn.ReLU()]
        height, width, channels = (height + 1) // 2, (width + 1) // 2, filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(height * width * channels, outputs))


def _resnet(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *_normalised(nn, inputs, channels, 3, stride),
                nn.ReLU(),
                *_normalised(nn, channels, channels, 3, 1),
            )
            self.shortcut = nn.Sequential(*(_normalised(nn, inputs, channels, 1, stride) if stride > 1 else []))

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    layers, inputs = [*_normalised(nn, shape[3], 16, 3, 1), nn.ReLU()], 16
    for channels in (16, 32, 64):
        for _ in range((sizes[0] - 2) // 6):
            layers.append(Block(inputs, channels, 1 if channels == inputs else 2))
            inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def _normalised(nn: Any, inputs: int, channels: int, kernel_size: int, stride: int) -> list[Any]:
    conv = nn.Conv2d(inputs, channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _rnn(nn: Any, sizes: Sequence[int], shape: Sequence[int], outputs: int) -> Any:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(shape[2], sizes[0], nonlinearity="relu", batch_first=True)
            self.head = nn.Linear(sizes[0], outputs)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    return Recurrent()


_MODELS = {"mlp": _mlp, "cnn": _cnn, "strided": _strided, "resnet": _resnet, "rnn": _rnn}
