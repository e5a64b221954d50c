"""What was traced of a run, as it came from the workers: marks of segments, and what the coordinator did in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import final

from dist_relu.engine.plan import StepPlan
from dist_relu.engine.tracing import TraceRequest, WorkerTrace
from dist_relu.nn import Sequential
from dist_relu.nn.fusion import last_layers
from dist_relu.partition import bounds
from dist_relu.runtime.process_info import ProcessInfo

VALIDATION, CALLBACKS, SEGMENT = "validation", "callbacks", "steps"
"""What the coordinator does: measure what the model is worth, call whoever is to be called, wait for the workers."""

FIRST_STEPS = 20
"""Steps of a first segment, which are marked in all detail; kernels are loaded and steps recorded in it, too."""
_CAPACITY = 1 << 16
"""Marks of a segment, of which most models have some thousand steps."""
_MOST_SECONDS = 2.0
"""How long a segment lasts at most; what was marked in one that is cut short is lost."""
_COMPARE_EVERY_S = 4.0
"""How often nodes compare their clocks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """These steps, from number `first` to `stop` - 1, were traced together.

    is_first: these workers had taken none of the run before.  workers: by rank.  peers: who they are.
    nodes: the ranks of each.  coordinator_node: the number of the coordinator's; None where no worker shares it.
    num_rows: of a whole batch, by rank.  began_ns, ended_ns: by the coordinator's clock.
    """

    first: int
    stop: int
    is_first: bool
    workers: Sequence[WorkerTrace]
    peers: Sequence[ProcessInfo]
    nodes: Sequence[range]
    coordinator_node: int | None
    num_rows: Sequence[int]
    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Span:
    """The coordinator did this meanwhile, by its clock."""

    what: str
    began_ns: int
    ended_ns: int


@final
class TraceLog:
    """A log has the segments of one run, until so many steps are traced, and what comes between them.

    layers: the names of `Sequential.passes`.
    """

    def __init__(self, model: Sequential, plan: StepPlan, num_steps: int) -> None:
        self.segments: list[Segment] = []
        self.spans: list[Span] = []
        self.layers = _names_of_passes(model)
        self._plan = plan
        self._left = num_steps
        self._most_per_step = _most_marks(len(self.layers), len(model.params), plan)
        self.begin_anew()
        self._begun: tuple[int, int, int] | None = None  # first step, stop, and when
        self._next_comparison_s = 0.0

    def begin_anew(self) -> None:
        """Workers are about to begin with the run, who know nothing of what others have marked, or they themselves."""
        self._is_first, self._per_step = True, self._most_per_step

    def begin_segment(self, first: int, stop: int, step_s: float | None) -> tuple[int, TraceRequest | None]:
        """Say before which step the next segment ends, at `stop` at the latest, and how it is traced, if it is.

        step_s: about how long a step takes.
        """
        if not self._left:
            return stop, None
        num_steps = min(stop - first, self._left)
        if self._is_first:
            num_steps = min(num_steps, FIRST_STEPS)
        else:
            num_steps = min(num_steps, max(_CAPACITY // self._per_step, 1))
            num_steps = min(num_steps, max(int(_MOST_SECONDS / step_s), 1) if step_s else num_steps)
        compares = monotonic() >= self._next_comparison_s
        if compares:
            self._next_comparison_s = monotonic() + _COMPARE_EVERY_S
        self._begun = first, first + num_steps, monotonic_ns()
        return first + num_steps, TraceRequest(capacity=num_steps * self._per_step, compares_clocks=compares)

    def end_segment(
        self,
        workers: Sequence[WorkerTrace],
        peers: Sequence[ProcessInfo],
        nodes: Sequence[range],
        coordinator_node: int | None,
    ) -> None:
        """Take what workers have marked in the segment that was begun last."""
        assert self._begun
        first, stop, began_ns = self._begun
        now_ns = monotonic_ns()
        self._left -= stop - first
        if any(worker.marks is None for worker in workers):  # steps that were not like those before
            self._per_step = max(2 * self._per_step, self._most_per_step)
            return
        rows = bounds(self._plan.batch_size, self._plan.shards)
        shares = bounds(self._plan.shards, len(workers))
        most = max(len(worker.marks) for worker in workers if worker.marks is not None)
        self._per_step = most // (stop - first) + most // (4 * (stop - first)) + 8
        self.spans.append(Span(SEGMENT, began_ns, now_ns))
        self.segments.append(
            Segment(
                first=first,
                stop=stop,
                is_first=self._is_first,
                workers=workers,
                peers=list(peers),
                nodes=list(nodes),
                coordinator_node=coordinator_node,
                num_rows=[rows[last - 1][1] - rows[begin][0] for begin, last in shares],
                began_ns=began_ns,
                ended_ns=now_ns,
            )
        )
        self._is_first = False

    @contextmanager
    def span(self, what: str) -> Iterator[None]:
        """Note what the coordinator does in a block of code, as long as steps are traced."""
        began_ns = monotonic_ns()
        try:
            yield
        finally:
            if self._left:
                self.spans.append(Span(what, began_ns, monotonic_ns()))


def _most_marks(num_layers: int, num_params: int, plan: StepPlan) -> int:
    """Tell how many marks a step has at most: those of a worker with all shards, stages and sums over the batch."""
    per_shard = 2 * num_layers + 6
    return plan.options.accumulate * (plan.shards * per_shard + 8 * num_params + 24 * num_layers + 32)


def _names_of_passes(model: Sequential) -> list[str]:
    """Name what is computed at once, "0 Dense+ReLU": the number of its first layer, and their kinds."""
    ends = last_layers(model.blueprint().build(model.input_shape).layers)
    begins = [0, *(end + 1 for end in ends[:-1])]
    return [
        f"{begin} {'+'.join(type(layer).__name__ for layer in model.layers[begin : end + 1])}"
        for begin, end in zip(begins, ends, strict=True)
    ]
