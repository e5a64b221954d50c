"""How this process comes to a Ray cluster, and how it leaves it.

Ray holds one connection for each process. If the user's script has made it, it is used and left alone; otherwise it
is made here, shared by all backends of this process, and ended with the last of them.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from dist_relu.backends import undertaker
from dist_relu.errors import BackendError, UnsuitableBackend

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_SHORT_WAITS = {"RAY_py_gcs_connect_timeout_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "2"}
_MAX_ADDRESS_BYTES = 1000
_MAX_PORT = 65535

_HTTP2_SETTINGS = 4
_HTTP2_FRAME_HEADER_BYTES = 9
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _HTTP2_SETTINGS, 0, 0, 0, 0, 0])
"""RFC 9113, sections 3.4 and 4.1: what a client says first, and a frame of settings with none."""

_LOOPBACK = "127.0.0.1"
_NO_CLIENT = (
    "Ray's client (ray://...) shares no memory with the workers. "
    "Run this program on a node of the cluster, with address='HOST:PORT' or none."
)


@final
class Cluster:
    """A connection to a Ray cluster.

    is_ours: we made the connection.  address: what the user called it by.  undertaker: of a private cluster, which was
    started here for this process alone.
    """

    def __init__(
        self, is_ours: bool, address: str | None = None, undertaker: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._is_ours = is_ours
        self._undertaker = undertaker
        self._session = _session()
        self._addresses = {address, self._session[0]}
        self._num_users = 0

    @classmethod
    def join(cls, address: str | None, num_cpus: int) -> Cluster:
        """The cluster that this process is connected to, or that it is now connected to.

        address: of the cluster. Without one it is the one in RAY_ADDRESS, or the one that `ray start` left on this
        machine, or else one of our own with `num_cpus`, which only this machine can reach.
        Raises BackendError when there is no way to it.
        """
        global _cluster  # noqa: PLW0603 - Ray has one connection for each process
        ray = import_ray()
        if ray.util.client.ray.is_connected():
            raise BackendError(_NO_CLIENT)
        if not ray.is_initialized():
            _cluster = _connect(address or os.environ.get("RAY_ADDRESS") or None, num_cpus)
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
        return self._undertaker is not None

    @property
    def is_connected(self) -> bool:
        """Whether the connection still stands: the user's script may end it, and make another one."""
        return bool(import_ray().is_initialized()) and _session() == self._session

    def leave(self) -> None:
        """End the connection if this was the last to use it and we made it; a private cluster ends with it."""
        self._num_users -= 1
        if self._num_users:
            return
        if self._is_ours and self.is_connected:
            _disconnect()
        if self._undertaker is not None:
            self._undertaker.communicate()


_cluster: Cluster | None = None


def _leave_it_to_parent() -> None:
    """In a forked process: let its end neither end the connection and the cluster of its parent, nor wait for them."""
    if _cluster is not None:
        worker = import_ray()._private.worker
        atexit.unregister(worker.shutdown)
        if worker._global_node is not None:
            worker._global_node.all_processes.clear()  # which it would kill


os.register_at_fork(after_in_child=_leave_it_to_parent)


def import_ray() -> Any:
    """The module `ray`.  Raises BackendError when it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UnsuitableBackend(
            f"The Ray backend needs Ray ({error}). Install it: pip install 'dist_relu[ray]'."
        ) from None
    return ray


def _session() -> tuple[str, str]:
    """What tells one connection from another."""
    context = import_ray().get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _connect(address: str | None, num_cpus: int) -> Cluster:
    if address is not None and "://" in address:
        raise BackendError(_NO_CLIENT)
    if address in (None, "auto"):
        found = _left_by_ray_start()
        if found is not None:
            _init(found)
            return Cluster(is_ours=True)
        if address == "auto":
            raise BackendError("There is no Ray cluster on this machine. Start one: ray start --head.")
    if address in (None, "local"):
        return Cluster(is_ours=True, address="local", undertaker=_start(num_cpus))
    assert address is not None
    if not _answers(address):
        raise BackendError(f"No Ray cluster answers at {address}. Start one there: ray start --head.")
    _init(address, address=address)
    return Cluster(is_ours=True, address=address)


def _left_by_ray_start() -> str | None:
    """The address of the cluster that `ray start` left on this machine, if it still answers.

    The note lies where every user of the machine may write, so only one of this user or of root is believed.
    """
    from ray._common.utils import get_ray_address_file

    path = get_ray_address_file(None)
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
    try:
        return address if address and _answers(address) else None
    except BackendError as error:
        raise BackendError(f"{path}, which `ray start` has left: {error}") from error


def _answers(address: str) -> bool:
    """Whether a Ray cluster is there; within seconds, since Ray itself would wait for minutes for one that is not.

    Raises BackendError when there is one that does not let us in.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
        raise BackendError(f"address={address!r}: expected HOST:PORT, as `ray start` prints it.")
    if not _speaks_http2(host.strip("[]"), int(port)):
        return False
    core: Any = importlib.import_module("ray._raylet")
    try:
        with _environment(_SHORT_WAITS):
            core.Config.initialize("")
            core.GcsClient(address=address)
    except Exception as error:
        if _is_about_token(error):
            raise BackendError(_explain(address, error)) from error
        return False
    finally:
        core.Config.initialize("")
    return True


