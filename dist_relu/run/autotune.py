"""How many workers, shards and bytes a message are the fastest, by trying them on the steps of a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from dist_relu.comm.buckets import num_buckets
from dist_relu.core.checks import check_bool, check_is, check_positive
from dist_relu.core.sizes import size_text
from dist_relu.errors import BackendError, PartitionError, TrainingWarning
from dist_relu.run.race import Outcome, Runner, race
from dist_relu.run.trainer import Trainer

_WARM_UP = 3
"""Of a turn's steps, the first ones are recorded, and not timed."""

_WARM_UP_OF_REPLICAS = 8
"""They record theirs later, and as many before an average as behind it."""

_TURNS = 6
"""So many turns of each way fit into the time for a question."""

_FEWEST_STEPS, _MOST_STEPS = 2, 500
"""Timed in a turn."""

_SHARDS_OF_A_WORKER = (1, 2, 4)
_BUCKETS = tuple(size << 10 for size in (64, 256, 1024, 4096))

Question = Literal["workers", "shards", "bucket_bytes"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A question was decided.

    value: for this.  outcome: the times that decided; None where there was nothing to try, for this `reason`.
    """

    question: Question
    value: int
    outcome: Outcome | None = None
    reason: str = ""

    def __str__(self) -> str:
        name = _named(self.question, self.value)
        if self.outcome is None:
            return f"{name}: {self.reason}."
        best, *others = sorted(self.outcome.runners, key=lambda runner: runner.value != self.value)
        told = ", ".join(
            f"{self._short(runner.value)} took {_milliseconds(runner)}"
            f"{' (no clear difference)' if runner.value in self.outcome.left else ''}"
            for runner in others
        )
        turns = max(len(runner.step_s) for runner in self.outcome.runners)
        steps = sum(runner.steps for runner in self.outcome.runners)
        return (
            f"{name}: {_milliseconds(best)} ms a step; {told} "
            f"({steps:,} steps in {turns} round{'s' * (turns > 1)}, {self.outcome.seconds:.1f} s)."
        )

    def _short(self, value: int) -> str:
        return size_text(value) if self.question == "bucket_bytes" else f"{value:,}"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """This is the fastest way to take the steps of a run, here and now.

    shards: those that were found, or those that the run has.  choices: one for each question, with the times that
    decided it; `print(tuning)` tells them, a line each.
    """

    workers: int
    shards: int
    bucket_bytes: int
    choices: Sequence[Choice]

    def __str__(self) -> str:
        return "\n".join(str(choice) for choice in self.choices)


def autotune(
    trainer: Trainer, *, workers: bool = True, shards: bool = False, buckets: bool = True, seconds: float = 3.0
) -> Tuning:
    """Find the fastest way to take the steps of a run, and let it go on that way, to the same bits.

    The steps that are timed are those of other runs with the same model, data and options, from the parameters on that
    this one has come to; it stays where it is. Different ways take turns, until one was slower each time.

    workers: try fewer of them, down to one: 1, 2, 3, 4, 8, 16, ... There are as many as were fastest behind that; on
    "serial" and "mpi" there stay as many as there are.
    shards: also try other numbers of shards, as many as workers, and 2 and 4 times as many. They fix the bits, so the
    run keeps its own, and `Tuning.shards` is for another one: `coordinator.trainer(..., shards=tuning.shards)`.
    buckets: try messages of other sizes, where there are several nodes; sets `Trainer.bucket_bytes`.
    seconds: about so long for each of these questions, behind a first turn of every way. Replicas take whole rounds in
    a turn, from one average to the next, however long these are, and the time of a step is its share of a round.

    Raises ValueError for shards=True where shards are in groups, those of replicas or of a compression, so that their
    number is no matter of speed alone; and what `Trainer.fit` raises: steps that diverge would do so in the run, too.
    """
    check_is("trainer", trainer, Trainer)
    check_positive("seconds", seconds)
    check_bool("workers", workers)
    check_bool("shards", shards)
    check_bool("buckets", buckets)
    if shards and trainer.has_groups:
        raise ValueError(
            "shards=True: the run has replicas or a compression, which are about groups of shards, so their number is "
            "no matter of speed alone. Leave it away."
        )
    choices = []
    if workers:
        choices.append(_workers(trainer, (lambda number: number) if shards else (lambda _: trainer.shards), seconds))
    number = trainer.site.num_workers
    found = trainer.shards
    if shards:
        choices.append(_shards(trainer, number, seconds))
        found = choices[-1].value
    if buckets:
        choices.append(_buckets(trainer, found, seconds))
        trainer.bucket_bytes = choices[-1].value
    return Tuning(workers=number, shards=found, bucket_bytes=trainer.bucket_bytes, choices=choices)


def _workers(trainer: Trainer, shards_of: Callable[[int], int], seconds: float) -> Choice:
    """Find the fastest number of workers, and let them be so many.  shards_of: of a number of workers."""
    workers, most = trainer.site.workers, trainer.site.num_workers

    def branch(number: int) -> Trainer:
        workers.resize(number)
        return trainer.branch(shards=shards_of(number))

    if most == 1:
        return Choice(question="workers", value=most, reason="there are no more")
    if not workers.can_regroup:
        reason = f'with backend="{workers.backend}" they stay as many as have started'
        return Choice(question="workers", value=most, reason=reason)
    with workers.kept():
        try:
            choice = _race("workers", _numbers(most), branch, seconds)
        except BaseException:
            with suppress(BackendError):
                workers.resize(most)
            raise
        workers.resize(choice.value)
    return choice


def _numbers(most: int) -> list[int]:
    """List numbers of workers to try: all of the small ones, then every power of two."""
    return sorted({*range(1, min(most, 4) + 1), *(1 << i for i in range(most.bit_length())), most})


def _shards(trainer: Trainer, workers: int, seconds: float) -> Choice:
    """Find the fastest number of shards."""
    numbers = [parts * workers for parts in _SHARDS_OF_A_WORKER if _can_have(trainer, parts * workers)]
    if len(numbers) == 1:
        return Choice(question="shards", value=workers, reason="a batch has no samples for twice as many")
    return _race("shards", numbers, lambda number: trainer.branch(shards=number), seconds)


def _can_have(trainer: Trainer, shards: int) -> bool:
    try:
        trainer.branch(shards=shards)
    except PartitionError:
        return False
    return True


def _buckets(trainer: Trainer, shards: int, seconds: float) -> Choice:
    """Find the fastest size of messages between nodes."""
    now, nodes = trainer.bucket_bytes, trainer.site.replicas.num_nodes
    if nodes == 1:
        return Choice(question="bucket_bytes", value=now, reason="on one node none are sent")
    size = trainer.model.num_params * trainer.model.dtype.itemsize
    of_count: dict[int, int] = {}
    for bucket in (now, *_BUCKETS):  # what is there already is the cheapest
        of_count.setdefault(num_buckets(size, nodes, bucket), bucket)
    if len(of_count) == 1:
        reason = f"a gradient of {size_text(size)} is one message for each node anyway"
        return Choice(question="bucket_bytes", value=now, reason=reason)
    sizes = list(of_count.values())
    return _race("bucket_bytes", sizes, lambda bucket: trainer.branch(shards=shards, bucket_bytes=bucket), seconds)


def _race(question: Question, values: Sequence[int], branch: Callable[[int], Trainer], seconds: float) -> Choice:
    """Find the fastest of some ways, the cheapest first.  branch: begins a run in such a way."""
    turn_s = seconds / (_TURNS * len(values))

    def take_turn(value: int) -> Sequence[float]:
        with branch(value) as trial:
            per_round = trial.steps_per_round
            warm_up = _WARM_UP if per_round == 1 else _WARM_UP_OF_REPLICAS
            step_s = float(trial.fit(steps=_in_rounds(warm_up, per_round)).step_seconds[-1])
            steps = min(max(round(turn_s / step_s), _FEWEST_STEPS), _MOST_STEPS)
            rounds = trial.fit(steps=_in_rounds(steps, per_round)).step_seconds.reshape(-1, per_round)
            times: list[float] = rounds.mean(axis=1).repeat(per_round).tolist()
            return times

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # the run itself will tell
        outcome = race(values, take_turn, seconds=seconds)
    return Choice(question=question, value=outcome.value, outcome=outcome)


def _in_rounds(steps: int, per_round: int) -> int:
    """Make of a number of steps one of whole rounds."""
    return -(-steps // per_round) * per_round


def _named(question: Question, value: int) -> str:
    if question == "bucket_bytes":
        return f"Messages of {size_text(value)}"
    return f"{value:,} {question if value != 1 else question.removesuffix('s')}"


def _milliseconds(runner: Runner) -> str:
    return f"{runner.median_s * 1e3:.3g}"
