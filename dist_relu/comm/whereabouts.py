"""Where the workers of a node are: each notes it in its own line of the control memory, for whoever wants to know.

A note is a plain store, of 20 ns, which orders nothing and which nobody waits for. Whoever reads while workers go on
may see the number of one step beside the phase of another; where a worker stands still, all that it has noted is there.
And since memory outlives who has written it, it also tells where a worker was when it died.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic_ns
from typing import final

from dist_relu.core.arrays import Array
from dist_relu.kernels.atomic import WORDS_PER_LINE

STARTING, IDLE, CALL, PREPARATION, PASS, SUM, UPDATE, SWITCH, EVALUATION, ROLLOUT = range(10)
"""What a worker does: start; wait for a call; a call of another kind than these: get ready to take steps; in a step,
pass over its samples, wait until the gradient is whole, update its part of the parameters, and what comes behind that
until the next step begins; evaluate; act in environments."""

_MEANWHILE = (
    "while it started",
    "between two calls",
    "in a call",
    "while it got ready to take steps",
    "in the pass over its samples",
    "in the sum",
    "in the update",
    "at its end",
    "in an evaluation",
    "in a rollout",
)
_NAMES = ("start", "idle", "call", "preparation", "pass", "sum", "update", "switch", "evaluation", "rollout")

TASK, STEP, PHASE, SINCE = range(WORDS_PER_LINE // 2, WORDS_PER_LINE // 2 + 4)
"""The words of a line with the number of the task, the step or `NO_STEP`, the phase, and when the step began or else
the task, in nanoseconds of `time.monotonic_ns`, which all processes of a machine share.

They share no cache line with the flag of the barrier, which others look at all the time."""

_DESCRIPTOR, _INODE, _ABROAD = range(SINCE + 1, SINCE + 4)
"""Further words: where others find the stack, see `offer_stack`, and the meeting behind which it waited for nodes."""

NO_STEP = -1


@final
class Whereabouts:
    """Notes where worker number `rank` of a node is.  control: of the node, see `control_shape`.

    place: (3,) int64, where it notes a step, a phase, and when the step began; see `dist_relu.kernels.steps`.
    """

    def __init__(self, control: Array, rank: int) -> None:
        line = _line(control, rank)
        self._words = line.data  # of which an element takes 20 ns, of an array 40
        self.place = line[STEP : SINCE + 1]
        self.end_task()

    def begin_task(self, number: int) -> None:
        """Note that a task begins."""
        self._words[TASK] = number
        self.enter(CALL)

    def enter(self, phase: int) -> None:
        """Note what begins now, and is no part of a step."""
        self._words[STEP] = NO_STEP
        self._words[PHASE] = phase
        self._words[SINCE] = monotonic_ns()

    def offer_stack(self, descriptor: int, inode: int) -> None:
        """Say where others find this process's stack, see `dist_relu.comm.stacks`."""
        self._words[_DESCRIPTOR], self._words[_INODE] = descriptor, inode

    def wait_for_nodes(self, meetings: int) -> None:
        """Note that this worker, after so many meetings, waits for other nodes until its next one, or nearly so."""
        self._words[_ABROAD] = meetings

    def end_task(self) -> None:
        """Note that there is nothing to do."""
        self.enter(IDLE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker is, or was when it died.

    task: the number of its last task.  step: from 0; None outside steps.  phase: one of those above.  since_ns: see
    `SINCE`.  meetings: grows with every barrier that it comes to, see `NodeBarrier`.
    waits_for_nodes: whether it waits for workers of other nodes.  stack: what `stack_of` takes beside its pid.
    """

    task: int
    step: int | None
    phase: int
    since_ns: int
    meetings: int
    waits_for_nodes: bool
    stack: tuple[int, int]

    @property
    def name(self) -> str:
        """The phase in a word."""
        return _NAMES[self.phase]

    def __str__(self) -> str:
        """Say it to end a sentence with: "in step 41, in the pass over its samples"."""
        return _MEANWHILE[self.phase] if self.step is None else f"in step {self.step}, {_MEANWHILE[self.phase]}"


def read(control: Array, rank: int) -> Place:
    """Tell where worker number `rank` of a node is."""
    line = _line(control, rank).tolist()
    step, phase = line[STEP], line[PHASE]
    if step == NO_STEP and PASS <= phase <= SWITCH:  # kernels are loaded by taking parts of a step
        phase = PREPARATION
    return Place(
        task=line[TASK],
        step=None if step == NO_STEP or phase == STARTING else step,
        phase=phase,
        since_ns=line[SINCE],
        meetings=line[0],
        waits_for_nodes=line[_ABROAD] == line[0] != 0,
        stack=(line[_DESCRIPTOR], line[_INODE]),
    )


def _line(control: Array, rank: int) -> Array:
    """Return the line of a worker; the first one is that to abort."""
    return control[(rank + 1) * WORDS_PER_LINE : (rank + 2) * WORDS_PER_LINE]
