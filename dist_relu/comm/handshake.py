"""TCP connections between processes that know a common secret, which has come to them on another way.

Both sides prove that they know it, and neither says it: strangers get nothing and are given nothing. A door hears all
of its visitors at once, each for a few seconds and a hundred bytes at most, so that those who say nothing, or one byte
a second, keep nobody else waiting.
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
_VISIT_TIMEOUT_S = 5.0
"""How long a visitor may take to say all that it has to say."""

_ANSWER_TIMEOUT_S = 30.0
"""How long a visitor waits for a host who may be busy with other things."""

_MAX_VISITORS = 64
"""So many are heard at once.  When more come, the one that has been there longest has to go."""

_SILENCE_S = 20
"""After so long without a sign of life from the other host, its kernel's included, a connection is broken."""

_PAUSE_S = 0.05
_NUMBER = struct.Struct("!q")
_NONCE_BYTES = 32
_PROOF_BYTES = 32
_INTRODUCTION_BYTES = _NUMBER.size + _NONCE_BYTES + _PROOF_BYTES


@dataclass(frozen=True)
class Endpoint:
    """Where a door is: at a port of one host, whose addresses are tried one after the other."""

    addresses: Sequence[str]
    port: int

    def __str__(self) -> str:
        return f"{', '.join(self.addresses)}, port {self.port}"


@dataclass(eq=False)
class _Visitor:
    """Somebody at the door.  nonce: what we asked.  deadline: until when we listen.  said: what we heard so far."""

    connection: socket.socket
    nonce: bytes
    deadline: float
    said: bytes = field(default=b"")


@final
class Listener:
    """Where others connect to.

    addresses: at which others reach it.  on: the one that it listens on; "" means all that this host has.
    """

    def __init__(self, secret: bytes, addresses: Sequence[str], *, on: str = "", backlog: int = 128) -> None:
        self._secret = secret
        family = socket.AF_INET6 if ":" in on else socket.AF_INET
        self._server = socket.create_server((on, 0), family=family, backlog=backlog)
        self._server.setblocking(False)
        self._visitors: dict[int, _Visitor] = {}  # by descriptor, in the order in which they came
        self.endpoint = Endpoint(addresses, self._server.getsockname()[1])

    def accept(self, timeout_s: float) -> tuple[int, socket.socket] | None:
        """Wait for somebody; returns the number that they give, if they know the secret, and the connection."""
        deadline = time.monotonic() + max(timeout_s, 0.01)
        while (now := time.monotonic()) < deadline:
            poll = select.poll()
            for descriptor in (self._server.fileno(), *self._visitors):
                poll.register(descriptor, select.POLLIN)
            until = min([deadline, *(visitor.deadline for visitor in self._visitors.values())])
            for descriptor, _ in poll.poll(max(until - now, 0) * 1000 + 1):
                if descriptor == self._server.fileno():
                    self._welcome()
                elif (visitor := self._visitors.get(descriptor)) and (number := self._listen(visitor)) is not None:
                    return number, _ready(visitor.connection)
            now = time.monotonic()  # those who said it all while nobody listened have been heard by now
            for visitor in [visitor for visitor in self._visitors.values() if visitor.deadline < now]:
                self._send_away(visitor)
        return None

    def close(self) -> None:
        """Admit nobody any more.  May be called twice."""
        for visitor in list(self._visitors.values()):
            self._send_away(visitor)
        self._server.close()

    def _welcome(self) -> None:
        """Let somebody in, and ask who it is."""
        if len(self._visitors) >= _MAX_VISITORS:
            self._send_away(next(iter(self._visitors.values())))
        try:
            connection, _ = self._server.accept()
        except BlockingIOError:
            return  # they have gone already
        except OSError:  # there are no descriptors left
            if self._visitors:
                self._send_away(next(iter(self._visitors.values())))
            else:
                time.sleep(_PAUSE_S)
            return
        connection.setblocking(False)
        visitor = _Visitor(connection, secrets.token_bytes(_NONCE_BYTES), time.monotonic() + _VISIT_TIMEOUT_S)
        self._visitors[connection.fileno()] = visitor
        try:
            connection.send(visitor.nonce)
        except OSError:
            self._send_away(visitor)

    def _listen(self, visitor: _Visitor) -> int | None:
        """Take in what a visitor says; returns the number of one of us, who is no visitor any more."""
        with suppress(OSError):
            said = visitor.connection.recv(_INTRODUCTION_BYTES - len(visitor.said))
            visitor.said += said
            if said and len(visitor.said) < _INTRODUCTION_BYTES:
                return None
            number, theirs, proof = (
                visitor.said[: _NUMBER.size],
                visitor.said[_NUMBER.size : -_PROOF_BYTES],
                visitor.said[-_PROOF_BYTES:],
            )
            if said and hmac.compare_digest(proof, _proof(self._secret, b"visitor", number + visitor.nonce)):
                visitor.connection.send(_proof(self._secret, b"host", theirs))
                del self._visitors[visitor.connection.fileno()]
                given: int = _NUMBER.unpack(number)[0]
                return given
        self._send_away(visitor)
        return None

    def _send_away(self, visitor: _Visitor) -> None:
        del self._visitors[visitor.connection.fileno()]
        visitor.connection.close()


def connect(endpoint: Endpoint, secret: bytes, number: int) -> socket.socket | None:
    """Connect to a door and give one's number; None when there is nobody, or nobody who knows the secret."""
    for address in endpoint.addresses:
        try:
            connection = socket.create_connection((address, endpoint.port), _CONNECT_TIMEOUT_S)
        except OSError:
            continue
        if _introduce(connection, secret, number):
            return _ready(connection)
        connection.close()
    return None


def _introduce(connection: socket.socket, secret: bytes, number: int) -> bool:
    """Say who we are; whether one of us is at the other end."""
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    with suppress(OSError):
        nonce = _read(connection, _NONCE_BYTES, deadline)
        packed, ours = _NUMBER.pack(number), secrets.token_bytes(_NONCE_BYTES)
        connection.sendall(packed + ours + _proof(secret, b"visitor", packed + nonce))
        return hmac.compare_digest(_read(connection, _PROOF_BYTES, deadline), _proof(secret, b"host", ours))
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
