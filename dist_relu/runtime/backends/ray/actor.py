"""The Ray actor that is one worker.

It travels to its node by value, and so imports nothing of the package before it has looked whether the package is
there: a node with other versions is told by name.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import importlib
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, final

EVENT, REPLY, PRINTED = b"E", b"R", b"P"
"""The first byte of a worker's message; a pickle follows, but for the news that the worker has printed something."""


def versions_here() -> dict[str, str]:
    """Return what must be equal on all nodes for equal bits: versions, and the code of dist_relu itself."""
    versions = {"python": platform.python_version()}
    for name in ("numpy", "numba", "dist_relu"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except ImportError as error:
            versions[name] = f"missing ({error})"
    package = sys.modules.get("dist_relu")
    if package is not None and package.__file__ is not None:
        folder = Path(package.__file__).parent
        digest = hashlib.sha256()
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        versions["dist_relu"] += f" (code {digest.hexdigest()[:8]})"
    return versions


@final
class DistReluWorker:
    """An actor that is one worker: it runs its part of tasks, one after the other, and reports meanwhile."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._worker: Any = None
        self._channel: Any = None
        self._listener: Any = None
        self._watch: Any = None
        self._node_pids: Mapping[int, int] = {}  # by rank

    def __repr__(self) -> str:
        """Name the worker; Ray puts it in front of every line that this process prints."""
        return f"worker {self._rank}"

    def describe(self, paths: Sequence[str]) -> tuple[dict[str, str], str, bytes]:
        """Find modules where the coordinator does; returns versions, the host, and the ProcessInfo if it has one."""
        sys.path += [path for path in paths if path not in sys.path]
        versions = versions_here()
        try:
            from dist_relu.runtime.process_info import ProcessInfo
        except ImportError:
            return versions, platform.node(), b""
        import cloudpickle

        import dist_relu.runtime.worker  # noqa: F401 - takes a while, and all do it at once here

        self._mark_what_functions_start()
        gc.freeze()  # so that to look for garbage does not take a good part of a second, see `leave`
        return versions, platform.node(), cloudpickle.dumps(ProcessInfo.in_cluster())

    def listen(self, secret: bytes) -> Any:
        """Listen for workers of other nodes, on Ray's own address only; returns the endpoint."""
        import ray

        from dist_relu.comm.handshake import Listener

        address = ray.util.get_node_ip_address()
        self._listener = Listener(secret, [address], on=address)
        return self._listener.endpoint

    def connect(self, request: tuple[int, Sequence[range], Sequence[Any], bytes]) -> None:
        """Get connections to the workers of other nodes, by (own rank, ranks of each node, endpoints by rank, secret).

        Collective.
        """
        from dist_relu.comm.tcp import connect_nodes

        rank, nodes, endpoints, secret = request
        self._channel = connect_nodes(rank, nodes, self._listener, endpoints, secret)

    def join(self, config: Any) -> Any:
        """Become the worker that `config` says; returns the control memory that it uses.

        It may do so again, in another group, when it has left the one before.
        """
        import cloudpickle

        from dist_relu.runtime.process_info import nodes_of
        from dist_relu.runtime.worker import Worker

        def report(event: Any) -> None:
            self._outbox.put(EVENT + cloudpickle.dumps(event))

        self._worker = Worker(config, report, self._channel)
        (ranks,) = (ranks for ranks in nodes_of(config.peers) if config.rank in ranks)
        self._node_pids = {rank: config.peers[rank].pid for rank in ranks}
        return self._worker.control

    def watch(self, request: tuple[Any, float]) -> None:
        """Look after the workers of this node, which is not the coordinator's; the first one keeps in touch with it.

        request: the coordinator's endpoint for the first one, otherwise None, and how long a worker may be stopped, or
        a node say nothing, before it counts as lost.
        """
        from dist_relu.comm.shared_memory import attach
        from dist_relu.runtime.backends.ray.node_watch import NodeWatch

        endpoint, timeout_s = request
        control = attach(self._worker.control)
        self._watch = NodeWatch(endpoint, control, self._node_pids, self._on_loss, timeout_s)

    def leave(self) -> None:
        """Be no worker of the group any more, and keep nothing of it; the process lives on."""
        for part in (self._watch, self._worker, self._channel, self._listener):
            if part is not None:
                part.close()
        self._watch = self._worker = self._channel = self._listener = None
        gc.collect()  # what functions have left behind in cycles may hold memory of the group

    def run(self, task: Any) -> Iterator[bytes]:
        """Run this worker's part of a task, in a thread, so that events can leave meanwhile; the reply comes last."""
        with suppress(Exception):  # which the thread will raise again
            self._worker.unpack(task)  # imports the user's modules in the main thread, as some of them expect
        self._outbox: SimpleQueue[bytes | BaseException] = SimpleQueue()
        threading.Thread(target=self._work, args=[task], daemon=True).start()
        message = b""
        while message[:1] != REPLY:
            content = self._outbox.get()
            if isinstance(content, BaseException):
                raise content  # it was meant for the process
            message = content
            yield message

    def _mark_what_functions_start(self) -> None:
        """Mark what functions start, so that it ends with this process; see `dist_relu.runtime.backends.ray.reaper`."""
        from dist_relu.runtime.backends.ray import reaper

        mark = secrets.token_hex(16)
        command = [sys.executable, "-I", "-S", reaper.__file__, mark, str(os.getpid())]
        nothing = subprocess.DEVNULL
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, check=True)
        os.environ[reaper.MARK] = mark
        atexit.register(os._exit, 0)  # after what functions register; Ray's own farewell takes seconds

    def _on_loss(self, what: str) -> None:
        """End all workers of this node, for Ray may take a minute to miss them.  Called by the heartbeat."""
        for pid in self._node_pids.values():
            if pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os._exit(1)

    def _work(self, task: Any) -> None:
        before = _output_size()
        try:
            reply = REPLY + self._worker.run(task)
            if _output_size() > before:
                self._outbox.put(PRINTED)
            self._outbox.put(reply)
        except BaseException as error:
            self._outbox.put(error)


def _output_size() -> int:
    """Tell how much this process has printed; Ray sends it to files."""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.fstat(1).st_size + os.fstat(2).st_size
