"""Actors that are placed together, or none; how they start, and how they end."""

from __future__ import annotations

import logging
import os
import secrets
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import floor
from typing import Any, final

import cloudpickle

from dist_relu.core.machine import exit_code
from dist_relu.errors import BackendError
from dist_relu.runtime.backends.ray import actor
from dist_relu.runtime.backends.ray.actor import DistReluWorker, versions_here
from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray
from dist_relu.runtime.process_info import ProcessInfo, by_node
from dist_relu.runtime.surroundings import absolute_import_paths

_log = logging.getLogger(__name__)

_QUIET_WAIT_S = 3.0
"""How long resources may take before the user is told what is missing."""

_TIME_TO_PLACE_S = 0.5
_POLL_S = 0.5
_START_TIMEOUT_S = 60.0
_GRACE_S = 2.0
_CLOSE_TIMEOUT_S = 5.0

_TOKEN_CPU = 0.001
"""What a worker asks of a private cluster, where nobody else asks for anything."""


@final
class ActorGroup:
    """`num_workers` actors with `threads_per_worker` CPUs each, in a placement group of their own.

    spread: over as many nodes as there are, rather than on as few as have room.
    They start while the user's script goes on; `wait_for_start` waits for them.  actors: by rank; ranks follow the
    nodes, and that of this process comes first.
    """

    def __init__(self, cluster: Cluster, num_workers: int, threads_per_worker: int, *, spread: bool) -> None:
        self._ray = ray = import_ray()
        self._cluster = cluster
        self._num_workers = num_workers
        self._cpus = _cpus_per_worker(cluster, num_workers, threads_per_worker)
        self._run = secrets.token_hex(3)
        self._processes: dict[int, int] = {}  # descriptors of those workers that run on this node, by rank
        self._descriptions: list[Any] = []
        self._process_infos: list[ProcessInfo] = []
        self.actors: list[Any] = []
        strategy = "SPREAD" if spread else "PACK"
        self._placement_group = ray.util.placement_group(
            [{"CPU": self._cpus}] * num_workers, strategy, f"dist_relu {self._run}"
        )
        try:
            self._placed = self._placement_group.ready()
            if self._is_placed(_TIME_TO_PLACE_S):
                self._start_actors()
        except BaseException:
            if cluster.is_there:
                self.end()
            raise

    def wait_for_start(self) -> Sequence[ProcessInfo]:
        """Wait for all workers, as long as it takes; returns what they say of themselves, by rank."""
        self._wait_for_placement()
        self._wait_for_descriptions()
        ours = versions_here()
        process_infos = []
        for number, description in enumerate(self._descriptions):
            try:
                theirs, host, info = self._ray.get(description)
            except self._ray.exceptions.RayError as error:
                raise BackendError(f"Worker {number} did not start: {cause(error)}") from None
            if theirs != ours:
                raise BackendError(_difference(host, ours, theirs))
            process_infos.append(cloudpickle.loads(info))
        here = ProcessInfo.in_cluster()
        order = [i - 1 for i in by_node([here, *process_infos])[1:]]
        self.actors = [self.actors[i] for i in order]
        self._process_infos = [process_infos[i] for i in order]
        for rank, info in enumerate(self._process_infos):
            if info.node == here.node:
                with suppress(ProcessLookupError):
                    self._processes[rank] = os.pidfd_open(info.pid)
        return self._process_infos

    def ask(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Call a method of some actors, by rank, all at once; returns what they return, by rank."""
        asked = {rank: getattr(self.actors[rank], method).remote(argument) for rank, argument in arguments.items()}
        return {rank: self.answer(rank, reference) for rank, reference in asked.items()}

    def answer(self, rank: int, reference: Any) -> Any:
        """Wait for what an actor returns.  Raises BackendError."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            host = self._process_infos[rank].host
            raise BackendError(f"Worker {rank} (host {host}) can't join the others: {cause(error)}") from None

    def exit_code(self, rank: int, timeout_s: float) -> int | None:
        """Tell with what code a worker that has died did end, if it ran on this node."""
        process = self._processes.get(rank)
        if process is None:
            return None
        _wait_for_end(process, timeout_s)
        return exit_code(process)

    def end(self, *, are_idle: bool = False) -> None:
        """End them, whatever they do, and give back what they had; those of this node are gone on return.

        are_idle: they have a moment to end as Python programs do.
        """
        if are_idle and self._process_infos:
            for actor in self.actors:
                actor.__ray_terminate__.remote()
            deadline = time.monotonic() + _GRACE_S
            for process in self._processes.values():
                _wait_for_end(process, deadline - time.monotonic())
        for actor in self.actors:
            self._ray.kill(actor)
        self._ray.util.remove_placement_group(self._placement_group)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for process in self._processes.values():
            _wait_for_end(process, deadline - time.monotonic())

    def close(self) -> None:
        """Close what is open in this process.  May be called twice."""
        for process in self._processes.values():
            os.close(process)
        self._processes.clear()
        self.actors.clear()

    def _is_placed(self, timeout_s: float) -> bool:
        ready, _ = self._ray.wait([self._placed], timeout=timeout_s)
        self._cluster.check()
        return bool(ready)

    def _start_actors(self) -> None:
        """Start an actor in every bundle, numbered in the order of the nodes; Ray shows the numbers to people."""
        table = self._ray.util.placement_group_table(self._placement_group)["bundles_to_node_id"]
        here = self._ray.get_runtime_context().get_node_id()
        nodes = list(dict.fromkeys([here, *(table[bundle] for bundle in sorted(table))]))
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        self._ray.cloudpickle.register_pickle_by_value(actor)
        actor_class = self._ray.remote(DistReluWorker)
        for rank, bundle in enumerate(sorted(table, key=lambda bundle: (nodes.index(table[bundle]), bundle))):
            options = actor_class.options(
                name=f"dist_relu worker {rank} of {self._num_workers} ({self._run})",
                num_cpus=self._cpus,
                scheduling_strategy=strategy(self._placement_group, placement_group_bundle_index=bundle),
            )
            self.actors.append(options.remote(rank))
        paths = absolute_import_paths()
        self._descriptions = [actor.describe.remote(paths) for actor in self.actors]

    def _wait_for_placement(self) -> None:
        if self.actors:
            return
        if not self._is_placed(_QUIET_WAIT_S):
            total, free = cpus_of_cluster()
            _log.warning(
                f"Waiting for {self._cpus * self._num_workers:g} CPUs, {self._cpus:g} for each worker. "
                f"This Ray cluster has {total:g}, of which free: {free:g}."
            )
            while not self._is_placed(_POLL_S):
                pass
        self._start_actors()

    def _wait_for_descriptions(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        descriptions = self._descriptions
        missing = descriptions
        while missing and time.monotonic() < deadline:
            _, missing = self._ray.wait(descriptions, num_returns=len(descriptions), timeout=_POLL_S)
            self._cluster.check()
        if missing:
            numbers = [descriptions.index(reference) for reference in missing]
            raise BackendError(f"Workers {numbers} did not start within {_START_TIMEOUT_S:.0f} seconds.")


def cpus_of_cluster() -> tuple[float, float]:
    """Count how many CPUs the cluster has, and how many of them are free."""
    ray = import_ray()
    total, free = ray.cluster_resources(), ray.available_resources()
    return total.get("CPU", 0.0), free.get("CPU", 0.0)


def cause(error: Exception) -> str:
    """Return what Ray knows of an error on one line, without what it says of every death."""
    text = str(error)
    if isinstance(error, import_ray().exceptions.RayTaskError):
        text = text.strip().splitlines()[-1]
    _, _, detail = text.rpartition("Worker exit detail: ")
    return " ".join(detail.partition("Some common causes include")[0].split())


def _cpus_per_worker(cluster: Cluster, num_workers: int, threads_per_worker: int) -> float:
    """Return the CPUs that each worker asks for; on a single machine with too few, as on any other, they share them."""
    if cluster.is_private:
        return _TOKEN_CPU
    total, _ = cpus_of_cluster()
    num_nodes = sum(node["Alive"] for node in import_ray().nodes())
    if num_nodes > 1 or total == 0 or num_workers * threads_per_worker <= total:
        return threads_per_worker
    _log.warning(f"{num_workers} workers share the {total:g} CPUs of this Ray cluster.")
    return floor(total / num_workers * 1e4) / 1e4  # Ray counts in these


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
