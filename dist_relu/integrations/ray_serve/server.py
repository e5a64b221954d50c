"""A server of one model: replicas on Ray, and in front of them HTTP in this process.

A request whose replica is lost is asked again of another: predictions change nothing, so nobody needs to know.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

import uvicorn
from ray import exceptions, serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dist_relu.errors import BackendError
from dist_relu.integrations.ray_serve import application
from dist_relu.integrations.ray_serve.bodies import Question, Refused, Reply
from dist_relu.integrations.ray_serve.gathering import Gatherer
from dist_relu.integrations.ray_serve.http import About, Service
from dist_relu.integrations.ray_serve.limits import MOST_CONNECTIONS
from dist_relu.runtime.backends.ray.cluster import Cluster

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT_S = 60.0
"""So long may an answer take, with all that it takes to replace a replica that was lost."""
_READY_TIMEOUT_S = 2.0
_CALLS = 2
"""So many are on their way to each replica: while it computes for one, the other gets there."""
_DRAIN_S = 20
"""So long may requests take that have come when the server is to end."""
_PAUSE_S = 0.1
_LOST = exceptions.RayActorError, exceptions.WorkerCrashedError, DeploymentUnavailableError


@final
class ModelServer:
    """Serves the model at `path` until it is closed.

    host, port: where HTTP is listened to; port 0 is any that is free.  address: of a Ray cluster, see `start`.
    Others are the arguments of `application`.
    Raises BackendError where there is no cluster, or where it runs an application of this name; OSError where the port
    is taken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        host: str,
        port: int,
        address: str | None,
        replicas: int,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        max_body_bytes: int,
    ) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._is_ours = self._is_running = False
        self._socket = _bound(host, port)
        try:
            self._cluster = Cluster.join(address, replicas, _CONNECT_TIMEOUT_S)
        except BaseException:
            self._socket.close()
            raise
        try:
            self.handle = self._run(
                application(
                    path,
                    name=name,
                    replicas=replicas,
                    max_batch_size=max_batch_size,
                    batch_wait_timeout_s=batch_wait_timeout_s,
                    max_body_bytes=max_body_bytes,
                )
            )
            gatherer = Gatherer(self._ask, _CALLS * replicas, max_batch_size)
            self._listen(Service(name, gatherer.ask, self._about, max_body_bytes))
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it is, for clients on this machine."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def wait(self) -> None:
        """Wait for ever.  Raises BackendError when the cluster was lost."""
        while True:
            self._cluster.check()
            if self._thread is None or not self._thread.is_alive():
                raise BackendError("The server of HTTP has ended.")
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Listen no more, answer those who have asked, and end the replicas; the cluster too if it is private."""
        if self._thread is not None:
            self._http.should_exit = True
            self._thread.join()
            self._thread = None
        self._socket.close()
        try:
            if self._cluster.is_there and not self._cluster.is_private:  # which ends with all that is in it
                if self._is_running:
                    serve.delete(self._name)
                if self._is_ours:
                    serve.shutdown()
        finally:
            self._is_running = self._is_ours = False
            self._cluster.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, app: Any) -> Any:
        """Let the cluster run it; returns the handle."""
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._is_ours = not _is_serving()
        if self._is_ours:
            serve.start(proxy_location="Disabled", logging_config=quiet)
        elif self._name in serve.status().applications:
            raise BackendError(f"This cluster serves {self._name!r} already. Choose another --name.")
        self._is_running = True
        try:
            return serve.run(app, name=self._name, route_prefix=None, logging_config=quiet)
        except (RuntimeError, TimeoutError) as error:
            raise BackendError(f"The replicas did not start: {' '.join(str(error).split())}") from error

    def _listen(self, service: Service) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await service.respond(Request(scope, receive))
            await response(scope, receive, send)

        self._http = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        # A thread of its own, so that signals end this program as they end others of ours.
        self._thread = threading.Thread(
            target=self._http.run, args=([self._socket],), name="dist_relu http", daemon=True
        )
        self._thread.start()
        while not self._http.started:
            if not self._thread.is_alive():
                raise BackendError("The server of HTTP could not start.")
            time.sleep(0.01)

    async def _ask(self, questions: Sequence[Question]) -> Sequence[Reply]:
        return await self._surely(lambda: self.handle.answer_all.remote(questions), _ANSWER_TIMEOUT_S)

    async def _about(self) -> About:
        return await self._surely(self.handle.about.remote, _READY_TIMEOUT_S)

    async def _surely(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Call replicas until one has answered.  Raises Refused where none does in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        return await call()
                    except BackPressureError:
                        raise Refused(503, "More requests wait than can be answered soon. Try again later.") from None
                    except _LOST:
                        _log.warning(
                            "A replica was lost. What it had been asked is asked of another, and it is replaced."
                        )
                        await asyncio.sleep(_PAUSE_S)
        raise Refused(503, f"No replica has answered within {timeout_s:.0f} s. Try again later.")


def _bound(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet.  Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{host}:{port} can't be listened to: {error.strerror}") from None
    return bound


def _is_serving() -> bool:
    """Tell whether Ray Serve runs in the cluster already."""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True
