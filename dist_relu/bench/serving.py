"""`dist-relu serve` beside a bare FastAPI with onnxruntime: the same model, clients and bodies, on loopback.

The clients are a process of their own, and so is the peer. Every server is asked by all clients at once, each of which
waits for its answer before it asks again, until so many requests were made.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dist_relu.checkpoint import save_model
from dist_relu.errors import BackendError
from dist_relu.nn import mlp

_INPUTS, _HIDDEN, _CLASSES = 784, (256, 128), 10
_START_TIMEOUT_S = 120.0
_ANSWER_TIMEOUT_S = 120.0
_WARM_UP = 200
"""Requests before those that are timed."""


@dataclass(frozen=True)
class Load:
    """What became of many requests to one server.  lost: those without a prediction.  Times in ms."""

    server: str
    requests: int
    lost: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float


def run(requests: int, clients: int, replicas: int, rounds: int) -> Iterator[list[Load]]:
    """Measure both servers by turns, and then ours while its model is replaced and a replica is killed.

    Yields all that was measured after each load.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "model.safetensors", Path(folder) / "newer.safetensors"]
        for seed, path in enumerate(paths):
            save_model(mlp(_HIDDEN, _CLASSES).build((_INPUTS,)).initialize(seed), path)
        onnx_path = _export(paths[0])
        with _ours(paths[0], replicas) as ours, _peer(context, onnx_path) as peer:
            loads: dict[str, list[Load]] = {"dist-relu serve": [], "FastAPI + onnxruntime": []}
            for name, url in [("dist-relu serve", ours), ("FastAPI + onnxruntime", peer)]:
                _load(context, name, url, _WARM_UP, clients)
            for _ in range(rounds):
                for name, url in [("dist-relu serve", ours), ("FastAPI + onnxruntime", peer)]:
                    loads[name].append(_load(context, name, url, requests, clients))
                    yield _typical(loads)

            def disturb() -> None:
                shutil.copy(paths[1], paths[0].with_suffix(".new"))
                os.replace(paths[0].with_suffix(".new"), paths[0])
                _kill_a_replica()

            disturbed = _load(context, "with a reload and a killed replica", ours, requests, clients, disturb)
            yield [*_typical(loads), disturbed]


def _typical(loads: Mapping[str, Sequence[Load]]) -> list[Load]:
    """Of each server that was asked, the load with the median time of an answer."""
    return [sorted(each, key=lambda one: one.p50_ms)[len(each) // 2] for each in loads.values() if each]


def _export(path: Path) -> Path:
    from dist_relu.checkpoint import load_model
    from dist_relu.integrations.onnx import export_model

    export_model(load_model(path), path.with_suffix(".onnx"))
    return path.with_suffix(".onnx")


@contextmanager
def _ours(path: Path, replicas: int) -> Iterator[str]:
    from dist_relu.integrations.ray_serve.server import ModelServer

    with ModelServer(
        path,
        name="model",
        host="127.0.0.1",
        port=0,
        address="local",
        replicas=replicas,
        max_batch_size=64,
        batch_wait_timeout_s=0.0,
        max_body_bytes=2**20,
    ) as server:
        yield server.url


def _kill_a_replica() -> None:
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    replica = next(actor for actor in actors if actor["name"].startswith("SERVE_REPLICA"))
    ray.kill(ray.get_actor(**replica))


@contextmanager
def _peer(context: SpawnContext, path: Path) -> Iterator[str]:
    here, there = context.Pipe()
    process = context.Process(target=_serve_peer, args=(str(path), there), daemon=True)
    process.start()
    try:
        yield _received(here, process, _START_TIMEOUT_S)
    finally:
        process.terminate()
        process.join()


def _serve_peer(path: str, answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who measures gets it, too
    import socket

    import onnxruntime
    import uvicorn
    from fastapi import FastAPI, Request

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    app = FastAPI()

    async def predict(request: Request) -> dict[str, Any]:
        content = await request.json()
        (outputs,) = session.run(None, {name: np.asarray(content["instances"], np.float32)})
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).tolist()
        classes = outputs.argmax(axis=1).tolist()
        return {"predictions": [{"class": c, "probabilities": p} for c, p in zip(classes, probabilities, strict=True)]}

    predict.__annotations__["request"] = Request  # FastAPI looks for names of the module
    app.post("/predict")(predict)
    bound = socket.create_server(("127.0.0.1", 0))
    answer.send(f"http://127.0.0.1:{bound.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run([bound])


def _load(
    context: SpawnContext, name: str, url: str, requests: int, clients: int, disturb: Callable[[], None] | None = None
) -> Load:
    """Ask a server.  disturb: is called when a third of the answers have come."""
    here, there = context.Pipe()
    process = context.Process(target=_ask, args=(url, requests, clients, there), daemon=True)
    process.start()
    try:
        _received(here, process, _START_TIMEOUT_S)  # a third is done
        if disturb:
            disturb()
        milliseconds, lost, seconds = _received(here, process, requests * _ANSWER_TIMEOUT_S)
    finally:
        process.terminate()
        process.join()
    p50, p90, p99, worst = np.percentile(milliseconds, [50, 90, 99, 100]).tolist()
    return Load(name, requests, lost, requests / seconds, p50, p90, p99, worst)


def _received(here: Connection, process: SpawnProcess, timeout_s: float) -> Any:
    """What a process has sent.  Raises BackendError where it has ended, or takes too long."""
    with suppress(EOFError):
        deadline = perf_counter() + timeout_s
        while process.is_alive() and perf_counter() < deadline:
            if here.poll(0.1):
                return here.recv()
    raise BackendError(f"A process of the benchmark (pid {process.pid}) ended or did not answer.")


def _ask(url: str, requests: int, clients: int, answer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who measures gets it, too
    answer.send(asyncio.run(_ask_all(url, requests, clients, answer)))


async def _ask_all(url: str, requests: int, clients: int, answer: Connection) -> tuple[list[float], int, float]:
    """Return how long each request took in ms, how many were lost, and how long all took in seconds."""
    host, port = str(urlsplit(url).hostname), int(urlsplit(url).port or 0)
    rng = np.random.default_rng(0)
    bodies = [json.dumps({"instances": rng.random((1, _INPUTS)).round(3).tolist()}).encode() for _ in range(64)]
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    messages = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    milliseconds: list[float] = []
    lost = asked = 0

    async def client() -> None:
        nonlocal lost, asked
        reader, writer = await asyncio.open_connection(host, port)
        while asked < requests:
            asked += 1
            begin = perf_counter()
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    writer.write(messages[asked % len(messages)])
                    header = await reader.readuntil(b"\r\n\r\n")
                    (length,) = (
                        line[15:] for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:")
                    )
                    content = await reader.readexactly(int(length))
                lost += b" 200 " not in header[:20] or b"predictions" not in content
            except (OSError, EOFError, TimeoutError):
                lost += 1
                reader, writer = await asyncio.open_connection(host, port)
            milliseconds.append(1000 * (perf_counter() - begin))
            if len(milliseconds) == max(requests // 3, 1):
                answer.send(None)
        writer.close()

    begin = perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return milliseconds, lost, perf_counter() - begin
