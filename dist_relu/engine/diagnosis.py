"""What in a step is the first to be NaN or infinite: the coordinator takes the step again, on its own core.

Bits are the same wherever they are computed. So nobody has to look for such numbers while training goes well, and what
is found afterwards, layer by layer, is what the workers have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from dist_relu.engine.site import Site
from dist_relu.engine.training import Training, with_values
from dist_relu.engine.watch.observer import Observer
from dist_relu.nn import Loss, Sequential
from dist_relu.nn.boundary import inside
from dist_relu.nn.fusion import last_layers
from dist_relu.nn.layer import PreactivationObserver
from dist_relu.nn.passes import Layout, ShardPass, measure
from dist_relu.partition import epoch_order
from dist_relu.runtime.backends import SerialBackend
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
    Takes about as long as the step on one worker; the model is left alone.
    """
    per_epoch = num_steps_per_epoch(len(data), plan.batch_size, plan.options.accumulate)
    epoch, place = divmod(before.step, per_epoch)
    per_step = plan.batch_size * plan.options.accumulate
    order = epoch_order(len(data), plan.seed, epoch, shuffle=shuffle)
    samples = order[place * per_step : (place + 1) * per_step]
    with np.errstate(all="ignore"):
        shards = _Shards(with_values(model, before.vectors[0]), data, plan, before.step, image_shape)
        in_gradient = None
        for batch in microbatches(samples, plan, before.step):
            for shard, (first, stop) in enumerate(batch.shard_bounds):
                if first == stop:
                    continue
                in_loss, found = shards.look_at(batch, shard)
                if in_loss:
                    return found
                in_gradient = in_gradient or found
        return in_gradient or _in_update(model, data, plan, before, shuffle=shuffle, image_shape=image_shape)


class _Seen(NamedTuple):
    """A layer or loss, the words for what of it is not finite, and the rows where that is so."""

    layer: str
    what: str
    rows: Sequence[int] | Array = ()
    parameter: str | None = None


@final
class _Shards:
    """Passes over shards are looked at here, in memory for one of them."""

    def __init__(
        self, model: Sequential, data: Dataset, plan: StepPlan, step: int, image_shape: ImageShape | None
    ) -> None:
        self._model, self._plan, self._step = model, plan, step
        x = np.asarray(data.x, model.dtype)
        y = np.asarray(data.y, np.int64 if data.has_classes else model.dtype)
        self._feed = Feed(plan, x, y, image_shape)
        layout = measure(model, plan.loss, y[:1])
        layout = Layout(layout.buffers, {})  # all gradients are multiplied out at once
        num_rows = -(-plan.batch_size // plan.shards)
        arrays = layout.arrays(aligned_empty((layout.size_bytes(num_rows),), np.uint8), num_rows)
        self._pass = ShardPass(layout, arrays, model.params, plan.seed)
        ends = last_layers(model.blueprint().build(model.input_shape).layers)
        kinds = [f"{number} {type(layer).__name__}" for number, layer in enumerate(model.layers)]
        self._names = [(kinds[before + 1], kinds[end]) for before, end in pairwise([-1, *ends])]

    def look_at(self, batch: Batch, shard: int) -> tuple[bool, NotFinite | None]:
        """Pass over a shard, forward and backward; returns whether its loss is not finite, and what was so first."""
        first, stop = batch.shard_bounds[shard]
        forward = _ForwardObserver(self._names)
        self._pass.enter(0, stop - first, batch_size=batch.step_size, step=batch.number, shard=shard, observer=forward)
        x, loss, targets = self._feed.gather(batch, shard, self._pass)
        outputs = self._model.forward_inside(x, self._pass)
        d_outputs = self._pass.empty(outputs.shape, outputs.dtype)
        total, _ = loss.backward_inside(outputs, targets, 1 / batch.step_size, d_outputs)
        in_loss = not np.isfinite(self._model.dtype.type(total))
        seen = self._in_loss(loss, outputs, targets) if in_loss else self._in_gradient(d_outputs)
        if seen is None:
            return False, None
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
        return in_loss, found

    def _in_loss(self, loss: Loss, outputs: Array, targets: Array) -> _Seen:
        """Find the samples whose loss is not finite, if not the sum of them alone is."""
        name = type(self._plan.loss).__name__
        rows = []
        if loss is self._plan.loss:  # that of mixed samples has targets for all of them
            for row in range(len(outputs)):
                one = slice(row, row + 1)
                total, _ = loss.backward_inside(outputs[one], targets[one], 1.0, np.empty_like(outputs[one]))
                if not np.isfinite(self._model.dtype.type(total)):
                    rows.append(row)
        return _Seen(name, f"the loss ({name}) is not finite", rows)

    def _in_gradient(self, dy: Array) -> _Seen | None:
        """Go back through the layers to where the gradient is not finite any more."""
        model, name = self._model, type(self._plan.loss).__name__
        if (rows := _rows(dy)).size:
            return _Seen(name, f"the gradient of the loss ({name}) is {_first(dy)}", rows)
        counts = [len(layer.params()) for layer in model.passes]
        first = next((i for i, count in enumerate(counts) if count), 0)
        number = len(model.params)
        for i in range(len(counts) - 1, first - 1, -1):
            dy = inside(model.passes[i]).backward(dy, self._pass, wants_dx=i > first)
            number -= counts[i]
            layer = self._names[i][0]
            if i > first and (rows := _rows(dy)).size:
                return _Seen(layer, f"the gradient of the input of layer {layer} is {_first(dy)}", rows)
            for param, param_name in zip(
                model.params[number : number + counts[i]], model.names[number : number + counts[i]], strict=True
            ):
                if not np.isfinite(param.grad).all():
                    what = "gradient" if param.momentum is None else "statistic"
                    return _Seen(layer, f"the {what} of {param_name} is {_first(param.grad)}", (), param_name)
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
            self._look(first, x if bias is None else x + bias, self._num_rows)
            self._num_rows += len(x)

    def see_output(self, number: int, y: Array) -> None:
        self._num_rows = 0
        self._look(self._names[number][1], y, 0)

    def _look(self, layer: str, y: Array, first_row: int) -> None:
        if self.seen is None and (rows := _rows(y)).size:
            self.seen = _Seen(layer, f"the output of layer {layer} is {_first(y)}", rows + first_row)


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
        observer = Observer(model, plan, before.step + 1, has_classes=data.has_classes)
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
                whose = "" if vector == 0 else " in the optimiser's states or the average"
                what = f"the update makes {name} {_first(view)}{whose}"
                return NotFinite(step=before.step, what=what, parameter=name)
    return None


def _rows(x: Array) -> Array:
    """The rows of x (N, ...) in which something is not finite."""
    return np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))


def _first(x: Array) -> str:
    """The first number that is not finite."""
    return str(float(x[~np.isfinite(x)][0]))
