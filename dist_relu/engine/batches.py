"""What a step takes from the data set: the samples of its batches, cut into shards and changed at random.

All of it is a function of seed, step and shard, so that anybody who asks for a shard gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from math import prod
from typing import NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array
from dist_relu.data.augment import Augment, ImageShape
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.readers import ComingSteps, reader_of
from dist_relu.kernels import augment as kernels
from dist_relu.kernels.tape import in_python
from dist_relu.kernels.weights import gather_weights
from dist_relu.nn import Loss, MixedTargets, Pass
from dist_relu.nn.layer import Shape
from dist_relu.nn.losses.composed import Weighted
from dist_relu.nn.losses.loss import UNWEIGHTED, CompiledLoss
from dist_relu.nn.passes import ShardPass
from dist_relu.partition import Purpose, bounds, generator
from dist_relu.reduction.sources import ShardBounds
from dist_relu.runtime.placed_samples import Samples


class Batch(NamedTuple):
    """A batch is what passes through the model together.

    samples: their numbers in the data set.  of_step: those of all samples of the step, over which losses and statistics
    are means.  shard_bounds: the rows of each shard; the last batch of an epoch may be
    smaller than the number of shards, and some of them empty.  place: of the batch in its step.  number: of the batch
    in the run; random numbers depend on it.
    """

    samples: Array
    of_step: Array
    shard_bounds: ShardBounds
    place: int
    number: int
    is_watched: bool

    @property
    def step_size(self) -> int:
        """The number of samples in the whole step."""
        return len(self.of_step)


def microbatches(samples: Array, plan: StepPlan, step: int, *, is_watched: bool = False) -> Iterator[Batch]:
    """Cut the samples of a step into batches: several when gradients are accumulated, of which the first is watched."""
    for place, first in enumerate(range(0, len(samples), plan.batch_size)):
        rows = samples[first : first + plan.batch_size]
        number = step * plan.options.accumulate + place
        yield Batch(rows, samples, bounds(len(rows), plan.shards), place, number, is_watched and not place)


@final
class Feed:
    """A feed brings the samples of shards into passes.

    x, y: the data set, (samples, ...).  weights: of samples, (samples,) float64, or `UNWEIGHTED`.
    image_shape: of samples that are augmented.
    """

    def __init__(self, plan: StepPlan, x: Samples, y: Array, weights: Array, image_shape: ImageShape | None) -> None:
        self._plan, self._x, self._y, self._weights, self._image_shape = plan, x, y, weights, image_shape
        self._reader, self._y_rows = reader_of(x), _rows(y)
        self._places = np.arange(plan.batch_size)
        self._augment = plan.augment or Augment()
        self._key = np.array([plan.seed, Purpose.AUGMENTATION], np.uint64)
        self._first_shard = plan.first_shard

    def ahead(
        self, num_steps: int, samples_of: Callable[[int], Array], num_done: Callable[[], int], shards: range
    ) -> AbstractContextManager[None]:
        """Return a context in which `shards` of the batches of these steps are gathered.

        samples_of: step i of them.  num_done: how many are complete.
        """

        def reads(number: int) -> list[Array]:
            batches = microbatches(samples_of(number), self._plan, 0)
            found = [batch.samples[slice(*batch.shard_bounds[shard])] for batch in batches for shard in shards]
            return [numbers for numbers in found if len(numbers)]

        return self._reader.ahead(ComingSteps(num_steps, reads, num_done))

    def gather(self, batch: Batch, shard: int, run: ShardPass) -> tuple[Array, Loss, Array]:
        """Return the samples of a shard, augmented, in memory of `run`, the loss for them, and their targets."""
        first, stop = batch.shard_bounds[shard]
        x = run.empty((stop - first, *self._x.shape[1:]), self._x.dtype)
        targets = run.empty((stop - first, *self._y.shape[1:]), self._y.dtype)
        loss, augment, image_shape, numbers = self._plan.loss, self._augment, self._image_shape, batch.samples
        if image_shape is None and not augment.mixup:
            if self._x.array is None:
                kernels.gather_rows(self._y_rows, numbers, first, stop, _rows(targets))
                self._reader.read(numbers, first, stop, run, x)
            else:
                array = _rows(self._x.array)
                kernels.gather(array, self._y_rows, numbers, first, stop, _rows(x), _rows(targets))
            return x, self._weighted(loss, batch, shard, run), targets
        kernels.gather_rows(self._y_rows, numbers, first, stop, _rows(targets))
        if image_shape is not None and not augment.mixup:
            self._gather_images(batch, shard, image_shape, run, x)
            return x, self._weighted(loss, batch, shard, run), targets
        mixed = _MixedLoss()
        weighted = self._weighted(mixed, batch, shard, run)
        weights = weighted.weights if isinstance(weighted, Weighted) else UNWEIGHTED
        samples, places = self._brought(numbers, first, stop, run, x)
        in_python(partial(self._mix, samples, places, shard, run, x, targets, weights, mixed))
        return x, weighted, targets

    def _weighted(self, loss: Loss, batch: Batch, shard: int, run: ShardPass) -> Loss:
        """The loss of a shard whose samples have weights: shares of their mean in the step, whoever computes it."""
        if not len(self._weights):
            return loss
        first, stop = batch.shard_bounds[shard]
        weights = run.scratch("weights of samples", (stop - first,), np.float64)
        gather_weights(self._weights, batch.of_step, batch.samples, first, stop, weights)
        return Weighted(loss, weights)

    def _brought(self, numbers: Array, first: int, stop: int, run: ShardPass, like: Array) -> tuple[Array, Array]:
        """Return an array of samples, and where in it those are that numbers[first:stop] are the numbers of.

        like: (stop - first, ...), as large as these.
        """
        if self._x.array is not None:
            return self._x.array, numbers[first:stop]
        samples = run.scratch("brought", like.shape, like.dtype)
        self._reader.read(numbers, first, stop, run, samples)
        return samples, self._places[: stop - first]

    def _mix(
        self,
        samples: Array,
        places: Array,
        shard: int,
        run: ShardPass,
        out: Array,
        targets: Array,
        weights: Array,
        mixed: _MixedLoss,
    ) -> None:
        """Mix samples at random, and targets with them: in Python, since beta distributions have no kernel."""
        rng = generator(self._plan.seed, Purpose.AUGMENTATION, int(run.clock[0]), self._first_shard + shard)
        scratch = run.scratch("augment", out.shape, out.dtype)
        mixture = self._augment.gather_inside(samples, places, self._image_shape, rng, out, scratch)
        assert mixture is not None
        theirs = weights[mixture.partners] if len(weights) else None
        mixed.now = MixedTargets(self._plan.loss, targets[mixture.partners], mixture.share, theirs)

    def _gather_images(self, batch: Batch, shard: int, image_shape: ImageShape, run: ShardPass, out: Array) -> None:
        """Do what `Augment.gather_inside` does, to the bit, by kernels alone."""
        augment, (first, stop) = self._augment, batch.shard_bounds[shard]
        shifts = run.scratch("shifts", (stop - first, 2), np.int64)
        flips = run.scratch("flips", (stop - first,), np.bool_)
        flip, number = 0.5 if augment.flip else 0.0, self._first_shard + shard
        kernels.draw_windows(self._key, run.clock, number, augment.crop, flip, shifts, flips)
        planes, height, width, channels = image_shape
        image = height, width * channels
        samples, places = self._brought(batch.samples, first, stop, run, out)
        images, windows = samples.reshape(-1, *image), out.reshape(-1, *image)
        kernels.shift_and_flip(images, channels, planes, places, 0, stop - first, shifts, flips, windows)


@final
class _MixedLoss(CompiledLoss):
    """The loss of samples that are mixed otherwise in every step.

    now: that of the present step.
    """

    now: MixedTargets

    def check(self, targets: Array, output_shape: Shape) -> None:
        self.now.check(targets, output_shape)

    def backward_into(
        self, outputs: Array, targets: Array, weights: Array, scale: float, d_outputs: Array, sums: Array, run: Pass
    ) -> None:
        in_python(lambda: self.now.backward_into(outputs, targets, weights, scale, d_outputs, sums, run))


def _rows(array: Array) -> Array:
    """(n, ...) as (n, F), the same memory."""
    return array if array.ndim == 2 else array.reshape(len(array), prod(array.shape[1:]))
