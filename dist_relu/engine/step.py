"""Every worker takes training steps like this: pass over my shards, meet, sum and update my chunks, meet.

A step reads one generation of parameters and optimiser state and writes the other; the barrier at its end is the
switch. What differs from step to step lies in `StepInputs`, so a step of the same kind is recorded, and steps one after
another are played without the interpreter (`dist_relu.kernels.tape`). P parameters, N samples in a batch, S shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from itertools import pairwise
from math import isfinite, nan
from typing import final

import numpy as np

from dist_relu.comm import marks as phases
from dist_relu.comm.marks import Marks
from dist_relu.comm.whereabouts import PASS, PREPARATION, SUM, SWITCH, UPDATE
from dist_relu.compression.feedback import ErrorFeedback, Part
from dist_relu.compression.gradient import CompressedGradient
from dist_relu.core.arrays import Array
from dist_relu.core.machine import num_cores
from dist_relu.engine.batches import Batch, Feed, microbatches
from dist_relu.engine.grouping import group_numbers
from dist_relu.engine.inputs import StepInputs
from dist_relu.engine.memory import StepRequest
from dist_relu.engine.norms import NUM_SQUARES, Norms
from dist_relu.engine.side_by_side import SideBySide
from dist_relu.engine.tracing import LAYERS, STEPS, MarksOfShard
from dist_relu.engine.update import Updater
from dist_relu.engine.verification import Digest, Verifier
from dist_relu.engine.watch.events import StepDone
from dist_relu.engine.watch.recorder import Recorder
from dist_relu.kernels import steps as kernels
from dist_relu.kernels.ahead import calls_of
from dist_relu.kernels.copies import fill
from dist_relu.kernels.tape import Tapes, play, until_done
from dist_relu.nn import Sequential
from dist_relu.nn.description import is_ours
from dist_relu.nn.passes import ShardPass, forward_backward
from dist_relu.reduction.batch_sums import BatchSums, RowExchange
from dist_relu.reduction.chunks import Chunk, chunks_of, empty_chunks
from dist_relu.reduction.reducer import Reducer
from dist_relu.reduction.sources import ReductionMemory
from dist_relu.runtime.compiling import compile_ahead
from dist_relu.runtime.world import World


class _NotFinite(Exception):
    """The loss of a step is no number."""


def _refuse(_: int) -> None:
    raise _NotFinite


@final
class TrainingStep:
    """This is one worker's part in training steps.

    samples: the data set's.  chances: of samples to be drawn, see `dist_relu.engine.weighting`.
    model: computes with the parameters of `generation`, those after the last step.
    optimizer: tells the rates of the next steps; a rule of the same kind may take its place between them.
    records: of the run's last steps, see `STEP_RECORD`; the first worker writes them.
    """

    _notes: Array | None = None  # of the last step, and so are the norms
    _norms_of_step: Array
    _marks: Marks | None = None
    _detail = STEPS

    def __init__(self, world: World, request: StepRequest) -> None:
        self._world = world
        self._barrier = world.node.barrier
        self._whereabouts = world.node.whereabouts
        self._here = world.node.whereabouts.place
        self._whereabouts.enter(PREPARATION)
        self._plan = plan = request.plan
        self._reduction = reduction = request.reduction
        self.model = model = request.model
        model.build(request.input_shape)
        memory = request.memory.map(world.node.attach)
        self.samples, self.chances = request.samples.attach(world.node), memory.chances
        self._completed, self.records = memory.completed, memory.records
        self._feed = Feed(plan, self.samples, memory.y, memory.weights, request.image_shape)
        self.optimizer = plan.optimizer
        self._inputs = StepInputs(plan, model.dtype)
        self._tapes = Tapes(after=2)  # many runs are short
        self._mine = self._completed[world.rank : world.rank + 1]
        self._seconds = memory.records["seconds"] if world.rank == 0 else np.empty(0)
        self._results = [memory.records[name] for name in ("loss", "num_correct", "num_samples")]
        self.generation = int(self._completed[world.rank]) % 2
        generations = memory.generations[..., : reduction.num_params]
        model.bind(generations[self.generation, 0])
        self._values = [model.views(generation[0]) for generation in generations]
        self._places = [param.places() for param in model.params]
        arrays = request.layout.arrays(memory.arena, plan.batch_size)
        clock = self._inputs.clock[kernels.BATCH : kernels.BATCH + 1]
        draws_as = plan.first_shard
        self._pass = ShardPass(request.layout, arrays, model.params, plan.seed, clock=clock, first_shard=draws_as)
        self._shards = reduction.shards_of(world.rank)
        factors = {number: (arrays[x], arrays[dz]) for number, (x, dz) in request.layout.products.items()}
        self._reducer = Reducer(
            world,
            reduction,
            ReductionMemory(params=model.params, factors=factors, slots=memory.slots, totals=memory.totals),
        )
        chunks = chunks_of(reduction, world.rank, model.params, self._reducer.sources, generations)
        self._norms = Norms(reduction.pieces, memory.squares)
        groups, compressed = group_numbers(plan.optimizer, model), None
        if feedback := plan.options.feedback:
            states = generations[:, plan.compression_states]
            compressed = self._compressed(feedback, chunks, memory.group_sums[:, : reduction.num_params], states)
        self._updater = Updater(plan, chunks, self._norms, self._barrier, groups, compressed)
        self._skips = plan.options.skips
        self._verdicts = memory.verdicts[slice(world.node.ranks.start, world.node.ranks.stop)]
        self._sums = np.zeros((plan.shards, 2))  # the loss of each shard, and its number of correct predictions
        self._side_by_side: SideBySide[None] | None = None
        if request.layout.sums:
            sums = BatchSums(plan.shards, memory.sums, RowExchange(world, reduction))
            self._side_by_side = SideBySide(model, request.layout, arrays, plan.seed, sums, self._shards, draws_as)
        self._verifier: Verifier | None = None
        if request.verify_every is not None:
            self._verifier = Verifier(
                request.verify_every, world.rank, plan, reduction, request.layout, model, self._feed, arrays
            )
        self._recorder = Recorder(world, request.watch, model.dtype) if request.watch else None
        self._is_recorded = not (self._skips or self._verifier or self._side_by_side)

    def _compressed(
        self, compression: ErrorFeedback, chunks: Sequence[Chunk], sums: Array, states: Array
    ) -> CompressedGradient:
        """Make the gradient of these chunks, by way of the compression.  sums, states: see `Part`."""
        part = Part(
            params=self.model.params,
            seed=self._plan.seed,
            sums=sums,
            states=states,
            chunks=[(chunk.place, chunk.is_trained) for chunk in chunks],
            barrier=self._barrier,
            rank=self._world.node.rank,
            workers=len(self._world.node.ranks),
        )
        return CompressedGradient(compression, self._reduction, part, self._reducer.group_sources)

    def load_kernels(self) -> None:
        """Compile or load whatever a step needs, so that no step has to; collective.

        Every worker passes over one sample, in its first shard; its others are empty.
        """
        is_ours_alone = is_ours([self.model.layers, self._plan.loss, self._plan.optimizer])
        if is_ours_alone and self._is_recorded and not self._world.progress_engine:
            node = self._world.node
            compile_ahead(calls_of(self._take_one_of_each), 0 if node.rank else max(num_cores() - len(node.ranks), 0))
            if not self._recorder:
                self._barrier.wait()
                return
        firsts = {self._reduction.shards_of(rank).start for rank in range(self._world.size)}
        stops = np.cumsum([shard in firsts for shard in range(self._plan.shards)]).tolist()
        one_sample_each = tuple(pairwise([0, *stops]))
        ways = sorted({False, self._recorder is not None})
        for is_watched in ways:
            self._reduce(Batch(np.arange(len(firsts)), np.arange(len(firsts)), one_sample_each, 0, 0, is_watched))
            self._barrier.wait()
        pieces, chunks = empty_chunks(self._reduction.num_vectors, self.model.dtype)
        trial = Updater(self._plan, chunks, Norms(pieces, np.zeros((len(pieces), NUM_SQUARES))), self._barrier)
        for is_watched in ways:
            for _ in range(min(self._plan.options.accumulate, 2)):
                trial.accumulate(())
            trial.step(self._inputs.hyper, 0, is_watched=is_watched)
        self._barrier.wait()

    def _take_one_of_each(self) -> None:
        """Take a whole step, and one that is as small as the last of an epoch."""
        whole = self._inputs.samples.size
        for num_samples in {whole, len(self.samples) % whole or whole}:
            self._take_one(self.generation, num_samples, is_watched=False)

    @property
    def max_steps(self) -> int:
        """So many steps can be taken with one call."""
        return self._inputs.max_steps

    def ahead(self, steps: range, samples_of: Callable[[int], Array]) -> AbstractContextManager[None]:
        """Return a context in which these steps are taken, so that their samples are read ahead.

        samples_of: a step, by its number in the run.
        """

        def num_done() -> int:
            return int(self._mine[0]) - steps.start

        return self._feed.ahead(len(steps), lambda number: samples_of(steps[number]), num_done, self._shards)

    def trace(self, marks: Marks | None, detail: int) -> None:
        """Mark what is done in the next steps, in such a detail, see `dist_relu.engine.tracing`; None: nothing."""
        if marks is not self._marks or detail != self._detail:
            self._marks, self._detail = marks, detail
            self._tapes = Tapes(after=2)

    @property
    def is_played(self) -> bool:
        """Tell whether whole steps are played by now."""
        return bool(self._tapes.ready([(self.generation, self._inputs.samples.size)]))

    def go_to(self, step: int) -> None:
        """Let this step come next, for which somebody has written the vectors into its generation."""
        self._mine[0] = step
        self._enter_generation(step % 2)

    def is_watched(self, step: int) -> bool:
        """Tell whether a step is watched, which must be taken alone then."""
        return bool(self._recorder and self._recorder.watches(step))

    def take(self, steps: range, samples: Array, epochs: Sequence[float]) -> float:
        """Take steps from one generation to the other, and on; returns the mean loss of the last one that was tried.

        A step whose loss is no number is not taken, and those behind it neither. With `on_nan="skip"` it is taken as
        one that changes nothing, and so is one that leads to numbers which are none; each step then comes alone, as one
        that is watched does.
        samples: their numbers, step after step; those of several batches in each when gradients are accumulated. The
        last step may have fewer.  epochs: how many are over in the middle of each step.
        """
        hypers = [self.optimizer.hyper(*now) for now in zip(steps, epochs, strict=True)]
        self._inputs.bring(steps.start, samples, hypers)
        self._notes = None
        kinds = self._kinds(len(steps), len(samples))
        with suppress(_NotFinite):
            while kinds:
                tapes = [] if self.is_watched(steps.start) else self._tapes.ready(kinds)
                if tapes:
                    play(tapes)
                else:
                    self._take_next(steps[-len(kinds)], *kinds[0])
                kinds = kinds[max(len(tapes), 1) :]
                self._enter_generation(int(self._mine[0]) % 2)
        return float(self._inputs.outcome[0])

    def seen(self, step: int) -> StepDone | None:
        """Tell what is known of a step, the last that was taken, if it was watched and this is worker 0."""
        if self._notes is None:
            return None
        record = self.records[step % len(self.records)]
        return StepDone(
            step=step,
            loss=float(record["loss"]),
            num_correct=int(record["num_correct"]),
            num_samples=int(record["num_samples"]),
            seconds=float(record["seconds"]),
            rows=self._notes,
            norms=self._norms_of_step,
        )

    def _kinds(self, num_steps: int, num_samples: int) -> list[tuple[int, int]]:
        """Tell generation and number of samples of steps to come; those that agree in both do the same."""
        whole = self._inputs.samples.size
        kinds = [(self.generation, whole), (1 - self.generation, whole)] * (num_steps // 2 + 1)
        last = num_samples - (num_steps - 1) * whole
        return [*kinds[: num_steps - 1], (kinds[num_steps - 1][0], last)]

    def _take_next(self, step: int, generation: int, num_samples: int) -> None:
        """Take a step with the interpreter, and record it if that may be of use."""
        recorder = self._recorder if self.is_watched(step) else None
        if recorder:
            recorder.begin(step)
        if self._verifier:
            self._verifier.begin(step)
        work = partial(self._take_one, generation, num_samples, is_watched=recorder is not None)
        if recorder or not self._is_recorded:
            work()
        else:
            self._tapes.record((generation, num_samples), work)
        if recorder and isfinite(self._inputs.outcome[0]):
            self._notes = recorder.gather()
            if self._notes is not None:
                self._norms_of_step = self._norms.of_watched_step()

    def _take_one(self, generation: int, num_samples: int, *, is_watched: bool) -> None:
        """Take the step from a generation to the other one that the inputs tell of."""
        inputs, marks = self._inputs, self._marks
        if marks:
            marks.begin_step()
        inputs.begin_step(num_samples, self._here, PASS)
        try:
            for batch in self._batches(num_samples, is_watched=is_watched):
                self._reduce(batch)
                until_done(kernels.add_outcome, self._reducer.total, num_samples, inputs.outcome, attend=_refuse)
                kernels.enter(self._here, UPDATE)
                if marks:
                    marks.enter(phases.UPDATE)
                self._updater.accumulate(batch.shard_bounds)
            self._updater.step(inputs.hyper, generation, is_watched=is_watched)
            is_finite = not self._skips or self._leads_to_numbers()
        except _NotFinite:
            if not self._skips:
                raise
            is_finite = False
        if not is_finite:
            self._updater.skip(generation)
            inputs.outcome[:] = nan, 0
        if self._world.rank == 0:
            kernels.record_step(inputs.clock, inputs.outcome, num_samples, *self._results)
        self._barrier.wait()
        if marks:
            marks.enter(phases.BETWEEN)
        kernels.complete_step(inputs.clock, self._mine, self._seconds, self._here, SWITCH)

    def _batches(self, num_samples: int, *, is_watched: bool) -> Iterator[Batch]:
        """Go through the batches of the step."""
        step, samples = int(self._inputs.clock[kernels.STEP]), self._inputs.samples[:num_samples]
        for batch in microbatches(samples, self._plan, step, is_watched=is_watched):
            if batch.place:
                self._barrier.wait()  # slots and arena may be written again when everybody has accumulated from them
                kernels.enter(self._here, PASS)
                if self._marks:
                    self._marks.enter(phases.PASS)
            kernels.begin_batch(self._inputs.clock, batch.place, self._plan.options.accumulate)
            yield batch

    def _enter_generation(self, generation: int) -> None:
        """Let the model compute with the parameters of a generation."""
        self.generation = generation
        for places, value in zip(self._places, self._values[generation], strict=True):
            places["value"] = value

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

    def _reduce(self, batch: Batch) -> None:
        """Let the gradient of a batch become whole, with its loss; collective."""
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
            if self._marks and self._detail > STEPS:
                self._marks.enter(phases.ADD, 0, shard)
            self._reducer.add(shard, self._sums[shard])
        kernels.enter(self._here, SUM)
        if self._marks:
            self._marks.note_busy()
            self._marks.enter(phases.SUM)
        self._reducer.finish()

    def _run_pass(self, batch: Batch, shard: int) -> None:
        """Leave the gradient of one shard's rows in the arena and in the reducer's row, and its sums."""
        first, stop = batch.shard_bounds[shard]
        if first == stop:
            fill(self._reducer.row, 0.0)
            fill(self._sums[shard], 0.0)
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
        marks = None
        if self._marks and self._detail > STEPS:
            self._marks.enter(phases.GATHER, 0, shard)
            marks = MarksOfShard(self._marks, shard, with_layers=self._detail == LAYERS)
        run.enter(first, stop, batch_size=batch.step_size, step=batch.number, shard=shard, observer=observer)
        x, loss, targets = self._feed.gather(batch, shard, run)
        forward_backward(model, loss, x, targets, 1 / batch.step_size, run, self._sums[shard], on_grads_ready, marks)
