"""Workers as the actors of a Ray cluster.

All actors are placed together, or none. They share memory as local processes do; through Ray go only calls, events
and replies, which are small.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import floor, inf
from typing import Any, final

import cloudpickle

from dist_relu.backends import ray_actor
from dist_relu.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, values
from dist_relu.backends.ray_actor import EVENT, REPLY, DistReluWorker, versions_here
from dist_relu.backends.ray_cluster import Cluster, import_ray
from dist_relu.collectives import barrier
from dist_relu.collectives.memory import SharedArray
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.machine import exit_code, how_it_ended, num_cores
from dist_relu.worker import Call, Hello, Raised, Reply, Setup

_log = logging.getLogger(__name__)

_QUIET_WAIT_S = 3.0
"""How long resources may take before the user is told what is missing."""

_POLL_S = 0.5
_START_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 5.0
_OUTPUT_DELAY_S = 0.5
"""How long the last lines that a worker has printed may be on their way to this process."""

_TIME_TO_BE_MISSED_S = 5.0
"""How long Ray may take to notice the death of a worker whose peers have noticed it already."""

_TOKEN_CPU = 0.001
"""What a worker asks of a private cluster, where nobody else asks for anything."""


@final
class RayBackend(Backend):
    """`workers` actors with `threads_per_worker` CPUs each, by default as many as the cluster has CPUs for.

    address: see `Cluster.join`.
    """

    def __init__(self, workers: int | None, threads_per_worker: int, address: str | None = None) -> None:
        on_this_machine = max(num_cores() // threads_per_worker, 1)
        self._cluster = Cluster.join(address, (workers or on_this_machine) * threads_per_worker)
        self._ray = import_ray()
        self._threads_per_worker = threads_per_worker
        self._group: Any = None
        self._actors: list[Any] = []
        self._hellos: list[Hello] = []
        self._processes: dict[int, int] = {}  # descriptors of those workers that run on this node, by rank
        self._owing: dict[int, Any] = {}  # the streams of messages of the ranks that have not answered yet
        self._lost: BackendError | None = None
        self._closed = False
        self._output_until = 0.0
        self._cpus_each = 0.0
        self._introductions: list[Any] = []
        try:
            if workers is None:
                total, _ = self._cpus()
                workers = on_this_machine if self._cluster.is_private else max(int(total // threads_per_worker), 1)
            self._control = SharedArray(barrier.control_shape(workers), "int64")
            self._start_actors(workers)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return "ray"

    @property
    def peers(self) -> Sequence[Hello]:
        """The workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        if self._lost:
            raise self._lost
        if not self._hellos:
            try:
                self._hellos = self._meet()
            except BaseException as error:
                interrupted = BackendError("The workers were stopped while they started. Start others.")
                self._lost = error if isinstance(error, BackendError) else interrupted
                self.close()
                raise
        return self._hellos

    def call(self, call: Call, on_event: EventHandler) -> list[Any]:
        _ = self.peers  # all have started, and none was lost
        self._check_connected()
        try:
            while self._owing:  # ranks that are still busy with a call that was given up
                self._receive(_ignore, None)
            for rank, actor in enumerate(self._actors):
                self._owing[rank] = actor.run.remote(call)
            replies: dict[int, Reply] = {}
            deadline = None
            while self._owing and (deadline is None or time.monotonic() < deadline):
                replies |= self._receive(on_event, deadline)
                errors = [reply.error for reply in replies.values() if isinstance(reply, Raised)]
                if deadline is None and errors:
                    missed = any(isinstance(error, WorkerLost) for error in errors)
                    deadline = time.monotonic() + (_TIME_TO_BE_MISSED_S if missed else GRACE_AFTER_ERROR_S)
        except BaseException:
            barrier.abort(self._control.array, call.number)
            raise
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._cluster.is_connected:  # otherwise they are gone already
                self._end_actors()
        finally:
            for process in self._processes.values():
                os.close(process)
            self._processes.clear()
            self._actors.clear()
            self._owing.clear()
            self._cluster.leave()

    def _end_actors(self) -> None:
        """End them, whatever they do, and give back what they had; those of this node are gone on return."""
        time.sleep(max(self._output_until - time.monotonic(), 0))
        for actor in self._actors:
            self._ray.kill(actor)
        if self._group is not None:
            self._ray.util.remove_placement_group(self._group)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for process in self._processes.values():
            _wait_for_end(process, deadline - time.monotonic())

    def _cpus(self) -> tuple[float, float]:
        """How many CPUs the cluster has, and how many of them are free."""
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        return total.get("CPU", 0.0), free.get("CPU", 0.0)

    def _cpus_per_worker(self, num_workers: int) -> float:
        """What each worker asks for.  On a single machine with too few CPUs, as on any other, workers share them."""
        if self._cluster.is_private:
            return _TOKEN_CPU
        total, _ = self._cpus()
        num_nodes = sum(node["Alive"] for node in self._ray.nodes())
        if num_nodes > 1 or total == 0 or num_workers * self._threads_per_worker <= total:
            return self._threads_per_worker
        _log.warning(f"{num_workers} workers share the {total:g} CPUs of this Ray cluster.")
        return floor(total / num_workers * 1e4) / 1e4  # Ray counts in these

    def _start_actors(self, num_workers: int) -> None:
        cpus = self._cpus_per_worker(num_workers)
        run = secrets.token_hex(3)
        self._cpus_each = cpus
        self._group = self._ray.util.placement_group([{"CPU": cpus}] * num_workers, "PACK", f"dist_relu {run}")
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        self._ray.cloudpickle.register_pickle_by_value(ray_actor)
        actor_class = self._ray.remote(DistReluWorker)
        for rank in range(num_workers):
            options = actor_class.options(
                name=f"dist_relu worker {rank} of {num_workers} ({run})",
                num_cpus=cpus,
                scheduling_strategy=strategy(self._group, placement_group_bundle_index=rank),
            )
            self._actors.append(options.remote(rank))
        paths = [path or os.getcwd() for path in sys.path]
        self._introductions = [actor.introduce.remote(paths) for actor in self._actors]

    def _meet(self) -> list[Hello]:
        """Wait for all workers, and make them known to one another."""
        self._check_connected()
        self._wait_for_start()
        ours = versions_here()
        hellos = []
        for rank, introduction in enumerate(self._introductions):
            try:
                theirs, host, hello = self._ray.get(introduction)
            except self._ray.exceptions.RayError as error:
                raise BackendError(f"Worker {rank} did not start: {_cause(error)}") from None
            if theirs != ours:
                raise BackendError(_difference(host, ours, theirs))
            hellos.append(cloudpickle.loads(hello))
        if {hello.node for hello in hellos} != {Hello.here().node}:
            hosts = ", ".join(sorted({hello.host for hello in hellos}))
            raise BackendError(f"The workers run on {hosts}; this version needs them all on the coordinator's machine.")
        for rank, hello in enumerate(hellos):
            with suppress(ProcessLookupError):
                self._processes[rank] = os.pidfd_open(hello.pid)
        setups = [Setup(rank, hellos, self._control.handle, self._threads_per_worker) for rank in range(len(hellos))]
        try:
            self._ray.get([actor.join.remote(setup) for actor, setup in zip(self._actors, setups, strict=True)])
        except self._ray.exceptions.RayError as error:
            raise BackendError(f"The workers can't share memory with this process: {_cause(error)}") from None
        return hellos

    def _wait_for_start(self) -> None:
        """Wait until all workers have a place, for as long as it takes, and then until they run."""
        patience_ends = time.monotonic() + _QUIET_WAIT_S
        deadline = inf
        is_told = False
        while missing := self._not_started():
            now = time.monotonic()
            if now > deadline:
                raise BackendError(f"Workers {missing} did not start within {_START_TIMEOUT_S:.0f} seconds.")
            if deadline == inf and self._ray.util.placement_group_table(self._group)["state"] == "CREATED":
                deadline = now + _START_TIMEOUT_S
            elif deadline == inf and now > patience_ends and not is_told:
                is_told = True
                total, free = self._cpus()
                _log.warning(
                    f"Waiting for {self._cpus_each * len(self._actors):g} CPUs, {self._cpus_each:g} for each worker. "
                    f"This Ray cluster has {total:g}, of which free: {free:g}."
                )

    def _not_started(self) -> list[int]:
        """The ranks that have not started after a short wait."""
        introductions = self._introductions
        _, missing = self._ray.wait(introductions, num_returns=len(introductions), timeout=_POLL_S)
        return [introductions.index(reference) for reference in missing]

    def _receive(self, on_event: EventHandler, deadline: float | None) -> dict[int, Reply]:
        """Wait for a message, until `deadline` if there is one; pass on an event, or return a reply, by rank."""
        timeout_s = None if deadline is None else max(deadline - time.monotonic(), 0)
        ready, _ = self._ray.wait(list(self._owing.values()), timeout=timeout_s)
        for rank, stream in list(self._owing.items()):
            if stream in ready:
                try:
                    message = self._ray.get(next(stream))
                except self._ray.exceptions.RayError as error:
                    raise self._loss_of(rank, error) from None
                kind, content = message[:1], memoryview(message)[1:]
                if kind == REPLY:
                    del self._owing[rank]
                    return {rank: cloudpickle.loads(content)}
                if kind == EVENT:
                    on_event(cloudpickle.loads(content))
                else:
                    self._output_until = time.monotonic() + _OUTPUT_DELAY_S
        return {}

    def _loss_of(self, rank: int, error: Exception) -> WorkerLost:
        peer = self._hellos[rank]
        code = None
        if process := self._processes.get(rank):
            _wait_for_end(process, GRACE_AFTER_ERROR_S)
            code = exit_code(process)
        how = f"died. Ray says: {_cause(error)}" if code is None else how_it_ended(code) + "."
        self._lost = WorkerLost(f"Worker {rank} (host {peer.host}, pid {peer.pid}) {how}")
        return self._lost

    def _check_connected(self) -> None:
        """Ray would start a cluster of its own rather than say that it was shut down."""
        if not self._cluster.is_connected:
            raise BackendError("The connection to the Ray cluster has ended. Start other workers.")


def _difference(host: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    differences = [f"{name} {ours[name]} here, {theirs[name]} there" for name in ours if ours[name] != theirs[name]]
    return (
        f"The Ray node {host} has other versions than this program: {'; '.join(differences)}. "
        "Equal bits need equal versions: start Ray in the environment that this program runs in."
    )


def _wait_for_end(process: int, timeout_s: float) -> None:
    """Wait until the process behind a pidfd has ended, but not for longer than that."""
    end = select.poll()
    end.register(process, select.POLLIN)
    end.poll(max(timeout_s, 0) * 1e3)


def _cause(error: Exception) -> str:
    """What Ray knows, without what it tells of every death, on one line."""
    text = str(error)
    if isinstance(error, import_ray().exceptions.RayTaskError):
        text = text.strip().splitlines()[-1]
    _, _, detail = text.rpartition("Worker exit detail: ")
    return " ".join(detail.partition("Some common causes include")[0].split())


def _ignore(event: object) -> None:
    pass
