"""How nodes notice that another one is gone: a machine that died, or a link that went down.

Neither MPI nor TCP says so for more than a minute. So the first worker of every node keeps a connection to the
coordinator, and both say every second that they are there. What they say is which calls are given up, so that it gets
about at once: a node that gave up a call tells the coordinator, and the coordinator tells all others.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

from dist_relu.arrays import Array
from dist_relu.collectives.barrier import abort
from dist_relu.errors import BackendError

_PERIOD_S = 1.0
_SILENCE_S = 10.0
_POLL_S = 0.02
_CONNECT_TIMEOUT_S = 3.0
_START_TIMEOUT_S = 30.0
_NUMBER = struct.Struct("!q")
_GOODBYE = -1
_NONCE_BYTES = 32
_SIOCGIFADDR = 0x8915
_WHAT_TO_DO = "Nodes must be able to open TCP connections to one another: look for firewalls between them."


@dataclass(frozen=True)
class Ticket:
    """Lets a worker connect to the coordinator.  addresses: of its host; one of them can be reached, we hope.

    name: of the coordinator's node, for people.  node: the number of the worker's.  secret: shared.
    """

    name: str
    addresses: Sequence[str]
    port: int
    node: int
    secret: bytes


@dataclass
class Link:
    """A connection to another node.  name: of what is at its other end, for people."""

    socket: socket.socket
    name: str
    heard_s: float = 0.0
    buffer: bytes = b""


@final
class Watch:
    """Keeps in touch with other nodes, from a thread of its own.

    control: of this node, see `Barrier`; what is given up on one node is given up on all.  on_loss: called once,
    in that thread, with a sentence that says who is gone.
    """

    def __init__(self, links: Sequence[Link], control: Array, on_loss: Callable[[str], object]) -> None:
        self._links = links
        self._control = control
        self._on_loss = on_loss
        self._told = int(control[0])
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dist_relu-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say goodbye.  May be called twice."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        poll = select.poll()
        now = spoken_s = time.monotonic()
        for link in self._links:
            link.heard_s = now
            poll.register(link.socket, select.POLLIN)
        links = {link.socket.fileno(): link for link in self._links}
        try:
            while not self._closed.is_set():
                ready = poll.poll(_POLL_S * 1000)
                now = time.monotonic()
                for descriptor, _ in ready:
                    if self._listen(links[descriptor], now):
                        poll.unregister(descriptor)
                        del links[descriptor]
                given_up = int(self._control[0])
                if given_up > self._told or now - spoken_s > _PERIOD_S:
                    self._told, spoken_s = given_up, now
                    self._tell(links.values(), given_up)
                for link in links.values():
                    if now - link.heard_s > _SILENCE_S:
                        raise _LostError(f"{link.name} has not been heard of for {_SILENCE_S:.0f} s")
        except _LostError as loss:
            self._on_loss(str(loss))
        finally:
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
            if number > self._control[0]:
                abort(self._control, number)
        return False

    def _tell(self, links: Iterable[Link], number: int) -> None:
        for link in links:
            with suppress(OSError):  # it will show as silence
                link.socket.send(_NUMBER.pack(number))


class _LostError(Exception):
    """Another node is gone."""


@final
class Reception:
    """Where the other nodes' first workers connect to.  names: what to call each node; ours is the first."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._secret = secrets.token_bytes(32)
        self._server = socket.create_server(("", 0), backlog=len(names) + 8)
        self._port: int = self._server.getsockname()[1]
        self._addresses = _own_addresses()

    def ticket(self, node: int) -> Ticket:
        return Ticket(self._names[0], self._addresses, self._port, node, self._secret)

    def links(self, nodes: Sequence[int]) -> list[Link]:
        """Wait for these nodes to connect.  Raises `BackendError` with the names of those who don't."""
        missing = set(nodes)
        links = []
        deadline = time.monotonic() + _START_TIMEOUT_S
        while missing and time.monotonic() < deadline:
            self._server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = self._server.accept()
            except OSError:
                continue
            node = self._admit(connection)
            if node in missing:
                missing.remove(node)
                links.append(_ready(connection, self._names[node]))
            else:
                connection.close()
        self._server.close()
        if missing:
            raise BackendError(
                f"No connection from {', '.join(self._names[node] for node in sorted(missing))} within "
                f"{_START_TIMEOUT_S:.0f} s to any of {', '.join(self._addresses)}, port {self._port}. {_WHAT_TO_DO}"
            )
        return links

    def _admit(self, connection: socket.socket) -> int | None:
        """Who is there, if it is one of us."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        connection.settimeout(_CONNECT_TIMEOUT_S)
        with suppress(OSError):
            connection.sendall(nonce)
            answer = _read(connection, _NUMBER.size + _NONCE_BYTES + 32)
            number, theirs = answer[: _NUMBER.size], answer[_NUMBER.size : -32]
            if hmac.compare_digest(answer[-32:], _sign(self._secret, b"worker", number + nonce)):
                connection.sendall(_sign(self._secret, b"coordinator", theirs))
                node: int = _NUMBER.unpack(number)[0]
                return node
        return None


def visit(ticket: Ticket) -> Link:
    """Connect to the coordinator.  Raises `BackendError` when none of its addresses can be reached."""
    for address in ticket.addresses:
        try:
            connection = socket.create_connection((address, ticket.port), _CONNECT_TIMEOUT_S)
        except OSError:
            continue
        if _introduce(connection, ticket):
            return _ready(connection, ticket.name)
        connection.close()
    raise BackendError(
        f"Host {socket.gethostname()} can't reach {ticket.name} at any of {', '.join(ticket.addresses)}, "
        f"port {ticket.port}. {_WHAT_TO_DO}"
    )


def _introduce(connection: socket.socket, ticket: Ticket) -> bool:
    """Say who we are; whether the coordinator is at the other end."""
    with suppress(OSError):
        nonce = _read(connection, _NONCE_BYTES)
        number, ours = _NUMBER.pack(ticket.node), secrets.token_bytes(_NONCE_BYTES)
        connection.sendall(number + ours + _sign(ticket.secret, b"worker", number + nonce))
        return hmac.compare_digest(_read(connection, 32), _sign(ticket.secret, b"coordinator", ours))
    return False


def _ready(connection: socket.socket, name: str) -> Link:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Link(connection, name)


def _sign(secret: bytes, role: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, role + message, "sha256")


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("The other side hung up.")
        data += part
    return data


def _own_addresses() -> list[str]:
    """The IPv4 addresses of this host's interfaces, the loopback last."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", os.fsencode(name)[:15])
            try:
                found.append(socket.inet_ntoa(fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)[20:24]))
            except OSError:
                continue  # it has no address
    return sorted(found, key=lambda address: address.startswith("127."))
