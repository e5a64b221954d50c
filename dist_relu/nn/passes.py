"""The memory of a training step: every array that a pass through the model makes, for the whole batch.

All workers of a node map one arena and each fills the rows of its own shards, so that what one worker computed
(the factors of a gradient, above all) is at hand for the others. Models ask for the same arrays in the same order in
every pass; so a pass of two samples tells the layout, and no array is ever allocated twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.kernels.ahead import no_kernels
from dist_relu.kernels.copies import scale_into
from dist_relu.kernels.products import multiply_transposed
from dist_relu.kernels.tape import in_python
from dist_relu.nn import Loss, Param, Pass, Sequential
from dist_relu.nn.description import is_ours
from dist_relu.nn.draws import Draws
from dist_relu.nn.layer import PassObserver, check_product
from dist_relu.nn.losses.loss import backward_into

_ALIGNMENT_BYTES = 64
_MIN_PRODUCT_SIZE = 1 << 14
"""Elements from which a weight's gradient is worth being multiplied out by the owners of its chunks."""

_NUM_MEASURED = 2

UNEXPECTED_SUMS = (
    "The model asked for other sums over the batch than in its first pass. Layers must call run.batch_sums alike in "
    "every pass."
)


@dataclass(frozen=True)
class Buffer:
    """An array that a pass asks for: the shape of one sample's part, and its dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def size_bytes(self, batch_size: int) -> int:
        """The room that it takes for a batch, up to the next multiple of the alignment."""
        size = batch_size * prod(self.shape) * self.dtype.itemsize
        return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


@dataclass(frozen=True)
class Layout:
    """What a pass through a model asks for.

    products: for each parameter (by number) whose gradient is left as a product, the buffers of its factors.
    sums: of how many numbers each, those over the whole batch, in their order.
    """

    buffers: Sequence[Buffer]
    products: Mapping[int, tuple[int, int]]
    sums: Sequence[int]

    def size_bytes(self, batch_size: int) -> int:
        return sum(buffer.size_bytes(batch_size) for buffer in self.buffers)

    def arrays(self, memory: Array, batch_size: int) -> list[Array]:
        """`memory` (bytes) as one array for each buffer, (batch_size, ...)."""
        arrays, start = [], 0
        for buffer in self.buffers:
            stop = start + batch_size * prod(buffer.shape) * buffer.dtype.itemsize
            arrays.append(memory[start:stop].view(buffer.dtype).reshape(batch_size, *buffer.shape))
            start += buffer.size_bytes(batch_size)
        return arrays


class PassMarks(ABC):
    """Hears what a pass is at."""

    @abstractmethod
    def forward(self, layer: int) -> None:
        """The pass goes forward through this one of `Sequential.passes`."""

    @abstractmethod
    def loss(self) -> None:
        """It has come to the loss."""

    @abstractmethod
    def backward(self, layer: int) -> None:
        """It goes backward through this one of `Sequential.passes`."""


def forward_backward(
    model: Sequential,
    loss: Loss,
    x: Array,
    targets: Array,
    scale: float,
    run: Pass,
    sums: Array,
    on_grads_ready: Callable[[int], object] | None = None,
    marks: PassMarks | None = None,
) -> None:
    """One pass forward and backward: leaves the gradients, and the summed loss and the number of correct samples.

    scale: see `Loss.backward`.  sums: gets these two numbers, (2,) float64.  on_grads_ready: see
    `Sequential.backward_inside`.
    """
    outputs = model.forward_inside(x, run, marks.forward if marks else None)
    d_outputs = run.empty(outputs.shape, outputs.dtype)
    if marks:
        marks.loss()
    backward_into(loss, outputs, targets, scale, d_outputs, sums, run)
    model.backward_inside(
        d_outputs, run, wants_dx=False, on_grads_ready=on_grads_ready, on_layer=marks.backward if marks else None
    )


def measure(model: Sequential, loss: Loss, target: Array) -> Layout:
    """The layout of the model's passes, from a pass of two samples.  target: (1, ...), that of any sample.

    Two, since what is wrong with an array is often right for one: a sum over samples has the same shape, a transpose
    the same memory. Where all layers are ours, what they compute does not matter, and no kernel is compiled for it.
    Raises an error that names the layer or the loss that returns what it should not.
    """
    if is_ours([model.layers, loss]):
        with suppress(Exception), no_kernels():
            return _measure(model, loss, target, is_computed=False)
    return _measure(model, loss, target, is_computed=True)


def _measure(model: Sequential, loss: Loss, target: Array, *, is_computed: bool) -> Layout:
    run = _MeasuringRun(model.params)
    x = run.empty((_NUM_MEASURED, *model.input_shape), model.dtype)
    x[...] = 0
    targets = run.empty((_NUM_MEASURED, *target.shape[1:]), target.dtype)
    targets[...] = target
    outputs = model.forward_inside(x, run)
    d_outputs = run.empty(outputs.shape, outputs.dtype)
    bits = d_outputs.view(f"u{d_outputs.itemsize}")
    bits[...] = nobodys = np.iinfo(bits.dtype).max - 0xDEAD  # a NaN that no computation has for a result
    backward_into(loss, outputs, targets, 1.0, d_outputs, np.empty(2), run)
    if is_computed and (bits == nobodys).any():
        raise ValueError(
            f"{type(loss).__name__}.backward left elements of d_outputs as they were; expected the gradient in all."
        )
    model.backward_inside(d_outputs, run, wants_dx=False)
    return Layout(run.buffers, run.products, run.sums)


@final
class _MeasuringRun(Pass):
    """Notes what a pass of a few samples asks for."""

    def __init__(self, params: Sequence[Param]) -> None:
        self.buffers: list[Buffer] = []
        self.products: dict[int, tuple[int, int]] = {}
        self.sums: list[int] = []
        self._arrays: list[Array] = []
        self._draws = Draws(0)
        self._numbers = {id(param): number for number, param in enumerate(params)}

    @property
    def observer(self) -> PassObserver | None:
        return None

    @property
    def training(self) -> bool:
        return True

    @property
    def sample_weight(self) -> float:
        return 1.0

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        if not shape or shape[0] != _NUM_MEASURED:
            raise ValueError(
                f"A layer asked run.empty for shape {shape} with {_NUM_MEASURED} samples; expected one row for each "
                "sample. Arrays of other shapes come from run.scratch."
            )
        self.buffers.append(Buffer(shape[1:], np.dtype(dtype)))
        self._arrays.append(np.empty(shape, dtype))
        return self._arrays[-1]

    def scratch(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def generator(self) -> np.random.Generator:
        return self._draws.generator()

    def random_bits(self, out: Array) -> None:
        self._draws.random_bits(out)

    def uniform(self, out: Array) -> None:
        self._draws.uniform(out)

    def writable(self, dy: Array) -> Array:
        return dy  # layers get arrays in one piece, see `boundary.returned`

    def statistic(self, running: Param, value: Array) -> None:
        pass

    def product(self, weight: Param, x: Array, dz: Array) -> None:
        check_product(weight, x, dz)
        assert self._numbers[id(weight)] not in self.products, "a weight's gradient can be left as one product only"
        factors = self._buffer_of(x), self._buffer_of(dz)
        if weight.value.size >= _MIN_PRODUCT_SIZE and None not in factors:
            self.products[self._numbers[id(weight)]] = factors  # type: ignore[assignment]
        else:
            multiply_transposed(x, 0, x.shape[1], dz, weight.grad)

    def batch_sums(self, values: Array) -> Array:
        if values.dtype != np.float64:
            raise ValueError(f"A layer asked for sums over the batch of an array of {values.dtype}; expected float64.")
        self.sums.append(values.size)
        return values

    def _buffer_of(self, rows: Array) -> int | None:
        """The buffer whose memory `rows` is, whatever its shape; None if it is another array's."""
        return next((number for number, array in enumerate(self._arrays) if _is_memory_of(rows, array)), None)


