"""By which network interfaces and addresses a host is reached."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFADDR = 0x8915


def addresses_by_interface() -> dict[str, str]:
    """Return the IPv4 addresses of this host's interfaces by their names, the loopback last."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", os.fsencode(name)[:15])
            try:
                found[name] = socket.inet_ntoa(fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)[20:24])
            except OSError:
                continue  # it has no address
    return dict(sorted(found.items(), key=lambda entry: entry[1].startswith("127.")))
