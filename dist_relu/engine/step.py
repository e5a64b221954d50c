"""Every worker takes a training step like this: pass over my shards, meet, sum and update my chunks, meet.

A step reads one generation of parameters and optimiser state and writes the other; the barrier at its end is the
switch. P parameters, N samples in a batch, S shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import isfinite, nan
from typing import final

import numpy as np

from dist_relu.comm.whereabouts import PASS, PHASE, PREPARATION, SUM, SWITCH, UPDATE
from dist_relu.core.arrays import Array
from dist_relu.engine.batches import Batch, Feed, microbatches
from dist_relu.engine.memory import StepRequest
from dist_relu.engine.norms import NUM_SQUARES, Norms
from dist_relu.engine.side_by_side import SideBySide
from dist_relu.engine.update import Updater
from dist_relu.engine.verification import Digest, Verifier
from dist_relu.engine.watch.recorder import Recorder
from dist_relu.nn import Sequential
from dist_relu.nn.passes import ShardPass, forward_backward
from dist_relu.reduction.batch_sums import BatchSums, RowExchange
from dist_relu.reduction.chunks import chunks_of, empty_chunks
from dist_relu.reduction.reducer import Reducer
from dist_relu.reduction.sources import ReductionMemory
from dist_relu.runtime.world import World


@final
class TrainingStep:
    """This is one worker's part in training steps.

    x: the samples.  model: computes with the parameters of `generation`, those after the last step.
    optimizer: tells the rates of the next steps; a rule of the same kind may take its place between them.
    records: of the run's last steps, see `STEP_RECORD`; the first worker writes them.
    notes, norms: of the last step, if it was watched and this is worker 0, see `row_dtype` and `Norms.of_watched_step`.
    """

    notes: Array | None = None
    norms: Array

    def __init__(self, world: World, request: StepRequest) -> None:
        self._world = world
        self._barrier = world.node.barrier
        self._whereabouts = world.node.whereabouts
        self._here = world.node.whereabouts.words
        self._whereabouts.enter(PREPARATION)
        self._plan = plan = request.plan
        self._reduction = reduction = request.reduction
        self.model = model = request.model
        model.build(request.input_shape)
        memory = request.memory.map(world.node.attach)
        self.x, self._completed, self.records = memory.x, memory.completed, memory.records
        self._feed = Feed(plan, memory.x, memory.y, request.image_shape)
        self.optimizer = plan.optimizer
        self.generation = int(self._completed[world.rank]) % 2
        model.bind(memory.generations[self.generation, 0])
        self._values = [model.views(generation[0]) for generation in memory.generations]
        self._places = [param.places() for param in model.params]
        arrays = request.layout.arrays(memory.arena, plan.batch_size)
        self._pass = ShardPass(request.layout, arrays, model.params, plan.seed)
        self._shards = reduction.shards_of(world.rank)
        factors = {number: (arrays[x], arrays[dz]) for number, (x, dz) in request.layout.products.items()}
        self._reducer = Reducer(
            world,
            reduction,
            ReductionMemory(params=model.params, factors=factors, slots=memory.slots, totals=memory.totals),
        )
        chunks = chunks_of(reduction, world.rank, model.params, self._reducer.sources, memory.generations)
        self._norms = Norms(reduction.pieces, memory.squares)
        self._updater = Updater(plan, chunks, self._norms, self._barrier)
        self._skips = plan.options.skips
        self._verdicts = memory.verdicts[slice(world.node.ranks.start, world.node.ranks.stop)]
        self._sums = np.zeros((plan.shards, 2))  # the loss of each shard, and its number of correct predictions
        self._side_by_side: SideBySide[None] | None = None
        if request.layout.sums:
            sums = BatchSums(plan.shards, memory.sums, RowExchange(world, reduction))
            self._side_by_side = SideBySide(model, request.layout, arrays, plan.seed, sums, self._shards)
        self._verifier: Verifier | None = None
        if request.verify_every is not None:
            self._verifier = Verifier(
                request.verify_every, world.rank, plan, reduction, request.layout, model, self._feed, arrays
            )
        self._recorder = Recorder(world, request.watch, model.dtype) if request.watch else None

    def load_kernels(self) -> None:
        """Compile or load whatever a step needs, so that no step has to; collective.

        Every worker passes over one sample, in its first shard; its others are empty.
        """
        firsts = {self._reduction.shards_of(rank).start for rank in range(self._world.size)}
        stops = np.cumsum([shard in firsts for shard in range(self._plan.shards)]).tolist()
        one_sample_each = tuple(pairwise([0, *stops]))
        ways = sorted({False, self._recorder is not None})
        for is_watched in ways:
            self._reduce(Batch(np.arange(len(firsts)), one_sample_each, 0, 0, len(firsts), is_watched))
            self._barrier.wait()
        pieces, chunks = empty_chunks(self._reduction.num_vectors, self.model.dtype)
        trial = Updater(self._plan, chunks, Norms(pieces, np.zeros((len(pieces), NUM_SQUARES))), self._barrier)
        for is_watched in ways:
            for _ in range(min(self._plan.options.accumulate, 2)):
                trial.accumulate(())
            trial.step(self.optimizer.hyper(0, 0.0), 0, is_watched=is_watched)
        self._barrier.wait()

    def take(self, samples: Array, step: int, epoch: float) -> tuple[float, int]:
        """Take the step from one generation to the other; returns the loss and the number of correct predictions.

        A step whose loss is no number is not taken, or with `on_nan="skip"` as one that changes nothing; so is one then
        that leads to numbers which are none. The loss is NaN in both cases.
        samples: the numbers of all samples of the step, those of several batches when gradients are accumulated.
        """
        self._whereabouts.begin_step(step)
        loss, num_correct = 0.0, 0
        recorder = self._recorder if self._recorder and self._recorder.watches(step) else None
        self.notes = None
        if recorder:
            recorder.begin(step)
        if self._verifier:
            self._verifier.begin(step)
        for batch in microbatches(samples, self._plan, step, is_watched=recorder is not None):
            if batch.place:
                self._barrier.wait()  # slots and arena may be written again when everybody has accumulated from them
                self._here[PHASE] = PASS
            batch_loss, batch_correct = self._reduce(batch)
            loss, num_correct = loss + batch_loss / len(samples), num_correct + batch_correct
            if not isfinite(loss):
                if self._skips:
                    break
                return loss, num_correct
            self._here[PHASE] = UPDATE
            self._updater.accumulate(batch.shard_bounds)
        else:
            self._updater.step(self.optimizer.hyper(step, epoch), self.generation, is_watched=recorder is not None)
        if self._skips and not (isfinite(loss) and self._leads_to_numbers()):
            self._updater.skip(self.generation)
            loss, num_correct, recorder = nan, 0, None
        if self._world.rank == 0:
            self.records[step % len(self.records)] = loss, num_correct, len(samples), 0.0
        self._barrier.wait()
        self._here[PHASE] = SWITCH
        self._completed[self._world.rank] += 1
        if recorder:
            self.notes = recorder.gather()
            if self.notes is not None:
                self.norms = self._norms.of_watched_step()
        self.generation = 1 - self.generation
        for places, value in zip(self._places, self._values[self.generation], strict=True):
            places["value"] = value
        return loss, num_correct

    def _leads_to_numbers(self) -> bool:
        """Tell whether the step leads to numbers that are finite; collective.  All nodes have all of them."""
        self._verdicts[self._world.node.rank] = self._updater.is_finite(1 - self.generation)
        self._barrier.wait()
        return bool(self._verdicts.all())

    def take_digests(self) -> Sequence[Digest]:
        """Hand over what was noted of verified shards since the last time."""
        return self._verifier.take_digests() if self._verifier else ()

    def begin_epoch(self) -> None:
        if self._recorder:
            self._recorder.begin_epoch()

    def end_epoch(self) -> Array | None:
        """Tell which units were active since `begin_epoch`, see `EpochDone`; collective.  Worker 0 gets them."""
        return self._recorder.end_epoch() if self._recorder else None

    def _reduce(self, batch: Batch) -> tuple[float, int]:
        """Let the gradient of a batch become whole; returns its summed loss and correct predictions.  Collective."""
        if self._verifier:
            self._verifier.verify(batch)
        self._reducer.begin(batch.shard_bounds)
        if self._side_by_side:
            present = [shard for shard in self._shards if range(*batch.shard_bounds[shard])]
            self._side_by_side.run(partial(self._pass_over, batch), present)
        for shard in self._shards:
            self._run_pass(batch, shard)
            if self._verifier:
                self._verifier.note(batch, shard, self._reducer.row, self._sums[shard])
            self._reducer.add(shard, *self._sums[shard].tolist())
        self._here[PHASE] = SUM
        return self._reducer.finish()

    def _run_pass(self, batch: Batch, shard: int) -> None:
        """Leave the gradient of one shard's rows in the arena and in the reducer's row, and its sums."""
        first, stop = batch.shard_bounds[shard]
        if first == stop:
            self._reducer.row[:] = 0
            self._sums[shard] = 0
        elif self._side_by_side:
            self._side_by_side.take(shard)
        else:
            self._pass_over(batch, shard, self.model, self._pass, self._reducer.on_grads_ready(shard))

    def _pass_over(
        self,
        batch: Batch,
        shard: int,
        model: Sequential,
        run: ShardPass,
        on_grads_ready: Callable[[int], object] | None = None,
    ) -> None:
        """Pass over the rows of one shard through the model, or a copy of it."""
        first, stop = batch.shard_bounds[shard]
        observer = self._recorder.observer(shard, is_watched=batch.is_watched) if self._recorder else None
        run.enter(first, stop, batch_size=batch.step_size, step=batch.number, shard=shard, observer=observer)
        x, loss, targets = self._feed.gather(batch, shard, run)
        forward_backward(model, loss, x, targets, 1 / batch.step_size, run, self._sums[shard], on_grads_ready)