def _speaks_http2(host: str, port: int) -> bool:
    """Whether somebody there answers as servers of gRPC do, Ray's among them: with their settings, at once."""
    deadline = time.monotonic() + _CONNECT_TIMEOUT_S
    answer = b""
    try:
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S) as connection:
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


def _init(where: str, **options: Any) -> Any:
    """Connect, quietly.  Raises BackendError that says what to do."""
    ray = import_ray()
    try:
        with _terminate_as_before(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Ray announces its plans to its users; ours can't act
            return ray.init(logging_level=logging.ERROR, **options)
    except BaseException as error:
        _disconnect()
        if not isinstance(error, Exception):
            raise
        raise BackendError(_explain(where, error)) from error


def _explain(where: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if _is_about_token(error):
        return (
            f"The Ray cluster at {where} refuses this process's token, or has one and this process has none. "
            "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the token (by default "
            f"~/.ray/auth_token), as they were for `ray start`; or RAY_AUTH_MODE=disabled for both. Ray says: {text}"
        )
    return f"Can't join the Ray cluster at {where}. Ray says: {text}"


def _is_about_token(error: Exception) -> bool:
    causes = " ".join([str(error), str(error.__cause__ or ""), type(error).__name__])
    return any(word in causes for word in ("Auth", "authenticat", "token"))


def _start(num_cpus: int) -> subprocess.Popen[bytes]:
    """Start a cluster that ends with this process, listens on the loopback address, and leaves nothing behind.

    Ray would take the address of a network interface instead, and write a token into ~/.ray that switches the
    authentication of later clusters on. Returns the process that clears up when its standard input closes.
    """
    from ray._private import ray_constants

    folder = tempfile.mkdtemp(prefix="dist_relu_ray_", dir="/tmp")  # sockets need a short path
    cleaner = subprocess.Popen(
        [sys.executable, "-I", "-S", undertaker.__file__, folder],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # it need not yield to anybody
    if not _has_token():
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    may_leave_loopback = ray_constants.ENABLE_RAY_CLUSTER
    try:
        ray_constants.ENABLE_RAY_CLUSTER = False
        with _environment(variables):
            context = _init("this machine", address="local", num_cpus=num_cpus, _temp_dir=folder)
        if context.address_info["node_ip_address"] != _LOOPBACK:
            _disconnect()
            raise BackendError("This Ray can't be kept to the loopback address. Start a cluster: ray start --head.")
    except BaseException:
        cleaner.communicate()
        raise
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_leave_loopback
    return cleaner


def _has_token() -> bool:
    """Whether the user has set up Ray's authentication, one way or the other."""
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(name in os.environ for name in names) or os.path.exists(os.path.expanduser("~/.ray/auth_token"))


def _disconnect() -> None:
    """End the connection, and let Ray look again at the environment and the home folder when it next connects."""
    import_ray().shutdown()
    core: Any = importlib.import_module("ray._raylet")
    if hasattr(core, "AuthenticationTokenLoader"):  # since 2.52
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables meanwhile, and undo whatever Ray sets."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _terminate_as_before() -> Iterator[None]:
    """Keep the user's handler of SIGTERM, which Ray would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
