"""What is said over HTTP: which path means what, how much of a body is read, and what is counted.

The same wherever requests come in: in the program of `dist-relu serve`, or in Ray Serve's own proxies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dist_relu.integrations.ray_serve.bodies import Question, Refused, Reply, as_json, refusal

BODY_TIMEOUT_S = 30.0
"""So long may a client take to send a body."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_READING, _ASKING = "GET, HEAD", "POST"


@final
@dataclass(frozen=True, kw_only=True)
class About:
    """What a replica says of the model that it serves.  inputs, outputs: tensors, as the V2 protocol describes them."""

    version: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


@final
class Service:
    """Answers requests for one model.

    ask: gets a question answered, by any replica.  about: what one of them says of the model; raises Refused where
    there is none.  most_bytes: of a body.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[Question], Awaitable[Reply]],
        about: Callable[[], Awaitable[About]],
        most_bytes: int,
    ) -> None:
        self._name, self._ask, self._about, self._most_bytes = name, ask, about, most_bytes
        self._counts = _Counts()
        ready, live = self._tell_ready, _tell_live
        self._asking = "/predict", f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"
        self._reading: dict[str, Callable[[], Awaitable[Reply]]] = {
            "/healthz": live,
            "/v2/health/live": live,
            "/readyz": ready,
            "/v2/health/ready": ready,
            f"/v2/models/{name}/ready": ready,
            "/v2": _tell_server,
            f"/v1/models/{name}": self._tell_status,
            f"/v2/models/{name}": self._tell_model,
            "/metrics": self._tell_counts,
        }

    async def respond(self, request: Request) -> Response:
        """Answer a request."""
        begin = time.perf_counter()
        with self._counts.in_flight.track_inprogress():
            path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"
            try:
                reply = await self._reply(path, request)
            except Refused as error:
                reply = refusal(error)
        if path in self._asking:
            self._counts.add(reply, time.perf_counter() - begin)
        headers = {"x-model-version": reply.version} if reply.version else {}
        if reply.status == 405:
            headers["allow"] = _ASKING if path in self._asking else _READING
        if reply.status == 503:
            headers["retry-after"] = "1"
        if reply.status in (408, 413):
            headers["connection"] = "close"  # nobody reads what is left of the body
        return Response(reply.content, reply.status, headers, reply.media_type)

    async def _reply(self, path: str, request: Request) -> Reply:
        if path not in self._asking and path not in self._reading:
            there = ", ".join([*self._asking, *self._reading])
            raise Refused(404, f"There is nothing at {path}. There is: {there}.")
        if path in self._asking:
            if request.method != "POST":
                raise Refused(405, f"{path} takes POST, not {request.method}.")
            return await self._predict(path, request)
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, f"{path} takes GET, not {request.method}.")
        return await self._reading[path]()

    async def _predict(self, path: str, request: Request) -> Reply:
        content = await self._body(request)
        headers = request.headers
        return await self._ask(
            Question(
                content=content,
                media_type=headers.get("content-type", ""),
                accept=headers.get("accept", ""),
                is_v2=path.startswith("/v2/"),
            )
        )

    async def _body(self, request: Request) -> bytes:
        """Read the body, but never more than a piece beyond what it may have.  Raises Refused."""
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._most_bytes:
            raise self._too_long()
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "Content-Encoding: bodies are taken as they are, not compressed.")
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for piece in request.stream():
                    content += piece
                    if len(content) > self._most_bytes:
                        raise self._too_long()
        except TimeoutError:
            raise Refused(408, f"The body was not there within {BODY_TIMEOUT_S:.0f} s.") from None
        except ClientDisconnect:
            raise Refused(400, "The connection ended before the body did.") from None
        return bytes(content)

    def _too_long(self) -> Refused:
        return Refused(413, f"The body has more than {self._most_bytes:,} bytes, which is the most that is taken.")

    async def _tell_ready(self) -> Reply:
        about = await self._about()
        return Reply(status=200, content=as_json({"status": "ready"}), version=about.version)

    async def _tell_status(self) -> Reply:
        about = await self._about()
        status = {"version": about.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return Reply(status=200, content=as_json({"model_version_status": [status]}), version=about.version)

    async def _tell_model(self) -> Reply:
        about = await self._about()
        content = {
            "name": self._name,
            "versions": [about.version],
            "platform": "dist_relu",
            "inputs": about.inputs,
            "outputs": about.outputs,
        }
        return Reply(status=200, content=as_json(content), version=about.version)

    async def _tell_counts(self) -> Reply:
        return Reply(status=200, content=self._counts.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _tell_live() -> Reply:
    return Reply(status=200, content=as_json({"status": "live"}))


async def _tell_server() -> Reply:
    return Reply(status=200, content=as_json({"name": "dist_relu", "extensions": []}))


@final
class _Counts:
    """What Prometheus is told."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.in_flight = Gauge("dist_relu_requests_in_flight", "Requests that are being answered.", registry=registry)
        self._requests = Counter(
            "dist_relu_requests", "Requests for predictions, by status.", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "dist_relu_request_seconds", "How long they took.", buckets=_SECONDS, registry=registry
        )
        self._rows = Counter("dist_relu_rows", "Samples for which there were predictions.", registry=registry)
        self._batch_rows = Histogram(
            "dist_relu_batch_rows",
            "Samples that were computed together with those of a request.",
            buckets=_ROWS,
            registry=registry,
        )
        self._version = Gauge(
            "dist_relu_model", "The version of the model that last answered.", ["version"], registry=registry
        )
        self._last_version = ""

    def add(self, reply: Reply, seconds: float) -> None:
        """Count a request for predictions."""
        self._requests.labels(str(reply.status)).inc()
        self._seconds.observe(seconds)
        if reply.rows:
            self._rows.inc(reply.rows)
            self._batch_rows.observe(reply.batch_rows)
        if reply.version and reply.version != self._last_version:
            self._version.clear()
            self._version.labels(reply.version).set(1)
            self._last_version = reply.version

    def text(self) -> bytes:
        """Return all of it in Prometheus' own format."""
        return generate_latest(self._registry)
