"""A Ray cluster for this process alone."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import select
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import final

from dist_relu.errors import BackendError
from dist_relu.runtime.backends.ray import reaper
from dist_relu.runtime.backends.ray.connection import (
    disconnect,
    environment,
    explain,
    import_ray,
    quietly,
    read_settings,
)

_START_TIMEOUT_S = 60.0
_POLL_S = 0.1
_LOOPBACK = "127.0.0.1"
_WHAT_TO_DO = "Start this program again: Ray ends a process that has lost its cluster, or never got it, after a minute."
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # it need not yield to anybody
}
_INDISPENSABLE = ("gcs_server", "raylet")
"""The programs without which Ray would wait for minutes: the kernel's names of their processes."""


@final
class PrivateCluster:
    """A cluster that ends with this process, listens on the loopback address, and leaves nothing behind.

    Ray would take the address of a network interface instead, and write a token into ~/.ray that switches the
    authentication of later clusters on. This cluster has a token of its own, whatever the user has set for others: the
    loopback address is open to every user of the machine. The token is in a file, since what Ray's workers have in
    their environment gets to all programs that functions start.

    Ray is started in a thread of its own. Nothing interrupts what Ray does there, neither Ctrl-C nor the death of a
    process that it waits for, so somebody else has to look. And the kernel ends Ray's processes with the thread that
    has started them, so it must last as long as the cluster, which a thread of the user's need not do.
    Raises BackendError when the cluster does not start.
    """

    def __init__(self, num_cpus: int) -> None:
        from ray._private import ray_constants

        if _left_behind is not None and _left_behind.is_alive():
            raise BackendError(f"An earlier cluster did not start. {_WHAT_TO_DO}")
        self._folder = tempfile.mkdtemp(prefix="dist_relu_ray_", dir="/tmp")  # sockets need a short path
        token = os.path.join(self._folder, "auth_token")
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        self.reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self._folder, str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._num_cpus = num_cpus
        self._address = ""
        self._error: Exception | None = None
        self._has_started, self._has_ended = threading.Event(), threading.Event()
        self._servers: dict[int, int] = {}  # pids, by descriptor
        self._earlier = set().union(*_indispensable())  # of a cluster that has ended
        self._is_left_behind = False
        self._thread = threading.Thread(target=self._last, name="dist_relu-ray", daemon=True)
        variables = _SETTINGS | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
        may_leave_loopback = ray_constants.ENABLE_RAY_CLUSTER
        try:
            ray_constants.ENABLE_RAY_CLUSTER = False
            with environment(variables, without=["RAY_AUTH_TOKEN"]), quietly():
                read_settings()
                self._thread.start()
                self._wait_for_start()
            if self._address != _LOOPBACK:
                raise BackendError("This Ray can't be kept to the loopback address. Start a cluster: ray start --head.")
        except BaseException:
            self._give_up()
            raise
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = may_leave_loopback

    @property
    def loss(self) -> str | None:
        """Say so when a process has ended without which nothing goes on: Ray's calls would wait for it."""
        ends = select.poll()
        for server in self._servers:
            ends.register(server, select.POLLIN)
        for server, _ in ends.poll(0):
            return (
                f"A process of Ray (pid {self._servers[server]}) ended, and with it the cluster. Start other workers."
            )
        return None

    def end(self) -> None:
        """End what is left of it.  May be called twice."""
        self._has_ended.set()
        self.reaper.communicate()
        if os.path.exists(self._folder):  # the reaper was killed
            reaper.clear_up(self._folder)
        for server in self._servers:
            os.close(server)
        self._servers = {}

    def _last(self) -> None:
        """Start the cluster, and be there as long as it is."""
        try:
            context = import_ray().init(
                address="local",
                num_cpus=self._num_cpus,
                _temp_dir=os.path.join(self._folder, "t"),  # Ray lets everybody write to it; nobody gets that far
                logging_level=logging.ERROR,
            )
            self._address = context.address_info["node_ip_address"]
            self._servers = {os.pidfd_open(pid): pid for pid in _indispensable()[0] - self._earlier}
        except Exception as error:
            self._error = error
        self._has_started.set()
        self._has_ended.wait()
        if self._is_left_behind:
            disconnect()

    def _wait_for_start(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        known: set[int] = set()
        while not self._has_started.wait(_POLL_S):
            living, dead = _indispensable()
            if gone := (dead | known - living) - self._earlier:
                raise BackendError(
                    f"A process of Ray (pid {min(gone)}) was ended while it started a cluster. {_WHAT_TO_DO}"
                )
            known |= living
            if time.monotonic() > deadline:
                raise BackendError(f"Ray did not start a cluster within {_START_TIMEOUT_S:.0f} s. {_WHAT_TO_DO}")
        if self._error:
            raise BackendError(explain("this machine", self._error)) from self._error

    def _give_up(self) -> None:
        """End it.  The thread that starts it is left behind: it takes Ray a minute to see that there is no cluster."""
        global _left_behind  # noqa: PLW0603 - Ray has one connection for each process
        self._is_left_behind = not self._has_started.is_set()
        if self._is_left_behind:
            _left_behind = self._thread
            atexit.unregister(import_ray()._private.worker.shutdown)  # it would wait for that thread
        else:
            disconnect()
        self.end()


_left_behind: threading.Thread | None = None


def _indispensable() -> tuple[set[int], set[int]]:
    """Find the processes that Ray has started here and can't do without: those that live, and those that ended."""
    living: set[int] = set()
    dead: set[int] = set()
    us = str(os.getpid())
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", encoding="latin-1") as file:
                start, _, rest = file.read().rpartition(")")
                state, parent = rest.split()[:2]
                if parent == us and start.partition("(")[2] in _INDISPENSABLE:
                    (dead if state == "Z" else living).add(int(name))
    return living, dead
