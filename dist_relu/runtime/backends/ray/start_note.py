"""The note that `ray start` leaves on its machine, of where its cluster is reached.

It lies where every user of the machine may write, and who joins a cluster runs what that cluster says. So only a note
of this user or of root is believed.
"""

from __future__ import annotations

import logging
import os

_log = logging.getLogger(__name__)

_MAX_ADDRESS_BYTES = 1000


def address_in(path: str) -> str | None:
    """Read the address of a cluster from `path`; None where there is none, or where it is another user's."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            owner = os.fstat(file.fileno()).st_uid
            address = file.read(_MAX_ADDRESS_BYTES).decode(errors="replace").strip()
    except OSError:
        return None
    if owner not in (0, os.geteuid()):
        _log.warning(
            f"{path} is from another user (number {owner}) and is not followed. Pass its address, {address!r}."
        )
        return None
    return address or None
