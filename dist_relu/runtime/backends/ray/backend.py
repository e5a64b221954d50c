"""Workers as the actors of a Ray cluster, on one node or several.

Those of a node share memory as local processes do, and those of several nodes have connections of their own. Through
Ray go only tasks, events and replies, which are small but for the data sets, and these reach each node once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, final

import cloudpickle

from dist_relu.comm import barrier
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.comm.stop_detector import WORKER_TIMEOUT_S, StopDetector
from dist_relu.core.checks import check_bool, check_int, instance_of, optional
from dist_relu.core.machine import how_it_ended, num_cores
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.base import Backend, EventHandler, check_workers
from dist_relu.runtime.backends.heartbeat import Heartbeat, HeartbeatListener, describe_node
from dist_relu.runtime.backends.interrupts import without_interrupts
from dist_relu.runtime.backends.ray.actor import EVENT, REPLY
from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray
from dist_relu.runtime.backends.ray.node_watch import rhythm
from dist_relu.runtime.backends.ray.placement import ActorGroup, cause
from dist_relu.runtime.backends.ray.room import cpus_of_cluster
from dist_relu.runtime.process_info import ProcessInfo, nodes_of
from dist_relu.runtime.worker import Reply, Task, WorkerConfig

_POLL_S = 0.1
_OUTPUT_DELAY_S = 0.5
"""How long the last lines that a worker has printed may be on their way to this process."""

_TIME_TO_NAME_S = 1.0
"""How long Ray may take to say which worker it was when the connection to a node has ended."""

_TIME_TO_END_S = 0.5
"""How long a process of this machine may take to end when Ray has said that it did."""

_LARGE_BYTES = 100_000
"""What is larger reaches each node once, through the object store."""


@final
class RayBackend(Backend):
    """`workers` actors with `threads_per_worker` CPUs each, by default as many as the cluster has CPUs for.

    address: see `Cluster.join`.  nodes: start them on exactly so many nodes, as many on each, rather than on as few as
    have room.  spread: on as many as there are.  connect_timeout_s: how long a cluster may take to answer.
    worker_timeout_s: how long a worker may be stopped by a signal before it counts as lost, and, up to 10, a node
    without a word.
    """

    can_regroup = True

    def __init__(
        self,
        workers: int | None = None,
        threads_per_worker: int = 1,
        address: str | None = None,
        *,
        nodes: int | None = None,
        spread: bool = False,
        connect_timeout_s: float = 5.0,
        worker_timeout_s: float = WORKER_TIMEOUT_S,
    ) -> None:
        workers, threads_per_worker = check_workers(workers, threads_per_worker)
        optional(instance_of(str))("address", address)
        nodes = optional(check_int)("nodes", nodes)
        spread = check_bool("spread", spread)
        if nodes is not None and spread:
            raise ValueError(f"nodes={nodes} and spread=True both say where workers go. Pass one of them.")
        on_this_machine = max(num_cores() // threads_per_worker, 1)
        num_cpus = (workers or on_this_machine) * threads_per_worker
        self._cluster = Cluster.join(address, num_cpus, connect_timeout_s)
        self._ray = import_ray()
        self._threads_per_worker = threads_per_worker
        self._heartbeat: Heartbeat | None = None
        self._starting = threading.Lock()
        self._worker_timeout_s = worker_timeout_s
        self._peers: Sequence[ProcessInfo] = ()
        self._coordinator_node: int | None = None
        self._near = range(0)  # ranks of this node
        self._streams: dict[int, Any] = {}  # of messages, from the ranks that are busy
        self._arrived: dict[int, Any] = {}  # references to messages that have come, and are still to be fetched
        self._lost: BackendError | None = None
        self._node_loss: tuple[float, WorkerLost] | None = None  # and when it was noticed
        self._ranks_of: dict[str, range] = {}  # those of each node but this one, by the node's name for people
        self._stopped: set[int] = set()  # ranks of other nodes that were stopped by a signal
        self._closed = False
        self._output_until = 0.0
        try:
            if workers is None:
                total, _ = cpus_of_cluster()
                workers = on_this_machine if self._cluster.is_private else max(int(total // threads_per_worker), 1)
            self._num_workers = workers
            self._control = SharedArray(barrier.control_shape(workers), "int64")
            self._stop_detector = StopDetector(worker_timeout_s, self._control.array)
            self._group = ActorGroup(self._cluster, workers, threads_per_worker, nodes=nodes, spread=spread)
        except BaseException:
            self._cluster.leave()
            raise

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def name(self) -> str:
        return "ray"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """Return the workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        with self._starting:
            if self._lost:
                raise self._lost
            if not self._peers:
                self._form()
        return self._peers

    @property
    def coordinator_node(self) -> int | None:
        _ = self.peers
        return self._coordinator_node

    @property
    def control(self) -> Handle:
        return self._control.handle

    @property
    def busy(self) -> Collection[int]:
        return self._streams.keys()

    def send(self, task: Task, ranks: Sequence[int]) -> None:
        self._check()
        message = self._ray.put(task) if len(task.work) > _LARGE_BYTES else task
        for rank in ranks:
            with without_interrupts():
                self._streams[rank] = self._group.call(rank, "run", message)

    def receive(self, timeout_s: float, on_event: EventHandler) -> Mapping[int, Reply]:
        self._check()
        ready, _ = self._ray.wait(list(self._streams.values()), timeout=min(timeout_s, _POLL_S))
        self._cluster.check()
        for rank, stream in list(self._streams.items()):
            if stream in ready or rank in self._arrived:
                try:
                    with without_interrupts():
                        if rank not in self._arrived:
                            self._arrived[rank] = next(stream)
                    message = self._ray.get(self._arrived[rank])
                except self._ray.exceptions.RayError as error:
                    raise self._loss_of(rank, error) from None
                kind, content = message[:1], memoryview(message)[1:]
                with without_interrupts():
                    del self._arrived[rank]
                    if kind == REPLY:
                        del self._streams[rank]
                if kind == REPLY:
                    if not self._streams:
                        self._check_nodes(patience_s=0)
                    return {rank: cloudpickle.loads(content)}
                if kind == EVENT:
                    on_event(cloudpickle.loads(content))
                else:
                    self._output_until = time.monotonic() + _OUTPUT_DELAY_S
        self._check_nodes(_TIME_TO_NAME_S)
        self._check_stopped()
        return {}

    def abort(self, number: int) -> None:
        barrier.abort(self._control.array, number)

    def regroup(self, workers: int) -> None:
        with self._starting:
            if self._closed:
                raise BackendError("These workers have been closed.")
            self._cluster.check()
            if not self._lost:
                self._group.check_room(workers)
            lost = self._lost.ranks if isinstance(self._lost, WorkerLost) else ()
            self._lost = BackendError("The workers were stopped while others took their places. Start others.")
            barrier.abort(self._control.array, barrier.ALL_TASKS)
            self._stop_heartbeat()
            self._streams.clear()
            self._arrived.clear()
            self._peers, self._coordinator_node, self._near = (), None, range(0)
            self._stopped.clear()
            self._node_loss = None
            try:
                self._group.regroup(workers, lost)
            except BackendError as error:
                self._lost = error
                raise
            self._num_workers = workers
            self._control = SharedArray(barrier.control_shape(workers), "int64")
            self._stop_detector = StopDetector(self._worker_timeout_s, self._control.array)
            self._form()
            self._lost = None

    def keep_spare(self, *, keeps: bool) -> None:
        with self._starting:
            if not self._closed:
                self._group.keep_spare(keeps=keeps)

    def room(self) -> int:
        if self._cluster.is_private:
            return max(self._num_workers, num_cores() // self._threads_per_worker)
        return self._group.room()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._stop_heartbeat()
            if self._cluster.is_there:  # otherwise they are gone already
                time.sleep(max(self._output_until - time.monotonic(), 0))
                self._group.end(are_idle=not self._streams and not self._lost)
        finally:
            self._group.close()
            self._streams.clear()
            self._arrived.clear()
            self._cluster.leave()

    def _check(self) -> None:
        """Raise what ended the workers, or the connection to them."""
        _ = self.peers  # all have started, and none was lost
        self._cluster.check()

    def _form(self) -> None:
        """Make a group of the actors.  Who is lost meanwhile leaves the others to be regrouped."""
        try:
            self._peers = self._bootstrap()
        except WorkerLost as loss:
            self._lost = loss
            raise
        except BaseException as error:
            interrupted = BackendError("The workers were stopped while they started. Start others.")
            self._lost = error if isinstance(error, BackendError) else interrupted
            self.close()
            raise

    def _bootstrap(self) -> Sequence[ProcessInfo]:
        """Wait for all actors, and make them workers that know one another."""
        self._cluster.check()
        peers = self._group.wait_for_start()
        nodes = nodes_of(peers)
        if peers[0].node == ProcessInfo.in_cluster().node:
            self._coordinator_node, self._near = 0, nodes[0]
        if len(nodes) > 1:
            self._connect(nodes)
        controls: list[Handle | None] = [None] * len(nodes)
        if self._coordinator_node is not None:
            controls[self._coordinator_node] = self._control.handle
        others = [number for number in range(len(nodes)) if number != self._coordinator_node]
        firsts = self._set_up(peers, {nodes[number].start: None for number in others})
        for number in others:
            controls[number] = firsts[nodes[number].start]
        self._set_up(
            peers,
            {
                rank: controls[number]
                for number, node in enumerate(nodes)
                for rank in node
                if number == self._coordinator_node or rank > node.start
            },
        )
        if others:
            self._start_heartbeat(peers, [nodes[number] for number in others])
        return peers

    def _connect(self, nodes: Sequence[range]) -> None:
        """Give workers of different nodes connections to one another."""
        secret = secrets.token_bytes(32)
        ranks = range(nodes[-1].stop)
        endpoints = self._group.ask("listen", dict.fromkeys(ranks, secret))
        in_order = [endpoints[rank] for rank in ranks]
        self._group.ask("connect", {rank: (rank, nodes, in_order, secret) for rank in ranks})

    def _set_up(self, peers: Sequence[ProcessInfo], controls: Mapping[int, Handle | None]) -> dict[int, Handle]:
        """Make workers of these actors, by rank; returns the control memory that each of them uses."""
        configs = {
            rank: WorkerConfig(
                rank=rank,
                peers=peers,
                control=control,
                threads=self._threads_per_worker,
                worker_timeout_s=self._worker_timeout_s,
            )
            for rank, control in controls.items()
        }
        return self._group.ask("join", configs)

    def _start_heartbeat(self, peers: Sequence[ProcessInfo], nodes: Sequence[range]) -> None:
        """Keep in touch with these nodes through their first workers."""
        us = f"Host {ProcessInfo.in_cluster().host} (the coordinator)"
        self._ranks_of = {describe_node(peers, ranks): ranks for ranks in nodes}
        listener = HeartbeatListener([us, *self._ranks_of], self._ray.util.get_node_ip_address())
        endpoints = {ranks.start: listener.endpoint(i) for i, ranks in enumerate(nodes, start=1)}
        watching = {
            rank: self._group.call(rank, "watch", (endpoints.get(rank), self._worker_timeout_s))
            for ranks in nodes
            for rank in ranks
        }
        links = listener.accept(range(1, len(nodes) + 1), check=lambda: self._group.check_answers(watching))
        period_s, timeout_s = rhythm(self._worker_timeout_s)
        self._heartbeat = Heartbeat(
            links,
            self._control.array,
            self._on_node_loss,
            on_stopped=self._stopped.add,
            period_s=period_s,
            timeout_s=timeout_s,
        )
        self._group.answers(watching)

    def _stop_heartbeat(self) -> None:
        if self._heartbeat:
            self._heartbeat.close()
            self._heartbeat = None

    def _on_node_loss(self, what: str) -> None:
        """Note that a node was lost.  Called by the heartbeat, in its thread."""
        loss = WorkerLost(f"{what}.")
        loss.ranks = [rank for name, ranks in self._ranks_of.items() if name in what for rank in ranks]
        self._node_loss = time.monotonic(), loss
        barrier.abort(self._control.array, barrier.ALL_TASKS)

    def _check_nodes(self, patience_s: float) -> None:
        """Raise WorkerLost when a node was lost that long ago."""
        if self._node_loss and time.monotonic() - self._node_loss[0] >= patience_s:
            self._lost = self._node_loss[1]
            raise self._lost

    def _check_stopped(self) -> None:
        try:
            near = {rank: self._peers[rank].pid for rank in self._streams if rank in self._near}
            self._stop_detector.check(near, self._peers[0].host)
        except WorkerLost as loss:
            self._lost = loss
            raise

    def _loss_of(self, rank: int, error: Exception) -> WorkerLost:
        code = self._group.exit_code(rank, _TIME_TO_END_S)
        if rank in self._stopped:
            how = "was stopped by a signal, such as SIGSTOP, and has not gone on for many seconds."
        elif code is None:
            how = f"died. Ray says: {cause(error)}"
        else:
            how = how_it_ended(code) + "."
        self._lost = loss = self._group.loss(rank, how)
        return loss
