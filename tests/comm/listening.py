"""Sockets that processes listen on, as the kernel lists them, and strangers who connect there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.programs import TIMEOUT_S

HERE = "127.0.0.1"
_LISTENS = "0A"
_ACCEPTS = "00010000"
_FLOOD_BYTES = 100_000_000
_HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Port:
    """A TCP port of this machine that process `pid` listens on.  is_local: on the loopback address alone."""

    pid: int
    number: int
    is_local: bool


def ports_of(pids: Iterable[int]) -> list[Port]:
    """The ports that these processes listen on."""
    owners = _owners(pids)
    found = []
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            words = line.split()
            address, _, port = words[1].partition(":")
            if words[3] == _LISTENS and words[9] in owners:
                found.append(Port(owners[words[9]], int(port, 16), address.endswith("0100007F")))
    return found


def local_sockets_of(pids: Iterable[int]) -> list[str]:
    """The paths of local sockets that these processes listen on."""
    owners = _owners(pids)
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [words[7] for words in lines if words[3] == _ACCEPTS and words[6] in owners and len(words) > 7]


def _owners(pids: Iterable[int]) -> dict[str, int]:
    """Processes by the inodes of their sockets."""
    owners: dict[str, int] = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    kind, _, inode = os.readlink(link).partition(":[")
                    if kind == "socket":
                        owners.setdefault(inode.rstrip("]"), pid)
    return owners


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def strangers(port: int, number: int) -> list[socket.socket]:
    """So many connections to a port: some say nothing, the others what nobody there understands."""
    words = [b"", b"\x7f", b"GET / HTTP/1.1\r\n\r\n", os.urandom(104), bytes(104), _HTTP_2 + os.urandom(200)]
    connections = []
    for i in range(number):
        with suppress(OSError):  # refused, or hung up on
            connections.append(socket.create_connection((HERE, port), TIMEOUT_S))
            connections[-1].sendall(words[i % len(words)])
    return connections


def is_cut_off(port: int, patience_s: float = 3.0) -> bool:
    """Whether who sends 100 MB to a port is hung up on, or at least is not listened to for that long."""
    deadline = time.monotonic() + patience_s
    sent = 0
    try:
        with socket.create_connection((HERE, port), TIMEOUT_S) as connection:
            while sent < _FLOOD_BYTES:
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                sent += connection.send(bytes(1 << 16))
    except OSError:
        return True
    return False
