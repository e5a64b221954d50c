"""Where compiled kernels may come from.

Numba keeps them as machine code and pickles: whoever can write to the folder can have this process run anything. Beside
our own source that is nobody new. Elsewhere, where NUMBA_CACHE_DIR says, it may be anybody, as in /tmp.
"""

from __future__ import annotations

import os
import stat
import warnings
from contextlib import suppress
from pathlib import Path

from numba import config

_VARIABLE = "NUMBA_CACHE_DIR"


def leave_unsafe_folder() -> None:
    """Let Numba use no folder that others can write to, in this process and those that it starts; warns of it."""
    folder = os.environ.get(_VARIABLE)
    if not folder:
        return
    with suppress(OSError):  # Numba will say so
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        if danger := who_else_writes(Path(folder)):
            warnings.warn(
                f"{_VARIABLE}={folder} is not used: {danger}, and so could have this program run anything. "
                "Name a folder of your own, or none.",
                stacklevel=3,
            )
            del os.environ[_VARIABLE]
            config.reload_config()


def who_else_writes(folder: Path) -> str | None:
    """Say why others than this user and root can put files into a folder that exists; None when they can't."""
    folder = folder.resolve()
    if (owner := folder.stat().st_uid) not in (0, os.geteuid()):
        return f"{folder} belongs to another user (number {owner})"
    for path in (folder, *folder.parents):
        status = path.stat()
        is_open_to_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.geteuid())  # one of many users
        is_open = status.st_mode & stat.S_IWOTH or is_open_to_group
        if is_open and (path == folder or not status.st_mode & stat.S_ISVTX):
            return f"others can write to {path}"
    return None
