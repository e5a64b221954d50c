"""How nodes notice that another one is gone: a machine that died, or a link that went down.

Neither MPI nor TCP says so for more than a minute. So the first worker of every node keeps a connection to the
coordinator, and both say every second that they are there. What they say is which tasks are given up, so that it gets
about at once: a node that gave up a task tells the coordinator, and the coordinator tells all others.

A job that is suspended and goes on later (by Ctrl-Z, a batch system, a laptop's lid) has lost nobody. So silence is
measured in time during which the listener itself was running.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import gethostname
from typing import final

from dist_relu.comm.barrier import abort
from dist_relu.comm.handshake import Endpoint, Listener, connect
from dist_relu.core.arrays import Array
from dist_relu.core.interfaces import addresses_by_interface
from dist_relu.errors import BackendError
from dist_relu.runtime.process_info import ProcessInfo

_POLL_S = 0.02
_CHECK_S = 0.2
_NUMBER = struct.Struct("!q")
_GOODBYE = -1
_STOPPED = -2
"""What is said of rank 0 when it was stopped by a signal; of rank 1 it is one less, and so on."""

_WHAT_TO_DO = "Nodes must be able to open TCP connections to one another: look for firewalls between them."


@dataclass
class Link:
    """A link is a connection to another node.  name: of what is at its other end, for people."""

    socket: socket.socket
    name: str
    heard_s: float = 0.0
    buffer: bytes = b""


@final
class Heartbeat:
    """Keeps in touch with other nodes, from a thread of its own.

    control: of this node, see `NodeBarrier`; what is given up on one node is given up on all.  on_loss: called once,
    in that thread, with a sentence that says who is gone; the other nodes hear what it has given up, and a goodbye.
    on_stopped: called in that thread with the rank of a worker that another node reports.  period_s: how often each
    side speaks.  timeout_s: after so long without a word a node counts as lost.
    """

    def __init__(
        self,
        links: Sequence[Link],
        control: Array,
        on_loss: Callable[[str], object],
        *,
        on_stopped: Callable[[int], object] | None = None,
        period_s: float = 1.0,
        timeout_s: float = 10.0,
    ) -> None:
        self._links = links
        self._control = control
        self._on_loss = on_loss
        self._on_stopped = on_stopped
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._told = int(control[0])
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dist_relu-heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say goodbye to the other nodes.  May be called twice."""
        self._closed.set()
        self._thread.join()

    def report_stopped(self, rank: int) -> None:
        """Tell the other nodes that a worker of this one was stopped by a signal and counts as lost."""
        self._tell(self._links, _STOPPED - rank)

    def _work(self) -> None:
        poll = select.poll()
        clock = _RunningTime(self._period_s)
        now = spoken_s = clock.now()
        for link in self._links:
            link.heard_s = now
            poll.register(link.socket, select.POLLIN)
        links = {link.socket.fileno(): link for link in self._links}
        try:
            while not self._closed.is_set():
                ready = poll.poll(_POLL_S * 1000)
                now = clock.now()
                for descriptor, _ in ready:
                    if self._listen(links[descriptor], now):
                        poll.unregister(descriptor)
                        del links[descriptor]
                given_up = int(self._control[0])
                if given_up > self._told or now - spoken_s > self._period_s:
                    self._told, spoken_s = given_up, now
                    self._tell(links.values(), given_up)
                if any(now - link.heard_s > self._timeout_s for link in links.values()):
                    raise _LostError(self._silence(list(links.values()), now))
        except _LostError as loss:
            self._on_loss(str(loss))
        finally:
            self._tell(links.values(), int(self._control[0]))
            self._tell(links.values(), _GOODBYE)
            for link in self._links:
                link.socket.close()

    def _listen(self, link: Link, now: float) -> bool:
        """Take in what has come; returns whether it was the last."""
        try:
            arrived = link.socket.recv(4096)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _LostError(f"{link.name} is gone ({error.strerror})") from None
        if not arrived:
            raise _LostError(f"{link.name} is gone: its connection was closed")
        link.heard_s = now
        link.buffer += arrived
        while len(link.buffer) >= _NUMBER.size:
            (number,) = _NUMBER.unpack_from(link.buffer)
            link.buffer = link.buffer[_NUMBER.size :]
            if number == _GOODBYE:
                return True
            if number <= _STOPPED and self._on_stopped:
                self._on_stopped(_STOPPED - number)
            if number > self._control[0]:
                abort(self._control, number)
        return False

    def _silence(self, links: Sequence[Link], now: float) -> str:
        """Say who is not heard of.  If nobody is, of several, they are hardly all to blame."""
        silent = [link.name for link in links if now - link.heard_s > self._timeout_s - 2 * self._period_s]
        if len(silent) == len(links) > 1:
            names = f"{', '.join(silent[:-1])} and {silent[-1]}"
            return f"{names} have not been heard of for {self._timeout_s:g} s; host {gethostname()} may be cut off"
        return f"{silent[0]} has not been heard of for {self._timeout_s:g} s"

    def _tell(self, links: Iterable[Link], number: int) -> None:
        for link in links:
            with suppress(OSError):  # it will show as silence
                link.socket.send(_NUMBER.pack(number))


