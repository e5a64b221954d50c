"""An actor of a group, as the coordinator sees it."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from typing import Any

from dist_relu.core.machine import is_stopped
from dist_relu.runtime.process_info import ProcessInfo


@dataclass(eq=False)
class Member:
    """An actor of the group.

    node: where it runs, by Ray's name.  description: what will be its answer to `describe`.  info: what it has said.
    process: the descriptor of its process, if that runs on this node.
    """

    actor: Any
    node: str
    description: Any
    info: ProcessInfo | None = None
    process: int | None = None

    @property
    def has_ended(self) -> bool:
        """Tell whether its process is seen to have ended."""
        return self.process is not None and has_ended(self.process, 0)

    @property
    def is_stopped(self) -> bool:
        """Tell whether its process is seen to have been stopped by a signal."""
        return self.process is not None and self.info is not None and is_stopped(self.info.pid)

    def close(self) -> None:
        """Close what is open of it in this process.  May be called twice."""
        if self.process is not None:
            os.close(self.process)
            self.process = None


def has_ended(process: int, timeout_s: float) -> bool:
    """Wait until the process behind a pidfd has ended, but not for longer than that; returns whether it has."""
    end = select.poll()
    end.register(process, select.POLLIN)
    return bool(end.poll(max(timeout_s, 0) * 1e3))
