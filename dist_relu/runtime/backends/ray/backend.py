"""Workers as the actors of a Ray cluster, on one node or several.

Those of a node share memory as local processes do, and those of several nodes have connections of their own. Through
Ray go only calls, events and replies, which are small but for the data sets, and these reach each node once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from math import inf
from typing import Any, final

import cloudpickle

from dist_relu.comm.barrier import ALL_CALLS, abort, control_shape
from dist_relu.comm.shared_memory import Handle, SharedArray
from dist_relu.comm.suspended import Standstill
from dist_relu.core.machine import how_it_ended, num_cores
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.base import GRACE_AFTER_ERROR_S, Backend, EventHandler, info_here, values
from dist_relu.runtime.backends.heartbeat import Reception, Watch, called
from dist_relu.runtime.backends.ray.actor import EVENT, REPLY
from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray
from dist_relu.runtime.backends.ray.placement import Gang, cause, cpus_of_cluster
from dist_relu.runtime.process_info import ProcessInfo, nodes_of
from dist_relu.runtime.worker import Failed, Reply, Task, WorkerConfig

_POLL_S = 0.1
_OUTPUT_DELAY_S = 0.5
"""How long the last lines that a worker has printed may be on their way to this process."""

_TIME_TO_BE_MISSED_S = 5.0
"""How long Ray may take to notice the death of a worker whose peers have noticed it already."""

_TIME_TO_NAME_S = 1.0
"""How long Ray may take to say which worker it was when the connection to a node has ended."""

_LARGE_BYTES = 100_000
"""What is larger reaches each node once, through the object store."""


@final
class RayBackend(Backend):
    """`workers` actors with `threads_per_worker` CPUs each, by default as many as the cluster has CPUs for.

    address: see `Cluster.join`.  spread: over as many nodes as there are, rather than on as few as have room.
    """

    def __init__(
        self, workers: int | None, threads_per_worker: int, address: str | None = None, *, spread: bool = False
    ) -> None:
        on_this_machine = max(num_cores() // threads_per_worker, 1)
        self._cluster = Cluster.join(address, (workers or on_this_machine) * threads_per_worker)
        self._ray = import_ray()
        self._threads_per_worker = threads_per_worker
        self._gang: Gang | None = None
        self._watch: Watch | None = None
        self._meeting = threading.Lock()
        self._standstill = Standstill()
        self._infos: list[ProcessInfo] = []
        self._home: int | None = None
        self._near = range(0)  # ranks of this node
        self._owing: dict[int, Any] = {}  # the streams of messages of the ranks that have not answered yet
        self._lost: BackendError | None = None
        self._node_loss: tuple[float, WorkerLost] | None = None  # and when it was noticed
        self._closed = False
        self._output_until = 0.0
        try:
            if workers is None:
                total, _ = cpus_of_cluster()
                workers = on_this_machine if self._cluster.is_private else max(int(total // threads_per_worker), 1)
            self._control = SharedArray(control_shape(workers), "int64")
            self._gang = Gang(self._cluster, workers, threads_per_worker, spread=spread)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return "ray"

    @property
    def peers(self) -> Sequence[ProcessInfo]:
        """The workers, by rank.  Waits until they have started: they do so while the user's script goes on."""
        with self._meeting:
            if self._lost:
                raise self._lost
            if not self._infos:
                try:
                    self._infos = self._meet()
                except BaseException as error:
                    interrupted = BackendError("The workers were stopped while they started. Start others.")
                    self._lost = error if isinstance(error, BackendError) else interrupted
                    self.close()
                    raise
        return self._infos

    @property
    def coordinator_node(self) -> int | None:
        _ = self.peers
        return self._home

    def call(self, call: Task, ranks: Sequence[int], on_event: EventHandler) -> list[Any]:
        _ = self.peers  # all have started, and none was lost
        self._cluster.check()
        assert self._gang is not None
        try:
            while self._owing:  # ranks that are still busy with a call that was given up
                self._receive(_ignore, inf)
            message = self._ray.put(call) if len(call.work) > _LARGE_BYTES else call
            for rank in ranks:
                self._owing[rank] = self._gang.actors[rank].run.remote(message)
            replies: dict[int, Reply] = {}
            deadline = inf
            while self._owing and time.monotonic() < deadline:
                replies |= self._receive(on_event, deadline)
                errors = [reply.error for reply in replies.values() if isinstance(reply, Failed)]
                if deadline == inf and errors:
                    missed = any(isinstance(error, WorkerLost) for error in errors)
                    deadline = time.monotonic() + (_TIME_TO_BE_MISSED_S if missed else GRACE_AFTER_ERROR_S)
            self._check_nodes(patience_s=0)
        except BaseException:
            abort(self._control.array, call.number)
            raise
        return values([replies[rank] for rank in sorted(replies)])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._watch:
                self._watch.close()
            if self._gang and self._cluster.is_there:  # otherwise they are gone already
                time.sleep(max(self._output_until - time.monotonic(), 0))
                self._gang.end(are_idle=not self._owing and not self._lost)
        finally:
            if self._gang:
                self._gang.forget()
            self._owing.clear()
            self._cluster.leave()

    def _meet(self) -> list[ProcessInfo]:
        """Wait for all workers, and make them known to one another."""
        self._cluster.check()
        assert self._gang is not None
        self._gang.meet()
        infos = self._gang.infos
        nodes = nodes_of(infos)
        self._home = 0 if infos[0].node == info_here().node else None
        self._near = nodes[0] if self._home == 0 else range(0)
        if len(nodes) > 1:
            self._connect(nodes)
        controls: list[Handle | None] = [None] * len(nodes)
        if self._home is not None:
            controls[self._home] = self._control.handle
        others = [number for number in range(len(nodes)) if number != self._home]
        firsts = self._set_up({nodes[number].start: None for number in others})
        for number, handle in zip(others, firsts, strict=True):
            controls[number] = handle
        self._set_up(
            {
                rank: controls[number]
                for number, node in enumerate(nodes)
                for rank in node
                if number == self._home or rank > node.start
            }
        )
        if others:
            self._watch_over(nodes, others)
        return infos

    def _connect(self, nodes: Sequence[range]) -> None:
        """Give workers of different nodes connections to one another."""
        assert self._gang is not None
        secret = secrets.token_bytes(32)
        ranks = range(nodes[-1].stop)
        places = self._gang.ask("open_door", dict.fromkeys(ranks, secret))
        wish = nodes, [places[rank] for rank in ranks], secret
        self._gang.ask("connect", dict.fromkeys(ranks, wish))

    def _set_up(self, controls: dict[int, Handle | None]) -> list[Handle]:
        """Make workers of these actors, by rank; returns the control memory that each of them uses."""
        assert self._gang is not None
        infos = self._gang.infos
        setups = {
            rank: WorkerConfig(rank, infos, control, self._threads_per_worker) for rank, control in controls.items()
        }
        return list(self._gang.ask("join", setups).values())

    def _watch_over(self, nodes: Sequence[range], others: Sequence[int]) -> None:
        """Keep in touch with the other nodes through their first workers."""
        assert self._gang is not None
        infos = self._gang.infos
        us = f"Host {info_here().host} (the coordinator)"
        names = [us, *(called(infos, nodes[number]) for number in others)]
        reception = Reception(names, self._ray.util.get_node_ip_address())
        firsts = {nodes[number].start: reception.ticket(i) for i, number in enumerate(others, start=1)}
        visits = {rank: self._gang.actors[rank].watch.remote(ticket) for rank, ticket in firsts.items()}
        links = reception.links(range(1, len(names)))
        for rank, visit in visits.items():
            self._gang.answer(rank, visit)
        self._watch = Watch(links, self._control.array, self._on_node_loss)

    def _on_node_loss(self, what: str) -> None:
        """Called by the watch, in its thread."""
        self._node_loss = time.monotonic(), WorkerLost(f"{what}. Start other workers.")
        abort(self._control.array, ALL_CALLS)

    def _check_nodes(self, patience_s: float) -> None:
        """Raise WorkerLost when a node was lost that long ago."""
        if self._node_loss and time.monotonic() - self._node_loss[0] >= patience_s:
            self._lost = self._node_loss[1]
            raise self._lost

    def _receive(self, on_event: EventHandler, deadline: float) -> dict[int, Reply]:
        """Wait for a message, for a while at most; pass on an event, or return a reply, by rank."""
        timeout_s = min(max(deadline - time.monotonic(), 0), _POLL_S)
        ready, _ = self._ray.wait(list(self._owing.values()), timeout=timeout_s)
        self._cluster.check()
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
        self._check_nodes(_TIME_TO_NAME_S)
        try:
            near = {rank: self._infos[rank].pid for rank in self._owing if rank in self._near}
            self._standstill.look(near, self._infos[0].host)
        except WorkerLost as loss:
            self._lost = loss
            raise
        return {}

    def _loss_of(self, rank: int, error: Exception) -> WorkerLost:
        assert self._gang is not None
        peer = self._infos[rank]
        code = self._gang.exit_code(rank, GRACE_AFTER_ERROR_S)
        how = f"died. Ray says: {cause(error)}" if code is None else how_it_ended(code) + "."
        self._lost = WorkerLost(f"Worker {rank} (host {peer.host}, pid {peer.pid}) {how}")
        return self._lost


def _ignore(event: object) -> None:
    pass
