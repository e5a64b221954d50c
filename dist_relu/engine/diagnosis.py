"""What in a step is the first to be NaN or infinite: the coordinator takes the step again, on its own core.

Bits are the same wherever they are computed. So nobody has to look for such numbers while training goes well, and what
is found afterwards, layer by layer, is what the workers have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple, final

import numpy as np

from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.data import Dataset
from dist_relu.data.augment import ImageShape
from dist_relu.engine.batches import Batch, Feed, microbatches
from dist_relu.engine.loop import num_steps_per_epoch
from dist_relu.engine.memory import Snapshot
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replicas import plan_of_replica, samples_of_replica
from dist_relu.engine.side_by_side import SideBySide
from dist_relu.engine.site import Site
from dist_relu.engine.training import Training, with_values
from dist_relu.engine.watch.observer import Observer
from dist_relu.engine.watch.records import WatchedStep
from dist_relu.engine.weighting import chances, loss_weights, order_of_epoch
from dist_relu.errors import TrainingDiverged
from dist_relu.nn import Loss, Sequential
from dist_relu.nn.boundary import inside
from dist_relu.nn.fusion import last_layers
from dist_relu.nn.layer import PreactivationObserver
from dist_relu.nn.losses.composed import Weighted
from dist_relu.nn.losses.loss import backward_into
from dist_relu.nn.passes import Layout, ShardPass, measure
from dist_relu.reduction.batch_sums import BatchSums, batch_sums_shape
from dist_relu.runtime.backends import SerialBackend
from dist_relu.runtime.placed_samples import Samples
from dist_relu.runtime.workers import Workers


@final
@dataclass(frozen=True, kw_only=True)
class NotFinite:
    """This was the first in a step to be NaN or infinite.

    what: in words, "the output of layer 2 Dense is inf".
    shard: whose pass it was; None for what comes of all of them.
    layer: its number and kind, "2 Dense"; the kind alone for a loss.
    sample: its row in the data set; None for what is a sum over samples.  num_others: other samples of the shard that
    have come to it at the same place.
    parameter: whose gradient or new value it is, "2.weight".
    """

    step: int
    what: str
    shard: int | None = None
    layer: str | None = None
    sample: int | None = None
    num_others: int = 0
    parameter: str | None = None

    def __str__(self) -> str:
        where = "" if self.shard is None else f"in shard {self.shard} "
        whose = "" if self.sample is None else f" for sample {self.sample}"
        others = f" and {self.num_others} others" if self.num_others else ""
        return f"First {where}{self.what}{whose}{others}."


def diverged_error(
    what: str, step: int, epoch: int, found: NotFinite | None, watched: Sequence[WatchedStep]
) -> TrainingDiverged:
    """Make the error for a step that led to numbers that are none.  what: has become so.  watched: what was seen."""
    error = TrainingDiverged(
        f"{what} in step {step} (epoch {epoch}). {f'{found} ' if found else ''}Lower the learning rate, warm it up, or "
        "clip the norm of gradients."
    )
    error.step, error.watched = step, watched
    if found:
        error.shard, error.layer, error.sample, error.parameter = (
            found.shard,
            found.layer,
            found.sample,
            found.parameter,
        )
    return error


def diagnose(
    model: Sequential,
    data: Dataset,
    plan: StepPlan,
    before: Snapshot,
    *,
    shuffle: bool = True,
    image_shape: ImageShape | None = None,
) -> NotFinite | None:
    """Take the step behind `before`, and say what in it is the first to be NaN or infinite; None if nothing is.

    A shard whose loss is not finite comes before one whose gradient alone is not, and both before sums over shards.
    Where layers have sums over the batch, which bring it to all shards, the earliest layer comes first.
    Of replicas, the passes alone are looked into.
    Takes about as long as the step on one worker; the model is left alone.
    """
    per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
    epoch, place = divmod(before.step, per_epoch)
    per_step = plan.batch_size * plan.options.accumulate
    drawn = chances(data, plan.class_weight, plan.sampler)
    order = order_of_epoch(len(data), plan.seed, epoch, shuffle=shuffle, chances=drawn)
    samples = order[place * per_step : (place + 1) * per_step]
    with np.errstate(all="ignore"):
        if plan.averaging:
            return _in_replicas(model, data, plan, before, samples, image_shape)
        shards = _Shards(with_values(model, before.vectors[0]), data, plan, before.step, image_shape)
        in_gradient = None
        for batch in microbatches(samples, plan, before.step):
            in_loss, found = shards.look_at(batch)
            if in_loss:
                return found
            in_gradient = in_gradient or found
        return in_gradient or _in_update(model, data, plan, before, shuffle=shuffle, image_shape=image_shape)


def _in_replicas(
    model: Sequential,
    data: Dataset,
    plan: StepPlan,
    before: Snapshot,
    samples: Array,
    image_shape: ImageShape | None,
) -> NotFinite | None:
    """Find what is not finite in the passes of replicas, each with its own parameters.  samples: of the step."""
    assert plan.averaging
    in_gradient = None
    for number in range(plan.averaging.replicas):
        own = plan_of_replica(plan, number)
        values = before.vectors[plan.vector_names.index(f"replica {number} parameters")]
        shards = _Shards(with_values(model, values), data, own, before.step, image_shape)
        for batch in microbatches(samples_of_replica(samples, plan, number), own, before.step):
            in_loss, found = shards.look_at(batch)
            if found and found.shard is not None:
                found = replace(found, shard=own.first_shard + found.shard)
            if in_loss:
                return found
            in_gradient = in_gradient or found
    return in_gradient


class _Seen(NamedTuple):
    """A layer or loss, the words for what of it is not finite, and the rows where that is so.

    place: counts passes through layers, forward, then the loss, then passes backward.
    """

    place: int
    layer: str
    what: str
    rows: Sequence[int] | Array = ()
    parameter: str | None = None


class _Look(NamedTuple):
    """What there was to be seen in the pass over a shard.  in_loss: whether its loss is not finite."""

    in_loss: bool
    place: int
    found: NotFinite | None


@final
class _Shards:
    """Passes over shards are looked at here, in memory for one of them, or for all if they pass side by side."""

    def __init__(
        self, model: Sequential, data: Dataset, plan: StepPlan, step: int, image_shape: ImageShape | None
    ) -> None:
        self._model, self._plan, self._step = model, plan, step
        y = np.asarray(data.y, np.int64 if data.has_classes else model.dtype)
        weights = loss_weights(data, plan.class_weight, plan.sampler)
        self._feed = Feed(plan, Samples(data.rows, model.dtype), y, weights, image_shape)
        layout = measure(model, plan.loss, y[:1])
        layout = Layout(layout.buffers, {}, layout.sums)  # all gradients are multiplied out at once
        num_rows = plan.batch_size if layout.sums else -(-plan.batch_size // plan.shards)
        arrays = layout.arrays(aligned_empty((layout.size_bytes(num_rows),), np.uint8), num_rows)
        self._pass = ShardPass(layout, arrays, model.params, plan.seed, first_shard=plan.first_shard)
        self._side_by_side: SideBySide[_Look] | None = None
        if layout.sums:
            memory = np.zeros(batch_sums_shape(plan.shards, layout.sums))
            sums = BatchSums(plan.shards, memory, lambda rows: None)
            shards = range(plan.shards)
            self._side_by_side = SideBySide(model, layout, arrays, plan.seed, sums, shards, plan.first_shard)
        ends = last_layers(model.blueprint().build(model.input_shape).layers)
        kinds = [f"{number} {type(layer).__name__}" for number, layer in enumerate(model.layers)]
        self._names = [(kinds[before + 1], kinds[end]) for before, end in pairwise([-1, *ends])]

    def look_at(self, batch: Batch) -> tuple[bool, NotFinite | None]:
        """Pass over a batch, forward and backward; returns whether a loss is not finite, and what was so first."""
        present = [shard for shard, (first, stop) in enumerate(batch.shard_bounds) if first < stop]
        if self._side_by_side:
            self._side_by_side.run(partial(self._pass_over, batch), present)
            looks = [look for look in map(self._side_by_side.take, present) if look.found]
            first_look = min(looks, key=lambda look: look.place, default=None)
            return any(look.in_loss for look in looks), first_look and first_look.found
        in_gradient = None
        for shard in present:
            look = self._pass_over(batch, shard, self._model, self._pass)
            if look.in_loss:
                return True, look.found
            in_gradient = in_gradient or look.found
        return False, in_gradient

    def _pass_over(self, batch: Batch, shard: int, model: Sequential, run: ShardPass) -> _Look:
        """Look at the pass over a shard through the model, or a copy of it, all of it, since others may wait for it."""
        first, stop = batch.shard_bounds[shard]
        forward = _ForwardObserver(self._names)
        row = first if self._side_by_side else 0
        run.enter(row, row + stop - first, batch_size=batch.step_size, step=batch.number, shard=shard, observer=forward)
        x, loss, targets = self._feed.gather(batch, shard, run)
        outputs = model.forward_inside(x, run)
        d_outputs = run.empty(outputs.shape, outputs.dtype)
        sums = np.empty(2)
        backward_into(loss, outputs, targets, 1 / batch.step_size, d_outputs, sums, run)
        in_loss = not np.isfinite(model.dtype.type(sums[0]))
        in_outputs = self._in_loss(loss, outputs, targets) if in_loss else None
        in_gradient = self._in_gradient(model, d_outputs, run)
        seen = in_outputs or in_gradient
        if seen is None:
            return _Look(False, 0, None)
        seen = forward.seen or seen  # which is the reason for what comes behind it
        found = NotFinite(
            step=self._step,
            what=seen.what,
            shard=shard,
            layer=seen.layer,
            sample=int(batch.samples[first + seen.rows[0]]) if len(seen.rows) else None,
            num_others=max(len(seen.rows) - 1, 0),
            parameter=seen.parameter,
        )
        return _Look(in_loss, seen.place, found)

    def _in_loss(self, loss: Loss, outputs: Array, targets: Array) -> _Seen:
        """Find the samples whose loss is not finite, if not the sum of them alone is."""
        name = type(self._plan.loss).__name__
        rows = []
        loss = loss.loss if isinstance(loss, Weighted) else loss
        if loss is self._plan.loss:  # that of mixed samples has targets for all of them
            for row in range(len(outputs)):
                one = slice(row, row + 1)
                total, _ = loss.backward(outputs[one], targets[one], 1.0, np.empty_like(outputs[one]))
                if not np.isfinite(self._model.dtype.type(total)):
                    rows.append(row)
        return _Seen(len(self._names), name, f"the loss ({name}) is not finite", rows)

    def _in_gradient(self, model: Sequential, dy: Array, run: ShardPass) -> _Seen | None:
        """Go back through the layers; returns where the gradient is not finite any more."""
        name, num_passes = type(self._plan.loss).__name__, len(model.passes)
        seen = None
        if (rows := _rows(dy)).size:
            seen = _Seen(num_passes, name, f"the gradient of the loss ({name}) is {_first(dy)}", rows)
        counts = [len(layer.params()) for layer in model.passes]
        first = next((i for i, count in enumerate(counts) if count), 0)
        number = len(model.params)
        for i in range(num_passes - 1, first - 1, -1):
            dy = inside(model.passes[i]).backward(dy, run, wants_dx=i > first)
            number -= counts[i]
            params = range(number, number + counts[i])
            seen = seen or self._in_layer(model, i, dy if i > first else None, params)
        return seen

    def _in_layer(self, model: Sequential, number: int, dx: Array | None, params: Sequence[int]) -> _Seen | None:
        """Look at what a layer has left in its pass backward."""
        layer, place = self._names[number][0], 2 * len(model.passes) - number
        if dx is not None and (rows := _rows(dx)).size:
            return _Seen(place, layer, f"the gradient of the input of layer {layer} is {_first(dx)}", rows)
        for param, name in ((model.params[i], model.names[i]) for i in params):
            if not np.isfinite(param.grad).all():
                what = "gradient" if param.momentum is None else "statistic"
                return _Seen(place, layer, f"the {what} of {name} is {_first(param.grad)}", (), name)
        return None


@final
class _ForwardObserver(PreactivationObserver):
    """Keeps the first output that is not finite.  names: of the first and the last layer of each pass."""

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self._names = names
        self._num_rows = 0  # of the pass that have been seen before their activation
        self.seen: _Seen | None = None

    def see_preactivations(self, number: int, x: Array, bias: Array | None) -> None:
        first, last = self._names[number]
        if first != last:
            self._look(number, first, x if bias is None else x + bias, self._num_rows)
            self._num_rows += len(x)

    def see_output(self, number: int, y: Array) -> None:
        self._num_rows = 0
        self._look(number, self._names[number][1], y, 0)

    def _look(self, number: int, layer: str, y: Array, first_row: int) -> None:
        if self.seen is None and (rows := _rows(y)).size:
            self.seen = _Seen(number, layer, f"the output of layer {layer} is {_first(y)}", rows + first_row)


def _in_update(
    model: Sequential,
    data: Dataset,
    plan: StepPlan,
    before: Snapshot,
    *,
    shuffle: bool,
    image_shape: ImageShape | None,
) -> NotFinite | None:
    """Find what is not finite where nothing was in any shard: the sum of their losses, or what the update makes."""
    plan = replace(plan, options=replace(plan.options, on_nan="stop"))
    workers = Workers(SerialBackend())
    try:
        observer = Observer(model, plan, before.step + 1, has_accuracy=False)
        training = Training(
            Site(workers), model, data, plan, observer, before, image_shape=image_shape, shuffle=shuffle
        )
        stopped = training.advance(before.step, before.step + 1, plan.optimizer, last=before.step + 1)
        after = training.snapshot().vectors
        training.close()
    finally:
        workers.close()
    if stopped:
        name = type(plan.loss).__name__
        return NotFinite(step=before.step, what=f"the sum of the losses ({name}) of all shards is {stopped.loss}")
    for vector, values in enumerate(after):
        for name, view in zip(model.names, model.views(values), strict=True):
            if not np.isfinite(view).all():
                whose = "" if vector == 0 else " in the optimiser's states, the gradient or the average"
                what = f"the update makes {name} {_first(view)}{whose}"
                return NotFinite(step=before.step, what=what, parameter=name)
    return None


def _rows(x: Array) -> Array:
    """The rows of x (N, ...) in which something is not finite."""
    return np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))


def _first(x: Array) -> str:
    """The first number that is not finite."""
    return str(float(x[~np.isfinite(x)][0]))
