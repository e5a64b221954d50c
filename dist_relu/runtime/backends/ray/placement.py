"""The actors of a group: where they go, all at first or none, how they start, and how they end."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import cloudpickle

from dist_relu.core.machine import exit_code, how_it_ended
from dist_relu.errors import BackendError, WorkerLost
from dist_relu.runtime.backends.ray import actor
from dist_relu.runtime.backends.ray.actor import DistReluWorker, versions_here
from dist_relu.runtime.backends.ray.cluster import Cluster
from dist_relu.runtime.backends.ray.connection import import_ray
from dist_relu.runtime.backends.ray.member import Member, has_ended
from dist_relu.runtime.backends.ray.reservation import Reservation
from dist_relu.runtime.backends.ray.room import TIME_TO_PLACE_S, check_nodes, cpus_per_worker, find_room, room_by_node
from dist_relu.runtime.process_info import ProcessInfo, by_node
from dist_relu.runtime.surroundings import absolute_import_paths

_TIME_TO_LEAVE_S = 5.0
"""How long a worker may take to give up what it does, when the group becomes another one."""

_TIME_TO_DIE_S = 1.0
"""How long Ray may take to say that a worker has died when another one complains of it."""

_POLL_S = 0.1
_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 40.0
_GRACE_S = 2.0
_CLOSE_TIMEOUT_S = 5.0

_CANT_JOIN = "can't join the others"


@final
class ActorGroup:
    """`num_workers` actors with `threads_per_worker` CPUs each, on nodes where there is room for all of them at once.

    nodes: on exactly so many, as many on each; None: on as few as have room.  spread: on as many as there are instead.
    Those that come later, by `regroup`, go where there is room, best where the one was whose place they take.
    They start while the user's script goes on; `wait_for_start` waits for them.  members: by rank, when they have
    started; ranks follow the nodes, and that of this process comes first.
    """

    def __init__(
        self, cluster: Cluster, num_workers: int, threads_per_worker: int, *, nodes: int | None, spread: bool
    ) -> None:
        """Raises what `check_nodes` does."""
        if nodes is not None:
            check_nodes(num_workers, nodes, threads_per_worker)
        self._ray = import_ray()
        self._cluster = cluster
        self._num_workers = num_workers
        self._spread = spread
        self._cpus = cpus_per_worker(cluster, num_workers, threads_per_worker)
        self._run = secrets.token_hex(3)
        self._num_started = 0
        self._here: str = self._ray.get_runtime_context().get_node_id()
        self._reservation: Reservation | None = None
        self.members: list[Member] = []
        self._keeps_spare = False
        self._spare: list[Member] = []  # that wait for a place
        self._ray.cloudpickle.register_pickle_by_value(actor)
        self._actor_class = self._ray.remote(DistReluWorker)
        try:
            if cluster.is_private:
                self._start([self._here] * num_workers)
            else:
                self._reservation = Reservation(
                    cluster, num_workers, self._cpus, nodes=nodes, spread=spread, name=f"dist_relu {self._run}"
                )
                if reserved := self._reservation.nodes(TIME_TO_PLACE_S):
                    self._start_where_reserved(reserved)
        except BaseException:
            if cluster.is_there:
                self.end()
            raise

    def wait_for_start(self) -> Sequence[ProcessInfo]:
        """Wait for all workers, as long as it takes; returns what they say of themselves, by rank.

        Raises WorkerLost when one has died, after which there may be a `regroup`, otherwise BackendError.
        """
        self._wait_for_placement()
        self._wait_for_descriptions()
        infos = [member.info for member in self.members if member.info]
        order = [i - 1 for i in by_node([ProcessInfo.in_cluster(), *infos])[1:]]
        self.members = [self.members[i] for i in order]
        return [infos[i] for i in order]

    def regroup(self, num_workers: int, lost: Collection[int]) -> None:
        """Become so many: those that live and leave what they did stay, and others start; `wait_for_start` follows.

        lost: the ranks of those that are known to be.  Raises NoRoom where there is none for so many; those that live
        are the members then.
        """
        self._wait_for_placement()
        gone = self._let_go({rank for rank in lost if rank < len(self.members)})
        places: list[Member | str] = [member.node if member in gone else member for member in self.members]
        places += [member for member in self._spare if not member.has_ended]
        for i in reversed(range(len(places))):  # the last ones of those who are gone need not be replaced
            if len(places) > num_workers and isinstance(places[i], str):
                del places[i]
        spare = [place for place in places[num_workers:] if isinstance(place, Member)]
        self._spare = spare if self._keeps_spare else []
        if not self._keeps_spare:
            self._dismiss(spare)
        self._end(gone)
        for member in gone:
            member.close()
        places = places[:num_workers]
        self.members = living = [place for place in places if isinstance(place, Member)]
        wanted: list[str | None] = [place for place in places if isinstance(place, str)]
        wanted += [None] * (num_workers - len(places))
        nodes = self._find_room(wanted, [member.node for member in living])
        self._num_workers = num_workers
        started = iter(self._start(nodes))
        replaced = [place if isinstance(place, Member) else next(started) for place in places]
        self.members = [*replaced, *started]

    def keep_spare(self, *, keeps: bool) -> None:
        """See `Backend.keep_spare`."""
        self._keeps_spare = keeps
        if not keeps:
            spare, self._spare = self._spare, []
            self._dismiss(spare)

    def check_room(self, num_workers: int) -> None:
        """Raise NoRoom where there is none for so many, before anything is changed."""
        there = [*self.members, *self._spare]
        self._find_room([None] * (num_workers - len(there)), [member.node for member in there])

    def room(self) -> int:
        """Tell how many workers there could be: these, and those for which there are CPUs."""
        return len(self.members) + len(self._spare) + sum(room_by_node(self._cpus, set()).values())

    def ask(self, method: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """Call a method of some actors, by rank, all at once; returns what they return, by rank.

        Raises what `answers` does.
        """
        return self.answers({rank: self.call(rank, method, argument) for rank, argument in arguments.items()})

    def call(self, rank: int, method: str, argument: Any) -> Any:
        """Call a method of an actor; returns a reference to what it will return."""
        return getattr(self.members[rank].actor, method).remote(argument)

    def answers(self, references: Mapping[int, Any]) -> dict[int, Any]:
        """Wait for what actors return, by rank.  Raises WorkerLost at once when one dies, otherwise BackendError."""
        found: dict[int, Any] = {}
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        while missing := {reference: rank for rank, reference in references.items() if rank not in found}:
            for reference in self._wait(list(missing)):
                try:
                    found[missing[reference]] = self._get(missing[reference], reference, _CANT_JOIN)
                except BackendError as error:
                    self._look_for_dead(missing, error)
                    raise
            self.check(missing.values())
            if time.monotonic() > deadline:
                raise self.loss(min(missing.values()), f"has not answered for {_ANSWER_TIMEOUT_S:.0f} s.")
        return found

    def check_answers(self, references: Mapping[int, Any]) -> None:
        """Raise what `answers` would, if one of these has failed by now."""
        by_reference = {reference: rank for rank, reference in references.items()}
        ready, _ = self._ray.wait(list(by_reference), num_returns=len(by_reference), timeout=0)
        for reference in ready:
            self._get(by_reference[reference], reference, _CANT_JOIN)
        self.check(references.keys())

    def check(self, ranks: Collection[int]) -> None:
        """Raise WorkerLost when one of these was stopped by a signal while the group comes together."""
        for rank in ranks:
            if self.members[rank].is_stopped:
                raise self.loss(rank, "was stopped by a signal, such as SIGSTOP, before it had joined the others.")

    def loss(self, rank: int, how: str) -> WorkerLost:
        """Return the error that says how a worker was lost; with it are lost those that are seen to have died."""
        info = self.members[rank].info
        where = f" (host {info.host}, pid {info.pid})" if info else ""
        loss = WorkerLost(f"Worker {rank}{where} {how}")
        loss.ranks = sorted({rank, *(i for i, member in enumerate(self.members) if member.has_ended)})
        return loss

    def exit_code(self, rank: int, timeout_s: float) -> int | None:
        """Tell with what code a worker that has died did end, if it ran on this node."""
        process = self.members[rank].process
        if process is None or not has_ended(process, timeout_s):
            return None
        return exit_code(process)

    def end(self, *, are_idle: bool = False) -> None:
        """End them, whatever they do, and give back what they had; those of this node are gone on return.

        are_idle: they have a moment to end as Python programs do.
        """
        self._unreserve()
        members = [*self.members, *self._spare]
        if are_idle:
            self._say_goodbye(members)
        self._end(members)

    def close(self) -> None:
        """Close what is open in this process.  May be called twice."""
        for member in [*self.members, *self._spare]:
            member.close()

    def _start_where_reserved(self, nodes: Sequence[str]) -> None:
        """Start the actors where there is room for all, those of a node one after the other, this node's first."""
        self._unreserve()  # each worker holds its own CPUs from now on, so that each can give them back
        order = list(dict.fromkeys([self._here, *nodes]))  # Ray shows the numbers to people
        self._start(sorted(nodes, key=order.index))

    def _unreserve(self) -> None:
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None

    def _wait_for_placement(self) -> None:
        if self._reservation is not None:
            self._start_where_reserved(self._reservation.wait())

    def _start(self, nodes: Sequence[str]) -> list[Member]:
        """Start an actor on each of these nodes; they are members from then on."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        paths = absolute_import_paths()
        first = len(self.members)
        for rank, node in enumerate(nodes, start=first):
            options = self._actor_class.options(
                name=f"dist_relu worker {rank} of {self._num_workers} ({self._run}.{self._num_started})",
                num_cpus=self._cpus,
                scheduling_strategy=strategy(node, soft=False),
            )
            self._num_started += 1
            started = options.remote(rank)
            self.members.append(Member(started, node, started.describe.remote(paths)))
        return self.members[first:]

    def _wait_for_descriptions(self) -> None:
        """Wait until all have started, and let them say who they are."""
        ours, here = versions_here(), ProcessInfo.in_cluster().node
        deadline = time.monotonic() + _START_TIMEOUT_S
        while missing := {member.description: rank for rank, member in enumerate(self.members) if not member.info}:
            for reference in self._wait(list(missing)):
                member = self.members[missing[reference]]
                theirs, host, info = self._get(missing[reference], reference, "did not start")
                if theirs != ours:
                    raise BackendError(_difference(host, ours, theirs))
                member.info = cloudpickle.loads(info)
                assert member.info
                if member.info.node == here:
                    with suppress(ProcessLookupError):
                        member.process = os.pidfd_open(member.info.pid)
            if time.monotonic() > deadline:
                numbers = sorted(missing.values())
                raise BackendError(f"Workers {numbers} did not start within {_START_TIMEOUT_S:.0f} seconds.")
            self.check([rank for rank, member in enumerate(self.members) if member.info])

    def _let_go(self, lost: Collection[int]) -> list[Member]:
        """Let all leave the group that there was; returns those that are lost or don't."""
        gone = [self.members[rank] for rank in lost]
        leaving = {
            member.actor.leave.remote(): member
            for member in self.members
            if member not in gone and member.info  # others have not begun with anything
        }
        deadline = time.monotonic() + _TIME_TO_LEAVE_S
        while leaving:
            for reference in self._wait(list(leaving)):
                member = leaving.pop(reference)
                try:
                    self._ray.get(reference)
                except self._ray.exceptions.RayError:
                    gone.append(member)
            is_late = time.monotonic() > deadline
            for reference, member in list(leaving.items()):
                if is_late or member.has_ended or member.is_stopped:
                    gone.append(leaving.pop(reference))
        return gone

    def _find_room(self, wanted: Sequence[str | None], members: Sequence[str]) -> list[str]:
        """Find nodes for so many, best those that are wanted.  Raises NoRoom where there is none for all."""
        if self._cluster.is_private:
            return [self._here] * len(wanted)
        return find_room(self._cluster, self._cpus, wanted, members, spread=self._spread)

    def _dismiss(self, members: Sequence[Member]) -> None:
        """Let members end that are not needed any more."""
        self._say_goodbye(members)
        self._end(members)
        for member in members:
            member.close()
        self.members = [member for member in self.members if member not in members]

    def _say_goodbye(self, members: Sequence[Member]) -> None:
        """Let actors that are idle end as Python programs do, those of other nodes too."""
        leaving = [member.actor.__ray_terminate__.remote() for member in members if member.info]
        deadline = time.monotonic() + _GRACE_S
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=_GRACE_S)
        for member in members:
            if member.process is not None:
                has_ended(member.process, deadline - time.monotonic())

    def _end(self, members: Sequence[Member]) -> None:
        """End actors, whatever they do; those of this node are gone on return."""
        for member in members:
            self._ray.kill(member.actor)
            if member.process is not None:
                with suppress(ProcessLookupError):  # it takes Ray 5 s to kill one that was stopped
                    signal.pidfd_send_signal(member.process, signal.SIGKILL)
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        for member in members:
            if member.process is not None:
                has_ended(member.process, deadline - time.monotonic())

    def _wait(self, references: Sequence[Any]) -> Sequence[Any]:
        """Wait a moment for some of these; returns those that have come."""
        ready, _ = self._ray.wait(list(references), num_returns=1, timeout=_POLL_S)
        self._cluster.check()
        if len(ready) < len(references):
            ready, _ = self._ray.wait(list(references), num_returns=len(references), timeout=0)
        return ready  # type: ignore[no-any-return]

    def _look_for_dead(self, references: Mapping[Any, int], error: BackendError) -> None:
        """Raise WorkerLost when one has died, which may be what another has complained of with `error`."""
        deadline = time.monotonic() + _TIME_TO_DIE_S
        left = dict(references)
        while left and not isinstance(error, WorkerLost) and time.monotonic() < deadline:
            for reference in self._wait(list(left)):
                with suppress(self._ray.exceptions.RayTaskError):
                    try:
                        self._ray.get(reference)
                    except self._ray.exceptions.RayActorError as death:
                        raise self._died(left[reference], death) from None
                del left[reference]

    def _died(self, rank: int, error: Exception) -> WorkerLost:
        code = self.exit_code(rank, _TIME_TO_DIE_S)
        how = f"died while it started. Ray says: {cause(error)}" if code is None else how_it_ended(code) + "."
        return self.loss(rank, how)

    def _get(self, rank: int, reference: Any, what: str) -> Any:
        """Fetch what an actor has returned.  Raises WorkerLost when it has died, BackendError with what it raised."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError as error:
            raise self._died(rank, error) from None
        except self._ray.exceptions.RayError as error:
            info = self.members[rank].info
            where = f" (host {info.host})" if info else ""
            raise BackendError(f"Worker {rank}{where} {what}: {cause(error)}") from None


def cause(error: Exception) -> str:
    """Return what Ray knows of an error on one line, without what it says of every death."""
    text = str(error)
    if isinstance(error, import_ray().exceptions.RayTaskError):
        text = text.strip().splitlines()[-1]
    _, _, detail = text.rpartition("Worker exit detail: ")
    return " ".join(detail.partition("Some common causes include")[0].split())


def _difference(host: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    differences = [f"{name} {ours[name]} here, {theirs[name]} there" for name in ours if ours[name] != theirs[name]]
    return (
        f"The Ray node {host} has other versions than this program: {'; '.join(differences)}. "
        "Equal bits need equal versions: start Ray in the environment that this program runs in."
    )
