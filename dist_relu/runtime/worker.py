"""What every worker runs: tasks from the coordinator, one after another, and what becomes of their errors.

A task is a plain function of (world, request); every worker runs the same function on the same request and finds its
part of the work by its rank. How tasks and replies travel is the backend's business.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import cloudpickle
import numpy as np
from threadpoolctl import ThreadpoolController

from dist_relu.comm.barrier import Barrier, NodeBarrier, TaskAborted, control_shape
from dist_relu.comm.channel import Channel, ProgressEngine
from dist_relu.comm.shared_memory import Handle, SharedArray, attach
from dist_relu.comm.stacks import offer_stack
from dist_relu.comm.stall_detector import SLOW_AFTER_S, StallDetector
from dist_relu.comm.stop_detector import WORKER_TIMEOUT_S
from dist_relu.comm.whereabouts import Whereabouts
from dist_relu.comm.world_barrier import WorldBarrier
from dist_relu.core.compiling import compilation_reported
from dist_relu.core.freed_memory import keep_freed_memory
from dist_relu.runtime.process_info import ProcessInfo, nodes_of
from dist_relu.runtime.surroundings import Surroundings, apply, capture, check_modules
from dist_relu.runtime.world import Node, World


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Tells a process what it must know to be worker `rank`.

    peers: by rank, those of a node together.  control: memory of this worker's node, see `NodeBarrier`; None for the
    first worker of a node who is to make it.  threads: for BLAS.  slow_after_s: see `StallDetector`.
    worker_timeout_s: see `StopDetector`.
    """

    rank: int
    peers: Sequence[ProcessInfo]
    control: Handle | None
    threads: int
    slow_after_s: float = SLOW_AFTER_S
    worker_timeout_s: float = WORKER_TIMEOUT_S


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work for all workers: function(world, request), pickled.  Numbers grow."""

    number: int
    work: bytes
    surroundings: Surroundings

    @classmethod
    def of(cls, number: int, function: Callable[[World, Any], Any], request: Any) -> Task:
        surroundings = capture()  # before, since it decides about what is pickled by value
        return cls(number=number, work=cloudpickle.dumps((function, request)), surroundings=surroundings)


@dataclass(frozen=True)
class Returned:
    """A worker replies that its part is done."""

    value: Any


@dataclass(frozen=True)
class Failed:
    """A worker replies that its part failed; it has told the others to stop."""

    error: BaseException


@dataclass(frozen=True)
class Aborted:
    """A worker replies that it stopped because another one failed."""


Reply = Returned | Failed | Aborted


@final
class Worker:
    """A worker runs its part of tasks, one after the other."""

    def __init__(self, config: WorkerConfig, report: Callable[[Any], None], channel: Channel | None = None) -> None:
        """Become a worker.  channel: to the workers of other nodes, where there are any."""
        keep_freed_memory()
        self._config = config
        nodes = nodes_of(config.peers)
        number, ranks = next((i, ranks) for i, ranks in enumerate(nodes) if config.rank in ranks)
        self._own_control = SharedArray(control_shape(len(ranks)), "int64") if config.control is None else None
        self.control = config.control or self._own_control.handle  # type: ignore[union-attr]
        pids = [config.peers[rank].pid for rank in ranks]
        rank, control = config.rank - ranks.start, attach(self.control)
        stall_detector = StallDetector(control, rank, ranks.start, pids, report, config.slow_after_s)
        self._barrier = barrier = NodeBarrier(
            control, rank, pids, stall_detector, first=ranks.start, worker_timeout_s=config.worker_timeout_s
        )
        self._whereabouts = Whereabouts(control, rank)
        if len(ranks) > 1:
            self._whereabouts.offer_stack(*offer_stack())
        node = Node(number=number, ranks=ranks, rank=rank, barrier=barrier, whereabouts=self._whereabouts, held={})
        self._progress_engine = progress_engine = ProgressEngine(channel, barrier) if channel else None
        world_barrier: Barrier = barrier
        if progress_engine:
            others = [others.start for others in nodes if others != ranks]
            world_barrier = WorldBarrier(barrier, progress_engine, leader=node.rank == 0, others=others)
        self._world = World(
            rank=config.rank,
            size=len(config.peers),
            barrier=world_barrier,
            report=report,
            node=node,
            nodes=nodes,
            kept={},
            progress_engine=progress_engine,
        )
        self._blas = ThreadpoolController().select(user_api="blas")

    def run(self, task: Task) -> bytes:
        """Run this worker's part of a task; returns the pickled reply, and whatever goes wrong is in it.

        KeyboardInterrupt and SystemExit, which are meant for the process, stop the others and go on.
        """
        self._barrier.begin(task.number)
        self._whereabouts.begin_task(task.number)
        if self._progress_engine:
            self._progress_engine.begin(task.number)
        try:
            # What overflows shows in the results; a warning in a worker reaches nobody.
            with (
                self._blas.limit(limits=self._config.threads),
                np.errstate(all="ignore"),
                compilation_reported(self._world.report),
            ):
                function, request = self.unpack(task)
                value = function(self._world, request)
                check_modules()
                reply = _pickled(function, value)
            self._barrier.check()  # nobody waits for the value of a task that was given up
            return reply
        except TaskAborted:
            self._barrier.abort()
            return cloudpickle.dumps(Aborted())  # type: ignore[no-any-return]
        except Exception as error:
            self._barrier.abort()
            return cloudpickle.dumps(Failed(self._signed(error)))  # type: ignore[no-any-return]
        except BaseException:
            self._barrier.abort()
            raise
        finally:
            self._whereabouts.end_task()

    def unpack(self, task: Task) -> tuple[Callable[[World, Any], Any], Any]:
        """Unpickle the function and the request of a task, with things around them as in the user's process."""
        apply(task.surroundings)
        function, request = cloudpickle.loads(task.work)
        check_modules()
        return function, request

    def close(self) -> None:
        """Let go of the other workers.  May be called twice."""
        if self._progress_engine:
            self._progress_engine.close()
        self._barrier.close()

    def _signed(self, error: Exception) -> Exception:
        """Return `error` with this worker's name on it, in a form that survives the way to another process."""
        me = self._config.peers[self._config.rank]
        where = f"Raised by worker {self._config.rank} of {self._world.size} (host {me.host}, pid {me.pid})."
        trace = "".join(traceback.format_exception(error)).rstrip()
        try:
            copy: Exception = cloudpickle.loads(cloudpickle.dumps(error))
            same = type(copy) is type(error)
        except Exception:
            same = False
        if not same:
            copy = RuntimeError(f"{type(error).__name__}: {error}")
        copy.__notes__ = [where, trace]
        return copy


def _pickled(function: Callable[..., Any], value: Any) -> bytes:
    """Pickle what a function returned, for the coordinator."""
    try:
        reply: bytes = cloudpickle.dumps(Returned(value))
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise TypeError(
            f"{name} returned an object of type {type(value).__name__}, which can't be sent to the coordinator: "
            f"{error}. Return numbers, arrays and the like, or nothing."
        ) from error
    return reply
