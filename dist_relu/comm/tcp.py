"""Messages between workers over TCP connections of their own.

What is sent goes from the array into the kernel, and what is wanted goes from there into its array, with no copy
between. A message is a header and its bytes; those of one connection come in their order. Nothing in it is unpickled,
and no length in it is believed: a worker that sends what nobody expects is lost, by name.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dist_relu.comm.channel import MAX_TAG, Callback, Channel
from dist_relu.comm.handshake import Endpoint, Listener, connect
from dist_relu.core.arrays import Array
from dist_relu.core.machine import available_memory_bytes
from dist_relu.errors import BackendError, WorkerLost

_HEADER = struct.Struct("!qQQ")  # task, tag, bytes that follow
_WASTE_BYTES = 1 << 16
_MAX_MESSAGE_BYTES = 1 << 40
_EARLY_MESSAGE_BYTES = 1024
"""What it takes to keep a message that came early, its content apart."""

_LEAST_EARLY_BYTES = 1 << 28


def connect_nodes(
    rank: int,
    nodes: Sequence[range],
    listener: Listener,
    endpoints: Sequence[Endpoint],
    secret: bytes,
    *,
    timeout_s: float = 30.0,
) -> TcpChannel:
    """Connect worker `rank` to those of other nodes, who all do the same.  Collective; closes `listener`.

    listener: ours, which knows the secret.  endpoints: of all listeners, by rank.  timeout_s: for those who have still
    to connect to us.  Raises BackendError that names who is missing.
    """
    (own,) = (ranks for ranks in nodes if rank in ranks)
    others = [other for ranks in nodes for other in ranks if ranks is not own]
    connections: dict[int, socket.socket] = {}
    for other in others:
        if other < rank and (connection := connect(endpoints[other], secret, rank)):
            connections[other] = connection
    deadline = time.monotonic() + timeout_s
    while (missing := [other for other in others if other not in connections]) and missing[-1] > rank:
        if time.monotonic() > deadline:
            break
        if accepted := listener.accept(deadline - time.monotonic()):
            other, connection = accepted
            if other > rank and other in missing:
                connections[other] = connection
            else:
                connection.close()
    listener.close()
    if missing:
        for connection in connections.values():
            connection.close()
        there = "; ".join(f"worker {other} at {endpoints[other]}" for other in missing)
        raise BackendError(
            f"Worker {rank} at {endpoints[rank]} has no connection with {there}. "
            "Nodes must be able to open TCP connections to one another: look for firewalls between them."
        )
    return TcpChannel(connections)


@final
class TcpChannel(Channel):
    """Sends arrays over TCP connections.

    connections: non-blocking, to each worker that messages are exchanged with, by rank.

    max_early_bytes: how much of what nobody has asked for yet is kept for each of them; by default a quarter of the
    memory that is available now, or 256 MiB if that is more.

    A message that nobody has asked for yet is kept in memory of its own, so that those behind it can come through.
    A worker whose connection ends is lost as soon as something is to be sent there or wanted from there, and so is one
    that sends what is no message, one of another size than was asked for, or too much that nobody asks for.
    """

    def __init__(self, connections: Mapping[int, socket.socket], max_early_bytes: int | None = None) -> None:
        self._peers = {rank: _Peer(rank, connection) for rank, connection in connections.items()}
        if max_early_bytes is None:
            max_early_bytes = max(available_memory_bytes() // 4, _LEAST_EARLY_BYTES)
        self._max_early_bytes = max_early_bytes
        self._gone: dict[int, str] = {}  # what is to be said of those that are lost
        self._task = 0
        self._wanted: dict[tuple[int, int], deque[tuple[memoryview, Callback]]] = {}
        self._early: dict[tuple[int, int, int], deque[memoryview]] = {}
        """By rank and tag, both; the early ones by task as well."""
        self._done: list[Callback] = []
        self._waste = memoryview(bytearray(_WASTE_BYTES))
        self._poll = select.epoll()
        self._by_descriptor = {peer.socket.fileno(): peer for peer in self._peers.values()}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)

    def begin(self, task: int) -> None:
        self._task = task
        self._done.clear()
        self._wanted.clear()
        for key in [key for key in self._early if key[0] < task]:
            for content in self._early.pop(key):
                self._peers[key[1]].forget(content)
        for peer in self._peers.values():
            under_way = [message for message in peer.leaving if message.is_under_way]
            for message in under_way:  # the other side must be able to tell where the next one starts
                message.on_done = _nothing
            peer.leaving = deque(under_way)
            if (incoming := peer.incoming) and incoming.task < task and not incoming.is_waste:
                if not incoming.on_done:
                    peer.forget(incoming.content)
                incoming.on_done = None
                incoming.is_waste = True

    def send(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        content = _bytes_of(array)
        peer = self._peers[rank]
        peer.leaving.append(_Leaving([memoryview(_HEADER.pack(self._task, tag, len(content))), content], on_done))
        if len(peer.leaving) == 1:
            self._push(peer)

    def receive(self, array: Array, rank: int, tag: int, on_done: Callback) -> None:
        content = _bytes_of(array)
        key = self._task, rank, tag
        early = self._early.get(key)
        if early:
            came = early.popleft()
            if not early:
                del self._early[key]
            peer = self._peers[rank]
            peer.forget(came)
            if len(came) != len(content):
                self._lose(peer, _unlike(rank, tag, len(came), len(content)))
                raise WorkerLost(self._gone[rank])
            content[:] = came
            self._done.append(on_done)
        else:
            self._wanted.setdefault((rank, tag), deque()).append((content, on_done))

    @property
    def is_busy(self) -> bool:
        under_way = any(peer.leaving or peer.incoming for peer in self._peers.values() if not peer.is_gone)
        return under_way or bool(self._done)

    def progress(self) -> bool:
        ready = self._poll.poll(0)
        for descriptor, events in ready:
            peer = self._by_descriptor[descriptor]
            if events & select.EPOLLOUT:
                self._push(peer)
            if events & ~select.EPOLLOUT:
                self._pull(peer)
        moved = bool(ready or self._done)
        while self._done:
            done, self._done = self._done, []
            for on_done in done:
                on_done()
        for rank, what in self._gone.items():
            if self._peers[rank].leaving or any(self._wanted[key] for key in self._wanted if key[0] == rank):
                raise WorkerLost(what)
        return moved

    def close(self) -> None:
        """End all connections.  May be called twice."""
        for peer in self._peers.values():
            peer.is_gone = True
            peer.socket.close()
        self._poll.close()

    def _push(self, peer: _Peer) -> None:
        """Send what the connection takes."""
        while peer.leaving and not peer.is_gone:
            message = peer.leaving[0]
            try:
                sent = peer.socket.sendmsg(message.parts)
            except BlockingIOError:
                break
            except OSError:
                self._lose(peer, _hung_up(peer.rank))
                return
            message.skip(sent)
            if not message.parts:
                peer.leaving.popleft()
                self._done.append(message.on_done)
        is_full = bool(peer.leaving)
        if is_full != peer.is_full and not peer.is_gone:
            peer.is_full = is_full
            self._poll.modify(peer.socket, select.EPOLLIN | (select.EPOLLOUT if is_full else 0))

    def _pull(self, peer: _Peer) -> None:
        """Take in what has come."""
        while not peer.is_gone:
            target = peer.incoming.target(self._waste) if peer.incoming else peer.header[peer.header_size :]
            try:
                size = peer.socket.recv_into(target)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self._lose(peer, _hung_up(peer.rank))
                return
            if peer.incoming:
                peer.incoming.size += size
            else:
                peer.header_size += size
                if peer.header_size == _HEADER.size:
                    peer.header_size = 0
                    peer.incoming = self._expected(peer, *_HEADER.unpack(peer.header))
            if peer.incoming and peer.incoming.is_complete:
                incoming, peer.incoming = peer.incoming, None
                self._arrived(incoming)
            if size < len(target):
                return

    def _expected(self, peer: _Peer, task: int, tag: int, size: int) -> _Incoming | None:
        """Return what takes in a message of `size` bytes; None when the worker is lost over it."""
        rank = peer.rank
        if task < 0 or tag > MAX_TAG or size > _MAX_MESSAGE_BYTES:
            self._lose(peer, f"Worker {rank} has sent what is no message of this job.")
            return None
        wanted = self._wanted.get((rank, tag)) if task == self._task else None
        if wanted:
            if len(wanted[0][0]) != size:
                self._lose(peer, _unlike(rank, tag, size, len(wanted[0][0])))
                return None
            content, on_done = wanted.popleft()
            return _Incoming(task, rank, tag, size, content, on_done)
        if task < self._task:
            return _Incoming(task, rank, tag, size, self._waste, None, is_waste=True)
        if peer.early_bytes + size + _EARLY_MESSAGE_BYTES > self._max_early_bytes:
            self._lose(peer, f"Worker {rank} has sent more than {self._max_early_bytes} bytes that nobody wants.")
            return None
        # The kernel gives memory to what has come, not to what was announced.
        content = np.empty(size, np.uint8).data
        peer.keep(content)
        return _Incoming(task, rank, tag, size, content, None)

    def _arrived(self, message: _Incoming) -> None:
        if message.is_waste:
            return
        if message.on_done:
            self._done.append(message.on_done)
            return
        peer = self._peers[message.rank]
        wanted = self._wanted.get((message.rank, message.tag)) if message.task == self._task else None
        if not wanted:
            self._early.setdefault((message.task, message.rank, message.tag), deque()).append(message.content)
        elif len(wanted[0][0]) != len(message.content):
            self._lose(peer, _unlike(message.rank, message.tag, len(message.content), len(wanted[0][0])))
        else:  # wanted since it began to arrive
            content, on_done = wanted.popleft()
            content[:] = message.content
            peer.forget(message.content)
            self._done.append(on_done)

    def _lose(self, peer: _Peer, what: str) -> None:
        """Hang up.  what: to be said of it."""
        if peer.is_gone:
            return
        peer.is_gone = True
        self._gone[peer.rank] = what
        self._poll.unregister(peer.socket)
        del self._by_descriptor[peer.socket.fileno()]
        peer.socket.close()


@dataclass
class _Leaving:
    """A message on its way out.  parts: what is still to be sent."""

    parts: list[memoryview]
    on_done: Callback
    is_under_way: bool = False

    def skip(self, size: int) -> None:
        self.is_under_way = True
        while self.parts and size >= len(self.parts[0]):
            size -= len(self.parts.pop(0))
        if size:
            self.parts[0] = self.parts[0][size:]


@dataclass
class _Incoming:
    """A message on its way in.  size: how much of it has come.  on_done: None for what nobody has asked for.

    is_waste: it belongs to a task that was given up, and its memory may already be in other use.
    """

    task: int
    rank: int
    tag: int
    size_bytes: int
    content: memoryview
    on_done: Callback | None
    size: int = 0
    is_waste: bool = False

    @property
    def is_complete(self) -> bool:
        return self.size == self.size_bytes

    def target(self, waste: memoryview) -> memoryview:
        """Return the memory where the next bytes go."""
        return waste[: self.size_bytes - self.size] if self.is_waste else self.content[self.size :]


@dataclass
class _Peer:
    """A worker at the other end of a connection.  incoming: None while its header is still on the way.

    early_bytes: what its messages take that nobody has asked for yet.  is_full: the connection takes nothing more now.
    """

    rank: int
    socket: socket.socket
    leaving: deque[_Leaving] = field(default_factory=deque)
    header: memoryview = field(default_factory=lambda: memoryview(bytearray(_HEADER.size)))
    header_size: int = 0
    incoming: _Incoming | None = None
    early_bytes: int = 0
    is_full: bool = False
    is_gone: bool = False

    def keep(self, content: memoryview) -> None:
        self.early_bytes += len(content) + _EARLY_MESSAGE_BYTES

    def forget(self, content: memoryview) -> None:
        self.early_bytes -= len(content) + _EARLY_MESSAGE_BYTES


def _bytes_of(array: Array) -> memoryview:
    assert array.flags.c_contiguous
    return array.reshape(-1).view(np.uint8).data


def _hung_up(rank: int) -> str:
    return f"Worker {rank} has closed its connection."


def _unlike(rank: int, tag: int, size: int, expected: int) -> str:
    return f"Worker {rank} has sent {size} bytes where {expected} were expected (tag {tag})."


def _nothing() -> None:
    pass
