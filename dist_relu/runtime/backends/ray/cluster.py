"""How this process comes to a Ray cluster, and how it leaves it.

Ray holds one connection for each process. If the user's script has made it, it is used and left alone; otherwise it
is made here, shared by all backends of this process, and ended with the last of them.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import socket
import sys
import time
from math import ceil
from typing import Any, final

from dist_relu.errors import BackendError, UnsuitableBackend
from dist_relu.runtime.backends.ray.authentication import danger_of, has_authentication
from dist_relu.runtime.backends.ray.connection import (
    disconnect,
    environment,
    explain,
    import_ray,
    init,
    is_about_token,
)
from dist_relu.runtime.backends.ray.private_cluster import PrivateCluster
from dist_relu.runtime.backends.ray.start_note import address_in

_log = logging.getLogger(__name__)

_MAX_PORT = 65535

_HTTP2_SETTINGS = 4
_HTTP2_FRAME_HEADER_BYTES = 9
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _HTTP2_SETTINGS, 0, 0, 0, 0, 0])
"""RFC 9113, sections 3.4 and 4.1: what a client says first, and a frame of settings with none."""

_NO_CLIENT = (
    "Ray's client (ray://...) shares no memory with the workers. "
    "Run this program on a node of the cluster, with address='HOST:PORT' or none."
)


@final
class Cluster:
    """A connection to a Ray cluster.

    is_ours: we made the connection.  address: what the user called it by.  private: the cluster itself, if it was
    started here for this process alone.
    """

    def __init__(self, is_ours: bool, address: str | None = None, private: PrivateCluster | None = None) -> None:
        self._is_ours = is_ours
        self._private = private
        self._session = _session()
        self._addresses = {address, self._session[0]}
        self._num_users = 0

    @classmethod
    def join(cls, address: str | None, num_cpus: int, timeout_s: float) -> Cluster:
        """Join the cluster that this process is connected to, or that it is now connected to.

        address: of the cluster. Without one it is the one in RAY_ADDRESS, or the one that `ray start` left on this
        machine, or else one of our own with `num_cpus`, which only this machine can reach.
        timeout_s: how long a cluster may take to answer.
        Raises BackendError when there is no way to it.
        """
        global _cluster  # noqa: PLW0603 - Ray has one connection for each process
        ray = import_ray()
        if _is_forked:
            raise BackendError(
                "This process was forked from one that is connected to Ray, and can't use Ray. "
                'Use backend="local", or start processes with multiprocessing\'s method "spawn".'
            )
        if ray.util.client.ray.is_connected():
            raise BackendError(_NO_CLIENT)
        if not ray.is_initialized():
            _cluster = _connect(address or os.environ.get("RAY_ADDRESS") or None, num_cpus, timeout_s)
            if danger := danger_of(_cluster._session[0], has_authentication=has_authentication()):
                _log.warning(danger)
        elif _cluster is None or not _cluster.is_connected:
            _cluster = cls(is_ours=False)
        if address not in (None, "auto", *_cluster._addresses):
            raise UnsuitableBackend(
                f"address={address!r}, but this process is connected to the Ray cluster at {_cluster._session[0]}. "
                "Leave the address out, or call ray.shutdown() first."
            )
        _cluster._num_users += 1
        return _cluster

    @property
    def is_private(self) -> bool:
        return self._private is not None

    def check(self) -> None:
        """Raise BackendError when a private cluster was lost, or the connection has ended."""
        if self._private is not None and (loss := self._private.loss):
            raise BackendError(loss)
        if not self.is_connected:  # Ray would start a cluster of its own rather than say so
            raise BackendError("The connection to the Ray cluster has ended. Start other workers.")

    @property
    def is_there(self) -> bool:
        """Tell whether there is anybody to talk to."""
        return self.is_connected and (self._private is None or not self._private.loss)

    @property
    def is_connected(self) -> bool:
        """Tell whether the connection still stands: the user's script may end it, and make another one."""
        return bool(import_ray().is_initialized()) and _session() == self._session

    def leave(self) -> None:
        """End the connection if this was the last to use it and we made it; a private cluster ends with it."""
        self._num_users -= 1
        if self._num_users:
            return
        if self._private is not None and not self.is_there:
            self._private.end()  # before Ray looks for what is gone
        if self._is_ours and self.is_connected:
            disconnect()
        if self._private is not None:
            self._private.end()


