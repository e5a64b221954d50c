"""TCP connections between processes that know a common secret, which has come to them on another way.

Both sides prove that they know it, and neither says it: strangers get nothing and are given nothing.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 30.0
"""How long a visitor waits for a host who may be busy with others."""

_SILENCE_S = 20
"""After so long without a sign of life from the other host, its kernel's included, a connection is broken."""

_NUMBER = struct.Struct("!q")
_NONCE_BYTES = 32
_PROOF_BYTES = 32


@dataclass(frozen=True)
class Place:
    """Where a door is: at a port of one host, whose addresses are tried one after the other."""

    addresses: Sequence[str]
    port: int

    def __str__(self) -> str:
        return f"{', '.join(self.addresses)}, port {self.port}"


@final
class Door:
    """Where others connect to.

    addresses: at which others reach it.  on: the one that it listens on; "" means all that this host has.
    """

    def __init__(self, secret: bytes, addresses: Sequence[str], *, on: str = "", backlog: int = 128) -> None:
        self._secret = secret
        family = socket.AF_INET6 if ":" in on else socket.AF_INET
        self._server = socket.create_server((on, 0), family=family, backlog=backlog)
        self.place = Place(addresses, self._server.getsockname()[1])

    def admit(self, timeout_s: float) -> tuple[int, socket.socket] | None:
        """Wait for somebody; returns the number that they give, if they know the secret, and the connection."""
        self._server.settimeout(max(timeout_s, 0.01))
        try:
            connection, _ = self._server.accept()
        except OSError:
            return None
        number = self._number_of(connection)
        if number is None:
            connection.close()
            return None
        return number, _ready(connection)

    def close(self) -> None:
        """Admit nobody any more.  May be called twice."""
        self._server.close()

    def _number_of(self, connection: socket.socket) -> int | None:
        """Who is there, if it is one of us."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        connection.settimeout(_CONNECT_TIMEOUT_S)
        with suppress(OSError):
            connection.sendall(nonce)
            answer = _read(connection, _NUMBER.size + _NONCE_BYTES + _PROOF_BYTES)
            number, theirs, proof = answer[: _NUMBER.size], answer[_NUMBER.size : -_PROOF_BYTES], answer[-_PROOF_BYTES:]
            if hmac.compare_digest(proof, _proof(self._secret, b"visitor", number + nonce)):
                connection.sendall(_proof(self._secret, b"host", theirs))
                given: int = _NUMBER.unpack(number)[0]
                return given
        return None


def knock(place: Place, secret: bytes, number: int) -> socket.socket | None:
    """Connect to a door and give one's number; None when there is nobody, or nobody who knows the secret."""
    for address in place.addresses:
        try:
            connection = socket.create_connection((address, place.port), _CONNECT_TIMEOUT_S)
        except OSError:
            continue
        if _introduce(connection, secret, number):
            return _ready(connection)
        connection.close()
    return None


def _introduce(connection: socket.socket, secret: bytes, number: int) -> bool:
    """Say who we are; whether one of us is at the other end."""
    connection.settimeout(_ANSWER_TIMEOUT_S)
    with suppress(OSError):
        nonce = _read(connection, _NONCE_BYTES)
        packed, ours = _NUMBER.pack(number), secrets.token_bytes(_NONCE_BYTES)
        connection.sendall(packed + ours + _proof(secret, b"visitor", packed + nonce))
        return hmac.compare_digest(_read(connection, _PROOF_BYTES), _proof(secret, b"host", ours))
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


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("The other side hung up.")
        data += part
    return data