@final
class ShardPass(Pass):
    """Passes over the rows of one shard after another, in an arena.

    sum_over_batch: (shard, values), see `Pass.batch_sums`; needed where the layout has such sums.
    clock: (1,) int64, the number of the batch, on which random numbers depend.
    first_shard: shard 0 draws what this shard of a larger batch would, and so on.
    """

    def __init__(
        self,
        layout: Layout,
        arrays: Sequence[Array],
        params: Sequence[Param],
        seed: int,
        sum_over_batch: Callable[[int, Array], Array] | None = None,
        clock: Array | None = None,
        first_shard: int = 0,
    ) -> None:
        self._arrays = arrays
        self._first_shard = first_shard
        self._draws = Draws(seed, clock)
        self.clock = self._draws.clock
        self._sum_over_batch = sum_over_batch
        self._scratch: dict[tuple[str, np.dtype[Any]], Array] = {}
        self._products = {id(params[number]): buffers for number, buffers in layout.products.items()}
        self._dtypes = [buffer.dtype for buffer in layout.buffers]
        self._is_new = False  # nobody has looked yet at what layers do with so many rows
        self._rows_of: dict[tuple[int, int], list[Array]] = {}
        self._rows: list[Array] = []
        self._next = self._shard = 0
        self._share = self._sample_weight = 1.0
        self._observer: PassObserver | None = None

    def enter(
        self,
        first: int,
        stop: int,
        *,
        batch_size: int,
        step: int,
        shard: int,
        observer: PassObserver | None = None,
    ) -> None:
        """Begin the pass over a shard of the batch of a step: the rows from `first` to `stop`."""
        self._observer = observer
        self._shard = shard
        self._draws.begin(step, self._first_shard + shard)
        self._share, self._sample_weight = (stop - first) / batch_size, 1 / batch_size
        self._is_new = (first, stop) not in self._rows_of
        if self._is_new:
            self._rows_of[first, stop] = [array[first:stop] for array in self._arrays]
        self._rows = self._rows_of[first, stop]
        self._next = 0

    @property
    def observer(self) -> PassObserver | None:
        return self._observer

    @property
    def training(self) -> bool:
        return True

    @property
    def sample_weight(self) -> float:
        return self._sample_weight

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        is_known = self._next < len(self._rows) and self._rows[self._next].shape == shape
        if not is_known or (self._is_new and self._dtypes[self._next] != dtype):
            raise RuntimeError(
                f"The model asked for an array of {np.dtype(dtype)} of shape {shape} that its first pass did not ask "
                "for at this point. Layers must call run.empty alike in every pass."
            )
        self._next += 1
        return self._rows[self._next - 1]

    def scratch(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        size, key = prod(shape), (name, np.dtype(dtype))
        if key not in self._scratch or self._scratch[key].size < size:
            self._scratch[key] = aligned_empty((size,), dtype)
        return self._scratch[key][:size].reshape(shape)

    def bookmark(self) -> Callable[[], object]:
        fields = "_rows", "_next", "_shard", "_share", "_sample_weight"
        place, goes_on_drawing = {name: vars(self)[name] for name in fields}, self._draws.bookmark()

        def go_back() -> None:
            vars(self).update(place)
            goes_on_drawing()

        return go_back

    def owns(self, array: Array) -> bool:
        return any(_is_memory_of(array, row) for row in self._rows)

    def generator(self) -> np.random.Generator:
        return self._draws.generator()

    def random_bits(self, out: Array) -> None:
        self._draws.random_bits(out)

    def uniform(self, out: Array) -> None:
        self._draws.uniform(out)

    def writable(self, dy: Array) -> Array:
        return dy  # layers get arrays in one piece, see `boundary.returned`

    def statistic(self, running: Param, value: Array) -> None:
        value, grad = np.asarray(value), running.grad
        if value.shape == grad.shape and value.dtype.kind == "f":
            scale_into(value.reshape(-1), self._share, grad.reshape(-1))
        else:  # a layer of the user's own may do more
            in_python(partial(np.multiply, value, self._share, out=grad))

    def batch_sums(self, values: Array) -> Array:
        if self._sum_over_batch is None:
            raise RuntimeError(UNEXPECTED_SUMS)
        return self._sum_over_batch(self._shard, values)

    def product(self, weight: Param, x: Array, dz: Array) -> None:
        if self._is_new:
            self._check_product(weight, x, dz)
        if id(weight) not in self._products:
            multiply_transposed(x, 0, x.shape[1], dz, weight.grad)

    def _check_product(self, weight: Param, x: Array, dz: Array) -> None:
        """Raise an error unless others will find these factors where the layout says."""
        check_product(weight, x, dz)
        buffers = self._products.get(id(weight), ())
        if not all(_is_memory_of(rows, self._rows[buffer]) for rows, buffer in zip((x, dz), buffers, strict=False)):
            raise RuntimeError(
                f"The gradient of {weight.name} is a product of other arrays than in the first pass. Layers must "
                "return arrays of run.empty in every pass, or in none."
            )


def _is_memory_of(rows: Array, array: Array) -> bool:
    """Whether two arrays are the same memory, whatever their shapes."""
    return rows.ctypes.data == array.ctypes.data and rows.nbytes == array.nbytes and rows.flags.c_contiguous