@final
class _RunningTime:
    """Measures the time during which this process was running: a pause longer than a period counts as one."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._passed_s = 0.0
        self._looked_s = time.monotonic()

    def now(self) -> float:
        looked_s = time.monotonic()
        self._passed_s += min(looked_s - self._looked_s, self._period_s)
        self._looked_s = looked_s
        return self._passed_s


class _LostError(Exception):
    """Another node is gone."""


@final
class HeartbeatListener:
    """Lets the other nodes' first workers connect to the coordinator.

    names: what to call each node; ours is the first.  address: the only one to listen on; by default all of this host.
    """

    def __init__(self, names: Sequence[str], address: str = "") -> None:
        self._names = names
        self._secret = secrets.token_bytes(32)
        self._listener = Listener(
            self._secret, [address] if address else list(addresses_by_interface().values()), on=address
        )

    def endpoint(self, node: int) -> HeartbeatEndpoint:
        """Return the endpoint that the first worker of a node connects to."""
        return HeartbeatEndpoint(name=self._names[0], endpoint=self._listener.endpoint, node=node, secret=self._secret)

    def accept(
        self, nodes: Sequence[int], timeout_s: float = 30.0, check: Callable[[], object] = lambda: None
    ) -> list[Link]:
        """Wait for these nodes to connect.  Raises `BackendError` with the names of those who don't.

        check: called all the while; what it raises ends the wait.
        """
        missing = set(nodes)
        links: list[Link] = []
        deadline = time.monotonic() + timeout_s
        try:
            while missing and (remaining_s := deadline - time.monotonic()) > 0:
                check()
                accepted = self._listener.accept(min(remaining_s, _CHECK_S))
                if accepted is None:
                    continue
                node, connection = accepted
                if node in missing:
                    missing.remove(node)
                    links.append(Link(connection, self._names[node]))
                else:
                    connection.close()
            if missing:
                raise BackendError(
                    f"No connection from {', '.join(self._names[node] for node in sorted(missing))} within "
                    f"{timeout_s:.0f} s to any of {self._listener.endpoint}. {_WHAT_TO_DO}"
                )
        except BaseException:
            for link in links:
                link.socket.close()
            raise
        finally:
            self._listener.close()
        return links


@dataclass(frozen=True, kw_only=True)
class HeartbeatEndpoint:
    """What a worker needs to connect to the coordinator.

    name: of the coordinator's node, for people.  node: the number of the worker's.  secret: shared.
    """

    name: str
    endpoint: Endpoint
    node: int
    secret: bytes = field(repr=False)

    def connect(self) -> Link:
        """Connect to the coordinator.  Raises `BackendError` when none of its addresses can be reached."""
        connection = connect(self.endpoint, self.secret, self.node)
        if connection is None:
            raise BackendError(f"Host {gethostname()} can't reach {self.name} at any of {self.endpoint}. {_WHAT_TO_DO}")
        return Link(connection, self.name)


def describe_node(peers: Sequence[ProcessInfo], ranks: range) -> str:
    """Name a node for people, by its host and its ranks."""
    numbers = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
    return f"Host {peers[ranks[0]].host} ({numbers})"