_cluster: Cluster | None = None
_is_forked = False
"""Whether this process was forked from one that was connected."""


def _leave_it_to_parent() -> None:
    """Let the end of a forked process neither end the connection and the cluster of its parent, nor wait for them."""
    global _is_forked  # noqa: PLW0603 - as above
    if _cluster is not None:
        _is_forked = True
        worker = import_ray()._private.worker
        atexit.unregister(worker.shutdown)
        if worker._global_node is not None:
            worker._global_node.all_processes.clear()  # which it would kill


def _end_at_once() -> None:
    """End a forked process for good: Ray's objects can't end without the threads of the parent."""
    if _is_forked:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if getattr(sys, "last_value", None) is None else 1)


os.register_at_fork(after_in_child=_leave_it_to_parent)
atexit.register(_end_at_once)


def _session() -> tuple[str, str]:
    """Return what tells one connection from another."""
    context = import_ray().get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _connect(address: str | None, num_cpus: int, timeout_s: float) -> Cluster:
    if address is not None and "://" in address:
        raise BackendError(_NO_CLIENT)
    if address in (None, "auto"):
        found = _left_by_ray_start(timeout_s)
        if found is not None:
            init(found)
            return Cluster(is_ours=True)
        if address == "auto":
            raise BackendError("There is no Ray cluster on this machine. Start one: ray start --head.")
    if address in (None, "local"):
        return Cluster(is_ours=True, address="local", private=PrivateCluster(num_cpus))
    assert address is not None
    if not _answers(address, timeout_s):
        raise BackendError(f"No Ray cluster answers at {address}. Start one there: ray start --head.")
    init(address, address=address)
    return Cluster(is_ours=True, address=address)


def _left_by_ray_start(timeout_s: float) -> str | None:
    """Return the address of the cluster that `ray start` left on this machine, if it still answers."""
    from ray._common.utils import get_ray_address_file

    path = get_ray_address_file(None)
    address = address_in(path)
    try:
        return address if address and _answers(address, timeout_s) else None
    except BackendError as error:
        raise BackendError(f"{path}, which `ray start` has left: {error}") from error


def _answers(address: str, timeout_s: float) -> bool:
    """Tell whether a Ray cluster is there; within seconds, since Ray itself would wait for minutes for one that is not.

    Raises BackendError when there is one that does not let us in.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
        raise BackendError(f"address={address!r}: expected HOST:PORT, as `ray start` prints it.")
    if not _speaks_http2(host.strip("[]"), int(port), timeout_s):
        return False
    core: Any = importlib.import_module("ray._raylet")
    short_waits = {  # in whole seconds
        "RAY_py_gcs_connect_timeout_s": f"{ceil(timeout_s)}",
        "RAY_gcs_rpc_server_connect_timeout_s": f"{ceil(0.4 * timeout_s)}",
    }
    try:
        with environment(short_waits):
            core.Config.initialize("")
            core.GcsClient(address=address)
    except Exception as error:
        if is_about_token(error):
            raise BackendError(explain(address, error)) from error
        return False
    finally:
        core.Config.initialize("")
    return True


def _speaks_http2(host: str, port: int, timeout_s: float) -> bool:
    """Tell whether somebody there answers as servers of gRPC do, Ray's among them: with their settings, at once."""
    deadline = time.monotonic() + timeout_s
    answer = b""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return True  # a matter for Ray itself
            connection.sendall(_HTTP2_GREETING)
            while len(answer) < _HTTP2_FRAME_HEADER_BYTES and time.monotonic() < deadline:
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                part = connection.recv(_HTTP2_FRAME_HEADER_BYTES - len(answer))
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return len(answer) == _HTTP2_FRAME_HEADER_BYTES and answer[3] == _HTTP2_SETTINGS
