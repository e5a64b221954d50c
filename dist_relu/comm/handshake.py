"""TCP connections between processes that know a common secret, which has come to them on another way.

Both sides prove that they know it, and neither says it: strangers learn nothing and are given nothing. A listener
hears all of its pending connections at once, each for a few seconds and a hundred bytes at most, so that those that
say nothing, or one byte a second, keep nobody else waiting.
"""

from __future__ import annotations

import hmac
import secrets
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 30.0
"""How long a client waits for a listener whose process may be busy with other things."""

_SILENCE_S = 20
"""After so long without a sign of life from the other host, its kernel's included, a connection is broken."""

_PAUSE_S = 0.05
_NUMBER = struct.Struct("!q")
_NONCE_BYTES = 32
_PROOF_BYTES = 32
_REQUEST_BYTES = _NUMBER.size + _NONCE_BYTES + _PROOF_BYTES


@dataclass(frozen=True)
class Endpoint:
    """An endpoint is where a listener is reached: a port of one host, whose addresses are tried one after the other."""

    addresses: Sequence[str]
    port: int

    def __str__(self) -> str:
        return f"{', '.join(self.addresses)}, port {self.port}"


@dataclass(eq=False)
class _Pending:
    """A connection whose other end has not proved yet that it knows the secret.

    nonce: what we asked.  deadline: until when we listen.  received: what has come so far.
    """

    connection: socket.socket
    nonce: bytes
    deadline: float
    received: bytes = field(default=b"")


@final
class Listener:
    """Lets those who know the secret connect to this process.

    addresses: at which others reach it.  on: the one that it listens on; "" means all that this host has.
    handshake_timeout_s: how long one may take to prove that it knows the secret.  max_pending: so many may do so at
    once; when more come, the oldest is dropped.
    """

    def __init__(
        self,
        secret: bytes,
        addresses: Sequence[str],
        *,
        on: str = "",
        backlog: int = 128,
        handshake_timeout_s: float = 5.0,
        max_pending: int = 64,
    ) -> None:
        self._secret = secret
        self._handshake_timeout_s = handshake_timeout_s
        self._max_pending = max_pending
        family = socket.AF_INET6 if ":" in on else socket.AF_INET
        self._server = socket.create_server((on, 0), family=family, backlog=backlog)
        self._server.setblocking(False)
        self._pending: dict[int, _Pending] = {}  # by descriptor, in the order in which they came
        self.endpoint = Endpoint(addresses, self._server.getsockname()[1])

    def accept(self, timeout_s: float) -> tuple[int, socket.socket] | None:
        """Wait for one who knows the secret; returns the number that it gives, and the connection."""
        deadline = time.monotonic() + max(timeout_s, 0.01)
        while (now := time.monotonic()) < deadline:
            poll = select.poll()
            for descriptor in (self._server.fileno(), *self._pending):
                poll.register(descriptor, select.POLLIN)
            until = min([deadline, *(pending.deadline for pending in self._pending.values())])
            for descriptor, _ in poll.poll(max(until - now, 0) * 1000 + 1):
                if descriptor == self._server.fileno():
                    self._accept_pending()
                elif (pending := self._pending.get(descriptor)) and (number := self._listen(pending)) is not None:
                    return number, _ready(pending.connection)
            now = time.monotonic()  # what came while nobody listened has been heard by now
            for pending in [pending for pending in self._pending.values() if pending.deadline < now]:
                self._drop(pending)
        return None

    def close(self) -> None:
        """Accept nobody any more.  May be called twice."""
        for pending in list(self._pending.values()):
            self._drop(pending)
        self._server.close()

    def _accept_pending(self) -> None:
        """Accept a connection, and ask who is at its other end."""
        if len(self._pending) >= self._max_pending:
            self._drop(next(iter(self._pending.values())))
        try:
            connection, _ = self._server.accept()
        except BlockingIOError:
            return  # it has gone already
        except OSError:  # there are no descriptors left
            if self._pending:
                self._drop(next(iter(self._pending.values())))
            else:
                time.sleep(_PAUSE_S)
            return
        connection.setblocking(False)
        pending = _Pending(connection, secrets.token_bytes(_NONCE_BYTES), time.monotonic() + self._handshake_timeout_s)
        self._pending[connection.fileno()] = pending
        try:
            connection.send(pending.nonce)
        except OSError:
            self._drop(pending)

    def _listen(self, pending: _Pending) -> int | None:
        """Take in what has come; returns the number that the other end gave, when it has proved to know the secret."""
        with suppress(OSError):
            part = pending.connection.recv(_REQUEST_BYTES - len(pending.received))
            pending.received += part
            if part and len(pending.received) < _REQUEST_BYTES:
                return None
            number, theirs, proof = (
                pending.received[: _NUMBER.size],
                pending.received[_NUMBER.size : -_PROOF_BYTES],
                pending.received[-_PROOF_BYTES:],
            )
            if part and hmac.compare_digest(proof, _proof(self._secret, b"client", number + pending.nonce)):
                pending.connection.send(_proof(self._secret, b"server", theirs))
                del self._pending[pending.connection.fileno()]
                given: int = _NUMBER.unpack(number)[0]
                return given
        self._drop(pending)
        return None

    def _drop(self, pending: _Pending) -> None:
        del self._pending[pending.connection.fileno()]
        pending.connection.close()


def connect(endpoint: Endpoint, secret: bytes, number: int) -> socket.socket | None:
    """Connect to a listener and give one's number; None when there is none, or none that knows the secret."""
    for address in endpoint.addresses:
        try:
            connection = socket.create_connection((address, endpoint.port), _CONNECT_TIMEOUT_S)
        except OSError:
            continue
        if _authenticate(connection, secret, number):
            return _ready(connection)
        connection.close()
    return None


def _authenticate(connection: socket.socket, secret: bytes, number: int) -> bool:
    """Prove that we know the secret; returns whether the other end does, too."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    with suppress(OSError):
        nonce = _read(connection, _NONCE_BYTES, deadline)
        packed, ours = _NUMBER.pack(number), secrets.token_bytes(_NONCE_BYTES)
        connection.sendall(packed + ours + _proof(secret, b"client", packed + nonce))
        return hmac.compare_digest(_read(connection, _PROOF_BYTES, deadline), _proof(secret, b"server", ours))
    return False


def _ready(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        socket.TCP_NODELAY: 1,
        socket.TCP_KEEPIDLE: _SILENCE_S // 2,
        socket.TCP_KEEPINTVL: _SILENCE_S // 4,
        socket.TCP_KEEPCNT: 2,
        socket.TCP_USER_TIMEOUT: _SILENCE_S * 1000,
    }
    for option, value in options.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _proof(secret: bytes, role: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, role + message, "sha256")


def _read(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("The other side hung up.")
        data += part
    return data
