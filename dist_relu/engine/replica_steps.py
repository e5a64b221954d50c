"""Every worker lets its replicas take a part of a run, one after the other, and has its share in their average.

A part is some steps, at most up to the next average. It reads the vectors of one half of the memory and writes those of
the other, so whatever goes wrong in it, the run stands where it stood, and the coordinator decides whether the part
counts. While a replica takes steps, its vectors lie in memory of the worker alone, which all of its replicas share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import isfinite
from typing import final

import numpy as np

from dist_relu.comm.shared_memory import Handles, LentArray
from dist_relu.core.arrays import Array, aligned_empty
from dist_relu.data.augment import ImageShape
from dist_relu.engine.loop import NotKept, num_steps_per_epoch
from dist_relu.engine.memory import STEP_RECORD, Memory, StepRequest
from dist_relu.engine.norms import NUM_SQUARES
from dist_relu.engine.plan import StepPlan
from dist_relu.engine.replicas import ReplicaMemory, plan_of_replica, samples_of_replica
from dist_relu.engine.step import TrainingStep
from dist_relu.engine.watch.events import StepDone
from dist_relu.engine.watch.recorder import WatchRequest
from dist_relu.engine.weighting import order_of_epoch
from dist_relu.kernels.ordered_sum import BLOCK, ordered_sum
from dist_relu.nn import Sequential
from dist_relu.nn.passes import Layout
from dist_relu.optim import Optimizer
from dist_relu.partition import PartialSums
from dist_relu.reduction.batch_sums import batch_sums_shape
from dist_relu.reduction.pieces import TAIL, join
from dist_relu.reduction.plan import ReductionPlan
from dist_relu.reduction.reducer import Reducer
from dist_relu.reduction.sources import ReductionMemory
from dist_relu.runtime.placed_samples import Samples, SamplesHandle
from dist_relu.runtime.world import World

MOST_STEPS = 1024
"""Of a part."""


@dataclass(frozen=True, kw_only=True)
class ReplicaRequest:
    """This is everything that a worker must know to let replicas take steps.

    model: not built yet.  image_shape: of samples that are augmented.  layout: of the model's passes.
    of_replica: how a replica sums its gradients.  averages: how all of them are averaged, each as a shard.
    watch: of the first replica.
    """

    model: Sequential
    input_shape: tuple[int, ...]
    image_shape: ImageShape | None
    plan: StepPlan
    layout: Layout
    of_replica: ReductionPlan
    averages: ReductionPlan
    samples: SamplesHandle
    memory: ReplicaMemory[Handles]
    watch: WatchRequest | None


@dataclass(frozen=True, kw_only=True)
class PartRequest:
    """A part of a run is the steps from number `first` to `stop` - 1.

    run: its number; workers keep what they have made for it until the next run.  setup: where they have nothing of it.
    half: of the memory that is read.  optimizer: in place of the plan's, of the same kind.
    """

    run: int
    setup: ReplicaRequest | None
    first: int
    stop: int
    half: int
    shuffle: bool
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True)
class PartTaken:
    """A worker replies what became of its replicas.

    records: (replicas, steps), of `STEP_RECORD`; those of steps in which a replica has no samples are 0.
    stopped: the number of the first step whose loss is no number for one of them, and that loss; None if there is none.
    is_finite: whether all parameters are numbers that a part leaves behind which was not stopped.
    watched: steps of the first replica, if it is the worker's.  active: for each epoch that has ended, see `EpochDone`.
    """

    records: Array
    stopped: tuple[int, float] | None
    is_finite: bool
    watched: Sequence[StepDone]
    active: Mapping[int, Array | None]


def take_part(world: World, request: PartRequest) -> PartTaken | NotKept:
    """Let replicas take a part of a run; collective.  Where that ends a round, they are averaged."""
    run: _Replicas | None = world.kept.pop(request.run, None)  # what fails leaves nothing that could be gone on with
    if request.setup is not None:
        world.kept.clear()
        run = _Replicas(world, request.setup)
    if run is None:
        return NotKept()
    taken = run.take(request)
    if world.progress_engine:
        world.progress_engine.settle()
    world.kept[request.run] = run
    return taken


@final
class _Replicas:
    """These replicas are a worker's."""

    def __init__(self, world: World, request: ReplicaRequest) -> None:
        self._plan = plan = request.plan
        self._numbers = request.averages.shards_of(world.rank)
        memory = request.memory.map(world.node.attach)
        self._size, self._num_vectors = request.of_replica.num_params, plan.num_vectors
        self._vectors = memory.vectors.reshape(2, -1, self._num_vectors, self._size)
        samples = request.samples.attach(world.node)
        self._num_samples, self._chances = len(samples), memory.chances
        self._per_step = plan.batch_size * plan.options.accumulate
        self._per_epoch = num_steps_per_epoch(self._num_samples, plan.batch_size, plan.options.accumulate)
        self._order_of = lru_cache(2)(self._order_anew)
        plans = {number: plan_of_replica(plan, number) for number in self._numbers}
        self._working = _working_memory(request, memory, max(one.batch_size for one in plans.values()))
        alone = _alone(world)
        steps = partial(_steps_of, alone, request, self._working, samples)
        self._steps = {number: steps(one) for number, one in plans.items()}
        self._per_replica = {number: one.batch_size * plan.options.accumulate for number, one in plans.items()}
        self._averager = _Averager(world, request, memory, self._vectors)
        self._steps[self._numbers[0]].load_kernels()
        self._watched: list[StepDone] = []  # in the present part
        self._active: dict[int, Array | None] = {}

    def take(self, request: PartRequest) -> PartTaken:
        """Let each replica take the steps of a part, and average them where that ends a round; collective."""
        assert self._plan.averaging
        old, new = self._vectors[request.half], self._vectors[1 - request.half]
        records = np.zeros((len(self._numbers), request.stop - request.first), STEP_RECORD)
        stop, loss, is_finite = request.stop, 0.0, True
        self._watched, self._active = [], {}
        for number, record in zip(self._numbers, records, strict=True):
            if stop == request.first:  # none of the others' steps would count
                break
            reached, of_next = self._take_steps(number, request, stop, old[number], new[number], record)
            if reached < stop:  # so the others need not go on for longer
                stop, loss = reached, of_next
            is_finite &= bool(np.isfinite(new[number, 0]).all())
        if request.stop % self._plan.averaging.steps == 0:
            is_finite &= self._averager.average(new, request.stop // self._plan.averaging.steps)
        return PartTaken(
            records=records,
            stopped=(stop, loss) if stop < request.stop else None,
            is_finite=is_finite,
            watched=self._watched,
            active=self._active,
        )

    def _take_steps(
        self, number: int, request: PartRequest, stop: int, old: Array, new: Array, records: Array
    ) -> tuple[int, float]:
        """Let one replica take steps, from its vectors `old` (V, P) to `new`, up to number `stop`.

        Returns the number of the step that would come next, and where its loss is no number, that.
        records: gets what they have come to.
        """
        step, first = self._steps[number], request.first
        step.optimizer = request.optimizer
        generations = self._working.generations[..., : self._size]

        def samples_of(place: int) -> Array:
            epoch, at = divmod(place, self._per_epoch)
            order: Array = self._order_of(epoch, request.shuffle)
            return samples_of_replica(order[at * self._per_step : (at + 1) * self._per_step], self._plan, number)

        generations[first % 2] = old
        step.go_to(first)
        loss = 0.0
        coming = {place: samples_of(place) for place in range(first, stop)}
        with step.ahead(range(first, stop), coming.__getitem__):
            for steps in self._groups(number, coming):
                if steps.start % self._per_epoch == 0:
                    step.begin_epoch()
                if len(coming[steps.start]):
                    samples = np.concatenate([coming[place] for place in steps])
                    loss = step.take(steps, samples, [(place + 0.5) / self._per_epoch for place in steps])
                else:  # none of its shards has a sample
                    generations[steps.stop % 2] = generations[steps.start % 2]
                    step.go_to(steps.stop)
                    continue
                taken = np.arange(steps.start, int(self._working.completed[0]))
                records[taken - first] = self._working.records[taken % MOST_STEPS]
                if not isfinite(loss):
                    break
                if seen := step.seen(steps.start):
                    self._watched.append(seen)
                if number == 0 and steps.stop % self._per_epoch == 0:
                    self._active[steps.stop // self._per_epoch - 1] = step.end_epoch()
        reached = int(self._working.completed[0])
        new[...] = generations[reached % 2]
        return reached, loss

    def _groups(self, number: int, coming: Mapping[int, Array]) -> Iterator[range]:
        """Put steps together that are taken at once: of one epoch, all but the last with as many samples as can be.

        Steps without samples, and those that are watched, come alone.  coming: the samples of steps, by their numbers.
        """
        step, whole = self._steps[number], self._per_replica[number]
        begin = first = min(coming)
        for place, samples in coming.items():
            is_alone = not len(samples) or step.is_watched(place)
            if is_alone and begin < place:
                yield range(begin, place)
                begin = place
            is_last = (place + 1) % self._per_epoch == 0 or place + 1 == first + len(coming)
            if is_alone or is_last or len(samples) < whole or place + 1 - begin == step.max_steps:
                yield range(begin, place + 1)
                begin = place + 1

    def _order_anew(self, epoch: int, shuffle: bool) -> Array:
        """The samples of an epoch in their order."""
        return order_of_epoch(self._num_samples, self._plan.seed, epoch, shuffle=shuffle, chances=self._chances)


def _alone(world: World) -> World:
    """Return the world of a worker's replicas, in which there is nobody else."""
    barrier = world.node.barrier.alone()
    node = replace(world.node, number=0, barrier=barrier)
    return replace(world, rank=0, size=1, barrier=barrier, node=node, nodes=[range(1)], progress_engine=None)


def _working_memory(request: ReplicaRequest, memory: ReplicaMemory[Array], batch_size: int) -> Memory[Array]:
    """Make the memory of the steps of one replica at a time, of this process.  batch_size: the largest."""
    reduction, dtype = request.of_replica, request.model.dtype
    generations = aligned_empty(reduction.generations_shape, dtype)
    generations[...] = 0
    return Memory(
        y=memory.y,
        weights=memory.weights,
        chances=memory.chances,
        generations=generations,
        slots=np.zeros(reduction.slots_shape, dtype),
        totals=np.zeros(reduction.totals_shape, dtype),
        group_sums=np.zeros((0, reduction.num_params), dtype),
        squares=np.zeros((len(reduction.pieces), NUM_SQUARES)),
        sums=np.zeros(batch_sums_shape(reduction.shards, request.layout.sums)),
        arena=aligned_empty((request.layout.size_bytes(batch_size),), np.uint8),
        verdicts=np.zeros(0, np.bool),
        completed=np.zeros(1, np.int64),
        records=np.zeros(MOST_STEPS, STEP_RECORD),
    )


def _steps_of(
    alone: World, request: ReplicaRequest, working: Memory[Array], samples: Samples, plan: StepPlan
) -> TrainingStep:
    """Make the steps of a replica.  alone: see above.  plan: its own."""
    lent = working.map(LentArray)
    step = StepRequest(
        model=request.model.blueprint(),
        input_shape=request.input_shape,
        image_shape=request.image_shape,
        plan=plan,
        layout=request.layout,
        reduction=request.of_replica,
        samples=SamplesHandle(dtype=samples.dtype, rows=samples.rows),
        memory=lent.map(lambda array: [array.handle]),
        watch=None if plan.first_shard else request.watch,
        verify_every=None,
    )
    return TrainingStep(alone, step)


@final
class _Averager:
    """This is a worker's part in the averages: replicas are summed as shards are, each along the same tree."""

    def __init__(self, world: World, request: ReplicaRequest, memory: ReplicaMemory[Array], vectors: Array) -> None:
        """vectors: (2, R, V, P), of all replicas of this node."""
        assert request.plan.averaging
        plan, model = request.averages, request.model.blueprint().build(request.input_shape)
        self._shards = plan.shards
        self._mine = plan.shards_of(world.rank)
        ranks = world.node.ranks
        self._here = slice(plan.shards_of(ranks[0]).start, plan.shards_of(ranks[-1]).stop)
        self._size = plan.num_params
        self._reducer = Reducer(
            world,
            plan,
            ReductionMemory(params=model.params, factors={}, slots=memory.slots, totals=memory.totals),
        )
        pieces = [join(numbers, plan.pieces) for numbers in plan.chunks[world.rank]]
        self._chunks = [
            (slice(piece.start, piece.stop), model.params[piece.param].momentum is None, source)
            for piece, source in zip(pieces, self._reducer.sources, strict=True)
        ]
        self._outer_rule = request.plan.averaging.outer
        self._outer = memory.outer.reshape(2, request.plan.num_outer, self._size)
        self._total = np.empty(self._size, model.dtype)
        self._stack = aligned_empty((1, BLOCK), model.dtype)

    def average(self, vectors: Array, number: int) -> bool:
        """Let all replicas go on from their average; collective.  Returns whether this worker's chunks are numbers.

        vectors: (R, V, P), the parameters are the first of each V.  number: of the round that ends, from 1.
        """
        self._reducer.begin(((0, 1),) * self._shards)
        nothing = np.zeros(TAIL)
        for replica in self._mine:
            self._reducer.row[: self._size] = vectors[replica, 0]
            self._reducer.add(replica, nothing)
        self._reducer.finish()
        before, after = self._outer[1 - number % 2], self._outer[number % 2]
        is_finite = True
        for part, is_trained, source in self._chunks:
            mean = self._total[part]
            ordered_sum(*source.partial_sums(()), mean)
            mean /= mean.dtype.type(self._shards)
            if self._outer_rule:
                self._go(mean, before[:, part], after[:, part], is_trained=is_trained)
            vectors[self._here, 0, part] = mean
            is_finite &= bool(np.isfinite(mean).all())
        return is_finite

    def _go(self, mean: Array, before: Array, after: Array, *, is_trained: bool) -> None:
        """Take the outer step towards the mean of a chunk, which becomes where that leads."""
        assert self._outer_rule
        if not is_trained:  # running means are averages already
            after[...] = before
            after[0] = mean
            return
        gradient = (before[0] - mean).reshape(1, -1)
        sums = PartialSums(gradient, 0, np.zeros(1, np.int64), self._stack)
        hyper = np.array(self._outer_rule.hyper(0, 0.0), mean.dtype)
        self._outer_rule.update(sums, list(before), list(after), hyper)
        mean[...] = after[0]
