"""Where the time of traced steps went, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

_WORTH_SAYING = 0.02
"""The share of the time from which on something is."""
_MOST_WAITS = 4

_NAMES = {
    "pass": "passes",
    "gather": "gathering samples",
    "forward": "forward",
    "loss": "loss",
    "backward": "backward",
    "add": "adding the gradients of a worker's shards",
    "sum": "adding those of a node",
    "wait": "waiting for other workers",
    "exchange": "waiting for other nodes",
    "update": "update",
    "between": "between steps",
}


NAMES = ("pass", "gather", "forward", "loss", "backward", "add", "sum", "wait", "exchange", "update", "between")
"""The phases of `dist_relu.comm.marks`."""


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """How much later than the mean of all others a worker has come to the sum, in seconds over all steps, and why.

    off_core: it was not on a processor, since others were, or as it was stopped.  more_samples: it had more of them.
    slower: it took longer for each.
    """

    off_core: float
    more_samples: float
    slower: float


@dataclass(frozen=True, kw_only=True)
class WorkerPhases:
    """What a worker did in the steps; all times are seconds.

    phases: by its name, how long it was in each.  waits_for: by rank, how long it has waited for each worker.
    network: how long it has waited for messages that were under way.  critical: how long it was the one on whom the
    end of the steps depended.  num_samples: of a whole batch.  lateness: None where there is no other worker.
    marks_share: the share of its time that its marks have taken.
    """

    rank: int
    host: str
    pid: int
    node: int
    phases: dict[str, float]
    waits_for: list[float]
    network: float
    critical: float
    num_samples: int
    lateness: Lateness | None
    marks_share: float

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())


@dataclass(frozen=True, kw_only=True)
class SlowNode:
    """Messages of a node, from it and to it, take so many times as long as those between others, at the median."""

    number: int
    host: str
    factor: float


@final
@dataclass(frozen=True, kw_only=True)
class Phases:
    """Where the time of steps went, in seconds; `str()` says it in words.

    first, last, num_steps: the numbers of the first and the last step, and how many there are, some between them being
    left out where there were more marks than room for them; the first ones that workers take, in which kernels are
    loaded and steps are recorded, count only where there are no others.  seconds: in which they were taken.
    step_seconds: the median.
    workers: by rank; where there were fewer of them in the end, those with them who had gone.
    critical: by the name of the phase, the chain of work and waits that decides how long steps take.
    layers: by name, forward and backward, summed over workers; none where that was too dear to be told.
    validation, callbacks: what came between them.
    hidden: which share of the time that messages between nodes were under way workers did something else; None where
    there were none.  slow_node: whose messages take much longer than others; None where there is none.
    num_nodes: on which the workers were.  num_comparisons, clock_error: how often nodes have compared their clocks, and
    by how much that may be wrong.
    """

    first: int
    last: int
    num_steps: int
    seconds: float
    step_seconds: float
    workers: list[WorkerPhases]
    critical: dict[str, float]
    layers: dict[str, list[float]] = field(default_factory=dict)
    validation: float
    callbacks: float
    hidden: float | None
    slow_node: SlowNode | None
    num_nodes: int
    num_comparisons: int
    clock_error: float

    @property
    def mean_step_seconds(self) -> float:
        """The mean, of which phases are parts; a few slow steps make it much longer than the median."""
        return sum(worker.seconds for worker in self.workers) / len(self.workers) / self.num_steps

    @property
    def steps(self) -> str:
        """Which steps these are, in words."""
        between = f"steps {self.first:,} to {self.last:,}"
        is_whole = self.num_steps == self.last - self.first + 1
        return between.capitalize() if is_whole else f"{self.num_steps:,} of {between}"

    def __str__(self) -> str:
        """Say it as one would in a paper."""
        parts = [_steps(self), _critical(self), *_waits(self), _exchange(self), _rest(self)]
        return " ".join(filter(None, parts))


def _steps(phases: Phases) -> str:
    shares = _shares(_mean_phases(phases.workers))
    named = ", ".join(f"{_NAMES[name]} {share:.0%}" for name, share in shares if share >= _WORTH_SAYING)
    where = f"{len(phases.workers)} worker{'s' * (len(phases.workers) > 1)}"
    where += f" on {phases.num_nodes} nodes" if phases.num_nodes > 1 else ""
    times = f"{_time(phases.step_seconds)} in the median, {_time(phases.mean_step_seconds)} in the mean"
    return f"{phases.steps} took {times}, on {where}: {named}."


def _critical(phases: Phases) -> str:
    """Say what the length of steps depends on."""
    if len(phases.workers) == 1:
        return ""
    total = sum(worker.critical for worker in phases.workers)
    by_worker = sorted(phases.workers, key=lambda worker: -worker.critical)
    most = by_worker[0].critical / total if total else 0.0
    parts = ", ".join(f"{_NAMES[name]} {share:.0%}" for name, share in _shares(phases.critical) if share >= 0.05)
    return f"The critical path is {parts}; {most:.0%} of it is worker {by_worker[0].rank}."


def _waits(phases: Phases) -> list[str]:
    """Say who waits for whom, and why those come late."""
    found = sorted(
        (
            (seconds / worker.seconds, worker.rank, late)
            for worker in phases.workers
            if worker.seconds
            for late, seconds in enumerate(worker.waits_for)
        ),
        reverse=True,
    )
    told = [(share, rank, late) for share, rank, late in found if share >= _WORTH_SAYING][:_MOST_WAITS]
    words = [f"Worker {rank} waits {share:.0%} for worker {late}." for share, rank, late in told]
    for late in dict.fromkeys(late for *_, late in told):
        if reason := _reason(phases.workers[late]):
            words.append(f"Worker {late} is late: {reason}.")
    if len(phases.workers) > 1 and not told:
        words.append("No worker waits long for another one.")
    return words


def _reason(worker: WorkerPhases) -> str:
    """Say why a worker comes late, if that is known."""
    lateness = worker.lateness
    if lateness is None:
        return ""
    share = {name: getattr(lateness, name) / worker.seconds for name in Lateness.__dataclass_fields__}
    words = {
        "off_core": "for {:.0%} of its time it was not on a core, as something else ran there or it was stopped",
        "more_samples": "its share of the samples is larger, by {:.0%} of its time",
        "slower": "its core takes longer for the same work, by {:.0%} of its time",
    }
    known = [words[name].format(part) for name, part in sorted(share.items(), key=lambda one: -one[1]) if part >= 0.01]
    return "; ".join(known)


def _exchange(phases: Phases) -> str:
    if phases.hidden is None:
        return ""
    words = f"The exchange between nodes is hidden for {phases.hidden:.0%}."
    if slow := phases.slow_node:
        words += (
            f" Messages of node {slow.number} ({slow.host}) take {slow.factor:.1f} times as long as those of others."
        )
    return words


def _rest(phases: Phases) -> str:
    words = []
    for name, seconds in (("validation", phases.validation), ("callbacks", phases.callbacks)):
        if seconds >= _WORTH_SAYING * phases.seconds:
            words.append(f"{name} takes {seconds / phases.seconds:.0%} of all time")
    sentences = [f"Between steps, {' and '.join(words)}."] if words else []
    share = max(worker.marks_share for worker in phases.workers)
    sentences.append(f"The marks of this trace took {share:.1%} of the time.")
    if not phases.layers:
        sentences.append("Layers were not told apart, which would have cost more than 1%.")
    if phases.num_comparisons:
        sentences.append(
            f"The clocks of the nodes were compared {phases.num_comparisons} times, which is right to "
            f"{_time(phases.clock_error)}."
        )
    return " ".join(sentences)


def _mean_phases(workers: list[WorkerPhases]) -> dict[str, float]:
    names = dict.fromkeys(name for worker in workers for name in worker.phases)
    return {name: sum(worker.phases.get(name, 0.0) for worker in workers) for name in names}


def _shares(seconds: dict[str, float]) -> list[tuple[str, float]]:
    """Shares of all, the largest first."""
    total = sum(seconds.values()) or 1.0
    return sorted(((name, part / total) for name, part in seconds.items()), key=lambda one: -one[1])


def _time(seconds: float) -> str:
    """A time in the unit in which it is a short number."""
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
