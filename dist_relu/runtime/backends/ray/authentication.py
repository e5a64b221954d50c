"""Whether a Ray cluster is open to whoever reaches it: Ray runs what anybody sends, unless it asks for a token."""

from __future__ import annotations

import importlib
import ipaddress
from typing import Any


def has_authentication() -> bool:
    """Tell whether this process, which is connected to a cluster, had to say a token there."""
    core: Any = importlib.import_module("ray._raylet")
    if not hasattr(core, "get_authentication_mode"):  # before 2.52
        return False
    return bool(core.get_authentication_mode() != core.AuthenticationMode.DISABLED)


def danger_of(address: str, *, has_authentication: bool) -> str | None:
    """Say what is dangerous about a cluster at "host:port"; None if nothing is."""
    if has_authentication or _is_loopback(address.rpartition(":")[0].strip("[]")):
        return None
    return (
        f"The Ray cluster at {address} asks for no token: whoever reaches it over the network can run programs there, "
        "and in this process. Start it with RAY_AUTH_MODE=token (see SECURITY.md)."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
